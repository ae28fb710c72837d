//! What is put around the fields of a pod's spec: nothing, a workload, a kustomize component, or a Helm template's first
//! and last lines. Pure.

use boathook::cli::{Kind, ManifestFormat};
use serde_json::{Value, json};

use super::text::{Block, Flavour, Line, Yaml, comment, inline, knobs, write};

/// Where the text came from and goes to.
pub struct Around<'a> {
    pub format: ManifestFormat,
    pub kind: Kind,
    /// The workload's name, for those that have one.
    pub name: &'a str,
    /// The configuration's file as typed; `None`: the defaults.
    pub file: Option<&'a str>,
    /// The token stands in the configuration, which makes it a secret.
    pub is_secret: bool,
    /// For a Deployment: the default is too short.
    pub progress_deadline: Option<u64>,
}

/// `apiVersion`, and the fields between the workload's own `spec` and the pod's.
fn places(kind: Kind) -> (&'static str, &'static [&'static str]) {
    match kind {
        Kind::Pod => ("v1", &["spec"]),
        Kind::Deployment | Kind::StatefulSet | Kind::DaemonSet => ("apps/v1", &["spec", "template", "spec"]),
        Kind::Job => ("batch/v1", &["spec", "template", "spec"]),
        Kind::CronJob => ("batch/v1", &["spec", "jobTemplate", "spec", "template", "spec"]),
    }
}

/// As Kubernetes spells it, which is how it is typed.
fn word(kind: Kind) -> String {
    format!("{kind:?}")
}

/// The whole text.
pub fn print(spec: Block, around: &Around<'_>) -> String {
    let (_, path) = places(around.kind);
    let source = around.file.map_or("the defaults".to_owned(), |file| format!("`{file}`"));
    let place = format!("{} of a {}", path.join("."), word(around.kind));
    let mut head = vec![match around.format {
        ManifestFormat::Snippet => comment(format!("For the pod's spec ({place}), from {source}.")),
        ManifestFormat::Patch => comment(format!(
            "A strategic-merge patch for the {} {}, from {source}: kubectl patch --patch-file, or kustomize's patches.",
            word(around.kind),
            around.name
        )),
        ManifestFormat::Kustomize => comment(format!(
            "A kustomize component for the {} {}, from {source}; used by `components: [./boathook]`, if this is the folder \
             boathook.",
            word(around.kind),
            around.name
        )),
        ManifestFormat::Helm => comment(format!("For a template's pod's spec ({place}), from {source}.")),
    }];
    head.push(comment(
        "Behind a value stands where it comes from. What begins with replace-me has to be replaced; the container is found by its \
         name.",
    ));
    if let Some(seconds) = around.progress_deadline
        && matches!(around.format, ManifestFormat::Snippet | ManifestFormat::Helm)
    {
        head.push(comment(format!("A Deployment needs progressDeadlineSeconds: {seconds} for so long a start.")));
    }
    if matches!(around.format, ManifestFormat::Patch | ManifestFormat::Kustomize) {
        head.push(comment("null takes away what a hook or probe that was there before would add to this one."));
    }
    match around.format {
        ManifestFormat::Snippet => {
            head.extend(spec);
            write(&head, 0, Flavour::Plain)
        }
        ManifestFormat::Patch => {
            head.extend(workload(spec, around));
            write(&head, 0, Flavour::Patch)
        }
        ManifestFormat::Kustomize => write(&head, 0, Flavour::Plain) + &component(spec, around),
        ManifestFormat::Helm => template(&head, &spec, path.len() * 2),
    }
}

fn workload(spec: Block, around: &Around<'_>) -> Block {
    let (version, path) = places(around.kind);
    let (own, below) = path.split_first().map_or(("spec", path), |(first, below)| (*first, below));
    let mut inner = below.iter().rev().fold(spec, |inner, key| vec![Line::field(*key, inner)]);
    if let Some(seconds) = around.progress_deadline.filter(|_| around.kind == Kind::Deployment) {
        let line = Line::field("progressDeadlineSeconds", seconds);
        inner.insert(0, line.because("the start may take longer than the default of 600 s"));
    }
    let mut all = vec![
        Line::field("apiVersion", version),
        Line::field("kind", word(around.kind)),
        Line::field("metadata", vec![Line::field("name", around.name)]),
    ];
    all.push(Line::field(own, inner));
    all
}

fn component(spec: Block, around: &Around<'_>) -> String {
    let mut top = vec![Line::field("apiVersion", "kustomize.config.k8s.io/v1alpha1"), Line::field("kind", "Component")];
    if let Some(file) = around.file {
        let base = file.rsplit('/').next().unwrap_or(file);
        let entry = if base == "boathook.toml" { base.into() } else { format!("boathook.toml={base}") };
        let generator = if around.is_secret { "secretGenerator" } else { "configMapGenerator" };
        top.push(Line::field(
            generator,
            vec![Line::item(vec![
                Line::field("name", "boathook"),
                Line::field("files", json!([entry])).because("lies beside this file"),
            ])],
        ));
    }
    let target: Value = json!({"kind": word(around.kind), "name": around.name});
    let mut text = write(&top, 0, Flavour::Plain);
    text += &format!("patches:\n  - target: {}\n    patch: |-\n", inline(&target, false));
    text + &write(&workload(spec, around), 6, Flavour::Patch)
}

fn template(head: &Block, spec: &Block, indent: usize) -> String {
    let space = " ".repeat(indent);
    let mut text = format!("{space}{{{{- $boathook := .Values.boathook | default dict }}}}\n");
    text += &write(head, indent, Flavour::Helm);
    text += &write(spec, indent, Flavour::Helm);
    let values: Block = knobs(spec).into_iter().map(|(name, value)| Line::field(name, value)).collect();
    let values = write(&vec![Line::field("boathook", Yaml::Block(values))], 0, Flavour::Helm);
    text += &format!("{space}# For values.yaml, where only what differs has to stand:\n");
    for line in values.lines() {
        text += &format!("{space}# {line}\n");
    }
    text
}
