//! Whether the latency still falls.
//!
//! One window against the one before cannot tell: a JVM falls in steps with level stretches between them, noise is often
//! larger than what is left to fall, and windows of a fixed size see less and less of a fall that grows slower. So all
//! windows so far are looked at, and the question is asked in proportion to them:
//!
//! - a window's level is its mean without the slowest twentieth: pauses of a collector or of a neighbour are no warmth;
//! - a level above the median of the three before is taken for that median: warming up makes nothing slower, so what
//!   rises is a neighbour, and only what rises for good counts, a few windows later;
//! - the curve is the non-increasing one that fits the levels best (isotonic regression, by pooling adjacent violators;
//!   Barlow and others, 1972): noise and steps both come out of it as steps;
//! - the latency is level when that curve came down to the present level, but for the fall that no longer counts, before
//!   the last [`LEVEL`] of all requests; the present level is the median of the last [`PRESENT`];
//! - it no longer falls when that was so after [`IN_A_ROW`] windows in a row.
//!
//! The numbers were chosen on 80 recordings of JVMs, at concurrency 1, 2 and 4, on a machine with nobody else and on a
//! crowded one; any near them do about as well, and none sees through a long level stretch before a last step. `benches/warm_up.rs` measures what comes of it.

use std::time::Duration;

use super::window::{lowest, micros};

/// The part of all requests that has to be level. Less, and the stretches between a JVM's steps pass for its end.
const LEVEL: f64 = 0.6;
/// The part of all requests that tells how fast it is now.
const PRESENT: f64 = 0.3;
/// So many looks have to agree. It also makes the fewest windows that can prove anything five.
const IN_A_ROW: u32 = 4;
/// What is slower is left out of a window's level: a twentieth of it.
const SLOWEST: u32 = 20;
/// Less of a fall is none, however fast the server is, in microseconds: about what waking a thread costs on a busy
/// machine.
const NOISE: f64 = 50.0;
/// So many windows before tell what is usual: a pause or a compiler at work is rarely longer than one of them.
const RECENT: usize = 3;
/// So many windows are remembered; then two and two become one, so that an hour's warm-up takes no more memory.
const MOST: usize = 512;

#[derive(Debug)]
pub struct Plateau {
    /// The part of the latency that it may still fall by.
    fall: f64,
    /// Requests in a window.
    size: u32,
    /// How many windows make up one level of `levels`.
    merged: u32,
    /// The window that is being filled, in microseconds.
    now: Vec<u32>,
    /// Levels of full windows that wait to become one.
    pending: Vec<u32>,
    /// Without what rose for a while.
    levels: Vec<u32>,
    /// The last three as they were.
    recent: Vec<u32>,
    /// So many looks have found it level, one after the other.
    level_for: u32,
}

impl Plateau {
    /// Each window holds whole rounds of the list where it can: then all have the same mix of requests.
    pub fn new(fall: f64, window: u32, requests: usize) -> Self {
        let size = match u32::try_from(requests) {
            Ok(round) if round > 0 && round <= window => window.next_multiple_of(round),
            _ => window,
        };
        Self {
            fall,
            size,
            merged: 1,
            now: Vec::new(),
            pending: Vec::new(),
            levels: Vec::new(),
            recent: Vec::new(),
            level_for: 0,
        }
    }

    pub fn note(&mut self, took: Duration) {
        self.now.push(micros(took));
        if self.now.len() < self.size as usize {
            return;
        }
        let level = level(&self.now);
        self.now.clear();
        self.pending.push(level);
        if self.pending.len() < self.merged as usize {
            return;
        }
        let level = mean(&self.pending);
        self.pending.clear();
        let usual = if self.recent.is_empty() { level } else { median(&self.recent) };
        self.levels.push(level.min(usual));
        self.recent.push(level);
        if self.recent.len() > RECENT {
            self.recent.remove(0);
        }
        if self.levels.len() == MOST {
            self.levels = self.levels.chunks(2).map(mean).collect();
            self.merged *= 2;
        }
        let is_level = self.levels.len() > 1 && self.fallen() <= self.levels.len() as f64 * (1.0 - LEVEL);
        self.level_for = if is_level { self.level_for.saturating_add(1) } else { 0 };
    }

