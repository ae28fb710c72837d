//! The kernel's namespaces: all `unsafe` of the benchmark. Each function works on the calling thread alone, so what
//! must not change the whole program is called on a thread of its own.

use std::{
    ffi::{CStr, CString},
    fs::File,
    io,
    os::{
        fd::AsRawFd,
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    path::Path,
    process::Command,
};

/// The calling thread, as `/proc` names it.
pub fn thread_id() -> libc::pid_t {
    // SAFETY: gettid only returns a number.
    unsafe { libc::gettid() }
}

/// The calling thread, and what it starts from now on, has a network of its own.
pub fn own_network() -> io::Result<()> {
    unshare(libc::CLONE_NEWNET)
}

/// What the calling thread starts next is the first process of a new PID namespace, and sees no mounts of others.
pub fn own_processes() -> io::Result<()> {
    unshare(libc::CLONE_NEWPID | libc::CLONE_NEWNS)
}

/// What the calling thread starts next is in the namespaces of that process.
pub fn enter(process: u32) -> io::Result<()> {
    let open = |kind: &str| File::open(format!("/proc/{process}/ns/{kind}"));
    // All are opened before the first is entered: then /proc is another.
    let namespaces = [open("net")?, open("pid")?, open("mnt")?];
    // Mounts can only be changed by a thread that shares no file system state (setns(2)).
    unshare(libc::CLONE_FS)?;
    for namespace in namespaces {
        // SAFETY: setns takes no pointers; the descriptor is open.
        check(unsafe { libc::setns(namespace.as_raw_fd(), 0) })?;
    }
    Ok(())
}

/// Shows a folder at another place as well, in this process's mount namespace.
pub fn bind(folder: &Path, at: &Path) -> io::Result<()> {
    let [folder, at] = [folder, at].map(|path| CString::new(path.as_os_str().as_bytes()));
    mount(&folder?, &at?, c"", libc::MS_BIND)
}

/// Gives the command, which is to run in new PID and mount namespaces, a /proc of its own and an empty /run.
pub fn with_own_mounts(command: &mut Command) {
    let mount_own = || {
        mount(c"proc", c"/proc", c"proc", 0)?;
        mount(c"tmpfs", c"/run", c"tmpfs", 0)
    };
    // SAFETY: between fork and exec the closure only makes system calls; it neither allocates nor locks.
    unsafe { command.pre_exec(mount_own) };
}

/// The command is killed when the thread that starts it ends, so also when this program is killed.
pub fn end_with_parent(command: &mut Command) {
    let ask_for_signal = || {
        // SAFETY: PR_SET_PDEATHSIG takes a number.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })
    };
    // SAFETY: between fork and exec the closure makes one system call.
    unsafe { command.pre_exec(ask_for_signal) };
}

pub fn is_root() -> bool {
    // SAFETY: geteuid only returns a number.
    unsafe { libc::geteuid() == 0 }
}

fn mount(what: &CStr, at: &CStr, kind: &CStr, flags: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the strings end with a zero and outlive the call; without data mount(2) reads nothing else.
    check(unsafe { libc::mount(what.as_ptr(), at.as_ptr(), kind.as_ptr(), flags, std::ptr::null()) })
}

fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: unshare takes no pointers; namespaces leave memory and open files as they are.
    check(unsafe { libc::unshare(flags) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
