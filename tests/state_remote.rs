//! Snapshots in stores on other machines, against a real S3-compatible server that checks signatures, directly and
//! through a proxy that misbehaves.
#![cfg(feature = "state")]

mod client_support;
mod s3_support;
mod spool_support;

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use boathook::{
    client::{Request, options::Options},
    process::Processes,
    state::{
        Compression, Trouble,
        flow::Flow,
        name::SnapshotName,
        remote::{
            Io, Piece, Remote, RemoteListed,
            put::PutUrl,
            s3::World,
            spool::{Bounds, Spool, Stored, collect_answer},
            writer,
        },
    },
    step::Progress,
};
use bytes::Bytes;
use s3_support::{Act, KEY, Proxy, SECRET, Store, io, keys, remote, scoped, wrong_secret};
use spool_support::{bounds, content};
use tokio::{io::AsyncWriteExt, sync::mpsc, time::timeout};

/// Far more than anything here needs on a busy machine; a hang must end some time.
const LONG: Duration = Duration::from_secs(60);
const MIB: usize = 1 << 20;

fn name(number: u64) -> SnapshotName {
    SnapshotName { state: "sessions".into(), number, time: 1_795_356_235, compression: Compression::Zstd }
}

/// Bytes that no two places have in common.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ length as u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A channel with these bytes in it, in pieces of an odd size.
fn pieces(bytes: &[u8]) -> mpsc::Receiver<Piece> {
    let (sender, receiver) = mpsc::channel(2);
    let bytes = Bytes::copy_from_slice(bytes);
    tokio::spawn(async move {
        let mut rest = bytes;
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(100_003));
            if sender.send(Piece::Bytes(piece)).await.is_err() {
                return;
            }
        }
        let _ = sender.send(Piece::End).await;
    });
    receiver
}

async fn upload(remote: &Remote, number: u64, bytes: &[u8], io: &Io) -> Result<u64, Trouble> {
    timeout(LONG, remote.upload(&name(number), pieces(bytes), io)).await.unwrap_or_else(|_| {
        panic!("it hangs: {}", io.progress.now());
    })
}

async fn download(remote: &Remote, listed: &RemoteListed, io: &Io) -> Result<Vec<u8>, Trouble> {
    let (sender, mut receiver) = mpsc::channel(2);
    let take = async {
        let (mut all, mut ended) = (Vec::new(), false);
        while let Some(piece) = receiver.recv().await {
            match piece {
                Piece::Bytes(bytes) => all.extend_from_slice(&bytes),
                Piece::End => ended = true,
            }
        }
        (all, ended)
    };
    let both = async { tokio::join!(remote.download(listed, sender, io), take) };
    let (outcome, (bytes, ended)) =
        timeout(LONG, both).await.unwrap_or_else(|_| panic!("it hangs: {}", io.progress.now()));
    // What is whole says so, and nothing else does.
    assert_eq!(outcome.is_ok(), ended);
    outcome.map(|()| bytes)
}

#[tokio::test]
async fn a_snapshot_comes_back_as_it_went() {
    let store = Store::start();
    let (remote, io) = (remote(&store.url(), "s3://state/pods/web 0+ü/", keys()), io());
    assert_eq!(remote.show(), "s3://state/pods/web 0+ü");
    assert_eq!(remote.next_number("sessions", &io).await, Ok(1));
    // Empty, small, just one part, one byte more, and several.
    for (number, length) in [(1, 0), (2, 1000), (3, 8 * MIB), (4, 8 * MIB + 1), (5, 20 * MIB + 17)] {
        let bytes = noise(length);
        assert_eq!(upload(&remote, number, &bytes, &io).await, Ok(length as u64));
        let listed = remote.list(Some("sessions"), &io).await.expect("a list");
        let first = &listed[0];
        assert_eq!(first.name, Some(name(number)));
        assert_eq!((first.size, listed.len()), (Some(length as u64), usize::try_from(number).expect("small")));
        assert_eq!(first.key, format!("pods/web 0+ü/{}", name(number)));
        let back = download(&remote, first, &io).await.expect("the bytes");
        assert!(back == bytes, "{length}");
        for most in [65_600, 100] {
            let tail = remote.tail(first, most, &io).await.expect("the end");
            assert!(tail == bytes[length.saturating_sub(most)..], "{length} {most}");
        }
    }
    // The server keeps objects as files: what is there is what was sent.
    let file = store.folder().join(format!("state/pods/web 0+ü/{}", name(5)));
    assert!(fs::read(file).expect("the object") == noise(20 * MIB + 17));
    assert_eq!(remote.next_number("sessions", &io).await, Ok(6));
    assert_eq!(remote.next_number("other", &io).await, Ok(1));

    let flow = Flow::default();
    remote.prune("sessions", 2, &io, &flow).await.expect("pruned");
    let left: Vec<_> = remote.list(None, &io).await.expect("a list").into_iter().filter_map(|l| l.name).collect();
    assert_eq!(left, [name(5), name(4)]);
    assert_eq!(flow.notes().lines, Vec::<String>::new());
    // What is gone cannot be read, and says so at once; deleted twice is deleted.
    let gone = RemoteListed { name: Some(name(1)), key: format!("pods/web 0+ü/{}", name(1)), size: Some(10) };
    let trouble = download(&remote, &gone, &io).await.expect_err("gone");
    assert!(!trouble.may_pass);
    let start = format!("s3://state/pods/web 0+ü: {}: status 404 NoSuchKey", name(1));
    assert!(trouble.reason.starts_with(&start), "{}", trouble.reason);
    remote.delete(&gone, &io).await.expect("deleted");
}

