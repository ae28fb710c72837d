//! What people read and copy is true: the reference configuration, the README, the examples and the help texts are held
//! against the real parser, the real binary and each other. The book is in tests/book.rs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use boathook::{cli::Cli, config::Config, duration::Span, hook::Hook, problem::Problem};
use clap::{CommandFactory, Parser};
use yaml_rust2::{Yaml, YamlLoader};

mod docs_support;
use docs_support::{
    blocks, check_command_lines, command_lines, parse, parse_block, read, reproduce, root, show, words,
};

const README: &str = include_str!("../README.md");
const REFERENCE: &str = include_str!("../config/boathook.toml");
fn boathook(folder: &Path, arguments: &[&str]) -> Output {
    docs_support::run(env!("CARGO_BIN_EXE_boathook"), folder, arguments)
}

// ---- the reference ----

/// One text of the reference: as it is, or with one of its examples in it.
struct Variant {
    /// The line on which the example begins, 1 for the text itself.
    line: usize,
    text: String,
    /// The example's own lines, counted from 0, as they are in the text.
    lines: Vec<usize>,
}

fn is_example(line: &str) -> bool {
    line.strip_prefix('#').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '['))
}

fn key_of(line: &str) -> Option<&str> {
    let (key, _) = line.trim_start_matches('#').split_once('=')?;
    Some(key.trim()).filter(|key| key.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
}

fn is_header(line: &str) -> bool {
    line.starts_with('[')
}

/// Every example by itself. What begins with a `[` is one with the lines that follow it, up to the next step; every
/// other line stands for itself, instead of an active line with its key.
fn variants() -> Vec<Variant> {
    let lines: Vec<&str> = REFERENCE.lines().collect();
    let mut found = vec![Variant { line: 1, text: REFERENCE.into(), lines: vec![] }];
    let mut at = 0;
    while at < lines.len() {
        if !is_example(lines[at]) {
            at += 1;
            continue;
        }
        let begin = at;
        at += 1;
        let is_step =
            |line: &str| line.starts_with("#[[") && line.split(']').next().is_some_and(|name| name.ends_with("step"));
        if lines[begin].starts_with("#[") {
            while at < lines.len() && is_example(lines[at]) && !is_step(lines[at]) {
                at += 1;
            }
        }
        let mut text: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        for line in &mut text[begin..at] {
            line.remove(0);
        }
        if let Some(key) = key_of(lines[begin]) {
            let table = (0..begin).rev().find(|line| is_header(lines[*line])).map_or(0, |line| line + 1);
            let end = (table..lines.len()).find(|line| is_header(lines[*line])).unwrap_or(lines.len());
            for line in (table..end).filter(|line| *line != begin) {
                if !lines[line].starts_with('#') && key_of(lines[line]) == Some(key) {
                    text[line].insert(0, '#');
                }
            }
        }
        found.push(Variant { line: begin + 1, text: text.join("\n"), lines: (begin..at).collect() });
    }
    found
}

/// A file that only a container has is no fault of the example.
fn is_good(result: &Result<Config, Vec<Problem>>) -> bool {
    match result {
        Ok(_) => true,
        Err(problems) => problems.iter().all(|problem| problem.what.to_lowercase().contains("no such file")),
    }
}

#[test]
fn the_reference_passes_check_as_it_is() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let printed = boathook(folder.path(), &["config"]);
    assert_eq!(String::from_utf8_lossy(&printed.stdout), REFERENCE);
    fs::write(folder.path().join("boathook.toml"), &printed.stdout).expect("written");
    let checked = boathook(folder.path(), &["check", "--config", "boathook.toml"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn every_example_in_the_reference_works_by_itself() {
    let variants = variants();
    assert!(variants.len() >= 50, "only {} examples found", variants.len());
    for variant in variants {
        let result = parse("reference", &variant.text);
        assert!(is_good(&result), "example on line {}:\n{}", variant.line, show(&result.expect_err("a problem")));
    }
    // The negative control: a slip in an example would be seen.
    assert!(!is_good(&parse("reference", &REFERENCE.replacen("#token-env", "token-emv", 1))));
}

#[test]
fn every_default_in_the_reference_is_the_default() {
    let shown = |text: &str| format!("{:?}", parse("reference", text).map_err(|problems| show(&problems)));
    // Whether somebody wrote the grace period is itself a fact of the configuration, told beside the key.
    let shown = |text: &str| shown(text).replace("grace_is_configured: true", "grace_is_configured: false");
    // The statuses that were written out are not followed as redirects, which says nothing for those that are none.
    let shown = |text: &str| {
        let mut parts = shown(text).split("keep: ").map(String::from).collect::<Vec<_>>();
        parts.iter_mut().skip(1).for_each(|part| *part = part.split_once("])").map_or("", |(_, rest)| rest).into());
        parts.concat()
    };
    let mut seen = 0;
    for variant in variants() {
        let lines: Vec<&str> = variant.text.lines().collect();
        let own = if variant.lines.is_empty() { (0..lines.len()).collect() } else { variant.lines };
        for at in own {
            let is_default = lines[at].split_once(" # ").is_some_and(|(_, remark)| {
                let remark = remark.trim_start();
                remark == "default" || remark.starts_with("default;")
            });
            if !is_default || lines[at].starts_with('#') {
                continue;
            }
            let without: Vec<&str> =
                lines.iter().enumerate().filter(|(line, _)| *line != at).map(|(_, line)| *line).collect();
            assert_eq!(shown(&variant.text), shown(&without.join("\n")), "line {}: {}", at + 1, lines[at]);
            seen += 1;
        }
    }
    assert!(seen >= 25, "only {seen} defaults found");
    assert_ne!(
        shown(REFERENCE),
        shown(&REFERENCE.replace("stop-reserve = \"5s\"", "stop-reserve = \"4s\"")),
        "the control"
    );
}

/// `[[pre-stop.step]]` and `[[post-start.step.group]]` are the same table to a reader.
fn table_name(path: &[&str]) -> String {
    let path: Vec<&str> = path
        .iter()
        .map(|key| if Hook::ALL.iter().any(|hook| hook.name() == *key) { "HOOK" } else { key })
        .filter(|key| *key != "group")
        .collect();
    path.join(".")
}

fn collect_keys<'t>(value: &'t toml::Value, path: &mut Vec<&'t str>, keys: &mut BTreeMap<String, BTreeSet<String>>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                keys.entry(table_name(path)).or_default().insert(key.clone());
                path.push(key);
                collect_keys(value, path, keys);
                path.pop();
            }
        }
        toml::Value::Array(list) => list.iter().for_each(|value| collect_keys(value, path, keys)),
        _ => {}
    }
}

