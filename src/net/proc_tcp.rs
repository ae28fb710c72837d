//! `/proc/net/tcp` and `/proc/net/tcp6`: the socket list as text, for where sock_diag is refused or missing. It
//! has states, addresses and queues, but nobody can see in it who spoke last. A read costs about twice a dump by
//! sock_diag and always shows every socket of the network namespace.

use std::{
    fs::File,
    io::{self, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use super::{Connection, Filter, State, canonical, closed_ago, cpu_time};

const FILES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];
/// About 200 rows, some 200 µs of the kernel's time: what is read before others may run.
const PIECE: usize = 32 * 1024;

/// Shows every socket that the filter passes and lets other tasks run in between; returns the processor time it took.
///
/// # Errors
/// There is no `/proc`, or it is hidden.
pub async fn read(filter: &Filter, row: &mut (dyn FnMut(Connection) + Send)) -> io::Result<Duration> {
    let mut spent = Duration::ZERO;
    for path in FILES {
        let mut reader = Reader::open(path)?;
        loop {
            let began = cpu_time();
            let more = reader.piece(filter, row)?;
            spent += cpu_time().saturating_sub(began);
            if !more {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    Ok(spent)
}

/// All listeners, without letting anybody run in between. Linux shows them before all other sockets
/// (`listening_get_first` in net/ipv4/tcp_ipv4.c), of which there may be very many: after enough of those it ends.
///
/// # Errors
/// There is no `/proc`, or it is hidden.
pub fn read_listeners(row: &mut dyn FnMut(Connection)) -> io::Result<()> {
    for path in FILES {
        let mut reader = Reader::open(path)?;
        let mut in_vain = 0;
        while in_vain < PIECES_IN_VAIN {
            let mut found = false;
            let more = reader.piece(&Filter::listeners(), &mut |listener| {
                found = true;
                row(listener);
            })?;
            if !more {
                break;
            }
            in_vain = if found { 0 } else { in_vain + 1 };
        }
    }
    Ok(())
}

/// Some hundred rows, 3 ms; a kernel fills a piece with about 27 of them, 4 KB.
const PIECES_IN_VAIN: usize = 16;

/// Linux fills a page, 4 KB or more, as long as there are rows (`seq_read_iter` in fs/seq_file.c), so a piece this short is
/// the last. A read after it walks the whole table again (10 ms), and while new connections come it finds some of them:
/// 2000 a second, and there is no end.
const SHORT: usize = 2048;

struct Reader {
    file: Option<File>,
    buffer: Vec<u8>,
    filled: usize,
}

impl Reader {
    fn open(path: &str) -> io::Result<Self> {
        let file = match File::open(path) {
            Ok(file) => Some(file),
            // A kernel without IPv6 has no tcp6.
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.ends_with('6') => None,
            Err(error) => return Err(error),
        };
        Ok(Self { file, buffer: vec![0; PIECE], filled: 0 })
    }

    fn piece(&mut self, filter: &Filter, row: &mut dyn FnMut(Connection)) -> io::Result<bool> {
        let Some(file) = &mut self.file else { return Ok(false) };
        let length = file.read(&mut self.buffer[self.filled..])?;
        if length == 0 {
            return Ok(false);
        }
        self.filled += length;
        let whole = self.buffer[..self.filled].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        for line in self.buffer[..whole].split(|&byte| byte == b'\n') {
            if let Some(connection) = std::str::from_utf8(line).ok().and_then(parse)
                && filter.passes(&connection)
            {
                row(connection);
            }
        }
        self.buffer.copy_within(whole..self.filled, 0);
        self.filled -= whole;
        if length < SHORT {
            return Ok(false);
        }
        if self.filled == self.buffer.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line without end"));
        }
        Ok(true)
    }
}

/// One line: `sl local rem st tx:rx tr:when retrnsmt uid timeout inode …` (`get_tcp4_sock` in net/ipv4/tcp_ipv4.c).
fn parse(line: &str) -> Option<Connection> {
    let mut columns = line.split_ascii_whitespace();
    columns.next().filter(|number| number.ends_with(':'))?;
    let (local, peer) = (parse_address(columns.next()?)?, parse_address(columns.next()?)?);
    let state = State::from_kernel(u8::from_str_radix(columns.next()?, 16).ok()?);
    let (send, receive) = columns.next()?.split_once(':')?;
    let (_, left) = columns.next()?.split_once(':')?;
    let inode = columns.nth(3)?;
    Some(Connection {
        handle: None,
        state,
        local,
        peer,
        receive_queue: u32::from_str_radix(receive, 16).ok()?,
        send_queue: u32::from_str_radix(send, 16).ok()?,
        is_held: inode != "0",
        spoke: None,
        // Hundredths of a second (`jiffies_delta_to_clock_t`).
        closed: closed_ago(state, Duration::from_millis(u64::from_str_radix(left, 16).ok()?.saturating_mul(10))),
    })
}

/// `0100007F:1F90`: each 32-bit word as it lies in memory, the port as a plain number.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| Some(u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let address: IpAddr = match address.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let mut bytes = [0; 16];
            for (index, chunk) in bytes.chunks_mut(4).enumerate() {
                chunk.copy_from_slice(&word(index * 8)?);
            }
            Ipv6Addr::from(bytes).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(canonical(address), u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn reads_lines() {
        let v4 =
            "   0: 0100007F:1F90 0200007F:D431 01 00000003:00000005 00:00000000 00000000  0  0 4711 1 0 20 4 30 10 -1";
        let read = parse(v4).expect("a good line");
        assert_eq!((read.local, read.peer), (addr("127.0.0.1:8080"), addr("127.0.0.2:54321")));
        assert_eq!((read.send_queue, read.receive_queue, read.is_held), (3, 5, true));
        let mapped = "   1: 0000000000000000FFFF00000100007F:1F90 00000000000000000000000001000000:D431 06 00000000:00000000 03:00001770 00000000  0  0 0 3 0";
        let read = parse(mapped).expect("a good line");
        assert_eq!((read.local, read.peer), (addr("127.0.0.1:8080"), addr("[::1]:54321")));
        assert_eq!((read.state, read.is_held), (State::TimeWait, false));
        assert_eq!(read.closed, Some(Duration::ZERO), "0x1770 hundredths are left of a minute");
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect(text)
    }

    #[test]
    fn the_head_and_garbage_are_no_socket() {
        for line in [
            "  sl  local_address rem_address   st tx_queue",
            "",
            "0:",
            "0: ü:1 ü:2 01 0:0 0 0 0 0 0 0",
            "0: 1:2 3:4 01 0:0 0 0 0 0 0",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn sees_what_is_open() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let local = listener.local_addr().expect("bound");
        let clients: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(local).expect("it listens")).collect();
        let filter = Filter {
            states: State::Established.bit(),
            local_ports: vec![local.port()],
            peer_ports: Vec::new(),
            spoke: false,
        };
        let mut found = Vec::new();
        let mut reader = Reader::open(FILES[0]).expect("/proc is there");
        while reader.piece(&filter, &mut |connection| found.push(connection.peer)).expect("it can be read") {}
        let mut listeners = Vec::new();
        read_listeners(&mut |listener| listeners.push(listener.local)).expect("/proc is there");
        assert!(listeners.contains(&local), "{listeners:?}");
        found.sort_unstable();
        let mut expected: Vec<SocketAddr> = clients.iter().map(|c| c.local_addr().expect("connected")).collect();
        expected.sort_unstable();
        assert_eq!(found, expected);
    }
}
