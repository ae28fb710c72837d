//! Which requests warm-up sends: those of the configuration, those of files with one a line, and those that an access
//! log says have succeeded. Each source has a weight, which its requests share. Sending them is for others.
//!
//! | room | what it is for |
//! |---|---|
//! | `typed` | the sources as typed |
//! | `mean` | what they mean, or every problem |
//! | `load` | reads the files when the step begins |
//! | `lines`, `tally` | lines of files and logs, in bounded memory |
//! | `target`, `template` | URLs and texts with placeholders, and their values |

mod lines;
mod load;
mod mean;
mod tally;
mod target;
mod template;
mod typed;

use bytes::Bytes;
use hyper::{
    Method,
    header::{HeaderName, HeaderValue},
};

pub use self::{
    mean::Sources,
    template::Chance,
    typed::{ListTyped, RequestTyped, SourcesTyped},
};
use self::{
    target::Target,
    template::{Draw, Template},
};
use crate::client::{Request, session::Question, status::Statuses};

/// Everything that is to be sent; made of the sources when the step begins.
#[derive(Debug, Default)]
pub struct Requests {
    /// Where to and with what: one for all entries that differ in method, path, placeholders and body only. Its entries
    /// are gRPC calls all, or none of them is.
    pub bases: Vec<Request>,
    /// At least one.
    pub entries: Vec<Entry>,
    /// What people should know of the files, each a line for the log: what was left out.
    pub notes: Vec<String>,
}

/// One request that is sent again and again.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Index of its base.
    pub base: usize,
    /// `GET /products?limit=50`, with placeholders as they were written; without what may be secret.
    pub shown: String,
    /// Statuses that count as a success.
    pub expect: Statuses,
    /// How often it is sent, against the others. Positive.
    pub weight: f64,
    /// It was written in the configuration itself: it has to succeed at least once. What comes from a file or a log is
    /// held to the success ratio only.
    pub is_written: bool,
    /// A gRPC call: besides the status, `grpc-status` must be 0.
    pub is_grpc: bool,
    method: Method,
    target: Target,
    /// All values of the headers in which something is put in.
    headers: Vec<(HeaderName, Vec<Template>)>,
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    /// That of the base: a file, or none.
    Base,
    Constant(Bytes),
    Template(Template),
    /// A message for gRPC, which is read when the step begins.
    Message(std::path::PathBuf),
}

impl Entry {
    /// The question as it is sent this time: that of its base, with its own method, path, headers and body, placeholders
    /// filled in. All its counters have the same number.
    pub fn ask(&self, base: &Question, chance: &mut Chance) -> Question {
        let mut draw = Draw::new(chance);
        // What fits a line fits a path with everything filled in: see the test of the longest.
        let path = self.target.fill(&mut draw).unwrap_or_else(|| base.path.clone());
        let mut headers = base.headers.clone();
        for (name, values) in &self.headers {
            headers.remove(name);
            for value in values {
                // The text around was a header's value, and no value of a placeholder has a control character.
                if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(value.fill(&mut draw, false))) {
                    headers.append(name, value);
                }
            }
        }
        let body = match &self.body {
            Body::Base | Body::Message(_) => base.body.clone(),
            Body::Constant(body) => body.clone(),
            Body::Template(template) => template.fill(&mut draw, false).into(),
        };
        Question { method: self.method.clone(), path, headers, body }
    }
}

#[cfg(test)]
mod tests {
    use hyper::{HeaderMap, Uri};

    use super::*;
    use crate::{keys::parse, problem::Scope};

    fn load(text: &str) -> Requests {
        let (mut secrets, mut problems) = (Vec::new(), Vec::new());
        let typed = parse(text).expect(text);
        let sources = Sources::mean(typed, &mut Scope::of_command_line(&mut secrets, &mut problems));
        let sources = sources.unwrap_or_else(|| panic!("{problems:?}"));
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(sources.load()).expect(text)
    }

    /// What a base is asked as, with a header of each kind.
    fn question() -> Question {
        let mut headers = HeaderMap::new();
        for (name, value) in [("host", "a"), ("x", "old"), ("x", "older")] {
            headers.append(name, HeaderValue::from_static(value));
        }
        Question { method: Method::GET, path: Uri::from_static("/"), headers, body: Bytes::from_static(b"base") }
    }

