//! Volumes, files and variables that boathook and its steps need.

use std::path::Path as File;

use k8s_openapi::api::core::v1::{Volume, VolumeMount};
use serde_json::{Value, json};

use crate::{
    facts::{Folder, Token, Way},
    finding::{Edit, Finding, Rule, Severity},
    pod::{
        Configuration, Pod,
        configuration::{Mounted, NamedBy},
    },
};

pub const CONFIG_NOT_MOUNTED: Rule = Rule {
    name: "config-not-mounted",
    about: "the configuration, or a file that it names, does not come to where boathook looks for it",
};
pub const TOKEN_UNREADABLE: Rule =
    Rule { name: "token-unreadable", about: "the token's file is not readable for the container's user" };
pub const STATE_VOLUME: Rule =
    Rule { name: "state-volume-missing", about: "snapshots of state have no volume that outlasts the pod" };
pub const READ_ONLY_ROOT: Rule = Rule {
    name: "read-only-root",
    about: "a step writes where the root file system is read-only and no volume is mounted",
};
pub const VARIABLE_MISSING: Rule =
    Rule { name: "variable-missing", about: "the configuration takes a variable that the container does not set" };
pub const TERMINATION_MESSAGE: Rule = Rule {
    name: "termination-message-path",
    about: "boathook writes the reason of a failed hook to another file than the kubelet reads",
};

/// Where Kubernetes has the file when nobody says.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// Where a container may write although its root is read-only: the runtime's own mounts.
const RUNTIMES_OWN: [&str; 3] = ["/dev", "/proc", "/sys"];

/// Folders that images leave empty: a volume there hides nothing.
const USUALLY_EMPTY: [&str; 4] = ["/tmp", "/run", "/var/run", "/var/tmp"];

/// Variables that are there without being written: of the runtime, of Kubernetes, of the node.
fn is_always_there(name: &str) -> bool {
    ["HOSTNAME", "HOME", "PATH", "PWD", "TERM"].contains(&name)
        || name.starts_with("KUBERNETES_")
        || name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
}

pub fn configuration(pod: &Pod<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if pod.way != Way::Step {
        findings.extend(not_mounted(pod));
        findings.extend(token_file(pod));
        findings.extend(termination_message(pod));
    }
    findings
}

fn not_mounted(pod: &Pod<'_>) -> Option<Finding> {
    let place = pod.place.path.display();
    let why = match pod.place.named_by {
        NamedBy::CommandLine => {
            "--config names a file that is not there: boathook does not start, and the container or its hooks fail"
        }
        NamedBy::Environment => {
            "BOATHOOK_CONFIG names a file that is not there: boathook does not start, and the container or its hooks fail"
        }
        NamedBy::Nobody => "without a file there boathook goes by its defaults, without a word: its steps are not run",
    };
    let mounts = pod.at("volumeMounts");
    let folder = pod.place.path.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
    match &pod.mounted {
        Mounted::Wrong { mount, why: wrong, meant, is_certain } => {
            let own = pod.container.volume_mounts.as_ref()?.get(*mount)?;
            let name = pod.place.path.file_name()?.to_str()?;
            let is_folder = File::new(&own.mount_path) == pod.place.path && own.sub_path.is_none();
            let edit = (is_folder && meant.is_some()).then(|| Edit::Set(mounts.at(*mount).at("subPath"), name.into()));
            let finding = pod.finding(
                CONFIG_NOT_MOUNTED,
                if *is_certain { Severity::Error } else { Severity::Warning },
                mounts.at(*mount),
                format!("boathook looks for {place}, and {wrong}"),
                why,
                if is_folder {
                    format!("add subPath: {name}, or mount the volume at {folder}")
                } else {
                    format!("bring it there as {name}")
                },
            );
            Some(finding.with(edit).with(pod.mounted_fix(*mount)))
        }
        Mounted::Nothing { meant: Some(meant) } => {
            let (path, is) = match &meant.at {
                Some((mount, at)) => (mounts.at(*mount), format!("{} comes to {}", meant.text.from, at.display())),
                None => (pod.nearest(mounts.clone()), format!("{} is not mounted in this container", meant.text.from)),
            };
            let new = |volume: &str| {
                Edit::Append(mounts.clone(), json!({"name": volume, "mountPath": folder, "readOnly": true}))
            };
            let mut edits = Vec::new();
            if meant.at.is_none() {
                match &meant.volume {
                    Some(volume) => edits.push(new(volume)),
                    None => {
                        if let Some(map) = &meant.map {
                            let volume = free_name(pod, "boathook");
                            edits.push(Edit::Append(
                                pod.spec_at("volumes"),
                                json!({"name": volume, "configMap": {"name": map}}),
                            ));
                            edits.push(new(&volume));
                        }
                    }
                }
            }
            let finding = pod.finding(
                CONFIG_NOT_MOUNTED,
                Severity::Error,
                path,
                format!("boathook looks for {place}, and {is}"),
                why,
                format!("mount it at {folder}, or name its place: BOATHOOK_CONFIG, or --config"),
            );
            // A place that somebody has named is right for another reason, perhaps.
            let usual = pod.place.named_by == NamedBy::Nobody;
            Some(finding.with(if usual { edits } else { Vec::new() }))
        }
        // The image may have the file.
        Mounted::Nothing { meant: None } if pod.configuration == Configuration::Given && !pod.is_partial => {
            Some(pod.finding(
                CONFIG_NOT_MOUNTED,
                Severity::Note,
                pod.nearest(mounts),
                format!("no volume brings a configuration to {place}"),
                why,
                "nothing, where the image has it; else mount a ConfigMap with it",
            ))
        }
        _ => None,
    }
}

