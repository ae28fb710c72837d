//! Reads a tar stream, entry by entry: old, ustar, GNU and pax, with long names and sparse files. The crate `tar` reads
//! the fields of a header; the stream around them is read here, because the crate's own reader takes a stream that is cut
//! off for its end, loses names with a line feed, fills holes with zeros, and holds extension data of any size in memory.
//! What an entry may do is left to [`super`].

use std::io::{self, BufRead, BufReader, Read};

use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

/// The unit of a tar archive (POSIX, pax).
const BLOCK: usize = 512;

/// Extension data of one entry: names, times, the map of a sparse file. PATH_MAX is 4 KiB; the rest is for maps
/// (43,000 pieces).
const MOST_EXTENSION: u64 = 1 << 20;

/// What is read ahead: enough that small files come from it whole, little beside the memory that a restore may take.
const READ_AHEAD: usize = 256 << 10;

/// What may follow the end of the archive: GNU tar fills its last record, of 20 blocks or what `-b` says.
const MOST_PADDING: usize = 1 << 20;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Folder,
    Symlink,
    HardLink,
    Fifo,
    /// What is never made, by its name.
    Other(&'static str),
}

/// One entry, as the archive tells it.
#[derive(Debug)]
pub struct Entry {
    pub path: Vec<u8>,
    pub kind: Kind,
    /// The target of a link.
    pub link: Vec<u8>,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    /// Seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// How long the file is, holes included.
    pub size: u64,
    /// Where in the file its data goes (offset, length), in order; `None`: all of it, from the start.
    pub pieces: Option<Vec<(u64, u64)>>,
}

/// Why no entry could be read.
#[derive(Debug)]
pub enum Fault {
    /// The stream itself failed.
    Read(io::Error),
    /// It is no archive that is understood.
    Broken(String),
}

fn broken<T>(why: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Broken(why.into()))
}

/// A tar stream.
pub struct Archive<'a> {
    from: BufReader<&'a mut dyn Read>,
    /// Bytes of the present entry that were not read yet.
    left: u64,
    /// Bytes up to the next block, behind the present entry.
    padding: usize,
}

/// What pax and GNU extensions say of the entry that follows.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    /// GNU.sparse.major, .minor, .name and .realsize.
    sparse: bool,
    sparse_major: Option<u64>,
    sparse_minor: Option<u64>,
    sparse_name: Option<Vec<u8>>,
    real_size: Option<u64>,
    /// How much of it was read.
    taken: u64,
    any: bool,
}

impl<'a> Archive<'a> {
    pub fn new(from: &'a mut dyn Read) -> Self {
        Self { from: BufReader::with_capacity(READ_AHEAD, from), left: 0, padding: 0 }
    }

    /// The next entry; `None` at the end of the archive, when nothing follows it. What is left of the entry before is
    /// passed over.
    ///
    /// # Errors
    /// The stream fails, or is no archive.
    pub fn next(&mut self) -> Result<Option<Entry>, Fault> {
        while self.left > 0 {
            let count = self.data()?.len();
            self.consume(count);
        }
        self.skip_padding()?;
        let mut extensions = Extensions::default();
        loop {
            let mut header = Header::new_old();
            if !self.fill_block(header.as_mut_bytes())? {
                return broken("it is cut off");
            }
            if header.as_bytes().iter().all(|&byte| byte == 0) {
                return if extensions.any { broken("it ends within an entry") } else { self.end() };
            }
            check_sum(&header)?;
            let size = number(header.entry_size())?;
            match header.entry_type().as_byte() {
                b'L' => extensions.path = Some(self.extension(size, &mut extensions.taken)?),
                b'K' => extensions.link = Some(self.extension(size, &mut extensions.taken)?),
                b'x' => {
                    let data = self.record(size, &mut extensions.taken)?;
                    extensions.read(&data)?;
                }
                b'g' => {
                    // For all entries that follow: git writes a comment there. What would change an entry is not
                    // expected from anybody who saves files.
                    let data = self.record(size, &mut extensions.taken)?;
                    let mut global = Extensions::default();
                    global.read(&data)?;
                    if global.changes_entries() {
                        return broken("a global extension that changes entries");
                    }
                    continue;
                }
                _ => return self.entry(&header, extensions, size).map(Some),
            }
            extensions.any = true;
        }
    }

