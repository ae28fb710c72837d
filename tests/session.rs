//! Many questions on one connection: with real servers, and with those that close, refuse, break off and never end.

mod client_support;
mod server_support;
mod session_support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use boathook::{
    client::{
        Request,
        options::{Header, Options},
        session::{Protocol, Ready, Session, Told},
    },
    problem::Scope,
    process::Processes,
};
use bytes::Bytes;
use client_support::{head, serve};
use session_support::{H2C, PLAIN, SHORT, SOON, Server, TLS, TLS_H2, nginx};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

fn request(url: &str, options: Options) -> Request {
    let (mut secrets, mut problems) = (Vec::new(), Vec::new());
    let mut scope = Scope::new("f", &mut secrets, &mut problems);
    let request = Request::mean("url", url, options, &mut scope);
    request.unwrap_or_else(|| panic!("{:?}", problems.iter().map(ToString::to_string).collect::<Vec<_>>()))
}

async fn ready(url: &str, protocol: Protocol) -> Ready {
    request(url, Options::default()).make_ready(protocol).await.expect("ready")
}

async fn connect(ready: &Ready) -> Session {
    timeout(SOON, ready.route.connect(&Processes::idle())).await.expect("in time").expect("connected")
}

/// Asks with a time limit; an error is its reason and whether it was stale.
async fn ask(session: &mut Session, ready: &Ready) -> Result<Told, (String, bool)> {
    let told = timeout(SOON, session.ask(&ready.question)).await.expect("in time");
    told.map_err(|no_answer| (no_answer.failure.reason, no_answer.was_stale))
}

fn text(told: &Told) -> String {
    assert_eq!(told.status, 200);
    String::from_utf8_lossy(&told.beginning).into_owned()
}

/// Of `connection:request:protocol`.
fn parts(told: &Told) -> (String, u32, String) {
    let text = text(told);
    let parts: Vec<&str> = text.split(':').collect();
    (parts[0].into(), parts[1].parse().expect("a number"), parts[2].into())
}

fn url(server: &Server, index: usize, rest: &str) -> String {
    let scheme = if index >= TLS { "https" } else { "http" };
    format!("{scheme}://localhost:{}{rest}", server.ports[index])
}

#[tokio::test]
async fn one_connection_answers_many_questions() {
    let Some(server) = nginx() else { return };
    let socket = format!("unix://{}/socket:/", server.folder.display());
    for place in [url(&server, PLAIN, "/"), socket] {
        let ready = ready(&place, Protocol::Http1).await;
        let mut session = connect(&ready).await;
        let first = parts(&ask(&mut session, &ready).await.expect("an answer"));
        assert_eq!((first.1, first.2.as_str()), (1, "HTTP/1.1"));
        for count in 2..50 {
            assert!(session.is_open());
            let told = ask(&mut session, &ready).await.expect("an answer");
            assert_eq!(parts(&told), (first.0.clone(), count, first.2.clone()), "{place}");
        }
        assert!(session.share().is_none(), "one question at a time");
    }
}

#[tokio::test]
async fn a_connection_that_the_server_ends_is_no_failure() {
    let Some(server) = nginx() else { return };
    let ready = ready(&url(&server, SHORT, "/"), Protocol::Http1).await;
    let mut connections = Vec::new();
    let mut session = connect(&ready).await;
    for _ in 0..23 {
        if !session.is_open() {
            session = connect(&ready).await;
        }
        let (connection, count, _) = parts(&ask(&mut session, &ready).await.expect("no stale connection is asked"));
        assert!(count <= 5);
        connections.push(connection);
    }
    connections.dedup();
    assert_eq!(connections.len(), 5);
}

#[tokio::test]
async fn large_answers_are_counted() {
    let Some(server) = nginx() else { return };
    for (index, protocol) in [(PLAIN, Protocol::Http1), (TLS, Protocol::Http1)] {
        let ca_file = (index >= TLS).then(|| server.folder.join("ca.pem"));
        let options = Options { ca_file, ..Options::default() };
        let ready = request(&url(&server, index, "/large"), options).make_ready(protocol).await.expect("ready");
        let mut session = connect(&ready).await;
        for _ in 0..3 {
            let told = ask(&mut session, &ready).await.expect("an answer");
            assert_eq!((told.status, told.size, told.beginning), (200, 5 << 20, vec![b'x'; 256]));
        }
    }
}

