//! What is saved is what was there: sources are packed, unpacked by the system's own `tar`, and compared; and whatever
//! happens to a source meanwhile is noted and harms nothing else.

#![cfg(feature = "state")]

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    env,
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileExt, MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use boathook::state::{
    flow::Flow,
    pack::{Item, Packed, Selection, Spooled, pack, survey},
    pattern::Patterns,
};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use tempfile::TempDir;

/// Takes an archive and does something once, when its first part comes: the sources are being read then.
struct Sink<'a> {
    archive: Vec<u8>,
    meanwhile: Option<Box<dyn FnOnce() + 'a>>,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(meanwhile) = self.meanwhile.take() {
            meanwhile();
        }
        self.archive.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Counts alone.
struct Count(u64);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn trees(paths: &[&Path]) -> Selection {
    Selection { items: paths.iter().map(|path| Item::Tree(path.to_path_buf())).collect(), ..Selection::default() }
}

/// The archive, what was packed, and the notes.
#[track_caller]
fn packed(selection: &mut Selection, meanwhile: impl FnOnce()) -> (Vec<u8>, Packed, Vec<String>) {
    let (flow, _guard) = Flow::new();
    let mut sink = Sink { archive: Vec::new(), meanwhile: Some(Box::new(meanwhile)) };
    let packed = pack(selection, &mut sink, &flow).expect("packed");
    assert_eq!(packed.archive_bytes, sink.archive.len() as u64);
    assert_eq!(packed.archive_bytes % 512, 0);
    assert_eq!(flow.counts()[0].0, packed.files);
    (std::mem::take(&mut sink.archive), packed, flow.notes().lines)
}

fn refused(selection: &mut Selection) -> (io::ErrorKind, String) {
    let (flow, _guard) = Flow::new();
    let mut sink = Count(0);
    let surveyed = survey(selection, &flow);
    let error = pack(selection, &mut sink, &flow).expect_err("refused");
    assert_eq!(sink.0, 0, "nothing was written");
    if error.kind() != io::ErrorKind::PermissionDenied {
        assert_eq!(surveyed.expect_err("refused").to_string(), error.to_string());
    }
    (error.kind(), error.to_string())
}

#[track_caller]
fn unpacked(archive: &[u8]) -> TempDir {
    let target = tempfile::tempdir().expect("a folder");
    let mut tar = Command::new("tar")
        .args(["-xpf", "-", "--numeric-owner", "--warning=no-timestamp", "-C"])
        .arg(target.path())
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tar");
    let mut stdin = tar.stdin.take().expect("its input");
    let written = stdin.write_all(archive);
    drop(stdin);
    let output = tar.wait_with_output().expect("its end");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success() && written.is_ok());
    target
}

/// The names in an archive, in order, as the other side's reader sees them; it reads every content too.
#[track_caller]
fn listed(archive: &[u8]) -> Vec<Vec<u8>> {
    let mut archive = tar::Archive::new(archive);
    let mut names = Vec::new();
    for entry in archive.entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let size = entry.header().size().expect("a size");
        assert_eq!(io::copy(&mut entry, &mut io::sink()).expect("its content"), size);
        names.push(entry.path_bytes().into_owned());
    }
    names
}

fn names(archive: &[u8]) -> BTreeSet<String> {
    listed(archive).iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

/// All that a path is.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    kind: u32,
    permissions: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    content: Vec<u8>,
    target: PathBuf,
    /// Which of the names it shares its inode with comes first.
    first_name: Vec<u8>,
}

#[track_caller]
fn look(root: &Path) -> BTreeMap<Vec<u8>, Seen> {
    let (mut seen, mut inodes, mut folders) = (BTreeMap::new(), BTreeMap::new(), vec![root.to_owned()]);
    let mut paths = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if fs::symlink_metadata(&path).expect("there").is_dir() {
                folders.push(path.clone());
            }
            paths.push(path);
        }
    }
    paths.sort();
    for path in paths {
        let meta = fs::symlink_metadata(&path).expect("there");
        let name = path.strip_prefix(root).expect("below").as_os_str().as_bytes().to_owned();
        let first_name = inodes.entry(meta.ino()).or_insert_with(|| name.clone()).clone();
        let seen_here = Seen {
            kind: meta.mode() & libc::S_IFMT,
            permissions: meta.mode() & 0o7777,
            owner: (meta.uid(), meta.gid()),
            modified: (meta.mtime(), meta.mtime_nsec()),
            content: if meta.is_file() { fs::read(&path).expect("readable") } else { Vec::new() },
            target: if meta.is_symlink() { fs::read_link(&path).expect("a link") } else { PathBuf::new() },
            first_name,
        };
        seen.insert(name, seen_here);
    }
    seen
}

fn touch(path: &Path, seconds: i64, nanos: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("a time");
}

