//! Says why a folder or a snapshot in it does not do, and what helps. Pure but for the user's number.

use std::{io, path::Path};

use rustix::io::Errno;

/// What went wrong, but for the why.
#[derive(Clone, Copy, Debug)]
pub struct Reason<'a> {
    pub place: &'a Path,
    /// `cannot be read`
    pub what: &'a str,
    /// ` after 12.3 MB`, or nothing.
    pub detail: &'a str,
}

impl Reason<'_> {
    /// The whole sentence, as an error of the same kind.
    pub fn of(self, error: Errno) -> io::Error {
        let Self { place, what, detail } = self;
        let (why, help) = explain(error);
        let kind = io::Error::from(error).kind();
        // Only for those whose rights depend on who asks.
        let who = match error {
            Errno::ACCESS | Errno::PERM => format!(" for user {}", rustix::process::geteuid().as_raw()),
            _ => String::new(),
        };
        let text = match why {
            Some(why) => format!("{}: {what}{detail}: {why}{who}; {help}", place.display()),
            None => format!("{}: {what}{detail}: {}", place.display(), io::Error::from(error)),
        };
        io::Error::new(kind, text)
    }
}

/// What the error means here, and what helps. Errors that have no remedy of their own keep the system's words.
fn explain(error: Errno) -> (Option<&'static str>, &'static str) {
    let (why, help) = match error {
        Errno::NOSPC => ("no space left on the volume", "make it larger, free some of it, or lower keep"),
        Errno::DQUOT => ("the quota of the volume is used up", "raise it, free some of it, or lower keep"),
        Errno::FBIG => ("the file system takes no file so large", "save less, or use another volume"),
        Errno::ROFS => ("the file system is read-only", "mount the volume without readOnly"),
        Errno::ACCESS | Errno::PERM => {
            ("permission denied", "set fsGroup in the pod's securityContext, or change the owner of the folder")
        }
        Errno::NOENT => ("it is not there", "mount the volume there, or create the folder"),
        Errno::NOTDIR => ("it is, or is below, something that is no folder", "name the folder of a mounted volume"),
        Errno::STALE => ("the server has forgotten it (stale file handle)", "see that the volume is mounted anew"),
        Errno::IO => ("input/output error of the disk or the server", "look at the node's kernel log"),
        Errno::OVERFLOW => ("the highest number is taken", "remove the file that has it"),
        _ => return (None, ""),
    };
    (Some(why), help)
}

/// `12.3 MB`, `0.1 MB`, `0 bytes`: how far a write came.
pub fn megabytes(bytes: u64) -> String {
    match bytes {
        0..100_000 => format!("{bytes} bytes"),
        _ => format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_where_what_why_and_what_helps() {
        let reason = |error, detail| Reason { place: Path::new("/state"), what: "cannot be written", detail }.of(error);
        for (error, detail, kind, text) in [
            (
                Errno::NOSPC,
                " after 12.3 MB",
                io::ErrorKind::StorageFull,
                "/state: cannot be written after 12.3 MB: no space left on the volume; make it larger, free some of \
                 it, or lower keep",
            ),
            (
                Errno::DQUOT,
                "",
                io::ErrorKind::QuotaExceeded,
                "/state: cannot be written: the quota of the volume is used up; raise it, free some of it, or lower \
                 keep",
            ),
            (
                Errno::ROFS,
                "",
                io::ErrorKind::ReadOnlyFilesystem,
                "/state: cannot be written: the file system is read-only; mount the volume without readOnly",
            ),
            (
                Errno::NXIO,
                "",
                io::Error::from(Errno::NXIO).kind(),
                "/state: cannot be written: No such device or address (os error 6)",
            ),
        ] {
            let error = reason(error, detail);
            assert_eq!((error.kind(), error.to_string().as_str()), (kind, text));
        }
        let user = rustix::process::geteuid().as_raw();
        assert_eq!(
            reason(Errno::ACCESS, "").to_string(),
            format!(
                "/state: cannot be written: permission denied for user {user}; set fsGroup in the pod's \
                 securityContext, or change the owner of the folder"
            )
        );
    }

    #[test]
    fn says_how_far_it_came() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (99_999, "99999 bytes"),
            (100_000, "0.1 MB"),
            (12_345_678, "12.3 MB"),
            (2_000_000_000, "2000.0 MB"),
        ] {
            assert_eq!(megabytes(bytes), text);
        }
    }
}
