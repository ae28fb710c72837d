//! Values out of answers: a JSON value by pointer or path, a sum of Prometheus samples, and what is wanted of
//! them. Pure; the requests are `client`.

use std::str::FromStr;

use serde_json::Value;

use crate::keys::{Error, Node, Read, Shape};

/// A text, number or truth value as typed, kept as text: `equals = 3`, `equals = "ok"`, `equals = true`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scalar(pub String);

impl Read for Scalar {
    fn read(value: Node<'_>) -> Result<Self, Error> {
        Ok(Scalar(match value.shape()? {
            Shape::Text(text) => text.into(),
            Shape::Truth(truth) => truth.to_string(),
            Shape::Integer(number) => number.to_string(),
            Shape::Float(number) => number.to_string(),
            Shape::List(_) | Shape::Table(_) => return Err(value.wrong_type("a text, a number, true or false")),
        }))
    }
}

/// A number as typed, also in quotes, since `${NAME}` makes text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number(pub f64);

impl FromStr for Number {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim().parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Number(number)),
            _ => Err(format!("`{text}` is not a number")),
        }
    }
}

impl Read for Number {
    fn read(value: Node<'_>) -> Result<Self, Error> {
        value.parse(&Scalar::read(value)?.0)
    }
}

/// What is wanted of a value. Every part that is given must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Want {
    pub equals: Option<String>,
    pub not_equals: Option<String>,
    pub at_least: Option<f64>,
    pub at_most: Option<f64>,
}

impl Want {
    pub fn is_empty(&self) -> bool {
        self == &Want::default()
    }

    /// Whether a JSON value is as wanted.
    ///
    /// # Errors
    /// Says what it is and what was wanted.
    pub fn check_json(&self, value: &Value) -> Result<(), String> {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Array(_) | Value::Object(_) if self.is_empty() => return Ok(()),
            Value::Array(_) => return Err("is a list, not a single value".into()),
            Value::Object(_) => return Err("is an object, not a single value".into()),
            value => value.to_string(),
        };
        self.check_text(&text)
    }

    /// Whether a number is as wanted. NaN is never.
    ///
    /// # Errors
    /// Says what it is and what was wanted.
    pub fn check_number(&self, number: f64) -> Result<(), String> {
        self.check_text(&number.to_string())
    }

    fn check_text(&self, text: &str) -> Result<(), String> {
        let number = text.trim().parse::<f64>().ok();
        let same = |wanted: &str| match (number, wanted.trim().parse::<f64>().ok()) {
            #[expect(clippy::float_cmp, reason = "the user asks for exactly this number")]
            (Some(number), Some(wanted)) => number == wanted,
            _ => text == wanted,
        };
        let is = |what: String| Err(format!("is {}, wanted {what}", shorten(text)));
        if let Some(wanted) = &self.equals
            && !same(wanted)
        {
            return is(shorten(wanted));
        }
        if let Some(unwanted) = &self.not_equals
            && same(unwanted)
        {
            return is("another".into());
        }
        if let Some(least) = self.at_least
            && !number.is_some_and(|number| number >= least)
        {
            return is(format!("at least {least}"));
        }
        if let Some(most) = self.at_most
            && !number.is_some_and(|number| number <= most)
        {
            return is(format!("at most {most}"));
        }
        Ok(())
    }
}

/// The printable beginning of a text, at most 60 characters: enough to recognise a value in a log line.
fn shorten(text: &str) -> String {
    printable(text, 60)
}

/// The printable beginning of a text.
pub fn printable(text: &str, characters: usize) -> String {
    let mut shown: String = text.chars().filter(|c| !c.is_control()).take(characters + 1).collect();
    if shown.chars().count() > characters {
        shown.pop();
        shown.push('…');
    }
    shown
}

/// Finds a value by JSON pointer (RFC 6901, `/status/db`) or by path (`status.db`, `pods.0.name`).
pub fn find_json<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    if path.is_empty() || path.starts_with('/') {
        return value.pointer(path);
    }
    path.split('.').try_fold(value, |value, part| match value {
        Value::Object(map) => map.get(part),
        Value::Array(list) => list.get(part.parse::<usize>().ok()?),
        _ => None,
    })
}

/// A line longer than this is no sample but an attempt on our memory; it is passed over.
const LONGEST_LINE: usize = 64 << 10;

