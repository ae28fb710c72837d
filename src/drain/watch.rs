//! Observes the sockets for the engine until it says that the drain is done. It decides only what to look at and
//! when, so that the look stays cheap:
//!
//! * every 25 or 50 ms the counters of the namespace (about 20 µs): were there new connections, did any byte move;
//! * when bytes have moved, the connections known to hold the drain, one by one (some µs each), and no more of them
//!   than it takes to know that it is not over;
//! * all connections of the watched ports only when everything else holds, and never for more than 1.2 % of the
//!   time that has passed (5 % where they have to be read from `/proc`, but for the look that may end the drain).
//!
//! The counters count the whole network namespace, which a pod's containers share. Whose a new connection was
//! matters only when it alone holds the drain: then the sockets of the other listening ports and of the ignored
//! peers are compared with those seen before. Where those account for all that was counted, nothing new came to
//! the watched ports. What cannot be accounted for counts as new: a connection to another port that its peer
//! closed between two looks costs one quiet time. (The server's side of a connection that the server closed stays
//! visible as TIME_WAIT, and so does the client's side of one within the namespace.)

use std::{collections::HashSet, fmt::Write, io, net::IpAddr, time::Duration};

use tokio::{
    task::yield_now,
    time::{Instant, sleep_until},
};

use super::{
    arrivals::{Closings, Past},
    engine::{Decision, Engine, Need},
    rules::{Moment, Rules},
};
use crate::{
    net::{
        Connection, Filter, State,
        counters::{Counters, Reading},
        is_local, is_loopback, pair_key,
        peers::Peers,
        proc_tcp,
        sock_diag::Diag,
    },
    short,
    step::{Context, End, OwnTraffic},
};

/// So many connections in TIME_WAIT are read at most, for 20 ms or so: 0.4 % of a drain of 5 s.
const MOST_CLOSED: u32 = 20_000;
/// Between two looks at the counters: four of them fit in the 100 ms that the drain may be late. While its end is farther
/// away than that, half as many do: with its wake-up a look costs up to 0.2 ms.
const POLL: Duration = Duration::from_millis(25);
/// Dumps by sock_diag may take this part of the time that has passed: 1.2 %, which leaves 0.8 % for the rest.
const DIAG_SHARE: u32 = 83;
/// Dumps from `/proc` may take 5 %: they are slower, and nothing but a dump can tell that a connection is done.
const PROC_SHARE: u32 = 20;
/// What dumps may take before any time has passed: some of them on an ordinary server, each of which walks the
/// machine's whole table of connections (2–10 ms). Over a drain of 5 s it is 0.5 %.
const DUMP_CREDIT: Duration = Duration::from_millis(25);
/// About what a dump takes for each socket, for beginning it so much earlier that it ends when the time has come…
const DUMP_PER_SOCKET: Duration = Duration::from_micros(2);
/// …but not earlier than this: what it shows must still be fresh then ([`super::engine::FRESH`]).
const LONGEST_LEAD: Duration = Duration::from_millis(40);
/// A quicker dump is begun when its time has come.
const SHORTEST_LEAD: Duration = Duration::from_millis(5);
/// So many dumps are granted whatever they cost: one to compare with, one to decide on.
const DUMPS_AT_ONCE: usize = 2;
/// After a look that the time granted, so many times its length must pass before the next such one.
const REST: u32 = 10;
/// Until anything can be decided, all connections are looked at so often, to know how they talk…
const LEARN_EVERY: Duration = Duration::from_millis(250);
/// …while the time that has passed grants so many more looks: what follows needs them at once.
const DUMPS_KEPT: u32 = 4;
/// What is waited for is put into words so often, for readers of `/status` and of a step that has timed out.
const TELL_EVERY: Duration = Duration::from_millis(250);
/// So often is it tried to count while nobody comes to the agent itself.
const EXACT_COUNTS: usize = 4;
/// Between the kernel's count and the moment when the agent could accept lie microseconds, and less than this where the
/// machine is busy.
const ACCEPTED_WITHIN: Duration = Duration::from_millis(10);
/// Whose connections those of the last moment were may stay unknown: no longer than a few looks at the counters.
const LATELY: Duration = Duration::from_millis(150);
const COUNTS_KEPT: usize = 6;
/// Within a machine the addresses of a connection may be used again after this time, and then its TIME_WAIT is gone
/// (`tcp_twsk_unique`, sysctl `tcp_tw_reuse`).
const REUSED_AFTER: Duration = Duration::from_secs(1);
/// Bytes that move without being counted are not known; should there be any, they are seen after this time.
const LONGEST_BLINDNESS: Duration = Duration::from_secs(1);
/// So many holders are always asked, so that a reader sees exact figures when they are few.
const ALWAYS_ASKED: usize = 8;
/// More are asked, to know their habits in time, while that has taken no more than this part of the time.
const ASKING_SHARE: u32 = 200;
/// So many holders are asked (a quarter of a millisecond) before others may run.
const ASKED_AT_ONCE: usize = 64;

