//! When an application is drained, told from outside of it: `engine` decides from observations and knows neither
//! clock nor kernel; `watch` observes, within a budget, and asks the engine. `metric` asks the server instead.

pub mod engine;
pub mod metric;
pub mod watch;
