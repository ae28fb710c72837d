//! The drain's promises, held from outside with the real binary and nginx, which SIGTERM ends at once: nobody whom a late
//! router still sends is dropped, and the pod is gone as soon as that allows. Arrivals are dense, rare, in bursts and thinning;
//! connections that are not users' are there or not; sock_diag is there or refused. Times are short, so that the test is.

use std::time::Duration;

#[allow(dead_code, reason = "the stops under load are for other tests")]
#[path = "support/drain_load.rs"]
mod drain_load;
mod rollout_support;
mod server_support;
mod support;

use rollout_support::{
    Arrivals, Case, End, Noise, Pinned, Router, Setup, Side, Single, Site, Tally, Way, ask_from_elsewhere, case, knock,
    ms, s, side_by_side, wait_ready, wait_until,
};

/// For a machine that is busy with something else, and an unoptimised build.
const SLACK: Duration = ms(400);

/// As dense as what counts as a busy service (20 a second), and a little more.
const BUSY: Arrivals = Arrivals::Every(ms(45));

/// Stops a pod whose users came for `before` and go on coming for `late`.
fn roll(site: &mut Site, arrivals: Arrivals, before: Duration, late: Duration) -> (End, Tally) {
    let router = Router::start(site.address, arrivals);
    wait_until(router.started + before);
    let stop = site.stop();
    let begun = stop.begun;
    router.remove(&stop, late);
    let end = site.end(stop);
    let tally = router.finish(begun);
    println!("gone after {:.2?}: {}\n{tally}", end.took, end.text);
    (end, tally)
}

/// What a drain says that ended because of what is known of arrivals.
#[track_caller]
fn assert_ended_by_quiet(end: &End) {
    let has_figures = [" a second", "longest gap"].iter().any(|figure| end.text.contains(figure));
    assert!(end.text.contains("quiet time") && has_figures, "{}", end.text);
}

/// What a drain says that ended because routing has moved away by then.
#[track_caller]
fn assert_ended_by_settle(end: &End) {
    assert!(end.text.contains("settle time"), "{}", end.text);
}

#[track_caller]
fn assert_none_dropped(tally: &Tally, late: Duration) {
    assert_eq!(tally.dropped, [""; 0], "{tally}");
    assert!(tally.last <= late + ms(100) && tally.requests > 0, "{tally}");
}

#[track_caller]
fn assert_gone_within(end: &End, limit: Duration) {
    assert!(end.took <= limit, "gone after {:.2?}, at most {limit:.2?} is promised: {}", end.took, end.text);
}

// ---- a busy service ----

/// Busy for some seconds, then stopped: gone at most two seconds after the last came, with their longest request.
fn busy(site: &mut Site, arrivals: Arrivals, late: Duration) {
    let (end, tally) = roll(site, arrivals, s(5), late);
    assert_none_dropped(&tally, late);
    assert_gone_within(&end, late + tally.longest + s(2));
    assert!(end.took >= late, "gone while they still came");
    assert_ended_by_quiet(&end);
}

#[test]
fn a_busy_service_is_gone_soon_after_routing_has_moved_away() {
    let mut cases: Vec<Case> = Vec::new();
    for probes in [Some(s(1)), None] {
        for arrivals in [BUSY, Arrivals::Poisson(25.0)] {
            // With probes and even, without and by chance: all ways of being late; the other two are spot checks.
            let is_spot = probes.is_some() == matches!(arrivals, Arrivals::Poisson(_));
            for (late, way) in [(s(1), Way::Http), (s(0), Way::Term), (s(3), Way::Term)] {
                if is_spot && late != s(1) {
                    continue;
                }
                let arrivals = arrivals.clone();
                cases.push(case(format!("{late:?} late, {arrivals:?}, probes {probes:?}"), move || {
                    let mut site = Setup { way, drain: "settle = '7s'", ..Setup::default() }.start();
                    let _probes = probes.map(|every| site.probe(every));
                    busy(&mut site, arrivals, late);
                }));
            }
        }
    }
    side_by_side("a_busy_service_is_gone_soon_after_routing_has_moved_away", cases);
}

// ---- few come, or many at once ----

const SETTLE: Duration = s(5);

