//! Decides when the application is drained. Pure: observations come in with their times, a decision comes out. It
//! holds no clock and reads nothing, so that every rule can be tested by table.
//!
//! The drain is done when three things hold together: it has lasted at least the settle time; the last new
//! connection is a quiet time ago; and at most `threshold` connections are in flight.
//!
//! What the kernel cannot show is a request's end inside a connection. Where several requests are under way on one
//! connection (HTTP/2, pipelining), the last speaker tells only about the last of them.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use crate::{
    duration::show,
    net::{Connection, Spoke, State},
};

/// A time since the drain's start.
pub type Moment = Duration;

/// A decision rests on a look at the sockets that is at most this old: two polls, half of the 100 ms that the
/// whole drain may add.
pub const FRESH: Duration = Duration::from_millis(50);

/// The longest that a peer's kernel may hold back an acknowledgement is 500 ms (RFC 1122, 4.2.3.2), plus a round
/// trip. Later ones answer a keep-alive probe and tell nothing about who spoke.
const LATEST_ACKNOWLEDGEMENT: Duration = Duration::from_secs(1);

/// Whether a rule is heeded. Tests switch one off to show that it is what keeps requests from being lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    On,
    Off,
}

/// What the user decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The drain lasts at least this long.
    pub settle: Duration,
    /// The shortest quiet time.
    pub quiet_min: Duration,
    /// As many connections may be in flight at the end.
    pub threshold: usize,
    /// A connection on which the server spoke last is idle after this stillness.
    pub idle_after: Duration,
    /// Where nobody can see who spoke last, a connection is idle after this stillness.
    pub longest_request: Duration,
    pub quiet: Rule,
    pub in_flight: Rule,
}

/// What is known about the arrivals before the drain. Nothing yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Knowledge;

/// How long no new connection must have come. With no knowledge of earlier arrivals the settle time, which has
/// passed before this matters, is what proves that routing has moved away; the minimum catches stragglers.
pub fn quiet_time(rules: &Rules, _knowledge: &Knowledge) -> Duration {
    rules.quiet_min
}

/// What one connection means for the drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Somebody waits, for as long as this; only bytes can change it.
    Owed(Duration),
    /// It becomes idle after this time if nothing moves until then.
    Cooling(Duration),
    /// Open, and nobody waits.
    Idle,
    /// Nothing that an end of the server could spoil.
    Over,
}

/// Tells what a connection means. `still` is for how long it has been seen without anything in its queues, for
/// those of which the kernel tells no times.
///
/// With the times the rules are: bytes in a queue are owed; if the client spoke last, it waits for an answer; if
/// the server spoke last, it is done once nothing has moved for `idle-after`. Both times have the kernel's tick as
/// resolution (4 ms with 250 Hz), so a quick answer leaves them equal and their order unknown. Then an
/// acknowledgement that came after the client's last byte, but soon, shows that the server spoke after it: a client
/// acknowledges its own request with nothing. Without one the order stays unknown and the connection counts as in
/// flight until it has been still for the settle time; a request that takes longer than that, begun within the
/// same tick as an earlier answer on the same connection, is the one case that this takes for idle.
pub fn judge(rules: &Rules, connection: &Connection, still: Duration) -> Standing {
    let cool = |needed: Duration, since: Duration| match needed.saturating_sub(since) {
        Duration::ZERO => Standing::Idle,
        left => Standing::Cooling(left),
    };
    let half_closed = match connection.state {
        // A handshake under way: a connection in a moment. With TCP_DEFER_ACCEPT it stays in this state until the
        // client's first byte, and a lost or forged one stays for a minute, so it holds for the settle time only.
        State::SynReceived => return cool(rules.settle, still),
        // The server has closed. Its own FIN is one byte of the queue; more than that is part of an answer.
        State::FinWait1 | State::Closing | State::LastAck if connection.send_queue > 1 => {
            return Standing::Owed(connection.spoke.map_or(still, |spoke| spoke.since_received));
        }
        State::Established => false,
        State::CloseWait => true,
        _ => return Standing::Over,
    };
    // The client's FIN counts as a byte received, and as one to be read until the server has read it.
    let fin = u64::from(half_closed);
    let is_unread = u64::from(connection.receive_queue) > fin;
    let Some(spoke) = connection.spoke else {
        return match is_unread || connection.send_queue > 0 {
            true => Standing::Owed(still),
            false => cool(rules.longest_request, still),
        };
    };
    let waits = spoke.since_received.min(spoke.since_sent);
    if is_unread || connection.send_queue > 0 {
        return Standing::Owed(spoke.since_received);
    }
    if spoke.received <= fin {
        // Opened ahead and never used; or not even accepted, which a server at work does at once.
        return match connection.is_held {
            true if half_closed => Standing::Over,
            true => Standing::Idle,
            false => cool(rules.settle, waits),
        };
    }
    if spoke.sent_segments == 0 || spoke.since_received < spoke.since_sent {
        return Standing::Owed(spoke.since_received);
    }
    // A client that closed its half and is still not closed by the server waits for something, or the server has
    // forgotten it.
    if !half_closed && (spoke.since_sent < spoke.since_received || is_answered(&spoke)) {
        return cool(rules.idle_after, waits);
    }
    cool(rules.settle, waits)
}

