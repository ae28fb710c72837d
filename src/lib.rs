//! The map: `argv → cli → config → plan → runner → report → exit code`.

pub mod control;
pub mod duration;
pub mod net;
pub mod problem;
pub mod process;
pub mod server;
pub mod step;
