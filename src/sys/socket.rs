//! What the kernel keeps of a connection's outgoing bytes.

use std::os::fd::{AsFd, AsRawFd};

/// Bounds what the kernel takes before it has been sent: without it, megabytes vanish in the socket's buffer at once,
/// and whether the other side takes them cannot be seen (tcp(7): `TCP_NOTSENT_LOWAT`). Where the kernel refuses, all
/// goes on without it.
pub fn limit_unsent(socket: &impl AsFd, bytes: u32) {
    let value = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    let size = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(4);
    // SAFETY: the descriptor is borrowed for the call, and the kernel reads `size` bytes of an int that lives longer.
    unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            (&raw const value).cast(),
            size,
        );
    }
}
