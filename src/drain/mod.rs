//! When an application is drained, told from outside of it: `engine` decides from observations and knows neither
//! clock nor kernel; `watch` observes, within a budget, and asks the engine; `measure` asks the server itself instead.

pub mod engine;
pub mod measure;
pub mod watch;
