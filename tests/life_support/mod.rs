//! For tests of whole lives: starts the real binary with a configuration, calls its hooks as the kubelet does, and
//! looks at it from outside: what runs below it, what it has open, how late this machine is.

// Each test binary uses its own part of this room.
#![allow(dead_code)]

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, atomic::AtomicU64, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use boathook::{process::find, sys::signal};

/// Far longer than anything here takes on a loaded machine; a test that waits so long has failed.
pub const LONG: Duration = Duration::from_secs(30);

/// The binary under test: what cargo built for the tests, or the shipped one where a benchmark names it.
pub fn binary() -> &'static str {
    named_binary().unwrap_or(env!("CARGO_BIN_EXE_boathook"))
}

fn named_binary() -> Option<&'static str> {
    static NAMED: OnceLock<Option<String>> = OnceLock::new();
    NAMED.get_or_init(|| std::env::var("BOATHOOK_BINARY").ok().filter(|path| !path.is_empty())).as_deref()
}

/// Says that something could not be tried; where everything is required, that is a failure.
pub fn not_run(what: &str, why: &str) {
    eprintln!("NOT RUN: {what}: {why}");
    assert!(std::env::var_os("BOATHOOK_REQUIRE_ALL").is_none_or(|all| all != "1"), "{what}: {why}");
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A name for a control socket that no other agent has.
pub fn socket_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("boathook-life-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Tries until `probe` gives something, or gives up after `bound`.
pub fn poll<T>(bound: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + bound;
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if Instant::now() >= until {
            return None;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// How an agent is to be started.
#[derive(Default)]
pub struct Start {
    config: String,
    main: Vec<String>,
    /// A shell's lines in a mount namespace of its own, before the agent takes the shell's place.
    mounts: Option<String>,
    before: Option<File>,
    environment: Vec<(String, String)>,
    log_size: Option<usize>,
    prefix: Vec<String>,
    binary: Option<PathBuf>,
    piped: bool,
    files: Vec<(&'static str, &'static str)>,
}

impl Start {
    pub fn new(config: &str) -> Self {
        Self { config: config.into(), main: vec!["sleep".into(), "1000".into()], ..Self::default() }
    }

    pub fn main(mut self, words: &[&str]) -> Self {
        self.main = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Makes mounts that only the agent sees. `before` is the shell's stdin.
    pub fn mounts(mut self, script: &str, before: Option<File>) -> Self {
        self.mounts = Some(script.into());
        self.before = before;
        self
    }

    /// Words in front of the agent: `unshare …`, `setpriv …`; the last of them must execute the rest in its place.
    pub fn prefix(mut self, words: &[&str]) -> Self {
        self.prefix = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// A file in the agent's folder that is there when it starts.
    pub fn file(mut self, name: &'static str, content: &'static str) -> Self {
        self.files.push((name, content));
        self
    }

    /// The log is a pipe of this size that nobody reads once the agent listens.
    pub fn unread_log(mut self, size: usize) -> Self {
        self.log_size = Some(size);
        self
    }

    /// Another binary than the one that cargo built.
    pub fn binary(mut self, path: &Path) -> Self {
        self.binary = Some(path.into());
        self
    }

    /// The main process's stdin and stdout are the test's.
    pub fn piped(mut self) -> Self {
        self.piped = true;
        self
    }

    /// Starts it and waits until it listens.
    pub fn start(self) -> Agent {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = folder.path().join("boathook.toml");
        let text = self.config.replace("@FOLDER@", &folder.path().display().to_string());
        fs::write(&config, text).expect("written");
        for (name, content) in self.files {
            fs::write(folder.path().join(name), content).expect("written");
        }
        let mut words: Vec<String> = Vec::new();
        if let Some(script) = &self.mounts {
            let script = script.replace("@FOLDER@", &folder.path().display().to_string());
            let script = format!("set -e\n{script}\nexec \"$@\" </dev/null");
            words.extend(["unshare", "--mount", "--propagation", "private", "sh", "-c"].map(String::from));
            words.extend([script, "sh".into()]);
        }
        words.extend(self.prefix);
        let binary = self.binary.map_or_else(|| binary().to_owned(), |path| path.display().to_string());
        words.extend([&binary, "--config", &config.display().to_string(), "run", "--"].map(String::from));
        words.extend(self.main);
        let socket = socket_name();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env("BOATHOOK_SOCKET", &socket).envs(self.environment);
        command.stdin(self.before.map_or_else(Stdio::null, Stdio::from)).stdout(Stdio::null()).stderr(Stdio::piped());
        if self.piped {
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
        }
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{words:?}: {error}"));
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let stderr = child.stderr.take().expect("piped");
        if let Some(size) = self.log_size {
            rustix::pipe::fcntl_setpipe_size(&stderr, size).expect("a size");
        }
        let log = Arc::new(Log::default());
        let mut agent = Agent {
            pid: child.id().cast_signed(),
            child,
            address: None,
            main: 0,
            socket,
            log: Arc::clone(&log),
            stdin,
            stdout,
            folder,
            unread: None,
        };
        let mut lines = BufReader::new(stderr);
        if self.log_size.is_some() {
            while log.find("main process started", "pid").is_none() {
                let mut line = String::new();
                assert!(lines.read_line(&mut line).expect("text") > 0, "the agent ended: {}", agent.log());
                log.add(&line);
            }
            agent.unread = Some(lines);
        } else {
            thread::spawn(move || {
                let mut line = Vec::new();
                while lines.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                    log.add(&String::from_utf8_lossy(&line));
                    line.clear();
                }
                log.end();
            });
        }
        agent.address = agent.wait_for_field("listening", "address").parse().ok();
        agent.main = agent.wait_for_field("main process started", "pid").parse().expect("a pid");
        if let Some(inner) = descendants(agent.pid).into_iter().find(|pid| is_boathook(*pid)) {
            // In a PID namespace: what it calls its main process has another number here.
            agent.pid = inner;
            agent.main =
                descendants(inner).first().copied().unwrap_or_else(|| panic!("no main process: {}", agent.log()));
        }
        agent
    }
}

#[derive(Default)]
struct Log {
    text: Mutex<(String, bool)>,
    changed: Condvar,
}

impl Log {
    fn add(&self, line: &str) {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).0.push_str(line);
        self.changed.notify_all();
    }

    fn end(&self) {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.changed.notify_all();
    }

    fn find(&self, message: &str, field: &str) -> Option<String> {
        find_field(&self.text.lock().unwrap_or_else(PoisonError::into_inner).0, message, field)
    }
}

/// The value of `field=` in the first line that contains `message`.
fn find_field(text: &str, message: &str, field: &str) -> Option<String> {
    let line = text.lines().find(|line| line.contains(message))?;
    let key = format!(" {field}=");
    let value = &line[line.find(&key)? + key.len()..];
    Some(value.split(' ').next().unwrap_or(value).trim_matches('"').to_owned())
}

/// An agent that runs; dropped, it and its main process end.
pub struct Agent {
    pub pid: i32,
    pub main: i32,
    /// The name of its control socket.
    pub socket: String,
    pub child: Child,
    pub stdin: Option<ChildStdin>,
    pub stdout: Option<ChildStdout>,
    address: Option<SocketAddr>,
    log: Arc<Log>,
    folder: tempfile::TempDir,
    unread: Option<BufReader<std::process::ChildStderr>>,
}

impl Agent {
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn address(&self) -> SocketAddr {
        self.address.unwrap_or_else(|| panic!("no address: {}", self.log()))
    }

    pub fn log(&self) -> String {
        self.log.text.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Waits for a line of the log and gives the value of a field in it.
    pub fn wait_for_field(&self, message: &str, field: &str) -> String {
        let text = self.log.text.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .log
            .changed
            .wait_timeout_while(text, LONG, |(text, ended)| !*ended && find_field(text, message, field).is_none());
        let found = waited.map(|(text, _)| (find_field(&text.0, message, field), text.0.clone()));
        let (found, text) = found.unwrap_or_default();
        found.unwrap_or_else(|| panic!("no `{message}` with {field} in: {text}"))
    }

    pub fn signal(&self, number: i32) {
        signal::send(self.pid, number).expect("it runs");
    }

    /// Waits for its end; panics if that takes longer than `bound`.
    pub fn wait(&mut self, bound: Duration) -> ExitStatus {
        let ended = poll(bound, || self.child.try_wait().expect("ours"));
        ended.unwrap_or_else(|| panic!("it did not end within {bound:?}: {}", self.log()))
    }

    /// The exit code, 128+N for a signal.
    pub fn code(&mut self, bound: Duration) -> i32 {
        let status = self.wait(bound);
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
    }

    /// Everything below the agent but the main process and what that has started; zombies count.
    pub fn leftovers(&self) -> Vec<String> {
        let own = descendants(self.main);
        let below = descendants(self.pid).into_iter().filter(|pid| *pid != self.main && !own.contains(pid));
        let mut left: Vec<i32> = below.chain(marked(self.pid)).filter(|pid| !is_gone(*pid)).collect();
        left.sort_unstable();
        left.dedup();
        left.into_iter().map(describe).collect()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- log of agent {}\n{}---", self.pid, self.log());
        }
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            for pid in marked(self.pid).into_iter().chain(descendants(self.pid)) {
                let _ = signal::send(pid, libc::SIGKILL);
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn is_gone(pid: i32) -> bool {
    find::read_stat(pid).is_none()
}

fn is_boathook(pid: i32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|path| path.ends_with("boathook"))
}

/// All that descends from a process, without it.
pub fn descendants(of: i32) -> Vec<i32> {
    let all: Vec<_> = find::processes().filter_map(|pid| Some((pid, find::read_stat(pid)?.parent))).collect();
    let mut found = vec![of];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(all.iter().filter(|(_, other)| *other == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.remove(0);
    found
}

/// Processes that carry the mark of a step of this agent.
pub fn marked(agent: i32) -> Vec<i32> {
    let needle = format!("BOATHOOK_STEP={agent}-");
    let carries = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry.starts_with(needle.as_bytes()))
    };
    find::processes().filter(carries).collect()
}

pub fn describe(pid: i32) -> String {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).unwrap_or('?');
    let mut words = String::from_utf8_lossy(&words).replace('\0', " ");
    words.truncate(words.floor_char_boundary(80));
    format!("{pid} {state} {words}")
}

/// The open descriptors of a process.
pub fn descriptors(pid: i32) -> BTreeMap<String, String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            Some((entry.file_name().into_string().ok()?, target.display().to_string()))
        })
        .collect()
}

/// An answer to a call, with the time from the request sent to the answer received.
pub struct Answer {
    pub status: u16,
    pub body: String,
    pub took: Duration,
}

impl Answer {
    pub fn report(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// Calls as the kubelet does (pkg/kubelet/lifecycle/handlers.go): GET, its own agent, a connection kept alive.
///
/// # Errors
/// The connection ended without an answer, which is what the kubelet notices.
pub fn call(address: SocketAddr, path: &str, header: &str) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LONG))?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: kube-lifecycle/1.36\r\nAccept: */*\r\n{header}Accept-Encoding: gzip\r\n\r\n"
    );
    let sent = Instant::now();
    stream.write_all(request.as_bytes())?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("no answer: {line:?}")))?;
    let mut length = 0;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().map_err(std::io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned(), took: sent.elapsed() })
}

/// How late this machine is: a plain thread sleeps and notes by how much it was woken too late.
pub struct Noise(Mutex<Vec<(Instant, Duration)>>);

/// What the plain thread sleeps: shorter than any lateness that matters here.
const NAP: Duration = Duration::from_millis(2);

pub fn noise() -> &'static Noise {
    static NOISE: OnceLock<Noise> = OnceLock::new();
    static THREAD: OnceLock<()> = OnceLock::new();
    let noise = NOISE.get_or_init(|| Noise(Mutex::new(Vec::new())));
    THREAD.get_or_init(|| {
        thread::spawn(move || {
            loop {
                let begun = Instant::now();
                thread::sleep(NAP);
                let late = begun.elapsed().saturating_sub(NAP);
                if late > Duration::from_millis(1) {
                    noise.0.lock().unwrap_or_else(PoisonError::into_inner).push((begun, late));
                }
            }
        });
    });
    noise
}

impl Noise {
    /// The worst lateness between two moments.
    pub fn between(&self, from: Instant, to: Instant) -> Duration {
        let noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let within = noted.iter().filter(|(begun, late)| *begun <= to && *begun + NAP + *late >= from);
        within.map(|(_, late)| *late).max().unwrap_or_default()
    }
}
