//! The staging place becomes the target's state: all or nothing.
//!
//! A snapshot's top-level entries (its *roots*) come to the target as `cp -r` would bring them; each replaces the entry
//! of its name as a whole, or is laid over it. Everything is unpacked and synced in a staging place on the same file
//! system first. Then:
//!
//! - **One move** does it where one can: the staging folder is renamed to the target that was absent or empty; or the
//!   one root, or the whole target when nothing else is in it, is exchanged with the new one (`RENAME_EXCHANGE`). Whoever
//!   is killed, and whoever looks, finds the old state or the new.
//! - **Several moves** are needed with several roots beside other entries, in a mounted volume, for folders of an image's
//!   layer, and on file systems without exchanges. They are written into a journal first. Between the first and the last
//!   of them (microseconds each) somebody who looks can see some of the new beside some of the old, and where there are
//!   no exchanges, for a moment, neither. Whoever is killed there leaves it so; [`recover`], which is to be called before
//!   the application starts, goes on to the end.
//!
//! Where the staging place is: beside the target when that is on the same file system and writable, else inside of it
//! (a volume mounted there under a read-only root), and in each volume that is mounted further below, its own.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    fs::{
        AtFlags, FlockOperation, Mode, OFlags, fchmod, flock, fstat, fstatfs, fsync, openat, renameat, syncfs, unlinkat,
    },
    io::Errno,
};

use self::{
    journal::{Folders, Pinned, Step, Stuck},
    mounts::Mounts,
    plan::Plan,
    tree::{
        copy_folder_marks, each, fail, look, make_folder, name_place, open_folder, remove, split, sync_folder,
        sync_tree,
    },
};
use super::{
    flow::Flow,
    unpack::{Ground, Grounds, Limits, Refused, Unpacked, names::show, unpack},
};

mod journal;
mod merge;
mod mounts;
mod plan;
pub(super) mod tree;

/// What every staging place's name has in it; no root may begin with it.
pub const STAGING: &str = ".boathook-restore";

/// The top of an ext4 file system has this folder, which is neither state nor in the way.
const LOST_AND_FOUND: &[u8] = b"lost+found";

/// So few files are synced one by one; more of them, the whole file system at once: that is one write of its log instead
/// of one per file, but it waits for what others have written, too.
const FEW_FILES: u64 = 64;

/// Longer names than this are no names (Linux, NAME_MAX).
const LONGEST_NAME: usize = 255;

/// A journal of a million moves; more is none of ours.
const LONGEST_JOURNAL: u64 = 256 << 20;

/// What is done when something is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfPresent {
    /// Each root replaces the entry of its name as a whole.
    Replace,
    /// Nothing is done when the target holds anything.
    Keep,
    /// The snapshot's files are laid over what is there.
    Merge,
}

/// How the new state came to its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// It did not: something was there, and is kept.
    Kept,
    /// With one move.
    AtOnce,
    /// With so many moves, by a journal.
    InMoves(usize),
}

/// A place aside in which a snapshot is unpacked. Dropped before [`Self::commit`], it is cleared, and the target is as
/// it was.
#[derive(Debug)]
pub struct Staging {
    to: PathBuf,
    state: String,
    mounts: Mounts,
    /// The places in use: that of the target itself, when there could be one, and those of volumes below it.
    places: Vec<Place>,
    /// Why the target itself has no place: a read-only file system, where it may yet not be needed.
    no_main: Option<io::Error>,
    /// The main place lies beside the target and not in it.
    beside: bool,
    unpacked: Option<Unpacked>,
    /// It is half and half, or the journal could not be removed: everything is left to [`recover`].
    leave: bool,
}

/// A staging folder: `lock`, `new`, `old`, `journal`.
#[derive(Debug)]
struct Place {
    /// The volume's mount point below the target; empty for the target itself.
    path: Vec<u8>,
    holder: OwnedFd,
    holder_shown: PathBuf,
    name: Vec<u8>,
    folder: OwnedFd,
    new: OwnedFd,
    /// Held as long as the place is in use.
    _lock: OwnedFd,
}

