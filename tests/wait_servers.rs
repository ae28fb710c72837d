//! Waiting for databases by their own protocols: real ones that come up late, that are not ready yet, and that want a
//! login; and servers that are none.

mod server_support;
mod support;

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    os::unix::{fs::chown, net::UnixListener, process::CommandExt},
    path::Path,
    process::{Child, Command},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use boathook::{
    keys,
    probe::{Probe, ProbeTyped},
    problem::Scope,
    process::Processes,
    step::Progress,
};
use server_support::{free_port, not_run};
use support::{Agent, Place, until};

/// Longer than any healthy answer takes on a loaded machine.
const LIMIT: Duration = Duration::from_secs(10);
/// For servers that are known to say nothing.
const SHORT: Duration = Duration::from_millis(300);

/// Tries a probe once, as `wait` and `[readiness]` do.
fn ask_within(limit: Duration, probe: &str) -> Result<(), String> {
    let typed: ProbeTyped = keys::parse(probe).unwrap_or_else(|error| panic!("{probe}: {error}"));
    let (mut problems, mut secrets) = (Vec::new(), Vec::new());
    let probe = Probe::mean(typed, &mut Scope::of_command_line(&mut secrets, &mut problems));
    let probe = probe.unwrap_or_else(|| panic!("{problems:?}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let progress = Progress::default();
        let held = tokio::time::timeout(limit, probe.hold(&Processes::idle(), &progress)).await;
        held.unwrap_or_else(|_| Err(probe.unanswered(&progress, limit)))
    })
}

#[track_caller]
fn ask(probe: &str) -> Result<(), String> {
    ask_within(LIMIT, probe)
}

/// Until it holds.
#[track_caller]
fn until_it_holds(probe: &str) {
    until(probe, || ask(probe).ok());
}

// ---- real servers ----

fn needs(names: &[&str]) -> Option<Vec<String>> {
    names.iter().map(|name| server_support::needs(name)).collect()
}

/// A server that ends with the test.
struct Server(Child);

impl Server {
    fn start(place: &Place, log: &str, words: &[&str]) -> Server {
        let mut command = Command::new(place.expand(words[0]));
        command.args(words[1..].iter().map(|word| place.expand(word)));
        place.dress(&mut command);
        let file = fs::File::options().create(true).append(true).open(place.path(log)).expect("a log");
        let second = file.try_clone().expect("twice");
        Server(command.process_group(0).stdout(file).stderr(second).spawn().expect("it starts"))
    }

