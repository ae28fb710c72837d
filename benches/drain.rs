//! What a drain costs, and how soon after the last answer it ends.
//!
//! Method: a server process holds N open idle connections (20,000 by default; an argument that is a number changes
//! it) on one port, each used once; client processes hold the other ends, so that no process needs more than its
//! limit of open files. All of it, and the drain, is in a network namespace of its own where one may be made.
//! Then, with the default rules (settle 5 s, quiet time 1 s, idle after 1 s):
//!
//! * `idle`: nobody asks anything: the drain should end at the settle time;
//! * `slow answer`: one request is in flight and is answered 6.5 s after the start; the connection stays open, so
//!   the drain should end one second (idle-after) after the answer;
//! * `slow answer, closed`: the same, but the server closes after the answer: it should end at once;
//! * `visits`: a short connection every 100 ms until 5.5 s: it should end a quiet time after the last.
//!
//! * `chat`: 16 clients ask on kept connections every 200 to 400 ms, all the time: it should end soon after the
//!   settle time, when they happen to pause together.
//!
//! * `2000 new a second`: besides, so many short connections come every second, for five seconds before the hook of an agent
//!   (`boathook run`) and for three seconds after: it should end a quiet time after the last.
//!
//! Each is run with sock_diag and with `/proc` (`chat` only with sock_diag: `/proc` shows nobody's turn). Printed: how
//! late it ended, its processor time (user and system, from `wait4`) as a share of one core over the time it took, and
//! what it said. The load is bounded by the number of connections; nothing is sent but what is said above.
//!
//! Then what a hook costs after a quiet minute: agents that nobody has asked anything for so long get `/shutdown`, with
//! `settle = 0` (the quiet rule off), so that the first look is all that there is to do: how long until the answer, what it cost
//! with the answers to `/ready` that are asked for all the time meanwhile, and how long the slowest of these took; with the open connections and on a port without any.
//!
//! Then nginx is stopped under load a hundred times, in four processes side by side, each in a network namespace of its
//! own, in turn by `boathook step drain` (settle 400 ms) with a SIGTERM for nginx when it has ended, and by
//! `boathook run`: nobody may be cut. In a last stop of each process, with the in-flight rule off, somebody must be.
//!
//! The drain under test is the binary in `BOATHOOK_DIST`, or else the one that cargo built.
//! Arguments: a number of connections; `nginx` for the stops alone, `idle` for the connections alone, `new` for the case with
//! new ones alone, `cold` for the quiet minute alone.

#[path = "../tests/support/drain_load.rs"]
mod drain_load;

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// With some room for everything else that is open, below the usual limits of 20,000 and more.
const PER_PROCESS: usize = 5000;
const NAMESPACE: &str = "BOATHOOK_BENCH_NAMESPACE";

/// As many clients as the chat has, and their pauses.
const CHATTERS: u64 = 16;
/// New connections a second, where there are many, and how long they come before the hook and after.
const RATE: u32 = 2000;
const BEFORE: Duration = Duration::from_secs(5);
const LATE: Duration = Duration::from_secs(3);
/// Nobody asks an agent anything for so long; and so many agents of each kind.
const QUIET: Duration = Duration::from_secs(60);
const AGENTS: usize = 3;
/// Stops of nginx: processes side by side, and stops of each.
const STOPS: (usize, usize) = (4, 25);

fn main() {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["serve"] => serve(),
        ["hold", address, number] => hold(address, number.parse().expect("a number")),
        ["visit", address] => visit(address.parse().expect("an address")),
        ["stops", number] => stops(number.parse().expect("a number")),
        ["nginx"] => stop_nginx(),
        _ if env::var_os(NAMESPACE).is_none() => {
            let status = drain_load::again_isolated(&arguments).env(NAMESPACE, "own").status();
            if !status.expect("it starts again").success() {
                std::process::exit(1);
            }
            if !words.iter().any(|word| ["idle", "new", "cold"].contains(word)) {
                stop_nginx();
            }
        }
        ref words => {
            let number = words.iter().find_map(|word| word.parse().ok()).unwrap_or(20_000);
            let crowd = Crowd::gather(number);
            let one = words.iter().find(|word| ["new", "cold"].contains(word)).copied();
            let mut dear = Vec::new();
            if one.is_none() {
                measure(&crowd, number, &mut dear);
            }
            if one != Some("cold") {
                measure_new(&crowd, number, &mut dear);
            }
            if one != Some("new") && !words.contains(&"idle") {
                measure_cold(&crowd, number);
            }
            drop(crowd);
            assert!(dear.is_empty(), "more than 2 % of a core: {dear:?}");
        }
    }
}

