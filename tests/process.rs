//! What is promised about processes: every status arrives, every signal is passed on, a step leaves nothing behind.

mod support {
    pub mod probe_path;
}

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Output, Stdio},
    sync::RwLock,
    time::{Duration, Instant},
};

use boathook::process::Signals;
use support::probe_path::probe;

/// Held for writing by the test that measures time, because the others keep the machine busy.
static MACHINE: RwLock<()> = RwLock::new(());

/// What `probe step` said.
struct Said {
    end: String,
    took: u64,
    log: String,
    all: String,
}

impl Said {
    /// Nothing runs, nothing is open.
    fn assert_clean(&self) {
        assert!(self.all.contains("\nrunning 0\nleft 0 zombies 0 after "), "{}\n{}", self.all, self.log);
        assert!(self.all.contains("\nnew descriptors {}\n"), "{}\n{}", self.all, self.log);
    }
}

fn step(limit: u32, kill_after: u32, cut: u32, toml: &str) -> Said {
    let words = ["step".into(), limit.to_string(), kill_after.to_string(), cut.to_string(), toml.to_owned()];
    let output = probe(&words.iter().map(String::as_str).collect::<Vec<_>>()).output().expect("the probe");
    let all = String::from_utf8(output.stdout).expect("text");
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = |key: &str| all.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
    let end = line("end ").unwrap_or_else(|| panic!("{toml}\n{all}\n{log}"));
    let took = line("took ").and_then(|took| took.parse().ok()).expect("a time");
    Said { end, took, log, all }
}

fn shell(script: &str) -> String {
    format!("exec = ['sh', '-c', '''{script}''']")
}

fn run(command: &[&str]) -> Output {
    probe(&[&["run"], command].concat()).output().expect("the probe")
}

#[test]
fn passes_on_every_exit_code_and_every_deadly_signal() {
    let _shared = MACHINE.read();
    for code in 0..=255 {
        let status = run(&["sh", "-c", &format!("exit {code}")]).status;
        assert_eq!(status.code(), Some(code));
    }
    // Those that end a process by default (signal(7)).
    let ignored = [17, 18, 23, 28];
    let stopping = [19, 20, 21, 22];
    for signal in (1..=31).chain(35..=64).filter(|signal| !ignored.contains(signal) && !stopping.contains(signal)) {
        let output = run(&[
            "python3",
            "-c",
            &format!(
                "import os,signal\nsignal.signal(13,signal.SIG_DFL)\nif {signal} not in (9,): signal.pthread_sigmask(1,[{signal}])\nif {signal} == 2: signal.signal(2,signal.SIG_DFL)\nif {signal} == 25: signal.signal(25,signal.SIG_DFL)\nos.kill(os.getpid(),{signal})\nimport time;time.sleep(9)"
            ),
        ]);
        assert_eq!(output.status.code(), Some(128 + signal), "{output:?}");
    }
}

#[test]
fn says_126_and_127_as_shells_do() {
    let _shared = MACHINE.read();
    let output = run(&["/no/such/program"]);
    assert_eq!(
        (output.status.code(), &output.stderr[..]),
        (Some(127), &b"/no/such/program: not found in the image\n"[..])
    );
    let output = run(&["/etc/passwd"]);
    assert_eq!(output.status.code(), Some(126));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "/etc/passwd: it is not executable (chmod +x)\n");
}

/// A probe that runs until it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn forwards_every_signal() {
    let _shared = MACHINE.read();
    let path = probe(&[]).get_program().to_owned();
    let mut agent =
        Running(probe(&["run"]).arg(path).arg("echo-signals").stdout(Stdio::piped()).spawn().expect("the probe"));
    let mut lines = BufReader::new(agent.0.stdout.take().expect("piped")).lines();
    let mut next = || lines.next().expect("a line").expect("text");
    assert_eq!(next(), "ready");
    let all: Vec<i32> = boathook::process::forwardable().collect();
    // 1 to 64 without KILL, STOP, CHLD, seven faults, TTIN, TTOU and the library's three.
    assert_eq!(all.len(), 64 - 12 - 3);
    for signal in all {
        boathook::sys::signal::send(agent.0.id().cast_signed(), signal).expect("it runs");
        assert_eq!(next(), signal.to_string());
    }
}

