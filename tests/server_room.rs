//! The port as the kubelet, an attacker and an operator meet it: the kubelet's exact bytes, failures that it notices,
//! rights, and its call being served in time whatever else comes in.

use std::{
    env,
    future::Future,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use boathook::{
    server::{self, Agent, Caller, HookAnswer, Limits, Rights, TokenSource, Trigger, admission::TokenFile},
    step::OwnTraffic,
};
use rustix::net as sys;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    sync::oneshot,
    time::{sleep, timeout},
};

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(20);
/// What the kubelet's call may take while the port is flooded: 100 ms. Unoptimised code is several times slower.
const BAR: Duration = Duration::from_millis(if cfg!(debug_assertions) { 300 } else { 100 });
/// What a probe may take meanwhile: the kubelet's default `timeoutSeconds`.
const PROBE_BAR: Duration = Duration::from_secs(1);

fn kubelet(path: &str) -> String {
    // Byte for byte what Kubernetes 1.36 sends; no `Connection` header.
    format!(
        "GET {path} HTTP/1.1\r\nHost: 10.0.0.5:4665\r\nUser-Agent: kube-lifecycle/1.36\r\nAccept: */*\r\n\
         Accept-Encoding: gzip\r\n\r\n"
    )
}

/// An agent whose hooks take `delay` and end as they are told.
#[derive(Default)]
struct Fake {
    delay: Duration,
    fails: AtomicBool,
    calls: AtomicU32,
    body: Option<String>,
}

impl Agent for Fake {
    fn trigger(&self, hook: Trigger, _: &Caller) -> impl Future<Output = HookAnswer> + Send {
        self.calls.fetch_add(1, SeqCst);
        async move {
            sleep(self.delay).await;
            let body = self.body.clone().unwrap_or_else(|| format!("{{\"hook\":\"{hook:?}\"}}\n"));
            HookAnswer { succeeded: !self.fails.load(SeqCst), body }
        }
    }
    async fn is_ready(&self) -> Result<(), String> {
        if self.fails.load(SeqCst) { Err("post-start failed".into()) } else { Ok(()) }
    }
    fn is_live(&self) -> Result<(), String> {
        Ok(())
    }
    fn status_json(&self) -> String {
        "{}\n".into()
    }
    fn report_json(&self) -> String {
        "[]\n".into()
    }
    fn metrics(&self) -> String {
        "boathook_up 1\n".into()
    }
}

/// The server in a thread of its own.
struct Server {
    address: SocketAddr,
    agent: Arc<Fake>,
    own: OwnTraffic,
    stop: Option<oneshot::Sender<()>>,
    ended: mpsc::Receiver<()>,
}

fn open_rights() -> Rights {
    Rights { listener_is_loopback: true, ..Rights::default() }
}

fn start(agent: Fake, rights: Rights, limits: Limits) -> Server {
    let listener = server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (agent, own) = (Arc::new(agent), OwnTraffic::default());
    let (stop, stopped) = oneshot::channel();
    let (end, ended) = mpsc::channel();
    let (served, counted) = (Arc::clone(&agent), own.clone());
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let stop = async { drop(stopped.await) };
            server::serve_limited(listener, stop, served, rights, counted, limits).await;
        });
        let _ = end.send(());
    });
    Server { address, agent, own, stop: Some(stop), ended }
}

fn simple() -> Server {
    start(Fake::default(), open_rights(), Limits::network())
}

impl Server {
    fn connect(&self) -> Client {
        Client::from(TcpStream::connect(self.address).unwrap())
    }
    /// One request on a connection of its own.
    fn ask(&self, request: &str) -> Result<Reply, Gone> {
        self.connect().ask(request)
    }
}

/// A connection was closed without a byte of an answer.
#[derive(Debug, PartialEq)]
struct Gone;