fn fifo(path: &Path) {
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o640), 0).expect("a FIFO");
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Where hundreds of thousands of files cost little, if there is such a place.
fn quick_folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
}

/// Runs one test of this file in a process of its own: what it measures or restricts belongs to a whole process.
#[track_caller]
fn in_a_process_of_its_own(test: &str, work: fn()) {
    if env::var_os("PACK_TEST_CHILD").is_some() {
        return work();
    }
    let output = Command::new(env::current_exe().expect("this file"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env("PACK_TEST_CHILD", "1")
        .output()
        .expect("a child");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    println!("{said}");
}

#[test]
fn everything_comes_back_as_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("state");
    let at = |name: &str| root.join(name);
    fs::create_dir_all(at("empty")).expect("a folder");
    fs::create_dir_all(at("sub/below")).expect("a folder");
    fs::write(at("plain"), "plain").expect("a file");
    fs::write(at("nothing"), "").expect("a file");
    for size in [511, 512, 513, 256 * 1024 - 1, 256 * 1024, 3_000_001] {
        let content: Vec<u8> = (0..size).map(|place: u32| place.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        fs::write(at(&format!("sub/{size}")), content).expect("a file");
    }
    // Names: around the header's 100 bytes, a component's 255, a path's more than 255 and 4000, and no UTF-8.
    for length in [92, 93, 94, 95, 99, 100, 101, 155, 255] {
        fs::write(at(&"n".repeat(length)), length.to_string()).expect("a file");
        symlink("t".repeat(length), at("sub").join("l".repeat(length))).expect("a link");
        fs::create_dir(at("empty").join("d".repeat(length))).expect("a folder");
    }
    let long = at(&[&*"p".repeat(200); 15].join("/"));
    fs::create_dir_all(&long).expect("folders");
    fs::write(long.join("deep down"), "deep").expect("a file");
    symlink("x/".repeat(1500), at("far")).expect("a link");
    fs::write(root.join(OsStr::from_bytes(b"no \xff\xfe utf-8\n")), "odd").expect("a file");
    fs::create_dir(root.join(OsStr::from_bytes(b"\x80\x81"))).expect("a folder");
    fs::write(root.join(OsStr::from_bytes(&[0xff; 150])), "odd and long").expect("a file");
    fs::write(at("with\\backslash and a space "), "x").expect("a file");
    // Links.
    symlink("plain", at("link")).expect("a link");
    symlink("/nowhere/at/all", at("dangling")).expect("a link");
    symlink("..", at("sub/up")).expect("a link");
    fs::hard_link(at("plain"), at("sub/hard")).expect("a link");
    fs::hard_link(at("plain"), at("empty/harder")).expect("a link");
    fs::hard_link(long.join("deep down"), at("hard to a long path")).expect("a link");
    fs::hard_link(at("plain"), folder.path().join("outside")).expect("a link");
    fifo(&at("fifo"));
    // Permissions, owners, times.
    for (name, permissions) in [("plain", 0o4751), ("sub", 0o1777), ("empty", 0o2700), ("sub/513", 0o000)] {
        fs::set_permissions(at(name), PermissionsExt::from_mode(permissions)).expect("permissions");
    }
    if is_root() {
        for (name, user, group) in [("sub/511", 1000, 2000), ("sub/512", 1_000_650_000, 4_000_000_000), ("link", 7, 8)]
        {
            let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
            rustix::fs::chownat(CWD, at(name), Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW).expect("an owner");
        }
    }
    touch(&at("sub/512"), 1_234_567_890, 123_456_789);
    touch(&at("nothing"), 0, 0);
    touch(&at("link"), 1_700_000_000, 1);
    touch(&at("fifo"), 1_700_000_000, 999_999_999);
    touch(&at("sub/511"), -86_400, 0);
    touch(&at("sub/513"), -86_400, 250_000_000);
    touch(&at("empty"), 4_000_000_000, 500_000_000);
    touch(&at("sub"), 1_600_000_000, 5);
    touch(&root, 1_600_000_000, 7);

    let (archive, packed, notes) = packed(&mut trees(&[&root]), || ());
    assert_eq!(notes, [""; 0]);
    assert_eq!(packed.roots, ["state"]);
    let target = unpacked(&archive);
    let (before, after) = (look(&root), look(&target.path().join("state")));
    for (name, before) in &before {
        let name_shown = String::from_utf8_lossy(name);
        let after = after.get(name).unwrap_or_else(|| panic!("{name_shown} is missing"));
        assert!(before == after, "{name_shown}: {before:?} became {after:?}");
    }
    assert_eq!(before.len(), after.len());
    let folders = before.values().filter(|seen| seen.kind == libc::S_IFDIR).count();
    assert_eq!(packed.files, (before.len() - folders) as u64);
    let files = before.iter().filter(|(name, seen)| seen.kind == libc::S_IFREG && seen.first_name == **name);
    assert_eq!(packed.bytes, files.map(|(_, seen)| seen.content.len() as u64).sum::<u64>());
    let top = fs::metadata(target.path().join("state")).expect("there");
    assert_eq!((top.mtime(), top.mtime_nsec()), (1_600_000_000, 7));
    // The other side's reader sees the same names.
    let mut listed = listed(&archive);
    listed.iter_mut().for_each(|name| *name = name.strip_suffix(b"/").unwrap_or(name).to_owned());
    listed.sort();
    let mut expected: Vec<_> = before.keys().map(|name| [b"state/", &**name].concat()).collect();
    expected.push(b"state".into());
    expected.sort();
    assert_eq!(listed, expected);
}

#[test]
fn holes_stay_holes() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("state");
    fs::create_dir(&root).expect("a folder");
    let sparse = |name: &str, size: u64, data: &[(u64, &[u8])]| {
        let file = File::create(root.join(name)).expect("a file");
        file.set_len(size).expect("a size");
        for (offset, bytes) in data {
            file.write_all_at(bytes, *offset).expect("data");
        }
    };
    const MIB: u64 = 1024 * 1024;
    sparse("a hole alone", 10 * MIB, &[]);
    sparse("data first", 10 * MIB + 17, &[(0, &[1; 5000])]);
    sparse("data last", 10 * MIB, &[(10 * MIB - 3, &[2; 3])]);
    sparse("in between", 10 * MIB, &[(5 * MIB, &[3; 70_000])]);
    sparse("larger than octal can say", 12 * 1024 * MIB, &[(9 * 1024 * MIB, &[4; 4096]), (MIB, &[5; 1])]);
    sparse(&"long ".repeat(40), 10 * MIB, &[(4 * MIB, &[6; 1])]);
    let many: Vec<(u64, &[u8])> = (0..300).map(|piece| (piece * 65_536 + 4096, &b"piece"[..])).collect();
    sparse("many pieces", 300 * 65_536, &many);
    touch(&root.join("many pieces"), 1_700_000_000, 42);
    fs::write(root.join("dense"), vec![7; 2_000_000]).expect("a file");

    let (flow, _guard) = Flow::new();
    survey(&trees(&[&root]), &flow).expect("surveyed");
    let (archive, packed, notes) = packed(&mut trees(&[&root]), || ());
    assert_eq!(notes, [""; 0]);
    assert!(packed.archive_bytes < 6 * MIB, "{} bytes", packed.archive_bytes);
    // But for the file without a single block: some file systems count none at all.
    assert!(flow.counts()[1].1 < 16 * MIB, "no hole is expected to take time: {:?}", flow.counts());
    assert!(packed.bytes > 12 * 1024 * MIB, "what the files seem to be: {}", packed.bytes);
    let target = unpacked(&archive);
    for entry in fs::read_dir(&root).expect("a folder") {
        let name = entry.expect("an entry").file_name();
        let (before, after) = (root.join(&name), target.path().join("state").join(&name));
        let (old, new) = (fs::metadata(&before).expect("there"), fs::metadata(&after).expect("there"));
        assert_eq!((old.len(), old.mtime(), old.mtime_nsec()), (new.len(), new.mtime(), new.mtime_nsec()), "{name:?}");
        assert!(new.blocks() <= old.blocks() + 8, "{name:?}: {} blocks became {}", old.blocks(), new.blocks());
        assert!(same_content(&before, &after), "{name:?}");
    }
    // What reads the headers must also find that the contents fit them.
    let mut reader = tar::Archive::new(&archive[..]);
    let mut found = 0;
    for entry in reader.entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let path = folder.path().join(entry.path().expect("a path"));
        if !path.is_dir() && entry.header().size().expect("a size") < 100 * MIB {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("its content");
            assert!(content == fs::read(&path).expect("there"), "{}", path.display());
            found += 1;
        }
    }
    assert_eq!(found, 7);
}

