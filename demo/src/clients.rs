//! The traffic, and the routing layer between it and the pods. The clients behave like those of Go and of browsers: a
//! GET that was sent on a *reused* connection is sent once more, on a new one, if the connection ended before the first
//! byte of an answer (RFC 9110, section 9.2.2). Anything else that goes wrong is a failed request.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use crate::{
    http::{Connection, Fault, connect_fault},
    kubelet::Place,
    pod::Pod,
};

/// One new connection each 10 ms: with the keep-alive clients about 150 requests a second.
const ARRIVAL_EVERY: Duration = Duration::from_millis(10);
/// Of the new connections every 20th asks for something that takes 1 to 2 s: 7 in flight at any time.
const SLOW_ARRIVAL_EVERY: u64 = 20;
const KEEP_ALIVE_CLIENTS: u64 = 16;
/// A keep-alive client thinks for 200 to 400 ms between two requests.
const THINK_MILLISECONDS: std::ops::Range<u64> = 200..400;
/// Of a keep-alive client's requests every 40th is slow: one or two in flight at any time.
const SLOW_KEEP_ALIVE_EVERY: u64 = 40;
/// The longest answer takes 2 s.
const LAST_ANSWERS_WITHIN: Duration = Duration::from_secs(5);

pub fn describe() -> String {
    format!(
        "two pods; {} new connections a second, every {SLOW_ARRIVAL_EVERY}th with an answer that takes 1 to 2 s;\n\
         {KEEP_ALIVE_CLIENTS} keep-alive clients, every {SLOW_KEEP_ALIVE_EVERY}th request of theirs as slow",
        1000 / ARRIVAL_EVERY.as_millis()
    )
}

/// What the clients saw.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub requests: u64,
    /// No connection.
    pub refused: u64,
    /// Sent, and the connection ended without an answer.
    pub unanswered: u64,
    /// The connection ended within the answer.
    pub truncated: u64,
    /// No answer in time, or another status than 200.
    pub other: u64,
    /// Sent once more on a new connection; counted as failed as well if that failed too.
    pub retried: u64,
    /// At the old pod, by the clock of the demo.
    pub last_new_connection: Option<Instant>,
    pub last_answer: Option<Instant>,
}

impl Tally {
    pub fn failed(&self) -> u64 {
        self.refused + self.unanswered + self.truncated + self.other
    }

    fn count(&mut self, result: Result<(), Fault>) {
        self.requests += 1;
        match result {
            Ok(()) => {}
            Err(Fault::Refused) => self.refused += 1,
            Err(Fault::Unanswered) => self.unanswered += 1,
            Err(Fault::Truncated) => self.truncated += 1,
            Err(Fault::Other) => self.other += 1,
        }
    }
}

/// Which pods a new connection may reach. Open connections stay where they are.
struct Routes {
    old: Pod,
    new: Pod,
    old_is_routed: bool,
    turn: u64,
    tally: Tally,
}

/// Decides for each new connection, as kube-proxy does.
#[derive(Clone)]
pub struct Router(Arc<Mutex<Routes>>);

/// A connection and whether it leads to the old pod.
struct Routed {
    connection: Connection,
    to_old: bool,
}

impl Router {
    pub fn new(old: Pod, new: Pod) -> Self {
        Self(Arc::new(Mutex::new(Routes { old, new, old_is_routed: true, turn: 0, tally: Tally::default() })))
    }

    /// From now on new connections reach the new pod only.
    pub fn forget_old(&self) {
        self.lock().old_is_routed = false;
    }

    pub fn tally(&self) -> Tally {
        self.lock().tally.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Routes> {
        // Plain numbers: they are whole whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(&self) -> Result<Routed, Fault> {
        let (pod, to_old) = {
            let mut routes = self.lock();
            routes.turn += 1;
            let to_old = routes.old_is_routed && routes.turn.is_multiple_of(2);
            (if to_old { routes.old.clone() } else { routes.new.clone() }, to_old)
        };
        let stream = pod.connect(pod.app_port).await.map_err(|error| connect_fault(&error))?;
        if to_old {
            self.lock().tally.last_new_connection = Some(Instant::now());
        }
        Ok(Routed { connection: Connection::new(stream), to_old })
    }

    async fn get(&self, routed: &mut Routed, path: &str, end: End) -> Result<(), Fault> {
        let close = if end == End::Close { "Connection: close\r\n" } else { "" };
        let request = format!("GET {path} HTTP/1.1\r\nHost: web\r\n{close}\r\n");
        let status = routed.connection.exchange(&request).await?;
        if routed.to_old {
            self.lock().tally.last_answer = Some(Instant::now());
        }
        if status == 200 { Ok(()) } else { Err(Fault::Other) }
    }
}

/// What a request asks the server to do with the connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Close,
    KeepAlive,
}