/// Where the sockets are read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// sock_diag, or `/proc/net/tcp` where it is refused.
    #[default]
    Auto,
    SockDiag,
    Proc,
}

/// A drain by connections, as the user meant it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub rules: Rules,
    /// Empty: all ports listening when the drain starts, but for loopback and the agent's own; where some of them are the
    /// preset's, only those.
    pub ports: Vec<u16>,
    pub ignored: Peers,
    pub source: Source,
}

/// Watches until the application is drained. Dropping it ends it at once; it holds two descriptors and no process.
pub async fn drain(settings: &Settings, context: &Context) -> End {
    match Watch::start(settings, context) {
        Ok(mut watch) => match watch.run(context).await {
            Ok(found) => End::Done(found),
            Err(error) => End::Failed(format!("{}: {error}", watch.eyes.name())),
        },
        Err(reason) => End::FailedForGood(reason),
    }
}

/// How sockets are seen.
enum Eyes {
    Diag(Diag),
    /// With the time spent so far.
    Proc(Duration),
}

impl Eyes {
    /// Opens them and gives all listeners.
    fn open(source: Source) -> Result<(Self, Vec<Connection>), String> {
        let mut listeners = Vec::new();
        if source != Source::Proc {
            let found = Diag::open().and_then(|mut diag| {
                diag.dump_at_once(&Filter::listeners(), &mut |listener| listeners.push(listener)).map(|()| diag)
            });
            match found {
                Ok(diag) => return Ok((Self::Diag(diag), listeners)),
                Err(error) if source == Source::SockDiag => {
                    return Err(format!("sock_diag cannot be used here: {error}; leave `source` away to use /proc"));
                }
                Err(_) => listeners.clear(),
            }
        }
        proc_tcp::read_listeners(&mut |listener| listeners.push(listener))
            .map_err(|error| format!("neither sock_diag nor /proc/net/tcp can be used here: {error}"))?;
        Ok((Self::Proc(Duration::ZERO), listeners))
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Diag(_) => "sock_diag",
            Self::Proc(_) => "/proc/net/tcp",
        }
    }

    fn spent(&self) -> Duration {
        match self {
            Self::Diag(diag) => diag.spent(),
            Self::Proc(spent) => *spent,
        }
    }

    async fn dump(&mut self, filter: &Filter, row: &mut (dyn FnMut(Connection) + Send)) -> io::Result<()> {
        match self {
            Self::Diag(diag) => diag.dump(filter, row).await,
            Self::Proc(spent) => {
                *spent += proc_tcp::read(filter, row).await?;
                Ok(())
            }
        }
    }
}

/// How far a dump looks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    /// The application's connections.
    Ours,
    /// Who else got connections, to compare with the next wide one.
    Others,
    /// Both.
    All,
}

/// What was seen in a wide dump, to compare with the next one.
#[derive(Default)]
struct Census {
    /// Connections that are not the application's: other ports', ignored peers'.
    foreign: Seen,
    /// The application's, where new ones are found by comparing only.
    ours: Seen,
    /// New connections counted in the namespace by its end.
    counted: i64,
    at: Moment,
}

/// Connections in a census. Those that were closed long before it are left out: by the time at which the others are
/// closed they show themselves as new, also where they have the addresses of one that was there before.
#[derive(Default)]
struct Seen {
    there: HashSet<u64>,
    /// New since the census before; and when those of them were closed that are.
    new: HashSet<u64>,
    closed: Vec<Moment>,
    /// No later one came after this.
    latest: Moment,
    /// All that were seen, also those that were closed long ago; some of them twice.
    all: u64,
}

/// The kernel tells when a connection was closed by its tick, and `/proc` by hundredths of a second: a little more.
const CLOCK_SLACK: Duration = Duration::from_millis(30);

impl Seen {
    /// One more, seen at this moment of a census that began then.
    fn add(&mut self, before: Option<(&Seen, Moment)>, began: Moment, at: Moment, key: u64, closed: Option<Duration>) {
        self.all += 1;
        let closed = closed.map(|ago| at.saturating_sub(ago));
        if closed.is_none_or(|closed| closed.saturating_add(2 * CLOCK_SLACK) > began) {
            self.there.insert(key);
        }
        if let Some((before, then)) = before
            && !before.there.contains(&key)
            && closed.is_none_or(|closed| closed.saturating_add(CLOCK_SLACK) > then)
            && self.new.insert(key)
        {
            self.closed.extend(closed);
            self.latest = self.latest.max(closed.map_or(at, |closed| at.min(closed.saturating_add(CLOCK_SLACK))));
        }
    }
}

