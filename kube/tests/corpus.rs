//! `check --pod` finds every planted mistake, at its place, and nothing else; it finds nothing where nothing is wrong;
//! and what `--fix` writes is right.
//!
//! The manifests are in `corpus/bad` and `corpus/good`. They were written from what the kubelet does, not from what the
//! rules do. Their first comments say what is expected:
//!
//! - `# config: ../configs/web.toml`: what is given as `--config`; without it the configuration is in the file.
//! - `# expect: RULE, or RULE at PATH`: the one finding of a bad manifest. The path is a part of the finding's.
//! - `# line: 7` or `# lines: 7-12`: where it is told. What is missing is told anywhere in what should hold it.
//! - `# at least: note`: where it is a matter of opinion how bad that is; otherwise it is a warning or an error.
//! - `# several: WHY`: one mistake that shows at several places.
//! - `# containers: 2`: in a good manifest, how many have boathook; one where it does not say.

use std::{
    fs,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use serde_json::Value;
use yaml_rust2::YamlLoader;

/// So many of each there are at least: what the project promises.
const BAD: usize = 60;
const GOOD: usize = 30;

/// As many as run side by side: the machines of the pipeline have two cores, and each process takes milliseconds.
const SIDE_BY_SIDE: usize = 4;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

fn manifests(kind: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(corpus().join(kind))
        .expect("the corpus")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    files
}

fn name(file: &Path) -> String {
    file.file_stem().expect("a name").to_string_lossy().into_owned()
}

/// What stands behind `# KEY: ` in the comments at the top.
fn header<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    let comments = text.lines().take_while(|line| line.starts_with('#'));
    comments.filter_map(|line| line.strip_prefix("# ")?.strip_prefix(key)?.strip_prefix(": ")).next()
}

/// The real binary, without this machine's own variables.
fn check(file: &Path, config: Option<&Path>, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_boathook-kube"));
    command.arg("check").args(more).arg("--pod").arg(file).env_clear().stdin(Stdio::null());
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    command.output().expect("the binary starts")
}

fn config_of(file: &Path, text: &str) -> Option<PathBuf> {
    header(text, "config").map(|config| file.parent().expect("a folder").join(config))
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

#[derive(Debug, Clone)]
struct Found {
    rule: String,
    severity: String,
    path: String,
    line: usize,
}

impl Found {
    fn is_harmless(&self) -> bool {
        self.severity == "note"
    }
}

/// The findings, from JSON.
fn found(output: &Output) -> Result<Vec<Found>, String> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let json: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("no JSON ({error}), exit {:?}: {stderr}", output.status.code()))?;
    let list = json["findings"].as_array().ok_or("no list of findings")?;
    let text = |value: &Value, key: &str| value[key].as_str().map(String::from).ok_or(format!("no {key} in {value}"));
    list.iter()
        .map(|value| {
            Ok(Found {
                rule: text(value, "rule")?,
                severity: text(value, "severity")?,
                path: text(value, "path")?,
                line: value["line"]
                    .as_u64()
                    .and_then(|line| line.try_into().ok())
                    .ok_or(format!("no line in {value}"))?,
            })
        })
        .collect()
}

/// In how many containers it sees boathook: where it sees none it finds nothing, whatever is wrong.
fn containers(output: &Output) -> Result<u64, String> {
    let json: Value = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    json["summary"]["containers"].as_u64().ok_or_else(|| format!("no number of containers in {json}"))
}

/// What a bad manifest says that it is.
#[derive(Debug)]
struct Expected {
    rules: Vec<String>,
    path: String,
    lines: RangeInclusive<usize>,
    harmless: bool,
    several: bool,
}

fn expected(text: &str) -> Option<Expected> {
    let (rules, path) = header(text, "expect")?.split_once(" at ")?;
    let (first, last) = match (header(text, "line"), header(text, "lines")) {
        (Some(line), None) => (line, line),
        (None, Some(lines)) => lines.split_once('-')?,
        _ => return None,
    };
    Some(Expected {
        rules: rules.split(", or ").map(String::from).collect(),
        path: path.into(),
        lines: first.parse().ok()?..=last.parse().ok()?,
        harmless: header(text, "at least") == Some("note"),
        several: header(text, "several").is_some(),
    })
}

/// 1 with an error among them, 2 with a warning, else 0.
fn exit_code(findings: &[Found]) -> i32 {
    let any = |severity: &str| findings.iter().any(|found| found.severity == severity);
    if any("error") {
        1
    } else if any("warning") {
        2
    } else {
        0
    }
}

/// Whether these findings are what is expected; if not, why.
fn judge(expected: &Expected, findings: &[Found]) -> Result<(), String> {
    let is_expected = |found: &Found| {
        expected.rules.contains(&found.rule)
            && found.path.contains(&expected.path)
            && expected.lines.contains(&found.line)
            && (expected.harmless || !found.is_harmless())
    };
    let (right, wrong): (Vec<&Found>, Vec<&Found>) = findings.iter().partition(|found| is_expected(found));
    let wrong: Vec<&Found> = wrong.into_iter().filter(|found| !found.is_harmless()).collect();
    match (right.len(), wrong.is_empty()) {
        (0, _) => Err(format!("not found: {expected:?}; found: {findings:?}")),
        (_, false) => Err(format!("also found: {wrong:?}")),
        (2.., _) if !expected.several => Err(format!("found several times: {right:?}")),
        _ => Ok(()),
    }
}

