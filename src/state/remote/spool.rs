//! A place for bytes whose number is not known beforehand: memory, and beyond a bound a file that has no name and goes
//! with its last descriptor. What a command or a server says is collected here, so that only what is whole is saved.

use std::{
    env,
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags},
    pipe::PipeFlags,
};
use tokio::{io::AsyncReadExt, net::unix::pipe, sync::mpsc};

use super::{Io, trouble};
use crate::{
    client::{
        Request, files,
        transfer::{Outgoing, Piece},
    },
    process::{Capture, ExitStatus, Source},
    state::Trouble,
    step::exec::{Exec, with_reason},
};

pub use crate::state::pack::Spooled;

/// What is smaller is never written to a disk: the size of a part of an upload.
pub const IN_MEMORY: usize = 8 << 20;
/// Bytes are kept, written and read in blocks of this size.
const BLOCK: usize = 256 << 10;

/// What may be held, and where.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// So many bytes stay in memory.
    pub memory: usize,
    /// Where the file goes; `None` is `$TMPDIR`, or /tmp.
    pub folder: Option<PathBuf>,
    /// More bytes than this are refused.
    pub most: u64,
}

impl Bounds {
    pub fn folder(&self) -> PathBuf {
        let given = self.folder.clone().or_else(|| env::var_os("TMPDIR").map(PathBuf::from));
        given.filter(|path| !path.as_os_str().is_empty()).unwrap_or_else(|| "/tmp".into())
    }
}

/// Takes bytes.
#[derive(Debug)]
pub struct Spool {
    bounds: Bounds,
    blocks: Vec<Bytes>,
    open: BytesMut,
    file: Option<File>,
    size: u64,
}

impl Spool {
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, blocks: Vec::new(), open: BytesMut::new(), file: None, size: 0 }
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// Takes some bytes; writes only whole blocks, and not while they fit into memory.
    ///
    /// # Errors
    /// Too many bytes; no file can be made, and then all of it is still in memory; or it cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.hold(bytes)?;
        self.spill_if_due()
    }

    /// As [`Spool::write`], but waits for the disk on a thread of its own.
    ///
    /// # Errors
    /// As there.
    pub async fn push(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.hold(bytes)?;
        if !self.is_due() {
            return Ok(());
        }
        let mut own = std::mem::replace(self, Self::new(self.bounds.clone()));
        let work = crate::task::blocking(move || {
            let outcome = own.spill_if_due();
            (own, outcome)
        });
        let (own, outcome) = work.await.map_err(|_| Trouble::may_pass("the agent is ending"))?;
        *self = own;
        outcome
    }

    fn hold(&mut self, mut bytes: &[u8]) -> Result<(), Trouble> {
        self.size = self.size.saturating_add(bytes.len() as u64);
        if self.size > self.bounds.most {
            return Err(Trouble::for_good(format!("it is more than the limit of {} bytes", self.bounds.most)));
        }
        while !bytes.is_empty() {
            if self.open.capacity() == 0 {
                self.open = BytesMut::with_capacity(BLOCK);
            }
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - self.open.len()));
            self.open.extend_from_slice(now);
            bytes = later;
            if self.open.len() == BLOCK {
                self.close_block();
            }
        }
        Ok(())
    }

    fn close_block(&mut self) {
        if !self.open.is_empty() {
            self.blocks.push(std::mem::take(&mut self.open).freeze());
        }
    }

    fn is_due(&self) -> bool {
        !self.blocks.is_empty() && (self.file.is_some() || self.size > self.bounds.memory as u64)
    }

    fn spill_if_due(&mut self) -> Result<(), Trouble> {
        if !self.is_due() {
            return Ok(());
        }
        let folder = self.bounds.folder();
        let why = |error: io::Error| {
            let reason = files::reason(&error);
            Trouble::for_good(format!("{}: {reason}; name a folder with room in `spool`", folder.display()))
        };
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(open_nameless(&folder).map_err(why)?),
        };
        for block in self.blocks.drain(..) {
            file.write_all(&block).map_err(why)?;
        }
        Ok(())
    }

    /// Whether some of it is in a file.
    pub fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// What is in memory, when no file could be made for it.
    pub fn into_blocks(mut self) -> Vec<Bytes> {
        self.close_block();
        self.blocks
    }

    /// All of it, to be sent as often as necessary.
    ///
    /// # Errors
    /// The rest of it cannot be written.
    pub async fn into_stored(mut self) -> Result<Stored, Trouble> {
        self.close_block();
        self.push(&[]).await?;
        Ok(match self.file {
            Some(file) => Stored::File(Arc::new(file), self.size),
            None => Stored::Memory(self.blocks),
        })
    }

    /// All of it.
    ///
    /// # Errors
    /// The rest of it cannot be written.
    pub async fn into_content(self) -> Result<Spooled, Trouble> {
        let size = self.size;
        match self.into_stored().await? {
            Stored::File(file, size) => match Arc::try_unwrap(file) {
                Ok(mut file) => {
                    io::Seek::rewind(&mut file).map_err(|error| Trouble::for_good(files::reason(&error)))?;
                    Ok(Spooled::File(file, size))
                }
                // It was made just now, and nobody else has it.
                Err(_) => Err(Trouble::for_good("the spool is still in use")),
            },
            Stored::Memory(blocks) => {
                let mut all = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
                // Block by block, so that they are not all there twice.
                blocks.into_iter().for_each(|block| all.extend_from_slice(&block));
                Ok(Spooled::Memory(all))
            }
        }
    }
}

