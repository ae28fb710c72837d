//! The two hooks, and whether they reach boathook.

use boathook::{cli::Command, config::Gate, duration::show, hook::Hook as When};
use k8s_openapi::api::core::v1::{HTTPGetAction, LifecycleHandler};
use serde_json::{Value, json};

use super::http::{self, Aim, Hook};
use crate::{
    facts::Way,
    finding::{Edit, Finding, Rule, Severity},
    path::Path,
    pod::{
        Agent, Pod,
        words::{self, Around, Call, What},
    },
};

pub const PRE_STOP_MISSING: Rule =
    Rule { name: "pre-stop-missing", about: "pre-stop has steps, and no preStop hook starts them" };
pub const PRE_STOP: Rule =
    Rule { name: "pre-stop-does-not-match", about: "the preStop hook does not reach boathook's pre-stop" };
pub const PRE_STOP_SLEEP: Rule =
    Rule { name: "pre-stop-sleep", about: "preStop sleeps, beside boathook, which waits only as long as it has to" };
pub const POST_START_MISSING: Rule =
    Rule { name: "post-start-missing", about: "post-start has steps, and nothing starts them" };
pub const POST_START: Rule =
    Rule { name: "post-start-does-not-match", about: "the postStart hook does not reach boathook's post-start" };
pub const NOTHING_LISTENS: Rule = Rule {
    name: "post-start-nothing-listens",
    about: "postStart by httpGet where nobody listens that early: the hook fails and the container is killed",
};

const START: Hook =
    Hook { key: "postStart", name: "post-start", path: "/started", subcommand: "started", rule: POST_START };
const STOP: Hook = Hook { key: "preStop", name: "pre-stop", path: "/shutdown", subcommand: "shutdown", rule: PRE_STOP };

/// The hooks by httpGet that are meant for boathook.
pub fn by_http<'p>(pod: &'p Pod<'_>) -> Vec<(&'static str, &'p HTTPGetAction)> {
    [("postStart", pod.post_start()), ("preStop", pod.pre_stop())]
        .into_iter()
        .filter_map(|(key, handler)| Some((key, handler?.http_get.as_ref()?)))
        .filter(|(_, get)| http::aim(pod, get) == Aim::Boathook)
        .collect()
}

/// The handler as it should be.
fn handler(pod: &Pod<'_>, hook: Hook) -> Value {
    let is_reached = pod.facts.listen.is_some_and(|listen| !listen.ip().is_loopback() || pod.uses_host_network());
    let by_exec = matches!(pod.way, Way::Exec | Way::Step) || !is_reached;
    if by_exec {
        json!({"exec": {"command": [super::entry::program(pod), hook.subcommand]}})
    } else {
        json!({"httpGet": http::action(pod, hook.path)})
    }
}

/// A misspelt key is told as such, and is what is missing then.
fn is_misspelt(pod: &Pod<'_>, key: &str) -> bool {
    pod.misspelt.iter().any(|misspelt| misspelt.meant == key || misspelt.meant == "lifecycle")
        || pod.wrong.iter().any(|wrong| wrong.path.to_string().contains(key) && wrong.instead.is_none())
}

/// `serve` or `run` as the container's own command hears SIGTERM and starts pre-stop by itself.
fn hears_sigterm(pod: &Pod<'_>) -> bool {
    let is_entrypoint = |call: &Call| {
        let in_background = matches!(call.around, Around::Shell(shell) if shell.in_background);
        matches!(call.subcommand(), "run" | "serve")
            && !in_background
            && !call.words.iter().any(|word| word == "--background")
    };
    pod.way == Way::Run || pod.calls.entrypoint.iter().any(is_entrypoint)
}

