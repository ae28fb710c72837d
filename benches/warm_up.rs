//! What warm-up is worth, and whether it stops when it should.
//!
//! The shipped static binary (`BOATHOOK_DIST`) against real servers: a shop on a JVM (`warm_up/Shop.java`: the JDK's own
//! HTTP server, 14 different requests) and nginx. `BENCH_WARM_UP` names some of the parts, else all of them run:
//!
//! - `effect`: the shop started by `boathook run`, with a post-start that only waits for it, and with one that warms it up
//!   until its plateau of 10 %; by turns. As soon as `/ready` is 200, two users send 200 requests together, of the same
//!   kinds but with other ids. Compared are the p99 of those as clients see it, and the time from the start of the container
//!   to ready: what post-start costs.
//! - `plateau`: a fresh shop, warmed up until its plateau; then as many more requests as make it a long run. At concurrency 1,
//!   where the compilers of the JVM have a core for themselves, and at 2, where they compete with the handlers for two cores:
//!   there the latency is level for long and falls once more when they are done, which a long run knows and nobody before.
//!   When that was flat is said by `warm_up/flat.rs`, which sees the whole run and nothing of the detector. It reads what
//!   the shop itself recorded of each request: by the clock, and as the processor's time of its thread, which a busy
//!   machine disturbs less. The ratio of the two numbers of requests is printed for each run; the bar is 0.8 to 1.2. Then
//!   nginx, which has nothing to warm up: there the fewest requests that can prove a plateau are the bar, and 1.2 of them.
//! - `speed`: requests per second of boathook and of wrk, each on the same one core with the same concurrency, against an
//!   nginx on another core; by turns in rotating order, compared by medians. Then the most memory at concurrency 256.
//! - `hostile`: servers that answer 500, hang, reset, or send a body without end. None is ever warm; how late the step ends
//!   after its limit of 2 s, in all of the process's life, and the reason that it gives.
//!
//! `BENCH_WARM_UP_ROUNDS` (10) are the runs of each part, `BENCH_WARM_UP_LONG` (9000) the requests of a long run. Run it with
//! `make bench BENCH='--bench warm_up'`. Needs java and javac, nginx, wrk, taskset.

#[path = "warm_up/client.rs"]
mod client;
#[path = "warm_up/flat.rs"]
mod flat;
#[path = "warm_up/servers.rs"]
mod servers;