impl Staging {
    /// Finishes or clears what an earlier life left here, then makes a staging place. Missing folders above the target
    /// are made.
    ///
    /// # Errors
    /// The target is no folder, nothing can be written there, another restore of this state is at work there, or an
    /// interrupted one could not be finished.
    pub fn begin(to: &Path, state: &str, flow: &Flow) -> io::Result<Self> {
        flow.check()?;
        if let Some(above) = to.parent()
            && !above.as_os_str().is_empty()
        {
            std::fs::create_dir_all(above).map_err(|error| fail(&above.display(), "making the folder", error))?;
        }
        let Some(to) = resolve(to)? else {
            return Err(fail(&to.display(), "", io::Error::from(io::ErrorKind::NotFound)));
        };
        if let Some(done) = recover(&to, state)? {
            flow.note(done);
        }
        let mut staging = Self {
            mounts: Mounts::of(&to),
            to,
            state: state.into(),
            places: Vec::new(),
            no_main: None,
            beside: false,
            unpacked: None,
            leave: false,
        };
        staging.make_main()?;
        Ok(staging)
    }

    fn make_main(&mut self) -> io::Result<()> {
        let present = std::fs::symlink_metadata(&self.to);
        let is_there = match &present {
            Ok(metadata) if metadata.is_dir() => true,
            Ok(_) => return Err(fail(&self.to.display(), "", io::Error::from(io::ErrorKind::NotADirectory))),
            Err(_) => false,
        };
        if let Some((above, name)) = self.beside_place()
            && !self.mounts.here
        {
            // Another device is another file system even where there is no list of mounts.
            let device =
                |path: &Path| std::fs::metadata(path).map(|found| std::os::unix::fs::MetadataExt::dev(&found)).ok();
            if !is_there || device(&above) == device(&self.to) {
                match Place::open(&above, &name, Vec::new(), true) {
                    Ok(place) => {
                        self.places.push(place);
                        self.beside = true;
                        return Ok(());
                    }
                    Err(error) if !is_there || !is_refusal(&error) => return Err(error),
                    Err(_) => {}
                }
            }
        }
        match Place::open(&self.to, &inside_name("-", &self.state), Vec::new(), true) {
            Ok(place) => self.places.push(place),
            Err(error) if is_refusal(&error) && !self.mounts.below.is_empty() => self.no_main = Some(error),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn beside_place(&self) -> Option<(PathBuf, Vec<u8>)> {
        beside_place(&self.to, &self.state)
    }

    /// Unpacks an archive into the staging place only. It may be called again, for another snapshot, after a refusal.
    ///
    /// # Errors
    /// The archive is broken, holds what is never restored, or more than the limits; or writing failed.
    pub fn unpack(&mut self, tar: &mut dyn Read, limits: &Limits, flow: &Flow) -> Result<Unpacked, Refused> {
        self.unpacked = None;
        for place in &mut self.places {
            let at = |error| name_place(&self.to.display(), "making the staging place", error);
            place.renew(flow).map_err(|error| Refused::target(&at(error)))?;
        }
        let result = unpack(self, tar, limits, flow);
        let unpacked = result.map_err(|mut refused| {
            // The reason of a failed write names where it was to go.
            if refused.what == super::unpack::What::Target {
                refused.why = format!("{}: {}", self.to.display(), refused.why);
            }
            refused
        })?;
        self.unpacked = Some(unpacked.clone());
        Ok(unpacked)
    }

    /// Puts in place what was unpacked, and syncs it. Only to be called when the snapshot was verified to its end.
    ///
    /// # Errors
    /// The old state stands, unless the reason says that it is half and half: then [`recover`] finishes it.
    pub fn commit(mut self, if_present: IfPresent, flow: &Flow) -> io::Result<Restored> {
        let Some(unpacked) = self.unpacked.take() else {
            return Err(io::Error::other("nothing was unpacked"));
        };
        let _turn = self.wait_for_turn(flow)?;
        if if_present == IfPresent::Keep && is_present(&self.to)? {
            return Ok(Restored::Kept);
        }
        let merge = if_present == IfPresent::Merge;
        let mut pins: Vec<Pinned> = Vec::new();
        let mut whole = self.beside && self.mounts.below.is_empty();
        let restored = loop {
            flow.check()?;
            match self.attempt(&unpacked, merge, &pins, &mut whole, flow) {
                Ok(Some(restored)) => break restored,
                // The whole target cannot be exchanged: its entries may.
                Ok(None) => {}
                Err(Stuck::Pinned(pin)) => pins.push(pin),
                Err(Stuck::Error(error)) => return Err(error),
            }
        };
        self.clear(&mut || flow.check());
        Ok(restored)
    }

    /// Two restores to the same target take turns. Where the file system knows no locks, they are not held up.
    fn wait_for_turn(&self, flow: &Flow) -> io::Result<Option<OwnedFd>> {
        let above = self.to.parent().unwrap_or(&self.to);
        let Ok(folder) = open_path(above) else { return Ok(None) };
        loop {
            match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(folder)),
                Err(Errno::AGAIN | Errno::INTR) => {
                    flow.check()?;
                    // A commit takes milliseconds; the kernel has no wait for a lock that ends with a flag.
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(_) => return Ok(None),
            }
        }
    }

    /// Tries once; `None` when the target as a whole turned out not to be exchangeable.
    fn attempt(
        &mut self,
        unpacked: &Unpacked,
        merge: bool,
        pins: &[Pinned],
        whole: &mut bool,
        flow: &Flow,
    ) -> Result<Option<Restored>, Stuck> {
        if std::fs::symlink_metadata(&self.to).is_err() {
            self.sync(unpacked, false)?;
            // None: it has appeared meanwhile.
            return Ok(self.place_whole(false)?.then_some(Restored::AtOnce));
        }
        let folders = self.folders()?;
        let plan = Plan::make(&self.places, &folders, &self.mounts, merge, pins, &self.to, flow)?;
        self.sync(unpacked, plan.merged)?;
        flow.check()?;
        let steps = plan.steps;
        if steps.is_empty() {
            return Ok(Some(Restored::AtOnce));
        }
        if let [step] = steps.as_slice()
            && self.place_one(step, &folders[step.place])?
        {
            return Ok(Some(Restored::AtOnce));
        }
        if *whole && self.holds_only(unpacked)? {
            if self.place_whole(true)? {
                return Ok(Some(Restored::AtOnce));
            }
            *whole = false;
            return Ok(None);
        }
        self.place_by_journal(&steps, &folders)?;
        Ok(Some(Restored::InMoves(steps.len())))
    }

    /// What moves need to know of each place; `old` is made afresh.
    fn folders(&self) -> io::Result<Vec<Folders>> {
        self.places
            .iter()
            .map(|place| {
                remove(place.folder.as_fd(), b"old", &mut || Ok(())).map_err(|error| place.fail("clearing", error))?;
                place.folders(&self.to, is_exchange_safe(place.folder.as_fd()))
            })
            .collect()
    }

    /// Whether the target holds nothing but roots of the snapshot.
    fn holds_only(&self, unpacked: &Unpacked) -> io::Result<bool> {
        let mut only = true;
        let folder = open_path(&self.to)?;
        each(folder.as_fd(), |name| {
            only &= unpacked.roots.iter().any(|root| root.as_bytes() == name);
            Ok(())
        })
        .map_err(|error| fail(&self.to.display(), "reading the folder", error))?;
        Ok(only)
    }

    /// Makes everything that was staged durable.
    fn sync(&self, unpacked: &Unpacked, merged: bool) -> io::Result<()> {
        for place in &self.places {
            let one_by_one = unpacked.files <= FEW_FILES && !merged;
            let synced = if one_by_one { sync_tree(place.new.as_fd()) } else { Err(Errno::NOSYS.into()) };
            synced
                // A file that may not be read is no reason: the file system is synced instead.
                .or_else(|error| {
                    if one_by_one && error.kind() != io::ErrorKind::PermissionDenied {
                        return Err(error);
                    }
                    match syncfs(&place.folder) {
                        Err(Errno::NOSYS | Errno::PERM) => sync_tree(place.new.as_fd()),
                        other => Ok(other?),
                    }
                })
                .and_then(|()| sync_folder(place.folder.as_fd()))
                .and_then(|()| sync_folder(place.holder.as_fd()))
                .map_err(|error| place.fail("syncing", error))?;
        }
        Ok(())
    }

    /// Renames or exchanges the whole target; false when this file system does not, or something else came into it.
    fn place_whole(&self, is_there: bool) -> io::Result<bool> {
        let wrong = |error: io::Error| fail(&self.to.display(), "putting the new state in place", error);
        let (Some(place), Some(name)) = (self.places.first(), self.to.file_name()) else { return Ok(false) };
        let name = name.as_bytes();
        let (above, staged) = (place.holder.as_fd(), place.folder.as_fd());
        if !is_there {
            fchmod(&place.new, Mode::from_raw_mode(0o755)).map_err(|error| wrong(error.into()))?;
            fsync(&place.new).map_err(|error| wrong(error.into()))?;
            match journal::move_to_free(staged, b"new", above, name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
                other => other.map_err(wrong)?,
            }
            return sync_both(above, staged).map(|()| true).or_else(|error| {
                journal::move_to_free(above, name, staged, b"new").map_err(wrong)?;
                Err(wrong(error))
            });
        }
        let old = open_folder(above, name).map_err(wrong)?;
        copy_folder_marks(old.as_fd(), place.new.as_fd()).map_err(wrong)?;
        sync_folder(place.new.as_fd()).map_err(wrong)?;
        // One that is empty is replaced by a plain rename, on every file system; one more reason to look: an exchange
        // brings out everything that is in the target by then.
        let empty = is_empty(old.as_fd()).map_err(wrong)?;
        let moved = if empty {
            renameat(staged, b"new".as_slice(), above, name)
        } else {
            journal::exchange(staged, b"new", above, name)
        };
        match moved {
            Ok(()) => {}
            Err(error) if journal::knows_no_exchange(error) => return Ok(false),
            Err(Errno::XDEV | Errno::BUSY | Errno::ACCESS | Errno::PERM | Errno::NOTEMPTY | Errno::EXIST) => {
                return Ok(false);
            }
            Err(error) => return Err(wrong(error.into())),
        }
        sync_both(above, staged).map(|()| true).or_else(|error| {
            if empty {
                // The old one is gone, but it was nothing.
                renameat(above, name, staged, b"new".as_slice()).map_err(|error| wrong(error.into()))?;
                make_folder(above, name, 0o700).map_err(wrong)?;
                let again = open_folder(above, name).map_err(wrong)?;
                copy_folder_marks(old.as_fd(), again.as_fd()).map_err(wrong)?;
            } else {
                journal::exchange(staged, b"new", above, name).map_err(|error| wrong(error.into()))?;
            }
            Err(wrong(error))
        })
    }

    /// Makes the only move, if it is one for the kernel, too.
    fn place_one(&self, step: &Step, folders: &Folders) -> Result<bool, Stuck> {
        let shown = || format!("{}/{}", folders.shown.display(), show(&step.path));
        let wrong = |error: io::Error| fail(&shown(), "putting the new state in place", error);
        let (above, name) = split(&step.path);
        let target = tree::open_beneath(folders.target.as_fd(), above).map_err(wrong)?;
        let new = tree::open_beneath(folders.new.as_fd(), above).map_err(wrong)?;
        let there = look(target.as_fd(), name).map_err(wrong)?;
        let moved = match (&step.make, &there) {
            (journal::Move::Put, None) => journal::move_to_free(new.as_fd(), name, target.as_fd(), name),
            (journal::Move::Put, Some(_)) => {
                journal::exchange(new.as_fd(), name, target.as_fd(), name).map_err(Into::into)
            }
            _ => return Ok(false),
        };
        if let Err(error) = moved {
            return match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::XDEV | Errno::BUSY) => {
                    Err(Stuck::Pinned(Pinned { place: step.place, path: step.path.clone() }))
                }
                Some(error) if journal::knows_no_exchange(error) => Ok(false),
                _ => Err(wrong(error).into()),
            };
        }
        if let Err(error) = sync_both(target.as_fd(), new.as_fd()) {
            step.back(folders)?;
            return Err(wrong(error).into());
        }
        Ok(true)
    }

    /// Writes the moves down, makes them, and strikes them out.
    fn place_by_journal(&mut self, steps: &[Step], folders: &[Folders]) -> Result<(), Stuck> {
        let Some(place) = self.places.first() else { return Ok(()) };
        let places: Vec<(Vec<u8>, bool)> =
            self.places.iter().zip(folders).map(|(place, folders)| (place.path.clone(), folders.exchange)).collect();
        let text = journal::encode(&places, steps);
        let shown = place.shown();
        let wrong = |error: io::Error| fail(&shown.display(), "writing the journal", error);
        // Folders alone: the places for what will be put aside.
        folders.iter().try_for_each(|folders| sync_tree(folders.old.as_fd())).map_err(wrong)?;
        write_journal(place, &text).map_err(|error| {
            self.leave = strike_out(place).is_err();
            wrong(error)
        })?;
        let stuck = match journal::make_all(steps, folders) {
            Ok(()) => match sync_moves(steps, folders) {
                Ok(()) => {
                    // With the journal gone, what is left is only waste. If it cannot be removed, it is left with all
                    // it speaks of: going through it once more changes nothing.
                    self.leave = strike_out(place).is_err();
                    return Ok(());
                }
                Err(error) => {
                    let half = journal::unmake(steps, folders).is_err();
                    (Stuck::Error(fail(&self.to.display(), "syncing", error)), half)
                }
            },
            Err(stuck) => stuck,
        };
        let (stuck, half) = stuck;
        if half {
            self.leave = true;
            let why = match stuck {
                Stuck::Error(error) => error.to_string(),
                Stuck::Pinned(pin) => format!("{}: it cannot be moved", show(&pin.path)),
            };
            let help = "old and new are mixed until the next start finishes it";
            return Err(io::Error::other(format!("{why}; {help}")).into());
        }
        let undone = sync_moves(steps, folders).and_then(|()| strike_out(place));
        if let Err(error) = undone {
            self.leave = true;
            let error = fail(&shown.display(), "removing the journal", error);
            return Err(io::Error::other(format!("{error}; the next start puts the new state in place")).into());
        }
        Err(stuck)
    }

    /// Removes the staging places, as far as time allows: what is left is cleared the next time.
    fn clear(&mut self, check: &mut dyn FnMut() -> io::Result<()>) {
        if self.leave {
            return;
        }
        // The one with the journal last: the others are its parts.
        while let Some(place) = self.places.pop() {
            let _ = place.remove(check);
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        self.clear(&mut || Ok(()));
    }
}

