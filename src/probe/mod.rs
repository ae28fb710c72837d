//! Probes: a check that holds or does not hold yet, and why. The step `wait` tries one until it holds; `[readiness]`
//! asks one whenever somebody wants to know. One file a protocol, and `wire` for those that are not HTTP.
//!
//! Nothing here has a time limit of its own: a probe is a future, and dropping it ends whatever it started.

use std::{fmt, path::PathBuf, time::Duration};

mod exec;
mod file;
mod grpc;
mod http;
mod mysql;
mod postgres;
mod process;
mod redis;
mod talk;
mod wire;

use self::{
    file::Wanted,
    grpc::{Grpc, GrpcTyped},
    http::{Http, HttpTyped, Json},
    mysql::Mysql,
    postgres::Postgres,
    process::Target,
    redis::{Password, Redis},
    talk::Talk,
    wire::Peer,
};
use crate::{
    client::{
        metric::{Metric, MetricTyped},
        options::{Flag, Options},
        resolve::resolve,
        status::Status,
        url::split_host_port,
    },
    duration::show,
    keys::keys,
    number::Number,
    problem::Scope,
    process::Processes,
    step::{
        Kind, Progress,
        exec::{self as command, Exec},
    },
    task,
    value::Scalar,
};

keys! {
    /// A probe as typed: exactly one thing, and what belongs to it.
    #[derive(Clone, Debug, PartialEq)]
    pub struct ProbeTyped {
        /// Until this HOST:PORT accepts a connection.
        pub tcp: Option<String> = One("HOST:PORT"),
        /// Until this URL answers with a fitting status (2xx if none is given).
        pub http: Option<HttpTyped> = One("URL"),
        /// Until this Unix socket accepts a connection.
        pub unix: Option<PathBuf> = One("PATH"),
        /// Until this file exists.
        pub file: Option<PathBuf> = One("PATH"),
        /// With `file`: until it contains this text.
        pub contains: Option<String> = One("TEXT"),
        /// With `file`: until it does not exist.
        pub absent: Option<Flag> = Truth,
        /// Until no process is left with this name, id, or id in this file.
        pub process_gone: Option<Scalar> = One("NAME|PID|FILE"),
        /// Until this name resolves.
        pub dns: Option<String> = One("NAME"),
        /// With `dns`: to at least so many addresses.
        pub count: Option<Number<u32>> = One("COUNT"),
        /// Until a value at this URL is as wanted.
        pub metric: Option<MetricTyped> = One("URL"),
        /// With `tcp` and `unix`: send this text first.
        pub send: Option<String> = One("TEXT"),
        /// With `tcp` and `unix`: until what comes back contains this text.
        pub expect: Option<String> = One("TEXT"),
        /// Until this PostgreSQL takes connections; HOST:PORT or the socket's folder.
        pub postgres: Option<String> = One("HOST:PORT"),
        /// Until this MySQL or MariaDB is up; HOST:PORT or a socket.
        pub mysql: Option<String> = One("HOST:PORT"),
        /// Until this Redis answers PING; HOST:PORT or a socket.
        pub redis: Option<String> = One("HOST:PORT"),
        /// With `postgres`, `mysql` and `redis`: who asks.
        pub user: Option<String> = One("USER"),
        /// With `postgres`: which database is asked for; the user's name if not given.
        pub database: Option<String> = One("NAME"),
        /// With `redis`: the password.
        pub password: Option<String> = One("PASSWORD"),
        /// With `redis`: a file with the password.
        pub password_file: Option<PathBuf> = One("FILE"),
        /// Until gRPC's health check at this HOST:PORT or URL answers SERVING.
        pub grpc: Option<GrpcTyped> = One("HOST:PORT"),
        /// With `grpc`: the service that is asked about; the whole server if not given.
        pub service: Option<String> = One("NAME"),
        pub exec: Option<command::Typed> = Toml,
    }
    parts { ByHand pub flat: Flat }
}

keys! {
    /// What the TOML has in the tables of `http`, `metric`, `grpc` and `exec`, as options of the command line.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Flat {
        /// With `http`: statuses that are awaited.
        pub status: Vec<Status> = List("STATUS", ""),
        /// Until this command ends with 0.
        pub command: Vec<String> = MayBeWords("COMMAND"),
    }
    parts { ByHand pub metric: MetricTyped }
}

/// A check that can be made any number of times.
#[derive(Debug)]
pub enum Probe {
    Connect(Peer, Option<Talk>),
    Http(Box<Http>),
    File(PathBuf, Wanted),
    ProcessGone(Target),
    Dns(String, usize),
    Metric(Box<Metric>),
    Postgres(Postgres),
    Mysql(Mysql),
    Redis(Redis),
    Grpc(Box<Grpc>),
    Exec(Box<Exec>),
}

