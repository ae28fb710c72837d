//! `boathook status --watch`: follows the agent through its control socket. This part owns the terminal and the time;
//! what is shown is made by the pure rooms `view` (a screen, redrawn in place) and `lines` (one line a change, where
//! stdout is no terminal).
//!
//! A few escape sequences of our own: packages for terminals take up to ten times the room of this, and nothing else
//! here needs one. Nothing of the terminal is changed that would have to be put back (no raw mode, no other screen, a
//! cursor that stays visible and waits below the view), so that even SIGKILL leaves it in order.

use std::{
    env,
    fmt::Write as _,
    io::{self, ErrorKind, IsTerminal, Read, Write},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    pipe::{PipeFlags, pipe_with},
    termios::tcgetwinsize,
};
use serde_json::Value;

use crate::{
    beside,
    control::{self, CallError},
    exit,
    fatal::Fatal,
    status::word,
    sys::signal,
};

mod lines;
mod view;

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How often the agent is asked.
    pub interval: Duration,
    /// One JSON document a line.
    pub json: bool,
    /// End when the agent is ready, or cannot become so any more.
    pub until_ready: bool,
}

/// The agent answers at once. One that takes longer is stuck or its machine is busy: that is shown, and it is asked
/// again; a terminal should not hang meanwhile.
const ANSWER: Duration = Duration::from_secs(2);
/// Nobody sees more, and the agent has better things to do.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
/// Without a terminal, what runs says this often how far it is.
const WORD: Duration = Duration::from_secs(5);
/// What a terminal is taken for that does not know its own size.
const USUAL: (usize, usize) = (80, 24);
/// Our own mark in a status that it is an old one.
const SILENT: &str = "silent";
const GONE: &str = "the agent has ended";

/// Follows the agent until it ends, until nobody reads any more, or as long as the options say.
///
/// # Errors
/// There never was an agent that would answer us; it did not get ready; the terminal or the agent failed.
pub fn watch(options: Options) -> Result<u8, Fatal> {
    // The first answer decides whether there is anything to follow.
    let mut answer = Some(look(&options).map_err(|error| beside::no_answer(&error))?);
    let interval = options.interval.max(SHORTEST_INTERVAL);
    let is_screen = !options.json
        && io::stdout().is_terminal()
        && env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb");
    let mut output = match (options.json, is_screen) {
        (true, _) => Output::Json,
        (_, true) => Output::Screen(Screen::open().map_err(|error| refused(&error))?),
        _ => Output::Lines { before: Value::Null, next_word: Instant::now() + WORD },
    };
    let mut seen = Value::Null;
    let mut next = Instant::now();
    loop {
        let body = answer.as_ref().map(|answer| answer.body.as_str());
        match (body, &mut seen) {
            (Some(body), _) => seen = serde_json::from_str(body).unwrap_or_default(),
            (None, Value::Object(seen)) => drop(seen.insert(SILENT.into(), true.into())),
            (None, _) => {}
        }
        match output.show(&seen, body) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(exit::OK),
            Err(error) => return Err(refused(&error)),
            Ok(()) => {}
        }
        if let Some(verdict) = verdict(&options, &seen) {
            return verdict;
        }
        next = (next + interval).max(Instant::now());
        loop {
            match output.wait(next).map_err(|error| refused(&error))? {
                Event::Due => break,
                Event::NobodyReads => return Ok(exit::OK),
                // A terminal that cannot be drawn on is found out about at the next look.
                Event::Resized => drop(output.show(&seen, None)),
                Event::Stopped(signal) => {
                    // The cursor is below the view already; what was typed there (`^C`) goes.
                    let _ = write(b"\r\x1b[0m\x1b[K");
                    drop(output);
                    // Ended by the signal itself, as a shell wants to see it; a PID 1 would survive that.
                    let _ = signal::send(std::process::id().cast_signed(), signal);
                    return Ok(u8::try_from(128 + signal).unwrap_or(exit::FAILED));
                }
            }
        }
        answer = match look(&options) {
            Ok(answer) => Some(answer),
            Err(CallError::TimedOut) => None,
            Err(CallError::NoAgent | CallError::Lost) => {
                if options.until_ready {
                    return Err(Fatal::new(exit::FAILED, format!("{GONE} before it was ready")));
                }
                let _ = match output {
                    // Its readers want JSON alone.
                    Output::Json => writeln!(io::stderr(), "boathook: {GONE}"),
                    _ => write(format!("{GONE}\n").as_bytes()),
                };
                return Ok(exit::OK);
            }
            Err(error) => return Err(beside::no_answer(&error)),
        };
    }
}

