//! A folder, usually a mounted volume, as the place where snapshots are kept. At every moment, also when the process is
//! killed or the power fails, what is listed here is whole, and what [`Draft::commit`] has returned stays.
//!
//! A snapshot is written aside as `.NAME.NUMBER.partial`, synced, renamed to its own name without ever replacing
//! another file, and then the folder is synced. Only after that may older ones go ([`Folder::prune`]).
//!
//! Several agents may share a folder, also over NFS. Two things keep them apart:
//! - The name of the unfinished file holds the number and not the time, and `O_EXCL` gives a name to one of them alone:
//!   so no two snapshots of a state have the same number.
//! - Who writes holds a lock (flock(2)) on the unfinished file, which the kernel drops when it dies. What is not locked
//!   is of an earlier life and is cleared.
//!
//! Where locks hold only on one node (some FUSE file systems), an agent on another may clear what is being written:
//! that save fails and says so, and what is listed stays whole.
//!
//! Everything here blocks for as long as the file system does, and only so long: nothing sleeps or spins. What is in a
//! snapshot, and whether it is worth restoring, is for other rooms.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::{fd::OwnedFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::{
    fs::{self as sys, AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, RenameFlags, Stat},
    io::Errno,
};

use super::{Compression, flow::Flow, name::SnapshotName, name::is_unusable};
use crate::sys::writeback;

mod reason;

use reason::{Reason, megabytes};

/// A place for snapshots of any number of states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    path: PathBuf,
}

/// A snapshot that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub name: SnapshotName,
    /// Bytes. None at all is possible: another program's file may bear such a name.
    pub size: u64,
    pub path: PathBuf,
}

