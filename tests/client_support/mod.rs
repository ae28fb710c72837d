//! Servers that misbehave, and what is needed to send requests to them.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{future::Future, net::SocketAddr, time::Duration};

use boathook::{
    keys::Read,
    problem::{Problem, Scope},
    process::Processes,
    step::{Context, End, Kind, OwnTraffic, Progress},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::Instant,
};

pub fn context() -> Context {
    Context {
        label: "test".into(),
        limit: Instant::now() + Duration::from_secs(20),
        hook_started: Instant::now(),
        kill_after: Duration::from_secs(1),
        usual_ports: Vec::new(),
        main_process: None,
        processes: Processes::idle(),
        own_traffic: OwnTraffic::default(),
        progress: Progress::default(),
    }
}

/// Reads the key `step` of a TOML text.
pub fn parse_step<T: Read>(toml: &str) -> Result<T, String> {
    let mut keys: Vec<(String, T)> = boathook::keys::parse(toml)?;
    assert_eq!((keys.len(), keys[0].0.as_str()), (1, "step"));
    Ok(keys.remove(0).1)
}

/// Gives meaning to a table of keys; the problems as shown, or the step and its secrets.
pub fn mean<K: Kind>(toml: &str) -> Result<(K, Vec<String>), Vec<String>> {
    let (mut problems, mut secrets): (Vec<Problem>, Vec<String>) = (Vec::new(), Vec::new());
    let step = parse_step(toml).map_err(|message| vec![message])?;
    let mut scope = Scope::new("f", &mut secrets, &mut problems);
    let meant = K::mean(step, &mut scope);
    match meant {
        Some(kind) if problems.is_empty() => Ok((kind, secrets)),
        _ => Err(problems.iter().map(Problem::to_string).collect()),
    }
}

/// Runs a step of this kind once; `Err` is what the step was doing when it was cut after `limit`.
pub async fn run<K: Kind>(toml: &str, limit: Duration) -> Result<End, String> {
    let (kind, _) = mean::<K>(toml).unwrap_or_else(|problems| panic!("{toml}: {problems:?}"));
    let context = context();
    tokio::time::timeout(limit, kind.run(&context)).await.map_err(|_| context.progress.now())
}

/// Serves each connection with `behaviour` until the test's runtime ends.
pub async fn serve<F>(behaviour: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            tokio::spawn(behaviour(stream));
        }
    });
    address
}

/// Reads the head of a request.
pub async fn head(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => text.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(text).expect("text")
}

/// Answers each request with what `answer` makes of its head.
pub async fn answering(answer: impl Fn(&str) -> String + Clone + Send + Sync + 'static) -> SocketAddr {
    serve(move |mut stream| {
        let answer = answer.clone();
        async move {
            let head = head(&mut stream).await;
            let _ = stream.write_all(answer(&head).as_bytes()).await;
        }
    })
    .await
}

/// A whole answer.
pub fn answer(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
