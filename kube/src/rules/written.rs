//! What Kubernetes would refuse or drop, and what could not be looked at.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::{
    facts::Way,
    finding::{Edit, Finding, Rule, Severity},
    pod::{Configuration, Pod},
};

pub const WRONG_TYPE: Rule = Rule { name: "wrong-type", about: "a value of a type that Kubernetes refuses" };
pub const UNKNOWN_FIELD: Rule =
    Rule { name: "unknown-field", about: "a misspelt key, which Kubernetes refuses or drops without a word" };
pub const NOT_LINUX: Rule = Rule { name: "not-linux", about: "the pod is for Windows, and boathook is for Linux" };
pub const BOATHOOK_ASSUMED: Rule = Rule {
    name: "boathook-assumed",
    about: "nothing in the container shows boathook, and it was taken for the one that is meant",
};
pub const CONFIG_NOT_READ: Rule = Rule {
    name: "config-not-read",
    about: "the container's configuration is not among what was read: only what does not depend on it was looked at",
};

pub fn wrong_types(pod: &Pod<'_>) -> Vec<Finding> {
    if !pod.is_first {
        return Vec::new();
    }
    let mut findings: Vec<Finding> = pod
        .wrong
        .iter()
        .map(|wrong| {
            let fix = match &wrong.instead {
                Some(value) => format!("write {value}"),
                None => "see `kubectl explain` for what belongs there".into(),
            };
            let finding = pod.finding(
                WRONG_TYPE,
                Severity::Error,
                wrong.path.clone(),
                format!("the value {}", wrong.what),
                "the API server refuses the whole object",
                fix,
            );
            finding.with(wrong.instead.clone().map(|value| Edit::Set(wrong.path.clone(), value)))
        })
        .collect();
    findings.extend(numbers_as_names(pod));
    findings
}

/// A port in quotes is a name, and a name needs a letter (IANA service names).
fn numbers_as_names(pod: &Pod<'_>) -> Vec<Finding> {
    let lifecycle = pod.container.lifecycle.iter();
    let hooks =
        lifecycle.flat_map(|own| [("lifecycle.postStart", &own.post_start), ("lifecycle.preStop", &own.pre_stop)]);
    let hooks = hooks.filter_map(|(key, own)| Some((key, own.as_ref()?.http_get.as_ref()?)));
    let probes = pod.probes().filter_map(|(key, probe)| Some((key, probe.http_get.as_ref()?)));
    hooks
        .chain(probes)
        .filter_map(|(key, get)| {
            let IntOrString::String(name) = &get.port else { return None };
            let number: u16 = name.parse().ok()?;
            let path = pod.at(key).down("httpGet.port");
            let finding = pod.finding(
                WRONG_TYPE,
                Severity::Error,
                path.clone(),
                format!("the port is the text \"{name}\""),
                "a port as text is a name, a name has at least one letter, and the API server refuses the whole object",
                format!("write {number} without quotes"),
            );
            Some(finding.with([Edit::Set(path, number.into())]))
        })
        .collect()
}

pub fn misspelt_keys(pod: &Pod<'_>) -> Vec<Finding> {
    pod.misspelt
        .iter()
        .map(|misspelt| {
            let path = misspelt.path.at(misspelt.key.as_str());
            let is_free = pod.value_at(&misspelt.path.at(misspelt.meant)).is_none();
            let edits = pod.value_at(&path).filter(|_| is_free).map(|value| {
                [Edit::Set(misspelt.path.at(misspelt.meant), value.clone()), Edit::Remove(path.clone())]
            });
            let finding = pod.finding(
                UNKNOWN_FIELD,
                Severity::Error,
                path.clone(),
                format!("there is no field `{}`", misspelt.key),
                "kubectl refuses it, and with --validate=false, or from an older client, the API server drops it without a word",
                format!("write {}", misspelt.meant),
            );
            finding.with(edits.into_iter().flatten())
        })
        .collect()
}

pub fn not_linux(pod: &Pod<'_>) -> Vec<Finding> {
    let by_os = pod.spec.os.as_ref().is_some_and(|os| os.name.eq_ignore_ascii_case("windows"));
    let key = "kubernetes.io/os";
    let by_selector =
        pod.spec.node_selector.as_ref().and_then(|labels| labels.get(key)).is_some_and(|os| os == "windows");
    if !by_os && !by_selector {
        return Vec::new();
    }
    let path = if by_os { pod.spec_at("os.name") } else { pod.spec_at("nodeSelector").at(key) };
    vec![pod.finding(
        NOT_LINUX,
        Severity::Error,
        path,
        "the pod is for Windows",
        "boathook is a Linux program",
        "take boathook out of this pod",
    )]
}

pub fn assumptions(pod: &Pod<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if pod.is_assumed {
        findings.push(pod.finding(
            BOATHOOK_ASSUMED,
            Severity::Note,
            pod.container_path.clone(),
            format!(
                "nothing in the container {} shows boathook: it is taken for the one that is meant",
                pod.container.name
            ),
            "boathook shows by its command, its hooks, its probes, a mount at /etc/boathook or a variable BOATHOOK_…",
            "nothing, where the image has it; --container names another",
        ));
    }
    if let Configuration::Unread(from) = &pod.configuration
        && pod.way != Way::Step
    {
        findings.push(pod.finding(
            CONFIG_NOT_READ,
            Severity::Note,
            pod.container_path.clone(),
            format!("the configuration comes from {from}, which is not among what was read"),
            "grace period, port, token and volumes can only be held against a configuration",
            "give it with --config, or give the ConfigMap's manifest as well",
        ));
    }
    findings
}
