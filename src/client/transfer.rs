//! Large bodies: a [`Transfer`] is one question with a body from memory or from a channel, whose answer may go into a
//! channel, on a connection that is kept for the next one. For snapshots; the steps' own requests are small.
//!
//! A body that comes from a channel can be sent only once, so no redirects are followed here: what they say is the
//! answer. Whether to ask again is for the caller to say; a transfer that moves nothing for too long ends by itself.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::{
    HeaderMap, Method,
    body::{Body, Frame, SizeHint},
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderName, HeaderValue},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use super::{Exchange, Failure, Line, Request, Taker, may_pass};
use crate::process::Processes;

/// Part of a stream of bytes in a channel. A channel that ends without [`Piece::End`] broke off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Bytes(Bytes),
    End,
}

/// One step of a large body: small enough that a stall is seen, large enough to cost nothing.
const STEP: usize = 64 << 10;

/// Counts whatever moves, so that a stall can be told from slowness.
#[derive(Clone, Debug, Default)]
struct Pulse(Arc<Beats>);

#[derive(Debug, Default)]
struct Beats {
    count: AtomicU64,
    /// How many wait for our own side: a full or an empty channel is not the server's fault.
    own: AtomicUsize,
}

impl Pulse {
    fn beat(&self) {
        self.0.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns when nothing has moved for `limit`.
    async fn stall(&self, limit: Duration) {
        let (mut last, mut since) = (self.0.count.load(Ordering::Relaxed), Instant::now());
        loop {
            sleep(limit / 10).await;
            let count = self.0.count.load(Ordering::Relaxed);
            if count != last || self.0.own.load(Ordering::Relaxed) > 0 {
                (last, since) = (count, Instant::now());
            } else if since.elapsed() >= limit {
                return;
            }
        }
    }
}

/// While it lives, our own side is what is waited for.
struct OwnSide<'a>(&'a Pulse);

impl<'a> OwnSide<'a> {
    fn new(pulse: &'a Pulse) -> Self {
        pulse.0.own.fetch_add(1, Ordering::Relaxed);
        Self(pulse)
    }
}

impl Drop for OwnSide<'_> {
    fn drop(&mut self) {
        self.0.beat();
        self.0.0.own.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of a request: what is in memory, then what comes through a channel.
#[derive(Debug, Default)]
pub struct Outgoing {
    ready: VecDeque<Bytes>,
    rest: Option<mpsc::Receiver<Piece>>,
    /// What is left of it, where that is known; else it is sent in chunks.
    left: Option<u64>,
    pulse: Pulse,
    waits: bool,
}

impl From<Bytes> for Outgoing {
    fn from(bytes: Bytes) -> Self {
        Self::memory([bytes])
    }
}

impl Outgoing {
    /// What is in memory already; a clone of `Bytes` costs nothing, so it can be sent again.
    pub fn memory(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        let ready: VecDeque<Bytes> = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
        let left = ready.iter().map(|piece| piece.len() as u64).sum();
        Self { ready, rest: None, left: Some(left), pulse: Pulse::default(), waits: false }
    }

    /// `first`, then what comes through the channel; together of this length if it is known.
    pub fn channel(first: Vec<Bytes>, rest: mpsc::Receiver<Piece>, length: Option<u64>) -> Self {
        Self { ready: first.into(), rest: Some(rest), left: length, pulse: Pulse::default(), waits: false }
    }

    fn waits(&mut self, waits: bool) {
        match (self.waits, waits) {
            (false, true) => {
                self.pulse.0.own.fetch_add(1, Ordering::Relaxed);
            }
            (true, false) => {
                self.pulse.0.own.fetch_sub(1, Ordering::Relaxed);
            }
            _ => {}
        }
        self.waits = waits;
    }

    fn next(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            if let Some(first) = self.ready.front_mut() {
                let piece = first.split_to(first.len().min(STEP));
                if first.is_empty() {
                    self.ready.pop_front();
                }
                return Poll::Ready(Some(Ok(piece)));
            }
            let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
            let Poll::Ready(piece) = rest.poll_recv(context) else {
                self.waits(true);
                return Poll::Pending;
            };
            self.waits(false);
            match piece {
                Some(Piece::Bytes(piece)) if piece.is_empty() => {}
                Some(Piece::Bytes(piece)) => self.ready.push_back(piece),
                Some(Piece::End) => self.rest = None,
                None => return Poll::Ready(Some(Err(io::Error::other(BROKE_OFF)))),
            }
        }
    }
}

