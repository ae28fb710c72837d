//! The archive out of a compressed body. Frames as this program writes them are decoded side by side; others, of any
//! valid stream, one after the other. Memory is bounded whatever the input says.

use std::io::{self, Read};

use super::{
    Compression, LZ4_HEADER, LZ4_STORED, PIECE, ZSTD_MAGIC,
    body::Body,
    crew::{Crew, Piece, Work},
    is_skippable,
    zstd::{self, BlockHeader, Header},
};

/// An archive, and the body that it comes out of.
pub trait Archive: Read + Send {
    fn body(&mut self) -> &mut Body;
}

/// How the body is compressed, by its first bytes, which can be no tar archive's.
pub fn detect(body: &mut Body) -> io::Result<Compression> {
    let bytes = body.peek(512)?;
    if bytes.len() >= 512 && is_tar_header(&bytes[..512]) {
        return Ok(Compression::None);
    }
    Ok(match bytes {
        [0x1F, 0x8B, 8, ..] => Compression::Gzip,
        [0x04, 0x22, 0x4D, 0x18, ..] => Compression::Lz4,
        _ if bytes.starts_with(&ZSTD_MAGIC) || is_skippable(bytes) => Compression::Zstd,
        _ => Compression::None,
    })
}

/// A file's name may begin like a compressed stream; the checksum behind it then tells the two apart.
fn is_tar_header(header: &[u8]) -> bool {
    let (before, rest) = header.split_at(148);
    let (checksum, behind) = rest.split_at(8);
    let sum = before.iter().chain(behind).map(|byte| u32::from(*byte)).sum::<u32>() + 8 * u32::from(b' ');
    let digits: Vec<u8> = checksum.iter().copied().filter(u8::is_ascii_digit).collect();
    str::from_utf8(&digits).ok().and_then(|digits| u32::from_str_radix(digits, 8).ok()) == Some(sum)
}

pub fn open(mut body: Body, compression: Compression, workers: usize) -> io::Result<Box<dyn Archive>> {
    let first = body.peek(zstd::LONGEST_HEADER)?;
    Ok(match compression {
        Compression::Zstd => match zstd::read_header(first) {
            Ok(header) if is_piece(&header) => {
                Box::new(Pieces::new(body, Crew::new(workers, &unpack_zstd), Box::new(take_zstd)))
            }
            _ => Box::new(zstd::Stream::new(body)),
        },
        Compression::Lz4 if first.starts_with(&LZ4_HEADER) => {
            let mut in_frame = false;
            let take = move |body: &mut Body, piece: &mut Piece| take_lz4(body, piece, &mut in_frame);
            Box::new(Pieces::new(body, Crew::new(workers, &unpack_lz4), Box::new(take)))
        }
        Compression::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(body)),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(body)),
        Compression::None => Box::new(Plain(body)),
    })
}

pub fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

struct Plain(Body);

impl Read for Plain {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.0.read(to)
    }
}

impl Archive for Plain {
    fn body(&mut self) -> &mut Body {
        &mut self.0
    }
}

impl Archive for lz4_flex::frame::FrameDecoder<Body> {
    fn body(&mut self) -> &mut Body {
        self.get_mut()
    }
}

impl Archive for flate2::bufread::MultiGzDecoder<Body> {
    fn body(&mut self) -> &mut Body {
        self.get_mut()
    }
}

/// Takes the next frame or block out of the body; `false` when there is none.
type Take = Box<dyn FnMut(&mut Body, &mut Piece) -> io::Result<bool> + Send>;

/// Frames or blocks that need nothing of each other.
struct Pieces {
    body: Body,
    crew: Crew,
    take: Take,
    has_ended: bool,
    current: Piece,
    at: usize,
    spare: Vec<Piece>,
}

impl Pieces {
    fn new(body: Body, crew: Crew, take: Take) -> Self {
        Self { body, crew, take, has_ended: false, current: Piece::default(), at: 0, spare: Vec::new() }
    }
}

