//! Adds a section to a finished ELF file. The new section is loaded nowhere: it lies behind all that is, so that
//! nothing that runs moves. Works on what linkers write: the sections' table as the file's end.

/// Of a section's header (ELF specification, "Section Header Table"), on 64-bit machines.
const HEADER: usize = 64;
const SHT_PROGBITS: u32 = 1;

/// `file` with `data` as the section `name`.
///
/// # Errors
/// What is not as expected in `file`.
pub fn add(file: &[u8], name: &str, data: &[u8]) -> Result<Vec<u8>, &'static str> {
    if file.get(..6) != Some(b"\x7fELF\x02\x01") {
        return Err("not a 64-bit little-endian ELF file");
    }
    let cut = "cut off";
    let table = long(file, 40).ok_or(cut)?;
    let count = usize::from(short(file, 60).ok_or(cut)?);
    let names = usize::from(short(file, 62).ok_or(cut)?);
    if table.checked_add(count * HEADER) != Some(file.len()) || names >= count {
        return Err("the sections' table is not the end of the file");
    }
    let header = table + names * HEADER;
    let (start, length) = (long(file, header + 24).ok_or(cut)?, long(file, header + 32).ok_or(cut)?);
    let known = start.checked_add(length).filter(|end| *end <= table).and_then(|end| file.get(start..end));
    let known = known.ok_or("the sections' names are not before their table")?;
    let new_name = [name.as_bytes(), b"\0"].concat();
    if known.windows(new_name.len()).any(|part| part == new_name) {
        return Err("it has such a section already");
    }
    // Everything up to the table stays where it is, also the names, which are written again behind it, with the new
    // one.
    let mut new = file.get(..table).ok_or(cut)?.to_vec();
    let data_at = new.len();
    new.extend_from_slice(data);
    let names_at = new.len();
    new.extend_from_slice(known);
    new.extend_from_slice(&new_name);
    new.resize(new.len().next_multiple_of(8), 0);
    let new_table = new.len();
    new.extend_from_slice(file.get(table..).ok_or(cut)?);
    let header = new_table + names * HEADER;
    put(&mut new, header + 24, &(names_at as u64).to_le_bytes());
    put(&mut new, header + 32, &((known.len() + new_name.len()) as u64).to_le_bytes());

    let mut section = [0; HEADER];
    let name_at = u32::try_from(known.len()).map_err(|_| "names of 4 GiB")?;
    put(&mut section, 0, &name_at.to_le_bytes());
    put(&mut section, 4, &SHT_PROGBITS.to_le_bytes());
    put(&mut section, 24, &(data_at as u64).to_le_bytes());
    put(&mut section, 32, &(data.len() as u64).to_le_bytes());
    put(&mut section, 48, &1_u64.to_le_bytes());
    new.extend_from_slice(&section);
    put(&mut new, 40, &(new_table as u64).to_le_bytes());
    put(&mut new, 60, &u16::try_from(count + 1).map_err(|_| "too many sections")?.to_le_bytes());
    Ok(new)
}

/// `at` lies inside: callers have read there, or made it.
fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?)).ok()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, process::Command};

    use super::*;

    #[test]
    fn a_real_program_runs_as_before() {
        let own = fs::read("/proc/self/exe").expect("a test reads itself");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("program");
        fs::write(&path, add(&own, ".dep-v0", b"what is in it").expect("a linker's file")).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
        let said = Command::new(&path).arg("--list").output().expect("it runs");
        assert!(said.status.success() && String::from_utf8_lossy(&said.stdout).contains("a_real_program"), "{said:?}");
        let again = add(&fs::read(&path).expect("there"), ".dep-v0", b"");
        assert_eq!(again, Err("it has such a section already"));
    }

    #[test]
    fn other_files_are_refused() {
        assert!(add(b"#!/bin/sh\n", ".dep-v0", b"").is_err());
        let own = fs::read("/proc/self/exe").expect("a test reads itself");
        for length in [6, 40, 64, own.len() - 1] {
            assert!(add(&own[..length], ".dep-v0", b"").is_err(), "{length}");
        }
        let longer = [&own[..], b"x"].concat();
        assert_eq!(add(&longer, ".dep-v0", b""), Err("the sections' table is not the end of the file"));
    }
}
