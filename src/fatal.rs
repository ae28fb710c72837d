//! Why the agent could not do its own job: an exit code and what to tell the user. Carried up to `main`, which alone
//! prints it.

use crate::{exit, problem::Problem};

/// The end of a command that could not do its job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fatal {
    /// From the table in `exit.rs`.
    pub code: u8,
    /// What went wrong, one problem an entry, each possibly with a `help:` line of its own.
    pub lines: Vec<String>,
}

impl Fatal {
    pub fn new(code: u8, line: impl Into<String>) -> Self {
        Self { code, lines: vec![line.into()] }
    }

    /// A configuration that is not good: all its problems at once.
    pub fn config(problems: &[Problem]) -> Self {
        Self { code: exit::CONFIG, lines: problems.iter().map(ToString::to_string).collect() }
    }
}

impl From<Problem> for Fatal {
    fn from(problem: Problem) -> Self {
        Self::config(&[problem])
    }
}
