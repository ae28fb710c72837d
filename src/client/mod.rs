//! Requests to other servers, for the steps that make them: a URL and its options become a [`Request`], which is
//! sent over TCP, a Unix socket or TLS, and gives an [`Answer`] or a [`Failure`] with a reason.
//!
//! Nothing here has a time limit of its own: a request is a future, and dropping it closes its connection and ends
//! its name lookup. What a status means is for the steps to say.

pub mod connect;
pub mod files;
pub mod grpc;
#[cfg(feature = "http2")]
mod http2;
pub mod metric;
pub mod options;
pub mod resolve;
pub mod session;
pub mod status;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(feature = "state")]
pub mod transfer;
pub mod url;

use std::{
    error::Error as _,
    future::{Future, poll_fn},
    io,
    path::PathBuf,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Method,
    body::Incoming,
    client::conn::http1,
    header::{AUTHORIZATION, HOST, HeaderName, HeaderValue, LOCATION, USER_AGENT},
};
use hyper_util::rt::TokioIo;

use self::{
    connect::{Stream, connect_tcp, connect_unix},
    options::Options,
    status::Statuses,
    url::{Scheme, Url},
};
use crate::{
    problem::{Files, Scope},
    process::Processes,
    step::Progress,
    value::printable,
};

/// So much of an answer is kept and read; the connection is closed on the rest.
pub const MOST_KEPT: usize = 64 << 10;
/// More redirects than this are a mistake in any configuration.
const MOST_REDIRECTS: u32 = 50;
/// hyper's buffer for the head of an answer; 400 KB by default, far more than any server sends.
const HEAD: usize = 64 << 10;
/// What browsers follow by default is 20; in a hook, time is short.
const REDIRECTS: u32 = 5;

/// A request that can be sent any number of times.
#[derive(Clone, Debug)]
pub struct Request {
    pub url: Url,
    method: Method,
    headers: HeaderMap,
    body: Body,
    login: Login,
    #[cfg(feature = "tls")]
    tls: tls::Options,
    redirects: u32,
    /// Redirecting statuses that the caller wants to see instead of having them followed.
    pub keep: Statuses,
}

#[derive(Clone, Debug)]
enum Body {
    Text(Bytes),
    File(PathBuf),
}

/// Files are read for each request, because they are rotated.
#[derive(Clone)]
enum Login {
    None,
    Bearer(String),
    BearerFile(PathBuf),
    Basic(String, String),
    BasicFile(String, PathBuf),
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login")
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// At most [`MOST_KEPT`] bytes of it.
    pub body: Vec<u8>,
    /// Secrets that went out with the request: a server may repeat them.
    secrets: Vec<String>,
}

