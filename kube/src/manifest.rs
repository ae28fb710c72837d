//! The YAML that fits a configuration.

use std::path::Path;

use boathook::{cli::Manifest, exit, fatal::Fatal};

/// Prints it.
///
/// # Errors
/// The configuration is not good, or the options do not fit each other.
pub fn manifest(config: Option<&Path>, options: &Manifest) -> Result<u8, Fatal> {
    let _ = (config, options);
    Err(Fatal::new(exit::INTERNAL, "not there yet"))
}
