//! What is wrong with something the user wrote: where, what, and how to fix it. Problems are collected, never
//! printed here: a user gets all of them at once, and only `main` prints.

use std::fmt;

/// One thing wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, or `command line`.
    pub file: String,
    /// The line in it, counted from 1, where one is known.
    pub line: Option<usize>,
    /// `pre-stop: step "save sessions": timeout`; empty for the whole file.
    pub place: String,
    /// What is wrong and why, lowercase, without a full stop.
    pub what: String,
    /// How to fix it.
    pub help: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.place.is_empty() {
            write!(f, ": {}", self.place)?;
        }
        write!(f, ": {}", self.what)?;
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

/// Whether the files that a configuration names are there while it is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Files {
    /// In the container: what is not there or cannot be read is a problem.
    #[default]
    Here,
    /// On a laptop or in a pipeline, where a pod is held against the configuration: they are not looked at.
    Elsewhere,
}

/// Where the second stage of the configuration stands while it gives meaning to what was typed: it knows the
/// place for messages and collects the problems.
pub struct Scope<'a> {
    pub file: &'a str,
    pub line: Option<usize>,
    pub place: String,
    /// What the step at this place is called; empty where it has no name, unless its kind gives it one.
    pub step_name: String,
    /// `[app] ports`, for the kinds of step that take them from there.
    pub app_ports: &'a [u16],
    /// `[app] graceful-stop`, for those that may leave something to it.
    pub graceful_stop: bool,
    pub files: Files,
    /// Values that must never be shown (passwords, tokens): see `redact.rs`.
    pub secrets: &'a mut Vec<String>,
    pub problems: &'a mut Vec<Problem>,
}

impl<'a> Scope<'a> {
    /// At the beginning of a file.
    pub fn new(file: &'a str, secrets: &'a mut Vec<String>, problems: &'a mut Vec<Problem>) -> Self {
        Self {
            file,
            line: None,
            place: String::new(),
            step_name: String::new(),
            app_ports: &[],
            graceful_stop: false,
            files: Files::Here,
            secrets,
            problems,
        }
    }

    /// For what was typed by hand.
    pub fn of_command_line(secrets: &'a mut Vec<String>, problems: &'a mut Vec<Problem>) -> Self {
        Self::new("command line", secrets, problems)
    }
}

impl Scope<'_> {
    /// Notes a problem at this place; `key` (may be empty) is appended to the place.
    pub fn problem(&mut self, key: &str, what: impl Into<String>, help: impl Into<Option<String>>) {
        let place = match (self.place.is_empty(), key.is_empty()) {
            (_, true) => self.place.clone(),
            (true, false) => key.into(),
            (false, false) => format!("{}: {key}", self.place),
        };
        self.problems.push(Problem {
            file: self.file.into(),
            line: self.line,
            place,
            what: what.into(),
            help: help.into(),
        });
    }
}
