//! The map: `argv → cli → config → plan → runner → report → exit code`.

pub mod drain;
pub mod duration;
pub mod net;
pub mod problem;
pub mod process;
pub mod step;