    fn end(mut self, signal: i32) {
        support::send(self.0.id().cast_signed(), signal);
        let _ = self.0.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(place: &Place, words: &[&str]) -> String {
    let mut command = Command::new(place.expand(words[0]));
    command.args(words[1..].iter().map(|word| place.expand(word)));
    place.dress(&mut command);
    let said = place.finish(command);
    assert_eq!(said.code, 0, "{words:?}: {said:?}");
    said.stdout.trim().to_owned()
}

/// A place, and a `boathook step wait` in it that was started before any server.
fn waiting(words: &[&str]) -> Agent {
    let mut agent = Place::bare().start(&[&["step", "wait", "--timeout", "60s", "--interval", "20ms"], words].concat());
    // It waits: it would have ended by now.
    thread::sleep(Duration::from_millis(100));
    assert_eq!(agent.ended(), None, "{}", agent.log());
    agent
}

/// The user that Debian's packages make; a PostgreSQL refuses to run as root.
fn user_of(name: &str) -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let line = users.lines().find(|line| line.starts_with(&format!("{name}:")))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn own(path: &Path, (user, group): (u32, u32)) {
    fs::create_dir_all(path).expect("made");
    chown(path, Some(user), Some(group)).expect("given away");
}

#[test]
fn a_postgresql_that_comes_up_late_and_one_in_recovery() {
    let Some(programs) = needs(&["initdb", "postgres", "psql"]) else { return };
    let [initdb, postgres, psql] = programs.as_slice() else { return };
    let Some(user) = user_of("postgres").filter(|_| rustix::process::geteuid().is_root()) else {
        return not_run("no user postgres, or not root");
    };
    let port = free_port();
    let mut by_tcp = waiting(&["--postgres", &format!("127.0.0.1:{port}")]);
    let mut by_socket = waiting(&["--postgres", "@/run/.s.PGSQL.5432"]);
    let place = Place::bare();
    fs::set_permissions(place.folder(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("opened");
    own(&place.path("data"), user);
    own(&place.path("run"), user);
    let (uid, gid) = (user.0.to_string(), user.1.to_string());
    let as_user = ["setpriv", "--reuid", &uid, "--regid", &gid, "--clear-groups"];
    run(&place, &[&as_user[..], &[initdb, "-D", "@/data", "-A", "trust", "-U", "postgres", "--no-sync"]].concat());
    // Who is called `scram` needs a password.
    let rules = fs::read_to_string(place.path("data/pg_hba.conf")).expect("rules");
    let strict = "local all scram scram-sha-256\nhost all scram all scram-sha-256\nhost all closed all reject\n";
    place.write("data/pg_hba.conf", &format!("{strict}{rules}"));
    let port_text = port.to_string();
    let start = |place: &Place, more: &[&str]| {
        let words = [postgres, "-D", "@/data", "-k", "@/run", "-h", "127.0.0.1", "-p", &port_text, "-c", "fsync=off"];
        Server::start(place, "log", &[&as_user[..], &words, more].concat())
    };
    let socket = place.path(&format!("run/.s.PGSQL.{port}")).display().to_string();
    let shown = format!("127.0.0.1:{port}");
    let plain = format!("postgres = \"{shown}\"");
    assert_eq!(ask(&plain), Err(format!("{shown}: connection refused")));

    // In recovery: a standby that takes nobody.
    place.write("data/standby.signal", "");
    chown(place.path("data/standby.signal"), Some(user.0), Some(user.1)).expect("given away");
    let server = start(&place, &["-c", "hot_standby=off"]);
    until("the server's answer", || ask(&plain).err().filter(|why| !why.contains("refused")));
    let starting = format!("{shown}: the database system is not accepting connections");
    // While it begins it says that it is starting up.
    until(&starting, || (ask(&plain) == Err(starting.clone())).then_some(()));
    assert_eq!(by_tcp.ended(), None, "{}", by_tcp.log());
    // The control: it accepts connections all this time.
    assert_eq!(ask(&format!("tcp = \"{shown}\"")), Ok(()));
    server.end(libc::SIGINT);
    fs::remove_file(place.path("data/standby.signal")).expect("removed");
    let server = start(&place, &[]);
    until_it_holds(&plain);
    assert_eq!(by_tcp.end(), 0, "{}", by_tcp.log());

    // Nothing of it is in the server's log, whatever it asks of whom.
    fs::write(place.path("log"), "").expect("emptied");
    let folder = place.path("run").display().to_string();
    for probe in [
        plain.clone(),
        format!("postgres = \"{socket}\""),
        format!("postgres = \"{shown}\"\nuser = \"scram\""),
        format!("postgres = \"{shown}\"\nuser = \"postgres\"\ndatabase = \"template1\""),
    ] {
        for _ in 0..5 {
            assert_eq!(ask(&probe), Ok(()), "{probe}");
        }
    }
    assert_eq!(run(&place, &[psql, "-qAth", &folder, "-p", &port_text, "-U", "postgres", "-c", "select 1"]), "1");
    assert_eq!(place.read("log"), "", "what the server has to say about it");
    // The control: users and databases that are not there, and one who may not come, are logged; and it is up all the same.
    for more in ["user = \"nobody\"", "database = \"none\"", "user = \"closed\""] {
        assert_eq!(ask(&format!("{plain}\n{more}")), Ok(()), "{more}");
    }
    assert_eq!(place.read("log").matches("FATAL").count(), 3, "{}", place.read("log"));

    // Too many clients is not the same as not up, as for pg_isready.
    server.end(libc::SIGINT);
    let server = start(&place, &["-c", "max_connections=4", "-c", "superuser_reserved_connections=1"]);
    until_it_holds(&plain);
    let held: Vec<Server> = (0..4)
        .map(|_| {
            let sql = "select pg_sleep(1000)";
            Server::start(&place, "held", &[psql, "-qAth", &folder, "-p", &port_text, "-U", "postgres", "-c", sql])
        })
        .collect();
    until("too many clients", || {
        let _ = ask(&plain);
        place.read("log").contains("too many clients").then_some(())
    });
    assert_eq!(ask(&plain), Ok(()));
    drop(held);
    server.end(libc::SIGQUIT);

    // Shutting down is.
    let server = start(&place, &[]);
    until_it_holds(&plain);
    let idle = Server::start(
        &place,
        "held",
        &[psql, "-qh", &folder, "-p", &port_text, "-U", "postgres", "-c", "select pg_sleep(1000)"],
    );
    until("a session", || {
        let sql =
            "select count(*) from pg_stat_activity where query like '%pg_sleep(1000)' and pid <> pg_backend_pid()";
        (run(&place, &[psql, "-qAth", &folder, "-p", &port_text, "-U", "postgres", "-c", sql]) == "1").then_some(())
    });
    // Smart shutdown: it waits for the session.
    support::send(server.0.id().cast_signed(), libc::SIGTERM);
    until("the shutdown", || {
        (ask(&plain) == Err(format!("{shown}: the database system is shutting down"))).then_some(())
    });
    drop(idle);
    // With all its children: the next one must not find them.
    server.end(libc::SIGQUIT);

    // The waiter by socket waits for a socket in its own place.
    assert_eq!(by_socket.ended(), None);
    let there = by_socket.place.path("run");
    fs::set_permissions(by_socket.place.folder(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("opened");
    own(&there, user);
    let there = there.display().to_string();
    let words = [postgres.as_str(), "-D", "@/data", "-k", &there, "-h", "", "-p", "5432", "-c", "fsync=off"];
    let _server = Server::start(&place, "log", &[&as_user[..], &words].concat());
    assert_eq!(by_socket.end(), 0, "{}\n{}", by_socket.log(), place.read("log"));
    assert_eq!(ask(&format!("postgres = \"{there}\"")), Ok(()), "its folder is enough");
}

#[test]
fn a_redis_that_comes_up_late_loads_and_wants_a_login() {
    let Some(programs) = needs(&["redis-server", "redis-cli"]) else { return };
    let [server, cli] = programs.as_slice() else { return };
    let port = free_port().to_string();
    let shown = format!("127.0.0.1:{port}");
    let mut by_tcp = waiting(&["--redis", &shown]);
    let place = Place::bare();
    let start = |more: &[&str]| {
        let words = [server.as_str(), "--port", &port, "--bind", "127.0.0.1", "--unixsocket", "@/redis.sock"];
        let words = [&words[..], &["--dir", "@/", "--save", "", "--enable-debug-command", "yes"], more].concat();
        Server::start(&place, "log", &words)
    };
    let redis = start(&[]);
    assert_eq!(by_tcp.end(), 0, "{}", by_tcp.log());
    let socket = place.path("redis.sock").display().to_string();
    assert_eq!(ask(&format!("redis = \"{socket}\"")), Ok(()));
    let ask_it = |words: &[&str]| run(&place, &[&[cli.as_str(), "-p", &port], words].concat());
    assert_eq!(ask_it(&["debug", "populate", "20000"]), "OK");
    assert_eq!(ask_it(&["save"]), "OK");
    redis.end(libc::SIGTERM);

    // Loading: each key takes its time.
    let mut waits = waiting(&["--redis", &shown]);
    let redis = start(&["--key-load-delay", "100", "--loading-process-events-interval-bytes", "1024"]);
    let probe = format!("redis = \"{shown}\"");
    let loading = format!("{shown}: LOADING Redis is loading the dataset in memory");
    until(&loading, || (ask(&probe) == Err(loading.clone())).then_some(()));
    assert_eq!(waits.ended(), None);
    assert_eq!(ask(&format!("tcp = \"{shown}\"")), Ok(()), "the control");
    assert_eq!(waits.end(), 0, "{}", waits.log());
    assert_eq!(ask(&probe), Ok(()));

    // A login: without one it is up; with one, that must be right.
    assert_eq!(ask_it(&["acl", "setuser", "probe", "on", ">s3cret99", "+ping"]), "OK");
    assert_eq!(ask_it(&["acl", "setuser", "mute", "on", ">s3cret99", "-@all", "+auth"]), "OK");
    assert_eq!(ask_it(&["config", "set", "requirepass", "hunter22"]), "OK");
    place.write("password", "hunter22\n");
    let wrong = format!("{shown}: WRONGPASS invalid username-password pair or user is disabled.");
    for (more, wanted) in [
        ("", Ok(())),
        ("password = \"hunter22\"", Ok(())),
        ("password-file = \"@/password\"", Ok(())),
        ("user = \"probe\"\npassword = \"s3cret99\"", Ok(())),
        ("user = \"mute\"\npassword = \"s3cret99\"", Ok(())),
        ("password = \"hunter23\"", Err(wrong.clone())),
        ("user = \"nobody\"\npassword = \"hunter22\"", Err(wrong)),
        (
            "password-file = \"@/none\"",
            Err(format!("{shown}: {}: no such file or directory", place.path("none").display())),
        ),
    ] {
        assert_eq!(ask(&place.expand(&format!("{probe}\n{more}"))), wanted, "{more}");
    }
    // The same words on the command line, and as a hook's step.
    let said = place.boathook(&["step", "wait", "--redis", &shown, "--user", "probe", "--password", "s3cret99"]);
    assert_eq!(said.code, 0, "{said:?}");
    let said = place.boathook(&["step", "wait", "--timeout", "300ms", "--redis", &shown, "--password", "hunter23"]);
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("WRONGPASS") && !said.stderr.contains("hunter23"), "{said:?}");
    redis.end(libc::SIGTERM);
}

/// An address of this machine that is not the loopback: MariaDB keeps no account of who comes from there.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: only the route is looked up (RFC 5737).
    socket.connect("198.51.100.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|address| !address.is_loopback())
}

#[test]
fn a_mariadb_that_comes_up_late_and_never_blocks_who_asks() {
    let Some(programs) = needs(&["mariadb-install-db", "mariadbd", "mariadb"]) else { return };
    let [install, server, client] = programs.as_slice() else { return };
    let port = free_port().to_string();
    let shown = format!("127.0.0.1:{port}");
    let mut by_tcp = waiting(&["--mysql", &shown]);
    let mut by_socket = waiting(&["--mysql", "@/db.sock", "--user", "root"]);
    let place = Place::bare();
    let me = if rustix::process::geteuid().is_root() { "--user=root" } else { "--user=" };
    let me: &[&str] = if me == "--user=" { &[] } else { &[me] };
    run(
        &place,
        &[&[install, "--no-defaults", "--datadir=@/data", "--auth-root-authentication-method=normal"][..], me].concat(),
    );
    let socket = by_socket.place.path("db.sock").display().to_string();
    let socket_word = format!("--socket={socket}");
    let port_word = format!("--port={port}");
    let start = |more: &[&str]| {
        let words =
            [server.as_str(), "--no-defaults", "--datadir=@/data", &socket_word, &port_word, "--bind-address=0.0.0.0"];
        Server::start(&place, "log", &[&words[..], me, &["--innodb-flush-log-at-trx-commit=0"], more].concat())
    };
    let mariadb = start(&[]);
    assert_eq!(by_tcp.end(), 0, "{}\n{}", by_tcp.log(), place.read("log"));
    assert_eq!(by_socket.end(), 0, "{}", by_socket.log());
    let sql = |text: &str| run(&place, &[client, "--no-defaults", "-NB", "-S", &socket, "-u", "root", "-e", text]);
    // Anybody may come from this host as the user without a name.
    sql("delete from mysql.global_priv where user = ''; flush privileges");
    sql("create user boathook@'%'; create user locked@'%' identified by 'x'");
    sql("install soname 'auth_ed25519'; create user modern@'%' identified via ed25519 using password('x')");
    sql("create user open@'%' identified via mysql_native_password");
    // With its own user nothing is logged and nothing is counted as broken.
    let before = place.read("log");
    for _ in 0..5 {
        assert_eq!(ask(&format!("mysql = \"{shown}\"")), Ok(()));
        assert_eq!(ask(&format!("mysql = \"{socket}\"\nuser = \"open\"")), Ok(()));
    }
    assert_eq!(place.read("log"), before);
    assert_eq!(
        sql("show global status where variable_name in ('Aborted_clients', 'Aborted_connects')"),
        "Aborted_clients\t0\nAborted_connects\t0"
    );
    // Access denied is up, by whatever method; and it is logged, which is the control for the above.
    for user in ["locked", "modern", "nobody"] {
        assert_eq!(ask(&format!("mysql = \"{shown}\"\nuser = \"{user}\"")), Ok(()), "{user}");
    }
    let after = place.read("log");
    let denied = after.get(before.len()..).unwrap_or_default().matches("Access denied").count();
    assert!(denied >= 2, "{after}");

    // Too many connections.
    sql("set global max_connections = 10");
    let held: Vec<TcpStream> = (0..12).map(|_| TcpStream::connect(&shown).expect("accepted")).collect();
    until("too many connections", || {
        (ask(&format!("mysql = \"{shown}\"")) == Err(format!("{shown}: Too many connections (error 1040)")))
            .then_some(())
    });
    drop(held);
    until_it_holds(&format!("mysql = \"{shown}\""));

    // A host is blocked after too many handshakes that were broken off: ours never are.
    let Some(address) = own_address() else { return not_run("no address but the loopback") };
    sql("set global max_connect_errors = 2");
    let shown = format!("{address}:{port}");
    let probes = [format!("mysql = \"{shown}\""), format!("mysql = \"{shown}\"\nuser = \"nobody\"")];
    for probe in probes.iter().cycle().take(12) {
        assert_eq!(ask(probe), Ok(()), "{probe}");
    }
    // The control: connections that say nothing.
    until("the block", || {
        let _ = ask(&format!("tcp = \"{shown}\""));
        let why = ask(&probes[0]).err()?;
        assert!(why.contains("is blocked because of many connection errors"), "{why}");
        assert!(why.ends_with("(error 1129)"), "{why}");
        Some(())
    });
    mariadb.end(libc::SIGTERM);
}

/// A gRPC server with the standard health service, which is asked about one service; the status that it answers.
#[cfg(feature = "http2")]
fn health_server(address: SocketAddr, status: &Arc<AtomicU8>) {
    use bytes::Bytes;
    use hyper::{HeaderMap, Response};

    let status = Arc::clone(status);
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind(address).await.expect("the port");
            while let Ok((stream, _)) = listener.accept().await {
                let status = Arc::clone(&status);
                tokio::spawn(async move {
                    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                    while let Some(Ok((mut request, mut respond))) = connection.accept().await {
                        let status = status.load(SeqCst);
                        // The connection is driven by the loop.
                        tokio::spawn(async move {
                            assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                            let mut asked = Vec::new();
                            while let Some(Ok(piece)) = request.body_mut().data().await {
                                asked.extend_from_slice(&piece);
                            }
                            let (code, message) = match &asked[..] {
                                b"\0\0\0\0\x06\x0a\x04shop" => ("0", vec![0, 0, 0, 0, 2, 8, status]),
                                _ => ("5", vec![]),
                            };
                            let mut trailers = HeaderMap::new();
                            trailers.insert("grpc-status", code.parse().expect("a value"));
                            let head = Response::builder().header("content-type", "application/grpc").body(());
                            let mut body = respond.send_response(head.expect("a head"), false).expect("open");
                            body.send_data(Bytes::from(message), false).expect("open");
                            body.send_trailers(trailers).expect("open");
                        });
                    }
                });
            }
        });
    });
}

#[test]
#[cfg(feature = "http2")]
fn a_grpc_server_that_comes_up_late() {
    let shown = format!("127.0.0.1:{}", free_port());
    let mut waits = waiting(&["--grpc", &shown, "--service", "shop"]);
    let status = Arc::new(AtomicU8::new(2));
    health_server(shown.parse().expect("an address"), &status);
    until_it_holds(&format!("tcp = \"{shown}\""));
    let shop = format!("grpc = \"{shown}\"\nservice = \"shop\"");
    assert_eq!(ask(&shop), Err(format!("http://{shown}/: NOT_SERVING")));
    assert_eq!(ask(&format!("grpc = \"{shown}\"")), Err(format!("http://{shown}/: 5 NOT_FOUND")));
    assert_eq!(waits.ended(), None, "{}", waits.log());
    status.store(1, SeqCst);
    assert_eq!(waits.end(), 0, "{}", waits.log());
    assert_eq!(ask(&format!("grpc = {{ url = \"http://{shown}\" }}\nservice = \"shop\"")), Ok(()));
    let place = Place::with(&format!("[readiness]\n{shop}\n"));
    let mut agent = place.run(&support::MAIN);
    agent.wait_for("a 200", |agent| (agent.get("/ready").status == 200).then_some(()));
}

// ---- servers that are none ----

/// What a server does with a connection.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// Says this, then nothing.
    Says(&'static [u8]),
    /// Says this, then closes.
    SaysAndCloses(&'static [u8]),
    /// Says this, then the next for ever.
    Endless(&'static [u8], &'static [u8]),
}

fn serve(folder: &Path, name: &str, manner: Manner) -> String {
    let path = folder.join(name);
    let listener = UnixListener::bind(&path).expect("a socket");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let (first, more) = match manner {
                    Manner::Says(first) | Manner::SaysAndCloses(first) => (first, None),
                    Manner::Endless(first, more) => (first, Some(more)),
                };
                let mut is_open = stream.write_all(first).is_ok();
                while let (Some(more), true) = (more, is_open) {
                    is_open = stream.write_all(&more.repeat(1024)).is_ok();
                }
                if matches!(manner, Manner::SaysAndCloses(_)) {
                    // What was asked is read, so that nothing is reset.
                    let _ = stream.shutdown(std::net::Shutdown::Write);
                }
                let _ = stream.read_to_end(&mut Vec::new());
            });
        }
    });
    path.display().to_string()
}

