//! `--fix` changes what it says and nothing else: random edits on files of every style, and on files that are broken at
//! random.

use std::{
    fs,
    path::{Path as File, PathBuf},
    time::{Duration, Instant},
};

use boathook_kube::{
    document::{self, Document},
    finding::Edit,
    fix,
    path::{Path, Segment},
};
use serde_json::{Map, Value, json};

/// xorshift64*: the same numbers in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % sides.max(1)
    }

    fn one_of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.roll(list.len())]
    }

    fn piece(&mut self) -> &'static str {
        PIECES[self.roll(PIECES.len())]
    }
}

/// How often: more on demand, `BOATHOOK_ROUNDS=300000 cargo test -p boathook-kube --test fix`.
fn rounds(usual: usize) -> usize {
    std::env::var("BOATHOOK_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(usual)
}

fn seed() -> u64 {
    std::env::var("BOATHOOK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x00b0_a700)
}

/// The styles beside this file, and the repository's own examples.
fn files() -> Vec<(PathBuf, String)> {
    fn add(folder: &File, files: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                add(&path, files);
            } else if path.extension().is_some_and(|end| end == "yaml" || end == "json") {
                files.push((path.clone(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let root = File::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    add(&root.join("tests/styles"), &mut files);
    add(&root.join("../examples"), &mut files);
    files.sort();
    files
}

/// What an edit means, written a second time.
fn done(value: &Value, edit: &Edit) -> Value {
    fn go(value: &mut Value, path: &[Segment], last: &mut dyn FnMut(&mut Value, &Segment)) {
        match path {
            [] => {}
            [segment] => last(value, segment),
            [Segment::Index(index), rest @ ..] => go(&mut value[*index], rest, last),
            [Segment::Key(key), rest @ ..] => {
                if value.is_null() {
                    *value = Value::Object(Map::new());
                }
                go(&mut value[key.as_str()], rest, last);
            }
        }
    }
    let mut value = value.clone();
    match edit {
        Edit::Set(path, new) => go(&mut value, &path.0, &mut |above, segment| match segment {
            Segment::Index(index) => above[*index] = new.clone(),
            Segment::Key(key) => above[key.as_str()] = new.clone(),
        }),
        Edit::Append(path, new) => go(&mut value, &path.0, &mut |above, segment| {
            let list = match segment {
                Segment::Index(index) => &mut above[*index],
                Segment::Key(key) => &mut above[key.as_str()],
            };
            match list {
                Value::Array(list) => list.push(new.clone()),
                other => *other = json!([new]),
            }
        }),
        Edit::Remove(path) => go(&mut value, &path.0, &mut |above, segment| match (above, segment) {
            (Value::Array(list), Segment::Index(index)) => drop(list.remove(*index)),
            (Value::Object(map), Segment::Key(key)) => drop(map.remove(key)),
            _ => {}
        }),
    }
    value
}

fn paths(value: &Value, path: &Path, all: &mut Vec<Path>) {
    all.push(path.clone());
    match value {
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(index, value)| paths(value, &path.at(index), all));
        }
        Value::Object(map) => map.iter().for_each(|(key, value)| paths(value, &path.at(&**key), all)),
        _ => {}
    }
}

fn at<'v>(value: &'v Value, path: &Path) -> &'v Value {
    path.0.iter().fold(value, |value, segment| match segment {
        Segment::Index(index) => &value[*index],
        Segment::Key(key) => &value[key.as_str()],
    })
}

fn any_value(dice: &mut Dice) -> Value {
    let values = [
        json!(45),
        json!(true),
        json!(null),
        json!("HTTP"),
        json!("/shut down"),
        json!("yes"),
        json!("it's: \"x\" # y"),
        json!("größe 😀"),
        json!("two\nlines\n"),
        json!(""),
        json!("0777"),
        json!([]),
        json!({}),
        json!(["/boathook", "shutdown", 1]),
        json!([{"name": "a", "list": [1, {"b": [2]}]}, [1, [2]]]),
        json!({"httpGet": {"path": "/shutdown", "port": 4665, "httpHeaders": [{"name": "x", "value": "Bearer <t>"}]}}),
        json!({"a.b/c": {"d": {}, "e": []}, "1": "2", "y": null}),
    ];
    dice.one_of(&values).clone()
}

/// What kind of edit, and the edit.
fn any_edit(dice: &mut Dice, value: &Value) -> (&'static str, Edit) {
    let mut all = Vec::new();
    paths(value, &Path::default(), &mut all);
    let path = dice.one_of(&all).clone();
    let here = at(value, &path);
    match (dice.roll(5), here) {
        (0, Value::Object(_)) => ("add", Edit::Set(path.at("lifecycle"), any_value(dice))),
        (1, Value::Object(_)) => ("add far", Edit::Set(path.down("lifecycle.preStop.exec"), any_value(dice))),
        (0 | 1, Value::Array(_)) if !path.0.is_empty() => ("append", Edit::Append(path, any_value(dice))),
        (2, Value::Object(_)) => ("append new", Edit::Append(path.at("volumeMounts"), any_value(dice))),
        (3, _) if !path.0.is_empty() => ("remove", Edit::Remove(path)),
        (_, Value::Object(_) | Value::Array(_)) if !path.0.is_empty() => ("replace", Edit::Set(path, any_value(dice))),
        _ if !path.0.is_empty() => ("set", Edit::Set(path, any_value(dice))),
        _ => ("add", Edit::Set(path.at("lifecycle"), any_value(dice))),
    }
}

fn read(text: &str) -> Vec<Document> {
    document::read("f", 0, text).unwrap_or_else(|wrong| panic!("{wrong}\n{text}"))
}

/// Gives the new text; panics where anything but the edit has happened.
fn apply(text: &str, documents: &[Document], which: usize, edit: &Edit) -> Result<String, String> {
    let all: Vec<&Document> = documents.iter().collect();
    let now = fix::apply(text, &all, &[(which, edit.clone())])?;
    // Another `kind`, or other `patches`, can make other documents of it.
    let (Edit::Set(path, _) | Edit::Append(path, _) | Edit::Remove(path)) = edit;
    let Ok(after) = document::read("f", 0, &now) else { panic!("{edit:?}\n{text}\n=>\n{now}") };
    if path.0.first().is_some_and(|first| ["kind", "items", "patches"].iter().any(|key| *first == Segment::from(*key)))
    {
        return Ok(now);
    }
    assert_eq!(after.len(), documents.len(), "{edit:?}\n{text}\n=>\n{now}");
    for (index, (before, after)) in documents.iter().zip(&after).enumerate() {
        let is_its_host = !before.value["patches"].is_null() && !documents[which].prefix.0.is_empty();
        if index == which {
            assert_eq!(after.value, done(&before.value, edit), "{edit:?}\n{text}\n=>\n{now}");
        } else if !is_its_host {
            assert_eq!(after.value, before.value, "{edit:?}\n{text}\n=>\n{now}");
        }
    }
    Ok(now)
}

/// How many of the old lines are not among the new ones, in the same order.
fn lost<'t>(old: &'t str, new: &str) -> Vec<&'t str> {
    let (old, new): (Vec<_>, Vec<_>) = (old.split_inclusive('\n').collect(), new.split_inclusive('\n').collect());
    let head = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let tail = old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(|(old, new)| old == new).count();
    let mut rest = new[head..new.len() - tail].iter();
    old[head..old.len() - tail]
        .iter()
        .filter(|line| !rest.clone().any(|new| new == *line) || rest.next().is_none())
        .copied()
        .collect()
}

