//! A real S3-compatible server as a process of its own, a proxy before it that misbehaves as told, and what is needed
//! to talk to them.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use boathook::{
    problem::{Problem, Scope},
    process::Processes,
    state::remote::{
        Io, Remote,
        s3::{S3, S3Options, World},
    },
    step::Progress,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

pub const KEY: &str = "AKIDOFTHETESTS";
pub const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYSECRET";

/// The environment with the right keys.
pub fn good(name: &str) -> Option<String> {
    match name {
        "AWS_ACCESS_KEY_ID" => Some(KEY.into()),
        "AWS_SECRET_ACCESS_KEY" => Some(SECRET.into()),
        _ => None,
    }
}

pub fn keys() -> World {
    World { variable: good, ..World::default() }
}

pub fn wrong_secret() -> World {
    World { variable: |name| good(name).map(|value| value.replace("SECRET", "SECRUT")), ..World::default() }
}

pub fn io() -> Io {
    Io { processes: Processes::idle(), progress: Progress::default() }
}

/// What `mean` makes, and what it marked as secret.
pub fn scoped<T>(mean: impl FnOnce(&mut Scope<'_>) -> Option<T>) -> (T, Vec<String>) {
    let (mut problems, mut secrets): (Vec<Problem>, Vec<String>) = (Vec::new(), Vec::new());
    let mut scope = Scope::new("f", &mut secrets, &mut problems);
    let meant = mean(&mut scope);
    (meant.unwrap_or_else(|| panic!("{problems:?}")), secrets)
}

pub fn remote(endpoint: &str, target: &str, world: World) -> Remote {
    let options = S3Options { endpoint: Some(endpoint.into()), ..S3Options::default() };
    Remote::S3(scoped(|scope| S3::mean(target, options, world, scope)).0)
}

fn server() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        // `cargo test --test NAME` alone does not build other packages.
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--package", "s3-server"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        assert!(built.is_ok_and(|status| status.success()), "the server does not build");
        let own = std::env::current_exe().expect("a path");
        own.parent().and_then(Path::parent).expect("target/debug/deps").join("s3-server")
    })
}

/// A URL that is signed for an hour.
pub fn presign(method: &str, endpoint: &str, bucket: &str, object: &str) -> String {
    let output = Command::new(server())
        .args(["presign", method, endpoint, bucket, object, KEY, SECRET])
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("a URL").trim().into()
}

