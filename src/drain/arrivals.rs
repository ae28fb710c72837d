//! How long no new connection must have come before routing counts as moved away. Pure: evidence of arrivals goes in, a
//! quiet time and its reason come out.
//!
//! Silence of that length is chance once in 10,000 drains, as far as the evidence goes:
//!
//! * Arrivals by chance (Poisson): n of them in a time T, or n waits for the next one that add up to T. Then a wait is
//!   longer than T·(ε^(−1/n) − 1) with a chance of ε, exactly; with many it is ln(1/ε)/rate. A drain sees many waits, up
//!   to its settle time: all of them together may fail once in 10,000.
//! * Arrivals by the clock: if the longest gap of the traffic is P, then n waits begun at random moments are all shorter
//!   than P/k with a chance of k^−n. So the longest of them, times 10^(4/n), is as good.
//! * Where arrivals were only counted, nobody knows whether they came together: [`BURST`] at once are assumed.
//! * The drain itself sees gaps. A silence that is not twice the longest of them is none.

use std::{fmt, time::Duration};

use super::rules::{Moment, Rules};
use crate::duration::show;

/// The natural logarithm of 10,000: silence is mistaken for the end of the traffic once in so many drains.
const LN_ODDS: f64 = 9.210_340_372;
/// Counted arrivals are taken for bursts of so many times the rate that chance alone would need: 20 at once every 4 s
/// (5 a second) need 4 s, and get 6.4 s; 20 a second without bursts are quiet after 1.6 s.
const BURST: f64 = 3.5;
/// So many waits show what gaps the traffic has: the longest of them is then within a third of it.
const ENOUGH_WAITS: u32 = 8;
/// So many events within a drain show what its traffic is like: a second of it at least. Fewer may be one client's page
/// with all that belongs to it.
const ENOUGH_EVENTS: usize = 20;
/// What came within this time before the silence tells whether it has become less: 40 events at most.
const LATELY: Duration = Duration::from_secs(2);
/// Arrivals within this time are one event: what comes at once is seen in two looks or so. It is no part of the time in
/// which another one might have come.
const ONE_EVENT: Duration = Duration::from_millis(50);

/// So many within that time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub number: u64,
    pub over: Duration,
}

/// How long it took from random moments until the next connection came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// Waits that a connection has ended.
    pub ended: u32,
    /// All of them together, with those that nothing has ended.
    pub total: Duration,
    pub longest: Duration,
}

/// Connections that were closed lately, each at a known time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closings {
    /// All of them, over the time since the first.
    all: Count,
    /// Events over several times that end with the drain's start, without the time of the events themselves.
    events: Vec<Count>,
    /// The longest time between two of them, or since the last.
    gap: Duration,
}

/// Fewer closings tell nothing.
const ENOUGH_CLOSINGS: usize = 10;
/// Closings are counted over these times, and over all that is remembered.
const CLOSED_WITHIN: [Duration; 3] = [Duration::from_secs(10), Duration::from_secs(30), Duration::MAX];
/// Connections that stay open for different times are closed more evenly than they came.
const CLOSED_GAPS: u32 = 3;
/// Where so many of those that were counted were closed here, their times show how all are spread.
const MOST: f64 = 0.5;

impl Closings {
    /// From how long ago each connection was closed; `None` where they are too few to tell anything.
    pub fn of(mut ago: Vec<Duration>) -> Option<Self> {
        ago.sort_unstable();
        let over = *ago.last().filter(|_| ago.len() >= ENOUGH_CLOSINGS)?;
        let mut begun = ago.clone();
        begun.dedup_by(|later, earlier| *later < earlier.saturating_add(ONE_EVENT));
        // The oldest begins the time in which the others were closed.
        let within = |most: Duration| between(begun.partition_point(|&ago| ago < over.min(most)), over.min(most));
        let mut gap = ago[0];
        for pair in ago.windows(2) {
            gap = gap.max(pair[1] - pair[0]);
        }
        let all = Count { number: ago.len() as u64, over };
        Some(Self { all, events: CLOSED_WITHIN.into_iter().map(within).collect(), gap })
    }

