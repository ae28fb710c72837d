//! `/ready` tells the truth: post-start is done, pre-stop has not begun, and the application's own check holds; and it
//! costs the application no more than one check in a cache time.

mod support;

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use support::{Agent, MAIN, PATIENCE, Place, kubelet, until};

/// "At once", on a loaded machine with an unoptimised binary.
const AT_ONCE: Duration = Duration::from_millis(500);

/// An application that counts who asks it.
struct Application {
    address: SocketAddr,
    /// Requests that came.
    asked: AtomicU64,
    /// Connections that ended without an answer, because the other end was gone.
    left: AtomicU64,
    /// It answers 500.
    is_sick: AtomicBool,
    /// It accepts and never answers.
    hangs: AtomicBool,
    /// Before each answer.
    delay: Duration,
}

fn application(delay: Duration) -> Arc<Application> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let application = Arc::new(Application {
        address: listener.local_addr().expect("bound"),
        asked: AtomicU64::new(0),
        left: AtomicU64::new(0),
        is_sick: AtomicBool::new(false),
        hangs: AtomicBool::new(false),
        delay,
    });
    let serves = Arc::clone(&application);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let application = Arc::clone(&serves);
            thread::spawn(move || application.answer(stream));
        }
    });
    application
}

impl Application {
    fn answer(&self, mut stream: TcpStream) {
        let mut head = Vec::new();
        let mut chunk = [0; 1024];
        while !head.windows(4).any(|window| window == b"\r\n\r\n") {
            match stream.read(&mut chunk) {
                Ok(count @ 1..) => head.extend_from_slice(&chunk[..count]),
                _ => return,
            }
        }
        self.asked.fetch_add(1, SeqCst);
        let hangs = self.hangs.load(SeqCst);
        let wait = if hangs { PATIENCE } else { self.delay };
        stream.set_read_timeout(Some(wait.max(Duration::from_millis(1)))).expect("a limit");
        if matches!(stream.read(&mut chunk), Ok(0)) {
            self.left.fetch_add(1, SeqCst);
            return;
        }
        let answer = if self.is_sick.load(SeqCst) {
            "HTTP/1.1 500 No\r\nContent-Length: 7\r\n\r\nno disk"
        } else {
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        };
        let _ = stream.write_all(answer.as_bytes());
    }

    fn asked(&self) -> u64 {
        self.asked.load(SeqCst)
    }

    /// The part of a configuration that asks it.
    fn readiness(&self) -> String {
        format!("[readiness]\nhttp = \"http://{}/healthz\"\n", self.address)
    }
}

#[track_caller]
fn not_ready(agent: &mut Agent, reason: &str) {
    let answer = agent.get("/ready");
    assert_eq!((answer.status, answer.body.as_str()), (503, format!("{reason}\n").as_str()));
}

#[track_caller]
fn wait_ready(agent: &mut Agent) {
    agent.wait_for("a 200 of /ready", |agent| (agent.get("/ready").status == 200).then_some(()));
}

