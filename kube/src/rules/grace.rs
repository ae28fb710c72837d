//! The time of the stop, and of a start that is as long.

use boathook::{
    config::Gate,
    duration::show,
    hook::Hook,
    plan,
    process::{name_of_signal, signal_by_name},
};

use crate::{
    facts::Way,
    finding::{Edit, Finding, Rule, Severity},
    pod::Pod,
};

pub const TOO_SHORT: Rule = Rule {
    name: "grace-period-too-short",
    about: "terminationGracePeriodSeconds is less than what pre-stop and the stop of the main process may take",
};
pub const DIFFERS: Rule = Rule {
    name: "grace-period-differs",
    about: "terminationGracePeriodSeconds and the configuration's grace-period say different things",
};
pub const STOP_SIGNAL: Rule = Rule {
    name: "stop-signal-differs",
    about: "lifecycle.stopSignal is not among the signals that boathook takes for a stop",
};
pub const START_DEADLINE: Rule = Rule {
    name: "start-deadline",
    about: "a start that may take longer than the kubelet or the rollout should wait for it",
};

const KEY: &str = "terminationGracePeriodSeconds";

/// What a Deployment waits for progress when nobody says (Kubernetes' default), in seconds.
const PROGRESS_DEADLINE: u64 = 600;

/// What the pod has to grant at least; post-stop is only run by `run`.
pub fn needed(pod: &Pod<'_>) -> u64 {
    let facts = &pod.facts;
    if pod.way == Way::Run || facts.grace.post_stop.is_zero() {
        return facts.needed_grace_seconds;
    }
    let needed = facts.pre_stop + facts.grace.stop_reserve + facts.grace.margin;
    needed.as_secs() + u64::from(needed.subsec_nanos() > 0)
}

/// `pre-stop 24s + main process 5s + rounding 1s`.
fn shares(pod: &Pod<'_>) -> String {
    let (grace, pre_stop) = (&pod.facts.grace, show(pod.facts.pre_stop));
    if pod.way == Way::Step {
        return format!("the step {pre_stop} + main process {}", show(plan::STOP_RESERVE));
    }
    let post_stop = match pod.way {
        Way::Run if !grace.post_stop.is_zero() => format!(" + post-stop {}", show(grace.post_stop)),
        _ => String::new(),
    };
    let (stop_reserve, margin) = (show(grace.stop_reserve), show(grace.margin));
    format!("pre-stop {pre_stop} + main process {stop_reserve}{post_stop} + rounding {margin}")
}

/// Whether there is anything that needs the time.
fn has_work(pod: &Pod<'_>) -> bool {
    !pod.facts.pre_stop.is_zero() || pod.facts.has(Hook::PreStop) || pod.facts.has(Hook::PostStop)
}

pub fn too_short(pod: &Pod<'_>) -> Vec<Finding> {
    let (given, needed) = (pod.grace_seconds(), needed(pod));
    let is_written = pod.spec.termination_grace_period_seconds.is_some();
    if given >= needed || !pod.knows_configuration() || !has_work(pod) {
        return Vec::new();
    }
    let configured = if pod.facts.grace_is_configured && pod.way != Way::Step { pod.facts.grace_seconds } else { 0 };
    let right = needed.max(configured);
    let outside = pod.workload_path();
    let is = if is_written {
        format!("is {given}")
    } else if pod.workload()[KEY].is_number() && outside != pod.spec_path {
        format!(
            "stands in {outside}, where nobody reads it, and is missing in the pod's own {}, which means 30",
            pod.spec_path
        )
    } else {
        "is missing, which means 30".into()
    };
    let leaves_something = pod.way == Way::Step && given > pod.facts.pre_stop.as_secs() + 2;
    let severity = if pod.is_partial && !is_written {
        // It may be written in what this is merged into.
        Severity::Note
    } else if leaves_something {
        // What the application needs for its end is a guess then.
        Severity::Warning
    } else {
        Severity::Error
    };
    let finding = pod.finding(
        TOO_SHORT,
        severity,
        if is_written { pod.spec_at(KEY) } else { pod.spec_path.clone() },
        format!("{KEY} {is}, and the worst case needs {needed}: {}", shares(pod)),
        "the kubelet's clock starts before the pre-stop hook and goes on while it runs; when it is over, SIGTERM comes in the \
         middle of the hook and SIGKILL 2 s later, whatever is still in flight",
        format!("write {KEY}: {right}, or shorten the steps"),
    );
    vec![finding.with([Edit::Set(pod.spec_at(KEY), right.into())])]
}

