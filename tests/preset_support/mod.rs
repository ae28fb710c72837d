//! A real server under `boathook run` with its preset, stopped as Kubernetes does it while clients of every kind use it: who
//! was dropped, and how long did it take?
//!
//! One thread plays all parts, in a network namespace of its own where it may make one. The router goes on sending new
//! connections for [`Load::delay`] after the stop began. Besides those there are clients that go on asking on connections of
//! their own, connections that are idle, and a slow answer and a slow upload that begin in the last moment.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    rc::Rc,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener},
    task::{JoinHandle, LocalSet, spawn_local},
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::support::{Agent, Place, send, shell_code};

/// What the kubelet sends with its hooks; a configuration without a token does not look at it.
pub const TOKEN: &str = "replace-me-in-both-places";
/// Longer than any request here takes when all is well, on a loaded machine too.
const PATIENCE: Duration = Duration::from_secs(20);
/// A Java server on a loaded machine starts in less.
const START: Duration = Duration::from_secs(60);
/// Every so many new connections one asks for a slow answer.
const SLOW_EVERY: usize = 10;
/// The upload comes in so many pieces.
const PIECES: u32 = 10;
const PIECE: usize = 10_000;
/// Answers of the backend: large enough to be seen cut.
const BODY: usize = 30_000;

/// The server under test and what may be asked of it.
pub struct Server {
    pub preset: &'static str,
    pub command: Vec<String>,
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    /// Answers at once.
    pub quick: &'static str,
    /// Answers after [`Load::slow`], if it is given that in the query (`/slow?ms=1500`).
    pub slow: Option<&'static str>,
    /// Takes a body, if it does.
    pub upload: Option<&'static str>,
    /// The configuration does not say where it listens.
    pub names_no_ports: bool,
    /// More lines of boathook's configuration, beside `[app] preset` and `ports`; may begin with keys of `[app]`.
    pub config: String,
}

impl Server {
    /// One that answers `/`, `/slow` and `/up`.
    pub fn new(preset: &'static str, port: u16, command: &[&str]) -> Self {
        Self {
            preset,
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            port,
            quick: "/",
            slow: Some("/slow"),
            upload: Some("/up"),
            names_no_ports: false,
            config: String::new(),
        }
    }
}

/// What goes on while it is stopped.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// So long all this goes on before the stop.
    pub before: Duration,
    /// So long new connections come after the stop began.
    pub delay: Duration,
    /// The pause between two new connections.
    pub arrival: Duration,
    /// What a slow answer and an upload take.
    pub slow: Duration,
    pub keep_alive: usize,
    pub idle: usize,
    /// Connections that are opened ahead and never used, as browsers do; some servers never let go of them.
    pub unused: usize,
    pub grace: Duration,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            before: Duration::from_millis(2500),
            delay: Duration::from_secs(1),
            arrival: Duration::from_millis(30),
            slow: Duration::from_millis(2000),
            keep_alive: 4,
            idle: 4,
            unused: 0,
            grace: Duration::from_secs(30),
        }
    }
}

/// What became of a request that was not answered whole with a 2xx.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// The connection was refused.
    Refused,
    /// A new connection was reset, or closed before the first byte of an answer.
    Dropped,
    /// The answer was cut in the middle.
    Truncated,
    Status(u16),
    /// Nothing came for [`PATIENCE`].
    Silent,
    /// On a connection that had been used before: the server closed it while this request was on its way. Clients repeat such a
    /// request (RFC 9110, 9.2.2), and no server can avoid it; so it is counted apart.
    Crossed,
}

/// How the stop went.
#[derive(Debug)]
pub struct Stop {
    pub requests: usize,
    pub failures: BTreeMap<Failure, usize>,
    /// Answered, or failed, on connections that were in use before the stop: after it began.
    pub later_turns: usize,
    /// From the begin of the stop until the process was gone.
    pub gone: Duration,
    /// As a shell shows it: 128+N for a signal.
    pub code: i32,
    /// It outlasted the grace period.
    pub was_killed: bool,
    /// The main process ended before boathook passed the stop signal on: the preset's own step did it.
    pub ended_in_pre_stop: bool,
    /// The status and the body of the answer to `/shutdown`; none where there was none, as without boathook.
    pub hook: Option<(u16, String)>,
    pub log: String,
}

impl Stop {
    /// All that failed but for what no server can avoid.
    pub fn dropped(&self) -> usize {
        self.failures.iter().filter(|(failure, _)| **failure != Failure::Crossed).map(|(_, count)| count).sum()
    }

