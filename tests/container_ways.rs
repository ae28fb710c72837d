//! Each of the five ways of use in real containers, from start to stop: the examples' own Dockerfiles and
//! configurations, the securityContext of their manifests, and a kubelet by hand that calls the hooks from the node's
//! side of the bridge or by exec. The application stands for nginx: TERM cuts what it is doing, QUIT lets it finish.
//! Users keep coming until routing has followed, and one is in the middle of a long answer. Beside them what happens
//! without a hook, and without a kubelet. Needs podman and root; what cannot be tried is named.

mod container_support;
mod life_support;

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use boathook::sys::signal;
use container_support::{Container, Image, say};
use life_support::{LONG, call, poll};

/// The manifests' terminationGracePeriodSeconds.
const GRACE: Duration = Duration::from_secs(30);
/// How long after the deletion users are still sent here.
const ROUTING: Duration = Duration::from_millis(500);
/// The long answer takes so many milliseconds: longer than routing, so that only a drain saves it.
const SLOW: &str = "/slow?2500";
/// A user's: four times the long answer. Who is cut off by a container's end may never be told.
const PATIENCE: Duration = Duration::from_secs(10);
const TOKEN: &str = "replace-me-in-all-three-places";

/// What the examples' pods ask for: runAsUser, readOnlyRootFilesystem, capabilities, allowPrivilegeEscalation, and /tmp
/// as an emptyDir. podman applies its default seccomp profile by itself, as RuntimeDefault does.
const HARD: [&str; 9] = [
    "--user=101",
    "--read-only",
    "--read-only-tmpfs=false",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--tmpfs",
    "/tmp:rw,mode=1777,size=1m",
    "--env",
    "BOATHOOK_TOKEN=replace-me-in-all-three-places",
];

/// The web server, which rustc builds for an image that has nothing else.
fn shop() -> &'static Path {
    static SHOP: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = SHOP.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("shop");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/container_support/shop.rs");
        let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
        let words = ["-C", "linker=rust-lld", "-C", "panic=abort", "-C", "strip=symbols", "-o"];
        let built = Command::new(Path::new(env!("CARGO")).with_file_name("rustc"))
            .args(["--edition", "2024", "--target", &target])
            .args(words)
            .args([&path, &source])
            .output()
            .expect("rustc");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        (folder, path)
    });
    path
}

/// Stands for the image in the examples' Dockerfiles: the server under its entrypoint's name, and nothing else.
fn base(image: &Image) -> Image {
    let folder = tempfile::tempdir().expect("a folder");
    fs::copy(shop(), folder.path().join("shop")).expect("copied");
    let text = "FROM scratch\nCOPY shop /docker-entrypoint.sh\nUSER 101\nENTRYPOINT [\"/docker-entrypoint.sh\"]\n\
        CMD [\"nginx\", \"-g\", \"daemon off;\"]\n";
    fs::write(folder.path().join("Dockerfile"), text).expect("written");
    image.build_beside(folder.path(), &[])
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

/// The example's own Dockerfile, on `base`.
fn build_example(image: &Image, base: &Image, name: &str) -> Image {
    let boathook = format!("boathook=container-image://{}", image.tag);
    image.build_beside(&example(name), &["--from", &base.tag, "--build-context", &boathook])
}

fn config(example_name: &str) -> String {
    fs::read_to_string(example(example_name).join("boathook.toml")).expect("an example has one")
}

/// `status.hostIP`: where the kubelet's calls come from.
fn host_ip() -> String {
    let found = say(&["network", "inspect", "--format", "{{range .Subnets}}{{.Gateway}}{{end}}", "podman"]);
    format!("HOST_IP={found}")
}

/// A hook, or a probe's way in.
#[derive(Clone, Copy)]
enum Call<'a> {
    /// httpGet on boathook's port.
    Get(&'a str),
    Exec(&'a [&'a str]),
    None,
}

