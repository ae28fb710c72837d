//! The cookbook, second half: each entry's form, and its configuration run with the real server where Debian has it, else
//! against a stand-in that behaves as the vendor's documentation or source says.
//!
//! Each entry runs in a network of its own, so its ports are those of its manifest.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use cookbook_support::{
    Beside, CLOCKS, Entry, assert_form, assert_form_with, in_pod, nginx_of, run, step_line, together, until_accepts,
};
use preset_support::{Load, Server, TOKEN, stop_bare};
use serde_json::Value;
use server_support::needs;
use support::{Agent, BOATHOOK, MAIN, PATIENCE, Place, Said, until};

mod cookbook_support;
mod preset_support;
mod server_support;
mod support;

// ---- what the tests share ----

/// Far less than any bound in the configurations, and more than what a loaded machine adds: who waited for nothing is done by then.
const AT_ONCE: Duration = Duration::from_secs(4);

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Puts a script into the place's `bin`, which [`with_commands`] has first in PATH.
fn command(place: &Place, name: &str, script: &str) {
    fs::create_dir_all(place.path("bin")).expect("made");
    let path = place.path("bin").join(name);
    fs::write(&path, place.expand(&format!("#!/bin/sh\n{script}"))).expect("written");
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("executable");
}

fn with_commands(place: Place) -> Place {
    let path = std::env::var("PATH").unwrap_or_default();
    place.env("PATH", &format!("@/bin:{path}"))
}

/// What an HTTP stand-in was asked.
#[derive(Clone, Debug)]
struct Asked {
    /// `PUT /v1/info/state`
    what: String,
    /// In small letters.
    head: String,
    body: String,
    at: Instant,
}

impl Asked {
    fn has(&self, header: &str) -> bool {
        self.head.lines().any(|line| line == header.to_ascii_lowercase())
    }
}

