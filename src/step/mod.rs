//! The steps: each kind is a room of its own behind the same door, [`Kind`]. Adding a kind is adding its file
//! and its line in the `kinds!` list below. A step knows nothing of hooks, plans or retries: it is run until it
//! ends or until the runner drops it, and everything it started ends with it.

use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    time::Duration,
};

use serde::Serialize;
use tokio::time::Instant;
use toml::Spanned;

use crate::{
    drain::history::History,
    keys::{Fields, Read},
    net::counters,
    problem::Scope,
    process::Processes,
};

#[cfg(not(feature = "state"))]
mod absent;
pub mod condition;
pub mod drain;
pub mod exec;
pub mod file;
pub mod http;
pub mod kinds;
#[cfg(feature = "state")]
pub mod restore;
#[cfg(feature = "state")]
pub mod save;
pub mod signal;
pub mod sleep;
pub mod wait;
pub mod warm_up;

#[cfg(not(feature = "state"))]
use absent::{restore, save};
pub use condition::Condition;
pub use kinds::{Action, TypedStep};

/// How one attempt at a step ended. A failure is data for the report, not an error of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It did what it should; the text says what was found (`drained: no new connection for 1.2s, …`), may be empty.
    Done(String),
    /// It had nothing to do; the text says why.
    Skipped(String),
    /// It failed and another attempt may help.
    Failed(String),
    /// It failed and no further attempt can help.
    FailedForGood(String),
    /// It saw its limit coming and ended by itself.
    TimedOut(String),
}

/// What a kind of step provides.
pub trait Kind: Sized + fmt::Debug {
    /// The step as typed, made by `keys!`: the keys in the TOML, and the options of `boathook step KIND`.
    type Typed: Read + Fields + Default + 'static;

    /// Gives meaning to what was typed; `None` when it noted at least one problem.
    fn mean(typed: Self::Typed, scope: &mut Scope<'_>) -> Option<Self>;

    /// Runs one attempt. It may be dropped at any await (timeout, hurry): then whatever it started must end.
    /// It need not watch `context.limit`, unless it wants to end gracefully before the cut.
    fn run(&self, context: &Context) -> impl Future<Output = End>;
}

/// What a step may know and use while it runs.
#[derive(Clone)]
pub struct Context {
    /// `pre-stop/save sessions`: for log lines.
    pub label: String,
    /// When the runner will cut this attempt.
    pub limit: Instant,
    pub hook_started: Instant,
    /// Time granted for TERM before KILL, counted back from `limit`, for steps that end processes.
    pub kill_after: Duration,
    /// Where the preset's server usually listens.
    pub usual_ports: Vec<u16>,
    /// The process that the `signal` step means by default: what `boathook run` started, else PID 1.
    pub main_process: Option<i32>,
    pub processes: Processes,
    pub own_traffic: OwnTraffic,
    pub progress: Progress,
}

/// The connections that the agent itself has accepted or made: the drain must not count them as the application's.
#[derive(Clone, Debug, Default)]
pub struct OwnTraffic {
    /// The ports the agent listens on (TCP).
    pub ports: Vec<u16>,
    /// Connections accepted on them so far.
    pub accepted: Arc<std::sync::atomic::AtomicU64>,
    /// What was seen of all others.
    pub history: History,
}

impl OwnTraffic {
    /// Connections so far with the agent at one end or both, as the kernel counts those that were accepted here.
    pub fn count(&self) -> i64 {
        self.accepted.load(Relaxed).wrapping_add(counters::own_connections()).cast_signed()
    }
}

/// What a step is doing now, in a few words. Shown in `/status`; when the step is cut it is the reason
/// (`timed out after 20s: 3 requests in flight, oldest for 12s`).
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Mutex<(String, Option<Measure>)>>);

