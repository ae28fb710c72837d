//! `exec`: runs a command. It ends when the command ends, whoever keeps its output open; then, and when the
//! step is cut, everything it started is killed, unless `leave-running` says otherwise for a success.
//!
//! What escapes: a process that cleared its environment, left the process group and lost its parent. Output of
//! processes that are left running is read and dropped for as long as the agent lives.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{self, Seek, Write},
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    str::FromStr,
};

use rustix::fs::MemfdFlags;
use tokio::time::{Instant, sleep_until};

use super::{Context, End, Kind};
use crate::{
    duration::show,
    keys::{Error, Node, Read, Shape, keys, list_of},
    problem::Scope,
    process::{Birth, Capture, Child, ExitStatus, Family, MARKER, Processes, Source, SpawnError, family, spawn, user},
    redact::is_secret,
    sys::child,
};

/// The reason goes into one line of the report and the termination message; a line of log is long enough for it.
const LONGEST_REASON: usize = 300;

keys! {
    /// The step as typed: `exec = ["consul", "leave"]` or `exec = { command = […], … }`.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Typed {
        /// The program and its arguments; there is no shell unless you write one: sh -c "…"
        command: Vec<String> = Words("COMMAND"),
        /// An environment variable for the command, beside the agent's own; may be repeated
        env: Vec<Variable> = Many("NAME=VALUE", "env"),
        /// The folder that the command starts in
        dir: Option<PathBuf> = One("FOLDER"),
        /// Who the command runs as: 1000, 1000:1000, www-data or www-data:adm (needs root)
        user: Option<Value> = One("USER"),
        /// Text for the command's stdin, which is empty without it
        input: Option<String> = One("TEXT"),
        /// After a success, leave alone what the command left running in the background
        leave_running: bool = Switch,
        /// Where the command's stdout goes: log or discard
        stdout: Output = OneOr("WHERE", "log"),
        /// Where the command's stderr goes: log or discard
        stderr: Output = OneOr("WHERE", "log"),
    }
    impl {
        fn needed(&self) -> &'static [&'static str] {
            &["command"]
        }
        fn short(&mut self, value: Node<'_>) -> Result<bool, Error> {
            match value.shape()? {
                Shape::List(_) => self.command = Vec::read(value)?,
                Shape::Text(text) => {
                    return Err(value.wrong(&format!(
                        "exec is a list, because no shell splits it into words: write [\"sh\", \"-c\", {text:?}] for a shell"
                    )));
                }
                _ => return Ok(false),
            }
            Ok(true)
        }
        fn expected(&self) -> &'static str {
            "a list such as [\"consul\", \"leave\"], or a table with `command`"
        }
    }
}

impl Typed {
    /// A command and nothing else.
    pub fn of_command(command: Vec<String>) -> Self {
        Self { command, ..Self::default() }
    }
}

/// Where one stream of the command goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    #[default]
    Log,
    Discard,
}

/// One environment variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    name: String,
    value: String,
}

/// The step as meant.
#[derive(Clone, Debug)]
pub struct Exec {
    command: Vec<OsString>,
    env: Vec<Variable>,
    dir: Option<PathBuf>,
    user: Option<String>,
    input: Option<String>,
    leave_running: bool,
    stdout: Output,
    stderr: Output,
}

impl Exec {
    /// Whether the command runs as somebody else, which takes root.
    pub fn becomes_another_user(&self) -> bool {
        self.user.is_some()
    }
}

impl Kind for Exec {
    type Typed = Typed;

