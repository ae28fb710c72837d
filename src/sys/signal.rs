//! Signals as the kernel has them: numbers 1 to 64, sent, caught with their sender, blocked. Safe packages know
//! the named ones only, and the real-time signals matter too (`SIGRTMIN+3` stops systemd).

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    sync::atomic::{AtomicI32, Ordering},
};

/// Bytes that one caught signal takes in the pipe: its number and its sender's pid, four bytes each.
pub const RECORD: usize = 8;

/// Sends `signal` to one process; signal 0 only asks whether that would be possible.
///
/// # Errors
/// `ESRCH` when there is no such process, `EPERM` when it belongs to somebody else.
pub fn send(pid: i32, signal: i32) -> io::Result<()> {
    // 0 and negative numbers mean whole groups to kill(2): that is never meant here.
    if pid <= 0 {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: kill takes two numbers and touches no memory of ours.
    check(unsafe { libc::kill(pid, signal) })
}

/// Sends `signal` to every process of a group.
///
/// # Errors
/// `ESRCH` when the group is empty, `EPERM` when none of its processes may be signalled.
pub fn send_group(group: i32, signal: i32) -> io::Result<()> {
    // kill(2): -1 is everybody, 0 and -0 are our own group.
    if group <= 1 {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: kill takes two numbers and touches no memory of ours.
    check(unsafe { libc::kill(-group, signal) })
}

/// Where caught signals are written, and our own pid: what the handler knows. A handler can be given nothing else.
static PIPE: AtomicI32 = AtomicI32::new(-1);
static OWN_PID: AtomicI32 = AtomicI32::new(0);

/// What a signal did before it was caught; for [`release`].
pub struct Caught {
    signal: i32,
    before: libc::sigaction,
}

/// From now on each of `signals` that arrives is written to `pipe` as a [`RECORD`], in the machine's byte order. The
/// pipe must not block and must stay open until [`release`]; what does not fit is lost, as it would be in the kernel's
/// own queue. There is one such pipe a process: a later one takes over.
///
/// A handler of our own, because a registry that several users share copies itself for each signal, which for all of
/// them costs more than the rest of the start.
///
/// # Errors
/// `EINVAL` for signals that the C library keeps for itself.
pub fn catch(signals: impl Iterator<Item = i32>, pipe: BorrowedFd<'_>) -> io::Result<Vec<Caught>> {
    OWN_PID.store(rustix::process::getpid().as_raw_nonzero().get(), Ordering::Relaxed);
    PIPE.store(pipe.as_raw_fd(), Ordering::Release);
    let mut caught = Vec::with_capacity(64);
    for signal in signals {
        // SAFETY: an all-zero sigaction is valid: no flags, an empty mask.
        let (mut action, mut before) = unsafe { (std::mem::zeroed::<libc::sigaction>(), std::mem::zeroed()) };
        action.sa_sigaction = on_signal as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        // SAFETY: both point to sigactions that live during the call; the handler is async-signal-safe.
        check(unsafe { libc::sigaction(signal, &raw const action, &raw mut before) })?;
        caught.push(Caught { signal, before });
    }
    Ok(caught)
}

/// Lets caught signals do again what they did before.
pub fn release(caught: &[Caught]) {
    for Caught { signal, before } in caught {
        // SAFETY: `before` is what the kernel gave us for this signal.
        unsafe { libc::sigaction(*signal, before, std::ptr::null_mut()) };
    }
    PIPE.store(-1, Ordering::Release);
}

/// Writes the signal and its sender to the pipe. Only async-signal-safe calls, no panic, errno put back.
extern "C" fn on_signal(signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a valid siginfo.
    let info = unsafe { &*info };
    let from = match info.si_code {
        // SAFETY: the kernel fills si_pid for signals sent by kill, tgkill and sigqueue (sigaction(2)).
        libc::SI_USER | libc::SI_TKILL | libc::SI_QUEUE => unsafe { info.si_pid() },
        _ => 0,
    };
    // The agent's own write to a closed pipe raises SIGPIPE with our pid as the sender: nobody's message.
    if signal == libc::SIGPIPE && from == OWN_PID.load(Ordering::Relaxed) {
        return;
    }
    let mut record = [0; RECORD];
    record[..4].copy_from_slice(&signal.to_ne_bytes());
    record[4..].copy_from_slice(&from.to_ne_bytes());
    // SAFETY: write is async-signal-safe and the buffer lives on this stack; a pipe that is gone only gives an error.
    // errno is the interrupted code's and is put back.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        libc::write(PIPE.load(Ordering::Acquire), record.as_ptr().cast(), RECORD);
        *errno = before;
    }
}

/// Whether `signal` is ignored by this process.
pub fn is_ignored(signal: i32) -> bool {
    // SAFETY: an all-zero sigaction is a valid value to be overwritten, and a null new action only asks.
    unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut old) == 0 && old.sa_sigaction == libc::SIG_IGN
    }
}

/// Catches an ignored signal with a handler that does nothing: this process goes on ignoring it, but what it
/// starts does not inherit that, because exec resets caught signals only (execve(2)).
pub fn ignore_here_only(signal: i32) {
    // SAFETY: an empty action is async-signal-safe.
    let _ = unsafe { signal_hook_registry::register(signal, || ()) };
}

/// Makes `signals`, and no other, blocked for this thread and those it starts.
pub fn block_only(signals: &[i32]) {
    change_mask(libc::SIG_SETMASK, signals);
}

/// Runs `action` with no signal blocked in this thread: what is started meanwhile inherits that (the standard
/// library passes the mask on as it is).
pub fn with_none_blocked<T>(action: impl FnOnce() -> T) -> T {
    let before = change_mask(libc::SIG_SETMASK, &[]);
    let result = action();
    restore_mask(&before);
    result
}

/// Runs `action` without the terminal's complaint about a background process. Async-signal-safe if `action` is.
pub fn without_sigttou<T>(action: impl FnOnce() -> T) -> T {
    let before = change_mask(libc::SIG_BLOCK, &[libc::SIGTTOU]);
    let result = action();
    restore_mask(&before);
    result
}

fn change_mask(how: i32, signals: &[i32]) -> libc::sigset_t {
    // SAFETY: both sets live on this stack; sigemptyset and the kernel initialise them, and zero is valid anyway.
    unsafe {
        let mut old: libc::sigset_t = std::mem::zeroed();
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for &signal in signals {
            libc::sigaddset(&mut set, signal);
        }
        libc::pthread_sigmask(how, &set, &mut old);
        old
    }
}

fn restore_mask(mask: &libc::sigset_t) {
    // SAFETY: the set came from pthread_sigmask.
    unsafe {
        libc::pthread_sigmask(libc::SIG_SETMASK, mask, std::ptr::null_mut());
    }
}

fn check(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