impl Grounds for Staging {
    fn ground_of(&mut self, parts: &[&[u8]]) -> io::Result<Ground> {
        let mut volume: &[u8] = b"";
        if !self.mounts.below.is_empty() {
            let path = parts.join(b"/".as_slice());
            for point in &self.mounts.below {
                let is_within = mounts::is_within(&path, point);
                if is_within && point.len() > volume.len() && is_folder_at(&self.to, point) {
                    volume = point;
                }
            }
        }
        let parts = if volume.is_empty() { 0 } else { volume.split(|&byte| byte == b'/').count() };
        if let Some(index) = self.places.iter().position(|place| place.path == volume) {
            return Ok(Ground { index, parts });
        }
        if volume.is_empty() {
            let error = self.no_main.as_ref().map_or_else(|| "no staging place".into(), ToString::to_string);
            return Err(io::Error::other(error));
        }
        let place = Place::open(&at(&self.to, volume), &inside_name("+", &self.state), volume.to_vec(), true)?;
        self.places.push(place);
        Ok(Ground { index: self.places.len() - 1, parts })
    }

    fn folder(&self, index: usize) -> BorrowedFd<'_> {
        self.places[index].new.as_fd()
    }
}

impl Place {
    /// Opens and locks a staging folder, makes it when `make`, and makes its `new`.
    fn open(holder_path: &Path, name: &[u8], path: Vec<u8>, make: bool) -> io::Result<Self> {
        let shown = holder_path.join(std::ffi::OsStr::from_bytes(name));
        let wrong = |error: io::Error| fail(&shown.display(), "making the staging place", error);
        let holder = open_path(holder_path)?;
        // Its last user may remove it between the steps; not so often.
        for _ in 0..100 {
            if make {
                make_folder(holder.as_fd(), name, 0o700).map_err(wrong)?;
            }
            let folder = match open_folder(holder.as_fd(), name) {
                Err(error) if make && error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(wrong)?,
            };
            let stat = fstat(&folder).map_err(|error| wrong(error.into()))?;
            if stat.st_uid != rustix::process::geteuid().as_raw() {
                return Err(wrong(io::Error::other("it belongs to somebody else: remove it")));
            }
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let lock = match openat(&folder, "lock", flags, Mode::RUSR | Mode::WUSR) {
                Err(Errno::NOENT) => continue,
                other => other.map_err(|error| wrong(error.into()))?,
            };
            // Other errors: file systems without locks have no other restores to be told from, either.
            if flock(&lock, FlockOperation::NonBlockingLockExclusive) == Err(Errno::AGAIN) {
                let why = "another restore of this state is at work here";
                return Err(fail(&shown.display(), "", io::Error::new(io::ErrorKind::WouldBlock, why)));
            }
            let same = |at: BorrowedFd<'_>, name: &[u8], fd: BorrowedFd<'_>| -> io::Result<bool> {
                Ok(look(at, name)?.map(|stat| stat.st_ino) == Some(fstat(fd)?.st_ino))
            };
            if !same(holder.as_fd(), name, folder.as_fd()).map_err(wrong)?
                || !same(folder.as_fd(), b"lock", lock.as_fd()).map_err(wrong)?
            {
                continue;
            }
            make_folder(folder.as_fd(), b"new", 0o700).map_err(wrong)?;
            let new = open_folder(folder.as_fd(), b"new").map_err(wrong)?;
            let holder_shown = holder_path.to_owned();
            return Ok(Self { path, holder, holder_shown, name: name.to_vec(), folder, new, _lock: lock });
        }
        Err(wrong(io::Error::other("it vanishes again and again")))
    }

