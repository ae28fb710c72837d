//! No hook overruns its deadline by more than 100 ms, whatever hangs; the essential steps still run, and nothing is left.

mod life_support;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::net::UnixListener,
    process::{Child, Command, Stdio},
    sync::{Mutex, OnceLock, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use life_support::{Agent, LONG, Start, call, is_root, noise, not_run, poll};

/// The bar of this file.
const OVERRUN: Duration = Duration::from_millis(100);

/// Of `grace-period = "2200ms"` 500 ms are the main process's and 200 ms (a tenth, less than the second that a longer one
/// has) are for the kubelet's rounding.
const DEADLINE: Duration = Duration::from_millis(1500);
/// What the step after the fault has reserved: its timeout.
const TOUCH: Duration = Duration::from_millis(200);
/// What the last step has reserved, which has no timeout: a quarter of the deadline.
const LAST: Duration = Duration::from_millis(375);

/// Cases that run at the same time: twice the processors of a small machine, as they mostly wait.
const AT_ONCE: usize = 4;

/// After this nothing of a step may be left: a process that was killed takes a moment to go.
const GONE: Duration = Duration::from_millis(500);

/// Tests of this file take turns: what they measure is time.
static TURN: Mutex<()> = Mutex::new(());

/// What a faulty step is expected to come to. Anything else, and the fault is none.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Comes {
    /// It does not end by itself and is cut.
    Cut,
    /// It fails by itself, with this in its reason.
    Fails(&'static str),
    /// Its condition is what hangs, so nobody knows whether the step should run.
    CannotBeTold,
    /// It ends well; what it leaves behind is the fault.
    Ends,
}

/// One fault.
struct Fault {
    name: &'static str,
    /// The faulty step as TOML. `@FOLDER@` is the agent's own folder.
    step: String,
    comes: Comes,
    /// A shell's lines that mount what the fault needs.
    mounts: Option<(String, Option<File>)>,
    /// The log is a pipe of one page that nobody reads.
    unread_log: bool,
    /// It keeps a processor busy, so it runs alone.
    busy: bool,
}

fn fault(name: &'static str, comes: Comes, step: impl Into<String>) -> Fault {
    Fault { name, step: step.into(), comes, mounts: None, unread_log: false, busy: false }
}

impl Fault {
    fn busy(self) -> Self {
        Self { busy: true, ..self }
    }

    fn mounts(self, script: &str, stdin: Option<File>) -> Self {
        Self { mounts: Some((script.into(), stdin)), ..self }
    }
}

fn shell(script: &str) -> String {
    format!("exec = ['sh', '-c', '''{script}''']")
}

/// What a server does to those who connect.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Manner {
    SaysNothing,
    DripsHead,
    DripsBody,
    Resets,
    Redirects,
    NeverEnds,
}

/// A server of that manner on a port of its own; one serves all tests.
fn server(manner: Manner) -> u16 {
    static PORTS: Mutex<BTreeMap<Manner, u16>> = Mutex::new(BTreeMap::new());
    *PORTS.lock().unwrap_or_else(PoisonError::into_inner).entry(manner).or_insert_with(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || behave(stream, manner, port));
            }
        });
        port
    })
}

