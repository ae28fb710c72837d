//! What has to hold before an application counts as warm, what has been seen so far, and what stands against it. Pure:
//! the caller says how long a request took and how late it is.
//!
//! Everything that is looked at after each request costs the same however large the window is and however many requests
//! there are: counts go up and down as requests enter and leave the window. Only what people read is worked out anew.

mod plateau;
mod tally;
mod window;

use std::{fmt, str::FromStr, time::Duration};

use self::{plateau::Plateau, tally::Tally, window::Window};
use crate::{
    duration::{self, Span},
    keys::{Error, Node, Read, keys},
    number::Number,
    problem::Scope,
    step::Measure,
    value::Scalar,
};

/// Enough for every handler of a usual list to have run several times; and the fewest of which one in a hundred can be
/// told, so a p99 means something.
const WINDOW: u32 = 100;
/// A larger window would only be more memory (12 bytes a request): one in ten thousand is rarer than anything that is
/// asked about here.
const MOST_WINDOW: u32 = 10_000;
/// With fewer the slowest twentieth, which a plateau leaves out, would be none.
const LEAST_PLATEAU: u32 = 20;
/// What proves an application warm where nothing is said: a handful of rounds through a usual list.
const SUCCESSES: u64 = 100;
/// Reasons end up in `/dev/termination-log` and in one line of a terminal.
const LONGEST_REASON: usize = 250;

keys! {
    /// What has to hold before the application counts as warm.
    #[derive(Clone, Debug, PartialEq)]
    pub struct ProofTyped {
        /// Warm when so many requests have succeeded [default: 100, if nothing else is asked for]
        pub successes: Option<Number<u64>> = One("N"),
        /// Share of the last window that has to succeed, such as 0.99 or 99% [default: 1]
        pub success_ratio: Option<Share> = One("SHARE"),
        /// Half of the last window has to be answered within this
        pub p50: Option<Span> = One("DURATION"),
        /// 99 of 100 in the last window have to be answered within this
        pub p99: Option<Span> = One("DURATION"),
        /// Warm when the latency no longer falls by more than this share, such as 10%
        pub plateau: Option<Share> = One("SHARE"),
        /// How many of the last requests are looked at [default: 100, or successes where that is less]
        pub window: Option<Number<u32>> = One("N"),
        /// An answer that takes longer is a failure
        pub slow: Option<Span> = One("DURATION"),
        /// Go on for at least this long
        pub min_time: Option<Span> = One("DURATION"),
        /// Not warm by then: the step fails
        pub max_time: Option<Span> = One("DURATION"),
    }
}

/// A share as people write it: `0.99` or `99%`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share(pub f64);

impl FromStr for Share {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (number, whole) = match text.trim().strip_suffix('%') {
            Some(number) => (number, 100.0),
            None => (text, 1.0),
        };
        match number.trim().parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Self(number / whole)),
            _ => Err(format!("`{text}` is not a share; write \"99%\" or 0.99")),
        }
    }
}

impl Read for Share {
    fn read(value: Node<'_>) -> Result<Self, Error> {
        value.parse(&Scalar::read(value)?.0)
    }
}

/// `10%`, `12.5%`.
impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = (self.0 * 1000.0).round() as i64;
        write!(f, "{}", tenths / 10)?;
        if tenths % 10 != 0 {
            write!(f, ".{}", (tenths % 10).abs())?;
        }
        f.write_str("%")
    }
}

/// What has to hold, all of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Proof {
    successes: u64,
    /// Of the last window.
    success_ratio: f64,
    p50: Option<Duration>,
    p99: Option<Duration>,
    plateau: Option<f64>,
    window: u32,
    slow: Option<Duration>,
    min_time: Duration,
    max_time: Option<Duration>,
}

