//! The control socket in a user's words: one agent at a time, found by everybody who may call it, and no lock that
//! outlives its holder.

use std::{
    env,
    future::Future,
    io::{BufRead, BufReader, Read, Write},
    os::{linux::net::SocketAddrExt, unix::net},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use boathook::{
    control::{self, CallError, Joined, Lock, Taken},
    server::{Agent, Caller, HookAnswer, Origin, Trigger},
};
use tokio::sync::watch;

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// An agent whose hooks end when they are told to.
struct Fake {
    end: watch::Receiver<bool>,
    joined: Arc<AtomicU32>,
    fails: AtomicBool,
}

impl Agent for Fake {
    fn trigger(&self, hook: Trigger, by: &Caller) -> impl Future<Output = HookAnswer> + Send {
        assert!(matches!(by.origin, Origin::Socket(peer) if peer.pid > 0));
        assert!(by.user_agent.starts_with("boathook/"));
        self.joined.fetch_add(1, SeqCst);
        async move {
            let _ = self.end.clone().wait_for(|ended| *ended).await;
            HookAnswer { succeeded: !self.fails.load(SeqCst), body: format!("\"{hook:?} by {}\"", std::process::id()) }
        }
    }
    async fn is_ready(&self) -> Result<(), String> {
        Ok(())
    }
    fn is_live(&self) -> Result<(), String> {
        Ok(())
    }
    fn status_json(&self) -> String {
        "{}".into()
    }
    fn report_json(&self) -> String {
        "x".repeat(100_000)
    }
    fn metrics(&self) -> String {
        String::new()
    }
}

/// Leads one hook: serves the socket until standard input ends or `delay` has passed, then answers whoever joined.
fn lead(lock: Lock, fails: bool, delay: Option<Duration>) {
    println!("\nleads {}", std::process::id());
    let (end, ended) = watch::channel(false);
    let agent = Arc::new(Fake { end: ended.clone(), joined: Arc::default(), fails: fails.into() });
    let joined = Arc::clone(&agent.joined);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(control::serve(lock, async { drop(stopped.await) }, agent)).unwrap();
    });
    match delay {
        Some(delay) => thread::sleep(delay),
        None => drop(std::io::stdin().read_to_end(&mut Vec::new())),
    }
    end.send(true).unwrap();
    drop(stop);
    server.join().unwrap();
    println!("\njoined {}", joined.load(SeqCst));
}

/// Not a test: one `boathook shutdown`, as a process.
#[test]
#[ignore = "helper process"]
fn helper_starter() {
    let delay = env::var("TEST_DELAY").ok().map(|text| Duration::from_millis(text.parse().unwrap()));
    println!("\nbegins");
    match control::join_or_lead("POST", "/shutdown", Some(PATIENCE)) {
        Ok(Joined::Lead(lock)) => lead(lock, env::var_os("TEST_FAILS").is_some(), delay),
        Ok(Joined::Answer(answer)) => println!("\nanswer {} {}", answer.status, answer.body),
        Err(error) => println!("\nerror {error:?}"),
    }
}

struct Starter {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Starter {
    fn start(name: &str, variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "helper_starter", "--ignored", "--nocapture"]);
        command.env(control::NAME_VARIABLE, name).envs(variables.iter().copied());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }
    /// What it says next, among what the test harness prints.
    fn says(&mut self) -> String {
        let known = ["begins", "leads ", "joined ", "answer ", "error "];
        let mut lines = self.lines.by_ref().map(Result::unwrap);
        lines.find(|line| known.iter().any(|word| line.starts_with(word))).unwrap_or_default()
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn unique(name: &str) -> String {
    format!("boathook-test-{}-{name}", std::process::id())
}

/// Asks from a process with that socket name, which is read from the environment.
fn ask(name: &str, arguments: &str) -> String {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "helper_caller", "--ignored", "--nocapture"]);
    command.env(control::NAME_VARIABLE, name).env("TEST_CALL", arguments);
    let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
    output.lines().find_map(|line| line.strip_prefix("result ")).unwrap_or("nothing").into()
}