/// Starts the drain under test.
fn drain_command(port: u16, source: &str) -> Command {
    let mut command = Command::new(drain_load::boathook());
    command.args(["step", "drain", "--timeout", "60s", "--port", &port.to_string(), "--source", source]);
    command
}

/// Stops nginx under load so many times; in a namespace of its own.
fn stops(number: usize) {
    drain_load::raise_loopback();
    let keys = [("settle", "400ms"), ("quiet-min", "200ms")];
    for number in 0..number {
        let way = if number % 2 == 0 { drain_load::Way::Step } else { drain_load::Way::Run };
        let outcome = drain_load::stop_under_load(way, &keys);
        println!("{} {} {}", outcome.in_flight_then, outcome.in_flight_at_the_end, outcome.cut);
        assert!(outcome.took > Duration::from_millis(400) && outcome.requests > 0, "{outcome:?}");
    }
    let off = [keys[0], keys[1], ("threshold", "100000")];
    let outcome = drain_load::stop_under_load(drain_load::Way::Step, &off);
    println!("control {} after {:?}", outcome.cut, outcome.late);
    assert!(outcome.cut > 0, "{}", outcome.log);
}

fn stop_nginx() {
    if drain_load::nginx().is_none() {
        println!("nginx is not installed: its stops are left out");
        return;
    }
    let (processes, each) = STOPS;
    let children: Vec<Child> = (0..processes)
        .map(|_| {
            let mut command = drain_load::again_isolated(&["stops".into(), each.to_string()]);
            command.stdout(Stdio::piped()).spawn().expect("it starts again")
        })
        .collect();
    let (mut stops, mut clean, mut waited_for) = (0, 0, 0);
    for child in children {
        let output = child.wait_with_output().expect("it was not waited for");
        assert!(output.status.success(), "a drain did not end, or the control failed");
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            if let [then, end, cut] = line.split(' ').map_while(|word| word.parse().ok()).collect::<Vec<usize>>()[..] {
                stops += 1;
                clean += usize::from(end == 0 && cut == 0);
                waited_for += then;
            } else {
                println!("with the in-flight rule off: {line} cut");
            }
        }
    }
    println!("nginx stopped under load: {clean} of {stops} with nothing in flight; {waited_for} requests waited for");
    assert_eq!((clean, stops), (processes * each, processes * each));
}

fn again() -> Command {
    Command::new(env::current_exe().expect("a program has a path"))
}

/// Answers each byte with that byte after as many tenths of a second; after `c` the connection is closed. Several
/// servers share the port, so that none needs more descriptors than it may have.
fn serve() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let port: u16 = env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(0);
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_reuseport(true).expect("the kernel is newer than 3.9");
        socket.bind(SocketAddr::from(([127, 0, 0, 1], port))).expect("a port");
        let listener = socket.listen(4096).expect("it listens");
        println!("{}", listener.local_addr().expect("bound"));
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { continue };
            tokio::spawn(async move {
                let mut request = [0; 2];
                while stream.read_exact(&mut request).await.is_ok() {
                    if request[0] > 0 {
                        tokio::time::sleep(Duration::from_millis(100) * request[0].into()).await;
                    }
                    if stream.write_all(&request[..1]).await.is_err() || request[1] == b'c' {
                        return;
                    }
                }
            });
        }
    });
}

