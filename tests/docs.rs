//! What people read and copy is true: the reference configuration, the README, the examples and the help texts are held
//! against the real parser, the real binary and each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use boathook::{
    cli::Cli,
    config::{self, Config, Listener},
    duration::Span,
    hook::Hook,
    problem::Problem,
};
use clap::{CommandFactory, Parser};
use yaml_rust2::{Yaml, YamlLoader};

const README: &str = include_str!("../README.md");
const REFERENCE: &str = include_str!("../config/boathook.toml");
const TOKEN: &str = "replace-me-in-all-three-places";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path.as_ref()).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

/// The environment of the manifests.
fn environment(name: &str) -> Option<String> {
    match name {
        "BOATHOOK_TOKEN" => Some(TOKEN.into()),
        "HOST_IP" => Some("192.0.2.10".into()),
        _ => None,
    }
}

fn parse(file: &str, text: &str) -> Result<Config, Vec<Problem>> {
    config::parse(file, text, &environment, Listener::Needed)
}

fn show(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

/// The real binary, with an agent's name of its own, in a folder of its own.
fn boathook(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_boathook"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("BOATHOOK_TOKEN", TOKEN)
        .env("HOST_IP", "192.0.2.10")
        .env("BOATHOOK_SOCKET", format!("docs-{}-{}", std::process::id(), folder.display()))
        .output()
        .expect("the binary starts")
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

/// Blocks in this language; those within a list are indented.
fn blocks<'t>(text: &'t str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let indent = line.len() - line.trim_start().len();
        if line.trim_start() == format!("```{language}") {
            let inner: Vec<&'t str> = lines
                .by_ref()
                .take_while(|line| line.trim() != "```")
                .map(|line| line.get(indent..).unwrap_or(""))
                .collect();
            found.push(inner.join("\n") + "\n");
        }
    }
    found
}

#[test]
fn the_readmes_configuration_and_check_are_real() {
    let toml = blocks(README, "toml");
    // The whole configuration, and the parts of one that are about presets, warm-up and state.
    assert_eq!(toml.len(), 4);
    for part in &toml[1..] {
        let part = parse("README", &format!("[server]\nallow-from = [\"gateway\"]\n{part}"));
        assert!(part.is_ok(), "{}", show(&part.err().unwrap_or_default()));
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("boathook.toml"), &toml[0]).expect("written");
    let console = blocks(README, "console");
    assert_eq!(console.len(), 1);
    let (command, wanted) = console[0].split_once('\n').expect("a command and its output");
    let words: Vec<&str> = command.strip_prefix("$ boathook ").expect("a prompt").split(' ').collect();
    let output = boathook(folder.path(), &words);
    assert_eq!(String::from_utf8_lossy(&output.stdout), wanted, "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_readmes_pod_fits_its_configuration() {
    let config = parse("README", &blocks(README, "toml")[0]).unwrap_or_else(|problems| panic!("{}", show(&problems)));
    let pods = blocks(README, "yaml");
    assert_eq!(pods.len(), 1);
    let pod = YamlLoader::load_from_str(&pods[0]).expect("YAML");
    assert_eq!(hold_against(&pod[0]["spec"], Some(&config)), Vec::<String>::new());
}

#[test]
fn the_readmes_commands_exist() {
    let makefile = read(root().join("Makefile"));
    let mut seen = 0;
    for line in blocks(README, "sh").iter().flat_map(|block| block.lines()) {
        let command = line.split(" #").next().unwrap_or_default().trim();
        if let Some(target) = command.strip_prefix("make ") {
            assert!(makefile.lines().any(|line| line.starts_with(&format!("{target}:"))), "`{command}` is no target");
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
    for link in README.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        assert!(link.starts_with("http") || root().join(link).exists(), "{link} is not there");
    }
}

#[test]
fn the_readmes_exit_codes_are_the_codes() {
    let table = README.split("## Exit codes").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("a section");
    let mut told: BTreeSet<String> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" |").next())
        .filter(|code| code.starts_with(|c: char| c.is_ascii_digit()))
        .flat_map(|codes| codes.split(", ").map(String::from))
        .collect();
    for shell in ["126", "127", "128+N"] {
        assert!(told.remove(shell), "{shell}");
    }
    let code =
        |line: &str| Some(line.strip_prefix("pub const ")?.split_once("u8 = ")?.1.trim_end_matches(';').to_owned());
    let real: BTreeSet<String> = include_str!("../src/exit.rs").lines().filter_map(code).collect();
    assert_eq!(told, real);
    let help = Cli::command().render_long_help().to_string();
    for code in real {
        assert!(help.contains(&format!(" {code} ")), "`boathook --help` does not name {code}");
    }
}

