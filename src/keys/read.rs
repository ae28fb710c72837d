//! From the tree that the `toml` crate parses to values, each error with its place. The words are serde's, which
//! `config/document.rs` turns into ours.

use std::{borrow::Cow, fmt, ops::Range, path::PathBuf, str::FromStr};

use serde::de::Unexpected;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Fields, Part};

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(Box<Wrong>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Wrong {
    message: String,
    /// Bytes of the text; `None` until the innermost value that knows its place has been left.
    span: Option<Range<usize>>,
}

impl Error {
    pub fn new(message: impl Into<String>) -> Self {
        Self(Box::new(Wrong { message: message.into(), span: None }))
    }

    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Bytes of the text.
    pub fn span(&self) -> Range<usize> {
        self.0.span.clone().unwrap_or_default()
    }

    #[inline(never)]
    fn at(mut self, span: Range<usize>) -> Self {
        self.0.span.get_or_insert(span);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

/// One value, as typed.
#[derive(Clone, Copy)]
pub struct Node<'t> {
    value: &'t Spanned<DeValue<'t>>,
    /// It comes from a command line, where everything is text: `NAME=VALUE` instead of a table.
    pub by_hand: bool,
}

/// What a value is, with its number read.
pub enum Shape<'t> {
    Text(&'t str),
    Integer(i64),
    Float(f64),
    Truth(bool),
    List(&'t [Spanned<DeValue<'t>>]),
    Table(&'t DeTable<'t>),
}

impl<'t> Node<'t> {
    pub fn of_file(value: &'t Spanned<DeValue<'t>>) -> Self {
        Self { value, by_hand: false }
    }

    pub fn of_line(value: &'t Spanned<DeValue<'t>>) -> Self {
        Self { value, by_hand: true }
    }

    /// Bytes of the text.
    pub fn span(self) -> Range<usize> {
        self.value.span()
    }

    /// # Errors
    /// It is a number that is out of range.
    #[inline(never)]
    pub fn shape(self) -> Result<Shape<'t>, Error> {
        Ok(match self.value.get_ref() {
            DeValue::String(text) => Shape::Text(text),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Shape::Integer(number),
                Err(_) => return Err(self.wrong("the number is out of range")),
            },
            DeValue::Float(number) => match number.as_str().parse() {
                Ok(number) => Shape::Float(number),
                Err(_) => return Err(self.wrong("the number is out of range")),
            },
            DeValue::Boolean(truth) => Shape::Truth(*truth),
            // The document has made texts of all dates; no key takes one.
            DeValue::Datetime(_) => return Err(self.wrong("a date is written in quotes")),
            DeValue::Array(list) => Shape::List(list),
            DeValue::Table(table) => Shape::Table(table),
        })
    }

    /// The items of a list.
    pub fn items(self, list: &'t [Spanned<DeValue<'t>>]) -> impl Iterator<Item = Node<'t>> {
        list.iter().map(move |value| Node { value, ..self })
    }

    /// An error at this value.
    #[inline(never)]
    pub fn wrong(self, message: &str) -> Error {
        Error::new(message).at(self.span())
    }

    /// The error that this is not what was expected.
    #[inline(never)]
    pub fn wrong_type(self, expected: &str) -> Error {
        let found = match self.shape() {
            Err(error) => return error,
            Ok(Shape::Text(text)) => Unexpected::Str(text),
            Ok(Shape::Integer(number)) => Unexpected::Signed(number),
            Ok(Shape::Float(number)) => Unexpected::Float(number),
            Ok(Shape::Truth(truth)) => Unexpected::Bool(truth),
            Ok(Shape::List(_)) => Unexpected::Seq,
            Ok(Shape::Table(_)) => Unexpected::Map,
        };
        self.wrong(&format!("invalid type: {found}, expected {expected}"))
    }

    /// # Errors
    /// It is not a text; the error says what was expected.
    #[inline(never)]
    pub fn text(self, expected: &str) -> Result<&'t str, Error> {
        match self.shape()? {
            Shape::Text(text) => Ok(text),
            _ => Err(self.wrong_type(expected)),
        }
    }

    /// A text, or a whole number as text.
    ///
    /// # Errors
    /// It is neither; the error says what was expected.
    #[inline(never)]
    pub fn text_or_number(self, expected: &str) -> Result<Cow<'t, str>, Error> {
        match self.shape()? {
            Shape::Text(text) => Ok(text.into()),
            Shape::Integer(number) => Ok(number.to_string().into()),
            _ => Err(self.wrong_type(expected)),
        }
    }

    /// Parses a text.
    ///
    /// # Errors
    /// Why it cannot be parsed.
    pub fn parse<T: FromStr<Err = String>>(self, text: &str) -> Result<T, Error> {
        text.parse().map_err(|why: String| self.wrong(&why))
    }
}

