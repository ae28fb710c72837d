//! Keeps a flood of refused callers from flooding the log as well.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// In each window this many lines are written: enough to see a pattern, too few to fill a disk.
const LINES: u32 = 5;
const WINDOW: Duration = Duration::from_secs(10);

/// Counts the lines of one sort.
#[derive(Debug, Default)]
pub(super) struct Quiet(Mutex<Option<Window>>);

#[derive(Debug)]
struct Window {
    began: Instant,
    lines: u32,
    swallowed: u64,
}

impl Quiet {
    /// Whether a line may be written at `now`; the number says how many were swallowed before it.
    pub(super) fn may_speak(&self, now: Instant) -> Option<u64> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let window = held.get_or_insert(Window { began: now, lines: 0, swallowed: 0 });
        if now.duration_since(window.began) >= WINDOW {
            window.began = now;
            window.lines = 0;
        }
        if window.lines == LINES {
            window.swallowed += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.swallowed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_lines_then_silence_then_the_count() {
        let (quiet, start) = (Quiet::default(), Instant::now());
        let spoken: Vec<_> = (0..8).map(|_| quiet.may_speak(start)).collect();
        assert_eq!(spoken, [Some(0), Some(0), Some(0), Some(0), Some(0), None, None, None]);
        assert_eq!(quiet.may_speak(start + WINDOW), Some(3));
        assert_eq!(quiet.may_speak(start + WINDOW), Some(0));
    }
}
