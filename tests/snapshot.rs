//! A snapshot is what the usual tools read, and one that is not whole is never taken for whole.
#![cfg(feature = "state")]

use std::{
    fs::{self, File},
    io::{self, Cursor, Read, Write},
    path::Path,
    process::{Command, Stdio},
};

use boathook::state::{
    Compression,
    flow::{Flow, Notes},
    seal::{self, Broken, Facts, Manifest, Opened, Sealer},
};

const MIB: usize = 1 << 20;

/// xorshift64*: the same numbers in each run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// Text, noise, zeros and repetitions, by turns.
fn sample(length: usize, seed: u64) -> Vec<u8> {
    let mut numbers = Numbers(seed | 1);
    let mut data = Vec::with_capacity(length + 4096);
    while data.len() < length {
        let part = 1 + numbers.below(4000);
        match numbers.below(5) {
            0 => data.extend((0..part).map(|_| numbers.next() as u8)),
            1 => data.resize(data.len() + part, 0),
            2 => {
                for _ in 0..part / 40 {
                    data.extend_from_slice(
                        format!("line {} of user {}: ok\n", numbers.below(100_000), numbers.below(50)).as_bytes(),
                    );
                }
            }
            3 => data.extend((0..part).map(|_| b'a' + numbers.below(7) as u8)),
            _ if data.is_empty() => {}
            _ => {
                let from = numbers.below(data.len());
                let to = data.len().min(from + part);
                data.extend_from_within(from..to);
            }
        }
    }
    data.truncate(length);
    data
}

fn facts() -> Facts {
    Facts {
        state: "sessions".into(),
        number: 42,
        created: 1_795_356_235,
        pod: "web-7d4".into(),
        trigger: "pre-stop".into(),
        files: 3,
        bytes: 99,
        roots: vec!["sessions".into(), "größe\u{1}".into()],
        notes: Notes { lines: vec!["changed while it was read: /x".into()], count: 1 },
    }
}

fn seal_up(archive: &[u8], compression: Compression, workers: usize) -> (Vec<u8>, Manifest) {
    let mut snapshot = Vec::new();
    let mut sealer = Sealer::new(compression, workers, &mut snapshot);
    for chunk in archive.chunks(50_001) {
        sealer.write_all(chunk).unwrap();
    }
    let manifest = sealer.finish(facts()).unwrap();
    (snapshot, manifest)
}

fn open_up(snapshot: Vec<u8>) -> (Vec<u8>, Result<Manifest, Broken>) {
    let mut opened = Opened::new(Box::new(Cursor::new(snapshot))).unwrap();
    let mut archive = Vec::new();
    let _ = opened.read_to_end(&mut archive);
    (archive, opened.finish())
}

fn verify(snapshot: Vec<u8>) -> Result<Manifest, Broken> {
    seal::verify(Box::new(Cursor::new(snapshot)), &Flow::default())
}

/// A program's output; it must succeed and say nothing.
fn run(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            // A tool that knows that it has read all may close its input early.
            let _ = stdin.write_all(input);
        });
        child.wait_with_output().unwrap()
    });
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaints.is_empty(), "{program} {arguments:?}: {complaints}");
    output.stdout
}

fn tool(compression: Compression) -> Option<&'static str> {
    match compression {
        Compression::Zstd => Some("zstd"),
        Compression::Lz4 => Some("lz4"),
        Compression::Gzip => Some("gzip"),
        Compression::None => None,
    }
}

#[test]
fn what_was_sealed_comes_out_again_here_and_from_the_tools() {
    for compression in Compression::ALL {
        for (length, workers) in
            [(0, 2), (1, 1), (511, 0), (MIB - 1, 2), (MIB, 3), (MIB + 1, 1), (2 * MIB, 2), (9 * MIB + 77, 4)]
        {
            let archive = sample(length, length as u64 + 5);
            let (snapshot, manifest) = seal_up(&archive, compression, workers);
            assert_eq!(manifest.archive_bytes, length as u64);
            assert!(manifest.size <= snapshot.len() as u64);
            let (out, read) = open_up(snapshot.clone());
            assert!(out == archive, "{compression:?} {length}");
            assert_eq!(read.unwrap(), manifest);
            if let Some(tool) = tool(compression) {
                assert!(run(tool, &["-d", "-c"], &snapshot) == archive, "{tool} {length}");
            }
        }
    }
}