    /// What can be read of the present entry's data at once; empty when all of it was.
    ///
    /// # Errors
    /// The stream fails or ends.
    pub fn data(&mut self) -> Result<&[u8], Fault> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        let data = fill(&mut self.from)?;
        if data.is_empty() {
            return broken("it is cut off");
        }
        Ok(&data[..data.len().min(left)])
    }

    /// So much of [`Self::data`] was used.
    pub fn consume(&mut self, count: usize) {
        self.from.consume(count);
        self.left = self.left.saturating_sub(count as u64);
    }

    fn entry(&mut self, header: &Header, extensions: Extensions, size: u64) -> Result<Entry, Fault> {
        let size = extensions.size.unwrap_or(size);
        let path = extensions.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = extensions.link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
        let kind = match header.entry_type().as_byte() {
            // Before POSIX a folder was a file whose name ends with a slash.
            b'0' | 0 | b'7' if path.ends_with(b"/") && size == 0 => Kind::Folder,
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Other("a character device"),
            b'4' => Kind::Other("a block device"),
            b'5' => Kind::Folder,
            b'6' => Kind::Fifo,
            b'D' => Kind::Other("a folder of an incremental archive"),
            b'M' => Kind::Other("a part of a file that began in another volume"),
            b'V' => Kind::Other("the name of a volume"),
            _ => Kind::Other("an entry of an unknown type"),
        };
        let mut entry = Entry {
            path,
            kind,
            link: link.unwrap_or_default(),
            mode: number(header.mode())? & 0o7777,
            uid: match extensions.uid {
                Some(uid) => uid,
                None => number(header.uid())?,
            },
            gid: match extensions.gid {
                Some(gid) => gid,
                None => number(header.gid())?,
            },
            mtime: match extensions.mtime {
                Some(mtime) => mtime,
                None => (time_before_pax(header)?, 0),
            },
            size,
            pieces: None,
        };
        // Readers disagree whether the data of what has none is passed over: an archive that looks different to
        // another reader.
        if size > 0 && !matches!(entry.kind, Kind::File | Kind::Other(_)) {
            return broken("what can have no content has some");
        }
        self.left = size;
        self.padding = padding(size);
        let mut taken = extensions.taken;
        if header.entry_type().as_byte() == b'S' {
            self.read_gnu_map(header, &mut entry, &mut taken)?;
        } else if extensions.sparse {
            if entry.kind != Kind::File || (extensions.sparse_major, extensions.sparse_minor) != (Some(1), Some(0)) {
                return broken("a sparse file in another form than GNU's 1.0");
            }
            let Some(real_size) = extensions.real_size else { return broken("a sparse file without its size") };
            if let Some(name) = extensions.sparse_name {
                entry.path = name;
            }
            entry.size = real_size;
            self.read_pax_map(&mut entry, &mut taken)?;
        }
        Ok(entry)
    }

    /// The map of a sparse file in the header itself and the blocks behind it (GNU tar, `oldgnu_header`).
    fn read_gnu_map(&mut self, header: &Header, entry: &mut Entry, taken: &mut u64) -> Result<(), Fault> {
        let Some(gnu) = header.as_gnu() else { return broken("a sparse file without GNU's header") };
        entry.size = number(gnu.real_size())?;
        let mut pieces = Vec::new();
        let mut add = |blocks: &[GnuSparseHeader]| -> Result<(), Fault> {
            for block in blocks.iter().filter(|block| !block.is_empty()) {
                pieces.push((number(block.offset())?, number(block.length())?));
            }
            Ok(())
        };
        add(&gnu.sparse)?;
        let mut more = gnu.is_extended();
        while more {
            count_extension(BLOCK as u64, taken)?;
            let mut block = GnuExtSparseHeader::new();
            if !self.fill_block(block.as_mut_bytes())? {
                return broken("it is cut off");
            }
            add(block.sparse())?;
            more = block.is_extended();
        }
        self.set_pieces(entry, pieces)
    }

    /// The map of a sparse file before its data: decimal numbers, one a line, filled up to a block (GNU tar, "PAX
    /// Format, Version 1.0").
    fn read_pax_map(&mut self, entry: &mut Entry, taken: &mut u64) -> Result<(), Fault> {
        let mut read = 0u64;
        let mut line = |archive: &mut Self| -> Result<u64, Fault> {
            let mut value: Option<u64> = None;
            loop {
                let Some(&byte) = archive.data()?.first() else { return broken("the map of a sparse file is cut off") };
                archive.consume(1);
                read += 1;
                count_extension(1, taken)?;
                match byte {
                    b'\n' => return value.map_or_else(|| broken("the map of a sparse file is no numbers"), Ok),
                    b'0'..=b'9' => {
                        let next =
                            value.unwrap_or(0).checked_mul(10).and_then(|v| v.checked_add(u64::from(byte - b'0')));
                        if next.is_none() {
                            return broken("the map of a sparse file has a number beyond all sizes");
                        }
                        value = next;
                    }
                    _ => return broken("the map of a sparse file is no numbers"),
                }
            }
        };
        let count = line(self)?;
        let mut pieces = Vec::new();
        for _ in 0..count {
            pieces.push((line(self)?, line(self)?));
        }
        for _ in 0..padding(read) {
            if self.data()?.is_empty() {
                return broken("the map of a sparse file is cut off");
            }
            self.consume(1);
        }
        self.set_pieces(entry, pieces)
    }

    /// Takes the map when it is in order, within the file, and as long as the data.
    fn set_pieces(&self, entry: &mut Entry, pieces: Vec<(u64, u64)>) -> Result<(), Fault> {
        let (mut end, mut sum) = (0u64, 0u64);
        for &(offset, length) in &pieces {
            let in_order = offset >= end;
            match offset.checked_add(length) {
                Some(next) if in_order && next <= entry.size => end = next,
                _ => return broken("the map of a sparse file does not fit the file"),
            }
            // No overflow: the pieces do not overlap and end within the size.
            sum += length;
        }
        if sum != self.left {
            return broken("the map of a sparse file does not fit its data");
        }
        entry.pieces = Some(pieces);
        Ok(())
    }

    /// A GNU long name: the bytes up to the first zero.
    fn extension(&mut self, size: u64, taken: &mut u64) -> Result<Vec<u8>, Fault> {
        let mut data = self.record(size, taken)?;
        if let Some(end) = data.iter().position(|&byte| byte == 0) {
            data.truncate(end);
        }
        Ok(data)
    }

    /// All the data of an entry that describes the next one.
    fn record(&mut self, size: u64, taken: &mut u64) -> Result<Vec<u8>, Fault> {
        count_extension(size, taken)?;
        self.left = size;
        self.padding = padding(size);
        let mut data = Vec::new();
        while self.left > 0 {
            let piece = self.data()?;
            let count = piece.len();
            data.extend_from_slice(piece);
            self.consume(count);
        }
        self.skip_padding()?;
        Ok(data)
    }

    fn skip_padding(&mut self) -> Result<(), Fault> {
        while self.padding > 0 {
            let data = fill(&mut self.from)?;
            if data.is_empty() {
                return broken("it is cut off");
            }
            let count = data.len().min(self.padding);
            self.from.consume(count);
            self.padding -= count;
        }
        Ok(())
    }

    /// Fills a block; false when the stream ends before it.
    fn fill_block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, Fault> {
        let mut filled = 0;
        while filled < BLOCK {
            let data = fill(&mut self.from)?;
            if data.is_empty() {
                return if filled == 0 { Ok(false) } else { broken("it is cut off") };
            }
            let count = data.len().min(BLOCK - filled);
            block[filled..filled + count].copy_from_slice(&data[..count]);
            self.from.consume(count);
            filled += count;
        }
        Ok(true)
    }

    /// The end was seen: reads on to the end of the stream, so that who checks the stream sees all of it.
    fn end(&mut self) -> Result<Option<Entry>, Fault> {
        let mut padding = 0;
        loop {
            let data = fill(&mut self.from)?;
            let count = data.len();
            if count == 0 {
                return Ok(None);
            }
            padding += count;
            if padding > MOST_PADDING || data.iter().any(|&byte| byte != 0) {
                return broken("something follows its end");
            }
            self.from.consume(count);
        }
    }
}