#[test]
fn a_burst_of_signals_is_neither_lost_nor_reordered() {
    let _shared = MACHINE.read();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut signals = Signals::install().expect("signals");
        let own = std::process::id().cast_signed();
        for _ in 0..500 {
            for signal in [40, 41] {
                boathook::sys::signal::send(own, signal).expect("ourselves");
            }
        }
        let mut got = [0, 0];
        for _ in 0..1000 {
            let received = tokio::time::timeout(Duration::from_secs(5), signals.next()).await.expect("none is lost");
            assert_eq!(received.from, Some(own));
            got[usize::try_from(received.signal - 40).expect("40 or 41")] += 1;
        }
        assert_eq!(got, [500, 500]);
    });
}

#[test]
fn the_main_process_inherits_a_clean_state() {
    let _shared = MACHINE.read();
    let script = "grep -E '^Sig(Blk|Ign):' /proc/self/status; ls -l /proc/$$/fd; ps -o pgid= -p $$; echo $$";
    // Started as nohup does, with a signal ignored and another blocked.
    let path = probe(&[]).get_program().to_owned().into_string().expect("a plain path");
    let parent = format!(
        "import os,signal,sys\nsignal.signal(1,signal.SIG_IGN)\nsignal.signal(10,signal.SIG_IGN)\n\
         signal.pthread_sigmask(0,[15,40])\nos.closerange(3,300)\nos.execv({path:?},[{path:?},'run','sh','-c',{script:?}])"
    );
    let output = Command::new("python3").args(["-c", &parent]).stdin(Stdio::null()).output().expect("python3");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("SigBlk:\t0000000000000000\n"), "{text}");
    // glibc's posix_spawn ignores its own 32 and 33 in the child; musl does not.
    assert!(
        ["0000000000000000", "0000000180000000"].iter().any(|set| text.contains(&format!("SigIgn:\t{set}\n"))),
        "{text}"
    );
    let descriptors: Vec<_> = text.lines().filter_map(|line| line.split_once(" -> ")).collect();
    // The shell's own script descriptor does not exist with -c.
    assert_eq!(descriptors.len(), 3, "{text}");
    let mut last = text.lines().rev();
    let (pid, group) = (last.next().expect("pid"), last.next().expect("group"));
    assert_eq!(pid, group.trim(), "its own group");
}

#[test]
fn reaps_a_thousand_orphans_without_losing_a_status() {
    let _shared = MACHINE.read();
    let say = |words: &[&str]| String::from_utf8(probe(words).output().expect("the probe").stdout).expect("text");
    assert_eq!(say(&["burst", "reaper"]), "lost 0 orphans 1000 zombies 0\n");
    // Negative control: without the reaper they stay.
    assert_eq!(say(&["burst", "none"]), "lost 0 orphans 0 zombies 1000\n");
    // Negative control: two cannot wait (10 is ECHILD).
    assert_eq!(say(&["steal"]), "Some(10)\n");
}

#[test]
fn a_step_ends_with_its_command_and_leaves_nothing() {
    let _shared = MACHINE.read();
    for (script, end) in [
        ("exit 0", "Done(\"\")"),
        ("echo a; echo b >&2; echo >&2; exit 3", "Failed(\"exit code 3: b\")"),
        ("kill -SEGV $$", "Failed(\"ended by SIGSEGV\")"),
        ("cat", "Done(\"\")"),
        // It keeps stdout open.
        ("sleep 1000 & exit 0", "Done(\"\")"),
        ("(sleep 1000 &) ; exit 5", "Failed(\"exit code 5\")"),
        // It makes itself a daemon, which also ignores TERM.
        ("setsid -f sh -c \"trap : TERM; sleep 1000; sleep 1000\"; exit 0", "Done(\"\")"),
        ("setsid sh -c \"(setsid sleep 1000 &) & sleep 1000\" & sleep 0.1", "Done(\"\")"),
        ("yes & sleep 0.1", "Done(\"\")"),
        // Without the marker: found as a descendant.
        ("setsid sh -c \"env -i sleep 1000; :\" & sleep 0.1", "Done(\"\")"),
    ] {
        let said = step(5000, 1000, 5000, &shell(script));
        assert_eq!(said.end, end, "{script}\n{}", said.log);
        assert!(said.took < 2000, "{script}: {}", said.all);
        said.assert_clean();
    }
}

