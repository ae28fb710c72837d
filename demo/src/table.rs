//! What is printed of a rolling restart: the hook's timeline and the table of costs.

use tokio::time::Instant;

use crate::rollout::Row;

/// What happened from the deletion to the end of the container, in seconds after the deletion.
pub fn timeline(row: &Row) -> String {
    let seconds = |at: Instant| at.saturating_duration_since(row.deleted).as_secs_f64();
    row.events.iter().fold(String::new(), |text, event| {
        format!("{text}{:+8.3} s  {:8}  {}\n", seconds(event.at), event.who, event.what)
    })
}

/// One line for each practice.
pub fn rows(rows: &[Row]) -> String {
    let head = format!(
        "{:10}{:>10}{:>8}   {:>8}{:>12}{:>11}{:>7}   {:>8}{:>12}\n",
        "", "requests", "failed", "refused", "unanswered", "truncated", "other", "retried", "gone after"
    );
    rows.iter().fold(head, |text, row| {
        let tally = &row.tally;
        let gone = row.gone.saturating_duration_since(row.deleted).as_secs_f64();
        format!(
            "{text}{:10}{:>10}{:>8}   {:>8}{:>12}{:>11}{:>7}   {:>8}{:>10.1} s\n",
            row.practice.name(),
            tally.requests,
            tally.failed(),
            tally.refused,
            tally.unanswered,
            tally.truncated,
            tally.other,
            tally.retried,
            gone
        )
    })
}
