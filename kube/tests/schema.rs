//! The JSON Schema says of a configuration what boathook says, as far as a schema can: it knows every key and no other, takes
//! what is right, and refuses what is wrong. Both judge the same texts here.

#[path = "../../tests/server_support/mod.rs"]
mod server_support;

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use boathook::{
    config::{self, Config, Listener},
    preset,
    problem::Problem,
};
use boathook_kube::schema::SCHEMA;
use serde_json::{Value, json};
use server_support::python_with;

const REFERENCE: &str = include_str!("../../config/boathook.toml");
/// It brings jsonschema; the tests of `manifest` need the rest of it.
const VALIDATE: &str = "kubernetes-validate==1.37.0";
/// What Even Better TOML and other editors' tools are made of.
const TAPLO: &str = "taplo==0.9.3";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").into()
}

fn schema() -> Value {
    SCHEMA.parse().expect("JSON")
}

/// As in a container that has these variables, and none of the files.
fn parse(text: &str) -> Result<Config, Vec<Problem>> {
    let environment = |name: &str| match name {
        "HOST_IP" => Some("192.0.2.1".to_owned()),
        "PORT" => Some("8080".to_owned()),
        "NODE_ID" => Some("0".to_owned()),
        "ES_HOST" => Some("es".to_owned()),
        "BOATHOOK_TOKEN" => Some("a token".to_owned()),
        _ => None,
    };
    config::parse_elsewhere("t.toml", text, &environment, Listener::None)
}

/// What the schema finds wrong with each text; `None` where Python cannot be had.
fn judge(texts: &[String]) -> Option<Vec<Option<String>>> {
    let (python, packages) = python_with(&[VALIDATE])?;
    let mut child = Command::new(python)
        .args(["-c", include_str!("schema_support/validate.py")])
        .env("PYTHONPATH", packages)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python starts");
    let input = json!({"schema": schema(), "texts": texts}).to_string();
    let mut stdin = child.stdin.take().expect("piped");
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    writer.join().expect("it ends").expect("read");
    let wrong: Vec<Option<String>> = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(wrong.len(), texts.len());
    Some(wrong)
}

/// The reference as it is, and with each of its examples in it: what begins with a `[` together with the lines below it,
/// every other line instead of an active one with its key.
fn variants() -> Vec<String> {
    let lines: Vec<&str> = REFERENCE.lines().collect();
    let is_example = |line: &str| {
        line.strip_prefix('#').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '['))
    };
    let key_of = |line: &str| line.trim_start_matches('#').split_once('=').map(|(key, _)| key.trim().to_owned());
    let is_step = |line: &str| line.starts_with("#[[") && line.split(']').next().is_some_and(|it| it.ends_with("step"));
    let mut found = vec![REFERENCE.to_owned()];
    let mut at = 0;
    while at < lines.len() {
        let begin = at;
        at += 1;
        if !is_example(lines[begin]) {
            continue;
        }
        let mut text: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        if lines[begin].starts_with("#[") {
            while at < lines.len() && is_example(lines[at]) && !is_step(lines[at]) {
                at += 1;
            }
        } else {
            let table = (0..begin).rev().find(|line| lines[*line].starts_with('[')).map_or(0, |line| line + 1);
            let end = (table..lines.len()).find(|line| lines[*line].starts_with('[')).unwrap_or(lines.len());
            for line in table..end {
                if !lines[line].starts_with('#') && key_of(lines[line]) == key_of(lines[begin]) {
                    text[line].insert(0, '#');
                }
            }
        }
        for line in &mut text[begin..at] {
            line.remove(0);
        }
        found.push(text.join("\n"));
    }
    assert!(found.len() >= 60, "only {} examples", found.len());
    found
}

fn examples() -> Vec<PathBuf> {
    fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.file_name().is_some_and(|name| name == "boathook.toml") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    collect(&root().join("examples"), &mut found);
    assert!(found.len() >= 8, "only {} examples", found.len());
    found
}

