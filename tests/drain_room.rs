//! The drain against real servers: what it must wait for, what must not hold it, and how soon it ends.
//!
//! Each test runs in a network namespace of its own (where it may make one), so that no other traffic of this
//! machine counts: the test binary starts itself again for the one test, and brings loopback up.

use std::{
    env,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use boathook::{
    drain::rules::{Rule, Rules},
    problem::Scope,
    process::Processes,
    step::{Context, End, Kind, OwnTraffic, Progress, drain::Drain},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    time::{Instant, sleep, sleep_until, timeout},
};

/// What the drain may be late by, and as much again for a busy machine and an unoptimised build.
const SLACK: Duration = Duration::from_millis(200);
const NAMESPACE: &str = "BOATHOOK_TEST_NAMESPACE";

const fn ms(number: u64) -> Duration {
    Duration::from_millis(number)
}

fn isolated<F: Future<Output = ()>>(name: &str, test: impl FnOnce() -> F) {
    if env::var_os(NAMESPACE).is_none() {
        let mut command = Command::new(env::current_exe().expect("a test has a path"));
        command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(NAMESPACE, "own");
        // SAFETY: unshare is a plain system call, safe between fork and exec.
        unsafe {
            command.pre_exec(|| match libc::unshare(libc::CLONE_NEWNET) {
                0 => Ok(()),
                _ => match libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET) {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                },
            });
        }
        match command.output() {
            Ok(output) => {
                let text =
                    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{text}");
                println!("{text}");
                return;
            }
            Err(error) => println!("no network namespace of its own ({error}): other traffic may disturb it"),
        }
    }
    raise_loopback();
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(test());
}

fn raise_loopback() {
    // SAFETY: the request is a zeroed ifreq with a terminated name; the descriptor is checked and closed.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        assert!(socket >= 0);
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        libc::ioctl(socket, libc::SIOCSIFFLAGS, &request);
        libc::close(socket);
    }
}

/// Answers each line `N` after N milliseconds; closes after a line `N close`; at `N stream` the first byte of the
/// answer comes at once.
async fn serve(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut request = Vec::new();
            loop {
                let mut byte = [0];
                match stream.read(&mut byte).await {
                    Ok(1) => request.push(byte[0]),
                    _ => return,
                }
                if byte[0] == b'\n' {
                    let text = String::from_utf8_lossy(&request).into_owned();
                    let mut words = text.split_whitespace();
                    let millis = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
                    let manner = words.next();
                    let first = usize::from(manner == Some("stream"));
                    let _ = stream.write_all(&b"done\n"[..first]).await;
                    if millis > 0 {
                        sleep(ms(millis)).await;
                    }
                    if stream.write_all(&b"done\n"[first..]).await.is_err() || manner == Some("close") {
                        return;
                    }
                    request.clear();
                }
            }
        });
    }
}

async fn start_server(address: &str) -> SocketAddr {
    let listener = TcpListener::bind(address).await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(serve(listener));
    address
}

struct Client(TcpStream);

impl Client {
    async fn connect(server: SocketAddr) -> Self {
        Self(TcpStream::connect(server).await.expect("it listens"))
    }
    async fn connect_from(source: &str, server: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::new(source.parse().expect(source), 0)).expect("all of 127/8 is ours");
        Self(socket.connect(server).await.expect("it listens"))
    }
    async fn send(&mut self, request: &str) {
        self.0.write_all(request.as_bytes()).await.expect("the server reads");
    }
    async fn answer(&mut self) -> Instant {
        let mut answer = [0; 5];
        self.0.read_exact(&mut answer).await.expect("an answer");
        Instant::now()
    }
    async fn ask(&mut self, request: &str) -> Instant {
        self.send(request).await;
        self.answer().await
    }
}

fn drain(toml: &str) -> Drain {
    let typed = boathook::keys::parse(toml).expect(toml);
    let (mut secrets, mut problems) = (Vec::new(), Vec::new());
    let mut scope = Scope::new("", &mut secrets, &mut problems);
    Drain::mean(typed, &mut scope).unwrap_or_else(|| panic!("{problems:?}"))
}

fn context() -> Context {
    let now = Instant::now();
    Context {
        label: "pre-stop/drain".into(),
        limit: now + ms(20_000),
        hook_started: now,
        kill_after: ms(1000),
        usual_ports: Vec::new(),
        main_process: None,
        processes: processes(),
        own_traffic: OwnTraffic::default(),
        progress: Progress::default(),
    }
}

fn processes() -> Processes {
    Processes::idle()
}