#[test]
fn incompressible_and_uniform_content_comes_out_again() {
    let mut numbers = Numbers(7);
    let noise: Vec<u8> = (0..3 * MIB + 5).map(|_| numbers.next() as u8).collect();
    let mut skewed: Vec<u8> = (0..MIB).map(|_| (numbers.next() & numbers.next() & numbers.next()) as u8).collect();
    skewed.extend((0..200_000).map(|number| if number % 1000 == 0 { b'b' } else { b'a' }));
    for archive in [noise, skewed, vec![0; 2 * MIB + 1], b"ab".repeat(MIB), (0..=255).cycle().take(MIB).collect()] {
        for compression in Compression::ALL {
            let (snapshot, manifest) = seal_up(&archive, compression, 2);
            assert!(snapshot.len() < archive.len() + archive.len() / 1000 + 2000, "{compression:?} {}", snapshot.len());
            assert!(open_up(snapshot.clone()).0 == archive);
            assert_eq!(verify(snapshot.clone()).unwrap(), manifest);
            if let Some(tool) = tool(compression) {
                assert!(run(tool, &["-d", "-c"], &snapshot) == archive, "{tool}");
            }
        }
    }
}

fn tar_of(folder: &Path) -> Vec<u8> {
    run("tar", &["-C", folder.to_str().unwrap(), "-cf", "-", "content"], b"")
}

#[test]
fn gnu_tar_unpacks_a_snapshot_as_it_is() {
    let scratch = tempfile::tempdir().unwrap();
    let content = scratch.path().join("content");
    fs::create_dir(&content).unwrap();
    for (name, length) in [("empty", 0), ("small", 700), ("large", 3 * MIB)] {
        fs::write(content.join(name), sample(length, 11)).unwrap();
    }
    let archive = tar_of(scratch.path());
    for (compression, option) in [
        (Compression::Zstd, Some("--zstd")),
        (Compression::Lz4, Some("--use-compress-program=lz4")),
        (Compression::Gzip, Some("-z")),
        (Compression::None, None),
    ] {
        let (snapshot, _) = seal_up(&archive, compression, 2);
        let file = scratch.path().join(format!("s.{}", compression.extension()));
        fs::write(&file, &snapshot).unwrap();
        let target = scratch.path().join(compression.name());
        fs::create_dir(&target).unwrap();
        let mut arguments: Vec<&str> = option.into_iter().collect();
        arguments.extend(["-xf", file.to_str().unwrap(), "-C", target.to_str().unwrap()]);
        run("tar", &arguments, b"");
        // Without an option tar finds out by itself, but for lz4, which it does not know.
        if compression != Compression::Lz4 {
            run("tar", &["-tf", file.to_str().unwrap()], b"");
        }
        for name in ["empty", "small", "large"] {
            assert!(
                fs::read(content.join(name)).unwrap() == fs::read(target.join("content").join(name)).unwrap(),
                "{compression:?} {name}"
            );
        }
        let manifest = seal::read_manifest(&File::open(&file).unwrap()).unwrap();
        assert_eq!(manifest.compression, compression);
        assert_eq!(manifest.created, "2026-11-22T14:03:55Z");
    }
}

/// Our trailer behind a stream that a tool wrote.
fn with_trailer(stream: Vec<u8>, compression: Compression, archive: usize) -> Vec<u8> {
    use sha2::{Digest as _, Sha256};
    let digest = Sha256::digest(&stream).into();
    let mut manifest = Manifest::new(facts(), compression, archive as u64, stream.len() as u64, &digest);
    let mut snapshot = stream;
    snapshot.extend(manifest.to_trailer());
    snapshot
}

