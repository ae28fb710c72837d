//! Real servers that tests put boathook beside: where they are installed, and what they need to be started.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

/// A program, also where Debian puts what users are not to call. A `*` at the end of its name stands for a version.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    folders.extend(["/usr/sbin", "/usr/local/bin"].map(PathBuf::from));
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    folders.extend(versions.map(|version| version.path().join("bin")));
    let Some(begin) = name.strip_suffix('*') else {
        return folders.into_iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    };
    let is_version = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(begin));
        name.is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '.'))
    };
    let entries = folders.into_iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    entries.map(|entry| entry.path()).find(is_version)
}

/// Says that something could not be tried; where everything is required, that is a failure.
pub fn not_run(why: &str) {
    eprintln!("NOT RUN: {why}");
    assert!(std::env::var_os("BOATHOOK_REQUIRE_ALL").is_none_or(|all| all != "1"), "{why}");
}

/// Where a program is; one that is not there is told.
pub fn needs(name: &str) -> Option<String> {
    let found = find_program(name).map(|path| path.display().to_string());
    if found.is_none() {
        not_run(&format!("{name} is not installed"));
    }
    found
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A port of loopback that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// A PostgreSQL: its programs, and who runs them. It refuses to run as root, and then is the user's that Debian's
/// packages make.
pub struct Postgres {
    pub initdb: String,
    pub postgres: String,
    pub psql: String,
    user: Option<(u32, u32)>,
}

impl Postgres {
    /// None where it cannot be tried, which is told.
    pub fn find() -> Option<Self> {
        let (initdb, postgres, psql) = (needs("initdb")?, needs("postgres")?, needs("psql")?);
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let user = users.lines().find_map(|line| {
            let mut fields = line.strip_prefix("postgres:")?.split(':').skip(1);
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        });
        let user = user.filter(|_| is_root());
        if user.is_none() && is_root() {
            not_run("there is no user postgres");
            return None;
        }
        Some(Self { initdb, postgres, psql, user })
    }

    /// Words in front of a command that is to run as that user.
    pub fn as_user(&self) -> Vec<String> {
        self.user.map_or(Vec::new(), |(user, group)| {
            let (user, group) = (user.to_string(), group.to_string());
            ["setpriv", "--reuid", &user, "--regid", &group, "--clear-groups"].map(String::from).into()
        })
    }

    /// Folders for it, in one that lets it through.
    pub fn make_folders(&self, folder: &Path) {
        fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).expect("opened");
        for name in ["data", "run"] {
            let path = folder.join(name);
            fs::create_dir_all(&path).expect("made");
            if let Some((user, group)) = self.user {
                chown(&path, Some(user), Some(group)).expect("given away");
            }
        }
    }
}

/// Python with gRPC's server and its health service.
pub fn python_with_grpc() -> Option<(String, PathBuf)> {
    python_with(&["grpcio==1.85.1", "grpcio-health-checking==1.85.1"])
}

/// Python, and a folder with these packages of PyPI, which Debian does not have, or not in this version: brought once, below
/// `target`.
pub fn python_with(packages: &[&str]) -> Option<(String, PathBuf)> {
    static TURN: Mutex<()> = Mutex::new(());
    let python = needs("python3")?;
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let version = "import sys; print('%d.%d' % sys.version_info[:2])";
    let version = Command::new(&python).args(["-c", version]).output().expect("python");
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = root.join(format!("python-{version}-{}", packages[0]));
    if !folder.exists() {
        let aside = tempfile::tempdir_in(root).expect("a folder");
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir", "--target"];
        let said = Command::new(&python).args(pip).arg(aside.path()).args(packages).stdin(Stdio::null()).output();
        let said = said.expect("python");
        if !said.status.success() {
            not_run(&format!("pip could not bring {packages:?}: {}", String::from_utf8_lossy(&said.stderr)));
            return None;
        }
        // Whoever is first; another test binary may have brought it meanwhile.
        let _ = fs::rename(aside.path(), &folder);
    }
    Some((python, folder))
}