#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn from(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }
    fn send(&mut self, text: &str) {
        // The server may have closed already; reading tells.
        let _ = self.0.get_mut().write_all(text.as_bytes());
    }
    fn ask(&mut self, request: &str) -> Result<Reply, Gone> {
        self.send(request);
        self.reply(!request.starts_with("HEAD"))
    }
    fn reply(&mut self, with_body: bool) -> Result<Reply, Gone> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            match self.0.read_line(&mut head) {
                Ok(0) if head.is_empty() => return Err(Gone),
                Err(error) if error.kind() == ErrorKind::ConnectionReset && head.is_empty() => return Err(Gone),
                Ok(read) if read > 0 => {}
                other => panic!("{other:?} after {head:?}"),
            }
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = header(&head, "content-length").map_or(0, |text| text.parse().unwrap());
        let mut body = vec![0; if with_body { length } else { 0 }];
        self.0.read_exact(&mut body).unwrap();
        Ok(Reply { status, head, body: String::from_utf8(body).unwrap() })
    }
    /// Waits for the server to close; `true` when it did so without sending anything.
    fn is_closed_silently(&mut self) -> bool {
        let mut byte = [0];
        match self.0.read(&mut byte) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

#[test]
fn the_kubelet_is_answered_on_one_connection_for_both_hooks() {
    let server = simple();
    let mut client = server.connect();
    for (path, hook) in [("/started", "Started"), ("/shutdown", "Shutdown"), ("/shutdown?again=1", "Shutdown")] {
        let reply = client.ask(&kubelet(path)).unwrap();
        assert_eq!((reply.status, reply.body), (200, format!("{{\"hook\":\"{hook}\"}}\n")));
        assert_eq!(header(&reply.head, "connection"), None, "kept alive");
        assert_eq!(header(&reply.head, "content-type"), Some("application/json"));
    }
    assert_eq!(server.own.accepted.load(SeqCst), 1);
}

#[test]
fn endpoints_answer_as_documented() {
    let server = simple();
    let text = "text/plain; charset=utf-8";
    for (request, status, kind, body) in [
        ("GET /ready", 200, text, "ready\n"),
        ("HEAD /ready", 200, text, ""),
        ("GET /live", 200, text, "live\n"),
        ("HEAD /live", 200, text, ""),
        ("GET /status", 200, "application/json", "{}\n"),
        ("HEAD /status", 200, "application/json", ""),
        ("GET /metrics", 200, "text/plain; version=0.0.4", "boathook_up 1\n"),
        ("POST /started", 200, "application/json", "{\"hook\":\"Started\"}\n"),
        ("POST /shutdown", 200, "application/json", "{\"hook\":\"Shutdown\"}\n"),
        ("HEAD /shutdown", 405, text, ""),
        ("DELETE /started", 405, text, "method not allowed\n"),
        ("POST /ready", 405, text, "method not allowed\n"),
        ("GET /report", 404, text, "boathook: /started /shutdown /ready /live /status /metrics\n"),
        ("GET /", 404, text, "boathook: /started /shutdown /ready /live /status /metrics\n"),
        ("GET http://10.0.0.5/live", 200, text, "live\n"),
    ] {
        let reply = server.ask(&format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n")).unwrap();
        assert_eq!((reply.status, reply.body.as_str()), (status, body), "{request}");
        assert_eq!(header(&reply.head, "content-type"), Some(kind), "{request}");
        assert!(header(&reply.head, "content-length").is_some(), "{request}");
        let allow = (status == 405).then(|| if request.ends_with("ready") { "GET, HEAD" } else { "GET, POST" });
        assert_eq!(header(&reply.head, "allow"), allow, "{request}");
    }
    server.agent.fails.store(true, SeqCst);
    let reply = server.ask("GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    assert_eq!((reply.status, reply.body.as_str()), (503, "post-start failed\n"));
}

#[test]
fn a_failed_post_start_drops_the_kubelets_connection_fresh_and_reused() {
    let server = simple();
    let mut reused = server.connect();
    assert_eq!(reused.ask(&kubelet("/started")).unwrap().status, 200);
    server.agent.fails.store(true, SeqCst);
    assert_eq!(reused.ask(&kubelet("/started")).unwrap_err(), Gone, "reused");
    // Go retries once, on a fresh connection.
    assert_eq!(server.ask(&kubelet("/started")).unwrap_err(), Gone, "fresh");
    // Anybody else reads the report.
    let reply = server.ask("GET /started HTTP/1.1\r\nHost: x\r\nUser-Agent: curl/8\r\n\r\n").unwrap();
    assert_eq!((reply.status, reply.body.as_str()), (500, "{\"hook\":\"Started\"}\n"));
    // Pre-stop's failure changes nothing for the kubelet: it gets the report like everybody.
    assert_eq!(server.ask(&kubelet("/shutdown")).unwrap().status, 500);
}

#[test]
fn a_refused_trigger_is_told_to_people_and_dropped_for_the_kubelet() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "secret\n").unwrap();
    let rights = Rights { token: Some(TokenSource::File(TokenFile::new(&path))), ..Rights::default() };
    let server = start(Fake::default(), rights, Limits::network());
    let with = |header: &str| server.ask(&format!("GET /shutdown HTTP/1.1\r\nHost: x\r\n{header}\r\n"));
    for (header_line, status, body) in [
        ("", 401, "{\"error\":\"a bearer token is needed\"}\n"),
        ("Authorization: Bearer wrong\r\n", 401, "{\"error\":\"the bearer token is not the right one\"}\n"),
        ("Authorization: Bearer secret\r\n", 200, "{\"hook\":\"Shutdown\"}\n"),
    ] {
        let reply = with(header_line).unwrap();
        assert_eq!((reply.status, reply.body.as_str()), (status, body));
        assert_eq!(header(&reply.head, "www-authenticate"), (status == 401).then_some("Bearer"));
    }
    assert_eq!(server.ask(&kubelet("/shutdown")).unwrap_err(), Gone);
    let authorised = kubelet("/shutdown").replace("Accept:", "Authorization: Bearer secret\r\nAccept:");
    assert_eq!(server.ask(&authorised).unwrap().status, 200);
    assert_eq!(server.agent.calls.load(SeqCst), 2);
    assert_eq!(server.ask("GET /ready HTTP/1.1\r\nHost: x\r\n\r\n").unwrap().status, 200, "probes need no right");

    let rights = Rights { allow_from: Some(vec!["192.0.2.0/24".parse().unwrap()]), ..Rights::default() };
    let server = start(Fake::default(), rights, Limits::network());
    let reply = server.ask("GET /shutdown HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!((reply.status, reply.body.as_str()), (403, "{\"error\":\"this address may not trigger hooks\"}\n"));
}

#[test]
fn odd_requests_are_answered_and_closed() {
    let server = simple();
    let large = format!("GET /ready HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let many = format!("GET /ready HTTP/1.1\r\nHost: x\r\n{}\r\n", "a: b\r\n".repeat(1000));
    for (request, status) in [
        (large.as_str(), 431),
        (&many, 431),
        ("\0\x01\x02\r\n\r\n", 400),
        ("GET /ready\r\n\r\n", 400),
        ("GET /ready HTTP/9.9\r\n\r\n", 400),
        ("GET /ready HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 2\r\n\r\n", 400),
        ("POST /shutdown HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n", 413),
        ("POST /shutdown HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 200),
        ("POST /shutdown HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 200),
        ("GET /ready HTTP/1.0\r\n\r\n", 200),
    ] {
        let mut client = server.connect();
        let reply = client.ask(request).unwrap_or_else(|_| panic!("{request:.60}: no answer"));
        assert_eq!(reply.status, status, "{request:.60}");
        let _ = client.0.get_mut().shutdown(Shutdown::Write);
        assert!(client.is_closed_silently(), "{request:.60}: nothing follows");
    }
}

#[test]
fn an_answer_survives_a_body_that_nobody_reads() {
    let server = start(Fake { delay: Duration::from_millis(50), ..Fake::default() }, open_rights(), Limits::network());
    let mut client = server.connect();
    client.send("POST /shutdown HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n");
    client.send(&"x".repeat(60000));
    assert_eq!(client.reply(true).unwrap().status, 200);
}

#[test]
fn pipelined_half_closed_and_http_1_0_requests_are_answered_in_order() {
    let server = simple();
    let mut client = server.connect();
    client.send(&["/ready", "/shutdown", "/live"].map(|p| format!("GET {p} HTTP/1.1\r\nHost: x\r\n\r\n")).concat());
    client.0.get_mut().shutdown(Shutdown::Write).unwrap();
    let bodies: Vec<_> = (0..3).map(|_| client.reply(true).unwrap().body).collect();
    assert_eq!(bodies, ["ready\n", "{\"hook\":\"Shutdown\"}\n", "live\n"]);
    assert!(client.is_closed_silently());

    let mut client = server.connect();
    let kept = "GET /live HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    assert_eq!(client.ask(kept).unwrap().status, 200);
    assert_eq!(client.ask(kept).unwrap().status, 200);
}

#[test]
fn a_half_closed_caller_gets_its_hooks_answer() {
    let server = start(Fake { delay: Duration::from_millis(200), ..Fake::default() }, open_rights(), Limits::network());
    let mut client = server.connect();
    client.send(&kubelet("/shutdown"));
    client.0.get_mut().shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.reply(true).unwrap().status, 200);
}

#[test]
fn a_long_report_stays_below_what_the_kubelet_reads() {
    let body = Some("x".repeat(9000));
    let server = start(Fake { body, ..Fake::default() }, open_rights(), Limits::network());
    let reply = server.ask(&kubelet("/shutdown")).unwrap();
    assert_eq!(reply.body, "{\"error\":\"the report is too long for an answer: see /status\"}\n");
}

#[test]
fn only_a_connection_that_triggered_a_hook_may_idle() {
    let (head, idle) = (Duration::from_millis(300), Duration::from_millis(200));
    let server = start(Fake::default(), open_rights(), Limits { head, idle, ..Limits::network() });
    let mut hook = server.connect();
    assert_eq!(hook.ask(&kubelet("/started")).unwrap().status, 200);
    let mut probe = server.connect();
    let mut silent = server.connect();
    assert_eq!(probe.ask("GET /ready HTTP/1.1\r\nHost: x\r\n\r\n").unwrap().status, 200);
    assert!(probe.is_closed_silently());
    assert!(silent.is_closed_silently());
    // A byte now and then does not prolong the head's time.
    let mut dripping = server.connect();
    dripping.0.get_ref().set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let start = Instant::now();
    let closed = loop {
        dripping.send("G");
        match dripping.0.read(&mut [0]) {
            Ok(0) => break start.elapsed(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => assert!(start.elapsed() < PATIENCE),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break start.elapsed(),
            other => panic!("{other:?}"),
        }
    };
    assert!((head..head * 3).contains(&closed), "{closed:?}");
    assert_eq!(hook.ask(&kubelet("/shutdown")).unwrap().status, 200, "after {:?}", start.elapsed());
}

#[test]
fn a_stop_answers_who_waits_and_nobody_else() {
    let mut server =
        start(Fake { delay: Duration::from_millis(400), ..Fake::default() }, open_rights(), Limits::network());
    let mut waiting = server.connect();
    waiting.send(&kubelet("/shutdown"));
    let mut silent = server.connect();
    let deadline = Instant::now() + PATIENCE;
    while server.agent.calls.load(SeqCst) == 0 {
        assert!(Instant::now() < deadline);
        thread::yield_now();
    }
    server.stop.take().unwrap().send(()).unwrap();
    assert!(silent.is_closed_silently());
    assert!(server.ended.try_recv().is_err(), "it waits for the answer");
    let reply = waiting.reply(true).unwrap();
    assert_eq!((reply.status, header(&reply.head, "connection")), (200, Some("close")));
    assert!(waiting.is_closed_silently());
    server.ended.recv_timeout(PATIENCE).unwrap();
    assert!(TcpStream::connect(server.address).is_err());
}

#[test]
fn waiting_callers_are_never_evicted_and_leave_room() {
    let agent = Fake { delay: Duration::from_secs(2), ..Fake::default() };
    let server = start(agent, open_rights(), Limits { open: 32, waiting: 28, ..Limits::network() });
    let mut first = server.connect();
    first.send(&kubelet("/shutdown"));
    // 20 may wait with it, the others are told so; all of them come from the same address.
    let mut others: Vec<_> = (0..60).map(|_| server.connect()).collect();
    for other in &mut others {
        other.send("GET /shutdown HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    let start = Instant::now();
    assert_eq!(server.ask("GET /ready HTTP/1.1\r\nHost: x\r\n\r\n").unwrap().status, 200);
    assert!(start.elapsed() < BAR, "{:?}", start.elapsed());
    let mut kubelet_again = server.connect();
    assert_eq!(kubelet_again.ask(&kubelet("/shutdown")).unwrap().status, 200);
    assert_eq!(first.reply(true).unwrap().status, 200);
    assert_eq!(server.agent.calls.load(SeqCst), 1 + 20 + 1);
}

// ---- Floods: the server is a process of its own, so that its memory, descriptors and wake-ups can be measured.

/// Not a test: the flooded process. `start_process` runs it.
#[test]
#[ignore = "helper process"]
fn helper_server() {
    let descriptors: u64 = env::var("TEST_DESCRIPTORS").unwrap().parse().unwrap();
    let limit = rustix::process::Rlimit { current: Some(descriptors), maximum: Some(descriptors) };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    let mut limits = Limits::network();
    if env::var_os("TEST_UNGUARDED").is_some() {
        limits.evict = false;
    }
    let server = start(Fake::default(), open_rights(), limits);
    println!("\nport {}", server.address.port());
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

struct Flooded {
    child: Child,
    port: u16,
    _alone: MutexGuard<'static, ()>,
}

/// One flood at a time: several would only measure each other.
static ALONE: Mutex<()> = Mutex::new(());

fn start_process(descriptors: u64, guarded: bool) -> Flooded {
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "helper_server", "--ignored", "--nocapture"]);
    command.env("TEST_DESCRIPTORS", descriptors.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
    if !guarded {
        command.env("TEST_UNGUARDED", "1");
    }
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let port = lines.map(Result::unwrap).find_map(|line| line.strip_prefix("port ")?.parse().ok()).unwrap();
    Flooded { child, port, _alone: alone }
}

impl Drop for Flooded {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Flooded {
    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }
    fn proc(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.child.id())
    }
    fn descriptors(&self) -> usize {
        std::fs::read_dir(self.proc("fd")).unwrap().count()
    }
    fn kilobytes(&self, key: &str) -> u64 {
        number(&std::fs::read_to_string(self.proc("status")).unwrap(), key)
    }
    /// For how long so far this thread, or the server, was ready to run while the machine's few cores were busy with
    /// others (the attackers themselves, in real life, are elsewhere).
    fn starved(&self) -> Duration {
        let tasks = std::fs::read_dir(self.proc("task")).unwrap().map(|task| task.unwrap().path());
        let all = tasks.chain(["/proc/thread-self".into()]);
        let delays = all.map(|task| {
            let text = std::fs::read_to_string(task.join("schedstat")).unwrap_or_default();
            text.split(' ').nth(1).and_then(|delay| delay.parse::<u64>().ok()).unwrap_or_default()
        });
        Duration::from_nanos(delays.sum())
    }
    fn switches(&self) -> u64 {
        let tasks = std::fs::read_dir(self.proc("task")).unwrap();
        let status = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).unwrap());
        status.map(|status| number(&status, "voluntary_ctxt_switches:")).sum()
    }
}

fn number(status: &str, key: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The sources of a flood's connections.
#[derive(Clone, Copy, Debug)]
enum From {
    OneAddress,
    /// Each of the 2,000 from its own.
    ManyAddresses,
    /// The kubelet's own, as when a proxy translates addresses.
    KubeletsAddress,
}

impl From {
    fn address(self, index: usize) -> IpAddr {
        let [.., high, low] = index.to_be_bytes();
        IpAddr::V4(match self {
            Self::OneAddress => Ipv4Addr::new(127, 0, 0, 2),
            Self::ManyAddresses => Ipv4Addr::new(127, 1, high, low),
            Self::KubeletsAddress => Ipv4Addr::LOCALHOST,
        })
    }
}

const ATTACKERS: usize = 2000;

/// Floods the address from a thread until told to stop: every attacker comes back when it was thrown out.
fn flood(
    address: SocketAddr,
    from: From,
    connections: Arc<AtomicUsize>,
) -> (oneshot::Sender<()>, thread::JoinHandle<()>) {
    let (stop, stopped) = oneshot::channel();
    let attackers = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            for index in 0..ATTACKERS {
                let connections = Arc::clone(&connections);
                tokio::spawn(async move {
                    loop {
                        attack(address, from.address(index), index, &connections).await;
                        sleep(Duration::from_millis(250 + index as u64 % 16 * 64)).await;
                    }
                });
            }
            let _ = stopped.await;
        });
    });
    (stop, attackers)
}