fn is_answered(spoke: &Spoke) -> bool {
    let later = spoke.since_received.saturating_sub(spoke.since_acknowledged);
    !later.is_zero() && later <= LATEST_ACKNOWLEDGEMENT
}

/// A connection that holds the drain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub connection: Connection,
    seen: Moment,
    standing: Standing,
}

impl Holder {
    /// When time alone may end it.
    fn until(&self) -> Option<Moment> {
        match self.standing {
            Standing::Cooling(left) => Some(self.seen.saturating_add(left)),
            _ => None,
        }
    }

    fn is_owed(&self) -> bool {
        matches!(self.standing, Standing::Owed(_))
    }
}

/// What the engine must be told before it can decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Time must pass; new connections must be counted meanwhile.
    Time,
    /// Whose the connections were that were counted, or else time.
    Attribution,
    /// A look at all sockets.
    Survey,
    /// A look at the holders: when bytes have moved, or when the time has come.
    Recheck,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Done,
    /// Not yet; time alone changes nothing before `until` (`None`: never).
    Wait {
        need: Need,
        until: Option<Moment>,
    },
}

#[derive(Debug)]
pub struct Engine {
    rules: Rules,
    knowledge: Knowledge,
    last_new: Option<Moment>,
    /// The last connection that was counted in the namespace and may not be the application's.
    last_suspect: Option<Moment>,
    holders: Vec<Holder>,
    idle: usize,
    surveyed: Option<Moment>,
    /// Since when connections without times have been still; the second is being written by a survey.
    still_since: HashMap<u64, Moment>,
    still_next: HashMap<u64, Moment>,
}

impl Engine {
    pub fn new(rules: Rules, knowledge: Knowledge) -> Self {
        Self {
            rules,
            knowledge,
            last_new: None,
            last_suspect: None,
            holders: Vec::new(),
            idle: 0,
            surveyed: None,
            still_since: HashMap::new(),
            still_next: HashMap::new(),
        }
    }

    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    pub fn holders(&self) -> &[Holder] {
        &self.holders
    }

    /// Connections that are open and hold nothing, as of the last survey.
    pub fn idle(&self) -> usize {
        self.idle
    }

    /// The earliest moment whose new connections can still matter at the end of the settle time.
    pub fn first_interest(&self) -> Moment {
        self.rules.settle.saturating_sub(quiet_time(&self.rules, &self.knowledge))
    }

    /// The application got a new connection, at the latest at this moment.
    pub fn note_new(&mut self, at: Moment) {
        self.last_new = self.last_new.max(Some(at));
    }

    /// Somebody in the network namespace got a new connection, at the latest at this moment.
    pub fn suspect(&mut self, at: Moment) {
        self.last_suspect = self.last_suspect.max(Some(at));
    }

    /// None of the suspects was the application's.
    pub fn acquit(&mut self) {
        self.last_suspect = None;
    }

    /// At least one of the suspects was the application's, or may have been: the last, to be sure.
    pub fn convict(&mut self) {
        self.last_new = self.last_new.max(self.last_suspect.take());
    }

    /// All of the application's connections follow, then [`Engine::end_survey`].
    pub fn begin_survey(&mut self) {
        self.holders.clear();
        self.idle = 0;
        self.still_next.clear();
    }

    pub fn observe(&mut self, at: Moment, connection: Connection) {
        let still = self.still(at, &connection);
        match judge(&self.rules, &connection, still) {
            Standing::Over => {}
            Standing::Idle => self.idle += 1,
            standing => self.holders.push(Holder { connection, seen: at, standing }),
        }
    }

    pub fn end_survey(&mut self, at: Moment) {
        self.surveyed = Some(at);
        self.still_since = std::mem::take(&mut self.still_next);
    }

    /// For how long a connection without times has been seen with empty queues.
    fn still(&mut self, at: Moment, connection: &Connection) -> Duration {
        if connection.spoke.is_some() {
            return Duration::ZERO;
        }
        let key = connection.key();
        let moves = connection.state != State::SynReceived
            && (connection.receive_queue > u32::from(connection.state == State::CloseWait)
                || connection.send_queue > 0);
        let since = match self.still_since.get(&key) {
            Some(&since) if !moves => since,
            _ => at,
        };
        self.still_next.insert(key, since);
        at.saturating_sub(since)
    }

