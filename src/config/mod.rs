//! The configuration: found (`--config`, else `BOATHOOK_CONFIG`, else the usual place), read as typed, given meaning.
//! Either the whole of it is good or the caller gets every problem; nothing is ever skipped.

mod document;
mod meaning;
pub mod typed;

use std::path::{Path, PathBuf};

pub use meaning::{App, Config, Gate, HookConfig, LogConfig, LogFormat, Server};

use crate::{
    problem::{Files, Problem},
    short,
};
use document::Document;
pub use document::{is_near, variables};

/// Where a configuration is looked for when nobody names one.
pub const USUAL_PLACE: &str = "/etc/boathook/boathook.toml";

/// A mounted ConfigMap holds at most 1 MiB (Kubernetes' limit); a larger file is not a configuration.
const LARGEST: usize = 1 << 20;

/// Whether the configuration is for an agent that listens: then somebody must have the right to trigger its hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    Needed,
    /// An exec hook without an agent.
    None,
}

/// Finds, reads and checks the configuration.
///
/// # Errors
/// Every problem in it.
pub fn load(named: Option<&Path>, listener: Listener) -> Result<Config, Vec<Problem>> {
    match find(named)? {
        Some((file, text)) => parse(&file, &text, &|name| std::env::var(name).ok(), listener),
        None => Ok(Config::without_file()),
    }
}

/// Finds the configuration: the file's name and its text; `None` where nobody names one and none is in the usual place.
///
/// # Errors
/// It cannot be read, or is not text.
pub fn find(named: Option<&Path>) -> Result<Option<(String, String)>, Vec<Problem>> {
    let from_environment = std::env::var_os("BOATHOOK_CONFIG").filter(|value| !value.is_empty()).map(PathBuf::from);
    let (path, source) = match (named, &from_environment) {
        (Some(path), _) => (path, "--config"),
        (None, Some(path)) => (path.as_path(), "BOATHOOK_CONFIG"),
        (None, None) => (Path::new(USUAL_PLACE), ""),
    };
    let file = path.display().to_string();
    let text = match crate::sys::file::read_small_regular(path, LARGEST) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && source.is_empty() => {
            return Ok(None);
        }
        Err(error) => {
            let help = match source {
                "" => "put a regular TOML file there, or none for the defaults".into(),
                source => format!("{source} names this file; mount it there, or name another"),
            };
            return Err(vec![whole_file(&file, format!("cannot be read: {error}"), Some(help))]);
        }
    };
    let Ok(text) = String::from_utf8(text) else {
        return Err(vec![whole_file(
            &file,
            "is not text (not UTF-8)".into(),
            Some("a configuration is a TOML file; `boathook config` prints one".into()),
        )]);
    };
    Ok(Some((file, text)))
}

/// Reads a configuration from its text; `environment` gives the values for `${NAME}`.
///
/// # Errors
/// Every problem in it.
pub fn parse(
    file: &str,
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
    listener: Listener,
) -> Result<Config, Vec<Problem>> {
    parse_with(file, text, environment, listener, Files::Here)
}

/// Reads a configuration away from its container: the files that it names are not looked at.
///
/// # Errors
/// Every problem in it.
pub fn parse_elsewhere(
    file: &str,
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
    listener: Listener,
) -> Result<Config, Vec<Problem>> {
    parse_with(file, text, environment, listener, Files::Elsewhere)
}

fn parse_with(
    file: &str,
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
    listener: Listener,
    files: Files,
) -> Result<Config, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut document = Document::new(file, text);
    let typed: Option<typed::Config> = document.read(environment, &mut problems);
    let read = problems.len();
    let config = typed.map(|typed| meaning::mean(typed, &document, environment, files, &mut problems));
    if listener == Listener::Needed
        && let Some(config) = &config
    {
        problems.extend(config.check_listener().err());
    }
    leave_out_what_follows(&mut problems, read);
    for problem in &mut problems {
        problem.what = document.hide_values(&problem.what);
        problem.place = document.hide_values(&problem.place);
        problem.help = problem.help.take().map(|help| document.hide_values(&help));
    }
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => {
            let mut by_line = Vec::new();
            for problem in problems {
                short::insert_by_key(&mut by_line, problem, |problem| problem.line);
            }
            by_line.dedup();
            Err(by_line)
        }
    }
}

/// An entry that could not be read was taken out, so something now seems to be missing around it, such as what a step
/// does: only the cause is told. The first `read` problems come from reading.
fn leave_out_what_follows(problems: &mut Vec<Problem>, read: usize) {
    let causes: Vec<String> = problems[..read].iter().map(|problem| problem.place.clone()).collect();
    let mut index = 0;
    problems.retain(|problem| {
        let may_follow = index >= read || problem.what.starts_with("the key ");
        index += 1;
        let inside = format!("{}: ", problem.place);
        !(may_follow && !problem.place.is_empty() && causes.iter().any(|cause| cause.starts_with(&inside)))
    });
}

fn whole_file(file: &str, what: String, help: Option<String>) -> Problem {
    Problem { file: file.into(), line: None, place: String::new(), what, help }
}
