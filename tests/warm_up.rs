//! Warm means proved: whatever a server does, a warm-up ends well only when what was asked for has been seen, ends in
//! time, and says what stood against it.

mod server_support;
mod session_support;
mod support;
mod warm_support;

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use support::{Agent, MAIN, Place, Said, until};
use warm_support::{Manner, Server, answer, drip, endless, hang, reset};

/// No step overruns its limit by more.
const OVERRUN: Duration = Duration::from_millis(100);

/// `boathook step warm-up` with these words.
#[track_caller]
fn step(words: &[&str]) -> Said {
    Place::bare().boathook(&[&["step", "warm-up"], words].concat())
}

/// The reason on stderr, its numbers of times and latencies made `#`.
fn reason(said: &Said) -> String {
    let line = said.stderr.lines().find_map(|line| line.strip_prefix("boathook: step \"warm-up\": "));
    without_numbers(line.unwrap_or_else(|| panic!("no reason: {said:?}")))
}

/// `(12 times)` → `(# times)`, `for 3.2s` → `for #`.
fn without_numbers(text: &str) -> String {
    let mut words: Vec<String> = text.split(' ').map(String::from).collect();
    for at in 0..words.len() {
        let is_number = |word: &str| word.starts_with(|c: char| c.is_ascii_digit());
        let next = words.get(at + 1).cloned().unwrap_or_default();
        let last = if at > 0 { words[at - 1].clone() } else { String::new() };
        if let Some(rest) = words[at].strip_prefix('(')
            && is_number(rest)
            && next.starts_with("time")
        {
            words[at] = "(#".into();
            words[at + 1] = next.replacen("time)", "times)", 1);
        } else if last == "for" && is_number(&words[at]) {
            words[at] = "#".into();
        }
    }
    words.join(" ")
}

// ------------------------------------------------------------------------------------------------ proved

#[test]
fn successes_are_proved_against_nginx() {
    use session_support::{H2C, H2C_SHORT, PLAIN, SHORT};
    let Some(nginx) = session_support::nginx() else { return };
    let mut ways: Vec<(usize, &[&str])> = vec![
        (PLAIN, &[]),
        (PLAIN, &["--keep-alive", "false"]),
        (PLAIN, &["--concurrency", "256", "--successes", "1000"]),
        // It closes each connection after five requests.
        (SHORT, &[]),
    ];
    if cfg!(feature = "http2") {
        // 150 workers share two connections; nginx takes ten questions at once on each.
        ways.push((H2C, &["--http-version", "2", "--concurrency", "150", "--successes", "1000"]));
        ways.push((H2C_SHORT, &["--http-version", "2"]));
        ways.push((H2C, &["--http-version", "2", "--keep-alive", "false"]));
    }
    for (listener, words) in ways {
        let url = format!("http://127.0.0.1:{}/", nginx.ports[listener]);
        let said = step(&[&[url.as_str()], words].concat());
        assert_eq!(said.code, 0, "{words:?}: {said:?}");
        let count = if words.contains(&"1000") { 1000 } else { 100 };
        let warm = format!("reason=\"warm after {count} requests in ");
        assert!(said.stderr.contains(&warm), "{words:?}: {said:?}");
    }
    // The control: nobody listens for HTTP/2 here.
    #[cfg(feature = "http2")]
    {
        let url = format!("http://127.0.0.1:{}/", nginx.ports[PLAIN]);
        let said = step(&[&url, "--http-version", "2", "--timeout", "1s"]);
        assert_eq!(said.code, 1, "{said:?}");
    }
}