    /// The level of the last windows.
    fn present(&self) -> u32 {
        let count = ((self.levels.len() as f64 * PRESENT).round() as usize).max(1);
        median(&self.levels[self.levels.len().saturating_sub(count)..])
    }

    /// After how many windows the curve had come down to the present level.
    fn fallen(&self) -> f64 {
        let down_to = f64::from(self.present()) * (1.0 + self.fall) + NOISE;
        let mut windows = 0;
        for step in curve(&self.levels) {
            if step.level <= down_to {
                break;
            }
            windows += step.windows;
        }
        f64::from(windows)
    }

    pub fn is_reached(&self) -> bool {
        self.level_for >= IN_A_ROW
    }

    /// Requests until it can be reached at the soonest.
    pub fn left(&self) -> u64 {
        let looks = IN_A_ROW.saturating_sub(self.level_for);
        if looks == 0 {
            return 0;
        }
        // The first window has nothing to be compared to.
        let windows = u64::from(looks) + u64::from(self.levels.is_empty());
        let filled = self.pending.len() as u64 * u64::from(self.size) + self.now.len() as u64;
        (windows * u64::from(self.merged) * u64::from(self.size)).saturating_sub(filled)
    }

    pub fn against(&self) -> Option<String> {
        if self.is_reached() {
            return None;
        }
        let requests = |windows: usize| windows as u64 * u64::from(self.merged) * u64::from(self.size);
        let seen = requests(self.levels.len()) + self.now.len() as u64;
        let fewest = u64::from(self.size) * u64::from(IN_A_ROW + 1);
        if seen < fewest {
            return Some(format!("{seen} of the {fewest} requests that a plateau takes"));
        }
        if self.level_for > 0 {
            let looks = self.level_for;
            return Some(format!(
                "latency no longer falls, but that was seen only {looks} of {IN_A_ROW} times in a row"
            ));
        }
        let show = |micros: u32| super::show(Duration::from_micros(micros.into()));
        let middle = self.levels.len() / 2;
        let count = self.levels.len() - middle;
        Some(format!(
            "latency still falls: {} in the last requests, {} in the {} before the last {}",
            show(self.present()),
            show(median(&self.levels[..middle])),
            requests(middle),
            requests(count)
        ))
    }
}

/// A stretch of windows that the curve gives one level.
struct Step {
    level: f64,
    windows: u32,
}

/// The non-increasing curve that is nearest to the levels.
fn curve(levels: &[u32]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for level in levels {
        let mut step = Step { level: f64::from(*level), windows: 1 };
        // Where it rises, the two become one.
        while let Some(before) = steps.pop_if(|before| before.level < step.level) {
            let windows = before.windows + step.windows;
            let sum = before.level * f64::from(before.windows) + step.level * f64::from(step.windows);
            step = Step { level: sum / f64::from(windows), windows };
        }
        steps.push(step);
    }
    steps
}

/// The mean without the slowest.
fn level(took: &[u32]) -> u32 {
    let kept = took.len() as u64 - took.len() as u64 / u64::from(SLOWEST);
    let most = smallest(took, kept);
    // Some of those that took as long as the slowest that is kept are left out.
    let (mut sum, mut count) = (0, 0);
    for took in took.iter().filter(|took| **took < most) {
        sum += u64::from(*took);
        count += 1;
    }
    sum += u64::from(most) * (kept - count);
    u32::try_from(sum / kept.max(1)).unwrap_or(u32::MAX)
}

fn mean(levels: &[u32]) -> u32 {
    let sum: u64 = levels.iter().copied().map(u64::from).sum();
    u32::try_from(sum / (levels.len() as u64).max(1)).unwrap_or(u32::MAX)
}