impl Read for Pieces {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = self.current.output.get(self.at..).unwrap_or_default();
            if !left.is_empty() {
                let count = left.len().min(to.len());
                to[..count].copy_from_slice(&left[..count]);
                self.at += count;
                return Ok(count);
            }
            while !self.has_ended && !self.crew.is_full() {
                let mut piece = self.spare.pop().unwrap_or_default();
                piece.input.clear();
                if (self.take)(&mut self.body, &mut piece)? {
                    self.crew.hand(piece);
                } else {
                    self.has_ended = true;
                }
            }
            let Some(piece) = self.crew.take()? else { return Ok(0) };
            if let Some(damage) = piece.damage {
                return Err(damaged(damage));
            }
            self.spare.push(std::mem::replace(&mut self.current, piece));
            self.at = 0;
        }
    }
}

impl Archive for Pieces {
    fn body(&mut self) -> &mut Body {
        &mut self.body
    }
}

/// Skips what zstd and lz4 skip; `false` at the end of the body.
pub fn skip_skippable(body: &mut Body) -> io::Result<bool> {
    while is_skippable(body.peek(4)?) {
        body.skip(4)?;
        let length = u32::from_le_bytes(body.read_chunk()?);
        body.skip(length.into())?;
    }
    Ok(!body.peek(1)?.is_empty())
}

/// Whether a frame is so small that it can be decoded on its own.
fn is_piece(header: &Header) -> bool {
    header.content.is_some_and(|content| content <= PIECE as u64)
}

fn take_zstd(body: &mut Body, piece: &mut Piece) -> io::Result<bool> {
    if !skip_skippable(body)? {
        return Ok(false);
    }
    let header = zstd::read_header(body.peek(zstd::LONGEST_HEADER)?).map_err(damaged)?;
    piece.expected =
        header.content.filter(|_| is_piece(&header)).ok_or_else(|| damaged("a frame is too large"))? as usize;
    body.read_into(&mut piece.input, header.length)?;
    loop {
        let bytes = body.read_chunk()?;
        let block = BlockHeader::read(bytes).map_err(damaged)?;
        piece.input.extend_from_slice(&bytes);
        // Blocks without content can make a frame much longer than what it holds.
        if piece.input.len() + block.length() > 2 * PIECE {
            return Err(damaged("a frame is too large"));
        }
        body.read_into(&mut piece.input, block.length())?;
        if block.is_last {
            body.read_into(&mut piece.input, if header.has_checksum { 4 } else { 0 })?;
            return Ok(true);
        }
    }
}

fn unpack_zstd() -> Work {
    let mut frames = zstd::Frames::default();
    Box::new(move |piece| {
        piece.output.resize(piece.expected, 0);
        piece.damage = frames.decode(&piece.input, &mut piece.output).err();
    })
}

fn take_lz4(body: &mut Body, piece: &mut Piece, in_frame: &mut bool) -> io::Result<bool> {
    loop {
        if !*in_frame {
            if !skip_skippable(body)? {
                return Ok(false);
            }
            if body.read_chunk()? != LZ4_HEADER {
                return Err(damaged("an LZ4 frame is of another kind than the first"));
            }
            *in_frame = true;
        }
        let word = u32::from_le_bytes(body.read_chunk()?);
        if word == 0 {
            *in_frame = false;
            continue;
        }
        piece.is_plain = word & LZ4_STORED != 0;
        let size = (word & !LZ4_STORED) as usize;
        if size > PIECE {
            return Err(damaged("an LZ4 block is too large"));
        }
        body.read_into(&mut piece.input, size)?;
        return Ok(true);
    }
}

fn unpack_lz4() -> Work {
    Box::new(|piece| {
        let Piece { input, output, is_plain, damage, .. } = piece;
        if *is_plain {
            std::mem::swap(input, output);
            return;
        }
        output.resize(PIECE, 0);
        match lz4_flex::block::decompress_into(input, output) {
            Ok(size) => output.truncate(size),
            Err(_) => *damage = Some("an LZ4 block is damaged"),
        }
    })
}

impl Archive for zstd::Stream {
    fn body(&mut self) -> &mut Body {
        &mut self.body
    }
}
