//! The step `save`: what is typed, and what it means. What it does is `state::save`.

use std::{
    path::{Component, Path, PathBuf},
    time::Duration,
};

use super::{Context, End, Kind, exec, http::HttpTyped};
use crate::{
    client::Request,
    duration::Span,
    keys::{Error, Node, Read, Shape, keys, list_of},
    number::Number,
    problem::Scope,
    state::{
        self, Compression,
        name::is_unusable,
        pattern::Patterns,
        place::{Place, PlaceTyped},
        save::Source,
    },
};

/// Snapshots of one state that are kept: the newest, and two to fall back on.
const KEEP: u32 = 3;

/// More often than this the saves would be the container's work.
const SHORTEST_PERIOD: Duration = Duration::from_secs(1);

keys! {
    /// `save = { from = ["/var/lib/app/sessions"], to = "/state" }`.
    #[derive(Debug)]
    pub struct Typed {
        /// A file or a folder to save; may be repeated
        from: Sources = Many("PATH", "from"),
        /// Where to: a folder, s3://bucket/prefix, or a URL that takes a PUT
        to: Option<String> = One("PLACE"),
        /// Only what matches is saved, such as *.db or sessions/**; may be repeated
        include: Vec<String> = Many("PATTERN", "include"),
        /// What matches is not saved; may be repeated
        exclude: Vec<String> = Many("PATTERN", "exclude"),
        /// How many snapshots are kept; 3 if not given
        keep: Option<Number<u32>> = One("COUNT"),
        /// lz4, zstd, gzip or none
        compression: Option<String> = One("HOW"),
        periodic: Option<Span> = Toml,
    }
    parts { Always place: PlaceTyped, ByHand named: NameTyped, ByHand stream: ByHandTyped }
    impl {
        fn expected(&self) -> &'static str {
            "a table such as { from = [\"/var/lib/app\"], to = \"/state\" }"
        }
    }
}

keys! {
    /// The name of the state, on the command line; in the TOML it is that of the step.
    #[derive(Debug)]
    pub struct NameTyped {
        /// The name of the state, to which its snapshots belong
        pub name: Option<String> = One("NAME"),
    }
}

keys! {
    /// A command as the source, on the command line.
    #[derive(Debug)]
    struct ByHandTyped {
        /// A command whose output is saved, instead of files
        command: Vec<String> = MayBeWords("COMMAND"),
        /// The name that the command's output is stored under
        file: Option<String> = One("NAME"),
    }
}

keys! {
    /// A source that is no path: `{ exec = […], file = "dump.sql" }`, `{ http = "http://…", file = "dump.rdb" }`.
    #[derive(Clone, Debug)]
    struct StreamTyped {
        path: Option<PathBuf> = Toml,
        exec: Option<exec::Typed> = Toml,
        http: Option<HttpTyped> = Toml,
        file: Option<String> = Toml,
    }
    impl {
        fn short(&mut self, value: Node<'_>) -> Result<bool, Error> {
            let Shape::Text(path) = value.shape()? else { return Ok(false) };
            self.path = Some(path.into());
            Ok(true)
        }
        fn expected(&self) -> &'static str {
            "a path, or a table such as { exec = [\"pg_dump\", \"app\"], file = \"app.sql\" }"
        }
    }
}

/// A list of sources; one alone needs no list.
#[derive(Debug, Default)]
struct Sources(Vec<StreamTyped>);

impl Read for Sources {
    fn read(value: Node<'_>) -> Result<Self, Error> {
        Ok(Self(match value.shape()? {
            Shape::List(_) => list_of(value)?,
            _ => vec![StreamTyped::read(value)?],
        }))
    }
}

/// The step as it is run.
#[derive(Debug)]
pub struct Save {
    pub job: state::save::Job,
    /// How often it is run while the main process runs, beside its place in the hook.
    pub periodic: Option<Duration>,
}

impl Kind for Save {
    type Typed = Typed;

    fn mean(mut typed: Typed, scope: &mut Scope<'_>) -> Option<Self> {
        let before = scope.problems.len();
        let name = mean_name(typed.named, scope);
        if !typed.stream.command.is_empty() {
            let exec = exec::Typed::of_command(std::mem::take(&mut typed.stream.command));
            let file = typed.stream.file.take();
            typed.from.0.push(StreamTyped { exec: Some(exec), file, ..StreamTyped::default() });
        }
        if typed.from.0.is_empty() {
            scope.problem(
                "from",
                "there is nothing to save",
                "name files or folders: from = [\"/var/lib/app\"]".to_owned(),
            );
        }
        let compression = mean_compression(typed.compression.as_deref(), scope);
        let keep = typed.keep.map_or(KEEP, |keep| keep.0);
        if keep == 0 {
            scope.problem("keep", "no snapshot at all would be kept", "keep at least 1".to_owned());
        }
        if let Some(period) = typed.periodic
            && period.0 < SHORTEST_PERIOD
        {
            scope.problem(
                "periodic",
                format!("{period} is too often"),
                "save once a minute, or more rarely".to_owned(),
            );
        }
        let patterns = match Patterns::new(&typed.include, &typed.exclude) {
            Ok(patterns) => Some(patterns),
            Err(why) => {
                scope.problem("", why, None);
                None
            }
        };
        let place = match typed.to.as_deref() {
            None | Some("") => {
                scope.problem(
                    "to",
                    "it is missing",
                    "name a mounted volume's folder, s3://bucket/prefix or a URL".to_owned(),
                );
                None
            }
            Some(to) => Place::mean("to", to, typed.place, scope),
        };
        let mut sources: Vec<Source> = Vec::new();
        for source in typed.from.0 {
            sources.extend(mean_source(source, place.as_ref(), scope));
        }
        for (index, source) in sources.iter().enumerate() {
            if let Some(other) = sources[..index].iter().find(|other| other.stored_as() == source.stored_as()) {
                let stored_as = source.stored_as().to_string_lossy().into_owned();
                let help = "save them in two steps, or one folder that holds both".to_owned();
                scope.problem(
                    "from",
                    format!("{} and {} would both be stored as `{stored_as}`", other.show(), source.show()),
                    help,
                );
            }
        }
        if scope.problems.len() > before {
            return None;
        }
        let job = state::save::Job::new(name?, sources, patterns?, place?, keep, compression?);
        Some(Self { job, periodic: typed.periodic.map(|period| period.0) })
    }

