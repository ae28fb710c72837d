//! The guard at the door: accepts everybody at once, and makes room by evicting whoever is least likely to be the
//! kubelet, so that floods, slow clients and oversized requests never keep its call from being served. Who may
//! trigger what is left to `admission`, what is answered to `routes`.

use std::{
    future::{Future, poll_fn},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustix::{
    net::sockopt,
    process::{Resource, getrlimit},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UnixListener},
    select,
    sync::{Semaphore, oneshot},
    task::{self, AbortHandle, Id, JoinError, JoinSet},
    time::{Instant, Sleep, sleep, sleep_until, timeout},
};

use super::{
    Agent, Origin, Rights,
    quiet::Quiet,
    routes::{Desk, answer},
    watched::{Standing, Stream, Track, Watched},
};
use crate::{control::Peer, step::OwnTraffic, task::boxed};

/// A head larger than this is answered with 431. The kubelet's has 130 bytes plus its `httpHeaders`.
const LARGEST_HEAD: usize = 16 * 1024;
/// Long for any network, short for who holds a place with a byte a second.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// Longer than the pause between two scrapes of `/metrics` (usually 15–30 s).
const IDLE_LIMIT: Duration = Duration::from_secs(60);
/// hyper answers up to sixteen pipelined requests in a row: with every place taken by somebody who pipelines, the
/// kubelet would wait for all of those. So this many are answered between two looks at the listener.
const READS_PER_TURN: usize = 8;
/// When descriptors have run out and none of them is ours to close: accept fails until somebody else closes one.
const RETRY_ACCEPT: Duration = Duration::from_millis(50);
/// A caller that connected just before the stop has sent its request within this time.
const LAST_CALL: Duration = Duration::from_millis(150);
/// Closing a socket with unread bytes resets it, and the reset can overtake the answer. So what a client goes on
/// sending is read and forgotten, but no more than this.
const LINGER_BYTES: usize = 64 * 1024;
const LINGER: Duration = Duration::from_secs(1);

/// How much one door lets in.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open connections; when there are more, some are evicted.
    pub open: usize,
    /// Of those, how many may wait for a hook; callers that are not the kubelet get three quarters of these.
    pub waiting: usize,
    /// `false` switches the guard off: nobody is evicted.
    pub evict: bool,
    /// How long a request's head may take after its first byte, and the first byte after the accept.
    pub head: Duration,
    /// How long a kept-alive connection may idle that never triggered a hook.
    pub idle: Duration,
}

impl Limits {
    /// For a port: 256 is far more than probes, scrapes and hooks need, and costs little memory; where descriptors
    /// are few, a quarter of them, since steps need some as well.
    pub fn network() -> Self {
        Self::within(256, 4)
    }
    /// For the control socket: its callers are ours.
    pub(crate) fn socket() -> Self {
        Self::within(128, 8)
    }
    fn within(most: usize, share: u64) -> Self {
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let open = usize::try_from(descriptors / share).unwrap_or(most).clamp(16, most);
        // Never all of them: probes and the next trigger must find a place, whoever waits.
        Self { open, waiting: open - open / 8, evict: true, head: HEAD_LIMIT, idle: IDLE_LIMIT }
    }
}

/// One door: where callers come in, and with what right.
pub(crate) struct Door {
    pub(crate) listener: Listener,
    /// `None` on the control socket, where the kernel says who calls.
    pub(crate) rights: Option<Rights>,
    pub(crate) limits: Limits,
}

pub(crate) enum Listener {
    Tcp(TcpListener, OwnTraffic),
    Unix(UnixListener),
}

impl Listener {
    /// The next connection; `None` for one that was turned away.
    async fn accept(&self) -> io::Result<Option<(Stream, Origin)>> {
        Ok(match self {
            Self::Tcp(listener, own) => {
                let (stream, peer) = listener.accept().await?;
                own.accepted.fetch_add(1, Relaxed);
                Some((Stream::Tcp(stream), Origin::Tcp(peer)))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                match Peer::of(&stream) {
                    Ok(peer) if peer.is_trusted() => Some((Stream::Unix(stream), Origin::Socket(peer))),
                    Ok(_) | Err(_) => {
                        // For a clear message only; a fresh socket has room for it.
                        let _ = stream
                            .try_write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                        None
                    }
                }
            }
        })
    }
}

