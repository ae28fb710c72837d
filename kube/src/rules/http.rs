//! What a hook by httpGet needs so that the kubelet's call reaches boathook and is admitted.

use std::net::{IpAddr, Ipv4Addr};

use boathook::{config::is_near, server::admission::Source};
use k8s_openapi::{
    api::core::v1::{HTTPGetAction, HTTPHeader},
    apimachinery::pkg::util::intstr::IntOrString,
};
use serde_json::{Value, json};

use crate::{
    facts::{PLACEHOLDER_ADDRESS, Token, Way},
    finding::{Edit, Finding, Rule, Severity},
    path::Path,
    pod::{Agent, PORT, Pod, Port},
};

pub const HOST_NETWORK: Rule = Rule {
    name: "host-network-without-host",
    about: "with hostNetwork a hook by httpGet needs `host`: the kubelet finds no address of the pod otherwise",
};
pub const CALLERS: Rule = Rule {
    name: "caller-not-admitted",
    about: "the kubelet's calls come from an address that allow-from does not admit",
};
pub const PORT_DIFFERS: Rule = Rule {
    name: "port-differs",
    about: "a port that is declared or asked is not where boathook, or the application, listens",
};
pub const PORT_TAKEN: Rule =
    Rule { name: "port-taken", about: "two listeners share one network, and one port or one socket's name" };

/// One of the two hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// `postStart`
    pub key: &'static str,
    /// `post-start`
    pub name: &'static str,
    /// `/started`
    pub path: &'static str,
    /// `started`
    pub subcommand: &'static str,
    pub rule: Rule,
}

/// Where the hook's calls end, as far as it can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// At boathook, or it was meant for it.
    Boathook,
    /// At another server.
    Another,
}

/// Whom a call is meant for: boathook has the port, or one of the hooks' paths.
pub fn aim(pod: &Pod<'_>, get: &HTTPGetAction) -> Aim {
    let plain = path_of(get).trim_end_matches('/').to_ascii_lowercase();
    let has_path = ["/started", "/shutdown"].contains(&plain.as_str());
    let own = pod.listen_port().filter(|_| pod.knows_configuration()).unwrap_or(PORT);
    let has_port = pod.port(&get.port) == Port::Number(own.into());
    if has_path || has_port { Aim::Boathook } else { Aim::Another }
}

/// The path without a query, with its slash: Go writes one before a path that has none.
pub fn path_of(get: &HTTPGetAction) -> String {
    let path = get.path.as_deref().unwrap_or_default();
    let path = path.split(['?', '#']).next().unwrap_or_default();
    if path.starts_with('/') { path.into() } else { format!("/{path}") }
}

/// The port as it is best written: by the name that this container gives it.
pub fn own_port(pod: &Pod<'_>) -> Value {
    let port = pod.listen_port().unwrap_or(PORT);
    pod.name_of_port(port).map_or_else(|| port.into(), Into::into)
}

/// The action as it should be, for where there is none.
pub fn action(pod: &Pod<'_>, path: &str) -> Value {
    let mut action = json!({"path": path, "port": own_port(pod)});
    if pod.uses_host_network() {
        action["host"] = host(pod).into();
    }
    if pod.facts.token.is_some() {
        action["httpHeaders"] = json!([header(pod)]);
    }
    action
}

/// The address at which a hook reaches boathook on the node's network.
fn host(pod: &Pod<'_>) -> String {
    match pod.facts.listen.map(|listen| listen.ip()) {
        Some(address) if !address.is_unspecified() => address.to_string(),
        _ => Ipv4Addr::LOCALHOST.to_string(),
    }
}

fn header(pod: &Pod<'_>) -> Value {
    json!({"name": "Authorization", "value": format!("Bearer {}", token(pod).unwrap_or("replace-me"))})
}

/// The token, where it stands in the container's env as plain text, which whoever reads the pod sees anyway.
fn token<'p>(pod: &'p Pod<'_>) -> Option<&'p str> {
    match &pod.facts.token {
        Some(Token::Env(name)) => pod.environment.value(name).map(str::trim).filter(|token| !token.is_empty()),
        _ => None,
    }
}