pub fn differs(pod: &Pod<'_>) -> Vec<Finding> {
    let (given, planned) = (pod.grace_seconds(), pod.facts.grace_seconds);
    let is_written = pod.spec.termination_grace_period_seconds.is_some();
    let is_silent = given == planned
        || given < needed(pod)
        || !pod.knows_configuration()
        || pod.way == Way::Step
        || !has_work(pod)
        || pod.is_partial && !is_written;
    if is_silent {
        return Vec::new();
    }
    let path = if is_written { pod.spec_at(KEY) } else { pod.spec_path.clone() };
    let is = if is_written { format!("is {given}") } else { "is missing, which means 30".into() };
    if !pod.facts.grace_is_configured {
        return vec![pod.finding(
            DIFFERS,
            Severity::Note,
            path,
            format!("{KEY} {is}, and the configuration says no grace-period, so boathook plans with {planned} s"),
            "the kubelet tells no hook how long the grace period is: boathook only knows what its configuration says",
            format!("write grace-period = \"{given}s\" into the configuration"),
        )];
    }
    let what = format!("{KEY} {is}, and the configuration's grace-period is {}", show(pod.facts.grace.period));
    if given < planned {
        let finding = pod.finding(
            DIFFERS,
            Severity::Warning,
            path,
            what,
            format!(
                "boathook shares out {planned} s, and the kubelet kills after {given}: a main process that takes its time is \
                 cut without notice"
            ),
            format!("write the same in both: {KEY}: {planned}, or grace-period = \"{given}s\""),
        );
        return vec![finding.with([Edit::Set(pod.spec_at(KEY), planned.into())])];
    }
    let why = match pod.way {
        Way::Run => {
            "boathook goes by its own grace-period: it kills a main process that outlasts it, though the kubelet waits on"
        }
        _ => "pre-stop ends by the configuration's grace-period, though the kubelet waits on",
    };
    let fix = format!("write the same in both, such as grace-period = \"{given}s\" in the configuration");
    vec![pod.finding(DIFFERS, Severity::Note, path, what, why, fix)]
}

pub fn stop_signal(pod: &Pod<'_>) -> Vec<Finding> {
    let name = pod.container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.as_deref());
    let Some((name, signal)) = name.and_then(|name| Some((name, signal_by_name(name)?))) else { return Vec::new() };
    if pod.way != Way::Run || !pod.knows_configuration() || pod.facts.stop_on.contains(&signal) {
        return Vec::new();
    }
    let stops: Vec<String> = pod.facts.stop_on.iter().map(|signal| name_of_signal(*signal)).collect();
    vec![pod.finding(
        STOP_SIGNAL,
        if pod.pre_stop().is_some() { Severity::Warning } else { Severity::Error },
        pod.at("lifecycle.stopSignal"),
        format!("stopSignal is {name}, and boathook takes {} for a stop", super::listed(&stops)),
        "`boathook run` passes every other signal on at once: without a pre-stop hook before it nothing drains, and nobody \
         takes it for the end",
        format!(
            "add \"{}\" to [app] stop-on; or, where it is the application that needs it, write it as [app] stop-signal and \
             take this line out",
            name.trim_start_matches("SIG")
        ),
    )]
}

/// Post-start in the hook, and what a Deployment waits for.
pub fn slow_start(pod: &Pod<'_>) -> Vec<Finding> {
    if !pod.knows_configuration() || pod.way == Way::Step {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let in_hook = pod.facts.gate_in(pod.way) == Gate::Hook && pod.post_start().is_some();
    if in_hook && pod.facts.post_start > plan::START_DEADLINE {
        findings.push(pod.finding(
            START_DEADLINE,
            Severity::Warning,
            pod.at("lifecycle.postStart"),
            format!("post-start may hold the hook for {}", show(pod.facts.post_start)),
            "while a post-start hook runs there are no logs and no probes, the pod's next container is not started, and \
             deleting the pod does nothing until the hook returns",
            "write [post-start] gate = \"readiness\", with `boathook run` or `serve`, or lower its deadline",
        ));
    }
    let start = if pod.way == Way::Run { pod.facts.start } else { pod.facts.post_start };
    if pod.document.kind() == "Deployment" && !start.is_zero() {
        let seconds = |key: &str| pod.workload()[key].as_u64();
        let deadline = seconds("progressDeadlineSeconds").unwrap_or(PROGRESS_DEADLINE);
        let needed = start.as_secs() + seconds("minReadySeconds").unwrap_or(0);
        if needed >= deadline {
            let path = pod.workload_path().at("progressDeadlineSeconds");
            // Some room for the image and for scheduling.
            let right = needed + needed / 4 + 30;
            let finding = pod.finding(
                START_DEADLINE,
                Severity::Warning,
                pod.nearest(path.clone()),
                format!("a pod may take {needed} s until it is ready, and progressDeadlineSeconds is {deadline}"),
                "a Deployment without progress for so long is reported as failed, and whoever waits for the rollout gives up, \
                 while the pod is only starting",
                format!("write progressDeadlineSeconds: {right}"),
            );
            findings.push(finding.with([Edit::Set(path, right.into())]));
        }
    }
    findings
}