    async fn run(&self, context: &Context) -> End {
        self.job.run(context).await
    }
}

/// A snapshot belongs to the name of its step.
pub(super) fn mean_name(by_hand: NameTyped, scope: &mut Scope<'_>) -> Option<String> {
    if let Some(name) = by_hand.name {
        scope.step_name = name;
    }
    let name = scope.step_name.clone();
    let place = std::mem::take(&mut scope.place);
    // The name is the step's, not the table's.
    scope.place = place.rsplit_once(": ").map_or(String::new(), |(step, _)| step.to_owned());
    let usable = match is_unusable(&name) {
        None => Some(name),
        Some(_) if name.is_empty() => {
            let help = "give the save and the restore of one state the same: name = \"sessions\"".to_owned();
            scope.problem("name", "it is missing: a snapshot belongs to the name of its step", help);
            None
        }
        Some(why) => {
            let help = "use letters, digits and dashes: it is part of the snapshots' file names".to_owned();
            scope.problem("name", format!("`{name}` cannot name a snapshot: {why}"), help);
            None
        }
    };
    scope.place = place;
    usable
}

fn mean_compression(typed: Option<&str>, scope: &mut Scope<'_>) -> Option<Compression> {
    let Some(typed) = typed else { return Some(Compression::DEFAULT) };
    let known = Compression::ALL.into_iter().find(|compression| compression.name() == typed);
    if known.is_none() {
        scope.problem("compression", format!("`{typed}` is not known"), "use zstd, lz4, gzip or none".to_owned());
    }
    known
}

fn mean_source(typed: StreamTyped, place: Option<&Place>, scope: &mut Scope<'_>) -> Option<Source> {
    let before = scope.problems.len();
    match typed {
        StreamTyped { path: Some(path), exec: None, http: None, file: None } => {
            check_path("from", &path, scope);
            if path.file_name().is_none() && scope.problems.len() == before {
                let help = "name the folders below it that hold state".to_owned();
                scope.problem("from", format!("{} has no name of its own", path.display()), help);
            }
            if let Some(Place::Folder(store)) = place
                && path.file_name().is_some()
            {
                check_apart(&path, store, scope);
            }
            (scope.problems.len() == before).then_some(Source::Path(path))
        }
        StreamTyped { path: None, exec: Some(exec), http: None, file } => {
            let stored_as = mean_stored_as(file, scope);
            let exec = exec::Exec::mean(exec, scope)?;
            Some(Source::Exec(Box::new(exec), stored_as?))
        }
        StreamTyped { path: None, exec: None, http: Some(http), file } => {
            let stored_as = mean_stored_as(file, scope);
            let request = Request::mean("http", &http.url, http.request, scope)?;
            Some(Source::Http(Box::new(request), stored_as?))
        }
        _ => {
            let help = "from = [\"/var/lib/app\", { exec = [\"pg_dump\", \"app\"], file = \"app.sql\" }]".to_owned();
            scope.problem("from", "a source is a path, or exactly one of exec and http, with `file`", help);
            None
        }
    }
}

fn mean_stored_as(stored_as: Option<String>, scope: &mut Scope<'_>) -> Option<String> {
    let stored_as = stored_as.unwrap_or_default();
    let why = match stored_as.as_str() {
        "" => "it is missing",
        "." | ".." => "it is no file's name",
        name if name.contains(['/', '\0']) => "it has a slash",
        name if name.len() > 200 => "it is longer than 200 bytes",
        _ => return Some(stored_as),
    };
    scope.problem("file", why, "name the file in the snapshot: file = \"dump.sql\"".to_owned());
    None
}

/// A path of state must mean the same wherever the agent was started.
pub fn check_path(key: &str, path: &Path, scope: &mut Scope<'_>) {
    let shown = path.display();
    if !path.is_absolute() {
        scope.problem(key, format!("`{shown}` is not an absolute path"), "begin it with a slash".to_owned());
    } else if path.components().any(|part| part == Component::ParentDir) {
        scope.problem(key, format!("`{shown}` has `..` in it"), "write where it leads".to_owned());
    }
}

/// A store in what it saves would save itself; a source in the store would be taken for a snapshot's neighbour.
fn check_apart(source: &Path, store: &Path, scope: &mut Scope<'_>) {
    let (from, to) = (source.display(), store.display());
    let help = || "keep snapshots on a volume of their own".to_owned();
    if source == store {
        scope.problem("to", format!("{to} is what is saved"), help());
    } else if store.starts_with(source) {
        scope.problem(
            "to",
            format!("{to} lies in {from}, which is saved: every snapshot would hold the ones before it"),
            help(),
        );
    } else if source.starts_with(store) {
        scope.problem("from", format!("{from} lies in {to}, where the snapshots are put"), help());
    }
}