#[test]
fn all_three_must_hold_by_either_gate() {
    for gate in ["readiness", "hook"] {
        let app = application(Duration::ZERO);
        let place = Place::with(&format!(
            "{}[post-start]\ngate = \"{gate}\"\n[[post-start.step]]\nname = \"warm\"\nwait = {{ file = \"@/warm\", interval = \"10ms\" }}\n\
             [[pre-stop.step]]\nname = \"drained\"\nwait = {{ file = \"@/drained\", interval = \"10ms\" }}\n",
            app.readiness()
        ));
        let mut agent = place.run(&MAIN);
        agent.wait_for("post-start", |agent| (agent.get("/ready").body.starts_with("post-start: step")).then_some(()));
        assert_eq!(app.asked(), 0, "{gate}: the application is not asked before post-start is done");
        let live = agent.get("/live");
        assert_eq!((live.status, live.body.as_str()), (200, "live\n"), "{gate}: a long warm-up is alive");
        agent.place.write("warm", "");
        wait_ready(&mut agent);
        assert_eq!(agent.get("/ready").body, "ready\n");
        let said = agent.boathook(&["ready"]);
        assert_eq!((said.code, said.stdout.as_str()), (0, "ready\n"));

        app.is_sick.store(true, SeqCst);
        agent.wait_for("a 503", |agent| (agent.get("/ready").status == 503).then_some(()));
        let reason = format!("http://{}/healthz: status 500: no disk", app.address);
        not_ready(&mut agent, &reason);
        let said = agent.boathook(&["ready"]);
        assert_eq!((said.code, said.stdout.as_str()), (1, format!("{reason}\n").as_str()));
        let status = agent.get("/status").json();
        assert_eq!((&status["ready"], &status["phase"]), (&false.into(), &"ready".into()));
        assert_eq!(status["not-ready-because"], *reason);
        assert_eq!((&status["readiness"]["holds"], &status["readiness"]["reason"]), (&false.into(), &(*reason).into()));
        assert!(status["readiness"]["checked-at"].as_f64().is_some_and(|at| at > 1e9), "{status}");
        assert!(agent.get("/metrics").body.contains("\nboathook_ready 0\n"));
        app.is_sick.store(false, SeqCst);
        wait_ready(&mut agent);
        assert!(agent.get("/metrics").body.contains("\nboathook_ready 1\n"));

        // A drain asks nobody, and is alive however long it takes.
        let mut kubelet = agent.kubelet();
        let shutdown = thread::spawn(move || kubelet.call("/shutdown").map(|answer| answer.status));
        agent.wait_for("pre-stop", |agent| agent.get("/ready").body.starts_with("pre-stop").then_some(()));
        let before = app.asked();
        let until = Instant::now() + Duration::from_millis(1500);
        while Instant::now() < until {
            assert_eq!(agent.get("/ready").status, 503);
            assert_eq!(agent.get("/live").status, 200);
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(app.asked(), before, "{gate}: asked during the drain");
        agent.place.write("drained", "");
        assert_eq!(shutdown.join().expect("no panic"), Ok(200));
        agent.signal(libc::SIGTERM);
        agent.end();
        // One line for each change, however many probes there were.
        let log = agent.log();
        let count = |text: &str| log.matches(text).count();
        assert_eq!(
            (count("the application's check holds"), count("the application's check does not hold")),
            (2, 1),
            "{log}"
        );
    }
}

#[test]
fn without_a_check_a_dead_application_is_ready() {
    // The control: the table is what makes the difference.
    let dead = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let mut agent = Place::with("").run(&MAIN);
    wait_ready(&mut agent);
    drop(agent);
    let mut agent = Place::with(&format!("[readiness]\nhttp = \"http://{dead}/\"\n")).run(&MAIN);
    agent.wait_log("to=\"ready\"");
    not_ready(&mut agent, &format!("http://{dead}/: connection refused"));
}

#[test]
fn it_serves_without_post_start_and_beside_a_main_process() {
    let app = application(Duration::ZERO);
    let mut agent = Place::with(&app.readiness()).start(&["serve"]);
    let status = agent.get("/status").json();
    assert_eq!(status["not-ready-because"], "nobody has asked the application's check yet");
    assert_eq!((&status["readiness"]["checks"], &status["readiness"]["checked-at"]), (&0.into(), &().into()));
    assert!(agent.get("/metrics").body.contains("\nboathook_ready 0\n"), "the metric asks nobody");
    assert_eq!(app.asked(), 0);
    assert_eq!(agent.get("/ready").status, 200);
    assert_eq!(app.asked(), 1);
    assert_eq!(agent.get("/status").json()["ready"], true);
}

#[test]
fn many_probes_cost_one_check_in_a_cache_time() {
    let app = application(Duration::from_millis(200));
    let mut agent = Place::with(&format!("{}cache = \"2s\"\n", app.readiness())).run(&MAIN);
    agent.wait_log("to=\"ready\"");
    let address = agent.address();
    // All at once, while the first check runs: they join it.
    let (start, begun) = (Arc::new(Barrier::new(50)), Instant::now());
    let probes: Vec<_> = (0..50)
        .map(|_| {
            let start = Arc::clone(&start);
            thread::spawn(move || {
                start.wait();
                kubelet::request(address, "GET", "/ready", "").status
            })
        })
        .collect();
    for probe in probes {
        assert_eq!(probe.join().expect("no panic"), 200);
    }
    // Then one after the other, for as long as the answer serves and longer.
    let mut count = 50;
    while begun.elapsed() < Duration::from_secs(5) {
        assert_eq!(kubelet::request(address, "GET", "/ready", "").status, 200);
        count += 1;
    }
    let most = 1 + begun.elapsed().as_millis() / 2000;
    assert!(u128::from(app.asked()) <= most, "{} checks in {:?}", app.asked(), begun.elapsed());
    assert!(app.asked() >= 2 && count > 100, "{} checks for {count} probes", app.asked());
    // Nobody asks any more: nothing is asked, for more than two cache times.
    let before = app.asked();
    thread::sleep(Duration::from_millis(4500));
    assert_eq!(app.asked(), before);
}

#[test]
fn a_shutdown_is_told_to_those_who_wait_for_a_slow_check() {
    let app = application(Duration::ZERO);
    let mut agent = Place::with(&format!(
        "{}timeout = \"15s\"\n[[pre-stop.step]]\nname = \"drained\"\nwait = {{ file = \"@/drained\", interval = \"10ms\" }}\n",
        app.readiness()
    ))
    .run(&MAIN);
    agent.wait_log("to=\"ready\"");
    app.hangs.store(true, SeqCst);
    let address = agent.address();
    let probes: Vec<_> = (0..8)
        .map(|_| thread::spawn(move || (kubelet::request(address, "GET", "/ready", ""), Instant::now())))
        .collect();
    let by_socket = {
        let mut command = agent.place.command(&["ready"]);
        thread::spawn(move || command.output().expect("it runs"))
    };
    until("the check", || (app.asked() == 1).then_some(()));
    let mut kubelet = agent.kubelet();
    let begun = Instant::now();
    let shutdown = thread::spawn(move || kubelet.call("/shutdown").map(|answer| answer.status));
    for probe in probes {
        let (answer, at) = probe.join().expect("no panic");
        assert_eq!(answer.status, 503);
        assert!(answer.body.starts_with("pre-stop"), "{}", answer.body);
        assert!(at - begun < AT_ONCE, "told after {:?}", at - begun);
    }
    let said = by_socket.join().expect("no panic");
    let body = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.status.code() == Some(1) && body.starts_with("pre-stop"), "{body}");
    // The check itself is cut: the drain must not wait for our own connection.
    until("the end of the check", || (app.left.load(SeqCst) == 1).then_some(()));
    assert_eq!(app.asked(), 1);
    agent.place.write("drained", "");
    assert_eq!(shutdown.join().expect("no panic"), Ok(200));
}

