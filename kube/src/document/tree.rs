//! The parser's events as one tree for each document, with the bytes that everything stands in; bounded, so that no
//! input can hang, overflow the stack or eat the memory.

use std::{borrow::Cow, collections::HashMap};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use crate::path::Segment;

/// The deepest real objects (schemas in CustomResourceDefinitions) have about 50 levels; `serde_json` stops at 128.
pub const DEPTH: usize = 128;
/// A value takes about a hundred bytes of memory, a small mapping six hundred. Text of 64 MiB as people and tools write
/// it has two million.
const NODES: usize = 6_000_000;

/// Index of a node in its tree.
pub type Id = u32;

/// One mapping, list, scalar or alias.
#[derive(Debug)]
pub struct Node<'t> {
    /// The bytes that it stands in; a collection in block style ends where its last child ends.
    pub start: usize,
    pub end: usize,
    /// Counted from 1.
    pub line: usize,
    pub has_anchor: bool,
    /// `[…]` or `{…}`.
    pub is_flow: bool,
    pub kind: Kind<'t>,
}

#[derive(Debug)]
pub enum Kind<'t> {
    Scalar(Cow<'t, str>, ScalarStyle, Option<Box<Tag>>),
    List(Vec<Id>),
    Mapping(Vec<(Id, Id)>),
    /// What it stands for.
    Alias(Id),
}

/// One document.
#[derive(Debug)]
pub struct Tree<'t> {
    pub nodes: Vec<Node<'t>>,
    pub root: Id,
    /// Where its part of the text ends; that of the next document begins here.
    pub end: usize,
}

impl<'t> Tree<'t> {
    pub fn node(&self, id: Id) -> &Node<'t> {
        &self.nodes[id as usize]
    }

    /// One step down, in what is written here: not through an alias or a merge.
    pub fn child(&self, id: Id, segment: &Segment) -> Option<Id> {
        match (&self.node(id).kind, segment) {
            (Kind::List(items), Segment::Index(index)) => items.get(*index).copied(),
            (Kind::Mapping(pairs), Segment::Key(wanted)) => pairs
                .iter()
                .find(|(key, _)| matches!(&self.node(*key).kind, Kind::Scalar(text, ..) if text == wanted))
                .map(|(_, value)| *value),
            _ => None,
        }
    }
}

/// What is wrong, and in which line.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    pub line: usize,
    pub what: String,
}

impl Wrong {
    pub fn new(line: usize, what: impl Into<String>) -> Self {
        Self { line, what: what.into() }
    }
}

impl From<ScanError> for Wrong {
    fn from(error: ScanError) -> Self {
        Self::new(error.marker().line(), format!("is not YAML: {}", error.info()))
    }
}

/// The documents of a text, one after the other.
pub struct Trees<'t> {
    text: &'t str,
    parser: Parser<'t, StrInput<'t>>,
    /// The parser counts characters: where it was last, in characters and in bytes.
    at: (usize, usize),
    nodes: usize,
    is_over: bool,
}

/// A collection that is still open.
struct Open {
    id: Id,
    /// The key that waits for its value.
    key: Option<Id>,
}

impl<'t> Trees<'t> {
    pub fn of(text: &'t str) -> Self {
        Self { text, parser: Parser::new_from_str(text), at: (0, 0), nodes: 0, is_over: false }
    }

    /// The byte of this character; the markers go forward, with small steps back.
    fn byte(&mut self, character: usize) -> usize {
        let bytes = self.text.as_bytes();
        let is_start = |byte: usize| bytes.get(byte).is_none_or(|byte| byte & 0xc0 != 0x80);
        let (mut now, mut byte) = self.at;
        while now < character && byte < bytes.len() {
            byte += 1;
            while !is_start(byte) {
                byte += 1;
            }
            now += 1;
        }
        while now > character && byte > 0 {
            byte -= 1;
            while !is_start(byte) {
                byte -= 1;
            }
            now -= 1;
        }
        self.at = (now, byte);
        byte
    }

