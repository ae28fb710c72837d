//! The HTTP door: binds the port, lets the right callers trigger hooks, and keeps everybody else from being in
//! their way. What a hook does, and when the agent is ready, is left to the [`Agent`] behind it; the Unix socket
//! (`control`) serves the same endpoints through the same guard.

use std::{fmt, future::Future, io, net::SocketAddr, sync::Arc};

use rustix::{
    io::Errno,
    net::{self as sys, AddressFamily, SocketFlags, SocketType, sockopt},
};
use tokio::net::TcpListener;

use crate::{
    control::Peer,
    server::guard::{Door, Listener},
    step::OwnTraffic,
};

pub mod admission;
pub(crate) mod guard;
mod quiet;
mod routes;
mod watched;

pub use admission::{Refusal, Rights, Source, TokenSource};
pub use guard::Limits;

/// What a caller may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    Started,
    Shutdown,
}

/// Who asks, for the log and the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub origin: Origin,
    /// As sent, printable, cut to 64 characters; empty when none was sent.
    pub user_agent: String,
}

/// Where a call came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Tcp(SocketAddr),
    /// The control socket: who holds its other end.
    Socket(Peer),
}

impl Caller {
    /// The kubelet's hook handler announces itself as `kube-lifecycle/1.36` (`pkg/kubelet/lifecycle/handlers.go`).
    /// Anybody can: it decides only how a failure is told, never what is allowed.
    pub fn is_kubelet(&self) -> bool {
        self.user_agent.starts_with("kube-lifecycle/")
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Socket(peer) => peer.fmt(f),
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.origin.fmt(f)?;
        if !self.user_agent.is_empty() {
            f.write_str(" (")?;
            f.write_str(&self.user_agent)?;
            f.write_str(")")?;
        }
        Ok(())
    }
}

/// What a hook's run came to.
#[derive(Clone, Debug)]
pub struct HookAnswer {
    pub succeeded: bool,
    /// JSON, at most 8 KiB: the kubelet reads no body that is announced as larger than 10 KiB.
    pub body: String,
}

/// The agent, as seen from its doors.
pub trait Agent: Send + Sync + 'static {
    /// Joins the hook's run, or starts it; resolves when that has ended, or at once where only readiness is gated.
    /// The run is a task of its own: dropping this future cancels nothing.
    fn trigger(&self, hook: Trigger, by: &Caller) -> impl Future<Output = HookAnswer> + Send;
    /// The error is the reason, in a few words. Dropping this future takes nothing from others who ask.
    fn is_ready(&self) -> impl Future<Output = Result<(), String>> + Send;
    /// The error is the reason, in a few words.
    fn is_live(&self) -> Result<(), String>;
    fn status_json(&self) -> String;
    /// The reports of the hooks that ran; the control socket alone serves them (`/report`).
    fn report_json(&self) -> String;
    /// Prometheus text.
    fn metrics(&self) -> String;
    /// A trigger was refused: for the metrics. Nothing by default.
    fn note_refusal(&self) {}
}

/// Waiting connections that the kernel may keep for us: as many as it allows by default (`somaxconn`), so that a
/// flood's handshakes do not push the kubelet's out.
const BACKLOG: i32 = 4096;

/// Binds the listener: `[::]` takes IPv4 too.
///
/// # Errors
/// The message says what failed, who may be the cause, and how to fix it.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let listen = || {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = sys::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
        // A restarted container finds its predecessor's connections in TIME_WAIT on this port.
        sockopt::set_socket_reuseaddr(&socket, true)?;
        if address.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, false)?;
        }
        sys::bind(&socket, &address)?;
        sys::listen(&socket, BACKLOG)?;
        Ok(socket)
    };
    listen().map(Into::into).map_err(|errno: Errno| {
        let (why, help) = match errno {
            Errno::ADDRINUSE => (
                "the port is in use: by another boathook, by the application, or by another container of the pod \
                 (they share their ports)",
                "choose a free port as `listen` under [server], and the same in the pod's hooks and probes",
            ),
            Errno::ACCESS | Errno::PERM => (
                "not permitted: ports below 1024 may need a capability",
                "choose a port from 1024 on as `listen` under [server]",
            ),
            Errno::ADDRNOTAVAIL => (
                "the address is not one of this pod's",
                "listen on 0.0.0.0 or [::], or give `listen` under [server] an address of the pod",
            ),
            Errno::AFNOSUPPORT => {
                ("the kernel has no such address family", "listen on 0.0.0.0 instead of [::] under [server]")
            }
            other => {
                let why = io::Error::from(other);
                return io::Error::new(why.kind(), format!("cannot listen on {address}: {why}"));
            }
        };
        let kind = io::Error::from(errno).kind();
        io::Error::new(kind, format!("cannot listen on {address}: {why}\n  help: {help}"))
    })
}

/// Serves the endpoints until `stop` resolves; hooks that are being waited for then are still answered before this
/// ends (the caller bounds that). Dropping the future closes every connection.
pub async fn serve<A: Agent>(
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send,
    agent: Arc<A>,
    rights: Rights,
    own: OwnTraffic,
) {
    serve_limited(listener, stop, agent, rights, own, Limits::network()).await;
}

/// [`serve`] with limits of the caller's own.
pub async fn serve_limited<A: Agent>(
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send,
    agent: Arc<A>,
    rights: Rights,
    own: OwnTraffic,
    limits: Limits,
) {
    let door = Door { listener: Listener::Tcp(listener, own), rights: Some(rights), limits };
    guard::attend(door, stop, agent).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_explained() {
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let error = bind(address).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(
            error.to_string(),
            format!(
                "cannot listen on {address}: the port is in use: by another boathook, by the application, or by \
                 another container of the pod (they share their ports)\n  help: choose a free port as `listen` under \
                 [server], and the same in the pod's hooks and probes"
            )
        );
    }

    #[test]
    fn the_ipv6_wildcard_takes_ipv4_too() {
        let Ok(listener) = bind("[::]:0".parse().unwrap()) else { return };
        let port = listener.local_addr().unwrap().port();
        std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    }
}