/// What the parser says it knows in a table, by the help of its error about a key that nobody knows.
fn known_keys(text: &str) -> BTreeSet<String> {
    let problems = parse("probe", text).expect_err("nobody knows this key");
    let problem = problems.iter().find(|problem| problem.what.contains("unknown-key")).unwrap_or_else(|| {
        panic!("{text}\n{}", show(&problems));
    });
    let help = problem.help.as_deref().unwrap_or_default();
    let (_, known) = help.split_once("known here: ").unwrap_or_else(|| panic!("{text}\n{problem}"));
    known.split([',', ' ']).map(str::trim).filter(|key| !key.is_empty() && *key != "and").map(String::from).collect()
}

#[test]
fn every_key_is_in_the_reference() {
    let mut documented = BTreeMap::new();
    for variant in variants() {
        let value = variant.text.parse::<toml::Table>().expect("TOML");
        collect_keys(&toml::Value::Table(value), &mut Vec::new(), &mut documented);
    }
    let request = known_keys("[[pre-stop.step]]\nhttp = { url = 'http://a/', unknown-key = 1 }");
    let step = |inner: &str| format!("[[pre-stop.step]]\n{inner}");
    let save = known_keys(&step("save = { unknown-key = 1 }"));
    let wait = known_keys(&step("wait = { unknown-key = 1 }"));
    for (table, probe) in [
        ("", "unknown-key = 1".to_owned()),
        ("server", "[server]\nunknown-key = 1".into()),
        ("app", "[app]\nunknown-key = 1".into()),
        ("log", "[log]\nunknown-key = 1".into()),
        ("readiness", "[readiness]\nunknown-key = 1".into()),
        ("HOOK", "[pre-stop]\nunknown-key = 1".into()),
        ("HOOK.step", step("unknown-key = 1")),
        ("HOOK.step.when", step("when = { unknown-key = 1 }")),
        ("HOOK.step.when.file-contains", step("when = { file-contains = { unknown-key = 1 } }")),
        ("HOOK.step.exec", step("exec = { unknown-key = 1 }")),
        ("HOOK.step.sleep", step("sleep = { unknown-key = 1 }")),
        ("HOOK.step.signal", step("signal = { unknown-key = 1 }")),
        ("HOOK.step.file", step("file = { unknown-key = 1 }")),
        ("HOOK.step.drain", step("drain = { unknown-key = 1 }")),
        ("HOOK.step.drain.metric", step("drain = { metric = { unknown-key = 1 } }")),
        ("HOOK.step.http", step("http = { unknown-key = 1 }")),
        ("HOOK.step.http.basic", step("http = { url = 'http://a/', basic = { unknown-key = 1 } }")),
        ("HOOK.step.restore", step("restore = { unknown-key = 1 }")),
        ("HOOK.step.save", step("save = { unknown-key = 1 }")),
        ("HOOK.step.save.from", step("save = { from = { unknown-key = 1 } }")),
        ("HOOK.step.warm-up", step("warm-up = { unknown-key = 1 }")),
        ("HOOK.step.warm-up.requests", step("warm-up = { requests = [{ unknown-key = 1 }] }")),
        ("HOOK.step.warm-up.lists", step("warm-up = { lists = [{ unknown-key = 1 }] }")),
        ("HOOK.step.wait", step("wait = { unknown-key = 1 }")),
        ("HOOK.step.wait.http", step("wait = { http = { unknown-key = 1 } }")),
        ("HOOK.step.wait.http.json", step("wait = { http = { url = 'http://a/', json = { unknown-key = 1 } } }")),
        ("HOOK.step.wait.metric", step("wait = { metric = { unknown-key = 1 } }")),
        ("HOOK.step.wait.grpc", step("wait = { grpc = { unknown-key = 1 } }")),
    ] {
        let mut known = known_keys(&probe);
        let seen = documented.remove(table).unwrap_or_default();
        let takes_request = table.starts_with("HOOK.step.wait.") || table.starts_with("HOOK.step.warm-up");
        if takes_request || ["HOOK.step.save", "HOOK.step.restore"].contains(&table) {
            // The reference says that these take the keys of a request.
            known.retain(|key| seen.contains(key) || !request.contains(key));
        }
        if table == "readiness" {
            // It says that this takes the keys that `wait` has for what it waits for.
            known.retain(|key| seen.contains(key) || !wait.contains(key));
        }
        if table == "HOOK.step.restore" {
            // It says that this takes the keys that `save` has for its place.
            known.retain(|key| seen.contains(key) || !save.contains(key));
        }
        if table == "HOOK.step.drain.metric" {
            // It says that this takes the keys of the other metric, which is held against the parser below.
            known.retain(|key| seen.contains(key));
        }
        known.remove("group");
        let mut seen = seen;
        seen.remove("group");
        assert_eq!(known, seen, "[{table}]: what the parser knows, and what the reference shows");
    }
    // Tables with free names: headers, labels, variables.
    documented.retain(|table, _| !["headers", "labels", "env"].iter().any(|free| table.ends_with(free)));
    assert_eq!(documented.into_keys().collect::<Vec<_>>(), Vec::<String>::new(), "tables without a probe");
}

