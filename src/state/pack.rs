//! The sources of a save become one tar stream, which any tar unpacks. How it is compressed, sealed and kept is left to
//! others.
//!
//! Kept: permissions with their special bits, numeric owners, times to the nanosecond, symbolic and hard links, holes,
//! empty folders, FIFOs, names of any bytes and length. Not kept: extended attributes and access control lists (as with
//! `cp -r` and `tar`), sockets and devices (noted). What changes, vanishes or cannot be read is noted, the rest is saved.

mod entry;
mod meta;
mod sparse;
mod walk;

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rustix::{
    fs::FileType,
    io::{Errno, retry_on_intr},
};
use tar::EntryType;

use self::{
    entry::{Archive, Entry},
    meta::{Id, Meta, Time, plain},
    sparse::{Extent, find_data},
    walk::{Found, Miss, Source, Visit, Walk},
};
use super::{flow::Flow, pattern::Patterns};

/// A source of a save.
#[derive(Debug)]
pub enum Item {
    /// A file or a folder, stored under its last component, as `cp -r` does. When it is a symbolic link, what it points
    /// to is stored, under the link's name.
    Tree(PathBuf),
    /// What a command or a server gave.
    Stream { name: String, content: Spooled },
}

/// Content whose length had to be known first.
#[derive(Debug)]
pub enum Spooled {
    Memory(Vec<u8>),
    /// An unlinked temporary file, read from its start, and its length in bytes.
    File(File, u64),
}

impl Spooled {
    fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(_, length) => *length,
        }
    }
}

/// What is saved.
#[derive(Debug, Default)]
pub struct Selection {
    pub items: Vec<Item>,
    pub patterns: Patterns,
    /// Never packed, whatever holds it: the store's own folder. It has to exist when packing begins.
    pub leave_out: Vec<PathBuf>,
}

/// What was packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Entries that are no folders.
    pub files: u64,
    /// Their content as it will be after unpacking, holes included; hard links count once.
    pub bytes: u64,
    pub archive_bytes: u64,
    /// The names at the top of the archive, in the order of the sources; those that are no UTF-8 are approximated.
    pub roots: Vec<String>,
}

/// The path to a first name of a hard-linked file, and how many names of it are still to come.
type Links = HashMap<Id, (Box<[u8]>, u64)>;

/// Some forty thousand files at a time that still have names to come. Beyond that a further name is stored as a file of
/// its own, which is noted: more bytes, nothing lost.
const MOST_LINK_BYTES: usize = 4 * 1024 * 1024;

/// Memory goes to the sink in pieces of a megabyte, so that giving up takes effect between them.
const PIECE: usize = 1024 * 1024;

/// About what a map takes for an entry, beside the path.
const LINK_BYTES: usize = 64;

/// How the note about a file that cannot be read begins.
pub const UNREADABLE: &str = "cannot be read";

/// The names under which the sources are stored.
///
/// # Errors
/// A source has no name, or two have the same.
pub fn root_names(items: &[Item]) -> Result<Vec<OsString>, String> {
    let mut names: Vec<OsString> = Vec::with_capacity(items.len());
    for item in items {
        let name = match item {
            Item::Tree(path) => path.file_name().ok_or_else(|| {
                format!("{}: it has no last component to be stored under: write the folder's name", path.display())
            })?,
            Item::Stream { name, .. } if name.contains(['/', '\0']) || matches!(name.as_str(), "" | "." | "..") => {
                return Err(format!("{name:?}: it cannot be the name of a file"));
            }
            Item::Stream { name, .. } => OsStr::new(name),
        };
        if names.iter().any(|other| other == name) {
            return Err(format!(
                "two sources would be stored as {}: save one of them in a step of its own",
                name.display()
            ));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

/// Looks at what there is to pack and sets what the flow expects, reading folders and inodes only.
///
/// # Errors
/// Those with which [`pack`] would begin, or the job is given up.
pub fn survey(selection: &Selection, flow: &Flow) -> io::Result<()> {
    let names = root_names(&selection.items).map_err(invalid)?;
    let left_out = identify(&selection.leave_out)?;
    let walk = Walk { patterns: &selection.patterns, left_out: &left_out, flow };
    let mut surveyor = Surveyor { files: 0, bytes: 0, left_out: &left_out };
    let mut missing = Vec::new();
    for (item, name) in selection.items.iter().zip(&names) {
        match item {
            Item::Tree(path) => {
                flow.wait_for(Some(Arc::from(path.as_path())));
                if let Source::Missing(why) = walk.visit(path, name, &mut surveyor)? {
                    missing.push(why);
                }
            }
            Item::Stream { content, .. } => {
                surveyor.files += 1;
                surveyor.bytes += content.len();
            }
        }
    }
    if missing.len() == names.len() && !missing.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, missing.join("; ")));
    }
    flow.expect(surveyor.files, surveyor.bytes);
    Ok(())
}