struct Pod<'a> {
    container: &'a Container,
    post_start: Call<'a>,
    pre_stop: Call<'a>,
    /// Port and path of the readiness probe.
    ready: (u16, &'a str),
}

/// What came of a life.
#[derive(Debug)]
struct Life {
    /// The long answer, or as far as it came.
    slow: Result<String, String>,
    /// Of the users who came before routing followed.
    failed: Vec<String>,
    served: usize,
    code: String,
    killed: bool,
    /// From the deletion to the end.
    took: Duration,
    log: String,
}

impl Life {
    fn assert_nobody_noticed(&self, way: &str) {
        assert!(self.slow.is_ok(), "{way}: the long answer was cut: {self:#?}");
        assert!(self.failed.is_empty() && self.served > 5, "{way}: {self:#?}");
        assert!(!self.killed && self.code == "0", "{way}: {self:#?}");
        // Quiet time and routing are far below; a drain that does not see an end would sit out its 20 s.
        assert!(self.took > ROUTING && self.took < Duration::from_secs(18), "{way}: {self:#?}");
    }
}

/// One request as a user's browser sends it.
fn get(address: SocketAddr, path: &str) -> Result<String, String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(|error| error.to_string())?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
        .map_err(|error| error.to_string())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|error| error.to_string())?;
    let whole = answer.split_once("\r\n\r\n").is_some_and(|(head, body)| {
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        head.starts_with("HTTP/1.1 200 ") && length == Some(body.len())
    });
    if whole { Ok(answer) } else { Err(answer) }
}

impl Pod<'_> {
    /// The kubelet's part: start, probe, delete.
    fn live(&self) -> Life {
        let ip = self.container.ip();
        self.call(ip, self.post_start, "post-start");
        let (port, path) = self.ready;
        let ready = poll(LONG, || get(SocketAddr::new(ip, port), path).ok());
        assert!(ready.is_some(), "never ready: {}", self.container.log());

        let shop = SocketAddr::new(ip, 8080);
        let removed = Arc::new(AtomicBool::new(false));
        let users = thread::spawn({
            let removed = Arc::clone(&removed);
            move || {
                let (mut served, mut failed) = (0, Vec::new());
                while !removed.load(Relaxed) {
                    match get(shop, "/") {
                        Ok(_) => served += 1,
                        Err(why) => failed.push(why),
                    }
                    thread::sleep(Duration::from_millis(20));
                }
                (served, failed)
            }
        });
        let slow = thread::spawn(move || get(shop, SLOW));
        let begun = poll(LONG, || get(shop, "/slow").ok().filter(|said| said.ends_with("\r\n\r\n1")));
        assert!(begun.is_some(), "the long answer does not begin");

        // As the container runtime sends it, but not after half a second of podman's own on a loaded machine.
        let pid = self.container.inspect("State.Pid").parse().expect("a pid");
        let deleted = Instant::now();
        let routing = thread::spawn({
            let removed = Arc::clone(&removed);
            move || {
                thread::sleep(ROUTING);
                removed.store(true, Relaxed);
            }
        });
        self.call(ip, self.pre_stop, "pre-stop");
        signal::send(pid, libc::SIGTERM).expect("it runs");
        let (code, killed) = end(self.container, deleted);
        let took = deleted.elapsed();
        routing.join().expect("no panic");
        let (served, failed) = users.join().expect("no panic");
        let slow = slow.join().expect("no panic");
        Life { slow, failed, served, code, killed, took, log: self.container.log() }
    }

    /// A hook that fails would have its container killed.
    fn call(&self, ip: IpAddr, hook: Call, name: &str) {
        match hook {
            Call::Get(path) => {
                let token = format!("Authorization: Bearer {TOKEN}\r\n");
                let answer = call(SocketAddr::new(ip, 4665), path, &token);
                let answer = answer.unwrap_or_else(|error| panic!("{name}: {error}: {}", self.container.log()));
                assert_eq!(answer.status, 200, "{name}: {}", answer.body);
            }
            Call::Exec(words) => {
                let output = self.container.exec(words);
                assert!(output.status.success(), "{name}: {output:?}\n{}", self.container.log());
            }
            Call::None => {}
        }
    }
}