    fn mean(typed: Typed, scope: &mut Scope<'_>) -> Option<Self> {
        let before = scope.problems.len();
        match typed.command.first() {
            None => scope.problem("command", "it is empty", Some("write exec = [\"program\", \"argument\"]".into())),
            Some(program) if program.trim().is_empty() => {
                scope.problem("command", "the program's name is empty", Some("name a program".into()));
            }
            Some(_) => {}
        }
        if typed.command.iter().any(|word| word.contains('\0')) {
            scope.problem("command", "it contains a NUL character", Some("remove it".into()));
        }
        for variable in &typed.env {
            if let Err(why) = variable.check() {
                scope.problem("env", why, Some("write env = { NAME = \"value\" }".into()));
            }
            if is_secret(&variable.name, &variable.value) {
                scope.secrets.push(variable.value.clone());
            }
        }
        if typed.dir.as_ref().is_some_and(|dir| dir.as_os_str().is_empty() || dir.to_string_lossy().contains('\0')) {
            scope.problem("dir", "it is not a path", Some("name a folder of the image".into()));
        }
        if let Some(Err(why)) = typed.user.as_ref().map(|Value(user)| user::check(user)) {
            scope.problem("user", why, None);
        }
        if scope.problems.len() > before {
            return None;
        }
        Some(Self {
            command: typed.command.into_iter().map(OsString::from).collect(),
            env: typed.env,
            dir: typed.dir,
            user: typed.user.map(|Value(user)| user),
            input: typed.input,
            leave_running: typed.leave_running,
            stdout: typed.stdout,
            stderr: typed.stderr,
        })
    }

    async fn run(&self, context: &Context) -> End {
        let begun = Instant::now();
        let mut capture = Capture::new(&context.label);
        let started = match self.prepare(&mut capture) {
            Ok(attempt) => attempt.start(&context.processes).await,
            Err(error) => return End::Failed(format!("cannot run a command: {error}")),
        };
        let (child, guard) = match started {
            Ok(started) => started,
            Err(error) if error.passes => return End::Failed(error.text),
            Err(error) => return End::FailedForGood(error.text),
        };
        context.progress.set("the command runs");

        // A short attempt still gets half of its time before TERM.
        let left = context.limit.saturating_duration_since(begun);
        let term = begun + left.saturating_sub(context.kill_after).max(left / 2);
        let mut terminated = false;
        let status = loop {
            tokio::select! {
                biased;
                status = child.wait() => break status,
                () = sleep_until(term), if !terminated => {
                    terminated = true;
                    guard.terminate();
                    context.progress.set("the command was sent TERM and did not end");
                }
                () = sleep_until(context.limit) => {
                    drop(guard);
                    capture.finish();
                    let text = format!("timed out: ignored TERM, killed after {}", show(begun.elapsed()));
                    return End::TimedOut(with_reason(text, &capture));
                }
                () = capture.read_some() => {}
            }
        };

        if self.leave_running && status.is_success() && !terminated {
            guard.leave();
            capture.finish();
            crate::task::spawn(capture.discard());
            return End::Done(String::new());
        }
        guard.end().await;
        capture.finish();
        match status {
            _ if terminated => {
                let text = format!("timed out: ended by TERM after {}", show(begun.elapsed()));
                End::TimedOut(with_reason(text, &capture))
            }
            ExitStatus::Code(0) => End::Done(String::new()),
            status => End::Failed(with_reason(status.to_string(), &capture)),
        }
    }
}

/// `exit code 3: cannot connect to …`
pub(crate) fn with_reason(text: String, capture: &Capture) -> String {
    let line = capture.last_error();
    if line.is_empty() {
        return text;
    }
    let cut = line.floor_char_boundary(LONGEST_REASON);
    let more = if cut < line.len() { "…" } else { "" };
    format!("{text}: {}{more}", &line[..cut])
}

/// Everything that one attempt needs, to be moved to the thread that starts it.
struct Attempt {
    exec: Exec,
    stdin: Stdio,
    stdout: Stdio,
    stderr: Stdio,
}

impl Exec {
    /// What people know it by.
    pub fn program(&self) -> String {
        self.command.first().map_or_else(String::new, |program| program.to_string_lossy().into_owned())
    }

    fn prepare(&self, capture: &mut Capture) -> io::Result<Attempt> {
        let mut stream = |output, source| match output {
            Output::Log => capture.open(source).map(Stdio::from),
            Output::Discard => Ok(Stdio::null()),
        };
        let stdout = stream(self.stdout, Source::Stdout)?;
        let stderr = stream(self.stderr, Source::Stderr)?;
        let stdin = match &self.input {
            None => Stdio::null(),
            Some(text) => text_as_file(text)?.into(),
        };
        Ok(Attempt { exec: self.clone(), stdin, stdout, stderr })
    }
}

