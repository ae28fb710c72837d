//! Evidence: the kubelet tells nobody why a hook failed, so the log, the termination message, the report, the status and
//! the metrics do; none of them ever holds a hook, and none of them shows a secret.

mod support;

use std::{
    collections::BTreeMap,
    io::Read,
    process::{Child, Stdio},
    thread,
};

use serde_json::Value;
use support::{Agent, MAIN, Place, kubelet, until, without_time};

/// The log without what differs each time: the moment, how long things took, the callers' ports and pids.
fn lines(log: &str) -> Vec<String> {
    let hide = |line: &str, key: &str, ends: &[char]| match line.split_once(key) {
        Some((before, after)) => {
            let end = after.find(ends).unwrap_or(after.len());
            format!("{before}{key}…{}", &after[end..])
        }
        None => line.to_owned(),
    };
    log.lines()
        .map(|line| {
            let line = line.split_once("Z ").map_or(line, |(_, rest)| rest.trim_start());
            let line = hide(line, " took=", &[' ']);
            let line = hide(&line, " limit=", &[' ']);
            let line = hide(&line, "address=127.0.0.1:", &[' ']);
            let line = hide(&line, "trigger=\"127.0.0.1:", &[' ', '"']);
            hide(&line, " pid=", &[' '])
        })
        .collect()
}

const STEPS: &str = "[[pre-stop.step]]\nname = \"leave\"\nexec = [\"sh\", \"-c\", \"echo left; echo not quite >&2; exit 3\"]\non-failure = \"continue\"\n\
    [[pre-stop.step]]\nfile = { touch = \"@/touched\" }\n\
    [[pre-stop.step]]\nname = \"consul\"\nsleep = \"1ms\"\nwhen = { file-exists = \"@/nowhere\" }\n\
    [[pre-stop.step]]\nname = \"quo\\\"ted\"\nexec = [\"false\"]\n\
    [[pre-stop.step]]\nname = \"never\"\nsleep = \"1ms\"\n";

#[test]
fn the_log_has_one_line_for_each_change() {
    let mut agent = Place::with(STEPS).run(&MAIN);
    agent.wait_file("life", "main");
    assert_eq!(agent.kubelet().call("/shutdown").expect("an answer").status, 500);
    agent.signal(libc::SIGTERM);
    assert_eq!(agent.end(), 0);
    let touched = agent.place.expand("@/touched");
    let nowhere = agent.place.expand("@/nowhere");
    // What the two streams of a command say has no order among them.
    let (mut said, log): (Vec<String>, Vec<String>) =
        lines(&agent.log()).into_iter().partition(|line| line.contains("stream="));
    said.sort();
    assert_eq!(
        said,
        [
            "INFO left step=\"pre-stop/leave\" stream=\"stdout\"",
            "INFO not quite step=\"pre-stop/leave\" stream=\"stderr\"",
        ]
    );
    assert_eq!(
        log,
        [
            "INFO listening address=127.0.0.1:… hooks=\"from this pod\"",
            "INFO main process started pid=… command=\"sh\"",
            "INFO phase from=\"starting\" to=\"post-start\"",
            "INFO phase from=\"post-start\" to=\"ready\"",
            "INFO phase from=\"ready\" to=\"pre-stop\"",
            "INFO hook started hook=\"pre-stop\" trigger=\"127.0.0.1:… (kube-lifecycle/1.36)\" deadline=24s steps=5",
            "INFO step started hook=\"pre-stop\" step=\"leave\" kind=\"exec\" limit=…",
            "WARN step ended hook=\"pre-stop\" step=\"leave\" outcome=\"failed\" took=… reason=\"exit code 3: not quite\"",
            "INFO step started hook=\"pre-stop\" step=\"file\" kind=\"file\" limit=…",
            &format!(
                "INFO step ended hook=\"pre-stop\" step=\"file\" outcome=\"succeeded\" took=… reason=\"touched {touched}\""
            ),
            "INFO step started hook=\"pre-stop\" step=\"consul\" kind=\"sleep\" limit=…",
            &format!(
                "INFO step ended hook=\"pre-stop\" step=\"consul\" outcome=\"skipped\" took=… reason=\"{nowhere} does not exist\""
            ),
            "INFO step started hook=\"pre-stop\" step=\"quo\\\"ted\" kind=\"exec\" limit=…",
            "WARN step ended hook=\"pre-stop\" step=\"quo\\\"ted\" outcome=\"failed\" took=… reason=\"exit code 1\"",
            "INFO step ended hook=\"pre-stop\" step=\"never\" outcome=\"skipped\" took=… reason=\"an earlier step has failed\"",
            "WARN hook ended hook=\"pre-stop\" outcome=\"failed\" took=… reason=\"step \\\"quo\\\"ted\\\": exit code 1\"",
            "INFO phase from=\"pre-stop\" to=\"drained\"",
            "INFO phase from=\"drained\" to=\"stopping\"",
            "INFO stop signal passed on to the main process signal=\"SIGTERM\"",
            "INFO main process ended status=\"exit code 0\"",
            "INFO phase from=\"stopping\" to=\"post-stop\"",
            "INFO phase from=\"post-stop\" to=\"ended\"",
        ]
    );
}