/// With an even number of levels, the mean of the two in the middle.
fn median(levels: &[u32]) -> u32 {
    let count = levels.len() as u64;
    mean(&[smallest(levels, count.div_ceil(2)), smallest(levels, count / 2 + 1)])
}

/// The smallest number that so many are at most as large as.
fn smallest(numbers: &[u32], rank: u64) -> u32 {
    lowest(|most| numbers.iter().filter(|number| **number <= most).count() as u64 >= rank)
}

/// The benchmark's definition of where a long run is flat.
#[cfg(test)]
#[path = "../../../benches/warm_up/flat.rs"]
mod flat;

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests of the recorded list: see `Shop.java` beside the benchmark.
    const LIST: usize = 14;

    /// Recorded latencies, one byte a request: 12 times the binary logarithm of the microseconds. On a machine with two
    /// cores that was all but idle (`alone`) or had six other users (`busy`), with one, two and four clients. With each,
    /// after how many requests it stops and after how many the whole run was flat. With one client the compilers of the
    /// JVM have a core for themselves. With more they compete, and when they are done, after a long level stretch, the
    /// latency falls once more: that nobody can see coming.
    const JVM: [(&str, &[u8], usize, usize); 8] = [
        ("alone 1-1", include_bytes!("traces/jvm-alone-1-1"), 2016, 4928),
        ("alone 1-2", include_bytes!("traces/jvm-alone-1-2"), 2912, 2464),
        ("alone 1-3", include_bytes!("traces/jvm-alone-1-3"), 2016, 1792),
        ("alone 1-4", include_bytes!("traces/jvm-alone-1-4"), 2016, 1680),
        ("alone 2-1", include_bytes!("traces/jvm-alone-2-1"), 3696, 5040),
        ("alone 2-2", include_bytes!("traces/jvm-alone-2-2"), 2016, 3472),
        ("busy 4-1", include_bytes!("traces/jvm-busy-4-1"), 4704, 5040),
        ("busy 2-1", include_bytes!("traces/jvm-busy-2-1"), 5152, 2576),
    ];

    fn decode(recorded: &[u8]) -> Vec<u32> {
        recorded.iter().map(|byte| (f64::from(*byte) / 12.0).exp2() as u32).collect()
    }

    /// After how many requests it is reached.
    fn stop(took: &[u32], mut plateau: Plateau) -> Option<usize> {
        let after = took.iter().position(|took| {
            plateau.note(Duration::from_micros((*took).into()));
            plateau.is_reached()
        });
        after.map(|before| before + 1)
    }

    fn plateau() -> Plateau {
        Plateau::new(0.1, 100, LIST)
    }

    #[test]
    fn stops_where_a_long_run_is_flat() {
        let seen = JVM.map(|(name, recorded, ..)| {
            let took = decode(recorded);
            let flat = flat::flat(&took, plateau().size as usize, 0.1);
            (name, stop(&took, plateau()).unwrap_or(0), flat)
        });
        assert_eq!(seen, JVM.map(|(name, _, stop, flat)| (name, stop, flat)));
        let ratios: Vec<f64> = seen[..4].iter().map(|(_, stop, flat)| *stop as f64 / *flat as f64).collect();
        assert!((0.8..=1.2).contains(&flat::median(&ratios)), "{ratios:?}");
    }

    /// The negative control: two windows, one against the other, are fooled by the first level stretch.
    #[test]
    fn one_window_against_the_one_before_stops_too_early() {
        for (name, recorded, _, flat) in JVM {
            let windows: Vec<u32> = decode(recorded).chunks_exact(112).map(level).collect();
            let falls = |two: &&[u32]| f64::from(two[1]) < f64::from(two[0]) * 0.9;
            let stop = (windows.windows(2).take_while(falls).count() + 2) * 112;
            assert!(stop * 2 < flat, "{name}: stops after {stop}, flat after {flat}");
        }
    }

    #[test]
    fn stops_at_once_where_nothing_warms_up() {
        let took = decode(include_bytes!("traces/nginx-2-1"));
        assert_eq!(stop(&took, Plateau::new(0.1, 100, 1)), Some(500));
        // Nothing but noise: up to twice as long, now and then a long pause.
        let mut noise = 7_u32;
        let noisy: Vec<u32> = (0..3000)
            .map(|number| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                5000 + (noise >> 16) % 5000 + if number % 83 == 0 { 300_000 } else { 0 }
            })
            .collect();
        assert_eq!(stop(&noisy, Plateau::new(0.1, 100, 1)), Some(500));
    }

    #[test]
    fn knows_how_many_requests_it_takes_at_least() {
        let mut plateau = Plateau::new(0.1, 100, 1);
        assert_eq!(
            (plateau.left(), plateau.against()),
            (500, Some("0 of the 500 requests that a plateau takes".into()))
        );
        for seen in 1..=500 {
            plateau.note(Duration::from_millis(5));
            assert_eq!(plateau.left(), 500 - seen);
        }
        assert!(plateau.is_reached());
        assert_eq!(plateau.against(), None);
    }

    #[test]
    fn says_that_it_still_falls() {
        let mut plateau = Plateau::new(0.1, 100, 1);
        for window in 0..20_u64 {
            for _ in 0..100 {
                plateau.note(Duration::from_millis(60 - 2 * window));
            }
        }
        assert!(!plateau.is_reached());
        assert_eq!(
            plateau.against().as_deref(),
            Some("latency still falls: 27ms in the last requests, 51ms in the 1000 before the last 1000")
        );
        let mut window = |micros: u64| {
            for _ in 0..100 {
                plateau.note(Duration::from_micros(micros));
            }
            plateau.against()
        };
        let level = (0..50).map(|_| window(22_000)).find(|against| !against.as_deref().unwrap_or("").contains("still"));
        let once = "latency no longer falls, but that was seen only 1 of 4 times in a row";
        assert_eq!(level.flatten().as_deref(), Some(once));
        assert_eq!([(); 3].map(|()| window(22_000).is_none()), [false, false, true]);
        // It may fall again before all else holds.
        let falls = (0..50).find_map(|_| window(10_000));
        assert!(falls.is_some_and(|text| text.starts_with("latency still falls: ")));
    }

    /// However long it goes on.
    #[test]
    fn memory_is_bounded() {
        let mut plateau = Plateau::new(0.001, 100, 1);
        for number in 0..1_000_000_u64 {
            plateau.note(Duration::from_micros(2_000_000 - number));
            assert!(plateau.levels.len() < MOST && plateau.pending.len() < plateau.merged as usize);
        }
        assert!(plateau.merged > 1 && !plateau.is_reached());
    }

    #[test]
    fn windows_are_whole_rounds_where_they_can_be() {
        for (window, requests, size) in
            [(100, 14, 112), (100, 1, 100), (100, 100, 100), (100, 101, 100), (10_000, 0, 10_000)]
        {
            assert_eq!(Plateau::new(0.1, window, requests).size, size);
        }
    }

    #[test]
    fn the_curve_never_rises() {
        let steps = |levels: &[u32]| curve(levels).iter().map(|step| (step.level, step.windows)).collect::<Vec<_>>();
        assert_eq!(steps(&[9, 5, 7, 3]), [(9.0, 1), (6.0, 2), (3.0, 1)]);
        assert_eq!(steps(&[1, 2, 3]), [(2.0, 3)]);
        assert_eq!(steps(&[4, 4]), [(4.0, 1), (4.0, 1)]);
        assert_eq!(steps(&[]), []);
        assert_eq!(level(&[7; 100]), 7);
        assert_eq!(level(&[vec![10; 95], vec![1000; 5]].concat()), 10);
        assert_eq!(level(&[4]), 4);
    }
}
