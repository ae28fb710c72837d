//! A child for tests. It is what a hook would start, or a small agent made of the library's rooms, so that a test
//! can look at a whole process from outside: its descriptors, its children, its exit code.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fs,
    io::Write,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use boathook::{
    problem::Scope,
    process::{MainProcess, Processes, Signals, find},
    step::{Context, Kind, OwnTraffic, Progress, TypedStep, exec::Exec, signal::Signal},
};
use tokio::time::Instant;

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let code = match words[..] {
        ["exit", code] => return ExitCode::from(code.parse::<u8>().expect("a code")),
        ["die", signal] => die(signal.parse().expect("a number")),
        ["echo-signals"] => runtime.block_on(echo_signals()),
        ["run", ref command @ ..] => runtime.block_on(run(command)),
        ["burst", reaper] => runtime.block_on(burst(reaper == "reaper")),
        ["spawn-cost"] => runtime.block_on(spawn_cost()),
        ["steal"] => runtime.block_on(steal()),
        ["step", limit, kill_after, cut, toml] => runtime.block_on(step(
            Duration::from_millis(limit.parse().expect("milliseconds")),
            Duration::from_millis(kill_after.parse().expect("milliseconds")),
            Duration::from_millis(cut.parse().expect("milliseconds")),
            toml,
        )),
        _ => panic!("unknown words: {words:?}"),
    };
    runtime.shutdown_background();
    ExitCode::from(code)
}

/// The open descriptors, without the one that lists them.
fn descriptors() -> BTreeMap<String, String> {
    let list: Vec<_> = fs::read_dir("/proc/self/fd").expect("proc").map(|entry| entry.expect("an entry")).collect();
    list.into_iter()
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            let name = entry.file_name().into_string().expect("a number");
            (!target.ends_with("fd")).then(|| (name, target.display().to_string()))
        })
        .collect()
}

fn die(signal: i32) -> u8 {
    boathook::sys::signal::send(rustix::process::getpid().as_raw_nonzero().get(), signal).expect("to ourselves");
    std::thread::sleep(Duration::from_secs(5));
    0
}

async fn echo_signals() -> u8 {
    // It catches everything, so nothing but this ends it when its test is over.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).expect("Linux");
    let mut signals = Signals::install().expect("signals");
    println!("ready");
    loop {
        let received = signals.next().await;
        println!("{}", received.signal);
        std::io::stdout().flush().expect("stdout");
    }
}

/// A small agent: forwards everything, passes the exit code on.
async fn run(command: &[&str]) -> u8 {
    let mut signals = Signals::install().expect("signals");
    let processes = Processes::start(true).expect("the reaper");
    let command: Vec<OsString> = command.iter().map(OsString::from).collect();
    let main = match MainProcess::start(&command, &processes) {
        Ok(main) => main,
        Err(error) => {
            eprintln!("{error}");
            return error.code;
        }
    };
    loop {
        tokio::select! {
            status = main.wait() => return status.shell_code(),
            received = signals.next() => {
                let _ = main.signal(received.signal);
            }
        }
    }
}

fn zombies() -> usize {
    let own = std::process::id().cast_signed();
    find::processes().filter_map(find::read_stat).filter(|stat| stat.parent == own && stat.is_dead()).count()
}

/// 1,000 orphans end while 50 children of ours run and end with codes of their own.
async fn burst(reaper: bool) -> u8 {
    let processes = if reaper {
        Processes::start(true).expect("the reaper")
    } else {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("Linux 3.4");
        Processes::idle()
    };
    let shell = |script: String| {
        let mut command = Command::new("sh");
        command.args(["-c", &script]).stdin(Stdio::null()).stdout(Stdio::null());
        command
    };
    // Each of the twenty leaves fifty orphans, and all thousand end at once: when the gate is closed.
    let (gate, keeper) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
    let orphans = "exec 3<&0; i=0; while [ $i -lt 50 ]; do cat <&3 & i=$((i+1)); done";
    for _ in 0..20 {
        let mut command = shell(orphans.into());
        command.stdin(gate.try_clone().expect("a descriptor"));
        if reaper {
            processes.spawn(&mut command).expect("sh").wait().await;
        } else {
            command.spawn().expect("sh").wait().expect("ours");
        }
    }
    let mut children = Vec::new();
    if reaper {
        for code in 1..=50 {
            let child = processes.spawn(&mut shell(format!("sleep 0.{:02}; exit {code}", code % 40))).expect("sh");
            children.push((code, child));
        }
    }
    drop(keeper);
    let mut lost = 0;
    for (code, child) in &children {
        let status = tokio::time::timeout(Duration::from_secs(20), child.wait()).await;
        lost += u32::from(status.is_ok_and(|status| status.shell_code() != *code) || child.status().is_none());
    }
    let until = Instant::now() + Duration::from_secs(if reaper { 20 } else { 5 });
    while Instant::now() < until && (processes.orphans() < 1000 || zombies() > 0) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if !reaper && zombies() == 1000 {
            break;
        }
    }
    println!("lost {lost} orphans {} zombies {}", processes.orphans(), zombies());
    0
}