async fn attack(address: SocketAddr, from: IpAddr, index: usize, connections: &AtomicUsize) -> Option<()> {
    let socket = TcpSocket::new_v4().ok()?;
    socket.bind((from, 0).into()).ok()?;
    let mut stream = timeout(Duration::from_secs(5), socket.connect(address)).await.ok()?.ok()?;
    connections.fetch_add(1, SeqCst);
    let probe = "GET /status HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut scratch = [0; 4096];
    match index % 8 {
        // Silent.
        0..3 => {}
        // A byte now and then.
        3 => {
            for byte in probe.bytes().cycle().take(100_000) {
                stream.write_all(&[byte]).await.ok()?;
                sleep(Duration::from_millis(100)).await;
            }
        }
        // A head without end.
        4 => {
            stream.write_all(b"GET / HTTP/1.1\r\nX: ").await.ok()?;
            stream.write_all(&vec![b'x'; 1024 * 1024]).await.ok()?;
        }
        5 => stream.write_all(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\r\n\r\n").await.ok()?,
        // Pipelined, the answers read.
        6 => {
            stream.write_all(probe.repeat(500).as_bytes()).await.ok()?;
        }
        // Pipelined, never read.
        _ => {
            stream.write_all(probe.repeat(5000).as_bytes()).await.ok()?;
            sleep(Duration::from_secs(3600)).await;
        }
    }
    while stream.read(&mut scratch).await.ok()? > 0 {}
    None
}

/// How long something takes, without the time for which we or the server were starved.
fn timed(server: &Flooded, act: impl FnOnce() -> Result<(), String>) -> Result<Duration, String> {
    let (begin, starved) = (Instant::now(), server.starved());
    act()?;
    Ok(begin.elapsed().saturating_sub(server.starved() - starved))
}

/// One call as the kubelet makes it, on a connection of its own.
fn call(server: &Flooded, request: &str) -> Result<Duration, String> {
    for _ in 0..20 {
        let (called, late) = call_once(server, request);
        // Connected, but robbed of the processor before it sent anything: it could not be told from the attackers.
        if called.is_ok() || !late {
            return called;
        }
    }
    Err("this machine is too busy for a call".into())
}

/// The call, and whether it sent its request late.
fn call_once(server: &Flooded, request: &str) -> (Result<Duration, String>, bool) {
    let mut late = false;
    let called = timed(server, || {
        let socket = sys::socket(sys::AddressFamily::INET, sys::SocketType::STREAM, None).unwrap();
        sys::sockopt::set_socket_timeout(&socket, sys::sockopt::Timeout::Send, Some(BAR * 10)).unwrap();
        sys::connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, server.port))
            .map_err(|error| format!("connect: {error}"))?;
        let (begin, mut client) = (Instant::now(), Client::from(socket.into()));
        client.send(request);
        late = begin.elapsed() > Duration::from_millis(20);
        exchange(&mut client)
    });
    (called, late)
}