/// Forms that the reference does not show.
const RIGHT: &[&str] = &[
    "",
    "grace-period = '${GRACE:-1m30s}'\nstop-reserve = '1.5s'",
    "grace-period = '1h 30m'",
    "[server]\nlisten = '[::1]:4665'",
    "[server]\nlisten = ':4665'",
    "[server]\nlisten = '0.0.0.0:${PORT}'\nallow-from = ['::1', 'fd00::/8', 'gateway', '${HOST_IP}']",
    "[app]\nports = ['8080', 9090, '${PORT}']\nstop-signal = 'sigquit'\nstop-on = ['SIGRTMIN+3', '15', 'usr1']",
    "[app]\npreset = 'nginx'",
    "[readiness]\nhttp = { url = 'http://a/', status = '2xx, 404' }\ntimeout = '1s'",
    "[readiness]\nunix = '/x'\nsend = 'a'\nexpect = 'b'",
    "[log]\nlevel = '${LEVEL:-info}'",
    "[[pre-stop.step]]\nsignal = 3",
    "[[pre-stop.step]]\nsignal = '3'",
    "[[pre-stop.step]]\nsignal = { wait = true }",
    "[[pre-stop.step]]\nexec = ['a', '']\nretries = '3'\nwhen = { command = ['a'], env = { A = '' } }",
    "[[pre-stop.step]]\nexec = { command = ['a'], user = 0, env = { A = 1, B = true, C = 'x' } }",
    "[[pre-stop.step]]\nhttp = { url = 'http://a/', retry = '429,5xx', skip = 404, headers = { A = 'x', B = ['y', 'z'], C = 1 } }",
    "[[pre-stop.step]]\nhttp = { url = 'http://a/', insecure = 'true', follow-redirects = '3' }",
    "[[pre-stop.step]]\ndrain = {}",
    "[[pre-stop.step]]\ndrain = { ports = '80,443', ignore-peers = 'gateway', threshold = '2', long-lived = '10s' }",
    "[[pre-stop.step]]\ndrain = { ports = 80, long-lived = 'ignore', source = 'proc' }",
    "[[pre-stop.step]]\nname = 'a'\nsave = { from = { exec = ['a'], file = 'b' }, to = 's3://s/t', keep = '2', path-style = 'true' }",
    "[[pre-start.step]]\nname = 'a'\nrestore = { from = 's3://a/b', to = '/s', max-bytes = 1024, max-files = '7' }",
    "[[pre-start.step]]\nname = 'a'\nrestore = { from = '/a', to = '/s', max-bytes = '10 GiB' }",
    "[[post-start.step]]\nwait = { dns = 'a', count = '2', consecutive = '2' }",
    "[[post-start.step]]\nwait = { process-gone = 7 }",
    "[[post-start.step]]\nwait = { http = { url = 'http://a/', json = { pointer = '/a' } } }",
    "[[post-start.step]]\nwait = { file = '/x', absent = 'true' }",
    "[[post-start.step]]\nwait = { metric = { url = 'http://a/', name = 'x', labels = { a = 1, b = true }, equals = true } }",
    "[[post-start.step]]\nwarm-up = { requests = ['http://a/'], rate = '0.5/s', http-version = 1.1, success-ratio = 0.9 }",
    "[[post-start.step]]\nwarm-up = { requests = ['http://a/'], http-version = 2, plateau = '12.5%', keep-alive = false }",
    "[[post-stop.step]]\nsleep = '1s'\n[[post-stop.step]]\ngroup = [{ sleep = '1s' }, { exec = ['a'], name = 'b' }]",
    "[pre-stop]\nundrain-after = '1m'\n[post-start]\ngate = 'hook'\n[pre-start]\ndeadline = '2s'",
];

#[test]
fn what_is_right_is_taken() {
    let mut texts = variants();
    texts.extend(RIGHT.iter().map(|text| (*text).to_owned()));
    texts.extend(examples().iter().map(|path| fs::read_to_string(path).expect("an example")));
    for name in preset::NAMES {
        texts.push(preset::find(name).expect(name).text);
    }
    for text in &texts {
        if let Err(problems) = parse(text) {
            panic!("boathook itself refuses it: {problems:?}\n{text}");
        }
    }
    let Some(wrong) = judge(&texts) else { return };
    for (wrong, text) in wrong.into_iter().zip(texts) {
        assert_eq!(wrong, None, "{text}");
    }
}