struct Watch {
    start: Instant,
    engine: Engine,
    eyes: Eyes,
    ports: Vec<u16>,
    /// Listening ports that are neither watched nor the agent's.
    others: Vec<u16>,
    /// None of those can be reached from outside.
    others_are_loopback: bool,
    ignored: Peers,
    /// From when on routing has had its time: the node itself, which goes on with its probes.
    node: Option<Peers>,
    own: OwnTraffic,
    counters: Option<Counters>,
    /// New connections counted, less the agent's own, as far as that is certain.
    counted: i64,
    /// A count that is higher, which a later look confirms or explains as the agent's own.
    doubt: Option<(i64, Moment)>,
    /// The last moments at which the count had risen, and to what.
    counts: Vec<(Moment, i64)>,
    /// The last look has shown that nobody new was the application's, until just now.
    is_acquitted: bool,
    census: Option<Census>,
    /// Where the first look shows everybody: how long before the start the application's connections were closed.
    closed_before: Vec<Duration>,
    /// Segments counted at the last look at the holders, and its time.
    looked: (Option<u64>, Moment),
    dumps: usize,
    /// Of the last one, or what the first is expected to cost.
    dump_cost: Duration,
    dump_spent: Duration,
    asking_spent: Duration,
    /// The first look, from when on it matters who talks, and how, has been taken.
    is_acquainted: bool,
    has_listener: bool,
    /// How much before its time the deciding dump begins.
    lead: Duration,
}

impl Watch {
    fn start(settings: &Settings, context: &Context) -> Result<Self, String> {
        let start = Instant::now();
        let (eyes, listeners) = Eyes::open(settings.source)?;
        let own = context.own_traffic.clone();
        let ports = choose_ports(settings, context, &listeners);
        let all = || listeners.iter().map(|listener| listener.local.port());
        let others = short::set_of(all().filter(|port| !ports.contains(port) && !own.ports.contains(port)));
        let others_are_loopback = listeners
            .iter()
            .all(|listener| is_loopback(listener.local.ip()) || !others.contains(&listener.local.port()));
        let counters = Counters::open().ok();
        let dump_cost = DUMP_PER_SOCKET.saturating_mul(count_sockets());
        let mut watch = Self {
            start,
            engine: Engine::new(settings.rules.clone(), Past::default()),
            eyes,
            others,
            others_are_loopback,
            node: None,
            ignored: settings.ignored.resolve(),
            counters,
            counted: 0,
            doubt: None,
            counts: Vec::new(),
            is_acquitted: false,
            census: None,
            closed_before: Vec::new(),
            looked: (None, Moment::ZERO),
            dumps: 0,
            dump_cost,
            dump_spent: Duration::ZERO,
            asking_spent: Duration::ZERO,
            is_acquainted: false,
            lead: Some(dump_cost.min(LONGEST_LEAD)).filter(|&lead| lead >= SHORTEST_LEAD).unwrap_or_default(),
            has_listener: all().any(|port| ports.contains(&port)),
            ports,
            own,
        };
        let own = watch.own.count();
        match watch.read_counters().passive_opens {
            Some(opens) => watch.counted = opens.cast_signed().wrapping_sub(own),
            None => watch.counters = None,
        }
        let past = watch.past();
        watch.engine.arrivals_mut().learn(|known| *known = past);
        Ok(watch)
    }

    fn now(&self) -> Moment {
        self.start.elapsed()
    }

    /// What the agent has seen before, as far as it was about the application.
    fn past(&self) -> Past {
        if self.counters.is_none() {
            return Past { unknown: Some("nobody counts connections here"), ..Past::default() };
        }
        if self.can_tell_apart() {
            let why = if self.ignored.is_empty() { "other ports listen, too" } else { "some peers do not count" };
            return Past { unknown: Some(why), ..Past::default() };
        }
        self.own.history.past(self.start, self.counted)
    }

    fn read_counters(&self) -> Reading {
        self.counters.as_ref().and_then(|counters| counters.read().ok()).unwrap_or_default()
    }

