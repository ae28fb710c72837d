//! Which documents have pods, which container has boathook, in which way, and with which configuration.

use std::{collections::BTreeSet, path::Path as File};

use boathook::{
    cli::Command,
    config::Listener,
    exit,
    fatal::Fatal,
    problem::{Files, Scope},
    step,
};
use k8s_openapi::{
    api::core::v1::{Container, HTTPGetAction, LifecycleHandler, PodSpec, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};
use serde_json::Value;

use crate::{
    document::Document,
    facts::{self, Facts, Way},
    path::Path,
};

pub mod configuration;
pub mod environment;
pub mod typed;
pub mod words;

use configuration::{Mounted, NamedBy, Place, Text, View};
use environment::Environment;
use typed::{Misspelt, Wrong};
use words::Call;

/// boathook's own port: 4665 spells HOOK.
pub const PORT: u16 = 4665;
/// Where its configuration and token are usually mounted.
const USUAL_FOLDER: &str = "/etc/boathook";
/// Pods stand at most so deep: `spec.jobTemplate.spec.template.spec` of an item of a list.
const DEEPEST: usize = 12;

/// So many names are a help; more are a list.
const MOST_NAMED: usize = 20;

/// One container with boathook in it, and all that it is judged by.
pub struct Pod<'d> {
    pub document: &'d Document,
    /// Index of the document among all that were read.
    pub index: usize,
    /// `spec.template.spec`
    pub spec_path: Path,
    pub spec: PodSpec,
    /// The same as it is written.
    pub written: &'d Value,
    /// `spec.template.spec.containers[0]`; for a sidecar `initContainers[…]`.
    pub container_path: Path,
    pub container: Container,
    pub role: Role,
    pub way: Way,
    pub calls: Calls,
    pub facts: Facts,
    pub configuration: Configuration,
    /// Where boathook looks for its configuration, and what is there.
    pub place: Place,
    pub mounted: Mounted,
    pub environment: Environment,
    /// The pod's containers with boathook that stand before it.
    pub neighbours: Vec<Neighbour>,
    /// It is the first of its pod: what is wrong with the pod as a whole is told for it.
    pub is_first: bool,
    pub wrong: Vec<Wrong>,
    pub misspelt: Vec<Misspelt>,
    /// Nothing in it shows boathook: a configuration was given, so it must be meant.
    pub is_assumed: bool,
    /// Without an image it is a snippet or a patch: what is not written here may be written elsewhere.
    pub is_partial: bool,
    /// An init container brings the binary: then the image has none, and no ENTRYPOINT that starts it.
    pub is_foreign: bool,
}

/// Which of a pod's containers it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Container,
    /// An init container that goes on running: `restartPolicy: Always`.
    Sidecar,
}

/// Another container of the pod that has boathook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    pub name: String,
    /// The port that it listens on.
    pub port: Option<u16>,
    /// The name of its control socket, where somebody has named it.
    pub socket: Option<String>,
}

/// Where boathook is started, by the field that starts it.
#[derive(Debug, Default)]
pub struct Calls {
    /// `command` and `args`.
    pub entrypoint: Vec<Call>,
    pub post_start: Vec<Call>,
    pub pre_stop: Vec<Call>,
    pub startup: Vec<Call>,
    pub readiness: Vec<Call>,
    pub liveness: Vec<Call>,
}

/// Which configuration the container is judged by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Configuration {
    /// The one that `--config` names.
    Given,
    /// One among the documents: `ConfigMap boathook: boathook.toml`.
    Found(String),
    /// None anywhere: what boathook does without one.
    Defaults,
    /// There is one, and it is not among what was read: `ConfigMap boathook`.
    Unread(String),
}

