//! Where a command line runs boathook, and what it is told: by itself, behind a small init or in a shell's script; pure.

use std::{path::PathBuf, sync::LazyLock};

use boathook::cli::{Cli, Command};
use clap::{CommandFactory, Parser};
use k8s_openapi::api::core::v1::Container;

/// What stands before a command in a script and is no command itself.
const BEFORE_COMMANDS: [&str; 15] =
    ["exec", "nohup", "command", "time", "if", "then", "else", "elif", "while", "until", "do", "!", "{", "(", "setsid"];

/// Shells that take a script after `-c`.
const SHELLS: [&str; 6] = ["sh", "bash", "ash", "dash", "zsh", "busybox"];

/// One start of boathook.
#[derive(Debug)]
pub struct Call {
    /// From the program on, variables replaced as far as they are known.
    pub words: Vec<String>,
    pub what: What,
    /// `--config`
    pub config: Option<PathBuf>,
    pub around: Around,
}

/// What it is told to do.
#[derive(Debug)]
pub enum What {
    Command(Box<Command>),
    /// boathook would refuse the words, for this reason.
    Refused(String),
    /// Some of it is only known in the container.
    Unknown,
}

/// What it is started by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Around {
    Nothing,
    /// `tini --` and its like, which start one command and pass signals on.
    Init,
    Shell(InShell),
}

/// How a shell's script starts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InShell {
    /// It takes the shell's place.
    pub by_exec: bool,
    pub in_background: bool,
    /// The script is this one command.
    pub alone: bool,
}

impl Call {
    pub fn command(&self) -> Option<&Command> {
        match &self.what {
            What::Command(command) => Some(command),
            What::Refused(_) | What::Unknown => None,
        }
    }

    /// The subcommand's name, also of words that are refused.
    pub fn subcommand(&self) -> &str {
        self.words.iter().skip(1).map(String::as_str).find(|word| is_subcommand(word)).unwrap_or_default()
    }

    /// As typed: `/boathook shutdown`.
    pub fn show(&self) -> String {
        self.words.join(" ")
    }
}

/// What may follow the program's name; without one of them the word is something else, such as a folder.
fn is_subcommand(word: &str) -> bool {
    static NAMES: LazyLock<Vec<String>> =
        LazyLock::new(|| Cli::command().get_subcommands().map(|command| command.get_name().to_owned()).collect());
    NAMES.iter().any(|name| name == word)
}

/// Every start of boathook in a command line.
pub fn calls(words: &[String]) -> Vec<Call> {
    if let Some(script) = script_of(words) {
        let commands = split(script);
        let count = commands.len();
        let mut found = Vec::new();
        for command in commands {
            let by_exec = command.words.iter().any(|word| word == "exec");
            let around = Around::Shell(InShell { by_exec, in_background: command.in_background, alone: count == 1 });
            let begins = command.words.iter().position(|word| !is_before(word)).unwrap_or(0);
            found.extend(call(&command.words[begins..], around));
        }
        return found;
    }
    call(words, Around::Nothing).into_iter().collect()
}

fn call(words: &[String], around: Around) -> Option<Call> {
    let at = (0..words.len()).find(|at| {
        let next = words.get(at + 1).map_or("", String::as_str);
        is_boathook(&words[*at]) && (is_subcommand(next) || next.starts_with('-'))
    })?;
    let words = words[at..].to_vec();
    let around = if at > 0 && around == Around::Nothing { Around::Init } else { around };
    // Words of the main process may hold anything.
    let own = words.iter().take_while(|word| *word != "--");
    let what = if own.clone().any(|word| word.contains('$') || word.contains('`')) {
        What::Unknown
    } else {
        match Cli::try_parse_from(&words) {
            Ok(cli) => What::Command(Box::new(cli.command)),
            Err(error) if !error.use_stderr() => What::Unknown,
            Err(error) => What::Refused(first_line(&error.to_string())),
        }
    };
    let own: Vec<&String> = own.collect();
    let config = own.iter().enumerate().find_map(|(at, word)| match word.strip_prefix("--config") {
        Some("") => own.get(at + 1).map(|path| PathBuf::from(path.as_str())),
        Some(rest) => rest.strip_prefix('=').map(PathBuf::from),
        None => None,
    });
    Some(Call { words, what, config, around })
}

/// The folders that an init container runs `boathook install` for.
pub fn installs(container: &Container) -> Vec<PathBuf> {
    let mut words: Vec<String> =
        container.command.iter().flatten().chain(container.args.iter().flatten()).cloned().collect();
    // With the image's ENTRYPOINT the words begin with the subcommand.
    if words.first().is_some_and(|word| word == "install") {
        words.insert(0, "boathook".into());
    }
    let folder = |call: Call| match call.command() {
        Some(Command::Install { dir }) => Some(dir.clone()),
        _ => None,
    };
    calls(&words).into_iter().filter_map(folder).collect()
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").into()
}

fn is_boathook(word: &str) -> bool {
    word.rsplit('/').next() == Some("boathook")
}

/// A shell's script: what follows `-c`.
pub fn script_of(words: &[String]) -> Option<&str> {
    let shell = words.iter().position(|word| SHELLS.contains(&word.rsplit('/').next().unwrap_or_default()))?;
    // Only directly: `boathook run -- sh -c …` is boathook's own command line.
    if words[..shell].iter().any(|word| is_boathook(word)) {
        return None;
    }
    let at = words.iter().skip(shell + 1).position(|word| word.starts_with('-') && word.ends_with('c'))?;
    words.get(shell + 1 + at + 1).map(String::as_str)
}

