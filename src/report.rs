//! What a hook did: data for the log, `/status`, `boathook report`, the termination message and the exit code. While a
//! hook runs the same data grows under a lock, so that everybody can look at any moment.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use crate::{
    config::HookConfig,
    duration::show,
    hook::Hook,
    step::{Measure, Progress, Step},
};

/// How a step, or a hook, stands or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Pending,
    Running,
    Succeeded,
    Failed,
    TimedOut,
    /// Its condition did not hold, or it had nothing to do, or an earlier step aborted the hook.
    Skipped,
    /// Given up because the stop signal came, or because its hook was no longer wanted.
    GivenUp,
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Pending => "pending",
            Outcome::Running => "running",
            Outcome::Succeeded => "succeeded",
            Outcome::Failed => "failed",
            Outcome::TimedOut => "timed-out",
            Outcome::Skipped => "skipped",
            Outcome::GivenUp => "given-up",
        }
    }
}

/// One step's part of a report.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct StepReport {
    pub name: String,
    pub kind: &'static str,
    pub outcome: Outcome,
    /// Seconds from the hook's start, once it has begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<f64>,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took: Option<f64>,
    #[serde(skip_serializing_if = "is_at_most_one")]
    pub tries: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "is_false")]
    pub essential: bool,
    /// Seconds it may last, where that is configured; else what is left of its hook.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<f64>,
    /// How far it is or, once it has ended, how far it came; for steps that can tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Measure>,
}

fn is_at_most_one(tries: &u32) -> bool {
    *tries <= 1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// One run of one hook.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct HookReport {
    pub hook: Hook,
    pub outcome: Outcome,
    /// Who started it: `http from 10.0.0.1`, `boathook shutdown`, `SIGTERM`, `main process started`.
    pub trigger: String,
    /// One line: why it failed, empty when it succeeded.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// When it started, in seconds since 1970.
    pub started_at: f64,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took: Option<f64>,
    /// Seconds it may last.
    pub deadline: f64,
    /// The stop signal came while it ran.
    #[serde(skip_serializing_if = "is_false")]
    pub hurried: bool,
    pub steps: Vec<StepReport>,
}

/// The longest text of an answer to a hook's caller: the kubelet reads at most 10 KiB (maxRespBodyLength in
/// pkg/kubelet/lifecycle/handlers.go), and this stays far below.
const LONGEST_ANSWER: usize = 4096;

/// The longest reason that is kept: what people read in one line.
pub const LONGEST_REASON: usize = 300;

impl HookReport {
    /// A run that begins now, with all its steps still to come.
    pub fn begin(hook: Hook, trigger: String, config: &HookConfig) -> Self {
        let pending = |step: &Step| StepReport {
            name: step.name.clone(),
            kind: step.action.name(),
            outcome: Outcome::Pending,
            started: None,
            took: None,
            tries: 0,
            reason: String::new(),
            essential: step.essential,
            timeout: step.timeout.map(|timeout| timeout.as_secs_f64()),
            progress: None,
        };
        Self {
            hook,
            outcome: Outcome::Running,
            trigger,
            reason: String::new(),
            started_at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
            took: None,
            deadline: config.deadline.as_secs_f64(),
            hurried: false,
            steps: config.steps.iter().map(pending).collect(),
        }
    }

    pub fn has_succeeded(&self) -> bool {
        self.outcome == Outcome::Succeeded
    }

    /// The report as one line of JSON below the size that the kubelet reads; long reports lose steps' reasons first,
    /// then their numbers, then steps.
    pub fn answer(&self) -> String {
        let mut short = self.clone();
        loop {
            let text = to_json(&short);
            if text.len() <= LONGEST_ANSWER {
                return text;
            }
            if short.steps.iter().any(|step| !step.reason.is_empty()) {
                short.steps.iter_mut().for_each(|step| step.reason.clear());
            } else if short.steps.iter().any(|step| step.progress.is_some() || step.timeout.is_some()) {
                short.steps.iter_mut().for_each(|step| (step.progress, step.timeout) = (None, None));
            } else {
                short.steps.truncate(short.steps.len() / 2);
            }
            if short.steps.is_empty() {
                short.reason = cut(&short.reason, LONGEST_REASON);
                short.trigger = cut(&short.trigger, LONGEST_REASON);
                return to_json(&short);
            }
        }
    }

    /// One line for people: `pre-stop failed after 24s: step "drain": timed out after 20s: …`.
    pub fn line(&self) -> String {
        let took = self.took.map(|took| format!(" after {}", show(Duration::from_secs_f64(took)))).unwrap_or_default();
        let reason = if self.reason.is_empty() { String::new() } else { format!(": {}", self.reason) };
        format!("{} {}{took}{reason}", self.hook, self.outcome.name())
    }
}

