//! A folder keeps snapshots whole, whatever happens to who writes them: killed at any moment, out of space or rights,
//! the power gone, or another agent at work in the same folder.

#![cfg(feature = "state")]

mod fault_support;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, SystemTime},
};

use boathook::state::{Compression, flow::Flow, folder::Folder, name::SnapshotName};

use fault_support::{
    can_trace, command,
    content::{content, is_whole},
    inject::{Fault, Hit, Where, at_each_call, traced},
    is_root,
    mounts::{ext4_image, mount, own_mounts, tmpfs},
    not_run, power, run, saver, words,
};

/// The saver's.
const STATE: &str = "s";
const TIME: u64 = 1_795_356_235;
const CAREFULLY: &str = "carefully";
const CARELESSLY: [&str; 3] = ["in-place", "no-file-sync", "no-folder-sync"];

fn saving(folder: &Path, count: usize, size: usize, keep: usize, how: &str) -> Vec<OsString> {
    words([&saver(), &folder, &count.to_string(), &size.to_string(), &keep.to_string(), &how])
}

fn at(path: &Path) -> Folder {
    Folder::new(path.to_owned())
}

/// Saves content of this size here and now.
fn save(folder: &Path, state: &str, size: usize) -> io::Result<SnapshotName> {
    let mut draft = at(folder).begin(state, Compression::Zstd, TIME)?;
    draft.write_all(&content(draft.name().number, size))?;
    Ok(draft.commit()?.name)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn unfinished(folder: &Path) -> Vec<String> {
    names(folder).into_iter().filter(|name| name.ends_with(".partial")).collect()
}

fn numbers(folder: &Path, state: &str) -> Vec<u64> {
    at(folder).list(Some(state)).expect("a list").iter().map(|listed| listed.name.number).collect()
}

/// The number that was said last: `committed 7`.
fn last_said(said: &str) -> Option<u64> {
    let last = said.lines().rev().find_map(|line| line.strip_prefix("committed "));
    last.map(|number| number.parse().expect("a number"))
}

/// What everything here is about: each listed snapshot is whole, and what was said to be safe, or a newer one, is
/// there.
fn promise(listed: &[(u64, Vec<u8>)], size: usize, said: &str) -> Result<(), String> {
    for (number, bytes) in listed {
        if bytes.len() != size || !is_whole(bytes) {
            return Err(format!("snapshot {number} of {} bytes is torn", bytes.len()));
        }
    }
    match (listed.iter().map(|(number, _)| *number).max(), last_said(said)) {
        (there, Some(said)) if there.is_none_or(|there| there < said) => {
            Err(format!("{said} was safe, and the newest is {there:?}"))
        }
        _ => Ok(()),
    }
}

/// The promise, of a folder that is there.
fn promise_at(folder: &Path, size: usize, said: &str) -> Result<(), String> {
    let listed = at(folder).list(Some(STATE)).map_err(|error| error.to_string())?;
    let mut contents = Vec::new();
    for snapshot in listed {
        let mut bytes = Vec::new();
        at(folder)
            .open(&snapshot)
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .map_err(|error| error.to_string())?;
        contents.push((snapshot.name.number, bytes));
    }
    promise(&contents, size, said)
}

/// The next life's first deed.
fn next_life_clears(folder: &Path) {
    drop(at(folder).begin(STATE, Compression::Zstd, TIME).expect("a draft"));
    assert_eq!(unfinished(folder), [""; 0], "cleared, and the draft is removed when it is dropped");
}

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

#[test]
fn saves_lists_and_prunes() {
    let place = temporary();
    let folder = place.path();
    for state in ["a", "b", "a", "a", "b"] {
        save(folder, state, 1000).expect("saved");
    }
    let all: Vec<String> =
        at(folder).list(None).expect("a list").iter().map(|listed| listed.name.to_string()).collect();
    assert_eq!(
        all,
        [
            "a.0000000003.20261122T140355Z.tar.zst",
            "a.0000000002.20261122T140355Z.tar.zst",
            "a.0000000001.20261122T140355Z.tar.zst",
            "b.0000000002.20261122T140355Z.tar.zst",
            "b.0000000001.20261122T140355Z.tar.zst",
        ]
    );
    let newest = at(folder).list(Some("a")).expect("a list").remove(0);
    let metadata = fs::metadata(&newest.path).expect("there");
    assert_eq!(
        (newest.size, metadata.mode() & 0o7777),
        (1000, 0o600),
        "others may not read what the application keeps"
    );
    let mut bytes = Vec::new();
    at(folder).open(&newest).expect("opened").read_to_end(&mut bytes).expect("read");
    assert_eq!(bytes, content(3, 1000));

    let flow = Flow::default();
    at(folder).prune("a", 2, &flow);
    assert_eq!((numbers(folder, "a"), numbers(folder, "b")), (vec![3, 2], vec![2, 1]));
    at(folder).prune("a", 0, &flow);
    assert_eq!(numbers(folder, "a"), [3], "the newest one always stays");
    at(folder).prune("nothing", 3, &flow);
    assert_eq!(flow.notes().count, 0);
    // Numbers only grow, whatever was removed below the newest.
    assert_eq!(save(folder, "a", 1000).expect("saved").number, 4);
    // Nobody waits any more: nothing is removed.
    let (flow, guard) = Flow::new();
    drop(guard);
    at(folder).prune("b", 1, &flow);
    assert_eq!(numbers(folder, "b"), [2, 1]);
}

#[test]
fn what_is_no_snapshot_disturbs_nothing() {
    let place = temporary();
    let folder = place.path();
    save(folder, STATE, 1000).expect("saved");
    let path = |number: u64| folder.join(format!("s.{number:010}.20261122T140355Z.tar.zst"));
    fs::create_dir(path(2)).expect("a folder");
    symlink(path(1), path(3)).expect("a link");
    symlink("nowhere", path(4)).expect("a link");
    rustix::fs::mknodat(rustix::fs::CWD, path(5), rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a fifo");
    fs::write(path(6), "").expect("an empty file");
    for name in ["lost+found", "README", ".hidden", "s.tar.zst", ".s.12.partial", ".s.0000000001x.partial", "s.1.tar"] {
        fs::write(folder.join(name), "foreign").expect("written");
    }
    // What fits our own name for unfinished ones and is no file of ours, or another state's.
    fs::create_dir(folder.join(".s.0000000009.partial")).expect("a folder");
    symlink("nowhere", folder.join(".s.0000000010.partial")).expect("a link");
    fs::write(folder.join(".s.s.0000000099.partial"), "").expect("written");
    fs::write(folder.join(std::ffi::OsStr::new("")).join(unsafe_name()), "").expect("written");
    let before = names(folder);

    assert_eq!(numbers(folder, STATE), [6, 1]);
    let mut listed = at(folder).list(Some(STATE)).expect("a list");
    assert_eq!(listed[0].size, 0);
    // What was put there between listing and opening: refused, and without waiting for a writer of the FIFO.
    for (number, why) in [(2, "it is not a regular file"), (5, "it is not a regular file"), (7, "it is not there")] {
        listed[0].path = path(number);
        let error = at(folder).open(&listed[0]).expect_err("no snapshot").to_string();
        assert!(error.starts_with(&path(number).display().to_string()) && error.contains(why), "{error}");
    }
    listed[0].path = path(3);
    at(folder).open(&listed[0]).expect_err("a link");

    // The number is above all that is there, and nothing foreign is gone.
    assert_eq!(save(folder, STATE, 1000).expect("saved").number, 11);
    let mut expected = before;
    expected.push("s.0000000011.20261122T140355Z.tar.zst".to_owned());
    expected.sort();
    assert_eq!(names(folder), expected);
    let flow = Flow::default();
    at(folder).prune(STATE, 1, &flow);
    assert_eq!((numbers(folder, STATE), flow.notes().count), (vec![11], 0));
    assert!(path(2).is_dir() && path(3).is_symlink(), "foreign ones stay");
}

/// A name that is no UTF-8.
fn unsafe_name() -> OsString {
    std::os::unix::ffi::OsStringExt::from_vec(b"s.\xff.tar".to_vec())
}

#[test]
fn only_a_committed_draft_stays() {
    let place = temporary();
    let folder = place.path();
    let mut draft = at(folder).begin(STATE, Compression::None, TIME).expect("a draft");
    draft.write_all(b"half").expect("written");
    assert_eq!(unfinished(folder), [".s.0000000001.partial"]);
    assert_eq!(numbers(folder, STATE), [0; 0], "not listed");
    drop(draft);
    assert_eq!(names(folder), [""; 0]);

    // Something else writes into the file: it is not what was saved.
    let mut draft = at(folder).begin(STATE, Compression::None, TIME).expect("a draft");
    draft.write_all(b"ours").expect("written");
    let other = fs::OpenOptions::new().write(true).open(folder.join(".s.0000000001.partial")).expect("opened");
    other.write_all_at(b"theirs", 100).expect("written");
    let error = draft.commit().expect_err("otherwise").to_string();
    assert!(
        error.ends_with("it has 106 bytes instead of the 4 that were written: something else writes there"),
        "{error}"
    );
    assert_eq!(names(folder), [""; 0]);

    // A state's name becomes a file's name.
    for state in ["", "a/b", "..", "a\n"] {
        let error = at(folder).begin(state, Compression::None, TIME).expect_err("unusable");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    }
}

#[test]
fn another_program_takes_the_name() {
    let place = temporary();
    let folder = place.path();
    let mut draft = at(folder).begin(STATE, Compression::Zstd, TIME).expect("a draft");
    draft.write_all(&content(1, 1000)).expect("written");
    let taken = folder.join(draft.name().to_string());
    fs::write(&taken, "not ours").expect("written");
    let listed = draft.commit().expect("saved under the next number");
    assert_eq!((listed.name.number, fs::read(&taken).expect("there").as_slice()), (2, b"not ours".as_slice()));
    assert!(is_whole(&fs::read(&listed.path).expect("there")));

    // The highest number that there can be.
    fs::write(folder.join("s.18446744073709551615.20261122T140355Z.tar"), "").expect("written");
    let error = at(folder).begin(STATE, Compression::Zstd, TIME).expect_err("no number is left").to_string();
    assert!(
        error.ends_with("cannot begin a snapshot: the highest number is taken; remove the file that has it"),
        "{error}"
    );
}

#[test]
fn clears_only_what_nobody_writes() {
    let place = temporary();
    let folder = place.path();
    fs::write(folder.join(".s.0000000004.partial"), "of an earlier life").expect("written");
    fs::write(folder.join(".other.0000000004.partial"), "of another state").expect("written");
    let mut living = at(folder).begin(STATE, Compression::Zstd, TIME).expect("a draft");
    assert_eq!(unfinished(folder), [".other.0000000004.partial", ".s.0000000001.partial"]);
    let mut second = at(folder).begin(STATE, Compression::Gzip, TIME + 1).expect("a draft");
    assert_eq!((living.name().number, second.name().number), (1, 2), "one of two at once");
    for draft in [&mut living, &mut second] {
        draft.write_all(&content(draft.name().number, 1000)).expect("written");
    }
    second.commit().expect("saved");
    living.commit().expect("saved, although a newer one is there");
    assert_eq!(numbers(folder, STATE), [2, 1]);
    assert_eq!(promise_at(folder, 1000, "committed 2"), Ok(()));
}

/// A missing folder is made where a volume may be, and nowhere else.
#[test]
fn makes_the_folder_itself_alone() {
    let place = temporary();
    let folder = place.path().join("sessions");
    assert_eq!(at(&folder).list(None).expect("it would be made").len(), 0);
    assert!(!folder.exists(), "listing changes nothing");
    save(&folder, STATE, 1000).expect("saved");
    assert_eq!(fs::metadata(&folder).expect("there").mode() & 0o7777, 0o700);

    let help = "it is not there; mount the volume there, or create the folder";
    let file = place.path().join("file");
    fs::write(&file, "").expect("written");
    for (path, why) in [
        (place.path().join("no/such"), help),
        // There it would be in the container's own layer, and gone with it.
        (PathBuf::from("/boathook-test-no-such-volume"), help),
        (file.clone(), "it is, or is below, something that is no folder; name the folder of a mounted volume"),
        (file.join("below"), "it is, or is below, something that is no folder; name the folder of a mounted volume"),
    ] {
        let error = at(&path).begin(STATE, Compression::Zstd, TIME).expect_err("no folder").to_string();
        assert_eq!(error, format!("{}: cannot be used: {why}", path.display()));
        let error = at(&path).list(None).expect_err("no folder").to_string();
        assert_eq!(error, format!("{}: cannot be read: {why}", path.display()));
        assert!(!path.is_dir(), "{}", path.display());
    }
}

#[test]
fn the_folder_goes_in_the_middle() {
    let place = temporary();
    let folder = place.path().join("state");
    let mut draft = at(&folder).begin(STATE, Compression::Zstd, TIME).expect("a draft");
    draft.write_all(&content(1, 1000)).expect("written");
    fs::remove_dir_all(&folder).expect("removed");
    draft.write_all(b"more").expect("the file itself is still there");
    let error = draft.commit().expect_err("gone");
    let text = format!(
        "{}: the unfinished file .s.0000000001.partial was removed while it was written, or the whole folder was",
        folder.display()
    );
    assert_eq!((error.kind(), error.to_string()), (io::ErrorKind::NotFound, text));
    // Another one in its place is not taken for it.
    let mut draft = at(&folder).begin(STATE, Compression::Zstd, TIME).expect("a draft");
    draft.write_all(&content(1, 1000)).expect("written");
    fs::rename(&folder, place.path().join("moved")).expect("moved");
    fs::create_dir(&folder).expect("another");
    draft.commit().expect("saved where it was begun");
    assert_eq!((numbers(&folder, STATE).len(), numbers(&place.path().join("moved"), STATE).len()), (0, 1));
}

/// So often it is killed.
const KILLS: usize = 500;

/// Kills a saver at moments by chance until a promise is broken: how many kills it took, and how many of them hit a
/// save.
fn kill_again_and_again(how: &str, kills: usize, seed: u64) -> (usize, usize, Result<(), String>) {
    const SIZE: usize = 300_000;
    let place = temporary();
    let (mut random, mut hits) = (seed, 0);
    for kill in 1..=kills {
        let mut child =
            command(&saving(place.path(), usize::MAX, SIZE, 2, how)).stdout(Stdio::piped()).spawn().expect("the saver");
        let mut said = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        stdout.read_line(&mut said).expect("its first snapshot");
        // Marsaglia's xorshift64. The moment itself is by chance: up to three or four saves later.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        thread::sleep(Duration::from_micros(random % 12_000));
        child.kill().expect("a child");
        child.wait().expect("a child");
        stdout.read_to_string(&mut said).expect("what it said");
        hits += usize::from(!unfinished(place.path()).is_empty());
        if let Err(broken) = promise_at(place.path(), SIZE, &said) {
            return (kill, hits, Err(broken));
        }
        assert!(!numbers(place.path(), STATE).is_empty(), "at least one is there");
        if how == CAREFULLY {
            next_life_clears(place.path());
        }
    }
    (kills, hits, Ok(()))
}

#[test]
fn killed_at_any_moment() {
    saver();
    // Two at a time, because most of a save is waiting for the disk.
    let halves = [1, 2].map(|seed| thread::spawn(move || kill_again_and_again(CAREFULLY, KILLS / 2, seed)));
    let mut hit = 0;
    for half in halves {
        let (kills, hits, kept) = half.join().expect("no promise about clearing is broken");
        assert_eq!((kills, kept), (KILLS / 2, Ok(())));
        hit += hits;
    }
    println!("{KILLS} kills, {hit} of them in the middle of a snapshot");
    assert!(hit >= KILLS / 10, "the moments were badly chosen: {hit}");
}

#[test]
fn killed_at_any_moment_is_a_test_that_can_fail() {
    let (kills, _, kept) = kill_again_and_again("in-place", KILLS, 1);
    println!("found after {kills} kills: {kept:?}");
    assert!(kept.is_err_and(|broken| broken.contains("is torn")));
}

/// Everything that a save asks of the kernel about files.
const CALLS: [&str; 24] = [
    "open",
    "openat",
    "write",
    "pwrite64",
    "fsync",
    "fdatasync",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
    "flock",
    "ftruncate",
    "sync_file_range",
    "newfstatat",
    "statx",
    "fstat",
    "getdents64",
    "mkdir",
    "mkdirat",
    "fcntl",
    "close",
];
const ERRORS: [Fault; 4] = [Fault::Error("EIO"), Fault::Error("ENOSPC"), Fault::Error("EDQUOT"), Fault::Error("EROFS")];

/// A folder with one snapshot and one that an earlier life left, and a saver of two more.
fn prepared(size: usize, how: &str) -> (tempfile::TempDir, Vec<OsString>) {
    let place = temporary();
    save(place.path(), STATE, size).expect("saved");
    fs::write(place.path().join(".s.0000000002.partial"), "of an earlier life").expect("written");
    let line = saving(place.path(), 2, size, 1, how);
    (place, line)
}

fn hits_of(hits: &BTreeMap<String, usize>, calls: &[&str]) -> usize {
    calls.iter().filter_map(|call| hits.get(*call)).sum()
}

#[test]
fn killed_at_each_system_call() {
    if !can_trace() {
        return;
    }
    const SIZE: usize = 30_000;
    let all = Where { calls: &CALLS, after: "/.tmp", always: &[] };
    let hits = at_each_call(
        all,
        &[Fault::Kill],
        &mut || prepared(SIZE, CAREFULLY),
        &mut |place: tempfile::TempDir, hit: Hit| {
            assert_eq!(promise_at(place.path(), SIZE, &hit.ended.stdout), Ok(()), "{hit}");
            assert!(!numbers(place.path(), STATE).is_empty(), "{hit}");
            next_life_clears(place.path());
        },
    );
    println!("killed at {hits:?}");
    // Two snapshots of three pieces, each said; the file and the folder synced; each named; the older one removed.
    let at_least = |calls: &[&str], count| assert!(hits_of(&hits, calls) >= count, "{calls:?}: {hits:?}");
    at_least(&["write"], 8);
    at_least(&["fsync", "fdatasync"], 4);
    at_least(&["renameat2"], 2);
    at_least(&["unlink", "unlinkat"], 3);
    at_least(&["flock"], 3);
    at_least(&["open", "openat"], 8);

    let mut broken = BTreeSet::new();
    at_each_call(
        Where { calls: &["write", "fsync", "renameat2", "rename", "unlink", "unlinkat"], ..all },
        &[Fault::Kill],
        &mut || prepared(SIZE, "in-place"),
        &mut |place: tempfile::TempDir, hit: Hit| {
            broken.extend(promise_at(place.path(), SIZE, &hit.ended.stdout).err());
        },
    );
    println!("in place: {broken:?}");
    assert!(!broken.is_empty(), "a test that can fail");
}

#[test]
fn an_error_at_each_system_call() {
    if !can_trace() {
        return;
    }
    const SIZE: usize = 30_000;
    let mut reasons = BTreeSet::new();
    let hits = at_each_call(
        Where { calls: &CALLS, after: "/.tmp", always: &[] },
        &ERRORS,
        &mut || prepared(SIZE, CAREFULLY),
        &mut |place: tempfile::TempDir, hit: Hit| {
            let folder = place.path();
            assert_eq!(promise_at(folder, SIZE, &hit.ended.stdout), Ok(()), "{hit}");
            // Where even the removal fails, or the look before it, the next life clears it.
            let is_ours = |name: &String| fs::read(folder.join(name)).is_ok_and(|bytes| bytes != b"of an earlier life");
            if !matches!(hit.call.as_str(), "unlink" | "unlinkat" | "newfstatat" | "statx" | "fstat") {
                assert!(!unfinished(folder).iter().any(is_ours), "an abandoned draft is removed: {hit}");
            }
            next_life_clears(folder);
            let stderr = &hit.ended.stderr;
            match hit.ended.status.code() {
                Some(0) => {
                    assert_eq!(hit.ended.stdout.lines().count(), 2, "{hit}");
                    // Only what does not matter to the snapshot, and then it is said.
                    let is_said = stderr.is_empty() || stderr.contains("removed");
                    assert!(is_said && !matches!(hit.call.as_str(), "fsync" | "fdatasync" | "renameat2"), "{hit}");
                }
                // It could not say what it did.
                Some(101) => assert!(hit.call == "write" && stderr.contains("somebody listens"), "{hit}"),
                _ => {
                    assert!(stderr.starts_with(&folder.display().to_string()), "where: {hit}");
                    let why = match hit.fault {
                        Fault::Error("EIO") => "input/output error of the disk or the server; look at",
                        Fault::Error("ENOSPC") => "no space left on the volume; make it larger",
                        Fault::Error("EDQUOT") => "the quota of the volume is used up; raise it",
                        _ => "the file system is read-only; mount the volume without readOnly",
                    };
                    assert!(stderr.contains(why), "why: {hit}");
                }
            }
            reasons.extend(
                stderr
                    .lines()
                    .map(|line| format!("{}: {}", hit.call, line.replace(&folder.display().to_string(), "/state"))),
            );
        },
    );
    println!("errors at {hits:?}");
    for reason in &reasons {
        println!("{reason}");
    }
    assert!(hits_of(&hits, &["write"]) >= 4 * 8 && hits_of(&hits, &["fsync"]) >= 4 * 4, "{hits:?}");
    let has = |reason: &str| assert!(reasons.contains(reason), "{reason}");
    has("write: /state/s.0000000002.20261122T140355Z.tar.zst: cannot be written after 10000 bytes: no space left on \
         the volume; make it larger, free some of it, or lower keep");
    has("fsync: /state/s.0000000002.20261122T140355Z.tar.zst: cannot be synced after 30000 bytes: input/output error \
         of the disk or the server; look at the node's kernel log");
}

/// NFS knows no rename that replaces nothing; FAT knows no links either.
#[test]
fn on_file_systems_that_know_less() {
    if !can_trace() {
        return;
    }
    const SIZE: usize = 30_000;
    let calls =
        ["openat", "write", "fsync", "rename", "renameat", "link", "linkat", "unlink", "unlinkat", "newfstatat"];
    let without_links = ["rename", "renameat", "unlink", "unlinkat", "fsync", "newfstatat"];
    for (always, calls, needed) in [
        (["renameat2:error=EINVAL"].as_slice(), calls.as_slice(), "linkat"),
        (&["renameat2:error=EINVAL", "linkat:error=EPERM"], &without_links, "renameat"),
    ] {
        let hits = at_each_call(
            Where { calls, after: "/.tmp", always },
            &[Fault::Kill, Fault::Error("EIO")],
            &mut || prepared(SIZE, CAREFULLY),
            &mut |place: tempfile::TempDir, hit: Hit| {
                assert_eq!(promise_at(place.path(), SIZE, &hit.ended.stdout), Ok(()), "{always:?}: {hit}");
                assert!(!numbers(place.path(), STATE).is_empty(), "{always:?}: {hit}");
                next_life_clears(place.path());
            },
        );
        println!("{always:?}: {hits:?}");
        assert!(hits_of(&hits, &[needed]) >= 2 + 2, "{always:?}: {hits:?}");
        let (place, line) = prepared(SIZE, CAREFULLY);
        let (ended, _) = traced(&line, Where { calls: &["renameat2"], after: "", always }, &[]);
        assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("committed 2\ncommitted 3\n", ""));
        assert_eq!(names(place.path()), ["s.0000000003.20261122T140355Z.tar.zst"]);
    }
}

/// Without locks nobody knows whether a young unfinished file is somebody's.
#[test]
fn without_locks_only_old_ones_are_cleared() {
    if !can_trace() {
        return;
    }
    for error in ["ENOLCK", "ENOSYS", "EOPNOTSUPP"] {
        let place = temporary();
        let old = place.path().join(".s.0000000007.partial");
        let file = File::create(&old).expect("created");
        file.set_modified(SystemTime::now() - Duration::from_secs(25 * 60 * 60)).expect("a time");
        drop(file);
        fs::write(place.path().join(".s.0000000008.partial"), "perhaps somebody's").expect("written");
        let fault = format!("flock:error={error}");
        let line = saving(place.path(), 2, 1000, 5, CAREFULLY);
        let (ended, _) = traced(&line, Where { calls: &["flock"], after: "", always: &[&fault] }, &[]);
        assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("committed 9\ncommitted 10\n", ""), "{error}");
        assert_eq!(unfinished(place.path()), [".s.0000000008.partial"], "{error}");
    }
}

