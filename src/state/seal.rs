//! Writes a snapshot around an archive, and opens it again: compression, digest, manifest. What is in the archive is
//! left
//! to `pack` and `unpack`, where the bytes go and come from to the stores.

use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};

pub use super::manifest::{Broken, Facts, Manifest, read_manifest};
use super::{
    Compression,
    compress::{
        self, PIECE,
        body::Body,
        crew::{Crew, Piece},
        open::{self, Archive},
    },
    flow::Flow,
    manifest,
};

/// Takes an archive and writes a snapshot to its sink, on the caller's thread alone. Dropping it ends its threads; what
/// it
/// wrote is no snapshot then.
///
/// Memory: for N threads N + 2 pieces of 1 MiB and what they become, and 0.5 to 0.8 MiB for each thread.
pub struct Sealer<'a> {
    sink: &'a mut dyn Write,
    compression: Compression,
    /// `None` when there is nothing to compress.
    crew: Option<Crew>,
    filling: Piece,
    spare: Vec<Piece>,
    has_written: bool,
    digest: Sha256,
    size: u64,
    archive_bytes: u64,
}

impl<'a> Sealer<'a> {
    /// With so many threads: see [`compress::count_workers`].
    pub fn new(compression: Compression, workers: usize, sink: &'a mut dyn Write) -> Self {
        let crew =
            (compression != Compression::None).then(|| Crew::new(workers, &|| compress::compressor(compression)));
        let filling = if crew.is_some() { compress::new_piece() } else { Piece::default() };
        Self {
            sink,
            compression,
            crew,
            filling,
            spare: Vec::new(),
            has_written: false,
            digest: Sha256::new(),
            size: 0,
            archive_bytes: 0,
        }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sink.write_all(bytes)?;
        self.digest.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Writes the oldest piece; `false` when there is none.
    fn put_oldest(&mut self) -> io::Result<bool> {
        let Some(mut piece) = self.crew.as_mut().map_or(Ok(None), Crew::take)? else { return Ok(false) };
        if let Some(damage) = piece.damage {
            return Err(io::Error::other(damage));
        }
        self.put(&piece.output)?;
        piece.input.clear();
        self.spare.push(piece);
        Ok(true)
    }

    /// Has the piece compressed that is being filled.
    fn hand(&mut self) -> io::Result<()> {
        while self.crew.as_ref().is_some_and(Crew::is_full) {
            self.put_oldest()?;
        }
        let next = self.spare.pop().unwrap_or_else(compress::new_piece);
        let piece = std::mem::replace(&mut self.filling, next);
        if let Some(crew) = &mut self.crew {
            crew.hand(piece);
        }
        self.has_written = true;
        Ok(())
    }

    /// Compresses what is left, and writes the trailer.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn finish(mut self, facts: Facts) -> io::Result<Manifest> {
        // Also nothing is a frame: `zstd -d` does not take an empty file.
        if self.crew.is_some() && (!self.filling.input.is_empty() || !self.has_written) {
            self.hand()?;
        }
        while self.put_oldest()? {}
        let digest = self.digest.finalize().into();
        let mut manifest = Manifest::new(facts, self.compression, self.archive_bytes, self.size, &digest);
        self.sink.write_all(&manifest.to_trailer())?;
        self.sink.flush()?;
        Ok(manifest)
    }
}

impl Write for Sealer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = if self.crew.is_none() {
            self.put(bytes)?;
            bytes.len()
        } else {
            if self.filling.input.len() >= PIECE {
                self.hand()?;
            }
            let count = bytes.len().min(PIECE - self.filling.input.len());
            self.filling.input.extend_from_slice(&bytes[..count]);
            count
        };
        self.archive_bytes += count as u64;
        Ok(count)
    }

    /// Does nothing: a piece that is not full would cost ratio.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A snapshot being read: the archive comes out, and [`finish`](Self::finish) says whether it was whole. Until then
