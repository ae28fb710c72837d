//! The agent as PID 1: every exit code, every signal, every orphan; and nothing between the main process and the world.
//! In a real PID namespace, which only root can make; what cannot be tried is named.

mod life_support;
mod support {
    pub mod probe_path;
}

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI32, Ordering},
    },
    thread,
};

use boathook::{process::find, sys::signal};
use life_support::{LONG, Start, binary, call, descendants, is_root, not_run, poll, socket_name};
use support::probe_path::probe;

/// These tests start hundreds of processes; one after the other they disturb neither each other nor the machine.
static TURN: Mutex<()> = Mutex::new(());

macro_rules! take_turn {
    () => {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    };
}

/// Makes what follows PID 1 of a namespace of its own.
const NAMESPACE: [&str; 5] = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];

const CONFIG: &str = "[server]\nlisten = '127.0.0.1:0'\n[log]\ntermination-message = '/nonexistent/none'\n";

/// Side by side: enough to keep a small machine's processors busy.
const AT_ONCE: usize = 4;

/// The two places in which the agent has to do its work.
fn places() -> Vec<&'static [&'static str]> {
    if is_root() {
        return vec![&[], &NAMESPACE];
    }
    not_run("a real PID namespace", "only root can make one");
    vec![&[]]
}

fn probe_file() -> String {
    probe(&[]).get_program().to_owned().into_string().expect("a plain path")
}

/// `boathook run` with a command, to its end.
fn run(place: &[&str], config: &Path, main: &[&str]) -> Output {
    let mut words: Vec<&str> = place.to_vec();
    let config = config.display().to_string();
    words.extend([binary(), "--config", &config, "run", "--"]);
    words.extend(main);
    Command::new(words[0])
        .args(&words[1..])
        .env("BOATHOOK_SOCKET", socket_name())
        .stdin(Stdio::null())
        .output()
        .expect("it starts")
}

fn config_file(folder: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = folder.path().join("boathook.toml");
    fs::write(&path, text).expect("written");
    path
}

/// Runs `check` for every number, some at a time, and gives what was wrong.
fn for_all(numbers: impl Iterator<Item = i32> + Send, check: impl Fn(i32) -> Option<String> + Sync) -> Vec<String> {
    let numbers = Mutex::new(numbers);
    let wrong = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = numbers.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(number) = next else { return };
                    wrong.lock().unwrap_or_else(PoisonError::into_inner).extend(check(number));
                }
            });
        }
    });
    wrong.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn passes_on_every_exit_code() {
    take_turn!();
    let folder = tempfile::tempdir().expect("a folder");
    let config = config_file(&folder, CONFIG);
    for place in places() {
        let wrong = for_all(0..=255, |code| {
            let output = run(place, &config, &["sh", "-c", &format!("exit {code}")]);
            (output.status.code() != Some(code)).then(|| format!("{code}: {output:?}"))
        });
        assert!(wrong.is_empty(), "{place:?}: {wrong:#?}");
    }
}

#[test]
fn dies_of_a_signal_as_shells_say_it() {
    take_turn!();
    let folder = tempfile::tempdir().expect("a folder");
    let config = config_file(&folder, CONFIG);
    // Without those that do nothing (CHLD, CONT, URG, WINCH) or stop (STOP, TSTP, TTIN, TTOU); 32 to 34 are the C
    // library's.
    let harmless = [17, 18, 23, 28, 19, 20, 21, 22];
    for place in places() {
        let deadly = (1..=31).chain(35..=64).filter(|signal| !harmless.contains(signal));
        let wrong = for_all(deadly, |signal| {
            let output = run(place, &config, &["sh", "-c", &format!("kill -{signal} $$; sleep 5")]);
            (output.status.code() != Some(128 + signal)).then(|| format!("{signal}: {output:?}"))
        });
        assert!(wrong.is_empty(), "{place:?}: {wrong:#?}");
    }
}

#[test]
fn says_why_nothing_could_be_started() {
    take_turn!();
    let folder = tempfile::tempdir().expect("a folder");
    let config = config_file(&folder, CONFIG);
    let plain = folder.path().join("plain");
    fs::write(&plain, "no program").expect("written");
    let plain = plain.display().to_string();
    for place in places() {
        for (program, code, text) in [
            ("/no/such/program", 127, "/no/such/program: not found in the image"),
            (plain.as_str(), 126, &format!("{plain}: it is not executable (chmod +x)")),
            ("/tmp", 126, "/tmp: it is a folder"),
        ] {
            let output = run(place, &config, &[program]);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{said}");
            assert_eq!(said.lines().last(), Some(format!("boathook: {text}").as_str()), "{said}");
        }
    }
}