/// A file in memory, as a shell's here-document is a file: a command that never reads it blocks nobody, as a full
/// pipe would.
fn text_as_file(text: &str) -> io::Result<OwnedFd> {
    let mut file = fs::File::from(rustix::fs::memfd_create("input", MemfdFlags::CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file.into())
}

/// Gives a start up when it is dropped.
struct GiveUp(Birth);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

impl Attempt {
    /// Starts the command on a thread of its own: the user files, the folder and the program may be on a mount
    /// that hangs. If the caller is gone when it has started, it is killed.
    async fn start(self, processes: &Processes) -> Result<(Child, family::Guard), SpawnError> {
        let (processes, birth) = (processes.clone(), Birth::default());
        // Also when it is over: then this does nothing.
        let _given_up = GiveUp(birth.clone());
        let started = crate::task::blocking(move || self.start_now(&processes, &birth)).await;
        started.unwrap_or_else(|_| {
            Err(SpawnError { text: "the agent is ending".into(), code: spawn::CODE_NOT_EXECUTABLE, passes: false })
        })
    }

    fn start_now(self, processes: &Processes, birth: &Birth) -> Result<(Child, family::Guard), SpawnError> {
        let Self { exec, stdin, stdout, stderr } = self;
        let marker = family::new_marker();
        let program = &exec.command[0];
        let mut command = Command::new(program);
        command.args(&exec.command[1..]).stdin(stdin).stdout(stdout).stderr(stderr).process_group(0);
        command.env(MARKER, &marker);
        for variable in &exec.env {
            command.env(&variable.name, &variable.value);
        }
        if let Some(dir) = &exec.dir {
            command.current_dir(dir);
        }
        if let Some(name) = &exec.user {
            become_user(&mut command, name).map_err(|why| SpawnError {
                text: format!("{}: {why}", program.to_string_lossy()),
                code: spawn::CODE_NOT_EXECUTABLE,
                passes: false,
            })?;
        }
        let child = processes.spawn_for(birth, &mut command).map_err(|error| exec.explain(&error))?;
        let guard = Family::new(child.pid(), marker).guard();
        Ok((child, guard))
    }
}

impl Exec {
    /// Starts the command with its output where the caller wants it; the family dies with the guard.
    ///
    /// # Errors
    /// Why it did not start.
    pub async fn launch(
        &self,
        stdout: Stdio,
        stderr: Stdio,
        processes: &Processes,
    ) -> Result<(Child, family::Guard), SpawnError> {
        let stdin = match &self.input {
            None => Stdio::null(),
            Some(text) => text_as_file(text)
                .map_err(|error| SpawnError {
                    text: format!("cannot run a command: {error}"),
                    code: spawn::CODE_NOT_EXECUTABLE,
                    passes: true,
                })?
                .into(),
        };
        Attempt { exec: self.clone(), stdin, stdout, stderr }.start(processes).await
    }

    fn explain(&self, error: &io::Error) -> SpawnError {
        let path = self.env.iter().rfind(|variable| variable.name == "PATH");
        let path = path.map(|variable| OsStr::new(&variable.value));
        spawn::explain(error, &self.command[0], self.dir.as_deref().map(Path::new), path, self.user.as_deref())
    }
}

/// Nothing to do when it is who we are; otherwise only root may.
fn become_user(command: &mut Command, name: &str) -> Result<(), String> {
    let wanted = user::find(name)?;
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    if uid != 0 {
        if (wanted.uid, wanted.gid) == (uid, gid) {
            return Ok(());
        }
        return Err(format!("user {name}: only root can become somebody else, and this is uid {uid}"));
    }
    child::become_user(command, wanted.uid, wanted.gid, wanted.groups);
    Ok(())
}

impl Variable {
    fn check(&self) -> Result<(), String> {
        if self.name.is_empty() || self.name.contains(['=', '\0']) {
            return Err(format!("`{}` is not the name of a variable", self.name));
        }
        if self.value.contains('\0') {
            return Err(format!("the value of {} contains a NUL character", self.name));
        }
        Ok(())
    }
}

impl FromStr for Variable {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
        Ok(Self { name: name.into(), value: value.into() })
    }
}

impl FromStr for Output {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "log" => Ok(Self::Log),
            "discard" => Ok(Self::Discard),
            _ => Err(format!("`{text}` is not a place for output: write \"log\" or \"discard\"")),
        }
    }
}

impl Read for Output {
    fn read(value: Node<'_>) -> Result<Self, Error> {
        value.parse(value.text("a string")?)
    }
}

