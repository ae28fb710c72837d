//! What a command says, as a source of a snapshot: all of it or nothing. Alone in its process: the reaper takes every
//! child there is.
#![cfg(feature = "state")]

mod client_support;
mod spool_support;

use std::{fs, time::Duration};

use boathook::{
    process::Processes,
    state::remote::{
        Io,
        spool::{Spooled, collect_command},
    },
    step::{Progress, exec::Exec},
};
use spool_support::{bounds, content};
use tokio::time::timeout;

/// Far more than anything here needs on a busy machine; a hang must end some time.
const LONG: Duration = Duration::from_secs(60);
const MIB: usize = 1 << 20;

#[tokio::test]
async fn the_output_of_a_command_is_whole_or_nothing() {
    let processes = Processes::start(false).expect("the reaper");
    let io = Io { processes, progress: Progress::default() };
    outputs(&io).await;
    a_command_that_is_cut_leaves_no_process(&io).await;
}

fn exec(script: &str) -> Exec {
    client_support::mean::<Exec>(&format!("step = ['sh', '-c', {script:?}]")).expect("a command").0
}

async fn outputs(io: &Io) {
    for (script, length) in [
        ("true", 0),
        ("printf abc; echo noise >&2", 3),
        ("head -c 5000000 /dev/zero", 5_000_000),
        // What goes on in the background belongs to it.
        ("(sleep 0.2; printf more) & printf abc", 7),
    ] {
        let got = timeout(LONG, collect_command(&exec(script), "dump", bounds(u64::MAX), io)).await.expect("in time");
        let got = got.unwrap_or_else(|trouble| panic!("{script}: {}", trouble.reason));
        assert_eq!(matches!(got, Spooled::File(..)), length > MIB, "{script}");
        assert_eq!(content(got).len(), length, "{script}");
    }
    for (script, reason, may_pass) in [
        ("printf abc; echo 'no such table' >&2; exit 3", "exit code 3: no such table", true),
        ("printf abc; kill -KILL $$", "ended by SIGKILL", true),
        ("yes", "it is more than the limit of 3000000 bytes", false),
    ] {
        let got = timeout(LONG, collect_command(&exec(script), "dump", bounds(3_000_000), io)).await.expect("in time");
        let trouble = got.expect_err(script);
        assert_eq!((trouble.may_pass, trouble.reason.contains(reason)), (may_pass, true), "{}", trouble.reason);
    }
}

async fn a_command_that_is_cut_leaves_no_process(io: &Io) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pid");
    let script = format!("setsid sh -c 'echo $$ > {}; exec sleep 1000' & wait", file.display());
    let exec = exec(&script);
    let mut running = Box::pin(collect_command(&exec, "dump", bounds(u64::MAX), io));
    let pid = loop {
        assert!(timeout(Duration::from_millis(20), &mut running).await.is_err(), "it hangs");
        if let Ok(pid) = fs::read_to_string(&file).unwrap_or_default().trim().parse::<u32>() {
            break pid;
        }
    };
    let state = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(!state().is_empty() && !state().contains(") Z "));
    drop(running);
    let begun = std::time::Instant::now();
    while !state().is_empty() && !state().contains(") Z ") {
        assert!(begun.elapsed() < LONG, "process {pid} is left: {}", state());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
