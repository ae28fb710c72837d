//! Who holds the other end of a Unix socket, as the kernel knows it.

use std::{
    fmt, io,
    mem::size_of,
    os::fd::{AsFd, AsRawFd},
};

use rustix::process::geteuid;

/// The process at the other end: who connected, or who listened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// In our PID namespace; 0 for a process that is not in it.
    pub pid: i32,
    /// In our user namespace.
    pub uid: u32,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {}, uid {}", self.pid, self.uid)
    }
}

impl Peer {
    /// Reads it off the socket.
    ///
    /// # Errors
    /// Not a Unix socket, or not connected.
    pub fn of(socket: impl AsFd) -> io::Result<Self> {
        // Not rustix: its `Pid` cannot be 0, which is what the kernel says of a process outside our namespace.
        let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
        let mut length = size_of::<libc::ucred>() as libc::socklen_t;
        // SAFETY: the descriptor is open for as long as `socket` is borrowed, and the kernel writes at most `length`
        // bytes to `credentials`, which is a plain struct of integers of that size.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut credentials).cast(),
                &raw mut length,
            )
        };
        match result {
            0 => Ok(Self { pid: credentials.pid, uid: credentials.uid }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// We may believe it, as a caller and as an agent: it is the same user or root, and a process that we can see.
    /// An abstract name is open to every process in the pod's network namespace, so this is the only bar. It holds
    /// for root too: where an application's workers have a lesser user, one of them could have taken the name
    /// before root's hook came, and answered for it.
    pub fn is_trusted(self) -> bool {
        may(self, self.uid, geteuid().as_raw())
    }

    /// Root may believe an agent of another user where that agent is PID 1: the container's own entrypoint, whose user
    /// the container was given (`docker exec -u 0 … boathook status`). Nobody can take PID 1's place.
    pub(super) fn is_entrypoint_for_root(self) -> bool {
        self.pid == 1 && geteuid().is_root()
    }

    /// As an agent, it will let us call it.
    pub(super) fn admits_us(self) -> bool {
        may(self, geteuid().as_raw(), self.uid)
    }
}

/// Whether `caller` may call what runs as `agent`, with the peer in sight.
fn may(peer: Peer, caller: u32, agent: u32) -> bool {
    peer.pid != 0 && (caller == agent || caller == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_user_and_root() {
        for (pid, caller, agent, expected) in [
            (7, 1000, 1000, true),
            (7, 0, 1000, true),
            (7, 0, 0, true),
            (7, 1000, 0, false),
            (7, 1000, 1001, false),
            (0, 1000, 1000, false),
            (0, 0, 0, false),
        ] {
            assert_eq!(may(Peer { pid, uid: caller }, caller, agent), expected, "{pid} {caller} {agent}");
        }
    }

    #[test]
    fn the_kernel_tells_who_is_there() {
        let (one, _two) = std::os::unix::net::UnixStream::pair().unwrap();
        let own = Peer { pid: std::process::id().cast_signed(), uid: geteuid().as_raw() };
        assert_eq!(Peer::of(&one).unwrap(), own);
    }
}
