//! The application behind a proxy such as nginx, in the same pod: slow answers, uploads, a WebSocket.
//! It is not what is tested, so it outlives the proxy, as it would in a container of its own with a longer grace.

use std::{fs, io, os::unix::fs::PermissionsExt, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener},
    time::sleep,
};

use crate::websocket;

/// More than any request's head here.
const LONGEST_HEAD: usize = 16 << 10;
const PIECES: u32 = 10;

/// Serves until it is killed: on a Unix socket if `address` is a path, else on a port of the loopback.
pub async fn run(address: &str) -> Result<(), String> {
    let fail = |error: io::Error| format!("{address}: {error}");
    if address.contains('/') {
        let listener = UnixListener::bind(address).map_err(fail)?;
        // Some proxies are not root.
        fs::set_permissions(address, fs::Permissions::from_mode(0o777)).map_err(fail)?;
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        }
    }
    let listener = TcpListener::bind(address).await.map_err(fail)?;
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::spawn(serve(stream));
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// Answers one request after the other until the client has enough.
async fn serve(mut stream: impl Stream) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if buffer.len() > LONGEST_HEAD || stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let head: Vec<u8> = buffer.drain(..end).collect();
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let (path, query) = head.split(' ').nth(1).map_or(("", ""), |path| path.split_once('?').unwrap_or((path, "")));
        let time = Duration::from_millis(query.strip_prefix("ms=").and_then(|ms| ms.parse().ok()).unwrap_or(0));
        match path {
            "/ws" => {
                stream.write_all(websocket::ANSWER.as_bytes()).await?;
                return websocket::echo(stream).await;
            }
            "/slow" => {
                sleep(time).await;
                answer(&mut stream, "slow\n").await?;
            }
            "/trickle" => {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {PIECES}\r\n\r\n");
                stream.write_all(head.as_bytes()).await?;
                for _ in 0..PIECES {
                    sleep(time / PIECES).await;
                    stream.write_all(b".").await?;
                }
            }
            "/upload" => {
                let field = head.lines().find_map(|line| line.strip_prefix("content-length:"));
                let length = field.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
                while buffer.len() < length {
                    if stream.read_buf(&mut buffer).await? == 0 {
                        return Ok(());
                    }
                }
                buffer.drain(..length);
                answer(&mut stream, "stored\n").await?;
            }
            _ => answer(&mut stream, "made fast\n").await?,
        }
        if head.contains("connection: close") {
            return Ok(());
        }
    }
}

async fn answer(stream: &mut impl Stream, body: &str) -> io::Result<()> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + body).as_bytes()).await
}
