//! The deadlines and PID 1, measured on the shipped binary.
//!
//! Method: what `tests/deadline.rs` and `tests/pid1.rs` try, whole and with their own bars, but with the static binary in
//! `BOATHOOK_DIST` in place of the one that cargo builds for tests, and with their tables shown: for each of more than 40
//! faults how far the hook overran its deadline and the step its limit, how late the machine itself was meanwhile, and how
//! long anything was left; then exit codes, signals, and 1,000 orphans beside 50 steps.
//!
//! Run it with `make bench BENCH='--bench promises'`.

use std::{env, process::Command};

fn main() {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["test", "--locked", "-p", "boathook", "--test", "deadline", "--test", "pid1", "--", "--nocapture"]);
    if let Some(binary) = env::var_os("BOATHOOK_DIST") {
        command.env("BOATHOOK_BINARY", binary);
    }
    let status = command.status().expect("cargo runs");
    assert!(status.success(), "a promise was not kept");
}
