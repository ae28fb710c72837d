//! What a job that saves or restores shares with whoever started it: how far it is, what it noted, and the wish to stop.
//! The job itself runs on a thread of its own, because file systems can hang; it asks [`Flow::check`] between pieces.

use std::{
    io::{self, Read, Write},
    path::Path,
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
    place: Mutex<Option<Arc<Path>>>,
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

impl Notes {
    /// For the end of a reason: `; changed while it was read: /x, and 2 more like it`, or nothing.
    pub fn show(&self) -> String {
        match self.lines.first() {
            None => String::new(),
            Some(first) if self.count > 1 => format!("; {first}, and {} more like it", self.count - 1),
            Some(first) => format!("; {first}"),
        }
    }
}

/// So many notes are kept word for word: a report holds a line or two.
const MOST_NOTES: usize = 20;

/// Stops the job when it is dropped: the step was cut, nobody waits for it any more.
#[derive(Debug)]
pub struct StopOnDrop(Flow);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Flow {
    /// A flow that ends with the guard.
    pub fn new() -> (Self, StopOnDrop) {
        let flow = Self::default();
        (flow.clone(), StopOnDrop(flow))
    }

    /// Asks the job to give up.
    pub fn stop(&self) {
        self.0.stopped.store(true, Ordering::Relaxed);
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

    /// Tells whose file system is waited for from now on, if it hangs; what was told before.
    pub fn wait_for(&self, place: Option<Arc<Path>>) -> Option<Arc<Path>> {
        std::mem::replace(&mut *self.0.place.lock().expect("no holder of this lock can panic"), place)
    }

    /// Whose file system is waited for.
    pub fn place(&self) -> Option<Arc<Path>> {
        self.0.place.lock().expect("no holder of this lock can panic").clone()
    }

    pub fn notes(&self) -> Notes {
        self.0.notes.lock().expect("no holder of this lock can panic").clone()
    }
}

/// Reads or writes, and tells meanwhile that it is this place that is waited for.
#[derive(Debug)]
pub struct At<T> {
    pub inner: T,
    pub flow: Flow,
    pub place: Arc<Path>,
}

impl<T: Read> Read for At<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let before = self.flow.wait_for(Some(Arc::clone(&self.place)));
        let read = self.inner.read(buffer);
        self.flow.wait_for(before);
        read
    }
}

impl<T: Write> Write for At<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let before = self.flow.wait_for(Some(Arc::clone(&self.place)));
        let written = self.inner.write(bytes);
        self.flow.wait_for(before);
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
