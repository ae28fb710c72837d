//! Reading small files that somebody else provides: what looks like a file may be a FIFO without a writer, a
//! device or a directory, and none of them may hold the reader.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use rustix::fs::{FileType, Mode, OFlags};

/// Reads a regular file of at most `limit` bytes.
///
/// `O_NONBLOCK` makes the open of a FIFO return at once (open(2)); for a regular file it has no effect, so a
/// file on a hung network mount still blocks: call it from a blocking thread where that may be.
///
/// # Errors
/// Whatever open and read report, `InvalidInput` for anything but a regular file, and `FileTooLarge`.
pub fn read_small_regular(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let file = open_regular(path)?;
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file of just `limit` bytes from a longer one; the size in the inode is
    // no help, because it is 0 under /proc.
    file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {limit} bytes")));
    }
    Ok(bytes)
}

/// Reads at most the first `limit` bytes of a regular file.
///
/// # Errors
/// As [`read_small_regular`], but a longer file is no error.
pub fn read_start_of_regular(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?.take(limit as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens a regular file for reading.
///
/// # Errors
/// As [`read_small_regular`].
pub fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let fd = rustix::fs::open(path, flags, Mode::empty())?;
    let what = match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
        FileType::RegularFile => return Ok(File::from(fd)),
        FileType::Directory => "a folder",
        FileType::Fifo => "a FIFO",
        _ => "a device or a socket",
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}, not a regular file")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_only_small_regular_files() {
        let dir = tempfile::tempdir().expect("a temp folder");
        let path = dir.path().join("pid");
        std::fs::write(&path, "1234\n").expect("writable");
        assert_eq!(read_small_regular(&path, 5).expect("it fits"), b"1234\n");
        assert_eq!(read_small_regular(&path, 4).expect_err("too long").to_string(), "longer than 4 bytes");
        assert_eq!(read_start_of_regular(&path, 2).expect("a start"), b"12");
        assert_eq!(
            read_small_regular(dir.path(), 9).expect_err("a folder").to_string(),
            "it is a folder, not a regular file"
        );

        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).expect("a FIFO");
        assert_eq!(read_small_regular(&fifo, 9).expect_err("a FIFO").to_string(), "it is a FIFO, not a regular file");
        assert_eq!(
            read_small_regular(Path::new("/dev/zero"), 9).expect_err("device").to_string(),
            "it is a device or a socket, not a regular file"
        );
        assert!(!read_small_regular(Path::new("/proc/self/stat"), 4096).expect("a proc file").is_empty());
    }
}
