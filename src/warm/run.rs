//! Sends the requests, on so many connections at once as there are workers, until the proof holds or the time is over.
//! Which request is next, when it may start and what its outcome proves is decided by the pure rooms beside this one;
//! connections, time and who is told about it are decided here.
//!
//! All workers and the one who leads them live in one task ([`crew`]); it ends with the future that started it.

mod crew;

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use hyper::header::{CONNECTION, HeaderValue};
use rustix::process::{Resource, getrlimit};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tracing::info;

use self::crew::{Calls, Crew, Member};
use super::{
    pace::{Pace, Turns},
    proof::{Evidence, Proof, show as show_latency},
    requests::{Chance, Entry, Requests, Sources},
    schedule::Schedule,
};
use crate::{
    client::{
        Failure, grpc,
        session::{Protocol, Question, Route, Session, Told},
        status::{Status, Statuses},
    },
    duration::show,
    process::Processes,
    redact::Secrets,
    step::{Context, End, Measure, Progress},
    task,
};

/// So long before the runner cuts the step it ends by itself, so that the reason is its own: time for one look at what
/// the oldest request waits for, on a busy machine. At most a tenth of the whole.
const LEAVE: Duration = Duration::from_millis(50);
/// How much of that the look may take.
const LOOK: Duration = Duration::from_millis(10);
/// How often what people see is brought up to date: more often nobody reads.
const TELL: Duration = Duration::from_millis(250);
/// How often there is a line in the log.
const LOG: Duration = Duration::from_secs(5);
/// The pause after a failure, which doubles with each that follows: a server that is just starting refuses thousands of
/// connections a second otherwise, with the processor that it needs itself.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
/// No pause is longer: what has become ready is noticed soon.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// A request that is without an answer for so long is worth a word.
const HANGS: Duration = Duration::from_millis(500);
/// So long what is still under way when the proof holds may take to be answered: servers log what is broken off, and an
/// answer that takes longer is not worth the wait.
const SEE_OFF: Duration = Duration::from_millis(500);
/// So many workers share one connection in HTTP/2: what servers should allow at least (RFC 9113 section 6.5.2).
const SHARES: usize = 100;

/// Open files that are the agent's own: its listeners, the kubelet's and the probes' connections, what other steps do.
const OWN_FILES: usize = 100;

/// How it is asked.
#[derive(Clone, Debug)]
pub struct Load {
    pub pace: Pace,
    /// Of all requests but gRPC's, which know only one.
    pub protocol: Protocol,
    /// Whether connections are used again.
    pub keep_alive: bool,
    pub request_timeout: Duration,
}

/// Asks until the proof holds, or until it is too late. Dropping it closes all connections.
pub async fn run(sources: &Sources, load: &Load, proof: &Proof, context: &Context) -> End {
    let started = Instant::now();
    let left = context.limit - started;
    let last = context.limit.checked_sub(LEAVE.min(left / 10)).unwrap_or(context.limit);
    let (leave, allowed) = match proof.max_time().and_then(|most| Some((started.checked_add(most)?, most))) {
        Some((end, most)) if end <= last => (end, most),
        // The limit was set a moment ago, and nobody reads microseconds.
        _ => (
            last,
            Duration::from_millis(left.as_millis().div_ceil(10).saturating_mul(10).try_into().unwrap_or(u64::MAX)),
        ),
    };
    let prepare = Box::pin(prepare(sources, load, proof, context, started));
    let (run, secrets) = match timeout_at(leave, prepare).await {
        Ok(Ok(ready)) => ready,
        Ok(Err(end)) => return end,
        Err(_) => return End::TimedOut(format!("not warm after {}: the requests are not read yet", show(allowed))),
    };
    let run = Arc::new(run);
    let outcome = Arc::<Mutex<Option<End>>>::default();
    let words = Words { secrets, label: context.label.clone(), progress: context.progress.clone() };
    let (lead, told) = (Arc::clone(&run), Arc::clone(&outcome));
    let mut members: Vec<Member> = vec![Box::pin(async move {
        let end = lead.lead(leave, allowed, &words).await;
        *lock(&told) = Some(end);
    })];
    members.extend((0..load.pace.workers).map(|me| -> Member { Box::pin(Arc::clone(&run).work(me)) }));
    let mut crew = Stop(task::spawn(Crew::new(members, run.calls.clone())));
    // An error would be a panic, which in the shipped binary there is no way back from.
    let _ = (&mut crew.0).await;
    let end = lock(&outcome).take();
    end.unwrap_or_else(|| End::FailedForGood("it broke off".into()))
}