/// Only the data is read: the holes of the largest would take a minute.
fn same_content(one: &Path, other: &Path) -> bool {
    let (one, other) = (File::open(one).expect("there"), File::open(other).expect("there"));
    let size = one.metadata().expect("there").len();
    let mut at = 0;
    while at < size {
        let Ok(next) = [&one, &other]
            .map(|file| rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)).unwrap_or(size))
            .into_iter()
            .min()
            .ok_or(())
        else {
            return false;
        };
        if next >= size {
            return true;
        }
        let piece = 65_536.min(size - next) as usize;
        let (mut here, mut there) = (vec![0; piece], vec![0; piece]);
        one.read_exact_at(&mut here, next).expect("readable");
        other.read_exact_at(&mut there, next).expect("readable");
        if here != there {
            return false;
        }
        at = next + piece as u64;
    }
    true
}

#[test]
fn streams_lie_beside_trees() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("dump.rdb");
    fs::write(&root, "redis").expect("a file");
    let mut spool = tempfile::tempfile().expect("a file");
    spool.write_all(&[b'x'; 700_000]).expect("content");
    let mut selection = Selection {
        items: vec![
            Item::Stream { name: "postgres.sql".into(), content: Spooled::Memory(b"select 1;".into()) },
            Item::Tree(root),
            Item::Stream { name: "n".repeat(120), content: Spooled::File(spool, 700_000) },
        ],
        // Streams are wanted by name.
        patterns: Patterns::new(&["*.rdb".into()], &["*.sql".into()]).expect("globs"),
        ..Selection::default()
    };
    let (flow, _guard) = Flow::new();
    survey(&selection, &flow).expect("surveyed");
    let mut sink = Count(0);
    let done = pack(&mut selection, &mut sink, &flow).expect("packed");
    assert_eq!(flow.counts()[0], flow.counts()[1], "what was expected was done");
    assert_eq!((done.files, done.bytes), (3, 700_014));
    assert_eq!(done.roots, ["postgres.sql", "dump.rdb", &*"n".repeat(120)]);
    let (archive, ..) = packed(&mut selection, || ());
    let target = unpacked(&archive);
    assert_eq!(fs::read(target.path().join("postgres.sql")).expect("there"), b"select 1;");
    assert_eq!(fs::metadata(target.path().join("postgres.sql")).expect("there").mode() & 0o7777, 0o600);
    assert_eq!(fs::read(target.path().join("dump.rdb")).expect("there"), b"redis");
    assert_eq!(fs::read(target.path().join("n".repeat(120))).expect("there"), [b'x'; 700_000]);

    let Some(Item::Stream { content: Spooled::File(file, _), .. }) = selection.items.last() else { unreachable!() };
    file.set_len(600_000).expect("cut");
    let (flow, _guard) = Flow::new();
    let error = pack(&mut selection, &mut Count(0), &flow).expect_err("our own spool must be whole").to_string();
    assert_eq!(error, format!("{}: the file that it waits in was cut", "n".repeat(120)));
}