impl Progress {
    pub fn set(&self, text: impl Into<String>) {
        self.with(|(now, _)| *now = text.into());
    }
    pub fn now(&self) -> String {
        self.with(|(now, _)| now.clone())
    }
    /// Says how far it is, besides the words.
    pub fn measure(&self, measure: Measure) {
        self.with(|(_, now)| *now = Some(measure));
    }
    pub fn measured(&self) -> Option<Measure> {
        self.with(|(_, now)| *now)
    }
    fn with<T>(&self, use_it: impl FnOnce(&mut (String, Option<Measure>)) -> T) -> T {
        use_it(&mut self.0.lock().expect("no holder of this lock can panic"))
    }
}

/// How far a step is, in numbers: for `/status`, and for the bars of `boathook status --watch`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Measure {
    /// Requests that succeeded.
    pub done: u64,
    /// How many are still wanted, where that can be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<u64>,
    /// Requests that failed.
    pub failed: u64,
    /// Requests per second, lately.
    pub rate: f64,
    /// The latency lately, in seconds: half of the requests were faster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50: Option<f64>,
    /// 99 of 100 were faster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99: Option<f64>,
}

impl Measure {
    /// With the digits that mean something to people: tenths of requests, microseconds.
    #[must_use]
    pub fn rounded(self) -> Self {
        let micros = |seconds: f64| (seconds * 1e6).round() / 1e6;
        Self { rate: (self.rate * 10.0).round() / 10.0, p50: self.p50.map(micros), p99: self.p99.map(micros), ..self }
    }

    /// Both together, for a group whose steps run side by side. Two latencies do not add up: the slower one is told.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let slower = |one: Option<f64>, two: Option<f64>| match (one, two) {
            (Some(one), Some(two)) => Some(one.max(two)),
            (one, two) => one.or(two),
        };
        Self {
            done: self.done.saturating_add(other.done),
            left: self.left.zip(other.left).map(|(one, two)| one.saturating_add(two)),
            failed: self.failed.saturating_add(other.failed),
            rate: self.rate + other.rate,
            p50: slower(self.p50, other.p50),
            p99: slower(self.p99, other.p99),
        }
    }
}

/// What happens to the hook when a step has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// The hook goes on and may still succeed.
    Continue,
    /// The hook fails; only essential steps still run.
    Abort,
}

/// A named action with what is common to all kinds.
#[derive(Debug)]
pub struct Step {
    pub name: String,
    pub action: Action,
    /// For the whole step, all its attempts and pauses; `None`: what is left of the hook.
    pub timeout: Option<Duration>,
    /// For one attempt.
    pub attempt_timeout: Option<Duration>,
    pub on_failure: OnFailure,
    /// Attempts after the first.
    pub retries: u32,
    /// The pause before the first retry; it doubles each time.
    pub backoff: Duration,
    pub when: Option<Condition>,
    /// Its time is reserved, and it runs also when the hook was aborted or is in a hurry.
    pub essential: bool,
}

impl Step {
    /// Whether it watches connections, or one of its group does.
    pub fn drains(&self) -> bool {
        match &self.action {
            Action::Group(steps) => steps.iter().any(Step::drains),
            Action::Drain(drain) => drain.watches_connections(),
            _ => false,
        }
    }
}

/// The first pause between attempts: long enough for a blip to pass, short enough for a grace period.
const BACKOFF: Duration = Duration::from_millis(500);

/// No pause is longer: within a grace period a longer one is as good as giving up.
pub const LONGEST_BACKOFF: Duration = Duration::from_secs(10);

/// More steps than any container has; more of them would only make the report unreadable.
const MOST_STEPS: usize = 100;

