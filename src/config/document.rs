//! The first half of reading: TOML text → what was typed. It takes `${NAME}` from the environment, keeps the
//! place of everything, and finds **every** problem, not the first: after each one that serde reports it takes
//! the offending entry out and reads again. What the entries mean is left to `meaning.rs`.

use std::{borrow::Cow, cell::RefCell};

use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use crate::{
    keys::{Node, Read},
    problem::Problem,
    redact::is_secret,
};

/// More problems than anybody reads; beyond it a file is garbage rather than a configuration with slips.
const MOST_PROBLEMS: usize = 50;

/// Shorter values of the environment are not hidden in messages: they would blot out letters everywhere.
const SHORTEST_HIDDEN: usize = 4;

/// A configuration file that is being read.
pub struct Document<'t> {
    /// The file's name for messages.
    pub file: &'t str,
    text: &'t str,
    /// `(value, NAME)` of each substitution, so that messages can show the name instead of what may be a secret.
    substituted: Vec<(String, String)>,
}

impl<'t> Document<'t> {
    pub fn new(file: &'t str, text: &'t str) -> Self {
        Self { file, text, substituted: Vec::new() }
    }

    /// Reads the whole text as a `T`. Problems are appended; what could not be read is left out of the result.
    /// `None` when nothing sensible is left.
    pub fn read<T: Read>(
        &mut self,
        environment: &dyn Fn(&str) -> Option<String>,
        problems: &mut Vec<Problem>,
    ) -> Option<T> {
        let (mut root, errors) = DeTable::parse_recoverable(self.text);
        let syntax_is_broken = !errors.is_empty();
        for error in errors.iter().take(MOST_PROBLEMS) {
            let at = error.span().map(|span| span.start);
            problems.push(self.problem(
                at.map(|at| self.line_of(at)),
                String::new(),
                format!("not valid TOML: {}", one_line(error.message())),
                Some("see https://toml.io for the syntax; `boathook config` prints a complete example".into()),
            ));
        }
        if syntax_is_broken {
            // A table header that was not understood moves all that follows to the wrong place: more messages would mislead.
            return None;
        }
        let mut unset = Vec::new();
        substitute_table(root.get_mut(), environment, &mut self.substituted, &mut unset);
        for (span, what, help) in &unset {
            let place = place_of(root.get_ref(), span);
            problems.push(self.problem(Some(self.line_of(span.start)), place, what.clone(), Some(help.clone())));
        }
        let mut whole = Spanned::new(root.span(), DeValue::Table(root.into_inner()));
        for _ in 0..MOST_PROBLEMS {
            let error = match T::read(Node::of_file(&whole)) {
                Ok(typed) => return Some(typed),
                Err(error) => error,
            };
            let DeValue::Table(root) = whole.get_mut() else { return None };
            let span = error.span();
            let place = place_of(root, &span);
            let (what, help) = explain(error.message());
            let what = self.hide_values(&what);
            // What was not substituted cannot be right either: once is enough.
            if !unset.iter().any(|(known, ..)| *known == span) {
                problems.push(self.problem(Some(self.line_of(span.start)), place, what, help));
            }
            if !remove(root, &span) {
                return None;
            }
        }
        None
    }

    /// The line of a byte of the text, counted from 1.
    pub fn line_of(&self, at: usize) -> usize {
        self.text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
    }

    /// The values that came from variables whose names say that they are secrets.
    pub fn secrets(&self) -> impl Iterator<Item = String> + '_ {
        self.substituted.iter().filter(|(value, name)| is_secret(name, value)).map(|(value, _)| value.clone())
    }

    /// Puts `${NAME}` back where a message would show the environment's value.
    pub fn hide_values(&self, message: &str) -> String {
        let mut message = message.to_owned();
        for (value, name) in &self.substituted {
            if value.len() >= SHORTEST_HIDDEN {
                message = message.replace(value.as_str(), &format!("${{{name}}}"));
            }
        }
        message
    }

    fn problem(&self, line: Option<usize>, place: String, what: String, help: Option<String>) -> Problem {
        Problem { file: self.file.into(), line, place, what, help }
    }
}