#[test]
fn a_size_beyond_octal_is_told() {
    // Nobody waits for nine gigabytes: the header comes first, then the reader goes away.
    struct First(Vec<u8>);
    impl Write for First {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if !self.0.is_empty() {
                return Err(io::Error::other("enough"));
            }
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let file = tempfile::tempfile().expect("a file");
    let size = 9 * 1024 * 1024 * 1024;
    file.set_len(size).expect("a size");
    let items = vec![Item::Stream { name: "large".into(), content: Spooled::File(file, size) }];
    let mut selection = Selection { items, ..Selection::default() };
    let (mut first, (flow, _guard)) = (First(Vec::new()), Flow::new());
    assert_eq!(pack(&mut selection, &mut first, &flow).expect_err("the reader's end").to_string(), "enough");
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes().copy_from_slice(&first.0[..512]);
    assert_eq!(header.size().expect("a size"), size);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cut.tar");
    fs::write(&path, &first.0).expect("a file");
    let output = Command::new("tar").arg("-tvf").arg(&path).output().expect("tar");
    assert!(String::from_utf8_lossy(&output.stdout).contains(&format!(" {size} ")), "{output:?}");
}

/// A folder with files so large that the archive goes out between them, and names around them that are read before that.
fn with_large_files() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("state");
    fs::create_dir(&root).expect("a folder");
    // With eight of them at random places, not all forty others stand before the first: one in 377 million.
    for large in 0..8 {
        fs::write(root.join(format!("large{large}")), vec![b'l'; 300_000]).expect("a file");
    }
    (folder, root)
}

#[test]
fn what_vanishes_is_noted_and_the_rest_saved() {
    let (_folder, root) = with_large_files();
    for small in 0..40 {
        fs::write(root.join(format!("small{small}")), "small").expect("a file");
    }
    let (archive, packed, notes) = packed(&mut trees(&[&root]), || {
        for small in 0..40 {
            fs::remove_file(root.join(format!("small{small}"))).expect("removed");
        }
    });
    let there = names(&archive);
    assert!((0..8).all(|large| there.contains(&format!("state/large{large}"))));
    // Those whose names were read before they went; of the others nobody knows.
    assert!(!notes.is_empty());
    for note in notes {
        let name = note.strip_prefix(&format!("vanished before it was read: {}/", root.display())).expect("the note");
        assert!(name.starts_with("small") && !there.contains(&format!("state/{name}")), "{note}");
    }
    assert_eq!(packed.files as usize, there.len() - 1);
    unpacked(&archive);
}

