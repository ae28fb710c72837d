//! Finds the probe child, which cargo builds as an example.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    sync::OnceLock,
};

/// The probe with these words.
pub fn probe(words: &[&str]) -> Command {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    let path = PATH.get_or_init(|| {
        // `cargo test --test NAME` alone does not build examples.
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--example", "probe"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        assert!(built.is_ok_and(|status| status.success()), "the probe does not build");
        let own = std::env::current_exe().expect("a path");
        let target = own.parent().and_then(|deps| deps.parent()).expect("target/debug/deps");
        target.join("examples/probe")
    });
    let mut command = Command::new(path);
    command.args(words).stdin(Stdio::null());
    command
}
