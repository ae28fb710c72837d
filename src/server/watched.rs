//! One connection as the guard sees it: its stream (TCP or Unix, one type so that the HTTP code exists once), and
//! where it stands, which decides how long it may stay there and whether it may be evicted.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

use super::Limits;

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Standing {
    /// Accepted, silent so far.
    Fresh,
    /// Part of a head is here.
    Reading,
    /// A request is being looked at.
    Serving,
    /// An admitted trigger waits for its hook: never limited, never evicted.
    Waiting,
    /// Between two requests.
    Idle,
}

const STANDINGS: [Standing; 5] =
    [Standing::Fresh, Standing::Reading, Standing::Serving, Standing::Waiting, Standing::Idle];

/// Shared by a connection's task, its requests and the guard's table.
#[derive(Debug, Default)]
pub(super) struct Track {
    standing: AtomicU8,
    requests: AtomicU32,
    admitted: AtomicBool,
    dropped: AtomicBool,
    body_unread: AtomicBool,
}

impl Track {
    pub(super) fn standing(&self) -> Standing {
        STANDINGS[usize::from(self.standing.load(Relaxed)) % STANDINGS.len()]
    }
    pub(super) fn stand(&self, standing: Standing) {
        self.standing.store(standing as u8, Relaxed);
        if standing == Standing::Serving {
            self.requests.fetch_add(1, Relaxed);
        }
    }
    /// It made a trigger that was admitted: it may idle for ever. The kubelet reuses post-start's connection for
    /// pre-stop, many minutes later.
    pub(super) fn admit(&self) {
        self.admitted.store(true, Relaxed);
    }
    pub(super) fn is_admitted(&self) -> bool {
        self.admitted.load(Relaxed)
    }
    /// It must close at once and without an answer.
    pub(super) fn drop_unanswered(&self) {
        self.dropped.store(true, Relaxed);
    }
    pub(super) fn is_dropped(&self) -> bool {
        self.dropped.load(Relaxed)
    }
    /// The client sends a body that nobody reads: see the guard's lingering close.
    pub(super) fn leave_body(&self) {
        self.body_unread.store(true, Relaxed);
    }
    pub(super) fn has_left_body(&self) -> bool {
        self.body_unread.load(Relaxed)
    }
    /// Changes whenever a time limit starts anew.
    pub(super) fn mark(&self) -> (Standing, u32) {
        (self.standing(), self.requests.load(Relaxed))
    }
    /// How long it may stand where it stands.
    pub(super) fn limit(&self, limits: &Limits) -> Option<Duration> {
        match self.standing() {
            Standing::Fresh | Standing::Reading => Some(limits.head),
            Standing::Idle if !self.is_admitted() => Some(limits.idle),
            Standing::Serving | Standing::Waiting | Standing::Idle => None,
        }
    }
}

/// Either kind of stream.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Unix(stream) => stream.readable().await,
        }
    }
}

/// A stream that tells when a request begins to arrive.
pub(super) struct Watched {
    pub(super) stream: Stream,
    pub(super) track: Arc<Track>,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        };
        if buffer.filled().len() > before && matches!(self.track.standing(), Standing::Fresh | Standing::Idle) {
            self.track.stand(Standing::Reading);
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Sockets have nothing to flush.
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