#[test]
fn a_recovery_is_seen_within_a_cache_time() {
    let app = application(Duration::ZERO);
    app.hangs.store(true, SeqCst);
    let mut agent = Place::with(&format!("{}timeout = \"100ms\"\ncache = \"500ms\"\n", app.readiness())).run(&MAIN);
    agent.wait_log("to=\"ready\"");
    let reason = format!("http://{}/healthz: connected, no answer yet within 100ms", app.address);
    not_ready(&mut agent, &reason);
    let before = app.asked();
    app.hangs.store(false, SeqCst);
    let recovered = Instant::now();
    wait_ready(&mut agent);
    assert!(recovered.elapsed() < Duration::from_millis(500) + AT_ONCE, "{:?}", recovered.elapsed());
    assert_eq!(app.asked(), before + 1, "the bad answer served until then");
}

#[test]
fn every_kind_of_check() {
    let app = application(Duration::ZERO);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (open, dead) = (listener.local_addr().expect("bound"), {
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port")
    });
    for (check, wanted) in [
        (format!("tcp = \"{open}\""), Ok(())),
        (format!("tcp = \"{dead}\""), Err(format!("{dead}: connection refused"))),
        (
            format!("http = {{ url = \"http://{}/\", status = [204] }}", app.address),
            Err(format!("http://{}/: status 200: ok", app.address)),
        ),
        ("file = \"@/boathook.toml\"".into(), Ok(())),
        ("file = \"@/none\"".into(), Err("@/none: no such file or directory".into())),
        ("exec = [\"true\"]".into(), Ok(())),
        (
            "exec = [\"sh\", \"-c\", \"echo; echo no disk; echo more >&2; exit 3\"]".into(),
            Err("sh: exit code 3: no disk".into()),
        ),
        ("exec = [\"false\"]".into(), Err("false: exit code 1".into())),
        ("exec = [\"@/none\"]".into(), Err("@/none: not found in the image".into())),
        (format!("redis = \"{dead}\""), Err(format!("{dead}: connection refused"))),
    ] {
        let mut agent = Place::with(&format!("[readiness]\n{check}\n")).run(&MAIN);
        agent.wait_log("to=\"ready\"");
        match wanted {
            Ok(()) => assert_eq!(agent.get("/ready").status, 200, "{check}"),
            Err(why) => {
                let why = agent.place.expand(&why);
                not_ready(&mut agent, &why);
            }
        }
        // What a check says is in no log but as a reason.
        assert_eq!(agent.log().matches("more").count(), 0, "{}", agent.log());
    }
}

