//! What the agent has seen of new connections before a drain. It looks only when somebody asks the agent something
//! anyway, and for a moment after that: how the count stands, and how long it takes until it rises. While nobody asks,
//! nothing runs. What the figures mean is decided in [`super::arrivals`].

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use super::arrivals::{Count, Past, Waits};
use crate::{
    net::{TIME_WAIT, counters::Counters},
    step::OwnTraffic,
    task,
};

/// Who asks more often than this learns no more about the traffic.
const BETWEEN_READINGS: Duration = Duration::from_secs(1);
/// Older readings tell of other traffic.
const OLDEST: Duration = Duration::from_secs(600);
/// A longer time without a reading may have been day and night at once.
const LONGEST_BLIND: Duration = Duration::from_secs(300);
/// Readings that are kept, 24 bytes each: with a probe every 10 s nearly all of those 10 minutes.
const MOST_READINGS: usize = 48;
/// Waits that are kept.
const MOST_WAITS: usize = 32;
/// The rate is taken over these times and over all: it may have fallen lately.
const WINDOWS: [Duration; 3] = [Duration::from_secs(30), Duration::from_secs(120), OLDEST];
/// A wait begins so long after an ask at most: asks and arrivals may have the same clock.
const LATEST_BEGIN_MILLIS: u64 = 2000;
/// After so long another look is taken…
const FIRST_LOOK: Duration = Duration::from_millis(50);
/// …and later ones each time this much of the time that has passed: a wait is known to a half.
const NEXT_LOOK: u32 = 2;
/// Whatever is not there by then is as good as never: a drain would wait as long.
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// A handle to what has been seen; all copies are one. By default there is none, and nothing is known.
#[derive(Clone, Debug, Default)]
pub struct History(Option<Arc<Mutex<Seen>>>);

#[derive(Debug, Default)]
struct Seen {
    readings: Vec<(Instant, i64)>,
    waits: Vec<Wait>,
    is_waiting: bool,
}

/// One wait for a new connection.
#[derive(Clone, Copy, Debug)]
struct Wait {
    ended: Instant,
    took: Duration,
    /// A connection has ended it; otherwise it was given up.
    has_come: bool,
}

impl History {
    /// One that can be filled.
    pub fn new() -> Self {
        Self(Some(Arc::default()))
    }

    fn seen(&self) -> Option<MutexGuard<'_, Seen>> {
        self.0.as_ref().map(|seen| seen.lock().expect("no holder of this lock can panic"))
    }

    /// Reads the count, if the last reading is old enough.
    pub fn look(&self, own: &OwnTraffic) {
        let now = Instant::now();
        if let Some(mut seen) = self.seen()
            && seen.readings.last().is_none_or(|(last, _)| now.saturating_duration_since(*last) >= BETWEEN_READINGS)
            && let Some(count) = read(own)
        {
            seen.note(now, count);
        }
    }

    /// Waits for the next connection in the background, unless that is being done; `goes_on` is asked before each look
    /// whether it is still wanted, and `looked` is called after each, for whoever has to tidy up.
    pub fn wait(
        &self,
        own: &OwnTraffic,
        goes_on: impl Fn() -> bool + Send + Sync + 'static,
        looked: impl Fn() + Send + Sync + 'static,
    ) {
        match self.seen() {
            Some(mut seen) if !seen.is_waiting => seen.is_waiting = true,
            _ => return,
        }
        let (history, own) = (self.clone(), own.clone());
        task::spawn(async move {
            let wait = wait(&own, &goes_on, &looked).await;
            if let Some(mut seen) = history.seen() {
                seen.is_waiting = false;
                if let Some(wait) = wait {
                    if seen.waits.len() == MOST_WAITS {
                        seen.waits.remove(0);
                    }
                    seen.waits.push(wait);
                }
            }
            looked();
        });
    }

    /// The same where so many of those that came in the last minute, and perhaps a few more, were not the application's.
    pub fn past_minute(&self, now: Instant, count: i64, foreign: u64) -> Past {
        let Some(seen) = self.seen() else { return Past::default() };
        let all = seen.past(now, count);
        let mut minute =
            seen.readings.iter().map(|(at, then)| (now.saturating_duration_since(*at), count.saturating_sub(*then)));
        let found = minute.find(|(over, _)| !over.is_zero() && *over <= TIME_WAIT);
        let Some((over, number)) = found else { return Past::default() };
        let number = u64::try_from(number).unwrap_or(0);
        // Addresses that are used again leave one trace for two connections.
        let left = number.saturating_sub(foreign).saturating_sub(foreign / 4);
        // Waits that others have ended tell nothing.
        let waits = if foreign <= number / 20 { all.waits } else { Waits::default() };
        Past { counts: vec![Count { number: left, over }], waits, ..Past::default() }
    }

    /// What is known at a moment when the count stands there.
    pub fn past(&self, now: Instant, count: i64) -> Past {
        self.seen().map_or_else(Past::default, |seen| seen.past(now, count))
    }
}

