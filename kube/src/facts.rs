//! What a configuration asks of a pod; pure. `rules` holds a pod against it, `manifest` writes a pod from it. Reading it away
//! from its container is here too: what is known of the container's variables is taken, files are not looked at.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use boathook::{
    config::{self, Config, Gate, Listener},
    hook::Hook,
    plan::{self, Grace},
    problem::Problem,
    server::admission::{Source, TokenSource},
    state::place::Place,
    step::{Action, Step},
};

/// How boathook is used in a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `boathook run` is the entrypoint.
    Run,
    /// Hooks by exec; nothing stays.
    Exec,
    /// `boathook serve` beside the main process.
    Serve,
    /// Single steps by hand in a hook, without a configuration.
    Step,
}

impl Way {
    /// Whether an agent stays and listens, so that the configuration has to say who may trigger.
    pub fn listener(self) -> Listener {
        match self {
            Self::Run | Self::Serve => Listener::Needed,
            Self::Exec | Self::Step => Listener::None,
        }
    }

    /// What post-start gates when the configuration does not say.
    pub fn usual_gate(self) -> Gate {
        match self {
            Self::Run => Gate::Readiness,
            Self::Exec | Self::Serve | Self::Step => Gate::Hook,
        }
    }
}

/// Where the token for the hooks comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    Env(String),
    File(PathBuf),
    /// It stands in the configuration, or in a variable that the configuration names.
    Written,
}

/// A variable that the configuration takes a value from, in `${NAME}` or as token-env.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    pub name: String,
    /// Without it the configuration is refused.
    pub needed: bool,
}

/// A folder that a step needs to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    pub path: PathBuf,
    /// The step's place, `pre-stop: step "sessions"`.
    pub step: String,
    /// It has to outlive the container (where `save` puts its snapshots, and `restore` looks for them).
    pub must_last: bool,
    /// It has to be writable.
    pub is_written: bool,
}

/// What a pod has to give.
#[derive(Debug)]
pub struct Facts {
    /// `terminationGracePeriodSeconds`: the configured grace period, in whole seconds, rounded up.
    pub grace_seconds: u64,
    /// Whether somebody wrote `grace-period`.
    pub grace_is_configured: bool,
    /// How the configuration shares its grace period out.
    pub grace: Grace,
    /// The least `terminationGracePeriodSeconds` with which the worst case still fits: pre-stop, the main process's own time,
    /// post-stop and the kubelet's rounding.
    pub needed_grace_seconds: u64,
    /// The worst case of pre-stop alone.
    pub pre_stop: Duration,
    /// The worst case of pre-start, which only `run` has.
    pub pre_start: Duration,
    /// The worst case of post-start.
    pub post_start: Duration,
    /// The worst case until the container may be ready: pre-start and post-start.
    pub start: Duration,
    /// The worst case of post-start until its first `wait` has seen what it waits for; zero without one.
    pub answers: Duration,
    /// The hooks that have steps.
    pub hooks: Vec<Hook>,
    /// `None`: the configuration does not say, and it is the [`Way::usual_gate`].
    pub gate: Option<Gate>,
    /// `None`: it does not listen (`listen = "off"`).
    pub listen: Option<SocketAddr>,
    /// `None`: none is asked for.
    pub token: Option<Token>,
    /// `allow-from` is written: callers are known by their address.
    pub allow_from: bool,
    /// What is in it.
    pub callers: Vec<Source>,
    pub variables: Vec<Variable>,
    /// Variables that a step needs when it runs: an S3 store's keys.
    pub step_variables: Vec<String>,
    /// `[app] ports`; empty: whatever listens.
    pub app_ports: Vec<u16>,
    /// Where the preset's server usually listens.
    pub usual_ports: Vec<u16>,
    /// The ports that steps of pre-stop watch.
    pub drain_ports: Vec<u16>,
    /// A step of pre-stop watches connections.
    pub drains: bool,
    /// And leaves out those from the node, such as the kubelet's probes.
    pub drain_ignores_node: bool,
    /// `[readiness]` is written: `/ready` asks the application.
    pub asks_application: bool,
    /// With it: the longest that one check takes, and how long an answer serves.
    pub readiness: Option<(Duration, Duration)>,
    /// `[app] preset`.
    pub preset: Option<String>,
    /// A step sends its signal to the main process.
    pub signals_main: bool,
    pub folders: Vec<Folder>,
    /// The places of steps that run as another user, which takes root.
    pub as_others: Vec<String>,
    pub termination_message: PathBuf,
    /// The signals that start pre-stop in `run`, as numbers.
    pub stop_on: Vec<i32>,
}

