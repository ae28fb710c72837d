//! Parses, runs, prints the final error, exits: as boathook's own `main`, which leaves three commands to this one.

use std::{io::Write, process::ExitCode};

use boathook::{
    cli::{Cli, Command},
    command, exit,
};
use boathook_kube::{check, manifest, schema};
use clap::Parser;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { exit::OK });
        }
    };
    let config = cli.config.clone();
    let done = match cli.command {
        Command::Check(options) if !options.pod.is_empty() => check::check(config.as_deref(), &options),
        Command::Manifest(options) => manifest::manifest(config.as_deref(), &options),
        Command::Schema => schema::schema(),
        _ => command::execute(cli),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(fatal) => {
            let text: String = fatal.lines.iter().map(|line| format!("boathook: {line}\n")).collect();
            let _ = std::io::stderr().write_all(text.as_bytes());
            ExitCode::from(fatal.code)
        }
    }
}