/// Waits for the container's end, and kills it when grace is over, though never sooner than 2 s after the SIGTERM that
/// it just got (kuberuntime_container.go: minimumGracePeriodInSeconds). Gives the exit code and whether it was killed.
fn end(container: &Container, deleted: Instant) -> (String, bool) {
    let left = GRACE.saturating_sub(deleted.elapsed()).max(Duration::from_secs(2));
    let (tell, ended) = mpsc::channel();
    let id = container.id.clone();
    thread::spawn(move || tell.send(say(&["wait", &id])));
    match ended.recv_timeout(left) {
        Ok(code) => (code, false),
        Err(_) => {
            say(&["kill", "--signal", "KILL", &container.id]);
            (ended.recv_timeout(LONG).expect("nothing survives a KILL"), true)
        }
    }
}

/// What the manifest's securityContext came to, for PID 1.
fn assert_hard(container: &Container) {
    let pid = container.inspect("State.Pid");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let field = |name: &str| {
        let line =
            status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {status}"));
        line.split_whitespace().next().unwrap_or_default().to_owned()
    };
    assert_eq!((field("Uid:"), field("NoNewPrivs:")), ("101".into(), "1".into()));
    for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
        assert_eq!(u64::from_str_radix(&field(set), 16), Ok(0), "{set}");
    }
    if say(&["info", "--format", "{{.Host.Security.SECCOMPEnabled}}"]) == "true" {
        assert_eq!(field("Seccomp:"), "2", "a filter");
    }
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("it runs");
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap_or_default();
    assert!(root.split(' ').nth(5).is_some_and(|options| options.split(',').any(|word| word == "ro")), "{mounts}");
}

const READY: (u16, &str) = (4665, "/ready");

fn as_the_entrypoint(image: &Image, base: &Image) {
    let image = build_example(image, base, "1-entrypoint");
    assert_eq!(image.inspect("len .RootFS.Layers"), "2", "the application's and boathook's");
    let container = image.start(&config("1-entrypoint"), &HARD, &[]);
    let pod = Pod {
        container: &container,
        post_start: Call::Get("/started"),
        pre_stop: Call::Get("/shutdown"),
        ready: READY,
    };
    assert_hard(&container);
    let life = pod.live();
    life.assert_nobody_noticed("entrypoint");
    assert!(life.log.contains("step=\"drain\" outcome=\"succeeded\""), "{life:#?}");
    assert!(life.log.contains("shop: finished after QUIT"), "{life:#?}");
}

fn by_exec_hooks(image: &Image, base: &Image) {
    let image = build_example(image, base, "2-exec-hooks");
    let container = image.start(&config("2-exec-hooks"), &HARD, &[]);
    let pod = Pod {
        container: &container,
        post_start: Call::Exec(&["/boathook", "started"]),
        pre_stop: Call::Exec(&["/boathook", "shutdown"]),
        ready: (8080, "/"),
    };
    assert_hard(&container);
    let life = pod.live();
    life.assert_nobody_noticed("exec hooks");
    assert!(life.log.contains("step=\"app answers\" outcome=\"succeeded\""), "{life:#?}");
    assert!(life.log.contains("step=\"drain\" outcome=\"succeeded\""), "{life:#?}");
    assert!(life.log.contains("shop: cut by TERM"), "after the drain: {life:#?}");
}

fn beside_the_main_process(image: &Image, base: &Image) {
    let image = build_example(image, base, "3-serve-beside");
    let host = host_ip();
    let container = image.start(&config("3-serve-beside"), &[&HARD[..], &["--env", &host]].concat(), &[]);
    let pod = Pod {
        container: &container,
        post_start: Call::Exec(&["/boathook", "serve", "--background", "--started"]),
        pre_stop: Call::Get("/shutdown"),
        ready: READY,
    };
    let life = pod.live();
    life.assert_nobody_noticed("serve beside");
    assert!(life.log.contains("step=\"drain\" outcome=\"succeeded\""), "{life:#?}");
}

