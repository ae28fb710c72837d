//! What one step has started, so that all of it can be ended: its process group, every process that carries its
//! mark in the environment (those that made a session of their own and were forked twice, as daemons do), and the
//! descendants of all these. A process that cleared its environment *and* left the group *and* whose parent has
//! gone escapes, and so does one of another user where the agent may not read that one's environment.

use std::{
    collections::BTreeMap,
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use super::{find, reaper};
use crate::sys::signal;

/// The variable that marks what a step has started. Its value names the agent and the step; in an agent that
/// itself runs inside a step it begins with that step's own value, so that the outer one finds everything.
pub const MARKER: &str = "BOATHOOK_STEP";

/// How long the runtime may be held while `/proc` is searched. It takes a millisecond with a hundred processes;
/// but reading an environment waits for its owner's memory lock, which a process in a page fault on a hung mount
/// may hold for ever. The search then goes on in its own thread.
const LONGEST_SEARCH: Duration = Duration::from_millis(25);

/// Between two looks there may be new processes, forked before their parent died. Each look sees fewer; a bound
/// keeps a fork bomb that is faster than us from keeping the thread for ever.
const LONGEST_HUNT: Duration = Duration::from_secs(2);

/// What one step has started.
#[derive(Clone, Debug)]
pub struct Family {
    group: i32,
    marker: String,
    /// When the first of them started, in clock ticks since boot: what is older is not of the family.
    since: u64,
}

/// Kills the family when it is dropped.
#[derive(Debug)]
pub struct Guard {
    family: Family,
    number: u64,
    armed: bool,
}

/// A value for [`MARKER`] that no other step on this machine has.
pub fn new_marker() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let own = rustix::process::getpid().as_raw_nonzero().get();
    // A pid is used again some day; together with the start time it is not.
    let started = find::read_stat(own).map_or(0, |stat| stat.started);
    let mark = format!("{own}-{started}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    match std::env::var(MARKER) {
        Ok(outer) if !outer.is_empty() => format!("{outer}/{mark}"),
        _ => mark,
    }
}

impl Family {
    /// The family of `leader`, which leads its own process group and carries `marker`.
    pub fn new(leader: i32, marker: String) -> Self {
        let since = find::read_stat(leader).map_or(0, |stat| stat.started);
        Self { group: leader, marker, since }
    }

    /// From now on the family dies when the guard is dropped.
    pub fn guard(self) -> Guard {
        let number = reaper::note_family(self.clone());
        Guard { family: self, number, armed: true }
    }

    /// Looks at all processes once and kills those of the family that are not in `killed` yet; whether there were any.
    ///
    /// Each is killed in the moment in which it is seen: a process that forks and ends a thousand times a second would
    /// be another one by the time that all have been looked at. New pids are mostly higher than all others, so a look
    /// that goes upwards meets its successor.
    fn look(&self, killed: &mut BTreeMap<i32, u64>) -> bool {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let mut found = false;
        let mut others = Vec::new();
        for pid in find::processes().filter(|pid| *pid != own) {
            let Some(stat) = find::read_stat(pid) else { continue };
            if stat.is_dead() || stat.started < self.since || killed.get(&pid) == Some(&stat.started) {
                continue;
            }
            if stat.group == self.group || has_marker(pid, &self.marker) {
                let _ = signal::send(pid, libc::SIGKILL);
                killed.insert(pid, stat.started);
                found = true;
            } else {
                others.push((pid, stat));
            }
        }
        loop {
            let before = others.len();
            others.retain(|(pid, stat)| {
                let is_child = killed.contains_key(&stat.parent);
                if is_child {
                    let _ = signal::send(*pid, libc::SIGKILL);
                    killed.insert(*pid, stat.started);
                    found = true;
                }
                !is_child
            });
            if others.len() == before {
                return found;
            }
        }
    }

    /// Kills until a look finds nobody, or for `longest`. A process that was killed may take a moment to go; it forks
    /// no more.
    fn kill_all(&self, longest: Duration) {
        let until = Instant::now() + longest;
        let _ = signal::send_group(self.group, libc::SIGKILL);
        // With their start times: in such a storm pids are used again soon.
        let mut killed = BTreeMap::new();
        while self.look(&mut killed) && Instant::now() < until {}
    }
}

impl Guard {
    /// TERM to the group, and CONT, because a stopped process could not act on it.
    pub fn terminate(&self) {
        let _ = signal::send_group(self.family.group, libc::SIGTERM);
        let _ = signal::send_group(self.family.group, libc::SIGCONT);
    }

    /// Leaves them alone for good.
    pub fn leave(mut self) {
        self.armed = false;
    }

    /// Kills them all without holding the runtime; returns when none is left to be found.
    pub async fn end(self) {
        // The guard goes with the search: if that is dropped before it began, the guard's own drop kills.
        let search = crate::task::blocking(move || {
            self.family.kill_all(LONGEST_HUNT);
            self.leave();
        });
        let _ = search.await;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        reaper::forget_family(self.number);
        if self.armed {
            kill(vec![self.family.clone()]);
        }
    }
}

/// Kills all members of these families, at once and from any place: the groups before this returns, and the rest
/// too unless the search takes longer than [`LONGEST_SEARCH`].
pub(super) fn kill(families: Vec<Family>) {
    if families.is_empty() {
        return;
    }
    for family in &families {
        let _ = signal::send_group(family.group, libc::SIGKILL);
    }
    let (sender, done) = mpsc::channel();
    let copy = families.clone();
    let search = move || {
        copy.iter().for_each(|family| family.kill_all(LONGEST_HUNT));
        let _ = sender.send(());
    };
    match thread::Builder::new().spawn(search) {
        Ok(_) => {
            let _ = done.recv_timeout(LONGEST_SEARCH);
        }
        // No thread to be had, as under a limit on pids: then the search is done here.
        Err(_) => families.iter().for_each(|family| family.kill_all(LONGEST_SEARCH)),
    }
}

fn has_marker(pid: i32, marker: &str) -> bool {
    find::read_environment(pid).is_some_and(|environment| carries(&environment, marker))
}

/// Whether an environment (entries ended by NUL) carries the marker, or one that begins with it.
fn carries(environment: &[u8], marker: &str) -> bool {
    environment.split(|byte| *byte == 0).any(|entry| {
        entry
            .strip_prefix(MARKER.as_bytes())
            .and_then(|rest| rest.strip_prefix(b"="))
            .and_then(|value| value.strip_prefix(marker.as_bytes()))
            .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_own_mark_and_those_inside_it() {
        for (environment, expected) in [
            (&b"A=1\0BOATHOOK_STEP=7-1-0\0"[..], true),
            (b"BOATHOOK_STEP=7-1-0/9-2-4\0B=2", true),
            (b"BOATHOOK_STEP=7-1-01\0", false),
            (b"BOATHOOK_STEP=5-1-0/7-1-0\0", false),
            (b"XBOATHOOK_STEP=7-1-0\0", false),
            (b"X=BOATHOOK_STEP=7-1-0\0", false),
            (b"", false),
        ] {
            assert_eq!(carries(environment, "7-1-0"), expected, "{}", String::from_utf8_lossy(environment));
        }
        assert_ne!(new_marker(), new_marker());
    }
}
