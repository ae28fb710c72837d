//! How fast a job goes, and whether it will be done in time. Pure: times and counters in, words out.

use std::time::Duration;

use crate::{duration::show, size::show_bytes};

/// Before this much has passed a rate says nothing: caches are cold, a connection is being made.
const TOO_EARLY: Duration = Duration::from_millis(500);

/// Only when it would take this much longer than there is time for is it said: rates vary.
const CLEARLY: f64 = 1.25;

/// What is known about a job at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Since the job began to move bytes.
    pub elapsed: Duration,
    /// Until the step is cut.
    pub left: Duration,
    /// Files and bytes moved so far.
    pub done: (u64, u64),
    /// Files and bytes in all; 0 is unknown.
    pub total: (u64, u64),
}

impl Moment {
    /// Bytes a second so far; `None` when it is too early to tell.
    fn rate(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        (self.elapsed >= TOO_EARLY && self.done.1 > 0).then(|| self.done.1 as f64 / self.elapsed.as_secs_f64())
    }

    /// How long the rest will take at this rate, as far as that can be told.
    fn rest(&self) -> Option<Duration> {
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let rest = self.total.1.checked_sub(self.done.1).filter(|_| self.total.1 > 0)? as f64;
        Duration::try_from_secs_f64(rest / self.rate()?).ok()
    }

    /// `1.2 of 2.0 GB, 340 of 5000 files, 410 MB/s, 2s to go`.
    pub fn show(&self) -> String {
        let of = |done: String, total: String, known: bool| if known { format!("{done} of {total}") } else { done };
        let ((files, bytes), (all_files, all_bytes)) = (self.done, self.total);
        let mut text = of(show_bytes(bytes), show_bytes(all_bytes), all_bytes > 0);
        text.push_str(", ");
        text.push_str(&of(files.to_string(), all_files.to_string(), all_files > 0));
        text.push_str(" files");
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate for people")]
        if let Some(rate) = self.rate() {
            text.push_str(&format!(", {}/s", show_bytes(rate as u64)));
        }
        if let Some(rest) = self.rest().filter(|rest| !rest.is_zero()) {
            text.push_str(&format!(", {} to go", show(rest)));
        }
        text
    }

    /// Why it will not be done in time, if that can be told already.
    pub fn is_late(&self) -> Option<String> {
        let rest = self.rest()?;
        (rest.as_secs_f64() > self.left.as_secs_f64() * CLEARLY)
            .then(|| format!("at this rate it needs {} more and has {}", show(rest), show(self.left)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(elapsed: u64, left: u64, done: (u64, u64), total: (u64, u64)) -> Moment {
        Moment { elapsed: Duration::from_millis(elapsed), left: Duration::from_millis(left), done, total }
    }

    #[test]
    fn says_how_far_it_is() {
        for (moment, want) in [
            (moment(0, 5000, (0, 0), (0, 0)), "0 B, 0 files"),
            (moment(400, 5000, (1, 1000), (3, 9000)), "1.0 kB of 9.0 kB, 1 of 3 files"),
            (
                moment(2000, 5000, (10, 200_000_000), (20, 400_000_000)),
                "200 MB of 400 MB, 10 of 20 files, 100 MB/s, 2s to go",
            ),
            (moment(2000, 5000, (20, 500_000_000), (20, 400_000_000)), "500 MB of 400 MB, 20 of 20 files, 250 MB/s"),
            (moment(2000, 5000, (3, 200_000_000), (0, 0)), "200 MB, 3 files, 100 MB/s"),
        ] {
            assert_eq!(moment.show(), want);
        }
    }

    #[test]
    fn says_early_that_it_is_late_and_only_then() {
        let gigabyte = 1_000_000_000;
        assert_eq!(
            moment(1000, 5000, (1, gigabyte / 10), (9, gigabyte)).is_late().as_deref(),
            Some("at this rate it needs 9s more and has 5s")
        );
        assert_eq!(moment(1000, 8000, (1, gigabyte / 10), (9, gigabyte)).is_late(), None, "rates vary");
        assert_eq!(moment(100, 500, (1, gigabyte / 100), (9, gigabyte)).is_late(), None, "too early");
        assert_eq!(moment(1000, 500, (1, gigabyte), (0, 0)).is_late(), None, "nobody knows how much it is");
        assert_eq!(moment(1000, 0, (9, gigabyte), (9, gigabyte)).is_late(), None, "it is done");
    }
}
