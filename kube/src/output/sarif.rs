//! SARIF 2.1.0 (OASIS), which code scanning services read.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Fate, Report, name, place, title};
use crate::finding::Rule;

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";
/// Names how the fingerprint is made, as the standard asks (3.27.17): a different way gets a different number.
const FINGERPRINT: &str = "boathook/v1";

pub fn render(report: &Report<'_>) -> String {
    let mut rules: Vec<Rule> = Vec::new();
    let mut descriptions: Vec<Value> = Vec::new();
    let mut results: Vec<Value> = Vec::new();
    // The same thing found twice at one place is told apart by its number.
    let mut seen: BTreeMap<u64, usize> = BTreeMap::new();
    for (finding, document, fate) in report.entries() {
        if fate == Some(&Fate::Fixed) {
            continue;
        }
        let index = rules.iter().position(|rule| rule.name == finding.rule.name).unwrap_or_else(|| {
            rules.push(finding.rule);
            descriptions.push(json!({
                "id": finding.rule.name,
                "shortDescription": {"text": finding.rule.about},
                "help": {"text": finding.why},
                "defaultConfiguration": {"level": name(finding.severity)},
            }));
            rules.len() - 1
        });
        // Without line and text: it stays the same when something above is added, or a number changes.
        let what = format!("{}\n{}\n{}\n{}", finding.rule.name, document.file, title(document), finding.path);
        let hash = fnv(what.as_bytes());
        let count = seen.entry(hash).or_insert(0);
        *count += 1;
        let result = json!({
            "ruleId": finding.rule.name,
            "ruleIndex": index,
            "level": name(finding.severity),
            "message": {
                "text": format!(
                    "{}: {}{}\n{}\nfix: {}",
                    title(document), place(&finding.path), finding.what, finding.why, finding.fix
                ),
            },
            "locations": [{
                "physicalLocation": {
                    "artifactLocation": {"uri": uri(&document.file)},
                    "region": {"startLine": document.line(&finding.path)},
                },
                "logicalLocations": [{
                    "fullyQualifiedName": format!("{}: {}", title(document), finding.path),
                }],
            }],
            "partialFingerprints": {FINGERPRINT: format!("{hash:016x}:{count}")},
        });
        results.push(result);
    }
    let all = json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {
                "driver": {
                    "name": "boathook",
                    "semanticVersion": env!("CARGO_PKG_VERSION"),
                    "rules": descriptions,
                },
            },
            "results": results,
        }],
    });
    format!("{all:#}\n")
}

/// A file's name as a URI: relative to where the command ran, or absolute.
fn uri(file: &str) -> String {
    let mut uri = String::new();
    if file.starts_with('/') {
        uri += "file://";
    }
    for byte in file.trim_start_matches("./").bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => uri.push(byte.into()),
            other => uri += &format!("%{other:02X}"),
        }
    }
    uri
}

/// FNV-1a, 64 bits: the same on every machine and in every version, which the standard library does not promise of its
/// own hash.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{output::samples, path::Path};

    fn log(findings: &[crate::finding::Finding]) -> Value {
        let documents = samples::documents();
        let report = Report { documents: &documents, findings, fates: None, containers: 2, judged: 2 };
        serde_json::from_str(&render(&report)).unwrap()
    }

    #[test]
    fn results_name_rule_level_and_region() {
        let mut findings = samples::findings();
        findings.push(findings[0].clone());
        let log = log(&findings);
        let run = &log["runs"][0];
        let rule = &run["tool"]["driver"]["rules"][0];
        assert_eq!(rule["id"], "grace-period-too-short");
        assert_eq!(rule["shortDescription"]["text"], "the grace period is long enough");
        assert_eq!(run["tool"]["driver"]["rules"].as_array().map(Vec::len), Some(2));
        let result = &run["results"][1];
        assert_eq!((&result["ruleId"], &result["ruleIndex"]), (&json!("readiness-missing"), &json!(1)));
        assert_eq!(result["level"], "note");
        let place = &run["results"][0]["locations"][0]["physicalLocation"];
        assert_eq!(place, &json!({"artifactLocation": {"uri": "a%20b/deploy.yaml"}, "region": {"startLine": 4}}));
        let print = |index: usize| run["results"][index]["partialFingerprints"][FINGERPRINT].as_str().unwrap();
        assert_eq!(print(0).strip_suffix(":1"), print(2).strip_suffix(":2"));
    }

    #[test]
    fn a_fingerprint_outlives_other_lines_and_numbers() {
        let mut findings = samples::findings();
        let before = log(&findings)["runs"][0]["results"][0]["partialFingerprints"].clone();
        findings[0].what = "is 2, and the plan needs 46".into();
        assert_eq!(log(&findings)["runs"][0]["results"][0]["partialFingerprints"], before);
        findings[0].path = Path::default();
        assert_ne!(log(&findings)["runs"][0]["results"][0]["partialFingerprints"], before);
    }

    #[test]
    fn files_become_uris() {
        for (file, expected) in [
            ("a.yaml", "a.yaml"),
            ("./a.yaml", "a.yaml"),
            ("/a b", "file:///a%20b"),
            ("c:é", "c%3A%C3%A9"),
            ("stdin", "stdin"),
        ] {
            assert_eq!(uri(file), expected);
        }
    }

    #[test]
    fn the_hash_is_fnv() {
        // From the reference's test vectors.
        assert_eq!(fnv(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
