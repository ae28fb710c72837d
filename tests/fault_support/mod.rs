//! For tests of what is left when things go wrong: kills and errors at each system call, power that fails, mounts of
//! one's own, and a saver that can be run under all of them.

// Each test binary uses its own part of this room.
#![allow(dead_code)]

pub mod content;
pub mod inject;
pub mod mounts;
pub mod power;

use std::{
    ffi::OsString,
    fs::File,
    io::{Read, Seek},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};

/// Far longer than anything here takes on a loaded machine; a test that waits so long has failed.
pub const LONG: Duration = Duration::from_secs(60);

/// Says that something could not be tried; where everything is required, that is a failure.
pub fn not_run(what: &str, why: &str) {
    eprintln!("NOT RUN: {what}: {why}");
    assert!(std::env::var_os("BOATHOOK_REQUIRE_ALL").is_none_or(|all| all != "1"), "{what}: {why}");
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether there is such a command and it may do its work here.
pub fn works(command: &str, words: &[&str]) -> bool {
    let tried = Command::new(command).args(words).stdin(Stdio::null()).output();
    tried.is_ok_and(|output| output.status.success())
}

/// strace, which must be able to trace.
pub fn can_trace() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| {
        let can = works("strace", &["-o", "/dev/null", "true"]);
        if !can {
            not_run("faults at system calls", "there is no strace that works");
        }
        can
    })
}

/// The saver, which cargo builds as an example.
pub fn saver() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    let path = PATH.get_or_init(|| {
        // `cargo test --test NAME` alone does not build examples.
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--example", "saver"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        assert!(built.is_ok_and(|status| status.success()), "the saver does not build");
        let own = std::env::current_exe().expect("a path");
        let target = own.parent().and_then(|deps| deps.parent()).expect("target/debug/deps");
        target.join("examples/saver")
    });
    path.clone()
}

/// A command line.
pub fn words<const COUNT: usize>(words: [&dyn AsRef<std::ffi::OsStr>; COUNT]) -> Vec<OsString> {
    words.into_iter().map(|word| word.as_ref().to_owned()).collect()
}

pub fn command(line: &[OsString]) -> Command {
    let mut command = Command::new(&line[0]);
    command.args(&line[1..]);
    command
}

/// How a command ended and what it said.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command to its end, which comes soon.
pub fn run(command: Command) -> Ended {
    run_within(LONG, command)
}

/// Runs a command to its end, with a bound. What it says goes to files: nobody must read along.
pub fn run_within(bound: Duration, mut command: Command) -> Ended {
    let (mut out, mut err) = (tempfile::tempfile().expect("a file"), tempfile::tempfile().expect("a file"));
    let own = |file: &File| Stdio::from(file.try_clone().expect("a descriptor"));
    let mut child =
        command.stdin(Stdio::null()).stdout(own(&out)).stderr(own(&err)).process_group(0).spawn().expect("it starts");
    let status = wait(bound, &mut child);
    let read = |file: &mut File| {
        let mut bytes = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("what it said");
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let ended = Ended { status: status.unwrap_or_default(), stdout: read(&mut out), stderr: read(&mut err) };
    assert!(status.is_some(), "stuck: {command:?}: {ended:?}");
    ended
}

/// Waits for the leader of a process group, which is killed when that takes too long.
pub fn wait(bound: Duration, child: &mut Child) -> Option<ExitStatus> {
    let start = Instant::now();
    while start.elapsed() < bound {
        if let Some(status) = child.try_wait().expect("a child") {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let group = Pid::from_child(child);
    let _ = kill_process_group(group, Signal::KILL);
    let _ = child.wait();
    None
}
