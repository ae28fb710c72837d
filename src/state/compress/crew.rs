//! A few threads that work on pieces side by side; the pieces come back in the order in which they were handed over.
//! The threads end when the crew is dropped, each with the piece that it has in hand.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::{self, JoinHandle},
};

/// Some input, and what became of it. Pieces are used again: their memory stays.
#[derive(Default)]
pub struct Piece {
    pub input: Vec<u8>,
    /// How large the output must be, for work that has to know.
    pub expected: usize,
    /// Whether the input is the output already.
    pub is_plain: bool,
    pub output: Vec<u8>,
    /// Why there is no output.
    pub damage: Option<&'static str>,
}

/// Makes a piece's output of its input.
pub type Work = Box<dyn FnMut(&mut Piece) + Send>;

pub struct Crew {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Does the work where no thread could be started.
    own: Option<Work>,
    handed: u64,
    taken: u64,
}

#[derive(Default)]
struct Shared {
    desk: Mutex<Desk>,
    changed: Condvar,
}

#[derive(Default)]
struct Desk {
    waiting: VecDeque<(u64, Piece)>,
    done: Vec<(u64, Piece)>,
    is_closed: bool,
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().expect("no holder of this lock can panic")
    }

    fn close(&self) {
        let mut desk = self.desk();
        desk.is_closed = true;
        desk.waiting.clear();
        self.changed.notify_all();
    }

    fn run(&self, work: &mut Work) {
        let mut desk = self.desk();
        loop {
            if let Some((number, mut piece)) = desk.waiting.pop_front() {
                drop(desk);
                work(&mut piece);
                desk = self.desk();
                desk.done.push((number, piece));
                self.changed.notify_all();
            } else if desk.is_closed {
                return;
            } else {
                desk = self.changed.wait(desk).expect("no holder of this lock can panic");
            }
        }
    }
}

/// Tells whoever waits that a thread is gone, also when it panicked.
struct CloseOnDrop(Arc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Crew {
    /// So many threads, or as many as the system grants (a limit on processes may be near): without any, the caller's
    /// own
    /// thread does the work.
    pub fn new(workers: usize, work: &dyn Fn() -> Work) -> Self {
        let shared = Arc::new(Shared::default());
        let threads: Vec<_> = (0..workers)
            .map_while(|_| {
                let guard = CloseOnDrop(Arc::clone(&shared));
                let mut work = work();
                thread::Builder::new().name("compress".into()).spawn(move || guard.0.run(&mut work)).ok()
            })
            .collect();
        let own = if threads.is_empty() { Some(work()) } else { None };
        if threads.len() < workers {
            // The guard of the thread that did not start has closed it.
            shared.desk().is_closed = false;
        }
        Self { shared, threads, own, handed: 0, taken: 0 }
    }

    /// One piece for each thread, and one that waits for the first that is free.
    pub fn is_full(&self) -> bool {
        self.handed - self.taken > self.threads.len() as u64
    }

    pub fn hand(&mut self, mut piece: Piece) {
        let number = self.handed;
        self.handed += 1;
        if let Some(work) = &mut self.own {
            work(&mut piece);
            self.shared.desk().done.push((number, piece));
            return;
        }
        self.shared.desk().waiting.push_back((number, piece));
        self.shared.changed.notify_all();
    }

    /// Waits for the oldest piece; `None` when there is none.
    ///
    /// # Errors
    /// The threads are gone.
    pub fn take(&mut self) -> io::Result<Option<Piece>> {
        if self.taken == self.handed {
            return Ok(None);
        }
        let mut desk = self.shared.desk();
        loop {
            if let Some(place) = desk.done.iter().position(|(number, _)| *number == self.taken) {
                self.taken += 1;
                return Ok(Some(desk.done.swap_remove(place).1));
            }
            if desk.is_closed {
                return Err(io::Error::other("the threads that compress are gone"));
            }
            desk = self.shared.changed.wait(desk).expect("no holder of this lock can panic");
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.shared.close();
        for thread in self.threads.drain(..) {
            // A thread that panicked has told so itself.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn double() -> Work {
        Box::new(|piece| {
            piece.output.clear();
            piece.output.extend(piece.input.iter().map(|byte| byte.wrapping_mul(2)));
            // The earlier of two takes longer.
            let rounds = if piece.input[0] % 2 == 0 { 20_000 } else { 10 };
            piece.expected = (0..rounds).fold(0, |sum: usize, number| sum.wrapping_mul(31).wrapping_add(number));
        })
    }

    #[test]
    fn pieces_come_back_in_order_from_any_number_of_threads() {
        for workers in [0, 1, 2, 4, 9] {
            let mut crew = Crew::new(workers, &double);
            let mut seen = 0_u8;
            for number in 0..200_u8 {
                while crew.is_full() {
                    let piece = crew.take().unwrap().unwrap();
                    assert_eq!(piece.output, [seen.wrapping_mul(2)]);
                    seen += 1;
                }
                crew.hand(Piece { input: vec![number], ..Piece::default() });
            }
            while let Some(piece) = crew.take().unwrap() {
                assert_eq!(piece.output, [seen.wrapping_mul(2)]);
                seen += 1;
            }
            assert_eq!(seen, 200);
        }
    }

    #[test]
    fn a_thread_that_panicked_is_noticed() {
        let mut crew = Crew::new(1, &|| Box::new(|_| panic!("on purpose")));
        crew.hand(Piece::default());
        assert!(crew.take().is_err());
    }
}
