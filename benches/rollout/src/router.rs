//! The routing layer: a real HAProxy, told by its runtime API which pods there are.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    time::{Instant, sleep},
};

use crate::network::ROUTER;

/// The frontend; each router has a network namespace of its own.
pub const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8000);
const READY_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Whether the router knows requests, or only connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// As an ingress: each request of a keep-alive client goes where it may go at that time.
    Http,
    /// As kube-proxy: an open connection stays where it is, and the client sees what the server does to it.
    Tcp,
}

impl Mode {
    pub const ALL: [Self; 2] = [Self::Http, Self::Tcp];

    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
        }
    }
}

/// Nothing is tried twice, and nobody but the runtime API decides who gets traffic (no `check`). All else is HAProxy's
/// default; in HTTP mode that includes keep-alive to the pods, where a client's first request always goes over a
/// connection of its own (`http-reuse safe`).
fn configuration(mode: Mode, socket: &Path, pods: &[Ipv4Addr], port: u16) -> String {
    let servers = pods
        .iter()
        .enumerate()
        .fold(String::new(), |text, (slot, address)| format!("{text}    server {} {address}:{port}\n", name(slot)));
    format!(
        "global
    stats socket {} mode 600 level admin
    nbthread 1

defaults
    mode {}
    retries 0
    no option redispatch
    timeout connect 5s
    timeout client 60s
    timeout server 60s

frontend web
    bind {ADDRESS}
    default_backend pods

backend pods
    balance roundrobin
    source {ROUTER}
{servers}",
        socket.display(),
        mode.name(),
    )
}

fn name(slot: usize) -> String {
    format!("pod{slot}")
}

/// A running HAProxy; dropped, it is killed.
pub struct Router {
    process: Child,
    socket: PathBuf,
}

impl Router {
    /// Returns when it answers.
    ///
    /// # Errors
    /// HAProxy is missing, refuses its configuration, or does not listen in time.
    pub async fn start(mode: Mode, folder: &Path, pods: &[Ipv4Addr], port: u16) -> Result<Self, String> {
        let (file, socket) = (folder.join("haproxy.cfg"), folder.join("haproxy.sock"));
        fs::write(&file, configuration(mode, &socket, pods, port)).map_err(|e| format!("{}: {e}", file.display()))?;
        // It warns whenever a pod is removed.
        let log = folder.join("haproxy.log");
        let warnings = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(warnings);
        let process = command.spawn().map_err(|error| format!("haproxy: {error}; install it (Debian: haproxy)"))?;
        let mut router = Self { process, socket };
        let deadline = Instant::now() + READY_WITHIN;
        while TcpStream::connect(ADDRESS).await.is_err() {
            if let Ok(Some(status)) = router.process.try_wait() {
                return Err(format!("haproxy: {status}, see {}", log.display()));
            }
            if Instant::now() > deadline {
                return Err(format!("haproxy: not listening within {} s", READY_WITHIN.as_secs()));
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(router)
    }

    /// No new connections (in HTTP mode: requests) for the pod in this slot; what is open stays open.
    ///
    /// # Errors
    /// What HAProxy says.
    pub async fn remove(&self, slot: usize) -> Result<(), String> {
        self.command(&format!("set server pods/{} state maint", name(slot))).await
    }

    /// Another pod takes the slot.
    ///
    /// # Errors
    /// What HAProxy says.
    pub async fn add(&self, slot: usize, pod: Ipv4Addr, port: u16) -> Result<(), String> {
        // One that answers is told what changed.
        let name = name(slot);
        let said = self.ask(&format!("set server pods/{name} addr {pod} port {port}")).await?;
        if !said.contains("changed") {
            return Err(format!("haproxy: {said}"));
        }
        self.command(&format!("set server pods/{name} state ready")).await
    }

    /// A command that is answered by nothing.
    async fn command(&self, command: &str) -> Result<(), String> {
        match self.ask(command).await?.trim() {
            "" => Ok(()),
            said => Err(format!("haproxy: {command}: {said}")),
        }
    }

    async fn ask(&self, command: &str) -> Result<String, String> {
        let ask = async {
            let mut stream = UnixStream::connect(&self.socket).await?;
            stream.write_all(format!("{command}\n").as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        ask.await.map_err(|error| format!("haproxy: {command}: {error}"))
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