impl Seen {
    fn note(&mut self, now: Instant, count: i64) {
        let is_old = |at: Instant| now.saturating_duration_since(at) > OLDEST;
        // One that is older stays: it begins the time of which the others tell.
        while self.readings.get(1).is_some_and(|(at, _)| is_old(*at)) {
            self.readings.remove(0);
        }
        if self.readings.len() >= MOST_READINGS {
            // Out goes the one whose neighbours are closest together for their age: old ones may be far apart.
            let crowd = |index: &usize| {
                let (before, after) = (self.readings[index - 1].0, self.readings[index + 1].0);
                let apart = after.saturating_duration_since(before).as_millis();
                let age = now.saturating_duration_since(self.readings[*index].0).as_millis();
                apart.saturating_mul(1000) / age.max(1)
            };
            if let Some(index) = (1..self.readings.len() - 1).min_by_key(crowd) {
                self.readings.remove(index);
            }
        }
        self.readings.push((now, count));
    }

    fn past(&self, now: Instant, count: i64) -> Past {
        let mut past = Past::default();
        // From the newest reading back to where nobody has looked for too long.
        let mut later = now;
        let readings = self.readings.iter().rev().take_while(|(at, _)| {
            let blind = later.saturating_duration_since(*at);
            later = *at;
            blind <= LONGEST_BLIND
        });
        let readings: Vec<(Duration, u64)> = readings
            .map(|(at, then)| {
                (now.saturating_duration_since(*at), u64::try_from(count.saturating_sub(*then)).unwrap_or(0))
            })
            .filter(|(over, _)| !over.is_zero())
            .collect();
        for window in WINDOWS {
            let found = readings.iter().find(|(over, _)| *over >= window).or(readings.last());
            if let Some(&(over, number)) = found {
                let count = Count { number, over };
                if past.counts.last() != Some(&count) {
                    past.counts.push(count);
                }
            }
        }
        for wait in self.waits.iter().filter(|wait| now.saturating_duration_since(wait.ended) <= OLDEST) {
            let waits: &mut Waits = &mut past.waits;
            waits.ended += u32::from(wait.has_come);
            waits.total += wait.took;
            waits.longest = waits.longest.max(wait.took);
        }
        past
    }
}

/// How many connections the network namespace has accepted, less those that the agent has to do with.
fn read(own: &OwnTraffic) -> Option<i64> {
    Counters::open().and_then(|counters| counters.read()).ok()?.others_than(own.count())
}