/// Everything about a hook's call that keeps it from boathook.
pub fn check(pod: &Pod<'_>, hook: Hook, get: &HTTPGetAction, at: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    if pod.facts.listen.is_none() {
        let command = json!({"exec": {"command": [super::entry::program(pod), hook.subcommand]}});
        let finding = pod.finding(
            hook.rule,
            Severity::Error,
            at.clone(),
            format!("{} is called by httpGet, and the configuration says listen = \"off\"", hook.key),
            "nobody listens, and a refused connection is not retried",
            "call it by exec, or let boathook listen",
        );
        let handler = Path(at.0[..at.0.len() - 1].to_vec());
        return vec![finding.with([Edit::Set(handler, command)])];
    }
    findings.extend(check_port(pod, hook, get, at));
    findings.extend(check_path(pod, hook, get, at));
    findings.extend(check_scheme(pod, hook, get, at));
    findings.extend(check_host(pod, hook, get, at));
    findings.extend(check_header(pod, hook, get, at));
    findings
}

fn check_port(pod: &Pod<'_>, hook: Hook, get: &HTTPGetAction, at: &Path) -> Option<Finding> {
    let listen = pod.listen_port()?;
    let set = Edit::Set(at.at("port"), own_port(pod));
    let why = "a connection to a port where nobody listens is refused, a refused connection is not retried, and the hook counts \
               as failed";
    match pod.port(&get.port) {
        Port::Number(number) if number == i64::from(listen) || !pod.knows_configuration() => None,
        // The port's own declaration is what is wrong, and is told there.
        Port::Number(_) if is_declared_wrong(pod, &get.port) => None,
        Port::Number(number) => {
            let finding = pod.finding(
                hook.rule,
                Severity::Error,
                at.at("port"),
                format!("{} calls port {}, and boathook listens on {listen}", hook.key, shown(&get.port, number)),
                why,
                format!("write port: {}", show_port(&own_port(pod))),
            );
            Some(finding.with([set]))
        }
        Port::Unknown(name) => Some(
            pod.finding(
                hook.rule,
                Severity::Error,
                at.at("port"),
                format!("{} calls the port called `{name}`, and this container has none", hook.key),
                "the kubelet looks a port's name up among the ports of the same container, and fails the hook when it is not there",
                format!("write port: {}", show_port(&own_port(pod))),
            )
            .with(pod.knows_configuration().then_some(set)),
        ),
    }
}

/// `4666`, or `hooks (4666)`.
fn shown(port: &IntOrString, number: i64) -> String {
    match port {
        IntOrString::Int(_) => number.to_string(),
        IntOrString::String(name) => format!("{name} ({number})"),
    }
}

fn show_port(port: &Value) -> String {
    port.as_str().map_or_else(|| port.to_string(), Into::into)
}

/// The name is boathook's, and the number that the container gives it is neither boathook's nor the application's.
fn is_declared_wrong(pod: &Pod<'_>, port: &IntOrString) -> bool {
    let IntOrString::String(name) = port else { return false };
    let Some(listen) = pod.listen_port() else { return false };
    let mut ports = pod.container.ports.iter().flatten();
    let has_other = pod.container.ports.iter().flatten().any(|port| port.container_port == i32::from(listen));
    ports.any(|port| {
        let number = u16::try_from(port.container_port).unwrap_or(0);
        let applications = pod.facts.app_ports.contains(&number)
            || pod.facts.drain_ports.contains(&number)
            || ["http", "https", "web", "grpc", "main"].contains(&name.as_str());
        port.name.as_deref() == Some(name) && number != listen && !applications && !has_other
    })
}

fn check_path(pod: &Pod<'_>, hook: Hook, get: &HTTPGetAction, at: &Path) -> Option<Finding> {
    let path = path_of(get);
    if path == hook.path {
        return None;
    }
    let where_it_stands = if get.path.is_some() { at.at("path") } else { at.clone() };
    let finding = pod.finding(
        hook.rule,
        Severity::Error,
        where_it_stands,
        format!("{} calls {path}, and boathook's {} is {}", hook.key, hook.name, hook.path),
        "the kubelet never looks at the status: a 404 counts as success, without any event, and the hook is not run",
        format!("write path: {}", hook.path),
    );
    Some(finding.with([Edit::Set(at.at("path"), hook.path.into())]))
}

