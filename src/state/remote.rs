//! Snapshots on other machines: S3-compatible stores ([`s3`]) and servers that take a PUT and give a GET, as presigned
//! URLs do ([`put`]). And what comes to be saved from commands and servers ([`spool`]).
//!
//! Bytes come and go through channels that say when they end; one that does not say so broke off. Whatever may pass is
//! tried again until the future is dropped, which is what a deadline does; the reason is then in the progress.

pub mod put;
pub mod s3;
pub mod sign;
pub mod spool;
pub mod xml;

use std::{
    io::{self, Read, Write},
    path::Path,
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use hyper::header::{HeaderName, HeaderValue, IF_MATCH, RANGE};
use tokio::sync::mpsc;

use self::{put::PutUrl, s3::S3};
use super::{Trouble, flow::Flow, name::SnapshotName};
pub use crate::client::transfer::Piece;
use crate::{
    client::{
        Failure,
        transfer::{Kept, Passage, Reply, Wanted},
    },
    duration::show,
    process::Processes,
    step::Progress,
};

/// No byte is accepted, or no answer comes, for so long: the attempt is over. Stores answer in milliseconds; a TCP
/// connection that has lost something is heard of again within a few seconds.
const STALL: Duration = Duration::from_secs(10);
/// The first pause before another attempt; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// No pause is longer: within a grace period a longer one is as good as giving up.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// So much is sent through a channel at once.
const PIECE: usize = 128 << 10;
/// So many pieces wait in a channel: half a megabyte.
const PIECES: usize = 4;

/// What a writer is told when the store has ended first.
pub const NOBODY_TAKES_IT: &str = "nobody takes what is written any more";

/// What the work needs of its step.
#[derive(Clone, Debug)]
pub struct Io {
    pub processes: Processes,
    pub progress: Progress,
}

/// A store on another machine.
#[derive(Clone, Debug)]
pub enum Remote {
    S3(S3),
    Url(PutUrl),
}

/// A snapshot in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteListed {
    /// `None` for a URL whose last part is not a snapshot's name.
    pub name: Option<SnapshotName>,
    /// Of the object; empty for a URL.
    pub key: String,
    /// In bytes; `None` for a URL, which is not asked before it is read.
    pub size: Option<u64>,
}

fn trouble(failure: Failure) -> Trouble {
    Trouble { reason: failure.reason, may_pass: failure.may_pass, is_missing: false }
}

impl Remote {
    /// What it is called in messages, without secrets.
    pub fn show(&self) -> String {
        match self {
            Self::S3(s3) => s3.show(),
            Self::Url(url) => url.show(),
        }
    }

    /// What one snapshot in it is called in messages.
    pub fn show_listed(&self, listed: &RemoteListed) -> String {
        listed.name.as_ref().map_or_else(|| self.show(), ToString::to_string)
    }

    /// The folder where something may wait to be sent, if one was named.
    pub fn spool(&self) -> Option<&Path> {
        match self {
            Self::S3(s3) => s3.spool.as_deref(),
            Self::Url(url) => url.spool.as_deref(),
        }
    }

    /// Stores a snapshot; its bytes come through the channel. The number of bytes.
    ///
    /// # Errors
    /// What did not come to its end, here or there; nothing of that name is there then.
    pub async fn upload(&self, name: &SnapshotName, pieces: mpsc::Receiver<Piece>, io: &Io) -> Result<u64, Trouble> {
        match self {
            Self::S3(s3) => Box::pin(s3.upload(name, pieces, io)).await,
            Self::Url(url) => Box::pin(url.upload(pieces, io)).await,
        }
    }

    /// The snapshots, of one state or of all, newest first.
    ///
    /// # Errors
    /// Why there is no list.
    pub async fn list(&self, state: Option<&str>, io: &Io) -> Result<Vec<RemoteListed>, Trouble> {
        match self {
            Self::S3(s3) => Box::pin(s3.list(state, io)).await,
            Self::Url(url) => Ok(vec![url.listed()]),
        }
    }

    /// The number for the next snapshot of a state: one more than the highest, deleted ones not counted.
    ///
    /// # Errors
    /// Why there is no list.
    pub async fn next_number(&self, state: &str, io: &Io) -> Result<u64, Trouble> {
        let listed = self.list(Some(state), io).await?;
        let highest = listed.iter().filter_map(|listed| Some(listed.name.as_ref()?.number)).max().unwrap_or(0);
        Ok(highest.saturating_add(1))
    }

