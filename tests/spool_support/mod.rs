//! What was spooled, and within which bounds.

use boathook::state::remote::spool::{Bounds, Spooled};

/// A megabyte in memory, the rest in a file of the usual folder.
pub fn bounds(most: u64) -> Bounds {
    Bounds { memory: 1 << 20, folder: None, most }
}

/// All of what was spooled.
pub fn content(spooled: Spooled) -> Vec<u8> {
    match spooled {
        Spooled::Memory(bytes) => bytes,
        Spooled::File(mut file, size) => {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut file, &mut bytes).expect("the file");
            assert_eq!(bytes.len() as u64, size);
            bytes
        }
    }
}