/// A small HTTP server; it ends with the test's process.
struct StandIn {
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl StandIn {
    /// `answer` gives a status and a body; a status of 0 closes the connection without an answer.
    fn start(port: u16, answer: impl FnMut(&Asked) -> (u16, String) + Send + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a port of this network");
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (told, answer) = (Arc::clone(&asked), Arc::new(Mutex::new(answer)));
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let (told, answer) = (Arc::clone(&told), Arc::clone(&answer));
                thread::spawn(move || {
                    let mut reader = BufReader::new(stream);
                    while let Some(asked) = read_request(&mut reader) {
                        told.lock().unwrap_or_else(PoisonError::into_inner).push(asked.clone());
                        let (status, body) = answer.lock().unwrap_or_else(PoisonError::into_inner)(&asked);
                        if status == 0 {
                            return;
                        }
                        let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                        if reader.get_mut().write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { asked }
    }

    /// All that asked this.
    fn of(&self, what: &str) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().filter(|asked| asked.what == what).cloned().collect()
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let what = head.lines().next()?.rsplit_once(' ')?.0.to_owned();
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { what, head, body: String::from_utf8_lossy(&body).into_owned(), at: Instant::now() })
}

/// What became of a pod that was stopped.
struct Stopped {
    /// The answer to the kubelet's pre-stop call.
    hook: Value,
    /// How long the hook took.
    took: Duration,
    /// When the kubelet sent SIGTERM.
    term: Instant,
    code: i32,
    agent: Agent,
}

impl Stopped {
    #[track_caller]
    fn assert_succeeded(&self) {
        assert_eq!(self.hook["outcome"], "succeeded", "{:#}\n{}", self.hook, self.agent.log());
    }

    /// `outcome: reason` of a step.
    #[track_caller]
    fn step(&self, name: &str) -> String {
        step_of(&self.hook, name)
    }

    /// The main process ended in the hook, so the stop signal was passed on to nobody.
    fn ended_in_hook(&self) -> bool {
        !self.agent.log().contains("stop signal passed on")
    }
}

#[track_caller]
fn step_of(report: &Value, name: &str) -> String {
    let step = report["steps"].as_array().and_then(|steps| steps.iter().find(|step| step["name"] == name));
    let step = step.unwrap_or_else(|| panic!("no step {name:?} in {report:#}"));
    let text = |key: &str| step[key].as_str().unwrap_or_default();
    format!("{}: {}", text("outcome"), text("reason"))
}

/// Stops it as the kubelet does: the hook, and SIGTERM when it is answered.
#[track_caller]
fn stop(mut agent: Agent) -> Stopped {
    let begun = Instant::now();
    let mut kubelet = agent.kubelet().with_token(TOKEN);
    let hook = kubelet.call("/shutdown").expect("an answer").json();
    let (took, term) = (begun.elapsed(), Instant::now());
    agent.signal(libc::SIGTERM);
    let code = agent.end();
    Stopped { hook, took, term, code, agent }
}

#[track_caller]
fn wait_ready(agent: &mut Agent) {
    agent.wait_for("readiness", |agent| (agent.get("/ready").status == 200).then_some(()));
}

fn lines(place: &Place, file: &str) -> Vec<String> {
    place.read(file).lines().map(String::from).collect()
}

fn cookbook(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/cookbook").join(name)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

// ---- the pages ----

#[test]
fn the_pages_are_true() {
    for name in [
        "cassandra",
        "compose",
        "consul",
        "ecs",
        "gitlab-runner",
        "linkerd-istio",
        "nats",
        "rabbitmq",
        "selenium",
        "trino",
        "vault",
    ] {
        assert_form(name);
    }
    assert_form_with("redpanda", |place, config| (place.env("NODE_ID", "0"), config.to_owned()));
    assert_form_with("elasticsearch", |place, config| {
        make_certificates(&place);
        let config = place.expand(&config.replace("/etc/es-tls", "@/tls").replace("/etc/es-users", "@/users"));
        (place.env("ES_HOST", "localhost"), config)
    });
}

// ---- rabbitmq ----

const MARKER: &str = "/etc/pod-info/skipPreStopChecks";

fn rabbitmq() -> Entry {
    Entry::of("rabbitmq").with(MARKER, "@/pod-info")
}

#[test]
fn rabbitmq_is_drained() {
    in_pod(|| {
        let Some(server) = needs("../lib/rabbitmq/bin/rabbitmq-server") else { return };
        let programs = fs::canonicalize(&server).expect("a path");
        let programs = programs.parent().expect("a folder").display();
        let path = std::env::var("PATH").unwrap_or_default();
        let place = rabbitmq()
            .place()
            .env("PATH", &format!("{programs}:{path}"))
            .env("HOME", "@/")
            .env("RABBITMQ_NODENAME", "rabbit@localhost")
            .env("RABBITMQ_MNESIA_BASE", "@/mnesia")
            .env("RABBITMQ_LOG_BASE", "@/logs")
            .env("RABBITMQ_CONFIG_FILE", "@/rabbitmq")
            .env("RABBITMQ_CONF_ENV_FILE", "@/none")
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", "@/plugins");
        place.write("plugins", "[].\n");
        place.write("pod-info", "");
        let mut agent = place.run(&[&server]);
        // An Erlang VM that boots is slow on a loaded machine.
        let limit = Instant::now() + Duration::from_secs(60);
        while agent.get("/ready").status != 200 {
            assert!(agent.ended().is_none() && Instant::now() < limit, "it does not start\n{}", agent.stdout());
            thread::sleep(millis(50));
        }
        TcpStream::connect("127.0.0.1:5672").expect("it takes clients");
        let hook = agent.kubelet().with_token(TOKEN).call("/shutdown").expect("an answer").json();
        assert_eq!(hook["outcome"], "succeeded", "{hook:#}");
        assert!(step_of(&hook, "quorum without this node").starts_with("succeeded: "), "{hook:#}");
        // The node still runs, and serves nobody.
        TcpStream::connect("127.0.0.1:5672").expect_err("it takes clients after its drain");
        let mut ask = Command::new(format!("{programs}/rabbitmqctl"));
        ask.args(["eval", "rabbit_maintenance:is_being_drained_local_read(node())."]);
        agent.place.dress(&mut ask);
        let said = agent.place.finish(ask);
        assert_eq!((said.code, said.stdout.trim()), (0, "true"), "{said:?}");
        agent.signal(libc::SIGTERM);
        assert_eq!(agent.end(), 0);
    });
}

#[test]
fn rabbitmq_is_not_drained_when_the_label_says_so() {
    in_pod(|| {
        // The command is a stand-in that only records its calls.
        let run = |marker: &str, script: &str| {
            let place = with_commands(rabbitmq().place());
            command(&place, "rabbitmq-upgrade", script);
            place.write("pod-info", marker);
            stop(place.run(&MAIN))
        };
        let record = "echo \"$*\" >> @/calls";
        let stopped = run("true", record);
        stopped.assert_succeeded();
        assert!(stopped.step("drain").starts_with("skipped: "), "{}", stopped.step("drain"));
        assert_eq!(lines(&stopped.agent.place, "calls"), Vec::<String>::new());
        // Without the label the file is there too, and empty.
        let stopped = run("", record);
        stopped.assert_succeeded();
        let drained = ["await_online_quorum_plus_one -t 290", "drain -t 290"];
        assert_eq!(lines(&stopped.agent.place, "calls"), drained);
        // Without a quorum it is drained all the same, and that is said.
        let lost =
            format!("{record}\ncase $1 in await*) echo 'Error: Error while waiting for quorum' >&2; exit 70;; esac");
        let stopped = run("", &lost);
        stopped.assert_succeeded();
        assert_eq!(lines(&stopped.agent.place, "calls"), drained);
        let quorum = stopped.step("quorum without this node");
        assert_eq!(quorum, "failed: exit code 70: Error: Error while waiting for quorum");
    });
}

// ---- cassandra ----

#[test]
fn cassandra_says_drained_only_when_it_is() {
    in_pod(|| {
        let run = |nodetool: &str| {
            let entry = Entry::of("cassandra").with("/run/shared/", "@/").with("127.0.0.1:9042", "127.0.0.1:4665");
            let place = with_commands(entry.place());
            let script = "echo \"$*\" $(ls @/draining @/drained 2>/dev/null | xargs -rn1 basename) >> @/calls\n";
            command(&place, "nodetool", &format!("{script}{nodetool}"));
            // Flags of the container's last life.
            place.write("draining", "");
            place.write("drained", "");
            let mut agent = place.run(&MAIN);
            agent.wait_log("main process started");
            assert!(!agent.place.exists("draining") && !agent.place.exists("drained"), "old flags are left");
            stop(agent)
        };
        let stopped = run("sleep 0.5");
        stopped.assert_succeeded();
        assert!(stopped.took >= millis(500) - CLOCKS, "{:?}", stopped.took);
        // While it drained the one flag was there, and the other was not.
        assert_eq!(lines(&stopped.agent.place, "calls"), ["drain draining"]);
        assert!(stopped.agent.place.exists("drained"));
        assert_eq!(stopped.code, 0);

        let refused =
            "echo \"nodetool: Failed to connect to '127.0.0.1:7199' - ConnectException: refused\" >&2; exit 1";
        let stopped = run(refused);
        assert_eq!(stopped.hook["outcome"], "failed");
        let drain = stopped.step("drain");
        assert!(drain.contains("exit code 1: nodetool: Failed to connect to '127.0.0.1:7199'"), "{drain}");
        assert_eq!(lines(&stopped.agent.place, "calls"), ["drain draining"; 2]);
        assert!(!stopped.agent.place.exists("drained"), "it says that it is drained, and is not");

        let stopped = run(&format!("[ -e @/once ] || {{ touch @/once; {refused}; }}"));
        stopped.assert_succeeded();
        assert!(stopped.agent.place.exists("drained"));
    });
}

// ---- consul ----

/// The agent ends by itself after a leave; a leave without a leader fails as the command's source has it.
const CONSUL: &str = "case $1 in
agent)
    trap 'echo terminated >> @/calls; exit 0' TERM
    until [ -e @/left ]; do sleep 0.05; done
    exit 0;;
leave)
    echo leave >> @/calls
    if [ -e @/no-leader ]; then
        [ \"$(cat @/no-leader)\" = once ] && rm @/no-leader
        echo 'Error leaving: Unexpected response code: 500 (No cluster leader)' >&2
        exit 1
    fi
    touch @/left
    sleep 0.3
    echo 'Graceful leave complete';;
esac";

#[test]
fn consul_leaves_and_may_end_meanwhile() {
    in_pod(|| {
        let leader = Arc::new(Mutex::new("\"\""));
        let known = Arc::clone(&leader);
        StandIn::start(8500, move |_| (200, known.lock().expect("a text").to_string()));
        let run = |no_leader: Option<&str>| {
            let place = with_commands(Entry::of("consul").place());
            command(&place, "consul", CONSUL);
            if let Some(how) = no_leader {
                place.write("no-leader", how);
            }
            place.run(&["consul", "agent", "-data-dir=/consul/data"])
        };
        let mut agent = run(None);
        agent
            .wait_for("the first look", |agent| agent.get("/ready").body.contains("is , wanted another").then_some(()));
        *leader.lock().expect("a text") = "\"10.0.0.1:8300\"";
        wait_ready(&mut agent);
        let stopped = stop(agent);
        stopped.assert_succeeded();
        // It ended 0.3 s before the command did, and neither of the two was cut.
        assert!(stopped.ended_in_hook(), "{}", stopped.agent.log());
        assert!(stopped.took >= millis(300) - CLOCKS, "{:?}", stopped.took);
        assert_eq!((stopped.code, lines(&stopped.agent.place, "calls")), (0, vec!["leave".into()]));

        let stopped = stop(run(Some("once")));
        stopped.assert_succeeded();
        assert_eq!(lines(&stopped.agent.place, "calls"), ["leave"; 2]);

        let stopped = stop(run(Some("always")));
        assert_eq!(stopped.hook["outcome"], "failed");
        let leave = stopped.step("leave");
        assert!(leave.contains("Error leaving: Unexpected response code: 500 (No cluster leader)"), "{leave}");
        assert_eq!(lines(&stopped.agent.place, "calls"), ["leave", "leave", "leave", "terminated"]);
    });
}

// ---- vault ----

#[test]
fn vault_gets_its_signal_after_the_delay_and_is_waited_for() {
    in_pod(|| {
        // Other processes of this machine may have the name.
        let name = format!("vt{}", std::process::id());
        let entry = || {
            Entry::of("vault").with("process = \"vault\"", &format!("process = \"{name}\"")).with("\"5s\"", "\"1s\"")
        };
        // It takes a while to step down.
        let vault = "trap 'echo TERM $(date +%s%N) >> @/life; sleep 0.4; echo ended >> @/life; exit 0' TERM
            echo $$ > @/pid; while :; do sleep 0.05; done";
        // The wrapper forwards nothing, as a shell does not.
        let wrapper = ["sh", "-c", "@/bin/NAME & trap '' TERM; wait $!"].map(|word| word.replace("NAME", &name));
        let start = |place: Place| {
            command(&place, &name, vault);
            let words: Vec<String> = wrapper.iter().map(|word| place.expand(word)).collect();
            let mut agent = place.run(&words.iter().map(String::as_str).collect::<Vec<_>>());
            agent.wait_for("vault", |agent| agent.place.exists("pid").then_some(()));
            agent
        };
        let stopped = stop(start(entry().place()));
        stopped.assert_succeeded();
        assert!(stopped.took >= millis(1400) - CLOCKS, "{:?}", stopped.took);
        assert!(stopped.step("step down and end").contains("has ended"), "{}", stopped.step("step down and end"));
        let life = lines(&stopped.agent.place, "life");
        assert_eq!((life.len(), life[1].as_str(), stopped.code), (2, "ended", 0), "{life:?}");

        // The control: the stop signal alone reaches the wrapper, and not what is behind it.
        let mut agent = start(Place::with("grace-period = \"2s\"\n[server]\nlisten = \"off\""));
        agent.signal(libc::SIGTERM);
        agent.end();
        assert_eq!(lines(&agent.place, "life"), Vec::<String>::new());
        drop(agent);

        // Two of the name: neither is signalled.
        let agent = start(entry().place());
        let mut second = Command::new(agent.place.path("bin").join(&name));
        agent.place.dress(&mut second);
        let mut second = second.spawn().expect("a second one");
        let found = until("both by their name", || {
            let found = boathook::process::find::by_name(&name);
            (found.len() == 2).then_some(found)
        });
        assert!(found.contains(&second.id().cast_signed()));
        let mut agent = agent;
        let hook = agent.kubelet().with_token(TOKEN).call("/shutdown").expect("an answer").json();
        let step = step_of(&hook, "step down and end");
        assert!(step.starts_with("failed: ") && step.contains("2 processes have this name"), "{step}");
        assert_eq!(lines(&agent.place, "life"), Vec::<String>::new());
        second.kill().expect("ours");
        second.wait().expect("ours");
    });
}

// ---- gitlab-runner ----

/// QUIT: the job is finished; TERM: it is aborted (docs.gitlab.com/runner/commands: Signals).
const RUNNER: &str = "case $1 in
run)
    trap 'sleep 0.6; echo job finished >> @/life; exit 0' QUIT
    trap 'echo job aborted >> @/life; exit 1' TERM
    echo job began >> @/life
    while :; do sleep 0.05; done;;
unregister)
    if [ -e @/restarting ]; then rm @/restarting; echo 'ERROR: 502 Bad Gateway' >&2; exit 1; fi
    echo \"unregister $2\" >> @/life;;
esac";

fn gitlab_runner(entry: Entry) -> Agent {
    let place = with_commands(entry.place());
    command(&place, "gitlab-runner", RUNNER);
    // The first call to GitLab fails.
    place.write("restarting", "");
    let mut agent = place.run(&["gitlab-runner", "run"]);
    agent.wait_file("life", "job began");
    agent
}

#[test]
fn gitlab_runner_is_unregistered_when_its_jobs_are_done() {
    together(&[jobs_are_finished_first, a_crashed_runner_is_unregistered, jobs_are_aborted_on_term]);
}

fn jobs_are_finished_first() {
    in_pod(|| {
        let stopped = stop(gitlab_runner(Entry::of("gitlab-runner")));
        assert_eq!(lines(&stopped.agent.place, "life"), ["job began", "job finished", "unregister --all-runners"]);
        assert!(stopped.term.elapsed() >= millis(600) - CLOCKS);
        assert_eq!(stopped.code, 0);
    });
}

fn a_crashed_runner_is_unregistered() {
    in_pod(|| {
        let mut agent = gitlab_runner(Entry::of("gitlab-runner"));
        let runner = agent.place.processes().into_iter().filter(|pid| *pid != agent.pid());
        let runner = runner.min().expect("the runner");
        support::send(runner, libc::SIGKILL);
        assert_eq!(agent.end(), 137);
        assert_eq!(lines(&agent.place, "life"), ["job began", "unregister --all-runners"]);
    });
}

/// The control.
fn jobs_are_aborted_on_term() {
    in_pod(|| {
        let entry = Entry::of("gitlab-runner").with("stop-signal = \"QUIT\"", "stop-signal = \"TERM\"");
        let stopped = stop(gitlab_runner(entry));
        let aborted = ["job began", "job aborted", "unregister --all-runners"];
        assert_eq!((stopped.code, lines(&stopped.agent.place, "life")), (1, aborted.map(String::from).into()));
    });
}

// ---- nats ----

/// A client that has said who it is.
fn nats_client() -> BufReader<TcpStream> {
    let mut client = until("nats-server", || TcpStream::connect("127.0.0.1:4222").ok());
    client.set_read_timeout(Some(PATIENCE)).expect("not zero");
    client.write_all(b"CONNECT {\"verbose\":false,\"protocol\":1}\r\nPING\r\n").expect("sent");
    let mut client = BufReader::new(client);
    let mut line = String::new();
    while line.trim() != "PONG" {
        line.clear();
        assert!(client.read_line(&mut line).expect("an answer") > 0, "closed");
    }
    client
}

/// What a client hears until it is closed.
fn rest(mut client: BufReader<TcpStream>) -> (String, Instant) {
    let mut heard = Vec::new();
    // A reset is an end too.
    let _ = client.read_to_end(&mut heard);
    (String::from_utf8_lossy(&heard).into_owned(), Instant::now())
}

fn nats() -> Entry {
    Entry::of("nats").with("/run/nats/", "@/")
}

/// nats-server, with a short grace period for its clients.
fn nats_server(place: Place) -> Option<Agent> {
    let server = needs("nats-server")?;
    place.write("nats.conf", "http: 8222\nlame_duck_grace_period: \"1s\"\nlame_duck_duration: \"30s\"\n");
    Some(place.run(&[&server, "--config", "nats.conf", "--pid", "nats.pid"]))
}

#[test]
fn nats_sends_its_clients_away_before_it_ends() {
    together(&[nats_is_a_lame_duck, nats_closes_all_at_once_on_term, a_pid_file_may_be_missing]);
}

fn nats_is_a_lame_duck() {
    in_pod(|| {
        let Some(mut agent) = nats_server(nats().place()) else { return };
        wait_ready(&mut agent);
        let client = nats_client();
        let heard = thread::spawn(move || rest(client));
        let begun = Instant::now();
        let stopped = stop(agent);
        stopped.assert_succeeded();
        let (heard, closed) = heard.join().expect("a client");
        assert!(heard.contains("\"ldm\":true"), "it was not told: {heard}");
        assert!(closed - begun >= millis(1000) - CLOCKS, "closed after {:?}", closed - begun);
        // The fixed sleep of the old hook is 60 s.
        assert!(stopped.took < Duration::from_secs(15), "{:?}", stopped.took);
        assert!(stopped.ended_in_hook() && stopped.step("lame duck").contains("has ended"), "{}", stopped.agent.log());
        assert_eq!(stopped.code, 0);
    });
}

/// The control.
fn nats_closes_all_at_once_on_term() {
    in_pod(|| {
        let Some(mut agent) = nats_server(Place::with("[server]\nlisten = \"off\"")) else { return };
        agent.wait_log("main process started");
        let client = nats_client();
        agent.signal(libc::SIGTERM);
        let begun = Instant::now();
        let (heard, closed) = rest(client);
        assert!(!heard.contains("\"ldm\":true") && closed - begun < millis(1000), "{:?}: {heard}", closed - begun);
        agent.end();
    });
}

/// It is taken for a server that has ended, and named; then the stop signal comes.
fn a_pid_file_may_be_missing() {
    in_pod(|| {
        let Some(mut agent) = nats_server(nats().with("nats.pid", "other.pid").place()) else { return };
        wait_ready(&mut agent);
        let stopped = stop(agent);
        stopped.assert_succeeded();
        assert!(stopped.step("lame duck").contains("/other.pid"), "{}", stopped.step("lame duck"));
        assert!(stopped.took < AT_ONCE && !stopped.ended_in_hook());
    });
}

// ---- trino ----

#[test]
fn trino_is_asked_and_its_end_is_waited_for() {
    in_pod(|| {
        // Other processes of this machine may have the name.
        let name = format!("jv{}", std::process::id());
        let entry = || Entry::of("trino").with("\"java\"", &format!("{name:?}"));
        let ended: Arc<Mutex<Option<PathBuf>>> = Arc::default();
        let worker = Arc::clone(&ended);
        let mut busy = 1;
        // Known to the access control is only the user admin.
        let trino = StandIn::start(8080, move |asked| {
            if asked.what == "GET /v1/info/state" {
                return (200, "\"ACTIVE\"".into());
            }
            if !asked.has("x-trino-user: admin") {
                return (403, "Access Denied: Cannot write system information".into());
            }
            if busy > 0 {
                busy -= 1;
                return (503, String::new());
            }
            if asked.body != "\"SHUTTING_DOWN\"" || !asked.has("content-type: application/json") {
                return (400, String::new());
            }
            let ended = worker.lock().expect("a path").clone().expect("a worker");
            thread::spawn(move || {
                thread::sleep(millis(800));
                fs::write(ended, "").expect("written");
            });
            (200, String::new())
        });
        let start = |entry: Entry| {
            let place = entry.place();
            command(&place, &name, "until [ -e @/ended ]; do sleep 0.05; done");
            *ended.lock().expect("a path") = Some(place.path("ended"));
            let mut agent = place.run(&[&format!("./bin/{name}")]);
            wait_ready(&mut agent);
            agent
        };
        let stopped = stop(start(entry()));
        stopped.assert_succeeded();
        assert_eq!(trino.of("PUT /v1/info/state").len(), 2);
        assert!(stopped.took >= millis(800) - CLOCKS, "{:?}", stopped.took);
        assert!(stopped.ended_in_hook(), "{}", stopped.agent.log());
        assert_eq!(stopped.code, 0);
        drop(stopped);
        // Nobody waits for a worker that was never asked.
        let stopped = stop(start(entry().with("X-Trino-User = \"admin\"", "X-Trino-User = \"nobody\"")));
        assert_eq!(stopped.hook["outcome"], "failed");
        assert!(stopped.took < AT_ONCE, "{:?}", stopped.took);
        assert!(
            stopped.step("ask for the shutdown").contains("status 403"),
            "{}",
            stopped.step("ask for the shutdown")
        );
        assert_eq!(trino.of("PUT /v1/info/state").len(), 3, "a refusal was tried again");
    });
}

// ---- selenium ----

/// How long a drained node still answers: a second in Selenium (NodeServer.java), longer here for machines that stand still.
const BEAT: Duration = Duration::from_millis(2500);
const SESSION: Duration = Duration::from_millis(800);

/// A node with one session that ends some time after the drain began, as the node itself does a beat later.
fn selenium_node(secret: &'static str, ended: PathBuf) -> StandIn {
    let mut drained: Option<Instant> = None;
    StandIn::start(5555, move |asked| {
        let since = drained.map(|at| at.elapsed());
        if asked.what == "POST /se/grid/node/drain" {
            // An empty header is sent where no secret is set.
            let given = asked.head.lines().find_map(|line| line.strip_prefix("x-registration-secret:"));
            if given.map(str::trim) != Some(secret) {
                return (401, String::new());
            }
            drained = Some(Instant::now());
            let ended = ended.clone();
            thread::spawn(move || {
                thread::sleep(SESSION + BEAT);
                fs::write(ended, "").expect("written");
            });
            return (200, "{\"value\":true}".into());
        }
        let session = if since.is_some_and(|since| since >= SESSION) { "null" } else { "{\"sessionId\":\"4f\"}" };
        if since.is_some_and(|since| since >= SESSION + BEAT) {
            return (0, String::new());
        }
        let (ready, availability) = (since.is_none(), if since.is_none() { "UP" } else { "DRAINING" });
        let node = format!("{{\"availability\":\"{availability}\",\"slots\":[{{\"session\":{session}}}]}}");
        (200, format!("{{\"value\":{{\"ready\":{ready},\"message\":\"\",\"node\":{node}}}}}"))
    })
}

const NODE: [&str; 3] = ["sh", "-c", "trap 'exit 0' TERM; until [ -e ended ]; do sleep 0.05; done"];

#[test]
fn selenium_is_drained() {
    together(&[selenium_waits_for_the_last_session, a_wrong_secret_is_told, a_grid_may_have_no_secret]);
}

fn selenium_waits_for_the_last_session() {
    in_pod(|| {
        let place = Entry::of("selenium").place().env("SE_REGISTRATION_SECRET", "hunter22");
        let node = selenium_node("hunter22", place.path("ended"));
        let mut agent = place.run(&NODE);
        wait_ready(&mut agent);
        let kubelet = agent.address();
        let hook = thread::spawn(move || {
            let begun = Instant::now();
            let answer = support::kubelet::Kubelet::of(kubelet).with_token(TOKEN).call("/shutdown");
            (answer.expect("an answer").json(), begun.elapsed())
        });
        // What it waits for can be seen.
        agent.wait_for("its reason in the status", |agent| {
            agent.get("/status").body.contains("/value/node/slots/0/session is an object").then_some(())
        });
        let (hook, took) = hook.join().expect("a hook");
        assert_eq!(hook["outcome"], "succeeded", "{hook:#}");
        assert!(took >= SESSION - CLOCKS && took < SESSION + BEAT, "{took:?}");
        assert_eq!(node.of("POST /se/grid/node/drain").len(), 1);
        agent.signal(libc::SIGTERM);
        assert_eq!(agent.end(), 0);
        assert!(!agent.log().contains("hunter22") && !hook.to_string().contains("hunter22"), "the secret is told");
    });
}

/// Refused, told and not waited for.
fn a_wrong_secret_is_told() {
    in_pod(|| {
        let place = Entry::of("selenium").place().env("SE_REGISTRATION_SECRET", "guess");
        let node = selenium_node("hunter22", place.path("ended"));
        let mut agent = place.run(&NODE);
        wait_ready(&mut agent);
        let stopped = stop(agent);
        assert_eq!(stopped.hook["outcome"], "failed");
        assert!(stopped.step("drain").contains("status 401"), "{}", stopped.step("drain"));
        assert!(stopped.took < AT_ONCE, "{:?}", stopped.took);
        assert_eq!(node.of("POST /se/grid/node/drain").len(), 1);
    });
}

/// Then the header is sent, and empty.
fn a_grid_may_have_no_secret() {
    in_pod(|| {
        let place = Entry::of("selenium").place();
        let _node = selenium_node("", place.path("ended"));
        stop(place.run(&NODE)).assert_succeeded();
    });
}

// ---- elasticsearch ----

/// A cluster with one node `pod-0` that demands them and a password. It answers the
/// first two registrations with 503, and is in progress for a while after the third.
const CLUSTER: &str = r#"
import base64, http.server, json, ssl, sys, time
folder, begun, failures, asked = sys.argv[1], None, 2, open(sys.argv[1] + "/asked", "a", buffering=1)
wanted = "Basic " + base64.b64encode(b"elastic-internal-pre-stop:" + open(folder + "/password-of-cluster", "rb").read().strip()).decode()
class Cluster(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *words): pass
    def say(self, status, text):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())
    def answer(self):
        global begun, failures
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        print(self.command, self.path, body.decode(), file=asked)
        if self.headers.get("Authorization") != wanted:
            return self.say(401, '{"error":{"type":"security_exception"},"status":401}')
        if self.path.startswith("/_cat/nodes"):
            return self.say(200, "aXwOPRIlTZe0 pod-1\nUSpTGYaBSIKb pod-0\n")
        if self.path != "/_nodes/USpTGYaBSIKb/shutdown":
            return self.say(404, "{}")
        if self.command == "PUT":
            if failures:
                failures -= 1
                return self.say(503, '{"error":{"type":"master_not_discovered_exception"},"status":503}')
            assert json.loads(body) == {"type": "restart", "reason": "pre-stop hook"}
            assert self.headers["Content-Type"] == "application/json"
            begun = time.monotonic()
            return self.say(200, '{"acknowledged":true}')
        if begun is None:
            return self.say(200, '{"nodes":[]}')
        status = "COMPLETE" if time.monotonic() - begun > 0.7 else "IN_PROGRESS"
        self.say(200, json.dumps({"nodes": [{"node_id": "USpTGYaBSIKb", "type": "RESTART", "status": status}]}))
    do_GET = do_PUT = answer
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(folder + "/tls/server.crt", folder + "/tls/server.key")
context.load_verify_locations(folder + "/tls/ca.crt")
context.verify_mode = ssl.CERT_REQUIRED
server = http.server.ThreadingHTTPServer(("127.0.0.1", 9200), Cluster)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
"#;