/// Not a test: one call.
#[test]
#[ignore = "helper process"]
fn helper_caller() {
    let call = env::var("TEST_CALL").unwrap();
    let result = if call == "acquire" {
        match Lock::acquire() {
            Ok(_) => "lock".into(),
            Err(Taken::By(Some(peer))) => format!("taken by {}", peer.pid),
            Err(error) => format!("{error:?}"),
        }
    } else {
        let (method, path) = call.split_once(' ').unwrap();
        let begin = Instant::now();
        match control::call(method, path, Some(Duration::from_millis(500))) {
            Ok(answer) => format!("{} {}", answer.status, answer.body.len()),
            Err(CallError::TimedOut) => format!("timed out in time: {}", begin.elapsed() < Duration::from_secs(1)),
            Err(error) => format!("{error:?}"),
        }
    };
    println!("\nresult {result}");
}

#[test]
fn the_socket_is_the_lock_and_serves_the_endpoints() {
    let name = unique("serves");
    assert_eq!(ask(&name, "GET /ready"), "NoAgent");
    assert_eq!(ask(&name, "acquire"), "lock");
    let mut leader = Starter::start(&name, &[("TEST_FAILS", "1")]);
    assert_eq!(leader.says(), "begins");
    let pid = leader.child.id();
    assert_eq!(leader.says(), format!("leads {pid}"));
    assert_eq!(ask(&name, "acquire"), format!("taken by {pid}"));
    assert_eq!(ask(&name, "GET /ready"), "200 6");
    assert_eq!(ask(&name, "GET /report"), "200 100000");
    assert_eq!(ask(&name, "GET /nothing").split(' ').next(), Some("404"));
    assert_eq!(ask(&name, "POST /shutdown"), "timed out in time: true");
    // Who was let in is answered, with the failure that it was. The hook goes on for the caller who gave up, and its connection
    // may still be there.
    let before = joined(&name);
    let mut joiner = Starter::start(&name, &[]);
    assert_eq!(joiner.says(), "begins");
    wait_until_joined(&name, before + 1);
    drop(leader.child.stdin.take());
    assert_eq!(joiner.says(), format!("answer 500 \"Shutdown by {pid}\""));
    assert!(leader.says().starts_with("joined "));
    assert!(leader.child.wait().unwrap().success());
    assert_eq!(ask(&name, "acquire"), "lock");
}

/// How many callers are connected: `/proc/net/unix` shows a line for each end that is named.
fn joined(name: &str) -> usize {
    let table = std::fs::read_to_string("/proc/net/unix").unwrap();
    // State 03 is SS_CONNECTED; the listener itself has 01.
    table.lines().filter(|line| line.ends_with(&format!("@{name}")) && line.contains(" 03 ")).count()
}

