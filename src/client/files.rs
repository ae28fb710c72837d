//! Small files that requests need: certificates, keys, tokens, bodies. Opened without blocking and only if regular,
//! so that a FIFO or a device in their place cannot hang the hook.

use std::{fs::File, io::Read, path::Path};

use crate::sys::file::open_regular;

/// A bundle of all public authorities has about 250 KB, a token a few hundred bytes.
pub const LARGEST_SECRET: u64 = 2 << 20;
/// The body of a request is held while it is sent.
pub const LARGEST_BODY: u64 = 16 << 20;

/// Opens a regular file.
///
/// # Errors
/// Says which file and why.
pub fn open(path: &Path) -> Result<File, String> {
    let why = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    open_regular(path).map_err(|error| why(&reason(&error)))
}

/// Reads a whole regular file of at most `most` bytes.
///
/// # Errors
/// Says which file and why.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = open(path)?.take(most + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("{}: {}", path.display(), reason(&error)))?;
    if bytes.len() as u64 > most {
        return Err(format!("{}: it is larger than {most} bytes", path.display()));
    }
    Ok(bytes)
}

/// Reads a secret of one line (a token, a password), without the newline at its end.
///
/// # Errors
/// Says which file and why, never what is in it.
pub fn read_line(path: &Path) -> Result<String, String> {
    let wrong = |why: &str| format!("{}: {why}", path.display());
    let text = String::from_utf8(read(path, LARGEST_SECRET)?).map_err(|_| wrong("it is not text"))?;
    let line = text.trim_end_matches(['\r', '\n']);
    if line.is_empty() {
        return Err(wrong("it is empty"));
    }
    if line.chars().any(char::is_control) {
        return Err(wrong("it has more than one line"));
    }
    Ok(line.into())
}

/// The words of an I/O error as they are shown everywhere: `connection refused`, without the number.
pub fn reason(error: &std::io::Error) -> String {
    let mut text = error.to_string();
    if let Some(at) = text.find(" (os error") {
        text.truncate(at);
    }
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        // `No such file` becomes `no such file`; `TLS …` stays.
        (Some(first), Some(second)) if second.is_lowercase() => {
            format!("{}{}", first.to_lowercase(), &text[first.len_utf8()..])
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_no_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let shown = |name: &str| at(name).display().to_string();
        assert_eq!(read_line(&at("absent")), Err(format!("{}: no such file or directory", shown("absent"))));
        std::fs::create_dir(at("folder")).expect("a folder");
        assert_eq!(read_line(&at("folder")), Err(format!("{}: it is a folder, not a regular file", shown("folder"))));
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("fifo"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .expect("a FIFO");
        assert_eq!(read_line(&at("fifo")), Err(format!("{}: it is a FIFO, not a regular file", shown("fifo"))));
        for (text, outcome) in
            [("s3cret\n", Ok("s3cret")), ("\n", Err("it is empty")), ("a\nb\n", Err("it has more than one line"))]
        {
            std::fs::write(at("token"), text).expect("a file");
            let outcome = outcome.map(String::from).map_err(|why| format!("{}: {why}", shown("token")));
            assert_eq!(read_line(&at("token")), outcome);
        }
        assert_eq!(read(&at("token"), 2), Err(format!("{}: it is larger than 2 bytes", shown("token"))));
    }
}
