//! Requests and waiting, against real servers that behave and that do not.

mod client_support;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use boathook::step::{End, http::Http, wait::Wait};
use client_support::{answer, answering, context, head, mean, run, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SOON: Duration = Duration::from_secs(5);
const CUT: Duration = Duration::from_millis(300);

fn failed<T>(text: impl Into<String>) -> Result<End, T> {
    Ok(End::Failed(text.into()))
}

fn for_good<T>(text: impl Into<String>) -> Result<End, T> {
    Ok(End::FailedForGood(text.into()))
}

fn done<T>(text: &str) -> Result<End, T> {
    Ok(End::Done(text.into()))
}

#[tokio::test]
async fn statuses_mean_what_the_rules_say() {
    let a = answering(|head| {
        let status: u16 = head[5..8].parse().expect("a status");
        answer(status, "\n  why not \u{7}\u{1b}[31m\nsecond line")
    })
    .await;
    for (status, rules, end) in [
        (200, "", done("status 200")),
        (204, "", done("status 204")),
        (404, "", for_good(format!("http://{a}/404: status 404: why not [31m"))),
        (301, "", for_good(format!("http://{a}/301: status 301: why not [31m"))),
        (500, "", failed(format!("http://{a}/500: status 500: why not [31m"))),
        (429, "", failed(format!("http://{a}/429: status 429: why not [31m"))),
        (404, ", skip = [404]", Ok(End::Skipped("status 404: why not [31m".into()))),
        (200, ", skip = \"2xx\"", Ok(End::Skipped("status 200: why not [31m".into()))),
        (404, ", succeed = [\"400-410\"]", done("status 404")),
        (200, ", succeed = [\"400-410\"]", for_good(format!("http://{a}/200: status 200: why not [31m"))),
        (404, ", retry = \"404\"", failed(format!("http://{a}/404: status 404: why not [31m"))),
    ] {
        let step = format!("step = {{ url = 'http://{a}/{status}'{rules} }}");
        assert_eq!(run::<Http>(&step, SOON).await, end, "{step}");
    }
}

#[tokio::test]
async fn what_was_typed_is_sent() {
    let seen = Arc::new(Mutex::new(String::new()));
    let writer = seen.clone();
    let address = serve(move |mut stream| {
        let writer = writer.clone();
        async move {
            let mut text = head(&mut stream).await;
            let mut body = [0; 5];
            stream.read_exact(&mut body).await.expect("the body");
            text.push_str(&String::from_utf8_lossy(&body));
            *writer.lock().expect("the lock") = text;
            stream.write_all(answer(200, "").as_bytes()).await.expect("sent");
        }
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("body"), "hello").expect("a file");
    std::fs::write(folder.path().join("token"), "t0ken\n").expect("a file");
    let folder = folder.path().display();
    let step = format!(
        "step = {{ url = 'http://{address}/a?b=c', method = 'POST', body-file = '{folder}/body', \
         bearer-file = '{folder}/token', headers = {{ X-One = '1', X-Two = ['a', 'b'] }} }}"
    );
    assert_eq!(run::<Http>(&step, SOON).await, done("status 200"));
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        *seen.lock().expect("the lock"),
        format!(
            "POST /a?b=c HTTP/1.1\r\nx-one: 1\r\nx-two: a\r\nx-two: b\r\nauthorization: Bearer t0ken\r\n\
             host: {address}\r\nuser-agent: boathook/{version}\r\ncontent-length: 5\r\n\r\nhello"
        )
    );
}

#[tokio::test]
async fn a_secret_that_the_server_repeats_is_not_shown() {
    let a = answering(|head| answer(403, head.lines().nth(1).unwrap_or(""))).await;
    let step = format!("step = {{ url = 'http://{a}/?key=s3cret', basic = {{ user = 'u', password = 's3cret' }} }}");
    assert_eq!(
        run::<Http>(&step, SOON).await,
        for_good(format!("http://{a}/?…: status 403: authorization: Basic ***"))
    );
    let (_, secrets) = mean::<Http>(&step).expect("a step");
    assert_eq!(secrets, ["s3cret", "dTpzM2NyZXQ="]);
}

#[tokio::test]
async fn misbehaving_servers_give_a_reason() {
    let closing = serve(|mut stream| async move {
        head(&mut stream).await;
    })
    .await;
    let resetting = serve(|mut stream| async move {
        head(&mut stream).await;
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("linger");
    })
    .await;
    let garbage = serve(|mut stream| async move {
        head(&mut stream).await;
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n\r\n").await;
    })
    .await;
    let broken = answering(|_| "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort".into()).await;
    let large = answering(|_| format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1_000_000))).await;
    let refusing = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
        listener.local_addr().expect("an address")
    };
    for (address, why) in [
        (closing, "the connection was closed without a complete answer"),
        (resetting, "the connection was reset"),
        (garbage, "the answer is not HTTP"),
        (broken, "the answer broke off after 5 bytes: the connection was closed too early"),
        (large, "the head of the answer is too large"),
        (refusing, "connection refused"),
    ] {
        let step = format!("step = 'http://{address}/x?token=1'");
        assert_eq!(run::<Http>(&step, SOON).await, failed(format!("http://{address}/x?…: {why}")));
    }
}

