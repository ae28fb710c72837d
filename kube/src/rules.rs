//! What is wrong with a pod, and why; pure. Each rule is a function of its own; what it says of Kubernetes was read in the
//! kubelet's source (1.36) or measured on a running node. What is not certain is a note, or nothing: a checker that is wrong
//! gets switched off.
//!
//! | room | rules about |
//! |---|---|
//! | `grace` | the time of the stop |
//! | `entry` | who starts boathook |
//! | `hooks` | the hooks that have to reach it |
//! | `http` | what a hook by httpGet needs |
//! | `probes` | probes beside a drain and a warm-up |
//! | `places` | volumes, files and variables |
//! | `written` | what Kubernetes would refuse, and what could not be looked at |

use crate::{
    finding::{Edit, Finding, Rule, Severity},
    path::Path,
    pod::Pod,
};

mod entry;
mod grace;
mod hooks;
mod http;
mod places;
mod probes;
mod written;

/// A rule's check.
type Check = fn(&Pod<'_>) -> Vec<Finding>;

/// In the order in which a reader wants them where several are at one place.
const CHECKS: [Check; 25] = [
    written::wrong_types,
    written::misspelt_keys,
    written::not_linux,
    written::assumptions,
    grace::too_short,
    grace::differs,
    grace::stop_signal,
    grace::slow_start,
    entry::bypassed,
    entry::binary,
    entry::process_namespace,
    hooks::pre_stop,
    hooks::post_start,
    http::declared_port,
    http::control_socket,
    http::callers,
    probes::liveness,
    probes::startup,
    probes::readiness,
    probes::pages,
    probes::grace_periods,
    probes::timeouts,
    places::configuration,
    places::volumes,
    places::variables,
];

/// All rules, for those who list them.
pub const ALL: [Rule; 36] = [
    written::WRONG_TYPE,
    written::UNKNOWN_FIELD,
    written::NOT_LINUX,
    written::BOATHOOK_ASSUMED,
    written::CONFIG_NOT_READ,
    grace::TOO_SHORT,
    grace::DIFFERS,
    grace::STOP_SIGNAL,
    grace::START_DEADLINE,
    entry::BYPASSED,
    entry::BINARY,
    entry::PROCESS_NAMESPACE,
    hooks::PRE_STOP_MISSING,
    hooks::PRE_STOP,
    hooks::PRE_STOP_SLEEP,
    hooks::POST_START_MISSING,
    hooks::POST_START,
    hooks::NOTHING_LISTENS,
    http::HOST_NETWORK,
    http::CALLERS,
    http::PORT_DIFFERS,
    http::PORT_TAKEN,
    probes::KILLS_DRAIN,
    probes::KILLS_START,
    probes::APPLICATION_PORT,
    probes::READINESS_MISSING,
    probes::PROBE_PATH,
    probes::AGENT_MISSING,
    probes::GRACE_PERIOD,
    probes::TIMEOUT,
    places::CONFIG_NOT_MOUNTED,
    places::TOKEN_UNREADABLE,
    places::STATE_VOLUME,
    places::READ_ONLY_ROOT,
    places::VARIABLE_MISSING,
    places::TERMINATION_MESSAGE,
];

/// Everything that is wrong with it, in the order of the file.
pub fn judge(pod: &Pod<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for finding in CHECKS.iter().flat_map(|check| check(pod)) {
        if findings
            .iter()
            .all(|known| (known.rule, &known.path, &known.what) != (finding.rule, &finding.path, &finding.what))
        {
            findings.push(finding);
        }
    }
    findings.sort_by_key(|finding| pod.document.line(&finding.path));
    findings
}

impl Pod<'_> {
    /// A finding that only a person can correct, until it gets [`Finding::with`] edits.
    fn finding(
        &self,
        rule: Rule,
        severity: Severity,
        path: Path,
        what: impl Into<String>,
        why: impl Into<String>,
        fix: impl Into<String>,
    ) -> Finding {
        Finding {
            rule,
            severity,
            document: self.index,
            path,
            what: what.into(),
            why: why.into(),
            fix: fix.into(),
            edits: Vec::new(),
        }
    }

    /// The path, or the nearest thing above it that is there.
    fn nearest(&self, path: Path) -> Path {
        let mut path = path;
        while !path.0.is_empty() && self.value_at(&path).is_none() {
            path.0.pop();
        }
        path
    }

    fn value_at(&self, path: &Path) -> Option<&serde_json::Value> {
        use crate::path::Segment;
        path.0.iter().try_fold(&self.document.value, |value, segment| match segment {
            Segment::Key(key) => value.get(key),
            Segment::Index(index) => value.get(index),
        })
    }
}

impl Finding {
    /// The same, with its correction.
    #[must_use]
    fn with(mut self, edits: impl IntoIterator<Item = Edit>) -> Self {
        self.edits.extend(edits);
        self
    }
}

/// `8080`, `8080 and 9090`, `8080, 8081 and 9090`.
fn listed(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests;
