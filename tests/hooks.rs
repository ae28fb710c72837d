//! The hooks, as the kubelet, a person and the platform trigger them.

mod support;

use std::{
    net::{Shutdown, SocketAddr},
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use support::{
    Agent, BOATHOOK, MAIN, Place, Said,
    kubelet::{self, Kubelet, NoAnswer},
    until, without_time,
};

/// A step that holds its hook until the test lets go.
const HOLD: &str = "wait = { file = \"@/go\", interval = \"10ms\" }\n";

fn let_go(agent: &Agent) {
    agent.place.write("go", "");
}

/// Calls a hook in a thread of its own, as the kubelet.
fn call(address: SocketAddr, path: &'static str) -> thread::JoinHandle<Result<kubelet::Answer, NoAnswer>> {
    thread::spawn(move || Kubelet::of(address).call(path))
}

fn json(said: &Said) -> Value {
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("no JSON: {error}: {said:?}"))
}

/// The report of the newest run of a hook, asked for through the control socket.
#[track_caller]
fn report(agent: &Agent, hook: &str) -> Value {
    let reports = json(&agent.boathook(&["report", "--json"]));
    let newest = reports.as_array().and_then(|all| all.iter().rfind(|report| report["hook"] == hook));
    newest.cloned().unwrap_or_else(|| panic!("no {hook} in {reports}"))
}

/// `name: outcome` of every step.
fn outcomes(report: &Value) -> Vec<String> {
    let steps = report["steps"].as_array().expect("steps");
    let text = |step: &Value, key: &str| step[key].as_str().unwrap_or_default().to_owned();
    steps.iter().map(|step| format!("{}: {}", text(step, "name"), text(step, "outcome"))).collect()
}

/// Runs a pre-stop of these steps in an agent; gives its report.
#[track_caller]
fn pre_stop(steps: &str) -> (Value, Agent) {
    let mut agent = Place::with(steps).run(&MAIN);
    let answer = agent.get("/shutdown");
    assert_eq!(answer.status == 200, answer.json()["outcome"] == "succeeded", "{answer:?}");
    (answer.json(), agent)
}

// ------------------------------------------------------------------------------------------- post-start

#[test]
fn started_answers_at_once_and_readiness_waits_for_post_start() {
    let mut agent = Place::with(&format!("[[post-start.step]]\nname = \"warm\"\n{HOLD}")).run(&MAIN);
    let answer = agent.kubelet().call("/started").expect("an answer");
    assert_eq!((answer.status, answer.json()["outcome"].as_str()), (200, Some("running")));
    let not_ready = agent.get("/ready");
    assert_eq!(not_ready.status, 503);
    assert!(not_ready.body.starts_with("post-start: step \"warm\": "), "{not_ready:?}");
    assert_eq!(agent.get("/live").status, 200);
    let_go(&agent);
    agent.wait_for("readiness", |agent| (agent.get("/ready").status == 200).then_some(()));
}

#[test]
fn without_post_start_it_is_ready_as_soon_as_the_main_process_runs() {
    let mut agent = Place::with("").run(&MAIN);
    agent.wait_for("readiness", |agent| (agent.get("/ready").status == 200).then_some(()));
    assert_eq!(agent.get("/ready").body, "ready\n");
}

#[test]
fn started_waits_for_post_start_where_the_hook_is_gated() {
    let config = format!("[post-start]\ngate = \"hook\"\n[[post-start.step]]\n{HOLD}");
    let mut agent = Place::with(&config).run(&MAIN);
    let caller = call(agent.address(), "/started");
    agent.wait_log("step started");
    // Asked and answered on another connection after the hook's call: were that not held, it would be done by now.
    assert_eq!(agent.get("/ready").status, 503);
    assert!(!caller.is_finished(), "/started did not wait");
    let_go(&agent);
    let answer = caller.join().expect("a caller").expect("an answer");
    assert_eq!((answer.status, answer.json()["outcome"].as_str()), (200, Some("succeeded")));
    assert_eq!(agent.get("/ready").status, 200);
}

const FAILING: &str =
    "[post-start]\ngate = \"hook\"\n[[post-start.step]]\nname = \"app answers\"\nexec = [\"false\"]\n";

#[test]
fn a_failed_post_start_drops_the_kubelets_connection_without_a_byte() {
    let mut agent = Place::with(FAILING).run(&MAIN);
    // On a fresh connection: net/http does not retry.
    let mut kubelet = agent.kubelet();
    assert_eq!(kubelet.call("/started"), Err(NoAnswer::Dropped));
    assert_eq!((kubelet.connections, kubelet.requests), (1, 1));
    // On a reused one it does, on a fresh connection: both are dropped.
    let mut kubelet = agent.kubelet();
    assert_eq!(kubelet.call("/live").expect("an answer").status, 200);
    assert!(kubelet.has_idle(), "the connection was not kept alive");
    assert_eq!(kubelet.call("/started"), Err(NoAnswer::Dropped));
    assert_eq!((kubelet.connections, kubelet.requests), (2, 3));
    // Once: what the kubelet repeats is the same run.
    assert_eq!(agent.log().matches("hook started hook=\"post-start\"").count(), 1);
    let not_ready = agent.get("/ready");
    assert_eq!(not_ready.status, 503);
    assert!(not_ready.body.starts_with("failed: step \"app answers\": "), "{not_ready:?}");
}

#[test]
fn other_clients_are_told_why_post_start_failed() {
    let mut agent = Place::with(FAILING).run(&MAIN);
    for method in ["GET", "POST"] {
        let answer = kubelet::request(agent.address(), method, "/started", "");
        assert_eq!(answer.status, 500);
        assert_eq!(answer.json()["outcome"], "failed");
        assert_eq!(answer.json()["steps"][0]["reason"], "exit code 1", "{answer:?}");
    }
    let said = agent.boathook(&["started"]);
    assert_eq!((said.code, said.stdout.as_str()), (1, ""));
    assert_eq!(without_time(&said.stderr), "boathook: post-start failed: step \"app answers\": exit code 1\n");
}

