//! What a command says: read as fast as it writes, so that it never blocks, given to the log line by line, and
//! bounded. What is beyond the bound is counted and dropped.

use std::{io, os::fd::OwnedFd};

use rustix::{fs::OFlags, pipe::PipeFlags};
use tokio::net::unix::pipe::Receiver;

use crate::log;

/// Longer lines are cut in pieces: half of what the log writes as one line, so that time, step and stream fit beside
/// them, and the backslashes of JSON as well.
const LINE: usize = 2 << 10;
/// For both streams of one attempt together. The kubelet rotates logs at 10 MiB; a hook is no reason for it.
const TOTAL: usize = 64 << 10;
/// What a line costs beside its text: time, level, step and stream stand before it.
const PER_LINE: usize = 64;
/// At most this much is taken at once; a pipe holds 64 KiB (pipe(7)), and a quarter is plenty for lines.
const CHUNK: usize = 16 << 10;
/// What a pipe can hold at most without privilege (`/proc/sys/fs/pipe-max-size`): more cannot have been written
/// before the command ended.
const LEFT_IN_PIPE: usize = 1 << 20;

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Stdout,
    Stderr,
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Both streams of one command.
#[derive(Debug)]
pub struct Capture {
    label: String,
    streams: Vec<Stream>,
    buffer: Vec<u8>,
    budget: Budget,
    last_error: Vec<u8>,
}

#[derive(Debug)]
struct Stream {
    source: Source,
    pipe: Receiver,
    line: Vec<u8>,
}

#[derive(Debug)]
struct Budget {
    left: usize,
    dropped: u64,
}

/// A pipe whose reading end does not block, while the writing end does, as programs expect. They are two open
/// files, so the flag of one is not that of the other.
pub fn open_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    rustix::fs::fcntl_setfl(&reader, OFlags::NONBLOCK)?;
    Ok((reader, writer))
}

impl Capture {
    /// `label` names the step in the log.
    pub fn new(label: &str) -> Self {
        Self {
            label: label.into(),
            streams: Vec::new(),
            buffer: Vec::new(),
            budget: Budget { left: TOTAL, dropped: 0 },
            last_error: Vec::new(),
        }
    }

    /// Opens a pipe for this stream; the command gets the end that is returned.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn open(&mut self, source: Source) -> io::Result<OwnedFd> {
        let (reader, writer) = open_pipe()?;
        self.streams.push(Stream { source, pipe: Receiver::from_owned_fd(reader)?, line: Vec::new() });
        self.buffer.resize(CHUNK, 0);
        Ok(writer)
    }

    /// Waits for output and takes some. Never returns when nobody can write any more. Safe to drop at any time.
    pub async fn read_some(&mut self) {
        let index = match &self.streams[..] {
            [] => return std::future::pending().await,
            [only] => {
                let _ = only.pipe.readable().await;
                0
            }
            [first, second, ..] => tokio::select! {
                _ = first.pipe.readable() => 0,
                _ = second.pipe.readable() => 1,
            },
        };
        let taken = self.take(index);
        if taken == Taken::Bytes(CHUNK) {
            // There may be more for ever: everybody else, the clock above all, gets a turn first.
            tokio::task::yield_now().await;
        }
        if taken == Taken::End {
            let mut ended = self.streams.remove(index);
            ended.flush(&self.label, &mut self.budget, &mut self.last_error);
        }
    }

    /// Takes what has been written so far without waiting, and says how much was dropped.
    pub fn finish(&mut self) {
        for index in 0..self.streams.len() {
            let mut taken = 0;
            // Somebody else may go on writing for ever; the command itself cannot have left more than this.
            while let (true, Taken::Bytes(count)) = (taken < LEFT_IN_PIPE, self.take(index)) {
                taken += count;
            }
        }
        for stream in &mut self.streams {
            stream.flush(&self.label, &mut self.budget, &mut self.last_error);
        }
        if self.budget.dropped > 0 {
            let dropped = self.budget.dropped;
            tracing::info!(target: log::OF_STEPS, step = self.label, bytes = dropped, "more output was dropped");
        }
    }

    /// The last line on stderr that was not empty, also when it was too late for the log; empty without any.
    pub fn last_error(&self) -> String {
        String::from_utf8_lossy(&self.last_error).trim().to_owned()
    }

    /// Reads and drops until all writers are gone.
    pub async fn discard(mut self) {
        self.budget.left = 0;
        while !self.streams.is_empty() {
            self.read_some().await;
        }
    }

    fn take(&mut self, index: usize) -> Taken {
        let stream = &mut self.streams[index];
        match stream.pipe.try_read(&mut self.buffer) {
            Ok(0) => Taken::End,
            Ok(count) => {
                stream.add(&self.buffer[..count], &self.label, &mut self.budget, &mut self.last_error);
                Taken::Bytes(count)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Taken::None,
            Err(_) => Taken::End,
        }
    }
}

#[derive(PartialEq, Eq)]
enum Taken {
    Bytes(usize),
    None,
    End,
}

