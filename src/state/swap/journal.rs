//! The moves of a restore that takes more than one: written down before the first, so that who comes after a kill goes
//! on with them. Each move can be made and unmade from whatever a kill has left, because what is where tells how far it
//! came: the new is at `new/PATH` or in its place, the old in its place or at `old/PATH`.
//!
//! Only an exchange of two names looks the same before and after; then the number of the new one's inode tells. Where
//! that may change between two mounts (FUSE, overlayfs), no exchange is made in a journal.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use rustix::{
    fs::{AtFlags, Mode, RenameFlags, mkdirat, renameat, renameat_with, unlinkat},
    io::Errno,
};

use super::tree::{Marks, fail, look, make_folder, open_beneath, open_folder, remove, split};
use crate::state::unpack::names::{parts_of, show};

/// What is done at one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// The new comes into its place; what was there goes aside.
    Put,
    /// What is there goes aside.
    Take,
    /// The empty folder goes.
    Clear,
    /// The folder gets other marks.
    Mark,
}

/// One move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub make: Move,
    pub place: usize,
    /// Below the place's target.
    pub path: Vec<u8>,
    /// The inode of what is put.
    pub inode: u64,
    /// A folder's old marks and its new ones, where it stays or is made again.
    pub marks: Option<Box<[Marks; 2]>>,
}

/// A place's folders, as far as moves need them.
pub struct Folders {
    /// For people.
    pub shown: PathBuf,
    /// What holds the content that is replaced.
    pub target: OwnedFd,
    pub new: OwnedFd,
    pub old: OwnedFd,
    /// Exchanges may be made and recognised later.
    pub exchange: bool,
}

/// A move that this file system does not make for a folder: its content is to be moved instead.
#[derive(Debug)]
pub struct Pinned {
    pub place: usize,
    pub path: Vec<u8>,
}

/// Why a move was not made.
#[derive(Debug)]
pub enum Stuck {
    Pinned(Pinned),
    Error(io::Error),
}

impl From<io::Error> for Stuck {
    fn from(error: io::Error) -> Self {
        Self::Error(error)
    }
}

/// The folders around one path.
struct Around<'a> {
    target: OwnedFd,
    /// None where a folder is only taken away.
    new: Option<OwnedFd>,
    /// None where nothing is put aside.
    old: Option<OwnedFd>,
    name: &'a [u8],
}

impl<'a> Around<'a> {
    fn open(folders: &Folders, path: &'a [u8]) -> io::Result<Self> {
        let (above, name) = split(path);
        Ok(Self {
            target: open_beneath(folders.target.as_fd(), above)?,
            new: none_if_absent(open_beneath(folders.new.as_fd(), above))?,
            old: none_if_absent(open_beneath(folders.old.as_fd(), above))?,
            name,
        })
    }

    fn old(&self) -> io::Result<BorrowedFd<'_>> {
        self.old.as_ref().map(AsFd::as_fd).ok_or_else(|| Errno::NOENT.into())
    }

    fn staged(&self) -> io::Result<BorrowedFd<'_>> {
        self.new.as_ref().map(AsFd::as_fd).ok_or_else(|| Errno::NOENT.into())
    }

    fn look_new(&self) -> io::Result<Option<rustix::fs::Stat>> {
        self.new.as_ref().map_or(Ok(None), |new| look(new.as_fd(), self.name))
    }

    fn look_old(&self) -> io::Result<Option<rustix::fs::Stat>> {
        self.old.as_ref().map_or(Ok(None), |old| look(old.as_fd(), self.name))
    }

    fn put(&self) -> io::Result<()> {
        move_to_free(self.staged()?, self.name, self.target.as_fd(), self.name)
    }

    fn put_back(&self) -> io::Result<()> {
        move_to_free(self.target.as_fd(), self.name, self.staged()?, self.name)
    }

    fn take(&self) -> io::Result<()> {
        move_to_free(self.target.as_fd(), self.name, self.old()?, self.name)
    }

    fn give_back(&self) -> io::Result<()> {
        move_to_free(self.old()?, self.name, self.target.as_fd(), self.name)
    }
}

