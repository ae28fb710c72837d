//! The application's own check behind `/ready`: asked only when somebody asks, at most once in its cache time whoever
//! asks, and by one asker for all who come meanwhile. So probes do not multiply, and nothing runs while nobody asks.
//! Whether it is asked at all is the phase's business, and the agent's.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use tokio::{sync::watch, time::Instant};
use tracing::{info, warn};

use crate::{
    duration::{Span, show},
    hook::Phase,
    keys::keys,
    probe::{Probe, ProbeTyped},
    problem::Scope,
    process::Processes,
    redact::Secrets,
    report::{LONGEST_REASON, cut, round},
    step::Progress,
    task,
};

/// Below the kubelet's own limit for a probe (`timeoutSeconds`, 1 s): so its answer is ours, with a reason.
const TIMEOUT: Duration = Duration::from_millis(800);
/// As often as the kubelet can probe at most (`periodSeconds` is at least 1).
const CACHE: Duration = Duration::from_secs(1);
/// With less, probes would multiply after all.
const SHORTEST_CACHE: Duration = Duration::from_millis(100);

keys! {
    /// `[readiness]`: a probe, and how it is asked.
    #[derive(Debug)]
    pub struct Typed {
        pub timeout: Option<Span> = Toml,
        pub cache: Option<Span> = Toml,
    }
    parts { Always pub probe: ProbeTyped }
}

/// The check as configured.
#[derive(Clone, Debug)]
pub struct Readiness {
    probe: Arc<Probe>,
    /// For one check.
    timeout: Duration,
    /// How long an answer serves, from when it came.
    cache: Duration,
}

impl Readiness {
    /// Gives meaning to what was typed; `None` when at least one problem was noted.
    pub fn mean(typed: Typed, scope: &mut Scope<'_>) -> Option<Readiness> {
        let timeout = typed.timeout.map_or(TIMEOUT, |span| span.0);
        if timeout.is_zero() {
            scope.problem("timeout", "in no time nothing can be checked", None);
        }
        let cache = typed.cache.map_or(CACHE, |span| span.0);
        if cache < SHORTEST_CACHE {
            scope.problem("cache", format!("{} is shorter than {}", show(cache), show(SHORTEST_CACHE)), None);
        }
        let probe = Probe::mean(typed.probe, scope)?;
        Some(Readiness { probe: Arc::new(probe), timeout, cache })
    }

    /// For one check.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// How long an answer serves.
    pub fn cache(&self) -> Duration {
        self.cache
    }
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} within {}, asked at most once in {}", self.probe, show(self.timeout), show(self.cache))
    }
}

/// Whether the application is ready, and why not.
pub type Answer = Result<(), String>;

/// One check.
type Check = dyn Fn() -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync;

/// Who asks the check, and remembers its answer.
pub struct Asker {
    check: Box<Check>,
    cache: Duration,
    memory: Arc<Mutex<Memory>>,
}

#[derive(Default)]
struct Memory {
    last: Option<Last>,
    /// A check is running; it tells its answer here, and is gone without one when it was cut.
    running: Option<watch::Receiver<Option<Answer>>>,
    checks: u64,
}

#[derive(Clone)]
struct Last {
    answer: Answer,
    ended: Instant,
}

/// How it stands, for `/status`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Standing {
    /// Checks so far.
    pub checks: u64,
    /// When the last one ended, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checked_at: Option<f64>,
    /// Its answer; none before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holds: Option<bool>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().expect("no holder of this lock can panic")
}

impl Asker {
    pub fn new(readiness: &Readiness, processes: Processes, secrets: Secrets) -> Self {
        let Readiness { probe, timeout, cache } = readiness.clone();
        let check = move || {
            let (probe, processes, secrets) = (Arc::clone(&probe), processes.clone(), secrets.clone());
            let checked: Pin<Box<dyn Future<Output = Answer> + Send>> = Box::pin(async move {
                let progress = Progress::default();
                let held = tokio::time::timeout(timeout, probe.hold(&processes, &progress)).await;
                let answer = held.unwrap_or_else(|_| Err(probe.unanswered(&progress, timeout)));
                answer.map_err(|why| cut(&secrets.redact(why), LONGEST_REASON))
            });
            checked
        };
        Self::of(Box::new(check), cache)
    }

    fn of(check: Box<Check>, cache: Duration) -> Self {
        Self { check, cache, memory: Arc::default() }
    }

    /// What the check says: what it said within the cache time, what the running one will say, or what a new one says.
    /// `None` as soon as the phase is not ready: then a running check is given up as well, and nobody waits for it.
    pub async fn ask(&self, mut phase: watch::Receiver<Phase>) -> Option<Answer> {
        if !phase.borrow().is_ready() {
            return None;
        }
        let mut running = {
            let mut memory = lock(&self.memory);
            match (&memory.last, &memory.running) {
                (Some(last), _) if last.ended.elapsed() < self.cache => return Some(last.answer.clone()),
                (_, Some(running)) if running.has_changed().is_ok() => running.clone(),
                _ => self.start(&mut memory, phase.clone()),
            }
        };
        tokio::select! {
            biased;
            _ = phase.wait_for(|phase| !phase.is_ready()) => None,
            answer = running.wait_for(Option::is_some) => answer.ok().and_then(|answer| answer.clone()),
        }
    }

