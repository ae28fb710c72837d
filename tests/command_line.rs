//! The command line: every subcommand explains itself, says what was wrong with what was typed, and has the exit code
//! that the table gives.

mod support;

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use clap::Parser;
use support::{MAIN, Place, Said};

const SUBCOMMANDS: [&str; 13] = [
    "run",
    "serve",
    "started",
    "shutdown",
    "ready",
    "live",
    "status",
    "report",
    "check",
    "config",
    "step",
    "install",
    "completions",
];
const KINDS: [&str; 7] = ["sleep", "exec", "http", "signal", "wait", "file", "drain"];

#[test]
fn every_subcommand_has_help_with_an_example() {
    let place = Place::bare();
    let all = place.boathook(&["--help"]);
    assert_eq!((all.code, all.stderr.as_str()), (0, ""));
    assert!(all.stdout.contains("\nExample:\n"), "{all:?}");
    for name in SUBCOMMANDS {
        assert!(all.stdout.contains(&format!("\n  {name} ")), "{name} is not in the list: {}", all.stdout);
        let help = place.boathook(&[name, "--help"]);
        assert_eq!((help.code, help.stderr.as_str()), (0, ""), "{name}");
        assert!(help.stdout.contains("Example:") && help.stdout.contains("boathook"), "{name}: {}", help.stdout);
    }
    let step = place.boathook(&["step", "--help"]).stdout;
    for kind in KINDS {
        assert!(step.contains(&format!("\n  {kind} ")), "{kind}: {step}");
        let help = place.boathook(&["step", kind, "--help"]);
        assert_eq!((help.code, help.stderr.as_str()), (0, ""), "{kind}");
        assert!(help.stdout.contains(&format!("Example: boathook step {kind} ")), "{kind}: {}", help.stdout);
        assert!(help.stdout.contains("--timeout <DURATION>"), "{kind}: {}", help.stdout);
    }
    assert_eq!(place.boathook(&["--version"]).stdout, format!("boathook {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_examples_of_steps_can_be_typed() {
    let place = Place::bare();
    for kind in KINDS {
        let help = place.boathook(&["step", kind, "--help"]).stdout;
        let example =
            help.lines().find_map(|line| line.trim().strip_prefix("Example: boathook step ")).expect("an example");
        let words = words_of(&format!("boathook step {example}"));
        let parsed = boathook::cli::Cli::try_parse_from(&words);
        assert!(parsed.is_ok(), "{example}: {parsed:?}");
    }
}

/// Splits as a shell does, as far as the examples need it.
fn words_of(line: &str) -> Vec<String> {
    let said = Command::new("sh").args(["-c", &format!("printf '%s\\n' {line}")]).output().expect("sh");
    String::from_utf8(said.stdout).expect("text").lines().map(String::from).collect()
}

#[test]
fn what_was_typed_wrongly_is_told() {
    let place = Place::bare();
    for (words, message) in [
        (&["nonsense"][..], "unrecognized subcommand 'nonsense'"),
        (&[], "Usage: boathook [OPTIONS] <COMMAND>"),
        (&["run"], "the following required arguments were not provided:\n  <COMMAND>..."),
        (&["serve", "--started"], "the following required arguments were not provided:\n  --background"),
        (&["shutdown", "now"], "unexpected argument 'now' found"),
        (&["status", "--jsn"], "unexpected argument '--jsn' found"),
        (&["install"], "the following required arguments were not provided:\n  <DIR>"),
        (&["completions", "nosh"], "invalid value 'nosh' for '<SHELL>'"),
        (&["step"], "Usage: boathook step [OPTIONS] <COMMAND>"),
        (&["step", "dance"], "unrecognized subcommand 'dance'"),
        (&["step", "sleep"], "the following required arguments were not provided:\n  <DURATION>"),
        (&["step", "sleep", "30"], "`30` is not a duration: it has no unit; write \"30s\" for seconds or \"30ms\""),
        (&["step", "sleep", "1s", "--retries", "x"], "invalid value 'x' for '--retries <N>'"),
        (&["step", "exec"], "the following required arguments were not provided:\n  <COMMAND>..."),
        (&["step", "http"], "the following required arguments were not provided:\n  <URL>"),
    ] {
        let said = place.boathook(words);
        assert_eq!((said.code, said.stdout.as_str()), (64, ""), "{words:?}");
        assert!(said.stderr.contains(message), "{words:?}: {}", said.stderr);
    }
    for (words, message) in [
        (
            &["step", "http", "ftp://x"][..],
            "boathook: command line: http: url: this URL cannot be used: the scheme `ftp` is not one of http, https, unix\n",
        ),
        (
            &["step", "signal", "--signal", "NOPE"],
            "boathook: command line: signal: signal: `NOPE` is not a signal\n  help: write a name such as \"QUIT\" or \"RTMIN+3\", or a number from 1 to 64\n",
        ),
        (
            &["step", "wait"],
            "boathook: command line: wait: what to wait for is missing\n  help: give one of tcp, http, unix, file, process-gone, dns, metric, postgres, mysql, redis, grpc, exec\n",
        ),
        (
            &["step", "wait", "--tcp", "x"],
            "boathook: command line: wait: tcp: `x` has no port\n  help: write \"host:port\"\n",
        ),
        (
            &["step", "file"],
            "boathook: command line: file: it needs exactly one of touch, write, append, remove\n  help: file = { write = \"/var/tmp/hello.txt\", content = \"Hello!\" }\n",
        ),
        (
            &["step", "drain", "--port", "0"],
            "boathook: command line: drain: ports: 0 is not a port\n  help: ports go from 1 to 65535; leave `ports` away to watch all that listen\n",
        ),
    ] {
        let said = place.boathook(words);
        assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (64, "", message), "{words:?}");
    }
}

#[test]
fn what_needs_an_agent_says_so() {
    let place = Place::bare();
    for name in ["ready", "live", "status", "report"] {
        let said = place.boathook(&[name]);
        assert_eq!((said.code, said.stdout.as_str()), (69, ""), "{name}");
        assert_eq!(
            said.stderr,
            "boathook: no agent runs in this container\n  help: start it with `boathook run` or `boathook serve`\n",
            "{name}"
        );
    }
    let mut agent = Place::with("").run(&MAIN);
    agent.wait_log("to=\"ready\"");
    for (name, text) in [("ready", "ready\n"), ("live", "live\n")] {
        let said = agent.boathook(&[name]);
        assert_eq!((said.code, said.stdout.as_str()), (0, text));
    }
}

#[test]
fn each_shell_gets_completions() {
    let place = Place::bare();
    for shell in ["bash", "fish", "zsh"] {
        let said = place.boathook(&["completions", shell]);
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{shell}");
        assert!(SUBCOMMANDS.iter().all(|name| said.stdout.contains(name)), "{shell}: {}", said.stdout);
    }
    // One that is here can read its own.
    place.write("completions", &place.boathook(&["completions", "bash"]).stdout);
    let mut bash = Command::new("bash");
    bash.args(["-c", ". ./completions && complete -p boathook"]);
    place.dress(&mut bash);
    let said = place.finish(bash);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));
}

