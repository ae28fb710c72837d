//! Restores: the newest snapshot that verifies becomes the target's new state, all or nothing. What cannot be used is
//! passed over with its reason; what is refused (a link that leads outside, more than the limits) ends the restore,
//! because an older state in place of the newest must never come unasked.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use tracing::warn;

use super::{
    Trouble,
    flow::{At, Flow, StopOnDrop},
    folder::Folder,
    manifest::{Broken, Manifest},
    place::Place,
    remote::{self, Io, Remote, RemoteListed},
    save::trouble,
    seal::Opened,
    swap::{self, IfPresent, Restored, Staging, tree::name_place},
    unpack::{Limits, Refused, What},
    watch::{in_thread, watched},
};
use crate::{
    size::show_bytes,
    step::{Context, End},
};

/// What it means that there is no snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfMissing {
    /// The first start of an application has none.
    Succeed,
    Fail,
}

/// One restore, that can be done any number of times.
#[derive(Debug)]
pub struct Job {
    /// The name of the state.
    pub name: String,
    pub place: Place,
    pub if_missing: IfMissing,
    pub target: Arc<Target>,
}

/// Where a snapshot's content goes.
#[derive(Debug)]
pub struct Target {
    pub to: PathBuf,
    pub if_present: IfPresent,
    pub limits: Limits,
}

/// States whose restore has failed, or was cut, in this process's life. A save that follows holds whatever the
/// application made without its state: it must not push out the snapshots that were not restored.
static UNRESTORED: Mutex<Vec<String>> = Mutex::new(Vec::new());

pub fn is_unrestored(state: &str) -> bool {
    UNRESTORED.lock().is_ok_and(|states| states.iter().any(|other| other == state))
}

fn note_restore(state: &str, succeeded: bool) {
    if let Ok(mut states) = UNRESTORED.lock() {
        states.retain(|other| other != state);
        if !succeeded {
            states.push(state.to_owned());
        }
    }
}

/// Snapshots that are tried: more damaged ones than this are no accident, and time is short.
const MOST_TRIED: usize = 20;

/// How one snapshot fared.
pub enum Tried {
    Restored(Box<Manifest>),
    /// It cannot be used; an older one may do.
    Unusable(String),
    /// `if-present = "keep"`, and something is there.
    Kept,
}

/// How many snapshots there are, and the one that was not passed over.
type Search = (usize, Option<(String, Tried)>);

impl Job {
    /// One restore as an attempt of a step.
    pub async fn run(&self, context: &Context) -> End {
        let io = Io { processes: context.processes.clone(), progress: context.progress.clone() };
        let (flow, _stop): (Flow, StopOnDrop) = Flow::new();
        context.progress.set(format!("{}: waiting for the file system", self.target.to.display()));
        // Also when this is cut at the next await.
        note_restore(&self.name, false);
        let work = self.restore(&context.label, &flow, &io);
        let end = watched(context, "restored", &flow, work).await.unwrap_or_else(|end| end);
        note_restore(&self.name, matches!(end, End::Done(_) | End::Skipped(_)));
        end
    }

    async fn restore(&self, label: &str, flow: &Flow, io: &Io) -> Result<End, Trouble> {
        let (target, name) = (Arc::clone(&self.target), self.name.clone());
        flow.wait_for(Some(Arc::from(self.target.to.as_path())));
        let is_kept = in_thread(move || target.prepare(&name)).await?;
        if is_kept {
            return Ok(self.kept());
        }
        let mut skipped: Vec<String> = Vec::new();
        let (found, tried) = match &self.place {
            Place::Folder(path) => self.try_folder(path, label, flow, &mut skipped).await?,
            Place::Remote(remote) => self.try_remote(remote, label, flow, io, &mut skipped).await?,
        };
        let passed_over = if skipped.is_empty() { String::new() } else { format!("; skipped {}", skipped.join(", ")) };
        match tried {
            Some((name, Tried::Restored(manifest))) => Ok(End::Done(format!(
                "{name}: {} files, {}, saved {} by {}{}{passed_over}",
                manifest.files,
                show_bytes(manifest.bytes),
                manifest.created,
                manifest.pod,
                flow.notes().show(),
            ))),
            Some((_, Tried::Kept)) => Ok(self.kept()),
            _ if found == 0 => {
                let why = format!("{}: no snapshot of `{}`", self.place.show(), self.name);
                Ok(match self.if_missing {
                    IfMissing::Succeed => End::Skipped(why),
                    IfMissing::Fail => End::FailedForGood(why),
                })
            }
            _ => Ok(End::FailedForGood(format!(
                "{}: none of {found} snapshots of `{}` can be used: {}",
                self.place.show(),
                self.name,
                skipped.join(", ")
            ))),
        }
    }

    fn kept(&self) -> End {
        End::Skipped(format!("{} is not empty, and if-present is \"keep\"", self.target.to.display()))
    }

