//! The JSON Schema of the configuration, for editors.

use boathook::{exit, fatal::Fatal};

/// Prints it.
///
/// # Errors
/// None but a reader that has gone away.
pub fn schema() -> Result<u8, Fatal> {
    Err(Fatal::new(exit::INTERNAL, "not there yet"))
}