#[tokio::test]
async fn what_is_sent_is_what_other_requests_send() {
    let (sender, mut heads) = tokio::sync::mpsc::unbounded_channel();
    let address = serve(move |mut stream| {
        let sender = sender.clone();
        async move {
            loop {
                let text = head(&mut stream).await;
                if text.is_empty() {
                    return;
                }
                let mut body = [0; 4];
                stream.read_exact(&mut body).await.expect("a body");
                sender.send((text, body)).expect("a receiver");
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nyour hunter2").await.expect("written");
            }
        }
    })
    .await;
    let options = Options {
        method: Some("PUT".into()),
        body: Some("body".into()),
        bearer: Some("hunter2".into()),
        headers: vec![Header { name: "X-Token".into(), value: "hunter3".into() }],
        ..Options::default()
    };
    let ready = request(&format!("http://{address}/a?b=c"), options).make_ready(Protocol::Http1).await.expect("ready");
    assert_eq!(ready.secrets, ["hunter2", "hunter3"]);
    assert_eq!(ready.route.show(), format!("http://{address}"));
    let mut session = connect(&ready).await;
    for _ in 0..2 {
        assert_eq!(text(&ask(&mut session, &ready).await.expect("an answer")), "your hunter2");
        let (head, body) = heads.recv().await.expect("a head");
        let version = env!("CARGO_PKG_VERSION");
        let mut lines: Vec<&str> = head.trim_end().split("\r\n").collect();
        lines[1..].sort_unstable();
        assert_eq!(
            lines,
            [
                "PUT /a?b=c HTTP/1.1",
                "authorization: Bearer hunter2",
                "content-length: 4",
                &format!("host: {address}"),
                &format!("user-agent: boathook/{version}"),
                "x-token: hunter3"
            ]
        );
        assert_eq!(&body, b"body");
    }
}

const WHOLE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const CLOSED: &str = "the connection was closed without a complete answer";

/// Answers the first questions of a connection well, then once with these bytes, then closes it.
async fn hostile(good: usize, last: &'static [u8], reset: bool) -> std::net::SocketAddr {
    serve(move |mut stream| async move {
        for _ in 0..good {
            if head(&mut stream).await.is_empty() {
                return;
            }
            stream.write_all(WHOLE).await.expect("written");
        }
        head(&mut stream).await;
        let _ = stream.write_all(last).await;
        if reset {
            // What was sent has to arrive first.
            tokio::time::sleep(Duration::from_millis(100)).await;
            stream.set_zero_linger().expect("set");
        }
    })
    .await
}

#[tokio::test]
async fn what_breaks_off_has_a_reason() {
    let broke_off = |why: &str| format!("the answer broke off after 3 bytes: {why}");
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc";
    let reset = "the connection was reset".to_string();
    for (last, with_reset, reason, is_stale) in [
        (&b""[..], false, CLOSED.to_string(), true),
        (b"", true, reset.clone(), true),
        (b"HTTP/1.1 20", false, CLOSED.into(), false),
        (b"HTTP/1.1 20", true, reset.clone(), false),
        (head, false, broke_off("the connection was closed too early"), false),
        (head, true, broke_off(&reset), false),
        (b"SSH-2.0-x\r\n\r\n", false, "the answer is not HTTP".into(), false),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nx",
            false,
            broke_off("invalid chunk size line: missing size digit"),
            false,
        ),
    ] {
        for good in [0, 2] {
            let ready = ready(&format!("http://{}/", hostile(good, last, with_reset).await), Protocol::Http1).await;
            let mut session = connect(&ready).await;
            for _ in 0..good {
                ask(&mut session, &ready).await.expect("an answer");
            }
            let what = format!("{:?} {with_reset} after {good}", String::from_utf8_lossy(last));
            let told = ask(&mut session, &ready).await.expect_err("broken");
            assert_eq!(told, (reason.clone(), is_stale && good > 0), "{what}");
            assert!(!session.is_open(), "{what}");
            assert_eq!(ask(&mut session, &ready).await.expect_err("closed"), (CLOSED.into(), false));
        }
    }
}