#[cfg(feature = "http2")]
#[test]
fn grpc_calls_are_proved_by_their_status() {
    let Some(server) = session_support::grpc() else { return };
    let table = |method: &str| {
        format!(
            "[[post-start.step]]\nwarm-up = {{ requests = [{{ grpc = \"http://127.0.0.1:{}/test.Test/{method}\", \
             message = \"aGVsbG8=\" }}], successes = 20 }}\ntimeout = \"4s\"\n",
            server.ports[0]
        )
    };
    let said = Place::with(&table("Length")).boathook(&["started"]);
    assert_eq!(said.code, 0, "{said:?}");
    let said = Place::with(&table("Fail")).boathook(&["started"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("grpc 14 UNAVAILABLE"), "{said:?}");
}

#[test]
fn only_what_is_expected_is_a_success() {
    let server = Server::answers(|path| match path {
        "/created" => 201,
        "/moved" => 302,
        _ => 404,
    });
    let table = |request: &str| {
        format!("[[post-start.step]]\nwarm-up = {{ requests = [{request}], successes = 5 }}\ntimeout = \"500ms\"\n")
    };
    let url = |path: &str| server.url(path);
    for (request, reason) in [
        (format!("{{ url = \"{}\", expect = 404 }}", url("/")), None),
        (format!("{{ url = \"{}\", expect = [\"2xx\", 302] }}", url("/moved")), None),
        (format!("\"{}\"", url("/created")), None),
        (format!("\"{}\"", url("/")), Some("GET / → 404")),
        (format!("\"{}\"", url("/moved")), Some("GET /moved → 302")),
        (format!("{{ url = \"{}\", expect = 200 }}", url("/created")), Some("GET /created → 201, not 200")),
    ] {
        let said = Place::with(&table(&request)).boathook(&["started"]);
        assert_eq!(said.code, i32::from(reason.is_some()), "{request}: {said:?}");
        if let Some(reason) = reason {
            assert!(said.stderr.contains(reason), "{request}: {said:?}");
        }
    }
}

// ------------------------------------------------------------------------------------------- never warm

#[test]
fn a_server_that_does_not_answer_well_is_never_warm_and_the_reason_is_right() {
    let refusing = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let random: Manner = Box::new(|ask, stream| {
        stream.write_all(&noise(ask.connection as u64))?;
        Ok(false)
    });
    let cases: Vec<(&str, Server, &[&str], &str)> = vec![
        (
            "500",
            Server::answers(|_| 500),
            &[],
            "1 of 1 request never answered 2xx: GET / → 500 (# times); 0 of 100 successes",
        ),
        (
            "hangs",
            Server::start(hang()),
            &[],
            "no request has ended yet; 4 requests without an answer, the oldest for # (GET /: connected, no answer yet)",
        ),
        (
            "hangs, and each request is given up",
            Server::start(hang()),
            &["--request-timeout", "100ms"],
            "no answer at all: no answer within 100ms (# times)",
        ),
        ("resets", Server::start(reset()), &[], "no answer at all: the connection was reset (# times)"),
        (
            "drips",
            Server::start(drip()),
            &["--request-timeout", "200ms"],
            "no answer at all: no answer within 200ms (# times)",
        ),
        (
            "endless",
            Server::start(endless()),
            &[],
            "no request has ended yet; 4 requests without an answer, the oldest for # (GET /: status 200, the answer has \
             no end yet)",
        ),
        (
            "endless, and each request is given up",
            Server::start(endless()),
            &["--request-timeout", "200ms"],
            "no answer at all: the answer has no end within 200ms (status 200) (# times)",
        ),
        ("speaks no HTTP", Server::start(random), &[], "no answer at all: the answer is not HTTP (# times)"),
    ];
    for (name, server, words, want) in &cases {
        let said = in_time(&[&[server.url("/").as_str()], *words].concat());
        assert_eq!(reason(&said), format!("not warm after 1s: {want}"), "{name}");
        until("its connections are closed", || (server.open() == 0).then_some(()));
    }
    let said = in_time(&[&format!("http://{refusing}/")]);
    assert_eq!(reason(&said), "not warm after 1s: no answer at all: connection refused (# times)");
}

/// A warm-up of one second that must fail in time. A machine that is busy may be late by itself, but not always.
#[track_caller]
fn in_time(words: &[&str]) -> Said {
    let mut said = None;
    for _ in 0..5 {
        let now = step(&[words, &["--timeout", "1s"]].concat());
        assert_eq!(now.code, 1, "{words:?}: {now:?}");
        let is_in_time = now.took < Duration::from_secs(1) + OVERRUN;
        let is_by_itself = now.stderr.contains("not warm after 1s");
        said = Some(now);
        if is_in_time && is_by_itself {
            break;
        }
    }
    let said = said.expect("there was a try");
    assert!(said.took < Duration::from_secs(1) + OVERRUN, "{words:?}: {said:?}");
    said
}

/// Bytes that are no HTTP, and not the same for each connection.
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let length = 1 + seed as usize * 7 % 300;
    let mut bytes: Vec<u8> = (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect();
    // What might be the beginning of an answer or an empty line, which would be waited on, is not.
    bytes[0] = 0xff;
    bytes
}

#[test]
fn whatever_bytes_come_nothing_breaks() {
    // Answers that begin well and go wrong somewhere.
    let count = AtomicU64::new(0);
    let good = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let server = Server::start(Box::new(move |_, stream| {
        let number = count.fetch_add(1, SeqCst);
        let mut bytes = good.to_vec();
        let noise = noise(number);
        for (at, byte) in noise.iter().enumerate().take(1 + number as usize % 4) {
            let place = (*byte as usize + at * 37 + number as usize) % bytes.len();
            bytes[place] = noise[(at + 1) % noise.len()];
        }
        bytes.truncate(bytes.len() - number as usize % 5);
        stream.write_all(&bytes)?;
        Ok(false)
    }));
    let said = step(&[
        &server.url("/"),
        "--timeout",
        "3s",
        "--concurrency",
        "64",
        "--request-timeout",
        "100ms",
        "--successes",
        "1000000",
    ]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("not warm after 3s: ") || said.stderr.contains("timed out after 3"), "{said:?}");
    assert!(!said.stderr.contains("panic"), "{said:?}");
    assert!(server.accepted() > 100, "{} answers", server.accepted());
}

#[test]
fn one_url_of_three_that_never_answers_well_is_named_with_its_count() {
    let server = Server::answers(|path| if path == "/x" { 503 } else { 200 });
    let said = step(&[
        &server.url("/"),
        &server.url("/x"),
        &server.url("/y"),
        "--success-ratio",
        "0.5",
        "--successes",
        "30",
        "--timeout",
        "1s",
    ]);
    assert_eq!(said.code, 1);
    let times = server.count("/x");
    let line = said.stderr.lines().last().expect("a line");
    let want = format!(
        "boathook: step \"warm-up\": not warm after 1s: 1 of 3 requests never answered 2xx: GET /x → 503 ({times} times)"
    );
    // The last of them may not have been counted any more.
    let less = want.replace(&format!("({times} "), &format!("({} ", times - 1));
    assert!(line == want || line == less || line.contains("timed out after"), "{line}");
    // The control: without it, it is warm.
    let said =
        step(&[&server.url("/"), &server.url("/y"), "--success-ratio", "0.5", "--successes", "30", "--timeout", "5s"]);
    assert_eq!(said.code, 0, "{said:?}");
}

#[test]
fn a_slow_answer_is_a_failure_where_a_limit_is_set() {
    let server = Server::start(Box::new(|_, stream| {
        thread::sleep(Duration::from_millis(30));
        answer(stream, 200).map(|()| true)
    }));
    let url = server.url("/");
    let said = step(&[&url, "--slow", "20ms", "--successes", "5", "--timeout", "1s"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(reason(&said).contains("slower than 20ms"), "{said:?}");
    let said = step(&[&url, "--slow", "5s", "--successes", "5", "--timeout", "5s"]);
    assert_eq!(said.code, 0, "the control: {said:?}");
}

#[test]
fn max_time_ends_it_before_its_timeout() {
    let server = Server::answers(|_| 500);
    let said = step(&[&server.url("/"), "--max-time", "300ms", "--timeout", "20s"]);
    assert_eq!(said.code, 1);
    assert_eq!(
        reason(&said),
        "not warm after 300ms: 1 of 1 request never answered 2xx: GET / → 500 (# times); 0 of 100 successes"
    );
    assert!(said.took < Duration::from_secs(10), "{said:?}");
}

// -------------------------------------------------------------------------------------------- in a hook

/// An agent whose post-start warms up this server.
fn post_start(server: &Server, keys: &str, step: &str, hook: &str) -> Agent {
    let config = format!(
        "[post-start]\n{hook}\n[[post-start.step]]\nwarm-up = {{ requests = [\"{}\"]{keys} }}\n{step}\n",
        server.url("/")
    );
    Place::with(&config).run(&MAIN)
}

#[test]
fn not_warm_in_time_keeps_readiness_false_or_serves_cold() {
    let server = Server::answers(|_| 500);
    let mut agent = post_start(&server, "", "timeout = \"400ms\"\non-failure = \"continue\"", "");
    agent.wait_for("readiness", |agent| (agent.get("/ready").status == 200).then_some(()));
    agent.wait_log("outcome=\"timed-out\"");
    let mut agent = post_start(&server, "", "timeout = \"400ms\"", "");
    agent.wait_log("outcome=\"timed-out\"");
    let ready = agent.get("/ready");
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("not warm after 400ms: 1 of 1 request never answered 2xx: GET / → 500"), "{ready:?}");
    assert_eq!(agent.get("/live").status, 200);
}

#[test]
fn the_hooks_deadline_holds_whatever_hangs() {
    for manner in [hang(), endless(), drip()] {
        let server = Server::start(manner);
        let is_in_time = (0..5).any(|_| {
            // No timeout of its own: what is left of the hook.
            let mut agent = post_start(&server, "", "", "deadline = \"1s\"\ngate = \"hook\"");
            let answered = agent.wait_for("the end of post-start", |agent| {
                let reports = agent.boathook(&["report", "--json"]);
                let reports: serde_json::Value = serde_json::from_str(&reports.stdout).ok()?;
                let report = reports.as_array()?.iter().rfind(|report| report["hook"] == "post-start")?.clone();
                (report["outcome"] == "failed").then_some(report)
            });
            let took = answered["took"].as_f64().expect("a number");
            let why = answered["reason"].as_str().expect("a text").to_owned();
            assert!(why.contains("not warm after 1s: ") || why.contains("timed out after"), "{why}");
            agent.signal(libc::SIGKILL);
            took <= 1.1
        });
        assert!(is_in_time);
    }
}

#[test]
fn a_stop_signal_ends_it_at_once_and_closes_everything() {
    let server = Server::start(hang());
    let mut agent = post_start(&server, ", concurrency = 50", "timeout = \"1h\"", "deadline = \"1h\"");
    until("all of them ask", || (server.asks().len() == 50).then_some(()));
    let begun = Instant::now();
    agent.signal(libc::SIGTERM);
    until("no connection is left", || (server.open() == 0).then_some(()));
    assert_eq!(agent.end(), 0);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // And a step by hand.
    let agent = Place::bare().start(&["step", "warm-up", "--timeout", "1h", &server.url("/")]);
    until("it asks", || (server.open() == 4).then_some(()));
    agent.signal(libc::SIGTERM);
    until("no connection is left", || (server.open() == 0).then_some(()));
}

#[test]
fn liveness_is_told_while_it_runs_at_full_speed() {
    let server = Server::answers(|_| 200);
    let mut agent = post_start(&server, ", concurrency = 256, successes = 100000000", "", "deadline = \"1h\"");
    until("it runs", || (server.asks().len() > 2000).then_some(()));
    let mut times: Vec<Duration> = (0..40)
        .map(|_| {
            let begun = Instant::now();
            assert_eq!(agent.get("/live").status, 200);
            assert_eq!(agent.get("/ready").status, 503);
            begun.elapsed() / 2
        })
        .collect();
    times.sort_unstable();
    // 257 threads of this test's own server compete for the same processors: half of the answers is what is told.
    assert!(times[20] < Duration::from_millis(50), "{times:?}");
    let begun = Instant::now();
    let said = agent.boathook(&["live"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    until("requests go on", || (server.asks().len() > 5000).then_some(()));
}

#[test]
fn how_far_it_is_is_told_in_the_report_and_the_log() {
    let server = Server::answers(|path| if path == "/" { 200 } else { 503 });
    let config = format!(
        "[post-start]\ndeadline = \"1h\"\n[[post-start.step]]\n\
         warm-up = {{ requests = [\"{}\", \"{}\"], successes = 1000, rate = 20 }}\n",
        server.url("/"),
        server.url("/x"),
    );
    let mut agent = Place::with(&config).run(&MAIN);
    agent.wait_for("progress", |agent| {
        let said = agent.boathook(&["report", "--json"]);
        let reports: serde_json::Value = serde_json::from_str(&said.stdout).ok()?;
        let reason = reports[0]["steps"][0]["reason"].as_str()?.to_owned();
        let (done, rest) = reason.split_once(" of 1000 successes, ")?;
        let (failed, rest) = rest.split_once(" failed, ")?;
        let is_told = done.parse::<u64>().ok()? > 10
            && failed.parse::<u64>().ok()? > 10
            && rest.contains("/s, p50 ")
            && rest.contains("; 1 of 2 requests never answered 2xx: GET /x → 503 (")
            && !rest.contains("1000");
        is_told.then_some(())
    });
    agent.wait_log(" INFO warming up step=\"post-start/warm-up\" done=");
    let log = agent.log();
    let line = log.lines().find(|line| line.contains("warming up")).expect("a line");
    for field in [" left=9", " failed=", " rate=\"", " p50=\"", " p99=\""] {
        assert!(line.contains(field), "{field}: {line}");
    }
}

#[test]
fn more_connections_than_open_files_are_refused() {
    let server = Server::answers(|_| 200);
    let limited = |concurrency: &str| {
        let place = Place::bare();
        let mut command = std::process::Command::new("sh");
        let line = format!(
            "ulimit -n 256; exec {} step warm-up {} --concurrency {concurrency}",
            support::BOATHOOK,
            server.url("/")
        );
        command.args(["-c", &line]);
        place.dress(&mut command);
        place.finish(command)
    };
    let said = limited("200");
    assert_eq!(reason(&said), "200 connections at once are too many for # open files (ulimit -n): lower concurrency");
    assert_eq!(limited("100").code, 0);
}

#[test]
fn a_server_that_starts_late_becomes_warm() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let begun = Instant::now();
    let late = thread::spawn(move || {
        thread::sleep(Duration::from_millis(700));
        Server::on(
            TcpListener::bind(address).expect("still free"),
            Box::new(|_, stream| answer(stream, 200).map(|()| true)),
        )
    });
    let said = step(&[&format!("http://{address}/"), "--timeout", "20s"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(begun.elapsed() >= Duration::from_millis(700));
    assert!(said.stderr.contains(" failed) in "), "{said:?}");
    let server = late.join().expect("no panic");
    assert!(server.asks().len() >= 100);
}

// --------------------------------------------------------------------------------------------- the load

#[test]
fn the_rate_is_kept() {
    let server = Server::answers(|_| 200);
    let url = server.url("/");
    let said = step(&[&url, "--rate", "100/s", "--successes", "150", "--timeout", "20s"]);
    assert_eq!(said.code, 0, "{said:?}");
    let asks = server.asks();
    let took = asks[149].at - asks[0].at;
    assert!(took >= Duration::from_millis(1480), "150 requests in {took:?}");
    // In no 200 ms more than there is room for, even where the machine stalls.
    for (index, ask) in asks.iter().enumerate() {
        let within = asks[index..].iter().take_while(|other| other.at - ask.at < Duration::from_millis(200)).count();
        // The connections' threads may be late themselves, so that what was apart comes together.
        assert!(within <= 45, "{within} in 200ms");
    }
    // The control: without it they come as fast as it goes.
    let fast = Server::answers(|_| 200);
    step(&[&fast.url("/"), "--successes", "150", "--timeout", "20s"]);
    let asks = fast.asks();
    assert!(asks[149].at - asks[0].at < Duration::from_millis(1480));
}

#[test]
fn the_ramp_grows() {
    // Of the rate: 10 % at first, all of it after two seconds.
    let server = Server::answers(|_| 200);
    let said =
        step(&[&server.url("/"), "--rate", "100", "--ramp", "2s", "--max-time", "2500ms", "--successes", "1000000"]);
    assert_eq!(said.code, 1);
    let asks = server.asks();
    let in_half = |half: u32| {
        let (from, to) = (half * 500, (half + 1) * 500);
        let since = |ask: &warm_support::Ask| (ask.at - asks[0].at).as_millis() as u32;
        asks.iter().filter(|ask| (from..to).contains(&since(ask))).count()
    };
    let halves: Vec<usize> = (0..4).map(in_half).collect();
    // Expected: 10, 22, 33, 44.
    assert!(halves[0] < halves[1] && halves[1] < halves[3] && halves[0] <= 20, "{halves:?}");
    // Of the workers: each keeps a connection, and one comes after the other.
    let server = Server::start(Box::new(|_, stream| {
        thread::sleep(Duration::from_millis(2));
        answer(stream, 200).map(|()| true)
    }));
    step(&[&server.url("/"), "--concurrency", "8", "--ramp", "1600ms", "--max-time", "2s", "--successes", "1000000"]);
    let asks = server.asks();
    let firsts: Vec<Duration> = (0..8)
        .filter_map(|number| asks.iter().find(|ask| ask.connection == number))
        .map(|ask| ask.at - asks[0].at)
        .collect();
    assert_eq!(firsts.len(), 8, "{firsts:?}");
    for (number, first) in firsts.iter().enumerate() {
        let due = Duration::from_millis(200) * number as u32;
        assert!(*first + Duration::from_millis(50) >= due && *first < due + Duration::from_millis(190), "{firsts:?}");
    }
}

#[test]
fn weights_are_exact() {
    let server = Server::answers(|_| 200);
    let config = format!(
        "[[post-start.step]]\nwarm-up = {{ requests = [\"{}\", {{ url = \"{}\", weight = 3 }}, {{ url = \"{}\", weight = 6 }}], \
         successes = 200, concurrency = 1 }}\n",
        server.url("/one"),
        server.url("/three"),
        server.url("/six"),
    );
    let said = Place::with(&config).boathook(&["started"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(["/one", "/three", "/six"].map(|path| server.count(path)), [20, 60, 120]);
}

#[test]
fn connections_are_kept_or_not() {
    for (keep, connections, header) in [("true", 3, None), ("false", 100, Some("connection: close"))] {
        let server = Server::start(Box::new(|ask, stream| {
            answer(stream, 200).map(|()| !ask.head.to_ascii_lowercase().contains("connection: close"))
        }));
        let said = step(&[&server.url("/"), "--keep-alive", keep, "--concurrency", "3", "--successes", "100"]);
        assert_eq!(said.code, 0, "{said:?}");
        // With the last success others may be under way.
        let accepted = server.accepted();
        assert!((connections..=connections + 3).contains(&accepted), "{keep}: {accepted}");
        if let Some(header) = header {
            assert!(server.asks().iter().all(|ask| ask.head.to_ascii_lowercase().contains(header)), "{keep}");
        }
        until("all are closed", || (server.open() == 0).then_some(()));
    }
}

#[test]
fn a_kept_connection_that_the_server_closes_is_no_failure() {
    // It closes after each third answer, without a word.
    let server = {
        let counts: Vec<AtomicUsize> = (0..4096).map(|_| AtomicUsize::new(0)).collect();
        Server::start(Box::new(move |ask, stream| {
            answer(stream, 200)?;
            Ok(counts[ask.connection % 4096].fetch_add(1, SeqCst) < 2)
        }))
    };
    let said = step(&[&server.url("/"), "--successes", "100"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stderr.contains("warm after 100 requests in "), "{said:?}");
    assert!(server.accepted() >= 33, "{}", server.accepted());
}

/// A server logs what is broken off, and with each start of a pod.
#[test]
fn what_is_under_way_when_it_is_proved_is_still_answered() {
    let cut = Arc::new(AtomicUsize::new(0));
    let server = {
        let cut = Arc::clone(&cut);
        Server::start(Box::new(move |_, stream| {
            thread::sleep(Duration::from_millis(30));
            stream.set_nonblocking(true)?;
            let is_cut = matches!(stream.peek(&mut [0]), Ok(0));
            stream.set_nonblocking(false)?;
            cut.fetch_add(usize::from(is_cut), SeqCst);
            answer(stream, 200).map(|()| true)
        }))
    };
    let said = step(&[&server.url("/"), "--concurrency", "8", "--successes", "41"]);
    assert_eq!(said.code, 0, "{said:?}");
    until("all are closed", || (server.open() == 0).then_some(()));
    assert_eq!((cut.load(SeqCst), server.asks().len()), (0, 48));

    // But not for ever: after so many this one hangs.
    let served = AtomicUsize::new(0);
    let server = Server::start(Box::new(move |_, stream| {
        if served.fetch_add(1, SeqCst) < 40 {
            return answer(stream, 200).map(|()| true);
        }
        let mut chunk = [0; 1024];
        while stream.read(&mut chunk)? > 0 {}
        Ok(false)
    }));
    let begun = Instant::now();
    let said = step(&[&server.url("/"), "--concurrency", "8", "--successes", "40", "--timeout", "20s"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{said:?}");
    until("all are closed", || (server.open() == 0).then_some(()));
}

#[test]
fn keys_that_make_no_sense() {
    let words = |words: &[&str]| {
        let said = step(&[&["http://127.0.0.1:1/"], words].concat());
        assert_eq!(said.code, 64, "{said:?}");
        said.stderr
    };
    let at = "boathook: command line: warm-up: ";
    for (given, message) in [
        (
            vec!["--concurrency", "0"],
            format!("{at}concurrency: 0 requests at once are not possible\n  help: write a number from 1 to 1024\n"),
        ),
        (
            vec!["--concurrency", "2000"],
            format!("{at}concurrency: 2000 requests at once are not possible\n  help: write a number from 1 to 1024\n"),
        ),
        (
            vec!["--rate=-1"],
            format!(
                "{at}rate: with it no request would ever be sent\n  help: write how many per second, such as 100 or 0.5, \
                 or leave it out for as many as possible\n"
            ),
        ),
        (
            vec!["--request-timeout", "0s"],
            format!(
                "{at}request-timeout: nothing is answered in no time at all\n  help: give it some, or leave the key out\n"
            ),
        ),
        (
            vec!["--ramp", "10s", "--max-time", "5s"],
            format!(
                "{at}ramp: 10s leaves nothing of max-time 5s at full speed\n  help: shorten the ramp, or raise max-time\n"
            ),
        ),
        (
            vec!["--ramp", "10s", "--concurrency", "1"],
            format!(
                "{at}ramp: with one request at once and no rate there is nothing that could grow\n  \
                 help: give a rate, or raise concurrency\n"
            ),
        ),
    ] {
        assert_eq!(words(&given), message, "{given:?}");
    }
    for (given, message) in [
        (vec!["--rate", "NaN"], "`NaN` is not a number of requests per second, such as 100 or 0.5"),
        (vec!["--http-version", "3"], "`3` is no version of HTTP; write \"1.1\" or \"2\""),
    ] {
        assert!(words(&given).contains(message), "{given:?}");
    }
    #[cfg(not(feature = "http2"))]
    assert_eq!(
        words(&["--http-version", "2"]),
        format!("{at}http-version: this build has no HTTP/2\n  help: use the full boathook\n")
    );
}
