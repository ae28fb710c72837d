//! What a pod needs for a configuration, as the fields of a pod's spec, each with where its value comes from. How it is
//! written is left to `text.rs`, what is put around it to `form.rs`. Pure.

use std::{path::Path, time::Duration};

use boathook::{
    config::{Gate, Listener},
    duration::show,
    hook::Hook,
    redact::is_secret,
    server::admission::Source,
};
use serde_json::{Value, json};

use super::text::{Block, Knob, Line, Yaml, comment};
use crate::facts::{self, Facts, Folder, Token, Variable};

/// What stands for a value that nobody but the user knows begins with this.
const REPLACE_ME: &str = "replace-me";

/// What stands for the token, which only whoever deploys knows.
const TOKEN: &str = "replace-me-with-the-token";

/// The name of the port that hooks and probes come to.
const PORT: &str = "hooks";

/// The folder that the init container copies the binary into.
const BIN: &str = "/opt/boathook";

/// Where the configuration's ConfigMap is mounted: the folder of the place where boathook looks for it.
const CONFIG: &str = "/etc/boathook";

/// The kubelet's default, which is not written out.
const TERMINATION_MESSAGE: &str = "/dev/termination-log";

/// Probes of an agent that answers from memory: one that is late is short of CPU, not stuck, for a few seconds at least.
const LIVENESS_TIMEOUT: u64 = 5;

/// Kubernetes' defaults, written out because the time until a restart follows from them.
const LIVENESS_PERIOD: u64 = 10;
const LIVENESS_FAILURES: u64 = 3;

/// One slow answer (a long garbage collection) is no reason yet to take the traffic away.
const READINESS_FAILURES: u64 = 2;

/// The longest start that a liveness probe with Kubernetes' defaults bears, if it were the application's own: beyond it
/// people look for a startupProbe.
const BORNE: Duration = Duration::from_secs(30);

/// Variables that are there without anybody's doing: the runtime's own and the kubelet's.
const GIVEN: [&str; 5] = ["HOSTNAME", "PATH", "HOME", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"];

/// Variables whose names say which field of the downward API they want.
const DOWNWARD: [(&str, &str); 7] = [
    ("HOST_IP", "status.hostIP"),
    ("NODE_IP", "status.hostIP"),
    ("POD_IP", "status.podIP"),
    ("POD_NAME", "metadata.name"),
    ("POD_NAMESPACE", "metadata.namespace"),
    ("POD_UID", "metadata.uid"),
    ("NODE_NAME", "spec.nodeName"),
];

/// A variable has one source.
const VALUE: Line = Line::Absent(&["value"]);
const VALUE_FROM: Line = Line::Absent(&["valueFrom"]);

/// Folders that an image has files in, which a volume there would hide.
const OF_THE_IMAGE: [&str; 14] = [
    "/", "/app", "/bin", "/etc", "/home", "/lib", "/lib64", "/opt", "/root", "/sbin", "/srv", "/usr", "/var",
    "/var/lib",
];

/// Folders that are no part of the root file system: writable or not, no volume changes that.
const OF_THE_KERNEL: [&str; 3] = ["/dev", "/proc", "/sys"];

/// How boathook is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    Run,
    Exec,
    Serve,
    /// As `Run`, with the binary from this image.
    Install {
        image: String,
    },
}

impl Way {
    /// The agent is the entrypoint.
    pub fn is_entrypoint(&self) -> bool {
        matches!(self, Self::Run | Self::Install { .. })
    }

    /// What post-start gates.
    pub fn gate(&self, facts: &Facts) -> Gate {
        facts.gate_in(self.in_facts())
    }

    fn in_facts(&self) -> facts::Way {
        match self {
            Self::Run | Self::Install { .. } => facts::Way::Run,
            Self::Exec => facts::Way::Exec,
            Self::Serve => facts::Way::Serve,
        }
    }

    /// Whether somebody has to be named who may trigger hooks.
    pub fn listener(&self) -> Listener {
        self.in_facts().listener()
    }
}

