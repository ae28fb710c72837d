//! What probes cost, and whether they keep traffic away from who is not ready.
//!
//! Method, first part: the shipped static binary (`BOATHOOK_DIST`) as `boathook run` with an http check of an
//! application that counts who asks it. Four threads with kept-alive connections ask `/ready` 10,000 times a second for
//! 10 s, at fixed moments: a probe that is sent late because the one before took long counts from its own moment. Printed:
//! the rate that was reached, checks that the application saw (bar: one in a cache time), how long probes took (median,
//! 99 of 100, worst; beside it how late a thread that only sleeps was: that much is the machine), and the agent's
//! processor time as a share of a core. Once with a check that is answered at once, once with one that takes 300 ms, and
//! once with one that fails; and as the control with a cache time of 100 ms, where there must be more checks.
//!
//! Second part: a rollout of five pods. A router asks `/ready` of each every 100 ms and sends a request every 2 ms to one
//! that said yes. An application is cold until it was asked for `/warm` forty times, which post-start does (`warm-up`, 50
//! times a second); its own health check says yes as soon as it listens. Each answer says whether it came from a cold
//! application: none may (bar), and none may be lost. The control is a router that follows the application's own health
//! check instead: then cold answers must be seen.
//!
//! Load is bounded and stays on loopback. Run it with `make bench BENCH='--bench readiness'`.