    fn show(question: &Question) -> String {
        let Question { method, path, headers, body } = question;
        let mut shown = format!("{method} {path}");
        for (name, value) in headers {
            shown += &format!(" {name}: {}", value.to_str().expect("text"));
        }
        format!("{shown} {}", String::from_utf8_lossy(body).escape_debug())
    }

    #[test]
    fn asks() {
        let plain = "host: a x: old x: older";
        let mut chance = Chance::seeded(3);
        for (request, expected) in [
            ("'http://a/x?y#z'", format!("GET /x?y {plain} base")),
            ("{ url = 'PUT http://a', body = '{{{{b}}' }", format!("PUT / {plain} {{{{b}}}}")),
            (
                "{ url = 'http://a/{{counter}}?q={{one-of:a b}}', body = \"\\n{{one-of:a b}}{{counter}}\", method = 'POST' }",
                format!("POST /1?q=a%20b {plain} \\na b1"),
            ),
            (
                "{ url = 'http://a/', headers = { X = ['{{one-of:ü ü}}', 'n{{counter}}'], y = '{{{{' } }",
                "GET / host: a x: ü ü x: n2 y: {{ base".into(),
            ),
        ] {
            let loaded = load(&format!("requests = [{request}]"));
            let [entry] = loaded.entries.as_slice() else { panic!("{request}") };
            let asked = entry.ask(&question(), &mut chance);
            let shown = show(&Question {
                headers: asked
                    .headers
                    .iter()
                    .map(|(name, value)| {
                        let text = String::from_utf8_lossy(value.as_bytes()).replace('ü', "u");
                        (name.clone(), HeaderValue::try_from(text).expect("text"))
                    })
                    .collect(),
                ..asked
            });
            assert_eq!(shown, expected.replace('ü', "u"), "{request}");
            assert!(entry.is_written && !entry.is_grpc && entry.expect.contain(204) && !entry.expect.contain(302));
        }
        let loaded = load("requests = [{ url = 'http://a', expect = [302, 404], weight = 2.5 }, 'http://a']");
        let weights: Vec<_> = loaded.entries.iter().map(|entry| format!("{:.3}", entry.weight)).collect();
        assert_eq!(weights, ["0.714", "0.286"]);
        assert!(loaded.entries[0].expect.contain(404) && !loaded.entries[0].expect.contain(200));
    }

    /// Nothing of a constant request is made anew: its path is the same memory each time.
    #[test]
    fn a_constant_request_costs_nothing() {
        let loaded = load("requests = [{ url = 'http://a/x?y', body = 'text' }]");
        let (base, mut chance) = (question(), Chance::seeded(1));
        let mut ask = || loaded.entries[0].ask(&base, &mut chance);
        let (one, other) = (ask(), ask());
        let begin = |question: &Question| (question.path.path().as_ptr(), question.body.as_ptr());
        assert_eq!(begin(&one), begin(&other));
    }

    #[cfg(feature = "http2")]
    #[test]
    fn frames_calls() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("message");
        std::fs::write(&path, b"\n\x05shoes").expect("a file");
        let text = "headers = { x = 'y', te = 'gzip' }\nrequests = [{ grpc = 'http://a/p.S/M', message-file = 'FILE' },\
                    { grpc = 'http://a/p.S/M', message = 'CgVzaG9lcw==' }, { grpc = 'http://a/p.S/M' }]";
        let text = text.replace("FILE", &path.display().to_string());
        let loaded = load(&text);
        let bodies = [&b"\0\0\0\0\x07\n\x05shoes"[..], b"\0\0\0\0\x07\n\x05shoes", b"\0\0\0\0\0"];
        for (entry, body) in loaded.entries.iter().zip(bodies) {
            let asked = entry.ask(&question(), &mut Chance::default());
            assert!(entry.is_grpc && entry.base == 0);
            assert_eq!((asked.method, asked.path.to_string(), &*asked.body), (Method::POST, "/p.S/M".into(), body));
        }
        let [base] = loaded.bases.as_slice() else { panic!("one base") };
        let shown = format!("{base:?}");
        for header in ["\"te\": \"trailers\"", "\"content-type\": \"application/grpc\"", "\"x\": \"y\""] {
            assert!(shown.contains(header), "{header}: {shown}");
        }
        assert!(!shown.contains("gzip"), "{shown}");
    }
}
