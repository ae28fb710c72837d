//! A drain by what the server itself says: a metric, such as its requests in flight. It is over when the metric has
//! been as wanted for the quiet time and routing has had its settle time; nobody looks at connections.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use crate::{
    client::metric::Metric,
    duration::show,
    step::{Context, End, Progress},
};

/// Often enough to see most requests, rare enough for a server to answer beside its work.
const INTERVAL: Duration = Duration::from_millis(250);
/// A server that is busy to its limits may be slow to tell; several looks must fit in a usual timeout.
const LONGEST_LOOK: Duration = Duration::from_secs(2);

/// What is waited for.
#[derive(Clone, Debug)]
pub struct Measure {
    pub metric: Metric,
    /// The drain lasts at least this long.
    pub settle: Duration,
    /// The metric must be as wanted for this long, at every look.
    pub quiet: Duration,
}

/// Asks until the application is drained. Dropping it ends it at once.
pub async fn drain(measure: &Measure, context: &Context) -> End {
    let began = Instant::now();
    let settled = began + measure.settle;
    let mut wanted_since: Option<Instant> = None;
    loop {
        let asked = Instant::now();
        let own = Progress::default();
        let look = timeout(LONGEST_LOOK, measure.metric.check(&context.processes, &own)).await;
        let found = match look {
            Ok(Ok(found)) => found,
            Ok(Err(failure)) => Err(failure.reason),
            Err(_) => Err(format!("{}: no answer within {}", measure.metric.name(), show(LONGEST_LOOK))),
        };
        let mut next = asked + INTERVAL;
        match found {
            Ok(is) => {
                let since = *wanted_since.get_or_insert(asked);
                let due = settled.max(since + measure.quiet);
                // What was asked before that moment says nothing of it.
                if asked >= due {
                    let quiet = show(measure.quiet);
                    return End::Done(format!("drained after {}: {is} (quiet time {quiet})", show(began.elapsed())));
                }
                context.progress.set(is);
                next = next.min(due);
            }
            Err(why) => {
                wanted_since = None;
                context.progress.set(why);
            }
        }
        sleep_until(next.max(Instant::now())).await;
    }
}
