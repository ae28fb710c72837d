//! What people and machines see of the agent: `/status` and `boathook status`, the reports, and `/metrics`. Reads the
//! agent and changes nothing. Nothing secret is in it: reasons are redacted where they are made.

use std::{fmt::Write, time::Duration};

use serde::Serialize;
use serde_json::Value;

use crate::{
    agent::Agent,
    duration::show,
    hook::{Hook, Phase},
    log, readiness,
    report::{HookReport, Outcome, round, to_json},
};

#[cfg(feature = "state")]
use crate::periodic::Standing;

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Status<'a> {
    version: &'static str,
    mode: &'static str,
    phase: Phase,
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_ready_because: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    readiness: Option<readiness::Standing>,
    uptime: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    main_process: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Option<String>,
    grace_period: f64,
    pre_stop_deadline: f64,
    log_lines_dropped: u64,
    #[cfg(feature = "state")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    periodic_saves: Vec<Standing>,
    hooks: Vec<HookReport>,
}

/// `/status`.
pub fn status_json(agent: &Agent) -> String {
    let readiness = agent.readiness();
    to_json(&Status {
        version: env!("CARGO_PKG_VERSION"),
        mode: agent.mode.name(),
        phase: agent.phase(),
        ready: readiness.is_ok(),
        not_ready_because: readiness.err(),
        readiness: agent.check(),
        uptime: round(agent.uptime().as_secs_f64()),
        main_process: agent.main_process(),
        config: agent.config.file.as_deref(),
        listen: agent.config.server.listen.map(|mut listen| {
            // Port 0 in the configuration means whichever is free: what was bound is what helps.
            if let Some(port) = agent.own_traffic().ports.first() {
                listen.set_port(*port);
            }
            listen.to_string()
        }),
        grace_period: agent.config.grace.period.as_secs_f64(),
        pre_stop_deadline: agent.config.hook(Hook::PreStop).deadline.as_secs_f64(),
        log_lines_dropped: log::dropped(),
        #[cfg(feature = "state")]
        periodic_saves: agent.periodic_saves(),
        hooks: agent.reports(),
    })
}

/// `/report`: the hooks alone.
pub fn report_json(agent: &Agent) -> String {
    to_json(&agent.reports())
}

/// `/metrics`: Prometheus text, version 0.0.4.
pub fn metrics(agent: &Agent) -> String {
    let mut text = String::with_capacity(2048);
    let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, f64)]| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP boathook_{name} {help}\n# TYPE boathook_{name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(text, "boathook_{name}{labels} {value}");
        }
    };
    let phase = agent.phase();
    let one = |value: f64| [(String::new(), value)];
    let yes = |flag: bool| if flag { 1.0 } else { 0.0 };
    family(
        "info",
        "gauge",
        "The agent's version and mode.",
        &[(format!("{{version=\"{}\",mode=\"{}\"}}", env!("CARGO_PKG_VERSION"), agent.mode.name()), 1.0)],
    );
    let phases: Vec<(String, f64)> =
        Phase::ALL.into_iter().map(|each| (format!("{{phase=\"{each}\"}}"), yes(each == phase))).collect();
    family("phase", "gauge", "1 for the phase the agent is in.", &phases);
    family(
        "ready",
        "gauge",
        "Whether traffic should be sent here, as far as it is known.",
        &one(yes(agent.readiness().is_ok())),
    );
    family("uptime_seconds", "gauge", "Seconds since the agent started.", &one(round(agent.uptime().as_secs_f64())));
    let counts = agent.counts();
    let runs: Vec<(String, f64)> = Hook::ALL
        .into_iter()
        .flat_map(|hook| {
            #[expect(clippy::cast_precision_loss, reason = "a hook runs a handful of times")]
            [("succeeded", counts.succeeded[hook as usize] as f64), ("failed", counts.failed[hook as usize] as f64)]
                .map(|(outcome, count)| (format!("{{hook=\"{hook}\",outcome=\"{outcome}\"}}"), count))
        })
        .collect();
    family("hook_runs_total", "counter", "Runs of hooks by how they ended.", &runs);
    let reports: Vec<HookReport> = Hook::ALL.into_iter().filter_map(|hook| agent.live_report(hook)).collect();
    let took: Vec<(String, f64)> = reports
        .iter()
        .filter_map(|report| report.took.map(|took| (format!("{{hook=\"{}\"}}", report.hook), took)))
        .collect();
    family("hook_duration_seconds", "gauge", "How long the hook took, or has taken so far.", &took);
    let labels = |report: &HookReport, name: &str| format!("{{hook=\"{}\",step=\"{}\"", report.hook, escape(name));
    let took: Vec<(String, f64)> = reports
        .iter()
        .flat_map(|report| {
            report.steps.iter().filter_map(move |step| step.took.map(|took| (labels(report, &step.name) + "}", took)))
        })
        .collect();
    family("step_duration_seconds", "gauge", "How long the step took, or has taken so far.", &took);
    let outcomes: Vec<(String, f64)> =
        reports
            .iter()
            .flat_map(|report| {
                report.steps.iter().filter(|step| step.outcome != Outcome::Pending).map(move |step| {
                    (format!("{},outcome=\"{}\"}}", labels(report, &step.name), step.outcome.name()), 1.0)
                })
            })
            .collect();
    family("step_outcome", "gauge", "1 for how the step stands.", &outcomes);
    write_measures(&reports, &mut family);
    #[cfg(feature = "state")]
    write_periodic(&agent.periodic_saves(), &mut family);
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
    {
        family("triggers_refused_total", "counter", "Triggers that had no right.", &one(counts.refused as f64));
        family("log_lines_dropped_total", "counter", "Log lines that nobody took.", &one(log::dropped() as f64));
    }
    text
}