const JSON_LOG: &str = "[log]\nformat = \"json\"\ntermination-message = \"@/termination\"\n";

#[test]
fn a_json_line_that_is_too_long_is_cut_within_its_values() {
    // Each of these takes two bytes in JSON, so that a piece of output outgrows what a pipe takes at once.
    let steps = "[[pre-stop.step]]\nexec = [\"sh\", \"-c\", \"head -c 6000 /dev/zero | tr '\\\\0' '\\\\\\\\'\"]\n";
    let mut agent = Place::with(&format!("{steps}{JSON_LOG}")).run(&MAIN);
    agent.wait_file("life", "main");
    assert_eq!(agent.kubelet().call("/shutdown").expect("an answer").status, 200);
    agent.signal(libc::SIGTERM);
    assert_eq!(agent.end(), 0);
    let log = agent.log();
    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
    let output = lines.iter().filter(|line| line["stream"] == "stdout");
    assert!(
        output.filter(|line| line["message"].as_str().is_some_and(|text| text.contains("\\\\\\"))).count() > 0,
        "{log}"
    );
}

#[test]
fn a_json_log_is_json_line_by_line() {
    let mut agent = Place::with(&format!("{STEPS}{JSON_LOG}")).run(&MAIN);
    agent.wait_file("life", "main");
    assert_eq!(agent.kubelet().call("/shutdown").expect("an answer").status, 500);
    agent.signal(libc::SIGTERM);
    assert_eq!(agent.end(), 0);
    let log = agent.log();
    let events: Vec<BTreeMap<String, Value>> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
    assert!(events.len() > 15, "{log}");
    for event in &events {
        assert!(
            ["time", "level", "message"].iter().all(|key| event.get(*key).is_some_and(Value::is_string)),
            "{event:?}"
        );
    }
    let ended: Vec<_> = events.iter().filter(|event| event["message"] == "step ended").collect();
    let names: Vec<_> = ended.iter().map(|event| event["step"].as_str().unwrap_or_default()).collect();
    assert_eq!(names, ["leave", "file", "consul", "quo\"ted", "never"]);
    assert_eq!(
        (&ended[3]["level"], &ended[3]["outcome"], &ended[3]["reason"]),
        (&"warn".into(), &"failed".into(), &"exit code 1".into())
    );
}

#[test]
fn the_termination_message_is_one_line_where_the_platform_reads_it() {
    let mut agent = Place::with(STEPS).run(&MAIN);
    agent.wait_file("life", "main");
    agent.kubelet().call("/shutdown").expect("an answer");
    let message = agent.place.read("termination");
    assert!(message.starts_with("boathook: pre-stop failed after "), "{message}");
    assert_eq!(without_time(&message), "boathook: pre-stop failed: step \"quo\"ted\": exit code 1\n");

    // A success leaves the application's own words alone.
    let mut agent = Place::with("[[pre-stop.step]]\nsleep = \"1ms\"\n").run(&MAIN);
    agent.wait_file("life", "main");
    agent.place.write("termination", "the application's last words");
    agent.kubelet().call("/shutdown").expect("an answer");
    agent.signal(libc::SIGTERM);
    assert_eq!(agent.end(), 0);
    assert_eq!(agent.place.read("termination"), "the application's last words");

    // Where there is no such file, nobody would read it.
    let mut agent = Place::with(&format!("{STEPS}[log]\ntermination-message = \"@/not-mounted\"\n")).run(&MAIN);
    agent.wait_file("life", "main");
    agent.kubelet().call("/shutdown").expect("an answer");
    assert!(!agent.place.exists("not-mounted"));
}