#[test]
fn a_failed_post_start_behind_readiness_fails_no_hook() {
    let mut agent = Place::with(&FAILING.replace("\"hook\"", "\"readiness\"")).run(&MAIN);
    agent.wait_log("to=\"failed\"");
    assert_eq!(agent.kubelet().call("/started").expect("an answer").status, 200);
    assert_eq!(agent.get("/ready").status, 503);
}

#[test]
fn pre_stop_reuses_the_connection_of_post_start() {
    let mut agent =
        Place::with("[[pre-stop.step]]\nfile = { append = \"@/life\", content = \"pre-stop\\n\" }\n").run(&MAIN);
    agent.wait_file("life", "main");
    let mut kubelet = agent.kubelet();
    assert_eq!(kubelet.call("/started").expect("an answer").status, 200);
    assert_eq!(kubelet.call("/shutdown").expect("an answer").status, 200);
    assert_eq!((kubelet.connections, kubelet.requests), (1, 2));
    assert_eq!(agent.place.read("life"), "main\npre-stop\n");
}

// ------------------------------------------------------------------------------------------- one run

/// Goes on after TERM until the test lets it go, so that nobody's answer is lost with the agent.
const STAYS: [&str; 3] = [
    "sh",
    "-c",
    "trap 'echo TERM >> life; while [ ! -e end ]; do sleep 0.02; done; exit 0' TERM; echo main >> life; \
     while [ ! -e end ]; do sleep 0.02; done",
];

#[test]
fn twenty_triggers_at_once_are_one_run_with_one_report() {
    let config = "[[pre-stop.step]]\nexec = [\"sh\", \"-c\", \"echo ran >> @/runs; sleep 0.3\"]\nessential = true\n";
    let mut agent = Place::with(config).run(&STAYS);
    agent.wait_file("life", "main");
    let address = agent.address();
    let barrier = Arc::new(Barrier::new(20));
    let by_http: Vec<_> = (0..12)
        .map(|_| {
            let barrier = Arc::clone(&barrier);
            thread::spawn(move || {
                barrier.wait();
                Kubelet::of(address).call("/shutdown")
            })
        })
        .collect();
    let codes: Vec<i32> = thread::scope(|scope| {
        let by_command: Vec<_> = (0..7)
            .map(|_| {
                let (place, barrier) = (&agent.place, Arc::clone(&barrier));
                scope.spawn(move || {
                    barrier.wait();
                    place.boathook(&["shutdown"]).code
                })
            })
            .collect();
        barrier.wait();
        agent.signal(libc::SIGTERM);
        by_command.into_iter().map(|thread| thread.join().expect("a caller")).collect()
    });
    let answers: Vec<kubelet::Answer> =
        by_http.into_iter().map(|thread| thread.join().expect("a caller").expect("an answer")).collect();
    agent.wait_file("life", "TERM");
    assert_eq!(agent.place.read("runs"), "ran\n");
    assert_eq!(codes, [0; 7]);
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body == answers[0].body), "{answers:?}");
    // Who comes later gets it as well.
    let later = agent.kubelet().call("/shutdown").expect("an answer");
    assert_eq!(later.body, answers[0].body);
    assert_eq!(answers[0].json(), report(&agent, "pre-stop"));
    assert_eq!(agent.place.read("runs"), "ran\n");
    agent.place.write("end", "");
    assert_eq!(agent.end(), 0);
}

#[test]
fn a_caller_that_goes_away_cancels_nothing() {
    let config = format!(
        "[[pre-stop.step]]\n{HOLD}[[pre-stop.step]]\nfile = {{ append = \"@/life\", content = \"pre-stop\\n\" }}\n"
    );
    let mut agent = Place::with(&config).run(&MAIN);
    agent.wait_file("life", "main");
    let stream = kubelet::send(agent.address(), "GET", "/shutdown", "").expect("sent");
    agent.wait_log("step started");
    stream.shutdown(Shutdown::Both).expect("open");
    drop(stream);
    // The subcommand's process may be killed as well.
    let mut command = agent.place.command(&["shutdown"]).spawn().expect("it starts");
    agent.wait_log("joined the hook");
    command.kill().expect("ours");
    command.wait().expect("ours");
    let_go(&agent);
    agent.wait_file("life", "pre-stop");
    agent.wait_log("to=\"drained\"");
    assert_eq!(report(&agent, "pre-stop")["outcome"], "succeeded");
}

// ------------------------------------------------------------------------------------------- SIGTERM

#[test]
fn sigterm_runs_pre_stop_and_then_passes_the_signal_on() {
    let config = "[[pre-stop.step]]\nexec = [\"sh\", \"-c\", \"sleep 0.1; echo pre-stop >> @/life\"]\n\
                  [[post-stop.step]]\nfile = { append = \"@/life\", content = \"post-stop\\n\" }\n";
    let mut agent = Place::with(config).run(&MAIN);
    agent.wait_file("life", "main");
    agent.signal(libc::SIGTERM);
    assert_eq!(agent.end(), 0);
    assert_eq!(agent.place.read("life"), "main\npre-stop\nTERM\npost-stop\n");
    assert!(agent.log().contains("hook started hook=\"pre-stop\" trigger=\"SIGTERM\""), "{}", agent.log());
}

#[test]
fn sigterm_after_pre_stop_is_passed_on_at_once() {
    let took = (0..5)
        .map(|_| {
            let config = "[[pre-stop.step]]\nfile = { append = \"@/life\", content = \"pre-stop\\n\" }\n";
            let mut agent = Place::with(config).run(&MAIN);
            agent.wait_file("life", "main");
            assert_eq!(agent.kubelet().call("/shutdown").expect("an answer").status, 200);
            let begun = Instant::now();
            agent.signal(libc::SIGTERM);
            agent.wait_file("life", "TERM");
            let took = begun.elapsed();
            assert_eq!(agent.end(), 0);
            assert_eq!(agent.place.read("life"), "main\npre-stop\nTERM\n");
            took
        })
        .min();
    // The best of five: what a busy machine adds is not the agent's.
    assert!(took < Some(Duration::from_millis(100)), "{took:?}");
}