/// Runs a drain; gives its text, and how long it took.
async fn run_with(drain: &Drain, context: &Context) -> (String, Duration) {
    let began = Instant::now();
    let end = timeout(ms(15_000), drain.run(context)).await.unwrap_or_else(|_| panic!("{}", context.progress.now()));
    match end {
        End::Done(text) => {
            println!("{:?} {text}", began.elapsed());
            (text, began.elapsed())
        }
        other => panic!("{other:?}"),
    }
}

async fn run(toml: &str) -> (String, Duration) {
    run_with(&drain(toml), &context()).await
}

async fn run_without(toml: &str, rule: impl FnOnce(&mut Rules) -> &mut Rule) -> Duration {
    let mut drain = drain(toml);
    *rule(drain.rules_mut().expect("a drain by connections")) = Rule::Off;
    run_with(&drain, &context()).await.1
}

fn assert_ends(took: Duration, expected: Duration) {
    assert_ends_by("auto", took, expected);
}

/// Reading `/proc` is slow, and the drain spends no more than 5 % of its time on it.
fn assert_ends_by(source: &str, took: Duration, expected: Duration) {
    let slack = if source == "proc" { SLACK + ms(800) } else { SLACK };
    assert!(took >= expected, "{took:?} is sooner than {expected:?}");
    assert!(took <= expected + slack, "{took:?} is later than {expected:?}");
}

fn quick(port: u16) -> String {
    format!("settle = '400ms'\nquiet-min = '200ms'\nidle-after = '300ms'\nports = [{port}]\n")
}

#[test]
fn a_slow_answer_holds_it() {
    isolated("a_slow_answer_holds_it", || async {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let server = start_server(address).await;
            let mut client = Client::connect(server).await;
            let began = Instant::now();
            client.send("1200\n").await;
            let answered = tokio::spawn(async move { (client.answer().await, client) });
            let (text, took) = run(&quick(server.port())).await;
            let (at, _client) = answered.await.expect("an answer");
            assert_ends(took, at - began + ms(290));
            assert!(text.contains("0 in flight, 1 idle keep-alive connection left"), "{text}");
            assert!(text.ends_with(&format!("watched {} by sock_diag", server.port())), "{text}");
        }
    });
}

#[test]
fn an_ipv4_client_of_a_dual_stack_server_holds_it() {
    isolated("an_ipv4_client_of_a_dual_stack_server_holds_it", || async {
        let server = start_server("[::]:0").await;
        let v4 = SocketAddr::new("127.0.0.1".parse().expect("an address"), server.port());
        let mut client = Client::connect(v4).await;
        client.send("1000 close\n").await;
        assert_ends(run(&quick(server.port())).await.1, ms(1000));
    });
}

#[test]
fn without_the_in_flight_rule_an_answer_is_lost() {
    isolated("without_the_in_flight_rule_an_answer_is_lost", || async {
        let server = start_server("127.0.0.1:0").await;
        let mut client = Client::connect(server).await;
        client.send("1200\n").await;
        let took = run_without(&quick(server.port()), |rules| &mut rules.in_flight).await;
        assert!(took < ms(1000), "{took:?}");
    });
}

#[test]
fn idle_connections_do_not_hold_it() {
    isolated("idle_connections_do_not_hold_it", || async {
        let server = start_server("127.0.0.1:0").await;
        let mut used = Client::connect(server).await;
        used.ask("50\n").await;
        let _never_used = Client::connect(server).await;
        let began = Instant::now();
        sleep_until(began + ms(400)).await;
        let (text, took) = run(&quick(server.port())).await;
        assert_ends(took, ms(400));
        assert!(text.contains("settle time 400ms passed, no new connection: nothing was known of earlier arrivals; 0 in flight, 2 idle keep-alive"), "{text}");
    });
}

#[test]
fn a_quick_answer_is_known_to_be_one() {
    isolated("a_quick_answer_is_known_to_be_one", || async {
        let server = start_server("127.0.0.1:0").await;
        let mut client = Client::connect(server).await;
        // As a client at work does: the answer is in the same tick as its request.
        for _ in 0..200 {
            client.ask("0\n").await;
        }
        let toml = format!("settle = '1500ms'\nquiet-min = '0s'\nidle-after = '300ms'\nports = [{}]", server.port());
        let took = tokio::spawn(async move { run(&toml).await.1 });
        sleep(ms(1400)).await;
        for _ in 0..200 {
            client.ask("0\n").await;
        }
        let took = took.await.expect("it ends");
        assert!(took < ms(2000), "{took:?}");
    });
}

