//! Walks a source: which files are there, opened where they lie. What is done with them is left to the visitor.
//!
//! Every step goes from an open folder to a name in it and follows no symbolic link, so that a path that is swapped for
//! a link meanwhile leads nowhere else. The source itself may be a link: whoever configured it meant what it points to.
//! Folders are read as the kernel gives them, so a folder of a million names takes no more memory than one of ten.
//! Other file systems that are mounted below belong to the source.

use std::{
    ffi::{CStr, CString, OsStr},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags},
    io::{Errno, retry_on_intr},
};

use super::{
    super::{flow::Flow, pattern::Patterns},
    meta::{Id, Meta, plain},
};

/// So many folders are open at once, from the source's own and the deepest ones: a container may be allowed 1024
/// descriptors, and each holds up to 24 KiB of names. Another is opened again when the walk comes back to it.
const MOST_OPEN: usize = 32;

/// What a visitor is told of.
pub trait Visit {
    /// A folder: before what is in it.
    fn folder(&mut self, path: &[u8], meta: &Meta) -> io::Result<()>;
    /// Anything else.
    fn entry(&mut self, found: &Found<'_>) -> io::Result<()>;
    /// What is there and could not be visited.
    fn miss(&mut self, path: &[u8], why: Miss) -> io::Result<()>;
}

/// Why something was not visited.
#[derive(Clone, Copy, Debug)]
pub enum Miss {
    /// It is another thing than a moment ago.
    Swapped,
    Vanished,
    Unreadable(Errno),
}

impl Miss {
    /// Of an open that follows no link and takes only what the name was a moment ago.
    pub fn of(error: Errno) -> Self {
        match error {
            Errno::NOENT => Self::Vanished,
            // A link, no folder any more, a socket.
            Errno::LOOP | Errno::NOTDIR | Errno::NXIO => Self::Swapped,
            other => Self::Unreadable(other),
        }
    }
}

/// An entry of a folder, or the source itself.
pub struct Found<'a> {
    pub folder: BorrowedFd<'a>,
    pub name: &'a CStr,
    /// As it is stored.
    pub path: &'a [u8],
    /// As the folder says; it may have become another meanwhile.
    pub kind: FileType,
    /// The source itself.
    pub is_source: bool,
}

impl Found<'_> {
    /// What it is now.
    pub fn meta(&self) -> Result<Meta, Errno> {
        let flags = if self.is_source { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        retry_on_intr(|| Meta::at(self.folder, self.name, flags))
    }

    /// Opens a regular file. Neither a FIFO nor a device that has taken its place meanwhile can hold the caller, who
    /// has to look at what was opened.
    pub fn open(&self) -> Result<OwnedFd, Errno> {
        let mut flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        if !self.is_source {
            flags |= OFlags::NOFOLLOW;
        }
        retry_on_intr(|| rustix::fs::openat(self.folder, self.name, flags, Mode::empty()))
    }
}

/// What came of a source.
#[derive(Debug)]
pub enum Source {
    Visited,
    /// The patterns leave it out.
    NotWanted,
    /// There is none: why.
    Missing(String),
}

/// What holds for every source.
pub struct Walk<'a> {
    pub patterns: &'a Patterns,
    /// Never entered.
    pub left_out: &'a [Id],
    pub flow: &'a Flow,
}

/// A folder between the source and where the walk is.
struct Frame {
    /// `None` when there were too many.
    open: Option<Dir>,
    id: Id,
    /// Behind the last entry that was read.
    position: i64,
    /// How much of the path is its own.
    path: usize,
    /// It was not visited, because nothing in it was wanted so far.
    unvisited: Option<Meta>,
    /// All of it is wanted that is not excluded.
    is_wanted: bool,
}

