//! Saves: sources become a snapshot in a place. The order of the work is here; each part of it is a room of its own.

use std::{
    ffi::OsStr,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    Compression, Trouble,
    compress::count_workers,
    flow::{At, Flow, StopOnDrop},
    folder::Folder,
    manifest::{Facts, Manifest},
    name::SnapshotName,
    pack::{self, Item, Selection},
    pattern::Patterns,
    place::Place,
    remote::{
        self, Io, Remote,
        spool::{Bounds, collect_answer, collect_command},
    },
    restore::is_unrestored,
    seal::Sealer,
    watch::{in_thread, watched},
};
use crate::{
    client::Request,
    size::show_bytes,
    step::{Context, End, exec::Exec},
};

/// What is saved.
#[derive(Debug)]
pub enum Source {
    Path(PathBuf),
    /// The output of a command, under this name.
    Exec(Box<Exec>, String),
    /// The body of an answer, under this name.
    Http(Box<Request>, String),
}

impl Source {
    /// The top-level name in the snapshot.
    pub fn stored_as(&self) -> &OsStr {
        match self {
            Self::Path(path) => path.file_name().unwrap_or_default(),
            Self::Exec(_, name) | Self::Http(_, name) => OsStr::new(name),
        }
    }

    pub fn show(&self) -> String {
        match self {
            Self::Path(path) => path.display().to_string(),
            Self::Exec(..) => "the command's output".into(),
            Self::Http(request, _) => request.url.to_string(),
        }
    }
}

/// One save, that can be done any number of times.
#[derive(Debug)]
pub struct Job {
    /// The name of the state.
    pub name: String,
    sources: Vec<Source>,
    pub place: Place,
    /// What the thread that packs needs.
    packing: Arc<Packing>,
}

#[derive(Debug)]
struct Packing {
    name: String,
    patterns: Patterns,
    /// The store's own folder is never packed, wherever a link or a mount shows it.
    leave_out: Vec<PathBuf>,
    keep: u32,
    compression: Compression,
}

/// What came of it.
pub struct Saved {
    pub name: String,
    pub manifest: Manifest,
    /// Bytes of the snapshot as stored.
    pub size: u64,
}

/// What a source that is no file may give at most: a command that never ends must not fill the node's disk.
const LONGEST_STREAM: u64 = 64 << 30;

/// So much of it stays in memory.
const IN_MEMORY: usize = remote::spool::IN_MEMORY;

const NOT_PRUNED: &str = "older ones are kept: the restore of this state did not succeed in this life";

impl Job {
    pub fn new(
        name: String,
        sources: Vec<Source>,
        patterns: Patterns,
        place: Place,
        keep: u32,
        compression: Compression,
    ) -> Self {
        let leave_out = match &place {
            Place::Folder(path) => vec![path.clone()],
            Place::Remote(_) => Vec::new(),
        };
        let packing = Packing { name: name.clone(), patterns, leave_out, keep, compression };
        Self { name, sources, place, packing: Arc::new(packing) }
    }

    /// One save as an attempt of a step.
    pub async fn run(&self, context: &Context) -> End {
        let io = Io { processes: context.processes.clone(), progress: context.progress.clone() };
        // Dropping this future stops the thread that packs, before its next piece and before it puts anything in place.
        let (flow, _stop): (Flow, StopOnDrop) = Flow::new();
        let trigger = context.label.split('/').next().unwrap_or_default();
        context.progress.set(format!("{}: waiting for the file system", self.place.show()));
        let work = self.save(trigger, &flow, context, &io);
        match watched(context, "saved", &flow, work).await {
            Ok(saved) => End::Done(saved.show(&flow)),
            Err(end) => end,
        }
    }

    async fn save(&self, trigger: &str, flow: &Flow, context: &Context, io: &Io) -> Result<Saved, Trouble> {
        if let Place::Folder(path) = &self.place
            && self.sources.iter().any(|source| !matches!(source, Source::Path(_)))
        {
            let folder = Folder::new(path.clone());
            in_thread(move || folder.make_ready().map_err(|error| trouble(&error))).await?;
        }
        let mut items = Vec::new();
        for source in &self.sources {
            let (name, spooled) = match source {
                Source::Path(path) => {
                    items.push(Item::Tree(path.clone()));
                    continue;
                }
                Source::Exec(exec, name) => (name, collect_command(exec, &context.label, self.bounds(), io).await?),
                Source::Http(request, name) => (name, collect_answer(request, self.bounds(), io).await?),
            };
            items.push(Item::Stream { name: name.clone(), content: spooled });
        }
        match &self.place {
            Place::Folder(path) => {
                let (packing, path, trigger, flow) =
                    (Arc::clone(&self.packing), path.clone(), trigger.to_owned(), flow.clone());
                in_thread(move || packing.save_to_folder(items, &path, &trigger, &flow)).await
            }
            Place::Remote(remote) => self.save_to_remote(remote, items, trigger, flow, io).await,
        }
    }

    /// How much of a stream is held, and where: what goes to a folder may as well wait there.
    fn bounds(&self) -> Bounds {
        let folder = match &self.place {
            Place::Folder(path) => Some(path.clone()),
            Place::Remote(remote) => remote.spool().map(Path::to_owned),
        };
        Bounds { memory: IN_MEMORY, folder, most: LONGEST_STREAM }
    }

