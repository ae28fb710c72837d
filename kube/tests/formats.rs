//! What `check --pod` prints, in every format, and how it exits.

mod support;

use std::{fs, path::Path, process::Output, sync::LazyLock};

use serde_json::Value;
use support::{CONFIG, boathook};

/// With a comment and a namespace.
static SHORT: LazyLock<String> = LazyLock::new(|| {
    let named = support::SHORT.replacen("  name: web\n", "  name: web\n  namespace: shop\n", 1);
    format!("# a note of its own\n{named}")
});

struct Run {
    code: i32,
    out: String,
    err: String,
}

/// In a folder with `web.yaml`, `boathook.toml` and whatever else a test wants there.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("web.yaml", &*SHORT);
        folder.write("boathook.toml", CONFIG);
        folder
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    fn check(&self, line: &str) -> Run {
        self.with_input(line, b"")
    }

    fn with_input(&self, line: &str, input: &[u8]) -> Run {
        let output = check(self.0.path(), line, input);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Run { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }
}

fn check(folder: &Path, line: &str, input: &[u8]) -> Output {
    let words = ["check", "--config", "boathook.toml"];
    boathook(folder, &words.into_iter().chain(line.split(' ')).collect::<Vec<_>>(), input)
}

#[test]
fn text_says_place_rule_and_reason_without_colour_in_a_pipe() {
    let run = Folder::new().check("--pod web.yaml");
    assert_eq!(run.code, 1, "{}{}", run.out, run.err);
    let first = "web.yaml:12: error[grace-period-too-short]: Deployment shop/web: \
                 spec.template.spec.terminationGracePeriodSeconds: ";
    assert!(run.out.starts_with(first), "{}", run.out);
    assert!(run.out.contains("\n  why: ") && run.out.contains("\n  fix: "), "{}", run.out);
    assert!(run.out.ends_with(" in 1 container of 1 document\n"), "{}", run.out);
    assert!(run.err.is_empty() && !run.out.contains('\x1b'), "{}", run.err);
}

#[test]
fn json_is_one_value_with_a_summary() {
    let run = Folder::new().check("--pod web.yaml --format json");
    let all: Value = serde_json::from_str(&run.out).unwrap();
    let finding = &all["findings"][0];
    assert_eq!(
        (&finding["rule"], &finding["line"], &finding["fixable"], &finding["document"]["name"]),
        (&"grace-period-too-short".into(), &12.into(), &true.into(), &"web".into())
    );
    assert_eq!((run.code, &all["version"], &all["summary"]["errors"]), (1, &1.into(), &1.into()));
}

#[test]
fn sarif_names_the_line_and_the_rule() {
    let run = Folder::new().check("--pod web.yaml --format sarif");
    let log: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!((run.code, &log["version"]), (1, &"2.1.0".into()));
    let run = &log["runs"][0];
    let result = &run["results"][0];
    let index = result["ruleIndex"].as_u64().unwrap() as usize;
    assert_eq!(run["tool"]["driver"]["rules"][index]["id"], result["ruleId"]);
    let place = &result["locations"][0]["physicalLocation"];
    assert_eq!((&place["artifactLocation"]["uri"], &place["region"]["startLine"]), (&"web.yaml".into(), &12.into()));
    assert!(result["partialFingerprints"]["boathook/v1"].is_string() && result["level"] == "error");
}

#[test]
fn github_gets_one_annotation_a_line() {
    let folder = Folder::new();
    folder.write("a,b:c.yaml", &*SHORT);
    let run = folder.check("--pod a,b:c.yaml --format github");
    let first = run.out.lines().next().unwrap();
    assert!(
        first.starts_with("::error file=a%2Cb%3Ac.yaml,line=12,title=boathook%3A grace-period-too-short::"),
        "{first}"
    );
    assert!(first.contains("%0Awhy: ") && run.code == 1, "{first}");
}

