//! State: what would be gone with a container is there in the next one's life; told, when it is not; and never torn.

mod support;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use serde_json::Value;
use support::{Agent, Place, until, without_time};

/// The names of the snapshots in a folder, oldest first.
fn snapshots(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    names
}

/// Everything in a folder, unfinished things too.
fn everything(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn report(agent: &Agent, hook: &str) -> Value {
    let said = agent.place.boathook(&["report", "--json"]);
    let all: Value = serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    all.as_array().and_then(|all| all.iter().find(|report| report["hook"] == hook)).cloned().unwrap_or_default()
}

/// Two lives of one container on the same volumes.
const SESSIONS: &str = "grace-period = \"30s\"\n\
    [[pre-start.step]]\nname = \"sessions\"\nrestore = { from = \"@/state\", to = \"@/app\" }\n\
    [[pre-stop.step]]\nname = \"sessions\"\nsave = { from = \"@/app/sessions\", to = \"@/state\" }\ntimeout = \"10s\"\nessential = true\n";

/// Runs until the stop, then the same place is free for the next life.
fn life(place: Place, script: &str) -> (Place, String, String) {
    let mut agent = place.run(&["sh", "-c", script]);
    agent.wait_file("stdout", "up");
    agent.signal(libc::SIGTERM);
    agent.end();
    let (log, said) = (agent.log(), agent.stdout());
    (agent.into_place(), log, said)
}

#[test]
fn sessions_live_on_in_the_next_container() {
    let place = Place::with(SESSIONS);
    fs::create_dir_all(place.path("app")).expect("made");
    let script = place.expand("cd @/app; mkdir -p sessions/empty; echo one > sessions/a; chmod 640 sessions/a; ln -s a sessions/link; echo up; exec sleep 100");
    let (place, log, _) = life(place, &script);
    assert!(log.contains("no snapshot of `sessions`"), "the first start has none: {log}");
    assert_eq!(snapshots(&place.path("state")).len(), 1);

    // The container is gone, and its folder with it; the volume is not.
    fs::remove_dir_all(place.path("app")).expect("removed");
    let script = place
        .expand("cat @/app/sessions/link; ls @/app/sessions; echo two > @/app/sessions/b; echo up; exec sleep 100");
    let (place, _, said) = life(place, &script);
    assert_eq!(said, "one\na\nempty\nlink\nup\n");
    let meta = fs::metadata(place.path("app/sessions/a")).expect("there");
    assert_eq!(meta.permissions().mode() & 0o7777, 0o640);
    assert_eq!(snapshots(&place.path("state")).len(), 2);

    fs::remove_dir_all(place.path("app")).expect("removed");
    let script = place.expand("cat @/app/sessions/a @/app/sessions/b; echo up; exec sleep 100");
    let (_, _, said) = life(place, &script);
    assert_eq!(said, "one\ntwo\nup\n");
}

#[test]
fn a_crash_saves_what_is_essential_and_nothing_else() {
    for (essential, want) in [(true, 1), (false, 0)] {
        let place = Place::with(&SESSIONS.replace("essential = true", &format!("essential = {essential}")));
        fs::create_dir_all(place.path("app/sessions")).expect("made");
        fs::write(place.path("app/sessions/a"), "one").expect("written");
        // As the kernel ends it when the memory is used up.
        let mut agent = place.run(&["sh", "-c", "kill -KILL $$"]);
        assert_eq!(agent.end(), 137);
        assert_eq!(snapshots(&agent.place.path("state")).len(), want, "essential = {essential}: {}", agent.log());
    }
}

#[test]
fn only_the_newest_are_kept_and_an_unfinished_one_is_cleared() {
    let place = Place::with(&SESSIONS.replace("to = \"@/state\" }\ntimeout", "to = \"@/state\", keep = 2 }\ntimeout"));
    fs::create_dir_all(place.path("app/sessions")).expect("made");
    fs::create_dir_all(place.path("state")).expect("made");
    fs::write(place.path("state/other.0000000001.20260101T000000Z.tar"), "not ours").expect("written");
    for round in 0..4 {
        fs::write(place.path("app/sessions/a"), format!("round {round}")).expect("written");
        assert_eq!(place.boathook(&["shutdown"]).code, 0);
    }
    let names = snapshots(&place.path("state"));
    let numbers: Vec<&str> = names.iter().filter_map(|name| name.split('.').nth(1)).collect();
    assert_eq!(numbers, ["0000000001", "0000000003", "0000000004"], "the other state's is not touched: {names:?}");
}

#[test]
fn a_damaged_snapshot_is_skipped_and_named() {
    let place = Place::with(SESSIONS);
    fs::create_dir_all(place.path("app/sessions")).expect("made");
    for round in ["old", "new"] {
        fs::write(place.path("app/sessions/a"), round).expect("written");
        assert_eq!(place.boathook(&["shutdown"]).code, 0);
    }
    let newest = place.path("state").join(snapshots(&place.path("state")).pop().expect("two"));
    let mut bytes = fs::read(&newest).expect("read");
    let middle = bytes.len() / 4;
    bytes[middle] ^= 0x10;
    fs::write(&newest, bytes).expect("written");
    fs::remove_dir_all(place.path("app")).expect("removed");
    let script = place.expand("cat @/app/sessions/a; echo up; exec sleep 100");
    let mut agent = place.run(&["sh", "-c", &script]);
    agent.wait_file("stdout", "up");
    assert_eq!(agent.stdout(), "oldup\n");
    let name = newest.file_name().expect("a name").to_string_lossy().into_owned();
    let told = report(&agent, "pre-start")["steps"][0]["reason"].as_str().unwrap_or_default().to_owned();
    assert!(told.contains("skipped") && told.contains(&name), "{told}");
    let listed = agent.place.boathook(&["state", "verify", "@/state"]);
    assert_eq!(listed.code, 1, "{listed:?}");
    assert!(listed.stdout.contains(&format!("damaged  {name}")), "{listed:?}");
}

#[test]
fn no_snapshot_is_a_failure_where_it_is_said_so() {
    let place = Place::with(&SESSIONS.replace("to = \"@/app\" }", "to = \"@/app\", if-missing = \"fail\" }"));
    let mut agent = place.run(&["true"]);
    assert_eq!(agent.end(), 1);
    assert_eq!(
        without_time(agent.place.read("termination").trim_end()),
        agent.place.expand("boathook: pre-start failed: step \"sessions\": @/state: no snapshot of `sessions`")
    );
}

#[test]
fn what_runs_is_saved_every_period_and_a_sudden_death_loses_no_more() {
    let config = SESSIONS.replace("to = \"@/state\" }\ntimeout", "to = \"@/state\", periodic = \"1s\" }\ntimeout");
    let place = Place::with(&config);
    fs::create_dir_all(place.path("app/sessions")).expect("made");
    let mut agent = place.run(&["sleep", "100"]);
    agent.wait_log("to=\"ready\"");
    fs::write(agent.place.path("app/sessions/a"), "while it ran").expect("written");
    let succeeded = |agent: &Agent| {
        let status: Value = serde_json::from_str(&agent.place.boathook(&["status", "--json"]).stdout).expect("JSON");
        let save = &status["periodic-saves"][0];
        assert_eq!((save["name"].as_str(), save["every"].as_f64()), (Some("sessions"), Some(1.0)), "{status}");
        (save["succeeded"].as_u64().expect("a count"), save["saved-at"].is_number())
    };
    let (before, _) = succeeded(&agent);
    until("two more periodic saves", || {
        matches!(succeeded(&agent), (count, true) if count >= before + 2).then_some(())
    });
    let told = agent.place.boathook(&["status"]).stdout;
    assert!(told.contains("saves     sessions every 1s: "), "{told}");
    let metrics = agent.kubelet().call("/metrics").expect("an answer").body;
    assert!(metrics.contains("boathook_periodic_saves_total{step=\"sessions\",outcome=\"succeeded\"} "), "{metrics}");
    // The whole container, as `memory.oom.group` does it.
    agent.signal(libc::SIGKILL);
    agent.end();
    let place = agent.into_place();
    fs::remove_dir_all(place.path("app")).expect("removed");
    let (place, ..) = life(place, "echo up; exec sleep 100");
    assert_eq!(place.read("app/sessions/a"), "while it ran");
}

#[test]
fn a_save_that_cannot_finish_says_so_early_and_leaves_the_one_before() {
    let config = "grace-period = \"60s\"\n\
        [[pre-stop.step]]\nname = \"big\"\nsave = { from = \"@/app/big\", to = \"@/state\", compression = \"gzip\" }\ntimeout = \"1500ms\"\n";
    let place = Place::with(config);
    fs::create_dir_all(place.path("app/big")).expect("made");
    fs::write(place.path("app/big/a"), "small").expect("written");
    assert_eq!(place.boathook(&["shutdown"]).code, 0);
    // So much gzip takes far longer than that on any machine.
    let mut noise = vec![0; 16 << 20];
    fill(&mut noise);
    for index in 0..120 {
        fs::write(place.path(&format!("app/big/{index}")), &noise).expect("written");
    }
    let mut agent = place.run(&["sleep", "100"]);
    agent.wait_log("to=\"ready\"");
    agent.signal(libc::SIGTERM);
    let doing = until("progress", || {
        let status: Value = serde_json::from_str(&agent.place.boathook(&["status", "--json"]).stdout).ok()?;
        let hooks = status["hooks"].as_array()?.clone();
        let step = hooks.iter().find(|hook| hook["hook"] == "pre-stop")?["steps"][0]["reason"].as_str()?.to_owned();
        step.contains("/s, ").then_some(step)
    });
    assert!(
        doing.contains(" of 2.0 GB, ") && doing.contains(" of 121 files, ") && doing.ends_with(" to go"),
        "{doing}"
    );
    agent.end();
    let log = agent.log();
    let early = log.lines().position(|line| line.contains("it will not be done in time"));
    let cut = log.lines().position(|line| line.contains("outcome=\"timed-out\"") && line.contains("abandoned: saved "));
    assert!(early.is_some() && early < cut, "{log}");
    let left = everything(&agent.place.path("state"));
    assert_eq!(left.len(), 1, "abandoned cleanly: {left:?}");
    let verified = agent.place.boathook(&["state", "verify", "@/state"]);
    assert_eq!(verified.code, 0, "{verified:?}");
}

/// Bytes that nothing compresses.
fn fill(bytes: &mut [u8]) {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for chunk in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
}

#[test]
fn a_save_by_hand_and_what_tar_makes_of_it() {
    for (compression, unpack) in [("zstd", "zstd -dcq"), ("lz4", "lz4 -dcq"), ("gzip", "gzip -dcq"), ("none", "cat")] {
        let place = Place::bare();
        fs::create_dir_all(place.path("app/data")).expect("made");
        fs::write(place.path("app/data/x"), "content").expect("written");
        fs::create_dir_all(place.path("state")).expect("made");
        let said = place.boathook(&[
            "step",
            "save",
            "--name",
            "mine",
            "--from",
            "@/app/data",
            "--to",
            "@/state",
            "--compression",
            compression,
        ]);
        assert_eq!(said.code, 0, "{said:?}");
        let name = snapshots(&place.path("state")).pop().expect("one");
        let mut tar = Command::new("sh");
        tar.args([
            "-c",
            &format!("set -e; cd '{}'; {unpack} < 'state/{name}' | tar -xf - ; cat data/x", place.folder().display()),
        ]);
        place.dress(&mut tar);
        let said = place.finish(tar);
        assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (0, "content", ""), "{compression}");
        let said = place.boathook(&["step", "restore", "--name", "mine", "--from", "@/state", "--to", "@/back"]);
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(place.read("back/data/x"), "content");
        let said = place.boathook(&["state", "list", "@/state"]);
        assert!(said.stdout.starts_with(&name) && said.stdout.contains(" 1 files, 7 B, by "), "{said:?}");
        let said = place.boathook(&["state", "extract", "@/state", "--into", "@/look"]);
        assert_eq!((said.code, place.read("look/data/x").as_str()), (0, "content"), "{said:?}");
        let said = place.boathook(&["state", "list", "--json", &format!("@/state/{name}")]);
        let listed: Value = serde_json::from_str(&said.stdout).expect("JSON");
        assert_eq!(listed[0]["manifest"]["state"], "mine", "{listed}");
        assert_eq!(listed[0]["manifest"]["roots"][0], "data", "{listed}");
    }
}

