//! `boathook serve`: the agent beside a main process that it did not start, in the foreground or in the background; and
//! the exec hooks, which find an agent or, where there is none, are one for a single hook.

use std::{
    fs::OpenOptions,
    io::{Read, Write},
    process::{Command, Stdio},
    sync::Arc,
};

use rustix::stdio::{dup2_stderr, dup2_stdout};
use tracing::info;

use crate::{
    agent::{Agent, Mode},
    config::Config,
    control::{self, CallError},
    door::Door,
    exit,
    fatal::Fatal,
    hook::Hook,
    process::{Processes, Signals, name_of_signal},
    runner::Which,
    service::Service,
    step::OwnTraffic,
};

/// What the background half writes when it can be called.
const LISTENING: &[u8] = b"\x06listening\n";

/// Serves until a stop signal; then pre-stop is run unless it was, and this ends.
///
/// # Errors
/// Only before anything is served.
pub async fn serve(config: Config, announce: bool) -> Result<u8, Fatal> {
    let mut signals =
        Signals::install().map_err(|error| Fatal::new(exit::INTERNAL, format!("signal handlers: {error}")))?;
    let lock = control::Lock::acquire().map_err(|taken| {
        Fatal::new(
            exit::INTERNAL,
            format!("{taken}\n  help: `boathook status` shows it; one agent a container is enough"),
        )
    })?;
    for hook in [Hook::PreStart, Hook::PostStop] {
        if !config.hook(hook).steps.is_empty() {
            tracing::warn!(hook = hook.name(), "only `boathook run` has this hook: its steps are not run");
        }
    }
    let service = Service::open(config, Mode::Serve, Some(lock))?;
    if announce {
        let_go()?;
    }
    let agent = service.agent.clone();
    loop {
        let received = signals.next().await;
        if agent.config.app.stop_on.contains(&received.signal) {
            let mut joined = agent.join(Hook::PreStop, &name_of_signal(received.signal), Which::All);
            loop {
                tokio::select! {
                    _ = joined.wait_for(Option::is_some) => break,
                    again = signals.next() => if agent.config.app.stop_on.contains(&again.signal) { agent.hurry() },
                }
            }
            info!(signal = name_of_signal(received.signal), "stopped");
            break;
        }
    }
    service.close().await;
    Ok(exit::OK)
}

/// Tells the foreground half that the hooks can be called, and lets go of its pipe: a background child that keeps a
/// hook's output open would keep the hook running.
fn let_go() -> Result<(), Fatal> {
    let failed = |error: std::io::Error| Fatal::new(exit::INTERNAL, format!("going to the background: {error}"));
    let _ = rustix::process::setsid();
    let mut stdout = std::io::stdout();
    stdout.write_all(LISTENING).and_then(|()| stdout.flush()).map_err(failed)?;
    let open = |path: &str| OpenOptions::new().append(true).open(path);
    // The main process's own output is the container's log.
    let log = open("/proc/1/fd/2").or_else(|_| OpenOptions::new().write(true).open("/dev/null")).map_err(failed)?;
    dup2_stdout(&log).and_then(|()| dup2_stderr(&log)).map_err(|errno| failed(errno.into()))
}

/// Starts the background half and waits until it can be called.
///
/// # Errors
/// What the background half said before it ended, with its exit code.
pub fn serve_in_background(config: Option<&std::path::Path>, then_started: bool) -> Result<u8, Fatal> {
    let failed = |error: std::io::Error| Fatal::new(exit::INTERNAL, format!("going to the background: {error}"));
    // The kubelet delivers at least once: a second post-start finds the agent of the first and is content.
    let is_there = control::call("GET", "/live", Some(std::time::Duration::from_secs(1))).is_ok();
    if !is_there {
        let mut command = Command::new("/proc/self/exe");
        if let Some(config) = config {
            command.arg("--config").arg(config);
        }
        let (mut reader, writer) = std::io::pipe().map_err(failed)?;
        let stderr = writer.try_clone().map_err(failed)?;
        command.args(["serve", "--announce"]).stdin(Stdio::null()).stdout(writer).stderr(stderr);
        let mut child = command.spawn().map_err(failed)?;
        // Our own ends of the pipe: without this it would never end.
        drop(command);
        let mut said = Vec::new();
        reader.read_to_end(&mut said).map_err(failed)?;
        let listens = said.windows(LISTENING.len()).any(|window| window == LISTENING);
        if !listens {
            let code = child.wait().ok().and_then(|status| status.code()).and_then(|code| u8::try_from(code).ok());
            let said = String::from_utf8_lossy(&said);
            let said = said.trim().strip_prefix("boathook: ").unwrap_or(said.trim()).to_owned();
            return Err(Fatal::new(code.unwrap_or(exit::INTERNAL), said));
        }
    }
    if then_started {
        return match control::call("POST", "/started", None) {
            Ok(answer) => crate::command::hook_answer(&answer.body, answer.is_success()),
            Err(error) => Err(no_answer(&error)),
        };
    }
    Ok(exit::OK)
}

/// One hook without an agent that stays: this process is the agent for as long as the hook lasts, and whoever calls
/// meanwhile joins.
///
/// # Errors
/// The system refused something.
pub async fn one_hook(config: Config, hook: Hook, lock: control::Lock) -> Result<(bool, String), Fatal> {
    let processes = Processes::start(true).map_err(|error| Fatal::new(exit::INTERNAL, format!("reaper: {error}")))?;
    let agent = Agent::new(config, Mode::OneHook, processes.clone(), OwnTraffic::default());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let until_stopped = async move {
        // A sender that is gone means stop as well.
        let _ = stopped.await;
    };
    let door = Arc::new(Door(Arc::clone(&agent)));
    let served = crate::task::spawn(async move {
        if let Err(error) = control::serve(lock, until_stopped, door).await {
            tracing::warn!(%error, "the control socket is not served: nobody can join this hook");
        }
    });
    let name = match hook {
        Hook::PostStart => "boathook started",
        _ => "boathook shutdown",
    };
    let mut joined = agent.join(hook, name, Which::All);
    let report = joined.wait_for(Option::is_some).await.ok().and_then(|report| report.clone());
    // Another hook may have been asked for meanwhile, and this process is what runs it.
    for other in Hook::ALL {
        if let Some(mut run) = agent.run_of(other) {
            let _ = run.wait_for(Option::is_some).await;
        }
    }
    drop(stop);
    let _ = tokio::time::timeout(std::time::Duration::from_millis(200), served).await;
    processes.end_steps();
    report
        .map(|report| (report.has_succeeded(), report.answer()))
        .ok_or_else(|| Fatal::new(exit::INTERNAL, "the hook ended without a report"))
}

/// A call that got no answer, with its exit code.
pub fn no_answer(error: &CallError) -> Fatal {
    let code = match error {
        CallError::NoAgent => exit::NO_AGENT,
        CallError::NotPermitted(_) => exit::NOT_PERMITTED,
        _ => exit::INTERNAL,
    };
    Fatal::new(code, error.to_string())
}