    /// Nothing was lost, the preset's own graceful stop ended the server, and it took as long as it had to.
    #[track_caller]
    pub fn assert_graceful(&self, load: &Load) {
        assert_eq!(self.dropped(), 0, "of {} requests: {:?}\n{}", self.requests, self.failures, self.log);
        assert!(!self.was_killed, "killed after {:?}\n{}", self.gone, self.log);
        let (status, body) = self.hook.as_ref().expect("an answer to /shutdown");
        assert_eq!(*status, 200, "{body}");
        assert!(self.requests > 50, "only {} requests", self.requests);
        let most = load.delay + load.slow + Duration::from_secs(2);
        assert!(self.gone <= most, "{:?}, which is more than {most:?}\n{}", self.gone, self.log);
    }
}

/// Runs `work` on a thread of its own, in a network namespace of its own where that is permitted: then nobody else's
/// connections are in its counters. What it starts is in there too.
pub fn isolated<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let inside = move || {
        // SAFETY: a plain system call; it concerns this thread alone and what it starts.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0 {
            let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
            assert!(up.is_ok_and(|status| status.success()), "no loopback");
        }
        work()
    };
    match std::thread::spawn(inside).join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Starts the server under `boathook run` with its preset, and stops it as the kubelet does: `/shutdown`, then TERM when that
/// is answered, KILL when the grace period is over.
#[track_caller]
pub fn stop_under_boathook(place: Place, server: &Server, load: &Load) -> Stop {
    stop_pod(place, server, load, &[])
}

/// The same in a pod with other containers, whose `/shutdown` is called at the same time.
#[track_caller]
pub fn stop_pod(place: Place, server: &Server, load: &Load, others: &[SocketAddr]) -> Stop {
    let ports = if server.names_no_ports { String::new() } else { format!("ports = [{}]\n", server.port) };
    let config = format!(
        "grace-period = \"{}s\"\n[app]\npreset = \"{}\"\n{ports}{}",
        load.grace.as_secs(),
        server.preset,
        server.config,
    );
    stop_configured(place.configured(&config), server, load, others)
}

/// The same with the place's own configuration.
#[track_caller]
pub fn stop_configured(place: Place, server: &Server, load: &Load, others: &[SocketAddr]) -> Stop {
    let words: Vec<&str> = server.command.iter().map(String::as_str).collect();
    let mut agent = place.run(&words);
    let kubelet = agent.address();
    on_runtime(stop(Stopped::Agent(&mut agent, kubelet), server, load, others))
}

/// The same without boathook: the server gets this signal at once, KILL when the grace period is over.
#[track_caller]
pub fn stop_bare(place: &Place, server: &Server, load: &Load, signal: i32) -> Stop {
    let mut command = Command::new(place.expand(&server.command[0]));
    command.args(server.command[1..].iter().map(|word| place.expand(word)));
    place.dress(&mut command);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    on_runtime(stop(Stopped::Bare(&mut child, signal), server, load, &[]))
}

fn on_runtime<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async { timeout(Duration::from_secs(120), work).await.expect("it ends") })
}

enum Stopped<'a> {
    Agent(&'a mut Agent, SocketAddr),
    Bare(&'a mut Child, i32),
}

impl Stopped<'_> {
    fn ended(&mut self) -> Option<i32> {
        match self {
            Self::Agent(agent, _) => agent.ended(),
            Self::Bare(child, _) => child.try_wait().expect("ours to wait for").map(shell_code),
        }
    }

    fn pid(&self) -> i32 {
        match self {
            Self::Agent(agent, _) => agent.pid(),
            Self::Bare(child, _) => child.id().cast_signed(),
        }
    }
}

/// What all clients share.
struct Clients {
    server: SocketAddr,
    load: Load,
    /// New connections come until then.
    routed_until: Instant,
    stop: Instant,
    counted: RefCell<Counted>,
}

#[derive(Default)]
struct Counted {
    requests: usize,
    later_turns: usize,
    failures: BTreeMap<Failure, usize>,
}

impl Clients {
    fn count(&self, ended: &Result<Answer, Failure>) {
        let mut counted = self.counted.borrow_mut();
        counted.requests += 1;
        if let Err(failure) = ended {
            *counted.failures.entry(*failure).or_default() += 1;
        }
    }

    /// One request on a connection of its own.
    async fn ask_anew(&self, request: Vec<u8>) {
        let ended = async {
            let mut stream = connect(self.server).await?;
            send_and_read(&mut stream, &request, Failure::Dropped).await
        };
        self.count(&ended.await);
    }

