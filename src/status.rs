//! What people and machines see of the agent: `/status` and `boathook status`, the reports, and `/metrics`. Reads the
//! agent and changes nothing. Nothing secret is in it: reasons are redacted where they are made.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::{
    agent::Agent,
    hook::{Hook, Phase},
    log,
    report::{HookReport, Outcome, round, to_json},
};

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
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
    {
        family("triggers_refused_total", "counter", "Triggers that had no right.", &one(counts.refused as f64));
        family("log_lines_dropped_total", "counter", "Log lines that nobody took.", &one(log::dropped() as f64));
    }
    text
}

/// A label's value, escaped as the text format asks.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Seen {
    version: String,
    mode: String,
    phase: String,
    ready: bool,
    not_ready_because: Option<String>,
    uptime: f64,
    main_process: Option<i32>,
    listen: Option<String>,
    hooks: Vec<SeenHook>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SeenHook {
    hook: String,
    outcome: String,
    trigger: String,
    #[serde(default)]
    reason: String,
    took: Option<f64>,
    deadline: f64,
    steps: Vec<SeenStep>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SeenStep {
    name: String,
    kind: String,
    outcome: String,
    took: Option<f64>,
    #[serde(default)]
    reason: String,
}

/// `/status` as text for people; the JSON itself when it cannot be read.
pub fn status_for_people(json: &str) -> String {
    let Ok(seen) = serde_json::from_str::<Seen>(json) else { return format!("{json}\n") };
    let mut text = String::new();
    let ready = match (seen.ready, &seen.not_ready_because) {
        (true, _) => "ready".to_owned(),
        (false, None) => "not ready".to_owned(),
        (false, Some(why)) => format!("not ready: {why}"),
    };
    let _ = writeln!(text, "phase     {} ({ready})", seen.phase);
    let _ = writeln!(text, "agent     boathook {} {}, up {:.0}s", seen.version, seen.mode, seen.uptime);
    if let Some(pid) = seen.main_process {
        let _ = writeln!(text, "main      pid {pid}");
    }
    if let Some(listen) = seen.listen {
        let _ = writeln!(text, "listen    {listen}");
    }
    for hook in &seen.hooks {
        write_hook(&mut text, hook);
    }
    text
}

/// `/report` as text for people.
pub fn report_for_people(json: &str) -> String {
    let Ok(hooks) = serde_json::from_str::<Vec<SeenHook>>(json) else { return format!("{json}\n") };
    let mut text = String::new();
    for hook in &hooks {
        write_hook(&mut text, hook);
    }
    if hooks.is_empty() {
        text.push_str("no hook has run yet\n");
    }
    text
}

/// One hook's answer as text for people: its first line is the reason.
pub fn answer_for_people(json: &str) -> String {
    let Ok(hook) = serde_json::from_str::<SeenHook>(json) else { return json.to_owned() };
    let reason = if hook.reason.is_empty() { String::new() } else { format!(": {}", hook.reason) };
    format!("{} {}{}{reason}", hook.hook, hook.outcome, seconds(" after ", hook.took))
}

fn seconds(before: &str, took: Option<f64>) -> String {
    took.map(|took| format!("{before}{}", crate::duration::show(std::time::Duration::from_secs_f64(took.max(0.0)))))
        .unwrap_or_default()
}

fn write_hook(text: &mut String, hook: &SeenHook) {
    let reason = if hook.reason.is_empty() { String::new() } else { format!(": {}", hook.reason) };
    let deadline = crate::duration::show(std::time::Duration::from_secs_f64(hook.deadline.max(0.0)));
    let _ = writeln!(
        text,
        "\n{} {}{} of {deadline}, by {}{reason}",
        hook.hook,
        hook.outcome,
        seconds(" ", hook.took),
        hook.trigger
    );
    for step in &hook.steps {
        let took = seconds("", step.took);
        let _ = writeln!(text, "  {:<10} {took:>7}  {} ({})  {}", step.outcome, step.name, step.kind, step.reason);
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