fn check_scheme(pod: &Pod<'_>, hook: Hook, get: &HTTPGetAction, at: &Path) -> Option<Finding> {
    let scheme = get.scheme.as_deref().filter(|scheme| !scheme.is_empty() && *scheme != "HTTP")?;
    let (severity, why) = match scheme {
        "HTTPS" if pod.facts.token.is_some() => (
            Severity::Error,
            "boathook answers in plain HTTP; the kubelet then falls back to HTTP without the Authorization header, and without \
             its token the call is refused",
        ),
        "HTTPS" => (
            Severity::Warning,
            "boathook answers in plain HTTP; the kubelet notices it, says so in an event and asks once more without TLS, which \
             older ones (before 1.27) do not",
        ),
        _ => (Severity::Error, "Kubernetes takes only HTTP and HTTPS here, and refuses the pod"),
    };
    let finding = pod.finding(
        hook.rule,
        severity,
        at.at("scheme"),
        format!("{} calls by {scheme}", hook.key),
        why,
        "take the line out, or write scheme: HTTP",
    );
    Some(finding.with([Edit::Set(at.at("scheme"), "HTTP".into())]))
}

fn check_host(pod: &Pod<'_>, hook: Hook, get: &HTTPGetAction, at: &Path) -> Option<Finding> {
    let host_name = get.host.as_deref().filter(|host| !host.is_empty());
    match (pod.uses_host_network(), host_name) {
        (true, None) => {
            let host = host(pod);
            let finding = pod.finding(
                HOST_NETWORK,
                Severity::Error,
                at.clone(),
                format!("the pod uses hostNetwork, and {} has no host", hook.key),
                "without `host` the kubelet asks the runtime for the pod's address, and a pod on the node's network has none \
                 there: the hook fails (\"failed to find networking container\") and nothing is called",
                format!("write host: {host}"),
            );
            Some(finding.with([Edit::Set(at.at("host"), host.into())]))
        }
        (false, Some(host)) => {
            let is_loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
            if !is_loopback {
                // A name may lead back to the pod; nobody can know.
                return None;
            }
            let finding = pod.finding(
                hook.rule,
                Severity::Error,
                at.at("host"),
                format!("{} calls {host}", hook.key),
                "the kubelet makes the call from the node: its loopback is the node's own, and the pod is not there unless it \
                 uses hostNetwork",
                "take the line out: without `host` the kubelet calls the pod's own address",
            );
            Some(finding.with([Edit::Remove(at.at("host"))]))
        }
        _ => None,
    }
}

fn check_header(pod: &Pod<'_>, hook: Hook, get: &HTTPGetAction, at: &Path) -> Option<Finding> {
    let headers = get.http_headers.as_deref().unwrap_or_default();
    if pod.facts.token.is_none() || !pod.knows_configuration() {
        return None;
    }
    let why = "the kubelet sends what stands in httpHeaders and nothing else; boathook refuses a call without its token by \
               closing the connection, because the kubelet takes every answer for success";
    let is_header = |header: &&HTTPHeader| header.name.eq_ignore_ascii_case("Authorization");
    let list = at.at("httpHeaders");
    let Some(index) = headers.iter().position(|header| is_header(&header)) else {
        // Written in another way, such as `Authorisation`, or with a name of somebody's own.
        let meant = headers.iter().position(|header| {
            is_near(&header.name.to_ascii_lowercase(), "authorization")
                || header.value.to_ascii_lowercase().starts_with("bearer ")
        });
        let (path, what, edit) = match meant {
            Some(index) => {
                let path = list.at(index).at("name");
                let what = format!("{} sends the token as `{}`", hook.key, headers[index].name);
                (path.clone(), what, Edit::Set(path, "Authorization".into()))
            }
            None => {
                let what = format!("{} sends no token, and the configuration asks for one", hook.key);
                (at.clone(), what, Edit::Append(list, header(pod)))
            }
        };
        let fix = "write httpHeaders: [{name: Authorization, value: Bearer …}]";
        return Some(pod.finding(hook.rule, Severity::Error, path, what, why, fix).with([edit]));
    };
    let value = headers[index].value.as_str();
    let path = list.at(index).at("value");
    let (scheme, given) = value.split_once(' ').unwrap_or(("", value));
    let given = given.trim();
    let correct = |given: &str| Edit::Set(path.clone(), format!("Bearer {given}").into());
    let right = token(pod);
    let (what, edits) = if value.chars().any(char::is_control) {
        let what = format!("{} sends a header with a line end in it, which cannot be sent", hook.key);
        (what, vec![Edit::Set(path.clone(), value.trim().into())])
    } else if value.contains("$(") {
        let what =
            format!("{} sends a variable's name instead of the token: the kubelet expands none in headers", hook.key);
        (what, right.map(correct).into_iter().collect())
    } else if scheme.eq_ignore_ascii_case("Bearer") {
        if given.is_empty() {
            (format!("{} sends an empty token", hook.key), right.map(correct).into_iter().collect())
        } else if right.is_some_and(|right| right != given) {
            let name = match &pod.facts.token {
                Some(Token::Env(name)) => name.as_str(),
                _ => "the configuration",
            };
            (
                format!("{} sends another token than the one in {name}", hook.key),
                right.map(correct).into_iter().collect(),
            )
        } else {
            return None;
        }
    } else if scheme.is_empty() && !given.is_empty() {
        (
            format!("{} sends the token alone, without the word Bearer before it", hook.key),
            vec![correct(right.unwrap_or(given))],
        )
    } else if scheme.is_empty() {
        (format!("{} sends an empty Authorization header", hook.key), right.map(correct).into_iter().collect())
    } else if is_near(&scheme.to_ascii_lowercase(), "bearer") {
        (format!("{} sends the token as `{scheme}` instead of Bearer", hook.key), vec![correct(right.unwrap_or(given))])
    } else {
        (
            format!("{} sends `{scheme}` authentication, and boathook takes Bearer", hook.key),
            right.map(correct).into_iter().collect(),
        )
    };
    Some(
        pod.finding(hook.rule, Severity::Error, path.clone(), what, why, "write value: Bearer and the token")
            .with(edits),
    )
}

