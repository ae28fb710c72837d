//! What the sources mean, or every problem with them.

use std::{path::PathBuf, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use hyper::{Method, header::HeaderName};

use super::{
    Body, Entry, ListTyped, RequestTyped, SourcesTyped,
    target::{Base, Target, aim, show, split_method},
    template::{self, Template},
};
use crate::{
    client::{
        Request,
        grpc::{NO_HTTP2, frame},
        options::{Header, Options},
        status::{Status, Statuses},
        url::Url,
    },
    problem::Scope,
    value::Number,
};

/// Several thousand different requests warm what an application has; each takes some hundred bytes of memory.
pub const MOST_REQUESTS: usize = 10_000;
/// Far more than a warm-up sends in a minute: what is lighter would never be sent, and what is typed so is a mistake.
const WEIGHTS: [f64; 2] = [0.001, 1_000_000.0];

/// Where the requests come from. Files are read when the step begins: they may come from a restore.
#[derive(Clone, Debug)]
pub struct Sources(pub(super) Arc<Plan>);

#[derive(Debug)]
pub(super) struct Plan {
    pub lists: Vec<List>,
    pub servers: Servers,
    /// For all requests of files.
    pub shared: Options,
}

/// One source. Its weight is shared among its requests by theirs.
#[derive(Debug)]
pub(super) struct List {
    pub weight: f64,
    pub source: Source,
}

#[derive(Debug)]
pub(super) enum Source {
    Written(Vec<Entry>),
    File(PathBuf, Option<Base>, Methods),
    /// What is sent of it, and the index of its server.
    Log(PathBuf, Base, usize, Methods),
}

/// Which methods of a file are sent.
#[derive(Clone, Debug)]
pub(super) struct Methods {
    pub sent: Vec<Method>,
    /// Nobody said so.
    pub is_default: bool,
}

/// Each server, with each set of options that is used for it, once.
#[derive(Clone, Debug, Default)]
pub(super) struct Servers(pub Vec<Server>);

#[derive(Clone, Debug)]
pub(super) struct Server {
    url: Url,
    options: Options,
    is_grpc: bool,
    pub request: Request,
}

impl Servers {
    /// The index of a server; `None` when a problem was noted.
    pub fn find(
        &mut self,
        (key, url): (&str, &str),
        options: &Options,
        is_grpc: bool,
        scope: &mut Scope<'_>,
    ) -> Option<usize> {
        let parsed = Url::parse(url).ok();
        let found = self.0.iter().position(|server| {
            parsed.as_ref().is_some_and(|url| url.same_origin(&server.url))
                && server.is_grpc == is_grpc
                && server.options == *options
        });
        if found.is_some() {
            return found;
        }
        let request = Request::mean(key, url, options.clone(), scope)?;
        self.0.push(Server { url: parsed?, options: options.clone(), is_grpc, request });
        Some(self.0.len() - 1)
    }

    /// `http://host:port`, where there is more than one.
    pub fn show(&self, server: usize) -> Option<String> {
        let first = &self.0.first()?.url;
        if self.0.iter().all(|server| server.url.same_origin(first)) {
            return None;
        }
        let shown = self.0.get(server)?.url.to_string();
        Some(shown.strip_suffix('/').unwrap_or(&shown).to_owned())
    }
}

/// What all requests of a source have in common.
struct Common<'c> {
    shared: &'c Options,
    base: Option<&'c Base>,
    methods: &'c Methods,
}

