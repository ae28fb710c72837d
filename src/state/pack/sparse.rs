//! Where a sparse file has data.

use std::os::fd::BorrowedFd;

use rustix::{
    fs::{SeekFrom, seek},
    io::Errno,
};

use super::entry::BLOCK;

/// A piece of a file that holds data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub offset: u64,
    pub length: u64,
}

impl Extent {
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

/// 256 KiB of map, here and in the archive's headers about as much: a file of more pieces keeps its larger holes.
const MOST_EXTENTS: usize = 16 * 1024;

/// The data of a file of that size, in order; `None` for one without holes, and where the file system does not tell.
/// `go_on` is asked between pieces, and an error of it ends the search.
pub fn find_data<E>(
    file: BorrowedFd<'_>,
    size: u64,
    go_on: &dyn Fn() -> Result<(), E>,
) -> Result<Option<Vec<Extent>>, E> {
    let mut map = Map { extents: Vec::new(), most: MOST_EXTENTS };
    let mut at = 0;
    while at < size {
        go_on()?;
        let begin = match seek(file, SeekFrom::Data(at)) {
            Ok(begin) => begin,
            // No data from here on.
            Err(Errno::NXIO) => break,
            Err(_) => return Ok(None),
        };
        let Ok(end) = seek(file, SeekFrom::Hole(begin)) else { return Ok(None) };
        // A file that is cut meanwhile, or a file system that errs, must not turn this round for ever.
        if begin < at || end <= begin {
            return Ok(None);
        }
        if begin >= size {
            break;
        }
        map.add(begin, end, size);
        at = end;
    }
    match map.extents[..] {
        [only] if only == (Extent { offset: 0, length: size }) => Ok(None),
        _ => Ok(Some(map.extents)),
    }
}

struct Map {
    extents: Vec<Extent>,
    most: usize,
}

impl Map {
    /// Readers want every piece but the last to be whole blocks of the archive.
    fn add(&mut self, begin: u64, end: u64, size: u64) {
        let begin = begin - begin % BLOCK;
        let end = end.checked_next_multiple_of(BLOCK).unwrap_or(size).min(size);
        self.push(Extent { offset: begin, length: end - begin });
        if self.extents.len() >= self.most {
            self.close_smaller_half();
        }
    }

    fn push(&mut self, extent: Extent) {
        match self.extents.last_mut() {
            Some(last) if extent.offset <= last.end() => last.length = extent.end().max(last.end()) - last.offset,
            _ => self.extents.push(extent),
        }
    }

    /// The smaller half of the holes become data; of equal ones the first.
    fn close_smaller_half(&mut self) {
        let hole = |pair: &[Extent]| pair[1].offset - pair[0].end();
        let mut holes: Vec<u64> = self.extents.windows(2).map(hole).collect();
        let half = holes.len() / 2;
        let median = *holes.select_nth_unstable(half).1;
        // So many that are just as large as the median: the first ones.
        let mut equal = half - holes.iter().filter(|hole| **hole < median).count();
        for extent in std::mem::take(&mut self.extents) {
            match self.extents.last_mut() {
                Some(last) if extent.offset - last.end() < median => last.length = extent.end() - last.offset,
                Some(last) if extent.offset - last.end() == median && equal > 0 => {
                    last.length = extent.end() - last.offset;
                    equal -= 1;
                }
                _ => self.extents.push(extent),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_whole_blocks() {
        let mut map = Map { extents: Vec::new(), most: 100 };
        for (begin, end) in [(10, 20), (600, 700), (5000, 5120), (9000, 9007)] {
            map.add(begin, end, 9007);
        }
        let shown: Vec<_> = map.extents.iter().map(|extent| (extent.offset, extent.length)).collect();
        assert_eq!(shown, [(0, 1024), (4608, 512), (8704, 303)]);
    }

    #[test]
    fn a_map_is_bounded_and_keeps_the_larger_holes() {
        let (mut map, size) = (Map { extents: Vec::new(), most: 64 }, 1 << 30);
        let mut data = Vec::new();
        for piece in 0..1000 {
            // Every tenth hole is a large one.
            let begin = piece * 8192 + piece / 10 * 65536;
            data.push((begin, begin + 4096));
            map.add(begin, begin + 4096, size);
            assert!(map.extents.len() < 64);
        }
        for (begin, end) in data {
            assert!(map.extents.iter().any(|extent| extent.offset <= begin && end <= extent.end()), "{begin} is held");
        }
        assert!(map.extents.windows(2).all(|pair| pair[0].end() < pair[1].offset), "in order, apart");
        assert!(map.extents.len() > 30, "{} left", map.extents.len());
        let large = map.extents.windows(2).filter(|pair| pair[1].offset - pair[0].end() > 65_536).count();
        assert!(large > 30, "{large} of the large holes");
    }
}
