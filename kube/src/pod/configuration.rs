//! Where a container's configuration comes from: which file boathook looks for, which mount brings it, and what is in it,
//! as far as ConfigMaps, Secrets and kustomize's generators are among the documents.

use std::path::{Component, Path as File, PathBuf};

use base64::{Engine, prelude::BASE64_STANDARD};
use boathook::config::USUAL_PLACE;
use k8s_openapi::api::core::v1::{Container, KeyToPath, PodSpec, Volume};
use serde_json::Value;

use crate::document::Document;

/// A mounted ConfigMap holds at most 1 MiB (Kubernetes' limit).
const LARGEST: u64 = 1 << 20;

/// What the file is called where nobody says otherwise.
const USUAL_NAME: &str = "boathook.toml";

/// The documents as a pod sees them.
#[derive(Clone, Copy)]
pub struct View<'d> {
    pub all: &'d [Document],
    /// The pod's own; a pod takes ConfigMaps and Secrets of its own namespace only.
    pub namespace: Option<&'d str>,
}

impl<'d> View<'d> {
    /// As this document sees all.
    pub fn of(document: &'d Document, all: &'d [Document]) -> Self {
        Self { all, namespace: namespace_of(document) }
    }

    /// Those that are not in another namespace, as far as that is written.
    fn near(self) -> impl Iterator<Item = &'d Document> {
        self.all.iter().filter(move |document| match (self.namespace, namespace_of(document)) {
            (Some(own), Some(other)) => own == other,
            _ => true,
        })
    }
}

fn namespace_of(document: &Document) -> Option<&str> {
    document.value["metadata"]["namespace"].as_str().filter(|namespace| !namespace.is_empty())
}

/// A text and where it was found: `ConfigMap boathook: boathook.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    pub from: String,
    pub text: String,
}

/// Which file boathook looks for in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub path: PathBuf,
    pub named_by: NamedBy,
}

/// Who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedBy {
    CommandLine,
    Environment,
    /// Nobody: the usual place, and no file there means the defaults.
    Nobody,
}

/// What is mounted at that place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mounted {
    /// The configuration, and it is among what was read.
    Text(Text),
    /// Something that is not among what was read: `ConfigMap boathook`.
    Unread(String),
    /// The mount with this index covers the place, but the file will not be there: why. The text is what was probably meant.
    /// Not certain: it may come from something that was not read after all.
    Wrong { mount: usize, why: String, meant: Option<Text>, is_certain: bool },
    /// Nothing. A configuration that no mount brings to the place was probably meant for it.
    Nothing { meant: Option<Meant> },
}

/// A configuration that does not come to where boathook looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meant {
    pub text: Text,
    /// Where it comes to instead, and by which mount; `None`: this container does not mount it at all.
    pub at: Option<(usize, PathBuf)>,
    /// The volume that has it.
    pub volume: Option<String>,
    /// The ConfigMap that has it, where no volume does.
    pub map: Option<String>,
}

/// The files that a volume brings, by their paths in it.
enum Files {
    Known(Vec<(PathBuf, Text)>),
    /// Its files are not among what was read.
    Unread(String),
}

/// What is mounted where boathook looks.
pub fn mounted(place: &Place, container: &Container, spec: &PodSpec, documents: View<'_>) -> Mounted {
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    let volumes = spec.volumes.as_deref().unwrap_or_default();
    let covers = |index: &usize| place.path.starts_with(&mounts[*index].mount_path);
    let longest = |index: &usize| File::new(&mounts[*index].mount_path).components().count();
    let Some(index) = (0..mounts.len()).filter(covers).max_by_key(longest) else {
        return Mounted::Nothing { meant: meant(place, container, spec, documents) };
    };
    let mount = &mounts[index];
    let Some(volume) = volumes.iter().find(|volume| volume.name == mount.name) else {
        // A StatefulSet's claims are volumes without being listed.
        return Mounted::Unread(format!("volume {}", mount.name));
    };
    let inside = place.path.strip_prefix(&mount.mount_path).unwrap_or(File::new(""));
    let in_volume = match (&mount.sub_path, &mount.sub_path_expr) {
        (_, Some(_)) => return Mounted::Unread(format!("volume {}", mount.name)),
        (Some(sub_path), None) => join(File::new(sub_path), inside),
        (None, None) => inside.to_path_buf(),
    };
    let files = match files(volume, documents) {
        Files::Known(files) => files,
        Files::Unread(from) => {
            return match unused(&in_volume, documents) {
                // A ConfigMap of another name is there, and for nobody.
                Some((other, text)) if from.starts_with("ConfigMap ") => Mounted::Wrong {
                    mount: index,
                    why: format!(
                        "its volume is of {from}, which is not among the documents, and nobody takes the file from {other}"
                    ),
                    meant: Some(text),
                    is_certain: false,
                },
                _ => elsewhere(&from, index, &in_volume, documents).unwrap_or(Mounted::Unread(from)),
            };
        }
    };
    if let Some((_, text)) = files.iter().find(|(path, _)| *path == in_volume) {
        return Mounted::Text(text.clone());
    }
    let names: Vec<String> = files.iter().map(|(path, _)| path.display().to_string()).collect();
    let names = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    let why = if in_volume.as_os_str().is_empty() {
        format!("the whole volume {} is mounted there, so that it is a folder with {names} in it", mount.name)
    } else {
        format!("the volume {} holds {names}, and not {}", mount.name, in_volume.display())
    };
    let mut files = files.into_iter().map(|(_, text)| text);
    let meant = match (files.next(), files.next()) {
        (Some(only), None) => Some(only),
        (Some(first), Some(second)) => {
            [first, second].into_iter().chain(files).find(|text| text.from.contains(USUAL_NAME))
        }
        (None, _) => None,
    };
    Mounted::Wrong { mount: index, why, meant, is_certain: true }
}