/// Begins to write early, each few megabytes; that this fails or is unknown changes nothing.
#[test]
fn early_writing_is_only_a_wish() {
    if !can_trace() {
        return;
    }
    const SIZE: usize = 30_000_000;
    let hits = at_each_call(
        Where { calls: &["sync_file_range"], after: "", always: &[] },
        &[Fault::Kill, Fault::Error("EIO"), Fault::Error("ENOSYS")],
        &mut || {
            let place = temporary();
            let line = saving(place.path(), 1, SIZE, 1, CAREFULLY);
            (place, line)
        },
        &mut |place: tempfile::TempDir, hit: Hit| {
            assert_eq!(promise_at(place.path(), SIZE, &hit.ended.stdout), Ok(()), "{hit}");
            assert_eq!(numbers(place.path(), STATE).len(), usize::from(hit.fault != Fault::Kill), "{hit}");
        },
    );
    assert!(hits_of(&hits, &["sync_file_range"]) >= 3 * 3, "{hits:?}");
}

#[test]
fn nothing_waits_but_for_the_file_system() {
    if !can_trace() {
        return;
    }
    let (_place, line) = prepared(30_000, CAREFULLY);
    let (ended, trace) = traced(&line, Where { calls: &["all"], after: "", always: &[] }, &[]);
    assert!(ended.status.success(), "{ended:?}");
    let (_, since) = trace.split_once(".partial").expect("it looked for unfinished ones");
    for call in ["nanosleep", "poll(", "select", "sched_yield", "futex(", "epoll"] {
        assert!(!since.contains(call), "{call}: {since}");
    }
    // The same place, and nowhere else.
    assert!(since.lines().filter(|line| line.contains("fsync(")).count() == 4, "{since}");
}