fn none_if_absent(opened: io::Result<OwnedFd>) -> io::Result<Option<OwnedFd>> {
    match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

/// Renames to a name that nothing has. Network file systems know no `RENAME_NOREPLACE`; there it was looked at before.
pub fn move_to_free(from: BorrowedFd<'_>, name: &[u8], to: BorrowedFd<'_>, new_name: &[u8]) -> io::Result<()> {
    match renameat_with(from, name, to, new_name, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => Ok(renameat(from, name, to, new_name)?),
        other => Ok(other?),
    }
}

pub fn exchange(from: BorrowedFd<'_>, name: &[u8], to: BorrowedFd<'_>, other: &[u8]) -> rustix::io::Result<()> {
    renameat_with(from, name, to, other, RenameFlags::EXCHANGE)
}

/// Whether a file system says by this that it makes no exchanges, and not that this one failed.
pub fn knows_no_exchange(error: Errno) -> bool {
    matches!(error, Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)
}

impl Step {
    /// Makes the move, from wherever an earlier attempt has left it.
    ///
    /// # Errors
    /// It cannot be made; then the content is in one of the places that [`Self::back`] knows.
    pub fn forward(&self, folders: &Folders) -> Result<(), Stuck> {
        self.try_forward(folders).map_err(|error| match error.raw_os_error().map(Errno::from_raw_os_error) {
            // overlayfs for folders of a lower layer; a mount point.
            Some(Errno::XDEV | Errno::BUSY) => Stuck::Pinned(Pinned { place: self.place, path: self.path.clone() }),
            _ => Stuck::Error(fail(&self.shown(folders), "putting the new state in place", error)),
        })
    }

    fn shown(&self, folders: &Folders) -> String {
        format!("{}/{}", folders.shown.display(), show(&self.path))
    }

    fn try_forward(&self, folders: &Folders) -> io::Result<()> {
        let around = match Around::open(folders, &self.path) {
            // The folder that it was taken from is gone already, or something else is in its place.
            Err(error)
                if matches!(self.make, Move::Take | Move::Clear)
                    && matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                return Ok(());
            }
            around => around?,
        };
        let (target, name) = (around.target.as_fd(), around.name);
        match self.make {
            Move::Put => {
                let Some(new) = around.look_new()? else { return Ok(()) };
                if look(target, name)?.is_some() {
                    if around.look_old()?.is_some() {
                        // Killed between two renames, and then somebody made another: it goes with the old.
                        remove(around.old()?, name, &mut || Ok(()))?;
                    } else if folders.exchange {
                        if new.st_ino != self.inode {
                            return Ok(());
                        }
                        match exchange(around.staged()?, name, target, name) {
                            Err(error) if knows_no_exchange(error) => {}
                            other => return Ok(other?),
                        }
                    }
                    around.take()?;
                }
                around.put()
            }
            Move::Take => match (look(target, name)?, around.look_old()?) {
                (Some(_), None) => around.take(),
                _ => Ok(()),
            },
            Move::Clear => match unlinkat(target, name, AtFlags::REMOVEDIR) {
                // Something new is in it.
                Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
                Err(error) => Err(error.into()),
            },
            Move::Mark => self.mark(1, target, name),
        }
    }

    /// Gives the folder its old marks, or its new ones.
    fn mark(&self, which: usize, at: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
        let Some(marks) = &self.marks else { return Ok(()) };
        marks[which].set(open_folder(at, name)?.as_fd())
    }

    /// Unmakes the move, if it was made, whole or in part.
    pub fn back(&self, folders: &Folders) -> io::Result<()> {
        self.try_back(folders).map_err(|error| fail(&self.shown(folders), "putting the old state back", error))
    }

    fn try_back(&self, folders: &Folders) -> io::Result<()> {
        let around = Around::open(folders, &self.path)?;
        let (target, name) = (around.target.as_fd(), around.name);
        let (there, old) = (look(target, name)?, around.look_old()?);
        match self.make {
            Move::Put => {
                let new = around.look_new()?;
                match (new, there, old) {
                    (None, Some(_), old) => {
                        around.put_back()?;
                        if old.is_some() { around.give_back() } else { Ok(()) }
                    }
                    (_, None, Some(_)) => around.give_back(),
                    (Some(_), Some(there), None) if there.st_ino == self.inode => {
                        Ok(exchange(around.staged()?, name, target, name)?)
                    }
                    _ => Ok(()),
                }
            }
            Move::Take => match (there, old) {
                (None, Some(_)) => around.give_back(),
                _ => Ok(()),
            },
            Move::Clear => {
                if there.is_none() {
                    mkdirat(target, name, Mode::RWXU)?;
                }
                self.mark(0, target, name)
            }
            Move::Mark => {
                // What was moved out of the new one and back has changed its time.
                self.mark(1, around.staged()?, name)?;
                self.mark(0, target, name)
            }
        }
    }
}

