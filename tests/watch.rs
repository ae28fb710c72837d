//! Progress that people see: `boathook status --watch` in a real terminal of any size, through pipes, and in scripts;
//! and the log of a start that takes long.

mod support;

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    os::fd::{AsFd, OwnedFd},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use serde_json::Value;
use support::{Agent, MAIN, PATIENCE, Place, send, shell_code, until};

/// What a terminal shows: as much of one as the view needs, and nothing that it does not know goes unnoticed. Lines that
/// are too long for a new width are broken, as most terminals do.
struct Terminal {
    columns: usize,
    rows: usize,
    /// All lines since the beginning, those that were scrolled away too.
    lines: Vec<Vec<char>>,
    row: usize,
    column: usize,
    /// The parameters of the sequences for colours, as they came.
    colours: String,
    /// Bytes of which the rest has not come yet.
    rest: Vec<u8>,
}

impl Terminal {
    fn new(columns: usize, rows: usize) -> Self {
        Self { columns, rows, lines: vec![Vec::new()], row: 0, column: 0, colours: String::new(), rest: Vec::new() }
    }

    fn resize(&mut self, columns: usize, rows: usize) {
        for (index, line) in std::mem::take(&mut self.lines).into_iter().enumerate() {
            if index == self.row {
                self.row = self.lines.len();
            }
            self.lines.extend(line.chunks(columns).map(<[char]>::to_vec));
            if line.is_empty() {
                self.lines.push(line);
            }
        }
        (self.columns, self.rows) = (columns, rows);
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.rest) {
            Ok(text) => text.len(),
            Err(error) => error.valid_up_to(),
        };
        let text: Vec<char> = String::from_utf8_lossy(&self.rest[..whole]).chars().collect();
        let mut at = 0;
        while let Some(c) = text.get(at) {
            let end = match c {
                '\u{1b}' => match text[at..].iter().position(char::is_ascii_alphabetic) {
                    Some(length) => at + length,
                    None => break,
                },
                _ => at,
            };
            self.obey(&text[at..=end]);
            at = end + 1;
        }
        let taken: usize = text[..at].iter().map(|c| c.len_utf8()).sum();
        self.rest.drain(..taken);
    }

    fn obey(&mut self, order: &[char]) {
        let line = &mut self.lines[self.row];
        match order {
            ['\r'] => self.column = 0,
            ['\n'] => {
                self.row += 1;
                if self.row == self.lines.len() {
                    self.lines.push(Vec::new());
                }
            }
            ['\u{1b}', '[', '2', 'K'] => line.clear(),
            ['\u{1b}', '[', 'K'] => line.truncate(self.column),
            ['\u{1b}', '[', 'J'] => {
                line.truncate(self.column);
                self.lines.truncate(self.row + 1);
            }
            ['\u{1b}', '[', rows @ .., 'A'] => {
                let rows: usize = rows.iter().collect::<String>().parse().expect("a number of rows");
                // What has scrolled away cannot be reached.
                let top = self.lines.len().saturating_sub(self.rows);
                self.row = self.row.saturating_sub(rows).max(top);
            }
            ['\u{1b}', '[', colour @ .., 'm'] => {
                self.colours.extend(colour);
                self.colours.push(' ');
            }
            [c] if !c.is_control() => {
                assert!(self.column < self.columns, "{c:?} beyond the last column: {line:?}");
                if line.len() <= self.column {
                    line.resize(self.column + 1, ' ');
                }
                line[self.column] = *c;
                self.column += 1;
            }
            other => panic!("a sequence that is not expected: {other:?}"),
        }
    }

    fn text(&self) -> String {
        let lines: Vec<String> = self.lines.iter().map(|line| line.iter().collect()).collect();
        lines.join("\n")
    }
}

/// The binary in a terminal that is its own and its controlling one.
struct Watcher {
    keyboard: File,
    terminal: Arc<Mutex<Terminal>>,
    reader: Option<thread::JoinHandle<()>>,
    child: Child,
}

fn winsize(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 }
}