/// What all connections of a door share.
pub(super) struct Shared {
    pub(super) rights: Option<Rights>,
    stopping: AtomicBool,
    waiting: AtomicUsize,
    turns: Semaphore,
    pub(super) limits: Limits,
    /// Who claims to be the kubelet has a budget of its own, so that a flood does not hide its refusals.
    refused: [Quiet; 2],
}

impl Shared {
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }
    pub(super) fn refusals(&self, kubelet: bool) -> &Quiet {
        &self.refused[usize::from(kubelet)]
    }
    /// Waits for one's turn. A connection's first request waits for a moment only, like a hook's: probes come with a
    /// connection each, and must not queue behind those who pipeline.
    pub(super) async fn turn(&self, track: &Track) {
        let permit = if track.is_first_request() { None } else { Some(self.turns.acquire().await) };
        task::yield_now().await;
        drop(permit);
    }
    /// A place to wait for a hook, if there is one left.
    pub(super) fn wait(&self, kubelet: bool) -> Option<Place<'_>> {
        let most = self.limits.waiting;
        // The control socket's callers are all alike, and all ours.
        let most = if kubelet || self.rights.is_none() { most } else { most - most / 4 };
        let taken = self.waiting.fetch_add(1, Relaxed);
        let place = Place(&self.waiting);
        (taken < most).then_some(place)
    }
}

/// A place to wait, given back when it is dropped.
pub(super) struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// The open connections, oldest first.
#[derive(Default)]
struct Table(Vec<Entry>);

struct Entry {
    id: Id,
    peer: IpAddr,
    /// How many connections `peer` holds; shared by them.
    count: Arc<AtomicUsize>,
    track: Arc<Track>,
    task: AbortHandle,
}

impl Table {
    fn insert(&mut self, peer: IpAddr, track: Arc<Track>, task: AbortHandle) {
        let same = self.0.iter().find(|entry| entry.peer == peer);
        let count = same.map(|entry| Arc::clone(&entry.count)).unwrap_or_default();
        count.fetch_add(1, Relaxed);
        self.0.push(Entry { id: task.id(), peer, count, track, task });
    }

    fn take(&mut self, index: usize) -> Entry {
        let entry = self.0.remove(index);
        entry.count.fetch_sub(1, Relaxed);
        if self.0.is_empty() {
            // A flood's memory is given back.
            self.0 = Vec::new();
        }
        entry
    }

    fn remove(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
        if let Some(index) = self.0.iter().position(|entry| entry.id == id) {
            self.take(index);
        }
    }

    /// Ends one connection; `false` when every one of them waits for a hook.
    fn evict(&mut self) -> bool {
        let candidates = self.0.iter().map(|entry| Candidate {
            connections: entry.count.load(Relaxed),
            admitted: entry.track.is_admitted(),
            waiting: entry.track.standing() == Standing::Waiting,
        });
        let Some(index) = choose_victim(candidates) else { return false };
        self.take(index).task.abort();
        true
    }
}

/// What matters about a connection when one has to go.
struct Candidate {
    /// How many its peer's address holds.
    connections: usize,
    /// It made an admitted trigger before.
    admitted: bool,
    /// It waits for a hook now.
    waiting: bool,
}

/// Up to so many connections of one address weigh the same: the kubelet's probes and hooks come from one address too,
/// and must not be the first to go when a flood's connections come from an address each.
const MODEST: usize = 8;

/// Of all, oldest first: never who waits; who was admitted only if nobody else is there; of the rest the oldest of
/// the address that holds the most. So a flood from one address evicts itself, one from many addresses finds the
/// kubelet's idle connection protected, and the newest comer always has its time.
fn choose_victim(candidates: impl Iterator<Item = Candidate>) -> Option<usize> {
    let mut victim = None;
    for (index, candidate) in candidates.enumerate().filter(|(_, candidate)| !candidate.waiting) {
        let rank = (!candidate.admitted, candidate.connections.max(MODEST));
        if victim.is_none_or(|(_, worst)| rank > worst) {
            victim = Some((index, rank));
        }
    }
    victim.map(|(index, _)| index)
}