// ---- the README ----

#[test]
fn the_readmes_configurations_and_checks_are_real() {
    let toml = blocks(README, "toml");
    assert_eq!(toml.len(), 2, "the whole configuration, and a part of one");
    for block in &toml {
        let understood = parse_block("README", block);
        assert!(understood.is_ok(), "{}", show(&understood.err().unwrap_or_default()));
    }
    let own = |command: &str| !["--pod", "manifest"].iter().any(|word| command.contains(word));
    assert_eq!(reproduce(env!("CARGO_BIN_EXE_boathook"), "README.md", README, own), 1);
}

#[test]
fn the_readmes_commands_exist() {
    let makefile = read(root().join("Makefile"));
    let mut seen = 0;
    for line in blocks(README, "sh").iter().flat_map(|block| block.lines()) {
        let command = line.split(" #").next().unwrap_or_default().trim();
        if let Some(target) = command.strip_prefix("make ") {
            assert!(makefile.lines().any(|line| line.starts_with(&format!("{target}:"))), "`{command}` is no target");
        } else if command.starts_with("boathook manifest ") {
            // kube/tests/manifest.rs holds what it prints against Kubernetes.
        } else if let Some(line) = command.strip_prefix("boathook ") {
            let (line, file) = line.split_once(" > ").expect("into a file");
            let folder = tempfile::tempdir().expect("a temporary folder");
            let line = words(line);
            let printed = boathook(folder.path(), &line.iter().map(String::as_str).collect::<Vec<_>>());
            fs::write(folder.path().join(file), &printed.stdout).expect("written");
            let checked = boathook(folder.path(), &["check", "--config", file]);
            assert!(checked.status.success(), "{line:?}: {}", String::from_utf8_lossy(&checked.stderr));
        } else {
            assert_eq!(command, "docker build -t boathook .");
            assert!(root().join("Dockerfile").exists());
        }
        seen += 1;
    }
    assert!(seen >= 8, "only {seen} commands");
    // And the other way round: what `make help` lists is in the README.
    for target in makefile.lines().filter(|line| line.contains("## ") && !line.starts_with(['\t', '#', ' '])) {
        let target = target.split(':').next().unwrap_or_default();
        assert!(README.contains(&format!("make {target}")), "the README does not name `make {target}`");
    }
}

