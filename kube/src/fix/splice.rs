//! One change to the text of one document: which bytes go, and which come instead. Everything else stays as it is.

use saphyr_parser::ScalarStyle;
use serde_json::{Value, json};

use super::render::{self, Manner};
use crate::{
    document::tree::{self, Id, Kind, Node, Tree},
    path::{Path, Segment},
};

/// One replacement of bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Splice {
    pub start: usize,
    pub end: usize,
    pub text: String,
}

const THROUGH_ALIAS: &str =
    "comes from an alias (`*…` or `<<`), and a change of its anchor would change other places too";
const HAS_ANCHOR: &str = "has an anchor or a tag, and others may take it from here";
const NOT_HERE: &str = "is not there";

/// The text of a document and what it says.
pub struct Page<'a> {
    pub text: &'a str,
    pub tree: &'a Tree<'a>,
    pub value: &'a Value,
}

/// A place that is written in the text.
#[derive(Clone, Copy)]
struct Place {
    id: Id,
    /// It stands within `[…]` or `{…}`.
    in_flow: bool,
}

impl Page<'_> {
    /// Puts this value in place of what is there, or adds it.
    pub fn set(&self, path: &Path, value: &Value) -> Result<Vec<Splice>, String> {
        let Some((last, above)) = path.0.split_last() else {
            return Err("the whole document cannot be replaced".into());
        };
        let above = Path(above.to_vec());
        let parent = match self.find(&above)? {
            Some(parent) if !self.is_null(parent.id) => parent,
            // What holds it is missing: it comes along.
            _ => {
                let Segment::Key(key) = last else { return Err(format!("{above} {NOT_HERE}")) };
                return self.set(&above, &json!({ key: value }));
            }
        };
        match (&self.node(parent.id).kind, last) {
            (Kind::Mapping(pairs), Segment::Key(key)) => match self.tree.child(parent.id, last) {
                Some(id) => {
                    let key = pairs.iter().find(|pair| pair.1 == id).map(|pair| pair.0);
                    self.replace(key, Place { id, in_flow: self.is_flow(parent) }, value)
                }
                None => self.add_pair(parent, &above, key, value),
            },
            (Kind::List(_), Segment::Index(_)) => match self.tree.child(parent.id, last) {
                Some(id) => self.replace(None, Place { id, in_flow: self.is_flow(parent) }, value),
                None => Err(NOT_HERE.into()),
            },
            (Kind::Alias(_), _) => Err(THROUGH_ALIAS.into()),
            _ => Err(format!("{above} is neither a mapping nor a list that could hold it")),
        }
    }

    /// Puts this value behind the last one of the list there, which has one at least.
    pub fn append(&self, path: &Path, value: &Value) -> Result<Vec<Splice>, String> {
        let place = self.find(path)?.ok_or(NOT_HERE)?;
        let node = self.node(place.id);
        let Kind::List(items) = &node.kind else { return Err("is not a list".into()) };
        let last = *items.last().ok_or("is empty")?;
        let manner = self.manner(place);
        if node.is_flow {
            return Ok(self.add_in_flow(node, self.node(*items.first().unwrap_or(&last)), self.node(last), |_| {
                render::flow(value, manner)
            }));
        }
        let dash = self.dash(node, items.len() - 1)?;
        let item = self.node(last);
        let gap =
            if self.line_start(item.start) == self.line_start(dash) { item.start.saturating_sub(dash) } else { 2 };
        Ok(vec![self.add_lines(item.end, self.column(dash), &render::item(value, self.column(dash), gap, manner))])
    }

    /// Takes it away with its own comments.
    pub fn remove(&self, path: &Path) -> Result<Vec<Splice>, String> {
        let Some((last, above)) = path.0.split_last() else {
            return Err("the whole document cannot be removed".into());
        };
        let above = Path(above.to_vec());
        let parent = self.find(&above)?.ok_or(NOT_HERE)?;
        let id = match self.tree.child(parent.id, last) {
            Some(id) => id,
            None if matches!(self.node(parent.id).kind, Kind::Alias(_)) || self.value_at(path).is_some() => {
                return Err(THROUGH_ALIAS.into());
            }
            None => return Err(NOT_HERE.into()),
        };
        let parent_node = self.node(parent.id);
        // First byte and last byte of each child, and this one's place among them.
        let (spans, at): (Vec<(usize, usize)>, _) = match &parent_node.kind {
            Kind::Mapping(pairs) => (
                pairs.iter().map(|(key, value)| (self.node(*key).start, self.end_of(*key, *value))).collect(),
                pairs.iter().position(|pair| pair.1 == id),
            ),
            Kind::List(items) if parent_node.is_flow => (
                items.iter().map(|item| (self.node(*item).start, self.node(*item).end)).collect(),
                items.iter().position(|item| *item == id),
            ),
            Kind::List(items) => {
                let spans: Result<Vec<_>, String> = items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| Ok((self.dash(parent_node, index)?, self.node(*item).end)))
                    .collect();
                (spans?, items.iter().position(|item| *item == id))
            }
            _ => return Err(NOT_HERE.into()),
        };
        let at = at.ok_or(NOT_HERE)?;
        let (start, end) = spans[at];
        if spans.len() == 1 {
            let empty = if matches!(parent_node.kind, Kind::List(_)) { json!([]) } else { json!({}) };
            return self.set(&above, &empty);
        }
        let next = spans.get(at + 1).map(|next| next.0);
        if parent_node.is_flow {
            let (from, to) = match (next, at.checked_sub(1)) {
                (Some(next), _) => (start, next),
                (None, Some(before)) => (spans[before].1, end),
                (None, None) => (start, end),
            };
            return Ok(vec![Splice { start: from, end: to, text: String::new() }]);
        }
        let line = self.line_start(start);
        let is_first_in_line = self.slice(line, start).bytes().all(|byte| byte == b' ');
        if is_first_in_line {
            let from = self.own_comments(line, start - line);
            return Ok(vec![Splice { start: from, end: self.next_line(end), text: String::new() }]);
        }
        // Behind a dash: the next key takes its place, unless it has comments, which then follow the dash.
        let next = next.ok_or("is the last thing behind a dash")?;
        let to = if self.slice(self.line_end(end), next).trim().is_empty() { next } else { self.line_end(end) };
        Ok(vec![Splice { start, end: to, text: String::new() }])
    }

    fn replace(&self, key: Option<Id>, place: Place, value: &Value) -> Result<Vec<Splice>, String> {
        let node = self.node(place.id);
        let manner = self.manner(place);
        if node.has_anchor || matches!(node.kind, Kind::Scalar(_, _, Some(_))) {
            return Err(HAS_ANCHOR.into());
        }
        if matches!(node.kind, Kind::Alias(_)) {
            return Err(THROUGH_ALIAS.into());
        }
        let is_block = match value {
            Value::Object(map) => !map.is_empty(),
            Value::Array(list) => !list.is_empty(),
            _ => false,
        } && !place.in_flow
            && !manner.is_json;
        let inline = || match (&node.kind, value) {
            (Kind::Scalar(_, ScalarStyle::DoubleQuoted, _), Value::String(string)) => render::text(string, true, true),
            (Kind::Scalar(_, ScalarStyle::SingleQuoted, _), Value::String(string))
                if string.chars().all(|c| !c.is_control()) =>
            {
                format!("'{}'", string.replace('\'', "''"))
            }
            _ => render::flow(value, manner),
        };
        let Some(key) = key else {
            if node.start == node.end {
                return Err("is an empty item".into());
            }
            let text = if is_block {
                let column = self.column(node.start);
                let mut lines = render::block(value, column, manner);
                let first = lines.remove(0);
                let mut splices = vec![Splice { start: node.start, end: node.end, text: first }];
                if !lines.is_empty() {
                    let lines: Vec<_> = lines;
                    splices.push(self.add_lines(node.end, 0, &lines));
                }
                return Ok(splices);
            } else {
                inline()
            };
            return Ok(vec![Splice { start: node.start, end: node.end, text }]);
        };
        let key = self.node(key);
        let colon = self.colon(key)?;
        // A block scalar that keeps its blank lines ends at the start of the next one.
        let end = node.end - usize::from(node.end > node.start && self.slice(0, node.end).ends_with('\n'));
        let is_on_lines_of_its_own = self.line_start(node.start) != self.line_start(key.start);
        if place.in_flow || node.is_flow && !is_block {
            let gap = if node.start == colon { " " } else { "" };
            return Ok(vec![Splice { start: node.start, end, text: format!("{gap}{}", inline()) }]);
        }
        let rest = if is_block {
            let column = self.column(key.start);
            let (from, lines) = match value {
                Value::Array(_) if !manner.indents_lists => (column, render::block(value, column, manner)),
                _ => (column + manner.step, render::block(value, column + manner.step, manner)),
            };
            Some((from, lines))
        } else {
            None
        };
        let mut splices = Vec::new();
        if is_on_lines_of_its_own {
            // The key's line keeps its comment; the lines below go.
            let start = self.line_start(node.start);
            if let Some((column, lines)) = rest {
                let text = self.lines(column, &lines);
                let end = self.next_line(node.end);
                splices.push(Splice { start, end, text: text + self.newline() });
            } else {
                splices.push(Splice { start: colon, end: colon, text: format!(" {}", inline()) });
                splices.push(Splice { start, end: self.next_line(node.end), text: String::new() });
            }
            return Ok(splices);
        }
        match rest {
            Some((column, lines)) => {
                splices.push(Splice { start: colon, end, text: String::new() });
                splices.push(self.add_lines(end, column, &lines));
            }
            None => {
                let gap = if node.start == colon { " " } else { "" };
                let text = format!("{gap}{}", inline());
                splices.push(Splice { start: node.start, end, text });
            }
        }
        Ok(splices)
    }

    fn add_pair(&self, parent: Place, above: &Path, key: &str, value: &Value) -> Result<Vec<Splice>, String> {
        let node = self.node(parent.id);
        let Kind::Mapping(pairs) = &node.kind else { return Err(NOT_HERE.into()) };
        let manner = self.manner(parent);
        let (Some(first), Some(last)) = (pairs.first(), pairs.last()) else {
            // `{}` becomes a block where it can, and is the root otherwise.
            let whole = json!({ key: value });
            if above.0.is_empty() {
                return Ok(vec![Splice { start: node.start, end: node.end, text: render::flow(&whole, manner) }]);
            }
            return self.set(above, &whole);
        };
        if node.is_flow {
            let key = render::text(key, true, manner.is_json);
            let (first, last) = (self.node(first.0), (self.node(last.0), self.end_of(last.0, last.1)));
            let last = Node {
                start: last.0.start,
                end: last.1,
                line: 0,
                has_anchor: false,
                is_flow: false,
                kind: Kind::List(Vec::new()),
            };
            return Ok(self.add_in_flow(node, first, &last, |column| {
                let value = match column {
                    Some(column) if manner.is_json => pretty(value, column, manner.step),
                    _ => render::flow(value, manner),
                };
                format!("{key}: {value}")
            }));
        }
        let column = self.column(self.node(first.0).start);
        let lines = render::pair(key, value, column, manner);
        Ok(vec![self.add_lines(self.end_of(last.0, last.1), column, &lines)])
    }

    /// Behind the last child of a flow collection, in a line of its own if the last one has that.
    fn add_in_flow(
        &self,
        node: &Node<'_>,
        first: &Node<'_>,
        last: &Node<'_>,
        render: impl Fn(Option<usize>) -> String,
    ) -> Vec<Splice> {
        let line = self.line_start(last.start);
        let indentation = self.slice(line, last.start);
        let is_in_lines = line > node.start && first.start > node.start && indentation.trim().is_empty();
        if !is_in_lines {
            return vec![Splice { start: last.end, end: last.end, text: format!(", {}", render(None)) }];
        }
        let after = self.slice(last.end, self.text.len()).trim_start();
        let (comma, trail) = if after.starts_with(',') { ("", ",") } else { (",", "") };
        let text = format!("{}{indentation}{}{trail}", self.newline(), render(Some(indentation.chars().count())));
        // The bracket may follow in the same line; a comment stays with what it stands behind.
        let line_end = self.line_end(last.end);
        let rest = self.slice(last.end, line_end).trim_start_matches([',', ' ', '\t']);
        let at = if rest.is_empty() || rest.starts_with('#') { line_end } else { last.end };
        if at == last.end {
            return vec![Splice { start: at, end: at, text: format!("{comma}{text}") }];
        }
        vec![Splice { start: last.end, end: last.end, text: comma.into() }, Splice { start: at, end: at, text }]
    }

    /// Lines behind the line that ends here.
    fn add_lines(&self, end: usize, column: usize, lines: &[String]) -> Splice {
        // A block scalar that keeps its blank lines ends at the start of the next one.
        let is_at_start = end > 0 && self.line_start(end) == end;
        let at = if is_at_start { end } else { self.next_line(end) };
        let text = self.lines(column, lines);
        let has_newline = at == 0 || self.slice(0, at).ends_with('\n');
        let text = if has_newline { text + self.newline() } else { format!("{}{text}", self.newline()) };
        Splice { start: at, end: at, text }
    }

    /// The first of them gets this indentation; the others have theirs.
    fn lines(&self, column: usize, lines: &[String]) -> String {
        format!("{}{}", " ".repeat(column), lines.join(self.newline()))
    }

    /// Where the written thing is; nothing where it, or something above it, is not there.
    fn find(&self, path: &Path) -> Result<Option<Place>, String> {
        let mut place = Place { id: self.tree.root, in_flow: false };
        for (count, segment) in path.0.iter().enumerate() {
            if matches!(self.node(place.id).kind, Kind::Alias(_)) {
                return Err(THROUGH_ALIAS.into());
            }
            let in_flow = self.is_flow(place);
            let Some(id) = self.tree.child(place.id, segment) else {
                let here = Path(path.0[..=count].to_vec());
                return if self.value_at(&here).is_some() { Err(THROUGH_ALIAS.into()) } else { Ok(None) };
            };
            place = Place { id, in_flow };
        }
        Ok(Some(place))
    }

    fn value_at(&self, path: &Path) -> Option<&Value> {
        path.0.iter().try_fold(self.value, |value, segment| match segment {
            Segment::Key(key) => value.get(key),
            Segment::Index(index) => value.get(index),
        })
    }

    fn node(&self, id: Id) -> &Node<'_> {
        self.tree.node(id)
    }

    fn is_flow(&self, place: Place) -> bool {
        place.in_flow || self.node(place.id).is_flow
    }

    fn is_null(&self, id: Id) -> bool {
        matches!(&self.node(id).kind, Kind::Scalar(text, ScalarStyle::Plain, None)
            if matches!(&**text, "" | "~" | "null" | "Null" | "NULL"))
    }

    /// A pair's end: that of its value, or of its colon where no value is written.
    fn end_of(&self, key: Id, value: Id) -> usize {
        self.node(value).end.max(self.node(key).end)
    }

    /// Behind the `:` of a key.
    fn colon(&self, key: &Node<'_>) -> Result<usize, String> {
        let rest = self.text.get(key.end..).unwrap_or_default();
        let blanks = rest.len() - rest.trim_start_matches([' ', '\t']).len();
        if rest[blanks..].starts_with(':') { Ok(key.end + blanks + 1) } else { Err("has a `?` before its key".into()) }
    }

    /// The `-` of an item in block style.
    fn dash(&self, list: &Node<'_>, index: usize) -> Result<usize, String> {
        let Kind::List(items) = &list.kind else { return Err(NOT_HERE.into()) };
        let item = items.get(index).ok_or(NOT_HERE)?;
        let from = match index.checked_sub(1).and_then(|before| items.get(before)) {
            Some(before) => self.node(*before).end,
            None => list.start,
        };
        tree::sign(self.text, from, self.node(*item).start, b"-").ok_or_else(|| "has no `-` of its own".into())
    }

    /// The start of the comment lines right above, in the same column; the line itself where there are none.
    fn own_comments(&self, mut line: usize, column: usize) -> usize {
        while let Some(end) = line.checked_sub(1) {
            let above = self.line_start(end);
            let text = self.slice(above, end);
            let blanks = text.len() - text.trim_start_matches(' ').len();
            if blanks != column || !text[blanks..].starts_with('#') {
                break;
            }
            line = above;
        }
        line
    }

    /// Positions come from a parser that may be wrong about what nobody would write: then it is an empty text, and the
    /// edit is refused by what it gives.
    fn slice(&self, from: usize, to: usize) -> &str {
        self.text.get(from..to).unwrap_or_default()
    }

    fn line_start(&self, at: usize) -> usize {
        self.slice(0, at).rfind('\n').map_or(0, |newline| newline + 1)
    }

    /// Before the line break.
    fn line_end(&self, at: usize) -> usize {
        let end = self.slice(at, self.text.len()).find('\n').map_or(self.text.len(), |newline| at + newline);
        if self.slice(at, end).ends_with('\r') { end - 1 } else { end }
    }

    fn next_line(&self, at: usize) -> usize {
        if at > 0 && self.line_start(at) == at {
            return at;
        }
        self.slice(at, self.text.len()).find('\n').map_or(self.text.len(), |newline| at + newline + 1)
    }

    /// In characters, as YAML counts.
    fn column(&self, at: usize) -> usize {
        self.slice(self.line_start(at), at).trim_start_matches('\u{feff}').chars().count()
    }

    fn newline(&self) -> &'static str {
        match self.text.find('\n') {
            Some(at) if self.slice(0, at).ends_with('\r') => "\r\n",
            _ => "\n",
        }
    }

    /// As the document does it: the first mapping in a mapping says how far, the first list in one says where dashes
    /// stand. Where it has none, as most manifests do.
    fn manner(&self, place: Place) -> Manner {
        let root = self.node(self.tree.root);
        let is_json = self.is_flow(place) && self.slice(root.start, root.end).trim_start().starts_with("{")
            || self.has_quoted_keys(place.id) && self.is_flow(place);
        let mut step = None;
        let mut indents_lists = None;
        for node in &self.tree.nodes {
            let Kind::Mapping(pairs) = &node.kind else { continue };
            for (key, value) in pairs {
                let (key, value) = (self.node(*key), self.node(*value));
                if self.line_start(key.start) >= self.line_start(value.start) || value.has_anchor {
                    continue;
                }
                let (outer, inner) = (self.column(key.start), self.column(value.start));
                match &value.kind {
                    Kind::Mapping(_) if inner > outer => {
                        step.get_or_insert(inner - outer);
                    }
                    Kind::List(_) if !node.is_flow => {
                        indents_lists.get_or_insert(inner > outer);
                    }
                    _ => {}
                }
            }
            if step.is_some() && indents_lists.is_some() {
                break;
            }
        }
        Manner { step: step.unwrap_or(2), indents_lists: indents_lists.unwrap_or(false), is_json }
    }

    fn has_quoted_keys(&self, id: Id) -> bool {
        let Kind::Mapping(pairs) = &self.node(id).kind else { return false };
        pairs
            .first()
            .is_some_and(|(key, _)| matches!(self.node(*key).kind, Kind::Scalar(_, ScalarStyle::DoubleQuoted, _)))
    }
}

/// JSON in lines, as `kubectl -o json` writes it.
fn pretty(value: &Value, column: usize, step: usize) -> String {
    let text = serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string());
    let mut lines = text.lines().map(|line| {
        let blanks = line.len() - line.trim_start().len();
        // serde_json indents by two.
        format!("{}{}", " ".repeat(column + blanks / 2 * step), line.trim_start())
    });
    let first = lines.next().unwrap_or_default();
    lines.fold(first.trim_start().to_owned(), |text, line| format!("{text}\n{line}"))
}
