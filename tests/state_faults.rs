//! State under faults, with the real binary: whatever is killed, full, forbidden or hung, what is listed in a store is
//! whole, a restore's target is the old tree or the new one, the next run works and leaves nothing aside, and the reason
//! names the place.

mod fault_support;
mod life_support;
mod support;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use fault_support::{
    can_trace,
    content::content,
    inject::{Fault, Hit, Where, at_each_call},
    mounts::{own_mounts, tmpfs},
    run as run_to_end,
};
use life_support::{Agent, LONG, Start, is_root};
use serde_json::Value;
use support::BOATHOOK;

/// Those tests that keep a processor busy take turns: some of them look at the clock.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> std::sync::MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A folder in memory where there is one: hundreds of saves and restores with all their syncs take minutes on a disk,
/// and who is killed by a signal does not notice the difference.
fn quick_folder() -> tempfile::TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix("boathook-faults-");
    builder.tempdir_in("/dev/shm").or_else(|_| builder.tempdir()).expect("a temporary folder")
}

/// Names, kinds, modes and contents below a folder; empty when there is none.
type Tree = BTreeMap<PathBuf, (u32, Vec<u8>)>;

fn tree(top: &Path) -> Tree {
    fn walk(top: &Path, at: &Path, found: &mut Tree) {
        for entry in fs::read_dir(at).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            let meta = fs::symlink_metadata(&path).expect("it is there");
            let content = if meta.is_file() { fs::read(&path).expect("read") } else { Vec::new() };
            let name = path.strip_prefix(top).expect("below").to_owned();
            found.insert(name, (meta.permissions().mode(), content));
            if meta.is_dir() {
                walk(top, &path, found);
            }
        }
    }
    let mut found = Tree::new();
    walk(top, top, &mut found);
    found
}

/// Files whose content is known from the seed: `count` of them, this many bytes each, in three folders.
fn fill(folder: &Path, seed: u64, count: u64, size: usize) {
    for index in 0..count {
        let below = folder.join(format!("part-{}", index % 3));
        fs::create_dir_all(&below).expect("made");
        // Every second one is easy to compress.
        let bytes = if index % 2 == 0 {
            content(seed * 1000 + index, size)
        } else {
            format!("{seed} {index};").repeat(size / 8).into_bytes()
        };
        let file = below.join(format!("file-{index}"));
        fs::write(&file, bytes).expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600 + (index as u32 % 4) * 0o10)).expect("set");
    }
}

/// Where anything unfinished of a save or a restore lies, anywhere below.
fn aside(top: &Path) -> Vec<PathBuf> {
    tree(top)
        .into_keys()
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.ends_with(".partial") || name.starts_with(".boathook") || name.contains("boathook-restore")
        })
        .collect()
}

fn save_line(from: &Path, store: &Path, compression: &str) -> Vec<OsString> {
    let mut line: Vec<OsString> =
        ["step", "save", "--name", "s", "--keep", "2", "--compression", compression, "--from"]
            .map(OsString::from)
            .into();
    line.insert(0, BOATHOOK.into());
    line.extend([from.into(), "--to".into(), store.into()]);
    line
}

fn restore_line(store: &Path, to: &Path) -> Vec<OsString> {
    let mut line: Vec<OsString> = [BOATHOOK, "step", "restore", "--name", "s", "--from"].map(OsString::from).into();
    line.extend([store.into(), "--to".into(), to.into()]);
    line
}

fn boathook(line: &[OsString]) -> Command {
    fault_support::command(line)
}

/// Runs it to its end, which must be a good one.
#[track_caller]
fn succeeds(line: &[OsString]) -> String {
    let ended = run_to_end(boathook(line));
    assert!(ended.status.success(), "{line:?}: {ended:?}");
    ended.stdout
}

/// What `state verify` finds: how many are good, or what it says when not all are, or when there are none.
fn verify(store: &Path) -> Result<usize, String> {
    let mut command = Command::new(BOATHOOK);
    command.args(["state", "verify"]).arg(store);
    let ended = run_to_end(command);
    let good = ended.stdout.lines().filter(|line| line.starts_with("good ")).count();
    if ended.status.success() && good > 0 && good == ended.stdout.lines().count() {
        Ok(good)
    } else {
        Err(format!("{ended:?}"))
    }
}

/// The names of the snapshots, oldest first.
fn snapshots(store: &Path) -> Vec<String> {
    let names = fs::read_dir(store).into_iter().flatten();
    let mut names: Vec<String> =
        names.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}

/// Moments that look random and are the same in every run (Marsaglia's xorshift64).
struct Moments(u64);

impl Moments {
    fn next(&mut self, below: Duration) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        below.mul_f64((self.0 >> 11) as f64 / (1_u64 << 53) as f64)
    }
}

/// Starts it, and kills it and what it started after so long. True when it was still at work.
fn killed_after(after: Duration, mut command: Command) -> bool {
    let null = || Stdio::null();
    let begun = Instant::now();
    let mut child = command.stdin(null()).stdout(null()).stderr(null()).process_group(0).spawn().expect("it starts");
    // Shorter than a sleep is exact.
    while begun.elapsed() + Duration::from_millis(1) < after {
        thread::sleep(Duration::from_micros(200));
    }
    while begun.elapsed() < after {
        std::hint::spin_loop();
    }
    // Not waited for yet, so the id is its own.
    let _ =
        rustix::process::kill_process_group(rustix::process::Pid::from_child(&child), rustix::process::Signal::KILL);
    let status: ExitStatus = child.wait().expect("a child");
    std::os::unix::process::ExitStatusExt::signal(&status) == Some(libc::SIGKILL)
}

