//! As much of an HTTP client as the demo needs, written out so that it can tell *how* a request failed: refused, closed
//! before the first byte of an answer, or cut in the middle of one.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Longer than any hook (grace is 30 s) and any answer of the server (2 s).
const PATIENCE: Duration = Duration::from_secs(40);

/// How a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No connection.
    Refused,
    /// The connection ended before the first byte of an answer.
    Unanswered,
    /// The connection ended within the answer.
    Truncated,
    /// No answer within [`PATIENCE`], or one that is no HTTP.
    Other,
}

/// One connection to a server, kept alive for as long as both sides want.
pub struct Connection {
    stream: TcpStream,
    /// Answers received on it: with one or more of them it is *reused*.
    pub answers: u32,
}

impl Connection {
    pub fn new(stream: TcpStream) -> Self {
        let _ = stream.set_nodelay(true);
        Self { stream, answers: 0 }
    }

    /// Sends the request as given and returns the answer's status once all of it has arrived.
    ///
    /// # Errors
    /// How it failed; the connection is of no use any more.
    pub async fn exchange(&mut self, request: &str) -> Result<u16, Fault> {
        match timeout(PATIENCE, self.send_and_receive(request)).await {
            Ok(result) => result,
            Err(_) => Err(Fault::Other),
        }
    }

    async fn send_and_receive(&mut self, request: &str) -> Result<u16, Fault> {
        // A server that has closed may still have answered: only reading tells.
        let _ = self.send(request.as_bytes()).await;
        self.receive().await
    }

    /// # Errors
    /// The connection has ended; whether there was an answer before, only [`Self::receive`] tells.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The answer's status, once all of the answer has arrived; waits for as long as that takes.
    ///
    /// # Errors
    /// How it failed; the connection is of no use any more.
    pub async fn receive(&mut self) -> Result<u16, Fault> {
        let mut answer = Vec::with_capacity(512);
        loop {
            if let Some((status, whole)) = parse(&answer)
                && answer.len() >= whole
            {
                self.answers += 1;
                return Ok(status);
            }
            match self.stream.read_buf(&mut answer).await {
                Ok(1..) => {}
                _ if answer.is_empty() => return Err(Fault::Unanswered),
                _ => return Err(Fault::Truncated),
            }
        }
    }

    /// What follows an answer that changes the protocol.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Returns when the server has closed the connection, which HTTP clients notice also while they are idle.
    pub async fn closed(&mut self) {
        let mut unexpected = [0; 64];
        while matches!(self.stream.read(&mut unexpected).await, Ok(1..)) {}
    }
}

/// Status and whole length of an answer whose head is complete, and its last chunk if it is sent in chunks; an answer
/// that has neither chunks nor Content-Length has no body.
fn parse(answer: &[u8]) -> Option<(u16, usize)> {
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&answer[..head]).ok()?;
    let status = text.split(' ').nth(1)?.parse().ok()?;
    let field = |wanted: &str| {
        let mut fields = text.lines().filter_map(|line| line.split_once(':'));
        fields.find_map(|(name, value)| name.eq_ignore_ascii_case(wanted).then(|| value.trim()))
    };
    let body = match field("transfer-encoding") {
        Some(coding) if coding.eq_ignore_ascii_case("chunked") => chunks(&answer[head..])?,
        _ => field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0),
    };
    Some((status, head + body))
}

/// The length of a body in chunks, if its end is there; nobody here sends trailers.
fn chunks(body: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = body.get(at..)?.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&body[at..at + line]).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        at += line + 2 + size + 2;
        if size == 0 {
            return (body.len() >= at).then_some(at);
        }
    }
}

/// What a failed connect means to a client.
pub fn connect_fault(error: &io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Fault::Refused,
        _ => Fault::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_last_byte() {
        let cases: [(&str, Option<(u16, usize)>); 6] = [
            ("", None),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n", None),
            ("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n", Some((503, 57))),
            ("HTTP/1.1 204 No Content\r\n\r\n", Some((204, 27))),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", None),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Some((200, 59))),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text.as_bytes()), expected, "{text:?}");
        }
    }

    /// A server that reads a request and then sends these bytes and closes.
    async fn against(answer: &'static str) -> Result<u16, Fault> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        });
        let mut connection = Connection::new(TcpStream::connect(address).await.expect("connected"));
        let result = connection.exchange("GET / HTTP/1.1\r\n\r\n").await;
        server.await.expect("no panic");
        result
    }

    #[tokio::test]
    async fn tells_how_a_request_failed() {
        assert_eq!(against("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await, Ok(200));
        assert_eq!(against("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no").await, Err(Fault::Truncated));
        assert_eq!(against("HTTP/1.1 2").await, Err(Fault::Truncated));
        assert_eq!(against("").await, Err(Fault::Unanswered));
    }
}