impl Answer {
    /// The status and the first line of the body, as far as it can be shown.
    pub fn show(&self) -> String {
        let text = String::from_utf8_lossy(&self.body[..self.body.len().min(1024)]);
        let mut line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("").to_string();
        for secret in &self.secrets {
            line = line.replace(secret.as_str(), "***");
        }
        match printable(&line, 120) {
            line if line.is_empty() => format!("status {}", self.status),
            line => format!("status {}: {line}", self.status),
        }
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Lowercase, without secrets.
    pub reason: String,
    /// Whether another attempt may do better.
    pub may_pass: bool,
}

fn may_pass(reason: impl Into<String>) -> Failure {
    Failure { reason: reason.into(), may_pass: true }
}

fn for_good(reason: impl Into<String>) -> Failure {
    Failure { reason: reason.into(), may_pass: false }
}

/// Takes the body of an answer piece by piece, and says whether it wants more.
pub type Sink<'a> = dyn FnMut(&[u8]) -> bool + Send + 'a;

/// hyper is compiled for one type of body.
#[cfg(not(feature = "state"))]
type Outgoing = http_body_util::Full<Bytes>;
#[cfg(feature = "state")]
use transfer::Outgoing;

/// Where the body of an answer goes.
enum Taker<'s, 'a> {
    Sink(&'s mut Sink<'a>),
    /// That of a success goes on; what others say is kept.
    #[cfg(feature = "state")]
    Pieces(&'s transfer::Pieces<'a>, &'s mut Vec<u8>),
}

impl Taker<'_, '_> {
    /// Whether more is wanted.
    async fn take(&mut self, status: u16, piece: &Bytes) -> bool {
        let _ = status;
        match self {
            Self::Sink(sink) => sink(piece),
            #[cfg(feature = "state")]
            Self::Pieces(pieces, _) if matches!(status, 200..=299) => pieces.pass(status, piece).await,
            #[cfg(feature = "state")]
            Self::Pieces(_, kept) => {
                kept.extend_from_slice(&piece[..piece.len().min(MOST_KEPT.saturating_sub(kept.len()))]);
                kept.len() < MOST_KEPT
            }
        }
    }
}

impl Request {
    /// Gives meaning to a URL and its options; `None` when at least one problem was noted.
    pub fn mean(url_key: &str, url: &str, options: Options, scope: &mut Scope<'_>) -> Option<Request> {
        let before = scope.problems.len();
        let mut url = match Url::parse(url) {
            Ok(url) => Some(url),
            Err(why) => {
                scope.problem(url_key, format!("this URL cannot be used: {why}"), None);
                None
            }
        };
        if let (Some(socket), Some(url)) = (&options.unix_socket, &mut url) {
            if url.scheme == Scheme::Https {
                scope.problem("unix-socket", "https over a Unix socket is not supported: write http://", None);
            } else if !socket.is_absolute() {
                scope.problem("unix-socket", "the path is not absolute", None);
            }
            (url.scheme, url.socket) = (Scheme::Unix, socket.clone());
        }
        let method = options.method.as_deref().unwrap_or("GET");
        let method = Method::from_bytes(method.as_bytes()).unwrap_or_else(|_| {
            scope.problem("method", format!("`{}` is not a method", method.escape_default()), None);
            Method::GET
        });
        if method == Method::CONNECT {
            scope.problem("method", "CONNECT asks for a tunnel, not for an answer", None);
        }
        let headers = mean_headers(&options, scope);
        let body = match (options.body, options.body_file) {
            (Some(_), Some(_)) => {
                scope.problem("body-file", "`body` is given as well", Some("give one of them".into()));
                Body::Text(Bytes::new())
            }
            (None, Some(file)) => Body::File(file),
            (text, None) => Body::Text(text.unwrap_or_default().into()),
        };
        let login = mean_login(options.bearer, options.bearer_file, options.basic, &headers, scope);
        let redirects = options.follow_redirects.map_or(REDIRECTS, |count| count.0);
        if redirects > MOST_REDIRECTS {
            scope.problem("follow-redirects", format!("{redirects} is more than {MOST_REDIRECTS}"), None);
        }
        #[cfg(feature = "tls")]
        let tls = mean_tls(
            tls::Options {
                ca_file: options.ca_file,
                cert_file: options.cert_file,
                key_file: options.key_file,
                insecure: options.insecure.is_some_and(|flag| flag.0),
                server_name: options.server_name,
            },
            url.as_ref(),
            scope,
        );
        #[cfg(not(feature = "tls"))]
        if url.as_ref().is_some_and(|url| url.scheme == Scheme::Https) {
            scope.problem(url_key, NO_TLS, Some("use the full boathook, or an http:// URL".into()));
        }
        if scope.problems.len() > before {
            return None;
        }
        Some(Request {
            url: url?,
            method,
            headers,
            body,
            login,
            #[cfg(feature = "tls")]
            tls,
            redirects,
            keep: Statuses::default(),
        })
    }

    /// `GET http://host/path`, without the query.
    pub fn show(&self) -> String {
        format!("{} {}", self.method, self.url)
    }

    /// Sends it and keeps the beginning of the answer. `progress` is told what is being waited for.
    ///
    /// # Errors
    /// Why there is no complete answer.
    pub async fn send(&self, processes: &Processes, progress: &Progress) -> Result<Answer, Failure> {
        let mut kept = Vec::new();
        let mut sink = |piece: &[u8]| {
            kept.extend_from_slice(&piece[..piece.len().min(MOST_KEPT - kept.len())]);
            kept.len() < MOST_KEPT
        };
        let (status, secrets) = self.send_to(processes, progress, &mut sink).await?;
        Ok(Answer { status, body: kept, secrets })
    }

    /// Sends it and hands the answer's body to `sink`, which is never more in memory than one piece. The status, and
    /// the secrets that were sent.
    ///
    /// # Errors
    /// Why there is no complete answer.
    pub async fn send_to(
        &self,
        processes: &Processes,
        progress: &Progress,
        sink: &mut Sink<'_>,
    ) -> Result<(u16, Vec<String>), Failure> {
        self.send_into(processes, progress, &mut Taker::Sink(sink)).await
    }

