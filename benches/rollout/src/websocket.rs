//! As much of WebSocket (RFC 6455) as an echo needs, for both of its ends.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

/// The handshake with the key of the RFC's own example (section 1.3), so that the answer to it is known as well.
pub const REQUEST: &str = "GET /ws HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
pub const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

const SAY_EVERY: Duration = Duration::from_millis(200);
const TEXT: &[u8] = b"made fast";
const FINAL_TEXT: u8 = 0x81;
const FINAL_CLOSE: u8 = 0x88;
const MASKED: u8 = 0x80;
/// Any mask will do; zeros leave the text as it is, which keeps the echo simple.
const MASK: [u8; 4] = [0; 4];

/// The client: says something every 200 ms and hears it back, then closes.
///
/// # Errors
/// The other side ended it, or said something else.
pub async fn talk(mut stream: TcpStream, time: Duration) -> io::Result<()> {
    let length = u8::try_from(TEXT.len()).unwrap_or(0);
    let mut left = time;
    while !left.is_zero() {
        let pause = left.min(SAY_EVERY);
        sleep(pause).await;
        left -= pause;
        let frame = [&[FINAL_TEXT, MASKED | length], &MASK[..], TEXT].concat();
        stream.write_all(&frame).await?;
        let mut echo = [0; 2 + TEXT.len()];
        stream.read_exact(&mut echo).await?;
        if echo[..2] != [FINAL_TEXT, length] || echo[2..] != *TEXT {
            return Err(io::Error::other("not what was said"));
        }
    }
    // 1000: a normal closure (section 7.4.1). How the server takes leave does not matter any more.
    let close = [&[FINAL_CLOSE, MASKED | 2], &MASK[..], &1000_u16.to_be_bytes()].concat();
    stream.write_all(&close).await?;
    let mut rest = [0; 64];
    while matches!(stream.read(&mut rest).await, Ok(1..)) {}
    Ok(())
}

/// The server: says back what it hears, until the client closes.
///
/// # Errors
/// The client ended without a close, or speaks in another way than [`talk`].
pub async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    loop {
        let mut head = [0; 6];
        stream.read_exact(&mut head).await?;
        let mut text = vec![0; usize::from(head[1] & !MASKED)];
        stream.read_exact(&mut text).await?;
        let frame = [&[head[0], head[1] & !MASKED], &text[..]].concat();
        stream.write_all(&frame).await?;
        if head[0] == FINAL_CLOSE {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hears_what_it_says_until_the_other_side_ends() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        for (patience, expected) in [(Duration::from_secs(5), true), (Duration::from_millis(300), false)] {
            let client = tokio::spawn(async move {
                let stream = TcpStream::connect(address).await.expect("connected");
                talk(stream, Duration::from_millis(500)).await.is_ok()
            });
            let (stream, _) = listener.accept().await.expect("a connection");
            let _ = tokio::time::timeout(patience, echo(stream)).await;
            assert_eq!(client.await.expect("no panic"), expected, "{patience:?}");
        }
    }
}
