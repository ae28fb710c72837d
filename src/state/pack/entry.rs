//! The archive's own bytes: headers that GNU tar, bsdtar, busybox and Python read, and the one buffer through which
//! headers and contents go to the sink. What an entry's content is, is left to the caller.
//!
//! GNU headers, because they alone take names of any bytes and length (`L`, `K`), numbers of any size (base 256) and
//! sparse files that every reader knows (`S`); before them a pax header where a time has a fraction of a second, which a
//! GNU header cannot say.

use std::io::{self, Write};

use tar::{EntryType, GnuExtSparseHeader, Header};

use super::{meta::Time, sparse::Extent};

/// The unit of a tar archive.
pub const BLOCK: u64 = 512;

/// One write to the sink: it fits in the second-level cache of today's processors, so that what is read is still there
/// when it is hashed and compressed.
const BUFFER: usize = 256 * 1024;

/// What a header says.
pub struct Entry<'a> {
    pub kind: EntryType,
    /// Below the archive's root, without a slash at its end.
    pub path: &'a [u8],
    pub permissions: u32,
    pub uid: u32,
    pub gid: u32,
    pub time: Time,
    /// Of a link.
    pub target: &'a [u8],
    /// In bytes, as it is after unpacking.
    pub size: u64,
    /// Where a sparse file has data.
    pub extents: Option<&'a [Extent]>,
}

impl Entry<'_> {
    /// How many bytes of content follow the header.
    pub fn stored(&self) -> u64 {
        self.extents.map_or(self.size, |extents| extents.iter().map(|extent| extent.length).sum())
    }
}

/// An archive in the making.
pub struct Archive<'a> {
    sink: &'a mut dyn Write,
    buffer: Box<[u8]>,
    used: usize,
    written: u64,
}

impl<'a> Archive<'a> {
    pub fn new(sink: &'a mut dyn Write) -> Self {
        Self { sink, buffer: vec![0; BUFFER].into_boxed_slice(), used: 0, written: 0 }
    }

    /// Where the archive ends now.
    pub fn position(&self) -> u64 {
        self.written + self.used as u64
    }

    /// Makes as if nothing had come after that position; `false` when it is out of the buffer already.
    pub fn take_back(&mut self, position: u64) -> bool {
        match position.checked_sub(self.written) {
            Some(used) => {
                self.used = used as usize;
                true
            }
            None => false,
        }
    }