/// The same object in another namespace.
fn elsewhere(from: &str, mount: usize, in_volume: &File, documents: View<'_>) -> Option<Mounted> {
    let (kind, name) = from.split_once(' ')?;
    let other = documents.all.iter().find(|document| document.kind() == kind && document.name() == name)?;
    let there = View::of(other, documents.all);
    let entry = entries(kind, name, there)?.into_iter().find(|(key, _)| File::new(key) == in_volume);
    let namespace = there.namespace.unwrap_or_default();
    let why = format!(
        "its volume is of {from}, which is in the namespace {namespace}, and a pod takes those of its own only"
    );
    Some(Mounted::Wrong { mount, why, meant: entry.map(|(_, text)| text), is_certain: false })
}

/// A configuration that is there, and that nothing brings to where boathook looks.
fn meant(place: &Place, container: &Container, spec: &PodSpec, documents: View<'_>) -> Option<Meant> {
    // Who names another file may have meant the usual one.
    let own = place.path.file_name().map(File::new)?;
    let usual = File::new(USUAL_NAME);
    let looked = meant_as(own, container, spec, documents);
    if own == usual { looked } else { looked.or_else(|| meant_as(usual, container, spec, documents)) }
}

fn meant_as(name: &File, container: &Container, spec: &PodSpec, documents: View<'_>) -> Option<Meant> {
    let volumes = spec.volumes.as_deref().unwrap_or_default();
    let in_volume = |volume: &Volume| match files(volume, documents) {
        Files::Known(files) => files.into_iter().find(|(path, _)| path == name),
        Files::Unread(_) => None,
    };
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let volume = volumes.iter().find(|volume| volume.name == mount.name);
        if let Some((path, text)) = volume.and_then(in_volume) {
            let at = match &mount.sub_path {
                Some(sub_path) if File::new(sub_path) == path => PathBuf::from(&mount.mount_path),
                Some(_) => continue,
                None => join(File::new(&mount.mount_path), &path),
            };
            return Some(Meant { text, at: Some((index, at)), volume: Some(mount.name.clone()), map: None });
        }
    }
    // One that another container mounts is that one's.
    let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let used: Vec<&str> =
        all.flat_map(|other| other.volume_mounts.iter().flatten()).map(|mount| mount.name.as_str()).collect();
    let mut free = volumes.iter().filter(|volume| !used.contains(&volume.name.as_str()));
    let volume = free.find_map(|volume| Some((volume.name.clone(), in_volume(volume)?.1)));
    if let Some((volume, text)) = volume {
        return Some(Meant { text, at: None, volume: Some(volume), map: None });
    }
    let (map, text) = unused(name, documents)?;
    Some(Meant { text, at: None, volume: None, map: Some(map) })
}

/// The one ConfigMap with such a file that no pod takes anything from, as when its volume was forgotten.
fn unused(name: &File, documents: View<'_>) -> Option<(String, Text)> {
    let mut unused = documents.near().filter(|document| document.kind() == "ConfigMap").filter_map(|document| {
        let text = document.value["data"][name.to_str()?].as_str()?;
        let from = format!("ConfigMap {}: {}", document.name(), name.display());
        (!is_named(documents, document.name())).then(|| (document.name().to_owned(), Text { from, text: text.into() }))
    });
    match (unused.next(), unused.next()) {
        (Some(found), None) => Some(found),
        _ => None,
    }
}

/// Whether any pod among the documents takes something from the ConfigMap.
fn is_named(documents: View<'_>, name: &str) -> bool {
    fn names(value: &Value, name: &str) -> bool {
        match value {
            Value::Object(mapping) => mapping.iter().any(|(key, value)| {
                let refers = matches!(key.as_str(), "configMap" | "configMapRef" | "configMapKeyRef");
                refers && value["name"].as_str().is_some_and(|other| is_same(other, name)) || names(value, name)
            }),
            Value::Array(list) => list.iter().any(|value| names(value, name)),
            _ => false,
        }
    }
    documents.near().any(|document| names(&document.value, name))
}

/// `join` of the standard library makes `a/` of `a` and nothing.
fn join(folder: &File, inside: &File) -> PathBuf {
    let normal = |part: &Component<'_>| !matches!(part, Component::CurDir);
    folder.components().chain(inside.components()).filter(normal).collect()
}