impl Sources {
    /// Gives meaning to what was typed; `None` when at least one problem was noted.
    pub fn mean(typed: SourcesTyped, scope: &mut Scope<'_>) -> Option<Sources> {
        let before = scope.problems.len();
        let shared = mean_shared(typed.options, scope);
        let base = mean_base(typed.base, None, &shared, scope);
        let has_files = typed.file.is_some()
            || typed.access_log.is_some()
            || typed.lists.iter().any(|list| list.file.is_some() || list.access_log.is_some());
        if !typed.methods.is_empty() && !has_files {
            scope.problem("methods", "it belongs to `file` and `access-log`, and neither is given", None);
        }
        let default = Methods { sent: vec![Method::GET, Method::HEAD], is_default: true };
        let methods = mean_methods(typed.methods, default, scope);
        let mut servers = Servers::default();
        let mut lists = Vec::new();
        let mut add = |source: Option<Source>, weight: f64| lists.extend(source.map(|source| List { weight, source }));
        if typed.requests.is_empty() && typed.file.is_none() && typed.access_log.is_none() && typed.lists.is_empty() {
            let help = "give `requests`, `file`, `access-log` or `lists`";
            scope.problem("", "what to send is missing", Some(help.into()));
        }
        let common = Common { shared: &shared, base: base.as_ref(), methods: &methods };
        if !typed.requests.is_empty() {
            add(mean_requests(typed.requests, &common, &mut servers, scope), 1.0);
        }
        if let Some(path) = typed.file {
            add(mean_file(path, &common, scope), 1.0);
        }
        if let Some(path) = typed.access_log {
            add(mean_log(path, &common, &mut servers, scope), 1.0);
        }
        for (number, list) in typed.lists.into_iter().enumerate() {
            let outer = enter(scope, &format!("lists: number {}", number + 1));
            let weight = mean_weight(list.weight, scope);
            add(mean_list(list, &common, &mut servers, scope), weight);
            scope.place = outer;
        }
        let written: usize = lists
            .iter()
            .map(|list| match &list.source {
                Source::Written(entries) => entries.len(),
                _ => 0,
            })
            .sum();
        if written > MOST_REQUESTS {
            scope.problem("requests", format!("{written} are more than {MOST_REQUESTS}"), None);
        }
        (scope.problems.len() == before).then(|| Sources(Arc::new(Plan { lists, servers, shared })))
    }
}

/// Goes to a place within; what it was before is to be put back.
fn enter(scope: &mut Scope<'_>, inner: &str) -> String {
    let outer = scope.place.clone();
    scope.place = if outer.is_empty() { inner.into() } else { format!("{outer}: {inner}") };
    outer
}

/// The options for all requests that have none of their own. Wrong ones are told once, and then left out.
fn mean_shared(mut options: Options, scope: &mut Scope<'_>) -> Options {
    let before = scope.problems.len();
    let own = "it belongs to a request of its own";
    let help = "write it into a table of `requests`: { url = \"…\", … = … }";
    for (key, given) in [
        ("method", options.method.take().is_some()),
        ("body", options.body.take().is_some()),
        ("body-file", options.body_file.take().is_some()),
    ] {
        if given {
            scope.problem(key, own, Some(help.into()));
        }
    }
    refuse_redirects(&mut options, scope);
    check_headers(&options, scope);
    if options != Options::default() {
        // Only what is wrong with them is of interest; this host is never asked.
        Request::mean("", "http://localhost/", options.clone(), scope);
    }
    if scope.problems.len() > before { Options::default() } else { options }
}

fn refuse_redirects(options: &mut Options, scope: &mut Scope<'_>) {
    if options.follow_redirects.take().is_some() {
        let help = "give the URL that is redirected to, or count the redirect as a success: expect = 302";
        scope.problem("follow-redirects", "warm-up follows no redirects", Some(help.into()));
    }
}

/// Where paths go. A wrong one is told once; another stands in for it, for what is wrong with the paths.
fn mean_base(typed: Option<String>, outer: Option<&Base>, shared: &Options, scope: &mut Scope<'_>) -> Option<Base> {
    let Some(text) = typed else { return outer.cloned() };
    match Base::read(text.trim()) {
        Ok(base) => {
            if Servers::default().find(("base", &base.server), shared, false, scope).is_some() {
                return Some(base);
            }
        }
        Err(why) => scope.problem("base", format!("this URL cannot be used: {why}"), None),
    }
    Some(Base { server: "http://localhost/".into(), prefix: String::new() })
}

fn mean_methods(typed: Vec<String>, outer: Methods, scope: &mut Scope<'_>) -> Methods {
    if typed.is_empty() {
        return outer;
    }
    let sent = typed.iter().filter_map(|method| mean_method("methods", method, scope)).collect();
    Methods { sent, is_default: false }
}