/// A metric's name, type and help, and its samples.
type Family<'a> = dyn FnMut(&str, &str, &str, &[(String, f64)]) + 'a;

/// How far steps are that can tell; nothing at all where there is none. Rates are left to whoever reads the counter.
fn write_measures(reports: &[HookReport], family: &mut Family<'_>) {
    let (mut requests, mut left, mut latency) = (Vec::new(), Vec::new(), Vec::new());
    for report in reports {
        for (step, measure) in report.steps.iter().filter_map(|step| Some((step, step.progress?))) {
            let label = |rest: &str| format!("{{hook=\"{}\",step=\"{}\"{rest}}}", report.hook, escape(&step.name));
            #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
            {
                requests.push((label(",outcome=\"succeeded\""), measure.done as f64));
                requests.push((label(",outcome=\"failed\""), measure.failed as f64));
                left.extend(measure.left.map(|left| (label(""), left as f64)));
            }
            latency.extend(measure.p50.map(|p50| (label(",quantile=\"0.5\""), p50)));
            latency.extend(measure.p99.map(|p99| (label(",quantile=\"0.99\""), p99)));
        }
    }
    if requests.is_empty() {
        return;
    }
    family("warm_up_requests_total", "counter", "Requests that warmed up, by how they ended.", &requests);
    family("warm_up_requests_left", "gauge", "Requests that are still wanted.", &left);
    // A summary without sum and count: only its type may have quantiles.
    family("warm_up_latency_seconds", "summary", "Latency of the last requests that warmed up.", &latency);
}

#[cfg(feature = "state")]
fn write_periodic(saves: &[Standing], family: &mut Family<'_>) {
    if saves.is_empty() {
        return;
    }
    let label = |save: &Standing, rest: &str| format!("{{step=\"{}\"{rest}}}", escape(&save.name));
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
    let counts: Vec<(String, f64)> = saves
        .iter()
        .flat_map(|save| {
            [("succeeded", save.succeeded), ("failed", save.failed)]
                .map(|(outcome, count)| (label(save, &format!(",outcome=\"{outcome}\"")), count as f64))
        })
        .collect();
    family("periodic_saves_total", "counter", "Saves while the main process runs, by how they ended.", &counts);
    let times: Vec<(String, f64)> =
        saves.iter().filter_map(|save| save.saved_at.map(|at| (label(save, ""), at))).collect();
    let help = "When the last periodic save that succeeded ended, in seconds since 1970.";
    family("periodic_save_last_success_timestamp_seconds", "gauge", help, &times);
}

/// A label's value, escaped as the text format asks.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// `/status` as text for people; the JSON itself when it cannot be read.
pub fn status_for_people(json: &str) -> String {
    let Some(seen) = read(json).filter(|seen| seen["phase"].is_string()) else { return format!("{json}\n") };
    let mut text = head(&seen);
    write_hooks(&mut text, &seen["hooks"]);
    harmless(text)
}

/// `ready`, or `not ready: WHY`.
pub fn readiness(seen: &Value) -> String {
    match (&seen["ready"], word(&seen["not-ready-because"])) {
        (Value::Bool(true), _) => "ready".to_owned(),
        (_, "") => "not ready".to_owned(),
        (_, why) => format!("not ready: {why}"),
    }
}