    /// Where a block scalar's `|` or `>` is; the parser tells only where its text begins.
    fn header(&self, before: usize, end: usize) -> Option<usize> {
        sign(self.text, before, end, b"|>")
    }

    /// Where the last line of a block scalar ends; blank lines after it belong to it only if its header says `+`.
    fn block_end(&self, header: usize, end: usize) -> usize {
        let Some(text) = self.text.get(header..end) else { return end };
        let first = text.split(['\n', '#']).next().unwrap_or_default();
        let own = if first.contains('+') { text.trim_end_matches(' ') } else { text.trim_end() };
        header + own.len()
    }

    /// Behind the second quote.
    fn quoted_end(&self, quote: u8, start: usize, end: usize) -> usize {
        let Some(bytes) = self.text.as_bytes().get(start..end) else { return end };
        let mut inside = false;
        let mut index = 0;
        while let Some(byte) = bytes.get(index) {
            match *byte {
                b'\\' if inside && quote == b'"' => index += 1,
                byte if byte == quote && inside && quote == b'\'' && bytes.get(index + 1) == Some(&quote) => index += 1,
                byte if byte == quote && inside => return start + index + 1,
                byte if byte == quote => inside = true,
                _ => {}
            }
            index += 1;
        }
        end
    }

    /// Where a value would be that is not written: behind the `:` or the `-`.
    fn empty(&self, before: usize, end: usize) -> usize {
        // A `:` needs no blank before it, and may be where the parser stops.
        let rest = self.text.get(before..).unwrap_or_default();
        let blanks = rest.len() - rest.trim_start_matches([' ', '\t']).len();
        if rest[blanks..].starts_with(':') {
            return before + blanks + 1;
        }
        sign(self.text, before, end, b":-?").map_or(end, |sign| sign + 1)
    }

