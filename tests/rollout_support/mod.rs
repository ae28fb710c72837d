//! A rollout from outside: nginx with the real binary, and a router that learns of the pod's removal late. It opens one
//! connection for each request, goes on until its time has come, and notes what became of every request.
//!
//! Each case is a process of its own in a network namespace of its own, and its pod has another: the kernel's counters are a
//! whole namespace's, and what users leave behind on their side must not be seen on the pod's. Between them is a cable. The
//! cases of a test run side by side, for most of their time is waiting.

use std::{
    env, fmt,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixListener},
    time::{sleep, sleep_until, timeout},
};

use crate::{
    drain_load::{again_isolated, nginx, raise_loopback},
    server_support::{find_program, not_run},
    support::{Agent, PATIENCE, Place, kubelet, send, until},
};

const CASE: &str = "BOATHOOK_TEST_CASE";
/// Large enough to be seen cut.
const BODY: usize = 20_000;

pub const fn ms(number: u64) -> Duration {
    Duration::from_millis(number)
}

pub const fn s(number: u64) -> Duration {
    Duration::from_secs(number)
}

/// A case: what it is called, and what it does.
pub type Case = (String, Box<dyn FnOnce()>);

pub fn case(name: impl Into<String>, run: impl FnOnce() + 'static) -> Case {
    (name.into(), Box::new(run))
}

/// Runs the cases of the test with this name side by side; every failure is shown. `BOATHOOK_ONLY` names some of them.
pub fn side_by_side(test: &str, cases: Vec<Case>) {
    if let Ok(wanted) = env::var(CASE) {
        // SAFETY: unshare takes a number and touches no memory; the thread ends here.
        let may_isolate = thread::spawn(|| unsafe { libc::unshare(libc::CLONE_NEWNET) == 0 });
        if !may_isolate.join().expect("no panic") {
            return not_run("no network namespace may be made here");
        }
        raise_loopback();
        pod();
        let (_, run) = cases.into_iter().find(|(name, _)| *name == wanted).expect("the parent knows the names");
        run();
        return;
    }
    let missing = [(nginx().is_none(), "nginx"), (find_program("ip").is_none(), "ip")];
    if let Some((_, name)) = missing.iter().find(|(is_missing, _)| *is_missing) {
        not_run(&format!("{name} is not installed"));
        return;
    }
    let only = env::var("BOATHOOK_ONLY").unwrap_or_default();
    let words = ["--exact", test, "--nocapture", "--test-threads=1"].map(String::from);
    let children: Vec<(String, Child)> = cases
        .into_iter()
        .filter(|(name, _)| name.contains(&only))
        .map(|(name, _)| {
            let mut command = again_isolated(&words);
            command.env(CASE, &name).env("RUST_BACKTRACE", "0").stdout(Stdio::piped()).stderr(Stdio::piped());
            (name, command.spawn().expect("it starts again"))
        })
        .collect();
    let (begun, mut failed) = (Instant::now(), Vec::new());
    // They write little: less than a pipe holds, but for one that fails.
    for (name, child) in children {
        let output = child.wait_with_output().expect("it was not waited for");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        println!("--- {test}: {name}\n{text}");
        if !output.status.success() {
            failed.push(name);
        }
    }
    println!("{test} took {:.1?}", begun.elapsed());
    assert!(failed.is_empty(), "failed: {failed:?}");
}

/// The pod's address, and its users' and probes'.
pub const POD: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));
pub const OUTSIDE: &str = "10.77.0.1";
pub const ELSEWHERE: &str = "10.77.0.3";
/// nginx's port, the agent's, and another server's.
const PORT: u16 = 8080;
const AGENT: u16 = 4665;
const SIDECAR: u16 = 9000;