impl Pod<'_> {
    /// A key of the container.
    pub fn at(&self, keys: &str) -> Path {
        self.container_path.down(keys)
    }

    /// A key of the pod's specification.
    pub fn spec_at(&self, keys: &str) -> Path {
        self.spec_path.down(keys)
    }

    pub fn post_start(&self) -> Option<&LifecycleHandler> {
        self.container.lifecycle.as_ref()?.post_start.as_ref()
    }

    pub fn pre_stop(&self) -> Option<&LifecycleHandler> {
        self.container.lifecycle.as_ref()?.pre_stop.as_ref()
    }

    /// The probes with their keys.
    pub fn probes(&self) -> impl Iterator<Item = (&'static str, &Probe)> {
        [
            ("startupProbe", &self.container.startup_probe),
            ("readinessProbe", &self.container.readiness_probe),
            ("livenessProbe", &self.container.liveness_probe),
        ]
        .into_iter()
        .filter_map(|(key, probe)| Some((key, probe.as_ref()?)))
    }

    /// Whether the configuration that decides is known: rules that only depend on it are silent otherwise.
    pub fn knows_configuration(&self) -> bool {
        !matches!(self.configuration, Configuration::Unread(_))
    }

    /// The port that a probe or hook names, as the kubelet finds it: by number, by a name among this container's own ports.
    pub fn port(&self, port: &IntOrString) -> Port {
        port_of(port, &self.container)
    }

    /// Where boathook listens: its port; `None`: nowhere.
    pub fn listen_port(&self) -> Option<u16> {
        self.facts.listen.map(|listen| listen.port())
    }

    /// The name of the container's own port with this number.
    pub fn name_of_port(&self, number: u16) -> Option<&str> {
        let ports = self.container.ports.iter().flatten();
        ports.filter(|port| port.container_port == i32::from(number)).find_map(|port| port.name.as_deref())
    }

    /// `terminationGracePeriodSeconds`, which is 30 without one.
    pub fn grace_seconds(&self) -> u64 {
        self.spec.termination_grace_period_seconds.map_or(30, |seconds| seconds.try_into().unwrap_or(0))
    }

    pub fn uses_host_network(&self) -> bool {
        self.spec.host_network == Some(true)
    }

    /// The object's own fields beside the pod's: `spec.replicas` and the like. Of a CronJob they are the Job's.
    pub fn workload(&self) -> &Value {
        match self.document.kind() {
            "CronJob" => &self.document.value["spec"]["jobTemplate"]["spec"],
            _ => &self.document.value["spec"],
        }
    }

    /// Where that stands.
    pub fn workload_path(&self) -> Path {
        match self.document.kind() {
            "CronJob" => Path::default().down("spec.jobTemplate.spec"),
            _ => Path::default().at("spec"),
        }
    }

    /// How many pods there are of it; `None` where somebody else decides.
    pub fn replicas(&self) -> Option<u64> {
        match self.document.kind() {
            "Deployment" | "StatefulSet" | "ReplicaSet" => Some(self.workload()["replicas"].as_u64().unwrap_or(1)),
            _ => None,
        }
    }

    /// Something of the container starts boathook as an agent that stays and listens.
    pub fn agent(&self) -> Agent {
        if self.is_started_by("run") || self.is_started_by("serve") {
            return Agent::Shown;
        }
        let has_command = self.container.command.as_ref().is_some_and(|words| !words.is_empty());
        if has_command || self.is_foreign { Agent::None } else { Agent::Possible }
    }

    /// Whether the command line, or post-start, has this subcommand.
    pub fn is_started_by(&self, subcommand: &str) -> bool {
        let calls = self.calls.entrypoint.iter().chain(&self.calls.post_start);
        calls.into_iter().any(|call| call.subcommand() == subcommand)
    }
}

/// Whether an agent stays in the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agent {
    /// `run` or `serve` is there to be seen.
    Shown,
    /// The image's own ENTRYPOINT may start one.
    Possible,
    /// The container's `command` replaces the ENTRYPOINT and starts none.
    None,
}

/// A port as the kubelet finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Port {
    Number(i64),
    /// No port of this container has the name.
    Unknown(String),
}

fn port_of(port: &IntOrString, container: &Container) -> Port {
    let name = match port {
        IntOrString::Int(number) => return Port::Number(i64::from(*number)),
        IntOrString::String(name) => name,
    };
    let named = container.ports.iter().flatten().find(|port| port.name.as_deref() == Some(name));
    match (named, name.parse()) {
        (Some(port), _) => Port::Number(i64::from(port.container_port)),
        (None, Ok(number)) => Port::Number(number),
        (None, Err(_)) => Port::Unknown(name.clone()),
    }
}

