//! The JSON Schema of the configuration, for editors: `config/boathook.schema.json`, as it is. Draft 7, because that is what
//! editors' tools for TOML (taplo, and Even Better TOML with it) read whole.

use boathook::{command, fatal::Fatal};

/// The schema's text.
pub const SCHEMA: &str = include_str!("../../../config/boathook.schema.json");

/// Prints it.
///
/// # Errors
/// None but a standard output that cannot be written; a reader that has gone away is none.
pub fn schema() -> Result<u8, Fatal> {
    command::print(SCHEMA.as_bytes())
}