    fn quiet(&self, settle: Duration) -> Duration {
        let slowest = self.events.iter().map(|count| count.quiet(settle)).max().unwrap_or(Duration::MAX);
        slowest.max(self.gap.saturating_mul(CLOSED_GAPS))
    }

    /// Whether they are most of what was counted.
    fn are_most_of(&self, count: Count) -> bool {
        let rate = |count: Count| count.number as f64 / count.over.as_secs_f64().max(1e-9);
        rate(self.all) >= rate(count) * MOST
    }
}

/// So many events in that time, which have taken a part of it themselves.
fn between(events: usize, over: Duration) -> Count {
    let blind = ONE_EVENT.saturating_mul(u32::try_from(events).unwrap_or(u32::MAX));
    Count { number: events as u64, over: over.saturating_sub(blind) }
}

/// What is known of the time before the drain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// Over several times that end with the drain's start. None: nobody has counted.
    pub counts: Vec<Count>,
    pub waits: Waits,
    pub closings: Option<Closings>,
    /// Why nothing is known, where that has a reason.
    pub unknown: Option<&'static str>,
}

/// What a quiet time rests on.
#[derive(Clone, Debug, PartialEq)]
enum Basis {
    Nothing,
    Counted(Count),
    Waited(Waits, Count),
    /// With the longest gap.
    Closed(Count, Duration),
    /// What the drain itself has seen.
    Seen(Count),
    /// The longest gap that it has seen.
    Gap(Duration),
    /// That fewer came at last.
    Fewer,
}

/// All that is known of arrivals.
#[derive(Clone, Debug)]
pub struct Arrivals {
    past: Past,
    /// Connections since the drain's start.
    number: u64,
    events: usize,
    /// When the last events began.
    recent: Vec<Moment>,
    last: Option<Moment>,
    gap: Duration,
    quiet_min: Duration,
    settle: Duration,
    quiet: Duration,
    basis: Basis,
}

impl Arrivals {
    pub fn new(rules: &Rules, past: Past) -> Self {
        let mut arrivals = Self {
            past,
            number: 0,
            events: 0,
            recent: Vec::new(),
            last: None,
            gap: Duration::ZERO,
            quiet_min: rules.quiet_min,
            settle: rules.settle,
            quiet: rules.settle,
            basis: Basis::Nothing,
        };
        arrivals.conclude();
        arrivals
    }

    /// Whether the times of closings would tell more than is known.
    pub fn wants_closings(&self) -> bool {
        self.settle > self.quiet_min && self.past.waits.ended < ENOUGH_WAITS
    }

    /// More has become known of the time before the drain.
    pub fn learn(&mut self, change: impl FnOnce(&mut Past)) {
        change(&mut self.past);
        self.conclude();
    }

    /// So many connections came, at the latest at this moment.
    pub fn note(&mut self, at: Moment, number: u64) {
        self.number = self.number.saturating_add(number);
        // The wait for the first one is part of a gap, too.
        self.gap = self.gap.max(at.saturating_sub(self.last.unwrap_or_default()));
        self.last = self.last.max(Some(at));
        if self.recent.last().is_none_or(|&begun| at >= begun.saturating_add(ONE_EVENT)) {
            self.events += 1;
            self.recent.push(at);
        }
        self.recent.retain(|&begun| begun.saturating_add(LATELY) > at);
        self.conclude();
    }

    /// At least one came since the last time that somebody could tell, the last perhaps at this moment. When the others
    /// came is not known, and so no gap is.
    pub fn note_some(&mut self, until: Moment) {
        self.number = self.number.saturating_add(1);
        self.last = self.last.max(Some(until));
    }

    pub fn last(&self) -> Option<Moment> {
        self.last
    }

