//! The last requests: how many of them failed, and how long the others took.

use std::time::Duration;

use super::tally::Failure;

#[derive(Debug)]
pub struct Window {
    seen: Vec<Seen>,
    size: u32,
    /// Where the next one goes, when it is full.
    at: usize,
    failed: u32,
    /// Of those with a time.
    timed: u32,
    p50: Limit,
    p99: Limit,
}

/// One request.
#[derive(Clone, Copy, Debug)]
struct Seen {
    entry: u32,
    /// Microseconds; none for one that was not answered.
    took: u32,
    /// None: it succeeded.
    failure: Option<Failure>,
}

/// No latency. A request that takes an hour has been given up long before.
const UNTIMED: u32 = u32::MAX;

/// A latency that is wanted, and how many in the window were slower.
#[derive(Debug)]
struct Limit {
    micros: u32,
    above: u32,
}

impl Limit {
    fn new(limit: Option<Duration>) -> Self {
        Self { micros: limit.map_or(UNTIMED, micros), above: 0 }
    }
}

/// At most an hour of them, so that it is no other number's sign.
pub fn micros(took: Duration) -> u32 {
    u32::try_from(took.as_micros()).unwrap_or(UNTIMED).min(UNTIMED - 1)
}

impl Window {
    pub fn new(size: u32, p50: Option<Duration>, p99: Option<Duration>) -> Self {
        Self { seen: Vec::new(), size, at: 0, failed: 0, timed: 0, p50: Limit::new(p50), p99: Limit::new(p99) }
    }

    pub fn note(&mut self, entry: usize, failure: Option<Failure>, took: Option<Duration>) {
        let new = Seen { entry: entry as u32, took: took.map_or(UNTIMED, micros), failure };
        if self.is_full() {
            let old = std::mem::replace(&mut self.seen[self.at], new);
            self.at = (self.at + 1) % self.seen.len();
            self.count(old, |number| *number -= 1);
        } else {
            self.seen.push(new);
        }
        self.count(new, |number| *number += 1);
    }

    fn count(&mut self, seen: Seen, change: impl Fn(&mut u32)) {
        if seen.failure.is_some() {
            change(&mut self.failed);
        }
        if seen.took == UNTIMED {
            return;
        }
        change(&mut self.timed);
        for limit in [&mut self.p50, &mut self.p99] {
            if seen.took > limit.micros {
                change(&mut limit.above);
            }
        }
    }

    pub fn is_full(&self) -> bool {
        self.len() == self.size
    }

    pub fn len(&self) -> u32 {
        self.seen.len() as u32
    }

    pub fn failed(&self) -> u32 {
        self.failed
    }

    /// Whether the latencies that are wanted hold.
    pub fn is_fast(&self) -> bool {
        self.p50.above <= self.timed - self.rank(super::P50) && self.p99.above <= self.timed - self.rank(super::P99)
    }

    /// How many of those with a time are at most as slow as the quantile: the nearest rank.
    fn rank(&self, part: u32) -> u32 {
        (self.timed * part).div_ceil(100)
    }

    /// So many parts of a hundred took at most this long.
    pub fn quantile(&self, part: u32) -> Option<Duration> {
        if self.timed == 0 {
            return None;
        }
        let took = lowest(|most| self.count_up_to(most) >= self.rank(part));
        Some(Duration::from_micros(took.into()))
    }

    fn count_up_to(&self, most: u32) -> u32 {
        self.seen.iter().filter(|seen| seen.took <= most && seen.took != UNTIMED).count() as u32
    }

    /// The request and the reason that failed most often, and how often.
    pub fn worst(&self) -> Option<(usize, Failure, u64)> {
        // So many different ones are told apart; if there are more, one of these is as good an example as any.
        const MOST: usize = 64;
        let mut kinds: Vec<(u32, Failure, u64)> = Vec::new();
        for seen in &self.seen {
            let Some(failure) = seen.failure else { continue };
            match kinds.iter().position(|kind| (kind.0, kind.1) == (seen.entry, failure)) {
                Some(at) => kinds[at].2 += 1,
                None if kinds.len() < MOST => kinds.push((seen.entry, failure, 1)),
                None => {}
            }
        }
        let (entry, failure, times) = kinds.into_iter().rev().max_by_key(|kind| kind.2)?;
        Some((entry as usize, failure, times))
    }
}

/// The lowest number for which it is true, if it is true for all above: a quantile without putting anything in order,
/// which would be 3 kB of the binary.
pub fn lowest(is_enough: impl Fn(u32) -> bool) -> u32 {
    let (mut low, mut high) = (0, UNTIMED - 1);
    while low < high {
        let middle = low + (high - low) / 2;
        if is_enough(middle) { high = middle } else { low = middle + 1 }
    }
    low
}
