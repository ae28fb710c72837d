//! Holds a shipped binary against its bar: static, for the right machine, not larger than allowed, and with the list of
//! its crates inside, which a reader that is not ours finds. It reads the ELF header itself, so that `file` and
//! binutils are not needed.

use std::fs;

use auditable_info::{Limits, audit_info_from_slice};
use auditable_serde::DependencyKind;

/// Program header type of the dynamic loader's path (ELF specification, "Program Header"): only a dynamically
/// linked program has one, a static-pie has not.
const PT_INTERP: u32 = 3;
/// `e_machine` values (ELF specification, "ELF Header").
const MACHINES: [(&str, u16); 2] = [("x86_64", 62), ("aarch64", 183)];

/// What the header tells.
#[derive(Debug, PartialEq, Eq)]
struct Elf {
    machine: u16,
    interpreter: bool,
}

/// Checks `file`; the text is one line for the table of sizes.
///
/// # Errors
/// Everything that is wrong with it, one line each.
pub fn check(file: &str, machine: &str, at_most: &str, package: &str) -> Result<String, Vec<String>> {
    let limit: u64 = at_most.parse().map_err(|_| vec![format!("--at-most {at_most}: not a number of bytes")])?;
    let wanted = MACHINES
        .iter()
        .find(|(name, _)| *name == machine)
        .ok_or_else(|| vec![format!("--machine {machine}: unknown, expected x86_64 or aarch64")])?;
    let bytes = fs::read(file).map_err(|error| vec![format!("{file}: {error}")])?;
    let elf = read(&bytes).ok_or_else(|| vec![format!("{file}: not a 64-bit little-endian ELF executable")])?;
    let size = bytes.len() as u64;
    let mut problems = problems(file, &elf, *wanted, size, limit);
    let crates = count_crates(&bytes, package).unwrap_or_else(|why| {
        problems.push(format!("{file}: {why}"));
        0
    });
    if problems.is_empty() {
        Ok(format!("{size:>9} bytes of {limit} allowed, static, {machine}, {crates} crates: {file}"))
    } else {
        Err(problems)
    }
}

/// How many crates are in the binary of this package, as scanners see it.
fn count_crates(bytes: &[u8], package: &str) -> Result<usize, String> {
    let limit = Limits::default().decompressed_json_size;
    let info = audit_info_from_slice(bytes, limit).map_err(|error| error.to_string())?;
    let mut roots = info.packages.iter().filter(|found| found.root).map(|found| found.name.as_str());
    if roots.next() != Some(package) {
        return Err(format!("its list of crates is not {package}'s"));
    }
    let runtime = info.packages.iter().filter(|found| found.kind == DependencyKind::Runtime);
    let names: Vec<String> = runtime.map(|found| format!("{}-{}", found.name, found.version)).collect();
    match unlisted(bytes, &names) {
        Some(place) => Err(format!("code of {place} is in it, which its list of crates does not name")),
        None => Ok(names.len()),
    }
}

/// Who is in the binary but not in the list: panics name their place, `NAME-VERSION/src/…`. The standard library's own
/// dependencies are below `/rust/deps`; they come with the toolchain.
fn unlisted(bytes: &[u8], names: &[String]) -> Option<String> {
    let ends = bytes.windows(5).enumerate().filter(|(_, part)| part == b"/src/").map(|(at, _)| &bytes[..at]);
    let folders = ends.map(|before| {
        let plain = |byte: &&u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(byte);
        let length = before.iter().rev().take_while(plain).count();
        before.split_at(before.len() - length)
    });
    let mut versioned = folders.filter(|(above, folder)| {
        let version = folder.rsplit(|byte| *byte == b'-').next().unwrap_or_default();
        let numbers = version.split(|byte| *byte == b'.').filter(|part| part.first().is_some_and(u8::is_ascii_digit));
        version.len() < folder.len() && numbers.count() >= 3 && !above.ends_with(b"/rust/deps/")
    });
    // Texts follow each other without a gap, so that the folder may begin with another text's end.
    let stranger = versioned.find(|(_, folder)| !names.iter().any(|name| folder.ends_with(name.as_bytes())));
    stranger.map(|(_, folder)| String::from_utf8_lossy(folder).into_owned())
}