    /// How long none must have come.
    pub fn quiet(&self) -> Duration {
        self.quiet
    }

    /// When routing counts as moved away if the last connection came at this moment and none comes any more.
    pub fn quiet_from(&self, last: Option<Moment>) -> Moment {
        let by_silence = last.unwrap_or_default().saturating_add(self.quiet);
        let by_time = last.map_or(self.settle, |last| self.settle.max(last.saturating_add(self.quiet_min)));
        by_silence.min(by_time)
    }

    fn conclude(&mut self) {
        let (mut quiet, mut basis) = self.past.quiet(self.settle);
        if self.events >= ENOUGH_EVENTS {
            // The gaps that were seen before may come again, whatever the traffic looks like now.
            let over = self.last.unwrap_or_default();
            let seen = between(self.events, over).quiet(self.settle).max(self.past.waits.longest.saturating_mul(2));
            if seen < quiet {
                (quiet, basis) = (seen, Basis::Seen(Count { number: self.number, over }));
            }
        }
        let gap = self.gap.saturating_mul(2);
        if gap > quiet.max(self.quiet_min) {
            (quiet, basis) = (gap, Basis::Gap(self.gap));
        }
        // Where connections are told apart afterwards, not all of their times are known.
        if let Some(last) = self.last.filter(|_| quiet < self.settle && !self.recent.is_empty()) {
            let fewer = self.lately(last);
            if fewer > quiet.max(self.quiet_min) {
                (quiet, basis) = (fewer, Basis::Fewer);
            }
        }
        self.quiet = quiet.max(self.quiet_min).min(self.settle);
        self.basis = basis;
    }

    /// Routers that go one by one leave ever fewer connections: what the last ones before the silence ask for, where as
    /// many as usual came before the drain.
    fn lately(&self, last: Moment) -> Duration {
        let seen = between(self.recent.len(), last.min(LATELY));
        let mut all = Count { number: seen.number, over: seen.over };
        if let Some(usual) = self.past.usual() {
            let each = usual.over.as_secs_f64() / usual.number.max(1) as f64;
            let before = LATELY.saturating_sub(last).as_secs_f64() / (each + ONE_EVENT.as_secs_f64());
            all.number += before as u64;
            all.over = all.over.saturating_add(Duration::try_from_secs_f64(before * each).unwrap_or_default());
        }
        all.exceeded(LN_ODDS)
    }

    /// By which rule routing has moved away, with its figures; the last connection came then.
    pub fn describe_end(&self, at: Moment, last: Option<Moment>) -> String {
        let silence = at.saturating_sub(last.unwrap_or_default());
        let (quiet, settle) = (show(self.quiet), show(self.settle));
        let mut text = match last {
            _ if self.quiet < self.settle && silence >= self.quiet => {
                format!("no new connection for {} where {self}, quiet time {quiet}", show(silence))
            }
            Some(_) => format!("settle time {settle} passed, last new connection {} ago: {self}", show(silence)),
            None => format!("settle time {settle} passed, no new connection: {self}"),
        };
        if let Some(last) = last.filter(|&last| last > self.settle) {
            let last = show(last);
            text += &format!("; connections came until {last}: settle time {settle} is too short, raise it");
        }
        text
    }

    /// What is waited for.
    pub fn describe_wait(&self, at: Moment, last: Option<Moment>) -> String {
        let mut text = match last {
            Some(last) => format!("last new connection {} ago", show(at.saturating_sub(last))),
            None => "no new connection".into(),
        };
        let end = self.quiet_from(last);
        match last {
            _ if at >= end => {}
            Some(last) if last > self.settle => {
                text += &format!(": settle time {} is shorter than routing needs, raise it", show(self.settle));
            }
            _ => text += &format!(", routing has moved away if none comes for {} more: {self}", show(end - at)),
        }
        text
    }
}

