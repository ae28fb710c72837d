//! Connections for requests: TCP to the first address that answers, Unix sockets, TLS on top.

use std::{
    future::{Future, poll_fn},
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr},
    path::Path,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take},
    net::{TcpStream, UnixStream},
    time::{Instant, sleep_until},
};

use super::{files, resolve::resolve};
use crate::{net::counters::note_own_connection, process::Processes};

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

/// Just less than what hyper reads at first (8 KiB): where that much never comes, its buffers never grow. On hundreds of
/// connections with large answers they would be 140 KiB each.
const SIP: u64 = 8000;

/// A connection that is read in small pieces.
pub struct Sips(Take<Box<dyn Stream>>);

impl Sips {
    pub fn new(stream: Box<dyn Stream>) -> Self {
        Self(stream.take(SIP))
    }
}

impl AsyncRead for Sips {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.set_limit(SIP);
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Sips {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self.0.get_mut()).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.0.get_mut()).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.0.get_mut()).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.0.get_mut()).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.0.get_ref().is_write_vectored()
    }
}

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

pub(super) async fn connect_any(addresses: &[IpAddr], port: u16) -> io::Result<TcpStream> {
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
                    Poll::Ready(Ok(stream)) => {
                        note_own_connection(&stream);
                        return Poll::Ready(Ok(stream));
                    }
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