/// A snapshot that is being written. Dropped without a commit it is removed.
#[derive(Debug)]
pub struct Draft {
    /// The folder as it was opened: what is mounted over it meanwhile is another one.
    folder: OwnedFd,
    path: PathBuf,
    file: File,
    partial: String,
    name: SnapshotName,
    written: u64,
    /// Up to here the kernel was asked to begin writing.
    started: u64,
    state: DraftState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DraftState {
    Growing,
    /// A write failed, so there may be a hole: never to be committed.
    Torn,
    /// It has its own name now.
    Named,
}

/// What the name of an unfinished snapshot ends with.
const PARTIAL: &str = ".partial";

/// As in [`super::name`]: a shorter number is no number of ours.
const DIGITS: usize = 10;

/// Each attempt to take a number fails only because another agent took it or cleared it in between.
const ATTEMPTS: u32 = 64;

/// Where the file system knows no locks, an unfinished snapshot so old is nobody's: no grace period is longer.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// After so many bytes the kernel is asked to begin writing: large enough for sequential writes, small enough that a
/// disk of 50 MB/s has a fifth of a second left to do at the end. The pages stay in the cache (no
/// `POSIX_FADV_DONTNEED`): it drops only what is already written, so it would mean to wait for the disk; the kernel
/// takes clean pages back by itself when the container's memory is needed; and the next life on this node restores from
/// them.
const PIECE: u64 = 8 * 1024 * 1024;

/// Calls that a file system does not know fail with one of these (rename(2), flock(2), fsync(2)).
fn is_unknown(error: Errno) -> bool {
    matches!(error, Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)
}

impl Folder {
    /// Nothing is looked at yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Clears unfinished snapshots of this state that nobody writes any more, takes the next number, and begins. `time`
    /// is in seconds since 1970.
    ///
    /// A missing folder is created, but only the folder itself, and none directly under `/`: where a volume is not
    /// mounted or its name is misspelt, the snapshots would be gone with the container.
    ///
    /// # Errors
    /// Whatever the file system reports, with the folder's name and what helps; `InvalidInput` for a name that cannot
    /// be.
    pub fn begin(&self, state: &str, compression: Compression, time: u64) -> io::Result<Draft> {
        if let Some(why) = is_unusable(state) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a state cannot be called {state:?}: {why}"),
            ));
        }
        let folder = self.open_or_make()?;
        // What cannot be cleared now takes room, and that is all: the next life tries again.
        let _ = clear(&folder, state);
        self.claim(folder, state, compression, time)
    }

    /// The snapshots of this state, newest first; without a state those of all, one state after the other. Unfinished
    /// ones and other files are not among them. A missing folder that [`Folder::begin`] would create holds none.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn list(&self, state: Option<&str>) -> io::Result<Vec<Listed>> {
        let folder = match self.open_folder() {
            Err(Errno::NOENT) if self.may_be_made() => return Ok(Vec::new()),
            other => other.map_err(|error| self.reason("cannot be read").of(error))?,
        };
        let mut found = Vec::new();
        each_entry(&folder, &mut |file, kind| {
            // Some file systems do not tell the kind here (readdir(3)).
            if let Some(name) = SnapshotName::parse(file)
                && state.is_none_or(|state| state == name.state)
                && matches!(kind, FileType::RegularFile | FileType::Unknown)
                // What vanishes now was pruned by another agent.
                && let Ok(stat) = sys::statat(&folder, file, AtFlags::SYMLINK_NOFOLLOW)
                && is_regular(&stat)
            {
                found.push(Listed { name, size: stat.st_size.cast_unsigned(), path: self.path.join(file) });
            }
        })
        .map_err(|error| self.reason("cannot be read").of(error))?;
        found.sort_by(|one, two| {
            let states = one.name.state.cmp(&two.name.state);
            states.then_with(|| two.name.order().cmp(&one.name.order())).then_with(|| two.path.cmp(&one.path))
        });
        // A folder that changes while it is read may name an entry twice (readdir(3)).
        found.dedup();
        Ok(found)
    }

    /// Opens a snapshot for reading.
    ///
    /// # Errors
    /// It is gone, may not be read, or is no regular file.
    pub fn open(&self, listed: &Listed) -> io::Result<File> {
        // Between listing and opening somebody may have put a FIFO there: it must not hold the reader.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let reason = Reason { place: &listed.path, what: "cannot be read", detail: "" };
        let file = sys::open(&listed.path, flags, Mode::empty()).map_err(|error| reason.of(error))?;
        if is_regular(&sys::fstat(&file).map_err(|error| reason.of(error))?) {
            return Ok(file.into());
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{}: it is not a regular file", listed.path.display())))
    }

    /// Removes all but the newest `keep` snapshots of this state, and never the newest one. What cannot be removed is
    /// noted: the new snapshot is safe nevertheless.
    pub fn prune(&self, state: &str, keep: u32, flow: &Flow) {
        let listed = match self.list(Some(state)) {
            Ok(listed) => listed,
            Err(error) => return flow.note(format!("older snapshots are not removed: {error}")),
        };
        let keep = usize::try_from(keep.max(1)).unwrap_or(usize::MAX);
        // Oldest first: when this ends half-way, the newest are still one after the other.
        for old in listed.iter().skip(keep).rev() {
            if flow.is_stopped() {
                return;
            }
            match sys::unlink(&old.path) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => {
                    let reason = Reason { place: &old.path, what: "cannot be removed", detail: "" };
                    flow.note(reason.of(error).to_string());
                }
            }
        }
    }

    /// Makes the folder if it is missing, as [`Folder::begin`] does: for what waits there to be saved.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn make_ready(&self) -> io::Result<()> {
        self.open_or_make().map(drop)
    }

    fn open_or_make(&self) -> io::Result<OwnedFd> {
        match self.open_folder() {
            Err(Errno::NOENT) if self.may_be_made() => self.make(),
            other => other,
        }
        .map_err(|error| self.reason("cannot be used").of(error))
    }

    fn open_folder(&self) -> rustix::io::Result<OwnedFd> {
        sys::open(&self.path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    }

    /// Where the folder itself is to be made; empty for one in the working directory.
    fn parent(&self) -> Option<&Path> {
        self.path.parent().map(|parent| if parent == Path::new("") { Path::new(".") } else { parent })
    }

    fn may_be_made(&self) -> bool {
        self.parent().is_some_and(|parent| parent != Path::new("/") && parent.is_dir())
    }

    fn make(&self) -> rustix::io::Result<OwnedFd> {
        // Snapshots hold whatever the application keeps, so they are for its user alone.
        match DirBuilder::new().mode(0o700).create(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
            }
            _ => {}
        }
        // Or the folder would be gone after a power loss, with all that is synced in it.
        if let Some(parent) = self.parent()
            && let Ok(parent) = File::open(parent)
        {
            let _ = sys::fsync(parent);
        }
        self.open_folder()
    }

    /// Creates the unfinished file under a number that nobody else has or had.
    fn claim(&self, folder: OwnedFd, state: &str, compression: Compression, time: u64) -> io::Result<Draft> {
        let reason = self.reason("cannot begin a snapshot");
        let mut number = next_number(&folder, state, Of::All).map_err(|error| reason.of(error))?;
        for attempt in 0..ATTEMPTS {
            // Before there is a file that a failure here would leave behind.
            let own = rustix::io::fcntl_dupfd_cloexec(&folder, 0).map_err(|error| reason.of(error))?;
            let partial = format!(".{state}.{number:0DIGITS$}{PARTIAL}");
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = match sys::openat(&folder, &partial, flags, Mode::RUSR | Mode::WUSR) {
                Ok(file) => File::from(file),
                Err(Errno::EXIST) => {
                    number = number.saturating_add(1);
                    continue;
                }
                Err(error) => return Err(reason.of(error)),
            };
            match lock(&file) {
                // Between the creation and this lock it looked like one of an earlier life. Whoever clears locks it
                // first and removes it, so: either it is locked by them now, or it is gone already, or it is ours for
                // good.
                Lock::Held => continue,
                Lock::Taken | Lock::Unknown => {
                    if !is_at(&folder, &partial, &file).map_err(|error| reason.of(error))? {
                        continue;
                    }
                }
            }
            let draft = Draft {
                folder: own,
                path: self.path.clone(),
                file,
                partial,
                name: SnapshotName { state: state.to_owned(), number, time, compression },
                written: 0,
                started: 0,
                state: DraftState::Growing,
            };
            // A file that is renamed while the folder is read may be missed under both names. Now that the unfinished
            // name is ours, nobody can take this number any more; whether somebody has taken it is seen for certain.
            let next = next_number(&folder, state, Of::Whole).map_err(|error| reason.of(error))?;
            if next <= number {
                return Ok(draft);
            }
            // Others that save without a pause, and faster, are always ahead: then any number that is free will do.
            if attempt >= ATTEMPTS / 2 && !self.list(Some(state))?.iter().any(|whole| whole.name.number == number) {
                return Ok(draft);
            }
            number = next.saturating_add(attempt.into());
        }
        Err(io::Error::other(format!(
            "{}: no number is free for a snapshot of {state:?}: too many agents save there at once",
            self.path.display()
        )))
    }

    fn reason<'a>(&'a self, what: &'a str) -> Reason<'a> {
        Reason { place: &self.path, what, detail: "" }
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.file.write(bytes) {
            Ok(count) => {
                self.written += count as u64;
                if self.written - self.started >= PIECE {
                    writeback::start(&self.file, self.started, self.written - self.started);
                    self.started = self.written;
                }
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                self.state = DraftState::Torn;
                Err(self.explain("cannot be written", Errno::from_io_error(&error).unwrap_or(Errno::IO)))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Draft {
    /// What it will be called. Only when another program puts a file of this very name there is it another in the end:
    /// see what [`Draft::commit`] returns.
    pub fn name(&self) -> &SnapshotName {
        &self.name
    }

    /// Makes it a snapshot: synced, under its own name, and the folder synced.
    ///
    /// # Errors
    /// It is no snapshot and is removed, except when the last of these steps failed: then it is there and whole, but
    /// may be gone after a power loss.
    pub fn commit(mut self) -> io::Result<Listed> {
        if self.state == DraftState::Torn {
            return Err(io::Error::other(format!("{}: it is not written to its end", self.place().display())));
        }
        // Never tried again: after a failure the kernel may forget what it could not write, and the next call succeeds
        // (fsync(2), "errors").
        sys::fsync(&self.file).map_err(|error| self.explain("cannot be synced", error))?;
        let stat = sys::fstat(&self.file).map_err(|error| self.explain("cannot be synced", error))?;
        if stat.st_size.cast_unsigned() != self.written {
            return Err(io::Error::other(format!(
                "{}: it has {} bytes instead of the {} that were written: something else writes there",
                self.place().display(),
                stat.st_size,
                self.written
            )));
        }
        self.take_name()?;
        match sys::fsync(&self.folder) {
            Ok(()) => {}
            // Some network file systems know no fsync for folders; there the server does it.
            Err(error) if is_unknown(error) => {}
            Err(error) => {
                let reason = Reason { place: &self.path, what: "cannot be synced", detail: "" };
                return Err(reason.of(error));
            }
        }
        Ok(Listed { name: self.name.clone(), size: self.written, path: self.place() })
    }

    /// Gives it its name, which no other file has.
    fn take_name(&mut self) -> io::Result<()> {
        for _ in 0..ATTEMPTS {
            let here = is_at(&self.folder, &self.partial, &self.file);
            if !here.map_err(|error| self.explain("cannot get its name", error))? {
                return Err(io::Error::new(
                    io::ErrorKind::NotFound,
                    format!(
                        "{}: the unfinished file {} was removed while it was written, or the whole folder was",
                        self.path.display(),
                        self.partial
                    ),
                ));
            }
            let name = self.name.to_string();
            match rename_to_free(&self.folder, &self.partial, &name) {
                Ok(()) => {
                    self.state = DraftState::Named;
                    return Ok(());
                }
                // A server whose answer was lost is asked again, and then finds it done (NFS).
                Err(_) if is_at(&self.folder, &name, &self.file) == Ok(true) => {
                    let _ = sys::unlinkat(&self.folder, &self.partial, AtFlags::empty());
                    self.state = DraftState::Named;
                    return Ok(());
                }
                Err(Errno::EXIST) => {
                    self.name.number = next_number(&self.folder, &self.name.state, Of::Whole)
                        .map_err(|error| self.explain("cannot get its name", error))?;
                }
                Err(error) => return Err(self.explain("cannot get its name", error)),
            }
        }
        Err(io::Error::other(format!("{}: something else takes all names of snapshots", self.path.display())))
    }

    fn place(&self) -> PathBuf {
        self.path.join(self.name.to_string())
    }

    fn explain(&self, what: &str, error: Errno) -> io::Error {
        let after = format!(" after {}", megabytes(self.written));
        Reason { place: &self.place(), what, detail: &after }.of(error)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.state != DraftState::Named && is_at(&self.folder, &self.partial, &self.file) == Ok(true) {
            let _ = sys::unlinkat(&self.folder, &self.partial, AtFlags::empty());
        }
    }
}

/// Whether an unfinished file is somebody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lock {
    Taken,
    Held,
    /// The file system knows no locks.
    Unknown,
}

fn lock(file: &File) -> Lock {
    match sys::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Lock::Taken,
        Err(Errno::AGAIN) => Lock::Held,
        Err(_) => Lock::Unknown,
    }
}

/// Removes unfinished files of this state that nobody holds.
fn clear(folder: &OwnedFd, state: &str) -> rustix::io::Result<()> {
    let mut partials = Vec::new();
    each_entry(folder, &mut |file, _| {
        if partial_number(file, state).is_some() {
            partials.push(file.to_owned());
        }
    })?;
    for partial in partials {
        // Open for writing, because NFS makes flock a lock on a range of bytes, which needs that (flock(2)).
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let Ok(file) = sys::openat(folder, &partial, flags, Mode::empty()) else { continue };
        let file = File::from(file);
        let abandoned = match lock(&file) {
            Lock::Taken => file.metadata().is_ok_and(|metadata| metadata.is_file()),
            Lock::Held => false,
            Lock::Unknown => file.metadata().is_ok_and(|metadata| metadata.is_file() && is_old(&metadata)),
        };
        // Somebody else may have cleared it, and a new one may bear its name: only what is locked here is removed.
        if abandoned && is_at(folder, &partial, &file) == Ok(true) {
            let _ = sys::unlinkat(folder, &partial, AtFlags::empty());
        }
    }
    Ok(())
}

fn is_old(metadata: &fs::Metadata) -> bool {
    let age = metadata.modified().ok().and_then(|written| SystemTime::now().duration_since(written).ok());
    // A clock that was never set says 1970, and then everything is in the future or old: better to keep it.
    age.is_some_and(|age| age > ABANDONED) && metadata.modified().is_ok_and(|written| written > UNIX_EPOCH)
}

/// Renames to a name that no file has, or fails with `EXIST`.
fn rename_to_free(folder: &OwnedFd, from: &str, to: &str) -> rustix::io::Result<()> {
    match sys::renameat_with(folder, from, folder, to, RenameFlags::NOREPLACE) {
        Err(error) if is_unknown(error) => {}
        other => return other,
    }
    // NFS and some FUSE file systems: a link is never made over another file. Killed between the two calls, a second
    // name of the whole snapshot is left, and is cleared as any unfinished file.
    match sys::linkat(folder, from, folder, to, AtFlags::empty()) {
        Ok(()) => {
            let _ = sys::unlinkat(folder, from, AtFlags::empty());
            return Ok(());
        }
        Err(Errno::EXIST) => return Err(Errno::EXIST),
        // Without links (FAT, some FUSE): EPERM (link(2)) or what they think of.
        Err(_) => {}
    }
    match sys::statat(folder, to, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => sys::renameat(folder, from, folder, to),
        Err(error) => Err(error),
        Ok(_) => Err(Errno::EXIST),
    }
}

/// Whether the name is that of this open file.
fn is_at(folder: &OwnedFd, name: &str, file: &File) -> rustix::io::Result<bool> {
    let there = match sys::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(false),
        other => other?,
    };
    let here = sys::fstat(file)?;
    Ok((there.st_dev, there.st_ino) == (here.st_dev, here.st_ino))
}

fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

/// Which numbers count as taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    /// Those of snapshots.
    Whole,
    /// Those of unfinished ones too.
    All,
}

/// One more than the highest number of this state.
fn next_number(folder: &OwnedFd, state: &str, of: Of) -> rustix::io::Result<u64> {
    let mut highest = 0;
    each_entry(folder, &mut |file, _| {
        let whole = SnapshotName::parse(file).filter(|name| name.state == state).map(|name| name.number);
        let number = match of {
            Of::Whole => whole,
            Of::All => whole.or_else(|| partial_number(file, state)),
        };
        highest = highest.max(number.unwrap_or(0));
    })?;
    highest.checked_add(1).ok_or(Errno::OVERFLOW)
}

/// The number in the name of an unfinished snapshot of this state.
fn partial_number(file: &str, state: &str) -> Option<u64> {
    let (of, number) = file.strip_prefix('.')?.strip_suffix(PARTIAL)?.rsplit_once('.')?;
    let is_number = number.len() >= DIGITS && number.bytes().all(|byte| byte.is_ascii_digit());
    if of == state && is_number { number.parse().ok() } else { None }
}

/// Calls for each entry whose name is text: ours are.
fn each_entry(folder: &OwnedFd, call: &mut dyn FnMut(&str, FileType)) -> rustix::io::Result<()> {
    // An own descriptor: the place up to which it was read belongs to it.
    for entry in
        Dir::new(sys::openat(folder, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)?
    {
        let entry = entry?;
        if let Ok(name) = entry.file_name().to_str() {
            call(name, entry.file_type());
        }
    }
    Ok(())
}