/// Where an address may stand: one of the addresses for documentation (RFC 5737), which is nobody's.
pub const PLACEHOLDER_ADDRESS: &str = "192.0.2.1";
const PLACEHOLDER_PORT: &str = "8080";
pub const PLACEHOLDER_WORD: &str = "placeholder";

/// What an S3 store is asked with.
const STORE_VARIABLES: [&str; 2] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];

/// Reads a configuration away from its container. A variable that nobody knows the value of gets its default, or something
/// that has the form which its name suggests.
///
/// # Errors
/// Every problem in it.
pub fn read(
    file: &str,
    text: &str,
    known: &dyn Fn(&str) -> Option<String>,
    listener: Listener,
) -> Result<Facts, Vec<Problem>> {
    let mut variables: Vec<Variable> =
        config::variables(text).into_iter().map(|(name, needed)| Variable { name, needed }).collect();
    let needed = |name: &str| variables.iter().all(|variable| variable.name != name || variable.needed);
    let guessed = |name: &str| needed(name).then(|| placeholder(name).to_owned());
    // One that is empty is told by a rule, and the rest of the configuration is looked at all the same.
    let value = |name: &str| known(name).filter(|value| !value.trim().is_empty()).or_else(|| guessed(name));
    let config = config::parse_elsewhere(file, text, &value, listener).map_err(|mut problems| {
        for problem in &mut problems {
            explain(problem, &variables, known);
        }
        problems
    })?;
    if let Some(name) = &config.server.token_env
        && variables.iter().all(|variable| variable.name != *name)
    {
        variables.push(Variable { name: name.clone(), needed: true });
    }
    Ok(Facts::of(&config, variables))
}

/// Something of the form that a variable's name suggests.
pub fn placeholder(name: &str) -> &'static str {
    let name = name.to_ascii_uppercase();
    let has = |word: &str| name.split('_').any(|part| part == word);
    if has("IP") || has("ADDR") || has("ADDRESS") {
        PLACEHOLDER_ADDRESS
    } else if name.contains("PORT") {
        PLACEHOLDER_PORT
    } else {
        PLACEHOLDER_WORD
    }
}

/// Says of a problem with a placeholder that the value is what is missing.
fn explain(problem: &mut Problem, variables: &[Variable], known: &dyn Fn(&str) -> Option<String>) {
    let names = |variable: &&Variable| {
        variable.needed && known(&variable.name).is_none() && problem.what.contains(&format!("${{{}}}", variable.name))
    };
    if let Some(Variable { name, .. }) = variables.iter().find(names) {
        problem.help = Some(format!(
            "the value of `{name}` is not known here: write it into the container's env as plain text, or a default \
             `${{{name}:-…}}` into the configuration"
        ));
    }
}

impl Facts {
    /// What boathook does without a configuration file.
    pub fn of_defaults() -> Self {
        Self::of(&Config::without_file(), Vec::new())
    }