#[test]
fn random_edits_do_what_they_say_and_nothing_else() {
    let mut dice = Dice(seed());
    let files = files();
    assert!(files.len() >= 30, "{}", files.len());
    let (mut tried, mut refused) = (0, Vec::new());
    for round in 0..rounds(1_500) {
        let (file, text) = &files[round % files.len()];
        let documents = read(text);
        let which = dice.roll(documents.len());
        let (kind, edit) = any_edit(&mut dice, &documents[which].value);
        tried += 1;
        let now = match apply(text, &documents, which, &edit) {
            Ok(now) => now,
            Err(why) => {
                refused.push(format!("{}: {kind}: {why}", file.file_name().unwrap().display()));
                continue;
            }
        };
        if matches!(kind, "add" | "add far" | "append" | "append new") {
            // A line gets a comma or a bracket at most; an empty collection or null that is filled goes.
            let lost = lost(text, &now);
            let old = at(
                &documents[which].value,
                match &edit {
                    Edit::Set(path, _) | Edit::Append(path, _) | Edit::Remove(path) => path,
                },
            );
            assert!(lost.len() <= 2 || old.is_object(), "{}: {kind} {edit:?}\nlost {lost:?}\n{now}", file.display());
        }
        let comments = |text: &str| text.lines().filter(|line| line.trim_start().starts_with('#')).count();
        if !matches!(kind, "remove" | "replace") {
            let (Edit::Set(path, _) | Edit::Append(path, _) | Edit::Remove(path)) = &edit;
            let gone = at(&documents[which].value, path).as_str().map_or(0, comments);
            assert!(comments(&now) + gone >= comments(text), "{}: {kind} {edit:?}\n{now}", file.display());
        }
    }
    refused.sort();
    let anchors = refused.iter().filter(|why| why.starts_with("anchors.yaml")).count();
    let others = refused.len() - anchors;
    eprintln!("{tried} edits, refused {anchors} near anchors, {others} elsewhere");
    if std::env::var_os("BOATHOOK_ROUNDS").is_some() {
        refused.iter().for_each(|why| eprintln!("{why}"));
    }
    // Styles that the file of odd scalars has (`? key`, tags, block scalars with a number) may be refused.
    assert!(others * 100 <= tried * 2, "{others} of {tried} refused:\n{}", refused.join("\n"));
}

