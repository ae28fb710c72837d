//! How often each request succeeded and failed, and why, in bounded memory.

use std::time::Duration;

use super::{clip, count};
use crate::duration::Span;

/// More different reasons than anybody reads; what an application puts into its reasons (times, ids) must not fill the
/// memory.
const MOST_REASONS: usize = 32;
/// A status and its message, or the words of an error with how to fix it.
const LONGEST_TEXT: usize = 120;
/// Names of requests may be whole URLs with queries.
const LONGEST_NAME: usize = 60;
/// So many requests are named; the others are in the number before them.
const NAMED: usize = 2;

/// Index of a reason.
pub type Failure = u16;
/// All reasons that came when the list was full.
const OTHER: Failure = 0;

#[derive(Debug)]
pub struct Tally {
    entries: Vec<Entry>,
    reasons: Vec<Reason>,
    pub succeeded: u64,
    pub failed: u64,
    /// Written requests that have not succeeded yet.
    pub owed: usize,
    written: usize,
}

#[derive(Debug)]
struct Entry {
    shown: String,
    is_written: bool,
    has_succeeded: bool,
    /// It failed for more than one reason.
    is_mixed: bool,
    /// The reason that comes up most, if one makes up more than half: a vote as Boyer and Moore count it (MJRTY, 1981).
    reason: Failure,
    lead: u32,
    failed: u32,
}

#[derive(Debug)]
struct Reason {
    text: String,
    times: u64,
    /// There was an answer.
    is_answer: bool,
}

impl Tally {
    pub fn new(shown: Vec<(String, bool)>) -> Self {
        let entries: Vec<Entry> = shown
            .into_iter()
            .map(|(shown, is_written)| Entry {
                shown,
                is_written,
                has_succeeded: false,
                is_mixed: false,
                reason: OTHER,
                lead: 0,
                failed: 0,
            })
            .collect();
        let written = entries.iter().filter(|entry| entry.is_written).count();
        let other = Reason { text: "other failures".into(), times: 0, is_answer: false };
        Self { entries, reasons: vec![other], succeeded: 0, failed: 0, owed: written, written }
    }

    /// The index of a reason; the only place that compares texts.
    pub fn name(&mut self, text: &str) -> Failure {
        self.find(text, text.starts_with(|c: char| c.is_ascii_digit()) || text.contains("grpc"))
    }

    pub fn name_slow(&mut self, slow: Duration) -> Failure {
        self.find(&format!("slower than {}", Span(slow)), true)
    }

    fn find(&mut self, text: &str, is_answer: bool) -> Failure {
        let text = clip(text, LONGEST_TEXT);
        let at = match self.reasons.iter().position(|reason| reason.text == text) {
            Some(at) => at,
            None if self.reasons.len() < MOST_REASONS => {
                self.reasons.push(Reason { text, times: 0, is_answer });
                self.reasons.len() - 1
            }
            None => {
                self.reasons[0].is_answer |= is_answer;
                0
            }
        };
        Failure::try_from(at).unwrap_or(OTHER)
    }

    pub fn note(&mut self, entry: usize, failure: Option<Failure>) {
        match failure {
            None => self.succeeded += 1,
            Some(failure) => {
                self.failed += 1;
                if let Some(reason) = self.reasons.get_mut(usize::from(failure)) {
                    reason.times += 1;
                }
            }
        }
        let Some(entry) = self.entries.get_mut(entry) else { return };
        let Some(failure) = failure else {
            if !entry.has_succeeded {
                entry.has_succeeded = true;
                self.owed -= usize::from(entry.is_written);
            }
            return;
        };
        entry.is_mixed |= entry.failed > 0 && entry.reason != failure;
        if entry.lead == 0 {
            entry.reason = failure;
        }
        entry.lead = if entry.reason == failure { entry.lead.saturating_add(1) } else { entry.lead - 1 };
        entry.failed = entry.failed.saturating_add(1);
    }

    pub fn seen(&self) -> u64 {
        self.succeeded + self.failed
    }

    #[cfg(test)]
    pub fn reason_count(&self) -> usize {
        self.reasons.len()
    }

    pub fn shown(&self, entry: usize) -> String {
        self.entries.get(entry).map_or_else(String::new, |entry| clip(&entry.shown, LONGEST_NAME))
    }

    pub fn reason(&self, failure: Failure) -> &str {
        self.reasons.get(usize::from(failure)).map_or("", |reason| &reason.text)
    }

    /// The most frequent reason, and how often it came, if there never was an answer.
    pub fn nothing_answered(&self) -> Option<(&str, u64)> {
        if self.reasons.iter().any(|reason| reason.is_answer) {
            return None;
        }
        self.reasons.iter().max_by_key(|reason| reason.times).map(|reason| (reason.text.as_str(), reason.times))
    }

    /// `2 of 14 requests never answered 2xx: GET /x → 503 (40 times), …`, those that failed most first; `None` if none.
    pub fn show_owed(&self) -> Option<String> {
        if self.owed == 0 {
            return None;
        }
        // A 2xx is a failure only where something else was expected.
        let wanted = if self.reasons.iter().any(|reason| reason.text.starts_with('2')) { "as expected" } else { "2xx" };
        let mut text = format!("{} of {} never answered {wanted}", self.owed, count(self.written as u64, "request"));
        let mut named: Vec<usize> = Vec::new();
        while named.len() < NAMED {
            let owed = |(at, entry): &(usize, &Entry)| {
                entry.is_written && !entry.has_succeeded && entry.failed > 0 && !named.contains(at)
            };
            // The first of equals: the order is that of the configuration.
            let worst = self.entries.iter().enumerate().filter(owed).rev().max_by_key(|(_, entry)| entry.failed);
            let Some((at, entry)) = worst else { break };
            text.push_str(if named.is_empty() { ": " } else { ", " });
            let (shown, reason) = (self.shown(at), self.reason(entry.reason));
            let others = if entry.is_mixed { " and others" } else { "" };
            text.push_str(&format!("{shown} → {reason}{others} ({})", count(entry.failed.into(), "time")));
            named.push(at);
        }
        Some(text)
    }
}
