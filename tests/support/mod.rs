//! What the tests by promise stand on: the real binary in a temporary folder of its own, with a port and a control
//! socket of its own, so that they run side by side; and callers that behave as the real ones do (`kubelet.rs`).
//!
//! Nothing is left behind: every process that a test started carries its `BOATHOOK_SOCKET`, and is killed by its id
//! when the test is over. When the test fails, the configuration, stdout and stderr are printed.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    fs::{self, OpenOptions},
    io::Read,
    net::SocketAddr,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

pub mod kubelet;

/// No test waits longer for anything that should happen: far more than a loaded machine needs.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How often is looked.
const LOOK: Duration = Duration::from_millis(5);

/// The real binary.
pub const BOATHOOK: &str = env!("CARGO_BIN_EXE_boathook");

/// Until `look` finds something; the test fails when it does not.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} for: {what}");
        thread::sleep(LOOK);
    }
}

/// What a finished command said.
#[derive(Debug)]
pub struct Said {
    /// As a shell shows it: 128+N for a signal.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

/// As a shell shows it.
pub fn shell_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

/// A place to run the binary in: a folder, a configuration, a control socket and an environment.
///
/// In configurations and arguments `@/` stands for the folder. A configuration without `[server]` listens on a free
/// port of loopback, one without `[log]` has its termination message at `@/termination`.
pub struct Place {
    folder: TempDir,
    socket: String,
    env: Vec<(String, String)>,
    has_config: bool,
}

impl Place {
    /// With this configuration.
    pub fn with(config: &str) -> Self {
        Self::bare().configured(config)
    }

    /// The same place with this configuration.
    pub fn configured(mut self, config: &str) -> Self {
        let mut text = self.expand(config);
        if !text.contains("[server]") {
            text.push_str("\n[server]\nlisten = \"127.0.0.1:0\"\n");
        }
        if !text.contains("[log]") {
            text.push_str(&self.expand("\n[log]\ntermination-message = \"@/termination\"\n"));
        }
        self.write("boathook.toml", &text);
        self.write("termination", "");
        self.has_config = true;
        self
    }

    /// With exactly this configuration.
    pub fn exactly(config: impl AsRef<[u8]>) -> Self {
        let mut place = Self::bare();
        fs::write(place.path("boathook.toml"), config).expect("written");
        place.has_config = true;
        place
    }

    /// With no configuration file.
    pub fn bare() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let folder = tempfile::Builder::new().prefix("boathook-").tempdir().expect("a temporary folder");
        let socket = format!("boathook-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        Self { folder, socket, env: Vec::new(), has_config: false }
    }

    /// With this in the environment of everything that is started here.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        let value = self.expand(value);
        self.env.push((name.into(), value));
        self
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("written");
    }

