//! Which path leads where, and what is answered. Hooks answer once they have ended, `/ready` when
//! the application's own check has, and everything else at once.

use std::{sync::Arc, time::Instant};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Bytes, Incoming},
    header::{self, HeaderMap, HeaderValue},
};
use tokio::task;

use super::{
    Agent, Caller, Origin, Refusal, Trigger,
    guard::Shared,
    watched::{Standing, Track},
};

/// A hook's answer is never longer (the kubelet reads no body announced as larger than 10 KiB).
const LONGEST_ANSWER: usize = 8 * 1024;
/// Nobody has a reason to announce a larger body: no endpoint reads any.
const LARGEST_BODY: u64 = 64 * 1024;
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
/// Prometheus' text format names its version.
const PROMETHEUS: &str = "text/plain; version=0.0.4";

/// The connection has to be closed without an answer.
#[derive(Debug)]
pub(super) struct Unanswered;

impl std::fmt::Display for Unanswered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("closed without an answer")
    }
}
impl std::error::Error for Unanswered {}

type Answer = Response<Full<Bytes>>;

/// What is only read.
#[derive(Clone, Copy)]
enum Page {
    Ready,
    Live,
    Status,
    Metrics,
    Report,
}

/// What every request of one connection shares.
pub(super) struct Desk<A> {
    pub(super) agent: Arc<A>,
    pub(super) shared: Arc<Shared>,
    pub(super) track: Arc<Track>,
    pub(super) origin: Origin,
}

/// Answers one request.
pub(super) async fn answer<A: Agent>(desk: Arc<Desk<A>>, request: Request<Incoming>) -> Result<Answer, Unanswered> {
    desk.track.stand(Standing::Serving);
    let announced = request.body().size_hint();
    let has_body = !request.body().is_end_stream();
    let (head, body) = request.into_parts();
    drop(body);
    let outcome = if announced.lower() > LARGEST_BODY {
        Ok(text(StatusCode::PAYLOAD_TOO_LARGE, "no endpoint reads a body\n"))
    } else {
        desk.route(&head.method, head.uri.path(), &head.headers).await
    };
    desk.track.stand(Standing::Idle);
    let Ok(mut answer) = outcome else {
        desk.track.drop_unanswered();
        return Err(Unanswered);
    };
    if has_body {
        desk.track.leave_body();
    }
    // What follows an unread body is not a request, and after a stop nothing follows at all.
    if has_body || desk.shared.is_stopping() {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(answer)
}

impl<A: Agent> Desk<A> {
    async fn route(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<Answer, Unanswered> {
        let hook = match path {
            "/started" => Some(Trigger::Started),
            "/shutdown" => Some(Trigger::Shutdown),
            _ => None,
        };
        let page = match path {
            "/ready" => Some(Page::Ready),
            "/live" => Some(Page::Live),
            "/status" => Some(Page::Status),
            "/metrics" => Some(Page::Metrics),
            "/report" if matches!(self.origin, Origin::Socket(_)) => Some(Page::Report),
            _ => None,
        };
        // Nobody who pipelines is answered twice in a row: the kubelet would wait for all of that.
        if let Some(hook) = hook.filter(|_| *method == Method::GET || *method == Method::POST) {
            return self.trigger(hook, headers).await;
        }
        self.shared.turn(&self.track).await;
        Ok(match (hook, page) {
            (None, Some(page)) if *method == Method::GET || *method == Method::HEAD => self.show(page).await,
            (Some(_), _) => not_allowed("GET, POST"),
            (None, Some(_)) => not_allowed("GET, HEAD"),
            (None, None) => text(StatusCode::NOT_FOUND, "boathook: /started /shutdown /ready /live /status /metrics\n"),
        })
    }

    async fn show(&self, page: Page) -> Answer {
        let probe = |answer: Result<(), String>, good: &'static str| match answer {
            Ok(()) => text(StatusCode::OK, good),
            Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
        };
        match page {
            Page::Ready => probe(self.agent.is_ready().await, "ready\n"),
            Page::Live => probe(self.agent.is_live(), "live\n"),
            Page::Status => reply(StatusCode::OK, JSON, self.agent.status_json()),
            Page::Metrics => reply(StatusCode::OK, PROMETHEUS, self.agent.metrics()),
            Page::Report => reply(StatusCode::OK, JSON, self.agent.report_json()),
        }
    }

    /// Lets an admitted caller wait for the hook.
    async fn trigger(&self, hook: Trigger, headers: &HeaderMap) -> Result<Answer, Unanswered> {
        let user_agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let caller = Caller { origin: self.origin, user_agent: user_agent.chars().take(64).collect() };
        // A hook queues behind nobody, but whoever was there first is looked at first.
        task::yield_now().await;
        if let Err(refusal) = self.admit(headers).await {
            self.shared.turn(&self.track).await;
            self.agent.note_refusal();
            self.log_refusal(&caller, &refusal);
            return self.refuse(&caller, &refusal);
        }
        let Some(_place) = self.shared.wait(caller.is_kubelet()) else {
            if self.shared.refusals(caller.is_kubelet()).may_speak(Instant::now()).is_some() {
                tracing::warn!(caller = %caller, "trigger refused: too many callers wait for a hook already");
            }
            if caller.is_kubelet() {
                return Err(Unanswered);
            }
            return Ok(error(StatusCode::SERVICE_UNAVAILABLE, "too many callers wait for a hook already"));
        };
        self.track.admit();
        self.track.stand(Standing::Waiting);
        let answer = self.agent.trigger(hook, &caller).await;
        // The kubelet looks at no status: only a connection that closes without an answer fails its hook. What
        // pre-stop came to changes nothing for it, so a report is worth more there.
        if !answer.succeeded && hook == Trigger::Started && caller.is_kubelet() {
            return Err(Unanswered);
        }
        let status = if answer.succeeded { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
        if answer.body.len() > LONGEST_ANSWER {
            return Ok(error(status, "the report is too long for an answer: see /status"));
        }
        Ok(reply(status, JSON, answer.body))
    }

    async fn admit(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        match (self.origin, &self.shared.rights) {
            // Checked when its connection was accepted.
            (Origin::Socket(_), _) => Ok(()),
            (Origin::Tcp(peer), Some(rights)) => {
                let authorization = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
                rights.check(peer.ip(), authorization).await
            }
            (Origin::Tcp(_), None) => Err(Refusal::NoRight),
        }
    }

    fn log_refusal(&self, caller: &Caller, refusal: &Refusal) {
        let Some(swallowed) = self.shared.refusals(caller.is_kubelet()).may_speak(Instant::now()) else { return };
        let why = match refusal {
            Refusal::TokenUnknown(why) => why,
            other => other.reason(),
        };
        tracing::warn!(caller = %caller, why, help = refusal.help(), more_before = swallowed, "trigger refused");
    }

    /// The kubelet takes any answer for success, so the hook would silently never run: it gets none.
    fn refuse(&self, caller: &Caller, refusal: &Refusal) -> Result<Answer, Unanswered> {
        if caller.is_kubelet() {
            return Err(Unanswered);
        }
        let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::FORBIDDEN);
        let mut answer = error(status, refusal.reason());
        if status == StatusCode::UNAUTHORIZED {
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        Ok(answer)
    }
}

fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    reply(status, TEXT, body)
}

/// `what` must need no escaping in JSON.
fn error(status: StatusCode, what: &'static str) -> Answer {
    reply(status, JSON, format!("{{\"error\":\"{what}\"}}\n"))
}

fn not_allowed(methods: &'static str) -> Answer {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    answer
}