    fn get(&self, path: &str, close: bool) -> Vec<u8> {
        let connection = if close { "Connection: close\r\n" } else { "" };
        format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{connection}\r\n", self.server).into_bytes()
    }
}

async fn stop(mut stopped: Stopped<'_>, server: &Server, load: &Load, others: &[SocketAddr]) -> Stop {
    let address = SocketAddr::from(([127, 0, 0, 1], server.port));
    until_it_serves(address, server.quick, &mut stopped).await;
    let stop = Instant::now() + load.before;
    let clients = Rc::new(Clients {
        server: address,
        load: *load,
        routed_until: stop + load.delay,
        stop,
        counted: RefCell::default(),
    });
    let slow = server.slow.map(|path| format!("{path}?ms={}", load.slow.as_millis()));
    let mut tasks = vec![spawn_local(arrive(Rc::clone(&clients), server.quick, slow.clone()))];
    for number in 0..load.keep_alive {
        tasks.push(spawn_local(keep_asking(Rc::clone(&clients), server.quick, number)));
    }
    let mut idle: Vec<_> =
        (0..load.idle).map(|_| spawn_local(stay_idle(Rc::clone(&clients), Some(server.quick)))).collect();
    idle.extend((0..load.unused).map(|_| spawn_local(stay_idle(Rc::clone(&clients), None))));
    tasks.push(spawn_local(come_last(Rc::clone(&clients), slow, server.upload)));
    let probes = match &stopped {
        Stopped::Agent(_, kubelet) => Some(spawn_local(probe(*kubelet))),
        Stopped::Bare(..) => None,
    };

    sleep_until(stop).await;
    let kill = stop + load.grace;
    let others: Vec<_> = others.iter().map(|other| spawn_local(call_shutdown(*other))).collect();
    let mut hook = match &stopped {
        Stopped::Agent(_, kubelet) => Some(spawn_local(call_shutdown(*kubelet))),
        Stopped::Bare(_, signal) => {
            send(stopped.pid(), *signal);
            None
        }
    };
    let mut answer = None;
    let mut was_killed = false;
    let (code, gone) = loop {
        if hook.as_ref().is_some_and(JoinHandle::is_finished) {
            answer = hook.take().expect("just seen").await.expect("no panic");
            if stopped.ended().is_none() {
                send(stopped.pid(), libc::SIGTERM);
            }
        }
        if let Some(code) = stopped.ended() {
            break (code, stop.elapsed());
        }
        if Instant::now() > kill && !was_killed {
            was_killed = true;
            send(stopped.pid(), libc::SIGKILL);
        }
        sleep(Duration::from_millis(2)).await;
    };
    if let Some(hook) = hook {
        answer = hook.await.expect("no panic");
    }
    for task in tasks.into_iter().chain(idle) {
        task.await.expect("no panic");
    }
    for other in others {
        assert!(other.await.expect("no panic").is_some(), "another container did not answer");
    }
    if let Some(probes) = probes {
        probes.abort();
    }
    let log = match &stopped {
        Stopped::Agent(agent, _) => agent.log(),
        Stopped::Bare(..) => String::new(),
    };
    let Counted { requests, later_turns, failures } = clients.counted.take();
    Stop {
        requests,
        failures,
        later_turns,
        gone,
        code,
        was_killed,
        ended_in_pre_stop: log.contains("main process ended") && !log.contains("stop signal passed on"),
        hook: answer,
        log,
    }
}