/// Asks the agent. A status tells what the application's check last said: who waits for readiness has it asked, as a probe
/// does.
fn look(options: &Options) -> Result<control::Answer, CallError> {
    if options.until_ready {
        let _ = control::call("GET", "/ready", Some(ANSWER));
    }
    control::call("GET", "/status", Some(ANSWER))
}

/// What `--until-ready` comes to, once that can be told.
fn verdict(options: &Options, seen: &Value) -> Option<Result<u8, Fatal>> {
    if !options.until_ready {
        None
    } else if seen["ready"] == true {
        Some(Ok(exit::OK))
    } else if matches!(word(&seen["phase"]), "starting" | "post-start" | "ready") {
        None
    } else {
        let why =
            view::clip(&format!("not ready: {}", word(&seen["not-ready-because"])), crate::report::LONGEST_REASON);
        Some(Err(Fatal::new(exit::FAILED, why)))
    }
}

fn refused(error: &io::Error) -> Fatal {
    Fatal::new(exit::INTERNAL, format!("stdout: {error}"))
}

fn write(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush())
}

enum Output {
    Json,
    Lines { before: Value, next_word: Instant },
    Screen(Screen),
}

enum Event {
    /// It is time for the next look.
    Due,
    NobodyReads,
    Resized,
    Stopped(i32),
}

impl Output {
    /// Shows the agent as it was seen last; `body` is its answer, if it has just given one.
    fn show(&mut self, seen: &Value, body: Option<&str>) -> io::Result<()> {
        match self {
            Self::Json => body.map_or(Ok(()), |body| write(format!("{body}\n").as_bytes())),
            Self::Lines { before, next_word } => {
                let mut all = lines::changes(before, seen);
                if all.is_empty() && Instant::now() >= *next_word {
                    all = lines::progress(seen);
                }
                if all.is_empty() {
                    return Ok(());
                }
                *next_word = Instant::now() + WORD;
                before.clone_from(seen);
                write(format!("{}\n", all.join("\n")).as_bytes())
            }
            Self::Screen(screen) => screen.draw(seen),
        }
    }

    /// Until something happens, or until `due`.
    fn wait(&mut self, due: Instant) -> io::Result<Event> {
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Event::Due);
            }
            // A week at most, so that it fits.
            let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: i64::from(left.subsec_nanos()) };
            let stdout = io::stdout();
            // Nothing is asked of stdout: the kernel tells by itself that the other end of a pipe is gone.
            let mut fds = vec![PollFd::from_borrowed_fd(stdout.as_fd(), PollFlags::empty())];
            if let Self::Screen(screen) = self {
                fds.push(PollFd::new(&screen.signals, PollFlags::IN));
            }
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) => return Ok(Event::Due),
                Ok(_) if !fds[0].revents().is_empty() => return Ok(Event::NobodyReads),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if let Self::Screen(screen) = self
                && let Some(event) = screen.signalled()
            {
                return Ok(event);
            }
        }
    }
}

/// A view in a terminal, redrawn where it stands.
struct Screen {
    /// Where caught signals arrive, and the end that the handler writes to.
    signals: io::PipeReader,
    _handler: io::PipeWriter,
    caught: Vec<signal::Caught>,
    /// The columns of each line as drawn last.
    drawn: Vec<usize>,
    colours: bool,
}