// ---- command lines, wherever they stand ----

/// Cuts a command line as a shell does, as far as our texts need it.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (None, c) if c.is_whitespace() => words.push(String::new()),
            (_, c) => words.last_mut().expect("there is always one").push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Command lines of boathook in a text: lists of words as in a pod's `command`, and text behind a prompt, in backticks or
/// at the beginning of a line.
fn command_lines(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for line in text.lines() {
        for (at, _) in line.match_indices("[\"/") {
            let Some(end) = line[at..].find(']') else { continue };
            if let Ok(list) = serde_json::from_str::<Vec<String>>(&line[at..=at + end])
                && list[0].ends_with("/boathook")
            {
                found.push(list);
            }
        }
        let inline = line.split('`').skip(1).step_by(2);
        let plain = line.trim_start().trim_start_matches("$ ");
        for command in inline.chain([plain, plain.trim_start_matches("Example: ")]) {
            // A word of prose follows the name in a sentence, a subcommand or an option in a command.
            let command = command.split(" > ").next().unwrap_or_default().split("   (").next().unwrap_or_default();
            let known = |word: &str| word.starts_with("--") || Cli::command().find_subcommand(word).is_some();
            let list = words(command);
            if list.len() > 1 && list[0] == "boathook" && known(&list[1]) {
                found.push(list);
            }
        }
    }
    found
}

fn check_command_lines(place: &str, text: &str) -> usize {
    let lines = command_lines(text);
    for line in &lines {
        // The name of a subcommand (`boathook run`), and a placeholder for any kind of step.
        let is_name = line.len() == 2 && Cli::command().find_subcommand(&line[1]).is_some();
        if is_name || line.iter().any(|word| word == "KIND") {
            continue;
        }
        if let Err(error) = Cli::try_parse_from(line) {
            assert!(!error.use_stderr(), "{place}: {line:?}: {error}");
        }
    }
    lines.len()
}

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
    folders.sort();
    assert!(folders.len() >= 6);
    folders
}

fn files_of_examples() -> Vec<PathBuf> {
    let within = |folder: PathBuf| fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> = example_folders().into_iter().flat_map(within).collect();
    files.extend(pages().map(|(path, _)| path));
    files
}