/// Nobody is dropped with routing that is as late as `settle`, and that is when it ends.
fn settles(site: &mut Site, arrivals: Arrivals, before: Duration) {
    let (end, tally) = roll(site, arrivals, before, SETTLE);
    assert_none_dropped(&tally, SETTLE);
    assert_gone_within(&end, SETTLE + tally.longest + s(1) + SLACK);
}

#[test]
fn the_few_users_of_a_quiet_service_are_not_dropped() {
    let mut cases: Vec<Case> = Vec::new();
    for probes in [Some(s(1)), None] {
        // How often, and when the stop begins: so that the last comes when routing has nearly moved away, or so that one comes
        // at once.
        for (every, before) in [(2500, 5100), (2500, 7400), (5300, 5800)] {
            cases.push(case(format!("every {every}, {before}, probes {probes:?}"), move || {
                let mut site = Setup::default().start();
                let _probes = probes.map(|every| site.probe(every));
                settles(&mut site, Arrivals::Every(ms(every)), ms(before));
            }));
        }
    }
    cases.push(case("by chance", move || {
        let mut site = Setup::default().start();
        let _probes = site.probe(s(1));
        settles(&mut site, Arrivals::Poisson(2.0), s(6));
    }));
    for probes in [Some(s(1)), None] {
        cases.push(case(format!("busy before, probes {probes:?}"), move || {
            let mut site = Setup::default().start();
            let _probes = probes.map(|every| site.probe(every));
            let mut crowd = Router::start(site.address, Arrivals::Poisson(50.0));
            wait_until(crowd.started + s(3));
            crowd.stop();
            settles(&mut site, Arrivals::Every(ms(2500)), ms(5100));
        }));
    }
    side_by_side("the_few_users_of_a_quiet_service_are_not_dropped", cases);
}

#[test]
fn bursts_and_routers_that_stop_one_by_one_are_not_taken_for_silence() {
    let mut cases: Vec<Case> = Vec::new();
    for probes in [Some(ms(700)), None] {
        for (every, before) in [(1500, 4650), (1500, 5900), (4000, 7800)] {
            cases.push(case(format!("every {every}, {before}, probes {probes:?}"), move || {
                let drain = if every < 2000 { "settle = '5s'\nquiet-min = '300ms'" } else { "settle = '5s'" };
                let mut site = Setup { drain, ..Setup::default() }.start();
                let _probes = probes.map(|every| site.probe(every));
                settles(&mut site, Arrivals::Bursts(20, ms(every)), ms(before));
            }));
        }
    }
    for probes in [Some(s(1)), None] {
        for (routers, every) in [(30, 1500), (40, 2000)] {
            cases.push(case(format!("{routers} routers every {every}, probes {probes:?}"), move || {
                let mut site = Setup::default().start();
                let _probes = probes.map(|every| site.probe(every));
                settles(&mut site, Arrivals::Thinning(routers, ms(every)), s(5));
            }));
        }
    }
    side_by_side("bursts_and_routers_that_stop_one_by_one_are_not_taken_for_silence", cases);
}

#[test]
fn settle_is_for_when_nothing_is_known_and_may_be_too_short() {
    let drain = "settle = '2s'";
    let comes = |arrivals: Arrivals| {
        move || {
            let mut site = Setup { drain, ..Setup::default() }.start();
            let _probes = site.probe(s(1));
            let (end, tally) = roll(&mut site, arrivals, s(4), s(5));
            assert_none_dropped(&tally, s(5));
            assert!(end.took >= tally.last + ms(900), "sooner than quiet-min after the last");
            assert_gone_within(&end, tally.last + tally.longest + s(1) + SLACK);
            assert!(end.succeeded && says_settle_is_short(&end), "{}", end.text);
        }
    };
    let mut cases = vec![
        case("many", comes(BUSY)),
        case("some", comes(Arrivals::Every(ms(700)))),
        case("without end", move || {
            let mut site = Setup { drain, timeout: "5s", ..Setup::default() }.start();
            let (end, _) = roll(&mut site, BUSY, s(3), s(6));
            assert!(end.took >= s(5), "{:?}", end.took);
            assert_gone_within(&end, s(5) + SLACK);
            assert!(!end.succeeded && says_settle_is_short(&end), "{}", end.text);
        }),
    ];
    let nobody = |way, probes: Option<Duration>| {
        move || {
            let mut site = Setup { way, drain: "settle = '3s'", ..Setup::default() }.start();
            let _probes = probes.map(|every| site.probe(every));
            let stop = site.stop();
            let end = site.end(stop);
            println!("gone after {:.2?}: {}", end.took, end.text);
            assert!(end.took >= s(3), "{:.2?} {}", end.took, end.text);
            assert_gone_within(&end, s(3) + ms(200) + SLACK);
            assert_ended_by_settle(&end);
        }
    };
    cases.extend([
        case("with an agent", nobody(Way::Term, None)),
        case("with probes", nobody(Way::Http, Some(s(1)))),
        case("without an agent", nobody(Way::Exec, None)),
        case("few, without an agent", || {
            let mut site = Setup { way: Way::Exec, ..Setup::default() }.start();
            settles(&mut site, Arrivals::Every(ms(2300)), ms(2200));
        }),
        case("many, without an agent", || {
            let mut site = Setup { way: Way::Exec, ..Setup::default() }.start();
            settles(&mut site, BUSY, s(2));
        }),
    ]);
    side_by_side("settle_is_for_when_nothing_is_known_and_may_be_too_short", cases);
}