pub fn pre_stop(pod: &Pod<'_>) -> Vec<Finding> {
    let at = pod.at("lifecycle.preStop");
    let Some(own) = pod.pre_stop().filter(|own| **own != LifecycleHandler::default()) else {
        return missing_pre_stop(pod, &at);
    };
    if let Some(finding) = several_handlers(pod, own, &at, PRE_STOP) {
        return vec![finding];
    }
    if let Some(sleep) = &own.sleep {
        return vec![sleeps(pod, &at, &at.at("sleep"), sleep.seconds, true)];
    }
    if let Some(get) = &own.http_get {
        let at = at.at("httpGet");
        return match http::aim(pod, get) {
            Aim::Another => another(pod, STOP, at, &format!("{} on port {}", http::path_of(get), port_text(get))),
            Aim::Boathook if pod.way == Way::Exec && pod.agent() == Agent::None => vec![nobody_listens(pod, STOP, at)],
            Aim::Boathook => http::check(pod, STOP, get, &at),
        };
    }
    let Some(words) = own.exec.as_ref().and_then(|exec| exec.command.as_deref()) else {
        return another(pod, STOP, at, "a TCP connection, which the kubelet does not make");
    };
    let at = at.down("exec.command");
    let mut findings = Vec::new();
    let before: u64 = sleeps_of(words);
    if before > 0 {
        let has_own = pod.calls.pre_stop.iter().any(|call| matches!(call.subcommand(), "shutdown" | "step"));
        let seconds = i64::try_from(before).unwrap_or(i64::MAX);
        findings.push(sleeps(pod, &pod.at("lifecycle.preStop"), &at, seconds, !has_own));
    }
    if pod.calls.pre_stop.is_empty() {
        if before == 0 {
            findings.extend(another(pod, STOP, at, &format!("`{}`", words.join(" "))));
        }
        return findings;
    }
    findings.extend(pod.calls.pre_stop.iter().find_map(|call| check_command(pod, STOP, call, words, &at)));
    findings
}

fn port_text(get: &HTTPGetAction) -> String {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    match &get.port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    }
}

fn missing_pre_stop(pod: &Pod<'_>, at: &Path) -> Vec<Finding> {
    if !pod.facts.has(When::PreStop) || is_misspelt(pod, "preStop") || pod.way == Way::Step {
        return Vec::new();
    }
    let path = pod.nearest(at.clone());
    if hears_sigterm(pod) {
        return vec![pod.finding(
            PRE_STOP_MISSING,
            Severity::Note,
            path,
            "there is no preStop hook: SIGTERM starts pre-stop",
            "boathook as the entrypoint keeps the stop signal back until pre-stop is done, so nothing is lost",
            "a hook is only needed where something else in the pod has to wait for it",
        )];
    }
    let subject = match pod.way {
        Way::Serve => "an agent in the background is not PID 1 and gets no SIGTERM",
        _ => "with exec hooks nothing of boathook runs in between",
    };
    let finding = pod.finding(
        PRE_STOP_MISSING,
        if pod.is_partial { Severity::Warning } else { Severity::Error },
        path,
        format!("pre-stop may take {}, and no preStop hook starts it", show(pod.facts.pre_stop)),
        format!("without a hook the kubelet sends SIGTERM to PID 1 at once; {subject}, so nothing is drained or saved"),
        format!("write lifecycle.preStop: {}", handler(pod, STOP)),
    );
    vec![finding.with([Edit::Set(at.clone(), handler(pod, STOP))])]
}

fn several_handlers(pod: &Pod<'_>, own: &LifecycleHandler, at: &Path, rule: Rule) -> Option<Finding> {
    let kinds = [own.exec.is_some(), own.http_get.is_some(), own.sleep.is_some(), own.tcp_socket.is_some()];
    let count = kinds.into_iter().filter(|kind| *kind).count();
    (count > 1).then(|| {
        pod.finding(
            rule,
            Severity::Error,
            at.clone(),
            format!("the hook has {count} handlers"),
            "Kubernetes takes one handler a hook, and refuses the pod",
            "keep the one for boathook",
        )
    })
}

/// The hook is somebody else's.
fn another(pod: &Pod<'_>, hook: Hook, at: Path, what: &str) -> Vec<Finding> {
    let when = if hook == STOP { When::PreStop } else { When::PostStart };
    if !pod.facts.has(when) || pod.way == Way::Step {
        return Vec::new();
    }
    let (severity, why) = if hears_sigterm(pod) {
        (
            Severity::Warning,
            "boathook hears of the stop only by SIGTERM, after this hook: until then it says that it is ready, and its own \
             pre-stop gets what the hook leaves of the grace period",
        )
    } else {
        (Severity::Error, "nothing else starts boathook's pre-stop: its steps are not run")
    };
    vec![pod.finding(
        hook.rule,
        severity,
        at,
        format!("{} is {what}, and boathook's {} has steps", hook.key, hook.name),
        why,
        format!("call boathook, and make this a step of {}: {}", hook.name, handler(pod, hook)),
    )]
}

