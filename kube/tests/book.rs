//! What the book and the README show of `manifest`, `schema` and `check --pod` is what is printed, their pods are in order,
//! and every rule has its place in the book.

use std::{collections::BTreeSet, fs};

#[path = "../../tests/docs_support/mod.rs"]
mod docs_support;
use docs_support::{all_blocks, is_complete, pages, read, reproduce, root, run};

const PROGRAM: &str = env!("CARGO_BIN_EXE_boathook-kube");

/// The README and the book.
fn texts() -> Vec<(String, String)> {
    let readme = ("README.md".to_owned(), read(root().join("README.md")));
    pages().into_iter().map(|(_, name, text)| (name, text)).chain([readme]).collect()
}

#[test]
fn what_is_shown_behind_a_prompt_is_what_is_printed() {
    let own = |command: &str| ["--pod", "manifest", "schema"].iter().any(|word| command.contains(word));
    let seen: usize = texts().iter().map(|(name, text)| reproduce(PROGRAM, name, text, own)).sum();
    assert!(seen >= 2, "only {seen}");
}

/// A whole pod on a page has nothing against it, held against the configuration before it.
#[test]
fn every_pod_that_is_shown_fits_its_configuration() {
    let mut seen = 0;
    for (name, text) in texts() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut has_config = false;
        for block in all_blocks(&text) {
            let is_pod = block.text.contains("containers:") && block.text.contains("lifecycle:");
            // Shown for what is found in it.
            let is_wrong = block.text.starts_with("# wrong");
            if block.language == "toml" && is_complete(&block.text) {
                has_config = true;
                fs::write(folder.path().join("boathook.toml"), &block.text).expect("written");
            } else if block.language == "yaml" && is_pod && !is_wrong && has_config {
                fs::write(folder.path().join("pod.yaml"), &block.text).expect("written");
                let checked = run(PROGRAM, folder.path(), &["check", "--config", "boathook.toml", "--pod", "pod.yaml"]);
                let said = String::from_utf8_lossy(&checked.stdout);
                assert!(checked.status.success(), "{name}:{}\n{said}", block.line);
                seen += 1;
            }
        }
    }
    assert!(seen >= 2, "only {seen}");
}

#[test]
fn every_rule_has_its_place() {
    let rules: BTreeSet<&str> = boathook_kube::rules::ALL.iter().map(|rule| rule.name).collect();
    assert!(rules.len() >= 24, "{rules:?}");
    let page = read(root().join("docs/src/rules.md"));
    let told: BTreeSet<&str> = page.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    assert_eq!(told, rules);
}
