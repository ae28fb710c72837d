//! What a job that saves or restores shares with whoever started it: how far it is, what it noted, and the wish to stop.
//! The job itself runs on a thread of its own, because file systems can hang; it asks [`Flow::check`] between pieces.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// One job's counters, notes and end.
#[derive(Clone, Debug, Default)]
pub struct Flow(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// What is to be moved, as far as it is known: 0 is unknown.
    total: Counts,
    done: Counts,
    stopped: AtomicBool,
    notes: Mutex<Notes>,
}

#[derive(Debug, Default)]
struct Counts {
    files: AtomicU64,
    bytes: AtomicU64,
}

/// What went otherwise than it should, without failing the job.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// The first few of them.
    pub lines: Vec<String>,
    pub count: u64,
}

/// So many notes are kept word for word: a report holds a line or two.
const MOST_NOTES: usize = 20;

/// Stops the job when it is dropped: the step was cut, nobody waits for it any more.
#[derive(Debug)]
pub struct StopOnDrop(Flow);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.0.stopped.store(true, Ordering::Relaxed);
    }
}

impl Flow {
    /// A flow that ends with the guard.
    pub fn new() -> (Self, StopOnDrop) {
        let flow = Self::default();
        (flow.clone(), StopOnDrop(flow))
    }

    pub fn is_stopped(&self) -> bool {
        self.0.stopped.load(Ordering::Relaxed)
    }

    /// To be asked between pieces of work, at least once per megabyte and once per file.
    ///
    /// # Errors
    /// The job is no longer wanted.
    pub fn check(&self) -> io::Result<()> {
        if self.is_stopped() { Err(io::Error::other("given up")) } else { Ok(()) }
    }

    /// Sets what is to be moved in all.
    pub fn expect(&self, files: u64, bytes: u64) {
        self.0.total.files.store(files, Ordering::Relaxed);
        self.0.total.bytes.store(bytes, Ordering::Relaxed);
    }

    pub fn add_files(&self, files: u64) {
        self.0.done.files.fetch_add(files, Ordering::Relaxed);
    }

    pub fn add_bytes(&self, bytes: u64) {
        self.0.done.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Files and bytes: done, and in all (0 when not known).
    pub fn counts(&self) -> [(u64, u64); 2] {
        let read = |counts: &Counts| (counts.files.load(Ordering::Relaxed), counts.bytes.load(Ordering::Relaxed));
        [read(&self.0.done), read(&self.0.total)]
    }

    /// Notes what went otherwise: `changed while it was read: /var/lib/app/x`.
    pub fn note(&self, line: String) {
        let mut notes = self.0.notes.lock().expect("no holder of this lock can panic");
        notes.count += 1;
        if notes.lines.len() < MOST_NOTES {
            notes.lines.push(line);
        }
    }

    pub fn notes(&self) -> Notes {
        self.0.notes.lock().expect("no holder of this lock can panic").clone()
    }
}
