//! What `manifest` prints fits: Kubernetes understands every field of it, every form says the same, it merges into a real
//! workload without touching what is not its own, Helm renders it, and no secret is ever in it.

#[path = "../../tests/server_support/mod.rs"]
mod server_support;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{self, Output, Stdio},
};

use boathook::{
    cli::{Cli, Command},
    exit,
    fatal::Fatal,
    preset,
};
use boathook_kube::{document, manifest};
use clap::Parser;
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, StatefulSet},
    batch::v1::{CronJob, Job},
    core::v1::{Pod, PodSpec},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use server_support::{find_program, not_run, python_with};

const WAYS: [&str; 4] = ["run", "exec", "serve", "install"];
const KINDS: [&str; 6] = ["Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "Pod"];
/// What nobody may ever see.
const SECRET: &str = "Tr0ub4dor-and-3";
const VALIDATE: &str = "kubernetes-validate==1.37.0";

struct Configuration {
    name: String,
    path: PathBuf,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").into()
}

/// Every preset, every example, and what neither has: written below `folder`.
fn configurations(folder: &Path) -> Vec<Configuration> {
    let mut texts: Vec<(String, String)> = preset::NAMES
        .iter()
        .map(|name| {
            (format!("preset {name}"), format!("[server]\nallow-from = ['gateway']\n[app]\npreset = '{name}'\n"))
        })
        .collect();
    for entry in fs::read_dir(root().join("examples")).expect("examples") {
        let path = entry.expect("an entry").path();
        if let Ok(text) = fs::read_to_string(path.join("boathook.toml")) {
            texts.push((path.display().to_string(), text));
        }
    }
    let examples = texts.len() - preset::NAMES.len();
    assert!(examples >= 8, "only {examples} examples");
    let special = [
        ("the reference", fs::read_to_string(root().join("config/boathook.toml")).expect("the reference")),
        ("empty", "[server]\nallow-unauthenticated = true\n".into()),
        ("loopback", "[server]\nlisten = '127.0.0.1:9'\n[[post-start.step]]\nsleep = '1s'\n".into()),
        ("off", "[server]\nlisten = 'off'\n[post-start]\ngate = 'hook'\n[[post-stop.step]]\nsleep = '1s'\n".into()),
        ("token beside", "[server]\ntoken-file = '/etc/boathook/token'\n".into()),
        ("token elsewhere", "[server]\ntoken-file = '/run/secrets/boathook/token'\n".into()),
        ("token in the root", "[server]\ntoken-file = '/token'\nlisten = '[::]:4000'\n".into()),
        ("token written", format!("[server]\ntoken = '{SECRET}'\n")),
        ("token in a variable", "[server]\ntoken = '${MY_TOKEN}'\n".into()),
        (
            "variables",
            "[server]\nallow-from = ['${HOST_IP}']\n[app]\nports = ['${PORT}', 9090]\n[log]\n\
             termination-message = '/run/why'\n[[pre-stop.step]]\nexec = ['a', '${WORD}', '${DB_PASSWORD}', '${X:-y}', \
             '${HOSTNAME}', '${POD_NAME}']\n[readiness]\ntcp = '127.0.0.1:1'\ntimeout = '2s'\ncache = '4500ms'\n"
                .into(),
        ),
        (
            "folders",
            "[server]\ntoken-env = 'T'\n[[pre-start.step]]\nname = 'a'\nrestore = { from = '/state/deep', to = '/var/lib/app' }\n\
             [[pre-start.step]]\nfile = { touch = '/run/app/x' }\n[[pre-start.step]]\nfile = { touch = '/etc/passwd' }\n\
             [[pre-stop.step]]\nname = 'b'\nsave = { from = '/x', to = 's3://bucket/x' }\n[[pre-stop.step]]\nname = 'c\"{{'\n\
             save = { from = '/x', to = '/state' }\n"
                .into(),
        ),
    ];
    texts.extend(special.map(|(name, text)| (name.to_owned(), text)));
    let write = |(index, (name, text)): (usize, (String, String))| {
        let path = folder.join(format!("{index}/boathook.toml"));
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(&path, text).expect("written");
        Configuration { name, path }
    };
    texts.into_iter().enumerate().map(write).collect()
}

fn run(config: &Path, arguments: &[&str]) -> Output {
    process::Command::new(env!("CARGO_BIN_EXE_boathook-kube"))
        .args(["manifest", "--config"])
        .arg(config)
        .args(arguments)
        .env_clear()
        .output()
        .expect("the binary starts")
}

/// The same without a process, which there are too many of otherwise.
fn write(config: &Path, arguments: &[&str]) -> Result<String, Fatal> {
    let words = ["boathook", "manifest"].iter().chain(arguments);
    let Command::Manifest(options) = Cli::try_parse_from(words).expect("a command line").command else {
        panic!("{arguments:?}")
    };
    manifest::write(Some(config), &options)
}

fn print(config: &Path, arguments: &[&str]) -> String {
    write(config, arguments).unwrap_or_else(|fatal| panic!("{arguments:?}: {fatal:?}"))
}

/// Those that fit: without an agent as the entrypoint some hooks would not run.
fn ways(config: &Configuration) -> Vec<&'static str> {
    let fits = |way: &&str| match write(&config.path, &["--way", way]) {
        Ok(_) => true,
        Err(fatal) => {
            assert!(fatal.code == exit::USAGE && ["exec", "serve"].contains(way), "{}: {fatal:?}", config.name);
            false
        }
    };
    WAYS.into_iter().filter(fits).collect()
}