/// serde's words, turned into ours.
fn explain(message: &str) -> (String, Option<String>) {
    let message = one_line(message);
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let (field, expected) = rest.split_once(", ").unwrap_or((rest, ""));
        let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        let wrong = field.trim_matches('`');
        let near = known.iter().copied().filter(|name| is_near(wrong, name)).min_by_key(|name| name.len());
        let help = match (near, known.is_empty()) {
            (Some(near), _) => format!("did you mean `{near}`? known here: {}", known.join(", ")),
            (None, false) => format!("known here: {}", known.join(", ")),
            (None, true) => "take the key out".into(),
        };
        return (format!("unknown key {field}"), Some(help));
    }
    if let Some(rest) = message.strip_prefix("missing field ") {
        return (
            format!("the key {rest} is missing"),
            Some("`boathook config` prints every key with an example".into()),
        );
    }
    for (serdes, ours) in [("invalid type: ", "wrong type: "), ("invalid value: ", "wrong value: ")] {
        if let Some(rest) = message.strip_prefix(serdes) {
            let (found, expected) = rest.rsplit_once(", expected ").unwrap_or((rest, ""));
            let found = match found {
                "sequence" => "a list",
                "map" => "a table",
                found => found,
            };
            // What is expected in the words of TOML: the names of our own types are nobody's business.
            let expected = match expected {
                "" => return (format!("{ours}{found}"), None),
                "a sequence" => "a list",
                "a string" => "text in quotes",
                "a boolean" => "true or false",
                "a map" => "a table",
                expected => expected,
            };
            return (format!("{ours}{found}, expected {expected}"), None);
        }
    }
    (message, None)
}

/// Whether two words are one slip apart: a letter more, less, or another, letters in another order, or `_` for `-`.
pub fn is_near(wrong: &str, name: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (wrong.replace('_', "-").chars().collect(), name.chars().collect());
    let mut left = b.clone();
    let mut in_both = |x: &char| left.iter().position(|y| x == y).map(|at| left.swap_remove(at)).is_some();
    if a.len() == b.len() && a.iter().all(&mut in_both) {
        return true;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (above + 1).min(row[j] + 1).min(diagonal + usize::from(x != y));
            diagonal = above;
        }
    }
    // One slip in a short word, two in a longer one: more is another word.
    row[b.len()] <= if b.len() < 6 { 1 } else { 2 }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The variables that a configuration takes values from, each once, and whether it is refused without one,
/// because some place has no default for it. A text that is no TOML has none.
pub fn variables(text: &str) -> Vec<(String, bool)> {
    let (mut root, _) = DeTable::parse_recoverable(text);
    let asked = RefCell::new(Vec::new());
    let mut done = Vec::new();
    // An empty value gives way to a default wherever there is one: what is left in `done` has none.
    let empty = |name: &str| {
        asked.borrow_mut().push(name.to_owned());
        Some(String::new())
    };
    substitute_table(root.get_mut(), &empty, &mut done, &mut Vec::new());
    let mut variables: Vec<(String, bool)> = Vec::new();
    for name in asked.into_inner() {
        if variables.iter().all(|(known, _)| *known != name) {
            let is_needed = done.iter().any(|(_, needed)| *needed == name);
            variables.push((name, is_needed));
        }
    }
    variables
}

/// One thing that could not be substituted: where, what, how to fix it.
type Unset = (Range, String, String);

fn substitute_table(
    table: &mut DeTable<'_>,
    environment: &dyn Fn(&str) -> Option<String>,
    done: &mut Vec<(String, String)>,
    unset: &mut Vec<Unset>,
) {
    for (_, value) in table.iter_mut() {
        substitute_value(value, environment, done, unset);
    }
}

fn substitute_value(
    value: &mut Spanned<DeValue<'_>>,
    environment: &dyn Fn(&str) -> Option<String>,
    done: &mut Vec<(String, String)>,
    unset: &mut Vec<Unset>,
) {
    let span = value.span();
    match value.get_mut() {
        DeValue::String(text) if text.contains("${") => match substitute(text, environment, done) {
            Ok(new) => *text = Cow::Owned(new),
            Err((what, help)) => unset.push((span, what, help)),
        },
        // No key takes a date; as text, the key's own message says what it wants instead.
        DeValue::Datetime(date) => {
            let text = date.to_string();
            *value.get_mut() = DeValue::String(text.into());
        }
        DeValue::Array(array) => {
            for item in array.iter_mut() {
                substitute_value(item, environment, done, unset);
            }
        }
        DeValue::Table(table) => substitute_table(table, environment, done, unset),
        _ => {}
    }
}

