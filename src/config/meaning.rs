//! The second half of reading: what was typed → what it means. Consumes the first and notes every problem; what it
//! returns is only used when there was none.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use toml::Spanned;

use super::{document::Document, typed};
use crate::{
    duration::show,
    hook::Hook,
    plan::{self, Grace, Misfit, Plan, StepTime},
    preset,
    problem::{Files, Problem, Scope},
    process::signal_by_name,
    readiness::Readiness,
    redact::Secrets,
    server::admission::{self, Rights, Source, TokenFile, TokenSource},
    short,
    step::{self, Step},
};

/// 4665 spells HOOK on a telephone's keys.
pub const PORT: u16 = 4665;

/// How long a pre-stop that no stop signal follows stays in force, beyond the grace period itself.
const UNDRAIN_MARGIN: Duration = Duration::from_secs(2);

/// Everything that was configured, checked.
#[derive(Debug)]
pub struct Config {
    /// The file it came from; `None`: the defaults.
    pub file: Option<String>,
    pub grace: Grace,
    /// Whether somebody named the grace period: only then does the agent kill what outlasts it.
    pub grace_is_configured: bool,
    pub server: Server,
    pub app: App,
    /// The application's own check; `None`: the phase alone says whether it is ready.
    pub readiness: Option<Readiness>,
    pub log: LogConfig,
    /// `None`: readiness in `run`, the hook elsewhere.
    pub gate: Option<Gate>,
    /// Counted from the start of pre-stop.
    pub undrain_after: Duration,
    /// In the order of [`Hook::ALL`].
    hooks: [HookConfig; 4],
    pub secrets: Secrets,
}

/// The HTTP listener and who may trigger hooks through it.
#[derive(Clone, Debug, Default)]
pub struct Server {
    /// `None`: no listener at all, hooks come by exec only.
    pub listen: Option<SocketAddr>,
    pub rights: Rights,
    /// Nobody may trigger a hook by HTTP, although there is a listener: `run` and `serve` refuse to start.
    pub nobody_may_trigger: bool,
    /// The variable that the token comes from, where it comes from one.
    pub token_env: Option<String>,
}

/// The application.
#[derive(Clone, Debug, Default)]
pub struct App {
    /// `nginx: ports, stop-signal`: the preset and what it gave; `None`: without one.
    pub preset: Option<String>,
    pub ports: Vec<u16>,
    /// Where the preset's server usually listens, for when no ports are written.
    pub usual_ports: Vec<u16>,
    /// What the main process gets instead of the stop signal that came; `None`: the same signal.
    pub stop_signal: Option<i32>,
    /// The signals that mean "stop".
    pub stop_on: Vec<i32>,
    /// The stop signal lets it finish what is in flight and close its keep-alive connections in order.
    pub graceful_stop: bool,
}

/// What post-start holds back until it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// `/started` answers at once, `/ready` is false until post-start is done.
    Readiness,
    /// `/started` answers when post-start is done: the kubelet waits, and a failure kills the container.
    Hook,
}

/// How the log is written.
#[derive(Clone, Debug)]
pub struct LogConfig {
    pub level: tracing::Level,
    pub format: LogFormat,
    /// `terminationMessagePath`.
    pub termination_message: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: tracing::Level::INFO,
            format: LogFormat::Text,
            termination_message: "/dev/termination-log".into(),
        }
    }
}

/// One hook's steps and their time.
#[derive(Debug, Default)]
pub struct HookConfig {
    pub steps: Vec<Step>,
    pub deadline: Duration,
}

impl HookConfig {
    /// Whether it watches connections.
    pub fn drains(&self) -> bool {
        self.steps.iter().any(Step::drains)
    }

    pub fn plan(&self) -> Plan {
        Plan {
            deadline: self.deadline,
            steps: self
                .steps
                .iter()
                .map(|step| StepTime { timeout: step.timeout, essential: step.essential })
                .collect(),
        }
    }
}

impl Config {
    pub fn hook(&self, hook: Hook) -> &HookConfig {
        // `Hook::ALL` lists the variants in their own order, and the array has one entry a variant.
        &self.hooks[hook as usize]
    }

    /// The defaults: the kubelet's hooks are admitted from the default route's gateway.
    pub fn without_file() -> Self {
        let mut problems = Vec::new();
        let document = Document::new("defaults", "");
        let mut config = mean(typed::Config::default(), &document, &|_| None, Files::Here, &mut problems);
        config.file = None;
        config.server.rights.allow_from = Some(vec![Source::Gateway]);
        config.server.nobody_may_trigger = false;
        config
    }

