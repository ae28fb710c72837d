//! Connections for many requests: what warm-up sends, one after the other on each connection. A [`Request`] is made
//! [`Ready`] once (its files are read, its TLS is set up), then asked any number of times through a [`Session`].
//! HTTP/1.1 with and without keep-alive, and HTTP/2 over TLS or, by prior knowledge, without (RFC 9113 section 3.3).
//!
//! No redirects are followed and no time limits are kept here: an answer is what the server says, and dropping the
//! future drops what it waits for.

use std::{
    fmt, io,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Method, Uri, Version,
    body::Body,
    header::{CONNECTION, HeaderValue},
};
use tokio::time::Instant;

#[cfg(feature = "http2")]
use super::http2::Share;
#[cfg(feature = "tls")]
use super::tls;
use super::{
    Failure, Line, Outgoing, Request, Wire,
    connect::{Sips, Stream, connect_any, connect_unix},
    drive, explain, files, for_good, grpc, may_pass,
    resolve::resolve,
    url::{Scheme, Url},
};
use crate::process::Processes;

/// Of an answer this much is kept: its first line, for a reason that a person reads.
const KEPT: usize = 256;
/// So long the addresses of a name are used again: a lookup is a process, and with a connection for each question there
/// may be hundreds of them a second.
const ADDRESSES_KEPT: Duration = Duration::from_secs(5);

/// HTTP's version on a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    #[default]
    Http1,
    Http2,
}

/// Where a session goes: what requests must have in common to share a connection.
#[derive(Debug)]
pub struct Route {
    pub protocol: Protocol,
    /// Its path is of no meaning.
    server: Url,
    #[cfg(feature = "tls")]
    options: tls::Options,
    #[cfg(feature = "tls")]
    tls: Option<tls::Prepared>,
    addresses: Mutex<Option<(Instant, Vec<IpAddr>)>>,
}

/// A request whose files have been read.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The same `Arc` is not promised for the same place: compare with `Route::is_same`.
    pub route: Arc<Route>,
    /// As it is sent, with `Host`, `User-Agent` and the login.
    pub question: Question,
    /// What must not be shown of an answer that repeats it.
    pub secrets: Vec<String>,
}