/// How long it takes, from a few runs: the middle one.
fn time_of(rounds: usize, mut run: impl FnMut()) -> Duration {
    let times = (0..rounds).map(|_| {
        let begun = Instant::now();
        run();
        begun.elapsed()
    });
    let mut times: Vec<Duration> = times.collect();
    times.sort();
    times[rounds / 2]
}

/// Kills of each kind of command.
const KILLS: usize = 250;

#[test]
fn a_save_killed_at_250_moments_leaves_every_snapshot_whole() {
    let _turn = turn();
    let folder = quick_folder();
    let (from, store) = (folder.path().join("data"), folder.path().join("store"));
    let line = save_line(&from, &store, "lz4");
    fill(&from, 0, 60, 34_000);
    let whole = time_of(5, || drop(succeeds(&line)));
    let mut moments = Moments(0x5eed_0001);
    let (mut kills, mut finished, mut unfinished, mut extracted, mut saved) = (0, 0, 0, 0, 0);
    let mut round = 0;
    while kills < KILLS {
        round += 1;
        assert!(round < 4 * KILLS, "{kills} kills in {round} rounds of {whole:?}");
        let before = tree(&from);
        fill(&from, round as u64, 60, 34_000);
        let after = tree(&from);
        let newest_before = snapshots(&store).pop().expect("the first");
        if killed_after(moments.next(whole.mul_f64(1.05)), boathook(&line)) {
            kills += 1;
        } else {
            finished += 1;
        }
        let names = snapshots(&store);
        let newest = names.last().cloned().unwrap_or_default();
        let good = verify(&store).unwrap_or_else(|why| panic!("kill {kills}: {why}"));
        assert_eq!(good, names.len(), "{names:?}");
        assert!((2..=3).contains(&good) && newest >= newest_before, "never fewer than were kept: {names:?}");
        unfinished += usize::from(!aside(&store).is_empty());
        saved += usize::from(newest > newest_before);
        // What is in the newest one is the content of one moment, and the right one's.
        if kills % 10 == 0 {
            let into = folder.path().join("look");
            let _ = fs::remove_dir_all(&into);
            let extract = [BOATHOOK, "state", "extract"].map(OsString::from).into_iter();
            let extract: Vec<OsString> =
                extract.chain([store.clone().into(), "--into".into(), into.clone().into()]).collect();
            succeeds(&extract);
            let want = if newest > newest_before { &after } else { &before };
            assert!(tree(&into.join("data")) == *want, "{newest} is not what was saved");
            extracted += 1;
        }
        // The next life: it saves, it keeps two, and nothing lies aside.
        succeeds(&line);
        let names = snapshots(&store);
        assert_eq!((names.len(), aside(&store).len()), (2, 0), "{names:?}");
        assert!(names.last() > Some(&newest), "{names:?} after {newest}");
    }
    println!(
        "save: {kills} kills within {whole:?} ({finished} runs were faster): {unfinished} left an unfinished file, \
         {saved} had saved, {extracted} were unpacked and compared"
    );
    assert!(unfinished > KILLS / 10, "the moments are those of the work");
}

#[test]
fn a_restore_killed_at_250_moments_leaves_the_old_tree_or_the_new() {
    let _turn = turn();
    let folder = quick_folder();
    // Beside something else in the target, so that one entry is exchanged; and with two roots, the whole target.
    let (mut kills, mut finished, mut left, mut old, mut new) = (0, 0, 0, 0, 0);
    for (shape, roots, own) in [("beside", &["data"][..], true), ("whole", &["data", "more"][..], false)] {
        let base = folder.path().join(shape);
        let mut sides = Vec::new();
        for seed in [1, 2] {
            let (source, store) = (base.join(format!("source-{seed}")), base.join(format!("store-{seed}")));
            let mut line: Vec<OsString> =
                [BOATHOOK, "step", "save", "--name", "s", "--compression", "lz4", "--to"].map(OsString::from).into();
            line.push(store.clone().into());
            for root in roots {
                fill(&source.join(root), seed, 60 / roots.len() as u64, 34_000);
                line.extend(["--from".into(), source.join(root).into()]);
            }
            succeeds(&line);
            if own {
                fs::write(source.join("own"), "is left alone").expect("written");
            }
            sides.push((store, tree(&source)));
        }
        let to = base.join("app/state");
        fs::create_dir_all(&to).expect("made");
        if own {
            fs::write(to.join("own"), "is left alone").expect("written");
        }
        let whole = time_of(6, || {
            sides.swap(0, 1);
            succeeds(&restore_line(&sides[1].0, &to));
        });
        let mut moments = Moments(0x5eed_0002);
        let (goal, mut round) = (kills + KILLS / 2, 0);
        while kills < goal {
            round += 1;
            assert!(round < 4 * KILLS, "{kills} kills in {round} rounds of {whole:?}");
            sides.swap(0, 1);
            let [(_, was), (store, becomes)] = &sides[..] else { panic!("two") };
            let line = restore_line(store, &to);
            if killed_after(moments.next(whole.mul_f64(1.05)), boathook(&line)) {
                kills += 1;
            } else {
                finished += 1;
            }
            let found = tree(&to);
            // In a mounted volume it would lie inside of the target; here it lies beside.
            old += usize::from(found == *was);
            new += usize::from(found == *becomes);
            assert!(found == *was || found == *becomes, "{shape}, kill {kills}: neither: {:?}", found.keys());
            left += usize::from(!aside(&base).is_empty());
            succeeds(&line);
            assert!(tree(&to) == *becomes, "{shape}: the next restore");
            assert_eq!(aside(&base), Vec::<PathBuf>::new(), "{shape}, after kill {kills}");
            if kills % 25 == 0 {
                assert_eq!(verify(store), Ok(1));
            }
        }
        println!("restore {shape}: one takes {whole:?}");
    }
    println!(
        "restore: {kills} kills ({finished} runs were faster): {old} times old, {new} times new, {left} left something aside"
    );
    assert!(old > KILLS / 10 && left > KILLS / 10, "the moments are those of the work");
}

