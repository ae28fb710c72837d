//! The step `restore`: what is typed, and what it means. What it does is `state::restore`.

use std::{path::PathBuf, sync::Arc};

use super::{
    Context, End, Kind,
    save::{NameTyped, check_path, mean_name},
};
use crate::{
    keys::keys,
    number::Number,
    problem::Scope,
    size::Size,
    state::{
        place::{Place, PlaceTyped},
        restore::{IfMissing, Job, Target},
        swap::IfPresent,
        unpack::Limits,
    },
};

/// What a snapshot may hold at most, unless more is asked for: a damaged or planted one must not fill the node's disk.
const MAX_BYTES: u64 = 64 << 30;
const MAX_FILES: u64 = 5_000_000;

keys! {
    /// `restore = { from = "/state", to = "/var/lib/app" }`.
    #[derive(Debug)]
    pub struct Typed {
        /// Where the snapshots are: a folder, s3://bucket/prefix, or a URL
        from: Option<String> = One("PLACE"),
        /// The folder that gets what the snapshot holds
        to: Option<PathBuf> = One("FOLDER"),
        /// What happens to what is there already: replace, keep or merge
        if_present: Option<String> = One("HOW"),
        /// What it means that there is no snapshot: succeed or fail
        if_missing: Option<String> = One("HOW"),
        /// The most bytes that a snapshot may hold; 64Gi if not given
        max_bytes: Option<Size> = One("SIZE"),
        /// The most files and folders that a snapshot may hold; 5000000 if not given
        max_files: Option<Number<u64>> = One("COUNT"),
    }
    parts { Always place: PlaceTyped, ByHand named: NameTyped }
    impl {
        fn expected(&self) -> &'static str {
            "a table such as { from = \"/state\", to = \"/var/lib/app\" }"
        }
    }
}

/// The step as it is run.
#[derive(Debug)]
pub struct Restore(pub Job);

impl Kind for Restore {
    type Typed = Typed;

    fn mean(typed: Typed, scope: &mut Scope<'_>) -> Option<Self> {
        let before = scope.problems.len();
        let name = mean_name(typed.named, scope);
        let if_present = mean_choice(
            "if-present",
            typed.if_present.as_deref(),
            &[("replace", IfPresent::Replace), ("keep", IfPresent::Keep), ("merge", IfPresent::Merge)],
            scope,
        );
        let if_missing = mean_choice(
            "if-missing",
            typed.if_missing.as_deref(),
            &[("succeed", IfMissing::Succeed), ("fail", IfMissing::Fail)],
            scope,
        );
        let place = match typed.from.as_deref() {
            None | Some("") => {
                let help =
                    "name the folder, the s3://bucket/prefix or the URL that `save` puts its snapshots to".to_owned();
                scope.problem("from", "it is missing", help);
                None
            }
            Some(from) => Place::mean("from", from, typed.place, scope),
        };
        let to = typed.to.unwrap_or_default();
        if to.as_os_str().is_empty() {
            scope.problem(
                "to",
                "it is missing",
                "name the folder that holds the state: to = \"/var/lib/app\"".to_owned(),
            );
        } else {
            check_path("to", &to, scope);
        }
        if let Some(Place::Folder(store)) = &place
            && to.starts_with(store)
        {
            let what = format!("{} lies in {}, where the snapshots are", to.display(), store.display());
            scope.problem("to", what, "keep snapshots on a volume of their own".to_owned());
        }
        if scope.problems.len() > before {
            return None;
        }
        let limits = Limits {
            bytes: typed.max_bytes.map_or(MAX_BYTES, |size| size.0),
            files: typed.max_files.map_or(MAX_FILES, |count| count.0),
        };
        let target = Arc::new(Target { to, if_present: if_present?, limits });
        Some(Self(Job { name: name?, place: place?, if_missing: if_missing?, target }))
    }

    async fn run(&self, context: &Context) -> End {
        self.0.run(context).await
    }
}

/// One of a few words; the first is the default.
fn mean_choice<T: Copy>(key: &str, typed: Option<&str>, choices: &[(&str, T)], scope: &mut Scope<'_>) -> Option<T> {
    let Some(typed) = typed else { return choices.first().map(|(_, choice)| *choice) };
    let choice = choices.iter().find(|(word, _)| *word == typed).map(|(_, choice)| *choice);
    if choice.is_none() {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        scope.problem(key, format!("`{typed}` is not known"), format!("use one of: {}", words.join(", ")));
    }
    choice
}
