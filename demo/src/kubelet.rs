//! Starts and stops a container as the kubelet does (`pkg/kubelet/kuberuntime/kuberuntime_container.go`,
//! `pkg/kubelet/lifecycle/handlers.go` of Kubernetes 1.36): the post-start hook about 10 ms after the process, readiness
//! probes each second, and for the end the pre-stop hook, then the stop signal, then the kill when grace is over.

use std::{
    io::{self, BufRead, BufReader, Read},
    process::{Child, Command},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use tokio::{
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use crate::http::{Connection, Fault};

/// What the diary says of a container that had to be killed.
pub const SIGKILL_SENT: &str = "SIGKILL: grace is over";
/// The kubelet never kills earlier than this after the stop signal.
const LEAST_GRACE: Duration = Duration::from_secs(2);
/// Measured on a node: the post-start hook's request comes this long after the process.
const POST_START_AFTER: Duration = Duration::from_millis(10);
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// Probes at start-up: only so that the demo begins without delay.
const FIRST_PROBES_EVERY: Duration = Duration::from_millis(100);
/// A JVM on a busy machine needs most of it.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How often an ended process is looked for.
const WATCH_EVERY: Duration = Duration::from_millis(5);

/// Where a container runs, and how the kubelet reaches it.
pub trait Place: Clone + Send + Sync + 'static {
    /// Starts the container's main process; it is running its program when this returns.
    fn start(&self, command: Command) -> impl Future<Output = io::Result<Child>> + Send;
    /// Runs a command beside the main process with this id.
    fn exec(&self, main: u32, command: Command) -> impl Future<Output = io::Result<Child>> + Send;
    /// A new connection to a port of the pod.
    fn connect(&self, port: u16) -> impl Future<Output = io::Result<TcpStream>> + Send;
    /// What the kubelet writes into `Host`.
    fn host(&self) -> String;
    fn app_port(&self) -> u16;
    fn hook_port(&self) -> u16;
}

/// The pod's `preStop`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PreStop {
    None,
    /// `exec: ["sleep", …]`: for the kubelet a command that takes this long.
    Sleep(Duration),
    /// `exec`: a command in the container. It ends with the container, and has no timeout but the grace period.
    Exec(Vec<String>),
    /// `httpGet` on boathook's port.
    Http,
}

/// One line of what happened.
#[derive(Clone, Debug)]
pub struct Event {
    pub at: Instant,
    pub who: &'static str,
    pub what: String,
}

/// What happened so far, written by everybody who has something to tell.
#[derive(Clone, Default)]
pub struct Diary(Arc<Mutex<Vec<Event>>>);

impl Diary {
    pub fn note(&self, who: &'static str, what: impl Into<String>) {
        let event = Event { at: Instant::now(), who, what: what.into() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    pub fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A running container.
pub struct Container<P: Place> {
    pod: P,
    process: Child,
    /// Both hooks go over this connection.
    hooks: Option<Connection>,
    probes: JoinHandle<()>,
    token: String,
    diary: Diary,
}

impl<P: Place> Drop for Container<P> {
    fn drop(&mut self) {
        self.probes.abort();
        let _ = self.process.kill();
        let _ = self.process.wait();
        // The web server under boathook sees the end of its standard input, which the demo held open.
        drop(self.process.stdin.take());
    }
}

/// Starts a container and returns when its readiness probe succeeds.
///
/// # Errors
/// The process could not start, post-start failed, or it did not get ready.
pub async fn start<P: Place>(
    pod: P,
    command: Command,
    pre_stop: &PreStop,
    token: &str,
    diary: Diary,
) -> Result<Container<P>, String> {
    let mut process = pod.start(command).await.map_err(|error| format!("container: {error}"))?;
    let output = process.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>);
    let errors = process.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>);
    for pipe in [output, errors].into_iter().flatten() {
        copy_log(pipe, diary.clone());
    }
    let (port, path) = match pre_stop {
        PreStop::Http => (pod.hook_port(), "/ready"),
        PreStop::None | PreStop::Sleep(_) | PreStop::Exec(_) => (pod.app_port(), "/healthz"),
    };
    let mut container = Container {
        probes: tokio::spawn(async {}),
        hooks: None,
        token: token.into(),
        pod: pod.clone(),
        process,
        diary: diary.clone(),
    };
    if *pre_stop == PreStop::Http {
        sleep(POST_START_AFTER).await;
        container.post_start().await?;
    }
    let deadline = Instant::now() + READY_WITHIN;
    while probe(&pod, port, path).await != Ok(200) {
        if Instant::now() > deadline {
            return Err(format!("not ready within {} s; its log:\n{}", READY_WITHIN.as_secs(), log_text(&diary)));
        }
        sleep(FIRST_PROBES_EVERY).await;
    }
    container.probes = tokio::spawn(keep_probing(pod, port, path, diary));
    Ok(container)
}

impl<P: Place> Container<P> {
    async fn post_start(&mut self) -> Result<(), String> {
        let fail = |why: String, diary: &Diary| Err(format!("post-start hook: {why}; its log:\n{}", log_text(diary)));
        // Refused connections are not retried: the kubelet would kill the container.
        let mut hooks = match self.pod.connect(self.pod.hook_port()).await {
            Ok(stream) => Connection::new(stream),
            Err(error) => return fail(error.to_string(), &self.diary),
        };
        if let Err(fault) = hooks.exchange(&self.hook_request("/started")).await {
            return fail(format!("{fault:?}"), &self.diary);
        }
        self.hooks = Some(hooks);
        Ok(())
    }