fn parse(text: &str) -> Value {
    let mut documents =
        document::read("printed", 0, text).unwrap_or_else(|error| panic!("{}: {:?}\n{text}", error.what, error.line));
    // The patches within a component are documents, too.
    assert!(documents.len() == 1 || documents[0].kind() == "Component", "{text}");
    documents.remove(0).value
}

fn wrap(kind: &str, spec: &Value) -> Value {
    let labels = json!({"app": "web"});
    let mut template = json!({"metadata": {"labels": labels}, "spec": spec});
    let restarts = !kind.ends_with("Job");
    template["spec"]["restartPolicy"] = json!(if restarts { "Always" } else { "Never" });
    let (version, spec) = match kind {
        "Pod" => ("v1", template["spec"].take()),
        "Job" => ("batch/v1", json!({"template": template})),
        "CronJob" => ("batch/v1", json!({"schedule": "0 * * * *", "jobTemplate": {"spec": {"template": template}}})),
        "StatefulSet" => {
            ("apps/v1", json!({"serviceName": "web", "selector": {"matchLabels": labels}, "template": template}))
        }
        _ => ("apps/v1", json!({"selector": {"matchLabels": labels}, "template": template})),
    };
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": "web"}, "spec": spec})
}

/// The pod's spec in a workload.
fn spec_of(document: &Value) -> &Value {
    ["/spec/jobTemplate/spec/template/spec", "/spec/template/spec", "/spec"]
        .iter()
        .find_map(|path| document.pointer(path))
        .unwrap_or(document)
}

/// A patch takes away with null what was there before.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(_, value)| !value.is_null());
            kept.map(|(key, value)| (key.clone(), without_nulls(value))).collect()
        }
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        value => value.clone(),
    }
}

/// What a type does not know is gone when it is written again.
fn roundtrip<T: DeserializeOwned + Serialize>(value: &Value) -> Result<Value, String> {
    let typed: T = serde_json::from_value(value.clone()).map_err(|error| error.to_string())?;
    Ok(serde_json::to_value(typed).expect("it came from there"))
}

fn is_understood(value: &Value) -> Result<(), String> {
    let again = match value["kind"].as_str() {
        None => roundtrip::<PodSpec>(value),
        Some("Pod") => roundtrip::<Pod>(value),
        Some("Deployment") => roundtrip::<Deployment>(value),
        Some("StatefulSet") => roundtrip::<StatefulSet>(value),
        Some("DaemonSet") => roundtrip::<DaemonSet>(value),
        Some("Job") => roundtrip::<Job>(value),
        Some("CronJob") => roundtrip::<CronJob>(value),
        Some(other) => return Err(format!("{other}: no workload")),
    }?;
    (again == *value).then_some(()).ok_or_else(|| format!("lost: {value}\nleft: {again}"))
}

#[test]
fn kubernetes_types_know_every_field_and_all_forms_say_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut seen = 0;
    for (index, config) in configurations(folder.path()).iter().enumerate() {
        let Configuration { name, path } = config;
        for way in ways(config) {
            let kind = KINDS[(index + seen) % KINDS.len()];
            let options = ["--way", way, "--name", "web", "--kind", kind, "--container", "web"];
            let snippet = parse(&print(path, &["--way", way, "--container", "web"]));
            is_understood(&snippet).unwrap_or_else(|why| panic!("{name}, {way}: {why}"));
            let full = wrap(kind, &snippet);
            is_understood(&full).unwrap_or_else(|why| panic!("{name}, {way}, {kind}: {why}"));

            let patch = parse(&print(path, &[&["--format", "patch"][..], &options].concat()));
            assert_eq!((&patch["apiVersion"], &patch["kind"]), (&full["apiVersion"], &full["kind"]));
            assert_eq!(patch["metadata"], json!({"name": "web"}));
            assert_eq!(without_nulls(spec_of(&patch)), snippet, "{name}, {way}, {kind}");

            let component = parse(&print(path, &[&["--format", "kustomize"][..], &options].concat()));
            assert_eq!(component["kind"], "Component");
            assert_eq!(component["patches"][0]["target"], json!({"kind": kind, "name": "web"}));
            let inline = component["patches"][0]["patch"].as_str().expect("a text");
            assert_eq!(parse(inline), patch, "{name}, {way}, {kind}");
            seen += 1;
        }
    }
    assert!(seen >= 100, "only {seen}");
    // The control: a slip is lost, a wrong type is refused.
    assert!(is_understood(&json!({"containers": [{"name": "a", "readinesProbe": {}}]})).is_err());
    assert!(is_understood(&json!({"containers": [{"name": "a"}], "terminationGracePeriodSeconds": "30"})).is_err());
    assert!(is_understood(&json!({"containers": [{"name": "a"}], "terminationGracePeriodSeconds": 30})).is_ok());
}

