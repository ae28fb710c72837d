//! Saves while the main process runs: even a node's sudden death, or a kill of the whole container for its memory, then
//! loses no more than one period. The hook's own save, at the end, is not its business.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::{
    agent::Agent,
    config::Config,
    duration::show,
    hook::{Hook, Phase},
    report::{LONGEST_REASON, Outcome, cut, round},
    step::{Action, End, Progress, Step, condition::Verdict},
    task,
};

/// How the periodic saves of one step stand.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Standing {
    /// The step's name.
    pub name: String,
    /// Seconds between the end of one save and the start of the next.
    pub every: f64,
    pub succeeded: u64,
    pub failed: u64,
    /// How the last one ended, or that one runs now.
    pub outcome: Outcome,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// When the last success ended, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saved_at: Option<f64>,
    /// How many seconds the last one took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took: Option<f64>,
    #[serde(skip)]
    progress: Progress,
}

impl Standing {
    /// With what it is doing at this moment.
    pub fn now(mut self) -> Self {
        if self.outcome == Outcome::Running {
            self.reason = self.progress.now();
        }
        self
    }
}

/// The saves among these steps that are periodic, also those in groups, with their period.
fn periodic_of(steps: &[Step]) -> Vec<(&Step, Duration)> {
    let mut found = Vec::new();
    for step in steps {
        match &step.action {
            Action::Group(inner) => found.extend(periodic_of(inner)),
            Action::Save(save) => found.extend(save.periodic.map(|period| (step, period))),
            _ => {}
        }
    }
    found
}

/// How the periodic saves of a configuration stand before the first.
pub fn standings(config: &Config) -> Vec<Standing> {
    let standing = |(step, period): (&Step, Duration)| Standing {
        name: step.name.clone(),
        every: round(period.as_secs_f64()),
        succeeded: 0,
        failed: 0,
        outcome: Outcome::Pending,
        reason: String::new(),
        saved_at: None,
        took: None,
        progress: Progress::default(),
    };
    periodic_of(&config.hook(Hook::PreStop).steps).into_iter().map(standing).collect()
}

/// Starts one task for each periodic save; they end with the agent.
pub fn start(agent: &Arc<Agent>) {
    for index in 0..agent.periodic_saves().len() {
        let agent = Arc::clone(agent);
        task::spawn(async move { save_each_period(&agent, index).await });
    }
}

/// Saves whenever a period has passed since the last save ended. Only while the agent is ready: before that a restore
/// may still be to come, and a snapshot of the empty state would be newer than the one it should bring back.
async fn save_each_period(agent: &Arc<Agent>, index: usize) {
    let Some((step, period)) = periodic_of(&agent.config.hook(Hook::PreStop).steps).into_iter().nth(index) else {
        return;
    };
    let mut phase = agent.watch_phase();
    loop {
        if phase.wait_for(|phase| phase.is_ready()).await.is_err() {
            return;
        }
        // The pre-stop's own save follows a stop: one that runs just then is given up for it, and what it has written
        // so far is cleared.
        let left = async {
            let _ = phase.wait_for(|phase| !phase.is_ready()).await;
        };
        tokio::select! {
            () = left => {
                agent.change_periodic(index, |standing| {
                    if standing.outcome == Outcome::Running {
                        standing.outcome = Outcome::GivenUp;
                        standing.reason = "pre-stop began".into();
                    }
                });
            }
            () = async {
                loop {
                    tokio::time::sleep(period).await;
                    save_once(agent, index, step, period).await;
                }
            } => {}
        }
        if *agent.watch_phase().borrow() == Phase::Ended {
            return;
        }
    }
}

async fn save_once(agent: &Arc<Agent>, index: usize, step: &Step, period: Duration) {
    let begun = Instant::now();
    let progress = Progress::default();
    agent.change_periodic(index, |standing| {
        standing.outcome = Outcome::Running;
        standing.progress = progress.clone();
    });
    // A save that takes longer than its period leaves no time for anything else.
    let context = agent.context_of(format!("periodic/{}", step.name), begun + period, progress);
    let saving = async {
        if let Some(condition) = &step.when {
            match condition.test(&context).await {
                Verdict::Holds => {}
                Verdict::Not(why) => return End::Skipped(why),
                Verdict::Unknown(why) => return End::Failed(format!("its condition cannot be told: {why}")),
            }
        }
        step.action.run(&context).await
    };
    let end = match tokio::time::timeout_at(context.limit, saving).await {
        Ok(end) => end,
        Err(_) => End::TimedOut(format!("not done after {}: {}", show(period), context.progress.now())),
    };
    let took = begun.elapsed();
    let (outcome, reason) = match end {
        End::Done(what) => (Outcome::Succeeded, what),
        End::Skipped(why) => (Outcome::Skipped, why),
        End::Failed(why) | End::FailedForGood(why) => (Outcome::Failed, why),
        End::TimedOut(why) => (Outcome::TimedOut, why),
    };
    let reason = agent.config.secrets.redact(reason);
    let name = step.name.as_str();
    if matches!(outcome, Outcome::Failed | Outcome::TimedOut) {
        warn!(step = name, outcome = outcome.name(), took = %show(took), reason, "periodic save ended");
    } else {
        info!(step = name, outcome = outcome.name(), took = %show(took), reason, "periodic save ended");
    }
    agent.change_periodic(index, |standing| {
        match outcome {
            Outcome::Succeeded => {
                standing.succeeded += 1;
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                standing.saved_at = Some(round(now.as_secs_f64()));
            }
            Outcome::Failed | Outcome::TimedOut => standing.failed += 1,
            _ => {}
        }
        standing.outcome = outcome;
        standing.reason = cut(&reason, LONGEST_REASON);
        standing.took = Some(round(took.as_secs_f64()));
    });
}
