//! Which crates a binary is built from, on one platform and with its features: what `cargo tree` says, which resolves
//! them as `cargo build` does. `cargo metadata` names more: it adds up the features of the whole workspace. Licences
//! and checksums come along for [`crate::sbom`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use serde::Deserialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Features {
    Default,
    /// The core alone.
    None,
}

/// The words that say to every cargo command what is built.
pub fn words<'a>(package: &'a str, features: Features, targets: &[&'a str]) -> Vec<&'a str> {
    let features = (features == Features::None).then_some("--no-default-features");
    let targets = targets.iter().flat_map(|target| ["--target", target]);
    ["--locked", "-p", package].into_iter().chain(targets).chain(features).collect()
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    pub name: String,
    pub version: String,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Crate {
    pub name: Name,
    /// An SPDX expression.
    pub licence: String,
    /// Of this workspace; all others are crates.io's, as `deny.toml` wants it.
    pub local: bool,
    /// Not in the binary: a build script, a procedural macro, or what they need.
    pub build_only: bool,
    /// The crate file's SHA-256, from Cargo.lock.
    pub checksum: Option<String>,
    pub dependencies: BTreeSet<Name>,
}

/// The crates of a binary by name, the binary's own package among them.
pub type Graph = BTreeMap<Name, Crate>;

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

/// Asks cargo, in the current folder.
///
/// # Errors
/// What cargo, or the reading of its answer, says.
pub fn read(package: &str, features: Features, target: &str) -> Result<Graph, String> {
    let words = words(package, features, &[target]);
    let mut graph = parse(&tree(&words, "normal,build")?)?;
    let runtime = parse(&tree(&words, "normal,no-proc-macro")?)?;
    let lock = fs::read_to_string("Cargo.lock").map_err(|error| format!("Cargo.lock: {error}"))?;
    let lock: Lock = toml::from_str(&lock).map_err(|error| format!("Cargo.lock: {error}"))?;
    let checksums: BTreeMap<Name, Option<String>> =
        lock.package.into_iter().map(|Locked { name, version, checksum }| (Name { name, version }, checksum)).collect();
    for (name, found) in &mut graph {
        found.build_only = !runtime.contains_key(name);
        found.checksum = checksums.get(name).cloned().flatten();
    }
    Ok(graph)
}

fn tree(words: &[&str], edges: &str) -> Result<String, String> {
    // Cargo names itself to the programs it runs.
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.arg("tree").args(words).args(["--edges", edges, "--prefix", "depth", "--format", "\t{p}\t{l}\t"]);
    let output = command.output().map_err(|error| format!("cargo tree: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo tree: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Lines of `DEPTH<tab>NAME vVERSION (where, or what kind)<tab>LICENCE<tab>`. Below a crate that was shown before there
/// is nothing again, but the line itself is there, so no edge is lost.
fn parse(tree: &str) -> Result<Graph, String> {
    let mut graph = Graph::new();
    let mut above: Vec<Name> = Vec::new();
    for line in tree.lines() {
        let wrong = || format!("cargo tree: not understood: {line}");
        let [depth, package, licence, ..] = line.split('\t').collect::<Vec<_>>()[..] else { return Err(wrong()) };
        let depth: usize = depth.parse().map_err(|_| wrong())?;
        let mut words = package.split(' ');
        let (Some(name), Some(version)) = (words.next(), words.next().and_then(|word| word.strip_prefix('v'))) else {
            return Err(wrong());
        };
        let name = Name { name: name.into(), version: version.into() };
        if depth > above.len() {
            return Err(wrong());
        }
        above.truncate(depth);
        if let Some(parent) = above.last().and_then(|parent| graph.get_mut(parent)) {
            parent.dependencies.insert(name.clone());
        }
        above.push(name.clone());
        graph.entry(name.clone()).or_insert_with(|| Crate {
            name,
            licence: licence.into(),
            local: words.any(|word| word.starts_with("(/")),
            build_only: false,
            checksum: None,
            dependencies: BTreeSet::new(),
        });
    }
    Ok(graph)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_are_kept_below_repeated_crates() {
        let text = "0\ta v0.1.0 (/somewhere/a)\tMIT\t\n1\tb v1.2.3\tMIT OR Apache-2.0\t\n2\tc v2.0.0 (proc-macro)\tISC\t\n\
            1\tc v2.0.0 (proc-macro)\tISC\t (*)\n";
        let graph = parse(text).expect("cargo's form");
        let say = |found: &Crate| {
            let names: Vec<_> = found.dependencies.iter().map(|name| name.name.as_str()).collect();
            (found.name.version.clone(), found.local, names.join(" "))
        };
        let said: Vec<_> = graph.values().map(say).collect();
        let expected = [("0.1.0", true, "b c"), ("1.2.3", false, "c"), ("2.0.0", false, "")];
        assert_eq!(said, expected.map(|(version, local, names)| (version.into(), local, names.into())));
        assert_eq!(graph.values().nth(1).map(|found| found.licence.as_str()), Some("MIT OR Apache-2.0"));
    }

    #[test]
    fn other_forms_are_refused() {
        for text in ["0 a v1.0.0", "0\ta\tMIT\t", "1\ta v1.0.0\tMIT\t", "x\ta v1.0.0\tMIT\t"] {
            assert!(parse(text).is_err_and(|why| why.ends_with(text)), "{text}");
        }
    }
}
