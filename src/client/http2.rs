//! HTTP/2 for sessions: shares of one connection. A task drives the connection, so that it answers pings and hears what
//! the server says between questions; the task ends with the last share.

use std::{
    future::{Future, poll_fn},
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use h2::{Reason, SendStream, client::SendRequest};
use hyper::{
    Request, Uri, Version,
    header::{CONNECTION, HOST, HeaderName, TRANSFER_ENCODING, UPGRADE},
    http::uri::{Authority, Scheme},
};
use tokio::task::JoinHandle;

use super::{
    CLOSED, HEAD,
    connect::Stream,
    drive, explain_io, grpc,
    session::{NoAnswer, Question, Standing, Told},
};

/// Of all bodies of one connection, what may be under way at once: bodies are thrown away as they come, and 64 KiB, the
/// least there is, would make the questions of a connection wait for each other.
const WINDOW: u32 = 1 << 20;
/// Belongs to a connection, which HTTP/2 does otherwise (RFC 9113 section 8.2.2).
const OF_A_CONNECTION: [HeaderName; 5] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TRANSFER_ENCODING,
    UPGRADE,
];

/// A share in a connection.
#[derive(Clone)]
pub struct Share {
    sender: SendRequest<Bytes>,
    connection: Arc<Connection>,
}

struct Connection {
    task: JoinHandle<()>,
    /// Whether it has given an answer.
    has_served: AtomicBool,
    scheme: Scheme,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Share {
    /// The first share.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn new(stream: Box<dyn Stream>, is_tls: bool) -> Result<Share, String> {
        let (sender, connection) = h2::client::Builder::new()
            .enable_push(false)
            .initial_connection_window_size(WINDOW)
            .max_header_list_size(HEAD as u32)
            // Until the server has said how many it takes: those beyond would be refused.
            .initial_max_send_streams(1)
            .handshake(stream)
            .await
            .map_err(|error| explain(&error))?;
        let task = crate::task::spawn(async move {
            // Its error comes out of the questions too.
            let _ = connection.await;
        });
        let scheme = if is_tls { Scheme::HTTPS } else { Scheme::HTTP };
        Ok(Share { sender, connection: Arc::new(Connection { task, has_served: AtomicBool::new(false), scheme }) })
    }

    pub fn is_open(&self) -> bool {
        // A fresh handle waits for nothing of its own: it is ready, or the connection is over.
        let state = self.sender.clone().poll_ready(&mut Context::from_waker(Waker::noop()));
        !self.connection.task.is_finished() && !matches!(state, Poll::Ready(Err(_)))
    }

    pub async fn ask(&mut self, question: &Question, standing: &mut Standing) -> Result<Told, NoAnswer> {
        let request = self.make_request(question)?;
        // Nothing of it has been sent where these fail.
        let unsent = |error: &h2::Error, connection: &Connection| {
            NoAnswer::new(explain(error), !error.is_library() && connection.has_served.load(Ordering::Relaxed))
        };
        poll_fn(|context| self.sender.poll_ready(context)).await.map_err(|error| unsent(&error, &self.connection))?;
        let (answer, stream) = self
            .sender
            .send_request(request, question.body.is_empty())
            .map_err(|error| unsent(&error, &self.connection))?;
        let mut upload = pin!(upload(stream, question.body.clone()));
        let conversation = async {
            let answer = answer.await.map_err(|error| {
                let is_unprocessed = is_unprocessed(&error) && self.connection.has_served.load(Ordering::Relaxed);
                NoAnswer::new(explain(&error), is_unprocessed)
            })?;
            self.connection.has_served.store(true, Ordering::Relaxed);
            let mut told = Told::new(answer.status().as_u16());
            *standing = Standing::Told(told.status);
            let of_head = grpc::read_status(answer.headers());
            let mut body = answer.into_body();
            let broke_off = |told: &Told, error: &h2::Error| {
                NoAnswer::new(format!("the answer broke off after {} bytes: {}", told.size, explain(error)), false)
            };
            while let Some(piece) = body.data().await {
                let piece = piece.map_err(|error| broke_off(&told, &error))?;
                told.take(&piece);
                body.flow_control().release_capacity(piece.len()).map_err(|error| broke_off(&told, &error))?;
            }
            let trailers = body.trailers().await.map_err(|error| broke_off(&told, &error))?;
            told.grpc = trailers.as_ref().and_then(grpc::read_status).or(of_head.filter(|_| told.size == 0));
            Ok(told)
        };
        drive(&mut |context| upload.as_mut().poll(context), conversation).await
    }

    fn make_request(&self, question: &Question) -> Result<Request<()>, NoAnswer> {
        let refused = || NoAnswer::new("the header Host cannot be sent".into(), false);
        let mut headers = question.headers.clone();
        for name in OF_A_CONNECTION {
            headers.remove(name);
        }
        let host = headers.remove(HOST).ok_or_else(refused)?;
        let mut parts = question.path.clone().into_parts();
        parts.authority = Some(Authority::try_from(host.as_bytes()).map_err(|_| refused())?);
        parts.scheme = Some(self.connection.scheme.clone());
        let mut request = Request::new(());
        *request.version_mut() = Version::HTTP_2;
        *request.method_mut() = question.method.clone();
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| refused())?;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

/// Sends a body as far as the server takes it. That it stops is the server's to say in its answer.
async fn upload(mut stream: SendStream<Bytes>, mut body: Bytes) {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let Some(Ok(room)) = poll_fn(|context| stream.poll_capacity(context)).await else { return };
        let piece = body.split_to(room.min(body.len()));
        if stream.send_data(piece, body.is_empty()).is_err() {
            return;
        }
    }
}

/// Whether the server has surely done nothing with a question: it refused its stream (RFC 9113 section 8.7), or it
/// closes the connection and the question came after the last one it takes: no other streams are told of that.
fn is_unprocessed(error: &h2::Error) -> bool {
    error.is_remote() && (error.is_go_away() || error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM))
}

/// The reason in h2's errors, in our words.
fn explain(error: &h2::Error) -> String {
    if let Some(error) = error.get_io() {
        return match error.kind() {
            // What h2 itself says when the connection has ended.
            io::ErrorKind::BrokenPipe if error.raw_os_error().is_none() => CLOSED.into(),
            _ => explain_io(error),
        };
    }
    // The names of the specification.
    let name = |reason: Reason| format!("{reason:?}");
    match error.reason().map(name) {
        Some(reason) if error.is_go_away() && error.is_remote() => {
            format!("the server closed the connection: {reason}")
        }
        Some(reason) if error.is_reset() && error.is_remote() => format!("the server reset the stream: {reason}"),
        Some(reason) => format!("the answer is not HTTP/2: {reason}"),
        None => error.to_string(),
    }
}
