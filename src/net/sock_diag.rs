//! `NETLINK_SOCK_DIAG`: the kernel's list of sockets with `tcp_info`, what `ss -ti` uses (`man 7 sock_diag`). A
//! dump costs about 1–2 µs a row and walks the hash table of the whole machine; asking for one known socket
//! costs the same few microseconds however many there are. No privilege is needed; gVisor lacks it, and a strict
//! seccomp or SELinux profile may refuse it.
//!
//! A dump is produced inside the `recv` that fetches it, at most 32 KB (about 90 rows with `tcp_info`, some 100 µs)
//! at a time, so nothing here blocks; between two pieces the caller's other tasks may run.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with},
};

use super::{Connection, Filter, Spoke, State, canonical, closed_ago, cpu_time, wait_readable};

// From the kernel's include/uapi/linux/{netlink,sock_diag,inet_diag}.h.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const INET_DIAG_REQ_BYTECODE: u16 = 1;
const INET_DIAG_INFO: u16 = 2;
const INET_DIAG_BC_JMP: u8 = 1;
const INET_DIAG_BC_S_GE: u8 = 2;
const INET_DIAG_BC_S_LE: u8 = 3;
const INET_DIAG_BC_D_GE: u8 = 4;
const INET_DIAG_BC_D_LE: u8 = 5;

/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `struct inet_diag_req_v2`: family, protocol, extensions, pad, states, then the socket's id.
const REQUEST: usize = 8 + ID;
/// `struct inet_diag_msg`: family, state, timer, retransmits, id, expires, two queues, uid, inode.
const MESSAGE: usize = 4 + ID + 20;
/// `struct inet_diag_sockid`: two ports, two addresses of 16 bytes, interface, cookie.
const ID: usize = 48;
/// The kernel makes pieces of at most 32 KB (`netlink_recvmsg`), whatever is offered.
const PIECE: usize = 32 * 1024;
/// More ports than this are filtered here: the kernel runs the program for each socket, port by port.
const MOST_PORTS_IN_KERNEL: usize = 64;
/// The kernel answers within the call; one that needs longer is not there.
const ANSWER: Duration = Duration::from_millis(500);

/// Names one socket to the kernel, and no later one with the same addresses: it contains the kernel's cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    family: u8,
    id: [u8; ID],
}

/// An open door to the kernel's socket list.
#[derive(Debug)]
pub struct Diag {
    socket: OwnedFd,
    buffer: Vec<u8>,
    sequence: u32,
    /// Processor time spent in the kernel and in reading its answers.
    spent: Duration,
}

