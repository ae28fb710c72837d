//! The clients: about 300 requests a second, of all the kinds that a stop can spoil. Nobody sends anything twice, so
//! nothing is hidden.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use demo::http::{Connection, Fault, connect_fault};
use tokio::{
    net::TcpStream,
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use crate::{
    server::Abilities,
    tally::{Carrier, Class, Ended, Pace, Tally, judge},
    websocket,
};

/// 120 new connections a second: 40 for each of three replicas, 60 while one is away.
const ARRIVALS: u64 = 120;
/// With a pause of 60 to 200 ms after each answer about 180 requests a second.
const KEEP_ALIVE_CLIENTS: u64 = 24;
const THINK_MILLISECONDS: std::ops::Range<u64> = 60..200;
/// Of a keep-alive client's requests every 60th is slow: six of them are in flight at any time.
const SLOW_KEEP_ALIVE_EVERY: u64 = 60;
/// How long slow answers, uploads and WebSockets take.
const SLOW_MILLISECONDS: std::ops::Range<u64> = 1000..3000;
/// An upload comes in pieces, spread over its time.
const PIECES: u32 = 8;
const PIECE: [u8; 8 << 10] = [b'u'; 8 << 10];
/// A client gives up after this: three times what the slowest answer takes.
const PATIENCE: Duration = Duration::from_secs(9);

/// What a new connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Errand {
    Quick,
    /// Thinks, then answers at once.
    Slow,
    /// Begins to answer at once, and goes on piece by piece.
    Trickle,
    Upload,
    WebSocket,
}

impl Errand {
    /// In a second's 120 arrivals: 6 slow answers, 3 that trickle, 4 uploads, 3 WebSockets; about 32 of them are under
    /// way at any time. What is not to be asked becomes something quick.
    fn of(number: u64, abilities: Abilities) -> Self {
        if number % 20 == 3 && abilities.slow {
            Self::Slow
        } else if number % 40 == 7 && abilities.trickle {
            Self::Trickle
        } else if number % 30 == 11 && abilities.upload {
            Self::Upload
        } else if number % 40 == 27 && abilities.websocket {
            Self::WebSocket
        } else {
            Self::Quick
        }
    }
}

/// A request that did not end well, for the log.
#[derive(Clone, Debug)]
pub struct Mishap {
    pub begun: Instant,
    pub at: Instant,
    pub what: String,
    pub ended: Ended,
}

/// What the clients saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub tally: Tally,
    pub mishaps: Vec<Mishap>,
    pub pace: Pace,
}

/// Where the clients write it.
#[derive(Clone, Default)]
struct Record(Arc<Mutex<Seen>>);

