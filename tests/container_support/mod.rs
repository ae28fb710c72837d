//! Containers for tests: images built from the Dockerfile and beside it, and what runs of them, by podman as root. What
//! cannot be tried is named.

// Each test binary uses its own part of this room.
#![allow(dead_code)]

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use crate::life_support::{LONG, is_root, not_run, poll};

/// The image under test: built for whoever comes first, shared, and removed by its last user.
static SHARED: Mutex<Weak<Image>> = Mutex::new(Weak::new());

/// Held while an image gets or loses a name: two tests may build the same one.
static NAMES: Mutex<()> = Mutex::new(());

/// Machines on which the limits of this process are lower than podman's defaults refuse to raise them.
const LIMITS: [&str; 4] = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"];

pub fn podman(words: &[&str]) -> Output {
    Command::new("podman").args(words).stdin(Stdio::null()).output().expect("podman")
}

/// Its stdout, or a panic with all that it said.
pub fn say(words: &[&str]) -> String {
    let output = podman(words);
    assert!(output.status.success(), "podman {words:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The static binary: `make test` names it; without it the one that cargo has built, or builds now.
pub fn static_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("BOATHOOK_DIST") {
        return path.into();
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let path = folder.join("target").join(&target).join("release/boathook");
    if !path.exists() {
        let built = Command::new(env!("CARGO"))
            .args(["build", "--release", "--quiet", "--bin", "boathook", "--target", &target])
            .current_dir(folder)
            .env("CARGO_TARGET_DIR", folder.join("target"))
            .status();
        assert!(built.is_ok_and(|status| status.success()), "the static binary does not build");
    }
    path
}

/// Linux gives a bridge the lowest address among its ports', so that it changes as containers come and go, and those
/// that know the old one cannot answer the host for seconds. Asked for by name it stays.
fn keep_bridge_address() {
    let read = |name: &str| fs::read_to_string(format!("/sys/class/net/podman0/{name}")).unwrap_or_default();
    // NET_ADDR_SET (linux/netdevice.h): somebody has asked already.
    if read("addr_assign_type").trim() != "3" {
        let address = read("address");
        // Where there is no such bridge there is nothing to keep, and another podman may have another one.
        let _ = Command::new("ip").args(["link", "set", "dev", "podman0", "address", address.trim()]).status();
    }
}

/// An image; dropped, it is gone.
pub struct Image {
    pub tag: String,
    runtime: &'static str,
}

impl Image {
    /// The one of the Dockerfile; none where there is no podman that works.
    pub fn build() -> Option<Arc<Self>> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(image) = shared.upgrade() {
            return Some(image);
        }
        let image = Arc::new(Self::build_first()?);
        *shared = Arc::downgrade(&image);
        Some(image)
    }

    fn build_first() -> Option<Self> {
        let version = Command::new("podman").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !version.is_ok_and(|status| status.success()) {
            not_run("a container from the Dockerfile", "there is no podman that works");
            return None;
        }
        if !is_root() {
            not_run("a container from the Dockerfile", "only root's containers have a bridge that the host can call");
            return None;
        }
        let mut image = Self::from_dist(&[]);
        // Whichever of them works here: crun, podman's own choice, needs a newer set of cgroups than some machines
        // have.
        let mut why = String::new();
        for runtime in ["runc", "crun"] {
            image.runtime = runtime;
            let output = image.run(&["--rm"], &["--version"]);
            if output.status.success() {
                assert!(String::from_utf8_lossy(&output.stdout).starts_with("boathook "), "{output:?}");
                return Some(image);
            }
            why.push_str(&String::from_utf8_lossy(&output.stderr));
        }
        not_run("a container from the Dockerfile", &why);
        None
    }

    /// As `make image` builds it, for this machine, in a folder of its own.
    pub fn from_dist(options: &[&str]) -> Self {
        let context = tempfile::tempdir().expect("a folder");
        let (machine, name) = match std::env::consts::ARCH {
            "x86_64" => ("linux/amd64", "linux-amd64"),
            _ => ("linux/arm64", "linux-arm64"),
        };
        let folder = context.path().join("dist").join(name);
        fs::create_dir_all(&folder).expect("a folder");
        fs::copy(static_binary(), folder.join("boathook")).expect("copied");
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("Dockerfile").display().to_string();
        let words = ["--file", &file, "--target", "from-dist", "--platform", machine];
        Self::build_in(context.path(), &[&words, options].concat(), "runc")
    }

    /// Another one, of what is in `folder`.
    pub fn build_beside(&self, folder: &Path, options: &[&str]) -> Self {
        Self::build_in(folder, options, self.runtime)
    }

    /// The time is a fixed one, so that equal images are the same one, though never another test binary's, which may be
    /// removing it.
    fn build_in(folder: &Path, options: &[&str], runtime: &'static str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let tag = format!("localhost/boathook-test-{}-{count}:1", std::process::id());
        let label = format!("test={}", std::process::id());
        let words = ["build", "--quiet", "--layers=false", "--timestamp", "0", "--identity-label=false"];
        let words = [&words[..], &["--label", &label, "--tag", &tag]].concat();
        let names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        say(&[&words[..], options, &[&folder.display().to_string()]].concat());
        drop(names);
        Self { tag, runtime }
    }

    pub fn inspect(&self, what: &str) -> String {
        say(&["image", "inspect", "--format", &format!("{{{{{what}}}}}"), &self.tag])
    }

    pub fn run(&self, options: &[&str], arguments: &[&str]) -> Output {
        let words = [&["--runtime", self.runtime, "run"], &LIMITS[..], options, &[&self.tag], arguments].concat();
        podman(&words)
    }

    /// Starts a container with this configuration, `/data` shared with the test and the host's programs under `/usr`.
    pub fn start(&self, config: &str, options: &[&str], arguments: &[&str]) -> Container {
        self.start_in(tempfile::tempdir().expect("a folder"), config, options, arguments)
    }

    /// A new container on the volumes of one that has ended.
    pub fn start_again(&self, mut before: Container, options: &[&str], arguments: &[&str]) -> Container {
        let folder = std::mem::replace(&mut before.folder, tempfile::tempdir().expect("a folder"));
        drop(before);
        self.start_with(folder, options, arguments)
    }

    fn start_in(&self, folder: tempfile::TempDir, config: &str, options: &[&str], arguments: &[&str]) -> Container {
        // The container's user need not be root.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("ours");
        for name in ["etc", "data"] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        fs::set_permissions(folder.path().join("data"), fs::Permissions::from_mode(0o777)).expect("ours");
        fs::write(folder.path().join("etc/boathook.toml"), config).expect("written");
        self.start_with(folder, options, arguments)
    }

    fn start_with(&self, folder: tempfile::TempDir, options: &[&str], arguments: &[&str]) -> Container {
        let volume = |name: &str, at: &str| format!("{}:{at}", folder.path().join(name).display());
        let (etc, data) = (volume("etc", "/etc/boathook:ro"), volume("data", "/data"));
        let shared = ["--volume", &etc, "--volume", &data, "--detach"];
        let output = self.run(&[&shared, options].concat(), arguments);
        assert!(output.status.success(), "{output:?}");
        keep_bridge_address();
        let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Container { id, folder }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // Takes the name away, and the image with its last name.
        let _names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = podman(&["rmi", &self.tag]);
    }
}

/// A container that runs; dropped, it is gone.
pub struct Container {
    pub id: String,
    pub folder: tempfile::TempDir,
}

impl Container {
    pub fn inspect(&self, what: &str) -> String {
        say(&["inspect", "--format", &format!("{{{{.{what}}}}}"), &self.id])
    }

    /// Both streams, as the container runtime keeps them.
    pub fn log(&self) -> String {
        let output = podman(&["logs", &self.id]);
        [output.stdout, output.stderr].iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    }

    pub fn wait_for_log(&self, text: &str) {
        assert!(poll(LONG, || self.log().contains(text).then_some(())).is_some(), "no `{text}`: {}", self.log());
    }

    /// Where the node reaches it: its own address on the bridge, called from the gateway's.
    pub fn address(&self) -> SocketAddr {
        self.wait_for_log("listening");
        SocketAddr::new(self.ip(), 4665)
    }

    pub fn ip(&self) -> IpAddr {
        self.inspect("NetworkSettings.IPAddress").parse().expect("an address")
    }

    pub fn exec(&self, words: &[&str]) -> Output {
        podman(&[&["exec", &self.id], words].concat())
    }

    pub fn data(&self, name: &str) -> PathBuf {
        self.folder.path().join("data").join(name)
    }

    /// SIGTERM, and KILL after so many seconds; gives the exit code and how long it took.
    pub fn stop(&self, grace: u32) -> (String, Duration) {
        let begun = Instant::now();
        say(&["stop", "--time", &grace.to_string(), &self.id]);
        (self.inspect("State.ExitCode"), begun.elapsed())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of container {}\n{}---", self.id, self.log());
        }
        let _ = podman(&["rm", "--force", "--time", "0", "--volumes", &self.id]);
    }
}
