//! The `file` step: touch, write or remove a file; what `sh -c 'echo … > …'` is used for where the image has no shell.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustix::fs::OFlags;

use super::{Context, End, Kind};
use crate::{keys::keys, problem::Scope};

/// One change of one file.
#[derive(Clone, Debug)]
pub struct File {
    path: PathBuf,
    change: Change,
}

#[derive(Clone, Debug)]
enum Change {
    Touch,
    /// The whole content, put there by a rename, so that no reader ever sees half of it.
    Write {
        content: Vec<u8>,
        mode: Option<u32>,
    },
    Append {
        content: Vec<u8>,
        mode: Option<u32>,
    },
    Remove,
}

keys! {
    /// `file = { touch = "/tmp/x" }`, `{ write = "/tmp/x", content = "…" }`, `{ append = … }`, `{ remove = "/tmp/x" }`.
    #[derive(Debug)]
    pub struct Typed {
        /// Create the file if it is missing and set its time to now
        touch: Option<PathBuf> = One("PATH"),
        /// Replace the file by the content, in one go
        write: Option<PathBuf> = One("PATH"),
        /// Add the content at the end of the file
        append: Option<PathBuf> = One("PATH"),
        /// Remove the file; one that is not there is fine
        remove: Option<PathBuf> = One("PATH"),
        /// What to write
        content: Option<String> = One("TEXT"),
        /// Permissions in octal, such as 0640; without it 0644, less the umask
        mode: Option<String> = One("OCTAL"),
    }
}

impl File {
    /// What it touches, writes or removes.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Kind for File {
    type Typed = Typed;

    fn mean(typed: Typed, scope: &mut Scope<'_>) -> Option<Self> {
        let mode = match typed.mode.as_deref().map(|mode| u32::from_str_radix(mode, 8)) {
            None => None,
            Some(Ok(mode)) if mode <= 0o7777 => Some(mode),
            Some(_) => {
                scope.problem(
                    "mode",
                    "it is no octal number up to 7777",
                    "write it in quotes, such as \"0640\"".to_owned(),
                );
                return None;
            }
        };
        let (has_content, has_mode) = (typed.content.is_some(), mode.is_some());
        let content = typed.content.unwrap_or_default().into_bytes();
        let (path, change) = match (typed.touch, typed.write, typed.append, typed.remove) {
            (Some(path), None, None, None) => (path, Change::Touch),
            (None, Some(path), None, None) => (path, Change::Write { content, mode }),
            (None, None, Some(path), None) => (path, Change::Append { content, mode }),
            (None, None, None, Some(path)) => (path, Change::Remove),
            _ => {
                scope.problem(
                    "",
                    "it needs exactly one of touch, write, append, remove",
                    "file = { write = \"/var/tmp/hello.txt\", content = \"Hello!\" }".to_owned(),
                );
                return None;
            }
        };
        if path.as_os_str().is_empty() {
            scope.problem("", "the path is empty", "name a file".to_owned());
            return None;
        }
        if matches!(change, Change::Touch | Change::Remove) && (has_content || has_mode) {
            scope.problem(
                "content",
                "only write and append take content and mode",
                "take it out, or use write".to_owned(),
            );
            return None;
        }
        Some(File { path, change })
    }

    async fn run(&self, context: &Context) -> End {
        context.progress.set(format!("{}: waiting for the file system", self.path.display()));
        let change = self.clone();
        // A file system can hang (a dead network mount); then only this thread does, and the step's timeout still holds.
        match crate::task::blocking(move || change.apply()).await {
            Ok(Ok(done)) => End::Done(done),
            Ok(Err(error)) => End::Failed(format!("{}: {error}", self.path.display())),
            Err(_) => End::Failed(format!("{}: the agent is ending", self.path.display())),
        }
    }
}