/// A name that no volume of the pod has.
fn free_name(pod: &Pod<'_>, wanted: &str) -> String {
    let is_free = |name: &String| pod.spec.volumes.iter().flatten().all(|volume| volume.name != *name);
    std::iter::once(wanted.to_owned())
        .chain((2..100).map(|number| format!("{wanted}-{number}")))
        .find(is_free)
        .unwrap_or_else(|| wanted.into())
}

/// The mount that brings a path, with its index.
fn mount_of<'p>(pod: &'p Pod<'_>, path: &File) -> Option<(usize, &'p VolumeMount)> {
    let mounts = pod.container.volume_mounts.iter().flatten().enumerate();
    mounts
        .filter(|(_, mount)| path.starts_with(&mount.mount_path))
        .max_by_key(|(_, mount)| File::new(&mount.mount_path).components().count())
}

/// The volume of a mount, with its index; a StatefulSet's claims are not listed.
fn volume_of<'p>(pod: &'p Pod<'_>, mount: &VolumeMount) -> Option<(usize, &'p Volume)> {
    pod.spec.volumes.iter().flatten().enumerate().find(|(_, volume)| volume.name == mount.name)
}

fn token_file(pod: &Pod<'_>) -> Vec<Finding> {
    let Some(Token::File(path)) = &pod.facts.token else { return Vec::new() };
    let Some((_, mount)) = mount_of(pod, path) else {
        return vec![pod.finding(
            CONFIG_NOT_MOUNTED,
            if pod.is_partial { Severity::Note } else { Severity::Error },
            pod.nearest(pod.at("volumeMounts")),
            format!("the configuration's token-file is {}, and no volume is mounted there", path.display()),
            "boathook does not start without its token",
            "mount a Secret with the token at that place",
        )];
    };
    let Some((index, volume)) = volume_of(pod, mount) else { return Vec::new() };
    let modes = volume.secret.as_ref().and_then(|secret| secret.default_mode);
    let own = pod.container.security_context.as_ref();
    let pods = pod.spec.security_context.as_ref();
    let user = own.and_then(|own| own.run_as_user).or_else(|| pods.and_then(|pods| pods.run_as_user));
    let non_root = own.and_then(|own| own.run_as_non_root).or_else(|| pods.and_then(|pods| pods.run_as_non_root));
    let is_root = user.map_or(non_root != Some(true), |user| user == 0);
    // With fsGroup the kubelet lets the group read.
    let by_group = pods.and_then(|pods| pods.fs_group).is_some();
    match modes {
        Some(mode) if !is_root && !by_group && mode & 0o004 == 0 => {
            let path = pod.spec_at("volumes").at(index).down("secret.defaultMode");
            vec![pod.finding(
                TOKEN_UNREADABLE,
                Severity::Error,
                path,
                format!("the token's file has mode {mode:04o}, and the container does not run as root"),
                "files of a Secret belong to root; without fsGroup another user may only read them when everybody may: boathook \
                 does not start without its token",
                "write securityContext.fsGroup for the pod, which lets the group read, or defaultMode: 0444",
            )]
        }
        _ => Vec::new(),
    }
}

