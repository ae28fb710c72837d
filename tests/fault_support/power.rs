//! What a disk may hold after a power loss, by the letter of fsync(2): bytes of a file are safe once the file was
//! synced, and an entry of a folder once the folder was. Of everything else any part may be there, in any combination.
//! Stricter than any one file system: what holds here rests on no file system's habits.
//!
//! A run is recorded with strace(1) and played again up to each of its moments. Only for folders that are not renamed.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use super::run;

/// What a run did below a folder, which was empty when it began.
#[derive(Debug, Default)]
pub struct Recording {
    folder: PathBuf,
    deeds: Vec<Deed>,
    /// Those of the files that are folders.
    folders: BTreeSet<File>,
}

type File = usize;

#[derive(Debug)]
enum Deed {
    /// Names that a call changed in one go: each is now this file's, or nobody's.
    Names(Vec<(PathBuf, Option<File>)>),
    Write(File, usize, Vec<u8>),
    Cut(File, usize),
    SyncFile(File),
    SyncFolder(PathBuf),
    /// What it told the outside world.
    Said(String),
}

/// One of the possible disks.
#[derive(Debug, Default)]
pub struct Disk {
    /// By their paths in the folder.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    /// What was said before the power failed: promises to be kept.
    pub said: String,
    /// After so many deeds.
    pub moment: usize,
}

const TRACED: &str = "trace=?open,openat,?creat,write,pwrite64,writev,fsync,fdatasync,ftruncate,fallocate,?rename,\
                      ?renameat,renameat2,?link,linkat,?unlink,unlinkat,?mkdir,mkdirat,?dup,?dup2,dup3,fcntl,close,\
                      copy_file_range,?sendfile";

/// Runs a command of one thread and records what it does below the folder.
///
/// # Panics
/// It fails, or does what is not understood here.
pub fn record(line: &[OsString], folder: &Path) -> Recording {
    let log = tempfile::NamedTempFile::new().expect("a temporary file");
    let mut strace = Command::new("strace");
    // All bytes, as \x61.
    strace.args(["-q", "-xx", "-s", "100000000", "-e", TRACED, "-e", "signal=none", "-o"]).arg(log.path());
    strace.arg("--").args(line);
    let ended = run(strace);
    assert!(ended.status.success(), "{ended:?}");
    let mut reader = Reader::of(folder);
    for line in std::fs::read_to_string(log.path()).expect("a trace").lines() {
        reader.read(line);
    }
    assert!(!reader.deeds.is_empty(), "it did nothing below {}", folder.display());
    Recording { folder: folder.to_owned(), deeds: reader.deeds, folders: reader.folders }
}

/// What a descriptor stands for.
#[derive(Clone, Debug)]
enum Open {
    Folder(PathBuf),
    File { file: File, at: usize, append: bool },
    Stdout,
}

struct Reader<'a> {
    folder: &'a Path,
    open: BTreeMap<i64, Open>,
    names: BTreeMap<PathBuf, File>,
    files: usize,
    deeds: Vec<Deed>,
    folders: BTreeSet<File>,
}

impl<'a> Reader<'a> {
    fn of(folder: &'a Path) -> Self {
        let (open, names, folders) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { folder, open, names, files: 0, deeds: Vec::new(), folders }
    }

    /// `openat(3, "\x61", O_RDONLY) = 4`
    fn read(&mut self, line: &str) {
        self.open.entry(1).or_insert(Open::Stdout);
        let Some((call, rest)) = line.split_once('(') else { return };
        let Some((words, result)) =
            rest.rsplit_once(") ").and_then(|(words, end)| Some((words, end.split_once("= ")?.1)))
        else {
            return;
        };
        let Some(result) = result.split(' ').next().and_then(parse_number).filter(|number| *number >= 0) else {
            return;
        };
        // Strings are all \x61 and hold no comma.
        let words: Vec<&str> = words.split(", ").collect();
        let here = "AT_FDCWD";
        match call {
            "open" => self.opened(here, words[0], words[1], result),
            "creat" => self.opened(here, words[0], "O_WRONLY|O_CREAT|O_TRUNC", result),
            "openat" => self.opened(words[0], words[1], words[2], result),
            "write" => self.written(words[0], words[1], None),
            "pwrite64" => self.written(words[0], words[1], Some(words[3])),
            "ftruncate" => {
                if let Some(Open::File { file, .. }) = self.descriptor(words[0]) {
                    self.deeds.push(Deed::Cut(file, words[1].parse().expect("a length")));
                }
            }
            "fsync" | "fdatasync" => match self.descriptor(words[0]) {
                Some(Open::Folder(path)) => self.deeds.push(Deed::SyncFolder(path)),
                Some(Open::File { file, .. }) => self.deeds.push(Deed::SyncFile(file)),
                _ => {}
            },
            "rename" => self.moved((here, words[0]), (here, words[1]), true),
            "renameat" | "renameat2" => self.moved((words[0], words[1]), (words[2], words[3]), true),
            "link" => self.moved((here, words[0]), (here, words[1]), false),
            "linkat" => self.moved((words[0], words[1]), (words[2], words[3]), false),
            "unlink" => self.removed(here, words[0]),
            "unlinkat" => self.removed(words[0], words[1]),
            "mkdir" => self.made(here, words[0]),
            "mkdirat" => self.made(words[0], words[1]),
            "fcntl" if words[1].starts_with("F_DUPFD") => self.doubled(words[0], result),
            "dup" | "dup2" | "dup3" => self.doubled(words[0], result),
            "close" => drop(parse_number(words[0]).and_then(|number| self.open.remove(&number))),
            "writev" | "copy_file_range" | "sendfile" | "fallocate" => {
                let ours = words.iter().any(|word| matches!(self.descriptor(word), Some(Open::File { .. })));
                assert!(!ours, "not understood here: {call}");
            }
            _ => {}
        }
    }