/// Bytes that can be sent again.
#[derive(Clone, Debug)]
pub enum Stored {
    Memory(Vec<Bytes>),
    File(Arc<File>, u64),
}

impl Stored {
    pub fn size(&self) -> u64 {
        match self {
            Self::Memory(blocks) => blocks.iter().map(|block| block.len() as u64).sum(),
            Self::File(_, size) => *size,
        }
    }

    /// A body of a request.
    pub fn outgoing(&self) -> Outgoing {
        let (file, size) = match self {
            Self::Memory(blocks) => return Outgoing::memory(blocks.clone()),
            Self::File(file, size) => (file.clone(), *size),
        };
        let (sender, receiver) = mpsc::channel(2);
        let read = move || {
            let mut at = 0;
            while at < size {
                let mut block = vec![0; BLOCK.min(usize::try_from(size - at).unwrap_or(BLOCK))];
                // A file that cannot be read ends the channel too early, and with it the request.
                if file.read_exact_at(&mut block, at).is_err() {
                    return;
                }
                at += block.len() as u64;
                if sender.blocking_send(Piece::Bytes(block.into())).is_err() {
                    return;
                }
            }
            let _ = sender.blocking_send(Piece::End);
        };
        drop(crate::task::blocking(read));
        Outgoing::channel(Vec::new(), receiver, Some(size))
    }
}

/// A file without a name: nobody else finds it, and it is gone with this process, however that ends.
fn open_nameless(folder: &Path) -> io::Result<File> {
    let mode = Mode::RUSR | Mode::WUSR;
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    // open(2): a file system without O_TMPFILE says EOPNOTSUPP, a kernel without it EISDIR.
    if let Ok(fd) = rustix::fs::openat(CWD, folder, flags | OFlags::TMPFILE, mode) {
        return Ok(fd.into());
    }
    let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
    for count in 0..100u32 {
        let own = rustix::process::getpid().as_raw_nonzero();
        let path = folder.join(format!(".boathook-spool-{own}-{count}"));
        match rustix::fs::openat(CWD, &path, flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW, mode) {
            Ok(fd) => {
                rustix::fs::unlinkat(CWD, &path, AtFlags::empty())?;
                return Ok(fd.into());
            }
            Err(error) => last = error.into(),
        }
        if last.kind() != io::ErrorKind::AlreadyExists {
            break;
        }
    }
    Err(last)
}

