//! What boathook costs a container at its start and its stop, and while nothing happens.
//!
//! Method: the shipped static binary (`BOATHOOK_DIST`), each command as a whole process: spawned, waited for, timed with
//! the monotonic clock. Commands that are compared take turns within one run (A B C A B C …), after a warm-up, and what is
//! compared are medians, as ratios: machines differ and are shared.
//!
//! - `run -- true` against the inits that people use: tini-static, dumb-init, catatonit, with the same `true`;
//! - `shutdown` with an empty plan, with and without an agent, against a static program that does nothing;
//! - exec to the first accepted connection on the port, and exec to the first instruction of the main process;
//! - an idle `run`: VmRSS and voluntary context switches over a minute (`BENCH_IDLE_SECONDS` shortens it).
//!
//! Run it with `make bench BENCH='--bench startup'`.

use std::{
    env, fs,
    io::Read,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const ROUNDS: usize = 200;

fn main() {
    let boathook = PathBuf::from(env::var_os("BOATHOOK_DIST").unwrap_or_else(|| env!("CARGO_BIN_EXE_boathook").into()));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let nothing = build_nothing(folder.path());
    println!("binary: {} bytes\n", fs::metadata(&boathook).map_or(0, |meta| meta.len()));
    inits(&boathook, &nothing, folder.path());
    hooks(&boathook, &nothing, folder.path());
    listening(&boathook, folder.path());
    idle(&boathook, folder.path());
}

/// A static program that does nothing at all: what any process costs.
fn build_nothing(folder: &Path) -> PathBuf {
    let (source, program) = (folder.join("nothing.rs"), folder.join("nothing"));
    fs::write(&source, "fn main() {}").expect("written");
    let target = format!("{}-unknown-linux-musl", env::consts::ARCH);
    let status = Command::new("rustc")
        .args(["-O", "-C", "panic=abort", "-C", "strip=symbols", "-C", "linker=rust-lld", "--target", &target, "-o"])
        .args([&program, &source])
        .status()
        .expect("rustc runs");
    assert!(status.success(), "the static program that does nothing was not built");
    program
}

/// A configuration with a listener on a free port of loopback, so that runs do not meet.
fn config(folder: &Path) -> (PathBuf, u16) {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port();
    let path = folder.join(format!("{port}.toml"));
    fs::write(&path, format!("[server]\nlisten = \"127.0.0.1:{port}\"\n")).expect("written");
    (path, port)
}

fn quiet(program: &Path, socket: &str) -> Command {
    let mut command = Command::new(program);
    command.env("BOATHOOK_SOCKET", socket).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Times commands in turns; gives each one's median.
fn compare(commands: &mut [(&str, Command)]) -> Vec<Duration> {
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); commands.len()];
    for round in 0..ROUNDS + 10 {
        for ((name, command), times) in commands.iter_mut().zip(&mut times) {
            let begun = Instant::now();
            let status = command.status().expect("it starts");
            let took = begun.elapsed();
            assert!(status.success(), "{name}: {status}");
            // The first rounds warm the page cache up.
            if round >= 10 {
                times.push(took);
            }
        }
    }
    times.into_iter().map(median).collect()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn print(commands: &[(&str, Command)], medians: &[Duration], against: usize) {
    for ((name, _), median) in commands.iter().zip(medians) {
        let ratio = median.as_secs_f64() / medians[against].as_secs_f64();
        println!("  {name:<34} {:>8.3} ms   {ratio:>5.2} × {}", median.as_secs_f64() * 1000.0, commands[against].0);
    }
    println!();
}

fn inits(boathook: &Path, nothing: &Path, folder: &Path) {
    println!("an init around a program that does nothing, median of {ROUNDS} (bar: boathook at most 2 × tini-static)");
    let (config, _) = config(folder);
    let mut run = quiet(boathook, "bench-run");
    run.arg("run").arg("--config").arg(config).arg("--").arg(nothing);
    let mut commands = vec![("the program alone", quiet(nothing, "")), ("boathook run", run)];
    for (init, arguments) in [("tini-static", &["-s", "--"][..]), ("dumb-init", &["--"]), ("catatonit", &["--"])] {
        let mut command = quiet(Path::new(init), "");
        command.args(arguments).arg(nothing);
        if command.status().is_ok_and(|status| status.success()) {
            commands.push((init, command));
        } else {
            println!("  {init}: not here");
        }
    }
    let medians = compare(&mut commands);
    let against = commands.iter().position(|(name, _)| *name == "tini-static").unwrap_or(0);
    print(&commands, &medians, against);
}

fn hooks(boathook: &Path, nothing: &Path, folder: &Path) {
    println!(
        "`boathook shutdown` with an empty plan, median of {ROUNDS} (bar: at most 3 × a static program that does nothing)"
    );
    let (config, port) = config(folder);
    let mut agent = quiet(boathook, "bench-agent");
    let agent = agent.arg("run").arg("--config").arg(config).args(["--", "sleep", "600"]).spawn().expect("it starts");
    let agent = Ended(agent);
    wait_for_port(port);
    let mut with_agent = quiet(boathook, "bench-agent");
    with_agent.arg("shutdown");
    let mut without = quiet(boathook, "bench-alone");
    without.arg("shutdown");
    let mut commands = vec![
        ("a static program that does nothing", quiet(nothing, "")),
        ("shutdown, an agent runs", with_agent),
        ("shutdown, no agent runs", without),
    ];
    let medians = compare(&mut commands);
    print(&commands, &medians, 0);
    drop(agent);
}

fn listening(boathook: &Path, folder: &Path) {
    println!("from exec, median and worst of 50 (bar: median at most 5 ms)");
    let (config, port) = config(folder);
    let (mut connected, mut started) = (Vec::new(), Vec::new());
    for _ in 0..50 {
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        let mut command = quiet(boathook, "bench-listening");
        command
            .arg("run")
            .arg("--config")
            .arg(&config)
            .args(["--", "sh", "-c", "echo started; exec sleep 600"])
            .stdout(writer);
        let begun = Instant::now();
        let agent = Ended(command.spawn().expect("it starts"));
        drop(command);
        let looking = thread::spawn(move || {
            while TcpStream::connect(("127.0.0.1", port)).is_err() {
                thread::sleep(Duration::from_micros(50));
            }
            begun.elapsed()
        });
        let mut byte = [0];
        reader.read_exact(&mut byte).expect("the main process writes");
        started.push(begun.elapsed());
        connected.push(looking.join().expect("no panic"));
        drop(agent);
    }
    for (what, times) in [("the port accepts", connected), ("the main process runs (a shell)", started)] {
        let worst = times.iter().max().copied().unwrap_or_default();
        println!(
            "  {what:<34} {:>8.3} ms   worst {:>8.3} ms",
            median(times).as_secs_f64() * 1000.0,
            worst.as_secs_f64() * 1000.0
        );
    }
    println!();
}

fn idle(boathook: &Path, folder: &Path) {
    let seconds = env::var("BENCH_IDLE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    println!("an idle `run` (bars: VmRSS at most 1.5 MB, 0 wake-ups a second)");
    let (config, port) = config(folder);
    let mut command = quiet(boathook, "bench-idle");
    command.arg("run").arg("--config").arg(config).args(["--", "sleep", "600"]);
    let agent = Ended(command.spawn().expect("it starts"));
    wait_for_port(port);
    thread::sleep(Duration::from_secs(1));
    let before = status_of(&agent.0, "voluntary_ctxt_switches:");
    thread::sleep(Duration::from_secs(seconds));
    let (after, resident) = (status_of(&agent.0, "voluntary_ctxt_switches:"), status_of(&agent.0, "VmRSS:"));
    println!(
        "  after {seconds} s: VmRSS {resident} kB, {} voluntary context switches, {} threads",
        after - before,
        status_of(&agent.0, "Threads:")
    );
}

fn status_of(child: &Child, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

fn wait_for_port(port: u16) {
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(5), "the agent does not listen");
        thread::sleep(Duration::from_millis(1));
    }
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