    /// What stands in a file, or nothing.
    pub fn read(&self, name: &str) -> String {
        fs::read(self.path(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    pub fn exists(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// `@/` → the folder.
    pub fn expand(&self, text: &str) -> String {
        text.replace("@/", &format!("{}/", self.folder.path().display()))
    }

    /// The binary with these words, in a process group of its own; nothing is inherited that could change a test.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(BOATHOOK);
        for word in words {
            command.arg(self.expand(word));
        }
        self.dress(&mut command);
        command
    }

    /// Gives any command this place's environment and mark.
    pub fn dress(&self, command: &mut Command) {
        command.current_dir(self.folder.path()).stdin(Stdio::null()).process_group(0);
        command.env_remove("BOATHOOK_CONFIG").env("BOATHOOK_SOCKET", &self.socket);
        if self.has_config {
            command.env("BOATHOOK_CONFIG", self.path("boathook.toml"));
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
    }

    /// Runs the binary to its end.
    #[track_caller]
    pub fn boathook(&self, words: &[&str]) -> Said {
        self.finish(self.command(words))
    }

    /// Runs any command to its end; one that is stuck is killed with everything it started, and the test fails.
    #[track_caller]
    pub fn finish(&self, mut command: Command) -> Said {
        let begun = Instant::now();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let (stdout, stderr) = (gather(child.stdout.take()), gather(child.stderr.take()));
        let mut is_stuck = false;
        let status = loop {
            if let Some(status) = child.try_wait().expect("ours to wait for") {
                break status;
            }
            if begun.elapsed() > PATIENCE {
                is_stuck = true;
                self.kill_all();
            }
            thread::sleep(LOOK.min(Duration::from_millis(1)));
        };
        let took = begun.elapsed();
        if is_stuck {
            self.kill_all();
        }
        let text = |reader: thread::JoinHandle<Vec<u8>>| {
            String::from_utf8_lossy(&reader.join().expect("a reader")).into_owned()
        };
        let said = Said { code: shell_code(status), stdout: text(stdout), stderr: text(stderr), took };
        assert!(!is_stuck, "{command:?} was stuck and said {said:?}");
        said
    }

    /// Starts the binary; it goes on until it ends or this place does.
    pub fn start(self, words: &[&str]) -> Agent {
        let command = self.command(words);
        self.start_command(command)
    }

    /// Starts a command of this place instead.
    pub fn start_command(self, mut command: Command) -> Agent {
        let open = |name: &str| {
            let path = self.path(name);
            OpenOptions::new().create(true).append(true).open(path).expect("a file")
        };
        let begun = Instant::now();
        let child = command.stdout(open("stdout")).stderr(open("stderr")).spawn().expect("it starts");
        Agent { place: self, child, begun, ended: None }
    }

    /// `boathook run -- COMMAND`.
    pub fn run(self, command: &[&str]) -> Agent {
        self.start(&[&["run", "--"], command].concat())
    }

    /// Every process that was started here: by its mark, and by its working directory, for servers that write their title
    /// over their environment, as nginx and Redis do.
    pub fn processes(&self) -> Vec<i32> {
        let mark = format!("BOATHOOK_SOCKET={}", self.socket);
        let Ok(list) = fs::read_dir("/proc") else { return Vec::new() };
        list.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid: &i32| {
                let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                let is_marked = environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes());
                let is_here = |folder: PathBuf| folder.starts_with(self.folder.path());
                is_marked || fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(is_here)
            })
            .collect()
    }

    fn kill_all(&self) {
        // Twice: one may have been starting another.
        for _ in 0..2 {
            for pid in self.processes() {
                send(pid, libc::SIGKILL);
            }
        }
    }

    fn show(&self) {
        for name in ["boathook.toml", "stdout", "stderr", "termination"] {
            let text = self.read(name);
            if !text.is_empty() {
                eprintln!("--- {name}\n{}", text.chars().take(20_000).collect::<String>());
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if thread::panicking() {
            self.show();
        }
        self.kill_all();
    }
}

fn gather<R: Read + Send + 'static>(reader: Option<R>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        if let Some(mut reader) = reader {
            let _ = reader.read_to_end(&mut all);
        }
        all
    })
}

/// A line about a hook without how long it took: `pre-stop failed after 12ms: …` → `pre-stop failed: …`.
pub fn without_time(line: &str) -> String {
    let Some((before, after)) = line.split_once(" after ") else { return line.to_owned() };
    let Some((_, rest)) = after.split_once(':') else { return line.to_owned() };
    format!("{before}:{rest}")
}

/// Sends a signal to one process.
pub fn send(pid: i32, signal: i32) {
    // It may have ended already.
    let _ = boathook::sys::signal::send(pid, signal);
}

/// The binary, running.
pub struct Agent {
    pub place: Place,
    child: Child,
    pub begun: Instant,
    ended: Option<i32>,
}

impl Agent {
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    pub fn signal(&self, signal: i32) {
        send(self.pid(), signal);
    }