fn termination_message(pod: &Pod<'_>) -> Option<Finding> {
    let given = pod.container.termination_message_path.as_deref().filter(|path| !path.is_empty());
    let read = given.unwrap_or(TERMINATION_LOG);
    let written = &pod.facts.termination_message;
    if File::new(read) == written || !pod.knows_configuration() {
        return None;
    }
    let path = pod.at("terminationMessagePath");
    let place = if given.is_some() { path.clone() } else { pod.container_path.clone() };
    let finding = pod.finding(
        TERMINATION_MESSAGE,
        Severity::Warning,
        place,
        format!("the kubelet reads {read}, and boathook writes the reason of a failed hook to {}", written.display()),
        "the kubelet says only that a hook has failed; the termination message is where `kubectl describe pod` shows why",
        format!("write the same in both: terminationMessagePath: {}, or [log] termination-message = \"{read}\"", written.display()),
    );
    // A path that is written may be the application's.
    Some(finding.with(given.is_none().then(|| Edit::Set(path, written.display().to_string().into()))))
}

pub fn volumes(pod: &Pod<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    if !pod.knows_configuration() {
        return findings;
    }
    let mut seen: Vec<(&File, bool)> = Vec::new();
    // What is written there says more than what is only read.
    let folders = &pod.facts.folders;
    for folder in
        folders.iter().filter(|folder| folder.is_written).chain(folders.iter().filter(|folder| !folder.is_written))
    {
        if seen.iter().any(|(path, lasts)| *path == folder.path && (*lasts || !folder.must_last)) {
            continue;
        }
        seen.push((&folder.path, folder.must_last));
        findings.extend(if folder.must_last { lasting(pod, folder) } else { writable(pod, folder) });
    }
    findings
}

/// Why a volume's files cannot be written, whatever its mount says.
fn is_read_only(volume: &Volume) -> Option<&'static str> {
    if volume.config_map.is_some() {
        Some("a ConfigMap")
    } else if volume.secret.is_some() {
        Some("a Secret")
    } else if volume.downward_api.is_some() || volume.projected.is_some() {
        Some("made of the cluster's own objects")
    } else if volume.image.is_some() {
        Some("an image")
    } else if volume.persistent_volume_claim.as_ref().is_some_and(|claim| claim.read_only == Some(true)) {
        Some("claimed read-only")
    } else {
        None
    }
}

/// How long what is in it lasts, where that is not longer than the pod.
fn goes_with_the_pod(volume: &Volume) -> Option<&'static str> {
    if volume.empty_dir.is_some() {
        Some("an emptyDir")
    } else if volume.ephemeral.is_some() {
        Some("an ephemeral claim")
    } else {
        None
    }
}

