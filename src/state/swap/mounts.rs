//! Which volumes are mounted at a folder and beneath it: they can be neither renamed nor replaced, only their content.

use std::{
    io::{BufRead, BufReader},
    os::unix::ffi::OsStrExt,
    path::Path,
};

/// The mount points at a folder and beneath it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mounts {
    /// The folder itself is one.
    pub here: bool,
    /// Those beneath it, relative to it.
    pub below: Vec<Vec<u8>>,
}

impl Mounts {
    /// As this process sees them; none where there is no /proc: then the kernel refuses to rename a mount point, and
    /// that is answered where it happens.
    pub fn of(folder: &Path) -> Self {
        let Ok(table) = std::fs::File::open("/proc/self/mountinfo") else { return Self::default() };
        let mut mounts = Self::default();
        for line in BufReader::new(table).split(b'\n').map_while(Result::ok) {
            mounts.add(&line, folder.as_os_str().as_bytes());
        }
        mounts
    }

    /// Adds what one line tells. The fifth field is the mount point, with blanks and backslashes in octal (proc(5)).
    fn add(&mut self, line: &[u8], folder: &[u8]) {
        let Some(point) = line.split(|&byte| byte == b' ').nth(4) else { return };
        let point = unescape(point);
        let folder = folder.strip_suffix(b"/").unwrap_or(folder);
        if point == folder || (folder.is_empty() && point == b"/") {
            self.here = true;
        } else if let Some(below) = point.strip_prefix(folder).and_then(|rest| rest.strip_prefix(b"/"))
            && !self.below.iter().any(|other| other == below)
        {
            self.below.push(below.to_vec());
        }
    }

    pub fn is_at(&self, path: &[u8]) -> bool {
        self.below.iter().any(|point| point == path)
    }

    /// Whether a mount point lies at this path or beneath it.
    pub fn is_at_or_below(&self, path: &[u8]) -> bool {
        self.below.iter().any(|point| is_within(point, path))
    }
}

/// Whether a path is another one or lies beneath it.
pub fn is_within(path: &[u8], folder: &[u8]) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, more @ ..] = rest {
        rest = more;
        if *first == b'\\'
            && let [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', more @ ..] = rest
        {
            plain.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
            rest = more;
        } else {
            plain.push(*first);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_mounted_at_a_folder_and_beneath_it() {
        let table = "\
            22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            30 22 0:50 / /var/lib/app rw shared:1 - tmpfs tmpfs rw\n\
            31 30 0:51 / /var/lib/app/se\\040ss\\134 rw - tmpfs tmpfs rw\n\
            32 30 0:52 / /var/lib/app/a/b rw - tmpfs tmpfs rw\n\
            33 22 0:53 / /var/lib/apple rw - tmpfs tmpfs rw\n\
            cut";
        let of = |folder: &str| {
            let mut mounts = Mounts::default();
            table.lines().for_each(|line| mounts.add(line.as_bytes(), folder.as_bytes()));
            mounts
        };
        let app = of("/var/lib/app");
        assert_eq!(app, Mounts { here: true, below: vec![b"se ss\\".to_vec(), b"a/b".to_vec()] });
        assert!(app.is_at_or_below(b"a") && app.is_at_or_below(b"a/b") && !app.is_at_or_below(b"a/b/c"));
        assert!(!app.is_at(b"a") && app.is_at(b"a/b"));
        assert!(!of("/var/lib/ap").here);
        assert!(of("/").here);
        assert_eq!(of("/").below.len(), 4);
    }
}
