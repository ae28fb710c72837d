//! The agent as its doors see it: what a call on the port or on the control socket means for the agent. The doors decide
//! who may call; this decides what follows.

use std::sync::Arc;

use crate::{
    agent::{Agent, Mode},
    config::Gate,
    hook::{Hook, Phase},
    report::{HookReport, Outcome},
    runner::{Urgency, Which},
    server::{self, Caller, HookAnswer, Trigger},
    status,
};

/// What stands behind the port and the control socket.
pub struct Door(pub Arc<Agent>);

impl server::Agent for Door {
    async fn trigger(&self, hook: Trigger, by: &Caller) -> HookAnswer {
        let agent = &self.0;
        agent.stir();
        let trigger = by.to_string();
        match hook {
            Trigger::Started => started(agent, &trigger).await,
            Trigger::Shutdown => shutdown(agent, &trigger).await,
        }
    }

    async fn is_ready(&self) -> Result<(), String> {
        self.0.note_ask();
        let answer = self.0.is_ready().await;
        // A check may have taken longer than the agent waits before it rests.
        self.0.stir();
        answer
    }

    /// Whoever gets an answer at all has it from the one thread that does everything: if that is stuck, nobody answers.
    fn is_live(&self) -> Result<(), String> {
        self.0.note_ask();
        self.0.liveness()
    }

    fn status_json(&self) -> String {
        self.0.note_ask();
        status::status_json(&self.0)
    }

    fn report_json(&self) -> String {
        self.0.note_ask();
        status::report_json(&self.0)
    }

    fn metrics(&self) -> String {
        self.0.note_ask();
        status::metrics(&self.0)
    }

    fn note_refusal(&self) {
        self.0.note_refusal();
    }
}

async fn started(agent: &Arc<Agent>, trigger: &str) -> HookAnswer {
    match agent.gate() {
        // `run` starts post-start itself; elsewhere this call is its trigger. Either way nobody waits for it here.
        Gate::Readiness => {
            if agent.mode != Mode::Run {
                agent.join(Hook::PostStart, trigger, Which::All);
            }
            let body = match agent.live_report(Hook::PostStart) {
                Some(report) => report.answer(),
                None => not_run(
                    Hook::PostStart,
                    trigger,
                    "it starts with the main process; readiness is held until it is done",
                )
                .answer(),
            };
            HookAnswer { succeeded: true, body }
        }
        Gate::Hook => {
            // Before the main process there is nothing to be started yet: the kubelet's call comes 10 ms after ours.
            let mut phase = agent.watch_phase();
            // An error means that the agent is gone, and then nobody reads the answer.
            let _ = phase.wait_for(|phase| *phase != Phase::Starting).await;
            if matches!(agent.phase(), Phase::Stopping | Phase::PostStop | Phase::Ended)
                && agent.run_of(Hook::PostStart).is_none()
            {
                let report = not_run(Hook::PostStart, trigger, "the container is stopping");
                return HookAnswer { succeeded: false, body: report.answer() };
            }
            wait_for(agent, Hook::PostStart, trigger).await
        }
    }
}

async fn shutdown(agent: &Arc<Agent>, trigger: &str) -> HookAnswer {
    let nothing = match agent.phase() {
        Phase::Starting => {
            // Nothing serves yet, and half-restored state must not be saved over a good snapshot.
            agent.urge(Hook::PreStart, Urgency::Cancel);
            agent.note_stop();
            Some("the main process had not started: pre-start is given up, and there is nothing to drain or to save")
        }
        Phase::Stopping | Phase::PostStop | Phase::Ended if agent.run_of(Hook::PreStop).is_none() => {
            Some("the container is stopping already")
        }
        _ => None,
    };
    match nothing {
        Some(why) => HookAnswer { succeeded: true, body: not_run(Hook::PreStop, trigger, why).answer() },
        None => wait_for(agent, Hook::PreStop, trigger).await,
    }
}

async fn wait_for(agent: &Arc<Agent>, hook: Hook, trigger: &str) -> HookAnswer {
    let mut joined = agent.join(hook, trigger, Which::All);
    let report = joined.wait_for(Option::is_some).await.ok().and_then(|report| report.clone());
    match report {
        Some(report) => HookAnswer { succeeded: report.has_succeeded(), body: report.answer() },
        // The run's task is gone without a report: only when the agent itself is ending.
        None => HookAnswer { succeeded: false, body: not_run(hook, trigger, "the agent is ending").answer() },
    }
}

/// A report for a hook that had no run.
fn not_run(hook: Hook, trigger: &str, why: &str) -> HookReport {
    HookReport {
        hook,
        outcome: Outcome::Skipped,
        trigger: trigger.into(),
        reason: why.into(),
        started_at: 0.0,
        took: None,
        deadline: 0.0,
        hurried: false,
        steps: Vec::new(),
    }
}