/// nothing that was read can be trusted.
pub struct Opened {
    archive: Box<dyn Archive>,
    compression: Compression,
    archive_bytes: u64,
    broken: Option<Broken>,
}

impl Opened {
    /// Begins to read; for decompression it uses as many threads as there are processors, up to four.
    ///
    /// # Errors
    /// The source's.
    pub fn new(source: Box<dyn Read + Send>) -> Result<Self, Broken> {
        let mut body = Body::new(source, manifest::measure_trailer);
        let compression = open::detect(&mut body)?;
        let archive = open::open(body, compression, compress::count_workers(compression))?;
        Ok(Self { archive, compression, archive_bytes: 0, broken: None })
    }

    /// How it is compressed, by its first bytes.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Reads what is left, and holds the whole against the manifest.
    ///
    /// # Errors
    /// It is not what was written, or cannot be read. After an error of `read` this tells why, and tells a damaged
    /// snapshot from one of a newer format.
    pub fn finish(mut self) -> Result<Manifest, Broken> {
        self.finish_checked(&mut || Ok(()))
    }

    fn finish_checked(&mut self, check: &mut dyn FnMut() -> io::Result<()>) -> Result<Manifest, Broken> {
        let mut rest = vec![0; 64 * 1024];
        while self.broken.is_none() {
            check()?;
            if let Ok(0) = self.read(&mut rest) {
                break;
            }
        }
        if matches!(self.broken, Some(Broken::Io(_))) {
            return Err(self.broken.take().unwrap_or_else(|| Broken::Damaged(String::new())));
        }
        let body = self.archive.body();
        let mut has_more = false;
        loop {
            let count = body.peek(1)?.len();
            if count == 0 {
                break;
            }
            has_more = true;
            check()?;
            body.skip(count as u64)?;
        }
        let (size, digest) = body.sum()?;
        let (manifest, _) = match manifest::read_trailer(body.tail()) {
            Ok(found) => found,
            // The trailer has a digest of its own: it is what says most, unless it is not there.
            Err(broken @ (Broken::Newer(_) | Broken::Io(_))) => return Err(broken),
            Err(broken) => return Err(self.broken.take().unwrap_or(broken)),
        };
        if let Some(broken) = self.broken.take() {
            return Err(broken);
        }
        let damaged = |why: String| Err(Broken::Damaged(why));
        if manifest.compression != self.compression {
            return damaged(format!(
                "it is {}, but its manifest says {}",
                self.compression.name(),
                manifest.compression.name()
            ));
        }
        if manifest.size != size {
            return damaged(format!("it should be {} bytes long, but is {size}", manifest.size));
        }
        if manifest.sha256 != manifest::show_digest(&digest) {
            return damaged("its SHA-256 is not the one in its manifest".into());
        }
        if has_more {
            return damaged("something stands behind its archive".into());
        }
        if manifest.archive_bytes != self.archive_bytes {
            return damaged(format!(
                "its archive should be {} bytes long, but is {}",
                manifest.archive_bytes, self.archive_bytes
            ));
        }
        Ok(manifest)
    }
}

impl Read for Opened {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if let Some(broken) = &self.broken {
            return Err(io::Error::new(io::ErrorKind::InvalidData, broken.to_string()));
        }
        match self.archive.read(to) {
            Ok(count) => {
                self.archive_bytes += count as u64;
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let text = error.to_string();
                let (kind, broken) = if self.archive.body().has_failed() {
                    (error.kind(), Broken::Io(error))
                } else {
                    (io::ErrorKind::InvalidData, Broken::Damaged(text))
                };
                let shown = io::Error::new(kind, broken.to_string());
                self.broken = Some(broken);
                Err(shown)
            }
        }
    }
}

/// Reads a whole snapshot and says whether it is what was written.
///
/// # Errors
/// It is not, or cannot be read, or the job was given up.
pub fn verify(source: Box<dyn Read + Send>, flow: &Flow) -> Result<Manifest, Broken> {
    Opened::new(source)?.finish_checked(&mut || flow.check())
}