/// No hook overruns its deadline by more, in milliseconds, and so no step.
const OVERRUN: u64 = 100;

#[test]
fn a_step_that_does_not_end_is_ended() {
    let _alone = MACHINE.write();
    let ignores = "timed out: ignored TERM, killed after";
    let obeys = "timed out: ended by TERM after";
    for (script, reason) in [
        ("trap \"\" TERM; while :; do sleep 1; done", ignores),
        ("sleep 1000 & sleep 1000", obeys),
        ("trap \"\" TERM; setsid -f sleep 1000; sleep 1000 & sleep 1000; wait", ignores),
        ("yes", obeys),
        ("yes x >&2", obeys),
        ("trap \"\" TERM; yes >&2", ignores),
        ("kill -STOP $$", obeys),
        ("trap \"\" TERM; kill -STOP $$; sleep 100", ignores),
        ("trap \"exit 0\" TERM; sleep 1000 & wait", obeys),
        ("trap \"\" TERM; (i=0; while [ $i -lt 100 ]; do sleep 1000 & i=$((i+1)); done); sleep 1000", ignores),
    ] {
        let at = if reason == obeys { 300 } else { 500 };
        let said = step_within(at, 500, 200, 2000, script);
        assert!(said.end.contains(reason), "{script}: {}", said.all);
        // Dropped in the middle: it dies at once.
        let said = step_within(200, 5000, 300, 200, script);
        assert_eq!(said.end, "cut: the command runs", "{script}: {}", said.all);
    }
}

/// Runs a shell's step that must end at `at` milliseconds, and leave nothing. Somebody else may keep the machine
/// busy, so the time is taken up to three times; what is left is looked at every time.
fn step_within(at: u64, limit: u32, kill_after: u32, cut: u32, script: &str) -> Said {
    let mut said = step(limit, kill_after, cut, &shell(script));
    for _ in 0..2 {
        said.assert_clean();
        if said.took <= at + OVERRUN {
            break;
        }
        said = step(limit, kill_after, cut, &shell(script));
    }
    said.assert_clean();
    assert!((at..=at + OVERRUN).contains(&said.took), "{script}: {}", said.all);
    said
}

#[test]
fn a_folder_or_a_program_that_hangs_holds_nobody() {
    let _shared = MACHINE.read();
    // A FIFO as the program: the kernel refuses what is not a regular file.
    let dir = tempfile::tempdir().expect("a temp folder");
    let fifo = dir.path().join("fifo");
    assert!(Command::new("mkfifo").arg("-m").arg("755").arg(&fifo).status().expect("mkfifo").success());
    let said = step(800, 300, 800, &format!("exec = [{:?}]", fifo.display().to_string()));
    assert!(said.end.starts_with("FailedForGood"), "{}", said.all);
    said.assert_clean();
}

#[test]
fn what_is_left_running_on_purpose_goes_on() {
    let _shared = MACHINE.read();
    let dir = tempfile::tempdir().expect("a temp folder");
    let file = dir.path().join("alive");
    // It writes after the step has ended, more than a pipe holds, and then ends by itself.
    let script = format!("(sleep 0.3; head -c 200000 /dev/zero; touch {}) & exit 0", file.display());
    let toml = format!("exec = {{ command = ['sh', '-c', '{script}'], leave-running = true }}");
    let said = step(5000, 1000, 5000, &toml);
    assert_eq!(said.end, "Done(\"\")");
    assert!(said.took < 300, "{}", said.all);
    assert!(said.all.contains("\nleft 0 zombies 0"), "{}", said.all);
    assert!(file.exists(), "it ended by itself, not by us: {}", said.all);
    // A failure leaves nothing.
    let toml = "exec = { command = ['sh', '-c', 'sleep 1000 & exit 1'], leave-running = true }";
    let said = step(5000, 1000, 5000, toml);
    assert_eq!(said.end, "Failed(\"exit code 1\")");
    said.assert_clean();
}