/// So much is read from a command at once: what a pipe holds (pipe(7)).
const FROM_PIPE: usize = 64 << 10;

/// Runs a command and collects what it writes to stdout; stderr goes to the log. Everything the command started ends
/// when this is dropped.
///
/// # Errors
/// The command did not start, failed, or said more than the bound. Nothing of a failed command is used: a dump that
/// broke off looks like one that is whole.
pub async fn collect_command(exec: &Exec, label: &str, bounds: Bounds, io: &Io) -> Result<Spooled, Trouble> {
    let no_pipe = |error: io::Error| Trouble::may_pass(format!("cannot run a command: {}", files::reason(&error)));
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|error| no_pipe(error.into()))?;
    rustix::fs::fcntl_setfl(&reader, OFlags::NONBLOCK).map_err(|error| no_pipe(error.into()))?;
    let mut stdout = pipe::Receiver::from_owned_fd(reader).map_err(no_pipe)?;
    let mut capture = Capture::new(label);
    let stderr = capture.open(Source::Stderr).map_err(no_pipe)?;
    let (child, guard) = exec
        .launch(Stdio::from(writer), Stdio::from(stderr), &io.processes)
        .await
        .map_err(|error| Trouble { reason: error.text, may_pass: error.passes, is_missing: false })?;

    let program = exec.program();
    let mut spool = Spool::new(bounds);
    let mut buffer = vec![0; FROM_PIPE];
    let (mut status, mut open) = (None, true);
    while status.is_none() || open {
        // A shell may end before what it started in the background: as in `$(…)`, the output ends when nobody can write
        // any more. What keeps it open for ever runs into the deadline, and that is right: it is not whole.
        io.progress.set(match status {
            None => format!("{program} runs, {} bytes so far", spool.size()),
            Some(_) => format!("{program} has ended, but what it started still holds its output"),
        });
        tokio::select! {
            biased;
            ended = child.wait(), if status.is_none() => status = Some(ended),
            read = stdout.read(&mut buffer), if open => match read {
                Ok(0) => open = false,
                Ok(count) => {
                    spool.push(&buffer[..count]).await?;
                    // There may be more for ever: everybody else, the clock above all, gets a turn.
                    tokio::task::yield_now().await;
                }
                Err(error) => return Err(no_pipe(error)),
            },
            () = capture.read_some() => {}
        }
    }
    guard.end().await;
    capture.finish();
    match status {
        Some(ExitStatus::Code(0)) => spool.into_content().await,
        Some(status) => Err(Trouble::may_pass(with_reason(status.to_string(), &capture))),
        None => Err(Trouble::may_pass("the command has no status")),
    }
}

/// Sends a request and collects the body of its answer.
///
/// # Errors
/// There is no answer, it is not a success, it broke off, or it is larger than the bound.
pub async fn collect_answer(request: &Request, bounds: Bounds, io: &Io) -> Result<Spooled, Trouble> {
    let (sender, mut receiver) = mpsc::channel(4);
    let mut spool = Spool::new(bounds);
    let held = &mut spool;
    // It owns the receiver, so that the request ends when this one fails.
    let fill = async move {
        while let Some(piece) = receiver.recv().await {
            if let Piece::Bytes(bytes) = piece {
                held.push(&bytes).await?;
            }
        }
        Ok::<_, Trouble>(())
    };
    let ask = async {
        let answer = request.send_through(&io.processes, &io.progress, &sender).await;
        drop(sender);
        answer
    };
    let (answer, filled) = Box::pin(async { tokio::join!(ask, fill) }).await;
    filled.map_err(|trouble| Trouble { reason: format!("{}: {}", request.url, trouble.reason), ..trouble })?;
    let answer = answer.map_err(trouble)?;
    match answer.status {
        200..=299 => spool.into_content().await,
        status => Err(Trouble {
            reason: format!("{}: {}", request.url, answer.show()),
            may_pass: matches!(status, 408 | 429 | 500..=599),
            is_missing: false,
        }),
    }
}
