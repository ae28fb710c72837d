//! The time of a hook, as arithmetic: how long each step may take so that the hook ends by its deadline and every
//! essential step still gets what is reserved for it. Pure: no clock, no I/O; durations only, counted from the
//! hook's start. Only the runner knows what time it is.

use std::time::Duration;

use crate::duration::show;

/// The kubelet subtracts the hook's time from the grace period in whole seconds, rounded down
/// (KillContainer in kuberuntime_container.go), so its clock and ours differ by up to one second.
pub const MARGIN: Duration = Duration::from_secs(1);

/// What the main process keeps after its stop signal when nobody says.
pub const STOP_RESERVE: Duration = Duration::from_secs(5);

/// `terminationGracePeriodSeconds` when the pod's spec does not name it.
pub const GRACE_PERIOD: Duration = Duration::from_secs(30);

/// A hook that starts something has no grace period around it: without a bound it would hang for ever, and a hanging
/// post-start cannot even be deleted (the kubelet waits for it).
pub const START_DEADLINE: Duration = Duration::from_secs(60);

/// Post-stop comes out of the same grace period as everything else; a few seconds are enough to say goodbye.
pub const POST_STOP_DEADLINE: Duration = Duration::from_secs(5);

/// The kubelet never leaves less than two seconds between SIGTERM and SIGKILL (minimumGracePeriodInSeconds); when it
/// sends SIGTERM in the middle of pre-stop, essential steps get this much of them and the rest is for the main process.
pub const HURRY: Duration = Duration::from_millis(1500);

/// What an essential step without a timeout of its own has reserved, at most.
const ESSENTIAL: Duration = Duration::from_secs(5);

/// No hook overruns its deadline by more than a tenth of a second: one that does by this much is never going to end. So
/// much longer, because a frozen container (and a machine that slept) is behind with everything when it goes on.
pub const STUCK: Duration = Duration::from_secs(10);

/// Whether a hook that still runs after `elapsed` is only slow, or stuck.
///
/// # Errors
/// It is stuck: the words follow the hook's name.
pub fn check_overrun(deadline: Duration, elapsed: Duration) -> Result<(), String> {
    match elapsed.checked_sub(deadline) {
        Some(over) if over > STUCK => {
            Err(format!("is stuck: it goes on {} after its deadline of {}", show(over), show(deadline)))
        }
        _ => Ok(()),
    }
}

/// How the grace period is shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grace {
    /// `terminationGracePeriodSeconds`.
    pub period: Duration,
    /// For the main process after its stop signal.
    pub stop_reserve: Duration,
    /// For post-stop; zero without such steps.
    pub post_stop: Duration,
    /// For rounding.
    pub margin: Duration,
}

impl Grace {
    /// Shares out `period`. What was not configured shrinks with a short period, so that every part gets something.
    pub fn share(period: Duration, stop_reserve: Option<Duration>, post_stop: Option<Duration>) -> Self {
        Self {
            period,
            stop_reserve: stop_reserve.unwrap_or_else(|| STOP_RESERVE.min(tenths(period / 4))),
            post_stop: post_stop.unwrap_or(Duration::ZERO),
            margin: MARGIN.min(tenths(period / 10)),
        }
    }

    /// The longest that pre-stop may take.
    pub fn pre_stop(&self) -> Duration {
        self.period.saturating_sub(self.stop_reserve + self.post_stop + self.margin)
    }

    /// When, counted from the first notice of the stop, the main process is killed so that post-stop still fits.
    pub fn kill(&self) -> Duration {
        self.period.saturating_sub(self.post_stop + self.margin)
    }
}

/// Rounded down to tenths of a second: what the agent chose itself should read like something a person would choose.
fn tenths(duration: Duration) -> Duration {
    Duration::from_millis(duration.as_millis().try_into().map_or(u64::MAX, |millis: u64| millis / 100 * 100))
}

