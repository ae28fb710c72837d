//! Each rule with what it finds and with near misses that must stay silent: one good manifest, changed in one place.

use std::path::Path as File;

use serde_json::Value;

use super::*;
use crate::{document, pod};

const CONFIG: &str = r#"
grace-period = "30s"
[server]
token-env = "BOATHOOK_TOKEN"
[app]
ports = [8080]
[post-start]
gate = "readiness"
[[post-start.step]]
wait = { http = "http://127.0.0.1:8080/" }
timeout = "20s"
[[pre-stop.step]]
drain = { settle = "5s" }
timeout = "20s"
"#;

const MANIFEST: &str = r#"kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  template:
    spec:
      terminationGracePeriodSeconds: 30
      containers:
        - name: web
          image: my-web:1
          command: ["/boathook", "run", "--", "nginx"]
          env: [{name: BOATHOOK_TOKEN, value: abc}]
          ports: [{name: http, containerPort: 8080}, {name: hooks, containerPort: 4665}]
          lifecycle:
            postStart:
              httpGet: {path: /started, port: hooks, httpHeaders: [{name: Authorization, value: Bearer abc}]}
            preStop:
              httpGet: {path: /shutdown, port: hooks, httpHeaders: [{name: Authorization, value: Bearer abc}]}
          readinessProbe:
            httpGet: {path: /ready, port: hooks}
          livenessProbe:
            httpGet: {path: /live, port: hooks}
          volumeMounts: [{name: config, mountPath: /etc/boathook}]
      volumes: [{name: config, configMap: {name: boathook}}]
"#;

/// By exec, without an agent.
const EXEC: &str = r#"kind: StatefulSet
metadata: {name: db}
spec:
  template:
    spec:
      terminationGracePeriodSeconds: 30
      containers:
        - name: db
          image: my-db:1
          command: ["/db"]
          lifecycle:
            postStart: {exec: {command: ["/boathook", "started"]}}
            preStop: {exec: {command: ["/boathook", "shutdown"]}}
          readinessProbe: {tcpSocket: {port: 8080}}
          volumeMounts: [{name: config, mountPath: /etc/boathook}]
      volumes: [{name: config, configMap: {name: boathook}}]
"#;

/// Beside a main process that somebody else starts.
const SERVE: &str = r#"kind: Pod
metadata: {name: legacy}
spec:
  terminationGracePeriodSeconds: 30
  containers:
    - name: legacy
      image: my-legacy:1
      env: [{name: BOATHOOK_TOKEN, valueFrom: {secretKeyRef: {name: s, key: t}}}]
      lifecycle:
        postStart: {exec: {command: ["/boathook", "serve", "--background", "--started"]}}
        preStop: {httpGet: {path: /shutdown, port: 4665, httpHeaders: [{name: Authorization, value: Bearer x}]}}
      readinessProbe: {httpGet: {path: /ready, port: 4665}}
      volumeMounts: [{name: config, mountPath: /etc/boathook}]
  volumes: [{name: config, configMap: {name: boathook}}]
"#;

/// One step by hand.
const STEP: &str = r#"kind: DaemonSet
metadata: {name: agent}
spec:
  template:
    spec:
      terminationGracePeriodSeconds: 30
      containers:
        - name: agent
          image: my-agent:1
          lifecycle:
            preStop: {exec: {command: ["/boathook", "step", "drain", "--port", "8080", "--timeout", "25s"]}}
"#;

/// The texts with these parts replaced; each has to be there once at least.
fn changed(text: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(text.to_owned(), |text, (old, new)| {
        assert!(text.contains(old), "`{old}` is not in\n{text}");
        text.replace(old, new)
    })
}

fn with_config(manifest: &str, config: &str) -> String {
    let indented: String = config.lines().map(|line| format!("    {line}\n")).collect();
    format!("{manifest}---\nkind: ConfigMap\nmetadata: {{name: boathook}}\ndata:\n  boathook.toml: |\n{indented}")
}

fn judged(text: &str) -> Vec<Finding> {
    let documents = document::read("t.yaml", 0, text).unwrap_or_else(|wrong| panic!("{wrong:?}\n{text}"));
    let pods = pod::find(&documents, None, None).unwrap_or_else(|fatal| panic!("{fatal:?}\n{text}"));
    pods.iter().flat_map(judge).collect()
}

/// `error pre-stop-does-not-match containers[0].lifecycle.preStop.httpGet.path`
fn short(finding: &Finding) -> String {
    let path = finding.path.to_string();
    let path = path.rsplit_once("template.spec.").map_or(path.as_str(), |(_, rest)| rest);
    format!("{} {} {path}", format!("{:?}", finding.severity).to_lowercase(), finding.rule.name)
}

#[track_caller]
fn expect(manifest: &str, changes: &[(&str, &str)], config_changes: &[(&str, &str)], wanted: &[&str]) {
    let text = with_config(&changed(manifest, changes), &changed(CONFIG, config_changes));
    let found: Vec<String> = judged(&text).iter().map(short).collect();
    assert_eq!(found, wanted, "{text}");
}

/// No changes of the configuration.
const SAME: &[(&str, &str)] = &[];
/// The configuration of one that listens nowhere and asks for no token.
const OFF: &[(&str, &str)] =
    &[("token-env = \"BOATHOOK_TOKEN\"", "listen = \"off\""), ("gate = \"readiness\"", "deadline = \"25s\"")];