#[test]
fn a_main_process_that_ends_by_itself_is_told_in_the_termination_message() {
    for (script, message) in [
        ("exit 7", "boathook: the main process ended by itself: exit code 7\n"),
        ("kill -KILL $$", "boathook: the main process ended by itself: ended by SIGKILL\n"),
        ("exit 0", ""),
        ("echo its own words > termination; exit 7", "its own words\n"),
    ] {
        let mut agent = Place::with("").run(&["sh", "-c", script]);
        agent.end();
        assert_eq!(agent.place.read("termination"), message, "{script}");
    }
}

#[test]
fn a_failed_exec_hook_says_one_line_whatever_its_step_says() {
    let config = "[[pre-stop.step]]\nname = \"leave\"\nexec = [\"sh\", \"-c\", \"seq 1000 >&2; exit 3\"]\n[log]\nlevel = \"error\"\n";
    // Alone, and through an agent.
    let said = Place::with(config).boathook(&["shutdown"]);
    assert_eq!((said.code, said.stdout.as_str()), (1, ""));
    assert_eq!(without_time(&said.stderr), "boathook: pre-stop failed: step \"leave\": exit code 3: 1000\n");
    let mut agent = Place::with(config).start(&["serve"]);
    let said = until("the agent is there", || {
        let said = agent.boathook(&["status"]);
        (said.code == 0).then(|| agent.boathook(&["shutdown"]))
    });
    assert_eq!(without_time(&said.stderr), "boathook: pre-stop failed: step \"leave\": exit code 3: 1000\n");
    assert_eq!(agent.ended(), None);
}

/// An agent after a failed pre-stop.
fn after_pre_stop() -> Agent {
    let mut agent = Place::with(STEPS).run(&MAIN);
    agent.wait_file("life", "main");
    let address = agent.address();
    assert_eq!(kubelet::request(address, "GET", "/shutdown", "").status, 500);
    agent
}

#[test]
fn status_and_report_for_people_and_machines() {
    let mut agent = after_pre_stop();
    let by_command: Value = serde_json::from_str(&agent.boathook(&["status", "--json"]).stdout).expect("JSON");
    let mut by_http = agent.get("/status").json();
    by_http["uptime"] = by_command["uptime"].clone();
    assert_eq!(by_command, by_http);
    let main = by_command["main-process"].as_i64().expect("a pid");
    assert!(agent.place.processes().contains(&i32::try_from(main).expect("a pid")));
    let wanted: [(&str, Value); 10] = [
        ("version", env!("CARGO_PKG_VERSION").into()),
        ("mode", "run".into()),
        ("phase", "drained".into()),
        ("ready", false.into()),
        ("not-ready-because", "drained: step \"quo\"ted\": exit code 1".into()),
        ("config", agent.place.expand("@/boathook.toml").into()),
        ("listen", agent.address().to_string().into()),
        ("grace-period", 30.0.into()),
        ("pre-stop-deadline", 24.0.into()),
        ("log-lines-dropped", 0.into()),
    ];
    for (key, want) in wanted {
        assert_eq!(by_command[key], want, "{key}");
    }
    let report: Value = serde_json::from_str(&agent.boathook(&["report", "--json"]).stdout).expect("JSON");
    assert_eq!(report, by_command["hooks"]);
    let pre_stop = &report[1];
    assert_eq!(pre_stop["steps"].as_array().expect("steps").len(), 5);
    for (index, name, kind, outcome, reason) in [
        (0, "leave", "exec", "failed", "exit code 3: not quite"),
        (3, "quo\"ted", "exec", "failed", "exit code 1"),
        (4, "never", "sleep", "skipped", "an earlier step has failed"),
    ] {
        let step = &pre_stop["steps"][index];
        assert_eq!((&step["name"], &step["kind"]), (&name.into(), &kind.into()));
        assert_eq!((&step["outcome"], &step["reason"]), (&outcome.into(), &reason.into()));
        // What never began has no times.
        assert_eq!(step["took"].is_null(), name == "never", "{step}");
    }
    // The same in words.
    let text = agent.boathook(&["status"]).stdout;
    assert!(
        text.starts_with("phase     drained (not ready: drained: step \"quo\"ted\": exit code 1)\nagent     boathook "),
        "{text}"
    );
    assert!(text.contains(&format!("\nmain      pid {main}\nlisten    {}\n", agent.address())), "{text}");
    let report = agent.boathook(&["report"]).stdout;
    assert!(text.ends_with(&report), "{text}\n---\n{report}");
    assert!(report.contains("\npre-stop failed ") && report.contains("  exit code 3: not quite\n"), "{report}");
}

