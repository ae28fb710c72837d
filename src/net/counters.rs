//! The TCP counters of the network namespace, `/proc/net/snmp`: read in about 20 µs, however many connections
//! there are. `PassiveOpens` grows with every handshake that a listener completes (`tcp_create_openreq_child` in
//! the kernel's `net/ipv4/tcp_minisocks.c`), so no connection is too short to be counted. IPv6 counts there too
//! (`tcp_statistics` is shared), and so does loopback.

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    sync::atomic::{AtomicU16, AtomicU64, Ordering::Relaxed},
};

use rustix::io::pread;
use tokio::net::TcpStream;

use super::is_local;

/// Connections that this process has made to listeners of its own network namespace.
static OWN: AtomicU64 = AtomicU64::new(0);
/// Where this process accepts connections itself, and counts them there. None is 0, to which nobody connects.
static OWN_PORT: AtomicU16 = AtomicU16::new(0);

/// Connections to this port are counted where they are accepted.
pub fn set_own_port(port: u16) {
    OWN_PORT.store(port, Relaxed);
}

/// Notes a connection that this process has made, if it was counted here at its other end.
pub fn note_own_connection(stream: &TcpStream) {
    if let (Ok(local), Ok(peer)) = (stream.local_addr(), stream.peer_addr())
        && is_local(local.ip(), peer.ip())
        && peer.port() != OWN_PORT.load(Relaxed)
    {
        OWN.fetch_add(1, Relaxed);
    }
}

/// How many there were.
pub fn own_connections() -> u64 {
    OWN.load(Relaxed)
}

/// One reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Connections accepted by the kernel since the namespace was made; `None` where a sandbox leaves it out.
    pub passive_opens: Option<u64>,
    /// Segments received and sent: while this stands still, no byte has moved in the namespace.
    pub segments: Option<u64>,
}

impl Reading {
    /// Connections accepted by the kernel, less so many.
    pub fn others_than(&self, own: i64) -> Option<i64> {
        self.passive_opens.map(|opens| opens.cast_signed().wrapping_sub(own))
    }
}

/// The file, kept open: a read at offset 0 makes the kernel write it anew.
#[derive(Debug)]
pub struct Counters(OwnedFd);

impl Counters {
    /// # Errors
    /// There is no `/proc`, or it is hidden.
    pub fn open() -> io::Result<Self> {
        Ok(Self(File::open("/proc/net/snmp")?.into()))
    }

    /// # Errors
    /// The file cannot be read.
    pub fn read(&self) -> io::Result<Reading> {
        // About 1.5 KB on Linux 6; IcmpMsg, before Tcp, can grow by some hundred bytes.
        let mut buffer = [0; 6144];
        let length = pread(&self.0, &mut buffer, 0)?;
        Ok(parse(&buffer[..length]))
    }
}

/// Finds the two `Tcp:` lines, names and then numbers, and picks by name: kernels append columns.
fn parse(text: &[u8]) -> Reading {
    let mut lines = text.split(|&byte| byte == b'\n').filter(|line| line.starts_with(b"Tcp: "));
    let (Some(names), Some(numbers)) = (lines.next(), lines.next()) else { return Reading::default() };
    let (mut opens, mut received, mut sent) = (None, None, None);
    for (name, number) in names.split(|&b| b == b' ').zip(numbers.split(|&b| b == b' ')) {
        let place = match name {
            b"PassiveOpens" => &mut opens,
            b"InSegs" => &mut received,
            b"OutSegs" => &mut sent,
            _ => continue,
        };
        *place = std::str::from_utf8(number).ok().and_then(|number| number.parse::<u64>().ok());
    }
    Reading {
        passive_opens: opens,
        segments: received.and_then(|received| sent.map(|sent| received.wrapping_add(sent))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_by_name() {
        let text = b"Ip: A B\nIp: 1 2\nTcp: RtoAlgorithm MaxConn PassiveOpens InSegs OutSegs New\nTcp: 1 -1 7 30 12 9\nUdp: X\nUdp: 0\n";
        assert_eq!(parse(text), Reading { passive_opens: Some(7), segments: Some(42) });
    }

    #[test]
    fn says_nothing_where_nothing_is_said() {
        for text in ["", "Tcp: PassiveOpens\n", "Tcp: A\nTcp: 1\n", "Tcp: PassiveOpens\nTcp: x\n"] {
            assert_eq!(parse(text.as_bytes()), Reading::default(), "{text}");
        }
    }

    #[test]
    fn reads_the_kernel() {
        let counters = Counters::open().expect("/proc is there");
        let before = counters.read().expect("it can be read");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let _client = std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let after = counters.read().expect("it can be read");
        assert!(after.passive_opens > before.passive_opens, "{before:?} {after:?}");
        assert!(after.segments > before.segments, "{before:?} {after:?}");
    }
}
