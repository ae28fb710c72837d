//! One thing that is wrong with a pod: how bad, where, what, why, and how to fix it, for a person and as edits.

use serde_json::Value;

use crate::path::Path;

/// How bad; the worst one gives the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; nothing breaks.
    Note,
    /// It may drop a request, lose state or hang under circumstances that do happen.
    Warning,
    /// A hook does not run, or requests or state are lost whenever the pod stops.
    Error,
}

/// A rule's name never changes: pipelines switch it off by it, and SARIF's readers follow a finding by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// `grace-period-too-short`
    pub name: &'static str,
    /// The rule in a sentence, as SARIF's `shortDescription`.
    pub about: &'static str,
}

/// One change to a document.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// Puts this value there, instead of what is there; mappings on the way that are missing are made.
    Set(Path, Value),
    /// Puts this value at the end of the list there, which is made where it is missing.
    Append(Path, Value),
    /// Takes it away, with its own comments.
    Remove(Path),
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    pub rule: Rule,
    pub severity: Severity,
    /// The document's index among all that were read.
    pub document: usize,
    /// The narrowest place that is there: what is missing is told at what should hold it.
    pub path: Path,
    /// `is 30, and the plan needs 45`: lowercase, without a full stop, with the values.
    pub what: String,
    /// The kubelet's rule behind it.
    pub why: String,
    /// What to write instead.
    pub fix: String,
    /// The same as edits; empty where only a person can decide.
    pub edits: Vec<Edit>,
}
