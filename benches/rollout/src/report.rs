//! RESULTS.md: its tables, written anew between two marks. What stands around them people write.

use std::{fmt::Write as _, fs, path::Path, time::Duration};

use crate::{
    policy::Policy,
    results::{Results, Row},
    router::Mode,
    tally::Class,
};

const BEGIN: &str = "<!-- tables: written by the benchmark -->\n";
const END: &str = "<!-- end of the tables -->\n";

/// Puts the tables of all results into the file.
///
/// # Errors
/// The file cannot be read or written, or has lost its marks.
pub fn renew(file: &Path, results: &Results) -> Result<(), String> {
    let fail = |why: String| format!("{}: {why}", file.display());
    let text = fs::read_to_string(file).map_err(|error| fail(error.to_string()))?;
    let text = replace(&text, &tables(results)).ok_or_else(|| fail(format!("no `{}`", BEGIN.trim_end())))?;
    fs::write(file, text).map_err(|error| fail(error.to_string()))
}

fn replace(text: &str, tables: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{tables}{END}{after}"))
}

/// Each server in each mode that was run, in the order of the rows.
pub fn groups(results: &Results) -> Vec<(&str, Mode)> {
    let mut groups: Vec<(&str, Mode)> = results.0.iter().map(|row| (&*row.cell.server, row.cell.mode)).collect();
    groups.dedup();
    groups
}

/// What was run of a group, in order: policies and delays.
pub fn axes(results: &Results, server: &str, mode: Mode) -> (Vec<Policy>, Vec<Duration>) {
    let rows = results.0.iter().filter(|row| row.cell.server == server && row.cell.mode == mode);
    let (mut policies, mut delays): (Vec<_>, Vec<_>) = rows.map(|row| (row.cell.policy, row.cell.delay)).unzip();
    policies.dedup();
    delays.sort();
    delays.dedup();
    (policies, delays)
}

fn tables(results: &Results) -> String {
    let mut text = String::new();
    for (server, mode) in groups(results) {
        let (policies, delays) = axes(results, server, mode);
        let _ = writeln!(text, "### {server}, router in {} mode\n", mode.name().to_uppercase());
        let _ = writeln!(text, "Failed of all requests, and mean seconds until a replica is gone:\n");
        let heads = delays.iter().fold(String::new(), |heads, delay| format!("{heads} D = {} s |", delay.as_secs()));
        let _ = writeln!(text, "| policy |{heads}\n|---|{}", "---|".repeat(delays.len()));
        for policy in policies {
            let cells = delays.iter().fold(String::new(), |cells, &delay| {
                let row = results.find(server, mode, policy, delay);
                format!("{cells} {} |", row.map_or_else(|| "–".into(), short))
            });
            let _ = writeln!(text, "| {} |{cells}", policy.name());
        }
        text.push('\n');
    }
    text + "### Every cell\n\n" + &details(results)
}

fn short(row: &Row) -> String {
    format!("{} of {}, {:.1} s", row.tally.failures(), row.tally.requests, row.seconds())
}

/// All the numbers. Classes in which nothing ever failed are left out.
fn details(results: &Results) -> String {
    let seen: Vec<Class> = Class::ALL
        .into_iter()
        .filter(|&class| results.0.iter().any(|row| row.tally.failed[class as usize] > 0))
        .collect();
    let classes = seen.iter().fold(String::new(), |heads, class| format!("{heads} {} |", class.name()));
    let mut text = format!(
        "| server | router | policy | D | requests | failed |{classes} on closed | gone after | killed |\n|{}\n",
        "---|".repeat(9 + seen.len())
    );
    for row in &results.0 {
        let Row { cell, tally, gone, killed } = row;
        let failed =
            seen.iter().fold(String::new(), |cells, &class| format!("{cells} {} |", tally.failed[class as usize]));
        let gone: Vec<String> = gone.iter().map(|gone| format!("{:.1}", gone.as_secs_f64())).collect();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |{failed} {} | {} | {killed} |",
            cell.server,
            cell.mode.name(),
            cell.policy.name(),
            cell.delay.as_secs(),
            tally.requests,
            tally.failures(),
            tally.on_closed,
            gone.join(", "),
        );
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cell::Cell, tally::Tally};

    fn results() -> Results {
        let row = |policy, delay| Row {
            cell: Cell { server: "nginx".into(), mode: Mode::Http, policy, delay: Duration::from_secs(delay) },
            tally: Tally { requests: 900, failed: [0, 2, 0, 0, 3, 0, 0, 0, 0], on_closed: 1 },
            gone: vec![Duration::from_millis(1500); 3],
            killed: 0,
        };
        Results(vec![row(Policy::NoHook, 0), row(Policy::NoHook, 3), row(Policy::Boathook, 3)])
    }

    #[test]
    fn tables_take_the_place_between_the_marks() {
        let text = format!("before\n{BEGIN}old\n{END}after\n");
        assert_eq!(replace(&text, "new\n"), Some(format!("before\n{BEGIN}\nnew\n{END}after\n")));
        assert_eq!(replace("no marks", "new\n"), None);
    }

    #[test]
    fn a_cell_that_was_not_run_is_a_dash() {
        let tables = tables(&results());
        assert!(
            tables.contains("| none | 5 of 900, 1.5 s | 5 of 900, 1.5 s |\n| boathook | – | 5 of 900, 1.5 s |\n"),
            "{tables}"
        );
        assert!(tables.contains("| failed | reset | 503 | on closed |"), "{tables}");
        assert!(tables.contains("| nginx | http | none | 0 | 900 | 5 | 2 | 3 | 1 | 1.5, 1.5, 1.5 | 0 |\n"), "{tables}");
    }
}