#[test]
fn exit_codes_follow_the_worst_that_is_found() {
    let folder = Folder::new();
    folder.write("good.yaml", SHORT.replace("Seconds: 5 ", "Seconds: 60"));
    folder.write("other.yaml", "kind: Service\nmetadata: {name: other}\n");
    folder.write("broken.yaml", "a: [\n");
    folder.write("wrong.toml", "grace-period = 5");
    for (line, code) in [
        ("--pod web.yaml", 1),
        ("--pod good.yaml web.yaml", 1),
        ("--pod web.yaml --fail-on error", 1),
        ("--pod web.yaml --fix", 0),
        ("--pod other.yaml", 0),
        ("--pod broken.yaml", 65),
        ("--pod broken.yaml --fix", 65),
        ("--pod missing.yaml", 65),
        ("--pod web.yaml --config wrong.toml", 64),
        ("--pod web.yaml --format yaml", 64),
        ("--pod web.yaml --fail-on never", 64),
        ("--pod - -", 64),
        ("--format json", 64),
    ] {
        let run = folder.check(line);
        assert_eq!(run.code, code, "{line}: {}{}", run.out, run.err);
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_line_and_help() {
    let folder = Folder::new();
    folder.write("chart.yaml", "kind: Deployment\nmetadata:\n  name: {{ .Values.name }}\n");
    folder.write("utf16.yaml", b"\xff\xfek\0i\0");
    folder.write("zip.yaml", b"PK\x03\x04\0\0");
    folder.write("twice.yaml", "kind: Pod\nspec: {}\nkind: Pod\n");
    folder.write("text.yaml", "no manifest at all\n");
    let run = folder.check("--pod chart.yaml utf16.yaml missing.yaml");
    assert_eq!((run.code, &*run.out), (65, ""));
    assert_eq!(
        run.err,
        "boathook: utf16.yaml:1: is UTF-16, and Kubernetes reads UTF-8\n  help: save it as UTF-8\n\
         boathook: missing.yaml: cannot be read: No such file or directory (os error 2)\n\
         boathook: chart.yaml:3: is a template (`{{ … }}`), and only what it renders to can be checked\n  \
         help: render it first: helm template … | boathook check --pod -\n"
    );
    let run = folder.check("--pod zip.yaml twice.yaml text.yaml");
    assert_eq!(
        run.err,
        "boathook: zip.yaml:1: is binary: it has a zero byte\n  \
         help: give the manifest itself: YAML or JSON, not compressed\n\
         boathook: twice.yaml:3: key `kind` stands twice, first in line 1\n\
         boathook: text.yaml:1: is plain text, and a manifest is a mapping (`kind: …`)\n"
    );
}

#[test]
fn fix_prints_the_corrected_file_and_tells_the_rest_elsewhere() {
    let run = Folder::new().check("--pod web.yaml --fix");
    let (old, new): (Vec<_>, Vec<_>) = (SHORT.lines().collect(), run.out.lines().collect());
    assert_eq!(old.len(), new.len(), "{}", run.out);
    let changed: Vec<_> = old.iter().zip(&new).filter(|(old, new)| old != new).collect();
    assert_eq!(changed.len(), 1, "{changed:?}");
    let (old, new) = changed[0];
    assert!(old.contains(": 5   # too short") && new.ends_with("   # too short"), "{new}");
    assert!(run.err.contains("\n  fixed\n") && run.err.contains("; 1 fixed, "), "{}", run.err);
}

#[test]
fn fix_refuses_what_is_shared_through_an_alias() {
    let folder = Folder::new();
    folder.write("shared.yaml", SHORT.replace("Seconds: 5 ", "Seconds: &grace 5 ") + "x-same: *grace\n");
    let run = folder.check("--pod shared.yaml --fix");
    assert_eq!((run.code, &*run.out), (1, &*fs::read_to_string(folder.0.path().join("shared.yaml")).unwrap()));
    assert!(run.err.contains("  left: spec.template.spec.terminationGracePeriodSeconds: has an anchor"), "{}", run.err);
}

#[test]
fn several_files_and_stdin_become_one_stream() {
    let folder = Folder::new();
    folder.write("two.yaml", "kind: Two\n---\nkind: Three");
    folder.write("marked.yaml", "# first\n---\nkind: Four\n");
    let run = folder.with_input("--pod two.yaml - marked.yaml web.yaml --fix", b"kind: Stdin\r\n");
    assert!(
        run.out.starts_with(
            "kind: Two\n---\nkind: Three\n---\nkind: Stdin\r\n# first\n---\nkind: Four\n---\n# a note of its own\n"
        ),
        "{}",
        run.out
    );
    let run = folder.with_input("--pod -", SHORT.as_bytes());
    assert!(run.out.starts_with("stdin:12: error[") && run.code == 1, "{}{}", run.out, run.err);
}

#[test]
fn nothing_with_boathook_is_told() {
    let folder = Folder::new();
    folder.write("other.yaml", "kind: ConfigMap\n---\nkind: Service\n");
    let run = folder.check("--pod other.yaml");
    assert_eq!((run.code, &*run.out), (0, ""));
    assert!(run.err.starts_with("boathook: other.yaml: no container of 2 documents uses boathook: "), "{}", run.err);
}

/// Far more than a pipe holds: the writer must not be left hanging, nor the memory filled.
#[test]
fn too_much_is_refused() {
    let folder = Folder::new();
    let run = folder.with_input("--pod -", &vec![b'#'; (64 << 20) + 2]);
    assert_eq!(run.code, 65);
    assert_eq!(run.err, "boathook: stdin: has more than 64 MiB, the most that is read\n  help: give it in parts\n");
}