    /// Reads a snapshot into the channel. What breaks off goes on from where it was.
    ///
    /// # Errors
    /// Why it is not whole.
    pub async fn download(&self, listed: &RemoteListed, pieces: mpsc::Sender<Piece>, io: &Io) -> Result<(), Trouble> {
        let what = match self {
            Self::S3(s3) => format!("{}: {}", s3.show(), s3.leaf(&listed.key)),
            Self::Url(url) => url.show(),
        };
        let (mut patience, mut kept, passage) = (Patience::new(what, io), Kept::default(), Passage::default());
        loop {
            let from = passage.passed();
            let tag = passage.tag();
            let mut headers = Vec::new();
            if from > 0 {
                // Two halves of different snapshots would be worse than none.
                let Some(tag) = &tag else {
                    return Err(patience.trouble("the answer broke off, and without an ETag it cannot go on", true));
                };
                headers.push(header(RANGE, &format!("bytes={from}-")));
                headers.push(header(IF_MATCH, tag));
            }
            let wanted = Wanted::Pieces { sender: &pieces, passage: &passage };
            let reply = self.get(&listed.key, headers, wanted, &mut kept, &patience).await;
            if pieces.is_closed() {
                return Err(patience.trouble("nobody takes what was read", false));
            }
            let why = match reply {
                Err(failure) if !failure.may_pass => return Err(patience.trouble(&failure.reason, false)),
                Err(failure) => failure.reason,
                Ok(reply) if from > 0 && reply.status == 412 => {
                    return Err(patience.trouble("it was replaced while it was read", true));
                }
                Ok(reply) if matches!(reply.status, 200 | 206) => {
                    if from > 0 && passage.tag() != tag {
                        return Err(patience.trouble("it was replaced while it was read", true));
                    }
                    let size = listed.size.or(passage.length());
                    match (passage.passed(), size) {
                        (passed, Some(size)) if passed < size => format!("it ended after {passed} of {size} bytes"),
                        (passed, Some(size)) if passed > size => {
                            return Err(patience.trouble(&format!("it has {passed} bytes, not {size}"), false));
                        }
                        _ => {
                            // The reader may have seen enough.
                            let _ = pieces.send(Piece::End).await;
                            return Ok(());
                        }
                    }
                }
                Ok(reply) => {
                    let refusal = self.refusal(&reply);
                    if !refusal.may_pass {
                        // 404 Not Found and 410 Gone (RFC 9110, 15.5.5 and 15.5.11).
                        let is_missing = matches!(reply.status, 404 | 410);
                        return Err(Trouble { is_missing, ..patience.trouble(&refusal.reason, false) });
                    }
                    refusal.reason
                }
            };
            if passage.passed() > from {
                patience.reset();
            }
            patience.wait(&why).await;
        }
    }

    /// The last bytes of a snapshot, at most `most` of them.
    ///
    /// # Errors
    /// Why they cannot be read.
    pub async fn tail(&self, listed: &RemoteListed, most: usize, io: &Io) -> Result<Vec<u8>, Trouble> {
        let what = match self {
            Self::S3(s3) => format!("{}: end of {}", s3.show(), s3.leaf(&listed.key)),
            Self::Url(url) => format!("{}: its end", url.show()),
        };
        let (mut patience, mut kept) = (Patience::new(what, io), Kept::default());
        loop {
            // With the size known, a range that every server understands.
            let range = match listed.size {
                Some(size) => format!("bytes={}-", size.saturating_sub(most as u64)),
                None => format!("bytes=-{most}"),
            };
            let wanted = Wanted::End(most);
            // An empty object has no range (RFC 9110 section 14.1.1).
            let headers = if listed.size == Some(0) { Vec::new() } else { vec![header(RANGE, &range)] };
            let why = match self.get(&listed.key, headers, wanted, &mut kept, &patience).await {
                Ok(reply) if matches!(reply.status, 200 | 206) => return Ok(reply.body),
                Ok(reply) => patience.judge(self.refusal(&reply).into())?,
                Err(failure) => patience.judge(failure)?,
            };
            patience.wait(&why).await;
        }
    }

    /// Deletes a snapshot.
    ///
    /// # Errors
    /// Why it is still there; a URL cannot delete.
    pub async fn delete(&self, listed: &RemoteListed, io: &Io) -> Result<(), Trouble> {
        match self {
            Self::S3(s3) => s3.delete(&listed.key, io).await,
            Self::Url(url) => Err(Trouble::for_good(format!("{}: a URL deletes nothing", url.show()))),
        }
    }

    /// Deletes what is beyond the newest `keep` of a state, and uploads that an earlier life left unfinished. What
    /// cannot be deleted is noted: the snapshot itself is there.
    ///
    /// # Errors
    /// Why there is no list.
    pub async fn prune(&self, state: &str, keep: u32, io: &Io, flow: &Flow) -> Result<(), Trouble> {
        let Self::S3(s3) = self else { return Ok(()) };
        for listed in self.list(Some(state), io).await?.iter().skip(keep as usize) {
            flow.check().map_err(|error| Trouble::for_good(error.to_string()))?;
            if let Err(trouble) = s3.delete(&listed.key, io).await {
                flow.note(format!("not deleted: {}", trouble.reason));
            }
        }
        s3.abort_left(state, io).await;
        Ok(())
    }

    async fn get(
        &self,
        key: &str,
        headers: Vec<(HeaderName, HeaderValue)>,
        wanted: Wanted<'_>,
        kept: &mut Kept,
        patience: &Patience,
    ) -> Result<Reply, Failure> {
        match self {
            Self::S3(s3) => Box::pin(s3.get(key, headers, wanted, kept, patience)).await,
            Self::Url(url) => Box::pin(url.get(headers, wanted, kept, patience)).await,
        }
    }

