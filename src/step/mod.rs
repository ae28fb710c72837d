//! The steps: each kind is a room of its own behind the same door, [`Kind`]. Adding a kind is adding its file
//! and its line in the `kinds!` list below. A step knows nothing of hooks, plans or retries: it is run until it
//! ends or until the runner drops it, and everything it started ends with it.

use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

pub mod drain;

use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::{problem::Scope, process::Processes};

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
}

/// What a kind of step provides.
pub trait Kind: Sized + fmt::Debug {
    /// The step as typed: the same keys in the TOML (kebab-case) and on `boathook step KIND` (long options).
    type Typed: DeserializeOwned + clap::Args;

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
    pub app_ports: Vec<u16>,
    /// The process that the `signal` step means by default: what `boathook run` started, else PID 1.
    pub main_process: Option<i32>,
    pub processes: Processes,
    pub own_traffic: OwnTraffic,
    pub progress: Progress,
}

/// The connections that the agent itself has accepted: the drain must not count them as the application's.
#[derive(Clone, Debug, Default)]
pub struct OwnTraffic {
    /// The ports the agent listens on (TCP).
    pub ports: Vec<u16>,
    /// Connections accepted on them so far.
    pub accepted: Arc<std::sync::atomic::AtomicU64>,
}

/// What a step is doing now, in a few words. Shown in `/status`; when the step is cut it is the reason
/// (`timed out after 20s: 3 requests in flight, oldest for 12s`).
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Mutex<String>>);

impl Progress {
    pub fn set(&self, text: impl Into<String>) {
        *self.0.lock().expect("no holder of this lock can panic") = text.into();
    }
    pub fn now(&self) -> String {
        self.0.lock().expect("no holder of this lock can panic").clone()
    }
}
