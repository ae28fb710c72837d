//! Decides when the application is drained. Pure: observations come in with their times, a decision comes out. It
//! holds no clock and reads nothing, so that every rule can be tested by table.
//!
//! The drain is done when three things hold together: it has lasted at least the settle time; the last new
//! connection is a quiet time ago; and at most `threshold` connections are in flight.
//!
//! What the kernel cannot show is a request's end inside a connection. Where several requests are under way on one
//! connection (HTTP/2, pipelining), the last speaker tells only about the last of them.

use std::{collections::HashMap, time::Duration};

use crate::{
    duration::show,
    net::{Connection, Spoke, State},
    short,
};

/// A time since the drain's start.
pub type Moment = Duration;

/// A decision rests on a look at the sockets that is at most this old: two polls, half of the 100 ms that the
/// whole drain may add.
pub const FRESH: Duration = Duration::from_millis(50);

/// The longest that a peer's kernel may hold back an acknowledgement is 500 ms (RFC 1122, 4.2.3.2), plus a round
/// trip. Later ones answer a keep-alive probe and tell nothing about who spoke.
const LATEST_ACKNOWLEDGEMENT: Duration = Duration::from_secs(1);

/// A connection that takes turns is idle after this stillness, if its last answer did not take longer: some ticks of
/// any kernel.
const QUICK: Duration = Duration::from_millis(25);

/// A kernel holds back its own acknowledgement for 40 ms, or longer as the connection's time says (`TCP_DELACK_MIN`,
/// `icsk_ack.ato`)…
const SHORTEST_DELAY: Duration = Duration::from_millis(40);
/// …and its timer may be this late: two ticks of 10 ms.
const LATE_TIMER: Duration = Duration::from_millis(20);

/// Between two turns the whole of an answer was watched, and its pauses are known.
const TURNS_SEEN: u8 = 2;

/// So many idle connections are remembered, some 100 bytes each. Where there are more, those that move are.
const MOST_REMEMBERED: usize = 2048;

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
    /// A connection on which the server spoke last is idle after this stillness; one that takes turns sooner.
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

/// What this look and those before tell about who spoke last on a connection, and about its habits.
///
/// The times have the kernel's tick as resolution (4 ms with 250 Hz), so a quick answer leaves them equal and their
/// order unknown. Then each of these shows that the server spoke after the client:
///
/// * An acknowledgement that came after the client's last byte, but soon: a client acknowledges its own request with
///   nothing.
/// * The last look saw an answered connection, and since then the client sent one segment and the server at least one.
/// * Since before the client's last byte the server's kernel sent no segment without data, and it never holds an
///   acknowledgement back for as long as the connection has been still: an answer carried it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    at: Moment,
    server_spoke_at: Moment,
    received_segments: u32,
    sent_segments: u32,
    bare_segments: u32,
    /// Segments without data that had been sent when the client was last seen not to have spoken yet.
    bare_before: Option<u32>,
    /// The server spoke after the client.
    is_answered: bool,
    /// How often after an answer it was the client that spoke next.
    turns: u8,
    /// Once more, if it turns out that the one segment which the server sent since then came after the client's.
    may_take_turns: bool,
    /// The longest pause that the server ended, within an answer.
    longest_pause: Duration,
}

