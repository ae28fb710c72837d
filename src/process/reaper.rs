//! The one owner of waiting. A `waitpid(-1)` loop takes the status of every child, so nobody else can wait beside
//! it: here the statuses of known children are handed to whoever asks, and the rest are orphans, whose statuses
//! nobody wants.
//!
//! The kernel keeps children per process, not per value, so the table of them is one per process too; in tests
//! several reapers may serve it.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    os::unix::net::UnixStream,
    process::Command,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use rustix::process::{Pid, WaitOptions, WaitStatus};
use signal_hook::{SigId, consts::SIGCHLD, low_level};
use tokio::sync::watch;

use super::{ExitStatus, Family, family, find, names, spawn};
use crate::sys::signal;

/// The right to start processes, and the knowledge of those that run. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Processes {
    /// Wakes the reaper; none where no reaper serves.
    wake: Option<Arc<UnixStream>>,
}

/// A process that was started here. Dropping it neither ends the process nor leaves a zombie.
#[derive(Clone, Debug)]
pub struct Child {
    pid: i32,
    state: watch::Receiver<State>,
}

/// What is known of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Running,
    Stopped,
    Ended(ExitStatus),
}

struct Table {
    running: BTreeMap<i32, watch::Sender<State>>,
    /// Spawns under way: their children exist but are not in `running` yet.
    spawning: usize,
    /// A death may have been left unseen because of them.
    deferred: bool,
    orphans: u64,
    /// What the steps that run now have started, by a number of their own.
    families: BTreeMap<u64, Family>,
    next: u64,
}

static TABLE: Mutex<Table> = Mutex::new(Table {
    running: BTreeMap::new(),
    spawning: 0,
    deferred: false,
    orphans: 0,
    families: BTreeMap::new(),
    next: 0,
});

fn table() -> MutexGuard<'static, Table> {
    TABLE.lock().expect("no holder of this lock can panic")
}

impl Processes {
    /// Starts the reaper as a task of the current runtime; it serves until that runtime ends. With `subreaper`
    /// orphaned descendants come to this process instead of PID 1 (prctl(2), `PR_SET_CHILD_SUBREAPER`), if it is
    /// not PID 1 itself.
    ///
    /// Signals that this process was told to ignore stay ignored here, but what it starts gets the default.
    ///
    /// # Errors
    /// When the kernel refuses the socket pair or the signal handler.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn start(subreaper: bool) -> io::Result<Self> {
        let own = rustix::process::getpid();
        if subreaper && own.as_raw_nonzero().get() != 1 {
            rustix::process::set_child_subreaper(Some(own))?;
        }
        for number in 1..=names::LAST {
            // The standard library itself ignores SIGPIPE, and resets it in what it starts.
            if number != libc::SIGPIPE && number != SIGCHLD && signal::is_ignored(number) {
                signal::ignore_here_only(number);
            }
        }
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        let reader = tokio::net::UnixStream::from_std(reader)?;
        let registered = Registered(low_level::pipe::register(SIGCHLD, writer.try_clone()?)?);
        crate::task::spawn(serve(reader, registered));
        // Children may have died before the handler stood; this process may have inherited some through exec.
        let _ = (&writer).write(b"!");
        Ok(Self { wake: Some(Arc::new(writer)) })
    }

    /// Processes that no reaper serves: for steps that start none. Spawning fails.
    pub fn idle() -> Self {
        Self { wake: None }
    }

    /// Starts a command. Blocks until its program runs or could not be started, which takes as long as the file
    /// system takes: under a millisecond, or for ever on a hung network mount.
    ///
    /// # Errors
    /// What `fork` or `exec` reported, unexplained.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        let Some(wake) = &self.wake else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "no reaper is running"));
        };
        // The lock is not held over the spawn, so that a hung one holds neither the reaper nor other spawns.
        // Until it is over the reaper leaves unknown children alone: this one may already have ended, and after a
        // failed exec the standard library waits for the fork itself.
        table().spawning += 1;
        let spawned = signal::with_none_blocked(|| command.spawn());
        let mut table = table();
        table.spawning -= 1;
        let child = spawned.map(|child| {
            // The standard library's Child is dropped without a wait: the reaper does that.
            let pid = child.id().cast_signed();
            let (sender, state) = watch::channel(State::Running);
            table.running.insert(pid, sender);
            Child { pid, state }
        });
        if table.spawning == 0 && std::mem::take(&mut table.deferred) {
            let _ = wake.as_ref().write(b"!");
        }
        child
    }

    /// As [`Processes::spawn`], for a caller that may be given up: until its program runs, the new process has neither
    /// mark nor group, and nothing would end it if that program is on a mount that hangs. `birth` can.
    ///
    /// # Errors
    /// As [`Processes::spawn`], and `Interrupted` when the birth was given up before.
    pub fn spawn_for(&self, birth: &Birth, command: &mut Command) -> io::Result<Child> {
        birth.begin()?;
        let child = self.spawn(command);
        birth.end();
        child
    }

    /// Orphans reaped so far.
    pub fn orphans(&self) -> u64 {
        table().orphans
    }

    /// How many commands of steps run now.
    pub fn running_steps(&self) -> usize {
        running_steps()
    }

    /// Kills whatever the running steps have started, at once: for an agent that is about to exit without
    /// dropping its hooks.
    pub fn end_steps(&self) {
        let families: Vec<_> = table().families.values().cloned().collect();
        family::kill(families);
    }
}

/// How many commands of steps run now.
pub fn running_steps() -> usize {
    table().families.len()
}