/// Where boathook's own port is declared, and what else listens there.
pub fn declared_port(pod: &Pod<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Some(listen) = pod.facts.listen.filter(|_| pod.knows_configuration()) else { return findings };
    let number = listen.port();
    let listens = matches!(pod.way, Way::Run | Way::Serve);
    let hooks = super::hooks::by_http(pod);
    let probes = pod.probes().filter_map(|(key, probe)| Some((key, probe.http_get.as_ref()?)));
    let probes: Vec<_> = probes.filter(|(_, get)| super::probes::is_own_page(&path_of(get))).collect();
    let asked = hooks.iter().map(|(_, get)| *get).chain(probes.iter().map(|(_, get)| *get));
    let wrong: Vec<&IntOrString> = asked.map(|get| &get.port).filter(|port| is_declared_wrong(pod, port)).collect();
    if let Some(IntOrString::String(name)) = wrong.first() {
        let index = pod.container.ports.iter().flatten().position(|port| port.name.as_deref() == Some(name));
        if let Some(index) = index {
            let path = pod.at("ports").at(index).at("containerPort");
            let given = pod.container.ports.iter().flatten().nth(index).map_or(0, |port| port.container_port);
            let finding = pod.finding(
                PORT_DIFFERS,
                Severity::Error,
                path.clone(),
                format!("the port called `{name}` is {given}, and boathook listens on {number}"),
                "the kubelet takes a named port's number from here: hooks and probes that use the name are refused",
                format!("write containerPort: {number}"),
            );
            findings.push(finding.with([Edit::Set(path, number.into())]));
        }
    }
    if listens && listen.ip().is_loopback() && !pod.uses_host_network() && pod.agent() != Agent::None {
        let hook = hooks
            .iter()
            .find(|(key, _)| *key == "preStop")
            .or(hooks.first())
            .map(|(key, _)| format!("lifecycle.{key}.httpGet"));
        let probe = probes.first().map(|(key, _)| format!("{key}.httpGet"));
        if let Some(keys) = hook.or(probe) {
            findings.push(pod.finding(
                PORT_DIFFERS,
                Severity::Error,
                pod.at(&keys),
                format!("boathook listens on {listen}, which the kubelet does not reach"),
                "the kubelet calls the pod's own address from the node; a listener on loopback is only reached from within the pod",
                format!("write listen = \"0.0.0.0:{number}\" with a token or allow-from, or call the hooks by exec"),
            ));
        }
    }
    for other in pod.neighbours.iter().filter(|_| listens) {
        let name = &other.name;
        if other.port == Some(number) {
            findings.push(pod.finding(
                PORT_TAKEN,
                Severity::Error,
                pod.container_path.clone(),
                format!("boathook in this container listens on {number}, and so does the one in {name}"),
                "all containers of a pod share one network: the second that binds the port fails, and its hooks call the first",
                "give each its own port: listen = \"0.0.0.0:4666\" in a configuration of its own, and that port in its hooks and probes",
            ));
        }
    }
    let is_declared = pod.container.ports.iter().flatten().any(|port| port.container_port == i32::from(number));
    if listens && pod.uses_host_network() && !is_declared && pod.replicas().is_some_and(|replicas| replicas > 1) {
        let port = json!({"name": "hooks", "containerPort": number});
        let has_name = pod.container.ports.iter().flatten().any(|port| port.name.as_deref() == Some("hooks"));
        let finding = pod.finding(
            PORT_TAKEN,
            Severity::Warning,
            pod.spec_at("hostNetwork"),
            format!("several pods may come to one node, and boathook's port {number} is not among the container's ports"),
            "with hostNetwork all pods of a node share its ports; the scheduler keeps those apart that declare the same one",
            format!("add {{name: hooks, containerPort: {number}}} to the container's ports"),
        );
        findings.push(finding.with((!has_name).then(|| Edit::Append(pod.at("ports"), port))));
    }
    findings
}