fn lasting(pod: &Pod<'_>, folder: &Folder) -> Vec<Finding> {
    let (shown, step) = (folder.path.display(), &folder.step);
    let Some((mount_index, mount)) = mount_of(pod, &folder.path) else {
        let finding = pod.finding(
            STATE_VOLUME,
            if pod.is_partial { Severity::Warning } else { Severity::Error },
            pod.nearest(pod.at("volumeMounts")),
            format!("{step} keeps its snapshots in {shown}, and no volume is mounted there"),
            "what a container writes beside its volumes is gone with it, also after a restart",
            format!("mount a persistent volume at {shown}"),
        );
        return vec![finding];
    };
    let mount_path = pod.at("volumeMounts").at(mount_index);
    if folder.is_written && mount.read_only == Some(true) {
        let path = mount_path.at("readOnly");
        let finding = pod.finding(
            STATE_VOLUME,
            Severity::Error,
            path.clone(),
            format!("{step} keeps its snapshots in {shown}, and the volume {} is mounted read-only", mount.name),
            "nothing can be saved there",
            "mount it writable",
        );
        return vec![finding.with([Edit::Remove(path)])];
    }
    let Some((index, volume)) = volume_of(pod, mount) else { return Vec::new() };
    let at = pod.spec_at("volumes").at(index);
    if let Some(what) = is_read_only(volume).filter(|_| folder.is_written) {
        let path =
            if volume.persistent_volume_claim.is_some() { at.down("persistentVolumeClaim.readOnly") } else { at };
        let is_claim = volume.persistent_volume_claim.is_some();
        let finding = pod.finding(
            STATE_VOLUME,
            Severity::Error,
            path.clone(),
            format!("{step} keeps its snapshots in {shown}, and the volume {} is {what}", volume.name),
            "nothing can be saved there: such a volume is always mounted read-only",
            "take a persistent volume that is writable",
        );
        return vec![finding.with(is_claim.then_some(Edit::Remove(path)))];
    }
    if volume.persistent_volume_claim.is_some()
        && pod.document.kind() == "Deployment"
        && pod.replicas() > Some(1)
        && folder.is_written
    {
        return vec![pod.finding(
            STATE_VOLUME,
            Severity::Note,
            at,
            format!("{step} of several pods keeps its snapshots in one volume, {}", volume.name),
            "a Deployment's pods share the claim: each restores the newest snapshot of any of them, and a claim that is \
             ReadWriteOnce holds back pods on other nodes",
            "take a StatefulSet with volumeClaimTemplates where each pod has state of its own",
        )];
    }
    if let Some(what) = goes_with_the_pod(volume) {
        return vec![pod.finding(
            STATE_VOLUME,
            Severity::Warning,
            at,
            format!("{step} keeps its snapshots in {shown}, and the volume {} is {what}", volume.name),
            "it outlasts a container that is restarted, and goes with the pod: after a rollout, an eviction or a node's end there \
             is nothing to restore",
            "take a persistent volume: persistentVolumeClaim, or volumeClaimTemplates of a StatefulSet",
        )];
    }
    Vec::new()
}

fn writable(pod: &Pod<'_>, folder: &Folder) -> Vec<Finding> {
    if RUNTIMES_OWN.iter().any(|own| folder.path.starts_with(own)) || !folder.path.is_absolute() {
        return Vec::new();
    }
    let (shown, step) = (folder.path.display(), &folder.step);
    let why = "the step fails there, and with it the hook, unless its on-failure says otherwise";
    if let Some((index, mount)) = mount_of(pod, &folder.path) {
        let volume = volume_of(pod, mount).map(|(_, volume)| volume);
        let what = match (mount.read_only, volume.and_then(is_read_only)) {
            (Some(true), _) => "mounted read-only".to_owned(),
            (_, Some(what)) => what.to_owned(),
            _ => return Vec::new(),
        };
        return vec![pod.finding(
            READ_ONLY_ROOT,
            Severity::Error,
            pod.at("volumeMounts").at(index),
            format!("{step} writes to {shown}, and the volume {} is {what}", mount.name),
            why,
            "mount a writable volume there",
        )];
    }
    let is_read_only =
        pod.container.security_context.as_ref().and_then(|own| own.read_only_root_filesystem) == Some(true);
    if !is_read_only {
        return Vec::new();
    }
    let volume = free_name(
        pod,
        &folder
            .path
            .file_name()
            .map_or("scratch".into(), |name| name.to_string_lossy().to_ascii_lowercase().replace(['_', '.'], "-")),
    );
    let is_empty = USUALLY_EMPTY.iter().any(|usual| folder.path.starts_with(usual));
    let edits = is_empty.then(|| {
        [
            Edit::Append(pod.at("volumeMounts"), json!({"name": volume, "mountPath": shown.to_string()})),
            Edit::Append(pod.spec_at("volumes"), json!({"name": volume, "emptyDir": {}})),
        ]
    });
    let finding = pod.finding(
        READ_ONLY_ROOT,
        if pod.is_partial { Severity::Warning } else { Severity::Error },
        pod.at("securityContext.readOnlyRootFilesystem"),
        format!("{step} writes to {shown}, the root file system is read-only, and no volume is mounted there"),
        why,
        format!("mount an emptyDir at {shown}"),
    );
    vec![finding.with(edits.into_iter().flatten())]
}

