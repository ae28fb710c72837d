//! What `/proc` says about other processes. Each read is of one moment: the process may be gone in the next.

use std::{fs, path::Path};

use crate::sys::{file, signal};

/// `/proc/PID/stat` is about 300 bytes, of which 16 are the name (proc_pid_stat(5)).
const STAT_LIMIT: usize = 2048;
/// Arguments and environment together are at most a quarter of the stack limit, 2 MiB by default (execve(2)).
const ENVIRONMENT_LIMIT: usize = 2 << 20;
/// The kernel cuts names to 15 bytes (proc_pid_comm(5)).
const NAME_LIMIT: usize = 15;

/// The part of `/proc/PID/stat` that is used here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// At most 15 bytes of the program's name.
    pub name: String,
    /// `R`, `S`, `D`, `Z`, `T`, `X` and others.
    pub state: u8,
    pub parent: i32,
    pub group: i32,
    /// Clock ticks since boot.
    pub started: u64,
}

impl Stat {
    /// Ended, but not yet waited for.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// All pids that `/proc` shows.
pub fn processes() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// None when there is no such process, or it is hidden.
pub fn read_stat(pid: i32) -> Option<Stat> {
    parse_stat(&file::read_small_regular(Path::new(&format!("/proc/{pid}/stat")), STAT_LIMIT).ok()?)
}

/// None when there is no such process or it is somebody else's.
pub(super) fn read_environment(pid: i32) -> Option<Vec<u8>> {
    file::read_start_of_regular(Path::new(&format!("/proc/{pid}/environ")), ENVIRONMENT_LIMIT).ok()
}

/// The children that a thread of this process has started; none where the kernel does not list them
/// (`CONFIG_PROC_CHILDREN`).
pub(super) fn children(thread: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/self/task/{thread}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Whether the process runs; a zombie does not.
pub fn is_running(pid: i32) -> bool {
    match read_stat(pid) {
        Some(stat) => !stat.is_dead(),
        // Hidden by `hidepid`, or gone: EPERM says that it is there.
        None => signal::send(pid, 0).map_or_else(|error| error.raw_os_error() == Some(libc::EPERM), |()| true),
    }
}

/// The processes of this name that may be signalled, without the agent itself: the name is what `comm` shows (cut
/// to 15 bytes) or the last part of the path in `argv[0]`.
///
/// Where a match is the parent of another (a server's master and its workers) only the topmost counts.
pub fn by_name(name: &str) -> Vec<i32> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let matches: Vec<(i32, Stat)> = processes()
        .filter(|pid| *pid != own)
        .filter_map(|pid| Some((pid, read_stat(pid)?)))
        .filter(|(pid, stat)| !stat.is_dead() && is_called(*pid, stat, name) && signal::send(*pid, 0).is_ok())
        .collect();
    let topmost = |stat: &Stat| !matches.iter().any(|(pid, _)| *pid == stat.parent);
    matches.iter().filter(|(_, stat)| topmost(stat)).map(|(pid, _)| *pid).collect()
}

/// Whether a process is called so.
pub fn is_called(pid: i32, stat: &Stat, name: &str) -> bool {
    let cut = name.as_bytes().get(..NAME_LIMIT).unwrap_or(name.as_bytes());
    let short = stat.name.as_bytes() == cut;
    if short && name.len() < NAME_LIMIT {
        return true;
    }
    let line = file::read_start_of_regular(Path::new(&format!("/proc/{pid}/cmdline")), 4096).unwrap_or_default();
    let path = line.split(|byte| *byte == 0).next().unwrap_or_default();
    let last = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    // Fifteen equal bytes are believed unless argv[0] shows that another name goes on differently.
    last == name.as_bytes() || (short && !last.starts_with(cut))
}

fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    // The name stands in parentheses and may itself contain any: the last one closes it.
    let open = bytes.iter().position(|byte| *byte == b'(')?;
    let close = bytes.iter().rposition(|byte| *byte == b')')?;
    let name = String::from_utf8_lossy(bytes.get(open + 1..close)?).into_owned();
    let mut fields = std::str::from_utf8(bytes.get(close + 1..)?).ok()?.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    // `group` is field 5 in proc_pid_stat(5), `starttime` is field 22.
    let started = fields.nth(16)?.parse().ok()?;
    Some(Stat { name, state, parent, group, started })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_stat_line_whatever_the_name() {
        let rest = "S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 4096 10";
        for name in ["sh", "a) S 9 9 (b", "", "tab\tand space"] {
            let stat = parse_stat(format!("43 ({name}) {rest}").as_bytes()).expect("a good line");
            assert_eq!(stat, Stat { name: name.into(), state: b'S', parent: 1, group: 42, started: 98765 });
        }
        for line in ["", "43", "43 (sh) S 1", "43 )sh( S 1 42"] {
            assert_eq!(parse_stat(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn finds_itself_alive() {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        assert!(is_running(own));
        assert!(processes().any(|pid| pid == own));
        assert!(!is_running(i32::MAX));
        assert!(by_name("no-such-program").is_empty());
    }
}
