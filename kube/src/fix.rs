//! The YAML with the findings' edits in it, comments and order kept; pure.
//!
//! An edit replaces bytes of the text, and nothing else of it is touched. What comes out is read again: it must be
//! exactly the old value with the edit done, or else the edit is refused.

mod render;
mod splice;

use std::{cmp::Reverse, collections::BTreeMap};

use serde_json::{Map, Value};

use self::splice::{Page, Splice};
use crate::{
    document::{
        Document,
        tree::{Kind, Trees},
        value_of,
    },
    finding::Edit,
    path::{Path, Segment},
};

/// One file's text with these edits done; the index says in which of `documents` (all of them of this file).
///
/// # Errors
/// An edit that cannot be done without writing the place anew: what and why.
pub fn apply(text: &str, documents: &[&Document], edits: &[(usize, Edit)]) -> Result<String, String> {
    let mut file = File::of(text)?;
    for (index, edit) in edits {
        let document = documents.get(*index).ok_or("there is no such document")?;
        file.edit(document, std::slice::from_ref(edit))?;
    }
    Ok(file.text())
}

/// A text in parts, one for each document, so that an edit reads only its own again.
pub(crate) struct File {
    parts: Vec<String>,
}

impl File {
    pub fn of(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut start = 0;
        for tree in Trees::of(text) {
            let end = tree.map_err(|wrong| wrong.what)?.end;
            parts.push(text.get(start..end).unwrap_or_default().to_owned());
            start = end;
        }
        parts.push(text.get(start..).unwrap_or_default().to_owned());
        Ok(Self { parts })
    }

    pub fn text(&self) -> String {
        self.parts.concat()
    }

    /// Does each group of edits whole or not at all; gives why for each that is refused.
    pub fn edit_each(&mut self, groups: &[(&Document, &[Edit])]) -> Vec<Option<String>> {
        let mut refusals = vec![None; groups.len()];
        let mut together: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut alone = Vec::new();
        for (index, (document, edits)) in groups.iter().enumerate() {
            if document.is_embedded() || edits.iter().any(|edit| removed_index(edit).is_some()) {
                alone.push(index);
            } else {
                together.entry(document.tree_index).or_default().push(index);
            }
        }
        for indices in together.values() {
            self.edit_together(groups, indices, &mut refusals);
        }
        // An item that goes changes the numbers of those behind it: these come last, the hindmost first.
        alone.sort_by_key(|index| groups[*index].1.iter().find_map(removed_index).map(Reverse));
        for index in alone {
            let (document, edits) = groups[index];
            refusals[index] = self.edit(document, edits).err();
        }
        refusals
    }

    /// A List of a whole cluster is one document: reading it again for each of hundreds of findings would take minutes.
    /// So all are done at once, and where that cannot be, the halves.
    fn edit_together(&mut self, groups: &[(&Document, &[Edit])], indices: &[usize], refusals: &mut [Option<String>]) {
        match indices {
            [] => {}
            [index] => {
                let (document, edits) = groups[*index];
                refusals[*index] = self.edit(document, edits).err();
            }
            [first, ..] => {
                let edits: Vec<Edit> = indices
                    .iter()
                    .flat_map(|index| groups[*index].1.iter().map(|edit| under(edit, &groups[*index].0.prefix)))
                    .collect();
                let part = self.parts.get_mut(groups[*first].0.tree_index);
                if let Some(part) = part
                    && let Ok(text) = edited(part, &edits, Effort::Once)
                {
                    *part = text;
                    return;
                }
                let (one, other) = indices.split_at(indices.len() / 2);
                self.edit_together(groups, one, refusals);
                self.edit_together(groups, other, refusals);
            }
        }
    }

    /// All or none.
    fn edit(&mut self, document: &Document, edits: &[Edit]) -> Result<(), String> {
        let part = self.parts.get_mut(document.tree_index).ok_or("there is no such document")?;
        let mut text = part.clone();
        for edit in edits {
            text = if document.is_embedded() {
                embedded(&text, &document.prefix, edit)?
            } else {
                edited(&text, &[under(edit, &document.prefix)], Effort::StepByStep)?
            };
        }
        *part = text;
        Ok(())
    }
}

/// The list's item that goes.
fn removed_index(edit: &Edit) -> Option<&Path> {
    match edit {
        Edit::Remove(path) if matches!(path.0.last(), Some(Segment::Index(_))) => Some(path),
        _ => None,
    }
}

