//! The agent: one for each container's life. It knows the phase, starts each hook at most once, lets everybody join the
//! run, and answers who asks. It does not listen (`server`, `control`), does not run steps (`runner`), and does not hold
//! the main process (`life`).

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tracing::{info, warn};

use crate::{
    config::{Config, Gate},
    duration::show,
    hook::{Hook, Phase},
    plan::{self, HURRY},
    process::Processes,
    readiness::{Asker, Standing as Check},
    report::{HookReport, Live, Outcome},
    runner::{self, Tools, Urgency, Which},
    step::{Action, OwnTraffic},
    termination,
};
#[cfg(feature = "state")]
use crate::{
    periodic::Standing,
    step::{Context, Progress},
};

/// In which of its lives the agent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The entrypoint: it has a main process, and events are triggers.
    Run,
    /// Beside a main process that it did not start.
    Serve,
    /// One hook of an exec hook, without an agent that stays.
    OneHook,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Mode::Run => "run",
            Mode::Serve => "serve",
            Mode::OneHook => "one-hook",
        }
    }
}

/// What joining a hook gives: the report, once there is one.
pub type Joined = watch::Receiver<Option<Arc<HookReport>>>;

/// One agent.
pub struct Agent {
    pub config: Config,
    pub mode: Mode,
    processes: Processes,
    own_traffic: OwnTraffic,
    /// The application's own check, where there is one.
    check: Option<Asker>,
    state: Mutex<State>,
    phase: watch::Sender<Phase>,
    /// Something happened; see [`Agent::rest_when_idle`].
    stirred: Notify,
    born: Instant,
}

struct State {
    main_process: Option<i32>,
    runs: [Option<Run>; 4],
    /// Finished runs that were undone, oldest first.
    past: Vec<Arc<HookReport>>,
    counts: Counts,
    /// When the stop was first heard of: the grace period counts from here.
    stop_began: Option<Instant>,
    /// Where an undone pre-stop leads back to.
    before_stop: Phase,
    #[cfg(feature = "state")]
    periodic: Vec<Standing>,
}

struct Run {
    live: Live,
    done: Joined,
    urgency: watch::Sender<Urgency>,
}

/// Totals for `/metrics`, by hook.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub succeeded: [u64; 4],
    pub failed: [u64; 4],
    pub refused: u64,
}

/// A probe is answered in a millisecond; whatever belongs together follows sooner than this.
const REST: Duration = Duration::from_millis(200);

/// Undone runs that are kept for `report`.
const MOST_PAST: usize = 4;

