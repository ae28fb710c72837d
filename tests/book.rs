//! The book in docs/ is true: its configurations, command lines and outputs are held against the real binary, its links
//! against the repository, and its tables against the source. What needs the second binary is in kube/tests/book.rs.

use std::collections::BTreeSet;

use boathook::{
    hook::{Hook, Phase},
    step::kinds,
};
use yaml_rust2::YamlLoader;

mod docs_support;
use docs_support::{
    all_blocks, blocks, check_command_lines, dead_links, is_complete, links, markdown, pages, parse_block, read,
    reproduce, root, run, show, sources, spans, words,
};

fn page(name: &str) -> String {
    read(root().join("docs/src").join(name))
}

// ---- pages and links ----

#[test]
fn the_summary_lists_every_page() {
    let summary = links(&page("SUMMARY.md"));
    let listed: BTreeSet<&str> = summary.iter().map(String::as_str).collect();
    assert_eq!(listed.len(), summary.len(), "a page is listed twice");
    let there = pages();
    let there: BTreeSet<&str> =
        there.iter().map(|(_, name, _)| name.as_str()).filter(|name| *name != "SUMMARY.md").collect();
    assert_eq!(listed, there);
}

#[test]
fn every_link_leads_somewhere() {
    let mut dead = Vec::new();
    let mut seen = 0;
    for (path, name, text) in pages() {
        seen += links(&text).len();
        dead.extend(dead_links(&path, &text));
        for link in links(&text) {
            // mdBook writes .html for .md, also in links to files that it does not make.
            let leaves = link.matches("../").count() > name.matches('/').count();
            assert!(!(leaves && link.contains(".md")), "{name}: {link}: link to the folder");
        }
    }
    let others = ["README.md", "CHANGELOG.md", "benches/rollout/RESULTS.md"].map(|name| root().join(name));
    for path in others.into_iter().chain(markdown(&root().join("examples"))) {
        dead.extend(dead_links(&path, &read(&path)));
    }
    assert_eq!(dead, Vec::<String>::new());
    assert!(seen >= 100, "only {seen} links");
    // The control.
    let wrong = "[a](nowhere.md) [b](time.md#nowhere) [c](time.md#hurry)";
    assert_eq!(dead_links(&root().join("docs/src/limits.md"), wrong).len(), 2);
}

// ---- what people copy ----

#[test]
fn every_configuration_is_understood() {
    let (mut complete, mut parts) = (0, 0);
    for (_, name, text) in pages() {
        for block in all_blocks(&text).iter().filter(|block| block.language == "toml") {
            if block.text.contains("{{#include") {
                continue;
            }
            let place = format!("{name}:{}", block.line);
            let understood = parse_block(&place, &block.text);
            assert!(understood.is_ok(), "{place}\n{}", show(&understood.err().unwrap_or_default()));
            if is_complete(&block.text) { complete += 1 } else { parts += 1 }
        }
    }
    assert!(complete >= 4 && parts >= 25, "{complete} configurations, {parts} parts");
    assert!(parse_block("control", "[[pre-stop.step]]\nsleeep = '1s'\n").is_err());
}

#[test]
fn every_command_line_parses() {
    let mut seen = 0;
    let makefile = read(root().join("Makefile"));
    for (_, name, text) in pages() {
        seen += check_command_lines(&name, &text);
        let shell = blocks(&text, "sh");
        let lines = shell.iter().flat_map(|block| block.lines()).map(str::to_owned).chain(spans(&text));
        for line in lines {
            let Some(target) = line.strip_prefix("make ").and_then(|rest| rest.split(' ').next()) else { continue };
            assert!(makefile.lines().any(|line| line.starts_with(&format!("{target}:"))), "{name}: {line}");
        }
    }
    assert!(seen >= 60, "only {seen} command lines");
}

#[test]
fn every_manifest_and_document_can_be_read() {
    let mut seen = 0;
    for (_, name, text) in pages() {
        for block in all_blocks(&text) {
            let place = format!("{name}:{}", block.line);
            match block.language.as_str() {
                "yaml" => {
                    let read = YamlLoader::load_from_str(&block.text);
                    assert!(read.is_ok_and(|documents| !documents.is_empty()), "{place}");
                }
                "json" => assert!(serde_json::from_str::<serde_json::Value>(&block.text).is_ok(), "{place}"),
                "toml" | "sh" | "console" | "dockerfile" | "text" => continue,
                other => panic!("{place}: nobody looks at `{other}`"),
            }
            seen += 1;
        }
    }
    assert!(seen >= 10, "only {seen}");
}

