//! A tar stream becomes files. The archive may be hostile: whatever it holds, nothing is written outside of the staging
//! place, nothing is made that could reach outside of it, and no more than the limits allow.
//!
//! Folders are opened name by name, each from the one above and never through a link (`O_NOFOLLOW`), and stay open while
//! entries of the same folder follow. Where the staging places are, and what becomes of them, is [`super::swap`]'s.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fmt,
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStringExt, fs::FileExt},
    },
};

use rustix::{
    fs::{
        AtFlags, FileType, Gid, Mode, OFlags, Uid, chmodat, chownat, fchmod, fchown, fstat, ftruncate, futimens,
        linkat, mkdirat, mknodat, openat, readlinkat, symlinkat, unlinkat, utimensat,
    },
    io::Errno,
};

use self::{
    archive::{Archive, Entry, Fault, Kind},
    names::{Target, judge_target, parts_of, show},
};
use super::{
    flow::Flow,
    swap::tree::{is_folder, look, modified, open_beneath, open_folder},
};
use crate::sys::writeback;

mod archive;
pub mod names;

/// What a restore may write at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of all files together, holes included.
    pub bytes: u64,
    /// Files, folders and links.
    pub files: u64,
}

/// What was unpacked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Files, folders and links.
    pub files: u64,
    /// Bytes of all files, holes included.
    pub bytes: u64,
    /// The top-level entries, in order.
    pub roots: Vec<OsString>,
}

/// Whose fault it is that an archive was not unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It is no archive, or is cut off.
    Broken,
    /// It holds something that is not restored from any archive: another snapshot may do.
    Forbidden,
    /// It holds more than the limits allow.
    TooMuch,
    /// Reading the stream failed.
    Source,
    /// Writing failed: another snapshot would fare no better.
    Target,
    /// The job is no longer wanted.
    GivenUp,
}

/// Why an archive was not unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its name, for people; empty when it was not about one.
    pub entry: String,
    pub what: What,
    /// Lowercase, with what it is about.
    pub why: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.entry.is_empty() { f.write_str(&self.why) } else { write!(f, "{}: {}", self.entry, self.why) }
    }
}

impl std::error::Error for Refused {}

impl Refused {
    pub(super) fn target(error: &dyn fmt::Display) -> Self {
        Self { entry: String::new(), what: What::Target, why: error.to_string() }
    }
}

/// A part of the snapshot's tree with a staging place of its own.
pub struct Ground {
    /// Which it is.
    pub index: usize,
    /// So many leading parts of a path stand for the place itself.
    pub parts: usize,
}

/// The staging places.
pub trait Grounds {
    /// The place for an entry with this path.
    fn ground_of(&mut self, parts: &[&[u8]]) -> io::Result<Ground>;
    /// Its folder.
    fn folder(&self, index: usize) -> BorrowedFd<'_>;
}

/// After so many bytes of a file the disk begins to write them, so that syncing everything in the end finds less to do.
const EARLY: u64 = 4 << 20;

/// Links whose targets go down and up again are few; each is looked at a second time at the end.
const MOST_ODD_LINKS: usize = 10_000;

/// Unpacks a whole archive.
///
/// # Errors
/// The first thing that is wrong with the archive, or with writing; what was unpacked until then is still there.
pub fn unpack(
    grounds: &mut dyn Grounds,
    tar: &mut dyn Read,
    limits: &Limits,
    flow: &Flow,
) -> Result<Unpacked, Refused> {
    let mut unpacker = Unpacker {
        grounds,
        flow,
        limits: *limits,
        is_root: rustix::process::geteuid().is_root(),
        owners_noted: false,
        files: 0,
        bytes: 0,
        roots: BTreeSet::new(),
        ground: 0,
        levels: Vec::new(),
        odd_links: Vec::new(),
    };
    let mut archive = Archive::new(tar);
    while let Some(entry) = archive.next().map_err(|fault| fault.refused(b""))? {
        unpacker.unpack_entry(&mut archive, &entry)?;
    }
    unpacker.leave_to(0).map_err(|error| Refused::target(&error))?;
    unpacker.check_odd_links()?;
    let roots = unpacker.roots.into_iter().map(OsString::from_vec).collect();
    Ok(Unpacked { files: unpacker.files, bytes: unpacker.bytes, roots })
}