/// Traffic that runs until it is told to stop.
pub struct Traffic {
    stop: watch::Sender<bool>,
    clients: JoinSet<()>,
}

impl Traffic {
    pub fn start(router: &Router) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut clients = JoinSet::new();
        clients.spawn(arrive(router.clone(), stopped.clone()));
        for number in 0..KEEP_ALIVE_CLIENTS {
            clients.spawn(keep_alive(router.clone(), number, stopped.clone()));
        }
        Self { stop, clients }
    }

    /// No request starts any more; returns when all have ended.
    ///
    /// # Errors
    /// A request that did not end in time.
    pub async fn finish(mut self) -> Result<(), String> {
        let _ = self.stop.send(true);
        let all = async { while self.clients.join_next().await.is_some() {} };
        timeout(LAST_ANSWERS_WITHIN, all).await.map_err(|_| "the last requests did not end".into())
    }
}

/// New connections at a steady rate, whatever becomes of them.
async fn arrive(router: Router, stopped: watch::Receiver<bool>) {
    let mut requests = JoinSet::new();
    let mut clock = interval(ARRIVAL_EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 1_u64.. {
        clock.tick().await;
        if *stopped.borrow() {
            break;
        }
        let router = router.clone();
        let path = if number.is_multiple_of(SLOW_ARRIVAL_EVERY) { "/slow" } else { "/" };
        requests.spawn(async move {
            let result = match router.connect().await {
                Ok(mut routed) => router.get(&mut routed, path, End::Close).await,
                Err(fault) => Err(fault),
            };
            router.lock().tally.count(result);
        });
        while requests.try_join_next().is_some() {}
    }
    while requests.join_next().await.is_some() {}
}

/// One client that keeps its connection for as long as the server does.
async fn keep_alive(router: Router, number: u64, stopped: watch::Receiver<bool>) {
    let mut open: Option<Routed> = None;
    // Any odd start will do: the clients must not think in step.
    let mut random = number * 2 + 1;
    // Their slow requests are spread as well.
    let mut count = number * SLOW_KEEP_ALIVE_EVERY / KEEP_ALIVE_CLIENTS;
    while !*stopped.borrow() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let think = THINK_MILLISECONDS.start + (random >> 33) % (THINK_MILLISECONDS.end - THINK_MILLISECONDS.start);
        let closed = match &mut open {
            Some(routed) => timeout(Duration::from_millis(think), routed.connection.closed()).await.is_ok(),
            None => {
                sleep(Duration::from_millis(think)).await;
                false
            }
        };
        if closed {
            open = None;
        }
        count += 1;
        let path = if count.is_multiple_of(SLOW_KEEP_ALIVE_EVERY) { "/slow" } else { "/" };
        let result = ask(&router, &mut open, path).await;
        router.lock().tally.count(result);
    }
}

/// One request on the open connection, or on a new one; with the one retry that a reused connection grants.
async fn ask(router: &Router, open: &mut Option<Routed>, path: &str) -> Result<(), Fault> {
    if let Some(mut routed) = open.take() {
        let is_reused = routed.connection.answers > 0;
        match router.get(&mut routed, path, End::KeepAlive).await {
            Ok(()) => {
                *open = Some(routed);
                return Ok(());
            }
            Err(Fault::Unanswered) if is_reused => router.lock().tally.retried += 1,
            Err(fault) => return Err(fault),
        }
    }
    let mut routed = router.connect().await?;
    router.get(&mut routed, path, End::KeepAlive).await?;
    *open = Some(routed);
    Ok(())
}