/// What a spawn takes, and a spawn until its status is here: medians of 200.
async fn spawn_cost() -> u8 {
    let processes = Processes::start(false).expect("the reaper");
    let (mut started, mut ended) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        let begun = Instant::now();
        let child = processes.spawn(Command::new("/bin/true").stdin(Stdio::null())).expect("true");
        started.push(begun.elapsed().as_micros());
        child.wait().await;
        ended.push(begun.elapsed().as_micros());
    }
    started.sort_unstable();
    ended.sort_unstable();
    println!("spawn {} us, until its status {} us", started[100], ended[100]);
    0
}

/// Beside the reaper nobody else can wait: the negative control for "one owner waits".
async fn steal() -> u8 {
    let _processes = Processes::start(false).expect("the reaper");
    let mut child = Command::new("true").spawn().expect("true");
    let until = Instant::now() + Duration::from_secs(5);
    while find::read_stat(child.id().cast_signed()).is_some() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("{:?}", child.wait().expect_err("the status went to the reaper").raw_os_error());
    0
}

/// Runs one step as the runner does and says how it ended and what it left: `cut` drops it earlier than `limit`.
async fn step(limit: Duration, kill_after: Duration, cut: Duration, toml: &str) -> u8 {
    // To stderr, as the agent's own log; the test reads it there.
    tracing_subscriber::fmt().with_ansi(false).without_time().with_writer(std::io::stderr).init();
    let processes = Processes::start(true).expect("the reaper");
    let victim = processes.spawn(Command::new("sleep").arg("1000").stdout(Stdio::null())).expect("sleep");
    // Once everything that stays is open.
    tokio::task::spawn_blocking(|| ()).await.expect("a thread");
    let before = descriptors();
    let begun = Instant::now();
    let context = Context {
        label: "pre-stop/test".into(),
        limit: begun + limit,
        hook_started: begun,
        kill_after,
        usual_ports: vec![],
        main_process: Some(victim.pid()),
        processes: processes.clone(),
        own_traffic: OwnTraffic::default(),
        progress: Progress::default(),
    };
    let step: TypedStep = boathook::keys::parse(toml).expect("good TOML");
    let (mut secrets, mut problems) = (vec![], vec![]);
    let mut scope = Scope::new("test", &mut secrets, &mut problems);
    let end = if let Some(typed) = step.exec {
        let step = Exec::mean(typed, &mut scope).expect("a good step");
        tokio::time::timeout(cut, step.run(&context)).await
    } else {
        let step = Signal::mean(step.signal.expect("a step"), &mut scope).expect("a good step");
        tokio::time::timeout(cut, step.run(&context)).await
    };
    let took = begun.elapsed();
    println!("end {}", end.map_or_else(|_| format!("cut: {}", context.progress.now()), |end| format!("{end:?}")));
    println!("took {}", took.as_millis());
    println!("running {}", processes.running_steps());
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) && (marked() > 0 || zombies() > 0) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!("left {} zombies {} after {}us", marked(), zombies(), begun.elapsed().as_micros());
    // The runtime closes what the dropped future held in its next turn.
    tokio::task::yield_now().await;
    let after: BTreeMap<_, _> = descriptors().into_iter().filter(|(name, _)| !before.contains_key(name)).collect();
    println!("new descriptors {after:?}");
    if let Some(status) = victim.status() {
        println!("main {status}");
    }
    let _ = victim.signal(libc::SIGKILL);
    0
}

/// Processes that carry this agent's mark.
fn marked() -> usize {
    let needle = format!("BOATHOOK_STEP={}-", std::process::id());
    find::processes()
        .filter(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|entry| entry.starts_with(needle.as_bytes()))
        })
        .count()
}