/// Post-start in the hook.
const IN_HOOK: &[(&str, &str)] = &[("gate = \"readiness\"", "gate = \"hook\"")];

#[test]
fn what_is_right_gives_nothing() {
    expect(MANIFEST, &[], SAME, &[]);
    expect(EXEC, &[], OFF, &[]);
    expect(SERVE, &[], IN_HOOK, &[]);
    assert_eq!(judged(STEP), []);
    // Pods without boathook, and one that only has the same words.
    for other in [
        "kind: Pod\nspec: {containers: [{name: a, lifecycle: {preStop: {sleep: {seconds: 5}}}}]}",
        "kind: Pod\nspec: {containers: [{name: a, lifecycle: {preStop: {httpGet: {path: /shutdown, port: 8090}}}}]}",
        "kind: Pod\nspec: {containers: [{name: a, args: [/opt/boathook], terminationGracePeriodSeconds: x}]}",
        "kind: CustomResourceDefinition\nspec: {versions: [{schema: {properties: {containers: {type: array}}}}]}",
    ] {
        assert_eq!(judged(other), [], "{other}");
    }
}

#[test]
fn the_grace_period() {
    let seconds = |seconds: &'static str| [("PeriodSeconds: 30", seconds)];
    let at = "terminationGracePeriodSeconds";
    // 20 s of drain, 5 s for the process and a second.
    expect(MANIFEST, &seconds("PeriodSeconds: 25"), SAME, &[&format!("error grace-period-too-short {at}")]);
    expect(MANIFEST, &seconds("PeriodSeconds: 26"), SAME, &[&format!("warning grace-period-differs {at}")]);
    expect(MANIFEST, &seconds("PeriodSeconds: 40"), SAME, &[&format!("note grace-period-differs {at}")]);
    let unsaid = &[("grace-period = \"30s\"", "")];
    expect(MANIFEST, &seconds("PeriodSeconds: 40"), unsaid, &[&format!("note grace-period-differs {at}")]);
    expect(MANIFEST, &[], unsaid, &[]);
    expect(MANIFEST, &[("terminationGracePeriodSeconds: 30", "restartPolicy: Always")], SAME, &[]);
    let long = &[
        ("grace-period = \"30s\"", "grace-period = \"60s\""),
        ("settle = \"5s\" }\ntimeout = \"20s\"", "settle = \"5s\" }"),
    ];
    let unwritten = &[("terminationGracePeriodSeconds: 30", "restartPolicy: Always")];
    expect(MANIFEST, unwritten, long, &["error grace-period-too-short spec.template.spec"]);
    // Post-stop is only run by `run`.
    let post_stop = &[("[app]", "[post-stop]\ndeadline = \"3s\"\n[[post-stop.step]]\nsleep = \"2s\"\n[app]")];
    expect(MANIFEST, &seconds("PeriodSeconds: 28"), post_stop, &[&format!("error grace-period-too-short {at}")]);
    let off: Vec<(&str, &str)> = OFF.iter().chain(post_stop).copied().collect();
    expect(EXEC, &seconds("PeriodSeconds: 28"), &off, &[&format!("warning grace-period-differs {at}")]);
    // By hand: the step's own time and some for the application.
    for (timeout, found) in [
        ("25s", vec![]),
        ("26s", vec![format!("warning grace-period-too-short {at}")]),
        ("30s", vec![format!("error grace-period-too-short {at}")]),
    ] {
        let found_now: Vec<String> = judged(&changed(STEP, &[("25s", timeout)])).iter().map(short).collect();
        assert_eq!(found_now, found, "{timeout}");
    }
    let fixed = judged(&with_config(&changed(MANIFEST, &seconds("PeriodSeconds: 10")), CONFIG));
    assert_eq!(fixed[0].edits, [Edit::Set(Path::default().down(&format!("spec.template.spec.{at}")), 30.into())]);
}

#[test]
fn the_signal_and_the_length_of_the_start() {
    let signal = |signal: &'static str| [("lifecycle:", signal)];
    let usr1 = "lifecycle:\n            stopSignal: SIGUSR1";
    expect(MANIFEST, &signal(usr1), SAME, &["warning stop-signal-differs containers[0].lifecycle.stopSignal"]);
    expect(MANIFEST, &signal("lifecycle:\n            stopSignal: SIGQUIT"), SAME, &[]);
    expect(MANIFEST, &signal(usr1), &[("[app]", "[app]\nstop-on = [\"USR1\"]")], &[]);
    expect(EXEC, &signal(usr1), OFF, &[]);
    let slow = |timeout: &'static str| {
        [("timeout = \"20s\"\n[[pre-stop", timeout), ("gate = \"readiness\"", "gate = \"hook\"\ndeadline = \"5m\"")]
    };
    expect(
        MANIFEST,
        &[],
        &slow("timeout = \"61s\"\n[[pre-stop"),
        &["warning start-deadline containers[0].lifecycle.postStart"],
    );
    expect(MANIFEST, &[], &slow("timeout = \"60s\"\n[[pre-stop"), &[]);
    let progress = |seconds: &'static str| [("  replicas: 3", seconds)];
    expect(
        MANIFEST,
        &progress("  progressDeadlineSeconds: 20"),
        SAME,
        &["warning start-deadline spec.progressDeadlineSeconds"],
    );
    expect(MANIFEST, &progress("  progressDeadlineSeconds: 21"), SAME, &[]);
}