#[test]
fn a_command_ends_with_its_check() {
    let place = Place::with("[readiness]\nexec = [\"@/check\"]\ntimeout = \"300ms\"\ncache = \"100ms\"\n");
    // What it starts ignores every signal that can be ignored, and what it says has no end.
    place.write("check", "#!/bin/sh\ntrap '' TERM HUP INT\necho $$ >> pids\nsleep 1000 &\necho $! >> pids\nyes\n");
    fs::set_permissions(place.path("check"), fs::Permissions::from_mode(0o755)).expect("made executable");
    let mut agent = place.run(&MAIN);
    agent.wait_log("to=\"ready\"");
    let reason = agent.place.expand("@/check: it has not ended within 300ms");
    for _ in 0..3 {
        not_ready(&mut agent, &reason);
        thread::sleep(Duration::from_millis(120));
    }
    let pids = agent.place.read("pids");
    assert_eq!(pids.lines().count(), 6, "{pids}");
    until("the end of what the checks started", || {
        let is_gone = |pid: &str| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        };
        pids.lines().all(is_gone).then_some(())
    });
    // And one that runs while pre-stop begins.
    let address = agent.address();
    let probe = thread::spawn(move || kubelet::request(address, "GET", "/ready", "").status);
    let is_third = |agent: &mut Agent| (agent.place.read("pids").lines().count() == 8).then_some(());
    agent.wait_for("another check", is_third);
    agent.signal(libc::SIGTERM);
    assert_eq!(probe.join().expect("no panic"), 503);
    agent.end();
    until("the end of everything", || agent.place.processes().is_empty().then_some(()));
}

#[test]
fn check_says_what_is_asked() {
    let said = Place::with("[readiness]\ntcp = \"127.0.0.1:8080\"\ncache = \"2s\"\n").boathook(&["check"]);
    assert_eq!(said.code, 0, "{said:?}");
    let line = "readiness: 127.0.0.1:8080 within 800ms, asked at most once in 2s";
    assert!(said.stdout.lines().any(|said| said == line), "{said:?}");
}

#[test]
fn a_wrong_table_is_refused() {
    for (table, problem) in [
        ("", "readiness: what to wait for is missing"),
        ("tcp = \"a:1\"\nhttp = \"http://a/\"", "readiness: tcp and http are given, but only one thing is waited for"),
        ("tcp = \"a:1\"\ntimeout = \"0s\"", "readiness: timeout: in no time nothing can be checked"),
        ("tcp = \"a:1\"\ncache = \"50ms\"", "readiness: cache: 50ms is shorter than 100ms"),
        ("tcp = \"a:1\"\ninterval = \"1s\"", "readiness: interval: unknown key `interval`"),
        ("exec = [\"\"]", "readiness: exec: command: the program's name is empty"),
        ("grpc = { url = \"a:1\", method = \"GET\" }", "readiness: method: a gRPC health check has its own"),
    ] {
        let said = Place::with(&format!("[readiness]\n{table}\n")).boathook(&["check"]);
        let first = said.stderr.lines().next().unwrap_or_default();
        assert_eq!(said.code, 78, "{table}: {said:?}");
        assert!(
            first
                .split_once(": ")
                .is_some_and(|(_, rest)| rest.split_once(": ").is_some_and(|(_, rest)| rest == problem)),
            "{first}"
        );
    }
}

#[test]
fn secrets_are_in_no_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("redis.sock");
    // A server that repeats what it does not understand.
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut chunk = [0; 256];
            let count = stream.read(&mut chunk).unwrap_or(0);
            let said = String::from_utf8_lossy(&chunk[..count]).replace("\r\n", " ");
            let _ = stream.write_all(format!("-ERR unknown: {said}\r\n").as_bytes());
        }
    });
    let shown = socket.display();
    for key in ["password = \"hunter22\"", "password-file = \"@/password\""] {
        let place = Place::with(&format!("[readiness]\nredis = \"{shown}\"\nuser = \"probe\"\n{key}\n"));
        place.write("password", "hunter22\n");
        let mut agent = place.run(&MAIN);
        agent.wait_log("to=\"ready\"");
        let answer = agent.get("/ready");
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (503, format!("{shown}: ERR unknown: *3 $4 AUTH $5 probe $8 ***\n").as_str()),
            "{key}"
        );
        assert!(!agent.log().contains("hunter22") && !agent.get("/status").body.contains("hunter22"));
    }
}