/// One question; cheap to clone.
#[derive(Clone, Debug)]
pub struct Question {
    pub method: Method,
    /// Path and query.
    pub path: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// A whole answer, of which only the beginning is kept.
#[derive(Debug, Default)]
pub struct Told {
    pub status: u16,
    /// Bytes of the body.
    pub size: u64,
    /// The first of them, for a reason that a person reads.
    pub beginning: Vec<u8>,
    /// `grpc-status` and `grpc-message`, from the trailers or, without a body, from the head.
    pub grpc: Option<(u32, String)>,
}

impl Told {
    pub(super) fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(super) fn take(&mut self, piece: &[u8]) {
        self.size = self.size.saturating_add(piece.len() as u64);
        let room = KEPT.saturating_sub(self.beginning.len());
        if room > 0 {
            self.beginning.extend_from_slice(&piece[..piece.len().min(room)]);
        }
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub struct NoAnswer {
    pub failure: Failure,
    /// The connection had served before and was closed before a byte of this answer: servers close idle connections, and
    /// the same question on a fresh one is not a second one (RFC 9110 section 9.2.2, as Go and browsers do).
    pub was_stale: bool,
}

impl NoAnswer {
    pub(super) fn new(reason: String, was_stale: bool) -> Self {
        Self { failure: may_pass(reason), was_stale }
    }
}

/// A connection, or a share in one.
pub struct Session {
    way: Way,
    standing: Standing,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

enum Way {
    Closed,
    Http1(Box<Kept>),
    #[cfg(feature = "http2")]
    Http2(Share),
}

/// A connection between two questions.
struct Kept {
    line: Line,
    /// Whether it has given an answer.
    has_served: bool,
}

/// How far a question is.
#[derive(Clone, Copy)]
pub(super) enum Standing {
    Asked,
    Told(u16),
}

impl Request {
    /// Reads its files and sets up its TLS.
    ///
    /// # Errors
    /// What cannot be read.
    pub async fn make_ready(&self, protocol: Protocol) -> Result<Ready, Failure> {
        if protocol == Protocol::Http2 && cfg!(not(feature = "http2")) {
            return Err(for_good(grpc::NO_HTTP2.0));
        }
        let (body, login, secrets) = self.load().await?;
        let path = self.url.path.parse().map_err(|_| for_good("the path cannot be sent"))?;
        let headers = self.headers_for(&self.url, true, login.as_ref());
        #[cfg(feature = "tls")]
        let tls = if self.url.scheme == Scheme::Https {
            let name = (protocol == Protocol::Http2).then_some("h2");
            Some(tls::Prepared::new(&self.tls, &self.url.host, name).await.map_err(may_pass)?)
        } else {
            None
        };
        let route = Arc::new(Route {
            protocol,
            server: self.url.clone(),
            #[cfg(feature = "tls")]
            options: self.tls.clone(),
            #[cfg(feature = "tls")]
            tls,
            addresses: Mutex::default(),
        });
        Ok(Ready { route, question: Question { method: self.method.clone(), path, headers, body }, secrets })
    }
}

impl Route {
    pub fn is_same(&self, other: &Route) -> bool {
        #[cfg(feature = "tls")]
        if self.options != other.options {
            return false;
        }
        self.protocol == other.protocol && self.server.same_origin(&other.server)
    }

    /// `http://host:port`, for reasons.
    pub fn show(&self) -> String {
        let shown = Url { path: String::new(), ..self.server.clone() }.to_string();
        shown.strip_suffix(':').map(String::from).unwrap_or(shown)
    }

    /// # Errors
    /// Why there is no connection.
    pub async fn connect(&self, processes: &Processes) -> Result<Session, Failure> {
        let stream = self.open(processes).await.map_err(may_pass)?;
        let way = match self.protocol {
            Protocol::Http1 => {
                Way::Http1(Box::new(Kept { line: Line::new(Box::new(Sips::new(stream))).await?, has_served: false }))
            }
            #[cfg(feature = "http2")]
            Protocol::Http2 => {
                Way::Http2(Share::new(stream, self.server.scheme == Scheme::Https).await.map_err(may_pass)?)
            }
            #[cfg(not(feature = "http2"))]
            Protocol::Http2 => return Err(for_good(grpc::NO_HTTP2.0)),
        };
        Ok(Session { way, standing: Standing::Asked })
    }

    async fn open(&self, processes: &Processes) -> Result<Box<dyn Stream>, String> {
        if self.server.scheme == Scheme::Unix {
            return Ok(Box::new(connect_unix(&self.server.socket).await?));
        }
        let addresses = self.addresses(processes).await?;
        let connected = connect_any(&addresses, self.server.port).await;
        let stream = connected.map_err(|error| {
            // A pod that came back has another address.
            *self.known() = None;
            files::reason(&error)
        })?;
        // Questions are written whole, and the end of one must not wait for the acknowledgement of its beginning.
        let _ = stream.set_nodelay(true);
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return Ok(Box::new(tls.handshake(stream).await?));
        }
        Ok(Box::new(stream))
    }

    async fn addresses(&self, processes: &Processes) -> Result<Vec<IpAddr>, String> {
        if let Some((when, addresses)) = &*self.known()
            && when.elapsed() < ADDRESSES_KEPT
        {
            return Ok(addresses.clone());
        }
        let addresses = resolve(&self.server.host, processes).await?;
        *self.known() = Some((Instant::now(), addresses.clone()));
        Ok(addresses)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Option<(Instant, Vec<IpAddr>)>> {
        self.addresses.lock().expect("no holder of this lock can panic")
    }
}

impl Session {
    /// Asks, and reads the answer to its end. Dropping the future closes the connection, or in HTTP/2 ends the question.
    ///
    /// # Errors
    /// Why there is no whole answer; the session is then of no more use.
    pub async fn ask(&mut self, question: &Question) -> Result<Told, NoAnswer> {
        self.standing = Standing::Asked;
        match &mut self.way {
            Way::Closed => Err(NoAnswer::new(super::CLOSED.into(), false)),
            Way::Http1(_) => {
                // Only a connection whose answer was read to its end comes back.
                let Way::Http1(kept) = std::mem::replace(&mut self.way, Way::Closed) else {
                    return Err(NoAnswer::new(super::CLOSED.into(), false));
                };
                let (told, kept) = kept.ask(question, &mut self.standing).await?;
                if let Some(kept) = kept {
                    self.way = Way::Http1(kept);
                }
                Ok(told)
            }
            #[cfg(feature = "http2")]
            Way::Http2(share) => share.ask(question, &mut self.standing).await,
        }
    }

    /// Whether another question can be asked on it.
    pub fn is_open(&self) -> bool {
        match &self.way {
            Way::Closed => false,
            Way::Http1(kept) => !kept.line.sender.is_closed(),
            #[cfg(feature = "http2")]
            Way::Http2(share) => share.is_open(),
        }
    }

    /// Another share in the same connection, where the protocol can carry several questions at once.
    pub fn share(&self) -> Option<Session> {
        match &self.way {
            Way::Closed | Way::Http1(_) => None,
            #[cfg(feature = "http2")]
            Way::Http2(share) => Some(Session { way: Way::Http2(share.clone()), standing: Standing::Asked }),
        }
    }

    /// What is being waited for now, for the reason of a question that is cut: "connected, no answer yet",
    /// "status 200, the answer has no end yet".
    pub fn standing(&self) -> String {
        match self.standing {
            Standing::Asked => "connected, no answer yet".into(),
            Standing::Told(status) => format!("status {status}, the answer has no end yet"),
        }
    }
}

impl Kept {
    /// Asks. The connection comes back if it can take another question.
    async fn ask(
        mut self: Box<Self>,
        question: &Question,
        standing: &mut Standing,
    ) -> Result<(Told, Option<Box<Self>>), NoAnswer> {
        let mut request = hyper::Request::new(Outgoing::from(question.body.clone()));
        *request.method_mut() = question.method.clone();
        *request.uri_mut() = question.path.clone();
        *request.headers_mut() = question.headers.clone();
        let Line { sender, wire } = &mut self.line;
        let conversation = async {
            // An error before the head of the answer, whose connection may have been closed before it was asked.
            let early = |error: hyper::Error| (explain(&error), Some(error));
            sender.ready().await.map_err(early)?;
            let answer = sender.send_request(request).await.map_err(early)?;
            let stays = stays_open(answer.version(), answer.headers().get(CONNECTION));
            let mut told = Told::new(answer.status().as_u16());
            *standing = Standing::Told(told.status);
            let mut body = answer.into_body();
            // Where its length is known, its end need not be waited for: a turn less for each question.
            while !body.is_end_stream()
                && let Some(frame) = body.frame().await
            {
                let frame = frame.map_err(|error| {
                    (format!("the answer broke off after {} bytes: {}", told.size, explain(&error)), None)
                })?;
                if let Some(piece) = frame.data_ref() {
                    told.take(piece);
                }
            }
            Ok((told, stays))
        };
        match drive(&mut |context| wire.poll(context), conversation).await {
            Ok((told, stays)) => {
                self.has_served = true;
                Ok((told, stays.then_some(self)))
            }
            Err((why, early)) => {
                let stale = self.has_served && early.is_some_and(|error| was_closed_before(&error, wire));
                Err(NoAnswer::new(why, stale))
            }
        }
    }
}

/// Whether this error before an answer means that the connection was closed before a byte of it came.
fn was_closed_before(error: &hyper::Error, wire: &Wire) -> bool {
    // Canceled: it was not even sent.
    error.is_canceled() || is_closed(error) && !wire.is_cut
}

fn is_closed(error: &hyper::Error) -> bool {
    let mut source: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(error) = inner.downcast_ref::<io::Error>() {
            use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
            return matches!(
                error.kind(),
                BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof
            );
        }
        source = inner.source();
    }
    error.is_incomplete_message() || error.is_closed()
}

/// Whether the server takes another question on this connection (RFC 9112 section 9.3). hyper knows it too, but only at
/// its next turn.
fn stays_open(version: Version, connection: Option<&HeaderValue>) -> bool {
    let says = |word: &str| {
        let text = connection.and_then(|value| value.to_str().ok()).unwrap_or_default();
        text.split(',').any(|option| option.trim().eq_ignore_ascii_case(word))
    };
    !says("close") && (version == Version::HTTP_11 || says("keep-alive"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_who_stays() {
        for (version, connection, stays) in [
            (Version::HTTP_11, None, true),
            (Version::HTTP_11, Some("keep-alive"), true),
            (Version::HTTP_11, Some("Close"), false),
            (Version::HTTP_11, Some("te, close"), false),
            (Version::HTTP_10, None, false),
            (Version::HTTP_10, Some("Keep-Alive"), true),
        ] {
            let value = connection.map(HeaderValue::from_static);
            assert_eq!(stays_open(version, value.as_ref()), stays, "{version:?} {connection:?}");
        }
    }
}