#[test]
fn an_archive_that_is_written_in_place_is_found_torn() {
    let _turn = turn();
    let folder = quick_folder();
    let (from, store) = (folder.path().join("data"), folder.path().join("store"));
    fs::create_dir_all(&store).expect("made");
    fill(&from, 0, 60, 34_000);
    // The name alone is right.
    let script = "cd \"$1\" && tar -cf - data | gzip -1 > store/s.0000000001.20260101T000000Z.tar.gz";
    let naive = || {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(folder.path());
        command
    };
    let whole = time_of(3, || assert!(run_to_end(naive()).status.success(), "tar and gzip"));
    let mut moments = Moments(0x5eed_0003);
    let mut torn = 0;
    for _ in 0..10 {
        let _ = fs::remove_dir_all(&store);
        fs::create_dir_all(&store).expect("made");
        killed_after(moments.next(whole), naive());
        torn += usize::from(!snapshots(&store).is_empty() && verify(&store).is_err());
    }
    assert!(torn > 2, "{torn} of 10");
}

// ---- at each system call ----

/// Those with which a save makes, fills, commits and prunes.
const SAVES: [&str; 9] = ["openat", "write", "flock", "fsync", "renameat2", "renameat", "linkat", "unlink", "unlinkat"];

/// A store with two snapshots, and a folder that is otherwise by now.
fn to_be_saved(compression: &str) -> (tempfile::TempDir, Vec<OsString>) {
    let folder = quick_folder();
    let (from, store) = (folder.path().join("data"), folder.path().join("store"));
    let line = save_line(&from, &store, compression);
    for seed in 0..2 {
        fill(&from, seed, 3, 5000);
        succeeds(&line);
    }
    fill(&from, 2, 3, 5000);
    (folder, line)
}

#[test]
fn a_save_with_a_fault_at_each_system_call_leaves_every_snapshot_whole() {
    if !can_trace() {
        return;
    }
    let _turn = turn();
    let mut hits = saved_with_faults(&SAVES, Fault::Kill);
    // Not `write`: the runtime and the log use it as well. How a full disk ends, other tests tell.
    let calls: Vec<&str> = SAVES.into_iter().filter(|call| *call != "write").collect();
    hits.append(&mut saved_with_faults(&calls, Fault::Error("EIO")));
    for call in ["openat", "write", "fsync"] {
        assert!(hits.get(call).is_some_and(|count| *count >= 2), "{call}: {hits:?}");
    }
    assert!(
        hits.keys().any(|call| call.starts_with("rename")) && hits.keys().any(|call| call.starts_with("unlink")),
        "{hits:?}"
    );
}

fn saved_with_faults(calls: &[&str], fault: Fault) -> BTreeMap<String, usize> {
    let mut table = BTreeMap::new();
    let hits = at_each_call(
        Where { calls, after: "/store", always: &[] },
        &[fault],
        &mut || to_be_saved("lz4"),
        &mut |folder, hit: Hit| {
            let (store, from) = (folder.path().join("store"), folder.path().join("data"));
            let names = snapshots(&store);
            let good = verify(&store).unwrap_or_else(|why| panic!("{hit}: {why}"));
            assert!(good == names.len() && (2..=3).contains(&good), "{hit}: {names:?}");
            let newest = names.last().cloned().unwrap_or_default();
            let is_saved = newest.contains(".0000000003.");
            if hit.fault != Fault::Kill {
                let is_said = hit.ended.status.success();
                // The sync of the folder is the one call after which it is there and yet not safe.
                assert!(is_said == is_saved || (is_saved && hit.call == "fsync"), "{hit}: {names:?}");
                assert!(
                    is_said
                        || hit.ended.stderr.contains(&*store.to_string_lossy())
                        || hit.ended.stderr.contains(&*from.to_string_lossy()),
                    "the reason names the place: {hit}"
                );
                let left = aside(&store);
                assert!(left.is_empty() || hit.call.starts_with("unlink"), "{hit}: {left:?}");
            }
            *table.entry((format!("{:?}", hit.fault), is_saved)).or_insert(0) += 1;
            succeeds(&save_line(&from, &store, "lz4"));
            assert_eq!((snapshots(&store).len(), aside(&store).len()), (2, 0), "{hit}: the next life");
            assert_eq!(verify(&store), Ok(2), "{hit}: the next life");
        },
    );
    println!("save: hit {hits:?}; (fault, it was saved): {table:?}");
    hits
}

/// Those with which a restore makes, fills, commits and clears.
const RESTORES: [&str; 16] = [
    "mkdirat",
    "openat",
    "write",
    "flock",
    "fchown",
    "fchownat",
    "fchmod",
    "utimensat",
    "symlinkat",
    "fsync",
    "syncfs",
    "renameat2",
    "renameat",
    "unlinkat",
    "unlink",
    "rmdir",
];