use std::{
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use client::Client;
use flat::{flat, median};
use servers::{Bad, BadServer, Ended, Shop, free_port, start_nginx, wait_for};

/// What the shop is asked, `ID` for the number of a product: method, path, body.
const LIST: [(&str, &str, &str); 14] = [
    ("GET", "/", ""),
    ("GET", "/products?limit=50", ""),
    ("GET", "/product?id=ID", ""),
    ("GET", "/search?q=red", ""),
    ("POST", "/cart", CART),
    ("GET", "/report", ""),
    ("GET", "/login?user=joe", ""),
    ("GET", "/export", ""),
    ("GET", "/products?limit=10", ""),
    ("GET", "/search?q=dark", ""),
    ("GET", "/product?id=ID", ""),
    ("GET", "/search?q=old", ""),
    ("POST", "/cart", CART),
    ("GET", "/report", ""),
];
const CART: &str = r#"[{"id":3,"n":2},{"id":44,"n":1}]"#;
/// Products that are asked for: the cache of the shop fills with them.
const IDS: usize = 100;
/// What users send after readiness.
const USERS: usize = 200;
/// As in the configurations below.
const FALL: f64 = 0.1;

struct Bench {
    boathook: PathBuf,
    folder: tempfile::TempDir,
    rounds: usize,
    long: usize,
}

fn main() {
    let number = |name: &str, default: usize| env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let bench = Bench {
        boathook: PathBuf::from(env::var_os("BOATHOOK_DIST").unwrap_or_else(|| env!("CARGO_BIN_EXE_boathook").into())),
        folder: tempfile::tempdir().expect("a temporary folder"),
        rounds: number("BENCH_WARM_UP_ROUNDS", 10),
        long: number("BENCH_WARM_UP_LONG", 9000),
    };
    let parts = env::var("BENCH_WARM_UP").unwrap_or_else(|_| "effect,plateau,speed,hostile".into());
    for part in parts.split(',') {
        match part {
            "effect" => bench.effect(),
            "plateau" => bench.plateau(),
            "speed" => bench.speed(),
            "hostile" => bench.hostile(),
            other => panic!("BENCH_WARM_UP: `{other}` is no part of this benchmark"),
        }
    }
}

impl Bench {
    fn place(&self) -> &Path {
        self.folder.path()
    }

    /// A configuration of this post-start. `listen` on loopback, where anybody may trigger.
    fn config(&self, listen: u16, steps: &str) -> PathBuf {
        let path = self.place().join(format!("{listen}.toml"));
        let text = format!("[server]\nlisten = \"127.0.0.1:{listen}\"\n\n[post-start]\ndeadline = \"5m\"\n\n{steps}");
        fs::write(&path, text).expect("written");
        path
    }

    fn boathook(&self, socket: u16) -> Command {
        let mut command = Command::new(&self.boathook);
        command.env("BOATHOOK_SOCKET", format!("bench-warm-up-{socket}"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    fn effect(&self) {
        println!("effect: p99 of the first {USERS} requests of users, and seconds from start to ready");
        let shop = Shop::compile(self.place());
        // Cold and warm.
        let mut all: [Vec<(f64, f64, f64)>; 2] = Default::default();
        for round in 0..self.rounds {
            for is_warm in if round % 2 == 0 { [false, true] } else { [true, false] } {
                let (port, listen) = (free_port(), free_port());
                let mut steps = format!(
                    "[[post-start.step]]\ntimeout = \"60s\"\n\
                     wait = {{ http = \"http://127.0.0.1:{port}/report\", interval = \"20ms\" }}\n"
                );
                if is_warm {
                    steps.push_str(&warm_up_step(port, 2, "plateau = \"10%\""));
                }
                let config = self.config(listen, &steps);
                let begun = Instant::now();
                let mut command = self.boathook(listen);
                command.arg("run").arg("--config").arg(config).arg("--").args(shop.command(port)).stderr(Stdio::null());
                let _agent = Ended(command.spawn().expect("it starts"));
                wait_until_ready(listen);
                let ready = begun.elapsed().as_secs_f64();
                let took = use_shop(port, round);
                let at = |part: usize| f64::from(took[took.len() * part / 100]) / 1000.0;
                all[usize::from(is_warm)].push((at(99), at(50), ready));
            }
        }
        let column = |of: &[(f64, f64, f64)], which: fn(&(f64, f64, f64)) -> f64| {
            median(&of.iter().map(which).collect::<Vec<_>>())
        };
        for (name, of) in ["without warm-up", "with warm-up"].iter().zip(&all) {
            println!(
                "  {name:<16} p99 {:8.1} ms, p50 {:6.2} ms, ready after {:5.2} s (medians of {} rounds)",
                column(of, |one| one.0),
                column(of, |one| one.1),
                column(of, |one| one.2),
                of.len()
            );
        }
        let ratios: Vec<f64> = all[0].iter().zip(&all[1]).map(|(cold, warm)| cold.0 / warm.0).collect();
        println!(
            "  p99 without / with: {:.1} (of medians), by round {}\n  post-start costs {:.2} s\n",
            column(&all[0], |one| one.0) / column(&all[1], |one| one.0),
            show(&ratios),
            column(&all[1], |one| one.2) - column(&all[0], |one| one.2)
        );
    }

    fn plateau(&self) {
        println!(
            "plateau: requests until it stops, against those until a run of {} is flat; bar 0.80 to 1.20",
            self.long
        );
        let shop = Shop::compile(self.place());
        let inside = |ratios: &[f64]| ratios.iter().filter(|ratio| (0.8..=1.2).contains(*ratio)).count();
        for concurrency in [1, 2] {
            let (mut by_clock, mut by_work) = (Vec::new(), Vec::new());
            let (mut stops, mut flats) = (Vec::new(), Vec::new());
            for round in 1..=self.rounds {
                let port = free_port();
                let _server = shop.start(port);
                let begun = Instant::now();
                let reason = self.started(&warm_up_step(port, concurrency, "plateau = \"10%\""));
                let seconds = begun.elapsed().as_secs_f64();
                let stop = trace(port).len();
                // Twice as many as it took, if that is longer: the end has to be beyond what it stopped at.
                let more = self.long.max(stop * 2).saturating_sub(stop).max(1);
                self.started(&warm_up_step(port, concurrency, &format!("successes = {more}")));
                let whole = trace(port);
                let window = 100_usize.next_multiple_of(LIST.len());
                let column = |which: fn(&(u32, u32)) -> u32| whole.iter().map(which).collect::<Vec<u32>>();
                let clock = flat(&column(|took| took.0), window, FALL).max(window);
                let work = flat(&column(|took| took.1), window, FALL).max(window);
                by_clock.push(stop as f64 / clock as f64);
                by_work.push(stop as f64 / work as f64);
                stops.push(stop as f64);
                flats.push(clock as f64);
                println!(
                    "  JVM, concurrency {concurrency}, {round:>2}: stops after {stop:>5} ({seconds:4.1} s), flat after \
                     {clock:>5} by the clock ({:4.2}), {work:>5} by the processor's time ({:4.2})   {reason}",
                    by_clock[round - 1],
                    by_work[round - 1]
                );
            }
            println!(
                "  JVM, concurrency {concurrency}: median ratio {:.2} by the clock ({} of {} within), {:.2} by the \
                 processor's time ({} within); median stop / median flat {:.2}",
                median(&by_clock),
                inside(&by_clock),
                by_clock.len(),
                median(&by_work),
                inside(&by_work),
                median(&stops) / median(&flats)
            );
        }
        let port = free_port();
        let _nginx = start_nginx(self.place(), port);
        // Five windows of a hundred: what a plateau takes at least, see `src/warm/proof/plateau.rs`.
        let least = 500.0;
        let mut ratios = Vec::new();
        for _ in 0..self.rounds {
            let steps = format!(
                "[[post-start.step]]\n[post-start.step.warm-up]\nrequests = [\"GET http://127.0.0.1:{port}/\"]\n\
                 concurrency = 2\nplateau = \"10%\"\n"
            );
            ratios.push(number_after(&self.started(&steps), "warm after ") / least);
        }
        println!(
            "  nginx: requests / the fewest of {least}: {}, {} of {} within\n",
            show(&ratios),
            inside(&ratios),
            ratios.len()
        );
    }

    /// Runs a post-start of these steps without an agent, to its end; what was logged of the last step.
    fn started(&self, steps: &str) -> String {
        let listen = free_port();
        let config = self.config(listen, steps);
        let output = self.boathook(listen).arg("--config").arg(config).arg("started").output().expect("it starts");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{steps}\n{}: {text}", output.status);
        let line = text.lines().rev().find(|line| line.contains("warm after")).unwrap_or_default();
        line.find("warm after").map_or(text.clone(), |at| line[at..].trim_end_matches('"').to_owned())
    }

    fn speed(&self) {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        println!("speed: requests per second on core 0, nginx on core {}", cores - 1);
        let port = free_port();
        let nginx = start_nginx(self.place(), port);
        pin(nginx.0.id(), cores - 1);
        for concurrency in [4, 32, 256] {
            let mut rates: [Vec<f64>; 2] = Default::default();
            for round in 0..self.rounds {
                for which in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
                    let rate = if which == 0 { self.rate(port, concurrency) } else { wrk(port, concurrency) };
                    rates[which].push(rate);
                }
            }
            let (ours, theirs) = (median(&rates[0]), median(&rates[1]));
            println!(
                "  concurrency {concurrency:>3}: boathook {ours:>7.0}, wrk {theirs:>7.0}, ratio {:.2} (bar 0.5)",
                ours / theirs
            );
        }
        let most = self.memory(port);
        println!("  VmHWM at concurrency 256: {most} kB (bar 16384)\n");
    }

    /// A run of about two seconds, all of the process's life.
    fn rate(&self, port: u16, concurrency: usize) -> f64 {
        const SECONDS: &str = "2s";
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]).arg(&self.boathook).env("BOATHOOK_SOCKET", "bench-warm-up-speed");
        command.args(["step", "warm-up", "--concurrency", &concurrency.to_string(), "--successes", "1"]);
        command.args(["--min-time", SECONDS, "--timeout", "30s", &format!("GET http://127.0.0.1:{port}/")]);
        let begun = Instant::now();
        let output = command.stdin(Stdio::null()).output().expect("taskset starts");
        let took = begun.elapsed().as_secs_f64();
        let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}: {text}", output.status);
        number_after(&text, "warm after ") / took
    }

    /// The most memory of a run of two seconds.
    fn memory(&self, port: u16) -> u64 {
        let mut command = self.boathook(port);
        command.args(["step", "warm-up", "--concurrency", "256", "--successes", "1", "--min-time", "2s"]);
        command.args(["--timeout", "30s", &format!("GET http://127.0.0.1:{port}/")]).stderr(Stdio::null());
        let mut child = command.spawn().expect("it starts");
        let mut most = 0;
        while child.try_wait().expect("it is ours").is_none() {
            let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
            most = most.max(line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0));
            thread::sleep(Duration::from_millis(10));
        }
        most
    }

    fn hostile(&self) {
        println!("hostile: when a step with a limit of 2 s ends, in all of the process's life; bar 100 ms late");
        for bad in [Bad::Fails, Bad::Hangs, Bad::Resets, Bad::Endless] {
            for limit in ["--timeout", "--max-time"] {
                let mut late = Vec::new();
                let mut reason = String::new();
                for _ in 0..self.rounds.div_ceil(3) {
                    let server = BadServer::start(bad);
                    let mut command = self.boathook(server.port);
                    command.args(["step", "warm-up", limit, "2s"]);
                    if limit == "--max-time" {
                        command.args(["--timeout", "60s"]);
                    }
                    command.arg(format!("GET http://127.0.0.1:{}/", server.port));
                    let begun = Instant::now();
                    let output = command.output().expect("it starts");
                    late.push((begun.elapsed().as_secs_f64() - 2.0) * 1000.0);
                    assert!(!output.status.success(), "{bad:?}: it was called warm");
                    let text = String::from_utf8_lossy(&output.stderr).into_owned();
                    reason = text.lines().rev().find(|line| line.contains("not warm")).unwrap_or(&text).into();
                }
                let worst = late.iter().copied().fold(f64::MIN, f64::max);
                println!("  {bad:?} ({limit}): {worst:+.0} ms at worst of {}\n      {reason}", late.len());
            }
        }
    }
}

