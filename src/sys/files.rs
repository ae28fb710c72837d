//! Small files that somebody else wrote: tokens, pid files, certificates, the configuration. Opened so that nothing can
//! hang: a FIFO without a writer would block an ordinary open for ever.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::fs::OFlags;

/// Reads a regular file of at most `limit` bytes.
///
/// # Errors
/// What the system says; `InvalidInput` when it is no regular file or is longer than `limit` bytes.
pub fn read_small(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let file = open_regular(path)?;
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("longer than {limit} bytes")));
    }
    Ok(bytes)
}

/// Opens a regular file for reading without ever waiting for a peer.
///
/// # Errors
/// What the system says; `InvalidInput` when it is no regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    // The bits of open(2) fit: they are an `int` in the kernel's interface.
    let file = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        return Ok(file);
    }
    use std::os::unix::fs::FileTypeExt;
    let what = match kind {
        kind if kind.is_dir() => "a directory",
        kind if kind.is_fifo() => "a FIFO",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}, not a regular file")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_only_small_regular_files() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("token"), "secret\n").expect("written");
        assert_eq!(read_small(&at("token"), 7).expect("read"), b"secret\n");
        assert_eq!(read_small(&at("token"), 6).expect_err("too long").to_string(), "longer than 6 bytes");
        assert_eq!(
            read_small(folder.path(), 9).expect_err("a folder").to_string(),
            "it is a directory, not a regular file"
        );
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a fifo");
        assert_eq!(read_small(&at("fifo"), 9).expect_err("a fifo").to_string(), "it is a FIFO, not a regular file");
        assert_eq!(read_small(&at("none"), 9).expect_err("missing").kind(), io::ErrorKind::NotFound);
        assert_eq!(
            read_small(Path::new("/dev/zero"), 9).expect_err("a device").to_string(),
            "it is a device, not a regular file"
        );
    }
}
