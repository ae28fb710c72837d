//! Holds every dependency against `deny.toml`: its licence, where it comes from, and that boathook's own graph has no
//! native code. It reads the file that cargo-deny reads, and only the parts used there; it leaves advisories, which
//! need the network, to cargo-deny.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use serde::Deserialize;
use spdx::{Expression, Licensee};

#[derive(Deserialize)]
struct Deny {
    graph: Graph,
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
struct Graph {
    targets: Vec<String>,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

#[derive(Deserialize)]
struct Sources {
    #[serde(rename = "allow-registry")]
    allow_registry: Vec<String>,
}

/// What `cargo metadata --format-version 1` tells, as far as it is needed here.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Clone, Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    /// `None` for a package of this workspace.
    source: Option<String>,
    /// The native library that it links.
    links: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    /// `None` is a normal dependency, else `build` or `dev`.
    kind: Option<String>,
}

/// Checks the workspace in the current folder.
///
/// # Errors
/// Everything that `deny.toml` does not allow, one line each.
pub fn check() -> Result<String, Vec<String>> {
    let text = fs::read_to_string("deny.toml").map_err(|error| vec![format!("deny.toml: {error}")])?;
    let deny: Deny = toml::from_str(&text).map_err(|error| vec![format!("deny.toml: {error}")])?;
    let allowed = parse_allowed(&deny.licenses.allow)?;

    let everywhere = read_metadata(None)?;
    let mut problems: Vec<String> = everywhere.packages.iter().filter_map(|p| judge_licence(p, &allowed)).collect();
    problems.extend(everywhere.packages.iter().filter_map(|p| judge_source(p, &deny.sources.allow_registry)));

    let mut shipped = BTreeMap::new();
    for target in &deny.graph.targets {
        let (graph, built) = (read_metadata(Some(target))?, read_built(target)?);
        let really =
            shipped_packages(&graph).into_iter().filter(|p| built.contains(&format!("{} v{}", p.name, p.version)));
        shipped.extend(really.map(|package| (package.id.clone(), package.clone())));
    }
    problems.extend(shipped.values().filter_map(|package| judge_native(package, &deny.bans.deny)));

    if problems.is_empty() {
        Ok(format!(
            "licences and sources of {} packages are allowed; {} of them are in boathook, all pure Rust",
            everywhere.packages.len(),
            shipped.len()
        ))
    } else {
        Err(problems)
    }
}

fn read_metadata(target: Option<&str>) -> Result<Metadata, Vec<String>> {
    // Cargo names itself to the programs it runs.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["metadata", "--format-version", "1", "--offline", "--locked", "--all-features"]);
    command.args(target.into_iter().flat_map(|target| ["--filter-platform", target]));
    let output = command.output().map_err(|error| vec![format!("cargo metadata: {error}")])?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(vec![format!("cargo metadata: {}", why.trim()), "help: cargo fetch --locked".into()]);
    }
    serde_json::from_slice(&output.stdout).map_err(|error| vec![format!("cargo metadata: {error}")])
}

/// `name vVERSION` of everything that cargo really builds boathook from on one platform. `cargo metadata` also names what
/// a feature would add to an optional dependency that nobody asked for (`ring?/std`).
fn read_built(target: &str) -> Result<BTreeSet<String>, Vec<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["tree", "-p", "boathook", "--offline", "--locked", "--all-features", "--edges", "normal,build"]);
    command.args(["--prefix", "none", "--format", "{p}", "--target", target]);
    let output = command.output().map_err(|error| vec![format!("cargo tree: {error}")])?;
    if !output.status.success() {
        return Err(vec![format!("cargo tree: {}", String::from_utf8_lossy(&output.stderr).trim())]);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect())
}

/// boathook and what it may be built from on one platform; what only its tests need is left out.
fn shipped_packages(metadata: &Metadata) -> Vec<&Package> {
    let nodes: BTreeMap<&str, &Node> = metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let root = metadata.packages.iter().find(|package| package.name == "boathook" && package.source.is_none());
    let mut waiting: Vec<&str> = root.into_iter().map(|package| package.id.as_str()).collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        if seen.insert(id) {
            let dependencies = nodes.get(id).into_iter().flat_map(|node| &node.deps);
            let built =
                |dependency: &&Dependency| dependency.dep_kinds.iter().any(|d| d.kind.as_deref() != Some("dev"));
            waiting.extend(dependencies.filter(built).map(|dependency| dependency.pkg.as_str()));
        }
    }
    metadata.packages.iter().filter(|package| seen.contains(package.id.as_str())).collect()
}

fn parse_allowed(names: &[String]) -> Result<Vec<Licensee>, Vec<String>> {
    let parse = |name: &String| Licensee::parse(name).map_err(|error| vec![format!("deny.toml: licenses: {error}")]);
    names.iter().map(parse).collect()
}