/// Packs the sources into the sink, the end of the archive included, and counts into the flow: files, and the bytes that
/// it took to read them.
///
/// A source that does not exist is noted as long as another one does: an application may not have got round to writing
/// it.
///
/// # Errors
/// Those of the sink; a source that cannot be read or stored; none of the sources exists (`NotFound`, nothing was
/// written); the job is given up.
pub fn pack(selection: &mut Selection, sink: &mut dyn io::Write, flow: &Flow) -> io::Result<Packed> {
    let names = root_names(&selection.items).map_err(invalid)?;
    let left_out = identify(&selection.leave_out)?;
    let walk = Walk { patterns: &selection.patterns, left_out: &left_out, flow };
    let mut packer = Packer::new(Archive::new(sink), flow, &left_out);
    let (mut roots, mut missing) = (Vec::with_capacity(names.len()), Vec::new());
    for (item, name) in selection.items.iter().zip(&names) {
        match item {
            Item::Tree(path) => {
                flow.wait_for(Some(Arc::from(path.as_path())));
                packer.above = path.parent().unwrap_or(Path::new(""));
                match walk.visit(path, name, &mut packer)? {
                    Source::Visited => {}
                    Source::NotWanted => {
                        flow.note(format!("left out by include and exclude: {}", path.display()));
                        continue;
                    }
                    Source::Missing(why) => {
                        missing.push(why);
                        continue;
                    }
                }
            }
            Item::Stream { name, content } => packer.stream(name, content)?,
        }
        roots.push(name.to_string_lossy().into_owned());
    }
    if missing.len() == names.len() && !missing.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, missing.join("; ")));
    }
    for why in missing {
        flow.note(why);
    }
    if packer.files == 0 && selection.patterns.are_choosy() {
        flow.note("no file matches include".into());
    }
    let Packer { archive, files, bytes, .. } = packer;
    Ok(Packed { files, bytes, archive_bytes: archive.finish()?, roots })
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

/// By what they are and not by their names, which a link or another mount can give them too.
fn identify(paths: &[PathBuf]) -> io::Result<Vec<Id>> {
    let mut ids = Vec::with_capacity(paths.len());
    for path in paths {
        match retry_on_intr(|| rustix::fs::stat(path)) {
            Ok(stat) => ids.push(Meta::new(&stat).id),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(error) => {
                let text = format!("{}: {}", path.display(), plain(error));
                return Err(io::Error::new(io::Error::from(error).kind(), text));
            }
        }
    }
    Ok(ids)
}

struct Surveyor<'a> {
    files: u64,
    bytes: u64,
    left_out: &'a [Id],
}

impl Visit for Surveyor<'_> {
    fn folder(&mut self, _: &[u8], _: &Meta) -> io::Result<()> {
        Ok(())
    }

    fn entry(&mut self, found: &Found<'_>) -> io::Result<()> {
        match found.kind {
            FileType::RegularFile => {
                if let Ok(meta) = found.meta()
                    && !self.left_out.contains(&meta.id)
                {
                    self.files += 1;
                    self.bytes = self.bytes.saturating_add(meta.work());
                }
            }
            FileType::Symlink | FileType::Fifo => self.files += 1,
            _ => {}
        }
        Ok(())
    }

    fn miss(&mut self, _: &[u8], _: Miss) -> io::Result<()> {
        Ok(())
    }
}

