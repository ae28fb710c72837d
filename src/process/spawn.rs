//! Why a command could not be started, said so that it can be fixed: the kernel's "No such file or directory"
//! may mean the program, its interpreter, its loader or the directory.

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt, io,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
};

use crate::sys::file;

/// What shells exit with for a command that cannot be executed (POSIX, 2.8.2).
pub const CODE_NOT_EXECUTABLE: u8 = 126;
/// What shells exit with for a command that is not found (POSIX, 2.8.2).
pub const CODE_NOT_FOUND: u8 = 127;
/// For a status that nobody could learn; outside what programs use on purpose.
pub const CODE_UNKNOWN: u8 = 255;

/// The `#!` line counts up to 256 bytes (execve(2)); the program headers and the loader's name of an ELF file
/// stand at its start, well within a page.
const START: usize = 4096;

/// A command that could not be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpawnError {
    /// `/app/server: not found in the image`.
    pub text: String,
    /// The exit code that a shell would give: 126 or 127.
    pub code: u8,
    /// Whether another attempt may help: the machine was short of something.
    pub passes: bool,
}

impl SpawnError {
    pub(super) fn not_found(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: CODE_NOT_FOUND, passes: false }
    }
    fn not_executable(text: String) -> Self {
        Self { text, code: CODE_NOT_EXECUTABLE, passes: false }
    }
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for SpawnError {}

/// Finds out why `program` did not start in `dir`, with the `PATH` given or this process's own, as `user`.
pub fn explain(
    error: &io::Error,
    program: &OsStr,
    dir: Option<&Path>,
    path: Option<&OsStr>,
    user: Option<&str>,
) -> SpawnError {
    let name = program.to_string_lossy();
    if let Some(dir) = dir.filter(|dir| !dir.is_dir()) {
        return SpawnError::not_executable(format!("{name}: dir {}: not a folder in the image", dir.display()));
    }
    let path = path.map_or_else(|| env::var_os("PATH"), |path| Some(path.to_owned()));
    let file = locate(program, dir, path.as_deref());
    match (error.raw_os_error(), file) {
        (Some(libc::ENOENT | libc::ENOTDIR), None) => {
            let path = path.unwrap_or_else(|| OsString::from("unset"));
            SpawnError::not_found(if program.as_bytes().contains(&b'/') {
                format!("{name}: not found in the image")
            } else {
                format!("{name}: not found in the image (PATH={})", path.to_string_lossy())
            })
        }
        // The file is there, so it is something that the file needs.
        (Some(libc::ENOENT), Some(file)) => match needs(&file) {
            Some(needed) => SpawnError::not_found(format!("{name}: needs {needed}, which is not found in the image")),
            None => SpawnError::not_found(format!("{name}: the interpreter it needs is not found in the image")),
        },
        (Some(libc::ENOEXEC), file) => {
            let why = file.and_then(|file| wrong_machine(&file));
            let why = why.unwrap_or_else(|| "neither a program for this machine nor a script with a #! line".into());
            SpawnError::not_executable(format!("{name}: {why}"))
        }
        (Some(libc::EACCES), file) => {
            let why = match file {
                Some(file) if file.is_dir() => "it is a folder",
                Some(file) if !is_executable(&file) => "it is not executable (chmod +x)",
                _ => "permission denied",
            };
            SpawnError::not_executable(format!("{name}: {why}"))
        }
        (Some(libc::EPERM), _) if user.is_some() => SpawnError::not_executable(format!(
            "{name}: user {}: not permitted; needs root with the capabilities SETUID and SETGID",
            user.unwrap_or_default()
        )),
        (code, _) => {
            // EAGAIN is the limit on processes: fork(2).
            let passes =
                matches!(code, Some(libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::ETXTBSY));
            SpawnError { text: format!("{name}: {error}"), code: CODE_NOT_EXECUTABLE, passes }
        }
    }
}

/// The file that the kernel would run, executable or not.
fn locate(program: &OsStr, dir: Option<&Path>, path: Option<&OsStr>) -> Option<PathBuf> {
    let there = |file: PathBuf| file.exists().then_some(file);
    if program.as_bytes().contains(&b'/') {
        return there(dir.unwrap_or(Path::new("")).join(program));
    }
    let files: Vec<_> = env::split_paths(path?).filter_map(|folder| there(folder.join(program))).collect();
    files.iter().find(|file| is_executable(file)).or(files.first()).cloned()
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// What the kernel has to load besides the file itself: `its interpreter /bin/bash`.
fn needs(file: &Path) -> Option<String> {
    let start = file::read_start_of_regular(file, START).ok()?;
    if let Some(line) = start.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next()?;
        let word = line.split(|byte| matches!(byte, b' ' | b'\t')).find(|word| !word.is_empty())?;
        let hint = if word.ends_with(b"\r") { " (the line ends in a carriage return)" } else { "" };
        return Some(format!("its interpreter {}{hint}", String::from_utf8_lossy(word).trim_end()));
    }
    Some(format!("its loader {}", loader(&start)?))
}

