//! `signal`: sends a signal to the main process, to the process of a pid file or to a process by its name, and
//! waits until it has ended if asked.

use std::{
    fmt, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags};

use super::{Context, End, Kind, drain::Drain};
use crate::{
    keys::{Error, Node, Read, Shape, keys},
    problem::Scope,
    process::{find, name_of_signal, signal_by_name},
    sys::{self, file},
};

/// A pid has at most 7 digits (`/proc/sys/kernel/pid_max` is at most 4,194,304); some servers write more lines.
const PID_FILE_LIMIT: usize = 64;
/// Without pidfds (before Linux 5.3, and in some sandboxes) the end of a process can only be polled for.
const POLL: Duration = Duration::from_millis(20);
/// A server takes this long to close what is idle, on a machine that is busy: before that nothing is concluded from what is
/// still open.
const NOTICED: Duration = Duration::from_millis(500);
/// How many pids a message lists.
const LISTED: usize = 5;

keys! {
    /// The step as typed: `signal = "QUIT"` or `signal = { signal = "QUIT", pid-file = "/run/nginx.pid", wait = true }`.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Typed {
        /// The signal: QUIT, SIGQUIT, 3 or RTMIN+3
        signal: Option<Name> = OneOr("SIGNAL", TERM),
        /// To whom: only "main", the process that the container is for, which is also the default
        to: Option<String> = One("main"),
        /// To the process whose pid stands in this file
        pid_file: Option<PathBuf> = One("FILE"),
        /// To the process of this name
        process: Option<String> = One("NAME"),
        /// Wait until the process has ended
        wait: bool = Switch,
        /// Or until nothing is in flight on the application's ports any more, should it go on for connections that nobody uses
        or_drained: bool = Switch,
    }
    impl {
        fn short(&mut self, value: Node<'_>) -> Result<bool, Error> {
            if matches!(value.shape()?, Shape::Text(_) | Shape::Integer(_)) {
                self.signal = Some(Name::read(value)?);
                return Ok(true);
            }
            Ok(false)
        }
        fn expected(&self) -> &'static str {
            "a signal such as \"QUIT\", or a table with `signal`"
        }
    }
}

/// What kill(1) sends too.
const TERM: &str = "TERM";

/// A signal's name or number.
#[derive(Clone, Debug, PartialEq)]
struct Name(String);

impl Read for Name {
    fn read(value: Node<'_>) -> Result<Self, Error> {
        Ok(Name(value.text_or_number("a signal such as \"QUIT\" or 3")?.into_owned()))
    }
}

/// The step as meant.
#[derive(Clone, Debug)]
pub struct Signal {
    signal: i32,
    to: Target,
    wait: bool,
    or_drained: Option<Drain>,
}

#[derive(Clone, Debug, PartialEq)]
enum Target {
    Main,
    PidFile(PathBuf),
    Process(String),
}

impl Signal {
    /// It is for the main process, which boathook has started itself or takes PID 1 for.
    pub fn is_for_main_process(&self) -> bool {
        self.to == Target::Main
    }
}

impl Kind for Signal {
    type Typed = Typed;

    fn mean(typed: Typed, scope: &mut Scope<'_>) -> Option<Self> {
        let before = scope.problems.len();
        let name = typed.signal.map_or_else(|| TERM.to_owned(), |Name(name)| name);
        let signal = signal_by_name(&name);
        if signal.is_none() {
            let help = "write a name such as \"QUIT\" or \"RTMIN+3\", or a number from 1 to 64".to_owned();
            scope.problem("signal", format!("`{name}` is not a signal"), help);
        }
        if let Some(to) = typed.to.as_deref().filter(|to| *to != "main") {
            let help = "write \"main\", or use pid-file or process instead of it".to_owned();
            scope.problem("to", format!("`{to}` is not known"), help);
        }
        if u8::from(typed.to.is_some()) + u8::from(typed.pid_file.is_some()) + u8::from(typed.process.is_some()) > 1 {
            scope.problem("", "to, pid-file and process exclude each other", "keep one of them".to_owned());
        }
        if typed.process.as_ref().is_some_and(|name| name.is_empty() || name.contains('/')) {
            scope.problem("process", "it is not a name", "write the program's name without its folder".to_owned());
        }
        let to = match (typed.pid_file, typed.process) {
            (Some(path), _) => Target::PidFile(path),
            (None, Some(name)) => Target::Process(name),
            (None, None) => Target::Main,
        };
        let or_drained = typed.or_drained.then(|| Drain::in_flight_alone(scope)).flatten();
        let signal = signal.filter(|_| scope.problems.len() == before)?;
        Some(Self { signal, to, wait: typed.wait || or_drained.is_some(), or_drained })
    }