/// Whoever was to send the bytes has given up; why is theirs to say.
pub const BROKE_OFF: &str = "what was to be sent broke off";

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.pulse.beat();
        self.next(context).map(|next| {
            next.map(|piece| {
                piece.map(|piece| {
                    self.left = self.left.map(|left| left.saturating_sub(piece.len() as u64));
                    Frame::data(piece)
                })
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0) || self.ready.is_empty() && self.rest.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.waits(false);
    }
}

/// What is known of a body that is passed on, also when it broke off in the middle.
#[derive(Debug, Default)]
pub struct Passage {
    passed: AtomicU64,
    /// The entity tag and the length that the last successful answer began with.
    head: Mutex<(Option<String>, Option<u64>)>,
}

impl Passage {
    /// So many bytes have been passed on.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// The strong entity tag: what it stands for is the same, byte by byte (RFC 9110 section 8.8.1).
    pub fn tag(&self) -> Option<String> {
        self.head.lock().expect("no holder of this lock can panic").0.clone()
    }

    /// The length of the whole, where the server said it.
    pub fn length(&self) -> Option<u64> {
        self.head.lock().expect("no holder of this lock can panic").1
    }

    fn note(&self, status: u16, headers: &HeaderMap) {
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let tag = text(&ETAG).filter(|tag| tag.starts_with('"')).map(String::from);
        let length = match status {
            // `bytes 100-199/200`
            206 => text(&CONTENT_RANGE).and_then(|range| range.rsplit_once('/')?.1.parse().ok()),
            _ => text(&CONTENT_LENGTH).and_then(|length| length.parse().ok()),
        };
        *self.head.lock().expect("no holder of this lock can panic") = (tag, length);
    }
}

/// Where the body of a successful answer goes.
pub struct Pieces<'a> {
    sender: &'a mpsc::Sender<Piece>,
    pulse: Pulse,
    /// Of the beginning of a whole answer: they have been passed on before.
    skip: AtomicU64,
    passage: &'a Passage,
}

impl Pieces<'_> {
    pub(super) fn head(&self, status: u16, headers: &HeaderMap) {
        if matches!(status, 200..=299) {
            self.passage.note(status, headers);
        }
    }

    pub(super) async fn pass(&self, status: u16, piece: &Bytes) -> bool {
        self.pulse.beat();
        let skip = if status == 206 { 0 } else { self.skip.load(Ordering::Relaxed).min(piece.len() as u64) };
        self.skip.fetch_sub(skip, Ordering::Relaxed);
        let piece = piece.slice(usize::try_from(skip).unwrap_or(usize::MAX)..);
        let length = piece.len() as u64;
        let _own_side = OwnSide::new(&self.pulse);
        let taken = length == 0 || self.sender.send(Piece::Bytes(piece)).await.is_ok();
        if taken {
            self.passage.passed.fetch_add(length, Ordering::Relaxed);
        }
        taken
    }
}

/// What an answer's body is for.
pub enum Wanted<'a> {
    /// So many bytes of its beginning, in memory.
    Start(usize),
    /// So many bytes of its end, in memory.
    End(usize),
    /// All of it in a channel, if it is a success, but not the end. A server that does not know ranges answers 200 with
    /// the whole: what has been passed on before is then left out.
    Pieces { sender: &'a mpsc::Sender<Piece>, passage: &'a Passage },
}

/// One question.
pub struct Transfer<'a> {
    pub method: Method,
    /// Path and query, as they are sent.
    pub path: &'a str,
    /// Besides those of the request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Outgoing,
    pub wanted: Wanted<'a>,
    /// When nothing has moved for this long, it is over.
    pub stall: Duration,
}

/// The answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    /// As much of the body as was wanted in memory; of a failure at most [`super::MOST_KEPT`].
    pub body: Vec<u8>,
    /// Secrets that went out with the request: a server may repeat them.
    pub secrets: Vec<String>,
}

impl Reply {
    /// The text of a header, if it was there and is text.
    pub fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A connection that is kept between transfers to one server.
#[derive(Default)]
pub struct Kept(Option<Line>);

impl Kept {
    /// Whether there is one that seems to stand; the server may close it at any moment.
    pub fn stands(&self) -> bool {
        self.0.as_ref().is_some_and(|line| !line.sender.is_closed())
    }
}

impl Request {
    /// From now on a redirect is an answer.
    pub fn refuse_redirects(&mut self) {
        self.redirects = 0;
    }