/// Opens connections, uses each once, says `ready` and keeps them until its input ends.
fn hold(address: &str, number: usize) {
    let mut held = Vec::with_capacity(number);
    for _ in 0..number {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.write_all(&[0, b'k']).expect("it reads");
        stream.read_exact(&mut [0]).expect("it answers");
        held.push(stream);
    }
    println!("ready");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

fn start(command: &mut Command) -> (Child, BufReader<std::process::ChildStdout>) {
    // SAFETY: prctl is a plain system call, safe between fork and exec: helpers end with this program.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let output = BufReader::new(child.stdout.take().expect("it is piped"));
    (child, output)
}

fn line(output: &mut impl BufRead) -> String {
    let mut line = String::new();
    output.read_line(&mut line).expect("it writes");
    line.trim().into()
}

/// Servers that share a port, and clients that hold connections to it.
struct Crowd {
    address: SocketAddr,
    helpers: Vec<Child>,
}

impl Crowd {
    fn gather(number: usize) -> Self {
        drain_load::raise_loopback();
        let parts = number.div_ceil(PER_PROCESS).max(1);
        // One more server than needed: SO_REUSEPORT spreads connections by chance.
        let (first, mut output) = start(again().arg("serve"));
        let address: SocketAddr = line(&mut output).parse().expect("an address");
        let mut helpers = vec![first];
        for _ in 0..parts {
            let (server, mut output) = start(again().arg("serve").env("PORT", address.port().to_string()));
            line(&mut output);
            helpers.push(server);
        }
        for part in 0..parts {
            let share = (number - part * PER_PROCESS).min(PER_PROCESS);
            let (client, mut output) = start(again().args(["hold", &address.to_string(), &share.to_string()]));
            assert_eq!(line(&mut output), "ready");
            helpers.push(client);
        }
        Self { address, helpers }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for helper in &mut self.helpers {
            let _ = helper.kill();
            let _ = helper.wait();
        }
    }
}

fn measure(crowd: &Crowd, number: usize, dear: &mut Vec<String>) {
    let address = crowd.address;
    println!("{number} open idle connections");
    println!("{:<22} {:<10} {:>9} {:>9} {:>8}  outcome", "case", "source", "took", "late by", "core");
    let second = Duration::from_secs(1);
    for source in ["auto", "proc"] {
        for case in ["idle", "slow answer", "slow answer, closed", "visits", "chat"] {
            if (case, source) == ("chat", "proc") {
                continue;
            }
            // So that everything before is idle.
            thread::sleep(Duration::from_millis(1200));
            let began = Instant::now();
            let is_over = Arc::new(AtomicBool::new(false));
            let chat: Vec<_> = (0..if case == "chat" { CHATTERS } else { 0 })
                .map(|number| {
                    let is_over = Arc::clone(&is_over);
                    thread::spawn(move || chat(address, number, &is_over))
                })
                .collect();
            let last: thread::JoinHandle<(Instant, Option<TcpStream>)> = match case {
                "slow answer" | "slow answer, closed" => {
                    let mut stream = TcpStream::connect(address).expect("it listens");
                    let is_closed = case != "slow answer";
                    stream.write_all(&[65, if is_closed { b'c' } else { b'k' }]).expect("it reads");
                    thread::spawn(move || {
                        stream.read_exact(&mut [0]).expect("it answers");
                        let at = Instant::now();
                        (at + if is_closed { Duration::ZERO } else { second }, Some(stream))
                    })
                }
                "visits" => thread::spawn(move || {
                    let mut at = Instant::now();
                    while began.elapsed() < Duration::from_millis(5500) {
                        at = Instant::now();
                        let mut stream = TcpStream::connect(address).expect("it listens");
                        stream.write_all(&[0, b'k']).expect("it reads");
                        stream.read_exact(&mut [0]).expect("it answers");
                        drop(stream);
                        thread::sleep(Duration::from_millis(100));
                    }
                    (at + second, None)
                }),
                _ => thread::spawn(move || (began, None)),
            };
            let started = Instant::now();
            let (mut child, log) = start_drain(&mut drain_command(address.port(), source));
            let (cpu, is_done) = wait_for_usage(&mut child);
            let ended = Instant::now();
            let log = log.join().expect("it reads");
            is_over.store(true, Ordering::Relaxed);
            for one in chat {
                one.join().expect("it ends");
            }
            assert!(is_done, "{log}");
            let outcome = log.rsplit_once("reason=").map_or(log.as_str(), |(_, reason)| reason).trim();
            let (due, _stream) = last.join().expect("it ends");
            let due = due.max(started + 5 * second);
            let took = ended - started;
            let share = cpu.as_secs_f64() / took.as_secs_f64() * 100.0;
            println!(
                "{case:<22} {source:<10} {:>7.3} s {:>6.0} ms {share:>6.2} %  {outcome}",
                took.as_secs_f64(),
                (ended.saturating_duration_since(due)).as_secs_f64() * 1000.0,
            );
            assert!(ended >= due, "{case}: too soon");
            if source == "auto" && number <= 20_000 && share > 2.0 {
                dear.push(case.into());
            }
        }
    }
}

/// Opens so many connections a second, each for one request after which the server closes, until its input ends. Then says
/// how many there were and how many failed.
fn visit(address: SocketAddr) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let is_over = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&is_over);
    thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        ends.store(true, Ordering::Relaxed);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut all = tokio::task::JoinSet::new();
        let began = Instant::now();
        let mut failed = 0;
        for number in 0_u32.. {
            let due = began + Duration::from_secs(1) / RATE * number;
            // Timers have a resolution of a millisecond: those that are due by then come together.
            if due > Instant::now() {
                tokio::time::sleep_until(due.into()).await;
            }
            if is_over.load(Ordering::Relaxed) {
                break;
            }
            all.spawn(async move {
                let socket = tokio::net::TcpSocket::new_v4()?;
                // A source of its own for each of 200, so that no port has to be used again.
                socket.bind(SocketAddr::from(([127, 0, 1, u8::try_from(number % 200).unwrap_or(0)], 0)))?;
                let mut stream = socket.connect(address).await?;
                stream.write_all(&[0, b'c']).await?;
                let read = stream.read(&mut [0; 2]).await?;
                std::io::Result::Ok(read == 1 && stream.read(&mut [0; 2]).await? == 0)
            });
            while let Some(ended) = all.try_join_next() {
                failed += u32::from(!matches!(ended, Ok(Ok(true))));
            }
            if number % 1024 == 0 {
                println!("{number} {failed}");
            }
        }
        while let Some(ended) = all.join_next().await {
            failed += u32::from(!matches!(ended, Ok(Ok(true))));
        }
        println!("failed {failed}");
    });
}

