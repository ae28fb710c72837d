//! Rolling restarts of real servers, in network namespaces behind a real HAProxy that learns of each removal late, under
//! mixed load: what the clients see, and how long a replica takes to go. RESULTS.md has the method and what came out.
//!
//! `selection → cell (network, router, server, policy, load) → results → report, picture`
//!
//! Each cell runs in a process of its own, the first of its PID and network namespaces. When it ends, or when this
//! program does (by Ctrl-C as well), the kernel ends all that was started in them and takes the networks away.
//!
//! `selection` says which cells, `cell` runs one; `network` and `namespace` are the node and its pods, `router` HAProxy,
//! `server`, `servers` and `upstream` what is rolled, `policy` what is done about the stop, `load` and `websocket` the clients,
//! `tally` what became of their requests; `results` keeps the rows, `report` and `picture` show them. The kubelet is the
//! demo's.

mod cell;
mod load;
mod namespace;
mod network;
mod picture;
mod policy;
mod report;
mod results;
mod router;
mod runner;
mod selection;
mod server;
mod servers;
mod tally;
mod upstream;
mod websocket;

use std::{future::Future, path::Path, process::ExitCode};

use cell::Cell;
use selection::Selection;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["upstream", address] => block_on(upstream::run(address)),
        ["cell", server, mode, policy, delay, boathook, folder] => {
            run_cell(&[server, mode, policy, delay], boathook, folder)
        }
        _ => run_all(&words),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("rollout: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one cell in the namespaces that [`runner`] made, and prints its row.
fn run_cell(words: &[&str; 4], boathook: &str, folder: &str) -> Result<(), String> {
    let cell = Cell::parse(words).ok_or("no cell")?;
    // Unix sockets have short paths there, and servers reach it that are not root.
    let short = Path::new("/mnt");
    namespace::bind(Path::new(folder), short).map_err(|error| format!("{}: {error}", short.display()))?;
    let row = block_on(cell::run(&cell, Path::new(boathook), short))?;
    println!("{}", row.to_line());
    Ok(())
}

fn run_all(words: &[&str]) -> Result<(), String> {
    let selection = Selection::parse(words, server::Server::is_here)?;
    block_on(runner::run(&selection))
}

fn block_on<T>(task: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| format!("event loop: {error}"))?.block_on(task)
}
