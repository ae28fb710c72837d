//! `process-gone`: no process is left with a name, an id, or the id in a file.

use std::path::PathBuf;

use super::blocking;
use crate::client::files;

/// Which process.
#[derive(Clone, Debug)]
pub enum Target {
    Pid(u32),
    PidFile(PathBuf),
    Name(String),
}

/// Looks once.
///
/// # Errors
/// It is still there, or that cannot be told.
pub async fn hold(target: &Target) -> Result<(), String> {
    let target = target.clone();
    blocking(move || gone(&target)).await
}

fn gone(target: &Target) -> Result<(), String> {
    match target {
        Target::Pid(pid) if is_alive(*pid) => Err(format!("process {pid} is still there")),
        Target::Pid(_) => Ok(()),
        Target::PidFile(path) => {
            if !path.exists() {
                return Ok(());
            }
            let text = files::read_line(path)?;
            match text.trim().parse::<u32>() {
                Ok(pid) if is_alive(pid) => Err(format!("{}: process {pid} is still there", path.display())),
                Ok(_) => Ok(()),
                Err(_) => Err(format!("{}: it holds no process id", path.display())),
            }
        }
        Target::Name(name) => {
            let folder = std::fs::read_dir("/proc").map_err(|error| format!("/proc: {}", files::reason(&error)))?;
            let own = std::process::id();
            let found = folder
                .flatten()
                .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
                .find(|pid| *pid != own && is_named(*pid, name) && is_alive(*pid));
            found.map_or(Ok(()), |pid| Err(format!("process {name} is still there (pid {pid})")))
        }
    }
}

/// Whether a process runs; one that has ended and only waits to be reaped does not.
fn is_alive(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The name in parentheses may itself hold parentheses (proc(5)).
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, Some('Z' | 'X'))
}

/// Whether a process goes by this name: as the kernel has it (cut to 15 bytes), or as the file that it was started as.
fn is_named(pid: u32, name: &str) -> bool {
    let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    if read("comm").trim_ascii_end() == name.as_bytes() {
        return true;
    }
    let line = read("cmdline");
    let started = line.split(|byte| *byte == 0).next().unwrap_or_default();
    let base = started.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    base == name.as_bytes() || started == name.as_bytes()
}