/// The entrypoint of an image that knows nothing of boathook.
const ENTRYPOINT: [&str; 2] = ["--entrypoint", "[\"/opt/boathook/boathook\",\"run\",\"--\",\"/docker-entrypoint.sh\"]"];
const COMMAND: [&str; 3] = ["nginx", "-g", "daemon off;"];

fn by_an_init_container(image: &Image, base: &Image) {
    // What fsGroup makes of a volume: the group's, which may write. An emptyDir without it admits everybody:
    // `container.rs`.
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o2775)).expect("ours");
    chown(folder.path(), Some(0), Some(2000)).expect("root may");
    let volume = format!("{}:/opt/boathook", folder.path().display());
    let init = ["--rm", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--volume", &volume];
    let install = ["install", "/opt/boathook"];
    let refused = image.run(&init, &install);
    let why = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && why.contains("securityContext.fsGroup"), "{refused:?}");
    let installed = image.run(&[&init[..], &["--group-add", "2000"]].concat(), &install);
    assert!(installed.status.success(), "{installed:?}");

    let (host, volume) = (host_ip(), format!("{volume}:ro"));
    let options = [&HARD[..], &["--group-add", "2000", "--env", &host, "--volume", &volume], &ENTRYPOINT].concat();
    let container = base.start(&config("4-init-container"), &options, &COMMAND);
    unchanged_image("init container", &container);
}

fn by_an_image_volume(image: &Image, base: &Image) {
    let (host, mount) = (host_ip(), format!("type=image,source={},destination=/opt/boathook", image.tag));
    let options = [&HARD[..], &["--env", &host, "--mount", &mount], &ENTRYPOINT].concat();
    let container = base.start(&config("4-init-container"), &options, &COMMAND);
    unchanged_image("image volume", &container);
}

fn unchanged_image(way: &str, container: &Container) {
    let pod = Pod { container, post_start: Call::Get("/started"), pre_stop: Call::Get("/shutdown"), ready: READY };
    assert_hard(container);
    let life = pod.live();
    life.assert_nobody_noticed(way);
    assert!(life.log.contains("shop: finished after QUIT"), "{way}: {life:#?}");
}

fn without_a_configuration(image: &Image, base: &Image) {
    let image = build_example(image, base, "5-no-config");
    let container = image.start("no configuration: it is not read", &HARD, &[]);
    let pod = Pod {
        container: &container,
        post_start: Call::None,
        pre_stop: Call::Exec(&["/boathook", "step", "drain", "--port", "8080", "--timeout", "25s"]),
        ready: (8080, "/"),
    };
    pod.live().assert_nobody_noticed("no configuration");
}

/// Compose and ECS have no hooks: a stop signal, and KILL when grace is over.
fn by_the_stop_signal_alone(image: &Image, base: &Image) {
    let image = build_example(image, base, "1-entrypoint");
    let container = image.start(&config("1-entrypoint"), &HARD, &[]);
    let pod = Pod { container: &container, post_start: Call::None, pre_stop: Call::None, ready: READY };
    let life = pod.live();
    life.assert_nobody_noticed("stop signal");
    assert!(life.log.contains("hook=\"pre-stop\""), "{life:#?}");
}

/// The same application and the same users, without boathook.
fn without_any_hook(_: &Image, base: &Image) {
    let container = base.start("", &HARD, &[]);
    let pod = Pod { container: &container, post_start: Call::None, pre_stop: Call::None, ready: (8080, "/") };
    let life = pod.live();
    assert!(life.slow.is_err(), "the long answer is cut: {life:#?}");
    assert!(!life.failed.is_empty(), "and whoever comes before routing follows is refused: {life:#?}");
    assert!(!life.killed && life.took < Duration::from_secs(10), "{life:#?}");
}