/// Runs a program with this on its stdin.
fn feed(command: &mut process::Command, input: &str) -> String {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    writer.join().expect("it ends").expect("read");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn kubernetes_own_schemas_take_it_strictly() {
    let Some((python, packages)) = python_with(&[VALIDATE]) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let (mut texts, mut names) = (Vec::new(), Vec::new());
    for config in configurations(folder.path()) {
        let Configuration { name, path } = &config;
        for (way, kind) in ways(&config).into_iter().zip(KINDS.iter().cycle().skip(names.len())) {
            // Behind the workload's own lines, as it is printed and not as we understood it.
            let printed = print(path, &["--way", way, "--format", "patch", "--name", "web", "--kind", kind]);
            let mut full = wrap(kind, &without_nulls(spec_of(&parse(&printed))));
            // A pod of its own has to name an image; a patch leaves that to the workload.
            full.pointer_mut(match *kind {
                "Pod" => "/spec/containers/0",
                "CronJob" => "/spec/jobTemplate/spec/template/spec/containers/0",
                _ => "/spec/template/spec/containers/0",
            })
            .expect("a container")["image"] = json!("my-web:1");
            texts.push(full.to_string());
            // The printed text itself, for whatever reads it otherwise than we do.
            texts.push(
                print(path, &["--way", way])
                    .lines()
                    .fold("apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n".to_owned(), |text, line| {
                        text + "  " + line + "\n"
                    }),
            );
            names.extend([format!("{name}, {way}, {kind}"), format!("{name}, {way}")]);
        }
    }
    let slip = texts[1].replace("periodSeconds", "periodSecond");
    assert_ne!(slip, texts[1]);
    texts.push(slip);
    let mut command = process::Command::new(python);
    command.args(["-c", include_str!("manifest_support/validate.py")]).env("PYTHONPATH", packages);
    let wrong = feed(&mut command, &serde_json::to_string(&texts).expect("JSON"));
    let mut wrong: Vec<Option<String>> = serde_json::from_str(&wrong).expect("JSON");
    let control = wrong.pop().flatten().unwrap_or_default();
    assert!(control.contains("'periodSecond' was unexpected"), "{control}");
    assert_eq!(wrong.len(), names.len());
    for (wrong, name) in wrong.into_iter().zip(names) {
        assert_eq!(wrong, None, "{name}");
    }
}

// ---- kustomize ----

/// A workload that has everything already: another container, ports with names, an environment, volumes, hooks of its own.
fn base(kind: &str) -> Value {
    let from_secret = json!({"secretKeyRef": {"name": "web", "key": "token"}});
    let spec = json!({
        "serviceAccountName": "web",
        "securityContext": {"fsGroup": 1000},
        "initContainers": [{"name": "migrate", "image": "my-web:1", "command": ["/app", "migrate"]}],
        "containers": [
            {"name": "proxy", "image": "proxy:1", "ports": [{"name": "proxy", "containerPort": 15001}],
             "env": [{"name": "MODE", "value": "on"}], "securityContext": {"runAsUser": 1337}},
            {"name": "web", "image": "my-web:1", "args": ["--fast"],
             "env": [{"name": "COLOR", "value": "blue"}, {"name": "BOATHOOK_TOKEN", "valueFrom": from_secret},
                     {"name": "HOST_IP", "value": "192.0.2.7"}],
             "ports": [{"name": "http", "containerPort": 8080}, {"name": "metrics", "containerPort": 9090}],
             "lifecycle": {"preStop": {"exec": {"command": ["sleep", "5"]}},
                           "postStart": {"httpGet": {"path": "/warm", "port": 8080, "scheme": "HTTPS"}}},
             "readinessProbe": {"tcpSocket": {"port": "http"}, "successThreshold": 1},
             "livenessProbe": {"httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTPS",
                                           "httpHeaders": [{"name": "X-Probe", "value": "1"}]},
                               "initialDelaySeconds": 5, "terminationGracePeriodSeconds": 3},
             "resources": {"requests": {"cpu": "100m"}},
             "securityContext": {"runAsUser": 101},
             "volumeMounts": [{"name": "config", "mountPath": "/etc/web"}, {"name": "tmp", "mountPath": "/tmp"}]},
        ],
        "volumes": [{"name": "config", "configMap": {"name": "web"}}, {"name": "tmp", "emptyDir": {}}],
    });
    wrap(kind, &spec)
}

/// In blocks, as people write it: kustomize stumbles over a long text in braces.
fn to_yaml(value: &Value, indent: usize) -> String {
    let space = " ".repeat(indent);
    let below = |value: &Value| match value {
        Value::Object(fields) if !fields.is_empty() => format!("\n{}", to_yaml(value, indent + 2)),
        Value::Array(_) => format!("\n{}", to_yaml(value, indent + 2)),
        value => format!(" {value}\n"),
    };
    match value {
        Value::Object(fields) => fields.iter().map(|(key, value)| format!("{space}{key}:{}", below(value))).collect(),
        Value::Array(items) => items.iter().map(|item| format!("{space}-{}", below(item))).collect(),
        value => format!("{space}{value}\n"),
    }
}