const CERTIFICATES: &str = "set -e; mkdir -p tls; cd tls
authority() { openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $1.key -out $1.crt -days 30 -subj /CN=$1; }
sign() {
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $1.key -out $1.csr -subj /CN=$1
    printf subjectAltName=DNS:localhost > $1.ext
    openssl x509 -req -in $1.csr -CA $2.crt -CAkey $2.key -CAcreateserial -days 30 -extfile $1.ext -out $1.crt
}
authority ca; authority other; sign server ca; sign tls ca; sign stranger other";

/// The hook of the manifest, with the paths of this place.
fn elasticsearch_hook(place: &Place) -> String {
    let manifest = read(&cookbook("elasticsearch/statefulset.yaml"));
    let script = manifest.split("                  - |\n").nth(1).expect("a script");
    let lines: Vec<&str> = script.lines().map_while(|line| line.strip_prefix("                    ")).collect();
    let script = lines.join("\n");
    assert!(script.ends_with("exec /boathook shutdown"), "{script}");
    let script =
        script.replace("/boathook", BOATHOOK).replace("/etc/es-tls", "@/tls").replace("/etc/es-users", "@/users");
    place.expand(&script)
}

fn make_certificates(place: &Place) {
    run(place, &["sh", "-c", CERTIFICATES]);
    fs::create_dir(place.path("users")).expect("made");
    place.write("users/password", "hunter22\n");
}