/// What boathook refuses, and the schema as well.
const WRONG: &[&str] = &[
    "grace-perod = '30s'",
    "grace_period = '30s'",
    "grace-period = 30",
    "grace-period = '30'",
    "grace-period = '30 seconds'",
    "grace-period = '-3s'",
    "grace-period = ''",
    "stop-reserve = true",
    "[serve]\nlisten = 'off'",
    "[server]\nlisten = 4665",
    "[server]\nlisten = 'localhost'",
    "[server]\nlisten = 'no'",
    "[server]\ntoken = 'a'\ntoken-env = 'A'",
    "[server]\ntoken-file = '/a'\ntoken-env = 'A'",
    "[server]\ntoken = ''",
    "[server]\nallow-from = 'gateway'",
    "[server]\nallow-from = []",
    "[server]\nallow-from = ['everybody']",
    "[server]\nallow-unauthenticated = 'yes'",
    "[app]\nport = 8080",
    "[app]\nports = 8080",
    "[app]\nports = [0]",
    "[app]\nports = [70000]",
    "[app]\nports = ['http']",
    "[app]\npreset = 'iis'",
    "[app]\nstop-signal = 'FOO'",
    "[app]\nstop-signal = 'KILL'",
    "[app]\nstop-on = []",
    "[app]\ngraceful-stop = 1",
    "[readiness]\nttp = 'http://a/'",
    "[readiness]\ntimeout = '1s'",
    "[readiness]\nhttp = 'http://a/'\ntcp = 'a:1'",
    "[log]\nlevel = 'verbose'",
    "[log]\nformat = 'xml'",
    "[pre-stop]\ngate = 'hook'",
    "[post-start]\ngate = 'both'",
    "[post-start]\nundrain-after = '1s'",
    "[pre-stop]\nsteps = []",
    "[pre-stop]\nstep = { sleep = '1s' }",
    "[[pre-stop.step]]\nname = 'a'",
    "[[pre-stop.step]]\nname = ''\nsleep = '1s'",
    "[[pre-stop.step]]\nsleep = '1s'\nexec = ['a']",
    "[[pre-stop.step]]\nslep = '1s'",
    "[[pre-stop.step]]\nsleep = 1",
    "[[pre-stop.step]]\nsleep = {}",
    "[[pre-stop.step]]\nsleep = '1s'\ntimeout = '1 year'",
    "[[pre-stop.step]]\nsleep = '1s'\nretries = -1",
    "[[pre-stop.step]]\nsleep = '1s'\nretries = 1001",
    "[[pre-stop.step]]\nsleep = '1s'\non-failure = 'ignore'",
    "[[pre-stop.step]]\nsleep = '1s'\nessential = 'yes'",
    "[[pre-stop.step]]\nsleep = '1s'\nwhen = { file = '/x' }",
    "[[pre-stop.step]]\nsleep = '1s'\nwhen = { file-contains = { file = '/x' } }",
    "[[pre-stop.step]]\nsleep = '1s'\nwhen = { env = { A = 1 } }",
    "[[pre-stop.step]]\nexec = 'consul leave'",
    "[[pre-stop.step]]\nexec = []",
    "[[pre-stop.step]]\nexec = [1]",
    "[[pre-stop.step]]\nexec = { dir = '/' }",
    "[[pre-stop.step]]\nexec = { command = ['a'], stdout = '/dev/null' }",
    "[[pre-stop.step]]\nhttp = { method = 'GET' }",
    "[[pre-stop.step]]\nhttp = { url = 'http://a/', succeed = '2x' }",
    "[[pre-stop.step]]\nhttp = { url = 'http://a/', succeed = [99] }",
    "[[pre-stop.step]]\nhttp = { url = 'http://a/', header = { A = 'b' } }",
    "[[pre-stop.step]]\nhttp = { url = 'http://a/', basic = { password = 'a' } }",
    "[[pre-stop.step]]\nsignal = 'QUITE'",
    "[[pre-stop.step]]\nsignal = 65",
    "[[pre-stop.step]]\nsignal = { pid-file = '/a', process = 'b' }",
    "[[pre-stop.step]]\nsignal = { to = 'worker' }",
    "[[pre-stop.step]]\nfile = '/x'",
    "[[pre-stop.step]]\nfile = { touch = '/x', remove = '/y' }",
    "[[pre-stop.step]]\nfile = { touch = '/x', content = 'a' }",
    "[[pre-stop.step]]\nfile = { write = '/x', mode = '0999' }",
    "[[pre-stop.step]]\nfile = { write = '/x', mode = 644 }",
    "[[pre-stop.step]]\ndrain = { settle = 5 }",
    "[[pre-stop.step]]\ndrain = { setle = '5s' }",
    "[[pre-stop.step]]\ndrain = { long-lived = 'forever' }",
    "[[pre-stop.step]]\ndrain = { source = 'ebpf' }",
    "[[pre-stop.step]]\ndrain = { threshold = -1 }",
    "[[pre-stop.step]]\ndrain = { threshold = 1, metric = { url = 'http://a/', name = 'x', at-most = 0 } }",
    "[[pre-stop.step]]\ndrain = { metric = { url = 'http://a/', at-most = 0 } }",
    "[[pre-stop.step]]\ndrain = { metric = { url = 'http://a/', name = 'x' } }",
    "[[pre-stop.step]]\nname = 'a'\nsave = { from = '/a' }",
    "[[pre-stop.step]]\nname = 'a'\nsave = { from = [], to = '/b' }",
    "[[pre-stop.step]]\nname = 'a'\nsave = { from = '/a', to = '/b', keep = 0 }",
    "[[pre-stop.step]]\nname = 'a'\nsave = { from = '/a', to = '/b', compression = 'xz' }",
    "[[pre-stop.step]]\nname = 'a'\nsave = { from = { exec = ['a'] }, to = '/b' }",
    "[[pre-start.step]]\nname = 'a'\nrestore = { from = '/a' }",
    "[[pre-start.step]]\nname = 'a'\nrestore = { from = '/a', to = '/b', if-present = 'skip' }",
    "[[pre-start.step]]\nname = 'a'\nrestore = { from = '/a', to = '/b', max-bytes = '1 GX' }",
    "[[post-start.step]]\nwait = 'http://a/'",
    "[[post-start.step]]\nwait = { interval = '1s' }",
    "[[post-start.step]]\nwait = { tcp = 'a:1', http = 'http://a/' }",
    "[[post-start.step]]\nwait = { tcp = 'a:1', contains = 'x' }",
    "[[post-start.step]]\nwait = { tcp = 'a:1', send = 'x' }",
    "[[post-start.step]]\nwait = { file = '/x', service = 'a' }",
    "[[post-start.step]]\nwait = { dns = 'a', count = 'two' }",
    "[[post-start.step]]\nwarm-up = { concurrency = 2 }",
    "[[post-start.step]]\nwarm-up = { requests = ['http://a/'], http-version = '3' }",
    "[[post-start.step]]\nwarm-up = { requests = ['http://a/'], plateau = 'ten' }",
    "[[post-start.step]]\nwarm-up = { requests = [{ weight = 2 }] }",
    "[[post-start.step]]\nwarm-up = { requests = [{ url = 'http://a/', message = 'aa==' }] }",
    "[[post-start.step]]\nwarm-up = { lists = [{ weight = 1 }] }",
    "[[pre-stop.step]]\ngroup = []",
    "[[pre-stop.step]]\ngroup = [{ group = [{ sleep = '1s' }] }]",
    "[[pre-stop.step]]\ngroup = [{ name = 'a' }]",
    "[[pre-stop.step]]\nattempt-timeout = '1s'\ngroup = [{ sleep = '1s' }]",
];