impl Watcher {
    fn start(place: &Place, words: &[&str], (columns, rows): (u16, u16), environment: &[(&str, &str)]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&master).expect("granted");
        unlockpt(&master).expect("unlocked");
        let name = ptsname(&master, Vec::new()).expect("a name");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave: OwnedFd = rustix::fs::open(&name, flags, Mode::empty()).expect("the other end");
        tcsetwinsize(&slave, winsize(columns, rows)).expect("a size");
        let inner = place.command(words);
        // Not in a group of its own as others, so that `setsid` need not fork: its process is the one that we wait for.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(inner.get_program()).args(inner.get_args());
        for (key, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        command.env("TERM", "xterm").env_remove("NO_COLOR").envs(environment.iter().copied());
        let slave = || Stdio::from(slave.as_fd().try_clone_to_owned().expect("a copy"));
        let child = command.stdin(slave()).stdout(slave()).stderr(slave()).spawn().expect("it starts");
        let terminal = Arc::new(Mutex::new(Terminal::new(columns.into(), rows.into())));
        let mut keyboard = File::from(master);
        let (mut screen, shown) = (keyboard.try_clone().expect("a copy"), Arc::clone(&terminal));
        let reader = thread::spawn(move || {
            let mut piece = [0; 4096];
            // EIO when nobody has the other end any more.
            while let Ok(read @ 1..) = screen.read(&mut piece) {
                shown.lock().expect("not poisoned").feed(&piece[..read]);
            }
        });
        keyboard.flush().expect("nothing to flush");
        Self { keyboard, terminal, reader: Some(reader), child }
    }

    fn text(&self) -> String {
        self.terminal.lock().expect("not poisoned").text()
    }