#[test]
fn sigterm_during_pre_stop_gives_up_what_is_not_essential() {
    let config = "[[pre-stop.step]]\nname = \"drain\"\nsleep = \"20s\"\n\
                  [[pre-stop.step]]\nname = \"state\"\nexec = [\"sh\", \"-c\", \"echo state >> @/life\"]\nessential = true\n\
                  [[pre-stop.step]]\nname = \"goodbye\"\nfile = { append = \"@/life\", content = \"goodbye\\n\" }\n";
    let mut agent = Place::with(config).run(&MAIN);
    agent.wait_file("life", "main");
    let caller = call(agent.address(), "/shutdown");
    agent.wait_log("step started");
    let begun = Instant::now();
    agent.signal(libc::SIGTERM);
    agent.wait_file("life", "TERM");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(agent.end(), 0);
    assert_eq!(agent.place.read("life"), "main\nstate\nTERM\n");
    let answer = caller.join().expect("a caller").expect("an answer");
    let report = answer.json();
    assert_eq!(outcomes(&report), ["drain: given-up", "state: succeeded", "goodbye: given-up"]);
    assert_eq!((&report["hurried"], &report["outcome"]), (&Value::Bool(true), &"failed".into()));
    assert_eq!(report["reason"], "the stop signal came before it was done; given up: drain, goodbye");
}

#[test]
fn after_a_hurry_the_main_process_keeps_the_rest_of_its_two_seconds() {
    // The grace period is over by then, and without a post-stop nothing has to follow: killing is the platform's.
    let config = "grace-period = \"2s\"\n[[pre-stop.step]]\nsleep = \"20s\"\n";
    let slow = [
        "sh",
        "-c",
        "trap 'sleep 1; echo ended >> @/life; exit 7' TERM; echo main >> @/life; while :; do sleep 0.05; done",
    ];
    let mut agent = Place::with(config).run(&slow);
    agent.wait_file("life", "main");
    let caller = call(agent.address(), "/shutdown");
    agent.wait_log("step started");
    agent.signal(libc::SIGTERM);
    assert_eq!(agent.end(), 7);
    assert_eq!(agent.place.read("life"), "main\nended\n");
    assert!(caller.join().expect("a caller").is_ok());
}

#[test]
fn a_hurried_essential_step_that_hangs_does_not_hold_the_signal() {
    let config = "[[pre-stop.step]]\nname = \"first\"\nsleep = \"20s\"\n\
                  [[pre-stop.step]]\nname = \"hangs\"\nexec = [\"sh\", \"-c\", \"trap '' TERM; sleep 60\"]\nessential = true\n\
                  [[pre-stop.step]]\nname = \"last\"\nfile = { append = \"@/life\", content = \"last\\n\" }\nessential = true\n";
    let mut agent = Place::with(config).run(&MAIN);
    agent.wait_file("life", "main");
    agent.signal(libc::SIGTERM);
    agent.wait_log("step started");
    let begun = Instant::now();
    agent.signal(libc::SIGTERM);
    assert_eq!(agent.end(), 0);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(agent.place.read("life"), "main\nlast\nTERM\n");
    until("nothing is left", || agent.place.processes().is_empty().then_some(()));
}

#[test]
fn a_third_stop_signal_waits_for_nothing() {
    let config = "[[pre-stop.step]]\nname = \"first\"\nsleep = \"20s\"\n\
                  [[pre-stop.step]]\nname = \"state\"\nexec = [\"sleep\", \"60\"]\nessential = true\n";
    let mut agent = Place::with(config).run(&MAIN);
    agent.wait_file("life", "main");
    agent.signal(libc::SIGTERM);
    agent.wait_log("step=\"first\"");
    agent.signal(libc::SIGTERM);
    agent.wait_log("step=\"state\"");
    let begun = Instant::now();
    agent.signal(libc::SIGTERM);
    agent.wait_file("life", "TERM");
    // The second alone would have waited for 1.5 s.
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    agent.wait_log("a further stop signal: passed on without waiting");
    assert_eq!(agent.end(), 0);
}

#[test]
fn the_stop_signal_is_rewritten_where_asked() {
    let mut agent = Place::with("[app]\nstop-signal = \"QUIT\"\n").run(&MAIN);
    agent.wait_file("life", "main");
    agent.signal(libc::SIGTERM);
    assert_eq!(agent.end(), 0);
    assert_eq!(agent.place.read("life"), "main\nQUIT\n");
}

#[test]
fn other_signals_are_passed_on_and_stop_nothing() {
    let config = "[app]\nstop-on = [\"USR2\"]\nstop-signal = \"INT\"\n\
                  [[pre-stop.step]]\nfile = { append = \"@/life\", content = \"pre-stop\\n\" }\n";
    let mut agent = Place::with(config).run(&MAIN);
    agent.wait_file("life", "main");
    for (signal, name) in [(libc::SIGHUP, "HUP"), (libc::SIGUSR1, "USR1"), (libc::SIGWINCH, "WINCH")] {
        agent.signal(signal);
        agent.wait_file("life", name);
    }
    // This one is what stops here.
    agent.signal(libc::SIGUSR2);
    assert_eq!(agent.end(), 0);
    assert_eq!(agent.place.read("life"), "main\nHUP\nUSR1\nWINCH\npre-stop\nINT\n");
}

#[test]
fn a_signal_that_does_not_stop_is_passed_on_without_pre_stop() {
    let config =
        "[app]\nstop-on = [\"USR2\"]\n[[pre-stop.step]]\nfile = { append = \"@/life\", content = \"pre-stop\\n\" }\n";
    let mut agent = Place::with(config).run(&MAIN);
    agent.wait_file("life", "main");
    agent.signal(libc::SIGTERM);
    assert_eq!(agent.end(), 0);
    assert_eq!(agent.place.read("life"), "main\nTERM\n");
}

