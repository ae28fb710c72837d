//! For programs. Fields are only ever added; `version` changes if one should have to go.
//!
//! | field | what it is |
//! |---|---|
//! | `version` | 1 |
//! | `findings[].rule` | the rule's name |
//! | `findings[].severity` | `error`, `warning` or `note` |
//! | `findings[].file`, `line` | as typed, or `stdin`; counted from 1 |
//! | `findings[].document` | `kind`, `namespace`, `name`: null where it says none; `index` among all that were read |
//! | `findings[].path` | within the document: `spec.containers[0]` |
//! | `findings[].within` | where the document is within the file's: `items[3]` of a List; empty otherwise |
//! | `findings[].what`, `why`, `fix` | sentences for people |
//! | `findings[].fixable` | `--fix` knows what to write |
//! | `findings[].fixed`, `left` | with `--fix` only: whether it is fixed, and why not |
//! | `summary` | `errors`, `warnings`, `notes`, `containers`, `documents` |

use serde_json::{Value, json};

use super::{Fate, Report, name};
use crate::finding::Severity;

pub fn render(report: &Report<'_>) -> String {
    let findings: Vec<Value> = report
        .entries()
        .map(|(finding, document, fate)| {
            let metadata = &document.value["metadata"];
            let mut entry = json!({
                "rule": finding.rule.name,
                "severity": name(finding.severity),
                "file": document.file,
                "line": document.line(&finding.path),
                "document": {
                    "kind": document.value["kind"].as_str(),
                    "namespace": metadata["namespace"].as_str(),
                    "name": metadata["name"].as_str(),
                    "index": finding.document,
                },
                "path": finding.path.to_string(),
                "within": document.prefix.to_string(),
                "what": finding.what,
                "why": finding.why,
                "fix": finding.fix,
                "fixable": !finding.edits.is_empty(),
            });
            if let Some(fate) = fate {
                entry["fixed"] = (*fate == Fate::Fixed).into();
                if let Fate::Left(why) = fate {
                    entry["left"] = why.as_str().into();
                }
            }
            entry
        })
        .collect();
    let all = json!({
        "version": 1,
        "findings": findings,
        "summary": {
            "errors": report.count(Severity::Error),
            "warnings": report.count(Severity::Warning),
            "notes": report.count(Severity::Note),
            "containers": report.containers,
            "documents": report.judged,
        },
    });
    format!("{all:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;

    #[test]
    fn every_field_is_there() {
        let (documents, findings) = (samples::documents(), samples::findings());
        let fates = [Fate::Fixed, Fate::Left("no".into())];
        let report =
            Report { documents: &documents, findings: &findings, fates: Some(&fates), containers: 2, judged: 2 };
        let all: Value = serde_json::from_str(&render(&report)).unwrap();
        assert_eq!(
            all,
            json!({
                "version": 1,
                "findings": [{
                    "rule": "grace-period-too-short", "severity": "error", "file": "a b/deploy.yaml", "line": 4,
                    "document": {"kind": "Deployment", "namespace": "shop", "name": "web", "index": 0},
                    "path": "spec.x", "within": "", "what": "is 1, and the plan needs 45",
                    "why": "the kubelet kills\nwhat still runs", "fix": "set it to 45: 100%",
                    "fixable": true, "fixed": true,
                }, {
                    "rule": "readiness-missing", "severity": "note", "file": "a b/deploy.yaml", "line": 6,
                    "document": {"kind": "Pod", "namespace": null, "name": null, "index": 1},
                    "path": "", "within": "", "what": "has none", "why": "why", "fix": "fix",
                    "fixable": false, "fixed": false, "left": "no",
                }],
                "summary": {"errors": 1, "warnings": 0, "notes": 1, "containers": 2, "documents": 2},
            })
        );
    }
}