    /// What this configuration asks for; `variables` are those that its text names.
    pub fn of(config: &Config, variables: Vec<Variable>) -> Self {
        let worst = |hook| config.hook(hook).plan().worst_case().last().map_or(Duration::ZERO, |(_, end)| *end);
        let (pre_start, post_start) = (worst(Hook::PreStart), worst(Hook::PostStart));
        let pre_stop = worst(Hook::PreStop);
        let grace = config.grace;
        let mut found = Found::default();
        for hook in Hook::ALL {
            found.look(&config.hook(hook).steps, hook.name());
        }
        let mut drain_ports = found.drain_ports;
        drain_ports.sort_unstable();
        drain_ports.dedup();
        let rights = &config.server.rights;
        let token = match (&config.server.token_env, &rights.token) {
            (_, None) => None,
            (Some(name), _) => Some(Token::Env(name.clone())),
            (None, Some(TokenSource::File(file))) => Some(Token::File(file.path().into())),
            (None, Some(TokenSource::Value(_))) => Some(Token::Written),
        };
        Self {
            grace_seconds: whole_seconds(grace.period),
            grace_is_configured: config.grace_is_configured,
            grace,
            needed_grace_seconds: whole_seconds(pre_stop + grace.stop_reserve + grace.post_stop + grace.margin),
            pre_stop,
            pre_start,
            post_start,
            start: pre_start + post_start,
            answers: first_wait(config),
            hooks: Hook::ALL.into_iter().filter(|hook| !config.hook(*hook).steps.is_empty()).collect(),
            gate: config.gate,
            listen: config.server.listen,
            token,
            allow_from: rights.allow_from.is_some(),
            callers: rights.allow_from.clone().unwrap_or_default(),
            variables,
            step_variables: found.variables,
            app_ports: config.app.ports.clone(),
            usual_ports: config.app.usual_ports.clone(),
            drain_ports,
            drains: config.hook(Hook::PreStop).drains(),
            drain_ignores_node: found.ignores_node,
            asks_application: config.readiness.is_some(),
            readiness: config.readiness.as_ref().map(|check| (check.timeout(), check.cache())),
            // Of `nginx: ports, stop-signal`, what stands before the colon.
            preset: config.app.preset.as_deref().and_then(|preset| preset.split(':').next()).map(String::from),
            signals_main: found.signals_main,
            folders: found.folders,
            as_others: found.as_others,
            termination_message: config.log.termination_message.clone(),
            stop_on: config.app.stop_on.clone(),
        }
    }

    /// Takes in a step that runs by hand in pre-stop, after those before it. Nothing knows of the grace period then, so the
    /// main process gets what it always gets, and there is no rounding: the kubelet's is in the pod's favour.
    pub fn add_step(&mut self, step: Step) {
        let timeout = step.timeout.unwrap_or(plan::GRACE_PERIOD);
        self.pre_stop += match &step.action {
            Action::Sleep(sleep) => sleep.length().min(timeout),
            _ => timeout,
        };
        self.needed_grace_seconds = whole_seconds(self.pre_stop + plan::STOP_RESERVE);
        let mut found = Found::default();
        found.look(&[step], "by hand");
        self.drains |= found.drains;
        self.signals_main |= found.signals_main;
        self.drain_ports.append(&mut found.drain_ports);
        self.folders.append(&mut found.folders);
        self.step_variables.append(&mut found.variables);
    }

    /// Whether a hook has steps.
    pub fn has(&self, hook: Hook) -> bool {
        self.hooks.contains(&hook)
    }

    /// What post-start gates when boathook is used in this way.
    pub fn gate_in(&self, way: Way) -> Gate {
        match way {
            // Without an agent that stays, the command itself runs the hook to its end, whatever the gate.
            Way::Exec | Way::Step => Gate::Hook,
            Way::Run | Way::Serve => self.gate.unwrap_or(way.usual_gate()),
        }
    }
}

/// When the first `wait` of post-start is over at the latest.
fn first_wait(config: &Config) -> Duration {
    let hook = config.hook(Hook::PostStart);
    let times = hook.plan().worst_case();
    let wait = hook.steps.iter().zip(times).find(|(step, _)| matches!(step.action, Action::Wait(_)));
    wait.map_or(Duration::ZERO, |(_, (_, end))| end)
}

/// Rounded up: a pod's specification knows no parts of a second.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// What steps need.
#[derive(Default)]
struct Found {
    folders: Vec<Folder>,
    variables: Vec<String>,
    drain_ports: Vec<u16>,
    drains: bool,
    ignores_node: bool,
    signals_main: bool,
    as_others: Vec<String>,
}

