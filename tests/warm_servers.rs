//! Warm-up of real servers, seen from their own side: a JVM, Node, PHP-FPM behind nginx, nginx with HTTP/2, gRPC, and
//! an application behind a PostgreSQL and a Redis that come up late. Each notes the requests it answered; when the pod
//! says that it is ready and a user asks, what was to be proved is in the ledger already. The configurations of the
//! examples are run as they are.

mod server_support;
mod shop_support;
mod support;

use std::{fs, path::Path};

use server_support::{Postgres, free_port, is_root, needs, python_with_grpc};
use shop_support::{Ledger, Server, ask, ask_with, example, run, source, spawn, wait_ready, wait_ready_and_ask};
use support::{Agent, Place, until};

/// The reason of a step that has ended, as the log has it.
#[track_caller]
fn reason(agent: &Agent, step: &str, outcome: &str) -> String {
    let log = agent.log();
    let mark = format!("step=\"{step}\" outcome=\"{outcome}\"");
    let line = log.lines().find(|line| line.contains(&mark)).unwrap_or_else(|| panic!("no {mark} in {log}"));
    let (_, reason) = line.split_once(" reason=\"").unwrap_or_else(|| panic!("no reason in {line}"));
    reason.trim_end_matches('"').to_owned()
}

/// A message with `N` for each number and `T` for each time, which are another in every run.
fn shape(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_digit() || c == '.';
    let mut shape = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, from) = rest.split_at(at);
        let (_, after) = from.split_at(from.find(|c| !is_part(c)).unwrap_or(from.len()));
        let unit = ["ms", "s", "m"].into_iter().find(|unit| {
            after.strip_prefix(unit).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_lowercase()))
        });
        shape.push_str(before);
        shape.push_str(if unit.is_some() { "T" } else { "N" });
        rest = after.strip_prefix(unit.unwrap_or_default()).unwrap_or(after);
    }
    shape + rest
}

/// Stops it as the platform does; the exit code.
fn stop(mut agent: Agent) -> (Place, i32) {
    agent.signal(libc::SIGTERM);
    let code = agent.end();
    assert!(agent.log().contains("hook=\"pre-stop\""), "{}", agent.log());
    (agent.into_place(), code)
}

// ---- a JVM ----

/// The processor time that the first forty users' product pages took, in microseconds: the middle one. It does not
/// depend on how busy this machine is.
fn users_cost(ledger: &Ledger) -> u64 {
    let pages = ledger.entries().iter().filter(|entry| !entry.is_warm && entry.path.starts_with("/products"));
    let mut costs: Vec<u64> = pages.map(|entry| entry.rest.parse().expect("microseconds")).collect();
    assert_eq!(costs.len(), 40);
    costs.sort_unstable();
    costs[20]
}

#[test]
fn a_jvm_has_compiled_its_hot_code_before_users_come() {
    let (Some(javac), Some(java)) = (needs("javac"), needs("java")) else { return };
    let life = |change: &dyn Fn(String) -> String| {
        let port = free_port();
        let place = example("warm-jvm", port, change);
        run(&place, &[&javac, "-d", "@/classes", &source("Shop.java").display().to_string()]);
        // Without it each answer waits 40 ms for the acknowledgement of its head, warm or not.
        let nodelay = "-Dsun.net.httpserver.nodelay=true";
        let mut agent = place.run(&[&java, nodelay, "-cp", "@/classes", "Shop", &port.to_string(), "@/ledger"]);
        let first = wait_ready_and_ask(&mut agent, port, "/products?page=1");
        for page in 2..=40 {
            assert_eq!(ask(port, &format!("/products?page={page}")), Some(200));
        }
        let all = Ledger::of(&agent.place);
        let log = agent.log();
        // Java's own exit code after TERM.
        assert_eq!(stop(agent).1, 143);
        (first.warm_before_users(200), all, log)
    };
    let (before, warm, log) = life(&|text| text);
    assert!(before >= 2000, "only {before} requests were answered before it was ready: {log}");
    assert!(log.contains("step=\"warm\" outcome=\"succeeded\"") && log.contains("no longer falling"), "{log}");
    for (path, share) in [("/products", 6), ("/search", 3), ("/price", 1)] {
        let count = warm.count(|entry| entry.is_warm && entry.path.starts_with(path));
        assert!(count.abs_diff(before * share / 10) < 20, "{path}: {count} of {before}");
    }
    // The control: the same without a warm-up is ready at once, and its users wait for the interpreter.
    let (before, cold, log) = life(&|text| {
        let (begin, rest) = text.split_once("# A method is compiled").expect("the warm-up");
        let (_, end) = rest.split_once("[[pre-stop.step]]").expect("what follows it");
        format!("{begin}[[pre-stop.step]]{end}")
    });
    assert_eq!(before, 0, "{log}");
    let (warm, cold) = (users_cost(&warm), users_cost(&cold));
    eprintln!("a product page costs {warm} µs of processor time, {cold} µs cold");
    assert!(warm * 2 < cold, "{warm} µs warm, {cold} µs cold");
}

