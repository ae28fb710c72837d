//! YAML as people write it: fields in a fixed order, with a remark behind a value; plain, or as lines of a Helm template.
//! What is said is left to `parts.rs`. Pure.

use std::fmt::Write;

use serde_json::Value;

/// Comments that have a line of their own are no wider; with less than a few words in a line they would be unreadable, but
/// nothing is indented that far.
const WIDTH: usize = 110;

/// Lines of one indentation: either fields, or the items of a list, with comments between.
pub type Block = Vec<Line>;

#[derive(Clone, Debug)]
pub enum Line {
    Comment(String),
    Field {
        key: String,
        value: Yaml,
        remark: String,
    },
    Item {
        value: Yaml,
        remark: String,
    },
    /// Fields that must not be there: in a merge each takes away what was there before.
    Absent(&'static [&'static str]),
}

#[derive(Clone, Debug)]
pub enum Yaml {
    /// In one line; in a list or a table that are within a line, too.
    Inline(Value),
    /// Helm's values may give another one.
    Knob(Knob),
    Block(Block),
    /// A block in whose place Helm's values may give another one.
    KnobBlock(&'static str, Block),
}

/// A value that a chart's user may change.
#[derive(Clone, Debug)]
pub struct Knob {
    /// Its name under `.Values.boathook`.
    pub name: String,
    pub default: Value,
    /// What stands before it in the field, `Bearer `.
    pub before: &'static str,
}

/// For whom it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    Plain,
    /// To be merged into something that is there.
    Patch,
    Helm,
}

impl Line {
    pub fn field(key: impl Into<String>, value: impl Into<Yaml>) -> Self {
        Self::Field { key: key.into(), value: value.into(), remark: String::new() }
    }

    pub fn item(value: impl Into<Yaml>) -> Self {
        Self::Item { value: value.into(), remark: String::new() }
    }

    /// With a remark behind it.
    #[must_use]
    pub fn because(mut self, text: impl Into<String>) -> Self {
        if let Self::Field { remark, .. } | Self::Item { remark, .. } = &mut self {
            *remark = text.into();
        }
        self
    }
}

pub fn comment(text: impl Into<String>) -> Line {
    Line::Comment(text.into())
}

impl From<Value> for Yaml {
    fn from(value: Value) -> Self {
        Self::Inline(value)
    }
}

impl From<&str> for Yaml {
    fn from(text: &str) -> Self {
        Self::Inline(text.into())
    }
}

impl From<String> for Yaml {
    fn from(text: String) -> Self {
        Self::Inline(text.into())
    }
}

impl From<u64> for Yaml {
    fn from(number: u64) -> Self {
        Self::Inline(number.into())
    }
}

impl From<bool> for Yaml {
    fn from(truth: bool) -> Self {
        Self::Inline(truth.into())
    }
}

impl From<Knob> for Yaml {
    fn from(knob: Knob) -> Self {
        Self::Knob(knob)
    }
}

impl From<Block> for Yaml {
    fn from(block: Block) -> Self {
        Self::Block(block)
    }
}

/// The block's lines, each indented by so many spaces.
pub fn write(block: &Block, indent: usize, flavour: Flavour) -> String {
    let mut out = String::new();
    for line in lines(block, indent, flavour) {
        out.push_str(&line);
        out.push('\n');
    }
    out
}

fn lines(block: &Block, indent: usize, flavour: Flavour) -> Vec<String> {
    let space = " ".repeat(indent);
    let mut out = Vec::new();
    for line in block {
        match line {
            Line::Comment(text) => {
                let wrapped = wrap(&in_one_line(text), WIDTH.saturating_sub(indent));
                out.extend(wrapped.iter().map(|line| format!("{space}# {}", literal(line, flavour))));
            }
            Line::Absent(keys) => {
                let keys = keys.iter().filter(|_| flavour == Flavour::Patch);
                out.extend(keys.map(|key| format!("{space}{key}: null")));
            }
            Line::Field { key, value, remark } => {
                let head = format!("{space}{}:", inline(&Value::String(key.clone()), false));
                let remark = behind(remark, flavour);
                match value {
                    Yaml::Block(block) => {
                        out.push(format!("{head}{remark}"));
                        out.extend(lines(block, indent + 2, flavour));
                    }
                    Yaml::KnobBlock(name, block) => {
                        out.push(format!("{head}{remark}"));
                        out.extend(knob_block(name, block, indent + 2, flavour));
                    }
                    value => out.push(format!("{head} {}{remark}", scalar(value, flavour))),
                }
            }
            Line::Item { value: Yaml::Block(block) | Yaml::KnobBlock(_, block), remark } => {
                let mut inner = lines(block, indent + 2, flavour);
                // What is said before the first field stays before the dash, which no comment may follow.
                if let Some(first) = inner.iter_mut().find(|line| !line.trim_start().starts_with('#')) {
                    let field = first.split_off(indent + 2);
                    *first = format!("{space}- {field}{}", behind(remark, flavour));
                }
                out.extend(inner);
            }
            Line::Item { value, remark } => {
                out.push(format!("{space}- {}{}", scalar(value, flavour), behind(remark, flavour)));
            }
        }
    }
    out
}