/// All containers with boathook. The configuration is the one that is named; else the ConfigMap's among the documents
/// that the container mounts; else the defaults.
///
/// # Errors
/// The configuration cannot be read or is not good; no container has the name that is asked for.
pub fn find<'d>(
    documents: &'d [Document],
    config: Option<&File>,
    container: Option<&str>,
) -> Result<Vec<Pod<'d>>, Fatal> {
    let given = config.map(read_given).transpose()?;
    let mut candidates = Vec::new();
    let mut names = BTreeSet::new();
    for (index, document) in documents.iter().enumerate() {
        let mut specs = Vec::new();
        collect_specs(&document.value, &Path::default(), &mut specs);
        for (written, path) in specs {
            candidates.extend(candidates_of(document, index, written, &path, container));
            names.extend(written["containers"].as_array().into_iter().flatten().filter_map(|one| one["name"].as_str()));
        }
    }
    if let Some(name) = container
        && candidates.is_empty()
    {
        let known: Vec<&str> = names.into_iter().take(MOST_NAMED).collect();
        let known = if known.is_empty() { "none".into() } else { known.join(", ") };
        return Err(Fatal::new(
            exit::USAGE,
            format!("--container {name}: no container is called so\n  help: there are: {known}"),
        ));
    }
    let listens_on = given.as_ref().and_then(|given| port_of_text(&given.text));
    let shown: Vec<Shown> =
        candidates.iter().map(|candidate| shows_boathook(candidate, documents, listens_on)).collect();
    let same_pod =
        |one: &Candidate<'_>, other: &Candidate<'_>| (one.index, &one.spec_path) == (other.index, &other.spec_path);
    let in_pod = |one: &Candidate<'_>| {
        let strong = candidates.iter().zip(&shown).filter(|(_, shown)| **shown == Shown::Clearly);
        strong.into_iter().any(|(other, _)| same_pod(one, other))
    };
    let choice: Vec<Option<bool>> = candidates
        .iter()
        .zip(&shown)
        .map(|(candidate, shown)| match shown {
            Shown::Clearly => Some(false),
            // Another container of the pod is meant more clearly: this one only sees its files.
            Shown::Faintly if !in_pod(candidate) => Some(false),
            _ if container.is_some() => Some(true),
            _ => None,
        })
        .collect();
    // Whoever names a configuration means some container: the first of each pod.
    let assumes = given.is_some() && choice.iter().all(Option::is_none);
    let chosen = candidates.into_iter().zip(choice).filter_map(|(candidate, choice)| {
        let is_first = candidate.number == 0 && candidate.role == Role::Container;
        let is_assumed = choice.or((assumes && is_first).then_some(true))?;
        Some((candidate, is_assumed))
    });
    let chosen: Vec<(Candidate<'_>, bool)> = chosen.collect();
    let places: Vec<(usize, Path)> =
        chosen.iter().map(|(candidate, _)| (candidate.index, candidate.spec_path.clone())).collect();
    let mut pods: Vec<Pod<'d>> = Vec::new();
    for (candidate, is_assumed) in chosen {
        let same = |place: &&(usize, Path)| (place.0, &place.1) == (candidate.index, &candidate.spec_path);
        let has_siblings = places.iter().filter(same).count() > 1;
        pods.push(judged_by(candidate, documents, given.as_ref(), is_assumed, has_siblings)?);
    }
    let all: Vec<(usize, Path, Path, Neighbour)> = pods
        .iter()
        .map(|pod| {
            let listens = matches!(pod.way, Way::Run | Way::Serve) && pod.knows_configuration();
            let neighbour = Neighbour {
                name: pod.container.name.clone(),
                port: pod.listen_port().filter(|_| listens),
                socket: pod.environment.value("BOATHOOK_SOCKET").map(String::from),
            };
            (pod.index, pod.spec_path.clone(), pod.container_path.clone(), neighbour)
        })
        .collect();
    for pod in &mut pods {
        let same = all.iter().filter(|(index, spec, ..)| (*index, spec) == (pod.index, &pod.spec_path));
        let before = same.take_while(|(_, _, container, _)| *container != pod.container_path);
        pod.neighbours = before.map(|(.., neighbour)| neighbour.clone()).collect();
        pod.is_first = pod.neighbours.is_empty();
    }
    Ok(pods)
}

fn read_given(path: &File) -> Result<Text, Fatal> {
    let from = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Text { from, text }),
        Err(error) => Err(Fatal::new(
            exit::CONFIG,
            format!("{from}: cannot be read: {error}\n  help: --config names this file; name another"),
        )),
    }
}

/// Where a configuration listens, if it can be read at all.
fn port_of_text(text: &str) -> Option<u16> {
    facts::read("", text, &|_| None, Listener::None).ok()?.listen.map(|listen| listen.port())
}

