//! Probes beside a start, a warm-up and a drain.

use std::time::Duration;

use boathook::{
    cli::Command,
    config::{Gate, is_near},
    duration::show,
    hook::Hook,
};
use k8s_openapi::api::core::v1::{HTTPGetAction, Probe};
use serde_json::json;

use super::http;
use crate::{
    facts::Way,
    finding::{Edit, Finding, Rule, Severity},
    path::Path,
    pod::{Agent, Pod, Port, Role},
};

pub const KILLS_DRAIN: Rule = Rule {
    name: "liveness-kills-drain",
    about: "a liveness probe asks for readiness, which is false during pre-stop: it may kill a container that drains",
};
pub const KILLS_START: Rule =
    Rule { name: "liveness-kills-start", about: "a liveness or startup probe gives up before the start can be done" };
pub const APPLICATION_PORT: Rule = Rule {
    name: "probe-on-application-port",
    about: "a readiness probe on a port that is drained: its connections keep the drain awake",
};
pub const READINESS_MISSING: Rule =
    Rule { name: "readiness-missing", about: "nobody asks boathook whether the container is ready" };
pub const PROBE_PATH: Rule = Rule { name: "probe-path", about: "a probe on boathook's port asks for the wrong page" };
pub const AGENT_MISSING: Rule = Rule {
    name: "agent-missing",
    about: "a probe asks for an agent, and nothing in the container starts one that stays",
};
pub const GRACE_PERIOD: Rule = Rule {
    name: "probe-grace-period",
    about: "a probe's own terminationGracePeriodSeconds is too short for pre-stop, or stands where it is refused",
};

pub const TIMEOUT: Rule = Rule {
    name: "probe-timeout",
    about: "a probe's timeoutSeconds is over before the application's own check may answer",
};

/// boathook's pages for probes.
pub fn is_own_page(path: &str) -> bool {
    ["/ready", "/live"].contains(&path)
}

/// What a probe asks of boathook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    Ready,
    Live,
}

/// Whether a probe is for boathook: on its port, or by its subcommands.
fn asks(pod: &Pod<'_>, key: &str, probe: &Probe) -> Option<Asks> {
    if let Some(get) = &probe.http_get {
        return match http::path_of(get).as_str() {
            "/ready" if is_on_own_port(pod, get) => Some(Asks::Ready),
            "/live" if is_on_own_port(pod, get) => Some(Asks::Live),
            _ => None,
        };
    }
    let calls = match key {
        "startupProbe" => &pod.calls.startup,
        "readinessProbe" => &pod.calls.readiness,
        _ => &pod.calls.liveness,
    };
    calls.iter().find_map(|call| match call.command()? {
        Command::Ready => Some(Asks::Ready),
        Command::Live => Some(Asks::Live),
        _ => None,
    })
}

fn is_on_own_port(pod: &Pod<'_>, get: &HTTPGetAction) -> bool {
    let own = if pod.knows_configuration() { pod.listen_port() } else { Some(crate::pod::PORT) };
    own.is_some_and(|own| pod.port(&get.port) == Port::Number(own.into()))
}

/// After how long the kubelet gives up at the earliest, counted from the start of the container (Kubernetes' defaults: three
/// times with ten seconds between).
fn patience(probe: &Probe) -> Duration {
    let seconds = |value: Option<i32>, default: u64| {
        value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(default)
    };
    let delay = probe.initial_delay_seconds.and_then(|value| u64::try_from(value).ok()).unwrap_or(0);
    Duration::from_secs(delay + seconds(probe.failure_threshold, 3) * seconds(probe.period_seconds, 10))
}

/// How long the start may take as probes see it: they begin when a post-start hook has returned.
fn start(pod: &Pod<'_>) -> Duration {
    let facts = &pod.facts;
    let held = facts.gate_in(pod.way) == Gate::Hook && pod.post_start().is_some();
    let pre_start = if pod.way == Way::Run { facts.pre_start } else { Duration::ZERO };
    match (held, pod.way) {
        (true, _) => Duration::ZERO,
        (false, Way::Run | Way::Serve) => pre_start + facts.post_start,
        // Nobody else knows when it is done.
        (false, Way::Exec | Way::Step) => Duration::ZERO,
    }
}

/// How long it may take until the application answers at all: what the configuration itself waits for.
fn answers(pod: &Pod<'_>) -> Duration {
    let held = pod.facts.gate_in(pod.way) == Gate::Hook && pod.post_start().is_some();
    if held || pod.way != Way::Run {
        return Duration::ZERO;
    }
    pod.facts.pre_start + pod.facts.answers
}

