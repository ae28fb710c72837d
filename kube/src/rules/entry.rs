//! Who starts boathook, and whether it is there to be started.

use std::path::{Path as File, PathBuf};

use serde_json::json;

use crate::{
    facts::Way,
    finding::{Edit, Finding, Rule, Severity},
    pod::{
        Agent, Pod,
        words::{self, Around, Call, What},
    },
};

pub const BYPASSED: Rule =
    Rule { name: "entrypoint-bypassed", about: "the container's command starts something else than boathook" };
pub const BINARY: Rule = Rule {
    name: "binary-not-there",
    about: "boathook is started from another place than an init container brings it to",
};
pub const PROCESS_NAMESPACE: Rule = Rule {
    name: "shared-process-namespace",
    about: "with shareProcessNamespace PID 1 is not the application, and signals for it go elsewhere",
};

/// What cannot be told from outside: a script may do anything, also start boathook.
fn is_script(words: &[String]) -> bool {
    let name = words.first().map_or("", |word| word.rsplit('/').next().unwrap_or_default());
    let by_name = name.ends_with(".sh") || name.contains("entrypoint");
    by_name || words::script_of(words).is_some_and(|script| script.contains(".sh"))
}

/// The binary, as this container's other fields or an init container have it.
pub fn program(pod: &Pod<'_>) -> String {
    let calls = &pod.calls;
    let used = [&calls.entrypoint, &calls.pre_stop, &calls.post_start, &calls.readiness].into_iter().flatten().next();
    let used = used.map(|call: &Call| call.words[0].clone());
    let installed = || installed(pod).into_iter().next().map(|path| path.display().to_string());
    used.or_else(installed).unwrap_or_else(|| "/boathook".into())
}

pub fn bypassed(pod: &Pod<'_>) -> Vec<Finding> {
    let words = pod.container.command.as_deref().unwrap_or_default();
    if words.is_empty() {
        return not_used(pod).into_iter().collect();
    }
    let at = pod.at("command");
    let by_boathook = pod.calls.entrypoint.iter().find(|call| matches!(call.subcommand(), "run" | "serve"));
    if let Some(call) = by_boathook {
        if let What::Refused(why) = &call.what {
            return vec![pod.finding(
                BYPASSED,
                Severity::Error,
                at,
                format!("boathook refuses `{}`: {why}", call.show()),
                "the container ends at once with code 64 and is restarted with growing pauses",
                "write the main process behind `boathook run --`: Kubernetes takes nothing from the image's CMD when `command` \
                 is written",
            )];
        }
        return match call.around {
            Around::Shell(shell) if !shell.by_exec && !shell.alone && call.subcommand() == "run" => vec![pod.finding(
                BYPASSED,
                Severity::Warning,
                at,
                "a shell starts `boathook run` in the middle of its script and stays in front of it",
                "SIGTERM goes to PID 1, which is the shell: it passes nothing on, and after the grace period everything is killed",
                "write `exec` before `boathook run`",
            )],
            _ => Vec::new(),
        };
    }
    // Exec hooks and steps by hand need no entrypoint, and a post-start hook may start `serve`.
    if pod.way != Way::Run || pod.agent() != Agent::None || pod.is_assumed {
        return Vec::new();
    }
    let program = program(pod);
    // A script of an image that boathook is brought into from outside knows nothing of it.
    let is_unclear = is_script(words) && folders_of_installs(pod).is_empty();
    let finding = pod.finding(
        BYPASSED,
        if is_unclear { Severity::Note } else { Severity::Error },
        at.clone(),
        format!("`command` is `{}`, and nothing in this container starts boathook", words.join(" ")),
        "`command` replaces the image's ENTRYPOINT, so that an agent in it is not started and nobody listens; a refused \
         connection is not retried: post-start fails and the container is killed, pre-stop is not run",
        format!("write command: [\"{program}\", \"run\", \"--\", …] with the application's own words behind it"),
    );
    if is_unclear {
        return vec![finding];
    }
    let mut right = vec![program, "run".into(), "--".into()];
    right.extend(words.iter().cloned());
    vec![finding.with([Edit::Set(at, json!(right))])]
}