impl Screen {
    fn open() -> io::Result<Self> {
        let (signals, handler) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let wanted = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGWINCH];
        let caught = signal::catch(wanted.into_iter().filter(|number| !signal::is_ignored(*number)), handler.as_fd())?;
        // See no-color.org.
        let colours = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Ok(Self { signals: signals.into(), _handler: handler.into(), caught, drawn: Vec::new(), colours })
    }

    fn draw(&mut self, seen: &Value) -> io::Result<()> {
        let size = tcgetwinsize(io::stdout()).ok();
        let (columns, rows) = size.map_or(USUAL, |size| (size.ws_col.into(), size.ws_row.into()));
        let (columns, rows) = if columns == 0 || rows == 0 { USUAL } else { (columns, rows) };
        // One column stays free, since terminals differ in what they do after the last one; one row is the cursor's.
        let lines = view::draw(seen, columns.saturating_sub(1), rows.saturating_sub(1));
        write(self.frame(&lines, columns).as_bytes())
    }

    /// The bytes that put these lines where the last ones are. In one piece, so that nobody sees half of it.
    fn frame(&mut self, lines: &[view::Line], columns: usize) -> String {
        // A terminal that became narrower has broken the lines of the last frame into several rows.
        let up: usize = self.drawn.iter().map(|width| width.div_ceil(columns.max(1)).max(1)).sum();
        let mut text = String::from("\r");
        // Writing to a string cannot fail.
        if up > 0 {
            let _ = write!(text, "\x1b[{up}A");
        }
        for line in lines {
            text.push_str("\x1b[2K");
            match line.mark.filter(|_| self.colours) {
                Some((at, colour)) if at < line.text.len() => {
                    let (before, rest) = line.text.split_at(at);
                    let mark = rest.chars().next().map_or(0, char::len_utf8);
                    let _ = write!(text, "{before}\x1b[{colour}m{}\x1b[0m{}", &rest[..mark], &rest[mark..]);
                }
                _ => text.push_str(&line.text),
            }
            text.push_str("\r\n");
        }
        text.push_str("\x1b[J");
        self.drawn = lines.iter().map(|line| view::columns(&line.text)).collect();
        text
    }

    /// What the signals that have arrived ask for.
    fn signalled(&mut self) -> Option<Event> {
        let mut event = None;
        let mut record = [0; signal::RECORD];
        // Records are written whole, and a pipe without any says that it would block.
        while matches!(self.signals.read(&mut record), Ok(signal::RECORD)) {
            let number = i32::from_ne_bytes([record[0], record[1], record[2], record[3]]);
            if number != libc::SIGWINCH {
                return Some(Event::Stopped(number));
            }
            event = Some(Event::Resized);
        }
        event
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        signal::release(&self.caught);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn until_ready_ends_when_that_can_be_told() {
        let options = Options { interval: Duration::ZERO, json: false, until_ready: true };
        let verdict = |phase: &str, ready: bool, options: &Options| {
            let seen = serde_json::json!({ "phase": phase, "ready": ready, "not-ready-because": "why\u{1b}[2J" });
            verdict(options, &seen).map(|verdict| verdict.map_err(|fatal| (fatal.code, fatal.lines.join("\n"))))
        };
        let not = || Some(Err((1, "not ready: why[2J".to_owned())));
        for (phase, ready, expected) in [
            ("starting", false, None),
            ("post-start", false, None),
            ("ready", false, None),
            ("ready", true, Some(Ok(0))),
            ("failed", false, not()),
            ("pre-stop", false, not()),
            ("ended", false, not()),
        ] {
            assert_eq!(verdict(phase, ready, &options), expected, "{phase}");
            assert_eq!(verdict(phase, ready, &Options { until_ready: false, ..options }), None);
        }
    }
}
