//! How fast state is saved and brought back, against what a shell script would use.
//!
//! Method: 2 GB of mixed files (a quarter of it in small files of 0.2 to 16 kB, JSON-like; the rest in 12 large ones, a
//! third noise, a third text, a third records), made anew with a fixed seed. The shipped static binary (`BOATHOOK_DIST`) and
//! the shell's pipe take turns on the same disk within one run, after a warm-up, so that both read from the page cache. Each
//! is timed from its start until what it wrote is synced: boathook syncs by itself, the pipe is followed by `sync FILE`, a
//! restored tree by `sync -f`. Compared are medians, as ratios of throughput; above 1 boathook is faster.
//!
//! - save: `boathook step save` against `tar -cf - DIR | zstd -1 -T0 > FILE`;
//! - restore: `boathook step restore` against `zstd -dc FILE | tar -xf -`;
//! - the processor's time for it, of all processes together;
//! - the most memory of the process while it did so (`ru_maxrss`).
//!
//! Small files that were restored stay until the end: for minutes ext4 passes over the inodes of files that were removed,
//! one by one (`recently_deleted` in fs/ext4/ialloc.c), which makes whoever comes next several times slower.
//!
//! `BENCH_STATE_BYTES` and `BENCH_STATE_ROUNDS` make it smaller; `BENCH_STATE_KINDS` names other compressions than the
//! default (`lz4,zstd,gzip,none`); `BENCH_STATE_FOLDER` is where it happens, else the system's temporary folder. Run it with
//! `make bench BENCH='--bench state'`.

