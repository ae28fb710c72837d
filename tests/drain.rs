//! The drain's promise, with the real binary and the real nginx: when the hook answers, no request is in flight, so
//! that a server which is stopped at that very moment cuts nobody. nginx ends on SIGTERM at once, whatever it does.

use std::{env, process::Stdio};

#[path = "support/drain_load.rs"]
mod drain_load;

use drain_load::{Outcome, Way, again_isolated, nginx, raise_loopback, stop_under_load};

const CHILD: &str = "BOATHOOK_TEST_CHILD";
/// Short, so that the test is: routing is quiet 250 ms after the hook's start, the last answers come 730 ms later.
const KEYS: [(&str, &str); 2] = [("settle", "400ms"), ("quiet-min", "200ms")];
/// So many processes, each in a network namespace of its own, do so many stops one after the other.
const PROCESSES: usize = 4;
const STOPS: usize = 5;

/// Runs the test in several processes, each in its own network namespace; `false` in the process that starts them.
fn isolated(name: &str, processes: usize) -> bool {
    if env::var_os(CHILD).is_some() {
        raise_loopback();
        return true;
    }
    if nginx().is_none() {
        assert!(env::var_os("BOATHOOK_REQUIRE_ALL").is_none(), "nginx is not installed");
        println!("skipped: nginx is not installed");
        return false;
    }
    let words = ["--exact", name, "--nocapture", "--test-threads=1"].map(String::from);
    let children: Vec<_> = (0..processes)
        .map(|_| {
            let mut command = again_isolated(&words);
            command.env(CHILD, "yes").stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().expect("it starts again")
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().expect("it was not waited for");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        println!("{text}");
    }
    false
}

fn assert_none_in_flight(way: Way) {
    for _ in 0..STOPS {
        let Outcome { requests, in_flight_then, in_flight_at_the_end, cut, took, late, log } =
            stop_under_load(way, &KEYS);
        println!("{way:?}: {requests} requests, {in_flight_then} in flight at the last, {took:?}, {late:?} after it");
        assert!(in_flight_then > 0, "there was nothing to wait for");
        assert_eq!((in_flight_at_the_end, cut), (0, 0), "{log}");
        assert!(took.as_millis() >= 400, "{took:?}");
    }
}

#[test]
fn nothing_is_in_flight_when_the_step_ends() {
    if isolated("nothing_is_in_flight_when_the_step_ends", PROCESSES) {
        assert_none_in_flight(Way::Step);
    }
}

#[test]
fn nothing_is_in_flight_when_the_stop_signal_is_passed_on() {
    if isolated("nothing_is_in_flight_when_the_stop_signal_is_passed_on", PROCESSES) {
        assert_none_in_flight(Way::Run);
    }
}

#[test]
fn when_connections_in_flight_do_not_count_answers_are_cut() {
    if isolated("when_connections_in_flight_do_not_count_answers_are_cut", 1) {
        for way in [Way::Run, Way::Step] {
            let outcome = stop_under_load(way, &[KEYS[0], KEYS[1], ("threshold", "100000")]);
            println!("{outcome:?}");
            assert!(outcome.cut > 0 && outcome.in_flight_at_the_end > 0, "{outcome:?}");
        }
    }
}