    fn descriptor(&self, word: &str) -> Option<Open> {
        self.open.get(&parse_number(word)?).cloned()
    }

    /// The path, if it is in question.
    fn path(&self, folder: &str, word: &str) -> Option<PathBuf> {
        let name = PathBuf::from(String::from_utf8(parse_string(word)).expect("tests have names of text"));
        let path = match self.descriptor(folder) {
            Some(Open::Folder(folder)) => folder.join(name),
            _ => name,
        };
        let path: PathBuf = path.components().filter(|part| part.as_os_str() != ".").collect();
        path.starts_with(self.folder).then_some(path)
    }

    fn opened(&mut self, folder: &str, name: &str, flags: &str, number: i64) {
        self.open.remove(&number);
        let Some(path) = self.path(folder, name) else { return };
        let is_folder = self.names.get(&path).is_some_and(|file| self.folders.contains(file));
        if is_folder || path == self.folder {
            self.open.insert(number, Open::Folder(path));
            return;
        }
        let file = match self.names.get(&path) {
            Some(file) => *file,
            None => {
                assert!(flags.contains("O_CREAT"), "the folder was not empty: {}", path.display());
                self.files += 1;
                self.rename(vec![(path, Some(self.files))]);
                self.files
            }
        };
        if flags.contains("O_TRUNC") {
            self.deeds.push(Deed::Cut(file, 0));
        }
        self.open.insert(number, Open::File { file, at: 0, append: flags.contains("O_APPEND") });
    }

    fn written(&mut self, descriptor: &str, bytes: &str, at: Option<&str>) {
        let bytes = parse_string(bytes);
        match parse_number(descriptor).and_then(|number| self.open.get_mut(&number)) {
            Some(Open::Stdout) => self.deeds.push(Deed::Said(String::from_utf8_lossy(&bytes).into_owned())),
            Some(Open::File { file, at: place, append }) => {
                assert!(!*append, "not understood here: O_APPEND");
                let start = at.map_or(*place, |at| at.parse().expect("an offset"));
                if at.is_none() {
                    *place += bytes.len();
                }
                self.deeds.push(Deed::Write(*file, start, bytes));
            }
            _ => {}
        }
    }

    fn moved(&mut self, from: (&str, &str), to: (&str, &str), is_rename: bool) {
        let (Some(from), Some(to)) = (self.path(from.0, from.1), self.path(to.0, to.1)) else { return };
        let file = *self.names.get(&from).expect("folders are not renamed here");
        let mut names = vec![(to, Some(file))];
        if is_rename {
            names.push((from, None));
        }
        self.rename(names);
    }

    fn made(&mut self, folder: &str, name: &str) {
        if let Some(path) = self.path(folder, name) {
            self.files += 1;
            self.folders.insert(self.files);
            self.rename(vec![(path, Some(self.files))]);
        }
    }

    fn removed(&mut self, folder: &str, name: &str) {
        if let Some(path) = self.path(folder, name) {
            self.rename(vec![(path, None)]);
        }
    }

    fn rename(&mut self, names: Vec<(PathBuf, Option<File>)>) {
        for (path, file) in &names {
            set(&mut self.names, path, *file);
        }
        self.deeds.push(Deed::Names(names));
    }

    fn doubled(&mut self, descriptor: &str, number: i64) {
        match self.descriptor(descriptor) {
            Some(open) => drop(self.open.insert(number, open)),
            None => drop(self.open.remove(&number)),
        }
    }
}

fn set(names: &mut BTreeMap<PathBuf, File>, path: &Path, file: Option<File>) {
    match file {
        Some(file) => drop(names.insert(path.to_owned(), file)),
        None => drop(names.remove(path)),
    }
}

