//! Warm-up: requests are sent until the application has proved itself warm.
//!
//! | room | what it is for |
//! |---|---|
//! | [`requests`] | which requests: typed ones, files with one a line, access logs; their weights and placeholders |
//! | [`schedule`] | which of them is next: by weight, evenly interleaved, the same in every run |
//! | [`pace`] | when the next may start: rate, ramp. Pure |
//! | [`proof`] | what has to hold, what has been seen, and what stands against it. Pure |
//! | [`run`] | sends them; owns connections and time |

pub mod pace;
pub mod proof;
pub mod requests;
pub mod run;
pub mod schedule;