#[test]
fn the_help_names_every_exit_code() {
    let mut command = Cli::command();
    // `check` has codes of its own.
    let check = command.find_subcommand_mut("check").expect("it is there").render_long_help().to_string();
    let help = command.render_long_help().to_string() + &check;
    let words: BTreeSet<&str> = help.split(|c: char| !c.is_alphanumeric()).collect();
    let codes = read(root().join("src/exit.rs"));
    let codes = codes.lines().filter_map(|line| line.strip_prefix("pub const ")?.split_once("u8 = "));
    let mut seen = 0;
    for code in codes.map(|(_, code)| code.trim_end_matches(';')) {
        assert!(words.contains(code), "`boathook --help` does not name {code}");
        seen += 1;
    }
    assert!(seen >= 7);
}

// ---- command lines, wherever they stand ----

#[test]
fn every_command_line_that_is_shown_parses() {
    assert!(check_command_lines("README.md", README) >= 10);
    assert!(check_command_lines("the reference", REFERENCE) >= 3);
    let mut seen = 0;
    for path in files_of_examples() {
        seen += check_command_lines(&path.display().to_string(), &read(&path));
    }
    assert!(seen >= 10, "only {seen} command lines in the examples");
    fn of_help(command: &mut clap::Command, path: &str) -> usize {
        let help = command.render_long_help().to_string();
        let own = check_command_lines(path, &help);
        let below: Vec<clap::Command> = command.get_subcommands().filter(|sub| !sub.is_hide_set()).cloned().collect();
        let names = below.into_iter().map(|sub| (format!("{path} {}", sub.get_name()), sub));
        own + names.map(|(path, mut sub)| of_help(&mut sub, &path)).sum::<usize>()
    }
    let mut command = Cli::command();
    command.build();
    assert!(of_help(&mut command, "boathook") >= 15);
    // The control: a command that does not exist is found and refused.
    let wrong = command_lines("`boathook step drain --prots 1`");
    assert!(Cli::try_parse_from(&wrong[0]).is_err());
}

/// A command line has no hook to name: the message once began with two colons.
#[test]
fn a_wrong_step_on_the_command_line_is_told_where_and_how() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = boathook(folder.path(), &["step", "signal", "--signal", "FOO"]);
    assert_eq!(output.status.code(), Some(64));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "boathook: command line: signal: signal: `FOO` is not a signal\n  \
         help: write a name such as \"QUIT\" or \"RTMIN+3\", or a number from 1 to 64\n"
    );
}

/// The reference says that numbers may stand in quotes; `retries` once did not take them.
#[test]
fn numbers_may_stand_in_quotes() {
    let text = |retries: &str| format!("{REFERENCE}\n[[post-stop.step]]\nsleep = '1s'\nretries = {retries}\n");
    assert!(parse("f", &text("'3'")).is_ok());
    let problems = parse("f", &text("-1")).expect_err("negative");
    assert_eq!(problems.len(), 1, "{}", show(&problems));
    assert_eq!(problems[0].place, "post-stop: step 1: retries");
    assert_eq!(problems[0].what, "`-1` is not a whole number from 0 to 4294967295");
}

// ---- the examples ----

fn example_folders() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("examples")).expect("examples");
    let mut folders: Vec<PathBuf> =
        entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_dir()).collect();
    // The cookbook has a form and tests of its own.
    folders.retain(|path| !path.ends_with("cookbook"));
    folders.sort();
    assert!(folders.len() >= 6);
    folders
}

fn files_of_examples() -> Vec<PathBuf> {
    let within = |folder: PathBuf| fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> = example_folders().into_iter().flat_map(within).collect();
    files.push(root().join("examples/README.md"));
    files
}