    /// The same problem for whoever is about to listen: a listener that nobody may use is refused, with the ways out.
    pub fn check_listener(&self) -> Result<(), Problem> {
        if !self.server.nobody_may_trigger {
            return Ok(());
        }
        Err(Problem {
            file: self.file.clone().unwrap_or_default(),
            line: None,
            place: "server".into(),
            what: format!(
                "nobody may trigger a hook on {}: there is neither token-file, token-env, allow-from nor a loopback address",
                self.server.listen.map(|listen| listen.to_string()).unwrap_or_default()
            ),
            help: Some(
                "set token-file (sent by the hook's httpHeaders as \"Authorization: Bearer …\"), or allow-from = [\"gateway\"] or [\"${HOST_IP}\"], \
                 or listen = \"127.0.0.1:4665\", or listen = \"off\" when hooks come by exec only, or allow-unauthenticated = true to let anybody on the pod's network stop it"
                    .into(),
            ),
        })
    }
}

/// Gives meaning to the whole configuration.
pub(super) fn mean(
    mut typed: typed::Config,
    document: &Document<'_>,
    environment: &dyn Fn(&str) -> Option<String>,
    files: Files,
    problems: &mut Vec<Problem>,
) -> Config {
    let mut secrets: Vec<String> = document.secrets().collect();
    let mut scope = Scope {
        file: document.file,
        line: None,
        place: String::new(),
        step_name: String::new(),
        app_ports: &[],
        graceful_stop: false,
        files,
        secrets: &mut secrets,
        problems,
    };
    let preset = take_from_preset(&mut typed, document, &mut scope);
    let mut app = mean_app(typed.app, document, &mut scope);
    if let Some(preset) = &preset {
        app.preset = Some(preset.gave.clone());
        app.usual_ports.clone_from(&preset.usual_ports);
    }
    let server = mean_server(typed.server, document, environment, &mut scope);
    let log = mean_log(typed.log, document, &mut scope);
    let readiness = typed.readiness.and_then(|readiness| {
        scope.line = Some(document.line_of(readiness.span().start));
        scope.place = "readiness".into();
        let readiness = Readiness::mean(readiness.into_inner(), &mut scope);
        scope.line = None;
        scope.place = String::new();
        readiness
    });
    scope.app_ports = &app.ports;
    scope.graceful_stop = app.graceful_stop;

    let gate = mean_gate(typed.post_start.gate.as_ref(), document, &mut scope);
    for (hook, typed) in
        [(Hook::PreStart, &typed.pre_start), (Hook::PreStop, &typed.pre_stop), (Hook::PostStop, &typed.post_stop)]
    {
        if let Some(gate) = &typed.gate {
            scope.line = Some(document.line_of(gate.span().start));
            scope.problem(hook.name(), "`gate` belongs to post-start alone", "take it out".to_owned());
        }
    }
    let mut undrain_after = None;
    for (hook, typed) in [
        (Hook::PreStart, &typed.pre_start),
        (Hook::PostStart, &typed.post_start),
        (Hook::PreStop, &typed.pre_stop),
        (Hook::PostStop, &typed.post_stop),
    ] {
        if let Some(span) = &typed.undrain_after {
            if hook == Hook::PreStop {
                undrain_after = Some(span.get_ref().0);
            } else {
                scope.line = Some(document.line_of(span.span().start));
                scope.problem(hook.name(), "`undrain-after` belongs to pre-stop alone", "take it out".to_owned());
            }
        }
    }
    scope.line = None;

    // What a preset's steps stand in is not the user's file: the place to change something is where it is named.
    let preset_line = preset.as_ref().filter(|preset| preset.has_steps).map(|preset| preset.line);
    let mut steps_of = |hook: Hook, typed: typed::Hook| {
        let line_of = |at| match preset_line {
            Some(line) if hook == Hook::PreStop => line,
            _ => document.line_of(at),
        };
        scope.place = hook.name().into();
        let deadline =
            typed.deadline.map(|deadline| (document.line_of(deadline.span().start), deadline.into_inner().0));
        (step::mean_steps(typed.step, &line_of, &mut scope), deadline)
    };
    let (pre_start, pre_start_deadline) = steps_of(Hook::PreStart, typed.pre_start);
    let (post_start, post_start_deadline) = steps_of(Hook::PostStart, typed.post_start);
    let (mut pre_stop, pre_stop_deadline) = steps_of(Hook::PreStop, typed.pre_stop);
    let (post_stop, post_stop_deadline) = steps_of(Hook::PostStop, typed.post_stop);
    scope.place = String::new();

    let period = typed.grace_period.map_or(plan::GRACE_PERIOD, |span| span.0);
    let has_post_stop = !post_stop.is_empty();
    let post_stop_time =
        has_post_stop.then(|| post_stop_deadline.map_or_else(|| plan::post_stop(period), |(_, deadline)| deadline));
    let grace = Grace::share(period, typed.stop_reserve.map(|span| span.0), post_stop_time);
    check_grace(&grace, typed.grace_period.is_some(), &mut scope);

    let start = |deadline: Option<(usize, Duration)>| deadline.map_or(plan::START_DEADLINE, |(_, deadline)| deadline);
    let longest_pre_stop = grace.pre_stop();
    if let Some((line, deadline)) = pre_stop_deadline
        && deadline > longest_pre_stop
    {
        scope.line = Some(line);
        scope.problem(
            "pre-stop: deadline",
            format!("{} does not fit in {}", show(deadline), grace_in_words(&grace)),
            grace_help(),
        );
        scope.line = None;
    }
    let pre_stop_time = pre_stop_deadline.map_or(longest_pre_stop, |(_, deadline)| deadline);
    if preset_line.is_some() {
        // A preset knows no grace period.
        for step in &mut pre_stop {
            step.timeout = step.timeout.map(|timeout| timeout.min(pre_stop_time / 4));
            if let step::Action::Drain(drain) = &mut step.action {
                drain.cap_settle(plan::longest_settle(pre_stop_time));
            }
        }
    }
    let hooks = [
        HookConfig { steps: pre_start, deadline: start(pre_start_deadline) },
        HookConfig { steps: post_start, deadline: start(post_start_deadline) },
        HookConfig { steps: pre_stop, deadline: pre_stop_time },
        HookConfig {
            steps: post_stop,
            deadline: post_stop_deadline
                .map_or(post_stop_time.unwrap_or(plan::POST_STOP_DEADLINE), |(_, deadline)| deadline),
        },
    ];
    for (hook, (config, deadline)) in Hook::ALL.into_iter().zip(hooks.iter().zip([
        pre_start_deadline,
        post_start_deadline,
        pre_stop_deadline,
        post_stop_deadline,
    ])) {
        if deadline.is_some_and(|(_, deadline)| deadline.is_zero()) {
            scope.problem(
                &format!("{hook}: deadline"),
                "no time at all is left for the hook",
                "give it some, or leave the key out".to_owned(),
            );
            continue;
        }
        check_fit(hook, config, &grace, deadline.is_some(), &mut scope);
    }
    let undrain_after = undrain_after.unwrap_or(period + UNDRAIN_MARGIN);
    Config {
        file: Some(document.file.into()),
        grace,
        grace_is_configured: typed.grace_period.is_some(),
        server,
        app,
        readiness,
        log,
        gate,
        undrain_after,
        hooks,
        secrets: Secrets::new(secrets),
    }
}