impl ProofTyped {
    /// Gives meaning to what was typed; `None` when it noted at least one problem.
    pub fn mean(self, scope: &mut Scope<'_>) -> Option<Proof> {
        let before = scope.problems.len();
        let latency = self.p99.is_some() || self.plateau.is_some();
        let asked = latency || self.p50.is_some() || self.success_ratio.is_some();
        let successes = self.successes.map_or(if asked { 0 } else { SUCCESSES }, |number| number.0);
        if self.successes.is_some() && successes == 0 {
            scope.problem("successes", "no success at all proves nothing", "ask for at least 1".to_owned());
        }
        let mut window = self.window.map_or(WINDOW, |number| number.0);
        if window == 0 || window > MOST_WINDOW {
            scope.problem(
                "window",
                format!("{window} requests are not a window"),
                format!("write a number from 1 to {MOST_WINDOW}"),
            );
        } else if self.p99.is_some() && window < WINDOW {
            scope.problem(
                "window",
                format!("{window} requests are too few for `p99`"),
                format!("it takes {WINDOW} to tell the slowest in a hundred: raise window"),
            );
        } else if self.plateau.is_some() && window < LEAST_PLATEAU {
            scope.problem(
                "window",
                format!("{window} requests are too few for `plateau`"),
                format!("it takes {LEAST_PLATEAU} to tell a fall from noise, better {WINDOW}: raise window"),
            );
        }
        // So many successes and no more were asked for; to see that the latest of them failed takes no more either.
        if !latency && successes > 0 {
            window = window.min(u32::try_from(successes).unwrap_or(window));
        }
        let success_ratio = self.success_ratio.map_or(1.0, |share| share.0);
        if success_ratio <= 0.0 || success_ratio > 1.0 {
            scope.problem(
                "success-ratio",
                format!("{} is not above 0% and at most 100%", Share(success_ratio)),
                "write a share such as 0.99 or \"99%\"".to_owned(),
            );
        }
        if let Some(Share(plateau)) = self.plateau
            && (plateau <= 0.0 || plateau >= 1.0)
        {
            scope.problem(
                "plateau",
                format!("{} is not above 0% and below 100%", Share(plateau)),
                "write the fall that no longer counts, such as \"10%\" or 0.1".to_owned(),
            );
        }
        for (key, span) in [("p50", self.p50), ("p99", self.p99), ("slow", self.slow), ("max-time", self.max_time)] {
            if span.is_some_and(|span| span.0.is_zero()) {
                scope.problem(
                    key,
                    "nothing is done in no time at all",
                    "give it some, or leave the key out".to_owned(),
                );
            }
        }
        if let (Some(p50), Some(p99)) = (self.p50, self.p99)
            && p50 > p99
        {
            scope.problem(
                "p50",
                format!("{p50} is longer than p99 {p99}, which says more"),
                "lower p50, or leave it out".to_owned(),
            );
        }
        if let (Some(min), Some(max)) = (self.min_time, self.max_time)
            && min >= max
        {
            scope.problem(
                "min-time",
                format!("{min} leaves no time before max-time {max}"),
                "lower min-time, or raise max-time".to_owned(),
            );
        }
        (scope.problems.len() == before).then(|| Proof {
            successes,
            success_ratio,
            p50: self.p50.map(|span| span.0),
            p99: self.p99.map(|span| span.0),
            plateau: self.plateau.map(|share| share.0),
            window,
            slow: self.slow.map(|span| span.0),
            min_time: self.min_time.map_or(Duration::ZERO, |span| span.0),
            max_time: self.max_time.map(|span| span.0),
        })
    }
}

impl Proof {
    /// Nothing has been seen yet. `shown` are all requests: their names, and whether each has to succeed once because it
    /// was written in the configuration itself.
    pub fn begin(&self, shown: Vec<(String, bool)>) -> Evidence {
        Evidence {
            window: Window::new(self.window, self.p50, self.p99),
            plateau: self.plateau.map(|fall| Plateau::new(fall, self.window, shown.len())),
            tally: Tally::new(shown),
            proof: self.clone(),
            pace: [(Duration::ZERO, 0); 2],
        }
    }

    /// When it is to be given up.
    pub fn max_time(&self) -> Option<Duration> {
        self.max_time
    }