#[test]
fn forwards_every_signal() {
    take_turn!();
    let probe = probe_file();
    for place in places() {
        let mut agent = Start::new(CONFIG).prefix(place).main(&[&probe, "echo-signals"]).piped().start();
        let mut lines = BufReader::new(agent.stdout.take().expect("piped")).lines();
        let mut next = || lines.next().expect("a line").expect("text");
        assert_eq!(next(), "ready");
        for signal in boathook::process::forwardable() {
            agent.signal(signal);
            assert_eq!(next(), signal.to_string(), "{place:?}");
        }
        signal::send(agent.main, libc::SIGKILL).expect("it runs");
        assert_eq!(agent.code(LONG), 128 + libc::SIGKILL);
    }
}

/// Fifty processes at a time whose parent ends, and which end when the gate (descriptor 3) is closed.
fn orphans(times: usize) -> String {
    format!(
        "exec 3<&0; i=0; while [ $i -lt {times} ]; do \
         sh -c 'j=0; while [ $j -lt 50 ]; do cat <&3 >/dev/null & j=$((j+1)); done'; i=$((i+1)); done; echo ready"
    )
}

/// The states of the processes whose parent is `of`, by name.
fn children(of: i32, name: &str) -> Vec<u8> {
    let stats = find::processes().filter_map(find::read_stat);
    stats.filter(|stat| stat.parent == of && stat.name == name).map(|stat| stat.state).collect()
}

fn zombies(of: i32) -> usize {
    find::processes().filter_map(find::read_stat).filter(|stat| stat.parent == of && stat.is_dead()).count()
}