#[test]
fn who_starts_boathook() {
    let command = |command: &'static str| [("[\"/boathook\", \"run\", \"--\", \"nginx\"]", command)];
    let at = "entrypoint-bypassed containers[0].command";
    expect(MANIFEST, &command("[nginx]"), SAME, &[&format!("error {at}")]);
    expect(MANIFEST, &command("[/docker-entrypoint.sh]"), SAME, &[&format!("note {at}")]);
    expect(MANIFEST, &command("[sh, -c, \"/boathook run -- nginx\"]"), SAME, &[]);
    expect(MANIFEST, &command("[tini, --, /boathook, run, --, nginx]"), SAME, &[]);
    expect(MANIFEST, &command("[/boathook, run]"), SAME, &[&format!("error {at}")]);
    expect(MANIFEST, &command("[]"), SAME, &[]);
    expect(
        MANIFEST,
        &command("[sh, -c, \"migrate && /boathook run -- nginx\"]"),
        SAME,
        &[&format!("warning {at}"), "warning post-start-nothing-listens containers[0].lifecycle.postStart.httpGet"],
    );
    let install = |path: &'static str| {
        [
            ("      volumes: [", "      volumes: [{name: bin, emptyDir: {}}, "),
            ("volumeMounts: [", "volumeMounts: [{name: bin, mountPath: /opt/b}, "),
            ("command: [\"/boathook\"", path),
            (
                "      containers:",
                "      initContainers: [{name: i, args: [install, /x/y], volumeMounts: [{name: bin, mountPath: /x}]}]\n      containers:",
            ),
        ]
    };
    expect(MANIFEST, &install("command: [\"/opt/b/y/boathook\""), SAME, &[]);
    expect(MANIFEST, &install("command: [\"/boathook\""), SAME, &["warning binary-not-there containers[0].command"]);
    let shared = &[("      containers:", "      shareProcessNamespace: true\n      containers:")];
    let signals = &[("[app]", "[[pre-stop.step]]\nsignal = \"USR1\"\ntimeout = \"1s\"\n[app]")];
    let off: Vec<(&str, &str)> = OFF.iter().chain(signals).copied().collect();
    expect(EXEC, shared, &off, &["error shared-process-namespace shareProcessNamespace"]);
    expect(EXEC, shared, OFF, &[]);
    expect(MANIFEST, shared, signals, &[]);
}

#[test]
fn pre_stop() {
    let at = "pre-stop-does-not-match containers[0].lifecycle.preStop";
    let path = |path: &'static str| [("path: /shutdown", path)];
    expect(MANIFEST, &path("path: /stop"), SAME, &[&format!("error {at}.httpGet.path")]);
    expect(MANIFEST, &path("path: /shutdown/"), SAME, &[&format!("error {at}.httpGet.path")]);
    expect(MANIFEST, &path("path: shutdown?by=kubelet"), SAME, &[]);
    let http = |action: &'static str| [("path: /shutdown, port: hooks", action)];
    for (action, found) in [
        ("path: /shutdown, port: 4666", vec![format!("error {at}.httpGet.port")]),
        ("path: /shutdown, port: hocks", vec![format!("error {at}.httpGet.port")]),
        ("path: /shutdown, port: http", vec![format!("error {at}.httpGet.port")]),
        ("path: /shutdown, port: 4665", vec![]),
        (
            "path: /shutdown, port: \"4665\"",
            vec!["error wrong-type containers[0].lifecycle.preStop.httpGet.port".into()],
        ),
        ("path: /shutdown, scheme: HTTPS, port: hooks", vec![format!("error {at}.httpGet.scheme")]),
        ("path: /shutdown, scheme: HTTP, port: hooks", vec![]),
        ("path: /shutdown, host: 127.0.0.1, port: hooks", vec![format!("error {at}.httpGet.host")]),
        ("path: /drain, port: http", vec![format!("warning {at}.httpGet")]),
    ] {
        let found: Vec<&str> = found.iter().map(String::as_str).collect();
        expect(MANIFEST, &http(action), SAME, &found);
    }
    // The token, in preStop alone.
    let header = |header: &'static str| {
        [("port: hooks, httpHeaders: [{name: Authorization, value: Bearer abc}]}\n          readiness", header)]
    };
    for (value, found) in [
        ("", vec![format!("error {at}.httpGet")]),
        (", httpHeaders: [{name: authorization, value: bearer abc}]", vec![]),
        (", httpHeaders: [{name: X, value: z}, {name: AUTHORIZATION, value: Bearer  abc}]", vec![]),
        (
            ", httpHeaders: [{name: Authorization, value: abc}]",
            vec![format!("error {at}.httpGet.httpHeaders[0].value")],
        ),
        (
            ", httpHeaders: [{name: Authorization, value: Bearer abd}]",
            vec![format!("error {at}.httpGet.httpHeaders[0].value")],
        ),
        (
            ", httpHeaders: [{name: Authorization, value: Basic YWJj}]",
            vec![format!("error {at}.httpGet.httpHeaders[0].value")],
        ),
        (
            ", httpHeaders: [{name: Authorization, value: Bearer $(BOATHOOK_TOKEN)}]",
            vec![format!("error {at}.httpGet.httpHeaders[0].value")],
        ),
        (
            ", httpHeaders: [{name: Authorization, value: \"Bearer abc\\n\"}]",
            vec![format!("error {at}.httpGet.httpHeaders[0].value")],
        ),
        (
            ", httpHeaders: [{name: X-Token, value: Bearer abc}]",
            vec![format!("error {at}.httpGet.httpHeaders[0].name")],
        ),
    ] {
        let text: &'static str = Box::leak(format!("port: hooks{value}}}\n          readiness").into_boxed_str());
        let found: Vec<&str> = found.iter().map(String::as_str).collect();
        expect(MANIFEST, &header(text), SAME, &found);
    }
    let exec = |words: &'static str| [("[\"/boathook\", \"shutdown\"]", words)];
    for (words, found) in [
        ("[/boathook, started]", vec![format!("error {at}.exec.command")]),
        ("[/boathook, stop]", vec![]),
        ("[/boathook, shutdown, now]", vec![format!("error {at}.exec.command")]),
        ("[sh, -c, \"/boathook shutdown\"]", vec![]),
        ("[sh, -c, \"/boathook shutdown &\"]", vec![format!("error {at}.exec.command")]),
        ("[/boathook, step, sleep, 1s]", vec![format!("error {at}.exec.command")]),
        ("[/db, flush]", vec![format!("error {at}.exec.command")]),
    ] {
        // What is no subcommand at all is somebody else's command.
        let found = if words.contains("stop]") { vec![format!("error {at}.exec.command")] } else { found };
        let found: Vec<&str> = found.iter().map(String::as_str).collect();
        expect(EXEC, &exec(words), OFF, &found);
    }
    // Joins the agent.
    let joins = &[
        ("path: /shutdown, port: hooks, httpHeaders: [{name: Authorization, value: Bearer abc}]", ""),
        ("httpGet: {}", "exec: {command: [/boathook, shutdown]}"),
    ];
    expect(MANIFEST, joins, SAME, &[]);
    expect(
        MANIFEST,
        &[],
        &[("token-env = \"BOATHOOK_TOKEN\"", "listen = \"off\"")],
        &[
            "error post-start-does-not-match containers[0].lifecycle.postStart.httpGet",
            &format!("error {at}.httpGet"),
            "error port-differs containers[0].readinessProbe.httpGet.port",
            "error port-differs containers[0].livenessProbe.httpGet.port",
        ],
    );
}