#[test]
fn environment_folder_user_and_input_reach_the_command() {
    let _shared = MACHINE.read();
    for (toml, line) in [
        ("command = ['sh', '-c', 'echo $A-$PORT'], env = { A = 'x', PORT = 8080 }", "x-8080"),
        ("command = ['pwd'], dir = '/usr/bin'", "/usr/bin"),
        ("command = ['cat'], input = 'first'", "first"),
        (
            "command = ['sh', '-c', 'umask; id -u; grep -E ^Sig.*[1-9a-f] /proc/$$/status | grep -v Cgt'], stderr = 'discard'",
            "0022",
        ),
    ] {
        let said = step(5000, 1000, 5000, &format!("exec = {{ {toml} }}"));
        assert!(
            said.log.contains(&format!("output: {line} step=\"pre-stop/test\" stream=\"stdout\"")),
            "{toml}: {}",
            said.log
        );
        said.assert_clean();
    }
    // A million bytes that nobody reads.
    let toml = format!("exec = {{ command = ['true'], input = '{}' }}", "x".repeat(100_000));
    assert_eq!(step(5000, 1000, 5000, &toml).end, "Done(\"\")");
    let said = step(
        5000,
        1000,
        5000,
        "exec = { command = ['sh', '-c', 'echo no; echo nono >&2; exit 1'], stdout = 'discard', stderr = 'discard' }",
    );
    assert_eq!((said.end.as_str(), said.log.as_str()), ("Failed(\"exit code 1\")", ""));
    if rustix::process::geteuid().is_root() {
        let said =
            step(5000, 1000, 5000, "exec = { command = ['sh', '-c', 'id -u; id -g; id -G'], user = 'www-data' }");
        assert_eq!(said.end, "Done(\"\")", "{}", said.log);
        assert_eq!(said.log.matches("output: 33 step").count(), 3, "{}", said.log);
        let said = step(
            5000,
            1000,
            5000,
            "exec = { command = ['sh', '-c', 'id -u; id -g; sleep 1000 & exit 0'], user = '1234:567' }",
        );
        assert!(said.log.contains("output: 1234 step") && said.log.contains("output: 567 step"), "{}", said.log);
        said.assert_clean();
    }
    let said = step(5000, 1000, 5000, "exec = { command = ['true'], user = 'no-such-user' }");
    assert_eq!(said.end, "FailedForGood(\"true: user no-such-user: not in /etc/passwd; a number works without it\")");
}

#[test]
fn a_command_that_cannot_start_is_explained() {
    let _shared = MACHINE.read();
    for (toml, end) in [
        ("exec = ['/app/server']", "FailedForGood(\"/app/server: not found in the image\")"),
        (
            "exec = { command = ['x-y-z'], env = { PATH = '/a:/b' } }",
            "FailedForGood(\"x-y-z: not found in the image (PATH=/a:/b)\")",
        ),
        (
            "exec = { command = ['true'], dir = '/nope' }",
            "FailedForGood(\"true: dir /nope: not a folder in the image\")",
        ),
        ("exec = ['/etc']", "FailedForGood(\"/etc: it is a folder\")"),
    ] {
        let said = step(5000, 1000, 5000, toml);
        assert_eq!(said.end, end);
        said.assert_clean();
    }
}