/// What the quiet time rests on.
impl fmt::Display for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.number;
        match &self.basis {
            Basis::Nothing => f.write_str(self.past.unknown.unwrap_or("nothing was known of earlier arrivals")),
            Basis::Counted(count) => write!(f, "{count} usual ({} before, {since} since)", count.short()),
            Basis::Waited(waits, count) => {
                let longest = show(waits.longest);
                write!(f, "{count} usual ({} before, {since} since; longest wait {longest})", count.short())
            }
            Basis::Closed(count, gap) => {
                write!(f, "{count} usual ({} closed before, {since} since; longest gap {})", count.short(), show(*gap))
            }
            Basis::Seen(count) => write!(f, "{count} usual ({})", count.short()),
            Basis::Fewer => {
                write!(f, "fewer came at last ({} within {}, {since} since the start)", self.recent.len(), show(LATELY))
            }
            Basis::Gap(gap) => write!(f, "the longest gap was {} ({since} since the start)", show(*gap)),
        }
    }
}

impl Count {
    fn short(&self) -> String {
        format!("{} in {}", self.number, show(self.over))
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = u64::try_from(self.over.as_millis()).unwrap_or(u64::MAX).max(1);
        match self.number.saturating_mul(1000) / millis {
            0 if self.number == 0 => f.write_str("none was"),
            0 => write!(f, "one every {} was", show(Duration::from_millis(millis / self.number))),
            1 => f.write_str("one a second was"),
            rate => write!(f, "{rate} a second were"),
        }
    }
}

impl Past {
    /// How many came, at the lowest rate that is known.
    fn usual(&self) -> Option<Count> {
        let rarest = |count: &Count| count.over / u32::try_from(count.number).unwrap_or(u32::MAX).max(1);
        self.counts.iter().copied().max_by_key(rarest).or(self.closings.as_ref().map(|closings| closings.all))
    }

    /// The quiet time as far as the past tells it: the shortest that one kind of evidence allows, but never shorter
    /// than the gaps that were seen.
    fn quiet(&self, settle: Duration) -> (Duration, Basis) {
        let nothing = (Duration::MAX, Basis::Nothing);
        // The traffic may have fallen: what asks for the longest quiet time tells how it is now.
        let slowest = self.counts.iter().copied().max_by_key(|count| count.quiet(settle));
        let counted = slowest.map_or(nothing, |count| {
            let by_waits = count.quiet(settle).max(self.waits.quiet());
            // Bursts that nobody has seen, unless enough waits show that there are longer gaps.
            let by_clock = if self.waits.ended >= ENOUGH_WAITS { self.waits.by_clock() } else { Duration::ZERO };
            let in_bursts = count.in_bursts().max(by_clock);
            if by_waits < in_bursts || by_clock >= in_bursts {
                (by_waits.min(in_bursts), Basis::Waited(self.waits, count))
            } else {
                (in_bursts, Basis::Counted(count))
            }
        });
        let (mut quiet, mut basis) = counted;
        if self.waits.ended < ENOUGH_WAITS
            && let Some(closings) = &self.closings
        {
            let mut closed = closings.quiet(settle);
            let counted = slowest.filter(|&count| closings.are_most_of(count));
            if let Some(count) = counted {
                closed = closed.max(count.quiet(settle));
            }
            if counted.is_some() || closed < quiet {
                (quiet, basis) = (closed, Basis::Closed(closings.all, closings.gap));
            }
        }
        (quiet.max(self.waits.longest.saturating_mul(2)), basis)
    }
}

impl Waits {
    fn quiet(&self) -> Duration {
        let by_chance = Count { number: self.ended.into(), over: self.total };
        by_chance.exceeded(LN_ODDS).max(self.by_clock())
    }

    fn by_clock(&self) -> Duration {
        Count { number: self.ended.into(), over: self.longest }.exceeded(LN_ODDS).saturating_add(self.longest)
    }
}