    fn refusal(&self, reply: &Reply) -> Refusal {
        match self {
            Self::S3(s3) => s3.refusal(reply),
            Self::Url(url) => url.refusal(reply),
        }
    }
}

fn header(name: HeaderName, value: &str) -> (HeaderName, HeaderValue) {
    // An ETag came as a header, and the rest is our own.
    (name, HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static("")))
}

/// What a status other than success means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// `status 503 SlowDown`.
    pub reason: String,
    pub may_pass: bool,
    /// `SlowDown`, where the server says one.
    pub code: String,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self { reason: refusal.reason, may_pass: refusal.may_pass }
    }
}

/// Attempts at one thing, and what the progress says of them.
pub(in crate::state) struct Patience {
    what: String,
    progress: Progress,
    processes: Processes,
    failures: u32,
    pause: Duration,
    last: String,
}

impl Patience {
    fn new(what: String, io: &Io) -> Self {
        let (progress, processes) = (io.progress.clone(), io.processes.clone());
        Self { what, progress, processes, failures: 0, pause: FIRST_PAUSE, last: String::new() }
    }

    /// Says what is waited for; after a failure, that first.
    fn tell(&self, text: &str) {
        self.progress.set(if self.failures == 0 {
            format!("{}: {text}", self.what)
        } else {
            format!("{}: {}, attempt {}: {text}", self.what, self.last, self.failures + 1)
        });
    }

    /// Why to try again.
    ///
    /// # Errors
    /// That another attempt cannot help.
    fn judge(&self, failure: Failure) -> Result<String, Trouble> {
        if failure.may_pass { Ok(failure.reason) } else { Err(self.trouble(&failure.reason, false)) }
    }

    /// Something moved: what comes now is another trouble.
    fn reset(&mut self) {
        self.pause = FIRST_PAUSE;
    }

    /// Waits after a failure.
    async fn wait(&mut self, why: &str) {
        self.failures = self.failures.saturating_add(1);
        self.last = why.into();
        // Many pods that failed at the same moment should not come back at the same moment.
        let mut random = [0u8; 1];
        let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::NONBLOCK);
        let pause = self.pause / 2 + self.pause / 2 * u32::from(random[0]) / 255;
        self.tell(&format!("begins in {}", show(pause)));
        tokio::time::sleep(pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// A connection that was kept is often closed by the other side just then: no reason to wait.
    fn again(&mut self, why: &str) {
        self.failures = self.failures.saturating_add(1);
        self.last = why.into();
    }

    fn trouble(&self, why: &str, may_pass: bool) -> Trouble {
        Trouble { reason: format!("{}: {why}", self.what), may_pass, is_missing: false }
    }
}

/// The two ends of a stream of bytes from a thread to the network.
pub fn writer() -> (PieceWriter, mpsc::Receiver<Piece>) {
    let (sender, receiver) = mpsc::channel(PIECES);
    (PieceWriter { sender, open: BytesMut::new() }, receiver)
}

/// Writes into a channel, on a thread that may block. Without [`PieceWriter::finish`] the stream has no end, and what
/// takes it knows that it broke off.
#[derive(Debug)]
pub struct PieceWriter {
    sender: mpsc::Sender<Piece>,
    open: BytesMut,
}

impl PieceWriter {
    fn send(&mut self, piece: Piece) -> io::Result<()> {
        self.sender.blocking_send(piece).map_err(|_| io::Error::other(NOBODY_TAKES_IT))
    }

    /// All has been written.
    ///
    /// # Errors
    /// Nobody takes it any more.
    pub fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.send(Piece::End)
    }
}

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.open.capacity() == 0 {
            self.open = BytesMut::with_capacity(PIECE);
        }
        let count = bytes.len().min(PIECE - self.open.len());
        self.open.extend_from_slice(&bytes[..count]);
        if self.open.len() == PIECE {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.open.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.open).freeze();
        self.send(Piece::Bytes(piece))
    }
}

/// The two ends of a stream of bytes from the network to a thread.
pub fn reader() -> (mpsc::Sender<Piece>, PieceReader) {
    let (sender, receiver) = mpsc::channel(PIECES);
    (sender, PieceReader { receiver, open: Bytes::new(), ended: false })
}

/// Reads from a channel, on a thread that may block. A stream without an end is an error.
#[derive(Debug)]
pub struct PieceReader {
    receiver: mpsc::Receiver<Piece>,
    open: Bytes,
    ended: bool,
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.open.is_empty() && !self.ended {
            match self.receiver.blocking_recv() {
                Some(Piece::Bytes(bytes)) => self.open = bytes,
                Some(Piece::End) => self.ended = true,
                None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "what was to be read broke off")),
            }
        }
        let count = buffer.len().min(self.open.len());
        buffer[..count].copy_from_slice(&self.open[..count]);
        self.open.advance(count);
        Ok(count)
    }
}