    /// Starts a check as a task of its own: who asked first may go away, and the others still want to know.
    fn start(&self, memory: &mut Memory, mut phase: watch::Receiver<Phase>) -> watch::Receiver<Option<Answer>> {
        let (tell, told) = watch::channel(None);
        memory.running = Some(told.clone());
        memory.checks += 1;
        let (checking, memory) = ((self.check)(), Arc::clone(&self.memory));
        task::spawn(async move {
            let answer = tokio::select! {
                biased;
                _ = phase.wait_for(|phase| !phase.is_ready()) => return,
                answer = checking => answer,
            };
            let last = Last { answer: answer.clone(), ended: Instant::now() };
            let before = lock(&memory).last.replace(last).map(|last| last.answer.is_ok());
            match &answer {
                Ok(()) if before != Some(true) => info!("the application's check holds"),
                Err(why) if before != Some(false) => warn!(reason = why, "the application's check does not hold"),
                _ => {}
            }
            tell.send_replace(Some(answer));
        });
        told
    }

    /// What the last check said, however long ago, without asking; `None` before the first.
    pub fn known(&self) -> Option<Answer> {
        lock(&self.memory).last.as_ref().map(|last| last.answer.clone())
    }

    pub fn standing(&self) -> Standing {
        let memory = lock(&self.memory);
        let (last, checks) = (memory.last.as_ref(), memory.checks);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Standing {
            checks,
            checked_at: last.map(|last| round(now.saturating_sub(last.ended.elapsed()).as_secs_f64())),
            holds: last.map(|last| last.answer.is_ok()),
            reason: last.and_then(|last| last.answer.clone().err()).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use tokio::time::{advance, sleep, timeout};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// An application: its checks take as long as it says, and answer what it says when they end.
    #[derive(Default)]
    struct Application {
        takes: AtomicU64,
        is_dead: std::sync::atomic::AtomicBool,
        began: AtomicU64,
        ended: AtomicU64,
    }

    fn asker(application: &Arc<Application>) -> Arc<Asker> {
        let application = Arc::clone(application);
        let check = move || {
            let application = Arc::clone(&application);
            application.began.fetch_add(1, Relaxed);
            let checked: Pin<Box<dyn Future<Output = Answer> + Send>> = Box::pin(async move {
                sleep(Duration::from_millis(application.takes.load(Relaxed))).await;
                application.ended.fetch_add(1, Relaxed);
                if application.is_dead.load(Relaxed) { Err("dead".into()) } else { Ok(()) }
            });
            checked
        };
        Arc::new(Asker::of(Box::new(check), SECOND))
    }

    fn ready() -> (watch::Sender<Phase>, watch::Receiver<Phase>) {
        watch::channel(Phase::Ready)
    }

    #[tokio::test(start_paused = true)]
    async fn one_check_serves_all_who_ask_within_the_cache_time() {
        let application = Arc::new(Application::default());
        let (asker, (_phase, phase)) = (asker(&application), ready());
        application.takes.store(100, Relaxed);
        assert_eq!(asker.known(), None);
        for (after, checks) in [(0, 1), (500, 1), (499, 1), (1, 2), (999, 2), (5000, 3)] {
            advance(Duration::from_millis(after)).await;
            assert_eq!(asker.ask(phase.clone()).await, Some(Ok(())));
            assert_eq!(application.began.load(Relaxed), checks, "after {after} ms more");
        }
        // Nobody asks: nothing runs.
        sleep(100 * SECOND).await;
        assert_eq!(application.began.load(Relaxed), 3);
        assert_eq!((asker.known(), asker.standing().checks), (Some(Ok(())), 3));
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_while_it_runs_joins_and_who_goes_takes_nothing_along() {
        let application = Arc::new(Application::default());
        let (asker, (_phase, phase)) = (asker(&application), ready());
        application.takes.store(700, Relaxed);
        let first = timeout(Duration::from_millis(100), asker.ask(phase.clone())).await;
        assert!(first.is_err(), "the first goes away");
        let joined: Vec<_> = (0..50)
            .map(|_| {
                let (asker, phase) = (Arc::clone(&asker), phase.clone());
                tokio::spawn(async move { asker.ask(phase).await })
            })
            .collect();
        for one in joined {
            assert_eq!(one.await.expect("no panic"), Some(Ok(())));
        }
        assert_eq!(application.began.load(Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_recovery_is_seen_within_a_cache_time() {
        let application = Arc::new(Application::default());
        let (asker, (_phase, phase)) = (asker(&application), ready());
        application.is_dead.store(true, Relaxed);
        assert_eq!(asker.ask(phase.clone()).await, Some(Err("dead".into())));
        application.is_dead.store(false, Relaxed);
        assert_eq!(asker.ask(phase.clone()).await, Some(Err("dead".into())), "the answer still serves");
        advance(SECOND).await;
        assert_eq!(asker.ask(phase.clone()).await, Some(Ok(())));
        let standing = asker.standing();
        assert_eq!((standing.holds, standing.reason.as_str()), (Some(true), ""));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_readiness_is_told_at_once_and_ends_the_check() {
        let application = Arc::new(Application::default());
        let (asker, (sender, phase)) = (asker(&application), ready());
        application.takes.store(700, Relaxed);
        let begun = Instant::now();
        let (waiting, waits) = (Arc::clone(&asker), phase.clone());
        let waiting = tokio::spawn(async move { waiting.ask(waits).await });
        sleep(Duration::from_millis(50)).await;
        sender.send_replace(Phase::PreStop);
        assert_eq!(waiting.await.expect("no panic"), None);
        assert_eq!(asker.ask(phase.clone()).await, None, "not asked");
        assert_eq!(begun.elapsed(), Duration::from_millis(50));
        sleep(10 * SECOND).await;
        assert_eq!((application.began.load(Relaxed), application.ended.load(Relaxed)), (1, 0), "it was cut");
        // Undone: the cut check is no answer, and nobody joins it.
        sender.send_replace(Phase::Ready);
        assert_eq!(asker.ask(phase).await, Some(Ok(())));
        assert_eq!((application.began.load(Relaxed), application.ended.load(Relaxed)), (2, 1));
    }
}