/// What post-stop gets when nobody says.
pub fn post_stop(period: Duration) -> Duration {
    POST_STOP_DEADLINE.min(tenths(period / 6))
}

/// The most of pre-stop's time that a preset may wait for routing: what is in flight then, and the server's own end, need
/// the rest. With the default grace period that is a second more than the presets say.
pub fn longest_settle(pre_stop: Duration) -> Duration {
    tenths(pre_stop / 3 * 2)
}

/// The time of one step, as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepTime {
    /// `None`: what is left of the hook.
    pub timeout: Option<Duration>,
    pub essential: bool,
}

/// The time of one hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub deadline: Duration,
    pub steps: Vec<StepTime>,
}

/// A step that cannot get its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// This step's timeout alone is longer than the hook.
    Timeout { step: usize, timeout: Duration },
    /// What is reserved for all essential steps together is longer than the hook.
    Essential { reserved: Duration },
}

impl Plan {
    /// What is reserved for step `index`: nothing unless it is essential.
    pub fn reserve(&self, index: usize) -> Duration {
        match self.steps.get(index) {
            Some(StepTime { essential: true, timeout }) => timeout.unwrap_or_else(|| ESSENTIAL.min(self.deadline / 4)),
            _ => Duration::ZERO,
        }
    }

    /// What is reserved for the essential steps after `index`.
    pub fn reserve_after(&self, index: usize) -> Duration {
        (index + 1..self.steps.len()).map(|later| self.reserve(later)).sum()
    }

    /// How long step `index` may run when it begins `elapsed` after the hook's start. Zero: there is no time for it.
    pub fn limit(&self, index: usize, elapsed: Duration) -> Duration {
        let left = self.deadline.saturating_sub(elapsed).saturating_sub(self.reserve_after(index));
        let timeout = self.steps.get(index).and_then(|step| step.timeout);
        timeout.map_or(left, |timeout| timeout.min(left))
    }

    /// When each step begins and ends if everything takes as long as it may: `(start, end)`, from the hook's start.
    pub fn worst_case(&self) -> Vec<(Duration, Duration)> {
        let mut elapsed = Duration::ZERO;
        (0..self.steps.len())
            .map(|index| {
                let start = elapsed;
                elapsed += self.limit(index, elapsed);
                (start, elapsed)
            })
            .collect()
    }

    /// Everything that cannot fit, whatever happens.
    pub fn misfits(&self) -> Vec<Misfit> {
        let mut misfits: Vec<Misfit> = self
            .steps
            .iter()
            .enumerate()
            .filter_map(|(step, time)| {
                time.timeout.filter(|timeout| *timeout > self.deadline).map(|timeout| Misfit::Timeout { step, timeout })
            })
            .collect();
        let reserved: Duration = (0..self.steps.len()).map(|index| self.reserve(index)).sum();
        if reserved > self.deadline && misfits.is_empty() {
            misfits.push(Misfit::Essential { reserved });
        }
        misfits
    }