/// The minimum, shortened.
const MINIMUM: Duration = Duration::from_secs(3);

/// Runs the manifest's hook in a pod; `spoil` may change the configuration and the place's files before.
fn elasticsearch(spoil: impl FnOnce(&Place, Entry) -> Entry) -> Option<(Place, Said, Vec<String>)> {
    let python = needs("python3")?;
    let place = Place::bare().env("ES_HOST", "localhost").env("POD_NAME", "pod-0");
    make_certificates(&place);
    place.write("password-of-cluster", "hunter22\n");
    let entry = Entry::of("elasticsearch")
        .with("until = \"50s\"", &format!("until = \"{}s\"", MINIMUM.as_secs()))
        .with("timeout = \"2m\"", "timeout = \"2s\"")
        .with("interval = \"2s\"", "interval = \"200ms\"");
    let entry = spoil(&place, entry.with("/etc/es-users/password", "@/users/password"));
    let entry = entry.with("/etc/es-tls", "@/tls");
    let folder = place.folder().display().to_string();
    let _cluster = Beside::start(&place, "cluster.log", &[&python, "-c", CLUSTER, &folder]);
    until_accepts(9200);
    let place = entry.configure(place);
    let mut hook = Command::new("bash");
    hook.args(["-c", &elasticsearch_hook(&place)]);
    place.dress(&mut hook);
    let said = place.finish(hook);
    assert!(said.took >= MINIMUM - CLOCKS, "the minimum was not held: {said:?}");
    assert!(!said.stderr.contains("hunter22"), "the password is told: {said:?}");
    let asked = lines(&place, "asked");
    Some((place, said, asked))
}