// ---- Node ----

fn node(place: Place, port: u16) -> Agent {
    let place = place.env("PORT", &port.to_string()).env("LEDGER", "@/ledger");
    place.run(&["node", &source("shop.js").display().to_string()])
}

#[test]
fn node_is_warmed_with_what_users_asked_for_in_its_last_life() {
    if needs("node").is_none() {
        return;
    }
    let port = free_port();
    let place = example("warm-node", port, |text| text).env("ACCESS_LOG", "@/state/access.log");
    let mut agent = node(place, port);
    let ledger = wait_ready_and_ask(&mut agent, port, "/items/7");
    let before = ledger.warm_before_users(200);
    assert!(before >= 500, "{before}: {}", agent.log());
    // By weight, and with placeholders that the application took.
    for (path, share) in [("/", 5), ("/items/", 3), ("/report?", 1), ("/render", 1)] {
        let is_it = |entry: &shop_support::Entry| {
            entry.is_warm && entry.path.starts_with(path) && (path != "/" || entry.path == "/")
        };
        let count = ledger.count(is_it);
        assert!(count.abs_diff(before * share / 10) <= 10, "{path}: {count} of {before}");
    }
    let mut items: Vec<&str> =
        ledger.entries().iter().map(|entry| entry.path.as_str()).filter(|path| path.starts_with("/items/")).collect();
    items.sort_unstable();
    items.dedup();
    assert!(items.len() >= 50, "{items:?}");
    assert!(agent.log().contains("step=\"requests of the last life\" outcome=\"skipped\""), "{}", agent.log());
    // What users do: pages that are there, one that is not, and a request that changes something.
    for item in 1..=20 {
        assert_eq!(ask(port, &format!("/items/{item}?from=mail")), Some(200));
    }
    assert_eq!(ask(port, "/items/9999"), Some(404));
    let uuid = "{\"id\": \"00000000-0000-4000-8000-000000000000\"}";
    assert_eq!(ask_with(port, "POST", "/render", uuid), Some(200));
    let (place, code) = stop(agent);
    assert_eq!(code, 143);
    assert_eq!(place.read("state/access.log").lines().count(), 23, "of users alone: {place:?}", place = place.folder());

    fs::remove_file(place.path("ledger")).expect("another life");
    let mut agent = node(place, port);
    let ledger = wait_ready_and_ask(&mut agent, port, "/");
    let again = ledger.count(|entry| entry.is_warm && entry.path.contains("?from=mail"));
    let renders = ledger.count(|entry| entry.is_warm && entry.path == "/render");
    let typed = ledger.count(|entry| entry.is_warm && entry.path == "/render") * 10;
    let before = ledger.warm_before_users(200);
    assert!(before >= typed.saturating_sub(20) + 1000, "{before} with {typed} typed ones: {}", agent.log());
    assert!(again >= 900, "{again}: {}", agent.log());
    // Not sent again: what changes something, and what was not there. The typed requests have one render in ten.
    assert!(renders.abs_diff((before - 1000) / 10) <= 15, "{renders} of {before}");
    assert_eq!(ledger.count(|entry| entry.is_warm && entry.path == "/items/9999"), 0);
    reason(&agent, "requests of the last life", "succeeded");
}