#[test]
fn what_is_shown_behind_a_prompt_is_what_is_printed() {
    let own = |command: &str| !["--pod", "manifest", "schema"].iter().any(|word| command.contains(word));
    let program = env!("CARGO_BIN_EXE_boathook");
    let seen: usize = pages().iter().map(|(_, name, text)| reproduce(program, name, text, own)).sum();
    assert!(seen >= 10, "only {seen}");
}

#[test]
fn five_minutes_begin_with_a_configuration_that_init_makes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = env!("CARGO_BIN_EXE_boathook");
    let text = page("five-minutes.md");
    let line = text.lines().find(|line| line.starts_with("boathook init ")).expect("it is there");
    let (line, file) = line.split_once(" > ").expect("into a file");
    let line = words(line);
    let made = run(program, folder.path(), &line[1..].iter().map(String::as_str).collect::<Vec<_>>());
    std::fs::write(folder.path().join(file), &made.stdout).expect("written");
    let checked = run(program, folder.path(), &["check", "--config", file]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

/// Keys that the pages name (`key = …`) are in the reference.
#[test]
fn the_pages_name_keys_that_there_are() {
    let reference = read(root().join("config/boathook.toml"));
    let mut seen = 0;
    for (_, name, text) in pages() {
        let keys = spans(&text).into_iter().filter_map(|span| span.split_once(" = ").map(|(key, _)| key.to_owned()));
        let is_key = |key: &String| key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        for key in keys.filter(is_key) {
            seen += 1;
            assert!(
                reference.contains(&format!("{key} = ")) || reference.contains(&format!(".{key}]")),
                "{name}: `{key}`"
            );
        }
    }
    assert!(seen >= 40, "only {seen}");
}

// ---- tables against the source ----

/// All words in backticks of these pages' prose.
fn named(pages: &[&str]) -> BTreeSet<String> {
    pages.iter().flat_map(|name| spans(&page(name))).collect()
}

fn assert_named<'t>(page: &str, names: impl IntoIterator<Item = &'t str>) {
    let named = named(&[page]);
    let missing: Vec<&str> = names.into_iter().filter(|name| !named.contains(*name)).collect();
    assert!(missing.is_empty(), "{page} does not name {missing:?}");
}

#[test]
fn every_step_has_a_page() {
    let summary = links(&page("SUMMARY.md"));
    for kind in kinds::NAMES {
        let own = match *kind {
            "save" | "restore" => "steps/state.md".to_owned(),
            kind => format!("steps/{kind}.md"),
        };
        assert!(summary.contains(&own), "{kind}");
        let text = page(&own);
        for heading in ["\n## Why it fails\n", "\n## Limits\n"] {
            assert!(text.contains(heading), "{own} has no {heading:?}");
        }
        assert!(text.contains(&format!("{kind} = ")) || text.contains(&format!("step.{kind}]")), "{own}: no example");
    }
    assert_named("steps.md", kinds::NAMES.iter().copied());
}

/// The names in a source file that stand in quotes behind this text.
fn quoted_after(source: &str, before: &str) -> Vec<String> {
    let behind = source.split(before).skip(1).filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
    behind.map(str::to_owned).collect()
}

#[test]
fn every_metric_is_named() {
    let source = read(root().join("src/status.rs"));
    let own = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let metrics: Vec<String> = quoted_after(own, "family(").iter().map(|name| format!("boathook_{name}")).collect();
    assert!(metrics.len() >= 15, "{metrics:?}");
    assert_named("evidence.md", metrics.iter().map(String::as_str));
    let told = named(&["evidence.md"])
        .into_iter()
        .filter(|name| name.starts_with("boathook_") && name.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
    for name in told {
        assert!(metrics.contains(&name), "there is no metric {name}");
    }
}

/// The fields of a struct as they are in JSON.
fn fields(file: &str, name: &str) -> Vec<String> {
    let source = read(root().join(file));
    let head = [format!("struct {name} {{"), format!("struct {name}<'a> {{")];
    let body = head.iter().find_map(|head| source.split(head.as_str()).nth(1)).unwrap_or_else(|| panic!("{name}"));
    let body = body.split("\n}").next().unwrap_or_default();
    let mut found = Vec::new();
    let mut is_skipped = false;
    for line in body.lines().map(str::trim) {
        if line.starts_with("#[") || line.starts_with("//") {
            is_skipped |= line == "#[serde(skip)]";
            continue;
        }
        let key = line.trim_start_matches("pub ").split_once(": ").map(|(key, _)| key.replace('_', "-"));
        if !std::mem::take(&mut is_skipped) {
            found.extend(key);
        }
    }
    assert!(found.len() >= 3, "{name}: {found:?}");
    found
}

#[test]
fn every_key_of_the_status_is_named() {
    for (file, name) in [
        ("src/status.rs", "Status"),
        ("src/report.rs", "HookReport"),
        ("src/report.rs", "StepReport"),
        ("src/step/mod.rs", "Measure"),
        ("src/readiness.rs", "Standing"),
        ("src/periodic.rs", "Standing"),
    ] {
        assert_named("evidence.md", fields(file, name).iter().map(String::as_str));
    }
    assert_named("evidence.md", Phase::ALL.map(Phase::name));
    assert_named("introduction.md", Hook::ALL.map(Hook::name));
    let source = read(root().join("src/report.rs"));
    let outcomes: Vec<&str> = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Outcome::")?.split_once("=> \"")?.1.split('"').next())
        .collect();
    assert_eq!(outcomes.len(), 7, "{outcomes:?}");
    assert_named("steps.md", outcomes);
}

