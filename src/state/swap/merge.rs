//! Lays a snapshot over what is there: existing files that it does not have are added to what is staged, as hard links
//! where the file system makes them, else as copies.

use std::{
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{ffi::OsStrExt, fs::FileExt},
    },
    path::Path,
};

use rustix::{
    fs::{
        AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, chmodat, chownat, fstat, ftruncate, futimens, linkat, mkdirat,
        mknodat, openat, readlinkat, symlinkat, utimensat,
    },
    io::Errno,
};

use super::tree::{copy_folder_marks, each, fail, is_folder, look, modified, open_folder};
use crate::state::{flow::Flow, unpack::names::MOST_LEVELS};

/// Adds what only `there` has to `new`.
///
/// # Errors
/// Something is a folder on one side only, or cannot be linked or copied.
pub fn merge(new: BorrowedFd<'_>, there: BorrowedFd<'_>, shown: &Path, flow: &Flow) -> io::Result<()> {
    let wrong = |error: Errno| fail(&shown.display(), "merging", error);
    let stat = fstat(new).map_err(wrong)?;
    merge_level(new, there, shown, 0, flow)?;
    // Its own entry in the snapshot tells its time, not what was added.
    futimens(new, &modified(stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0))).map_err(wrong)
}

fn merge_level(new: BorrowedFd<'_>, there: BorrowedFd<'_>, shown: &Path, level: usize, flow: &Flow) -> io::Result<()> {
    if level > MOST_LEVELS {
        return Err(fail(&shown.display(), "merging", io::Error::other("it lies deeper than 200 folders")));
    }
    each(there, |name| {
        flow.check()?;
        let shown = shown.join(std::ffi::OsStr::from_bytes(name));
        let wrong = |error: io::Error| fail(&shown.display(), "merging", error);
        let Some(old) = look(there, name).map_err(wrong)? else { return Ok(()) };
        match look(new, name).map_err(wrong)? {
            None if is_folder(&old) => {
                mkdirat(new, name, Mode::RWXU).map_err(|error| wrong(error.into()))?;
                let (made, from) = (open_folder(new, name).map_err(wrong)?, open_folder(there, name).map_err(wrong)?);
                merge_level(made.as_fd(), from.as_fd(), &shown, level + 1, flow)?;
                copy_folder_marks(from.as_fd(), made.as_fd()).map_err(wrong)
            }
            None => add(new, there, name, &old, flow).map_err(wrong),
            Some(found) if is_folder(&found) && is_folder(&old) => {
                let (into, from) = (open_folder(new, name).map_err(wrong)?, open_folder(there, name).map_err(wrong)?);
                merge_level(into.as_fd(), from.as_fd(), &shown, level + 1, flow)?;
                let time = modified(found.st_mtime, u32::try_from(found.st_mtime_nsec).unwrap_or(0));
                futimens(&into, &time).map_err(|error| wrong(error.into()))
            }
            Some(found) if is_folder(&found) != is_folder(&old) => {
                let what = if is_folder(&old) { "a folder here and none" } else { "no folder here and one" };
                Err(wrong(io::Error::other(format!("it is {what} in the snapshot"))))
            }
            Some(_) => Ok(()),
        }
    })
}

/// Links a file, or copies it where links are refused: on another file system, for files of others
/// (`protected_hardlinks`), with too many of them, or where there are none.
fn add(new: BorrowedFd<'_>, there: BorrowedFd<'_>, name: &[u8], old: &Stat, flow: &Flow) -> io::Result<()> {
    match linkat(there, name, new, name, AtFlags::empty()) {
        Ok(()) => return Ok(()),
        Err(Errno::XDEV | Errno::PERM | Errno::ACCESS | Errno::MLINK | Errno::OPNOTSUPP | Errno::NOSYS) => {}
        Err(error) => return Err(error.into()),
    }
    match FileType::from_raw_mode(old.st_mode) {
        FileType::RegularFile => copy(new, there, name, old, flow)?,
        FileType::Symlink => symlinkat(readlinkat(there, name, Vec::new())?, new, name)?,
        FileType::Fifo => mknodat(new, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?,
        // A socket's end is its process, which has it open; a device is none of an application's state.
        _ => return Ok(()),
    }
    let owned =
        chownat(new, name, Some(Uid::from_raw(old.st_uid)), Some(Gid::from_raw(old.st_gid)), AtFlags::SYMLINK_NOFOLLOW);
    if !matches!(owned, Ok(()) | Err(Errno::PERM)) {
        owned?;
    }
    if FileType::from_raw_mode(old.st_mode) != FileType::Symlink {
        let special = if owned.is_ok() { 0o7777 } else { 0o777 };
        chmodat(new, name, Mode::from_raw_mode(old.st_mode & special), AtFlags::empty())?;
    }
    let time = modified(old.st_mtime, u32::try_from(old.st_mtime_nsec).unwrap_or(0));
    Ok(utimensat(new, name, &time, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Copies a file's content; pieces of zeros become holes.
fn copy(new: BorrowedFd<'_>, there: BorrowedFd<'_>, name: &[u8], old: &Stat, flow: &Flow) -> io::Result<()> {
    let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut from = File::from(openat(there, name, read, Mode::empty())?);
    let to = File::from(openat(new, name, write, Mode::RUSR | Mode::WUSR)?);
    let mut piece = vec![0; 256 << 10];
    let mut offset = 0u64;
    loop {
        flow.check()?;
        let count = from.read(&mut piece)?;
        if count == 0 {
            break;
        }
        if piece[..count].iter().any(|&byte| byte != 0) {
            to.write_all_at(&piece[..count], offset)?;
        }
        offset += count as u64;
    }
    debug_assert!(old.st_size >= 0, "the kernel has no negative sizes");
    Ok(ftruncate(&to, offset)?)
}