/// The same edit, seen from further up.
fn under(edit: &Edit, prefix: &Path) -> Edit {
    let join = |path: &Path| Path(prefix.0.iter().chain(&path.0).cloned().collect());
    match edit {
        Edit::Set(path, value) => Edit::Set(join(path), value.clone()),
        Edit::Append(path, value) => Edit::Append(join(path), value.clone()),
        Edit::Remove(path) => Edit::Remove(join(path)),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Effort {
    /// All steps by the positions of one reading.
    Once,
    /// If that is not what is wanted: each step by a reading of its own.
    StepByStep,
}

/// One document's text with these edits done and proved.
fn edited(text: &str, edits: &[Edit], effort: Effort) -> Result<String, String> {
    let Some(Edit::Set(place, _) | Edit::Append(place, _) | Edit::Remove(place)) = edits.first() else {
        return Ok(text.to_owned());
    };
    let refuse = |why: String| format!("{place}: {why}");
    let old = read(text)?;
    let mut wanted = old.clone();
    for edit in edits {
        change(&mut wanted, edit).map_err(refuse)?;
    }
    let mut steps = Vec::new();
    match edits {
        [Edit::Remove(path)] => steps.push(Step::Remove(path.clone())),
        _ => differences(&old, &wanted, &Path::default(), &mut steps),
    }
    let done = stepped(text, &old, &steps).map_err(refuse)?;
    if read(&done).as_ref() == Ok(&wanted) {
        return Ok(done);
    }
    if effort == Effort::StepByStep && steps.len() > 1 {
        let mut now = text.to_owned();
        for step in &steps {
            now = stepped(&now, &read(&now)?, std::slice::from_ref(step)).map_err(refuse)?;
        }
        if read(&now).as_ref() == Ok(&wanted) {
            return Ok(now);
        }
    }
    let why = if text.contains('*') && has_aliases(text) {
        "a change here would change other places too, through an alias (`*…`)"
    } else {
        AS_WRITTEN
    };
    Err(refuse(why.into()))
}

/// Steps that do not stand in each other's way.
fn stepped(text: &str, value: &Value, steps: &[Step]) -> Result<String, String> {
    let tree = Trees::of(text).next().ok_or("is empty")?.map_err(|wrong| wrong.what)?;
    let page = Page { text, tree: &tree, value };
    let mut splices = Vec::new();
    for step in steps {
        splices.append(&mut match step {
            Step::Set(path, value) => page.set(path, value)?,
            Step::Append(path, value) => page.append(path, value)?,
            Step::Remove(path) => page.remove(path)?,
        });
    }
    Ok(spliced(text, splices))
}

const AS_WRITTEN: &str = "cannot be changed as this file is written";

fn has_aliases(text: &str) -> bool {
    Trees::of(text).flatten().any(|tree| tree.nodes.iter().any(|node| matches!(node.kind, Kind::Alias(_))))
}

/// The same within YAML that is text in YAML.
fn embedded(text: &str, place: &Path, edit: &Edit) -> Result<String, String> {
    let refuse = |why: &str| format!("{place}: {why}");
    let tree = Trees::of(text).next().ok_or("is empty")?.map_err(|wrong| refuse(&wrong.what))?;
    let mut id = tree.root;
    for segment in &place.0 {
        id = tree.child(id, segment).ok_or_else(|| refuse("comes from an alias"))?;
    }
    let node = tree.node(id);
    let Kind::Scalar(content, ..) = &node.kind else { return Err(refuse("is not text")) };
    let written = text.get(node.start..node.end).and_then(|written| written.split_once('\n'));
    let (header, block) = written.ok_or_else(|| refuse("is not a block of text"))?;
    // The first line with something in it says how far the block is indented: it is that much longer than its content.
    let first = block.lines().zip(content.lines()).find(|(_, content)| !content.trim().is_empty());
    let (raw, content_line) = first.ok_or_else(|| refuse("is empty"))?;
    let indentation = raw.strip_suffix(content_line).ok_or_else(|| refuse("is written in an unusual way"))?;
    let newline = if header.ends_with('\r') { "\r\n" } else { "\n" };
    let inner: String = block
        .split_inclusive('\n')
        .map(|line| line.strip_prefix(indentation).unwrap_or(line.trim_start_matches(' ')))
        .collect();
    let inner = edited(&inner, std::slice::from_ref(edit), Effort::StepByStep)?;
    let inner = inner.trim_end();
    let block: Vec<_> = inner
        .lines()
        .map(|line| if line.is_empty() { String::new() } else { format!("{indentation}{line}") })
        .collect();
    let block = format!("{header}\n{}", block.join(newline));
    let now = spliced(text, vec![Splice { start: node.start, end: node.end, text: block }]);
    let (old, mut new) = (read(text)?, read(&now)?);
    let is_same_text =
        at(&new, place).and_then(Value::as_str).is_some_and(|text| text.trim_end().lines().eq(inner.lines()));
    if let (Some(new), Some(old)) = (at_mut(&mut new, place), at(&old, place)) {
        new.clone_from(old);
    }
    if is_same_text && new == old { Ok(now) } else { Err(refuse(AS_WRITTEN)) }
}

fn read(text: &str) -> Result<Value, String> {
    let mut trees = Trees::of(text);
    let tree = trees.next().ok_or("is empty")?.map_err(|wrong| wrong.what)?;
    let value = value_of(&tree).map_err(|wrong| wrong.what)?;
    if trees.next().is_some() { Err("would become two documents".into()) } else { Ok(value) }
}

fn spliced(text: &str, mut splices: Vec<Splice>) -> String {
    splices.sort_by_key(|splice| splice.start);
    let mut result = String::with_capacity(text.len() + 256);
    let mut done = 0;
    for splice in splices {
        result += text.get(done..splice.start).unwrap_or_default();
        result += &splice.text;
        done = splice.end.max(done);
    }
    result + text.get(done..).unwrap_or_default()
}

/// What has to be done to the text.
enum Step {
    Set(Path, Value),
    Append(Path, Value),
    Remove(Path),
}

/// The smallest changes that make one value of the other, so that what is equal keeps its comments.
fn differences(old: &Value, new: &Value, path: &Path, steps: &mut Vec<Step>) {
    match (old, new) {
        _ if old == new => {}
        // One that is or becomes empty is written anew, but for the document itself, which cannot be.
        (Value::Object(old), Value::Object(new)) if path.0.is_empty() || !old.is_empty() && !new.is_empty() => {
            for (key, value) in new {
                let path = path.at(&**key);
                match old.get(key) {
                    Some(old) => differences(old, value, &path, steps),
                    None => steps.push(Step::Set(path, value.clone())),
                }
            }
            let gone = old.keys().filter(|key| !new.contains_key(*key));
            steps.extend(gone.map(|key| Step::Remove(path.at(&**key))));
        }
        (Value::Array(old), Value::Array(new)) if !old.is_empty() && !new.is_empty() => {
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                differences(old, new, &path.at(index), steps);
            }
            steps.extend(new.iter().skip(old.len()).map(|value| Step::Append(path.clone(), value.clone())));
            steps.extend((new.len()..old.len()).rev().map(|index| Step::Remove(path.at(index))));
        }
        _ => steps.push(Step::Set(path.clone(), new.clone())),
    }
}

/// What an edit means, without any text.
pub(crate) fn change(value: &mut Value, edit: &Edit) -> Result<(), String> {
    match edit {
        Edit::Set(path, new) => *reach(value, path)? = new.clone(),
        Edit::Append(path, new) => {
            let list = reach(value, path)?;
            if list.is_null() {
                *list = Value::Array(Vec::new());
            }
            list.as_array_mut().ok_or("is not a list")?.push(new.clone());
        }
        Edit::Remove(path) => {
            let (last, above) = path.0.split_last().ok_or("the whole document cannot be removed")?;
            let above = at_mut(value, &Path(above.to_vec())).ok_or("is not there")?;
            match (above, last) {
                (Value::Object(map), Segment::Key(key)) if map.contains_key(key) => {
                    map.remove(key);
                }
                (Value::Array(list), Segment::Index(index)) if *index < list.len() => {
                    list.remove(*index);
                }
                _ => return Err("is not there".into()),
            }
        }
    }
    Ok(())
}

/// The place, made where it is missing.
fn reach<'v>(value: &'v mut Value, path: &Path) -> Result<&'v mut Value, String> {
    path.0.iter().try_fold(value, |value, segment| match segment {
        Segment::Key(key) => {
            if value.is_null() {
                *value = Value::Object(Map::new());
            }
            let map = value.as_object_mut().ok_or("what should hold it is not a mapping")?;
            Ok(map.entry(key.clone()).or_insert(Value::Null))
        }
        Segment::Index(index) => value.get_mut(index).ok_or_else(|| "is not there".into()),
    })
}

