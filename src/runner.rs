//! Runs a hook: the only room that knows what time it is while steps run. It asks the plan how long each step may take,
//! cuts what outlasts that, retries, hurries, and writes the report. What a step does is the step's business; what
//! follows from a hook is the agent's.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::atomic::{AtomicU32, Ordering},
    task::Poll,
    time::Duration,
};

use tokio::{sync::watch, time::Instant};
use tracing::{debug, info, warn};

use crate::{
    config::HookConfig,
    duration::show,
    hook::Hook,
    process::Processes,
    redact::Secrets,
    report::{LONGEST_REASON, Live, Outcome, cut, round},
    step::{Action, Context, End, LONGEST_BACKOFF, Measure, OnFailure, OwnTraffic, Progress, Step, condition::Verdict},
};

/// How much time the platform still grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// All that the plan says.
    Calm,
    /// The stop signal came in the middle: only essential steps, and those until then.
    Hurry { until: Instant },
    /// The hook is no longer wanted (post-start, when pre-stop begins).
    Cancel,
}

/// Which of a hook's steps are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    All,
    /// The main process has ended by itself: there is nothing to drain, but state may still be lost.
    Essential,
}

/// What all steps of a run share.
#[derive(Clone)]
pub struct Tools {
    pub processes: Processes,
    pub own_traffic: OwnTraffic,
    pub usual_ports: Vec<u16>,
    pub main_process: Option<i32>,
    pub secrets: Secrets,
}

impl Tools {
    /// What one step may know and use until its limit.
    pub fn context(&self, label: String, limit: Instant, hook_started: Instant, progress: Progress) -> Context {
        Context {
            label,
            limit,
            hook_started,
            kill_after: KILL_AFTER.min(limit.saturating_duration_since(Instant::now()) / 10),
            usual_ports: self.usual_ports.clone(),
            main_process: self.main_process,
            processes: self.processes.clone(),
            own_traffic: self.own_traffic.clone(),
            progress,
        }
    }
}

/// TERM comes this long before KILL, at most: a command that has not ended a second after TERM is not going to.
const KILL_AFTER: Duration = Duration::from_secs(1);

/// Steps of a group end this much before the group, so that the group can still say which of them were cut.
const GROUP_SLACK: Duration = Duration::from_millis(10);

/// A step that runs says in the log what it is doing this often: a start that hangs should tell why before anybody
/// gives up on it, and a log should not fill with it.
const WORD: Duration = Duration::from_secs(10);

/// How a step ended, with what people want to know.
struct Ended {
    outcome: Outcome,
    reason: String,
    tries: u32,
}

impl Ended {
    fn new(outcome: Outcome, reason: impl Into<String>) -> Self {
        Self { outcome, reason: reason.into(), tries: 0 }
    }
}

/// Runs all steps of a hook and completes its report.
pub async fn run_hook(
    hook: Hook,
    config: &HookConfig,
    which: Which,
    live: &Live,
    tools: &Tools,
    mut urgency: watch::Receiver<Urgency>,
) {
    let started = Instant::now();
    let plan = config.plan();
    let mut failure: Option<String> = None;
    let mut given_up: Vec<&str> = Vec::new();
    for (index, step) in config.steps.iter().enumerate() {
        let now = Instant::now();
        let allowed = plan.limit(index, now - started);
        let ended = match *urgency.borrow_and_update() {
            Urgency::Cancel => Err(Ended::new(Outcome::GivenUp, "the hook is no longer wanted")),
            Urgency::Hurry { .. } if !step.essential => {
                Err(Ended::new(Outcome::GivenUp, "the stop signal came before it could run"))
            }
            Urgency::Hurry { until } => {
                Ok(plan.hurried_limit(index, until.saturating_duration_since(now)).min(allowed))
            }
            Urgency::Calm if which == Which::Essential && !step.essential => {
                Err(Ended::new(Outcome::Skipped, "the main process has ended; only essential steps are run"))
            }
            Urgency::Calm if failure.is_some() && !step.essential => {
                Err(Ended::new(Outcome::Skipped, "an earlier step has failed"))
            }
            Urgency::Calm if allowed.is_zero() => Err(Ended::new(Outcome::TimedOut, "no time was left for it")),
            Urgency::Calm => Ok(allowed),
        };
        let ended = match ended {
            Err(not_run) => not_run,
            Ok(allowed) => {
                live.change_step(index, |report| {
                    report.outcome = Outcome::Running;
                    report.started = Some(round((now - started).as_secs_f64()));
                });
                info!(hook = hook.name(), step = step.name.as_str(), kind = step.action.name(), limit = %show(allowed), "step started");
                let label = format!("{hook}/{}", step.name);
                let context = tools.context(label, now + allowed, started, live.progress(index));
                let hurried = |left| plan.hurried_limit(index, left);
                let mut running = std::pin::pin!(run_step(step, context, &mut urgency, &hurried));
                let mut next_word = now + WORD;
                loop {
                    tokio::select! {
                        biased;
                        ended = &mut running => break ended,
                        () = tokio::time::sleep_until(next_word) => {
                            next_word += WORD;
                            log_running(hook, step, now.elapsed(), tools.secrets.redact(live.progress(index).now()));
                        }
                    }
                }
            }
        };
        let took = Instant::now() - now;
        let reason = cut(&tools.secrets.redact(ended.reason), LONGEST_REASON);
        log_end(hook.name(), &step.name, ended.outcome, took, &reason);
        live.change_step(index, |report| {
            report.outcome = ended.outcome;
            report.took = report.started.map(|_| round(took.as_secs_f64()));
            report.tries = ended.tries;
            report.reason.clone_from(&reason);
        });
        let deadline_passed = ended.outcome == Outcome::TimedOut && started.elapsed() >= config.deadline;
        match ended.outcome {
            Outcome::GivenUp => given_up.push(&step.name),
            Outcome::Failed | Outcome::TimedOut
                if failure.is_none() && (step.on_failure == OnFailure::Abort || deadline_passed) =>
            {
                failure = Some(format!("step \"{}\": {reason}", step.name));
            }
            _ => {}
        }
    }
    let is_cancelled = *urgency.borrow() == Urgency::Cancel;
    live.change(|report| {
        let took = started.elapsed();
        report.took = Some(round(took.as_secs_f64()));
        report.hurried = matches!(*urgency.borrow(), Urgency::Hurry { .. });
        (report.outcome, report.reason) = match failure {
            _ if is_cancelled => (Outcome::GivenUp, "it was no longer wanted: pre-stop began".into()),
            Some(reason) => (Outcome::Failed, reason),
            None if !given_up.is_empty() => {
                (Outcome::Failed, format!("the stop signal came before it was done; given up: {}", given_up.join(", ")))
            }
            None => (Outcome::Succeeded, String::new()),
        };
    });
}