fn says_settle_is_short(end: &End) -> bool {
    end.text.contains("settle time") && end.text.contains("raise it")
}

// ---- what must not count ----

/// Three users come after the stop began, the last shortly before `settle`; whatever else comes is no reason to go
/// sooner, and none to stay.
fn quiet_service(site: &mut Site) {
    settles(site, Arrivals::Every(ms(2300)), ms(6800));
}

#[test]
fn other_connections_than_users_do_not_count() {
    type Make = fn(&mut Site) -> Noise;
    let noises: [(&str, &str, &str, Make); 6] = [
        ("the agent's own port", "", "", |site| site.probe(ms(20))),
        ("a sidecar that closes", "", "", |_| knock(Side::Pod, true, ms(10))),
        ("a sidecar whose clients close", "", "", |_| knock(Side::Pod, false, ms(15))),
        ("a sidecar that closes, from outside", "", "", |_| knock(Side::Outside, true, ms(15))),
        ("an ignored peer", "ignore-peers = ['10.77.0.3']", "", |site| ask_from_elsewhere(site.address, ms(30))),
        ("readiness", "", "[readiness]\nhttp = 'http://127.0.0.1:@port/'\ncache = '100ms'\n", |site| {
            site.probe(ms(30))
        }),
    ];
    let mut cases: Vec<Case> = Vec::new();
    for (name, drain, more, make) in noises {
        let drain = if drain.is_empty() { "settle = '5s'" } else { "settle = '5s'\nignore-peers = ['10.77.0.3']" };
        cases.push(case(name, move || {
            let mut site = Setup { drain, more, ..Setup::default() }.start();
            wait_ready(&mut site.agent);
            let _noise = make(&mut site);
            let _probes = site.probe(s(1));
            quiet_service(&mut site);
        }));
    }
    cases.push(case("a sidecar that stops first", || {
        let mut site = Setup::default().start();
        let _probes = site.probe(s(1));
        let noise = knock(Side::Pod, true, ms(10));
        let router = Router::start(site.address, Arrivals::Every(ms(2300)));
        wait_until(router.started + ms(6800));
        let stop = site.stop();
        drop(noise);
        let begun = stop.begun;
        router.remove(&stop, SETTLE);
        let end = site.end(stop);
        let tally = router.finish(begun);
        println!("gone after {:.2?}: {}\n{tally}", end.took, end.text);
        assert_none_dropped(&tally, SETTLE);
        assert_gone_within(&end, SETTLE + tally.longest + s(1) + SLACK);
    }));
    cases.push(case("a warm-up", || {
        let more = "[[post-start.step]]\n[post-start.step.warm-up]\nrequests = ['http://127.0.0.1:@port/']\n\
                    successes = 2000\nkeep-alive = false\n";
        let mut site = Setup { more, ..Setup::default() }.start();
        wait_ready(&mut site.agent);
        let _probes = site.probe(s(1));
        settles(&mut site, Arrivals::Every(ms(2300)), ms(2200));
    }));
    side_by_side("other_connections_than_users_do_not_count", cases);
}