/// nginx, HAProxy and others close connections that are idle for long, some with a word that nobody asked for.
#[tokio::test]
async fn an_idle_connection_that_was_closed_is_stale() {
    for farewell in [&b""[..], b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"] {
        let (closed, mut is_closed) = tokio::sync::mpsc::unbounded_channel();
        let address = serve(move |mut stream| {
            let closed = closed.clone();
            async move {
                head(&mut stream).await;
                stream.write_all(WHOLE).await.expect("written");
                stream.write_all(farewell).await.expect("written");
                drop(stream);
                closed.send(()).expect("a receiver");
            }
        })
        .await;
        let ready = ready(&format!("http://{address}/"), Protocol::Http1).await;
        let mut session = connect(&ready).await;
        ask(&mut session, &ready).await.expect("an answer");
        is_closed.recv().await.expect("closed");
        let stale = if session.is_open() { ask(&mut session, &ready).await.expect_err("closed").1 } else { true };
        assert!(stale, "{:?}", String::from_utf8_lossy(farewell));
        let mut session = connect(&ready).await;
        ask(&mut session, &ready).await.expect("an answer");
    }
}

#[tokio::test]
async fn heads_have_a_limit_and_bodies_have_none() {
    for (start, reason) in [
        (&b"HTTP/1.1 200 OK\r\nX: "[..], Some("the head of the answer is too large")),
        (b"HTTP/1.1 200 OK\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\n", None),
    ] {
        let (gone, mut is_gone) = tokio::sync::mpsc::unbounded_channel();
        let address = serve(move |mut stream| {
            let gone = gone.clone();
            async move {
                head(&mut stream).await;
                stream.write_all(start).await.expect("written");
                while stream.write_all(&[b'a'; 4096]).await.is_ok() {}
                gone.send(()).expect("a receiver");
            }
        })
        .await;
        let ready = ready(&format!("http://{address}/"), Protocol::Http1).await;
        let mut session = connect(&ready).await;
        assert_eq!(session.standing(), "connected, no answer yet");
        match (reason, timeout(Duration::from_secs(1), session.ask(&ready.question)).await) {
            (Some(reason), Ok(Err(no_answer))) => {
                assert_eq!((no_answer.failure.reason.as_str(), no_answer.was_stale), (reason, false));
            }
            (None, Err(_)) => assert_eq!(session.standing(), "status 200, the answer has no end yet"),
            (_, other) => panic!("{other:?}"),
        }
        // Cut or failed: the connection is closed, though the session is still there.
        timeout(SOON, is_gone.recv()).await.expect("the connection is closed").expect("told");
        assert!(!session.is_open());
    }
}

#[tokio::test]
async fn unusual_answers_are_answers() {
    for (bytes, status, size, stays) in [
        (&b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"[..], 200, 2, true),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: a\r\n\r\n2\r\nok\r\n0\r\na: b\r\n\r\n",
            200,
            2,
            true,
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, 0, true),
        (b"HTTP/1.1 301 Moved\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", 301, 0, true),
        (b"HTTP/1.1 500 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno", 500, 2, false),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, 2, false),
    ] {
        let address = serve(move |mut stream| async move {
            while !head(&mut stream).await.is_empty() {
                stream.write_all(bytes).await.expect("written");
            }
        })
        .await;
        let ready = ready(&format!("http://{address}/"), Protocol::Http1).await;
        let mut session = connect(&ready).await;
        for _ in 0..3 {
            let told = ask(&mut session, &ready).await.expect("an answer");
            let what = String::from_utf8_lossy(bytes);
            assert_eq!((told.status, told.size, session.is_open()), (status, size, stays), "{what}");
            if !stays {
                break;
            }
        }
    }
}

