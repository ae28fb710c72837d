//! What was typed, turned into values: a table of the TOML, or the options of a command line. One list, [`keys!`],
//! says for each key its type, what it is for, and how it is typed as an option; both ways in read by that list.
//!
//! This is what a derived serde `Deserialize` and a derived `clap::Args` would do, in a fifth of their size: here a
//! type's own code is a jump to the place of each key, and everything else exists once.

mod line;
mod read;

pub use line::{describe, take};
pub use read::{Error, Node, Read, Shape, list_of, parse, read_table};

/// One key of a table.
#[derive(Debug)]
pub struct Key {
    /// As in the TOML, and as the long option unless its [`Form`] says otherwise.
    pub name: &'static str,
    /// What it is for, as on the help page.
    pub help: &'static str,
    pub form: Form,
}

/// How a key is typed on the command line. The first text is what the help page calls the value.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// Not at all: it is only for the TOML.
    Toml,
    /// `--key VALUE`
    One(&'static str),
    /// `--key VALUE`, and what it is without.
    OneOr(&'static str, &'static str),
    /// `--key VALUE`, where `-1` is a value and not an option.
    Signed(&'static str),
    /// `--option VALUE`, which may be repeated, and the option's name.
    Many(&'static str, &'static str),
    /// `--key VALUE`, which may be repeated, or hold several values with commas between; and another name of the
    /// option, or nothing.
    List(&'static str, &'static str),
    /// `--key`
    Switch,
    /// `--key`, `--key true` or `--key false`
    Truth,
    /// A word without an option before it; it must be there, unless this other option is.
    Word(&'static str, &'static str),
    /// All words from the first one on that is no option.
    Words(&'static str),
    /// The same, and there need not be any.
    MayBeWords(&'static str),
    /// Any number of words without an option before them; options may stand between them.
    Several(&'static str),
}

/// A table's keys, and where their values go. [`keys!`] writes the first two; the rest is for tables that have more
/// to them.
pub trait Fields {
    fn keys(&self) -> &'static [Key];

    /// Reads the value of the key with this index.
    ///
    /// # Errors
    /// The value is not what the key takes.
    fn set(&mut self, key: usize, value: Node<'_>) -> Result<(), Error>;

    /// Other tables whose keys are typed as if they were this one's own, counted from 0.
    fn part(&mut self, number: usize) -> Option<Part<'_>> {
        let _ = number;
        None
    }

    /// Keys that cannot be left out of the TOML; on the command line that is told by their form.
    fn needed(&self) -> &'static [&'static str] {
        &[]
    }

    /// Takes a value that is not a table, where there is a short form; false where there is none for this value.
    ///
    /// # Errors
    /// The value is not what the short form takes.
    fn short(&mut self, value: Node<'_>) -> Result<bool, Error> {
        let _ = value;
        Ok(false)
    }

    /// What is expected, for the message about a value of another type.
    fn expected(&self) -> &'static str {
        "a table"
    }
}

/// A table within a table.
pub enum Part<'f> {
    /// Its keys are the outer table's keys.
    Always(&'f mut dyn Fields),
    /// They are only on the command line; in the TOML it is a table of its own.
    ByHand(&'f mut dyn Fields),
}

/// Makes a struct, its [`Default`], and its [`Fields`] and [`Read`]: for each key the comment for the help page, the
/// field, its type and its [`Form`]. A key is called as its field, with `-` for `_`. Other tables whose keys are typed
/// as this one's own follow as `parts`, each with its kind of [`Part`]; what else [`Fields`] has follows in an `impl`.
///
/// ```text
/// keys! {
///     /// `file = { touch = "/tmp/x" }`, …
///     pub struct Typed {
///         /// Create the file if it is missing and set its time to now
///         touch: Option<PathBuf> = One("PATH"),
///     }
///     parts { ByHand flat: Flat }
///     impl {
///         fn expected(&self) -> &'static str { … }
///     }
/// }
/// ```
macro_rules! keys {
    (
        $(#[$meta:meta])*
        $visible:vis struct $name:ident {
            $($(#[doc = $help:literal])* $field_visible:vis $field:ident: $type:ty = $form:expr),* $(,)?
        }
        $(parts { $($kind:ident $part_visible:vis $part:ident: $part_type:ty),* $(,)? })?
        $(impl { $($more:tt)* })?
    ) => {
        $(#[$meta])*
        #[derive(Default)]
        $visible struct $name {
            $($(#[doc = $help])* $field_visible $field: $type,)*
            $($($part_visible $part: $part_type,)*)?
        }

        impl $crate::keys::Fields for $name {
            fn keys(&self) -> &'static [$crate::keys::Key] {
                #[allow(unused_imports, reason = "not every table is typed on the command line")]
                use $crate::keys::Form::*;
                const { &[$($crate::keys::Key {
                    name: {
                        const KEY: [u8; stringify!($field).len()] = $crate::keys::in_kebab_case(stringify!($field));
                        $crate::keys::as_text(&KEY)
                    },
                    help: concat!($($help),*),
                    form: $form,
                }),*] }
            }

            #[allow(unused_assignments, unused_mut, unused_variables, reason = "after the last key nobody counts")]
            fn set(&mut self, key: usize, value: $crate::keys::Node<'_>) -> Result<(), $crate::keys::Error> {
                let mut at = 0;
                $(
                    if key == at {
                        return $crate::keys::put(&mut self.$field, value);
                    }
                    at += 1;
                )*
                Ok(())
            }

            $(
                #[allow(unused_assignments, reason = "after the last part nobody counts")]
                fn part(&mut self, number: usize) -> Option<$crate::keys::Part<'_>> {
                    let mut at = 0;
                    $(
                        if number == at {
                            return Some($crate::keys::Part::$kind(&mut self.$part));
                        }
                        at += 1;
                    )*
                    None
                }
            )?

            $($($more)*)?
        }

        impl $crate::keys::Read for $name {
            fn read(value: $crate::keys::Node<'_>) -> Result<Self, $crate::keys::Error> {
                $crate::keys::read_table(value)
            }
        }
    };
}
pub(crate) use keys;

/// Reads into a field. A function of its own for each type of field: all fields of this type, in all tables, share it.
#[inline(never)]
pub fn put<T: Read>(field: &mut T, value: Node<'_>) -> Result<(), Error> {
    *field = T::read(value)?;
    Ok(())
}

/// The name of a key, from that of its field.
pub const fn in_kebab_case<const N: usize>(field: &str) -> [u8; N] {
    let (field, mut key, mut at) = (field.as_bytes(), [0; N], 0);
    while at < N {
        key[at] = if field[at] == b'_' { b'-' } else { field[at] };
        at += 1;
    }
    key
}

pub const fn as_text(key: &'static [u8]) -> &'static str {
    match std::str::from_utf8(key) {
        Ok(key) => key,
        Err(_) => panic!("a field's name is text"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    keys! {
        #[derive(Debug, PartialEq)]
        struct Sample {
            /// How many.
            how_many: Option<crate::number::Port> = One("N"),
            names: Vec<String> = List("NAME", "name"),
            on: bool = Switch,
            text: String = Toml,
            inner: Inner = Toml,
        }
        parts { ByHand flat: Inner }
    }

    keys! {
        #[derive(Debug, PartialEq)]
        struct Inner {
            /// Deep inside
            deep: Option<String> = OneOr("TEXT", "deep"),
        }
        impl {
            fn needed(&self) -> &'static [&'static str] {
                &["deep"]
            }
            fn short(&mut self, value: Node<'_>) -> Result<bool, Error> {
                let Shape::Text(text) = value.shape()? else { return Ok(false) };
                self.deep = Some(text.into());
                Ok(true)
            }
            fn expected(&self) -> &'static str {
                "a text or a table"
            }
        }
    }

    fn sample() -> Sample {
        Sample {
            how_many: Some(crate::number::Number(3)),
            names: vec!["a".into(), "b".into()],
            on: true,
            text: String::new(),
            inner: Inner::default(),
            flat: Inner::default(),
        }
    }

    #[test]
    fn the_toml_and_the_command_line_say_the_same() {
        for text in [
            "how-many = 3\nnames = ['a', 'b']\non = true\ninner = 'x'",
            "how-many = '3'\nnames = ['a', 'b']\non = true\n[inner]\ndeep = 'x'",
        ] {
            assert_eq!(parse(text), Ok(Sample { inner: Inner { deep: Some("x".into()) }, ..sample() }), "{text}");
        }
        for line in ["--how-many 3 --names a,b --on --deep x", "--how-many=3 --name a --names b --on --deep=x"] {
            let flat = Inner { deep: Some("x".into()) };
            assert_eq!(by_hand(line).map_err(|error| error.to_string()), Ok(Sample { flat, ..sample() }), "{line}");
        }
        assert_eq!(by_hand::<Sample>("").expect("nothing").flat.deep.as_deref(), Some("deep"));
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, message) in [
            ("how_many = 3", "unknown field `how_many`, expected one of `how-many`, `names`, `on`, `text`, `inner`"),
            ("deep = 'x'", "unknown field `deep`, expected one of `how-many`, `names`, `on`, `text`, `inner`"),
            ("how-many = 70000", "`70000` is not a whole number from 0 to 65535"),
            ("how-many = 1.0", "invalid type: floating point `1.0`, expected a whole number"),
            ("how-many = 99999999999999999999", "the number is out of range"),
            ("names = 'a'", "invalid type: string \"a\", expected a sequence"),
            ("on = 1", "invalid type: integer `1`, expected a boolean"),
            ("text = []", "invalid type: sequence, expected a string"),
            ("inner = 1", "invalid type: integer `1`, expected a text or a table"),
            ("inner = {}", "missing field `deep`"),
        ] {
            assert_eq!(parse::<Sample>(text), Err(message.into()), "{text}");
        }
        for (line, message) in [
            (
                "--how-many x",
                "error: invalid value 'x' for '--how-many <N>': `x` is not a whole number from 0 to 65535",
            ),
            ("--text x", "error: unexpected argument '--text' found"),
        ] {
            let error = by_hand::<Sample>(line).expect_err(line).to_string();
            assert_eq!(error.lines().next(), Some(message), "{line}");
        }
    }

    fn by_hand<T: Fields + Default + 'static>(line: &str) -> Result<T, clap::Error> {
        let command = describe(clap::Command::new("x").no_binary_name(true), || Box::new(T::default()));
        let mut typed = T::default();
        take(&mut typed, &command.try_get_matches_from(line.split_whitespace())?)?;
        Ok(typed)
    }
}