/// Adds up the samples of one metric with the given labels in a Prometheus text answer, fed piece by piece, so that
/// the answer need not be held. Samples whose other labels differ are added, as `sum()` does.
#[derive(Debug)]
pub struct Samples<'a> {
    name: &'a str,
    labels: &'a [(String, String)],
    line: Vec<u8>,
    too_long: bool,
    sum: f64,
    count: usize,
}

impl<'a> Samples<'a> {
    pub fn new(name: &'a str, labels: &'a [(String, String)]) -> Self {
        Samples { name, labels, line: Vec::new(), too_long: false, sum: 0.0, count: 0 }
    }

    pub fn feed(&mut self, bytes: &[u8]) {
        for (index, part) in bytes.split(|byte| *byte == b'\n').enumerate() {
            if index > 0 {
                self.end_line();
            }
            if self.line.len() + part.len() > LONGEST_LINE {
                self.too_long = true;
            } else if !self.too_long {
                self.line.extend_from_slice(part);
            }
        }
    }

    /// The sum and the number of samples in it; `None` where there was no such sample.
    pub fn finish(mut self) -> Option<(f64, usize)> {
        self.end_line();
        (self.count > 0).then_some((self.sum, self.count))
    }

    fn end_line(&mut self) {
        if !self.too_long
            && self.line.trim_ascii_start().starts_with(self.name.as_bytes())
            && let Ok(line) = std::str::from_utf8(&self.line)
            && let Some(value) = read_sample(line, self.name, self.labels)
        {
            self.sum += value;
            self.count += 1;
        }
        self.too_long = false;
        self.line.clear();
    }
}

/// The value of a sample line, if it is one of this metric and carries these labels. What follows the value
/// (a timestamp, an exemplar) is left alone.
fn read_sample(line: &str, name: &str, wanted: &[(String, String)]) -> Option<f64> {
    let rest = line.trim().strip_prefix(name)?;
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => read_labels(rest)?,
        None if rest.starts_with([' ', '\t']) => {
            let rest = rest.trim_start();
            match rest.strip_prefix('{') {
                Some(rest) => read_labels(rest)?,
                None => (Vec::new(), rest),
            }
        }
        None => return None,
    };
    if !wanted.iter().all(|(key, value)| match labels.iter().find(|(name, _)| name == key) {
        Some((_, actual)) => actual == value,
        // Prometheus itself takes a missing label and an empty one for the same.
        None => value.is_empty(),
    }) {
        return None;
    }
    // Rust reads NaN, inf, +Inf, -Inf and exponents as Prometheus writes them.
    rest.split_ascii_whitespace().next()?.parse().ok()
}