#[test]
fn install_puts_a_binary_there_that_runs() {
    let place = Place::bare();
    fs::create_dir(place.path("shared")).expect("created");
    for _ in 0..2 {
        let said = place.boathook(&["install", "@/shared"]);
        assert_eq!((said.code, said.stdout), (0, place.expand("installed @/shared/boathook\n")));
        let copy = place.path("shared/boathook");
        assert_eq!(fs::metadata(&copy).expect("there").permissions().mode() & 0o777, 0o755);
        let version = Command::new(&copy).arg("--version").output().expect("it runs");
        assert_eq!(String::from_utf8_lossy(&version.stdout), format!("boathook {}\n", env!("CARGO_PKG_VERSION")));
    }
    let left: Vec<_> =
        fs::read_dir(place.path("shared")).expect("there").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["boathook"]);
}

#[test]
fn install_says_why_it_cannot() {
    let place = Place::bare();
    let said = place.boathook(&["install", "@/nowhere"]);
    assert_eq!((said.code, said.stdout.as_str()), (1, ""));
    assert_eq!(
        said.stderr,
        place.expand("boathook: @/nowhere/boathook: cannot be written: No such file or directory (os error 2)\n  help: mount an emptyDir there\n")
    );
    // Read-only also for root, who may write where the permissions say otherwise: /proc/sys/kernel takes no new files.
    let read_only = Path::new("/proc/sys/kernel");
    let said = place.boathook(&["install", &read_only.display().to_string()]);
    assert_eq!((said.code, said.stdout.as_str()), (1, ""));
    assert!(said.stderr.starts_with("boathook: /proc/sys/kernel/boathook: cannot be written: "), "{said:?}");
    assert!(said.stderr.contains("\n  help: "), "{said:?}");
}

