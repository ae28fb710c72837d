//! Mounts that are a test's own and vanish with it, also when it is killed: the test runs itself again in a mount
//! namespace of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{LONG, is_root, not_run, run_within, works};

/// Set in the inner run.
const INNER: &str = "BOATHOOK_TEST_OWN_MOUNTS";

/// Runs the rest of the named test in its own mount namespace: `if !own_mounts("name") { return }`. False where it is
/// done already (it ran inside, and passed) or cannot be done.
pub fn own_mounts(test: &str) -> bool {
    if std::env::var_os(INNER).is_some() {
        return true;
    }
    if !is_root() || !works("unshare", &["--mount", "--propagation", "private", "true"]) {
        not_run(test, "mounts need root");
        return false;
    }
    let mut inner = Command::new("unshare");
    inner.args(["--mount", "--propagation", "private", "--"]).arg(std::env::current_exe().expect("a path"));
    inner.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(INNER, "1");
    // A whole test.
    let ended = run_within(10 * LONG, inner);
    println!("{}{}", ended.stdout, ended.stderr);
    assert!(ended.status.success(), "{test}: inside: {}", ended.status);
    assert!(ended.stdout.contains("1 passed"), "{test}: there is no test of this name");
    false
}

/// mount(8) with these words; the error is what it says.
pub fn mount(words: &[&str], what: &Path, at: &Path) -> Result<Mounted, String> {
    let output = Command::new("mount").args(words).arg(what).arg(at).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(Mounted(at.to_owned()));
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Unmounted when dropped.
#[derive(Debug)]
pub struct Mounted(pub PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// A tmpfs of this size, such as `1m`.
pub fn tmpfs(at: &Path, size: &str) -> Mounted {
    fs::create_dir_all(at).expect("a mount point");
    mount(&["-t", "tmpfs", "-o", &format!("size={size}")], Path::new("none"), at).expect("a tmpfs")
}

/// A file with an empty ext4 in it, if such a one can be mounted here.
pub fn ext4_image(at: &Path) -> Result<(), String> {
    let file = fs::File::create(at).map_err(|error| error.to_string())?;
    file.set_len(16 << 20).map_err(|error| error.to_string())?;
    // No reserve and a small journal: the image is copied often.
    let words = ["-q", "-F", "-m", "0", "-b", "1024", "-J", "size=1", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let made = Command::new("mkfs.ext4").args(words).arg(at).env("PATH", path).output();
    match made {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Err(error.to_string()),
    }
}