// ------------------------------------------------------------------------------------------- readiness and un-drain

#[test]
fn a_pre_stop_that_no_signal_follows_is_undone_and_may_run_again() {
    let config = "[pre-stop]\nundrain-after = \"500ms\"\n[[pre-stop.step]]\nfile = { append = \"@/life\", content = \"pre-stop\\n\" }\n";
    let mut agent = Place::with(config).run(&MAIN);
    agent.wait_file("life", "main");
    assert_eq!(agent.kubelet().call("/shutdown").expect("an answer").status, 200);
    assert_eq!(agent.get("/ready").status, 503);
    agent.wait_log("no stop signal followed pre-stop: it is undone, the hook may run again");
    agent.wait_for("readiness", |agent| (agent.get("/ready").status == 200).then_some(()));
    assert_eq!(agent.kubelet().call("/shutdown").expect("an answer").status, 200);
    assert_eq!(agent.place.read("life"), "main\npre-stop\npre-stop\n");
    // Both runs can be told of.
    let reports = json(&agent.boathook(&["report", "--json"]));
    let count = reports.as_array().expect("a list").iter().filter(|report| report["hook"] == "pre-stop").count();
    assert_eq!(count, 2, "{reports}");
    // And the signal, when it does come, is passed on at once.
    agent.signal(libc::SIGTERM);
    assert_eq!(agent.end(), 0);
    assert_eq!(agent.place.read("life"), "main\npre-stop\npre-stop\nTERM\n");
}

#[test]
fn a_pre_stop_that_a_signal_follows_is_not_undone() {
    let mut agent = Place::with("[pre-stop]\nundrain-after = \"300ms\"\n").run(&STAYS);
    agent.wait_file("life", "main");
    assert_eq!(agent.kubelet().call("/shutdown").expect("an answer").status, 200);
    agent.signal(libc::SIGTERM);
    agent.wait_file("life", "TERM");
    // Longer than the agent would wait: the time itself is what is tested.
    thread::sleep(Duration::from_millis(600));
    assert!(!agent.log().contains("undone"), "{}", agent.log());
    assert_eq!(agent.get("/ready").status, 503);
}

#[test]
fn readiness_is_false_from_the_first_moment_of_pre_stop() {
    let ask = format!("exec = [\"sh\", \"-c\", \"{BOATHOOK} ready > @/NAME; echo $? >> @/NAME\"]\n");
    let config = format!(
        "[[post-start.step]]\n{}\n[[pre-stop.step]]\n{}",
        ask.replace("NAME", "post-start"),
        ask.replace("NAME", "pre-stop")
    );
    let mut agent = Place::with(&config).run(&MAIN);
    agent.wait_for("readiness", |agent| (agent.get("/ready").status == 200).then_some(()));
    let ready = agent.boathook(&["ready"]);
    assert_eq!((ready.code, ready.stdout.as_str()), (0, "ready\n"));
    assert_eq!(agent.kubelet().call("/shutdown").expect("an answer").status, 200);
    assert_eq!(agent.place.read("post-start"), "post-start: step \"exec\": the command runs\n1\n");
    assert_eq!(agent.place.read("pre-stop"), "pre-stop: step \"exec\": the command runs\n1\n");
}

// ------------------------------------------------------------------------------------------- the main process's end

const AFTER: &str = "[[pre-stop.step]]\nname = \"drain\"\nfile = { append = \"@/life\", content = \"drain\\n\" }\n\
                     [[pre-stop.step]]\nname = \"state\"\nfile = { append = \"@/life\", content = \"state\\n\" }\nessential = true\n\
                     [[post-stop.step]]\nfile = { append = \"@/life\", content = \"post-stop\\n\" }\n";

#[test]
fn when_the_main_process_ends_by_itself_essential_steps_and_post_stop_run() {
    for (script, code) in [("exit 7", 7), ("exit 0", 0), ("kill -KILL $$", 137)] {
        let mut agent = Place::with(AFTER).run(&["sh", "-c", script]);
        assert_eq!(agent.end(), code, "{script}");
        assert_eq!(agent.place.read("life"), "state\npost-stop\n", "{script}");
    }
}

#[test]
fn a_main_process_that_cannot_be_started_has_the_shells_exit_code() {
    let place = Place::with(AFTER);
    place.write("not-executable", "text");
    let said = place.boathook(&["run", "--", "@/nowhere"]);
    assert_eq!(said.code, 127);
    assert_eq!(
        said.stderr.lines().last(),
        Some(place.expand("boathook: @/nowhere: not found in the image").as_str()),
        "{said:?}"
    );
    let said = place.boathook(&["run", "--", "@/not-executable"]);
    assert_eq!(said.code, 126);
    assert_eq!(place.read("life"), "", "nothing had begun, so nothing has to be undone");
}

#[test]
fn when_pre_start_fails_the_main_process_is_not_started() {
    let mut agent =
        Place::with("[[pre-start.step]]\nname = \"migrate\"\nexec = [\"sh\", \"-c\", \"exit 3\"]\n").run(&MAIN);
    assert_eq!(agent.end(), 1);
    assert_eq!(agent.place.read("life"), "");
    assert!(agent.log().contains("pre-start failed: the main process is not started"), "{}", agent.log());
    let message = agent.place.read("termination");
    assert!(message.starts_with("boathook: pre-start failed after "), "{message}");
    assert!(message.ends_with(": step \"migrate\": exit code 3\n"), "{message}");
}

#[test]
fn a_pre_start_step_may_fail_where_it_may() {
    let config = "[[pre-start.step]]\nexec = [\"false\"]\non-failure = \"continue\"\n\
                  [[pre-start.step]]\nfile = { append = \"@/life\", content = \"pre-start\\n\" }\n";
    let mut agent = Place::with(config).run(&MAIN);
    agent.wait_file("life", "main");
    assert_eq!(agent.place.read("life"), "pre-start\nmain\n");
}