/// Labels up to the closing brace, and what follows it.
fn read_labels(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (key, after) = rest.split_once('=')?;
        let mut characters = after.trim_start().strip_prefix('"')?.chars();
        let mut value = String::new();
        loop {
            match characters.next()? {
                '"' => break,
                '\\' => match characters.next()? {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                other => value.push(other),
            }
        }
        labels.push((key.trim().into(), value));
        rest = characters.as_str().trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r##"# HELP http_active Requests in flight
# TYPE http_active gauge
http_active 3
http_active_total 99
jobs{queue="a",host="x"} 2 1700000000000
jobs{queue="a",host="y"} 4.5e0 # {trace_id="1"} 0.5
jobs{queue="b"} 7
	tabbed	8
odd{text="a\"b\\c\nd,e}f=g"} +Inf
nan NaN
broken{a="b 1
broken2 x
empty{} 5
spaced {a = "b" , } 6"##;

    #[test]
    fn adds_up_samples() {
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], Option<(f64, usize)>);
        let cases: &[Case<'_>] = &[
            ("http_active", &[], Some((3.0, 1))),
            ("jobs", &[], Some((13.5, 3))),
            ("jobs", &[("queue", "a")], Some((6.5, 2))),
            ("jobs", &[("queue", "a"), ("host", "y")], Some((4.5, 1))),
            ("jobs", &[("queue", "b"), ("host", "")], Some((7.0, 1))),
            ("jobs", &[("queue", "c")], None),
            ("tabbed", &[], Some((8.0, 1))),
            ("odd", &[("text", "a\"b\\c\nd,e}f=g")], Some((f64::INFINITY, 1))),
            ("broken", &[], None),
            ("broken2", &[], None),
            ("empty", &[], Some((5.0, 1))),
            ("spaced", &[("a", "b")], Some((6.0, 1))),
            ("http", &[], None),
            ("absent", &[], None),
        ];
        for (name, labels, expected) in cases {
            let labels: Vec<_> = labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
            for size in [1, 7, PAGE.len()] {
                let mut samples = Samples::new(name, &labels);
                PAGE.as_bytes().chunks(size).for_each(|chunk| samples.feed(chunk));
                assert_eq!(samples.finish(), *expected, "{name} {labels:?} in pieces of {size}");
            }
        }
        let mut samples = Samples::new("nan", &[]);
        samples.feed(PAGE.as_bytes());
        let (sum, _) = samples.finish().expect("a sample");
        assert!(sum.is_nan());
        let most = Want { at_most: Some(5.0), ..Want::default() };
        assert_eq!(most.check_number(sum), Err("is NaN, wanted at most 5".into()));
    }

    #[test]
    fn holds_no_endless_line() {
        let mut samples = Samples::new("a", &[]);
        for _ in 0..100 {
            samples.feed(&[b'a'; 10_000]);
            assert!(samples.line.len() <= LONGEST_LINE);
        }
        samples.feed(b" 1\na 2\n");
        assert_eq!(samples.finish(), Some((2.0, 1)));
    }

    #[test]
    fn survives_noise() {
        // A linear congruential generator, so that a failure can be repeated.
        let mut state = 1u64;
        let alphabet: Vec<char> = "ab{}=\",\\ \n\t1.eE+-#NaNüf".chars().collect();
        for _ in 0..20_000 {
            let mut text = String::from("a");
            for _ in 0..24 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                text.push(alphabet[(state >> 33) as usize % alphabet.len()]);
            }
            let mut samples = Samples::new("a", &[]);
            samples.feed(text.as_bytes());
            let _ = samples.finish();
            if let Ok(value) = serde_json::from_str::<Value>(&text) {
                let _ = find_json(&value, &text);
            }
        }
    }

    #[test]
    fn finds_json() {
        let value: Value =
            serde_json::from_str(r#"{"status":{"db":"up","a/b":1},"pods":[{"name":"x"}],"n":null}"#).expect("JSON");
        for (path, found) in [
            ("/status/db", Some("\"up\"")),
            ("status.db", Some("\"up\"")),
            ("/status/a~1b", Some("1")),
            ("pods.0.name", Some("\"x\"")),
            ("/pods/0/name", Some("\"x\"")),
            ("n", Some("null")),
            ("pods.1", None),
            ("pods.x", None),
            ("status.db.x", None),
            ("/nothing", None),
        ] {
            assert_eq!(find_json(&value, path).map(Value::to_string).as_deref(), found, "{path}");
        }
        assert_eq!(find_json(&value, ""), Some(&value));
    }

    #[test]
    fn compares() {
        let equals = |text: &str| Want { equals: Some(text.into()), ..Want::default() };
        let least = Want { at_least: Some(2.0), ..Want::default() };
        let most = Want { at_most: Some(2.0), ..Want::default() };
        let not = Want { not_equals: Some("down".into()), ..Want::default() };
        for (want, value, outcome) in [
            (&equals("up"), r#""up""#, Ok(())),
            (&equals("up"), r#""down""#, Err("is down, wanted up")),
            (&equals("3"), "3", Ok(())),
            (&equals("3"), "3.0", Ok(())),
            (&equals("3"), r#""3""#, Ok(())),
            (&equals("true"), "true", Ok(())),
            (&equals("true"), "false", Err("is false, wanted true")),
            (&equals("x"), "[1]", Err("is a list, not a single value")),
            (&Want::default(), "[1]", Ok(())),
            (&Want::default(), "null", Ok(())),
            (&least, "2", Ok(())),
            (&least, "1", Err("is 1, wanted at least 2")),
            (&least, r#""many""#, Err("is many, wanted at least 2")),
            (&most, "2.5", Err("is 2.5, wanted at most 2")),
            (&not, r#""up""#, Ok(())),
            (&not, r#""down""#, Err("is down, wanted another")),
        ] {
            let value: Value = serde_json::from_str(value).expect("JSON");
            assert_eq!(want.check_json(&value), outcome.map_err(String::from), "{value}");
        }
    }
}
