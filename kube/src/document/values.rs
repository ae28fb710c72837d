//! A tree as the value that the API server would read from it, and the line of everything in that value.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{
    scalar,
    tree::{DEPTH, Id, Kind, Tree, Wrong},
};
use crate::path::Segment;

/// How much aliases may unfold to, in bytes of memory, roughly: a document of a few lines can otherwise grow without
/// end ("billion laughs"). Real ones repeat a few labels.
const UNFOLDED: usize = 64 << 20;
/// What a mapping with one key takes in memory, measured; the other values take less.
const COLLECTION: usize = 640;

/// Lines, as a tree beside the value: 8 bytes for each value, and as many again for each mapping or list.
#[derive(Debug, Default)]
pub struct Places {
    /// First and last (exclusive) of each collection's own places.
    collections: Vec<(u32, u32)>,
    /// In the order of the list, or of the mapping's sorted keys, which is that of the value.
    places: Vec<Place>,
}

/// Where one value is.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// That of its key, or of the list's item; counted from 1.
    pub line: u32,
    /// Index of the collection; `NO_COLLECTION` for a scalar.
    collection: u32,
}

const NO_COLLECTION: u32 = u32::MAX;

impl Places {
    /// One step down from a value that is at `place`.
    pub fn child(&self, value: &Value, place: Place, segment: &Segment) -> Option<Place> {
        let position = match (segment, value) {
            (Segment::Index(index), Value::Array(_)) => *index,
            (Segment::Key(key), Value::Object(map)) => map.keys().position(|other| other == key)?,
            _ => return None,
        };
        let (first, last) = *self.collections.get(place.collection as usize)?;
        self.places.get(first as usize..last as usize)?.get(position).copied()
    }
}

/// The value of a document.
///
/// # Errors
/// A key stands twice, is not a scalar, and the like.
pub fn values(tree: &Tree<'_>, places: &mut Places) -> Result<(Value, Place), Wrong> {
    let mut reader = Reader { tree, places, anchored: HashMap::new(), unfolded: 0 };
    let (value, collection) = reader.value(tree.root, 0, false)?;
    Ok((value, Place { line: narrow(tree.node(tree.root).line), collection }))
}

struct Reader<'a, 't> {
    tree: &'a Tree<'t>,
    places: &'a mut Places,
    /// The collections of anchors, so that aliases share them.
    anchored: HashMap<Id, u32>,
    unfolded: usize,
}

impl Reader<'_, '_> {
    fn value(&mut self, id: Id, depth: usize, in_alias: bool) -> Result<(Value, u32), Wrong> {
        let tree = self.tree;
        let node = tree.node(id);
        // Aliases can nest what was not nested in the text.
        if depth > DEPTH {
            return Err(Wrong::new(node.line, format!("is nested deeper than {DEPTH} levels")));
        }
        if in_alias {
            self.unfolded += match &node.kind {
                Kind::Scalar(text, ..) => text.len() + size_of::<Value>(),
                _ => COLLECTION,
            };
            if self.unfolded > UNFOLDED {
                return Err(Wrong::new(node.line, "its aliases unfold to more than 64 MiB"));
            }
        }
        let (value, children) = match &node.kind {
            Kind::Alias(target) => return self.value(*target, depth + 1, true),
            Kind::Scalar(text, style, tag) => {
                let value =
                    scalar::resolve(text, *style, tag.as_deref()).map_err(|what| Wrong::new(node.line, what))?;
                return Ok((value, NO_COLLECTION));
            }
            Kind::List(items) => {
                let mut values = Vec::with_capacity(items.len());
                let mut children = Vec::with_capacity(items.len());
                for item in items {
                    let (value, collection) = self.value(*item, depth + 1, in_alias)?;
                    values.push(value);
                    children.push(Place { line: narrow(tree.node(*item).line), collection });
                }
                (Value::Array(values), children)
            }
            Kind::Mapping(pairs) => self.mapping(pairs, depth, in_alias)?,
        };
        if let Some(collection) = self.anchored.get(&id) {
            return Ok((value, *collection));
        }
        let collection = narrow(self.places.collections.len());
        let first = narrow(self.places.places.len());
        self.places.places.extend(children);
        self.places.collections.push((first, narrow(self.places.places.len())));
        if node.has_anchor {
            self.anchored.insert(id, collection);
        }
        Ok((value, collection))
    }

