//! Keeps secrets out of everything that leaves the agent: what the configuration marked as secret is replaced wherever
//! it would appear in a log line, a reason or a report. Pure.

use std::cmp::Reverse;

use crate::short;

/// Shorter "secrets" are not replaced: they would blot out words everywhere and protect nobody.
const SHORTEST: usize = 4;

/// What stands where a secret stood.
const MASK: &str = "[secret]";

/// Environment variables with these in their names are taken for secrets, so that no log shows their values.
const SECRET_WORDS: [&str; 5] = ["PASS", "TOKEN", "SECRET", "KEY", "CREDENTIAL"];

/// A value that is a common word anyway would blacken half the log.
const SHORTEST_GUESSED: usize = 6;

/// Whether an environment variable looks like a secret, by its name.
pub fn is_secret(name: &str, value: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    value.len() >= SHORTEST_GUESSED && SECRET_WORDS.iter().any(|word| upper.contains(word))
}

/// The values that must never be shown.
#[derive(Clone, Default)]
pub struct Secrets(Vec<String>);

impl Secrets {
    pub fn new(values: Vec<String>) -> Self {
        let mut secrets = Vec::new();
        for value in values.into_iter().filter(|value| value.len() >= SHORTEST) {
            // Longest first: a secret within another must not leave the rest of the longer one standing.
            short::insert_by_key(&mut secrets, value, |value| Reverse(value.len()));
        }
        secrets.dedup();
        Self(secrets)
    }

    /// The text without any secret; the same text when there is none in it.
    pub fn redact(&self, text: String) -> String {
        let mut text = text;
        for secret in &self.0 {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), MASK);
            }
        }
        text
    }

    /// How many bytes at the end of a piece may be the beginning of a secret that goes on in the next.
    pub fn held_back(&self, piece: &[u8]) -> usize {
        let begins = |secret: &String| {
            (1..secret.len()).rev().find(|length| piece.ends_with(&secret.as_bytes()[..*length])).unwrap_or(0)
        };
        self.0.iter().map(begins).max().unwrap_or(0)
    }
}

/// Never shows what it holds.
impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_known_by_its_name() {
        for (name, value, want) in [
            ("API_KEY", "a-long-value", true),
            ("db_password", "a-long-value", true),
            ("HOST_IP", "10.20.30.40", false),
            ("TOKEN", "short", false),
        ] {
            assert_eq!(is_secret(name, value), want, "{name}={value}");
        }
    }

    #[test]
    fn the_beginning_of_a_secret_is_held_back() {
        let secrets = Secrets::new(vec!["hunter2".into(), "terminal".into()]);
        for (piece, want) in [
            ("a hunter", 6),
            ("a hunter2", 0),
            ("h", 1),
            ("x", 0),
            ("", 0),
            ("a hun ter", 3),
            ("hunt", 4),
            ("inter", 3),
        ] {
            assert_eq!(secrets.held_back(piece.as_bytes()), want, "{piece}");
        }
    }

    #[test]
    fn no_secret_is_left_standing() {
        let secrets = Secrets::new(vec!["hunter2".into(), "hunter2-long".into(), "ab".into()]);
        assert_eq!(secrets.redact("Bearer hunter2-long, hunter2, ab".into()), "Bearer [secret], [secret], ab");
        assert_eq!(format!("{secrets:?}"), "Secrets(2)");
    }
}
