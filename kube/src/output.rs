//! Findings as text, JSON, SARIF and GitHub's annotations; pure.

mod github;
mod json;
mod sarif;
mod text;

use boathook::cli::FindingFormat;

use crate::{
    document::Document,
    finding::{Finding, Severity},
    path::Path,
};

/// Everything that there is to tell.
#[derive(Debug)]
pub struct Report<'a> {
    pub documents: &'a [Document],
    /// In the order of the files.
    pub findings: &'a [Finding],
    /// With `--fix`: what became of each finding.
    pub fates: Option<&'a [Fate]>,
    /// How many containers were judged, and in how many documents.
    pub containers: usize,
    pub judged: usize,
}

/// What `--fix` did about a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    Fixed,
    /// Why it is left.
    Left(String),
}

/// In colour only where a person looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    Never,
    Always,
}

/// What to print; it ends with a line break.
pub fn render(report: &Report<'_>, format: FindingFormat, colour: Colour) -> String {
    match format {
        FindingFormat::Text => text::render(report, colour),
        FindingFormat::Json => json::render(report),
        FindingFormat::Sarif => sarif::render(report),
        FindingFormat::Github => github::render(report),
    }
}

impl Report<'_> {
    /// Each finding with its document and what became of it.
    fn entries(&self) -> impl Iterator<Item = (&Finding, &Document, Option<&Fate>)> {
        self.findings.iter().enumerate().filter_map(|(index, finding)| {
            let document = self.documents.get(finding.document)?;
            Some((finding, document, self.fates.and_then(|fates| fates.get(index))))
        })
    }

    fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    /// `2 errors, 1 warning in 3 containers of 2 documents`
    fn summary(&self) -> String {
        let counts: Vec<_> = [(Severity::Error, "error"), (Severity::Warning, "warning"), (Severity::Note, "note")]
            .into_iter()
            .map(|(severity, name)| (self.count(severity), name))
            .filter(|(count, _)| *count > 0)
            .map(|(count, name)| many(count, name))
            .collect();
        let found = if counts.is_empty() { "nothing found".into() } else { counts.join(", ") };
        let mut summary =
            format!("{found} in {} of {}", many(self.containers, "container"), many(self.judged, "document"));
        if let Some(fates) = self.fates {
            let fixed = fates.iter().filter(|fate| **fate == Fate::Fixed).count();
            summary += &format!("; {fixed} fixed, {} left", fates.len() - fixed);
        }
        summary
    }
}

fn many(count: usize, name: &str) -> String {
    if count == 1 { format!("1 {name}") } else { format!("{count} {name}s") }
}

fn name(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

/// `Deployment shop/web`; `document` where it says nothing of itself.
pub(crate) fn title(document: &Document) -> String {
    let metadata = &document.value["metadata"];
    let name = match (metadata["namespace"].as_str(), document.name()) {
        (_, "") => String::new(),
        (Some(namespace), name) => format!("{namespace}/{name}"),
        (None, name) => name.into(),
    };
    match (document.kind(), &*name) {
        ("", "") => "document".into(),
        (one, "") | ("", one) => one.into(),
        (kind, name) => format!("{kind} {name}"),
    }
}

/// `spec.containers[0]: `; nothing for the document itself.
fn place(path: &Path) -> String {
    if path.0.is_empty() { String::new() } else { format!("{path}: ") }
}

#[cfg(test)]
pub(crate) mod samples {
    //! One report for the tests of all formats.

    use crate::{
        document::{self, Document},
        finding::{Edit, Finding, Rule, Severity},
        path::Path,
    };

    pub fn documents() -> Vec<Document> {
        let text =
            "kind: Deployment\nmetadata: {name: web, namespace: shop}\nspec:\n  x: 1\n---\nkind: Pod\nspec: {}\n";
        document::read("a b/deploy.yaml", 0, text).unwrap()
    }

    pub fn findings() -> Vec<Finding> {
        vec![
            Finding {
                rule: Rule { name: "grace-period-too-short", about: "the grace period is long enough" },
                severity: Severity::Error,
                document: 0,
                path: Path::default().down("spec.x"),
                what: "is 1, and the plan needs 45".into(),
                why: "the kubelet kills\nwhat still runs".into(),
                fix: "set it to 45: 100%".into(),
                edits: vec![Edit::Set(Path::default().down("spec.x"), 45.into())],
            },
            Finding {
                rule: Rule { name: "readiness-missing", about: "there is a readiness probe" },
                severity: Severity::Note,
                document: 1,
                path: Path::default(),
                what: "has none".into(),
                why: "why".into(),
                fix: "fix".into(),
                edits: Vec::new(),
            },
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_called_by_their_names() {
        for (text, expected) in [
            ("kind: Pod\nmetadata: {name: a, namespace: b}\n", "Pod b/a"),
            ("kind: Pod\nmetadata: {name: a}\n", "Pod a"),
            ("kind: Pod\nmetadata: {namespace: b}\n", "Pod"),
            ("containers: []\n", "document"),
            ("metadata: {name: a}\n", "a"),
        ] {
            assert_eq!(title(&crate::document::read("f", 0, text).unwrap()[0]), expected);
        }
    }

    #[test]
    fn the_summary_counts() {
        let (documents, findings) = (samples::documents(), samples::findings());
        let report = |findings, fates| Report { documents: &documents, findings, fates, containers: 3, judged: 1 };
        assert_eq!(report(&findings, None).summary(), "1 error, 1 note in 3 containers of 1 document");
        assert_eq!(report(&[], None).summary(), "nothing found in 3 containers of 1 document");
        let fates = [Fate::Fixed, Fate::Left("only a person can decide".into())];
        assert_eq!(
            report(&findings, Some(&fates)).summary(),
            "1 error, 1 note in 3 containers of 1 document; 1 fixed, 1 left"
        );
    }
}
