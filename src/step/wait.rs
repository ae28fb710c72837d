//! The step `wait`: tries a probe until it holds. Its limit is the step's timeout; each try has a limit of its own, so
//! that a server which accepts and says nothing does not eat the whole step. What is probed is left to `probe`.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::{Context, End, Kind, Progress};
use crate::{
    duration::{Span, show},
    keys::keys,
    number::Number,
    probe::{Probe, ProbeTyped},
    problem::Scope,
};

/// Twice a second: what is waited for at start is noticed soon, and a server does not mind.
const INTERVAL: Duration = Duration::from_millis(500);
/// The pause between tries cannot be shorter: a refused connection costs no time, so it would be a busy loop.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);
/// Longer than a healthy answer takes, short enough for several tries in a usual timeout.
const ATTEMPT: Duration = Duration::from_secs(2);

keys! {
    /// Wait until a condition is true.
    #[derive(Clone, Debug, PartialEq)]
    pub struct WaitTyped {
        /// The pause between tries; 500ms if not given.
        pub interval: Option<Span> = One("DURATION"),
        /// How many times in a row it must be true.
        pub consecutive: Option<Number<u32>> = One("COUNT"),
        /// How long one try may take; 2s if not given.
        pub try_timeout: Option<Span> = One("DURATION"),
    }
    parts { Always pub probe: ProbeTyped }
}

/// The step as it is run.
#[derive(Debug)]
pub struct Wait {
    probe: Probe,
    interval: Duration,
    consecutive: u32,
    attempt: Duration,
}

impl Kind for Wait {
    type Typed = WaitTyped;

    fn mean(typed: WaitTyped, scope: &mut Scope<'_>) -> Option<Wait> {
        let before = scope.problems.len();
        let probe = Probe::mean(typed.probe, scope);
        let interval = typed.interval.map_or(INTERVAL, |span| span.0);
        if interval < SHORTEST_INTERVAL {
            scope.problem("interval", format!("{} is shorter than 10ms", show(interval)), None);
        }
        let attempt = typed.try_timeout.map_or(ATTEMPT, |span| span.0);
        if attempt.is_zero() {
            scope.problem("try-timeout", "in no time nothing can be tried", None);
        }
        let consecutive = typed.consecutive.map_or(1, |count| count.0);
        if consecutive == 0 {
            scope.problem("consecutive", "it must be at least 1", None);
        }
        if scope.problems.len() > before {
            return None;
        }
        Some(Wait { probe: probe?, interval, consecutive, attempt })
    }

    async fn run(&self, context: &Context) -> End {
        let started = Instant::now();
        let mut tries = 0u64;
        let mut in_a_row = 0;
        context.progress.set(format!("{}: the first try", self.probe));
        loop {
            tries += 1;
            let own = Progress::default();
            let outcome = match timeout(self.attempt, self.probe.hold(&context.processes, &own)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(self.probe.unanswered(&own, self.attempt)),
            };
            let plural = if tries == 1 { "try" } else { "tries" };
            match outcome {
                Ok(()) => {
                    in_a_row += 1;
                    if in_a_row >= self.consecutive {
                        return End::Done(format!("true after {}, {tries} {plural}", show(started.elapsed())));
                    }
                    let wanted = self.consecutive;
                    context.progress.set(format!("{}: true {in_a_row} of {wanted} times in a row", self.probe));
                }
                Err(why) => {
                    in_a_row = 0;
                    context.progress.set(format!("{why}, {tries} {plural}"));
                }
            }
            sleep(self.interval).await;
        }
    }
}