/// Room for a start of this length, in failures of this period.
fn threshold(needed: Duration, probe: &Probe) -> u64 {
    let period =
        probe.period_seconds.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(10);
    needed.as_secs() / period + 2
}

pub fn liveness(pod: &Pod<'_>) -> Vec<Finding> {
    let Some(probe) = &pod.container.liveness_probe else { return Vec::new() };
    if !pod.knows_configuration() {
        return Vec::new();
    }
    let at = pod.at("livenessProbe");
    let allowed = patience(probe);
    let held_back = pod.container.startup_probe.is_some();
    if asks(pod, "livenessProbe", probe) == Some(Asks::Ready) {
        let place = match &probe.http_get {
            Some(_) => at.down("httpGet.path"),
            None => at.down("exec.command"),
        };
        let edit = match &probe.http_get {
            Some(_) => Edit::Set(place.clone(), "/live".into()),
            None => Edit::Set(place.clone(), json!([super::entry::program(pod), "live"])),
        };
        let start = start(pod);
        let fix = if probe.http_get.is_some() { "write path: /live" } else { "run `boathook live`" };
        let finding = if start > allowed && !held_back {
            pod.finding(
                KILLS_START,
                Severity::Error,
                place,
                format!("the liveness probe asks for readiness and gives up after {}, and a start may take {}", show(allowed), show(start)),
                "readiness is false until post-start is done: the kubelet kills the container in the middle of its start, and \
                 again, with growing pauses",
                fix,
            )
        } else {
            pod.finding(
                KILLS_DRAIN,
                Severity::Warning,
                place,
                format!(
                    "the liveness probe asks for readiness and gives up after {}, and pre-stop may take {}",
                    show(allowed),
                    show(pod.facts.pre_stop)
                ),
                "readiness is false from the first moment of pre-stop, and whenever the application's own check fails, which no \
                 restart cures; kubelets before 1.22 go on with liveness probes while a pod ends, and any does when pre-stop was \
                 called by hand",
                fix,
            )
        };
        return vec![finding.with([edit])];
    }
    // Of the application itself: while it starts nobody answers.
    let needed = answers(pod);
    let of_application = asks(pod, "livenessProbe", probe).is_none() && !is_for_another(pod, probe);
    if !of_application || held_back || needed <= allowed {
        return Vec::new();
    }
    let mut right = json!({"periodSeconds": 5, "failureThreshold": needed.as_secs() / 5 + 2});
    if let Some(get) = &probe.http_get
        && let Ok(get) = serde_json::to_value(get)
    {
        right["httpGet"] = get;
    }
    let finding = pod.finding(
        KILLS_START,
        Severity::Warning,
        at,
        format!(
            "the liveness probe gives up after {}, and the configuration waits up to {} for the application to answer",
            show(allowed),
            show(needed)
        ),
        "without a startup probe liveness probes begin at once: the kubelet kills an application that is still starting, and \
         again, with growing pauses",
        format!("add a startupProbe with the same check and room for {}, or ask boathook's /live", show(needed)),
    );
    vec![finding.with(probe.http_get.is_some().then(|| Edit::Set(pod.at("startupProbe"), right)))]
}

/// A probe of a command, or of a port that is known to be another server's.
fn is_for_another(pod: &Pod<'_>, probe: &Probe) -> bool {
    match probe_port(pod, probe) {
        None => true,
        Some(port) => pod.listen_port() == Some(port),
    }
}

fn probe_port(pod: &Pod<'_>, probe: &Probe) -> Option<u16> {
    let port = match (&probe.http_get, &probe.tcp_socket, &probe.grpc) {
        (Some(get), _, _) => pod.port(&get.port),
        (_, Some(socket), _) => pod.port(&socket.port),
        (_, _, Some(grpc)) => Port::Number(grpc.port.into()),
        _ => return None,
    };
    match port {
        Port::Number(number) => u16::try_from(number).ok(),
        Port::Unknown(_) => None,
    }
}