    /// Sees to it that what comes next can be taken back as long as it has no more than `size` bytes of content and fits
    /// in the buffer at all.
    pub fn make_room(&mut self, size: u64) -> io::Result<()> {
        // The header, its pax header, and the block that the content does not fill. Long names take more.
        let needed = size.saturating_add(4 * BLOCK);
        let left = (self.buffer.len() - self.used) as u64;
        if left < needed && needed <= self.buffer.len() as u64 { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.write_all(&self.buffer[..self.used])?;
        self.written += self.used as u64;
        self.used = 0;
        Ok(())
    }

    /// Where content can be read to: never empty.
    pub fn space(&mut self) -> io::Result<&mut [u8]> {
        if self.used == self.buffer.len() {
            self.flush()?;
        }
        Ok(&mut self.buffer[self.used..])
    }

    /// So many bytes of the space were filled.
    pub fn advance(&mut self, filled: usize) {
        self.used = (self.used + filled).min(self.buffer.len());
    }

    pub fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let space = self.space()?;
            let now = space.len().min(bytes.len());
            space[..now].copy_from_slice(&bytes[..now]);
            self.advance(now);
            bytes = &bytes[now..];
        }
        Ok(())
    }

    /// At most a buffer full of zeros; says how many.
    pub fn put_zeros(&mut self, count: u64) -> io::Result<u64> {
        let space = self.space()?;
        let now = usize::try_from(count).unwrap_or(usize::MAX).min(space.len());
        space[..now].fill(0);
        self.advance(now);
        Ok(now as u64)
    }

    /// Fills the last block of a content of that size.
    pub fn end_entry(&mut self, stored: u64) -> io::Result<()> {
        let rest = (BLOCK - stored % BLOCK) % BLOCK;
        self.put(&[0; BLOCK as usize][..rest as usize])
    }

    /// The end of the archive: its size in bytes.
    pub fn finish(mut self) -> io::Result<u64> {
        self.put(&[0; 2 * BLOCK as usize])?;
        self.flush()?;
        Ok(self.written)
    }

    /// Puts an entry's header, and whatever has to stand before it.
    pub fn begin_entry(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        // What a folder's name ends with, as the oldest readers know a folder.
        let end: &[u8] = if entry.kind == EntryType::Directory { b"/" } else { b"" };
        let mut header = Header::new_gnu();
        let names = header.as_old_mut();
        // 100 bytes need no zero behind them, but readers exist that want one.
        if entry.path.len() + end.len() >= names.name.len() {
            self.put_long(EntryType::GNULongName, entry.path, end)?;
        }
        if entry.target.len() >= names.linkname.len() {
            self.put_long(EntryType::GNULongLink, entry.target, b"")?;
        }
        if entry.time.nanos != 0 || entry.time.seconds < 0 {
            self.put_time(entry.time)?;
        }
        set_name(&mut names.name, entry.path, end);
        set_name(&mut names.linkname, entry.target, b"");
        header.set_entry_type(entry.kind);
        header.set_mode(entry.permissions);
        header.set_uid(entry.uid.into());
        header.set_gid(entry.gid.into());
        // Before 1970 only the pax header knows.
        header.set_mtime(u64::try_from(entry.time.seconds).unwrap_or(0));
        header.set_size(entry.stored());
        let Some(extents) = entry.extents else {
            return self.put_header(&mut header);
        };
        // A hole at the end is shown by an empty extent behind it.
        let end = Extent { offset: entry.size, length: 0 };
        let ends_with_data = extents.last().is_some_and(|last| last.end() == entry.size);
        let mut extents = extents.iter().chain((!ends_with_data).then_some(&end)).peekable();
        header.set_entry_type(EntryType::GNUSparse);
        if let Some(gnu) = header.as_gnu_mut() {
            gnu.set_real_size(entry.size);
            for (place, extent) in gnu.sparse.iter_mut().zip(extents.by_ref().take(4)) {
                place.set_offset(extent.offset);
                place.set_length(extent.length);
            }
            gnu.set_is_extended(extents.peek().is_some());
        }
        self.put_header(&mut header)?;
        while extents.peek().is_some() {
            let mut more = GnuExtSparseHeader::new();
            for (place, extent) in more.sparse.iter_mut().zip(extents.by_ref().take(21)) {
                place.set_offset(extent.offset);
                place.set_length(extent.length);
            }
            more.set_is_extended(extents.peek().is_some());
            self.put(more.as_bytes())?;
        }
        Ok(())
    }

    fn put_header(&mut self, header: &mut Header) -> io::Result<()> {
        header.set_cksum();
        self.put(header.as_bytes())
    }

    /// A name that does not fit in the header comes as the content of an entry before it, with a zero at its end.
    fn put_long(&mut self, kind: EntryType, name: &[u8], end: &[u8]) -> io::Result<()> {
        let size = (name.len() + end.len() + 1) as u64;
        self.put_extra(Header::new_gnu(), kind, b"././@LongLink", size)?;
        self.put(name)?;
        self.put(end)?;
        self.put(&[0])?;
        self.end_entry(size)
    }

    /// pax(1): `LENGTH KEY=VALUE\n`, the length being that of the whole line in decimal.
    fn put_time(&mut self, time: Time) -> io::Result<()> {
        let (sign, seconds, nanos) = match (time.seconds, time.nanos) {
            // The kernel counts nanoseconds forwards from the second before.
            (seconds @ ..0, nanos @ 1..) => {
                ("-", (seconds + 1).unsigned_abs(), 1_000_000_000_u32.saturating_sub(nanos))
            }
            (seconds, nanos) => (if seconds < 0 { "-" } else { "" }, seconds.unsigned_abs(), nanos),
        };
        let line = format!(" mtime={sign}{seconds}.{nanos:09}\n");
        // Between 18 and 38 bytes: the length has two digits.
        let line = format!("{}{line}", line.len() + 2);
        self.put_extra(Header::new_ustar(), EntryType::XHeader, b"././@PaxHeader", line.len() as u64)?;
        self.put(line.as_bytes())?;
        self.end_entry(line.len() as u64)
    }

    fn put_extra(&mut self, mut header: Header, kind: EntryType, name: &[u8], size: u64) -> io::Result<()> {
        set_name(&mut header.as_old_mut().name, name, b"");
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(size);
        self.put_header(&mut header)
    }
}

/// As much of the name as there is room for.
fn set_name(place: &mut [u8; 100], name: &[u8], end: &[u8]) {
    for (place, byte) in place.iter_mut().zip(name.iter().chain(end)) {
        *place = *byte;
    }
}
