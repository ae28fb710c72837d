//! Which names and link targets an archive may have. Pure.

/// So deep may folders lie: an open folder is kept for each level, and 1024 descriptors are the usual limit of a process.
pub const MOST_LEVELS: usize = 200;

/// The parts of an entry's name, without `.` and doubled slashes; none for the top folder itself (`./`).
///
/// # Errors
/// Why no entry may have this name.
pub fn parts_of(name: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    if name.is_empty() {
        return Err("its name is empty");
    }
    if name.starts_with(b"/") {
        return Err("its name is absolute");
    }
    if name.contains(&0) {
        return Err("its name has a zero byte");
    }
    let parts: Vec<&[u8]> = name.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if parts.contains(&b"..".as_slice()) {
        return Err("its name has `..` in it");
    }
    if parts.len() > MOST_LEVELS {
        return Err("it lies deeper than 200 folders");
    }
    Ok(parts)
}

/// Whether a symbolic link may point there.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    Inside,
    /// Only when these, seen from the link's folder, are folders and no links: after them the target goes up again.
    InsideIfFolders(Vec<Vec<u8>>),
    Outside(&'static str),
}

/// Where a link leads that lies `depth` folders below the top of the snapshot.
///
/// A target that goes up first and then only down cannot leave the snapshot, whatever other links it passes, because
/// the link's own folder is a folder and each of those links leads inside. One that goes up after a name could: the name
/// may be a link to a higher folder.
pub fn judge_target(depth: usize, target: &[u8]) -> Target {
    if target.is_empty() {
        return Target::Outside("it points nowhere");
    }
    if target.starts_with(b"/") {
        return Target::Outside("its target is absolute");
    }
    if target.contains(&0) {
        return Target::Outside("its target has a zero byte");
    }
    let mut here: Vec<&[u8]> = Vec::new();
    let mut above = 0;
    let mut folders: Vec<Vec<u8>> = Vec::new();
    for part in target.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if here.is_empty() => {
                above += 1;
                if above > depth {
                    return Target::Outside("its target lies outside of the snapshot");
                }
            }
            b".." => {
                let mut folder = b"../".repeat(above);
                folder.extend(here.join(b"/".as_slice()));
                folders.push(folder);
                here.pop();
            }
            name => here.push(name),
        }
    }
    if folders.is_empty() { Target::Inside } else { Target::InsideIfFolders(folders) }
}

/// A name for people: what is not printable is escaped.
pub fn show(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_within_the_snapshot() {
        for (name, parts) in [
            ("a", Ok(vec!["a"])),
            ("./a//b/./c/", Ok(vec!["a", "b", "c"])),
            ("./", Ok(vec![])),
            ("a/...", Ok(vec!["a", "..."])),
            ("", Err("its name is empty")),
            ("/etc/passwd", Err("its name is absolute")),
            ("..", Err("its name has `..` in it")),
            ("a/../b", Err("its name has `..` in it")),
            ("a\0b", Err("its name has a zero byte")),
        ] {
            let parts = parts.map(|parts| parts.into_iter().map(str::as_bytes).collect::<Vec<_>>());
            assert_eq!(parts_of(name.as_bytes()), parts, "{name}");
        }
        assert!(parts_of("a/".repeat(MOST_LEVELS).as_bytes()).is_ok());
        assert!(parts_of("a/".repeat(MOST_LEVELS + 1).as_bytes()).is_err());
    }

    #[test]
    fn links_stay_within_the_snapshot() {
        let outside = Target::Outside("its target lies outside of the snapshot");
        for (depth, target, judged) in [
            (0, "a", Target::Inside),
            (0, "..", outside),
            (1, "..", Target::Inside),
            (1, "../b/c", Target::Inside),
            (1, "../../b", Target::Outside("its target lies outside of the snapshot")),
            (2, ".././..//x", Target::Inside),
            (0, "a/..", Target::InsideIfFolders(vec![b"a".to_vec()])),
            (1, "../a/b/../..", Target::InsideIfFolders(vec![b"../a/b".to_vec(), b"../a".to_vec()])),
            (0, "a/../..", Target::Outside("its target lies outside of the snapshot")),
            (5, "/etc", Target::Outside("its target is absolute")),
            (5, "", Target::Outside("it points nowhere")),
        ] {
            assert_eq!(judge_target(depth, target.as_bytes()), judged, "{target}");
        }
    }
}
