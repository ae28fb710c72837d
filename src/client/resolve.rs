//! Names to addresses. `getaddrinfo` cannot be cancelled: asked on a thread, a dead DNS server would hold that
//! thread long after the step was cut. So a short-lived child of our own binary asks, and dies with the future.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};
use tokio::{io::AsyncReadExt, net::unix::pipe};

use crate::process::Processes;

/// The hidden subcommand with which the binary calls itself.
pub const SUBCOMMAND: &str = "__resolve";
/// A hundred addresses are far more than are ever tried; what comes after is not read.
const LONGEST_ANSWER: u64 = 8192;
/// The child's last line. Without it the child was not ours (or died), and its answer counts for nothing.
const COMPLETE: &str = ".";

/// The child's side: prints each address of the name on a line of its own, then how it ended.
pub fn resolve_main(name: &str) -> ExitCode {
    use std::io::Write;
    let mut text = String::new();
    match lookup(name) {
        Ok(addresses) => addresses.iter().for_each(|address| text.push_str(&format!("{address}\n"))),
        Err(why) => text.push_str(&format!("!{why}\n")),
    }
    text.push_str(COMPLETE);
    text.push('\n');
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn lookup(name: &str) -> Result<Vec<IpAddr>, String> {
    let found = (name, 0).to_socket_addrs().map_err(|error| {
        // `failed to lookup address information: Name does not resolve`
        let text = error.to_string();
        let words = text.rsplit(": ").next().unwrap_or(&text);
        words.to_lowercase()
    })?;
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address.ip()) {
            addresses.push(address.ip());
        }
    }
    Ok(addresses)
}

/// All addresses of a name, in the order in which they should be tried. Dropped, it leaves nothing behind.
///
/// # Errors
/// Says why the name has none.
pub async fn resolve(name: &str, _processes: &Processes) -> Result<Vec<IpAddr>, String> {
    if let Ok(address) = name.parse() {
        return Ok(vec![address]);
    }
    // RFC 6761 section 6.3: localhost is the loopback, whatever a DNS server says.
    if name.eq_ignore_ascii_case("localhost") {
        return Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]);
    }
    let answer = match ask_child(Path::new("/proc/self/exe"), &[SUBCOMMAND, name]).await {
        Some(answer) => answer,
        // No /proc, or the file of the binary cannot be run: then a thread must do, which may outlive the step.
        None => {
            let own = name.to_owned();
            crate::task::blocking(move || lookup(&own)).await.map_err(|error| error.to_string())?
        }
    };
    match answer {
        Ok(addresses) if addresses.is_empty() => Err(format!("{name} has no address")),
        Ok(addresses) => Ok(addresses),
        Err(why) => Err(format!("{name} does not resolve: {why}")),
    }
}

/// A process that is killed when this is dropped. Through its pidfd, so that never another process is meant.
struct Child(OwnedFd);

impl Drop for Child {
    fn drop(&mut self) {
        let _ = pidfd_send_signal(&self.0, Signal::KILL);
        // Where the reaper was faster there is nothing to wait for.
        let _ = waitid(WaitId::PidFd(self.0.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    }
}

/// What the child says; `None` where it could not be run or did not finish. Its exit status is not looked at: the
/// agent's reaper may take it first.
async fn ask_child(program: &Path, arguments: &[&str]) -> Option<Result<Vec<IpAddr>, String>> {
    let mut spawned = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let child = Child(pidfd_open(Pid::from_child(&spawned), PidfdFlags::empty()).ok()?);
    let stdout = pipe::Receiver::from_owned_fd(spawned.stdout.take()?.into()).ok()?;
    let mut text = String::new();
    let read = stdout.take(LONGEST_ANSWER).read_to_string(&mut text).await;
    drop(child);
    read.ok()?;
    read_answer(&text)
}

fn read_answer(text: &str) -> Option<Result<Vec<IpAddr>, String>> {
    let mut addresses = Vec::new();
    for line in text.lines() {
        if line == COMPLETE {
            return Some(Ok(addresses));
        }
        match line.strip_prefix('!') {
            Some(why) => return Some(Err(why.into())),
            None => addresses.push(line.parse().ok()?),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn reads_the_child() {
        let one = IpAddr::from([1, 2, 3, 4]);
        for (text, answer) in [
            ("1.2.3.4\n::1\n.\n", Some(Ok(vec![one, "::1".parse().expect("an address")]))),
            (".\n", Some(Ok(vec![]))),
            ("!name does not resolve\n.\n", Some(Err("name does not resolve".into()))),
            ("", None),
            ("1.2.3.4\n", None),
            ("running 0 tests\n", None),
        ] {
            assert_eq!(read_answer(text), answer, "{text}");
        }
    }

    #[tokio::test]
    async fn asks_a_child() {
        let ask = |script: &'static str| async move { ask_child(Path::new("/bin/sh"), &["-c", script]).await };
        assert_eq!(ask("echo 1.2.3.4; echo .").await, Some(Ok(vec![IpAddr::from([1, 2, 3, 4])])));
        assert_eq!(ask("echo 1.2.3.4").await, None, "it did not finish");
        assert_eq!(ask("exit 1").await, None);
        assert_eq!(ask("yes").await, None, "an answer without end is not read");
        assert_eq!(ask_child(Path::new("/nonexistent"), &[]).await, None);
    }

    #[tokio::test]
    async fn a_cut_lookup_leaves_no_process() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("pid");
        let script = format!("echo $$ > {}; exec sleep 1000", file.display());
        let arguments = ["-c", script.as_str()];
        let mut asking = Box::pin(ask_child(Path::new("/bin/sh"), &arguments));
        let pid = loop {
            let cut = tokio::time::timeout(Duration::from_millis(10), &mut asking).await;
            assert!(cut.is_err(), "it hangs");
            if let Ok(pid) = std::fs::read_to_string(&file).unwrap_or_default().trim().parse::<u32>() {
                break pid;
            }
        };
        // The control: while it is wanted it runs.
        let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(!state().is_empty() && !state().contains(") Z "));
        drop(asking);
        for _ in 0..500 {
            if state().is_empty() || state().contains(") Z ") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("process {pid} is left: {}", state());
    }

    #[tokio::test]
    async fn needs_no_child_for_addresses() {
        for (name, expected) in [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("localhost", "127.0.0.1")] {
            let addresses = resolve(name, &Processes::idle()).await.expect(name);
            assert_eq!(addresses[0].to_string(), expected);
        }
    }
}