/// The pod's network namespace, made when it is first asked for.
fn pod() -> &'static OwnedFd {
    static POD_NAMESPACE: OnceLock<OwnedFd> = OnceLock::new();
    POD_NAMESPACE.get_or_init(|| {
        let ip = |words: &str| {
            let output = Command::new(find_program("ip").expect("it was there"))
                .args(words.split(' '))
                .output()
                .expect("a program");
            assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
        };
        let (tell, told) = std::sync::mpsc::channel();
        let (go, goes) = std::sync::mpsc::channel::<()>();
        // A namespace of this thread alone; what it starts is in there, too.
        let thread = thread::spawn(move || {
            // SAFETY: unshare takes a number and touches no memory.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "{}", std::io::Error::last_os_error());
            raise_loopback();
            tell.send(rustix::thread::gettid().as_raw_nonzero()).expect("it listens");
            goes.recv().expect("it is told");
            ip(&format!("address add {POD}/24 dev pod"));
            ip("link set pod up");
            OwnedFd::from(std::fs::File::open("/proc/thread-self/ns/net").expect("/proc is there"))
        });
        let id = told.recv().expect("it has its namespace");
        ip(&format!("link add outside type veth peer name pod netns {id}"));
        ip(&format!("address add {OUTSIDE}/24 dev outside"));
        ip(&format!("address add {ELSEWHERE}/24 dev outside"));
        ip("link set outside up");
        go.send(()).expect("it listens");
        thread.join().expect("it has a cable")
    })
}

/// Moves this thread into the pod.
fn enter_pod() {
    let kind = rustix::thread::LinkNameSpaceType::Network;
    rustix::thread::move_into_link_name_space(pod().as_fd(), Some(kind)).expect("it is ours");
}

