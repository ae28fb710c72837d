//! A number that a server publishes, as Prometheus text or JSON, and what is wanted of it. For the steps `wait` and
//! `drain`.

use std::str::FromStr;

use super::{Failure, MOST_KEPT, Request, options::Options};
use crate::{
    keys::{Error, Node, Read, Shape, keys, list_of},
    problem::Scope,
    process::Processes,
    step::Progress,
    value::{Number, Samples, Scalar, Want, find_json},
};

/// Prometheus' own default for the largest page is none; kube-state-metrics of a large cluster stays below this.
const LARGEST_PAGE: usize = 32 << 20;

keys! {
    /// What is wanted, as typed.
    #[derive(Clone, Debug, PartialEq)]
    pub struct WantOptions {
        /// The value must be this or less.
        pub at_most: Option<Number> = Signed("NUMBER"),
        /// The value must be this or more.
        pub at_least: Option<Number> = Signed("NUMBER"),
        /// The value must be this.
        pub equals: Option<Scalar> = One("VALUE"),
        /// The value must not be this.
        pub not_equals: Option<Scalar> = One("VALUE"),
    }
}

impl WantOptions {
    pub fn mean(self) -> Want {
        Want {
            equals: self.equals.map(|value| value.0),
            not_equals: self.not_equals.map(|value| value.0),
            at_least: self.at_least.map(|number| number.0),
            at_most: self.at_most.map(|number| number.0),
        }
    }
}

/// A label that a sample must carry, `NAME=VALUE` on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label(pub String, pub String);

impl FromStr for Label {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
        Ok(Label(name.trim().into(), value.trim().trim_matches('"').into()))
    }
}

impl Read for Label {
    fn read(value: Node<'_>) -> Result<Self, Error> {
        value.parse(value.text("a string")?)
    }

    /// A table of labels.
    fn read_list(value: Node<'_>) -> Result<Vec<Self>, Error> {
        if value.by_hand {
            return list_of(value);
        }
        let labels = Vec::<(String, Scalar)>::read(value)?;
        Ok(labels.into_iter().map(|(key, value)| Label(key, value.0)).collect())
    }
}

keys! {
    /// A metric as typed: `{ url, name, labels, at-most }` for Prometheus text, `{ url, pointer, at-most }` for JSON,
    /// and the keys of a request. On the command line the URL is the value of `--metric`.
    #[derive(Clone, Debug, PartialEq)]
    pub struct MetricTyped {
        pub url: String = Toml,
        /// With `metric`: the name of the Prometheus metric.
        pub name: Option<String> = One("NAME"),
        /// With `metric`: a label of the Prometheus metric.
        pub labels: Vec<Label> = Many("NAME=VALUE", "label"),
        /// Where the value stands in a JSON answer (`/a/b` or `a.b`).
        pub pointer: Option<String> = One("POINTER"),
    }
    parts { Always pub want: WantOptions, Always pub request: Options }
    impl {
        fn short(&mut self, value: Node<'_>) -> Result<bool, Error> {
            if let (true, Shape::Text(url)) = (value.by_hand, value.shape()?) {
                self.url = url.into();
                return Ok(true);
            }
            Ok(false)
        }
        fn expected(&self) -> &'static str {
            "a metric, such as { url = \"http://…/metrics\", name = \"requests\", at-most = 0 }"
        }
    }
}

impl MetricTyped {
    /// Either place is empty: the table is the file's, the options beside the URL are the command line's.
    pub fn complete(self, options: MetricTyped) -> MetricTyped {
        if options == Self::default() { self } else { MetricTyped { url: self.url, ..options } }
    }
}

/// A metric that can be read, and what is wanted of it.
#[derive(Clone, Debug)]
pub struct Metric {
    request: Request,
    source: Source,
    pub want: Want,
}

#[derive(Clone, Debug)]
enum Source {
    Prometheus { name: String, labels: Vec<(String, String)> },
    Json { pointer: String },
}

