//! Users and groups by name, from `/etc/passwd` and `/etc/group` as they stand in the image. Numbers need neither.

use std::path::Path;

use crate::sys::file;

/// Far above the files of any image; a few hundred lines are usual.
const LIMIT: usize = 1 << 20;

/// Who a command runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
}

/// Finds `1000`, `1000:1000`, `www-data` or `www-data:adm`. Without a group it is the user's own, or for a number
/// that `/etc/passwd` does not know the number itself. Reads files: call it where that may block.
///
/// # Errors
/// Says which name is unknown.
pub fn find(text: &str) -> Result<User, String> {
    let read = |path| file::read_small_regular(Path::new(path), LIMIT).unwrap_or_default();
    look_up(text, &String::from_utf8_lossy(&read("/etc/passwd")), &String::from_utf8_lossy(&read("/etc/group")))
}

/// Whether the text can mean a user at all.
///
/// # Errors
/// Says what is wrong.
pub fn check(text: &str) -> Result<(), String> {
    let (user, group) = text.split_once(':').unwrap_or((text, "0"));
    for part in [user, group] {
        if part.is_empty() || part.contains([':', '/', '\0', '\n']) {
            return Err(format!(
                "`{text}` is not a user: write \"1000\", \"1000:1000\", \"www-data\" or \"www-data:adm\""
            ));
        }
        if part.bytes().all(|byte| byte.is_ascii_digit()) && number(part).is_none() {
            return Err(format!("`{text}` is not a user: {part} is out of range"));
        }
    }
    Ok(())
}

fn look_up(text: &str, passwd: &str, group_file: &str) -> Result<User, String> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let entry = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| {
        fields.len() >= 4 && number(user).map_or(fields[0] == user, |uid| number(fields[2]) == Some(uid))
    });
    let known = entry.as_ref().and_then(|fields| Some((fields[0], number(fields[2])?, number(fields[3])?)));
    let (name, uid, own_group) = match (known, number(user)) {
        (Some((name, uid, gid)), _) => (Some(name), uid, gid),
        (None, Some(uid)) => (None, uid, uid),
        (None, None) => return Err(format!("user {user}: not in /etc/passwd; a number works without it")),
    };
    let lines =
        || group_file.lines().map(|line| line.split(':').collect::<Vec<_>>()).filter(|fields| fields.len() >= 3);
    let gid = match group {
        None => own_group,
        Some(group) => match number(group) {
            Some(gid) => gid,
            None => lines()
                .find(|fields| fields[0] == group)
                .and_then(|fields| number(fields[2]))
                .ok_or_else(|| format!("group {group}: not in /etc/group; a number works without it"))?,
        },
    };
    // As su(1) does: all groups that name the user. A group that was asked for is meant alone (setpriv, Docker).
    let mut groups = vec![];
    if let (Some(name), None) = (name, group) {
        for fields in lines() {
            if fields.get(3).is_some_and(|members| members.trim().split(',').any(|member| member == name)) {
                groups.extend(number(fields[2]));
            }
        }
    }
    Ok(User { uid, gid, groups })
}

/// A uid or gid; the largest number means "unchanged" to the kernel (setuid(2)) and is nobody's.
fn number(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|number| *number != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# a comment\nwww-data:x:33:33:w:/var/www:/bin/false\nbad\n";
    const GROUP: &str = "root:x:0:\nadm:x:4:syslog,www-data\nwww-data:x:33:\ntls:x:90:www-data\nwide:x:91:xwww-data\n";

    #[test]
    fn finds_users_by_number_and_by_name() {
        for (text, uid, gid, groups) in [
            ("0", 0, 0, &[][..]),
            ("1000", 1000, 1000, &[]),
            ("1000:5", 1000, 5, &[]),
            ("33", 33, 33, &[4, 90]),
            ("www-data", 33, 33, &[4, 90]),
            ("www-data:adm", 33, 4, &[]),
            ("www-data:7", 33, 7, &[]),
        ] {
            let expected = User { uid, gid, groups: groups.to_vec() };
            assert_eq!(look_up(text, PASSWD, GROUP), Ok(expected), "{text}");
        }
        assert_eq!(
            look_up("nobody", PASSWD, GROUP),
            Err("user nobody: not in /etc/passwd; a number works without it".into())
        );
        assert_eq!(
            look_up("www-data:nope", PASSWD, GROUP),
            Err("group nope: not in /etc/group; a number works without it".into())
        );
        assert_eq!(look_up("5", "", ""), Ok(User { uid: 5, gid: 5, groups: vec![] }));
    }

    #[test]
    fn refuses_what_cannot_be_a_user() {
        for text in ["", ":", "a:", ":a", "a:b:c", "4294967295", "99999999999", "a/b"] {
            assert!(check(text).is_err(), "{text}");
        }
        for text in ["1000", "1000:1000", "www-data", "www-data:adm", "0"] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }
}