#[test]
fn signals_go_where_they_should() {
    let _shared = MACHINE.read();
    let dir = tempfile::tempdir().expect("a temp folder");
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).expect("writable");
        path.display().to_string()
    };
    let victim = || Running(Command::new("sleep").arg("1000").spawn().expect("sleep"));
    // The main process, and waiting for it does not take the reaper's status.
    let said = step(5000, 1000, 5000, "signal = { signal = 'QUIT', wait = true }");
    assert!(said.end.starts_with("Done(\"pid ") && said.end.ends_with(" has ended\")"), "{}", said.all);
    assert!(said.all.contains("main ended by SIGQUIT"), "{}", said.all);
    let said = step(5000, 1000, 5000, "signal = 'SIGUSR1'");
    assert!(said.end.starts_with("Done(\"SIGUSR1 sent to pid "), "{}", said.all);

    let mut child = victim();
    let file = write("pid", &format!("  {}\nmore\n", child.0.id()));
    let said = step(5000, 1000, 5000, &format!("signal = {{ signal = 12, pid-file = '{file}', wait = true }}"));
    // It is a zombie of this test now: ended all the same.
    assert_eq!(said.end, format!("Done(\"pid {} has ended\")", child.0.id()));
    assert_eq!(child.0.wait().expect("ours").signal(), Some(12));
    let pid = child.0.id();
    let said = step(5000, 1000, 5000, &format!("signal = {{ pid-file = '{file}', wait = true }}"));
    assert_eq!(said.end, format!("Done(\"{file}: pid {pid} is already gone\")"));
    let said = step(5000, 1000, 5000, &format!("signal = {{ pid-file = '{file}' }}"));
    assert_eq!(said.end, format!("Failed(\"{file}: pid {pid} is already gone\")"));

    let fifo = dir.path().join("fifo").display().to_string();
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
    for (file, why) in [
        (fifo, "it is a FIFO, not a regular file"),
        (write("garbage", "not a pid"), "`not` is not a pid"),
        (write("negative", "-1"), "`-1` is not a pid"),
        (write("zero", "0"), "`0` is not a pid"),
        (write("empty", ""), "`` is not a pid"),
        (write("long", &"1".repeat(100)), "longer than 64 bytes"),
        (dir.path().join("none").display().to_string(), "there is no such file"),
    ] {
        let said = step(1000, 100, 1000, &format!("signal = {{ pid-file = '{file}' }}"));
        assert_eq!(said.end, format!("Failed(\"{file}: {why}\")"));
        said.assert_clean();
    }
    // Nothing ends by that, and the wait holds nobody longer than asked.
    let child = victim();
    let file = write("pid", &child.0.id().to_string());
    let said = step(300, 100, 300, &format!("signal = {{ signal = 'WINCH', pid-file = '{file}', wait = true }}"));
    assert_eq!(said.end, format!("cut: pid {} has not ended after SIGWINCH", child.0.id()));
    assert!(said.took < 300 + OVERRUN, "{}", said.all);
    said.assert_clean();
}

#[test]
fn finds_processes_by_name() {
    let _shared = MACHINE.read();
    let dir = tempfile::tempdir().expect("a temp folder");
    let name = format!("bh{}-with-a-long-name", std::process::id());
    let program = dir.path().join(&name);
    fs::copy("/bin/sleep", &program).expect("a copy");
    let start = || {
        // Another thread may fork while the copy is open for writing: then it is busy for a moment.
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            match Command::new(&program).arg("1000").spawn() {
                Ok(child) => return Running(child),
                Err(error) if Instant::now() > until => panic!("{error}"),
                Err(_) => std::thread::yield_now(),
            }
        }
    };
    let ask = || step(3000, 100, 3000, &format!("signal = {{ process = '{name}', wait = true }}")).end;
    assert_eq!(ask(), format!("Done(\"{name}: there is no process of this name that may be signalled\")"));
    let first = start();
    let pid = first.0.id();
    let second = start();
    let (low, high) = (pid.min(second.0.id()), pid.max(second.0.id()));
    assert_eq!(ask(), format!("Failed(\"{name}: 2 processes have this name (pids {low}, {high}): use pid-file\")"));
    drop(second);
    assert_eq!(ask(), format!("Done(\"pid {pid} has ended\")"));
}

