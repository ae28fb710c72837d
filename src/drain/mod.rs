//! When an application is drained, told from outside of it: `engine` decides from observations and knows neither
//! clock nor kernel; `watch` observes, within a budget, and asks the engine.

pub mod engine;
pub mod watch;