impl Count {
    /// What no wait of a drain exceeds, if they came by chance.
    fn quiet(&self, settle: Duration) -> Duration {
        let waits = self.number as f64 * settle.as_secs_f64() / self.over.as_secs_f64().max(1e-9);
        // The logarithm, rounded up to that of a power of 2.
        let bits = 64 - (waits as u64).leading_zeros();
        self.exceeded(LN_ODDS + f64::from(bits) * std::f64::consts::LN_2)
    }

    /// The same if they came together.
    fn in_bursts(&self) -> Duration {
        self.exceeded(LN_ODDS).mul_f64_or_max(BURST)
    }

    /// What one wait exceeds once in e^`ln_odds`.
    fn exceeded(&self, ln_odds: f64) -> Duration {
        // e^(ln_odds/n), by squaring (1 + x/2^12) twelve times: within 3 % for all n.
        const SQUARINGS: i32 = 12;
        if self.number == 0 {
            return Duration::MAX;
        }
        let mut power = 1.0 + ln_odds / self.number as f64 / f64::from(1 << SQUARINGS);
        for _ in 0..SQUARINGS {
            power *= power;
        }
        self.over.mul_f64_or_max(power - 1.0)
    }
}

trait MulOrMax {
    fn mul_f64_or_max(self, factor: f64) -> Duration;
}

