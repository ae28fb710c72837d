//! Whatever way one manifest is written, the same mistake is found in it, at its line, and fixed there.

mod support;

use std::{fs, process::Output};

use boathook_kube::document;
use support::{CONFIG, SHORT, boathook};

fn indented(by: usize, text: &str) -> String {
    text.lines().map(|line| format!("{}{line}\n", " ".repeat(by))).collect()
}

/// Name, text, and the line of the grace period.
fn styles() -> Vec<(&'static str, String, usize)> {
    let json = document::read("f", 0, SHORT).unwrap()[0].value.clone();
    let pretty = format!("{json:#}\n");
    let in_json = pretty.lines().position(|line| line.contains("terminationGrace")).unwrap() + 1;
    let list = |head: &str| format!("{head}- {}", indented(2, SHORT).trim_start());
    vec![
        ("plain", SHORT.into(), 10),
        ("crlf", SHORT.replace('\n', "\r\n"), 10),
        ("bom", format!("\u{feff}{SHORT}"), 10),
        ("no newline at the end", SHORT.trim_end().into(), 10),
        ("marked", format!("# comment\n---\n{SHORT}...\n"), 12),
        ("third", format!("---\n# nothing\n---\nkind: Service\n---\n{SHORT}---\n"), 15),
        ("list", list("apiVersion: v1\nkind: List\nitems:\n- kind: Service\n"), 14),
        ("list that says its kind last", list("apiVersion: v1\nitems:\n") + "kind: List\n", 12),
        ("json", pretty, in_json),
        ("json in one line", format!("{json}"), 1),
        ("json with tabs", format!("{json:#}\n").replace("  ", "\t"), in_json),
        (
            "inline patch",
            format!(
                "kind: Component\npatches:\n  - target: {{kind: Deployment}}\n    patch: |-\n{}",
                indented(6, SHORT)
            ),
            14,
        ),
        (
            "inline patch of old",
            format!("kind: Kustomization\npatchesStrategicMerge:\n- |\n  # first\n{}", indented(2, SHORT)),
            14,
        ),
        ("wide", SHORT.replace("  ", "    ").replace("- name", "-   name"), 10),
        (
            "merged",
            SHORT
                .replace("      - name: app\n", "      - <<: *common\n        name: app\n")
                .replace("metadata:\n  name", "x-common: &common\n  imagePullPolicy: Always\nmetadata:\n  name"),
            12,
        ),
        ("other scalars", SHORT.replace("Seconds: 5 ", "Seconds: 0x5 "), 10),
    ]
}

fn check(folder: &tempfile::TempDir, more: &[&str]) -> Output {
    let words = ["check", "--config", "boathook.toml", "--pod", "file.yaml"];
    boathook(folder.path(), &[&words, more].concat(), b"")
}

#[test]
fn one_mistake_in_every_style() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("boathook.toml"), CONFIG).unwrap();
    for (name, text, line) in styles() {
        fs::write(folder.path().join("file.yaml"), &text).unwrap();
        let found = check(&folder, &["--fail-on", "error"]);
        let said = String::from_utf8(found.stdout).unwrap() + &String::from_utf8(found.stderr).unwrap();
        let expected = format!("file.yaml:{line}: error[grace-period-too-short]: Deployment web: ");
        assert!(said.contains(&expected), "{name}: {said}\n{text}");
        assert_eq!(found.status.code(), Some(1), "{name}: {said}");

        let fixed = check(&folder, &["--fix", "--fail-on", "error"]);
        let said = String::from_utf8(fixed.stderr).unwrap();
        assert_eq!(fixed.status.code(), Some(0), "{name}: {said}");
        let new = String::from_utf8(fixed.stdout).unwrap();
        let changed: Vec<_> = text.split('\n').zip(new.split('\n')).filter(|(old, new)| old != new).collect();
        assert_eq!(text.split('\n').count(), new.split('\n').count(), "{name}: {new}");
        assert!(changed.len() == 1 && changed[0].0.contains("terminationGracePeriodSeconds"), "{name}: {changed:?}");
    }
}
