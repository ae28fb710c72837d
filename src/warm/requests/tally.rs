//! How often each line comes, in bounded memory: of a log with a million different lines the most frequent are known in
//! the end.

use std::{collections::HashMap, hash::BuildHasher};

/// So many times more lines are counted than are kept in the end, so that one that comes late can still get ahead.
const ROOM: usize = 4;

/// Counts texts.
#[derive(Debug)]
pub struct Tally {
    /// In the order in which they came first, and how often they came.
    counts: Vec<(Box<str>, u64)>,
    /// Where a text stands, by its hash: each text is held once. The hasher is seeded, so nobody can write a log whose
    /// lines collide.
    places: HashMap<u64, usize>,
    /// Bytes of all texts.
    size: usize,
    most: Most,
    /// How many lines were forgotten.
    lost: u64,
}

/// How much is kept in the end.
#[derive(Clone, Copy, Debug)]
pub struct Most {
    /// Different texts.
    pub texts: usize,
    /// Bytes of all of them.
    pub size: usize,
    /// Of those that came equally often, which.
    pub rather: Rather,
}

#[derive(Clone, Copy, Debug)]
pub enum Rather {
    /// What a person wrote first is what matters most.
    First,
    /// The end of a log is how it is now; and what begins to come often late is not crowded out by what came once.
    Last,
}

impl Tally {
    pub fn new(most: Most) -> Self {
        Self { counts: Vec::new(), places: HashMap::new(), size: 0, most, lost: 0 }
    }

    /// Counts a text; true if it is a new one.
    pub fn add(&mut self, text: &str) -> bool {
        let hash = self.places.hasher().hash_one(text);
        if let Some(place) = self.places.get(&hash)
            && let Some((known, count)) = self.counts.get_mut(*place)
            && **known == *text
        {
            *count += 1;
            return false;
        }
        self.places.insert(hash, self.counts.len());
        self.size += text.len();
        self.counts.push((text.into(), 1));
        if self.counts.len() > self.most.texts.saturating_mul(ROOM) || self.size > self.most.size.saturating_mul(ROOM) {
            self.keep_the_most_frequent();
        }
        true
    }

    /// The most frequent texts in the order in which they came first, how often they came, and how many lines with other
    /// texts there were.
    pub fn finish(mut self) -> (Vec<(Box<str>, u64)>, u64) {
        self.keep_the_most_frequent();
        (self.counts, self.lost)
    }

    /// Forgets what came least often.
    fn keep_the_most_frequent(&mut self) {
        // The least count that is low enough is found by halving, which needs no list in order.
        let (mut low, mut high) = (0, self.counts.iter().map(|(_, count)| *count).max().unwrap_or(0));
        while low < high {
            let middle = low + (high - low) / 2;
            if self.fits(middle) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        let Most { mut texts, mut size, rather } = self.most;
        for (text, _) in self.counts.iter().filter(|(_, count)| *count > low) {
            (texts, size) = (texts - 1, size - text.len());
        }
        let last = self.counts.len();
        for step in 0..last {
            let place = match rather {
                Rather::First => step,
                Rather::Last => last - 1 - step,
            };
            let (text, count) = &mut self.counts[place];
            let fits = *count > low || *count == low && texts > 0 && size >= text.len();
            if *count == low && fits {
                (texts, size) = (texts - 1, size - text.len());
            }
            if !fits {
                self.lost += std::mem::take(count);
            }
        }
        self.counts.retain(|(_, count)| *count > 0);
        self.size = self.counts.iter().map(|(text, _)| text.len()).sum();
        self.places.clear();
        for (place, (text, _)) in self.counts.iter().enumerate() {
            self.places.insert(self.places.hasher().hash_one(text), place);
        }
    }

    /// Whether there is room for all that came more often than this.
    fn fits(&self, least: u64) -> bool {
        let (mut texts, mut size) = (0, 0);
        for (text, _) in self.counts.iter().filter(|(_, count)| *count > least) {
            (texts, size) = (texts + 1, size + text.len());
        }
        texts <= self.most.texts && size <= self.most.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(texts: usize, size: usize, rather: Rather, lines: &[&str]) -> (Vec<(String, u64)>, u64) {
        let mut tally = Tally::new(Most { texts, size, rather });
        for line in lines {
            tally.add(line);
            assert!(tally.counts.len() <= texts * ROOM && tally.size <= size * ROOM);
        }
        let (counts, lost) = tally.finish();
        (counts.into_iter().map(|(text, count)| (text.into(), count)).collect(), lost)
    }

    #[test]
    fn keeps_the_most_frequent_in_their_order() {
        let count = |list: &[(&str, u64)]| list.iter().map(|(text, n)| ((*text).into(), *n)).collect::<Vec<_>>();
        for (texts, size, lines, kept, lost) in [
            (9, 99, vec![], vec![], 0),
            (9, 99, vec!["a", "b", "a"], vec![("a", 2), ("b", 1)], 0),
            (2, 99, vec!["a", "b", "c", "c"], vec![("a", 1), ("c", 2)], 1),
            (2, 99, vec!["a", "b", "c"], vec![("a", 1), ("b", 1)], 1),
            (9, 3, vec!["aa", "bb", "c", "bb"], vec![("bb", 2), ("c", 1)], 1),
            (9, 3, vec!["aaaa"], vec![], 1),
            (0, 9, vec!["a", "a"], vec![], 2),
        ] {
            assert_eq!(tally(texts, size, Rather::First, &lines), (count(&kept), lost), "{lines:?}");
        }
        let last = tally(2, 99, Rather::Last, &["a", "b", "c", "d", "d", "a"]);
        assert_eq!(last, (count(&[("a", 2), ("d", 2)]), 2));
        assert_eq!(tally(2, 99, Rather::Last, &["a", "b", "c"]), (count(&[("b", 1), ("c", 1)]), 1));
    }

    #[test]
    fn finds_what_is_frequent_among_many() {
        let mut tally = Tally::new(Most { texts: 10, size: 1000, rather: Rather::Last });
        for line in 0..100_000 {
            tally.add(&format!("/once/{line}"));
            if line % 5 == 0 {
                tally.add(&format!("/often/{}", line / 5 % 3));
            }
            assert!(tally.counts.len() <= 40 && tally.size <= 4000 && tally.places.len() <= 40);
        }
        let (counts, lost) = tally.finish();
        let sum: u64 = counts.iter().map(|(_, count)| count).sum();
        assert_eq!(sum + lost, 120_000);
        let often: u64 = counts.iter().filter(|(text, _)| text.starts_with("/often")).map(|(_, count)| count).sum();
        assert!(often > 19_900, "{often}");
    }
}