#[test]
fn two_savers_at_once() {
    const SAVES: usize = 40;
    const SIZE: usize = 20_000;
    let both = |how: &'static str| {
        let place = temporary();
        let line = saving(place.path(), SAVES, SIZE, 1000, how);
        let savers = [line.clone(), line].map(|line| thread::spawn(move || run(command(&line))));
        let ended = savers.map(|saver| saver.join().expect("it ends"));
        (place, ended)
    };
    saver();
    let (place, ended) = both(CAREFULLY);
    for ended in &ended {
        assert_eq!((ended.stdout.lines().count(), ended.stderr.as_str()), (SAVES, ""));
    }
    let numbers_there = numbers(place.path(), STATE);
    assert_eq!(
        numbers_there.iter().collect::<BTreeSet<_>>().len(),
        2 * SAVES,
        "each has its number: {numbers_there:?}"
    );
    assert_eq!(promise_at(place.path(), SIZE, &ended[0].stdout), Ok(()));
    assert_eq!(unfinished(place.path()), [""; 0]);

    let (place, ended) = both("no-folder-sync");
    let failed = ended.iter().any(|ended| !ended.status.success());
    let fewer = numbers(place.path(), STATE).iter().collect::<BTreeSet<_>>().len() < 2 * SAVES;
    assert!(failed || fewer, "a test that can fail");
}