#[test]
fn streams_of_the_real_tools_are_read() {
    let mut archive = sample(3 * MIB + 12_345, 3);
    // Far matches need the whole window.
    archive.extend_from_within(..700_000);
    let small = sample(300, 4);
    let mut tried = 0;
    for (compression, tool, options) in [
        (Compression::Zstd, "zstd", &["--fast=5", "-1", "-3", "-9", "-13", "-19", "--no-check", "-T2"][..]),
        (Compression::Lz4, "lz4", &["-1", "-9", "-B4", "-BD", "-B6 --no-frame-crc", "-B7 -BX", "--content-size"]),
        (Compression::Gzip, "gzip", &["-1", "-6", "-9", "-n"]),
    ] {
        for option in options {
            for archive in [&archive, &small, &Vec::new()] {
                let mut arguments: Vec<&str> = option.split(' ').collect();
                arguments.insert(0, "-q");
                arguments.push("-c");
                let stream = run(tool, &arguments, archive);
                let (out, read) = open_up(with_trailer(stream, compression, archive.len()));
                assert!(read.is_ok(), "{tool} {option} {}: {read:?}", archive.len());
                assert!(out == *archive, "{tool} {option} {}", archive.len());
                tried += 1;
            }
        }
    }
    assert_eq!(tried, 57);
    // A window that is larger than what every reader has to grant is refused, and not tried.
    let stream = run("zstd", &["-1", "--long=27", "-c"], &archive);
    let (_, read) = open_up(with_trailer(stream, Compression::Zstd, archive.len()));
    assert_eq!(read.unwrap_err().to_string(), "damaged: its window is larger than 8 MiB");
}

/// One way to break a snapshot.
fn corrupt(snapshot: &[u8], other: &[u8], manifest: &Manifest, numbers: &mut Numbers) -> (Vec<u8>, &'static str) {
    let mut bytes = snapshot.to_vec();
    let place = numbers.below(bytes.len());
    let what = match numbers.below(8) {
        0..=2 => {
            bytes[place] ^= 1 << numbers.below(8);
            "a bit"
        }
        3 => {
            bytes.truncate(place);
            "cut short"
        }
        4 => {
            let length = 1 + numbers.below(4096.min(bytes.len() / 3));
            let (first, second) = (numbers.below(bytes.len() / 2 - length), bytes.len() / 2);
            for offset in 0..length {
                bytes.swap(first + offset, second + offset);
            }
            "swapped"
        }
        5 => {
            let size = manifest.size as usize;
            let other_size = verify(other.to_vec()).unwrap().size as usize;
            bytes.truncate(size);
            bytes.extend_from_slice(&other[other_size..]);
            "another's trailer"
        }
        6 => {
            let length = 1 + numbers.below(100);
            bytes.drain(place..(place + length).min(snapshot.len()));
            "a piece gone"
        }
        _ => {
            let noise: Vec<u8> = (0..=numbers.below(50)).map(|_| numbers.next() as u8).collect();
            bytes.splice(place..place, noise);
            "a piece more"
        }
    };
    (bytes, what)
}

#[test]
fn a_thousand_corrupted_snapshots_are_refused_and_the_whole_ones_are_not() {
    let mut numbers = Numbers(0x00B0_A740);
    let mut refused = 0;
    let mut accepted = 0;
    for compression in Compression::ALL {
        let (small, small_manifest) = seal_up(&sample(90_000, 21), compression, 1);
        let (large, large_manifest) = seal_up(&sample(2 * MIB + 300_000, 22), compression, 2);
        let (other, _) = seal_up(&sample(90_000, 23), compression, 1);
        // The control: what was not touched passes.
        assert_eq!(verify(small.clone()).unwrap(), small_manifest);
        assert_eq!(verify(large.clone()).unwrap(), large_manifest);
        for round in 0..250 {
            let (whole, manifest) = if round % 8 == 0 { (&large, &large_manifest) } else { (&small, &small_manifest) };
            // Each tenth is not touched: a test that refused everything would be noticed here.
            let (bytes, what) = if round % 10 == 9 {
                (whole.clone(), "nothing")
            } else {
                corrupt(whole, &other, manifest, &mut numbers)
            };
            if bytes == *whole {
                verify(bytes).unwrap_or_else(|broken| panic!("{compression:?}, {what}: {broken}"));
                accepted += 1;
                continue;
            }
            assert!(verify(bytes).is_err(), "{compression:?}, {what}, round {round}: accepted");
            refused += 1;
        }
    }
    assert!(refused > 880 && accepted >= 100, "{refused} {accepted}");
    // 1,000 are refused with these.
    for compression in Compression::ALL {
        let (small, manifest) = seal_up(&sample(20_000, 31), compression, 1);
        let (other, _) = seal_up(&sample(20_000, 32), compression, 1);
        for _ in 0..40 {
            let (bytes, what) = corrupt(&small, &other, &manifest, &mut numbers);
            assert!(bytes == small || verify(bytes).is_err(), "{compression:?}, {what}: accepted");
            refused += 1;
        }
    }
    assert!(refused >= 1000);
}