/// Makes all moves, or none of them: an error unmakes those that were made.
///
/// # Errors
/// Why a move could not be made. When unmaking failed as well, the second is true: it is half and half.
pub fn make_all(steps: &[Step], folders: &[Folders]) -> Result<(), (Stuck, bool)> {
    for (index, step) in steps.iter().enumerate() {
        if let Err(stuck) = step.forward(&folders[step.place]) {
            let half = unmake(&steps[..=index], folders).is_err();
            return Err((stuck, half));
        }
    }
    Ok(())
}

/// Unmakes moves, the last first.
pub fn unmake(steps: &[Step], folders: &[Folders]) -> io::Result<()> {
    for step in steps.iter().rev() {
        step.back(&folders[step.place])?;
    }
    // Moving things back into a folder has changed its time once more.
    for step in steps.iter().rev().filter(|step| matches!(step.make, Move::Mark | Move::Clear)) {
        step.back(&folders[step.place])?;
    }
    Ok(())
}

/// Goes on with the moves of an earlier life, to their end; false when one cannot be made, as that life was about to
/// find, and all of them were unmade.
pub fn finish(steps: &[Step], folders: &[Folders]) -> io::Result<bool> {
    for step in steps {
        match step.forward(&folders[step.place]) {
            Ok(()) => {}
            Err(Stuck::Error(error)) => return Err(error),
            Err(Stuck::Pinned(_)) => {
                unmake(steps, folders)?;
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// What the file begins with; another version would be another line.
const TITLE: &[u8] = b"boathook restore 1";

/// The journal's bytes: fields that end with a zero byte, because names may hold any other.
pub fn encode(places: &[(Vec<u8>, bool)], steps: &[Step]) -> Vec<u8> {
    let mut text = [TITLE, b"\0"].concat();
    for (path, exchange) in places {
        text.extend_from_slice(if *exchange { b"x" } else { b"p" });
        text.extend_from_slice(path);
        text.push(0);
    }
    for step in steps {
        let letter = match step.make {
            Move::Put => 'P',
            Move::Take => 'T',
            Move::Clear => 'C',
            Move::Mark => 'M',
        };
        text.extend_from_slice(format!("{letter}{} {} ", step.place, step.inode).as_bytes());
        for Marks { mode, uid, gid, seconds, nanoseconds } in step.marks.iter().flat_map(|marks| marks.iter()) {
            text.extend_from_slice(format!("{mode} {uid} {gid} {seconds} {nanoseconds} ").as_bytes());
        }
        text.extend_from_slice(&step.path);
        text.push(0);
    }
    text.extend_from_slice(b"end\0");
    text
}

/// The places (path below the target, whether exchanges are made there) and moves of a journal.
pub type Read = (Vec<(Vec<u8>, bool)>, Vec<Step>);

/// Reads a journal; `None` when it is none of ours, or not whole.
pub fn decode(text: &[u8]) -> Option<Read> {
    let mut fields = text.strip_prefix(TITLE)?.strip_prefix(b"\0")?.strip_suffix(b"end\0")?.split(|&byte| byte == 0);
    let (mut places, mut steps) = (Vec::new(), Vec::new());
    // The last field is what follows the last zero byte: nothing.
    fields.next_back().filter(|field| field.is_empty())?;
    for field in fields {
        let (&letter, rest) = field.split_first()?;
        let make = match letter {
            b'x' | b'p' => {
                places.push((rest.to_vec(), letter == b'x'));
                continue;
            }
            b'P' => Move::Put,
            b'T' => Move::Take,
            b'C' => Move::Clear,
            b'M' => Move::Mark,
            _ => return None,
        };
        let mut rest = rest;
        let place: usize = number(&mut rest)?;
        let inode = number(&mut rest)?;
        let marks = match make {
            Move::Clear | Move::Mark => Some(Box::new([read_marks(&mut rest)?, read_marks(&mut rest)?])),
            Move::Put | Move::Take => None,
        };
        let is_safe = parts_of(rest).is_ok_and(|parts| !parts.is_empty());
        if place >= places.len() || !is_safe {
            return None;
        }
        steps.push(Step { make, place, path: rest.to_vec(), inode, marks });
    }
    Some((places, steps))
}

/// Reads a number and the blank behind it.
fn number<T: std::str::FromStr>(text: &mut &[u8]) -> Option<T> {
    let blank = text.iter().position(|&byte| byte == b' ')?;
    let value = std::str::from_utf8(&text[..blank]).ok()?.parse().ok()?;
    *text = &text[blank + 1..];
    Some(value)
}

fn read_marks(text: &mut &[u8]) -> Option<Marks> {
    Some(Marks {
        mode: number(text)?,
        uid: number(text)?,
        gid: number(text)?,
        seconds: number(text)?,
        nanoseconds: number(text)?,
    })
}

/// Makes the folder in which what lies at this path will be put aside.
pub fn prepare_aside(folders: &Folders, path: &[u8]) -> io::Result<()> {
    let (above, name) = split(path);
    make_folder(open_beneath(folders.old.as_fd(), above)?.as_fd(), name, 0o700)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_comes_back_as_it_went_or_not_at_all() {
        let places = vec![(Vec::new(), true), (b"a b/c\nd".to_vec(), false)];
        let marks = Marks { mode: 0o755, uid: 1, gid: 2, seconds: -3, nanoseconds: 4 };
        let step = |make, place, path: &[u8]| {
            let marks = matches!(make, Move::Clear | Move::Mark).then(|| Box::new([marks, Marks { mode: 7, ..marks }]));
            Step { make, place, path: path.to_vec(), inode: 7, marks }
        };
        let steps = vec![
            step(Move::Put, 0, b"sessions"),
            step(Move::Take, 1, b"x y\xff/z"),
            step(Move::Clear, 1, b"e"),
            step(Move::Mark, 0, b" "),
        ];
        let text = encode(&places, &steps);
        assert_eq!(decode(&text), Some((places, steps)));
        for cut in 0..text.len() {
            assert_eq!(decode(&text[..cut]), None, "cut after {cut} bytes");
        }
        assert_eq!(decode(b"boathook restore 1\0pend\0"), None);
        assert_eq!(decode(b"boathook restore 1\0p\0P0 0 ../x\0end\0"), None, "out of the target");
        assert_eq!(decode(b"boathook restore 1\0p\0P1 0 x\0end\0"), None, "no such place");
        assert_eq!(decode(b"boathook restore 1\0end\0"), Some((Vec::new(), Vec::new())));
    }
}