/// Lets a saver make snapshots, slowed down by a fault, while another agent does something in the same folder. Returns
/// the saver's trace of opened files.
fn beside_another(saves: usize, slow: &str, other: &mut dyn FnMut(&Folder)) -> (tempfile::TempDir, String) {
    let place = temporary();
    let line = saving(place.path(), saves, 1000, 1000, CAREFULLY);
    let slow = slow.to_owned();
    let saver = thread::spawn(move || {
        let everywhere = Where { calls: &["openat"], after: "", always: &[&slow] };
        traced(&line, everywhere, &[])
    });
    while !saver.is_finished() {
        other(&at(place.path()));
    }
    let (ended, trace) = saver.join().expect("it ends");
    assert_eq!((ended.stdout.lines().count(), ended.stderr.as_str()), (saves, ""));
    assert_eq!(promise_at(place.path(), 1000, &ended.stdout), Ok(()));
    (place, trace)
}

/// Between the creation of an unfinished file and its lock, it looks like one of an earlier life.
#[test]
fn cleared_before_it_is_locked() {
    if !can_trace() {
        return;
    }
    const SAVES: usize = 10;
    let (place, trace) = beside_another(SAVES, "flock:delay_enter=10ms:when=1+3", &mut |folder| {
        drop(folder.begin(STATE, Compression::Zstd, TIME).expect("a draft"));
    });
    assert_eq!(numbers(place.path(), STATE).len(), SAVES);
    let begun = trace.lines().filter(|line| line.contains(".partial\", O_WRONLY|O_CREAT")).count();
    println!("{begun} unfinished files for {SAVES} snapshots");
    assert!(begun > SAVES, "none was cleared in that moment");
}