async fn until_it_serves(address: SocketAddr, path: &str, stopped: &mut Stopped<'_>) {
    let begun = Instant::now();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    loop {
        if let Ok(mut stream) = connect(address).await
            && send_and_read(&mut stream, request.as_bytes(), Failure::Dropped).await.is_ok()
        {
            return;
        }
        let ended = stopped.ended();
        assert!(ended.is_none(), "the server ended with {ended:?} before it served");
        assert!(begun.elapsed() < START, "the server does not serve {path}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// The router's new connections.
async fn arrive(clients: Rc<Clients>, quick: &'static str, slow: Option<String>) {
    let mut under_way = Vec::new();
    let mut next = Instant::now();
    while next < clients.routed_until {
        sleep_until(next).await;
        let is_slow = under_way.len() % SLOW_EVERY == SLOW_EVERY - 1;
        let path = slow.as_deref().filter(|_| is_slow).unwrap_or(quick);
        let (request, clients) = (clients.get(path, true), Rc::clone(&clients));
        next += clients.load.arrival;
        under_way.push(spawn_local(async move { clients.ask_anew(request).await }));
    }
    for request in under_way {
        request.await.expect("no panic");
    }
}

/// A client with a connection of its own that goes on asking until the server closes it, and comes again while it is routed
/// here.
async fn keep_asking(clients: Rc<Clients>, quick: &'static str, number: usize) {
    let pause = Duration::from_millis(150 + 20 * number as u64);
    let request = clients.get(quick, false);
    while Instant::now() < clients.routed_until {
        let mut stream = match connect(clients.server).await {
            Ok(stream) => stream,
            Err(failure) => return clients.count(&Err(failure)),
        };
        let mut crossed = Failure::Dropped;
        loop {
            let ended = send_and_read(&mut stream, &request, crossed).await;
            clients.count(&ended);
            if Instant::now() > clients.stop {
                clients.counted.borrow_mut().later_turns += 1;
            }
            crossed = Failure::Crossed;
            // A closed connection is seen before the next request is written, as every pool does it.
            let is_over = ended.map_or(true, |answer| answer.closes);
            if is_over || is_closed_within(&mut stream, pause).await {
                break;
            }
        }
    }
}

/// One request or none, then nothing until the server closes; that is no failure, whatever it looks like.
async fn stay_idle(clients: Rc<Clients>, first: Option<&'static str>) {
    let Ok(mut stream) = connect(clients.server).await else { return };
    if let Some(path) = first {
        clients.count(&send_and_read(&mut stream, &clients.get(path, false), Failure::Dropped).await);
    }
    is_closed_within(&mut stream, clients.load.before + clients.load.grace).await;
}

/// A slow answer and a slow upload on the last connections that are routed here, just before that ends.
async fn come_last(clients: Rc<Clients>, slow: Option<String>, upload: Option<&'static str>) {
    sleep_until(clients.routed_until - Duration::from_millis(50)).await;
    let answer = async {
        if let Some(path) = slow {
            clients.ask_anew(clients.get(&path, false)).await;
        }
    };
    let upload = async {
        let Some(path) = upload else { return };
        let length = PIECE * PIECES as usize;
        let head = format!("POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {length}\r\n\r\n", clients.server);
        let ended = async {
            let mut stream = connect(clients.server).await?;
            let dropped = |_| Failure::Dropped;
            stream.write_all(head.as_bytes()).await.map_err(dropped)?;
            for _ in 0..PIECES - 1 {
                stream.write_all(&[b'x'; PIECE]).await.map_err(dropped)?;
                sleep(clients.load.slow / PIECES).await;
            }
            send_and_read(&mut stream, &[b'x'; PIECE], Failure::Dropped).await
        };
        clients.count(&ended.await);
    };
    tokio::join!(answer, upload);
}

/// The kubelet's readiness probe, which goes on during the stop.
async fn probe(kubelet: SocketAddr) {
    loop {
        if let Ok(mut stream) = TcpStream::connect(kubelet).await {
            let request = "GET /ready HTTP/1.1\r\nHost: x\r\nUser-Agent: kube-probe/1.36\r\nConnection: close\r\n\r\n";
            let _ = stream.write_all(request.as_bytes()).await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// The kubelet's pre-stop hook: the status and the body of the answer.
async fn call_shutdown(kubelet: SocketAddr) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(kubelet).await.ok()?;
    let request = format!(
        "GET /shutdown HTTP/1.1\r\nHost: x\r\nUser-Agent: kube-lifecycle/1.36\r\n\
         Authorization: Bearer {TOKEN}\r\nAccept-Encoding: gzip\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let answer = read_answer(&mut stream, Failure::Dropped).await;
    answer.map(|answer| (answer.status, answer.body)).ok()
}

/// An answer that came whole.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
    /// No further request may follow on this connection.
    pub closes: bool,
}

async fn connect(to: SocketAddr) -> Result<TcpStream, Failure> {
    match timeout(PATIENCE, TcpStream::connect(to)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Err(Failure::Refused),
        Ok(Err(_)) => Err(Failure::Dropped),
        Err(_) => Err(Failure::Silent),
    }
}

/// `crossed`: what it is when the server closes before the first byte of its answer.
async fn send_and_read(stream: &mut TcpStream, request: &[u8], crossed: Failure) -> Result<Answer, Failure> {
    // A server may answer and close before it has read everything: what it said counts.
    let written = stream.write_all(request).await;
    let answer = read_answer(stream, crossed).await?;
    written.map_err(|_| crossed)?;
    if (200..300).contains(&answer.status) { Ok(answer) } else { Err(Failure::Status(answer.status)) }
}

async fn read_answer(stream: &mut TcpStream, crossed: Failure) -> Result<Answer, Failure> {
    let mut bytes = Vec::new();
    let read = async {
        loop {
            if let Some(answer) = parse(&bytes, false) {
                return Ok(answer);
            }
            match stream.read_buf(&mut bytes).await {
                Ok(0) => return parse(&bytes, true).ok_or(bytes.is_empty()),
                Ok(_) => {}
                Err(_) => return Err(bytes.is_empty()),
            }
        }
    };
    match timeout(PATIENCE, read).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(true)) => Err(crossed),
        Ok(Err(false)) => Err(Failure::Truncated),
        Err(_) => Err(Failure::Silent),
    }
}

/// An answer, once it is whole: by its length, in pieces, or to the end of the connection.
fn parse(bytes: &[u8], at_end: bool) -> Option<Answer> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let body = &bytes[end + 4..];
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let closes = field("connection").is_some_and(|value| value.contains("close")) || head.starts_with("http/1.0");
    let answer = |body: &[u8]| Answer { status, body: String::from_utf8_lossy(body).into_owned(), closes };
    if let Some(length) = field("content-length") {
        let length = length.parse().ok()?;
        return (body.len() >= length).then(|| answer(&body[..length]));
    }
    if field("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
        return body.ends_with(b"0\r\n\r\n").then(|| answer(body));
    }
    at_end.then(|| Answer { closes: true, ..answer(body) })
}

/// Whether the server closes within this time; bytes that nobody asked for count as closing.
async fn is_closed_within(stream: &mut TcpStream, time: Duration) -> bool {
    timeout(time, stream.read_u8()).await.is_ok()
}

/// An application behind servers that only pass requests on: `/slow?ms=N` answers after that, everything else at once; what
/// is sent is read first. It closes a connection only when it is told to. It is on a thread of its own, in this thread's network
/// namespace, and ends with the test.
///
/// It listens on a Unix socket, readable for every user: with another port than the server's in the namespace, nobody could tell
/// whose the connections were that came before the stop.
pub fn start_backend(socket: &Path) {
    let listener = std::os::unix::net::UnixListener::bind(socket).expect("a socket");
    std::fs::set_permissions(socket, PermissionsExt::from_mode(0o777)).expect("opened");
    std::fs::set_permissions(socket.parent().expect("a folder"), PermissionsExt::from_mode(0o755)).expect("opened");
    std::thread::spawn(move || {
        on_runtime_for_ever(async move {
            listener.set_nonblocking(true).expect("a socket");
            let listener = UnixListener::from_std(listener).expect("a runtime");
            while let Ok((stream, _)) = listener.accept().await {
                spawn_local(serve(stream));
            }
        });
    });
}

/// The same on a port of loopback, for servers that know no Unix sockets. Then boathook waits for the settle time.
pub fn start_backend_on_port() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        on_runtime_for_ever(async move {
            listener.set_nonblocking(true).expect("a socket");
            let listener = TcpListener::from_std(listener).expect("a runtime");
            while let Ok((stream, _)) = listener.accept().await {
                spawn_local(serve(stream));
            }
        });
    });
    address
}

fn on_runtime_for_ever(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, work);
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut bytes = Vec::new();
    loop {
        let request = loop {
            if let Some(found) = take_request(&mut bytes) {
                break found;
            }
            match stream.read_buf(&mut bytes).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        };
        let pause = request.split("ms=").nth(1).and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
        if let Some(pause) = pause.and_then(|pause| pause.parse().ok()) {
            sleep(Duration::from_millis(pause)).await;
        }
        let closes = request.contains("connection: close") || request.contains(" http/1.0\r\n");
        let connection = if closes { "Connection: close\r\n" } else { "" };
        let body = "x".repeat(BODY);
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n{connection}\r\n{body}");
        if stream.write_all(answer.as_bytes()).await.is_err() || closes {
            return;
        }
    }
}

/// The head of the next whole request, in small letters.
fn take_request(bytes: &mut Vec<u8>) -> Option<String> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    let length = match length {
        Some(length) => length,
        None if head.contains("transfer-encoding: chunked") => {
            bytes[end..].windows(5).position(|five| five == b"0\r\n\r\n")? + 5
        }
        None => 0,
    };
    if bytes.len() < end + length {
        return None;
    }
    bytes.drain(..end + length);
    Some(head)
}
