//! When an application is drained, told from outside of it: `judge` reads one connection, `holder` says whether the
//! drain waits for it, `arrivals` tells how long no new one must have come, `engine` decides from all of them and knows
//! neither clock nor kernel; `history` is what the agent has seen of arrivals before; `watch` observes, within a budget,
//! and asks the engine; `measure` asks the server itself instead.

pub mod arrivals;
pub mod engine;
pub mod history;
pub mod holder;
pub mod judge;
pub mod measure;
pub mod rules;
pub mod watch;

/// Random numbers for tests.
#[cfg(test)]
mod dice {
    /// A small generator (Marsaglia's xorshift): the same numbers in every run.
    pub struct Dice(pub u64);

    impl Dice {
        pub fn below(&mut self, limit: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % limit
        }

        /// At least 0, below 1.
        pub fn fraction(&mut self) -> f64 {
            self.below(1 << 32) as f64 / f64::from(1 << 16) / f64::from(1 << 16)
        }
    }
}