    fn shown(&self) -> PathBuf {
        at(&self.holder_shown, &self.name)
    }

    fn fail(&self, what: &str, error: io::Error) -> io::Error {
        fail(&self.shown().display(), what, error)
    }

    /// Empties `new`.
    fn renew(&mut self, flow: &Flow) -> io::Result<()> {
        if is_empty(self.new.as_fd())? {
            return Ok(());
        }
        let renewed = remove(self.folder.as_fd(), b"new", &mut || flow.check())
            .and_then(|()| make_folder(self.folder.as_fd(), b"new", 0o700))
            .and_then(|()| open_folder(self.folder.as_fd(), b"new"));
        self.new = renewed.map_err(|error| self.fail("clearing", error))?;
        Ok(())
    }

    fn folders(&self, to: &Path, exchange: bool) -> io::Result<Folders> {
        let shown = at(to, &self.path);
        let open = || -> io::Result<Folders> {
            make_folder(self.folder.as_fd(), b"old", 0o700)?;
            Ok(Folders {
                target: open_path(&shown)?,
                new: open_folder(self.folder.as_fd(), b"new")?,
                old: open_folder(self.folder.as_fd(), b"old")?,
                exchange,
                shown: shown.clone(),
            })
        };
        open().map_err(|error| self.fail("opening the staging place", error))
    }