fn behave(mut stream: TcpStream, manner: Manner, port: u16) {
    let _ = stream.set_read_timeout(Some(LONG));
    let _ = stream.set_write_timeout(Some(LONG));
    let drip = |stream: &mut TcpStream, text: &[u8]| {
        text.iter().all(|byte| {
            thread::sleep(Duration::from_secs(1));
            stream.write_all(&[*byte]).is_ok()
        })
    };
    match manner {
        Manner::SaysNothing => while stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {},
        Manner::DripsHead => {
            drip(&mut stream, &b"HTTP/1.1 200 OK\r\nX-Drip: drip\r\n".repeat(2));
        }
        Manner::DripsBody => {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n");
            drip(&mut stream, &[b'x'; 30]);
        }
        Manner::Resets => {
            let _ = stream.read(&mut [0; 4096]);
            let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
        }
        Manner::Redirects => {
            let _ = stream.read(&mut [0; 4096]);
            let to = format!("http://127.0.0.1:{port}/again");
            let _ = write!(stream, "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
        }
        Manner::NeverEnds => {
            // An answer before its question is another fault, and which one it is told as depends on who is faster.
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            while stream.write_all(&[b'x'; 65536]).is_ok() {}
        }
    }
}

/// A port whose queue of connections is full: a further one gets no answer, as from an address that nobody has.
fn full_port() -> u16 {
    static HELD: OnceLock<(TcpListener, Vec<TcpStream>)> = OnceLock::new();
    let (listener, _) = HELD.get_or_init(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        // Again, with the shortest queue: one connection.
        rustix::net::listen(&listener, 0).expect("bound");
        let address = listener.local_addr().expect("bound");
        let patience = Duration::from_millis(100);
        let held = (0..8).map_while(|_| TcpStream::connect_timeout(&address, patience).ok()).collect();
        (listener, held)
    });
    let address = listener.local_addr().expect("bound");
    assert!(TcpStream::connect_timeout(&address, Duration::from_millis(50)).is_err(), "its queue is not full");
    address.port()
}

/// A Unix socket that listens and never accepts.
fn full_socket() -> String {
    static HELD: OnceLock<(UnixListener, Vec<std::os::unix::net::UnixStream>, tempfile::TempDir)> = OnceLock::new();
    let (_, _, folder) = HELD.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("full");
        let listener = UnixListener::bind(&path).expect("a socket");
        rustix::net::listen(&listener, 0).expect("bound");
        let held = vec![std::os::unix::net::UnixStream::connect(&path).expect("the queue has one place")];
        (listener, held, folder)
    });
    folder.path().join("full").display().to_string()
}

/// A listener with a connection on which the client has spoken and is owed an answer, for ever.
fn port_in_flight() -> u16 {
    static HELD: OnceLock<(u16, TcpStream, TcpStream, TcpListener)> = OnceLock::new();
    HELD.get_or_init(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let mut client = TcpStream::connect(address).expect("a connection");
        let (server, _) = listener.accept().expect("it");
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
        (address.port(), client, server, listener)
    })
    .0
}

/// A process that is stopped, so that no signal but KILL and CONT does anything to it.
struct Stopped(Child);

