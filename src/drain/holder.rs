//! Whether a connection in flight holds the drain, and until when at most: what the user said about long-lived
//! connections, and what the stop that follows does for clients that go on asking. Pure.

use std::time::Duration;

use super::{
    judge::{Known, Standing},
    rules::{LongLived, Moment, Rules},
};
use crate::{duration::show, net::Connection, short};

/// A connection that holds the drain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub connection: Connection,
    seen: Moment,
    standing: Standing,
    /// When it holds no longer, whatever it does.
    leaves: Option<Moment>,
    /// For how long it had been in flight when it was seen.
    age: Duration,
    /// Its client was seen to ask again after an answer, since routing moved away.
    asks_on: bool,
}

/// Why a connection in flight does not hold the drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spared {
    /// Long-lived, of this age, and the user does not wait for it.
    LongLived(Duration),
    /// Its client goes on asking, and the stop that follows ends it politely.
    GoesOn,
}

/// Decides about one connection in flight. `moved_away` is when routing had moved away, if it has.
pub fn hold(
    rules: &Rules,
    at: Moment,
    moved_away: Option<Moment>,
    connection: Connection,
    known: &Known,
    standing: Standing,
) -> Result<Holder, Spared> {
    let spoke = connection.spoke.as_ref();
    let age = known.age(at, spoke);
    let limit = match rules.long_lived {
        LongLived::Wait => None,
        LongLived::Ignore => Some(Moment::ZERO),
        LongLived::UpTo(limit) => Some(limit),
    };
    let mut leaves = limit.map(|limit| limit.max(at.saturating_add(rules.longest_request.saturating_sub(age))));
    if leaves.is_some_and(|leaves| leaves <= at) {
        return Err(Spared::LongLived(age));
    }
    if let Some(moved_away) = moved_away.filter(|_| rules.graceful_stop) {
        // Where a turn cannot be seen, or proves nothing about the other requests on the connection, they are over
        // after the longest request.
        let end = moved_away.saturating_add(rules.longest_request);
        let is_told = spoke.is_some() && (!known.is_awaited || known.asks_on && !known.shares());
        let is_bounded = spoke.is_none() || known.asks_on;
        if is_told || is_bounded && end <= at {
            return Err(Spared::GoesOn);
        }
        if is_bounded {
            leaves = Some(leaves.map_or(end, |leaves| leaves.min(end)));
        }
    }
    Ok(Holder { seen: at, standing, leaves, age, asks_on: known.asks_on, connection })
}

impl Holder {
    /// When time alone may end it.
    pub fn until(&self) -> Option<Moment> {
        let cool = match self.standing {
            Standing::Cooling(left) => Some(self.seen.saturating_add(left)),
            _ => None,
        };
        [cool, self.leaves].into_iter().flatten().min()
    }

    fn age_at(&self, at: Moment) -> Duration {
        self.age.saturating_add(at.saturating_sub(self.seen))
    }
}

/// What is in flight, for a reader who sees it only when time is up.
pub fn describe(holders: &[Holder], rules: &Rules, at: Moment) -> String {
    let ports = short::set_of(holders.iter().map(|h| h.connection.local.port()));
    let ports = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
    // What nobody has seen moving, and nobody has looked at since, is not known to be in flight.
    let is_long = |holder: &&Holder| {
        holder.age_at(at) >= rules.longest_request
            && (holder.connection.spoke.is_some() || matches!(holder.standing, Standing::Owed(_)))
    };
    let (mut owed, mut cooling, mut asking) = (0, 0, 0);
    let (mut oldest, mut long, mut longest) = (Duration::ZERO, 0, Duration::ZERO);
    for holder in holders {
        if is_long(&holder) {
            long += 1;
            longest = longest.max(holder.age_at(at));
        } else if holder.asks_on {
            asking += 1;
        } else if let Standing::Owed(waited) = holder.standing {
            owed += 1;
            oldest = oldest.max(waited + at.saturating_sub(holder.seen));
        } else {
            cooling += 1;
        }
    }
    let mut text = String::new();
    let mut add = |what: String, more: &str| {
        let (between, place) = if text.is_empty() { ("", format!(" on port {ports}")) } else { (", ", String::new()) };
        text.push_str(&format!("{between}{what}{place}{more}"));
    };
    if owed > 0 {
        add(format!("{} in flight", count(owed, "request")), &format!(", oldest waiting {}", show(oldest)));
    }
    if cooling > 0 {
        let what = if owed > 0 { format!("{cooling} more") } else { count(cooling, "connection") };
        add(format!("{what} busy a moment ago"), "");
    }
    if long > 0 {
        add(format!("{} in flight for {}", count(long, "long-lived connection"), show(longest)), "");
    }
    if asking > 0 {
        let what = if asking == 1 {
            "1 client goes on asking on a connection of its own (keep-alive)".to_string()
        } else {
            format!("{asking} clients go on asking on connections of their own (keep-alive)")
        };
        let advice =
            "; if the application finishes what is in flight at its stop signal, say graceful-stop = true in [app]";
        add(what, if rules.graceful_stop { "" } else { advice });
    }
    text
}

pub fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