    async fn run(&self, context: &Context) -> End {
        // After the signal nothing may listen any more.
        let drain = self.or_drained.as_ref().and_then(|drain| drain.with_ports_of_now(context));
        let (signal, to, main) = (self.signal, self.to.clone(), context.main_process);
        // Files and /proc may hang; if so, only this thread does.
        let sent = crate::task::blocking(move || send(signal, &to, main)).await;
        let sent = match sent {
            Ok(Ok(sent)) => sent,
            Ok(Err(NotSent::Gone(text))) if self.wait => return End::Done(text),
            Ok(Err(NotSent::Gone(text) | NotSent::Failed(text))) => return End::Failed(text),
            Err(_) => return End::Failed("the agent is ending".into()),
        };
        let name = name_of_signal(self.signal);
        if !self.wait {
            return End::Done(format!("{name} sent to pid {}", sent.pid));
        }
        let goes_on = format!("pid {} has not ended after {name}", sent.pid);
        context.progress.set(&goes_on);
        let Some(drain) = drain else { return wait_for_end(sent).await };
        let drained = async {
            tokio::time::sleep(NOTICED).await;
            drain.run(context).await
        };
        tokio::select! {
            biased;
            ended = wait_for_end(sent) => ended,
            drained = drained => match drained {
                End::Done(what) => End::Done(format!("{goes_on}, but nothing is in flight: {what}")),
                other => other,
            },
        }
    }
}

impl Signal {
    /// Whether the main process gets this signal, and nothing is in flight any more when the step has succeeded.
    pub fn drains_main(&self, signal: i32) -> bool {
        self.signal == signal && self.to == Target::Main && self.or_drained.is_some()
    }
}

/// The process that got the signal.
struct Sent {
    pid: i32,
    /// Stands for this very process, whatever its pid is used for later; none where the kernel has no pidfds.
    fd: Option<OwnedFd>,
    /// When it started: tells it from a later one with its pid where there is no pidfd.
    started: Option<u64>,
}

enum NotSent {
    /// There is no such process any more.
    Gone(String),
    Failed(String),
}

fn send(signal: i32, to: &Target, main: Option<i32>) -> Result<Sent, NotSent> {
    let (pid, what) = match to {
        Target::Main => {
            let pid = main.ok_or_else(|| NotSent::Failed("there is no main process".into()))?;
            (pid, "the main process".to_owned())
        }
        Target::PidFile(path) => read_pid_file(path)?,
        Target::Process(name) => (find_process(name)?, name.clone()),
    };
    if pid == rustix::process::getpid().as_raw_nonzero().get() {
        return Err(NotSent::Failed(format!("{what}: pid {pid} is boathook itself")));
    }
    let gone = || NotSent::Gone(format!("{what}: pid {pid} is already gone"));
    // First the pidfd, then the look, then the signal: so all three are about the same process.
    let fd = Pid::from_raw(pid).and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok());
    let stat = find::read_stat(pid);
    if !find::is_running(pid) {
        return Err(gone());
    }
    // With shareProcessNamespace PID 1 is the pod's own, and the pod ends with it.
    if let (Target::Main, 1, Some(stat)) = (to, pid, &stat)
        && stat.name == "pause"
    {
        let help = "containers share their processes here: name the main one by process or pid-file";
        return Err(NotSent::Failed(format!("{what}: pid 1 is the pod's pause container; {help}")));
    }
    if let (Target::Process(name), Some(stat)) = (to, &stat)
        && !find::is_called(pid, stat, name)
    {
        return Err(gone());
    }
    match sys::signal::send(pid, signal) {
        Ok(()) => Ok(Sent { pid, fd, started: stat.map(|stat| stat.started) }),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(gone()),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Err(NotSent::Failed(format!(
            "{what}: pid {pid}: not permitted to send {} as uid {}",
            name_of_signal(signal),
            rustix::process::geteuid().as_raw()
        ))),
        Err(error) => Err(NotSent::Failed(format!("{what}: pid {pid}: {error}"))),
    }
}

fn read_pid_file(path: &Path) -> Result<(i32, String), NotSent> {
    let what = path.display().to_string();
    let failed = |why: &dyn fmt::Display| NotSent::Failed(format!("{what}: {why}"));
    let bytes = match file::read_small_regular(path, PID_FILE_LIMIT) {
        Ok(bytes) => bytes,
        // Servers remove their pid file when they end.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(NotSent::Gone(format!("{what}: there is no such file")));
        }
        Err(error) => return Err(failed(&error)),
    };
    let text = String::from_utf8_lossy(&bytes);
    // Some servers write more lines after the pid.
    let first = text.split_whitespace().next().unwrap_or_default();
    match first.parse() {
        Ok(pid) if pid > 0 => Ok((pid, what)),
        _ => Err(failed(&format_args!("`{}` is not a pid", first.escape_default()))),
    }
}

fn find_process(name: &str) -> Result<i32, NotSent> {
    let found = find::by_name(name);
    match found[..] {
        [] => Err(NotSent::Gone(format!("{name}: there is no process of this name that may be signalled"))),
        [pid] => Ok(pid),
        _ => {
            let pids: Vec<_> = found.iter().take(LISTED).map(i32::to_string).collect();
            let more = if found.len() > LISTED { ", …" } else { "" };
            Err(NotSent::Failed(format!(
                "{name}: {} processes have this name (pids {}{more}): use pid-file",
                found.len(),
                pids.join(", ")
            )))
        }
    }
}

async fn wait_for_end(sent: Sent) -> End {
    let done = End::Done(format!("pid {} has ended", sent.pid));
    // A pidfd becomes readable when its process ends, also before somebody has waited for it (pidfd_open(2)):
    // the status stays with the reaper.
    if let Some(Ok(fd)) = sent.fd.map(sys::pidfd::watch)
        && fd.readable().await.is_ok()
    {
        return done;
    }
    while find::is_running(sent.pid)
        && sent.started.is_none_or(|started| find::read_stat(sent.pid).is_none_or(|stat| stat.started == started))
    {
        tokio::time::sleep(POLL).await;
    }
    done
}
