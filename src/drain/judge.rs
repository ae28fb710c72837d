//! Tells of one connection whether somebody waits on it, from what the kernel knows: queues, times and counts of
//! segments, in this look and in those before. Pure. What follows for the drain is decided in [`super::engine`].
//!
//! What the kernel cannot show is a request's end inside a connection. Where several requests are under way on one
//! connection (HTTP/2, pipelining), the last speaker tells only about the last of them.

use std::time::Duration;

use super::rules::{Moment, Rule, Rules};
use crate::net::{Connection, Spoke, State};

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

/// A client's HTTP/2 answers the server's data by frames that ask for nothing within a round trip, two ticks of the
/// kernel's clock (4 ms mostly) and its own time.
const PROMPT: Duration = Duration::from_millis(12);

/// A server whose container has used up its share of the processor says nothing until the next period of 100 ms
/// (`cpu.max`), and perhaps not at its beginning: so late its frames may come, too.
const THROTTLED: Duration = Duration::from_millis(200);

/// Such frames, with their head of 9 bytes (RFC 9113): an acknowledgement of settings, a window update or reset, a
/// ping, two window updates (of the stream and of the connection). No request of HTTP/1.1 is so short: it has a line, a
/// host and an empty line.
const FRAMES: [u64; 4] = [9, 13, 17, 26];

/// The same of a server, which also answers pings: a gRPC server does so as soon as it has got a call. No answer of
/// HTTP/1.1 that has a length (38 bytes) is so short.
const REPLIES: [u64; 7] = [9, 13, 17, 22, 26, 30, 34];

/// Before its first answer an HTTP/2 connection has at least a preface, an acknowledgement of settings and a request;
/// one of gRPC has one more.
const FEWEST: u32 = 4;

/// No request of HTTP/1.1 has fewer bytes (`GET / HTTP/1.1`, `Host: a`); small frames of a WebSocket do.
const SHORTEST_REQUEST: u64 = 27;

/// A WebSocket begins with a request that has so many bytes at least, for its key and its version alone (RFC 6455, 4.1); a
/// protocol of short lines has none such.
const UPGRADE: u64 = 100;

/// Requests of HTTP/1 with a path, a host and who asks have more bytes; HTTP/2's compressed ones, with frames that ask
/// for nothing between them, fewer on average.
const SHORTEST_USUAL: u64 = 60;

/// What a client's messages have on average on a connection that may be HTTP/2 or gRPC, new ones included, whose first
/// call is not compressed yet.
const DOUBTFUL: std::ops::Range<u64> = 20..100;

/// Segments without data that a server's kernel sends by itself at the beginning: it acknowledges the first segment at
/// once (`tcp_event_data_recv`), and from then on holds acknowledgements back.
const FIRST_BARE: u32 = 1;

/// A handshake that lasts longer has lost a segment twice: the first is sent again after 1 s (RFC 6298).
const HANDSHAKE: Duration = Duration::from_secs(3);

/// Between two turns the whole of an answer was watched, and its pauses are known.
const TURNS_SEEN: u8 = 2;

/// "HTTP/1.1 100 Continue" and an empty line: an answer after which the client goes on with the same request.
const INTERIM: u64 = 25;
/// What TLS adds to one record: nothing (no TLS), TLS 1.3 (RFC 8446, 5.2), TLS 1.2 with ChaCha20 (RFC 7905) and with
/// AES-GCM (RFC 5288).
const RECORD: [u64; 4] = [0, 22, 21, 29];

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

impl Standing {
    /// Nobody waits.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Idle | Self::Over)
    }
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
    /// The client spoke after the server, though in the same tick: its kernel had to be told of it apart.
    is_unanswered: bool,
    /// Bytes that the client sent after the server's last, where that is known.
    message: Option<u64>,
    /// The server's last word was to go on (100-continue), which is no answer.
    is_to_go_on: bool,
    /// What the client said last was too short for a request, though it had said more before: a WebSocket.
    is_chat: bool,
    received: u64,
    sent: u64,
    /// Bytes that the server sent since the client asked, where none of them can be an answer.
    reply: Option<u64>,
    /// Nobody has seen it talk: what the server said last may have been no answer.
    is_doubtful: bool,
    /// A message was seen that can only be frames of HTTP/2: more requests than one may be under way.
    has_frames: bool,
    /// How often after an answer it was the client that spoke next.
    turns: u8,
    /// Once more, if it turns out that the one segment which the server sent since then came after the client's.
    may_take_turns: bool,
    /// The longest pause that the server ended, within an answer.
    longest_pause: Duration,
    /// Since when it has been in flight at every look, and the client has not asked again.
    busy_since: Option<Moment>,
    round: Round,
    /// Bytes that the server had sent when the round began.
    round_began: u64,
    /// The client was seen to ask again, after an answer, since routing moved away.
    pub asks_on: bool,
    /// It was in flight when routing had moved away.
    pub is_awaited: bool,
}