    async fn send_into(
        &self,
        processes: &Processes,
        progress: &Progress,
        taker: &mut Taker<'_, '_>,
    ) -> Result<(u16, Vec<String>), Failure> {
        let (body, login, secrets) = self.load().await?;
        let (mut url, mut method, mut body) = (self.url.clone(), self.method.clone(), body);
        let mut seen = vec![(method.clone(), url.clone())];
        loop {
            let own = url.same_origin(&self.url);
            let headers = self.headers_for(&url, own, login.as_ref());
            let tell = |text: &str| progress.set(format!("{url}: {text}"));
            let mut exchange =
                Exchange { url: &url, own, method: method.clone(), path: &url.path, headers, processes, tell: &tell };
            let head = self.exchange(&mut exchange, Outgoing::from(body.clone()), taker).await.map_err(|failure| {
                Failure { reason: format!("{url}: {}", failure.reason), may_pass: failure.may_pass }
            })?;
            let Some((status, location)) = head.redirect else { return Ok((head.status, secrets)) };
            if seen.len() > self.redirects as usize {
                return Err(for_good(format!("more than {} redirects, the last from {url}", self.redirects)));
            }
            let next =
                url.join(&location).map_err(|why| for_good(format!("{url} redirects to no usable URL: {why}")))?;
            match (url.scheme, next.scheme) {
                (Scheme::Https, Scheme::Http) => {
                    return Err(for_good(format!("{url} redirects to {next}, which is not encrypted")));
                }
                (Scheme::Unix, Scheme::Http | Scheme::Https) | (Scheme::Http | Scheme::Https, Scheme::Unix) => {
                    return Err(for_good(format!("{url} redirects to {next}, which is another kind of server")));
                }
                _ => {}
            }
            // RFC 9110 section 15.4: 307 and 308 keep the method, 303 never does, and for 301 and 302 it is the custom
            // to turn POST into GET.
            if status == 303 && method != Method::HEAD || matches!(status, 301 | 302) && method == Method::POST {
                (method, body) = (Method::GET, Bytes::new());
            }
            if !next.same_origin(&self.url) && !body.is_empty() {
                return Err(for_good(format!("{url} redirects to {next}, and the body is not for another server")));
            }
            if seen.contains(&(method.clone(), next.clone())) {
                return Err(for_good(format!("{next} redirects in a circle of {}", seen.len())));
            }
            url = next;
            seen.push((method.clone(), url.clone()));
        }
    }

    /// Reads the files: the body, the value of `Authorization`, and what is secret in it.
    async fn load(&self) -> Result<(Bytes, Option<HeaderValue>, Vec<String>), Failure> {
        let (body, login) = (self.body.clone(), self.login.clone());
        let read = move || {
            let body = match body {
                Body::Text(text) => text,
                Body::File(path) => files::read(&path, files::LARGEST_BODY)?.into(),
            };
            let basic = |user: String, password: String| {
                let pair = BASE64_STANDARD.encode(format!("{user}:{password}"));
                (Some(format!("Basic {pair}")), vec![password, pair])
            };
            let (login, secrets) = match login {
                Login::None => (None, Vec::new()),
                Login::Bearer(token) => (Some(format!("Bearer {token}")), vec![token]),
                Login::BearerFile(path) => {
                    let token = files::read_line(&path)?;
                    (Some(format!("Bearer {token}")), vec![token])
                }
                Login::Basic(user, password) => basic(user, password),
                Login::BasicFile(user, path) => basic(user, files::read_line(&path)?),
            };
            let login = login.map(HeaderValue::try_from).transpose().map_err(|_| "the token or password is no text")?;
            Ok((body, login, secrets.into_iter().filter(|secret| !secret.is_empty()).collect::<Vec<_>>()))
        };
        let needs_disk =
            matches!(self.body, Body::File(_)) || matches!(self.login, Login::BearerFile(_) | Login::BasicFile(..));
        let loaded: Result<_, String> = if needs_disk {
            crate::task::blocking(read).await.map_err(|error| may_pass(error.to_string()))?
        } else {
            read()
        };
        let (body, login, mut secrets) = loaded.map_err(may_pass)?;
        secrets.extend(
            self.headers
                .iter()
                .filter(|(name, _)| is_secret(name))
                .filter_map(|(_, value)| value.to_str().ok().filter(|value| !value.is_empty()).map(String::from)),
        );
        Ok((body, login, secrets))
    }

