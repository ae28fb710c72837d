//! Keys as options of a command line, for clap.

use clap::{Arg, ArgAction, ArgMatches, Command, Error, ValueHint, error::ErrorKind};
use toml::{
    Spanned,
    de::{DeArray, DeValue},
};

use super::{Fields, Form, Key, Node, Part, read};

/// Makes a table to try a value on.
type Make = fn() -> Box<dyn Fields>;

/// Adds the options of a table to a command.
pub fn describe(command: Command, make: Make) -> Command {
    add(command, &mut *make(), make)
}

fn add(mut command: Command, fields: &mut dyn Fields, make: Make) -> Command {
    for key in fields.keys() {
        if let Some(arg) = arg(key, make) {
            command = command.arg(arg);
        }
    }
    let mut number = 0;
    while let Some(Part::Always(part) | Part::ByHand(part)) = fields.part(number) {
        command = add(command, part, make);
        number += 1;
    }
    command
}

fn arg(key: &'static Key, make: Make) -> Option<Arg> {
    let help = key.help.trim();
    let arg = Arg::new(key.name).help(help.strip_suffix('.').unwrap_or(help));
    let (value, arg) = match key.form {
        Form::Toml => return None,
        Form::Switch => return Some(arg.long(key.name).action(ArgAction::SetTrue)),
        Form::One(value) => (value, arg.long(key.name)),
        Form::OneOr(value, default) => (value, arg.long(key.name).default_value(default)),
        Form::Signed(value) => (value, arg.long(key.name).allow_negative_numbers(true)),
        Form::Many(value, name) => (value, arg.long(name).action(ArgAction::Append)),
        Form::List(value, "") => (value, arg.long(key.name).action(ArgAction::Append).value_delimiter(',')),
        Form::List(value, alias) => {
            (value, arg.long(key.name).alias(alias).action(ArgAction::Append).value_delimiter(','))
        }
        Form::Truth => ("BOOL", arg.long(key.name).num_args(0..=1).default_missing_value("true")),
        Form::Word(value, "") => (value, arg.required(true)),
        Form::Word(value, unless) => (value, arg.required_unless_present(unless).conflicts_with(unless)),
        Form::Words(value) => (value, arg.required(true).num_args(1..).trailing_var_arg(true)),
        Form::MayBeWords(value) => (value, arg.num_args(1..).trailing_var_arg(true)),
        Form::Several(value) => (value, arg.num_args(1..)),
    };
    // Completions offer files for these.
    let hint = if matches!(value, "FILE" | "FOLDER" | "PATH") { ValueHint::AnyPath } else { ValueHint::Unknown };
    Some(arg.value_name(value).value_hint(hint).value_parser(move |text: &str| check(make, key.name, text)))
}

/// Tries a value, so that clap can say which option is wrong.
fn check(make: Make, key: &str, text: &str) -> Result<String, String> {
    let value = nowhere(DeValue::String(text.into()));
    match read::set(&mut *make(), key, Node::of_line(&value)) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.message().to_owned()),
    }
}

/// A value that stands in no file.
fn nowhere(value: DeValue<'_>) -> Spanned<DeValue<'_>> {
    Spanned::new(0..0, value)
}

/// Reads the options of a table that were given.
///
/// # Errors
/// None that clap has not told before.
pub fn take(fields: &mut dyn Fields, matches: &ArgMatches) -> Result<(), Error> {
    for (index, key) in fields.keys().iter().enumerate() {
        let text = |text: &String| nowhere(DeValue::String(text.clone().into()));
        let value = match key.form {
            Form::Toml => None,
            Form::Switch => Some(nowhere(DeValue::Boolean(matches.get_flag(key.name)))),
            Form::Many(..) | Form::List(..) | Form::Words(_) | Form::MayBeWords(_) | Form::Several(_) => {
                matches.get_many::<String>(key.name).map(|texts| {
                    let mut list = DeArray::new();
                    texts.map(text).for_each(|item| list.push(item));
                    nowhere(DeValue::Array(list))
                })
            }
            _ => matches.get_one::<String>(key.name).map(text),
        };
        if let Some(value) = value {
            let read = fields.set(index, Node::of_line(&value));
            read.map_err(|error| Error::raw(ErrorKind::ValueValidation, error.message()))?;
        }
    }
    let mut number = 0;
    while let Some(Part::Always(part) | Part::ByHand(part)) = fields.part(number) {
        take(part, matches)?;
        number += 1;
    }
    Ok(())
}