#[tokio::test]
async fn only_snapshots_of_this_state_are_listed() {
    let store = Store::start();
    let folder = store.folder().join("state/p");
    fs::create_dir_all(folder.join("sessions.d")).expect("a folder");
    for number in 1..=2100 {
        fs::write(folder.join(name(number).to_string()), b"x").expect("a file");
    }
    let other = SnapshotName { state: "sessions.v2".into(), ..name(9999) };
    for foreign in [&other.to_string(), "sessions.txt", "a & b <c>", "sessions.d/x.0000000001.20261122T140355Z.tar"] {
        fs::write(folder.join(foreign), b"y").expect("a file");
    }
    let (remote, io) = (remote(&store.url(), "s3://state/p", keys()), io());
    let listed = remote.list(Some("sessions"), &io).await.expect("a list");
    let numbers: Vec<u64> = listed.iter().filter_map(|listed| Some(listed.name.as_ref()?.number)).collect();
    assert_eq!(numbers, (1..=2100).rev().collect::<Vec<_>>());
    assert_eq!(remote.next_number("sessions", &io).await, Ok(2101));
    let all = remote.list(None, &io).await.expect("a list");
    assert_eq!(all.len(), 2101);
    assert_eq!(all[2100].name, Some(other));
}

#[tokio::test]
async fn refusals_say_how_to_mend_them_and_no_secret() {
    let store = Store::start();
    let of = |variable: fn(&str) -> Option<String>| World { variable, ..World::default() };
    let lost: fn() -> SystemTime = || SystemTime::now() - Duration::from_secs(3600);
    for (target, world, reason) in [
        (
            "s3://absent",
            keys(),
            "s3://absent/: list: status 404 NoSuchBucket: there is no such bucket: create it, or \
          correct its name or the endpoint",
        ),
        (
            "s3://state",
            wrong_secret(),
            "s3://state/: list: status 403 SignatureDoesNotMatch: AWS_SECRET_ACCESS_KEY \
          does not belong to AWS_ACCESS_KEY_ID, or `region` (us-east-1) is not the store's",
        ),
        (
            "s3://state",
            of(|name| s3_support::good(name).map(|value| value.replace(KEY, "AKIDOFNOBODY"))),
            // In this server's words.
            "s3://state/: list: status 403 NotSignedUp: Your account is not signed up",
        ),
        (
            "s3://state",
            of(|_| None),
            "s3://state/: list: AWS_ACCESS_KEY_ID is not in the environment; set \
          AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, from a Secret",
        ),
        (
            "s3://state",
            of(|name| s3_support::good(name).filter(|_| name == "AWS_ACCESS_KEY_ID")),
            "s3://state/: list: AWS_SECRET_ACCESS_KEY is not in the environment; set AWS_ACCESS_KEY_ID and \
             AWS_SECRET_ACCESS_KEY, from a Secret",
        ),
        (
            "s3://state",
            World { now: lost, ..keys() },
            "s3://state/: list: status 403 RequestTimeTooSkewed: the clock \
          of this node is wrong: it says ",
        ),
    ] {
        let (remote, io) = (remote(&store.url(), target, world), io());
        let trouble = timeout(LONG, remote.list(None, &io)).await.expect("in time").expect_err(target);
        assert!(!trouble.may_pass, "{}", trouble.reason);
        assert!(trouble.reason.starts_with(reason), "{}\n{reason}", trouble.reason);
        for text in [&trouble.reason, &io.progress.now()] {
            assert!(!text.contains(SECRET) && !text.contains("Signature="), "{text}");
        }
        // It is the same for an upload, but that this server makes buckets as they are needed.
        if target != "s3://absent" {
            let trouble = upload(&remote, 1, b"x", &io).await.expect_err(target);
            assert!(!trouble.may_pass && !trouble.reason.contains(SECRET), "{}", trouble.reason);
        }
    }
    // The control: nothing else was wrong.
    assert_eq!(remote(&store.url(), "s3://state", keys()).list(None, &io()).await, Ok(Vec::new()));
}