impl Fault {
    fn refused(self, entry: &[u8]) -> Refused {
        let (what, why) = match self {
            Fault::Read(error) => (What::Source, format!("reading the archive: {error}")),
            Fault::Broken(why) => (What::Broken, format!("broken archive: {why}")),
        };
        Refused { entry: show(entry), what, why }
    }
}

/// Why an entry was not made.
enum Stop {
    Fault(Fault),
    Forbidden(String),
    TooMuch(String),
    Target(io::Error),
    GivenUp(io::Error),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Target(error)
    }
}

impl From<Errno> for Stop {
    fn from(error: Errno) -> Self {
        Self::Target(error.into())
    }
}

fn forbidden<T>(why: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Forbidden(why.into()))
}

struct Unpacker<'a> {
    grounds: &'a mut dyn Grounds,
    flow: &'a Flow,
    limits: Limits,
    is_root: bool,
    owners_noted: bool,
    files: u64,
    bytes: u64,
    roots: BTreeSet<Vec<u8>>,
    /// The place in which the open folders lie.
    ground: usize,
    /// The open folders, each within the one before it, the first within the place's own.
    levels: Vec<Level>,
    /// Links (by path and target) that lead outside unless what they pass are folders.
    odd_links: Vec<(Vec<u8>, Vec<u8>)>,
}

/// An open folder. Its marks are set when it is left, because making entries in it changes its time and may need
/// permissions that it is not to have.
struct Level {
    name: Vec<u8>,
    folder: OwnedFd,
    mode: u32,
    mtime: Option<(i64, u32)>,
}

