//! What a snapshot says of itself, in JSON, and the trailer that holds it at the snapshot's end, in a form that the
//! tools
//! for its compression pass over. Pure, but for reading a file's tail.
//!
//! The trailer is the JSON and a footer, wrapped: the JSON's length in four bytes (little-endian, as all here), the
//! first
//! eight bytes of its SHA-256, and `BOATHOOK`. zstd and lz4 skip it as a frame that says so; gzip finds an empty member
//! with an extra field; tar stops reading before it.

use std::{fmt, fs::File, io, os::unix::fs::FileExt as _};

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::{Compression, compress::body::LONGEST_TAIL, flow::Notes};

/// The format that this program writes, and the newest that it reads.
pub const FORMAT: u64 = 1;

/// Top-level names that are kept: for people who look for the right snapshot.
const MOST_ROOTS: usize = 32;

/// Notes that are kept word for word.
const MOST_NOTES: usize = 20;

/// A note or a name is cut to so many characters.
const LONGEST_LINE: usize = 300;

/// JSON and footer, at most: gzip's extra field holds 65,535 bytes with its header, and the wrapping takes up to 26.
const LONGEST_PAYLOAD: usize = 60 * 1024;

const MAGIC: &[u8; 8] = b"BOATHOOK";

const FOOTER: usize = 4 + 8 + MAGIC.len();

/// One of the sixteen numbers of frames that zstd and lz4 skip (RFC 8878, 3.1.2); pzstd uses the first for its own.
const SKIPPABLE: [u8; 4] = 0x184D_2A5B_u32.to_le_bytes();

/// gzip (RFC 1952, 2.3): deflate, an extra field, no time, no hint, unknown system.
const GZIP_BEGIN: [u8; 10] = [0x1F, 0x8B, 8, 4, 0, 0, 0, 0, 0, 255];

/// The extra field's own name (RFC 1952, 2.3.1.1).
const GZIP_FIELD: [u8; 2] = *b"bh";

/// An empty block of deflate, the CRC-32 of nothing, and its size.
const GZIP_END: [u8; 10] = [3, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// What the one who saves knows of a snapshot.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub state: String,
    pub number: u64,
    /// Seconds since 1970, UTC.
    pub created: u64,
    /// The host's name, which in a container is the pod's.
    pub pod: String,
    /// What asked for it: `pre-stop`, or another reason.
    pub trigger: String,
    pub files: u64,
    /// The files' content, in bytes.
    pub bytes: u64,
    /// Top-level names in the archive.
    pub roots: Vec<String>,
    pub notes: Notes,
}

/// What a snapshot says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The version that wrote it.
    pub boathook: String,
    pub state: String,
    pub number: u64,
    /// RFC 3339.
    pub created: String,
    pub pod: String,
    pub trigger: String,
    pub files: u64,
    /// The files' content, in bytes.
    pub bytes: u64,
    /// The tar archive, in bytes.
    pub archive_bytes: u64,
    /// What stands before the trailer, in bytes.
    pub size: u64,
    pub compression: Compression,
    /// Of what stands before the trailer, in hexadecimal.
    pub sha256: String,
    /// Top-level names in the archive: the first of them, for people.
    pub roots: Vec<String>,
    /// The first notes, and how many there were.
    pub notes: Vec<String>,
    pub note_count: u64,
}

/// Why a snapshot cannot be used.
#[derive(Debug)]
pub enum Broken {
    /// It is probably whole, but a newer boathook made it.
    Newer(String),
    /// It was a snapshot once.
    Damaged(String),
    /// It has no manifest: it is something else, or was cut short.
    NotASnapshot(String),
    /// It could not be read.
    Io(io::Error),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newer(why) => f.write_str(why),
            Self::Damaged(why) => write!(f, "damaged: {why}"),
            Self::NotASnapshot(why) => write!(f, "no snapshot: {why}"),
            Self::Io(error) => write!(f, "cannot be read: {error}"),
        }
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn cut(line: &str) -> String {
    line.chars().take(LONGEST_LINE).collect()
}