/// What became of `[app] preset`.
struct FromPreset {
    /// Where it is named.
    line: usize,
    gave: String,
    usual_ports: Vec<u16>,
    /// Pre-stop is the preset's.
    has_steps: bool,
}

/// Puts what the preset says where the user has written nothing.
fn take_from_preset(typed: &mut typed::Config, document: &Document<'_>, scope: &mut Scope<'_>) -> Option<FromPreset> {
    let name = typed.app.preset.take()?;
    let line = document.line_of(name.span().start);
    scope.line = Some(line);
    let found = preset::find(name.get_ref());
    let found = found.map_err(|(what, help)| scope.problem("app: preset", what, help)).ok();
    // A test reads them all: there is nothing in them that cannot be read.
    let given = found.and_then(|found| {
        let mut own = Document::new(&found.name, &found.text);
        own.read::<typed::Config>(&|_| None, scope.problems)
    });
    scope.line = None;
    let given = given?;
    let mut gave = Vec::new();
    let app = &mut typed.app;
    let mut usual_ports = Vec::new();
    if app.ports.is_none() {
        let ports = given.app.ports.into_iter().flat_map(Spanned::into_inner);
        usual_ports = short::set_of(ports.map(|port| port.0));
        gave.push("the usual ports");
    }
    give("stop-signal", &mut app.stop_signal, given.app.stop_signal, &mut gave);
    give("stop-on", &mut app.stop_on, given.app.stop_on, &mut gave);
    give("graceful-stop", &mut app.graceful_stop, given.app.graceful_stop, &mut gave);
    let has_steps = typed.pre_stop.step.is_empty();
    if has_steps {
        typed.pre_stop.step = given.pre_stop.step;
        gave.push("pre-stop");
    }
    let gave = if gave.is_empty() { "nothing that is not written".into() } else { gave.join(", ") };
    Some(FromPreset { line, gave: format!("{}: {gave}", name.get_ref()), usual_ports, has_steps })
}