#[test]
fn elasticsearch_registers_its_restart_and_stays_for_its_minimum() {
    together(&[
        elasticsearch_registers_its_restart,
        elasticsearch_without_its_id_registers_nothing,
        elasticsearch_tells_a_wrong_password,
        elasticsearch_demands_a_certificate_of_its_authority,
    ]);
}

fn elasticsearch_registers_its_restart() {
    in_pod(|| {
        let Some((_place, said, asked)) = elasticsearch(|_, entry| entry) else { return };
        assert_eq!(said.code, 0, "{said:?}");
        let registered = "PUT /_nodes/USpTGYaBSIKb/shutdown {\"type\": \"restart\", \"reason\": \"pre-stop hook\"}";
        assert_eq!(asked.iter().filter(|asked| *asked == registered).count(), 3, "503 is tried again: {asked:?}");
        let looks = asked.iter().filter(|asked| asked.starts_with("GET /_nodes/USpTGYaBSIKb/shutdown")).count();
        assert!(looks >= 2, "it did not wait: {asked:?}");
        let line = step_line(&said.stderr, "shards and tasks have moved");
        assert!(line.contains("outcome=\"succeeded\""), "{line}");
    });
}

fn elasticsearch_without_its_id_registers_nothing() {
    in_pod(|| {
        // The password is wrong from the beginning: nobody knows the node's id.
        let spoil = |place: &Place, entry| {
            place.write("users/password", "guess\n");
            entry
        };
        let Some((_place, said, asked)) = elasticsearch(spoil) else { return };
        assert!(said.stderr.contains("401"), "{said:?}");
        assert!(step_line(&said.stderr, "register the restart").contains("outcome=\"skipped\""), "{said:?}");
        assert!(!asked.iter().any(|asked| asked.starts_with("PUT")), "{asked:?}");
    });
}