/// A target with an old tree, and a snapshot of a new one.
struct ToRestore {
    folder: tempfile::TempDir,
    old: Tree,
    new: Tree,
}

fn to_be_restored(files: u64) -> (ToRestore, Vec<OsString>) {
    let folder = quick_folder();
    let (from, store, to) = (folder.path().join("new/data"), folder.path().join("store"), folder.path().join("app"));
    fill(&from, 2, files, 3000);
    succeeds(&save_line(&from, &store, "lz4"));
    fill(&to.join("data"), 1, files.min(3), 2000);
    fs::write(to.join("data/gone"), "in the new one").expect("written");
    for top in [&to, &folder.path().join("new")] {
        fs::write(top.join("own"), "is left alone").expect("written");
    }
    let (old, new) = (tree(&to), tree(&folder.path().join("new")));
    let line = restore_line(&store, &to);
    (ToRestore { folder, old, new }, line)
}

fn restored_with_faults(files: u64, calls: &[&str], faults: &[Fault]) -> BTreeMap<String, usize> {
    let mut table = BTreeMap::new();
    let hits = at_each_call(
        Where { calls, after: "boathook-restore", always: &[] },
        faults,
        &mut || to_be_restored(files),
        &mut |place, hit: Hit| {
            let (store, to) = (place.folder.path().join("store"), place.folder.path().join("app"));
            let found = tree(&to);
            let is_new = found == place.new;
            assert!(is_new || found == place.old, "{hit}: neither: {:?}", found.keys());
            if hit.fault != Fault::Kill {
                let is_said = hit.ended.status.success();
                assert!(!is_said || is_new, "{hit}: it says that it is restored");
                assert!(
                    is_said || hit.ended.stderr.contains(&*place.folder.path().to_string_lossy()),
                    "the reason names the place: {hit}"
                );
            }
            *table.entry((format!("{:?}", hit.fault), is_new, hit.ended.status.success())).or_insert(0) += 1;
            assert_eq!(verify(&store), Ok(1), "{hit}");
            succeeds(&restore_line(&store, &to));
            assert!(tree(&to) == place.new, "{hit}: the next life");
            assert_eq!(aside(place.folder.path()), Vec::<PathBuf>::new(), "{hit}: the next life");
        },
    );
    println!("restore of {files} files: hit {hits:?}; (fault, it is new, it says so): {table:?}");
    hits
}

#[test]
fn a_restore_with_a_fault_at_each_system_call_leaves_the_old_tree_or_the_new() {
    if !can_trace() {
        return;
    }
    let _turn = turn();
    let mut hits = restored_with_faults(2, &RESTORES, &[Fault::Kill]);
    let calls: Vec<&str> = RESTORES.into_iter().filter(|call| *call != "write").collect();
    hits.append(&mut restored_with_faults(2, &calls, &[Fault::Error("EIO")]));
    for call in ["mkdirat", "openat", "fchmod", "utimensat", "fsync", "renameat2", "unlinkat"] {
        assert!(hits.contains_key(call), "{call}: {hits:?}");
    }
    // More files than are synced one by one.
    let hits = restored_with_faults(70, &["syncfs", "renameat2"], &[Fault::Kill, Fault::Error("EIO")]);
    assert!(hits.get("syncfs").is_some_and(|count| *count >= 2), "{hits:?}");
}

// ---- in time, whatever hangs ----

/// The step's timeout in these cases.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The promise of every hook.
const OVERRUN: Duration = Duration::from_millis(100);

/// What a server does to those who connect.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    SaysNothing,
    /// A head, half of the body, and then nothing.
    Stalls,
    NeverEnds,
    Resets,
    Unavailable,
    Garbage,
}

/// A server of that manner on a port of its own, for as long as the tests run.
fn server(manner: Manner) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || behave(stream, manner));
        }
    });
    port
}

fn behave(mut stream: TcpStream, manner: Manner) {
    let _ = stream.set_read_timeout(Some(LONG));
    let _ = stream.set_write_timeout(Some(LONG));
    let mut buffer = [0; 65536];
    let mut swallow = |stream: &mut TcpStream| while stream.read(&mut buffer).is_ok_and(|count| count > 0) {};
    if manner == Manner::SaysNothing {
        return swallow(&mut stream);
    }
    // An answer before its question is another fault.
    let _ = stream.read(&mut [0; 4096]);
    match manner {
        Manner::Stalls => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\nthe first part");
            swallow(&mut stream);
        }
        Manner::NeverEnds => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            while stream.write_all(&[b'x'; 65536]).is_ok() {}
        }
        Manner::Resets => {
            let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
        }
        Manner::Unavailable => {
            let _ = stream.write_all(
                b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 9\r\n\r\nnot today",
            );
            let _ = stream.shutdown(std::net::Shutdown::Write);
            swallow(&mut stream);
        }
        Manner::Garbage => {
            let _ = stream.write_all(b"\x16\x03\x01 this is \0 no HTTP\r\n\r\n<html>");
            swallow(&mut stream);
        }
        Manner::SaysNothing => {}
    }
}

/// A step that meets one fault.
struct Case {
    name: &'static str,
    /// `from` and `to`, as TOML.
    step: String,
    outcome: &'static str,
    /// All of it is in the reason; `@FOLDER@` is the agent's own folder.
    reason: &'static [&'static str],
    hung: bool,
}

fn case(name: &'static str, outcome: &'static str, reason: &'static [&'static str], step: impl Into<String>) -> Case {
    let step = step.into();
    Case { name, outcome, reason, hung: step.contains("/hung"), step }
}

