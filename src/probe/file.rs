//! `file`: a file exists, contains a text, or is gone. Disks can hang: the thread that hangs on them does not hold the
//! hook.

use std::path::{Path, PathBuf};

use super::blocking;
use crate::client::files;

/// `contains` looks at the beginning of a file: what signals readiness is small.
const MOST_SEARCHED: u64 = 1 << 20;

/// What is wanted of a file.
#[derive(Clone, Debug)]
pub enum Wanted {
    Present,
    Absent,
    Contains(String),
}

/// Looks once.
///
/// # Errors
/// Why it does not hold.
pub async fn hold(path: &Path, wanted: &Wanted) -> Result<(), String> {
    let (path, wanted): (PathBuf, Wanted) = (path.into(), wanted.clone());
    blocking(move || {
        let why = |error: std::io::Error| files::reason(&error);
        let looked = match wanted {
            Wanted::Present => path.metadata().map(drop).map_err(why),
            Wanted::Absent => match path.symlink_metadata() {
                Ok(_) => Err("it is still there".into()),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(why(error)),
            },
            Wanted::Contains(text) => return file_contains(&path, &text),
        };
        looked.map_err(|why| format!("{}: {why}", path.display()))
    })
    .await
}

fn file_contains(path: &Path, text: &str) -> Result<(), String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let read = files::open(path)?.take(MOST_SEARCHED).read_to_end(&mut bytes);
    read.map_err(|error| format!("{}: {}", path.display(), files::reason(&error)))?;
    if text.is_empty() || bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
        return Ok(());
    }
    Err(format!("{}: it does not contain the text yet", path.display()))
}
