//! Tells of one connection whether somebody waits on it, from what the kernel knows: queues, times and counts of
//! segments, in this look and in those before. Pure. What follows for the drain is decided in [`super::engine`].
//!
//! What the kernel cannot show is a request's end inside a connection. Where several requests are under way on one
//! connection (HTTP/2, pipelining), the last speaker tells only about the last of them.

use std::time::Duration;

use super::rules::{Moment, Rules};
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

/// Between two turns the whole of an answer was watched, and its pauses are known.
const TURNS_SEEN: u8 = 2;

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
    pub fn is_quick(&self, rules: &Rules, spoke: &Spoke) -> bool {
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
}