fn nobody_listens(pod: &Pod<'_>, hook: Hook, at: Path) -> Finding {
    let (rule, why) = if hook == STOP {
        (PRE_STOP, "the connection is refused, which is not retried, and pre-stop is not run")
    } else {
        (
            NOTHING_LISTENS,
            "the kubelet calls about 10 ms after the container's process has started, and a refused connection is not retried: \
             the hook fails and the container is killed",
        )
    };
    let command = json!({"exec": {"command": [super::entry::program(pod), hook.subcommand]}});
    let handler = Path(at.0[..at.0.len() - 1].to_vec());
    let finding = pod.finding(
        rule,
        Severity::Error,
        at,
        format!("{} is called by httpGet, and nothing in this container starts an agent that listens", hook.key),
        why,
        format!("call it by exec: {command}; or make `boathook run` the entrypoint"),
    );
    finding.with([Edit::Set(handler, command)])
}

/// A `sleep` in preStop. `alone`: boathook is not called by the hook.
fn sleeps(pod: &Pod<'_>, handler_at: &Path, at: &Path, seconds: i64, alone: bool) -> Finding {
    let needed = super::grace::needed(pod).saturating_add(seconds.try_into().unwrap_or(0));
    let given = pod.grace_seconds();
    let has_work = pod.facts.has(When::PreStop) || pod.way == Way::Step;
    let does_not_fit = needed > given && pod.knows_configuration() && has_work;
    let never = alone && !hears_sigterm(pod) && pod.facts.has(When::PreStop) && pod.way != Way::Step;
    let total = if does_not_fit { format!(", and with pre-stop that is {needed} s of {given}") } else { String::new() };
    let why = if never {
        "nothing else starts boathook's pre-stop: its steps are not run, and a fixed sleep is too short for a slow router and too \
         long for all others"
    } else if pod.way == Way::Step {
        "the sleep comes out of the same grace period as the step, and a drain waits by itself for as long as routing takes"
    } else {
        "the sleep comes out of the same grace period as pre-stop, during it boathook still says that it is ready, and a drain \
         waits by itself for as long as routing takes"
    };
    let finding = pod.finding(
        PRE_STOP_SLEEP,
        if never || does_not_fit { Severity::Error } else { Severity::Warning },
        at.clone(),
        format!("preStop sleeps {seconds} s beside boathook{total}"),
        why,
        if alone { format!("write preStop: {} instead", handler(pod, STOP)) } else { "take the sleep out".to_owned() },
    );
    // In the middle of a script only a person can take it out.
    if alone { finding.with([Edit::Set(handler_at.clone(), handler(pod, STOP))]) } else { finding }
}

