//! YAML text as documents, with the line of everything in them.

pub(crate) mod scalar;
pub(crate) mod tree;
mod values;

use std::{fmt, io::Read, sync::Arc};

use saphyr_parser::ScalarStyle;
use serde_json::Value;

use self::{
    tree::{Kind, Tree, Trees, Wrong},
    values::{Place, Places},
};
use crate::path::{Path, Segment};

/// The most that is read from one file. A whole cluster's Deployments are a few megabytes; etcd takes 1.5 MiB an object.
pub const LARGEST: usize = 64 << 20;

/// One document of a stream; an item of a `List` is one of its own.
#[derive(Debug)]
pub struct Document {
    /// The file as typed, or `stdin`.
    pub file: String,
    /// Index of its file among those that were read.
    pub file_index: usize,
    pub value: Value,
    /// What to put before a path in `value` to have it in the file's document: `items[3]` for an item of a List,
    /// `patches[0].patch` for a kustomization's inline patch.
    pub prefix: Path,
    /// Which of the text's documents it is in, counted from 0, empty ones too.
    pub(crate) tree_index: usize,
    places: Arc<Places>,
    place: Place,
    /// Lines above the text that `places` counts in: those above an inline patch.
    above: usize,
}

/// Why a text cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    pub file: String,
    pub line: Option<usize>,
    pub what: String,
    pub help: Option<String>,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.what)?;
        self.help.as_ref().map_or(Ok(()), |help| write!(f, "\n  help: {help}"))
    }
}

/// The text of a file.
///
/// # Errors
/// It cannot be read, is too large, or is no text.
pub fn text(file: &str, from: impl Read) -> Result<String, Unreadable> {
    let unreadable = |line, what: String, help: Option<&str>| Unreadable {
        file: file.into(),
        line,
        what,
        help: help.map(Into::into),
    };
    let mut bytes = Vec::new();
    from.take(LARGEST as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(None, format!("cannot be read: {error}"), None))?;
    if bytes.len() > LARGEST {
        let what = format!("has more than {} MiB, the most that is read", LARGEST >> 20);
        return Err(unreadable(None, what, Some("give it in parts")));
    }
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(unreadable(Some(1), "is UTF-16, and Kubernetes reads UTF-8".into(), Some("save it as UTF-8")));
    }
    let line_of = |end: usize| bytes[..end].iter().filter(|byte| **byte == b'\n').count() + 1;
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        let help = "give the manifest itself: YAML or JSON, not compressed";
        return Err(unreadable(Some(line_of(at)), "is binary: it has a zero byte".into(), Some(help)));
    }
    if let Err(error) = std::str::from_utf8(&bytes) {
        return Err(unreadable(
            Some(line_of(error.valid_up_to())),
            "is not UTF-8".into(),
            Some("give the manifest itself, saved as UTF-8, not compressed"),
        ));
    }
    String::from_utf8(bytes).map_err(|error| unreadable(None, error.to_string(), None))
}

/// All documents in a text; empty ones are left out.
///
/// # Errors
/// The text is not YAML (a Helm template before it was rendered, for example).
pub fn read(file: &str, file_index: usize, text: &str) -> Result<Vec<Document>, Unreadable> {
    let mut documents = Vec::new();
    for (tree_index, tree) in Trees::of(text).enumerate() {
        tree.and_then(|tree| one(file, file_index, tree_index, &tree, &mut documents))
            .map_err(|wrong| unreadable(file, text, wrong))?;
    }
    Ok(documents)
}

fn one(
    file: &str,
    file_index: usize,
    tree_index: usize,
    tree: &Tree<'_>,
    documents: &mut Vec<Document>,
) -> Result<(), Wrong> {
    let mut places = Places::default();
    let (value, place) = values::values(tree, &mut places)?;
    if value.is_null() {
        return Ok(());
    }
    if !value.is_object() {
        let kind = if value.is_array() { "a list" } else { "plain text" };
        return Err(Wrong::new(place.line as usize, format!("is {kind}, and a manifest is a mapping (`kind: …`)")));
    }
    let document = Document {
        file: file.into(),
        file_index,
        value,
        prefix: Path::default(),
        tree_index,
        places: Arc::new(places),
        place,
        above: 0,
    };
    let patches = patches(tree, &document)?;
    items(document, documents);
    documents.extend(patches);
    Ok(())
}

