//! One cell: three ready replicas under load, rolled one after the other, as a Deployment with maxUnavailable = 1 and
//! maxSurge = 0 does whose replicas take their time.

use std::{
    fmt::{self, Write as _},
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use demo::{
    kubelet::{self, Container, Diary, PreStop, SIGKILL_SENT},
    rollout::random_token,
};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    load::{Load, Mishap, Seen},
    network::{self, Pod},
    policy::{GRACE, Policy},
    results::Row,
    router::{self, Mode, Router},
    server::{Place, Server},
    tally::Ended,
};

pub const REPLICAS: usize = 3;
/// Load before the first deletion: all kinds of requests are under way, and the replicas have some hundred arrivals each.
const LOAD_BEFORE: Duration = Duration::from_secs(6);
/// Between two replicas: as long as the longest request, so that one replica's failures are not counted at the next.
const LOAD_BETWEEN: Duration = Duration::from_secs(3);
const LOAD_AFTER: Duration = Duration::from_secs(3);
/// A machine that is busy with something else may start a process later than the kubelet's 10 ms, several times in a row.
const START_ATTEMPTS: u32 = 20;

/// What is rolled, how, and how late the router learns of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    pub server: String,
    pub mode: Mode,
    pub policy: Policy,
    /// Whole seconds.
    pub delay: Duration,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.server, self.mode.name(), self.policy.name(), self.delay.as_secs())
    }
}

impl Cell {
    /// From the words that it is shown with.
    pub fn parse(words: &[&str; 4]) -> Option<Self> {
        let [server, mode, policy, delay] = words;
        Some(Self {
            server: (*server).into(),
            mode: Mode::ALL.into_iter().find(|known| known.name() == *mode)?,
            policy: Policy::find(policy)?,
            delay: Duration::from_secs(delay.parse().ok()?),
        })
    }
}

/// A pod with what runs in it.
struct Replica {
    pod: Pod,
    container: Container<Pod>,
    pre_stop: PreStop,
    diary: Diary,
    /// Dropped last: killed.
    _upstream: Option<Upstream>,
}

/// The application behind the server.
struct Upstream(std::process::Child);

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What all replicas are made of.
struct Template<'a> {
    cell: &'a Cell,
    server: &'static Server,
    boathook: &'a Path,
    folder: &'a Path,
    token: String,
}

/// Runs the cell in the namespaces of this process. What happened is told in `folder`/log.
///
/// # Errors
/// Anything that keeps it from being a rollout.
pub async fn run(cell: &Cell, boathook: &Path, folder: &Path) -> Result<Row, String> {
    let server = Server::find(&cell.server).ok_or_else(|| format!("no server {}", cell.server))?;
    network::make_node().map_err(|error| format!("network: {error}"))?;
    let template = Template { cell, server, boathook, folder, token: random_token()? };
    let mut replicas = Vec::new();
    for number in 1..=REPLICAS {
        replicas.push(template.start(number).await?);
    }
    let addresses: Vec<_> = replicas.iter().map(|replica| replica.pod.address).collect();
    let router = Router::start(cell.mode, folder, &addresses, port()).await?;
    let load = Load::start(router::ADDRESS, cell.policy.abilities(server));
    let begun = Instant::now();
    sleep(LOAD_BEFORE).await;

    let (mut gone, mut killed, mut story) = (Vec::new(), 0, Vec::new());
    // The replacements wait here: dropped, they would be stopped.
    let mut replacements = Vec::new();
    for (slot, replica) in replicas.into_iter().enumerate() {
        let Replica { pod, container, pre_stop, diary, _upstream } = replica;
        let deleted = Instant::now();
        diary.note("kubelet", format!("replica {} is deleted", slot + 1));
        let removal = async {
            sleep_until(deleted + cell.delay).await;
            router.remove(slot).await?;
            diary.note("router", "removed");
            Ok::<_, String>(())
        };
        let (ended, removed) = tokio::join!(container.stop(&pre_stop, GRACE), removal);
        removed?;
        gone.push(ended? - deleted);
        let replacement = template.start(REPLICAS + slot + 1).await?;
        router.add(slot, replacement.pod.address, port()).await?;
        replacements.push(replacement);
        sleep(LOAD_BETWEEN).await;
        // Its address answers nobody from now on.
        drop(pod);
        let events = diary.events();
        killed += events.iter().filter(|event| event.what == SIGKILL_SENT).count() as u64;
        story.extend(events.into_iter().map(|event| (event.at, format!("{:9}{}", event.who, event.what))));
    }
    sleep(LOAD_AFTER).await;
    let Seen { tally, mishaps, pace } = load.finish().await;
    story.extend(mishaps.iter().map(|mishap| (mishap.at, tell(mishap))));
    story.sort_by_key(|(at, _)| *at);
    let row = Row { cell: cell.clone(), tally, gone, killed };
    let log = story.iter().fold(format!("{}\n", row.to_line()), |mut log, (at, what)| {
        let _ = writeln!(log, "{:9.3}  {what}", at.saturating_duration_since(begun).as_secs_f64());
        log
    });
    fs::write(folder.join("log"), log).map_err(|error| format!("{}: {error}", folder.display()))?;
    pace.check()?;
    Ok(row)
}

