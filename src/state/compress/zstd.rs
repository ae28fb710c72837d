//! zstd frames (RFC 8878), by the `ruzstd` crate; here is only what lets them be taken apart without decoding them.

use std::io::{self, Read};

use ruzstd::{
    decoding::{BlockDecodingStrategy, FrameDecoder},
    encoding::{CompressionLevel, compress_to_vec},
};

use super::{
    body::Body,
    open::{damaged, skip_skippable},
};

/// What is wrong with the input.
pub type Damage = &'static str;

/// A block's content, at most (RFC 8878, 3.1.1.2.4).
const BLOCK: usize = 128 * 1024;

/// The largest window of a frame, as every reader has to grant (RFC 8878, 3.1.1.1.2); `zstd -19` takes as much.
const LARGEST_WINDOW: u64 = 8 << 20;

/// What a frame's first bytes say (RFC 8878, 3.1.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the header itself.
    pub length: usize,
    pub window: u64,
    pub content: Option<u64>,
    pub has_checksum: bool,
}

/// No header is longer.
pub const LONGEST_HEADER: usize = 18;

/// Reads a header that begins with the frame's magic number.
pub fn read_header(bytes: &[u8]) -> Result<Header, Damage> {
    const SHORT: Damage = "a frame's header is cut short";
    if !bytes.starts_with(&super::ZSTD_MAGIC) {
        return Err("no frame begins where one should");
    }
    let descriptor = *bytes.get(4).ok_or(SHORT)?;
    if descriptor & 0b1000 != 0 {
        return Err("a reserved bit is set in a frame's header");
    }
    let is_single = descriptor & 0b10_0000 != 0;
    let mut length = 5;
    let mut number = |size: usize| {
        let mut word = [0; 8];
        word.get_mut(..size).ok_or(SHORT)?.copy_from_slice(bytes.get(length..length + size).ok_or(SHORT)?);
        length += size;
        Ok::<u64, Damage>(u64::from_le_bytes(word))
    };
    let mut window = 0;
    if !is_single {
        let byte = number(1)?;
        let base = 1_u64 << (10 + (byte >> 3));
        window = base + base / 8 * (byte & 7);
    }
    if number([0, 1, 2, 4][usize::from(descriptor & 3)])? != 0 {
        return Err("it needs a dictionary");
    }
    let content = match descriptor >> 6 {
        0 if is_single => Some(number(1)?),
        0 => None,
        1 => Some(number(2)? + 256),
        2 => Some(number(4)?),
        _ => Some(number(8)?),
    };
    if let Some(content) = content
        && is_single
    {
        window = content;
    }
    Ok(Header { length, window, content, has_checksum: descriptor & 4 != 0 })
}

/// A block's first three bytes (RFC 8878, 3.1.1.2).
#[derive(Clone, Copy, Debug)]
pub struct BlockHeader {
    pub is_last: bool,
    kind: u32,
    size: usize,
}

impl BlockHeader {
    pub fn read(bytes: [u8; 3]) -> Result<Self, Damage> {
        let value = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]);
        let header = Self { is_last: value & 1 != 0, kind: value >> 1 & 3, size: (value >> 3) as usize };
        if header.kind == 3 {
            Err("a block of an unknown kind")
        } else if header.size > BLOCK {
            Err("a block larger than 128 KiB")
        } else {
            Ok(header)
        }
    }

    /// So many bytes stand behind the header.
    pub fn length(self) -> usize {
        if self.kind == 1 { 1 } else { self.size }
    }
}

/// Adds a frame with this content, of at most 4 GiB.
pub fn encode(content: &[u8], frames: &mut Vec<u8>) {
    let frame = compress_to_vec(content, CompressionLevel::Fastest);
    // The crate writes frames without the content's size. With it a reader knows that a frame is small enough to be
    // decoded beside others: a header of our own, with a size of four bytes and a window as large ("single segment").
    let (Ok(header), Ok(size)) = (read_header(&frame), u32::try_from(content.len())) else {
        frames.extend_from_slice(&frame);
        return;
    };
    frames.extend_from_slice(&super::ZSTD_MAGIC);
    frames.push(0b1010_0000 | if header.has_checksum { 0b100 } else { 0 });
    frames.extend_from_slice(&size.to_le_bytes());
    frames.extend_from_slice(&frame[header.length..]);
}

/// Decodes whole frames on their own.
pub struct Frames(FrameDecoder);

impl Default for Frames {
    fn default() -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(LARGEST_WINDOW);
        Self(decoder)
    }
}

impl Frames {
    /// Decodes one frame, which must have as much content as `output` has room.
    pub fn decode(&mut self, frame: &[u8], output: &mut [u8]) -> Result<(), Damage> {
        match self.0.decode_all(frame, output) {
            Ok(size) if size == output.len() => Ok(()),
            Ok(_) => Err("a frame is not as long as it says"),
            Err(_) => Err("a frame is damaged"),
        }
    }
}

/// Frames of any size, one after the other.
pub struct Stream {
    pub body: Body,
    decoder: FrameDecoder,
    is_in_frame: bool,
}

/// So much is decoded at once.
const STRIDE: usize = 1 << 20;

impl Stream {
    pub fn new(body: Body) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(LARGEST_WINDOW);
        Self { body, decoder, is_in_frame: false }
    }
}

impl Read for Stream {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.decoder.read(to)?;
            if count > 0 || to.is_empty() {
                return Ok(count);
            }
            if self.is_in_frame && self.decoder.is_finished() {
                self.is_in_frame = false;
            }
            if !self.is_in_frame {
                if !skip_skippable(&mut self.body)? {
                    return Ok(0);
                }
                let header = read_header(self.body.peek(LONGEST_HEADER)?).map_err(damaged)?;
                // What is smaller than its window needs no more than itself.
                if header.window.min(header.content.unwrap_or(u64::MAX)) > LARGEST_WINDOW {
                    return Err(damaged("its window is larger than 8 MiB"));
                }
                self.decoder.reset(&mut self.body).map_err(|error| damaged(&error.to_string()))?;
                self.is_in_frame = true;
            }
            let strategy = BlockDecodingStrategy::UptoBytes(STRIDE);
            self.decoder.decode_blocks(&mut self.body, strategy).map_err(|error| damaged(&error.to_string()))?;
        }
    }
}