/// What the fields follow from.
pub struct Wanted<'a> {
    pub facts: &'a Facts,
    /// There is a configuration file to be mounted.
    pub has_file: bool,
    pub way: Way,
    /// The container's name.
    pub container: &'a str,
    /// The main process and its arguments; empty where they are not to be written.
    pub command: &'a [String],
}

/// The fields of the pod's spec.
pub fn spec(wanted: &Wanted<'_>) -> Block {
    let mut volumes = Volumes::default();
    let mut container =
        vec![Line::field("name", wanted.container), comment("image, resources and what else it has stay as they are")];
    container.extend(wanted.command_lines());
    container.extend(list("env", wanted.variables()));
    container.extend(list("ports", wanted.ports()));
    container.extend(wanted.caller_advice().map(comment));
    container.push(Line::field("lifecycle", wanted.lifecycle()));
    container.extend(wanted.probes());
    let message = &wanted.facts.termination_message;
    if message != Path::new(TERMINATION_MESSAGE) {
        let path = message.display().to_string();
        container.push(Line::field("terminationMessagePath", path).because("[log] termination-message"));
    }
    wanted.mount(&mut volumes);
    container.extend(wanted.security_advice().into_iter().map(comment));
    let context = security_context(&volumes.homeless);
    container.push(Line::field("securityContext", Yaml::KnobBlock("securityContext", context)));
    container.extend(list("volumeMounts", volumes.mounts));

    let mut spec = vec![wanted.grace()];
    if let Way::Install { image } = &wanted.way {
        spec.push(Line::field("initContainers", vec![Line::item(init_container(image))]));
    }
    spec.push(Line::field("containers", vec![Line::item(container)]));
    spec.extend(list("volumes", volumes.volumes));
    spec
}

fn list(key: &str, items: Block) -> Option<Line> {
    (!items.is_empty()).then(|| Line::field(key, items))
}

fn knob(name: impl Into<String>, default: impl Into<Value>) -> Knob {
    Knob { name: name.into(), default: default.into(), before: "" }
}

fn exec(program: &str, arguments: &[&str]) -> Block {
    let words: Vec<&str> = std::iter::once(program).chain(arguments.iter().copied()).collect();
    vec![Line::field("exec", vec![Line::field("command", json!(words))]), Line::Absent(&["httpGet"])]
}

/// A hook has one handler, of these kinds.
fn hook(mut handler: Block) -> Block {
    handler.push(Line::Absent(&["sleep", "tcpSocket"]));
    handler
}

/// And so has a probe.
fn probe(mut handler: Block) -> Block {
    handler.push(Line::Absent(&["grpc", "tcpSocket"]));
    handler
}

/// `homeless`: steps that write where no volume can be put.
fn security_context(homeless: &[String]) -> Block {
    let why = match homeless {
        [] => "where the application writes, it needs a volume".to_owned(),
        steps => format!("{}, where no volume can be put", steps.join("; ")),
    };
    vec![
        Line::field("runAsNonRoot", true).because("the image's USER, as a number, or runAsUser here"),
        Line::field("readOnlyRootFilesystem", homeless.is_empty()).because(why),
        Line::field("allowPrivilegeEscalation", false),
        Line::field("capabilities", json!({"drop": ["ALL"]})).because("boathook itself needs none"),
        Line::field("seccompProfile", json!({"type": "RuntimeDefault"})),
    ]
}

/// The value of a variable whose name says that it is a secret.
fn from_secret(name: &str) -> Line {
    let key = vec![Line::field("name", knob("secret", "boathook")), Line::field("key", kebab(name))];
    Line::field("valueFrom", vec![Line::field("secretKeyRef", key)]).because("a Secret of yours")
}