/// Says why a hook takes long, for steps that know what they are waiting for.
fn log_running(hook: Hook, step: &Step, elapsed: Duration, doing: String) {
    // Warm-up has lines of its own, with more in them.
    if doing.is_empty() || step.action.name() == "warm-up" {
        return;
    }
    let (elapsed, doing) = (show(elapsed), cut(&doing, LONGEST_REASON));
    info!(hook = hook.name(), step = step.name.as_str(), %elapsed, doing, "step running");
}

fn log_end(hook: &str, name: &str, outcome: Outcome, took: Duration, reason: &str) {
    let took = show(took);
    match outcome {
        Outcome::Failed | Outcome::TimedOut | Outcome::GivenUp => {
            warn!(hook, step = name, outcome = outcome.name(), %took, reason, "step ended");
        }
        _ => info!(hook, step = name, outcome = outcome.name(), %took, reason, "step ended"),
    }
}

/// Runs one step with all its attempts until it ends, is cut, or is given up.
async fn run_step(
    step: &Step,
    context: Context,
    urgency: &mut watch::Receiver<Urgency>,
    hurried: &(dyn Fn(Duration) -> Duration + Send + Sync),
) -> Ended {
    let started = Instant::now();
    let progress = context.progress.clone();
    let mut limit = context.limit;
    let tries = AtomicU32::new(0);
    let mut watched = urgency.clone();
    let mut attempts = std::pin::pin!(attempt_all(step, &context, urgency, &tries));
    let mut nobody_hurries = false;
    let ended = loop {
        tokio::select! {
            biased;
            ended = &mut attempts => break ended,
            () = tokio::time::sleep_until(limit) => {
                let doing = doing(&progress);
                break Ended::new(Outcome::TimedOut, format!("timed out after {}{doing}", show(started.elapsed())));
            }
            changed = watched.changed(), if !nobody_hurries => {
                nobody_hurries = changed.is_err();
                match *watched.borrow_and_update() {
                    Urgency::Calm => {}
                    Urgency::Cancel => break Ended::new(Outcome::GivenUp, format!("no longer wanted after {}", show(started.elapsed()))),
                    Urgency::Hurry { until } if step.essential => {
                        let now = Instant::now();
                        limit = limit.min(now + hurried(until.saturating_duration_since(now)));
                    }
                    Urgency::Hurry { .. } => {
                        let doing = doing(&progress);
                        break Ended::new(Outcome::GivenUp, format!("the stop signal came after {}{doing}", show(started.elapsed())));
                    }
                }
            }
        }
    };
    Ended { tries: tries.load(Ordering::Relaxed), ..ended }
}

/// `: 3 requests in flight`, or nothing.
fn doing(progress: &Progress) -> String {
    match progress.now() {
        doing if doing.is_empty() => doing,
        doing => format!(": {doing}"),
    }
}

