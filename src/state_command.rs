//! `boathook state`: lists, verifies and unpacks snapshots by hand, wherever they are.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{
    command::print,
    config::{self, Config, Listener},
    exit,
    fatal::Fatal,
    hook::Hook,
    keys,
    problem::{Problem, Scope},
    process::Processes,
    size::show_bytes,
    state::{
        Trouble,
        compress::body::LONGEST_TAIL,
        flow::Flow,
        folder::Folder,
        manifest::{Broken, Manifest, read_manifest, read_trailer},
        name::SnapshotName,
        place::{Place, PlaceTyped},
        remote::{Io, Remote, RemoteListed},
        restore::{self, Target, Tried},
        seal::verify as verify_whole,
        swap::IfPresent,
        unpack::Limits,
    },
    step::{Action, Progress, Step},
    sys::file::open_regular,
};

/// Look at snapshots
#[derive(Debug, clap::Subcommand)]
pub enum StateCommand {
    /// List snapshots, newest first
    #[command(after_help = "Example:\n  kubectl exec my-pod -- /boathook state list")]
    List {
        #[command(flatten)]
        which: Which,
        /// As JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Read snapshots whole and compare their checksums; exit code 1 when one is damaged
    #[command(after_help = "Example:\n  boathook state verify /state")]
    Verify {
        #[command(flatten)]
        which: Which,
    },
    /// Unpack the newest snapshot, or a given one, into a folder: all or nothing
    #[command(after_help = "Example:\n  boathook state extract /state --name sessions --into /tmp/look")]
    Extract {
        #[command(flatten)]
        which: Which,
        /// The folder that gets the content; what it holds under the same names is replaced
        #[arg(long, value_name = "FOLDER")]
        into: PathBuf,
    },
}

/// Which snapshots are meant.
#[derive(Debug, clap::Args)]
pub struct Which {
    /// A snapshot's file, a folder, s3://bucket/prefix or a URL; without it the places in the configuration
    #[arg(value_name = "PLACE")]
    place: Option<String>,
    /// Only snapshots of this state
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    options: PlaceTyped,
}

/// The keys of a place are one list for the TOML and for this command line.
impl clap::Args for PlaceTyped {
    fn augment_args(command: clap::Command) -> clap::Command {
        keys::describe(command, || Box::<Self>::default())
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for PlaceTyped {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        let mut typed = Self::default();
        keys::take(&mut typed, matches).map(|()| typed)
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        keys::take(self, matches)
    }
}

/// Where to look, and for which state.
struct Search {
    place: Place,
    name: Option<String>,
}

/// Does what was asked.
///
/// # Errors
/// What was typed makes no sense (64), a place cannot be read or a snapshot is damaged (1), no place is known (78).
pub async fn run(command: StateCommand, config: Option<&Path>) -> Result<u8, Fatal> {
    match command {
        StateCommand::List { which, json } => list(which, json, config).await,
        StateCommand::Verify { which } => verify(which, config).await,
        StateCommand::Extract { which, into } => extract(which, into, config).await,
    }
}

impl Which {
    fn searches(self, config: Option<&Path>) -> Result<Vec<Search>, Fatal> {
        let Some(text) = self.place else {
            let config = config::load(config, Listener::None).map_err(|problems| Fatal::config(&problems))?;
            let mut searches: Vec<Search> = Vec::new();
            for hook in Hook::ALL {
                collect(&config.hook(hook).steps, self.name.as_deref(), &mut searches);
            }
            if searches.is_empty() {
                let help = "name a place: boathook state list /state";
                return Err(Fatal::new(exit::CONFIG, format!("the configuration saves no such state\n  help: {help}")));
            }
            return Ok(searches);
        };
        let (mut problems, mut secrets) = (Vec::new(), Vec::new());
        let mut scope = Scope::of_command_line(&mut secrets, &mut problems);
        let place = Place::mean("PLACE", &text, self.options, &mut scope);
        match place {
            Some(place) => Ok(vec![Search { place, name: self.name }]),
            None => Err(Fatal { code: exit::USAGE, lines: problems.iter().map(ToString::to_string).collect() }),
        }
    }
}

/// The places where steps save or restore, each with the name of its state.
fn collect(steps: &[Step], name: Option<&str>, searches: &mut Vec<Search>) {
    for step in steps {
        let (state, place) = match &step.action {
            Action::Group(inner) => {
                collect(inner, name, searches);
                continue;
            }
            Action::Save(save) => (&save.job.name, &save.job.place),
            Action::Restore(restore) => (&restore.0.name, &restore.0.place),
            _ => continue,
        };
        let is_known = |search: &Search| search.name.as_ref() == Some(state) && search.place.show() == place.show();
        if name.is_none_or(|name| name == state) && !searches.iter().any(is_known) {
            searches.push(Search { place: place.clone(), name: Some(state.clone()) });
        }
    }
}

/// One snapshot that was found.
enum Found {
    /// With its shown name and its size as stored.
    File(PathBuf, String, u64),
    Remote(Box<Remote>, RemoteListed),
}

impl Found {
    /// Whose snapshot it is, as far as its name tells.
    fn state(&self) -> Option<String> {
        match self {
            Self::File(_, name, _) => SnapshotName::parse(name).map(|name| name.state),
            Self::Remote(_, listed) => listed.name.as_ref().map(|name| name.state.clone()),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::File(_, name, _) => name.clone(),
            Self::Remote(remote, listed) => remote.show_listed(listed),
        }
    }