#[test]
fn config_prints_the_reference() {
    let place = Place::bare();
    let said = place.boathook(&["config"]);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));
    assert_eq!(said.stdout, include_str!("../config/boathook.toml"));
}

/// The shape of the example that the design rests on.
const EXAMPLE: &str = r#"
grace-period = "30s"
stop-reserve = "5s"
[server]
listen = "0.0.0.0:4665"
token-file = "@/token"
[app]
ports = [8080]
[post-start]
gate = "readiness"
deadline = "60s"
[[post-start.step]]
name = "app answers"
wait = { http = "http://127.0.0.1:8080/healthz" }
timeout = "30s"
[[pre-stop.step]]
drain = { settle = "5s" }
timeout = "20s"
[[pre-stop.step]]
name = "sessions"
file = { write = "@/state", content = "x" }
timeout = "5s"
essential = true
[[pre-stop.step]]
name = "leave"
exec = ["consul", "leave"]
when = { file-exists = "/etc/consul.d" }
retries = 3
"#;

#[test]
fn check_shows_the_worst_case() {
    let place = Place::with(EXAMPLE);
    place.write("token", "a-token-of-some-length");
    let said = place.boathook(&["check"]);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));
    let want = "@/boathook.toml: good\n\
        grace period 30s = pre-stop 24s + main process 5s + rounding 1s\n\
        hooks by http: 0.0.0.0:4665, with the token\n";
    assert!(said.stdout.starts_with(&place.expand(want)), "{}", said.stdout);
    let steps: Vec<&str> = said.stdout.lines().filter(|line| line.contains(" – ")).map(str::trim).collect();
    assert_eq!(
        steps,
        [
            "0s – 30s    app answers (wait)",
            "0s – 19s    drain (drain)  (cut short of its 20s in the worst case)",
            "19s – 24s    sessions (file)  (essential, 5s reserved)",
            "24s – 24s    leave (exec)  (gets no time in the worst case)",
        ],
        "{}",
        said.stdout
    );
    let said = Place::bare().boathook(&["check"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.stdout.starts_with("no configuration file: the defaults: good\ngrace period 30s (Kubernetes' default) = "),
        "{said:?}"
    );
}

#[test]
fn check_refuses_a_plan_that_cannot_fit() {
    let place = Place::with(&EXAMPLE.replace("timeout = \"20s\"", "timeout = \"40s\""));
    place.write("token", "a-token-of-some-length");
    let said = place.boathook(&["check"]);
    assert_eq!((said.code, said.stdout.as_str()), (78, ""));
    assert_eq!(
        said.stderr,
        place.expand(
            "boathook: @/boathook.toml: pre-stop: step \"drain\": timeout 40s does not fit in grace-period 30s, of which 5s are kept as stop-reserve and 1s for the kubelet's rounding\n  \
             help: lower the timeout, or raise grace-period and terminationGracePeriodSeconds together\n"
        )
    );
}

