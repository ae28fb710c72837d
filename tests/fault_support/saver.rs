//! A process that saves again and again, to be killed, starved and cheated by tests: `saver FOLDER COUNT SIZE KEEP
//! HOW`. It says `committed NUMBER` when a snapshot is safe. `HOW` is `carefully`, which is the product's way, or one
//! of the careless ways that the tests must find out.

mod content;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use boathook::state::{
    Compression,
    flow::Flow,
    folder::{Folder, Listed},
    name::SnapshotName,
};

/// The state's name.
const STATE: &str = "s";
/// 2026-11-22T14:03:55Z: any time does.
const TIME: u64 = 1_795_356_235;
/// In so many writes.
const WRITES: usize = 3;

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Carefully,
    /// Under its own name from the beginning.
    InPlace,
    NoFileSync,
    NoFolderSync,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    let [_, folder, count, size, keep, how] = words.as_slice() else {
        eprintln!("saver FOLDER COUNT SIZE KEEP HOW");
        return ExitCode::from(2);
    };
    let how = match how.as_str() {
        "carefully" => How::Carefully,
        "in-place" => How::InPlace,
        "no-file-sync" => How::NoFileSync,
        "no-folder-sync" => How::NoFolderSync,
        _ => return ExitCode::from(2),
    };
    let number = |word: &str| word.parse::<usize>().expect("a number");
    let folder = PathBuf::from(folder);
    for _ in 0..number(count) {
        let saved = match how {
            How::Carefully => save(&folder, number(size)),
            _ => save_carelessly(&folder, number(size), how),
        };
        match saved {
            // One write, so that it is one moment.
            Ok(listed) => io::stdout().write_all(format!("committed {}\n", listed.name.number).as_bytes()),
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::FAILURE;
            }
        }
        .expect("somebody listens");
        let flow = Flow::default();
        Folder::new(folder.clone()).prune(STATE, u32::try_from(number(keep)).expect("small"), &flow);
        for line in flow.notes().lines {
            eprintln!("{line}");
        }
    }
    ExitCode::SUCCESS
}

fn save(folder: &Path, size: usize) -> io::Result<Listed> {
    let mut draft = Folder::new(folder.to_owned()).begin(STATE, Compression::Zstd, TIME)?;
    let content = content::content(draft.name().number, size);
    for piece in content.chunks(size.div_ceil(WRITES)) {
        draft.write_all(piece)?;
    }
    draft.commit()
}

fn save_carelessly(folder: &Path, size: usize, how: How) -> io::Result<Listed> {
    let listed = Folder::new(folder.to_owned()).list(Some(STATE))?;
    let number = listed.first().map_or(0, |newest| newest.name.number) + 1;
    let name = SnapshotName { state: STATE.to_owned(), number, time: TIME, compression: Compression::Zstd };
    let path = folder.join(name.to_string());
    let aside = if how == How::InPlace { path.clone() } else { folder.join(format!(".{name}.partial")) };
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&aside)?;
    for piece in content::content(number, size).chunks(size.div_ceil(WRITES)) {
        file.write_all(piece)?;
    }
    if how != How::NoFileSync {
        file.sync_all()?;
    }
    if how != How::InPlace {
        fs::rename(&aside, &path)?;
    }
    if how != How::NoFolderSync {
        File::open(folder)?.sync_all()?;
    }
    Ok(Listed { name, size: size as u64, path })
}
