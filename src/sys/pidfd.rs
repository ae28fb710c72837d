//! Waiting for a descriptor that tokio has no type for.

use std::{io, os::fd::OwnedFd};

use tokio::io::unix::AsyncFd;

/// Lets the runtime watch `fd`, such as a pidfd.
///
/// # Errors
/// When epoll does not take it.
///
/// # Panics
/// Outside a tokio runtime with I/O enabled.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open for as long as it lives, always gives the same number, and is given away here.
    unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)
}
