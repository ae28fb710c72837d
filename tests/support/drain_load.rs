//! nginx under load, drained by the real binary and stopped at once: who was cut? For the drain's tests and its
//! bench. Everything is on loopback, in a network namespace of its own where one may be made.

use std::{
    cell::RefCell,
    env,
    io::{self, Read},
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    rc::Rc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{LocalSet, spawn_local},
    time::{Instant, sleep, sleep_until, timeout},
};

const fn ms(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// New connections come for so long before the hook…
const LOAD_BEFORE: Duration = ms(200);
/// …and for so long after, until routing has moved away.
const ROUTING_DELAY: Duration = ms(250);
/// One new connection each; every third asks for a slow answer.
const ARRIVAL_EVERY: Duration = ms(8);
const KEEP_ALIVE_CLIENTS: u64 = 8;
/// Large enough to be seen cut.
const BODY: usize = 20_000;
/// Longer than anything here takes when all is well.
const PATIENCE: Duration = Duration::from_secs(25);

/// The binary under test: the one that ships, where it has been built, or the one that cargo built.
pub fn boathook() -> PathBuf {
    env::var_os("BOATHOOK_DIST")
        .filter(|path| !path.is_empty())
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_boathook")), PathBuf::from)
}

pub fn nginx() -> Option<&'static str> {
    ["/usr/sbin/nginx", "/usr/bin/nginx"].into_iter().find(|path| Path::new(path).exists())
}