/// Ends the task when it is dropped.
struct Stop(JoinHandle<()>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock can panic")
}

/// Reads what there is to read, and puts everything in its place.
async fn prepare(
    sources: &Sources,
    load: &Load,
    proof: &Proof,
    context: &Context,
    started: Instant,
) -> Result<(Run, Secrets), End> {
    let Requests { bases, entries, notes } = sources.load().await.map_err(End::Failed)?;
    for note in notes {
        info!(step = context.label.as_str(), note, "requests read");
    }
    let (mut questions, mut routes, mut secrets) = (Vec::new(), Vec::<Arc<Route>>::new(), Vec::new());
    for (index, base) in bases.iter().enumerate() {
        let is_grpc = entries.iter().any(|entry| entry.base == index && entry.is_grpc);
        let protocol = if is_grpc { Protocol::Http2 } else { load.protocol };
        let mut ready = base.make_ready(protocol).await.map_err(|failure| match failure.may_pass {
            true => End::Failed(failure.reason),
            false => End::FailedForGood(failure.reason),
        })?;
        if !load.keep_alive && protocol == Protocol::Http1 {
            ready.question.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let route = routes.iter().position(|route| route.is_same(&ready.route)).unwrap_or_else(|| {
            routes.push(Arc::clone(&ready.route));
            routes.len() - 1
        });
        questions.push((ready.question, route));
        secrets.extend(ready.secrets);
    }
    let workers = load.pace.workers;
    fit_open_files(&routes, load)?;
    let lines = routes.len() * workers.div_ceil(SHARES);
    let state = State {
        schedule: Schedule::new(entries.iter().map(|entry| entry.weight)),
        chance: Chance::default(),
        evidence: proof.begin(entries.iter().map(|entry| (entry.shown.clone(), entry.is_written)).collect()),
        turns: Turns::new(load.pace),
        waiting: VecDeque::new(),
        workers: (0..workers).map(|_| Worker::default()).collect(),
        answered: vec![started; lines],
        is_over: false,
        standing: None,
    };
    let run = Run {
        started,
        load: load.clone(),
        entries,
        questions,
        routes,
        lines: (0..lines).map(|_| tokio::sync::Mutex::default()).collect(),
        processes: context.processes.clone(),
        calls: Calls::new(workers + 1),
        cuts: (0..workers).map(|_| AtomicBool::new(false)).collect(),
        state: Mutex::new(state),
    };
    Ok((run, Secrets::new(secrets)))
}

/// The agent itself must be able to take connections while all of these are open.
fn fit_open_files(routes: &[Arc<Route>], load: &Load) -> Result<(), End> {
    let workers = load.pace.workers;
    let connections = routes.iter().map(|route| match route.protocol {
        Protocol::Http2 if load.keep_alive => workers.div_ceil(SHARES),
        _ => workers,
    });
    let needed: usize = if load.keep_alive { connections.sum() } else { workers };
    let Some(limit) = getrlimit(Resource::Nofile).current else { return Ok(()) };
    if (needed + OWN_FILES) as u64 <= limit {
        return Ok(());
    }
    Err(End::FailedForGood(format!(
        "{needed} connections at once are too many for {limit} open files (ulimit -n): lower concurrency"
    )))
}

/// What all of the crew share.
struct Run {
    started: Instant,
    load: Load,
    entries: Vec<Entry>,
    /// As they are sent but for what is each entry's own, and which route they take.
    questions: Vec<(Question, usize)>,
    routes: Vec<Arc<Route>>,
    /// Connections that workers share, where the protocol can: for each route one for so many workers.
    lines: Vec<tokio::sync::Mutex<Option<Session>>>,
    processes: Processes,
    calls: Calls,
    /// Whose request is to be given up.
    cuts: Vec<AtomicBool>,
    state: Mutex<State>,
}

struct State {
    schedule: Schedule,
    chance: Chance,
    evidence: Evidence,
    turns: Turns,
    /// Who waits for a turn.
    waiting: VecDeque<usize>,
    workers: Vec<Worker>,
    /// When each shared connection was last seen to work.
    answered: Vec<Instant>,
    /// Nothing more is asked.
    is_over: bool,
    /// What the request that was given up at the end was waiting for.
    standing: Option<String>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Worker {
    turn: Turn,
    /// The entry that is asked, and since when.
    asks: Option<(usize, Instant)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Turn {
    #[default]
    None,
    Waits,
    Has,
}

/// How a request ended.
enum Asked {
    /// It was answered in this time; judged.
    Told(Duration, Result<(), String>),
    /// There is no whole answer.
    Failed(String),
    /// It was given up, waiting for this.
    Cut(String),
}

impl Run {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// One worker's life: its turn, a request, what came of it. Ends with the crew.
    async fn work(self: Arc<Self>, me: usize) {
        let begin = self.load.pace.begin(me);
        if !begin.is_zero() {
            sleep_until(self.started + begin).await;
        }
        let mut sessions: Vec<Option<Session>> = self.routes.iter().map(|_| None).collect();
        let mut pause = SHORTEST_PAUSE;
        loop {
            self.turn(me).await;
            let Some((entry, question, since)) = self.next(me) else { return };
            let asked = self.ask(me, entry, &question, since, &mut sessions).await;
            let (took, outcome) = match asked {
                Asked::Told(took, judged) => (took, judged),
                Asked::Failed(why) => (since.elapsed(), Err(why)),
                Asked::Cut(standing) => {
                    let mut state = self.state();
                    if state.is_over {
                        state.standing = Some(standing);
                        drop(state);
                        self.calls.call(0);
                        return;
                    }
                    drop(state);
                    (since.elapsed(), Err(cut_reason(&standing, self.load.request_timeout)))
                }
            };
            let has_failed = outcome.is_err();
            self.note(me, entry, outcome, took);
            if has_failed {
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            } else {
                pause = SHORTEST_PAUSE;
            }
        }
    }

    /// Waits until this worker may start a request.
    async fn turn(&self, me: usize) {
        poll_fn(|_| {
            let mut state = self.state();
            let state = &mut *state;
            let Some(worker) = state.workers.get_mut(me) else { return Poll::Ready(()) };
            match worker.turn {
                Turn::Has => {
                    worker.turn = Turn::None;
                    return Poll::Ready(());
                }
                Turn::Waits => return Poll::Pending,
                Turn::None => {}
            }
            if state.waiting.is_empty() {
                if state.turns.take(self.started.elapsed()).is_ok() {
                    return Poll::Ready(());
                }
                // The lead wakes the first in the line, and has to know when.
                self.calls.call(0);
            }
            worker.turn = Turn::Waits;
            state.waiting.push_back(me);
            Poll::Pending
        })
        .await;
    }

    /// What to ask now; nothing more when it is over.
    fn next(&self, me: usize) -> Option<(usize, Question, Instant)> {
        let mut state = self.state();
        let state = &mut *state;
        if state.is_over {
            return None;
        }
        let index = state.schedule.next();
        let entry = self.entries.get(index)?;
        let (question, _) = self.questions.get(entry.base)?;
        let question = entry.ask(question, &mut state.chance);
        let now = Instant::now();
        state.workers.get_mut(me)?.asks = Some((index, now));
        Some((index, question, now))
    }

    /// Asks, on a connection that is there or a new one.
    async fn ask(
        &self,
        me: usize,
        entry: usize,
        question: &Question,
        since: Instant,
        sessions: &mut [Option<Session>],
    ) -> Asked {
        let entry = &self.entries[entry];
        let route = self.questions[entry.base].1;
        let mut has_been_stale = false;
        loop {
            let kept = sessions[route].take().filter(|session| self.load.keep_alive && session.is_open());
            let session = match kept {
                Some(session) => session,
                None => match self.unless_cut(me, self.connect(me, route)).await {
                    None => return Asked::Cut("not connected yet".into()),
                    Some(Err(failure)) => return Asked::Failed(failure.reason),
                    Some(Ok(session)) => session,
                },
            };
            let session = sessions[route].insert(session);
            // Where each request has a connection of its own, that is part of what it takes.
            let asked = if self.load.keep_alive { Instant::now() } else { since };
            match self.unless_cut(me, session.ask(question)).await {
                Some(Ok(told)) => {
                    let took = asked.elapsed();
                    self.state().answered[self.line(me, route)] = asked + took;
                    return Asked::Told(took, judge(&entry.expect, entry.is_grpc, &told));
                }
                Some(Err(none)) if none.was_stale && !has_been_stale => {
                    has_been_stale = true;
                    sessions[route] = None;
                }
                Some(Err(none)) => {
                    sessions[route] = None;
                    return Asked::Failed(none.failure.reason);
                }
                None => {
                    let standing = session.standing();
                    sessions[route] = None;
                    let line = self.line(me, route);
                    // A shared connection on which nothing came since then may be none any more.
                    if self.state().answered[line] < since
                        && let Ok(mut shared) = self.lines[line].try_lock()
                    {
                        *shared = None;
                    }
                    return Asked::Cut(standing);
                }
            }
        }
    }

    /// The index of the connection that this worker shares with others.
    fn line(&self, me: usize, route: usize) -> usize {
        route * self.load.pace.workers.div_ceil(SHARES) + me / SHARES
    }

    async fn connect(&self, me: usize, route: usize) -> Result<Session, Failure> {
        let line = self.line(me, route);
        let route = &self.routes[route];
        if route.protocol == Protocol::Http1 || !self.load.keep_alive {
            return route.connect(&self.processes).await;
        }
        // The first connects, and the others wait for it.
        let mut shared = self.lines[line].lock().await;
        if let Some(share) = shared.as_ref().filter(|session| session.is_open()).and_then(Session::share) {
            return Ok(share);
        }
        *shared = None;
        let session = route.connect(&self.processes).await?;
        *shared = session.share();
        Ok(session)
    }

    /// Does something until it is done, or until the lead gives it up.
    async fn unless_cut<T>(&self, me: usize, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        poll_fn(|context| {
            if self.cuts[me].load(Relaxed) {
                return Poll::Ready(None);
            }
            work.as_mut().poll(context).map(Some)
        })
        .await
    }

    fn note(&self, me: usize, entry: usize, outcome: Result<(), String>, took: Duration) {
        let mut state = self.state();
        state.workers[me].asks = None;
        self.cuts[me].store(false, Relaxed);
        if state.is_over {
            // The lead waits for the last.
            self.calls.call(0);
            return;
        }
        let elapsed = self.started.elapsed();
        state.evidence.note(entry, outcome.as_ref().map_err(String::as_str).copied(), took, elapsed);
        if state.evidence.holds(elapsed) {
            state.is_over = true;
            self.calls.call(0);
        }
    }

    /// Wakes whoever has something to do, tells how far it is, and says how it ended.
    async fn lead(&self, leave: Instant, allowed: Duration, words: &Words) -> End {
        let (mut tell_at, mut log_at) = (self.started, self.started + LOG);
        let proved = loop {
            let now = Instant::now();
            let elapsed = now - self.started;
            let next = {
                let mut state = self.state();
                // Time alone may have been missing.
                if state.is_over || state.evidence.holds(elapsed) {
                    state.is_over = true;
                    words.progress.measure(state.evidence.measure(elapsed));
                    break Some(words.clean(state.evidence.summary(elapsed)));
                }
                if now >= tell_at {
                    tell_at = now + TELL;
                    let measure = state.evidence.measure(elapsed);
                    let mut text = show_measure(&measure);
                    // How many successes are missing has been said.
                    let said = format!("{} of ", measure.done);
                    let against = state.evidence.against(elapsed);
                    for part in against.split("; ").filter(|part| !part.starts_with(&said)) {
                        join(&mut text, part);
                    }
                    join(&mut text, &self.hanging(&state, now).map_or_else(String::new, |(_, text)| text));
                    words.progress.set(words.clean(text));
                    words.progress.measure(measure);
                    if now >= log_at {
                        log_at = now + LOG;
                        log(&words.label, &measure);
                    }
                }
                self.tend(&mut state, now)
            };
            if now >= leave {
                break None;
            }
            wait(next.min(tell_at).min(leave)).await;
        };
        if let Some(proved) = proved {
            self.see_off(leave.min(Instant::now() + SEE_OFF)).await;
            return End::Done(proved);
        }
        let oldest = {
            let mut state = self.state();
            state.is_over = true;
            self.hanging(&state, Instant::now())
        };
        let mut hanging = String::new();
        if let Some((worker, text)) = oldest {
            self.cuts[worker].store(true, Relaxed);
            self.calls.call(worker + 1);
            let latest = Instant::now() + LOOK;
            while self.state().standing.is_none() && Instant::now() < latest {
                wait(latest).await;
            }
            hanging = match self.state().standing.take() {
                Some(standing) => format!("{}: {standing})", text.strip_suffix(')').unwrap_or(&text)),
                None => text,
            };
        }
        let mut text = format!("not warm after {}: ", show(allowed));
        {
            let (state, elapsed) = (self.state(), self.started.elapsed());
            text.push_str(&state.evidence.against(elapsed));
            words.progress.measure(state.evidence.measure(elapsed));
        }
        join(&mut text, &hanging);
        End::TimedOut(words.clean(text))
    }

    /// Waits until nothing is under way any more.
    async fn see_off(&self, latest: Instant) {
        while Instant::now() < latest && self.state().workers.iter().any(|worker| worker.asks.is_some()) {
            wait(latest).await;
        }
    }

    /// Gives turns to those that wait for one and whose time has come, and ends requests that take too long. When there
    /// is something to do again.
    fn tend(&self, state: &mut State, now: Instant) -> Instant {
        // As good as never: the caller has something to do much sooner.
        let mut next = now + LOG;
        while let Some(first) = state.waiting.front().copied() {
            if let Err(at) = state.turns.take(now - self.started) {
                next = self.started.checked_add(at).map_or(next, |at| next.min(at));
                break;
            }
            state.waiting.pop_front();
            state.workers[first].turn = Turn::Has;
            self.calls.call(first + 1);
        }
        for (index, worker) in state.workers.iter().enumerate() {
            let Some((_, since)) = worker.asks else { continue };
            match since.checked_add(self.load.request_timeout) {
                Some(due) if due <= now => {
                    self.cuts[index].store(true, Relaxed);
                    self.calls.call(index + 1);
                }
                Some(due) => next = next.min(due),
                None => {}
            }
        }
        next
    }

    /// The worker with the oldest request without an answer, where that is worth a word, and the words.
    fn hanging(&self, state: &State, now: Instant) -> Option<(usize, String)> {
        let hangs = HANGS.min((now - self.started) / 2);
        let mut count = 0;
        let mut oldest: Option<(usize, usize, Duration)> = None;
        for (index, worker) in state.workers.iter().enumerate() {
            let Some((entry, since)) = worker.asks else { continue };
            let age = now.saturating_duration_since(since);
            if age < hangs {
                continue;
            }
            count += 1;
            if oldest.is_none_or(|(.., oldest)| age > oldest) {
                oldest = Some((index, entry, age));
            }
        }
        let (index, entry, age) = oldest?;
        let (age, shown) = (show(age), self.entries.get(entry).map_or("", |entry| entry.shown.as_str()));
        let text = match count {
            1 => format!("1 request without an answer for {age} ({shown})"),
            _ => format!("{count} requests without an answer, the oldest for {age} ({shown})"),
        };
        Some((index, text))
    }
}

/// Until then, or until somebody calls.
async fn wait(until: Instant) {
    let mut sleep = pin!(sleep_until(until));
    let mut is_first = true;
    poll_fn(|context| {
        let is_late = sleep.as_mut().poll(context).is_ready();
        if !is_late && std::mem::take(&mut is_first) { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
}

/// Whether an answer is a success, and why not.
fn judge(expect: &Statuses, is_grpc: bool, told: &Told) -> Result<(), String> {
    let status = told.status;
    if !expect.contain(status) {
        return Err(match expect.0.as_slice() {
            // A good status by itself would not look like a failure.
            [Status(first, last)] if matches!(status, 200..=299) && first == last => format!("{status}, not {first}"),
            _ if matches!(status, 200..=299) => format!("{status}, not as expected"),
            _ => status.to_string(),
        });
    }
    match &told.grpc {
        _ if !is_grpc => Ok(()),
        Some((0, _)) => Ok(()),
        // What a server says beside it may be another each time.
        Some((code, _)) => Err(format!("grpc {}", grpc::show(*code, ""))),
        None => Err("no grpc-status".into()),
    }
}

/// Why a request was given up, from what it was waiting for.
fn cut_reason(standing: &str, timeout: Duration) -> String {
    let timeout = show(timeout);
    match standing.strip_suffix(", the answer has no end yet") {
        Some(head) => format!("the answer has no end within {timeout} ({head})"),
        None if standing.starts_with("not connected") => format!("no connection within {timeout}"),
        None => format!("no answer within {timeout}"),
    }
}

/// Whom the lead tells.
struct Words {
    secrets: Secrets,
    label: String,
    progress: Progress,
}

impl Words {
    /// Servers may repeat what they were sent.
    fn clean(&self, text: String) -> String {
        self.secrets.redact(text)
    }
}

/// Adds a part to a list.
fn join(text: &mut String, more: &str) {
    if !more.is_empty() {
        text.push_str("; ");
        text.push_str(more);
    }
}

fn latency(seconds: Option<f64>) -> Option<String> {
    seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).map(show_latency)
}

/// `184 of 200 successes, 3 failed, 412/s, p50 2.1ms, p99 18ms`.
fn show_measure(measure: &Measure) -> String {
    let mut text = measure.done.to_string();
    if let Some(left) = measure.left {
        text.push_str(&format!(" of {}", measure.done.saturating_add(left)));
    }
    text.push_str(&format!(" successes, {} failed, {}/s", measure.failed, show_rate(measure.rate)));
    for (name, seconds) in [("p50", measure.p50), ("p99", measure.p99)] {
        if let Some(latency) = latency(seconds) {
            text.push_str(&format!(", {name} {latency}"));
        }
    }
    text
}

/// `412`, `3.5`.
fn show_rate(rate: f64) -> String {
    let tenths = (rate * 10.0).round() as u64;
    match (tenths, tenths % 10) {
        (100.., _) | (_, 0) => ((tenths + 5) / 10).to_string(),
        (_, tenth) => format!("{}.{tenth}", tenths / 10),
    }
}

fn log(label: &str, measure: &Measure) {
    let (p50, p99) = (latency(measure.p50), latency(measure.p99));
    info!(
        step = label,
        done = measure.done,
        left = measure.left,
        failed = measure.failed,
        rate = show_rate(measure.rate),
        p50 = p50.as_deref(),
        p99 = p99.as_deref(),
        "warming up"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judges() {
        let good = Statuses(vec![Status(200, 299)]);
        let created = Statuses(vec![Status(201, 201)]);
        let several = Statuses(vec![Status(201, 202), Status(404, 404)]);
        let told = |status, grpc: Option<u32>| Told {
            status,
            grpc: grpc.map(|code| (code, "secret-token".into())),
            ..Told::default()
        };
        for (expect, is_grpc, told, want) in [
            (&good, false, told(200, None), Ok(())),
            (&good, false, told(299, None), Ok(())),
            (&good, false, told(302, None), Err("302")),
            (&good, false, told(503, None), Err("503")),
            (&created, false, told(201, None), Ok(())),
            (&created, false, told(200, None), Err("200, not 201")),
            (&created, false, told(500, None), Err("500")),
            (&several, false, told(404, None), Ok(())),
            (&several, false, told(200, None), Err("200, not as expected")),
            (&good, true, told(200, Some(0)), Ok(())),
            (&good, true, told(200, Some(14)), Err("grpc 14 UNAVAILABLE")),
            (&good, true, told(200, Some(99)), Err("grpc 99 (no known status)")),
            (&good, true, told(200, None), Err("no grpc-status")),
            (&good, true, told(503, None), Err("503")),
            (&good, false, told(200, Some(14)), Ok(())),
        ] {
            assert_eq!(judge(expect, is_grpc, &told), want.map_err(String::from), "{told:?}");
        }
    }

    #[test]
    fn says_why_a_request_was_given_up() {
        for (standing, want) in [
            ("not connected yet", "no connection within 5s"),
            ("connected, no answer yet", "no answer within 5s"),
            ("status 200, the answer has no end yet", "the answer has no end within 5s (status 200)"),
        ] {
            assert_eq!(cut_reason(standing, Duration::from_secs(5)), want);
        }
    }

    #[test]
    fn shows_numbers() {
        let measure =
            Measure { done: 184, left: Some(16), failed: 3, rate: 412.3, p50: Some(0.0021), p99: Some(0.018) };
        assert_eq!(show_measure(&measure), "184 of 200 successes, 3 failed, 412/s, p50 2.1ms, p99 18ms");
        assert_eq!(show_measure(&Measure::default()), "0 successes, 0 failed, 0/s");
        let odd = Measure { left: Some(u64::MAX), done: 1, rate: f64::NAN, p50: Some(-1.0), ..Measure::default() };
        assert_eq!(show_measure(&odd), format!("1 of {} successes, 0 failed, 0/s", u64::MAX));
        for (rate, want) in [(0.5, "0.5"), (3.04, "3"), (9.96, "10"), (9.94, "9.9"), (99.5, "100"), (1e9, "1000000000")]
        {
            assert_eq!(show_rate(rate), want);
        }
    }
}
