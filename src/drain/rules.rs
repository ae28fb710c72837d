//! What the user decided about a drain, as its other rooms read it.

use std::time::Duration;

/// A time since the drain's start.
pub type Moment = Duration;

/// Whether a rule is heeded. Tests switch one off to show that it is what keeps requests from being lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    On,
    Off,
}

/// What the user decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// By then routing has moved away at the latest.
    pub settle: Duration,
    /// The shortest quiet time.
    pub quiet_min: Duration,
    /// As many connections may be in flight at the end.
    pub threshold: usize,
    /// A connection on which the server spoke last is idle after this stillness; one that takes turns sooner.
    pub idle_after: Duration,
    /// What takes longer is no request but a long-lived connection. Where nobody can see who spoke last, a connection is
    /// idle after this stillness.
    pub longest_request: Duration,
    /// What becomes of connections that outlast [`Rules::longest_request`].
    pub long_lived: LongLived,
    /// The stop that follows lets the application finish what is in flight and close the rest in order.
    pub graceful_stop: bool,
    /// A connection that is seen to take turns is idle soon after an answer. Off: [`Rules::idle_after`] for all.
    pub habits: Rule,
    pub quiet: Rule,
    pub in_flight: Rule,
}

/// What becomes of connections that outlast the longest request: WebSockets, server-sent events, streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LongLived {
    /// They hold the drain as all others do.
    #[default]
    Wait,
    /// They hold nothing, from when they are known as such.
    Ignore,
    /// They hold the drain for this long at most, from its start.
    UpTo(Duration),
}