#[test]
fn a_command_that_fails_saves_nothing_and_the_reason_is_its_own() {
    let config = "[[pre-stop.step]]\nname = \"dump\"\n\
        save = { from = { exec = [\"sh\", \"-c\", \"echo half of it; echo no such database >&2; exit 3\"], file = \"dump.sql\" }, to = \"@/state\" }\n";
    let place = Place::with(config);
    let said = place.boathook(&["shutdown"]);
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("exit code 3") && said.stderr.contains("no such database"), "{said:?}");
    assert_eq!(everything(&place.path("state")), Vec::<String>::new());
    // One that is larger than what is held in memory waits in the store's folder, which is made for it.
    let large = config.replace("echo half of it; echo no such database >&2; exit 3", "head -c 20000000 /dev/zero");
    let place = Place::with(&large).env("TMPDIR", "@/nowhere");
    assert_eq!(place.boathook(&["shutdown"]).code, 0);
    assert_eq!(place.boathook(&["state", "verify"]).code, 0);
    let place = Place::with(&config.replace("exit 3", "exit 0"));
    assert_eq!(place.boathook(&["shutdown"]).code, 0);
    assert_eq!(place.boathook(&["state", "extract", "--into", "@/look"]).code, 0);
    assert_eq!(place.read("look/dump.sql"), "half of it\n");
}

