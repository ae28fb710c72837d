//! Parses, runs, prints the final error, exits.

use std::{io::Write, process::ExitCode};

use boathook::{cli::Cli, command, exit};
use clap::Parser;

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are results, not errors. A reader that has gone away is no reason to fail.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { exit::OK });
        }
    };
    match command::execute(cli) {
        Ok(code) => ExitCode::from(code),
        Err(fatal) => {
            let text: String = fatal.lines.iter().map(|line| format!("boathook: {line}\n")).collect();
            let _ = std::io::stderr().write_all(text.as_bytes());
            ExitCode::from(fatal.code)
        }
    }
}
