//! Runs every test of the workspace, as `cargo test --workspace` does, but two test binaries at a time: most of them wait
//! (for a drain's quiet time, for a deadline), and one after the other they would take twice as long on two processors.
//! Those that keep a processor busy never run beside each other, so that the ones that look at the clock have the other; what
//! tells events apart that are milliseconds from each other runs alone.

use std::{
    collections::VecDeque,
    io::Write,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use serde::Deserialize;

/// They see what the kernel saw of a handful of servers and clients, and need processors that are theirs.
const ALONE: &[&str] = &["in_flight"];

/// Test binaries that compute more than they wait, or that a starved machine would mislead, the longest first.
const BUSY: &[&str] = &[
    "state_faults",
    "rollout",
    "state_restore",
    "server_room",
    "state_folder",
    "process",
    "pack",
    "manifest",
    "corpus",
    "fix",
    "examples",
    "any_manifest",
    "state_lives",
];

/// Binaries that wait, the longest first: one that is begun last would be waited for alone.
const LONG: &[&str] = &[
    "preset_apps",
    "presets",
    "cookbook_b",
    "cookbook_a",
    "container",
    "deadline",
    "drain_room",
    "warm_up",
    "warm_servers",
    "container_ways",
];

/// What of cargo's messages is needed; all other messages have no executable.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    manifest_path: Option<PathBuf>,
    #[serde(default)]
    profile: Profile,
    target: Option<Target>,
}

#[derive(Default, Deserialize)]
struct Profile {
    test: bool,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

struct Binary {
    /// `tests/rollout.rs`'s is `rollout`.
    name: String,
    executable: PathBuf,
    /// Tests find their fixtures from the package's folder, where cargo starts them.
    folder: PathBuf,
}

/// Builds and runs them; says how many there were and how long they took.
///
/// # Errors
/// They do not build, or the names of those that failed.
pub fn run() -> Result<String, Vec<String>> {
    let binaries = build().map_err(|why| vec![why])?;
    let count = binaries.len();
    let begin = Instant::now();
    let failed = Mutex::new(Vec::new());
    let (alone, together): (Vec<_>, Vec<_>) = binaries.into_iter().partition(|binary| is_in(ALONE, binary));
    for binary in alone {
        if !test(&binary) {
            lock(&failed).push(binary.name);
        }
    }
    let (busy, others): (Vec<_>, Vec<_>) = together.into_iter().partition(|binary| is_in(BUSY, binary));
    let queues = [queue(BUSY, busy), queue(LONG, others)];
    thread::scope(|scope| {
        for lane in 0..queues.len() {
            let (queues, failed) = (&queues, &failed);
            scope.spawn(move || {
                // When nothing of its own is left, a lane helps the waiting ones; the busy ones stay in one lane.
                while let Some(binary) = take(&queues[lane]).or_else(|| take(&queues[1])) {
                    if !test(&binary) {
                        lock(failed).push(binary.name);
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    // Examples in the documentation are compiled by rustdoc, which cargo alone can start.
    if !status(Command::new(cargo()).args(["test", "--workspace", "--locked", "--doc", "--quiet"])) {
        failed.push("the documentation's examples".into());
    }
    if failed.is_empty() {
        return Ok(format!("{count} test binaries passed in {} s", begin.elapsed().as_secs()));
    }
    Err(failed.into_iter().map(|name| format!("{name} failed, see above")).collect())
}

fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn status(command: &mut Command) -> bool {
    command.status().is_ok_and(|status| status.success())
}

/// Builds all test binaries, and everything that they run.
fn build() -> Result<Vec<Binary>, String> {
    let words = ["test", "--workspace", "--locked", "--no-run", "--message-format", "json-render-diagnostics"];
    let output = Command::new(cargo())
        .args(words)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cargo cannot be started: {error}"))?;
    if !output.status.success() {
        return Err("the tests do not build, see above".into());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Message>(line).ok());
    let binaries: Vec<Binary> = messages.filter(|message| message.profile.test).filter_map(binary).collect();
    if binaries.is_empty() { Err("cargo named no test binary".into()) } else { Ok(binaries) }
}

fn binary(message: Message) -> Option<Binary> {
    let folder = message.manifest_path?.parent()?.to_owned();
    let target = message.target?;
    let of_package = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = match target.kind.first().map(String::as_str) {
        Some("test") => target.name,
        kind => format!("{of_package}'s {} {}", kind.unwrap_or_default(), target.name),
    };
    Some(Binary { name, executable: message.executable?, folder })
}

fn is_in(names: &[&str], binary: &Binary) -> bool {
    names.contains(&&*binary.name)
}

fn rank(names: &[&str], binary: &Binary) -> usize {
    names.iter().position(|name| *name == binary.name).unwrap_or(names.len())
}

fn queue(order: &[&str], mut binaries: Vec<Binary>) -> Mutex<VecDeque<Binary>> {
    binaries.sort_by_key(|binary| rank(order, binary));
    Mutex::new(binaries.into())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take(queue: &Mutex<VecDeque<Binary>>) -> Option<Binary> {
    lock(queue).pop_front()
}

/// Runs one, and prints what it said when it has ended: two at a time would be mixed otherwise.
fn test(binary: &Binary) -> bool {
    let begin = Instant::now();
    let output = Command::new(&binary.executable)
        .current_dir(&binary.folder)
        .env("CARGO_MANIFEST_DIR", &binary.folder)
        .stdin(Stdio::null())
        .output();
    show(&binary.name, begin.elapsed(), &output);
    output.is_ok_and(|output| output.status.success())
}

fn show(name: &str, took: Duration, output: &std::io::Result<Output>) {
    let mut out = std::io::stdout().lock();
    let (said, result) = match output {
        Ok(output) => ([&output.stdout[..], &output.stderr].concat(), output.status.to_string()),
        Err(error) => (Vec::new(), error.to_string()),
    };
    // A reader that has gone away is no reason to fail.
    let _ = writeln!(out, "---- {name}: {result}, {:.1} s", took.as_secs_f32());
    let _ = out.write_all(&said);
    let _ = writeln!(out);
}