impl Diag {
    /// # Errors
    /// The kernel, the sandbox or a security profile has no sock_diag.
    pub fn open() -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(netlink::SOCK_DIAG),
        )?;
        Ok(Self { socket, buffer: vec![0; PIECE], sequence: 0, spent: Duration::ZERO })
    }

    /// Processor time spent by this value so far, for whoever has to stay within a budget.
    pub fn spent(&self) -> Duration {
        self.spent
    }

    /// Shows every socket that the filter passes, IPv4 and then IPv6, and lets other tasks run in between.
    ///
    /// # Errors
    /// The kernel refuses or garbles the dump.
    pub async fn dump(&mut self, filter: &Filter, row: &mut (dyn FnMut(Connection) + Send)) -> io::Result<()> {
        for family in [AF_INET, AF_INET6] {
            if self.begin(family, filter)? {
                while self.piece(filter, row)? {
                    tokio::task::yield_now().await;
                }
            }
        }
        Ok(())
    }

    /// The same without letting anybody run in between: for lists known to be short.
    ///
    /// # Errors
    /// The kernel refuses or garbles the dump.
    pub fn dump_at_once(&mut self, filter: &Filter, row: &mut dyn FnMut(Connection)) -> io::Result<()> {
        for family in [AF_INET, AF_INET6] {
            if self.begin(family, filter)? {
                while self.piece(filter, row)? {}
            }
        }
        Ok(())
    }

    /// Asks about one socket; `None` when it is gone.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn query(&mut self, handle: &Handle) -> io::Result<Option<Connection>> {
        let began = cpu_time();
        let found = self.query_now(handle);
        self.spent += cpu_time().saturating_sub(began);
        found
    }

    fn query_now(&mut self, handle: &Handle) -> io::Result<Option<Connection>> {
        let mut message = self.request(handle.family, u32::MAX, true, NLM_F_REQUEST);
        message[HEADER + 8..HEADER + REQUEST].copy_from_slice(&handle.id);
        self.send(message)?;
        let length = self.receive()?;
        let message = messages(&self.buffer[..length], self.sequence).next();
        match message {
            Some(Message::Socket(body)) => Ok(read_connection(body)),
            // ENOENT: no such socket. ESTALE: another one with the same addresses (`sock_diag_check_cookie`).
            Some(Message::Error(Errno::NOENT | Errno::STALE)) => Ok(None),
            Some(Message::Error(error)) => Err(error.into()),
            Some(Message::Done) | None => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Starts a dump; `false` when there is nothing of the kind (no IPv6).
    fn begin(&mut self, family: u8, filter: &Filter) -> io::Result<bool> {
        let began = cpu_time();
        let mut message = self.request(family, filter.states, filter.spoke, NLM_F_REQUEST | NLM_F_DUMP);
        let program = compile(filter);
        if !program.is_empty() {
            // Bounded by MOST_PORTS_IN_KERNEL: fits.
            let length = u16::try_from(4 + program.len()).map_err(io::Error::other)?;
            message.extend_from_slice(&length.to_ne_bytes());
            message.extend_from_slice(&INET_DIAG_REQ_BYTECODE.to_ne_bytes());
            message.extend_from_slice(&program);
        }
        let sent = self.send(message);
        self.spent += cpu_time().saturating_sub(began);
        match sent {
            Err(error) if family == AF_INET6 && error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Fetches one piece of a dump; `false` when it was the last.
    fn piece(&mut self, filter: &Filter, row: &mut dyn FnMut(Connection)) -> io::Result<bool> {
        let began = cpu_time();
        let length = self.receive()?;
        let mut more = true;
        for message in messages(&self.buffer[..length], self.sequence) {
            match message {
                Message::Socket(body) => {
                    if let Some(connection) = read_connection(body)
                        && filter.passes(&connection)
                    {
                        row(connection);
                    }
                }
                Message::Done => more = false,
                Message::Error(error) => return Err(error.into()),
            }
        }
        self.spent += cpu_time().saturating_sub(began);
        Ok(more)
    }

    fn request(&mut self, family: u8, states: u32, spoke: bool, flags: u16) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        let extensions = if spoke { 1 << (INET_DIAG_INFO - 1) } else { 0u8 };
        let mut message = vec![0; HEADER + REQUEST];
        message[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        message[6..8].copy_from_slice(&flags.to_ne_bytes());
        message[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        message[HEADER..HEADER + 4].copy_from_slice(&[family, IPPROTO_TCP, extensions, 0]);
        message[HEADER + 4..HEADER + 8].copy_from_slice(&states.to_ne_bytes());
        message
    }

    fn send(&self, mut message: Vec<u8>) -> io::Result<()> {
        let length = u32::try_from(message.len()).map_err(io::Error::other)?;
        message[..4].copy_from_slice(&length.to_ne_bytes());
        send(&self.socket, &message, SendFlags::empty())?;
        Ok(())
    }

    fn receive(&mut self) -> io::Result<usize> {
        loop {
            match recv(&self.socket, &mut self.buffer[..], RecvFlags::empty()) {
                Ok((length, _)) => return Ok(length),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => wait_readable(&self.socket, ANSWER)?,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

enum Message<'a> {
    Socket(&'a [u8]),
    Done,
    Error(Errno),
}

/// Takes an answer apart; leaves out what belongs to an earlier question that nobody read to its end.
fn messages(mut rest: &[u8], sequence: u32) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        loop {
            let length = usize::try_from(word(rest, 0)?).ok()?;
            let kind = u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?);
            let answers = word(rest, 8)?;
            let body = rest.get(HEADER..length)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            if answers != sequence {
                continue;
            }
            return match kind {
                NLMSG_DONE => Some(Message::Done),
                NLMSG_ERROR => {
                    let number = word(body, 0).unwrap_or_default().cast_signed();
                    Some(Message::Error(Errno::from_raw_os_error(number.wrapping_neg())))
                }
                _ => Some(Message::Socket(body)),
            };
        }
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Reads `struct inet_diag_msg` and the attributes behind it.
fn read_connection(body: &[u8]) -> Option<Connection> {
    let (fixed, mut rest) = (body.get(..MESSAGE)?, body.get(MESSAGE..)?);
    let (family, state) = (fixed[0], State::from_kernel(fixed[1]));
    let id: [u8; ID] = fixed[4..4 + ID].try_into().ok()?;
    let mut spoke = None;
    while let Some(head) = rest.get(..4) {
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let Some(value) = rest.get(4..length) else { break };
        if u16::from_ne_bytes([head[2], head[3]]) == INET_DIAG_INFO {
            spoke = read_spoke(value);
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    let address = |port: usize, address: usize| {
        let port = u16::from_be_bytes([id[port], id[port + 1]]);
        let bytes: [u8; 16] = id[address..address + 16].try_into().ok()?;
        let address: IpAddr = match family {
            AF_INET => Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
            AF_INET6 => Ipv6Addr::from(bytes).into(),
            _ => return None,
        };
        Some(SocketAddr::new(canonical(address), port))
    };
    let send_queue = word(fixed, 60)?;
    // What has been acknowledged, and what has not.
    if let Some(spoke) = &mut spoke {
        spoke.sent = spoke.sent.saturating_add(send_queue.into());
    }
    Some(Connection {
        handle: Some(Handle { family, id }),
        state,
        local: address(0, 4)?,
        peer: address(2, 20)?,
        receive_queue: word(fixed, 56)?,
        send_queue,
        is_held: word(fixed, 68)? != 0,
        spoke,
        // `idiag_expires`, in milliseconds.
        closed: closed_ago(state, Duration::from_millis(word(fixed, 52)?.into())),
    })
}

/// Picks from `struct tcp_info` (include/uapi/linux/tcp.h), which only ever grows at its end; `None` on a kernel
/// before 4.6, whose structure ends before `tcpi_data_segs_out`.
fn read_spoke(info: &[u8]) -> Option<Spoke> {
    let millis = |at: usize| Some(Duration::from_millis(word(info, at)?.into()));
    let micros = |at: usize| Some(Duration::from_micros(word(info, at)?.into()));
    let sent_segments = word(info, 156)?;
    Some(Spoke {
        since_sent: millis(44)?,
        since_received: millis(52)?,
        since_acknowledged: millis(56)?,
        sent: u64::from_ne_bytes(info.get(120..128)?.try_into().ok()?),
        received: u64::from_ne_bytes(info.get(128..136)?.try_into().ok()?),
        received_segments: word(info, 152)?,
        sent_segments,
        bare_segments: word(info, 136)?.wrapping_sub(sent_segments),
        delayed_acknowledgement: micros(12)?,
        round_trip: micros(68)?,
    })
}

/// Writes the filter's ports as a program for the kernel (`inet_diag_bc_run`): for each port "at least" and "at
/// most", then a jump to the end, which means yes; the last miss jumps past the end, which means no.
/// `INET_DIAG_BC_S_EQ` would be shorter, but is younger than some kernels in use.
fn compile(filter: &Filter) -> Vec<u8> {
    let source = filter.local_ports.iter().map(|&port| (INET_DIAG_BC_S_GE, INET_DIAG_BC_S_LE, port));
    let peer = filter.peer_ports.iter().map(|&port| (INET_DIAG_BC_D_GE, INET_DIAG_BC_D_LE, port));
    let tests: Vec<(u8, u8, u16)> = source.chain(peer).collect();
    if tests.len() > MOST_PORTS_IN_KERNEL {
        return Vec::new();
    }
    // Bytes of one port's part: two comparisons of two words, one jump of one word.
    const PART: u16 = 20;
    let mut program = Vec::with_capacity(tests.len() * usize::from(PART));
    let mut left = PART.saturating_mul(u16::try_from(tests.len()).unwrap_or(0));
    let mut put = |code: u8, yes: u8, no: u16| {
        program.extend_from_slice(&[code, yes]);
        program.extend_from_slice(&no.to_ne_bytes());
    };
    for (at_least, at_most, port) in tests {
        // Where a miss goes on: at the next port's part, or past the end after the last.
        let miss = |passed: u16| if left == PART { PART - passed + 4 } else { PART - passed };
        put(at_least, 8, miss(0));
        put(0, 0, port);
        put(at_most, 8, miss(8));
        put(0, 0, port);
        put(INET_DIAG_BC_JMP, 4, left - 16);
        left -= PART;
    }
    program
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    fn established(ports: &[u16]) -> Filter {
        Filter { states: State::Established.bit(), local_ports: ports.to_vec(), peer_ports: Vec::new(), spoke: true }
    }

    fn dump(filter: &Filter) -> Vec<Connection> {
        let mut found = Vec::new();
        let mut diag = Diag::open().expect("sock_diag is here");
        diag.dump_at_once(filter, &mut |connection| found.push(connection)).expect("it dumps");
        found
    }

    #[test]
    fn the_kernel_filters_by_port_in_both_families() {
        for (bind, connect) in [("127.0.0.1:0", None), ("[::1]:0", None), ("[::]:0", Some("127.0.0.1"))] {
            let listeners: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind(bind).expect("a free port")).collect();
            let mut pairs = Vec::new();
            for listener in &listeners {
                let mut address = listener.local_addr().expect("bound");
                if let Some(other) = connect {
                    address.set_ip(other.parse().expect("an address"));
                }
                let mut client = TcpStream::connect(address).expect("it listens");
                client.write_all(b"hello").expect("there is room");
                pairs.push((listener.accept().expect("a connection"), client));
            }
            let ports: Vec<u16> = listeners.iter().map(|l| l.local_addr().expect("bound").port()).collect();
            for wanted in [&ports[..1], &ports[1..2], &ports[1..], &ports[..]] {
                let mut seen: Vec<u16> = dump(&established(wanted)).iter().map(|c| c.local.port()).collect();
                seen.sort_unstable();
                let mut wanted = wanted.to_vec();
                wanted.sort_unstable();
                assert_eq!(seen, wanted, "{bind}");
            }
            let one = dump(&established(&ports[..1])).remove(0);
            assert_eq!(one.peer, canonical_address(pairs[0].1.local_addr().expect("connected")));
            assert_eq!(one.receive_queue, 5);
            assert_eq!(one.spoke.map(|s| (s.received, s.sent_segments)), Some((5, 0)));
            assert!(one.is_held);
        }
    }

    fn canonical_address(address: SocketAddr) -> SocketAddr {
        SocketAddr::new(canonical(address.ip()), address.port())
    }

    #[test]
    fn a_handle_finds_its_socket_and_no_other() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let port = listener.local_addr().expect("bound").port();
        let waiting = dump(&established(&[port])).remove(0);
        assert!(!waiting.is_held, "nobody has accepted it");
        let mut diag = Diag::open().expect("sock_diag is here");
        let handle = waiting.handle.expect("a dump gives one");
        assert_eq!(diag.query(&handle).expect("it answers").map(|c| c.local), Some(waiting.local));
        let mut other = handle;
        other.id[ID - 1] ^= 1;
        assert_eq!(diag.query(&other).expect("it answers"), None);
        drop((client, listener));
        assert_eq!(diag.query(&handle).expect("it answers"), None);
    }

    #[test]
    fn programs_are_what_the_kernel_expects() {
        assert!(compile(&Filter::listeners()).is_empty());
        let program = compile(&established(&[80]));
        let words: Vec<(u8, u8, u16)> =
            program.chunks(4).map(|c| (c[0], c[1], u16::from_ne_bytes([c[2], c[3]]))).collect();
        assert_eq!(words, [(2, 8, 24), (0, 0, 80), (3, 8, 16), (0, 0, 80), (1, 4, 4)]);
        assert!(compile(&established(&[1; MOST_PORTS_IN_KERNEL + 1])).is_empty());
        assert_eq!(dump(&established(&(1..=64).collect::<Vec<u16>>())), []);
    }

    #[test]
    fn garbage_is_no_socket() {
        assert_eq!(read_connection(&[2; 71]), None);
        assert!(messages(&[255; 64], u32::MAX).next().is_none());
        assert!(messages(&[], 1).next().is_none());
        let mut zero = [0; 64];
        zero[8] = 1;
        assert!(messages(&zero, 1).next().is_none());
    }
}
