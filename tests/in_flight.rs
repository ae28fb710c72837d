//! What is in flight, told from outside: real servers and clients of many protocols, the real binary, one table of what
//! holds the drain and what does not. Each case has a network namespace of its own, and several run side by side.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::{Duration, Instant},
};

#[path = "support/drain_load.rs"]
#[allow(dead_code, reason = "a part of it is used")]
mod drain_load;
mod server_support;

use drain_load::{again_isolated, boathook, raise_loopback};
use server_support::{find_program, free_port, not_run, python_with_grpc};

const CASE: &str = "BOATHOOK_TEST_CASE";
/// So many cases at once: they wait for most of their time.
const AT_ONCE: usize = 8;
/// Longer than anything here takes when all is well.
const PATIENCE: Duration = Duration::from_secs(25);
/// A drain ends within 100 ms; this is for a busy machine and an unoptimised build.
const SLACK: Duration = ms(500);
/// `settle` of every case, after which nobody new comes.
const SETTLE: Duration = ms(1200);
/// `idle-after`, which is the default.
const IDLE: Duration = ms(1000);

const fn ms(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// When the drain has to end.
#[derive(Clone, Copy)]
enum Ends {
    /// Once the last answer is complete and so long has passed.
    AfterAnswer(Duration),
    /// As if nothing were in flight: after the settle time and at most so long.
    Free(Duration),
    /// Between these times from its start.
    Between(Duration, Duration),
    /// At its limit, for this reason.
    AtLimit(&'static str),
    /// After the settle time; the answer may come before or after.
    AfterStop,
    /// Before the answer: what makes it wait has been switched off.
    TooSoon,
}

use Ends::{AfterAnswer, AfterStop, AtLimit, Between, Free, TooSoon};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Server {
    Node,
    NodeH2,
    /// In front of Node.
    Nginx,
    NginxTls,
    NginxH2Tls,
    /// What its HAProxy asks by HTTP/2.
    BehindHaproxy,
    Grpc,
    Redis,
    Memcached,
}

use Server::{BehindHaproxy, Grpc, Memcached, Nginx, NginxH2Tls, NginxTls, Node, NodeH2, Redis};

/// What clients do. Each of several runs at the same time.
#[derive(Clone, Copy)]
enum Talk {
    /// These requests of HTTP/1.1 one after the other, pauses of so many milliseconds between pieces; the last answer is
    /// awaited.
    Ask(&'static [&'static [(&'static str, u64)]]),
    /// The same, and then nothing.
    Rest(&'static [&'static [(&'static str, u64)]]),
    /// An answer that never ends.
    Listen(&'static str),
    /// So many clients that ask for this path again and again, each after so many milliseconds.
    GoOn(usize, &'static str, u64),
    /// HTTP/2 by Node, or gRPC.
    Streams(&'static [&'static str]),
    /// Lines, one after the other; each is answered by a line.
    Lines(&'static [&'static str]),
}

use Talk::{Ask, GoOn, Lines, Listen, Rest, Streams};

struct Case {
    name: &'static str,
    server: Server,
    talk: &'static [Talk],
    /// More keys of the drain.
    keys: &'static str,
    is_graceful: bool,
    ends: Ends,
}

const QUICK: &[(&str, u64)] =
    &[("GET /quick HTTP/1.1\r\nHost: localhost\r\nUser-Agent: test/1.0\r\nAccept: */*\r\n\r\n", 0)];
const SLOW: &[(&str, u64)] =
    &[("GET /slow/3000 HTTP/1.1\r\nHost: localhost\r\nUser-Agent: test/1.0\r\nAccept: */*\r\n\r\n", 0)];
const CLOSING: &[(&str, u64)] = &[("GET /slow/3000 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 0)];
const PIECES: &[(&str, u64)] = &[("GET /pieces/700/4 HTTP/1.1\r\nHost: localhost\r\n\r\n", 0)];
const UPLOAD: &[(&str, u64)] = &[
    ("POST /upload/700 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 15\r\n\r\n", 700),
    ("12345", 700),
    ("12345", 700),
    ("12345", 0),
];
const CHUNKS: &[(&str, u64)] = &[
    ("POST /upload/700 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", 700),
    ("8\r\n12345678\r\n", 1500),
    ("8\r\n12345678\r\n", 700),
    ("0\r\n\r\n", 0),
];
const CONTINUE: &[(&str, u64)] = &[
    ("POST /upload/500 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 15\r\nExpect: 100-continue\r\n\r\n", 20),
    ("12345", 1500),
    ("12345", 1500),
    ("12345", 0),
];
const PIPELINE: &[(&str, u64)] = &[(
    "GET /slow/800 HTTP/1.1\r\nHost: localhost\r\n\r\nGET /slow/800 HTTP/1.1\r\nHost: localhost\r\n\r\n\
         GET /pieces/800/2 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    0,
)];

fn cases() -> Vec<Case> {
    let holds = AfterAnswer(IDLE);
    let case = |name, server, talk, ends| Case { name, server, talk, keys: "", is_graceful: false, ends };
    let graceful = |case: Case| Case { is_graceful: true, ..case };
    let keys = |case: Case, keys| Case { keys, ..case };
    vec![
        case("a slow answer", Node, &[Ask(&[QUICK, QUICK, SLOW])], holds),
        case("the same through a proxy", Nginx, &[Ask(&[QUICK, QUICK, SLOW])], holds),
        case("the same with TLS", NginxTls, &[Ask(&[QUICK, QUICK, SLOW])], holds),
        graceful(case("a slow answer before a graceful stop", Nginx, &[Ask(&[QUICK, QUICK, SLOW])], holds)),
        case("the connection closes with it", Node, &[Ask(&[CLOSING])], AfterAnswer(ms(0))),
        case("an answer in pieces", Node, &[Ask(&[PIECES])], holds),
        case("a slow upload", Node, &[Ask(&[UPLOAD])], holds),
        case("one in chunks, with long pauses", Node, &[Ask(&[QUICK, CHUNKS])], holds),
        graceful(case("the same before a graceful stop", Node, &[Ask(&[QUICK, CHUNKS])], holds)),
        case("one that was told to continue", Node, &[Ask(&[CONTINUE])], holds),
        graceful(case("the same before a graceful stop, too", Node, &[Ask(&[QUICK, CONTINUE])], holds)),
        case("requests in a row", Node, &[Ask(&[PIPELINE])], holds),
        case("nobody asks any more", Node, &[Rest(&[QUICK]), Rest(&[QUICK, QUICK, QUICK])], Free(IDLE)),
        case("nor with TLS", NginxTls, &[Rest(&[QUICK]), Rest(&[QUICK, QUICK, QUICK])], Free(IDLE)),
        keys(case("control: the rule switched off", Node, &[Ask(&[SLOW])], TooSoon), "threshold = 1000"),
        // Long-lived.
        keys(
            case("events", Node, &[Listen("/events/300")], AtLimit("1 long-lived connection in flight for ")),
            "longest-request = '2s'",
        ),
        keys(
            case("events that are ignored", Node, &[Listen("/events/300")], Between(ms(1900), ms(2300))),
            "longest-request = '2s', long-lived = 'ignore'",
        ),
        keys(
            case("events that are awaited for a while", Node, &[Listen("/events/300")], Between(ms(3000), ms(3100))),
            "longest-request = '2s', long-lived = '3s'",
        ),
        keys(
            case("a WebSocket through a proxy", Nginx, &[Listen("/push/300")], Between(ms(1900), ms(2300))),
            "longest-request = '2s', long-lived = 'ignore'",
        ),
        keys(
            case("a slow answer is none", Node, &[Ask(&[QUICK, SLOW])], holds),
            "longest-request = '6s', long-lived = 'ignore'",
        ),
        // Connections of their own.
        case("clients go on", Nginx, &[GoOn(8, "/quick", 10)], AtLimit("say graceful-stop = true in [app]")),
        graceful(case("clients go on before a graceful stop", Nginx, &[GoOn(8, "/quick", 0)], Free(ms(200)))),
        // Waiting for the others would let them begin more: the graceful stop lets all of them finish.
        graceful(case("some wait beside them", Nginx, &[GoOn(8, "/quick", 5), Ask(&[QUICK, SLOW])], AfterStop)),
        graceful(case("an upload beside them", Node, &[GoOn(8, "/quick", 5), Ask(&[UPLOAD])], AfterStop)),
        graceful(case("an answer in pieces beside them", Node, &[GoOn(2, "/quick", 100), Ask(&[PIECES])], AfterStop)),
        // HTTP/2.
        case("a slow stream", NodeH2, &[Streams(&["/quick", "/slow/3000"])], holds),
        graceful(case("a slow stream before a graceful stop", NodeH2, &[Streams(&["/quick", "/slow/3000"])], holds)),
        case("a slow stream with TLS", NginxH2Tls, &[Streams(&["/quick", "/slow/3000"])], holds),
        // Nobody has seen it talk: it might be a call that the server has only acknowledged.
        keys(
            case("no stream", NodeH2, &[Streams(&["/quick", "/quick", "idle"])], Free(ms(3000))),
            "longest-request = '3s'",
        ),
        graceful(case("no stream left", NodeH2, &[Streams(&["/quick", "/quick", "idle"])], Free(IDLE))),
        case("no stream with TLS", NginxH2Tls, &[Streams(&["/quick", "/quick", "idle"])], Free(IDLE)),
        // Where nobody saw which of its bytes came last, it is held for the longest request.
        keys(
            case("a slow stream of a proxy", BehindHaproxy, &[Ask(&[QUICK, SLOW])], AfterAnswer(ms(4000))),
            "longest-request = '4s'",
        ),
        graceful(case("the same before a graceful one", BehindHaproxy, &[Ask(&[QUICK, SLOW])], AfterStop)),
        graceful(case("window updates last", BehindHaproxy, &[Rest(&[QUICK, QUICK])], Free(IDLE))),
        keys(
            case("window updates before a hard stop", BehindHaproxy, &[Rest(&[QUICK, QUICK])], Free(ms(3000))),
            "longest-request = '3s'",
        ),
        case("a slow call", Grpc, &[Streams(&["0", "3000"])], holds),
        // The server has acknowledged it at once, before anybody looked.
        graceful(case("a slow call left to a graceful stop", Grpc, &[Streams(&["0", "0", "3000"])], AfterStop)),
        keys(case("no call", Grpc, &[Streams(&["0", "0", "idle"])], Free(ms(3000))), "longest-request = '3s'"),
        graceful(case("no call before a graceful stop", Grpc, &[Streams(&["0", "0", "idle"])], Free(IDLE))),
        // Anything else.
        case("a command that waits", Redis, &[Lines(&["PING", "BLPOP list 3"])], holds),
        case("commands are done", Redis, &[Lines(&["PING", "PING", "rest"])], Free(IDLE)),
        case("values are read", Memcached, &[Lines(&["version", "version", "rest"])], Free(IDLE)),
        // Where nobody can see who spoke.
        keys(
            case("a slow answer, by /proc", Node, &[Ask(&[QUICK, SLOW])], AfterAnswer(ms(4000))),
            "source = 'proc', longest-request = '4s'",
        ),
        keys(
            case("at rest, by /proc", Node, &[Rest(&[QUICK, QUICK])], Between(ms(2900), ms(4500))),
            "source = 'proc', longest-request = '3s'",
        ),
        graceful(keys(
            case("clients go on, by /proc", Node, &[GoOn(4, "/quick", 10)], Free(ms(4500))),
            "source = 'proc', longest-request = '3s'",
        )),
    ]
}

#[test]
fn what_is_in_flight_is_rightly_told() {
    if let Ok(name) = env::var(CASE) {
        raise_loopback();
        let case = cases().into_iter().find(|case| case.name == name).expect("a case");
        run(&case);
        return;
    }
    // Outside of the namespaces, where there may be a network.
    python_with_grpc();
    let only = env::var("BOATHOOK_ONLY").unwrap_or_default();
    let mut waiting: Vec<Case> = cases().into_iter().filter(|case| case.name.contains(&only)).collect();
    waiting.reverse();
    let mut running: Vec<(&str, Child)> = Vec::new();
    let mut failed = Vec::new();
    while !waiting.is_empty() || !running.is_empty() {
        while running.len() < AT_ONCE
            && let Some(case) = waiting.pop()
        {
            let words = ["--exact", "what_is_in_flight_is_rightly_told", "--nocapture"].map(String::from);
            let mut command = again_isolated(&words);
            command.env(CASE, case.name).stdout(Stdio::piped()).stderr(Stdio::piped());
            running.push((case.name, command.spawn().expect("it starts again")));
        }
        thread::sleep(ms(5));
        let ended = running.iter_mut().position(|(_, child)| child.try_wait().expect("ours").is_some());
        if let Some(index) = ended {
            let (name, child) = running.swap_remove(index);
            let output = child.wait_with_output().expect("it has ended");
            let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            let lines = text.lines().filter(|line| line.starts_with("> ") || line.starts_with("NOT RUN"));
            lines.for_each(|line| println!("{line}"));
            if !output.status.success() {
                failed.push(format!("{name}: {text}"));
            }
        }
    }
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}

/// A server with all that belongs to it, and where clients find it.
struct World {
    place: PathBuf,
    port: u16,
    /// The port that is drained.
    drained: u16,
    url: String,
    python: Option<(String, PathBuf)>,
    _children: Vec<Running>,
    _folder: tempfile::TempDir,
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(mut command: Command) -> Running {
    // SAFETY: prctl is a plain system call, safe between fork and exec: it ends with its test.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    Running(command.stdin(Stdio::null()).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/in_flight_support").join(name)
}

fn node(words: &[&str]) -> Command {
    let mut command = Command::new(find_program("node").expect("looked for"));
    command.arg(script("node.js")).args(words);
    command
}

fn python(world: &(String, PathBuf), words: &[&str]) -> Command {
    let mut command = Command::new(&world.0);
    command.arg(script("calls.py")).args(words).env("PYTHONPATH", &world.1);
    command
}

fn wait_for(port: u16) {
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begun.elapsed() < PATIENCE, "nothing listens on {port}");
        thread::sleep(ms(10));
    }
}

impl World {
    /// None where something is not installed, which is told.
    fn make(server: Server) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().to_path_buf();
        let needed: &[&str] = match server {
            Node | NodeH2 => &["node"],
            Nginx => &["node", "nginx"],
            NginxTls | NginxH2Tls => &["node", "nginx", "openssl"],
            BehindHaproxy => &["node", "haproxy"],
            Grpc => &["python3"],
            Redis => &["redis-server"],
            Memcached => &["memcached"],
        };
        for program in needed {
            if find_program(program).is_none() {
                not_run(&format!("{program} is not installed"));
                return None;
            }
        }
        let grpc = if server == Grpc { Some(python_with_grpc()?) } else { None };
        let [h1, h2, front] = [free_port(), free_port(), free_port()];
        let (port, drained) = match server {
            Node => (h1, h1),
            NodeH2 => (h2, h2),
            BehindHaproxy => (front, h2),
            _ => (front, front),
        };
        let mut children = Vec::new();
        if needed.contains(&"node") {
            children.push(start(node(&["server", &h1.to_string(), &h2.to_string()])));
            wait_for(h1);
            wait_for(h2);
        }
        match server {
            Node | NodeH2 => {}
            Nginx | NginxTls | NginxH2Tls => children.push(start(nginx(&place, server, front, h1))),
            BehindHaproxy => {
                let config = format!(
                    "defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
                     listen all\n bind 127.0.0.1:{front}\n http-reuse always\n server node 127.0.0.1:{h2} proto h2\n"
                );
                fs::write(place.join("haproxy.cfg"), config).expect("written");
                let mut command = Command::new(find_program("haproxy").expect("looked for"));
                command.arg("-db").arg("-f").arg(place.join("haproxy.cfg"));
                children.push(start(command));
            }
            Grpc => children.push(start(python(grpc.as_ref()?, &["server", &front.to_string()]))),
            Redis => {
                let mut command = Command::new(find_program("redis-server").expect("looked for"));
                command.args(["--port", &front.to_string(), "--save", ""]).current_dir(&place).stdout(Stdio::null());
                children.push(start(command));
            }
            // As root it would become somebody else, and then not end with its test.
            Memcached => {
                let mut command = Command::new(find_program("memcached").expect("looked for"));
                command.args(["-l", "127.0.0.1", "-p", &front.to_string(), "-u", "root"]);
                children.push(start(command));
            }
        }
        wait_for(port);
        let scheme = if matches!(server, NginxTls | NginxH2Tls) { "https" } else { "http" };
        let url = format!("{scheme}://127.0.0.1:{port}");
        Some(Self { place, port, drained, url, python: grpc, _children: children, _folder: folder })
    }
}

fn nginx(place: &Path, server: Server, front: u16, h1: u16) -> Command {
    let listen = match server {
        NginxTls => " ssl",
        NginxH2Tls => " ssl http2",
        _ => "",
    };
    let mut tls = String::new();
    if !listen.is_empty() {
        let make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out cert.pem \
                    -days 2 -subj /CN=localhost 2>/dev/null";
        let status = Command::new("sh").args(["-c", make]).current_dir(place).status().expect("sh");
        assert!(status.success());
        tls = format!("ssl_certificate {0}/cert.pem; ssl_certificate_key {0}/key.pem;", place.display());
    }
    let place = place.display();
    let config = format!(
        "daemon off; master_process off; pid {place}/pid; error_log {place}/log;
         events {{}}
         http {{ access_log off; client_body_temp_path {place}/1; proxy_temp_path {place}/2;
                 fastcgi_temp_path {place}/3; uwsgi_temp_path {place}/4; scgi_temp_path {place}/5;
                 keepalive_requests 100000;
                 map $http_upgrade $connection_header {{ default upgrade; '' close; }}
                 server {{ listen 127.0.0.1:{front}{listen}; {tls}
                   location / {{ proxy_pass http://127.0.0.1:{h1}; proxy_http_version 1.1;
                                 proxy_set_header Upgrade $http_upgrade;
                                 proxy_set_header Connection $connection_header; }}
                   location /quick {{ return 200 'quick\\n'; }} }} }}"
    );
    let file = format!("{place}/nginx.conf");
    fs::write(&file, config).expect("written");
    let mut command = Command::new(find_program("nginx").expect("looked for"));
    command.args(["-c", &file]).stderr(Stdio::null());
    command
}

fn run(case: &Case) {
    let Some(world) = World::make(case.server) else { return };
    let (ready, is_ready) = channel();
    let (answered, answers) = channel();
    let world = &world;
    let mut expected = 0;
    thread::scope(|scope| {
        let mut clients = 0;
        for talk in case.talk {
            let number = if let GoOn(number, ..) = talk { *number } else { 1 };
            expected += usize::from(matches!(talk, Ask(_)));
            expected += match talk {
                Streams(words) | Lines(words) => usize::from(!matches!(words.last(), Some(&("idle" | "rest")))),
                _ => 0,
            };
            for _ in 0..number {
                let (ready, answered) = (ready.clone(), answered.clone());
                clients += 1;
                scope.spawn(move || speak(world, case.server, *talk, &ready, &answered));
            }
        }
        for _ in 0..clients {
            is_ready.recv_timeout(PATIENCE).expect("the client begins");
        }
        let outcome = std::panic::catch_unwind(|| drain(world, case));
        let outcome = outcome.map(|(began, took, text)| judge(case, began, took, &text, expected, &answers));
        // Clients that never end are ended with the process.
        let failed = outcome.unwrap_or_else(|_| Some("it panicked".to_string()));
        if let Some(why) = &failed {
            eprintln!("{}: {why}", case.name);
        }
        std::process::exit(i32::from(failed.is_some()));
    });
}

/// Runs the drain; gives its beginning, how long it took, and its reason.
fn drain(world: &World, case: &Case) -> (Instant, Duration, String) {
    let config = format!(
        "[server]\nlisten = '127.0.0.1:0'\n[app]\nports = [{}]\ngraceful-stop = {}\n\
         [[pre-stop.step]]\ntimeout = '9s'\ndrain = {{ settle = '1200ms'{}{} }}\n",
        world.drained,
        case.is_graceful,
        if case.keys.is_empty() { "" } else { ", " },
        case.keys,
    );
    let file = world.place.join("boathook.toml");
    fs::write(&file, config).expect("written");
    let mut command = Command::new(boathook());
    command.arg("shutdown").env("BOATHOOK_CONFIG", file).env("BOATHOOK_SOCKET", format!("in-flight-{}", world.port));
    let began = Instant::now();
    let output = command.stdin(Stdio::null()).output().expect("it runs");
    let took = began.elapsed();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find(|line| line.contains("step ended")).unwrap_or(&text);
    (began, took, line.split_once("reason=").map_or(line, |(_, reason)| reason).to_string())
}

/// What is wrong with how it ended, if anything is.
fn judge(
    case: &Case,
    began: Instant,
    took: Duration,
    text: &str,
    expected: usize,
    answers: &Receiver<Instant>,
) -> Option<String> {
    let mut answered: Vec<Instant> = answers.try_iter().collect();
    let before = answered.len();
    while answered.len() < expected {
        let Ok(at) = answers.recv_timeout(PATIENCE) else { return Some("an answer never came".to_string()) };
        answered.push(at);
    }
    let last = answered.iter().max().map_or(Duration::ZERO, |at| at.saturating_duration_since(began));
    println!("> {}: {took:.2?}, answered {last:.2?}: {text}", case.name);
    let (from, to) = match case.ends {
        AfterAnswer(more) => (last, last + more),
        Free(more) => (SETTLE, SETTLE + more),
        Between(from, to) => (from, to),
        AtLimit(_) => (ms(9000), ms(9000)),
        AfterStop => (SETTLE, last + IDLE),
        TooSoon => {
            return (before == expected).then(|| format!("it waited for {took:?}"));
        }
    };
    // A client sees the end of its answer a moment later.
    if took + ms(50) < from || took > to + SLACK {
        return Some(format!("it took {took:?} instead of {from:?} to {to:?}"));
    }
    match case.ends {
        AtLimit(reason) if !text.contains(reason) => Some(format!("its reason does not say {reason:?}")),
        _ => None,
    }
}

/// One client's life. It stays for ever, so that whoever waits for silence gets it.
fn speak(world: &World, server: Server, talk: Talk, ready: &Sender<()>, answered: &Sender<Instant>) {
    let say_ready = || ready.send(()).expect("somebody waits");
    match talk {
        Streams(words) => {
            let mut command = match &world.python {
                Some(python_at) => python(python_at, &[&["client", &world.port.to_string()], words].concat()),
                None => node(&[&["client", &world.url], words].concat()),
            };
            let mut child = start({
                command.stdout(Stdio::piped());
                command
            });
            let lines = BufReader::new(child.0.stdout.take().expect("piped")).lines();
            for line in lines.map_while(Result::ok) {
                match line.as_str() {
                    "ready" => say_ready(),
                    "answered" => answered.send(Instant::now()).expect("somebody waits"),
                    _ => {}
                }
            }
        }
        Ask(requests) | Rest(requests) => {
            let mut stream = connect(world, server);
            let is_asking = matches!(talk, Ask(_));
            for (index, request) in requests.iter().enumerate() {
                let is_last = is_asking && index + 1 == requests.len();
                let count = request.iter().map(|(text, _)| text.matches(" HTTP/1.1\r\n").count()).sum();
                for (number, (text, pause)) in request.iter().enumerate() {
                    stream.write_all(text.as_bytes()).expect("the server reads");
                    if is_last && number == 0 {
                        say_ready();
                    }
                    thread::sleep(ms(*pause));
                }
                for _ in 0..count {
                    read_answer(&mut stream);
                }
                if is_last {
                    answered.send(Instant::now()).expect("somebody waits");
                } else if !is_asking {
                    thread::sleep(ms(50));
                }
            }
            if !is_asking {
                say_ready();
            }
            let _ = stream.read(&mut [0]);
        }
        Listen(path) => {
            let mut stream = connect(world, server);
            let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
            let upgrade = if path.starts_with("/push") { upgrade } else { "" };
            let text = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{upgrade}\r\n");
            stream.write_all(text.as_bytes()).expect("the server reads");
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer);
            say_ready();
            while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
        }
        GoOn(_, path, pause) => {
            let mut stream = connect(world, server);
            let text = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: test/1.0\r\n\r\n");
            for round in 0.. {
                stream.write_all(text.as_bytes()).expect("the server reads");
                read_answer(&mut stream);
                if round == 2 {
                    say_ready();
                }
                thread::sleep(ms(pause));
            }
        }
        Lines(lines) => {
            let mut stream = connect(world, server);
            let mut reader = BufReader::new(TcpStream::try_clone(stream.tcp()).expect("a copy"));
            for (index, line) in lines.iter().enumerate() {
                let is_last = index + 1 == lines.len();
                if is_last {
                    say_ready();
                }
                if *line == "rest" {
                    let _ = reader.read(&mut [0]);
                    return;
                }
                stream.write_all(format!("{line}\r\n").as_bytes()).expect("the server reads");
                let mut answer = String::new();
                reader.read_line(&mut answer).expect("an answer");
                if is_last {
                    answered.send(Instant::now()).expect("somebody waits");
                }
            }
            let _ = reader.read(&mut [0]);
        }
    }
}

/// Plain, or with TLS by the program `openssl`, whose standard streams are the connection.
enum Stream {
    Plain(TcpStream),
    Tls(Running),
}

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(_) => panic!("it is no socket"),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(child) => child.0.stdout.as_mut().expect("piped").read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(buffer),
            Self::Tls(child) => child.0.stdin.as_mut().expect("piped").write(buffer),
        }
    }
    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(child) => child.0.stdin.as_mut().expect("piped").flush(),
        }
    }
}

fn connect(world: &World, server: Server) -> Stream {
    if server != NginxTls {
        let stream = TcpStream::connect(("127.0.0.1", world.port)).expect("it listens");
        stream.set_nodelay(true).expect("a socket");
        return Stream::Plain(stream);
    }
    let mut command = Command::new("openssl");
    command.args(["s_client", "-quiet", "-connect", &format!("127.0.0.1:{}", world.port)]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    Stream::Tls(Running(command.spawn().expect("openssl")))
}

/// Reads one answer: by its length, or to its last chunk.
fn read_answer(stream: &mut Stream) {
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            if head.starts_with("http/1.1 100") {
                answer.drain(..head.len() + 4);
                continue;
            }
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            if length.map_or(text.ends_with("\r\n0\r\n\r\n"), |length| answer.len() >= head.len() + 4 + length) {
                return;
            }
        }
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).expect("an answer"), 1, "it closed: {text}");
        answer.push(byte[0]);
    }
}