/// Cut between words.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut wrapped = vec![String::new()];
    for word in text.split(' ') {
        match wrapped.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => wrapped.push(word.to_owned()),
        }
    }
    wrapped
}

fn knob_block(name: &str, block: &Block, indent: usize, flavour: Flavour) -> Vec<String> {
    let own = lines(block, indent, flavour);
    if flavour != Flavour::Helm {
        return own;
    }
    let space = " ".repeat(indent);
    let mut out = vec![
        format!("{space}{{{{- with $boathook.{name} }}}}"),
        format!("{space}{{{{- toYaml . | nindent {indent} }}}}"),
        format!("{space}{{{{- else }}}}"),
    ];
    out.extend(own);
    out.push(format!("{space}{{{{- end }}}}"));
    out
}

fn behind(remark: &str, flavour: Flavour) -> String {
    if remark.is_empty() { String::new() } else { format!("  # {}", literal(&in_one_line(remark), flavour)) }
}

/// A path may have anything in it; in a comment it must not end the line, as whoever reads YAML 1.1 sees lines.
fn in_one_line(text: &str) -> String {
    text.replace(|c: char| c.is_control() || ['\u{2028}', '\u{2029}'].contains(&c), " ")
}

fn scalar(value: &Yaml, flavour: Flavour) -> String {
    match value {
        Yaml::Inline(value) => literal(&inline(value, false), flavour),
        Yaml::Knob(knob) if flavour != Flavour::Helm => inline(&knob.plain(), false),
        Yaml::Knob(knob) => {
            let mut text = format!("{{{{ $boathook.{} | default {}", knob.name, knob.default);
            if !knob.before.is_empty() {
                let _ = write!(text, " | printf \"{}%s\"", knob.before);
            }
            text.push_str(if knob.default.is_string() { " | quote }}" } else { " }}" });
            text
        }
        // Never within a line.
        Yaml::Block(_) | Yaml::KnobBlock(..) => String::new(),
    }
}

impl Knob {
    /// The value when nobody changes it.
    pub fn plain(&self) -> Value {
        match &self.default {
            Value::String(text) => format!("{}{text}", self.before).into(),
            other => other.clone(),
        }
    }
}

/// What Helm would take for its own is left to it as a text that says the same.
fn literal(text: &str, flavour: Flavour) -> String {
    match flavour {
        Flavour::Plain | Flavour::Patch => text.into(),
        Flavour::Helm => text.replace("{{", "{{ \"{{\" }}"),
    }
}

/// A value in one line; `within` a list or table of that line.
pub fn inline(value: &Value, within: bool) -> String {
    match value {
        Value::String(text) if is_plain(text, within) => text.clone(),
        // A JSON text is a YAML text (YAML 1.2, 1.3).
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) => {
            // Words of a command line: all in quotes, or none.
            let is_plain = items.iter().all(|item| item.as_str().is_none_or(|text| is_plain(text, true)));
            let is_command = items.iter().any(|item| item.as_str().is_some_and(|text| text.starts_with('/')));
            let one = |item: &Value| match item {
                Value::String(_) if is_command || !is_plain => item.to_string(),
                item => inline(item, true),
            };
            format!("[{}]", items.iter().map(one).collect::<Vec<_>>().join(", "))
        }
        Value::Object(fields) => {
            let one = |(key, value): (&String, &Value)| {
                format!("{}: {}", inline(&Value::String(key.clone()), true), inline(value, true))
            };
            format!("{{{}}}", fields.iter().map(one).collect::<Vec<_>>().join(", "))
        }
    }
}

/// Whether every reader takes this text for a text without quotes, also those that read `yes` and `on` as truths (YAML
/// 1.1, as kubectl does).
fn is_plain(text: &str, within: bool) -> bool {
    const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let fits = |c: char| c.is_ascii_alphanumeric() || "/_.- ".contains(c) || c == ':' && !within;
    let is_word = WORDS.contains(&text.to_ascii_lowercase().as_str());
    begins && text.chars().all(fits) && !text.ends_with([' ', ':']) && !text.contains(": ") && !is_word
}