#[test]
fn what_changes_is_noted_and_stays_readable() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    let note = [format!("changed while it was read: {}", path.display())];
    let open = || File::options().write(true).open(&path).expect("there");
    for (what, change, content) in [
        ("longer", Box::new(|| open().write_all_at(b"more", 1_000_000).expect("more")) as Box<dyn Fn()>, 1_000_000),
        ("shorter", Box::new(|| open().set_len(400_000).expect("less")), 400_000),
        ("as long", Box::new(|| open().write_all_at(b"a", 0).expect("other")), 1_000_000),
    ] {
        fs::write(&path, vec![b'a'; 1_000_000]).expect("a file");
        touch(&path, 1_700_000_000, 0);
        let (archive, packed, notes) = packed(&mut trees(&[&path]), change);
        assert_eq!(notes, note, "{what}");
        assert_eq!((packed.files, packed.bytes), (1, 1_000_000));
        let target = unpacked(&archive);
        let stored = fs::read(target.path().join("log")).expect("there");
        assert_eq!(stored.len(), 1_000_000, "{what}");
        assert!(stored[..content].iter().all(|byte| *byte == b'a'), "{what}");
        assert!(stored[content..].iter().all(|byte| *byte == 0), "{what}");
    }
    // Another file in its place: what was read of the old one is whole.
    fs::write(&path, vec![b'a'; 1_000_000]).expect("a file");
    fs::write(folder.path().join("new"), "new").expect("a file");
    let replace = || fs::rename(folder.path().join("new"), &path).expect("renamed");
    assert_eq!(packed(&mut trees(&[&path]), replace).2, [""; 0]);
    assert_eq!(fs::read(&path).expect("there"), b"new");
}

#[test]
fn a_swapped_path_leads_nowhere_else() {
    let (folder, root) = with_large_files();
    let outside = folder.path().join("outside");
    fs::create_dir(&outside).expect("a folder");
    fs::write(outside.join("secret"), "the secret").expect("a file");
    for place in 0..14 {
        fs::write(root.join(format!("file{place}")), "mine").expect("a file");
        fs::write(root.join(format!("fifo{place}")), "mine").expect("a file");
        fs::create_dir(root.join(format!("folder{place}"))).expect("a folder");
    }
    let swapped = Cell::new(false);
    let (archive, packed, notes) = packed(&mut trees(&[&root]), || {
        for place in 0..14 {
            fs::remove_file(root.join(format!("file{place}"))).expect("removed");
            symlink(outside.join("secret"), root.join(format!("file{place}"))).expect("a link");
            fs::remove_file(root.join(format!("fifo{place}"))).expect("removed");
            fifo(&root.join(format!("fifo{place}")));
            fs::remove_dir(root.join(format!("folder{place}"))).expect("removed");
            symlink(&outside, root.join(format!("folder{place}"))).expect("a link");
        }
        swapped.set(true);
    });
    assert!(swapped.get());
    assert!(!archive.windows(10).any(|bytes| bytes == b"the secret"));
    assert!(!names(&archive).iter().any(|name| name.contains("secret")));
    assert!(!notes.is_empty() && packed.files >= 8, "{notes:?}");
    assert!(notes.iter().all(|note| note.starts_with("changed while it was read: ")), "{notes:?}");
    // What was noted is not in it, and what is in it is what it says.
    let target = unpacked(&archive);
    for note in notes {
        let path = note.rsplit('/').next().expect("a name");
        assert!(!target.path().join("state").join(path).exists(), "{note}");
    }
    for (name, seen) in look(target.path()) {
        let is_whole = seen.kind != libc::S_IFREG || seen.content == b"mine" || name.starts_with(b"state/large");
        assert!(is_whole, "{}", String::from_utf8_lossy(&name));
    }
}

/// As somebody who may not read everything, on this thread alone.
fn as_another_user<T>(work: impl FnOnce() -> T) -> T {
    let set = |user: u32| {
        // SAFETY: setfsuid(2) takes a number and changes the calling thread alone; from 0 to another it also takes the
        // capabilities away that concern files (capabilities(7)).
        unsafe { libc::setfsuid(user) };
    };
    let own = rustix::process::geteuid().as_raw();
    set(if is_root() { 65_534 } else { own });
    let result = work();
    set(own);
    result
}

#[test]
fn what_cannot_be_read_is_noted_and_the_rest_saved() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("permissions");
    let root = folder.path().join("state");
    fs::create_dir_all(root.join("closed folder")).expect("a folder");
    fs::write(root.join("closed"), "mine").expect("a file");
    fs::write(root.join("open"), "open").expect("a file");
    for name in ["closed", "closed folder"] {
        fs::set_permissions(root.join(name), PermissionsExt::from_mode(0o000)).expect("permissions");
    }
    let (archive, packed, mut notes) = as_another_user(|| packed(&mut trees(&[&root]), || ()));
    notes.sort();
    assert_eq!(
        notes,
        ["closed folder", "closed"]
            .map(|name| { format!("cannot be read: {}/{name}: Permission denied", root.display()) })
    );
    assert_eq!(names(&archive), ["state/", "state/open"].map(String::from).into());
    assert_eq!(packed.files, 1);
    // The source itself.
    for name in ["closed", "closed folder"] {
        let path = root.join(name);
        let (kind, text) = as_another_user(|| refused(&mut trees(&[&path])));
        assert_eq!((kind, text), (io::ErrorKind::PermissionDenied, format!("{}: Permission denied", path.display())));
    }
}