/// All pods' specifications in a document, with their paths: mappings with a list of containers.
fn collect_specs<'d>(value: &'d Value, path: &Path, found: &mut Vec<(&'d Value, Path)>) {
    if path.0.len() > DEEPEST {
        return;
    }
    let Some(mapping) = value.as_object() else { return };
    let is_container = |value: &Value| value.is_object();
    let is_list =
        |key: &str| value[key].as_array().is_some_and(|list| !list.is_empty() && list.iter().all(is_container));
    if is_list("containers") || is_list("initContainers") && mapping.contains_key("containers") {
        found.push((value, path.clone()));
        return;
    }
    for (key, inner) in mapping {
        // What the cluster says of it, and whatever annotations hold, is no specification.
        if matches!(key.as_str(), "status" | "metadata" | "data" | "stringData") {
            continue;
        }
        let path = path.at(key.as_str());
        match inner {
            Value::Object(_) => collect_specs(inner, &path, found),
            Value::Array(list) => {
                for (index, item) in list.iter().enumerate() {
                    collect_specs(item, &path.at(index), found);
                }
            }
            _ => {}
        }
    }
}

/// A container that may have boathook.
struct Candidate<'d> {
    document: &'d Document,
    index: usize,
    spec_path: Path,
    spec: PodSpec,
    written: &'d Value,
    container_path: Path,
    container: Container,
    /// Counted from 0 in its list.
    number: usize,
    role: Role,
    wrong: Vec<Wrong>,
    misspelt: Vec<Misspelt>,
}

fn candidates_of<'d>(
    document: &'d Document,
    index: usize,
    written: &'d Value,
    path: &Path,
    only: Option<&str>,
) -> Vec<Candidate<'d>> {
    let (spec, wrong) = typed::read(written, path);
    let lists = [("initContainers", spec.init_containers.as_ref()), ("containers", Some(&spec.containers))];
    let mut candidates = Vec::new();
    for (key, list) in lists {
        for (number, container) in list.into_iter().flatten().enumerate() {
            let role = match (key, container.restart_policy.as_deref()) {
                ("containers", _) => Role::Container,
                (_, Some("Always")) => Role::Sidecar,
                _ => continue,
            };
            if only.is_some_and(|only| only != container.name) {
                continue;
            }
            let container_path = path.at(key).at(number);
            candidates.push(Candidate {
                document,
                index,
                spec_path: path.clone(),
                spec: spec.clone(),
                written,
                misspelt: typed::misspelt(&written[key][number], &container_path),
                container_path,
                container: container.clone(),
                number,
                role,
                wrong: wrong.clone(),
            });
        }
    }
    candidates
}

fn calls_of(container: &Container, environment: &Environment) -> Calls {
    let expand = |words: &[String]| words.iter().map(|word| environment.expand(word)).collect::<Vec<_>>();
    let entrypoint: Vec<String> =
        container.command.iter().flatten().chain(container.args.iter().flatten()).cloned().collect();
    let lifecycle = container.lifecycle.as_ref();
    // The kubelet runs the hooks' and probes' commands as they stand: it expands only the container's own.
    let handler = |handler: Option<&LifecycleHandler>| {
        let words = handler.and_then(|handler| handler.exec.as_ref()?.command.clone());
        words::calls(&words.unwrap_or_default())
    };
    let probe = |probe: &Option<Probe>| {
        let words = probe.as_ref().and_then(|probe| probe.exec.as_ref()?.command.clone());
        words::calls(&words.unwrap_or_default())
    };
    Calls {
        entrypoint: words::calls(&expand(&entrypoint)),
        post_start: handler(lifecycle.and_then(|lifecycle| lifecycle.post_start.as_ref())),
        pre_stop: handler(lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_ref())),
        startup: probe(&container.startup_probe),
        readiness: probe(&container.readiness_probe),
        liveness: probe(&container.liveness_probe),
    }
}

/// How a container shows that boathook is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// Something starts it or calls it.
    Clearly,
    /// Its files or variables are there, which other programs may look at as well.
    Faintly,
    Not,
}