/// All knobs in the order in which they first stand there, with what they are when nobody changes them.
pub fn knobs(block: &Block) -> Vec<(String, Yaml)> {
    fn collect(block: &Block, found: &mut Vec<(String, Yaml)>) {
        for line in block {
            let (Line::Field { value, .. } | Line::Item { value, .. }) = line else { continue };
            let new = match value {
                Yaml::Knob(knob) => (knob.name.clone(), Yaml::Inline(knob.default.clone())),
                Yaml::KnobBlock(name, block) => ((*name).to_owned(), Yaml::Block(block.clone())),
                Yaml::Block(block) => {
                    collect(block, found);
                    continue;
                }
                Yaml::Inline(_) => continue,
            };
            if found.iter().all(|(name, _)| *name != new.0) {
                found.push(new);
            }
        }
    }
    let mut found = Vec::new();
    collect(block, &mut found);
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quotes_what_a_reader_would_take_for_something_else() {
        for (value, plain, within) in [
            (json!("boathook:0.1.0"), "boathook:0.1.0", "\"boathook:0.1.0\""),
            (json!("Bearer replace-me"), "Bearer replace-me", "Bearer replace-me"),
            (json!("yes"), "\"yes\"", "\"yes\""),
            (json!("8080"), "\"8080\"", "\"8080\""),
            (json!("a: b"), "\"a: b\"", "\"a: b\""),
            (json!("a #b"), "\"a #b\"", "\"a #b\""),
            (json!(""), "\"\"", "\"\""),
            (json!("a\"b\n"), "\"a\\\"b\\n\"", "\"a\\\"b\\n\""),
            (json!(["/boathook", "run"]), "[\"/boathook\", \"run\"]", "[\"/boathook\", \"run\"]"),
            (json!(["ALL"]), "[ALL]", "[ALL]"),
            (json!({"path": "/ready", "port": "hooks"}), "{path: /ready, port: hooks}", "{path: /ready, port: hooks}"),
            (json!(true), "true", "true"),
        ] {
            assert_eq!((inline(&value, false).as_str(), inline(&value, true).as_str()), (plain, within));
        }
    }

    fn sample() -> Block {
        let knob = |name: &str, default: Value, before| Knob { name: name.into(), default, before };
        vec![
            Line::field("grace", knob("grace", 30.into(), "")).because("5s {{ + 25s"),
            Line::field(
                "list",
                vec![
                    Line::item(vec![
                        comment("first"),
                        Line::field("name", "a"),
                        Line::field("value", knob("token", "x".into(), "Bearer ")),
                    ])
                    .because("why"),
                    Line::item("{{ b }}"),
                ],
            ),
            Line::Absent(&["gone", "away"]),
            Line::field("context", Yaml::KnobBlock("context", vec![Line::field("root", false)])),
        ]
    }

    #[test]
    fn writes_plain_yaml() {
        let wanted = "  grace: 30  # 5s {{ + 25s\n  list:\n      # first\n    - name: a  # why\n      value: Bearer x\n    - \"{{ b }}\"\n  context:\n    root: false\n";
        assert_eq!(write(&sample(), 2, Flavour::Plain), wanted);
        let wanted = wanted.replace("  context", "  gone: null\n  away: null\n  context");
        assert_eq!(write(&sample(), 2, Flavour::Patch), wanted);
    }

    #[test]
    fn a_comment_cannot_be_left() {
        let block = vec![comment("a\nb: c"), Line::field("d", 1).because("e\u{2028}f: g\r")];
        assert_eq!(write(&block, 0, Flavour::Plain), "# a b: c\nd: 1  # e f: g \n");
    }

    #[test]
    fn writes_helms_lines() {
        let wanted = [
            "grace: {{ $boathook.grace | default 30 }}  # 5s {{ \"{{\" }} + 25s",
            "list:",
            "    # first",
            "  - name: a  # why",
            "    value: {{ $boathook.token | default \"x\" | printf \"Bearer %s\" | quote }}",
            "  - \"{{ \"{{\" }} b }}\"",
            "context:",
            "  {{- with $boathook.context }}",
            "  {{- toYaml . | nindent 2 }}",
            "  {{- else }}",
            "  root: false",
            "  {{- end }}",
            "",
        ];
        assert_eq!(write(&sample(), 0, Flavour::Helm), wanted.join("\n"));
        let knobs: Vec<String> = knobs(&sample()).into_iter().map(|(name, _)| name).collect();
        assert_eq!(knobs, ["grace", "token", "context"]);
    }
}