fn kebab(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

fn init_container(image: &str) -> Block {
    vec![
        Line::field("name", "boathook"),
        Line::field("image", knob("image", image)),
        Line::field("command", json!(["/boathook", "install", BIN])).because("copies itself into the volume"),
        Line::field(
            "securityContext",
            vec![
                Line::field("runAsNonRoot", true),
                Line::field("readOnlyRootFilesystem", true),
                Line::field("allowPrivilegeEscalation", false),
                Line::field("capabilities", json!({"drop": ["ALL"]})),
                Line::field("seccompProfile", json!({"type": "RuntimeDefault"})),
            ],
        ),
        Line::field("volumeMounts", vec![mount("boathook-bin", BIN, None)]),
    ]
}

fn mount(name: &str, path: &str, sub_path: Option<&str>) -> Line {
    let mut fields = vec![Line::field("name", name), Line::field("mountPath", path)];
    fields.extend(sub_path.map(|file| Line::field("subPath", file)));
    Line::item(fields)
}

fn read_only(mut item: Line) -> Line {
    if let Line::Item { value: Yaml::Block(fields), .. } = &mut item {
        fields.push(Line::field("readOnly", true));
    }
    item
}

/// Volumes and where they are mounted, as they are found to be needed.
#[derive(Default)]
struct Volumes {
    mounts: Block,
    volumes: Block,
    /// Steps that write where no volume can be put.
    homeless: Vec<String>,
}

impl Volumes {
    fn add(&mut self, mount: Line, name: &str, source: Line, why: impl Into<String>) {
        self.mounts.push(mount);
        self.volumes.push(Line::item(vec![Line::field("name", name), source]).because(why));
    }
}

impl Wanted<'_> {
    fn program(&self) -> String {
        if let Way::Install { .. } = self.way { format!("{BIN}/boathook") } else { "/boathook".into() }
    }

    /// Whether hooks and probes come by HTTP: the kubelet calls the pod's own address, where a listener on loopback is not.
    fn is_reached(&self) -> bool {
        self.way != Way::Exec && self.facts.listen.is_some_and(|listen| !listen.ip().is_loopback())
    }

    fn grace(&self) -> Line {
        let grace = &self.facts.grace;
        let server = self.facts.preset.as_deref().unwrap_or("main process");
        let mut remark = format!("pre-stop {} + {server} {}", show(grace.pre_stop()), show(grace.stop_reserve));
        if !grace.post_stop.is_zero() {
            remark += &format!(" + post-stop {}", show(grace.post_stop));
        }
        remark += &format!(" + rounding {}", show(grace.margin));
        if !self.facts.grace_is_configured {
            remark += "; no grace-period is written, so Kubernetes' default";
        }
        Line::field("terminationGracePeriodSeconds", knob("gracePeriodSeconds", self.facts.grace_seconds))
            .because(remark)
    }

    fn command_lines(&self) -> Block {
        let mut words: Vec<String> = Vec::new();
        if self.way.is_entrypoint() {
            words.extend([self.program(), "run".into(), "--".into()]);
        }
        let installs = matches!(self.way, Way::Install { .. });
        words.extend(self.command.iter().cloned());
        if self.command.is_empty() {
            match (self.way.is_entrypoint(), installs) {
                (true, false) => {
                    return vec![comment(
                        "command: stays away where the image's ENTRYPOINT is [\"/boathook\", \"run\", \"--\", …]; a command \
                         here would bypass it",
                    )];
                }
                (true, true) => words.push("replace-me-with-the-images-own-entrypoint".into()),
                (false, _) => return Vec::new(),
            }
        }
        let remark = match (self.way.is_entrypoint(), self.command.is_empty()) {
            (true, true) => "and its command: an image's own entrypoint knows nothing of boathook",
            (true, false) => "hides the image's ENTRYPOINT and CMD",
            (false, _) => "the main process; boathook comes by the hooks",
        };
        // `$(NAME)` in a command is the kubelet's own substitution (`$$(NAME)` is not).
        let words: Vec<String> = words.into_iter().map(|word| word.replace("$(", "$$(")).collect();
        vec![Line::field("command", json!(words)).because(remark)]
    }

    fn variables(&self) -> Block {
        let mut lines = Block::new();
        let token_env = match &self.facts.token {
            Some(Token::Env(name)) => Some(name.as_str()),
            _ => None,
        };
        if let Some(name) = token_env {
            lines.push(Line::item(vec![
                Line::field("name", name),
                Line::field("value", knob("token", TOKEN))
                    .because("[server] token-env; the same as in the hooks' headers"),
                VALUE_FROM,
                comment("or from a Secret, whose value the hooks' headers have to repeat:"),
                comment("valueFrom: {secretKeyRef: {name: boathook, key: token}}"),
            ]));
        }
        for Variable { name, needed } in &self.facts.variables {
            if Some(name.as_str()) == token_env {
                continue;
            }
            if let Some((_, field)) = DOWNWARD.iter().find(|(known, _)| known == name) {
                let why = format!("boathook.toml names ${{{name}}}");
                lines.push(Line::item(vec![
                    Line::field("name", name.as_str()).because(why),
                    Line::field("valueFrom", json!({"fieldRef": {"fieldPath": field}})),
                    VALUE,
                ]));
            } else if *needed && !GIVEN.contains(&name.as_str()) {
                let why = format!("boathook.toml names ${{{name}}}, without a default");
                // A number or an address has to be one, or the configuration cannot be read.
                let value = match facts::placeholder(name) {
                    _ if is_secret(name, REPLACE_ME) => from_secret(name),
                    facts::PLACEHOLDER_WORD => {
                        Line::field("value", knob(camel(name), format!("{REPLACE_ME}-{}", kebab(name))))
                    }
                    example => Line::field("value", knob(camel(name), example)).because("replace-me: an example"),
                };
                let others = if is_secret(name, REPLACE_ME) { VALUE } else { VALUE_FROM };
                lines.push(Line::item(vec![Line::field("name", name.as_str()).because(why), value, others]));
            }
        }
        for name in &self.facts.step_variables {
            if self.facts.variables.iter().all(|known| known.name != *name) {
                let name_line = Line::field("name", name.as_str()).because("save and restore with s3:// need it");
                lines.push(Line::item(vec![name_line, from_secret(name), VALUE]));
            }
        }
        lines
    }

    fn ports(&self) -> Block {
        let mut lines = Block::new();
        for port in &self.facts.app_ports {
            // Without a name: in a patch it would replace the one by which a Service may know the port.
            lines.push(Line::item(vec![Line::field("containerPort", u64::from(*port))]).because("[app] ports"));
        }
        if let Some(listen) = self.facts.listen.filter(|_| self.is_reached()) {
            let port = u64::from(listen.port());
            lines.push(
                Line::item(vec![Line::field("name", PORT), Line::field("containerPort", port)])
                    .because("[server] listen"),
            );
        }
        lines
    }

    /// Who is refused is told by nobody: the kubelet looks at no status.
    fn caller_advice(&self) -> Option<&'static str> {
        let names_host = self.facts.variables.iter().any(|variable| variable.name == "HOST_IP");
        let is_fragile = self.facts.callers.contains(&Source::Gateway) && !names_host && self.is_reached();
        is_fragile.then_some(
            "allow-from = [\"gateway\"] is for bridge networks, and a refused hook goes unseen: where the kubelet calls from \
             the node's address, use \"${HOST_IP}\", or a token",
        )
    }

    fn lifecycle(&self) -> Block {
        let mut lines = Block::new();
        let program = self.program();
        let has_steps = self.facts.has(Hook::PostStart);
        let waits = self.way.gate(self.facts) == Gate::Hook;
        let remark = match (has_steps, waits) {
            (false, _) => "post-start has no steps".to_owned(),
            (true, true) => {
                let worst = show(self.facts.post_start);
                format!("the kubelet waits for post-start, {worst} at most, and kills when it fails")
            }
            (true, false) => "answers at once: readiness waits for post-start".into(),
        };
        let is_needed = has_steps || self.facts.gate == Some(Gate::Hook);
        if self.way == Way::Serve {
            lines.push(
                Line::field("postStart", hook(exec(&program, &["serve", "--background", "--started"]))).because(remark),
            );
        } else if is_needed && self.is_reached() {
            lines.push(Line::field("postStart", hook(self.http("/started"))).because(remark));
        } else if is_needed {
            lines.push(Line::field("postStart", hook(exec(&program, &["started"]))).because(remark));
        }
        let worst = self.facts.pre_stop;
        let remark = format!("pre-stop takes {} at most", show(worst));
        if self.way != Way::Exec && !self.is_reached() {
            lines.push(comment(match self.facts.listen {
                Some(_) => {
                    "listen is on loopback, which the kubelet does not reach: so by exec. With hostNetwork: true httpGet \
                     works as well, with host: 127.0.0.1"
                }
                None => "listen is \"off\": so by exec, which asks the agent through its socket",
            }));
        }
        let pre_stop = if self.is_reached() { self.http("/shutdown") } else { exec(&program, &["shutdown"]) };
        lines.push(Line::field("preStop", hook(pre_stop)).because(remark));
        lines
    }

    fn http(&self, path: &str) -> Block {
        let mut get = vec![Line::field("path", path), Line::field("port", PORT), Line::Absent(&["scheme", "host"])];
        if self.facts.token.is_some() {
            let token = Knob { name: "token".into(), default: TOKEN.into(), before: "Bearer " };
            let header = vec![
                Line::field("name", "Authorization"),
                Line::field("value", token).because("in plain text: the kubelet takes it from nowhere else"),
            ];
            get.push(Line::field("httpHeaders", vec![Line::item(header)]));
        } else {
            get.push(Line::Absent(&["httpHeaders"]));
        }
        vec![Line::field("httpGet", get), Line::Absent(&["exec"])]
    }

    fn probes(&self) -> Block {
        if self.way == Way::Exec {
            return vec![comment(
                "readinessProbe and livenessProbe: the application's own stay as they are, because no agent stays that could \
                 answer /ready and /live",
            )];
        }
        let program = self.program();
        let ask = |path: &str, word: &str| {
            if self.is_reached() {
                let get = [Line::field("path", path), Line::field("port", PORT)];
                let others = Line::Absent(&["scheme", "host", "httpHeaders"]);
                vec![
                    Line::field("httpGet", get.into_iter().chain([others]).collect::<Block>()),
                    Line::Absent(&["exec"]),
                ]
            } else {
                exec(&program, &[word])
            }
        };
        let mut readiness = probe(ask("/ready", "ready"));
        let (period, timeout, remarks) = match self.facts.readiness {
            Some((timeout, cache)) => {
                let remarks = [
                    format!("[readiness] cache {}: asked no more often", show(cache)),
                    format!("more than [readiness] timeout {}, so that its reason is told", show(timeout)),
                ];
                ((cache.as_secs() + u64::from(cache.subsec_nanos() > 0)).max(1), timeout.as_secs() + 1, remarks)
            }
            None => {
                (1, 1, ["the shortest that there is; costs next to nothing".into(), "/ready asks nobody else".into()])
            }
        };
        let [why_period, why_timeout] = remarks;
        readiness.extend([
            Line::field("periodSeconds", knob("readinessPeriodSeconds", period)).because(why_period),
            Line::field("timeoutSeconds", knob("readinessTimeoutSeconds", timeout)).because(why_timeout),
            Line::field("failureThreshold", knob("readinessFailureThreshold", READINESS_FAILURES))
                .because("one slow answer is no reason yet"),
        ]);
        let mut liveness = probe(ask("/live", "live"));
        liveness.extend([
            Line::field("periodSeconds", knob("livenessPeriodSeconds", LIVENESS_PERIOD)),
            Line::field("timeoutSeconds", knob("livenessTimeoutSeconds", LIVENESS_TIMEOUT))
                .because("/live asks nobody: who is late is short of CPU"),
            Line::field("failureThreshold", knob("livenessFailureThreshold", LIVENESS_FAILURES)),
            // The pod's own has the time for a drain.
            Line::Absent(&["terminationGracePeriodSeconds"]),
        ]);
        let mut lines = vec![
            Line::field("readinessProbe", readiness)
                .because("true when post-start is done, false from the first moment of pre-stop"),
        ];
        lines.push(
            Line::field("livenessProbe", liveness)
                .because("true through a long start and a long drain, false when a hook is stuck"),
        );
        if self.way.is_entrypoint() && self.facts.start > BORNE {
            lines.push(comment(format!(
                "no startupProbe: the start may take {}, and /live is true from its first moment",
                show(self.facts.start)
            )));
        }
        lines
    }

    /// What the security context may cost this application.
    fn security_advice(&self) -> Vec<String> {
        let mut advice = Vec::new();
        let ports = if self.facts.app_ports.is_empty() { &self.facts.usual_ports } else { &self.facts.app_ports };
        if let Some(port) = ports.iter().find(|port| **port < 1024) {
            advice.push(format!(
                "port {port}: who is not root may listen there only with the pod's sysctl net.ipv4.ip_unprivileged_port_start \
                 = \"0\", or behind a Service that maps it to a port above 1023"
            ));
        }
        let steps = &self.facts.as_others;
        if !steps.is_empty() {
            advice
                .push(format!("{}: runs as another user, which takes root: runAsNonRoot has to go", steps.join(", ")));
        }
        match self.facts.preset.as_deref() {
            Some("nginx") => advice.push(
                "nginx: the official image starts as root; nginx-unprivileged does not, and needs /tmp as an emptyDir".into(),
            ),
            Some("php-fpm") => advice.push(
                "php-fpm: its master starts as root to become each pool's user: as that user from the start it needs none of it"
                    .into(),
            ),
            Some("apache") => advice
                .push("apache: starts as root to become www-data; as another user it needs logs and a PidFile it may write".into()),
            Some("caddy") => advice.push(
                "caddy: the official image's binary has the file capability net_bind_service and does not start without \
                 add: [NET_BIND_SERVICE]; it writes to /data and /config"
                    .into(),
            ),
            Some("varnish") => advice.push("varnish: writes to /var/lib/varnish".into()),
            _ => {}
        }
        advice
    }

    fn mount(&self, volumes: &mut Volumes) {
        let token_file = match &self.facts.token {
            Some(Token::File(path)) => Some(path.as_path()),
            _ => None,
        };
        let beside = token_file.filter(|path| path.parent() == Some(Path::new(CONFIG)));
        let has_config = self.has_file;
        // A token in the file makes the file a secret.
        let is_secret = self.facts.token == Some(Token::Written);
        if has_config {
            let name = knob("config", "boathook");
            let (source, why) = match (beside.and_then(Path::file_name), is_secret) {
                (Some(file), _) => {
                    let file = file.to_string_lossy();
                    let items = json!([{"key": "token", "path": file}]);
                    let token = vec![Line::field("name", knob("secret", "boathook")), Line::field("items", items)];
                    let sources = vec![
                        Line::item(vec![Line::field("configMap", vec![Line::field("name", name)])]),
                        Line::item(vec![Line::field("secret", token)]),
                    ];
                    let projected = vec![Line::field("sources", sources)];
                    (Line::field("projected", projected), "boathook.toml, and [server] token-file")
                }
                (None, true) => (
                    Line::field("secret", vec![Line::field("secretName", name)]),
                    "boathook.toml; a Secret, because the token stands in it",
                ),
                (None, false) => (Line::field("configMap", vec![Line::field("name", name)]), "boathook.toml"),
            };
            volumes.add(read_only(mount("boathook-config", CONFIG, None)), "boathook-config", source, why);
        }
        if let Some((path, file)) = token_file.filter(|_| beside.is_none() || !has_config).and_then(split) {
            let items = json!([{"key": "token", "path": file}]);
            let source = Line::field(
                "secret",
                vec![Line::field("secretName", knob("secret", "boathook")), Line::field("items", items)],
            );
            let whole = format!("{path}/{file}").replace("//", "/");
            let (item, why) = if OF_THE_IMAGE.contains(&path) || path == "/run" {
                (
                    mount("boathook-token", &whole, Some(file)),
                    "[server] token-file; as a single file, which does not follow a change of the Secret",
                )
            } else {
                (mount("boathook-token", path, None), "[server] token-file")
            };
            volumes.add(read_only(item), "boathook-token", source, why);
        }
        if let Way::Install { .. } = self.way {
            let item = read_only(mount("boathook-bin", BIN, None));
            volumes.add(
                item,
                "boathook-bin",
                Line::field("emptyDir", json!({})),
                "the init container puts boathook there",
            );
        }
        for folder in outermost(&self.facts.folders) {
            let path = folder.path.display().to_string();
            if OF_THE_IMAGE.contains(&path.as_str()) {
                volumes.homeless.push(format!("{} writes in {path}", folder.step));
                continue;
            }
            let slug = slug(&path);
            let name = format!("boathook{slug}");
            let (source, why) = if folder.must_last {
                let claim = knob(format!("claim{}", camel(&slug)), format!("replace-me-with-a-claim-for{slug}"));
                let source = vec![
                    Line::field("claimName", claim),
                    comment("in a StatefulSet, a volumeClaimTemplate with this volume's name instead of this volume"),
                ];
                (
                    Line::field("persistentVolumeClaim", source),
                    format!("{}: has to outlive the pod; writable by an fsGroup of the pod", folder.step),
                )
            } else {
                (Line::field("emptyDir", json!({})), format!("{}: writes there", folder.step))
            };
            volumes.add(mount(&name, &path, None), &name, source, why);
        }
    }
}