fn port() -> u16 {
    network::APP_PORT
}

fn tell(mishap: &Mishap) -> String {
    let waited = (mishap.at - mishap.begun).as_secs_f64();
    let how = match mishap.ended {
        Ended::Failed(class) => class.name(),
        other => &format!("{other:?}"),
    };
    format!("clients  {}: {how} after {waited:.3} s", mishap.what)
}

impl Template<'_> {
    /// Starts the pod's processes and returns when it is ready.
    async fn start(&self, number: usize) -> Result<Replica, String> {
        let folder = self.folder.join(format!("pod{number}"));
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let place = Place { folder: &folder, port: port() };
        place.write_files(self.server).map_err(|error| format!("{}: {error}", folder.display()))?;
        let number = u8::try_from(number).map_err(|error| error.to_string())?;
        let pod = Pod::create(number).await.map_err(|error| format!("pod {number}: {error}"))?;
        let upstream = match self.server.application.address(&folder) {
            None => None,
            Some(address) => Some(self.start_upstream(&pod, &address).await?),
        };
        let pre_stop = self.cell.policy.pre_stop(self.server, &place);
        let pre_stop = pre_stop.ok_or_else(|| format!("{} has no graceful stop but TERM", self.server.name))?;
        let mut attempt = 1;
        let (container, diary) = loop {
            let (command, diary) = (self.command(&place)?, Diary::default());
            match kubelet::start(pod.clone(), command, &pre_stop, &self.token, diary.clone()).await {
                Ok(container) => break (container, diary),
                // The kubelet kills and restarts a container whose post-start hook fails.
                Err(_) if attempt < START_ATTEMPTS => attempt += 1,
                Err(why) => return Err(format!("replica {number}: {why}")),
            }
        };
        Ok(Replica { pod, container, pre_stop, diary, _upstream: upstream })
    }

    async fn start_upstream(&self, pod: &Pod, address: &str) -> Result<Upstream, String> {
        let fail = |error: std::io::Error| format!("upstream: {error}");
        let mut command = Command::new(std::env::current_exe().map_err(fail)?);
        command.args(["upstream", address]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        kubelet::Place::start(pod, command).await.map(Upstream).map_err(fail)
    }

    fn command(&self, place: &Place<'_>) -> Result<Command, String> {
        let words = place.fill_all(self.server.command);
        let [program, arguments @ ..] = &words[..] else { return Err("a server without a command".into()) };
        let mut command = if self.cell.policy.has_boathook() {
            let file: PathBuf = place.folder.join("boathook.toml");
            let text = self.cell.policy.configuration(self.server, place, self.cell.delay);
            fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
            let mut command = Command::new(self.boathook);
            command.arg("run").arg("--").arg(program);
            command.env("BOATHOOK_CONFIG", file);
            command.env("BOATHOOK_TOKEN", &self.token);
            command
        } else {
            Command::new(program)
        };
        command.args(arguments).current_dir(place.folder);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command)
    }
}