/// Between looking for the next number and taking it, another agent may have begun and ended with that number.
#[test]
fn the_number_is_taken_meanwhile() {
    if !can_trace() {
        return;
    }
    const SAVES: usize = 5;
    let mut others = 0;
    let (place, _) = beside_another(SAVES, "openat:delay_enter=8ms", &mut |folder| {
        // Of another time, so that the names differ although the numbers may not.
        let mut draft = folder.begin(STATE, Compression::Zstd, TIME + 1).expect("a draft");
        draft.write_all(&content(draft.name().number, 1000)).expect("written");
        draft.commit().expect("saved");
        others += 1;
    });
    let there = numbers(place.path(), STATE);
    assert_eq!(there.len(), SAVES + others);
    assert_eq!(there.iter().collect::<BTreeSet<_>>().len(), SAVES + others, "each has its number: {there:?}");
    println!("{SAVES} snapshots beside {others}");
}

/// By the letter of fsync(2).
#[test]
fn the_power_fails_at_any_moment() {
    if !can_trace() {
        return;
    }
    const SIZE: usize = 6000;
    let lose = |how: &str| {
        let place = temporary();
        // The saver's own folder, which must be safe too.
        let folder = place.path().join("state");
        let mut line = saving(&folder, 4, SIZE, 2, how);
        if how != CAREFULLY {
            line = saving(place.path(), 4, SIZE, 2, how);
        }
        let recording = power::record(&line, place.path());
        let mut broken = BTreeSet::new();
        let disks = recording.lose_power(200, &mut |disk| {
            let of_files = disk.files.iter().filter_map(|(path, bytes)| {
                Some((SnapshotName::parse(path.file_name()?.to_str()?)?.number, bytes.clone()))
            });
            if let Err(why) = promise(&of_files.collect::<Vec<_>>(), SIZE, &disk.said) {
                broken.insert(why);
            }
        });
        println!("{how}: {disks} disks at {} moments: {broken:?}", recording.moments());
        assert!(recording.moments() > 20, "four snapshots");
        broken
    };
    assert_eq!(lose(CAREFULLY), BTreeSet::new());
    for (how, why) in CARELESSLY.into_iter().zip(["is torn", "is torn", "was safe"]) {
        assert!(lose(how).iter().any(|broken| broken.contains(why)), "a test that can fail: {how}");
    }
}

