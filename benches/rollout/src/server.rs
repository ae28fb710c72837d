//! What the benchmark knows about a server that is rolled: how it is started, what it can serve, and how its operators
//! stop it. The servers themselves stand in `servers`.
//!
//! In commands and files `@FOLDER@` is a folder of the pod's own, `@PORT@` where the server listens, `@SOCKET@` or
//! `@BEHIND@` where the application behind it does, and `@PYTHON@` what was brought from PyPI.

use std::{fs, io, path::Path};

pub use crate::servers::SERVERS;

/// What is asked besides quick answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    pub slow: bool,
    pub trickle: bool,
    pub upload: bool,
    pub websocket: bool,
}

impl Abilities {
    pub const ALL: Self = Self { slow: true, trickle: true, upload: true, websocket: true };
    pub const NO_WEBSOCKET: Self = Self { websocket: false, ..Self::ALL };
    /// Nothing but quick answers.
    pub const QUICK: Self = Self { slow: false, trickle: false, upload: false, websocket: false };
}

/// Whether the application is the server itself, or another process of the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Application {
    Inside,
    /// Behind a Unix socket, as php-fpm or gunicorn often are.
    BehindSocket,
    /// Behind a port of the pod's loopback: its connections are counted where the server's are.
    BehindPort,
}

/// Each pod has a loopback of its own.
const BEHIND: &str = "127.0.0.1:9000";

impl Application {
    /// Where the application behind the server listens, if there is one.
    pub fn address(self, folder: &Path) -> Option<String> {
        match self {
            Self::Inside => None,
            Self::BehindSocket => Some(socket(folder)),
            Self::BehindPort => Some(BEHIND.into()),
        }
    }
}

fn socket(folder: &Path) -> String {
    folder.join("app.sock").display().to_string()
}

pub struct Server {
    pub name: &'static str,
    /// What has to be here: a program, or a file.
    pub needs: &'static str,
    pub command: &'static [&'static str],
    pub files: &'static [(&'static str, &'static str)],
    pub application: Application,
    pub abilities: Abilities,
    /// What its documentation says to do for a graceful stop, where that is not SIGTERM. It has to last until the end:
    /// the kubelet's TERM comes right after it.
    pub graceful: Option<&'static [&'static str]>,
    /// What boathook knows about it.
    pub preset: &'static str,
    /// What the preset's comment tells its user to add to `[app]` where the server is set up as it recommends.
    pub adds: &'static str,
    /// For the negative controls: a signal on which it finishes what is in flight, and one on which it does not.
    pub stop_signal: &'static str,
    pub fast_signal: &'static str,
}

impl Server {
    pub fn find(name: &str) -> Option<&'static Self> {
        SERVERS.iter().find(|server| server.name == name)
    }

    /// Whether this machine has it.
    pub fn is_here(&self) -> bool {
        let needs = fill_python(self.needs);
        let folders = std::env::var_os("PATH").unwrap_or_default();
        // A path from the root stays what it is, whatever folder is put before it.
        std::env::split_paths(&folders).any(|folder| folder.join(&needs).exists())
    }
}

/// Where `make bench-rollout` puts what comes from PyPI.
fn fill_python(text: &str) -> String {
    text.replace("@PYTHON@", concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/rollout-python"))
}

/// A pod's own values for what stands between @ and @.
pub struct Place<'a> {
    pub folder: &'a Path,
    pub port: u16,
}

impl Place<'_> {
    fn fill(&self, text: &str) -> String {
        fill_python(text)
            .replace("@FOLDER@", &self.folder.display().to_string())
            .replace("@PORT@", &self.port.to_string())
            .replace("@SOCKET@", &socket(self.folder))
            .replace("@BEHIND@", BEHIND)
    }

    pub fn fill_all(&self, words: &[&str]) -> Vec<String> {
        words.iter().map(|word| self.fill(word)).collect()
    }

    /// Writes the server's files.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn write_files(&self, server: &Server) -> io::Result<()> {
        for (name, text) in server.files {
            let file = self.folder.join(name);
            file.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(file, self.fill(text))?;
        }
        Ok(())
    }
}