#[tokio::test]
async fn routes_are_the_same_where_connections_can_be_shared() {
    let one = ready("http://127.0.0.1:1/a", Protocol::Http1).await.route;
    assert!(one.is_same(&ready("http://127.0.0.1:1/b", Protocol::Http1).await.route));
    assert!(!one.is_same(&ready("http://127.0.0.1:2/a", Protocol::Http1).await.route));
    let socket = ready("unix:///a/b.sock:/x", Protocol::Http1).await.route;
    assert_eq!(socket.show(), "unix:///a/b.sock");
    let failure = one.connect(&Processes::idle()).await.expect_err("nobody listens");
    assert_eq!((failure.reason.as_str(), failure.may_pass), ("connection refused", true));
    #[cfg(feature = "http2")]
    assert!(!one.is_same(&ready("http://127.0.0.1:1/a", Protocol::Http2).await.route));
    #[cfg(not(feature = "http2"))]
    {
        let request = request("http://127.0.0.1:1/a", Options::default());
        let failure = request.make_ready(Protocol::Http2).await.expect_err("no HTTP/2");
        assert_eq!((failure.reason.as_str(), failure.may_pass), ("this build has no HTTP/2", false));
    }
}

#[cfg(feature = "http2")]
mod http2 {
    use boathook::{client::grpc, step::Progress};
    use tokio::task::JoinSet;

    use super::*;
    use crate::session_support::{H2C_SHORT, grpc as grpc_server};

    async fn ready_at(server: &Server, index: usize, rest: &str) -> Ready {
        let ca_file = (index >= TLS).then(|| server.folder.join("ca.pem"));
        let options = Options { ca_file, ..Options::default() };
        request(&url(server, index, rest), options).make_ready(Protocol::Http2).await.expect("ready")
    }

    #[tokio::test]
    async fn one_connection_answers_many_questions() {
        let Some(server) = nginx() else { return };
        for index in [H2C, TLS_H2] {
            let ready = ready_at(&server, index, "/").await;
            let mut session = connect(&ready).await;
            let first = parts(&ask(&mut session, &ready).await.expect("an answer"));
            assert_eq!(first.2, "HTTP/2.0");
            for _ in 2..50 {
                assert!(session.is_open());
                let (connection, _, protocol) = parts(&ask(&mut session, &ready).await.expect("an answer"));
                assert_eq!((&connection, &protocol), (&first.0, &first.2));
            }
            let ready = ready_at(&server, index, "/large").await;
            let told = ask(&mut session, &ready).await.expect("an answer");
            assert_eq!((told.status, told.size, told.beginning), (200, 5 << 20, vec![b'x'; 256]));
        }
    }

    #[tokio::test]
    async fn a_server_without_http2_is_a_clear_failure() {
        let Some(server) = nginx() else { return };
        let ready = ready_at(&server, TLS, "/").await;
        let failure = ready.route.connect(&Processes::idle()).await.expect_err("no h2");
        assert_eq!(failure.reason, "the server does not choose `h2` in the TLS handshake (ALPN)");
        let ready = ready_at(&server, PLAIN, "/").await;
        let mut session = connect(&ready).await;
        let failure = ask(&mut session, &ready).await.expect_err("HTTP/1.1");
        assert_eq!(failure, ("the answer is not HTTP/2: FRAME_SIZE_ERROR".into(), false));
        assert!(!session.is_open());
    }

    /// Asks with this many shares of one connection at once, each so often; what they were told.
    async fn ask_at_once(ready: &Ready, shares: usize, times: usize) -> Vec<Told> {
        let session = connect(ready).await;
        let mut asking = JoinSet::new();
        for _ in 0..shares {
            let (mut session, ready) = (session.share().expect("a share"), ready.clone());
            asking.spawn(async move {
                let mut told = Vec::new();
                for _ in 0..times {
                    told.push(loop {
                        match ask(&mut session, &ready).await {
                            Ok(told) => break told,
                            // gRPC's own server still counts a call that it has just answered.
                            Err((_, true)) if session.is_open() => {}
                            Err((why, _)) => panic!("{why}"),
                        }
                    });
                }
                told
            });
        }
        asking.join_all().await.into_iter().flatten().collect()
    }