/// A real file system: what reached its disk when the saver dies is all that the next life has.
#[test]
fn the_power_fails_on_ext4() {
    const SIZE: usize = 30_000;
    if !can_trace() || !own_mounts("the_power_fails_on_ext4") {
        return;
    }
    let place = temporary();
    let template = place.path().join("template");
    // Nothing reaches the disk by itself within minutes, and no heuristic syncs what was renamed (ext4(5)).
    let options = "loop,commit=300,noauto_da_alloc";
    let is_possible = ext4_image(&template).and_then(|()| {
        fs::create_dir(place.path().join("tried")).map_err(|error| error.to_string())?;
        mount(&["-o", options], &template, &place.path().join("tried"))
    });
    match is_possible {
        Ok(mounted) => drop(mounted),
        Err(why) => return not_run("power loss on ext4", &why),
    }
    let lose = |how: &str| {
        let mut broken = BTreeSet::new();
        let all = ["openat", "write", "fsync", "renameat2", "rename", "unlink", "unlinkat"];
        // What is broken shows soon.
        let calls = if how == CAREFULLY { all.as_slice() } else { &["write", "fsync"] };
        let hits = at_each_call(
            Where { calls, after: "/.tmp", always: &[] },
            &[Fault::Kill],
            &mut || {
                let life = tempfile::tempdir_in(place.path()).expect("a folder");
                fs::copy(&template, life.path().join("disk")).expect("a disk");
                let at = life.path().join("mounted");
                fs::create_dir(&at).expect("a mount point");
                let mounted = mount(&["-o", options], &life.path().join("disk"), &at).expect("mounted");
                // The saver's own folder, which must be safe too.
                let folder = at.join("state");
                if how != CAREFULLY {
                    fs::create_dir(&folder).and_then(|()| File::open(&at)?.sync_all()).expect("a folder");
                }
                // Dropped in this order.
                ((mounted, life), saving(&folder, 3, SIZE, 2, how))
            },
            &mut |(mounted, life): (_, tempfile::TempDir), hit: Hit| {
                fs::copy(life.path().join("disk"), life.path().join("next")).expect("what reached the disk");
                drop::<fault_support::mounts::Mounted>(mounted);
                let at = life.path().join("mounted");
                let _mounted = mount(&["-o", "loop"], &life.path().join("next"), &at).expect("its journal is whole");
                let folder = at.join("state");
                if let Err(why) = promise_at(&folder, SIZE, &hit.ended.stdout) {
                    broken.insert(format!("{why}, at {} {}", hit.call, hit.when));
                } else if how == CAREFULLY {
                    next_life_clears(&folder);
                }
            },
        );
        println!("{how}: {hits:?}: {broken:?}");
        broken
    };
    assert_eq!(lose(CAREFULLY), BTreeSet::new());
    // What is written in place is torn only when ext4 writes in the middle of a save: see the other tests for that one.
    for (how, why) in [("no-file-sync", "is torn"), ("no-folder-sync", "was safe")] {
        assert!(lose(how).iter().any(|broken| broken.contains(why)), "a test that can fail: {how}");
    }
}