    /// The headers for a server. One to which we were redirected gets nothing that may be a secret.
    fn headers_for(&self, url: &Url, own: bool, login: Option<&HeaderValue>) -> HeaderMap {
        const HARMLESS: [&str; 5] = ["accept", "accept-encoding", "accept-language", "content-type", "user-agent"];
        let mut headers = self.headers.clone();
        if own {
            if let Some(login) = login {
                headers.insert(AUTHORIZATION, login.clone());
            }
        } else {
            headers = headers.into_iter().fold(HeaderMap::new(), |mut kept, (name, value)| {
                if let Some(name) = name.filter(|name| HARMLESS.contains(&name.as_str())) {
                    kept.insert(name, value);
                }
                kept
            });
        }
        if !headers.contains_key(HOST)
            && let Ok(host) = HeaderValue::try_from(url.authority())
        {
            headers.insert(HOST, host);
        }
        headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
        headers
    }

    /// Asks once. Reasons do not name the URL.
    async fn exchange(
        &self,
        exchange: &mut Exchange<'_>,
        body: Outgoing,
        taker: &mut Taker<'_, '_>,
    ) -> Result<Head, Failure> {
        let mut line = self.open(exchange).await?;
        self.ask(exchange, &mut line, body, taker).await
    }

    /// Connects.
    async fn open(&self, exchange: &Exchange<'_>) -> Result<Line, Failure> {
        (exchange.tell)("not connected yet");
        let stream = self.connect(exchange).await.map_err(may_pass)?;
        Line::new(stream).await
    }

    /// One question and its answer on a connection.
    async fn ask(
        &self,
        exchange: &mut Exchange<'_>,
        line: &mut Line,
        body: Outgoing,
        taker: &mut Taker<'_, '_>,
    ) -> Result<Head, Failure> {
        let tell = exchange.tell;
        tell("connected, no answer yet");
        let mut request = hyper::Request::new(body);
        *request.method_mut() = exchange.method.clone();
        *request.headers_mut() = std::mem::take(&mut exchange.headers);
        *request.uri_mut() = exchange.path.parse().map_err(|_| for_good("the path cannot be sent"))?;
        let Line { sender, wire } = line;
        let conversation = async {
            let answer = sender.send_request(request).await.map_err(|error| may_pass(explain(&error)))?;
            let status = answer.status().as_u16();
            let redirect = self.redirect(&answer);
            let mut whole = false;
            #[cfg(feature = "state")]
            let headers = answer.headers().clone();
            #[cfg(feature = "state")]
            if let Taker::Pieces(pieces, _) = taker {
                pieces.head(status, &headers);
            }
            if redirect.is_none() {
                tell(&format!("status {status}, the answer has no end yet"));
                let mut body = answer.into_body();
                let mut size = 0;
                whole = loop {
                    let Some(frame) = body.frame().await else { break true };
                    let frame = frame.map_err(|error| {
                        may_pass(format!("the answer broke off after {size} bytes: {}", explain(&error)))
                    })?;
                    if let Some(piece) = frame.data_ref() {
                        size += piece.len();
                        if !taker.take(status, piece).await {
                            break false;
                        }
                    }
                };
            }
            Ok(Head {
                status,
                redirect,
                whole,
                #[cfg(feature = "state")]
                headers,
            })
        };
        drive(&mut |context| wire.poll(context), conversation).await
    }

    fn redirect(&self, answer: &hyper::Response<Incoming>) -> Option<(u16, String)> {
        let status = answer.status().as_u16();
        let follows = matches!(status, 301 | 302 | 303 | 307 | 308) && self.redirects > 0 && !self.keep.contain(status);
        let location = answer.headers().get(LOCATION).filter(|_| follows)?;
        Some((status, String::from_utf8_lossy(location.as_bytes()).into_owned()))
    }