/// What boathook refuses and a schema cannot see: sums, comparisons, names in other places, and what a text means.
const UNSEEN: &[(&str, &str)] = &[
    ("a step that does not fit in its hook", "grace-period = '10s'\n[[pre-stop.step]]\nsleep = '1s'\ntimeout = '40s'"),
    ("a reserve that leaves nothing", "grace-period = '10s'\nstop-reserve = '10s'"),
    ("no time at all", "grace-period = '0s'"),
    ("longer than a week", "grace-period = '200h'"),
    ("a comparison of two keys", "[[pre-stop.step]]\ndrain = { settle = '1s', quiet-min = '2s' }"),
    (
        "two steps with one name",
        "[[pre-stop.step]]\nname = 'a'\nsleep = '1s'\n[[pre-stop.step]]\nname = 'a'\nsleep = '1s'",
    ),
    ("what a URL is", "[[pre-stop.step]]\nhttp = 'nonsense'"),
    ("what a pattern is", "[[pre-stop.step]]\nname = 'a'\nsave = { from = '/a', to = '/b', include = ['['] }"),
    ("a place within a place", "[[pre-start.step]]\nname = 'a'\nrestore = { from = '/a', to = '/a/b' }"),
    ("the range of a number in quotes", "[app]\nports = ['70000']"),
    ("a placeholder that is none", "[[post-start.step]]\nwarm-up = { requests = ['http://a/{{oops}}'] }"),
    ("what a path is", "[[pre-stop.step]]\nname = 'a'\nsave = { from = 'relative', to = '/b' }"),
    ("a group that is retried", "[[pre-stop.step]]\nretries = 1\ngroup = [{ sleep = '1s' }]"),
];