    /// Looks at the counters; returns the segments counted.
    ///
    /// The kernel counts a connection to the agent before the agent has accepted it, but the agent accepts whoever is
    /// there whenever others may run. So the difference is taken while the agent's count stands still, and counts only
    /// as far as a later look confirms it.
    async fn count(&mut self) -> Option<u64> {
        let (mut own, mut reading, mut at) = (self.own.count(), self.read_counters(), self.now());
        let mut others = reading.others_than(own)?;
        if self.own.ports.is_empty() {
            self.count_up(others, at);
            return reading.segments;
        }
        for left in (0..EXACT_COUNTS).rev() {
            if others <= self.counted {
                break;
            }
            yield_now().await;
            let now = self.own.count();
            if now == own {
                break;
            }
            own = now;
            // At last whoever was accepted since the reading is taken off as well: too few rather than too many.
            if left > 0 {
                (reading, at) = (self.read_counters(), self.now());
            }
            others = reading.others_than(own)?;
        }
        if let Some((before, when)) = self.doubt.take() {
            if at.saturating_sub(when) < ACCEPTED_WITHIN {
                self.doubt = Some((before.min(others), when)).filter(|(count, _)| *count > self.counted);
                return reading.segments;
            }
            self.count_up(before.min(others), when);
        }
        self.doubt = Some((others, at)).filter(|_| others > self.counted);
        // What was taken for somebody else's at the start has been accepted since.
        self.counted = self.counted.min(others);
        reading.segments
    }

    /// The same without waiting for a later look to confirm it.
    async fn count_now(&mut self) {
        self.count().await;
        if let Some((others, at)) = self.doubt.take() {
            self.count_up(others, at);
        }
    }

    /// So many were counted by then.
    fn count_up(&mut self, counted: i64, at: Moment) {
        let new = u64::try_from(counted.saturating_sub(self.counted)).unwrap_or(0);
        if new == 0 {
            return;
        }
        self.counted = counted;
        if self.can_tell_apart() {
            if self.counts.len() == COUNTS_KEPT {
                self.counts.remove(0);
            }
            self.counts.push((at, counted));
            self.engine.suspect(at);
        } else {
            self.engine.note_new(at, new);
        }
    }

