//! GitHub's workflow commands, which become annotations at the lines of a pull request; the escapes are those of
//! `toolkit/packages/core/src/command.ts`.

use super::{Fate, Report, place, title};
use crate::finding::Severity;

pub fn render(report: &Report<'_>) -> String {
    let mut lines = Vec::new();
    for (finding, document, fate) in report.entries() {
        if fate == Some(&Fate::Fixed) {
            continue;
        }
        let command = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "notice",
        };
        let mut message = format!("{}: {}{}", title(document), place(&finding.path), finding.what);
        for (label, text) in [("why", &finding.why), ("fix", &finding.fix)] {
            if !text.is_empty() {
                message += &format!("\n{label}: {text}");
            }
        }
        lines.push(format!(
            "::{command} file={},line={},title={}::{}",
            property(&document.file),
            document.line(&finding.path),
            property(&format!("boathook: {}", finding.rule.name)),
            data(&message),
        ));
    }
    lines.push(report.summary());
    lines.join("\n") + "\n"
}

fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;

    #[test]
    fn commands_are_escaped() {
        let (documents, findings) = (samples::documents(), samples::findings());
        let report = Report { documents: &documents, findings: &findings, fates: None, containers: 2, judged: 2 };
        assert_eq!(
            render(&report),
            "::error file=a b/deploy.yaml,line=4,title=boathook%3A grace-period-too-short::Deployment shop/web: spec.x: \
             is 1, and the plan needs 45%0Awhy: the kubelet kills%0Awhat still runs%0Afix: set it to 45: 100%25\n\
             ::notice file=a b/deploy.yaml,line=6,title=boathook%3A readiness-missing::Pod: has none%0Awhy: why%0Afix: \
             fix\n1 error, 1 note in 2 containers of 2 documents\n"
        );
        assert_eq!(property("a,b:c%\r\n"), "a%2Cb%3Ac%25%0D%0A");
    }
}
