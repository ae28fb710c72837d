//! The kubelet's call while the port is flooded.
//!
//! Method: the shipped static binary (`BOATHOOK_DIST`) as `boathook run`, listening on all of loopback. 2,000 attackers
//! from other loopback addresses keep a connection open each and come back as soon as they are put out: a third says
//! nothing, a third drips a byte a second, a third sends oversized or malformed heads. Meanwhile a kubelet calls `/ready`
//! on a fresh connection and on one that it has kept alive since before the flood, 100 times each. Wall time of each call
//! is printed as median and worst (bar: 100 ms), beside how late a thread that only sleeps was: that much is the machine.
//! Then the agent's memory, and a `/shutdown` in the middle of it all.
//!
//! Run it with `make bench BENCH='--bench flood'`.

use std::{
    env, fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

const ATTACKERS: usize = 2000;
/// Threads that the attackers share; each holds its connections by itself.
const THREADS: usize = 8;
const CALLS: usize = 100;

fn main() {
    let boathook = PathBuf::from(env::var_os("BOATHOOK_DIST").unwrap_or_else(|| env!("CARGO_BIN_EXE_boathook").into()));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port();
    let config = folder.path().join("boathook.toml");
    fs::write(&config, format!("[server]\nlisten = \"0.0.0.0:{port}\"\nallow-from = [\"127.0.0.1\"]\n"))
        .expect("written");
    let mut command = Command::new(boathook);
    command.env("BOATHOOK_SOCKET", "bench-flood").arg("run").arg("--config").arg(config).args(["--", "sleep", "600"]);
    let agent =
        Ended(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts"));
    let kept = loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => break stream,
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    };
    let before = resident(&agent.0);
    // An admitted caller's connection stays open: the kubelet's from post-start is there at pre-stop.
    call(&kept, "/started").expect("the first call");

    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..THREADS)
        .map(|number| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || attack(number, port, &stop))
        })
        .collect();
    let late = {
        let stop = Arc::clone(&stop);
        thread::spawn(move || lateness(&stop))
    };
    thread::sleep(Duration::from_secs(2));
    let (mut fresh, mut reused) = (Vec::new(), Vec::new());
    for _ in 0..CALLS {
        let begun = Instant::now();
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the port accepts");
        call(&stream, "/ready").expect("a fresh call is answered");
        fresh.push(begun.elapsed());
        let begun = Instant::now();
        call(&kept, "/ready").expect("the kept connection is answered");
        reused.push(begun.elapsed());
        thread::sleep(Duration::from_millis(20));
    }
    let during = resident(&agent.0);
    let begun = Instant::now();
    let shutdown = call(&kept, "/shutdown");
    let hook = begun.elapsed();
    stop.store(true, Ordering::Relaxed);
    let put_out: usize = threads.into_iter().map(|thread| thread.join().expect("no panic")).sum();
    let late = late.join().expect("no panic");
    println!("{ATTACKERS} attackers, who were put out and came back {put_out} times");
    print("fresh connection", fresh);
    print("kept-alive connection", reused);
    println!(
        "  /shutdown on the kept-alive one: {hook:?}, {}",
        shutdown.map_or_else(|error| error.to_string(), |()| "answered".into())
    );
    println!("  a thread that only sleeps was late by at most {late:?}");
    println!("  VmRSS {before} kB before, {during} kB during, {} kB at most", status_of(&agent.0, "VmHWM:"));
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort();
    println!("  {what:<24} median {:?}, worst {:?}", times[times.len() / 2], times[times.len() - 1]);
}

/// The kubelet's request, and the whole answer.
fn call(mut stream: &TcpStream, path: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: kube-lifecycle/1.36\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut chunk)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&chunk[..read]);
        let text = String::from_utf8_lossy(&answer).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned));
        if body.len() >= length.and_then(|length| length.parse().ok()).unwrap_or(0) {
            return Ok(());
        }
    }
}

/// Keeps its share of the connections open; gives how often one was put out.
fn attack(number: usize, port: u16, stop: &AtomicBool) -> usize {
    let mut put_out = 0;
    let mut streams: Vec<Option<TcpStream>> = (0..ATTACKERS / THREADS).map(|_| None).collect();
    while !stop.load(Ordering::Relaxed) {
        for (index, slot) in streams.iter_mut().enumerate() {
            let alive = slot.as_ref().is_some_and(|stream| {
                // Dripping also finds out whether it is still open.
                index % 3 != 1 || (&*stream).write_all(b"x").is_ok()
            }) && !slot.as_ref().is_some_and(is_closed);
            if !alive {
                put_out += usize::from(slot.is_some());
                // One of 250 addresses, none of them the kubelet's.
                let from = Ipv4Addr::new(
                    127,
                    0,
                    1 + u8::try_from(number).unwrap_or(0),
                    1 + u8::try_from(index % 250).unwrap_or(0),
                );
                *slot = open(from, port).ok();
                if let Some(stream) = slot.as_ref() {
                    let _ = match index % 6 {
                        2 => (&*stream).write_all(&[b'a'; 40_000]),
                        5 => (&*stream).write_all(b"\x16\x03\x01 NOT HTTP\r\n\r\n"),
                        _ => (&*stream).write_all(b"GET /sta"),
                    };
                }
            }
        }
        thread::sleep(Duration::from_millis(200));
    }
    put_out
}

fn is_closed(stream: &TcpStream) -> bool {
    !matches!(stream.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

fn open(from: Ipv4Addr, port: u16) -> io::Result<TcpStream> {
    let fd: OwnedFd = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&fd, &SocketAddr::from((from, 0)))?;
    connect(&fd, &SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    let stream = TcpStream::from(fd);
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// How late a sleep of 10 ms ends at worst: the machine's part in every figure here.
fn lateness(stop: &AtomicBool) -> Duration {
    let mut worst = Duration::ZERO;
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        thread::sleep(Duration::from_millis(10));
        worst = worst.max(begun.elapsed().saturating_sub(Duration::from_millis(10)));
    }
    worst
}

fn resident(child: &Child) -> u64 {
    status_of(child, "VmRSS:")
}

fn status_of(child: &Child, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_default()
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