impl Stream {
    fn add(&mut self, mut bytes: &[u8], label: &str, budget: &mut Budget, last_error: &mut Vec<u8>) {
        while !bytes.is_empty() {
            if budget.left == 0 {
                budget.dropped += bytes.len() as u64;
                return self.keep_last_line(bytes, last_error);
            }
            let room = LINE - self.line.len();
            let end = bytes.iter().take(room).position(|byte| *byte == b'\n');
            let count = end.unwrap_or_else(|| bytes.len().min(room));
            self.line.extend_from_slice(&bytes[..count]);
            bytes = &bytes[count + usize::from(end.is_some())..];
            if end.is_some() {
                self.flush(label, budget, last_error);
            } else if self.line.len() == LINE {
                // What may be the beginning of a secret is kept for the next piece: in two halves nobody would know it.
                let kept = self.line.split_off(LINE - log::held_back(&self.line).min(LINE / 2));
                self.flush(label, budget, last_error);
                self.line = kept;
            }
        }
    }

    /// Nobody will ever see these lines, except the last one of stderr: so they are not taken apart, which keeps
    /// an endless writer cheap.
    fn keep_last_line(&mut self, bytes: &[u8], last_error: &mut Vec<u8>) {
        if self.source == Source::Stdout {
            return self.line.clear();
        }
        let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else {
            return self.line.extend_from_slice(&bytes[..bytes.len().min(LINE - self.line.len())]);
        };
        let whole = bytes[..end].trim_ascii_end();
        let line = match whole.iter().rposition(|byte| *byte == b'\n') {
            Some(before) => &whole[before + 1..],
            None => {
                self.line.extend_from_slice(&whole[..whole.len().min(LINE - self.line.len())]);
                &self.line
            }
        };
        if !line.trim_ascii().is_empty() {
            last_error.clear();
            last_error.extend_from_slice(&line[..line.len().min(LINE)]);
        }
        let rest = &bytes[end + 1..];
        self.line.clear();
        self.line.extend_from_slice(&rest[..rest.len().min(LINE)]);
    }

    fn flush(&mut self, label: &str, budget: &mut Budget, last_error: &mut Vec<u8>) {
        let line = self.line.trim_ascii_end();
        if !line.is_empty() {
            // The first line that does not fit closes the log for all that follow: a gap would mislead.
            if line.len() + PER_LINE <= budget.left {
                budget.left -= line.len() + PER_LINE;
                let text = String::from_utf8_lossy(line);
                tracing::info!(target: log::OF_STEPS, step = label, stream = self.source.name(), "{text}");
            } else if budget.left > 0 {
                budget.left = 0;
                budget.dropped += line.len() as u64;
            }
            if self.source == Source::Stderr {
                last_error.clear();
                last_error.extend_from_slice(line);
            }
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write};

    use super::*;

    /// Writes each piece, takes it, and says what the last line on stderr was and how much was dropped.
    fn capture(pieces: &[&[u8]]) -> (String, u64, usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
        runtime.block_on(async {
            let mut capture = Capture::new("test");
            let mut writer = File::from(capture.open(Source::Stderr).expect("a pipe"));
            for piece in pieces {
                writer.write_all(piece).expect("it fits into the pipe");
                capture.read_some().await;
            }
            capture.finish();
            (capture.last_error(), capture.budget.dropped, TOTAL - capture.budget.left)
        })
    }

    #[test]
    fn finds_the_last_line_and_keeps_the_bounds() {
        let long = vec![b'x'; CHUNK];
        let full: Vec<&[u8]> = vec![&long; 5];
        for (pieces, last, dropped) in [
            (vec![&b"one\ntwo\n\n  \n"[..]], "two".to_owned(), 0),
            (vec![b"one\ntw", b"o"], "two".into(), 0),
            (vec![b"caf\xc3", b"\xa9\r\n"], "caf\u{e9}".into(), 0),
            (vec![], String::new(), 0),
            // 31 lines of 2 KiB fit with their fields; the 32nd and all that follows do not.
            (full.clone(), "x".repeat(LINE), 5 * CHUNK as u64 - 31 * LINE as u64),
            ([&full[..], &[b"\nlast\n\n"]].concat(), "last".into(), 5 * CHUNK as u64 - 31 * LINE as u64 + 7),
            ([&full[..], &[b"\nla", b"st", b"\n"]].concat(), "last".into(), 5 * CHUNK as u64 - 31 * LINE as u64 + 6),
            ([&full[..], &[b"a\nb\nlast"]].concat(), "last".into(), 5 * CHUNK as u64 - 31 * LINE as u64 + 8),
        ] {
            let (got, count, logged) = capture(&pieces);
            assert_eq!((got.len(), count), (last.len(), dropped));
            assert!(got == last);
            assert!(logged <= TOTAL);
        }
    }

    #[test]
    fn short_lines_cannot_flood_the_log() {
        // 16,384 empty-looking lines in two bytes each: a thousand are said, the rest counted.
        let lines = b"y\n".repeat(CHUNK / 2);
        let (last, dropped, _) = capture(&[&lines, &lines]);
        assert_eq!(last, "y");
        let said = TOTAL / (PER_LINE + 1);
        assert!(dropped > 2 * (2 * CHUNK / 2 - said) as u64 - 4, "{dropped}");
    }
}