    /// Removes it; what tells of moves first, so that nobody makes them without what they move.
    fn remove(&self, check: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        strike_out(self)?;
        for name in ["journal.new", "new", "old"] {
            remove(self.folder.as_fd(), name.as_bytes(), check)?;
        }
        // Whatever else is in it is not ours; then it stays.
        for number in 1.. {
            let name = format!(".deep-{number}");
            if look(self.folder.as_fd(), name.as_bytes())?.is_none() {
                break;
            }
            remove(self.folder.as_fd(), name.as_bytes(), check)?;
        }
        remove(self.folder.as_fd(), b"lock", check)?;
        Ok(unlinkat(&self.holder, self.name.as_slice(), AtFlags::REMOVEDIR)?)
    }
}

/// Finishes a restore that an earlier life began to put in place, or clears what it left otherwise. Says what it did;
/// `None` when nothing was there. To be called before anything reads the state.
///
/// # Errors
/// It could not be finished; or another restore of this state is at work.
pub fn recover(to: &Path, state: &str) -> io::Result<Option<String>> {
    let Ok(Some(to)) = resolve(to) else { return Ok(None) };
    let mounts = Mounts::of(&to);
    let mut found = Vec::new();
    let mut find = |holder: &Path, name: Vec<u8>, path: &[u8]| -> io::Result<()> {
        let present = std::fs::symlink_metadata(at(holder, &name)).is_ok_and(|metadata| metadata.is_dir());
        if present {
            found.push(Place::open(holder, &name, path.to_vec(), false)?);
        }
        Ok(())
    };
    if let Some((above, name)) = beside_place(&to, state) {
        find(&above, name, b"")?;
    }
    find(&to, inside_name("-", state), b"")?;
    for point in &mounts.below {
        find(&at(&to, point), inside_name("+", state), point)?;
    }
    if found.is_empty() {
        return Ok(None);
    }
    let mut ended = None;
    for place in &found {
        ended = finish(place, &found, &to)?.or(ended);
    }
    for place in &found {
        place.remove(&mut || Ok(())).map_err(|error| place.fail("clearing", error))?;
    }
    let to = to.display();
    Ok(Some(match ended {
        Some(true) => format!("{to}: finished the restore that was interrupted"),
        Some(false) => format!("{to}: undid the restore that was interrupted"),
        None => format!("{to}: cleared what an interrupted restore had left"),
    }))
}