impl Found {
    fn look(&mut self, steps: &[Step], place: &str) {
        for step in steps {
            self.drains |= step.drains();
            let place = format!("{place}: step \"{}\"", step.name);
            let mut folder = |path: PathBuf, must_last, is_written| {
                self.folders.push(Folder { path, step: place.clone(), must_last, is_written });
            };
            match &step.action {
                Action::Group(steps) => self.look(steps, &place),
                Action::Save(save) => match &save.job.place {
                    Place::Folder(path) => folder(path.clone(), true, true),
                    Place::Remote(remote) => {
                        if let Some(spool) = remote.spool() {
                            folder(spool.into(), false, true);
                        }
                        self.note_store(&save.job.place);
                    }
                },
                Action::Restore(restore) => {
                    if let Place::Folder(path) = &restore.0.place {
                        folder(path.clone(), true, false);
                    }
                    folder(restore.0.target.to.clone(), false, true);
                    self.note_store(&restore.0.place);
                }
                Action::File(file) => {
                    if let Some(parent) = file.path().parent() {
                        folder(parent.into(), false, true);
                    }
                }
                Action::Drain(drain) => {
                    self.drain_ports.extend(drain.ports());
                    if let Some(ignored) = drain.ignored() {
                        let node = PLACEHOLDER_ADDRESS.parse().is_ok_and(|address| ignored.contains(address));
                        self.ignores_node |= ignored.has_gateway() || node;
                    }
                }
                Action::Exec(exec) if exec.becomes_another_user() => self.as_others.push(place.clone()),
                Action::Signal(signal) => self.signals_main |= signal.is_for_main_process(),
                _ => {}
            }
        }
    }

