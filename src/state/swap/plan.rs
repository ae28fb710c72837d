//! Which moves bring the new state into place. A folder that cannot be moved (a mount point, or one above it; a folder of
//! an image's layer) stays, and its entries are moved one by one.

use std::{io, os::fd::AsFd, path::Path};

use super::{
    LOST_AND_FOUND, Place, at, is_ours,
    journal::{Folders, Move, Pinned, Step, prepare_aside},
    merge::merge,
    mounts::{Mounts, is_within},
    tree::{Marks, each, fail, is_folder, join, look, open_beneath},
};
use crate::state::flow::Flow;

/// The moves, in order.
pub struct Plan {
    pub steps: Vec<Step>,
    /// Existing files were added to what is staged.
    pub merged: bool,
}

struct Planner<'a> {
    places: &'a [Place],
    folders: &'a [Folders],
    mounts: &'a Mounts,
    merge: bool,
    pins: &'a [Pinned],
    to: &'a Path,
    flow: &'a Flow,
    plan: Plan,
}

impl Plan {
    /// Looks at what is staged and at what is there. When merging, what is there and stays is added to what is staged.
    ///
    /// # Errors
    /// Something cannot be replaced, or not be read.
    pub fn make(
        places: &[Place],
        folders: &[Folders],
        mounts: &Mounts,
        merge: bool,
        pins: &[Pinned],
        to: &Path,
        flow: &Flow,
    ) -> io::Result<Self> {
        let plan = Self { steps: Vec::new(), merged: false };
        let mut planner = Planner { places, folders, mounts, merge, pins, to, flow, plan };
        for (index, place) in places.iter().enumerate() {
            if place.path.is_empty() {
                // Other entries of the target are not touched.
                planner.put_each(index, b"")?;
            } else {
                // The volume's content is the unit.
                planner.descend(index, b"")?;
            }
        }
        Ok(planner.plan)
    }
}