#[test]
fn what_is_wrong_is_refused() {
    let unseen = UNSEEN.iter().map(|(_, text)| *text);
    let texts: Vec<String> = WRONG.iter().copied().chain(unseen).map(String::from).collect();
    for text in &texts {
        assert!(parse(text).is_err(), "boathook itself takes it:\n{text}");
    }
    let Some(wrong) = judge(&texts) else { return };
    for (text, wrong) in texts.iter().zip(&wrong).take(WRONG.len()) {
        assert!(wrong.is_some(), "the schema takes it:\n{text}");
    }
    for ((what, text), wrong) in UNSEEN.iter().zip(&wrong[WRONG.len()..]) {
        assert_eq!(*wrong, None, "{what} is seen after all:\n{text}");
    }
}

/// With another tool's eyes: the very one that editors look through.
#[test]
fn taplo_says_the_same() {
    let Some((_, packages)) = python_with(&[TAPLO]) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let schema = folder.path().join("boathook.schema.json");
    fs::write(&schema, SCHEMA).expect("written");
    let lint = |texts: &mut dyn Iterator<Item = String>| {
        let paths: Vec<PathBuf> = texts
            .enumerate()
            .map(|(index, text)| {
                let path = folder.path().join(format!("{index:03}.toml"));
                fs::write(&path, text).expect("written");
                path
            })
            .collect();
        let output = Command::new(packages.join("bin/taplo"))
            .args(["lint", "--no-auto-config", "--colors", "never", "--schema"])
            .arg(format!("file://{}", schema.display()))
            .args(&paths)
            .current_dir(folder.path())
            .output()
            .expect("taplo starts");
        (output.status.success(), paths, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let right = variants().into_iter().chain(RIGHT.iter().map(|text| (*text).to_owned()));
    let (is_good, _, said) = lint(&mut right.into_iter());
    assert!(is_good, "{said}");
    let (is_good, paths, said) = lint(&mut WRONG.iter().map(|text| (*text).to_owned()));
    assert!(!is_good);
    for (path, text) in paths.iter().zip(WRONG) {
        let name = path.file_name().expect("a name").to_string_lossy();
        assert!(said.contains(&format!("{name}:")), "taplo takes it:\n{text}\n{said}");
    }
}

// ---- both know the same keys ----

/// What the parser says it knows in a table, by the help of its error about a key that nobody knows.
fn known_keys(text: &str) -> BTreeSet<String> {
    let problems = parse(text).expect_err("nobody knows this key");
    let problem = problems.iter().find(|problem| problem.what.contains("unknown-key")).expect(text);
    let (_, known) = problem.help.as_deref().and_then(|help| help.split_once("known here: ")).expect(text);
    known.split(", ").map(String::from).collect()
}

fn follow<'s>(schema: &'s Value, mut at: &'s Value) -> &'s Value {
    while let Some(pointer) = at["$ref"].as_str().or_else(|| at["allOf"][0]["$ref"].as_str()) {
        at = schema.pointer(pointer.trim_start_matches('#')).expect(pointer);
    }
    at
}

/// The schema of the table at this path; a list is the same as its items.
fn table_at<'s>(schema: &'s Value, path: &str) -> &'s Value {
    let mut at = schema;
    for key in path.split('.').filter(|key| !key.is_empty()) {
        let table = follow(schema, at);
        let table = if table["properties"].is_null() { follow(schema, &table["items"]) } else { table };
        at = &table["properties"][key];
    }
    let table = follow(schema, at);
    if table["properties"].is_null() { follow(schema, &table["items"]) } else { table }
}