impl Record {
    fn count(&self, what: &str, is_quick: bool, begun: Instant, ended: Ended) {
        let mut seen = self.lock();
        seen.tally.count(ended);
        if ended != Ended::Answered {
            seen.mishaps.push(Mishap { begun, at: Instant::now(), what: what.into(), ended });
        } else if is_quick {
            seen.pace.count(begun.elapsed());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        // Plain numbers: they are whole whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Traffic that runs until it is told to stop.
pub struct Load {
    stop: watch::Sender<bool>,
    clients: JoinSet<()>,
    record: Record,
}

impl Load {
    pub fn start(router: SocketAddr, abilities: Abilities) -> Self {
        let (stop, stopped) = watch::channel(false);
        let record = Record::default();
        let mut clients = JoinSet::new();
        clients.spawn(arrive(router, abilities, record.clone(), stopped.clone()));
        for number in 0..KEEP_ALIVE_CLIENTS {
            clients.spawn(keep_alive(router, abilities, number, record.clone(), stopped.clone()));
        }
        Self { stop, clients, record }
    }

    /// No request starts any more; returns when all have ended, which their patience bounds.
    pub async fn finish(mut self) -> Seen {
        let _ = self.stop.send(true);
        while self.clients.join_next().await.is_some() {}
        self.record.lock().clone()
    }
}

/// Between one second and three, another one for each number.
fn slow_time(number: u64) -> Duration {
    let range = SLOW_MILLISECONDS.end - SLOW_MILLISECONDS.start;
    // 379 is a prime that does not divide the range: all lengths come, in no order that repeats soon.
    Duration::from_millis(SLOW_MILLISECONDS.start + number * 379 % range)
}

/// New connections at a steady rate, whatever becomes of them.
async fn arrive(router: SocketAddr, abilities: Abilities, record: Record, stopped: watch::Receiver<bool>) {
    let mut requests = JoinSet::new();
    let mut clock = interval(Duration::from_secs(1) / u32::try_from(ARRIVALS).unwrap_or(1));
    clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 0_u64.. {
        clock.tick().await;
        if *stopped.borrow() {
            break;
        }
        let record = record.clone();
        let errand = Errand::of(number, abilities);
        requests.spawn(async move {
            let begun = Instant::now();
            let ended = match timeout(PATIENCE, run_errand(router, errand, slow_time(number))).await {
                Ok(ended) => ended,
                Err(_) if errand == Errand::WebSocket => Ended::Failed(Class::WebSocket),
                Err(_) => Ended::Failed(Class::Timeout),
            };
            record.count(&format!("{errand:?}"), errand == Errand::Quick, begun, ended);
        });
        while requests.try_join_next().is_some() {}
    }
    while requests.join_next().await.is_some() {}
}

async fn run_errand(router: SocketAddr, errand: Errand, time: Duration) -> Ended {
    let mut connection = match connect(router).await {
        Ok(connection) => connection,
        Err(fault) => return judge(Err(fault), 200, Carrier::Fresh, Duration::ZERO),
    };
    let sent = Instant::now();
    let milliseconds = time.as_millis();
    let answer = match errand {
        Errand::Quick => get(&mut connection, "/", End::Close).await,
        Errand::Slow => get(&mut connection, &format!("/slow?ms={milliseconds}"), End::Close).await,
        Errand::Trickle => get(&mut connection, &format!("/trickle?ms={milliseconds}"), End::Close).await,
        Errand::Upload => upload(&mut connection, time).await,
        Errand::WebSocket => {
            let _ = connection.send(websocket::REQUEST.as_bytes()).await;
            let answer = connection.receive().await;
            if answer == Ok(101) {
                return match websocket::talk(connection.into_stream(), time).await {
                    Ok(()) => Ended::Answered,
                    Err(_) => Ended::Failed(Class::WebSocket),
                };
            }
            return judge(answer, 101, Carrier::Fresh, sent.elapsed());
        }
    };
    judge(answer, 200, Carrier::Fresh, sent.elapsed())
}

async fn connect(router: SocketAddr) -> Result<Connection, Fault> {
    TcpStream::connect(router).await.map(Connection::new).map_err(|error| connect_fault(&error))
}

/// What a request asks the server to do with the connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Close,
    KeepAlive,
}

async fn get(connection: &mut Connection, path: &str, end: End) -> Result<u16, Fault> {
    let close = if end == End::Close { "Connection: close\r\n" } else { "" };
    // A server that has closed may still have answered: only reading tells.
    let _ = connection.send(format!("GET {path} HTTP/1.1\r\nHost: web\r\n{close}\r\n").as_bytes()).await;
    connection.receive().await
}

async fn upload(connection: &mut Connection, time: Duration) -> Result<u16, Fault> {
    let head = format!(
        "POST /upload HTTP/1.1\r\nHost: web\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        PIECE.len() * PIECES as usize
    );
    let send = async {
        connection.send(head.as_bytes()).await?;
        for _ in 0..PIECES {
            sleep(time / PIECES).await;
            connection.send(&PIECE).await?;
        }
        Ok::<_, io::Error>(())
    };
    let _ = send.await;
    connection.receive().await
}

/// One client that keeps its connection for as long as the server does.
async fn keep_alive(
    router: SocketAddr,
    abilities: Abilities,
    number: u64,
    record: Record,
    stopped: watch::Receiver<bool>,
) {
    let mut open: Option<Connection> = None;
    // Any odd start will do: the clients must not think in step.
    let mut random = number * 2 + 1;
    // Their slow requests are spread as well.
    let mut count = number * SLOW_KEEP_ALIVE_EVERY / KEEP_ALIVE_CLIENTS;
    while !*stopped.borrow() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let think = THINK_MILLISECONDS.start + (random >> 33) % (THINK_MILLISECONDS.end - THINK_MILLISECONDS.start);
        let think = Duration::from_millis(think);
        // Clients notice also while they are idle that the server has closed.
        let is_closed = match &mut open {
            Some(connection) => {
                let until = Instant::now() + think;
                let closed = timeout(think, connection.closed()).await.is_ok();
                tokio::time::sleep_until(until).await;
                closed
            }
            None => {
                sleep(think).await;
                false
            }
        };
        if is_closed {
            open = None;
        }
        count += 1;
        let is_slow = abilities.slow && count.is_multiple_of(SLOW_KEEP_ALIVE_EVERY);
        let path = match is_slow {
            true => format!("/slow?ms={}", slow_time(count + number * 17).as_millis()),
            false => "/".into(),
        };
        let begun = Instant::now();
        let ended = timeout(PATIENCE, ask(router, &mut open, &path)).await;
        record.count(&format!("keep-alive {path}"), !is_slow, begun, ended.unwrap_or(Ended::Failed(Class::Timeout)));
    }
}

/// One request on the open connection, or on a new one.
async fn ask(router: SocketAddr, open: &mut Option<Connection>, path: &str) -> Ended {
    let mut connection = match open.take() {
        Some(connection) => connection,
        None => match connect(router).await {
            Ok(connection) => connection,
            Err(fault) => return judge(Err(fault), 200, Carrier::Fresh, Duration::ZERO),
        },
    };
    let carrier = if connection.answers > 0 { Carrier::Reused } else { Carrier::Fresh };
    let sent = Instant::now();
    let answer = get(&mut connection, path, End::KeepAlive).await;
    if answer.is_ok() {
        *open = Some(connection);
    }
    judge(answer, 200, carrier, sent.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_has_all_kinds() {
        let of = |number| Errand::of(number, Abilities::ALL);
        let count = |errand| (0..ARRIVALS).filter(|&number| of(number) == errand).count();
        let kinds = [Errand::Quick, Errand::Slow, Errand::Trickle, Errand::Upload, Errand::WebSocket];
        assert_eq!(kinds.map(count), [104, 6, 3, 4, 3]);
    }

    #[test]
    fn nothing_takes_longer_than_the_longest_request() {
        let times: Vec<u64> = (0..5000).map(|number| slow_time(number).as_millis() as u64).collect();
        assert!(times.iter().all(|time| SLOW_MILLISECONDS.contains(time)));
        assert!(times.iter().max() > Some(&2990));
    }
}
