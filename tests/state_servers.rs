//! State of real servers: a Redis and a PostgreSQL whose data is gone with the container are read back in the next life.

mod support;

use std::{
    fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::Command,
};

use support::{Place, Said, until};

/// A program, also where Debian puts what users are not to call.
fn find_program(name: &str) -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    folders.extend(["/usr/sbin", "/usr/local/bin"].map(PathBuf::from));
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    folders.extend(versions.map(|version| version.path().join("bin")));
    folders.into_iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Says that something could not be tried; where everything is required, that is a failure.
fn needs(name: &str) -> Option<String> {
    let found = find_program(name).map(|path| path.display().to_string());
    if found.is_none() {
        eprintln!("NOT RUN: {name} is not installed");
        assert!(std::env::var_os("BOATHOOK_REQUIRE_ALL").is_none_or(|all| all != "1"), "{name} is not installed");
    }
    found
}

fn run(place: &Place, words: &[&str]) -> Said {
    let mut command = Command::new(place.expand(words[0]));
    command.args(words[1..].iter().map(|word| place.expand(word)));
    place.dress(&mut command);
    place.finish(command)
}

const REDIS: &str = "grace-period = \"30s\"\n\
    [[pre-start.step]]\nname = \"redis\"\nrestore = { from = \"@/state\", to = \"@/data\" }\n\
    [[post-start.step]]\nwait = { unix = \"@/redis.sock\" }\n";

/// One life of a Redis; what `while_it_runs` asks of it.
fn redis_life(place: Place, while_it_runs: &[&[&str]], then_kill: bool) -> (Place, Vec<String>) {
    let (server, cli) = ("redis-server", "redis-cli");
    fs::create_dir_all(place.path("data")).expect("made");
    let words = ["--port", "0", "--unixsocket", "@/redis.sock", "--dir", "@/data", "--save", "", "--appendonly", "no"];
    let words: Vec<String> = words.iter().map(|word| place.expand(word)).collect();
    let mut main = vec![server];
    main.extend(words.iter().map(String::as_str));
    let mut agent = place.run(&main);
    agent.wait_log("to=\"ready\"");
    let answers = while_it_runs
        .iter()
        .map(|words| run(&agent.place, &[&[cli, "-s", "@/redis.sock"], *words].concat()).stdout.trim().to_owned())
        .collect();
    if then_kill {
        agent.signal(libc::SIGKILL);
    } else {
        agent.signal(libc::SIGTERM);
    }
    agent.end();
    assert!(then_kill || agent.log().contains("hook ended"), "{}", agent.log());
    let place = agent.into_place();
    // All of its processes too.
    until("the end of Redis", || place.processes().is_empty().then_some(()));
    let _ = fs::remove_file(place.path("redis.sock"));
    (place, answers)
}

#[test]
fn a_redis_that_is_told_to_save_and_end_comes_back() {
    if needs("redis-server").is_none() || needs("redis-cli").is_none() {
        return;
    }
    // Redis writes its dump and ends by itself; then the dump is saved.
    let place = Place::with(&format!(
        "{REDIS}[[pre-stop.step]]\nname = \"shut it down\"\nexec = [\"redis-cli\", \"-s\", \"@/redis.sock\", \"shutdown\", \"save\"]\ntimeout = \"5s\"\n\
        [[pre-stop.step]]\nname = \"redis\"\nsave = {{ from = \"@/data/dump.rdb\", to = \"@/state\" }}\ntimeout = \"5s\"\nessential = true\n"
    ));
    let (place, answers) =
        redis_life(place, &[&["set", "greeting", "hello"], &["rpush", "list", "a", "b", "c"]], false);
    assert_eq!(answers, ["OK", "3"]);
    fs::remove_dir_all(place.path("data")).expect("the container is gone");
    let (_place, answers) = redis_life(place, &[&["get", "greeting"], &["lrange", "list", "1", "-1"]], false);
    assert_eq!(answers, ["hello", "b\nc"]);
}

#[test]
fn a_redis_that_is_killed_has_lost_no_more_than_a_period() {
    if needs("redis-server").is_none() || needs("redis-cli").is_none() {
        return;
    }
    // The dump is written by Redis whenever it likes, and saved while it runs.
    let place = Place::with(&format!(
        "{REDIS}[[pre-stop.step]]\nname = \"redis\"\nsave = {{ from = \"@/data/dump.rdb\", to = \"@/state\", periodic = \"1s\" }}\ntimeout = \"5s\"\n"
    ));
    fs::create_dir_all(place.path("state")).expect("made");
    let saved = |place: &Place| {
        let entries = fs::read_dir(place.path("state")).into_iter().flatten().flatten();
        entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')).count()
    };
    let (place, _) = {
        fs::create_dir_all(place.path("data")).expect("made");
        let words =
            ["--port", "0", "--unixsocket", "@/redis.sock", "--dir", "@/data", "--save", "", "--appendonly", "no"];
        let words: Vec<String> = words.iter().map(|word| place.expand(word)).collect();
        let mut main = vec!["redis-server"];
        main.extend(words.iter().map(String::as_str));
        let mut agent = place.run(&main);
        agent.wait_log("to=\"ready\"");
        assert_eq!(run(&agent.place, &["redis-cli", "-s", "@/redis.sock", "set", "k", "v"]).stdout.trim(), "OK");
        assert_eq!(run(&agent.place, &["redis-cli", "-s", "@/redis.sock", "save"]).stdout.trim(), "OK");
        until("a periodic save", || (saved(&agent.place) > 0).then_some(()));
        agent.signal(libc::SIGKILL);
        agent.end();
        (agent.into_place(), ())
    };
    for pid in place.processes() {
        support::send(pid, libc::SIGKILL);
    }
    until("the end of Redis", || place.processes().is_empty().then_some(()));
    let _ = fs::remove_file(place.path("redis.sock"));
    fs::remove_dir_all(place.path("data")).expect("the node is gone");
    let (_place, answers) = redis_life(place, &[&["get", "k"]], false);
    assert_eq!(answers, ["v"]);
}