    /// What it and its main process wrote to stderr so far: the log.
    pub fn log(&self) -> String {
        self.place.read("stderr")
    }

    /// What it and its main process wrote to stdout so far.
    pub fn stdout(&self) -> String {
        self.place.read("stdout")
    }

    /// Waits until the log has this.
    #[track_caller]
    pub fn wait_log(&mut self, text: &str) {
        self.wait_for(&format!("{text:?} in the log"), |agent| agent.log().contains(text).then_some(()));
    }

    /// Waits until a file of the place has this.
    #[track_caller]
    pub fn wait_file(&mut self, name: &str, text: &str) {
        self.wait_for(&format!("{text:?} in {name}"), |agent| agent.place.read(name).contains(text).then_some(()));
    }

    /// Where it listens; it says so in its log. A listener on all addresses is called on loopback.
    #[track_caller]
    pub fn address(&mut self) -> SocketAddr {
        let mut address: SocketAddr = self.wait_for("the address it listens on", |agent| {
            let log = agent.log();
            let line = log.split_inclusive('\n').find(|line| line.contains("listening") && line.ends_with('\n'))?;
            let (_, rest) = line.split_once(" address=").or_else(|| line.split_once("\"address\":\""))?;
            rest.split([' ', '"']).next()?.parse().ok()
        });
        if address.ip().is_unspecified() {
            address.set_ip([127, 0, 0, 1].into());
        }
        address
    }

    /// Its kubelet.
    #[track_caller]
    pub fn kubelet(&mut self) -> kubelet::Kubelet {
        kubelet::Kubelet::of(self.address())
    }

    /// As any other client, on a connection of its own.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> kubelet::Answer {
        kubelet::request(self.address(), "GET", path, "")
    }

    /// Waits for something; the test fails when it does not come, or when the agent ends before it.
    #[track_caller]
    pub fn wait_for<T>(&mut self, what: &str, mut look: impl FnMut(&mut Self) -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            let is_over = self.ended().is_some();
            if let Some(found) = look(self) {
                return found;
            }
            assert!(!is_over, "ended with {:?} before: {what}", self.ended);
            assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} for: {what}");
            thread::sleep(LOOK);
        }
    }

    /// The exit code, if it has ended.
    pub fn ended(&mut self) -> Option<i32> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("ours to wait for").map(shell_code);
        }
        self.ended
    }

    /// Waits for its end; gives the exit code.
    #[track_caller]
    pub fn end(&mut self) -> i32 {
        let begun = Instant::now();
        loop {
            if let Some(code) = self.ended() {
                return code;
            }
            assert!(begun.elapsed() < PATIENCE, "it did not end within {PATIENCE:?}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The place, for another life in it that writes its own output. The agent is ended if it has not.
    pub fn into_place(mut self) -> Place {
        for name in ["stdout", "stderr"] {
            let _ = fs::remove_file(self.place.path(name));
        }
        let mut bare = Place::bare();
        std::mem::swap(&mut self.place, &mut bare);
        bare
    }

    /// The binary with these words, beside this agent.
    #[track_caller]
    pub fn boathook(&self, words: &[&str]) -> Said {
        self.place.boathook(words)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if self.ended.is_none() {
            // Not waited for yet, so the id is still its own.
            send(self.pid(), libc::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

/// A main process: appends `main` to `@/life` when it has started, and the names of the signals it gets; ends with
/// code 0 after `TERM`, `INT` and `QUIT`, and goes on after the others.
pub const MAIN: [&str; 3] = [
    "sh",
    "-c",
    "for s in TERM INT QUIT; do trap \"echo $s >> life; kill \\$! 2>/dev/null; exit 0\" $s; done\n\
     for s in USR1 USR2 HUP WINCH; do trap \"echo $s >> life\" $s; done\n\
     echo main >> life\n\
     while :; do sleep 1000 & wait; kill $! 2>/dev/null; done",
];