fn shows_boathook(candidate: &Candidate<'_>, documents: &[Document], listens_on: Option<u16>) -> Shown {
    let container = &candidate.container;
    let documents = View::of(candidate.document, documents);
    let environment = environment::of(container, documents);
    let calls = calls_of(container, &environment);
    let by_calls =
        [&calls.entrypoint, &calls.post_start, &calls.pre_stop, &calls.startup, &calls.readiness, &calls.liveness]
            .into_iter()
            .flatten()
            .any(|call| !matches!(call.subcommand(), "" | "install" | "completions"));
    let by_mount =
        container.volume_mounts.iter().flatten().any(|mount| File::new(&mount.mount_path).starts_with(USUAL_FOLDER));
    let by_environment =
        ["BOATHOOK_CONFIG", "BOATHOOK_TOKEN", "BOATHOOK_SOCKET"].iter().any(|name| environment.has(name));
    if by_calls || shows_by_http(container, listens_on) {
        Shown::Clearly
    } else if by_mount || by_environment {
        Shown::Faintly
    } else {
        Shown::Not
    }
}

/// Hooks by httpGet on boathook's port, or with both of its paths. One of the paths alone is no proof: other servers have a
/// `/shutdown` too, and other ports.
fn shows_by_http(container: &Container, listens_on: Option<u16>) -> bool {
    let lifecycle = container.lifecycle.as_ref();
    let get = |handler: Option<&LifecycleHandler>| handler.and_then(|handler| handler.http_get.clone());
    let post_start = get(lifecycle.and_then(|lifecycle| lifecycle.post_start.as_ref()));
    let pre_stop = get(lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_ref()));
    let is_own_port = |get: &HTTPGetAction| match port_of(&get.port, container) {
        Port::Number(number) => number == i64::from(PORT) || Some(number) == listens_on.map(i64::from),
        Port::Unknown(_) => false,
    };
    let has_path =
        |get: &Option<HTTPGetAction>, path: &str| get.as_ref().is_some_and(|get| get.path.as_deref() == Some(path));
    let by_port = post_start.iter().chain(&pre_stop).any(is_own_port);
    by_port || has_path(&post_start, "/started") && has_path(&pre_stop, "/shutdown")
}

/// Decides on the way of use and reads the configuration.
fn judged_by<'d>(
    candidate: Candidate<'d>,
    documents: &[Document],
    given: Option<&Text>,
    is_assumed: bool,
    has_siblings: bool,
) -> Result<Pod<'d>, Fatal> {
    let Candidate {
        document,
        index,
        spec_path,
        spec,
        written,
        container_path,
        container,
        number: _,
        role,
        wrong,
        misspelt,
    } = candidate;
    let documents = View::of(document, documents);
    let is_foreign = brings_binary(&spec);
    let environment = environment::of(&container, documents);
    let calls = calls_of(&container, &environment);
    let way = way_of(&container, &calls, is_foreign, given.and_then(|given| port_of_text(&given.text)));
    let by_command_line = [&calls.entrypoint, &calls.post_start, &calls.pre_stop]
        .into_iter()
        .flatten()
        .find_map(|call| call.config.as_deref());
    let place = configuration::place(by_command_line, environment.value("BOATHOOK_CONFIG"));
    let mounted = configuration::mounted(&place, &container, &spec, documents);
    let unknown_place = place.path.to_string_lossy().contains('$');
    let (configuration, facts) = if way == Way::Step {
        (Configuration::Defaults, facts_of_steps(&calls.pre_stop))
    } else {
        // Where each of several containers has a file of its own, one configuration cannot be that of all.
        let own_name = place.named_by != NamedBy::Nobody && place.path.file_name().is_some();
        let is_other = |given: &Text| own_name && place.path.file_name() != File::new(&given.from).file_name();
        let found_other = matches!(mounted, Mounted::Text(_));
        let given = given.filter(|given| !(is_other(given) && (found_other || has_siblings)));
        let text = match (given, &mounted) {
            (Some(given), _) => Some((Configuration::Given, given.clone())),
            (None, Mounted::Text(text) | Mounted::Wrong { meant: Some(text), .. }) => {
                Some((Configuration::Found(text.from.clone()), text.clone()))
            }
            (None, Mounted::Nothing { meant: Some(meant) }) => {
                Some((Configuration::Found(meant.text.from.clone()), meant.text.clone()))
            }
            _ => None,
        };
        match (text, &mounted) {
            (Some((configuration, text)), _) => {
                let known = |name: &str| environment.value(name).map(String::from);
                // Without any sign of an agent nobody can say that one has to be reached.
                let has_agent =
                    has_http_hook(&container) || !calls.entrypoint.is_empty() || !calls.post_start.is_empty();
                let listener = if has_agent { way.listener() } else { Listener::None };
                let facts = facts::read(&text.from, &text.text, &known, listener);
                (configuration, facts.map_err(|problems| Fatal::config(&problems))?)
            }
            (None, Mounted::Unread(from)) => (Configuration::Unread(from.clone()), Facts::of_defaults()),
            // A file in the image, or a variable of the image, that only the container knows.
            (None, _) if place.named_by != NamedBy::Nobody || unknown_place => {
                (Configuration::Unread(place.path.display().to_string()), Facts::of_defaults())
            }
            (None, _) => (Configuration::Defaults, Facts::of_defaults()),
        }
    };
    // With `listen = "off"`, and a command that starts no agent, only exec hooks are left.
    let has_command = is_foreign || container.command.as_ref().is_some_and(|words| !words.is_empty());
    let starts_agent = calls.entrypoint.iter().any(|call| matches!(call.subcommand(), "run" | "serve"));
    let way = match way {
        Way::Run if facts.listen.is_none() && has_command && !starts_agent && !is_assumed => Way::Exec,
        way => way,
    };
    let is_partial = container.image.as_deref().unwrap_or_default().is_empty();
    Ok(Pod {
        document,
        index,
        spec_path,
        spec,
        written,
        container_path,
        container,
        role,
        way,
        calls,
        facts,
        configuration,
        place,
        mounted,
        environment,
        neighbours: Vec::new(),
        is_first: false,
        wrong,
        misspelt,
        is_assumed,
        is_partial,
        is_foreign,
    })
}

