//! The log: one line per change of phase or step, on the container's own log, and nothing that hangs. A log driver that
//! stops reading must not stop a hook, so lines that cannot be written at once are dropped and counted; and no secret
//! gets through, because every line passes here.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{FileTypeExt, OpenOptionsExt},
    },
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
};
use tracing::{
    Metadata, Subscriber,
    field::{Field, Visit},
    subscriber::Interest,
};
use tracing_subscriber::{
    Layer,
    filter::LevelFilter,
    fmt::{
        MakeWriter,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::{
    config::{LogConfig, LogFormat},
    redact::Secrets,
    report::cut,
};

/// Where the log goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Our own stderr: `run`, `serve`, and everything typed by hand.
    Stderr,
    /// The main process's stderr, which is the container's log. For exec hooks, whose own output goes nowhere.
    Container,
}

impl Target {
    /// Where a command writes that is an exec hook or is typed by hand: a process that the container runtime put into
    /// the container has its parent outside of the PID namespace, which looks like none.
    pub fn of_caller() -> Self {
        let came_from_outside = rustix::process::getppid().is_none() && std::process::id() != 1;
        if came_from_outside { Self::Container } else { Self::Stderr }
    }
}

/// Lines that nobody could take.
static DROPPED: AtomicU64 = AtomicU64::new(0);

static SECRETS: OnceLock<Secrets> = OnceLock::new();

static OUTPUT: OnceLock<Output> = OnceLock::new();

/// Starts the log; later calls change nothing.
pub fn start(config: &LogConfig, secrets: &Secrets, target: Target) {
    let _ = SECRETS.set(secrets.clone());
    let _ = OUTPUT.set(Output::open(target));
    let level = Own(LevelFilter::from_level(config.level));
    // A subscriber that is already there (a test's) stays.
    let _ = match config.format {
        LogFormat::Text => {
            let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_target(false).with_writer(Lines);
            tracing_subscriber::registry().with(level).with(lines).try_init()
        }
        LogFormat::Json => tracing_subscriber::registry().with(level).with(JsonLines).try_init(),
    };
}

/// The target of what steps write.
pub const OF_STEPS: &str = "output";

/// Our own lines up to a level. At `debug`, libraries tell of each frame of HTTP/2.
struct Own(LevelFilter);

impl<S: Subscriber> Layer<S> for Own {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.takes(metadata) { Interest::always() } else { Interest::never() }
    }
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.takes(metadata)
    }
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.0)
    }
}

impl Own {
    fn takes(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        *metadata.level() <= self.0 && (target == OF_STEPS || target.starts_with(env!("CARGO_CRATE_NAME")))
    }
}

/// How many lines were dropped because nobody read the log.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// A place that takes lines or refuses them, and never waits.
struct Output {
    file: Option<File>,
    /// Lines are written whole, one after the other.
    turn: Mutex<()>,
}

impl Output {
    fn open(target: Target) -> Self {
        let path = match target {
            Target::Stderr => "/proc/self/fd/2",
            // PID 1's stderr is what the container runtime reads.
            Target::Container => "/proc/1/fd/2",
        };
        // Opened anew, a pipe can be non-blocking for us without being so for the main process, which shares the old one.
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
        let file = OpenOptions::new().append(true).custom_flags(flags.cast_signed()).open(path).ok();
        // Only a pipe needs it; a terminal or a file would take our own position or mode in it.
        let is_pipe = |file: &File| file.metadata().is_ok_and(|meta| meta.file_type().is_fifo());
        let file = file.filter(|file| target == Target::Container || is_pipe(file));
        Self { file, turn: Mutex::new(()) }
    }

    /// Writes one line if it can be written now.
    fn write(&self, line: &[u8]) {
        let _turn = self.turn.lock().expect("no holder of this lock can panic");
        let stderr = io::stderr();
        let done = match &self.file {
            // Non-blocking, and a pipe takes a line of at most PIPE_BUF whole or not at all (pipe(7)).
            Some(file) => (&*file).write_all(line).is_ok(),
            // Somebody else's pipe or socket: only when it says that it takes a line now.
            None => can_take(stderr.as_fd()) && (&stderr).write_all(line).is_ok(),
        };
        if !done {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Whether a write would not wait: a pipe says so when a page (PIPE_BUF, 4096 bytes) fits.
fn can_take(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut fds, Some(&at_once)), Ok(1)) && fds[0].revents().contains(PollFlags::OUT)
}

/// The longest line: what a pipe that has room takes in one piece (PIPE_BUF).
const LONGEST_LINE: usize = 4096;

fn write_line(text: &str) {
    let mut text = SECRETS.get().map_or_else(|| text.to_owned(), |secrets| secrets.redact(text.to_owned()));
    if text.len() > LONGEST_LINE {
        let end = (0..LONGEST_LINE - 8).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push_str("…\n");
    }
    if let Some(output) = OUTPUT.get() {
        output.write(text.as_bytes());
    }
}

/// How many bytes at the end of a piece may be the beginning of a secret that goes on in the next.
pub fn held_back(piece: &[u8]) -> usize {
    SECRETS.get().map_or(0, |secrets| secrets.held_back(piece))
}

/// Gathers what one event writes and passes it on as one line.
struct Lines;

struct Line(Vec<u8>);

impl MakeWriter<'_> for Lines {
    type Writer = Line;
    fn make_writer(&self) -> Line {
        Line(Vec::with_capacity(200))
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            write_line(&String::from_utf8_lossy(&self.0));
        }
    }
}

/// One JSON object a line.
struct JsonLines;

struct Fields(serde_json::Map<String, serde_json::Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name().into(), format!("{value:?}").into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().into(), value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().into(), value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().into(), value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().into(), value.into());
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for JsonLines {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields(serde_json::Map::new());
        let mut time = String::new();
        if SystemTime.format_time(&mut Writer::new(&mut time)).is_ok() {
            fields.0.insert("time".into(), time.into());
        }
        fields.0.insert("level".into(), event.metadata().level().as_str().to_ascii_lowercase().into());
        event.record(&mut fields);
        // Each line stays whole JSON: what is too long is cut within its values.
        let mut line = format!("{}\n", serde_json::Value::Object(fields.0.clone()));
        let mut most = LONGEST_LINE / 4;
        while line.len() >= LONGEST_LINE && most > 0 {
            for value in fields.0.values_mut() {
                if let serde_json::Value::String(text) = value {
                    *text = cut(text, most);
                }
            }
            line = format!("{}\n", serde_json::Value::Object(fields.0.clone()));
            most /= 2;
        }
        write_line(&line);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    struct Seen(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Seen {
        fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
            let metadata = event.metadata();
            self.0.lock().unwrap().push(format!("{} {}", metadata.target(), metadata.level()));
        }
    }

    #[test]
    fn only_our_own_lines_are_shown() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let subscriber = tracing_subscriber::registry().with(Own(LevelFilter::DEBUG)).with(Seen(seen.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!("ours");
            tracing::trace!("too fine");
            tracing::error!(target: "h2::codec", "not ours");
            tracing::info!(target: OF_STEPS, "a step's");
        });
        assert_eq!(*seen.lock().unwrap(), ["boathook::log::tests DEBUG", "output INFO"]);
    }
}