#[test]
fn a_pre_stop_that_is_missing() {
    let without = &[("            preStop: {exec: {command: [\"/boathook\", \"shutdown\"]}}\n", "")];
    expect(EXEC, without, OFF, &["error pre-stop-missing containers[0].lifecycle"]);
    let nothing: Vec<(&str, &str)> = OFF
        .iter()
        .copied()
        .chain([("[[pre-stop.step]]\ndrain = { settle = \"5s\" }\ntimeout = \"20s\"", "")])
        .collect();
    expect(EXEC, without, &nothing, &[]);
    let line = "        preStop: {httpGet: {path: /shutdown, port: 4665, httpHeaders: [{name: Authorization, value: Bearer x}]}}\n";
    expect(SERVE, &[(line, "")], IN_HOOK, &["error pre-stop-missing spec.containers[0].lifecycle"]);
    let by_signal = "            preStop:\n              httpGet: {path: /shutdown, port: hooks, httpHeaders: [{name: Authorization, value: Bearer abc}]}\n";
    expect(MANIFEST, &[(by_signal, "")], SAME, &["note pre-stop-missing containers[0].lifecycle"]);
}

#[test]
fn sleeps_beside_boathook() {
    let at = "pre-stop-sleep containers[0].lifecycle.preStop";
    let hook = "httpGet: {path: /shutdown, port: hooks, httpHeaders: [{name: Authorization, value: Bearer abc}]}\n          readiness";
    for (own, found) in [
        ("sleep: {seconds: 4}", format!("warning {at}.sleep")),
        ("sleep: {seconds: 5}", format!("error {at}.sleep")),
        ("exec: {command: [sleep, \"4\"]}", format!("warning {at}.exec.command")),
        ("exec: {command: [sh, -c, \"sleep 3s && /boathook shutdown\"]}", format!("warning {at}.exec.command")),
    ] {
        let text: &'static str = Box::leak(format!("{own}\n          readiness").into_boxed_str());
        expect(MANIFEST, &[(hook, text)], SAME, &[&found]);
    }
    let own = "exec: {command: [sh, -c, \"echo sleep; /boathook shutdown\"]}\n          readiness";
    expect(MANIFEST, &[(hook, own)], SAME, &[]);
    expect(EXEC, &[("[\"/boathook\", \"shutdown\"]", "[sleep, \"1\"]")], OFF, &[&format!("error {at}.exec.command")]);
}

#[test]
fn post_start() {
    let at = "post-start-does-not-match containers[0].lifecycle.postStart";
    expect(MANIFEST, &[("path: /started", "path: /shutdown")], SAME, &[&format!("error {at}.httpGet.path")]);
    expect(
        MANIFEST,
        &[("path: /started, port: hooks", "path: /, port: http")],
        SAME,
        &["warning post-start-nothing-listens containers[0].lifecycle.postStart.httpGet"],
    );
    let by_http = &[("exec: {command: [\"/boathook\", \"started\"]}", "httpGet: {path: /started, port: 4665}")];
    expect(EXEC, by_http, OFF, &["error post-start-nothing-listens containers[0].lifecycle.postStart.httpGet"]);
    let missing = &[("            postStart: {exec: {command: [\"/boathook\", \"started\"]}}\n", "")];
    expect(EXEC, missing, OFF, &["error post-start-missing containers[0].lifecycle"]);
    let serve = |words: &'static str| [("[\"/boathook\", \"serve\", \"--background\", \"--started\"]", words)];
    let legacy = "spec.containers[0].lifecycle.postStart";
    expect(
        SERVE,
        &serve("[/boathook, serve]"),
        IN_HOOK,
        &[&format!("error post-start-does-not-match {legacy}.exec.command")],
    );
    expect(
        SERVE,
        &serve("[/boathook, serve, --background]"),
        IN_HOOK,
        &[&format!("error post-start-missing {legacy}")],
    );
    expect(SERVE, &serve("[sh, -c, \"x; /boathook serve --background --started\"]"), IN_HOOK, &[]);
}