struct Packer<'a> {
    archive: Archive<'a>,
    flow: &'a Flow,
    left_out: &'a [Id],
    /// Where the source lies: before a stored path it makes the whole path.
    above: &'a Path,
    links: Links,
    link_bytes: usize,
    most_link_bytes: usize,
    is_short_of_links: bool,
    files: u64,
    bytes: u64,
}

/// How the content of an entry ended.
enum Content {
    Whole,
    /// It was shorter than its inode had said.
    Short,
    Failed(Errno),
}

/// Tells the flow of the bytes of one file: in the end all those that a survey has counted for it.
struct Work<'a> {
    flow: &'a Flow,
    left: u64,
}

impl Work<'_> {
    fn add(&mut self, bytes: u64) {
        let bytes = bytes.min(self.left);
        self.left -= bytes;
        self.flow.add_bytes(bytes);
    }
}

impl Visit for Packer<'_> {
    fn folder(&mut self, path: &[u8], meta: &Meta) -> io::Result<()> {
        self.put(EntryType::Directory, path, meta, b"", 0, None)
    }

    fn entry(&mut self, found: &Found<'_>) -> io::Result<()> {
        match found.kind {
            FileType::RegularFile => return self.regular(found),
            FileType::Symlink | FileType::Fifo => {}
            FileType::Socket => return self.note("left out, it is a socket", found.path, None),
            _ => return self.note("left out, it is a device", found.path, None),
        }
        let meta = match found.meta() {
            Ok(meta) if meta.kind == found.kind => meta,
            Ok(_) => return self.lose(found, Miss::Swapped),
            Err(error) => return self.lose(found, Miss::of(error)),
        };
        if meta.kind == FileType::Fifo {
            self.put(EntryType::Fifo, found.path, &meta, b"", 0, None)?;
        } else {
            match retry_on_intr(|| rustix::fs::readlinkat(found.folder, found.name, Vec::new())) {
                Ok(target) => self.put(EntryType::Symlink, found.path, &meta, target.as_bytes(), 0, None)?,
                // It is no link any more.
                Err(Errno::INVAL) => return self.lose(found, Miss::Swapped),
                Err(error) => return self.lose(found, Miss::of(error)),
            }
        }
        self.count(0);
        Ok(())
    }

    fn miss(&mut self, path: &[u8], why: Miss) -> io::Result<()> {
        match why {
            Miss::Swapped => self.note("changed while it was read", path, None),
            Miss::Vanished => self.note("vanished before it was read", path, None),
            Miss::Unreadable(error) => self.note(UNREADABLE, path, Some(error)),
        }
    }
}

impl<'a> Packer<'a> {
    fn new(archive: Archive<'a>, flow: &'a Flow, left_out: &'a [Id]) -> Self {
        Self {
            archive,
            flow,
            left_out,
            above: Path::new(""),
            links: Links::new(),
            link_bytes: 0,
            most_link_bytes: MOST_LINK_BYTES,
            is_short_of_links: false,
            files: 0,
            bytes: 0,
        }
    }

    fn put(
        &mut self,
        kind: EntryType,
        path: &[u8],
        meta: &Meta,
        target: &[u8],
        size: u64,
        extents: Option<&[Extent]>,
    ) -> io::Result<()> {
        let Meta { permissions, uid, gid, modified: time, .. } = *meta;
        self.archive.begin_entry(&Entry { kind, path, permissions, uid, gid, time, target, size, extents })
    }

    fn count(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        self.flow.add_files(1);
    }

    fn shown(&self, path: &[u8]) -> String {
        let whole = self.above.join(OsStr::from_bytes(path));
        // A line feed in a name must not begin a new line of somebody's log.
        whole.to_string_lossy().chars().map(|c| if c.is_control() { '?' } else { c }).collect()
    }

    /// Never an error: it is what the callers go on with.
    fn note(&self, what: &str, path: &[u8], error: Option<Errno>) -> io::Result<()> {
        let why = error.map(|error| format!(": {}", plain(error))).unwrap_or_default();
        self.flow.note(format!("{what}: {}{why}", self.shown(path)));
        Ok(())
    }