/// Lets a command be started in the pod.
fn within_pod(command: &mut Command) {
    let pod = pod().as_raw_fd();
    // SAFETY: setns is a plain system call, safe between fork and exec; the descriptor stays open.
    unsafe {
        command.pre_exec(move || match libc::setns(pod, libc::CLONE_NEWNET) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

/// Who starts the pre-stop, and who stops nginx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `boathook run` gets SIGTERM.
    Term,
    /// `boathook run`, its `/shutdown` as the kubelet calls it, and then SIGTERM.
    Http,
    /// No agent: `boathook shutdown`, and then SIGTERM to nginx.
    Exec,
}

/// How a boathook is started.
pub struct Setup {
    pub way: Way,
    /// Keys of the drain beside its ports.
    pub drain: &'static str,
    /// Keys of `[app]` beside its ports.
    pub app: &'static str,
    /// More of the configuration; `@port` stands for nginx's.
    pub more: &'static str,
    /// The drain's limit.
    pub timeout: &'static str,
    /// The kernel refuses sock_diag with this number.
    pub refused: Option<i32>,
}

impl Default for Setup {
    fn default() -> Self {
        Self { way: Way::Term, drain: "settle = '5s'", app: "", more: "", timeout: "14s", refused: None }
    }
}

/// nginx and its boathook, at work.
pub struct Site {
    pub agent: Agent,
    pub address: SocketAddr,
    way: Way,
}

/// How a pod went.
#[derive(Debug)]
pub struct End {
    /// From the hook's start until nginx and boathook were gone.
    pub took: Duration,
    /// What the drain said at its end.
    pub text: String,
    /// Whether it succeeded.
    pub succeeded: bool,
}

impl Setup {
    pub fn start(self) -> Site {
        let address = SocketAddr::new(POD, PORT);
        let config = format!(
            "grace-period = '30s'\nstop-reserve = '2s'\n[server]\nlisten = '{POD}:{AGENT}'\n\
             allow-from = ['{OUTSIDE}']\n[app]\nports = [{PORT}]\n{}\n[[pre-stop.step]]\ntimeout = '{}'\n[pre-stop.step.drain]\n{}\n{}\n",
            self.app,
            self.timeout,
            self.drain,
            self.more.replace("@port", &PORT.to_string()),
        );
        let place = Place::with(&config);
        let backend = serve_backend(place.folder());
        let words = nginx_words(place.folder(), &backend);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut agent = match self.way {
            Way::Exec => start_alone(place, &words),
            _ => place.run_refused(&words, self.refused),
        };
        agent.wait_for("nginx listens", |_| std::net::TcpStream::connect(address).ok());
        Site { agent, address, way: self.way }
    }
}

impl Place {
    /// `boathook run` where the kernel refuses sock_diag.
    fn run_refused(self, words: &[&str], refused: Option<i32>) -> Agent {
        let all = [&["run", "--"], words].concat();
        let mut command = self.command(&all);
        within_pod(&mut command);
        if let Some(number) = refused {
            refuse_sock_diag(&mut command, number);
        }
        self.start_command(command)
    }
}

/// nginx itself in the agent's place.
fn start_alone(place: Place, words: &[&str]) -> Agent {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    place.dress(&mut command);
    within_pod(&mut command);
    place.start_command(command)
}

impl Site {
    /// What asks the agent for readiness so often, each time on a connection of its own, as the kubelet does.
    pub fn probe(&mut self, every: Duration) -> Noise {
        let address = self.agent.address();
        Noise::every(every, move || {
            let _ = kubelet::try_request(address, "GET", "/ready", "");
        })
    }

    /// Begins the stop. What `end` gives comes when it is over.
    pub fn stop(&mut self) -> Stop {
        let begun = Instant::now();
        let caller = match self.way {
            Way::Term => {
                self.agent.signal(libc::SIGTERM);
                None
            }
            Way::Http => {
                let (address, pid) = (self.agent.address(), self.agent.pid());
                Some(thread::spawn(move || {
                    let answer = kubelet::request(address, "GET", "/shutdown", "");
                    send(pid, libc::SIGTERM);
                    answer.body
                }))
            }
            Way::Exec => {
                let (mut command, pid) = (self.agent.place.command(&["shutdown"]), self.agent.pid());
                within_pod(&mut command);
                let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
                Some(thread::spawn(move || {
                    let output = output.wait_with_output().expect("ours");
                    send(pid, libc::SIGTERM);
                    String::from_utf8_lossy(&output.stderr).into_owned()
                }))
            }
        };
        Stop { begun, caller }
    }

    /// Waits until all are gone.
    pub fn end(&mut self, stop: Stop) -> End {
        self.agent.end();
        let took = stop.begun.elapsed();
        let said = stop.caller.map(|caller| caller.join().expect("it is answered")).unwrap_or_default();
        let log = if self.way == Way::Exec { said } else { self.agent.log() };
        let line = log.lines().find(|line| line.contains("step ended") && line.contains("step=\"drain\""));
        let line = line.unwrap_or_else(|| panic!("no drain in: {log}"));
        let text = line.split_once("reason=").map_or(line, |(_, reason)| reason).trim_matches('"').to_owned();
        End { took, text, succeeded: line.contains("outcome=\"succeeded\"") }
    }
}

/// A stop under way.
pub struct Stop {
    pub begun: Instant,
    caller: Option<JoinHandle<String>>,
}

/// Something that goes on until it is dropped.
pub struct Noise {
    is_over: Arc<AtomicBool>,
    pub count: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Noise {
    /// Does something so often, one after the other.
    pub fn every(every: Duration, mut act: impl FnMut() + Send + 'static) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicUsize::new(0));
        let (over, done) = (Arc::clone(&is_over), Arc::clone(&count));
        let thread = thread::spawn(move || {
            let mut next = Instant::now();
            while !over.load(Relaxed) {
                act();
                done.fetch_add(1, Relaxed);
                // What was missed is not made up for: it would be a burst.
                next = (next + every).max(Instant::now());
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        });
        Self { is_over, count, thread: Some(thread) }
    }
}

impl Drop for Noise {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// When requests come. Times count from the router's start.
#[derive(Clone, Debug)]
pub enum Arrivals {
    Every(Duration),
    /// So many a second, at random.
    Poisson(f64),
    /// So many at once every so often.
    Bursts(u32, Duration),
    /// So many routers (not a multiple of 7), each with a request every so often. Told of the removal they stop one after
    /// the other, the first at once and the last when all is over: half of them in the first fifth of that time, all but
    /// some few in the first half.
    Thinning(u32, Duration),
}

/// What became of a request.
#[derive(Clone, Debug)]
pub struct Request {
    pub began: Instant,
    /// When its answer was whole, or why it was dropped.
    pub ended: Result<Instant, String>,
}

type Requests = Arc<Mutex<Vec<Request>>>;

/// The router: one connection for each request.
pub struct Router {
    pub started: Instant,
    state: Arc<Mutex<State>>,
    thread: JoinHandle<()>,
    requests: Requests,
}

#[derive(Default)]
struct State {
    /// When it was told, and when it stops sending.
    removal: Option<(Instant, Instant)>,
}

impl Router {
    /// Begins to send requests for `/`.
    pub fn start(address: SocketAddr, arrivals: Arrivals) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let requests = Requests::default();
        let started = Instant::now();
        let (its_state, its_requests) = (Arc::clone(&state), Arc::clone(&requests));
        let thread = on_a_thread(async move {
            route(address, arrivals, started, &its_state, &its_requests).await;
        });
        Self { started, state, thread, requests }
    }

    /// The pod is removed at this moment, and it hears of it so much later.
    pub fn remove(&self, stop: &Stop, late: Duration) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.removal = Some((stop.begun, stop.begun + late));
    }

    /// It has no more users.
    pub fn stop(&mut self) {
        let now = Instant::now();
        self.state.lock().unwrap_or_else(PoisonError::into_inner).removal = Some((now, now));
    }

    /// All its requests, when they are over.
    pub fn finish(self, begun: Instant) -> Tally {
        self.thread.join().expect("a router");
        tally(&self.requests, begun)
    }
}

/// One request more, such as a slow one, on a thread of its own.
pub struct Single {
    thread: JoinHandle<Request>,
}

impl Single {
    /// Asks for an answer that takes so long.
    pub fn slow(address: SocketAddr, takes: Duration, keep: bool) -> Self {
        let thread = thread::spawn(move || {
            let requests = Requests::default();
            let list = Arc::clone(&requests);
            on_a_thread(async move { one(address, takes, keep, &list).await }).join().expect("a client");
            requests.lock().expect("nobody else has it").remove(0)
        });
        Self { thread }
    }

    pub fn finish(self) -> Request {
        self.thread.join().expect("a client")
    }
}

/// A client that keeps its connection and asks on it again and again until the server closes it or it is dropped.
pub struct Pinned {
    noise: Noise,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Pinned {
    /// Asks so often for an answer that takes so long.
    pub fn start(address: SocketAddr, every: Duration, takes: Duration) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let its_seen = Arc::clone(&seen);
        let mut stream = std::net::TcpStream::connect(address).expect("it listens");
        let (mut is_open, request) = (true, format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", path_of(takes)));
        let noise = Noise::every(every, move || {
            if !is_open {
                return;
            }
            match ask_kept(&mut stream, &request) {
                Ok(stays_open) => is_open = stays_open,
                // Closed while its request was on the way: every client of kept connections knows this race and asks again.
                Err(error) if error == "Dropped" => is_open = false,
                Err(error) => {
                    is_open = false;
                    its_seen.lock().unwrap_or_else(PoisonError::into_inner).push(error);
                }
            }
        });
        Self { noise, seen }
    }

    /// How many answers came whole, and what went wrong.
    pub fn finish(self) -> (usize, Vec<String>) {
        let count = self.noise.count.load(Relaxed);
        drop(self.noise);
        (count, std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// One request on a kept connection; whether the server leaves it open.
fn ask_kept(stream: &mut std::net::TcpStream, request: &str) -> Result<bool, String> {
    // What the server closed while it was idle is no request lost: a client sees it before it asks, or tries again.
    let mut byte = [0];
    stream.set_nonblocking(true).expect("a socket");
    let is_closed = matches!(stream.peek(&mut byte), Ok(0));
    stream.set_nonblocking(false).expect("a socket");
    if is_closed {
        return Ok(false);
    }
    stream.write_all(request.as_bytes()).map_err(|error| format!("not sent: {error}"))?;
    match kubelet::read_answer(stream) {
        Ok(answer) if answer.status == 200 => Ok(!answer.head.to_ascii_lowercase().contains("\r\nconnection: close")),
        Ok(answer) => Err(format!("status {}", answer.status)),
        Err(error) => Err(format!("{error:?}")),
    }
}

/// What the router saw.
pub struct Tally {
    pub requests: usize,
    /// Begun after the hook's start.
    pub after: usize,
    pub dropped: Vec<String>,
    /// The last request, after the hook's start.
    pub last: Duration,
    pub longest: Duration,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, after, dropped, last, longest } = self;
        write!(f, "{requests} requests, {after} after the hook's start, the last {last:.2?} after it, ")?;
        write!(f, "the longest took {longest:.2?}, {} dropped: {}", dropped.len(), dropped.join("; "))
    }
}

fn tally(requests: &Requests, begun: Instant) -> Tally {
    let requests = requests.lock().unwrap_or_else(PoisonError::into_inner);
    let since = |at: Instant| at.saturating_duration_since(begun);
    let took = |request: &Request| request.ended.as_ref().ok().map(|at| *at - request.began);
    Tally {
        requests: requests.len(),
        after: requests.iter().filter(|request| request.began >= begun).count(),
        dropped: requests
            .iter()
            .filter_map(|request| {
                let why = request.ended.as_ref().err()?;
                Some(format!("at {:.2?} {why}", since(request.began)))
            })
            .collect(),
        last: requests.iter().map(|request| since(request.began)).max().unwrap_or_default(),
        longest: requests.iter().filter_map(took).max().unwrap_or_default(),
    }
}

/// Runs it on a thread with a runtime of its own, so that nothing that a test waits for makes it late.
pub fn on_a_thread(work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work);
    })
}

async fn route(address: SocketAddr, arrivals: Arrivals, started: Instant, state: &Mutex<State>, requests: &Requests) {
    let mut under_way = Vec::new();
    let mut next = started;
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    for round in 0_u32.. {
        // It may hear of the removal while it waits.
        while Instant::now() < next {
            sleep_until((Instant::now() + ms(20)).min(next).into()).await;
        }
        let removal = state.lock().unwrap_or_else(PoisonError::into_inner).removal;
        if removal.is_some_and(|(_, end)| Instant::now() >= end) {
            break;
        }
        let mut count = 1;
        next += match &arrivals {
            Arrivals::Every(every) => *every,
            Arrivals::Poisson(rate) => {
                // xorshift64: the same in every run.
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let even = (random >> 11) as f64 / (1_u64 << 53) as f64;
                Duration::from_secs_f64(-(1.0 - even).ln() / rate)
            }
            Arrivals::Bursts(size, every) => {
                count = *size;
                *every
            }
            Arrivals::Thinning(routers, every) => {
                let left = removal.map_or(1.0, |(begun, end)| {
                    1.0 - (begun.elapsed().as_secs_f64() / (end - begun).as_secs_f64()).min(1.0)
                });
                let stopped = f64::from(*routers) * (1.0 - left.powi(3));
                // They take turns, and together they are even. Who is next to stop comes after some others.
                count = u32::from(f64::from(round * 7 % routers) >= stopped.floor());
                *every / *routers
            }
        };
        for _ in 0..count {
            let requests = Arc::clone(requests);
            under_way.push(tokio::spawn(async move {
                one(address, Duration::ZERO, false, &requests).await;
            }));
        }
    }
    for request in under_way {
        request.await.expect("no panic");
    }
}

/// One request on a connection of its own.
async fn one(address: SocketAddr, takes: Duration, keep: bool, requests: &Requests) {
    let index = {
        let mut requests = requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.push(Request { began: Instant::now(), ended: Err("not ended".into()) });
        requests.len() - 1
    };
    let ended = timeout(PATIENCE, ask(address, takes, keep)).await;
    let (stream, ended) = match ended.unwrap_or_else(|_| Err("no answer".into())) {
        Ok(stream) => (Some(stream).filter(|_| keep), Ok(Instant::now())),
        Err(why) => (None, Err(why)),
    };
    requests.lock().unwrap_or_else(PoisonError::into_inner)[index].ended = ended;
    // One that may keep its connection leaves it open and silent, as pools do.
    if let Some(mut stream) = stream {
        let _ = stream.read(&mut [0]).await;
    }
}

/// What is answered after so long.
fn path_of(takes: Duration) -> String {
    if takes.is_zero() { "/".into() } else { format!("/slow/{}", takes.as_millis()) }
}

async fn ask(address: SocketAddr, takes: Duration, keep: bool) -> Result<TcpStream, String> {
    let mut stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let path = path_of(takes);
    let connection = if keep { "keep-alive" } else { "close" };
    let text = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\n\r\n");
    stream.write_all(text.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    loop {
        if let Some(at) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&answer[..at]);
            if !head.starts_with("HTTP/1.1 200 ") {
                return Err(head.lines().next().unwrap_or_default().into());
            }
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse::<usize>().ok());
            if answer.len() >= at + 4 + length.expect("nginx and the backend know it") {
                return Ok(stream);
            }
        }
        match stream.read_buf(&mut answer).await {
            Ok(0) => return Err(format!("closed after {} bytes", answer.len())),
            Ok(_) => {}
            Err(error) => return Err(format!("{error} after {} bytes", answer.len())),
        }
    }
}