    fn mapping(&mut self, pairs: &[(Id, Id)], depth: usize, in_alias: bool) -> Result<(Value, Vec<Place>), Wrong> {
        let tree = self.tree;
        let mut entries: Vec<Entry> = Vec::with_capacity(pairs.len());
        let mut merged = Vec::new();
        for (key, id) in pairs {
            let line = tree.node(*key).line;
            match self.key(*key)? {
                Some(key) => {
                    let (value, collection) = self.value(*id, depth + 1, in_alias)?;
                    let place = Place { line: narrow(line), collection };
                    entries.push(Entry { key, value, place, is_merged: false });
                }
                None => self.merge(*id, line, depth + 1, &mut merged)?,
            }
        }
        // What is written here goes before what is merged, and an earlier one of several merged before a later.
        entries.append(&mut merged);
        entries.sort_by(|one, other| one.key.cmp(&other.key));
        let mut kept: Vec<Entry> = Vec::with_capacity(entries.len());
        for entry in entries {
            match kept.last() {
                Some(last) if last.key == entry.key && !entry.is_merged => {
                    let (key, line) = (&entry.key, last.place.line);
                    return Err(Wrong::new(
                        entry.place.line as usize,
                        format!("key `{key}` stands twice, first in line {line}"),
                    ));
                }
                Some(last) if last.key == entry.key => {}
                _ => kept.push(entry),
            }
        }
        let places = kept.iter().map(|entry| entry.place).collect();
        let map: Map<String, Value> = kept.into_iter().map(|entry| (entry.key, entry.value)).collect();
        Ok((Value::Object(map), places))
    }

    /// Nothing for the merge key, `<<`.
    fn key(&self, id: Id) -> Result<Option<String>, Wrong> {
        let node = self.tree.node(id);
        let (text, style, tag) = match &node.kind {
            Kind::Scalar(text, style, tag) => (text, style, tag),
            Kind::Alias(target) => match &self.tree.node(*target).kind {
                Kind::Scalar(text, style, tag) => (text, style, tag),
                _ => return Err(Wrong::new(node.line, "a mapping or list is a key here")),
            },
            _ => return Err(Wrong::new(node.line, "a mapping or list is a key here")),
        };
        if text == "<<" && *style == saphyr_parser::ScalarStyle::Plain && tag.is_none() {
            return Ok(None);
        }
        match scalar::resolve(text, *style, tag.as_deref()).map_err(|what| Wrong::new(node.line, what))? {
            Value::String(key) => Ok(Some(key)),
            Value::Null => Err(Wrong::new(node.line, "a key is missing before this `:`")),
            other => Ok(Some(other.to_string())),
        }
    }

    fn merge(&mut self, id: Id, line: usize, depth: usize, merged: &mut Vec<Entry>) -> Result<(), Wrong> {
        let sources = match &self.tree.node(id).kind {
            Kind::List(items) => items.clone(),
            _ => vec![id],
        };
        for source in sources {
            let (value, collection) = self.value(source, depth, true)?;
            let Value::Object(map) = value else {
                return Err(Wrong::new(line, "`<<` merges mappings, and this is none"));
            };
            let (first, _) = self.places.collections[collection as usize];
            for (index, (key, value)) in map.into_iter().enumerate() {
                let place = self.places.places[first as usize + index];
                merged.push(Entry { key, value, place, is_merged: true });
            }
        }
        Ok(())
    }
}

struct Entry {
    key: String,
    value: Value,
    place: Place,
    is_merged: bool,
}

/// Lines and places fit: the text is at most 64 MiB, and so is what aliases unfold to.
fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