    /// How long essential step `index` may run in a hurry that has `left`: its own reserve, but never what the essential
    /// steps after it need in proportion.
    pub fn hurried_limit(&self, index: usize, left: Duration) -> Duration {
        let own = self.reserve(index);
        let all = own + self.reserve_after(index);
        if all <= left {
            return own.max(left - self.reserve_after(index)).min(left);
        }
        // Too little for all: each gets its share, so that the last one is not the one that is always lost.
        left.mul_f64(own.as_secs_f64() / all.as_secs_f64().max(f64::MIN_POSITIVE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn plan(deadline: u64, steps: &[(Option<u64>, bool)]) -> Plan {
        Plan {
            deadline: seconds(deadline),
            steps: steps
                .iter()
                .map(|(timeout, essential)| StepTime { timeout: timeout.map(seconds), essential: *essential })
                .collect(),
        }
    }

    #[test]
    fn shares_out_the_grace_period() {
        let grace = Grace::share(seconds(30), None, None);
        assert_eq!((grace.pre_stop(), grace.kill()), (seconds(24), seconds(29)));
        let grace = Grace::share(seconds(30), Some(seconds(10)), Some(seconds(4)));
        assert_eq!((grace.pre_stop(), grace.kill()), (seconds(15), seconds(25)));
        let short = Grace::share(seconds(2), None, None);
        assert_eq!(short.pre_stop(), Duration::from_millis(1300));
        assert_eq!(Grace::share(seconds(5), Some(seconds(9)), None).pre_stop(), Duration::ZERO);
    }

    #[test]
    fn only_a_hook_long_after_its_deadline_is_stuck() {
        for (deadline, elapsed, wanted) in [
            (60, 0, Ok(())),
            (600, 599, Ok(())),
            (60, 70, Ok(())),
            (60, 71, Err("is stuck: it goes on 11s after its deadline of 1m")),
            (0, 11, Err("is stuck: it goes on 11s after its deadline of 0s")),
        ] {
            assert_eq!(check_overrun(seconds(deadline), seconds(elapsed)), wanted.map_err(String::from));
        }
        assert_eq!(check_overrun(Duration::MAX, Duration::MAX), Ok(()));
    }

    #[test]
    fn what_runs_before_an_essential_step_is_cut_short() {
        let plan = plan(24, &[(Some(20), false), (Some(5), true), (None, false)]);
        assert_eq!(plan.limit(0, seconds(0)), seconds(19));
        assert_eq!(plan.limit(1, seconds(19)), seconds(5));
        assert_eq!(plan.limit(2, seconds(24)), Duration::ZERO);
        assert_eq!(plan.limit(2, seconds(10)), seconds(14));
        assert_eq!(
            plan.worst_case(),
            [(seconds(0), seconds(19)), (seconds(19), seconds(24)), (seconds(24), seconds(24))]
        );
    }

    #[test]
    fn refuses_what_cannot_fit() {
        assert_eq!(plan(24, &[(Some(40), false)]).misfits(), [Misfit::Timeout { step: 0, timeout: seconds(40) }]);
        assert_eq!(
            plan(24, &[(Some(20), true), (Some(20), true)]).misfits(),
            [Misfit::Essential { reserved: seconds(40) }]
        );
        assert_eq!(plan(24, &[(Some(20), false), (Some(20), false)]).misfits(), []);
        assert_eq!(plan(24, &[(None, true), (Some(19), true)]).misfits(), []);
    }

    /// Every plan of up to four steps over a coarse grid: the promises hold in all of them.
    #[test]
    fn no_plan_overruns_and_no_reserve_is_lost() {
        let choices = [None, Some(0), Some(1), Some(3), Some(7)];
        for deadline in [0, 1, 4, 10] {
            for length in 0..=4_u32 {
                for code in 0..(choices.len() * 2).pow(length) {
                    let mut rest = code;
                    let steps: Vec<(Option<u64>, bool)> = (0..length)
                        .map(|_| {
                            let digit = rest % (choices.len() * 2);
                            rest /= choices.len() * 2;
                            (choices[digit / 2], digit % 2 == 1)
                        })
                        .collect();
                    let plan = plan(deadline, &steps);
                    let times = plan.worst_case();
                    assert!(times.iter().all(|(start, end)| start <= end && *end <= plan.deadline), "{plan:?}");
                    if plan.misfits().is_empty() {
                        for (index, (start, end)) in times.iter().enumerate() {
                            assert!(*end - *start >= plan.reserve(index), "step {index} of {plan:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_hurry_serves_every_essential_step() {
        let plan = plan(24, &[(Some(20), false), (Some(1), true), (Some(1), true)]);
        assert_eq!(plan.hurried_limit(2, HURRY), HURRY);
        assert_eq!(plan.hurried_limit(1, seconds(3)), seconds(2));
        let first = plan.hurried_limit(1, HURRY);
        assert_eq!(first, HURRY / 2);
        assert!(first + plan.hurried_limit(2, HURRY - first) <= HURRY);
    }
}