/// What the patch says is there, and what it does not say is as it was. Lists go by the key that their items have.
fn hold_against(merged: &Value, base: &Value, patch: &Value, path: &str, wrong: &mut Vec<String>) {
    match (merged, base, patch) {
        (Value::Object(fields), _, Value::Object(patch)) if base.is_object() || base.is_null() => {
            let none = Value::Null;
            for (key, merged) in fields {
                let (base, patch) = (base.get(key).unwrap_or(&none), patch.get(key).unwrap_or(&none));
                hold_against(merged, base, patch, &format!("{path}.{key}"), wrong);
            }
            for key in patch.keys().chain(base.as_object().into_iter().flat_map(|base| base.keys())) {
                let is_taken_away = patch.get(key).is_some_and(Value::is_null);
                if fields.contains_key(key) == is_taken_away {
                    wrong.push(format!("{path}.{key}: {}", if is_taken_away { "still there" } else { "lost" }));
                }
            }
        }
        (Value::Array(items), base, Value::Array(patch)) => {
            let key_of = |item: &Value| {
                ["mountPath", "containerPort", "name"].iter().find_map(|key| Some((*key, item.get(key)?.clone())))
            };
            let Some((key, _)) = patch.first().and_then(key_of) else {
                assert_eq!(items.len(), patch.len(), "{path}");
                for (index, (item, patch)) in items.iter().zip(patch).enumerate() {
                    hold_against(item, &Value::Null, patch, &format!("{path}[{index}]"), wrong);
                }
                return;
            };
            let find = |list: &[Value], item: &Value| {
                list.iter().find(|other| other[key] == item[key]).cloned().unwrap_or_default()
            };
            let base = base.as_array().cloned().unwrap_or_default();
            for item in items {
                let path = format!("{path}[{}]", item[key]);
                hold_against(item, &find(&base, item), &find(patch, item), &path, wrong);
            }
            let lost = patch.iter().chain(&base).filter(|item| find(items, item).is_null());
            wrong.extend(lost.map(|item| format!("{path}[{}]: lost", item[key])));
        }
        (merged, base, patch) => {
            let wanted = if patch.is_null() { base } else { patch };
            // The generated name: kustomize adds a hash of what is in it.
            let is_hashed = merged.as_str().is_some_and(|name| {
                name.strip_prefix("boathook-").is_some_and(|hash| hash.len() == 10) && *wanted == "boathook"
            });
            wrong.extend((merged != wanted && !is_hashed).then(|| format!("{path}: {merged}, wanted {wanted}")));
        }
    }
}