#[test]
fn a_file_that_fails_while_it_is_read_is_left_out() {
    // Files of sysfs say 4096 bytes, hold a line, and some fail on the first byte.
    let root = Path::new("/sys/class/net/lo/");
    if fs::read(root.join("speed")).is_ok() || !root.join("speed").exists() {
        return;
    }
    let mut selection = trees(&[root]);
    selection.patterns = Patterns::new(&["speed".into(), "mtu".into()], &[]).expect("globs");
    let (archive, packed, mut notes) = packed(&mut selection, || ());
    notes.sort();
    assert_eq!(notes[0], "cannot be read: /sys/class/net/lo/speed: Invalid argument");
    assert_eq!(notes[1], "changed while it was read: /sys/class/net/lo/mtu");
    assert_eq!(names(&archive), ["lo/", "lo/mtu"].map(String::from).into());
    assert_eq!(packed.files, 1);
    let target = unpacked(&archive);
    assert!(
        fs::read(target.path().join("lo/mtu")).expect("there").starts_with(&fs::read(root.join("mtu")).expect("there"))
    );
}

#[test]
fn sockets_are_left_out_and_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("run");
    fs::create_dir(&root).expect("a folder");
    fs::write(root.join("pid"), "1").expect("a file");
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).expect("a socket");
    let (archive, _, notes) = packed(&mut trees(&[&root]), || ());
    assert_eq!(notes, [format!("left out, it is a socket: {}/socket", root.display())]);
    assert_eq!(names(&archive), ["run/", "run/pid"].map(String::from).into());
    let path = root.join("socket");
    let text = format!("{}: it is a device or a socket, which cannot be saved", path.display());
    assert_eq!(refused(&mut trees(&[&path])), (io::ErrorKind::InvalidInput, text));
}

#[test]
fn a_source_may_be_missing_but_not_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let (here, gone) = (folder.path().join("here"), folder.path().join("gone"));
    fs::create_dir(&here).expect("a folder");
    let (archive, packed_, notes) = packed(&mut trees(&[&gone, &here]), || ());
    assert_eq!(notes, [format!("{}: No such file or directory", gone.display())]);
    assert_eq!(names(&archive), ["here/".to_owned()].into());
    assert_eq!(packed_.roots, ["here"]);
    let text = format!("{}: No such file or directory", gone.display());
    assert_eq!(refused(&mut trees(&[&gone])), (io::ErrorKind::NotFound, text));
    // A link that leads nowhere is as good as none; one that leads somewhere is that place under its own name.
    let current = folder.path().join("current");
    symlink(&gone, &current).expect("a link");
    assert_eq!(refused(&mut trees(&[&current])).0, io::ErrorKind::NotFound);
    fs::create_dir(&gone).expect("a folder");
    fs::write(gone.join("file"), "x").expect("a file");
    symlink("file", gone.join("inner")).expect("a link");
    let (archive, ..) = packed(&mut trees(&[&current]), || ());
    let target = unpacked(&archive);
    assert_eq!(fs::read(target.path().join("current/file")).expect("there"), b"x");
    assert!(fs::symlink_metadata(target.path().join("current")).expect("there").is_dir());
    assert!(fs::symlink_metadata(target.path().join("current/inner")).expect("there").is_symlink());
    let file = folder.path().join("file");
    symlink(gone.join("file"), &file).expect("a link");
    let (archive, ..) = packed(&mut trees(&[&file]), || ());
    assert!(fs::symlink_metadata(unpacked(&archive).path().join("file")).expect("there").is_file());
}

#[test]
fn sources_have_names_of_their_own() {
    let text = |selection: &mut Selection| {
        let (kind, text) = refused(selection);
        assert_eq!(kind, io::ErrorKind::InvalidInput);
        text
    };
    assert_eq!(
        text(&mut trees(&[Path::new("/a/data"), Path::new("/b/data/")])),
        "two sources would be stored as data: save one of them in a step of its own"
    );
    assert_eq!(
        text(&mut trees(&[Path::new("/")])),
        "/: it has no last component to be stored under: write the folder's name"
    );
    for name in ["", "..", "a/b"] {
        let items = vec![Item::Stream { name: name.into(), content: Spooled::Memory(Vec::new()) }];
        let mut selection = Selection { items, ..Selection::default() };
        assert_eq!(text(&mut selection), format!("{name:?}: it cannot be the name of a file"));
    }
}

