//! The cookbook's entries: their form, which is the same for all, and what is needed to run one as in its pod.
//!
//! A test binary that uses this has `mod preset_support; mod server_support; mod support;` beside it.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use boathook::process::find;

use crate::{
    preset_support::{TOKEN, isolated, start_backend},
    server_support::{is_root, needs, not_run},
    support::{Agent, BOATHOOK, Place, Said, kubelet::Answer, send, shell_code, until},
};

/// A page is one screen on a large display, two on a small one.
const MOST_LINES: usize = 90;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/cookbook").join(name)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files of a folder with this ending.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut found: Vec<PathBuf> = paths.filter(|path| path.extension() == Some(OsStr::new(ending))).collect();
    found.sort();
    found
}

/// The fenced blocks of a page in this language.
fn blocks<'t>(page: &'t str, language: &str) -> Vec<&'t str> {
    let fence = format!("```{language}\n");
    let inner = page.split(fence.as_str()).skip(1);
    inner.map(|rest| rest.split("```").next().unwrap_or_default()).collect()
}

/// The entry has its three parts, each configuration is good, the page shows what stands in them, the manifest grants the time
/// that they count on, and the cookbook's table names it.
#[track_caller]
pub fn assert_form(name: &str) {
    assert_form_with(name, |place, config| (place, config.to_owned()));
}

/// The same for a configuration that needs more to be checked than the token: `prepare` has the place that it is checked in, and
/// its text, where files of the container can be replaced by the place's.
#[track_caller]
pub fn assert_form_with(name: &str, prepare: impl Fn(Place, &str) -> (Place, String)) {
    let folder = folder(name);
    let page = read(&folder.join("README.md"));
    let parts: Vec<&str> = page.lines().filter(|line| line.starts_with("## ")).collect();
    assert_eq!(parts, ["## Before", "## After", "## What is better"], "{name}/README.md");
    assert!(page.lines().count() <= MOST_LINES, "{name}/README.md: {} lines", page.lines().count());
    let before = page.split("## Before").nth(1).and_then(|rest| rest.split("## After").next()).unwrap_or_default();
    assert!(before.contains("```"), "{name}/README.md: the old hook is not shown");
    let better = page.split("## What is better").nth(1).unwrap_or_default();
    let points = better.lines().filter(|line| line.starts_with("- ")).count();
    assert!((3..=6).contains(&points), "{name}/README.md: {points} points");
    let index = read(&folder.with_file_name("README.md"));
    assert!(index.contains(&format!("| [`{name}`]({name}/README.md) | ")), "the table does not name {name}");

    let configs = files(&folder, "toml");
    assert!(configs.contains(&folder.join("boathook.toml")), "{name}");
    let texts: Vec<String> = configs.iter().map(|path| read(path)).collect();
    let shown = blocks(&page, "toml");
    assert!(!shown.is_empty(), "{name}/README.md shows no configuration");
    for block in shown {
        assert!(texts.iter().any(|text| text.contains(block)), "{name}/README.md shows what no file has:\n{block}");
    }
    for (path, text) in configs.iter().zip(&texts) {
        let place = Place::bare().env("BOATHOOK_TOKEN", TOKEN).env("HOST_IP", "192.0.2.10");
        let (place, text) = prepare(place, text);
        place.write("checked.toml", &text);
        let said = place.boathook(&["check", "--config", "@/checked.toml"]);
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{}: {}", path.display(), said.stdout);
    }

    let manifests: Vec<PathBuf> =
        files(&folder, "yaml").into_iter().filter(|path| !path.ends_with("kustomization.yaml")).collect();
    for path in &manifests {
        let manifest = read(path);
        let granted = number_after(&manifest, "terminationGracePeriodSeconds: ");
        let wanted = number_after(&texts[0], "grace-period = \"");
        assert!(granted.is_some() && granted == wanted, "{}: {granted:?} for {wanted:?}", path.display());
    }
}

/// The seconds: 45 in `grace-period = "45s"`, 180 in `"3m"`.
fn number_after(text: &str, key: &str) -> Option<u64> {
    let rest = text.split(key).nth(1)?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let unit = match rest[digits..].chars().next() {
        Some('h') => 3600,
        Some('m') => 60,
        _ => 1,
    };
    rest[..digits].parse::<u64>().ok().map(|number| number * unit)
}