/// What is wrong with a package's licence, if anything.
fn judge_licence(package: &Package, allowed: &[Licensee]) -> Option<String> {
    let Package { name, version, .. } = package;
    let Some(text) = &package.license else {
        return Some(format!("{name} {version}: no licence expression"));
    };
    // Before the expression language was settled, cargo took "MIT/Apache-2.0" as "either".
    match Expression::parse_mode(text, spdx::ParseMode::LAX) {
        Err(error) => Some(format!("{name} {version}: licence \"{text}\": {}", error.reason)),
        Ok(expression) => {
            let fits = expression.evaluate(|asked| allowed.iter().any(|licensee| licensee.satisfies(asked)));
            (!fits).then(|| format!("{name} {version}: licence \"{text}\" is not satisfied by deny.toml's list"))
        }
    }
}

/// What is wrong with where a package comes from, if anything.
fn judge_source(package: &Package, registries: &[String]) -> Option<String> {
    let source = package.source.as_ref()?;
    let known = source.strip_prefix("registry+").is_some_and(|url| registries.iter().any(|allowed| allowed == url));
    (!known).then(|| format!("{} {}: source {source} is not allowed", package.name, package.version))
}

/// Why a package of boathook's own graph is not pure Rust, if it is not.
fn judge_native(package: &Package, bans: &[Ban]) -> Option<String> {
    let Package { name, version, .. } = package;
    if let Some(ban) = bans.iter().find(|ban| ban.name == *name) {
        return Some(format!("{name} {version}: banned: {}", ban.reason));
    }
    package.links.as_ref().map(|library| format!("{name} {version}: links the native library {library}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(license: Option<&str>) -> Package {
        Package {
            id: "p".into(),
            name: "p".into(),
            version: "1.0.0".into(),
            license: license.map(Into::into),
            source: None,
            links: None,
        }
    }

    fn allowed() -> Vec<Licensee> {
        parse_allowed(&["MIT".into(), "Apache-2.0".into(), "Unicode-3.0".into()]).expect("SPDX names")
    }

    #[test]
    fn licences_that_fit() {
        for text in ["MIT", "MIT OR GPL-3.0-only", "(MIT OR Apache-2.0) AND Unicode-3.0", "MIT/Apache-2.0"] {
            assert_eq!(judge_licence(&package(Some(text)), &allowed()), None, "{text}");
        }
    }

    #[test]
    fn licences_that_are_refused() {
        for text in ["GPL-3.0-only", "MIT AND GPL-2.0-or-later", "AGPL-3.0-only OR SSPL-1.0", "Apache-2.0 AND MPL-2.0"]
        {
            assert_eq!(
                judge_licence(&package(Some(text)), &allowed()),
                Some(format!("p 1.0.0: licence \"{text}\" is not satisfied by deny.toml's list"))
            );
        }
        assert_eq!(judge_licence(&package(None), &allowed()), Some("p 1.0.0: no licence expression".into()));
        let nonsense = judge_licence(&package(Some("free as in beer")), &allowed()).expect("a problem");
        assert!(nonsense.starts_with("p 1.0.0: licence \"free as in beer\": "), "{nonsense}");
    }

    #[test]
    fn only_the_named_registry_is_a_source() {
        let registries = ["https://github.com/rust-lang/crates.io-index".to_string()];
        let from = |source: &str| Package { source: Some(source.into()), ..package(None) };
        let crates_io = from("registry+https://github.com/rust-lang/crates.io-index");
        assert_eq!(judge_source(&package(None), &registries), None);
        assert_eq!(judge_source(&crates_io, &registries), None);
        for source in ["git+https://github.com/someone/p", "registry+https://example.org/index"] {
            assert_eq!(
                judge_source(&from(source), &registries),
                Some(format!("p 1.0.0: source {source} is not allowed"))
            );
        }
    }

    #[test]
    fn native_code_is_refused() {
        let bans = [Ban { name: "cc".into(), reason: "compiles C".into() }];
        assert_eq!(judge_native(&package(None), &bans), None);
        let cc = Package { name: "cc".into(), ..package(None) };
        assert_eq!(judge_native(&cc, &bans), Some("cc 1.0.0: banned: compiles C".into()));
        let zlib = Package { links: Some("z".into()), ..package(None) };
        assert_eq!(judge_native(&zlib, &bans), Some("p 1.0.0: links the native library z".into()));
    }

    #[test]
    fn what_only_tests_need_is_not_shipped() {
        let text = r#"{
            "packages": [
                {"id": "b", "name": "boathook", "version": "0.1.0"}, {"id": "n", "name": "n", "version": "1.0.0"},
                {"id": "c", "name": "cc", "version": "1.0.0"}, {"id": "d", "name": "d", "version": "1.0.0"}
            ],
            "resolve": {"nodes": [
                {"id": "b", "deps": [{"pkg": "n", "dep_kinds": [{"kind": null}]},
                                     {"pkg": "d", "dep_kinds": [{"kind": "dev"}]}]},
                {"id": "n", "deps": [{"pkg": "c", "dep_kinds": [{"kind": "build"}]}]},
                {"id": "c", "deps": []}, {"id": "d", "deps": []}
            ]}
        }"#;
        let metadata: Metadata = serde_json::from_str(text).expect("well-formed");
        let names: Vec<&str> = shipped_packages(&metadata).iter().map(|package| package.name.as_str()).collect();
        assert_eq!(names, ["boathook", "n", "cc"]);
    }
}