fn parse_number(word: &str) -> Option<i64> {
    word.trim().parse().ok()
}

/// `"\x61\x62"`
fn parse_string(word: &str) -> Vec<u8> {
    let inner = word.strip_prefix('"').and_then(|word| word.strip_suffix('"')).expect("a whole string");
    let hex = |digits: &str| u8::from_str_radix(digits, 16).expect("hexadecimal");
    inner.split("\\x").skip(1).map(hex).collect()
}

/// How much of what was not synced is there.
#[derive(Clone, Copy, Debug)]
enum Luck {
    Nothing,
    Everything,
    NamesAlone,
    /// Names, and files of the right size full of zeros.
    Zeros,
    Chance,
}

impl Recording {
    pub fn moments(&self) -> usize {
        self.deeds.len()
    }

    /// Lets the power fail at each moment, the given number of times by chance and in a few ways of note. Returns how
    /// many disks were looked at.
    pub fn lose_power(&self, chances: usize, check: &mut dyn FnMut(&Disk)) -> usize {
        let mut looked = 0;
        // Any fixed seed: a failure comes again.
        let mut random = 0x2545_f491_4f6c_dd1d;
        for moment in 0..=self.deeds.len() {
            let ways = [Luck::Nothing, Luck::Everything, Luck::NamesAlone, Luck::Zeros];
            for luck in ways.into_iter().chain(std::iter::repeat_n(Luck::Chance, chances)) {
                check(&self.disk(moment, luck, &mut random));
                looked += 1;
            }
        }
        looked
    }

    fn disk(&self, moment: usize, luck: Luck, random: &mut u64) -> Disk {
        let deeds = &self.deeds[..moment];
        let mut said = String::new();
        let mut names = BTreeMap::new();
        let mut contents: BTreeMap<File, Vec<u8>> = BTreeMap::new();
        for (index, deed) in deeds.iter().enumerate() {
            let later = &deeds[index + 1..];
            match deed {
                Deed::Said(text) => said.push_str(text),
                Deed::Names(changes) => {
                    // One call is there or not, in each of its folders.
                    let is_there = luck.names(random);
                    for (path, file) in changes {
                        let synced = later
                            .iter()
                            .any(|deed| matches!(deed, Deed::SyncFolder(folder) if path.parent() == Some(folder)));
                        if synced || is_there {
                            set(&mut names, path, *file);
                        }
                    }
                }
                Deed::Write(file, at, bytes) => {
                    let synced = is_synced(later, *file);
                    let (is_there, is_zero) = luck.bytes(random);
                    if synced || is_there {
                        let content = contents.entry(*file).or_default();
                        content.resize(content.len().max(at + bytes.len()), 0);
                        if synced || !is_zero {
                            content[*at..at + bytes.len()].copy_from_slice(bytes);
                        }
                    }
                }
                Deed::Cut(file, length) => {
                    if is_synced(later, *file) || luck.bytes(random).0 {
                        contents.entry(*file).or_default().resize(*length, 0);
                    }
                }
                Deed::SyncFile(_) | Deed::SyncFolder(_) => {}
            }
        }
        let is_there = |path: &Path| {
            let folders = path.ancestors().skip(1).take_while(|folder| *folder != self.folder);
            folders.into_iter().all(|folder| names.contains_key(folder))
        };
        let mut files = BTreeMap::new();
        for (path, file) in names.iter().filter(|(path, file)| is_there(path) && !self.folders.contains(file)) {
            let name = path.strip_prefix(&self.folder).unwrap_or(path).to_owned();
            files.insert(name, contents.get(file).cloned().unwrap_or_default());
        }
        Disk { files, said, moment }
    }
}

fn is_synced(later: &[Deed], file: File) -> bool {
    later.iter().any(|deed| matches!(deed, Deed::SyncFile(synced) if *synced == file))
}

impl Luck {
    fn names(self, random: &mut u64) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything | Self::NamesAlone | Self::Zeros => true,
            Self::Chance => toss(random).is_multiple_of(2),
        }
    }

    /// Whether the bytes reached the file's size, and whether only that.
    fn bytes(self, random: &mut u64) -> (bool, bool) {
        match self {
            Self::Nothing | Self::NamesAlone => (false, false),
            Self::Everything => (true, false),
            Self::Zeros => (true, true),
            Self::Chance => (!toss(random).is_multiple_of(3), toss(random).is_multiple_of(2)),
        }
    }
}

/// Marsaglia's xorshift64*, whose upper bits are good.
fn toss(random: &mut u64) -> u64 {
    *random ^= *random >> 12;
    *random ^= *random << 25;
    *random ^= *random >> 27;
    random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
}