/// The pod's own fields, by the names that variables for them usually have.
fn field_of(name: &str) -> Option<&'static str> {
    match name {
        "HOST_IP" | "NODE_IP" | "K8S_NODE_IP" => Some("status.hostIP"),
        "POD_IP" => Some("status.podIP"),
        "POD_NAME" => Some("metadata.name"),
        "POD_NAMESPACE" | "NAMESPACE" => Some("metadata.namespace"),
        "NODE_NAME" => Some("spec.nodeName"),
        _ => None,
    }
}

pub fn variables(pod: &Pod<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !pod.knows_configuration() || pod.environment.is_open {
        return findings;
    }
    let at = pod.nearest(pod.at("env"));
    for variable in pod.facts.variables.iter().filter(|variable| variable.needed) {
        let name = &variable.name;
        let is_token = pod.facts.token == Some(Token::Env(name.clone()));
        let is_empty = is_token && pod.environment.value(name).is_some_and(|value| value.trim().is_empty());
        if pod.environment.has(name) && !is_empty || is_always_there(name) && !is_token {
            continue;
        }
        let field = field_of(name);
        // Others may come from the image.
        let severity = if pod.is_partial || !is_token && field.is_none() { Severity::Warning } else { Severity::Error };
        let (what, fix, path) = match pod.environment.get(name).and_then(|known| known.index) {
            Some(index) => (
                format!("the configuration takes its token from `{name}`, which is empty"),
                "give it the token, such as from a Secret (valueFrom: secretKeyRef)".to_owned(),
                pod.at("env").at(index),
            ),
            None => {
                let fix = match (field, is_token) {
                    (Some(field), _) => {
                        format!("add it from the downward API: valueFrom: {{fieldRef: {{fieldPath: {field}}}}}")
                    }
                    (None, true) => "add it from a Secret: valueFrom: {secretKeyRef: …}".into(),
                    (None, false) => {
                        format!("add it to env, or give it a default in the configuration: ${{{name}:-…}}")
                    }
                };
                (
                    format!("the configuration takes `{name}` from the environment, and the container does not set it"),
                    fix,
                    at.clone(),
                )
            }
        };
        let edit: Option<Value> =
            field.map(|field| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": field}}}));
        let finding = pod.finding(
            VARIABLE_MISSING,
            severity,
            path,
            what,
            "boathook refuses a configuration whose variables are not set, and does not start",
            fix,
        );
        findings.push(finding.with(edit.map(|edit| Edit::Append(pod.at("env"), edit))));
    }
    for name in &pod.facts.step_variables {
        if !pod.environment.has(name) {
            findings.push(pod.finding(
                VARIABLE_MISSING,
                Severity::Warning,
                at.clone(),
                format!("a step asks an S3 store, and the container does not set `{name}`"),
                "without its keys the step fails: boathook takes them from the environment and from nowhere else",
                "add it from a Secret: valueFrom: {secretKeyRef: …}",
            ));
        }
    }
    findings
}

impl Pod<'_> {
    /// How a mount that does not bring the configuration would.
    fn mounted_fix(&self, mount: usize) -> Vec<Edit> {
        let Mounted::Wrong { meant: Some(meant), .. } = &self.mounted else { return Vec::new() };
        let Some(own) = self.container.volume_mounts.as_ref().and_then(|mounts| mounts.get(mount)) else {
            return Vec::new();
        };
        let Some((index, volume)) = volume_of(self, own) else { return Vec::new() };
        let Some(map) = &volume.config_map else { return Vec::new() };
        let at = self.spec_at("volumes").at(index).at("configMap");
        let Some(name) = self.place.path.file_name().and_then(|name| name.to_str()) else { return Vec::new() };
        let (object, key) = meant.from.rsplit_once(": ").unwrap_or(("", &meant.from));
        let object = object.trim_start_matches("ConfigMap ");
        if object != map.name && !map.name.starts_with(object) {
            return vec![Edit::Set(at.at("name"), object.into())];
        }
        let covers_folder = File::new(&own.mount_path) != self.place.path;
        if key != name && covers_folder && map.items.is_none() {
            return vec![Edit::Set(at.at("items"), json!([{"key": key, "path": name}]))];
        }
        Vec::new()
    }
}
