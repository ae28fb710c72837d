//! The place where a container runs: where the kernel allows it, a network namespace of its own, as a pod has. There a
//! drain sees the pod's connections and no others. Where it is not allowed (a container without user namespaces) the
//! pods share the machine's network on different ports.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::{Child, Command},
    sync::mpsc,
    thread,
    time::Duration,
};

use tokio::sync::oneshot;

use crate::kubelet::Place;

/// On loopback a connect is answered at once; this only bounds the unexpected.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How well pods are kept apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    OwnNetwork,
    SharedNetwork,
}

impl Isolation {
    pub fn describe(self) -> &'static str {
        match self {
            Self::OwnNetwork => "each pod has a network namespace of its own",
            Self::SharedNetwork => {
                "no network namespaces here (neither root nor user namespaces): the pods share the machine's network,\n\
                 so connections of others may lengthen the drain"
            }
        }
    }

    pub fn app_port(self, pod: u16) -> u16 {
        match self {
            Self::OwnNetwork => 8080,
            Self::SharedNetwork => 18080 + pod,
        }
    }

    pub fn hook_port(self, pod: u16) -> u16 {
        match self {
            Self::OwnNetwork => 4665,
            Self::SharedNetwork => 14665 + pod,
        }
    }
}

/// Finds out what the kernel allows. Call it before the first thread starts.
pub fn isolate() -> Isolation {
    // SAFETY: geteuid and getegid only return numbers.
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    if unshare(libc::CLONE_NEWNET) {
        return Isolation::OwnNetwork;
    }
    if !unshare(libc::CLONE_NEWUSER) {
        return Isolation::SharedNetwork;
    }
    // Inside, everybody is nobody until mapped (user_namespaces(7)).
    let mapped = std::fs::write("/proc/self/setgroups", "deny").is_ok()
        && std::fs::write("/proc/self/gid_map", format!("{group} {group} 1")).is_ok()
        && std::fs::write("/proc/self/uid_map", format!("{user} {user} 1")).is_ok();
    if mapped && unshare(libc::CLONE_NEWNET) { Isolation::OwnNetwork } else { Isolation::SharedNetwork }
}

fn unshare(flags: libc::c_int) -> bool {
    // SAFETY: unshare takes no pointers; new network and user namespaces leave memory and files as they are.
    unsafe { libc::unshare(flags) == 0 }
}

/// Brings the calling thread's loopback interface up: in a new namespace it is down.
fn raise_loopback() -> io::Result<()> {
    let any_socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: ifreq is plain data, for which all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&any_socket);
    // SAFETY: SIOCSIFFLAGS reads one ifreq (netdevice(7)), which lives until the call returns.
    match unsafe { libc::ioctl(descriptor, libc::SIOCSIFFLAGS, &raw const request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What a pod's thread is asked to do inside.
enum Errand {
    Start(Box<Command>, oneshot::Sender<io::Result<Child>>),
    Connect(u16, oneshot::Sender<io::Result<TcpStream>>),
}

/// A handle: the namespace lives as long as something is in it.
#[derive(Clone)]
pub struct Pod {
    errands: mpsc::Sender<Errand>,
    pub app_port: u16,
    pub hook_port: u16,
}

impl Pod {
    /// `number` tells pods apart that share a network.
    pub fn create(isolation: Isolation, number: u16) -> Result<Self, String> {
        let (errands, inbox) = mpsc::channel();
        let (ready, is_ready) = mpsc::channel();
        // One thread stays in the namespace: sockets and processes belong to the namespace of the thread that made them.
        thread::spawn(move || {
            let entered = match isolation {
                Isolation::OwnNetwork if unshare(libc::CLONE_NEWNET) => raise_loopback(),
                Isolation::OwnNetwork => Err(io::Error::last_os_error()),
                Isolation::SharedNetwork => Ok(()),
            };
            let usable = entered.is_ok();
            let _ = ready.send(entered);
            if usable {
                for errand in inbox {
                    run_errand(errand);
                }
            }
        });
        match is_ready.recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(format!("network namespace: {error}")),
            Err(_) => return Err("network namespace: its thread ended".into()),
        }
        Ok(Self { errands, app_port: isolation.app_port(number), hook_port: isolation.hook_port(number) })
    }

    fn send(&self, errand: Errand) -> io::Result<()> {
        self.errands.send(errand).map_err(|_| gone())
    }
}

impl Place for Pod {
    async fn start(&self, command: Command) -> io::Result<Child> {
        let (tell, told) = oneshot::channel();
        self.send(Errand::Start(Box::new(command), tell))?;
        told.await.map_err(|_| gone())?
    }

    async fn exec(&self, _main: u32, command: Command) -> io::Result<Child> {
        self.start(command).await
    }

    async fn connect(&self, port: u16) -> io::Result<tokio::net::TcpStream> {
        let (tell, told) = oneshot::channel();
        self.send(Errand::Connect(port, tell))?;
        tokio::net::TcpStream::from_std(told.await.map_err(|_| gone())??)
    }

    fn host(&self) -> String {
        Ipv4Addr::LOCALHOST.to_string()
    }

    fn app_port(&self) -> u16 {
        self.app_port
    }

    fn hook_port(&self) -> u16 {
        self.hook_port
    }
}

fn gone() -> io::Error {
    io::Error::other("the pod's thread ended")
}

fn run_errand(errand: Errand) {
    match errand {
        Errand::Start(mut command, tell) => {
            let _ = tell.send(command.spawn());
        }
        Errand::Connect(port, tell) => {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)
                .and_then(|stream| stream.set_nonblocking(true).map(|()| stream));
            let _ = tell.send(stream);
        }
    }
}