fn elasticsearch_tells_a_wrong_password() {
    in_pod(|| {
        let spoil = |place: &Place, entry: Entry| {
            place.write("wrong", "guess\n");
            entry.with("@/users/password", "@/wrong")
        };
        let Some((_place, said, asked)) = elasticsearch(spoil) else { return };
        let line = step_line(&said.stderr, "register the restart");
        assert!(line.contains("outcome=\"failed\"") && line.contains("status 401"), "{line}");
        assert_eq!(asked.iter().filter(|asked| asked.starts_with("PUT")).count(), 1, "401 is tried again: {asked:?}");
    });
}

fn elasticsearch_demands_a_certificate_of_its_authority() {
    in_pod(|| {
        let spoil = |_: &Place, entry: Entry| {
            entry.with("/etc/es-tls/tls.", "@/tls/stranger.").with("retries = 7", "retries = 1")
        };
        let Some((_place, said, asked)) = elasticsearch(spoil) else { return };
        let line = step_line(&said.stderr, "register the restart");
        assert!(line.contains("the server refused our client certificate: UnknownCA"), "{line}");
        assert!(!asked.iter().any(|asked| asked.starts_with("PUT")), "{asked:?}");
    });
}

// ---- redpanda ----

/// What the admin API says of maintenance mode, as drain_manager.h has it: first nothing, then draining, then finished.
struct Broker {
    /// When maintenance mode was asked for.
    since: Option<Instant>,
    without_leader: u32,
}