/// Reads Prometheus' text format (version 0.0.4) as strictly as its grammar is.
fn read_metrics(text: &str) -> BTreeMap<String, f64> {
    let (mut types, mut samples) = (BTreeMap::new(), BTreeMap::new());
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a type");
            assert!(["counter", "gauge"].contains(&kind), "{line}");
            assert!(types.insert(name.to_owned(), kind).is_none(), "twice: {line}");
            continue;
        }
        if line.starts_with("# HELP ") {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
        let name = series.split('{').next().unwrap_or_default();
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{line}");
        let kind = types.get(name).unwrap_or_else(|| panic!("no type: {line}"));
        assert_eq!(*kind == "counter", name.ends_with("_total"), "{line}");
        if let Some(labels) = series.strip_prefix(name).filter(|labels| !labels.is_empty()) {
            let inner = labels.strip_prefix('{').and_then(|labels| labels.strip_suffix('}')).expect(line);
            // Quotes within a value are escaped.
            let quotes = inner.replace("\\\\", "").replace("\\\"", "").matches('"').count();
            assert_eq!(quotes, 2 * inner.matches("=\"").count(), "{line}");
        }
        let value: f64 = value.parse().unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(samples.insert(series.to_owned(), value).is_none(), "twice: {line}");
    }
    samples
}

#[test]
fn metrics_are_prometheus_text() {
    let mut agent = after_pre_stop();
    let answer = agent.get("/metrics");
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
    let metrics = read_metrics(&answer.body);
    for (series, want) in [
        ("boathook_ready", 0.0),
        ("boathook_phase{phase=\"drained\"}", 1.0),
        ("boathook_phase{phase=\"ready\"}", 0.0),
        ("boathook_hook_runs_total{hook=\"post-start\",outcome=\"succeeded\"}", 1.0),
        ("boathook_hook_runs_total{hook=\"pre-stop\",outcome=\"failed\"}", 1.0),
        ("boathook_hook_runs_total{hook=\"pre-stop\",outcome=\"succeeded\"}", 0.0),
        ("boathook_step_outcome{hook=\"pre-stop\",step=\"leave\",outcome=\"failed\"}", 1.0),
        ("boathook_step_outcome{hook=\"pre-stop\",step=\"quo\\\"ted\",outcome=\"failed\"}", 1.0),
        ("boathook_step_outcome{hook=\"pre-stop\",step=\"never\",outcome=\"skipped\"}", 1.0),
        ("boathook_triggers_refused_total", 0.0),
        ("boathook_log_lines_dropped_total", 0.0),
    ] {
        assert_eq!(metrics.get(series), Some(&want), "{series}: {metrics:#?}");
    }
    assert!(metrics["boathook_hook_duration_seconds{hook=\"pre-stop\"}"] > 0.0);
    assert!(metrics.contains_key(&format!("boathook_info{{version=\"{}\",mode=\"run\"}}", env!("CARGO_PKG_VERSION"))));
}

