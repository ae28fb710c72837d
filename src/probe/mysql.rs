//! `mysql`, also for MariaDB: what `mysqladmin ping` does. The server greets; an error instead of the greeting is a
//! reason. Then the handshake is finished and the session ended in order, because a server counts handshakes that were
//! broken off and blocks their host after `max_connect_errors` of them (HAProxy's `mysql-check` does the same).
//!
//! Who asks has no password. Access denied counts as up: a server that looks at users serves.

use super::wire::{MOST, Peer, Wire, show};
use crate::{process::Processes, step::Progress};

/// Who asks if nobody is named: a user of its own keeps the server's log clean, and has no rights
/// (`CREATE USER boathook@'%'`).
pub const USER: &str = "boathook";

/// CLIENT_LONG_PASSWORD (for MariaDB: no bits of its own follow), CLIENT_PROTOCOL_41, CLIENT_SECURE_CONNECTION.
const CAPABILITIES: u32 = 1 | PROTOCOL_41 | 1 << 15;
const PROTOCOL_41: u32 = 1 << 9;
const PLUGIN_AUTH: u32 = 1 << 19;
/// utf8_general_ci, which every version has.
const CHARACTERS: u8 = 33;
const COM_QUIT: u8 = 1;

/// The first byte of what a server says.
const GREETING: u8 = 10;
const ERROR: u8 = 0xff;
const OTHER_METHOD: u8 = 0xfe;
const MORE: u8 = 1;

/// Rounds of a login: a method, another one, more of it. Nobody without a password is asked more often.
const ROUNDS: usize = 4;

/// Errors after the greeting that mean that nobody gets in: too many connections, shutdown in progress, host blocked,
/// offline mode.
const NOT_NOW: [u16; 4] = [1040, 1053, 1129, 3032];

/// A server, and who asks.
#[derive(Clone, Debug)]
pub struct Mysql {
    pub peer: Peer,
    pub user: String,
}

impl Mysql {
    /// Tries once.
    ///
    /// # Errors
    /// Why it is not up.
    pub async fn hold(&self, processes: &Processes, progress: &Progress) -> Result<(), String> {
        let mut wire = Wire::open(&self.peer, processes, progress).await?;
        let (_, greeting) = read_packet(&mut wire).await?;
        match greeting.first() {
            Some(&ERROR) => return Err(read_error(&greeting).1),
            Some(&GREETING) => {}
            _ => return Err(format!("it does not answer as MySQL does: {}", show(&greeting))),
        }
        // What does not know this handshake is older than anything that is still run; it serves all the same.
        let Some(login) = self.login(&greeting) else { return Ok(()) };
        wire.send(&login).await?;
        for _ in 0..ROUNDS {
            let (number, said) = read_packet(&mut wire).await?;
            match said.first() {
                Some(&ERROR) => {
                    let (code, text) = read_error(&said);
                    return if NOT_NOW.contains(&code) { Err(text) } else { Ok(()) };
                }
                // Whatever the method: no password is nothing at all.
                Some(&(OTHER_METHOD | MORE)) => wire.send(&packet(number.wrapping_add(1), &[])).await?,
                // Nobody need answer: should it be lost, the session ends with the connection.
                _ => return wire.send(&packet(0, &[COM_QUIT])).await.or(Ok(())),
            }
        }
        Ok(())
    }

    /// `HandshakeResponse41`, with the method that the greeting proposes.
    fn login(&self, greeting: &[u8]) -> Option<Vec<u8>> {
        // The version ends with a NUL; then the thread (4 bytes), the challenge (8), a filler (1), and flags.
        let rest = &greeting[1 + greeting.iter().skip(1).position(|byte| *byte == 0)? + 1..];
        let (low, high) = (rest.get(13..15)?, rest.get(18..20).unwrap_or(&[0, 0]));
        let offered = u32::from_le_bytes([low[0], low[1], high[0], high[1]]);
        if offered & PROTOCOL_41 == 0 {
            return None;
        }
        // Behind the flags: the challenge's length (1), ten bytes, its rest (13 at least), and the method's name.
        let challenge = usize::from(rest.get(20).copied().unwrap_or(0)).saturating_sub(8).max(13);
        let method = rest.get(31 + challenge..).and_then(|name| name.split(|byte| *byte == 0).next()).unwrap_or(&[]);
        let mut login = (CAPABILITIES | offered & PLUGIN_AUTH).to_le_bytes().to_vec();
        login.extend(u32::try_from(MOST).unwrap_or(u32::MAX).to_le_bytes());
        login.push(CHARACTERS);
        login.extend([0; 23]);
        login.extend(self.user.as_bytes());
        // The name's end, and an empty answer to the challenge.
        login.extend([0, 0]);
        if offered & PLUGIN_AUTH != 0 {
            login.extend(method);
            login.push(0);
        }
        Some(packet(1, &login))
    }
}

/// A packet: its length in three bytes, its number, and what it holds.
fn packet(number: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    [&[length[0], length[1], length[2], number], body].concat()
}

async fn read_packet(wire: &mut Wire) -> Result<(u8, Vec<u8>), String> {
    let (length, number) = match wire.peek(4).await? {
        [a, b, c, number] => (usize::from(*a) | usize::from(*b) << 8 | usize::from(*c) << 16, *number),
        _ => (0, 0),
    };
    if !(1..MOST - 4).contains(&length) {
        return Err(format!("it does not answer as MySQL does: {}", wire.show()));
    }
    wire.take(4).await?;
    Ok((number, wire.take(length).await?))
}

/// `ERR_Packet`: the code, and what people read.
fn read_error(packet: &[u8]) -> (u16, String) {
    let code = packet.get(1..3).map_or(0, |code| u16::from_le_bytes([code[0], code[1]]));
    let text = packet.get(3..).unwrap_or_default();
    // Before the text there may be a `#` and five letters of SQL state.
    let text = if text.first() == Some(&b'#') { text.get(6..).unwrap_or_default() } else { text };
    (code, format!("{} (error {code})", show(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks() -> Mysql {
        Mysql { peer: Peer::Tcp("db".into(), 3306), user: "me".into() }
    }

    #[test]
    fn reads_errors() {
        for (packet, wanted) in [
            (&b"\xff\x10\x04Too many connections"[..], (1040, "Too many connections (error 1040)")),
            (b"\xff\x15\x04#28000Access denied", (1045, "Access denied (error 1045)")),
            (b"\xff\x15\x04#", (1045, " (error 1045)")),
            (b"\xff", (0, " (error 0)")),
        ] {
            assert_eq!(read_error(packet), (wanted.0, wanted.1.to_string()));
        }
    }

    #[test]
    fn logs_in_as_the_greeting_proposes() {
        let greeting = [
            &b"\x0a8.4.0\0\x08\0\0\0abcdefgh\0\xff\xff\x21\x02\0\xff\xdf\x15\0\0\0\0\0\0\0\0\0\0ijklmnopqrst\0"[..],
            b"caching_sha2_password\0",
        ]
        .concat();
        let login = asks().login(&greeting).expect("a login");
        let mut wanted = vec![58, 0, 0, 1, 1, 0x82, 8, 0, 0, 0, 1, 0, 33];
        wanted.extend([0; 23]);
        wanted.extend(b"me\0\0caching_sha2_password\0");
        wanted[0] = u8::try_from(wanted.len() - 4).expect("short");
        assert_eq!(login, wanted);
        // Cut anywhere, it is a login without a method, or none.
        for length in 0..greeting.len() {
            let _ = asks().login(&greeting[..length]);
        }
        assert_eq!(asks().login(b"\x0a3.23\0"), None);
    }
}