/// Waits until a moment, which may have passed.
pub fn wait_until(moment: Instant) {
    thread::sleep(moment.saturating_duration_since(Instant::now()));
}

/// Answers `/slow/N` after N milliseconds, on a Unix socket, which no counter of connections knows. Gives its place for
/// nginx's configuration.
fn serve_backend(folder: &Path) -> String {
    let path = folder.join("backend");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("a folder of its own");
    listener.set_nonblocking(true).expect("a socket");
    on_a_thread(async move {
        let listener = UnixListener::from_std(listener).expect("a socket");
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_late(stream));
        }
    });
    format!("http://unix:{}", path.display())
}

async fn answer_late(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin) {
    let mut request = [0; 4096];
    let length = stream.read(&mut request).await.unwrap_or(0);
    let text = String::from_utf8_lossy(&request[..length]);
    let delay = text.split(['/', ' ']).find_map(|word| word.parse().ok()).unwrap_or(0);
    sleep(ms(delay)).await;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(&[b'x'; BODY]).await;
}

fn nginx_words(folder: &Path, backend: &str) -> Vec<String> {
    let path = folder.display();
    // Its workers may go where the test's folder is.
    let user = if boathook_is_root() { "user root;" } else { "" };
    let config = format!(
        "daemon off; {user} worker_processes 1; pid {path}/pid; error_log {path}/log;
         events {{}}
         http {{ access_log off; client_body_temp_path {path}/1; proxy_temp_path {path}/2;
                 fastcgi_temp_path {path}/3; uwsgi_temp_path {path}/4; scgi_temp_path {path}/5;
                 server {{ listen {PORT}; keepalive_timeout 60s; keepalive_requests 1000000;
                   location / {{ return 200 'quick\\n'; }}
                   location /slow {{ proxy_pass {backend}; }} }} }}"
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, config).expect("room");
    [nginx().expect("nginx is installed").to_owned(), "-p".into(), path.to_string(), "-c".into()]
        .into_iter()
        .chain([file.display().to_string()])
        .collect()
}

