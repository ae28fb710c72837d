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
//! Each is run with sock_diag and with `/proc`. Printed: how late it ended, and its processor time (user and
//! system) as a share of the time it took. The load is bounded by the number of connections; nothing is sent but
//! what is said above. The drain runs in a process of its own (this program, started again), so that switching to
//! the shipped binary is a matter of [`drain_command`].

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// With some room for everything else that is open, below the usual limits of 20,000 and more.
const PER_PROCESS: usize = 5000;
const NAMESPACE: &str = "BOATHOOK_BENCH_NAMESPACE";

fn main() {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["serve"] => serve(),
        ["hold", address, number] => hold(address, number.parse().expect("a number")),
        ["drain", ref typed @ ..] => drain(typed),
        _ if env::var_os(NAMESPACE).is_none() => isolate(&words),
        [number] => measure(number.parse().expect("a number of connections")),
        _ => measure(20_000),
    }
}

/// Starts the drain under test. With the shipped binary this is `boathook step drain` and the same words.
fn drain_command(port: u16, source: &str) -> Command {
    let mut command = again();
    command.args(["drain", "--port", &port.to_string(), "--source", source]);
    command
}

fn again() -> Command {
    Command::new(env::current_exe().expect("a program has a path"))
}

fn isolate(words: &[&str]) {
    let mut command = again();
    command.args(words).env(NAMESPACE, "own");
    // SAFETY: unshare is a plain system call, safe between fork and exec.
    unsafe {
        command.pre_exec(|| {
            if libc::unshare(libc::CLONE_NEWNET) != 0 {
                libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET);
            }
            Ok(())
        });
    }
    let status = command.status().expect("it starts again");
    std::process::exit(status.code().unwrap_or(1));
}

fn raise_loopback() {
    // SAFETY: the request is a zeroed ifreq with a terminated name.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        libc::ioctl(socket, libc::SIOCSIFFLAGS, &request);
        libc::close(socket);
    }
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

/// The Kind, driven as the binary will drive it. Prints the outcome.
fn drain(words: &[&str]) {
    use boathook::{
        problem::Scope,
        step::{Context, Kind, OwnTraffic, Progress, drain::Drain},
    };
    use clap::{Args, Command, FromArgMatches};
    let command = <Drain as Kind>::Typed::augment_args(Command::new("drain").no_binary_name(true));
    let matches = command.get_matches_from(words);
    let typed = <Drain as Kind>::Typed::from_arg_matches(&matches).expect("good arguments");
    let (mut secrets, mut problems) = (Vec::new(), Vec::new());
    let mut scope = Scope {
        file: "command line",
        line: None,
        place: String::new(),
        app_ports: &[],
        secrets: &mut secrets,
        problems: &mut problems,
    };
    let drain = Drain::mean(typed, &mut scope).expect("good arguments");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let end = runtime.block_on(async {
        let now = tokio::time::Instant::now();
        let context = Context {
            label: "drain".into(),
            limit: now + Duration::from_secs(60),
            hook_started: now,
            kill_after: Duration::from_secs(1),
            app_ports: Vec::new(),
            main_process: None,
            processes: boathook::process::Processes::idle(),
            own_traffic: OwnTraffic::default(),
            progress: Progress::default(),
        };
        drain.run(&context).await
    });
    println!("{end:?}");
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
    raise_loopback();
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
    for source in ["auto", "proc"] {
        for case in ["idle", "slow answer", "slow answer, closed", "visits"] {
            // So that everything before is idle.
            thread::sleep(Duration::from_millis(1200));
            let began = Instant::now();
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
            let (mut child, mut output) = start(&mut drain_command(address.port(), source));
            let outcome = line(&mut output);
            let ended = Instant::now();
            let cpu = wait_for_usage(&mut child);
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
        }
    }
    for mut helper in helpers {
        let _ = helper.kill();
        let _ = helper.wait();
    }
}

/// Waits for the child and gives its processor time.
fn wait_for_usage(child: &mut Child) -> Duration {
    // SAFETY: the child has not been waited for; the two places are ours.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        let mut status = 0;
        libc::wait4(child.id().cast_signed(), &raw mut status, 0, &raw mut usage);
        usage
    };
    let time = |value: libc::timeval| {
        Duration::from_secs(value.tv_sec.unsigned_abs()) + Duration::from_micros(value.tv_usec.unsigned_abs())
    };
    if env::var_os("BOATHOOK_BENCH_SPLIT").is_some() {
        println!("user {:?}, system {:?}", time(usage.ru_utime), time(usage.ru_stime));
    }
    time(usage.ru_utime) + time(usage.ru_stime)
}