impl MulOrMax for Duration {
    /// `mul_f64` panics where the product is too long.
    fn mul_f64_or_max(self, factor: f64) -> Duration {
        Duration::try_from_secs_f64(self.as_secs_f64() * factor).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::{dice::Dice, judge::samples::rules};

    const fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    fn count(number: u64, seconds: u64) -> Count {
        Count { number, over: ms(seconds * 1000) }
    }

    fn arrivals(settle: u64, past: Past) -> Arrivals {
        Arrivals::new(&Rules { settle: ms(settle * 1000), ..rules() }, past)
    }

    /// One every so often in the last minute, but none lately.
    fn closed(every: usize, lately: u64) -> Closings {
        Closings::of((0..60_000).step_by(every).map(|ago| ms(ago.max(lately))).collect()).expect("enough of them")
    }

    #[test]
    fn quiet_times() {
        let waits = |ended, total, longest| Waits { ended, total: ms(total), longest: ms(longest) };
        let table: &[(&str, Past, u64, u64)] = &[
            ("nothing is known", Past::default(), 15_000, 15_000),
            ("none came", Past { counts: vec![count(0, 60)], ..Past::default() }, 15_000, 15_000),
            ("busy", Past { counts: vec![count(60_000, 60)], ..Past::default() }, 1000, 1000),
            ("20 a second, perhaps at once", Past { counts: vec![count(1200, 60)], ..Past::default() }, 1600, 1650),
            ("20 at once every 4 s", Past { counts: vec![count(300, 60)], ..Past::default() }, 6000, 7000),
            (
                "the same, looked at",
                Past { counts: vec![count(300, 60)], waits: waits(8, 16_000, 3500), ..Past::default() },
                11_000,
                11_200,
            ),
            (
                "every 100 ms, looked at",
                Past { counts: vec![count(600, 60)], waits: waits(8, 600, 100), ..Past::default() },
                1000,
                1500,
            ),
            (
                "it has fallen",
                Past { counts: vec![count(30, 30), count(60_000, 600)], ..Past::default() },
                15_000,
                15_000,
            ),
            (
                "a gap was seen, once",
                Past { counts: vec![count(60_000, 60)], waits: waits(1, 3000, 3000), ..Past::default() },
                6000,
                6000,
            ),
            ("many closed", Past { closings: Some(closed(100, 0)), ..Past::default() }, 1000, 1000),
            ("with gaps", Past { closings: Some(closed(50, 3000)), ..Past::default() }, 9000, 9000),
            (
                "all came long ago",
                Past { counts: vec![count(1200, 60)], closings: Some(closed(45, 4000)), ..Past::default() },
                12_000,
                12_000,
            ),
            (
                "few of them were closed here",
                Past { counts: vec![count(60_000, 60)], closings: Some(closed(1000, 3000)), ..Past::default() },
                1000,
                1000,
            ),
        ];
        for (what, past, at_least, at_most) in table {
            let quiet = arrivals(15, past.clone()).quiet();
            assert!((ms(*at_least)..=ms(*at_most)).contains(&quiet), "{what}: {quiet:?}");
        }
    }

    #[test]
    fn the_drain_sees_for_itself() {
        let mut regular = arrivals(15, Past::default());
        for number in 1..=60 {
            regular.note(ms(number * 100), 1);
        }
        assert!((ms(1000)..ms(1700)).contains(&regular.quiet()), "{:?}", regular.quiet());
        let mut bursts = arrivals(15, Past::default());
        for number in 0..80 {
            bursts.note(ms(number / 20 * 4000 + number % 20), 1);
        }
        assert_eq!(bursts.quiet(), ms(15_000), "four events");
        let mut thinning = arrivals(15, Past { counts: vec![count(60_000, 60)], ..Past::default() });
        (0..1000).step_by(25).for_each(|at| thinning.note(ms(at), 1));
        assert_eq!(thinning.quiet(), ms(1000));
        thinning.note(ms(1700), 1);
        assert_eq!(thinning.quiet(), ms(1450), "twice the longest gap");
        thinning.note(ms(2700), 1);
        assert!(thinning.quiet() > ms(4000), "few within the last two seconds: {:?}", thinning.quiet());
    }

    #[test]
    fn texts() {
        let seen = Past { counts: vec![count(12_345, 42)], ..Past::default() };
        let rare = Past { counts: vec![count(6, 42)], ..Past::default() };
        let table: &[(Past, u64, &[u64], u64, &str)] = &[
            (
                seen.clone(),
                5,
                &[10, 1100],
                3280,
                "no new connection for 2.2s where the longest gap was 1.1s (2 since the start), quiet time 2.2s",
            ),
            (
                seen,
                5,
                &[200, 500, 700, 900],
                1900,
                "no new connection for 1s where 293 a second were usual (12345 in 42s before, 4 since), quiet time 1s",
            ),
            (
                rare.clone(),
                5,
                &[],
                5000,
                "settle time 5s passed, no new connection: one every 7s was usual (6 in 42s before, 0 since)",
            ),
            (
                rare,
                5,
                &[7000],
                8000,
                "settle time 5s passed, last new connection 1s ago: one every 7s was usual (6 in 42s before, 1 since); \
                 connections came until 7s: settle time 5s is too short, raise it",
            ),
            (
                Past::default(),
                5,
                &[100],
                6000,
                "settle time 5s passed, last new connection 5.9s ago: nothing was known of earlier arrivals",
            ),
        ];
        for (past, settle, at, end, expected) in table {
            let mut arrivals = arrivals(*settle, past.clone());
            at.iter().for_each(|&at| arrivals.note(ms(at), 1));
            assert_eq!(arrivals.describe_end(ms(*end), arrivals.last()), *expected);
        }
    }

    /// A kind of traffic: the time from one arrival to the next.
    type Traffic<'a> = &'a mut dyn FnMut(&mut Dice) -> f64;

    struct World {
        settle: u64,
        delay: f64,
        /// Waits that were looked at.
        waits: u32,
        is_counted: bool,
    }

    /// One drain; returns when it ended and whether somebody came after that.
    fn drain(dice: &mut Dice, next: Traffic<'_>, world: &World) -> (f64, bool) {
        const BEFORE: f64 = 130.0;
        let (mut times, mut at) = (Vec::new(), -BEFORE - dice.fraction() * 20.0);
        while at < world.delay {
            times.push(at);
            at += next(dice);
        }
        let secs = Duration::from_secs_f64;
        let since = |ago: f64| times.iter().filter(|&&at| at > -ago && at <= 0.0).count() as u64;
        let mut past = Past::default();
        if world.is_counted {
            past.counts = [30.0, BEFORE].map(|ago| Count { number: since(ago), over: secs(ago) }).to_vec();
        }
        for _ in 0..world.waits {
            let began = -20.0 - dice.fraction() * (BEFORE - 20.0);
            let index = times.partition_point(|&at| at <= began);
            let took = times.get(index).map_or(15.0, |at| at - began).min(15.0);
            // Looks are some time apart.
            let took = secs(took.max(0.05) * (1.0 + dice.fraction() / 2.0));
            past.waits.ended += 1;
            past.waits.total += took;
            past.waits.longest = past.waits.longest.max(took);
        }
        let mut arrivals = arrivals(world.settle, past);
        let mut index = times.partition_point(|&at| at <= 0.0);
        let mut now = 0.0;
        loop {
            now += 0.025;
            let came = times[index..].iter().take_while(|&&at| at <= now).count();
            index += came;
            if came > 0 {
                arrivals.note(secs(now), came as u64);
            }
            if secs(now) >= arrivals.quiet_from(arrivals.last()) {
                return (now, index < times.len());
            }
        }
    }

    /// Traffic of all kinds, routers that are late by any time up to the settle time: the drain ends too soon hardly
    /// ever, and never later than it may.
    #[test]
    fn it_ends_after_the_last_connection_and_in_time() {
        let mut dice = Dice(7);
        for (name, rates, odds) in [("chance", true, 2), ("clock", false, 0)] {
            let (mut failed, mut drains) = (0, 0);
            for rate in [0.1, 0.5, 1.0, 2.0, 5.0, 8.0, 10.0, 12.0, 20.0, 50.0, 200.0] {
                for round in 0..60 {
                    let settle = if round % 2 == 0 { 5 } else { 15 };
                    let waits = [0, 1, 3, 8, 32][round % 5];
                    let delay = dice.fraction() * settle as f64;
                    let world = World { settle, delay, waits, is_counted: round % 7 > 0 };
                    let mut by_chance = |dice: &mut Dice| -(1.0 - dice.fraction()).ln() / rate;
                    let mut by_clock = |dice: &mut Dice| (0.95 + dice.fraction() / 10.0) / rate;
                    let next: Traffic<'_> = if rates { &mut by_chance } else { &mut by_clock };
                    let (ended, is_cut) = drain(&mut dice, next, &world);
                    drains += 1;
                    failed += u32::from(is_cut);
                    assert!(ended <= settle as f64 + 1.1, "{name} {rate}: {ended} with a delay of {delay}");
                    if rate >= 20.0 && world.is_counted {
                        assert!(ended <= delay + 2.0, "{name} {rate}: {ended} with a delay of {delay}, {waits} waits");
                    }
                }
            }
            assert!(failed <= odds, "{name}: {failed} of {drains}");
        }
    }

    #[test]
    fn bursts_do_not_fool_it() {
        let mut dice = Dice(11);
        for every in 1..=10 {
            for round in 0..100_u32 {
                let settle = if round % 2 == 0 { 5 } else { 15 };
                // Without looks at gaps a count alone must do, for bursts up to those of 20 every 4 s.
                let waits = if every <= 4 { [0, 8, 20][round as usize % 3] } else { [12, 32][round as usize % 2] };
                let delay = dice.fraction() * settle as f64;
                let world = World { settle, delay, waits, is_counted: true };
                let mut left = 0;
                let mut burst = |_: &mut Dice| {
                    left = (left + 1) % 20;
                    if left == 0 { every as f64 - 0.038 } else { 0.002 }
                };
                let (ended, is_cut) = drain(&mut dice, &mut burst, &world);
                assert!(!is_cut, "20 every {every}s: cut at {ended} with a delay of {delay}, {waits} waits");
                assert!(ended <= settle as f64 + 1.1);
            }
        }
    }
}