/// One of its hooks on the connection that it kept.
fn call_on(server: &Flooded, client: &mut Client) -> Result<Duration, String> {
    timed(server, || {
        client.send(&kubelet("/shutdown"));
        exchange(client)
    })
}

fn exchange(client: &mut Client) -> Result<(), String> {
    client.0.get_ref().set_read_timeout(Some(BAR * 10)).unwrap();
    let mut first = [0; 15];
    client.0.read_exact(&mut first).map_err(|error| format!("read: {error}"))?;
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    // The rest: the only line feed without a carriage return ends either body.
    let mut line = Vec::new();
    while line.is_empty() || line.ends_with(b"\r\n") {
        line.clear();
        client.0.read_until(b'\n', &mut line).map_err(|error| format!("rest: {error}"))?;
    }
    Ok(())
}

/// Calls as the kubelet does, for some seconds of flood.
fn worst_calls(server: &Flooded, from: From) -> (Result<Duration, String>, Result<Duration, String>, Duration) {
    let mut kept = Client::from(TcpStream::connect(server.address()).unwrap());
    call_on(server, &mut kept).unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let (stop, attackers) = flood(server.address(), from, Arc::clone(&connections));
    let deadline = Instant::now() + PATIENCE;
    // A guarded server lets them all in; an unguarded one as many as it can.
    while connections.load(SeqCst) < 200 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    let (mut fresh, mut reused, mut probed) = (Ok(Duration::ZERO), Ok(Duration::ZERO), Duration::ZERO);
    let end = Instant::now() + Duration::from_millis(2500);
    while Instant::now() < end && fresh.is_ok() && reused.is_ok() {
        fresh = call(server, &kubelet("/shutdown")).and_then(|took| fresh.map(|worst| worst.max(took)));
        if connections.load(SeqCst) > 1000 || fresh.is_err() {
            reused = call_on(server, &mut kept).and_then(|took| reused.map(|worst| worst.max(took)));
        }
        if fresh.is_ok() && reused.is_ok() {
            let probe = "GET /ready HTTP/1.1\r\nHost: x\r\nUser-Agent: kube-probe/1.36\r\nConnection: close\r\n\r\n";
            probed = probed.max(call(server, probe).unwrap_or_else(|error| panic!("probe: {error}")));
        }
        thread::sleep(Duration::from_millis(20));
    }
    println!("  {from:?}: {} connections, memory {} kB", connections.load(SeqCst), server.kilobytes("VmRSS:"));
    drop(stop);
    attackers.join().unwrap();
    // The kubelet's connection goes on once all is over.
    if reused.is_ok() {
        call_on(server, &mut kept).unwrap();
    }
    (fresh, reused, probed)
}