fn mean_method(key: &str, method: &str, scope: &mut Scope<'_>) -> Option<Method> {
    match Method::from_bytes(method.as_bytes()) {
        Ok(Method::CONNECT) => scope.problem(key, "CONNECT asks for a tunnel, not for an answer", None),
        Ok(method) => return Some(method),
        Err(_) => scope.problem(key, format!("`{}` is not a method", method.escape_default()), None),
    }
    None
}

fn mean_weight(weight: Option<Number>, scope: &mut Scope<'_>) -> f64 {
    let weight = weight.map_or(1.0, |weight| weight.0);
    let [least, most] = WEIGHTS;
    if !(least..=most).contains(&weight) {
        scope.problem("weight", format!("{weight} is not between {least} and {most}"), None);
    }
    weight
}

fn mean_list(typed: ListTyped, outer: &Common<'_>, servers: &mut Servers, scope: &mut Scope<'_>) -> Option<Source> {
    let base = mean_base(typed.base, outer.base, outer.shared, scope);
    if !typed.methods.is_empty() && typed.file.is_none() && typed.access_log.is_none() {
        scope.problem("methods", "it belongs to `file` and `access-log`, and neither is given", None);
    }
    let methods = mean_methods(typed.methods, outer.methods.clone(), scope);
    let common = Common { shared: outer.shared, base: base.as_ref(), methods: &methods };
    match (typed.requests.is_empty(), typed.file, typed.access_log) {
        (false, None, None) => mean_requests(typed.requests, &common, servers, scope),
        (true, Some(path), None) => mean_file(path, &common, scope),
        (true, None, Some(path)) => mean_log(path, &common, servers, scope),
        (true, None, None) => {
            let help = "give `requests`, `file` or `access-log`";
            scope.problem("", "what to send is missing", Some(help.into()));
            None
        }
        _ => {
            let what = "more than one of `requests`, `file` and `access-log`";
            scope.problem("", what, Some("make a list of each".into()));
            None
        }
    }
}

fn mean_path(key: &str, path: PathBuf, scope: &mut Scope<'_>) -> Option<PathBuf> {
    if path.as_os_str().is_empty() {
        scope.problem(key, "it is empty", None);
        return None;
    }
    Some(path)
}

fn mean_file(path: PathBuf, common: &Common<'_>, scope: &mut Scope<'_>) -> Option<Source> {
    let path = mean_path("file", path, scope)?;
    Some(Source::File(path, common.base.cloned(), common.methods.clone()))
}

fn mean_log(path: PathBuf, common: &Common<'_>, servers: &mut Servers, scope: &mut Scope<'_>) -> Option<Source> {
    let path = mean_path("access-log", path, scope)?;
    let Some(base) = common.base else {
        let help = "give the URL of the server: base = \"http://127.0.0.1:8080\"";
        scope.problem("access-log", "an access log holds paths alone, and `base` is missing", Some(help.into()));
        return None;
    };
    let server = servers.find(("base", &base.server), common.shared, false, scope)?;
    Some(Source::Log(path, base.clone(), server, common.methods.clone()))
}

fn mean_requests(
    typed: Vec<RequestTyped>,
    common: &Common<'_>,
    servers: &mut Servers,
    scope: &mut Scope<'_>,
) -> Option<Source> {
    let mut entries = Vec::new();
    for (number, request) in typed.into_iter().enumerate() {
        let outer = enter(scope, &format!("requests: number {}", number + 1));
        entries.extend(mean_request(request, common, servers, scope));
        scope.place = outer;
    }
    Some(Source::Written(entries))
}

