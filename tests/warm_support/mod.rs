//! Servers to warm up: each counts who asked what and when, and answers in its own manner.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

/// One request that came.
#[derive(Clone, Debug)]
pub struct Ask {
    pub at: Instant,
    /// The number of its connection, from 0.
    pub connection: usize,
    pub path: String,
    pub head: String,
}

/// Answers one request; whether the connection stays.
pub type Manner = Box<dyn Fn(&Ask, &mut TcpStream) -> io::Result<bool> + Send + Sync>;

#[derive(Default)]
struct Seen {
    asks: Mutex<Vec<Ask>>,
    accepted: AtomicUsize,
    open: AtomicUsize,
    is_over: AtomicBool,
}

pub struct Server {
    pub address: SocketAddr,
    seen: Arc<Seen>,
}

impl Server {
    pub fn start(manner: Manner) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("a port"), manner)
    }

    /// On a listener that is there already.
    pub fn on(listener: TcpListener, manner: Manner) -> Self {
        let address = listener.local_addr().expect("bound");
        let (seen, manner) = (Arc::<Seen>::default(), Arc::new(manner));
        let all = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if all.is_over.load(SeqCst) {
                    break;
                }
                let (seen, manner) = (Arc::clone(&all), Arc::clone(&manner));
                let connection = seen.accepted.fetch_add(1, SeqCst);
                seen.open.fetch_add(1, SeqCst);
                thread::spawn(move || {
                    serve(stream, connection, &seen, &manner);
                    seen.open.fetch_sub(1, SeqCst);
                });
            }
        });
        Self { address, seen }
    }

    /// Answers every request with what this makes of its path.
    pub fn answers(status_of: impl Fn(&str) -> u16 + Send + Sync + 'static) -> Self {
        Self::start(Box::new(move |ask, stream| answer(stream, status_of(&ask.path)).map(|()| true)))
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All that came so far.
    pub fn asks(&self) -> Vec<Ask> {
        self.seen.asks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn count(&self, path: &str) -> usize {
        self.asks().iter().filter(|ask| ask.path == path).count()
    }

    /// Connections so far.
    pub fn accepted(&self) -> usize {
        self.seen.accepted.load(SeqCst)
    }

    /// Connections that the other side has not closed yet.
    pub fn open(&self) -> usize {
        self.seen.open.load(SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.seen.is_over.store(true, SeqCst);
        // Its listener waits for somebody.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(mut stream: TcpStream, connection: usize, seen: &Seen, manner: &Manner) {
    let _ = stream.set_nodelay(true);
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        while let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            bytes.drain(..end + 4);
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let ask = Ask { at: Instant::now(), connection, path, head };
            seen.asks.lock().unwrap_or_else(PoisonError::into_inner).push(ask.clone());
            if !manner(&ask, &mut stream).unwrap_or(false) {
                return;
            }
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
        }
    }
}

/// A whole answer.
pub fn answer(stream: &mut TcpStream, status: u16) -> io::Result<()> {
    stream.write_all(format!("HTTP/1.1 {status} Some Reason\r\nContent-Length: 2\r\n\r\nok").as_bytes())
}

/// Says nothing until the other side goes away.
pub fn hang() -> Manner {
    Box::new(|_, stream| {
        let mut chunk = [0; 1024];
        while stream.read(&mut chunk)? > 0 {}
        Ok(false)
    })
}

/// Closes with a reset.
pub fn reset() -> Manner {
    Box::new(|_, stream| {
        rustix::net::sockopt::set_socket_linger(&*stream, Some(Duration::ZERO))?;
        Ok(false)
    })
}

/// A head that comes byte by byte and never ends.
pub fn drip() -> Manner {
    Box::new(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
        loop {
            stream.write_all(b"X: x\r\n")?;
            thread::sleep(Duration::from_millis(20));
        }
    })
}

/// A 200 with a body that never ends, as fast as it goes.
pub fn endless() -> Manner {
    Box::new(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
        let piece = vec![b'x'; 64 << 10];
        loop {
            stream.write_all(&piece)?;
        }
    })
}
