//! A step's condition (`when`): a file exists or contains, an environment variable is, a command succeeds. Several in
//! one `when` must all hold. A condition that does not hold skips the step; one that cannot be told fails it.

use std::path::{Path, PathBuf};

use super::{Context, End, Kind, exec};
use crate::{keys::keys, problem::Scope, sys::file};

/// Files are searched for a word up to here (1 MiB): a flag file is small, and a log is not a flag.
const LARGEST: usize = 1 << 20;

keys! {
    /// `when = { file-exists = "/etc/consul.d" }`.
    #[derive(Debug)]
    pub struct Typed {
        file_exists: Option<PathBuf> = Toml,
        file_missing: Option<PathBuf> = Toml,
        file_contains: Option<Contains> = Toml,
        /// Name = value; an empty value: the variable is unset or empty.
        env: Vec<(String, String)> = Toml,
        command: Option<<exec::Exec as Kind>::Typed> = Toml,
    }
}

keys! {
    #[derive(Clone, Debug)]
    struct Contains {
        file: PathBuf = Toml,
        text: String = Toml,
    }
    impl {
        fn needed(&self) -> &'static [&'static str] {
            &["file", "text"]
        }
    }
}

/// What must hold for the step to run.
#[derive(Debug)]
pub struct Condition(Vec<Test>);

#[derive(Debug)]
enum Test {
    Exists(PathBuf),
    Missing(PathBuf),
    Contains(Contains),
    Env { name: String, value: String },
    Command(exec::Exec),
}

/// Whether a condition holds, and why not.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Holds,
    Not(String),
    Unknown(String),
}

impl Condition {
    pub fn mean(typed: Typed, scope: &mut Scope<'_>) -> Option<Self> {
        let mut tests = Vec::new();
        tests.extend(typed.file_exists.map(Test::Exists));
        tests.extend(typed.file_missing.map(Test::Missing));
        tests.extend(typed.file_contains.map(Test::Contains));
        tests.extend(typed.env.into_iter().map(|(name, value)| Test::Env { name, value }));
        if let Some(command) = typed.command {
            let place = scope.place.clone();
            scope.place = format!("{place}: when: command");
            let command = exec::Exec::mean(command, scope);
            scope.place = place;
            tests.push(Test::Command(command?));
        }
        if tests.is_empty() {
            scope.problem(
                "when",
                "it names no condition",
                "add file-exists, file-missing, file-contains, env or command".to_owned(),
            );
            return None;
        }
        Some(Self(tests))
    }

    /// Tests in order and stops at the first that does not hold.
    pub async fn test(&self, context: &Context) -> Verdict {
        for test in &self.0 {
            let verdict = test.test(context).await;
            if verdict != Verdict::Holds {
                return verdict;
            }
        }
        Verdict::Holds
    }
}

impl Test {
    async fn test(&self, context: &Context) -> Verdict {
        match self {
            Test::Exists(path) => {
                look(path, |path| match exists(path) {
                    Ok(true) => Verdict::Holds,
                    Ok(false) => Verdict::Not(format!("{} does not exist", path.display())),
                    Err(error) => Verdict::Unknown(format!("{}: {error}", path.display())),
                })
                .await
            }
            Test::Missing(path) => {
                look(path, |path| match exists(path) {
                    Ok(false) => Verdict::Holds,
                    Ok(true) => Verdict::Not(format!("{} exists", path.display())),
                    Err(error) => Verdict::Unknown(format!("{}: {error}", path.display())),
                })
                .await
            }
            Test::Contains(Contains { file, text }) => {
                let text = text.clone();
                look(file, move |path| contains(path, &text)).await
            }
            Test::Env { name, value } => {
                let now = std::env::var_os(name).unwrap_or_default();
                if now.as_encoded_bytes() == value.as_bytes() {
                    Verdict::Holds
                } else {
                    // Never the value that it has: it may be a secret.
                    Verdict::Not(format!("the environment variable {name} is not \"{value}\""))
                }
            }
            Test::Command(command) => match command.run(context).await {
                End::Done(_) | End::Skipped(_) => Verdict::Holds,
                // A command that could not be run, or that did not end, has not said no.
                End::FailedForGood(why) | End::TimedOut(why) => Verdict::Unknown(why),
                End::Failed(why) => Verdict::Not(format!("the condition's command failed: {why}")),
            },
        }
    }
}

/// A file system can hang, so looks are taken on a thread of their own.
async fn look(path: &Path, test: impl FnOnce(&Path) -> Verdict + Send + 'static) -> Verdict {
    let path = path.to_owned();
    let told = crate::task::blocking(move || test(&path)).await;
    told.unwrap_or_else(|_| Verdict::Unknown("the agent is ending".into()))
}

fn exists(path: &Path) -> std::io::Result<bool> {
    path.try_exists()
}

fn contains(path: &Path, text: &str) -> Verdict {
    match file::read_small_regular(path, LARGEST) {
        Ok(bytes) if text.is_empty() || bytes.windows(text.len()).any(|window| window == text.as_bytes()) => {
            Verdict::Holds
        }
        Ok(_) => Verdict::Not(format!("{} does not contain \"{text}\"", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Verdict::Not(format!("{} does not exist", path.display()))
        }
        Err(error) => Verdict::Unknown(format!("{}: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_searched_for_its_word() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("flag");
        assert_eq!(contains(&path, "on"), Verdict::Not(format!("{} does not exist", path.display())));
        std::fs::write(&path, "mode=on\n").expect("written");
        assert_eq!(contains(&path, "=on"), Verdict::Holds);
        assert_eq!(contains(&path, "off"), Verdict::Not(format!("{} does not contain \"off\"", path.display())));
        assert!(matches!(contains(folder.path(), "on"), Verdict::Unknown(_)));
    }
}