#[test]
fn kustomize_merges_the_component_into_a_real_workload() {
    let Some(kubectl) = find_program("kubectl") else {
        // It comes from no package of the system, so not even CI has it.
        eprintln!("NOT RUN: kubectl is not installed");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let configurations = configurations(folder.path());
    for (index, kind) in KINDS.iter().enumerate() {
        let wanted = ["1-entrypoint", "state-volume", "token beside", "token written", "variables", "folders"][index];
        let config = configurations.iter().find(|config| config.name.ends_with(wanted)).expect(wanted);
        let place = folder.path().join(kind);
        let component = place.join("boathook");
        fs::create_dir_all(&component).expect("made");
        let ways = ways(config);
        let way = ways[index % ways.len()];
        let options = ["--way", way, "--name", "web", "--kind", kind, "--container", "web"];
        let printed = print(&config.path, &[&["--format", "kustomize"][..], &options].concat());
        fs::write(component.join("kustomization.yaml"), printed).expect("written");
        fs::copy(&config.path, component.join("boathook.toml")).expect("copied");
        let base = base(kind);
        fs::write(place.join("workload.yaml"), to_yaml(&base, 0)).expect("written");
        let top = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [workload.yaml]\n\
            components: [./boathook]\n";
        fs::write(place.join("kustomization.yaml"), top).expect("written");
        let output = process::Command::new(&kubectl).arg("kustomize").arg(&place).output().expect("kubectl starts");
        assert!(output.status.success(), "{kind}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("text");
        let documents = document::read("built", 0, &text).expect("YAML");
        let merged = documents.iter().find(|document| document.kind() == *kind).expect("the workload");
        let patch = parse(&print(&config.path, &[&["--format", "patch"][..], &options].concat()));
        let mut wrong = Vec::new();
        hold_against(&merged.value, &base, &patch, "", &mut wrong);
        assert_eq!(wrong, Vec::<String>::new(), "{kind}\n{text}");
        is_understood(&merged.value).unwrap_or_else(|why| panic!("{kind}: {why}"));
        // The generated file is there, by the name that the pod has.
        let kept = if wanted == "token written" { "Secret" } else { "ConfigMap" };
        let kept = documents.iter().find(|document| document.kind() == kept).expect(kept);
        assert!(spec_of(&merged.value).to_string().contains(&format!("\"{}\"", kept.name())), "{kind}\n{text}");
        // The controls: a change that nobody asked for, and one that did not come.
        for (from, to) in [("\"--fast\"", "\"--slow\""), ("/etc/boathook", "/etc/boathoop"), ("15001", "15002")] {
            let other = merged.value.to_string().replace(from, to).parse::<Value>().expect("JSON");
            let mut wrong = Vec::new();
            hold_against(&other, &base, &patch, "", &mut wrong);
            assert!(!wrong.is_empty(), "{from}");
        }
    }
}

// ---- Helm ----

/// Helm's engine as a program of its own; built once.
fn renderer() -> Option<PathBuf> {
    let (go, sprig) = (find_program("go"), "/usr/share/gocode/src/github.com/Masterminds/sprig");
    let Some(go) = go.filter(|_| Path::new(sprig).exists()) else {
        not_run("golang-go or golang-github-masterminds-sprig-dev is not installed");
        return None;
    };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("helm");
    fs::create_dir_all(&folder).expect("made");
    let source = folder.join("render.go");
    fs::write(&source, include_str!("manifest_support/render.go")).expect("written");
    let built = process::Command::new(go)
        .args(["build", "-o"])
        .args([folder.join("render"), source])
        .envs([("GO111MODULE", "off"), ("GOPATH", "/usr/share/gocode"), ("GOFLAGS", ""), ("CGO_ENABLED", "0")])
        .env("GOCACHE", folder.join("cache"))
        .output()
        .expect("go starts");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Some(folder.join("render"))
}

/// The lines for values.yaml, out of the comment that they are printed in.
fn values_of(printed: &str) -> String {
    let (_, values) = printed.split_once("# For values.yaml").expect("the values");
    values.lines().skip(1).map(|line| line.trim_start().trim_start_matches("# ").to_owned() + "\n").collect::<String>()
}

#[test]
fn helm_renders_the_plans_values_and_those_of_a_charts_user() {
    let Some(renderer) = renderer() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let (mut jobs, mut wanted) = (Vec::new(), Vec::new());
    for (index, config) in configurations(folder.path()).iter().enumerate() {
        let Configuration { name, path } = config;
        for way in ways(config) {
            let kind = KINDS[index % KINDS.len()];
            let options = ["--way", way, "--kind", kind, "--", "app", "{{ .Values }}", "it's", "$(X)"];
            let printed = print(path, &[&["--format", "helm"][..], &options].concat());
            // Where it is pasted: in a template that is made of nothing else but the workload around it.
            let around = match kind {
                "Pod" => "kind: Pod\nspec:\n",
                "CronJob" => "kind: CronJob\nspec:\n  jobTemplate:\n    spec:\n      template:\n        spec:\n",
                _ => "kind: X\nspec:\n  template:\n    spec:\n",
            };
            let template = format!("{around}{printed}");
            let pasted = |values: &str| json!({"Template": template, "Values": values});
            jobs.extend([pasted(""), pasted("boathook: {}"), pasted(&values_of(&printed))]);
            let snippet = parse(&print(path, &["--way", way, "--", "app", "{{ .Values }}", "it's", "$(X)"]));
            wanted.extend([0, 1, 2].map(|nth| (format!("{name}, {way}, values {nth}"), snippet.clone())));
        }
    }
    let config = folder.path().join("own.toml");
    fs::write(&config, "[server]\ntoken-env = 'T'\n").expect("written");
    let printed = print(&config, &["--format", "helm", "--way", "install", "--kind", "Pod"]);
    let own = "boathook:\n  gracePeriodSeconds: 99\n  token: \"a\\\"b\"\n  securityContext: {runAsUser: 7}\n  image: mine:2\n";
    jobs.push(json!({"Template": format!("spec:\n{printed}"), "Values": own}));

    let rendered = feed(&mut process::Command::new(renderer), &serde_json::to_string(&jobs).expect("JSON"));
    let mut rendered: Vec<String> = serde_json::from_str(&rendered).expect("JSON");
    let changed = parse(&rendered.pop().expect("the last one"));
    assert_eq!(rendered.len(), wanted.len());
    for (text, (name, wanted)) in rendered.iter().zip(wanted) {
        assert_eq!(*spec_of(&parse(text)), wanted, "{name}\n{text}");
    }
    let spec = &changed["spec"];
    assert_eq!(spec["terminationGracePeriodSeconds"], 99);
    let container = &spec["containers"][0];
    assert_eq!(container["env"][0]["value"], "a\"b");
    assert_eq!(container["lifecycle"]["preStop"]["httpGet"]["httpHeaders"][0]["value"], "Bearer a\"b");
    assert_eq!(container["securityContext"], json!({"runAsUser": 7}));
    assert_eq!(spec["initContainers"][0]["image"], "mine:2");
}

// ---- what is in it ----

#[test]
fn it_reads_as_people_write_it() {
    let config = root().join("examples/1-entrypoint/boathook.toml");
    let printed = print(&config, &["--container", "web", "--", "nginx", "-g", "daemon off;"]);
    let (head, text) = printed.split_once("terminationGrace").expect("the first field");
    assert!(head.lines().all(|line| line.starts_with("# ")), "{head}");
    let wanted = r#"PeriodSeconds: 30  # pre-stop 24s + main process 5s + rounding 1s
containers:
  - name: web
    # image, resources and what else it has stay as they are
    command: ["/boathook", "run", "--", "nginx", "-g", "daemon off;"]  # hides the image's ENTRYPOINT and CMD
    env:
      - name: BOATHOOK_TOKEN
        value: replace-me-with-the-token  # [server] token-env; the same as in the hooks' headers
        # or from a Secret, whose value the hooks' headers have to repeat:
        # valueFrom: {secretKeyRef: {name: boathook, key: token}}
    ports:
      - containerPort: 8080  # [app] ports
      - name: hooks  # [server] listen
        containerPort: 4665
    lifecycle:
      postStart:  # answers at once: readiness waits for post-start
        httpGet:
          path: /started
          port: hooks
          httpHeaders:
            - name: Authorization
              value: Bearer replace-me-with-the-token  # in plain text: the kubelet takes it from nowhere else
      preStop:  # pre-stop takes 20s at most
        httpGet:
          path: /shutdown
          port: hooks
          httpHeaders:
            - name: Authorization
              value: Bearer replace-me-with-the-token  # in plain text: the kubelet takes it from nowhere else
    readinessProbe:  # true when post-start is done, false from the first moment of pre-stop
      httpGet:
        path: /ready
        port: hooks
      periodSeconds: 1  # the shortest that there is; costs next to nothing
      timeoutSeconds: 1  # /ready asks nobody else
      failureThreshold: 2  # one slow answer is no reason yet
    livenessProbe:  # true through a long start and a long drain, false when a hook is stuck
      httpGet:
        path: /live
        port: hooks
      periodSeconds: 10
      timeoutSeconds: 5  # /live asks nobody: who is late is short of CPU
      failureThreshold: 3
    securityContext:
      runAsNonRoot: true  # the image's USER, as a number, or runAsUser here
      readOnlyRootFilesystem: true  # where the application writes, it needs a volume
      allowPrivilegeEscalation: false
      capabilities: {drop: [ALL]}  # boathook itself needs none
      seccompProfile: {type: RuntimeDefault}
    volumeMounts:
      - name: boathook-config
        mountPath: /etc/boathook
        readOnly: true
volumes:
  - name: boathook-config  # boathook.toml
    configMap:
      name: boathook
"#;
    assert_eq!(text, wanted);
}

/// Each of these follows from the configuration alone.
#[test]
fn values_follow_from_the_configuration() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("boathook.toml");
    let steps = "[[post-start.step]]\nsleep = '1s'\n[[pre-stop.step]]\nsleep = '1s'\n";
    let container = "/containers/0";
    let http = |path: &str| json!({"httpGet": {"path": path, "port": "hooks"}});
    let exec = |word: &str| json!({"exec": {"command": ["/boathook", word]}});
    let opt = |word: &str| json!({"exec": {"command": ["/opt/boathook/boathook", word]}});
    let open = "[server]\nallow-from = ['gateway']\n";
    for (way, text, pointer, wanted) in [
        ("run", format!("grace-period = '45500ms'\n{open}"), "/terminationGracePeriodSeconds", json!(46)),
        (
            "run",
            format!("{open}{steps}"),
            "/containers/0/lifecycle",
            json!({"postStart": http("/started"), "preStop": http("/shutdown")}),
        ),
        ("run", open.into(), "/containers/0/lifecycle", json!({"preStop": http("/shutdown")})),
        (
            "exec",
            steps.into(),
            "/containers/0/lifecycle",
            json!({"postStart": exec("started"), "preStop": exec("shutdown")}),
        ),
        ("exec", steps.into(), "/containers/0/readinessProbe", Value::Null),
        ("exec", steps.into(), "/containers/0/ports", Value::Null),
        (
            "serve",
            open.into(),
            "/containers/0/lifecycle/postStart/exec/command",
            json!(["/boathook", "serve", "--background", "--started"]),
        ),
        ("serve", open.into(), "/containers/0/lifecycle/preStop", http("/shutdown")),
        ("run", "[server]\nlisten = 'off'\n".into(), "/containers/0/lifecycle", json!({"preStop": exec("shutdown")})),
        (
            "install",
            "[server]\nlisten = '127.0.0.1:1'\n".into(),
            "/containers/0/lifecycle",
            json!({"preStop": opt("shutdown")}),
        ),
        (
            "run",
            "[server]\nlisten = '[::1]:1'\n".into(),
            "/containers/0/readinessProbe/exec",
            exec("ready")["exec"].clone(),
        ),
        (
            "run",
            "[server]\nlisten = ':99'\ntoken-env = 'T'\n".into(),
            "/containers/0/ports",
            json!([{"name": "hooks", "containerPort": 99}]),
        ),
        (
            "run",
            format!("{open}[readiness]\ntcp = 'a:1'\ntimeout = '3s'\ncache = '2500ms'\n"),
            "/containers/0/readinessProbe/timeoutSeconds",
            json!(4),
        ),
        (
            "run",
            format!("{open}[readiness]\ntcp = 'a:1'\ntimeout = '3s'\ncache = '2500ms'\n"),
            "/containers/0/readinessProbe/periodSeconds",
            json!(3),
        ),
        (
            "run",
            format!("{open}[log]\ntermination-message = '/x'\n"),
            "/containers/0/terminationMessagePath",
            json!("/x"),
        ),
        (
            "run",
            format!("{open}[log]\ntermination-message = '/dev/termination-log'\n"),
            "/containers/0/terminationMessagePath",
            Value::Null,
        ),
        (
            "run",
            "[server]\nallow-from = ['${HOST_IP}']\n".into(),
            "/containers/0/env",
            json!([{"name": "HOST_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}]),
        ),
        (
            "run",
            "[server]\ntoken = '${A_TOKEN}'\n".into(),
            "/containers/0/env",
            json!([{"name": "A_TOKEN", "value": "replace-me-with-the-token"}]),
        ),
        ("run", "[server]\ntoken = '${A_TOKEN}'\n".into(), "/volumes/0/configMap/name", json!("boathook")),
        ("run", "[server]\ntoken = 'abcdefgh'\n".into(), "/volumes/0/secret/secretName", json!("boathook")),
        (
            "run",
            "[server]\ntoken-file = '/run/secrets/x/t'\n".into(),
            "/containers/0/volumeMounts/1",
            json!({"name": "boathook-token", "mountPath": "/run/secrets/x", "readOnly": true}),
        ),
        ("run", "[server]\ntoken-file = '/run/t'\n".into(), "/containers/0/volumeMounts/1/subPath", json!("t")),
        ("run", format!("{open}[app]\npreset = 'nginx'\n"), "/containers/0/ports/0/name", json!("hooks")),
        (
            "run",
            format!("{open}[[pre-start.step]]\nfile = {{ touch = '/etc/x' }}\n"),
            "/containers/0/securityContext/readOnlyRootFilesystem",
            json!(false),
        ),
        (
            "run",
            format!("{open}[[pre-start.step]]\nfile = {{ touch = '/run/x/y' }}\n"),
            "/volumes/1",
            json!({"name": "boathook-run-x", "emptyDir": {}}),
        ),
        (
            "run",
            format!("{open}[[pre-stop.step]]\nname = 'x'\nsave = {{ from = '/a', to = '/state' }}\n"),
            "/volumes/1/persistentVolumeClaim/claimName",
            json!("replace-me-with-a-claim-for-state"),
        ),
        (
            "run",
            format!("{open}[[pre-stop.step]]\nname = 'x'\nsave = {{ from = '/a', to = 's3://b/c' }}\n"),
            "/containers/0/env/1/valueFrom/secretKeyRef/key",
            json!("aws-secret-access-key"),
        ),
        ("install", open.into(), "/initContainers/0/command", json!(["/boathook", "install", "/opt/boathook"])),
        ("install", open.into(), "/containers/0/command/3", json!("replace-me-with-the-images-own-entrypoint")),
        ("run", open.into(), "/containers/0/command", Value::Null),
    ] {
        fs::write(&config, &text).expect("written");
        let spec = parse(&print(&config, &["--way", way]));
        assert!(spec.pointer(container).is_some());
        assert_eq!(*spec.pointer(pointer).unwrap_or(&Value::Null), wanted, "{way}, {pointer}\n{text}");
    }
}

/// A Deployment gives up on a rollout after ten minutes.
#[test]
fn a_long_start_moves_the_progress_deadline() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("boathook.toml");
    for (deadline, wanted) in [("599s", Value::Null), ("600s", json!(780)), ("20m", json!(1530))] {
        let text = "[server]\nallow-from = ['gateway']\n[[post-start.step]]\nsleep = '1s'\n";
        fs::write(&config, format!("{text}[post-start]\ndeadline = '{deadline}'\n")).expect("written");
        let patch = ["--format", "patch", "--name", "web", "--kind"];
        let deployment = parse(&print(&config, &[&patch[..], &["Deployment"]].concat()));
        assert_eq!(deployment["spec"]["progressDeadlineSeconds"], wanted, "{deadline}");
        let other = parse(&print(&config, &[&patch[..], &["DaemonSet"]].concat()));
        assert_eq!(other["spec"]["progressDeadlineSeconds"], Value::Null);
        assert_eq!(print(&config, &[]).contains("progressDeadlineSeconds: "), !wanted.is_null());
    }
}

#[test]
fn what_is_no_field_is_said_beside_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("web.toml");
    for (text, arguments, said) in [
        ("allow-from = ['gateway']\n", &["--way", "run"][..], "# allow-from = [\"gateway\"] is for bridge networks"),
        (
            "allow-from = ['gateway']\n[app]\nports = [80]\n",
            &[],
            "# port 80: who is not root may listen there only with",
        ),
        ("allow-from = ['gateway']\n[app]\npreset = 'php-fpm'\n", &[], "# php-fpm: its master starts as root"),
        ("listen = '127.0.0.1:1'\n", &[], "With hostNetwork: true httpGet"),
        (
            "allow-from = ['gateway']\n[[pre-stop.step]]\nexec = { command = ['a'], user = 'x' }\n",
            &[],
            "# pre-stop: step \"exec\": runs as another user, which takes root",
        ),
        (
            "allow-from = ['gateway']\n[[post-start.step]]\nsleep = '1s'\n",
            &[],
            "# no startupProbe: the start may take 1m, and /live is true from its first moment",
        ),
        (
            "allow-from = ['gateway']\n",
            &["--way", "exec"],
            "# readinessProbe and livenessProbe: the application's own stay",
        ),
        (
            "allow-from = ['gateway']\n",
            &["--format", "kustomize", "--name", "x"],
            "files: [\"boathook.toml=web.toml\"]",
        ),
    ] {
        fs::write(&config, format!("[server]\n{text}")).expect("written");
        let printed = print(&config, arguments);
        assert!(printed.contains(said), "{said}\n{printed}");
        parse(&printed);
    }
}

#[test]
fn the_defaults_need_no_file_and_no_mount() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = process::Command::new(env!("CARGO_BIN_EXE_boathook-kube"))
        .arg("manifest")
        .env_clear()
        .current_dir(folder.path())
        .output()
        .expect("the binary starts");
    if Path::new(boathook::config::USUAL_PLACE).exists() {
        return not_run("there is a configuration in the usual place");
    }
    let spec = parse(&String::from_utf8_lossy(&output.stdout));
    assert_eq!((&spec["volumes"], &spec["terminationGracePeriodSeconds"]), (&Value::Null, &json!(30)));
}

#[test]
fn no_secret_is_ever_printed() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("boathook.toml");
    let mut seen = 0;
    for text in [
        format!("[server]\ntoken = '{SECRET}'\n"),
        "[server]\ntoken = '${BOATHOOK_TOKEN}'\n".into(),
        format!("[server]\ntoken = '${{NONE:-{SECRET}}}'\n"),
        "[server]\ntoken-env = 'BOATHOOK_TOKEN'\n[[pre-stop.step]]\nexec = ['x', '${DB_PASSWORD}']\n".into(),
        "[server]\ntoken-env = 'BOATHOOK_TOKEN'\n[[pre-stop.step]]\nhttp = { url = 'http://a/', bearer = '${DB_PASSWORD}' }\n".into(),
        // Those that are wrong, too.
        format!("[server]\ntoken = '{SECRET}'\ntoken-env = 'BOATHOOK_TOKEN'\n"),
        "[server]\ntoken-env = 'BOATHOOK_TOKEN'\n[app]\nstop-signal = '${DB_PASSWORD}'\n".into(),
    ] {
        fs::write(&config, &text).expect("written");
        for way in WAYS {
            for format in [&["snippet"][..], &["helm"], &["patch", "--name", "web"], &["kustomize", "--name", "web"]] {
                let output = process::Command::new(env!("CARGO_BIN_EXE_boathook-kube"))
                    .args(["manifest", "--way", way, "--config"])
                    .arg(&config)
                    .arg("--format")
                    .args(format)
                    .env_clear()
                    .envs(["BOATHOOK_TOKEN", "DB_PASSWORD"].map(|name| (name, SECRET)))
                    .output()
                    .expect("the binary starts");
                let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
                assert!(!said.contains(SECRET), "{text}\n{way} {format:?}\n{said}");
                let is_asked_for = output.status.success() && (way != "exec" || said.contains("token-env;"));
                assert_eq!(said.contains("replace-me-with-the-token"), is_asked_for, "{text}\n{way}\n{said}");
                seen += usize::from(output.status.success());
            }
        }
    }
    assert!(seen >= 5 * 16, "only {seen}");
    // The control: what is not secret does come through, so it would be seen.
    let grace = "[server]\nallow-from = ['gateway']\n[log]\ntermination-message = '/run/${DB_PASSWORD}'\n";
    fs::write(&config, grace.replace("${DB_PASSWORD}", SECRET)).expect("written");
    assert!(print(&config, &[]).contains(SECRET));
}

