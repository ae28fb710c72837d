//! Rules for HTTP statuses: `200`, `"404"`, `"2xx"`, `"500-599"`, one or a list of them. Pure.

use std::str::FromStr;

use crate::keys::{Error, Node, Read, Shape};

/// Statuses from the first to the second, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u16, pub u16);

/// A set of statuses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statuses(pub Vec<Status>);

impl Statuses {
    pub fn contain(&self, status: u16) -> bool {
        self.0.iter().any(|Status(first, last)| (*first..=*last).contains(&status))
    }
}

impl FromStr for Status {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a status; write 404, \"2xx\" or \"500-599\"");
        let number = |text: &str| match text.trim().parse::<u16>() {
            Ok(number @ 100..=999) => Ok(number),
            _ => Err(wrong()),
        };
        if let Some(class) = text.trim().to_ascii_lowercase().strip_suffix("xx") {
            return match class.parse::<u16>() {
                Ok(class @ 1..=9) => Ok(Status(class * 100, class * 100 + 99)),
                _ => Err(wrong()),
            };
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (number(first)?, number(last)?) {
            (first, last) if first <= last => Ok(Status(first, last)),
            _ => Err(wrong()),
        }
    }
}

impl Read for Status {
    fn read(value: Node<'_>) -> Result<Self, Error> {
        value.parse(&value.text_or_number(EXPECTED)?)
    }

    /// Also one alone, several in a text with commas between, and lists of those.
    fn read_list(value: Node<'_>) -> Result<Vec<Self>, Error> {
        let mut statuses = Vec::new();
        if let Shape::List(list) = value.shape()? {
            for item in value.items(list) {
                statuses.extend(Self::read_list(item)?);
            }
            return Ok(statuses);
        }
        for part in value.text_or_number(EXPECTED)?.split(',') {
            statuses.push(value.parse(part)?);
        }
        Ok(statuses)
    }
}

const EXPECTED: &str = "a status such as 404, \"2xx\" or \"500-599\", or a list of them";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::parse;

    #[test]
    fn reads_statuses() {
        for (text, first, last) in [("404", 404, 404), ("2xx", 200, 299), ("5XX", 500, 599), ("200-204", 200, 204)] {
            assert_eq!(text.parse(), Ok(Status(first, last)), "{text}");
        }
        for text in ["", "99", "1000", "xx", "0xx", "22xx", "300-200", "ok", "200-", "-200"] {
            let error = text.parse::<Status>().expect_err(text);
            assert_eq!(error, format!("`{text}` is not a status; write 404, \"2xx\" or \"500-599\""));
        }
    }

    #[test]
    fn reads_lists() {
        let read = |text: &str| {
            let tables = parse::<Vec<(String, Vec<Status>)>>(text);
            tables.map(|mut table| Statuses(table.remove(0).1))
        };
        for (text, inside, outside) in [
            ("s = 404", 404, 405),
            ("s = \"2xx\"", 204, 300),
            ("s = [\"2xx\", 404]", 404, 403),
            ("s = \"2xx,404\"", 404, 403),
            ("s = []", 0, 200),
        ] {
            let s = read(text).expect(text);
            assert!((inside == 0 || s.contain(inside)) && !s.contain(outside), "{text}");
        }
        assert_eq!(
            read("s = true"),
            Err("invalid type: boolean `true`, expected a status such as 404, \"2xx\" or \"500-599\", or a list of them".into())
        );
    }
}