fn survive_floods(descriptors: u64) {
    let server = start_process(descriptors, true);
    let before = server.kilobytes("VmRSS:");
    // The one that post-start made, and that outlives everything here.
    let mut kept = Client::from(TcpStream::connect(server.address()).unwrap());
    call_on(&server, &mut kept).unwrap();
    let idle_descriptors = server.descriptors();
    for from in [From::OneAddress, From::ManyAddresses, From::KubeletsAddress] {
        let (fresh, reused, probed) = worst_calls(&server, from);
        println!(
            "{descriptors} descriptors, {from:?}: worst fresh {fresh:?}, worst reused {reused:?}, worst probe {probed:?}"
        );
        let (fresh, reused) = (fresh.unwrap(), reused.unwrap());
        assert!(probed < PROBE_BAR, "{from:?}: probe {probed:?}");
        assert!(fresh < BAR && reused < BAR, "{from:?}: fresh {fresh:?}, reused {reused:?}");
    }
    let deadline = Instant::now() + PATIENCE;
    while server.descriptors() > idle_descriptors {
        assert!(Instant::now() < deadline, "{} descriptors left", server.descriptors());
        thread::sleep(Duration::from_millis(10));
    }
    println!(
        "memory: {before} kB before, {} kB after, peak {} kB",
        server.kilobytes("VmRSS:"),
        server.kilobytes("VmHWM:")
    );
    // An idle kept-alive connection of an admitted caller needs no timer, and nobody else is there.
    call_on(&server, &mut kept).unwrap();
    // What was measured on the way here may still be in flight.
    thread::sleep(Duration::from_millis(100));
    let switches = server.switches();
    thread::sleep(Duration::from_secs(3));
    assert_eq!(server.switches() - switches, 0, "it wakes up though nobody calls");
    call_on(&server, &mut kept).unwrap();
}

#[test]
fn floods_do_not_keep_the_kubelet_waiting() {
    survive_floods(1024);
}

#[test]
fn nor_do_they_with_few_descriptors() {
    survive_floods(256);
}

/// The guard switched off: the same flood takes every descriptor, and the kubelet is not served.
#[test]
fn without_the_guard_a_flood_would() {
    let server = start_process(256, false);
    let (fresh, reused, _) = worst_calls(&server, From::OneAddress);
    println!("unguarded: fresh {fresh:?}, reused {reused:?}");
    assert!(!fresh.is_ok_and(|took| took < BAR));
}