fn name_of(path: &Path) -> String {
    path.file_name().expect("a name").to_string_lossy().into_owned()
}

fn list(node: &Yaml) -> &[Yaml] {
    node.as_vec().map_or(&[], Vec::as_slice)
}

fn strings(node: &Yaml) -> Vec<String> {
    list(node).iter().filter_map(Yaml::as_str).map(String::from).collect()
}

/// Which variables a configuration needs from its pod.
fn needed_variables(text: &str) -> Vec<&'static str> {
    ["BOATHOOK_TOKEN", "HOST_IP"].into_iter().filter(|name| text.contains(name)).collect()
}

#[test]
fn every_example_fits_together() {
    for folder in example_folders() {
        let place = name_of(&folder);
        let file = folder.join("boathook.toml");
        let text = file.exists().then(|| read(&file));
        let config = text
            .as_ref()
            .map(|text| parse(&place, text).unwrap_or_else(|problems| panic!("{place}: {}", show(&problems))));
        let mut manifests = Vec::new();
        let mut resources = None;
        for path in fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            let name = name_of(&path);
            if !name.ends_with(".yaml") {
                continue;
            }
            let documents =
                YamlLoader::load_from_str(&read(&path)).unwrap_or_else(|error| panic!("{place}/{name}: {error}"));
            if name == "kustomization.yaml" {
                let map = &documents[0]["configMapGenerator"][0];
                assert_eq!(map["name"].as_str(), Some("boathook"), "{place}");
                let files = strings(&map["files"]);
                assert_eq!(files[0], "boathook.toml", "{place}");
                for file in &files[1..] {
                    assert!(folder.join(file).exists(), "{place}: {file}");
                    let mounted = format!("/etc/boathook/{file}");
                    assert!(text.as_ref().is_some_and(|text| text.contains(&mounted)), "{place}: nobody reads {file}");
                }
                resources = Some(strings(&documents[0]["resources"]));
            } else {
                manifests.push((name, documents));
            }
        }
        manifests.sort_by(|a, b| a.0.cmp(&b.0));
        assert!(!manifests.is_empty(), "{place} has no manifest");
        let mut names: Vec<String> = manifests.iter().map(|(name, _)| name.clone()).collect();
        if config.is_some() {
            let mut resources = resources.unwrap_or_else(|| panic!("{place} has no kustomization.yaml"));
            resources.sort();
            names.sort();
            assert_eq!(resources, names, "{place}: kustomization.yaml");
        } else {
            assert_eq!(resources, None, "{place}");
        }
        for (name, documents) in &manifests {
            let place = format!("{place}/{name}");
            let (mut pods, mut services, mut target, mut ports) = (0, 0, None, Vec::new());
            for document in documents {
                let kind = document["kind"].as_str().unwrap_or_default();
                let (labels, spec) = match kind {
                    "Pod" => (&document["metadata"]["labels"], &document["spec"]),
                    "Deployment" | "StatefulSet" => {
                        let template = &document["spec"]["template"];
                        assert_eq!(
                            document["spec"]["selector"]["matchLabels"], template["metadata"]["labels"],
                            "{place}"
                        );
                        (&template["metadata"]["labels"], &template["spec"])
                    }
                    "Service" => {
                        services += 1;
                        target = document["spec"]["ports"][0]["targetPort"].as_str().map(str::to_owned);
                        continue;
                    }
                    other => panic!("{place}: kind {other}"),
                };
                pods += 1;
                for container in list(&spec["containers"]) {
                    ports.extend(list(&container["ports"]).iter().filter_map(|port| port["name"].as_str()));
                }
                assert!(!labels.is_badvalue(), "{place}: labels");
                check_hardening(&place, spec, list(&document["spec"]["volumeClaimTemplates"]));
                let names: Vec<&str> = list(&spec["containers"])
                    .iter()
                    .flat_map(|container| list(&container["env"]))
                    .filter_map(|variable| variable["name"].as_str())
                    .collect();
                let table = text.as_ref().and_then(|text| text.parse::<toml::Table>().ok()).unwrap_or_default();
                if let Some(check) = table.get("readiness") {
                    let timeout = check.get("timeout").and_then(|timeout| timeout.as_str()).unwrap_or("800ms");
                    let timeout: Span = timeout.parse().unwrap_or_else(|error| panic!("{place}: {error}"));
                    let probes = list(&spec["containers"]).iter().map(|container| &container["readinessProbe"]);
                    let least = probes.map(|probe| probe["timeoutSeconds"].as_i64().unwrap_or(1)).min().unwrap_or(1);
                    let least = Duration::from_secs(least.try_into().unwrap_or(0));
                    assert!(timeout.0 < least, "{place}: a check of {timeout} in a probe of {least:?}");
                }
                for needed in needed_variables(text.as_deref().unwrap_or_default()) {
                    assert!(names.contains(&needed), "{place}: the configuration needs {needed}");
                }
            }
            assert_eq!(pods, 1, "{place}");
            assert!(services <= 1, "{place}");
            // The application's port, which every example names first.
            assert!(services == 0 || target.as_deref() == ports.first().copied(), "{place}: {target:?} of {ports:?}");
        }
    }
}