#[test]
fn reaps_a_thousand_orphans_while_fifty_steps_run() {
    take_turn!();
    // Side by side fifty that must all succeed: a status that is lost is a step that does not end, and a wrong one is a
    // failure. Then fifty with a code of their own each.
    let group: String = (0..50)
        .map(|n| {
            let script = "until [ -e @FOLDER@/go ]; do sleep 0.1; done";
            format!("[[pre-stop.step.group]]\nname = 'g{n}'\nexec = ['sh', '-c', '{script}']\n")
        })
        .collect();
    let codes: String = (1..=50)
        .map(|n| {
            format!("[[pre-stop.step]]\nname = 'c{n}'\non-failure = 'continue'\nexec = ['sh', '-c', 'exit {n}']\n")
        })
        .collect();
    let config = format!("{CONFIG}[[pre-stop.step]]\nname = 'fifty'\n{group}{codes}");
    for place in places() {
        let script = format!("{}; exec sleep 1000 3<&- <&-", orphans(20));
        let mut agent = Start::new(&config).prefix(place).main(&["sh", "-c", &script]).piped().start();
        let mut stdout = BufReader::new(agent.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("text");
        assert_eq!(line, "ready\n");
        let found = poll(LONG, || (children(agent.pid, "cat").len() == 1000).then_some(()));
        assert!(found.is_some(), "{} orphans came to the agent", children(agent.pid, "cat").len());
        let address = agent.address();
        let shutdown = thread::spawn(move || call(address, "/shutdown", "").map(|answer| answer.body));
        let all_run = poll(LONG, || (children(agent.pid, "sh").len() >= 50).then_some(()));
        assert!(all_run.is_some(), "{}", agent.log());
        fs::write(agent.file("go"), "").expect("written");
        drop(agent.stdin.take());
        let reaped = poll(LONG, || children(agent.pid, "cat").is_empty().then_some(()));
        assert!(reaped.is_some(), "{} orphans are left", children(agent.pid, "cat").len());
        shutdown.join().expect("no panic").expect("an answer");
        // As an exec hook comes in: only who is in the agent's PID namespace may ask it.
        let target = agent.pid.to_string();
        let enter = ["nsenter", "--target", &target, "--pid", "--mount", binary()];
        let words = if place.is_empty() { &enter[5..] } else { &enter[..] };
        let mut report = Command::new(words[0]);
        report.args(&words[1..]).args(["report", "--json"]).env("BOATHOOK_SOCKET", &agent.socket);
        let report = report.output().expect("it starts");
        assert!(report.status.success(), "{place:?}: {report:?}");
        let report = report.stdout;
        let report: serde_json::Value = serde_json::from_slice(&report).expect("JSON");
        let text = report.to_string();
        let steps = find_steps(&report);
        assert_eq!(steps.get("fifty").map(|(outcome, _)| outcome.as_str()), Some("succeeded"), "{text}");
        for code in 1..=50 {
            let expected = ("failed".to_owned(), format!("exit code {code}"));
            assert_eq!(steps.get(&format!("c{code}")), Some(&expected), "{text}");
        }
        let clean = poll(LONG, || (zombies(agent.pid) == 0).then_some(()));
        assert!(clean.is_some(), "{} zombies", zombies(agent.pid));
        agent.signal(libc::SIGTERM);
        assert_eq!(agent.code(LONG), 128 + libc::SIGTERM);
    }
}

/// The outcome and reason of every step of pre-stop, by name, wherever they stand in the answer.
fn find_steps(value: &serde_json::Value) -> BTreeMap<String, (String, String)> {
    let mut found = BTreeMap::new();
    match value {
        serde_json::Value::Array(items) => items.iter().for_each(|item| found.extend(find_steps(item))),
        serde_json::Value::Object(object) => {
            let text = |key: &str| object.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
            if object.contains_key("kind") {
                found.insert(text("name"), (text("outcome"), text("reason")));
            }
            object.values().for_each(|item| found.extend(find_steps(item)));
        }
        _ => {}
    }
    found
}

#[test]
fn without_a_reaper_zombies_stay() {
    take_turn!();
    if !is_root() {
        return not_run("PID 1 without a reaper", "only root can make a PID namespace");
    }
    let script = format!("{}; exec sleep 1000 3<&- <&-", orphans(4));
    let mut child = Command::new(NAMESPACE[0])
        .args(&NAMESPACE[1..])
        .args(["sh", "-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("unshare");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("text");
    let first = descendants(child.id().cast_signed())[0];
    drop(child.stdin.take());
    let seen = poll(LONG, || (zombies(first) == 200).then_some(()));
    let count = zombies(first);
    child.kill().and_then(|()| child.wait()).expect("ours");
    assert!(seen.is_some(), "{count} zombies");
}

#[test]
fn orphans_come_to_it_also_when_it_is_not_pid_1() {
    take_turn!();
    let script = "(sleep 0.5 &) ; echo ready; sleep 1000";
    let mut agent = Start::new(CONFIG).main(&["sh", "-c", script]).piped().start();
    let mut line = String::new();
    BufReader::new(agent.stdout.take().expect("piped")).read_line(&mut line).expect("text");
    assert!(poll(LONG, || (children(agent.pid, "sleep").len() == 1).then_some(())).is_some(), "{}", agent.log());
    assert!(poll(LONG, || children(agent.pid, "sleep").is_empty().then_some(())).is_some(), "{}", agent.log());
    assert_eq!(zombies(agent.pid), 0);
}

#[test]
fn ten_megabytes_go_through_untouched() {
    take_turn!();
    // Every byte value, and no period that fits a buffer.
    let sent: Vec<u8> = (0..10_485_760_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for place in places() {
        let mut agent =
            Start::new(CONFIG).prefix(place).main(&["sh", "-c", "cat; echo last words >&2"]).piped().start();
        let (mut stdin, mut stdout) = (agent.stdin.take().expect("piped"), agent.stdout.take().expect("piped"));
        let mut got = Vec::with_capacity(sent.len());
        thread::scope(|scope| {
            scope.spawn(|| {
                stdin.write_all(&sent).expect("read to the end");
                drop(stdin);
            });
            stdout.read_to_end(&mut got).expect("read");
        });
        assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
        assert_eq!(agent.code(LONG), 0);
        let said = poll(LONG, || agent.log().contains("last words\n").then_some(()));
        assert!(said.is_some(), "{}", agent.log());
    }
}

#[test]
fn the_main_process_inherits_nothing_from_the_agent() {
    take_turn!();
    let folder = tempfile::tempdir().expect("a folder");
    let config = config_file(&folder, CONFIG);
    // What this test was itself given is passed on, as without an agent.
    let list = |command: &mut Command| command.stdin(Stdio::null()).output().expect("it starts").stdout;
    let (descriptors, signals) = (["ls", "/proc/self/fd"], ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]);
    let expected = list(Command::new(descriptors[0]).arg(descriptors[1]));
    let expected = String::from_utf8_lossy(&expected).into_owned();
    for place in places() {
        let output = run(place, &config, &descriptors);
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
        let output = run(place, &config, &signals);
        let text = String::from_utf8_lossy(&output.stdout);
        // glibc's posix_spawn ignores its own 32 and 33 in the child; musl does not.
        let clean = |line: &str| line.ends_with("0000000000000000") || line.ends_with("0000000180000000");
        assert!(text.lines().count() == 2 && text.lines().all(clean), "{text}");
    }
}

/// Whether the handler for a signal is installed: from that moment on it must not be lost.
fn catches(pid: i32, number: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:\t"));
    caught.and_then(|set| u64::from_str_radix(set, 16).ok()).is_some_and(|set| set >> (number - 1) & 1 == 1)
}

#[test]
fn a_stop_signal_during_the_start_is_not_lost() {
    take_turn!();
    let folder = tempfile::tempdir().expect("a folder");
    for (name, steps, main_starts) in [
        ("plain", String::new(), true),
        ("pre-start", "[[pre-start.step]]\nexec = ['sleep', '1000']\n".to_owned(), false),
    ] {
        let config = config_file(&folder, &format!("{CONFIG}{steps}"));
        let started = AtomicI32::new(0);
        let wrong = for_all(0..20, |_| {
            let mut child = Command::new(binary())
                .args(["--config", &config.display().to_string(), "run", "--", "sleep", "1000"])
                .env("BOATHOOK_SOCKET", socket_name())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .expect("it starts");
            let pid = child.id().cast_signed();
            // Without a pause: the next moment is the one that matters.
            while !catches(pid, libc::SIGTERM) {
                std::hint::spin_loop();
            }
            signal::send(pid, libc::SIGTERM).expect("it runs");
            let status = poll(LONG, || child.try_wait().expect("ours"));
            let _ = child.kill();
            let mut log = String::new();
            child.stderr.take().expect("piped").read_to_string(&mut log).expect("text");
            started.fetch_add(i32::from(log.contains("main process started")), Ordering::Relaxed);
            let code = status.and_then(|status| status.code());
            (code != Some(128 + libc::SIGTERM)).then(|| format!("{status:?}: {log}"))
        });
        assert!(wrong.is_empty(), "{name}: {wrong:#?}");
        let started = started.into_inner();
        assert!(if main_starts { started == 20 } else { started == 0 }, "{name}: {started} main processes");
    }
}

#[test]
fn needs_no_right_and_no_writable_root() {
    take_turn!();
    if !is_root() {
        return not_run("a user without rights on a read-only root", "only root can set that up");
    }
    // Where anybody can read it: the project's own folder may be closed to others.
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("ours");
    let copy = folder.path().join("boathook");
    fs::copy(binary(), &copy).expect("copied");
    let config = format!(
        "{CONFIG}[[post-start.step]]\nexec = ['id', '-u']\n\
         [[pre-stop.step]]\nname = 'write'\non-failure = 'continue'\nfile = {{ touch = '/tmp/x' }}\n\
         [[pre-stop.step]]\nname = 'drain'\ndrain = {{ ports = [1], settle = '50ms', quiet-min = '50ms' }}\n\
         [[pre-stop.step]]\nname = 'tell'\nsignal = {{ signal = 'TERM', wait = true }}\n"
    );
    let path = config_file(&folder, &config);
    let script = format!(
        "set -e; mount --make-rprivate /; mount --bind / /; mount -o remount,bind,ro /; mount -t proc proc /proc
         exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs \
         {} --config {} run -- sleep 1000",
        copy.display(),
        path.display()
    );
    let mut child = Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", &script])
        .env("BOATHOOK_SOCKET", socket_name())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("unshare");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let (mut log, mut address, mut id) = (String::new(), None, false);
    while address.is_none() || !id {
        let line = lines.next().unwrap_or_else(|| panic!("it ended: {log}")).expect("text");
        let words: Vec<&str> = line.split(' ').collect();
        address =
            address.or(words.iter().find_map(|word| word.strip_prefix("address=")?.trim_matches('"').parse().ok()));
        id |= words.contains(&"65534");
        log.push_str(&line);
        log.push('\n');
    }
    let pid = descendants(child.id().cast_signed())[0];
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    for line in
        ["Uid:\t65534\t65534\t65534\t65534", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"]
    {
        assert!(status.contains(line), "{line}: {status}");
    }
    let answer = call(address.expect("found"), "/shutdown", "").expect("an answer");
    let steps = find_steps(&answer.report());
    let (outcome, reason) = &steps["write"];
    assert_eq!((outcome.as_str(), reason.contains("Read-only")), ("failed", true), "{}", answer.body);
    for name in ["drain", "tell"] {
        assert_eq!(steps[name].0, "succeeded", "{}", answer.body);
    }
    let ended = poll(LONG, || child.try_wait().expect("ours"));
    let _ = child.kill();
    let code = ended.map(|status| status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()));
    assert_eq!(code, Some(128 + libc::SIGTERM), "{log}");
}