/// A report as JSON.
pub fn to_json<T: Serialize>(value: &T) -> String {
    // Serialising plain structs of strings and numbers into memory cannot fail.
    serde_json::to_string(value).unwrap_or_default()
}

/// At most `most` bytes of a text, cut between characters, with a mark.
pub fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &text[..end])
}

/// A report that is still being written.
#[derive(Clone, Debug)]
pub struct Live {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    report: HookReport,
    started: std::time::Instant,
    /// One a step, in the report's order.
    progress: Vec<Progress>,
}

impl Live {
    pub fn new(report: HookReport) -> Self {
        let progress = report.steps.iter().map(|_| Progress::default()).collect();
        Self { inner: Arc::new(Mutex::new(Inner { report, started: std::time::Instant::now(), progress })) }
    }

    pub fn progress(&self, index: usize) -> Progress {
        self.with(|inner| inner.progress.get(index).cloned().unwrap_or_default())
    }

    pub fn change<T>(&self, change: impl FnOnce(&mut HookReport) -> T) -> T {
        self.with(|inner| change(&mut inner.report))
    }

    pub fn change_step(&self, index: usize, change: impl FnOnce(&mut StepReport)) {
        self.with(|inner| inner.report.steps.get_mut(index).map(change));
    }

    /// Seconds since the hook's start.
    pub fn elapsed(&self) -> f64 {
        self.with(|inner| inner.started.elapsed().as_secs_f64())
    }

    /// The report as it stands now, with what running steps are doing.
    pub fn snapshot(&self) -> HookReport {
        self.with(|inner| {
            let mut report = inner.report.clone();
            let now = inner.started.elapsed().as_secs_f64();
            if report.outcome == Outcome::Running {
                report.took = Some(round(now));
            }
            for (step, progress) in report.steps.iter_mut().zip(&inner.progress) {
                step.progress = progress.measured().map(Measure::rounded);
                if step.outcome == Outcome::Running {
                    step.reason = progress.now();
                    step.took = step.started.map(|started| round(now - started));
                }
            }
            report
        })
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut Inner) -> T) -> T {
        use_it(&mut self.inner.lock().expect("no holder of this lock can panic"))
    }
}

/// Milliseconds are exact enough for people.
pub fn round(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(steps: usize, reason: &str) -> HookReport {
        let step = StepReport {
            name: "a step".into(),
            kind: "exec",
            outcome: Outcome::Failed,
            started: Some(0.0),
            took: Some(0.1),
            tries: 2,
            reason: reason.into(),
            essential: false,
            timeout: Some(20.0),
            progress: Some(Measure { done: u64::MAX, left: Some(u64::MAX), p99: Some(0.1), ..Measure::default() }),
        };
        HookReport {
            hook: Hook::PreStop,
            outcome: Outcome::Failed,
            trigger: "SIGTERM".into(),
            reason: reason.into(),
            started_at: 0.0,
            took: Some(24.0),
            deadline: 24.0,
            hurried: false,
            steps: vec![step; steps],
        }
    }

    #[test]
    fn an_answer_stays_small_whatever_happened() {
        for (steps, reason) in [(0, ""), (3, "exit code 1"), (100, "exit code 1"), (100, &*"é\"".repeat(4000))] {
            let answer = report(steps, reason).answer();
            assert!(answer.len() <= LONGEST_ANSWER, "{} bytes", answer.len());
            let read: serde_json::Value = serde_json::from_str(&answer).expect("valid JSON");
            assert_eq!(read["hook"], "pre-stop");
        }
    }

    #[test]
    fn how_far_a_step_came_stays_after_its_end() {
        let mut begun = report(2, "");
        begun.steps.iter_mut().for_each(|step| step.progress = None);
        let live = Live::new(begun);
        let far = Measure { done: 184, left: Some(16), failed: 3, rate: 411.96, p50: Some(0.002_123_4), p99: None };
        live.progress(1).measure(far);
        let seen = live.snapshot();
        assert_eq!(seen.steps[1].outcome, Outcome::Failed);
        assert_eq!(
            to_json(&seen.steps[1].progress),
            r#"{"done":184,"left":16,"failed":3,"rate":412.0,"p50":0.002123}"#
        );
        assert!(!to_json(&seen.steps[0]).contains("progress"));
    }

    #[test]
    fn one_line_says_it_all() {
        assert_eq!(
            report(0, "step \"drain\": timed out after 20s").line(),
            "pre-stop failed after 24s: step \"drain\": timed out after 20s"
        );
    }

    #[test]
    fn cuts_between_characters() {
        assert_eq!(cut("éé", 3), "é…");
        assert_eq!(cut("abc", 3), "abc");
    }
}
