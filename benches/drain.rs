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
//! Each is run with sock_diag and with `/proc` (`chat` only with sock_diag: `/proc` shows nobody's turn). Printed: how
//! late it ended, its processor time (user and system, from `wait4`) as a share of one core over the time it took, and
//! what it said. The load is bounded by the number of connections; nothing is sent but what is said above.
//!
//! Then nginx is stopped under load a hundred times, in four processes side by side, each in a network namespace of its
//! own, in turn by `boathook step drain` (settle 400 ms) with a SIGTERM for nginx when it has ended, and by
//! `boathook run`: nobody may be cut. In a last stop of each process, with the in-flight rule off, somebody must be.
//!
//! The drain under test is the binary in `BOATHOOK_DIST`, or else the one that cargo built.
//! Arguments: a number of connections; `nginx` for the stops alone, `idle` for the connections alone.

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
/// Stops of nginx: processes side by side, and stops of each.
const STOPS: (usize, usize) = (4, 25);

fn main() {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["serve"] => serve(),
        ["hold", address, number] => hold(address, number.parse().expect("a number")),
        ["stops", number] => stops(number.parse().expect("a number")),
        ["nginx"] => stop_nginx(),
        _ if env::var_os(NAMESPACE).is_none() => {
            let status = drain_load::again_isolated(&arguments).env(NAMESPACE, "own").status();
            if !status.expect("it starts again").success() {
                std::process::exit(1);
            }
            if !words.contains(&"idle") {
                stop_nginx();
            }
        }
        ref words => measure(words.iter().find_map(|word| word.parse().ok()).unwrap_or(20_000)),
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

fn measure(number: usize) {
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
    println!("{number} open idle connections");
    println!("{:<22} {:<10} {:>9} {:>9} {:>8}  outcome", "case", "source", "took", "late by", "core");
    let second = Duration::from_secs(1);
    let mut dear = Vec::new();
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
                dear.push(case);
            }
        }
    }
    for mut helper in helpers {
        let _ = helper.kill();
        let _ = helper.wait();
    }
    assert!(dear.is_empty(), "more than 2 % of a core: {dear:?}");
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