fn files(volume: &Volume, documents: View<'_>) -> Files {
    let one = |kind: &str, name: &str, items: Option<&[KeyToPath]>| match entries(kind, name, documents) {
        Some(entries) => Files::Known(pick(entries, items)),
        None => Files::Unread(format!("{kind} {name}")),
    };
    if let Some(map) = &volume.config_map {
        return one("ConfigMap", &map.name, map.items.as_deref());
    }
    if let Some(secret) = &volume.secret {
        return one("Secret", secret.secret_name.as_deref().unwrap_or_default(), secret.items.as_deref());
    }
    let Some(projected) = &volume.projected else { return Files::Unread(format!("volume {}", volume.name)) };
    let mut all = Vec::new();
    for source in projected.sources.iter().flatten() {
        let files = match (&source.config_map, &source.secret) {
            (Some(map), _) => one("ConfigMap", &map.name, map.items.as_deref()),
            (_, Some(secret)) => one("Secret", &secret.name, secret.items.as_deref()),
            // The pod's own fields, and service account tokens: no configuration.
            _ => continue,
        };
        match files {
            Files::Known(files) => all.extend(files),
            unread @ Files::Unread(_) => return unread,
        }
    }
    Files::Known(all)
}

/// With `items` only those keys, at the paths that they name.
fn pick(entries: Vec<(String, Text)>, items: Option<&[KeyToPath]>) -> Vec<(PathBuf, Text)> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return entries.into_iter().map(|(key, text)| (key.into(), text)).collect();
    };
    let path_of = |item: &KeyToPath| {
        let (_, text) = entries.iter().find(|(key, _)| *key == item.key)?;
        Some((PathBuf::from(&item.path), text.clone()))
    };
    items.iter().filter_map(path_of).collect()
}

/// The entries of a ConfigMap or a Secret; `None`: it is not among the documents.
pub fn entries(kind: &str, name: &str, documents: View<'_>) -> Option<Vec<(String, Text)>> {
    let own = |document: &&Document| document.kind() == kind && is_same(name, document.name());
    if let Some(document) = documents.near().find(own) {
        let from = |key: &String| format!("{kind} {}: {key}", document.name());
        let texts = |field: &str| document.value[field].as_object().into_iter().flatten();
        let mut entries: Vec<(String, Text)> = Vec::new();
        for (key, value) in texts("data").chain(texts("stringData")).chain(texts("binaryData")) {
            let text = value.as_str().unwrap_or_default();
            let text = match kind {
                "Secret" if document.value["stringData"][key].is_null() => {
                    let bytes = BASE64_STANDARD.decode(text.trim()).unwrap_or_default();
                    String::from_utf8(bytes).unwrap_or_default()
                }
                _ => text.into(),
            };
            entries.push((key.clone(), Text { from: from(key), text }));
        }
        return Some(entries);
    }
    let generator = if kind == "Secret" { "secretGenerator" } else { "configMapGenerator" };
    documents.near().find_map(|document| {
        let generators = document.value[generator].as_array()?;
        let own = generators.iter().find(|own| own["name"].as_str().is_some_and(|own| is_same(name, own)))?;
        generated(document, kind, own)
    })
}

/// What a kustomization generates; `None`: one of its files cannot be read from here.
fn generated(document: &Document, kind: &str, generator: &Value) -> Option<Vec<(String, Text)>> {
    let name = generator["name"].as_str()?;
    let entry = |key: &str, text: String| (key.to_owned(), Text { from: format!("{kind} {name}: {key}"), text });
    let mut entries = Vec::new();
    for literal in generator["literals"].as_array().into_iter().flatten() {
        let (key, value) = literal.as_str()?.split_once('=')?;
        entries.push(entry(key, value.into()));
    }
    for file in generator["files"].as_array().into_iter().flatten() {
        let file = file.as_str()?;
        let (key, path) = match file.split_once('=') {
            Some((key, path)) => (key, path),
            None => (File::new(file).file_name()?.to_str()?, file),
        };
        let folder = File::new(&document.file).parent()?;
        entries.push(entry(key, read_text(&folder.join(path))?));
    }
    Some(entries)
}

fn read_text(path: &File) -> Option<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(LARGEST).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Whether two names mean the same object: kustomize adds a hash of ten characters to what it generates.
fn is_same(one: &str, other: &str) -> bool {
    let with_hash = |long: &str, short: &str| {
        long.strip_prefix(short).and_then(|rest| rest.strip_prefix('-')).is_some_and(|hash| {
            (7..=10).contains(&hash.len())
                && hash.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
                && hash.bytes().any(|byte| byte.is_ascii_digit())
        })
    };
    one == other || with_hash(one, other) || with_hash(other, one)
}

/// Where boathook looks, by the `--config` of its command line, the container's BOATHOOK_CONFIG, or as usual.
pub fn place(by_command_line: Option<&File>, by_environment: Option<&str>) -> Place {
    match (by_command_line, by_environment.filter(|path| !path.is_empty())) {
        (Some(path), _) => Place { path: path.into(), named_by: NamedBy::CommandLine },
        (None, Some(path)) => Place { path: path.into(), named_by: NamedBy::Environment },
        (None, None) => Place { path: USUAL_PLACE.into(), named_by: NamedBy::Nobody },
    }
}