/// How far a request and its answer have been seen: whatever the server sends between two looks comes before
/// whatever the client sends after the second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Round {
    #[default]
    Open,
    /// The server has spoken since.
    Answered,
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
            bare_before: before.is_none().then_some(FIRST_BARE),
            received: spoke.received,
            sent: spoke.sent,
            round_began: spoke.sent,
            ..Self::default()
        };
        // Counters never fall: fewer segments are those of another connection on the same addresses.
        let before = before.filter(|before| {
            before.received_segments <= spoke.received_segments && before.sent_segments <= spoke.sent_segments
        });
        if let Some(before) = before {
            (known.bare_before, known.has_frames) = (before.bare_before, before.has_frames);
            known.turns = before.turns;
            known.longest_pause = before.longest_pause;
            (known.busy_since, known.is_awaited) = (before.busy_since, before.is_awaited);
            (known.asks_on, known.round, known.round_began) = (before.asks_on, before.round, before.round_began);
            let asked = spoke.received_segments - before.received_segments;
            let answered = spoke.sent_segments - before.sent_segments;
            let bytes = spoke.received.saturating_sub(before.received);
            let has_answered = answered > 0 && !is_interim(spoke.sent.saturating_sub(before.sent));
            known.message = match asked {
                _ if !has_answered => before.message.map(|message| message + bytes),
                0 | 1 => Some(bytes),
                _ => None,
            };
            let said = spoke.sent.saturating_sub(before.sent);
            let is_nothing = |bytes| bytes == 0 || is_frames(bytes, &REPLIES);
            known.is_doubtful = before.is_doubtful && is_nothing(bytes) && is_nothing(said);
            let has_asked = before.reply.is_some() || !is_nothing(bytes);
            known.reply = Some(said + before.reply.unwrap_or(0)).filter(|&reply| has_asked && is_nothing(reply));
            known.is_unanswered = asked == 0
                && answered == 0
                && (before.is_unanswered
                    || spoke.bare_segments > before.bare_segments && spoke.since_received <= LATEST_ACKNOWLEDGEMENT);
            known.is_chat = match asked {
                0 => before.is_chat,
                _ => {
                    let had_long =
                        || spoke.received >= bytes / u64::from(asked) * u64::from(spoke.received_segments) + UPGRADE;
                    let is_short = !known.has_frames && bytes < SHORTEST_REQUEST.saturating_mul(asked.into());
                    is_short && (before.is_chat || had_long())
                }
            };
            known.is_to_go_on = if answered > 0 { !has_answered } else { before.is_to_go_on };
            known.go_round(at, asked, answered, spoke);
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
        } else if spoke.received_segments == 1 || is_interim(spoke.sent) {
            known.message = Some(spoke.received);
        } else {
            known.is_doubtful = spoke.received_segments >= FEWEST && DOUBTFUL.contains(&usual_message(spoke));
        }
        known.is_to_go_on |= is_interim(spoke.sent);
        let later = spoke.since_received.saturating_sub(spoke.since_acknowledged);
        let is_acknowledged = !later.is_zero() && later <= LATEST_ACKNOWLEDGEMENT;
        let still = spoke.since_received.min(spoke.since_sent);
        let is_shown = spoke.since_sent < spoke.since_received
            || is_acknowledged
            || known.only_answers_acknowledged() && still >= longest_delay(spoke);
        known.is_answered |= is_shown;
        known.is_answered &= spoke.sent_segments > 0 && spoke.since_sent <= spoke.since_received && !known.is_to_go_on;
        known.is_unanswered &= !known.is_answered && spoke.since_sent == spoke.since_received;
        if known.is_answered {
            known.message = Some(0);
        }
        known.has_frames |= known.message.is_some_and(|message| is_surely_frames(message, spoke));
        if known.may_take_turns && is_shown && known.is_answered {
            known.turns = known.turns.saturating_add(1);
            known.may_take_turns = false;
        }
        known
    }

    fn go_round(&mut self, at: Moment, asked: u32, answered: u32, spoke: &Spoke) {
        if self.round == Round::Answered && asked > 0 {
            let said = spoke.sent.saturating_sub(self.round_began);
            if !is_interim(said) && !self.is_chat {
                self.asks_on = true;
                self.busy_since = Some(at);
            }
            (self.round, self.round_began) = (Round::Open, spoke.sent);
        }
        if answered > 0 {
            self.round = Round::Answered;
        } else if self.round == Round::Open {
            self.round_began = spoke.sent;
        }
    }

    /// Routing has moved away: what is in flight now is awaited, and no longer than until it is answered.
    pub fn begin_round(&mut self, is_in_flight: bool) {
        (self.round, self.asks_on, self.is_awaited) = (Round::Open, false, is_in_flight);
    }

    /// What is known of a connection that the kernel tells no times of.
    pub fn without_times(before: Option<&Self>, at: Moment) -> Self {
        before.map_or_else(Self::default, |before| Self { at, ..*before })
    }

    /// Notes whether it is in flight at this look; for one without times, whether anything is in its queues.
    pub fn note_flight(&mut self, at: Moment, is_in_flight: bool) {
        self.busy_since = is_in_flight.then(|| self.busy_since.unwrap_or(at));
        self.is_awaited &= is_in_flight;
    }

    /// Whether several requests may be under way on it, so that a turn tells only about one of them.
    pub fn shares(&self) -> bool {
        self.has_frames
    }

    /// How long a client that spoke last, or may have, must be silent until it is taken for one that asked nothing;
    /// `None`: it asked.
    fn patience(&self, rules: &Rules, spoke: &Spoke) -> Option<Duration> {
        let is_prompt = spoke.since_sent.saturating_sub(spoke.since_received) <= spoke.round_trip + PROMPT;
        match self.message {
            Some(message) if !is_frames(message, &FRAMES) => None,
            Some(message) if is_prompt && is_surely_frames(message, spoke) && FRAMES.contains(&message) => {
                Some(rules.idle_after)
            }
            // If it is a request after all, the stop lets it end.
            _ if is_prompt && rules.graceful_stop && (self.has_frames || usual_message(spoke) < SHORTEST_USUAL) => {
                Some(rules.idle_after)
            }
            None if !is_prompt => None,
            _ => Some(rules.longest_request),
        }
    }

    /// Of those without times only what is in flight is remembered.
    pub fn is_worth_keeping(&self, connection: &Connection) -> bool {
        connection.spoke.is_some() || self.busy_since.is_some()
    }

    /// For how long at least what is in flight has been so.
    pub fn age(&self, at: Moment, spoke: Option<&Spoke>) -> Duration {
        let seen = self.busy_since.map_or(Duration::ZERO, |since| at.saturating_sub(since));
        // The client's last byte belongs to it.
        seen.max(spoke.map_or(Duration::ZERO, |spoke| spoke.since_received))
    }

    /// Whether what the server said last may have been no answer, but frames of HTTP/2.
    fn is_owed_still(&self, rules: &Rules, spoke: &Spoke) -> bool {
        let took = spoke.since_received.saturating_sub(spoke.since_sent);
        // If it is a request after all, the stop lets it end.
        let is_doubtful = self.is_doubtful && !rules.graceful_stop && took <= spoke.round_trip + THROTTLED;
        is_doubtful || self.reply.is_some_and(|reply| reply > 0)
    }

    fn only_answers_acknowledged(&self) -> bool {
        self.bare_before.is_some_and(|before| self.bare_segments <= before)
    }

    /// How long nothing must have moved on an answered connection until it is idle.
    ///
    /// Whether an answer is complete, nobody sees from outside. A connection that is seen to take turns needs as
    /// long as its last answer took, or twice the longest pause seen within one, or twice the way to the client,
    /// who may have been asked to go on (100-continue); any other needs `idle-after`, which is also the most.
    fn stillness(&self, rules: &Rules, spoke: &Spoke) -> Duration {
        if self.turns < TURNS_SEEN || self.is_chat || rules.habits == Rule::Off {
            return rules.idle_after;
        }
        let took = spoke.since_received.saturating_sub(spoke.since_sent);
        let needed = took.max(self.longest_pause.saturating_mul(2)).max(spoke.round_trip.saturating_mul(2));
        needed.max(QUICK).min(rules.idle_after)
    }

    /// Whether it could be idle for its habits alone.
    pub fn is_quick(&self, rules: &Rules, spoke: &Spoke) -> bool {
        self.turns >= TURNS_SEEN && !self.is_chat && spoke.since_received.min(spoke.since_sent) < rules.idle_after
    }
}