#[tokio::test]
async fn what_a_store_repeats_of_our_secrets_is_not_shown() {
    let proxy = Proxy::before("127.0.0.1:1", |_, head| {
        let proof = head.lines().find(|line| line.starts_with("authorization")).unwrap_or_default();
        Act::Answer(418, format!("<Error><Code>Teapot</Code><Message>{SECRET} {proof} end</Message></Error>"))
    })
    .await;
    let (remote, io) = (remote(&proxy.url(), "s3://state", keys()), io());
    let trouble = remote.list(None, &io).await.expect_err("a teapot");
    let start = "s3://state/: list: status 418 Teapot: *** authorization: AWS4-HMAC-SHA256 Credential=";
    // The message did come from the server, and the secret was in it.
    assert!(trouble.reason.starts_with(start) && !trouble.reason.contains(SECRET), "{}", trouble.reason);
}

#[tokio::test]
async fn an_upload_gets_through_faults() {
    let store = Store::start();
    let bytes = noise(20 * MIB + 17);
    let proxy = Proxy::before(&store.address, |count, head| match count {
        // The begin: refused three times.
        0..=2 => Act::Answer(503, "<Error><Code>SlowDown</Code><Message>x</Message></Error>".into()),
        // The first part: refused, cut in the middle, held for ever; the store's answer cut.
        4 => Act::Answer(500, String::new()),
        5 => Act::CutAfterSent(3 * MIB),
        6 => Act::Stall,
        8 => Act::CutAfterReceived(20),
        // The end: a success that is none, then one whose answer is lost.
        11 => {
            assert!(head.starts_with("POST"), "{head}");
            Act::Answer(200, "<?xml version=\"1.0\"?>\n<Error><Code>InternalError</Code></Error>".into())
        }
        12 => Act::CutAfterReceived(20),
        _ => Act::Pass,
    })
    .await;
    let (mut remote, io) = (remote(&proxy.url(), "s3://state/x", keys()), io());
    let Remote::S3(s3) = &mut remote else { panic!("not a store") };
    s3.stall = Duration::from_secs(2);
    assert_eq!(upload(&remote, 1, &bytes, &io).await, Ok(bytes.len() as u64));
    assert!(proxy.count() >= 13, "{}", proxy.count());
    assert!(fs::read(store.folder().join(format!("state/x/{}", name(1)))).expect("the object") == bytes);
}

#[tokio::test]
async fn a_download_goes_on_where_it_broke_off() {
    let store = Store::start();
    let bytes = noise(20 * MIB + 17);
    let file = store.folder().join(format!("state/{}", name(1)));
    fs::write(&file, &bytes).expect("an object");
    let listed = RemoteListed { name: Some(name(1)), key: name(1).to_string(), size: Some(bytes.len() as u64) };
    let proxy = Proxy::before(&store.address, |count, head| match count {
        0 => Act::CutAfterReceived(5 * MIB),
        1 => {
            assert!(head.contains("\r\nrange: bytes=") && head.contains("\r\nif-match: \""), "{head}");
            Act::Answer(503, String::new())
        }
        2 => Act::CutAfterReceived(MIB),
        3 => Act::StallAfterReceived(MIB),
        _ => Act::Pass,
    })
    .await;
    let (mut remote, io) = (remote(&proxy.url(), "s3://state", keys()), io());
    let Remote::S3(s3) = &mut remote else { panic!("not a store") };
    s3.stall = Duration::from_secs(2);
    assert!(download(&remote, &listed, &io).await.expect("the bytes") == bytes);
    assert_eq!(proxy.count(), 5);
}