use std::{
    env, fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

const RATE: u64 = 10_000;
const THREADS: u64 = 4;
const FLOOD: Duration = Duration::from_secs(10);
const PODS: usize = 5;
/// Calls of `/warm` that make the application warm.
const WARM: u64 = 40;

fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    if let [mode, port] = &words[..]
        && mode == "app"
    {
        return serve_application(port.parse().expect("a port"));
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    println!("{RATE} probes a second for {FLOOD:?}:");
    let second = Duration::from_secs(1);
    for (what, delay, sick, cache) in [
        ("answered at once", Duration::ZERO, false, second),
        ("answered after 300 ms", Duration::from_millis(300), false, second),
        ("failing", Duration::ZERO, true, second),
        ("cached for 100 ms", Duration::ZERO, false, second / 10),
    ] {
        let checks = flood(folder.path(), what, delay, sick, cache);
        if cache == second {
            assert!(checks <= 1 + FLOOD.as_secs() + 1, "{checks} checks");
        } else {
            assert!(checks > 3 * FLOOD.as_secs(), "the control: {checks} checks");
        }
    }
    println!("a rollout of {PODS} pods:");
    let seen = roll_out(folder.path(), "/ready");
    assert!(seen.cold == 0 && seen.lost == 0 && seen.warm > 100, "{seen:?}");
    let control = roll_out(folder.path(), "the application's own");
    assert!(control.cold > 0, "the control: {control:?}");
}

fn boathook() -> PathBuf {
    PathBuf::from(env::var_os("BOATHOOK_DIST").unwrap_or_else(|| env!("CARGO_BIN_EXE_boathook").into()))
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

fn here(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// An agent with this configuration beside its listener, and this main process.
fn start(folder: &Path, port: u16, config: &str, main: &[&str]) -> Ended {
    let path = folder.join(format!("{port}.toml"));
    fs::write(&path, format!("[server]\nlisten = \"127.0.0.1:{port}\"\n{config}")).expect("written");
    let mut command = Command::new(boathook());
    command.env("BOATHOOK_SOCKET", format!("bench-readiness-{}-{port}", std::process::id()));
    command.arg("--config").arg(path).args(["run", "--"]).args(main);
    Ended(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts"))
}

// ---- probes ----

fn flood(folder: &Path, what: &str, delay: Duration, sick: bool, cache: Duration) -> u64 {
    let application = TcpListener::bind("127.0.0.1:0").expect("a port");
    let asked = Arc::new(AtomicU64::new(0));
    let (counts, address) = (Arc::clone(&asked), application.local_addr().expect("bound"));
    thread::spawn(move || {
        for stream in application.incoming().flatten() {
            counts.fetch_add(1, Relaxed);
            let status = if sick { "500 No" } else { "200 OK" };
            thread::sleep(delay);
            let _ =
                answer_one(&stream, |_| format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
        }
    });
    let port = free_port();
    let config = format!("[readiness]\nhttp = \"http://{address}/healthz\"\ncache = \"{}ms\"\n", cache.as_millis());
    let agent = start(folder, port, &config, &["sleep", "600"]);
    while get(here(port), "/live").is_err() {
        thread::sleep(Duration::from_millis(5));
    }
    let wanted = if sick { 503 } else { 200 };
    while get(here(port), "/ready").ok().map(|(status, _)| status) != Some(wanted) {
        thread::sleep(Duration::from_millis(5));
    }
    // The flood begins with no answer in the cache.
    thread::sleep(cache + Duration::from_millis(50));
    let (before, cpu) = (asked.load(Relaxed), processor_time(&agent.0));
    let stop = Arc::new(AtomicBool::new(false));
    let late = {
        let stop = Arc::clone(&stop);
        thread::spawn(move || lateness(&stop))
    };
    let begun = Instant::now();
    let threads: Vec<_> =
        (0..THREADS).map(|number| thread::spawn(move || probe(here(port), number, begun, wanted))).collect();
    let mut took: Vec<Duration> = threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect();
    let lasted = begun.elapsed();
    let cpu = processor_time(&agent.0) - cpu;
    let checks = asked.load(Relaxed) - before;
    stop.store(true, Relaxed);
    let late = late.join().expect("no panic");
    took.sort_unstable();
    let at = |share: usize| took[(took.len() - 1) * share / 100];
    println!(
        "  {what:<22} {:>6.0} probes/s, {checks} checks in {:.1} s; a probe took {:?}, 99 of 100 {:?}, worst {:?} \
         (a sleeper was late by {late:?}); {:.1} % of a core, {:.1} µs a probe",
        took.len() as f64 / lasted.as_secs_f64(),
        lasted.as_secs_f64(),
        at(50),
        at(99),
        at(100),
        100.0 * cpu.as_secs_f64() / lasted.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / took.len() as f64,
    );
    checks
}

/// Probes at fixed moments on one kept-alive connection; how long each took from its moment on.
fn probe(agent: SocketAddr, number: u64, begun: Instant, wanted: u16) -> Vec<Duration> {
    let mut stream = TcpStream::connect(agent).expect("the port accepts");
    stream.set_nodelay(true).expect("an option");
    let pause = Duration::from_secs(THREADS).as_nanos() as u64 / RATE;
    let mut took = Vec::new();
    for turn in 0.. {
        let due = Duration::from_nanos(turn * pause + number * pause / THREADS);
        if due >= FLOOD {
            break;
        }
        let moment = begun + due;
        if let Some(early) = moment.checked_duration_since(Instant::now()) {
            thread::sleep(early);
        }
        let (status, _) = ask(&mut stream, "/ready").expect("an answer");
        assert_eq!(status, wanted);
        took.push(moment.elapsed());
    }
    took
}

// ---- a rollout ----

#[derive(Debug, Default)]
struct Seen {
    warm: u64,
    cold: u64,
    lost: u64,
}

struct Pod {
    agent: Ended,
    health: SocketAddr,
    application: SocketAddr,
}

fn pod(folder: &Path, follow: &str) -> Pod {
    let (port, app) = (free_port(), free_port());
    let config = format!(
        "[readiness]\nhttp = \"http://127.0.0.1:{app}/healthz\"\n\
         [post-start]\ngate = \"readiness\"\n\
         [[post-start.step]]\nwarm-up = {{ requests = [\"http://127.0.0.1:{app}/warm\"], successes = {WARM}, rate = 50 }}\n\
         [[pre-stop.step]]\nsleep = \"500ms\"\n"
    );
    let program = env::current_exe().expect("a program has a path").display().to_string();
    let agent = start(folder, port, &config, &[&program, "app", &app.to_string()]);
    let health = if follow == "/ready" { port } else { app };
    Pod { agent, health: here(health), application: here(app) }
}

/// Starts five pods one after the other, and stops the one before whenever the next one is ready.
fn roll_out(folder: &Path, follow: &str) -> Seen {
    let path = if follow == "/ready" { "/ready" } else { "/healthz" };
    let known: Arc<Mutex<Vec<(SocketAddr, SocketAddr)>>> = Arc::default();
    let ready: Arc<Mutex<Vec<SocketAddr>>> = Arc::default();
    let stop = Arc::new(AtomicBool::new(false));
    let router = {
        let (known, ready, stop) = (Arc::clone(&known), Arc::clone(&ready), Arc::clone(&stop));
        thread::spawn(move || {
            while !stop.load(Relaxed) {
                let pods = known.lock().expect("no panic").clone();
                let is_ready = |health: SocketAddr| get(health, path).is_ok_and(|(status, _)| status == 200);
                let now: Vec<SocketAddr> = pods
                    .into_iter()
                    .filter(|(health, _)| is_ready(*health))
                    .map(|(_, application)| application)
                    .collect();
                *ready.lock().expect("no panic") = now;
                thread::sleep(Duration::from_millis(100));
            }
        })
    };
    let user = {
        let (ready, stop) = (Arc::clone(&ready), Arc::clone(&stop));
        thread::spawn(move || {
            let (mut seen, mut turn) = (Seen::default(), 0);
            while !stop.load(Relaxed) {
                let pods = ready.lock().expect("no panic").clone();
                if !pods.is_empty() {
                    turn += 1;
                    match get(pods[turn % pods.len()], "/") {
                        Ok((200, body)) if body == "warm" => seen.warm += 1,
                        Ok((200, _)) => seen.cold += 1,
                        _ => seen.lost += 1,
                    }
                }
                thread::sleep(Duration::from_millis(2));
            }
            seen
        })
    };
    let begun = Instant::now();
    let mut running: Option<Pod> = None;
    for _ in 0..PODS {
        let next = pod(folder, follow);
        known.lock().expect("no panic").push((next.health, next.application));
        while !ready.lock().expect("no panic").contains(&next.application) {
            assert!(begun.elapsed() < Duration::from_secs(120), "a pod is never ready");
            thread::sleep(Duration::from_millis(5));
        }
        if let Some(old) = running.replace(next) {
            // As endpoints do: it is told to stop, and the router finds out by itself.
            if follow != "/ready" {
                known.lock().expect("no panic").retain(|(health, _)| *health != old.health);
            }
            drop(old.agent);
            known.lock().expect("no panic").retain(|(health, _)| *health != old.health);
        }
    }
    // The last one serves alone for a while.
    thread::sleep(Duration::from_secs(1));
    stop.store(true, Relaxed);
    router.join().expect("no panic");
    let seen = user.join().expect("no panic");
    println!(
        "  following {follow:<22} {} answers from warm applications, {} from cold ones, {} lost, in {:.1} s",
        seen.warm,
        seen.cold,
        seen.lost,
        begun.elapsed().as_secs_f64()
    );
    seen
}

/// The application: warm after so many calls of `/warm`.
fn serve_application(port: u16) {
    let listener = TcpListener::bind(here(port)).expect("its port");
    let warmed = AtomicU64::new(0);
    for stream in listener.incoming().flatten() {
        let _ = answer_one(&stream, |path| {
            let is_warm = warmed.load(Relaxed) >= WARM;
            if path == "/warm" {
                warmed.fetch_add(1, Relaxed);
            }
            let body = if is_warm { "warm" } else { "cold" };
            format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\n{body}")
        });
    }
}

// ---- HTTP ----

fn answer_one(mut stream: &TcpStream, answer: impl FnOnce(&str) -> String) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let (mut head, mut chunk) = (Vec::new(), [0; 1024]);
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => head.extend_from_slice(&chunk[..count]),
        }
    }
    let head = String::from_utf8_lossy(&head);
    stream.write_all(answer(head.split(' ').nth(1).unwrap_or_default()).as_bytes())
}

/// On a connection of its own.
fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    ask(&mut TcpStream::connect(address)?, path)
}

fn ask(stream: &mut TcpStream, path: &str) -> io::Result<(u16, String)> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nUser-Agent: kube-probe/1.36\r\n\r\n").as_bytes())?;
    let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => answer.extend_from_slice(&chunk[..count]),
        }
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length").then(|| value.parse().ok())?
        });
        if body.len() >= length.unwrap_or(0) {
            let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
            return Ok((status.unwrap_or_default(), body.to_owned()));
        }
    }
}

// ---- the machine ----

/// User and system time so far; the kernel counts in hundredths of a second (proc(5), `USER_HZ`).
fn processor_time(child: &Child) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
    let rest = stat.rsplit(") ").next().unwrap_or_default();
    let ticks: u64 = rest.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(10 * ticks)
}

/// How late a sleep of 10 ms ends at worst: the machine's part in every figure here.
fn lateness(stop: &AtomicBool) -> Duration {
    let mut worst = Duration::ZERO;
    while !stop.load(Relaxed) {
        let begun = Instant::now();
        thread::sleep(Duration::from_millis(10));
        worst = worst.max(begun.elapsed().saturating_sub(Duration::from_millis(10)));
    }
    worst
}

/// A child that is stopped in order when the benchmark is done with it.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // SAFETY: the pid is our child's, which has not been waited for yet.
        unsafe { libc::kill(self.0.id().cast_signed(), libc::SIGTERM) };
        let _ = self.0.wait();
    }
}