impl Broker {
    fn answer(&mut self, asked: &Asked) -> (u16, String) {
        match asked.what.as_str() {
            "GET /v1/status/ready" => (200, "{\"status\":\"ready\"}".into()),
            "DELETE /v1/brokers/2/maintenance" if self.since.take().is_some() => (200, String::new()),
            "DELETE /v1/brokers/2/maintenance" => {
                (400, "{\"message\":\"Broker 2 is not in maintenance mode\",\"code\":400}".into())
            }
            "PUT /v1/brokers/2/maintenance" if self.without_leader > 0 => {
                self.without_leader -= 1;
                (
                    503,
                    "{\"message\":\"Currently there is no leader controller elected in the cluster\",\"code\":503}"
                        .into(),
                )
            }
            "PUT /v1/brokers/2/maintenance" => {
                self.since = Some(Instant::now());
                (200, String::new())
            }
            "GET /v1/maintenance" => {
                let since = self.since.map(|since| since.elapsed()).unwrap_or_default();
                let text = match since {
                    since if since < BEGUN => "{\"draining\":false}",
                    since if since < FINISHED => {
                        "{\"draining\":true,\"finished\":false,\"errors\":false,\"partitions\":9}"
                    }
                    _ => "{\"draining\":true,\"finished\":true,\"errors\":false,\"partitions\":9}",
                };
                (200, text.into())
            }
            _ => (404, String::new()),
        }
    }
}

/// Long enough for a loaded machine to have asked before it.
const BEGUN: Duration = Duration::from_millis(1500);
const FINISHED: Duration = Duration::from_millis(2300);

fn redpanda(entry: &Entry, broker: Broker) -> (StandIn, Stopped) {
    let mut broker = broker;
    // It listens some time after its container has started.
    let mut agent = entry.place().env("NODE_ID", "2").run(&MAIN);
    agent.wait_log("step started");
    let stand_in = StandIn::start(9644, move |asked| broker.answer(asked));
    wait_ready(&mut agent);
    (stand_in, stop(agent))
}

#[test]
fn redpanda_counts_as_drained_only_after_it_has_begun() {
    together(&[redpanda_is_drained, the_old_loop_is_not_enough, redpanda_never_begins]);
}

fn redpanda_is_drained() {
    in_pod(|| {
        // Its last life ended in maintenance mode.
        let broker = Broker { since: Some(Instant::now()), without_leader: 1 };
        let (asked, stopped) = redpanda(&Entry::of("redpanda"), broker);
        stopped.assert_succeeded();
        assert_eq!(asked.of("DELETE /v1/brokers/2/maintenance").len(), 1);
        let put = asked.of("PUT /v1/brokers/2/maintenance");
        assert_eq!(put.len(), 2, "503 is tried again");
        let drained = stopped.term - put[1].at;
        assert!(drained >= FINISHED - CLOCKS, "it went after {drained:?}");
        assert_eq!(stopped.code, 0);
    });
}

/// The control.
fn the_old_loop_is_not_enough() {
    in_pod(|| {
        // The control: the loop of the old hook, for which a status from before the drain is its end.
        let naive = Entry::of("redpanda")
            .with("\"/draining\", equals = true", "\"/draining\", equals = false")
            .with("\"/finished\", equals = true", "\"/draining\", equals = false");
        let (asked, stopped) = redpanda(&naive, Broker { since: None, without_leader: 0 });
        stopped.assert_succeeded();
        let drained = stopped.term - asked.of("PUT /v1/brokers/2/maintenance")[0].at;
        assert!(drained < BEGUN, "{drained:?}");
        // And a broker that was not in maintenance mode is ready all the same.
        let reports = stopped.agent.log();
        assert!(reports.contains("step=\"leave maintenance mode\" outcome=\"skipped\""), "{reports}");
    });
}

fn redpanda_never_begins() {
    in_pod(|| {
        // A broker that never begins: the hook fails, says what it saw, and takes no longer than that step.
        let entry = Entry::of("redpanda").with("timeout = \"20s\"", "timeout = \"600ms\"");
        let (_asked, stopped) = redpanda(&entry, Broker { since: None, without_leader: 0 });
        assert_eq!(stopped.hook["outcome"], "failed");
        let step = stopped.step("draining has begun");
        assert!(step.contains("/draining is false, wanted true"), "{step}");
    });
}

// ---- linkerd and istio ----

/// A proxy that gets ready after a while, and ends on POST alone: what asks for that, at which port, and the answer.
fn proxy(ready: (u16, &'static str), quit: (u16, &'static str), answer: u16) -> (StandIn, StandIn) {
    let begun = Instant::now();
    let is_ready = move |asked: &Asked| {
        let so_far = if begun.elapsed() < millis(700) { 503 } else { 200 };
        (if asked.what == format!("GET {}", ready.1) { so_far } else { 404 }, String::new())
    };
    let quits =
        move |asked: &Asked| (if asked.what == format!("POST {}", quit.1) { answer } else { 405 }, String::new());
    if ready.0 == quit.0 {
        let both = move |asked: &Asked| if asked.what.ends_with(ready.1) { is_ready(asked) } else { quits(asked) };
        let one = StandIn::start(ready.0, both);
        return (StandIn { asked: Arc::clone(&one.asked) }, one);
    }
    (StandIn::start(ready.0, is_ready), StandIn::start(quit.0, quits))
}