    /// In bytes, as stored; a URL is not asked for it.
    fn size(&self) -> Option<u64> {
        match self {
            Self::File(.., size) => Some(*size),
            Self::Remote(_, listed) => listed.size,
        }
    }

    /// What its trailer says, without reading all of it.
    async fn manifest(&self, io: &Io) -> Result<Manifest, String> {
        match self {
            Self::File(path, ..) => {
                let file = open_regular(path).map_err(|error| error.to_string())?;
                read_manifest(&file).map_err(|broken| broken.to_string())
            }
            Self::Remote(remote, listed) => {
                let tail = remote.tail(listed, LONGEST_TAIL, io).await.map_err(|trouble| trouble.reason)?;
                read_trailer(&tail).map(|(manifest, _)| manifest).map_err(|broken| broken.to_string())
            }
        }
    }

    /// Reads all of it with `work`, on a thread.
    async fn read<T: Send + 'static>(
        &self,
        io: &Io,
        work: impl FnOnce(Box<dyn Read + Send>) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, Trouble> {
        match self {
            Self::File(path, ..) => {
                let at = |error: std::io::Error| Trouble::may_pass(format!("{}: {error}", path.display()));
                work(Box::new(open_regular(path).map_err(at)?))
            }
            Self::Remote(remote, listed) => {
                let (sent, done) = restore::read_remote(remote, listed, io, work).await;
                sent.and(done)
            }
        }
    }
}

/// Everything that the searches find, newest first in each place.
async fn find(searches: Vec<Search>, io: &Io) -> Result<Vec<Found>, Fatal> {
    let mut found = Vec::new();
    for Search { place, name } in searches {
        let failed = |why: String| Fatal::new(exit::FAILED, why);
        match place {
            Place::Folder(path) if path.is_file() => {
                let size = path.metadata().map_or(0, |meta| meta.len());
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                found.push(Found::File(path, name, size));
            }
            Place::Folder(path) => {
                let listed = Folder::new(path).list(name.as_deref()).map_err(|error| failed(error.to_string()))?;
                found.extend(listed.into_iter().map(|each| Found::File(each.path, each.name.to_string(), each.size)));
            }
            Place::Remote(remote) => {
                let listed = remote.list(name.as_deref(), io).await.map_err(|trouble| failed(trouble.reason))?;
                found.extend(listed.into_iter().map(|each| Found::Remote(remote.clone(), each)));
            }
        }
    }
    Ok(found)
}

fn start() -> Result<Io, Fatal> {
    let processes = Processes::start(false).map_err(|error| Fatal::new(exit::INTERNAL, format!("reaper: {error}")))?;
    Ok(Io { processes, progress: Progress::default() })
}

async fn list(which: Which, json: bool, config: Option<&Path>) -> Result<u8, Fatal> {
    let (searches, io) = (which.searches(config)?, start()?);
    let (mut text, mut all) = (String::new(), Vec::new());
    for found in find(searches, &io).await? {
        let manifest = found.manifest(&io).await;
        let (snapshot, stored) = (found.show(), found.size());
        if json {
            all.push(match &manifest {
                Ok(manifest) => json!({ "snapshot": snapshot, "stored": stored, "manifest": manifest.to_json() }),
                Err(why) => json!({ "snapshot": snapshot, "stored": stored, "broken": why }),
            });
            continue;
        }
        let told = match &manifest {
            Ok(Manifest { created, files, bytes, pod, trigger, .. }) => {
                format!("{created}  {files} files, {}, by {pod} ({trigger})", show_bytes(*bytes))
            }
            Err(why) => format!("cannot be used: {why}"),
        };
        let stored = stored.map(show_bytes).unwrap_or_default();
        text.push_str(&format!("{snapshot}  {stored:>7}  {told}\n"));
    }
    if json {
        text = format!("{}\n", Value::from(all));
    } else if text.is_empty() {
        text.push_str("no snapshots\n");
    }
    print(text.as_bytes())
}

async fn verify(which: Which, config: Option<&Path>) -> Result<u8, Fatal> {
    let (searches, io) = (which.searches(config)?, start()?);
    let (mut all_good, mut count) = (true, 0);
    for found in find(searches, &io).await? {
        let checked = found.read(&io, |source| {
            verify_whole(source, &Flow::default()).map_err(|broken| Trouble::for_good(broken.to_string()))
        });
        let line = match checked.await {
            Ok(manifest) => {
                format!("good     {}  {} files, {}", found.show(), manifest.files, show_bytes(manifest.bytes))
            }
            Err(trouble) => {
                all_good = false;
                format!("damaged  {}  {}", found.show(), trouble.reason)
            }
        };
        count += 1;
        print(format!("{line}\n").as_bytes())?;
    }
    if count == 0 {
        return Err(Fatal::new(exit::FAILED, "no snapshots"));
    }
    Ok(if all_good { exit::OK } else { exit::FAILED })
}

async fn extract(which: Which, into: PathBuf, config: Option<&Path>) -> Result<u8, Fatal> {
    let (searches, io) = (which.searches(config)?, start()?);
    let found = find(searches, &io).await?;
    let mut states: Vec<Option<String>> = found.iter().map(Found::state).collect();
    states.dedup();
    let Some(newest) = found.first() else { return Err(Fatal::new(exit::FAILED, "no snapshots")) };
    if states.len() > 1 {
        let names: Vec<String> = states.into_iter().flatten().collect();
        let help = "say which with --name";
        return Err(Fatal::new(exit::USAGE, format!("there are snapshots of {}\n  help: {help}", names.join(", "))));
    }
    let flow = Flow::default();
    // By hand there are no limits but the disk: whoever types this knows what the snapshot is.
    let limits = Limits { bytes: u64::MAX, files: u64::MAX };
    let into = std::path::absolute(&into).map_err(|error| Fatal::new(exit::USAGE, format!("--into: {error}")))?;
    let target = Target { to: into.clone(), if_present: IfPresent::Replace, limits };
    let own_flow = flow.clone();
    match newest.read(&io, move |source| target.take(source, None, &own_flow)).await {
        Ok(Tried::Restored(manifest)) => {
            let (name, files, bytes) = (newest.show(), manifest.files, show_bytes(manifest.bytes));
            print(format!("{name}: {files} files, {bytes} into {}\n", into.display()).as_bytes())
        }
        Ok(Tried::Unusable(why)) => Err(Fatal::new(exit::FAILED, format!("{}: {why}", newest.show()))),
        Ok(Tried::Kept) => Ok(exit::OK),
        Err(trouble) => Err(Fatal::new(exit::FAILED, format!("{}: {}", newest.show(), trouble.reason))),
    }
}

/// What `boathook check` finds in the folders that steps restore from: a newest snapshot that this boathook cannot read.
/// A folder that is not there (on a laptop) is no problem.
pub fn check(config: &Config) -> Vec<Problem> {
    let mut searches = Vec::new();
    for hook in Hook::ALL {
        collect(&config.hook(hook).steps, None, &mut searches);
    }
    let mut problems = Vec::new();
    for Search { place, name } in searches {
        let Place::Folder(path) = place else { continue };
        let newest = Folder::new(path).list(name.as_deref()).ok().and_then(|listed| listed.into_iter().next());
        let Some(newest) = newest else { continue };
        let Ok(file) = open_regular(&newest.path) else { continue };
        if let Err(Broken::Newer(why)) = read_manifest(&file) {
            problems.push(Problem {
                file: config.file.clone().unwrap_or_default(),
                line: None,
                place: newest.path.display().to_string(),
                what: why,
                help: Some("use that boathook, or move the snapshot away to go back to an older state".into()),
            });
        }
    }
    problems
}