    /// What became of the holder at `index`; `None` when it is gone. Returns whether it still holds; if not,
    /// another one has its index now.
    pub fn recheck(&mut self, at: Moment, index: usize, found: Option<Connection>) -> bool {
        let Some(holder) = self.holders.get_mut(index) else { return false };
        let since = self.still_since.get(&holder.connection.key()).copied().unwrap_or(at);
        let standing = found.map(|connection| {
            let standing = judge(&self.rules, &connection, at.saturating_sub(since));
            holder.connection = connection;
            standing
        });
        match standing {
            Some(standing @ (Standing::Owed(_) | Standing::Cooling(_))) => {
                holder.seen = at;
                holder.standing = standing;
                return true;
            }
            Some(Standing::Idle) => self.idle += 1,
            Some(Standing::Over) | None => {}
        }
        self.holders.swap_remove(index);
        false
    }

    pub fn decide(&self, at: Moment) -> Decision {
        let wait = |need, until| Decision::Wait { need, until };
        if at < self.rules.settle {
            return wait(Need::Time, Some(self.rules.settle));
        }
        if self.rules.quiet == Rule::On {
            let quiet = quiet_time(&self.rules, &self.knowledge);
            let quiet_from = |last: Option<Moment>| last.map(|last| last.saturating_add(quiet)).filter(|&end| at < end);
            if let Some(end) = quiet_from(self.last_new) {
                return wait(Need::Time, Some(end));
            }
            if let Some(end) = quiet_from(self.last_suspect) {
                return wait(Need::Attribution, Some(end));
            }
        }
        if self.rules.in_flight == Rule::Off {
            return Decision::Done;
        }
        match self.surveyed {
            Some(_) if self.holders.len() > self.rules.threshold => wait(Need::Recheck, self.first_release()),
            Some(surveyed) if at.saturating_sub(surveyed) <= FRESH => Decision::Done,
            _ => wait(Need::Survey, Some(at)),
        }
    }

    /// When time alone may bring the holders down to the threshold.
    fn first_release(&self) -> Option<Moment> {
        let mut untils: Vec<Option<Moment>> = self.holders.iter().map(Holder::until).collect();
        // None, which no time ends, comes last.
        untils.sort_unstable_by_key(|until| until.unwrap_or(Moment::MAX));
        untils.len().checked_sub(self.rules.threshold + 1).and_then(|index| untils[index])
    }

    /// What the drain waits for, for a reader who sees it only when time is up.
    pub fn describe_wait(&self, at: Moment) -> String {
        let mut parts = Vec::new();
        if self.surveyed.is_some() && self.holders.len() > self.rules.threshold {
            parts.push(self.describe_holders(at));
        }
        parts.push(self.describe_last_new(at));
        if at < self.rules.settle {
            parts.push(format!("settling for {} more", show(self.rules.settle - at)));
        }
        parts.join("; ")
    }

    fn describe_holders(&self, at: Moment) -> String {
        let ports: BTreeSet<String> = self.holders.iter().map(|h| h.connection.local.port().to_string()).collect();
        let ports = ports.into_iter().collect::<Vec<_>>().join(", ");
        let owed = self.holders.iter().filter(|holder| holder.is_owed()).count();
        let cooling = self.holders.len() - owed;
        if owed == 0 {
            return format!("{} busy a moment ago on port {ports}", count(cooling, "connection"));
        }
        let oldest = self.holders.iter().filter_map(|holder| match holder.standing {
            Standing::Owed(waited) => Some(waited + at.saturating_sub(holder.seen)),
            _ => None,
        });
        let oldest = show(oldest.max().unwrap_or_default());
        let mut text = format!("{} in flight on port {ports}, oldest waiting {oldest}", count(owed, "request"));
        if cooling > 0 {
            text.push_str(&format!(", {cooling} more busy a moment ago"));
        }
        text
    }

    fn describe_last_new(&self, at: Moment) -> String {
        match self.last_new.max(self.last_suspect) {
            Some(last) => format!("last new connection {} ago", show(at.saturating_sub(last))),
            None => "no new connection since the start".into(),
        }
    }

    /// What ended the drain, with its figures.
    pub fn describe_done(&self, at: Moment) -> String {
        let last = match self.last_new {
            Some(last) => format!("last new connection {} ago", show(at.saturating_sub(last))),
            None => "no new connection".into(),
        };
        format!(
            "drained after {}: {last} (quiet time {}), {} in flight, {} left",
            show(at),
            show(quiet_time(&self.rules, &self.knowledge)),
            self.holders.len(),
            count(self.idle, "idle keep-alive connection"),
        )
    }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