/// Serves one door until `stop`, then answers whoever waits for a hook. Dropping it closes every connection.
pub(crate) async fn attend<A: Agent>(door: Door, stop: impl Future<Output = ()> + Send, agent: Arc<A>) {
    let (tell, told) = oneshot::channel();
    // A task, so that its turns come as often as the connections' own. What `block_on` polls itself has a turn after
    // every 61 of theirs (tokio's event interval): then a flood's newcomers would have the kubelet's connection
    // evicted before that was looked at even once.
    let mut doorman = JoinSet::new();
    doorman.spawn(boxed(keep(door, told, agent)));
    select! {
        () = stop => {}
        _ = doorman.join_next() => {}
    }
    drop(tell);
    while doorman.join_next().await.is_some() {}
}

/// The accept loop, until the other end of `stop` is gone.
async fn keep<A: Agent>(door: Door, mut stop: oneshot::Receiver<()>, agent: Arc<A>) {
    let Door { listener, rights, limits } = door;
    let (stopping, waiting) = (AtomicBool::new(false), AtomicUsize::new(0));
    let turns = Semaphore::new(READS_PER_TURN);
    let shared = Arc::new(Shared { rights, stopping, waiting, turns, limits, refused: Default::default() });
    if let Listener::Tcp(listener, _) = &listener {
        // Answers are small and complete: nothing is gained by holding them back. Linux hands the option on to what
        // the listener accepts; should it fail, they are late by some milliseconds.
        let _ = sockopt::set_tcp_nodelay(listener, true);
    }
    let mut house = House { shared, agent, table: Table::default(), tasks: JoinSet::new() };
    // Then everybody else gets a turn: a new connection's request is read long before its place could be taken again,
    // few descriptors are open beyond the limit, and yet a full backlog is soon taken in.
    let accepts_per_turn = (limits.open / 4).min(64);
    let mut in_a_row = 0;
    loop {
        let accepted = select! {
            biased;
            _ = &mut stop => break,
            Some(ended) = house.tasks.join_next_with_id() => {
                house.table.remove(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(Some((stream, origin))) => house.admit(stream, origin),
            Ok(None) => {}
            Err(error) if is_exhausted(&error) => {
                if !(limits.evict && house.table.evict()) {
                    sleep(RETRY_ACCEPT).await;
                }
                in_a_row = accepts_per_turn;
            }
            // The peer gave up while it was in the backlog (accept(2) names a dozen such errors).
            Err(_) => {}
        }
        in_a_row += 1;
        if in_a_row >= accepts_per_turn {
            in_a_row = 0;
            task::yield_now().await;
        }
    }
    house.close(listener).await;
}

fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// The connections and what they need.
struct House<A> {
    shared: Arc<Shared>,
    agent: Arc<A>,
    table: Table,
    tasks: JoinSet<()>,
}

impl<A: Agent> House<A> {
    /// Takes a connection in; somebody else may have to go for it.
    fn admit(&mut self, stream: Stream, origin: Origin) {
        let limits = self.shared.limits;
        if limits.evict && self.table.0.len() >= limits.open && !self.table.evict() {
            if self.shared.refusals(false).may_speak(std::time::Instant::now()).is_some() {
                tracing::warn!(caller = %origin, "connection refused: all others wait for a hook");
            }
            return;
        }
        let track = Arc::new(Track::default());
        let (agent, shared) = (Arc::clone(&self.agent), Arc::clone(&self.shared));
        let desk = Desk { agent, shared, track: Arc::clone(&track), origin };
        let task = self.tasks.spawn(boxed(attend_one(stream, desk)));
        let peer = match origin {
            Origin::Tcp(peer) => SocketAddr::ip(&peer).to_canonical(),
            Origin::Socket(_) => Ipv4Addr::UNSPECIFIED.into(),
        };
        self.table.insert(peer, track, task);
    }

    /// Lets those finish who were promised an answer.
    async fn close(mut self, listener: Listener) {
        self.shared.stopping.store(true, Relaxed);
        // Who is in the backlog already was told by the kernel that it is connected.
        let last_call = Instant::now() + LAST_CALL;
        loop {
            // The runtime asks the kernel for news in between (`yield_now` puts off until after that).
            task::yield_now().await;
            select! {
                biased;
                Ok(accepted) = listener.accept() => if let Some((stream, origin)) = accepted {
                    self.admit(stream, origin);
                },
                () = std::future::ready(()) => break,
            }
            if Instant::now() >= last_call {
                break;
            }
        }
        drop(listener);
        self.abort_unless(|standing| standing != Standing::Idle);
        while self.table.0.iter().any(|entry| !is_owed(entry.track.standing())) {
            select! {
                ended = self.tasks.join_next_with_id() => match ended {
                    Some(ended) => self.table.remove(ended),
                    None => break,
                },
                () = sleep_until(last_call) => break,
            }
        }
        self.abort_unless(is_owed);
        while self.tasks.join_next().await.is_some() {}
    }

    fn abort_unless(&self, keep: impl Fn(Standing) -> bool) {
        for entry in self.table.0.iter().filter(|entry| !keep(entry.track.standing())) {
            entry.task.abort();
        }
    }
}

fn is_owed(standing: Standing) -> bool {
    matches!(standing, Standing::Serving | Standing::Waiting)
}

/// Serves one connection to its end.
async fn attend_one<A: Agent>(stream: Stream, desk: Desk<A>) {
    let track = Arc::clone(&desk.track);
    let limits = desk.shared.limits;
    // Nothing is allocated for who says nothing.
    let Some(first) = track.limit(&limits) else { return };
    if !matches!(timeout(first, stream.readable()).await, Ok(Ok(()))) {
        return;
    }
    let desk = Arc::new(desk);
    let io = TokioIo::new(Watched { stream, track: Arc::clone(&track) });
    let mut connection = http1::Builder::new()
        // Its own limit would also end idle connections: ours knows which of them may stay.
        .header_read_timeout(None)
        .max_buf_size(LARGEST_HEAD)
        // Whoever closes its sending side after the request still gets the answer.
        .half_close(true)
        .serve_connection(io, service_fn(move |request| Box::pin(answer(Arc::clone(&desk), request))));

    let mut armed = None;
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    let served = poll_fn(|cx| {
        if let Poll::Ready(served) = connection.poll_without_shutdown(cx) {
            return Poll::Ready(Some(served));
        }
        let mark = track.mark();
        if armed != Some(mark) {
            armed = Some(mark);
            timer = track.limit(&limits).map(|limit| Box::pin(sleep(limit)));
        }
        match &mut timer {
            Some(timer) => timer.as_mut().poll(cx).map(|()| None),
            None => Poll::Pending,
        }
    })
    .await;
    drop(timer);

    let (Some(served), false) = (served, track.is_dropped()) else { return };
    let malformed = served.is_err_and(|error| error.is_parse());
    if malformed || track.has_left_body() {
        let mut watched = connection.into_parts().io.into_inner();
        let _ = timeout(LINGER, linger(&mut watched)).await;
    }
}

/// Ends our side, then forgets what still comes.
async fn linger(watched: &mut Watched) -> io::Result<()> {
    watched.shutdown().await?;
    // Not part of the future, which every connection pays for.
    let mut scratch = vec![0; 4096];
    let mut left = LINGER_BYTES;
    while left > 0 {
        match watched.read(&mut scratch).await? {
            0 => break,
            read => left = left.saturating_sub(read),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_to_go() {
        // (connections of its address, admitted before, waiting now), oldest first.
        for (name, table, expected) in [
            ("nobody", &[][..], None),
            ("the oldest of equals", &[(1, false, false), (1, false, false)], Some(0)),
            ("a few more make no difference", &[(1, false, false), (8, false, false)], Some(0)),
            ("the oldest of the greediest", &[(1, false, false), (9, false, false), (9, false, false)], Some(1)),
            ("never who waits", &[(9, false, true), (9, true, true)], None),
            ("who waits is passed over", &[(9, true, true), (1, false, false)], Some(1)),
            ("the admitted one stays", &[(1, true, false), (1, false, false)], Some(1)),
            ("also when it is the greediest", &[(9, true, false), (1, false, false)], Some(1)),
            ("but goes before a newcomer is refused", &[(9, true, true), (1, true, false), (9, true, false)], Some(2)),
        ] {
            let candidates =
                table.iter().map(|&(connections, admitted, waiting)| Candidate { connections, admitted, waiting });
            assert_eq!(choose_victim(candidates), expected, "{name}");
        }
    }
}