impl Agent {
    pub fn new(config: Config, mode: Mode, processes: Processes, own_traffic: OwnTraffic) -> Arc<Self> {
        // Without a main process of its own there is no pre-start; post-start waits for its trigger, if there is anything to do.
        let phase = match mode {
            Mode::Run => Phase::Starting,
            Mode::Serve | Mode::OneHook if config.hook(Hook::PostStart).steps.is_empty() => Phase::Ready,
            Mode::Serve | Mode::OneHook => Phase::PostStart,
        };
        #[cfg(feature = "state")]
        let periodic = crate::periodic::standings(&config);
        let check = config.readiness.as_ref();
        let check = check.map(|check| Asker::new(check, processes.clone(), config.secrets.clone()));
        Arc::new(Self {
            check,
            config,
            mode,
            processes,
            own_traffic,
            state: Mutex::new(State {
                main_process: None,
                runs: [const { None }; 4],
                past: Vec::new(),
                counts: Counts::default(),
                stop_began: None,
                before_stop: phase,
                #[cfg(feature = "state")]
                periodic,
            }),
            phase: watch::Sender::new(phase),
            stirred: Notify::new(),
            born: Instant::now(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock can panic")
    }

    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Follows the phase.
    pub fn watch_phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Goes to `next` if the table allows it; says so in the log.
    pub fn enter(&self, next: Phase) -> bool {
        let moved = self.phase.send_if_modified(|phase| {
            let may = phase.may_become(next);
            if may {
                info!(from = phase.name(), to = next.name(), "phase");
                *phase = next;
            }
            may
        });
        self.stir();
        moved
    }

    pub fn set_main_process(&self, pid: i32) {
        self.state().main_process = Some(pid);
    }

    /// When the stop was first heard of, if it was.
    pub fn stop_began(&self) -> Option<Instant> {
        self.state().stop_began
    }

    /// Notes that the stop has begun now, unless that is known already.
    pub fn note_stop(&self) {
        self.state().stop_began.get_or_insert_with(Instant::now);
    }

    /// The gate of post-start in this mode.
    pub fn gate(&self) -> Gate {
        self.config.gate.unwrap_or(match self.mode {
            Mode::Run => Gate::Readiness,
            Mode::Serve | Mode::OneHook => Gate::Hook,
        })
    }

    /// The run of a hook, if there is one now.
    pub fn run_of(&self, hook: Hook) -> Option<Joined> {
        self.state().runs[hook as usize].as_ref().map(|run| run.done.clone())
    }

    /// Whether a run of this hook has not ended yet.
    pub fn is_running(&self, hook: Hook) -> bool {
        self.run_of(hook).is_some_and(|done| done.borrow().is_none())
    }

    /// Whether pre-stop has sent the main process this signal and nothing is in flight any more.
    pub fn has_drained_by(&self, signal: i32) -> bool {
        let Some(report) = self.live_report(Hook::PreStop) else { return false };
        let steps = self.config.hook(Hook::PreStop).steps.iter().zip(&report.steps);
        steps.into_iter().any(|(step, told)| {
            let is_sent = matches!(&step.action, Action::Signal(sent) if sent.drains_main(signal));
            is_sent && told.outcome == Outcome::Succeeded
        })
    }

    /// Tells a running hook how much time is left for it.
    pub fn urge(&self, hook: Hook, urgency: Urgency) {
        if let Some(run) = &self.state().runs[hook as usize] {
            run.urgency.send_replace(urgency);
        }
    }

    /// Tells pre-stop that time is up: the stop signal came while it ran.
    pub fn hurry(&self) {
        warn!(hook = Hook::PreStop.name(), left = %show(HURRY), "the stop signal came before the hook was done: only essential steps are run");
        self.urge(Hook::PreStop, Urgency::Hurry { until: Instant::now() + HURRY });
    }

    /// Joins the run of a hook, starting it if nobody has. The run is a task of its own: who asked may go away.
    pub fn join(self: &Arc<Self>, hook: Hook, trigger: &str, which: Which) -> Joined {
        let mut state = self.state();
        if let Some(run) = &state.runs[hook as usize] {
            info!(hook = hook.name(), trigger, "joined the hook that was already started");
            return run.done.clone();
        }
        if hook == Hook::PreStop {
            // The kubelet's countdown starts before the hook.
            state.stop_began.get_or_insert_with(Instant::now);
            if which == Which::All {
                let phase = self.phase();
                if matches!(phase, Phase::Ready | Phase::Failed | Phase::PostStart) {
                    state.before_stop = phase;
                }
                self.enter(Phase::PreStop);
            }
            for earlier in [Hook::PreStart, Hook::PostStart] {
                if let Some(run) = &state.runs[earlier as usize]
                    && run.done.borrow().is_none()
                {
                    run.urgency.send_replace(Urgency::Cancel);
                }
            }
        }
        let config = self.config.hook(hook);
        let trigger = self.config.secrets.redact(trigger.to_owned());
        let live = Live::new(HookReport::begin(hook, trigger.clone(), config));
        let (done, joined) = watch::channel(None);
        let (urgency, urged) = watch::channel(Urgency::Calm);
        state.runs[hook as usize] = Some(Run { live: live.clone(), done: joined.clone(), urgency });
        let tools = self.tools(state.main_process);
        drop(state);
        if !config.steps.is_empty() {
            info!(hook = hook.name(), trigger = trigger.as_str(), deadline = %show(config.deadline), steps = config.steps.len(), "hook started");
        }
        let agent = Arc::clone(self);
        crate::task::spawn(async move {
            runner::run_hook(hook, agent.config.hook(hook), which, &live, &tools, urged).await;
            agent.finish(hook, which, &live, &done);
        });
        joined
    }

    /// What steps of this agent share.
    fn tools(&self, main_process: Option<i32>) -> Tools {
        Tools {
            processes: self.processes.clone(),
            own_traffic: self.own_traffic.clone(),
            usual_ports: self.config.app.usual_ports.clone(),
            main_process: main_process.or_else(main_process_beside_us),
            secrets: self.config.secrets.clone(),
        }
    }

    /// What follows from the end of a hook.
    fn finish(self: &Arc<Self>, hook: Hook, which: Which, live: &Live, done: &watch::Sender<Option<Arc<HookReport>>>) {
        let report = Arc::new(live.snapshot());
        let line = report.line();
        let took = show(Duration::from_secs_f64(report.took.unwrap_or_default()));
        if report.has_succeeded() {
            if !report.steps.is_empty() {
                info!(hook = hook.name(), outcome = report.outcome.name(), %took, "hook ended");
            }
            self.state().counts.succeeded[hook as usize] += 1;
        } else {
            warn!(hook = hook.name(), outcome = report.outcome.name(), %took, reason = report.reason, "hook ended");
            if report.outcome != Outcome::GivenUp {
                self.state().counts.failed[hook as usize] += 1;
                termination::write(&self.config.log.termination_message, &line);
            }
        }
        match hook {
            Hook::PostStart => {
                self.enter(if report.has_succeeded() { Phase::Ready } else { Phase::Failed });
            }
            Hook::PreStop if which == Which::All && self.phase() == Phase::PreStop => {
                self.enter(Phase::Drained);
                if self.mode != Mode::OneHook {
                    self.undrain_later();
                }
            }
            _ => {}
        }
        done.send_replace(Some(report));
        self.stir();
    }

    /// Undoes a pre-stop that no stop signal follows: somebody called it by hand.
    fn undrain_later(self: &Arc<Self>) {
        let agent = Arc::clone(self);
        let mut phase = self.watch_phase();
        let until = self.stop_began().unwrap_or_else(Instant::now) + self.config.undrain_after;
        crate::task::spawn(async move {
            let left = phase.wait_for(|phase| *phase != Phase::Drained);
            if tokio::time::timeout_at(until, left).await.is_ok() {
                return;
            }
            let mut state = agent.state();
            let back = state.before_stop;
            if let Some(run) = state.runs[Hook::PreStop as usize].take()
                && let Some(report) = run.done.borrow().clone()
            {
                state.past.push(report);
                if state.past.len() > MOST_PAST {
                    state.past.remove(0);
                }
            }
            state.stop_began = None;
            // A post-start that pre-stop cancelled is not done: it must be possible to run it again.
            let mut back = back;
            let was_cancelled = state.runs[Hook::PostStart as usize]
                .as_ref()
                .is_some_and(|run| run.done.borrow().as_ref().is_some_and(|report| report.outcome == Outcome::GivenUp));
            if was_cancelled {
                state.runs[Hook::PostStart as usize] = None;
                back = Phase::PostStart;
            }
            drop(state);
            warn!(after = %show(agent.config.undrain_after), "no stop signal followed pre-stop: it is undone, the hook may run again");
            agent.enter(back);
            if was_cancelled && agent.mode == Mode::Run {
                agent.join(Hook::PostStart, "pre-stop undone", Which::All);
            }
        });
    }

    /// Somebody asked something, or something happened.
    pub fn stir(&self) {
        self.stirred.notify_one();
    }

    /// Somebody asked how it stands: a moment to see how the application's connections go.
    pub fn note_ask(self: &Arc<Self>) {
        self.stir();
        let own = &self.own_traffic;
        own.history.look(own);
        if self.phase().is_ready() {
            let (agent, resting) = (Arc::clone(self), Arc::clone(self));
            own.history.wait(own, move || agent.phase().is_ready(), move || resting.stir());
        }
    }

    /// Gives the program's pages back whenever nothing has happened for a moment. While nothing happens at all, nothing
    /// wakes this up.
    pub async fn rest_when_idle(&self) {
        loop {
            self.stirred.notified().await;
            while tokio::time::timeout(REST, self.stirred.notified()).await.is_ok() {}
            if !Hook::ALL.into_iter().any(|hook| self.is_running(hook)) {
                crate::sys::memory::rest_soon();
            }
        }
    }

    /// Why traffic should not be sent here, if it should not: asks the application's own check where there is one.
    pub async fn is_ready(&self) -> Result<(), String> {
        let (true, Some(check)) = (self.phase().is_ready(), &self.check) else { return self.phase_readiness() };
        match check.ask(self.watch_phase()).await {
            Some(answer) => answer,
            // The phase has changed meanwhile; or it was there and back again, and then the next probe tells.
            None => self.phase_readiness().and(Err("the check was given up".into())),
        }
    }

    /// The same as far as it is known, without asking.
    pub fn readiness(&self) -> Result<(), String> {
        self.phase_readiness()?;
        match self.check.as_ref().map(Asker::known) {
            Some(None) => Err("nobody has asked the application's check yet".into()),
            Some(Some(answer)) => answer,
            None => Ok(()),
        }
    }

    /// How the application's own check stands, where there is one.
    pub fn check(&self) -> Option<Check> {
        self.check.as_ref().map(Asker::standing)
    }

    /// Why the agent should be restarted, if it should: a hook that goes on long after its deadline means that what
    /// ends hooks is stuck.
    pub fn liveness(&self) -> Result<(), String> {
        for hook in Hook::ALL.into_iter().filter(|hook| self.is_running(*hook)) {
            let elapsed = self.state().runs[hook as usize].as_ref().map(|run| run.live.elapsed());
            let elapsed = elapsed.and_then(|elapsed| Duration::try_from_secs_f64(elapsed).ok()).unwrap_or_default();
            plan::check_overrun(self.config.hook(hook).deadline, elapsed).map_err(|why| format!("{hook} {why}"))?;
        }
        Ok(())
    }

    /// Why the phase is not ready, if it is not.
    fn phase_readiness(&self) -> Result<(), String> {
        let phase = self.phase();
        if phase.is_ready() {
            return Ok(());
        }
        let doing = match phase {
            Phase::Starting => self.doing(Hook::PreStart),
            Phase::PostStart | Phase::Failed => self.doing(Hook::PostStart),
            Phase::PreStop | Phase::Drained => self.doing(Hook::PreStop),
            _ => None,
        };
        Err(match doing {
            Some(doing) => format!("{phase}: {doing}"),
            None => phase.to_string(),
        })
    }

    /// What a hook is doing now, or why it failed.
    fn doing(&self, hook: Hook) -> Option<String> {
        let report = self.live_report(hook)?;
        if !report.reason.is_empty() {
            return Some(report.reason);
        }
        let step = report.steps.iter().find(|step| step.outcome == Outcome::Running)?;
        Some(format!(
            "step \"{}\"{}",
            step.name,
            if step.reason.is_empty() { String::new() } else { format!(": {}", step.reason) }
        ))
    }

    /// The report of a hook as it stands now.
    pub fn live_report(&self, hook: Hook) -> Option<HookReport> {
        let live = self.state().runs[hook as usize].as_ref().map(|run| run.live.clone())?;
        let mut report = live.snapshot();
        for step in &mut report.steps {
            step.reason = self.config.secrets.redact(std::mem::take(&mut step.reason));
        }
        Some(report)
    }

    /// All reports: undone runs first, then this life's hooks in their order.
    pub fn reports(&self) -> Vec<HookReport> {
        let past: Vec<HookReport> = self.state().past.iter().map(|report| (**report).clone()).collect();
        past.into_iter().chain(Hook::ALL.into_iter().filter_map(|hook| self.live_report(hook))).collect()
    }

    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Notes a trigger that was refused, for the metrics.
    pub fn note_refusal(&self) {
        self.state().counts.refused += 1;
    }

    pub fn main_process(&self) -> Option<i32> {
        self.state().main_process
    }

    pub fn uptime(&self) -> Duration {
        self.born.elapsed()
    }

    /// How the periodic saves stand.
    #[cfg(feature = "state")]
    pub fn periodic_saves(&self) -> Vec<Standing> {
        let standings = self.state().periodic.clone();
        standings.into_iter().map(Standing::now).collect()
    }

    /// Notes how one of the periodic saves goes.
    #[cfg(feature = "state")]
    pub fn change_periodic(&self, index: usize, change: impl FnOnce(&mut Standing)) {
        if let Some(standing) = self.state().periodic.get_mut(index) {
            change(standing);
        }
        self.stir();
    }

    /// What a step may use that is run outside of any hook.
    #[cfg(feature = "state")]
    pub fn context_of(&self, label: String, limit: Instant, progress: Progress) -> Context {
        self.tools(self.main_process()).context(label, limit, Instant::now(), progress)
    }

    pub fn processes(&self) -> &Processes {
        &self.processes
    }

    pub fn own_traffic(&self) -> &OwnTraffic {
        &self.own_traffic
    }
}

/// Beside a main process that somebody else started, that is PID 1 of the container, unless we are it.
fn main_process_beside_us() -> Option<i32> {
    (std::process::id() != 1).then_some(1)
}
