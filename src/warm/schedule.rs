//! Which request is next: by weight, evenly interleaved, the same in every run. Pure.
//!
//! This is Tijdeman's solution of the chairman assignment problem (Discrete Mathematics 32, 1980): of those whose turn
//! may have come, the one whose turn is over first. At every moment each entry has been next as often as its weight
//! asks for, give or take less than one; nothing simpler (a random choice, or nginx's smooth round robin) promises that.

use std::{cmp::Reverse, collections::BinaryHeap};

/// The order without an end.
#[derive(Debug)]
pub struct Schedule {
    /// Each one's share of the whole, and how often it has been next.
    entries: Vec<(f64, u64)>,
    /// How far below its due an entry may be before it is eligible.
    slack: f64,
    /// How many have been handed out.
    round: u64,
    /// Those whose turn has not come, by when it does; and those whose turn it is, by when it is over.
    waiting: BinaryHeap<Turn>,
    eligible: BinaryHeap<Turn>,
}

/// A time, as the bits of a positive number (they are in the order of the numbers), and whose it is: of equal ones the
/// first that was written. The least is on top of its heap.
type Turn = Reverse<(u64, usize)>;

impl Schedule {
    /// Weights are positive and finite; whatever is not has no turn as long as there is another.
    pub fn new(weights: impl Iterator<Item = f64>) -> Self {
        let mut entries = Vec::new();
        let mut sum = 0.0;
        for weight in weights {
            let weight = if weight.is_finite() { weight.max(0.0) } else { 0.0 };
            sum += weight;
            entries.push((weight, 0));
        }
        for (share, _) in &mut entries {
            *share /= if sum > 0.0 { sum } else { 1.0 };
        }
        // The theorem's bound; for one alone any will do.
        let slack = 1.0 / (2.0 * entries.len().max(2) as f64 - 2.0);
        let mut schedule = Self { entries, slack, round: 0, waiting: BinaryHeap::new(), eligible: BinaryHeap::new() };
        (0..schedule.entries.len()).for_each(|entry| schedule.wait(entry));
        schedule
    }

    /// The index of the next one; 0 where there is none at all.
    #[expect(clippy::should_implement_trait, reason = "there is always a next one, and no end")]
    pub fn next(&mut self) -> usize {
        self.round = self.round.wrapping_add(1);
        let now = at(self.round as f64);
        while let Some(Reverse((begin, entry))) = self.waiting.peek().copied()
            && begin <= now
        {
            self.waiting.pop();
            let end = self.turn(entry, 1.0 - self.slack);
            self.eligible.push(Reverse((end, entry)));
        }
        // The theorem has always one eligible; rounding might once not.
        let Some(Reverse((_, entry))) = self.eligible.pop().or_else(|| self.waiting.pop()) else { return 0 };
        self.entries[entry].1 += 1;
        self.wait(entry);
        entry
    }

    fn wait(&mut self, entry: usize) {
        let begin = self.turn(entry, self.slack);
        self.waiting.push(Reverse((begin, entry)));
    }

    /// When an entry is due so much more often than it has been next. From the count and never from the time before, so
    /// that no rounding adds up.
    fn turn(&self, entry: usize, more: f64) -> u64 {
        let (share, count) = self.entries[entry];
        at((count as f64 + more) / share)
    }
}

fn at(time: f64) -> u64 {
    time.to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(weights: &[f64], length: usize) -> String {
        let mut schedule = Schedule::new(weights.iter().copied());
        (0..length).map(|_| char::from(b'a' + u8::try_from(schedule.next()).expect("a letter"))).collect()
    }

    #[test]
    fn interleaves_by_weight() {
        for (weights, expected) in [
            (&[1.0][..], "aaaa"),
            (&[1.0, 1.0], "abababab"),
            (&[1.0, 1.0, 1.0, 1.0], "abcdabcdabcd"),
            (&[0.25, 0.25], "abab"),
            (&[3.0, 1.0], "aabaaaba"),
            (&[1.0, 3.0], "babbbabb"),
            (&[5.0, 1.0, 1.0], "aabaacaaabaaca"),
            (&[1.0, 1.0, 2.0], "cabccabc"),
            (&[0.5, 1.5], "babbbabb"),
            (&[], "aaa"),
            (&[0.0], "aaa"),
            (&[0.0, f64::NAN, f64::INFINITY, -1.0, 2.0], "eeee"),
        ] {
            assert_eq!(order(weights, expected.len()), expected, "{weights:?}");
        }
    }

    /// At every moment each has been next as often as its weight asks for, give or take less than one, which makes less
    /// than two for any window in between.
    #[test]
    fn is_never_off_by_one() {
        let mut state = 1u64;
        let mut next = |below: u32| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            u32::try_from((state >> 33) % u64::from(below)).expect("a small number")
        };
        for case in 0..300 {
            let many = 1 + next(if case % 10 == 0 { 200 } else { 8 });
            let kind = next(4);
            let weights: Vec<f64> = (0..many)
                .map(|_| match kind {
                    0 => f64::from(1 + next(5)),
                    1 => f64::from(1 + next(1000)) / 7.0,
                    2 => {
                        if next(4) == 0 {
                            1000.0
                        } else {
                            0.5
                        }
                    }
                    _ => 1.0 / f64::from(1 + next(30)),
                })
                .collect();
            let sum: f64 = weights.iter().sum();
            let mut schedule = Schedule::new(weights.iter().copied());
            let mut counts = vec![0.0; weights.len()];
            let mut worst: f64 = 0.0;
            for round in 1..=2000 {
                counts[schedule.next()] += 1.0;
                for (count, weight) in counts.iter().zip(&weights) {
                    worst = worst.max(f64::abs(count - weight / sum * f64::from(round)));
                }
            }
            let bound = 1.0 - 1.0 / (2.0 * f64::from(many.max(2)) - 2.0);
            assert!(worst <= bound + 1e-9, "{worst} of {bound}: {weights:?}");
        }
    }

    /// Everybody has a turn in a cycle of whole weights, and the next cycle is the same.
    #[test]
    fn goes_in_cycles() {
        let weights = [7.0, 1.0, 3.0, 2.0, 2.0];
        let twice = order(&weights, 30);
        assert_eq!(twice[..15], twice[15..]);
        for (entry, weight) in weights.iter().enumerate() {
            let letter = char::from(b'a' + u8::try_from(entry).expect("a letter"));
            let times = twice[..15].chars().filter(|c| *c == letter).count();
            assert!((f64::from(u32::try_from(times).expect("few")) - weight).abs() < 0.5, "{letter}: {times}");
        }
    }

    /// A million of the most that there may be: no drift, and each in the first round.
    #[test]
    fn does_not_drift() {
        let weights: Vec<f64> = (0..10_000).map(|entry| f64::from(1 + entry % 3)).collect();
        let mut schedule = Schedule::new(weights.iter().copied());
        let mut counts = vec![0u32; weights.len()];
        for round in 0..1_000_000 {
            counts[schedule.next()] += 1;
            // The lightest are due once in 20,000 (the sum of the weights is 19,999).
            assert!(round != 20_000 || counts.iter().all(|count| *count > 0));
        }
        for (count, weight) in counts.iter().zip(&weights) {
            assert!((f64::from(*count) - weight / 19_999.0 * 1e6).abs() < 1.0, "{count} {weight}");
        }
    }
}