impl Walk<'_> {
    /// Visits the source and everything below it that is wanted.
    ///
    /// # Errors
    /// The source itself cannot be read, the visitor's errors, or the job is given up.
    pub fn visit(&self, source: &Path, stored_as: &OsStr, visitor: &mut dyn Visit) -> io::Result<Source> {
        let failed = |error: Errno| {
            let text = format!("{}: {}", source.display(), plain(error));
            io::Error::new(io::Error::from(error).kind(), text)
        };
        let refused = |what: &str| {
            let text = format!("{}: it is {what}", source.display());
            io::Error::new(io::ErrorKind::InvalidInput, text)
        };
        let stored_as = stored_as.as_bytes();
        let name = CString::new(source.as_os_str().as_bytes()).map_err(|_| refused("no path: it has a zero byte"))?;
        let meta = match retry_on_intr(|| Meta::at(CWD, &name, AtFlags::empty())) {
            Ok(meta) => meta,
            Err(Errno::NOENT) => return Ok(Source::Missing(failed(Errno::NOENT).to_string())),
            Err(error) => return Err(failed(error)),
        };
        if self.left_out.contains(&meta.id) {
            return Err(refused("where the snapshots are kept"));
        }
        let is_folder = meta.kind == FileType::Directory;
        let is_wanted = self.patterns.include(stored_as, is_folder);
        if self.patterns.exclude(stored_as, is_folder) || !(is_wanted || is_folder) {
            return Ok(Source::NotWanted);
        }
        match meta.kind {
            FileType::Directory => {}
            FileType::RegularFile | FileType::Fifo => {
                let found = Found { folder: CWD, name: &name, path: stored_as, kind: meta.kind, is_source: true };
                return visitor.entry(&found).map(|()| Source::Visited);
            }
            _ => return Err(refused("a device or a socket, which cannot be saved")),
        }
        let opened = open_folder(CWD, &name, OFlags::empty()).and_then(|folder| Ok((Meta::of(&folder)?, folder)));
        let (meta, folder) = opened.map_err(failed)?;
        let root = Frame {
            open: Some(Dir::new(folder).map_err(failed)?),
            id: meta.id,
            position: 0,
            path: stored_as.len(),
            unvisited: (!is_wanted).then_some(meta),
            is_wanted,
        };
        if is_wanted {
            visitor.folder(stored_as, &meta)?;
        }
        self.descend(root, stored_as.to_vec(), visitor)?;
        Ok(Source::Visited)
    }

    /// The frames are on the heap: a tree can be deeper than a stack.
    fn descend(&self, root: Frame, mut path: Vec<u8>, visitor: &mut dyn Visit) -> io::Result<()> {
        let mut frames = vec![root];
        while let Some(frame) = frames.last_mut() {
            self.flow.check()?;
            let (own, is_wanted) = (frame.path, frame.is_wanted);
            let Some(folder) = &mut frame.open else {
                if let Err(why) = reopen(&mut frames, &path) {
                    visitor.miss(&path[..own], why)?;
                    frames.pop();
                }
                continue;
            };
            let entry = match folder.read() {
                Some(Ok(entry)) => entry,
                end => {
                    if let Some(Err(error)) = end {
                        visitor.miss(&path[..own], Miss::Unreadable(error))?;
                    }
                    leave(&mut frames);
                    continue;
                }
            };
            frame.position = entry.offset();
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            path.truncate(own);
            path.push(b'/');
            path.extend_from_slice(name.to_bytes());
            let mut kind = entry.file_type();
            if kind == FileType::Unknown {
                // Some file systems do not say it in the folder.
                let Ok(folder) = folder.fd() else { continue };
                match Meta::at(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(meta) => kind = meta.kind,
                    Err(error) => {
                        visitor.miss(&path, Miss::of(error))?;
                        continue;
                    }
                }
            }
            let is_folder = kind == FileType::Directory;
            if self.patterns.exclude(&path, is_folder) {
                continue;
            }
            let is_wanted = is_wanted || self.patterns.include(&path, is_folder);
            if !is_folder {
                if is_wanted {
                    visit_folders(&mut frames, &path, visitor)?;
                    if let Some(Ok(folder)) = frames.last().and_then(|frame| frame.open.as_ref()).map(Dir::fd) {
                        visitor.entry(&Found { folder, name, path: &path, kind, is_source: false })?;
                    }
                }
                continue;
            }
            let opened = folder.fd().and_then(|folder| open_folder(folder, name, OFlags::NOFOLLOW));
            let (meta, folder) = match opened.and_then(|folder| Ok((Meta::of(&folder)?, Dir::new(folder)?))) {
                Ok(opened) => opened,
                Err(error) => {
                    visitor.miss(&path, Miss::of(error))?;
                    continue;
                }
            };
            if self.left_out.contains(&meta.id) {
                continue;
            }
            if is_wanted {
                visit_folders(&mut frames, &path, visitor)?;
                visitor.folder(&path, &meta)?;
            }
            frames.push(Frame {
                open: Some(folder),
                id: meta.id,
                position: 0,
                path: path.len(),
                unvisited: (!is_wanted).then_some(meta),
                is_wanted,
            });
            close_one(&mut frames);
        }
        Ok(())
    }
}

