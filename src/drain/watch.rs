//! Observes the sockets for the engine until it says that the drain is done. It decides only what to look at and
//! when, so that the look stays cheap:
//!
//! * every 25 ms, from when on it matters, the counters of the namespace (about 20 µs): were there new connections, did any byte move;
//! * when bytes have moved, the connections known to hold the drain, one by one (some µs each), and no more of them
//!   than it takes to know that it is not over;
//! * all connections of the watched ports only when everything else holds, and never for more than 1.5 % of the
//!   time that has passed (5 % where they have to be read from `/proc`).
//!
//! The counters count the whole network namespace, which a pod's containers share. Whose a new connection was
//! matters only when it alone holds the drain: then the sockets of the other listening ports and of the ignored
//! peers are compared with those seen before. Where those account for all that was counted, nothing new came to
//! the watched ports. What cannot be accounted for counts as new: a connection to another port that its peer
//! closed between two looks costs one quiet time. (The server's side of a connection that the server closed stays
//! visible as TIME_WAIT, and so does the client's side of one within the namespace.)

use std::{collections::HashSet, fmt::Write, io, net::IpAddr, sync::atomic::Ordering, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{
    engine::{Decision, Engine, Knowledge, Need},
    rules::{Moment, Rules},
};
use crate::{
    net::{
        Connection, Filter, State,
        counters::{Counters, Reading},
        is_loopback, pair_key,
        peers::Peers,
        proc_tcp,
        sock_diag::Diag,
    },
    short,
    step::{Context, End, OwnTraffic},
};

/// Between two looks at the counters: four of them fit in the 100 ms that the drain may be late.
const POLL: Duration = Duration::from_millis(25);
/// The same while whoever comes cannot matter at the end of the settle time: a look and its wake-up cost some 0.2 ms.
const EARLY_POLL: Duration = Duration::from_millis(250);
/// Dumps by sock_diag may take this part of the time that has passed: 1.5 %, which leaves 0.5 % for the rest.
const DIAG_SHARE: u32 = 66;
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
    /// Empty: all ports listening when the drain starts, but for loopback and the agent's own.
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
        proc_tcp::read_at_once(&Filter::listeners(), &mut |listener| listeners.push(listener))
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
    foreign: HashSet<u64>,
    /// The application's, where new ones are found by comparing only.
    ours: HashSet<u64>,
    /// New connections counted in the namespace before it.
    counted: i64,
}