impl Stopped {
    fn start() -> Self {
        let child = Command::new("sleep")
            .arg("1000")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sleep");
        let pid = child.id().cast_signed();
        boathook::sys::signal::send(pid, libc::SIGSTOP).expect("it runs");
        Self(child)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where names are asked for and no answer ever comes. An address that no real server of this machine has.
const SILENT_DNS: &str = "127.0.0.77";

/// A server for names that takes questions and says nothing; none where port 53 is not to be had.
fn silent_dns() -> Option<&'static UdpSocket> {
    static HELD: OnceLock<Option<UdpSocket>> = OnceLock::new();
    HELD.get_or_init(|| UdpSocket::bind((SILENT_DNS, 53)).ok()).as_ref()
}

/// A file system whose server never answers: FUSE without one. Whoever touches it sleeps until it is killed, as with a
/// network mount that has died.
fn hung_mount() -> Option<File> {
    OpenOptions::new().read(true).write(true).open("/dev/fuse").ok()
}

/// Mounts it at `@FOLDER@/hung`. Its descriptor is the shell's stdin, and the test's own copy keeps the mount alive.
const MOUNT_HUNG: &str = "mkdir @FOLDER@/hung\n\
    mount -i -t fuse -o fd=0,rootmode=40000,user_id=0,group_id=0 hung @FOLDER@/hung";

/// Processes that fork a successor and end, so that their pids are never the ones that were just seen. Bounded: each
/// line of them ends after some thousand generations.
fn storm(lines: usize, start: &str) -> String {
    format!(
        r#"cat > @FOLDER@/storm-$$ <<'END'
next() {{ [ $1 -gt 4000 ] || {{ next $(($1+1)) & }}; }}
next 0
END
i=0; while [ $i -lt {lines} ]; do {start} sh @FOLDER@/storm-$$ & i=$((i+1)); done; sleep 1000"#
    )
}

/// All faults, without those that this machine cannot have.
fn faults(stopped: &Stopped) -> Vec<Fault> {
    use Comes::{CannotBeTold, Cut, Ends, Fails};
    let url = |manner| format!("http = 'http://127.0.0.1:{}/'", server(manner));
    let mut all = vec![
        fault("a command that ignores TERM", Cut, shell("trap \"\" TERM; while :; do sleep 1; done")),
        fault("children that ignore TERM", Cut, shell("trap \"\" TERM; (sleep 1000 & sleep 1000 & wait) & sleep 1000")),
        fault(
            "a daemon that was forked twice",
            Ends,
            shell("setsid -f sh -c \"trap : TERM; sleep 1000 & sleep 1000\""),
        ),
        fault(
            "a daemon, and its parent hangs",
            Cut,
            shell("setsid -f sh -c \"(setsid sleep 1000 &) & sleep 1000\"; trap \"\" TERM; sleep 1000"),
        ),
        fault("a child in the background keeps stdout open", Ends, shell("sleep 1000 &")),
        fault("output without end", Cut, "exec = ['yes']").busy(),
        fault("output without end, TERM ignored", Cut, shell("trap \"\" TERM; yes >&2")).busy(),
        fault("it stops itself", Cut, shell("kill -STOP $$")),
        fault("it stops itself and ignores TERM", Cut, shell("trap \"\" TERM; kill -STOP $$; sleep 1000")),
        fault(
            "large input that is never read",
            Cut,
            format!("exec = {{ command = ['sleep', '1000'], input = '{}' }}", "x".repeat(400_000)),
        ),
        fault("a fork storm in its group", Cut, shell(&storm(20, ""))).busy(),
        fault("a fork storm in sessions of its own", Cut, shell(&storm(5, "setsid"))).busy(),
        fault("a server that says nothing", Cut, url(Manner::SaysNothing)),
        fault("a server that drips its head", Cut, url(Manner::DripsHead)),
        // `http` looks at the status alone; a value must be read to the end of its body.
        fault(
            "a server that drips its body",
            Cut,
            format!(
                "wait = {{ http = {{ url = 'http://127.0.0.1:{}/', json = {{ pointer = '/a', equals = '1' }} }} }}",
                server(Manner::DripsBody)
            ),
        ),
        fault("a server that resets", Fails(""), url(Manner::Resets)),
        fault(
            "redirects in a circle",
            Fails("redirect"),
            format!("http = {{ url = 'http://127.0.0.1:{}/', follow-redirects = 10 }}", server(Manner::Redirects)),
        ),
        fault("an answer without end", Ends, url(Manner::NeverEnds)),
        fault(
            "a value in an answer without end",
            Cut,
            format!(
                "wait = {{ metric = {{ url = 'http://127.0.0.1:{}/', name = 'x', at-most = 1 }} }}",
                server(Manner::NeverEnds)
            ),
        ),
        fault(
            "a TLS port that never shakes hands",
            Cut,
            format!("http = {{ url = 'https://127.0.0.1:{}/', insecure = true }}", server(Manner::SaysNothing)),
        ),
        fault("a port with a full queue", Cut, format!("wait = {{ tcp = '127.0.0.1:{}' }}", full_port())),
        fault("http to a port with a full queue", Cut, format!("http = 'http://127.0.0.1:{}/'", full_port())),
        fault("a Unix socket that never accepts", Cut, format!("wait = {{ unix = '{}' }}", full_socket())),
        fault("a FIFO as file to write", Fails("FIFO"), "file = { write = '@FOLDER@/fifo', content = 'x' }"),
        fault("a FIFO as file to wait for", Cut, "wait = { file = '@FOLDER@/fifo', contains = 'x' }"),
        fault(
            "a FIFO as file of a condition",
            Fails("FIFO"),
            "when = { file-contains = { file = '@FOLDER@/fifo', text = 'x' } }\nsleep = '10ms'",
        ),
        fault("a FIFO as pid file", Fails("FIFO"), "signal = { signal = 'TERM', pid-file = '@FOLDER@/fifo' }"),
        fault(
            "a FIFO as body",
            Fails("regular"),
            format!(
                "http = {{ url = 'http://127.0.0.1:{}/', body-file = '@FOLDER@/fifo' }}",
                server(Manner::SaysNothing)
            ),
        ),
        fault(
            "a FIFO as token",
            Fails("regular"),
            format!(
                "http = {{ url = 'http://127.0.0.1:{}/', bearer-file = '@FOLDER@/fifo' }}",
                server(Manner::SaysNothing)
            ),
        ),
        fault(
            "signal and wait for a stopped process",
            Cut,
            format!(
                "exec = ['sh', '-c', 'echo {} > @FOLDER@/pid']\n[[pre-stop.step]]\nname = 'fault'\n\
                 signal = {{ signal = 'TERM', pid-file = '@FOLDER@/pid', wait = true }}",
                stopped.0.id()
            ),
        ),
        fault(
            "a drain whose connection never ends",
            Cut,
            format!("drain = {{ ports = [{}], settle = '100ms', quiet-min = '50ms' }}", port_in_flight()),
        ),
        fault(
            "a condition's command that hangs",
            CannotBeTold,
            "when = { command = ['sh', '-c', 'trap \"\" TERM; sleep 1000'] }\nsleep = '10ms'",
        ),
        fault(
            "a group of which all hang",
            Cut,
            format!(
                "group = [{{ exec = ['sh', '-c', 'trap \"\" TERM; sleep 1000 & sleep 1000'] }}, {{ {} }}, \
                 {{ wait = {{ tcp = '127.0.0.1:{}' }} }}, {{ sleep = '1000s' }}]",
                url(Manner::SaysNothing),
                full_port()
            ),
        ),
        fault("retries for ever", Cut, "exec = ['false']\nretries = 1000\nbackoff = '1ms'"),
        fault(
            "attempts that hang, for ever",
            Cut,
            format!("{}\nattempt-timeout = '50ms'\nretries = 1000\nbackoff = '1ms'", url(Manner::SaysNothing)),
        ),
    ];
    let mut unread = fault("a log that nobody reads", Cut, shell("while :; do echo line; sleep 0.01; done"));
    unread.unread_log = true;
    all.push(unread);
    if !is_root() {
        not_run("faults that need mounts", "only root may make them");
        return all;
    }
    let much = format!("file = {{ write = '@FOLDER@/full/x', content = '{}' }}", "x".repeat(20_000));
    let mount = "mkdir @FOLDER@/full\nmount -t tmpfs -o size=8k full @FOLDER@/full";
    all.push(fault("a full disk", Fails("space"), much).mounts(mount, None));
    if silent_dns().is_some() {
        let script =
            format!("echo nameserver {SILENT_DNS} > @FOLDER@/resolv\nmount --bind @FOLDER@/resolv /etc/resolv.conf");
        for (name, step) in [
            ("names that are never answered", "wait = { dns = 'nowhere.example' }"),
            ("http to a name that is never answered", "http = 'http://nowhere.example/'"),
        ] {
            all.push(fault(name, Cut, step).mounts(&script, None));
        }
    } else {
        not_run("names that are never answered", "port 53 of 127.0.0.77 is taken");
    }
    for (name, step) in [
        ("a hung file system: file", "file = { write = '@FOLDER@/hung/x', content = 'x' }".to_owned()),
        ("a hung file system: wait", "wait = { file = '@FOLDER@/hung/x' }".into()),
        ("a hung file system: condition", "when = { file-exists = '@FOLDER@/hung/x' }\nsleep = '10ms'".into()),
        ("a hung file system: a command's folder", "exec = { command = ['true'], dir = '@FOLDER@/hung/x' }".into()),
        ("a hung file system: a command's program", "exec = ['@FOLDER@/hung/x']".into()),
        ("a hung file system: a command uses it", shell("ls @FOLDER@/hung/x")),
        ("a hung file system: pid file", "signal = { signal = 'TERM', pid-file = '@FOLDER@/hung/x' }".into()),
        (
            "a hung file system: body",
            format!(
                "http = {{ url = 'http://127.0.0.1:{}/', body-file = '@FOLDER@/hung/x' }}",
                server(Manner::SaysNothing)
            ),
        ),
    ] {
        match hung_mount() {
            Some(file) => all.push(fault(name, Cut, step).mounts(MOUNT_HUNG, Some(file))),
            None => not_run(name, "there is no FUSE here"),
        }
    }
    all
}

/// The fault, then an essential step, then the fault once more as an essential step without a timeout, which therefore
/// lasts to the deadline itself.
fn config(step: &str, grace: &str) -> String {
    format!(
        "grace-period = '{grace}'\nstop-reserve = '500ms'\n[server]\nlisten = '127.0.0.1:0'\n\
         [log]\ntermination-message = '@FOLDER@/none'\n\
         [[pre-stop.step]]\nname = 'first'\non-failure = 'continue'\n{step}\n\
         [[pre-stop.step]]\nname = 'essential'\nessential = true\ntimeout = '200ms'\nfile = {{ touch = '@FOLDER@/touched' }}\n\
         [[pre-stop.step]]\nessential = true\nname = 'last'\n{}\n",
        step.replace("name = 'fault'", "name = 'fault again'\nessential = true")
    )
}

fn start(fault: &Fault, grace: &str) -> Agent {
    let mut start = Start::new(&config(&fault.step, grace));
    if let Some((script, stdin)) = &fault.mounts {
        start = start.mounts(script, stdin.as_ref().map(|file| file.try_clone().expect("a descriptor")));
    }
    if fault.unread_log {
        start = start.unread_log(4096);
    }
    // Some are looked at when the agent starts; then it is a plain file.
    let agent = start.file("fifo", "once").start();
    if fault.step.contains("@FOLDER@/fifo") {
        fs::remove_file(agent.file("fifo")).expect("there");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let (at, kind) = (rustix::fs::CWD, rustix::fs::FileType::Fifo);
        rustix::fs::mknodat(at, agent.file("fifo"), kind, mode, 0).expect("a FIFO");
    }
    agent
}

/// What was measured of one fault.
#[derive(Debug, Default)]
struct Measured {
    /// From the request sent to the answer received, over the deadline.
    hook: Duration,
    /// The end of the first faulty step, over its limit.
    step: Duration,
    /// How late the machine was meanwhile.
    late: Duration,
    /// Until nothing was left.
    gone: Duration,
    wrong: Vec<String>,
}

/// Triggers pre-stop and holds what happens against the promise.
fn measure(agent: &Agent, comes: Comes, deadline: Duration) -> Measured {
    // Threads and buffers that stay are there after a first call.
    assert_eq!(call(agent.address(), "/live", "Connection: close\r\n").expect("alive").status, 200);
    let settled = poll(LONG, || {
        let now = life_support::descriptors(agent.pid);
        thread::sleep(Duration::from_millis(20));
        (now == life_support::descriptors(agent.pid)).then_some(now)
    });
    let before = settled.expect("nobody calls");
    let begun = Instant::now();
    let answer = match call(agent.address(), "/shutdown", "") {
        Ok(answer) => answer,
        Err(error) => {
            return Measured { wrong: vec![format!("no answer: {error}: {}", agent.log())], ..Measured::default() };
        }
    };
    let ended = Instant::now();
    let mut measured = Measured {
        hook: answer.took.saturating_sub(deadline),
        late: noise().between(begun, ended),
        ..Measured::default()
    };
    let report = answer.report();
    let of = |name: &str| report["steps"].as_array().into_iter().flatten().find(|step| step["name"] == name).cloned();
    let outcome = |name: &str| {
        let step = of(name).unwrap_or_default();
        let text = |key: &str| step[key].as_str().unwrap_or_default().to_owned();
        (text("outcome"), text("reason"))
    };
    for name in ["first", "last"] {
        let name = if of("fault").is_some() && name == "first" { "fault" } else { name };
        let name = if of("fault again").is_some() && name == "last" { "fault again" } else { name };
        let (outcome, reason) = outcome(name);
        let as_expected = match comes {
            Comes::Cut => outcome == "timed-out",
            Comes::Fails(why) => outcome == "failed" && reason.contains(why) && !reason.contains("timed out"),
            Comes::CannotBeTold => {
                outcome == "timed-out"
                    || (outcome == "failed" && reason.starts_with("its condition cannot be told: timed out"))
            }
            Comes::Ends => outcome == "succeeded",
        };
        if !as_expected {
            measured.wrong.push(format!("step {name}: {outcome}: {reason}: not {comes:?}"));
        }
    }
    if outcome("essential").0 != "succeeded" || !agent.file("touched").exists() {
        measured.wrong.push(format!("the essential step did not run: {report}"));
    }
    let started = of("essential").and_then(|step| step["started"].as_f64()).unwrap_or(f64::MAX);
    measured.step = Duration::try_from_secs_f64(started).unwrap_or(LONG).saturating_sub(deadline - TOUCH - LAST);
    for (what, overrun) in [("hook", measured.hook), ("step", measured.step)] {
        if overrun > OVERRUN + measured.late {
            measured.wrong.push(format!("{what}: {overrun:?} over, the machine was {:?} late", measured.late));
        }
    }
    let mut left = Vec::new();
    if poll(GONE, || {
        left = agent.leftovers();
        left.is_empty().then_some(())
    })
    .is_none()
    {
        measured.wrong.push(format!("left: {left:?}"));
    }
    measured.gone = ended.elapsed();
    let mut new = BTreeMap::new();
    if poll(GONE, || {
        new = life_support::descriptors(agent.pid);
        new.retain(|name, target| before.get(name) != Some(target));
        new.is_empty().then_some(())
    })
    .is_none()
    {
        measured.wrong.push(format!("open: {new:?}"));
    }
    measured
}

/// Runs all jobs, at most so many at once, and gives their results in their order.
fn side_by_side<T: Send>(jobs: Vec<Box<dyn FnOnce() -> T + Send + '_>>, at_once: usize) -> Vec<T> {
    let count = jobs.len();
    let queue = Mutex::new(jobs.into_iter().enumerate());
    let (sender, results) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..at_once {
            let sender = sender.clone();
            let queue = &queue;
            scope.spawn(move || {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((index, job)) = next else { return };
                    let _ = sender.send((index, job()));
                }
            });
        }
    });
    drop(sender);
    let mut sorted: Vec<(usize, T)> = results.iter().collect();
    sorted.sort_by_key(|(index, _)| *index);
    assert_eq!(sorted.len(), count, "every case gives a result");
    sorted.into_iter().map(|(_, result)| result).collect()
}

