//! The servers that warm-up is measured against: a shop on a JVM, nginx, and those that are never warm.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// More memory than it needs, so that it has few collections; the port is free for a moment, see [`free_port`].
pub const JVM: [&str; 3] = ["java", "-Xmx256m", "-Dsun.net.httpserver.nodelay=true"];
const SHOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/warm_up/Shop.java");
/// Threads of the shop's pool.
const THREADS: &str = "8";

/// The shop's program, compiled; where `javac` and `java` are.
pub struct Shop(PathBuf);

impl Shop {
    pub fn compile(folder: &Path) -> Self {
        let classes = folder.join("classes");
        let status = Command::new("javac").arg("-d").arg(&classes).arg(SHOP).status();
        assert!(status.is_ok_and(|status| status.success()), "javac compiles (Debian: openjdk-17-jdk-headless)");
        Self(classes)
    }

    /// The words that start it.
    pub fn command(&self, port: u16) -> Vec<String> {
        let mut words: Vec<String> = JVM.map(str::to_owned).into();
        words.extend(["-cp".to_owned(), self.0.display().to_string(), "Shop".to_owned(), port.to_string()]);
        words.push(THREADS.to_owned());
        words
    }

    /// Starts it, and waits until it listens.
    pub fn start(&self, port: u16) -> Ended {
        let words = self.command(port);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut shop = Ended(command.spawn().expect("java starts"));
        let mut line = String::new();
        let stdout = shop.0.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("it says when it listens");
        assert!(line.starts_with("listening on "), "the shop said {line:?}");
        shop
    }
}

/// nginx with one worker that answers a few bytes from memory.
pub fn start_nginx(folder: &Path, port: u16) -> Ended {
    let config = folder.join(format!("nginx-{port}.conf"));
    let at = |name: &str| folder.join(name).display().to_string();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {};\n", at(&format!("nginx-{kind}"))))
        .collect();
    fs::write(
        &config,
        format!(
            "worker_processes 1;\ndaemon off;\npid {};\nevents {{ worker_connections 2048; }}\nhttp {{\n{temporary}\
             access_log off;\nkeepalive_requests 100000000;\n\
             server {{ listen 127.0.0.1:{port}; location / {{ return 200 \"hello\\n\"; }} }}\n}}\n",
            at("nginx.pid")
        ),
    )
    .expect("written");
    let mut command = Command::new(which("nginx", &["/usr/sbin/nginx"]));
    command.arg("-e").arg(at("nginx.log")).arg("-c").arg(config).stdin(Stdio::null());
    let nginx = Ended(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("nginx starts"));
    wait_for(port);
    nginx
}

/// Debian's servers are not in everybody's path.
fn which(name: &str, others: &[&str]) -> PathBuf {
    let other = others.iter().map(PathBuf::from).find(|path| path.exists());
    other.unwrap_or_else(|| name.into())
}

/// A port that nobody listens on; whoever comes first has it.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

pub fn wait_for(port: u16) {
    for _ in 0..2000 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("nothing listens on port {port} after 10 s");
}

/// What a server does that is never warm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// 500 to everything.
    Fails,
    /// Takes the request and says nothing.
    Hangs,
    /// Takes the request and resets the connection.
    Resets,
    /// 200 with a body that has no end.
    Endless,
}

/// Ends with the program.
pub struct BadServer {
    pub port: u16,
    stop: Arc<AtomicBool>,
}

impl BadServer {
    pub fn start(bad: Bad) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it has one").port();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let stopped = Arc::clone(&stopped);
                thread::spawn(move || answer(&stream, bad, &stopped));
            }
        });
        Self { port, stop }
    }
}

impl Drop for BadServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn answer(mut stream: &TcpStream, bad: Bad, stop: &AtomicBool) {
    let _ = stream.set_nodelay(true);
    let mut request = [0; 4096];
    // A request of the benchmark has no body and fits in one packet.
    while matches!(stream.read(&mut request), Ok(read) if read > 0) {
        let done = match bad {
            Bad::Fails => {
                stream.write_all(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 5\r\n\r\noops\n").is_err()
            }
            Bad::Hangs => {
                while !stop.load(Ordering::Relaxed) && !is_closed(stream) {
                    thread::sleep(Duration::from_millis(50));
                }
                true
            }
            Bad::Resets => {
                // Closing with the lingering time at nothing sends a reset (socket(7)).
                let _ = rustix::net::sockopt::set_socket_linger(stream.as_fd(), Some(Duration::ZERO));
                true
            }
            Bad::Endless => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                while stream.write_all(b"4\r\nmore\r\n").is_ok() {
                    thread::sleep(Duration::from_millis(1));
                }
                true
            }
        };
        if done {
            return;
        }
    }
}

fn is_closed(stream: &TcpStream) -> bool {
    let _ = stream.set_read_timeout(Some(Duration::from_millis(1)));
    matches!(stream.peek(&mut [0]), Ok(0))
}

/// A child that is stopped in order when the benchmark is done with it.
pub struct Ended(pub Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // SAFETY: the pid is our child's, which has not been waited for yet.
        unsafe { libc::kill(self.0.id().cast_signed(), libc::SIGTERM) };
        let _ = self.0.wait();
    }
}
