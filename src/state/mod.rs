//! State: what would be gone with the container, saved as snapshots and brought back from them.
//!
//! `sources → pack → seal → store` is a save; `store → open → unpack → swap` is a restore. A snapshot is one file: a tar
//! archive that any tar reads, compressed with what any zstd, lz4 or gzip reads, and a small manifest behind it.
//!
//! | room | what it is for |
//! |---|---|
//! | [`save`], [`restore`] | the order of the work |
//! | [`place`] | where snapshots are: a folder, a bucket, a URL |
//! | [`pack`], [`pattern`] | sources become a tar archive, as far as they are wanted |
//! | [`seal`] | writes a snapshot around an archive, and opens it again |
//! | [`compress`], [`manifest`] | its two parts: compressed frames, and what it says of itself |
//! | [`folder`], [`remote`] | snapshots on a mounted volume, and on other machines |
//! | [`unpack`] | an archive, which may be hostile, becomes files in a staging place |
//! | [`swap`] | the staging place becomes the target's state, all or nothing |
//! | [`name`] | names of snapshots, and which of them is the newest |
//! | [`flow`] | what a job shares with who started it: progress, notes, and the wish to stop |
//! | [`watch`], [`pace`] | tells of a job while it runs: how fast it goes, and whether it will be done in time |

pub mod compress;
pub mod flow;
pub mod folder;
pub mod manifest;
pub mod name;
pub mod pace;
pub mod pack;
pub mod pattern;
pub mod place;
pub mod remote;
pub mod restore;
pub mod save;
pub mod seal;
pub mod swap;
pub mod unpack;
pub mod watch;

/// Why state was not saved or restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Where, what and why, lowercase, without secrets.
    pub reason: String,
    /// Whether another attempt may do better.
    pub may_pass: bool,
    /// There is nothing at the place where a snapshot was looked for.
    pub is_missing: bool,
}

impl Trouble {
    pub fn may_pass(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), may_pass: true, is_missing: false }
    }

    pub fn for_good(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), may_pass: false, is_missing: false }
    }
}

/// How a snapshot is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    Zstd,
    Lz4,
    Gzip,
    None,
}

impl Compression {
    pub const ALL: [Self; 4] = [Self::Zstd, Self::Lz4, Self::Gzip, Self::None];

    /// Time is what a grace period is short of, and this takes the least of it (`benches/state.rs`).
    pub const DEFAULT: Self = Self::Lz4;

    /// As typed in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::Gzip => "gzip",
            Self::None => "none",
        }
    }

    /// What the file's name ends with.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Zstd => "tar.zst",
            Self::Lz4 => "tar.lz4",
            Self::Gzip => "tar.gz",
            Self::None => "tar",
        }
    }
}