impl Extensions {
    /// Reads pax records: `LENGTH KEY=VALUE\n`, where the length counts the whole record.
    fn read(&mut self, mut data: &[u8]) -> Result<(), Fault> {
        // Some writers fill the record up with zeros.
        while !data.is_empty() && data[0] != 0 {
            let space = data.iter().take(20).position(|&byte| byte == b' ');
            let length = space.and_then(|space| decimal(&data[..space]));
            let (Some(space), Some(length)) = (space, length.and_then(|length| usize::try_from(length).ok())) else {
                return broken("an extension without its length");
            };
            if length <= space + 1 || length > data.len() || data[length - 1] != b'\n' {
                return broken("an extension that does not fit its length");
            }
            let record = &data[space + 1..length - 1];
            let Some(equals) = record.iter().position(|&byte| byte == b'=') else {
                return broken("an extension without a value");
            };
            self.set(&record[..equals], &record[equals + 1..])?;
            data = &data[length..];
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        let number = || {
            decimal(value).map_or_else(
                || broken(format!("extension {}: no number", String::from_utf8_lossy(key))),
                |n| Ok(Some(n)),
            )
        };
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = number()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"mtime" => match parse_time(value) {
                Some(time) => self.mtime = Some(time),
                None => return broken("extension mtime: no time"),
            },
            b"GNU.sparse.major" => self.sparse_major = number()?,
            b"GNU.sparse.minor" => self.sparse_minor = number()?,
            b"GNU.sparse.name" => self.sparse_name = Some(value.to_vec()),
            b"GNU.sparse.realsize" => self.real_size = number()?,
            // atime, ctime, comments, names of owners: nothing that is restored.
            _ => {}
        }
        self.sparse |= key.starts_with(b"GNU.sparse.");
        Ok(())
    }