#[test]
fn patterns_choose_what_is_stored() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("s");
    for path in ["a/1.tmp", "a/1.db", "a/deep/er/2.db", "cache/x.db", "b/cache/y", "b/z.log", "top.db", "empty/no"] {
        fs::create_dir_all(root.join(path).parent().expect("a folder")).expect("folders");
        fs::write(root.join(path), path).expect("a file");
    }
    fs::remove_file(root.join("empty/no")).expect("removed");
    let all = "s/ s/a/ s/a/1.db s/a/1.tmp s/a/deep/ s/a/deep/er/ s/a/deep/er/2.db s/b/ s/b/cache/ s/b/cache/y s/b/z.log \
               s/cache/ s/cache/x.db s/empty/ s/top.db";
    for (include, exclude, stored) in [
        (&[][..], &[][..], all),
        (&[], &["*"], ""),
        (&[], &["s/a", "cache", "*.log", "empty"], "s/ s/b/ s/top.db"),
        (&[], &["s/*/cache/", "a/**"], &all.replace("s/b/cache/ s/b/cache/y ", "")),
        (&["*.db"], &[], "s/ s/a/ s/a/1.db s/a/deep/ s/a/deep/er/ s/a/deep/er/2.db s/cache/ s/cache/x.db s/top.db"),
        (&["*.db"], &["cache", "deep"], "s/ s/a/ s/a/1.db s/top.db"),
        (&["s/a"], &["*.tmp"], "s/ s/a/ s/a/1.db s/a/deep/ s/a/deep/er/ s/a/deep/er/2.db"),
        (&["empty", "s/b/*.log"], &[], "s/ s/b/ s/b/z.log s/empty/"),
        (&["2.db"], &["1.*"], "s/ s/a/ s/a/deep/ s/a/deep/er/ s/a/deep/er/2.db"),
        (&["nothing"], &[], ""),
        (&["s"], &[], all),
    ] {
        let owned = |globs: &[&str]| globs.iter().map(|glob| (*glob).to_owned()).collect::<Vec<_>>();
        let mut selection = trees(&[&root]);
        selection.patterns = Patterns::new(&owned(include), &owned(exclude)).expect("globs");
        let (flow, _guard) = Flow::new();
        survey(&selection, &flow).expect("surveyed");
        let (archive, packed, notes) = packed(&mut selection, || ());
        let names: Vec<_> = names(&archive).into_iter().collect();
        assert_eq!(names.join(" "), stored, "include {include:?} exclude {exclude:?}");
        assert_eq!(flow.counts()[1].0, packed.files);
        match (include, exclude) {
            (_, ["*"]) => assert_eq!(notes, [format!("left out by include and exclude: {}", root.display())]),
            (["nothing"], _) => assert_eq!(notes, ["no file matches include"]),
            _ => assert_eq!(notes, [""; 0]),
        }
    }
}

#[test]
fn the_store_is_never_in_a_save() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("data");
    fs::create_dir_all(root.join("backups/old")).expect("a folder");
    fs::write(root.join("file"), "x").expect("a file");
    fs::write(root.join("lone"), "x").expect("a file");
    let mut selection = trees(&[&root]);
    // By another name than the walk's, and one that does not exist.
    symlink(root.join("backups"), folder.path().join("store")).expect("a link");
    selection.leave_out = vec![folder.path().join("store"), folder.path().join("none"), root.join("lone")];
    let (flow, _guard) = Flow::new();
    survey(&selection, &flow).expect("surveyed");
    let (archive, packed, _) = packed(&mut selection, || ());
    assert_eq!(names(&archive), ["data/", "data/file"].map(String::from).into());
    assert_eq!((packed.files, flow.counts()[1].0), (1, 1));
    selection.items = vec![Item::Tree(root.join("backups"))];
    let text = format!("{}/backups: it is where the snapshots are kept", root.display());
    assert_eq!(refused(&mut selection), (io::ErrorKind::InvalidInput, text));
}

#[test]
fn gives_up_when_nobody_waits() {
    let (_folder, root) = with_large_files();
    let (flow, guard) = Flow::new();
    let mut guard = Some(guard);
    let mut sink = Sink { archive: Vec::new(), meanwhile: Some(Box::new(|| drop(guard.take()))) };
    assert_eq!(pack(&mut trees(&[&root]), &mut sink, &flow).expect_err("stopped").to_string(), "given up");
    assert!(sink.archive.len() < 600_000, "{} bytes", sink.archive.len());
}