/// An agent whose log is a pipe that only the test can read.
fn with_piped_log(place: &Place) -> Child {
    place.command(&["serve"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts")
}

#[test]
fn a_log_that_nobody_reads_holds_no_hook() {
    // 64 KiB of output are logged of a step at most, a pipe holds 64 KiB, and there are three such steps.
    let step = "[[pre-stop.step]]\nexec = [\"sh\", \"-c\", \"seq -f '%099.0f' 600\"]\n";
    for nobody_reads in [true, false] {
        let place = Place::with(&step.repeat(3));
        let mut child = with_piped_log(&place);
        let mut pipe = child.stderr.take().expect("a pipe");
        let (held, reader) = if nobody_reads {
            (Some(pipe), None)
        } else {
            let read = thread::spawn(move || {
                let mut all = String::new();
                let _ = pipe.read_to_string(&mut all);
                all
            });
            (None, Some(read))
        };
        until("the agent is there", || (place.boathook(&["status"]).code == 0).then_some(()));
        let said = place.boathook(&["shutdown"]);
        assert_eq!(said.code, 0, "{said:?}");
        let status: Value = serde_json::from_str(&place.boathook(&["status", "--json"]).stdout).expect("JSON");
        let dropped = status["log-lines-dropped"].as_u64().expect("a number");
        if nobody_reads {
            assert!(dropped > 100, "{dropped}");
        }
        support::send(child.id().cast_signed(), libc::SIGTERM);
        assert_eq!(support::shell_code(child.wait().expect("ours")), 0);
        drop(held);
        if let Some(reader) = reader {
            let log = reader.join().expect("a reader");
            // Whole lines, also under pressure, and those that are missing are counted.
            let numbers = log.lines().filter(|line| line.contains("stream=\"stdout\"")).count() as u64;
            assert!(log.lines().all(|line| line.contains("Z ")), "{log}");
            assert!(numbers + dropped >= 3 * 200, "{numbers} lines and {dropped} dropped");
            assert!(log.contains("hook ended"), "{log}");
        }
    }
}

const SECRET: &str = "s3cret-s3cret-s3cret";

#[test]
fn no_secret_is_in_any_evidence() {
    let config = "[server]\nlisten = \"127.0.0.1:0\"\n\
        [[pre-stop.step]]\nname = \"exec\"\non-failure = \"continue\"\n\
        exec = { command = [\"sh\", \"-c\", \"echo out $A_KEY; echo err $A_KEY >&2; printf %s $A_KEY; exit 3\"], env = { A_KEY = \"s3cret-s3cret-s3cret\" } }\n\
        [[pre-stop.step]]\nname = \"argument\"\non-failure = \"continue\"\nexec = [\"sh\", \"-c\", \"echo ${MY_TOKEN} >&2; exit 4\"]\n\
        [[pre-stop.step]]\nname = \"bearer\"\non-failure = \"continue\"\nhttp = { url = \"http://127.0.0.1:1/?token=${MY_TOKEN}\", bearer = \"s3cret-s3cret-s3cret\" }\n\
        [[pre-stop.step]]\nname = \"basic\"\non-failure = \"continue\"\nhttp = { url = \"http://127.0.0.1:1/\", basic = { user = \"u\", password = \"s3cret-s3cret-s3cret\" } }\n\
        [[pre-stop.step]]\nname = \"last\"\nexec = [\"sh\", \"-c\", \"echo ${MY_TOKEN} >&2; exit 5\"]\n";
    for log in ["", JSON_LOG] {
        let mut agent = Place::with(&format!("{config}{log}")).env("MY_TOKEN", SECRET).run(&MAIN);
        agent.wait_file("life", "main");
        let by_http = agent.get("/shutdown");
        let by_command = agent.boathook(&["shutdown"]);
        assert_eq!((by_http.status, by_command.code), (500, 1));
        let evidence = [
            by_http.body,
            by_command.stderr,
            agent.log(),
            agent.place.read("termination"),
            agent.get("/status").body,
            agent.get("/ready").body,
            agent.get("/metrics").body,
            agent.boathook(&["report"]).stdout,
            agent.boathook(&["report", "--json"]).stdout,
            agent.boathook(&["status"]).stdout,
        ];
        for text in &evidence {
            assert!(!text.contains(SECRET), "{text}");
        }
        // They were there to be hidden.
        assert!(agent.log().matches("[secret]").count() >= 6, "{}", agent.log());
        assert!(evidence[3].contains("exit code 5: [secret]"), "{}", evidence[3]);
    }
}

#[test]
fn a_secret_in_a_long_line_is_not_shown_in_halves() {
    // Wherever the line is cut: one of these has the cut in the middle of the secret.
    let script = "for n in $(seq 2030 2 2050) 4090; do printf '%0*d' $n 0; echo $A_KEY; done";
    let config = format!(
        "[[pre-stop.step]]\nexec = {{ command = [\"bash\", \"-c\", \"{script}\"], env = {{ A_KEY = \"{SECRET}\" }} }}\n"
    );
    let said = Place::with(&config).boathook(&["shutdown"]);
    assert_eq!(said.code, 0);
    assert_eq!(said.stderr.matches("[secret]").count(), 12, "{}", said.stderr);
    let rest = said.stderr.replace("[secret]", "").replace(SECRET, "whole");
    assert!(!rest.contains("cret") && !rest.contains("s3") && !rest.contains("whole"), "{rest}");
    // No piece was too long for its line.
    assert!(!rest.contains('…'), "{rest}");
}

#[test]
fn a_value_that_is_no_secret_is_shown() {
    let config = "[[pre-stop.step]]\nexec = { command = [\"sh\", \"-c\", \"echo $A_WORD >&2; exit 3\"], env = { A_WORD = \"s3cret-s3cret-s3cret\" } }\n";
    let mut agent = Place::with(config).run(&MAIN);
    let answer = agent.get("/shutdown");
    assert_eq!(answer.json()["steps"][0]["reason"], format!("exit code 3: {SECRET}"));
}
