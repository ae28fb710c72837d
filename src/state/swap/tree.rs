//! What unpacking and swapping do to trees of files: everything goes from an open folder to one name in it, never
//! through a link.

use std::{
    ffi::CStr,
    fmt::Display,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{
        AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, fchmod, fchown, fstat,
        fsync, futimens, mkdirat, openat, renameat, statat, unlinkat,
    },
    io::Errno,
};

/// An open folder for each level, 1024 descriptors at most: below this, a folder is moved up before it is removed.
const LEVELS_AT_ONCE: usize = 100;

/// An error with what it was about: `/var/lib/app: renaming: no space left`.
pub fn fail(place: &dyn Display, what: &str, error: impl Into<io::Error>) -> io::Error {
    let error = error.into();
    let text = match what {
        "" => format!("{place}: {error}"),
        _ => format!("{place}: {what}: {error}"),
    };
    io::Error::new(error.kind(), text)
}

/// As [`fail`], where the kernel's word is all there is; an error that tells its place stays as it is.
pub fn name_place(place: &dyn Display, what: &str, error: io::Error) -> io::Error {
    if error.raw_os_error().is_some() { fail(place, what, error) } else { error }
}

pub fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// What is there under this name; `None` when nothing is.
pub fn look(at: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<Stat>> {
    match statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Opens a folder by one name; a link is none.
pub fn open_folder(at: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(at, name, flags, Mode::empty())?)
}

/// Opens a folder further down, name by name.
pub fn open_beneath(at: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    let mut folder = open_folder(at, b".")?;
    for name in path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
        folder = open_folder(folder.as_fd(), name)?;
    }
    Ok(folder)
}

/// A path's folder and its last name.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

pub fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}

/// Calls for each name in a folder, but `.` and `..`.
pub fn each(folder: BorrowedFd<'_>, mut call: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    each_of(folder, &mut |name| call(name.to_bytes()))
}

fn each_of(folder: BorrowedFd<'_>, call: &mut dyn FnMut(&CStr) -> io::Result<()>) -> io::Result<()> {
    let mut entries = Dir::read_from(folder)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            call(name)?;
        }
    }
    Ok(())
}

/// Makes a folder unless it is there.
pub fn make_folder(at: BorrowedFd<'_>, name: &[u8], mode: u32) -> io::Result<()> {
    match mkdirat(at, name, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes what is there under this name, with all that is in it. `check` is asked once for each entry.
pub fn remove(at: BorrowedFd<'_>, name: &[u8], check: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
    let mut moved = 0u64;
    loop {
        let before = moved;
        remove_some(
            at,
            name,
            0,
            &mut |folder, deep| {
                moved += 1;
                renameat(folder, deep, at, format!(".deep-{moved}"))
            },
            check,
        )?;
        if moved == before {
            break;
        }
        for number in before + 1..=moved {
            remove(at, format!(".deep-{number}").as_bytes(), check)?;
        }
    }
    Ok(())
}

type MoveUp<'a> = dyn FnMut(BorrowedFd<'_>, &[u8]) -> rustix::io::Result<()> + 'a;

fn remove_some(
    at: BorrowedFd<'_>,
    name: &[u8],
    level: usize,
    move_up: &mut MoveUp<'_>,
    check: &mut dyn FnMut() -> io::Result<()>,
) -> io::Result<()> {
    check()?;
    match unlinkat(at, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // EISDIR is Linux's answer for a folder, EPERM that of POSIX.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    match unlinkat(at, name, AtFlags::REMOVEDIR) {
        Ok(()) => return Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    if level == LEVELS_AT_ONCE {
        return Ok(move_up(at, name)?);
    }
    let folder = match open_folder(at, name) {
        // What a snapshot or an application made read-only is still to be removed.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            rustix::fs::chmodat(at, name, Mode::RWXU, AtFlags::empty())?;
            open_folder(at, name)?
        }
        other => other?,
    };
    if let Ok(stat) = fstat(&folder)
        && stat.st_mode & 0o700 != 0o700
    {
        // Without it the entries cannot be removed; that it cannot be given shows then.
        let _ = fchmod(&folder, Mode::RWXU);
    }
    // Again until nothing is found: some file systems lose their place when entries go.
    loop {
        let mut found = false;
        each(folder.as_fd(), |name| {
            found = true;
            remove_some(folder.as_fd(), name, level + 1, move_up, check)
        })?;
        if !found {
            break;
        }
    }
    Ok(unlinkat(at, name, AtFlags::REMOVEDIR)?)
}

/// Syncs a folder's own entries. Some network file systems have no such thing and say EINVAL.
pub fn sync_folder(folder: BorrowedFd<'_>) -> io::Result<()> {
    match fsync(folder) {
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Syncs each file and folder of a tree by itself.
pub fn sync_tree(folder: BorrowedFd<'_>) -> io::Result<()> {
    each(folder, |name| {
        let Some(stat) = look(folder, name)? else { return Ok(()) };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => sync_tree(open_folder(folder, name)?.as_fd()),
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
                Ok(fsync(openat(folder, name, flags, Mode::empty())?)?)
            }
            _ => Ok(()),
        }
    })?;
    sync_folder(folder)
}

/// A folder's permissions, owner and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub seconds: i64,
    pub nanoseconds: u32,
}

impl Marks {
    pub fn of(folder: BorrowedFd<'_>) -> io::Result<Self> {
        let stat = fstat(folder)?;
        Ok(Self {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            seconds: stat.st_mtime,
            nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        })
    }

    /// Gives them to a folder, as far as we may.
    pub fn set(&self, folder: BorrowedFd<'_>) -> io::Result<()> {
        let present = Self::of(folder)?;
        if (self.uid, self.gid) != (present.uid, present.gid) {
            match fchown(folder, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid))) {
                Ok(()) | Err(Errno::PERM) => {}
                Err(error) => return Err(error.into()),
            }
        }
        fchmod(folder, Mode::from_raw_mode(self.mode))?;
        Ok(futimens(folder, &modified(self.seconds, self.nanoseconds))?)
    }
}

/// Gives a folder the permissions, owner and time of another, as far as we may.
pub fn copy_folder_marks(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    Marks::of(from)?.set(to)
}

/// The time of the last change; that of the last access stays.
pub fn modified(seconds: i64, nanoseconds: u32) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() },
    }
}
