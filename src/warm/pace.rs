//! When the next request may start: at most so many a second, evenly spaced, and slowly at first where that is wanted.
//! Pure: the caller says how late it is. Who waits and who wakes is `run`.

use std::{str::FromStr, time::Duration};

use crate::keys::{Error, Node, Read, Shape};

/// What a ramp begins with, as a share of the full rate: with less the first request of a low rate would wait for long,
/// with more the beginning would not be slow.
const BEGIN: f64 = 0.1;

/// So late a turn may be taken without being lost: timers of the runtime have a granularity of 1 ms, and the machine has
/// other work too. After a longer stall nothing is caught up beyond this.
const SLACK: Duration = Duration::from_millis(5);

/// How fast is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// So many requests are under way at most.
    pub workers: usize,
    /// So many are started per second at most.
    pub rate: Option<f64>,
    /// For so long it becomes faster: the rate if there is one, else the number of workers.
    pub ramp: Duration,
}

impl Pace {
    /// When this worker begins, counted from the beginning of the run.
    pub fn begin(&self, worker: usize) -> Duration {
        match self.rate {
            Some(_) => Duration::ZERO,
            None => self.ramp.mul_f64(worker.min(self.workers) as f64 / self.workers.max(1) as f64),
        }
    }

    /// How much time there is from one start to the next, if one was at `now`: so much that one request fits under the
    /// rate as it rises.
    fn interval(&self, rate: f64, now: Duration) -> Duration {
        let (ramp, now) = (self.ramp.as_secs_f64(), now.as_secs_f64());
        let seconds = if now >= ramp {
            1.0 / rate
        } else {
            // The rate rises evenly from BEGIN to 1; this is its share now.
            let share = BEGIN + (1.0 - BEGIN) * now / ramp;
            let until_full = rate * (ramp - now) * (share + 1.0) / 2.0;
            if until_full < 1.0 {
                ramp - now + (1.0 - until_full) / rate
            } else {
                // Where the integral of the rate from now on is 1; in the form of the quadratic formula that does not
                // take the difference of two numbers that are nearly the same.
                2.0 / (rate * (share + (share * share + 2.0 * (1.0 - BEGIN) / (ramp * rate)).sqrt()))
            }
        };
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

/// The turns of one run.
#[derive(Debug)]
pub struct Turns {
    pace: Pace,
    /// Not before this does the next request start.
    next: Duration,
}

impl Turns {
    pub fn new(pace: Pace) -> Self {
        Self { pace, next: Duration::ZERO }
    }

    /// Takes a turn, at this time since the beginning of the run.
    ///
    /// # Errors
    /// When the next turn is.
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        let Some(rate) = self.pace.rate else { return Ok(()) };
        if now < self.next {
            return Err(self.next);
        }
        let at = self.next.max(now.saturating_sub(SLACK));
        self.next = at.saturating_add(self.pace.interval(rate, at));
        Ok(())
    }
}

/// A number of requests per second as typed: `100`, `0.5`, `"100/s"`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate(pub f64);

impl FromStr for Rate {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.trim().trim_end_matches("/s").trim_end();
        match number.parse::<f64>() {
            Ok(rate) if rate.is_finite() => Ok(Self(rate)),
            _ => Err(format!("`{text}` is not a number of requests per second, such as 100 or 0.5")),
        }
    }
}

