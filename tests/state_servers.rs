//! State of real servers: a Redis and a PostgreSQL whose data is gone with the container are read back in the next life.

mod server_support;
mod support;

use std::{fs, process::Command};

use server_support::{Postgres, needs};
use support::{Place, Said, until};

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

#[test]
fn a_postgresql_is_dumped_and_loaded_again() {
    let (Some(server), Some(pg_dump)) = (Postgres::find(), needs("pg_dump")) else {
        return;
    };
    let psql = &server.psql;
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
        let _ = fs::remove_dir_all(current.path("data"));
        server.make_folders(current.folder());
        let as_user = server.as_user();
        let as_user: Vec<&str> = as_user.iter().map(String::as_str).collect();
        let made = run(
            &current,
            &[&as_user[..], &[&server.initdb, "-D", "@/data", "-A", "trust", "-U", "postgres", "--no-sync"]].concat(),
        );
        assert_eq!(made.code, 0, "{made:?}");
        let words = ["-D", "@/data", "-k", "@/run", "-h", ""].map(|word| current.expand(word));
        let mut main: Vec<&str> = as_user.clone();
        main.push(&server.postgres);
        main.extend(words.iter().map(String::as_str));
        let mut agent = current.run(&main);
        agent.wait_log("to=\"ready\"");
        let sql = |agent: &support::Agent, text: &str| {
            let said = run(&agent.place, &[psql, "-qAth", "@/run", "-U", "postgres", "-c", text]);
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