fn mean_request(
    mut typed: RequestTyped,
    common: &Common<'_>,
    servers: &mut Servers,
    scope: &mut Scope<'_>,
) -> Option<Entry> {
    let before = scope.problems.len();
    let weight = mean_weight(typed.weight, scope);
    refuse_redirects(&mut typed.options, scope);
    let is_grpc = typed.grpc.is_some();
    let (key, url) = match (&typed.url, &typed.grpc) {
        (Some(url), None) => ("url", url.clone()),
        (None, Some(url)) => ("grpc", url.trim().to_owned()),
        (None, None) => {
            scope.problem("", "`url` is missing", Some("write { url = \"http://…\" }, or { grpc = \"…\" }".into()));
            return None;
        }
        (Some(_), Some(_)) => {
            scope.problem("", "`url` and `grpc` are given", Some("give one of them".into()));
            return None;
        }
    };
    let (method, url) = if is_grpc { (None, &*url) } else { split_method(&url) };
    let own = typed.options.method.take();
    if own.is_some() && method.is_some() {
        scope.problem("method", "the URL begins with a method as well", Some("give one of them".into()));
    }
    let method = match own.as_deref().or(method) {
        _ if is_grpc => Some(Method::POST),
        None => Some(Method::GET),
        Some(method) => mean_method(if own.is_some() { "method" } else { key }, method, scope),
    };
    let message = typed.message.take();
    let message_file = typed.message_file.take();
    let body = if is_grpc {
        for (key, given) in [
            ("method", own.is_some()),
            ("body", typed.options.body.take().is_some()),
            ("body-file", typed.options.body_file.take().is_some()),
        ] {
            if given {
                let help = "what is sent is `message` or `message-file`";
                scope.problem(key, "it means nothing for a gRPC call", Some(help.into()));
            }
        }
        mean_message(message, message_file, scope)
    } else {
        for (key, given) in [("message", message.is_some()), ("message-file", message_file.is_some())] {
            if given {
                scope.problem(key, "it belongs to `grpc`, which is not given", None);
            }
        }
        mean_body(&mut typed.options, scope)
    };
    check_headers(&typed.options, scope);
    let mut options = merge(typed.options, common.shared);
    if is_grpc {
        // RFC 9113 section 8.2.2 forbids any other `te`; gRPC's protocol asks for this one.
        options
            .headers
            .retain(|header| !["content-type", "te"].iter().any(|name| header.name.trim().eq_ignore_ascii_case(name)));
        for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
            options.headers.push(Header { name: name.into(), value: value.into() });
        }
        if !cfg!(feature = "http2") {
            scope.problem("grpc", NO_HTTP2.0, Some(NO_HTTP2.1.into()));
        }
    }
    let (server, path) = match aim(url, common.base) {
        Ok(found) => found,
        Err(why) => {
            let help = why.starts_with("a placeholder").then(|| template::HELP.into());
            scope.problem(key, format!("this URL cannot be used: {why}"), help);
            return None;
        }
    };
    let target = match Target::read(&path) {
        Ok(target) => Some(target),
        Err((why, false)) => {
            scope.problem(key, format!("this URL cannot be used: {why}"), None);
            None
        }
        Err((why, true)) => {
            scope.problem(key, why, Some(template::HELP.into()));
            None
        }
    };
    if is_grpc && !is_call(&path) {
        let help = "write \"http://host:port/package.Service/Method\"";
        scope.problem(key, "its path does not name a service and a method", Some(help.into()));
    }
    let server = servers.find((key, &server), &options, is_grpc, scope);
    if scope.problems.len() > before {
        return None;
    }
    let (server, method) = (server?, method?);
    let shown = show(if is_grpc { "gRPC" } else { method.as_str() }, &path, true);
    let expect = if typed.expect.is_empty() { vec![Status(200, 299)] } else { typed.expect };
    Some(Entry {
        base: server,
        shown,
        expect: Statuses(expect),
        weight,
        is_written: true,
        is_grpc,
        method,
        target: target?,
        headers: complete(&options),
        body: body?,
    })
}

/// Whether a path is `/package.Service/Method`.
fn is_call(path: &str) -> bool {
    let mut parts = path.split('/');
    let names = [parts.next(), parts.next(), parts.next(), parts.next()];
    matches!(names, [Some(""), Some(service), Some(method), None] if !service.is_empty() && !method.is_empty())
        && !path.contains(['?', '#', '{'])
}

/// A request's body; that of a file stays with the options.
fn mean_body(options: &mut Options, scope: &mut Scope<'_>) -> Option<Body> {
    if options.body_file.is_some() && options.body.is_some() {
        // Told with all that is wrong with a request.
        return None;
    }
    let Some(text) = options.body.take() else { return Some(Body::Base) };
    let template = read_template("body", &text, scope)?;
    Some(match template.constant() {
        Some(text) => Body::Constant(Bytes::copy_from_slice(text.as_bytes())),
        None => Body::Template(template),
    })
}