/// The condition, then attempts with growing pauses.
async fn attempt_all(step: &Step, context: &Context, urgency: &watch::Receiver<Urgency>, tries: &AtomicU32) -> Ended {
    if let Some(condition) = &step.when {
        match condition.test(context).await {
            Verdict::Holds => {}
            Verdict::Not(why) => return Ended::new(Outcome::Skipped, why),
            Verdict::Unknown(why) => {
                return Ended::new(Outcome::Failed, format!("its condition cannot be told: {why}"));
            }
        }
    }
    if let Action::Group(steps) = &step.action {
        return run_group(steps, context, urgency).await;
    }
    let mut pause = step.backoff;
    loop {
        let tries = tries.fetch_add(1, Ordering::Relaxed) + 1;
        let limit = step.attempt_timeout.map_or(context.limit, |timeout| context.limit.min(Instant::now() + timeout));
        let end = match step.attempt_timeout {
            None => step.action.run(context).await,
            Some(timeout) => {
                let attempt = Context { limit, kill_after: context.kill_after.min(timeout / 10), ..context.clone() };
                match tokio::time::timeout_at(limit, step.action.run(&attempt)).await {
                    Ok(end) => end,
                    Err(_) => End::TimedOut(format!(
                        "the attempt timed out after {}{}",
                        show(timeout),
                        doing(&context.progress)
                    )),
                }
            }
        };
        let (outcome, reason) = match end {
            End::Done(what) => (Outcome::Succeeded, what),
            End::Skipped(why) => (Outcome::Skipped, why),
            End::FailedForGood(why) => (Outcome::Failed, why),
            End::TimedOut(why) if limit == context.limit || tries > step.retries => (Outcome::TimedOut, why),
            End::Failed(why) if tries > step.retries => (Outcome::Failed, why),
            End::Failed(why) | End::TimedOut(why) => {
                debug!(step = %context.label, attempt = tries, next_in = %show(pause), reason = %why, "attempt failed");
                context.progress.set(format!("attempt {tries} of {} failed: {why}", step.retries + 1));
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_BACKOFF);
                continue;
            }
        };
        let reason = match (outcome, tries) {
            (Outcome::Failed, tries @ 2..) => format!("{reason} (after {tries} attempts)"),
            _ => reason,
        };
        return Ended::new(outcome, reason);
    }
}

type InnerRun<'a> = Pin<Box<dyn Future<Output = Ended> + Send + 'a>>;

/// Runs all steps of a group side by side and waits for all of them.
fn run_group<'a>(steps: &'a [Step], context: &'a Context, urgency: &'a watch::Receiver<Urgency>) -> InnerRun<'a> {
    Box::pin(async move {
        let limit = context.limit - GROUP_SLACK.min(context.limit.saturating_duration_since(Instant::now()) / 10);
        let progress: Vec<Progress> = steps.iter().map(|_| Progress::default()).collect();
        let mut runs: Vec<(InnerRun<'_>, Option<Ended>)> = steps
            .iter()
            .zip(&progress)
            .map(|(step, progress)| {
                let now = Instant::now();
                let limit = step.timeout.map_or(limit, |timeout| limit.min(now + timeout));
                let context = Context {
                    label: format!("{}/{}", context.label, step.name),
                    limit,
                    kill_after: KILL_AFTER.min(limit.saturating_duration_since(now) / 10),
                    progress: progress.clone(),
                    ..context.clone()
                };
                let mut urgency = urgency.clone();
                let run: InnerRun<'_> = Box::pin(async move {
                    let label = context.label.clone();
                    let ended = run_step(step, context, &mut urgency, &|left| left).await;
                    // Each when it ends: the group itself ends with the last of them.
                    let (hook, name) = label.split_once('/').unwrap_or(("", &label));
                    log_end(hook, name, ended.outcome, now.elapsed(), &cut(&ended.reason, LONGEST_REASON));
                    ended
                });
                (run, None)
            })
            .collect();
        poll_fn(|waker| {
            for (run, ended) in &mut runs {
                if ended.is_none()
                    && let Poll::Ready(end) = run.as_mut().poll(waker)
                {
                    *ended = Some(end);
                }
            }
            let left: Vec<String> = steps
                .iter()
                .zip(&runs)
                .zip(&progress)
                .filter(|((_, (_, ended)), _)| ended.is_none())
                .map(|((step, _), progress)| format!("{}: {}", step.name, progress.now()))
                .collect();
            context.progress.set(left.join("; "));
            if let Some(sum) = progress.iter().filter_map(Progress::measured).reduce(Measure::and) {
                context.progress.measure(sum);
            }
            if left.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let mut words = Vec::new();
        let mut outcome = Outcome::Succeeded;
        for (step, (_, ended)) in steps.iter().zip(runs) {
            // `poll_fn` above only ends when all have ended.
            let Some(ended) = ended else { continue };
            let has_failed = !matches!(ended.outcome, Outcome::Succeeded | Outcome::Skipped);
            if has_failed && step.on_failure == OnFailure::Abort {
                outcome = match outcome {
                    Outcome::Succeeded => ended.outcome,
                    same if same == ended.outcome => same,
                    _ => Outcome::Failed,
                };
            }
            let reason = if ended.reason.is_empty() { String::new() } else { format!(" ({})", ended.reason) };
            words.push(format!("{} {}{reason}", step.name, ended.outcome.name()));
        }
        Ended::new(outcome, words.join("; "))
    })
}