#[test]
fn works_as_pid_1_of_its_own_namespace() {
    let _shared = MACHINE.read();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc"]);
    if !command.arg("true").status().is_ok_and(|status| status.success()) {
        eprintln!("not run: this machine does not permit PID namespaces");
        return;
    }
    let path = probe(&[]).get_program().to_owned();
    let inside = |words: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc"]).arg(&path).args(words);
        command.output().expect("unshare")
    };
    assert_eq!(inside(&["run", "sh", "-c", "exit 42"]).status.code(), Some(42));
    assert_eq!(inside(&["run", "sh", "-c", "kill -9 $$"]).status.code(), Some(137));
    // The orphan's parent becomes PID 1 and PID 1 reaps it.
    let script = "(sleep 0.1 & echo $! > /proc/self/comm; sh -c 'exit 0' &) ; sleep 0.4; ps -eo stat= | grep -c Z";
    assert_eq!(String::from_utf8_lossy(&inside(&["run", "sh", "-c", script]).stdout), "0\n");
    let output = inside(&["burst", "reaper"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "lost 0 orphans 1000 zombies 0\n");
    let script = "exec = ['sh', '-c', 'setsid -f sleep 1000; sleep 1000 & exit 0']";
    let output = inside(&["step", "3000", "1000", "3000", script]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("end Done(\"\")\n") && text.contains("left 0 zombies 0"), "{text}");
}

#[test]
fn has_the_terminal_and_gives_it_back() {
    let _shared = MACHINE.read();
    // A terminal needs a session: python3's pty makes one, with a shell as its leader.
    let path = probe(&[]).get_program().to_owned().into_string().expect("a plain path");
    let program = dir_script();
    let mut child = Running(
        Command::new("python3")
            .args(["-c", &program, &path])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3"),
    );
    let mut text = String::new();
    let stdout = child.0.stdout.take().expect("piped");
    for line in BufReader::new(stdout).lines() {
        text.push_str(&line.expect("text"));
        text.push('\n');
    }
    let _ = std::io::stdout().flush();
    assert!(text.contains("foreground True"), "{text}");
    assert!(text.contains("stopped True"), "{text}");
    assert!(text.contains("continued True"), "{text}");
    assert!(text.contains("returned True"), "{text}");
    assert!(text.contains("code 130"), "{text}");
}

/// A session leader that starts the agent in a group of its own in the foreground, as a shell with job control does;
/// the terminal's other side types Ctrl-Z and Ctrl-C.
fn dir_script() -> String {
    r#"
import os, pty, signal, sys, time
pid, master = pty.fork()
if pid == 0:
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    job = os.fork()
    if job == 0:
        os.setpgid(0, 0)
        os.tcsetpgrp(0, os.getpid())
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        # cat reads: a background group would be stopped by that
        os.execv(sys.argv[1], [sys.argv[1], 'run', 'sh', '-c', 'ps -o pid=,tpgid= -p $$; exec sleep 1000'])
    def out(*words):
        os.write(1, (' '.join(map(str, words)) + '\n').encode())
    _, status = os.waitpid(job, os.WUNTRACED)
    out('stopped', os.WIFSTOPPED(status))
    out('shell-has', os.tcgetpgrp(0) == job)
    os.tcsetpgrp(0, job)
    os.killpg(job, signal.SIGCONT)
    until = time.time() + 5
    while os.tcgetpgrp(0) == job and time.time() < until: time.sleep(0.005)
    out('continued', os.tcgetpgrp(0) != job)
    out('press-c')
    _, status = os.waitpid(job, 0)
    out('code', os.waitstatus_to_exitcode(status))
    out('returned', os.tcgetpgrp(0) == job)
    os._exit(0)
seen = b''
pressed_z = pressed_c = False
while True:
    try: data = os.read(master, 4096)
    except OSError: break
    if not data: break
    seen += data
    lines = seen.decode(errors='replace').split('\r\n')
    if not pressed_z and len(lines) > 1:
        words = lines[0].split()
        print('foreground', words[0] == words[1], flush=True)
        time.sleep(0.2)
        os.write(master, b'\x1a'); pressed_z = True
    if not pressed_c and any(line.strip() == 'press-c' for line in lines):
        os.write(master, b'\x03'); pressed_c = True
print(seen.decode(errors='replace').replace('\r', ''))
"#
    .to_owned()
}
