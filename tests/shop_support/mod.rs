//! Applications that tell from their own side whether they were warm before traffic came: each notes every request in a
//! ledger before it answers. And traffic as a Service sends it: only once `/ready` says so.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use crate::support::{Agent, Place};

/// A JVM that starts while other tests run takes its time.
const LONG: Duration = Duration::from_secs(60);

/// The source of an application.
pub fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shop_support").join(name)
}

/// An example's configuration in a place of its own: its files are below `@/`, its application is on `port`, and there
/// is no drain.
pub fn example(name: &str, port: u16, change: impl FnOnce(String) -> String) -> Place {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
    let text = fs::read_to_string(folder.join("boathook.toml")).expect("an example");
    let text = [
        ("8080", port.to_string().as_str()),
        ("[server]\n", "[server]\nlisten = \"127.0.0.1:0\"\n"),
        ("\"/state/", "\"@/state/"),
        ("\"/etc/boathook/", "\"@/"),
        // All connections of the network namespace count for a drain, and this machine's is everybody's.
        ("drain = { settle = \"5s\" }", "sleep = \"50ms\""),
    ]
    .into_iter()
    .fold(text, |text, (from, to)| text.replace(from, to));
    let place = Place::with(&change(text)).env("BOATHOOK_TOKEN", "secret");
    fs::create_dir(place.path("state")).expect("made");
    if let Ok(list) = fs::read_to_string(folder.join("warm.txt")) {
        place.write("warm.txt", &list);
    }
    place
}

/// One request, as the application noted it.
#[derive(Debug)]
pub struct Entry {
    /// Sent by warm-up, by its `User-Agent`.
    pub is_warm: bool,
    pub status: u32,
    pub path: String,
    /// What the application notes besides.
    pub rest: String,
}

/// What an application noted.
#[derive(Debug)]
pub struct Ledger(Vec<Entry>);

impl Ledger {
    pub fn of(place: &Place) -> Self {
        let text = place.read("ledger");
        // The last line may be written just now.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let entries = whole.lines().map(|line| {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            let [who @ ("warm" | "user"), status, path, rest] = words[..] else { panic!("{line:?}") };
            let status = status.parse().expect("a number");
            Entry { is_warm: who == "warm", status, path: path.into(), rest: rest.into() }
        });
        Self(entries.collect())
    }

    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// How many of warm-up's requests got this answer.
    pub fn warm(&self, status: u32) -> usize {
        self.count(|entry| entry.is_warm && entry.status == status)
    }

    pub fn count(&self, which: impl Fn(&Entry) -> bool) -> usize {
        self.0.iter().filter(|entry| which(entry)).count()
    }

    /// How many of warm-up's requests had got this answer when the first user came.
    pub fn warm_before_users(&self, status: u32) -> usize {
        let before = self.0.iter().take_while(|entry| entry.is_warm);
        before.filter(|entry| entry.status == status).count()
    }
}

/// Asks as a kubelet does until the pod is ready; it is live all the while.
#[track_caller]
pub fn wait_ready(agent: &mut Agent) {
    let begun = Instant::now();
    while agent.get("/ready").status != 200 {
        assert_eq!(agent.ended(), None, "it ended before it was ready");
        let log = agent.log();
        assert!(!log.contains("hook ended hook=\"post-start\" outcome=\"failed\""), "never ready: {log}");
        assert!(begun.elapsed() < LONG, "not ready after {LONG:?}");
        let live = agent.get("/live");
        assert_eq!(live.status, 200, "{live:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Traffic: as soon as the pod is ready a user asks for `path`. What the application had noted when it was asked.
#[track_caller]
pub fn wait_ready_and_ask(agent: &mut Agent, port: u16, path: &str) -> Ledger {
    wait_ready(agent);
    assert_eq!(ask(port, path), Some(200), "{path}");
    Ledger::of(&agent.place)
}

/// One request of a user; the status, if there is an answer.
pub fn ask(port: u16, path: &str) -> Option<u32> {
    ask_with(port, "GET", path, "")
}

pub fn ask_with(port: u16, method: &str, path: &str, body: &str) -> Option<u32> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(LONG)).ok()?;
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: Mozilla/5.0\r\nConnection: close\r\n");
    stream.write_all(format!("{head}Content-Length: {length}\r\n\r\n{body}").as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    String::from_utf8_lossy(&answer).split(' ').nth(1)?.parse().ok()
}

/// A server beside the agent; it ends with the test, and what it has started ends with its place.
pub struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a server; what it says goes to a file of the place.
#[must_use]
pub fn spawn(place: &Place, words: &[&str]) -> Server {
    let words: Vec<String> = words.iter().map(|word| place.expand(word)).collect();
    let mut command = Command::new(&words[0]);
    place.dress(&mut command);
    let name = words[0].rsplit('/').next().unwrap_or("server");
    let output = fs::File::create(place.path(&format!("{name}.log"))).expect("a file");
    command.args(&words[1..]).stdout(output.try_clone().expect("a file")).stderr(output);
    Server(command.spawn().unwrap_or_else(|error| panic!("{words:?}: {error}")))
}

/// Runs a command that has to succeed.
#[track_caller]
pub fn run(place: &Place, words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| place.expand(word)).collect();
    let mut command = Command::new(&words[0]);
    place.dress(&mut command);
    command.args(&words[1..]);
    let said = place.finish(command);
    assert_eq!(said.code, 0, "{words:?}: {said:?}");
    said.stdout
}
