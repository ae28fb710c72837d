//! Watches a job on behalf of the step that waits for it: progress for `/status`, a line in the log now and then, and an
//! early word when the job will not be done in time.

use std::{future::Future, time::Duration};

use tokio::time::Instant;
use tracing::{info, warn};

use super::{Trouble, flow::Flow, pace::Moment};
use crate::{
    duration::show,
    step::{Context, End},
};

/// How often `/status` gets fresh figures.
const LOOK: Duration = Duration::from_millis(200);

/// How often a long job writes a line: a save of ten minutes must not look hung, nor fill the log.
const TELL: Duration = Duration::from_secs(5);

/// Work that touches files, on a thread of its own: file systems hang.
///
/// # Errors
/// Those of the work; or the agent ends.
pub async fn in_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Trouble> + Send + 'static,
) -> Result<T, Trouble> {
    crate::task::blocking(work).await.unwrap_or_else(|_| Err(Trouble::for_good("the agent is ending")))
}

/// A job that will not be done is asked to stop so long before it would be cut, at most, so that it clears what it has
/// written; a tenth of its time where that is less.
const CLEARING: Duration = Duration::from_millis(200);

/// Waits for the work, and tells of it meanwhile. `doing` is what it does, such as `saved`. Shortly before its limit
/// the work is asked to stop; then the progress says how far it came.
pub async fn watched<T>(
    context: &Context,
    doing: &'static str,
    flow: &Flow,
    work: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, End> {
    let mut work = std::pin::pin!(work);
    let begun = Instant::now();
    let stop_at = context.limit - CLEARING.min(context.limit.saturating_duration_since(begun) / 10);
    // When bytes began to move: what was waited for before that says nothing about the rate.
    let mut moving: Option<Instant> = None;
    let (mut told, mut is_late) = (begun, false);
    let (mut own, mut others, mut last) = (context.progress.now(), String::new(), (0, 0));
    let done = loop {
        let now = Instant::now();
        if flow.is_stopped() {
            // Whoever hangs is cut by the step's own limit. To look again and again at a time that is over would never
            // give the runtime a turn to do so.
            break work.await;
        }
        let look = stop_at.min(now + LOOK);
        if let Ok(done) = tokio::time::timeout_at(look, &mut work).await {
            break done;
        }
        let now = Instant::now();
        if now >= stop_at {
            flow.stop();
        }
        let [done, total] = flow.counts();
        // What the store's client or a command's says of itself is worth more than that nothing moves.
        let told_now = context.progress.now();
        if told_now != own {
            others = told_now;
        }
        let is_still = std::mem::replace(&mut last, done) == done;
        let waits = match flow.place() {
            _ if !others.is_empty() => others.clone(),
            Some(place) if is_still => format!("{}: waiting for the file system", place.display()),
            _ => String::new(),
        };
        if done.1 == 0 {
            if !waits.is_empty() {
                own = waits;
                context.progress.set(own.as_str());
            }
            continue;
        }
        let since = *moving.get_or_insert(now - LOOK);
        let moment = Moment { elapsed: now - since, left: context.limit.saturating_duration_since(now), done, total };
        let progress = moment.show();
        own = if waits.is_empty() { format!("{doing} {progress}") } else { format!("{doing} {progress}; {waits}") };
        context.progress.set(own.as_str());
        let step = context.label.as_str();
        if let Some(why) = moment.is_late().filter(|_| !is_late) {
            is_late = true;
            warn!(step, progress, why, "it will not be done in time");
        } else if now - told >= TELL {
            told = now;
            info!(step, progress, "{doing} so far");
        }
    };
    done.map_err(|trouble| {
        if flow.is_stopped() {
            let doing = context.progress.now();
            End::TimedOut(format!("not done after {}, abandoned: {doing}", show(begun.elapsed())))
        } else if trouble.may_pass {
            End::Failed(trouble.reason)
        } else {
            End::FailedForGood(trouble.reason)
        }
    })
}
