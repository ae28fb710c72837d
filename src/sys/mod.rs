//! The kernel interfaces that no safe package covers, one small module each, and the file reads that must not
//! hang. No policy lives here.

pub mod child;
pub mod file;
pub mod memory;
#[cfg(all(panic = "abort", target_env = "musl"))]
mod name;
pub mod pidfd;
pub mod signal;
#[cfg(feature = "state")]
pub mod socket;
#[cfg(all(panic = "abort", target_env = "musl"))]
mod unwind;
#[cfg(feature = "state")]
pub mod writeback;