/// Each table, and a text with an unknown key in it.
fn tables() -> Vec<(String, String)> {
    let mut tables: Vec<(String, String)> = vec![(String::new(), "unknown-key = 1".into())];
    let tops = ["server", "app", "log", "readiness", "pre-start", "post-start", "pre-stop", "post-stop"];
    tables.extend(tops.map(|name| (name.to_owned(), format!("[{name}]\nunknown-key = 1"))));
    for (path, inner) in [
        ("", "unknown-key = 1"),
        ("group", "group = [{ unknown-key = 1 }]"),
        ("when", "when = { unknown-key = 1 }"),
        ("when.file-contains", "when = { file-contains = { unknown-key = 1 } }"),
        ("when.command", "when = { command = { unknown-key = 1 } }"),
        ("exec", "exec = { unknown-key = 1 }"),
        ("sleep", "sleep = { unknown-key = 1 }"),
        ("signal", "signal = { unknown-key = 1 }"),
        ("file", "file = { unknown-key = 1 }"),
        ("drain", "drain = { unknown-key = 1 }"),
        ("drain.metric", "drain = { metric = { unknown-key = 1 } }"),
        ("http", "http = { unknown-key = 1 }"),
        ("http.basic", "http = { url = 'http://a/', basic = { unknown-key = 1 } }"),
        ("restore", "restore = { unknown-key = 1 }"),
        ("save", "save = { unknown-key = 1 }"),
        ("save.from", "save = { from = { unknown-key = 1 } }"),
        ("save.from.exec", "save = { from = { exec = { unknown-key = 1 } } }"),
        ("save.from.http", "save = { from = { http = { unknown-key = 1 } } }"),
        ("warm-up", "warm-up = { unknown-key = 1 }"),
        ("warm-up.requests", "warm-up = { requests = [{ unknown-key = 1 }] }"),
        ("warm-up.lists", "warm-up = { lists = [{ unknown-key = 1 }] }"),
        ("warm-up.lists.requests", "warm-up = { lists = [{ requests = [{ unknown-key = 1 }] }] }"),
        ("wait", "wait = { unknown-key = 1 }"),
        ("wait.exec", "wait = { exec = { unknown-key = 1 } }"),
        ("wait.http", "wait = { http = { unknown-key = 1 } }"),
        ("wait.http.json", "wait = { http = { url = 'http://a/', json = { unknown-key = 1 } } }"),
        ("wait.metric", "wait = { metric = { unknown-key = 1 } }"),
        ("wait.grpc", "wait = { grpc = { unknown-key = 1 } }"),
    ] {
        let path = format!("pre-stop.step.{path}");
        tables.push((path.trim_end_matches('.').to_owned(), format!("[[pre-stop.step]]\n{inner}")));
    }
    tables
}

#[test]
fn the_schema_and_the_parser_know_the_same_keys() {
    let schema = schema();
    let mut reached = BTreeSet::new();
    for (path, probe) in tables() {
        let table = table_at(&schema, &path);
        assert_eq!(table["additionalProperties"], false, "[{path}]");
        let keys: BTreeSet<String> = table["properties"].as_object().expect(&path).keys().cloned().collect();
        let mut known = known_keys(&probe);
        // The parser knows these in all hooks, and says then where they belong.
        for (key, hook) in [("gate", "post-start"), ("undrain-after", "pre-stop")] {
            if path.starts_with("p") && !path.contains('.') && path != hook {
                assert!(known.remove(key), "[{path}] {key}");
            }
        }
        if path.ends_with(".group") {
            assert!(known.remove("group"));
        }
        assert_eq!(keys, known, "[{path}]: what the schema knows, and what the parser knows");
        reached.insert(std::ptr::from_ref(table));
    }
    // And no table of the schema is out of reach of these.
    fn count(at: &Value, reached: &BTreeSet<*const Value>, unreached: &mut Vec<String>, path: &str) {
        if at["additionalProperties"] == false && !reached.contains(&std::ptr::from_ref(at)) {
            unreached.push(path.to_owned());
        }
        let children: Vec<(String, &Value)> = match at {
            Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), value)).collect(),
            Value::Array(items) => items.iter().enumerate().map(|(index, item)| (index.to_string(), item)).collect(),
            _ => Vec::new(),
        };
        for (key, child) in children {
            count(child, reached, unreached, &format!("{path}/{key}"));
        }
    }
    let mut unreached = Vec::new();
    count(&schema, &reached, &mut unreached, "");
    // `from` has its own copy of what is in a list of sources.
    assert_eq!(unreached, ["/definitions/source"]);
    let keys = |pointer: &str| schema.pointer(pointer).expect(pointer)["properties"].clone();
    assert_eq!(keys("/definitions/source"), keys("/definitions/save/properties/from"));
}