/// Notes what a running step has started; the number takes it off the list again.
pub(super) fn note_family(family: Family) -> u64 {
    let mut table = table();
    table.next += 1;
    let number = table.next;
    table.families.insert(number, family);
    number
}

pub(super) fn forget_family(number: u64) {
    table().families.remove(&number);
}

impl Child {
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits until the process has ended. Many may wait, also after the end.
    pub async fn wait(&self) -> ExitStatus {
        let mut state = self.state.clone();
        let ended = state.wait_for(|state| matches!(state, State::Ended(_))).await;
        match ended.as_deref() {
            Ok(State::Ended(status)) => *status,
            // Only if somebody else waited for our child, which nothing in this program does.
            _ => ExitStatus::Code(spawn::CODE_UNKNOWN),
        }
    }

    /// How it ended; none while it runs.
    pub fn status(&self) -> Option<ExitStatus> {
        match *self.state.borrow() {
            State::Ended(status) => Some(status),
            _ => None,
        }
    }

    pub(super) fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Sends a signal. The pid cannot belong to another process meanwhile, because a child stays a zombie until
    /// the reaper has taken it off the table, and the table is locked here.
    ///
    /// # Errors
    /// `ESRCH` when it has ended.
    pub fn signal(&self, number: i32) -> io::Result<()> {
        let table = table();
        if !table.running.contains_key(&self.pid) {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        signal::send(self.pid, number)
    }
}

/// A process that is being started by another thread and can be given up meanwhile. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Birth(Arc<Mutex<Stage>>);

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Before,
    /// By the thread of this id.
    Under(i32),
    Over,
    GivenUp,
}

/// How long giving up looks for a process that is about to be forked: that takes microseconds, and some milliseconds
/// where there is much memory to map.
const LONGEST_FORK: Duration = Duration::from_millis(25);

impl Birth {
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.0.lock().expect("no holder of this lock can panic")
    }

    fn begin(&self) -> io::Result<()> {
        let mut stage = self.stage();
        if matches!(*stage, Stage::GivenUp) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        *stage = Stage::Under(rustix::thread::gettid().as_raw_nonzero().get());
        Ok(())
    }

    fn end(&self) {
        *self.stage() = Stage::Over;
    }

    /// Nothing is born of it any more, or it is killed in the middle.
    pub fn give_up(&self) {
        let until = Instant::now() + LONGEST_FORK;
        loop {
            let mut stage = self.stage();
            let Stage::Under(thread) = *stage else {
                if matches!(*stage, Stage::Before) {
                    *stage = Stage::GivenUp;
                }
                return;
            };
            // The stage stays locked, so that the thread cannot go on to start something else meanwhile. Of its
            // children only this one is not known yet.
            let known = table();
            let unborn: Vec<i32> =
                find::children(thread).into_iter().filter(|pid| !known.running.contains_key(pid)).collect();
            for pid in &unborn {
                let _ = signal::send(*pid, libc::SIGKILL);
            }
            drop(known);
            drop(stage);
            if !unborn.is_empty() || Instant::now() >= until {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Takes the handler away when the runtime ends the task.
struct Registered(SigId);

impl Drop for Registered {
    fn drop(&mut self) {
        low_level::unregister(self.0);
    }
}

async fn serve(reader: tokio::net::UnixStream, _registered: Registered) {
    loop {
        if reader.readable().await.is_err() {
            return;
        }
        // One SIGCHLD may stand for many deaths (signals do not queue), and many bytes for none.
        while reader.try_read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
        let before = table().orphans;
        while reap() {
            tokio::task::yield_now().await;
        }
        let orphans = table().orphans - before;
        if orphans > 0 {
            tracing::debug!(count = orphans, "orphans reaped");
        }
    }
}

/// Statuses taken in one go: one takes about 10 us, so that timers are not a millisecond late for them.
const MOST_AT_ONCE: usize = 64;

/// Takes the statuses there are; whether there may be more. Not all in one go: processes may end faster than their
/// statuses can be taken, for as long as a step lets them, and nothing else runs meanwhile.
fn reap() -> bool {
    let table = &mut *table();
    // UNTRACED: a main process that is stopped at a terminal must not hang there.
    let options = WaitOptions::NOHANG | WaitOptions::UNTRACED;
    if table.spawning > 0 {
        table.deferred = true;
        let known: Vec<i32> = table.running.keys().copied().collect();
        for pid in known {
            if let Ok(Some((_, status))) = rustix::process::waitpid(Pid::from_raw(pid), options) {
                settle(table, pid, status);
            }
        }
        return false;
    }
    for _ in 0..MOST_AT_ONCE {
        match rustix::process::wait(options) {
            Ok(Some((pid, status))) => settle(table, pid.as_raw_nonzero().get(), status),
            Err(rustix::io::Errno::INTR) => {}
            // Nobody has ended, or there is no child at all (ECHILD).
            Ok(None) | Err(_) => return false,
        }
    }
    true
}

fn settle(table: &mut Table, pid: i32, status: WaitStatus) {
    let ended = match (status.exit_status(), status.terminating_signal()) {
        // An exit status has eight bits (wait(2)).
        (Some(code), _) => ExitStatus::Code(code as u8),
        (None, Some(signal)) => ExitStatus::Signal(signal),
        (None, None) => {
            if let Some(sender) = table.running.get(&pid) {
                sender.send_replace(State::Stopped);
            }
            return;
        }
    };
    match table.running.remove(&pid) {
        Some(sender) => {
            sender.send_replace(State::Ended(ended));
        }
        None => table.orphans += 1,
    }
}
