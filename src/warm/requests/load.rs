//! Reads the files of the sources when the step begins, on a thread of its own.

use std::path::Path;

use hyper::Method;

use super::{
    Body, Entry, Requests, Sources,
    lines::{Line, Lines, read_log},
    mean::{List, MOST_REQUESTS, Methods, Plan, Servers, Source, complete},
    tally::{Most, Rather, Tally},
    target::{Base, LONGEST, Target, aim, show, split_method},
};
use crate::{
    client::{
        files,
        grpc::frame,
        options::Options,
        status::{Status, Statuses},
    },
    problem::Scope,
    task,
};

/// How much is read and kept.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Different requests in all.
    requests: usize,
    /// Bytes of each file: of an access log the last ones, an hour of a busy server. It takes less than a second.
    file: u64,
    /// Bytes of all requests of files that are held in the end; while they are counted, four times as many.
    text: usize,
}

/// Each has connections of its own. A pod's own containers are a few.
const MOST_SERVERS: usize = 64;

const LIMITS: Limits = Limits { requests: MOST_REQUESTS, file: 64 << 20, text: 2 << 20 };

impl Sources {
    /// Reads the files, on a thread of its own.
    ///
    /// # Errors
    /// What cannot be read, or is not what it should be: `FILE:LINE: what: why`.
    pub async fn load(&self) -> Result<Requests, String> {
        let plan = self.0.clone();
        task::blocking(move || load(&plan, LIMITS)).await.map_err(|error| error.to_string())?
    }
}

fn load(plan: &Plan, limits: Limits) -> Result<Requests, String> {
    let written = |list: &List| match &list.source {
        Source::Written(entries) => entries.len(),
        _ => 0,
    };
    let files = plan.lists.iter().filter(|list| !matches!(list.source, Source::Written(_))).count().max(1);
    let left = limits.requests.saturating_sub(plan.lists.iter().map(written).sum());
    // With thousands of others there is room for one at least.
    let most = |rather| Most { texts: (left / files).max(1), size: limits.text / files, rather };
    let mut servers = plan.servers.clone();
    let (mut entries, mut notes) = (Vec::new(), Vec::new());
    for List { weight, source } in &plan.lists {
        let begin = entries.len();
        match source {
            Source::Written(written) => {
                for entry in written {
                    let mut entry = entry.clone();
                    if let Body::Message(path) = &entry.body {
                        entry.body = Body::Constant(frame(&files::read(path, files::LARGEST_BODY)?));
                    }
                    entries.push(entry);
                }
            }
            Source::File(path, base, methods) => {
                let mut file = FileReader { path, base: base.as_ref(), methods, shared: &plan.shared, servers };
                file.read(limits.file, most(Rather::First), &mut entries, &mut notes)?;
                servers = file.servers;
            }
            Source::Log(path, base, server, methods) => {
                let log = LogReader { path, base, server: *server, methods, shared: &plan.shared };
                log.read(limits.file, most(Rather::Last), &mut entries, &mut notes)?;
            }
        }
        let sum: f64 = entries[begin..].iter().map(|entry: &Entry| entry.weight).sum();
        for entry in &mut entries[begin..] {
            entry.weight *= weight / sum;
        }
    }
    for entry in &mut entries {
        if let Some(server) = servers.show(entry.base)
            && let Some((method, path)) = entry.shown.split_once(' ')
        {
            entry.shown = format!("{method} {server}{path}");
        }
    }
    Ok(Requests { bases: servers.0.into_iter().map(|server| server.request).collect(), entries, notes })
}

/// What a request of a file is.
fn entry(base: usize, shown: String, method: Method, target: Target, shared: &Options, count: u64) -> Entry {
    Entry {
        base,
        shown,
        expect: Statuses(vec![Status(200, 299)]),
        weight: count as f64,
        is_written: false,
        is_grpc: false,
        method,
        target,
        headers: complete(shared),
        body: Body::Base,
    }
}

/// `3 lines`, `1 line`.
fn lines(count: u64) -> String {
    format!("{count} {}", if count == 1 { "line" } else { "lines" })
}

fn note_lost(path: &Path, kept: usize, lost: u64, notes: &mut Vec<String>) {
    if lost > 0 {
        let lost = lines(lost);
        notes.push(format!("{}: the {kept} most frequent requests are sent, {lost} with others not", path.display()));
    }
}