fn millis(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64() * 1000.0)
}

#[test]
fn every_hook_ends_in_time_whatever_hangs() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = noise();
    let stopped = Stopped::start();
    let only = std::env::var("FAULT").unwrap_or_default();
    let mut all = faults(&stopped);
    all.retain(|fault| fault.name.contains(&only));
    assert!(all.len() >= 20 || !only.is_empty(), "{} faults", all.len());
    let (busy, calm): (Vec<_>, Vec<_>) = all.into_iter().partition(|fault| fault.busy);
    let mut results = Vec::new();
    for (faults, at_once) in [(calm, AT_ONCE), (busy, 1)] {
        let names: Vec<_> = faults.iter().map(|fault| fault.name).collect();
        let jobs = faults.into_iter().map(|fault| {
            let job = move || measure(&start(&fault, "2200ms"), fault.comes, DEADLINE);
            Box::new(job) as Box<dyn FnOnce() -> Measured + Send>
        });
        results.extend(names.into_iter().zip(side_by_side(jobs.collect(), at_once)));
    }
    let mut table = format!("{:45} {:>8} {:>8} {:>8} {:>8}\n", "milliseconds", "hook", "step", "late", "gone");
    let mut wrong = String::new();
    for (name, measured) in &results {
        let [hook, step, late, gone] = [measured.hook, measured.step, measured.late, measured.gone].map(millis);
        let _ = writeln!(table, "{name:45} {hook:>8} {step:>8} {late:>8} {gone:>8}");
        for line in &measured.wrong {
            let _ = writeln!(wrong, "{name}: {line}");
        }
    }
    println!("{table}");
    assert!(wrong.is_empty(), "{table}\n{wrong}");
}

