//! What the kernel tells about TCP in this network namespace, read without any privilege: sockets (`sock_diag`,
//! or `/proc/net/tcp` where that is refused), counters, the default route. It only reads; what the figures mean
//! for a drain is decided in `drain/`.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, poll};

pub mod counters;
pub mod peers;
pub mod proc_tcp;
pub mod route;
pub mod sock_diag;

/// A TCP state, with the kernel's numbers (`include/net/tcp_states.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    Established = 1,
    SynSent = 2,
    SynReceived = 3,
    FinWait1 = 4,
    FinWait2 = 5,
    TimeWait = 6,
    Closed = 7,
    CloseWait = 8,
    LastAck = 9,
    Listen = 10,
    Closing = 11,
}

impl State {
    /// Reads the kernel's number; 12 is `TCP_NEW_SYN_RECV`, a handshake that has no full socket yet.
    pub fn from_kernel(number: u8) -> Self {
        match number {
            1 => Self::Established,
            2 => Self::SynSent,
            3 | 12 => Self::SynReceived,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listen,
            11 => Self::Closing,
            _ => Self::Closed,
        }
    }

    /// The kernel's mask bit. A handshake in progress carries both of its numbers.
    pub fn bit(self) -> u32 {
        match self {
            Self::SynReceived => 1 << 3 | 1 << 12,
            other => 1 << other as u8,
        }
    }
}

/// Who spoke, how much and how long ago, from `struct tcp_info`. The times have the resolution of the kernel's
/// tick (1–10 ms), so both may be equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spoke {
    /// Bytes received in order, a FIN counted as one (`tcp_rcv_nxt_update`).
    pub received: u64,
    /// Bytes sent, or in the queue to be.
    pub sent: u64,
    /// Segments with data that were received.
    pub received_segments: u32,
    /// Segments with data that were sent, retransmissions included.
    pub sent_segments: u32,
    /// Segments without data that were sent: acknowledgements, mostly.
    pub bare_segments: u32,
    pub since_received: Duration,
    pub since_sent: Duration,
    /// Since the last segment of the peer that carried an acknowledgement, with data or without.
    pub since_acknowledged: Duration,
    /// How long an acknowledgement is held back at present, in the hope that an answer carries it.
    pub delayed_acknowledgement: Duration,
    /// The way to the client and back.
    pub round_trip: Duration,
}

/// One TCP socket as the kernel shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// For asking about it again; `/proc/net/tcp` has none.
    pub handle: Option<sock_diag::Handle>,
    pub state: State,
    /// IPv4 addresses mapped into IPv6 are shown as IPv4.
    pub local: SocketAddr,
    pub peer: SocketAddr,
    /// Bytes that the application has not read; a FIN counts as one until it is read (`tcp_diag_get_info`). For a
    /// listener: connections that wait to be accepted.
    pub receive_queue: u32,
    /// Bytes that the peer has not acknowledged; a FIN counts as one.
    pub send_queue: u32,
    /// Whether a process holds it. An established connection that none holds waits in the accept queue.
    pub is_held: bool,
    pub spoke: Option<Spoke>,
    /// How long ago it was closed, for those in TIME_WAIT; the kernel forgets them after a minute.
    pub closed: Option<Duration>,
}

/// How long the kernel remembers a connection that this side has closed (`TCP_TIMEWAIT_LEN`, include/net/tcp.h).
pub const TIME_WAIT: Duration = Duration::from_secs(60);

/// How long ago a connection in TIME_WAIT was closed, from the time that it has left.
fn closed_ago(state: State, left: Duration) -> Option<Duration> {
    // A sandbox that shows no time shows zero.
    (state == State::TimeWait && !left.is_zero()).then(|| TIME_WAIT.saturating_sub(left))
}

impl Connection {
    /// The same for the same pair of addresses, whatever the state.
    pub fn key(&self) -> u64 {
        pair_key(self.local, self.peer)
    }
}

/// A key for one connection between two addresses.
pub fn pair_key(local: SocketAddr, peer: SocketAddr) -> u64 {
    let mut hasher = DefaultHasher::new();
    (local, peer).hash(&mut hasher);
    hasher.finish()
}

/// Which sockets a dump is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Sum of [`State::bit`]s.
    pub states: u32,
    /// The local port is one of these…
    pub local_ports: Vec<u16>,
    /// …or the peer's is one of these. Both empty: any socket.
    pub peer_ports: Vec<u16>,
    /// Whether [`Spoke`] is wanted, which makes each row three times as long.
    pub spoke: bool,
}

impl Filter {
    /// All listeners.
    pub fn listeners() -> Self {
        Self { states: State::Listen.bit(), local_ports: Vec::new(), peer_ports: Vec::new(), spoke: false }
    }

    pub fn passes(&self, connection: &Connection) -> bool {
        self.states & connection.state.bit() != 0
            && (self.local_ports.is_empty() && self.peer_ports.is_empty()
                || self.local_ports.contains(&connection.local.port())
                || self.peer_ports.contains(&connection.peer.port()))
    }
}

/// All listening TCP addresses of this network namespace; IPv4 and IPv6 ones apart.
///
/// # Errors
/// Neither sock_diag nor `/proc/net/tcp` can be read.
pub fn listeners() -> io::Result<Vec<SocketAddr>> {
    let mut found = Vec::new();
    let by_diag = sock_diag::Diag::open()
        .and_then(|mut diag| diag.dump_at_once(&Filter::listeners(), &mut |listener| found.push(listener.local)));
    if by_diag.is_err() {
        found.clear();
        proc_tcp::read_listeners(&mut |listener| found.push(listener.local))?;
    }
    Ok(found)
}

/// `::ffff:192.0.2.1` is `192.0.2.1`: a dual-stack listener gives its IPv4 connections that way.
pub fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Whether only this machine can reach it.
pub fn is_loopback(address: IpAddr) -> bool {
    canonical(address).is_loopback()
}

/// Whether both ends of a connection are in this network namespace, as far as addresses tell.
pub fn is_local(local: IpAddr, peer: IpAddr) -> bool {
    is_loopback(peer) || local == peer
}

/// Processor time of this thread: what a look costs, however busy or throttled the machine is.
pub(crate) fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(now).unwrap_or_default()
}

/// Waits at most this long until there is something to read.
pub(crate) fn wait_readable(fd: &impl std::os::fd::AsFd, limit: Duration) -> io::Result<()> {
    let limit = rustix::event::Timespec::try_from(limit).map_err(io::Error::other)?;
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    match poll(&mut fds, Some(&limit))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}