    /// How many of the last `window` may fail.
    fn failures_allowed(&self) -> u32 {
        // The smallest number above it that a ratio in decimal digits may have been meant as: 0.99 of 100 is 99, and not
        // 99.00000000000001.
        let wanted = (self.success_ratio * f64::from(self.window) - 1e-6).ceil();
        self.window.saturating_sub(wanted as u32)
    }
}

/// What has been seen.
#[derive(Debug)]
pub struct Evidence {
    proof: Proof,
    window: Window,
    plateau: Option<Plateau>,
    tally: Tally,
    /// When how many had been seen: the rate is told from the first of the two, a second or two ago.
    pace: [(Duration, u64); 2],
}

impl Evidence {
    /// A request has ended: with a success, or with a failure in few words. An answer that was not expected begins with
    /// its status ("503", "200, not 201"); words mean that there was no whole answer ("connection refused", "no answer
    /// within 5s"). `elapsed` since the run began.
    pub fn note(&mut self, entry: usize, outcome: Result<(), &str>, took: Duration, elapsed: Duration) {
        let slow = self.proof.slow.filter(|slow| outcome.is_ok() && took > *slow);
        let failure = match (outcome, slow) {
            (Err(text), _) => Some(self.tally.name(text)),
            (Ok(()), Some(slow)) => Some(self.tally.name_slow(slow)),
            (Ok(()), None) => None,
        };
        self.tally.note(entry, failure);
        // How long it took to fail says nothing of how fast it answers; but a slow answer is an answer.
        let took = outcome.is_ok().then_some(took);
        self.window.note(entry, failure, took);
        if let (Some(plateau), Some(took)) = (&mut self.plateau, took) {
            plateau.note(took);
        }
        if elapsed.saturating_sub(self.pace[1].0) >= RATE_TIME {
            self.pace = [self.pace[1], (elapsed, self.tally.seen())];
        }
    }

    /// Whether it is proved.
    pub fn holds(&mut self, elapsed: Duration) -> bool {
        elapsed >= self.proof.min_time
            && self.tally.succeeded >= self.proof.successes
            && self.tally.owed == 0
            && self.window.is_full()
            && self.window.failed() <= self.proof.failures_allowed()
            && self.window.is_fast()
            && self.plateau.as_ref().is_none_or(Plateau::is_reached)
    }

    /// What stands against it now, in one line for people, the worst first:
    /// `2 of 14 requests never answered 2xx: GET /x → 503 (40 times)`. Empty when nothing does.
    pub fn against(&self, elapsed: Duration) -> String {
        let mut said = Vec::new();
        if self.tally.seen() == 0 {
            return "no request has ended yet".into();
        }
        if self.tally.succeeded == 0
            && let Some((reason, times)) = self.tally.nothing_answered()
        {
            return clip(&format!("no answer at all: {reason} ({})", count(times, "time")), LONGEST_REASON);
        }
        said.extend(self.tally.show_owed());
        let (failed, window) = (self.window.failed(), self.proof.window);
        // Where nothing has ever succeeded all has been said.
        if failed > self.proof.failures_allowed() && (self.tally.succeeded > 0 || said.is_empty()) {
            let mut text = format!("{failed} of the last {} failed", count(self.window.len().into(), "request"));
            if let Some((entry, failure, times)) = self.window.worst() {
                let (shown, reason) = (self.tally.shown(entry), self.tally.reason(failure));
                text.push_str(&format!(", most often: {shown} → {reason} ({})", count(times, "time")));
            }
            said.push(text);
        }
        if self.tally.succeeded < self.proof.successes {
            said.push(format!("{} of {}", self.tally.succeeded, count(self.proof.successes, "success")));
        } else if !self.window.is_full() {
            said.push(format!("{} of the {window} requests of a window", self.window.len()));
        }
        for (limit, name, part) in [(self.proof.p99, "p99", P99), (self.proof.p50, "p50", P50)] {
            if let (Some(limit), Some(is)) = (limit, self.window.quantile(part))
                && is > limit
            {
                let (is, limit) = (show(is), show(limit));
                said.push(format!("{name} of the last {window} requests is {is}, above {limit}"));
            }
        }
        said.extend(self.plateau.as_ref().and_then(Plateau::against));
        if elapsed < self.proof.min_time {
            said.push(format!("min-time {} is not over", Span(self.proof.min_time)));
        }
        let mut text = String::new();
        for part in said {
            if !text.is_empty() {
                // The worst is said; what does not fit beside it can wait until that is mended.
                if text.len() + part.len() + 2 > LONGEST_REASON {
                    break;
                }
                text.push_str("; ");
            }
            text.push_str(&part);
        }
        clip(&text, LONGEST_REASON)
    }

