//! What people and machines see of the agent: `/status` and `boathook status`, the reports, and `/metrics`. Reads the
//! agent and changes nothing. Nothing secret is in it: reasons are redacted where they are made.

use std::{fmt::Write, time::Duration};

use serde::Serialize;
use serde_json::Value;

use crate::{
    agent::Agent,
    duration::show,
    hook::{Hook, Phase},
    log,
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
    family("ready", "gauge", "Whether traffic should be sent here.", &one(yes(agent.readiness().is_ok())));
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
#[cfg(feature = "state")]
type Family<'a> = dyn FnMut(&str, &str, &str, &[(String, f64)]) + 'a;

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
    let mut text = String::new();
    let ready = match (&seen["ready"], word(&seen["not-ready-because"])) {
        (Value::Bool(true), _) => "ready".to_owned(),
        (_, "") => "not ready".to_owned(),
        (_, why) => format!("not ready: {why}"),
    };
    // Writing to a string cannot fail.
    let _ = writeln!(text, "phase     {} ({ready})", word(&seen["phase"]));
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
    write_hooks(&mut text, &seen["hooks"]);
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
    text
}

/// One hook's answer as one line for people.
pub fn answer_for_people(json: &str) -> String {
    let Some(hook) = read(json).filter(|hook| hook["hook"].is_string()) else { return json.to_owned() };
    let took = show_seconds(&hook["took"]).map(|took| format!(" after {took}")).unwrap_or_default();
    format!("{} {}{took}{}", word(&hook["hook"]), word(&hook["outcome"]), after_colon(&hook["reason"]))
}

fn read(json: &str) -> Option<Value> {
    serde_json::from_str(json).ok()
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn after_colon(reason: &Value) -> String {
    match word(reason) {
        "" => String::new(),
        reason => format!(": {reason}"),
    }
}

fn show_seconds(value: &Value) -> Option<String> {
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
            let _ = writeln!(text, "  {outcome:<10} {took:>7}  {name} ({kind})  {}", word(&step["reason"]));
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
    fn people_see_what_is_not_understood_as_it_is() {
        assert_eq!(status_for_people("{}"), "{}\n");
        assert_eq!(report_for_people("[]"), "no hook has run yet\n");
    }
}