/// An entry's configuration, to be run.
pub struct Entry {
    name: &'static str,
    config: String,
}

impl Entry {
    pub fn of(name: &'static str) -> Self {
        Self::file(name, "boathook.toml")
    }

    /// Another of its configurations.
    pub fn file(name: &'static str, file: &str) -> Self {
        Self { name, config: read(&folder(name).join(file)) }
    }

    /// With another path or a shorter time in it; what is replaced has to be there.
    #[track_caller]
    pub fn with(mut self, from: &str, to: &str) -> Self {
        assert!(self.config.contains(from), "{}: no {from:?} in\n{}", self.name, self.config);
        self.config = self.config.replace(from, to);
        self
    }

    /// A place with this configuration and what the manifest gives in the environment.
    pub fn place(&self) -> Place {
        self.configure(Place::bare())
    }

    /// The same in a place that there is.
    pub fn configure(&self, place: Place) -> Place {
        place.configured(&self.config).env("BOATHOOK_TOKEN", TOKEN).env("HOST_IP", "127.0.0.1")
    }
}

/// Runs `work` as in a pod: with a network of its own, so that ports are those of the manifest. None where that is not
/// permitted, which is told.
pub fn in_pod<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    if !is_root() {
        not_run("only root may make network namespaces");
        return None;
    }
    Some(isolated(work))
}

/// A process beside the one under test; it ends with this, or by a signal.
pub struct Beside(Child);

impl Beside {
    /// Starts it in the place; what it says is in the file `log` there.
    #[track_caller]
    pub fn start(place: &Place, log: &str, words: &[&str]) -> Self {
        let mut command = Command::new(place.expand(words[0]));
        command.args(words[1..].iter().map(|word| place.expand(word)));
        place.dress(&mut command);
        let file = fs::File::create(place.path(log)).expect("a file");
        let second = file.try_clone().expect("twice");
        Self(command.stdout(file).stderr(second).spawn().unwrap_or_else(|error| panic!("{words:?}: {error}")))
    }

    pub fn signal(&self, signal: i32) {
        send(self.0.id().cast_signed(), signal);
    }

    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("ours to wait for").is_some()
    }

    /// Waits for its end; gives the exit code.
    #[track_caller]
    pub fn end(&mut self) -> i32 {
        until("its end", || self.0.try_wait().expect("ours to wait for").map(shell_code))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command to its end, which has to be good; gives what it said.
#[track_caller]
pub fn run(place: &Place, words: &[&str]) -> String {
    let mut command = Command::new(place.expand(words[0]));
    command.args(words[1..].iter().map(|word| place.expand(word)));
    place.dress(&mut command);
    let said = place.finish(command);
    assert_eq!(said.code, 0, "{words:?}: {said:?}");
    said.stdout.trim().to_owned()
}

/// A stop as the kubelet does it: `/shutdown`, and TERM when that is answered.
pub struct Stopped {
    pub hook: Answer,
    /// How long the hook took.
    pub took: Duration,
    /// As a shell shows it.
    pub code: i32,
    pub log: String,
}

/// Stops an agent of `boathook run` so.
#[track_caller]
pub fn stop(agent: &mut Agent) -> Stopped {
    let mut kubelet = agent.kubelet().with_token(TOKEN);
    let begun = Instant::now();
    let hook = kubelet.call("/shutdown").unwrap_or_else(|error| panic!("{error:?}: {}", agent.log()));
    let took = begun.elapsed();
    if agent.ended().is_none() {
        agent.signal(libc::SIGTERM);
    }
    let code = agent.end();
    Stopped { hook, took, code, log: agent.log() }
}

/// A server on this port of loopback that sends back what it is sent. It ends with the test.
pub fn start_echo(port: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("a port");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let Ok(mut back) = stream.try_clone() else { return };
                let _ = std::io::copy(&mut &stream, &mut back);
            });
        }
    });
}

/// Until somebody accepts connections there.
#[track_caller]
pub fn until_accepts(port: u16) {
    until(&format!("port {port}"), || TcpStream::connect(("127.0.0.1", port)).ok());
}

