//! `boathook status --watch` where stdout is no terminal: what has changed between two looks, one line each. Pure.

use serde_json::Value;

use super::{SILENT, view::clip};
use crate::status::{after_colon, readiness, show_seconds, word, words};

/// More columns than any reason has (`report::LONGEST_REASON`), with what stands before it.
const LONGEST: usize = 500;

/// What is new since `before`; all of it where there was nothing before.
pub fn changes(before: &Value, now: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let differs = |key: &str| word(&before[key]) != word(&now[key]);
    if differs("phase") || before["ready"].as_bool() != now["ready"].as_bool() {
        lines.push(line(now, &format!("phase {} ({})", word(&now["phase"]), readiness(now))));
    }
    if before[SILENT].as_bool() != now[SILENT].as_bool() {
        lines
            .push(line(now, if now[SILENT] == true { "the agent does not answer" } else { "the agent answers again" }));
    }
    for hook in hooks(now) {
        let earlier = hooks(before).find(|other| same(hook, other)).unwrap_or(&Value::Null);
        let name = word(&hook["hook"]);
        let is_new = word(&earlier["outcome"]) != word(&hook["outcome"]);
        if is_new && (earlier.is_null() || hook["outcome"] == "running") {
            lines.push(line(now, &format!("{name} started, by {}", word(&hook["trigger"]))));
        }
        for (index, step) in hook["steps"].as_array().into_iter().flatten().enumerate() {
            if word(&step["outcome"]) != word(&earlier["steps"][index]["outcome"]) && step["outcome"] != "pending" {
                lines.push(line(now, &step_line(hook, step)));
            }
        }
        if is_new && hook["outcome"] != "running" {
            let took = show_seconds(&hook["took"]).map(|took| format!(" after {took}")).unwrap_or_default();
            let outcome = word(&hook["outcome"]);
            lines.push(line(now, &format!("{name} {outcome}{took}{}", after_colon(&hook["reason"]))));
        }
    }
    lines
}

/// How far everything is that runs.
pub fn progress(now: &Value) -> Vec<String> {
    hooks(now)
        .flat_map(|hook| {
            let steps = hook["steps"].as_array().into_iter().flatten();
            steps.filter(|step| step["outcome"] == "running").map(|step| line(now, &step_line(hook, step)))
        })
        .collect()
}

fn hooks(status: &Value) -> impl Iterator<Item = &Value> {
    status["hooks"].as_array().into_iter().flatten()
}

/// Whether both are the same run of the same hook: others may have come before it in the list meanwhile.
fn same(one: &Value, other: &Value) -> bool {
    word(&one["hook"]) == word(&other["hook"]) && one["started-at"].as_f64() == other["started-at"].as_f64()
}

fn step_line(hook: &Value, step: &Value) -> String {
    let took = show_seconds(&step["took"]).map(|took| format!(" {took}")).unwrap_or_default();
    let (hook, name, kind) = (word(&hook["hook"]), word(&step["name"]), word(&step["kind"]));
    let words = words(step).join("; ").into();
    format!("{hook}/{name} ({kind}) {}{took}{}", word(&step["outcome"]), after_colon(&words))
}

/// With the agent's age before it.
fn line(now: &Value, text: &str) -> String {
    clip(&format!("{:>7}  {text}", show_seconds(&now["uptime"]).unwrap_or_default()), LONGEST)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_change_is_told_once() {
        let step = |outcome: &str, took: Value, reason: &str| json!({ "name": "warm", "kind": "warm-up", "outcome": outcome, "took": took, "reason": reason });
        let status = |uptime: f64, phase: &str, hooks: Value| json!({ "uptime": uptime, "phase": phase, "ready": phase == "ready", "hooks": hooks });
        let hook = |started: f64, outcome: &str, took: f64, step: Value| json!({ "hook": "post-start", "outcome": outcome, "started-at": started, "took": took, "trigger": "main process started", "reason": "", "steps": [step] });
        let pending = step("pending", Value::Null, "");
        let mut running = step("running", 1.5.into(), "2 URLs are left\u{1b}[2J\nfaked");
        running["progress"] = json!({ "done": 10, "left": 190, "failed": 0, "rate": 50.0 });
        let done = step("succeeded", 3.0.into(), "warm");
        let mut before = Value::Null;
        for (now, expected) in [
            (status(0.1, "starting", json!([])), &["  100ms  phase starting (not ready)"][..]),
            (status(0.2, "starting", json!([])), &[]),
            (
                status(0.5, "post-start", json!([hook(5.0, "running", 0.1, pending)])),
                &["  500ms  phase post-start (not ready)", "  500ms  post-start started, by main process started"],
            ),
            (
                status(2.0, "post-start", json!([hook(5.0, "running", 1.5, running)])),
                &["     2s  post-start/warm (warm-up) running 1.5s: done 10 of 200, 50/s; 2 URLs are left[2Jfaked"],
            ),
            (
                status(3.5, "ready", json!([hook(5.0, "succeeded", 3.1, done.clone())])),
                &[
                    "   3.5s  phase ready (ready)",
                    "   3.5s  post-start/warm (warm-up) succeeded 3s: warm",
                    "   3.5s  post-start succeeded after 3.1s",
                ],
            ),
            // A run before it that is kept does not make it new; a second run is one of its own.
            (
                status(
                    9.0,
                    "ready",
                    json!([hook(1.0, "given-up", 1.0, Value::Null), hook(5.0, "succeeded", 3.1, done)]),
                ),
                &["     9s  post-start started, by main process started", "     9s  post-start given-up after 1s"],
            ),
        ] {
            let said = changes(&before, &now);
            assert_eq!(said.iter().filter(|line| !line.ends_with(" null")).collect::<Vec<_>>(), expected, "{now}");
            assert!(changes(&now, &now).is_empty());
            before = now;
        }
    }

    #[test]
    fn an_agent_that_is_silent_is_told_once() {
        let (well, silent) = (json!({ "uptime": 1.0 }), json!({ "uptime": 1.0, SILENT: true }));
        assert_eq!(changes(&well, &silent), ["     1s  the agent does not answer"]);
        assert!(changes(&silent, &silent).is_empty());
        assert_eq!(changes(&silent, &well), ["     1s  the agent answers again"]);
    }

    #[test]
    fn what_runs_says_how_far_it_is() {
        let status = json!({ "uptime": 65.0, "hooks": [{ "hook": "pre-stop", "steps": [
            { "name": "a", "kind": "sleep", "outcome": "succeeded" },
            { "name": "b", "kind": "drain", "outcome": "running", "took": 5.0, "reason": "3 requests in flight" },
            { "name": "c", "kind": "sleep", "outcome": "pending" } ] }] });
        assert_eq!(progress(&status), ["   1m5s  pre-stop/b (drain) running 5s: 3 requests in flight"]);
        assert!(progress(&Value::Null).is_empty() && changes(&Value::Null, &Value::Null).is_empty());
    }
}