impl Known {
    /// What is known after one more look.
    pub fn look(before: Option<&Self>, at: Moment, spoke: &Spoke) -> Self {
        let mut known = Self {
            at,
            server_spoke_at: at.saturating_sub(spoke.since_sent),
            received_segments: spoke.received_segments,
            sent_segments: spoke.sent_segments,
            bare_segments: spoke.bare_segments,
            ..Self::default()
        };
        // Counters never fall: fewer segments are those of another connection on the same addresses.
        let before = before.filter(|before| {
            before.received_segments <= spoke.received_segments && before.sent_segments <= spoke.sent_segments
        });
        if let Some(before) = before {
            known.bare_before = before.bare_before;
            known.turns = before.turns;
            known.longest_pause = before.longest_pause;
            let asked = spoke.received_segments - before.received_segments;
            let answered = spoke.sent_segments - before.sent_segments;
            if asked > 0 {
                known.bare_before = Some(before.bare_segments);
                // Of several segments some may have gone on with the answer, before the client spoke.
                known.turns = known.turns.saturating_add((before.is_answered && answered == 0).into());
                known.may_take_turns = before.is_answered && answered == 1;
                known.is_answered = asked == 1 && answered > 0 && before.is_answered;
            } else {
                if answered > 0 && before.is_answered {
                    let pause = known.server_spoke_at.saturating_sub(before.server_spoke_at);
                    known.longest_pause = known.longest_pause.max(pause);
                } else if answered > 1 {
                    // Nobody saw how the segments of this answer were spread.
                    let pause = known.server_spoke_at.saturating_sub(before.at);
                    known.longest_pause = known.longest_pause.max(pause);
                }
                known.may_take_turns = before.may_take_turns && answered == 0;
                known.is_answered = answered > 0 || before.is_answered;
            }
        }
        let later = spoke.since_received.saturating_sub(spoke.since_acknowledged);
        let is_acknowledged = !later.is_zero() && later <= LATEST_ACKNOWLEDGEMENT;
        let still = spoke.since_received.min(spoke.since_sent);
        let is_shown = spoke.since_sent < spoke.since_received
            || is_acknowledged
            || known.only_answers_acknowledged() && still >= longest_delay(spoke);
        known.is_answered |= is_shown;
        known.is_answered &= spoke.sent_segments > 0 && spoke.since_sent <= spoke.since_received;
        if known.may_take_turns && is_shown && known.is_answered {
            known.turns = known.turns.saturating_add(1);
            known.may_take_turns = false;
        }
        known
    }

    fn only_answers_acknowledged(&self) -> bool {
        self.bare_before == Some(self.bare_segments)
    }

    /// How long nothing must have moved on an answered connection until it is idle.
    ///
    /// Whether an answer is complete, nobody sees from outside. A connection that is seen to take turns needs as
    /// long as its last answer took, or twice the longest pause seen within one, or twice the way to the client,
    /// who may have been asked to go on (100-continue); any other needs `idle-after`, which is also the most.
    fn stillness(&self, rules: &Rules, spoke: &Spoke) -> Duration {
        if self.turns < TURNS_SEEN {
            return rules.idle_after;
        }
        let took = spoke.since_received.saturating_sub(spoke.since_sent);
        let needed = took.max(self.longest_pause.saturating_mul(2)).max(spoke.round_trip.saturating_mul(2));
        needed.max(QUICK).min(rules.idle_after)
    }

    /// Whether it could be idle for its habits alone.
    fn is_quick(&self, rules: &Rules, spoke: &Spoke) -> bool {
        self.turns >= TURNS_SEEN && spoke.since_received.min(spoke.since_sent) < rules.idle_after
    }
}

/// After this the server's kernel has acknowledged whatever the client sent.
fn longest_delay(spoke: &Spoke) -> Duration {
    spoke.delayed_acknowledgement.max(SHORTEST_DELAY) + LATE_TIMER
}