#[test]
fn sigterm_in_pre_start_ends_it_without_a_main_process() {
    let config =
        format!("[[pre-start.step]]\n{HOLD}[[pre-stop.step]]\nfile = {{ touch = \"@/pre-stop\" }}\nessential = true\n");
    let mut agent = Place::with(&config).run(&MAIN);
    agent.wait_log("step started");
    let begun = Instant::now();
    agent.signal(libc::SIGTERM);
    assert_eq!(agent.end(), 143);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(agent.place.read("life"), "");
    assert!(!agent.place.exists("pre-stop"), "half-restored state was saved");
}

#[test]
fn shutdown_in_pre_start_gives_it_up() {
    let mut agent = Place::with(&format!("[[pre-start.step]]\n{HOLD}")).run(&MAIN);
    agent.wait_log("step started");
    let answer = agent.kubelet().call("/shutdown").expect("an answer");
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json()["reason"],
        "the main process had not started: pre-start is given up, and there is nothing to drain or to save"
    );
    assert_eq!(agent.end(), 143);
    assert_eq!(agent.place.read("life"), "");
}

const STUBBORN: [&str; 3] = ["sh", "-c", "trap '' TERM; echo main >> life; while :; do sleep 0.05; done"];

#[test]
fn a_main_process_that_ignores_the_stop_signal_is_killed_in_time_for_post_stop() {
    let config = "grace-period = \"3s\"\nstop-reserve = \"1s\"\n\
                  [[post-stop.step]]\nfile = { append = \"@/life\", content = \"post-stop\\n\" }\n";
    let mut agent = Place::with(config).run(&STUBBORN);
    agent.wait_file("life", "main");
    let begun = Instant::now();
    agent.signal(libc::SIGTERM);
    assert_eq!(agent.end(), 137);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(3), "the platform's KILL came first: {took:?}");
    assert!(took > Duration::from_millis(1500), "the main process was not given its time: {took:?}");
    assert_eq!(agent.place.read("life"), "main\npost-stop\n");
    assert_eq!(
        agent.place.read("termination"),
        "boathook: the main process did not end in time after its stop signal: killed (grace period 3s)\n"
    );
}

#[test]
fn without_a_grace_period_killing_is_left_to_the_platform() {
    let mut agent = Place::with("").run(&STUBBORN);
    agent.wait_file("life", "main");
    agent.signal(libc::SIGTERM);
    agent.wait_log("stop signal passed on");
    thread::sleep(Duration::from_millis(500));
    assert_eq!(agent.ended(), None);
    // The default is long, so the agent's own intention is what tells.
    assert!(!agent.log().contains("killed"), "{}", agent.log());
}

// ------------------------------------------------------------------------------------------- exec hooks

#[test]
fn thirty_exec_hooks_at_once_without_an_agent_run_the_plan_once() {
    let config =
        format!("[[pre-stop.step]]\nfile = {{ append = \"@/runs\", content = \"ran\\n\" }}\n[[pre-stop.step]]\n{HOLD}");
    let place = Place::with(&config);
    let mut hooks: Vec<_> = (0..30)
        .map(|_| {
            let log = std::fs::OpenOptions::new().create(true).append(true).open(place.path("log")).expect("a file");
            place.command(&["shutdown"]).stderr(log).spawn().expect("it starts")
        })
        .collect();
    until("all but one joined", || (place.read("log").matches("joined the hook").count() == 29).then_some(()));
    place.write("go", "");
    for hook in &mut hooks {
        assert!(hook.wait().expect("ours").success());
    }
    assert_eq!(place.read("runs"), "ran\n");
    // The next life of the container has a run of its own.
    assert_eq!(place.boathook(&["shutdown"]).code, 0);
    assert_eq!(place.read("runs"), "ran\nran\n");
}

#[test]
fn when_the_leading_exec_hook_is_killed_the_next_one_runs_the_plan() {
    let config =
        format!("[[pre-stop.step]]\nfile = {{ append = \"@/runs\", content = \"ran\\n\" }}\n[[pre-stop.step]]\n{HOLD}");
    let mut leader = Place::with(&config).start(&["shutdown"]);
    leader.wait_file("runs", "ran");
    let mut next = leader.place.command(&["shutdown"]).spawn().expect("it starts");
    leader.wait_log("joined the hook");
    leader.signal(libc::SIGKILL);
    assert_eq!(leader.end(), 137);
    until("the next runs it", || (leader.place.read("runs") == "ran\nran\n").then_some(()));
    leader.place.write("go", "");
    assert!(next.wait().expect("ours").success());
    assert_eq!(leader.place.read("runs"), "ran\nran\n");
}

#[test]
fn an_exec_hook_finds_the_agent_and_the_agent_runs_it() {
    let config = "[[pre-stop.step]]\nexec = [\"sh\", \"-c\", \"echo from the step; ps -o ppid= -p $$ > @/parent\"]\n";
    let mut agent = Place::with(config).run(&MAIN);
    agent.wait_file("life", "main");
    let said = agent.boathook(&["shutdown"]);
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (0, "", ""));
    assert_eq!(agent.place.read("parent").trim(), agent.pid().to_string());
    assert!(agent.log().contains("from the step"), "{}", agent.log());
    let trigger = report(&agent, "pre-stop")["trigger"].as_str().expect("text").to_owned();
    assert!(agent.log().contains(&trigger), "{trigger}");
    // The event that follows finds it done.
    agent.signal(libc::SIGTERM);
    assert_eq!(agent.end(), 0);
    assert_eq!(agent.log().matches("hook started hook=\"pre-stop\"").count(), 1);
}

#[test]
fn a_failed_exec_hook_says_one_line_on_stderr() {
    let config = "[[pre-stop.step]]\nname = \"leave\"\nexec = [\"sh\", \"-c\", \"exit 9\"]\n[log]\nlevel = \"error\"\n";
    let place = Place::with(config);
    let said = place.boathook(&["shutdown"]);
    assert_eq!((said.code, said.stdout.as_str()), (1, ""));
    assert_eq!(without_time(&said.stderr), "boathook: pre-stop failed: step \"leave\": exit code 9\n");
}