const ISTIO: [(u16, &str); 2] = [(15021, "/healthz/ready"), (15020, "/quitquitquit")];
const LINKERD: [(u16, &str); 2] = [(4191, "/ready"), (4191, "/shutdown")];

#[test]
fn a_job_and_its_proxy_wait_for_each_other() {
    together(&[
        || a_job_runs(Entry::of("linkerd-istio"), ISTIO),
        || a_job_runs(Entry::file("linkerd-istio", "linkerd.toml"), LINKERD),
        a_job_keeps_its_code,
        a_proxy_ends_after_its_job,
        a_proxy_is_quit_when_its_job_was_killed,
        a_job_is_not_started_without_its_proxy,
    ]);
}

/// It waits for the proxy, and then quits it.
fn a_job_runs(entry: Entry, [ready, quit]: [(u16, &'static str); 2]) {
    in_pod(move || {
        let (asked, quits) = proxy(ready, quit, 200);
        let begun = Instant::now();
        let mut agent = entry.place().run(&["sh", "-c", "echo ran > life; exit 7"]);
        assert_eq!(agent.end(), 7, "{}", agent.log());
        assert!(begun.elapsed() >= millis(700) - CLOCKS, "it did not wait");
        assert!(asked.of(&format!("GET {}", ready.1)).len() >= 2);
        assert_eq!((agent.place.read("life").as_str(), quits.of(&format!("POST {}", quit.1)).len()), ("ran\n", 1));
    });
}

/// Also when the proxy cannot be told to end.
fn a_job_keeps_its_code() {
    in_pod(|| {
        let [ready, quit] = ISTIO;
        let (_asked, quits) = proxy(ready, quit, 500);
        let mut agent = Entry::of("linkerd-istio").place().run(&["sh", "-c", "exit 7"]);
        assert_eq!(agent.end(), 7);
        assert_eq!(quits.of("POST /quitquitquit").len(), 3, "{}", agent.log());
    });
}

fn a_proxy_ends_after_its_job() {
    in_pod(|| {
        let [ready, quit] = ISTIO;
        let (_asked, quits) = proxy(ready, quit, 200);
        let script = "trap 'sleep 0.3; echo done > life; exit 0' TERM; echo up > life; while :; do sleep 0.05; done";
        let mut agent = Entry::of("linkerd-istio").place().run(&["sh", "-c", script]);
        agent.wait_file("life", "up");
        let begun = Instant::now();
        agent.signal(libc::SIGTERM);
        assert_eq!(agent.end(), 0);
        let quit = quits.of("POST /quitquitquit");
        assert_eq!((agent.place.read("life").as_str(), quit.len()), ("done\n", 1));
        assert!(quit[0].at - begun >= millis(300) - CLOCKS, "the proxy ended before the job");
    });
}

/// As for its memory.
fn a_proxy_is_quit_when_its_job_was_killed() {
    in_pod(|| {
        let [ready, quit] = ISTIO;
        let (_asked, quits) = proxy(ready, quit, 200);
        let mut agent = Entry::of("linkerd-istio").place().run(&["sh", "-c", "kill -9 $$"]);
        assert_eq!((agent.end(), quits.of("POST /quitquitquit").len()), (137, 1));
    });
}

fn a_job_is_not_started_without_its_proxy() {
    in_pod(|| {
        let entry = Entry::of("linkerd-istio").with("timeout = \"50s\"", "timeout = \"600ms\"");
        let mut agent = entry.place().run(&["sh", "-c", "echo ran > life"]);
        assert_eq!((agent.end(), agent.place.read("life").as_str()), (1, ""));
        assert!(agent.log().contains("127.0.0.1:15021"), "{}", agent.log());
    });
}

// ---- compose and ecs ----

/// nginx under `boathook run`, stopped by SIGTERM and nothing else, while clients of every kind use it.
fn stop_by_signal_alone(entry: Entry) {
    in_pod(move || {
        let place = entry.place();
        let Some(nginx) = nginx_of(&place) else { return };
        let words = [BOATHOOK, "run", "--", &nginx, "-p", "@/", "-c", "@/nginx.conf"];
        let load = Load { before: millis(1500), delay: millis(1500), ..Load::default() };
        let stop = stop_bare(&place, &Server::new("nginx", 8080, &words), &load, libc::SIGTERM);
        assert_eq!((stop.dropped(), stop.code, stop.was_killed), (0, 0, false), "{stop:?}");
        assert!(stop.requests > 50 && stop.gone >= load.delay, "{stop:?}");
    });
}

#[test]
fn the_stop_signal_alone_does_what_a_hook_does() {
    together(&[|| stop_by_signal_alone(Entry::of("compose")), || stop_by_signal_alone(Entry::of("ecs"))]);
}

#[test]
fn the_file_of_compose_fits() {
    let page = read(&cookbook("compose/README.md"));
    let file = read(&cookbook("compose/docker-compose.yml"));
    let shown = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block");
    assert!(file.contains(shown), "{shown}");
    let config = read(&cookbook("compose/boathook.toml"));
    assert!(file.contains("stop_grace_period: 30s ") && config.contains("grace-period = \"30s\""));
}

#[test]
fn the_file_of_ecs_fits() {
    let page = read(&cookbook("ecs/README.md"));
    let file = read(&cookbook("ecs/task-definition.json"));
    let shown = page.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block");
    assert!(file.contains(shown), "{shown}");
    let task: Value = serde_json::from_str(&file).expect("JSON");
    let timeout = &task["containerDefinitions"][0]["stopTimeout"];
    let config = read(&cookbook("ecs/boathook.toml"));
    assert!(config.contains(&format!("grace-period = \"{timeout}s\"")), "{timeout}");
    assert!(timeout.as_u64().is_some_and(|timeout| timeout <= 120), "more than Fargate allows");
}