/// `/run/secrets/token` → `/run/secrets` and `token`.
fn split(path: &Path) -> Option<(&str, &str)> {
    Some((path.parent()?.to_str()?, path.file_name()?.to_str()?))
}

/// Each folder once, without those that lie within another one; one that has to last is never left to one that need not.
fn outermost(folders: &[Folder]) -> Vec<&Folder> {
    let mut kept: Vec<&Folder> = Vec::new();
    let mut all: Vec<&Folder> = folders
        .iter()
        .filter(|folder| folder.path.is_absolute() && !OF_THE_KERNEL.iter().any(|other| folder.path.starts_with(other)))
        .filter(|folder| !folder.path.starts_with(CONFIG))
        .collect();
    all.sort_by_key(|folder| (folder.path.components().count(), !folder.must_last));
    for folder in all {
        let covers = |other: &&Folder| {
            let is_image = other.path.to_str().is_some_and(|path| OF_THE_IMAGE.contains(&path));
            let holds = if is_image { folder.path == other.path } else { folder.path.starts_with(&other.path) };
            holds && (other.must_last || !folder.must_last)
        };
        if !kept.iter().any(covers) {
            kept.retain(|other| other.path != folder.path);
            kept.push(folder);
        }
    }
    kept
}

/// `/var/lib/app` → `-var-lib-app`, for names of volumes, which have at most 63 characters.
fn slug(path: &str) -> String {
    let mut slug: String =
        path.to_ascii_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    while slug.contains("--") {
        slug = slug.replace("--", "-");
    }
    slug.truncate(36);
    slug.trim_end_matches('-').to_owned()
}