/// A file system whose server never answers: FUSE without one. The shell's stdin is its descriptor.
const MOUNT_HUNG: &str = "mkdir @FOLDER@/hung\n\
    mount -i -t fuse -o fd=0,rootmode=40000,user_id=0,group_id=0 hung @FOLDER@/hung\n";

/// Starts the agent with one such step; the mount lives as long as the file. There is a folder to save, a snapshot of it, and a target with something older.
fn start(case: &Case, hook: &str, kind: &str) -> Option<(Agent, Option<File>)> {
    let fuse = match case.hung {
        true => Some(File::options().read(true).write(true).open("/dev/fuse").ok()?),
        false => None,
    };
    let script = format!(
        "mkdir -p @FOLDER@/data @FOLDER@/app/data; echo new > @FOLDER@/data/x; echo old > @FOLDER@/app/data/x\n\
         {BOATHOOK} step save --name s --from @FOLDER@/data --to @FOLDER@/store </dev/null 2>/dev/null\n{}",
        if case.hung { MOUNT_HUNG } else { "" }
    );
    let config = format!(
        "grace-period = '30s'\n[server]\nlisten = '127.0.0.1:0'\n[log]\ntermination-message = '@FOLDER@/none'\n\
         [[{hook}.step]]\nname = 's'\non-failure = 'continue'\ntimeout = '1s'\n{kind} = {{ {} }}\n",
        case.step
    );
    let keys = ["env", "AWS_ACCESS_KEY_ID=key", "AWS_SECRET_ACCESS_KEY=secret", "AWS_EC2_METADATA_DISABLED=true"];
    let kept = fuse.as_ref().map(|file| file.try_clone().expect("a descriptor"));
    Some((Start::new(&config).mounts(&script, fuse).prefix(&keys).start(), kept))
}

/// What the hook's only step came to: how long the hook took, the outcome and the reason.
fn told(report: &Value) -> (Duration, String, String) {
    let text = |key: &str| report["steps"][0][key].as_str().unwrap_or_default().to_owned();
    let took = Duration::try_from_secs_f64(report["took"].as_f64().unwrap_or(f64::MAX)).unwrap_or(LONG);
    (took, text("outcome"), text("reason"))
}

/// Holds what happened against the promise.
fn judge(case: &Case, agent: &Agent, begun: Instant, took: Duration, report: &Value) -> (String, Vec<String>) {
    let late = life_support::noise().between(begun, Instant::now());
    let (hook, outcome, reason) = told(report);
    let mut wrong = Vec::new();
    if took.max(hook) > TIMEOUT + OVERRUN + late {
        wrong.push(format!("took {took:?}, {hook:?} by its report, the machine was {late:?} late"));
    }
    let folder = agent.folder().display().to_string();
    if outcome != case.outcome {
        wrong.push(format!("{outcome}: {reason}"));
    }
    for part in case.reason {
        if !reason.contains(&part.replace("@FOLDER@", &folder)) {
            wrong.push(format!("the reason does not tell {part:?}: {reason}"));
        }
    }
    if verify(&agent.file("store")) != Ok(1) {
        wrong.push(format!("the snapshot from before: {:?}", verify(&agent.file("store"))));
    }
    let old = Tree::from([("data".into(), (0o40755, Vec::new())), ("data/x".into(), (0o100_644, b"old\n".to_vec()))]);
    if tree(&agent.file("app")) != old {
        wrong.push(format!("the target: {:?}", tree(&agent.file("app"))));
    }
    if !case.hung {
        let left = || (agent.leftovers(), aside(agent.folder()));
        let is_clean = || (left() == (Vec::new(), Vec::new())).then_some(());
        if life_support::poll(Duration::from_millis(500), is_clean).is_none() {
            wrong.push(format!("left: {:?}", left()));
        }
    }
    let line = format!(
        "{:40} {:>7.1} ms, {:.1} late  {outcome}: {}",
        case.name,
        took.as_secs_f64() * 1e3,
        late.as_secs_f64() * 1e3,
        reason.replace(&folder, "@")
    );
    (line, wrong)
}

/// Tries them all, four at a time, as they mostly wait.
fn try_all(cases: &[Case], attempt: impl Fn(&Case) -> Option<(String, Vec<String>)> + Sync) {
    let _ = life_support::noise();
    let queue = Mutex::new(cases.iter());
    let results = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(case) = next else { return };
                    match attempt(case) {
                        Some(result) => {
                            results.lock().unwrap_or_else(PoisonError::into_inner).push((case.name, result));
                        }
                        None => life_support::not_run(case.name, "there is no FUSE here"),
                    }
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut failures = String::new();
    for (name, (line, wrong)) in &results {
        println!("{line}");
        for wrong in wrong {
            failures.push_str(&format!("{name}: {wrong}\n"));
        }
    }
    assert!(failures.is_empty(), "{failures}");
    assert!(results.len() * 2 > cases.len(), "most of them");
}

const CUT: &str = "timed-out";

