//! The image that the Dockerfile builds, as a real container: the agent is its PID 1, called from the node's side of
//! the bridge as the kubelet does, and by exec. `container_ways.rs` has whole lives in each way of use. Needs podman
//! and root; what cannot be tried is named.

mod container_support;
mod life_support;
mod support {
    pub mod probe_path;
}

use std::{fs, io::Write, os::unix::fs::PermissionsExt, process::Command, time::Duration};

use boathook::{process::find, sys::signal};
use container_support::{Image, podman, static_binary};
use life_support::{LONG, call, poll};
use support::probe_path::probe;

/// A main process in an image that has nothing but the agent.
const SLEEPS: [&str; 6] = ["/boathook", "step", "sleep", "1000s", "--timeout", "1000s"];

fn under_run(main: &[&'static str]) -> Vec<&'static str> {
    [&["run", "--"], main].concat()
}

/// The host's programs, so that the container has a shell to be PID 1 for. Not part of the image.
const PROGRAMS: [&str; 8] = [
    "--volume",
    "/usr:/usr:ro",
    "--volume",
    "/usr/bin:/bin:ro",
    "--volume",
    "/usr/lib:/lib:ro",
    "--volume",
    "/usr/lib64:/lib64:ro",
];

const GATEWAY: &str = "[server]\nallow-from = ['gateway']\n";

#[test]
fn the_classic_hooks_without_a_shell() {
    let Some(image) = Image::build() else { return };
    let config = include_str!("../examples/classic-hooks-pod/boathook.toml");
    let config = config.replace("sleep = \"10s\"", "sleep = \"1s\"").replace("/var/tmp/", "/data/");
    let container = image.start(&config, &["--env", "BOATHOOK_TOKEN=0123456789abcdef0123"], &under_run(&SLEEPS));
    let address = container.address();
    // To the kubelet a refusal is a connection dropped without an answer: nothing else fails its hook.
    assert!(call(address, "/shutdown", "").is_err());
    let token = "Authorization: Bearer 0123456789abcdef0123\r\n";
    assert_eq!(call(address, "/started", token).expect("an answer").status, 200);
    let written = poll(LONG, || fs::read_to_string(container.data("hello.txt")).ok());
    assert_eq!(written.as_deref(), Some("Hello postStart!\n"));
    let answer = call(address, "/shutdown", token).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.took >= Duration::from_secs(1) && answer.body.len() < 10 << 10, "{:?}", answer.took);
    // `step` ends with 1 when it is stopped before it is done.
    let (code, took) = container.stop(10);
    assert_eq!(code, "1");
    assert!(took < Duration::from_secs(5), "pre-stop was not run again: {took:?}");
}

#[test]
fn the_gateway_is_the_kubelet_and_a_stop_runs_pre_stop() {
    let Some(image) = Image::build() else { return };
    let config = format!(
        "grace-period = '10s'\n{GATEWAY}[[pre-stop.step]]\nsleep = '700ms'\n\
         [[pre-stop.step]]\nfile = {{ touch = '/data/stopped' }}\n\
         [[post-stop.step]]\nfile = {{ touch = '/data/after' }}\n"
    );
    let container = image.start(&config, &["--publish", "127.0.0.1::4665"], &under_run(&SLEEPS));
    let address = container.address();
    assert_eq!(call(address, "/ready", "Connection: close\r\n").expect("an answer").status, 200);
    assert_eq!(call(address, "/started", "").expect("an answer").status, 200);
    // A neighbour on the bridge is not the gateway.
    let neighbour = image.run(
        &["--rm"],
        &["step", "http", &format!("http://{address}/shutdown"), "--succeed", "403", "--timeout", "5s"],
    );
    assert!(neighbour.status.success(), "{neighbour:?}");
    let (code, took) = container.stop(10);
    assert_eq!(code, "1");
    assert!(took >= Duration::from_millis(700) && took < Duration::from_secs(6), "{took:?}");
    assert!(container.data("stopped").exists() && container.data("after").exists());
    let log = container.log();
    let place = |text: &str| log.find(text).unwrap_or_else(|| panic!("no `{text}`: {log}"));
    assert!(place("hook=\"pre-stop\"") < place("stop signal passed on"));
    assert!(place("stop signal passed on") < place("main process ended"));
    assert!(place("main process ended") < place("hook=\"post-stop\""));
}

#[test]
fn exec_hooks_speak_through_the_containers_log() {
    let Some(image) = Image::build() else { return };
    let steps = "[[post-start.step]]\nname = 'hello'\nfile = { write = '/data/hello', content = 'x' }\n\
        [[pre-stop.step]]\nname = 'goodbye'\nfile = { touch = '/no/such/folder/x' }\n";
    // With an agent that is the entrypoint, and without any: PID 1 is then a program that knows nothing of hooks.
    let with_agent = format!("{GATEWAY}{steps}");
    for (config, arguments) in [(with_agent.as_str(), under_run(&SLEEPS)), (steps, SLEEPS[1..].to_vec())] {
        let container = image.start(config, &[], &arguments);
        if arguments[0] == "run" {
            container.wait_for_log("main process started");
        }
        let started = container.exec(&["/boathook", "started"]);
        assert!(started.status.success() && container.data("hello").exists(), "{started:?}");
        let shutdown = container.exec(&["/boathook", "shutdown"]);
        assert_eq!(shutdown.status.code(), Some(1), "{shutdown:?}");
        let said = String::from_utf8_lossy(&shutdown.stderr);
        let line = said.lines().find(|line| line.starts_with("boathook: ")).unwrap_or_default();
        assert!(line.contains("step \"goodbye\": /no/such/folder/x: "), "{said}");
        for name in ["hello", "goodbye"] {
            container.wait_for_log(&format!("step=\"{name}\""));
        }
        if arguments[0] == "run" {
            assert!(container.exec(&["/boathook", "live"]).status.success());
            let report = container.exec(&["/boathook", "report", "--json"]);
            assert!(String::from_utf8_lossy(&report.stdout).contains("goodbye"), "{report:?}");
        } else {
            assert_eq!(container.exec(&["/boathook", "status"]).status.code(), Some(69));
        }
    }
}

#[test]
fn without_any_right_on_a_read_only_root() {
    let Some(image) = Image::build() else { return };
    let config = format!(
        "grace-period = '10s'\n{GATEWAY}[[pre-stop.step]]\nname = 'root'\non-failure = 'continue'\nfile = {{ touch = '/x' }}\n\
         [[pre-stop.step]]\nname = 'volume'\nfile = {{ touch = '/data/x' }}\n\
         [[pre-stop.step]]\nname = 'exec'\nexec = ['/boathook', '--version']\n\
         [[pre-stop.step]]\nname = 'drain'\ndrain = {{ ports = [8080], settle = '100ms', quiet-min = '50ms' }}\n"
    );
    let hard = ["--user", "65534", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"];
    let container = image.start(&config, &[&hard[..], &["--read-only-tmpfs=false"]].concat(), &under_run(&SLEEPS));
    let answer = call(container.address(), "/shutdown", "").expect("an answer");
    let report = answer.report();
    let of = |name: &str| report["steps"].as_array().into_iter().flatten().find(|step| step["name"] == name).cloned();
    let root = of("root").unwrap_or_default();
    assert!(root["reason"].as_str().is_some_and(|reason| reason.contains("Read-only")), "{report}");
    for name in ["volume", "exec", "drain"] {
        assert_eq!(of(name).unwrap_or_default()["outcome"], "succeeded", "{report}");
    }
    let ready = container.exec(&["/boathook", "ready"]);
    assert_eq!(ready.status.code(), Some(1), "the same user may ask: {ready:?}");
    assert_eq!(container.stop(10).0, "1");
}

#[test]
fn state_outlives_the_container_without_any_right() {
    let Some(image) = Image::build() else { return };
    // The application's folder is a volume of its own that goes with the container, as an emptyDir does; the root is
    // read-only, and the user is nobody.
    let config = format!(
        "grace-period = '10s'\n{GATEWAY}[[pre-start.step]]\nname = 'counter'\nrestore = {{ from = '/data/state', to = '/app' }}\n\
         [[post-start.step]]\nname = 'count'\nfile = {{ append = '/app/counter', content = 'life ' }}\n\
         [[pre-stop.step]]\nname = 'counter'\nsave = {{ from = '/app/counter', to = '/data/state' }}\ntimeout = '3s'\nessential = true\n"
    );
    let hard = ["--user", "65534", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"];
    let app = ["--read-only-tmpfs=false", "--tmpfs", "/app:rw,mode=1777,size=16m"];
    let options = [&hard[..], &app].concat();
    let mut container = image.start(&config, &options, &under_run(&SLEEPS));
    for life in 1..=3 {
        container.wait_for_log("to=\"ready\"");
        let verified = container.exec(&["/boathook", "state", "verify"]);
        assert_eq!(verified.status.success(), life > 1, "life {life}: {verified:?}");
        container.stop(10);
        let state = container.data("state");
        let newest = fs::read_dir(&state).expect("a folder").flatten().map(|entry| entry.path()).max().expect("one");
        let into = container.folder.path().join(format!("look-{life}"));
        let said =
            Command::new(static_binary()).args(["state", "extract"]).arg(&newest).arg("--into").arg(&into).output();
        assert!(said.as_ref().is_ok_and(|said| said.status.success()), "{said:?}");
        assert_eq!(
            fs::read_to_string(into.join("counter")).expect("text"),
            "life ".repeat(life),
            "{}",
            container.log()
        );
        if life < 3 {
            container = image.start_again(container, &options, &under_run(&SLEEPS));
        }
    }
}

#[test]
fn installs_itself_into_a_volume() {
    let Some(image) = Image::build() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("ours");
    let volume = format!("{}:/shared", folder.path().display());
    let output = image.run(&["--rm", "--user", "65534", "--read-only", "--volume", &volume], &["install", "/shared"]);
    assert!(output.status.success(), "{output:?}");
    let installed = folder.path().join("boathook");
    assert!(fs::read(&installed).expect("there") == fs::read(static_binary()).expect("there"), "it is another file");
    assert_eq!(fs::metadata(&installed).expect("there").permissions().mode() & 0o777, 0o755);
    let version = Command::new(&installed).arg("--version").output().expect("it runs");
    assert!(version.status.success());
}

#[test]
fn exit_codes_and_signals_go_through() {
    let Some(image) = Image::build() else { return };
    // Each is a container; all 256 are tried in a bare PID namespace, in `pid1.rs`.
    for (command, expected) in
        [("exit 0", 0), ("exit 1", 1), ("exit 126", 126), ("exit 255", 255), ("kill -9 $$", 137), ("kill -6 $$", 134)]
    {
        let output = image.run(&[&["--rm"], &PROGRAMS[..]].concat(), &["run", "--", "/bin/sh", "-c", command]);
        // Without a configuration nobody may call hooks by the port, but nothing needs one here.
        assert_eq!(output.status.code(), Some(expected), "{command}: {output:?}");
    }
    let output = image.run(&["--rm"], &["run", "--", "/no/such/program"]);
    assert_eq!(output.status.code(), Some(127), "{output:?}");

    let probe = format!("{}:/probe:ro", probe(&[]).get_program().display());
    let container = image.start(
        GATEWAY,
        &[&PROGRAMS[..], &["--volume", &probe]].concat(),
        &["run", "--", "/probe", "echo-signals"],
    );
    container.wait_for_log("ready\n");
    let pid: i32 = container.inspect("State.Pid").parse().expect("a pid");
    let mut expected = String::from("ready\n");
    for number in boathook::process::forwardable() {
        signal::send(pid, number).expect("it runs");
        expected.push_str(&format!("{number}\n"));
        // Many are pending at once otherwise, and those come in the order of their numbers.
        let stdout = || String::from_utf8_lossy(&podman(&["logs", &container.id]).stdout).into_owned();
        let arrived = poll(LONG, || (stdout() == expected).then_some(()));
        assert!(arrived.is_some(), "{number}: {}", stdout());
    }
}

#[test]
fn reaps_a_thousand_orphans() {
    let Some(image) = Image::build() else { return };
    let group: String = (0..50)
        .map(|n| {
            let script = "until [ -e /data/go ]; do sleep 0.1; done";
            format!("[[pre-stop.step.group]]\nname = 'g{n}'\nexec = ['/bin/sh', '-c', '{script}']\n")
        })
        .collect();
    let config = format!("{GATEWAY}[[pre-stop.step]]\nname = 'fifty'\n{group}");
    // They wait until the FIFO's last writer has gone: this test.
    let script = "mkfifo -m 666 /data/gate; exec 3</data/gate; i=0; while [ $i -lt 20 ]; do \
        sh -c 'j=0; while [ $j -lt 50 ]; do cat <&3 >/dev/null & j=$((j+1)); done'; i=$((i+1)); done; \
        echo all are there; exec sleep 1000 3<&-";
    // As root, whom the limit of processes does not hold.
    let options = [&PROGRAMS[..], &["--user", "0"]].concat();
    let container = image.start(&config, &options, &["run", "--", "/bin/sh", "-c", script]);
    let gate = poll(LONG, || {
        let gate = container.data("gate");
        gate.exists().then(|| fs::OpenOptions::new().write(true).open(gate).expect("the shell reads it"))
    });
    let mut gate = gate.expect("a FIFO");
    gate.flush().expect("nothing to write");
    container.wait_for_log("all are there\n");
    let pid: i32 = container.inspect("State.Pid").parse().expect("a pid");
    let children = |name: &str| {
        find::processes().filter_map(find::read_stat).filter(|stat| stat.parent == pid && stat.name == name).count()
    };
    assert!(poll(LONG, || (children("cat") == 1000).then_some(())).is_some(), "{}", children("cat"));
    let address = container.address();
    let shutdown = std::thread::spawn(move || call(address, "/shutdown", "").map(|answer| answer.body));
    assert!(poll(LONG, || (children("sh") == 50).then_some(())).is_some(), "{}", children("sh"));
    fs::write(container.data("go"), "").expect("written");
    drop(gate);
    let body = shutdown.join().expect("no panic").expect("an answer");
    assert!(body.starts_with("{\"hook\":\"pre-stop\",\"outcome\":\"succeeded\""), "{body}");
    let zombies =
        || find::processes().filter_map(find::read_stat).filter(|stat| stat.parent == pid && stat.is_dead()).count();
    let clean = poll(LONG, || (children("cat") == 0 && zombies() == 0).then_some(()));
    assert!(clean.is_some(), "{} orphans, {} zombies", children("cat"), zombies());
}