#[test]
fn what_does_not_count_does_not_keep_it_awake() {
    type Make = fn(&mut Site) -> Noise;
    let noises: [(&str, Make); 4] = [
        ("the agent's own port", |site| site.probe(ms(20))),
        ("a sidecar that closes", |_| knock(Side::Pod, true, ms(10))),
        ("a sidecar whose clients close", |_| knock(Side::Pod, false, ms(15))),
        ("a sidecar that closes, from outside", |_| knock(Side::Outside, true, ms(15))),
    ];
    let mut cases: Vec<Case> = Vec::new();
    for (name, make) in noises {
        cases.push(case(format!("busy, {name}"), move || {
            let mut site = Setup { drain: "settle = '7s'", ..Setup::default() }.start();
            let _noise = make(&mut site);
            let _probes = site.probe(s(1));
            busy(&mut site, BUSY, s(1));
        }));
        cases.push(case(format!("nobody, {name}"), move || {
            let mut site = Setup { drain: "settle = '3s'", ..Setup::default() }.start();
            let _noise = make(&mut site);
            std::thread::sleep(s(3));
            let stop = site.stop();
            let end = site.end(stop);
            println!("gone after {:.2?}: {}", end.took, end.text);
            assert!(end.took >= s(3), "nothing is known: settle is waited for: {:.2?} {}", end.took, end.text);
            assert_gone_within(&end, s(3) + ms(200) + SLACK);
            assert_ended_by_settle(&end);
        }));
    }
    side_by_side("what_does_not_count_does_not_keep_it_awake", cases);
}

// ---- in flight beside it ----

/// A busy pod with one slow request, begun when routing moves away, and what else is given.
fn with_a_slow_one(site: &mut Site, takes: Duration, keep: bool, late: Duration) -> (End, Tally, Duration) {
    let _probes = site.probe(s(1));
    let router = Router::start(site.address, BUSY);
    wait_until(router.started + s(4));
    let stop = site.stop();
    let begun = stop.begun;
    router.remove(&stop, late);
    wait_until(begun + late.saturating_sub(ms(50)));
    let slow = Single::slow(site.address, takes, keep);
    let end = site.end(stop);
    let tally = router.finish(begun);
    let slow = slow.finish();
    let answered = slow.ended.unwrap_or_else(|why| panic!("the slow one: {why}: {}", end.text));
    println!("gone after {:.2?}, the slow one answered at {:.2?}: {}\n{tally}", end.took, answered - begun, end.text);
    (end, tally, answered - begun)
}

#[test]
fn what_is_in_flight_is_waited_for_beside_it() {
    let drain = "settle = '7s'";
    let mut cases: Vec<Case> = Vec::new();
    for keep in [false, true] {
        for late in [s(0), s(1)] {
            cases.push(case(format!("a slow one, kept {keep}, {late:?} late"), move || {
                let mut site = Setup { drain, ..Setup::default() }.start();
                let idle: Vec<_> = (0..10).map(|_| Single::slow(site.address, ms(1), true)).collect();
                let (end, tally, answered) = with_a_slow_one(&mut site, s(2), keep, late);
                assert_none_dropped(&tally, late);
                // A kept connection on which the server spoke last is idle after a second.
                let idle_after = if keep { s(1) } else { ms(0) };
                assert_gone_within(&end, answered.max(late + s(1)) + idle_after + SLACK);
                for one in idle {
                    assert!(one.finish().ended.is_ok());
                }
            }));
        }
    }
    cases.push(case("pinned, without a graceful stop", move || {
        let mut site = Setup { drain, timeout: "5s", ..Setup::default() }.start();
        // As good as always in flight, one request after the other.
        let pinned: Vec<Pinned> = (0..4).map(|_| Pinned::start(site.address, ms(1), ms(300))).collect();
        let (end, tally, _) = with_a_slow_one(&mut site, s(2), false, s(1));
        assert_none_dropped(&tally, s(1));
        assert!(!end.succeeded && end.text.contains("graceful-stop"), "{}", end.text);
        drop(pinned);
    }));
    for (every, takes) in [(ms(20), ms(0)), (ms(200), ms(0)), (ms(1), ms(300))] {
        cases.push(case(format!("pinned, with a graceful stop, {every:?}, {takes:?}"), move || {
            let app = "stop-signal = 'QUIT'\ngraceful-stop = true";
            let mut site = Setup { drain, app, ..Setup::default() }.start();
            let pinned: Vec<Pinned> = (0..16).map(|_| Pinned::start(site.address, every, takes)).collect();
            let (end, tally, answered) = with_a_slow_one(&mut site, s(2), false, s(1));
            assert_none_dropped(&tally, s(1));
            assert_gone_within(&end, answered + takes + ms(300) + SLACK);
            for one in pinned {
                let (count, wrong) = one.finish();
                assert!(wrong.is_empty() && count > 10, "{count} answers, {wrong:?}");
            }
        }));
    }
    // The rules, switched off.
    cases.push(case("no quiet rule", || {
        let mut site = Setup { drain: "settle = '0s'", ..Setup::default() }.start();
        let (_, tally) = roll(&mut site, BUSY, s(2), s(1));
        assert!(tally.dropped.len() > 5, "{tally}");
    }));
    cases.push(case("no in-flight rule", || {
        let drain = "settle = '3s'\nthreshold = 100000";
        let mut site = Setup { drain, ..Setup::default() }.start();
        let slow = Single::slow(site.address, s(6), false);
        let (_, tally) = roll(&mut site, BUSY, s(2), s(1));
        assert_none_dropped(&tally, s(1));
        assert!(slow.finish().ended.is_err(), "it was answered");
    }));
    side_by_side("what_is_in_flight_is_waited_for_beside_it", cases);
}

