//! What the kernel tells of a file, in types that are the same on every architecture.

use std::{io, os::fd::AsFd};

use rustix::{
    fs::{AtFlags, FileType, Stat},
    io::Errno,
};

/// Seconds and nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    pub seconds: i64,
    pub nanos: u32,
}

/// Which file it is, whatever its name.
pub type Id = (u64, u64);

#[derive(Clone, Copy, Debug)]
pub struct Meta {
    pub kind: FileType,
    pub permissions: u32,
    pub uid: u32,
    pub gid: u32,
    pub id: Id,
    pub links: u64,
    pub size: u64,
    /// Bytes on the disk.
    pub allocated: u64,
    pub modified: Time,
    changed: Time,
}

impl Meta {
    /// # Errors
    /// Those of fstat(2).
    pub fn of(file: impl AsFd) -> Result<Self, Errno> {
        rustix::fs::fstat(file).map(|stat| Self::new(&stat))
    }

    /// # Errors
    /// Those of fstatat(2).
    pub fn at(folder: impl AsFd, name: &std::ffi::CStr, flags: AtFlags) -> Result<Self, Errno> {
        rustix::fs::statat(folder, name, flags).map(|stat| Self::new(&stat))
    }

    #[allow(
        clippy::unnecessary_cast,
        clippy::cast_lossless,
        reason = "the kernel's types differ between architectures"
    )]
    pub fn new(stat: &Stat) -> Self {
        Self {
            kind: FileType::from_raw_mode(stat.st_mode),
            permissions: stat.st_mode as u32 & 0o7777,
            uid: stat.st_uid as u32,
            gid: stat.st_gid as u32,
            id: (stat.st_dev as u64, stat.st_ino as u64),
            links: stat.st_nlink as u64,
            size: stat.st_size as u64,
            // stat(2): in units of 512 bytes, whatever the block size.
            allocated: (stat.st_blocks as u64).saturating_mul(512),
            modified: Time { seconds: stat.st_mtime as i64, nanos: stat.st_mtime_nsec as u32 },
            changed: Time { seconds: stat.st_ctime as i64, nanos: stat.st_ctime_nsec as u32 },
        }
    }

    /// Whether the content may be another one than before. The inode's own time also changes when a name of it goes
    /// or comes, as when somebody puts another file in its place: what was read of the old one is whole.
    pub fn differs_from(&self, before: &Self) -> bool {
        self.size != before.size
            || self.modified != before.modified
            || (self.changed != before.changed && self.links == before.links)
    }

    /// The bytes that it takes to read it, for progress: of a sparse file what is on the disk. Some network and FUSE
    /// file systems know of no blocks at all.
    pub fn work(&self) -> u64 {
        match (self.kind, self.allocated) {
            (FileType::RegularFile, 0) => self.size,
            (FileType::RegularFile, allocated) => self.size.min(allocated),
            _ => 0,
        }
    }
}

/// What the kernel says to an error, without its number.
pub fn plain(error: Errno) -> String {
    let mut text = io::Error::from(error).to_string();
    if let Some(at) = text.find(" (os error") {
        text.truncate(at);
    }
    text
}