fn mean_message(message: Option<String>, file: Option<PathBuf>, scope: &mut Scope<'_>) -> Option<Body> {
    match (message, file) {
        (Some(_), Some(_)) => {
            scope.problem("message-file", "`message` is given as well", Some("give one of them".into()));
            None
        }
        (None, Some(path)) => mean_path("message-file", path, scope).map(Body::Message),
        (message, None) => match BASE64_STANDARD.decode(message.unwrap_or_default().trim()) {
            Ok(message) => Some(Body::Constant(frame(&message))),
            Err(_) => {
                let help = "write what `protoc --encode … | base64 -w0` prints";
                scope.problem("message", "it is not base64", Some(help.into()));
                None
            }
        },
    }
}

fn read_template(key: &str, text: &str, scope: &mut Scope<'_>) -> Option<Template> {
    Template::read(text).map_err(|why| scope.problem(key, why, Some(template::HELP.into()))).ok()
}

/// Whether the placeholders of headers are as they should be; all else is told with what is wrong with a request.
fn check_headers(options: &Options, scope: &mut Scope<'_>) {
    for header in &options.headers {
        read_template("headers", &header.value, scope);
    }
}

/// All values of the headers of which one has a placeholder.
pub(super) fn complete(options: &Options) -> Vec<(HeaderName, Vec<Template>)> {
    let mut headers: Vec<(HeaderName, Vec<Template>)> = Vec::new();
    for header in options.headers.iter().filter(|header| header.value.contains("{{")) {
        let Ok(name) = HeaderName::try_from(header.name.as_str()) else { continue };
        if !headers.iter().any(|(other, _)| *other == name) {
            let same = options.headers.iter().filter(|other| other.name.eq_ignore_ascii_case(name.as_str()));
            let values = same.filter_map(|header| Template::read(&header.value).ok()).collect();
            headers.push((name, values));
        }
    }
    headers
}

