//! When an application is drained, told from outside of it: `judge` reads one connection, `engine` decides from
//! all of them and knows neither clock nor kernel; `watch` observes, within a budget, and asks the engine; `measure` asks the server itself instead.

pub mod engine;
pub mod judge;
pub mod measure;
pub mod rules;
pub mod watch;