impl Planner<'_> {
    fn fail(&self, place: usize, path: &[u8], what: &str, error: io::Error) -> io::Error {
        fail(&at(&at(self.to, &self.places[place].path), path).display(), what, error)
    }

    /// The path below the target, as mounts have it.
    fn whole(&self, place: usize, path: &[u8]) -> Vec<u8> {
        let volume = &self.places[place].path;
        if path.is_empty() { volume.clone() } else { join(volume, path) }
    }

    fn is_pinned(&self, place: usize, path: &[u8]) -> bool {
        let whole = self.whole(place, path);
        self.mounts.is_at_or_below(&whole)
            // What lies in a folder of a lower layer most likely is of that layer, too.
            || self.pins.iter().any(|pin| pin.place == place && is_within(path, &pin.path))
    }

    /// A file that is a mount point, or that the kernel was asked to move and did not.
    fn cannot_be_moved(&self, place: usize, path: &[u8]) -> bool {
        self.mounts.is_at(&self.whole(place, path))
            || self.pins.iter().any(|pin| pin.place == place && pin.path == path)
    }

    fn step(&mut self, make: Move, place: usize, path: &[u8], inode: u64) {
        self.plan.steps.push(Step { make, place, path: path.to_vec(), inode, marks: None });
    }

    fn mark(&mut self, make: Move, place: usize, path: &[u8], marks: [Marks; 2]) {
        self.plan.steps.push(Step { make, place, path: path.to_vec(), inode: 0, marks: Some(Box::new(marks)) });
    }

    /// The marks of a folder at the target, as they are before any move.
    fn old_marks(&self, place: usize, path: &[u8]) -> io::Result<Marks> {
        let marks = open_beneath(self.folders[place].target.as_fd(), path).and_then(|folder| Marks::of(folder.as_fd()));
        marks.map_err(|error| self.fail(place, path, "looking at it", error))
    }

    /// Puts each staged entry of a folder in place.
    fn put_each(&mut self, place: usize, folder: &[u8]) -> io::Result<()> {
        let staged = open_beneath(self.folders[place].new.as_fd(), folder)?;
        each(staged.as_fd(), |name| self.put(place, &join(folder, name)))
    }

    fn put(&mut self, place: usize, path: &[u8]) -> io::Result<()> {
        self.flow.check()?;
        let (above, name) = super::split(path);
        let folders = &self.folders[place];
        let look_in = |top: &std::os::fd::OwnedFd| look(open_beneath(top.as_fd(), above)?.as_fd(), name);
        let wrong = |error| self.fail(place, path, "looking at it", error);
        let Some(new) = look_in(&folders.new).map_err(wrong)? else { return Ok(()) };
        let there = look_in(&folders.target).map_err(wrong)?;
        let (from_folder, to_folder) = (is_folder(&new), there.as_ref().is_some_and(is_folder));
        if there.is_some_and(|there| (there.st_dev, there.st_ino) == (new.st_dev, new.st_ino)) {
            // Linked here by a merge that was planned before: renaming one name of a file to another does nothing.
            return Ok(());
        }
        if there.is_some() && self.merge && from_folder != to_folder {
            let what = if to_folder { "a folder here and none" } else { "no folder here and one" };
            let why = io::Error::other(format!("it is {what} in the snapshot: they cannot be merged"));
            return Err(self.fail(place, path, "", why));
        }
        if there.is_some() && !to_folder && self.cannot_be_moved(place, path) {
            let why = io::Error::other("it is mounted there by itself, or lies on another file system");
            return Err(self.fail(place, path, "it cannot be replaced", why));
        }
        if to_folder && self.is_pinned(place, path) {
            let is_mount = self.mounts.is_at(&self.whole(place, path));
            if from_folder {
                let staged = open_beneath(folders.new.as_fd(), path).and_then(|folder| Marks::of(folder.as_fd()));
                let marks = [self.old_marks(place, path)?, staged.map_err(wrong)?];
                self.descend(place, path)?;
                if !is_mount {
                    self.mark(Move::Mark, place, path, marks);
                }
                return Ok(());
            }
            if self.mounts.is_at_or_below(&self.whole(place, path)) {
                let why = io::Error::other("a volume is mounted in it, and in the snapshot it is no folder");
                return Err(self.fail(place, path, "it cannot be replaced", why));
            }
            self.take(place, path)?;
        } else if self.merge && from_folder && to_folder {
            let (new, there) = (open_beneath(folders.new.as_fd(), path), open_beneath(folders.target.as_fd(), path));
            let shown = at(&folders.shown, path);
            merge(new.map_err(wrong)?.as_fd(), there.map_err(wrong)?.as_fd(), &shown, self.flow)?;
            self.plan.merged = true;
        }
        self.step(Move::Put, place, path, new.st_ino);
        Ok(())
    }

    /// Replaces the content of a folder that stays.
    fn descend(&mut self, place: usize, folder: &[u8]) -> io::Result<()> {
        if !folder.is_empty() {
            let prepared = prepare_aside(&self.folders[place], folder);
            prepared.map_err(|error| self.fail(place, folder, "preparing the staging place", error))?;
        }
        self.put_each(place, folder)?;
        if self.merge {
            return Ok(());
        }
        let there = open_beneath(self.folders[place].target.as_fd(), folder)?;
        let staged = open_beneath(self.folders[place].new.as_fd(), folder)?;
        each(there.as_fd(), |name| {
            let is_top = folder.is_empty() || self.mounts.is_at(&self.whole(place, folder));
            let path = join(folder, name);
            if look(staged.as_fd(), name)?.is_some() || is_ours(name) || (is_top && name == LOST_AND_FOUND) {
                return Ok(());
            }
            if self.mounts.is_at_or_below(&self.whole(place, &path)) {
                if self.places.iter().all(|other| !is_within(&other.path, &self.whole(place, &path))) {
                    let path = self.whole(place, &path);
                    self.flow.note(format!("{}: a volume is mounted there: kept", at(self.to, &path).display()));
                }
                return Ok(());
            }
            self.take(place, &path)
        })
    }

    /// Takes away what is there.
    fn take(&mut self, place: usize, path: &[u8]) -> io::Result<()> {
        let (above, name) = super::split(path);
        let there = look(open_beneath(self.folders[place].target.as_fd(), above)?.as_fd(), name)?;
        if !(self.is_pinned(place, path) && there.as_ref().is_some_and(is_folder)) {
            self.step(Move::Take, place, path, 0);
            return Ok(());
        }
        let prepared = prepare_aside(&self.folders[place], path);
        prepared.map_err(|error| self.fail(place, path, "preparing the staging place", error))?;
        let marks = self.old_marks(place, path)?;
        let folder = open_beneath(self.folders[place].target.as_fd(), path)?;
        each(folder.as_fd(), |name| self.take(place, &join(path, name)))?;
        self.mark(Move::Clear, place, path, [marks, marks]);
        Ok(())
    }
}