    /// What was proved, in one line: `warm after 412 requests in 3.1s: p50 2.1ms, p99 8ms, no longer falling`.
    pub fn summary(&self, elapsed: Duration) -> String {
        let mut text = format!("warm after {}", count(self.tally.seen(), "request"));
        if self.tally.failed > 0 {
            text.push_str(&format!(" ({} failed)", self.tally.failed));
        }
        text.push_str(&format!(" in {}", duration::show(elapsed)));
        if let (Some(p50), Some(p99)) = (self.window.quantile(P50), self.window.quantile(P99)) {
            text.push_str(&format!(": p50 {}, p99 {}", show(p50), show(p99)));
            if self.plateau.is_some() {
                text.push_str(", no longer falling");
            }
        }
        text
    }

    /// Numbers for `/status`.
    pub fn measure(&self, elapsed: Duration) -> Measure {
        let seconds = |took: Option<Duration>| took.map(|took| took.as_secs_f64());
        let (since, then) = self.pace[0];
        let span = elapsed.saturating_sub(since).as_secs_f64();
        Measure {
            done: self.tally.succeeded,
            left: self.left(),
            failed: self.tally.failed,
            rate: if span > 0.0 { self.tally.seen().saturating_sub(then) as f64 / span } else { 0.0 },
            p50: seconds(self.window.quantile(P50)),
            p99: seconds(self.window.quantile(P99)),
        }
    }

    /// How many requests are still wanted at least, where only their number is.
    fn left(&self) -> Option<u64> {
        let successes = self.proof.successes.saturating_sub(self.tally.succeeded);
        let window = u64::from(self.proof.window.saturating_sub(self.window.len()));
        let plateau = self.plateau.as_ref().map_or(0, Plateau::left);
        Some(successes.max(window).max(plateau)).filter(|left| *left > 0)
    }
}

/// The rate is that of the last second or two: shorter ones jump with every pause of the other side, longer ones are old.
const RATE_TIME: Duration = Duration::from_secs(1);

/// Parts of a hundred that are at most as slow.
const P50: u32 = 50;
const P99: u32 = 99;

/// A latency: `0.43ms`, `2.1ms`, `130ms`, `1.5s`.
pub fn show(took: Duration) -> String {
    let micros = took.as_micros();
    match micros {
        ..=999 => format!("{}.{:02}ms", micros / 1000, micros % 1000 / 10),
        1_000..=9_999 => format!("{}.{}ms", micros / 1000, micros % 1000 / 100),
        _ => duration::show(took),
    }
}