#[tokio::test]
async fn what_hangs_is_cut_with_a_reason() {
    let silent = serve(|stream| async move {
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let dripping = serve(|mut stream| async move {
        head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
    .await;
    for (address, doing) in [(silent, "connected, no answer yet"), (dripping, "status 200, the answer has no end yet")]
    {
        let step = format!("step = 'http://{address}/'");
        assert_eq!(run::<Http>(&step, CUT).await, Err(format!("http://{address}/: {doing}")));
    }
}

#[tokio::test]
async fn an_answer_without_end_is_not_read() {
    let sent = Arc::new(AtomicU32::new(0));
    let counter = sent.clone();
    let address = serve(move |mut stream| {
        let counter = counter.clone();
        async move {
            head(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            while stream.write_all(&[b'x'; 1024]).await.is_ok() {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    })
    .await;
    assert_eq!(run::<Http>(&format!("step = 'http://{address}/'"), SOON).await, done("status 200"));
    // 64 KiB and what the socket buffers hold, far from endless.
    assert!(sent.load(Ordering::Relaxed) < 20_000, "{} KiB were sent", sent.load(Ordering::Relaxed));
}

#[tokio::test]
async fn redirects() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let writer = seen.clone();
    let elsewhere = answering(move |head| {
        writer.lock().expect("the lock").push(head.to_string());
        answer(200, "")
    })
    .await;
    let a = answering(move |head| {
        let path = head.split(' ').nth(1).unwrap_or("/");
        let to = match path {
            "/once" => "/end".into(),
            "/circle" => "circle2".into(),
            "/circle2" => "/circle".into(),
            "/away" => format!("http://{elsewhere}/away"),
            "/ftp" => "ftp://x/".into(),
            "/socket" => "unix:///run/x.sock".into(),
            path => match path.strip_prefix("/n").and_then(|number| number.parse::<u32>().ok()) {
                Some(number) => format!("/n{}", number + 1),
                None => return answer(200, head.split(' ').next().unwrap_or("")),
            },
        };
        format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")
    })
    .await;
    for (path, more, end) in [
        ("once", "", done("status 200")),
        ("once", ", method = 'POST', body = 'x'", done("status 200")),
        ("once", ", follow-redirects = 0", for_good(format!("http://{a}/once: status 302"))),
        ("once", ", succeed = 302", done("status 302")),
        ("circle", "", for_good(format!("http://{a}/circle redirects in a circle of 2"))),
        ("n1", "", for_good(format!("more than 5 redirects, the last from http://{a}/n6"))),
        ("n1", ", follow-redirects = '2'", for_good(format!("more than 2 redirects, the last from http://{a}/n3"))),
        ("away", ", bearer = 's3cret', headers = { X-My = '1', Accept = 'x' }", done("status 200")),
        (
            "ftp",
            "",
            for_good(format!(
                "http://{a}/ftp redirects to no usable URL: the scheme `ftp` is not one of http, https, unix"
            )),
        ),
        (
            "socket",
            "",
            for_good(format!("http://{a}/socket redirects to unix:///run/x.sock:/, which is another kind of server")),
        ),
    ] {
        let step = format!("step = {{ url = 'http://{a}/{path}'{more} }}");
        assert_eq!(run::<Http>(&step, SOON).await, end, "{step}");
    }
    let seen = seen.lock().expect("the lock").join("");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        seen,
        format!("GET /away HTTP/1.1\r\naccept: x\r\nhost: {elsewhere}\r\nuser-agent: boathook/{version}\r\n\r\n")
    );
}

#[tokio::test]
async fn bad_input_is_refused_with_all_its_problems() {
    let folder = tempfile::tempdir().expect("a folder");
    let absent = folder.path().join("absent").display().to_string();
    for (step, problems) in [
        (
            "'localhost'",
            &["f: url: this URL cannot be used: it is not a URL; write it as \"http://host:port/path\""][..],
        ),
        ("{ method = 'GET' }", &["f: url: it is missing"]),
        (
            "{ url = 'http://a', methd = 'GET' }",
            &[
                "unknown field `methd`, expected one of `url`, `succeed`, `retry`, `skip`, `method`, `headers`, `body`, `body-file`, `bearer`, `bearer-file`, `basic`, `cert-file`, `key-file`, `ca-file`, `insecure`, `server-name`, `follow-redirects`, `unix-socket`",
            ],
        ),
        (
            "3",
            &[
                "invalid type: integer `3`, expected a URL, or a table such as { url = \"http://…\", method = \"POST\" }",
            ],
        ),
        ("{ url = 'http://a', succeed = ['ok'] }", &["`ok` is not a status; write 404, \"2xx\" or \"500-599\""]),
        (
            "{ url = 'http://a', method = 'G T', body = 'x', body-file = 'y', follow-redirects = 99, headers = { 'a b' = 'c', Connection = 'close', X = \"a\\nb\" } }",
            &[
                "f: method: `G T` is not a method",
                "f: headers: `Connection` is set by the client itself\n  help: leave it out",
                "f: headers: the value of `X` holds a line break or a control character",
                "f: headers: `a b` is not the name of a header",
                "f: body-file: `body` is given as well\n  help: give one of them",
                "f: follow-redirects: 99 is more than 50",
            ],
        ),
        (
            "{ url = 'http://a', bearer = \"x\\ny\", basic = { user = 'u:v' } }",
            &[
                "f: more than one of `bearer`, `bearer-file`, `basic` and the header Authorization\n  help: give one of them",
                "f: bearer: it is empty or holds a line break or a control character",
            ],
        ),
        (
            "{ url = 'http://a', basic = { user = 'u:v' } }",
            &[
                "f: basic: user: it is empty or holds a colon or a control character",
                "f: basic: the password is missing\n  help: give `password` or `password-file`",
            ],
        ),
    ] {
        assert_eq!(
            mean::<Http>(&format!("step = {step}")).map(|_| ()),
            Err(problems.iter().map(|p| (*p).into()).collect()),
            "{step}"
        );
    }
    let step = format!("step = {{ url = 'http://a', bearer-file = '{absent}' }}");
    let problem = format!(
        "f: bearer-file: {absent}: no such file or directory\n  help: the file must be there and readable when boathook starts"
    );
    assert_eq!(mean::<Http>(&step).map(|_| ()), Err(vec![problem]));
}

#[tokio::test]
async fn unix_sockets() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("app.sock");
    let listener = tokio::net::UnixListener::bind(&path).expect("a listener");
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut text = [0; 17];
            if stream.read_exact(&mut text).await.is_ok() {
                let ok = text == *b"GET /x HTTP/1.1\r\n";
                let _ = stream.write_all(answer(if ok { 200 } else { 400 }, "").as_bytes()).await;
            }
        }
    });
    let shown = path.display();
    for step in [
        format!("'unix://{shown}:/x'"),
        format!("'http+unix://{shown}:/x'"),
        format!("{{ url = 'http://app/x', unix-socket = '{shown}' }}"),
    ] {
        assert_eq!(run::<Http>(&format!("step = {step}"), SOON).await, done("status 200"), "{step}");
    }
    let waited = run::<Wait>(&format!("step = {{ unix = '{shown}' }}"), SOON).await;
    assert!(matches!(&waited, Ok(End::Done(text)) if text.ends_with(", 1 try")), "{waited:?}");
    let absent = run::<Wait>(&format!("step = {{ unix = '{shown}x', interval = '10s' }}"), CUT).await;
    assert_eq!(absent, Err(format!("{shown}x: no such file or directory, 1 try")));
}

/// What a wait does when it is true, and what it says when it is cut.
async fn waits(step: &str, end: Result<&str, String>) {
    let outcome = run::<Wait>(&format!("step = {{ {step}, interval = '20s' }}"), Duration::from_secs(1)).await;
    match (outcome, end) {
        (Ok(End::Done(text)), Ok(tail)) if text.starts_with("true after ") && text.ends_with(tail) => {}
        (outcome, end) => assert_eq!(outcome, end.map(|text| End::Done(text.into())), "{step}"),
    }
}

#[tokio::test]
async fn waiting_for_each_condition() {
    let page = "# TYPE a gauge\na{x=\"1\"} 2\na{x=\"2\"} 3\n";
    let a = answering(move |head| match head.split(' ').nth(1).unwrap_or("") {
        "/metrics" => answer(200, page),
        "/json" => answer(200, r#"{"status":{"db":"up"},"queue":[1,2,3]}"#),
        "/busy" => answer(503, "warming"),
        _ => answer(200, "ok"),
    })
    .await;
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
        listener.local_addr().expect("an address")
    };
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().display().to_string();
    let own = std::process::id();
    std::fs::write(folder.path().join("f"), "ready=1\n").expect("a file");
    std::fs::write(folder.path().join("own.pid"), format!("{own}\n")).expect("a file");
    // The largest pid that Linux can give is 4194304.
    std::fs::write(folder.path().join("old.pid"), "4194305\n").expect("a file");
    let once = Ok(", 1 try");
    let mut running = Vec::new();
    for (step, end) in [
        (format!("tcp = '{a}'"), once.clone()),
        (format!("tcp = 'localhost:{}'", a.port()), once.clone()),
        (format!("tcp = '{closed}'"), Err(format!("{closed}: connection refused, 1 try"))),
        (format!("http = 'http://{a}/'"), once.clone()),
        (format!("http = 'http://{a}/busy'"), Err(format!("http://{a}/busy: status 503: warming, 1 try"))),
        (format!("http = {{ url = 'http://{a}/busy', status = [503] }}"), once.clone()),
        (
            format!("http = {{ url = 'http://{a}/json', json = {{ pointer = '/status/db', equals = 'up' }} }}"),
            once.clone(),
        ),
        (
            format!("http = {{ url = 'http://{a}/json', json = {{ pointer = 'queue.2', at-most = '3' }} }}"),
            once.clone(),
        ),
        (format!("http = {{ url = 'http://{a}/json', json = {{ pointer = 'queue', exists = true }} }}"), once.clone()),
        (
            format!("http = {{ url = 'http://{a}/json', json = {{ pointer = '/status/db', equals = 'x' }} }}"),
            Err(format!("http://{a}/json: /status/db is up, wanted x, 1 try")),
        ),
        (
            format!("http = {{ url = 'http://{a}/json', json = {{ pointer = 'none', exists = true }} }}"),
            Err(format!("http://{a}/json: it has no value at none, 1 try")),
        ),
        (
            format!("http = {{ url = 'http://{a}/', json = {{ pointer = 'none', exists = true }} }}"),
            Err(format!("http://{a}/: the answer is not JSON, 1 try")),
        ),
        (format!("metric = {{ url = 'http://{a}/metrics', name = 'a', equals = 5 }}"), once.clone()),
        (
            format!("metric = {{ url = 'http://{a}/metrics', name = 'a', labels = {{ x = 2 }}, at-least = 3 }}"),
            once.clone(),
        ),
        (format!("metric = {{ url = 'http://{a}/json', pointer = '/queue/0', at-most = 1 }}"), once.clone()),
        (
            format!("metric = {{ url = 'http://{a}/metrics', name = 'a', at-most = 0 }}"),
            Err("a is 5, wanted at most 0, 1 try".into()),
        ),
        (
            format!("metric = {{ url = 'http://{a}/metrics', name = 'b', at-most = 0 }}"),
            Err(format!("http://{a}/metrics: it has no sample of b, 1 try")),
        ),
        (
            format!("metric = {{ url = 'http://{a}/busy', name = 'b', at-most = 0 }}"),
            Err(format!("http://{a}/busy: status 503, 1 try")),
        ),
        (format!("file = '{dir}/f'"), once.clone()),
        (format!("file = '{dir}/g'"), Err(format!("{dir}/g: no such file or directory, 1 try"))),
        (format!("file = '{dir}/g', absent = true"), once.clone()),
        (format!("file = '{dir}/f', absent = true"), Err(format!("{dir}/f: it is still there, 1 try"))),
        (format!("file = '{dir}/f', contains = 'ready'"), once.clone()),
        (format!("file = '{dir}/f', contains = 'x'"), Err(format!("{dir}/f: it does not contain the text yet, 1 try"))),
        ("process-gone = 4194305".into(), once.clone()),
        ("process-gone = 'no-such-process'".into(), once.clone()),
        (format!("process-gone = {own}"), Err(format!("process {own} is still there, 1 try"))),
        (format!("process-gone = '{dir}/old.pid'"), once.clone()),
        (format!("process-gone = '{dir}/none.pid'"), once.clone()),
        (format!("process-gone = '{dir}/own.pid'"), Err(format!("{dir}/own.pid: process {own} is still there, 1 try"))),
        ("dns = 'localhost'".into(), once.clone()),
        ("dns = '127.0.0.1'".into(), once.clone()),
        ("dns = 'localhost', count = 3".into(), Err("localhost: 2 addresses, wanted 3, 1 try".into())),
    ] {
        // All at once: the false ones each take a second.
        running.push(tokio::spawn(async move { waits(&step, end).await }));
    }
    for one in running {
        one.await.expect("as expected");
    }
}

#[tokio::test]
async fn a_process_by_name() {
    let mut child = std::process::Command::new("sleep").arg("1000.125").spawn().expect("a process");
    let pid = child.id();
    // Another `sleep` may run on the machine; the name of a copy is ours alone.
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join(format!("bh-sleep-{pid}"));
    std::fs::copy("/bin/sleep", &copy).expect("a copy");
    let mut named = std::process::Command::new(&copy).arg("1000").spawn().expect("a process");
    let step = format!("step = {{ process-gone = 'bh-sleep-{pid}', interval = '20s' }}");
    let outcome = run::<Wait>(&step, Duration::from_secs(1)).await;
    assert_eq!(outcome, Err(format!("process bh-sleep-{pid} is still there (pid {}), 1 try", named.id())));
    named.kill().expect("killed");
    // Not reaped yet: a process that has ended is gone all the same.
    let outcome = run::<Wait>(&format!("step = {{ process-gone = 'bh-sleep-{pid}', interval = '20ms' }}"), SOON).await;
    assert!(matches!(outcome, Ok(End::Done(_))), "{outcome:?}");
    named.wait().expect("reaped");
    child.kill().expect("killed");
    child.wait().expect("reaped");
}

#[tokio::test]
async fn a_try_that_hangs_does_not_eat_the_step() {
    let tries = Arc::new(AtomicU32::new(0));
    let counter = tries.clone();
    let a = serve(move |mut stream| {
        let counter = counter.clone();
        async move {
            head(&mut stream).await;
            if counter.fetch_add(1, Ordering::Relaxed) < 2 {
                std::future::pending::<()>().await;
            }
            let _ = stream.write_all(answer(200, "").as_bytes()).await;
        }
    })
    .await;
    let step = format!("step = {{ http = 'http://{a}/', try-timeout = '100ms', interval = '20ms' }}");
    let outcome = run::<Wait>(&step, SOON).await;
    assert!(matches!(&outcome, Ok(End::Done(text)) if text.ends_with(", 3 tries")), "{outcome:?}");

    tries.store(0, Ordering::Relaxed);
    let step = format!("step = {{ http = 'http://{a}/', try-timeout = '100ms', interval = '20s' }}");
    let outcome = run::<Wait>(&step, CUT).await;
    assert_eq!(outcome, Err(format!("http://{a}/: connected, no answer yet within 100ms, 1 try")));
}

#[tokio::test]
async fn true_must_hold_in_a_row() {
    let count = Arc::new(AtomicU32::new(0));
    let counter = count.clone();
    // true, true, false, true, true, true
    let a = answering(move |_| answer(if counter.fetch_add(1, Ordering::Relaxed) == 2 { 503 } else { 200 }, "")).await;
    let step = format!("step = {{ http = 'http://{a}/', consecutive = 3, interval = '10ms' }}");
    let outcome = run::<Wait>(&step, SOON).await;
    assert!(matches!(&outcome, Ok(End::Done(text)) if text.ends_with(", 6 tries")), "{outcome:?}");
}

#[tokio::test]
async fn waiting_for_nonsense_is_refused() {
    for (step, problems) in [
        (
            "{}",
            &[
                "f: what to wait for is missing\n  help: give one of tcp, http, unix, file, process-gone, dns, metric, postgres, mysql, redis, grpc, exec",
            ][..],
        ),
        (
            "{ tcp = 'a:1', dns = 'b' }",
            &[
                "f: tcp and dns are given, but only one thing is waited for\n  help: give one of tcp, http, unix, file, process-gone, dns, metric, postgres, mysql, redis, grpc, exec",
            ],
        ),
        ("{ tcp = 'a' }", &["f: tcp: `a` has no port\n  help: write \"host:port\""]),
        ("{ tcp = 'a:x' }", &["f: tcp: `x` is not a port between 1 and 65535\n  help: write \"host:port\""]),
        (
            "{ tcp = 'a:1', contains = 'x', interval = '1ms', try-timeout = '0s', consecutive = 0 }",
            &[
                "f: contains: it belongs to `file`, which is not given",
                "f: interval: 1ms is shorter than 10ms",
                "f: try-timeout: in no time nothing can be tried",
                "f: consecutive: it must be at least 1",
            ],
        ),
        ("{ file = '/f', contains = 'x', absent = true }", &["f: absent: a file that is absent contains nothing"]),
        ("{ dns = 'a:1' }", &["f: dns: a name has no port"]),
        (
            "{ metric = {} }",
            &[
                "f: metric: url: it is missing",
                "f: metric: give either `name` or `pointer`\n  help: `name` for a Prometheus metric, `pointer` for a JSON value",
                "f: metric: what is wanted of it is missing\n  help: give `at-most`, `at-least` or `equals`",
            ],
        ),
    ] {
        assert_eq!(
            mean::<Wait>(&format!("step = {step}")).map(|_| ()),
            Err(problems.iter().map(|p| (*p).into()).collect()),
            "{step}"
        );
    }
}

#[tokio::test]
async fn the_command_line_says_the_same() {
    use boathook::keys::{Fields, Read, describe, take};
    use boathook::step::Kind;
    fn typed<T: Fields + Default + 'static>(arguments: &[&str]) -> T {
        let command = describe(clap::Command::new("x").no_binary_name(true), || Box::new(T::default()));
        let mut typed = T::default();
        take(&mut typed, &command.try_get_matches_from(arguments).expect("arguments")).expect("typed");
        typed
    }
    fn toml<T: Read>(text: &str) -> T {
        client_support::parse_step(&format!("step = {text}")).expect("TOML")
    }
    type HttpTyped = <Http as Kind>::Typed;
    type WaitTyped = <Wait as Kind>::Typed;
    assert_eq!(typed::<HttpTyped>(&["http://a/"]), toml("'http://a/'"));
    assert_eq!(
        typed::<HttpTyped>(&[
            "http://a/",
            "--method",
            "POST",
            "--header",
            "K: v",
            "--insecure",
            "--succeed",
            "2xx,404",
            "--basic",
            "u:@/p",
            "--follow-redirects",
            "0",
            "--body",
            "x",
        ]),
        toml(
            "{ url = 'http://a/', method = 'POST', headers = { K = 'v' }, insecure = true, succeed = ['2xx', 404], \
             basic = { user = 'u', password-file = '/p' }, follow-redirects = 0, body = 'x' }"
        )
    );
    assert_eq!(
        typed::<WaitTyped>(&["--tcp", "db:5432", "--interval", "1s", "--consecutive", "2"]),
        toml("{ tcp = 'db:5432', interval = '1s', consecutive = 2 }")
    );
    let a = answering(|_| answer(202, "{\"a\":\"b\"}\nm{l=\"v\"} 3\n")).await;
    let url = format!("http://{a}/");
    for arguments in [
        &["--http", &url, "--status", "202"][..],
        &["--http", &url, "--header", "A: b"],
        &["--metric", &url, "--name", "m", "--label", "l=v", "--at-most", "3"],
    ] {
        let (mut problems, mut secrets) = (Vec::new(), Vec::new());
        let mut scope = boathook::problem::Scope::new("command line", &mut secrets, &mut problems);
        let wait = Wait::mean(typed(arguments), &mut scope).expect("a step");
        let context = context();
        let end = tokio::time::timeout(SOON, wait.run(&context))
            .await
            .unwrap_or_else(|_| panic!("{}", context.progress.now()));
        assert!(matches!(end, End::Done(_)), "{end:?}");
    }
}
