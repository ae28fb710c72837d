//! What the Makefile's doors need beyond cargo: the licences of all dependencies ([`licences`]), what a shipped binary must
//! be ([`binary`]), and all tests ([`tests`]). They work offline and need no tool but cargo.

mod binary;
mod licences;
mod tests;

use std::process::ExitCode;

const USAGE: &str = "usage: xtask licences
       xtask binary FILE --machine x86_64|aarch64 --at-most BYTES
       xtask tests";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["licences"] => licences::check(),
        ["binary", file, "--machine", machine, "--at-most", bytes] => binary::check(file, machine, bytes),
        ["tests"] => tests::run(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(64);
        }
    };
    match result {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(problems) => {
            for problem in problems {
                eprintln!("xtask: {problem}");
            }
            ExitCode::FAILURE
        }
    }
}