/// What the agent is, without its hooks: the first lines of its status for people.
pub fn head(seen: &Value) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "phase     {} ({})", word(&seen["phase"]), readiness(seen));
    let up = show_seconds(&seen["uptime"]).unwrap_or_default();
    let _ = writeln!(text, "agent     boathook {} {}, up {up}", word(&seen["version"]), word(&seen["mode"]));
    if let Some(pid) = seen["main-process"].as_i64() {
        let _ = writeln!(text, "main      pid {pid}");
    }
    if let Some(listen) = seen["listen"].as_str() {
        let _ = writeln!(text, "listen    {listen}");
    }
    for save in seen["periodic-saves"].as_array().into_iter().flatten() {
        let (every, took) = (show_seconds(&save["every"]).unwrap_or_default(), show_seconds(&save["took"]));
        let took = took.map(|took| format!(", the last took {took}")).unwrap_or_default();
        let (name, outcome) = (word(&save["name"]), word(&save["outcome"]));
        let _ = writeln!(text, "saves     {name} every {every}: {outcome}{took}{}", after_colon(&save["reason"]));
    }
    text
}

/// `/report` as text for people; the JSON itself when it cannot be read.
pub fn report_for_people(json: &str) -> String {
    let Some(hooks) = read(json).filter(Value::is_array) else { return format!("{json}\n") };
    let mut text = String::new();
    write_hooks(&mut text, &hooks);
    if text.is_empty() {
        text.push_str("no hook has run yet\n");
    }
    harmless(text)
}

/// One hook's answer as one line for people.
pub fn answer_for_people(json: &str) -> String {
    let Some(hook) = read(json).filter(|hook| hook["hook"].is_string()) else { return json.to_owned() };
    let took = show_seconds(&hook["took"]).map(|took| format!(" after {took}")).unwrap_or_default();
    harmless(format!("{} {}{took}{}", word(&hook["hook"]), word(&hook["outcome"]), after_colon(&hook["reason"])))
}

/// What a terminal would obey: control characters, and those that turn or hide what follows (Unicode's bidirectional
/// and zero-width ones). Names and reasons come from configurations, commands and servers.
pub fn is_order(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn harmless(mut text: String) -> String {
    text.retain(|c| c == '\n' || !is_order(c));
    text
}

/// `done 184 of 200, 3 failed, 412/s, p50 2.1ms, p99 18ms`: a step's `progress`, where it has one.
fn numbers(progress: &Value) -> Option<String> {
    let done = progress["done"].as_u64()?;
    let mut text = format!("done {done}");
    // Writing to a string cannot fail.
    if let Some(left) = progress["left"].as_u64() {
        let _ = write!(text, " of {}", done.saturating_add(left));
    }
    if let Some(failed) = progress["failed"].as_u64().filter(|failed| *failed > 0) {
        let _ = write!(text, ", {failed} failed");
    }
    if let Some(rate) = progress["rate"].as_f64().filter(|rate| *rate > 0.0) {
        let _ = write!(text, ", {}/s", three_digits(rate));
    }
    for name in ["p50", "p99"] {
        if let Some(seconds) = progress[name].as_f64() {
            let (amount, unit) = if seconds < 1.0 { (seconds * 1000.0, "ms") } else { (seconds, "s") };
            let _ = write!(text, ", {name} {}{unit}", three_digits(amount));
        }
    }
    Some(text)
}

/// What a step has to say: its numbers, if it has any, then its reason, if there is one. Words that begin with the same
/// count as the numbers only say them again, up to the first `; `.
pub fn words(step: &Value) -> Vec<String> {
    let reason = word(&step["reason"]);
    let mut words = Vec::with_capacity(2);
    let mut rest = reason;
    if let Some(numbers) = numbers(&step["progress"]) {
        words.push(numbers);
        let after = reason.strip_prefix(&step["progress"]["done"].to_string());
        if after.is_some_and(|after| after.starts_with(' ')) {
            rest = reason.split_once("; ").map_or("", |(_, rest)| rest);
        }
    }
    if !rest.is_empty() {
        words.push(rest.to_owned());
    }
    words
}

/// `0.84`, `2.1`, `412`: without formatting floats, which is a lot of code. What is out of range saturates.
fn three_digits(number: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    let hundredths = (number * 100.0).round() as u64;
    let tenths = hundredths.saturating_add(5) / 10;
    match hundredths {
        100.. if tenths >= 100 => format!("{}", hundredths.saturating_add(50) / 100),
        100.. if tenths.is_multiple_of(10) => format!("{}", tenths / 10),
        100.. => format!("{}.{}", tenths / 10, tenths % 10),
        _ => format!("0.{hundredths:02}"),
    }
}

fn read(json: &str) -> Option<Value> {
    serde_json::from_str(json).ok()
}

/// A text, or nothing.
pub fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// `: REASON`, or nothing.
pub fn after_colon(reason: &Value) -> String {
    match word(reason) {
        "" => String::new(),
        reason => format!(": {reason}"),
    }
}

/// Seconds as people write them.
pub fn show_seconds(value: &Value) -> Option<String> {
    value.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).map(show)
}