fn way_of(container: &Container, calls: &Calls, is_foreign: bool, listens_on: Option<u16>) -> Way {
    let has = |calls: &[Call], names: &[&str]| calls.iter().any(|call| names.contains(&call.subcommand()));
    if has(&calls.entrypoint, &["run"]) {
        return Way::Run;
    }
    if has(&calls.entrypoint, &["serve"]) || has(&calls.post_start, &["serve"]) {
        return Way::Serve;
    }
    let has_command = is_foreign || container.command.as_ref().is_some_and(|words| !words.is_empty());
    let listening = listens_on.map(i64::from).or(Some(i64::from(PORT)));
    let own_page = |get: Option<&HTTPGetAction>| {
        get.is_some_and(|get| match port_of(&get.port, container) {
            Port::Number(number) => Some(number) == listening,
            Port::Unknown(_) => false,
        })
    };
    let probes = [&container.startup_probe, &container.readiness_probe, &container.liveness_probe];
    let asks_agent = probes.into_iter().flatten().any(|probe| own_page(probe.http_get.as_ref()))
        || has(&calls.readiness, &["ready"])
        || has(&calls.startup, &["ready", "live"])
        || has(&calls.liveness, &["live", "ready"]);
    let by_exec = has(&calls.post_start, &["started"]) || has(&calls.pre_stop, &["shutdown"]);
    let by_step = has(&calls.pre_stop, &["step"]) || has(&calls.post_start, &["step"]);
    if by_exec && (has_command || !asks_agent && !has_http_hook(container)) {
        return Way::Exec;
    }
    if by_step && !by_exec && !asks_agent && !has_http_hook(container) {
        return Way::Step;
    }
    Way::Run
}

/// Whether an init container runs `boathook install`.
fn brings_binary(spec: &PodSpec) -> bool {
    spec.init_containers.iter().flatten().any(|container| !words::installs(container).is_empty())
}

fn has_http_hook(container: &Container) -> bool {
    let lifecycle = container.lifecycle.as_ref();
    let handlers = lifecycle.into_iter().flat_map(|lifecycle| [&lifecycle.post_start, &lifecycle.pre_stop]);
    handlers.flatten().any(|handler| handler.http_get.is_some())
}

/// What steps by hand in pre-stop ask for, one after the other. The kubelet's rounding takes nothing from them: it gives.
fn facts_of_steps(calls: &[Call]) -> Facts {
    let mut facts = Facts::of_defaults();
    let (mut problems, mut secrets) = (Vec::new(), Vec::new());
    for call in calls {
        let Some(Command::Step { .. }) = call.command() else { continue };
        // The command line once more: what was parsed cannot be taken out of what is borrowed.
        let Some(Call { what: words::What::Command(command), .. }) = words::calls(&call.words).pop() else { continue };
        let Command::Step { step } = *command else { continue };
        let mut scope = Scope::of_command_line(&mut secrets, &mut problems);
        scope.files = Files::Elsewhere;
        if let Some(step) = step::mean_step(*step.0, &mut scope) {
            facts.add_step(step);
        }
    }
    facts
}