    fn note_store(&mut self, place: &Place) {
        if place.show().starts_with("s3://") {
            for name in STORE_VARIABLES {
                if self.variables.iter().all(|known| known != name) {
                    self.variables.push(name.into());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(text: &str) -> Facts {
        read("t.toml", text, &|_| None, Listener::None).expect(text)
    }

    #[test]
    fn the_grace_period_that_is_needed_holds_everything_that_needs_time() {
        for (text, configured, needed) in [
            ("", 30, 6),
            // A step without a timeout may take all that is left.
            ("[[pre-stop.step]]\ndrain = {}", 30, 30),
            ("[[pre-stop.step]]\nsleep = '10s'\ntimeout = '12s'", 30, 18),
            ("[[pre-stop.step]]\nsleep = '10s'\ntimeout = '12500ms'", 30, 19),
            ("grace-period = '60s'\nstop-reserve = '20s'\n[[pre-stop.step]]\nsleep = '10s'\ntimeout = '12s'", 60, 33),
            ("[[pre-stop.step]]\nsleep = '9s'\ntimeout = '12s'\n[[post-stop.step]]\nsleep = '1s'", 30, 23),
            ("grace-period = '1500ms'", 2, 1),
        ] {
            let facts = facts(text);
            assert_eq!((facts.grace_seconds, facts.needed_grace_seconds), (configured, needed), "{text}");
            assert_eq!(facts.grace_is_configured, text.contains("grace-period"), "{text}");
        }
    }

    #[test]
    fn the_start_is_both_hooks() {
        let facts = facts("[[pre-start.step]]\nsleep = '1s'\ntimeout = '7s'\n[[post-start.step]]\nsleep = '1s'");
        assert_eq!((facts.pre_start, facts.start), (Duration::from_secs(7), Duration::from_secs(67)));
        assert_eq!(facts.hooks, [Hook::PreStart, Hook::PostStart]);
        assert_eq!((facts.gate_in(Way::Run), facts.gate_in(Way::Exec)), (Gate::Readiness, Gate::Hook));
    }

    #[test]
    fn knows_what_steps_need() {
        let text = "[app]\nports = [8080]\n\
            [[pre-start.step]]\nname = 'a'\nrestore = { from = '/state', to = '/data' }\n\
            [[pre-stop.step]]\n[[pre-stop.step.group]]\nname = 'a'\nsave = { from = '/data/x', to = '/state' }\n\
            [[pre-stop.step.group]]\ndrain = {}\n[[pre-stop.step.group]]\nname = 'other'\ndrain = { ports = [9090] }\n\
            [[pre-stop.step]]\nname = 'b'\nsave = { from = '/data/x', to = 's3://bucket/b', spool = '/spool' }\n\
            [[pre-stop.step]]\nsignal = 'QUIT'\n[[pre-stop.step]]\nfile = { touch = '/run/app/x' }";
        let facts = facts(text);
        let folders: Vec<(&str, &str, bool, bool)> = facts
            .folders
            .iter()
            .map(|folder| {
                let path = folder.path.to_str().expect("text");
                (path, folder.step.as_str(), folder.must_last, folder.is_written)
            })
            .collect();
        assert_eq!(
            folders,
            [
                ("/state", "pre-start: step \"a\"", true, false),
                ("/data", "pre-start: step \"a\"", false, true),
                ("/state", "pre-stop: step \"group\": step \"a\"", true, true),
                ("/spool", "pre-stop: step \"b\"", false, true),
                ("/run/app", "pre-stop: step \"file\"", false, true),
            ]
        );
        assert_eq!(facts.step_variables, STORE_VARIABLES);
        assert_eq!((facts.app_ports, facts.drain_ports), (vec![8080], vec![8080, 9090]));
        assert!(facts.drains && facts.signals_main);
    }

    #[test]
    fn reads_a_configuration_whose_container_is_elsewhere() {
        let text = "# ${COMMENT}\n[server]\nlisten = '0.0.0.0:${HOOK_PORT}'\ntoken-file = '/nowhere/token'\n\
            allow-from = ['${HOST_IP}', '${MORE:-10.0.0.0/8}']\n[[pre-stop.step]]\n\
            exec = ['sh', '-c', 'echo $${HOME} ${WORD} ${KNOWN}']\n[[pre-stop.step]]\n[pre-stop.step.http]\n\
            url = 'https://x.example/'\nca-file = '/nowhere/ca'\nbearer-file = '/nowhere/bearer'";
        let known = |name: &str| (name == "KNOWN").then(|| "known".to_owned());
        let facts = read("t.toml", text, &known, Listener::Needed).expect("good");
        assert_eq!(facts.token, Some(Token::File("/nowhere/token".into())));
        assert_eq!(facts.listen, Some(([0, 0, 0, 0], 8080).into()));
        let mut variables: Vec<(&str, bool)> =
            facts.variables.iter().map(|variable| (variable.name.as_str(), variable.needed)).collect();
        variables.sort_unstable();
        assert_eq!(
            variables,
            [("HOOK_PORT", true), ("HOST_IP", true), ("KNOWN", true), ("MORE", false), ("WORD", true)]
        );
        // The same in the container: the files have to be there.
        let here = config::parse("t.toml", text, &|_| Some("1.2.3.4".into()), Listener::Needed).expect_err("no files");
        let wrong = |word: &str| here.iter().any(|problem| problem.place.contains(word));
        assert!(wrong("token-file") && wrong("ca-file") && wrong("bearer-file"), "{here:?}");
    }

    #[test]
    fn the_token_is_known_by_where_it_comes_from() {
        for (text, token) in [
            ("token-env = 'A_TOKEN'", Some(Token::Env("A_TOKEN".into()))),
            ("token = 'abc'", Some(Token::Written)),
            ("token = '${SECRET}'", Some(Token::Written)),
            ("allow-from = ['gateway']", None),
        ] {
            let facts = facts(&format!("[server]\n{text}"));
            assert_eq!(facts.token, token, "{text}");
            let named = facts.variables.iter().map(|variable| variable.name.as_str()).collect::<Vec<_>>();
            assert_eq!(named.is_empty(), !text.contains("env") && !text.contains('$'), "{named:?}");
        }
    }

    #[test]
    fn a_value_that_nobody_can_guess_is_asked_for() {
        let problems = read("t.toml", "grace-period = '${GRACE}'", &|_| None, Listener::None).expect_err("no time");
        assert_eq!(problems.len(), 1);
        assert_eq!(
            problems[0].to_string().lines().last(),
            Some(
                "  help: the value of `GRACE` is not known here: write it into the container's env as plain text, or a \
                 default `${GRACE:-…}` into the configuration"
            )
        );
        assert!(read("t.toml", "grace-period = '${GRACE:-30s}'", &|_| None, Listener::None).is_ok());
    }
}