#[test]
fn what_overruns_or_is_left_is_noticed() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    // A hook with more time than it is said to have.
    let late = fault("too long", Comes::Cut, shell("trap \"\" TERM; sleep 1000"));
    let measured = measure(&start(&late, "2600ms"), late.comes, DEADLINE);
    assert!(measured.hook > OVERRUN && measured.step > OVERRUN, "{measured:?}");
    assert_eq!(measured.wrong.len(), 2, "{measured:?}");
    // A step that leaves a process on purpose.
    let leaves = fault(
        "leaves",
        Comes::Ends,
        "exec = { command = ['sh', '-c', 'exec >/dev/null 2>&1; sleep 1000 &'], leave-running = true }",
    );
    let measured = measure(&start(&leaves, "2200ms"), leaves.comes, DEADLINE);
    assert!(
        measured.wrong.iter().any(|line| line.starts_with("left: [") && line.contains("sleep 1000")),
        "{measured:?}"
    );
    // And one that keeps a descriptor of the agent open: the pipe of its output.
    let leaves =
        fault("leaves", Comes::Ends, "exec = { command = ['sh', '-c', 'sleep 1000 &'], leave-running = true }");
    let measured = measure(&start(&leaves, "2200ms"), leaves.comes, DEADLINE);
    assert!(measured.wrong.iter().any(|line| line.starts_with("open: {") && line.contains("pipe:")), "{measured:?}");
}