#[test]
fn every_exit_code_is_named() {
    let text = page("evidence.md");
    let rows: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next()).collect();
    let code =
        |line: &str| Some(line.strip_prefix("pub const ")?.split_once("u8 = ")?.1.trim_end_matches(';').to_owned());
    for code in read(root().join("src/exit.rs")).lines().filter_map(code) {
        assert!(rows.contains(&&*code), "{code}");
    }
}

#[test]
fn every_preset_is_named() {
    let files = std::fs::read_dir(root().join("config/presets")).expect("presets");
    let names: Vec<String> = files
        .map(|file| file.expect("a file").path().file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    assert!(names.len() >= 16);
    assert_named("presets.md", names.iter().map(String::as_str));
    assert_named("steps/drain.md", names.iter().map(String::as_str));
}

#[test]
fn every_entry_of_the_cookbook_is_named() {
    let entries = std::fs::read_dir(root().join("examples/cookbook")).expect("a cookbook");
    let entries = entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_dir());
    let names: BTreeSet<String> =
        entries.map(|path| path.file_name().expect("a name").to_string_lossy().into()).collect();
    let linked = links(&page("recipes.md"));
    let told = linked.iter().filter_map(|link| link.strip_prefix("../../examples/cookbook/")?.strip_suffix('/'));
    assert_eq!(told.map(str::to_owned).collect::<BTreeSet<_>>(), names);
}

#[test]
fn every_variable_that_is_read_is_named() {
    let source = sources(&root().join("src"));
    let mut names: BTreeSet<String> = ["var_os(", "var("].iter().flat_map(|call| quoted_after(&source, call)).collect();
    names.extend(source.split('"').filter(|word| word.starts_with("AWS_")).map(str::to_owned));
    names.extend(["BOATHOOK_SOCKET".to_owned()]);
    names.retain(|name| {
        name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_') && name.len() > 3
    });
    assert!(names.len() >= 12, "{names:?}");
    let named = named(&["configuration.md"]);
    let missing: Vec<&String> = names.iter().filter(|name| !named.contains(*name)).collect();
    assert!(missing.is_empty(), "configuration.md does not name {missing:?}");
}

/// Each reason that a page quotes has words that are in the source: a message that is worded anew has to be so here, too.
#[test]
fn reasons_are_worded_as_they_are_said() {
    let mut source = sources(&root().join("src"));
    // The kernel's and the C library's own words.
    source +=
        "connection refused No such file or directory Read-only file system Permission denied No space left on device";
    let is_said = |reason: &str| {
        let words: Vec<&str> = reason.split_whitespace().collect();
        (2..=words.len()).rev().any(|length| {
            words.windows(length).any(|run| {
                let run = run.join(" ");
                run.len() >= 8 && source.contains(run.trim_matches(['…', ':', ';', ',', '`', '"']))
            })
        })
    };
    let mut seen = 0;
    for (_, name, text) in pages() {
        let Some((_, section)) = text.split_once("## Why it fails") else { continue };
        let section = section.split("\n## ").next().unwrap_or_default();
        for row in section.lines().filter(|line| line.starts_with("| `") || line.starts_with("| …")) {
            let reason = row.trim_start_matches("| ").split(" | ").next().unwrap_or_default().trim_matches('`');
            assert!(is_said(reason), "{name}: nobody says: {reason}");
            seen += 1;
        }
    }
    assert!(seen >= 35, "only {seen}");
    assert!(!is_said("purple elephants dance merrily"));
}
