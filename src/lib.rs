//! The map: `argv → cli → config → plan → runner → report → exit code`.

pub mod client;
pub mod duration;
pub mod problem;
pub mod process;
pub mod step;
pub mod value;
