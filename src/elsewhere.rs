//! Commands that need Kubernetes' types and YAML: those live in a second binary, `boathook-kube`, for laptops and
//! pipelines, because they would double the one in every container. Whoever types them here is handed over.

use std::{
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{exit, fatal::Fatal};

const NAME: &str = "boathook-kube";

/// Becomes `boathook-kube` with the same arguments: the one beside this binary, else the one in `PATH`.
///
/// # Errors
/// It is in neither place, or cannot be executed.
pub fn hand_over(what: &str) -> Result<u8, Fatal> {
    let own = std::env::current_exe().unwrap_or_default();
    let beside = own.parent().unwrap_or(Path::new("/")).join(NAME);
    let program = if beside.is_file() { beside } else { PathBuf::from(NAME) };
    let error = Command::new(program).args(std::env::args_os().skip(1)).exec();
    Err(Fatal::new(
        exit::USAGE,
        format!(
            "`{what}` is done by {NAME}, which cannot be started from beside {} or PATH: {error}\n  \
             help: it is for laptops and pipelines; `make dist` and `cargo build --release` build both",
            own.display()
        ),
    ))
}
