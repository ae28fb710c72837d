//! What has to happen in the child between fork and exec and has no safe door in the standard library: becoming
//! another user with that user's groups, and taking the terminal. Only system calls, no allocation.

use std::{io, os::unix::process::CommandExt, process::Command};

use super::signal::without_sigttou;

/// The child becomes this user. The standard library's own `uid()` drops all supplementary groups, and a hook
/// that is run as `www-data` expects that user's groups, as with su(1).
pub fn become_user(command: &mut Command, uid: u32, gid: u32, groups: Vec<u32>) {
    // SAFETY: between fork and exec only three system calls run; the list was allocated before the fork.
    unsafe {
        command.pre_exec(move || {
            check(libc::setgroups(groups.len(), groups.as_ptr()))?;
            check(libc::setgid(gid))?;
            check(libc::setuid(uid))
        });
    }
}

/// The child makes its own process group, which the caller has asked for with `process_group(0)`, the
/// foreground group of the terminal on stdin, before the program can read from it.
pub fn take_terminal(command: &mut Command) {
    // SAFETY: between fork and exec only sigprocmask, getpid and tcsetpgrp run, all async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            // A terminal that is not the session's controlling one cannot be taken (ENOTTY), and need not be.
            without_sigttou(|| libc::tcsetpgrp(0, libc::getpid()));
            Ok(())
        });
    }
}

fn check(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