#[tokio::test]
async fn halves_of_two_snapshots_are_not_put_together() {
    let store = Store::start();
    let file = store.folder().join(format!("state/{}", name(1)));
    fs::write(&file, noise(4 * MIB)).expect("an object");
    let listed = RemoteListed { name: Some(name(1)), key: name(1).to_string(), size: Some(4 << 20) };
    let proxy = Proxy::before(&store.address, move |count, _| {
        if count == 0 {
            return Act::CutAfterReceived(MIB);
        }
        fs::write(&file, vec![7; 4 * MIB]).expect("another object");
        Act::Pass
    })
    .await;
    let (remote, io) = (remote(&proxy.url(), "s3://state", keys()), io());
    let trouble = download(&remote, &listed, &io).await.expect_err("another one");
    assert!(trouble.may_pass && trouble.reason.ends_with("it was replaced while it was read"), "{}", trouble.reason);
}

#[tokio::test]
async fn the_deadline_ends_it_with_the_reason_and_leaves_nothing() {
    let store = Store::start();
    let proxy = Proxy::before(&store.address, |_, head| {
        if head.contains("partNumber=2") {
            Act::Answer(503, "<Error><Code>SlowDown</Code></Error>".into())
        } else {
            Act::Pass
        }
    })
    .await;
    let (remote, io) = (remote(&proxy.url(), "s3://state/x", keys()), io());
    let bytes = noise(20 * MIB);
    let begun = std::time::Instant::now();
    let name = name(1);
    let mut running = Box::pin(remote.upload(&name, pieces(&bytes), &io));
    while !io.progress.now().contains("attempt 3") {
        let cut = timeout(Duration::from_millis(10), &mut running).await;
        assert!(cut.is_err(), "{cut:?}");
        assert!(begun.elapsed() < LONG, "{}", io.progress.now());
    }
    assert!(store.unfinished() > 0);
    drop(running);
    let reason = io.progress.now();
    assert!(reason.starts_with("s3://state/x: part 2: status 503 SlowDown, attempt "), "{reason}");
    // Every upload that was begun is aborted, every connection is closed.
    let begun = std::time::Instant::now();
    while proxy.open() > 0 || store.unfinished() > 0 {
        assert!(begun.elapsed() < LONG, "{} connections, {} uploads", proxy.open(), store.unfinished());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(remote.list(None, &io).await, Ok(Vec::new()));
}

#[tokio::test]
async fn a_snapshot_that_breaks_off_is_not_stored() {
    let store = Store::start();
    let (remote, io) = (remote(&store.url(), "s3://state", keys()), io());
    for length in [0, 1000, 20 * MIB] {
        let (sender, receiver) = mpsc::channel(2);
        let upload = async {
            let name = name(1);
            remote.upload(&name, receiver, &io).await
        };
        let send = async {
            for piece in noise(length).chunks(MIB) {
                sender.send(Piece::Bytes(Bytes::copy_from_slice(piece))).await.expect("taken");
            }
            drop(sender);
        };
        let (outcome, ()) = tokio::join!(upload, send);
        let reason = outcome.expect_err("it broke off").reason;
        assert_eq!(reason, "s3://state/: upload: what was to be sent broke off");
        assert_eq!(remote.list(None, &io).await, Ok(Vec::new()));
        assert_eq!(store.unfinished(), 0);
    }
}

#[tokio::test]
async fn uploads_of_an_earlier_life_are_aborted() {
    let old = "2020-01-01T00:00:00.000Z";
    let new = "2999-01-01T00:00:00.000Z";
    let upload = |state: &str, id: &str, time: &str| {
        let key = SnapshotName { state: state.into(), ..name(1) };
        format!("<Upload><Key>p/{key}</Key><UploadId>{id}</UploadId><Initiated>{time}</Initiated></Upload>")
    };
    let list = format!(
        "<ListMultipartUploadsResult>{}{}{}{}</ListMultipartUploadsResult>",
        upload("sessions", "old&amp;1", old),
        upload("sessions", "new", new),
        upload("sessions.v2", "other", old),
        upload("sessions", "old2", old),
    );
    let deleted = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = deleted.clone();
    // The server for the tests does not list uploads: it is only seen what we would do.
    let proxy = Proxy::before("127.0.0.1:1", move |_, head| {
        let line = head.lines().next().unwrap_or_default();
        if line.starts_with("DELETE") {
            seen.lock().expect("the lock").push(line.to_string());
            return Act::Answer(204, String::new());
        }
        Act::Answer(200, if line.contains("uploads=") { list.clone() } else { "<ListBucketResult/>".into() })
    })
    .await;
    let (remote, io) = (remote(&proxy.url(), "s3://state/p", keys()), io());
    remote.prune("sessions", 3, &io, &Flow::default()).await.expect("pruned");
    let key = name(1);
    assert_eq!(
        *deleted.lock().expect("the lock"),
        [
            format!("DELETE /state/p/{key}?uploadId=old%261 HTTP/1.1"),
            format!("DELETE /state/p/{key}?uploadId=old2 HTTP/1.1")
        ]
    );
}

fn put_url(url: &str, spool: Option<&str>, options: Options) -> (Remote, Vec<String>) {
    let spool = spool.map(Into::into);
    let (url, secrets) = scoped(|scope| PutUrl::mean("to", url, options, spool, scope));
    (Remote::Url(url), secrets)
}

#[tokio::test]
async fn a_presigned_url_takes_a_snapshot_and_another_gives_it() {
    let store = Store::start();
    let object = format!("pod 1/{}", name(7));
    let (put, secrets) = put_url(&store.presign("PUT", "state", &object), None, Options::default());
    let (get, _) = put_url(&store.presign("GET", "state", &object), None, Options::default());
    let io = io();
    for length in [0, 1000, 20 * MIB + 17] {
        let bytes = noise(length);
        assert_eq!(upload(&put, 7, &bytes, &io).await, Ok(length as u64));
        let listed = get.list(None, &io).await.expect("a list");
        assert_eq!(listed, [RemoteListed { name: Some(name(7)), key: String::new(), size: None }]);
        assert!(download(&get, &listed[0], &io).await.expect("the bytes") == bytes);
        if length > 0 {
            let tail = get.tail(&listed[0], 500, &io).await.expect("the end");
            assert!(tail == bytes[length - 500..]);
        }
    }
    // One made for reading does not write, and what is said of it has no signature.
    let trouble = upload(&get, 7, b"x", &io).await.expect_err("not for PUT");
    let start =
        format!("{}/state/pod%201/{}?…: status 403 SignatureDoesNotMatch: the URL's signature", store.url(), name(7));
    assert!(trouble.reason.starts_with(&start) && !trouble.may_pass, "{}\n{start}", trouble.reason);
    let signature = store.presign("GET", "state", &object);
    let signature = signature.split("X-Amz-Signature=").nth(1).expect("a signature").split('&').next().expect("it");
    assert!(!trouble.reason.contains(signature) && !io.progress.now().contains(signature));
    // What the configuration marks as secret holds the signature of the other.
    let url = store.presign("PUT", "state", &object);
    assert!(secrets.iter().any(|secret| url.contains(&format!("X-Amz-Signature={secret}")) || secret.len() == 64));
    // An old one has expired.
    let old = url.replace("X-Amz-Expires=3600", "X-Amz-Expires=0");
    let (old, _) = put_url(&old, None, Options::default());
    let trouble = upload(&old, 7, b"x", &io).await.expect_err("expired");
    assert!(!trouble.may_pass && trouble.reason.contains("status 403"), "{}", trouble.reason);
}

#[tokio::test]
async fn a_put_is_sent_again_from_the_spool() {
    let store = Store::start();
    let bytes = noise(20 * MIB + 17);
    let proxy = Proxy::before(&store.address, |count, _| match count {
        0 => Act::Answer(503, String::new()),
        1 => Act::CutAfterSent(10 * MIB),
        2 => Act::CutAfterReceived(10),
        3 => Act::Stall,
        _ => Act::Pass,
    })
    .await;
    let url = s3_support::presign("PUT", &proxy.url(), "state", "x");
    let spool = tempfile::tempdir().expect("a folder");
    let (mut put, _) = put_url(&url, spool.path().to_str(), Options::default());
    let Remote::Url(inner) = &mut put else { panic!("not a URL") };
    inner.stall = Duration::from_secs(2);
    assert_eq!(upload(&put, 1, &bytes, &io()).await, Ok(bytes.len() as u64));
    assert!(fs::read(store.folder().join("state/x")).expect("the object") == bytes);
    assert_eq!(proxy.count(), 5);
    assert_eq!(fs::read_dir(spool.path()).expect("a folder").count(), 0, "the spool has no name");
}

#[tokio::test]
async fn an_answer_that_comes_before_the_end_of_the_body_is_heard() {
    let address = client_support::serve(|mut stream| async move {
        client_support::head(&mut stream).await;
        let _ = stream.write_all(client_support::answer(413, "too much").as_bytes()).await;
        // The rest is not read: the connection is reset.
    })
    .await;
    let (put, _) = put_url(&format!("http://{address}/x?sig=hunter2hunter2"), None, Options::default());
    let trouble = upload(&put, 1, &noise(20 * MIB), &io()).await.expect_err("too much");
    assert_eq!(trouble, Trouble::for_good(format!("http://{address}/x?…: status 413: too much")));
}

#[tokio::test]
async fn without_a_spool_it_goes_in_chunks_where_the_server_takes_them() {
    let bytes = noise(9 * MIB);
    // As S3 answers.
    let strict = client_support::serve(|mut stream| async move {
        let head = client_support::head(&mut stream).await;
        let chunked = head.contains("transfer-encoding: chunked");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let body = match length {
            Some(length) => {
                let mut body = vec![0; length];
                tokio::io::AsyncReadExt::read_exact(&mut stream, &mut body).await.expect("the body");
                body
            }
            None => s3_support::read_chunks(&mut stream).await,
        };
        assert!(!body.is_empty());
        let text = "<Error><Code>MissingContentLength</Code></Error>";
        let answer = if chunked { client_support::answer(411, text) } else { client_support::answer(200, "") };
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await;
    let (put, _) = put_url(&format!("http://{strict}/x"), Some("/nonexistent/spool"), Options::default());
    let trouble = upload(&put, 1, &bytes, &io()).await.expect_err("no length");
    let end = "status 411: the server wants to know the length beforehand, and /nonexistent/spool takes no file: \
               name a folder with room in `spool`";
    assert!(trouble.reason.ends_with(end) && !trouble.may_pass, "{}", trouble.reason);
    // What is small needs no file.
    assert_eq!(upload(&put, 1, &bytes[..8 * MIB], &io()).await, Ok(8 << 20));

    let taken = Arc::new(AtomicUsize::new(0));
    let counter = taken.clone();
    let address = client_support::serve(move |mut stream| {
        let counter = counter.clone();
        async move {
            let head = client_support::head(&mut stream).await;
            assert!(head.contains("transfer-encoding: chunked"), "{head}");
            let body = s3_support::read_chunks(&mut stream).await;
            counter.fetch_add(body.len(), Ordering::SeqCst);
            let _ = stream.write_all(client_support::answer(201, "").as_bytes()).await;
        }
    })
    .await;
    let (put, _) = put_url(&format!("http://{address}/x"), Some("/nonexistent/spool"), Options::default());
    assert_eq!(upload(&put, 1, &bytes, &io()).await, Ok(bytes.len() as u64));
    assert_eq!(taken.load(Ordering::SeqCst), bytes.len());
}

#[tokio::test]
async fn an_answer_is_whole_or_nothing() {
    let request = |url: &str| scoped(|scope| Request::mean("url", url, Options::default(), scope)).0;
    let io = io();
    let body = "x".repeat(3_000_000);
    let address = client_support::answering(move |head| match &head[..7] {
        "GET /ok" => client_support::answer(200, &body),
        "GET /to" => "HTTP/1.1 302 X\r\nLocation: /ok\r\nContent-Length: 0\r\n\r\n".into(),
        "GET /cu" => format!("HTTP/1.1 200 X\r\nContent-Length: 4000000\r\n\r\n{body}"),
        "GET /ch" => "HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n".into(),
        _ => client_support::answer(404, "no dump today"),
    })
    .await;
    for (path, most, outcome) in [
        ("ok", u64::MAX, Ok(3_000_000)),
        ("to", u64::MAX, Ok(3_000_000)),
        ("ok", 1000, Err("it is more than the limit of 1000 bytes")),
        ("absent", u64::MAX, Err("status 404: no dump today")),
        ("cut", u64::MAX, Err("the answer broke off after 3000000 bytes: the connection was closed")),
        ("chunks", u64::MAX, Err("the answer broke off after 3 bytes: the connection was closed")),
    ] {
        let url = format!("http://{address}/{path}");
        let got = timeout(LONG, collect_answer(&request(&url), bounds(most), &io)).await.expect("in time");
        match (got, outcome) {
            (Ok(spooled), Ok(length)) => assert_eq!(content(spooled).len(), length, "{path}"),
            (Err(trouble), Err(reason)) => {
                let start = format!("http://{address}/{path}: {reason}");
                assert!(trouble.reason.starts_with(&start), "{}\n{start}", trouble.reason);
            }
            (got, _) => panic!("{path}: {got:?}"),
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("app.sock");
    let listener = tokio::net::UnixListener::bind(&socket).expect("a socket");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let _ = stream.write_all(client_support::answer(200, "dump").as_bytes()).await;
        let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 1000]).await;
    });
    let got = collect_answer(&request(&format!("unix://{}:/dump", socket.display())), bounds(100), &io).await;
    assert_eq!(content(got.expect("an answer")), b"dump");
}

#[tokio::test]
async fn a_spool_gives_back_what_it_took() {
    let folder = tempfile::tempdir().expect("a folder");
    let all = noise(3 * MIB + 5);
    for (length, memory, in_file) in [(0, 0, false), (1, 0, true), (MIB, MIB, false), (3 * MIB + 5, MIB, true)] {
        let bounds = Bounds { memory, folder: Some(folder.path().into()), most: u64::MAX };
        let (mut one, mut other) = (Spool::new(bounds.clone()), Spool::new(bounds));
        for piece in all[..length].chunks(77_777) {
            one.write(piece).expect("written");
            other.push(piece).await.expect("pushed");
        }
        assert_eq!(one.size(), length as u64);
        let stored = other.into_stored().await.expect("stored");
        assert_eq!((matches!(stored, Stored::File(..)), stored.size()), (in_file, length as u64));
        assert!(content(one.into_content().await.expect("content")) == all[..length]);
    }
    // Without room.
    let bounds = Bounds { memory: 10, folder: Some("/proc/nowhere".into()), most: u64::MAX };
    let mut spool = Spool::new(bounds);
    let trouble = spool.push(&all).await.expect_err("no folder");
    assert_eq!(trouble.reason, "/proc/nowhere: no such file or directory; name a folder with room in `spool`");
    assert!(spool.into_blocks().concat() == all);
}

/// Runs alone in a process of its own, see below.
#[test]
#[ignore = "a part of the next one"]
fn uploads_much() {
    let endpoint = std::env::var("STATE_REMOTE_ENDPOINT").expect("started by the next test");
    let length: usize = 300 * MIB;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let sent = runtime.block_on(async {
        let remote = remote(&endpoint, "s3://state", keys());
        let (mut writer, receiver) = writer();
        let write = boathook::task::blocking(move || {
            let block = noise(MIB);
            (0..length / MIB).try_for_each(|_| std::io::Write::write_all(&mut writer, &block))?;
            writer.finish()
        });
        let io = Io { processes: Processes::idle(), progress: Progress::default() };
        let sent = remote.upload(&name(1), receiver, &io).await;
        write.await.expect("a thread").expect("written");
        sent
    });
    assert_eq!(sent, Ok(length as u64));
    let status = fs::read_to_string("/proc/self/status").expect("proc");
    status
        .lines()
        .filter(|line| ["VmHWM", "RssFile"].contains(&&line[..line.find(':').unwrap_or(0)]))
        .for_each(|line| println!("{line}"));
}

#[tokio::test]
async fn much_is_sent_from_little_memory() {
    let store = Store::start();
    let output = tokio::task::spawn_blocking(move || {
        let output = std::process::Command::new(std::env::current_exe().expect("a path"))
            .args(["--exact", "uploads_much", "--ignored", "--nocapture"])
            .env("STATE_REMOTE_ENDPOINT", store.url())
            .output()
            .expect("it runs");
        drop(store);
        output
    })
    .await
    .expect("a thread");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let kib = |name: &str| -> u64 {
        let line = text.lines().find(|line| line.contains(name)).expect("a line");
        line.split_whitespace().find_map(|word| word.parse().ok()).expect("a number")
    };
    // The code of the test itself is no part of it: unoptimised, it is several times as large as the shipped binary.
    let used = kib("VmHWM").saturating_sub(kib("RssFile"));
    println!("{used} KiB for 300 MiB");
    assert!(used <= 22 << 10, "{used} KiB");
}