fn join(methods: &[Method]) -> String {
    methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ")
}

/// A file with one request a line: `[METHOD] URL`, or a path; lines with `#` at their beginning say nothing.
struct FileReader<'f> {
    path: &'f Path,
    base: Option<&'f Base>,
    methods: &'f Methods,
    shared: &'f Options,
    servers: Servers,
}

impl FileReader<'_> {
    fn read(
        &mut self,
        most_read: u64,
        most: Most,
        entries: &mut Vec<Entry>,
        notes: &mut Vec<String>,
    ) -> Result<(), String> {
        let path = self.path.display();
        let mut lines_of = Lines::open(self.path, most_read)?;
        if lines_of.skipped > 0 {
            return Err(format!("{path}: it is larger than {} MiB", most_read >> 20));
        }
        let (mut tally, mut number, mut others) = (Tally::new(most), 0u64, 0u64);
        while let Some(line) = lines_of.next()? {
            number += 1;
            let at = |why: String| format!("{path}:{number}: {why}");
            let Line::Whole(line) = line else { return Err(at("the line is longer than 8 KiB".into())) };
            let line = std::str::from_utf8(line).map_err(|_| at("the line is not UTF-8 text".into()))?.trim();
            if line.len() > LONGEST {
                return Err(at("the line is longer than 8 KiB".into()));
            }
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (method, _) = split_method(line);
            let method = Method::from_bytes(method.unwrap_or("GET").as_bytes());
            if let Ok(method) = method
                && !self.methods.sent.contains(&method)
            {
                if self.methods.is_default {
                    return Err(at(format!("{method} is sent only if `methods` names it: it may change something")));
                }
                others += 1;
                continue;
            }
            if tally.add(line) {
                self.mean(line, 1).map_err(at)?;
            }
        }
        let begin = entries.len();
        let (counts, lost) = tally.finish();
        for (line, count) in counts {
            entries.push(self.mean(&line, count)?);
        }
        let kept = entries.len() - begin;
        if kept == 0 {
            return Err(match others {
                0 => format!("{path}: there is no request in it"),
                _ => format!("{path}: no request in it has one of the methods {}", join(&self.methods.sent)),
            });
        }
        if others > 0 {
            notes.push(format!("{path}: {} left out, whose method is not one of `methods`", lines(others)));
        }
        note_lost(self.path, kept, lost, notes);
        Ok(())
    }

    fn mean(&mut self, line: &str, count: u64) -> Result<Entry, String> {
        let (method, url) = split_method(line);
        let method = method.unwrap_or("GET");
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| format!("`{}` is not a method", method.escape_debug()))?;
        let unusable = |why: String| format!("this URL cannot be used: {why}");
        let (server, path) = aim(url, self.base).map_err(unusable)?;
        let target = Target::read(&path).map_err(|(why, is_placeholder)| match is_placeholder {
            true => why,
            false => unusable(why),
        })?;
        // Its options were checked with the configuration; what is new is the URL.
        let (mut secrets, mut problems) = (Vec::new(), Vec::new());
        let mut scope = Scope::of_command_line(&mut secrets, &mut problems);
        match self.servers.find(("", &server), self.shared, false, &mut scope) {
            Some(_) if self.servers.0.len() > MOST_SERVERS => {
                Err(format!("it is for more than {MOST_SERVERS} different servers"))
            }
            Some(server) => Ok(entry(server, show(method.as_str(), &path, false), method, target, self.shared, count)),
            None => Err(problems.into_iter().next().map_or_else(String::new, |problem| problem.what)),
        }
    }
}

/// An access log: how often a request succeeded is how often it is sent.
struct LogReader<'l> {
    path: &'l Path,
    base: &'l Base,
    server: usize,
    methods: &'l Methods,
    shared: &'l Options,
}