    /// An entry that cannot be stored is noted; without the source itself there is no save.
    fn lose(&mut self, found: &Found<'_>, why: Miss) -> io::Result<()> {
        let error = match why {
            _ if !found.is_source => return self.miss(found.path, why),
            Miss::Swapped => io::Error::other("it changed while it was read"),
            Miss::Vanished => io::Error::from(Errno::NOENT),
            Miss::Unreadable(error) => io::Error::from(error),
        };
        let text = error.to_string();
        let text = text.split(" (os error").next().unwrap_or(&text);
        Err(io::Error::new(error.kind(), format!("{}: {text}", self.shown(found.path))))
    }

    fn regular(&mut self, found: &Found<'_>) -> io::Result<()> {
        let opened = found.open().and_then(|file| Ok((Meta::of(&file)?, file)));
        let (meta, file) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                return self.lose(found, Miss::of(error));
            }
        };
        if meta.kind != FileType::RegularFile {
            return self.lose(found, Miss::Swapped);
        }
        if self.left_out.contains(&meta.id) {
            return Ok(());
        }
        let mut work = Work { flow: self.flow, left: meta.work() };
        if meta.links > 1
            && let Some(first) = self.take_link(meta.id)
        {
            self.put(EntryType::Link, found.path, &meta, &first, 0, None)?;
            self.count(0);
            work.add(u64::MAX);
            return Ok(());
        }
        let extents =
            if meta.allocated < meta.size { find_data(file.as_fd(), meta.size, &|| self.flow.check())? } else { None };
        self.archive.make_room(meta.size)?;
        let begin = self.archive.position();
        self.put(EntryType::Regular, found.path, &meta, b"", meta.size, extents.as_deref())?;
        let whole = [Extent { offset: 0, length: meta.size }];
        let extents = extents.as_deref().unwrap_or(&whole);
        let stored = extents.iter().map(|extent| extent.length).sum();
        let (content, missing) = self.content(file.as_fd(), extents, stored, &mut work)?;
        if let Content::Failed(error) = content
            && (found.is_source || self.archive.take_back(begin))
        {
            return self.lose(found, Miss::Unreadable(error));
        }
        self.zeros(missing)?;
        self.archive.end_entry(stored)?;
        let has_changed = match content {
            Content::Whole => Meta::of(&file).is_ok_and(|after| after.differs_from(&meta)),
            Content::Short => true,
            Content::Failed(error) => {
                self.note("cannot be read to its end, the rest is zeros", found.path, Some(error))?;
                false
            }
        };
        if has_changed {
            self.note("changed while it was read", found.path, None)?;
        }
        work.add(u64::MAX);
        self.count(meta.size);
        if meta.links > 1 { self.remember_link(found.path, &meta) } else { Ok(()) }
    }

    /// Puts what the pieces of the file hold, and says how many bytes are missing of what was announced.
    fn content(
        &mut self,
        file: BorrowedFd<'_>,
        extents: &[Extent],
        stored: u64,
        work: &mut Work<'_>,
    ) -> io::Result<(Content, u64)> {
        let mut missing = stored;
        for extent in extents {
            let mut at = extent.offset;
            while at < extent.end() {
                self.flow.check()?;
                let space = self.archive.space()?;
                let now = usize::try_from(extent.end() - at).unwrap_or(usize::MAX).min(space.len());
                match retry_on_intr(|| rustix::io::pread(file, &mut space[..now], at)) {
                    Ok(0) => return Ok((Content::Short, missing)),
                    Ok(read) => {
                        self.archive.advance(read);
                        at += read as u64;
                        missing -= read as u64;
                        work.add(read as u64);
                    }
                    Err(error) => return Ok((Content::Failed(error), missing)),
                }
            }
        }
        Ok((Content::Whole, 0))
    }

    fn zeros(&mut self, mut count: u64) -> io::Result<()> {
        while count > 0 {
            self.flow.check()?;
            count -= self.archive.put_zeros(count)?;
        }
        Ok(())
    }

    /// The name under which this file is in the archive already. After its last name it is forgotten.
    fn take_link(&mut self, id: Id) -> Option<Box<[u8]>> {
        let (path, to_come) = self.links.get_mut(&id)?;
        *to_come = to_come.saturating_sub(1);
        if *to_come > 0 {
            return Some(path.clone());
        }
        let (path, _) = self.links.remove(&id)?;
        self.link_bytes = self.link_bytes.saturating_sub(path.len() + LINK_BYTES);
        Some(path)
    }

    fn remember_link(&mut self, path: &[u8], meta: &Meta) -> io::Result<()> {
        let bytes = path.len() + LINK_BYTES;
        if self.link_bytes.saturating_add(bytes) <= self.most_link_bytes {
            self.link_bytes += bytes;
            self.links.insert(meta.id, (path.into(), meta.links.saturating_sub(1)));
            Ok(())
        } else if std::mem::replace(&mut self.is_short_of_links, true) {
            Ok(())
        } else {
            self.note("too many hard links, some are stored as files of their own, from this one on", path, None)
        }
    }

    /// What a step of the save was given: owned by whoever saves, and nobody else's to read.
    fn stream(&mut self, name: &str, content: &Spooled) -> io::Result<()> {
        self.flow.check()?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let size = content.len();
        self.archive.begin_entry(&Entry {
            kind: EntryType::Regular,
            path: name.as_bytes(),
            permissions: 0o600,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            time: Time { seconds: now.as_secs().cast_signed(), nanos: 0 },
            target: b"",
            size,
            extents: None,
        })?;
        let mut work = Work { flow: self.flow, left: size };
        match content {
            Spooled::Memory(bytes) => {
                for piece in bytes.chunks(PIECE) {
                    self.flow.check()?;
                    self.archive.put(piece)?;
                    work.add(piece.len() as u64);
                }
            }
            Spooled::File(file, length) => {
                let whole = [Extent { offset: 0, length: *length }];
                let failed = |why: &str| io::Error::other(format!("{name}: the file that it waits in {why}"));
                match self.content(file.as_fd(), &whole, *length, &mut work)?.0 {
                    Content::Whole => {}
                    Content::Short => return Err(failed("was cut")),
                    Content::Failed(error) => return Err(failed(&format!("cannot be read: {}", plain(error)))),
                }
            }
        }
        self.archive.end_entry(size)?;
        self.count(size);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_links_are_remembered_until_the_last_or_the_bound() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("r");
        std::fs::create_dir(&root).expect("a folder");
        for file in 0..20 {
            let first = root.join(format!("{file}-first"));
            std::fs::write(&first, "x").expect("a file");
            std::fs::hard_link(&first, root.join(format!("{file}-second"))).expect("a link");
        }
        // All are remembered and forgotten; three fit, and only those are links.
        for (most, links) in [(MOST_LINK_BYTES, 20), (3 * (LINK_BYTES + 12), 3)] {
            let (flow, _guard) = Flow::new();
            let (patterns, mut sink) = (Patterns::default(), Vec::new());
            let mut packer = Packer::new(Archive::new(&mut sink), &flow, &[]);
            packer.most_link_bytes = most;
            let walk = Walk { patterns: &patterns, left_out: &[], flow: &flow };
            walk.visit(&root, OsStr::new("r"), &mut packer).expect("visited");
            assert!(packer.links.len() <= 3 && packer.files == 40, "{} kept", packer.links.len());
            assert!(packer.link_bytes <= most && (links < 20 || packer.link_bytes == 0), "{}", packer.link_bytes);
            assert_eq!(flow.notes().count, u64::from(links < 20));
            packer.archive.finish().expect("an archive");
            let mut reader = tar::Archive::new(&sink[..]);
            let entries = reader.entries().expect("an archive").map(|entry| entry.expect("an entry"));
            let found = entries.filter(|entry| entry.header().entry_type() == EntryType::Link).count();
            assert!(found >= links, "{found} links");
            assert!(links == 20 || found < 20, "{found} links");
        }
    }
}