/// Replaces `${NAME}` and `${NAME:-default}`; `$${` stands for a plain `${`.
fn substitute(
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
    done: &mut Vec<(String, String)>,
) -> Result<String, (String, String)> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at]);
            out.push('{');
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let inner = &rest[at + 2..];
        let Some(end) = inner.find('}') else {
            return Err(("`${` without its `}`".into(), "close it, or write `$${` for a plain `${`".into()));
        };
        let (name, default) = match inner[..end].split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (&inner[..end], None),
        };
        let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && name.chars().next().is_some_and(|c| !c.is_ascii_digit());
        if !is_name {
            return Err((
                format!("`${{{name}}}` is not the name of an environment variable"),
                "write `$${` for a plain `${`, for example in a shell's script".into(),
            ));
        }
        // As in a shell, `:-` also covers a variable that is set but empty.
        let value = environment(name).filter(|value| !value.is_empty() || default.is_none());
        match (value, default) {
            (Some(value), _) => {
                out.push_str(&value);
                done.push((value, name.into()));
            }
            (None, Some(default)) => out.push_str(default),
            (None, None) => {
                return Err((
                    format!("the environment variable `{name}` is not set"),
                    format!(
                        "set it in the container's env, give a default `${{{name}:-…}}`, or write `$${{{name}}}` to leave it to a shell"
                    ),
                ));
            }
        }
        rest = &inner[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

type Range = std::ops::Range<usize>;

fn contains(outer: &Range, inner: &Range) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

/// The words for a place: `pre-stop: step "leave": retries`.
fn place_of(root: &DeTable<'_>, span: &Range) -> String {
    let mut best: Option<(usize, Vec<String>)> = None;
    visit_table(root, span, &mut Vec::new(), &mut best);
    best.map(|(_, words)| words.join(": ")).unwrap_or_default()
}

/// Walks to the smallest entry whose key or value holds `span`.
fn visit_table(table: &DeTable<'_>, span: &Range, path: &mut Vec<String>, best: &mut Option<(usize, Vec<String>)>) {
    for (key, value) in table {
        // The list of steps is spoken of as the step itself.
        let silent = key.get_ref() == "step" || key.get_ref() == "group";
        if !silent {
            path.push(key.get_ref().to_string());
        }
        if key.span() == *span {
            *best = Some((0, path.clone()));
        }
        visit_value(value, span, path, best);
        if !silent {
            path.pop();
        }
    }
}

fn visit_value(
    value: &Spanned<DeValue<'_>>,
    span: &Range,
    path: &mut Vec<String>,
    best: &mut Option<(usize, Vec<String>)>,
) {
    let own = value.span();
    if contains(&own, span) && best.as_ref().is_none_or(|(size, _)| own.len() <= *size) {
        *best = Some((own.len(), path.clone()));
    }
    match value.get_ref() {
        DeValue::Table(table) => visit_table(table, span, path, best),
        DeValue::Array(array) => {
            for (index, item) in array.iter().enumerate() {
                let name =
                    item.get_ref().as_table().map(|table| table.get("name").and_then(|name| name.get_ref().as_str()));
                match name {
                    Some(Some(name)) => path.push(format!("step \"{name}\"")),
                    Some(None) => path.push(format!("step {}", index + 1)),
                    None => {}
                }
                visit_value(item, span, path, best);
                if name.is_some() {
                    path.pop();
                }
            }
        }
        _ => {}
    }
}

/// Takes the entry at `span` out of the document; false when there is none.
fn remove(root: &mut DeTable<'_>, span: &Range) -> bool {
    remove_from_table(root, &|key, value| key == Some(span) || value == span)
        || remove_from_table(root, &|_, value| contains(value, span) && !value.is_empty())
}

type Matches<'m> = dyn Fn(Option<&Range>, &Range) -> bool + 'm;

fn remove_from_table<'i>(table: &mut DeTable<'i>, matches: &Matches<'_>) -> bool {
    // Deepest first: the smaller the loss, the more of the file is still checked.
    for (_, value) in table.iter_mut() {
        if remove_inside(value, matches) {
            return true;
        }
    }
    let hit = table.iter().find(|(key, value)| matches(Some(&key.span()), &value.span()));
    let Some(key) = hit.map(|(key, _)| key.get_ref().to_string()) else { return false };
    table.remove(key.as_str()).is_some()
}

