//! A source of bytes whose tail is not content: as long as more may follow, the last bytes are withheld. Whatever is
//! handed on is counted and goes into a SHA-256.

use std::io::{self, BufRead, Read};

use sha2::{Digest as _, Sha256};

use super::crew::{Crew, Piece, Work};

/// So many bytes are withheld: no tail is longer.
pub const LONGEST_TAIL: usize = 64 * 1024;

/// So many are read at once beyond those.
const AHEAD: usize = 256 * 1024;

/// So many bytes are hashed at once, by a thread of their own: whoever takes the content has enough to do.
const HASHED: usize = 256 * 1024;

pub struct Body {
    source: Box<dyn Read + Send>,
    /// Once all was read: how many of the last bytes are the tail.
    measure_tail: fn(&[u8]) -> usize,
    buffer: Vec<u8>,
    begin: usize,
    end: usize,
    /// The tail's length, once known.
    tail: Option<usize>,
    hasher: Crew,
    unhashed: Piece,
    spare: Vec<Piece>,
    size: u64,
    failed: bool,
}

/// Hashes pieces, and gives the digest with one that has to become as long.
fn hash() -> Work {
    let mut digest = Sha256::new();
    Box::new(move |piece| {
        digest.update(&piece.input);
        if piece.expected > 0 {
            piece.output = digest.finalize_reset().to_vec();
        }
    })
}

impl Body {
    pub fn new(source: Box<dyn Read + Send>, measure_tail: fn(&[u8]) -> usize) -> Self {
        Self {
            source,
            measure_tail,
            buffer: vec![0; LONGEST_TAIL + AHEAD],
            begin: 0,
            end: 0,
            tail: None,
            hasher: Crew::new(1, &hash),
            unhashed: Piece::default(),
            spare: Vec::new(),
            size: 0,
            failed: false,
        }
    }

    /// What can be handed on now.
    fn ready(&self) -> usize {
        (self.end - self.begin).saturating_sub(self.tail.unwrap_or(LONGEST_TAIL))
    }

    /// At least so many bytes, up to 64 KiB, or all that are left.
    pub fn peek(&mut self, count: usize) -> io::Result<&[u8]> {
        while self.tail.is_none() && self.ready() < count.max(1) {
            if self.begin > 0 && self.buffer.len() - self.end < AHEAD / 2 {
                self.buffer.copy_within(self.begin..self.end, 0);
                self.end -= self.begin;
                self.begin = 0;
            }
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(0) => self.tail = Some((self.measure_tail)(&self.buffer[self.begin..self.end])),
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failed = true;
                    return Err(error);
                }
            }
        }
        Ok(&self.buffer[self.begin..self.begin + self.ready()])
    }

    /// Adds exactly so many bytes to `to`.
    pub fn read_into(&mut self, to: &mut Vec<u8>, mut count: usize) -> io::Result<()> {
        while count > 0 {
            let bytes = self.peek(1)?;
            let part = bytes.len().min(count);
            if part == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            to.extend_from_slice(&bytes[..part]);
            self.consume(part);
            count -= part;
        }
        Ok(())
    }

    pub fn read_chunk<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let chunk = *self.peek(N)?.first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;
        self.consume(N);
        Ok(chunk)
    }

    /// Takes so many bytes and forgets them.
    pub fn skip(&mut self, mut count: u64) -> io::Result<()> {
        while count > 0 {
            let part = self.peek(1)?.len().min(usize::try_from(count).unwrap_or(usize::MAX));
            if part == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.consume(part);
            count -= part as u64;
        }
        Ok(())
    }

    /// Whether it was the source that failed, and not what it gave.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Has hashed what was handed on; `None` when the hashing thread is gone.
    fn hash(&mut self) -> Option<()> {
        while self.hasher.is_full() {
            let mut piece = self.hasher.take().ok()??;
            piece.input.clear();
            self.spare.push(piece);
        }
        let next = self.spare.pop().unwrap_or_default();
        self.hasher.hand(std::mem::replace(&mut self.unhashed, next));
        Some(())
    }

    /// Content handed on: bytes, and their SHA-256. To be asked once, when all was taken.
    pub fn sum(&mut self) -> io::Result<(u64, [u8; 32])> {
        self.unhashed.expected = 32;
        // When it fails, there is no digest below.
        let _ = self.hash();
        let mut digest = None;
        while let Some(piece) = self.hasher.take()? {
            digest = piece.output.first_chunk().copied();
        }
        Ok((self.size, digest.ok_or_else(|| io::Error::other("nothing was hashed"))?))
    }

    /// What is left when all content was taken: the last 64 KiB of the source, at most, up to its end.
    pub fn tail(&self) -> &[u8] {
        &self.buffer[self.begin..self.end]
    }
}

impl BufRead for Body {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.peek(1)
    }

    fn consume(&mut self, count: usize) {
        let count = count.min(self.ready());
        self.unhashed.input.extend_from_slice(&self.buffer[self.begin..self.begin + count]);
        if self.unhashed.input.len() >= HASHED {
            // When the thread is gone, the sum says so.
            let _ = self.hash();
        }
        self.size += count as u64;
        self.begin += count;
    }
}

impl Read for Body {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let bytes = self.peek(1)?;
        let count = bytes.len().min(to.len());
        to[..count].copy_from_slice(&bytes[..count]);
        self.consume(count);
        Ok(count)
    }
}
