//! Runs the selected cells, some side by side, and keeps what comes out after each of them.

use std::{
    collections::VecDeque,
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::{
    cell::Cell,
    namespace, picture, report,
    results::{Results, Row},
    selection::{MAIN_SERVER, Selection},
};

/// How often an ended cell is looked for: cells take a minute.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// So much later the next cell starts, so that the starts of many servers do not meet.
const START_APART: Duration = Duration::from_secs(2);

/// # Errors
/// Whatever keeps cells from being run; what the others came to is kept all the same.
pub async fn run(selection: &Selection) -> Result<(), String> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = home.join("results.tsv");
    let mut results = Results::load(&file)?;
    let mut failures = Vec::new();
    if !selection.cells.is_empty() {
        if !namespace::is_root() {
            return Err(
                "only root may make the network namespaces: run it with sudo, or in a privileged container".into()
            );
        }
        let boathook = boathook(home)?;
        let (count, minutes) = (selection.cells.len(), selection.estimate().as_secs_f64() / 60.0);
        println!("{count} cells, {} side by side: about {minutes:.0} minutes", selection.jobs);
        println!("boathook: {}", boathook.display());
        let scratch = home.join("../../target/rollout");
        fs::create_dir_all(&scratch).map_err(|error| format!("{}: {error}", scratch.display()))?;
        let scratch = scratch.canonicalize().map_err(|error| format!("{}: {error}", scratch.display()))?;
        let mut waiting: VecDeque<&Cell> = selection.cells.iter().collect();
        let mut running: Vec<Running<'_>> = Vec::new();
        while !waiting.is_empty() || !running.is_empty() {
            while running.len() < selection.jobs
                && let Some(cell) = waiting.pop_front()
            {
                running.push(Running::start(cell, &boathook, &scratch)?);
                sleep(START_APART).await;
            }
            sleep(LOOK_EVERY).await;
            let mut still = Vec::new();
            for mut one in running {
                if !one.has_ended()? {
                    still.push(one);
                    continue;
                }
                let (cell, started) = (one.cell, one.started);
                match one.row() {
                    Ok(row) => {
                        let (failed, requests, seconds) = (row.tally.failures(), row.tally.requests, row.seconds());
                        let took = started.elapsed().as_secs();
                        println!("{cell}: {failed} of {requests} failed, gone after {seconds:.1} s (took {took} s)");
                        results.merge(row);
                        results.save(&file)?;
                    }
                    Err(why) => {
                        println!("{cell}: {why}");
                        failures.push(cell.to_string());
                    }
                }
            }
            running = still;
        }
    }
    write(&home.join("rollout.svg"), &picture::draw(&results, |server| server == MAIN_SERVER))?;
    write(&home.join("servers.svg"), &picture::draw(&results, |server| server != MAIN_SERVER))?;
    report::renew(&home.join("RESULTS.md"), &results)?;
    match failures.is_empty() {
        true => Ok(()),
        false => Err(format!("did not run to their end: {}", failures.join(", "))),
    }
}

/// The shipped binary where make built it, else the one of an ordinary build.
fn boathook(home: &Path) -> Result<PathBuf, String> {
    let binary = env::var_os("BOATHOOK_DIST").map_or_else(|| home.join("../../target/debug/boathook"), PathBuf::from);
    binary.canonicalize().map_err(|error| format!("{}: {error}; build it first", binary.display()))
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}

/// A cell under way.
struct Running<'a> {
    cell: &'a Cell,
    process: Child,
    started: Instant,
}

impl<'a> Running<'a> {
    fn start(cell: &'a Cell, boathook: &Path, scratch: &Path) -> Result<Self, String> {
        let fail = |error: std::io::Error| format!("{cell}: {error}");
        let folder = scratch.join(cell.to_string().replace(' ', "-"));
        // What an earlier run left would be taken for this one's.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).map_err(fail)?;
        let mut command = Command::new("unshare");
        command.args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
        command.arg(env::current_exe().map_err(fail)?).arg("cell");
        command.args(cell.to_string().split(' ')).arg(boathook).arg(folder);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        namespace::end_with_parent(&mut command);
        Ok(Self { cell, process: command.spawn().map_err(fail)?, started: Instant::now() })
    }

    fn has_ended(&mut self) -> Result<bool, String> {
        let status = self.process.try_wait().map_err(|error| format!("{}: {error}", self.cell))?;
        Ok(status.is_some())
    }

    /// What the ended cell said: a line, which its pipe holds until now.
    fn row(self) -> Result<Row, String> {
        let output = self.process.wait_with_output().map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&output.stdout);
        let why = || format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
        Row::parse(&said).ok_or_else(why)
    }
}