impl Probe {
    /// Gives meaning to what was typed; `None` when at least one problem was noted.
    pub fn mean(mut typed: ProbeTyped, scope: &mut Scope<'_>) -> Option<Probe> {
        let before = scope.problems.len();
        let by_hand = std::mem::take(&mut typed.flat.command);
        if typed.exec.is_none() && !by_hand.is_empty() {
            typed.exec = Some(command::Typed::of_command(by_hand));
        }
        let all = [
            ("tcp", typed.tcp.is_some()),
            ("http", typed.http.is_some()),
            ("unix", typed.unix.is_some()),
            ("file", typed.file.is_some()),
            ("process-gone", typed.process_gone.is_some()),
            ("dns", typed.dns.is_some()),
            ("metric", typed.metric.is_some()),
            ("postgres", typed.postgres.is_some()),
            ("mysql", typed.mysql.is_some()),
            ("redis", typed.redis.is_some()),
            ("grpc", typed.grpc.is_some()),
            ("exec", typed.exec.is_some()),
        ];
        let given: Vec<&str> = all.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
        if given.len() != 1 {
            let what = if given.is_empty() {
                "what to wait for is missing".to_string()
            } else {
                format!("{} are given, but only one thing is waited for", given.join(" and "))
            };
            scope.problem("", what, format!("give one of {}", all.map(|(name, _)| name).join(", ")));
        }
        for (key, present, of) in [
            ("contains", typed.contains.is_some(), &["file"][..]),
            ("absent", typed.absent.is_some(), &["file"]),
            ("count", typed.count.is_some(), &["dns"]),
            ("send", typed.send.is_some(), &["tcp", "unix"]),
            ("expect", typed.expect.is_some(), &["tcp", "unix"]),
            ("user", typed.user.is_some(), &["postgres", "mysql", "redis"]),
            ("database", typed.database.is_some(), &["postgres"]),
            ("password", typed.password.is_some(), &["redis"]),
            ("password-file", typed.password_file.is_some(), &["redis"]),
            ("service", typed.service.is_some(), &["grpc"]),
        ] {
            if present && !of.iter().any(|kind| given.contains(kind)) {
                scope.problem(key, format!("it belongs to `{}`, which is not given", of.join("` or `")), None);
            }
        }
        scope.secrets.extend(typed.password.clone().filter(|password| !password.is_empty()));
        let probe = mean_one(typed, scope);
        if scope.problems.len() > before { None } else { probe }
    }

    /// Tries once; dropped, it leaves nothing behind. `progress` is told what is being waited for.
    ///
    /// # Errors
    /// Why it does not hold.
    pub async fn hold(&self, processes: &Processes, progress: &Progress) -> Result<(), String> {
        let at = |why: String| format!("{self}: {why}");
        match self {
            Probe::Connect(peer, talk) => talk::hold(peer, talk.as_ref(), processes, progress).await.map_err(at),
            Probe::Http(http) => http.hold(processes, progress).await,
            Probe::File(path, wanted) => file::hold(path, wanted).await,
            Probe::ProcessGone(target) => process::hold(target).await,
            Probe::Dns(name, count) => match resolve(name, processes).await?.len() {
                found if found >= *count => Ok(()),
                found => Err(at(format!("{found} addresses, wanted {count}"))),
            },
            Probe::Metric(metric) => match metric.check(processes, progress).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(why)) => Err(why),
                Err(failure) => Err(failure.reason),
            },
            Probe::Postgres(server) => server.hold(processes, progress).await.map_err(at),
            Probe::Mysql(server) => server.hold(processes, progress).await.map_err(at),
            Probe::Redis(server) => server.hold(processes, progress).await.map_err(at),
            #[cfg(feature = "http2")]
            Probe::Grpc(grpc) => {
                let checked = crate::client::grpc::check_health(&grpc.request, &grpc.service, processes, progress);
                checked.await.map_err(at)
            }
            #[cfg(not(feature = "http2"))]
            Probe::Grpc(_) => Err(at(crate::client::grpc::NO_HTTP2.0.into())),
            Probe::Exec(exec) => exec::hold(exec, processes, progress).await,
        }
    }

    /// Why it does not hold when it was cut after `limit`, by what it was waiting for then.
    pub fn unanswered(&self, progress: &Progress, limit: Duration) -> String {
        match progress.now() {
            text if text.is_empty() => format!("{self}: no answer within {}", show(limit)),
            text => format!("{text} within {}", show(limit)),
        }
    }
}

