//! The drain by metric: where the server itself tells how much it has in flight. It reads and counts time; what is
//! wanted of the metric is the metric's own business.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use crate::{
    client::metric::Metric,
    duration::show,
    step::{Context, End, Progress},
};

/// Four readings a second: the drain is late by 250 ms at most, and no server minds.
const POLL: Duration = Duration::from_millis(250);
/// A server that has not answered by then says nothing about itself.
const ATTEMPT: Duration = Duration::from_secs(2);
/// One reading may fall between the end of one request and the beginning of the next.
const FEWEST_READINGS: u32 = 2;

/// A drain by metric, as the user meant it.
#[derive(Clone, Debug)]
pub struct Settings {
    pub metric: Metric,
    /// The drain lasts at least this long.
    pub settle: Duration,
    /// For so long the metric must have been as wanted, and in at least two readings.
    pub quiet_min: Duration,
}

/// Since when the metric has been as wanted without a break.
struct Streak {
    since: Instant,
    readings: u32,
}

/// Reads the metric until it has been as wanted for long enough. One that cannot be read is not.
pub async fn drain(settings: &Settings, context: &Context) -> End {
    let start = Instant::now();
    let Settings { metric, settle, quiet_min } = settings;
    let mut streak: Option<Streak> = None;
    // What it was before matters to nobody.
    sleep_until(start + settle.saturating_sub(*quiet_min).min(settle.saturating_sub(POLL))).await;
    loop {
        let began = Instant::now();
        let own = Progress::default();
        let reading = match timeout(ATTEMPT, metric.check(&context.processes, &own)).await {
            Ok(reading) => reading.map_err(|failure| failure.reason),
            Err(_) => Err(match own.now() {
                text if text.is_empty() => format!("{}: no answer within {}", metric.name(), show(ATTEMPT)),
                text => format!("{text} within {}", show(ATTEMPT)),
            }),
        };
        let mut until = began + POLL;
        match reading {
            Ok(Ok(found)) => {
                // It held when the answer came; when it began to hold, nobody knows.
                let now = Instant::now();
                let kept = streak.get_or_insert(Streak { since: now, readings: 0 });
                kept.readings += 1;
                let held = now - kept.since;
                if held >= *quiet_min && kept.readings >= FEWEST_READINGS && now - start >= *settle {
                    return End::Done(format!(
                        "drained after {}: {found}, in {} readings over {}",
                        show(now - start),
                        kept.readings,
                        show(held)
                    ));
                }
                let mut text = format!("{found}, for {} so far", show(held));
                if now - start < *settle {
                    text.push_str(&format!("; settling for {} more", show(*settle - (now - start))));
                }
                context.progress.set(text);
                // The reading that may end it comes at its time, not up to a pause later.
                let due = (start + *settle).max(kept.since + *quiet_min);
                if due > now && kept.readings + 1 >= FEWEST_READINGS {
                    until = until.min(due);
                }
            }
            Ok(Err(why)) | Err(why) => {
                streak = None;
                context.progress.set(why);
            }
        }
        sleep_until(until).await;
    }
}