fn give<T>(key: &'static str, typed: &mut Option<T>, given: Option<T>, gave: &mut Vec<&'static str>) {
    if typed.is_none() && given.is_some() {
        *typed = given;
        gave.push(key);
    }
}

fn check_grace(grace: &Grace, period_is_configured: bool, scope: &mut Scope<'_>) {
    if grace.period.is_zero() {
        scope.problem(
            "grace-period",
            "no time at all is left for the stop",
            "set it to the pod's terminationGracePeriodSeconds".to_owned(),
        );
    } else if grace.pre_stop().is_zero() {
        let which = if period_is_configured { "grace-period" } else { "the default grace-period" };
        scope.problem(
            "stop-reserve",
            format!("nothing of {which} {} is left for pre-stop: {} for the main process, {} for post-stop, {} for the kubelet's rounding", show(grace.period), show(grace.stop_reserve), show(grace.post_stop), show(grace.margin)),
            "lower stop-reserve, or raise grace-period and terminationGracePeriodSeconds together".to_owned(),
        );
    }
}

/// `grace-period 30s (less 5s stop-reserve, 1s margin)`.
fn grace_in_words(grace: &Grace) -> String {
    let post_stop =
        if grace.post_stop.is_zero() { String::new() } else { format!(", {} for post-stop", show(grace.post_stop)) };
    format!(
        "grace-period {}, of which {} are kept as stop-reserve{post_stop} and {} for the kubelet's rounding",
        show(grace.period),
        show(grace.stop_reserve),
        show(grace.margin)
    )
}

fn grace_help() -> String {
    "lower it, or raise grace-period and terminationGracePeriodSeconds together".into()
}

/// Refuses a plan that cannot fit, naming the step.
fn check_fit(hook: Hook, config: &HookConfig, grace: &Grace, deadline_is_configured: bool, scope: &mut Scope<'_>) {
    let inside = match (hook, deadline_is_configured) {
        (Hook::PreStop, false) => grace_in_words(grace),
        _ => format!("the hook's deadline {}", show(config.deadline)),
    };
    let help = match (hook, deadline_is_configured) {
        (Hook::PreStop, false) => {
            "lower the timeout, or raise grace-period and terminationGracePeriodSeconds together".to_owned()
        }
        _ => format!("lower the timeout, or raise [{hook}] deadline"),
    };
    for misfit in config.plan().misfits() {
        match misfit {
            Misfit::Timeout { step, timeout } => {
                let name = config.steps.get(step).map_or("", |step| step.name.as_str());
                scope.problem(
                    "",
                    format!("{hook}: step \"{name}\": timeout {} does not fit in {inside}", show(timeout)),
                    help.clone(),
                );
            }
            Misfit::Essential { reserved } => {
                scope.problem(
                    "",
                    format!("{hook}: the essential steps need {} and do not fit in {inside}", show(reserved)),
                    help.clone(),
                );
            }
        }
    }
    for step in &config.steps {
        if let step::Action::Group(inner) = &step.action {
            let most = step.timeout.unwrap_or(config.deadline).min(config.deadline);
            for inner in inner.iter().filter(|inner| inner.timeout.is_some_and(|timeout| timeout > most)) {
                let timeout = show(inner.timeout.unwrap_or_default());
                scope.problem(
                    "",
                    format!(
                        "{hook}: step \"{}\": step \"{}\": timeout {timeout} does not fit in {}",
                        step.name,
                        inner.name,
                        show(most)
                    ),
                    help.clone(),
                );
            }
        }
    }
}