    async fn connect(&self, exchange: &Exchange<'_>) -> Result<Box<dyn Stream>, String> {
        let Exchange { url, processes, .. } = exchange;
        Ok(match url.scheme {
            Scheme::Unix => Box::new(connect_unix(&url.socket).await?),
            Scheme::Http => Box::new(connect_tcp(&url.host, url.port, processes).await?),
            #[cfg(feature = "tls")]
            Scheme::Https => {
                let mut options = self.tls.clone();
                if !exchange.own {
                    (options.cert_file, options.key_file, options.server_name) = (None, None, None);
                }
                let stream = connect_tcp(&url.host, url.port, processes).await?;
                (exchange.tell)("connected, no TLS yet");
                Box::new(tls::handshake(&options, &url.host, stream).await?)
            }
            #[cfg(not(feature = "tls"))]
            Scheme::Https => {
                let _ = exchange.own;
                return Err(NO_TLS.into());
            }
        })
    }
}

#[cfg(not(feature = "tls"))]
const NO_TLS: &str = "this build has no TLS";

const AGENT: &str = concat!("boathook/", env!("CARGO_PKG_VERSION"));

/// One question of a chain of redirects, or of a transfer.
struct Exchange<'a> {
    url: &'a Url,
    /// Whether the server is the one that is meant, and may have our certificate.
    own: bool,
    method: Method,
    path: &'a str,
    headers: HeaderMap,
    processes: &'a Processes,
    /// Is told what is being waited for.
    tell: &'a (dyn Fn(&str) + Send + Sync),
}

/// A connection and its handle.
struct Line {
    sender: http1::SendRequest<Outgoing>,
    wire: Wire,
}

/// A connection until it ends. Then it must go: hyper's handle takes questions as long as it is there.
struct Wire {
    connection: Option<http1::Connection<TokioIo<Box<dyn Stream>>, Outgoing>>,
    /// Whether it ended in the middle of something that the server said.
    is_cut: bool,
}

impl Line {
    async fn new(stream: Box<dyn Stream>) -> Result<Line, Failure> {
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| may_pass(explain(&error)))?;
        Ok(Line { sender, wire: Wire { connection: Some(connection), is_cut: false } })
    }
}

impl Wire {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(()) };
        // Its error, if any, comes out of the conversation too.
        if Pin::new(connection).poll(context).is_pending() {
            return Poll::Pending;
        }
        self.is_cut = self.connection.take().is_some_and(|connection| !connection.into_parts().read_buf.is_empty());
        Poll::Ready(())
    }
}

struct Head {
    status: u16,
    redirect: Option<(u16, String)>,
    /// Whether the answer was read to its end, so that the connection can take another question.
    #[cfg_attr(not(feature = "state"), expect(dead_code, reason = "only transfers ask more than one question"))]
    whole: bool,
    #[cfg(feature = "state")]
    headers: HeaderMap,
}

/// Runs a conversation and what is under it as one future, so that dropping it drops both at once.
async fn drive<T>(
    under: &mut (dyn FnMut(&mut Context<'_>) -> Poll<()> + Send),
    conversation: impl Future<Output = T>,
) -> T {
    let mut conversation = pin!(conversation);
    let mut open = true;
    poll_fn(move |context| {
        if open && under(context).is_ready() {
            open = false;
        }
        match conversation.as_mut().poll(context) {
            // What was just sent or asked for has to reach the connection.
            Poll::Pending if open && under(context).is_ready() => {
                open = false;
                conversation.as_mut().poll(context)
            }
            other => other,
        }
    })
    .await
}

/// The reason in hyper's errors, in our words.
fn explain(error: &hyper::Error) -> String {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(error) = inner.downcast_ref::<io::Error>() {
            return explain_io(error);
        }
        source = inner.source();
    }
    if error.is_parse_too_large() {
        return "the head of the answer is too large".into();
    }
    if error.is_parse() {
        return "the answer is not HTTP".into();
    }
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return CLOSED.into();
    }
    error.to_string()
}

const CLOSED: &str = "the connection was closed without a complete answer";

fn explain_io(error: &io::Error) -> String {
    #[cfg(feature = "tls")]
    if let Some(why) = tls::why(error) {
        return why;
    }
    match error.kind() {
        io::ErrorKind::ConnectionReset => "the connection was reset".into(),
        io::ErrorKind::UnexpectedEof => "the connection was closed too early".into(),
        _ => files::reason(error),
    }
}

/// Whether the value of a header is likely to be a secret.
fn is_secret(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.contains("cookie") || ["auth", "token", "key", "secret", "password"].iter().any(|word| name.contains(word))
}

fn mean_headers(options: &Options, scope: &mut Scope<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for header in &options.headers {
        let shown = header.name.escape_default().to_string();
        let Ok(name) = HeaderName::try_from(header.name.as_str()) else {
            scope.problem("headers", format!("`{shown}` is not the name of a header"), None);
            continue;
        };
        if ["content-length", "transfer-encoding", "connection", "upgrade"].contains(&name.as_str()) {
            scope.problem("headers", format!("`{shown}` is set by the client itself"), Some("leave it out".into()));
            continue;
        }
        let Ok(value) = HeaderValue::try_from(header.value.as_str()) else {
            scope.problem("headers", format!("the value of `{shown}` holds a line break or a control character"), None);
            continue;
        };
        if is_secret(&name) {
            scope.secrets.push(header.value.clone());
        }
        headers.append(name, value);
    }
    headers
}