/// `NAME=value`, and the words that stand before commands.
fn is_before(word: &str) -> bool {
    let is_assignment = word
        .split_once('=')
        .is_some_and(|(name, _)| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
    is_assignment || BEFORE_COMMANDS.contains(&word)
}

/// One command of a script.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Simple {
    pub words: Vec<String>,
    pub in_background: bool,
}

/// A script's commands, as far as that can be told without running it: quotes, comments, redirections and what stands between
/// commands are understood, the rest are words.
pub fn split(script: &str) -> Vec<Simple> {
    let mut commands = Vec::new();
    let mut now = Simple::default();
    let mut word: Option<String> = None;
    let mut characters = script.chars().peekable();
    let end_word = |word: &mut Option<String>, now: &mut Simple| {
        if let Some(word) = word.take()
            && !is_redirection(&word)
        {
            now.words.push(word);
        }
    };
    while let Some(character) = characters.next() {
        match character {
            '\'' => {
                let word = word.get_or_insert_default();
                word.extend(characters.by_ref().take_while(|next| *next != '\''));
            }
            '"' => {
                let word = word.get_or_insert_default();
                while let Some(next) = characters.next() {
                    match next {
                        '"' => break,
                        '\\' => word.extend(characters.next()),
                        next => word.push(next),
                    }
                }
            }
            '\\' => match characters.next() {
                // A line that goes on.
                Some('\n') | None => {}
                Some(next) => word.get_or_insert_default().push(next),
            },
            '#' if word.is_none() => while characters.next_if(|next| *next != '\n').is_some() {},
            '&' if word.as_ref().is_some_and(|word| word.ends_with('>')) => word.get_or_insert_default().push('&'),
            ';' | '\n' | '|' | '&' | ')' => {
                end_word(&mut word, &mut now);
                let is_double = characters.next_if_eq(&character).is_some();
                now.in_background = character == '&' && !is_double;
                if !now.words.is_empty() {
                    commands.push(std::mem::take(&mut now));
                }
            }
            character if character.is_whitespace() => end_word(&mut word, &mut now),
            character => word.get_or_insert_default().push(character),
        }
    }
    end_word(&mut word, &mut now);
    if !now.words.is_empty() {
        commands.push(now);
    }
    commands
}

/// `2>&1`, `>/dev/null`; a bare `>` takes the next word with it, which then looks like one more argument: harmless, and rare.
fn is_redirection(word: &str) -> bool {
    word.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with(['<', '>'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &[&str]) -> Vec<String> {
        line.iter().map(ToString::to_string).collect()
    }

    fn shown(line: &[&str]) -> Vec<(String, Around)> {
        calls(&words(line)).into_iter().map(|call| (call.show(), call.around)).collect()
    }

    #[test]
    fn finds_boathook_in_command_lines() {
        let in_shell = |by_exec, in_background, alone| Around::Shell(InShell { by_exec, in_background, alone });
        for (line, found) in [
            (&["/boathook", "run", "--", "nginx"][..], &[("/boathook run -- nginx", Around::Nothing)][..]),
            (&["tini", "--", "/b/boathook", "run", "x"], &[("/b/boathook run x", Around::Init)]),
            (&["boathook", "--config", "/x", "shutdown"], &[("boathook --config /x shutdown", Around::Nothing)]),
            (&["sh", "-c", "exec /boathook run -- x"], &[("/boathook run -- x", in_shell(true, false, true))]),
            (
                &["/bin/sh", "-ec", "migrate && A=1 /boathook run -- x 2>&1"],
                &[("/boathook run -- x", in_shell(false, false, false))],
            ),
            (
                &["sh", "-c", "/boathook serve & # beside\nexec app"],
                &[("/boathook serve", in_shell(false, true, false))],
            ),
            (
                &["sh", "-c", "/boathook step sleep 1s; '/boathook' step \"drain\""],
                &[
                    ("/boathook step sleep 1s", in_shell(false, false, false)),
                    ("/boathook step drain", in_shell(false, false, false)),
                ],
            ),
            (
                &["/boathook", "run", "--", "sh", "-c", "/boathook ready"],
                &[("/boathook run -- sh -c /boathook ready", Around::Nothing)],
            ),
            (&["cp", "/boathook", "/shared/boathook"], &[]),
            (&["ls", "/opt/boathook"], &[]),
            (&["sh", "-c", "echo boathook"], &[]),
            (&["sh", "-c", "# boathook run"], &[]),
            (&["nginx"], &[]),
            (&[], &[]),
        ] {
            let found: Vec<(String, Around)> = found.iter().map(|(text, around)| ((*text).into(), *around)).collect();
            assert_eq!(shown(line), found, "{line:?}");
        }
    }

    #[test]
    fn knows_what_boathook_would_say() {
        let one = |line: &[&str]| calls(&words(line)).pop().expect("a call");
        assert!(matches!(one(&["/boathook", "shutdown"]).command(), Some(Command::Shutdown)));
        assert!(matches!(one(&["/boathook", "step", "drain", "--timeout", "$(T)"]).what, What::Unknown));
        let call = one(&["/boathook", "step", "drain", "--timeout", "25"]);
        let What::Refused(why) = call.what else { panic!("25 has no unit") };
        assert!(why.contains("`25` is not a duration"), "{why}");
        for line in [&["boathook", "--config", "/a", "run", "x"][..], &["boathook", "run", "--config=/a", "--", "x"]] {
            assert_eq!(one(line).config.as_deref(), Some(std::path::Path::new("/a")));
        }
        assert_eq!(one(&["boathook", "run", "--", "x", "--config", "/b"]).config, None);
        assert_eq!(one(&["boathook", "--config", "/x", "stap"]).subcommand(), "");
    }
}