/// Waits until so many callers are connected.
fn wait_until_joined(name: &str, callers: usize) {
    let deadline = Instant::now() + PATIENCE;
    while joined(name) < callers {
        assert!(Instant::now() < deadline, "{} of {callers} joined", joined(name));
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn of_fifty_starters_exactly_one_leads() {
    let name = unique("fifty");
    let mut starters: Vec<_> = (0..50).map(|_| Starter::start(&name, &[("TEST_DELAY", "2000")])).collect();
    let mut said: Vec<_> = starters
        .iter_mut()
        .map(|starter| {
            assert_eq!(starter.says(), "begins");
            starter.says()
        })
        .collect();
    said.sort();
    let leader = said.pop().unwrap();
    let pid = leader.strip_prefix("leads ").unwrap();
    assert_eq!(said, vec![format!("answer 200 \"Shutdown by {pid}\""); 49]);
}

#[test]
fn when_the_leader_is_killed_one_of_the_joiners_follows() {
    let name = unique("killed");
    let mut leader = Starter::start(&name, &[]);
    assert_eq!(leader.says(), "begins");
    assert!(leader.says().starts_with("leads "));
    let mut joiners: Vec<_> = (0..10).map(|_| Starter::start(&name, &[("TEST_DELAY", "500")])).collect();
    for joiner in &mut joiners {
        assert_eq!(joiner.says(), "begins");
    }
    wait_until_joined(&name, 10);
    leader.child.kill().unwrap();
    let mut said: Vec<_> = joiners.iter_mut().map(Starter::says).collect();
    said.sort();
    let follower = said.pop().unwrap();
    let pid = follower.strip_prefix("leads ").unwrap();
    assert_eq!(said, vec![format!("answer 200 \"Shutdown by {pid}\""); 9]);
}

#[test]
fn a_stopped_agent_holds_nobody_beyond_the_timeout() {
    let name = unique("stopped");
    let address = net::SocketAddr::from_abstract_name(&name).unwrap();
    // It listens, but nobody accepts: the first call stays in the backlog, so the second cannot even connect.
    let listener = net::UnixListener::bind_addr(&address).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    assert_eq!(ask(&name, "GET /ready"), "timed out in time: true");
    assert_eq!(ask(&name, "GET /ready"), "timed out in time: true");
}

#[test]
fn nonsense_from_the_holder_is_not_believed() {
    let name = unique("nonsense");
    let address = net::SocketAddr::from_abstract_name(&name).unwrap();
    let listener = net::UnixListener::bind_addr(&address).unwrap();
    let server = thread::spawn(move || {
        for answer in ["220 mail\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", ""] {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            // Read the request, so that closing does not reset.
            let _ = stream.read(&mut [0; 1024]);
        }
    });
    assert_eq!(ask(&name, "GET /ready"), "Garbled");
    assert_eq!(ask(&name, "GET /ready"), "Lost");
    assert_eq!(ask(&name, "GET /ready"), "Lost");
    server.join().unwrap();
}

/// Only root can become somebody else, so this needs to run as root; `setpriv` belongs to util-linux.
#[test]
fn strangers_are_refused_on_both_sides() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let name = unique("strangers");
    // The tests' own binary may lie where nobody else may look.
    let folder = tempfile::Builder::new().permissions(permissions()).tempdir_in("/tmp").unwrap();
    let binary = folder.path().join("caller");
    std::fs::copy(env::current_exe().unwrap(), &binary).unwrap();
    let as_nobody = |helper: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&binary);
        command.args(["--exact", helper, "--ignored", "--nocapture"]).env(control::NAME_VARIABLE, &name);
        command.env("TEST_CALL", "GET /ready").current_dir("/");
        command
    };
    let mut leader = Starter::start(&name, &[]);
    assert_eq!(leader.says(), "begins");
    assert!(leader.says().starts_with("leads "));
    let output = String::from_utf8(as_nobody("helper_caller").output().unwrap().stdout).unwrap();
    assert!(output.contains("result NotPermitted"), "{output}");
    // One that does not look at who answers is turned away by the agent.
    let raw = "import socket,os;s=socket.socket(socket.AF_UNIX);s.connect('\\0'+os.environ['BOATHOOK_SOCKET']);\
               s.sendall(b'GET /shutdown HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n');print(s.recv(99)[:12].decode())";
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "python3", "-c", raw]);
    if let Ok(output) = command.env(control::NAME_VARIABLE, &name).output()
        && output.status.success()
    {
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "HTTP/1.1 403\n");
    }
    drop(leader);

    let mut squatter = as_nobody("helper_starter").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(squatter.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("leads ")));
    assert!(ask(&name, "GET /ready").starts_with("NotPermitted"));
    squatter.kill().unwrap();
    squatter.wait().unwrap();
}

fn permissions() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o755)
}
