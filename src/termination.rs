//! The termination message: the one line that `kubectl describe pod` shows of why a container ended. The kubelet mounts a
//! file at `terminationMessagePath` and reads at most 4096 bytes of it; where there is none, nothing is written.

use std::{fs::OpenOptions, io::Write, os::unix::fs::OpenOptionsExt, path::Path};

use rustix::fs::OFlags;

use crate::report::cut;

/// The kubelet cuts the message at 4096 bytes (MaxContainerTerminationMessageLength); one line needs far less.
const LONGEST: usize = 1000;

/// Writes one line, replacing what is there. A file that cannot be written is not worth more than a debug line: the
/// same text is in the log.
pub fn write(path: &Path, line: &str) {
    // Never created: outside of Kubernetes there is no such file, and nobody would read it.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let file = OpenOptions::new().write(true).truncate(true).custom_flags(flags.cast_signed()).open(path);
    let written = file.and_then(|mut file| file.write_all(format!("boathook: {}\n", cut(line, LONGEST)).as_bytes()));
    if let Err(error) = written {
        tracing::debug!(path = %path.display(), %error, "no termination message written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_only_where_the_platform_reads() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("termination-log");
        write(&path, "pre-stop failed");
        assert!(!path.exists(), "created a file that nobody reads");
        std::fs::write(&path, "an older and much longer line of text").expect("written");
        write(&path, "pre-stop failed");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "boathook: pre-stop failed\n");
    }
}
