//! Tasks and blocking work, handed to the runtime in one form: the runtime's machinery for a task is instantiated for
//! each type of future, some kilobytes each, and here every future has the same type.

use std::{future::Future, pin::Pin};

use tokio::{sync::oneshot, task::JoinHandle};

/// Starts a task. It goes on when the handle is dropped.
pub fn spawn(work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(boxed(work))
}

/// A future in the one form.
pub fn boxed(work: impl Future<Output = ()> + Send + 'static) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(work)
}

/// Does work that may wait in the kernel (a dead network mount) on a thread of its own. Dropping the receiver does not
/// end it; the receiver fails only when the runtime ends before the work has begun.
pub fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
    let (done, receiver) = oneshot::channel();
    let boxed: Box<dyn FnOnce() + Send> = Box::new(move || {
        // Nobody waits any more: the result is not wanted.
        let _ = done.send(work());
    });
    tokio::task::spawn_blocking(boxed);
    receiver
}
