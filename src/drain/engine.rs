//! Decides when the application is drained. Pure: observations come in with their times, a decision comes out. It
//! holds no clock and reads nothing, so that every rule can be tested by table.
//!
//! The drain is done when three things hold together: it has lasted at least the settle time; the last new
//! connection is a quiet time ago; and at most `threshold` connections are in flight.

use std::{collections::HashMap, time::Duration};

use super::{
    judge::{Known, Standing, judge},
    rules::{Moment, Rule, Rules},
};
use crate::{
    duration::show,
    net::{Connection, Spoke, State},
    short,
};

/// A decision rests on a look at the sockets that is at most this old: two polls, half of the 100 ms that the
/// whole drain may add.
pub const FRESH: Duration = Duration::from_millis(50);

/// So many idle connections are remembered, some 100 bytes each. Where there are more, those that move are.
const MOST_REMEMBERED: usize = 2048;

/// What is known about the arrivals before the drain. Nothing yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Knowledge;

/// How long no new connection must have come. With no knowledge of earlier arrivals the settle time, which has
/// passed before this matters, is what proves that routing has moved away; the minimum catches stragglers.
pub fn quiet_time(rules: &Rules, _knowledge: &Knowledge) -> Duration {
    rules.quiet_min
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
    use crate::drain::judge::samples::*;

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