    fn tree(&mut self) -> Result<Option<Tree<'t>>, Wrong> {
        let mut nodes: Vec<Node<'t>> = Vec::new();
        let mut open: Vec<Open> = Vec::new();
        let mut anchors: HashMap<usize, Id> = HashMap::new();
        let mut before = self.at.1;
        while let Some(event) = self.parser.next_event() {
            let (event, Span { start, end }) = event?;
            let line = start.line();
            let (anchor, kind) = match event {
                Event::Nothing | Event::StreamStart | Event::DocumentStart(_) => continue,
                Event::StreamEnd => return Ok(None),
                Event::DocumentEnd => {
                    let (start, end) = (self.byte(start.index()), self.byte(end.index()));
                    // `...` is this document's, `---` the next one's.
                    let end = if self.text.get(start..end) == Some("...") { end } else { start };
                    return Ok(Some(Tree { nodes, root: 0, end }));
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    let flow_end = self.byte(start.index() + 1);
                    if let Some(Open { id, .. }) = open.pop() {
                        let is_flow = nodes[id as usize].is_flow;
                        if is_flow {
                            before = flow_end;
                        }
                        let (first, last) = match &nodes[id as usize].kind {
                            Kind::List(items) => (items.first().copied(), items.last().copied()),
                            Kind::Mapping(pairs) => (None, pairs.last().map(|pair| pair.1)),
                            Kind::Scalar(..) | Kind::Alias(_) => (None, None),
                        };
                        nodes[id as usize].end = match last {
                            Some(last) if !is_flow => nodes[last as usize].end,
                            _ => flow_end,
                        };
                        // Where its dashes are not indented, the parser counts a list from behind the first.
                        if let (Some(first), false) = (first, is_flow || nodes[id as usize].has_anchor) {
                            let before = self.text.get(..nodes[first as usize].start).unwrap_or_default().trim_end();
                            if before.ends_with('-') {
                                nodes[id as usize].start = before.len() - 1;
                            }
                        }
                    }
                    continue;
                }
                Event::Alias(anchor) => {
                    let target = anchors.get(&anchor).copied();
                    let target = target.ok_or_else(|| Wrong::new(line, "this anchor is in another document"))?;
                    if open.iter().any(|open| open.id == target) {
                        return Err(Wrong::new(line, "this alias stands inside of its own anchor"));
                    }
                    (0, Kind::Alias(target))
                }
                Event::Scalar(text, style, anchor, tag) => {
                    (anchor, Kind::Scalar(text, style, tag.map(|tag| Box::new(tag.into_owned()))))
                }
                Event::SequenceStart(anchor, _) => (anchor, Kind::List(Vec::new())),
                Event::MappingStart(anchor, _) => (anchor, Kind::Mapping(Vec::new())),
            };
            self.nodes += 1;
            if self.nodes > NODES {
                return Err(Wrong::new(line, format!("has more than {NODES} values: give it in parts")));
            }
            #[expect(clippy::cast_possible_truncation, reason = "there are at most six million")]
            let id = nodes.len() as Id;
            let is_collection = matches!(kind, Kind::List(_) | Kind::Mapping(_));
            let (mut start, mut end, mut line) = (self.byte(start.index()), self.byte(end.index()), line);
            let mut is_flow = false;
            match &kind {
                Kind::Scalar(_, ScalarStyle::Literal | ScalarStyle::Folded, _) => {
                    let header = self.header(before, end).unwrap_or(start);
                    // With an anchor or a tag the parser counts from there, without one from the first line of text.
                    if header < start {
                        line = line
                            .saturating_sub(self.text.get(header..start).map_or(0, |text| text.matches("\n").count()));
                        start = header;
                    }
                    end = self.block_end(header, end);
                }
                Kind::Scalar(text, ScalarStyle::Plain, None) if text.is_empty() && anchor == 0 => {
                    start = self.empty(before, end);
                    end = start;
                }
                // The parser ends these behind the blanks, and a comment, that follow.
                Kind::Scalar(_, ScalarStyle::SingleQuoted, _) => end = self.quoted_end(b'\'', start, end),
                Kind::Scalar(_, ScalarStyle::DoubleQuoted, _) => end = self.quoted_end(b'"', start, end),
                Kind::List(_) | Kind::Mapping(_) => {
                    // The parser has gone on to what follows the bracket.
                    let opening = self.text.get(start..end).unwrap_or_default().trim_end();
                    is_flow = opening.ends_with(['[', '{']);
                }
                Kind::Scalar(..) | Kind::Alias(_) => {}
            }
            if is_flow || !is_collection {
                before = end;
            }
            nodes.push(Node { start, end, line, has_anchor: anchor != 0, is_flow, kind });
            if anchor != 0 {
                anchors.insert(anchor, id);
            }
            if let Some(parent) = open.last_mut() {
                match &mut nodes[parent.id as usize].kind {
                    Kind::List(items) => items.push(id),
                    Kind::Mapping(pairs) => match parent.key.take() {
                        None => parent.key = Some(id),
                        Some(key) => pairs.push((key, id)),
                    },
                    Kind::Scalar(..) | Kind::Alias(_) => {}
                }
            }
            if is_collection {
                if open.len() >= DEPTH {
                    return Err(Wrong::new(line, format!("is nested deeper than {DEPTH} levels")));
                }
                open.push(Open { id, key: None });
            }
        }
        Ok(None)
    }
}

impl<'t> Iterator for Trees<'t> {
    type Item = Result<Tree<'t>, Wrong>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let tree = self.tree().transpose();
        self.is_over = !matches!(tree, Some(Ok(_)));
        tree
    }
}

/// The first of these signs after a blank and outside of comments.
pub fn sign(text: &str, from: usize, to: usize, signs: &[u8]) -> Option<usize> {
    let mut last = b' ';
    let mut in_comment = false;
    for (index, byte) in text.as_bytes().get(from..to)?.iter().enumerate() {
        match byte {
            b'\n' => in_comment = false,
            b'#' if last.is_ascii_whitespace() => in_comment = true,
            byte if signs.contains(byte) && last.is_ascii_whitespace() && !in_comment => return Some(from + index),
            _ => {}
        }
        last = *byte;
    }
    None
}