#[test]
fn the_nodes_network() {
    let network = ("      containers:", "      hostNetwork: true\n      containers:");
    let at = "containers[0].lifecycle";
    let without = [
        format!("error host-network-without-host {at}.postStart.httpGet"),
        format!("error host-network-without-host {at}.preStop.httpGet"),
    ];
    expect(MANIFEST, &[network], SAME, &[&without[0], &without[1]]);
    let host = ("port: hooks, httpH", "port: hooks, host: 127.0.0.1, httpH");
    expect(MANIFEST, &[network, host], SAME, &[]);
    let not_declared = [network, host, (", {name: hooks, containerPort: 4665}", ""), ("port: hooks", "port: 4665")];
    expect(MANIFEST, &not_declared, SAME, &["warning port-taken hostNetwork"]);
    let callers = |from: &'static str| [("token-env = \"BOATHOOK_TOKEN\"", from)];
    expect(
        MANIFEST,
        &[network, host],
        &callers("allow-from = [\"gateway\"]"),
        &[&format!("error caller-not-admitted {at}.postStart.httpGet")],
    );
    expect(MANIFEST, &[network, host], &callers("allow-from = [\"127.0.0.0/8\"]"), &[]);
    expect(MANIFEST, &[], &callers("allow-from = [\"gateway\"]"), &[]);
    let node = |field: &'static str| [("env: [", field)];
    let by_node = callers("allow-from = [\"${HOST_IP}\"]");
    let own = "env: [{name: HOST_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}, ";
    expect(
        MANIFEST,
        &node(own),
        &by_node,
        &["error caller-not-admitted containers[0].env[0].valueFrom.fieldRef.fieldPath"],
    );
    expect(
        MANIFEST,
        &node("env: [{name: HOST_IP, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}, "),
        &by_node,
        &[],
    );
}

#[test]
fn ports() {
    let moved = &[("[server]", "[server]\nlisten = \"0.0.0.0:9000\"")];
    expect(MANIFEST, &[], moved, &["error port-differs containers[0].ports[1].containerPort"]);
    expect(MANIFEST, &[("containerPort: 4665", "containerPort: 9000")], moved, &[]);
    let loopback = &[("[server]", "[server]\nlisten = \"127.0.0.1:4665\"")];
    expect(MANIFEST, &[], loopback, &["error port-differs containers[0].lifecycle.preStop.httpGet"]);
    let probe = |probe: &'static str| [("livenessProbe:\n            httpGet: {path: /live, port: hooks}", probe)];
    let at = "containers[0].livenessProbe.httpGet";
    for (get, found) in [
        ("path: /live, port: 4655", vec![format!("error port-differs {at}.port")]),
        ("path: /live, port: hoks", vec![format!("error port-differs {at}.port")]),
        ("path: /live, port: http", vec![]),
        ("path: /healthz, port: 9090", vec![]),
        ("path: /healthz, port: hooks", vec![format!("error probe-path {at}.path")]),
        ("path: /shutdown, port: hooks", vec![format!("error probe-path {at}.path")]),
        ("path: /live, port: hooks, scheme: HTTPS", vec![format!("error probe-path {at}.scheme")]),
        ("path: /status, port: hooks", vec![]),
    ] {
        let text: &'static str = Box::leak(format!("livenessProbe:\n            httpGet: {{{get}}}").into_boxed_str());
        let found: Vec<&str> = found.iter().map(String::as_str).collect();
        // The application's own check has room for its start.
        let room = if get.contains("http") || get.contains("9090") { vec![] } else { found };
        expect(MANIFEST, &probe(text), SAME, &room);
    }
    let second = "      containers:\n        - {name: other, image: x, command: [/boathook, run, --, x], readinessProbe: {exec: {command: [/boathook, ready]}}}\n";
    expect(MANIFEST, &[("      containers:\n", second)], SAME, &["error port-taken containers[1]"]);
}

#[test]
fn control_sockets() {
    let containers = |one: &str, other: &str| {
        format!(
            "kind: Pod\nspec:\n  containers:\n  - {{name: a, image: x, command: [/boathook, run, x], {one}}}\n  \
             - {{name: b, image: x, lifecycle: {{preStop: {{exec: {{command: [/boathook, shutdown]}}}}}}, {other}}}\n"
        )
    };
    let named = |name: &str| format!("env: [{{name: BOATHOOK_SOCKET, value: {name}}}]");
    for (one, other, found) in [
        (named("x"), named("x"), vec!["error port-taken spec.containers[1].env[0]".to_owned()]),
        (named("x"), named("w"), vec![]),
        (named("x"), "tty: false".to_owned(), vec![]),
    ] {
        let all = judged(&containers(&one, &other));
        let now: Vec<String> = all.iter().filter(|finding| finding.severity > Severity::Note).map(short).collect();
        assert_eq!(now, found, "{one} {other}");
    }
}