/// What ignores its stop signal is killed when grace is over, and not before.
fn a_stubborn_application(_: &Image, base: &Image) {
    let container = base.start("", &HARD, &["stubborn"]);
    assert!(poll(LONG, || get(SocketAddr::new(container.ip(), 8080), "/").ok()).is_some(), "{}", container.log());
    let deleted = Instant::now().checked_sub(GRACE).expect("this machine runs longer than 30 s");
    say(&["kill", "--signal", "TERM", &container.id]);
    assert_eq!(end(&container, deleted), ("137".into(), true));
}

#[test]
fn each_way_of_use_from_start_to_stop() {
    let Some(image) = Image::build() else { return };
    let base = base(&image);
    let ways: [fn(&Image, &Image); 9] = [
        as_the_entrypoint,
        by_exec_hooks,
        beside_the_main_process,
        by_an_init_container,
        by_an_image_volume,
        without_a_configuration,
        by_the_stop_signal_alone,
        without_any_hook,
        a_stubborn_application,
    ];
    // Side by side: for most of their time they wait.
    thread::scope(|scope| {
        for way in ways {
            let (image, base) = (&image, &base);
            scope.spawn(move || way(image, base));
        }
    });
}

#[test]
fn the_image_is_small_and_plain_and_the_same_each_time() {
    let Some(image) = Image::build() else { return };
    let again = Image::from_dist(&[]);
    assert_eq!(image.inspect(".Id"), again.inspect(".Id"), "from another folder, at another time");
    let other = Image::from_dist(&["--label", "a=b"]);
    assert_ne!(image.inspect(".Id"), other.inspect(".Id"));

    assert_eq!(image.inspect("len .RootFS.Layers"), "1");
    let size: u64 = image.inspect(".Size").parse().expect("bytes");
    assert!(size <= 3_100_000, "{size} bytes");
    assert_eq!(image.inspect(".User"), "65532:65532");
    let label = |name: &str| image.inspect(&format!("index .Labels \"org.opencontainers.image.{name}\""));
    assert_eq!(label("title"), "boathook");
    assert_eq!(label("version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(label("licenses"), env!("CARGO_PKG_LICENSE"));
    assert!(!label("description").is_empty());
}

/// Both ways to build it end in the same image, and each stage that ships says the same of itself.
#[test]
fn both_stages_of_the_dockerfile_say_the_same() {
    let text = include_str!("../Dockerfile");
    let shipped: Vec<&str> = text.split("\nFROM ").filter(|stage| stage.starts_with("scratch")).collect();
    let said = |stage: &str| {
        let lines = stage.lines().filter(|line| !line.starts_with('#'));
        lines.skip_while(|line| !line.starts_with("LABEL")).map(|line| format!("{line}\n")).collect::<String>()
    };
    assert_eq!(shipped.len(), 2);
    assert_eq!(said(shipped[0]).trim(), said(shipped[1]).trim());
    assert!(said(shipped[0]).contains("USER 65532:65532"));
}

/// A shell-less image that somebody else wrote, with the agent copied in by `COPY --from`.
#[test]
fn copied_into_an_image_with_nothing_else() {
    let Some(image) = Image::build() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    fs::copy(shop(), folder.path().join("app")).expect("copied");
    fs::copy(example("classic-hooks-pod").join("Dockerfile"), folder.path().join("Dockerfile")).expect("copied");
    let boathook = format!("boathook=container-image://{}", image.tag);
    let app = image.build_beside(folder.path(), &["--build-context", &boathook]);
    let container = app.start("[server]\nallow-from = ['gateway']\n", &HARD, &[]);
    assert_eq!(call(container.address(), "/ready", "Connection: close\r\n").expect("an answer").status, 200);
    assert_eq!(call(SocketAddr::new(container.ip(), 4665), "/shutdown", "").expect("an answer").status, 200);
    assert_eq!(container.stop(10).0, "0");
}