/// Whether so many bytes may be such frames, without TLS or in one record.
fn is_frames(bytes: u64, frames: &[u64]) -> bool {
    RECORD.iter().any(|record| frames.iter().any(|frame| frame + record == bytes))
}

/// Whether they are nothing else: what the client usually sends has more bytes; with TLS, where a short request of
/// HTTP/1 has as many, twice as many.
fn is_surely_frames(bytes: u64, spoke: &Spoke) -> bool {
    let usual = usual_message(spoke);
    is_frames(bytes, &FRAMES) && (usual >= 2 * bytes || FRAMES.contains(&bytes) && 4 * usual >= 5 * bytes)
}

/// Whether so many bytes of the server only tell the client to go on.
fn is_interim(bytes: u64) -> bool {
    RECORD.iter().any(|record| bytes == INTERIM + record)
}

fn usual_message(spoke: &Spoke) -> u64 {
    spoke.received / u64::from(spoke.received_segments.max(1))
}

/// After this the server's kernel has acknowledged whatever the client sent.
fn longest_delay(spoke: &Spoke) -> Duration {
    spoke.delayed_acknowledgement.max(SHORTEST_DELAY) + LATE_TIMER
}

/// Tells what a connection means. `still` is for how long it has been seen without anything in its queues, for
/// those of which the kernel tells no times.
///
/// With the times the rules are: bytes in a queue are owed; if the client spoke last, it waits for an answer, unless it
/// may have sent nothing but frames of HTTP/2 that ask for nothing; if the server spoke last, it is done once nothing
/// has moved for some time ([`Known`] says for how long). Where the order stays unknown the connection counts as in
/// flight until it has been still for the longest request.
pub fn judge(rules: &Rules, connection: &Connection, still: Duration, known: &Known) -> Standing {
    let cool = |needed: Duration, since: Duration| match needed.saturating_sub(since) {
        Duration::ZERO => Standing::Idle,
        left => Standing::Cooling(left),
    };
    let half_closed = match connection.state {
        // A handshake under way: a connection in a moment. With TCP_DEFER_ACCEPT it stays in this state until the
        // client's first byte, and a lost or forged one stays for a minute, so it does not hold for longer.
        State::SynReceived => return cool(rules.settle.min(HANDSHAKE), still),
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
    if spoke.sent_segments == 0 {
        return Standing::Owed(spoke.since_received);
    }
    let patience = known.patience(rules, &spoke);
    if spoke.since_received < spoke.since_sent || known.is_unanswered {
        return patience.map_or(Standing::Owed(spoke.since_received), |patience| cool(patience, spoke.since_received));
    }
    // A client that closed its half and is still not closed by the server waits for something, or the server has
    // forgotten it.
    if half_closed {
        return cool(rules.longest_request, waits);
    }
    let stillness = known.stillness(rules, &spoke);
    if known.is_to_go_on || known.is_owed_still(rules, &spoke) {
        return cool(rules.longest_request, waits);
    }
    if known.is_answered {
        return cool(stillness, waits);
    }
    match known.only_answers_acknowledged() {
        true => cool(stillness.max(longest_delay(&spoke)), waits),
        // If it is a request after all, the stop lets it end.
        false if rules.graceful_stop => cool(rules.idle_after, waits),
        false => cool(patience.unwrap_or(rules.longest_request), waits),
    }
}

#[cfg(test)]
pub(super) mod samples {
    use super::*;
    use crate::drain::rules::{LongLived, Rule};

    pub const fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    pub fn rules() -> Rules {
        Rules {
            settle: ms(5000),
            quiet_min: ms(1000),
            threshold: 0,
            idle_after: ms(1000),
            longest_request: ms(10_000),
            long_lived: LongLived::Wait,
            graceful_stop: false,
            habits: Rule::On,
            quiet: Rule::On,
            in_flight: Rule::On,
        }
    }

    /// A connection on which the client spoke `received` ago and the server `sent` ago, in milliseconds.
    pub fn spoken(received: u64, sent: u64) -> Connection {
        Connection {
            handle: None,
            state: State::Established,
            local: "127.0.0.1:8080".parse().expect("an address"),
            peer: "127.0.0.1:40000".parse().expect("an address"),
            receive_queue: 0,
            send_queue: 0,
            is_held: true,
            closed: None,
            spoke: Some(Spoke {
                received: 100,
                sent: 100,
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

    pub fn with(mut connection: Connection, change: impl FnOnce(&mut Connection)) -> Connection {
        change(&mut connection);
        connection
    }

    pub fn spoke(connection: &mut Connection) -> &mut Spoke {
        connection.spoke.as_mut().expect("it has times")
    }
}

#[cfg(test)]
mod tests {
    use super::{samples::*, *};

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
            ("same tick, its one message acknowledged at once", spoken(300, 300), Cooling(ms(700))),
            ("same tick, the same just now", spoken(10, 10), Cooling(ms(990))),
            ("same tick", with(spoken(300, 300), |c| spoke(c).bare_segments = 2), Cooling(ms(9700))),
            (
                "same tick, still for the longest request",
                with(spoken(10_000, 10_000), |c| spoke(c).bare_segments = 2),
                Idle,
            ),
            (
                "same tick, acknowledged later",
                with(spoken(300, 300), |c| (spoke(c).since_acknowledged, spoke(c).bare_segments) = (ms(260), 2)),
                Cooling(ms(700)),
            ),
            (
                "same tick, probed much later",
                with(spoken(4000, 4000), |c| (spoke(c).since_acknowledged, spoke(c).bare_segments) = (ms(10), 2)),
                Cooling(ms(6000)),
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
            ("half closed, server last", with(spoken(400, 300), |c| c.state = State::CloseWait), Cooling(ms(9700))),
            ("half closed and forgotten", with(spoken(11_000, 10_000), |c| c.state = State::CloseWait), Idle),
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
    fn short_messages_after_a_long_one_are_no_requests() {
        for (messages, is_chat) in [
            (&[180, 12, 12][..], true),
            (&[180, 12, 9, 20, 25, 26], true),
            (&[2, 2, 2], false),
            (&[180, 90], false),
            (&[180, 12, 90], false),
        ] {
            let (mut known, mut bytes, mut segments): (Option<Known>, u64, u32) = (None, 0, 0);
            for message in messages {
                (bytes, segments) = (bytes + message, segments + 1);
                let connection = with(spoken(10, 5), |c| {
                    *spoke(c) =
                        Spoke { received: bytes, received_segments: segments, sent_segments: segments, ..*spoke(c) };
                });
                let at = ms(1000 + 100 * u64::from(segments));
                known = Some(Known::look(known.as_ref(), at, connection.spoke.as_ref().expect("it has times")));
            }
            assert_eq!(known.expect("one look at least").is_chat, is_chat, "{messages:?}");
        }
    }

    #[test]
    fn who_is_told_to_go_on_is_owed_an_answer() {
        for (sent, expected) in [(25, Standing::Cooling(ms(9700))), (250, Standing::Cooling(ms(700)))] {
            let connection = with(spoken(320, 300), |c| spoke(c).sent = sent);
            let known = Known::look(None, ms(5000), connection.spoke.as_ref().expect("it has times"));
            assert_eq!(judge(&rules(), &connection, Duration::ZERO, &known), expected, "{sent}");
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
            (bare(State::SynReceived, 0, 0), 0, Cooling(ms(3000))),
            (bare(State::SynReceived, 0, 0), 3000, Idle),
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
                    received: 100 * u64::from(received_segments),
                    sent: 500 * u64::from(sent_segments),
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
            ("several in one tick", vec![answered, (1300, [8, 8, 4], [30, 30, 30])], Cooling(ms(9970))),
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
                Cooling(ms(9940)),
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
                Cooling(ms(9970)),
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

    /// Looks at one connection: when, segments (received, sent, bare), bytes (received, sent), times (received, sent).
    type Bytes = (u64, [u32; 3], [u64; 2], [u64; 2]);

    #[test]
    fn frames_of_http2_ask_for_nothing_and_answer_nothing() {
        use Standing::{Cooling, Idle, Owed};
        // It was answered 200 ms ago; what a client's message has on average is in the first number of bytes.
        let plain: Bytes = (1000, [10, 10, 9], [400, 5000], [210, 200]);
        let wide: Bytes = (1000, [10, 10, 9], [1000, 5000], [210, 200]);
        // Since then an answer, and so many bytes of the client in the same tick or 4 ms later.
        let then = |first: Bytes, bytes: u64, segments: u32, waits: u64, later: u64| {
            let (_, [asked, answered, bare], [received, sent], _) = first;
            let now = [waits, waits + later];
            let owed: Bytes = (1050, [asked + 1, answered, bare], [received + 80, sent], [25, 250]);
            vec![
                first,
                owed,
                (1300, [asked + 1 + segments, answered + 1, bare + 2], [received + 80 + bytes, sent + 500], now),
            ]
        };
        let slow = Owed(ms(1030));
        let longest = Cooling(ms(8970));
        let table: Vec<(&str, Vec<Bytes>, Standing, Standing)> = vec![
            ("a request after the answer", then(plain, 75, 1, 1030, 4), slow, slow),
            ("a window update", then(plain, 13, 1, 1030, 4), Idle, Idle),
            ("two", then(plain, 26, 1, 1030, 4), Idle, Idle),
            ("two, a moment ago", then(plain, 26, 1, 30, 4), Cooling(ms(970)), Cooling(ms(970))),
            ("two, in the same tick", then(plain, 26, 1, 1030, 0), Idle, Idle),
            ("two, but late", then(plain, 26, 1, 1030, 40), longest, longest),
            (
                "two where all messages are so short",
                then((1000, [10, 10, 9], [200, 5000], [210, 200]), 26, 1, 1030, 4),
                longest,
                Idle,
            ),
            ("one with TLS", then(wide, 35, 1, 1030, 4), longest, Idle),
            ("one with TLS 1.2, in the same tick", then(wide, 42, 1, 1030, 0), longest, Idle),
            ("nobody saw which bytes came last", then(wide, 113, 2, 1030, 4), longest, longest),
            ("nor here, but messages are short", then(plain, 73, 2, 1030, 4), longest, Idle),
            ("nor here, and it came late", then(plain, 73, 2, 1030, 40), slow, slow),
            (
                "a call, and the server says that it has got it",
                vec![plain, (1300, [11, 10, 9], [480, 5000], [10, 310]), (1330, [11, 11, 9], [480, 5030], [40, 38])],
                Cooling(ms(9962)),
                Cooling(ms(9962)),
            ),
            (
                "and then its answer",
                vec![plain, (1300, [11, 11, 9], [480, 5030], [10, 8]), (2300, [11, 12, 9], [480, 5600], [1010, 100])],
                Cooling(ms(900)),
                Cooling(ms(900)),
            ),
            (
                "a connection like gRPC's, which nobody has seen before",
                vec![(1000, [8, 8, 4], [560, 1800], [2010, 2004])],
                Cooling(ms(7996)),
                Idle,
            ),
            (
                "a ping on it is no news",
                vec![(1000, [8, 8, 4], [560, 1800], [210, 204]), (1200, [9, 9, 4], [577, 1817], [54, 50])],
                Cooling(ms(9950)),
                Cooling(ms(950)),
            ),
            ("one like HTTP/1.1's", vec![(1000, [8, 8, 4], [960, 1800], [2010, 2004])], Idle, Idle),
            (
                "one whose server was slow to say that it has got the call",
                vec![(1000, [8, 8, 4], [560, 1800], [2100, 2004])],
                Cooling(ms(7996)),
                Idle,
            ),
            ("one that was answered slowly", vec![(1000, [8, 8, 4], [560, 1800], [2300, 2004])], Idle, Idle),
        ];
        for (name, looks, expected, before_graceful) in table {
            for (graceful_stop, expected) in [(false, expected), (true, before_graceful)] {
                let rules = Rules { graceful_stop, ..rules() };
                let mut known: Option<Known> = None;
                let mut standing = Standing::Over;
                for &(at, [received_segments, sent_segments, bare_segments], [received, sent], times) in &looks {
                    let connection = with(spoken(times[0], times[1]), |c| {
                        *spoke(c) =
                            Spoke { received, sent, received_segments, sent_segments, bare_segments, ..*spoke(c) };
                    });
                    let now = Known::look(known.as_ref(), ms(at), connection.spoke.as_ref().expect("it has times"));
                    standing = judge(&rules, &connection, Duration::ZERO, &now);
                    known = Some(now);
                }
                assert_eq!(standing, expected, "{name}, graceful: {graceful_stop}");
            }
        }
    }
}