#[test]
fn every_key_says_what_it_is_for() {
    let schema = schema();
    let mut seen = 0;
    for (path, _) in tables() {
        for (key, value) in table_at(&schema, &path)["properties"].as_object().expect("a table") {
            let own = value["description"].as_str();
            let text = own.or_else(|| follow(&schema, value)["description"].as_str()).unwrap_or_default();
            let by_reference = value["$ref"].as_str().map(|pointer| schema.pointer(&pointer[1..]).expect(pointer));
            let text = by_reference.and_then(|it| it["description"].as_str()).unwrap_or(text);
            assert!(text.len() > 5 && text.len() < 200 && text.ends_with(['.', '…']), "[{path}] {key}: `{text}`");
            seen += 1;
        }
    }
    assert!(seen > 300, "only {seen}");
}

/// What the schema calls a default is what boathook does without the key.
#[test]
fn defaults_are_the_defaults() {
    let schema = schema();
    let shown = |text: &str| {
        let config = parse(text).unwrap_or_else(|problems| panic!("{problems:?}\n{text}"));
        // Whether somebody wrote it is a fact beside the key.
        format!("{config:?}").replace("grace_is_configured: true", "grace_is_configured: false")
    };
    let mut seen = 0;
    let step = |inner: &str| format!("[[pre-stop.step]]\nname = 'a'\n{inner}");
    for (path, before, after) in [
        ("", String::new(), ""),
        ("server", "[server]\n".into(), ""),
        ("app", "[app]\n".into(), ""),
        ("log", "[log]\n".into(), ""),
        ("readiness", "[readiness]\ndns = 'a'\n".into(), ""),
        ("pre-start", "[pre-start]\n".into(), ""),
        ("post-start", "[post-start]\n".into(), ""),
        ("post-stop", "[post-stop]\n".into(), "[[post-stop.step]]\nsleep = '1s'"),
        ("pre-stop.step", step("sleep = '1s'\n"), ""),
        ("pre-stop.step.exec", step("[pre-stop.step.exec]\ncommand = ['a']\n"), ""),
        ("pre-stop.step.http", step("[pre-stop.step.http]\nurl = 'http://a/'\n"), ""),
        ("pre-stop.step.signal", step("[pre-stop.step.signal]\n"), ""),
        ("pre-stop.step.wait", step("[pre-stop.step.wait]\ndns = 'a'\n"), ""),
        ("pre-stop.step.drain", step("[pre-stop.step.drain]\n"), ""),
        ("pre-stop.step.save", step("[pre-stop.step.save]\nfrom = '/a'\nto = 'https://b/'\n"), ""),
        ("pre-stop.step.restore", step("[pre-stop.step.restore]\nfrom = 'https://a/'\nto = '/b'\n"), ""),
        ("pre-stop.step.warm-up", step("[pre-stop.step.warm-up]\nrequests = ['http://a/']\n"), ""),
        ("pre-stop.step.warm-up.requests", step("[[pre-stop.step.warm-up.requests]]\nurl = 'http://a/'\n"), ""),
    ] {
        for (key, value) in table_at(&schema, path)["properties"].as_object().expect(path) {
            let referred =
                value["$ref"].as_str().map_or(value, |pointer| schema.pointer(&pointer[1..]).expect(pointer));
            let default = &referred["default"];
            // Warm-up has this of the keys of a request, and says itself that it follows none.
            if default.is_null() || path.contains("warm-up") && key == "follow-redirects" {
                continue;
            }
            let without = format!("{before}{after}");
            let with = format!("{before}{key} = {default}\n{after}");
            assert_eq!(shown(&with), shown(&without), "[{path}] {key}");
            seen += 1;
        }
    }
    assert!(seen >= 40, "only {seen}");
    assert_ne!(shown("stop-reserve = '4s'"), shown(""), "the control");
}

#[test]
fn it_is_printed_as_it_is() {
    let output = Command::new(env!("CARGO_BIN_EXE_boathook-kube")).arg("schema").output().expect("it starts");
    assert!(output.status.success() && output.stderr.is_empty());
    assert_eq!(String::from_utf8_lossy(&output.stdout), SCHEMA);
    assert_eq!(schema()["$schema"], "http://json-schema.org/draft-07/schema#");
}