fn at<'v>(value: &'v Value, path: &Path) -> Option<&'v Value> {
    path.0.iter().try_fold(value, |value, segment| match segment {
        Segment::Key(key) => value.get(key),
        Segment::Index(index) => value.get(index),
    })
}

fn at_mut<'v>(value: &'v mut Value, path: &Path) -> Option<&'v mut Value> {
    path.0.iter().try_fold(value, |value, segment| match segment {
        Segment::Key(key) => value.get_mut(key),
        Segment::Index(index) => value.get_mut(index),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::document;

    fn path(text: &str) -> Path {
        let segments = text.split('.').filter(|part| !part.is_empty());
        Path(segments.map(|part| part.parse().map_or_else(|_| part.into(), Segment::Index)).collect())
    }

    fn set(at: &str, value: Value) -> Edit {
        Edit::Set(path(at), value)
    }

    fn append(at: &str, value: Value) -> Edit {
        Edit::Append(path(at), value)
    }

    fn remove(at: &str) -> Edit {
        Edit::Remove(path(at))
    }

    fn fixed(text: &str, document: usize, edit: Edit) -> Result<String, String> {
        let documents = document::read("f", 0, text).unwrap();
        apply(text, &documents.iter().collect::<Vec<_>>(), &[(document, edit)])
    }

    const WIDE: &str = "\
# top
spec:
    # about containers
    containers:
        - name: a  # the app
          ports: [80]
          env:
              - name: X
                value: 'x'   # keep

        # another
        -   name: b
            lifecycle: {preStop: {httpGet: {path: /x, port: 8080}}} # keep
    # own
    # comments
    grace: 30   # too short
    text: |
        one
        two

    none:
    empty: {}
# end
";

    /// What is expected is told as the lines that go (`-`) and come (`+`).
    fn diff(old: &str, new: &str) -> String {
        let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
        let head = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
        let tail = old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(|(old, new)| old == new).count();
        let gone = old[head..old.len() - tail].iter().map(|line| format!("-{line}\n"));
        gone.chain(new[head..new.len() - tail].iter().map(|line| format!("+{line}\n"))).collect()
    }

    #[test]
    fn each_edit_touches_its_own_lines() {
        for (edit, expected) in [
            (set("spec.grace", json!(45)), "-    grace: 30   # too short\n+    grace: 45   # too short\n"),
            (
                set("spec.containers.0.env.0.value", json!("y'z")),
                "-                value: 'x'   # keep\n+                value: 'y''z'   # keep\n",
            ),
            (
                set("spec.containers.1.lifecycle.preStop.httpGet.scheme", json!("HTTP")),
                "-            lifecycle: {preStop: {httpGet: {path: /x, port: 8080}}} # keep\n+            lifecycle: {preStop: {httpGet: {path: /x, port: 8080, scheme: HTTP}}} # keep\n",
            ),
            (
                set(
                    "spec.containers.0.lifecycle",
                    json!({"preStop": {"exec": {"command": ["/boathook", "shutdown"]}}}),
                ),
                "+          lifecycle:\n+              preStop:\n+                  exec:\n+                      command:\n+                          - /boathook\n+                          - shutdown\n",
            ),
            (set("spec.containers.0.probe.period", json!(5)), "+          probe:\n+              period: 5\n"),
            (append("spec.containers.0.ports", json!(81)), "-          ports: [80]\n+          ports: [80, 81]\n"),
            (
                append("spec.containers.0.env", json!({"name": "Z", "value": "1"})),
                "+              - name: Z\n+                value: \"1\"\n",
            ),
            (append("spec.containers", json!({"name": "c"})), "+        -   name: c\n"),
            (
                append("spec.volumes", json!({"name": "v", "emptyDir": {}})),
                "+    volumes:\n+        - emptyDir: {}\n+          name: v\n",
            ),
            (remove("spec.grace"), "-    # own\n-    # comments\n-    grace: 30   # too short\n"),
            (remove("spec.containers.0.ports"), "-          ports: [80]\n"),
            (
                remove("spec.containers.0.name"),
                "-        - name: a  # the app\n-          ports: [80]\n+        - ports: [80]\n",
            ),
            (
                remove("spec.containers.0.env.0"),
                "-          env:\n-              - name: X\n-                value: 'x'   # keep\n+          env: []\n",
            ),
            (
                remove("spec.containers.1"),
                "-        # another\n-        -   name: b\n-            lifecycle: {preStop: {httpGet: {path: /x, port: 8080}}} # keep\n",
            ),
            (
                remove("spec.containers.1.lifecycle.preStop.httpGet.path"),
                "-            lifecycle: {preStop: {httpGet: {path: /x, port: 8080}}} # keep\n+            lifecycle: {preStop: {httpGet: {port: 8080}}} # keep\n",
            ),
            (set("spec.text", json!("short")), "-    text: |\n-        one\n-        two\n+    text: short\n"),
            (set("spec.none", json!(1)), "-    none:\n+    none: 1\n"),
            (set("spec.none.a.b", json!(1)), "+        a:\n+            b: 1\n"),
            (set("spec.empty.a.b", json!(1)), "-    empty: {}\n+    empty:\n+        a:\n+            b: 1\n"),
            (
                set("spec.containers.0.env", json!("none")),
                "-          env:\n-              - name: X\n-                value: 'x'   # keep\n+          env: none\n",
            ),
            (
                set("spec.grace", json!({"a": 1})),
                "-    grace: 30   # too short\n+    grace:   # too short\n+        a: 1\n",
            ),
            (set("kind", json!("Pod")), "+kind: Pod\n"),
            (
                set("spec.containers.0", json!({"name": "a", "ports": [80, 90]})),
                "-          ports: [80]\n-          env:\n-              - name: X\n-                value: 'x'   # keep\n+          ports: [80, 90]\n",
            ),
        ] {
            for (text, expected) in [(WIDE.to_owned(), expected), (WIDE.replace('\n', "\r\n"), expected)] {
                let now = fixed(&text, 0, edit.clone()).unwrap_or_else(|why| panic!("{edit:?}: {why}"));
                assert_eq!(diff(&text, &now), expected, "{edit:?}");
                assert_eq!(text.contains('\r'), now.lines().count() == now.matches("\r\n").count(), "{edit:?}");
            }
        }
    }

    #[test]
    fn styles_that_are_not_like_that() {
        for (text, edit, expected) in [
            ("a:\n- b\nc: 1", append("a", json!({"x": [1]})), "a:\n- b\n- x:\n  - 1\nc: 1"),
            ("a: 1", set("b", json!(2)), "a: 1\nb: 2"),
            ("{}", set("a.b", json!(2)), "{\"a\":{\"b\":2}}"),
            (
                "{\n  \"a\": {\n    \"b\": 1\n  }\n}\n",
                set("a.c", json!({"d": "x"})),
                "{\n  \"a\": {\n    \"b\": 1,\n    \"c\": {\n      \"d\": \"x\"\n    }\n  }\n}\n",
            ),
            ("a: [\n  1,\n  2, # two\n]\n", append("a", json!(3)), "a: [\n  1,\n  2, # two\n  3,\n]\n"),
            ("a: [\n  1,\n  2 # two\n]\n", append("a", json!(3)), "a: [\n  1,\n  2, # two\n  3\n]\n"),
            ("a: |+\n  x\n\n\nb: 1\n", set("c", json!(1)), "a: |+\n  x\n\n\nb: 1\nc: 1\n"),
            ("b: 1\na: |\n  x\n\n# end\n", set("c", json!(1)), "b: 1\na: |\n  x\nc: 1\n\n# end\n"),
            ("a:\n  b:\nc: 1\n", set("a.b", json!(2)), "a:\n  b: 2\nc: 1\n"),
            ("a:\n  b: # why\n    c: 1\n", set("a.b", json!([1])), "a:\n  b: # why\n  - 1\n"),
            ("- a\n", set("b", json!(1)), ""),
            ("\u{feff}a: 1\n", set("b", json!(1)), "\u{feff}a: 1\nb: 1\n"),
            ("a: {b: &x 1, c: *x}\n", set("a.d", json!("p, q")), "a: {b: &x 1, c: *x, d: \"p, q\"}\n"),
            (
                "x: &x {a: 1}\nz:\n  <<: *x\n  b: 1\n",
                set("z.a", json!(5)),
                "x: &x {a: 1}\nz:\n  <<: *x\n  b: 1\n  a: 5\n",
            ),
            ("a: 'x'\n", set("a", json!(true)), "a: true\n"),
            ("a: \"x\"\n", set("a", json!("y")), "a: \"y\"\n"),
            ("a:\n  - b: 1\n    # own\n    c: 2\n", remove("a.0.b"), "a:\n  - \n    # own\n    c: 2\n"),
        ] {
            if document::read("f", 0, text).is_ok() {
                assert_eq!(fixed(text, 0, edit.clone()).as_deref(), Ok(expected), "{text:?} {edit:?}");
            }
        }
    }

    #[test]
    fn what_an_alias_brings_is_left_alone() {
        let text = "x: &x {a: 1, m: {n: 1}}\ny1: *x\nz:\n  <<: *x\n  b: 1\nw: &w 5\n";
        for (edit, why) in [
            (set("y1.a", json!(2)), "y1.a: comes from an alias"),
            (set("y1", json!(2)), "y1: comes from an alias"),
            (set("z.m.n", json!(2)), "z.m.n: comes from an alias"),
            (remove("z.a"), "z.a: comes from an alias"),
            (set("x.a", json!(2)), "x.a: a change here would change other places too"),
            (set("w", json!(2)), "w: has an anchor or a tag"),
            (remove("nothing"), "nothing: is not there"),
            (set("w.x", json!(2)), "w.x: what should hold it is not a mapping"),
            (append("w", json!(2)), "w: is not a list"),
            (set("", json!(2)), ": the whole document cannot be replaced"),
        ] {
            let said = fixed(text, 0, edit.clone()).unwrap_err();
            assert!(said.starts_with(why), "{edit:?}: {said}");
        }
    }

    #[test]
    fn many_findings_are_fixed_at_once_but_for_the_one_that_cannot_be() {
        let text =
            "items:\n- {a: 1, n: 1}\n- a: 1 # x\n  b: &b [1, 2]\n- c: *b\n  l:\n  - 1\n  - 2\n  - 3\nkind: List\n";
        let documents = document::read("f", 0, text).unwrap();
        let groups = [
            (2, vec![remove("l.0")]),
            (0, vec![set("a", json!(2)), set("d", json!({"e": 1}))]),
            (2, vec![set("c.0", json!(5))]),
            (1, vec![set("a", json!(3)), set("z", json!([1]))]),
            (1, vec![set("n", json!(1)), remove("nothing")]),
            (2, vec![remove("l.2")]),
            (2, vec![set("m", json!(true))]),
        ];
        let groups: Vec<_> = groups.iter().map(|(document, edits)| (&documents[*document], &**edits)).collect();
        let mut file = File::of(text).unwrap();
        let refusals = file.edit_each(&groups);
        assert_eq!(
            file.text(),
            "items:\n- {a: 2, n: 1, d: {e: 1}}\n- a: 3 # x\n  b: &b [1, 2]\n  z:\n  - 1\n- c: *b\n  l:\n  - 2\n  m: true\n\
             kind: List\n"
        );
        let refused: Vec<_> = refusals.iter().enumerate().filter(|(_, why)| why.is_some()).map(|(at, _)| at).collect();
        assert_eq!(refused, [2, 4], "{refusals:?}");
    }

    #[test]
    fn documents_items_and_patches_are_found_again() {
        let text = "# one\n---\na: 1\n---\n\n--- # three\nkind: List\nitems:\n- kind: A\n  a: 1\n- kind: B\n---\nkind: Component\npatches:\n  - target: {kind: X}\n    patch: |-\n      # a patch\n      a: 1 # one\n\n      b:\n        - 1\n    more: 1\n";
        for (document, edit, expected) in [
            (0, set("a", json!(2)), "-a: 1\n+a: 2\n"),
            (0, set("b", json!(2)), "+b: 2\n"),
            (1, set("a", json!(2)), "-  a: 1\n+  a: 2\n"),
            (2, set("a", json!(2)), "+  a: 2\n"),
            (3, set("a", json!(2)), "+a: 2\n"),
            (4, set("a", json!(2)), "-      a: 1 # one\n+      a: 2 # one\n"),
            (4, set("c.d", json!(2)), "+      c:\n+        d: 2\n"),
            (4, append("b", json!({"e": 1})), "+        - e: 1\n"),
        ] {
            for text in [text.to_owned(), text.replace('\n', "\r\n")] {
                let now = fixed(&text, document, edit.clone()).unwrap_or_else(|why| panic!("{edit:?}: {why}"));
                assert_eq!(diff(&text, &now), expected, "{edit:?}");
            }
        }
    }
}