fn remove_inside<'i>(value: &mut Spanned<DeValue<'i>>, matches: &Matches<'_>) -> bool {
    match value.get_mut() {
        DeValue::Table(table) => remove_from_table(table, matches),
        DeValue::Array(array) => {
            if array.iter_mut().any(|item| remove_inside(item, matches)) {
                return true;
            }
            let Some(hit) = array.iter().position(|item| matches(None, &item.span())) else { return false };
            let mut kept = DeArray::new();
            for (index, item) in std::mem::replace(array, DeArray::new()).into_iter().enumerate() {
                if index != hit {
                    kept.push(item);
                }
            }
            *array = kept;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::keys;

    fn environment(name: &str) -> Option<String> {
        match name {
            "PORT" => Some("8080".into()),
            "SECRET" => Some("hunter22".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn substitutes_as_a_shell_would() {
        for (text, want) in [
            ("plain", Ok("plain")),
            ("a ${PORT} b", Ok("a 8080 b")),
            ("${PORT}${PORT}", Ok("80808080")),
            ("${NONE:-x}", Ok("x")),
            ("${NONE:-}", Ok("")),
            ("${EMPTY:-x}", Ok("x")),
            ("${EMPTY}", Ok("")),
            ("$${PORT}", Ok("${PORT}")),
            ("$PORT", Ok("$PORT")),
            ("${NONE}", Err("the environment variable `NONE` is not set")),
            ("${PORT", Err("`${` without its `}`")),
            ("${a b}", Err("`${a b}` is not the name of an environment variable")),
        ] {
            let got = substitute(text, &environment, &mut Vec::new()).map_err(|(what, _)| what);
            assert_eq!(got.as_deref().map_err(String::as_str), want, "{text}");
        }
    }

    keys! {
        struct Sample {
            one: Option<crate::number::Port> = Toml,
            two_words: Option<String> = Toml,
            part: Part = Toml,
            step: Vec<Part> = Toml,
        }
    }

    keys! {
        struct Part {
            name: Option<String> = Toml,
            limit: Option<crate::duration::Span> = Toml,
        }
    }

    #[test]
    fn finds_every_problem_with_its_place() {
        let text = "one = \"x\"\ntwo_words = 1\n[part]\nlimit = \"${SECRET}\"\nlimitt = 1\n[[step]]\nname = \"save\"\nlimit = 3\n[[step]]\nlimit = \"${NONE}\"\n";
        let mut problems = Vec::new();
        let mut document = Document::new("t.toml", text);
        let _: Option<Sample> = document.read(&environment, &mut problems);
        let mut got: Vec<String> = problems.iter().map(ToString::to_string).collect();
        got.sort();
        let got: Vec<&str> = got.iter().map(|line| line.lines().next().unwrap_or("")).collect();
        assert_eq!(
            got,
            [
                "t.toml:10: step 2: limit: the environment variable `NONE` is not set",
                "t.toml:1: one: `x` is not a whole number from 0 to 65535",
                "t.toml:2: two_words: unknown key `two_words`",
                "t.toml:4: part: limit: `${SECRET}` is not a duration: write a number with a unit, such as \"30s\"",
                "t.toml:5: part: limitt: unknown key `limitt`",
                "t.toml:8: step \"save\": limit: wrong type: integer `3`, expected a duration in quotes, such as \"30s\"",
            ]
        );
    }

    #[test]
    fn garbage_is_said_once_and_ends() {
        let text = "\u{0}\u{1}=[[[".repeat(1000);
        let mut problems = Vec::new();
        let got: Option<Sample> = Document::new("t.toml", &text).read(&environment, &mut problems);
        assert!(got.is_none());
        assert!(!problems.is_empty() && problems.len() <= MOST_PROBLEMS);
    }
}
