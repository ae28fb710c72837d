//! What the project tells people to write passes its own check: the YAML that `manifest` prints for every example, and
//! every example's own manifests.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use serde_json::Value;
use support::boathook;

/// The ways that `manifest` writes for.
const WAYS: [&str; 4] = ["run", "exec", "serve", "install"];

/// Its formats that are YAML; `helm` is a template.
const FORMATS: [&str; 3] = ["snippet", "patch", "kustomize"];

/// As many as run side by side: each process takes milliseconds.
const SIDE_BY_SIDE: usize = 4;

/// The command line does not fit, as in `boathook::exit`: `manifest` says so where a way does not fit a configuration.
const USAGE: i32 = 64;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").into()
}

fn folders(parent: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    let mut folders: Vec<PathBuf> =
        entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

/// Every folder of an example, the cookbook's as well.
fn examples() -> Vec<PathBuf> {
    let examples = root().join("examples");
    let mut all = folders(&examples);
    all.extend(folders(&examples.join("cookbook")));
    all
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    files.sort();
    files
}

/// The configurations of an example: most have one.
fn configurations(folder: &Path) -> Vec<PathBuf> {
    files(folder, "toml")
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// How `check` sees these manifests.
struct Checked {
    /// What is wrong, in words; `None`: nothing but notes.
    complaint: Option<String>,
    /// The rules behind it, each once.
    rules: Vec<String>,
    /// With boathook; where it sees none it finds nothing, whatever is wrong.
    containers: u64,
}

fn check(config: Option<&Path>, manifests: &str) -> Checked {
    let mut arguments = vec!["check", "--format", "json"];
    let config = config.map(|config| config.display().to_string());
    if let Some(config) = &config {
        arguments.extend(["--config", config]);
    }
    arguments.extend(["--pod", "-"]);
    let output = boathook(Path::new("."), &arguments, manifests.as_bytes());
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let json: Value = serde_json::from_str(&stdout).unwrap_or_default();
    let findings = json["findings"].as_array().cloned().unwrap_or_default();
    let grave = findings.iter().filter(|finding| finding["severity"] != "note");
    let mut rules: Vec<String> = grave.map(|finding| finding["rule"].as_str().unwrap_or_default().into()).collect();
    rules.sort();
    rules.dedup();
    Checked {
        rules,
        complaint: (!output.status.success()).then(|| format!("{stdout}\n{stderr}")),
        containers: json["summary"]["containers"].as_u64().unwrap_or_default(),
    }
}

#[test]
fn what_manifest_prints_passes_check_for_every_example() {
    let configurations: Vec<PathBuf> = examples().iter().flat_map(|folder| configurations(folder)).collect();
    let next = AtomicUsize::new(0);
    let all = Mutex::new((Vec::new(), 0));
    thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                while let Some(config) = configurations.get(next.fetch_add(1, Relaxed)) {
                    let (wrong, fitting) = try_all(config);
                    let mut all = all.lock().expect("no panic holds it");
                    all.0.extend(wrong);
                    all.1 += fitting;
                }
            });
        }
    });
    let (wrong, fitting) = all.into_inner().expect("no panic holds it");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(fitting > 30, "only {fitting} manifests");
}

/// In all ways and formats: what is wrong, and how many manifests there are.
fn try_all(config: &Path) -> (Vec<String>, usize) {
    let mut wrong = Vec::new();
    let config_name = config.display().to_string();
    let mut fitting = 0;
    for way in WAYS {
        for format in FORMATS {
            let what = format!("{config_name} --way {way} --format {format}");
            let mut arguments = vec!["manifest", "--config", &config_name, "--way", way, "--format", format];
            if format != "snippet" {
                arguments.extend(["--name", "web"]);
            }
            let printed = boathook(Path::new("."), &arguments, b"");
            let stderr = String::from_utf8_lossy(&printed.stderr);
            match printed.status.code() {
                Some(0) => {}
                Some(USAGE) if !stderr.trim().is_empty() => continue,
                code => {
                    wrong.push(format!("{what}: exit code {code:?}: {stderr}"));
                    continue;
                }
            }
            fitting += 1;
            let manifest = String::from_utf8_lossy(&printed.stdout);
            let checked = check(Some(config), &manifest);
            if ["exec", "serve"].contains(&way) && checked.rules == ["start-deadline"] {
                // The kubelet waits for post-start there, and it is too long for that: the way does not fit.
                continue;
            }
            if let Some(complaint) = checked.complaint {
                wrong.push(format!("{what}: {complaint}\n{manifest}"));
            } else if checked.containers != 1 {
                wrong.push(format!("{what}: boathook is seen in {} containers:\n{manifest}", checked.containers));
            }
        }
    }
    // A way fits in every format or in none.
    if fitting == 0 || fitting % FORMATS.len() != 0 {
        wrong.push(format!("{config_name}: manifest writes it in {fitting} ways and formats"));
    }
    (wrong, fitting)
}

/// As `kubectl apply -k` would put them together: all manifests of a folder with its configuration.
#[test]
fn every_example_s_own_manifests_pass_check() {
    let mut wrong = Vec::new();
    let mut with_boathook = 0;
    for folder in examples() {
        let manifests: Vec<PathBuf> = files(&folder, "yaml").into_iter().filter(|file| is_manifest(file)).collect();
        let configurations = configurations(&folder);
        // Where there are several configurations a manifest brings its own.
        let config = if let [config] = configurations.as_slice() { Some(config.as_path()) } else { None };
        for file in manifests {
            let checked = check(config, &read(&file));
            if let Some(complaint) = checked.complaint {
                wrong.push(format!("{}: {complaint}", file.display()));
            }
            with_boathook += checked.containers;
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(with_boathook >= 12, "boathook is seen in {with_boathook} containers only");
}

/// It is for Kubernetes, and not for Compose or a server.
fn is_manifest(file: &Path) -> bool {
    read(file).lines().any(|line| line.starts_with("kind:") || line.starts_with("containers:"))
}

/// The pod and the configuration that the README shows side by side.
#[test]
fn the_readme_s_pod_passes_check() {
    let readme = read(&root().join("README.md"));
    let block = |language: &str, has: &str| {
        let fence = format!("```{language}\n");
        let found =
            readme.split(&fence).skip(1).filter_map(|rest| rest.split("```").next()).find(|text| text.contains(has));
        found.unwrap_or_else(|| panic!("no {language} with {has} in the README")).to_owned()
    };
    let config = block("toml", "grace-period");
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\n{}",
        block("yaml", "terminationGracePeriodSeconds")
    );
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("boathook.toml");
    fs::write(&file, config).expect("written");
    let right = check(Some(&file), &pod);
    assert_eq!((right.complaint, right.containers), (None, 1));
    let wrong = pod.replace("terminationGracePeriodSeconds: 30", "terminationGracePeriodSeconds: 10");
    assert_ne!(wrong, pod);
    let complaint = check(Some(&file), &wrong).complaint.expect("a grace period that is too short is found");
    assert!(complaint.contains("grace-period-too-short"), "{complaint}");
}