/// Waits for the next connection, from a moment by chance; `None` when it is not wanted any more or cannot be told.
async fn wait(
    own: &OwnTraffic,
    goes_on: &(impl Fn() -> bool + Send + Sync),
    looked: &(impl Fn() + Send + Sync),
) -> Option<Wait> {
    // Keys of hash tables are the nearest random numbers.
    let delay = Duration::from_millis(RandomState::new().hash_one(0) % LATEST_BEGIN_MILLIS);
    sleep_until(Instant::now() + delay).await;
    let began = Instant::now();
    let before = read(own)?;
    let mut passed = Duration::ZERO;
    loop {
        passed += FIRST_LOOK.max(passed / NEXT_LOOK);
        sleep_until(began + passed).await;
        if !goes_on() {
            return None;
        }
        let (read, ended) = (read(own)?, Instant::now());
        let wait = |has_come| Some(Wait { ended, took: ended.saturating_duration_since(began), has_come });
        if read > before {
            // The kernel counts the agent's own connections before the agent does: what it has accepted by now is none.
            let counted = own.count();
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            if read.saturating_sub(own.count().saturating_sub(counted)) > before {
                return wait(true);
            }
        }
        if passed >= LONGEST_WAIT {
            return wait(false);
        }
        looked();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn counts(seen: &Seen, now: Instant, count: i64) -> Vec<(u64, u64)> {
        seen.past(now, count).counts.iter().map(|count| (count.number, count.over.as_secs())).collect()
    }

    #[test]
    fn rates_are_over_the_last_moment_and_over_all() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        assert_eq!(counts(&seen, start, 5), []);
        seen.note(start, 100);
        assert_eq!(counts(&seen, start, 100), [], "no time has passed");
        assert_eq!(counts(&seen, start + 20 * SECOND, 140), [(40, 20)], "all there is");
        for second in (10..=200).step_by(10) {
            seen.note(start + SECOND * second, 100 + 2 * i64::from(second));
        }
        let now = start + 200 * SECOND;
        assert_eq!(counts(&seen, now, 510), [(70, 30), (250, 120), (410, 200)]);
        assert_eq!(counts(&seen, now + 301 * SECOND, 600), [], "nobody has looked for five minutes");
        seen.note(now + 301 * SECOND, 600);
        assert_eq!(counts(&seen, now + 303 * SECOND, 604), [(4, 2)], "what was before that says nothing");
        assert_eq!(counts(&seen, now + 303 * SECOND, 598), [(0, 2)], "a count never falls");
    }

    #[test]
    fn readings_are_thinned_and_cover_ten_minutes() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        for second in 0..3000 {
            seen.note(start + SECOND * second, second.into());
            assert!(seen.readings.len() <= MOST_READINGS);
        }
        let now = start + 3000 * SECOND;
        let found = counts(&seen, now, 3000);
        let [(a, _), (b, _), (c, _)] = found[..] else { panic!("{found:?}") };
        assert!((30..36).contains(&a) && (120..140).contains(&b) && (540..720).contains(&c), "{found:?}");
    }

    #[test]
    fn what_others_got_is_taken_off() {
        let (history, start) = (History::new(), Instant::now());
        for second in 0..=20 {
            history.seen().expect("a new one").note(start + SECOND * (10 * second), 1000 * i64::from(second));
        }
        let now = start + SECOND * 205;
        let past = |foreign| history.past_minute(now, 20_500, foreign);
        assert_eq!(past(0).counts, [Count { number: 5500, over: 55 * SECOND }]);
        assert_eq!(past(2000).counts, [Count { number: 3000, over: 55 * SECOND }]);
        assert_eq!(past(5400).counts, [Count { number: 0, over: 55 * SECOND }]);
        assert_eq!(history.past_minute(start + SECOND * 300, 20_500, 0), Past::default(), "nobody has looked");
    }

    #[test]
    fn waits_are_added_up_and_forgotten() {
        let (mut seen, now) = (Seen::default(), Instant::now() + 2 * OLDEST);
        for (ago, took, has_come) in [(700, 9, true), (60, 3, true), (30, 1, true), (5, 15, false)] {
            seen.waits.push(Wait { ended: now - SECOND * ago, took: SECOND * took, has_come });
        }
        let waits = seen.past(now, 0).waits;
        assert_eq!((waits.ended, waits.total, waits.longest), (2, 19 * SECOND, 15 * SECOND));
    }
}
