//! Receives every signal that could be meant for the main process. It has no policy: whoever asks for the next
//! one decides what it means.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{io::Errno, pipe::PipeFlags};
use tokio::net::unix::pipe;

use super::names;
use crate::sys::signal::{self, Caught, RECORD};

/// Not received, as in tini: KILL and STOP cannot be; CHLD is the reaper's; a fault (ILL, TRAP, ABRT, BUS, FPE,
/// SEGV, SYS) is about this very process; TTIN and TTOU say that *it* is in the terminal's background.
const NOT_RECEIVED: [i32; 12] = [
    libc::SIGKILL,
    libc::SIGSTOP,
    libc::SIGCHLD,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGSEGV,
    libc::SIGSYS,
    libc::SIGTTIN,
    libc::SIGTTOU,
];

/// The C library's own: musl refuses 32 to 34, glibc 32 and 33 (their cancellation and set-user-id signals).
const LIBRARY: std::ops::RangeInclusive<i32> = 32..=34;

/// A signal that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// 1 to 64.
    pub signal: i32,
    /// Who sent it; none from the kernel and from outside the PID namespace (the container runtime).
    pub from: Option<i32>,
}

/// Receives signals from [`Signals::install`] on until it is dropped.
pub struct Signals {
    pipe: pipe::Receiver,
    caught: Vec<Caught>,
    /// What the handler writes to: it has to outlive the handler.
    _writer: OwnedFd,
}

/// The signals that [`Signals`] receives.
pub fn forwardable() -> impl Iterator<Item = i32> {
    (1..=names::LAST).filter(|signal| !NOT_RECEIVED.contains(signal) && !LIBRARY.contains(signal))
}

impl Signals {
    /// From now on no forwardable signal has its default effect, and none is lost: up to 8,192 wait in a pipe.
    ///
    /// SIGTTIN and SIGTTOU become blocked for this thread and those it starts later, so that the agent may use the
    /// terminal from the background; whatever other mask was inherited is cleared.
    ///
    /// # Errors
    /// When the kernel refuses the pipe or a handler.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn install() -> io::Result<Self> {
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let caught = signal::catch(forwardable(), writer.as_fd())?;
        let signals = Self { pipe: pipe::Receiver::from_owned_fd(reader)?, caught, _writer: writer };
        signal::block_only(&[libc::SIGTTIN, libc::SIGTTOU]);
        Ok(signals)
    }

    /// The next signal, in the order of their arrival. Safe to drop at any time.
    pub async fn next(&mut self) -> Received {
        loop {
            let mut record = [0; RECORD];
            // Records are written whole (pipe(7): up to 4,096 bytes are atomic), so they are read whole.
            match self.pipe.try_read(&mut record) {
                Ok(RECORD) => {
                    let [a, b, c, d, e, f, g, h] = record;
                    let from = i32::from_ne_bytes([e, f, g, h]);
                    return Received { signal: i32::from_ne_bytes([a, b, c, d]), from: (from > 0).then_some(from) };
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.pipe.readable().await.is_err() {
                        return std::future::pending().await;
                    }
                }
                Err(error) if error.raw_os_error() == Some(Errno::INTR.raw_os_error()) => {}
                // We hold the other end ourselves, so the pipe cannot end.
                Ok(_) | Err(_) => return std::future::pending().await,
            }
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        signal::release(&self.caught);
    }
}