#[test]
fn a_save_that_could_read_nothing_is_none() {
    let nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = Place::bare();
    for folder in ["app", "app/data", "state"] {
        fs::create_dir_all(place.path(folder)).expect("made");
        fs::set_permissions(place.path(folder), fs::Permissions::from_mode(0o777)).expect("opened");
    }
    fs::set_permissions(place.folder(), fs::Permissions::from_mode(0o755)).expect("opened");
    fs::copy(support::BOATHOOK, place.path("boathook")).expect("where anybody may execute it");
    let save = |place: &Place| {
        let mut command = Command::new(nobody[0]);
        let words = ["@/boathook", "step", "save", "--name", "x", "--from", "@/app/data", "--to", "@/state"];
        command.args(&nobody[1..]).args(words.map(|word| place.expand(word)));
        place.dress(&mut command);
        place.finish(command)
    };
    fs::write(place.path("app/data/a"), "a").expect("written");
    fs::set_permissions(place.path("app/data/a"), fs::Permissions::from_mode(0o600)).expect("closed");
    let said = save(&place);
    assert_eq!(said.code, 1, "{said:?}");
    let reason = place.expand("nothing could be read: cannot be read: @/app/data/a: Permission denied");
    assert!(said.stderr.contains(&reason), "{said:?}");
    assert_eq!(everything(&place.path("state")), Vec::<String>::new());
    // Control: with one that can be read the rest is noted.
    fs::write(place.path("app/data/b"), "b").expect("written");
    let said = save(&place);
    assert_eq!((said.code, snapshots(&place.path("state")).len()), (0, 1), "{said:?}");
}