#[test]
fn probes_beside_a_start_and_a_drain() {
    let liveness = |more: &'static str| [("httpGet: {path: /live, port: hooks}", more)];
    let ready = "httpGet: {path: /ready, port: hooks}\n            periodSeconds: 5";
    expect(MANIFEST, &liveness(ready), SAME, &["error liveness-kills-start containers[0].livenessProbe.httpGet.path"]);
    expect(
        MANIFEST,
        &liveness("httpGet: {path: /ready, port: hooks}"),
        SAME,
        &["warning liveness-kills-drain containers[0].livenessProbe.httpGet.path"],
    );
    let impatient = "httpGet: {path: /, port: http}\n            periodSeconds: 5";
    expect(MANIFEST, &liveness(impatient), SAME, &["warning liveness-kills-start containers[0].livenessProbe"]);
    expect(MANIFEST, &liveness("httpGet: {path: /, port: http}"), SAME, &[]);
    let startup = |seconds: &'static str| [("          readinessProbe:", seconds)];
    let short = "          startupProbe: {httpGet: {path: /ready, port: hooks}, periodSeconds: 1, failureThreshold: 19}\n          readinessProbe:";
    expect(
        MANIFEST,
        &startup(short),
        SAME,
        &["error liveness-kills-start containers[0].startupProbe.failureThreshold"],
    );
    let enough = "          startupProbe: {httpGet: {path: /ready, port: hooks}, periodSeconds: 1, failureThreshold: 20}\n          readinessProbe:";
    expect(MANIFEST, &startup(enough), SAME, &[]);
    let readiness = |own: &'static str| [("httpGet: {path: /ready, port: hooks}", own)];
    for own in ["httpGet: {path: /, port: http}", "tcpSocket: {port: 8080}", "grpc: {port: 8080}"] {
        expect(MANIFEST, &readiness(own), SAME, &["warning probe-on-application-port containers[0].readinessProbe"]);
    }
    expect(MANIFEST, &readiness("httpGet: {path: /, port: 9090}"), SAME, &[]);
    let ignores = &[("settle = \"5s\"", "settle = \"5s\", ignore-peers = [\"gateway\"]")];
    expect(MANIFEST, &readiness("httpGet: {path: /, port: http}"), ignores, &[]);
    expect(
        MANIFEST,
        &readiness("httpGet: {path: /live, port: hooks}"),
        SAME,
        &["warning probe-path containers[0].readinessProbe.httpGet.path"],
    );
    let missing = &[("          readinessProbe:\n            httpGet: {path: /ready, port: hooks}\n", "")];
    expect(MANIFEST, missing, SAME, &["warning readiness-missing containers[0]"]);
    expect(MANIFEST, missing, IN_HOOK, &["note readiness-missing containers[0]"]);
    expect(
        EXEC,
        &[("tcpSocket: {port: 8080}", "exec: {command: [/boathook, ready]}")],
        OFF,
        &["error agent-missing containers[0].readinessProbe"],
    );
    let check = |timeout: &'static str| [("[app]", timeout)];
    let second = check("[readiness]\nhttp = \"http://127.0.0.1:8080/\"\ntimeout = \"1s\"\n[app]");
    expect(MANIFEST, &[], &second, &["warning probe-timeout containers[0].readinessProbe"]);
    expect(MANIFEST, &[], &check("[readiness]\nhttp = \"http://127.0.0.1:8080/\"\n[app]"), &[]);
    let grace = |seconds: &'static str| [("port: hooks}\n          volumeMounts", seconds)];
    let at = "probe-grace-period containers[0].livenessProbe.terminationGracePeriodSeconds";
    let own = "port: hooks}\n            terminationGracePeriodSeconds: 25\n          volumeMounts";
    expect(MANIFEST, &grace(own), SAME, &[&format!("warning {at}")]);
    let own = "port: hooks}\n            terminationGracePeriodSeconds: 26\n          volumeMounts";
    expect(MANIFEST, &grace(own), SAME, &[]);
}

#[test]
fn where_the_configuration_comes_from() {
    let at = "config-not-mounted";
    let mount = |mount: &'static str| [("{name: config, mountPath: /etc/boathook}", mount)];
    for (own, found) in [
        ("{name: config, mountPath: /etc/boathook/}", vec![]),
        ("{name: config, mountPath: /etc/boathook/boathook.toml, subPath: boathook.toml}", vec![]),
        (
            "{name: config, mountPath: /etc/boathook/boathook.toml}",
            vec!["error config-not-mounted containers[0].volumeMounts[0]"],
        ),
        ("{name: config, mountPath: /etc/boathooks}", vec!["error config-not-mounted containers[0].volumeMounts[0]"]),
        ("{name: other, mountPath: /x}", vec!["error config-not-mounted containers[0].volumeMounts"]),
    ] {
        expect(MANIFEST, &mount(own), SAME, &found);
    }
    let volume = |volume: &'static str| [("configMap: {name: boathook}", volume)];
    for (own, found) in [
        ("configMap: {name: boathook-7h2k9d4m5t}", vec![]),
        (
            "configMap: {name: boathook, items: [{key: boathook.toml, path: b.toml}]}",
            vec!["error config-not-mounted containers[0].volumeMounts[0]"],
        ),
        ("projected: {sources: [{configMap: {name: boathook}}]}", vec![]),
        ("secret: {secretName: boathook}", vec!["note config-not-read containers[0]"]),
    ] {
        expect(MANIFEST, &volume(own), SAME, &found);
    }
    let named = "env: [{name: BOATHOOK_CONFIG, value: /etc/hooks/b.toml}, ";
    expect(MANIFEST, &[("env: [", named)], SAME, &["error config-not-mounted containers[0].volumeMounts[0]"]);
    let found: Vec<String> = judged(MANIFEST).iter().map(short).collect();
    assert_eq!(found, ["note config-not-read containers[0]"], "{at}");
}