    #[tokio::test]
    async fn many_share_one_connection() {
        let Some(server) = nginx() else { return };
        let ready = ready_at(&server, H2C, "/").await;
        let told = ask_at_once(&ready, 100, 20).await;
        let mut connections: Vec<String> = told.iter().map(|told| parts(told).0).collect();
        connections.dedup();
        assert_eq!((told.len(), connections.len()), (2000, 1));
    }

    #[tokio::test]
    async fn no_more_are_asked_at_once_than_the_server_takes() {
        let Some(server) = grpc_server() else { return };
        for (shares, most) in [(5, 1..=5), (100, 6..=10)] {
            let ready = ready_for(&server, "/test.Test/Slow", b"").await;
            let told = ask_at_once(&ready, shares, 3).await;
            assert!(told.iter().all(|told| told.grpc == Some((0, String::new()))));
            let seen = told.iter().map(|told| String::from_utf8_lossy(&told.beginning[5..]).parse().expect("a number"));
            let seen: usize = seen.max().expect("answers");
            assert!(most.contains(&seen), "{seen} at once with {shares} shares");
        }
    }

    #[tokio::test]
    async fn questions_after_a_goaway_are_stale_and_never_lost() {
        let Some(server) = nginx() else { return };
        let ready = ready_at(&server, H2C_SHORT, "/").await;
        let mut session = connect(&ready).await;
        let (mut stale, mut done) = (0, 0);
        for _ in 0..40 {
            // Each round asks 7 at once, of which the server takes 5 on a connection.
            let mut asking = JoinSet::new();
            for _ in 0..7 {
                let (mut share, ready) = (session.share().expect("a share"), ready.clone());
                asking.spawn(async move { ask(&mut share, &ready).await });
            }
            for told in asking.join_all().await {
                match told {
                    Ok(_) => done += 1,
                    Err((_, true)) => stale += 1,
                    Err((why, false)) => panic!("{why}"),
                }
            }
            if !session.is_open() {
                session = connect(&ready).await;
            }
        }
        assert!(done >= 5 * 20 && done + stale == 40 * 7, "{done} {stale}");
        assert!(stale > 0, "there was nothing to see");
    }

    async fn ready_for(server: &Server, path: &str, message: &[u8]) -> Ready {
        let url = format!("http://127.0.0.1:{}{path}", server.ports[0]);
        let options = Options { method: Some("POST".into()), ..Options::default() };
        let mut ready = request(&url, options).make_ready(Protocol::Http2).await.expect("ready");
        ready.question.body = grpc::frame(message);
        grpc::add_headers(&mut ready.question.headers);
        ready
    }

    #[tokio::test]
    async fn calls_have_statuses_and_large_messages() {
        let Some(server) = grpc_server() else { return };
        for (path, message, size, status) in [
            ("/test.Test/Length", vec![1; 3], 5 + 1, (0, "")),
            ("/test.Test/Length", vec![1; 5_000_000], 5 + 7, (0, "")),
            ("/test.Test/Fail", vec![], 0, (14, "no café100%")),
            ("/test.Test/Missing", vec![], 0, (12, "Method not found!")),
        ] {
            let ready = ready_for(&server, path, &message).await;
            let mut session = connect(&ready).await;
            for _ in 0..2 {
                let told = ask(&mut session, &ready).await.expect("an answer");
                assert_eq!(
                    (told.status, told.size, told.grpc),
                    (200, size, Some((status.0, status.1.into()))),
                    "{path}"
                );
            }
        }
    }