fn mean_app(typed: typed::App, document: &Document<'_>, scope: &mut Scope<'_>) -> App {
    scope.place = "app".into();
    let mut app = App {
        preset: None,
        ports: Vec::new(),
        usual_ports: Vec::new(),
        stop_signal: None,
        stop_on: vec![libc::SIGTERM, libc::SIGINT, libc::SIGQUIT],
        graceful_stop: typed.graceful_stop.unwrap_or(false),
    };
    if let Some(ports) = typed.ports {
        scope.line = Some(document.line_of(ports.span().start));
        app.ports = short::set_of(ports.into_inner().into_iter().map(|port| port.0));
        if app.ports.contains(&0) {
            scope.problem("ports", "0 is not a port", "name the ports the application listens on".to_owned());
        }
    }
    let parse = |key: &str, name: &str, line: usize, scope: &mut Scope<'_>| {
        let signal = signal_by_name(name);
        if signal.is_none()
            || signal.is_some_and(|signal| [libc::SIGKILL, libc::SIGSTOP, libc::SIGCHLD].contains(&signal))
        {
            scope.line = Some(line);
            scope.problem(
                key,
                format!("`{name}` is not a signal that can stop a process in order"),
                "write \"TERM\", \"QUIT\", \"INT\", \"WINCH\", \"USR1\", \"RTMIN+3\" …".to_owned(),
            );
        }
        signal
    };
    if let Some(signal) = typed.stop_signal {
        let line = document.line_of(signal.span().start);
        app.stop_signal = parse("stop-signal", signal.get_ref(), line, scope);
    }
    if let Some(names) = typed.stop_on {
        let line = document.line_of(names.span().start);
        app.stop_on = names.get_ref().iter().filter_map(|name| parse("stop-on", name, line, scope)).collect();
        if names.get_ref().is_empty() {
            scope.line = Some(line);
            scope.problem("stop-on", "no signal would stop the container", "name at least \"TERM\"".to_owned());
        }
    }
    scope.line = None;
    scope.place = String::new();
    app
}

fn mean_server(
    typed: typed::Server,
    document: &Document<'_>,
    environment: &dyn Fn(&str) -> Option<String>,
    scope: &mut Scope<'_>,
) -> Server {
    scope.place = "server".into();
    let mut server = Server { listen: Some(SocketAddr::from(([0, 0, 0, 0], PORT))), ..Server::default() };
    let mut listen_is_good = true;
    if let Some(listen) = &typed.listen {
        scope.line = Some(document.line_of(listen.span().start));
        match parse_listen(listen.get_ref()) {
            Ok(listen) => server.listen = listen,
            Err(what) => {
                listen_is_good = false;
                scope.problem(
                    "listen",
                    what,
                    "write an address and a port: \"0.0.0.0:4665\", \"[::]:4665\", \"127.0.0.1:4665\", or \"off\""
                        .to_owned(),
                );
            }
        }
    }
    let tokens = [("token", &typed.token), ("token-file", &typed.token_file), ("token-env", &typed.token_env)];
    let mut tokens = tokens.into_iter().filter_map(|(key, typed)| Some((key, typed.as_ref()?)));
    let first = tokens.next().map(|(key, _)| key);
    let has_token = first.is_some();
    for (key, typed) in tokens {
        scope.line = Some(document.line_of(typed.span().start));
        let other = first.unwrap_or_default();
        scope.problem(key, format!("there is a {other} as well"), "keep one of them".to_owned());
    }
    if let Some(token) = typed.token {
        scope.line = Some(document.line_of(token.span().start));
        let token = token.into_inner();
        if token.trim().is_empty() || token.chars().any(char::is_control) {
            let help = "`boathook init` makes one; or name a token-file, or a token-env".to_owned();
            scope.problem("token", "it is empty, or has control characters", help);
        }
        let token = token.trim().to_owned();
        scope.secrets.push(token.clone());
        server.rights.token = Some(TokenSource::Value(token));
    }
    if let Some(path) = typed.token_file {
        scope.line = Some(document.line_of(path.span().start));
        let token = match scope.files {
            Files::Here => check_token(Path::new(path.get_ref())).map(Some),
            Files::Elsewhere => Ok(None),
        };
        match token {
            Ok(token) => {
                scope.secrets.extend(token);
                server.rights.token = Some(TokenSource::File(TokenFile::new(path.into_inner())));
            }
            Err(what) => scope.problem(
                "token-file",
                format!("{}: {what}", path.get_ref()),
                "mount a secret with one line of text there, readable for the container's user".to_owned(),
            ),
        }
    }
    if let Some(variable) = typed.token_env {
        scope.line = Some(document.line_of(variable.span().start));
        let name = variable.get_ref();
        match environment(name).map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()) {
            Some(token) => {
                scope.secrets.push(token.clone());
                server.rights.token.get_or_insert(TokenSource::Value(token));
            }
            None => scope.problem(
                "token-env",
                format!("the environment variable `{name}` is not set, or empty"),
                "set it in the container's env from a secret (valueFrom: secretKeyRef)".to_owned(),
            ),
        }
        server.token_env = Some(variable.into_inner());
    }
    let has_networks = typed.allow_from.is_some();
    if let Some(networks) = typed.allow_from {
        scope.line = Some(document.line_of(networks.span().start));
        server.rights.allow_from = Some(mean_sources("allow-from", networks.get_ref(), scope));
        if networks.get_ref().is_empty() {
            scope.problem(
                "allow-from",
                "an empty list admits nobody",
                "name addresses or networks, or take it out".to_owned(),
            );
        }
    }
    server.rights.allow_unauthenticated = typed.allow_unauthenticated;
    let is_loopback = server.listen.is_none_or(|listen| listen.ip().is_loopback());
    server.nobody_may_trigger =
        listen_is_good && !has_token && !has_networks && !server.rights.allow_unauthenticated && !is_loopback;
    scope.line = None;
    scope.place = String::new();
    server
}

