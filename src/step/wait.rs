//! The step `wait`: tries until one condition is true. Its limit is the step's timeout; each try has a limit of its
//! own, so that a server which accepts and says nothing does not eat the whole step.

use std::{fmt, path::PathBuf, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use super::{Context, End, Kind, Progress};
use crate::{
    client::{
        Request,
        connect::{connect_tcp, connect_unix},
        files,
        metric::{Metric, MetricTyped, WantOptions, read_json},
        options::{Flag, Options},
        resolve::resolve,
        status::{Status, Statuses},
        url::split_host_port,
    },
    duration::{Span, show},
    keys::{Error, Node, Read, Shape, keys},
    number::Number,
    problem::Scope,
    task,
    value::{Scalar, Want, find_json},
};

/// Twice a second: what is waited for at start is noticed soon, and a server does not mind.
const INTERVAL: Duration = Duration::from_millis(500);
/// The pause between tries cannot be shorter: a refused connection costs no time, so it would be a busy loop.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);
/// Longer than a healthy answer takes, short enough for several tries in a usual timeout.
const ATTEMPT: Duration = Duration::from_secs(2);
/// `contains` looks at the beginning of a file: what signals readiness is small.
const MOST_SEARCHED: u64 = 1 << 20;

keys! {
    /// Wait until a condition is true.
    #[derive(Clone, Debug, PartialEq)]
    pub struct WaitTyped {
        /// Until this HOST:PORT accepts a connection.
        pub tcp: Option<String> = One("HOST:PORT"),
        /// Until this URL answers with a fitting status (2xx if none is given).
        pub http: Option<WaitHttp> = One("URL"),
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
        /// The pause between tries; 500ms if not given.
        pub interval: Option<Span> = One("DURATION"),
        /// How many times in a row it must be true.
        pub consecutive: Option<Number<u32>> = One("COUNT"),
        /// How long one try may take; 2s if not given.
        pub try_timeout: Option<Span> = One("DURATION"),
    }
    parts { ByHand pub flat: Flat }
}

keys! {
    /// What the TOML has in the tables of `http` and `metric`, as options of the command line.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Flat {
        /// With `http`: statuses that are awaited.
        pub status: Vec<Status> = List("STATUS", ""),
    }
    parts { ByHand pub metric: MetricTyped }
}

keys! {
    /// `http = "http://…"`, or a table with the keys of a request, `status` and `json`.
    #[derive(Clone, Debug, PartialEq)]
    pub struct WaitHttp {
        pub url: String = Toml,
        pub status: Vec<Status> = Toml,
        pub json: Option<Json> = Toml,
    }
    parts { Always pub request: Options }
    impl {
        fn short(&mut self, value: Node<'_>) -> Result<bool, Error> {
            let Shape::Text(url) = value.shape()? else { return Ok(false) };
            self.url = url.into();
            Ok(true)
        }
        fn expected(&self) -> &'static str {
            "a URL, or a table such as { url = \"http://…\", status = [\"2xx\"] }"
        }
    }
}

keys! {
    /// A value in the answer, and what is wanted of it.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Json {
        pub pointer: String = Toml,
        pub exists: Exists = Toml,
    }
    parts { Always pub want: WantOptions }
    impl {
        fn expected(&self) -> &'static str {
            "a table such as { pointer = \"/status\", equals = \"ok\" }"
        }
    }
}

/// The value being there is what is always wanted; `false` has no meaning here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exists;

impl Read for Exists {
    fn read(value: Node<'_>) -> Result<Self, Error> {
        if Flag::read(value)?.0 { Ok(Exists) } else { Err(Error::new("`exists` can only be true")) }
    }
}

/// The step as it is run.
#[derive(Debug)]
pub struct Wait {
    condition: Condition,
    interval: Duration,
    consecutive: u32,
    attempt: Duration,
}

#[derive(Debug)]
enum Condition {
    Tcp(String, u16),
    Http(Box<Request>, Statuses, Option<(String, Want)>),
    Unix(PathBuf),
    FilePresent(PathBuf),
    FileContains(PathBuf, String),
    FileAbsent(PathBuf),
    ProcessGone(Target),
    Dns(String, usize),
    Metric(Box<Metric>),
}

#[derive(Clone, Debug)]
enum Target {
    Pid(u32),
    PidFile(PathBuf),
    Name(String),
}

impl Kind for Wait {
    type Typed = WaitTyped;

