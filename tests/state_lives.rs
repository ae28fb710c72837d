//! State in a bucket and at a URL: what one container saved, the next one has, whatever the node; told without a secret
//! when it is not so.

mod s3_support;
mod support;

use std::fs;

use s3_support::{KEY, SECRET, Store};
use serde_json::Value;
use support::Place;

fn in_bucket(store: &Store, rest: &str) -> Place {
    let config = format!(
        "grace-period = \"30s\"\n\
        [[pre-start.step]]\nname = \"cache\"\nrestore = {{ from = \"s3://state/app\", to = \"@/app\", endpoint = \"{url}\" }}\n\
        [[pre-stop.step]]\nname = \"cache\"\ntimeout = \"10s\"\nessential = true\n\
        save = {{ from = \"@/app/cache\", to = \"s3://state/app\", endpoint = \"{url}\", keep = 2{rest} }}\n",
        url = store.url()
    );
    Place::with(&config).env("AWS_ACCESS_KEY_ID", KEY).env("AWS_SECRET_ACCESS_KEY", SECRET)
}

#[test]
fn a_cache_moves_from_container_to_container_through_a_bucket() {
    let store = Store::start();
    for round in 0..4 {
        // Another node each time: nothing is left of the folder.
        let place = in_bucket(&store, "");
        let script = place.expand("cat @/app/cache/rounds 2>/dev/null; mkdir -p @/app/cache; echo $ROUND >> @/app/cache/rounds; echo up; exec sleep 100");
        let mut agent = place.env("ROUND", &round.to_string()).run(&["sh", "-c", &script]);
        agent.wait_file("stdout", "up");
        let before: String = (0..round).map(|round| format!("{round}\n")).collect();
        assert_eq!(agent.stdout(), format!("{before}up\n"));
        agent.signal(libc::SIGTERM);
        agent.end();
        assert!(agent.log().contains("step=\"cache\" outcome=\"succeeded\""), "{}", agent.log());
    }
    let place = in_bucket(&store, "");
    let said = place.boathook(&["state", "list", "--json"]);
    let listed: Value = serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    let numbers: Vec<u64> =
        listed.as_array().expect("a list").iter().filter_map(|one| one["manifest"]["number"].as_u64()).collect();
    assert_eq!(numbers, [4, 3], "the newest two are kept: {listed}");
    assert_eq!(place.boathook(&["state", "verify"]).code, 0);
    assert_eq!(place.boathook(&["state", "extract", "--into", "@/look"]).code, 0);
    assert_eq!(place.read("look/cache/rounds"), "0\n1\n2\n3\n");
}

#[test]
fn a_wrong_key_is_told_and_never_shown() {
    let store = Store::start();
    let place = in_bucket(&store, "").env("AWS_SECRET_ACCESS_KEY", "quite-another-secret");
    fs::create_dir_all(place.path("app/cache")).expect("made");
    let said = place.boathook(&["shutdown"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("s3://state/app") && said.stderr.contains("SignatureDoesNotMatch"), "{said:?}");
    assert!(!said.stderr.contains("quite-another-secret"), "{said:?}");
    // Without any, the variable is named.
    let place = in_bucket(&store, "").env("AWS_SECRET_ACCESS_KEY", "");
    fs::create_dir_all(place.path("app/cache")).expect("made");
    let said = place.boathook(&["shutdown"]);
    assert!(said.stderr.contains("AWS_SECRET_ACCESS_KEY"), "{said:?}");
}

#[test]
fn a_presigned_url_takes_one_snapshot_and_gives_it_back() {
    let store = Store::start();
    let (put, get) = (store.presign("PUT", "state", "one"), store.presign("GET", "state", "one"));
    let config = format!(
        "[[pre-start.step]]\nname = \"cache\"\nrestore = {{ from = \"{get}\", to = \"@/app\" }}\n\
        [[pre-stop.step]]\nname = \"cache\"\ntimeout = \"10s\"\nsave = {{ from = \"@/app/cache\", to = \"{put}\", spool = \"@/\" }}\n"
    );
    let place = Place::with(&config);
    let mut agent = place.run(&["sh", "-c", "echo up; exec sleep 100"]);
    agent.wait_file("stdout", "up");
    assert!(agent.log().contains("no snapshot of `cache`"), "{}", agent.log());
    fs::create_dir_all(agent.place.path("app/cache")).expect("made");
    // More than is held in memory, and what nothing compresses.
    let noise: Vec<u8> =
        (0..12_000_000_u32).map(|index| (index.wrapping_mul(2_654_435_761).rotate_left(7) >> 11) as u8).collect();
    fs::write(agent.place.path("app/cache/noise"), &noise).expect("written");
    agent.signal(libc::SIGTERM);
    agent.end();
    let log = agent.log();
    assert!(log.contains("step=\"cache\" outcome=\"succeeded\""), "{log}");
    let signature = put.split("X-Amz-Signature=").nth(1).expect("signed");
    assert!(!log.contains(signature), "{log}");
    let place = agent.into_place();
    fs::remove_dir_all(place.path("app")).expect("the node is gone");
    let mut agent = place.run(&["sh", "-c", "echo up; exec sleep 100"]);
    agent.wait_file("stdout", "up");
    assert!(fs::read(agent.place.path("app/cache/noise")).expect("restored") == noise);
}