const NODE: &str = "[post-start]\ngate = \"readiness\"\n\
    [[post-start.step]]\nwait = { http = \"http://127.0.0.1:@PORT@/healthz\" }\n\
    [[post-start.step]]\nname = \"warm\"\ntimeout = \"@TIMEOUT@\"\non-failure = \"@ON-FAILURE@\"\n\
    [post-start.step.warm-up]\nbase = \"http://127.0.0.1:@PORT@\"\nrequests = @REQUESTS@\nsuccesses = 60\nrate = 200\n";

fn node_config(port: u16, requests: &str, on_failure: &str, timeout: &str) -> String {
    [
        ("@PORT@", port.to_string().as_str()),
        ("@REQUESTS@", requests),
        ("@ON-FAILURE@", on_failure),
        ("@TIMEOUT@", timeout),
    ]
    .into_iter()
    .fold(NODE.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[test]
fn answers_that_are_failures_prove_nothing() {
    if needs("node").is_none() {
        return;
    }
    let port = free_port();
    let place =
        Place::with(&node_config(port, "[\"/\", \"/items/{{random:1-9}}\"]", "abort", "30s")).env("COLD", "150");
    let mut agent = node(place, port);
    let ledger = wait_ready_and_ask(&mut agent, port, "/");
    // A tool that counts a 503 would have been done in the middle of them.
    assert_eq!(ledger.warm(503), 150);
    let before = ledger.warm_before_users(200);
    assert!(before >= 60, "{before}: {}", agent.log());
    // And it does not go on when it is proved.
    assert!(before < 80, "{before}: {}", agent.log());
}

#[test]
fn what_never_works_is_named_and_on_failure_decides() {
    if needs("node").is_none() {
        return;
    }
    for on_failure in ["abort", "continue"] {
        let port = free_port();
        let config =
            node_config(port, "[\"/\", \"/missing\", { url = \"/items/1\", expect = [201] }]", on_failure, "2s");
        let mut agent = node(Place::with(&config), port);
        if on_failure == "continue" {
            wait_ready(&mut agent);
        } else {
            agent.wait_log("hook=\"post-start\" outcome=\"failed\"");
            assert_eq!(agent.get("/ready").status, 503);
            assert_eq!(agent.get("/live").status, 200);
        }
        let ledger = Ledger::of(&agent.place);
        assert!(ledger.warm(404) >= 60 && ledger.warm(200) >= 120, "{}", agent.log());
        let said = reason(&agent, "warm", "timed-out");
        let (first, rest) = said.split_once("; ").expect("two things stand against it");
        let never = "GET /missing → N (N times), GET /items/N → N, not N (N times)";
        assert_eq!(shape(first), format!("not warm after T: N of N requests never answered as expected: {never}"));
        assert!(
            first.contains(" 2 of 3 ") && first.contains("/missing → 404 (") && first.contains(" → 200, not 201 (")
        );
        assert!(shape(rest).starts_with("N of the last N requests failed, most often: GET /"), "{rest}");
        // The page about warm-up shows one like it.
        let page = include_str!("../docs/src/steps/warm-up.md");
        assert!(shape(page).contains(&shape(first)), "{said}");
    }
}

// ---- PHP-FPM behind nginx ----

/// Lines of nginx's configuration that all tests need; `@/` is the folder.
fn nginx_config(place: &Place, http: &str) -> String {
    // Workers have to reach a folder that is root's.
    let user = if is_root() { "user root;" } else { "" };
    place.expand(&format!(
        "{user} daemon off; worker_processes 1; pid @/nginx.pid; error_log @/error.log;\n\
        events {{ worker_connections 512; }}\n\
        http {{ client_body_temp_path @/body; proxy_temp_path @/proxy; fastcgi_temp_path @/fastcgi;\n\
        uwsgi_temp_path @/uwsgi; scgi_temp_path @/scgi;\n{http} }}\n"
    ))
}

#[test]
fn every_worker_of_a_php_pool_has_answered_before_users_come() {
    let (Some(nginx), Some(fpm)) = (needs("nginx"), needs("php-fpm*")) else { return };
    let (port, pool) = (free_port(), free_port());
    let place = Place::with(&format!(
        "[post-start]\ngate = \"readiness\"\n[[post-start.step]]\nname = \"warm\"\ntimeout = \"40s\"\n\
        [post-start.step.warm-up]\nrequests = [\"http://127.0.0.1:{port}/page.php?id={{{{random:1-9}}}}\"]\n\
        concurrency = 4\nsuccesses = 200\n"
    ));
    fs::copy(source("page.php"), place.path("page.php")).expect("copied");
    let config = nginx_config(
        &place,
        &format!(
            "access_log off; server {{ listen 127.0.0.1:{port}; location / {{ fastcgi_pass 127.0.0.1:{pool};\n\
            fastcgi_param SCRIPT_FILENAME @/$fastcgi_script_name; fastcgi_param REQUEST_METHOD $request_method;\n\
            fastcgi_param REQUEST_URI $request_uri; fastcgi_param LEDGER @/ledger; }} }}"
        ),
    );
    place.write("nginx.conf", &config);
    let user = if is_root() { "user = root\ngroup = root\n" } else { "" };
    let fpm_config = format!(
        "[global]\ndaemonize = no\nerror_log = @/fpm.log\n\
        [www]\n{user}listen = 127.0.0.1:{pool}\npm = static\npm.max_children = 4\n"
    );
    place.write("fpm.conf", &place.expand(&fpm_config));

    let mut agent = place.run(&[&nginx, "-c", "@/nginx.conf"]);
    // nginx answers for a pool that is not there yet; that is no warm application.
    agent.wait_for("nginx", |_| (ask(port, "/page.php") == Some(502)).then_some(()));
    assert_eq!(agent.get("/ready").status, 503);
    let mut words = vec![fpm.as_str(), "--fpm-config", "@/fpm.conf"];
    if is_root() {
        words.push("--allow-to-run-as-root");
    }
    let _pool = spawn(&agent.place, &words);
    let ledger = wait_ready_and_ask(&mut agent, port, "/page.php");
    let before = ledger.warm_before_users(200);
    assert!(before >= 200, "{before}: {}", agent.log());
    let mut workers: Vec<&str> =
        ledger.entries().iter().filter(|entry| entry.is_warm).map(|entry| entry.rest.as_str()).collect();
    workers.sort_unstable();
    workers.dedup();
    assert_eq!(workers.len(), 4, "each has its own caches to fill: {workers:?}");
    let said = reason(&agent, "warm", "succeeded");
    // The answers of nginx alone are the failed ones.
    assert_eq!(shape(&said), "warm after N requests (N failed) in T: pN T, pN T");
}

// ---- nginx with HTTP/2 ----

/// A ledger that nginx writes by itself. It does so after the answer, so a user's request behind it tells that all are
/// there: one worker does one thing after the other.
const NGINX_LEDGER: &str = "map $http_user_agent $who { ~^boathook/ warm; default user; }\n\
    log_format ledger '$who $status $request_uri $server_protocol $scheme $connection';\naccess_log @/ledger ledger;\n";

#[test]
fn nginx_is_warmed_over_http_2_with_and_without_tls() {
    let (Some(nginx), Some(openssl)) = (needs("nginx"), needs("openssl")) else { return };
    let (port, plain, secure) = (free_port(), free_port(), free_port());
    let place = Place::with(&format!(
        "[post-start]\ngate = \"readiness\"\n\
        [[post-start.step]]\nwait = {{ tcp = \"127.0.0.1:{port}\" }}\n\
        [[post-start.step]]\nname = \"h2c\"\n\
        [post-start.step.warm-up]\nrequests = [\"http://127.0.0.1:{plain}/plain\"]\n\
        http-version = \"2\"\nconcurrency = 8\nsuccesses = 100\nrate = 500\n\
        [[post-start.step]]\nname = \"h2\"\n\
        [post-start.step.warm-up]\nrequests = [\"https://localhost:{secure}/secure\"]\n\
        ca-file = \"@/cert.pem\"\nhttp-version = \"2\"\nconcurrency = 8\nsuccesses = 100\nrate = 500\n"
    ));
    let request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"];
    // A server's certificate that is its own authority, and says that it is none for others.
    let names = ["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"];
    let files = ["-keyout", "@/key.pem", "-out", "@/cert.pem"];
    run(&place, &[&[openssl.as_str()][..], &request, &names, &files].concat());
    let config = format!(
        "{NGINX_LEDGER}server {{ listen 127.0.0.1:{port}; return 200 ok; }}\n\
        server {{ listen 127.0.0.1:{plain} http2; return 200 ok; }}\n\
        server {{ listen 127.0.0.1:{secure} ssl http2; ssl_certificate @/cert.pem;\n\
        ssl_certificate_key @/key.pem; return 200 ok; }}\n"
    );
    place.write("nginx.conf", &nginx_config(&place, &config));
    let mut agent = place.run(&[&nginx, "-c", "@/nginx.conf"]);
    let ledger = wait_ready_and_ask(&mut agent, port, "/");
    assert!(ledger.warm_before_users(200) >= 200, "{}", agent.log());
    for (path, scheme) in [("/plain", "http"), ("/secure", "https")] {
        let sent: Vec<_> = ledger.entries().iter().filter(|entry| entry.path == path).collect();
        assert!(sent.len() >= 100, "{path}: {}", sent.len());
        let wrong = sent.iter().find(|entry| !entry.rest.starts_with(&format!("HTTP/2.0 {scheme} ")));
        assert!(wrong.is_none(), "{wrong:?}");
    }
}

/// The control: a server that speaks HTTP/1.1 alone is not taken for one with HTTP/2.
#[test]
fn http_2_to_a_server_without_it_is_never_warm() {
    let Some(nginx) = needs("nginx") else { return };
    let port = free_port();
    let place = Place::with(&format!(
        "[post-start]\ngate = \"readiness\"\n[[post-start.step]]\nwait = {{ tcp = \"127.0.0.1:{port}\" }}\n\
        [[post-start.step]]\nname = \"h2c\"\ntimeout = \"2s\"\n\
        [post-start.step.warm-up]\nrequests = [\"http://127.0.0.1:{port}/\"]\n\
        http-version = \"2\"\nsuccesses = 1\n"
    ));
    let config = format!("{NGINX_LEDGER}server {{ listen 127.0.0.1:{port}; return 200 ok; }}");
    place.write("nginx.conf", &nginx_config(&place, &config));
    let mut agent = place.run(&[&nginx, "-c", "@/nginx.conf"]);
    agent.wait_log("hook=\"post-start\" outcome=\"failed\"");
    assert_eq!(agent.get("/ready").status, 503);
    let said = reason(&agent, "h2c", "timed-out");
    let wanted = "not warm after T: no answer at all: the answer is not HTTP/N: FRAME_SIZE_ERROR (N times)";
    assert_eq!(shape(&said), wanted);
}

// ---- gRPC ----

#[test]
fn a_grpc_server_is_waited_for_and_warmed_with_calls() {
    let Some((python, packages)) = python_with_grpc() else { return };
    let port = free_port();
    let place = Place::with(&format!(
        "[post-start]\ngate = \"readiness\"\n\
        [[post-start.step]]\nname = \"serving\"\ntimeout = \"40s\"\n\
        wait = {{ grpc = \"127.0.0.1:{port}\", service = \"shop.Catalog\" }}\n\
        [[post-start.step]]\nname = \"warm\"\ntimeout = \"40s\"\n\
        [post-start.step.warm-up]\n\
        requests = [{{ grpc = \"http://127.0.0.1:{port}/shop.Catalog/List\", message = \"CgVzaG9lcw==\" }}]\n\
        concurrency = 4\nsuccesses = 100\nrate = 400\n"
    ));
    let place = place.env("PYTHONPATH", &packages.display().to_string()).env("COLD", "50");
    let server = source("catalog.py").display().to_string();
    let mut agent = place.run(&[&python, &server, &port.to_string(), "@/ledger", "@/serving"]);
    // It listens, answers, and says that it does not serve: nothing is sent to it.
    agent.wait_for("a port", |_| std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    for _ in 0..20 {
        assert_eq!(agent.get("/ready").status, 503);
        assert!(!agent.place.exists("ledger"), "{}", agent.log());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    agent.place.write("serving", "");
    wait_ready(&mut agent);
    let ledger = Ledger::of(&agent.place);
    assert!(ledger.warm(0) >= 100, "{}: {}", ledger.warm(0), agent.log());
    // A call that fails in gRPC is a 200 in HTTP, and still a failure.
    assert_eq!(ledger.warm(14), 50);
    assert!(ledger.warm(0) < 130, "{}: {}", ledger.warm(0), agent.log());
    // The message as the protocol's own library understands it: field 1, "shoes".
    assert_eq!(ledger.count(|entry| entry.rest != "0a0573686f6573"), 0);
    let said = reason(&agent, "warm", "succeeded");
    assert!(said.contains("(50 failed)"), "{said}");
}

// ---- a database and a cache behind an application: a whole life ----

/// A PostgreSQL that listens and takes no session until it is promoted: what a real one is while it starts or recovers,
/// for as long as a test needs.
struct Database {
    server: Postgres,
    port: u16,
}

impl Database {
    fn find() -> Option<Self> {
        Some(Self { server: Postgres::find()?, port: free_port() })
    }

    fn run(&self, place: &Place, words: &[&str]) -> String {
        let as_user = self.server.as_user();
        let words: Vec<&str> = as_user.iter().map(String::as_str).chain(words.iter().copied()).collect();
        run(place, &words)
    }

    fn make(&self, place: &Place) {
        self.server.make_folders(place.folder());
        let initdb = [&self.server.initdb, "-D", "@/data", "-A", "trust", "-U", "postgres", "--no-sync"];
        self.run(place, &initdb);
        // What the application asks for, without a server yet.
        let tables =
            "create table products as select n as id, 'product ' || n as name from generate_series(1, 1000) n;\n";
        place.write("tables.sql", tables);
        let script = format!(
            "exec {} --single -D '{}' postgres < '{}'",
            self.server.postgres,
            place.path("data").display(),
            place.path("tables.sql").display()
        );
        self.run(place, &["sh", "-c", &script]);
        self.standby(place);
    }

    fn standby(&self, place: &Place) {
        let signal = place.path("data/standby.signal").display().to_string();
        self.run(place, &["touch", &signal]);
    }

    fn start(&self, place: &Place) -> Server {
        let as_user = self.server.as_user();
        let port = self.port.to_string();
        let server = [&self.server.postgres, "-D", "@/data", "-k", "@/run", "-h", "127.0.0.1", "-p", &port];
        let settings = ["-c", "hot_standby=off", "-c", "fsync=off"];
        let words: Vec<&str> = as_user.iter().map(String::as_str).chain(server).chain(settings).collect();
        let started = spawn(place, &words);
        until("PostgreSQL's port", || std::net::TcpStream::connect(("127.0.0.1", self.port)).ok());
        started
    }

    /// What a session gets now.
    fn say(&self, place: &Place) -> String {
        let mut command = std::process::Command::new(&self.server.psql);
        let port = self.port.to_string();
        command.args([
            "-qAtX",
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-U",
            "postgres",
            "-c",
            "select count(*) from products",
        ]);
        place.dress(&mut command);
        let said = place.finish(command);
        format!("{}{}", said.stdout, said.stderr)
    }

    fn promote(&self, place: &Place) {
        let pg_ctl = Path::new(&self.server.postgres).with_file_name("pg_ctl");
        let pg_ctl = if pg_ctl.exists() { Some(pg_ctl) } else { server_support::find_program("pg_ctl") };
        let pg_ctl = pg_ctl.expect("beside postgres").display().to_string();
        self.run(place, &[&pg_ctl, "promote", "-D", "@/data"]);
    }
}

#[test]
fn an_application_starts_when_its_database_is_there_and_is_ready_when_it_is_warm() {
    if needs("node").is_none() || needs("redis-server").is_none() {
        return;
    }
    let Some(database) = Database::find() else { return };
    let (port, cache) = (free_port(), free_port());
    let place = example("warm-database", port, |text| {
        text.replace("${DATABASE_HOST:-db}:5432", &format!("127.0.0.1:{}", database.port))
            .replace("${CACHE_HOST:-cache}:6379", &format!("127.0.0.1:{cache}"))
    });
    database.make(&place);
    let place = place.env("POSTGRES_PORT", &database.port.to_string()).env("REDIS_PORT", &cache.to_string());
    let mut agent = node(place, port);
    let is_waiting = |agent: &mut Agent| {
        assert_eq!(agent.get("/ready").status, 503);
        assert_eq!(agent.get("/live").status, 200);
        assert!(!agent.log().contains("main process started"), "{}", agent.log());
    };
    is_waiting(&mut agent);
    // The cache comes first, and is not enough.
    let words = ["redis-server", "--port", &cache.to_string(), "--bind", "127.0.0.1", "--save", ""];
    let _cache = spawn(&agent.place, &words);
    agent.wait_log("step=\"cache\" outcome=\"succeeded\"");
    is_waiting(&mut agent);
    // The database's port is open now, and it takes nobody.
    let _running = database.start(&agent.place);
    let said = database.say(&agent.place);
    assert!(said.contains("not accepting connections") || said.contains("not yet accepting"), "{said}");
    for _ in 0..20 {
        is_waiting(&mut agent);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    database.promote(&agent.place);
    let ledger = wait_ready_and_ask(&mut agent, port, "/products/3");
    assert_eq!(database.say(&agent.place), "1000\n");
    let before = ledger.warm_before_users(200);
    assert!(before >= 460, "{before}: {}", agent.log());
    assert_eq!(ledger.count(|entry| entry.status != 200), 0);
    // Both sources, and what the warm-up file says of methods.
    assert!(ledger.count(|entry| entry.is_warm && entry.rest == "HEAD") >= 50, "{}", agent.log());
    assert!(ledger.count(|entry| entry.path.contains("sort=")) >= 50, "{}", agent.log());
    for step in ["pages work", "pools and caches are filled"] {
        reason(&agent, step, "succeeded");
    }
    // A user's request is seen in the ledger, whenever it comes.
    assert_eq!(ledger.count(|entry| !entry.is_warm), 1);
    assert_eq!(stop(agent).1, 143);
}

/// The control: traffic that does not ask for readiness is seen by the application before anything is proved.
#[test]
fn traffic_that_comes_too_early_is_seen() {
    if needs("node").is_none() {
        return;
    }
    let port = free_port();
    let mut agent = node(Place::with(&node_config(port, "[\"/\"]", "abort", "30s")), port);
    agent.wait_for("an answer", |_| (ask(port, "/items/1") == Some(200)).then_some(()));
    assert!(Ledger::of(&agent.place).warm_before_users(200) < 60, "{}", agent.log());
    wait_ready(&mut agent);
    assert!(Ledger::of(&agent.place).warm_before_users(200) < 60, "{}", agent.log());
}