/// Reads addresses, networks and the word `gateway`.
fn mean_sources(key: &str, texts: &[String], scope: &mut Scope<'_>) -> Vec<Source> {
    let mut sources = Vec::new();
    for text in texts {
        match text.trim().parse() {
            Ok(source) => sources.push(source),
            Err(what) => scope.problem(
                key,
                what,
                "write \"10.0.0.7\", \"10.0.0.0/8\", \"fd00::/8\", \"gateway\" or \"${HOST_IP}\"".to_owned(),
            ),
        }
    }
    sources
}

/// Reads a token file for its problems; the door reads it again when it is used.
fn check_token(path: &Path) -> Result<String, String> {
    let bytes = admission::read_token(path).map_err(|error| error.to_string())?;
    let token = String::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
    if token.chars().any(char::is_control) {
        return Err("it has more than one line, or control characters".into());
    }
    Ok(token)
}

fn parse_listen(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "off" {
        return Ok(None);
    }
    let full = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    let listen: SocketAddr = full.parse().map_err(|_| format!("`{text}` is not an address with a port"))?;
    Ok(Some(listen))
}

fn mean_log(typed: typed::Log, document: &Document<'_>, scope: &mut Scope<'_>) -> LogConfig {
    scope.place = "log".into();
    let mut log = LogConfig::default();
    if let Some(level) = typed.level {
        match level.get_ref().as_str() {
            "error" => log.level = tracing::Level::ERROR,
            "warn" => log.level = tracing::Level::WARN,
            "info" => log.level = tracing::Level::INFO,
            "debug" => log.level = tracing::Level::DEBUG,
            other => {
                scope.line = Some(document.line_of(level.span().start));
                scope.problem(
                    "level",
                    format!("`{other}` is not a level"),
                    "write \"error\", \"warn\", \"info\" or \"debug\"".to_owned(),
                );
            }
        }
    }
    if let Some(format) = typed.format {
        match format.get_ref().as_str() {
            "text" => log.format = LogFormat::Text,
            "json" => log.format = LogFormat::Json,
            other => {
                scope.line = Some(document.line_of(format.span().start));
                scope.problem("format", format!("`{other}` is not a format"), "write \"text\" or \"json\"".to_owned());
            }
        }
    }
    if let Some(path) = typed.termination_message {
        log.termination_message = path.into();
    }
    scope.line = None;
    scope.place = String::new();
    log
}

fn mean_gate(gate: Option<&Spanned<String>>, document: &Document<'_>, scope: &mut Scope<'_>) -> Option<Gate> {
    let gate = gate?;
    match gate.get_ref().as_str() {
        "readiness" => Some(Gate::Readiness),
        "hook" => Some(Gate::Hook),
        other => {
            scope.line = Some(document.line_of(gate.span().start));
            scope.problem(
                "post-start: gate",
                format!("`{other}` is not a gate"),
                "write \"readiness\" or \"hook\"".to_owned(),
            );
            scope.line = None;
            None
        }
    }
}