/// All examples promise to run without any right, and mount what there is: volumes, or claims made for each pod.
fn check_hardening(place: &str, spec: &Yaml, claims: &[Yaml]) {
    assert_eq!(spec["securityContext"]["runAsNonRoot"].as_bool(), Some(true), "{place}");
    let all = list(&spec["containers"]).iter().chain(list(&spec["initContainers"]));
    for container in all {
        let security = &container["securityContext"];
        assert_eq!(security["allowPrivilegeEscalation"].as_bool(), Some(false), "{place}");
        assert_eq!(security["readOnlyRootFilesystem"].as_bool(), Some(true), "{place}");
        assert_eq!(strings(&security["capabilities"]["drop"]), ["ALL"], "{place}");
        let claims = claims.iter().map(|claim| &claim["metadata"]["name"]);
        let volumes = list(&spec["volumes"]).iter().map(|volume| &volume["name"]).chain(claims);
        let volumes: Vec<&str> = volumes.filter_map(Yaml::as_str).collect();
        for mount in list(&container["volumeMounts"]) {
            assert!(volumes.contains(&mount["name"].as_str().unwrap_or_default()), "{place}: {mount:?}");
        }
    }
}

#[test]
fn every_example_passes_check_and_brings_the_binary() {
    for folder in example_folders() {
        let place = name_of(&folder);
        if folder.join("boathook.toml").exists() {
            let checked = boathook(&folder, &["check", "--config", "boathook.toml"]);
            assert!(checked.status.success(), "{place}: {}", String::from_utf8_lossy(&checked.stderr));
        }
        let readme = read(root().join("examples/README.md"));
        assert!(readme.contains(&format!("`{place}`")), "examples/README.md does not name {place}");
        let dockerfile = folder.join("Dockerfile");
        if dockerfile.exists() {
            assert!(read(&dockerfile).contains("COPY --from=boathook /boathook /boathook"), "{place}");
        } else {
            let uses_image = fs::read_dir(&folder)
                .expect("a folder")
                .any(|entry| read(entry.expect("an entry").path()).contains("boathook:0.1.0"));
            assert!(uses_image, "{place} does not bring the binary");
        }
    }
}

/// The classic pair of hooks, run as the kubelet runs exec hooks, with nothing else in reach: no shell, no PATH.
#[test]
fn the_classic_hooks_do_what_they_say() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hello = folder.path().join("hello.txt");
    let text = read(root().join("examples/classic-hooks-pod/boathook.toml"));
    assert!(text.contains("/var/tmp/hello.txt") && text.contains("sleep = \"10s\""));
    let text = text.replace("/var/tmp/hello.txt", &hello.display().to_string()).replace("\"10s\"", "\"300ms\"");
    fs::write(folder.path().join("boathook.toml"), text).expect("written");
    let started = boathook(folder.path(), &["started", "--config", "boathook.toml"]);
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    assert_eq!(read(&hello), "Hello postStart!\n");
    let begun = std::time::Instant::now();
    let stopped = boathook(folder.path(), &["shutdown", "--config", "boathook.toml"]);
    assert!(stopped.status.success(), "{}", String::from_utf8_lossy(&stopped.stderr));
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

// ---- the changelog ----

#[test]
fn the_changelog_keeps_its_form() {
    let text = read(root().join("CHANGELOG.md"));
    assert!(text.starts_with("# Changelog\n"));
    let headings: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(headings[0], "[Unreleased]");
    for heading in &headings[1..] {
        let (version, date) = heading.split_once(" - ").unwrap_or_else(|| panic!("{heading} has no date"));
        assert!(version.starts_with('[') && version.ends_with(']') && date.split('-').count() == 3, "{heading}");
    }
    for section in text.lines().filter_map(|line| line.strip_prefix("### ")) {
        assert!(["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"].contains(&section), "{section}");
    }
}
