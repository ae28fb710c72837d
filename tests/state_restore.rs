//! A restore leaves the old state or the new one: killed at any system call, with errors at any of them, in mounted
//! volumes and image layers; and no archive, however made, writes outside of its target.
//!
//! The restores run in processes of their own: this binary again, as [`child`]. What needs root, strace or a mount
//! namespace names itself when it cannot be tried.
#![cfg(feature = "state")]

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead, BufReader, Lines, Read, Write},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use boathook::state::{
    flow::Flow,
    swap::{IfPresent, Restored, Staging, is_present, recover},
    unpack::{Limits, Refused, What},
};

const LIMITS: Limits = Limits { bytes: 1 << 30, files: 100_000 };
const STATE: &str = "sessions";

// ---------------------------------------------------------------------------------------------------------------------
// One restore, as a child of its own.

const JOB: &str = "BOATHOOK_TEST_RESTORE";

/// Not a test: what the others start. Exit code 3 is a restore that failed; its reason is on stdout.
#[test]
fn child() {
    let Ok(job) = std::env::var(JOB) else { return };
    let words: Vec<&str> = job.split('|').collect();
    let [kind, to, tar] = words[..] else { panic!("{job}") };
    println!("go {}", rustix::thread::gettid().as_raw_nonzero());
    // Who traces or kills it is ready when it says so.
    io::stdin().read_line(&mut String::new()).expect("a line");
    // A mark in the trace: nothing else here asks for it.
    let _ = rustix::process::getppid();
    let ended = match kind {
        "naive" => naive(Path::new(to), Path::new(tar)).map(|()| Restored::AtOnce),
        kind => restore(Path::new(to), STATE, Path::new(tar), if_present(kind)),
    };
    let _ = rustix::process::getppid();
    match ended {
        Ok(restored) => println!("restored: {restored:?}"),
        Err(reason) => {
            println!("failed: {reason}");
            std::process::exit(3);
        }
    }
}

fn if_present(kind: &str) -> IfPresent {
    match kind {
        "replace" => IfPresent::Replace,
        "keep" => IfPresent::Keep,
        "merge" => IfPresent::Merge,
        other => panic!("{other}"),
    }
}

fn restore(to: &Path, state: &str, tar: &Path, if_present: IfPresent) -> Result<Restored, String> {
    let flow = Flow::default();
    let mut staging = Staging::begin(to, state, &flow).map_err(|error| error.to_string())?;
    let mut tar = fs::File::open(tar).map_err(|error| error.to_string())?;
    staging.unpack(&mut tar, &LIMITS, &flow).map_err(|refused| refused.to_string())?;
    // The mark between the two halves.
    let _ = rustix::process::getppid();
    staging.commit(if_present, &flow).map_err(|error| error.to_string())
}

