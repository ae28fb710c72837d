//! What a binary is made of, in two forms: inside it, as `cargo auditable` writes it, so that scanners see boathook's
//! crates in every image that it was copied into; and as a CycloneDX file beside it. Both say the same for the same
//! sources: no time, no serial number, no path.

use serde_json::{Value, json};

use crate::graph::{Crate, Graph, Name};

/// The section that scanners look for (cargo-auditable, PARSING.md): JSON, packed by zlib.
pub const SECTION: &str = ".dep-v0";
/// As small as it gets; it happens once a build.
const HARDEST: u8 = 10;

/// The section's content for the binary of the package `root`.
pub fn auditable(graph: &Graph, root: &str) -> Vec<u8> {
    let place = |name: &Name| graph.keys().position(|other| other == name);
    let package = |found: &Crate| {
        let mut package = json!({
            "name": found.name.name,
            "version": found.name.version,
            "source": if found.local { "local" } else { "crates.io" },
        });
        let dependencies: Vec<usize> = found.dependencies.iter().filter_map(place).collect();
        if found.build_only {
            package["kind"] = "build".into();
        }
        if !dependencies.is_empty() {
            package["dependencies"] = dependencies.into();
        }
        if is_root(found, root) {
            package["root"] = true.into();
        }
        package
    };
    // Format 1: what procedural macros need counts as needed for the build, not as part of the binary.
    let all = json!({"packages": graph.values().map(package).collect::<Vec<_>>(), "format": 1});
    miniz_oxide::deflate::compress_to_vec_zlib(all.to_string().as_bytes(), HARDEST)
}

/// A CycloneDX 1.5 document for the binary of the package `root`.
pub fn cyclonedx(graph: &Graph, root: &str, target: &str) -> String {
    let component = |found: &Crate| {
        let mut component = json!({
            "type": "library",
            "bom-ref": reference(&found.name),
            "name": found.name.name,
            "version": found.name.version,
            "purl": reference(&found.name),
            // "Excluded" is the specification's word for what is needed to build and is not there at run time.
            "scope": if found.build_only { "excluded" } else { "required" },
            "licenses": [{"expression": expression(&found.licence)}],
        });
        if let Some(checksum) = &found.checksum {
            component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
        }
        component
    };
    let main = graph.values().find(|found| is_root(found, root)).map(|found| {
        let mut main = component(found);
        main["type"] = "application".into();
        main["properties"] = json!([{"name": "target", "value": target}]);
        main
    });
    let components: Vec<Value> = graph.values().filter(|found| !is_root(found, root)).map(component).collect();
    let edges = |found: &Crate| {
        let on: Vec<String> = found.dependencies.iter().map(reference).collect();
        json!({"ref": reference(&found.name), "dependsOn": on})
    };
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": main},
        "components": components,
        "dependencies": graph.values().map(edges).collect::<Vec<_>>(),
    });
    format!("{document:#}\n")
}

fn is_root(found: &Crate, root: &str) -> bool {
    found.local && found.name.name == root
}

/// A package URL (purl-spec), in which the plus sign of a version's build metadata has to be escaped.
fn reference(name: &Name) -> String {
    format!("pkg:cargo/{}@{}", name.name, name.version.replace('+', "%2B"))
}

/// Before the expression language was settled, cargo took "MIT/Apache-2.0" as "either".
fn expression(licence: &str) -> String {
    licence.replace('/', " OR ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn small() -> Graph {
        let name = |name: &str, version: &str| Name { name: name.into(), version: version.into() };
        let one = |of: &Name, local, build_only, dependencies: &[&Name]| Crate {
            name: of.clone(),
            licence: "MIT/Apache-2.0".into(),
            local,
            build_only,
            checksum: (!local).then(|| "00ff".into()),
            dependencies: dependencies.iter().map(|name| (*name).clone()).collect::<BTreeSet<_>>(),
        };
        let (root, used, tool) = (name("a", "0.1.0"), name("b", "1.0.0+x"), name("c", "2.0.0"));
        [one(&root, true, false, &[&used, &tool]), one(&used, false, false, &[]), one(&tool, false, true, &[&used])]
            .map(|found| (found.name.clone(), found))
            .into()
    }

    #[test]
    fn the_section_says_who_needs_whom() {
        let plain = miniz_oxide::inflate::decompress_to_vec_zlib(&auditable(&small(), "a")).expect("packed");
        let value: Value = serde_json::from_slice(&plain).expect("JSON");
        assert_eq!(
            value,
            json!({"format": 1, "packages": [
                {"name": "a", "version": "0.1.0", "source": "local", "dependencies": [1, 2], "root": true},
                {"name": "b", "version": "1.0.0+x", "source": "crates.io"},
                {"name": "c", "version": "2.0.0", "source": "crates.io", "kind": "build", "dependencies": [1]},
            ]})
        );
    }

    #[test]
    fn the_document_says_the_same() {
        let value: Value = serde_json::from_str(&cyclonedx(&small(), "a", "x86_64-linux")).expect("JSON");
        assert_eq!(value["metadata"]["component"]["purl"], "pkg:cargo/a@0.1.0");
        assert_eq!(value["components"][0]["purl"], "pkg:cargo/b@1.0.0%2Bx");
        assert_eq!(value["components"][0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(value["components"][0]["hashes"][0]["content"], "00ff");
        assert_eq!(value["components"][1]["scope"], "excluded");
        assert_eq!(value["dependencies"][0]["dependsOn"], json!(["pkg:cargo/b@1.0.0%2Bx", "pkg:cargo/c@2.0.0"]));
    }
}