    #[tokio::test]
    async fn health_is_what_the_server_says() {
        let Some(server) = grpc_server() else { return };
        let Some(web) = nginx() else { return };
        let free =
            tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("its").port();
        let no_service = "12 UNIMPLEMENTED: the server has no health service";
        for (port, service, result) in [
            (server.ports[0], "", Ok(())),
            (server.ports[0], "shop", Ok(())),
            (server.ports[0], "down", Err("NOT_SERVING")),
            (server.ports[0], "none", Err("5 NOT_FOUND")),
            (server.ports[1], "", Err(no_service)),
            (web.ports[H2C], "", Err("the answer is not gRPC: it has no grpc-status")),
            (web.ports[PLAIN], "", Err("the answer is not HTTP/2: FRAME_SIZE_ERROR")),
            (free, "", Err("connection refused")),
        ] {
            let request = request(&format!("http://127.0.0.1:{port}"), Options::default());
            let (processes, progress) = (Processes::idle(), Progress::default());
            let check = grpc::check_health(&request, service, &processes, &progress);
            let told = timeout(SOON, check).await.expect("in time");
            assert_eq!(told, result.map_err(String::from), "{port} {service}");
        }
    }

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;
    /// `:status: 200`, from the static table of HPACK.
    const STATUS_200: &[u8] = &[0x88];

