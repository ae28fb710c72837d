//! From the TOML tree to typed values, for serde. The `toml` crate brings a deserializer of its own; this one does the
//! same for what a configuration needs, keeps the place of every error, and is a fifth of its size in the binary,
//! because nothing in it is repeated for each type that is not different for each type.

use std::{fmt, ops::Range};

use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};
use toml::{
    Spanned,
    de::{DeArray, DeString, DeTable, DeValue},
};

/// What serde found wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub message: String,
    /// Bytes of the text; `None` until the innermost value that knows its place has been left.
    pub span: Option<Range<usize>>,
}

impl Error {
    fn at(mut self, span: Range<usize>) -> Self {
        self.span.get_or_insert(span);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    #[inline(never)]
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { message: message.to_string(), span: None }
    }
}

/// One value of the tree.
pub struct Tree<'t>(Spanned<DeValue<'t>>);

impl<'t> Tree<'t> {
    /// The whole document.
    pub fn of(root: Spanned<DeTable<'t>>) -> Self {
        let span = root.span();
        Self(Spanned::new(span, DeValue::Table(root.into_inner())))
    }
}

/// What a scalar is, with its number read.
enum Scalar<'t> {
    Text(DeString<'t>),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Array(DeArray<'t>),
    Table(DeTable<'t>),
}

/// Reads the number out of a value; one place for all types.
#[inline(never)]
fn scalar(value: DeValue<'_>) -> Result<Scalar<'_>, Error> {
    Ok(match value {
        DeValue::String(text) => Scalar::Text(text),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Scalar::Integer(number),
            Err(_) => return Err(de::Error::custom("the number is out of range")),
        },
        DeValue::Float(number) => match number.as_str().parse() {
            Ok(number) => Scalar::Float(number),
            Err(_) => return Err(de::Error::custom("the number is out of range")),
        },
        DeValue::Boolean(flag) => Scalar::Boolean(flag),
        // No key takes a date; as text the type's own message says what it wants instead.
        DeValue::Datetime(date) => Scalar::Text(date.to_string().into()),
        DeValue::Array(array) => Scalar::Array(array),
        DeValue::Table(table) => Scalar::Table(table),
    })
}

impl<'de> de::Deserializer<'de> for Tree<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let span = self.0.span();
        let read = match scalar(self.0.into_inner()) {
            Ok(Scalar::Text(text)) => visitor.visit_str(&text),
            Ok(Scalar::Integer(number)) => visitor.visit_i64(number),
            Ok(Scalar::Float(number)) => visitor.visit_f64(number),
            Ok(Scalar::Boolean(flag)) => visitor.visit_bool(flag),
            Ok(Scalar::Array(array)) => visitor.visit_seq(Items(array.into_iter())),
            Ok(Scalar::Table(table)) => visitor.visit_map(Entries { entries: table.into_iter(), value: None }),
            Err(error) => Err(error),
        };
        read.map_err(|error| error.at(span))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if serde_spanned::de::is_spanned(name) {
            let span = self.0.span();
            return visitor.visit_map(serde_spanned::de::SpannedDeserializer::new(self, span));
        }
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct
        map enum identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Error> for Tree<'de> {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

/// The rest of an array.
struct Items<'t>(<DeArray<'t> as IntoIterator>::IntoIter);

impl<'de> de::SeqAccess<'de> for Items<'de> {
    type Error = Error;
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.0.next().map(|item| seed.deserialize(Tree(item))).transpose()
    }
}

/// The rest of a table.
struct Entries<'t> {
    entries: <DeTable<'t> as IntoIterator>::IntoIter,
    value: Option<Spanned<DeValue<'t>>>,
}

impl<'de> de::MapAccess<'de> for Entries<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        self.value = Some(value);
        let span = key.span();
        let name: de::value::StrDeserializer<'_, Error> = key.get_ref().as_ref().into_deserializer();
        seed.deserialize(name).map(Some).map_err(|error| error.at(span))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        match self.value.take() {
            Some(value) => seed.deserialize(Tree(value)),
            None => Err(de::Error::custom("a value was asked for before its key")),
        }
    }
}