    fn changes_entries(&self) -> bool {
        self.sparse
            || self.path.is_some()
            || self.link.is_some()
            || self.size.is_some()
            || self.uid.is_some()
            || self.gid.is_some()
            || self.mtime.is_some()
    }
}

/// What is there to read, at least a byte unless the stream is at its end.
fn fill<'a>(from: &'a mut BufReader<&mut dyn Read>) -> Result<&'a [u8], Fault> {
    // Asked twice, because a loop cannot return what it borrows.
    while let Err(error) = from.fill_buf() {
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(Fault::Read(error));
        }
    }
    from.fill_buf().map_err(Fault::Read)
}

fn count_extension(size: u64, taken: &mut u64) -> Result<(), Fault> {
    *taken = taken.saturating_add(size);
    if *taken > MOST_EXTENSION { broken("more than 1 MiB of names and other extensions for one entry") } else { Ok(()) }
}

/// How much fills `size` bytes up to a block.
fn padding(size: u64) -> usize {
    // The remainder is below 512.
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

fn number<T>(read: io::Result<T>) -> Result<T, Fault> {
    read.or_else(|_| broken("a header with a number that is none"))
}

fn check_sum(header: &Header) -> Result<(), Fault> {
    let bytes = header.as_bytes();
    // The field itself counts as spaces (POSIX).
    let sum: u32 = bytes[..148].iter().chain(&bytes[156..]).map(|&byte| u32::from(byte)).sum::<u32>() + 8 * 32;
    if header.cksum().ok() == Some(sum) { Ok(()) } else { broken("a header whose checksum is wrong") }
}

/// The time of a header; the crate takes one before 1970, which GNU writes as a negative binary number, for none.
fn time_before_pax(header: &Header) -> Result<i64, Fault> {
    // The first byte is 0x80 or 0xff for binary numbers; the last eight of the twelve hold every time there is.
    match header.as_old().mtime {
        [0x80 | 0xff, _, _, _, rest @ ..] => Ok(i64::from_be_bytes(rest)),
        _ => number(header.mtime().and_then(|seconds| i64::try_from(seconds).map_err(io::Error::other))),
    }
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `1795356235.123456789`, `-1.5`: seconds since 1970 as pax writes them; digits beyond nanoseconds are dropped.
fn parse_time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let dot = text.iter().position(|&byte| byte == b'.').unwrap_or(text.len());
    let seconds = i64::try_from(decimal(&text[..dot])?).ok()?;
    let fraction = text.get(dot + 1..).unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanoseconds = (0..9).fold(0, |sum, at| sum * 10 + fraction.get(at).map_or(0, |digit| u32::from(digit - b'0')));
    Some(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        // The kernel counts nanoseconds forward, also before 1970.
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_times_as_pax_writes_them() {
        for (text, time) in [
            ("0", Some((0, 0))),
            ("1795356235.123456789", Some((1_795_356_235, 123_456_789))),
            ("1.5", Some((1, 500_000_000))),
            ("1.0000000019", Some((1, 1))),
            ("-1.5", Some((-2, 500_000_000))),
            ("-3", Some((-3, 0))),
            ("9223372036854775807", Some((i64::MAX, 0))),
            ("-9223372036854775807.5", Some((i64::MIN, 500_000_000))),
            ("9223372036854775808", None),
            ("", None),
            ("1.x", None),
            ("+1", None),
            (".5", None),
        ] {
            assert_eq!(parse_time(text.as_bytes()), time, "{text}");
        }
    }

    #[test]
    fn reads_extensions_with_any_bytes_in_their_values() {
        let mut extensions = Extensions::default();
        extensions.read(b"12 path=a\nb\n27 mtime=1795356235.5000001\n11 uid=1000\n").expect_err("a wrong length");
        let mut extensions = Extensions::default();
        extensions.read(b"12 path=a\nb\n").expect("a name with a line feed");
        assert_eq!(extensions.path.as_deref(), Some(b"a\nb".as_slice()));
        for bad in
            ["12 path=a", "x path=a\n", "3 a\n", "9 pathaa\n", "99999999999999999999 a=b\n", "10 size=x\n", "0 a=b\n"]
        {
            assert!(Extensions::default().read(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