    async fn run(&mut self, context: &Context) -> io::Result<String> {
        if self.ports.is_empty() {
            return Ok("nothing to drain: no TCP port listens, other than on loopback and the agent's own".into());
        }
        let counts = self.counters.is_some();
        let mut looked_ahead_to = None;
        let mut told = None;
        if !counts || !self.has_listener || matches!(self.eyes, Eyes::Proc(_)) {
            // Stillness and newness are told by comparing with what was there at the start.
            let census = self.survey(Width::All).await?;
            if counts && self.can_tell_apart() {
                self.census = Some(census);
            }
            if !self.has_listener && self.engine.holders().is_empty() && self.engine.idle() == 0 {
                return Ok(format!(
                    "nothing to drain: nothing listens on port {} and no connection is open",
                    self.list()
                ));
            }
        }
        loop {
            let segments = self.count().await;
            let at = self.now();
            let mut decision = self.engine.decide(at);
            // Where nothing depends on new connections, nothing has to be known of them.
            if !self.is_acquainted && matches!(decision, Decision::Wait { need: Need::Time | Need::Attribution, .. }) {
                self.is_acquainted = true;
                self.looked = (segments, at);
                self.get_acquainted().await?;
                self.learn_closings().await?;
                decision = self.engine.decide(at);
            }
            if self.node.is_none()
                && at >= self.engine.rules().settle
                && counts
                && matches!(decision, Decision::Wait { need: Need::Time, .. })
                && !self.engine.has_suspects()
            {
                // Users' connections do not come any more. Before, they came from there, too, where the node forwards them.
                let mut node = Peers::default();
                let _ = node.add("gateway");
                let node = node.resolve();
                let is_known = !node.is_empty();
                self.node = Some(node);
                if is_known {
                    self.get_acquainted().await?;
                    decision = self.engine.decide(self.now());
                }
            }
            if let Decision::Wait { need, until } = decision {
                let moved = segments.is_none() || segments != self.looked.0;
                let is_due =
                    until.is_some_and(|until| until <= at) || at.saturating_sub(self.looked.1) >= LONGEST_BLINDNESS;
                let acted = match need {
                    Need::Time | Need::Recheck
                        if until != looked_ahead_to
                            && until.is_some_and(|until| {
                                at < until && until - at <= self.lead && self.may_end_at(until)
                            })
                            && self.may_dump() =>
                    {
                        looked_ahead_to = until;
                        self.looked = (segments, at);
                        self.survey(Width::Ours).await?;
                        true
                    }
                    Need::Recheck if !(moved || is_due) => false,
                    Need::Recheck if matches!(self.eyes, Eyes::Diag(_)) && !(self.are_many() && self.may_dump()) => {
                        self.looked = (segments, at);
                        self.recheck().await?;
                        true
                    }
                    Need::Recheck | Need::Survey
                        if self.may_insist(need, until, at) || self.may_dump() && !self.saves_up(until, at) =>
                    {
                        self.looked = (segments, at);
                        self.survey(if counts { Width::Ours } else { Width::All }).await?;
                        true
                    }
                    Need::Attribution => self.attribute(segments).await?,
                    // What is told apart once more before the end is young enough to be told apart without doubt then.
                    Need::Time if until.is_some_and(|until| self.forgets_before(at, until)) => {
                        self.attribute(segments).await?
                    }
                    // Nothing can be decided yet; those that talk show their habits meanwhile.
                    Need::Time if counts && moved && self.may_learn(at) => {
                        self.looked = (segments, at);
                        self.survey(Width::Ours).await?;
                        true
                    }
                    Need::Time if counts && moved && self.may_ask() => {
                        self.looked = (segments, at);
                        self.recheck().await?;
                        true
                    }
                    // New connections are found by comparing only.
                    Need::Time if !counts && self.may_dump() => {
                        self.survey(Width::All).await?;
                        true
                    }
                    _ => false,
                };
                if acted {
                    if std::mem::take(&mut self.is_acquitted) {
                        // Those of the last moment are not told apart any more: where many come there always are some.
                        self.doubt = None;
                    } else {
                        // The look took time: was there anybody new meanwhile?
                        self.count().await;
                    }
                    decision = self.engine.decide(self.now());
                    if matches!(decision, Decision::Wait { need: Need::Survey, .. })
                        && need != Need::Survey
                        && self.may_dump()
                    {
                        self.survey(if counts { Width::Ours } else { Width::All }).await?;
                        self.count().await;
                        decision = self.engine.decide(self.now());
                    }
                }
            }
            let at = self.now();
            if decision == Decision::Done && self.doubt.is_none() {
                let mut text = self.engine.describe_done(at);
                let _ = write!(text, ", watched {} by {}", self.list(), self.eyes.name());
                return Ok(text);
            }
            if let Decision::Wait { need, .. } = decision
                && told.is_none_or(|(before, when)| before != need || at >= when + TELL_EVERY)
            {
                told = Some((need, at));
                context.progress.set(self.engine.describe_wait(at));
            }
            // By `/proc` holders are looked at too rarely for more.
            let is_slow = |need| need == Need::Time || matches!(self.eyes, Eyes::Proc(_));
            let is_far = matches!(decision,
                Decision::Wait { need, until: Some(until) } if is_slow(need) && until > at + 4 * POLL);
            let mut wake = at + if is_far { 2 * POLL } else { POLL };
            if let Decision::Wait { until: Some(until), .. } = decision
                && until > at
            {
                let ahead = until.saturating_sub(self.lead);
                wake = wake.min(if ahead > at { ahead } else { until });
            }
            sleep_until(self.start + wake).await;
        }
    }

    fn list(&self) -> String {
        self.ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
    }

    /// Whether anything else could get connections at all, as far as is known.
    fn can_tell_apart(&self) -> bool {
        !self.others.is_empty() || !self.ignored.is_empty() || self.node.as_ref().is_some_and(|node| !node.is_empty())
    }

    /// Whether some of those that came since the census will have lost their traces when the time has come.
    fn forgets_before(&self, at: Moment, until: Moment) -> bool {
        let is_old = |census: &Census| at >= census.at.saturating_add(REUSED_AFTER);
        self.engine.has_suspects()
            && until.saturating_sub(at) <= self.engine.rules().quiet_min
            && self.census.as_ref().is_some_and(is_old)
    }

    /// Whether a look at the sockets could end the drain at that moment, as far as is known now.
    fn may_end_at(&self, at: Moment) -> bool {
        !matches!(self.engine.decide(at), Decision::Wait { need: Need::Time | Need::Attribution, .. })
    }

    fn may_dump(&self) -> bool {
        let share = match self.eyes {
            Eyes::Diag(_) => DIAG_SHARE,
            Eyes::Proc(_) => PROC_SHARE,
        };
        self.dumps < DUMPS_AT_ONCE || self.dump_spent + self.dump_cost <= DUMP_CREDIT + self.now() / share
    }

