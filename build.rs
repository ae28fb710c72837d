//! Packs the texts that travel in the binary: the reference and the presets are a third of their size that way, and the
//! binary has a bar. `src/embedded.rs` unpacks them.

use std::{env, error::Error, fs, path::Path};

/// As small as it gets; it happens once a build.
const HARDEST: u8 = 10;

fn main() -> Result<(), Box<dyn Error>> {
    let to = env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    let pack = |name: &str, text: &[u8]| {
        fs::write(Path::new(&to).join(name), miniz_oxide::deflate::compress_to_vec(text, HARDEST))
    };
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=config");
    pack("reference", &fs::read("config/boathook.toml")?)?;
    let mut presets = fs::read_dir("config/presets")?.collect::<Result<Vec<_>, _>>()?;
    presets.sort_by_key(fs::DirEntry::path);
    // Name and text in turn, each ended by a zero, which no text has.
    let mut all = Vec::new();
    for preset in presets {
        let path = preset.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let name = path.file_stem().and_then(|name| name.to_str()).ok_or("a preset has a plain name")?;
            for part in [name.as_bytes(), &fs::read(&path)?] {
                all.extend_from_slice(part);
                all.push(0);
            }
        }
    }
    pack("presets", &all)?;
    Ok(())
}