#[test]
fn noise_behind_each_magic_number_is_refused() {
    let mut numbers = Numbers(99);
    let mut heads: Vec<Vec<u8>> = vec![vec![], vec![0x1F, 0x8B, 8, 0], vec![0x04, 0x22, 0x4D, 0x18]];
    heads.push(vec![0x04, 0x22, 0x4D, 0x18, 0x60, 0x60, 0x51]);
    heads.push(vec![0x28, 0xB5, 0x2F, 0xFD]);
    // One frame of 600 bytes with a compressed block; a stream with a window of 1 MiB.
    heads.push(vec![0x28, 0xB5, 0x2F, 0xFD, 0x60, 0x58, 0x01, 0x05, 0x0A, 0x00]);
    heads.push(vec![0x28, 0xB5, 0x2F, 0xFD, 0x00, 0x50, 0x04, 0x0A, 0x00]);
    for round in 0..7000 {
        let mut bytes = heads[round % heads.len()].clone();
        let length = numbers.below(900);
        bytes.extend((0..length).map(|_| numbers.next() as u8));
        let length = bytes.len();
        let (archive, read) = open_up(bytes);
        assert!(matches!(read, Err(Broken::NotASnapshot(_) | Broken::Damaged(_))), "round {round}");
        assert!(archive.len() < 64 * MIB, "{length} bytes became {}", archive.len());
    }
}

/// Damage inside streams whose digest is right: what decoders have to stand without the snapshot's checksum.
#[test]
fn damaged_streams_with_a_right_digest_end_in_an_error_or_in_bytes() {
    let mut numbers = Numbers(1234);
    let archive = sample(60_000, 41);
    for compression in [Compression::Zstd, Compression::Lz4, Compression::Gzip] {
        let (snapshot, manifest) = seal_up(&archive, compression, 1);
        let own = snapshot[..manifest.size as usize].to_vec();
        let foreign = run(tool(compression).unwrap(), &["-9", "-c"], &archive);
        let mut failed = 0;
        for stream in [own, foreign] {
            for _ in 0..400 {
                let mut stream = stream.clone();
                // Often where tables and sizes stand.
                let reach = if numbers.below(2) == 0 { 200 } else { stream.len() };
                for _ in 0..=numbers.below(3) {
                    let place = numbers.below(reach.min(stream.len()));
                    stream[place] = numbers.next() as u8;
                }
                let (out, read) = open_up(with_trailer(stream, compression, archive.len()));
                assert!(out.len() < 64 * MIB);
                failed += usize::from(read.is_err());
            }
        }
        assert!(failed > 100, "{compression:?}: the damage was not seen: {failed}");
    }
}

#[test]
fn a_newer_format_is_told_from_damage() {
    let (snapshot, manifest) = seal_up(b"archive", Compression::Zstd, 1);
    let body = &snapshot[..manifest.size as usize];
    use sha2::{Digest as _, Sha256};
    let json = br#"{"format":2,"boathook":"0.9.0","what":"else"}"#;
    let mut newer = body.to_vec();
    newer.extend(0x184D_2A5B_u32.to_le_bytes());
    newer.extend((json.len() as u32 + 20).to_le_bytes());
    newer.extend(json);
    newer.extend((json.len() as u32).to_le_bytes());
    newer.extend(&Sha256::digest(json)[..8]);
    newer.extend(b"BOATHOOK");
    let broken = verify(newer.clone()).unwrap_err();
    assert!(matches!(broken, Broken::Newer(_)));
    assert_eq!(
        broken.to_string(),
        "made by a newer boathook (format 2; this one reads up to 1): use boathook 0.9.0 or newer"
    );
    // Also when it is compressed in a way that is not known here.
    newer[..4].copy_from_slice(b"NEW!");
    assert!(matches!(verify(newer).unwrap_err(), Broken::Newer(_)));
    assert!(matches!(verify(body.to_vec()).unwrap_err(), Broken::NotASnapshot(_)));
    assert!(matches!(verify(Vec::new()).unwrap_err(), Broken::NotASnapshot(_)));
}

