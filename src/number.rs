//! Numbers as typed: also as text, because `${PORT}` always puts in text.

use std::str::FromStr;

use crate::keys::{Error, Node, Read};

/// A number that may be typed with or without quotes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Number<T>(pub T);

/// A TCP port.
pub type Port = Number<u16>;

impl<T: FromStr> FromStr for Number<T> {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.trim().parse().map(Number).map_err(|_| {
            // Only unsigned numbers are typed anywhere: as many ones as it has bits.
            let most = u128::MAX >> (128 - 8 * size_of::<T>().clamp(1, 16));
            format!("`{text}` is not a whole number from 0 to {most}")
        })
    }
}

impl<T: FromStr> Read for Number<T> {
    fn read(value: Node<'_>) -> Result<Self, Error> {
        let text = value.text_or_number("a whole number")?;
        value.parse(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_numbers_and_names_the_range() {
        for (text, want) in [
            ("8080", Ok(8080)),
            (" 80 ", Ok(80)),
            ("-1", Err("`-1` is not a whole number from 0 to 65535")),
            ("65536", Err("`65536` is not a whole number from 0 to 65535")),
            ("http", Err("`http` is not a whole number from 0 to 65535")),
        ] {
            let got: Result<Port, String> = text.parse();
            assert_eq!(got.map(|port| port.0), want.map_err(String::from), "{text}");
        }
        let got: Result<Number<u32>, String> = "4294967296".parse();
        assert_eq!(got, Err("`4294967296` is not a whole number from 0 to 4294967295".into()));
    }
}
