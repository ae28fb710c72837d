//! One rolling restart: two ready pods under load, the old one is deleted, routing learns of it late.

use std::{
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    clients::{Router, Tally, Traffic},
    kubelet::{self, Container, Diary, Event, PreStop},
    pod::{Isolation, Pod},
};

/// `terminationGracePeriodSeconds`, at its default.
const GRACE: Duration = Duration::from_secs(30);
/// Load before the deletion: long enough that slow answers are in flight everywhere.
const LOAD_BEFORE: Duration = Duration::from_secs(3);
/// Load after the old pod is gone and forgotten.
const LOAD_AFTER: Duration = Duration::from_secs(1);
/// A machine that is busy with something else may start a process later than the kubelet's 10 ms.
const START_ATTEMPTS: u32 = 5;

/// What is done about the stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Practice {
    NoHook,
    Sleep,
    Boathook,
}

impl Practice {
    pub fn name(self) -> &'static str {
        match self {
            Self::NoHook => "no hook",
            Self::Sleep => "sleep 5",
            Self::Boathook => "boathook",
        }
    }

    fn pre_stop(self) -> PreStop {
        match self {
            Self::NoHook => PreStop::None,
            Self::Sleep => PreStop::Sleep(Duration::from_secs(5)),
            Self::Boathook => PreStop::Http,
        }
    }
}

/// What a rolling restart cost.
pub struct Row {
    pub practice: Practice,
    pub tally: Tally,
    pub deleted: Instant,
    pub gone: Instant,
    pub events: Vec<Event>,
}

/// What boathook is told.
pub fn configuration(app_port: u16, hook_port: u16) -> String {
    format!(
        r#"grace-period = "30s"             # = terminationGracePeriodSeconds
stop-reserve = "5s"              # kept for the web server after its SIGTERM

[server]
listen = "127.0.0.1:{hook_port}"
token-env = "BOATHOOK_TOKEN"     # the kubelet sends it with the hook's httpHeaders

[app]
ports = [{app_port}]

[[post-start.step]]
name = "app answers"
wait = {{ http = "http://127.0.0.1:{app_port}/healthz" }}
timeout = "10s"

[[pre-stop.step]]
drain = {{ settle = "3s" }}        # and then until nobody new comes and all are answered
timeout = "22s"
"#
    )
}

/// Runs one rolling restart from the first start to the last answer.
///
/// # Errors
/// Anything that keeps it from being one: a container that does not start or get ready, clients that do not end.
pub async fn run(practice: Practice, boathook: &Path, isolation: Isolation, delay: Duration) -> Result<Row, String> {
    let folder = Folder::create()?;
    let token = random_token()?;
    let diary = Diary::default();
    let mut containers = Vec::new();
    for number in 0..2 {
        let pod = Pod::create(isolation, number)?;
        // Two agents in one network and PID namespace would take each other for themselves (their lock is an abstract
        // socket), so where pods share those the new pod, which is not stopped, does without.
        let is_alone = number == 0 || isolation == Isolation::OwnNetwork;
        let practice = if is_alone { practice } else { Practice::NoHook };
        // Only the old pod's story is told.
        let diary = if number == 0 { diary.clone() } else { Diary::default() };
        let mut attempt = 1;
        let container: Container<Pod> = loop {
            let command = container_command(practice, boathook, &folder, &pod, &token)?;
            match kubelet::start(pod.clone(), command, &practice.pre_stop(), &token, diary.clone()).await {
                Ok(container) => break container,
                // The kubelet kills and restarts a container whose post-start hook fails.
                Err(why) if attempt < START_ATTEMPTS => println!("container restarted: {}", why.trim_end()),
                Err(why) => return Err(why),
            }
            attempt += 1;
        };
        containers.push((pod, container));
    }
    let [(old_pod, old), (new_pod, new)] =
        <[_; 2]>::try_from(containers).map_err(|_| "two containers were to start".to_string())?;

    let router = Router::new(old_pod, new_pod);
    let traffic = Traffic::start(&router);
    sleep(LOAD_BEFORE).await;

    let deleted = Instant::now();
    let routing = tokio::spawn({
        let router = router.clone();
        let diary = diary.clone();
        async move {
            sleep_until(deleted + delay).await;
            router.forget_old();
            diary.note("router", "new connections reach the new pod only");
        }
    });
    let gone = old.stop(&practice.pre_stop(), GRACE).await?;
    routing.await.map_err(|error| format!("router: {error}"))?;
    sleep(LOAD_AFTER).await;
    traffic.finish().await?;
    drop(new);

    let tally = router.tally();
    let mut events: Vec<Event> = diary.events().into_iter().filter(|event| event.at >= deleted).collect();
    let seen = [
        (tally.last_new_connection, "last new connection to the old pod"),
        (tally.last_answer, "last answer from the old pod"),
    ];
    for (at, what) in seen {
        events.extend(at.map(|at| Event { at, who: "clients", what: what.into() }));
    }
    events.sort_by_key(|event| event.at);
    Ok(Row { practice, tally, deleted, gone, events })
}

fn container_command(
    practice: Practice,
    boathook: &Path,
    folder: &Folder,
    pod: &Pod,
    token: &str,
) -> Result<Command, String> {
    let own = std::env::current_exe().map_err(|error| format!("the demo's own program: {error}"))?;
    let mut command = if practice == Practice::Boathook {
        let file = folder.0.join(format!("boathook-{}.toml", pod.hook_port));
        std::fs::write(&file, configuration(pod.app_port, pod.hook_port))
            .map_err(|error| format!("{}: {error}", file.display()))?;
        let mut command = Command::new(boathook);
        command.arg("run").arg("--").arg(own);
        command.env("BOATHOOK_CONFIG", file);
        command.env("BOATHOOK_TOKEN", token);
        command
    } else {
        Command::new(own)
    };
    command.args(["server", "--port", &pod.app_port.to_string()]);
    // The server ends with its standard input, so it never outlives the demo.
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

/// A folder of its own for the configuration, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn create() -> Result<Self, String> {
        let path = std::env::temp_dir().join(format!("boathook-demo-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What the kubelet shows to the hooks, in hexadecimal.
///
/// # Errors
/// The kernel gives no random numbers.
pub fn random_token() -> Result<String, String> {
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| format!("/dev/urandom: {error}"))?;
    Ok(bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}")))
}
