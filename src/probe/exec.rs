//! `exec` as a check: a command that ends with 0. Unlike the step of that name nothing of what it says goes to the log,
//! since it may run every second; the first line becomes the reason. Whatever it started ends with it, and with the try.

use std::{io, process::Stdio};

use tokio::{io::AsyncReadExt, net::unix::pipe::Receiver};

use super::wire::show;
use crate::{
    process::{ExitStatus, Processes, open_pipe},
    step::{Progress, exec::Exec},
};

/// The first line is looked for in so much; the rest is read and dropped, so that the command never blocks.
const KEPT: usize = 4 << 10;
/// What a pipe may still hold when the command has ended (64 KiB, pipe(7)), in pieces of [`KEPT`].
const LEFT_IN_PIPE: usize = 16;

/// Tries once.
///
/// # Errors
/// Why it does not hold.
pub async fn hold(exec: &Exec, processes: &Processes, progress: &Progress) -> Result<(), String> {
    let (mut pipe, stdout, stderr) = open().map_err(|error| format!("cannot run a command: {error}"))?;
    let (child, guard) = exec.launch(stdout, stderr, processes).await.map_err(|error| error.text)?;
    progress.set(format!("{}: it has not ended", exec.program()));
    let (mut said, mut chunk) = (Vec::new(), vec![0; KEPT]);
    let mut is_open = true;
    let status = loop {
        tokio::select! {
            biased;
            status = child.wait() => break status,
            read = pipe.read(&mut chunk), if is_open => match read {
                Ok(count @ 1..) => {
                    keep(&mut said, &chunk[..count]);
                    // There may be more for ever: everybody else gets a turn.
                    tokio::task::yield_now().await;
                }
                _ => is_open = false,
            },
        }
    };
    for _ in 0..LEFT_IN_PIPE {
        let Ok(count @ 1..) = pipe.try_read(&mut chunk) else { break };
        keep(&mut said, &chunk[..count]);
    }
    guard.end().await;
    if status == ExitStatus::Code(0) {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&said);
    Err(match text.lines().map(str::trim).find(|line| !line.is_empty()) {
        Some(line) => format!("{}: {status}: {}", exec.program(), show(line.as_bytes())),
        None => format!("{}: {status}", exec.program()),
    })
}

fn keep(said: &mut Vec<u8>, piece: &[u8]) {
    said.extend_from_slice(&piece[..piece.len().min(KEPT - said.len())]);
}

fn open() -> io::Result<(Receiver, Stdio, Stdio)> {
    let (reader, writer) = open_pipe()?;
    let second = writer.try_clone()?;
    Ok((Receiver::from_owned_fd(reader)?, writer.into(), second.into()))
}
