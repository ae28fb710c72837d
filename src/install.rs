//! `boathook install DIR`: the binary copies itself, for an init container that brings it into an emptyDir. Written aside
//! and renamed, so that a container that already runs the old one is not disturbed and nobody starts half a binary.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Copies the running binary to `DIR/boathook`, executable for everybody; gives the path.
///
/// # Errors
/// Where, what and why.
pub fn install(dir: &Path) -> Result<PathBuf, String> {
    let target = dir.join("boathook");
    let aside = dir.join(format!(".boathook-{}", std::process::id()));
    let copied = copy(&aside).and_then(|()| fs::rename(&aside, &target));
    if let Err(error) = copied {
        let _ = fs::remove_file(&aside);
        let help = match error.kind() {
            io::ErrorKind::NotFound => "mount an emptyDir there",
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                "mount a volume there that the container's user may write (securityContext.fsGroup)"
            }
            _ => "see that the volume is writable and has room for 3 MB",
        };
        return Err(format!("{}: cannot be written: {error}\n  help: {help}", target.display()));
    }
    Ok(target)
}

fn copy(aside: &Path) -> io::Result<()> {
    let mut from = fs::File::open("/proc/self/exe").or_else(|_| fs::File::open(std::env::current_exe()?))?;
    let mut to = fs::File::create(aside)?;
    io::copy(&mut from, &mut to)?;
    // The application's container may run as another user.
    to.set_permissions(fs::Permissions::from_mode(0o755))?;
    to.sync_all()
}