fn check_bad(file: &Path) -> Result<(), String> {
    let text = read(file);
    let expected = expected(&text).ok_or("the comments at its top do not say what is expected")?;
    let output = check(file, config_of(file, &text).as_deref(), &["--format", "json"]);
    let findings = found(&output)?;
    judge(&expected, &findings)?;
    match exit_code(&findings) {
        code if output.status.code() == Some(code) => Ok(()),
        code => Err(format!("exit code {:?}, not {code}: {findings:?}", output.status.code())),
    }
}

fn check_good(file: &Path) -> Result<(), String> {
    let text = read(file);
    let config = config_of(file, &text);
    let output = check(file, config.as_deref(), &["--format", "json"]);
    let findings = found(&output)?;
    if let Some(alarm) = findings.iter().find(|found| !found.is_harmless()) {
        return Err(format!("a false alarm: {alarm:?}"));
    }
    if !output.status.success() {
        return Err(format!("exit code {:?}", output.status.code()));
    }
    let wanted =
        header(&text, "containers").map_or(Ok(1), str::parse).map_err(|error| format!("containers: {error}"))?;
    match containers(&output)? {
        seen if seen == wanted => Ok(()),
        seen => Err(format!("{seen} containers with boathook are seen, not {wanted}")),
    }
}

/// Nothing but notes: then `--fix` has nothing to do.
fn check_untouched(file: &Path) -> Result<(), String> {
    let text = read(file);
    let fixed = check(file, config_of(file, &text).as_deref(), &["--fix"]);
    if fixed.stdout == text.as_bytes() { Ok(()) } else { Err("--fix changes what is right".into()) }
}

/// The texts of comments: from a `#` that begins a line or follows a space (in a block of text it is taken for one, too,
/// which asks for more than needed).
fn comments(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let at = if line.trim_start().starts_with('#') { line.find('#') } else { line.find(" #") };
        at.map(|at| line[at..].trim())
    })
}

/// What `--fix` makes of it, if it does anything: right, still YAML, with its comments.
fn check_fix(file: &Path) -> Result<bool, String> {
    let text = read(file);
    let expected = expected(&text).ok_or("the comments at its top do not say what is expected")?;
    let config = config_of(file, &text);
    let fixed = check(file, config.as_deref(), &["--fix"]);
    let fixed = String::from_utf8(fixed.stdout).map_err(|error| error.to_string())?;
    if fixed == text {
        return Ok(false);
    }
    YamlLoader::load_from_str(&fixed).map_err(|error| format!("no YAML any more: {error}\n{fixed}"))?;
    let lost: Vec<&str> = comments(&text).filter(|comment| !fixed.contains(comment)).collect();
    if !lost.is_empty() {
        return Err(format!("comments are lost: {lost:?}"));
    }
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let copy = folder.path().join("fixed.yaml");
    fs::write(&copy, &fixed).map_err(|error| error.to_string())?;
    let findings = found(&check(&copy, config.as_deref(), &["--format", "json"]))?;
    // A finding that is told twice may be one that can be written and one that cannot.
    match findings.iter().find(|found| !found.is_harmless() || expected.rules.contains(&found.rule)) {
        Some(left) => Err(format!("still there, or new: {left:?} in\n{fixed}")),
        None => Ok(true),
    }
}

/// The same findings in every format.
fn check_formats(file: &Path) -> Result<(), String> {
    let text = read(file);
    let config = config_of(file, &text);
    let run = |format: &str| check(file, config.as_deref(), &["--format", format]);
    let json = run("json");
    let findings = found(&json)?;
    let sarif = run("sarif");
    let log: Value = serde_json::from_slice(&sarif.stdout).map_err(|error| format!("SARIF: {error}"))?;
    if log["version"] != "2.1.0" {
        return Err(format!("SARIF of version {}", log["version"]));
    }
    let results = log["runs"][0]["results"].as_array().ok_or("SARIF without results")?;
    let lines: Vec<(Option<&str>, Option<u64>)> = results
        .iter()
        .map(|result| {
            let region = &result["locations"][0]["physicalLocation"]["region"];
            (result["ruleId"].as_str(), region["startLine"].as_u64())
        })
        .collect();
    let wanted: Vec<(Option<&str>, Option<u64>)> =
        findings.iter().map(|found| (Some(found.rule.as_str()), found.line.try_into().ok())).collect();
    if lines != wanted {
        return Err(format!("SARIF says {lines:?}, JSON {wanted:?}"));
    }
    let github = run("github");
    let github_text = String::from_utf8_lossy(&github.stdout);
    let annotations: Vec<&str> = github_text.lines().filter(|line| line.starts_with("::")).collect();
    let good = |line: &&str| {
        ["::error ", "::warning ", "::notice "].iter().any(|level| line.starts_with(level))
            && line.contains("file=")
            && line.contains("line=")
    };
    if annotations.len() != findings.len() || !annotations.iter().all(good) {
        return Err(format!("annotations for {} findings:\n{github_text}", findings.len()));
    }
    let words = run("text");
    let words_text = String::from_utf8_lossy(&words.stdout);
    if let Some(missing) = findings.iter().find(|found| !words_text.contains(&found.rule)) {
        return Err(format!("the text does not name {missing:?}:\n{words_text}"));
    }
    let codes = [&json, &sarif, &github, &words].map(|output| output.status.code());
    if codes.iter().any(|code| *code != codes[0]) {
        return Err(format!("exit codes {codes:?}"));
    }
    Ok(())
}