// ---- where sock_diag is refused ----

#[test]
fn without_sock_diag_it_is_the_same() {
    let mut cases: Vec<Case> = Vec::new();
    for (name, number) in [
        ("EPERM", Some(libc::EPERM)),
        ("EACCES", Some(libc::EACCES)),
        ("EAFNOSUPPORT", Some(libc::EAFNOSUPPORT)),
        ("by choice", None),
    ] {
        let drain = if number.is_none() { "settle = '7s'\nsource = 'proc'" } else { "settle = '7s'" };
        cases.push(case(format!("busy, {name}"), move || {
            let mut site = Setup { drain, refused: number, ..Setup::default() }.start();
            let _probes = site.probe(s(1));
            let (end, tally) = roll(&mut site, BUSY, s(5), s(1));
            assert_none_dropped(&tally, s(1));
            assert_gone_within(&end, s(3) + tally.longest + SLACK);
            assert_ended_by_quiet(&end);
            assert!(end.text.contains("by /proc/net/tcp"), "{}", end.text);
        }));
    }
    let refused = Some(libc::EPERM);
    cases.push(case("slow", move || {
        let mut site = Setup { drain: "settle = '7s'", refused, ..Setup::default() }.start();
        let (end, tally, answered) = with_a_slow_one(&mut site, s(3), false, s(1));
        assert_none_dropped(&tally, s(1));
        assert_gone_within(&end, answered + ms(300) + SLACK);
    }));
    cases.push(case("slow and kept", move || {
        let drain = "settle = '7s'\nlongest-request = '3s'";
        let mut site = Setup { drain, refused, ..Setup::default() }.start();
        let (end, tally, answered) = with_a_slow_one(&mut site, s(2), true, s(1));
        assert_none_dropped(&tally, s(1));
        assert_gone_within(&end, answered + s(3) + SLACK);
    }));
    cases.push(case("idle and kept", move || {
        let drain = "settle = '7s'\nlongest-request = '3s'";
        let mut site = Setup { drain, refused, ..Setup::default() }.start();
        let idle: Vec<_> = (0..200).map(|_| Single::slow(site.address, ms(1), true)).collect();
        let (end, tally) = roll(&mut site, BUSY, s(4), s(1));
        assert_none_dropped(&tally, s(1));
        // Nobody can see who spoke last: each has been still for so long since the first look.
        assert!(end.succeeded, "{}", end.text);
        assert_gone_within(&end, s(4) + SLACK);
        drop(idle);
    }));
    cases.push(case("few", move || {
        let mut site = Setup { refused, ..Setup::default() }.start();
        let _probes = site.probe(s(1));
        settles(&mut site, Arrivals::Every(ms(2500)), ms(5100));
    }));
    cases.push(case("bursts", move || {
        let drain = "settle = '5s'\nquiet-min = '300ms'";
        let mut site = Setup { drain, refused, ..Setup::default() }.start();
        let _probes = site.probe(s(1));
        settles(&mut site, Arrivals::Bursts(20, ms(1500)), ms(4650));
    }));
    side_by_side("without_sock_diag_it_is_the_same", cases);
}