    fn mean(typed: WaitTyped, scope: &mut Scope<'_>) -> Option<Wait> {
        let before = scope.problems.len();
        let given: Vec<&str> = [
            ("tcp", typed.tcp.is_some()),
            ("http", typed.http.is_some()),
            ("unix", typed.unix.is_some()),
            ("file", typed.file.is_some()),
            ("process-gone", typed.process_gone.is_some()),
            ("dns", typed.dns.is_some()),
            ("metric", typed.metric.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect();
        if given.len() != 1 {
            let what = if given.is_empty() {
                "what to wait for is missing".to_string()
            } else {
                format!("{} are given, but a step waits for one thing", given.join(" and "))
            };
            let help = "give one of tcp, http, unix, file, process-gone, dns, metric";
            scope.problem("", what, Some(help.into()));
        }
        let file = given.contains(&"file");
        for (key, present, of) in [
            ("contains", typed.contains.is_some() && !file, "file"),
            ("absent", typed.absent.is_some() && !file, "file"),
            ("count", typed.count.is_some() && !given.contains(&"dns"), "dns"),
        ] {
            if present {
                scope.problem(key, format!("it belongs to `{of}`, which is not given"), None);
            }
        }
        let interval = typed.interval.map_or(INTERVAL, |span| span.0);
        if interval < SHORTEST_INTERVAL {
            scope.problem("interval", format!("{} is shorter than 10ms", show(interval)), None);
        }
        let attempt = typed.try_timeout.map_or(ATTEMPT, |span| span.0);
        if attempt.is_zero() {
            scope.problem("try-timeout", "in no time nothing can be tried", None);
        }
        let consecutive = typed.consecutive.map_or(1, |count| count.0);
        if consecutive == 0 {
            scope.problem("consecutive", "it must be at least 1", None);
        }
        let condition = mean_condition(typed, scope);
        if scope.problems.len() > before {
            return None;
        }
        Some(Wait { condition: condition?, interval, consecutive, attempt })
    }

    async fn run(&self, context: &Context) -> End {
        let started = Instant::now();
        let mut tries = 0u64;
        let mut in_a_row = 0;
        loop {
            tries += 1;
            let own = Progress::default();
            let outcome = match timeout(self.attempt, self.condition.hold(context, &own)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(match own.now() {
                    text if text.is_empty() => format!("{}: no answer within {}", self.condition, show(self.attempt)),
                    text => format!("{text} within {}", show(self.attempt)),
                }),
            };
            let plural = if tries == 1 { "try" } else { "tries" };
            match outcome {
                Ok(()) => {
                    in_a_row += 1;
                    if in_a_row >= self.consecutive {
                        return End::Done(format!("true after {}, {tries} {plural}", show(started.elapsed())));
                    }
                    let wanted = self.consecutive;
                    context.progress.set(format!("{}: true {in_a_row} of {wanted} times in a row", self.condition));
                }
                Err(why) => {
                    in_a_row = 0;
                    context.progress.set(format!("{why}, {tries} {plural}"));
                }
            }
            sleep(self.interval).await;
        }
    }
}

fn mean_condition(typed: WaitTyped, scope: &mut Scope<'_>) -> Option<Condition> {
    let flat = typed.flat;
    if let Some(text) = typed.tcp {
        return match split_host_port(text.strip_prefix("tcp://").unwrap_or(&text)) {
            Ok((host, Some(port))) => Some(Condition::Tcp(host, port)),
            Ok((_, None)) => {
                scope.problem("tcp", format!("`{text}` has no port"), Some("write \"host:port\"".into()));
                None
            }
            Err(why) => {
                scope.problem("tcp", why, Some("write \"host:port\"".into()));
                None
            }
        };
    }
    if let Some(http) = typed.http {
        // Either place is empty: the tables are the file's, the flat options the command line's.
        let request = if flat.metric.request == Options::default() { http.request } else { flat.metric.request };
        let status = if flat.status.is_empty() { http.status } else { flat.status };
        let json = http.json.map(|json| (json.pointer, json.want));
        let json = json.or_else(|| flat.metric.pointer.map(|pointer| (pointer, flat.metric.want)));
        let mut request = Request::mean("http", &http.url, request, scope)?;
        request.keep = Statuses(status.clone());
        let status = if status.is_empty() { vec![Status(200, 299)] } else { status };
        let json = json.map(|(pointer, want)| (pointer, want.mean()));
        return Some(Condition::Http(Box::new(request), Statuses(status), json));
    }
    if let Some(path) = typed.unix {
        return Some(Condition::Unix(path));
    }
    if let Some(path) = typed.file {
        return match (typed.contains, typed.absent.is_some_and(|flag| flag.0)) {
            (None, false) => Some(Condition::FilePresent(path)),
            (None, true) => Some(Condition::FileAbsent(path)),
            (Some(text), false) => Some(Condition::FileContains(path, text)),
            (Some(_), true) => {
                scope.problem("absent", "a file that is absent contains nothing", None);
                None
            }
        };
    }
    if let Some(Scalar(text)) = typed.process_gone {
        return Some(Condition::ProcessGone(if text.starts_with('/') {
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
        return match split_host_port(&name) {
            Ok((host, None)) => Some(Condition::Dns(
                host,
                typed.count.map_or(1, |count| usize::try_from(count.0).unwrap_or(usize::MAX)),
            )),
            Ok(_) => {
                scope.problem("dns", "a name has no port", None);
                None
            }
            Err(why) => {
                scope.problem("dns", why, None);
                None
            }
        };
    }
    if let Some(metric) = typed.metric {
        return Some(Condition::Metric(Box::new(Metric::mean(metric.complete(flat.metric), scope)?)));
    }
    None
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Condition::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Condition::Tcp(host, port) => write!(f, "{host}:{port}"),
            Condition::Http(request, ..) => write!(f, "{}", request.url),
            Condition::Unix(path)
            | Condition::FilePresent(path)
            | Condition::FileContains(path, _)
            | Condition::FileAbsent(path)
            | Condition::ProcessGone(Target::PidFile(path)) => write!(f, "{}", path.display()),
            Condition::ProcessGone(Target::Pid(pid)) => write!(f, "process {pid}"),
            Condition::ProcessGone(Target::Name(name)) => write!(f, "process {name}"),
            Condition::Dns(name, _) => f.write_str(name),
            Condition::Metric(metric) => f.write_str(metric.name()),
        }
    }
}

impl Condition {
    /// Tries once; `Err` says why it does not hold.
    async fn hold(&self, context: &Context, progress: &Progress) -> Result<(), String> {
        let at = |why: String| format!("{self}: {why}");
        match self {
            Condition::Tcp(host, port) => connect_tcp(host, *port, &context.processes).await.map(drop).map_err(at),
            Condition::Unix(path) => connect_unix(path).await.map(drop).map_err(at),
            Condition::Http(request, statuses, json) => {
                let answer = request.send(&context.processes, progress).await.map_err(|failure| failure.reason)?;
                if !statuses.contain(answer.status) {
                    return Err(at(answer.show()));
                }
                let Some((pointer, want)) = json else { return Ok(()) };
                let value = read_json(&answer.body).map_err(at)?;
                let found = find_json(&value, pointer).ok_or_else(|| at(format!("it has no value at {pointer}")))?;
                want.check_json(found).map_err(|why| at(format!("{pointer} {why}")))
            }
            Condition::Dns(name, count) => {
                let addresses = resolve(name, &context.processes).await?;
                match addresses.len() {
                    found if found >= *count => Ok(()),
                    found => Err(at(format!("{found} addresses, wanted {count}"))),
                }
            }
            Condition::Metric(metric) => match metric.check(&context.processes, progress).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(why)) => Err(why),
                Err(failure) => Err(failure.reason),
            },
            // Disks and /proc can hang too; the thread that hangs on them does not hold the hook.
            Condition::FilePresent(path) => {
                let path = path.clone();
                blocking(move || path.metadata().map(drop).map_err(|error| files::reason(&error))).await.map_err(at)
            }
            Condition::FileAbsent(path) => {
                let path = path.clone();
                blocking(move || match path.symlink_metadata() {
                    Ok(_) => Err("it is still there".into()),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                    Err(error) => Err(files::reason(&error)),
                })
                .await
                .map_err(at)
            }
            Condition::FileContains(path, text) => {
                let (path, text) = (path.clone(), text.clone());
                blocking(move || file_contains(&path, &text)).await
            }
            Condition::ProcessGone(target) => {
                let target = target.clone();
                blocking(move || gone(&target)).await
            }
        }
    }
}

async fn blocking(work: impl FnOnce() -> Result<(), String> + Send + 'static) -> Result<(), String> {
    task::blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))
}