fn boathook_is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Another server of the pod: answers every connection with a byte and closes it, or waits until its client does.
pub fn sidecar(closes: bool) {
    let (tell, told) = std::sync::mpsc::channel();
    thread::spawn(move || {
        enter_pod();
        let listener = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, SIDECAR)).expect("a port of its own");
        tell.send(()).expect("it waits");
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let _ = stream.write_all(b"x");
            if !closes {
                let _ = stream.read(&mut [0]);
            }
        }
    });
    told.recv().expect("it listens");
}

/// Who connects to the sidecar.
#[derive(Clone, Copy, Debug)]
pub enum Side {
    Pod,
    Outside,
}

/// Connects to the sidecar so often and reads its byte; where the server closes, until it has.
pub fn knock(from: Side, closes: bool, every: Duration) -> Noise {
    sidecar(closes);
    let mut is_there = false;
    Noise::every(every, move || {
        let address = match from {
            Side::Outside => SocketAddr::new(POD, SIDECAR),
            Side::Pod => {
                if !is_there {
                    enter_pod();
                    is_there = true;
                }
                SocketAddr::new(Ipv4Addr::LOCALHOST.into(), SIDECAR)
            }
        };
        let mut stream = std::net::TcpStream::connect(address).expect("it listens");
        let _ = stream.read(&mut [0]);
        if closes {
            let _ = stream.read(&mut [0]);
        }
    })
}

