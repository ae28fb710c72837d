//! For people: the place first, so that editors and terminals can jump there.

use super::{Colour, Fate, Report, name, place, title};
use crate::finding::Severity;

pub fn render(report: &Report<'_>, colour: Colour) -> String {
    // Colours of the terminal's own palette, which people have set so that they can read them.
    let paint = |code: &str, text: &str| match colour {
        Colour::Always => format!("\x1b[{code}m{text}\x1b[0m"),
        Colour::Never => text.to_owned(),
    };
    let mut lines = Vec::new();
    for (finding, document, fate) in report.entries() {
        let severity = paint(
            match finding.severity {
                Severity::Error => "1;31",
                Severity::Warning => "1;33",
                Severity::Note => "1;36",
            },
            name(finding.severity),
        );
        lines.push(format!(
            "{}:{}: {severity}[{}]: {}: {}{}",
            document.file,
            document.line(&finding.path),
            finding.rule.name,
            paint("1", &title(document)),
            place(&finding.path),
            finding.what,
        ));
        for (label, text) in [("why", &finding.why), ("fix", &finding.fix)] {
            if !text.is_empty() {
                // What follows in further lines stands below what came first.
                lines.push(format!("  {}: {}", paint("2", label), text.replace('\n', "\n       ")));
            }
        }
        match fate {
            Some(Fate::Fixed) => lines.push(format!("  {}", paint("32", "fixed"))),
            Some(Fate::Left(why)) => lines.push(format!("  {}: {why}", paint("33", "left"))),
            None => {}
        }
    }
    if report.containers > 0 {
        lines.push(report.summary());
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;

    #[test]
    fn every_finding_says_where_what_why_and_how() {
        let (documents, findings) = (samples::documents(), samples::findings());
        let fates = [Fate::Fixed, Fate::Left("only a person can decide".into())];
        let mut report = Report { documents: &documents, findings: &findings, fates: None, containers: 2, judged: 2 };
        assert_eq!(
            render(&report, Colour::Never),
            "a b/deploy.yaml:4: error[grace-period-too-short]: Deployment shop/web: spec.x: is 1, and the plan needs 45\n  \
             why: the kubelet kills\n       what still runs\n  fix: set it to 45: 100%\n\
             a b/deploy.yaml:6: note[readiness-missing]: Pod: has none\n  why: why\n  fix: fix\n\
             1 error, 1 note in 2 containers of 2 documents\n"
        );
        report.fates = Some(&fates);
        let text = render(&report, Colour::Never);
        assert!(text.contains("100%\n  fixed\n") && text.contains("fix: fix\n  left: only a person can decide\n"));
        assert!(!text.contains('\x1b') && render(&report, Colour::Always).contains("\x1b[1;31merror\x1b[0m"));
    }
}