/// `boathook step …`, with the last line of stderr: the reason, if it failed.
#[track_caller]
fn step(place: &Place, words: &[&str]) -> (Said, String) {
    let said = place.boathook(&[&["step"], words].concat());
    assert_eq!(said.stdout, "", "{words:?}");
    let last = said.stderr.lines().last().unwrap_or_default().to_owned();
    (said, last)
}

#[test]
fn each_kind_of_step_by_hand() {
    let place = Place::bare();
    place.write("flag", "mode=on\n");
    let mut sleeper = Command::new("sleep");
    sleeper.arg("1000");
    place.dress(&mut sleeper);
    let mut sleeper = sleeper.spawn().expect("it starts");
    place.write("pid", &sleeper.id().to_string());
    let mut agent = Place::with("").run(&MAIN);
    let url = format!("http://{}/live", agent.address());
    let tcp = agent.address().to_string();
    let shut = "127.0.0.1:1";
    for words in [
        &["sleep", "10ms"][..],
        &["sleep", "--until", "10ms"],
        &["exec", "true"],
        &["exec", "--env", "A=b", "--", "sh", "-c", "[ $A = b ]"],
        &["http", &url],
        &["http", "--method", "HEAD", &url],
        &["http", "--succeed", "404", &url.replace("live", "nowhere")],
        &["wait", "--tcp", &tcp],
        &["wait", "--http", &url],
        &["wait", "--file", "@/flag", "--contains", "=on"],
        &["wait", "--file", "@/nowhere", "--absent"],
        &["wait", "--process-gone", "nobody-has-this-name"],
        &["file", "--write", "@/hello.txt", "--content", "Hello!"],
        &["file", "--append", "@/hello.txt", "--content", " Again!"],
        &["file", "--touch", "@/touched"],
        &["file", "--remove", "@/flag"],
        &["signal", "--signal", "TERM", "--pid-file", "@/pid"],
        &["drain", "--port", "1", "--settle", "10ms"],
    ] {
        let (said, _) = step(&place, words);
        assert_eq!(said.code, 0, "{words:?}: {said:?}");
    }
    assert_eq!(place.read("hello.txt"), "Hello! Again!");
    assert!(place.exists("touched") && !place.exists("flag"));
    assert_eq!(support::shell_code(sleeper.wait().expect("ours")), 128 + libc::SIGTERM);

    for (words, reason) in [
        (&["sleep", "20s", "--timeout", "50ms"][..], "step \"sleep\": timed out after "),
        (&["exec", "false"], "step \"exec\": exit code 1"),
        (&["exec", "nobody-has-this-command"], "step \"exec\": "),
        (&["http", &format!("http://{shut}/")], "step \"http\": http://127.0.0.1:1/: connection refused"),
        (&["http", &url.replace("live", "nowhere")], "step \"http\": "),
        (&["wait", "--tcp", shut, "--timeout", "100ms"], "step \"wait\": timed out after "),
        (&["wait", "--file", "@/nowhere", "--timeout", "50ms"], "step \"wait\": timed out after "),
        (
            &["signal", "--signal", "TERM", "--process", "nobody-has-this-name"],
            "step \"signal\": nobody-has-this-name: ",
        ),
        (&["file", "--touch", "/nowhere/x"], "step \"file\": /nowhere/x: No such file or directory (os error 2)"),
    ] {
        let (said, last) = step(&place, words);
        assert_eq!(said.code, 1, "{words:?}: {said:?}");
        assert!(last.starts_with(&format!("boathook: {reason}")), "{words:?}: {said:?}");
    }
}

#[test]
fn a_step_by_hand_needs_no_configuration() {
    // Not even a good one: it is not read.
    let place = Place::exactly("nonsense");
    assert_eq!(place.boathook(&["step", "sleep", "1ms"]).code, 0);
    assert_eq!(place.boathook(&["check"]).code, 78);
}
