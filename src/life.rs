//! `boathook run`: the whole life of a container whose entrypoint is the agent.
//!
//! pre-start → main process starts → post-start … stop signal → pre-stop → signal passed on → main process ends →
//! post-stop → its exit code. Events are triggers here; calls on the doors join the same runs.

use std::{ffi::OsString, pin::Pin, time::Duration};

use tokio::time::Instant;
use tracing::{info, warn};

use crate::{
    agent::{Agent, Joined, Mode},
    config::Config,
    duration::show,
    exit,
    fatal::Fatal,
    hook::{Hook, Phase},
    plan::HURRY,
    process::{ExitStatus, MainProcess, Signals, find, name_of_signal},
    report::HookReport,
    runner::{Urgency, Which},
    service::{Service, lock_or_warn},
    termination,
};

/// After a hurried pre-stop the kubelet's KILL is two seconds behind its TERM; this is when ours comes, so that
/// post-stop's essential steps still get a moment.
const HURRIED_KILL: Duration = Duration::from_millis(1700);

/// Runs the main process with its hooks; gives the exit code for the container.
///
/// # Errors
/// Only when nothing was started: the configuration (78), the system (70), or a main process that cannot be executed
/// (126, 127).
pub async fn run(config: Config, command: &[OsString]) -> Result<u8, Fatal> {
    let mut signals =
        Signals::install().map_err(|error| Fatal::new(exit::INTERNAL, format!("signal handlers: {error}")))?;
    let service = Service::open(config, Mode::Run, lock_or_warn())?;
    let agent = service.agent.clone();
    let mut life = Life { agent: &agent, signals: &mut signals, hurried: None };
    let code = match life.before_main().await {
        Some(code) => code,
        None => match MainProcess::start(command, &service.processes) {
            Ok(main) => {
                agent.set_main_process(main.pid());
                info!(pid = main.pid(), command = &*command[0].to_string_lossy(), "main process started");
                life.with_main(&main).await
            }
            Err(error) => {
                termination::write(&agent.config.log.termination_message, &error.text);
                service.close().await;
                return Err(Fatal::new(error.code, error.text));
            }
        },
    };
    agent.enter(Phase::Ended);
    service.close().await;
    // A signal that comes now must not change the exit code that is passed on.
    let _caught_to_the_end = std::mem::ManuallyDrop::new(signals);
    Ok(code)
}

struct Life<'a> {
    agent: &'a std::sync::Arc<Agent>,
    signals: &'a mut Signals,
    /// The stop signal came in the middle of pre-stop: the platform's KILL is about two seconds behind it.
    hurried: Option<Instant>,
}