#[test]
fn servers_that_are_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut number, mut tried) = (0, Vec::new());
    let long = "x".repeat(120);
    for (kinds, manner, wanted) in [
        ("postgres mysql redis unix", Manner::Says(b""), "connected, no answer yet within 300ms".to_owned()),
        ("postgres mysql redis unix", Manner::SaysAndCloses(b""), "it closed the connection".into()),
        (
            "postgres mysql redis",
            Manner::Says(b"SSH-2.0-OpenSSH_9.2\r\n"),
            "it does not answer as KIND does: SSH-2.0-OpenSSH_9.2".into(),
        ),
        (
            "postgres mysql redis",
            Manner::SaysAndCloses(b"HTTP/1.1 400 Bad\r\n\r\n"),
            "it does not answer as KIND does: HTTP/1.1 400 Bad".into(),
        ),
        ("postgres mysql redis", Manner::Endless(b"", b"x"), format!("it does not answer as KIND does: {long}…")),
        ("unix", Manner::Endless(b"", b"x"), format!("it sent 65536 bytes that are no answer: {long}…")),
        ("unix", Manner::Says(b"500 go away\r\n"), "not what is expected: 500 go away within 300ms".into()),
        (
            "unix",
            Manner::SaysAndCloses(b"500 go\x07 away\xff\r\n"),
            "it closed the connection after: 500 go away\u{fffd}".into(),
        ),
        (
            "redis",
            Manner::Endless(b"+", b"x"),
            format!("it sent 65536 bytes that are no answer: +{}…", "x".repeat(119)),
        ),
        ("redis", Manner::SaysAndCloses(b"+PO"), "it closed the connection after: +PO".into()),
        (
            "redis",
            Manner::Says(b"-MASTERDOWN Link with MASTER is down\r\n"),
            "MASTERDOWN Link with MASTER is down".into(),
        ),
        ("mysql", Manner::Says(b"\x05\0\0\0\x09abcd"), "it does not answer as MySQL does: abcd".into()),
        (
            "mysql",
            Manner::Says(b"\x17\0\0\0\xff\x10\x04Too many connections"),
            "Too many connections (error 1040)".into(),
        ),
        ("mysql", Manner::Says(b"\xff\xff\0\0"), "it does not answer as MySQL does: \u{fffd}\u{fffd}".into()),
        ("mysql", Manner::SaysAndCloses(b"\x05\0\0\0\x0a"), "it closed the connection".into()),
        ("postgres", Manner::SaysAndCloses(b"R\0\0\0\x08\0\0"), "it closed the connection after: R".into()),
        (
            "postgres",
            Manner::Says(b"R\xff\xff\xff\xff"),
            "it does not answer as PostgreSQL does: R\u{fffd}\u{fffd}\u{fffd}\u{fffd}".into(),
        ),
        (
            "postgres",
            Manner::Says(b"Ecould not fork new process\n\0"),
            "it does not answer as PostgreSQL does: Ecould not fork new process".into(),
        ),
        ("postgres", Manner::Says(b"E\0\0\0\x10C57P03\0Mno\0\0"), "no".into()),
    ] {
        for kind in kinds.split(' ') {
            number += 1;
            let socket = serve(folder.path(), &number.to_string(), manner);
            let more = if kind == "unix" { "\nsend = \"EHLO x\\r\\n\"\nexpect = \"250 \"" } else { "" };
            let name = match kind {
                "postgres" => "PostgreSQL",
                "mysql" => "MySQL",
                _ => "Redis",
            };
            // PostgreSQL's sockets have a name; this stands for one.
            let socket = if kind == "postgres" {
                let named = folder.path().join(format!(".s.PGSQL.{number}"));
                fs::rename(&socket, &named).expect("renamed");
                named.display().to_string()
            } else {
                socket
            };
            let wanted = format!("{socket}: {}", wanted.replace("KIND", name));
            let probe = format!("{kind} = \"{socket}\"{more}");
            tried.push(thread::spawn(move || {
                let limit = if wanted.contains("within") { SHORT } else { LIMIT };
                let said = ask_within(limit, &probe).expect_err(&probe);
                assert_eq!(said.trim(), wanted.trim(), "{manner:?}");
            }));
        }
    }
    let failed = tried.into_iter().filter_map(|one| one.join().err()).count();
    assert_eq!(failed, 0, "see above");
}