#[test]
fn a_save_ends_in_time_whatever_hangs_and_says_where() {
    if !is_root() {
        return life_support::not_run("saves that hang", "mounts need root");
    }
    let _turn = turn();
    let data = "from = '@FOLDER@/data'";
    let store = "to = '@FOLDER@/store'";
    let shell = |script: &str| format!("from = {{ exec = ['sh', '-c', '''{script}'''], file = 'dump' }}, {store}");
    let http =
        |manner| format!("from = {{ http = 'http://127.0.0.1:{}/dump', file = 'dump' }}, {store}", server(manner));
    let put = |manner| format!("{data}, to = 'http://127.0.0.1:{}/put'", server(manner));
    let s3 = |manner| {
        format!(
            "{data}, to = 's3://bucket/prefix', endpoint = 'http://127.0.0.1:{}', region = 'x', path-style = true",
            server(manner)
        )
    };
    let cases = [
        case(
            "the source's file system hangs",
            CUT,
            &["@FOLDER@/hung"],
            format!("from = '@FOLDER@/hung/data', {store}"),
        ),
        case("the store's file system hangs", CUT, &["@FOLDER@/hung"], format!("{data}, to = '@FOLDER@/hung/store'")),
        case("a command hangs", CUT, &["sh"], shell("echo half; sleep 1000")),
        case("a command ignores TERM", CUT, &["sh"], shell("trap \"\" TERM; while :; do sleep 1; done")),
        case("a command says much and hangs", CUT, &["sh"], shell("head -c 3000000 /dev/urandom; sleep 1000 & wait")),
        case("an answer says nothing", CUT, &["127.0.0.1:"], http(Manner::SaysNothing)),
        case("an answer stalls", CUT, &["127.0.0.1:"], http(Manner::Stalls)),
        case("an answer never ends", CUT, &["127.0.0.1:"], http(Manner::NeverEnds)),
        case("an answer is reset", "failed", &["127.0.0.1:"], http(Manner::Resets)),
        case("an answer is 503", "failed", &["127.0.0.1:", "503"], http(Manner::Unavailable)),
        case("an answer is garbage", "failed", &["127.0.0.1:"], http(Manner::Garbage)),
        case("a PUT that nobody answers", CUT, &["127.0.0.1:"], put(Manner::SaysNothing)),
        case("a PUT that is reset", CUT, &["127.0.0.1:"], put(Manner::Resets)),
        case("a PUT that is 503", CUT, &["127.0.0.1:", "503"], put(Manner::Unavailable)),
        case("a PUT that gets garbage", CUT, &["127.0.0.1:"], put(Manner::Garbage)),
        case("S3 that never answers", CUT, &["s3://bucket/prefix"], s3(Manner::SaysNothing)),
        case("S3 that stalls", CUT, &["s3://bucket/prefix"], s3(Manner::Stalls)),
        case("S3 that resets", CUT, &["s3://bucket/prefix"], s3(Manner::Resets)),
        case("S3 that is 503", CUT, &["s3://bucket/prefix", "503"], s3(Manner::Unavailable)),
        case("S3 that speaks garbage", CUT, &["s3://bucket/prefix"], s3(Manner::Garbage)),
    ];
    try_all(&cases, |case| {
        let (agent, _mount) = start(case, "pre-stop", "save")?;
        let begun = Instant::now();
        let answer = life_support::call(agent.address(), "/shutdown", "").expect("an answer");
        Some(judge(case, &agent, begun, answer.took, &answer.report()))
    });
}

#[test]
fn a_restore_ends_in_time_whatever_hangs_and_says_where() {
    if !is_root() {
        return life_support::not_run("restores that hang", "mounts need root");
    }
    let _turn = turn();
    let app = "to = '@FOLDER@/app'";
    let get = |manner| format!("from = 'http://127.0.0.1:{}/get', {app}", server(manner));
    let s3 = |manner| {
        format!(
            "from = 's3://bucket/prefix', endpoint = 'http://127.0.0.1:{}', region = 'x', path-style = true, {app}",
            server(manner)
        )
    };
    let cases = [
        case("the store's file system hangs", CUT, &["@FOLDER@/hung"], format!("from = '@FOLDER@/hung/store', {app}")),
        case(
            "the target's file system hangs",
            CUT,
            &["@FOLDER@/hung"],
            "from = '@FOLDER@/store', to = '@FOLDER@/hung/app'",
        ),
        case("a GET that nobody answers", CUT, &["127.0.0.1:"], get(Manner::SaysNothing)),
        case("a GET that stalls", CUT, &["127.0.0.1:"], get(Manner::Stalls)),
        case("a GET that never ends", CUT, &["127.0.0.1:"], get(Manner::NeverEnds)),
        case("a GET that is reset", CUT, &["127.0.0.1:"], get(Manner::Resets)),
        case("a GET that is 503", CUT, &["127.0.0.1:", "503"], get(Manner::Unavailable)),
        case("a GET that gets garbage", CUT, &["127.0.0.1:"], get(Manner::Garbage)),
        case("S3 that never answers", CUT, &["s3://bucket/prefix"], s3(Manner::SaysNothing)),
        case("S3 that stalls", CUT, &["s3://bucket/prefix"], s3(Manner::Stalls)),
        case("S3 that never ends", "failed", &["s3://bucket/prefix"], s3(Manner::NeverEnds)),
        case("S3 that resets", CUT, &["s3://bucket/prefix"], s3(Manner::Resets)),
        case("S3 that is 503", CUT, &["s3://bucket/prefix", "503"], s3(Manner::Unavailable)),
        case("S3 that speaks garbage", CUT, &["s3://bucket/prefix"], s3(Manner::Garbage)),
    ];
    try_all(&cases, |case| {
        let begun = Instant::now();
        let (agent, _mount) = start(case, "pre-start", "restore")?;
        let mut command = Command::new(BOATHOOK);
        command.args(["report", "--json"]).env("BOATHOOK_SOCKET", &agent.socket);
        let said = run_to_end(command).stdout;
        let reports: Value = serde_json::from_str(&said).expect("JSON");
        let report = reports.as_array()?.iter().find(|report| report["hook"] == "pre-start")?.clone();
        let took = told(&report).0;
        Some(judge(case, &agent, begun, took, &report))
    });
}