/// The user that Debian's packages make; a PostgreSQL refuses to run as root.
fn postgres_user() -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let line = users.lines().find(|line| line.starts_with("postgres:"))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn own(path: &Path, (user, group): (u32, u32)) {
    fs::create_dir_all(path).expect("made");
    chown(path, Some(user), Some(group)).expect("given away");
}

#[test]
fn a_postgresql_is_dumped_and_loaded_again() {
    let (Some(initdb), Some(postgres), Some(psql), Some(pg_dump)) =
        (needs("initdb"), needs("postgres"), needs("psql"), needs("pg_dump"))
    else {
        return;
    };
    let Some(user) = postgres_user().filter(|_| rustix::process::geteuid().is_root()) else {
        eprintln!("NOT RUN: no user postgres, or not root");
        assert!(std::env::var_os("BOATHOOK_REQUIRE_ALL").is_none_or(|all| all != "1"), "no user postgres, or not root");
        return;
    };
    // The steps are root's, the server is not; the dump goes straight from pg_dump into the snapshot.
    let place = Place::with(&format!(
        "grace-period = \"60s\"\n\
        [[pre-start.step]]\nname = \"db\"\nrestore = {{ from = \"@/state\", to = \"@/dump\" }}\n\
        [[post-start.step]]\nwait = {{ unix = \"@/run/.s.PGSQL.5432\" }}\ntimeout = \"30s\"\n\
        [[post-start.step]]\nname = \"answers\"\nexec = [\"{psql}\", \"-qh\", \"@/run\", \"-U\", \"postgres\", \"-c\", \"select 1\"]\nretries = 20\ntimeout = \"20s\"\n\
        [[post-start.step]]\nname = \"load\"\nexec = [\"{psql}\", \"-qh\", \"@/run\", \"-U\", \"postgres\", \"-v\", \"ON_ERROR_STOP=1\", \"-f\", \"@/dump/app.sql\"]\nwhen = {{ file-exists = \"@/dump/app.sql\" }}\ntimeout = \"20s\"\n\
        [[pre-stop.step]]\nname = \"db\"\ntimeout = \"20s\"\nessential = true\n\
        save = {{ from = {{ exec = [\"{pg_dump}\", \"-h\", \"@/run\", \"-U\", \"postgres\", \"postgres\"], file = \"app.sql\" }}, to = \"@/state\", compression = \"zstd\" }}\n"
    ));
    let mut place = Some(place);
    for round in 0..2 {
        let current = place.take().expect("one");
        // The folder above must let the server through.
        fs::set_permissions(current.folder(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("opened");
        let _ = fs::remove_dir_all(current.path("data"));
        own(&current.path("data"), user);
        own(&current.path("run"), user);
        let (uid, gid) = (user.0.to_string(), user.1.to_string());
        let as_user = ["setpriv", "--reuid", &uid, "--regid", &gid, "--clear-groups"];
        let made = run(
            &current,
            &[&as_user[..], &[&initdb, "-D", "@/data", "-A", "trust", "-U", "postgres", "--no-sync"]].concat(),
        );
        assert_eq!(made.code, 0, "{made:?}");
        let words = ["-D", "@/data", "-k", "@/run", "-h", ""].map(|word| current.expand(word));
        let mut main: Vec<&str> = as_user.to_vec();
        main.push(&postgres);
        main.extend(words.iter().map(String::as_str));
        let mut agent = current.run(&main);
        agent.wait_log("to=\"ready\"");
        let sql = |agent: &support::Agent, text: &str| {
            let said = run(&agent.place, &[&psql, "-qAth", "@/run", "-U", "postgres", "-c", text]);
            assert_eq!(said.code, 0, "{said:?}");
            said.stdout.trim().to_owned()
        };
        if round == 0 {
            sql(&agent, "create table users (id serial primary key, name text)");
            sql(&agent, "insert into users (name) select 'user ' || n from generate_series(1, 5000) n");
        } else {
            assert_eq!(sql(&agent, "select count(*), max(name) from users"), "5000|user 999");
        }
        // PostgreSQL's fast shutdown.
        agent.signal(libc::SIGINT);
        agent.end();
        assert!(agent.log().contains("outcome=\"succeeded\""), "{}", agent.log());
        place = Some(agent.into_place());
    }
}