/// A type that a key may have.
pub trait Read: Sized {
    /// # Errors
    /// The value is not one of this type: why.
    fn read(value: Node<'_>) -> Result<Self, Error>;

    /// Reads several of them.
    ///
    /// # Errors
    /// One is not of this type, or it is not a list.
    fn read_list(value: Node<'_>) -> Result<Vec<Self>, Error> {
        list_of(value)
    }
}

/// Reads a list; on the command line also a single value.
///
/// # Errors
/// One is not of this type, or it is not a list.
pub fn list_of<T: Read>(value: Node<'_>) -> Result<Vec<T>, Error> {
    match value.shape()? {
        Shape::List(list) => value.items(list).map(T::read).collect(),
        _ if value.by_hand => T::read(value).map(|item| vec![item]),
        _ => Err(value.wrong_type("a sequence")),
    }
}

impl Read for String {
    fn read(value: Node<'_>) -> Result<Self, Error> {
        value.text("a string").map(Into::into)
    }
}

impl Read for PathBuf {
    fn read(value: Node<'_>) -> Result<Self, Error> {
        match value.text("path string")? {
            // Nobody means the path that is nothing; in a file the key's own meaning says more about it.
            "" if value.by_hand => Err(value.wrong("a path is not empty")),
            path => Ok(path.into()),
        }
    }
}

impl Read for bool {
    fn read(value: Node<'_>) -> Result<Self, Error> {
        match value.shape()? {
            Shape::Truth(truth) => Ok(truth),
            _ => Err(value.wrong_type("a boolean")),
        }
    }
}

impl<T: Read> Read for Option<T> {
    fn read(value: Node<'_>) -> Result<Self, Error> {
        T::read(value).map(Some)
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(value: Node<'_>) -> Result<Self, Error> {
        T::read_list(value)
    }
}

impl<T: Read> Read for Spanned<T> {
    fn read(value: Node<'_>) -> Result<Self, Error> {
        Ok(Spanned::new(value.span(), T::read(value)?))
    }
}

/// A table with keys that are the user's own; they come in order.
impl<T: Read> Read for (String, T) {
    fn read(value: Node<'_>) -> Result<Self, Error> {
        Err(value.wrong_type("a map"))
    }

    fn read_list(value: Node<'_>) -> Result<Vec<Self>, Error> {
        let Shape::Table(table) = value.shape()? else { return Err(value.wrong_type("a map")) };
        let mut entries = Vec::with_capacity(table.len());
        for (key, item) in table {
            entries.push((key.get_ref().to_string(), T::read(Node { value: item, ..value })?));
        }
        Ok(entries)
    }
}

/// Reads a table, or its short form.
///
/// # Errors
/// The first thing that is wrong in it.
pub fn read_table<T: Fields + Default>(value: Node<'_>) -> Result<T, Error> {
    let mut typed = T::default();
    fill(&mut typed, value)?;
    Ok(typed)
}

#[inline(never)]
fn fill(fields: &mut dyn Fields, value: Node<'_>) -> Result<(), Error> {
    let Shape::Table(table) = value.shape()? else {
        return if fields.short(value)? { Ok(()) } else { Err(value.wrong_type(fields.expected())) };
    };
    for (key, item) in table {
        if !set(fields, key.get_ref(), Node { value: item, ..value })? {
            let mut known = Vec::new();
            list_keys(fields, &mut known);
            let known = known.join("`, `");
            let error = Error::new(format!("unknown field `{}`, expected one of `{known}`", key.get_ref()));
            return Err(error.at(key.span()));
        }
    }
    match fields.needed().iter().find(|key| !table.contains_key(**key)) {
        Some(missing) => Err(value.wrong(&format!("missing field `{missing}`"))),
        None => Ok(()),
    }
}

/// Reads the value of a key; false when there is no such key.
pub(super) fn set(fields: &mut dyn Fields, key: &str, value: Node<'_>) -> Result<bool, Error> {
    if let Some(index) = fields.keys().iter().position(|known| known.name == key) {
        fields.set(index, value).map_err(|error| error.at(value.span()))?;
        return Ok(true);
    }
    let mut number = 0;
    while let Some(part) = fields.part(number) {
        let found = match part {
            Part::Always(part) => set(part, key, value)?,
            Part::ByHand(part) => value.by_hand && set(part, key, value)?,
        };
        if found {
            return Ok(true);
        }
        number += 1;
    }
    Ok(false)
}

/// All keys that may be in the TOML's table.
fn list_keys(fields: &mut dyn Fields, known: &mut Vec<&'static str>) {
    known.extend(fields.keys().iter().map(|key| key.name));
    let mut number = 0;
    while let Some(part) = fields.part(number) {
        if let Part::Always(part) = part {
            list_keys(part, known);
        }
        number += 1;
    }
}

/// Reads a whole TOML text, for tests of single types; `config` reads whole configurations.
///
/// # Errors
/// The first thing that is wrong in it.
pub fn parse<T: Read>(text: &str) -> Result<T, String> {
    let root = DeTable::parse(text).map_err(|error| error.message().to_owned())?;
    let root = Spanned::new(root.span(), DeValue::Table(root.into_inner()));
    T::read(Node::of_file(&root)).map_err(|error| error.message().to_owned())
}
