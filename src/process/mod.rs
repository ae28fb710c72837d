//! Everything about processes: one reaper waits for all of them ([`Processes`]), commands are spawned with clear
//! errors ([`spawn`]), what a step started is found and ended ([`Family`]), signals are received ([`Signals`]) and
//! named ([`name`](names)), and `boathook run` starts its main process ([`MainProcess`]). When to do any of this
//! is decided elsewhere.

pub mod family;
pub mod find;
mod main_process;
pub mod names;
mod output;
mod reaper;
mod signals;
pub mod spawn;
mod status;
pub mod user;

pub use family::{Family, MARKER};
pub use main_process::MainProcess;
pub use names::{name_of_signal, signal_by_name};
pub use output::{Capture, Source, open_pipe};
pub use reaper::{Birth, Child, Processes, running_steps};
pub use signals::{Received, Signals, forwardable};
pub use spawn::SpawnError;
pub use status::ExitStatus;
