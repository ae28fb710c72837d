//! Sizes as people write them in a pod: `512Mi`, `10GB`, `4096`. Pure; the only place that knows the units.

use std::str::FromStr;

use crate::keys::{Error, Node, Read};

/// A number of bytes as typed in the configuration or on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Kubernetes' own suffixes (`Ki`, `Mi`, `Gi`, `Ti`; `k`, `M`, `G`, `T`), with or without a `B`.
const UNITS: [(&str, u64); 9] = [
    ("", 1),
    ("k", 1000),
    ("m", 1_000_000),
    ("g", 1_000_000_000),
    ("t", 1_000_000_000_000),
    ("ki", 1 << 10),
    ("mi", 1 << 20),
    ("gi", 1 << 30),
    ("ti", 1 << 40),
];

impl FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is not a size: write bytes with or without a unit, such as \"512Mi\" or \"10GB\"");
        let trimmed = text.trim();
        let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let unit = unit.trim_start().to_ascii_lowercase();
        let unit = unit.strip_suffix('b').unwrap_or(&unit);
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        number.checked_mul(*factor).map(Size).ok_or_else(wrong)
    }
}

impl Read for Size {
    fn read(value: Node<'_>) -> Result<Self, Error> {
        value.parse(&value.text_or_number("a size, such as \"512Mi\"")?)
    }
}

/// Writes a number of bytes as `df --si` would, with as many digits as a reader needs: `812 B`, `1.2 MB`, `64 GB`.
pub fn show_bytes(bytes: u64) -> String {
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut unit = 1000_u64;
    for name in ["kB", "MB", "GB", "TB", "PB"] {
        // In tenths of the unit, rounded.
        let tenths = (bytes / (unit / 10) + u64::from(bytes % (unit / 10) >= unit / 20)).max(10);
        if tenths < 100 {
            return format!("{}.{} {name}", tenths / 10, tenths % 10);
        }
        if tenths < 9995 || name == "PB" {
            return format!("{} {name}", (tenths + 5) / 10);
        }
        unit *= 1000;
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, want) in [
            ("0", 0),
            ("4096", 4096),
            ("512Mi", 512 << 20),
            ("512MiB", 512 << 20),
            ("10 GB", 10_000_000_000),
            ("10g", 10_000_000_000),
            ("1k", 1000),
            ("1Ti", 1 << 40),
            ("17B", 17),
        ] {
            assert_eq!(text.parse(), Ok(Size(want)), "{text}");
        }
        for text in ["", "Mi", "-1", "1.5G", "1 x", "99999999999T", "1Mi b", "٣"] {
            let error = text.parse::<Size>().expect_err(text);
            assert!(error.starts_with(&format!("`{text}` is not a size: ")), "{error}");
        }
    }

    #[test]
    fn shows_what_a_reader_needs() {
        for (bytes, want) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (1249, "1.2 kB"),
            (9949, "9.9 kB"),
            (9950, "10 kB"),
            (999_400, "999 kB"),
            (999_500, "1.0 MB"),
            (64_400_000_000, "64 GB"),
            (u64::MAX, "18447 PB"),
        ] {
            assert_eq!(show_bytes(bytes), want, "{bytes}");
        }
    }
}