/// Where the kubelet's calls come from, against `allow-from`.
pub fn callers(pod: &Pod<'_>) -> Vec<Finding> {
    let facts = &pod.facts;
    let hooks = super::hooks::by_http(pod);
    let Some((key, get)) = hooks.first().filter(|_| facts.allow_from && pod.knows_configuration()) else {
        return Vec::new();
    };
    let at = pod.at(&format!("lifecycle.{key}.httpGet"));
    let mut findings = Vec::new();
    let admits = |address: IpAddr| {
        facts.callers.iter().any(|source| matches!(source, Source::Network(network) if network.contains(&address)))
    };
    if pod.uses_host_network() {
        let host = get.host.as_deref().unwrap_or_default();
        let local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        let address =
            if host.contains(':') { IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]) } else { Ipv4Addr::LOCALHOST.into() };
        let only_gateway = facts.callers.iter().all(|source| *source == Source::Gateway);
        if local && !admits(address) {
            findings.push(pod.finding(
                CALLERS,
                Severity::Error,
                at,
                format!("{key} calls {host}, and allow-from does not admit {address}"),
                "on the node's network the call comes from the address that it goes to; boathook closes the connection of a caller \
                 that is not admitted, and the hook fails",
                format!("add \"{address}\" to allow-from, or use a token"),
            ));
        } else if !local && only_gateway {
            findings.push(pod.finding(
                CALLERS,
                Severity::Error,
                at,
                "the pod uses hostNetwork, and allow-from admits only the gateway",
                "on the node's network the default route's gateway is a router, and the kubelet's calls come from the node itself",
                "write allow-from = [\"127.0.0.1\"] with host: 127.0.0.1 in the hooks, or use a token",
            ));
        }
        return findings;
    }
    // The node's address comes from the downward API; another field is another address.
    let by_address = PLACEHOLDER_ADDRESS.parse().is_ok_and(admits);
    for variable in facts.variables.iter().filter(|_| by_address) {
        let known = pod.environment.get(&variable.name);
        let Some((known, source)) = known.and_then(|known| Some((known, known.source.as_ref()?))) else { continue };
        let field = source.field_ref.as_ref().map(|field| field.field_path.as_str());
        let (Some(field), Some(index)) = (field, known.index) else { continue };
        if matches!(field, "status.podIP" | "status.podIPs") {
            let path = pod.at("env").at(index).down("valueFrom.fieldRef.fieldPath");
            let finding = pod.finding(
                CALLERS,
                Severity::Error,
                path.clone(),
                format!("allow-from takes its address from `{}`, which is the pod's own", variable.name),
                "the kubelet's calls come from the node; boathook closes the connection of a caller that is not admitted, and the \
                 hook fails",
                "write fieldPath: status.hostIP",
            );
            findings.push(finding.with([Edit::Set(path, "status.hostIP".into())]));
        }
    }
    findings
}

/// The names of control sockets belong to the network, which the pod's containers share.
pub fn control_socket(pod: &Pod<'_>) -> Vec<Finding> {
    let Some(own) = pod.environment.value("BOATHOOK_SOCKET") else { return Vec::new() };
    let Some(other) = pod.neighbours.iter().find(|other| other.socket.as_deref() == Some(own)) else {
        return Vec::new();
    };
    let index = pod.environment.get("BOATHOOK_SOCKET").and_then(|variable| variable.index);
    vec![pod.finding(
        PORT_TAKEN,
        Severity::Error,
        index.map_or_else(|| pod.container_path.clone(), |index| pod.at("env").at(index)),
        format!("BOATHOOK_SOCKET is {own}, as in {}", other.name),
        "it names a socket in the abstract namespace of the network, which all containers of a pod share: hooks and probes by \
         exec find the other container's agent",
        "take the variable out: by default each container has a name of its own",
    )]
}