pub fn startup(pod: &Pod<'_>) -> Vec<Finding> {
    let Some(probe) = &pod.container.startup_probe else { return Vec::new() };
    if !pod.knows_configuration() {
        return Vec::new();
    }
    let allowed = patience(probe);
    let (needed, asked) = match asks(pod, "startupProbe", probe) {
        Some(Asks::Ready) => (start(pod), "readiness"),
        Some(Asks::Live) => return Vec::new(),
        None if is_for_another(pod, probe) => return Vec::new(),
        None => (answers(pod), "the application"),
    };
    if needed <= allowed {
        return Vec::new();
    }
    let right = threshold(needed, probe);
    let at = pod.at("startupProbe");
    let finding = pod.finding(
        KILLS_START,
        if asked == "readiness" { Severity::Error } else { Severity::Warning },
        pod.nearest(at.at("failureThreshold")),
        format!(
            "the startup probe asks for {asked} and gives up after {}, and a start may take {}",
            show(allowed),
            show(needed)
        ),
        "when a startup probe has failed failureThreshold times, periodSeconds apart, the kubelet kills the container",
        format!("write failureThreshold: {right}"),
    );
    vec![finding.with([Edit::Set(at.at("failureThreshold"), right.into())])]
}

pub fn readiness(pod: &Pod<'_>) -> Vec<Finding> {
    let has_agent = matches!(pod.way, Way::Run | Way::Serve) && pod.agent() != Agent::None;
    let Some(probe) = &pod.container.readiness_probe else {
        return missing(pod, has_agent);
    };
    if !has_agent || !pod.knows_configuration() || asks(pod, "readinessProbe", probe).is_some() {
        return Vec::new();
    }
    let Some(port) = probe_port(pod, probe) else { return Vec::new() };
    let facts = &pod.facts;
    let drained = if !facts.drain_ports.is_empty() { &facts.drain_ports } else { &facts.usual_ports };
    let is_drained = if drained.is_empty() {
        facts.listen.is_none_or(|listen| listen.port() != port)
    } else {
        drained.contains(&port)
    };
    if !facts.drains || !is_drained || facts.drain_ignores_node {
        return Vec::new();
    }
    let period = probe.period_seconds.unwrap_or(10);
    let at = pod.at("readinessProbe");
    let finding = pod.finding(
        APPLICATION_PORT,
        Severity::Warning,
        at.clone(),
        format!("the readiness probe asks the application on port {port} every {period} s, and the drain watches that port"),
        "readiness probes go on while a pod ends, and each is a new connection: until `settle` has passed the drain cannot tell \
         them from users, and takes longer; and such a probe does not know that pre-stop has begun",
        format!(
            "ask boathook: httpGet: {{path: /ready, port: {}}}; what is asked now belongs into [readiness] of the configuration",
            http::own_port(pod)
        ),
    );
    // Without [readiness] the application's own check would be lost.
    let can = facts.asks_application && facts.listen.is_some();
    let mut edits = Vec::new();
    if can {
        for (key, is_there) in
            [("tcpSocket", probe.tcp_socket.is_some()), ("grpc", probe.grpc.is_some()), ("exec", probe.exec.is_some())]
        {
            if is_there {
                edits.push(Edit::Remove(at.at(key)));
            }
        }
        edits.push(Edit::Set(at.at("httpGet"), json!({"path": "/ready", "port": http::own_port(pod)})));
    }
    vec![finding.with(edits)]
}

fn missing(pod: &Pod<'_>, has_agent: bool) -> Vec<Finding> {
    let is_misspelt = pod.misspelt.iter().any(|misspelt| misspelt.meant == "readinessProbe");
    // What runs to its end serves nobody.
    let serves = !matches!(pod.document.kind(), "Job" | "CronJob") && pod.role == Role::Container;
    if !has_agent || is_misspelt || !serves || pod.is_assumed {
        return Vec::new();
    }
    let gates =
        pod.facts.has(Hook::PostStart) && pod.facts.gate_in(pod.way) == Gate::Readiness && pod.knows_configuration();
    let (severity, what, why) = if gates && !pod.is_partial {
        (
            Severity::Warning,
            format!(
                "post-start may take {} and holds back readiness, and no readiness probe asks for it",
                show(pod.facts.post_start)
            ),
            "a container without a readiness probe counts as ready from its start: users come while it is warming up",
        )
    } else {
        (
            Severity::Note,
            "there is no readiness probe".to_owned(),
            "a container without one counts as ready from its start to the deletion of its pod; nobody sees when boathook says no",
        )
    };
    let page = json!({"httpGet": {"path": "/ready", "port": http::own_port(pod)}, "periodSeconds": 1});
    let own = match pod.facts.listen {
        Some(_) => page,
        None => json!({"exec": {"command": [super::entry::program(pod), "ready"]}, "periodSeconds": 1}),
    };
    let fix = format!("write readinessProbe: {own}");
    let finding = pod.finding(READINESS_MISSING, severity, pod.container_path.clone(), what, why, fix);
    let is_worth = severity == Severity::Warning;
    vec![finding.with(is_worth.then(|| Edit::Set(pod.at("readinessProbe"), own)))]
}