#[test]
fn a_file_named_like_a_compressed_stream_is_still_a_tar_archive() {
    let scratch = tempfile::tempdir().unwrap();
    fs::create_dir(scratch.path().join("content")).unwrap();
    for name in ["\u{1f}\u{8b}", "\u{4}\"M\u{18}"] {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};
        let raw: &[u8] = if name.starts_with('\u{1f}') { b"\x1F\x8B\x08x" } else { b"\x04\"M\x18" };
        fs::write(scratch.path().join(OsStr::from_bytes(raw)), name).unwrap();
        let archive = {
            let output = Command::new("tar")
                .arg("-C")
                .arg(scratch.path())
                .args(["-cf", "-", "--"])
                .arg(OsStr::from_bytes(raw))
                .output()
                .unwrap();
            output.stdout
        };
        assert!(archive.starts_with(raw));
        let (snapshot, manifest) = seal_up(&archive, Compression::None, 1);
        assert_eq!(verify(snapshot).unwrap(), manifest);
    }
}

/// A sink or a source that fails after so many bytes.
struct Failing(usize);

impl Write for Failing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or_else(|| io::Error::other("disk full"))?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Failing {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let count = to.len().min(self.0).min(10_000);
        if count == 0 {
            return Err(io::Error::other("connection lost"));
        }
        to[..count].fill(b'x');
        self.0 -= count;
        Ok(count)
    }
}

#[test]
fn errors_of_sink_and_source_are_theirs() {
    for compression in Compression::ALL {
        let mut sink = Failing(100_000);
        let mut sealer = Sealer::new(compression, 2, &mut sink);
        let mut numbers = Numbers(5);
        let noise: Vec<u8> = (0..9 * MIB).map(|_| numbers.next() as u8).collect();
        let failed = sealer.write_all(&noise).and_then(|()| sealer.finish(facts()).map(drop));
        assert_eq!(failed.unwrap_err().to_string(), "disk full", "{compression:?}");
    }
    let broken = verify_failing(Failing(500_000));
    assert!(matches!(&broken, Broken::Io(error) if error.to_string() == "connection lost"), "{broken:?}");
    assert_eq!(broken.to_string(), "cannot be read: connection lost");
}

fn verify_failing(source: Failing) -> Broken {
    seal::verify(Box::new(source), &Flow::default()).unwrap_err()
}

#[test]
fn a_job_that_was_given_up_ends() {
    let (snapshot, _) = seal_up(&sample(MIB, 1), Compression::Zstd, 1);
    let (flow, stop) = Flow::new();
    drop(stop);
    let broken = seal::verify(Box::new(Cursor::new(snapshot)), &flow).unwrap_err();
    assert_eq!(broken.to_string(), "cannot be read: given up");
}

#[test]
fn a_manifest_that_is_too_long_loses_its_last_lines() {
    let mut facts = facts();
    facts.roots = (0..100).map(|number| format!("{number}{}", "\u{1}".repeat(400))).collect();
    facts.notes = Notes { lines: vec!["\u{2}".repeat(9000); 40], count: 40 };
    for compression in Compression::ALL {
        let mut snapshot = Vec::new();
        let manifest = Sealer::new(compression, 1, &mut snapshot).finish(facts.clone()).unwrap();
        assert!(snapshot.len() < 64 * 1024);
        assert_eq!(manifest.note_count, 40);
        assert!(!manifest.notes.is_empty() && !manifest.roots.is_empty());
        assert_eq!(verify(snapshot).unwrap(), manifest);
    }
}