impl Metric {
    /// Gives meaning to what was typed; `None` when at least one problem was noted.
    pub fn mean(typed: MetricTyped, scope: &mut Scope<'_>) -> Option<Metric> {
        let before = scope.problems.len();
        let place = scope.place.len();
        scope.place.push_str(if place == 0 { "metric" } else { ": metric" });
        let request = if typed.url.is_empty() {
            scope.problem("url", "it is missing", None);
            None
        } else {
            Request::mean("url", &typed.url, typed.request, scope)
        };
        let source = match (typed.name, typed.pointer) {
            (Some(name), None) => {
                let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
                if name.is_empty() || !name.chars().all(word) {
                    let help = "give labels in `labels = { … }`".to_string();
                    scope.problem("name", format!("`{}` is not a metric's name", name.escape_default()), Some(help));
                }
                let labels = typed.labels.into_iter().map(|Label(key, value)| (key, value)).collect();
                Some(Source::Prometheus { name, labels })
            }
            (None, Some(pointer)) => {
                if !typed.labels.is_empty() {
                    scope.problem("labels", "a JSON value has none", None);
                }
                Some(Source::Json { pointer })
            }
            _ => {
                let help = "`name` for a Prometheus metric, `pointer` for a JSON value";
                scope.problem("", "give either `name` or `pointer`", Some(help.into()));
                None
            }
        };
        let want = typed.want.mean();
        if want.is_empty() {
            scope.problem("", "what is wanted of it is missing", Some("give `at-most`, `at-least` or `equals`".into()));
        }
        scope.place.truncate(place);
        if scope.problems.len() > before {
            return None;
        }
        Some(Metric { request: request?, source: source?, want })
    }

    /// What is read: `http_active` or `/queue/length`.
    pub fn name(&self) -> &str {
        match &self.source {
            Source::Prometheus { name, .. } => name,
            Source::Json { pointer } => pointer,
        }
    }

    /// Reads it once and compares: whether it is as wanted, and what was found (`http_active is 3, wanted at most 0`).
    ///
    /// # Errors
    /// Why it could not be read.
    pub async fn check(&self, processes: &Processes, progress: &Progress) -> Result<Result<String, String>, Failure> {
        let name = self.name();
        let unreadable = |why: String| Failure { reason: format!("{}: {why}", self.request.url), may_pass: true };
        let status_fits = |status: u16| match status {
            200..=299 => Ok(()),
            status => Err(unreadable(format!("status {status}"))),
        };
        let outcome = match &self.source {
            Source::Prometheus { name, labels } => {
                let mut samples = Samples::new(name, labels);
                let mut size = 0;
                let mut sink = |piece: &[u8]| {
                    size += piece.len();
                    samples.feed(piece);
                    size <= LARGEST_PAGE
                };
                let (status, _) = self.request.send_to(processes, progress, &mut sink).await?;
                status_fits(status)?;
                if size > LARGEST_PAGE {
                    return Err(unreadable(format!("the answer is larger than {LARGEST_PAGE} bytes")));
                }
                let found = samples.finish().ok_or_else(|| unreadable(format!("it has no sample of {name}")))?;
                self.want.check_number(found.0).map(|()| found.0.to_string())
            }
            Source::Json { pointer } => {
                let answer = self.request.send(processes, progress).await?;
                status_fits(answer.status)?;
                let value = read_json(&answer.body).map_err(unreadable)?;
                let found =
                    find_json(&value, pointer).ok_or_else(|| unreadable(format!("it has no value at {pointer}")))?;
                self.want.check_json(found).map(|()| crate::value::printable(&found.to_string(), 60))
            }
        };
        Ok(outcome.map(|value| format!("{name} is {value}")).map_err(|why| format!("{name} {why}")))
    }
}

/// Reads an answer as JSON.
///
/// # Errors
/// Why it is not.
pub fn read_json(body: &[u8]) -> Result<serde_json::Value, String> {
    serde_json::from_slice(body).map_err(|_| {
        if body.len() >= MOST_KEPT {
            format!("the answer is larger than {MOST_KEPT} bytes")
        } else {
            "the answer is not JSON".to_string()
        }
    })
}