/// Which page each probe on boathook's port asks for, and whether there is such a port.
pub fn pages(pod: &Pod<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (key, probe) in pod.probes() {
        findings.extend(agent_missing(pod, key, probe));
        let Some(get) = &probe.http_get else { continue };
        findings.extend(page(pod, key, get, &pod.at(key).at("httpGet")));
    }
    findings
}

fn agent_missing(pod: &Pod<'_>, key: &str, probe: &Probe) -> Option<Finding> {
    let asks = asks(pod, key, probe)?;
    let stays = match pod.way {
        Way::Run => pod.agent() != Agent::None || pod.is_assumed,
        Way::Serve => true,
        Way::Exec | Way::Step => false,
    };
    // What bypasses the entrypoint is told as that.
    if stays || pod.way == Way::Run {
        return None;
    }
    let what = match asks {
        Asks::Ready => "whether it is ready",
        Asks::Live => "whether it is live",
    };
    Some(pod.finding(
        AGENT_MISSING,
        Severity::Error,
        pod.at(key),
        format!("the probe asks boathook {what}, and with exec hooks alone no agent is there to answer"),
        "an exec hook's agent lives as long as the hook: between hooks the probe fails, always",
        "ask the application itself, or make `boathook run` the entrypoint",
    ))
}

fn page(pod: &Pod<'_>, key: &str, get: &HTTPGetAction, at: &Path) -> Option<Finding> {
    let path = http::path_of(get);
    let own = own_page_of(key);
    if let Port::Unknown(name) = pod.port(&get.port) {
        return Some(pod.finding(
            http::PORT_DIFFERS,
            Severity::Error,
            at.at("port"),
            format!("the probe asks the port called `{name}`, and this container has none"),
            "the kubelet looks a port's name up among the ports of the same container; without it the probe fails, always",
            format!("write the port's number, or one of {}", names(pod)),
        ));
    }
    let listen = pod.listen_port();
    if !is_on_own_port(pod, get) {
        return page_elsewhere(pod, get, at, &path);
    }
    let listen = listen?;
    let known = ["/ready", "/live", "/status", "/metrics"].contains(&path.as_str());
    let is_hook = ["/started", "/shutdown"].contains(&path.as_str());
    let set = Edit::Set(at.at("path"), own.into());
    let place = if get.path.is_some() { at.at("path") } else { at.clone() };
    let found = |severity, what: String, why: &str| {
        Some(pod.finding(PROBE_PATH, severity, place, what, why, format!("write path: {own}")).with([set]))
    };
    if is_hook {
        return found(
            Severity::Error,
            format!("the probe asks for {path} on port {listen}, which is a hook"),
            "a probe comes again and again: it would start the hook, or is refused as a caller without the right to",
        );
    }
    if !known {
        return found(
            Severity::Error,
            format!("the probe asks for {path} on port {listen}, and boathook has no such page"),
            "boathook answers 404 there, and for a probe, other than for a hook, the kubelet looks at the status: it fails, always",
        );
    }
    if key == "readinessProbe" && path != "/ready" {
        return found(
            Severity::Warning,
            format!("the readiness probe asks for {path}"),
            "that page says yes while the application starts and while it drains: traffic comes too early and too long",
        );
    }
    let scheme = get.scheme.as_deref().filter(|scheme| *scheme == "HTTPS")?;
    let finding = pod.finding(
        PROBE_PATH,
        Severity::Error,
        at.at("scheme"),
        format!("the probe asks port {listen} by {scheme}"),
        "boathook speaks plain HTTP, and a probe, other than a hook, does not fall back to it: it fails, always",
        "take the line out",
    );
    Some(finding.with([Edit::Set(at.at("scheme"), "HTTP".into())]))
}

fn own_page_of(key: &str) -> &'static str {
    if key == "livenessProbe" { "/live" } else { "/ready" }
}

fn names(pod: &Pod<'_>) -> String {
    let names: Vec<String> = pod.container.ports.iter().flatten().filter_map(|port| port.name.clone()).collect();
    if names.is_empty() { "the names that `ports` gives".into() } else { super::listed(&names) }
}

