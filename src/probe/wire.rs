//! A conversation with a server whose protocol is not HTTP: a connection, and what was read from it. Bounded, because
//! whoever is at the other end may say anything and for ever; its time is the caller's.

use std::{fmt, path::PathBuf};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    client::{
        connect::{Stream, connect_tcp, connect_unix},
        files,
        url::split_host_port,
    },
    problem::Scope,
    process::Processes,
    step::Progress,
    value::printable,
};

/// No greeting, banner or refusal is nearly as long.
pub const MOST: usize = 64 << 10;
/// What is taken at once: more than any answer that is expected here.
const CHUNK: usize = 4 << 10;
/// So many characters of what a server said are shown in a reason; as of an HTTP answer.
const SHOWN: usize = 120;

/// Where a server is.
#[derive(Clone, Debug)]
pub enum Peer {
    Tcp(String, u16),
    Unix(PathBuf),
}

impl Peer {
    /// `host:port`, `host` where the protocol has a usual port, or the absolute path of a socket. `None` when a problem
    /// was noted.
    pub fn mean(key: &str, text: &str, port: Option<u16>, scope: &mut Scope<'_>) -> Option<Peer> {
        if port.is_some() && text.starts_with('/') {
            return Some(Peer::Unix(text.into()));
        }
        let what = match (split_host_port(text), port) {
            (Ok((host, Some(port))), _) | (Ok((host, None)), Some(port)) => return Some(Peer::Tcp(host, port)),
            (Ok((_, None)), None) => format!("`{text}` has no port"),
            (Err(why), _) => why,
        };
        let help = if port.is_some() { "write \"host:port\", or a socket's path" } else { "write \"host:port\"" };
        scope.problem(key, what, Some(help.into()));
        None
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Peer::Tcp(host, port) => write!(f, "{host}:{port}"),
            Peer::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// An open connection.
pub struct Wire {
    stream: Box<dyn Stream>,
    /// What came and was not taken yet.
    seen: Vec<u8>,
    chunk: Vec<u8>,
}

impl Wire {
    /// Connects, and says so: should the server then say nothing, that is the reason.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn open(peer: &Peer, processes: &Processes, progress: &Progress) -> Result<Wire, String> {
        let stream: Box<dyn Stream> = match peer {
            Peer::Tcp(host, port) => Box::new(connect_tcp(host, *port, processes).await?),
            Peer::Unix(path) => Box::new(connect_unix(path).await?),
        };
        progress.set(format!("{peer}: connected, no answer yet"));
        Ok(Wire { stream, seen: Vec::new(), chunk: vec![0; CHUNK] })
    }

    /// # Errors
    /// The connection is gone.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stream.write_all(bytes).await.map_err(|error| files::reason(&error))
    }

    /// Reads until there are so many bytes, and leaves them there: it may turn out to be another protocol, which is then
    /// shown.
    ///
    /// # Errors
    /// The server closed the connection before that, or there would be too many.
    pub async fn peek(&mut self, count: usize) -> Result<&[u8], String> {
        while self.seen.len() < count {
            self.read().await?;
        }
        Ok(&self.seen[..count])
    }

    /// Reads so many bytes.
    ///
    /// # Errors
    /// As [`Wire::peek`].
    pub async fn take(&mut self, count: usize) -> Result<Vec<u8>, String> {
        self.peek(count).await?;
        let rest = self.seen.split_off(count);
        Ok(std::mem::replace(&mut self.seen, rest))
    }

    /// Reads up to and with this text; `tell` is told whenever more has come.
    ///
    /// # Errors
    /// The server closed the connection before that, or sent too much else.
    pub async fn take_through(&mut self, text: &[u8], tell: &(dyn Fn(&Wire) + Sync)) -> Result<Vec<u8>, String> {
        let mut searched = 0;
        loop {
            // What was searched already cannot hold more than the beginning of it.
            let from = searched - searched.min(text.len().saturating_sub(1));
            if let Some(at) = self.seen[from..].windows(text.len().max(1)).position(|window| window == text) {
                return self.take(from + at + text.len()).await;
            }
            searched = self.seen.len();
            self.read().await?;
            tell(self);
        }
    }

    /// Reads and forgets until the server closes: closing while something is unread resets the connection, which some
    /// servers log as broken.
    pub async fn see_off(mut self) {
        let mut total = 0;
        while let (true, Ok(count @ 1..)) = (total < MOST, self.stream.read(&mut self.chunk).await) {
            total += count;
        }
    }

    /// The beginning of what came and was not taken, as far as it can be shown.
    pub fn show(&self) -> String {
        show(&self.seen)
    }

    async fn read(&mut self) -> Result<(), String> {
        if self.seen.len() >= MOST {
            return Err(format!("it sent {MOST} bytes that are no answer: {}", self.show()));
        }
        let after = |seen: &[u8]| match show(seen) {
            shown if seen.is_empty() || shown.is_empty() => String::new(),
            shown => format!(" after: {shown}"),
        };
        match self.stream.read(&mut self.chunk).await {
            Ok(0) => Err(format!("it closed the connection{}", after(&self.seen))),
            Ok(count) => {
                self.seen.extend_from_slice(&self.chunk[..count]);
                Ok(())
            }
            Err(error) => Err(format!("{}{}", files::reason(&error), after(&self.seen))),
        }
    }
}

/// The beginning of what a server said, as far as it can be shown.
pub fn show(bytes: &[u8]) -> String {
    // Four bytes are the most that a character takes.
    printable(&String::from_utf8_lossy(&bytes[..bytes.len().min(4 * (SHOWN + 1))]), SHOWN)
}