    /// Whether the time has come at which a look may end the drain. It is granted whatever looks have cost before, but not
    /// one after the other.
    fn may_insist(&self, need: Need, until: Option<Moment>, at: Moment) -> bool {
        (need == Need::Survey || matches!(self.eyes, Eyes::Proc(_)))
            && until.is_some_and(|until| until <= at)
            && at >= self.engine.surveyed().unwrap_or_default() + self.rest()
    }

    /// Whether a look now would keep one from being granted when the time has come.
    fn saves_up(&self, until: Option<Moment>, at: Moment) -> bool {
        matches!(self.eyes, Eyes::Proc(_)) && until.is_some_and(|until| until > at && until - at < self.rest())
    }

    fn rest(&self) -> Duration {
        self.dump_cost.saturating_mul(REST).min(self.engine.rules().longest_request / 2)
    }

    /// Whether one more look at all connections costs so little that some are left for the decision.
    fn may_learn(&self, at: Moment) -> bool {
        let share = if matches!(self.eyes, Eyes::Diag(_)) { DIAG_SHARE } else { PROC_SHARE };
        at >= self.engine.surveyed().unwrap_or_default() + LEARN_EVERY
            && self.dump_spent + DUMPS_KEPT * self.dump_cost <= at / share
    }

    /// So many holders that one look at all connections costs no more than asking for them.
    fn are_many(&self) -> bool {
        self.engine.holders().len() > ASKED_AT_ONCE
    }

    /// Looks at the application's connections for the engine, and on demand at all others to compare with later.
    /// Returns those others.
    async fn survey(&mut self, width: Width) -> io::Result<Census> {
        let spent = self.eyes.spent();
        let (mut census, began) = (Census::default(), self.now());
        let before = self.census.as_ref();
        let wide = width != Width::Ours;
        let (start, engine, ignored) = (self.start, &mut self.engine, &self.ignored);
        let (watched, others, node) = (&self.ports, &self.others, self.node.as_ref());
        let compares = self.counters.is_none();
        let mut closed_before =
            (self.dumps == 0 && wide && matches!(self.eyes, Eyes::Proc(_))).then_some(&mut self.closed_before);
        let sees_ours = width != Width::Others;
        let mut filter =
            Filter { states: live_states(), local_ports: Vec::new(), peer_ports: Vec::new(), spoke: sees_ours };
        if sees_ours {
            filter.local_ports.extend_from_slice(watched);
        }
        if wide {
            filter.states |= closed_states();
            filter.local_ports.extend_from_slice(others);
            filter.peer_ports.extend_from_slice(others);
            if !ignored.is_empty() || closed_before.is_some() {
                filter.peer_ports.extend_from_slice(watched);
            }
        }
        if sees_ours {
            engine.begin_survey();
        }
        let mut row = |connection: Connection| {
            let (at, closed) = (start.elapsed(), connection.closed);
            if let Some((client, key)) = sides(&connection, watched) {
                let is_node = node.is_some_and(|node| node.contains(client));
                if let (Some(all), Some(ago)) = (&mut closed_before, closed)
                    && !ignored.contains(client)
                {
                    all.extend(ago.checked_sub(at));
                }
                if is_node || ignored.contains(client) {
                    census.foreign.add(before.map(|before| (&before.foreign, before.at)), began, at, key, closed);
                }
                if !ignored.contains(client) && watched.contains(&connection.local.port()) && sees_ours {
                    if compares || wide && !is_node {
                        census.ours.add(before.map(|before| (&before.ours, before.at)), began, at, key, closed);
                    }
                    engine.observe(at, connection);
                }
            } else if connection.state != State::SynReceived
                && let Some((_, key)) = sides(&connection, others)
            {
                census.foreign.add(before.map(|before| (&before.foreign, before.at)), began, at, key, closed);
            }
        };
        self.eyes.dump(&filter, &mut row).await?;
        census.at = start.elapsed();
        if sees_ours {
            engine.end_survey(census.at);
        }
        if compares {
            if !census.ours.new.is_empty() {
                self.engine.note_new(self.now(), census.ours.new.len() as u64);
            }
            self.census = Some(std::mem::take(&mut census));
        }
        self.dumps += 1;
        self.dump_cost = self.eyes.spent().saturating_sub(spent);
        self.dump_spent += self.dump_cost;
        Ok(census)
    }