/// Visits the folders that lead to something that is wanted, once.
fn visit_folders(frames: &mut [Frame], path: &[u8], visitor: &mut dyn Visit) -> io::Result<()> {
    // The deepest one is visited last, so when it was, all were.
    if frames.last().is_none_or(|last| last.unvisited.is_none()) {
        return Ok(());
    }
    for frame in frames {
        if let Some(meta) = frame.unvisited.take() {
            visitor.folder(&path[..frame.path], &meta)?;
        }
    }
    Ok(())
}

fn open_folder(folder: BorrowedFd<'_>, name: &CStr, follow: OFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | follow;
    retry_on_intr(|| rustix::fs::openat(folder, name, flags, Mode::empty()))
}

/// Closes the folder that became one too many, never the source's own.
fn close_one(frames: &mut [Frame]) {
    if let Some(frame) =
        frames.len().checked_sub(MOST_OPEN + 1).filter(|place| *place > 0).map(|place| &mut frames[place])
    {
        frame.open = None;
    }
}

/// Goes back to the folder above, which is opened through the one that is left when it was closed meanwhile. That one
/// may have been moved: `..` counts only when it is the folder from which the walk came.
fn leave(frames: &mut Vec<Frame>) {
    let left = frames.pop().and_then(|frame| frame.open);
    let (Some(left), Some(above)) = (left, frames.last_mut()) else { return };
    if above.open.is_some() {
        return;
    }
    let opened = left.fd().and_then(|left| open_folder(left, c"..", OFlags::NOFOLLOW));
    if let Ok(opened) = opened
        && Meta::of(&opened).is_ok_and(|meta| meta.id == above.id)
        && let Ok(mut folder) = Dir::new(opened)
        && folder.seek(above.position).is_ok()
    {
        above.open = Some(folder);
    }
}

/// Opens the last folders again, where no `..` led back: by their names, from the nearest one that is still open. Each
/// must be the one that it was.
fn reopen(frames: &mut [Frame], path: &[u8]) -> Result<(), Miss> {
    let Some(last) = frames.len().checked_sub(1) else { return Ok(()) };
    let nearest = frames.iter().rposition(|frame| frame.open.is_some()).ok_or(Miss::Vanished)?;
    let mut passed: Option<OwnedFd> = None;
    for place in nearest + 1..=last {
        let above = &frames[place - 1];
        let from = match (&above.open, &passed) {
            (Some(open), _) => open.fd().map_err(Miss::Unreadable)?,
            (None, Some(passed)) => passed.as_fd(),
            (None, None) => return Err(Miss::Vanished),
        };
        let name = path.get(above.path + 1..frames[place].path).and_then(|name| CString::new(name).ok());
        let opened = open_folder(from, &name.ok_or(Miss::Swapped)?, OFlags::NOFOLLOW).map_err(Miss::of)?;
        if Meta::of(&opened).map_err(Miss::Unreadable)?.id != frames[place].id {
            return Err(Miss::Swapped);
        }
        // The nearest ones are kept: the walk comes back to them next.
        if last - place < MOST_OPEN / 2 {
            let mut folder = Dir::new(opened).map_err(Miss::Unreadable)?;
            folder.seek(frames[place].position).map_err(Miss::Unreadable)?;
            frames[place].open = Some(folder);
            passed = None;
        } else {
            passed = Some(opened);
        }
    }
    Ok(())
}