#[test]
fn a_deep_tree_needs_neither_stack_nor_descriptors() {
    in_a_process_of_its_own("a_deep_tree_needs_neither_stack_nor_descriptors", || {
        const LEVELS: usize = 10_000;
        let folder = quick_folder();
        let mut at = rustix::fs::open(folder.path(), OFlags::DIRECTORY, Mode::empty()).expect("open");
        for level in 0..LEVELS {
            // A file of another name each, so that it comes after the folder in some of them: there the walk goes on
            // when it comes back.
            let name = level.to_string();
            rustix::fs::openat(&at, &name, OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).expect("a file");
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).expect("a folder");
            at = rustix::fs::openat(&at, "d", OFlags::DIRECTORY, Mode::empty()).expect("open");
        }
        drop(at);
        let few = rustix::process::Rlimit { current: Some(64), maximum: Some(64) };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, few).expect("a limit");
        let root = folder.path().to_owned();
        let small = std::thread::Builder::new().stack_size(128 * 1024).spawn(move || {
            let (flow, _guard) = Flow::new();
            let mut selection = trees(&[&root]);
            survey(&selection, &flow).expect("surveyed");
            let packed = pack(&mut selection, &mut Count(0), &flow).expect("packed");
            assert_eq!(flow.notes().lines, [""; 0]);
            assert_eq!((packed.files, flow.counts()[1].0), (LEVELS as u64, LEVELS as u64));
        });
        let done = small.expect("a thread").join();
        // The standard library's own removal needs a descriptor for each level.
        Command::new("rm").arg("-rf").arg(folder.path()).status().expect("rm");
        done.expect("packed");
    });
}

#[test]
fn a_tree_moved_while_it_is_read_is_noted() {
    // So deep that folders above are closed meanwhile: the archive goes out at the bottom, where everything moves.
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("state");
    let bottom = root.join(["d"; 100].join("/"));
    fs::create_dir_all(&bottom).expect("folders");
    fs::write(bottom.join("large"), vec![b'l'; 600_000]).expect("a file");
    let (archive, packed, notes) = packed(&mut trees(&[&root]), || {
        // Neither `..` nor the names lead back to what lies between.
        fs::rename(root.join(["d"; 40].join("/")), root.join("moved")).expect("moved");
        fs::rename(root.join("d/d"), folder.path().join("gone")).expect("moved");
        // Others in their place.
        let mut at = root.join("d");
        for _ in 0..45 {
            at.push("d");
            fs::create_dir(&at).expect("a folder");
            for other in 0..20 {
                fs::write(at.join(format!("other{other}")), "other").expect("a file");
            }
        }
    });
    let note = format!("changed while it was read: {}/d/d", root.display());
    assert!(!notes.is_empty() && notes.iter().all(|line| line.starts_with(&note)), "{notes:?}");
    assert!(!names(&archive).iter().any(|name| name.contains("other")), "what took their place is not theirs");
    assert_eq!(packed.files, 1);
    assert!(names(&archive).contains(&format!("state/{}/large", ["d"; 100].join("/"))));
}

#[test]
fn a_folder_of_many_names_needs_no_more_memory() {
    in_a_process_of_its_own("a_folder_of_many_names_needs_no_more_memory", || {
        const ENTRIES: u64 = 200_000;
        let folder = quick_folder();
        let at = rustix::fs::open(folder.path(), OFlags::DIRECTORY, Mode::empty()).expect("open");
        for entry in 0..ENTRIES {
            let name = format!("{entry:0>60}");
            rustix::fs::openat(&at, &name, OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).expect("a file");
        }
        let kib = |key: &str| {
            let status = fs::read_to_string("/proc/self/status").expect("readable");
            let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("the line");
            line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().expect("a number")
        };
        let before = kib("VmRSS:");
        let (flow, _guard) = Flow::new();
        let mut selection = trees(&[folder.path()]);
        survey(&selection, &flow).expect("surveyed");
        let packed = pack(&mut selection, &mut Count(0), &flow).expect("packed");
        assert_eq!((packed.files, flow.counts()[1].0), (ENTRIES, ENTRIES));
        let more = kib("VmHWM:").saturating_sub(before);
        println!("{more} KiB more for {ENTRIES} entries");
        assert!(more < 2048, "{more} KiB more");
    });
}

#[test]
fn a_sink_may_take_little_at_a_time() {
    // A sink that takes one byte at a time still gets a whole archive.
    struct Slow(Vec<u8>);
    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let now = bytes.len().min(1 + self.0.len() % 7919);
            self.0.extend_from_slice(&bytes[..now]);
            Ok(now)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (_folder, root) = with_large_files();
    let (mut slow, (flow, _guard)) = (Slow(Vec::new()), Flow::new());
    pack(&mut trees(&[&root]), &mut slow, &flow).expect("packed");
    assert_eq!(slow.0, packed(&mut trees(&[&root]), || ()).0);
}

#[test]
fn odd_names_make_one_line_of_a_note() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("run");
    fs::create_dir(&root).expect("a folder");
    let name = std::ffi::OsString::from_vec(b"a\nb\x1b".into());
    let _socket = std::os::unix::net::UnixListener::bind(root.join(name)).expect("a socket");
    let (_, _, notes) = packed(&mut trees(&[&root]), || ());
    assert_eq!(notes, [format!("left out, it is a socket: {}/a?b?", root.display())]);
}
