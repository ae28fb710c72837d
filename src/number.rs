//! Numbers as typed: also as text, because `${PORT}` always puts in text.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, de};

/// A number that may be typed with or without quotes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Number<T>(pub T);

/// A TCP port.
pub type Port = Number<u16>;

impl<T: FromStr> FromStr for Number<T> {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.trim().parse().map(Number).map_err(|_| format!("`{text}` is not a whole number in range"))
    }
}

impl<'de, T: FromStr> Deserialize<'de> for Number<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(std::marker::PhantomData<T>);
        impl<T: FromStr> de::Visitor<'_> for Visitor<T> {
            type Value = Number<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Number<T>, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Number<T>, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor(std::marker::PhantomData))
    }
}
