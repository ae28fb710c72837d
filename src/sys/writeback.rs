//! Starts writing a file to its disk early, so that a later fsync(2) finds little left to do.

use std::{ffi::c_int, fs::File, os::fd::AsRawFd};

/// Asks the kernel to begin writing these bytes of the file. A wish: it changes neither what is in the file nor when it
/// is safe, and a file system or kernel that knows no such call (`ENOSYS`, `ESPIPE`) just writes later.
pub fn start(file: &File, offset: u64, length: u64) {
    let (Ok(offset), Ok(length)) = (libc::off64_t::try_from(offset), libc::off64_t::try_from(length)) else { return };
    let file: c_int = file.as_raw_fd();
    // SAFETY: the call takes no memory, and the descriptor is open for as long as `file` is borrowed.
    let _ = unsafe { libc::sync_file_range(file, offset, length, libc::SYNC_FILE_RANGE_WRITE) };
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn neither_changes_nor_fails() {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(b"hello").expect("written");
        for (offset, length) in [(0, 5), (3, 100), (0, u64::MAX), (u64::MAX, 1)] {
            start(file.as_file(), offset, length);
        }
        assert_eq!(std::fs::read(file.path()).expect("there"), b"hello");
    }
}
