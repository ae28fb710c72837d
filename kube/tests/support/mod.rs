//! What the tests of the real binary share: how it is called, and a manifest with one mistake.

#![allow(dead_code, reason = "each test file uses a part")]

use std::{
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

/// Too short a grace period: an error, and its edit is a number.
pub const SHORT: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 5   # too short
      containers:
      - name: app
        image: my-web:1
        command: [/boathook, run, --, my-web]
        ports:
        - {name: hooks, containerPort: 4665}
        lifecycle:
          postStart: {exec: {command: [/boathook, started]}}
          preStop: {exec: {command: [/boathook, shutdown]}}
        readinessProbe:
          exec: {command: [/boathook, ready]}
";

pub const CONFIG: &str =
    "grace-period = \"40s\"\n[server]\nlisten = \"127.0.0.1:4665\"\n[[pre-stop.step]]\nsleep = \"30s\"\n";

/// The real binary, without this machine's own variables, in a folder.
pub fn boathook(folder: &Path, words: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_boathook-kube"))
        .args(words)
        .current_dir(folder)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    // One that says no before it has read everything closes its stdin: that is no failure.
    let _ = child.stdin.take().expect("piped").write_all(input);
    child.wait_with_output().expect("it ends")
}