#[test]
fn a_text_is_awaited() {
    let folder = tempfile::tempdir().expect("a folder");
    let banner = serve(folder.path(), "banner", Manner::Says(b"220 mail ESMTP\r\n"));
    assert_eq!(ask(&format!("unix = \"{banner}\"\nexpect = \"220 \"")), Ok(()));
    // It answers what it is asked, a byte at a time, and only behind 60,000 others.
    let path = folder.path().join("echo");
    let listener = UnixListener::bind(&path).expect("a socket");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut asked = [0; 6];
            if stream.read_exact(&mut asked).is_ok() && &asked == b"HELLO\n" {
                let _ = stream.write_all(&[b'.'; 60_000]);
                for byte in b"..CONNECTED\0" {
                    let _ = stream.write_all(&[*byte]);
                    thread::sleep(Duration::from_millis(2));
                }
            }
        }
    });
    let shown = path.display();
    assert_eq!(ask(&format!("unix = \"{shown}\"\nsend = \"HELLO\\n\"\nexpect = \"CONNECTED\\u0000\"")), Ok(()));
    assert_eq!(
        ask(&format!("unix = \"{shown}\"\nsend = \"HELP!\\n\"\nexpect = \"CONNECTED\"")),
        Err(format!("{shown}: it closed the connection"))
    );
    // By hand.
    let said = Place::bare().boathook(&["step", "wait", "--unix", &banner, "--expect", "ESMTP"]);
    assert_eq!(said.code, 0, "{said:?}");
    let said = Place::bare().boathook(&[
        "step",
        "wait",
        "--timeout",
        "5s",
        "--interval",
        "20ms",
        "--",
        "sh",
        "-c",
        "test -n \"$BOATHOOK_SOCKET\"",
    ]);
    assert_eq!(said.code, 0, "{said:?}");
    let said =
        Place::bare().boathook(&["step", "wait", "--timeout", "200ms", "--", "sh", "-c", "echo no disk; exit 4"]);
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("sh: exit code 4: no disk, 1 try"), "{said:?}");
}