fn mean_login(
    bearer: Option<String>,
    bearer_file: Option<PathBuf>,
    basic: Option<options::Basic>,
    headers: &HeaderMap,
    scope: &mut Scope<'_>,
) -> Login {
    let ways = [bearer.is_some(), bearer_file.is_some(), basic.is_some(), headers.contains_key(AUTHORIZATION)];
    if ways.into_iter().filter(|given| *given).count() > 1 {
        let what = "more than one of `bearer`, `bearer-file`, `basic` and the header Authorization";
        scope.problem("", what, Some("give one of them".into()));
    }
    // The secret itself must not be in the message.
    let fits = |key: &str, secret: &str, scope: &mut Scope<'_>| {
        if secret.is_empty() || secret.chars().any(char::is_control) {
            scope.problem(key, "it is empty or holds a line break or a control character", None);
        } else {
            scope.secrets.push(secret.into());
        }
    };
    let readable = |key: &str, path: &PathBuf, scope: &mut Scope<'_>| {
        if scope.files == Files::Elsewhere {
            return;
        }
        match files::read_line(path) {
            Ok(secret) => scope.secrets.push(secret),
            Err(why) => {
                scope.problem(key, why, Some("the file must be there and readable when boathook starts".into()));
            }
        }
    };
    if let Some(token) = bearer {
        fits("bearer", &token, scope);
        return Login::Bearer(token);
    }
    if let Some(path) = bearer_file {
        readable("bearer-file", &path, scope);
        return Login::BearerFile(path);
    }
    let Some(basic) = basic else { return Login::None };
    if basic.user.is_empty() || basic.user.contains(':') || basic.user.chars().any(char::is_control) {
        scope.problem("basic: user", "it is empty or holds a colon or a control character", None);
    }
    match (basic.password, basic.password_file) {
        (Some(password), None) => {
            fits("basic: password", &password, scope);
            scope.secrets.push(BASE64_STANDARD.encode(format!("{}:{password}", basic.user)));
            Login::Basic(basic.user, password)
        }
        (None, Some(path)) => {
            readable("basic: password-file", &path, scope);
            Login::BasicFile(basic.user, path)
        }
        (Some(_), Some(_)) => {
            scope.problem("basic", "`password` and `password-file` are given", Some("give one of them".into()));
            Login::None
        }
        (None, None) => {
            scope.problem("basic", "the password is missing", Some("give `password` or `password-file`".into()));
            Login::None
        }
    }
}

#[cfg(feature = "tls")]
fn mean_tls(options: tls::Options, url: Option<&Url>, scope: &mut Scope<'_>) -> tls::Options {
    let before = scope.problems.len();
    match (&options.cert_file, &options.key_file) {
        (Some(_), None) => scope.problem("cert-file", "`key-file` is missing", None),
        (None, Some(_)) => scope.problem("key-file", "`cert-file` is missing", None),
        _ => {}
    }
    if options.insecure && options.ca_file.is_some() {
        let help = "leave one of them out";
        scope.problem("insecure", "with it `ca-file` means nothing", Some(help.into()));
    }
    if let Some(name) = &options.server_name
        && !tls::is_server_name(name)
    {
        scope.problem("server-name", format!("`{}` is not a host name or address", name.escape_default()), None);
    }
    if scope.files == Files::Elsewhere {
        return options;
    }
    // Each by itself first: what they hold is only looked at together, and ends at the first that is wrong.
    for (key, file) in
        [("ca-file", &options.ca_file), ("cert-file", &options.cert_file), ("key-file", &options.key_file)]
    {
        if let Some(Err(why)) = file.as_deref().map(|file| files::read(file, files::LARGEST_SECRET)) {
            scope.problem(key, why, Some("the file must be there and readable when boathook starts".into()));
        }
    }
    let uses =
        url.is_some_and(|url| url.scheme == Scheme::Https) || options.ca_file.is_some() || options.cert_file.is_some();
    if uses
        && scope.problems.len() == before
        && let Err((key, why)) = tls::load(&options)
    {
        scope.problem(key, why, None);
    }
    options
}
