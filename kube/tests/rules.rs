//! `check --pod` finds the configuration that belongs to a container by itself, and its exit code says how bad it is.
//! What each rule finds is held in `src/rules/tests.rs`.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use support::boathook;
use tempfile::TempDir;

fn check(folder: &Path, words: &[&str], stdin: &str) -> Output {
    boathook(folder, &[&["check"], words].concat(), stdin.as_bytes())
}

#[track_caller]
fn expect(output: &Output, code: i32, found: &[&str], not: &[&str]) {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{text}");
    for wanted in found {
        assert!(text.contains(wanted), "no `{wanted}` in\n{text}");
    }
    for unwanted in not {
        assert!(!text.contains(unwanted), "`{unwanted}` in\n{text}");
    }
}

fn write(folder: &TempDir, name: &str, text: &str) {
    fs::write(folder.path().join(name), text).expect("a file");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

const CONFIG: &str = "grace-period = \"40s\"\n[server]\nallow-from = [\"${HOST_IP}\"]\n[app]\nports = [8080]\n\
    [[pre-stop.step]]\ndrain = { settle = \"5s\" }\ntimeout = \"30s\"\n";

const POD: &str = r#"apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  terminationGracePeriodSeconds: 40
  containers:
    - name: web
      image: my-web:1
      env: [{name: HOST_IP, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}]
      lifecycle: {preStop: {httpGet: {path: /shutdown, port: 4665}}}
      readinessProbe: {httpGet: {path: /ready, port: 4665}}
      volumeMounts: [{name: config, mountPath: /etc/boathook}]
  volumes: [{name: config, configMap: {name: hooks}}]
"#;

/// The same pod, too short for its configuration.
fn short_pod() -> String {
    POD.replace("PeriodSeconds: 40", "PeriodSeconds: 35")
}

/// With a value that only the configuration makes wrong, so that it has to be found.
#[test]
fn finds_the_configuration_wherever_it_is() {
    let too_short = ["grace-period-too-short", "terminationGracePeriodSeconds is 35, and the worst case needs 36"];
    let indented = CONFIG.replace('\n', "\n    ");
    let map = format!("kind: ConfigMap\nmetadata: {{name: hooks}}\ndata:\n  boathook.toml: |\n    {indented}\n");
    let folder = tempfile::tempdir().expect("a folder");
    write(&folder, "pod.yaml", &short_pod());
    write(&folder, "map.yaml", &map);
    write(&folder, "boathook.toml", CONFIG);
    write(
        &folder,
        "kustomization.yaml",
        "kind: Kustomization\nconfigMapGenerator:\n- {name: hooks, files: [boathook.toml]}\n",
    );
    let at = folder.path();
    expect(&check(at, &["--pod", "pod.yaml", "map.yaml"], ""), 1, &too_short, &["config-not-read"]);
    expect(&check(at, &["--pod", "-"], &format!("{map}---\n{}", short_pod())), 1, &too_short, &[]);
    expect(&check(at, &["--pod", "pod.yaml", "kustomization.yaml"], ""), 1, &too_short, &[]);
    expect(&check(at, &["--pod", "pod.yaml", "--config", "boathook.toml"], ""), 1, &too_short, &[]);
    // Without it nothing that depends on it is told.
    expect(&check(at, &["--pod", "pod.yaml"], ""), 0, &["config-not-read"], &["grace-period"]);
    // A hash of kustomize, another key, a Secret.
    let hashed = short_pod().replace("name: hooks", "name: hooks-7h2k9d4m5t");
    expect(&check(at, &["--pod", "-", "map.yaml"], &hashed), 1, &too_short, &[]);
    let item = short_pod().replace("name: hooks", "name: hooks, items: [{key: web.toml, path: boathook.toml}]");
    let renamed = map.replace("boathook.toml", "web.toml");
    expect(&check(at, &["--pod", "-"], &format!("{renamed}---\n{item}")), 1, &too_short, &[]);
    let secret = map.replace("ConfigMap", "Secret").replace("\ndata:", "\nstringData:");
    let mounts = short_pod().replace("configMap: {name: hooks}", "secret: {secretName: hooks}");
    expect(&check(at, &["--pod", "-"], &format!("{secret}---\n{mounts}")), 1, &too_short, &[]);
}

#[test]
fn the_exit_code_says_how_bad_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    write(&folder, "boathook.toml", CONFIG);
    let run = |pod: &str, words: &[&str]| {
        let words: Vec<&str> = ["--pod", "-", "--config", "boathook.toml"].iter().chain(words).copied().collect();
        check(folder.path(), &words, pod)
    };
    expect(&run(POD, &[]), 0, &[], &["error", "warning"]);
    let longer = POD.replace("PeriodSeconds: 40", "PeriodSeconds: 60");
    expect(&run(&longer, &[]), 0, &["grace-period-differs"], &[]);
    let shorter = POD.replace("PeriodSeconds: 40", "PeriodSeconds: 38");
    expect(&run(&shorter, &[]), 2, &["grace-period-differs"], &[]);
    expect(&run(&short_pod(), &[]), 1, &["grace-period-too-short"], &[]);
    expect(&run(&POD.replace("kind: Pod", "kind: [Pod"), &[]), 65, &[], &[]);
    // The configuration itself is wrong.
    write(&folder, "boathook.toml", &CONFIG.replace("timeout = \"30s\"", "timeout = \"50s\""));
    expect(&run(POD, &[]), 78, &["timeout 50s does not fit"], &[]);
    write(&folder, "boathook.toml", "grace-period = \"${GRACE}\"\n[server]\nlisten = \"off\"\n");
    expect(&run(POD, &[]), 78, &["the value of `GRACE` is not known here"], &[]);
}