fn write_hooks(text: &mut String, hooks: &Value) {
    for hook in hooks.as_array().into_iter().flatten() {
        let took = show_seconds(&hook["took"]).map(|took| format!(" {took}")).unwrap_or_default();
        let deadline = show_seconds(&hook["deadline"]).unwrap_or_default();
        let (name, outcome, trigger) = (word(&hook["hook"]), word(&hook["outcome"]), word(&hook["trigger"]));
        let _ = writeln!(text, "\n{name} {outcome}{took} of {deadline}, by {trigger}{}", after_colon(&hook["reason"]));
        for step in hook["steps"].as_array().into_iter().flatten() {
            let took = show_seconds(&step["took"]).unwrap_or_default();
            let (outcome, name, kind) = (word(&step["outcome"]), word(&step["name"]), word(&step["kind"]));
            let words = words(step).join("; ");
            let _ = writeln!(text, "  {outcome:<10} {took:>7}  {name} ({kind})  {words}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        assert_eq!(escape("a \"b\" \\ \n"), "a \\\"b\\\" \\\\ \\n");
    }

    #[test]
    fn numbers_are_short() {
        for (progress, text) in [
            (
                r#"{"done":184,"left":16,"failed":3,"rate":412.3,"p50":0.0021,"p99":0.018}"#,
                "done 184 of 200, 3 failed, 412/s, p50 2.1ms, p99 18ms",
            ),
            (r#"{"done":0,"left":200,"failed":0,"rate":0.0}"#, "done 0 of 200"),
            (r#"{"done":7,"failed":0,"rate":9.96,"p50":0.00084,"p99":1.25}"#, "done 7, 10/s, p50 0.84ms, p99 1.3s"),
            (r#"{"done":7,"failed":0,"rate":1e300,"p50":0.000001}"#, "done 7, 184467440737095516/s, p50 0.00ms"),
        ] {
            assert_eq!(numbers(&read(progress).expect("JSON")).as_deref(), Some(text), "{progress}");
        }
        assert_eq!(numbers(&Value::Null), None);
    }

    #[test]
    fn numbers_are_said_once() {
        let progress = serde_json::json!({ "done": 18, "left": 2, "failed": 0, "rate": 0.0 });
        for (reason, expected) in [
            ("", &["done 18 of 20"][..]),
            ("18 of 20 successes, 0 failed", &["done 18 of 20"]),
            ("18 of 20 successes, 0 failed; GET / → 503; more", &["done 18 of 20", "GET / → 503; more"]),
            ("184 MB are missing; more", &["done 18 of 20", "184 MB are missing; more"]),
        ] {
            assert_eq!(words(&serde_json::json!({ "reason": reason, "progress": progress })), expected);
        }
        assert_eq!(words(&serde_json::json!({ "reason": "18 of 20" })), ["18 of 20"]);
        assert!(words(&Value::Null).is_empty());
    }

    #[test]
    fn measures_are_metrics_only_where_there_are_any() {
        let mut report = HookReport {
            hook: Hook::PostStart,
            outcome: Outcome::Running,
            trigger: String::new(),
            reason: String::new(),
            started_at: 0.0,
            took: None,
            deadline: 60.0,
            hurried: false,
            steps: vec![crate::report::StepReport {
                name: "warm".into(),
                kind: "warm-up",
                outcome: Outcome::Running,
                started: None,
                took: None,
                tries: 1,
                reason: String::new(),
                essential: false,
                timeout: None,
                progress: None,
            }],
        };
        let samples = |report: &HookReport| {
            let mut lines = Vec::new();
            write_measures(std::slice::from_ref(report), &mut |name, kind, _, samples| {
                lines.push(format!("{name} {kind}"));
                lines.extend(samples.iter().map(|(labels, value)| format!("{labels} {value}")));
            });
            lines
        };
        assert_eq!(samples(&report), [""; 0]);
        report.steps[0].progress = Some(crate::step::Measure {
            done: 184,
            left: Some(16),
            failed: 3,
            rate: 412.0,
            p50: Some(0.002),
            p99: Some(0.018),
        });
        assert_eq!(
            samples(&report),
            [
                "warm_up_requests_total counter",
                "{hook=\"post-start\",step=\"warm\",outcome=\"succeeded\"} 184",
                "{hook=\"post-start\",step=\"warm\",outcome=\"failed\"} 3",
                "warm_up_requests_left gauge",
                "{hook=\"post-start\",step=\"warm\"} 16",
                "warm_up_latency_seconds summary",
                "{hook=\"post-start\",step=\"warm\",quantile=\"0.5\"} 0.002",
                "{hook=\"post-start\",step=\"warm\",quantile=\"0.99\"} 0.018",
            ]
        );
    }

    #[test]
    fn people_see_what_is_not_understood_as_it_is() {
        assert_eq!(status_for_people("{}"), "{}\n");
        assert_eq!(report_for_people("[]"), "no hook has run yet\n");
    }
}