#[test]
fn a_configuration_of_another_namespace_is_not_mounted() {
    let text = |own: &str, other: &str| {
        let manifest = MANIFEST.replace("{name: web}", &format!("{{name: web, namespace: {own}}}"));
        with_config(&manifest, CONFIG)
            .replace("{name: boathook}\ndata", &format!("{{name: boathook, namespace: {other}}}\ndata"))
    };
    let found: Vec<String> = judged(&text("a", "b")).iter().map(short).collect();
    assert_eq!(found, ["warning config-not-mounted containers[0].volumeMounts[0]"]);
    assert_eq!(judged(&text("a", "a")), []);
}

/// Brought from outside, it is in no ENTRYPOINT of the image.
#[test]
fn a_binary_that_is_brought_has_to_be_started() {
    let pod = |more: &str| {
        format!(
            "kind: Pod\nspec:\n  initContainers: [{{name: i, args: [install, /b], volumeMounts: [{{name: b, mountPath: /b}}]}}]\n  \
             containers:\n  - {{name: a, image: x, {more}, volumeMounts: [{{name: b, mountPath: /b}}]}}\n  \
             volumes: [{{name: b, emptyDir: {{}}}}]\n"
        )
    };
    let found = |more: &str| -> Vec<String> {
        let all = judged(&pod(more));
        all.iter().filter(|finding| finding.severity > Severity::Note).map(short).collect()
    };
    let http = "lifecycle: {preStop: {httpGet: {path: /shutdown, port: 4665}}}";
    assert_eq!(found(http), ["error entrypoint-bypassed spec.containers[0]"]);
    assert_eq!(found(&format!("command: [/b/boathook, run, --, x], {http}")), Vec::<String>::new());
    let exec = "lifecycle: {preStop: {exec: {command: [/b/boathook, shutdown]}}}";
    assert_eq!(found(exec), Vec::<String>::new());
    let live = format!("{exec}, livenessProbe: {{exec: {{command: [/b/boathook, live]}}}}");
    assert_eq!(found(&live), ["error agent-missing spec.containers[0].livenessProbe"]);
}

#[test]
fn files_and_folders() {
    let token = &[("token-env = \"BOATHOOK_TOKEN\"", "token-file = \"/run/secrets/hooks/token\"")];
    expect(MANIFEST, &[], token, &["error config-not-mounted containers[0].volumeMounts"]);
    let mounted = |mode: &'static str| {
        [
            ("volumeMounts: [", "volumeMounts: [{name: t, mountPath: /run/secrets/hooks}, "),
            ("      volumes: [", mode),
            ("image: my-web:1", "image: my-web:1\n          securityContext: {runAsUser: 101}"),
        ]
    };
    expect(MANIFEST, &mounted("      volumes: [{name: t, secret: {secretName: s}}, "), token, &[]);
    expect(
        MANIFEST,
        &mounted("      volumes: [{name: t, secret: {secretName: s, defaultMode: 256}}, "),
        token,
        &["error token-unreadable volumes[0].secret.defaultMode"],
    );
    let message = &[("[app]", "[log]\ntermination-message = \"/tmp/why\"\n[app]")];
    expect(MANIFEST, &[], message, &["warning termination-message-path containers[0]"]);
    expect(
        MANIFEST,
        &[("image: my-web:1", "terminationMessagePath: /tmp/why\n          image: my-web:1")],
        message,
        &[],
    );
    let saves = &[(
        "[app]",
        "[[pre-stop.step]]\nname = \"s\"\nsave = { from = \"/data\", to = \"/state\" }\ntimeout = \"1s\"\n[app]",
    )];
    expect(MANIFEST, &[], saves, &["error state-volume-missing containers[0].volumeMounts"]);
    let state = |mount: &'static str, volume: &'static str| [("volumeMounts: [", mount), ("      volumes: [", volume)];
    let plain = "volumeMounts: [{name: state, mountPath: /state}, ";
    for (mount, volume, found) in [
        (plain, "      volumes: [{name: state, nfs: {server: s, path: /}}, ", vec![]),
        (
            plain,
            "      volumes: [{name: state, persistentVolumeClaim: {claimName: c}}, ",
            vec!["note state-volume-missing volumes[0]"],
        ),
        (plain, "      volumes: [{name: state, emptyDir: {}}, ", vec!["warning state-volume-missing volumes[0]"]),
        (plain, "      volumes: [{name: state, configMap: {name: x}}, ", vec!["error state-volume-missing volumes[0]"]),
        // A StatefulSet's claim.
        (plain, "      volumes: [", vec![]),
        (
            "volumeMounts: [{name: state, mountPath: /state, readOnly: true}, ",
            "      volumes: [{name: state, hostPath: {path: /x}}, ",
            vec!["error state-volume-missing containers[0].volumeMounts[0].readOnly"],
        ),
    ] {
        expect(MANIFEST, &state(mount, volume), saves, &found);
    }
    let touches = &[("[app]", "[[pre-stop.step]]\nfile = { touch = \"/run/x/marker\" }\ntimeout = \"1s\"\n[app]")];
    let root = ("image: my-web:1", "image: my-web:1\n          securityContext: {readOnlyRootFilesystem: true}");
    expect(MANIFEST, &[], touches, &[]);
    expect(MANIFEST, &[root], touches, &["error read-only-root containers[0].securityContext.readOnlyRootFilesystem"]);
    let run = state("volumeMounts: [{name: run, mountPath: /run}, ", "      volumes: [{name: run, emptyDir: {}}, ");
    expect(MANIFEST, &[root, run[0], run[1]], touches, &[]);
}