/// An init container brings boathook, and the image's own entrypoint knows nothing of it.
fn not_used(pod: &Pod<'_>) -> Option<Finding> {
    if !pod.is_foreign || pod.way != Way::Run || pod.is_assumed || pod.agent() == Agent::Shown {
        return None;
    }
    let program = program(pod);
    Some(pod.finding(
        BYPASSED,
        Severity::Error,
        pod.container_path.clone(),
        "an init container brings boathook, and nothing in this container starts it",
        "the image's own ENTRYPOINT starts the application alone, so that nobody listens: the kubelet's hooks are refused, a failed \
         post-start kills the container, and pre-stop is not run",
        format!("write command: [\"{program}\", \"run\", \"--\", …] with the image's ENTRYPOINT and CMD behind it"),
    ))
}

/// Where an init container that runs `boathook install` brings the binary to, as this container sees it.
pub fn installed(pod: &Pod<'_>) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for (volume, inside) in folders_of_installs(pod) {
        for mount in pod.container.volume_mounts.iter().flatten().filter(|mount| mount.name == volume) {
            if let Ok(inside) = inside.strip_prefix(mount.sub_path.as_deref().unwrap_or_default()) {
                paths.push(File::new(&mount.mount_path).join(inside).join("boathook"));
            }
        }
    }
    paths
}

/// The volumes and the folders in them that `boathook install` writes to.
fn folders_of_installs(pod: &Pod<'_>) -> Vec<(String, PathBuf)> {
    let mut folders = Vec::new();
    for container in pod.spec.init_containers.iter().flatten() {
        for dir in words::installs(container) {
            let mounts = container.volume_mounts.iter().flatten();
            let covering = mounts.filter(|mount| dir.starts_with(&mount.mount_path));
            let Some(mount) = covering.max_by_key(|mount| mount.mount_path.len()) else { continue };
            let inside = dir.strip_prefix(&mount.mount_path).unwrap_or(File::new(""));
            folders.push((mount.name.clone(), File::new(mount.sub_path.as_deref().unwrap_or_default()).join(inside)));
        }
    }
    folders
}

pub fn binary(pod: &Pod<'_>) -> Vec<Finding> {
    let folders = folders_of_installs(pod);
    let Some((volume, _)) = folders.first() else { return Vec::new() };
    let installed = installed(pod);
    let calls = &pod.calls;
    let fields = [
        ("command", &calls.entrypoint),
        ("lifecycle.postStart.exec.command", &calls.post_start),
        ("lifecycle.preStop.exec.command", &calls.pre_stop),
        ("startupProbe.exec.command", &calls.startup),
        ("readinessProbe.exec.command", &calls.readiness),
        ("livenessProbe.exec.command", &calls.liveness),
    ];
    let mut findings = Vec::new();
    for (field, call) in fields.into_iter().flat_map(|(field, calls)| calls.iter().map(move |call| (field, call))) {
        let program = File::new(&call.words[0]);
        if !program.is_absolute() || installed.iter().any(|path| path == program) {
            continue;
        }
        let shown = program.display();
        let (what, fix) = match installed.first() {
            Some(path) => (
                format!("starts {shown}, and the init container brings boathook to {}", path.display()),
                format!("write {}", path.display()),
            ),
            None => (
                format!(
                    "starts {shown}, and the volume {volume} that the init container brings boathook to is not mounted here"
                ),
                format!("mount the volume {volume} in this container"),
            ),
        };
        findings.push(pod.finding(
            BINARY,
            // The image may have a boathook of its own.
            Severity::Warning,
            pod.nearest(pod.at(field)),
            what,
            "a program that is not there cannot be started: a hook fails, and as the entrypoint the container never runs",
            fix,
        ));
    }
    findings
}

pub fn process_namespace(pod: &Pod<'_>) -> Vec<Finding> {
    if pod.spec.share_process_namespace != Some(true) || pod.way == Way::Run || !pod.facts.signals_main {
        return Vec::new();
    }
    vec![pod.finding(
        PROCESS_NAMESPACE,
        Severity::Error,
        pod.spec_at("shareProcessNamespace"),
        "a `signal` step is for the main process, which is PID 1 without `boathook run`, and here that is the pod's pause process",
        "with shareProcessNamespace all containers of the pod see the same processes, and PID 1 is the sandbox's own: a signal \
         to it reaches no application, or ends the whole pod",
        "give the step a `process` or a `pid-file`, or make `boathook run` the entrypoint",
    )]
}