/// A server with an empty bucket `state`. It ends when this is dropped, or the test dies.
pub struct Store {
    pub address: String,
    folder: tempfile::TempDir,
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Store {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("state")).expect("a bucket");
        let mut child = Command::new(server())
            .arg(folder.path())
            .args([KEY, SECRET])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let stdin = child.stdin.take();
        let mut address = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut address).expect("a line");
        Self { address: address.trim().into(), folder, child, stdin }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Buckets are folders in it, objects are files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn presign(&self, method: &str, bucket: &str, object: &str) -> String {
        presign(method, &self.url(), bucket, object)
    }

    /// How many uploads have been begun and neither completed nor aborted.
    pub fn unfinished(&self) -> usize {
        let files = fs::read_dir(self.folder()).expect("a folder").filter_map(Result::ok);
        files.filter(|file| file.file_name().to_string_lossy().starts_with(".upload-")).count()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

/// What happens to one request.
pub enum Act {
    Pass,
    /// Takes the request and answers it with a status and a body.
    Answer(u16, String),
    /// Nothing is read any more, and nothing answered.
    Stall,
    /// The connection is reset when so much of the body has gone through.
    CutAfterSent(usize),
    /// The connection is reset when so much of the answer has gone through.
    CutAfterReceived(usize),
    /// The answer ends here, and the connection stays open.
    StallAfterReceived(usize),
}

/// Stands before a server, and asks for each request what should happen to it.
pub struct Proxy {
    address: String,
    count: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

type Decide = Arc<Mutex<dyn FnMut(usize, &str) -> Act + Send>>;

impl Proxy {
    /// `decide` is given the number of the request, from 0, and its head.
    pub async fn before(server: &str, decide: impl FnMut(usize, &str) -> Act + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("an address").to_string();
        let (count, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (server, counter, held) = (server.to_string(), count.clone(), open.clone());
        let decide: Decide = Arc::new(Mutex::new(decide));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let (server, counter, decide) = (server.clone(), counter.clone(), decide.clone());
                let open = Open::new(held.clone());
                tokio::spawn(async move {
                    // What breaks here is what the test is about.
                    let _ = relay(stream, &server, &counter, &decide).await;
                    drop(open);
                });
            }
        });
        Self { address, count, open }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests so far.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

struct Open(Arc<AtomicUsize>);

impl Open {
    fn new(count: Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn relay(mut client: TcpStream, server: &str, count: &AtomicUsize, decide: &Decide) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let text = String::from_utf8(head).expect("text");
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<u64>().ok());
    let length = length.unwrap_or(0);
    let number = count.fetch_add(1, Ordering::SeqCst);
    let act = decide.lock().expect("the lock")(number, &text);
    let reset = |client: &TcpStream| rustix::net::sockopt::set_socket_linger(client, Some(Duration::ZERO));
    match act {
        Act::Answer(status, body) => {
            tokio::io::copy(&mut (&mut client).take(length), &mut tokio::io::sink()).await?;
            let length = body.len();
            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
            client.write_all(answer.as_bytes()).await?;
            return client.shutdown().await;
        }
        Act::Stall => return hold(client).await,
        _ => {}
    }
    // One request for each connection, so that each is seen.
    let mut upstream = TcpStream::connect(server).await?;
    let head = text.replacen("\r\n\r\n", "\r\nconnection: close\r\n\r\n", 1);
    upstream.write_all(head.as_bytes()).await?;
    if let Act::CutAfterSent(most) = act {
        tokio::io::copy(&mut (&mut client).take(most as u64), &mut upstream).await?;
        reset(&client)?;
        return Ok(());
    }
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = upstream.split();
    let up = async {
        tokio::io::copy(&mut (&mut from_client).take(length), &mut to_server).await?;
        // The client's end is seen also while the server thinks.
        let _ = from_client.read(&mut [0]).await;
        Ok::<_, std::io::Error>(())
    };
    let most = match act {
        Act::CutAfterReceived(most) | Act::StallAfterReceived(most) => most as u64,
        _ => u64::MAX,
    };
    let down = async {
        tokio::io::copy(&mut (&mut from_server).take(most), &mut to_client).await?;
        Ok::<_, std::io::Error>(())
    };
    tokio::select! {
        outcome = up => return outcome,
        outcome = down => outcome?,
    }
    match act {
        Act::CutAfterReceived(_) => reset(&client)?,
        Act::StallAfterReceived(_) => return hold(client).await,
        _ => client.shutdown().await?,
    }
    Ok(())
}

/// Until the other side goes; what it sends meanwhile is not read.
async fn hold(client: TcpStream) -> std::io::Result<()> {
    loop {
        // Reading would be taking: so it is asked whether the connection still stands.
        if rustix::net::sockopt::socket_error(&client)?.is_err() || has_hung_up(&client) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn has_hung_up(client: &TcpStream) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(client, PollFlags::RDHUP)];
    let _ = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    fds[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR)
}

/// The content of a chunked body.
pub async fn read_chunks(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(stream.read_u8().await.expect("a byte"));
        }
        let size = String::from_utf8(line).expect("text");
        let size = usize::from_str_radix(size.trim(), 16).expect("a size");
        let mut chunk = vec![0; size + 2];
        stream.read_exact(&mut chunk).await.expect("a chunk");
        body.extend_from_slice(&chunk[..size]);
        if size == 0 {
            return body;
        }
    }
}