impl Read for Variable {
    fn read(value: Node<'_>) -> Result<Self, Error> {
        value.parse(value.text("a string")?)
    }

    /// A table of variables.
    fn read_list(value: Node<'_>) -> Result<Vec<Self>, Error> {
        if value.by_hand {
            return list_of(value);
        }
        let table = Vec::<(String, Value)>::read(value)?;
        Ok(table.into_iter().map(|(name, Value(value))| Variable { name, value }).collect())
    }
}

/// A text that may be typed as a number or a truth value: `PORT = 8080`, `user = 1000`.
#[derive(Clone, Debug, PartialEq)]
struct Value(String);

impl Read for Value {
    fn read(value: Node<'_>) -> Result<Self, Error> {
        Ok(Value(match value.shape()? {
            Shape::Truth(truth) => truth.to_string(),
            _ => value.text_or_number("a text in quotes, a number, true or false")?.into_owned(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{describe, take};

    fn parse(text: &str) -> Result<Typed, String> {
        let mut steps: Vec<(String, Typed)> = crate::keys::parse(text)?;
        Ok(steps.remove(0).1)
    }

    #[test]
    fn reads_both_forms_and_the_command_line_alike() {
        let short = parse(r#"exec = ["consul", "leave"]"#).expect("good");
        assert_eq!(short.command, ["consul", "leave"]);
        let long = parse(
            r#"exec = { command = ["a", "-b"], env = { K = "v=w", PORT = 8080 }, dir = "/x", user = 1000, input = "in",
                        leave-running = true, stdout = "discard" }"#,
        )
        .expect("good");
        let line = "x --env K=v=w --env PORT=8080 --dir /x --user 1000 --input in --leave-running --stdout discard";
        for dashes in [&["--"][..], &[]] {
            let words = line.split(' ').chain(dashes.iter().copied()).chain(["a", "-b"]);
            let command = describe(clap::Command::new("x"), || Box::new(Typed::default()));
            let mut typed = Typed::default();
            take(&mut typed, &command.try_get_matches_from(words).expect("good")).expect("good");
            assert_eq!(typed, long);
        }
    }

    #[test]
    fn says_what_is_wrong_with_the_form() {
        for (text, message) in [
            (
                r#"exec = "consul leave""#,
                "exec is a list, because no shell splits it into words: write [\"sh\", \"-c\", \"consul leave\"] for a shell",
            ),
            (
                "exec = 3",
                "invalid type: integer `3`, expected a list such as [\"consul\", \"leave\"], or a table with `command`",
            ),
            (r#"exec = { env = {} }"#, "missing field `command`"),
            (
                r#"exec = { command = ["a"], stdout = "file" }"#,
                "`file` is not a place for output: write \"log\" or \"discard\"",
            ),
        ] {
            assert_eq!(parse(text), Err(message.into()), "{text}");
        }
        let unknown = parse(r#"exec = { command = ["a"], timeout = "1s" }"#).expect_err("unknown");
        assert!(unknown.starts_with("unknown field `timeout`, expected one of `command`, `env`"), "{unknown}");
    }

    #[test]
    fn notes_every_problem_and_every_secret() {
        let (mut secrets, mut problems) = (vec![], vec![]);
        let mut scope = Scope { place: "pre-stop".into(), ..Scope::new("f", &mut secrets, &mut problems) };
        let typed = parse(r#"exec = { command = [""], env = { "A=B" = "1" }, user = ":", dir = "" }"#).expect("a form");
        assert!(Exec::mean(typed, &mut scope).is_none());
        let typed =
            parse(r#"exec = { command = ["a"], env = { DB_PASSWORD = "hunter22", KEY = "1" } }"#).expect("good");
        assert!(Exec::mean(typed, &mut scope).is_some());
        assert_eq!(secrets, ["hunter22"]);
        let what: Vec<_> = problems.iter().map(|problem| format!("{}: {}", problem.place, problem.what)).collect();
        assert_eq!(
            what,
            [
                "pre-stop: command: the program's name is empty",
                "pre-stop: env: `A=B` is not the name of a variable",
                "pre-stop: dir: it is not a path",
                "pre-stop: user: `:` is not a user: write \"1000\", \"1000:1000\", \"www-data\" or \"www-data:adm\"",
            ]
        );
    }
}