/// Asks nginx so often from another address than the users', as the kubelet's checks do: the server closes. Of a short
/// connection that its client has closed nothing is left in the pod, and nobody can tell whose it was.
pub fn ask_from_elsewhere(address: SocketAddr, every: Duration) -> Noise {
    Noise::every(every, move || {
        let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None);
        let socket = socket.expect("a socket");
        let source = SocketAddr::new(ELSEWHERE.parse().expect("an address"), 0);
        rustix::net::bind(&socket, &source).expect("it is ours");
        if rustix::net::connect(&socket, &address).is_ok() {
            let _ = rustix::io::write(&socket, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            let mut answer = [0_u8; 1024];
            while rustix::io::read(&socket, &mut answer).is_ok_and(|length| length > 0) {}
        }
    })
}

/// Lets the kernel refuse netlink's sock_diag to the command, and to what it starts, with this error.
pub fn refuse_sock_diag(command: &mut Command, number: i32) {
    // The program of the filter, a classic BPF as in Documentation/userspace-api/seccomp_filter.rst.
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IS: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    // struct seccomp_data: the call's number, the machine, the place of the call, six arguments of 64 bits. Of the
    // arguments the lower half is looked at, which is first on both machines.
    const CALL: u32 = 0;
    const FAMILY: u32 = 16;
    const PROTOCOL: u32 = 32;
    const NETLINK_SOCK_DIAG: u32 = 4;
    let line = |code, yes, no, k| libc::sock_filter { code, jt: yes, jf: no, k };
    let refuse = libc::SECCOMP_RET_ERRNO | number.cast_unsigned();
    let program = [
        line(LOAD, 0, 0, CALL),
        line(IS, 0, 5, u32::try_from(libc::SYS_socket).expect("a small number")),
        line(LOAD, 0, 0, FAMILY),
        line(IS, 0, 3, libc::AF_NETLINK.cast_unsigned()),
        line(LOAD, 0, 0, PROTOCOL),
        line(IS, 0, 1, NETLINK_SOCK_DIAG),
        line(RETURN, 0, 0, refuse),
        line(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    // SAFETY: prctl is a plain system call, safe between fork and exec; the program outlives the call.
    unsafe {
        command.pre_exec(move || {
            let mut program = program;
            let program =
                libc::sock_fprog { len: u16::try_from(program.len()).unwrap_or(0), filter: program.as_mut_ptr() };
            if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) != 0
            {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

/// Until the agent has done what it begins with.
pub fn wait_ready(agent: &mut Agent) {
    let address = agent.address();
    until("ready", || kubelet::try_request(address, "GET", "/ready", "").ok().filter(|answer| answer.status == 200));
}
