//! Where snapshots are: a folder, a bucket of an S3-compatible store, or one URL. What is typed, and what it means; what
//! is done there is for `folder` and `remote`.

use std::path::{Path, PathBuf};

use super::remote::{
    Remote,
    put::PutUrl,
    s3::{S3, S3Options, World},
};
use crate::{
    client::options::{Flag, Options},
    keys::keys,
    problem::Scope,
    step::save::check_path,
};

keys! {
    /// What a place may need beside its name.
    #[derive(Debug)]
    pub struct PlaceTyped {
        /// The S3-compatible store's own URL; AWS's if not given
        pub endpoint: Option<String> = One("URL"),
        /// The store's region
        pub region: Option<String> = One("REGION"),
        /// Whether the bucket stands in the URL's path instead of its host
        pub path_style: Option<Flag> = Truth,
        /// A folder for what must be held until it is sent
        pub spool: Option<PathBuf> = One("FOLDER"),
    }
    parts { Always pub request: Options }
}

/// Where snapshots are.
#[derive(Clone, Debug)]
pub enum Place {
    Folder(PathBuf),
    Remote(Box<Remote>),
}

impl Place {
    /// Gives meaning to a place; `None` when at least one problem was noted.
    pub fn mean(key: &str, text: &str, typed: PlaceTyped, scope: &mut Scope<'_>) -> Option<Self> {
        let PlaceTyped { endpoint, region, path_style, spool, request } = typed;
        let before = scope.problems.len();
        if let Some(spool) = &spool {
            check_path("spool", spool, scope);
        }
        let is_s3 = text.starts_with("s3://");
        if !is_s3 {
            for (name, is_given) in
                [("endpoint", endpoint.is_some()), ("region", region.is_some()), ("path-style", path_style.is_some())]
            {
                if is_given {
                    let what = format!("only s3://bucket/prefix has one, and `{key}` is another place");
                    scope.problem(name, what, "take it out".to_owned());
                }
            }
        }
        let place = if is_s3 {
            let path_style = path_style.map(|flag| flag.0);
            let options = S3Options { endpoint, region, path_style, request };
            let s3 = S3::mean(text, options, World::default(), scope);
            s3.map(|mut s3| {
                s3.spool = spool;
                Self::Remote(Box::new(Remote::S3(s3)))
            })
        } else if text.contains("://") {
            PutUrl::mean(key, text, request, spool, scope).map(|url| Self::Remote(Box::new(Remote::Url(url))))
        } else {
            check_path(key, Path::new(text), scope);
            if request != Options::default() {
                scope.problem(key, "a folder takes no keys of a request", "take them out".to_owned());
            }
            Some(Self::Folder(Path::new(text).components().collect()))
        };
        place.filter(|_| scope.problems.len() == before)
    }

    /// What it is called in messages, without secrets.
    pub fn show(&self) -> String {
        match self {
            Self::Folder(path) => path.display().to_string(),
            Self::Remote(remote) => remote.show(),
        }
    }
}