/// The first thing that is given: that it is the only one has been looked at.
fn mean_one(typed: ProbeTyped, scope: &mut Scope<'_>) -> Option<Probe> {
    let flat = typed.flat;
    // Either place is empty: the tables are the file's, the flat options the command line's.
    let request = |own: Options, by_hand: Options| if by_hand == Options::default() { own } else { by_hand };
    let talk = |scope: &mut Scope<'_>| match (typed.send, typed.expect) {
        (_, Some(expect)) if expect.is_empty() => {
            scope.problem("expect", "it is empty", None);
            None
        }
        (send, Some(expect)) => Some(Talk { send: send.unwrap_or_default(), expect }),
        (Some(_), None) => {
            scope.problem("expect", "it is missing, and what is sent proves nothing without an answer", None);
            None
        }
        (None, None) => None,
    };
    if let Some(text) = typed.tcp {
        let talk = talk(scope);
        let peer = Peer::mean("tcp", text.strip_prefix("tcp://").unwrap_or(&text), None, scope)?;
        return Some(Probe::Connect(peer, talk));
    }
    if let Some(path) = typed.unix {
        return Some(Probe::Connect(Peer::Unix(path), talk(scope)));
    }
    if let Some(mut http) = typed.http {
        http.request = request(http.request, flat.metric.request);
        http.status = if flat.status.is_empty() { http.status } else { flat.status };
        let pointer = flat.metric.pointer.map(|pointer| Json { pointer, want: flat.metric.want, ..Json::default() });
        http.json = http.json.or(pointer);
        return Http::mean(http, scope).map(|http| Probe::Http(Box::new(http)));
    }
    if let Some(path) = typed.file {
        let wanted = match (typed.contains, typed.absent.is_some_and(|flag| flag.0)) {
            (None, false) => Wanted::Present,
            (None, true) => Wanted::Absent,
            (Some(text), false) => Wanted::Contains(text),
            (Some(_), true) => {
                scope.problem("absent", "a file that is absent contains nothing", None);
                return None;
            }
        };
        return Some(Probe::File(path, wanted));
    }
    if let Some(Scalar(text)) = typed.process_gone {
        return Some(Probe::ProcessGone(if text.starts_with('/') {
            Target::PidFile(text.into())
        } else if let Ok(pid) = text.parse() {
            Target::Pid(pid)
        } else if text.is_empty() {
            scope.problem("process-gone", "it is empty", None);
            return None;
        } else {
            Target::Name(text)
        }));
    }
    if let Some(name) = typed.dns {
        let why = match split_host_port(&name) {
            Ok((host, None)) => {
                let count = typed.count.map_or(1, |count| usize::try_from(count.0).unwrap_or(usize::MAX));
                return Some(Probe::Dns(host, count));
            }
            Ok(_) => "a name has no port".into(),
            Err(why) => why,
        };
        scope.problem("dns", why, None);
        return None;
    }
    if let Some(metric) = typed.metric {
        return Some(Probe::Metric(Box::new(Metric::mean(metric.complete(flat.metric), scope)?)));
    }
    for (key, text) in [("user", &typed.user), ("database", &typed.database)] {
        if text.as_ref().is_some_and(|text| text.is_empty() || text.contains('\0')) {
            scope.problem(key, "it is not a name", None);
        }
    }
    if let Some(text) = typed.postgres {
        let peer = postgres::socket_in(Peer::mean("postgres", &text, Some(5432), scope)?);
        let user = typed.user.unwrap_or_else(|| postgres::USER.into());
        return Some(Probe::Postgres(Postgres { peer, user, database: typed.database }));
    }
    if let Some(text) = typed.mysql {
        let peer = Peer::mean("mysql", &text, Some(3306), scope)?;
        return Some(Probe::Mysql(Mysql { peer, user: typed.user.unwrap_or_else(|| mysql::USER.into()) }));
    }
    if let Some(text) = typed.redis {
        let peer = Peer::mean("redis", &text, Some(6379), scope)?;
        let password = match (typed.password, typed.password_file) {
            (Some(_), Some(_)) => {
                scope.problem("password-file", "`password` is given as well", "give one of them".to_owned());
                return None;
            }
            (Some(text), None) => Password::Text(text),
            (None, Some(file)) => Password::File(file),
            (None, None) if typed.user.is_some() => {
                scope.problem("password", "it is missing for the user", None);
                return None;
            }
            (None, None) => Password::None,
        };
        return Some(Probe::Redis(Redis { peer, user: typed.user, password }));
    }
    if let Some(mut grpc) = typed.grpc {
        grpc.request = request(grpc.request, flat.metric.request);
        return grpc::mean(grpc, typed.service, scope).map(|grpc| Probe::Grpc(Box::new(grpc)));
    }
    let place = scope.place.len();
    scope.place.push_str(if place == 0 { "exec" } else { ": exec" });
    let exec = typed.exec.and_then(|exec| Exec::mean(exec, scope));
    scope.place.truncate(place);
    exec.map(|exec| Probe::Exec(Box::new(exec)))
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Probe::Connect(peer, _)
            | Probe::Postgres(Postgres { peer, .. })
            | Probe::Mysql(Mysql { peer, .. })
            | Probe::Redis(Redis { peer, .. }) => peer.fmt(f),
            Probe::Http(http) => http.request.url.fmt(f),
            Probe::File(path, _) | Probe::ProcessGone(Target::PidFile(path)) => path.display().fmt(f),
            Probe::ProcessGone(Target::Pid(pid)) => write!(f, "process {pid}"),
            Probe::ProcessGone(Target::Name(name)) => write!(f, "process {name}"),
            Probe::Dns(name, _) => f.write_str(name),
            Probe::Metric(metric) => f.write_str(metric.name()),
            Probe::Grpc(grpc) => grpc.request.url.fmt(f),
            Probe::Exec(exec) => f.write_str(&exec.program()),
        }
    }
}

async fn blocking(work: impl FnOnce() -> Result<(), String> + Send + 'static) -> Result<(), String> {
    task::blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))
}
