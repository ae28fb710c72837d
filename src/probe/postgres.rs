//! `postgres`: what `pg_isready` does. A startup packet of protocol 3.0 gets a request to authenticate, or an error; any
//! error but 57P03 comes from a server that takes connections.
//!
//! The server should not have to log that as something broken. One that asks for a password takes a connection that ends
//! there for a client that has none (`recv_password_packet` in `src/backend/libpq/auth.c`: "this is legal per protocol
//! spec, so complaining just clutters the log"); one that asks for nothing is told good-bye.

use super::wire::{MOST, Peer, Wire, show};
use crate::{process::Processes, step::Progress};

/// 3.0, the major number in the upper half.
const PROTOCOL: u32 = 3 << 16;
/// Nearly every server has this user, and its database has the same name: so no failed login is logged.
pub const USER: &str = "postgres";
/// `cannot_connect_now`: starting up, shutting down, in recovery.
const CANNOT_CONNECT_NOW: &str = "57P03";
/// `Terminate`.
const TERMINATE: &[u8] = &[b'X', 0, 0, 0, 4];
/// As in libpq (`fe-connect.c`): an error with another length is one of a postmaster that could not even fork, and is
/// plain text.
const ERROR_LENGTHS: std::ops::RangeInclusive<usize> = 8..=30000;

/// A server, and who asks.
#[derive(Clone, Debug)]
pub struct Postgres {
    pub peer: Peer,
    pub user: String,
    /// The user's name if not given, as everywhere.
    pub database: Option<String>,
}

/// The socket in a folder such as `/run/postgresql`, which is how PostgreSQL's own clients name it.
pub fn socket_in(peer: Peer) -> Peer {
    match peer {
        Peer::Unix(path) if !path.to_string_lossy().contains(".s.PGSQL.") => Peer::Unix(path.join(".s.PGSQL.5432")),
        peer => peer,
    }
}

impl Postgres {
    /// Tries once.
    ///
    /// # Errors
    /// Why it does not take connections.
    pub async fn hold(&self, processes: &Processes, progress: &Progress) -> Result<(), String> {
        let mut wire = Wire::open(&self.peer, processes, progress).await?;
        wire.send(&self.startup()).await?;
        let head = wire.peek(1).await?[0];
        if !matches!(head, b'R' | b'E') {
            return Err(other(&wire));
        }
        let length = match wire.peek(5).await? {
            [_, length @ ..] => length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)),
            [] => 0,
        };
        if head == b'E' {
            if !ERROR_LENGTHS.contains(&length) {
                return Err(other(&wire));
            }
            let error = wire.take(1 + length).await?;
            return judge(&error[5..]);
        }
        if !(8..=MOST - 1).contains(&length) {
            return Err(other(&wire));
        }
        // The whole of it: an unread rest would reset the connection.
        let request = wire.take(1 + length).await?;
        if request[5..9] == [0; 4] && wire.send(TERMINATE).await.is_ok() {
            wire.see_off().await;
        }
        Ok(())
    }

    /// `StartupMessage`: its length, the version, names and values, and an empty name.
    fn startup(&self) -> Vec<u8> {
        let database = self.database.as_deref().unwrap_or(&self.user);
        let words = ["user", &self.user, "database", database, "application_name", "boathook"];
        let mut body = PROTOCOL.to_be_bytes().to_vec();
        for word in words {
            body.extend_from_slice(word.as_bytes());
            body.push(0);
        }
        body.push(0);
        let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
        [&length.to_be_bytes()[..], &body].concat()
    }
}

fn other(wire: &Wire) -> String {
    format!("it does not answer as PostgreSQL does: {}", wire.show())
}

/// `ErrorResponse`: fields of one letter and a text; `C` is the code, `M` what people read.
fn judge(fields: &[u8]) -> Result<(), String> {
    let field = |letter: u8| {
        let mut texts = fields.split(|byte| *byte == 0);
        texts.find_map(|text| text.strip_prefix(&[letter])).map(show).unwrap_or_default()
    };
    match (field(b'C'), field(b'M')) {
        (code, message) if code == CANNOT_CONNECT_NOW || code.is_empty() => Err(message),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_error_is_no_server() {
        for (fields, wanted) in [
            (
                &b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0"[..],
                Err("the database system is starting up"),
            ),
            (b"SFATAL\0C28P01\0Mpassword authentication failed\0\0", Ok(())),
            (b"SFATAL\0C3D000\0Mdatabase \"x\" does not exist\0\0", Ok(())),
            (b"SFATAL\0C53300\0Msorry, too many clients already\0\0", Ok(())),
            (b"Msomething\0\0", Err("something")),
            (b"\0\0\0", Err("")),
            (b"", Err("")),
        ] {
            assert_eq!(judge(fields), wanted.map_err(String::from), "{}", String::from_utf8_lossy(fields));
        }
    }

    #[test]
    fn its_folder_is_enough() {
        for (path, socket) in [
            ("/run/postgresql", "/run/postgresql/.s.PGSQL.5432"),
            ("/run/postgresql/.s.PGSQL.6432", "/run/postgresql/.s.PGSQL.6432"),
        ] {
            assert_eq!(socket_in(Peer::Unix(path.into())).to_string(), socket);
        }
        assert_eq!(socket_in(Peer::Tcp("db".into(), 5432)).to_string(), "db:5432");
    }

    #[test]
    fn says_who_asks() {
        let peer = Peer::Tcp("db".into(), 5432);
        let asks = Postgres { peer, user: "me".into(), database: None };
        let told = b"\0\0\0\x37\0\x03\0\0user\0me\0database\0me\0application_name\0boathook\0\0";
        assert_eq!(asks.startup(), told);
    }
}