struct Watch {
    start: Instant,
    engine: Engine,
    eyes: Eyes,
    ports: Vec<u16>,
    /// Listening ports that are neither watched nor the agent's.
    others: Vec<u16>,
    ignored: Peers,
    own: OwnTraffic,
    counters: Option<Counters>,
    /// New connections counted, less the agent's own, as far as that is certain.
    counted: i64,
    /// A count that is higher, which the next look confirms or explains as the agent's own.
    doubt: Option<(i64, Moment)>,
    census: Option<Census>,
    /// Segments counted at the last look at the holders, and its time.
    looked: (Option<u64>, Moment),
    dumps: usize,
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
        let mut ports = settings.ports.clone();
        if ports.is_empty() {
            ports = context.app_ports.clone();
        }
        if ports.is_empty() {
            let reachable = listeners.iter().filter(|listener| !is_loopback(listener.local.ip()));
            ports = reachable.map(|listener| listener.local.port()).filter(|port| !own.ports.contains(port)).collect();
        }
        let ports = short::set_of(ports);
        let all = || listeners.iter().map(|listener| listener.local.port());
        let others = short::set_of(all().filter(|port| !ports.contains(port) && !own.ports.contains(port)));
        let counters = Counters::open().ok();
        let mut watch = Self {
            start,
            engine: Engine::new(settings.rules.clone(), Knowledge),
            eyes,
            others,
            ignored: settings.ignored.resolve(),
            counters,
            counted: 0,
            doubt: None,
            census: None,
            looked: (None, Moment::ZERO),
            dumps: 0,
            dump_cost: Duration::ZERO,
            dump_spent: Duration::ZERO,
            asking_spent: Duration::ZERO,
            is_acquainted: false,
            lead: Some(DUMP_PER_SOCKET.saturating_mul(count_sockets()).min(LONGEST_LEAD))
                .filter(|&lead| lead >= SHORTEST_LEAD)
                .unwrap_or_default(),
            has_listener: all().any(|port| ports.contains(&port)),
            ports,
            own,
        };
        let own = watch.own_accepted();
        match watch.read_counters().passive_opens {
            Some(opens) => watch.counted = opens.cast_signed().wrapping_sub(own),
            None => watch.counters = None,
        }
        Ok(watch)
    }

    fn now(&self) -> Moment {
        self.start.elapsed()
    }

    fn own_accepted(&self) -> i64 {
        self.own.accepted.load(Ordering::Relaxed).cast_signed()
    }

    fn read_counters(&self) -> Reading {
        self.counters.as_ref().and_then(|counters| counters.read().ok()).unwrap_or_default()
    }

    /// Looks at the counters; returns the segments counted.
    ///
    /// The kernel counts a connection to the agent before the agent has accepted it. Its own count read *before*
    /// the kernel's gives an upper bound of the others' connections: if that has not risen, there was none. If it
    /// has, the next look takes the agent's count read *after* the kernel's, which gives a lower bound.
    fn count(&mut self) -> Option<u64> {
        let own = self.own_accepted();
        let reading = self.read_counters();
        let at = self.now();
        if let Some((opens, when)) = self.doubt.take() {
            let at_least = opens.wrapping_sub(own);
            if at_least > self.counted {
                self.counted = at_least;
                self.engine.suspect(when);
            }
        }
        if let Some(opens) = reading.passive_opens.map(u64::cast_signed)
            && opens.wrapping_sub(own) > self.counted
        {
            if self.own.ports.is_empty() {
                self.counted = opens.wrapping_sub(own);
                self.engine.suspect(at);
            } else {
                self.doubt = Some((opens, at));
            }
        }
        reading.segments
    }

    async fn run(&mut self, context: &Context) -> io::Result<String> {
        if self.ports.is_empty() {
            return Ok("nothing to drain: no TCP port listens, other than on loopback and the agent's own".into());
        }
        let first_interest = self.engine.first_interest();
        let counts = self.counters.is_some();
        let mut looked_ahead_to = None;
        if !counts || !self.has_listener || matches!(self.eyes, Eyes::Proc(_)) {
            // Stillness and newness are told by comparing with what was there at the start.
            self.survey(Width::All).await?;
            if !self.has_listener && self.engine.holders().is_empty() && self.engine.idle() == 0 {
                return Ok(format!(
                    "nothing to drain: nothing listens on port {} and no connection is open",
                    self.list()
                ));
            }
        }
        loop {
            let segments = self.count();
            let at = self.now();
            if counts && at >= first_interest && !self.is_acquainted {
                self.looked = (segments, at);
                self.get_acquainted().await?;
            }
            let mut decision = self.engine.decide(at);
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
                    Need::Recheck if matches!(self.eyes, Eyes::Diag(_)) => {
                        self.looked = (segments, at);
                        self.recheck().await?;
                        true
                    }
                    Need::Recheck | Need::Survey if self.may_dump() => {
                        self.looked = (segments, at);
                        self.survey(if counts { Width::Ours } else { Width::All }).await?;
                        true
                    }
                    Need::Attribution => self.attribute(segments).await?,
                    // Nothing can be decided yet; those that talk show their habits meanwhile.
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
                    // The look took time: was there anybody new meanwhile?
                    self.count();
                    decision = self.engine.decide(self.now());
                    if matches!(decision, Decision::Wait { need: Need::Survey, .. })
                        && need != Need::Survey
                        && self.may_dump()
                    {
                        self.survey(if counts { Width::Ours } else { Width::All }).await?;
                        self.count();
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
            context.progress.set(self.engine.describe_wait(at));
            let mut wake = at + POLL;
            if counts && at < first_interest {
                wake = (at + EARLY_POLL).min(first_interest);
            }
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
        !self.others.is_empty() || !self.ignored.is_empty()
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

    /// Looks at the application's connections for the engine, and on demand at all others to compare with later.
    /// Returns those others.
    async fn survey(&mut self, width: Width) -> io::Result<Census> {
        let spent = self.eyes.spent();
        let mut census = Census { counted: self.counted, ..Census::default() };
        let wide = width != Width::Ours;
        let (start, engine, ignored) = (self.start, &mut self.engine, &self.ignored);
        let (watched, others) = (&self.ports, &self.others);
        let compares = self.counters.is_none();
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
            if !ignored.is_empty() {
                filter.peer_ports.extend_from_slice(watched);
            }
        }
        if sees_ours {
            engine.begin_survey();
        }
        let mut row = |connection: Connection| {
            if let Some((client, key)) = sides(&connection, watched) {
                if ignored.contains(client) {
                    census.foreign.insert(key);
                } else if watched.contains(&connection.local.port()) && sees_ours {
                    if compares {
                        census.ours.insert(key);
                    }
                    engine.observe(start.elapsed(), connection);
                }
            } else if connection.state != State::SynReceived
                && let Some((_, key)) = sides(&connection, others)
            {
                census.foreign.insert(key);
            }
        };
        self.eyes.dump(&filter, &mut row).await?;
        if sees_ours {
            engine.end_survey(start.elapsed());
        }
        if compares {
            let is_new = self.census.as_ref().is_some_and(|before| !census.ours.is_subset(&before.ours));
            if is_new {
                self.engine.note_new(self.now());
            }
            self.census = Some(std::mem::take(&mut census));
        }
        self.dumps += 1;
        self.dump_cost = self.eyes.spent().saturating_sub(spent);
        self.dump_spent += self.dump_cost;
        Ok(census)
    }

    /// Takes the first look and the first census, when new connections and the talk on the old ones begin to matter.
    async fn get_acquainted(&mut self) -> io::Result<()> {
        self.is_acquainted = true;
        // Among very many connections habits are learnt when the time has come: each look at all of them is dear.
        let tells_habits = matches!(self.eyes, Eyes::Diag(_)) && self.lead.is_zero();
        let width = match (self.can_tell_apart(), tells_habits) {
            (true, true) => Width::All,
            (true, false) if self.ignored.is_empty() => Width::Others,
            (true, false) => Width::All,
            (false, true) => Width::Ours,
            (false, false) => return Ok(()),
        };
        let census = self.survey(width).await?;
        if self.can_tell_apart() {
            self.census = Some(census);
        }
        Ok(())
    }

    fn may_ask(&self) -> bool {
        matches!(self.eyes, Eyes::Diag(_))
            && !self.engine.holders().is_empty()
            && self.asking_spent <= self.now() / ASKING_SHARE
    }

    /// Finds out whose the connections were that were counted since the last census. Returns whether it looked.
    async fn attribute(&mut self, segments: Option<u64>) -> io::Result<bool> {
        let Some(before) = &self.census else {
            self.engine.convict();
            return Ok(true);
        };
        if self.doubt.is_some() || !self.may_dump() {
            return Ok(false);
        }
        let counted_before = before.counted;
        self.looked = (segments, self.now());
        let census = self.survey(Width::All).await?;
        self.count();
        if self.doubt.is_some() || self.counted != census.counted {
            // Somebody came during the look and may or may not have been seen by it: look again.
            return Ok(true);
        }
        let foreign = self.census.as_ref().map_or(0, |before| census.foreign.difference(&before.foreign).count());
        match i64::try_from(foreign).is_ok_and(|foreign| foreign >= self.counted - counted_before) {
            true => self.engine.acquit(),
            false => self.engine.convict(),
        }
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
                tokio::task::yield_now().await;
            }
        }
        self.asking_spent += diag.spent() - before;
        Ok(())
    }
}

/// How many TCP sockets there are in the network namespace; 0 where nobody says.
fn count_sockets() -> u32 {
    let count = |path: &str, name: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_ascii_whitespace().next().and_then(|number| number.parse::<u32>().ok()).unwrap_or(0)
    };
    let v4 = count("/proc/net/sockstat", "TCP: inuse ");
    v4.saturating_add(count("/proc/net/sockstat6", "TCP6: inuse "))
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

/// The client's address and a key that is the same for both sides of a connection to one of these ports; `None`
/// where this is the client's side and the server is elsewhere.
fn sides(connection: &Connection, ports: &[u16]) -> Option<(IpAddr, u64)> {
    let (local, peer) = (connection.local, connection.peer);
    if ports.contains(&local.port()) {
        return Some((peer.ip(), pair_key(local, peer)));
    }
    let is_here = is_loopback(peer.ip()) || local.ip() == peer.ip();
    (is_here && ports.contains(&peer.port())).then(|| (local.ip(), pair_key(peer, local)))
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