    /// Byte for byte what the kubelet sends (1.36.2), with the token from the hook's `httpHeaders`. It does not look at
    /// the answer's status.
    fn hook_request(&self, path: &str) -> String {
        format!(
            "GET {path} HTTP/1.1\r\nHost: {}:{}\r\nUser-Agent: kube-lifecycle/1.36\r\nAccept: */*\r\n\
             Authorization: Bearer {}\r\nAccept-Encoding: gzip\r\n\r\n",
            self.pod.host(),
            self.pod.hook_port(),
            self.token
        )
    }

    /// Deletes the pod with `grace` as its `terminationGracePeriodSeconds`: returns when the container is gone.
    ///
    /// # Errors
    /// The process could not be signalled or waited for.
    pub async fn stop(mut self, pre_stop: &PreStop, grace: Duration) -> Result<Instant, String> {
        let end_of_grace = Instant::now() + grace;
        match pre_stop {
            PreStop::None => {}
            PreStop::Sleep(time) => sleep((*time).min(grace)).await,
            PreStop::Exec(words) => {
                if let Some(gone) = self.exec(words, end_of_grace).await? {
                    return Ok(gone);
                }
            }
            PreStop::Http => self.pre_stop(end_of_grace).await,
        }
        self.signal(libc::SIGTERM)?;
        self.diary.note("kubelet", "SIGTERM");
        let kill_at = end_of_grace.max(Instant::now() + LEAST_GRACE);
        let Ok(ended) = timeout_at(kill_at, self.ended()).await else {
            self.signal(libc::SIGKILL)?;
            self.diary.note("kubelet", SIGKILL_SENT);
            return self.ended().await;
        };
        ended
    }

    /// Runs a pre-stop command, and returns when the container is gone, if it went during the command.
    async fn exec(&mut self, words: &[String], end_of_grace: Instant) -> Result<Option<Instant>, String> {
        let [program, arguments @ ..] = words else { return Err("pre-stop: an empty command".into()) };
        let mut command = Command::new(program);
        command.args(arguments);
        self.diary.note("kubelet", format!("pod deleted: {}", words.join(" ")));
        let mut hook = match self.pod.exec(self.process.id(), command).await {
            Ok(hook) => hook,
            Err(error) => {
                self.diary.note("kubelet", format!("pre-stop hook failed: {error}"));
                return Ok(None);
            }
        };
        let gone = loop {
            if let Ok(Some(status)) = hook.try_wait() {
                self.diary.note("kubelet", format!("pre-stop hook ended ({status})"));
                break None;
            }
            if let Ok(ended) = timeout(WATCH_EVERY, self.ended()).await {
                break Some(ended?);
            }
            if Instant::now() > end_of_grace {
                self.diary.note("kubelet", "pre-stop hook did not end within the grace period");
                break None;
            }
        };
        if gone.is_some() {
            let _ = hook.kill();
            let _ = hook.wait();
        }
        Ok(gone)
    }