/// Asks on one connection for ever, with a pause that differs each time.
async fn chat(server: SocketAddr, number: u64, requests: [&'static str; 4], pause: std::ops::Range<u64>) {
    let mut client = Client::connect(server).await;
    let _ = client.0.set_nodelay(true);
    for round in number.. {
        client.ask(requests[usize::try_from(round % 4).expect("small")]).await;
        sleep(ms(pause.start + (round * 7 + number * 13) * 11 % (pause.end - pause.start))).await;
    }
}

#[test]
fn chatty_keep_alive_clients_do_not_hold_it() {
    isolated("chatty_keep_alive_clients_do_not_hold_it", || async {
        // Answers within a tick and some ticks later, so that their order is hard and easy to see.
        for requests in [["0\n"; 4], ["8\n"; 4], ["0\n", "3\n", "15\n", "1\n"]] {
            let server = start_server("127.0.0.1:0").await;
            let chats: Vec<_> = (0..16).map(|number| tokio::spawn(chat(server, number, requests, 200..400))).collect();
            sleep(ms(500)).await;
            let toml = format!("settle = '1500ms'\nquiet-min = '1s'\nports = [{}]", server.port());
            let (text, took) = run(&toml).await;
            // Sixteen have to pause at once, which happens several times a second.
            assert!(took < ms(5000), "{took:?}");
            assert!(text.contains("16 idle keep-alive connections left"), "{text}");
            chats.iter().for_each(tokio::task::JoinHandle::abort);
        }
    });
}

#[test]
fn answers_in_pieces_hold_it_however_often_they_come() {
    isolated("answers_in_pieces_hold_it_however_often_they_come", || async {
        let server = start_server("127.0.0.1:0").await;
        let talk = tokio::spawn(chat(server, 0, ["300 stream\n"; 4], 100..150));
        sleep(ms(500)).await;
        let toml = format!("settle = '1500ms'\nquiet-min = '1s'\nports = [{}]", server.port());
        let context = context();
        let ended = timeout(ms(4000), drain(&toml).run(&context)).await;
        assert!(ended.is_err(), "in the middle of an answer: {ended:?}");
        assert!(context.progress.now().starts_with("1 "), "{}", context.progress.now());
        talk.abort();
    });
}

async fn short_connections(source: &str, server: SocketAddr, last_word: &str, until: Instant) -> Instant {
    let mut last = Instant::now();
    while Instant::now() < until {
        let mut client = Client::connect_from(source, server).await;
        last = Instant::now();
        client.ask(last_word).await;
        drop(client);
        sleep(ms(90)).await;
    }
    last
}

#[test]
fn short_connections_hold_it_until_they_are_quiet() {
    isolated("short_connections_hold_it_until_they_are_quiet", || async {
        for source in ["auto", "proc"] {
            let server = start_server("127.0.0.1:0").await;
            let began = Instant::now();
            let visits = tokio::spawn(short_connections("127.0.0.1", server, "0\n", began + ms(1200)));
            let (text, took) = run(&format!("{}source = '{source}'", quick(server.port()))).await;
            let last = visits.await.expect("it ends") - began;
            assert_ends_by(source, took, last + ms(200));
            assert!(text.contains("last new connection "), "{text}");
        }
    });
}

#[test]
fn without_the_quiet_rule_new_connections_are_cut() {
    isolated("without_the_quiet_rule_new_connections_are_cut", || async {
        let server = start_server("127.0.0.1:0").await;
        let began = Instant::now();
        let visits = tokio::spawn(short_connections("127.0.0.1", server, "0\n", began + ms(1200)));
        let took = run_without(&quick(server.port()), |rules| &mut rules.quiet).await;
        assert!(took < ms(1000), "{took:?}");
        visits.await.expect("it ends");
    });
}

#[test]
fn ignored_peers_do_not_hold_it() {
    isolated("ignored_peers_do_not_hold_it", || async {
        for last_word in ["0\n", "0 close\n", "1500\n"] {
            for source in ["auto", "proc"] {
                let server = start_server("127.0.0.1:0").await;
                let until = Instant::now() + ms(1200);
                let visits = tokio::spawn(short_connections("127.0.0.2", server, last_word, until));
                let toml = quick(server.port()) + &format!("ignore-peers = ['127.0.0.2']\nsource = '{source}'");
                let (text, took) = run(&toml).await;
                assert_ends_by(source, took, ms(400));
                // Where few come, theirs may have aged before anybody needed to know whose they were.
                assert!(last_word == "1500\n" || text.contains("no new connection"), "{text}");
                visits.await.expect("it ends");
                if last_word != "1500\n" && source == "auto" {
                    let until = Instant::now() + ms(1200);
                    let visits = tokio::spawn(short_connections("127.0.0.2", server, last_word, until));
                    let (_, took) = run(&quick(server.port())).await;
                    assert!(took > ms(1200), "not ignored, they hold it: {took:?}");
                    visits.await.expect("it ends");
                }
            }
        }
    });
}

#[test]
fn other_ports_do_not_hold_it() {
    isolated("other_ports_do_not_hold_it", || async {
        for last_word in ["0\n", "0 close\n"] {
            let (server, other) = (start_server("127.0.0.1:0").await, start_server("127.0.0.1:0").await);
            let until = Instant::now() + ms(1200);
            let visits = tokio::spawn(short_connections("127.0.0.1", other, last_word, until));
            let (text, took) = run(&quick(server.port())).await;
            assert_ends(took, ms(400));
            assert!(text.contains("no new connection"), "{text}");
            visits.await.expect("it ends");
        }
    });
}

#[test]
fn the_agents_own_connections_do_not_hold_it() {
    isolated("the_agents_own_connections_do_not_hold_it", || async {
        let server = start_server("127.0.0.1:0").await;
        let agent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let own = agent.local_addr().expect("bound");
        let mut context = context();
        context.own_traffic.ports = vec![own.port()];
        let accepted = Arc::clone(&context.own_traffic.accepted);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = agent.accept().await {
                accepted.fetch_add(1, Ordering::Relaxed);
                let _ = stream.write_all(b"done\n").await;
            }
        });
        let visits = tokio::spawn(short_connections("127.0.0.1", own, "", Instant::now() + ms(1200)));
        let (text, took) = run_with(&drain(&quick(server.port())), &context).await;
        assert_ends(took, ms(400));
        assert!(text.contains("no new connection"), "{text}");
        visits.await.expect("it ends");
    });
}