/// Makes the moves of a place's journal, if it has one; false when they were unmade.
fn finish(place: &Place, all: &[Place], to: &Path) -> io::Result<Option<bool>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match openat(&place.folder, "journal", flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        other => other.map_err(|error| place.fail("reading the journal", error.into()))?,
    };
    let mut text = Vec::new();
    File::from(file)
        .take(LONGEST_JOURNAL)
        .read_to_end(&mut text)
        .map_err(|error| place.fail("reading the journal", error))?;
    let Some((places, steps)) = journal::decode(&text) else {
        let why = "it is none that is understood: look what it speaks of, and remove it";
        return Err(place.fail("reading the journal", io::Error::other(why)));
    };
    let mut folders = Vec::new();
    for (path, exchange) in &places {
        // The first is the one with the journal: the target may have two, of different lives.
        let part = if folders.is_empty() { Some(place) } else { all.iter().find(|other| other.path == *path) };
        let Some(part) = part.filter(|part| part.path == *path) else {
            let missing = at(to, path);
            let why = format!("the volume at {} is not mounted any more", missing.display());
            return Err(place.fail("finishing the interrupted restore", io::Error::other(why)));
        };
        folders.push(part.folders(to, *exchange)?);
    }
    let finished = journal::finish(&steps, &folders)?;
    sync_moves(&steps, &folders).and_then(|()| strike_out(place)).map_err(|error| place.fail("syncing", error))?;
    Ok(Some(finished))
}