/// `UPLOAD_SIGNATURE` → `uploadSignature`; `-var-lib` → `VarLib`.
fn camel(name: &str) -> String {
    let mut words = name.split(['_', '-']);
    let mut camel = words.next().unwrap_or_default().to_ascii_lowercase();
    for word in words {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(&letters.as_str().to_ascii_lowercase());
    }
    camel
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_from_paths_and_variables() {
        assert_eq!(slug("/var/lib//My App/"), "-var-lib-my-app");
        assert_eq!(camel("UPLOAD_SIGNATURE"), "uploadSignature");
        assert_eq!(camel("-var-lib"), "VarLib");
        assert_eq!(slug(&format!("/{}", "x/".repeat(50))).len(), 36);
    }

    #[test]
    fn the_outermost_folder_holds_those_within_it() {
        let folder =
            |path: &str, must_last| Folder { path: path.into(), step: path.into(), must_last, is_written: true };
        let folders = [
            folder("/state/a", false),
            folder("/state", true),
            folder("/tmp/x", false),
            folder("/tmp", false),
            folder("/tmp/keep", true),
            folder("/etc", false),
            folder("/etc/app", false),
            folder("/dev/shm/x", false),
            folder("/etc/boathook/x", false),
        ];
        let kept: Vec<String> = outermost(&folders).iter().map(|folder| folder.step.clone()).collect();
        assert_eq!(kept, ["/state", "/tmp", "/etc", "/tmp/keep", "/etc/app"]);
    }

    #[test]
    fn the_configuration_is_mounted_where_it_is_looked_for() {
        assert_eq!(Path::new(boathook::config::USUAL_PLACE).parent(), Some(Path::new(CONFIG)));
    }
}