    /// What the terminal shows once it shows `text`.
    #[track_caller]
    fn wait(&mut self, text: &str) -> String {
        let begun = Instant::now();
        loop {
            let shown = self.text();
            if shown.contains(text) {
                return shown;
            }
            assert!(begun.elapsed() < PATIENCE, "waited for {text:?}, but it shows:\n{shown}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn resize(&self, columns: u16, rows: u16) {
        // What is drawn for the old size meanwhile would be broken by a real terminal as well; here it must not come.
        let mut terminal = self.terminal.lock().expect("not poisoned");
        terminal.resize(columns.into(), rows.into());
        tcsetwinsize(&self.keyboard, winsize(columns, rows)).expect("a size");
    }

    /// The exit code and signal, and everything that it showed.
    #[track_caller]
    fn end(&mut self) -> (i32, String) {
        let code = until("the watcher's end", || self.child.try_wait().expect("ours").map(shell_code));
        self.reader.take().map(thread::JoinHandle::join);
        (code, self.text())
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Without what differs each time: times and numbers, how wide they are, and how far bars are.
fn still(shown: &str) -> String {
    let mut lines = Vec::new();
    for line in shown.lines() {
        let indent = line.len() - line.trim_start().len();
        let words = line.split_whitespace().map(|word| {
            let bare = word.trim_end_matches([',', ':', '…']);
            if bare.starts_with(|c: char| c.is_ascii_digit()) && bare.ends_with(['s', 'm']) {
                word.replace(bare, "T")
            } else if word.chars().all(|c| "━·".contains(c)) && word.chars().count() > 1 {
                format!("[bar {}]", word.chars().count())
            } else if bare.parse::<u32>().is_ok() || bare.starts_with("127.0.0.1:") {
                word.replace(bare, "N")
            } else {
                word.to_owned()
            }
        });
        lines.push(format!("{}{}", " ".repeat(indent), words.collect::<Vec<_>>().join(" ")));
    }
    lines.join("\n").replace(" N try", " N tries")
}

const HOOKS: &str = "[[pre-start.step]]\nname = \"prepare\"\nfile = { touch = \"@/prepared\" }\n\
    [[post-start.step]]\nname = \"answers\"\nexec = [\"true\"]\n\
    [[post-start.step]]\nname = \"gate\"\nwait = { file = \"go\" }\ntimeout = \"50s\"\n\
    [[post-start.step]]\nname = \"last\"\nsleep = \"1ms\"\n\
    [[pre-stop.step]]\nname = \"leave\"\nexec = [\"sh\", \"-c\", \"exit 3\"]\n";

/// An agent whose post-start waits for `@/go`.
fn waiting() -> Agent {
    let mut agent = Place::with(HOOKS).run(&MAIN);
    agent.wait_log("step=\"gate\" kind=\"wait\"");
    agent
}

const WATCH: [&str; 4] = ["status", "--watch", "--interval", "100ms"];

#[test]
fn a_terminal_shows_hooks_and_steps_in_place_until_the_agent_ends() {
    let mut agent = waiting();
    let mut watcher = Watcher::start(&agent.place, &WATCH, (80, 24), &[]);
    let shown = watcher.wait("last");
    assert_eq!(
        still(&shown),
        format!(
            "phase post-start (not ready: post-start: step \"gate\": go: no such file or …\n\
             agent boathook {} run, up T\n\
             main pid N\n\
             listen N\n\
             \n\
             ✓ pre-start succeeded T of T, by container start\n\
             ▸ post-start running T of T, by main process started\n  \
               ✓ answers exec T\n  \
               ▸ gate wait T [bar 30] of T\n      \
                   go: no such file or directory, N tries\n  \
               · last sleep",
            env!("CARGO_PKG_VERSION")
        ),
        "{shown}"
    );
    assert!(watcher.terminal.lock().expect("not poisoned").colours.starts_with("32 0 36 0 32 0 36 0 "));
    agent.place.write("go", "");
    let shown = watcher.wait("phase     ready (ready)");
    assert!(still(&shown).ends_with("\n✓ post-start succeeded T of T, by main process started"), "{shown}");
    agent.signal(libc::SIGTERM);
    agent.end();
    let (code, shown) = watcher.end();
    assert_eq!(code, 0, "{shown}");
    assert!(shown.ends_with("\nthe agent has ended\n"), "{shown}");
    // Everything was drawn where it stood.
    assert_eq!(shown.matches("phase ").count(), 1, "{shown}");
}

#[test]
fn small_and_large_terminals_show_what_matters() {
    let agent = waiting();
    let mut small = Watcher::start(&agent.place, &WATCH, (40, 10), &[]);
    let shown = small.wait("go: no such file or directory, ");
    assert_eq!(
        still(&shown),
        format!(
            "phase post-start (not ready: post-…\n\
             agent boathook {} run, up T\n\
             main pid N\n  \
               … N lines before\n  \
               ✓ answers exec T\n  \
               ▸ gate wait T\n      \
                   [bar 26] of T\n      \
                   go: no such file or directory, N…\n  \
               · last sleep",
            env!("CARGO_PKG_VERSION")
        ),
        "{shown}"
    );
    let mut large = Watcher::start(&agent.place, &WATCH, (200, 50), &[]);
    let shown = large.wait("· last");
    assert!(
        still(&shown)
            .starts_with("phase post-start (not ready: post-start: step \"gate\": go: no such file or directory, N tr")
    );
    assert_eq!(shown.lines().count(), 11, "{shown}");
    // Smaller than any sense, and still within its bounds: the terminal would complain.
    let mut tiny = Watcher::start(&agent.place, &WATCH, (3, 2), &[]);
    tiny.wait("p…");
}

#[test]
fn a_terminal_may_change_its_size() {
    let agent = waiting();
    let mut watcher = Watcher::start(&agent.place, &["status", "--watch", "--interval", "60s"], (80, 24), &[]);
    watcher.wait("last");
    // At once, not at the next look in a minute.
    watcher.resize(40, 24);
    let narrow = watcher.wait("not ready: post-…");
    assert_eq!(narrow.matches("phase ").count(), 1, "{narrow}");
    assert_eq!(narrow.lines().count(), 12, "{narrow}");
    watcher.resize(100, 30);
    let wide = watcher.wait("step \"gate\"");
    assert_eq!(wide.matches("phase ").count(), 1, "{wide}");
    assert_eq!(wide.lines().count(), 11, "{wide}");
}

#[test]
fn ctrl_c_ends_it_as_shells_expect() {
    let agent = waiting();
    for (key, code) in [(b"\x03", 128 + libc::SIGINT), (b"\x1c", 128 + libc::SIGQUIT)] {
        let mut watcher = Watcher::start(&agent.place, &WATCH, (80, 24), &[]);
        watcher.wait("last");
        watcher.keyboard.write_all(key).expect("typed");
        let (ended, shown) = watcher.end();
        assert_eq!(ended, code, "{shown}");
        // The view stands, and the cursor is on a free line below it, in the terminal's own colour.
        assert!(still(&shown).ends_with("last sleep"), "{shown}");
        let terminal = watcher.terminal.lock().expect("not poisoned");
        assert_eq!((terminal.row, terminal.column), (terminal.lines.len() - 1, 0), "{shown}");
        assert!(terminal.colours.ends_with(" 0 "), "{}", terminal.colours);
    }
}

#[test]
fn no_colour_where_none_is_wanted_and_no_sequence_where_none_is_understood() {
    let agent = waiting();
    let mut plain = Watcher::start(&agent.place, &WATCH, (80, 24), &[("NO_COLOR", "1")]);
    plain.wait("last");
    assert_eq!(plain.terminal.lock().expect("not poisoned").colours, "");
    let mut dumb = Watcher::start(&agent.place, &WATCH, (500, 24), &[("TERM", "dumb")]);
    let shown = dumb.wait("post-start/gate (wait) running");
    assert!(still(&shown).trim_start().starts_with("T phase post-start (not ready: "), "{shown}");
    dumb.keyboard.write_all(b"\x03").expect("typed");
    assert_eq!(dumb.end().0, 128 + libc::SIGINT);
}

#[test]
fn a_pipe_gets_one_line_for_each_change() {
    let mut agent = waiting();
    let mut child =
        agent.place.command(&WATCH).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map(|line| line.expect("text"));
    let mut said: Vec<String> = lines.by_ref().take(5).collect();
    agent.place.write("go", "");
    said.extend(lines.by_ref().take_while(|line| !line.contains("post-start succeeded")));
    assert_eq!(agent.get("/shutdown").status, 500);
    said.extend(lines.by_ref().take_while(|line| !line.contains("pre-stop failed")));
    agent.signal(libc::SIGTERM);
    agent.end();
    let rest: Vec<String> = lines.collect();
    assert_eq!(rest.last().map(String::as_str), Some("the agent has ended"));
    assert_eq!(shell_code(child.wait().expect("ours")), 0);
    let mut stderr = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut stderr).expect("text");
    assert_eq!(stderr, "");
    assert!(!said.iter().any(|line| line.contains(char::is_control)), "{said:?}");
    // What lasts is told again now and then, and what was between two looks is not told: that depends on the machine.
    let mut told: Vec<String> = said.iter().map(|line| still(line).trim().to_owned()).collect();
    let gate = told.iter().position(|line| line.contains("gate (wait) running")).expect("the step that waits");
    assert!(told[gate].starts_with("T post-start/gate (wait) running T"), "{}", told[gate]);
    told.retain(|line| !line.contains(") running ") && !line.contains("phase pre-stop"));
    assert!(told[0].starts_with("T phase post-start (not ready: post-start: step \"gate\": "), "{}", told[0]);
    told.remove(0);
    told.sort();
    let prepared = agent.place.expand("@/prepared");
    assert_eq!(
        told,
        [
            "T phase drained (not ready: drained: step \"leave\": exit code 3)",
            "T phase ready (ready)",
            "T post-start started, by main process started",
            "T post-start/answers (exec) succeeded T",
            "T post-start/gate (wait) succeeded T: true after T, N tries",
            "T post-start/last (sleep) succeeded T",
            "T pre-start started, by container start",
            "T pre-start succeeded after T",
            &format!("T pre-start/prepare (file) succeeded T: touched {prepared}"),
            "T pre-stop started, by N (curl/8.0)",
            "T pre-stop/leave (exec) failed T: exit code N",
        ]
    );
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let agent = waiting();
    for options in [&WATCH[..], &["status", "--watch", "--json"], &["status", "--watch", "--interval", "60s"]] {
        let mut child =
            agent.place.command(options).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut reader = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        drop(reader);
        // Also where nothing new is to be told.
        let code = until("its end", || child.try_wait().expect("ours").map(shell_code));
        let mut stderr = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut stderr).expect("text");
        assert_eq!((code, stderr.as_str()), (0, ""), "{options:?}");
    }
}

#[test]
fn json_is_one_document_a_line() {
    let mut agent = waiting();
    let words = ["status", "--watch", "--json", "--interval", "100ms"];
    let mut child =
        agent.place.command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut lines = lines.map(|line| serde_json::from_str::<Value>(&line.expect("text")).expect("JSON"));
    for _ in 0..3 {
        let status = lines.next().expect("a document");
        assert_eq!(status["phase"], "post-start");
        let gate = &status["hooks"][1]["steps"][1];
        assert_eq!((&gate["name"], &gate["timeout"]), (&"gate".into(), &50.0.into()));
        // Only steps that count have numbers.
        assert_eq!(gate.get("progress"), None);
    }
    agent.signal(libc::SIGKILL);
    agent.end();
    for status in lines {
        assert_eq!(status["phase"], "post-start");
    }
    assert_eq!(shell_code(child.wait().expect("ours")), 0);
    let mut stderr = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut stderr).expect("text");
    assert_eq!(stderr, "boathook: the agent has ended\n");
}

#[test]
fn without_an_agent_there_is_nothing_to_watch() {
    let said = Place::bare().boathook(&["status", "--watch"]);
    assert_eq!((said.code, said.stdout.as_str()), (69, ""));
    assert!(said.stderr.starts_with("boathook: no agent runs in this container\n  help: "), "{}", said.stderr);
}

#[test]
fn scripts_wait_until_it_is_ready() {
    let mut agent = waiting();
    let words = ["status", "--watch", "--until-ready", "--interval", "100ms"];
    let start = |agent: &Agent| {
        let mut command = agent.place.command(&words);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts")
    };
    let mut child = start(&agent);
    assert_eq!(child.try_wait().expect("ours"), None);
    agent.place.write("go", "");
    assert_eq!(shell_code(child.wait().expect("ours")), 0);
    assert_eq!(agent.get("/shutdown").status, 500);
    let said = agent.boathook(&words);
    assert_eq!(
        (said.code, said.stderr.as_str()),
        (1, "boathook: not ready: drained: step \"leave\": exit code 3\n"),
        "{}",
        said.stdout
    );
    // An agent that ends before it is ready.
    let mut agent = waiting();
    let mut child =
        agent.place.command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    stdout.read_line(&mut String::new()).expect("a line");
    agent.signal(libc::SIGKILL);
    agent.end();
    assert_eq!(shell_code(child.wait().expect("ours")), 1);
    let mut stderr = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut stderr).expect("text");
    assert_eq!(stderr, "boathook: the agent has ended before it was ready\n");
}

