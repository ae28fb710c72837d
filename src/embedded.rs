//! The texts that travel in the binary, packed by `build.rs`: the reference of the configuration, and the presets.

use miniz_oxide::inflate::decompress_to_vec_with_limit;

/// Far more than there is: what is unpacked was packed by the build.
const LARGEST: usize = 1 << 20;

/// The complete commented reference.
pub fn reference() -> String {
    unpack(include_bytes!(concat!(env!("OUT_DIR"), "/reference")))
}

/// The presets by name, in the order of their names: what is known of well-known servers, as configurations.
pub fn presets() -> Vec<(String, String)> {
    let all = unpack(include_bytes!(concat!(env!("OUT_DIR"), "/presets")));
    let mut parts = all.split_terminator('\0').map(str::to_owned);
    std::iter::from_fn(|| parts.next().zip(parts.next())).collect()
}

fn unpack(packed: &[u8]) -> String {
    let text = decompress_to_vec_with_limit(packed, LARGEST).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    text.expect("the build packed a text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_texts_come_out_as_they_are_in_the_tree() {
        assert_eq!(reference(), include_str!("../config/boathook.toml"));
        let read =
            |name: &str| std::fs::read_to_string(format!("{}/config/presets/{name}.toml", env!("CARGO_MANIFEST_DIR")));
        for (name, text) in presets() {
            assert_eq!(text, read(&name).expect(&name));
        }
    }
}