impl Life<'_> {
    fn is_stop(&self, signal: i32) -> bool {
        self.agent.config.app.stop_on.contains(&signal)
    }

    /// Pre-start; an exit code when there will be no main process.
    async fn before_main(&mut self) -> Option<u8> {
        if self.agent.config.hook(Hook::PreStart).steps.is_empty() {
            return None;
        }
        let mut joined = self.agent.join(Hook::PreStart, "container start", Which::All);
        let mut stopped_by = None;
        let report = loop {
            tokio::select! {
                report = ended(&mut joined) => break report,
                received = self.signals.next() => {
                    if self.is_stop(received.signal) {
                        stopped_by = Some(received.signal);
                        self.agent.urge(Hook::PreStart, Urgency::Cancel);
                    }
                }
            }
        };
        if let Some(signal) = stopped_by {
            warn!(signal = name_of_signal(signal), "stopped before the main process was started");
            return Some(ExitStatus::Signal(signal).shell_code());
        }
        match report {
            Some(report) if report.has_succeeded() => None,
            // `/shutdown` gave it up: as if the stop signal that follows had come already.
            _ if self.agent.stop_began().is_some() => Some(ExitStatus::Signal(libc::SIGTERM).shell_code()),
            _ => {
                warn!("pre-start failed: the main process is not started");
                Some(exit::FAILED)
            }
        }
    }

    /// From the start of the main process to the end of everything.
    async fn with_main(&mut self, main: &MainProcess) -> u8 {
        self.agent.enter(Phase::PostStart);
        // Without steps this ends at once, and the agent is ready.
        self.agent.join(Hook::PostStart, "main process started", Which::All);
        let status = self.until_main_ends(main).await;
        info!(status = status.to_string().as_str(), "main process ended");
        self.after_main(status).await;
        status.shell_code()
    }

    /// Passes signals on until the main process has ended; a stop signal waits for pre-stop.
    async fn until_main_ends(&mut self, main: &MainProcess) -> ExitStatus {
        // A stop signal that waits for pre-stop to end.
        let mut waiting: Option<(i32, Joined)> = None;
        let mut kill_at: Option<Instant> = None;
        loop {
            tokio::select! {
                biased;
                status = main.wait() => return status,
                received = self.signals.next() => {
                    let signal = received.signal;
                    if !self.is_stop(signal) {
                        self.pass_on(main, signal);
                        continue;
                    }
                    match (self.agent.phase(), &waiting) {
                        (Phase::Stopping | Phase::Drained, _) => kill_at = kill_at.or(self.stop(main, signal)),
                        (Phase::PreStop, _) if self.hurried.is_some() => {
                            warn!(signal = name_of_signal(signal), "a further stop signal: passed on without waiting");
                            waiting = None;
                            kill_at = kill_at.or(self.stop(main, signal));
                        }
                        (Phase::PreStop, _) => {
                            self.hurried = Some(Instant::now());
                            self.agent.hurry();
                            let joined = self.agent.join(Hook::PreStop, &name_of_signal(signal), Which::All);
                            waiting = Some((signal, joined));
                        }
                        _ => waiting = Some((signal, self.agent.join(Hook::PreStop, &name_of_signal(signal), Which::All))),
                    }
                }
                _ = until_ended(waiting.as_mut().map(|(_, joined)| joined)), if waiting.is_some() => {
                    if let Some((signal, _)) = waiting.take() {
                        kill_at = kill_at.or(self.stop(main, signal));
                    }
                }
                () = sleep_until(kill_at), if kill_at.is_some() => {
                    kill_at = None;
                    let line = format!("the main process did not end in time after its stop signal: killed (grace period {})", show(self.agent.config.grace.period));
                    warn!(grace_period = %show(self.agent.config.grace.period), "the main process did not end in time after its stop signal: killed");
                    termination::write(&self.agent.config.log.termination_message, &line);
                    // It may have ended just now.
                    let _ = main.signal(libc::SIGKILL);
                }
            }
        }
    }

    fn pass_on(&self, main: &MainProcess, signal: i32) {
        if let Err(error) = main.signal(signal) {
            tracing::debug!(signal = name_of_signal(signal), %error, "signal not passed on");
        }
    }

    /// Passes the stop signal on; gives the moment at which the main process has to be killed, if that is ours to do.
    fn stop(&self, main: &MainProcess, signal: i32) -> Option<Instant> {
        // A step of pre-stop has ended it, and its status is on its way.
        if !find::is_running(main.pid()) {
            return None;
        }
        let config = &self.agent.config;
        let sent = match config.app.stop_signal {
            // It goes on for connections that nobody uses, and would go on after the same signal again.
            Some(stop) if self.agent.has_drained_by(stop) => libc::SIGTERM,
            stop => stop.unwrap_or(signal),
        };
        self.agent.note_stop();
        self.agent.enter(Phase::Stopping);
        info!(signal = name_of_signal(sent), "stop signal passed on to the main process");
        self.pass_on(main, sent);
        let has_post_stop = !config.hook(Hook::PostStop).steps.is_empty();
        if let Some(hurried) = self.hurried {
            // The platform kills two seconds after its stop signal. Until then the time is the main process's, unless
            // something has to follow.
            return has_post_stop.then_some(hurried + HURRIED_KILL);
        }
        if !config.grace_is_configured && !has_post_stop {
            // Nobody said how long the platform waits, and nothing has to follow: the platform's own KILL is right.
            return None;
        }
        Some(self.agent.stop_began().unwrap_or_else(Instant::now) + config.grace.kill())
    }

    /// What is left to do without the main process: a pre-stop that still runs, the essential steps of one that never
    /// ran, and post-stop.
    async fn after_main(&mut self, status: ExitStatus) {
        let agent = self.agent;
        if agent.is_running(Hook::PreStop) {
            self.see_through(Hook::PreStop, "main process ended", Which::All).await;
        } else if agent.run_of(Hook::PreStop).is_none() {
            // Kubernetes runs no hook when a container ends by itself.
            if !matches!(status, ExitStatus::Code(0)) {
                termination_if_empty(agent, &format!("the main process ended by itself: {status}"));
            }
            if agent.config.hook(Hook::PreStop).steps.iter().any(|step| step.essential) {
                self.see_through(Hook::PreStop, "main process ended by itself", Which::Essential).await;
            }
        }
        agent.enter(Phase::PostStop);
        if !agent.config.hook(Hook::PostStop).steps.is_empty() {
            self.see_through(Hook::PostStop, "main process ended", Which::All).await;
        }
    }

    /// Runs or joins a hook to its end; a stop signal meanwhile hurries it.
    async fn see_through(&mut self, hook: Hook, trigger: &str, which: Which) {
        let mut joined = self.agent.join(hook, trigger, which);
        if self.hurried.is_some() {
            self.agent.urge(
                hook,
                Urgency::Hurry { until: Instant::now() + Duration::from_secs(2).saturating_sub(HURRIED_KILL) },
            );
        }
        loop {
            tokio::select! {
                _ = ended(&mut joined) => return,
                received = self.signals.next() => {
                    if self.is_stop(received.signal) && self.hurried.is_none() {
                        self.hurried = Some(Instant::now());
                        warn!(hook = hook.name(), signal = name_of_signal(received.signal), "the stop signal came before the hook was done: only essential steps are run");
                        self.agent.urge(hook, Urgency::Hurry { until: Instant::now() + HURRY });
                    }
                }
            }
        }
    }
}

/// The application may have written its own last words there; they are worth more than ours.
fn termination_if_empty(agent: &Agent, line: &str) {
    let path = &agent.config.log.termination_message;
    if std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() == 0) {
        termination::write(path, line);
    }
}

/// Waits for the end of a hook.
async fn ended(joined: &mut Joined) -> Option<std::sync::Arc<HookReport>> {
    joined.wait_for(Option::is_some).await.ok().and_then(|report| report.clone())
}

async fn until_ended(joined: Option<&mut Joined>) -> Option<std::sync::Arc<HookReport>> {
    match joined {
        Some(joined) => ended(joined).await,
        None => std::future::pending().await,
    }
}

fn sleep_until(at: Option<Instant>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    match at {
        Some(at) => Box::pin(tokio::time::sleep_until(at)),
        None => Box::pin(std::future::pending()),
    }
}