// ------------------------------------------------------------------------------------------- serve

#[test]
fn serve_has_the_hooks_and_ends_with_pre_stop() {
    let config = "[[post-start.step]]\nfile = { append = \"@/life\", content = \"post-start\\n\" }\n\
                  [[pre-stop.step]]\nfile = { append = \"@/life\", content = \"pre-stop\\n\" }\n";
    let mut agent = Place::with(config).start(&["serve"]);
    // Nobody has asked for post-start yet.
    assert_eq!(agent.get("/ready").status, 503);
    let mut kubelet = agent.kubelet();
    assert_eq!(kubelet.call("/started").expect("an answer").json()["outcome"], "succeeded");
    assert_eq!(agent.get("/ready").status, 200);
    agent.signal(libc::SIGTERM);
    assert_eq!(agent.end(), 0);
    assert_eq!(agent.place.read("life"), "post-start\npre-stop\n");
}

#[test]
fn sigterm_to_serve_after_pre_stop_runs_nothing_twice() {
    let mut agent =
        Place::with("[[pre-stop.step]]\nfile = { append = \"@/life\", content = \"pre-stop\\n\" }\n").start(&["serve"]);
    assert_eq!(agent.kubelet().call("/shutdown").expect("an answer").status, 200);
    agent.signal(libc::SIGTERM);
    assert_eq!(agent.end(), 0);
    assert_eq!(agent.place.read("life"), "pre-stop\n");
}

#[test]
fn a_second_sigterm_to_serve_hurries_it() {
    let config = "[[pre-stop.step]]\nsleep = \"20s\"\n\
                  [[pre-stop.step]]\nfile = { append = \"@/life\", content = \"state\\n\" }\nessential = true\n";
    let mut agent = Place::with(config).start(&["serve"]);
    agent.address();
    agent.signal(libc::SIGTERM);
    agent.wait_log("step started");
    let begun = Instant::now();
    agent.signal(libc::SIGTERM);
    assert_eq!(agent.end(), 0);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(agent.place.read("life"), "state\n");
}

/// The log of a background agent is PID 1's stderr; here that must not be the machine's.
const QUIET_LOG: &str = "\n[log]\nlevel = \"error\"\ntermination-message = \"@/termination\"\n";

/// The agent in the background, by its control socket.
fn status(place: &Place) -> Value {
    json(&place.boathook(&["status", "--json"]))
}

#[test]
fn serve_in_the_background_ends_its_foreground_half_when_it_listens() {
    let place = Place::with(QUIET_LOG);
    let said = place.boathook(&["serve", "--background"]);
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (0, "", ""));
    // No waiting: it can be called as soon as the command has ended.
    let first = status(&place);
    let address: SocketAddr = first["listen"].as_str().expect("an address").parse().expect("an address");
    assert_ne!(address.port(), 0, "{first}");
    assert_eq!(Kubelet::of(address).call("/started").expect("an answer").status, 200);
    let agents = place.processes();
    assert_eq!(agents.len(), 1, "{agents:?}");
    // Hooks are delivered at least once: a second one finds the first and is content.
    let said = place.boathook(&["serve", "--background"]);
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (0, "", ""));
    assert_eq!(place.processes(), agents);
    // In the foreground that is refused.
    let said = place.boathook(&["serve"]);
    assert_eq!(said.code, 70);
    assert!(said.stderr.starts_with("boathook: an agent runs here already: "), "{said:?}");
    support::send(agents[0], libc::SIGTERM);
    until("it ends", || place.processes().is_empty().then_some(()));
}

#[test]
fn serve_in_the_background_passes_on_why_it_did_not_start() {
    let place = Place::with("grace-perid = \"30s\"\n");
    let foreground = place.boathook(&["serve"]);
    let background = place.boathook(&["serve", "--background"]);
    assert_eq!((background.code, background.stdout.as_str()), (78, ""));
    assert_eq!(background.stderr, foreground.stderr);
    assert!(background.stderr.contains("unknown key `grace-perid`"), "{background:?}");
    assert_eq!(place.processes(), [0; 0]);
}

#[test]
fn serve_in_the_background_can_be_the_whole_post_start_hook() {
    let place = Place::with(&format!(
        "[[post-start.step]]\nfile = {{ append = \"@/life\", content = \"post-start\\n\" }}\n{QUIET_LOG}"
    ));
    for _ in 0..2 {
        let said = place.boathook(&["serve", "--background", "--started"]);
        assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (0, "", ""));
        assert_eq!(place.read("life"), "post-start\n");
    }
    assert_eq!(place.boathook(&["ready"]).code, 0);

    let place = Place::with(&format!("[[post-start.step]]\nname = \"app\"\nexec = [\"false\"]\n{QUIET_LOG}"));
    let said = place.boathook(&["serve", "--background", "--started"]);
    assert_eq!(said.code, 1);
    assert_eq!(without_time(&said.stderr), "boathook: post-start failed: step \"app\": exit code 1\n");
}

// ------------------------------------------------------------------------------------------- steps

#[test]
fn a_hundred_failing_steps_still_make_a_short_answer() {
    let step = |index: usize| {
        format!(
            "[[pre-stop.step]]\nname = \"step {index} with a name as long as somebody may well give it\"\n\
             exec = [\"sh\", \"-c\", \"echo a reason that goes on and on, as reasons do, and then goes on some more >&2; exit 3\"]\n\
             on-failure = \"continue\"\nwhen = {{ file-missing = \"@/nowhere\" }}\n"
        )
    };
    let mut agent = Place::with(&(0..100).map(step).collect::<String>()).run(&MAIN);
    let answer = agent.kubelet().call("/shutdown").expect("an answer");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["outcome"], "succeeded");
    assert!(answer.head.len() + answer.body.len() < 10 * 1024, "{} bytes", answer.body.len());
    // All of it stands in the report.
    assert_eq!(report(&agent, "pre-stop")["steps"].as_array().expect("steps").len(), 100);
}