    /// Takes the first look and the first census.
    async fn get_acquainted(&mut self) -> io::Result<()> {
        if self.counters.is_none() {
            return Ok(());
        }
        // Among very many connections habits are learnt when the time has come: each look at all of them is dear.
        let tells_habits = matches!(self.eyes, Eyes::Diag(_)) && self.lead.is_zero();
        let width = match (self.can_tell_apart(), tells_habits) {
            (true, true) => Width::All,
            (true, false) if self.ignored.is_empty() && self.node.is_none() => Width::Others,
            (true, false) => Width::All,
            (false, true) => Width::Ours,
            (false, false) => return Ok(()),
        };
        let mut census = match self.census.take() {
            // By `/proc` everybody has just been looked at.
            Some(census) if self.node.is_none() => census,
            _ => self.survey(width).await?,
        };
        if self.can_tell_apart() {
            self.count_now().await;
            if self.others_are_loopback && self.ignored.is_empty() && self.node.is_none() && remembers_all_closed() {
                // Whoever connects within the machine leaves a trace for a minute.
                let past = self.own.history.past_minute(self.start, self.counted, census.foreign.all);
                if !past.counts.is_empty() {
                    self.engine.arrivals_mut().learn(|known| *known = past);
                }
            }
            census.counted = self.counted;
            self.census = Some(census);
        }
        Ok(())
    }

    /// Reads when the application's connections were closed in the last minute.
    async fn learn_closings(&mut self) -> io::Result<()> {
        let seen = std::mem::take(&mut self.closed_before);
        if !self.engine.arrivals_mut().wants_closings() {
            return Ok(());
        }
        if matches!(self.eyes, Eyes::Proc(_)) {
            self.engine.arrivals_mut().learn(|past| past.closings = Closings::of(seen));
            return Ok(());
        }
        if count_closed() > MOST_CLOSED {
            return Ok(());
        }
        let (watched, ignored) = (&self.ports, &self.ignored);
        let filter = Filter {
            states: State::TimeWait.bit(),
            local_ports: watched.clone(),
            peer_ports: watched.clone(),
            spoke: false,
        };
        let mut closed = Vec::new();
        let mut row = |connection: Connection| {
            if let (Some(ago), Some((client, _))) = (connection.closed, sides(&connection, watched))
                && !ignored.contains(client)
            {
                closed.push(ago);
            }
        };
        let spent = self.eyes.spent();
        self.eyes.dump(&filter, &mut row).await?;
        self.dump_spent += self.eyes.spent().saturating_sub(spent);
        self.engine.arrivals_mut().learn(|past| past.closings = Closings::of(closed));
        Ok(())
    }

    fn may_ask(&self) -> bool {
        matches!(self.eyes, Eyes::Diag(_))
            && !self.engine.holders().is_empty()
            && self.asking_spent <= self.now() / ASKING_SHARE
    }

    /// Finds out whose the connections were that were counted since the last census. Returns whether it looked.
    async fn attribute(&mut self, segments: Option<u64>) -> io::Result<bool> {
        let Some(before) = self.census.as_ref().map(|before| before.counted) else {
            self.engine.convict(Moment::MAX);
            return Ok(true);
        };
        if !self.may_dump() {
            return Ok(false);
        }
        self.count_now().await;
        let (new, began) = (self.counted - before, self.now());
        self.looked = (segments, began);
        let mut census = self.survey(Width::All).await?;
        // Who came during the look may or may not have been seen by it: then only those count that were there before.
        self.count_now().await;
        let is_undisturbed = self.counted - before == new;
        let (foreign, ours) = (&census.foreign, &census.ours);
        // At one of the last moments all that had come had been closed, too.
        let was_accounted = |&(then, counted): &(Moment, i64)| {
            let closed = foreign.closed.iter().filter(|&&closed| closed <= then).count();
            then.saturating_add(LATELY) >= began && closed as i64 >= counted - before
        };
        let all = foreign.new.len() as i64;
        if is_undisturbed && all >= new || self.counts.iter().any(was_accounted) {
            self.is_acquitted = true;
            self.engine.acquit();
        } else if all + ours.new.len() as i64 >= new && all < new {
            // All are accounted for, and when the last one came is known.
            self.engine.convict(ours.latest);
        } else if is_undisturbed || all < new {
            self.engine.convict(Moment::MAX);
        } else {
            // It cannot be told: look again.
            return Ok(true);
        }
        census.counted = self.counted;
        self.census = Some(census);
        Ok(true)
    }

    /// Asks about the connections that hold the drain, until it is certain that it is held or that it is not, and
    /// about more of them where that costs little.
    async fn recheck(&mut self) -> io::Result<()> {
        let Eyes::Diag(diag) = &mut self.eyes else { return Ok(()) };
        let (before, allowed) = (diag.spent(), self.start.elapsed() / ASKING_SHARE);
        let (mut still, mut index, mut asked) = (0, 0, 0);
        let enough = self.engine.rules().threshold.max(ALWAYS_ASKED);
        while let Some(holder) = self.engine.holders().get(index)
            && (still <= enough || self.asking_spent + (diag.spent() - before) <= allowed)
        {
            let found = match &holder.connection.handle {
                Some(handle) => diag.query(handle)?,
                None => None,
            };
            if self.engine.recheck(self.start.elapsed(), index, found) {
                still += 1;
                index += 1;
            }
            asked += 1;
            if asked % ASKED_AT_ONCE == 0 {
                yield_now().await;
            }
        }
        self.asking_spent += diag.spent() - before;
        Ok(())
    }
}