/// `1 time`, `2 times`, `3 successes`.
fn count(number: u64, what: &str) -> String {
    let plural = match (number, what.ends_with('s')) {
        (1, _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{number} {what}{plural}")
}

/// At most so many bytes of it.
fn clip(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.into();
    }
    // Room for the ellipsis, which is three bytes.
    let end = text.floor_char_boundary(most.saturating_sub(3));
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::parse;

    const MS: Duration = Duration::from_millis(1);
    const NOW: Duration = Duration::from_secs(5);

    /// What was meant, or the problems: `window: … | help`.
    fn mean(text: &str) -> Result<Proof, Vec<String>> {
        let (mut secrets, mut problems) = (Vec::new(), Vec::new());
        let mut scope = Scope::of_command_line(&mut secrets, &mut problems);
        let typed: ProofTyped = parse(text).map_err(|error| vec![error])?;
        let meant = typed.mean(&mut scope);
        meant.ok_or_else(|| {
            let show = |problem: crate::problem::Problem| {
                format!("{}: {} | {}", problem.place, problem.what, problem.help.unwrap_or_default())
            };
            problems.into_iter().map(show).collect()
        })
    }

    fn proof(text: &str) -> Proof {
        mean(text).expect(text)
    }

    /// Evidence with these requests, all of them written.
    fn begin(text: &str, requests: &[&str]) -> Evidence {
        proof(text).begin(requests.iter().map(|shown| ((*shown).to_owned(), true)).collect())
    }

    fn succeed(evidence: &mut Evidence, times: usize) {
        for _ in 0..times {
            evidence.note(0, Ok(()), 2 * MS, NOW);
        }
    }

    fn fail(evidence: &mut Evidence, entry: usize, reason: &str, times: usize) {
        for _ in 0..times {
            evidence.note(entry, Err(reason), MS, NOW);
        }
    }

    #[test]
    fn fills_in_what_was_not_said() {
        let hundred = Proof {
            successes: 100,
            success_ratio: 1.0,
            p50: None,
            p99: None,
            plateau: None,
            window: 100,
            slow: None,
            min_time: Duration::ZERO,
            max_time: None,
        };
        let none = Proof { successes: 0, ..hundred.clone() };
        for (text, want) in [
            ("", hundred.clone()),
            ("min-time = \"2s\"\nmax-time = \"30s\"", {
                Proof { min_time: 2000 * MS, max_time: Some(30_000 * MS), ..hundred.clone() }
            }),
            ("slow = \"500ms\"", Proof { slow: Some(500 * MS), ..hundred.clone() }),
            ("successes = 20", Proof { successes: 20, window: 20, ..hundred.clone() }),
            ("successes = 200", Proof { successes: 200, ..hundred.clone() }),
            ("successes = 20\np99 = \"9ms\"", Proof { successes: 20, p99: Some(9 * MS), ..hundred.clone() }),
            ("successes = \"20\"\nwindow = 30", Proof { successes: 20, window: 20, ..hundred.clone() }),
            ("successes = 20\nwindow = 10", Proof { successes: 20, window: 10, ..hundred.clone() }),
            ("p50 = \"9ms\"\nwindow = 10", Proof { p50: Some(9 * MS), window: 10, ..none.clone() }),
            ("p99 = \"9ms\"\nwindow = 1000", Proof { p99: Some(9 * MS), window: 1000, ..none.clone() }),
            ("plateau = \"10%\"", Proof { plateau: Some(0.1), ..none.clone() }),
            ("plateau = 0.1", Proof { plateau: Some(0.1), ..none.clone() }),
            ("success-ratio = \"99%\"", Proof { success_ratio: 0.99, ..none.clone() }),
            ("success-ratio = 0.99", Proof { success_ratio: 0.99, ..none.clone() }),
            ("success-ratio = 1", none),
        ] {
            assert_eq!(mean(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn says_what_nobody_can_mean() {
        for (text, want) in [
            ("successes = 0", "successes: no success at all proves nothing | ask for at least 1"),
            ("window = 0", "window: 0 requests are not a window | write a number from 1 to 10000"),
            ("window = 10001", "window: 10001 requests are not a window | write a number from 1 to 10000"),
            (
                "window = 99\np99 = \"9ms\"",
                "window: 99 requests are too few for `p99` | \
                 it takes 100 to tell the slowest in a hundred: raise window",
            ),
            (
                "window = 10\nplateau = \"5%\"",
                "window: 10 requests are too few for `plateau` | \
                 it takes 20 to tell a fall from noise, better 100: raise window",
            ),
            (
                "success-ratio = 0",
                "success-ratio: 0% is not above 0% and at most 100% | write a share such as 0.99 or \"99%\"",
            ),
            (
                "success-ratio = 99",
                "success-ratio: 9900% is not above 0% and at most 100% | write a share such as 0.99 or \"99%\"",
            ),
            (
                "success-ratio = \"100.5%\"",
                "success-ratio: 100.5% is not above 0% and at most 100% | write a share such as 0.99 or \"99%\"",
            ),
            ("success-ratio = \"most\"", "`most` is not a share; write \"99%\" or 0.99"),
            (
                "plateau = 0",
                "plateau: 0% is not above 0% and below 100% | \
                 write the fall that no longer counts, such as \"10%\" or 0.1",
            ),
            (
                "plateau = 10",
                "plateau: 1000% is not above 0% and below 100% | \
                 write the fall that no longer counts, such as \"10%\" or 0.1",
            ),
            ("slow = \"0s\"", "slow: nothing is done in no time at all | give it some, or leave the key out"),
            (
                "p50 = \"9ms\"\np99 = \"8ms\"",
                "p50: 9ms is longer than p99 8ms, which says more | lower p50, or leave it out",
            ),
            (
                "min-time = \"30s\"\nmax-time = \"30s\"",
                "min-time: 30s leaves no time before max-time 30s | lower min-time, or raise max-time",
            ),
        ] {
            assert_eq!(mean(text), Err(vec![want.to_owned()]), "{text}");
        }
        let all = mean("successes = 0\nwindow = 0\nplateau = 0").expect_err("three problems");
        assert_eq!(all.len(), 3, "{all:?}");
    }

    #[test]
    fn counts_successes() {
        let mut evidence = begin("successes = 200", &["GET /"]);
        assert_eq!(evidence.against(NOW), "no request has ended yet");
        succeed(&mut evidence, 199);
        assert!(!evidence.holds(NOW));
        assert_eq!(evidence.against(NOW), "199 of 200 successes");
        assert_eq!(evidence.measure(NOW).left, Some(1));
        succeed(&mut evidence, 1);
        assert!(evidence.holds(NOW));
        assert_eq!(evidence.against(NOW), "");
        assert_eq!(evidence.measure(NOW).left, None);
        assert_eq!(evidence.summary(3 * NOW), "warm after 200 requests in 15s: p50 2.0ms, p99 2.0ms");
    }

    #[test]
    fn forgets_the_cold_beginning_and_no_later_failure() {
        let mut evidence = begin("successes = 100", &["GET /cart"]);
        fail(&mut evidence, 0, "503", 30);
        succeed(&mut evidence, 99);
        assert_eq!(
            evidence.against(NOW),
            "1 of the last 100 requests failed, most often: GET /cart → 503 (1 time); 99 of 100 successes"
        );
        succeed(&mut evidence, 1);
        assert!(evidence.holds(NOW));
        fail(&mut evidence, 0, "500", 1);
        assert!(!evidence.holds(NOW));
        succeed(&mut evidence, 99);
        assert!(!evidence.holds(NOW));
        assert_eq!(evidence.against(NOW), "1 of the last 100 requests failed, most often: GET /cart → 500 (1 time)");
        succeed(&mut evidence, 1);
        assert!(evidence.holds(NOW));
        assert_eq!(evidence.summary(NOW), "warm after 231 requests (31 failed) in 5s: p50 2.0ms, p99 2.0ms");
    }

    #[test]
    fn keeps_to_the_ratio() {
        for (ratio, window, may_fail) in [("1", 100, 0), ("0.99", 100, 1), ("0.999", 1000, 1), ("0.29", 100, 71)] {
            let mut evidence = begin(&format!("success-ratio = {ratio}\nwindow = {window}"), &["GET /"]);
            fail(&mut evidence, 0, "503", may_fail);
            succeed(&mut evidence, window - may_fail - 1);
            assert!(!evidence.holds(NOW), "{ratio}: the window is not full");
            assert_eq!(evidence.against(NOW), format!("{} of the {window} requests of a window", window - 1));
            succeed(&mut evidence, 1);
            assert!(evidence.holds(NOW), "{ratio}");
            let mut evidence = begin(&format!("success-ratio = {ratio}\nwindow = {window}"), &["GET /"]);
            fail(&mut evidence, 0, "503", may_fail + 1);
            succeed(&mut evidence, window - may_fail - 1);
            assert!(!evidence.holds(NOW), "{ratio}: one failure too many");
        }
    }

    #[test]
    fn wants_each_written_request_once() {
        let mut shown: Vec<(String, bool)> = (0..14).map(|n| (format!("GET /{n}"), n < 13)).collect();
        shown[3].0 = "GET /x".into();
        shown[5].0 = "GET /y".into();
        let mut evidence = proof("success-ratio = 0.5").begin(shown);
        for entry in [0, 1, 2, 4, 6, 7, 8, 9, 10, 11, 12] {
            evidence.note(entry, Ok(()), MS, NOW);
        }
        fail(&mut evidence, 5, "503", 39);
        fail(&mut evidence, 3, "503", 40);
        // It comes from a log.
        fail(&mut evidence, 13, "404", 50);
        succeed(&mut evidence, 100);
        assert!(!evidence.holds(NOW));
        assert_eq!(
            evidence.against(NOW),
            "2 of 13 requests never answered 2xx: GET /x → 503 (40 times), GET /y → 503 (39 times)"
        );
        evidence.note(3, Ok(()), MS, NOW);
        fail(&mut evidence, 5, "200, not 201", 1);
        assert_eq!(
            evidence.against(NOW),
            "1 of 13 requests never answered as expected: GET /y → 503 and others (40 times)"
        );
        evidence.note(5, Ok(()), MS, NOW);
        assert!(evidence.holds(NOW));
    }

    #[test]
    fn tells_no_answer_from_a_wrong_one() {
        let mut evidence = begin("", &["GET /x", "GET /y"]);
        fail(&mut evidence, 0, "connection refused", 31);
        fail(&mut evidence, 1, "no answer within 5s", 2);
        assert_eq!(evidence.against(NOW), "no answer at all: connection refused (31 times)");
        fail(&mut evidence, 1, "503", 1);
        assert_eq!(
            evidence.against(NOW),
            "2 of 2 requests never answered 2xx: GET /x → connection refused (31 times), \
             GET /y → no answer within 5s and others (3 times); 0 of 100 successes"
        );
    }

    #[test]
    fn keeps_to_latencies() {
        let mut evidence = begin("p50 = \"20ms\"\np99 = \"100ms\"", &["GET /"]);
        let note = |evidence: &mut Evidence, took: u32, times: usize| {
            for _ in 0..times {
                evidence.note(0, Ok(()), took * MS, NOW);
            }
        };
        note(&mut evidence, 130, 2);
        note(&mut evidence, 20, 98);
        assert!(!evidence.holds(NOW));
        assert_eq!(evidence.against(NOW), "p99 of the last 100 requests is 130ms, above 100ms");
        note(&mut evidence, 100, 1);
        assert!(evidence.holds(NOW), "one in a hundred may be slower");
        note(&mut evidence, 21, 49);
        assert!(evidence.holds(NOW));
        note(&mut evidence, 21, 1);
        assert!(!evidence.holds(NOW));
        assert_eq!(evidence.against(NOW), "p50 of the last 100 requests is 21ms, above 20ms");
        let measure = evidence.measure(NOW);
        assert_eq!((measure.p50, measure.p99), (Some(0.021), Some(0.021)));
        assert_eq!(measure.left, None, "nobody can tell how many");
    }

    #[test]
    fn quantiles_are_those_of_a_sorted_list() {
        let mut numbers: Vec<u32> = (0..137).map(|n: u32| n.wrapping_mul(2_654_435_761) >> 12).collect();
        let mut evidence = begin("successes = 1000", &["GET /"]);
        for number in &numbers {
            evidence.note(0, Ok(()), Duration::from_micros((*number).into()), NOW);
        }
        numbers.drain(..37);
        numbers.sort_unstable();
        for (part, rank) in [(P50, 50), (P99, 99)] {
            assert_eq!(evidence.window.quantile(part), Some(Duration::from_micros(numbers[rank - 1].into())));
        }
    }

    #[test]
    fn a_slow_answer_is_a_failure() {
        let mut evidence = begin("successes = 1\nslow = \"500ms\"\np99 = \"600ms\"", &["GET /"]);
        evidence.note(0, Ok(()), 501 * MS, NOW);
        assert_eq!(
            evidence.against(NOW),
            "1 of 1 request never answered 2xx: GET / → slower than 500ms (1 time); 0 of 1 success"
        );
        evidence.note(0, Ok(()), 500 * MS, NOW);
        succeed(&mut evidence, 98);
        assert!(!evidence.holds(NOW));
        assert_eq!(evidence.measure(NOW).p99, Some(0.5), "a slow answer has its place among the latencies");
        succeed(&mut evidence, 1);
        assert!(evidence.holds(NOW));
    }

    #[test]
    fn a_plateau_has_to_be_seen() {
        let mut evidence = begin("plateau = \"10%\"", &["GET /"]);
        succeed(&mut evidence, 150);
        fail(&mut evidence, 0, "503", 1);
        assert_eq!(
            evidence.against(NOW),
            "1 of the last 100 requests failed, most often: GET / → 503 (1 time); \
             150 of the 500 requests that a plateau takes"
        );
        assert_eq!(evidence.measure(NOW).left, Some(350), "a failure has no latency");
        succeed(&mut evidence, 349);
        assert!(!evidence.holds(NOW));
        succeed(&mut evidence, 1);
        assert!(evidence.holds(NOW));
        assert_eq!(
            evidence.summary(NOW),
            "warm after 501 requests (1 failed) in 5s: p50 2.0ms, p99 2.0ms, no longer falling"
        );
    }

    #[test]
    fn min_time_holds_it_back() {
        let mut evidence = begin("successes = 1\nmin-time = \"2s\"", &["GET /"]);
        succeed(&mut evidence, 3);
        assert!(!evidence.holds(1999 * MS));
        assert_eq!(evidence.against(1999 * MS), "min-time 2s is not over");
        assert!(evidence.holds(2000 * MS));
    }

    #[test]
    fn tells_the_rate_lately() {
        let mut evidence = begin("", &["GET /"]);
        // A hundred a second for ten seconds, then a thousand.
        for number in 0..1000 {
            evidence.note(0, Ok(()), MS, number * 10 * MS);
        }
        assert!((evidence.measure(10_000 * MS).rate - 100.0).abs() < 2.0, "{:?}", evidence.measure(10_000 * MS));
        for number in 0..3000 {
            evidence.note(0, Ok(()), MS, 10_000 * MS + number * MS);
        }
        assert!((evidence.measure(13_000 * MS).rate - 1000.0).abs() < 20.0, "{:?}", evidence.measure(13_000 * MS));
        assert!(evidence.measure(60_000 * MS).rate < 100.0, "nothing has come for long");
    }

    /// Whatever an application puts into its reasons, and however many requests there are.
    #[test]
    fn memory_and_reasons_are_bounded() {
        let long = "é".repeat(300);
        let shown = (0..10_000).map(|n| (format!("GET /{long}/{n}"), true)).collect();
        let mut evidence = proof("successes = 10000\nwindow = 10000\nsuccess-ratio = 0.5").begin(shown);
        for number in 0..30_000 {
            evidence.note(number % 10_000, Err(&format!("503 {number} {long}")), MS, NOW);
            assert!(evidence.tally.reason_count() <= 32);
        }
        let against = evidence.against(NOW);
        assert!(against.starts_with("10000 of 10000 requests never answered 2xx: GET /ééé"), "{against}");
        assert!(against.len() <= LONGEST_REASON, "{} bytes: {against}", against.len());
        // An index that is none changes nothing and breaks nothing.
        evidence.note(usize::MAX, Ok(()), Duration::MAX, Duration::MAX);
        evidence.note(10_000, Err(""), Duration::ZERO, Duration::ZERO);
        assert!(evidence.against(NOW).len() <= LONGEST_REASON);
    }

    #[test]
    fn shows_latencies() {
        for (micros, text) in [
            (0, "0.00ms"),
            (7, "0.00ms"),
            (430, "0.43ms"),
            (2140, "2.1ms"),
            (9999, "9.9ms"),
            (130_900, "130ms"),
            (1_500_000, "1.5s"),
        ] {
            assert_eq!(show(Duration::from_micros(micros)), text);
        }
    }
}