// ---- full, read-only, forbidden, gone ----

/// Runs it as it is told; the exit code, and the last line of stderr with the folder as `@`.
fn said(folder: &Path, command: Command) -> (Option<i32>, String) {
    let ended = run_to_end(command);
    let last = ended.stderr.lines().last().unwrap_or_default().replace(&folder.display().to_string(), "@");
    (ended.status.code(), last)
}

fn as_nobody(line: &[OsString]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).args(line);
    command
}

#[test]
fn a_full_or_forbidden_place_is_named_and_what_was_there_stays() {
    if !own_mounts("a_full_or_forbidden_place_is_named_and_what_was_there_stays") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let top = folder.path();
    fs::set_permissions(top, fs::Permissions::from_mode(0o755)).expect("set");
    let (small, big, store, app) = (top.join("small"), top.join("big"), top.join("v/store"), top.join("v/app"));
    // Nobody could read it otherwise.
    let open_up = |path: &Path| drop(run_to_end(sh(top, &format!("chmod -R a+rX {}", path.display()))));
    fill(&small, 1, 3, 3000);
    fill(&big, 2, 40, 100_000);
    open_up(&small);
    open_up(&big);
    let wait = |line: &[OsString]| said(top, boathook(line));

    // A full store, beside a snapshot.
    let mounted = tmpfs(&top.join("v"), "600k");
    succeeds(&save_line(&small, &store, "none"));
    let full = wait(&save_line(&big, &store, "none"));
    assert_eq!(full.0, Some(1), "{full:?}");
    println!("full store: {}", full.1);
    assert!(full.1.starts_with("boathook: step \"s\": @/v/store") && full.1.contains("space"), "{full:?}");
    assert_eq!((verify(&store), snapshots(&store).len(), aside(&store)), (Ok(1), 1, Vec::new()));
    // And a full target, with an old tree.
    let other = top.join("other");
    succeeds(&save_line(&big, &other, "lz4"));
    fill(&app.join("big"), 3, 3, 2000);
    let old = tree(&app);
    let full = wait(&restore_line(&other, &app));
    println!("full target: {}", full.1);
    assert_eq!(full.0, Some(1), "{full:?}");
    assert!(full.1.contains("@/v/app") && full.1.contains("space"), "{full:?}");
    assert!(tree(&app) == old, "the old tree stands");
    assert_eq!(aside(&top.join("v")), Vec::<PathBuf>::new());

    // Read-only.
    let remounted = run_to_end(sh(top, "mount -o remount,ro v"));
    assert!(remounted.status.success(), "{remounted:?}");
    let read_only = wait(&save_line(&small, &store, "none"));
    println!("read-only store: {}", read_only.1);
    assert_eq!(read_only.0, Some(1), "{read_only:?}");
    assert!(
        read_only.1.starts_with("boathook: step \"s\": @/v/store") && read_only.1.contains("ead-only"),
        "{read_only:?}"
    );
    let read_only = wait(&restore_line(&other, &app));
    println!("read-only target: {}", read_only.1);
    assert_eq!(read_only.0, Some(1), "{read_only:?}");
    assert!(read_only.1.contains("@/v") && read_only.1.contains("ead-only"), "{read_only:?}");
    assert!(tree(&app) == old, "the old tree stands");
    assert_eq!(verify(&store), Ok(1));
    drop(mounted);

    // Another user, who may read but not write.
    let (store, app) = (top.join("own/store"), top.join("own/app"));
    succeeds_in(&top.join("own"), &save_line(&small, &store, "lz4"));
    fill(&app.join("small"), 3, 3, 2000);
    open_up(&top.join("own"));
    let old = tree(&app);
    let forbidden = said(top, as_nobody(&save_line(&small, &store, "lz4")));
    println!("forbidden store: {}", forbidden.1);
    assert_eq!(forbidden.0, Some(1), "{forbidden:?}");
    assert!(
        forbidden.1.starts_with("boathook: step \"s\": @/own/store") && forbidden.1.contains("ermission"),
        "{forbidden:?}"
    );
    let forbidden = said(top, as_nobody(&restore_line(&store, &app)));
    println!("forbidden target: {}", forbidden.1);
    assert_eq!(forbidden.0, Some(1), "{forbidden:?}");
    assert!(forbidden.1.contains("@/own") && forbidden.1.contains("ermission"), "{forbidden:?}");
    assert_eq!((verify(&store), tree(&app) == old, aside(top)), (Ok(1), true, Vec::new()));

    // A store that cannot even be looked at is none that is empty: the application must not begin anew.
    fs::create_dir_all(top.join("closed")).expect("made");
    succeeds(&save_line(&small, &top.join("closed/store"), "lz4"));
    fs::set_permissions(top.join("closed"), fs::Permissions::from_mode(0o700)).expect("set");
    let closed = said(top, as_nobody(&restore_line(&top.join("closed/store"), &app)));
    println!("closed store: {}", closed.1);
    assert_eq!(closed.0, Some(1), "{closed:?}");
    assert!(
        closed.1.starts_with("boathook: step \"s\": @/closed/store") && closed.1.contains("ermission"),
        "{closed:?}"
    );

    // A store that is gone, and one that never was.
    let gone = top.join("nowhere/store");
    let save = wait(&save_line(&small, &gone, "lz4"));
    println!("no store: {}", save.1);
    assert_eq!(save.0, Some(1), "{save:?}");
    assert!(save.1.starts_with("boathook: step \"s\": @/nowhere/store"), "{save:?}");
    assert!(!top.join("nowhere").exists(), "nothing is made where a volume is missing");
    let mut line = restore_line(&gone, &app);
    line.extend(["--if-missing".into(), "fail".into()]);
    let restore = wait(&line);
    println!("no store to restore from: {}", restore.1);
    assert_eq!(restore.0, Some(1), "{restore:?}");
    assert!(restore.1.contains("@/nowhere/store") && tree(&app) == old, "{restore:?}");
}