/// A figure from `/proc/net/sockstat`; 0 where nobody says.
fn socket_statistic(path: &str, line: &str, name: &str) -> u32 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut words = text.lines().find_map(|text| text.strip_prefix(line)).unwrap_or_default().split_ascii_whitespace();
    words.find(|&word| word == name).and_then(|_| words.next()?.parse().ok()).unwrap_or(0)
}

/// How many TCP sockets there are in the network namespace.
fn count_sockets() -> u32 {
    let v4 = socket_statistic("/proc/net/sockstat", "TCP:", "inuse");
    v4.saturating_add(socket_statistic("/proc/net/sockstat6", "TCP6:", "inuse"))
}

/// Whether there is room for more in TIME_WAIT: beyond a limit connections leave no trace.
fn remembers_all_closed() -> bool {
    let most = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_max_tw_buckets").unwrap_or_default();
    most.trim().parse::<u32>().is_ok_and(|most| count_closed() <= most / 2)
}

/// How many connections are remembered in TIME_WAIT, of both families.
fn count_closed() -> u32 {
    socket_statistic("/proc/net/sockstat", "TCP:", "tw")
}

/// States in which a connection may be owed something.
fn live_states() -> u32 {
    [State::Established, State::SynReceived, State::FinWait1, State::CloseWait, State::LastAck, State::Closing]
        .iter()
        .fold(0, |sum, state| sum | state.bit())
}

/// States that show only that there was a connection.
fn closed_states() -> u32 {
    State::FinWait2.bit() | State::TimeWait.bit()
}

/// The ports that a drain watches which begins now.
///
/// # Errors
/// Nobody says what listens.
pub fn ports_now(settings: &Settings, context: &Context) -> Result<Vec<u16>, String> {
    let (_, listeners) = Eyes::open(settings.source)?;
    Ok(choose_ports(settings, context, &listeners))
}

fn choose_ports(settings: &Settings, context: &Context, listeners: &[Connection]) -> Vec<u16> {
    if !settings.ports.is_empty() {
        return short::set_of(settings.ports.iter().copied());
    }
    let reachable = listeners.iter().filter(|listener| !is_loopback(listener.local.ip()));
    let reachable = reachable.map(|listener| listener.local.port());
    let mut ports = short::set_of(reachable.filter(|port| !context.own_traffic.ports.contains(port)));
    // A preset cannot know where this server listens. What others have beside the usual ports is not its own.
    if ports.iter().any(|port| context.usual_ports.contains(port)) {
        ports.retain(|port| context.usual_ports.contains(port));
    }
    ports
}

/// The client's address and a key that is the same for both sides of a connection to one of these ports; `None`
/// where this is the client's side and the server is elsewhere.
fn sides(connection: &Connection, ports: &[u16]) -> Option<(IpAddr, u64)> {
    let (local, peer) = (connection.local, connection.peer);
    if ports.contains(&local.port()) {
        return Some((peer.ip(), pair_key(local, peer)));
    }
    (is_local(local.ip(), peer.ip()) && ports.contains(&peer.port())).then(|| (local.ip(), pair_key(peer, local)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_have_one_key() {
        let connection = |local: &str, peer: &str| Connection {
            handle: None,
            state: State::TimeWait,
            local: local.parse().expect(local),
            peer: peer.parse().expect(peer),
            receive_queue: 0,
            send_queue: 0,
            is_held: false,
            closed: None,
            spoke: None,
        };
        let server = sides(&connection("127.0.0.1:80", "127.0.0.2:5000"), &[80]).expect("the server's side");
        let client = sides(&connection("127.0.0.2:5000", "127.0.0.1:80"), &[80]).expect("the client's side");
        assert_eq!(server, client);
        assert_eq!(server.0, "127.0.0.2".parse::<IpAddr>().expect("an address"));
        let own = sides(&connection("10.0.0.1:5000", "10.0.0.1:80"), &[80]);
        assert!(own.is_some(), "to itself");
        assert_eq!(sides(&connection("10.0.0.1:5000", "10.0.0.9:80"), &[80]), None, "to another machine");
    }
}