/// A place that cannot take it: a clear reason, and what was there stays whole.
#[test]
fn a_full_or_forbidden_place() {
    const SIZE: usize = 300_000;
    if !own_mounts("a_full_or_forbidden_place") {
        return;
    }
    assert!(is_root(), "inside");
    let place = temporary();
    let small = place.path().join("small");
    let mounted = tmpfs(&small, "1m");
    let try_at = |folder: &Path, size: usize| {
        let ended = run(command(&saving(folder, 1, size, 1, CAREFULLY)));
        assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
        assert_eq!((promise_at(folder, SIZE, "committed 1"), unfinished(folder)), (Ok(()), Vec::new()));
        ended.stderr
    };
    save(&small, STATE, SIZE).expect("saved");
    // The disk takes the beginning of a write: a short write is no success.
    assert_eq!(
        try_at(&small, 2_000_000),
        format!(
            "{}/s.0000000002.20261122T140355Z.tar.zst: cannot be written after 0.7 MB: no space left on the volume; \
             make it larger, free some of it, or lower keep\n",
            small.display()
        )
    );
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(&small).status().expect("mount");
    assert!(remounted.success());
    let read_only = "the file system is read-only; mount the volume without readOnly";
    assert_eq!(try_at(&small, SIZE), format!("{}: cannot begin a snapshot: {read_only}\n", small.display()));
    // A folder on it that would have to be made, as a missing mount on a read-only root.
    let below = small.join("below");
    let error = at(&below).begin(STATE, Compression::Zstd, TIME).expect_err("read-only").to_string();
    assert_eq!(error, format!("{}: cannot be used: {read_only}", below.display()));
    let flow = Flow::default();
    at(&small).prune(STATE, 1, &flow);
    assert_eq!(flow.notes().count, 0, "nothing to remove");
    fs::write(place.path().join("x"), "").expect("written");
    drop(mounted);

    // Too many to keep, and none of them can be removed.
    let stuck = place.path().join("stuck");
    let mounted = tmpfs(&stuck, "4m");
    for _ in 0..3 {
        save(&stuck, STATE, SIZE).expect("saved");
    }
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(&stuck).status().expect("mount");
    assert!(remounted.success());
    at(&stuck).prune(STATE, 1, &flow);
    let note = |number| {
        format!("{}/s.000000000{number}.20261122T140355Z.tar.zst: cannot be removed: {read_only}", stuck.display())
    };
    assert_eq!(flow.notes().lines, [note(1), note(2)]);
    drop(mounted);

    // Another user without the rights, as runAsNonRoot with a volume that is root's.
    let other = place.path().join("other");
    fs::create_dir(&other).expect("a folder");
    save(&other, STATE, SIZE).expect("saved");
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("rights");
    open(place.path());
    open(&other);
    let program = place.path().join("saver");
    fs::copy(saver(), &program).expect("a copy that others may run");
    let mut line = saving(&other, 1, SIZE, 1, CAREFULLY);
    line[0] = program.into();
    let mut nobody = Command::new("setpriv");
    nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).args(line);
    let ended = run(nobody);
    assert_eq!(
        ended.stderr,
        format!(
            "{}: cannot begin a snapshot: permission denied for user 65534; set fsGroup in the pod's securityContext, \
             or change the owner of the folder\n",
            other.display()
        )
    );
    assert_eq!(promise_at(&other, SIZE, "committed 1"), Ok(()));

    // A file system that allocates late: it is full only when it is synced.
    let disk = place.path().join("disk");
    let at = place.path().join("ext4");
    fs::create_dir(&at).expect("a mount point");
    match ext4_image(&disk).and_then(|()| mount(&["-o", "loop"], &disk, &at)) {
        Ok(_mounted) => {
            save(&at, STATE, SIZE).expect("saved");
            let stderr = try_at(&at, 30_000_000);
            assert!(stderr.contains("no space left on the volume"), "{stderr}");
        }
        Err(why) => not_run("a full ext4", &why),
    }
}