/// A pod gets told what is wrong in its container alone, and those without boathook nothing.
#[test]
fn containers_are_told_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    write(&folder, "boathook.toml", CONFIG);
    let other = "    - {name: other, image: x, lifecycle: {preStop: {sleep: {seconds: 9}}}}\n  volumes:";
    let both = POD.replace("  volumes:", other);
    let words = ["--config", "boathook.toml", "--pod", "-"];
    expect(&check(folder.path(), &words, &both), 0, &[], &["pre-stop-sleep"]);
    // Asked for by its name, it is meant.
    let named = [&words[..], &["--container", "other"]].concat();
    expect(&check(folder.path(), &named, &both), 1, &["pre-stop-sleep", "boathook-assumed"], &[]);
    let mistyped = [&words[..], &["--container", "othr"]].concat();
    expect(&check(folder.path(), &mistyped, &both), 64, &["othr: no container is called so", "other, web"], &[]);
    let nothing = "kind: Pod\nspec: {containers: [{name: a, lifecycle: {preStop: {sleep: {seconds: 9}}}}]}\n";
    expect(&check(folder.path(), &["--pod", "-"], nothing), 0, &[], &["pre-stop-sleep"]);
}

/// With a file of its own each: the one that is given is not that of the other.
#[test]
fn two_containers_have_two_configurations() {
    let folder = tempfile::tempdir().expect("a folder");
    write(&folder, "boathook.toml", CONFIG);
    write(
        &folder,
        "long.toml",
        "grace-period = \"60s\"\n[server]\nlisten = \"off\"\n[[pre-stop.step]]\nsleep = \"40s\"\n",
    );
    let side = |file: &str| {
        let own = format!(
            "    - {{name: side, image: x, command: [/side], env: [{{name: BOATHOOK_CONFIG, value: /etc/boathook/{file}}}], \
             lifecycle: {{preStop: {{exec: {{command: [/boathook, shutdown]}}}}}}, \
             volumeMounts: [{{name: config, mountPath: /etc/boathook}}]}}\n  volumes:"
        );
        POD.replace("  volumes:", &own)
    };
    let words = ["--config", "boathook.toml", "--pod", "-", "kustomization.yaml"];
    for (file, code) in [("long.toml", 1), ("boathook.toml", 1)] {
        let files =
            format!("kind: Kustomization\nconfigMapGenerator:\n- {{name: hooks, files: [boathook.toml, {file}]}}\n");
        write(&folder, "kustomization.yaml", &files);
        let wanted = if file == "long.toml" { "needs 60" } else { "`HOST_IP`" };
        expect(&check(folder.path(), &words, &side(file)), code, &[wanted], &[]);
    }
    // Without the generator the other one cannot be looked at.
    expect(&check(folder.path(), &words[..4], &side("long.toml")), 0, &["config-not-read"], &["HOST_IP"]);
}

/// As they stand in the repository, with the configuration that their kustomization names.
#[test]
fn every_example_is_right_as_it_stands() {
    let mut seen = 0;
    for entry in fs::read_dir(root().join("examples")).expect("the examples") {
        let folder = entry.expect("an entry").path();
        if !folder.is_dir() {
            continue;
        }
        let files = fs::read_dir(&folder).expect("an example").map(|entry| entry.expect("an entry").file_name());
        let files: Vec<String> = files.map(|name| name.to_string_lossy().into_owned()).collect();
        let manifests: Vec<&str> = files.iter().map(String::as_str).filter(|name| name.ends_with(".yaml")).collect();
        if manifests.is_empty() {
            continue;
        }
        let words = [&["--pod"], &manifests[..]].concat();
        expect(&check(&folder, &words, ""), 0, &[], &["config-not-read", "error[", "warning["]);
        seen += 1;
    }
    assert!(seen >= 10, "only {seen} examples");
}

/// Nothing that is typed, and no document, ends in a panic.
#[test]
fn odd_documents_are_no_trouble() {
    let folder = tempfile::tempdir().expect("a folder");
    for text in [
        "kind: Pod",
        "kind: Pod\nspec:",
        "kind: Pod\nspec: []",
        "kind: Pod\nspec: {containers: [{}]}",
        "kind: Pod\nspec: {containers: [{name: a, command: [/boathook, run, x], lifecycle: 7, ports: {}, env: x}]}",
        "kind: Pod\nspec: {terminationGracePeriodSeconds: -5, containers: [{command: [/boathook, run, x]}]}",
        "kind: Pod\nspec: {terminationGracePeriodSeconds: 99999999999999999999, containers: [{command: [boathook, run, x]}]}",
        "kind: Pod\nspec: {containers: [{command: [sh, -c, \"'\\\" \\\\ boathook run\"]}]}",
        "kind: Pod\nspec: {containers: [{command: [sh, -c]}, {command: [sh]}, {args: [boathook]}]}",
        "kind: Pod\nspec: {containers: [{command: [/boathook, run, x], livenessProbe: {httpGet: {port: -1, path: /ready}, periodSeconds: -1}}]}",
        "containers: [{name: a, lifecycle: {preStop: {httpGet: {path: \"\", port: \"\"}}, postStart: {}}, command: [/boathook, run, x]}]",
        "kind: Pod\nspec: {containers: [{command: [/boathook, run, x], volumeMounts: [{}], env: [{}], envFrom: [{}]}], volumes: [{}]}",
        "kind: List\nitems: [{kind: Pod, spec: {containers: [{name: a, command: [/boathook, step, drain]}]}}]",
    ] {
        let output = check(folder.path(), &["--pod", "-"], text);
        assert!(matches!(output.status.code(), Some(0..=2 | 65)), "{text}: {output:?}");
    }
}
