//! What the Makefile's doors need beyond cargo: the licences of all dependencies ([`licences`]), the shipped binaries
//! ([`shipped`]) with what they are made of ([`graph`], [`sbom`], [`section`]), what they must be ([`binary`]), and all
//! tests ([`tests`]). All of it needs no tool but cargo.

mod binary;
mod graph;
mod licences;
mod sbom;
mod section;
mod shipped;
mod tests;

use std::process::ExitCode;

use graph::Features;

const USAGE: &str = "usage: xtask licences
       xtask ship PACKAGE [--core] --to FOLDER TARGET…
       xtask binary FILE --machine x86_64|aarch64 --at-most BYTES --package PACKAGE
       xtask tests";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["licences"] => licences::check(),
        ["ship", package, "--core", "--to", folder, ref targets @ ..] => {
            shipped::ship(package, Features::None, folder, targets)
        }
        ["ship", package, "--to", folder, ref targets @ ..] => {
            shipped::ship(package, Features::Default, folder, targets)
        }
        ["binary", file, "--machine", machine, "--at-most", bytes, "--package", package] => {
            binary::check(file, machine, bytes, package)
        }
        ["tests"] => tests::run(),
        _ => return usage(),
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

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(64)
}