    /// The next frame: its kind, flags, stream and payload.
    async fn read_frame(stream: &mut TcpStream) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).await.ok()?;
        Some((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
    }

    /// A server that answers the first questions well, and each further one with what `last` makes of its stream.
    async fn hostile(good: u32, last: fn(u32) -> Vec<u8>, closes: bool) -> (std::net::SocketAddr, Arc<AtomicUsize>) {
        let resets = Arc::new(AtomicUsize::new(0));
        let counter = resets.clone();
        let address = serve(move |mut stream| {
            let counter = counter.clone();
            async move {
                let mut preface = [0; 24];
                stream.read_exact(&mut preface).await.expect("the preface");
                stream.write_all(&frame(4, 0, 0, &[])).await.expect("settings");
                let mut seen = 0;
                while let Some((kind, _, id, payload)) = read_frame(&mut stream).await {
                    match kind {
                        1 if seen < good => {
                            seen += 1;
                            let answer = frame(1, END_HEADERS | END_STREAM, id, STATUS_200);
                            stream.write_all(&answer).await.expect("written");
                        }
                        1 => {
                            let _ = stream.write_all(&last(id)).await;
                            if closes {
                                return;
                            }
                        }
                        // CANCEL
                        3 if payload == [0, 0, 0, 8] => _ = counter.fetch_add(1, Ordering::Relaxed),
                        _ => {}
                    }
                }
                counter.fetch_add(1000, Ordering::Relaxed);
            }
        })
        .await;
        (address, resets)
    }

    type Last = fn(u32) -> Vec<u8>;

    #[tokio::test]
    async fn what_breaks_off_has_a_reason() {
        let refused: Last = |id| frame(3, 0, id, &[0, 0, 0, 7]);
        let cancelled: Last = |id| frame(3, 0, id, &[0, 0, 0, 8]);
        // The last stream that the server takes is the one before.
        let goaway: Last = |id| frame(7, 0, 0, &[&(id.max(2) - 2).to_be_bytes()[..], &[0, 0, 0, 0]].concat());
        let with_half: Last = |id| {
            [frame(1, END_HEADERS, id, STATUS_200), frame(0, 0, id, b"abc"), frame(3, 0, id, &[0, 0, 0, 2])].concat()
        };
        for (last, closes, reason, is_stale, stays) in [
            (refused, false, "the server reset the stream: REFUSED_STREAM", true, true),
            (cancelled, false, "the server reset the stream: CANCEL", false, true),
            (goaway, false, "the server closed the connection: NO_ERROR", true, false),
            (|_| Vec::new(), true, CLOSED, false, false),
            (|_| b"GET / HTTP/1.1\r\n\r\n".to_vec(), false, "the answer is not HTTP/2: FRAME_SIZE_ERROR", false, false),
            (
                with_half,
                false,
                "the answer broke off after 3 bytes: the server reset the stream: INTERNAL_ERROR",
                false,
                true,
            ),
            (
                |id| frame(1, END_HEADERS | END_STREAM, id, &[0xff, 0xff, 0xff]),
                false,
                "the answer is not HTTP/2: PROTOCOL_ERROR",
                false,
                false,
            ),
        ] as [(Last, bool, &str, bool, bool); 7]
        {
            for good in [0, 2] {
                let (address, _) = hostile(good, last, closes).await;
                let ready = ready(&format!("http://{address}/"), Protocol::Http2).await;
                let mut session = connect(&ready).await;
                for _ in 0..good {
                    assert_eq!(ask(&mut session, &ready).await.expect("an answer").size, 0);
                }
                let told = ask(&mut session, &ready).await.expect_err("broken");
                assert_eq!(told, (reason.into(), is_stale && good > 0), "after {good}");
                assert_eq!(session.is_open(), stays, "{reason}");
            }
        }
    }

    #[tokio::test]
    async fn a_cut_question_leaves_the_others_and_the_last_share_closes() {
        let (address, resets) =
            hostile(1, |id| [frame(1, END_HEADERS, id, STATUS_200), frame(0, 0, id, b"abc")].concat(), false).await;
        let ready = ready(&format!("http://{address}/"), Protocol::Http2).await;
        let mut session = connect(&ready).await;
        ask(&mut session, &ready).await.expect("an answer");
        let other = session.share().expect("a share");
        assert!(timeout(Duration::from_millis(300), session.ask(&ready.question)).await.is_err(), "it has no end");
        assert_eq!(session.standing(), "status 200, the answer has no end yet");
        let count = |wanted: usize| {
            let resets = resets.clone();
            async move {
                let changes = async {
                    while resets.load(Ordering::Relaxed) < wanted {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                };
                timeout(SOON, changes).await.expect("the server hears of it");
                resets.load(Ordering::Relaxed)
            }
        };
        assert_eq!(count(1).await, 1, "the stream is reset");
        drop(session);
        // The control: it stays while there is a share.
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(other.is_open());
        assert_eq!(resets.load(Ordering::Relaxed), 1);
        drop(other);
        assert_eq!(count(1000).await, 1001, "the connection is closed");
    }

    /// A server that is slow to say that it takes two at once; how many it was asked before it had, and then at most.
    async fn slow_to_say(stream: &mut TcpStream) -> (usize, usize) {
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.expect("the preface");
        let (mut before, mut most, mut open) = (0, 0, Vec::new());
        let mut said = false;
        loop {
            // Peeked, so that no frame is read in half.
            match timeout(Duration::from_millis(200), stream.peek(&mut [0; 9])).await {
                Ok(Ok(1..)) => match read_frame(stream).await {
                    Some((1, _, id, _)) => open.push(id),
                    Some(_) => {}
                    None => return (before, most),
                },
                Ok(_) => return (before, most),
                Err(_) if !said => {
                    (said, before) = (true, open.len());
                    stream.write_all(&frame(4, 0, 0, &[0, 3, 0, 0, 0, 2])).await.expect("settings");
                }
                Err(_) => {
                    most = most.max(open.len());
                    for id in open.drain(..) {
                        let answer = frame(1, END_HEADERS | END_STREAM, id, STATUS_200);
                        stream.write_all(&answer).await.expect("written");
                    }
                }
            }
        }
    }

    #[tokio::test]
    async fn a_server_is_not_overrun_before_it_has_said_what_it_takes() {
        let (sender, mut told) = tokio::sync::mpsc::unbounded_channel();
        let address = serve(move |mut stream| {
            let sender = sender.clone();
            async move { sender.send(slow_to_say(&mut stream).await).expect("a receiver") }
        })
        .await;
        let ready = ready(&format!("http://{address}/"), Protocol::Http2).await;
        assert_eq!(ask_at_once(&ready, 6, 1).await.len(), 6);
        assert_eq!(told.recv().await.expect("told"), (1, 2));
    }

    #[tokio::test]
    async fn refused_uploads_are_answered() {
        let Some(server) = nginx() else { return };
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let index = if protocol == Protocol::Http1 { PLAIN } else { H2C };
            let options = Options { method: Some("POST".into()), ..Options::default() };
            let mut ready = request(&url(&server, index, "/small"), options).make_ready(protocol).await.expect("ready");
            ready.question.body = Bytes::from(vec![b'x'; 3000]);
            let mut session = connect(&ready).await;
            assert_eq!(ask(&mut session, &ready).await.expect("an answer").status, 413, "{protocol:?}");
        }
    }
}