    /// The thread packs into a channel, and the store's client sends what comes out of it.
    async fn save_to_remote(
        &self,
        remote: &Remote,
        items: Vec<Item>,
        trigger: &str,
        flow: &Flow,
        io: &Io,
    ) -> Result<Saved, Trouble> {
        let number = remote.next_number(&self.name, io).await?;
        let name =
            SnapshotName { state: self.name.clone(), number, time: now(), compression: self.packing.compression };
        let (mut writer, pieces) = remote::writer();
        let (packing, trigger, own_flow, own_name) =
            (Arc::clone(&self.packing), trigger.to_owned(), flow.clone(), name.clone());
        let packed = in_thread(move || {
            let manifest = packing.pack(items, &own_name, &mut writer, &trigger, &own_flow);
            // Without its end a stream is known to have broken off, and nothing of it stays in the store.
            manifest.and_then(|manifest| writer.finish().map(|()| manifest)).map_err(|error| trouble(&error))
        });
        let (packed, uploaded) = tokio::join!(packed, remote.upload(&name, pieces, io));
        let (manifest, size) = match (packed, uploaded) {
            (Ok(manifest), Ok(size)) => (manifest, size),
            // What ended first made the other end: the store does not take more, or there is no more to take.
            (Err(packed), Err(uploaded)) if packed.reason == remote::NOBODY_TAKES_IT => return Err(uploaded),
            (Err(trouble), _) | (_, Err(trouble)) => return Err(trouble),
        };
        if is_unrestored(&self.name) {
            flow.note(NOT_PRUNED.into());
        } else if let Err(trouble) = remote.prune(&self.name, self.packing.keep, io, flow).await {
            flow.note(format!("older ones are not deleted: {}", trouble.reason));
        }
        Ok(Saved { name: name.to_string(), manifest, size })
    }
}

impl Packing {
    fn save_to_folder(&self, items: Vec<Item>, path: &Path, trigger: &str, flow: &Flow) -> Result<Saved, Trouble> {
        let folder = Folder::new(path.to_owned());
        let at = |error: io::Error| trouble(&error);
        let place: Arc<Path> = Arc::from(path);
        flow.wait_for(Some(Arc::clone(&place)));
        let draft = folder.begin(&self.name, self.compression, now()).map_err(at)?;
        let name = draft.name().clone();
        let mut draft = At { inner: draft, flow: flow.clone(), place: Arc::clone(&place) };
        let manifest = self.pack(items, &name, &mut draft, trigger, flow).map_err(at)?;
        flow.wait_for(Some(place));
        let draft = draft.inner;
        // Whoever waited is gone: nothing may appear that no report tells of.
        flow.check().map_err(at)?;
        let listed = draft.commit().map_err(at)?;
        if is_unrestored(&self.name) {
            flow.note(NOT_PRUNED.into());
        } else {
            folder.prune(&self.name, self.keep, flow);
        }
        Ok(Saved { name: listed.name.to_string(), manifest, size: listed.size })
    }

    /// Packs and seals everything into the sink.
    fn pack(
        &self,
        items: Vec<Item>,
        name: &SnapshotName,
        sink: &mut dyn Write,
        trigger: &str,
        flow: &Flow,
    ) -> io::Result<Manifest> {
        let mut selection = Selection { items, patterns: self.patterns.clone(), leave_out: self.leave_out.clone() };
        pack::survey(&selection, flow)?;
        let mut sealer = Sealer::new(self.compression, count_workers(self.compression), sink);
        let packed = pack::pack(&mut selection, &mut sealer, flow)?;
        let notes = flow.notes();
        if packed.files == 0
            && let Some(line) = notes.lines.iter().find(|line| line.starts_with(pack::UNREADABLE))
        {
            // A snapshot of nothing would be the newest, and in time push out those that hold something.
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("nothing could be read: {line}")));
        }
        sealer.finish(Facts {
            state: self.name.clone(),
            number: name.number,
            created: name.time,
            pod: host_name(),
            trigger: trigger.to_owned(),
            files: packed.files,
            bytes: packed.bytes,
            roots: packed.roots,
            notes,
        })
    }
}

/// What the pod is called: its host name, unless the downward API says more.
fn host_name() -> String {
    let named = std::env::var("POD_NAME").ok().filter(|name| !name.is_empty());
    named.unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}

/// Whether another attempt may help: what a configuration or an image has to change for does not pass.
pub(super) fn trouble(error: &io::Error) -> Trouble {
    let for_good = matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::NotADirectory
    );
    Trouble { reason: error.to_string(), may_pass: !for_good, is_missing: false }
}

impl Saved {
    /// `sessions.0000000042.….tar.zst: 340 files, 1.2 GB (800 MB stored); changed while it was read: …`.
    fn show(&self, flow: &Flow) -> String {
        let Manifest { files, bytes, .. } = &self.manifest;
        let (bytes, stored, notes) = (show_bytes(*bytes), show_bytes(self.size), flow.notes().show());
        format!("{}: {files} files, {bytes} ({stored} stored){notes}", self.name)
    }
}
