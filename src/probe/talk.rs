//! `tcp` and `unix`: a connection is accepted; and, where `expect` is given, what comes back holds a text: a banner
//! (SMTP's `220`), or the answer to what was sent.

use super::wire::{Peer, Wire};
use crate::{process::Processes, step::Progress};

/// What is said on the connection.
#[derive(Clone, Debug)]
pub struct Talk {
    pub send: String,
    pub expect: String,
}

/// Tries once.
///
/// # Errors
/// Why it does not hold.
pub async fn hold(peer: &Peer, talk: Option<&Talk>, processes: &Processes, progress: &Progress) -> Result<(), String> {
    let mut wire = Wire::open(peer, processes, progress).await?;
    let Some(talk) = talk else { return Ok(()) };
    wire.send(talk.send.as_bytes()).await?;
    let tell = |wire: &Wire| progress.set(format!("{peer}: not what is expected: {}", wire.show()));
    wire.take_through(talk.expect.as_bytes(), &tell).await.map(drop)
}