impl Read for Rate {
    fn read(value: Node<'_>) -> Result<Self, Error> {
        match value.shape()? {
            Shape::Float(rate) if rate.is_finite() => Ok(Self(rate)),
            _ => value.parse(&value.text_or_number("a number of requests per second")?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(duration: Duration) -> u64 {
        (duration.as_secs_f64() * 1000.0).round() as u64
    }

    /// When requests start if somebody is always ready, looking every `look`.
    fn starts(pace: Pace, look: Duration, until: Duration) -> Vec<Duration> {
        let (mut turns, mut starts, mut now) = (Turns::new(pace), Vec::new(), Duration::ZERO);
        while now < until {
            while turns.take(now).is_ok() {
                starts.push(now);
                assert!(starts.len() < 1_000_000, "{pace:?}");
            }
            now += look;
        }
        starts
    }

    #[test]
    fn evenly_spaced() {
        for (rate, want) in [
            (0.5, vec![0, 2000, 4000, 6000, 8000]),
            (1.0, (0..10).map(|second| second * 1000).collect()),
            (10.0, (0..100).map(|tenth| tenth * 100).collect()),
            (200.0, (0..2000).map(|turn| turn * 5).collect()),
        ] {
            let pace = Pace { workers: 1, rate: Some(rate), ramp: Duration::ZERO };
            let found = starts(pace, Duration::from_micros(500), Duration::from_secs(10));
            assert_eq!(found.iter().map(|start| millis(*start)).collect::<Vec<_>>(), want, "{rate}");
        }
    }

    #[test]
    fn without_a_rate_there_is_always_a_turn() {
        let mut turns = Turns::new(Pace { workers: 4, rate: None, ramp: Duration::from_secs(10) });
        for _ in 0..1000 {
            assert_eq!(turns.take(Duration::ZERO), Ok(()));
        }
    }

    #[test]
    fn a_late_timer_costs_no_turn_and_a_stall_is_not_caught_up() {
        let pace = Pace { workers: 1, rate: Some(1000.0), ramp: Duration::ZERO };
        // Looks that come every 3 ms still give 1000 a second.
        let found = starts(pace, Duration::from_millis(3), Duration::from_secs(3));
        assert!((2990..=3001).contains(&found.len()), "{}", found.len());
        // After 2 s of nothing there are the turns of 5 ms, and the one that is due.
        let mut turns = Turns::new(pace);
        assert_eq!(turns.take(Duration::ZERO), Ok(()));
        let stalled = Duration::from_secs(2);
        let burst = (0..100).take_while(|_| turns.take(stalled).is_ok()).count();
        assert_eq!(burst, 6);
    }

    #[test]
    fn the_ramp_of_a_rate_rises_evenly() {
        let pace = Pace { workers: 1, rate: Some(100.0), ramp: Duration::from_secs(10) };
        let found = starts(pace, Duration::from_micros(500), Duration::from_secs(12));
        let in_second = |second: u64| found.iter().filter(|start| start.as_secs() == second).count();
        let counts: Vec<usize> = (0..12).map(in_second).collect();
        // 10 % at the beginning, 9 % more each second; the middle of each second counts.
        for (second, count) in counts.iter().enumerate() {
            let want = if second < 10 { 10.0 + 9.0 * (second as f64 + 0.5) } else { 100.0 };
            assert!((*count as f64 - want).abs() <= 1.5, "{second}: {count} instead of {want}");
        }
        // A ramp that is over before the second request.
        let slow = Pace { workers: 1, rate: Some(0.5), ramp: Duration::from_secs(1) };
        let found = starts(slow, Duration::from_millis(1), Duration::from_secs(5));
        assert_eq!(found.iter().map(|start| millis(*start)).collect::<Vec<_>>(), [0, 2450, 4450]);
    }

    #[test]
    fn the_ramp_without_a_rate_is_of_workers() {
        let pace = Pace { workers: 4, rate: None, ramp: Duration::from_secs(8) };
        let begins = [0, 1, 2, 3, 9].map(|worker| pace.begin(worker).as_secs());
        assert_eq!(begins, [0, 2, 4, 6, 8]);
        assert_eq!(Pace { rate: Some(1.0), ..pace }.begin(3), Duration::ZERO);
        assert_eq!(Pace { workers: 0, ..pace }.begin(3), Duration::ZERO);
    }

    /// Whatever is typed and whenever somebody looks: never more than the rate allows, in any second.
    #[test]
    fn never_faster_than_the_rate() {
        let mut seed = 7u64;
        let mut random = move |most: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % most
        };
        for case in 0..200 {
            let rate = (1 + random(2_000)) as f64 / 4.0;
            let pace = Pace { workers: 1, rate: Some(rate), ramp: Duration::from_millis(random(3) * random(5000)) };
            let (mut turns, mut found, mut now) = (Turns::new(pace), Vec::new(), Duration::ZERO);
            while now < Duration::from_secs(10) {
                let mut waits_until = None;
                while waits_until.is_none() {
                    match turns.take(now) {
                        Ok(()) => found.push(now),
                        Err(next) => waits_until = Some(next),
                    }
                }
                let next = waits_until.expect("the loop ends with one");
                assert!(next > now, "{pace:?}: a turn that was refused is later");
                // Mostly a little late, sometimes very.
                let late = if random(20) == 0 { random(500_000) } else { random(2000) };
                now = next + Duration::from_micros(late);
            }
            for (index, start) in found.iter().enumerate() {
                let within =
                    found[index..].iter().take_while(|other| **other - *start < Duration::from_secs(1)).count();
                let most = rate * (1.0 + SLACK.as_secs_f64()) + 1.0;
                assert!(within as f64 <= most + 1e-6, "case {case}: {within} in a second, {pace:?}");
            }
        }
    }

    #[test]
    fn extremes_do_not_panic() {
        for rate in [f64::MIN_POSITIVE, 1e-300, 1e-9, 1e9, f64::MAX] {
            for ramp in [Duration::ZERO, Duration::from_nanos(1), crate::duration::LONGEST] {
                let mut turns = Turns::new(Pace { workers: usize::MAX, rate: Some(rate), ramp });
                for now in [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(1), Duration::MAX] {
                    let _ = turns.take(now);
                }
            }
        }
    }

    #[test]
    fn reads_rates() {
        for (text, want) in [("100", 100.0), ("0.5", 0.5), ("100/s", 100.0), (" 7 /s ", 7.0), ("-1", -1.0)] {
            assert_eq!(text.parse(), Ok(Rate(want)), "{text}");
        }
        for text in ["", "fast", "NaN", "inf", "1/m", "1e999"] {
            assert_eq!(
                text.parse::<Rate>(),
                Err(format!("`{text}` is not a number of requests per second, such as 100 or 0.5"))
            );
        }
    }
}
