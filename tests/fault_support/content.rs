//! What the tests write into snapshots: bytes that tell whether they are whole.

// The saver writes and does not look.
#![allow(dead_code)]

/// This many bytes, of which the last eight are a digest of all others; each seed gives others.
pub fn content(seed: u64, length: usize) -> Vec<u8> {
    assert!(length >= 16, "room for a digest");
    let mut bytes = Vec::with_capacity(length + 8);
    // Marsaglia's xorshift64.
    let mut word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while bytes.len() < length - 8 {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.truncate(length - 8);
    bytes.extend_from_slice(&digest(&bytes).to_le_bytes());
    bytes
}

/// Whether nothing of it is missing or otherwise.
pub fn is_whole(bytes: &[u8]) -> bool {
    let Some((body, last)) = bytes.split_last_chunk::<8>() else { return false };
    body.len() >= 8 && digest(body) == u64::from_le_bytes(*last)
}

/// FNV-1a, eight bytes at a time: nobody means to deceive it here. The length counts, so that zeros at the end do.
fn digest(bytes: &[u8]) -> u64 {
    let fold = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
    let mut hash = fold(0xcbf2_9ce4_8422_2325, bytes.len() as u64);
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        hash = fold(hash, u64::from_le_bytes(word.try_into().expect("eight bytes")));
    }
    words.remainder().iter().fold(hash, |hash, byte| fold(hash, u64::from(*byte)))
}