/// Edits one after the other: whatever the first one wrote, the next can change.
#[test]
fn what_was_written_can_be_edited_again() {
    let mut dice = Dice(seed());
    for (_, text) in files() {
        let mut text = text;
        for _ in 0..rounds(10).min(200) {
            let documents = read(&text);
            let which = dice.roll(documents.len());
            let (_, edit) = any_edit(&mut dice, &documents[which].value);
            if let Ok(now) = apply(&text, &documents, which, &edit) {
                // A document that is emptied is none any more; a kind that changes can make or end a List.
                let kinds = |text: &str| document::read("f", 0, text).map(|all| all.len());
                if kinds(&now) == Ok(documents.len()) {
                    text = now;
                }
            }
        }
    }
}

const PIECES: [&str; 44] = [
    "- ",
    ": ",
    "\n",
    "  ",
    "\t",
    "#",
    " #x",
    "{",
    "}",
    "[",
    "]",
    ",",
    "&a ",
    "*a",
    "<<: ",
    "|",
    ">",
    "|2-",
    "'",
    "\"",
    "\\",
    "!!str ",
    "!",
    "%",
    "@",
    "`",
    "? ",
    "---\n",
    "...\n",
    "\r\n",
    "\r",
    "\u{feff}",
    "\u{85}",
    "\u{2028}",
    "é",
    "😀",
    "~",
    "0x",
    "-",
    "\u{7f}",
    "a: &a [*a]\n",
    "\\ud83d",
    "{{ .x }}",
    "\u{0}",
];

fn mutated(dice: &mut Dice, text: &str) -> String {
    let mut text = text.to_owned();
    for _ in 0..=dice.roll(4) {
        let ends: Vec<usize> = (0..=text.len()).filter(|at| text.is_char_boundary(*at)).collect();
        let (one, other) = (*dice.one_of(&ends), *dice.one_of(&ends));
        let (from, to) = (one.min(other), one.max(other));
        let near = (from + dice.roll(12)).min(text.len());
        let near = (near..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(from);
        match dice.roll(6) {
            0 => text.replace_range(from..near, ""),
            1 | 2 => text.insert_str(from, dice.piece()),
            3 => text.replace_range(from..near, dice.piece()),
            4 => {
                let end = (from + 200..=to).find(|at| text.is_char_boundary(*at)).unwrap_or(near.max(from));
                let piece = text[from..end].to_owned();
                text.insert_str(one, &piece);
            }
            _ => text.truncate(to),
        }
    }
    text
}

/// No panic, no hang, and an edit that is not refused is exactly that edit.
#[test]
fn broken_files_are_refused_or_read() {
    let mut dice = Dice(seed());
    let files = files();
    let (mut readable, mut edited) = (0, 0);
    let mut slowest = Duration::ZERO;
    let all = rounds(1_000);
    for _ in 0..all {
        let file = dice.roll(files.len());
        let text = mutated(&mut dice, &files[file].1);
        let start = Instant::now();
        if let Ok(documents) = document::read("f", 0, &text)
            && !documents.is_empty()
        {
            readable += 1;
            let which = dice.roll(documents.len());
            let (_, edit) = any_edit(&mut dice, &documents[which].value);
            let all: Vec<&Document> = documents.iter().collect();
            if let Ok(now) = fix::apply(&text, &all, &[(which, edit.clone())]) {
                edited += 1;
                // Edits of `kind`, `items` or `patches` can make other documents of it.
                if let Ok(after) = document::read("f", 0, &now)
                    && after.len() == documents.len()
                    && after[which].prefix == documents[which].prefix
                {
                    assert_eq!(after[which].value, done(&documents[which].value, &edit), "{edit:?}\n{text}\n=>\n{now}");
                }
            }
        }
        slowest = slowest.max(start.elapsed());
    }
    eprintln!("{all} broken files: {readable} readable, {edited} edited, slowest {slowest:?}");
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    assert!(readable * 10 > all && edited * 20 > all, "{readable} readable, {edited} edited");
}
