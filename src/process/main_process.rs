//! What `boathook run` started: the program that the container is for. Nothing stands between it and its stdin,
//! stdout, stderr and terminal.

use std::{
    ffi::OsString,
    io,
    io::IsTerminal,
    os::{fd::BorrowedFd, unix::process::CommandExt},
    process::Command,
};

use rustix::{process::Pid, termios};

use super::{Child, ExitStatus, Processes, SpawnError, reaper::State, spawn};
use crate::sys::{child, signal};

/// The main process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MainProcess(Child);

impl MainProcess {
    /// Starts `command` with this process's environment, directory and stdin, stdout and stderr.
    ///
    /// It gets a process group of its own (a script's `kill 0` is not meant for the agent), and the terminal if
    /// stdin is one and was ours; its signals have their default effect and none is blocked.
    ///
    /// # Errors
    /// With the text for the user and the exit code that a shell would give: 126 or 127.
    pub fn start(command: &[OsString], processes: &Processes) -> Result<Self, SpawnError> {
        let Some((program, arguments)) = command.split_first() else {
            return Err(SpawnError::not_found("no command is given"));
        };
        let mut starting = Command::new(program);
        starting.args(arguments).process_group(0);
        let terminal = has_terminal();
        if terminal {
            child::take_terminal(&mut starting);
        }
        let child =
            processes.spawn(&mut starting).map_err(|error| spawn::explain(&error, program, None, None, None))?;
        if terminal {
            crate::task::spawn(control_job(child.clone()));
        }
        Ok(Self(child))
    }

    pub fn pid(&self) -> i32 {
        self.0.pid()
    }

    /// Waits until it has ended. Many may wait, also after the end.
    pub async fn wait(&self) -> ExitStatus {
        self.0.wait().await
    }

    /// How it ended; none while it runs.
    pub fn status(&self) -> Option<ExitStatus> {
        self.0.status()
    }

    /// Sends it a signal, 1 to 64.
    ///
    /// # Errors
    /// `ESRCH` when it has ended.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        self.0.signal(signal)
    }
}

fn stdin() -> BorrowedFd<'static> {
    rustix::stdio::stdin()
}

/// Whether stdin is a terminal whose foreground is ours to give. PID 1 may see a foreground group of 0, one from
/// outside its namespace.
fn has_terminal() -> bool {
    if !io::stdin().is_terminal() {
        return false;
    }
    let own = rustix::process::getpgrp();
    termios::tcgetpgrp(stdin()).map_or_else(|_| is_init(), |group| group == own || is_init())
}

fn is_init() -> bool {
    rustix::process::getpid() == Pid::INIT
}

fn give_terminal(group: Pid) {
    let _ = signal::without_sigttou(|| termios::tcsetpgrp(stdin(), group));
}

/// The shell's part for one job: Ctrl-Z stops the main process's group, and whoever started us waits for *us*. So
/// we stop too, and go on together. As PID 1 there is nobody who could continue us; without an agent the kernel
/// would have ignored that Ctrl-Z (a process group without a parent in its session does not stop: setpgid(2)), so
/// the main process goes on at once.
async fn control_job(child: Child) {
    let Some(group) = Pid::from_raw(child.pid()) else { return };
    let own = rustix::process::getpgrp();
    let mut state = child.state();
    loop {
        let now = *state.borrow_and_update();
        match now {
            State::Running => {}
            State::Stopped => {
                if !is_init() {
                    give_terminal(own);
                    // The whole job, as Ctrl-Z would have: a pipeline's other members too. Returns once continued.
                    let _ = signal::send_group(own.as_raw_nonzero().get(), libc::SIGSTOP);
                    // In the background (`bg`) the terminal stays with the shell.
                    if termios::tcgetpgrp(stdin()).is_ok_and(|foreground| foreground == own) {
                        give_terminal(group);
                    }
                }
                let _ = signal::send_group(child.pid(), libc::SIGCONT);
            }
            State::Ended(_) => {
                // What comes after us in the same job may read from the terminal again.
                if termios::tcgetpgrp(stdin()).is_ok_and(|foreground| foreground == group) {
                    give_terminal(own);
                }
                return;
            }
        }
        if state.changed().await.is_err() {
            return;
        }
    }
}