/// How many seconds a hook's command sleeps, in `sleep` commands whose time can be read.
fn sleeps_of(words: &[String]) -> u64 {
    let commands = match words::script_of(words) {
        Some(script) => words::split(script).into_iter().map(|command| command.words).collect(),
        None => vec![words.to_vec()],
    };
    let seconds = |words: &Vec<String>| {
        let at = words.iter().position(|word| word.rsplit('/').next() == Some("sleep"))?;
        // `boathook step sleep` is a step.
        if words[..at].iter().any(|word| word.rsplit('/').next() == Some("boathook")) || at > 1 {
            return None;
        }
        let time = words.get(at + 1)?;
        let (number, unit) = match time.find(|c: char| c.is_ascii_alphabetic()) {
            Some(unit) => time.split_at(unit),
            None => (time.as_str(), "s"),
        };
        let factor = match unit {
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        // At least one second: a sleep that cannot be read is one all the same.
        Some((number.parse::<f64>().unwrap_or(1.0) * factor).clamp(1.0, 1e9) as u64)
    };
    commands.iter().filter_map(seconds).sum()
}

/// A hook's command that runs boathook.
fn check_command(pod: &Pod<'_>, hook: Hook, call: &Call, words: &[String], at: &Path) -> Option<Finding> {
    let found = |severity, what: String, why: &str, fix: String| {
        Some(pod.finding(hook.rule, severity, at.clone(), what, why, fix))
    };
    let not_run =
        "the command fails at once, the kubelet says no more than that the hook failed, and the steps are not run";
    if let What::Refused(why) = &call.what {
        return found(
            Severity::Error,
            format!("boathook refuses `{}`: {why}", call.show()),
            not_run,
            format!("write command: [\"{}\", \"{}\"]", call.words[0], hook.subcommand),
        );
    }
    let command = call.command()?;
    let in_background = matches!(call.around, Around::Shell(shell) if shell.in_background);
    let is_right = match (command, hook == STOP) {
        (Command::Started, false) | (Command::Shutdown, true) => true,
        (Command::Serve(_), false) => return check_serve(pod, call, words, at, in_background),
        // A step by hand is the hook, where there is no other.
        (Command::Step { .. }, _) => {
            let when = if hook == STOP { When::PreStop } else { When::PostStart };
            if pod.way == Way::Step || !pod.facts.has(when) {
                return None;
            }
            return found(
                if hears_sigterm(pod) { Severity::Warning } else { Severity::Error },
                format!("{} runs a step by hand, and the configuration's {} has steps", hook.key, hook.name),
                "a step by hand is a hook of its own: it joins no agent, and the configured steps are not run by it",
                format!(
                    "write command: [\"{}\", \"{}\"] and make this one of its steps",
                    call.words[0], hook.subcommand
                ),
            );
        }
        _ => false,
    };
    if is_right && in_background {
        return found(
            Severity::Error,
            format!("{} starts `{}` in the background", hook.key, call.show()),
            "the hook then holds nothing back: it ends at once or, as long as the child keeps its output open, by no fault of \
             boathook",
            "take the `&` out".into(),
        );
    }
    if is_right {
        return None;
    }
    let finding = pod.finding(
        hook.rule,
        Severity::Error,
        at.clone(),
        format!("{} runs `{}`, and boathook's {} is `{}`", hook.key, call.show(), hook.name, hook.subcommand),
        "the hook is not run by that",
        format!("write command: [\"{}\", \"{}\"]", call.words[0], hook.subcommand),
    );
    let is_plain = call.around == Around::Nothing && call.words.len() == 2;
    Some(finding.with(is_plain.then(|| Edit::Set(at.clone(), json!([call.words[0], hook.subcommand])))))
}

fn check_serve(pod: &Pod<'_>, call: &Call, words: &[String], at: &Path, in_background: bool) -> Option<Finding> {
    let Some(Command::Serve(serve)) = call.command() else { return None };
    if serve.background {
        return None;
    }
    let what = if in_background { "with `&`, which keeps the hook's output open" } else { "in the foreground" };
    let finding = pod.finding(
        POST_START,
        Severity::Error,
        at.clone(),
        format!("postStart starts `boathook serve` {what}"),
        "the hook runs as long as anything it started keeps its output: the container never starts, there are no logs, and the pod \
         cannot even be deleted meanwhile",
        "write `serve --background`, which returns when the hooks can be called (with --started when post-start is done)",
    );
    let mut right: Vec<Value> = words.iter().map(|word| word.as_str().into()).collect();
    right.push("--background".into());
    if pod.facts.has(When::PostStart) {
        right.push("--started".into());
    }
    let is_plain = call.around == Around::Nothing;
    Some(finding.with(is_plain.then(|| Edit::Set(at.clone(), right.into()))))
}

pub fn post_start(pod: &Pod<'_>) -> Vec<Finding> {
    let at = pod.at("lifecycle.postStart");
    let Some(own) = pod.post_start().filter(|own| **own != LifecycleHandler::default()) else {
        return missing_post_start(pod, &at);
    };
    if let Some(finding) = several_handlers(pod, own, &at, POST_START) {
        return vec![finding];
    }
    if let Some(get) = &own.http_get {
        return post_start_by_http(pod, get, at.at("httpGet"));
    }
    let Some(words) = own.exec.as_ref().and_then(|exec| exec.command.as_deref()) else { return Vec::new() };
    let command_at = at.down("exec.command");
    if pod.calls.post_start.is_empty() {
        return missing_post_start(pod, &at);
    }
    let wrong: Vec<Finding> =
        pod.calls.post_start.iter().filter_map(|call| check_command(pod, START, call, words, &command_at)).collect();
    if !wrong.is_empty() {
        return wrong;
    }
    missing_post_start(pod, &at)
}

fn post_start_by_http(pod: &Pod<'_>, get: &HTTPGetAction, at: Path) -> Vec<Finding> {
    if http::aim(pod, get) == Aim::Another {
        let what =
            format!("postStart calls {} on port {}, of the application itself", http::path_of(get), port_text(get));
        return vec![pod.finding(
            NOTHING_LISTENS,
            Severity::Warning,
            at,
            what,
            "the kubelet calls about 10 ms after the container's process has started, and a refused connection is not retried: \
             few servers listen by then, and for the others the container is killed",
            format!("call boathook, which listens by then as the entrypoint: {}", handler(pod, START)),
        )];
    }
    // As the entrypoint it listens before the main process starts; what comes before it in a script takes its time.
    let late = pod.calls.entrypoint.iter().find(|call| match call.around {
        Around::Shell(shell) => matches!(call.subcommand(), "run" | "serve") && !shell.alone,
        _ => false,
    });
    if pod.way != Way::Run && pod.agent() == Agent::None || pod.way == Way::Exec {
        return vec![nobody_listens(pod, START, at)];
    }
    let mut findings = http::check(pod, START, get, &at);
    if let Some(call) = late {
        findings.push(pod.finding(
            NOTHING_LISTENS,
            Severity::Warning,
            at,
            format!("postStart is called by httpGet, and `{}` is started from the middle of a script", call.show()),
            "the kubelet calls about 10 ms after the container's process has started, and a refused connection is not retried: \
             the hook fails and the container is killed",
            "make `boathook run` the entrypoint and what comes before it steps of pre-start, or call postStart by exec",
        ));
    }
    findings
}

/// Post-start has steps, and this hook does not start them.
fn missing_post_start(pod: &Pod<'_>, at: &Path) -> Vec<Finding> {
    let is_silent = !pod.facts.has(When::PostStart)
        || matches!(pod.way, Way::Run | Way::Step)
        || is_misspelt(pod, "postStart")
        // Another hook's script may call it.
        || pod.container.args.iter().flatten().any(|word| word.contains("started"));
    let starts = |call: &Call| match call.command() {
        Some(Command::Started) => true,
        Some(Command::Serve(serve)) => serve.started,
        _ => call.command().is_none(),
    };
    if is_silent || pod.calls.post_start.iter().chain(&pod.calls.entrypoint).any(starts) {
        return Vec::new();
    }
    if pod.post_start().is_some_and(|own| own.exec.is_some()) && pod.calls.post_start.is_empty() {
        return Vec::new();
    }
    let serve = pod.calls.post_start.iter().find(|call| call.subcommand() == "serve" && call.around == Around::Nothing);
    let (fix, edit) = match serve {
        Some(call) => {
            let words: Vec<&str> = call.words.iter().map(String::as_str).chain(["--started"]).collect();
            ("add --started to the command".to_owned(), Edit::Set(at.down("exec.command"), json!(words)))
        }
        None => {
            let own = handler(pod, START);
            (format!("write lifecycle.postStart: {own}"), Edit::Set(at.clone(), own))
        }
    };
    let why = match (pod.way, pod.facts.gate_in(pod.way)) {
        (Way::Serve, _) | (_, Gate::Readiness) => {
            "an agent beside the application waits for somebody to start post-start, and is not ready before it is done"
        }
        _ => "with exec hooks nothing else starts them",
    };
    let finding = pod.finding(
        POST_START_MISSING,
        if pod.is_partial { Severity::Note } else { Severity::Error },
        pod.nearest(at.clone()),
        "post-start has steps, and no postStart hook starts them",
        why,
        fix,
    );
    vec![finding.with([edit])]
}