    /// Asks once at this request's server, on the kept connection if it still stands. Redirects are not followed: a
    /// stream cannot be sent again. Reasons name neither the URL nor its secrets.
    ///
    /// # Errors
    /// Why there is no complete answer.
    pub async fn transfer(
        &self,
        transfer: Transfer<'_>,
        kept: &mut Kept,
        processes: &Processes,
        tell: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<Reply, Failure> {
        let pulse = Pulse::default();
        let told = Mutex::new(String::new());
        let note = |text: &str| {
            pulse.beat();
            *told.lock().expect("no holder of this lock can panic") = text.into();
            tell(text);
        };
        let stall = transfer.stall;
        let work = Box::pin(self.transfer_now(transfer, kept, processes, &pulse, &note));
        tokio::select! {
            biased;
            reply = work => reply,
            () = pulse.stall(stall) => {
                let text = told.lock().expect("no holder of this lock can panic").clone();
                Err(may_pass(format!("stalled for {}: {text}", crate::duration::show(stall))))
            }
        }
    }

    async fn transfer_now(
        &self,
        transfer: Transfer<'_>,
        kept: &mut Kept,
        processes: &Processes,
        pulse: &Pulse,
        tell: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<Reply, Failure> {
        let Transfer { method, path, headers: more, body: mut outgoing, wanted, .. } = transfer;
        outgoing.pulse = pulse.clone();
        let (_, login, secrets) = self.load().await?;
        let mut headers = self.headers_for(&self.url, true, login.as_ref());
        headers.extend(more);
        let mut exchange = Exchange { url: &self.url, own: true, method, path, headers, processes, tell };
        let mut line = match kept.0.take().filter(|line| !line.sender.is_closed()) {
            Some(line) => line,
            None => self.open(&exchange).await?,
        };
        let mut body = Vec::new();
        let head = match wanted {
            Wanted::Start(most) => {
                let mut sink = |piece: &[u8]| {
                    pulse.beat();
                    body.extend_from_slice(&piece[..piece.len().min(most - body.len())]);
                    body.len() < most
                };
                self.ask(&mut exchange, &mut line, outgoing, &mut Taker::Sink(&mut sink)).await?
            }
            Wanted::End(most) => {
                let mut sink = |piece: &[u8]| {
                    pulse.beat();
                    body.extend_from_slice(piece);
                    // Not for each piece: what is beyond is moved away a few times only.
                    if body.len() > 4 * most.max(STEP) {
                        body.drain(..body.len() - most);
                    }
                    true
                };
                let head = self.ask(&mut exchange, &mut line, outgoing, &mut Taker::Sink(&mut sink)).await?;
                body.drain(..body.len().saturating_sub(most));
                head
            }
            Wanted::Pieces { sender, passage } => {
                let skip = AtomicU64::new(passage.passed());
                let pieces = Pieces { sender, pulse: pulse.clone(), skip, passage };
                let mut taker = Taker::Pieces(&pieces, &mut body);
                self.ask(&mut exchange, &mut line, outgoing, &mut taker).await?
            }
        };
        // hyper sees only at its next turn that the server closes the connection, though that was said with the answer.
        let closes = head.headers.get(CONNECTION).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
        if head.whole && !closes && !line.sender.is_closed() {
            kept.0 = Some(line);
        }
        Ok(Reply { status: head.status, headers: head.headers, body, secrets })
    }

    /// Sends it as [`Request::send_to`] does, redirects and all, and passes the body of a success on. The status, and
    /// what the server said when it was none.
    ///
    /// # Errors
    /// Why there is no complete answer.
    pub async fn send_through(
        &self,
        processes: &Processes,
        progress: &crate::step::Progress,
        sender: &mpsc::Sender<Piece>,
    ) -> Result<super::Answer, Failure> {
        let passage = Passage::default();
        let pieces = Pieces { sender, pulse: Pulse::default(), skip: AtomicU64::new(0), passage: &passage };
        let mut body = Vec::new();
        let (status, secrets) = self.send_into(processes, progress, &mut Taker::Pieces(&pieces, &mut body)).await?;
        Ok(super::Answer { status, body, secrets })
    }
}