impl Unpacker<'_> {
    fn unpack_entry(&mut self, archive: &mut Archive<'_>, entry: &Entry) -> Result<(), Refused> {
        self.try_entry(archive, entry).map_err(|stop| {
            let (what, why) = match stop {
                Stop::Fault(fault) => return fault.refused(&entry.path),
                Stop::Forbidden(why) => (What::Forbidden, why),
                Stop::TooMuch(why) => (What::TooMuch, why),
                Stop::Target(error) => (What::Target, format!("unpacking: {error}")),
                Stop::GivenUp(error) => (What::GivenUp, error.to_string()),
            };
            Refused { entry: show(&entry.path), what, why }
        })
    }

    fn try_entry(&mut self, archive: &mut Archive<'_>, entry: &Entry) -> Result<(), Stop> {
        self.check()?;
        let parts = parts_of(&entry.path).map_err(|why| Stop::Forbidden(why.into()))?;
        if let Kind::Other(name) = entry.kind {
            return forbidden(format!("it is {name}, which is never restored"));
        }
        if (entry.uid >= u64::from(u32::MAX)) || (entry.gid >= u64::from(u32::MAX)) {
            return forbidden("its owner is beyond all owners");
        }
        let Some((&name, above)) = parts.split_last() else {
            return match entry.kind {
                // The target itself keeps its marks.
                Kind::Folder => Ok(()),
                _ => forbidden("it would stand for the target itself, but is no folder"),
            };
        };
        if parts[0].starts_with(super::swap::STAGING.as_bytes()) {
            return forbidden("its name is kept for staging places");
        }
        let ground = self.grounds.ground_of(&parts)?;
        if !self.roots.contains(parts[0]) {
            self.roots.insert(parts[0].to_vec());
        }
        if parts.len() == ground.parts {
            return match entry.kind {
                Kind::Folder => Ok(()),
                _ => forbidden("a volume is mounted at its place, and it is no folder"),
            };
        }
        self.enter(&ground, above)?;
        match entry.kind {
            Kind::Folder => self.make_folder(name, entry)?,
            Kind::File => self.make_file(archive, name, entry)?,
            Kind::Symlink => self.make_symlink(&parts, entry)?,
            Kind::HardLink => self.make_hard_link(&parts, entry, &ground)?,
            Kind::Fifo => self.make_fifo(name, entry)?,
            Kind::Other(_) => {}
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Stop> {
        self.flow.check().map_err(Stop::GivenUp)
    }

    /// Counts before anything is made.
    fn count(&mut self, bytes: u64) -> Result<(), Stop> {
        if self.files >= self.limits.files {
            return Err(Stop::TooMuch(format!(
                "more than {} files: raise max-files if it may be so many",
                self.limits.files
            )));
        }
        match self.bytes.checked_add(bytes) {
            Some(sum) if sum <= self.limits.bytes => self.bytes = sum,
            _ => {
                let limit = self.limits.bytes;
                return Err(Stop::TooMuch(format!("more than {limit} bytes: raise max-bytes if it may be so many")));
            }
        }
        self.files += 1;
        self.flow.add_files(1);
        Ok(())
    }

    /// The innermost open folder.
    fn here(&self) -> BorrowedFd<'_> {
        self.levels.last().map_or_else(|| self.grounds.folder(self.ground), |level| level.folder.as_fd())
    }

    /// Opens the folders of a path, and makes those that had no entry of their own.
    fn enter(&mut self, ground: &Ground, above: &[&[u8]]) -> Result<(), Stop> {
        let above = &above[ground.parts..];
        if self.ground != ground.index {
            self.leave_to(0)?;
            self.ground = ground.index;
        }
        let same = self.levels.iter().zip(above).take_while(|(level, name)| level.name == **name).count();
        self.leave_to(same)?;
        for name in &above[same..] {
            match mkdirat(self.here(), *name, Mode::RWXU) {
                Ok(()) => {
                    self.count(0)?;
                    self.push(name, 0o755, None)?;
                }
                Err(Errno::EXIST) => self.enter_existing(name)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Goes into a folder that was unpacked before; it gets its marks again when it is left.
    fn enter_existing(&mut self, name: &[u8]) -> Result<(), Stop> {
        let Some(stat) = look(self.here(), name)? else { return Err(Errno::NOENT.into()) };
        if !is_folder(&stat) {
            return forbidden(format!("{} above it is a folder, and elsewhere in the archive it is none", show(name)));
        }
        if stat.st_mode & 0o700 != 0o700 {
            // Nobody else can reach into the staging place: it is still the folder that was looked at.
            chmodat(self.here(), name, Mode::RWXU, AtFlags::empty())?;
        }
        let mtime = (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0));
        self.push(name, stat.st_mode & 0o7777, Some(mtime))
    }

    fn push(&mut self, name: &[u8], mode: u32, mtime: Option<(i64, u32)>) -> Result<(), Stop> {
        let folder = open_folder(self.here(), name)?;
        self.levels.push(Level { name: name.to_vec(), folder, mode, mtime });
        Ok(())
    }

    /// Leaves folders until so many are open, and sets their marks.
    fn leave_to(&mut self, count: usize) -> io::Result<()> {
        while self.levels.len() > count {
            let Some(level) = self.levels.pop() else { break };
            fchmod(&level.folder, Mode::from_raw_mode(level.mode))?;
            if let Some((seconds, nanoseconds)) = level.mtime {
                futimens(&level.folder, &modified(seconds, nanoseconds))?;
            }
        }
        Ok(())
    }

    fn make_folder(&mut self, name: &[u8], entry: &Entry) -> Result<(), Stop> {
        self.count(0)?;
        match mkdirat(self.here(), name, Mode::RWXU) {
            Ok(()) => self.push(name, 0o700, None)?,
            Err(Errno::EXIST) => match look(self.here(), name)? {
                Some(stat) if is_folder(&stat) => self.enter_existing(name)?,
                _ => return forbidden("it is a folder, and elsewhere in the archive it is none"),
            },
            Err(error) => return Err(error.into()),
        }
        let folder = self.here();
        let owned = {
            let (uid, gid) = owner(entry);
            let is_root = self.is_root;
            is_root && taken(fchown(folder, Some(uid), Some(gid)))?
        };
        self.note_owner(entry, owned);
        // A folder's set-group-id only hands its group down; the kernel drops it where we may not give it.
        let mode = entry.mode & if owned { 0o7777 } else { 0o3777 };
        if let Some(level) = self.levels.last_mut() {
            (level.mode, level.mtime) = (mode, Some(entry.mtime));
        }
        Ok(())
    }

    fn make_file(&mut self, archive: &mut Archive<'_>, name: &[u8], entry: &Entry) -> Result<(), Stop> {
        self.count(entry.size)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Nobody else can reach into the staging place: what most files are to have in the end does no harm now.
        let mode = Mode::from_raw_mode(entry.mode & 0o777 | 0o600);
        let open = |here: BorrowedFd<'_>| openat(here, name, flags, mode);
        let file = match open(self.here()) {
            Err(Errno::EXIST) => {
                self.make_way(name)?;
                open(self.here())?
            }
            other => other?,
        };
        // Before anything is written, because afterwards NFS would write it out to know its size.
        let made = fstat(&file)?;
        let mut file = File::from(file);
        match &entry.pieces {
            None => {
                let (mut written, mut started) = (0, 0);
                loop {
                    let data = archive.data()?;
                    let count = data.len();
                    if count == 0 {
                        break;
                    }
                    file.write_all(data)?;
                    archive.consume(count);
                    written += count as u64;
                    if written - started >= EARLY {
                        writeback::start(&file, started, written - started);
                        started = written;
                    }
                    self.flow.add_bytes(count as u64);
                    self.check()?;
                }
            }
            Some(pieces) => {
                for &(offset, length) in pieces {
                    let mut written = 0;
                    while written < length {
                        let data = archive.data()?;
                        // The map was held against the data: there is some.
                        let count = data.len().min(usize::try_from(length - written).unwrap_or(usize::MAX));
                        if count == 0 {
                            return Err(Stop::Fault(Fault::Broken("it is cut off".into())));
                        }
                        file.write_all_at(&data[..count], offset + written)?;
                        archive.consume(count);
                        written += count as u64;
                        self.check()?;
                    }
                }
                ftruncate(&file, entry.size)?;
                self.flow.add_bytes(entry.size);
            }
        }
        let (uid, gid) = owner(entry);
        let has_owner = (made.st_uid, made.st_gid) == (uid.as_raw(), gid.as_raw());
        let owned = self.is_root && (has_owner || taken(fchown(&file, Some(uid), Some(gid)))?);
        self.note_owner(entry, owned);
        // After the owner: changing that clears the set-id bits (chown(2)).
        let mode = entry.mode & if owned { 0o7777 } else { 0o777 };
        if made.st_mode & 0o7777 != mode {
            fchmod(&file, Mode::from_raw_mode(mode))?;
        }
        futimens(&file, &modified(entry.mtime.0, entry.mtime.1))?;
        Ok(())
    }

    fn make_symlink(&mut self, parts: &[&[u8]], entry: &Entry) -> Result<(), Stop> {
        self.count(0)?;
        self.check_target(parts, &entry.link)?;
        let name = parts[parts.len() - 1];
        match symlinkat(entry.link.as_slice(), self.here(), name) {
            Err(Errno::EXIST) => {
                self.make_way(name)?;
                symlinkat(entry.link.as_slice(), self.here(), name)?;
            }
            other => other?,
        }
        let (uid, gid) = owner(entry);
        if self.is_root {
            let owned = taken(chownat(self.here(), name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW))?;
            self.note_owner(entry, owned);
        }
        Ok(utimensat(self.here(), name, &modified(entry.mtime.0, entry.mtime.1), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// A symbolic link at this path may have this target.
    fn check_target(&mut self, parts: &[&[u8]], target: &[u8]) -> Result<(), Stop> {
        match judge_target(parts.len() - 1, target) {
            Target::Inside => Ok(()),
            Target::Outside(why) => forbidden(format!("it is a link to {}: {why}", show(target))),
            Target::InsideIfFolders(_) if self.odd_links.len() < MOST_ODD_LINKS => {
                self.odd_links.push((parts.join(b"/".as_slice()), target.to_vec()));
                Ok(())
            }
            Target::InsideIfFolders(_) => forbidden("too many links whose targets go down and up again"),
        }
    }

    fn make_hard_link(&mut self, parts: &[&[u8]], entry: &Entry, ground: &Ground) -> Result<(), Stop> {
        self.count(0)?;
        let link = || show(&entry.link);
        let target = parts_of(&entry.link).map_err(|why| {
            let why = why.replacen("its name", "the name", 1);
            Stop::Forbidden(format!("it is a hard link to {}: {why}", link()))
        })?;
        let Some((&target_name, target_above)) = target.split_last() else {
            return forbidden("it is a hard link to a folder");
        };
        if target == parts {
            return forbidden("it is a hard link to itself");
        }
        let target_ground = self.grounds.ground_of(&target)?;
        if target_ground.index != ground.index || target.len() == target_ground.parts {
            return forbidden(format!("it is a hard link to {}, which lies on another volume here", link()));
        }
        let above = target_above[ground.parts..].join(b"/".as_slice());
        let opened = open_beneath(self.grounds.folder(ground.index), &above);
        let found = match &opened {
            Ok(folder) => look(folder.as_fd(), target_name)?,
            Err(_) => None,
        };
        let (Ok(folder), Some(stat)) = (opened, found) else {
            return forbidden(format!("it is a hard link to {}, which was not unpacked before", link()));
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => return forbidden(format!("it is a hard link to {}, a folder", link())),
            // The same target means another place from here.
            FileType::Symlink => {
                let target = readlinkat(&folder, target_name, Vec::new())?;
                self.check_target(parts, target.as_bytes())?;
            }
            _ => {}
        }
        let name = parts[parts.len() - 1];
        match linkat(&folder, target_name, self.here(), name, AtFlags::empty()) {
            Err(Errno::EXIST) => {
                self.make_way(name)?;
                linkat(&folder, target_name, self.here(), name, AtFlags::empty())?;
            }
            other => other?,
        }
        Ok(())
    }

    fn make_fifo(&mut self, name: &[u8], entry: &Entry) -> Result<(), Stop> {
        self.count(0)?;
        let make = |here: BorrowedFd<'_>| mknodat(here, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0);
        match make(self.here()) {
            Err(Errno::EXIST) => {
                self.make_way(name)?;
                make(self.here())?;
            }
            other => other?,
        }
        let (uid, gid) = owner(entry);
        let owned = self.is_root && taken(chownat(self.here(), name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW))?;
        self.note_owner(entry, owned);
        chmodat(self.here(), name, Mode::from_raw_mode(entry.mode & 0o777), AtFlags::empty())?;
        Ok(utimensat(self.here(), name, &modified(entry.mtime.0, entry.mtime.1), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Something else of this name was unpacked before: the later one replaces it.
    fn make_way(&mut self, name: &[u8]) -> Result<(), Stop> {
        match look(self.here(), name)? {
            Some(stat) if is_folder(&stat) => forbidden("it is no folder, and elsewhere in the archive it is one"),
            _ => Ok(unlinkat(self.here(), name, AtFlags::empty())?),
        }
    }

    /// Says once that owners are not kept.
    fn note_owner(&mut self, entry: &Entry, owned: bool) {
        let ours = || (u64::from(rustix::process::geteuid().as_raw()), u64::from(rustix::process::getegid().as_raw()));
        if !owned && !self.owners_noted && (entry.uid, entry.gid) != ours() {
            self.owners_noted = true;
            let show = show(&entry.path);
            self.flow
                .note(format!("{show}: owner {}:{} not kept, as of others: that needs root", entry.uid, entry.gid));
        }
    }

    /// Looks again at the links that go down and up: is what they pass a folder?
    fn check_odd_links(&mut self) -> Result<(), Refused> {
        for (path, target) in std::mem::take(&mut self.odd_links) {
            let parts: Vec<&[u8]> = path.split(|&byte| byte == b'/').collect();
            let Target::InsideIfFolders(folders) = judge_target(parts.len() - 1, &target) else { continue };
            for folder in folders {
                let mut whole = parts[..parts.len() - 1].to_vec();
                let names = folder.split(|&byte| byte == b'/').filter(|name| !name.is_empty());
                for name in names {
                    if name == b".." {
                        whole.pop();
                    } else {
                        whole.push(name);
                    }
                }
                let is_folder = self.grounds.ground_of(&whole).and_then(|ground| {
                    open_beneath(self.grounds.folder(ground.index), &whole[ground.parts..].join(b"/".as_slice()))
                });
                if is_folder.is_err() {
                    let why = format!(
                        "it is a link to {}: it goes up again after {}, which is no folder of the snapshot",
                        show(&target),
                        show(&folder)
                    );
                    return Err(Refused { entry: show(&path), what: What::Forbidden, why });
                }
            }
        }
        Ok(())
    }
}

fn owner(entry: &Entry) -> (Uid, Gid) {
    // They were held against the limit of the kernel before.
    let id = |id: u64| u32::try_from(id).unwrap_or(0);
    (Uid::from_raw(id(entry.uid)), Gid::from_raw(id(entry.gid)))
}

/// Whether the owner was taken; root without the capability may not give files away.
fn taken(changed: rustix::io::Result<()>) -> io::Result<bool> {
    match changed {
        Ok(()) => Ok(true),
        Err(Errno::PERM) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