    async fn try_folder(
        &self,
        path: &Path,
        label: &str,
        flow: &Flow,
        skipped: &mut Vec<String>,
    ) -> Result<Search, Trouble> {
        let (folder, name) = (Folder::new(path.to_owned()), self.name.clone());
        let store: Arc<Path> = Arc::from(path);
        flow.wait_for(Some(Arc::clone(&store)));
        let own_path = path.to_owned();
        let listed = in_thread(move || match folder.list(Some(&name)) {
            // A store that was never written to has no snapshot; whether that is a failure is configured. One that
            // cannot be looked at is another matter: an application must not begin anew because of it.
            Err(_) if matches!(own_path.try_exists(), Ok(false)) => Ok(Vec::new()),
            listed => listed.map_err(|error| trouble(&error)),
        })
        .await?;
        let found = listed.len();
        for snapshot in listed.into_iter().take(MOST_TRIED) {
            let (target, path, state, flow) =
                (Arc::clone(&self.target), path.to_owned(), self.name.clone(), flow.clone());
            let shown = snapshot.name.to_string();
            flow.wait_for(Some(Arc::clone(&store)));
            let place = Arc::clone(&store);
            let tried = in_thread(move || match Folder::new(path).open(&snapshot) {
                Ok(inner) => {
                    let source = At { inner, flow: flow.clone(), place };
                    target.take(Box::new(source), Some(&state), &flow)
                }
                Err(error) => Ok(Tried::Unusable(error.to_string())),
            });
            match tried.await? {
                Tried::Unusable(why) => pass_over(label, &shown, why, skipped),
                tried => return Ok((found, Some((shown, tried)))),
            }
        }
        Ok((found, None))
    }

    async fn try_remote(
        &self,
        remote: &Remote,
        label: &str,
        flow: &Flow,
        io: &Io,
        skipped: &mut Vec<String>,
    ) -> Result<Search, Trouble> {
        let listed = remote.list(Some(&self.name), io).await?;
        let found = listed.len();
        for snapshot in listed.into_iter().take(MOST_TRIED) {
            let shown = remote.show_listed(&snapshot);
            let (target, state, own_flow) = (Arc::clone(&self.target), self.name.clone(), flow.clone());
            let (sent, taken) =
                read_remote(remote, &snapshot, io, move |source| target.take(source, Some(&state), &own_flow)).await;
            match (sent, taken) {
                // A URL has no list: only asking for the snapshot tells that there is none.
                (Err(trouble), _) if trouble.is_missing && matches!(remote, Remote::Url(_)) => return Ok((0, None)),
                // The download's own reason tells more than the torn archive that it left.
                (Err(trouble), Ok(Tried::Unusable(_)) | Err(_)) => return Err(trouble),
                (_, Ok(Tried::Unusable(why))) => pass_over(label, &shown, why, skipped),
                (_, tried) => return Ok((found, Some((shown, tried?)))),
            }
        }
        Ok((found, None))
    }
}

/// Downloads a snapshot while `work` reads it on a thread; how the download ended, and how the work did.
pub async fn read_remote<T: Send + 'static>(
    remote: &Remote,
    snapshot: &RemoteListed,
    io: &Io,
    work: impl FnOnce(Box<dyn Read + Send>) -> Result<T, Trouble> + Send + 'static,
) -> (Result<(), Trouble>, Result<T, Trouble>) {
    let (pieces, reader) = remote::reader();
    tokio::join!(remote.download(snapshot, pieces, io), in_thread(move || work(Box::new(reader))))
}

fn pass_over(label: &str, snapshot: &str, why: String, skipped: &mut Vec<String>) {
    warn!(step = label, snapshot, reason = why.as_str(), "snapshot skipped");
    skipped.push(format!("{snapshot} ({why})"));
}

impl Target {
    /// Finishes what an earlier life began; whether what is there is to be kept.
    fn prepare(&self, state: &str) -> Result<bool, Trouble> {
        let recovered = swap::recover(&self.to, state).map_err(|error| self.trouble(error))?;
        if let Some(did) = recovered {
            warn!(target = %self.to.display(), did = did.as_str(), "an earlier restore was cut off");
        }
        if self.if_present != IfPresent::Keep {
            return Ok(false);
        }
        swap::is_present(&self.to).map_err(|error| self.trouble(error))
    }

    /// The kernel's own word alone would not say what it is about.
    fn trouble(&self, error: io::Error) -> Trouble {
        trouble(&name_place(&self.to.display(), "it cannot be restored there", error))
    }

    /// Unpacks a snapshot aside, verifies it to its end, and only then puts it in place.
    /// `state`: whose snapshot it has to be; `None` takes any.
    pub fn take(&self, source: Box<dyn Read + Send>, state: Option<&str>, flow: &Flow) -> Result<Tried, Trouble> {
        let at = |error: io::Error| self.trouble(error);
        let mut opened = match Opened::new(source) {
            Ok(opened) => opened,
            Err(broken) => return unusable(broken),
        };
        flow.wait_for(Some(Arc::from(self.to.as_path())));
        let mut staging = Staging::begin(&self.to, state.unwrap_or("extract"), flow).map_err(at)?;
        let unpacked = staging.unpack(&mut opened, &self.limits, flow);
        flow.check().map_err(at)?;
        if let Err(refused @ Refused { what: What::Target, .. }) = &unpacked {
            return Err(Trouble::may_pass(format!("{}: {refused}", self.to.display())));
        }
        // A damaged snapshot may look like a hostile one: what the checksum says counts first.
        let manifest = match opened.finish() {
            Ok(manifest) => manifest,
            Err(broken) => return unusable(broken),
        };
        if state.is_some_and(|state| manifest.state != state) {
            return Ok(Tried::Unusable(format!("it is a snapshot of `{}`", manifest.state)));
        }
        // Whole, and yet nothing to be restored: an older state in its place must not come unasked.
        unpacked.map_err(|refused| Trouble::for_good(refused.to_string()))?;
        flow.check().map_err(at)?;
        Ok(match staging.commit(self.if_present, flow).map_err(at)? {
            Restored::Kept => Tried::Kept,
            Restored::AtOnce | Restored::InMoves(_) => Tried::Restored(Box::new(manifest)),
        })
    }
}

fn unusable(broken: Broken) -> Result<Tried, Trouble> {
    match broken {
        // An older boathook must not quietly bring back an older state.
        Broken::Newer(why) => Err(Trouble::for_good(why)),
        broken => Ok(Tried::Unusable(broken.to_string())),
    }
}