/// The loader that a 64-bit little-endian ELF file asks for (elf(5): PT_INTERP).
fn loader(start: &[u8]) -> Option<String> {
    const PT_INTERP: usize = 3;
    start.strip_prefix(b"\x7fELF\x02\x01")?;
    let (table, size, count) = (number(start, 32, 8)?, number(start, 54, 2)?, number(start, 56, 2)?);
    let header = (0..count)
        .map_while(|index| table.checked_add(index.checked_mul(size)?))
        .find(|header| number(start, *header, 4) == Some(PT_INTERP))?;
    let (offset, length) = (number(start, header + 8, 8)?, number(start, header + 32, 8)?);
    let name = start.get(offset..offset.checked_add(length)?)?;
    Some(String::from_utf8_lossy(name).trim_end_matches('\0').to_owned())
}

/// `built for aarch64, but this machine is x86_64`.
fn wrong_machine(file: &Path) -> Option<String> {
    let start = file::read_start_of_regular(file, START).ok()?;
    if start.is_empty() {
        return Some("it is empty".into());
    }
    start.strip_prefix(b"\x7fELF")?;
    // elf(5): e_machine.
    let machine = match number(&start, 18, 2)? {
        3 => "x86",
        40 => "arm",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv64",
        21 => "ppc64le",
        22 => "s390x",
        _ => "another machine",
    };
    (machine != env::consts::ARCH).then(|| format!("built for {machine}, but this machine is {}", env::consts::ARCH))
}

/// A little-endian number of `size` bytes at `offset`.
fn number(bytes: &[u8], offset: usize, size: usize) -> Option<usize> {
    let bytes = bytes.get(offset..offset.checked_add(size)?)?;
    usize::try_from(bytes.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))).ok()
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;

    #[test]
    fn says_why_a_command_did_not_start() {
        let dir = tempfile::tempdir().expect("a temp folder");
        let make = |name: &str, content: &[u8], mode: u32| {
            let path = dir.path().join(name);
            fs::write(&path, content).expect("writable");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("ours");
            path.into_os_string().into_string().expect("a plain name")
        };
        let foreign = if cfg!(target_arch = "x86_64") { (183, "aarch64") } else { (62, "x86_64") };
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(64, 0);
        elf[16] = 2;
        elf[18] = foreign.0;
        // A true program whose loader is renamed.
        let mut orphan = fs::read("/bin/true").expect("coreutils");
        if let Some(at) = loader(&orphan).and_then(|name| orphan.windows(name.len()).position(|w| w == name.as_bytes()))
        {
            orphan[at + 1] = b'X';
        }
        let none = make("no interpreter", b"#!/no/such/sh -e\necho", 0o755);
        let crlf = make("crlf", b"#!/bin/sh\r\necho\r\n", 0o755);
        let plain = make("plain", b"text", 0o755);
        let empty = make("empty", b"", 0o755);
        let locked = make("locked", b"#!/bin/sh\n", 0o644);
        let other = make("foreign", &elf, 0o755);
        let lost = make("orphan", &orphan, 0o755);
        let folder = dir.path().to_str().expect("a plain name").to_owned();
        let machine = env::consts::ARCH;
        let lost_loader = loader(&orphan).expect("a dynamic program");
        for (program, code, text) in [
            ("/no/such/program", 127, "not found in the image".to_owned()),
            ("no-such-program", 127, format!("not found in the image (PATH={folder})")),
            (&none, 127, "needs its interpreter /no/such/sh, which is not found in the image".into()),
            (
                &crlf,
                127,
                "needs its interpreter /bin/sh (the line ends in a carriage return), which is not found in the image"
                    .into(),
            ),
            (&lost, 127, format!("needs its loader {lost_loader}, which is not found in the image")),
            (&plain, 126, "neither a program for this machine nor a script with a #! line".into()),
            (&empty, 126, "it is empty".into()),
            (&locked, 126, "it is not executable (chmod +x)".into()),
            (&folder, 126, "it is a folder".into()),
            (&other, 126, format!("built for {}, but this machine is {machine}", foreign.1)),
        ] {
            // The error as the kernel gives it: glibc's execvp runs a shell for ENOEXEC, so it is given here.
            let error = if [&plain, &empty, &other].contains(&&program.to_owned()) {
                io::Error::from_raw_os_error(libc::ENOEXEC)
            } else {
                Command::new(program).env("PATH", &folder).spawn().expect_err(program)
            };
            let got = explain(&error, program.as_ref(), None, Some(folder.as_ref()), None);
            assert_eq!((got.code, got.text), (code, format!("{program}: {text}")));
        }
        let error = io::Error::from_raw_os_error(libc::ENOENT);
        let got = explain(&error, "/bin/true".as_ref(), Some(Path::new("/no/dir")), None, None);
        assert_eq!(got.text, "/bin/true: dir /no/dir: not a folder in the image");
    }
}