/// The negative control: as one would in a shell script, the old goes, then the new comes.
fn naive(to: &Path, tar: &Path) -> Result<(), String> {
    let aside = to.with_file_name("aside");
    let _ = fs::remove_dir_all(&aside);
    restore(&aside, STATE, tar, IfPresent::Replace)?;
    for root in fs::read_dir(&aside).map_err(|error| error.to_string())? {
        let root = root.map_err(|error| error.to_string())?;
        let place = to.join(root.file_name());
        let _ = fs::remove_dir_all(&place);
        fs::rename(root.path(), place).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn job(kind: &str, to: &Path, tar: &Path) -> String {
    format!("{kind}|{}|{}", to.display(), tar.display())
}

const CHILD: [&str; 4] = ["child", "--exact", "--nocapture", "--test-threads=1"];

fn this() -> PathBuf {
    std::env::current_exe().expect("this binary")
}

// ---------------------------------------------------------------------------------------------------------------------
// Trees, and what is compared of them.

/// One entry: kind, permissions, owner, time and content.
type Tree = BTreeMap<PathBuf, String>;

/// Everything at a path, staging places aside; without the top's own time. Empty when it is absent.
fn tree(top: &Path) -> Tree {
    let mut found = Tree::new();
    if let Ok(metadata) = fs::symlink_metadata(top) {
        found.insert(PathBuf::new(), format!("{:o}", metadata.mode()));
        walk(top, Path::new(""), &mut found);
    }
    found
}

fn walk(top: &Path, path: &Path, found: &mut Tree) {
    for entry in fs::read_dir(top.join(path)).expect("a folder") {
        let entry = entry.expect("an entry");
        let name = path.join(entry.file_name());
        if is_staging(&name) {
            continue;
        }
        let metadata = fs::symlink_metadata(entry.path()).expect("an entry");
        let kind = metadata.file_type();
        let content = match () {
            () if kind.is_file() => {
                let content = fs::read(entry.path()).expect("a file");
                format!("{} bytes {:x} links {}", content.len(), sum(&content), metadata.nlink())
            }
            () if kind.is_symlink() => fs::read_link(entry.path()).expect("a link").display().to_string(),
            () if kind.is_dir() => String::new(),
            () => "special".into(),
        };
        let (mode, uid, gid) = (metadata.mode(), metadata.uid(), metadata.gid());
        let is_volume = fs::metadata(top.join(path)).is_ok_and(|above| above.dev() != metadata.dev());
        let time = match metadata.mtime() {
            // A volume's top keeps its marks, and its time tells that something in it has changed.
            _ if is_volume => String::new(),
            seconds => format!("{seconds}.{:09}", metadata.mtime_nsec()),
        };
        found.insert(name.clone(), format!("{mode:o} {uid}:{gid} {time} {content}"));
        if kind.is_dir() {
            walk(top, &name, found);
        }
    }
}

fn is_staging(path: &Path) -> bool {
    path.file_name().is_some_and(|name| String::from_utf8_lossy(name.as_bytes()).contains(".boathook-restore"))
}

fn sum(content: &[u8]) -> u64 {
    content.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// A folder in memory where there is one: what is killed here is a process and not the machine, and thousands of syncs
/// of a busy disk take minutes.
fn a_folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
}

/// The tree as far as a case compares it: files that a merge keeps are linked into its staging place for a while.
fn tree_for(case: &Case, top: &Path) -> Tree {
    let mut tree = tree(top);
    if case.kind == "merge" {
        tree.values_mut().for_each(|entry| *entry = entry.split(" links ").next().unwrap_or_default().to_owned());
    }
    tree
}

/// Staging places that are left anywhere.
fn left(top: &Path) -> Vec<PathBuf> {
    let output = run(Command::new("find").arg(top).args(["-name", "*boathook-restore*"]));
    String::from_utf8_lossy(&output.stdout).lines().map(PathBuf::from).collect()
}

fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().expect("a command");
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

/// A script in `sh`, in a folder.
fn sh(folder: &Path, script: &str) {
    run(Command::new("sh").args(["-euc", script]).current_dir(folder));
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn has(command: &str) -> bool {
    Command::new(command).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

fn not_run(test: &str, why: &str) {
    eprintln!("NOT RUN: {test}: {why}");
}

/// Runs a test again in a mount namespace of its own; true within.
fn in_namespace(test: &str) -> bool {
    const WITHIN: &str = "BOATHOOK_TEST_NAMESPACE";
    if std::env::var_os(WITHIN).is_some() {
        return true;
    }
    let works = Command::new("unshare")
        .args(["-m", "sh", "-c", "mount -t tmpfs tmpfs /mnt"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !works {
        not_run(test, "no mount namespace");
        return false;
    }
    let output = Command::new("unshare")
        .args(["-m", "--propagation", "private"])
        .arg(this())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(WITHIN, "1")
        .output()
        .expect("unshare");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    eprint!("{text}");
    assert!(output.status.success(), "{test}: {text}");
    false
}

// ---------------------------------------------------------------------------------------------------------------------
// The cases: what is there before, and how it is restored.

struct Case {
    name: &'static str,
    kind: &'static str,
    /// Makes `to` in an empty folder.
    before: &'static str,
    /// Makes the snapshot's roots in an empty folder.
    snapshot: &'static str,
    /// Unmounts what `before` has mounted.
    after: &'static str,
}

const OLD: &str = "mkdir -p to/sessions/deep/er; echo old > to/sessions/a; echo gone > to/sessions/gone; \
    echo old > to/sessions/deep/er/b; ln -s a to/sessions/link; echo old > to/dump.sql; \
    find to/ -exec touch -h -d @1700000000.5 {} +; chmod 750 to;";
const OTHER: &str =
    "mkdir to/other; echo other > to/other/x; echo o > to/o; touch -d @1600000000 to/other/x to/o to/other;";
const NEW: &str = "mkdir -p sessions/deep/new; echo new > sessions/a; echo new1 > sessions/deep/new/c; \
    ln -s deep/new/c sessions/link; ln sessions/a sessions/hard; mkfifo sessions/fifo; chmod 700 sessions/deep; \
    echo new > dump.sql; chmod 600 dump.sql; find . -exec touch -h -d @1750000000.123456789 {} +;";
const NEW_ONE: &str = "mkdir -p sessions/deep/new; echo new > sessions/a; echo new1 > sessions/deep/new/c; \
    find . -exec touch -h -d @1750000000.123456789 {} +;";

const CASES: [Case; 8] = [
    Case { name: "absent", kind: "replace", before: "", snapshot: NEW, after: "" },
    Case { name: "empty", kind: "replace", before: "mkdir to; chmod 711 to", snapshot: NEW, after: "" },
    Case { name: "one root", kind: "replace", before: "OLD OTHER", snapshot: NEW_ONE, after: "" },
    Case { name: "one root, new", kind: "keep", before: "mkdir to", snapshot: NEW_ONE, after: "" },
    Case { name: "only roots", kind: "replace", before: "OLD", snapshot: NEW, after: "" },
    Case { name: "several roots", kind: "replace", before: "OLD OTHER", snapshot: NEW, after: "" },
    Case { name: "merge", kind: "merge", before: "OLD OTHER", snapshot: NEW_ONE, after: "" },
    Case { name: "merge several", kind: "merge", before: "OLD OTHER", snapshot: NEW, after: "" },
];

const MOUNTED: [Case; 5] = [
    Case {
        name: "volume, one root",
        kind: "replace",
        before: "mkdir to; mount -t tmpfs tmpfs to; mkdir to/lost+found; OLD OTHER",
        snapshot: NEW_ONE,
        after: "umount to",
    },
    Case {
        name: "volume under a read-only root",
        kind: "replace",
        before: "mkdir ro; mount -t tmpfs tmpfs ro; mkdir ro/to; ln -s ro/to to; mount -t tmpfs tmpfs ro/to; OLD OTHER \
            mount -o remount,ro ro",
        snapshot: NEW,
        after: "umount ro/to; umount ro",
    },
    Case {
        name: "a root is a volume",
        kind: "replace",
        before: "mkdir -p to/sessions; mount -t tmpfs tmpfs to/sessions; mkdir to/sessions/lost+found; OLD OTHER",
        snapshot: NEW,
        after: "umount to/sessions",
    },
    Case {
        name: "a root is a volume under a read-only root",
        kind: "replace",
        before: "mkdir -p to; mount -t tmpfs tmpfs to; mkdir to/sessions; mount -t tmpfs tmpfs to/sessions; OLD OTHER \
            mount -o remount,ro to",
        snapshot: NEW_ONE,
        after: "umount to/sessions; umount to",
    },
    Case {
        name: "an image's layer",
        kind: "replace",
        before: "mkdir fs top; mount -t tmpfs tmpfs fs; mkdir fs/upper fs/work fs/lower; \
            cd fs/lower; OLD OTHER cd ../..; \
            mount -t overlay overlay -o lowerdir=fs/lower,upperdir=fs/upper,workdir=fs/work top; ln -s top/to to",
        snapshot: NEW,
        after: "umount top; umount fs",
    },
];

impl Case {
    fn set_up(&self, base: &Path) {
        let script = self.before.replace("OLD", OLD).replace("OTHER", OTHER);
        sh(base, &script);
    }

    fn tear_down(&self, base: &Path) {
        sh(base, self.after);
        let _ = fs::remove_dir_all(base);
        assert!(!base.exists(), "{}: not removed", self.name);
    }
}

/// Makes the archive of a snapshot with GNU tar.
fn archive(folder: &Path, script: &str) -> PathBuf {
    let roots = folder.join("roots");
    fs::create_dir_all(&roots).expect("a folder");
    sh(&roots, script);
    let tar = folder.join("snapshot.tar");
    run(Command::new("sh").args(["-euc", "tar --format=pax -cf ../snapshot.tar *"]).current_dir(&roots));
    tar
}

// ---------------------------------------------------------------------------------------------------------------------
// Killed, or with errors, at each system call.

/// A child that waits for its line.
struct Started {
    child: Child,
    thread: String,
    stdout: Lines<BufReader<ChildStdout>>,
}

fn start(job: &str) -> Started {
    let mut child = Command::new(this())
        .args(CHILD)
        .env(JOB, job)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child");
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let thread = stdout
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| line.split_once("go ").map(|(_, thread)| thread.to_owned()))
        .expect("it starts");
    Started { child, thread, stdout }
}

impl Started {
    fn go(&mut self) {
        self.child.stdin.take().expect("a pipe").write_all(b"\n").expect("written");
    }

    /// What it said, and how it ended.
    fn end(mut self) -> (String, ExitStatus) {
        let said: Vec<String> = self.stdout.map_while(Result::ok).collect();
        (said.join("\n"), self.child.wait().expect("ended"))
    }
}

/// All that is too long for every day.
fn is_thorough() -> bool {
    std::env::var_os("BOATHOOK_TEST_THOROUGH").is_some()
}

/// Runs a child whose thread is traced from before its first mark on. What it said, how it ended, and its trace.
fn traced(job: &str, options: &[&str], log: &Path) -> (String, ExitStatus, String) {
    let mut started = start(job);
    let mut strace = Command::new("strace")
        .args(["-p", &started.thread, "-o"])
        .arg(log)
        .args(options)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("strace");
    let mut stderr = BufReader::new(strace.stderr.take().expect("a pipe")).lines();
    let attached = stderr.by_ref().map_while(Result::ok).any(|line| line.contains("attached"));
    assert!(attached, "strace does not attach");
    started.go();
    let (said, status) = started.end();
    stderr.for_each(drop);
    let _ = strace.wait();
    (said, status, fs::read_to_string(log).unwrap_or_default())
}

/// Whether a call may change what is on the disk: a kill before another call leaves the same.
fn changes(line: &str) -> bool {
    const READING: [&str; 4] = ["getdents64(", "newfstatat(", "statx(", "fstat("];
    let name = line.split('(').next().unwrap_or_default();
    FAILING.contains(&name)
        && !READING.iter().any(|other| line.starts_with(other))
        && (!name.starts_with("open") || line.contains("O_CREAT"))
}

/// The calls between a trace's first mark and its last: their names, and the how manieth of its name each is, as strace
/// counts. Those that change something in the commit, and every seventh of them before it, unless all are asked for.
fn between_marks(trace: &str) -> Vec<(String, usize)> {
    let mut counts = BTreeMap::new();
    let (mut marks, mut calls) = (0, Vec::new());
    for line in trace.lines() {
        let Some((name, _)) = line.split_once('(') else { continue };
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            continue;
        }
        *counts.entry(name.to_owned()).or_insert(0) += 1;
        if name == "getppid" {
            marks += 1;
        } else if marks > 0
            && marks < 3
            && (is_thorough() || (changes(line) && (marks == 2 || counts.values().sum::<usize>() % 7 == 0)))
        {
            let count = counts[name];
            calls.push((name.to_owned(), count));
        }
    }
    assert_eq!(marks, 3, "{trace}");
    calls
}

/// What a case's restore makes of the target, and what it was.
fn both_states(case: &Case, base: &Path, tar: &Path) -> (Tree, Tree) {
    fs::create_dir_all(base).expect("a folder");
    case.set_up(base);
    let to = base.join("to");
    let old = tree_for(case, &to);
    restore(&to, STATE, tar, if_present(case.kind)).unwrap_or_else(|error| panic!("{}: {error}", case.name));
    let new = tree_for(case, &to);
    assert_eq!(left(base), Vec::<PathBuf>::new(), "{}", case.name);
    case.tear_down(base);
    (old, new)
}

/// Kills a restore at each of its system calls. Returns how many were tried, and how many times the target was neither
/// old nor new when [`recover`] was done.
fn kill_everywhere(case: &Case, kind: &str, folder: &Path) -> (usize, usize) {
    let tar = archive(folder, case.snapshot);
    let base = folder.join("base");
    let (old, new) = both_states(case, &base, &tar);
    assert_ne!(old, new, "{}", case.name);
    let (to, log) = (base.join("to"), folder.join("trace"));
    let job = job(kind, &to, &tar);
    fs::create_dir_all(&base).expect("a folder");
    case.set_up(&base);
    let (said, status, trace) = traced(&job, &[], &log);
    assert!(status.success(), "{}: {said}", case.name);
    case.tear_down(&base);
    let calls = between_marks(&trace);
    let (mut torn, mut killed, mut mixed) = (0, 0, 0);
    for (name, count) in &calls {
        let call = format!("{name} {count}");
        fs::create_dir_all(&base).expect("a folder");
        case.set_up(&base);
        let inject = format!("inject={name}:signal=KILL:when={count}");
        let (_, status, trace) = traced(&job, &["-e", &inject], &log);
        killed += usize::from(!status.success());
        let at_call = || trace.lines().rev().take(3).collect::<Vec<_>>().join("\n");
        mixed += usize::from(![&old, &new].contains(&&tree_for(case, &to)));
        let recovered = recover(&to, STATE).unwrap_or_else(|error| panic!("{}: {error}\n{}", case.name, at_call()));
        let found = tree_for(case, &to);
        if found != old && found != new {
            torn += 1;
            if kind != "naive" {
                let name = case.name;
                panic!(
                    "{name}: killed at {call}:\n{}\n{recovered:?}\n{found:#?}\nold {old:#?}\nnew {new:#?}",
                    at_call()
                );
            }
        } else {
            assert!(kind == "naive" || left(&base).is_empty(), "{}: killed at {call}: left by recover", case.name);
        }
        // With `keep`, what is there by now stays.
        let again = restore(&to, STATE, &tar, if_present(case.kind));
        again.unwrap_or_else(|error| panic!("{}: killed at {call}: {error}", case.name));
        if kind != "naive" {
            assert_eq!(tree_for(case, &to), new, "{}: killed at {call}: restored again", case.name);
            assert_eq!(left(&base), Vec::<PathBuf>::new(), "{}: killed at {call}", case.name);
        }
        case.tear_down(&base);
    }
    eprintln!(
        "{} ({kind}): killed at {killed} of {} calls; not yet whole before recover {mixed}, after it {torn}",
        case.name,
        calls.len()
    );
    assert!(killed * 10 >= calls.len() * 9, "{}: the kills do not hit", case.name);
    (killed, torn)
}

fn can_trace(test: &str) -> bool {
    if !has("strace") || !has("tar") || !is_root() {
        not_run(test, "needs root, strace and tar");
        return false;
    }
    true
}

#[test]
fn killed_at_any_call_it_is_the_old_state_or_the_new() {
    if !can_trace("killed_at_any_call") {
        return;
    }
    for case in &CASES {
        let folder = a_folder();
        kill_everywhere(case, case.kind, folder.path());
    }
}

#[test]
fn killed_at_any_call_in_volumes_and_layers() {
    if !can_trace("killed_at_any_call_in_volumes_and_layers")
        || !in_namespace("killed_at_any_call_in_volumes_and_layers")
    {
        return;
    }
    for case in &MOUNTED {
        let folder = a_folder();
        kill_everywhere(case, case.kind, folder.path());
    }
}

/// The negative control of the tests above: the old goes first, and they find it.
#[test]
fn a_restore_that_removes_first_is_found_torn() {
    if !can_trace("a_restore_that_removes_first") {
        return;
    }
    let folder = a_folder();
    let (killed, torn) = kill_everywhere(&CASES[2], "naive", folder.path());
    assert!(torn > 0, "killed {killed} times, and never torn");
}

/// Calls that may fail for want of space, permission or a healthy disk.
const FAILING: [&str; 31] = [
    "rename",
    "renameat",
    "renameat2",
    "fsync",
    "syncfs",
    "unlink",
    "unlinkat",
    "rmdir",
    "open",
    "openat",
    "mkdir",
    "mkdirat",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "mknod",
    "mknodat",
    "fchmod",
    "fchmodat",
    "fchown",
    "fchownat",
    "utimensat",
    "write",
    "pwrite64",
    "ftruncate",
    "getdents64",
    "newfstatat",
    "statx",
    "fstat",
    "flock",
];

#[test]
fn an_error_at_any_call_leaves_the_old_state_or_none_at_all() {
    if !can_trace("an_error_at_any_call") {
        return;
    }
    let errors = ["ENOSPC", "EIO", "EACCES"];
    for case in &CASES {
        let folder = a_folder();
        let tar = archive(folder.path(), case.snapshot);
        let (base, log) = (folder.path().join("base"), folder.path().join("trace"));
        let (old, new) = both_states(case, &base, &tar);
        let to = base.join("to");
        let job = job(case.kind, &to, &tar);
        fs::create_dir_all(&base).expect("a folder");
        case.set_up(&base);
        let (said, status, trace) = traced(&job, &[], &log);
        assert!(status.success(), "{}: {said}", case.name);
        case.tear_down(&base);
        let (mut failed, mut fine) = (0, 0);
        let calls = between_marks(&trace);
        for (index, (name, count)) in calls.iter().filter(|(name, _)| FAILING.contains(&name.as_str())).enumerate() {
            for (turn, error) in errors.iter().enumerate() {
                if !is_thorough() && turn != index % errors.len() {
                    continue;
                }
                fs::create_dir_all(&base).expect("a folder");
                case.set_up(&base);
                let inject = format!("inject={name}:error={error}:when={count}");
                let (said, status, trace) = traced(&job, &["-e", &inject], &log);
                let at_call = || trace.lines().find(|line| line.contains("(INJECTED)")).unwrap_or("no call").to_owned();
                let context = || format!("{}: {error} at {name} {count}: {}: {said}", case.name, at_call());
                let found = tree_for(case, &to);
                if let Some(reason) = said.lines().find_map(|line| line.strip_prefix("failed: ")) {
                    failed += 1;
                    assert_eq!(status.code(), Some(3), "{}", context());
                    assert!(reason.contains(folder.path().to_str().expect("a path")), "no path: {}", context());
                    if !reason.contains("the next start") {
                        assert_eq!(found, old, "{}", context());
                    }
                } else {
                    fine += 1;
                    assert!(status.success(), "{}", context());
                    assert_eq!(found, new, "{}", context());
                }
                let _ = recover(&to, STATE).unwrap_or_else(|error| panic!("{}: {error}", context()));
                let found = tree_for(case, &to);
                assert!(found == old || found == new, "{}: {found:#?} {old:#?} {new:#?}", context());
                restore(&to, STATE, &tar, if_present(case.kind))
                    .unwrap_or_else(|error| panic!("{}: {error}", context()));
                assert_eq!(tree_for(case, &to), new, "{}", context());
                assert_eq!(left(&base), Vec::<PathBuf>::new(), "{}", context());
                case.tear_down(&base);
            }
        }
        eprintln!("{}: {failed} errors failed the restore, {fine} did not", case.name);
        assert!(failed > 10, "{}: the errors do not hit", case.name);
    }
}

#[test]
fn killed_at_random_moments_it_is_the_old_state_or_the_new() {
    if !has("tar") {
        return not_run("killed_at_random_moments", "needs tar");
    }
    let kills: u32 = std::env::var("BOATHOOK_TEST_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(200);
    let folder = a_folder();
    let many = "mkdir -p sessions dump; for n in $(seq 200); do echo $n > sessions/$n; echo $n > dump/$n; done";
    let tar = archive(folder.path(), many);
    let base = folder.path().join("base");
    fs::create_dir_all(&base).expect("a folder");
    sh(
        &base,
        &format!("{OLD}{OTHER} rm to/dump.sql; mkdir to/dump; for n in $(seq 300); do echo x > to/dump/x$n; done"),
    );
    let (to, old_copy) = (base.join("to"), folder.path().join("old"));
    sh(&base, "cp -a to ../old");
    let old = tree(&to);
    restore(&to, STATE, &tar, IfPresent::Replace).expect("restored");
    let new = tree(&to);
    let (mut is_old, mut is_new, mut finished) = (0, 0, 0);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(std::process::id());
    // How long one takes here: the kills lie within that time.
    let mut longest = Duration::ZERO;
    for kill in 0..kills {
        fs::remove_dir_all(&to).expect("removed");
        run(Command::new("cp").arg("-a").arg(&old_copy).arg(&to));
        let mut child = start(&job("replace", &to, &tar));
        child.go();
        let started = Instant::now();
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let limit = longest.as_micros() as u64;
        // Not to wait for something, but for a moment without meaning.
        if kill == 0 {
            // The first one tells how long it takes.
            child.stdout.by_ref().map_while(Result::ok).any(|line| line.contains("restored"));
            longest = started.elapsed();
        } else {
            std::thread::sleep(Duration::from_micros(random % limit.max(1)));
        }
        if kill > 0 {
            child.child.kill().expect("killed");
        }
        let (said, status) = child.end();
        if kill == 0 {
            assert!(status.success(), "{said}");
        }
        let recovered = recover(&to, STATE).expect("recovered");
        finished += u32::from(recovered.is_some_and(|did| did.contains("finished")));
        let found = tree(&to);
        match () {
            () if found == old => is_old += 1,
            () if found == new => is_new += 1,
            () => panic!("kill {kill}: neither: {found:#?}"),
        }
        assert_eq!(left(&base), Vec::<PathBuf>::new(), "kill {kill}");
    }
    eprintln!("{kills} kills: old {is_old}, new {is_new}, of which finished by recover {finished}");
    assert!(is_old > 0 && is_new > 0);
}

// ---------------------------------------------------------------------------------------------------------------------
// Archives, made by hand.

struct Maker(Vec<u8>);

impl Maker {
    fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds an entry with any type, names as they are.
    fn add(mut self, kind: u8, name: &str, link: &str, data: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_mode(if kind == b'5' { 0o755 } else { 0o644 });
        header.set_uid(u64::from(rustix::process::getuid().as_raw()));
        header.set_gid(u64::from(rustix::process::getgid().as_raw()));
        header.set_mtime(1_750_000_000);
        header.set_size(data.len() as u64);
        let old = header.as_old_mut();
        let long = |field: &mut [u8], text: &str| field[..text.len()].copy_from_slice(text.as_bytes());
        long(&mut old.name, name);
        long(&mut old.linkname, link);
        self.put(header, data);
        self
    }

    fn put(&mut self, mut header: tar::Header, data: &[u8]) {
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    fn change(mut self, kind: u8, name: &str, change: impl FnOnce(&mut tar::Header)) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_path(name).expect("a name");
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        change(&mut header);
        self.put(header, &[]);
        self
    }

    fn file(self, name: &str) -> Self {
        self.add(b'0', name, "", b"content")
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn pax(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len() + 1;
    while format!("{length}{rest}").len() != length {
        length = format!("{length}{rest}").len();
    }
    format!("{length}{rest}").into_bytes()
}

/// Unpacks and puts in place in an empty folder beside a file that must not change.
fn try_archive(archive: &[u8], limits: &Limits) -> Result<Tree, Refused> {
    let folder = a_folder();
    let outside = folder.path().join("outside");
    fs::write(&outside, "untouched").expect("written");
    let to = folder.path().join("to");
    fs::create_dir(&to).expect("a folder");
    let flow = Flow::default();
    let mut staging = Staging::begin(&to, STATE, &flow).expect("begun");
    let unpacked = staging.unpack(&mut &archive[..], limits, &flow);
    let result = match unpacked {
        Ok(_) => {
            staging.commit(IfPresent::Replace, &flow).expect("in place");
            Ok(tree(&to))
        }
        Err(refused) => {
            drop(staging);
            assert_eq!(fs::read_dir(&to).expect("a folder").count(), 0, "the target is as it was");
            Err(refused)
        }
    };
    let there: Vec<_> =
        fs::read_dir(folder.path()).expect("a folder").map(|entry| entry.expect("one").file_name()).collect();
    assert_eq!(there.len(), 2, "{there:?}");
    assert_eq!(fs::read(&outside).expect("there"), b"untouched");
    result
}

#[test]
fn hostile_archives_are_refused() {
    let new = Maker::new;
    let long_name = "n".repeat(2 << 20);
    let deep = "d/".repeat(201);
    let too_deep = format!("{deep}: it lies deeper than 200 folders");
    let beyond = Limits { bytes: 1000, files: 5 };
    let table: Vec<(&str, Vec<u8>, What, &str)> = vec![
        ("absolute", new().file("/etc/passwd").end(), What::Forbidden, "/etc/passwd: its name is absolute"),
        ("up", new().file("a/../../outside").end(), What::Forbidden, "a/../../outside: its name has `..` in it"),
        ("empty", new().add(b'0', "", "", b"").end(), What::Forbidden, "its name is empty"),
        (
            "top",
            new().add(b'2', "./", "a", b"").end(),
            What::Forbidden,
            "./: it would stand for the target itself, but is no folder",
        ),
        (
            "ours",
            new().file(".boathook-restore-x/a").end(),
            What::Forbidden,
            ".boathook-restore-x/a: its name is kept for staging places",
        ),
        (
            "absolute link",
            new().add(b'2', "l", "/etc", b"").end(),
            What::Forbidden,
            "l: it is a link to /etc: its target is absolute",
        ),
        (
            "link up",
            new().add(b'2', "a/l", "../../outside", b"").end(),
            What::Forbidden,
            "a/l: it is a link to ../../outside: its target lies outside of the snapshot",
        ),
        (
            "link through a link",
            new()
                .add(b'5', "a/b/c", "", b"")
                .add(b'2', "a/b/c/up", "../../..", b"")
                .add(b'2', "x", "a/b/c/up/..", b"")
                .end(),
            What::Forbidden,
            "x: it is a link to a/b/c/up/..: it goes up again after a/b/c/up, which is no folder of the snapshot",
        ),
        (
            "through a link",
            new().add(b'5', "d", "", b"").add(b'2', "l", "d", b"").file("l/x").end(),
            What::Forbidden,
            "l/x: l above it is a folder, and elsewhere in the archive it is none",
        ),
        (
            "a link moved by a hard link",
            new().add(b'2', "a/b/l", "../../x", b"").add(b'1', "l", "a/b/l", b"").end(),
            What::Forbidden,
            "l: it is a link to ../../x: its target lies outside of the snapshot",
        ),
        (
            "hard link out",
            new().add(b'1', "h", "../outside", b"").end(),
            What::Forbidden,
            "h: it is a hard link to ../outside: the name has `..` in it",
        ),
        (
            "hard link to nothing",
            new().add(b'1', "h", "later", b"").file("later").end(),
            What::Forbidden,
            "h: it is a hard link to later, which was not unpacked before",
        ),
        (
            "hard link through a link",
            new().file("d/x").add(b'2', "l", "d", b"").add(b'1', "h", "l/x", b"").end(),
            What::Forbidden,
            "h: it is a hard link to l/x, which was not unpacked before",
        ),
        (
            "hard link to itself",
            new().file("h").add(b'1', "h", "h", b"").end(),
            What::Forbidden,
            "h: it is a hard link to itself",
        ),
        (
            "device",
            new().add(b'3', "null", "", b"").end(),
            What::Forbidden,
            "null: it is a character device, which is never restored",
        ),
        (
            "disk",
            new().add(b'4', "sda", "", b"").end(),
            What::Forbidden,
            "sda: it is a block device, which is never restored",
        ),
        (
            "unknown",
            new().add(b'Q', "q", "", b"").end(),
            What::Forbidden,
            "q: it is an entry of an unknown type, which is never restored",
        ),
        (
            "volume",
            new().add(b'V', "v", "", b"").end(),
            What::Forbidden,
            "v: it is the name of a volume, which is never restored",
        ),
        (
            "file, then folder",
            new().file("a").add(b'5', "a", "", b"").end(),
            What::Forbidden,
            "a: it is a folder, and elsewhere in the archive it is none",
        ),
        (
            "folder, then file",
            new().add(b'5', "a", "", b"").file("a").end(),
            What::Forbidden,
            "a: it is no folder, and elsewhere in the archive it is one",
        ),
        (
            "folder with content",
            new().add(b'5', "a", "", b"x").end(),
            What::Broken,
            "broken archive: what can have no content has some",
        ),
        (
            "deep",
            new().add(b'L', "././@LongLink", "", deep.as_bytes()).add(b'5', "x", "", b"").end(),
            What::Forbidden,
            &too_deep,
        ),
        (
            "a long name",
            new().add(b'L', "././@LongLink", "", long_name.as_bytes()).file("x").end(),
            What::Broken,
            "broken archive: more than 1 MiB of names and other extensions for one entry",
        ),
        (
            "a long name in parts",
            new().add(b'x', "p", "", &long_name.as_bytes()[..600 << 10]).file("x").end(),
            What::Broken,
            "broken archive: an extension without its length",
        ),
        (
            "a global name",
            new().add(b'g', "g", "", &pax("path", "x")).end(),
            What::Broken,
            "broken archive: a global extension that changes entries",
        ),
        (
            "too many",
            new().file("1").file("2").file("a/b/c/4").end(),
            What::TooMuch,
            "a/b/c/4: more than 5 files: raise max-files if it may be so many",
        ),
        (
            "too long",
            new().change(b'0', "f", |header| header.set_size(1 << 62)).end(),
            What::TooMuch,
            "f: more than 1000 bytes: raise max-bytes if it may be so many",
        ),
        (
            "sparse, too long",
            new()
                .change(b'S', "f", |header| {
                    let gnu = header.as_gnu_mut().expect("a GNU header");
                    gnu.set_real_size(u64::MAX);
                })
                .end(),
            What::TooMuch,
            "f: more than 1000 bytes: raise max-bytes if it may be so many",
        ),
        (
            "sparse, beyond its size",
            new()
                .change(b'S', "f", |header| {
                    let gnu = header.as_gnu_mut().expect("a GNU header");
                    gnu.set_real_size(10);
                    gnu.sparse[0].set_offset(u64::MAX - 1);
                    gnu.sparse[0].set_length(7);
                })
                .end(),
            What::Broken,
            "broken archive: the map of a sparse file does not fit the file",
        ),
        ("cut", new().file("a").end()[..516].to_vec(), What::Broken, "a: broken archive: it is cut off"),
        ("without its end", new().file("a").0, What::Broken, "broken archive: it is cut off"),
        ("nothing", Vec::new(), What::Broken, "broken archive: it is cut off"),
        (
            "with more behind it",
            [new().file("a").end(), b"more".to_vec()].concat(),
            What::Broken,
            "broken archive: something follows its end",
        ),
        ("a header", vec![7; 512], What::Broken, "broken archive: a header whose checksum is wrong"),
        (
            "extensions of nothing",
            new().add(b'L', "././@LongLink", "", b"x").end(),
            What::Broken,
            "broken archive: it ends within an entry",
        ),
        (
            "an owner beyond all",
            new().change(b'0', "f", |header| header.set_uid(u64::from(u32::MAX))).end(),
            What::Forbidden,
            "f: its owner is beyond all owners",
        ),
    ];
    for (case, archive, what, why) in table {
        let refused = match try_archive(&archive, &beyond) {
            Err(refused) => refused,
            Ok(tree) => panic!("{case}: unpacked: {tree:?}"),
        };
        assert_eq!((refused.what, refused.to_string().as_str()), (what, why), "{case}");
    }
}

#[test]
fn unusual_archives_are_unpacked() {
    let new = Maker::new;
    for (case, archive, files) in [
        ("nothing in it", new().end(), vec![]),
        ("its top", new().add(b'5', "./", "", b"").file("./a").end(), vec!["a"]),
        ("twice", new().file("a").add(b'0', "a", "", b"later").end(), vec!["a"]),
        ("a link, then a file", new().file("t").add(b'2', "a", "t", b"").file("a").end(), vec!["a", "t"]),
        ("an old folder", new().add(b'0', "d/", "", b"").end(), vec!["d"]),
        ("a link up and down", new().file("d/x").add(b'2', "d/l", "../d/./x", b"").end(), vec!["d", "d/l", "d/x"]),
        ("a link down and up", new().file("d/x").add(b'2', "l", "d/../d/x", b"").end(), vec!["d", "d/x", "l"]),
        ("a comment", new().add(b'g', "g", "", &pax("comment", "x")).file("a").end(), vec!["a"]),
        ("a line feed", new().add(b'x', "p", "", &pax("path", "a\nb")).file("a").end(), vec!["a\nb"]),
        ("padding", [new().file("a").end(), vec![0; 9000]].concat(), vec!["a"]),
    ] {
        let tree = try_archive(&archive, &LIMITS).unwrap_or_else(|refused| panic!("{case}: {refused}"));
        let names: Vec<&str> = tree.keys().filter_map(|path| path.to_str()).filter(|name| !name.is_empty()).collect();
        assert_eq!(names, files, "{case}");
    }
    let later = try_archive(&new().file("a").add(b'0', "a", "", b"later").end(), &LIMITS).expect("unpacked");
    assert!(later[Path::new("a")].contains("5 bytes"), "{later:?}");
}

#[test]
fn corrupted_archives_neither_crash_nor_reach_out() {
    let folder = a_folder();
    let tar = fs::read(archive(folder.path(), NEW)).expect("an archive");
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |limit: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % limit as u64).expect("small")
    };
    let mut refused = 0;
    for round in 0..600 {
        let mut bad = tar.clone();
        for _ in 0..=next(4) {
            let at = next(bad.len());
            bad[at] ^= 1 << next(8);
        }
        match next(4) {
            0 => bad.truncate(next(bad.len())),
            1 => {
                let (from, to) = (next(bad.len() / 512) * 512, next(bad.len() / 512) * 512);
                let block = bad[from..from + 512].to_vec();
                bad[to..to + 512].copy_from_slice(&block);
            }
            _ => {}
        }
        if round % 2 == 0 {
            // A right checksum lets the change through to what comes behind it.
            for block in bad.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
                let mut header = tar::Header::new_old();
                header.as_mut_bytes().copy_from_slice(block);
                header.set_cksum();
                block.copy_from_slice(header.as_bytes());
            }
        }
        refused += u32::from(try_archive(&bad, &LIMITS).is_err());
    }
    eprintln!("{refused} of 600 refused; the others differ in content, which the snapshot's own checksum tells");
    assert!(refused > 100);
}

// ---------------------------------------------------------------------------------------------------------------------
// What is kept, and what is said.

#[test]
fn a_restore_brings_back_what_tar_brings_back() {
    if !has("tar") {
        return not_run("a_restore_brings_back", "needs tar");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let script = "mkdir -p s/empty s/d s/ro; printf x > s/d/x; ln s/d/x s/hard; ln -s ../s/d/x s/l; \
        ln -s nowhere s/dangling; \
        mkfifo s/fifo; chmod 4755 s/d/x; chmod 2770 s/d; chmod 1777 s/empty; \
        truncate -s 3M s/sparse; printf data | dd of=s/sparse bs=1 seek=1500000 conv=notrunc 2>/dev/null; \
        truncate -s 1M s/hole; : > s/none; head -c 700000 /dev/urandom > s/big; \
        for n in $(seq 12); do \
            printf $n | dd of=s/many bs=1 seek=${n}00000 conv=notrunc 2>/dev/null; done; \
        l=$(printf 'n%.0s' $(seq 200)); mkdir -p s/$l/$l; printf long > s/$l/$l/$l; ln -s $l/$l/$l s/long; \
        printf odd > \"$(printf 's/\\377\\376 \\n\\t\\\\x')\"; chmod 0 s/none; chmod 555 s/ro; \
        [ $(id -u) != 0 ] || { chown 1234:5678 s/big; chown -h 99:98 s/l; chown 7:8 s/empty; chown 5:6 s/fifo; }; \
        find . -exec touch -h -d @1740000000.987654321 {} +; touch -h -d 1950-05-05T01:02:03.5Z s/big; echo top > top";
    let roots = folder.path().join("roots");
    fs::create_dir(&roots).expect("a folder");
    sh(&roots, script);
    for format in ["--format=pax", "--format=gnu", "--format=pax --sparse", "--format=gnu --sparse"] {
        sh(
            folder.path(),
            &format!(
                "tar {format} --numeric-owner -C roots -cf x.tar s top; rm -rf by-tar to; mkdir by-tar; \
            tar -xpf x.tar --numeric-owner -C by-tar"
            ),
        );
        let (by_tar, to) = (folder.path().join("by-tar"), folder.path().join("to"));
        let restored = restore(&to, STATE, &folder.path().join("x.tar"), IfPresent::Replace);
        assert_eq!(restored, Ok(Restored::AtOnce), "{format}");
        let (ours, theirs) = (tree(&to), tree(&by_tar));
        if is_root() {
            assert_eq!(ours, theirs, "{format}");
        }
        assert_eq!(ours.len(), tree(&roots).len(), "{format}");
        if format.contains("pax") && is_root() {
            assert_eq!(
                ours.iter().skip(1).collect::<Vec<_>>(),
                tree(&roots).iter().skip(1).collect::<Vec<_>>(),
                "{format}"
            );
        }
        if format.contains("sparse") {
            for name in ["sparse", "hole", "many"] {
                let blocks = |top: &Path| fs::metadata(top.join("s").join(name)).expect("there").blocks();
                // One more block is the list of the others, which what was not synced yet has none of.
                assert!(blocks(&to) <= blocks(&by_tar) + 16, "{format}: {name}: {} blocks", blocks(&to));
            }
        }
        sh(folder.path(), "chmod -R u+rwx to by-tar");
    }
    sh(folder.path(), "chmod -R u+rwx roots");
}

#[test]
fn what_is_there_is_kept_or_replaced_or_merged() {
    let folder = a_folder();
    let tar = archive(folder.path(), NEW);
    let to = folder.path().join("app/to");
    assert!(!is_present(&to).expect("looked"));
    fs::create_dir_all(&to).expect("a folder");
    for ignored in ["lost+found", ".boathook-restore-x"] {
        fs::create_dir(to.join(ignored)).expect("a folder");
        assert!(!is_present(&to).expect("looked"), "{ignored}");
        fs::remove_dir(to.join(ignored)).expect("removed");
    }
    fs::write(to.join("mine"), "mine").expect("written");
    assert!(is_present(&to).expect("looked"));
    let before = tree(&to);
    assert_eq!(restore(&to, STATE, &tar, IfPresent::Keep), Ok(Restored::Kept));
    assert_eq!(tree(&to), before);
    assert_eq!(restore(&to, STATE, &tar, IfPresent::Replace), Ok(Restored::InMoves(2)));
    assert_eq!(fs::read(to.join("mine")).expect("there"), b"mine");
    // What the application has added goes with a replace and stays with a merge.
    fs::write(to.join("sessions/added"), "added").expect("written");
    fs::write(to.join("sessions/a"), "changed").expect("written");
    assert_eq!(restore(&to, STATE, &tar, IfPresent::Merge), Ok(Restored::InMoves(2)));
    assert_eq!(fs::read(to.join("sessions/added")).expect("there"), b"added");
    assert_eq!(fs::read(to.join("sessions/a")).expect("there"), b"new\n");
    restore(&to, STATE, &tar, IfPresent::Replace).expect("replaced");
    assert!(!to.join("sessions/added").exists());
    // A folder on one side and a file on the other are no merge.
    fs::remove_file(to.join("dump.sql")).expect("removed");
    fs::create_dir(to.join("dump.sql")).expect("a folder");
    let before = tree(&to);
    let place = fs::canonicalize(&to).expect("there");
    let reason =
        format!("{}/dump.sql: it is a folder here and none in the snapshot: they cannot be merged", place.display());
    assert_eq!(restore(&to, STATE, &tar, IfPresent::Merge), Err(reason));
    assert_eq!(tree(&to), before);
    restore(&to, STATE, &tar, IfPresent::Replace).expect("replaced");
    assert!(to.join("dump.sql").is_file());
    assert_eq!(left(folder.path()), Vec::<PathBuf>::new());
}

#[test]
fn restores_side_by_side_leave_each_other_alone() {
    let folder = a_folder();
    let (one, two) = (
        archive(&folder.path().join("1"), NEW_ONE),
        archive(&folder.path().join("2"), "mkdir cache; echo c > cache/c"),
    );
    let to = folder.path().join("to");
    let flow = Flow::default();
    let first = Staging::begin(&to, "one", &flow).expect("begun");
    let reason = Staging::begin(&to, "one", &flow).expect_err("twice").to_string();
    assert!(reason.ends_with("another restore of this state is at work here"), "{reason}");
    assert!(recover(&to, "one").is_err());
    restore(&to, "two", &two, IfPresent::Replace).expect("the other state");
    drop(first);
    restore(&to, "one", &one, IfPresent::Replace).expect("free again");
    fs::remove_dir_all(&to).expect("removed");
    for _ in 0..30 {
        std::thread::scope(|scope| {
            scope.spawn(|| restore(&to, "one", &one, IfPresent::Replace).expect("restored"));
            scope.spawn(|| restore(&to, "two", &two, IfPresent::Replace).expect("restored"));
        });
        assert!(to.join("sessions/a").exists() && to.join("cache/c").exists());
        assert_eq!(left(folder.path()), Vec::<PathBuf>::new());
        fs::remove_dir_all(&to).expect("removed");
    }
}

#[test]
fn a_refused_snapshot_makes_room_for_the_next() {
    let folder = a_folder();
    let to = folder.path().join("to");
    let flow = Flow::default();
    let mut staging = Staging::begin(&to, STATE, &flow).expect("begun");
    let bad = Maker::new().file("only-here").add(b'3', "null", "", b"").end();
    staging.unpack(&mut &bad[..], &LIMITS, &flow).expect_err("refused");
    let good = Maker::new().file("a").end();
    let unpacked = staging.unpack(&mut &good[..], &LIMITS, &flow).expect("unpacked");
    assert_eq!((unpacked.files, unpacked.bytes, unpacked.roots), (1, 7, vec!["a".into()]));
    assert_eq!(staging.commit(IfPresent::Replace, &flow).expect("in place"), Restored::AtOnce);
    assert!(to.join("a").exists() && !to.join("only-here").exists());
    // Stopped: nothing changes.
    let (stopped, guard) = Flow::new();
    let mut staging = Staging::begin(&to, STATE, &stopped).expect("begun");
    drop(guard);
    let refused = staging.unpack(&mut &good[..], &LIMITS, &stopped).expect_err("given up");
    assert_eq!(refused.what, What::GivenUp);
    drop(staging);
    assert_eq!(left(folder.path()), Vec::<PathBuf>::new());
}

#[test]
fn without_space_or_permission_the_old_state_stands() {
    const NAME: &str = "without_space_or_permission_the_old_state_stands";
    if !is_root() || !in_namespace(NAME) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let base = fs::canonicalize(folder.path()).expect("there");
    let tar = archive(&base, "mkdir sessions; head -c 3000000 /dev/urandom > sessions/a");
    sh(&base, &format!("mkdir small; mount -t tmpfs -o size=1m tmpfs small; cd small; {OLD}"));
    let to = base.join("small/to");
    let before = tree(&to);
    let reason = restore(&to, STATE, &tar, IfPresent::Replace).expect_err("no space");
    assert_eq!(reason, format!("sessions/a: {}: unpacking: No space left on device (os error 28)", to.display()));
    assert_eq!(tree(&to), before);
    assert_eq!(left(&base), Vec::<PathBuf>::new());
    sh(&base, "mount -o remount,ro small");
    let reason = restore(&to, STATE, &tar, IfPresent::Replace).expect_err("read-only");
    let staging = to.join(".boathook-restore-sessions");
    assert_eq!(reason, format!("{}: making the staging place: Read-only file system (os error 30)", staging.display()));
    assert_eq!(tree(&to), before);
    sh(&base, "umount small; rmdir small");

    // Nobody may write to root's folder.
    sh(
        &base,
        &format!("{OLD} chmod 755 to . ; cp {} ./test; chmod 755 test; chmod 644 snapshot.tar", this().display()),
    );
    let to = base.join("to");
    let before = tree(&to);
    let as_nobody = |to: &Path| {
        let mut child = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(base.join("test"))
            .args(CHILD)
            .env(JOB, job("replace", to, &tar))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("setpriv");
        child.stdin.take().expect("a pipe").write_all(b"\n").expect("written");
        let mut said = String::new();
        child.stdout.take().expect("a pipe").read_to_string(&mut said).expect("read");
        (said, child.wait().expect("ended").success())
    };
    let (said, success) = as_nobody(&to);
    let staging = to.join(".boathook-restore-sessions");
    assert!(!success);
    assert!(
        said.contains(&format!(
            "failed: {}: making the staging place: Permission denied (os error 13)",
            staging.display()
        )),
        "{said}"
    );
    assert_eq!(tree(&to), before);
    // A folder of its own under root's: the usual case of a container that does not run as root.
    sh(&base, "rm -r to; mkdir to; chown 65534:65534 to");
    let (said, success) = as_nobody(&to);
    assert!(success && said.contains("restored: AtOnce"), "{said}");
    let made = fs::metadata(to.join("sessions/a")).expect("there");
    assert_eq!((made.uid(), made.len()), (65534, 3_000_000));
    assert_eq!(left(&base), Vec::<PathBuf>::new());
}