#[test]
fn variables_of_the_configuration() {
    let at = "variable-missing containers[0].env";
    expect(
        MANIFEST,
        &[("name: BOATHOOK_TOKEN, value: abc", "name: OTHER, value: abc")],
        SAME,
        &[&format!("error {at}")],
    );
    expect(
        MANIFEST,
        &[("value: abc}]\n          ports", "value: \"\"}]\n          ports")],
        SAME,
        &[&format!("error {at}[0]")],
    );
    expect(MANIFEST, &[("env: [{name: BOATHOOK_TOKEN, value: abc}]", "envFrom: [{secretRef: {name: s}}]")], SAME, &[]);
    let uses = |text: &'static str| [("[app]", text)];
    let step = "[[pre-stop.step]]\nexec = [\"leave\", \"${REGISTRY}\"]\ntimeout = \"1s\"\n[app]";
    expect(MANIFEST, &[], &uses(step), &[&format!("warning {at}")]);
    let step = "[[pre-stop.step]]\nexec = [\"leave\", \"${REGISTRY:-x}\", \"${HOSTNAME}\", \"$${REGISTRY}\"] # ${REGISTRY}\ntimeout = \"1s\"\n[app]";
    expect(MANIFEST, &[], &uses(step), &[]);
    let from = &[("token-env = \"BOATHOOK_TOKEN\"", "allow-from = [\"${HOST_IP}\"]")];
    expect(MANIFEST, &[], from, &[&format!("error {at}")]);
}

#[test]
fn what_kubernetes_refuses() {
    expect(
        MANIFEST,
        &[("PeriodSeconds: 30", "PeriodSeconds: \"30\"")],
        SAME,
        &["error wrong-type terminationGracePeriodSeconds"],
    );
    expect(MANIFEST, &[("preStop:", "prestop:")], SAME, &["error unknown-field containers[0].lifecycle.prestop"]);
    expect(
        MANIFEST,
        &[("      containers:", "      os: {name: windows}\n      containers:")],
        SAME,
        &["error not-linux os.name"],
    );
    expect(MANIFEST, &[("      containers:", "      os: {name: linux}\n      containers:")], SAME, &[]);
}

#[test]
fn a_configuration_without_a_trace_of_boathook() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("boathook.toml");
    std::fs::write(&config, CONFIG).expect("a file");
    let text = "spec: {containers: [{name: a, image: x}, {name: b, image: x}]}";
    let documents = document::read("t.yaml", 0, text).expect("YAML");
    let names = |config: Option<&File>, only: Option<&str>| -> Vec<String> {
        let pods = pod::find(&documents, config, only).expect("good");
        pods.iter().map(|pod| pod.container.name.clone()).collect()
    };
    assert_eq!(names(Some(&config), None), ["a"]);
    assert_eq!(names(Some(&config), Some("b")), ["b"]);
    assert_eq!(names(None, None), Vec::<String>::new());
    let pods = pod::find(&documents, Some(&config), None).expect("good");
    let found: Vec<String> = judge(&pods[0]).iter().map(short).collect();
    assert!(found.contains(&"note boathook-assumed spec.containers[0]".to_owned()), "{found:?}");
    // A configuration that is wrong says so instead of any finding.
    std::fs::write(&config, "[server]\nlisten = \"x\"").expect("a file");
    assert_eq!(pod::find(&documents, Some(&config), None).err().map(|fatal| fatal.code), Some(boathook::exit::CONFIG));
}

/// Each edit can be done: its path begins in what is there.
#[test]
fn rules_are_listed_once_and_say_what_they_are_about() {
    let mut names: Vec<&str> = ALL.iter().map(|rule| rule.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), ALL.len());
    for rule in ALL {
        assert!(!rule.about.ends_with('.') && rule.name.bytes().all(|byte| byte == b'-' || byte.is_ascii_lowercase()));
    }
}

/// What is told is told in one form, without secrets.
#[test]
fn findings_read_alike() {
    let text = with_config(
        &changed(MANIFEST, &[("value: Bearer abc", "value: Bearer s3cret"), ("[\"/boathook\"", "[\"/x\"")]),
        CONFIG,
    );
    let findings = judged(&text);
    assert!(findings.len() >= 3, "{findings:?}");
    for finding in findings {
        for text in [&finding.what, &finding.why, &finding.fix] {
            assert!(!text.contains("s3cret") && !text.is_empty() && !text.ends_with('.'), "{text}");
        }
        assert!(finding.edits.iter().all(|edit| !matches!(edit, Edit::Set(_, Value::Null))));
    }
}