#[test]
fn a_stopped_agent_is_told_and_may_go_on() {
    let mut agent = waiting();
    let mut watcher = Watcher::start(&agent.place, &WATCH, (80, 24), &[]);
    watcher.wait("last");
    send(agent.pid(), libc::SIGSTOP);
    watcher.wait("the agent does not answer; this is what was seen last");
    send(agent.pid(), libc::SIGCONT);
    watcher.wait("phase     post-start");
    agent.place.write("go", "");
    watcher.wait("phase     ready (ready)");
    agent.signal(libc::SIGTERM);
    agent.end();
    assert_eq!(watcher.end().0, 0);
}

#[test]
fn nothing_that_a_step_says_reaches_the_terminal_as_an_order() {
    // The terminal of these tests knows no other sequences than the view's own.
    let config = "[[post-start.step]]\nname = \"evil\"\nexec = [\"sh\", \"-c\", \"printf '\\\\033[2J\\\\033]0;title\\\\007\\\\302\\\\2332J\\\\r\\\\342\\\\200\\\\256x' >&2; exit 3\"]\n\
        on-failure = \"continue\"\n[[post-start.step]]\nwait = { file = \"go\" }\ntimeout = \"50s\"\n";
    let mut agent = Place::with(config).run(&MAIN);
    agent.wait_log("kind=\"wait\"");
    let mut watcher = Watcher::start(&agent.place, &WATCH, (80, 24), &[]);
    let shown = watcher.wait("exit code 3");
    assert!(!shown.contains(['\u{202e}', '\u{9b}', '\u{7}']), "{shown:?}");
    let text = agent.boathook(&["status"]).stdout;
    assert!(text.contains("exit code 3") && !text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
}

#[test]
fn the_log_says_why_a_start_takes_long() {
    let config = "[[post-start.step]]\nwait = { file = \"go\" }\ntimeout = \"50s\"\n";
    let mut agent = Place::with(config).run(&MAIN);
    agent.wait_log("step running");
    let log = agent.log();
    let line = log.lines().find(|line| line.contains("step running")).expect("the line");
    let (before, after) = line.split_once(" elapsed=10").unwrap_or_else(|| panic!("{line}"));
    assert!(before.ends_with(" INFO step running hook=\"post-start\" step=\"wait\""), "{line}");
    assert!(after.contains(" doing=\"go: no such file or directory, ") && line.ends_with(" tries\""), "{line}");
    assert_eq!(log.matches("step running").count(), 1, "{log}");
}