/// Tells what a connection means. `still` is for how long it has been seen without anything in its queues, for
/// those of which the kernel tells no times.
///
/// With the times the rules are: bytes in a queue are owed; if the client spoke last, it waits for an answer; if
/// the server spoke last, it is done once nothing has moved for some time ([`Known`] says for how long). Where the
/// order stays unknown the connection counts as in flight until it has been still for the settle time; a request
/// that takes longer than that, begun within the same tick as an earlier answer on the same connection, is the one
/// case that this takes for idle.
pub fn judge(rules: &Rules, connection: &Connection, still: Duration, known: &Known) -> Standing {
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
    if half_closed {
        return cool(rules.settle, waits);
    }
    let stillness = known.stillness(rules, &spoke);
    if known.is_answered {
        return cool(stillness, waits);
    }
    match known.only_answers_acknowledged() {
        true => cool(stillness.max(longest_delay(&spoke)), waits),
        false => cool(rules.settle, waits),
    }
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
    /// What earlier looks told; the second is being written by a survey.
    known: HashMap<u64, Known>,
    known_next: HashMap<u64, Known>,
    /// A holder was released after the last survey…
    has_released: bool,
    /// …and a connection was taken for idle for its habits: such a one may have moved again within [`FRESH`].
    relies_on_habits: bool,
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
            known: HashMap::new(),
            known_next: HashMap::new(),
            has_released: false,
            relies_on_habits: false,
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
        self.known_next.clear();
        self.has_released = false;
        self.relies_on_habits = false;
    }

    pub fn observe(&mut self, at: Moment, connection: Connection) {
        let still = self.still(at, &connection);
        match self.judge_in_survey(at, &connection, still) {
            Standing::Over => {}
            Standing::Idle => self.idle += 1,
            standing => self.holders.push(Holder { connection, seen: at, standing }),
        }
    }

    fn judge_in_survey(&mut self, at: Moment, connection: &Connection, still: Duration) -> Standing {
        let Some(spoke) = &connection.spoke else {
            return judge(&self.rules, connection, still, &Known::default());
        };
        let is_idle = |standing| matches!(standing, Standing::Idle | Standing::Over);
        if self.known_next.len() >= MOST_REMEMBERED {
            let standing = judge(&self.rules, connection, still, &Known::look(None, at, spoke));
            if is_idle(standing) {
                return standing;
            }
        }
        let key = connection.key();
        let known = Known::look(self.known.get(&key), at, spoke);
        let standing = judge(&self.rules, connection, still, &known);
        let standing = self.heed_habits(at, standing, &known, spoke);
        if self.known_next.len() < MOST_REMEMBERED || !is_idle(standing) {
            self.known_next.insert(key, known);
        }
        standing
    }

    pub fn end_survey(&mut self, at: Moment) {
        self.surveyed = Some(at);
        self.still_since = std::mem::take(&mut self.still_next);
        self.known = std::mem::take(&mut self.known_next);
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
        let Some(holder) = self.holders.get(index) else { return false };
        let key = holder.connection.key();
        let since = self.still_since.get(&key).copied().unwrap_or(at);
        if let Some(connection) = found {
            let known = connection.spoke.map(|spoke| Known::look(self.known.get(&key), at, &spoke)).unwrap_or_default();
            let mut standing = judge(&self.rules, &connection, at.saturating_sub(since), &known);
            if let Some(spoke) = &connection.spoke {
                standing = self.heed_habits(at, standing, &known, spoke);
            }
            self.known.insert(key, known);
            match standing {
                Standing::Owed(_) | Standing::Cooling(_) => {
                    self.holders[index] = Holder { connection, seen: at, standing };
                    return true;
                }
                Standing::Idle => self.idle += 1,
                Standing::Over => {}
            }
        }
        self.holders.swap_remove(index);
        self.has_released = true;
        false
    }

    /// Before anything can be decided, those that are idle for their habits alone stay under watch: they may still
    /// show that their answers have pauses.
    fn heed_habits(&mut self, at: Moment, standing: Standing, known: &Known, spoke: &Spoke) -> Standing {
        if standing != Standing::Idle || !known.is_quick(&self.rules, spoke) {
            return standing;
        }
        if at.saturating_add(2 * FRESH) < self.rules.settle {
            let still = spoke.since_received.min(spoke.since_sent);
            return Standing::Cooling(self.rules.idle_after.saturating_sub(still));
        }
        self.relies_on_habits = true;
        standing
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
            Some(surveyed) if at.saturating_sub(surveyed) <= FRESH && !(self.has_released && self.relies_on_habits) => {
                Decision::Done
            }
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
        let ports = short::set_of(self.holders.iter().map(|h| h.connection.local.port().to_string())).join(", ");
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
            None => "no new connection".into(),
        }
    }

    /// What ended the drain, with its figures.
    pub fn describe_done(&self, at: Moment) -> String {
        let last = self.describe_last_new(at);
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

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    fn rules() -> Rules {
        Rules {
            settle: ms(5000),
            quiet_min: ms(1000),
            threshold: 0,
            idle_after: ms(1000),
            longest_request: ms(10_000),
            quiet: Rule::On,
            in_flight: Rule::On,
        }
    }

    /// A connection on which the client spoke `received` ago and the server `sent` ago, in milliseconds.
    fn spoken(received: u64, sent: u64) -> Connection {
        Connection {
            handle: None,
            state: State::Established,
            local: "127.0.0.1:8080".parse().expect("an address"),
            peer: "127.0.0.1:40000".parse().expect("an address"),
            receive_queue: 0,
            send_queue: 0,
            is_held: true,
            spoke: Some(Spoke {
                received: 100,
                received_segments: 1,
                sent_segments: 1,
                bare_segments: 1,
                since_received: ms(received),
                since_sent: ms(sent),
                since_acknowledged: ms(received),
                delayed_acknowledgement: ms(40),
                round_trip: Duration::from_micros(50),
            }),
        }
    }

    fn with(mut connection: Connection, change: impl FnOnce(&mut Connection)) -> Connection {
        change(&mut connection);
        connection
    }

    fn spoke(connection: &mut Connection) -> &mut Spoke {
        connection.spoke.as_mut().expect("it has times")
    }

    #[test]
    fn judges_by_who_spoke_last() {
        use Standing::{Cooling, Idle, Over, Owed};
        let quiet = spoken(9000, 8000);
        let table: Vec<(&str, Connection, Standing)> = vec![
            ("client last", spoken(300, 400), Owed(ms(300))),
            ("client last, long ago", spoken(60_000, 60_004), Owed(ms(60_000))),
            ("server last, a moment ago", spoken(400, 300), Cooling(ms(700))),
            ("server last, just idle", spoken(2000, 1000), Idle),
            ("server last, long ago", quiet.clone(), Idle),
            ("same tick", spoken(300, 300), Cooling(ms(4700))),
            ("same tick, still for the settle time", spoken(5000, 5000), Idle),
            (
                "same tick, acknowledged later",
                with(spoken(300, 300), |c| spoke(c).since_acknowledged = ms(260)),
                Cooling(ms(700)),
            ),
            (
                "same tick, probed much later",
                with(spoken(4000, 4000), |c| spoke(c).since_acknowledged = ms(10)),
                Cooling(ms(1000)),
            ),
            (
                "first request in the tick it was opened",
                with(spoken(300, 300), |c| spoke(c).sent_segments = 0),
                Owed(ms(300)),
            ),
            ("unread bytes", with(quiet.clone(), |c| c.receive_queue = 1), Owed(ms(9000))),
            ("unacknowledged bytes", with(quiet.clone(), |c| c.send_queue = 1), Owed(ms(9000))),
            ("opened ahead", with(spoken(10, 10), |c| (spoke(c).received, spoke(c).sent_segments) = (0, 0)), Idle),
            ("a greeting only", with(spoken(500, 10), |c| spoke(c).received = 0), Idle),
            ("not accepted", with(spoken(10, 10), |c| (c.is_held, spoke(c).received) = (false, 0)), Cooling(ms(4990))),
            ("never accepted", with(spoken(6000, 6000), |c| (c.is_held, spoke(c).received) = (false, 0)), Idle),
            (
                "not accepted, with a request",
                with(spoken(10, 10), |c| (c.is_held, c.receive_queue) = (false, 5)),
                Owed(ms(10)),
            ),
            ("half closed, client last", with(spoken(300, 400), |c| c.state = State::CloseWait), Owed(ms(300))),
            (
                "half closed, FIN not read",
                with(spoken(300, 400), |c| (c.state, c.receive_queue) = (State::CloseWait, 1)),
                Owed(ms(300)),
            ),
            ("half closed, server last", with(spoken(400, 300), |c| c.state = State::CloseWait), Cooling(ms(4700))),
            ("half closed and forgotten", with(quiet.clone(), |c| c.state = State::CloseWait), Idle),
            (
                "opened and closed unused",
                with(spoken(10, 10), |c| (c.state, spoke(c).received) = (State::CloseWait, 1)),
                Over,
            ),
            (
                "half closed with bytes unread",
                with(quiet.clone(), |c| (c.state, c.receive_queue) = (State::CloseWait, 2)),
                Owed(ms(9000)),
            ),
            (
                "closed, answer not out",
                with(quiet.clone(), |c| (c.state, c.send_queue) = (State::FinWait1, 2)),
                Owed(ms(9000)),
            ),
            ("closed, only FIN not out", with(spoken(1, 2), |c| (c.state, c.send_queue) = (State::FinWait1, 1)), Over),
            (
                "both closed, answer not out",
                with(quiet.clone(), |c| (c.state, c.send_queue) = (State::LastAck, 9)),
                Owed(ms(9000)),
            ),
            (
                "closing, answer not out",
                with(quiet.clone(), |c| (c.state, c.send_queue) = (State::Closing, 9)),
                Owed(ms(9000)),
            ),
            ("gone but for its name", with(spoken(1, 2), |c| c.state = State::TimeWait), Over),
            ("closed by the server", with(spoken(1, 2), |c| c.state = State::FinWait2), Over),
            ("a listener", with(spoken(1, 2), |c| c.state = State::Listen), Over),
        ];
        for (name, connection, expected) in table {
            let known = connection.spoke.map(|spoke| Known::look(None, ms(60_000), &spoke)).unwrap_or_default();
            assert_eq!(judge(&rules(), &connection, Duration::ZERO, &known), expected, "{name}");
        }
    }

    #[test]
    fn judges_by_stillness_where_no_times_are_known() {
        use Standing::{Cooling, Idle, Owed};
        let bare = |state, receive_queue, send_queue| {
            with(spoken(0, 0), |c| {
                c.spoke = None;
                (c.state, c.receive_queue, c.send_queue) = (state, receive_queue, send_queue);
            })
        };
        for (connection, still, expected) in [
            (bare(State::Established, 0, 0), 4000, Cooling(ms(6000))),
            (bare(State::Established, 0, 0), 10_000, Idle),
            (bare(State::Established, 1, 0), 10_000, Owed(ms(10_000))),
            (bare(State::Established, 0, 1), 0, Owed(ms(0))),
            (bare(State::CloseWait, 1, 0), 4000, Cooling(ms(6000))),
            (bare(State::CloseWait, 2, 0), 4000, Owed(ms(4000))),
            (bare(State::SynReceived, 0, 0), 0, Cooling(ms(5000))),
            (bare(State::SynReceived, 0, 0), 5000, Idle),
            (bare(State::FinWait1, 0, 5), 20, Owed(ms(20))),
        ] {
            assert_eq!(judge(&rules(), &connection, ms(still), &Known::default()), expected, "{connection:?} {still}");
        }
    }

    /// Looks at one connection: when, segments (received, sent, bare), and times (received, sent, acknowledged).
    type Look = (u64, [u32; 3], [u64; 3]);

    fn stand(looks: &[Look]) -> Standing {
        let mut known: Option<Known> = None;
        let mut standing = Standing::Over;
        for &(at, [received_segments, sent_segments, bare_segments], [received, sent, acknowledged]) in looks {
            let connection = with(spoken(received, sent), |c| {
                *spoke(c) = Spoke {
                    received_segments,
                    sent_segments,
                    bare_segments,
                    since_acknowledged: ms(acknowledged),
                    ..*spoke(c)
                };
            });
            let now = Known::look(known.as_ref(), ms(at), connection.spoke.as_ref().expect("it has times"));
            standing = judge(&rules(), &connection, Duration::ZERO, &now);
            known = Some(now);
        }
        standing
    }

    #[test]
    fn earlier_looks_tell_what_one_cannot() {
        use Standing::{Cooling, Idle, Owed};
        // Answered 10 ms after the request, and still for 200 ms.
        let answered: Look = (1000, [5, 5, 3], [210, 200, 210]);
        // One request before, so that `answered` is its first turn.
        let earlier: Look = (400, [4, 4, 3], [210, 200, 210]);
        let table: Vec<(&str, Vec<Look>, Standing)> = vec![
            ("one look does not tell its habits", vec![answered], Cooling(ms(800))),
            ("one turn may be a chance", vec![earlier, answered], Cooling(ms(800))),
            ("nor do two at the same", vec![answered, (1100, [5, 5, 3], [310, 300, 310])], Cooling(ms(700))),
            ("it takes turns", vec![answered, (1300, [6, 6, 3], [40, 30, 40])], Idle),
            ("it takes turns, just answered", vec![answered, (1300, [6, 6, 3], [20, 10, 20])], Cooling(ms(15))),
            ("a slow answer needs longer", vec![answered, (1300, [6, 6, 3], [250, 50, 250])], Cooling(ms(150))),
            ("but no longer than idle-after", vec![answered, (9000, [6, 6, 3], [6000, 1000, 6000])], Idle),
            ("it waits again", vec![answered, (1300, [6, 5, 3], [30, 330, 30])], Owed(ms(30))),
            ("it waits for long", vec![answered, (5300, [6, 5, 4], [4030, 4330, 4030])], Owed(ms(4030))),
            (
                "the server went on by itself: such a pause is no end",
                vec![answered, (1300, [5, 6, 3], [510, 30, 510]), (1600, [6, 7, 3], [110, 100, 110])],
                Cooling(ms(840)),
            ),
            (
                "one request and its answer in one tick",
                vec![answered, (1300, [6, 6, 4], [30, 30, 30])],
                Cooling(ms(970)),
            ),
            ("the same in two segments", vec![answered, (1300, [6, 7, 4], [30, 30, 30])], Cooling(ms(970))),
            (
                "in one tick, after a question",
                vec![(1000, [6, 5, 3], [0, 9, 0]), (1300, [6, 6, 4], [300; 3])],
                Cooling(ms(700)),
            ),
            ("several in one tick", vec![answered, (1300, [8, 8, 4], [30, 30, 30])], Cooling(ms(4970))),
            (
                "several in one tick, acknowledged by answers",
                vec![answered, (1300, [8, 8, 3], [30, 30, 30])],
                Cooling(ms(970)),
            ),
            (
                "that remains so for longer than the kernel waits",
                vec![answered, (1300, [8, 8, 3], [30, 30, 30]), (1330, [8, 8, 3], [60, 60, 60])],
                Cooling(ms(940)),
            ),
            (
                "the kernel had to acknowledge the last one by itself",
                vec![answered, (1300, [8, 8, 3], [30, 30, 30]), (1330, [8, 8, 4], [60, 60, 60])],
                Cooling(ms(4940)),
            ),
            (
                "nothing is known from before, so several looks have to tell",
                vec![
                    (1000, [5, 5, 3], [10, 10, 10]),
                    (1300, [6, 6, 3], [30, 30, 30]),
                    (1340, [6, 6, 3], [70, 70, 70]),
                    (1600, [7, 7, 3], [30, 30, 30]),
                    (1640, [7, 7, 3], [70, 70, 70]),
                    (1900, [8, 8, 3], [30, 30, 30]),
                    (1940, [8, 8, 3], [70, 70, 70]),
                    (2200, [9, 10, 3], [30, 30, 30]),
                ],
                Idle,
            ),
            (
                "the rest of one answer, and the beginning of the next: no turn was seen",
                vec![answered, (1500, [6, 7, 3], [40, 30, 40])],
                Cooling(ms(970)),
            ),
            (
                "a turn was seen, whatever the answer is made of",
                vec![
                    answered,
                    (1300, [7, 5, 3], [10, 510, 10]),
                    (1310, [7, 9, 3], [20, 18, 20]),
                    (1345, [7, 9, 3], [55, 53, 55]),
                ],
                Idle,
            ),
            (
                "and nobody saw how it was spread",
                vec![answered, (1300, [7, 5, 3], [10, 510, 10]), (1700, [7, 9, 3], [410, 100, 410])],
                Cooling(ms(500)),
            ),
            (
                "always in one tick, always acknowledged apart: unknown",
                vec![(1000, [5, 5, 3], [10; 3]), (1300, [6, 6, 4], [30; 3]), (1600, [7, 7, 5], [30; 3])],
                Cooling(ms(4970)),
            ),
            ("another one on the same addresses", vec![answered, (1300, [1, 1, 1], [30, 20, 30])], Cooling(ms(980))),
        ];
        for (name, mut looks, expected) in table {
            if looks.len() > 1 && looks[0] == answered {
                looks.insert(0, earlier);
            }
            assert_eq!(stand(&looks), expected, "{name}");
        }
    }

    fn survey(engine: &mut Engine, at: u64, connections: &[Connection]) {
        engine.begin_survey();
        for connection in connections {
            engine.observe(ms(at), connection.clone());
        }
        engine.end_survey(ms(at));
    }

    fn wait(need: Need, until: Option<u64>) -> Decision {
        Decision::Wait { need, until: until.map(ms) }
    }

    #[test]
    fn all_three_must_hold() {
        let mut engine = Engine::new(rules(), Knowledge);
        assert_eq!(engine.first_interest(), ms(4000));
        assert_eq!(engine.decide(ms(0)), wait(Need::Time, Some(5000)));
        assert_eq!(engine.decide(ms(4999)), wait(Need::Time, Some(5000)));
        engine.note_new(ms(4500));
        assert_eq!(engine.decide(ms(5000)), wait(Need::Time, Some(5500)));
        assert_eq!(engine.decide(ms(5500)), wait(Need::Survey, Some(5500)));
        survey(&mut engine, 5510, &[spoken(900, 950), spoken(300, 200)]);
        assert_eq!(engine.decide(ms(5510)), wait(Need::Recheck, None));
        assert_eq!(
            engine.describe_wait(ms(6010)),
            "1 request in flight on port 8080, oldest waiting 1.4s, 1 more busy a moment ago; last new connection 1.5s ago"
        );
        assert!(!engine.recheck(ms(6100), 0, None), "its client went away");
        assert_eq!(engine.decide(ms(6100)), wait(Need::Recheck, Some(6310)));
        assert_eq!(
            engine.describe_wait(ms(6100)),
            "1 connection busy a moment ago on port 8080; last new connection 1.6s ago"
        );
        assert!(engine.recheck(ms(6310), 0, Some(spoken(300, 204))), "it spoke again");
        assert!(!engine.recheck(ms(7200), 0, Some(spoken(1200, 1100))), "it is idle");
        assert_eq!(engine.decide(ms(7200)), wait(Need::Survey, Some(7200)), "the last look at all is old");
        survey(&mut engine, 7201, &[spoken(1201, 1101)]);
        assert_eq!(engine.decide(ms(7201)), Decision::Done);
        assert_eq!(
            engine.describe_done(ms(7201)),
            "drained after 7.2s: last new connection 2.7s ago (quiet time 1s), 0 in flight, 1 idle keep-alive connection left"
        );
        assert_eq!(engine.decide(ms(7201) + FRESH + ms(1)), wait(Need::Survey, Some(7252)));
    }

    #[test]
    fn suspects_hold_until_they_are_told_apart_or_old() {
        let mut engine = Engine::new(rules(), Knowledge);
        survey(&mut engine, 5000, &[]);
        engine.suspect(ms(4800));
        assert_eq!(engine.decide(ms(5000)), wait(Need::Attribution, Some(5800)));
        engine.acquit();
        assert_eq!(engine.decide(ms(5000)), Decision::Done);
        engine.suspect(ms(4800));
        engine.convict();
        assert_eq!(engine.decide(ms(5000)), wait(Need::Time, Some(5800)));
        engine.suspect(ms(4900));
        survey(&mut engine, 5900, &[]);
        assert_eq!(engine.decide(ms(5899)), wait(Need::Attribution, Some(5900)));
        assert_eq!(engine.decide(ms(5900)), Decision::Done);
    }

    #[test]
    fn as_many_as_the_threshold_may_be_in_flight() {
        let mut engine = Engine::new(Rules { threshold: 2, ..rules() }, Knowledge);
        let (owed, cooling) = (spoken(1, 2), |sent| spoken(2000, sent));
        survey(&mut engine, 5000, &[owed.clone(), owed.clone()]);
        assert_eq!(engine.decide(ms(5000)), Decision::Done);
        survey(&mut engine, 5000, &[owed.clone(), cooling(100), cooling(500), cooling(300)]);
        assert_eq!(engine.decide(ms(5000)), wait(Need::Recheck, Some(5700)), "two of three must become idle");
        survey(&mut engine, 5000, &[owed.clone(), owed.clone(), owed.clone(), cooling(300)]);
        assert_eq!(engine.decide(ms(5000)), wait(Need::Recheck, None));
    }

    #[test]
    fn a_rule_that_is_off_holds_nothing() {
        let mut engine = Engine::new(Rules { quiet: Rule::Off, ..rules() }, Knowledge);
        engine.note_new(ms(5000));
        engine.suspect(ms(5000));
        survey(&mut engine, 5000, &[]);
        assert_eq!(engine.decide(ms(5000)), Decision::Done);
        let mut engine = Engine::new(Rules { in_flight: Rule::Off, ..rules() }, Knowledge);
        survey(&mut engine, 5000, &[spoken(1, 2)]);
        assert_eq!(engine.decide(ms(5000)), Decision::Done);
    }

    #[test]
    fn stillness_is_remembered_between_surveys() {
        let mut engine = Engine::new(rules(), Knowledge);
        let bare = |queue| with(spoken(0, 0), |c| (c.spoke, c.receive_queue) = (None, queue));
        survey(&mut engine, 10, &[bare(0)]);
        assert_eq!(engine.decide(ms(6000)), wait(Need::Recheck, Some(10_010)));
        survey(&mut engine, 6000, &[bare(7)]);
        assert_eq!(engine.decide(ms(6000)), wait(Need::Recheck, None));
        survey(&mut engine, 7000, &[bare(0)]);
        assert_eq!(engine.decide(ms(7000)), wait(Need::Recheck, Some(16_000)), "it moved at 6 s");
        survey(&mut engine, 16_000, &[bare(0)]);
        assert_eq!(engine.decide(ms(16_000)), Decision::Done);
        survey(&mut engine, 16_001, &[]);
        survey(&mut engine, 16_002, &[bare(0)]);
        assert_eq!(engine.decide(ms(16_002)), wait(Need::Recheck, Some(26_002)), "another one on the same addresses");
    }

    /// A small generator (Marsaglia's xorshift): the same numbers in every run.
    struct Dice(u64);
    impl Dice {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % limit
        }
    }

    /// Random lives of connections, seen through surveys and rechecks at random times, against a model that knows
    /// everything: the drain must never end while a request is under way or before the quiet time, and must end
    /// within one look of the moment at which the model says that it may.
    #[test]
    fn agrees_with_a_model_that_knows_everything() {
        const STEP: u64 = 20;
        for seed in 1..400 {
            let mut dice = Dice(u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15));
            // Each connection is opened once and has requests (asked, answered), a tick or more apart.
            let lives: Vec<(u64, Vec<(u64, u64)>)> = (0..dice.below(6))
                .map(|number| {
                    // No two at once: their time names them.
                    let opened = dice.below(1000) * 6 + number;
                    let mut at = opened;
                    let requests = (0..dice.below(4))
                        .map(|_| {
                            let asked = at + 4 + dice.below(1500);
                            at = asked + 4 + dice.below(3000);
                            (asked, at)
                        })
                        .collect();
                    (opened, requests)
                })
                .collect();
            let seen = |(opened, requests): &(u64, Vec<(u64, u64)>), now: u64| {
                let asked = requests.iter().map(|r| r.0).filter(|&at| at <= now).max();
                let answered = requests.iter().map(|r| r.1).filter(|&at| at <= now).max();
                (*opened <= now).then(|| {
                    with(spoken(now - asked.unwrap_or(*opened), now - answered.unwrap_or(*opened)), |c| {
                        spoke(c).received = asked.map_or(0, |_| 10);
                        spoke(c).sent_segments = answered.map_or(0, |_| 1);
                        c.peer.set_port(u16::try_from(*opened).expect("small") + 1);
                    })
                })
            };
            let may_end = |now: u64| {
                now >= 5000
                    && lives.iter().all(|(opened, requests)| {
                        let is_quiet = *opened > now || now - opened >= 1000;
                        let is_done = requests.iter().all(|r| r.0 > now || r.1 <= now && now - r.1 >= 1000);
                        is_quiet && is_done
                    })
            };
            let mut engine = Engine::new(rules(), Knowledge);
            let mut could_since = None;
            let mut now = 0;
            loop {
                for (opened, _) in &lives {
                    if *opened <= now && *opened + STEP > now {
                        engine.suspect(ms(*opened));
                        engine.convict();
                    }
                }
                could_since = may_end(now).then(|| could_since.unwrap_or(now));
                match engine.decide(ms(now)) {
                    Decision::Done => break,
                    Decision::Wait { need: Need::Survey, .. } => {
                        let all: Vec<Connection> = lives.iter().filter_map(|life| seen(life, now)).collect();
                        survey(&mut engine, now, &all);
                        if engine.decide(ms(now)) == Decision::Done {
                            break;
                        }
                    }
                    Decision::Wait { need: Need::Recheck, .. } => {
                        let mut index = 0;
                        while let Some(holder) = engine.holders().get(index) {
                            let key = holder.connection.key();
                            let found = lives.iter().filter_map(|life| seen(life, now)).find(|c| c.key() == key);
                            index += usize::from(engine.recheck(ms(now), index, found));
                        }
                    }
                    Decision::Wait { .. } => {}
                }
                assert!(could_since.is_none_or(|since| now <= since + 2 * STEP), "{seed}: late at {now}: {lives:?}");
                now += STEP;
            }
            assert!(may_end(now), "{seed}: too soon at {now}: {lives:?}");
        }
    }
}