/// An agent beside the crowd, with what it writes.
struct Agent {
    child: Child,
    log: thread::JoinHandle<String>,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Agent {
    fn start(port: u16, source: &str, settle: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = format!(
            "[server]\nlisten = '127.0.0.1:0'\n[log]\ntermination-message = '/dev/null'\n[app]\nports = [{port}]\n\
             [[pre-stop.step]]\ndrain = {{ settle = '{settle}', source = '{source}' }}\n"
        );
        let file = folder.path().join("boathook.toml");
        std::fs::write(&file, config).expect("room");
        let mut command = Command::new(drain_load::boathook());
        command.args(["run", "--", "sleep", "1000"]).env("BOATHOOK_CONFIG", file);
        command.env("BOATHOOK_SOCKET", format!("drain-bench-{}", folder.path().display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // SAFETY: prctl is a plain system call, safe between fork and exec: it ends with this program.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
                Ok(())
            });
        }
        let mut child = command.spawn().expect("it starts");
        let mut output = BufReader::new(child.stderr.take().expect("it is piped"));
        let first = line(&mut output);
        let address = first.split_once("address=").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        let address = address.unwrap_or_else(|| panic!("it does not listen: {first}"));
        let log = thread::spawn(move || {
            let mut text = String::new();
            let _ = output.read_to_string(&mut text);
            text
        });
        Self { child, log, address, _folder: folder }
    }

    /// Processor time of all its threads so far.
    fn spent(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        let nanoseconds = tasks.flatten().filter_map(|task| {
            let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanoseconds.sum())
    }

    fn stop(&self) {
        // SAFETY: the child has not been waited for, so the number is still its own.
        unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGTERM) };
    }

    /// Waits for its end; its processor time and what the drain said.
    fn end(mut self) -> (Duration, String) {
        let (cpu, _) = wait_for_usage(&mut self.child);
        let log = self.log.join().expect("it reads");
        let line = log.lines().find(|line| line.contains("step ended")).unwrap_or(&log);
        (cpu, line.rsplit_once("reason=").map_or(line, |(_, reason)| reason).trim_matches('"').to_owned())
    }
}

fn measure_new(crowd: &Crowd, number: usize, dear: &mut Vec<String>) {
    for source in ["auto", "proc"] {
        let agent = Agent::start(crowd.address.port(), source, "8s");
        let (mut visitor, mut output) = start(again().args(["visit", &crowd.address.to_string()]));
        thread::sleep(BEFORE);
        let (began, before) = (Instant::now(), agent.spent());
        agent.stop();
        thread::sleep(LATE);
        drop(visitor.stdin.take());
        let last = Instant::now();
        let (cpu, outcome) = agent.end();
        let ended = Instant::now();
        let mut said = String::new();
        output.read_to_string(&mut said).expect("text");
        let _ = visitor.wait();
        let took = ended - began;
        let share = (cpu - before).as_secs_f64() / took.as_secs_f64() * 100.0;
        let case = format!("{RATE} new a second");
        println!(
            "{case:<22} {source:<10} {:>7.3} s {:>6.0} ms {share:>6.2} %  {outcome}; {}",
            took.as_secs_f64(),
            ended.saturating_duration_since(last + Duration::from_secs(1)).as_secs_f64() * 1000.0,
            said.lines().last().unwrap_or_default(),
        );
        if source == "auto" && number <= 20_000 && share > 2.0 {
            dear.push(case);
        }
    }
}