/// Every file by `check`, some side by side; all that went wrong is told at once.
fn every<T: Send>(files: &[PathBuf], check: impl Fn(&Path) -> Result<T, String> + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                while let Some(file) = files.get(next.fetch_add(1, Relaxed)) {
                    match check(file) {
                        Ok(value) => done.lock().expect("no panic holds it").push(value),
                        Err(why) => failed.lock().expect("no panic holds it").push(format!("{}: {why}", name(file))),
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().expect("no panic holds it");
    failed.sort();
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), files.len(), failed.join("\n"));
    done.into_inner().expect("no panic holds it")
}

#[test]
fn every_planted_mistake_is_found_and_nothing_else() {
    let files = manifests("bad");
    assert!(files.len() >= BAD, "only {} bad manifests", files.len());
    every(&files, check_bad);
}

#[test]
fn what_is_right_gives_no_alarm() {
    let files = manifests("good");
    assert!(files.len() >= GOOD, "only {} good manifests", files.len());
    every(&files, check_good);
}

#[test]
fn fix_leaves_alone_what_is_right() {
    every(&manifests("good"), check_untouched);
}

#[test]
fn what_fix_writes_is_right() {
    let fixed = every(&manifests("bad"), check_fix);
    // Where only a person can decide, nothing is written; that must not be everywhere.
    let done = fixed.iter().filter(|done| **done).count();
    assert!(done * 2 >= fixed.len(), "only {done} of {} are corrected", fixed.len());
}

#[test]
fn every_format_says_the_same() {
    every(&manifests("bad"), check_formats);
    every(&manifests("good"), check_formats);
}

/// Each bad manifest says what is expected in a way that is understood, and each rule is planted somewhere.
#[test]
fn the_corpus_covers_every_rule() {
    let mut rules: Vec<String> = Vec::new();
    for file in manifests("bad") {
        let text = read(&file);
        let expected = expected(&text).unwrap_or_else(|| panic!("{}: the comments at its top", name(&file)));
        assert!(*expected.lines.end() <= text.lines().count(), "{}: fewer lines", name(&file));
        rules.extend(expected.rules.into_iter().take(1));
    }
    rules.sort();
    rules.dedup();
    for rule in [
        "config-not-mounted",
        "entrypoint-bypassed",
        "grace-period-differs",
        "grace-period-too-short",
        "host-network-without-host",
        "liveness-kills-drain",
        "liveness-kills-start",
        "port-differs",
        "port-taken",
        "post-start-does-not-match",
        "post-start-nothing-listens",
        "pre-stop-does-not-match",
        "pre-stop-missing",
        "pre-stop-sleep",
        "probe-grace-period",
        "probe-on-application-port",
        "read-only-root",
        "readiness-missing",
        "start-deadline",
        "state-volume-missing",
        "stop-signal-differs",
        "termination-message-path",
        "variable-missing",
        "wrong-type",
    ] {
        assert!(rules.iter().any(|planted| planted == rule), "nobody plants {rule}");
    }
}

/// The judge is no yes-man: another rule, another place, another line, a second finding, none.
#[test]
fn the_judge_refuses_what_is_not_expected() {
    let text = "# expect: a-rule, or b-rule at spec.x\n# lines: 3-4\n# why\n";
    let expected = expected(text).expect("understood");
    let right = Found { rule: "b-rule".into(), severity: "warning".into(), path: "spec.x.y".into(), line: 4 };
    let note = Found { rule: "c-rule".into(), severity: "note".into(), path: "spec".into(), line: 1 };
    assert_eq!(judge(&expected, &[right.clone(), note.clone()]), Ok(()));
    for wrong in [
        vec![],
        vec![Found { rule: "c-rule".into(), ..right.clone() }],
        vec![Found { path: "spec".into(), ..right.clone() }],
        vec![Found { line: 5, ..right.clone() }],
        vec![Found { severity: "note".into(), ..right.clone() }],
        vec![right.clone(), right.clone()],
        vec![right, Found { severity: "error".into(), ..note }],
    ] {
        assert!(judge(&expected, &wrong).is_err(), "{wrong:?}");
    }
    // And a manifest that is right is none with a mistake.
    let good = corpus().join("good/web-deployment.yaml");
    assert!(check_bad(&good).is_err());
}