/// Whatever a server says, in whatever pieces, nothing worse than a reason comes of it.
#[test]
fn no_answer_is_too_strange() {
    let folder = tempfile::tempdir().expect("a folder");
    let good: [(&str, &[u8]); 3] = [
        ("postgres", b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0"),
        ("mysql", b"\x3c\0\0\0\x0a8.4.0\0\x08\0\0\0abcdefgh\0\xff\xff\x21\x02\0\xff\xdf\x15\0\0\0\0\0\0\0\0\0\0ijklmnopqrst\0x\0\x05\0\0\x02\xfeabcd\x01\0\0\x04\0"),
        ("redis", b"+PONG\r\n"),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    // A generator of its own (Numerical Recipes' constants), so that a failure comes again.
    let mut seed = 4665u32;
    let mut random = move |below: usize| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed as usize / 7 % below
    };
    for (kind, good) in good {
        let path = folder.path().join(format!(".s.PGSQL.{kind}"));
        let typed: ProbeTyped = keys::parse(&format!("{kind} = \"{}\"", path.display())).expect("good");
        let (mut problems, mut secrets) = (Vec::new(), Vec::new());
        let probe = Probe::mean(typed, &mut Scope::of_command_line(&mut secrets, &mut problems)).expect("good");
        let listener = UnixListener::bind(&path).expect("a socket");
        for round in 0..400 {
            let mut answer = good.to_vec();
            answer.truncate(if round % 3 == 0 { random(good.len()) } else { good.len() });
            for _ in 0..random(4) {
                if !answer.is_empty() {
                    let at = random(answer.len());
                    answer[at] = u8::try_from(random(256)).expect("a byte");
                }
            }
            runtime.block_on(async {
                let (progress, processes) = (Progress::default(), Processes::idle());
                let mut asking = std::pin::pin!(probe.hold(&processes, &progress));
                // It connects at once: the other end is in the backlog then.
                let first = tokio::time::timeout(Duration::from_millis(1), &mut asking).await;
                assert!(first.is_err(), "nobody has answered");
                let (mut stream, _) = listener.accept().expect("connected");
                stream.write_all(&answer).expect("sent");
                stream.shutdown(std::net::Shutdown::Write).expect("ended");
                let held = tokio::time::timeout(LIMIT, asking).await.expect("an end");
                if let Err(why) = held {
                    assert!(why.len() < 600, "{why}");
                }
                let _ = stream.read(&mut [0; 1024]);
            });
        }
    }
}