/// A document, or the items of a List, which may be Lists themselves.
fn items(mut document: Document, documents: &mut Vec<Document>) {
    if !(document.kind().ends_with("List") && document.value["items"].is_array()) {
        documents.push(document);
        return;
    }
    let path = Path::default().at("items");
    let count = document.value["items"].as_array().map_or(0, Vec::len);
    let places: Vec<_> = (0..count).map(|index| document.place(&path.at(index)).0).collect();
    let Value::Array(items) = document.value["items"].take() else { return };
    for ((index, value), place) in items.into_iter().enumerate().zip(places) {
        let item = Document {
            file: document.file.clone(),
            value,
            prefix: document.prefix.at("items").at(index),
            places: Arc::clone(&document.places),
            place,
            ..document
        };
        if item.value.is_object() {
            self::items(item, documents);
        }
    }
}

/// The patches that a kustomization writes as text within itself; those in JSON 6902's form are lists and are left out.
fn patches(tree: &Tree<'_>, document: &Document) -> Result<Vec<Document>, Wrong> {
    if !matches!(document.kind(), "Kustomization" | "Component" | "") {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for (list, key) in [("patches", Some("patch")), ("patchesStrategicMerge", None)] {
        let count = document.value[list].as_array().map_or(0, Vec::len);
        for index in 0..count {
            let mut path = Path::default().at(list).at(index);
            if let Some(key) = key {
                path = path.at(key);
            }
            let Some(patch) = Embedded::at(tree, &path) else { continue };
            let inner = Trees::of(&patch.text).enumerate();
            for (tree_index, tree) in inner {
                let here = |wrong: Wrong| Wrong { line: wrong.line + patch.above, ..wrong };
                let tree = tree.map_err(here)?;
                let mut places = Places::default();
                let (value, place) = values::values(&tree, &mut places).map_err(here)?;
                // A patch has several documents only in old kustomizations, and no way to name the second.
                if value.is_object() && tree_index == 0 {
                    found.push(Document {
                        file: document.file.clone(),
                        value,
                        prefix: path.clone(),
                        places: Arc::new(places),
                        place,
                        above: patch.above,
                        ..*document
                    });
                }
            }
        }
    }
    Ok(found)
}

/// The value alone.
pub(crate) fn value_of(tree: &Tree<'_>) -> Result<Value, Wrong> {
    values::values(tree, &mut Places::default()).map(|(value, _)| value)
}

/// YAML within a scalar of YAML.
pub(crate) struct Embedded {
    /// Without the outer indentation.
    pub text: String,
    /// Lines above it in the file.
    pub above: usize,
}

impl Embedded {
    /// The text that stands there as a block (`|`); a text in quotes has no lines of its own and is not looked into.
    pub fn at(tree: &Tree<'_>, path: &Path) -> Option<Self> {
        let mut id = tree.root;
        for segment in &path.0 {
            id = tree.child(id, segment)?;
        }
        let node = tree.node(id);
        let Kind::Scalar(value, ScalarStyle::Literal, _) = &node.kind else { return None };
        // The text begins in the line after the `|`.
        Some(Self { text: value.to_string(), above: node.line })
    }
}

fn unreadable(file: &str, text: &str, wrong: Wrong) -> Unreadable {
    // A template that happens to be YAML is read as such: only what cannot be read is looked at again.
    let template = text.lines().position(|line| {
        let line = line.trim_start();
        line.starts_with("{{") || line.contains(": {{") || line.contains("- {{")
    });
    match template {
        Some(index) => Unreadable {
            file: file.into(),
            line: Some(index + 1),
            what: "is a template (`{{ … }}`), and only what it renders to can be checked".into(),
            help: Some("render it first: helm template … | boathook check --pod -".into()),
        },
        None => Unreadable { file: file.into(), line: Some(wrong.line), what: wrong.what, help: None },
    }
}

impl Document {
    /// `Deployment`; empty where it has none.
    pub fn kind(&self) -> &str {
        self.value["kind"].as_str().unwrap_or_default()
    }

    /// `metadata.name`; empty where it has none.
    pub fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// Its text is a scalar of another document.
    pub(crate) fn is_embedded(&self) -> bool {
        self.above > 0
    }

    /// The line in the file, counted from 1, of what stands there; where nothing does, of the nearest thing above it.
    /// A thing in a mapping stands where its key is.
    pub fn line(&self, path: &Path) -> usize {
        self.place(path).0.line as usize + self.above
    }

    /// The deepest place on the way, and its value.
    fn place(&self, path: &Path) -> (Place, &Value) {
        let (mut value, mut place) = (&self.value, self.place);
        for segment in &path.0 {
            let Some(next) = self.places.child(value, place, segment) else { break };
            let inner = match segment {
                Segment::Key(key) => value.get(key),
                Segment::Index(index) => value.get(index),
            };
            let Some(inner) = inner else { break };
            (value, place) = (inner, next);
        }
        (place, value)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn path(text: &str) -> Path {
        let mut path = Path::default();
        for part in text.split('.').filter(|part| !part.is_empty()) {
            path = match part.parse::<usize>() {
                Ok(index) => path.at(index),
                Err(_) => path.at(part),
            };
        }
        path
    }

    fn values(text: &str) -> Vec<Value> {
        read("f", 0, text).unwrap().into_iter().map(|document| document.value).collect()
    }

    fn error(text: &str) -> (usize, String) {
        let error = read("f", 0, text).unwrap_err();
        (error.line.unwrap(), error.what)
    }

    #[test]
    fn streams_of_every_kind() {
        for (text, expected) in [
            ("", vec![]),
            ("# nothing\n", vec![]),
            ("---\n# nothing\n---\n...\n", vec![]),
            ("a: 1\n", vec![json!({"a": 1})]),
            (
                "---\na: 1\n---\n\n---\nb: [1, two, 'three']\n...\n---\nc:\n- d\n",
                vec![json!({"a": 1}), json!({"b": [1, "two", "three"]}), json!({"c": ["d"]})],
            ),
            ("a: 1\r\nb: |\r\n  x\r\n  y\r\nc: >-\r\n  x\r\n  y\r\n", vec![json!({"a": 1, "b": "x\ny\n", "c": "x y"})]),
            ("\u{feff}a: 1\n", vec![json!({"a": 1})]),
            ("\u{feff}---\na: 1\n", vec![json!({"a": 1})]),
            (
                "{\n\t\"a\": [1, 2.50, \"\\u003cx\\/\"],\n\t\"b\": null\n}\n",
                vec![json!({"a": [1, 2.5, "<x/"], "b": null})],
            ),
            (
                "a: &x {b: 1}\nc: *x\nd:\n  <<: *x\n  b: 2\n  e: 3\n",
                vec![json!({"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 2, "e": 3}})],
            ),
            (
                "x: &x {a: 1, b: 1}\nw: &y {b: 2, c: 2}\nz: {<<: [*x, *y], c: 3}\n",
                vec![json!({"x": {"a": 1, "b": 1}, "w": {"b": 2, "c": 2}, "z": {"a": 1, "b": 1, "c": 3}})],
            ),
            ("1: a\ntrue: b\n'<<': c\n", vec![json!({"1": "a", "true": "b", "<<": "c"})]),
            ("a: !!str 1\nb: !custom 2\nc: \"3\"\n", vec![json!({"a": "1", "b": "2", "c": "3"})]),
        ] {
            assert_eq!(values(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_says_where_and_why() {
        for (text, line, what) in [
            ("a: 1\nb: 2\na: 3\n", 3, "key `a` stands twice, first in line 1"),
            ("a: [1\nb: 2\n", 2, "is not YAML: "),
            ("a: 1\n---\n- b\n", 3, "is a list, and a manifest is a mapping (`kind: …`)"),
            ("hello\n", 1, "is plain text, and a manifest is a mapping (`kind: …`)"),
            ("a: &a [*a]\n", 1, "this alias stands inside of its own anchor"),
            ("a: &a 1\n---\nb: *a\n", 3, ""),
            ("a: *b\n", 1, "is not YAML: while parsing node, found unknown anchor"),
            ("[a]: 1\n", 1, "a mapping or list is a key here"),
            ("a: 1\n: 2\n", 2, "a key is missing before this `:`"),
            ("<<: 1\n", 1, "`<<` merges mappings, and this is none"),
            ("a: .nan\n", 1, "`.nan` is no number that Kubernetes can take"),
            (
                "kind: X\nname: {{ .Values.x }}\n",
                2,
                "is a template (`{{ … }}`), and only what it renders to can be checked",
            ),
            (
                "{{- if .Values.x }}\na: 1\n{{- end }}\n",
                1,
                "is a template (`{{ … }}`), and only what it renders to can be checked",
            ),
        ] {
            let (at, said) = error(text);
            assert!(at == line && said.starts_with(what), "{text:?}: {at}: {said}");
        }
    }

    #[test]
    fn hostile_input_is_refused_at_once() {
        let laughs: String =
            (1..20).map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(","))).collect();
        let cases = [
            (format!("a0: &a0 [x]\n{laughs}"), "its aliases unfold to more than 64 MiB"),
            (
                format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), vec!["*a"; 100].join(",")),
                "its aliases unfold to more than 64 MiB",
            ),
            (format!("a: {}", "[".repeat(100_000)), "recursion limit exceeded"),
            ("- ".repeat(100_000), "is nested deeper than 128 levels"),
            ((0..200).map(|n| format!("{}a:\n", " ".repeat(n))).collect(), "is nested deeper than 128 levels"),
            (
                format!("a0: &a0 []\n{}", (1..200).map(|n| format!("a{n}: &a{n} [*a{}]\n", n - 1)).collect::<String>()),
                "is nested deeper than 128 levels",
            ),
        ];
        for (text, what) in cases {
            let (_, said) = error(&text);
            assert!(said.contains(what), "{}: {said}", &text[..40]);
        }
    }

    #[test]
    fn bytes_that_are_no_text() {
        for (bytes, line, what) in [
            (&b"\xff\xfea\0"[..], 1, "is UTF-16, and Kubernetes reads UTF-8"),
            (b"a: 1\n\x1f\x8b\0", 2, "is binary: it has a zero byte"),
            (b"a: 1\nb: \xe9\n", 2, "is not UTF-8"),
        ] {
            let error = text("f", bytes).unwrap_err();
            assert_eq!((error.line, &*error.what), (Some(line), what));
        }
        let error = text("f", std::io::repeat(b'a')).unwrap_err();
        assert_eq!(error.what, "has more than 64 MiB, the most that is read");
    }

    #[test]
    fn lines_of_everything() {
        let text = "# first\nkind: Pod\nmetadata: {name: x,\n  labels: {a: b}}\nspec:\n  containers:\n  - name: a\n\n    ports:\n    # here\n    - 80\n    - 81\n  -\n    name: b\n---\nkind: Second\n";
        let documents = read("f", 0, text).unwrap();
        for (at, line) in [
            ("", 2),
            ("kind", 2),
            ("metadata.name", 3),
            ("metadata.labels.a", 4),
            ("spec", 5),
            ("spec.containers", 6),
            ("spec.containers.0", 7),
            ("spec.containers.0.ports", 9),
            ("spec.containers.0.ports.0", 11),
            ("spec.containers.0.ports.1", 12),
            ("spec.containers.0.ports.7", 9),
            ("spec.containers.0.lifecycle.preStop", 7),
            ("spec.containers.1.name", 14),
            ("nothing", 2),
        ] {
            assert_eq!(documents[0].line(&path(at)), line, "{at}");
        }
        assert_eq!(documents[1].line(&path("kind")), 16);
    }

    #[test]
    fn what_an_alias_or_a_merge_brings_is_where_it_was_written() {
        let documents = read("f", 0, "x: &x\n  a: 1\n  b: 2\nw: *x\nz:\n  <<: *x\n  c: 3\n").unwrap();
        for (at, line) in [("w", 4), ("w.b", 3), ("z.a", 2), ("z.c", 7), ("z.d", 5)] {
            assert_eq!(documents[0].line(&path(at)), line, "{at}");
        }
    }

    #[test]
    fn items_of_a_list_are_documents() {
        let text = "kind: List\nitems:\n- kind: A\n  metadata: {name: one}\n- kind: List\n  items:\n  - kind: B\n    spec:\n      x: 1\n---\nkind: C\n";
        let documents = read("f", 3, text).unwrap();
        let told: Vec<_> =
            documents.iter().map(|d| (d.kind(), d.prefix.to_string(), d.line(&path("spec.x")))).collect();
        assert_eq!(told, [("A", "items[0]".into(), 3), ("B", "items[1].items[0]".into(), 9), ("C", String::new(), 11)]);
        assert_eq!((documents[0].name(), documents[0].file_index), ("one", 3));
    }

    #[test]
    fn inline_patches_are_documents() {
        let text = "kind: Component\npatches:\n- target: {kind: Deployment}\n  patch: |-\n    # a patch\n    kind: Deployment\n    spec:\n      x: 1\n- patch: |-\n    - op: add\n- path: other.yaml\n";
        let documents = read("f", 0, text).unwrap();
        let told: Vec<_> =
            documents.iter().map(|d| (d.kind(), d.prefix.to_string(), d.line(&path("spec.x")))).collect();
        assert_eq!(told, [("Component", String::new(), 1), ("Deployment", "patches[0].patch".into(), 8)]);
        let (line, what) = error("kind: Component\npatches:\n- patch: |\n    a: 1\n    a: 2\n");
        assert_eq!((line, &*what), (5, "key `a` stands twice, first in line 1"));
    }
}
