//! The four hooks and the agent's phases: which there are, what they are called, and which phase may follow which.
//! Pure; readiness is a function of the phase and of nothing else.

use std::fmt;

use serde::Serialize;

/// When something is run. Kubernetes has `postStart` and `preStop`; `boathook run` adds the outer two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hook {
    PreStart,
    PostStart,
    PreStop,
    PostStop,
}

impl Hook {
    pub const ALL: [Hook; 4] = [Hook::PreStart, Hook::PostStart, Hook::PreStop, Hook::PostStop];

    pub fn name(self) -> &'static str {
        match self {
            Hook::PreStart => "pre-start",
            Hook::PostStart => "post-start",
            Hook::PreStop => "pre-stop",
            Hook::PostStop => "post-stop",
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The agent's own place in life (not the Pod's phase).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Before the main process: pre-start.
    Starting,
    /// The main process runs, post-start is not done (or was not asked for yet).
    PostStart,
    /// Everything that should happen at the start has happened.
    Ready,
    /// Post-start failed and only readiness was gated: the main process runs, but gets no traffic.
    Failed,
    /// Pre-stop runs.
    PreStop,
    /// Pre-stop has ended; the stop signal should follow.
    Drained,
    /// The stop signal has been passed on.
    Stopping,
    /// The main process has ended; post-stop runs.
    PostStop,
    /// Nothing is left to do.
    Ended,
}

impl Phase {
    pub const ALL: [Phase; 9] = [
        Phase::Starting,
        Phase::PostStart,
        Phase::Ready,
        Phase::Failed,
        Phase::PreStop,
        Phase::Drained,
        Phase::Stopping,
        Phase::PostStop,
        Phase::Ended,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::PostStart => "post-start",
            Phase::Ready => "ready",
            Phase::Failed => "failed",
            Phase::PreStop => "pre-stop",
            Phase::Drained => "drained",
            Phase::Stopping => "stopping",
            Phase::PostStop => "post-stop",
            Phase::Ended => "ended",
        }
    }

    /// Should traffic be sent here? False from the first moment of pre-stop.
    pub fn is_ready(self) -> bool {
        self == Phase::Ready
    }

    /// The one table of what may follow what.
    pub fn may_become(self, next: Phase) -> bool {
        use Phase::{Drained, Ended, Failed, PostStart, PostStop, PreStop, Ready, Starting, Stopping};
        match self {
            Starting => matches!(next, PostStart | Ready | PreStop | Stopping | PostStop | Ended),
            PostStart => matches!(next, Ready | Failed | PreStop | Stopping | PostStop),
            Ready | Failed => matches!(next, PreStop | Stopping | PostStop),
            // Back to where it was before: nobody sent the stop signal after all.
            PreStop => matches!(next, Drained | Stopping | PostStop),
            Drained => matches!(next, Ready | Failed | PostStart | PreStop | Stopping | PostStop),
            Stopping => matches!(next, PostStop),
            PostStop => matches!(next, Ended),
            Ended => false,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_phase_is_ready() {
        let ready: Vec<Phase> = Phase::ALL.into_iter().filter(|phase| phase.is_ready()).collect();
        assert_eq!(ready, [Phase::Ready]);
    }

    #[test]
    fn every_life_ends_and_nothing_follows_the_end() {
        for phase in Phase::ALL {
            assert!(!Phase::Ended.may_become(phase), "{phase} after the end");
            assert!(!phase.may_become(phase), "{phase} becomes itself");
            assert!(!phase.may_become(Phase::Starting), "{phase} starts again");
        }
        let mut reached = vec![Phase::Starting];
        while let Some(next) = Phase::ALL
            .into_iter()
            .find(|next| !reached.contains(next) && reached.iter().any(|phase| phase.may_become(*next)))
        {
            reached.push(next);
        }
        assert_eq!(reached.len(), Phase::ALL.len(), "a phase that nothing leads to");
    }

    #[test]
    fn after_the_stop_signal_nothing_becomes_ready() {
        for phase in [Phase::Stopping, Phase::PostStop, Phase::Ended, Phase::PreStop] {
            assert!(!phase.may_become(Phase::Ready), "{phase}");
        }
    }
}
