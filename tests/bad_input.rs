//! A bad configuration starts nothing, the main process included, and is told whole: every problem with its file, its
//! place, why, and how to fix it.

mod support;

use std::{net::TcpListener, os::unix::net::UnixListener, process::Command, time::Duration};

use support::{Place, Said};

/// Reading and refusing takes milliseconds; this is for a loaded machine and an unoptimised binary.
const SOON: Duration = Duration::from_secs(5);

/// Runs the agent with a main process that would leave a trace.
#[track_caller]
fn try_to_run(place: &Place) -> Said {
    let said = place.boathook(&["run", "--", "touch", "@/started"]);
    assert!(!place.exists("started"), "the main process was started: {said:?}");
    assert!(said.took < SOON, "{said:?}");
    assert_eq!(said.stdout, "");
    said
}

/// The configuration is refused with exactly these problems, by every command that reads it for an agent. `@` at the
/// start of a line stands for `boathook: FILE`.
#[track_caller]
fn refused(place: &Place, problems: &str) {
    let said = try_to_run(place);
    let file = place.path("boathook.toml").display().to_string();
    let shown = said.stderr.replace(&format!("boathook: {file}"), "@").replace(&place.expand("@/"), "@/");
    assert_eq!(shown, problems);
    assert_eq!(said.code, 78);
    for words in [&["check"][..], &["serve"]] {
        let other = place.boathook(words);
        assert_eq!((other.code, other.stderr.as_str()), (78, said.stderr.as_str()), "{words:?}");
    }
}

const LISTEN: &str = "[server]\nlisten = \"127.0.0.1:0\"\n";

