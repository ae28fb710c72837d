//! Durations as people write them in a pod: `250ms`, `30s`, `5m`, `1h`, `1m30s`. Pure; the only place that
//! knows the units. A bare number is refused, because nobody can tell seconds from milliseconds.

use std::{fmt, str::FromStr, time::Duration};

use crate::keys::{Error, Node, Read};

/// Longer than any grace period that a platform grants (a week); a larger number is a slip of the keyboard.
pub const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// A duration as typed in the configuration or on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// Reads `1m30s`, `250ms`, `0s`; units are `ms`, `s`, `m` and `h`.
///
/// # Errors
/// Says what is wrong with the text and how to write it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = |why: &str| format!("`{text}` is not a duration: {why}");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong("it is empty; write a number with a unit, such as \"30s\""));
    }
    if rest.starts_with('-') {
        return Err(wrong("it is negative; write \"0s\" for none"));
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let number: f64 = number.parse().map_err(|_| wrong("write a number with a unit, such as \"30s\""))?;
        let seconds = match unit {
            "ms" => number / 1000.0,
            "s" => number,
            "m" => number * 60.0,
            "h" => number * 3600.0,
            "" => return Err(wrong(&format!("it has no unit; write \"{number}s\" for seconds or \"{number}ms\""))),
            _ => return Err(wrong(&format!("`{unit}` is not a unit; use ms, s, m or h"))),
        };
        let part = Duration::try_from_secs_f64(seconds).map_err(|_| wrong("it is out of range"))?;
        total = total.checked_add(part).ok_or_else(|| wrong("it is out of range"))?;
        rest = tail.trim_start();
    }
    if total > LONGEST {
        return Err(wrong("it is longer than a week"));
    }
    Ok(total)
}

/// Writes a duration the way it would be typed, rounded to what a reader needs: `0s`, `250ms`, `2.1s`, `1m30s`.
pub fn show(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis == 0 {
        return "0s".into();
    }
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let tenths = (millis + 50) / 100;
    if tenths < 600 {
        return if tenths.is_multiple_of(10) {
            format!("{}s", tenths / 10)
        } else {
            format!("{}.{}s", tenths / 10, tenths % 10)
        };
    }
    let seconds = (millis + 500) / 1000;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut text = String::new();
    for (amount, unit) in [(hours, "h"), (minutes, "m"), (seconds, "s")] {
        if amount > 0 {
            text.push_str(&format!("{amount}{unit}"));
        }
    }
    text
}

impl FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        parse_duration(text).map(Span)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&show(self.0))
    }
}

impl Read for Span {
    fn read(value: Node<'_>) -> Result<Self, Error> {
        let text = value.text("a duration in quotes, such as \"30s\"")?;
        value.parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, millis) in [
            ("0s", 0),
            ("250ms", 250),
            ("30s", 30_000),
            ("1.5s", 1500),
            ("1m30s", 90_000),
            ("1h", 3_600_000),
            (" 5s ", 5000),
            ("1m 5s", 65_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn refuses_what_nobody_means() {
        for text in ["", "30", "-1s", "s", "5 days", "1e400s", "99999999h", "1..5s", "٣s", "169h"] {
            let error = parse_duration(text).expect_err(text);
            assert!(error.starts_with(&format!("`{text}` is not a duration: ")), "{error}");
        }
    }

    #[test]
    fn shows_what_it_reads() {
        for text in ["0s", "250ms", "30s", "1.5s", "1m30s", "1h", "2h5s"] {
            assert_eq!(show(parse_duration(text).expect("a good duration")), text);
        }
    }
}