/// A step that warms the shop up, with the list as it is.
fn warm_up_step(port: u16, concurrency: usize, proof: &str) -> String {
    let mut text = format!(
        "\n[[post-start.step]]\n[post-start.step.warm-up]\nconcurrency = {concurrency}\n{proof}\nrequests = [\n"
    );
    for (method, path, body) in LIST {
        let path = path.replace("ID", &format!("{{{{random:0-{}}}}}", IDS - 1));
        let _ = writeln!(text, "  {{ method = \"{method}\", url = \"http://127.0.0.1:{port}{path}\"{} }},", {
            if body.is_empty() { String::new() } else { format!(", body = '{body}'") }
        });
    }
    text + "]\n"
}

fn wait_until_ready(listen: u16) {
    wait_for(listen);
    for _ in 0..30_000 {
        if Client::connect(listen)
            .and_then(|mut client| client.ask("GET", "/ready", ""))
            .is_ok_and(|(status, ..)| status == 200)
        {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("not ready in 150 s");
}

/// Two users, each on a connection of its own, share the requests; how long they took in microseconds, in order of size.
fn use_shop(port: u16, round: usize) -> Vec<u32> {
    let next = AtomicUsize::new(0);
    let user = || {
        let mut client = Client::connect(port).expect("the shop listens");
        let mut took = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= USERS {
                return took;
            }
            let (method, path, body) = LIST[number % LIST.len()];
            let path = path.replace("ID", &((number * 37 + round * 11) % IDS).to_string());
            let (status, _, time) = client.ask(method, &path, body).expect("it answers");
            assert_eq!(status, 200, "{method} {path}");
            took.push(u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
        }
    };
    let mut took: Vec<u32> = thread::scope(|scope| {
        let users = [scope.spawn(user), scope.spawn(user)];
        users.into_iter().flat_map(|user| user.join().expect("no panic")).collect()
    });
    took.sort_unstable();
    took
}

/// What the shop recorded of each request: by the clock, and of the processor, in microseconds.
fn trace(port: u16) -> Vec<(u32, u32)> {
    let mut client = Client::connect(port).expect("the shop listens");
    let (status, body, _) = client.ask("GET", "/trace", "").expect("it answers");
    assert_eq!(status, 200);
    let text = String::from_utf8(body).expect("it is text");
    let number = |text: &str| text.parse().expect("a number");
    text.lines()
        .map(|line| line.split_once(' ').map(|(clock, work)| (number(clock), number(work))).expect("two"))
        .collect()
}

/// The number after these words.
fn number_after(text: &str, words: &str) -> f64 {
    let rest = text.rfind(words).map_or("", |at| &text[at + words.len()..]);
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().unwrap_or_else(|_| panic!("no number after `{words}`: {text}"))
}

fn pin(pid: u32, core: usize) {
    // The worker is nginx's child.
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    for pid in children.split_whitespace().map(str::to_owned).chain([pid.to_string()]) {
        let status = Command::new("taskset").args(["-pc", &core.to_string(), &pid]).stdout(Stdio::null()).status();
        assert!(status.is_ok_and(|status| status.success()), "taskset (Debian: util-linux)");
    }
}

fn wrk(port: u16, concurrency: usize) -> f64 {
    let mut command = Command::new("taskset");
    command.args(["-c", "0", "wrk", "-t1", "-d2s", &format!("-c{concurrency}"), &format!("http://127.0.0.1:{port}/")]);
    let output = command.output().expect("taskset starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
    line.and_then(|line| line.trim().parse().ok()).unwrap_or_else(|| panic!("wrk said {text}"))
}

fn show(ratios: &[f64]) -> String {
    let mut ratios = ratios.to_vec();
    ratios.sort_by(f64::total_cmp);
    ratios.iter().map(|ratio| format!("{ratio:.2}")).collect::<Vec<_>>().join(" ")
}