use boathook::state::Compression;
use std::{
    env,
    fmt::Write as _,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// The bar: at least as fast as the pipe.
const BAR: f64 = 1.0;
/// The bar for memory, in bytes.
const MEMORY: u64 = 32 << 20;

fn main() {
    let boathook = PathBuf::from(env::var_os("BOATHOOK_DIST").unwrap_or_else(|| env!("CARGO_BIN_EXE_boathook").into()));
    let number = |name: &str, default: usize| env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (bytes, rounds) = (number("BENCH_STATE_BYTES", 2_000_000_000), number("BENCH_STATE_ROUNDS", 5));
    let folder = match env::var_os("BENCH_STATE_FOLDER") {
        Some(folder) => tempfile::tempdir_in(folder),
        None => tempfile::tempdir(),
    };
    let folder = folder.expect("a temporary folder");
    let place = folder.path();
    let (files, made) = make(&place.join("data"), bytes);
    println!("{files} files, {} MB; {rounds} rounds\n", made / 1_000_000);

    let kinds = env::var("BENCH_STATE_KINDS").unwrap_or_else(|_| Compression::DEFAULT.name().into());
    let kinds: Vec<&str> = kinds.split(',').collect();
    let mut contestants = vec![Contestant::pipe(
        place,
        "tar | zstd -1 -T0",
        "cd '@' && tar -cf - data | zstd -1 -T0 -q > pipe.tar.zst && sync pipe.tar.zst",
    )];
    contestants.extend(kinds.iter().map(|kind| Contestant::save(&boathook, place, kind)));
    println!("save");
    compete(&mut contestants, rounds, made, &|_| {
        let _ = fs::remove_file(place.join("pipe.tar.zst"));
        for kind in &kinds {
            let _ = fs::remove_dir_all(place.join(kind));
            fs::create_dir(place.join(kind)).expect("made");
        }
    });
    for file in ["pipe.tar.zst"]
        .map(|name| place.join(name))
        .into_iter()
        .chain(kinds.iter().flat_map(|kind| list(&place.join(kind))))
    {
        println!(
            "  {:>5} MB  {}",
            fs::metadata(&file).map_or(0, |meta| meta.len()) / 1_000_000,
            file.file_name().unwrap_or_default().to_string_lossy()
        );
    }

    let mut contestants = vec![Contestant::pipe(
        place,
        "zstd -dc | tar",
        "cd '@' && mkdir back-pipe && zstd -dcq pipe.tar.zst | tar -C back-pipe -xf - && sync -f back-pipe",
    )];
    contestants.extend(kinds.iter().map(|kind| Contestant::restore(&boathook, place, kind)));
    println!("\nrestore");
    compete(&mut contestants, rounds, made, &|round| {
        for kind in kinds.iter().chain(&["pipe"]) {
            let (back, old) = (place.join(format!("back-{kind}")), place.join(format!("old-{kind}-{round}")));
            if round > 0 {
                fs::rename(&back, &old).expect("it was restored");
                fs::remove_dir_all(old.join("data/large")).expect("it was restored whole");
            }
        }
    });
}

fn list(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// One way of doing it, with its times and the most memory it took.
struct Contestant {
    name: String,
    command: Command,
    is_ours: bool,
    times: Vec<Duration>,
    /// Seconds of the processor, in all rounds.
    work: f64,
    memory: u64,
}

impl Contestant {
    fn pipe(place: &Path, name: &str, script: &str) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", &script.replace('@', &place.display().to_string())]);
        Self { name: name.into(), command, is_ours: false, times: Vec::new(), work: 0.0, memory: 0 }
    }

    fn ours(boathook: &Path, name: String, words: &[&str]) -> Self {
        let mut command = Command::new(boathook);
        command.args(words).env("BOATHOOK_SOCKET", "boathook-bench-state").stderr(Stdio::null());
        Self { name, command, is_ours: true, times: Vec::new(), work: 0.0, memory: 0 }
    }

    fn save(boathook: &Path, place: &Path, kind: &str) -> Self {
        let at = |name: &str| place.join(name).display().to_string();
        let words = [
            "step",
            "save",
            "--name",
            "bench",
            "--timeout",
            "10m",
            "--compression",
            kind,
            "--from",
            &at("data"),
            "--to",
            &at(kind),
        ];
        Self::ours(boathook, format!("boathook {kind}"), &words)
    }

    fn restore(boathook: &Path, place: &Path, kind: &str) -> Self {
        let at = |name: &str| place.join(name).display().to_string();
        let words = [
            "step",
            "restore",
            "--name",
            "bench",
            "--timeout",
            "10m",
            "--from",
            &at(kind),
            "--to",
            &at(&format!("back-{kind}")),
        ];
        Self::ours(boathook, format!("boathook {kind}"), &words)
    }

    #[expect(clippy::zombie_processes, reason = "wait4 below waits, and tells the memory too")]
    fn run(&mut self, counts: bool) {
        let begun = Instant::now();
        let child = self.command.spawn().expect("it starts");
        let mut status = 0;
        // SAFETY: `rusage` is plain numbers, for which zero is a value.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: the pid is that of our own child, which nobody else waits for, and both places outlive the call.
        let waited = unsafe { libc::wait4(child.id().cast_signed(), &raw mut status, 0, &raw mut usage) };
        let took = begun.elapsed();
        assert!(waited > 0 && status == 0, "{} failed: {status}", self.name);
        if counts {
            self.times.push(took);
            let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
            self.work += seconds(usage.ru_utime) + seconds(usage.ru_stime);
            self.memory = self.memory.max(usage.ru_maxrss.unsigned_abs() * 1024);
        }
    }

    fn median(&self) -> f64 {
        let mut times = self.times.clone();
        times.sort();
        times[times.len() / 2].as_secs_f64()
    }
}

/// All of them in turns.
fn compete(contestants: &mut [Contestant], rounds: usize, bytes: u64, clear: &dyn Fn(usize)) {
    for round in 0..=rounds {
        clear(round);
        let count = contestants.len();
        // Each is the first in turn: what is written first gets the better place on the disk.
        for index in 0..count {
            let contestant = &mut contestants[(round + index) % count];
            // What the one before has left to be written must not slow this one down.
            rustix::fs::sync();
            contestant.run(round > 0);
        }
    }
    let base = contestants[0].median();
    for contestant in contestants.iter() {
        let seconds = contestant.median();
        let rate = bytes as f64 / 1e6 / seconds;
        let work = contestant.work / rounds as f64;
        let mut line =
            format!("  {:<20} {seconds:>6.2} s  {rate:>6.0} MB/s  {work:>6.2} s of processor", contestant.name);
        if contestant.is_ours {
            let (ratio, memory) = (base / seconds, contestant.memory);
            let verdict = |good: bool| if good { "" } else { "  BELOW THE BAR" };
            let _ = write!(
                line,
                "  {ratio:.2} x{}  {} MB{}",
                verdict(ratio >= BAR),
                memory / 1_000_000,
                verdict(memory <= MEMORY)
            );
        }
        println!("{line}");
    }
}

/// xorshift64: noise from a seed, the same each time.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Makes the mixed files; how many and how many bytes.
fn make(folder: &Path, bytes: usize) -> (usize, u64) {
    let mut noise = Noise(0x9E37_79B9_7F4A_7C15);
    let words: Vec<String> = (0..4000)
        .map(|_| (0..3 + noise.below(8)).map(|_| char::from(b'a' + noise.below(26) as u8)).collect())
        .collect();
    let (mut files, mut made) = (0, 0);
    while made < bytes / 4 {
        let place = folder.join(format!("small/{}", files / 500));
        fs::create_dir_all(&place).expect("made");
        let size = 200 + noise.below(15_800) as usize;
        let mut text = String::with_capacity(size + 200);
        while text.len() < size {
            let _ = write!(
                text,
                "{{\"id\":\"{:016x}\",\"user\":{},\"name\":\"{}\",\"cart\":[",
                noise.next(),
                noise.below(1_000_000),
                words[noise.below(4000) as usize]
            );
            for _ in 0..noise.below(12) {
                let _ = write!(text, "{},", noise.below(9999));
            }
            text.push_str("]}\n");
        }
        text.truncate(size);
        fs::write(place.join(format!("{files}.json")), text).expect("written");
        (files, made) = (files + 1, made + size);
    }
    fs::create_dir_all(folder.join("large")).expect("made");
    let large = (bytes - made) / 12;
    for index in 0..12 {
        let mut file = std::io::BufWriter::with_capacity(
            1 << 20,
            fs::File::create(folder.join(format!("large/{index}"))).expect("made"),
        );
        let mut left = large;
        while left > 0 {
            let mut piece = Vec::with_capacity(80);
            match index % 3 {
                0 => (0..8).for_each(|_| piece.extend(noise.next().to_le_bytes())),
                1 => (0..8).for_each(|_| {
                    piece.extend(words[noise.below(4000) as usize].as_bytes());
                    piece.push(b' ');
                }),
                _ => {
                    piece.extend(noise.next().to_le_bytes());
                    piece.extend([0; 16]);
                    piece.extend(words[noise.below(4000) as usize].as_bytes());
                }
            }
            piece.truncate(left);
            file.write_all(&piece).expect("written");
            left -= piece.len();
        }
        file.flush().expect("written");
        (files, made) = (files + 1, made + large);
    }
    (files, made as u64)
}