/// Whether anything is there that a restore would replace: the target exists and holds something, staging places and
/// the `lost+found` of a file system's top aside.
///
/// # Errors
/// The folder cannot be read.
pub fn is_present(to: &Path) -> io::Result<bool> {
    let entries = match std::fs::read_dir(to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(true),
        other => other.map_err(|error| fail(&to.display(), "reading the folder", error))?,
    };
    for entry in entries {
        let name = entry.map_err(|error| fail(&to.display(), "reading the folder", error))?.file_name();
        if !is_ours(name.as_bytes()) && name.as_bytes() != LOST_AND_FOUND {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether this is the name of a staging place inside of a target.
fn is_ours(name: &[u8]) -> bool {
    name.starts_with(STAGING.as_bytes())
}

/// The target without links in its path; `None` when not even the folder above it is there.
fn resolve(to: &Path) -> io::Result<Option<PathBuf>> {
    match std::fs::canonicalize(to) {
        Ok(to) => return Ok(Some(to)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(fail(&to.display(), "", error)),
    }
    if std::fs::symlink_metadata(to).is_ok_and(|meta| meta.is_symlink()) {
        return Err(fail(&to.display(), "", io::Error::other("it is a symbolic link to nothing")));
    }
    let above = to.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Some(name) = to.file_name() else { return Ok(None) };
    match std::fs::canonicalize(above) {
        Ok(above) => Ok(Some(above.join(name))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(fail(&to.display(), "", error)),
    }
}

/// Where the staging place beside the target is: `/var/lib/.app.boathook-restore-sessions`.
fn beside_place(to: &Path, state: &str) -> Option<(PathBuf, Vec<u8>)> {
    let (above, name) = (to.parent()?, to.file_name()?);
    let name = [b".", name.as_bytes(), STAGING.as_bytes(), b"-", state.as_bytes()].concat();
    Some((above.to_owned(), shorten(name)))
}

fn inside_name(mark: &str, state: &str) -> Vec<u8> {
    shorten([STAGING, mark, state].concat().into_bytes())
}

/// A name that is too long keeps its beginning, and a sum of the whole (FNV-1a) tells it from others.
fn shorten(mut name: Vec<u8>) -> Vec<u8> {
    if name.len() > LONGEST_NAME {
        let sum = name
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
        name.truncate(LONGEST_NAME - 17);
        name.extend_from_slice(format!("-{sum:016x}").as_bytes());
    }
    name
}

fn at(folder: &Path, path: &[u8]) -> PathBuf {
    if path.is_empty() { folder.to_owned() } else { folder.join(std::ffi::OsStr::from_bytes(path)) }
}

fn is_folder_at(to: &Path, path: &[u8]) -> bool {
    std::fs::symlink_metadata(at(to, path)).is_ok_and(|metadata| metadata.is_dir())
}

fn open_path(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|error| fail(&path.display(), "opening the folder", error))
}

/// Nothing may be written there, and elsewhere perhaps something may.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

fn is_empty(folder: BorrowedFd<'_>) -> io::Result<bool> {
    let mut empty = true;
    each(folder, |_| {
        empty = false;
        Ok(())
    })?;
    Ok(empty)
}

/// Whether inode numbers here are the same after another mount.
fn is_exchange_safe(folder: BorrowedFd<'_>) -> bool {
    /// statfs(2).
    const FUSE: u64 = 0x6573_5546;
    const OVERLAY: u64 = 0x794c_7630;
    fstatfs(folder).is_ok_and(|found| !matches!(u64::try_from(found.f_type).unwrap_or(0), FUSE | OVERLAY))
}

fn sync_both(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<()> {
    sync_folder(one)?;
    sync_folder(other)
}

/// Makes moves durable: the folders in which names have changed.
fn sync_moves(steps: &[Step], folders: &[Folders]) -> io::Result<()> {
    let mut done: Vec<(usize, &[u8])> = Vec::new();
    for step in steps {
        let (above, _) = split(&step.path);
        // The steps of one folder follow each other.
        if done.last() == Some(&(step.place, above)) {
            continue;
        }
        done.push((step.place, above));
        let folders = &folders[step.place];
        for top in [&folders.target, &folders.new, &folders.old] {
            match tree::open_beneath(top.as_fd(), above) {
                Ok(folder) => sync_folder(folder.as_fd())?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// The journal is there whole or not at all.
fn write_journal(place: &Place, text: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(&place.folder, "journal.new", flags, Mode::RUSR | Mode::WUSR)?);
    file.write_all(text)?;
    file.sync_all()?;
    renameat(&place.folder, "journal.new", &place.folder, "journal")?;
    sync_folder(place.folder.as_fd())
}

/// Removes the journal, if there is one.
fn strike_out(place: &Place) -> io::Result<()> {
    match unlinkat(&place.folder, "journal", AtFlags::empty()) {
        Ok(()) => sync_folder(place.folder.as_fd()),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