#[test]
fn a_half_closed_client_is_owed_its_answer() {
    isolated("a_half_closed_client_is_owed_its_answer", || async {
        let server = start_server("127.0.0.1:0").await;
        let mut client = Client::connect(server).await;
        client.send("1200 close\n").await;
        client.0.shutdown().await.expect("its own half");
        let began = Instant::now();
        let answered = tokio::spawn(async move { client.answer().await });
        let (_, took) = run(&quick(server.port())).await;
        assert_ends(took, answered.await.expect("an answer") - began);
    });
}

#[test]
fn an_answer_that_nobody_reads_holds_it() {
    isolated("an_answer_that_nobody_reads_holds_it", || async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let server = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let mut byte = [0];
            stream.read_exact(&mut byte).await.expect("a request");
            // The server has written everything and closed: the rest is the kernel's.
            stream.write_all(&vec![7; 3_000_000]).await.expect("a reader");
        });
        let mut client = Client::connect(server).await;
        client.send("x").await;
        let reader = tokio::spawn(async move {
            sleep(ms(1000)).await;
            let mut all = Vec::new();
            client.0.read_to_end(&mut all).await.expect("the rest");
            (all.len(), Instant::now())
        });
        let began = Instant::now();
        let (_, took) = run(&quick(server.port())).await;
        let (length, at) = reader.await.expect("a reader");
        assert_eq!(length, 3_000_000);
        assert_ends(took, ms(1000));
        assert!(took <= at - began + SLACK, "{took:?}");
    });
}

#[test]
fn proc_waits_for_stillness() {
    isolated("proc_waits_for_stillness", || async {
        let server = start_server("127.0.0.1:0").await;
        let _idle = Client::connect(server).await;
        let toml = format!("{}source = 'proc'\nlongest-request = '1s'", quick(server.port()));
        let (text, took) = run(&toml).await;
        assert_ends_by("proc", took, ms(1000));
        assert!(text.ends_with(&format!("watched {} by /proc/net/tcp", server.port())), "{text}");
    });
}

#[test]
fn with_nothing_there_it_is_done_at_once() {
    isolated("with_nothing_there_it_is_done_at_once", || async {
        let (text, took) = run("ports = [1]").await;
        assert_eq!(text, "nothing to drain: nothing listens on port 1 and no connection is open");
        assert_ends(took, ms(0));
        let _loopback_only = start_server("127.0.0.1:0").await;
        let (text, _) = run("").await;
        assert_eq!(text, "nothing to drain: no TCP port listens, other than on loopback and the agent's own");
        let (open, own) = (start_server("0.0.0.0:0").await, start_server("0.0.0.0:0").await);
        let mut context = context();
        context.own_traffic.ports = vec![own.port()];
        let (text, _) = run_with(&drain("settle = '100ms'"), &context).await;
        assert!(text.ends_with(&format!("watched {} by sock_diag", open.port())), "{text}");
    });
}