#[test]
fn what_does_not_fit_together_is_refused_with_a_way_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("boathook.toml");
    fs::write(&config, "[server]\nallow-from = ['gateway']\n").expect("written");
    for (arguments, what, help) in [
        (&["--format", "patch"][..], "manifest: --format patch needs the name of what it patches", "add --name"),
        (&["--format", "kustomize"], "manifest: --format kustomize needs the name of what it patches", "--name web"),
        (&["--name", "web"], "manifest: --format snippet has no place for --name", "--format patch or kustomize"),
        (&["--format", "helm", "--name", "web"], "manifest: --format helm has no place for --name", "take it out"),
        (&["--image", "b:1"], "manifest: --image is the init container's, which only --way install has", "take it out"),
        (&["--container", "Web"], "manifest: --container: `Web` is not a name in Kubernetes", "small letters"),
        (&["--container", "a\nb"], "manifest: --container: `a\\nb` is not a name in Kubernetes", "small letters"),
        (&["--format", "patch", "--name=-a"], "manifest: --name: `-a` is not", "small letters"),
        (&["--format", "yaml"], "invalid value 'yaml' for '--format", "snippet, patch, kustomize, helm"),
        (&["--way", "rum"], "invalid value 'rum' for '--way", "run, exec, serve, install"),
        (
            &["--kind", "Service"],
            "invalid value 'Service' for '--kind",
            "Deployment, StatefulSet, DaemonSet, Job, CronJob, Pod",
        ),
    ] {
        let output = run(&config, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {said}");
        assert!(said.contains(what) && said.contains(help), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty());
    }
    // And a way that the configuration does not fit.
    for (text, what) in [
        ("[[pre-start.step]]\nsleep = '1s'\n", "manifest: pre-start has steps, which nobody runs unless"),
        ("[[post-stop.step]]\nsleep = '1s'\n", "manifest: post-stop has steps, which nobody runs unless"),
        (
            "[post-start]\ndeadline = '61s'\n[[post-start.step]]\nsleep = '1s'\n",
            "manifest: post-start may take 1m1s here",
        ),
    ] {
        fs::write(&config, format!("[server]\nallow-from = ['gateway']\n{text}")).expect("written");
        for way in ["exec", "serve"] {
            let output = run(&config, &["--way", way]);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.code() == Some(64) && said.contains(what) && said.contains("--way run"), "{said}");
        }
        assert!(write(&config, &[]).is_ok());
    }
    fs::write(&config, "[server]\nallow-from = ['gateway']\n").expect("written");
    assert!(print(&config, &["--format", "patch", "--name", "a.b", "--kind", "cronjob"]).contains("kind: CronJob"));
}

/// Nothing is written from a configuration that is not good, and the words are those of `check`.
#[test]
fn a_wrong_configuration_is_told_as_check_tells_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("boathook.toml");
    for text in
        ["grace-perod = '3s'\n", "[[pre-stop.step]]\nsleep = 3\n", "x = \n", "listen = 'off'\n[app]\nports = [0]\n"]
    {
        fs::write(&config, text).expect("written");
        let output = run(&config, &[]);
        let checked = process::Command::new(env!("CARGO_BIN_EXE_boathook-kube"))
            .args(["check", "--config"])
            .arg(&config)
            .env_clear()
            .output()
            .expect("the binary starts");
        assert_eq!((output.status.code(), checked.status.code()), (Some(78), Some(78)), "{text}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&checked.stderr));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
    let output = run(&folder.path().join("none.toml"), &[]);
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("none.toml: cannot be read: No such file"));
}