#[test]
fn a_good_configuration_is_not_refused() {
    let place = Place::with("[[pre-stop.step]]\nsleep = \"1s\"\n");
    let said = place.boathook(&["run", "--", "touch", "@/started"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(place.exists("started"));
    assert_eq!(place.boathook(&["check"]).code, 0);
}

#[test]
fn unknown_keys_with_what_was_meant() {
    let config = "grace-perid = \"30s\"\nstop_reserve = \"1s\"\nnonsense = 1\n[server]\nlisten = \"127.0.0.1:0\"\ntokenfile = \"x\"\n\
        [[pre-stop.step]]\ndrian = {}\n[[pre-stop.step]]\nsleep = \"1s\"\nretrys = 3\n\
        [[pre-stop.step]]\nname = \"q\"\ndrain = { settel = \"1s\" }\n\
        [[pre-stop.step]]\nhttp = { url = \"http://x/\", methd = \"GET\" }\n\
        [[pre-stop.step]]\nwait = { tpc = \"x:1\" }\n\
        [[pre-stop.step]]\nsleep = \"1s\"\nwhen = { file-exist = \"/x\" }\n";
    let steps = "name, timeout, attempt-timeout, on-failure, retries, backoff, when, essential, group, sleep, exec, http, signal, wait, file, drain, save, restore, warm-up";
    let top = "grace-period, stop-reserve, server, app, readiness, log, pre-start, post-start, pre-stop, post-stop";
    refused(
        &Place::exactly(config),
        &format!(
            "@:1: grace-perid: unknown key `grace-perid`\n  help: did you mean `grace-period`? known here: {top}\n\
             @:2: stop_reserve: unknown key `stop_reserve`\n  help: did you mean `stop-reserve`? known here: {top}\n\
             @:3: nonsense: unknown key `nonsense`\n  help: known here: {top}\n\
             @:6: server: tokenfile: unknown key `tokenfile`\n  help: did you mean `token-file`? known here: listen, token, token-file, token-env, allow-from, allow-unauthenticated\n\
             @:8: pre-stop: step 1: drian: unknown key `drian`\n  help: did you mean `drain`? known here: {steps}\n\
             @:11: pre-stop: step 2: retrys: unknown key `retrys`\n  help: did you mean `retries`? known here: {steps}\n\
             @:14: pre-stop: step \"q\": drain: settel: unknown key `settel`\n  help: did you mean `settle`? known here: settle, quiet-min, threshold, ports, ignore-peers, idle-after, longest-request, long-lived, source, metric\n\
             @:16: pre-stop: step 4: http: methd: unknown key `methd`\n  help: did you mean `method`? known here: url, succeed, retry, skip, method, headers, body, body-file, bearer, bearer-file, basic, cert-file, key-file, ca-file, insecure, server-name, follow-redirects, unix-socket\n\
             @:18: pre-stop: step 5: wait: tpc: unknown key `tpc`\n  help: did you mean `tcp`? known here: interval, consecutive, try-timeout, tcp, http, unix, file, contains, absent, process-gone, dns, count, metric, send, expect, postgres, mysql, redis, user, database, password, password-file, grpc, service, exec\n\
             @:21: pre-stop: step 6: when: file-exist: unknown key `file-exist`\n  help: did you mean `file-exists`? known here: file-exists, file-missing, file-contains, env, command\n"
        ),
    );
}

#[test]
fn wrong_types() {
    let config = "grace-period = 30\nstop-reserve = true\n[server]\nlisten = 4665\ntoken-file = []\nallow-from = \"gateway\"\n\
        allow-unauthenticated = \"yes\"\n[app]\nports = [\"http\", 70000, -1, 0]\nstop-signal = 15\n\
        [[post-start.step]]\nexec = \"sh -c x\"\n[[post-start.step]]\nsleep = 5\n[[post-start.step]]\nretries = -1\nsleep = \"5s\"\n\
        [[post-start.step]]\nessential = \"x\"\ndrain = \"x\"\n[[post-start.step]]\nhttp = 5\n[[post-start.step]]\ngroup = \"x\"\n";
    refused(
        &Place::exactly(config),
        "@:1: grace-period: wrong type: integer `30`, expected a duration in quotes, such as \"30s\"\n\
         @:2: stop-reserve: wrong type: boolean `true`, expected a duration in quotes, such as \"30s\"\n\
         @:4: server: listen: wrong type: integer `4665`, expected text in quotes\n\
         @:5: server: token-file: wrong type: a list, expected text in quotes\n\
         @:6: server: allow-from: wrong type: string \"gateway\", expected a list\n\
         @:7: server: allow-unauthenticated: wrong type: string \"yes\", expected true or false\n\
         @:9: app: ports: `http` is not a whole number from 0 to 65535\n\
         @:9: app: ports: `70000` is not a whole number from 0 to 65535\n\
         @:9: app: ports: `-1` is not a whole number from 0 to 65535\n\
         @:9: app: ports: 0 is not a port\n  help: name the ports the application listens on\n\
         @:10: app: stop-signal: wrong type: integer `15`, expected text in quotes\n\
         @:12: post-start: step 1: exec: exec is a list, because no shell splits it into words: write [\"sh\", \"-c\", \"sh -c x\"] for a shell\n\
         @:14: post-start: step 2: sleep: wrong type: integer `5`, expected a duration in quotes, such as \"10s\", or { until = \"15s\" }\n\
         @:16: post-start: step 3: retries: `-1` is not a whole number from 0 to 4294967295\n\
         @:19: post-start: step 4: essential: wrong type: string \"x\", expected true or false\n\
         @:20: post-start: step 4: drain: wrong type: string \"x\", expected a table\n\
         @:22: post-start: step 5: http: wrong type: integer `5`, expected a URL, or a table such as { url = \"http://…\", method = \"POST\" }\n\
         @:24: post-start: step 6: wrong type: string \"x\", expected a list\n",
    );
}

#[test]
fn negative_and_absurd_durations() {
    let config = "grace-period = \"-30s\"\nstop-reserve = \"5 days\"\n[server]\nlisten = \"127.0.0.1:0\"\n\
        [pre-stop]\ndeadline = \"1e400s\"\nundrain-after = \"30\"\n[[pre-stop.step]]\nsleep = \"99999999h\"\n\
        [[pre-stop.step]]\nsleep = \"1s\"\ntimeout = \"0s\"\n[[pre-stop.step]]\nsleep = \"1s\"\nbackoff = \"\"\n";
    refused(
        &Place::exactly(config),
        "@:1: grace-period: `-30s` is not a duration: it is negative; write \"0s\" for none\n\
         @:2: stop-reserve: `5 days` is not a duration: it has no unit; write \"5s\" for seconds or \"5ms\"\n\
         @:6: pre-stop: deadline: `1e400s` is not a duration: `e` is not a unit; use ms, s, m or h\n\
         @:7: pre-stop: undrain-after: `30` is not a duration: it has no unit; write \"30s\" for seconds or \"30ms\"\n\
         @:9: pre-stop: step 1: sleep: `99999999h` is not a duration: it is longer than a week\n\
         @:10: pre-stop: step 2: timeout: no time at all is left for the step\n  help: give it some, or leave the key out for what is left of the hook\n\
         @:15: pre-stop: step 3: backoff: `` is not a duration: it is empty; write a number with a unit, such as \"30s\"\n",
    );
    refused(
        &Place::exactly(format!("grace-period = \"0s\"\n{LISTEN}")),
        "@: grace-period: no time at all is left for the stop\n  help: set it to the pod's terminationGracePeriodSeconds\n",
    );
}

#[test]
fn timeouts_that_cannot_fit() {
    let config = format!(
        "grace-period = \"30s\"\nstop-reserve = \"5s\"\n{LISTEN}[[pre-stop.step]]\nname = \"save sessions\"\nsleep = \"1s\"\ntimeout = \"40s\"\n\
         [[pre-stop.step]]\nname = \"g\"\ntimeout = \"2s\"\ngroup = [ {{ sleep = \"1s\", timeout = \"3s\" }} ]\n\
         [post-start]\ndeadline = \"2s\"\n[[post-start.step]]\nsleep = \"1s\"\ntimeout = \"3s\"\n\
         [[pre-start.step]]\nsleep = \"1s\"\ntimeout = \"2m\"\n"
    );
    refused(
        &Place::exactly(config),
        "@: pre-start: step \"sleep\": timeout 2m does not fit in the hook's deadline 1m\n  help: lower the timeout, or raise [pre-start] deadline\n\
         @: post-start: step \"sleep\": timeout 3s does not fit in the hook's deadline 2s\n  help: lower the timeout, or raise [post-start] deadline\n\
         @: pre-stop: step \"save sessions\": timeout 40s does not fit in grace-period 30s, of which 5s are kept as stop-reserve and 1s for the kubelet's rounding\n  help: lower the timeout, or raise grace-period and terminationGracePeriodSeconds together\n\
         @: pre-stop: step \"g\": step \"sleep\": timeout 3s does not fit in 2s\n  help: lower the timeout, or raise grace-period and terminationGracePeriodSeconds together\n",
    );
    refused(
        &Place::exactly(format!("grace-period = \"5s\"\nstop-reserve = \"9s\"\n{LISTEN}")),
        "@: stop-reserve: nothing of grace-period 5s is left for pre-stop: 9s for the main process, 0s for post-stop, 500ms for the kubelet's rounding\n  help: lower stop-reserve, or raise grace-period and terminationGracePeriodSeconds together\n",
    );
    let essential = "[[pre-stop.step]]\nsleep = \"1s\"\ntimeout = \"5s\"\nessential = true\n";
    refused(
        &Place::exactly(format!(
            "grace-period = \"10s\"\n{LISTEN}[pre-stop]\ndeadline = \"9s\"\n{essential}{essential}"
        )),
        "@: pre-stop: the essential steps need 10s and do not fit in the hook's deadline 9s\n  help: lower the timeout, or raise [pre-stop] deadline\n\
         @:5: pre-stop: deadline: 9s does not fit in grace-period 10s, of which 2.5s are kept as stop-reserve and 1s for the kubelet's rounding\n  help: lower it, or raise grace-period and terminationGracePeriodSeconds together\n",
    );
}

#[test]
fn a_public_listener_that_nobody_may_use() {
    let message = "@: server: nobody may trigger a hook on 0.0.0.0:4665: there is neither token-file, token-env, allow-from nor a loopback address\n  \
        help: set token-file (sent by the hook's httpHeaders as \"Authorization: Bearer …\"), or allow-from = [\"gateway\"] or [\"${HOST_IP}\"], \
        or listen = \"127.0.0.1:4665\", or listen = \"off\" when hooks come by exec only, or allow-unauthenticated = true to let anybody on the pod's network stop it\n";
    refused(&Place::exactly("grace-period = \"30s\"\n"), message);
    // An exec hook without an agent does not listen, so it does not mind.
    assert_eq!(Place::exactly("grace-period = \"30s\"\n").boathook(&["shutdown"]).code, 0);
    // Each way out that is named is one.
    for way in [
        "listen = \"127.0.0.1:0\"",
        "listen = \"off\"",
        "listen = \"0.0.0.0:0\"\nallow-unauthenticated = true",
        "listen = \"0.0.0.0:0\"\nallow-from = [\"gateway\"]",
    ] {
        let said = Place::with(&format!("[server]\n{way}\n")).boathook(&["run", "--", "true"]);
        assert_eq!(said.code, 0, "{way}: {said:?}");
    }
}

#[test]
fn tokens_that_cannot_be_had() {
    let help = "\n  help: mount a secret with one line of text there, readable for the container's user\n";
    for (file, why) in [
        ("nowhere", "No such file or directory (os error 2)"),
        ("two-lines", "it has more than one line, or control characters"),
        ("empty", "empty"),
        ("folder", "it is a folder, not a regular file"),
        ("fifo", "it is a FIFO, not a regular file"),
    ] {
        let place = Place::exactly("");
        place.write("boathook.toml", &place.expand(&format!("[server]\ntoken-file = \"@/{file}\"\n")));
        place.write("two-lines", "one\ntwo\n");
        place.write("empty", "\n");
        std::fs::create_dir(place.path("folder")).expect("created");
        make_fifo(&place, "fifo");
        refused(&place, &format!("@:2: server: token-file: @/{file}: {why}{help}"));
    }
    refused(
        &Place::exactly("[server]\ntoken-env = \"NOBODY_SETS_THIS\"\n"),
        "@:2: server: token-env: the environment variable `NOBODY_SETS_THIS` is not set, or empty\n  \
         help: set it in the container's env from a secret (valueFrom: secretKeyRef)\n",
    );
    refused(
        &Place::exactly("[server]\nallow-from = [\"gatewy\", \"10.0.0.0/40\"]\n"),
        "@:2: server: allow-from: `gatewy` is not an address, a network (\"10.0.0.0/8\", \"fd00::/8\") or \"gateway\"\n  \
         help: write \"10.0.0.7\", \"10.0.0.0/8\", \"fd00::/8\", \"gateway\" or \"${HOST_IP}\"\n\
         @:2: server: allow-from: `10.0.0.0/40` is not an address, a network (\"10.0.0.0/8\", \"fd00::/8\") or \"gateway\"\n  \
         help: write \"10.0.0.7\", \"10.0.0.0/8\", \"fd00::/8\", \"gateway\" or \"${HOST_IP}\"\n",
    );
}

#[test]
fn certificates_and_keys_that_cannot_be_read() {
    let place = Place::exactly("");
    place.write("not.pem", "not a certificate");
    place.write(
        "boathook.toml",
        &place.expand(&format!(
            "{LISTEN}[[pre-stop.step]]\nhttp = {{ url = \"https://x/\", cert-file = \"/nowhere/c\", key-file = \"/nowhere/k\", ca-file = \"/nowhere/ca\" }}\n\
             [[pre-stop.step]]\nhttp = {{ url = \"https://x/\", ca-file = \"@/not.pem\" }}\n\
             [[pre-stop.step]]\nhttp = {{ url = \"https://x/\", bearer-file = \"/nowhere/b\", cert-file = \"@/not.pem\" }}\n"
        )),
    );
    let help = "\n  help: the file must be there and readable when boathook starts\n";
    refused(
        &place,
        &format!(
            "@:3: pre-stop: step 1: http: ca-file: /nowhere/ca: no such file or directory{help}\
             @:3: pre-stop: step 1: http: cert-file: /nowhere/c: no such file or directory{help}\
             @:3: pre-stop: step 1: http: key-file: /nowhere/k: no such file or directory{help}\
             @:5: pre-stop: step 2: http: ca-file: @/not.pem: it holds no certificate in PEM\n\
             @:7: pre-stop: step 3: http: bearer-file: /nowhere/b: no such file or directory{help}\
             @:7: pre-stop: step 3: http: cert-file: `key-file` is missing\n"
        ),
    );
}

#[test]
fn a_port_in_use_and_addresses_that_are_none() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound");
    let place = Place::exactly(format!("[server]\nlisten = \"{address}\"\n"));
    let said = try_to_run(&place);
    assert_eq!(said.code, 78);
    assert_eq!(
        said.stderr,
        place.expand(&format!(
            "boathook: @/boathook.toml: server: listen: cannot listen on {address}: the port is in use: by another boathook, by the application, or by another container of the pod (they share their ports)\n  \
             help: choose a free port as `listen` under [server], and the same in the pod's hooks and probes\n"
        ))
    );
    drop(taken);
    // The same once it is free.
    assert_eq!(place.boathook(&["run", "--", "true"]).code, 0);
    refused(
        &Place::exactly("[server]\nlisten = \"localhost\"\n"),
        "@:2: server: listen: `localhost` is not an address with a port\n  help: write an address and a port: \"0.0.0.0:4665\", \"[::]:4665\", \"127.0.0.1:4665\", or \"off\"\n",
    );
}

#[test]
fn variables_that_are_not_set() {
    let config = format!(
        "{LISTEN}[[pre-stop.step]]\nexec = [\"${{NOBODY_SETS_THIS}}\", \"${{OPEN\", \"${{9}}\", \"${{NOBODY_SETS_THIS:-fine}}\"]\n"
    );
    refused(
        &Place::exactly(config),
        "@:4: pre-stop: step 1: exec: the environment variable `NOBODY_SETS_THIS` is not set\n  help: set it in the container's env, give a default `${NOBODY_SETS_THIS:-…}`, or write `$${NOBODY_SETS_THIS}` to leave it to a shell\n\
         @:4: pre-stop: step 1: exec: `${` without its `}`\n  help: close it, or write `$${` for a plain `${`\n\
         @:4: pre-stop: step 1: exec: `${9}` is not the name of an environment variable\n  help: write `$${` for a plain `${`, for example in a shell's script\n",
    );
}

#[test]
fn values_that_make_no_sense_all_at_once() {
    let config = "[server]\nlisten = \"127.0.0.1:0\"\n[app]\nstop-signal = \"KILL\"\nstop-on = [\"TERMM\"]\n[log]\nlevel = \"loud\"\nformat = \"xml\"\n\
        [post-start]\ngate = \"both\"\nundrain-after = \"3s\"\n[pre-stop]\ngate = \"hook\"\n[[pre-stop.step]]\nname = \"a\"\nsleep = \"1s\"\non-failure = \"ignore\"\n\
        [[pre-stop.step]]\nname = \"b\"\nsleep = \"1s\"\nretries = 5000\n[[pre-stop.step]]\n[[pre-stop.step]]\nsleep = \"1s\"\nexec = [\"x\"]\n\
        [[pre-stop.step]]\ngroup = []\n[[pre-stop.step]]\nwhen = {}\nsleep = \"1s\"\n[[pre-stop.step]]\nname = \"same\"\nsleep = \"1s\"\n[[pre-stop.step]]\nname = \"same\"\nsleep = \"1s\"\n";
    let signals = "write \"TERM\", \"QUIT\", \"INT\", \"WINCH\", \"USR1\", \"RTMIN+3\" …";
    refused(
        &Place::exactly(config),
        &format!(
            "@:4: app: stop-signal: `KILL` is not a signal that can stop a process in order\n  help: {signals}\n\
             @:5: app: stop-on: `TERMM` is not a signal that can stop a process in order\n  help: {signals}\n\
             @:7: log: level: `loud` is not a level\n  help: write \"error\", \"warn\", \"info\" or \"debug\"\n\
             @:8: log: format: `xml` is not a format\n  help: write \"text\" or \"json\"\n\
             @:10: post-start: gate: `both` is not a gate\n  help: write \"readiness\" or \"hook\"\n\
             @:11: post-start: `undrain-after` belongs to pre-stop alone\n  help: take it out\n\
             @:13: pre-stop: `gate` belongs to post-start alone\n  help: take it out\n\
             @:14: pre-stop: step \"a\": on-failure: `ignore` is neither \"continue\" nor \"abort\"\n\
             @:18: pre-stop: step \"b\": retries: 5000 retries are more than 1000\n  help: bound the step by its timeout instead\n\
             @:22: pre-stop: step 3: the step does nothing\n  help: add one of: sleep, exec, http, signal, wait, file, drain, save, restore, warm-up, group\n\
             @:23: pre-stop: step 4: the step does 2 things: sleep, exec\n  help: make a step of each, or put them into a group\n\
             @:26: pre-stop: step 5: group: it has no steps\n  help: add some, or take it out\n\
             @:28: pre-stop: step 6: when: it names no condition\n  help: add file-exists, file-missing, file-contains, env or command\n\
             @:34: pre-stop: step \"same\": name: another step of this hook has the same name\n  help: give each its own: logs and reports go by it\n"
        ),
    );
}

#[test]
fn state_that_could_not_be_saved_or_brought_back() {
    let config = "[server]\nlisten = \"127.0.0.1:0\"\n\
        [[pre-start.step]]\nname = \"a\"\nrestore = { from = \"/state\", to = \"/state/app\", if-present = \"overwrite\" }\n\
        [[pre-start.step]]\nrestore = { from = \"s3://b/p\", to = \"app\", if-missing = \"ignore\", max-bytes = \"1 lot\" }\n\
        [[pre-stop.step]]\nname = \"a/b\"\nsave = { from = \"/data\", to = \"/data/state\", compression = \"xz\" }\n\
        [[pre-stop.step]]\nname = \"b\"\nsave = { from = [\"/state/app\", \"/state\", \"x\", \"/\", \"/a/../b\"], to = \"/state\" }\n\
        [[pre-stop.step]]\nname = \"c\"\nsave = { from = [\"/one/x\", \"/two/x\", { exec = [\"true\"] }, { exec = [\"true\"], file = \"a/b\" }], to = \"/state\", keep = 0 }\n\
        [[pre-stop.step]]\nsave = {}\n\
        [[pre-stop.step]]\nname = \"d\"\nsave = { from = \"/data\", to = \"/state\", region = \"eu\", periodic = \"10ms\", exclude = [\"a[\"] }\n\
        [[pre-stop.step]]\nname = \"e\"\nsave = { from = \"/data\", to = \"ftp://x/y\" }\n";
    refused(
        &Place::exactly(config),
        "@:3: pre-start: step \"a\": restore: if-present: `overwrite` is not known\n  help: use one of: replace, keep, merge\n\
         @:3: pre-start: step \"a\": restore: to: /state/app lies in /state, where the snapshots are\n  help: keep snapshots on a volume of their own\n\
         @:6: pre-start: step 2: name: it is missing: a snapshot belongs to the name of its step\n  help: give the save and the restore of one state the same: name = \"sessions\"\n\
         @:6: pre-start: step 2: restore: if-missing: `ignore` is not known\n  help: use one of: succeed, fail\n\
         @:6: pre-start: step 2: restore: to: `app` is not an absolute path\n  help: begin it with a slash\n\
         @:7: pre-start: step 2: restore: max-bytes: `1 lot` is not a size: write bytes with or without a unit, such as \"512Mi\" or \"10GB\"\n\
         @:8: pre-stop: step \"a/b\": name: `a/b` cannot name a snapshot: it has a slash\n  help: use letters, digits and dashes: it is part of the snapshots' file names\n\
         @:8: pre-stop: step \"a/b\": save: compression: `xz` is not known\n  help: use zstd, lz4, gzip or none\n\
         @:8: pre-stop: step \"a/b\": save: to: /data/state lies in /data, which is saved: every snapshot would hold the ones before it\n  help: keep snapshots on a volume of their own\n\
         @:11: pre-stop: step \"b\": save: from: /state/app lies in /state, where the snapshots are put\n  help: keep snapshots on a volume of their own\n\
         @:11: pre-stop: step \"b\": save: to: /state is what is saved\n  help: keep snapshots on a volume of their own\n\
         @:11: pre-stop: step \"b\": save: from: `x` is not an absolute path\n  help: begin it with a slash\n\
         @:11: pre-stop: step \"b\": save: from: / has no name of its own\n  help: name the folders below it that hold state\n\
         @:11: pre-stop: step \"b\": save: from: `/a/../b` has `..` in it\n  help: write where it leads\n\
         @:14: pre-stop: step \"c\": save: keep: no snapshot at all would be kept\n  help: keep at least 1\n\
         @:14: pre-stop: step \"c\": save: file: it is missing\n  help: name the file in the snapshot: file = \"dump.sql\"\n\
         @:14: pre-stop: step \"c\": save: file: it has a slash\n  help: name the file in the snapshot: file = \"dump.sql\"\n\
         @:14: pre-stop: step \"c\": save: from: /one/x and /two/x would both be stored as `x`\n  help: save them in two steps, or one folder that holds both\n\
         @:17: pre-stop: step 4: name: it is missing: a snapshot belongs to the name of its step\n  help: give the save and the restore of one state the same: name = \"sessions\"\n\
         @:17: pre-stop: step 4: save: from: there is nothing to save\n  help: name files or folders: from = [\"/var/lib/app\"]\n\
         @:17: pre-stop: step 4: save: to: it is missing\n  help: name a mounted volume's folder, s3://bucket/prefix or a URL\n\
         @:19: pre-stop: step \"d\": save: periodic: 10ms is too often\n  help: save once a minute, or more rarely\n\
         @:19: pre-stop: step \"d\": save: exclude \"a[\": unclosed character class at byte 1; missing ']' (to match a literal '[', escape it as '\\[' or '[[]')\n\
         @:19: pre-stop: step \"d\": save: region: only s3://bucket/prefix has one, and `to` is another place\n  help: take it out\n\
         @:22: pre-stop: step \"e\": save: to: this URL cannot be used: the scheme `ftp` is not one of http, https, unix\n",
    );
}

#[test]
fn a_snapshot_of_a_newer_format_is_refused_before_it_is_needed() {
    let place = Place::with("[[pre-start.step]]\nname = \"x\"\nrestore = { from = \"@/state\", to = \"@/app\" }\n");
    assert_eq!(place.boathook(&["check"]).code, 0, "no folder at all");
    place.write("data", "content");
    let said = place.boathook(&[
        "step",
        "save",
        "--name",
        "x",
        "--from",
        "@/data",
        "--to",
        "@/state",
        "--compression",
        "none",
    ]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(place.boathook(&["check"]).code, 0, "a snapshot of this format");
    let path = std::fs::read_dir(place.path("state")).expect("a folder").next().expect("one").expect("an entry").path();
    make_newer(&path);
    let said = place.boathook(&["check"]);
    assert_eq!(said.code, 78, "{said:?}");
    let shown = said.stderr.replace(&path.display().to_string(), "SNAPSHOT");
    assert!(shown.contains("SNAPSHOT: made by a newer boathook (format 2; this one reads up to 1)"), "{shown}");
    // Nor does a start go back to an older state without being asked.
    let said = place.boathook(&["run", "--", "touch", "@/started"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(!place.exists("started") && said.stderr.contains("made by a newer boathook"), "{said:?}");
}

/// As a later version would write it: the manifest of an uncompressed snapshot says `"format":2`, and its footer fits.
fn make_newer(path: &std::path::Path) {
    use sha2::{Digest, Sha256};
    let bytes = std::fs::read(path).expect("read");
    let (body, footer) = bytes.split_at(bytes.len() - 20);
    let length = u32::from_le_bytes(footer[..4].try_into().expect("four bytes")) as usize;
    let (archive, json) = body.split_at(body.len() - length);
    let json = String::from_utf8(json.to_vec()).expect("JSON").replace("\"format\":1", "\"format\":2");
    let mut newer = archive.to_vec();
    newer.extend(json.as_bytes());
    newer.extend(u32::try_from(json.len()).expect("short").to_le_bytes());
    newer.extend(&Sha256::digest(&json)[..8]);
    newer.extend(b"BOATHOOK");
    std::fs::write(path, newer).expect("written");
}

fn make_fifo(place: &Place, name: &str) {
    let made = Command::new("mkfifo").arg(place.path(name)).status();
    assert!(made.is_ok_and(|status| status.success()), "mkfifo");
}

#[test]
fn a_configuration_that_is_no_file() {
    let help = "\n  help: --config names this file; mount it there, or name another\n";
    let place = Place::bare();
    std::fs::create_dir(place.path("folder")).expect("created");
    make_fifo(&place, "fifo");
    let _socket = UnixListener::bind(place.path("socket")).expect("a socket");
    // Any bytes: without a fixed seed the message would be the same.
    let garbage: Vec<u8> = (0..10_000_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(place.path("garbage"), &garbage).expect("written");
    std::fs::write(place.path("less-garbage"), &garbage[..100_000]).expect("written");
    for (file, message) in [
        ("folder", format!("cannot be read: it is a folder, not a regular file{help}")),
        ("fifo", format!("cannot be read: it is a FIFO, not a regular file{help}")),
        ("nowhere", format!("cannot be read: No such file or directory (os error 2){help}")),
        ("garbage", format!("cannot be read: longer than 1048576 bytes{help}")),
        (
            "less-garbage",
            "is not text (not UTF-8)\n  help: a configuration is a TOML file; `boathook config` prints one\n".into(),
        ),
    ] {
        let path = place.path(file).display().to_string();
        let said = place.boathook(&["--config", &path, "run", "--", "touch", "@/started"]);
        assert_eq!((said.code, said.stderr), (78, format!("boathook: {path}: {message}")), "{file}");
        assert!(said.took < SOON, "{file}: {:?}", said.took);
        assert!(!place.exists("started"));
    }
    // The variable is named where it is at fault.
    let place = Place::bare().env("BOATHOOK_CONFIG", "@/nowhere");
    let said = try_to_run(&place);
    assert_eq!(said.code, 78);
    assert_eq!(
        said.stderr,
        place.expand("boathook: @/nowhere: cannot be read: No such file or directory (os error 2)\n  help: BOATHOOK_CONFIG names this file; mount it there, or name another\n")
    );
}

#[test]
fn text_that_is_no_toml() {
    let toml = "see https://toml.io for the syntax; `boathook config` prints a complete example";
    refused(
        &Place::exactly("grace-period = \"30s\"\ngrace-period = \"40s\"\n"),
        &format!("@:2: not valid TOML: duplicate key\n  help: {toml}\n"),
    );
    // Whatever is thrown at the parser: an answer, soon, and never a crash.
    for (name, text) in [
        ("tables", "= [{ x\n".repeat(100_000)),
        ("brackets", "[".repeat(900_000)),
        ("dots", "a.".repeat(400_000) + "b = 1"),
        ("deep", "a = ".to_owned() + &"[".repeat(300_000)),
        ("quotes", "\"".repeat(900_000)),
        ("nul", "\0".repeat(900_000)),
        ("keys", (0..60_000).map(|index| format!("k{index} = 1\n")).collect()),
        ("steps", "[[pre-stop.step]]\nsleep = \"1s\"\n".repeat(25_000)),
    ] {
        let said = try_to_run(&Place::exactly(&text));
        assert_eq!(said.code, 78, "{name}: {}", said.stderr.chars().take(1000).collect::<String>());
        assert!(said.stderr.len() < 100_000, "{name}: {} bytes", said.stderr.len());
    }
}

#[test]
fn an_exec_hook_tells_its_configurations_problems_too() {
    for words in [&["shutdown"][..], &["started"]] {
        let said = Place::exactly("grace-perid = \"1s\"\n").boathook(words);
        assert_eq!(said.code, 78, "{said:?}");
        assert!(said.stderr.contains("unknown key `grace-perid`"), "{said:?}");
    }
}

#[test]
fn a_message_never_shows_a_value_of_the_environment() {
    let config = "grace-period = \"${WORD}\"\n[server]\nlisten = \"${WORD}\"\ntoken-file = \"${WORD}\"\nallow-from = [\"${WORD}\"]\n\
        [app]\nports = [\"${WORD}\"]\nstop-signal = \"${WORD}\"\n[log]\nlevel = \"${WORD}\"\n[post-start]\ngate = \"${WORD}\"\n\
        [[pre-stop.step]]\nsleep = \"${WORD}\"\non-failure = \"x${WORD}\"\n[[pre-stop.step]]\nname = \"${WORD}\"\nhttp = \"${WORD}://u:${WORD}@x\"\n\
        [[pre-stop.step]]\nwait = { tcp = \"${WORD}\" }\n[[pre-stop.step]]\nexec = \"${WORD}\"\n\
        [[pre-stop.step]]\nexec = { command = [\"x\"], user = \"${WORD} x\" }\n[[pre-stop.step]]\nsignal = \"${WORD}\"\n\
        [[pre-stop.step]]\nfile = { write = \"/x\", mode = \"${WORD}\" }\n\
        [[pre-stop.step]]\ndrain = { ports = [\"${WORD}\"], ignore-peers = \"${WORD}\" }\n";
    let place = Place::exactly(config).env("WORD", "hunter2-hunter2");
    let said = try_to_run(&place);
    assert_eq!(said.code, 78);
    assert!(!said.stderr.contains("hunter2"), "{}", said.stderr);
    // The names tell the way instead.
    assert!(said.stderr.matches("${WORD}").count() >= 15, "{}", said.stderr);
}
