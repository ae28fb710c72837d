//! The application of the demo: an HTTP server that knows nothing of hooks, readiness or draining. It handles no
//! signal, so SIGTERM ends it at once and cuts what is in flight, as nginx's fast shutdown does.

use std::{
    io::Read,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// More than any request of the demo: a longer one is not answered.
const LONGEST_REQUEST: usize = 8 << 10;

static SLOW_ANSWERS: AtomicU64 = AtomicU64::new(0);

/// Serves until it is killed, or until its standard input ends: so it never outlives the demo.
pub fn run(port: u16) -> Result<(), String> {
    std::thread::spawn(|| {
        let mut ignored = [0; 64];
        while matches!(std::io::stdin().read(&mut ignored), Ok(1..)) {}
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("event loop: {error}"))?;
    runtime.block_on(async {
        let listener =
            TcpListener::bind(("127.0.0.1", port)).await.map_err(|error| format!("127.0.0.1:{port}: {error}"))?;
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        }
    })
}

/// Answers one request after the other until either side has enough.
async fn serve(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read_buf(&mut buffer).await {
                Ok(1..) if buffer.len() <= LONGEST_REQUEST => {}
                _ => return,
            }
        };
        let request: Vec<u8> = buffer.drain(..end).collect();
        let request = String::from_utf8_lossy(&request);
        let status = match request.split(' ').nth(1) {
            Some("/" | "/healthz") => "200 OK",
            Some("/slow") => {
                // 1 to 2 s, never the same twice in a row.
                let count = SLOW_ANSWERS.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(1000 + count * 379 % 1000)).await;
                "200 OK"
            }
            _ => "404 Not Found",
        };
        let close = request.contains("Connection: close\r\n");
        let connection = if close { "close" } else { "keep-alive" };
        let body = "made fast\n";
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n{body}",
            body.len()
        );
        if stream.write_all(answer.as_bytes()).await.is_err() || close {
            return;
        }
    }
}