fn sh(folder: &Path, script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(folder);
    command
}

/// The folder of a volume is there.
fn succeeds_in(folder: &Path, line: &[OsString]) {
    fs::create_dir_all(folder).expect("made");
    succeeds(line);
}

// ---- memory ----

/// What the whole process may use at its peak, as it is shipped.
const MEMORY: u64 = 32_000_000;

/// The binary that cargo builds for tests is larger itself, and so are its allocator's arenas.
const MEMORY_FOR_TESTS: u64 = 40_000_000;

/// The shipped binary where it is there.
fn measured_binary() -> OsString {
    std::env::var_os("BOATHOOK_DIST").unwrap_or_else(|| BOATHOOK.into())
}

/// Peak memory of a command in bytes: the kernel's own count for the child alone.
fn peak(line: &[OsString]) -> u64 {
    let mut command = Command::new(measured_binary());
    let mut child = command
        .args(&line[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut most = 0;
    let begun = Instant::now();
    loop {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let told = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = told.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
        most = most.max(kilobytes.unwrap_or(0) * 1024);
        if let Some(status) = child.try_wait().expect("ours") {
            assert!(status.success(), "{line:?}: {status}");
            return most;
        }
        if begun.elapsed() > LONG {
            let _ = child.kill();
        }
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn saving_and_restoring_300_mb_takes_less_than_32_mb_of_memory() {
    let _turn = turn();
    let folder = tempfile::Builder::new().prefix("boathook-faults-").tempdir().expect("a temporary folder");
    let (from, store, to) = (folder.path().join("data"), folder.path().join("store"), folder.path().join("to"));
    // Few large ones, and many small ones.
    for (name, count, size) in [("large", 6, 40 << 20), ("middle", 50, 1 << 20), ("small", 2000, 5000)] {
        fill(&from.join(name), 7, count, size);
    }
    let most = if std::env::var_os("BOATHOOK_DIST").is_some() { MEMORY } else { MEMORY_FOR_TESTS };
    let mut too_much = String::new();
    for compression in ["lz4", "none", "gzip", "zstd"] {
        let mut line = save_line(&from, &store, compression);
        line.extend(["--timeout".into(), "60s".into()]);
        let save = peak(&line);
        let mut line = restore_line(&store, &to);
        line.extend(["--timeout".into(), "60s".into()]);
        let restore = peak(&line);
        println!(
            "{compression}: peak of a save {:.1} MB, of a restore {:.1} MB",
            save as f64 / 1e6,
            restore as f64 / 1e6
        );
        assert!(save > 1 << 20 && restore > 1 << 20, "it was measured");
        if save.max(restore) > most {
            too_much.push_str(&format!("{compression}: {save} and {restore} bytes\n"));
        }
        let _ = fs::remove_dir_all(&store);
    }
    assert!(too_much.is_empty(), "{too_much}");
}

// ---- in a hurry ----

#[test]
fn an_essential_save_is_done_within_two_seconds_of_the_stop_signal() {
    let _turn = turn();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let mut client = TcpStream::connect(address).expect("a connection");
    let _server = listener.accept().expect("it");
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
    let config = format!(
        "grace-period = '60s'\nstop-reserve = '1s'\n[server]\nlisten = '127.0.0.1:0'\n[log]\ntermination-message = '@FOLDER@/none'\n\
         [[pre-stop.step]]\nname = 'drain'\ndrain = {{ ports = [{}], settle = '100ms', quiet-min = '50ms' }}\n\
         [[pre-stop.step]]\nname = 's'\nessential = true\ntimeout = '10s'\n\
         save = {{ from = '@FOLDER@/data', to = '@FOLDER@/store' }}\n",
        address.port()
    );
    let mut agent = Start::new(&config).start();
    for index in 0..10 {
        fill(&agent.file("data").join(format!("{index}")), index, 10, 500_000);
    }
    let saved = tree(&agent.file("data"));
    let _ = life_support::noise();
    let at = agent.address();
    let calling = thread::spawn(move || life_support::call(at, "/shutdown", "").map(|answer| answer.body));
    agent.wait_for_field("step started", "step");
    let begun = Instant::now();
    agent.signal(libc::SIGTERM);
    let code = agent.code(LONG);
    let took = begun.elapsed();
    let late = life_support::noise().between(begun, begun + took);
    println!("hurry: 50 MB saved and ended {took:?} after the signal, the machine was {late:?} late");
    let answer = calling.join().expect("no panic").unwrap_or_default();
    assert_eq!(code, 128 + libc::SIGTERM, "{}", agent.log());
    assert!(answer.contains("\"hurried\":true"), "{answer}");
    assert!(took < Duration::from_secs(2) + late, "{took:?}: {}", agent.log());
    assert_eq!(verify(&agent.file("store")), Ok(1), "{answer}");
    succeeds(&restore_line(&agent.file("store"), &agent.file("app")));
    assert!(tree(&agent.file("app/data")) == saved, "{answer}");
}
