//! Builds a shipped binary: static, from the lock file, the same bytes wherever the sources lie, with what it is made
//! of inside. Both the Makefile and the Dockerfile build through this door, so that they build the same.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    graph::{self, Features},
    sbom, section,
};

/// Builds `FOLDER/PACKAGE-TARGET` for each target, and beside it what it is made of as a CycloneDX document. All at
/// once, as the end of each build keeps one core alone busy.
///
/// # Errors
/// What cargo or the system says.
pub fn ship(package: &str, features: Features, folder: &str, targets: &[&str]) -> Result<String, Vec<String>> {
    let executables = compile(package, features, targets).map_err(|why| vec![why])?;
    let finish = |(target, executable): (&&str, String)| {
        let crates = graph::read(package, features, target)?;
        let plain = fs::read(&executable).map_err(|error| format!("{executable}: {error}"))?;
        let whole = section::add(&plain, sbom::SECTION, &sbom::auditable(&crates, package));
        let whole = whole.map_err(|why| format!("{executable}: {why}"))?;
        let to = format!("{folder}/{package}-{target}");
        write(&to, &whole, 0o755)?;
        write(&format!("{to}.cdx.json"), sbom::cyclonedx(&crates, package, target).as_bytes(), 0o644)?;
        Ok(format!("{to}: {} bytes, {} of them name its crates", whole.len(), whole.len() - plain.len()))
    };
    let said: Result<Vec<String>, String> = targets.iter().zip(executables).map(finish).collect();
    said.map(|lines| lines.join("\n")).map_err(|why| vec![why])
}

/// Gives the path of each executable.
fn compile(package: &str, features: Features, targets: &[&str]) -> Result<Vec<String>, String> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.arg("build").args(graph::words(package, features, targets)).args(["--bin", package, "--release"]);
    command.args(["--message-format", "json-render-diagnostics"]).stdout(Stdio::piped());
    // Cargo adds these to the flags in .cargo/config.toml, unless the environment has flags of its own, which would
    // take the place of both.
    let remap = remap()?;
    for target in targets {
        command.env(format!("CARGO_TARGET_{}_RUSTFLAGS", target.to_uppercase().replace('-', "_")), &remap);
    }
    command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    let output = command.spawn().and_then(std::process::Child::wait_with_output);
    let output = output.map_err(|error| format!("cargo build: {error}"))?;
    if !output.status.success() {
        return Err("cargo build failed, see above".into());
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let built: Vec<String> = said
        .lines()
        .filter_map(|line| {
            let message: Value = serde_json::from_str(line).ok()?;
            (message["target"]["name"] == package).then(|| message["executable"].as_str().map(String::from))?
        })
        .collect();
    let of = |target: &&str| {
        let folder = format!("/{target}/");
        built.iter().find(|path| path.contains(&folder)).cloned().ok_or_else(|| format!("no executable for {target}"))
    };
    targets.iter().map(of).collect()
}

/// Where the sources lie on this machine is nobody's business, makes the binary depend on it, and costs 12 kB of it:
/// panics name `tokio-1.54.1/src/…`.
fn remap() -> Result<String, String> {
    let home = env::var_os("CARGO_HOME").map(Into::into);
    let home = home.or_else(|| env::home_dir().map(|home| home.join(".cargo"))).ok_or("no home directory")?;
    // This program has dependencies itself, so the folder is there.
    let registries = home.join("registry/src");
    let found = fs::read_dir(&registries).map_err(|error| format!("{}: {error}", registries.display()))?;
    let mut folders: Vec<String> = found.flatten().map(|entry| format!("{}/", entry.path().display())).collect();
    folders.sort();
    let mut names: Vec<(String, String)> = folders.into_iter().map(|folder| (folder, String::new())).collect();
    // Where the toolchain's component rust-src is installed, rustc names the standard library's files by their place
    // here.
    let version = ask_rustc(&["--version", "--verbose"])?;
    if let Some(commit) = version.lines().find_map(|line| line.strip_prefix("commit-hash: ")) {
        let library = format!("{}/lib/rustlib/src/rust", ask_rustc(&["--print", "sysroot"])?.trim());
        names.push((library, format!("/rustc/{commit}")));
    }
    if let Some((spaced, _)) = names.iter().find(|(folder, _)| folder.contains(' ')) {
        return Err(format!("{spaced}: flags in the environment cannot name a folder with a space"));
    }
    let flags: Vec<String> = names.iter().map(|(from, to)| format!("--remap-path-prefix={from}={to}")).collect();
    Ok(flags.join(" "))
}

fn ask_rustc(words: &[&str]) -> Result<String, String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).args(words).output().map_err(|error| format!("rustc: {error}"))?;
    if !output.status.success() {
        return Err(format!("rustc {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn write(to: &str, bytes: &[u8], mode: u32) -> Result<(), String> {
    let why = |error: std::io::Error| format!("{to}: {error}");
    if let Some(folder) = Path::new(to).parent() {
        fs::create_dir_all(folder).map_err(why)?;
    }
    // Written aside: the old one may be running.
    let aside = format!("{to}.new");
    fs::write(&aside, bytes).map_err(why)?;
    fs::set_permissions(&aside, fs::Permissions::from_mode(mode)).map_err(why)?;
    fs::rename(&aside, to).map_err(why)
}
