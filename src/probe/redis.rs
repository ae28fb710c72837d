//! `redis`: PING is answered by PONG. A server that loads its data says so; one that wants a login serves.

use std::{fmt, path::PathBuf};

use super::wire::{Peer, Wire, show};
use crate::{client::files, process::Processes, step::Progress};

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// A server, and who asks.
#[derive(Clone, Debug)]
pub struct Redis {
    pub peer: Peer,
    pub user: Option<String>,
    pub password: Password,
}

/// A file is read for each try, because it is rotated.
#[derive(Clone)]
pub enum Password {
    None,
    Text(String),
    File(PathBuf),
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

impl Redis {
    /// Tries once.
    ///
    /// # Errors
    /// Why it does not serve.
    pub async fn hold(&self, processes: &Processes, progress: &Progress) -> Result<(), String> {
        let password = match &self.password {
            Password::None => None,
            Password::Text(text) => Some(text.clone()),
            Password::File(path) => {
                let path = path.clone();
                Some(
                    crate::task::blocking(move || files::read_line(&path))
                        .await
                        .map_err(|error| error.to_string())??,
                )
            }
        };
        let mut wire = Wire::open(&self.peer, processes, progress).await?;
        if let Some(password) = &password {
            let words: Vec<&str> =
                ["AUTH"].into_iter().chain(self.user.as_deref()).chain([password.as_str()]).collect();
            let mut login = format!("*{}\r\n", words.len());
            for word in words {
                login.push_str(&format!("${}\r\n{word}\r\n", word.len()));
            }
            wire.send(login.as_bytes()).await?;
            let said = read_reply(&mut wire).await?;
            if said != "+OK" {
                // A server may repeat what it does not understand.
                return Err(reason_of(&said.replace(password.as_str(), "***")));
            }
        }
        wire.send(PING).await?;
        judge(&read_reply(&mut wire).await?)
    }
}

/// One line: a status (`+`) or an error (`-`).
async fn read_reply(wire: &mut Wire) -> Result<String, String> {
    if !matches!(wire.peek(1).await?[0], b'+' | b'-') {
        return Err(format!("it does not answer as Redis does: {}", wire.show()));
    }
    let line = wire.take_through(b"\r\n", &|_| {}).await?;
    Ok(String::from_utf8_lossy(line.trim_ascii_end()).into_owned())
}

fn judge(said: &str) -> Result<(), String> {
    match said.split(' ').next().unwrap_or_default() {
        // The last two: it is not for us, but it serves.
        "+PONG" | "-NOAUTH" | "-NOPERM" => Ok(()),
        _ => Err(reason_of(said)),
    }
}

/// `-LOADING Redis is loading …`, without the sign.
fn reason_of(said: &str) -> String {
    show(said.strip_prefix(['-', '+']).unwrap_or(said).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judges_each_answer() {
        for (said, wanted) in [
            ("+PONG", Ok(())),
            ("-NOAUTH Authentication required.", Ok(())),
            ("-NOPERM this user has no permissions", Ok(())),
            ("-LOADING Redis is loading the dataset in memory", Err("LOADING Redis is loading the dataset in memory")),
            ("-BUSY Redis is busy running a script", Err("BUSY Redis is busy running a script")),
            ("+OK", Err("OK")),
            ("-", Err("")),
        ] {
            assert_eq!(judge(said), wanted.map_err(String::from), "{said}");
        }
    }
}