/// What comes back for a text, up to the end of a line.
pub fn ask(stream: &mut TcpStream, text: &str) -> String {
    let mut line = String::new();
    if stream.write_all(text.as_bytes()).is_ok() {
        // What ends instead of answering has said nothing.
        let _ = BufReader::new(stream).read_line(&mut line);
    }
    line.trim_end().to_owned()
}

/// Everybody may write there: servers that are started by root become somebody else.
pub fn open(folder: &Path) {
    fs::set_permissions(folder, PermissionsExt::from_mode(0o777)).expect("opened");
}

/// A container whose entrypoint is not boathook: the main process is pid 1 of its own PID namespace, and exec hooks come from
/// outside, as the kubelet's do.
pub struct Container {
    pub place: Place,
    unshare: Child,
    /// Its main process, as it is seen from outside.
    pub pid: i32,
}

impl Container {
    /// Starts the main process; its output is `main.log` in the place.
    #[track_caller]
    pub fn start(place: Place, words: &[&str]) -> Self {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
        command.args(words.iter().map(|word| place.expand(word)));
        place.dress(&mut command);
        let log = fs::File::create(place.path("main.log")).expect("a file");
        command.stdout(log.try_clone().expect("twice")).stderr(log).stdin(Stdio::null());
        let unshare = command.spawn().expect("unshare");
        let parent = unshare.id().cast_signed();
        // It is the child of `unshare`, and is the program itself once it has been executed.
        let pid = until("the container's main process", || {
            find::processes().find(|pid| {
                find::read_stat(*pid).is_some_and(|stat| stat.parent == parent)
                    && fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|path| !path.ends_with("unshare"))
            })
        });
        Self { place, unshare, pid }
    }

    /// An exec hook, or `kubectl exec`: the binary with these words inside.
    #[track_caller]
    pub fn exec(&self, words: &[&str]) -> Said {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid.to_string(), "--pid", "--mount", "--", BOATHOOK]);
        command.args(words.iter().map(|word| self.place.expand(word)));
        self.place.dress(&mut command);
        self.place.finish(command)
    }

    pub fn signal(&self, signal: i32) {
        send(self.pid, signal);
    }

    pub fn has_ended(&mut self) -> bool {
        self.unshare.try_wait().expect("ours to wait for").is_some()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(&mut self) {
        until("the container's end", || self.has_ended().then_some(()));
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if !self.has_ended() {
            send(self.pid, libc::SIGKILL);
            let _ = self.unshare.wait();
        }
    }
}

/// The step's line in the log: `outcome="…" took=… reason="…"`.
#[track_caller]
pub fn step_line<'t>(log: &'t str, step: &str) -> &'t str {
    let named = format!("step=\"{step}\"");
    let line = log.lines().find(|line| line.contains("step ended") && line.contains(&named));
    line.unwrap_or_else(|| panic!("no end of {step} in\n{log}"))
}

/// Bounds for what must not be early: the kernel's timers are never early, but two clocks may differ by this.
pub const CLOCKS: Duration = Duration::from_millis(50);

/// nginx with quick, slow and uploading requests on port 8080, configured in `nginx.conf`; its program.
pub fn nginx_of(place: &Place) -> Option<String> {
    let program = needs("nginx")?;
    start_backend(&place.path("backend"));
    place.write(
        "nginx.conf",
        &place.expand(
            "daemon off; worker_processes 1; pid @/pid; error_log @/errors;
             events {}
             http { access_log off; client_body_temp_path @/1; proxy_temp_path @/2;
                    fastcgi_temp_path @/3; uwsgi_temp_path @/4; scgi_temp_path @/5;
                    server { listen 8080;
                      location / { return 200 'quick\\n'; }
                      location /up { proxy_pass http://unix:@/backend; proxy_request_buffering off; }
                      location /slow { proxy_pass http://unix:@/backend; } } }",
        ),
    );
    Some(program)
}

/// Runs pods side by side: each waits more than it works.
pub fn together(pods: &[fn()]) {
    let begun: Vec<_> = pods.iter().map(|pod| thread::spawn(*pod)).collect();
    // All of them, so that each failure is shown.
    let ended: Vec<_> = begun.into_iter().map(thread::JoinHandle::join).collect();
    for end in ended {
        end.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}