/// The same program with these words, in a network namespace of its own.
pub fn again_isolated(words: &[String]) -> Command {
    let mut command = Command::new(env::current_exe().expect("a program has a path"));
    command.args(words);
    // SAFETY: unshare and prctl are plain system calls, safe between fork and exec.
    unsafe {
        command.pre_exec(|| {
            if libc::unshare(libc::CLONE_NEWNET) != 0 {
                libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET);
            }
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    command
}

pub fn raise_loopback() {
    // SAFETY: the request is a zeroed ifreq with a terminated name; the descriptor is closed.
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

/// How the drain is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// nginx under `boathook run`, which gets SIGTERM, drains, and passes it on.
    Run,
    /// `boathook step drain`; nginx gets SIGTERM when it has ended.
    Step,
}

/// What the clients saw.
#[derive(Debug, Default)]
pub struct Outcome {
    pub requests: usize,
    /// Under way when no more new connections came.
    pub in_flight_then: usize,
    /// Begun before the hook's answer and not answered whole before it.
    pub in_flight_at_the_end: usize,
    /// Not answered whole at all.
    pub cut: usize,
    /// From the hook's start to its answer.
    pub took: Duration,
    /// From the last answer to the hook's.
    pub late: Duration,
    /// What boathook wrote.
    pub log: String,
}

#[derive(Clone, Copy)]
struct Request {
    began: Instant,
    answered: Option<Instant>,
}

type Requests = Rc<RefCell<Vec<Request>>>;

/// One stop of nginx under load, with these keys for the drain besides its ports.
pub fn stop_under_load(way: Way, keys: &[(&str, &str)]) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let run = async { timeout(PATIENCE, run(way, keys)).await.expect("the drain ends in time") };
    LocalSet::new().block_on(&runtime, run)
}

async fn run(way: Way, keys: &[(&str, &str)]) -> Outcome {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let backend = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (address, command) = nginx_command(folder.path(), backend.local_addr().expect("bound")).await;
    spawn_local(serve_backend(backend));
    let mut main = match way {
        Way::Step => start(command),
        Way::Run => start(under_boathook(folder.path(), &command, address.port(), keys)),
    };
    for attempt in 0.. {
        if TcpStream::connect(address).await.is_ok() {
            break;
        }
        assert!(attempt < 500, "nginx does not listen: {}", finish(&mut main).await);
        sleep(ms(10)).await;
    }

    let requests = Requests::default();
    let hook = Instant::now() + LOAD_BEFORE;
    let end_of_load = hook + ROUTING_DELAY;
    let mut clients = vec![spawn_local(arrive(address, end_of_load, Rc::clone(&requests)))];
    for number in 0..KEEP_ALIVE_CLIENTS {
        clients.push(spawn_local(keep_alive(address, number, end_of_load, Rc::clone(&requests))));
    }
    sleep_until(hook).await;
    let began = Instant::now();
    let count = Rc::clone(&requests);
    let in_flight_then = spawn_local(async move {
        sleep_until(end_of_load).await;
        count.borrow().iter().filter(|request| request.answered.is_none()).count()
    });
    let (ended, mut log) = match way {
        Way::Run => {
            signal(&main, libc::SIGTERM);
            wait(&mut main).await;
            (Instant::now(), String::new())
        }
        Way::Step => {
            let mut step = Command::new(boathook());
            step.args(["step", "drain", "--port", &address.port().to_string()]);
            for (key, value) in keys {
                step.arg(format!("--{key}")).arg(value);
            }
            let mut step = start(step);
            wait(&mut step).await;
            let ended = Instant::now();
            signal(&main, libc::SIGTERM);
            (ended, finish(&mut step).await)
        }
    };
    log += &finish(&mut main).await;
    let in_flight_then = in_flight_then.await.expect("no panic");
    for client in clients {
        client.await.expect("no panic");
    }
    let requests = requests.borrow();
    let last = requests.iter().filter_map(|request| request.answered).max().expect("there was an answer");
    let is_in_flight = |request: &&Request| request.began < ended && request.answered.is_none_or(|at| at > ended);
    Outcome {
        requests: requests.len(),
        in_flight_then,
        in_flight_at_the_end: requests.iter().filter(is_in_flight).count(),
        cut: requests.iter().filter(|request| request.answered.is_none()).count(),
        took: ended - began,
        late: ended.saturating_duration_since(last),
        log,
    }
}

async fn nginx_command(folder: &Path, backend: SocketAddr) -> (SocketAddr, Command) {
    let path = folder.display();
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = free.local_addr().expect("bound");
    let config = format!(
        "daemon off; worker_processes 1; pid {path}/pid; error_log {path}/log;
         events {{}}
         http {{ access_log off; client_body_temp_path {path}/1; proxy_temp_path {path}/2;
                 fastcgi_temp_path {path}/3; uwsgi_temp_path {path}/4; scgi_temp_path {path}/5;
                 server {{ listen {address}; keepalive_timeout 60s;
                   location / {{ return 200 'quick\\n'; }}
                   location /slow {{ proxy_pass http://{backend}; }} }} }}"
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, config).expect("room");
    let mut command = Command::new(nginx().expect("nginx is installed"));
    command.arg("-p").arg(folder).arg("-c").arg(&file);
    (address, command)
}

fn under_boathook(folder: &Path, inner: &Command, port: u16, keys: &[(&str, &str)]) -> Command {
    let keys = keys.iter().fold(String::new(), |all, (key, value)| format!("{all}, {key} = '{value}'"));
    let config = format!(
        "[server]\nlisten = '127.0.0.1:0'\n[app]\nports = [{port}]\n\
         [[pre-stop.step]]\ndrain = {{ ports = [{port}]{keys} }}\n"
    );
    let file = folder.join("boathook.toml");
    std::fs::write(&file, config).expect("room");
    let mut command = Command::new(boathook());
    command.args(["run", "--"]).arg(inner.get_program()).args(inner.get_args());
    command.env("BOATHOOK_CONFIG", file);
    command.env("BOATHOOK_SOCKET", format!("drain-load-{}-{port}", std::process::id()));
    command
}

fn start(mut command: Command) -> Child {
    // SAFETY: prctl is a plain system call, safe between fork and exec: it ends with its test.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            Ok(())
        });
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn signal(child: &Child, number: i32) {
    // SAFETY: the child has not been waited for, so the number is still its own.
    unsafe { libc::kill(child.id().cast_signed(), number) };
}

async fn wait(child: &mut Child) {
    while let Ok(None) = child.try_wait() {
        sleep(ms(1)).await;
    }
}

/// Waits, and gives what it wrote, which is little.
async fn finish(child: &mut Child) -> String {
    wait(child).await;
    let mut text = String::new();
    let pipes = [
        child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read>),
        child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read>),
    ];
    for mut pipe in pipes.into_iter().flatten() {
        let _ = pipe.read_to_string(&mut text);
    }
    text
}

/// Answers `/slow/N` after N milliseconds.
async fn serve_backend(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        spawn_local(async move {
            let mut request = [0; 4096];
            let length = stream.read(&mut request).await.unwrap_or(0);
            let text = String::from_utf8_lossy(&request[..length]);
            let delay = text.split(['/', ' ']).find_map(|word| word.parse().ok()).unwrap_or(0);
            sleep(ms(delay)).await;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(&[b'x'; BODY]).await;
        });
    }
}

async fn arrive(address: SocketAddr, end: Instant, requests: Requests) {
    let mut clients = Vec::new();
    for number in 0_u64.. {
        if Instant::now() >= end {
            break;
        }
        let path = match number % 3 {
            // 30 to 730 ms, spread.
            0 => format!("/slow/{}", 30 + number * 97 % 700),
            _ => "/".into(),
        };
        let requests = Rc::clone(&requests);
        clients.push(spawn_local(async move {
            let close = number % 2 == 0;
            if let Ok(mut stream) = TcpStream::connect(address).await {
                ask(&mut stream, &path, close, &requests).await;
                // Those that may keep the connection leave it open and silent, as pools do.
                if !close {
                    let _ = stream.read(&mut [0]).await;
                }
            } else {
                requests.borrow_mut().push(Request { began: Instant::now(), answered: None });
            }
        }));
        sleep(ARRIVAL_EVERY).await;
    }
    for client in clients {
        client.await.expect("no panic");
    }
}

async fn keep_alive(address: SocketAddr, number: u64, end: Instant, requests: Requests) {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    for round in number.. {
        if Instant::now() >= end {
            break;
        }
        let path = if round % 5 == 0 { format!("/slow/{}", 100 + number * 37) } else { "/".into() };
        if !ask(&mut stream, &path, false, &requests).await {
            return;
        }
        sleep(ms(10 + round * 13 % 40)).await;
    }
    let _ = stream.read(&mut [0]).await;
}

/// Whether the answer came whole.
async fn ask(stream: &mut TcpStream, path: &str, close: bool, requests: &Requests) -> bool {
    let index = requests.borrow().len();
    requests.borrow_mut().push(Request { began: Instant::now(), answered: None });
    let connection = if close { "close" } else { "keep-alive" };
    let text = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\n\r\n");
    let is_whole = exchange(stream, text.as_bytes()).await.is_ok();
    if is_whole {
        requests.borrow_mut()[index].answered = Some(Instant::now());
    }
    is_whole
}

async fn exchange(stream: &mut TcpStream, request: &[u8]) -> io::Result<()> {
    stream.write_all(request).await?;
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse::<usize>().ok());
            if head.starts_with("HTTP/1.1 200 ") && answer.len() >= head.len() + 4 + length.unwrap_or(usize::MAX / 2) {
                return Ok(());
            }
        }
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
