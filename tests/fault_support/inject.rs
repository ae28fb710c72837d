//! Runs a command again and again, each time with one fault at one of its system calls: strace(1), "Syscall tampering".

use std::{collections::BTreeMap, ffi::OsString, fmt, path::Path, process::Command};

use super::{Ended, run};

/// What happens at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL on entry: what came before has happened, and this call has not.
    Kill,
    /// The call does nothing and returns this error: `ENOSPC`.
    Error(&'static str),
}

/// Which calls are hit.
#[derive(Clone, Copy, Debug)]
pub struct Where<'a> {
    /// Names of system calls; those that this architecture does not have are left out.
    pub calls: &'a [&'a str],
    /// Calls before the first one whose trace has this text (a path, say) are let through: the program's own start.
    pub after: &'a str,
    /// Faults that are always there, in strace's words: `renameat2:error=EINVAL`. Of other calls than those above.
    pub always: &'a [&'a str],
}

/// One run in which a call was hit.
#[derive(Debug)]
pub struct Hit {
    pub call: String,
    pub fault: Fault,
    /// The how-manieth of its name, from 1, counted from the start of the thread.
    pub when: usize,
    /// Of the command; when it was killed, so was strace, by its own hand (its exit status tells the same).
    pub ended: Ended,
}

impl fmt::Display for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ended { status, stdout, stderr } = &self.ended;
        let Self { call, fault, when, .. } = self;
        write!(f, "{fault:?} at {call} {when}: {status}, stdout {stdout:?}, stderr {stderr:?}")
    }
}

/// Tries each fault at each call. `prepare` makes a fresh place and the command line that works there; `check` looks at
/// what is left. Returns how many times each call was hit: to be compared with what must have been hit.
pub fn at_each_call<Place>(
    place: Where<'_>,
    faults: &[Fault],
    prepare: &mut dyn FnMut() -> (Place, Vec<OsString>),
    check: &mut dyn FnMut(Place, Hit),
) -> BTreeMap<String, usize> {
    let mut hits = BTreeMap::new();
    let (_place, line) = prepare();
    let whole = traced(&line, place, &[]).1;
    for call in place.calls {
        let (mut first, mut last) = (usize::MAX, 0);
        for (before, all) in count(&whole, call, place.after) {
            (first, last) = (first.min(before + 1), last.max(all));
        }
        if last == 0 {
            continue;
        }
        for fault in faults {
            for when in first.. {
                let (place_now, line) = prepare();
                let expression = match fault {
                    Fault::Kill => format!("{call}:signal=KILL:when={when}"),
                    Fault::Error(error) => format!("{call}:error={error}:when={when}"),
                };
                let (ended, trace) = traced(&line, place, &[&expression]);
                if is_hit(&trace, call, *fault) {
                    *hits.entry((*call).to_owned()).or_insert(0) += 1;
                    check(place_now, Hit { call: (*call).to_owned(), fault: *fault, when, ended });
                } else if when > last {
                    break;
                }
            }
        }
    }
    hits
}

/// Runs it under strace with these faults as well: how it ended, and the trace.
pub fn traced(line: &[OsString], place: Where<'_>, faults: &[&str]) -> (Ended, String) {
    let log = tempfile::NamedTempFile::new().expect("a temporary file");
    let mut command = Command::new("strace");
    // Enough of a string for any path, and the paths of descriptors.
    command.args(["-f", "-q", "-y", "-s", "300", "-o"]).arg(log.path());
    let calls: Vec<String> = place.calls.iter().map(|call| format!("?{call}")).collect();
    // The always faulty ones must be traced too, or they are not.
    let always = place.always.iter().filter_map(|fault| fault.split(':').next()).map(|call| format!("?{call}"));
    let calls: Vec<String> = calls.into_iter().chain(always).collect();
    command.arg("-e").arg(format!("trace={}", calls.join(",")));
    for fault in place.always.iter().chain(faults) {
        command.arg("-e").arg(format!("inject=?{fault}"));
    }
    command.arg("--").args(line);
    let ended = run(command);
    (ended, read_lossy(log.path()))
}

fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).expect("a trace")).into_owned()
}

/// For each thread that made this call: how many of them came before the text, and how many there are.
fn count(trace: &str, call: &str, after: &str) -> Vec<(usize, usize)> {
    let entry = format!("{call}(");
    let (mut counts, mut is_after) = (BTreeMap::new(), after.is_empty());
    for line in trace.lines() {
        is_after |= line.contains(after);
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        if rest.trim_start().starts_with(&entry) {
            let (before, all) = counts.entry(thread.to_owned()).or_insert((0, 0));
            *all += 1;
            if !is_after {
                *before += 1;
            }
        }
    }
    // Threads that only ran before do not matter.
    counts.into_values().filter(|(before, all)| before < all).collect()
}

fn is_hit(trace: &str, call: &str, fault: Fault) -> bool {
    let (entry, resumed) = (format!(" {call}("), format!("<... {call} resumed>"));
    match fault {
        Fault::Kill => trace.contains("+++ killed by SIGKILL +++"),
        Fault::Error(_) => {
            trace.lines().any(|line| line.contains("(INJECTED)") && (line.contains(&entry) || line.contains(&resumed)))
        }
    }
}
