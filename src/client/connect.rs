//! Connections for requests: TCP to the first address that answers, Unix sockets, TLS on top.

use std::{
    future::{Future, poll_fn},
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::{Instant, sleep_until},
};

use super::{files, resolve::resolve};
use crate::process::Processes;

/// RFC 8305 section 5: the next address is tried when the one before has not answered for this long.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);
/// Of an upload: enough to keep the line busy between two turns of the runtime, little enough to see it stall.
#[cfg(feature = "state")]
const MOST_UNSENT: u32 = 256 << 10;
/// More addresses than any service needs; the rest of a longer list is not tried.
const MOST_ADDRESSES: usize = 16;

/// A connection of any sort; boxed, so that the code above it is compiled once.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Connects to the first address of `host` that answers.
///
/// # Errors
/// Why none does: of the last one that failed.
pub async fn connect_tcp(host: &str, port: u16, processes: &Processes) -> Result<TcpStream, String> {
    let addresses = resolve(host, processes).await?;
    let stream = connect_any(&addresses, port).await.map_err(|error| files::reason(&error))?;
    #[cfg(feature = "state")]
    crate::sys::socket::limit_unsent(&stream, MOST_UNSENT);
    Ok(stream)
}

type Attempt<'a> = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send + 'a>>;

async fn connect_any(addresses: &[IpAddr], port: u16) -> io::Result<TcpStream> {
    let mut waiting = addresses.iter().take(MOST_ADDRESSES);
    let mut attempts: Vec<Attempt<'_>> = Vec::new();
    let mut next = pin!(sleep_until(Instant::now()));
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    poll_fn(move |context| {
        loop {
            let mut failed = false;
            let mut index = 0;
            while index < attempts.len() {
                match attempts[index].as_mut().poll(context) {
                    Poll::Ready(Ok(stream)) => return Poll::Ready(Ok(stream)),
                    Poll::Ready(Err(error)) => {
                        failure = error;
                        failed = true;
                        drop(attempts.remove(index));
                    }
                    Poll::Pending => index += 1,
                }
            }
            let due = failed || attempts.is_empty() || next.as_mut().poll(context).is_ready();
            match (due, waiting.len()) {
                (true, 0) if attempts.is_empty() => {
                    return Poll::Ready(Err(std::mem::replace(&mut failure, io::ErrorKind::Other.into())));
                }
                (false, _) | (true, 0) => return Poll::Pending,
                (true, _) => {}
            }
            if let Some(address) = waiting.next() {
                attempts.push(Box::pin(TcpStream::connect(SocketAddr::new(*address, port))));
                next.as_mut().reset(Instant::now() + NEXT_ADDRESS);
            }
        }
    })
    .await
}

/// Connects to a Unix socket.
///
/// # Errors
/// Says why it cannot.
pub async fn connect_unix(path: &Path) -> Result<UnixStream, String> {
    UnixStream::connect(path).await.map_err(|error| files::reason(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tries_all_addresses() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        // 127.0.0.2 refuses at once; 192.0.2.1 (RFC 5737) never answers, or is unreachable.
        for first in ["127.0.0.2", "192.0.2.1", "::1"] {
            let addresses = [first.parse().expect("an address"), IpAddr::from([127, 0, 0, 1])];
            let stream = tokio::time::timeout(Duration::from_secs(5), connect_any(&addresses, port)).await;
            let stream = stream.expect("in time").expect("connected");
            assert_eq!(stream.peer_addr().expect("a peer").ip(), addresses[1], "after {first}");
        }
        drop(listener);
        let refused = connect_any(&[IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2])], port).await;
        assert_eq!(refused.expect_err("refused").kind(), io::ErrorKind::ConnectionRefused);
        assert!(connect_any(&[], port).await.is_err());
    }
}