/// Gives meaning to a list of typed steps; `line_of` turns a place in the text into its line.
pub fn mean_steps(
    typed: Vec<Spanned<TypedStep>>,
    line_of: &dyn Fn(usize) -> usize,
    scope: &mut Scope<'_>,
) -> Vec<Step> {
    if typed.len() > MOST_STEPS {
        scope.problem(
            "",
            format!("{} steps are more than {MOST_STEPS}", typed.len()),
            "put what belongs together into one command".to_owned(),
        );
        return Vec::new();
    }
    let hook = scope.place.clone();
    let mut steps: Vec<Step> = Vec::new();
    for (index, typed) in typed.into_iter().enumerate() {
        scope.line = Some(line_of(typed.span().start));
        let typed = typed.into_inner();
        scope.place = match &typed.name {
            Some(name) => format!("{hook}: step \"{name}\""),
            None => format!("{hook}: step {}", index + 1),
        };
        let Some(mut step) = mean_step(typed, scope) else { continue };
        if step.name.is_empty() {
            // Unnamed steps are called by their kind, with a number when there are several.
            let kind = step.action.name();
            let same =
                steps.iter().filter(|other| other.name == kind || other.name.starts_with(&format!("{kind} "))).count();
            step.name = if same == 0 { kind.into() } else { format!("{kind} {}", same + 1) };
        } else if steps.iter().any(|other| other.name == step.name) {
            scope.problem(
                "name",
                "another step of this hook has the same name",
                "give each its own: logs and reports go by it".to_owned(),
            );
        }
        steps.push(step);
    }
    scope.place = hook;
    scope.line = None;
    steps
}

/// Gives meaning to one typed step; its name stays empty when none was typed.
pub fn mean_step(mut typed: TypedStep, scope: &mut Scope<'_>) -> Option<Step> {
    let before = scope.problems.len();
    if let Some(name) = &typed.name
        && (name.is_empty() || name.len() > 63 || name.chars().any(char::is_control))
    {
        scope.problem("name", "a name has 1 to 63 printable characters", "shorten it".to_owned());
    }
    for (key, span) in [("timeout", typed.timeout), ("attempt-timeout", typed.attempt_timeout)] {
        if span.is_some_and(|span| span.0.is_zero()) {
            scope.problem(
                key,
                "no time at all is left for the step",
                "give it some, or leave the key out for what is left of the hook".to_owned(),
            );
        }
    }
    let on_failure = match typed.on_failure.as_deref() {
        None | Some("abort") => OnFailure::Abort,
        Some("continue") => OnFailure::Continue,
        Some(other) => {
            scope.problem("on-failure", format!("`{other}` is neither \"continue\" nor \"abort\""), None);
            OnFailure::Abort
        }
    };
    let retries = typed.retries.map_or(0, |retries| retries.0);
    if retries > 1000 {
        scope.problem(
            "retries",
            format!("{retries} retries are more than 1000"),
            "bound the step by its timeout instead".to_owned(),
        );
    }
    if typed.group.is_some() && (retries > 0 || typed.attempt_timeout.is_some()) {
        scope.problem("retries", "a group is not retried as a whole", "give its steps their own retries".to_owned());
    }
    scope.step_name = typed.name.clone().unwrap_or_default();
    let when = typed.when.take().and_then(|when| Condition::mean(when, scope));
    let action = typed.action(scope)?;
    let essential =
        typed.essential || matches!(&action, Action::Group(steps) if steps.iter().any(|step| step.essential));
    (scope.problems.len() == before).then(|| Step {
        name: typed.name.unwrap_or_default(),
        action,
        timeout: typed.timeout.map(|span| span.0),
        attempt_timeout: typed.attempt_timeout.map(|span| span.0),
        on_failure,
        retries,
        backoff: typed.backoff.map_or(BACKOFF, |span| span.0),
        when,
        essential,
    })
}

fn mean_group(typed: Vec<Spanned<TypedStep>>, scope: &mut Scope<'_>) -> Option<Action> {
    if typed.is_empty() {
        scope.problem("group", "it has no steps", "add some, or take it out".to_owned());
        return None;
    }
    if typed.iter().any(|step| step.get_ref().group.is_some()) {
        scope.problem("group", "a group within a group", "one level is enough: put the steps side by side".to_owned());
        return None;
    }
    let (before, line, count) = (scope.problems.len(), scope.line, typed.len());
    // Only the line of the group itself is known here; the place names the step.
    let steps = mean_steps(typed, &|_| line.unwrap_or_default(), scope);
    scope.line = line;
    (scope.problems.len() == before && steps.len() == count).then_some(Action::Group(steps))
}