#[test]
fn a_failed_step_aborts_the_hook_unless_it_may_fail() {
    let steps = |on_failure: &str| {
        format!(
            "[[pre-stop.step]]\nname = \"a\"\nexec = [\"false\"]\n{on_failure}\
             [[pre-stop.step]]\nname = \"b\"\nsleep = \"1ms\"\n\
             [[pre-stop.step]]\nname = \"c\"\nsleep = \"1ms\"\nessential = true\n"
        )
    };
    let (report, _agent) = pre_stop(&steps(""));
    assert_eq!(outcomes(&report), ["a: failed", "b: skipped", "c: succeeded"]);
    assert_eq!((&report["outcome"], &report["reason"]), (&"failed".into(), &"step \"a\": exit code 1".into()));
    let (report, _agent) = pre_stop(&steps("on-failure = \"continue\"\n"));
    assert_eq!(outcomes(&report), ["a: failed", "b: succeeded", "c: succeeded"]);
    assert_eq!((&report["outcome"], &report["reason"]), (&"succeeded".into(), &Value::Null));
}

#[test]
fn a_step_is_retried_with_growing_pauses() {
    // Succeeds at the third attempt.
    let script = "echo x >> @/tries; [ $(wc -l < @/tries) -ge 3 ]";
    let config =
        format!("[[pre-stop.step]]\nexec = [\"sh\", \"-c\", \"{script}\"]\nretries = 5\nbackoff = \"150ms\"\n");
    let (report, agent) = pre_stop(&config);
    assert_eq!((&report["outcome"], &report["steps"][0]["tries"]), (&"succeeded".into(), &3.into()), "{report}");
    assert_eq!(agent.place.read("tries").lines().count(), 3);
    let took = report["took"].as_f64().expect("a number");
    assert!(took >= 0.450, "the second pause is twice the first: {took}");

    let (report, _agent) =
        pre_stop("[[pre-stop.step]]\nname = \"a\"\nexec = [\"false\"]\nretries = 2\nbackoff = \"10ms\"\n");
    assert_eq!(report["reason"], "step \"a\": exit code 1 (after 3 attempts)");
}

#[test]
fn an_attempt_that_hangs_is_cut_and_the_next_one_runs() {
    let script = "echo x >> @/tries; [ $(wc -l < @/tries) -ge 2 ] || sleep 60";
    let config = format!(
        "[[pre-stop.step]]\nexec = [\"sh\", \"-c\", \"{script}\"]\nretries = 1\nbackoff = \"10ms\"\nattempt-timeout = \"300ms\"\n"
    );
    let (report, _agent) = pre_stop(&config);
    assert_eq!((&report["outcome"], &report["steps"][0]["tries"]), (&"succeeded".into(), &2.into()), "{report}");
    let (report, _agent) = pre_stop("[[pre-stop.step]]\nname = \"a\"\nsleep = \"20s\"\nattempt-timeout = \"50ms\"\n");
    let reason = report["reason"].as_str().expect("text");
    assert!(reason.starts_with("step \"a\": the attempt timed out after 50ms"), "{reason}");
}

#[test]
fn a_step_whose_condition_does_not_hold_is_skipped() {
    for (when, outcome, reason) in [
        ("file-exists = \"@/there\"", "succeeded", ""),
        ("file-exists = \"@/nowhere\"", "skipped", "@/nowhere does not exist"),
        ("file-missing = \"@/nowhere\"", "succeeded", ""),
        ("file-missing = \"@/there\"", "skipped", "@/there exists"),
        ("file-contains = { file = \"@/there\", text = \"on\" }", "succeeded", ""),
        ("file-contains = { file = \"@/there\", text = \"off\" }", "skipped", "@/there does not contain \"off\""),
        ("file-contains = { file = \"@/nowhere\", text = \"on\" }", "skipped", "@/nowhere does not exist"),
        ("env = { ROLE = \"primary\" }", "succeeded", ""),
        ("env = { ROLE = \"replica\" }", "skipped", "the environment variable ROLE is not \"replica\""),
        ("env = { NOBODY_SETS_THIS = \"\" }", "succeeded", ""),
        ("command = [\"true\"]", "succeeded", ""),
        ("command = [\"sh\", \"-c\", \"exit 4\"]", "skipped", "the condition's command failed: exit code 4"),
        ("file-exists = \"@/there\", command = [\"false\"]", "skipped", "the condition's command failed: exit code 1"),
        ("file-contains = { file = \"@/\", text = \"on\" }", "failed", ""),
    ] {
        let config = format!("[[pre-stop.step]]\nsleep = \"1ms\"\nwhen = {{ {when} }}\n");
        let place = Place::with(&config).env("ROLE", "primary");
        place.write("there", "mode=on");
        let mut agent = place.run(&MAIN);
        let step = agent.get("/shutdown").json()["steps"][0].clone();
        assert_eq!(step["outcome"], outcome, "{when}: {step}");
        if outcome != "failed" {
            assert_eq!(step["reason"].as_str().unwrap_or_default(), agent.place.expand(reason), "{when}");
        }
    }
}

#[test]
fn the_steps_of_a_group_run_side_by_side() {
    // Each waits for what the other does: one after the other they cannot end.
    let steps = "{ name = \"a\", exec = [\"sh\", \"-c\", \"touch @/a; while [ ! -e @/b ]; do sleep 0.01; done\"] }, \
                 { name = \"b\", exec = [\"sh\", \"-c\", \"touch @/b; while [ ! -e @/a ]; do sleep 0.01; done\"] }";
    let (report, _agent) = pre_stop(&format!("[[pre-stop.step]]\ngroup = [ {steps} ]\n"));
    assert_eq!(outcomes(&report), ["group: succeeded"], "{report}");
    let (report, _agent) = pre_stop(&format!("pre-stop.deadline = \"600ms\"\npre-stop.step = [ {steps} ]\n"));
    assert_eq!((outcomes(&report)[1].as_str(), &report["outcome"]), ("b: skipped", &"failed".into()), "{report}");
}