/// A page that boathook has, on a port that it does not have: the application may well have the same page.
fn page_elsewhere(pod: &Pod<'_>, get: &HTTPGetAction, at: &Path, path: &str) -> Option<Finding> {
    let Port::Number(number) = pod.port(&get.port) else { return None };
    if !is_own_page(path) || !pod.knows_configuration() || !matches!(pod.way, Way::Run | Way::Serve) {
        return None;
    }
    let is_declared = pod.container.ports.iter().flatten().any(|port| i64::from(port.container_port) == number);
    let is_applications =
        pod.facts.app_ports.iter().chain(&pod.facts.usual_ports).any(|port| i64::from(*port) == number);
    let by_mistake = pod.facts.listen.is_none() && number == i64::from(crate::pod::PORT);
    if is_applications || is_declared && !by_mistake {
        return None;
    }
    let edit = pod.facts.listen.map(|_| Edit::Set(at.at("port"), http::own_port(pod)));
    match pod.listen_port() {
        Some(listen) => {
            // Boathook's own port, as it was before somebody moved it, or with a slip of the finger.
            let is_meant = number == i64::from(crate::pod::PORT) || is_near(&number.to_string(), &listen.to_string());
            let severity = if is_meant { Severity::Error } else { Severity::Note };
            let finding = pod.finding(
                http::PORT_DIFFERS,
                severity,
                at.at("port"),
                format!("the probe asks for {path} on port {number}, and boathook listens on {listen}"),
                "where nobody listens the connection is refused: the probe fails, always",
                format!("write port: {}", http::own_port(pod)),
            );
            Some(finding.with(edit.filter(|_| is_meant)))
        }
        None if number == i64::from(crate::pod::PORT) => Some(pod.finding(
            http::PORT_DIFFERS,
            Severity::Error,
            at.at("port"),
            format!("the probe asks for {path} on port {number}, and the configuration says listen = \"off\""),
            "where nobody listens the connection is refused: the probe fails, always",
            "ask by exec (`boathook ready`, `boathook live`), or let boathook listen",
        )),
        None => None,
    }
}

pub fn grace_periods(pod: &Pod<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (key, probe) in pod.probes() {
        let Some(seconds) = probe.termination_grace_period_seconds else { continue };
        let path = pod.at(key).at("terminationGracePeriodSeconds");
        let remove = Edit::Remove(path.clone());
        if key == "readinessProbe" {
            let finding = pod.finding(
                GRACE_PERIOD,
                Severity::Error,
                path,
                "a readiness probe has no grace period",
                "a readiness probe kills nothing; Kubernetes refuses the pod",
                "take the line out",
            );
            findings.push(finding.with([remove]));
            continue;
        }
        let needed = super::grace::needed(pod);
        let has_work = pod.facts.has(Hook::PreStop) || !pod.facts.pre_stop.is_zero();
        if !pod.knows_configuration() || !has_work || seconds >= i64::try_from(needed).unwrap_or(i64::MAX) {
            continue;
        }
        let finding = pod.finding(
            GRACE_PERIOD,
            Severity::Warning,
            path,
            format!("after this probe has failed the stop has {seconds} s, and the worst case needs {needed}"),
            "pre-stop also runs after a failed probe, with the probe's own grace period instead of the pod's; nobody tells the \
             hook, which plans with the configured one and is cut",
            "take the line out, or give it as long",
        );
        findings.push(finding.with([remove]));
    }
    findings
}

/// A probe that asks the application through boathook has to wait as long as boathook does.
pub fn timeouts(pod: &Pod<'_>) -> Vec<Finding> {
    let Some((check, _)) = pod.facts.readiness.filter(|_| pod.knows_configuration()) else { return Vec::new() };
    let mut findings = Vec::new();
    for (key, probe) in pod.probes() {
        // Kubernetes' default is a second.
        let given =
            probe.timeout_seconds.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(1);
        if asks(pod, key, probe) != Some(Asks::Ready) || Duration::from_secs(given) > check {
            continue;
        }
        let right = check.as_secs() + 1;
        let at = pod.at(key);
        let finding = pod.finding(
            TIMEOUT,
            Severity::Warning,
            pod.nearest(at.at("timeoutSeconds")),
            format!("the probe waits {given} s, and [readiness] gives the application {}", show(check)),
            "a probe that is not answered in time has failed: a slow answer of the application never counts, and nobody sees \
             boathook's reason",
            format!("write timeoutSeconds: {right}, or a shorter [readiness] timeout"),
        );
        findings.push(finding.with([Edit::Set(at.at("timeoutSeconds"), right.into())]));
    }
    findings
}