fn file_contains(path: &std::path::Path, text: &str) -> Result<(), String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let read = files::open(path)?.take(MOST_SEARCHED).read_to_end(&mut bytes);
    read.map_err(|error| format!("{}: {}", path.display(), files::reason(&error)))?;
    if text.is_empty() || bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
        return Ok(());
    }
    Err(format!("{}: it does not contain the text yet", path.display()))
}

fn gone(target: &Target) -> Result<(), String> {
    match target {
        Target::Pid(pid) if is_alive(*pid) => Err(format!("process {pid} is still there")),
        Target::Pid(_) => Ok(()),
        Target::PidFile(path) => {
            if !path.exists() {
                return Ok(());
            }
            let text = files::read_line(path)?;
            match text.trim().parse::<u32>() {
                Ok(pid) if is_alive(pid) => Err(format!("{}: process {pid} is still there", path.display())),
                Ok(_) => Ok(()),
                Err(_) => Err(format!("{}: it holds no process id", path.display())),
            }
        }
        Target::Name(name) => {
            let folder = std::fs::read_dir("/proc").map_err(|error| format!("/proc: {}", files::reason(&error)))?;
            let own = std::process::id();
            let found = folder
                .flatten()
                .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
                .find(|pid| *pid != own && is_named(*pid, name) && is_alive(*pid));
            found.map_or(Ok(()), |pid| Err(format!("process {name} is still there (pid {pid})")))
        }
    }
}

/// Whether a process runs; one that has ended and only waits to be reaped does not.
fn is_alive(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The name in parentheses may itself hold parentheses (proc(5)).
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, Some('Z' | 'X'))
}

/// Whether a process goes by this name: as the kernel has it (cut to 15 bytes), or as the file that it was started as.
fn is_named(pid: u32, name: &str) -> bool {
    let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    if read("comm").trim_ascii_end() == name.as_bytes() {
        return true;
    }
    let line = read("cmdline");
    let started = line.split(|byte| *byte == 0).next().unwrap_or_default();
    let base = started.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    base == name.as_bytes() || started == name.as_bytes()
}
