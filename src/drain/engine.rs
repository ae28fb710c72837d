//! Decides when the application is drained. Pure: observations come in with their times, a decision comes out. It
//! holds no clock and reads nothing, so that every rule can be tested by table.
//!
//! The drain is done when two things hold together: routing has moved away ([`super::arrivals`]), and at most `threshold`
//! connections are in flight.

use std::{collections::HashMap, time::Duration};

use super::{
    arrivals::{Arrivals, Past},
    holder::{Holder, Spared, count, describe, hold},
    judge::{Known, Standing, judge},
    rules::{Moment, Rule, Rules},
};
use crate::{
    duration::show,
    net::{Connection, Spoke, State},
};

/// A decision rests on a look at the sockets that is at most this old: two polls, half of the 100 ms that the
/// whole drain may add.
pub const FRESH: Duration = Duration::from_millis(50);

/// So many idle connections are remembered, some 100 bytes each. Where there are more, those that move are.
const MOST_REMEMBERED: usize = 2048;

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
    arrivals: Arrivals,
    /// The last connection that was counted in the namespace and may not be the application's.
    last_suspect: Option<Moment>,
    holders: Vec<Holder>,
    idle: usize,
    /// Long-lived connections that hold nothing, and the age of the oldest.
    left: (usize, Duration),
    /// Connections whose clients go on asking and are left to a graceful stop.
    going_on: usize,
    /// Connections on which the client had asked again after an answer, and a moment before the last survey.
    asking: usize,
    surveyed: Option<Moment>,
    /// When routing had moved away and all connections were looked at.
    moved_away: Option<Moment>,
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
    pub fn new(rules: Rules, past: Past) -> Self {
        Self {
            arrivals: Arrivals::new(&rules, past),
            rules,
            last_suspect: None,
            holders: Vec::new(),
            idle: 0,
            left: (0, Duration::ZERO),
            going_on: 0,
            asking: 0,
            surveyed: None,
            moved_away: None,
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

    /// When all connections were last looked at.
    pub fn surveyed(&self) -> Option<Moment> {
        self.surveyed
    }

    /// What is known of new connections, for those who learn more of it.
    pub fn arrivals_mut(&mut self) -> &mut Arrivals {
        &mut self.arrivals
    }

    /// The application got so many new connections, at the latest at this moment.
    pub fn note_new(&mut self, at: Moment, number: u64) {
        self.arrivals.note(at, number);
        self.moved_away = None;
    }

    /// Somebody in the network namespace got a new connection, at the latest at this moment.
    pub fn suspect(&mut self, at: Moment) {
        self.last_suspect = self.last_suspect.max(Some(at));
    }

    pub fn has_suspects(&self) -> bool {
        self.last_suspect.is_some()
    }

    /// None of the suspects was the application's.
    pub fn acquit(&mut self) {
        self.last_suspect = None;
    }

    /// At least one of the suspects was the application's, or may have been: the last, to be sure, unless it is known
    /// that none of those came after `latest`.
    pub fn convict(&mut self, latest: Moment) {
        if let Some(at) = self.last_suspect.take() {
            self.arrivals.note_some(at.min(latest));
            self.moved_away = None;
        }
    }

    /// When routing counts as moved away if nobody else comes and all suspects are told apart.
    pub fn routed_until(&self) -> Moment {
        match self.rules.quiet {
            Rule::On => self.arrivals.quiet_from(self.arrivals.last()),
            Rule::Off => Moment::ZERO,
        }
    }

    /// All of the application's connections follow, then [`Engine::end_survey`].
    pub fn begin_survey(&mut self) {
        self.holders.clear();
        (self.left, self.going_on, self.asking) = ((0, Duration::ZERO), 0, 0);
        self.idle = 0;
        self.still_next.clear();
        self.known_next.clear();
        self.has_released = false;
        self.relies_on_habits = false;
    }

    pub fn observe(&mut self, at: Moment, connection: Connection) {
        let still = self.still(at, &connection);
        let key = connection.key();
        let before = self.known.get(&key).copied();
        let has_room = self.known_next.len() < MOST_REMEMBERED;
        let (mut standing, mut known) = self.look(before.as_ref().filter(|_| has_room), at, &connection, still);
        if !has_room && before.is_some() && !standing.is_over() {
            (standing, known) = self.look(before.as_ref(), at, &connection, still);
        }
        if known.is_worth_keeping(&connection) && (has_room || !standing.is_over()) {
            self.known_next.insert(key, known);
        }
        // When routing has moved away, the quiet time before that belongs to clients with connections of their own.
        let has_just_asked = connection.spoke.is_some_and(|spoke| spoke.since_received < self.rules.quiet_min / 2);
        self.asking += usize::from(known.asks_on && has_just_asked);
        if let Some(holder) = self.place(at, connection, &known, standing) {
            self.holders.push(holder);
        }
    }

    fn look(
        &mut self,
        before: Option<&Known>,
        at: Moment,
        connection: &Connection,
        still: Duration,
    ) -> (Standing, Known) {
        let Some(spoke) = &connection.spoke else {
            let mut known = Known::without_times(before, at);
            let standing = judge(&self.rules, connection, still, &known);
            known.note_flight(at, matches!(standing, Standing::Owed(_)));
            return (standing, known);
        };
        let mut known = Known::look(before, at, spoke);
        let standing = judge(&self.rules, connection, still, &known);
        let standing = self.heed_habits(at, standing, &known, spoke);
        known.note_flight(at, !standing.is_over());
        (standing, known)
    }

    /// Counts what does not hold.
    fn place(&mut self, at: Moment, connection: Connection, known: &Known, standing: Standing) -> Option<Holder> {
        match standing {
            Standing::Over => return None,
            Standing::Idle => {
                self.idle += 1;
                return None;
            }
            Standing::Owed(_) | Standing::Cooling(_) => {}
        }
        match hold(&self.rules, at, self.moved_away, connection, known, standing) {
            Ok(holder) => return Some(holder),
            Err(Spared::LongLived(age)) => self.left = (self.left.0 + 1, self.left.1.max(age)),
            Err(Spared::GoesOn) => self.going_on += 1,
        }
        None
    }

    pub fn end_survey(&mut self, at: Moment) {
        self.surveyed = Some(at);
        self.still_since = std::mem::take(&mut self.still_next);
        self.known = std::mem::take(&mut self.known_next);
        // As with every decision, a look that is no older than that serves.
        self.note_routing(at, FRESH);
    }

    /// If routing has moved away by then, what is in flight now is what a graceful stop's drain waits for.
    fn note_routing(&mut self, at: Moment, ahead: Duration) {
        if self.moved_away.is_some() || self.await_routing(at.saturating_add(ahead)).is_some() {
            return;
        }
        self.moved_away = Some(at);
        self.known.values_mut().for_each(|known| known.begin_round(false));
        for holder in &self.holders {
            if let Some(known) = self.known.get_mut(&holder.connection.key()) {
                known.begin_round(true);
            }
        }
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
        self.note_routing(at, Duration::ZERO);
        let Some(holder) = self.holders.get(index) else { return false };
        let key = holder.connection.key();
        let since = self.still_since.get(&key).copied().unwrap_or(at);
        if let Some(connection) = found {
            let before = self.known.get(&key).copied();
            let (standing, known) = self.look(before.as_ref(), at, &connection, at.saturating_sub(since));
            self.known.insert(key, known);
            if let Some(holder) = self.place(at, connection, &known, standing) {
                self.holders[index] = holder;
                return true;
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
        if at.saturating_add(2 * FRESH) < self.routed_until() {
            let still = spoke.since_received.min(spoke.since_sent);
            return Standing::Cooling(self.rules.idle_after.saturating_sub(still));
        }
        self.relies_on_habits = true;
        standing
    }

    pub fn decide(&self, at: Moment) -> Decision {
        if let Some((need, until)) = self.await_routing(at) {
            return Decision::Wait { need, until: Some(until) };
        }
        let wait = |need, until| Decision::Wait { need, until };
        if self.rules.in_flight == Rule::Off {
            return Decision::Done;
        }
        if self.rules.graceful_stop && self.moved_away.is_none() {
            return wait(Need::Survey, Some(at));
        }
        // Whoever goes on asking would only begin more while this waits; the graceful stop waits for what is in flight as well.
        if self.left_to_stop() > 0 {
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

    /// Clients that go on asking on connections of their own, before a stop that ends them politely.
    fn left_to_stop(&self) -> usize {
        if self.rules.graceful_stop { self.going_on.max(self.asking) } else { 0 }
    }

    /// What must be awaited before routing counts as moved away, and until when at least.
    fn await_routing(&self, at: Moment) -> Option<(Need, Moment)> {
        let end = self.routed_until();
        if at < end {
            return Some((Need::Time, end));
        }
        let last = self.last_suspect.filter(|_| self.rules.quiet == Rule::On)?;
        Some((Need::Attribution, self.arrivals.quiet_from(Some(last)))).filter(|&(_, end)| at < end)
    }

    /// When time alone may bring the holders down to the threshold.
    fn first_release(&self) -> Option<Moment> {
        let index = self.holders.len().checked_sub(self.rules.threshold + 1)?;
        // None, which no time ends, comes last.
        let mut untils: Vec<Moment> = self.holders.iter().map(|h| h.until().unwrap_or(Moment::MAX)).collect();
        let (_, &mut until, _) = untils.select_nth_unstable(index);
        Some(until).filter(|&until| until < Moment::MAX)
    }

    /// What the drain waits for, for a reader who sees it only when time is up.
    pub fn describe_wait(&self, at: Moment) -> String {
        let mut parts = Vec::new();
        if self.surveyed.is_some() && self.holders.len() > self.rules.threshold {
            parts.push(describe(&self.holders, &self.rules, at));
        }
        parts.push(self.arrivals.describe_wait(at, self.last()));
        parts.join("; ")
    }

    fn last(&self) -> Option<Moment> {
        self.arrivals.last().max(self.last_suspect)
    }

    /// What ended the drain, with its figures.
    pub fn describe_done(&self, at: Moment) -> String {
        let routing = match self.rules.quiet {
            Rule::On => self.arrivals.describe_end(at, self.last()),
            Rule::Off => "the quiet rule is off".into(),
        };
        let mut text = format!(
            "drained after {}: {routing}; {} in flight, {} left",
            show(at),
            self.holders.len(),
            count(self.idle, "idle keep-alive connection"),
        );
        if self.left.0 > 0 {
            let (number, age) = self.left;
            text.push_str(&format!(
                ", {} left to the stop (in flight for {})",
                count(number, "long-lived connection"),
                show(age)
            ));
        }
        if self.left_to_stop() > 0 {
            let clients = count(self.left_to_stop(), "client");
            text.push_str(&format!(", {clients} with keep-alive connections left to the graceful stop"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::{arrivals::Count, dice::Dice, judge::samples::*, rules::LongLived};

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
    fn routing_and_requests_both_hold_it() {
        let mut engine = Engine::new(rules(), Past::default());
        assert_eq!(engine.decide(ms(0)), wait(Need::Time, Some(5000)));
        assert_eq!(engine.decide(ms(4999)), wait(Need::Time, Some(5000)));
        engine.note_new(ms(4500), 1);
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
            "drained after 7.2s: settle time 5s passed, last new connection 2.7s ago: nothing was known of earlier arrivals; \
             0 in flight, 1 idle keep-alive connection left"
        );
        assert_eq!(engine.decide(ms(7201) + FRESH + ms(1)), wait(Need::Survey, Some(7252)));
    }

    #[test]
    fn what_is_known_of_arrivals_shortens_it() {
        let past = Past { counts: vec![Count { number: 6000, over: ms(60_000) }], ..Past::default() };
        let mut engine = Engine::new(rules(), past);
        engine.note_new(ms(10), 1);
        assert_eq!(engine.decide(ms(100)), wait(Need::Time, Some(1010)));
        assert_eq!(
            engine.describe_wait(ms(100)),
            "last new connection 90ms ago, routing has moved away if none comes for 910ms more: 100 a second were usual \
             (6000 in 1m before, 1 since)"
        );
        engine.note_new(ms(990), 1);
        assert_eq!(engine.decide(ms(1010)), wait(Need::Time, Some(990 + 2 * 980)), "there was a gap of 980 ms");
        survey(&mut engine, 2950, &[]);
        assert_eq!(engine.decide(ms(2949)), wait(Need::Time, Some(2950)));
        assert_eq!(engine.decide(ms(2950)), Decision::Done);
        assert_eq!(
            engine.describe_done(ms(2950)),
            "drained after 3s: no new connection for 2s where the longest gap was 980ms (2 since the start), \
             quiet time 2s; 0 in flight, 0 idle keep-alive connections left"
        );
    }

    #[test]
    fn suspects_hold_until_they_are_told_apart_or_old() {
        let mut engine = Engine::new(rules(), Past::default());
        survey(&mut engine, 5000, &[]);
        engine.suspect(ms(4800));
        assert_eq!(engine.decide(ms(5000)), wait(Need::Attribution, Some(5800)));
        engine.acquit();
        assert_eq!(engine.decide(ms(5000)), Decision::Done);
        engine.suspect(ms(4800));
        engine.convict(Moment::MAX);
        assert_eq!(engine.decide(ms(5000)), wait(Need::Time, Some(5800)));
        engine.suspect(ms(4900));
        survey(&mut engine, 5900, &[]);
        assert_eq!(engine.decide(ms(5899)), wait(Need::Attribution, Some(5900)));
        assert_eq!(engine.decide(ms(5900)), Decision::Done);
    }

    #[test]
    fn as_many_as_the_threshold_may_be_in_flight() {
        let mut engine = Engine::new(Rules { threshold: 2, ..rules() }, Past::default());
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
        let mut engine = Engine::new(Rules { quiet: Rule::Off, ..rules() }, Past::default());
        engine.note_new(ms(5000), 1);
        engine.suspect(ms(5000));
        survey(&mut engine, 5000, &[]);
        assert_eq!(engine.decide(ms(5000)), Decision::Done);
        let mut engine = Engine::new(Rules { in_flight: Rule::Off, ..rules() }, Past::default());
        survey(&mut engine, 5000, &[spoken(1, 2)]);
        assert_eq!(engine.decide(ms(5000)), Decision::Done);
    }

    #[test]
    fn stillness_is_remembered_between_surveys() {
        let mut engine = Engine::new(rules(), Past::default());
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

    /// A connection whose client has sent so many segments, and whose server so many; when they spoke last, and of
    /// how many bytes the server's last answer was.
    fn counted(asked: u32, answered: u32, received: u64, sent: u64, acknowledged: u64) -> Connection {
        with(spoken(received, sent), |c| {
            let bytes = 100 * u64::from(asked);
            *spoke(c) = Spoke {
                received: bytes,
                received_segments: asked,
                sent_segments: answered,
                sent: acknowledged,
                ..*spoke(c)
            };
        })
    }

    #[test]
    fn whoever_goes_on_asking_is_left_to_a_graceful_stop_at_once() {
        let slow = |since| with(counted(1, 1, since, since + 20, 100), |c| c.peer.set_port(9));
        // Of the other connection: when its client spoke last, at the look at which routing has moved away.
        for (received, graceful_stop, is_done) in [(5, true, true), (5, false, false), (600, true, false)] {
            let mut engine = Engine::new(Rules { graceful_stop, ..rules() }, Past::default());
            survey(&mut engine, 4300, &[slow(300), counted(1, 1, 5, 4, 300)]);
            survey(&mut engine, 4400, &[slow(400), counted(2, 2, 5, 4, 600)]);
            survey(&mut engine, 5000, &[slow(1000), counted(3, 3, received, received - 1, 900)]);
            assert_eq!(engine.decide(ms(5000)) == Decision::Done, is_done, "{received} {graceful_stop}");
            let text = engine.describe_done(ms(5000));
            assert_eq!(
                text.ends_with(", 1 client with keep-alive connections left to the graceful stop"),
                is_done,
                "{text}"
            );
        }
    }

    #[test]
    fn a_graceful_stop_waits_for_one_answer_each() {
        let owed = |asked| counted(asked, 1, 10, 20, 100);
        // What is seen at 5030, 5060 and 5090 ms of a connection that was owed an answer at 5000; whether it holds.
        type Seen = (u32, u32, u64, u64, u64);
        let table: Vec<(&str, [(Seen, bool); 3])> = vec![
            (
                "asked, answered, asked",
                [((1, 2, 40, 5, 300), true), ((2, 2, 5, 35, 300), false), ((2, 2, 35, 65, 300), false)],
            ),
            (
                "faster than any look",
                [((9, 9, 1, 2, 900), true), ((15, 15, 1, 2, 1500), false), ((20, 20, 1, 2, 2000), false)],
            ),
            ("a slow answer", [((1, 1, 40, 50, 100), true), ((1, 1, 70, 80, 100), true), ((1, 2, 100, 5, 300), true)]),
            (
                "an answer in pieces",
                [((1, 2, 40, 5, 300), true), ((1, 3, 70, 5, 500), true), ((1, 4, 100, 5, 700), true)],
            ),
            ("an upload", [((5, 1, 1, 50, 100), true), ((9, 1, 1, 80, 100), true), ((14, 1, 1, 110, 100), true)]),
            (
                "an upload that was told to continue",
                [((1, 2, 40, 5, 125), true), ((5, 2, 1, 35, 125), true), ((9, 2, 1, 65, 125), true)],
            ),
            ("the same with TLS", [((1, 2, 40, 5, 147), true), ((5, 2, 1, 35, 147), true), ((9, 2, 1, 65, 147), true)]),
        ];
        for (name, looks) in table {
            for graceful_stop in [true, false] {
                let mut engine = Engine::new(Rules { graceful_stop, ..rules() }, Past::default());
                survey(&mut engine, 4000, &[owed(1)]);
                if graceful_stop {
                    assert_eq!(engine.decide(ms(5000)), wait(Need::Survey, Some(5000)), "{name}");
                }
                survey(&mut engine, 5000, &[owed(1)]);
                assert_eq!(engine.decide(ms(5000)), wait(Need::Recheck, None), "{name}");
                for (index, ((asked, answered, received, sent, acknowledged), holds)) in looks.into_iter().enumerate() {
                    let at = ms(5030 + 30 * index as u64);
                    let seen = counted(asked, answered, received, sent, acknowledged);
                    if engine.holders().is_empty() {
                        engine.begin_survey();
                        engine.observe(at, seen);
                        engine.end_survey(at);
                    } else {
                        engine.recheck(at, 0, Some(seen));
                    }
                    assert_eq!(!engine.holders().is_empty(), holds || !graceful_stop, "{name}, look {index}");
                }
                let (is_turn, text) = (!looks[2].1, engine.describe_wait(ms(5100)));
                let advice = "1 client goes on asking on a connection of its own (keep-alive) on port 8080; if the \
                              application finishes what is in flight at its stop signal, say graceful-stop = true in \
                              [app]; no new connection";
                assert_eq!(text == advice, is_turn && !graceful_stop, "{name}: {text}");
                let text = engine.describe_done(ms(5100));
                let end = ", 1 client with keep-alive connections left to the graceful stop";
                assert_eq!(text.ends_with(end), is_turn && graceful_stop, "{name}: {text}");
            }
        }
    }

    #[test]
    fn what_comes_after_routing_has_moved_away_does_not_hold_a_graceful_stop() {
        let mut engine = Engine::new(Rules { graceful_stop: true, ..rules() }, Past::default());
        survey(&mut engine, 5000, &[spoken(9000, 8000)]);
        assert_eq!(engine.decide(ms(5000)), Decision::Done);
        survey(&mut engine, 5100, &[counted(2, 1, 5, 8100, 100)]);
        assert_eq!(engine.decide(ms(5100)), Decision::Done, "it was idle when routing had moved away");
        engine.note_new(ms(5110), 1);
        assert_eq!(engine.decide(ms(6110)), wait(Need::Survey, Some(6110)), "routing had not moved away");
        survey(&mut engine, 6110, &[counted(2, 1, 1015, 9110, 100)]);
        assert_eq!(engine.decide(ms(6110)), wait(Need::Recheck, None), "so it counts anew");
        assert!(!engine.recheck(ms(7200), 0, Some(counted(2, 2, 2105, 1010, 300))), "answered, and idle");
        survey(&mut engine, 7201, &[counted(3, 2, 1, 1011, 300)]);
        assert_eq!(engine.decide(ms(7201)), Decision::Done);
    }

    #[test]
    fn long_lived_connections_hold_as_the_user_says() {
        use LongLived::{Ignore, UpTo, Wait};
        // Events every 100 ms on one that was asked for long ago, and on one that was asked for at 1 s.
        let events = |at: u64, asked: Option<u64>| {
            counted(
                1,
                10 + u32::try_from(at / 100).expect("small"),
                asked.map_or(60_000 + at, |asked| at - asked),
                50,
                at,
            )
        };
        for (policy, old_until, new_until) in [
            (Wait, None, None),
            (Ignore, Some(5000), Some(11_000)),
            (UpTo(ms(8000)), Some(8000), Some(11_000)),
            (UpTo(ms(15_000)), Some(15_000), Some(15_000)),
        ] {
            for (asked, until) in [(None, old_until), (Some(1000), new_until)] {
                let mut engine = Engine::new(Rules { long_lived: policy, ..rules() }, Past::default());
                for at in (5000..20_000).step_by(100) {
                    if at == 5000 || engine.holders().is_empty() {
                        survey(&mut engine, at, &[events(at, asked)]);
                    } else {
                        engine.recheck(ms(at), 0, Some(events(at, asked)));
                    }
                    let is_over = until.is_some_and(|until| at >= until);
                    assert_eq!(engine.holders().is_empty(), is_over, "{policy:?} {asked:?} {at}");
                }
                let text = engine.describe_done(ms(20_000));
                let left = ", 1 long-lived connection left to the stop (in flight for ";
                assert_eq!(text.contains(left), until.is_some(), "{text}");
                let text = engine.describe_wait(ms(20_000));
                let waits = "1 long-lived connection in flight for ";
                assert_eq!(text.starts_with(waits), until.is_none(), "{text}");
            }
        }
        // A slow request is none before its time, and its end is awaited as everybody's.
        let mut engine = Engine::new(Rules { long_lived: Ignore, ..rules() }, Past::default());
        survey(&mut engine, 5000, &[spoken(2000, 2100)]);
        assert_eq!(engine.decide(ms(5000)), wait(Need::Recheck, Some(13_000)));
        // A client that uploads for long, and one that takes turns for long, which is none.
        let mut engine = Engine::new(Rules { long_lived: Ignore, ..rules() }, Past::default());
        let both = |at: u64| {
            let number = u32::try_from(at / 100).expect("small");
            [counted(number, 1, 10, 5000, 100), with(counted(number, number, 10, 20, at), |c| c.peer.set_port(9))]
        };
        for at in (4000..16_000).step_by(100) {
            survey(&mut engine, at, &both(at));
            assert_eq!(engine.holders().len(), if at < 14_000 { 2 } else { 1 }, "{at}");
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
            let mut engine = Engine::new(rules(), Past::default());
            let mut could_since = None;
            let mut now = 0;
            loop {
                for (opened, _) in &lives {
                    if *opened <= now && *opened + STEP > now {
                        engine.suspect(ms(*opened));
                        engine.convict(Moment::MAX);
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