impl LogReader<'_> {
    fn read(
        &self,
        most_read: u64,
        most: Most,
        entries: &mut Vec<Entry>,
        notes: &mut Vec<String>,
    ) -> Result<(), String> {
        let path = self.path.display();
        let mut lines_of = Lines::open(self.path, most_read)?;
        let mut tally = Tally::new(most);
        let (mut read, mut unreadable, mut methods, mut statuses) = (0u64, 0u64, 0u64, 0u64);
        while let Some(line) = lines_of.next()? {
            let logged = match line {
                Line::Whole([]) => continue,
                Line::Whole(line) => read_log(line),
                Line::TooLong => None,
            };
            read += 1;
            match logged {
                None => unreadable += 1,
                Some(logged) if !self.methods.sent.contains(&logged.method) => methods += 1,
                // What failed is nothing to warm up with, and a redirect's target is a line of its own. 304 is what a
                // browser that has it already gets.
                Some(logged) if !matches!(logged.status, 200..=299 | 304) => statuses += 1,
                Some(logged) => {
                    tally.add(&format!("{} {}{}", logged.method, self.base.prefix, logged.path));
                }
            }
        }
        let begin = entries.len();
        let (counts, lost) = tally.finish();
        for (line, count) in counts {
            if let Some((method, path)) = line.split_once(' ')
                && let Ok(method) = Method::from_bytes(method.as_bytes())
                && let Some(target) = Target::constant(path)
            {
                entries.push(entry(
                    self.server,
                    show(method.as_str(), path, false),
                    method,
                    target,
                    self.shared,
                    count,
                ));
            }
        }
        let kept = entries.len() - begin;
        if kept == 0 {
            let sent = join(&self.methods.sent);
            return Err(match read {
                0 => format!("{path}: the access log is empty"),
                _ => format!(
                    "{path}: nothing in it can be sent: of {} {unreadable} cannot be read, {methods} have other methods \
                     than {sent}, {statuses} have other statuses than 2xx and 304",
                    lines(read)
                ),
            });
        }
        if lines_of.skipped > 0 {
            notes.push(format!("{path}: only its last {} MiB are read", most_read >> 20));
        }
        if unreadable > 0 {
            notes.push(format!("{path}: {unreadable} of {} cannot be read", lines(read)));
        }
        note_lost(self.path, kept, lost, notes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write, path::PathBuf};

    use super::*;
    use crate::{keys::parse, warm::requests::SourcesTyped};

    /// A configuration, in which `FILE` stands for the path.
    fn sources(text: &str, path: &Path) -> Sources {
        let typed: SourcesTyped = parse(&text.replace("FILE", &path.display().to_string())).expect(text);
        let (mut secrets, mut problems) = (Vec::new(), Vec::new());
        let sources = Sources::mean(typed, &mut Scope::of_command_line(&mut secrets, &mut problems));
        sources.unwrap_or_else(|| panic!("{problems:?}"))
    }

    /// What is shown of each request with its weight, and the notes; `FILE` stands for the path.
    fn load_of(text: &str, path: &Path, limits: Limits) -> Result<(Vec<String>, Vec<String>), String> {
        let short = |text: &str| text.replace(&path.display().to_string(), "FILE");
        let loaded = load(&sources(text, path).0, limits).map_err(|why| short(&why))?;
        for entry in &loaded.entries {
            assert!(entry.base < loaded.bases.len() && entry.weight > 0.0);
        }
        let shown = loaded.entries.iter().map(|entry| format!("{} {:.3}", entry.shown, entry.weight)).collect();
        Ok((shown, loaded.notes.iter().map(|note| short(note)).collect()))
    }

    fn file(text: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        fs::write(&path, text).expect("a file");
        (folder, path)
    }

    #[test]
    fn reads_files() {
        let base = "file = 'FILE'\nbase = 'http://a:80/app'";
        type Case<'c> = (&'c str, &'c str, Result<(&'c [&'c str], &'c [&'c str]), &'c str>);
        let long = "x".repeat(8192);
        let cases: &[Case<'_>] = &[
            (
                base,
                "\u{feff}# comment\r\n\r\n/x?a=1\r\n  GET\t/x?a=1\r\nHEAD /y?{{uuid}}\n/x?a=1",
                Ok((&["GET /app/x?… 0.500", "GET /app/x?… 0.250", "HEAD /app/y?… 0.250"], &[])),
            ),
            (
                base,
                "/x\nhttp://b:81/y\nhttp://a/z",
                Ok((&["GET http://a/app/x 0.333", "GET http://b:81/y 0.333", "GET http://a/z 0.333"], &[])),
            ),
            ("file = 'FILE'", "http://b/y", Ok((&["GET /y 1.000"], &[]))),
            (
                "lists = [{ file = 'FILE', base = 'http://a', weight = 3 }, { requests = ['http://a/z'] }]",
                "/x\n/y\n/x",
                Ok((&["GET /x 2.000", "GET /y 1.000", "GET /z 1.000"], &[])),
            ),
            (
                "file = 'FILE'\nbase = 'http://a'\nmethods = ['GET', 'DELETE']",
                "/x\nPOST /y\nDELETE /z\nHEAD /z",
                Ok((
                    &["GET /x 0.500", "DELETE /z 0.500"],
                    &["FILE: 2 lines left out, whose method is not one of `methods`"],
                )),
            ),
            (
                "file = 'FILE'\nbase = 'http://a'\nmethods = ['PUT', 'GET']",
                "POST /",
                Err("FILE: no request in it has one of the methods PUT, GET"),
            ),
            (base, "", Err("FILE: there is no request in it")),
            (base, "# none\n\n", Err("FILE: there is no request in it")),
            (base, "/\nPOST /x", Err("FILE:2: POST is sent only if `methods` names it: it may change something")),
            (base, "/\n\nG(T /x", Err("FILE:3: `G(T` is not a method")),
            (
                "file = 'FILE'",
                "/x",
                Err("FILE:1: this URL cannot be used: a path alone goes to `base`, which is not given"),
            ),
            (
                base,
                "x/y",
                Err("FILE:1: this URL cannot be used: it is not a URL; write it as \"http://host:port/path\""),
            ),
            (
                base,
                "ftp://a/",
                Err("FILE:1: this URL cannot be used: the scheme `ftp` is not one of http, https, unix"),
            ),
            (base, "http://a:0/", Err("FILE:1: this URL cannot be used: `0` is not a port between 1 and 65535")),
            (
                base,
                "http://u:p@a/",
                Err("FILE:1: this URL cannot be used: it holds a user or a password, which would end up in logs; use \
                     `basic` or `bearer`"),
            ),
            (
                base,
                "http://a{{uuid}}/",
                Err(
                    "FILE:1: this URL cannot be used: a placeholder may stand in the path, the query, a header or the body",
                ),
            ),
            (
                base,
                "/\n/{{random}}",
                Err("FILE:2: the placeholder `{{random}}` has no range of whole numbers such as 1-1000"),
            ),
            (
                base,
                "/a b",
                Err("FILE:1: this URL cannot be used: the path holds a space or a control character; write it as %20"),
            ),
            (
                base,
                &long,
                Err("FILE:1: this URL cannot be used: it is not a URL; write it as \"http://host:port/path\""),
            ),
            (base, &format!("{long}x"), Err("FILE:1: the line is longer than 8 KiB")),
            (base, &long.repeat(4), Err("FILE:1: the line is longer than 8 KiB")),
        ];
        for (config, text, expected) in cases {
            let (_folder, path) = file(text.as_bytes());
            let expected = expected.map_err(String::from).map(|(shown, notes)| {
                let own = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
                (own(shown), own(notes))
            });
            assert_eq!(load_of(config, &path, LIMITS), expected, "{text:.60}");
        }
        let (_folder, path) = file(b"/x\n/\xff");
        assert_eq!(load_of(base, &path, LIMITS), Err("FILE:2: the line is not UTF-8 text".into()));
        let small = Limits { file: 3 << 20, ..LIMITS };
        let (_folder, path) = file(&vec![b'\n'; (3 << 20) + 1]);
        assert_eq!(load_of(base, &path, small), Err("FILE: it is larger than 3 MiB".into()));
        let servers: String = (0..70).map(|server| format!("http://s{server}/\n")).collect();
        let (_folder, path) = file(servers.as_bytes());
        assert_eq!(load_of(base, &path, LIMITS), Err("FILE:65: it is for more than 64 different servers".into()));
        fs::remove_file(&path).expect("the file");
        assert_eq!(load_of(base, &path, LIMITS), Err("FILE: no such file or directory".into()));
    }

    /// As nginx writes it (`combined`): a browser, a scanner, a TLS client on the plain port, a health check.
    const NGINX: &str = r#"10.42.0.1 - - [22/Nov/2026:17:00:01 +0000] "GET / HTTP/1.1" 200 612 "-" "Mozilla/5.0 (X11; Linux x86_64)"
10.42.0.1 - - [22/Nov/2026:17:00:01 +0000] "GET /app.css?v=3 HTTP/1.1" 304 0 "http://shop/" "Mozilla/5.0 (X11; Linux x86_64)"
10.42.0.1 - - [22/Nov/2026:17:00:02 +0000] "GET /search?q=\x22red shoes\x22 HTTP/1.1" 400 150 "-" "x"
10.42.0.1 - - [22/Nov/2026:17:00:02 +0000] "GET /search?q=%22red%20shoes%22&token=s3cret HTTP/1.1" 200 150 "-" "x"
fd00::17 - alice [22/Nov/2026:17:00:03 +0000] "POST /cart HTTP/1.1" 201 20 "-" "x"
fd00::17 - alice [22/Nov/2026:17:00:03 +0000] "GET /wp-login.php HTTP/1.1" 404 153 "-" "\x22scanner\x22"
203.0.113.9 - - [22/Nov/2026:17:00:03 +0000] "\x16\x03\x01\x02\x00\x01\x00\x01\xFC\x03\x03" 400 157 "-" "-"
203.0.113.9 - - [22/Nov/2026:17:00:04 +0000] "" 400 0 "-" "-"
10.42.0.1 - - [22/Nov/2026:17:00:05 +0000] "HEAD /health HTTP/1.1" 200 0 "-" "kube-probe/1.31"
10.42.0.1 - - [22/Nov/2026:17:00:06 +0000] "GET / HTTP/2.0" 200 612 "-" "Mozilla/5.0 (X11; Linux x86_64)"
10.42.0.1 - - [22/Nov/2026:17:00:07 +0000] "GET http://evil.example/ HTTP/1.1" 200 612 "-" "-"
10.42.0.1 - - [22/Nov/2026:17:00:08 +0000] "GET /old HTTP/1.1" 301 169 "-" "-"
10.42.0.1 - - [22/Nov/2026:17:00:08 +0000] "GET /{{uuid}} HTTP/1.1" 200 1 "-" "-"
"#;

    /// As Apache writes it (`common` and `vhost_combined`).
    const APACHE: &str = r#"::1 - - [22/Nov/2026:17:00:01 +0000] "GET /a HTTP/1.1" 200 45
127.0.0.1 - "" [22/Nov/2026:17:00:01 +0000] "GET /b HTTP/1.1" 401 381
shop.example:80 127.0.0.1 - frank [22/Nov/2026:17:00:01 +0000] "GET /a HTTP/1.1" 200 45 "-" "curl/8 \"x\""
127.0.0.1 - - [22/Nov/2026:17:00:02 +0000] "-" 408 -
::1 - - [22/Nov/2026:17:00:03 +0000] "OPTIONS * HTTP/1.0" 200 126
127.0.0.1 - - [22/Nov/2026:17:00:03 +0000] "GET /c\"d HTTP/1.1" 200 4
"#;

    #[test]
    fn reads_access_logs() {
        let log = "access-log = 'FILE'\nbase = 'http://a/'";
        type Case<'c> = (&'c str, &'c str, Result<(&'c [&'c str], &'c [&'c str]), &'c str>);
        let cases: &[Case<'_>] = &[
            (
                log,
                NGINX,
                Ok((
                    &[
                        "GET / 0.429",
                        "GET /app.css?… 0.143",
                        "GET /search?… 0.143",
                        "HEAD /health 0.143",
                        "GET /%7B%7Buuid%7D%7D 0.143",
                    ],
                    &["FILE: 3 of 13 lines cannot be read"],
                )),
            ),
            (
                "access-log = 'FILE'\nbase = 'http://a/b/'\nmethods = ['POST']",
                NGINX,
                Ok((&["POST /b/cart 1.000"], &["FILE: 3 of 13 lines cannot be read"])),
            ),
            (log, APACHE, Ok((&["GET /a 0.667", "GET /c%22d 0.333"], &["FILE: 2 of 6 lines cannot be read"]))),
            (
                "access-log = 'FILE'\nbase = 'http://a/'\nmethods = ['DELETE', 'PUT']",
                NGINX,
                Err(
                    "FILE: nothing in it can be sent: of 13 lines 3 cannot be read, 10 have other methods than DELETE, PUT, 0 \
                     have other statuses than 2xx and 304",
                ),
            ),
            (log, "", Err("FILE: the access log is empty")),
            (log, "\n\n", Err("FILE: the access log is empty")),
            (
                log,
                "{\"method\":\"GET\"}\n",
                Err(
                    "FILE: nothing in it can be sent: of 1 line 1 cannot be read, 0 have other methods than GET, HEAD, 0 have \
                     other statuses than 2xx and 304",
                ),
            ),
        ];
        for (config, text, expected) in cases {
            let (_folder, path) = file(text.as_bytes());
            let expected = expected.map_err(String::from).map(|(shown, notes)| {
                let own = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
                (own(shown), own(notes))
            });
            assert_eq!(load_of(config, &path, LIMITS), expected, "{config}\n{text:.60}");
        }
    }

    #[test]
    fn keeps_what_fits() {
        let line = |path: u32| format!("a - - [t] \"GET /{path} HTTP/1.1\" 200 1\n");
        let log: String = (0..180).map(|path| line(path) + &line(path / 10) + &line(7)).collect();
        let (_folder, path) = file(log.as_bytes());
        let config = "access-log = 'FILE'\nbase = 'http://a'\nrequests = ['http://a/x', 'http://a/y']";
        let (shown, notes) = load_of(config, &path, Limits { requests: 52, ..LIMITS }).expect("a log");
        assert_eq!(shown.len(), 52);
        assert_eq!(shown[..3], ["GET /x 0.500", "GET /y 0.500", "GET /0 0.027"]);
        // /7 comes 180 + 10 + 1 times, the others up to /17 11 times; of the rest there is room for 32.
        assert_eq!(shown[20..22], ["GET /148 0.002", "GET /149 0.002"]);
        assert_eq!(shown[3], "GET /7 0.466");
        assert_eq!(notes, ["FILE: the 50 most frequent requests are sent, 130 lines with others not"]);
    }

    /// Through the public door: a log of 70 MB, most of which is one line without an end.
    #[test]
    fn reads_the_end_of_a_big_log() {
        let (_folder, path) = file(b"a - - [t] \"GET /first HTTP/1.1\" 200 1\n");
        let mut log = fs::OpenOptions::new().append(true).open(&path).expect("the file");
        log.set_len(70 << 20).expect("a sparse file");
        log.write_all(b"\na - - [t] \"GET /last HTTP/1.1\" 200 1\nbroken\n").expect("lines");
        let sources = sources("access-log = 'FILE'\nbase = 'http://a'", &path);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let loaded = runtime.block_on(sources.load()).expect("a log");
        let shown: Vec<_> = loaded.entries.iter().map(|entry| &*entry.shown).collect();
        assert_eq!((shown, loaded.bases.len()), (vec!["GET /last"], 1));
        let path = path.display();
        // The rest of the endless line is passed over with the cut beginning.
        assert_eq!(
            loaded.notes,
            [format!("{path}: only its last 64 MiB are read"), format!("{path}: 1 of 2 lines cannot be read")]
        );
        // Again, as a retried step does.
        assert_eq!(runtime.block_on(sources.load()).expect("a log").entries.len(), 1);
    }

    /// A linear congruential generator, so that a failure can be repeated.
    #[test]
    fn survives_noise() {
        let mut state = 1u64;
        let mut next = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        let words: &[&str] = &[
            "GET ",
            "/",
            "http://",
            "a",
            "{{",
            "}}",
            "uuid",
            "random:1-",
            "one-of:",
            ":",
            "?",
            "#",
            "\n",
            " ",
            "ü",
            "\u{0}",
            "[",
            "unix:///",
        ];
        let (_folder, path) = file(b"");
        let mut usable = 0;
        for _ in 0..2_000 {
            let text: String = (0..12).map(|_| words[next(words.len())]).collect();
            fs::write(&path, &text).expect("a file");
            for config in ["file = 'FILE'\nbase = 'http://a/b'", "access-log = 'FILE'\nbase = 'http://a'"] {
                if let Ok((shown, _)) = load_of(config, &path, LIMITS) {
                    assert!(!shown.is_empty(), "{text}");
                    usable += 1;
                }
            }
        }
        assert!(usable > 20, "{usable}");
    }
}