/// A request's own options, and for what it does not say those for all. What belongs together stays together: a login,
/// a certificate with its key, whom to trust.
fn merge(mut own: Options, shared: &Options) -> Options {
    let is_login = |header: &Header| header.name.eq_ignore_ascii_case("authorization");
    let has_login =
        own.bearer.is_some() || own.bearer_file.is_some() || own.basic.is_some() || own.headers.iter().any(is_login);
    let inherited = shared.headers.iter().filter(|header| {
        if has_login && is_login(header) {
            return false;
        }
        !own.headers.iter().any(|other| other.name.eq_ignore_ascii_case(&header.name))
    });
    let inherited: Vec<Header> = inherited.cloned().collect();
    own.headers.splice(0..0, inherited);
    if !has_login {
        own.bearer.clone_from(&shared.bearer);
        own.bearer_file.clone_from(&shared.bearer_file);
        own.basic.clone_from(&shared.basic);
    }
    if own.cert_file.is_none() && own.key_file.is_none() {
        own.cert_file.clone_from(&shared.cert_file);
        own.key_file.clone_from(&shared.key_file);
    }
    if own.ca_file.is_none() && own.insecure.is_none() {
        own.ca_file.clone_from(&shared.ca_file);
        own.insecure = shared.insecure;
    }
    own.server_name = own.server_name.or_else(|| shared.server_name.clone());
    own.unix_socket = own.unix_socket.or_else(|| shared.unix_socket.clone());
    own
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::parse;

    fn mean(text: &str) -> Result<Sources, Vec<String>> {
        let typed: SourcesTyped = parse(text).expect(text);
        let (mut secrets, mut problems) = (Vec::new(), Vec::new());
        let sources = Sources::mean(typed, &mut Scope::of_command_line(&mut secrets, &mut problems));
        assert_eq!(sources.is_none(), !problems.is_empty(), "{text}: {problems:?}");
        sources.ok_or_else(|| problems.iter().map(ToString::to_string).collect())
    }

    /// What is shown of each request that was written, with its server.
    fn shown(text: &str) -> Vec<(String, usize)> {
        let sources = mean(text).unwrap_or_else(|why| panic!("{text}: {why:?}"));
        let mut shown = Vec::new();
        for list in &sources.0.lists {
            if let Source::Written(entries) = &list.source {
                shown.extend(entries.iter().map(|entry| (entry.shown.clone(), entry.base)));
            }
        }
        shown
    }

    #[test]
    fn shares_servers() {
        for (text, expected) in [
            (
                "base = 'http://a/b/'\nrequests = ['/x', 'POST http://a:80/y?z=1', 'http://b', 'unix:///s:/x', 'HEAD unix:///s:/y']",
                vec![("GET /b/x", 0), ("POST /y?z=1", 0), ("GET /", 1), ("GET /x", 2), ("HEAD /y", 2)],
            ),
            (
                "requests = [{ url = 'http://a/x', method = 'PUT', body = 'a' }, { url = 'PATCH http://a/', body = 'b' },\
                 { url = 'http://a', headers = { x = 'y' } }, { url = 'http://a', body-file = '/b' }, 'http://a']",
                vec![("PUT /x", 0), ("PATCH /", 0), ("GET /", 1), ("GET /", 2), ("GET /", 0)],
            ),
        ] {
            let expected: Vec<_> = expected.into_iter().map(|(shown, base)| (shown.to_owned(), base)).collect();
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[cfg(feature = "http2")]
    #[test]
    fn a_call_has_a_server_of_its_own() {
        let text = "requests = ['http://a/', { grpc = 'http://a/p.S/M', message = 'CgVzaG9lcw==' }, { grpc = 'http://a/S/N' }]";
        let expected = [("GET /", 0), ("gRPC /p.S/M", 1), ("gRPC /S/N", 1)];
        assert_eq!(shown(text), expected.map(|(shown, base)| (shown.to_owned(), base)));
    }

    #[cfg(not(feature = "http2"))]
    #[test]
    fn says_that_there_is_no_http_2() {
        let problems = mean("requests = [{ grpc = 'http://a/p.S/M' }]").expect_err("no HTTP/2");
        let expected =
            "command line: requests: number 1: grpc: this build has no HTTP/2\n  help: use the full boathook";
        assert_eq!(problems, [expected]);
    }

    const PLACEHOLDERS: &str = "placeholders are {{random:1-1000}}, {{one-of:a,b,c}}, {{date}}, {{date:%Y-%m-%d}}, \
                                {{counter}} and {{uuid}}; a literal `{{` is written `{{{{`";

    #[test]
    fn says_every_problem() {
        let own =
            "it belongs to a request of its own\n  help: write it into a table of `requests`: { url = \"…\", … = … }";
        for (text, expected) in [
            ("", vec!["what to send is missing\n  help: give `requests`, `file`, `access-log` or `lists`".to_owned()]),
            ("lists = [{}]", vec![
                "lists: number 1: what to send is missing\n  help: give `requests`, `file` or `access-log`".into(),
            ]),
            ("lists = [{ file = '/a', access-log = '/b', base = 'http://a' }]", vec![
                "lists: number 1: more than one of `requests`, `file` and `access-log`\n  help: make a list of each".into(),
            ]),
            ("access-log = '/a'", vec![
                "access-log: an access log holds paths alone, and `base` is missing\n  help: give the URL of the server: \
                 base = \"http://127.0.0.1:8080\"".into(),
            ]),
            ("file = ''\nmethods = ['CONNECT', 'a b']", vec![
                "methods: CONNECT asks for a tunnel, not for an answer".into(),
                "methods: `a b` is not a method".into(),
                "file: it is empty".into(),
            ]),
            ("requests = ['http://a']\nmethods = ['GET']", vec![
                "methods: it belongs to `file` and `access-log`, and neither is given".into(),
            ]),
            ("requests = ['http://a']\nbase = 'http://a/?b'", vec![
                "base: this URL cannot be used: paths follow it, so it cannot hold a query or a fragment".into(),
            ]),
            ("requests = ['/a', 'b', '/{{}}']\nbase = 'http://a:x'", vec![
                "base: this URL cannot be used: `x` is not a port between 1 and 65535".into(),
                "requests: number 2: url: this URL cannot be used: it is not a URL; write it as \"http://host:port/path\"".into(),
                format!("requests: number 3: url: the placeholder `{{{{}}}}` is not known\n  help: {PLACEHOLDERS}"),
            ]),
            ("requests = ['/a']", vec![
                "requests: number 1: url: this URL cannot be used: a path alone goes to `base`, which is not given".into(),
            ]),
            (
                "requests = [{ url = 'http://a', weight = 0 }, { url = 'http://a', weight = -1 }]\n\
                 lists = [{ file = '/a', weight = 1e9 }]",
                vec![
                    "requests: number 1: weight: 0 is not between 0.001 and 1000000".into(),
                    "requests: number 2: weight: -1 is not between 0.001 and 1000000".into(),
                    "lists: number 1: weight: 1000000000 is not between 0.001 and 1000000".into(),
                ],
            ),
            (
                "requests = ['http://a']\nmethod = 'POST'\nbody = 'x'\nbody-file = '/x'\nfollow-redirects = 3\n\
                 headers = { x = '{{y}}' }",
                vec![
                    format!("method: {own}"),
                    format!("body: {own}"),
                    format!("body-file: {own}"),
                    "follow-redirects: warm-up follows no redirects\n  help: give the URL that is redirected to, or count the \
                     redirect as a success: expect = 302".into(),
                    format!("headers: the placeholder `{{{{y}}}}` is not known\n  help: {PLACEHOLDERS}"),
                ],
            ),
            ("requests = ['http://a', 'http://b']\nbearer = ''", vec![
                "bearer: it is empty or holds a line break or a control character".into(),
            ]),
            (
                "requests = ['http://{{uuid}}/', 'http://a/{{random:9-1}}', 'http://a/a b', 'CONNECT http://a', 'G(T http://a']",
                vec![
                    format!(
                        "requests: number 1: url: this URL cannot be used: a placeholder may stand in the path, the query, a \
                         header or the body\n  help: {PLACEHOLDERS}"
                    ),
                    format!(
                        "requests: number 2: url: the placeholder `{{{{random:9-1}}}}` has a range whose end is before its \
                         beginning\n  help: {PLACEHOLDERS}"
                    ),
                    "requests: number 3: url: this URL cannot be used: the path holds a space or a control character; write \
                     it as %20".into(),
                    "requests: number 4: url: CONNECT asks for a tunnel, not for an answer".into(),
                    "requests: number 5: url: `G(T` is not a method".into(),
                ],
            ),
            (
                "requests = [{ weight = 1 }, { url = 'http://a', grpc = 'http://a/b/c' }, { url = 'GET http://a', method = 'PUT' },\
                 { url = 'http://a', message = 'YQ==', follow-redirects = 1 }, { url = 'http://a', body = 'a{{', body-file = '/b' },\
                 { url = 'http://a', body = 'a{{', headers = { 'a b' = '{{' } }]",
                vec![
                    "requests: number 1: `url` is missing\n  help: write { url = \"http://…\" }, or { grpc = \"…\" }".into(),
                    "requests: number 2: `url` and `grpc` are given\n  help: give one of them".into(),
                    "requests: number 3: method: the URL begins with a method as well\n  help: give one of them".into(),
                    "requests: number 4: follow-redirects: warm-up follows no redirects\n  help: give the URL that is \
                     redirected to, or count the redirect as a success: expect = 302".into(),
                    "requests: number 4: message: it belongs to `grpc`, which is not given".into(),
                    "requests: number 5: body-file: `body` is given as well\n  help: give one of them".into(),
                    format!("requests: number 6: body: a placeholder begins with `{{{{` and has no `}}}}`\n  help: {PLACEHOLDERS}"),
                    format!("requests: number 6: headers: a placeholder begins with `{{{{` and has no `}}}}`\n  help: {PLACEHOLDERS}"),
                    "requests: number 6: headers: `a b` is not the name of a header".into(),
                ],
            ),
        ] {
            let expected: Vec<_> = expected.iter().map(|what| format!("command line: {what}")).collect();
            assert_eq!(mean(text).map(|_| ()), Err(expected), "{text}");
        }
    }

    #[cfg(feature = "http2")]
    #[test]
    fn says_what_is_wrong_with_a_call() {
        let path =
            "its path does not name a service and a method\n  help: write \"http://host:port/package.Service/Method\"";
        let sent = "it means nothing for a gRPC call\n  help: what is sent is `message` or `message-file`";
        for (request, expected) in [
            ("grpc = 'http://a/b'", vec![format!("grpc: {path}")]),
            ("grpc = 'http://a//b'", vec![format!("grpc: {path}")]),
            ("grpc = 'http://a/b/{{uuid}}'", vec![format!("grpc: {path}")]),
            ("grpc = 'http://a/b/c?d'", vec![format!("grpc: {path}")]),
            (
                "grpc = 'POST http://a/b/c'",
                vec!["grpc: this URL cannot be used: it is not a URL; write it as \"http://host:port/path\"".into()],
            ),
            (
                "grpc = 'http://a/b/c', method = 'GET', body = 'x', body-file = '/x'",
                vec![format!("method: {sent}"), format!("body: {sent}"), format!("body-file: {sent}")],
            ),
            (
                "grpc = 'http://a/b/c', message = '!'",
                vec!["message: it is not base64\n  help: write what `protoc --encode … | base64 -w0` prints".into()],
            ),
            (
                "grpc = 'http://a/b/c', message = 'YQ==', message-file = '/x'",
                vec!["message-file: `message` is given as well\n  help: give one of them".into()],
            ),
        ] {
            let expected: Vec<_> =
                expected.iter().map(|what| format!("command line: requests: number 1: {what}")).collect();
            assert_eq!(mean(&format!("requests = [{{ {request} }}]")).map(|_| ()), Err(expected), "{request}");
        }
    }

    #[test]
    fn own_options_come_before_those_for_all() {
        let options = |text: &str| parse::<Options>(text).expect(text);
        let shared = options(
            "bearer = 't'\nca-file = '/ca'\ncert-file = '/c'\nkey-file = '/k'\nserver-name = 's'\nheaders = { a = '1', b = '2' }",
        );
        for (own, merged) in [
            ("", shared.clone()),
            (
                "basic = { user = 'u', password = 'p' }\nheaders = { B = '3' }\ninsecure = true",
                options(
                    "basic = { user = 'u', password = 'p' }\ninsecure = true\ncert-file = '/c'\nkey-file = '/k'\n\
                     server-name = 's'\nheaders = { a = '1', B = '3' }",
                ),
            ),
            (
                "cert-file = '/x'\nkey-file = '/y'\nserver-name = 'z'\nheaders = { Authorization = 'x' }",
                options(
                    "ca-file = '/ca'\ncert-file = '/x'\nkey-file = '/y'\nserver-name = 'z'\n\
                     headers = { a = '1', b = '2', Authorization = 'x' }",
                ),
            ),
        ] {
            // Headers in a table come in its order, so only here they may differ in order.
            let sorted = |mut options: Options| {
                options.headers.sort_by_key(|header| header.name.to_lowercase());
                options
            };
            assert_eq!(sorted(merge(options(own), &shared)), sorted(merged), "{own}");
        }
        let shared = options("headers = { authorization = 'x', c = 'd' }");
        assert_eq!(merge(options("bearer = 't'"), &shared), options("bearer = 't'\nheaders = { c = 'd' }"));
    }

    #[test]
    fn is_typed_by_hand_too() {
        let command =
            crate::keys::describe(clap::Command::new("x").no_binary_name(true), || Box::new(SourcesTyped::default()));
        let line =
            ["--base", "http://a", "--header", "X: {{uuid}}", "--methods", "GET,POST", "--file", "/f", "PUT /x", "/y"];
        let mut typed = SourcesTyped::default();
        crate::keys::take(&mut typed, &command.try_get_matches_from(line).expect("a line")).expect("a line");
        let text = "base = 'http://a'\nheaders = { X = '{{uuid}}' }\nmethods = ['GET', 'POST']\nfile = '/f'\nrequests = ['PUT /x', '/y']";
        assert_eq!(Ok(typed), parse(text));
    }
}
