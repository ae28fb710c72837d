//! A kubelet by hand: the exact bytes of Kubernetes 1.36 (pkg/kubelet/lifecycle/handlers.go through Go's net/http), a
//! connection that is kept and used again, and Go's one retry on a fresh connection when a reused one closes before
//! the first byte of an answer. Also other clients, on a connection each.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
};

use super::PATIENCE;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// All headers as they came, with the status line.
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("no JSON: {error}: {}", self.body))
    }
}

/// What the kubelet calls a failed hook: a transport error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    Refused,
    /// Closed, or reset, before the first byte of an answer.
    Dropped,
    /// Closed in the middle of an answer.
    Cut,
    /// Nothing came for as long as a test waits.
    Silent,
}

/// The kubelet's HTTP client for one container.
pub struct Kubelet {
    address: SocketAddr,
    idle: Option<TcpStream>,
    /// The hook's `httpHeaders`, each line with its end.
    pub headers: String,
    /// Connections opened so far.
    pub connections: u32,
    /// Requests written so far, retries included.
    pub requests: u32,
}

impl Kubelet {
    pub fn of(address: SocketAddr) -> Self {
        Self { address, idle: None, headers: String::new(), connections: 0, requests: 0 }
    }

    /// With this token among the hook's `httpHeaders`.
    pub fn with_token(mut self, token: &str) -> Self {
        self.headers = format!("Authorization: Bearer {token}\r\n");
        self
    }

    /// Whether a connection is kept for the next request.
    pub fn has_idle(&self) -> bool {
        self.idle.is_some()
    }

    /// What is sent for a hook: no `Connection` header, only GET.
    pub fn bytes(&self, path: &str) -> String {
        format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: kube-lifecycle/1.36\r\nAccept: */*\r\n{}Accept-Encoding: gzip\r\n\r\n",
            self.address, self.headers
        )
    }

    /// Calls a hook.
    pub fn call(&mut self, path: &str) -> Result<Answer, NoAnswer> {
        let request = self.bytes(path);
        if let Some(stream) = self.idle.take() {
            match self.attempt(stream, &request) {
                // net/http: persistConn.shouldRetryRequest, for a request that can be repeated (GET).
                Err(NoAnswer::Dropped) => {}
                ended => return ended,
            }
        }
        let stream = TcpStream::connect(self.address).map_err(|_| NoAnswer::Refused)?;
        self.connections += 1;
        self.attempt(stream, &request)
    }

    fn attempt(&mut self, mut stream: TcpStream, request: &str) -> Result<Answer, NoAnswer> {
        self.requests += 1;
        if stream.write_all(request.as_bytes()).is_err() {
            return Err(NoAnswer::Dropped);
        }
        let answer = read_answer(&mut stream)?;
        if !answer.head.to_ascii_lowercase().contains("\r\nconnection: close") {
            self.idle = Some(stream);
        }
        Ok(answer)
    }
}

/// One request on a connection of its own, as curl would send it; `headers` with their line ends.
#[track_caller]
pub fn request(address: SocketAddr, method: &str, path: &str, headers: &str) -> Answer {
    try_request(address, method, path, headers).expect("an answer")
}

/// The same where there may be no answer.
pub fn try_request(address: SocketAddr, method: &str, path: &str, headers: &str) -> Result<Answer, NoAnswer> {
    let mut stream = send(address, method, path, headers)?;
    read_answer(&mut stream)
}

/// Sends a request and gives its connection, for a caller that goes away or waits later.
pub fn send(address: SocketAddr, method: &str, path: &str, headers: &str) -> Result<TcpStream, NoAnswer> {
    let agent = if headers.contains("User-Agent:") { "" } else { "User-Agent: curl/8.0\r\n" };
    let mut stream = TcpStream::connect(address).map_err(|_| NoAnswer::Refused)?;
    let text = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n{agent}{headers}Connection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).map_err(|_| NoAnswer::Dropped)?;
    Ok(stream)
}

/// Reads one answer whose length is announced.
pub fn read_answer(stream: &mut TcpStream) -> Result<Answer, NoAnswer> {
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some(answer) = parse(&bytes) {
            return Ok(answer);
        }
        match stream.read(&mut chunk) {
            Ok(0) if bytes.is_empty() => return Err(NoAnswer::Dropped),
            Ok(0) => return Err(NoAnswer::Cut),
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err(NoAnswer::Silent);
            }
            Err(_) if bytes.is_empty() => return Err(NoAnswer::Dropped),
            Err(_) => return Err(NoAnswer::Cut),
        }
    }
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    })?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    (body.len() >= length).then(|| Answer { status, head: format!("{head}\r\n"), body: body.to_owned() })
}