fn measure_cold(crowd: &Crowd, number: usize) {
    // Bound, and nobody comes.
    let empty = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let empty = empty.local_addr().expect("bound").port();
    let kinds = [(crowd.address.port(), "auto"), (empty, "auto"), (crowd.address.port(), "proc"), (empty, "proc")];
    let agents: Vec<Vec<Agent>> =
        kinds.iter().map(|(port, source)| (0..AGENTS).map(|_| Agent::start(*port, source, "0s")).collect()).collect();
    println!("after a quiet minute:  connections source  hook answered after, its processor time, the slowest /ready");
    thread::sleep(QUIET);
    for ((port, source), agents) in kinds.iter().zip(agents) {
        let (mut hooks, mut costs, mut readies) = (Vec::new(), Vec::new(), Vec::new());
        for agent in agents {
            let before = agent.spent();
            let (hook, ready) = shut_down(agent.address);
            hooks.push(hook);
            costs.push(agent.spent() - before);
            readies.push(ready);
            agent.stop();
            agent.end();
            // The first look of the next is as cold as it can be made.
            thread::sleep(Duration::from_secs(2));
        }
        let all = |times: &[Duration]| {
            times.iter().map(|time| format!("{:.1}", time.as_secs_f64() * 1000.0)).collect::<Vec<_>>().join(" ")
        };
        let open = if *port == empty { 0 } else { number };
        println!("{open:>34} {source:<7} {} ms, {} ms, {} ms", all(&hooks), all(&costs), all(&readies));
    }
}

/// Calls `/shutdown`, and `/ready` again and again meanwhile: how long the first took, and the longest of the others.
fn shut_down(address: SocketAddr) -> (Duration, Duration) {
    let ask = |stream: &mut TcpStream, path: &str| {
        let began = Instant::now();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).expect("it reads");
        let mut answer = [0; 8192];
        assert!(stream.read(&mut answer).expect("it answers") > 0);
        began.elapsed()
    };
    let connect = move || TcpStream::connect(address).expect("it listens");
    let is_over = Arc::new(AtomicBool::new(false));
    let (over, mut prober) = (Arc::clone(&is_over), connect());
    let hook = thread::spawn(move || {
        let took = ask(&mut connect(), "/shutdown");
        over.store(true, Ordering::Relaxed);
        took
    });
    let mut slowest = Duration::ZERO;
    while !is_over.load(Ordering::Relaxed) {
        slowest = slowest.max(ask(&mut prober, "/ready"));
        thread::sleep(Duration::from_millis(1));
    }
    (hook.join().expect("it is answered"), slowest)
}

/// Asks every 200 to 400 ms on one connection.
fn chat(address: SocketAddr, number: u64, is_over: &AtomicBool) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    for round in number.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        stream.write_all(&[0, b'k']).expect("it reads");
        stream.read_exact(&mut [0]).expect("it answers");
        thread::sleep(Duration::from_millis(200 + (round * 77 + number * 31) % 200));
    }
}

/// The drain and what it writes.
fn start_drain(command: &mut Command) -> (Child, thread::JoinHandle<String>) {
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut pipe = child.stderr.take().expect("it is piped");
    let log = thread::spawn(move || {
        let mut text = String::new();
        let _ = pipe.read_to_string(&mut text);
        text
    });
    (child, log)
}

/// Waits for the child and gives its processor time, and whether it succeeded.
fn wait_for_usage(child: &mut Child) -> (Duration, bool) {
    // SAFETY: the child has not been waited for; the two places are ours.
    let (usage, status) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        let mut status = 0;
        libc::wait4(child.id().cast_signed(), &raw mut status, 0, &raw mut usage);
        (usage, status)
    };
    let time = |value: libc::timeval| {
        Duration::from_secs(value.tv_sec.unsigned_abs()) + Duration::from_micros(value.tv_usec.unsigned_abs())
    };
    if env::var_os("BOATHOOK_BENCH_SPLIT").is_some() {
        println!("user {:?}, system {:?}", time(usage.ru_utime), time(usage.ru_stime));
    }
    (time(usage.ru_utime) + time(usage.ru_stime), status == 0)
}