#[test]
fn a_life_without_its_state_pushes_no_snapshot_out() {
    let config = SESSIONS
        .replace("to = \"@/app\" }", "to = \"@/app\", max-bytes = 3 }\non-failure = \"continue\"")
        .replace("to = \"@/state\" }\ntimeout", "to = \"@/state\", keep = 1 }\ntimeout");
    let place = Place::with(&config);
    fs::create_dir_all(place.path("app/sessions")).expect("made");
    fs::write(place.path("app/sessions/a"), "an hour's work").expect("written");
    assert_eq!(place.boathook(&["shutdown"]).code, 0);
    // The restore fails, and the application begins with nothing.
    fs::remove_dir_all(place.path("app")).expect("removed");
    let script = place.expand("mkdir -p @/app/sessions; echo up; exec sleep 100");
    let (place, log, _) = life(place, &script);
    assert!(log.contains("raise max-bytes"), "{log}");
    assert_eq!(snapshots(&place.path("state")).len(), 2, "the one with the work is still there: {log}");
    // Control: a life that has its state keeps to the number.
    assert_eq!(place.boathook(&["shutdown"]).code, 0);
    assert_eq!(snapshots(&place.path("state")).len(), 1);
}

// ---- a restore that was asked to keep or to merge ----

#[test]
fn what_is_there_is_replaced_kept_or_merged() {
    for (how, want_own, want_saved) in [("replace", "", "saved"), ("keep", "own", ""), ("merge", "own", "saved")] {
        let place = Place::bare();
        fs::create_dir_all(place.path("app/data")).expect("made");
        fs::create_dir_all(place.path("state")).expect("made");
        fs::write(place.path("app/data/saved"), "saved").expect("written");
        let said = place.boathook(&["step", "save", "--name", "x", "--from", "@/app/data", "--to", "@/state"]);
        assert_eq!(said.code, 0, "{said:?}");
        fs::create_dir_all(place.path("next/data")).expect("made");
        fs::create_dir_all(place.path("next/beside")).expect("made");
        fs::write(place.path("next/data/own"), "own").expect("written");
        fs::write(place.path("next/beside/b"), "beside").expect("written");
        let said = place.boathook(&[
            "step",
            "restore",
            "--name",
            "x",
            "--from",
            "@/state",
            "--to",
            "@/next",
            "--if-present",
            how,
        ]);
        assert_eq!(said.code, 0, "{how}: {said:?}");
        assert_eq!(
            (place.read("next/data/own").as_str(), place.read("next/data/saved").as_str()),
            (want_own, want_saved),
            "{how}"
        );
        assert_eq!(place.read("next/beside/b"), "beside", "{how}: what the snapshot does not hold is not touched");
        assert_eq!(everything(&place.path("next")), ["beside", "data"], "{how}: nothing is left aside");
    }
}

#[test]
fn a_file_that_vanishes_or_changes_is_told_and_the_rest_is_saved() {
    let place = Place::with(
        "[[pre-stop.step]]\nname = \"x\"\nsave = { from = [\"@/app/there\", \"@/app/missing\"], to = \"@/state\" }\n",
    );
    fs::create_dir_all(place.path("app/there")).expect("made");
    fs::write(place.path("app/there/a"), "a").expect("written");
    symlink("nowhere", place.path("app/there/dangling")).expect("linked");
    let said = place.boathook(&["shutdown"]);
    assert_eq!(said.code, 0, "{said:?}");
    let listed: Value = serde_json::from_str(&place.boathook(&["state", "list", "--json"]).stdout).expect("JSON");
    let notes = listed[0]["manifest"]["notes"].to_string();
    assert!(notes.contains("missing"), "{listed}");
    // All of them missing is no save.
    let place = Place::with("[[pre-stop.step]]\nname = \"x\"\nsave = { from = \"@/app/missing\", to = \"@/state\" }\n");
    let said = place.boathook(&["shutdown"]);
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("missing: No such file or directory"), "{said:?}");
}