#[test]
fn a_step_is_cut_short_so_that_an_essential_one_gets_its_time() {
    let steps = |essential: bool| {
        format!(
            "[pre-stop]\ndeadline = \"1500ms\"\n[[pre-stop.step]]\nname = \"drain\"\nsleep = \"20s\"\n\
             [[pre-stop.step]]\nname = \"state\"\nexec = [\"sh\", \"-c\", \"sleep 0.2\"]\ntimeout = \"1s\"\nessential = {essential}\n"
        )
    };
    let (report, _agent) = pre_stop(&steps(true));
    assert_eq!(outcomes(&report), ["drain: timed-out", "state: succeeded"], "{report}");
    let took = report["steps"][0]["took"].as_f64().expect("a number");
    assert!((0.49..0.8).contains(&took), "{took}");
    let (report, _agent) = pre_stop(&steps(false));
    assert_eq!(outcomes(&report), ["drain: timed-out", "state: skipped"], "{report}");
}

// ------------------------------------------------------------------------------------------- rights

const TOKEN: &str = "a-token-that-nobody-may-see";

/// How the kubelet, and somebody with curl, fare with this server and this `Authorization`.
#[track_caller]
fn admitted(server: &str, token: Option<&str>) -> (Result<u16, NoAnswer>, u16, Agent) {
    let place = Place::with(&format!("[server]\n{server}\n")).env("TOKEN_IN_ENV", TOKEN);
    place.write("token", &format!("{TOKEN}\n"));
    let mut agent = place.run(&MAIN);
    agent.wait_file("life", "main");
    let address = agent.address();
    let mut kubelet = Kubelet::of(address);
    let mut headers = String::new();
    if let Some(token) = token {
        kubelet = kubelet.with_token(token);
        headers = format!("Authorization: Bearer {token}\r\n");
    }
    let curl = kubelet::request(address, "POST", "/shutdown", &headers).status;
    let kubelet = kubelet.call("/shutdown").map(|answer| answer.status);
    (kubelet, curl, agent)
}

#[test]
fn who_may_trigger_a_hook() {
    let (yes, no) = (Ok(200), Err(NoAnswer::Dropped));
    let token_file = |place: &str| format!("listen = \"0.0.0.0:0\"\ntoken-file = \"{place}\"");
    let with_file = token_file("token");
    for (server, token, kubelet, curl) in [
        // A token.
        (with_file.as_str(), Some(TOKEN), yes, 200),
        (&with_file, Some("another-token"), no, 401),
        (&with_file, Some("a-token-that-nobody-may-se"), no, 401),
        (&with_file, None, no, 401),
        ("listen = \"0.0.0.0:0\"\ntoken-env = \"TOKEN_IN_ENV\"", Some(TOKEN), yes, 200),
        ("listen = \"0.0.0.0:0\"\ntoken-env = \"TOKEN_IN_ENV\"", None, no, 401),
        // An address.
        ("listen = \"0.0.0.0:0\"\nallow-from = [\"127.0.0.1\"]", None, yes, 200),
        ("listen = \"0.0.0.0:0\"\nallow-from = [\"10.9.8.0/24\"]", None, no, 403),
        // Both must hold.
        ("listen = \"0.0.0.0:0\"\nallow-from = [\"127.0.0.0/8\"]\ntoken-file = \"token\"", Some(TOKEN), yes, 200),
        ("listen = \"0.0.0.0:0\"\nallow-from = [\"127.0.0.0/8\"]\ntoken-file = \"token\"", None, no, 401),
        ("listen = \"0.0.0.0:0\"\nallow-from = [\"10.9.8.7\"]\ntoken-file = \"token\"", Some(TOKEN), no, 403),
        // Loopback, unless something is asked for.
        ("listen = \"127.0.0.1:0\"", None, yes, 200),
        ("listen = \"127.0.0.1:0\"\ntoken-file = \"token\"", None, no, 401),
        // Anybody.
        ("listen = \"0.0.0.0:0\"\nallow-unauthenticated = true", None, yes, 200),
    ] {
        let (by_kubelet, by_curl, mut agent) = admitted(server, token);
        assert_eq!((by_kubelet, by_curl), (kubelet, curl), "{server} {token:?}");
        // Probes and metrics need no right.
        for path in ["/live", "/metrics", "/status"] {
            assert_eq!(agent.get(path).status, 200, "{server} {path}");
        }
        let has_run = agent.log().contains("to=\"pre-stop\"");
        assert_eq!(has_run, kubelet.is_ok(), "{server} {token:?}");
        if kubelet.is_err() {
            assert!(agent.log().contains("trigger refused caller="), "{}", agent.log());
            assert!(agent.log().contains("(kube-lifecycle/1.36)"), "{}", agent.log());
            assert!(agent.get("/metrics").body.contains("boathook_triggers_refused_total 2\n"));
        }
        let everything = [
            agent.log(),
            agent.get("/status").body,
            agent.get("/metrics").body,
            agent.boathook(&["report"]).stdout,
            agent.boathook(&["status"]).stdout,
        ]
        .concat();
        assert!(!everything.contains(TOKEN), "{everything}");
    }
}

#[test]
fn a_token_file_that_changes_is_read_again() {
    let place = Place::with("[server]\nlisten = \"0.0.0.0:0\"\ntoken-file = \"token\"\n");
    place.write("token", "the-old-token");
    let mut agent = place.run(&MAIN);
    let address = agent.address();
    let with = |token: &str| {
        kubelet::request(address, "POST", "/started", &format!("Authorization: Bearer {token}\r\n")).status
    };
    assert_eq!((with("the-old-token"), with("the-new-token")), (200, 401));
    // As the kubelet updates a mounted secret: by a rename.
    agent.place.write("token.new", "the-new-token");
    std::fs::rename(agent.place.path("token.new"), agent.place.path("token")).expect("renamed");
    until("the new token is taken", || (with("the-new-token") == 200).then_some(()));
    assert_eq!(with("the-old-token"), 401);
}
