//! The control socket: an abstract Unix socket that is the lock (whoever binds it is the agent, and it dies with its
//! holder), serves the same endpoints as the port, and is how `boathook shutdown` and its like find the agent.
//! Who may call is what the kernel says about the other end: the same user, or root.

use std::{
    env, fmt, fs,
    future::Future,
    io,
    os::{linux::net::SocketAddrExt, unix::fs::MetadataExt, unix::net},
    sync::Arc,
};

use tokio::net::UnixListener;

use crate::server::{
    Agent, Limits,
    guard::{self, Door, Listener},
};

mod client;
mod peer;

pub use client::{Answer, CallError, Joined, call, join_or_lead};
pub use peer::Peer;

/// Overrides the socket's name.
pub const NAME_VARIABLE: &str = "BOATHOOK_SOCKET";

/// The lock: as long as it lives, nobody else can have it.
#[derive(Debug)]
pub struct Lock(net::UnixListener);

/// Why the lock was not to be had.
#[derive(Debug)]
pub enum Taken {
    /// Somebody holds it; `None` when that one ended just now, or does not accept.
    By(Option<Peer>),
    /// The kernel refused.
    Failed(io::Error),
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::By(Some(peer)) if peer.is_trusted() => write!(f, "an agent runs here already: {peer}"),
            Self::By(Some(peer)) => write!(f, "the control socket is held by a stranger: {peer}"),
            Self::By(None) => f.write_str("an agent runs here already"),
            Self::Failed(error) => write!(f, "control socket: {error}"),
        }
    }
}

impl std::error::Error for Taken {}

impl Lock {
    /// Takes the lock.
    ///
    /// # Errors
    /// Somebody else holds it, or the kernel refused.
    pub fn acquire() -> Result<Self, Taken> {
        Self::bind().map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => Taken::By(client::holder()),
            _ => Taken::Failed(error),
        })
    }

    fn bind() -> io::Result<Self> {
        let address = net::SocketAddr::from_abstract_name(name())?;
        net::UnixListener::bind_addr(&address).map(Self)
    }
}

/// Serves the endpoints on the socket until `stop`; hooks that are being waited for then are still answered. The
/// lock is free again when this ends.
///
/// # Errors
/// The runtime does not take the socket.
pub async fn serve<A: Agent>(lock: Lock, stop: impl Future<Output = ()> + Send, agent: Arc<A>) -> io::Result<()> {
    lock.0.set_nonblocking(true)?;
    let listener = Listener::Unix(UnixListener::from_std(lock.0)?);
    guard::attend(Door { listener, rights: None, limits: Limits::socket() }, stop, agent).await;
    Ok(())
}

/// The socket's name in the abstract namespace. That belongs to the network namespace, which all containers of a pod
/// share: the PID namespace tells them apart, and the mount namespace does where they share that one as well.
fn name() -> Vec<u8> {
    if let Some(name) = env::var_os(NAME_VARIABLE).filter(|name| !name.is_empty()) {
        return name.into_encoded_bytes();
    }
    let inode = |kind: &str| fs::metadata(format!("/proc/self/ns/{kind}")).map(|namespace| namespace.ino());
    match (inode("pid"), inode("mnt")) {
        (Ok(pid), Ok(mnt)) => format!("boathook-{pid}-{mnt}").into_bytes(),
        _ => format!("boathook-no-proc-{}", rustix::process::geteuid().as_raw()).into_bytes(),
    }
}