/// The kubelet leaves two seconds between a SIGTERM in the middle of pre-stop and its KILL.
const HURRY: Duration = Duration::from_secs(2);

#[test]
fn a_stop_signal_in_the_middle_leaves_two_seconds() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = noise();
    let stopped = Stopped::start();
    let names = [
        "a command that ignores TERM",
        "a daemon, and its parent hangs",
        "a server that says nothing",
        "a port with a full queue",
        "a drain whose connection never ends",
        "a group of which all hang",
        "retries for ever",
        "a condition's command that hangs",
        "names that are never answered",
        "a hung file system: file",
        "a hung file system: a command's folder",
        "a log that nobody reads",
    ];
    let faults: Vec<_> = faults(&stopped).into_iter().filter(|fault| names.contains(&fault.name)).collect();
    assert!(faults.len() >= if is_root() { names.len() } else { 8 }, "every name is one of the list");
    let names: Vec<_> = faults.iter().map(|fault| fault.name).collect();
    let jobs = faults.into_iter().map(|fault| {
        let job = move || {
            let mut agent = start(&fault, "20s");
            let address = agent.address();
            let calling = thread::spawn(move || call(address, "/shutdown", "").map(|answer| answer.body));
            // It hangs in the first step.
            let hangs = poll(LONG, || {
                let status = call(address, "/status", "Connection: close\r\n").ok()?;
                status.body.contains("\"running\"").then_some(())
            });
            assert!(hangs.is_some(), "{}", agent.log());
            thread::sleep(Duration::from_millis(200));
            let begun = Instant::now();
            agent.signal(libc::SIGTERM);
            let code = agent.code(LONG);
            let took = begun.elapsed();
            let late = noise().between(begun, begun + took);
            let mut wrong = Vec::new();
            if took > HURRY + late {
                wrong.push(format!("took {took:?}, the machine was {late:?} late"));
            }
            if code != 128 + libc::SIGTERM {
                wrong.push(format!("code {code}"));
            }
            if !agent.file("touched").exists() {
                wrong.push("the essential step did not run".into());
            }
            if poll(GONE, || life_support::marked(agent.pid).is_empty().then_some(())).is_none() {
                wrong.push(format!("left: {:?}", life_support::marked(agent.pid)));
            }
            let answer = calling.join().expect("no panic");
            if !answer.as_ref().is_ok_and(|body| body.contains("\"hurried\":true")) {
                wrong.push(format!("answer: {answer:?}"));
            }
            if !wrong.is_empty() {
                wrong.push(agent.log());
            }
            (took, late, wrong)
        };
        Box::new(job) as Box<dyn FnOnce() -> (Duration, Duration, Vec<String>) + Send>
    });
    let results = side_by_side(jobs.collect(), AT_ONCE);
    let mut table = format!("{:45} {:>8} {:>8}\n", "milliseconds from SIGTERM to the exit", "took", "late");
    let mut failures = String::new();
    for (name, (took, late, wrong)) in names.iter().zip(&results) {
        let _ = writeln!(table, "{name:45} {:>8} {:>8}", millis(*took), millis(*late));
        wrong.iter().for_each(|line| {
            let _ = writeln!(failures, "{name}: {line}");
        });
    }
    println!("{table}");
    assert!(failures.is_empty(), "{table}\n{failures}");
}