#[test]
fn cut_short_it_says_why_and_leaves_nothing() {
    isolated("cut_short_it_says_why_and_leaves_nothing", || async {
        let server = start_server("127.0.0.1:0").await;
        let mut clients = Vec::new();
        for _ in 0..2 {
            let mut client = Client::connect(server).await;
            client.send("60000\n").await;
            clients.push(client);
        }
        let descriptors = || std::fs::read_dir("/proc/self/fd").expect("/proc is there").count();
        let before = descriptors();
        let context = context();
        let toml = format!("settle = '100ms'\nports = [{}]", server.port());
        assert!(timeout(ms(1300), drain(&toml).run(&context)).await.is_err());
        assert_eq!(descriptors(), before);
        let port = server.port();
        let text = context.progress.now();
        let expected = format!("2 requests in flight on port {port}, oldest waiting 1.");
        assert!(text.starts_with(&expected), "{text}");
        assert!(text.ends_with("; no new connection"), "{text}");
        // As many may be left.
        assert_ends(run(&format!("{toml}\nthreshold = 2")).await.1, ms(100));
    });
}

struct Nginx {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Nginx {
    /// Starts the real one in front of `backend`; `None` where it is not installed.
    async fn start(backend: SocketAddr) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().display().to_string();
        let port = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound").port();
        let config = format!(
            "daemon off; worker_processes 1; pid {path}/pid; error_log {path}/log;
             events {{}}
             http {{ access_log off; client_body_temp_path {path}/1; proxy_temp_path {path}/2;
                     fastcgi_temp_path {path}/3; uwsgi_temp_path {path}/4; scgi_temp_path {path}/5;
                     server {{ listen 127.0.0.1:{port}; keepalive_timeout 60s;
                       location / {{ return 200 'quick\\n'; }}
                       location /slow {{ proxy_pass http://{backend}; }} }} }}"
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, config).expect("room");
        let binary = ["/usr/sbin/nginx", "/usr/bin/nginx"].into_iter().find(|path| Path::new(path).exists())?;
        let mut command = Command::new(binary);
        command.args(["-p", &path, "-c"]).arg(&file).stderr(Stdio::null());
        // SAFETY: prctl is a plain system call, safe between fork and exec: it ends with its test.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
                Ok(())
            });
        }
        let nginx = Self { child: command.spawn().expect("nginx starts"), port, _folder: folder };
        // Longer than any start, also on a machine that is busy with something else.
        for _ in 0..1000 {
            if TcpStream::connect(nginx.address()).await.is_ok() {
                return Some(nginx);
            }
            sleep(ms(10)).await;
        }
        panic!("nginx does not listen");
    }
    fn address(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::from([127, 0, 0, 1]), self.port)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SAFETY: the child has not been waited for, so the number is still its own.
        unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGTERM) };
        let _ = self.child.wait();
    }
}

/// Speaks enough HTTP for a proxy: each request is answered after 1.5 s.
async fn serve_slow_http(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            sleep(ms(1500)).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
        });
    }
}

async fn request(stream: &mut TcpStream, path: &str) -> usize {
    let text = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(text.as_bytes()).await.expect("nginx reads");
    let mut answer = [0; 4096];
    stream.read(&mut answer).await.expect("an answer")
}

#[test]
fn nginx_is_drained() {
    isolated("nginx_is_drained", || async {
        let backend = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let backend_address = backend.local_addr().expect("bound");
        tokio::spawn(serve_slow_http(backend));
        let Some(nginx) = Nginx::start(backend_address).await else {
            println!("skipped: nginx is not installed");
            return;
        };
        let mut idle = TcpStream::connect(nginx.address()).await.expect("it listens");
        request(&mut idle, "/").await;
        let mut slow = TcpStream::connect(nginx.address()).await.expect("it listens");
        let began = Instant::now();
        let answered = tokio::spawn(async move {
            assert!(request(&mut slow, "/slow").await > 0);
            (Instant::now(), slow)
        });
        let mut visitor = TcpStream::connect(nginx.address()).await.expect("it listens");
        request(&mut visitor, "/").await;
        drop(visitor);
        let (text, took) = run(&quick(nginx.port)).await;
        let (at, _slow) = answered.await.expect("an answer");
        assert_ends(took, at - began + ms(290));
        assert!(text.contains("0 in flight, 2 idle keep-alive connections left"), "{text}");
        // The control: without the rule it would have ended in the middle of the answer.
        let mut slow = TcpStream::connect(nginx.address()).await.expect("it listens");
        slow.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("nginx reads");
        let took = run_without(&quick(nginx.port), |rules| &mut rules.in_flight).await;
        assert!(took < ms(1000), "{took:?}");
    });
}