impl File {
    fn apply(&self) -> io::Result<String> {
        let path = self.path.as_path();
        match &self.change {
            Change::Touch => {
                let file = open(path, OpenOptions::new().append(true).create(true), None)?;
                file.set_modified(SystemTime::now())?;
                Ok(format!("touched {}", path.display()))
            }
            Change::Write { content, mode } => {
                write_whole(path, content, *mode)?;
                Ok(format!("wrote {} bytes to {}", content.len(), path.display()))
            }
            Change::Append { content, mode } => {
                open(path, OpenOptions::new().append(true).create(true), *mode)?.write_all(content)?;
                Ok(format!("added {} bytes to {}", content.len(), path.display()))
            }
            Change::Remove => match fs::remove_file(path) {
                Ok(()) => Ok(format!("removed {}", path.display())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Ok(format!("{} was not there", path.display()))
                }
                Err(error) => Err(error),
            },
        }
    }
}

/// Opens without ever waiting: a FIFO that nobody reads gives an error instead of a hang.
fn open(path: &Path, options: &mut OpenOptions, mode: Option<u32>) -> io::Result<fs::File> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let file = options.custom_flags(flags.cast_signed()).mode(mode.unwrap_or(0o644)).open(path).map_err(|error| {
        if error.raw_os_error() == Some(libc::ENXIO) {
            io::Error::other("it is a FIFO or socket that nobody reads")
        } else {
            error
        }
    })?;
    if let Some(mode) = mode
        && file.metadata()?.is_file()
    {
        file.set_permissions(fs::Permissions::from_mode(mode))?;
    }
    Ok(file)
}

/// Writes aside and renames, so that nobody sees half a file and a full disk leaves the old one whole. What is no
/// regular file (a FIFO, /dev/stdout) or a symbolic link is written in place.
fn write_whole(path: &Path, content: &[u8], mode: Option<u32>) -> io::Result<()> {
    let existing = fs::symlink_metadata(path).ok();
    if let Some(existing) = &existing
        && !existing.is_file()
    {
        let kind = existing.file_type();
        if kind.is_dir() {
            return Err(io::Error::other("it is a directory"));
        }
        let truncate = !kind.is_fifo() && !kind.is_char_device();
        return open(path, OpenOptions::new().write(true).truncate(truncate).create(true), mode)?.write_all(content);
    }
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".boathook-{}", std::process::id()));
    let aside = PathBuf::from(aside);
    // A file that exists keeps its permissions unless others are asked for.
    let mode = mode.or(existing.map(|existing| existing.permissions().mode() & 0o7777));
    let written = open(&aside, OpenOptions::new().write(true).truncate(true).create(true), mode)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&aside, path));
    if let Err(error) = written {
        let _ = fs::remove_file(&aside);
        // A folder that takes no new file may still hold a writable one.
        if error.kind() == io::ErrorKind::PermissionDenied {
            return open(path, OpenOptions::new().write(true).truncate(true), None)?.write_all(content);
        }
        return Err(error);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &Path, change: Change) -> File {
        File { path: path.into(), change }
    }

    #[test]
    fn touches_writes_adds_and_removes() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("hello.txt");
        let write = |content: &str, mode| Change::Write { content: content.into(), mode };
        file(&path, Change::Touch).apply().expect("touched");
        assert_eq!(fs::read(&path).expect("there"), b"");
        file(&path, write("Hello postStart!", Some(0o600))).apply().expect("written");
        file(&path, Change::Append { content: b" again".into(), mode: None }).apply().expect("added");
        assert_eq!(fs::read(&path).expect("there"), b"Hello postStart! again");
        file(&path, write("new", None)).apply().expect("replaced");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        file(&path, Change::Remove).apply().expect("removed");
        assert_eq!(file(&path, Change::Remove).apply().expect("fine"), format!("{} was not there", path.display()));
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0, "nothing is left aside");
    }

    #[test]
    fn says_why_and_keeps_the_old() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("no/such/folder");
        let write = Change::Write { content: b"x".into(), mode: None };
        assert!(file(&path, write.clone()).apply().expect_err("no folder").to_string().contains("No such file"));
        let fifo = folder.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a fifo");
        assert_eq!(
            file(&fifo, write.clone()).apply().expect_err("nobody reads").to_string(),
            "it is a FIFO or socket that nobody reads"
        );
        assert_eq!(file(folder.path(), write).apply().expect_err("a folder").to_string(), "it is a directory");
    }
}