#[test]
fn a_main_process_that_ignores_the_stop_signal_is_killed_in_time_for_post_stop() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = noise();
    // Of two seconds post-stop has 400 ms; the main process gets what is left.
    let config = "grace-period = '2s'\nstop-reserve = '500ms'\n[server]\nlisten = '127.0.0.1:0'\n\
        [log]\ntermination-message = '@FOLDER@/none'\n\
        [[pre-stop.step]]\nfile = { touch = '@FOLDER@/pre' }\n\
        [post-stop]\ndeadline = '400ms'\n\
        [[post-stop.step]]\nname = 'fault'\non-failure = 'continue'\nexec = ['sh', '-c', 'trap \"\" TERM; sleep 1000']\n\
        [[post-stop.step]]\nessential = true\ntimeout = '100ms'\nfile = { touch = '@FOLDER@/post' }\n";
    let main = "trap \"\" TERM; echo ready; while :; do sleep 1; done";
    let mut agent = Start::new(config).main(&["sh", "-c", main]).piped().start();
    let mut ready = [0; 6];
    agent.stdout.take().expect("piped").read_exact(&mut ready).expect("it says so");
    let begun = Instant::now();
    agent.signal(libc::SIGTERM);
    let code = agent.code(LONG);
    let took = begun.elapsed();
    let late = noise().between(begun, begun + took);
    println!("grace period of 2 s: ended after {took:?}, the machine was {late:?} late");
    assert_eq!(code, 128 + libc::SIGKILL, "{}", agent.log());
    assert!(took <= Duration::from_secs(2) + OVERRUN + late, "{took:?}: {}", agent.log());
    assert!(agent.file("pre").exists() && agent.file("post").exists(), "{}", agent.log());
    assert!(life_support::marked(agent.pid).is_empty(), "{}", agent.log());
    let told = fs::read_to_string(agent.file("none"));
    assert!(told.is_err(), "never made");
}
