//! Rules for HTTP statuses: `200`, `"404"`, `"2xx"`, `"500-599"`, one or a list of them. Pure.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, de};

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

struct Visitor;

impl<'de> de::Visitor<'de> for Visitor {
    type Value = Vec<Status>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a status such as 404, \"2xx\" or \"500-599\", or a list of them")
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        text.split(',').map(|part| part.parse().map_err(E::custom)).collect()
    }
    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        self.visit_str(&number.to_string())
    }
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        self.visit_str(&number.to_string())
    }
    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut statuses = Vec::new();
        while let Some(Statuses(more)) = list.next_element()? {
            statuses.extend(more);
        }
        Ok(statuses)
    }
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Visitor).map(Statuses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        #[derive(Deserialize)]
        struct Table {
            s: Statuses,
        }
        for (text, inside, outside) in [
            ("s = 404", 404, 405),
            ("s = \"2xx\"", 204, 300),
            ("s = [\"2xx\", 404]", 404, 403),
            ("s = \"2xx,404\"", 404, 403),
            ("s = []", 0, 200),
        ] {
            let Table { s } = toml::from_str(text).expect(text);
            assert!((inside == 0 || s.contain(inside)) && !s.contain(outside), "{text}");
        }
        assert!(toml::from_str::<Table>("s = true").is_err_and(|error| error.to_string().contains("a status such as")));
    }
}