pub fn show_digest(digest: &[u8]) -> String {
    use fmt::Write as _;
    digest.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Manifest {
    /// The manifest of what was written: the archive's length, and length and digest of what it became.
    pub fn new(facts: Facts, compression: Compression, archive_bytes: u64, size: u64, digest: &[u8; 32]) -> Self {
        Self {
            boathook: env!("CARGO_PKG_VERSION").into(),
            state: facts.state,
            number: facts.number,
            created: super::name::show_time(facts.created),
            pod: cut(&facts.pod),
            trigger: cut(&facts.trigger),
            files: facts.files,
            bytes: facts.bytes,
            archive_bytes,
            size,
            compression,
            sha256: show_digest(digest),
            roots: facts.roots.iter().take(MOST_ROOTS).map(|name| cut(name)).collect(),
            notes: facts.notes.lines.iter().take(MOST_NOTES).map(|line| cut(line)).collect(),
            note_count: facts.notes.count,
        }
    }

    pub fn to_json(&self) -> Value {
        json!({
            "format": FORMAT,
            "boathook": self.boathook,
            "state": self.state,
            "number": self.number,
            "created": self.created,
            "pod": self.pod,
            "trigger": self.trigger,
            "files": self.files,
            "bytes": self.bytes,
            "archive-bytes": self.archive_bytes,
            "size": self.size,
            "compression": self.compression.name(),
            "sha256": self.sha256,
            "roots": self.roots,
            "notes": { "count": self.note_count, "lines": self.notes },
        })
    }

    fn from_json(json: &[u8]) -> Result<Self, Broken> {
        let damaged = |why: String| Broken::Damaged(format!("its manifest {why}"));
        let value: Value = serde_json::from_slice(json).map_err(|error| damaged(format!("is no JSON: {error}")))?;
        let map = value.as_object().ok_or_else(|| damaged("is no JSON object".into()))?;
        let number = |key: &str| read_number(map, key).ok_or_else(|| damaged(format!("has no number {key:?}")));
        let text = |key: &str| {
            let text = map.get(key).and_then(Value::as_str).ok_or_else(|| damaged(format!("has no text {key:?}")));
            text.map(String::from)
        };
        let boathook = text("boathook")?;
        let format = number("format")?;
        if format > FORMAT {
            return Err(Broken::Newer(format!(
                "made by a newer boathook (format {format}; this one reads up to {FORMAT}): use boathook {boathook} or newer"
            )));
        }
        let lines = |value: Option<&Value>| {
            let lines = value.and_then(Value::as_array).into_iter().flatten();
            lines.filter_map(Value::as_str).map(String::from).collect()
        };
        let compression = text("compression")?;
        let notes = map.get("notes").and_then(Value::as_object);
        Ok(Self {
            state: text("state")?,
            number: number("number")?,
            created: text("created")?,
            pod: text("pod")?,
            trigger: text("trigger")?,
            files: number("files")?,
            bytes: number("bytes")?,
            archive_bytes: number("archive-bytes")?,
            size: number("size")?,
            compression: Compression::ALL
                .into_iter()
                .find(|known| known.name() == compression)
                .ok_or_else(|| damaged(format!("names an unknown compression: {compression:?}")))?,
            sha256: text("sha256")?,
            roots: lines(map.get("roots")),
            notes: lines(notes.and_then(|notes| notes.get("lines"))),
            note_count: notes.and_then(|notes| read_number(notes, "count")).unwrap_or(0),
            boathook,
        })
    }

    /// The trailer. What is too much for it is left out of the manifest: notes and names, the last ones first.
    pub fn to_trailer(&mut self) -> Vec<u8> {
        let mut json = self.to_json().to_string();
        while json.len() + FOOTER > LONGEST_PAYLOAD && !(self.notes.is_empty() && self.roots.is_empty()) {
            self.notes.truncate(self.notes.len() / 2);
            self.roots.truncate(self.roots.len() / 2);
            json = self.to_json().to_string();
        }
        wrap(json.as_bytes(), self.compression)
    }
}

fn read_number(map: &Map<String, Value>, key: &str) -> Option<u64> {
    map.get(key).and_then(Value::as_u64)
}

fn wrap(json: &[u8], compression: Compression) -> Vec<u8> {
    // All that can be long was cut: what is left fits by far.
    let length = u16::try_from(json.len() + FOOTER).unwrap_or(u16::MAX);
    let mut trailer = Vec::with_capacity(json.len() + FOOTER + 32);
    match compression {
        Compression::Zstd | Compression::Lz4 => {
            trailer.extend_from_slice(&SKIPPABLE);
            trailer.extend_from_slice(&u32::from(length).to_le_bytes());
        }
        Compression::Gzip => {
            trailer.extend_from_slice(&GZIP_BEGIN);
            trailer.extend_from_slice(&(length + 4).to_le_bytes());
            trailer.extend_from_slice(&GZIP_FIELD);
            trailer.extend_from_slice(&length.to_le_bytes());
        }
        Compression::None => {}
    }
    trailer.extend_from_slice(json);
    trailer.extend_from_slice(&(json.len() as u32).to_le_bytes());
    trailer.extend_from_slice(&Sha256::digest(json)[..8]);
    trailer.extend_from_slice(MAGIC);
    if compression == Compression::Gzip {
        trailer.extend_from_slice(&GZIP_END);
    }
    trailer
}

/// What stands at a snapshot's end: the manifest, and how many bytes its trailer takes.
///
/// # Errors
/// There is none, or it cannot be used.
pub fn read_trailer(tail: &[u8]) -> Result<(Manifest, usize), Broken> {
    let json = find_json(tail)?;
    let manifest = Manifest::from_json(json)?;
    let trailer = wrap(json, manifest.compression);
    if !tail.ends_with(&trailer) {
        return Err(Broken::Damaged("what is around its manifest is not as it was written".into()));
    }
    Ok((manifest, trailer.len()))
}

fn find_json(tail: &[u8]) -> Result<&[u8], Broken> {
    for behind in [&[][..], &GZIP_END] {
        let Some(payload) = tail.strip_suffix(behind) else { continue };
        let Some((rest, [a, b, c, d, footer @ ..])) = payload.split_last_chunk::<FOOTER>() else { continue };
        let Some(digest) = footer.strip_suffix(MAGIC) else { continue };
        let length = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
        let json = rest.len().checked_sub(length).map(|begin| &rest[begin..]);
        return match json {
            Some(json) if Sha256::digest(json)[..8] == *digest => Ok(json),
            _ => Err(Broken::Damaged("its manifest is not as it was written".into())),
        };
    }
    Err(Broken::NotASnapshot("it has no manifest at its end: cut short, or not made by boathook".into()))
}

/// For a stream: how many of the last bytes are the trailer, 0 when there is none. Of one that cannot be used it keeps
/// what [`read_trailer`] needs to say why.
pub fn measure_trailer(tail: &[u8]) -> usize {
    if let Ok((_, length)) = read_trailer(tail) {
        return length;
    }
    let behind = if tail.ends_with(&GZIP_END) { GZIP_END.len() } else { 0 };
    let kept = FOOTER + find_json(tail).map_or(0, <[u8]>::len) + behind;
    if tail[..tail.len() - behind].ends_with(MAGIC) { kept.min(tail.len()) } else { 0 }
}

/// Reads a snapshot's manifest from its tail alone: whether the rest is whole, only `seal::verify` can tell.
///
/// # Errors
/// There is none that fits the file, or it cannot be read.
pub fn read_manifest(file: &File) -> Result<Manifest, Broken> {
    let length = file.metadata()?.len();
    let held = length.min(LONGEST_TAIL as u64);
    let mut tail = vec![0; held as usize];
    file.read_exact_at(&mut tail, length - held)?;
    let (manifest, trailer) = read_trailer(&tail)?;
    if manifest.size.checked_add(trailer as u64) != Some(length) {
        return Err(Broken::Damaged(format!(
            "it should be {} bytes long and its manifest {trailer}, but it has {length}",
            manifest.size
        )));
    }
    Ok(manifest)
}