fn problems(file: &str, elf: &Elf, wanted: (&str, u16), size: u64, limit: u64) -> Vec<String> {
    let mut problems = Vec::new();
    if elf.machine != wanted.1 {
        problems.push(format!("{file}: built for ELF machine {}, not for {} ({})", elf.machine, wanted.0, wanted.1));
    }
    if elf.interpreter {
        problems.push(format!("{file}: not static: it asks for a dynamic loader (PT_INTERP)"));
    }
    if size > limit {
        problems.push(format!("{file}: {size} bytes, {} over the bar of {limit}", size - limit));
    }
    problems
}

/// `None` for anything but a whole 64-bit little-endian ELF header with its program headers.
fn read(bytes: &[u8]) -> Option<Elf> {
    if bytes.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let short = |at: usize| Some(u16::from_le_bytes(bytes.get(at..)?.get(..2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..)?.get(..4)?.try_into().ok()?));
    let table = usize::try_from(u64::from_le_bytes(bytes.get(32..40)?.try_into().ok()?)).ok()?;
    let (entry, count) = (usize::from(short(54)?), usize::from(short(56)?));
    let mut interpreter = false;
    for index in 0..count {
        interpreter |= word(table.checked_add(index * entry)?)? == PT_INTERP;
    }
    Some(Elf { machine: short(18)?, interpreter })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file of two program headers with these types.
    fn elf(machine: u16, types: [u32; 2]) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 2 * 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&2_u16.to_le_bytes());
        for (index, kind) in types.into_iter().enumerate() {
            bytes[64 + index * 56..][..4].copy_from_slice(&kind.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn reads_machine_and_interpreter() {
        assert_eq!(read(&elf(62, [1, 2])), Some(Elf { machine: 62, interpreter: false }));
        assert_eq!(read(&elf(183, [1, PT_INTERP])), Some(Elf { machine: 183, interpreter: true }));
    }

    #[test]
    fn reads_nothing_from_what_is_no_elf_file() {
        assert_eq!(read(b""), None);
        assert_eq!(read(b"#!/bin/sh\n"), None);
        assert_eq!(read(&elf(62, [1, 2])[..100]), None, "cut in the program headers");
        let mut far = elf(62, [1, 2]);
        far[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(read(&far), None, "program headers outside the file");
    }

    #[test]
    fn the_test_program_itself_is_dynamic() {
        let own = std::env::current_exe().expect("a test knows its own path");
        if cfg!(target_env = "gnu") {
            assert!(read(&fs::read(own).expect("readable")).expect("an ELF file").interpreter);
        }
    }

    #[test]
    fn code_that_the_list_does_not_name_is_found() {
        let names = ["tokio-1.54.1".to_owned(), "toml-1.2.1+spec-1.1.0".to_owned()];
        let known =
            b"not a placetokio-1.54.1/src/a.rs\0toml-1.2.1+spec-1.1.0/src/b.rs/rust/deps/hashbrown-0.16.1/src/c.rs \
            /rustc/59807616e1fa/library/alloc/src/d.rs src/main.rs";
        assert_eq!(unlisted(known, &names), None);
        assert_eq!(unlisted(b"xx/tokio-1.54.0/src/a.rs", &names), Some("tokio-1.54.0".into()));
        assert_eq!(unlisted(known, &names[..1]), Some("toml-1.2.1+spec-1.1.0".into()));
    }

    #[test]
    fn each_fault_is_named() {
        let good = Elf { machine: 62, interpreter: false };
        assert_eq!(problems("b", &good, ("x86_64", 62), 10, 10), Vec::<String>::new());
        let bad = Elf { machine: 183, interpreter: true };
        assert_eq!(
            problems("b", &bad, ("x86_64", 62), 11, 10),
            [
                "b: built for ELF machine 183, not for x86_64 (62)",
                "b: not static: it asks for a dynamic loader (PT_INTERP)",
                "b: 11 bytes, 1 over the bar of 10",
            ]
        );
    }
}
