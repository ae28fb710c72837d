//! Compression in independent frames of a megabyte each, several at once, and decompression of those and of anybody's.
//! What is written, one frame after the other, is what `zstd -d`, `lz4 -d` and `gzip -d` read.
//!
//! | room | what it is for |
//! |---|---|
//! | [`crew`] | threads that work on pieces side by side |
//! | [`body`] | a source whose last bytes are withheld until they are known to be content |
//! | [`open`] | the archive out of a compressed body |
//! | [`zstd`] | zstd's frames |

pub mod body;
pub mod crew;
pub mod open;
pub mod zstd;

use std::{io::Write, num::NonZero, thread};

use self::crew::{Piece, Work};
use super::Compression;

/// What one frame holds: large enough that starting anew costs hardly any ratio (2 % against 8 MiB), small enough that a
/// few of them are in memory at once.
pub const PIECE: usize = 1 << 20;

/// The room that lz4 wants beyond its input; none needs more.
const OVERHEAD: usize = PIECE / 10 + 1024;

pub const ZSTD_MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();

/// The start of each of our LZ4 frames: version 1, independent blocks of up to 1 MiB, no checksums (the snapshot has its
/// own), and one byte of the xxh32 of those two.
pub const LZ4_HEADER: [u8; 7] = [0x04, 0x22, 0x4D, 0x18, 0x60, 0x60, 0x51];

/// The bit of an LZ4 block's size that says that the block is stored.
const LZ4_STORED: u32 = 1 << 31;

/// Frames that zstd and lz4 skip begin with 0x184D2A50 to 0x184D2A5F, and a length (RFC 8878, 3.1.2).
pub fn is_skippable(bytes: &[u8]) -> bool {
    matches!(bytes, [0x50..=0x5F, 0x2A, 0x4D, 0x18, ..])
}

/// How many threads help: as many as the container may use, within reason. Each of them takes 7 MB with zstd and half of
/// that with the others (measured), and the whole process may take 32 MB.
pub fn count_workers(compression: Compression) -> usize {
    let most = if compression == Compression::Zstd { 2 } else { 4 };
    thread::available_parallelism().map_or(1, NonZero::get).clamp(1, most)
}

/// A piece with the memory that compressing takes.
pub fn new_piece() -> Piece {
    Piece { input: Vec::with_capacity(PIECE), output: Vec::with_capacity(PIECE + OVERHEAD), ..Piece::default() }
}

/// Compresses a piece of at most [`PIECE`] bytes into one frame.
pub fn compressor(compression: Compression) -> Work {
    match compression {
        Compression::Zstd => Box::new(|piece| {
            piece.output.clear();
            zstd::encode(&piece.input, &mut piece.output);
        }),
        Compression::Lz4 => {
            let mut table = lz4_flex::block::CompressTable::large();
            Box::new(move |piece| compress_lz4(piece, &mut table))
        }
        Compression::Gzip => Box::new(compress_gzip),
        Compression::None => Box::new(|piece| piece.output.clone_from(&piece.input)),
    }
}

fn compress_lz4(piece: &mut Piece, table: &mut lz4_flex::block::CompressTable) {
    let Piece { input, output, .. } = piece;
    output.clear();
    output.extend_from_slice(&LZ4_HEADER);
    if !input.is_empty() {
        let begin = output.len() + 4;
        output.extend_from_slice(&[0; 4]);
        // Room that has to hold something: copying does that faster than zeros, byte by byte in a build for size.
        output.extend_from_slice(input);
        output.resize(begin + lz4_flex::block::get_maximum_output_size(input.len()), 0);
        let size = lz4_flex::block::compress_into_with_table(input, &mut output[begin..], table);
        let word = match size {
            Ok(size) if size < input.len() => {
                output.truncate(begin + size);
                size as u32
            }
            _ => {
                output.truncate(begin);
                output.extend_from_slice(input);
                input.len() as u32 | LZ4_STORED
            }
        };
        output[begin - 4..begin].copy_from_slice(&word.to_le_bytes());
    }
    // The end of the frame.
    output.extend_from_slice(&[0; 4]);
}

fn compress_gzip(piece: &mut Piece) {
    piece.output.clear();
    let mut encoder = flate2::write::GzEncoder::new(&mut piece.output, flate2::Compression::fast());
    if encoder.write_all(&piece.input).and_then(|()| encoder.try_finish()).is_err() {
        piece.damage = Some("cannot be compressed");
    }
}
