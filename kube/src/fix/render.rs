//! A value as YAML in the manner of the file around it.

use saphyr_parser::ScalarStyle;
use serde_json::Value;

use crate::document::scalar;

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    /// Spaces for one level.
    pub step: usize,
    /// Whether the `-` of a list in a mapping stands further in than its key.
    pub indents_lists: bool,
    /// Everything in double quotes.
    pub is_json: bool,
}

/// One `key: value` in block style: its lines, without the indentation of the first, which stands in `column`.
pub fn pair(key: &str, value: &Value, column: usize, manner: Manner) -> Vec<String> {
    let key = text(key, false, false);
    let (from, mut lines) = match value {
        Value::Object(map) if !map.is_empty() => (column + manner.step, block(value, column + manner.step, manner)),
        Value::Array(list) if !list.is_empty() => {
            let from = column + if manner.indents_lists { manner.step } else { 0 };
            (from, block(value, from, manner))
        }
        _ => return vec![format!("{key}: {}", flow(value, manner))],
    };
    indent_first(&mut lines, from);
    lines.insert(0, format!("{key}:"));
    lines
}

/// A value in block style: its lines, without the indentation of the first, which stands in `column`.
pub fn block(value: &Value, column: usize, manner: Manner) -> Vec<String> {
    let mut lines = Vec::new();
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                let mut pair = pair(key, value, column, manner);
                if !lines.is_empty() {
                    indent_first(&mut pair, column);
                }
                lines.append(&mut pair);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for value in list {
                let mut item = item(value, column, 2, manner);
                if !lines.is_empty() {
                    indent_first(&mut item, column);
                }
                lines.append(&mut item);
            }
        }
        _ => lines.push(flow(value, manner)),
    }
    lines
}

/// One `- item`; `gap` is the distance from the dash to what follows it.
pub fn item(value: &Value, column: usize, gap: usize, manner: Manner) -> Vec<String> {
    let mut lines = block(value, column + gap, manner);
    if let Some(first) = lines.first_mut() {
        first.insert_str(0, &format!("-{}", " ".repeat(gap.saturating_sub(1))));
    }
    lines
}

fn indent_first(lines: &mut [String], column: usize) {
    if let Some(first) = lines.first_mut() {
        first.insert_str(0, &" ".repeat(column));
    }
}

/// A value in one line.
pub fn flow(value: &Value, manner: Manner) -> String {
    if manner.is_json {
        return value.to_string();
    }
    match value {
        Value::Object(map) => {
            let pairs: Vec<_> =
                map.iter().map(|(key, value)| format!("{}: {}", text(key, true, false), flow(value, manner))).collect();
            format!("{{{}}}", pairs.join(", "))
        }
        Value::Array(list) => {
            let items: Vec<_> = list.iter().map(|value| flow(value, manner)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::String(string) => text(string, true, false),
        other => other.to_string(),
    }
}

/// A string as a scalar in one line: without quotes where every reader takes it as the same string.
pub fn text(string: &str, in_flow: bool, is_json: bool) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    let is_more = |c: char| is_word(c) || matches!(c, ' ' | ':' | '@' | '+' | '=' | '$' | '(' | ')' | '%' | '~' | ';');
    let starts_well = string.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '.' | '_'))
        || string.starts_with(|c: char| c.is_ascii_digit()) && string.chars().all(is_word);
    let is_plain = !is_json
        && starts_well
        && string.chars().all(|c| is_more(c) || c == ',' && !in_flow)
        && !string.contains(": ")
        && !string.ends_with([':', ' '])
        && scalar::resolve(string, ScalarStyle::Plain, None) == Ok(Value::from(string));
    if is_plain { string.into() } else { Value::from(string).to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MANNER: Manner = Manner { step: 2, indents_lists: false, is_json: false };

    #[test]
    fn strings_get_quotes_where_they_need_them() {
        for (string, expected) in [
            ("HTTP", "HTTP"),
            ("/shutdown", "/shutdown"),
            ("100m", "100m"),
            ("boathook:0.1.0", "boathook:0.1.0"),
            ("status.hostIP", "status.hostIP"),
            ("a b", "a b"),
            ("", "\"\""),
            ("yes", "\"yes\""),
            ("y", "\"y\""),
            ("null", "\"null\""),
            ("8080", "\"8080\""),
            ("1:30", "\"1:30\""),
            ("a: b", "\"a: b\""),
            ("a #b", "\"a #b\""),
            ("- a", "\"- a\""),
            ("*a", "\"*a\""),
            ("a\nb", "\"a\\nb\""),
            ("a:", "\"a:\""),
            ("<token>", "\"<token>\""),
            ("é", "\"é\""),
        ] {
            assert_eq!(text(string, true, false), expected);
        }
    }

    #[test]
    fn blocks_follow_the_manner() {
        let value = json!({"a": {"b": [1, {"c": 2, "d": []}], "e": {}}});
        assert_eq!(block(&value, 0, MANNER).join("\n"), "a:\n  b:\n  - 1\n  - c: 2\n    d: []\n  e: {}");
        let wide = Manner { step: 4, indents_lists: true, ..MANNER };
        assert_eq!(
            block(&value, 2, wide).join("\n"),
            "a:\n      b:\n          - 1\n          - c: 2\n            d: []\n      e: {}"
        );
        assert_eq!(flow(&value, MANNER), "{a: {b: [1, {c: 2, d: []}], e: {}}}");
    }
}