/// The pages beside the examples.
fn pages() -> impl Iterator<Item = (PathBuf, String)> {
    ["README.md", "STATE.md", "WARM-UP.md"].into_iter().map(|name| {
        let path = root().join("examples").join(name);
        let text = read(&path);
        (path, text)
    })
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

/// Everything in which a pod's specification does not fit the configuration.
fn hold_against(spec: &Yaml, config: Option<&Config>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut want = |what: bool, why: String| {
        if !what {
            wrong.push(why);
        }
    };
    let grace = spec["terminationGracePeriodSeconds"].as_i64().and_then(|seconds| u64::try_from(seconds).ok());
    let grace = grace.map(Duration::from_secs);
    want(grace.is_some(), "terminationGracePeriodSeconds is missing".into());
    if let (Some(grace), Some(config)) = (grace, config) {
        want(config.grace_is_configured, "grace-period is not in the configuration".into());
        want(grace == config.grace.period, format!("{grace:?} in the pod, {:?} in the file", config.grace.period));
    }
    let with_hooks: Vec<&Yaml> =
        list(&spec["containers"]).iter().filter(|container| !container["lifecycle"].is_badvalue()).collect();
    want(with_hooks.len() == 1, "one container has hooks".into());
    let container = with_hooks[0];
    let ports: BTreeMap<&str, i64> = list(&container["ports"])
        .iter()
        .filter_map(|port| Some((port["name"].as_str()?, port["containerPort"].as_i64()?)))
        .collect();
    let listen = config.and_then(|config| config.server.listen).map(|listen| i64::from(listen.port()));
    let number = |port: &Yaml| port.as_i64().or_else(|| ports.get(port.as_str()?).copied());

    let mut by_http = false;
    for (hook, path, subcommands) in
        [("postStart", "/started", ["started", "serve"]), ("preStop", "/shutdown", ["shutdown", "step"])]
    {
        let handler = &container["lifecycle"][hook];
        let command = strings(&handler["exec"]["command"]);
        if command.is_empty() && handler["httpGet"].is_badvalue() {
            want(config.is_none(), format!("{hook} is missing"));
            continue;
        }
        if !command.is_empty() {
            want(command[0].ends_with("/boathook"), format!("{hook}: {command:?}"));
            want(subcommands.contains(&command[1].as_str()), format!("{hook}: {command:?}"));
            want(Cli::try_parse_from(&command).is_ok(), format!("{hook}: {command:?}"));
            continue;
        }
        by_http = true;
        let get = &handler["httpGet"];
        want(get["path"].as_str() == Some(path), format!("{hook}: path {:?}", get["path"]));
        want(listen.is_some() && number(&get["port"]) == listen, format!("{hook}: port {:?}", get["port"]));
        let headers: Vec<(&str, &str)> = list(&get["httpHeaders"])
            .iter()
            .filter_map(|header| Some((header["name"].as_str()?, header["value"].as_str()?)))
            .collect();
        let bearer = format!("Bearer {TOKEN}");
        let wanted = match config.is_some_and(|config| config.server.rights.token.is_some()) {
            true => vec![("Authorization", bearer.as_str())],
            false => vec![],
        };
        want(headers == wanted, format!("{hook}: headers {headers:?}"));
    }
    for (probe, path) in [("readinessProbe", "/ready"), ("livenessProbe", "/live")] {
        let get = &container[probe]["httpGet"];
        if get.is_badvalue() {
            continue;
        }
        if by_http {
            want(get["path"].as_str() == Some(path), format!("{probe}: path {:?}", get["path"]));
            want(number(&get["port"]) == listen, format!("{probe}: port {:?}", get["port"]));
        } else {
            want(number(&get["port"]).is_some(), format!("{probe}: port {:?}", get["port"]));
        }
    }
    want(!container["readinessProbe"].is_badvalue(), "there is no readiness probe".into());
    let startup = &container["startupProbe"];
    if let (Some(config), false) = (config, startup.is_badvalue()) {
        let get = &startup["httpGet"];
        want(get["path"].as_str() == Some("/ready"), format!("startupProbe: path {:?}", get["path"]));
        want(number(&get["port"]) == listen, format!("startupProbe: port {:?}", get["port"]));
        // Kubernetes' defaults are three times with ten seconds between.
        let times = startup["failureThreshold"].as_i64().unwrap_or(3) * startup["periodSeconds"].as_i64().unwrap_or(10);
        let hooks = [Hook::PreStart, Hook::PostStart].map(|hook| config.hook(hook).deadline);
        let needed = hooks.into_iter().sum::<Duration>();
        let given = Duration::from_secs(times.try_into().unwrap_or(0));
        want(given > needed, format!("startupProbe: {given:?}, and a start may take {needed:?}"));
    }
    if let Some(config) = config {
        for port in &config.app.ports {
            want(ports.values().any(|known| *known == i64::from(*port)), format!("port {port} is not the container's"));
        }
        let mounts = list(&container["volumeMounts"]);
        let mount = mounts.iter().find(|mount| mount["mountPath"].as_str() == Some("/etc/boathook"));
        let volume = mount
            .and_then(|mount| mount["name"].as_str())
            .and_then(|name| list(&spec["volumes"]).iter().find(|volume| volume["name"].as_str() == Some(name)));
        let map = volume.and_then(|volume| volume["configMap"]["name"].as_str());
        want(map == Some("boathook"), "the configuration is not mounted".into());
    }
    let variables: BTreeMap<&str, &Yaml> =
        list(&container["env"]).iter().filter_map(|variable| Some((variable["name"].as_str()?, variable))).collect();
    if let Some(token) = variables.get("BOATHOOK_TOKEN") {
        want(token["value"].as_str() == Some(TOKEN), "another token than in the headers".into());
    }
    if let Some(host) = variables.get("HOST_IP") {
        let field = host["valueFrom"]["fieldRef"]["fieldPath"].as_str();
        want(field == Some("status.hostIP"), format!("HOST_IP from {field:?}"));
    }
    wrong
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
                assert_eq!(hold_against(spec, config.as_ref()), Vec::<String>::new(), "{place}");
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
fn a_manifest_that_does_not_fit_is_seen() {
    let config = parse("README", &blocks(README, "toml")[0]).expect("good");
    let pod = &blocks(README, "yaml")[0];
    for (right, wrong) in [
        ("terminationGracePeriodSeconds: 30", "terminationGracePeriodSeconds: 31"),
        ("path: /shutdown", "path: /stop"),
        ("path: /ready", "path: /"),
        ("containerPort: 4665", "containerPort: 4666"),
        ("containerPort: 8080", "containerPort: 80"),
        ("Bearer replace-me", "Bearer another"),
        ("mountPath: /etc/boathook", "mountPath: /etc/elsewhere"),
    ] {
        assert!(pod.contains(right), "{right}");
        let pod = YamlLoader::load_from_str(&pod.replace(right, wrong)).expect("YAML");
        assert_ne!(hold_against(&pod[0]["spec"], Some(&config)), Vec::<String>::new(), "{wrong} was not seen");
    }
}

#[test]
fn a_startup_probe_that_kills_a_start_is_seen() {
    let folder = root().join("examples/warm-database");
    let config = parse("warm-database", &read(folder.join("boathook.toml"))).expect("good");
    let deployment = read(folder.join("deployment.yaml"));
    for (right, wrong, is_good) in [
        ("failureThreshold: 240", "failureThreshold: 240", true),
        ("failureThreshold: 240", "failureThreshold: 210", false),
        ("failureThreshold: 240", "failureThreshold: 23", false),
    ] {
        assert!(deployment.contains(right), "{right}");
        let pod = YamlLoader::load_from_str(&deployment.replace(right, wrong)).expect("YAML");
        let problems = hold_against(&pod[0]["spec"]["template"]["spec"], Some(&config));
        assert_eq!(problems.is_empty(), is_good, "{wrong}: {problems:?}");
    }
}

/// Keys that the pages name (`key = …`) are in the reference.
#[test]
fn the_pages_name_keys_that_there_are() {
    let names = |text: &str| -> BTreeSet<String> {
        let spans = text.split('`').skip(1).step_by(2).map(str::to_owned);
        let keys = spans.filter_map(|span| span.split_once(" = ").map(|(key, _)| key.to_owned()));
        keys.filter(|key| key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')).collect()
    };
    let is_known = |key: &String| REFERENCE.contains(&format!("{key} = "));
    for (path, text) in pages().filter(|(path, _)| !path.ends_with("README.md")) {
        let keys = names(&text);
        assert!(keys.len() >= 3, "{}: {keys:?}", path.display());
        let unknown: Vec<_> = keys.iter().filter(|key| !is_known(key)).collect();
        assert!(unknown.is_empty(), "{}: {unknown:?}", path.display());
    }
    assert_eq!(names("`successes = 200` and `succeses = 1`").iter().filter(|key| !is_known(key)).count(), 1);
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