    /// The pre-stop hook: on post-start's connection, on a new one if that is gone.
    async fn pre_stop(&mut self, end_of_grace: Instant) {
        let request = self.hook_request("/shutdown");
        self.diary.note("kubelet", "pod deleted: GET /shutdown");
        let answer = timeout_at(end_of_grace, async {
            if let Some(hooks) = &mut self.hooks {
                match hooks.exchange(&request).await {
                    // Go's client sends it once more.
                    Err(Fault::Unanswered) => {}
                    other => return other,
                }
            }
            let stream = self.pod.connect(self.pod.hook_port()).await.map_err(|_| Fault::Refused)?;
            Connection::new(stream).exchange(&request).await
        });
        match answer.await {
            Ok(Ok(status)) => self.diary.note("kubelet", format!("pre-stop hook answered: {status}")),
            Ok(Err(fault)) => self.diary.note("kubelet", format!("pre-stop hook failed: {fault:?}")),
            Err(_) => self.diary.note("kubelet", "pre-stop hook did not answer within the grace period"),
        }
    }

    fn signal(&self, signal: libc::c_int) -> Result<(), String> {
        let Ok(process) = libc::pid_t::try_from(self.process.id()) else {
            return Err("a process id that is no pid_t".into());
        };
        // SAFETY: kill takes no pointers; the process is our child and not yet waited for, so the id is its own.
        match unsafe { libc::kill(process, signal) } {
            0 => Ok(()),
            _ => Err(format!("signal {signal}: {}", io::Error::last_os_error())),
        }
    }

    async fn ended(&mut self) -> Result<Instant, String> {
        loop {
            match self.process.try_wait() {
                Ok(Some(status)) => {
                    self.diary.note("kubelet", format!("container is gone ({status})"));
                    return Ok(Instant::now());
                }
                Ok(None) => sleep(WATCH_EVERY).await,
                Err(error) => return Err(format!("container: {error}")),
            }
        }
    }
}

/// As the kubelet's prober: a connection of its own for each probe.
async fn probe(pod: &impl Place, port: u16, path: &str) -> Result<u16, Fault> {
    let stream = pod.connect(port).await.map_err(|_| Fault::Refused)?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {}:{port}\r\nUser-Agent: kube-probe/1.36\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n",
        pod.host()
    );
    // `timeoutSeconds` of a probe is 1 by default.
    timeout(Duration::from_secs(1), Connection::new(stream).exchange(&request)).await.unwrap_or(Err(Fault::Other))
}

/// Notes each change of readiness. Probes go on while the container is being stopped.
async fn keep_probing(pod: impl Place, port: u16, path: &'static str, diary: Diary) {
    let mut before = Ok(200);
    let mut next = Instant::now();
    loop {
        next += PROBE_EVERY;
        sleep_until(next).await;
        let now = probe(&pod, port, path).await;
        if now != before {
            match now {
                Ok(status) => diary.note("kubelet", format!("readiness probe: {status}")),
                Err(fault) => diary.note("kubelet", format!("readiness probe: {fault:?}")),
            }
        }
        before = now;
    }
}

/// The container's log, line by line into the diary. A thread, as pipes of processes can only be read blocking here; it
/// ends when the last writer does.
fn copy_log(pipe: Box<dyn Read + Send>, diary: Diary) {
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            diary.note("boathook", without_time(&line));
        }
    });
}

/// The diary has its own clock, so the time that a log line begins with is left out.
fn without_time(line: &str) -> &str {
    match line.split_once(' ') {
        Some((first, rest)) if first.ends_with('Z') && first.contains('T') => rest.trim_start(),
        _ => line,
    }
}

fn log_text(diary: &Diary) -> String {
    diary.events().into_iter().fold(String::new(), |all, event| format!("{all}    {}: {}\n", event.who, event.what))
}
