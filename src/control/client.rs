//! The calling side: one request over a blocking socket, without a runtime, since a hook's subcommand should cost
//! little more than the start of a process.

use std::{
    fmt,
    io::{self, ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{self as sys, AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt},
};

use super::{Lock, Peer, name};

/// No answer of the agent is longer; `/report` is the longest.
const LONGEST_ANSWER: u64 = 1024 * 1024;
/// How often a caller that lost its agent tries again. With the pauses below this is about four seconds, and each
/// attempt that waited for a hook comes on top.
const ATTEMPTS: u32 = 200;
const LONGEST_PAUSE: Duration = Duration::from_millis(20);
/// To learn who holds the socket, no longer than this.
const GLANCE: Duration = Duration::from_millis(200);

/// What the agent answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    pub fn is_success(&self) -> bool {
        self.status / 100 == 2
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub enum CallError {
    /// Nobody listens.
    NoAgent,
    /// Somebody listens that does not take calls from us, or that we must not believe.
    NotPermitted(Peer),
    /// The agent ended before it answered.
    Lost,
    TimedOut,
    /// What answered does not speak as an agent does.
    Garbled,
    Failed(io::Error),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAgent => {
                f.write_str("no agent runs in this container\n  help: start it with `boathook run` or `boathook serve`")
            }
            Self::NotPermitted(peer) => write!(
                f,
                "not permitted: the control socket is held by {peer}, and only the same user and root may call\n  \
                 help: let the hook run as the same user as the agent"
            ),
            Self::Lost => f.write_str("the agent ended before it answered"),
            Self::TimedOut => f.write_str("the agent did not answer in time"),
            Self::Garbled => f.write_str("the control socket's holder does not answer as an agent does"),
            Self::Failed(error) => write!(f, "control socket: {error}"),
        }
    }
}

impl std::error::Error for CallError {}

/// Asks the agent: `call("GET", "/ready", …)`. The timeout is for the whole call; without one it waits for as long
/// as the agent lives.
///
/// # Errors
/// There is no answer.
pub fn call(method: &str, path: &str, timeout: Option<Duration>) -> Result<Answer, CallError> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let mut stream = connect(timeout)?;
    let peer = Peer::of(&stream).map_err(CallError::Failed)?;
    if !((peer.is_trusted() || peer.is_entrypoint_for_root()) && peer.admits_us()) {
        return Err(CallError::NotPermitted(peer));
    }
    let request = [
        method,
        " ",
        path,
        concat!(
            " HTTP/1.1\r\nHost: boathook\r\nUser-Agent: boathook/",
            env!("CARGO_PKG_VERSION"),
            "\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        ),
    ]
    .concat();
    stream.set_write_timeout(timeout).map_err(CallError::Failed)?;
    stream.write_all(request.as_bytes()).map_err(meaning)?;
    let text = read_all(stream, deadline)?;
    let answer = parse(&text)?;
    if answer.status == 403 { Err(CallError::NotPermitted(peer)) } else { Ok(answer) }
}

/// What [`join_or_lead`] came to.
#[derive(Debug)]
pub enum Joined {
    /// There is no agent, and the lock is ours: run the hook, and serve whoever joins meanwhile.
    Lead(Lock),
    /// The agent, or whoever led, answered.
    Answer(Answer),
}

/// Joins the hook that runs, or becomes the one who runs it: exactly one of many callers leads, and when that one is
/// killed, exactly one of the others follows.
///
/// # Errors
/// Neither was possible; [`CallError::Lost`] when one leader after the other ended without an answer.
pub fn join_or_lead(method: &str, path: &str, timeout: Option<Duration>) -> Result<Joined, CallError> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let mut pause = Duration::from_millis(1);
    for _ in 0..ATTEMPTS {
        match Lock::bind() {
            Ok(lock) => return Ok(Joined::Lead(lock)),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            Err(error) => return Err(CallError::Failed(error)),
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Err(CallError::TimedOut);
        }
        match call(method, path, left) {
            // Bound but not yet listening, or gone again.
            Err(CallError::NoAgent | CallError::Lost) => {}
            Err(error) => return Err(error),
            Ok(answer) => return Ok(Joined::Answer(answer)),
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Err(CallError::Lost)
}

/// Who holds the socket.
pub(super) fn holder() -> Option<Peer> {
    connect(Some(GLANCE)).ok().and_then(|stream| Peer::of(&stream).ok())
}

fn connect(timeout: Option<Duration>) -> Result<UnixStream, CallError> {
    let connect = || {
        let socket = sys::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // A Unix connect waits while the backlog is full (the agent is stopped, say): this bounds it as well.
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, timeout)?;
        sys::connect(&socket, &SocketAddrUnix::new_abstract_name(&name())?)?;
        Ok(socket)
    };
    connect().map(UnixStream::from).map_err(|errno: Errno| match errno {
        Errno::CONNREFUSED => CallError::NoAgent,
        Errno::AGAIN => CallError::TimedOut,
        other => CallError::Failed(other.into()),
    })
}

/// Everything up to the end of the stream.
fn read_all(stream: UnixStream, deadline: Option<Instant>) -> Result<Vec<u8>, CallError> {
    let mut text = Vec::new();
    let mut stream = stream.take(LONGEST_ANSWER);
    let mut chunk = [0; 4096];
    loop {
        if let Some(deadline) = deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(CallError::TimedOut);
            }
            stream.get_ref().set_read_timeout(Some(left)).map_err(CallError::Failed)?;
        }
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(text),
            Ok(read) => text.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // The answer may be here even though the agent ended right after it.
            Err(error) => return if text.is_empty() { Err(meaning(error)) } else { Ok(text) },
        }
    }
}

fn meaning(error: io::Error) -> CallError {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => CallError::TimedOut,
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => CallError::Lost,
        _ => CallError::Failed(error),
    }
}

/// Reads an answer of the agent: a status line, headers with a `Content-Length`, a body of that length.
fn parse(text: &[u8]) -> Result<Answer, CallError> {
    let Some(end) = text.windows(4).position(|window| window == b"\r\n\r\n") else {
        // Cut off in the head is as good as nothing.
        return Err(if text.len() as u64 == LONGEST_ANSWER { CallError::Garbled } else { CallError::Lost });
    };
    let head = std::str::from_utf8(&text[..end]).map_err(|_| CallError::Garbled)?;
    let body = &text[end + 4..];
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 "))
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .ok_or(CallError::Garbled)?;
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok())
        .ok_or(CallError::Garbled)?;
    let body = body.get(..length).ok_or(CallError::Lost)?;
    Ok(Answer { status, body: String::from_utf8_lossy(body).into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_whole_or_none() {
        let read = |text: &str| match parse(text.as_bytes()) {
            Ok(answer) => format!("{} {}", answer.status, answer.body),
            Err(error) => format!("{error:?}"),
        };
        for (text, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "200 hi"),
            ("HTTP/1.1 500 Internal Server Error\r\ncontent-type: x\r\ncontent-length: 2\r\n\r\nhi!", "500 hi"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi", "Lost"),
            ("HTTP/1.1 200 OK\r\nContent-Le", "Lost"),
            ("", "Lost"),
            ("HTTP/1.1 200 OK\r\n\r\nhi", "Garbled"),
            ("HTTP/1.1 2é0 OK\r\nContent-Length: 2\r\n\r\nhi", "Garbled"),
            ("220 mail\r\n\r\n", "Garbled"),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }
}
