//! A number that a server publishes, as Prometheus text or JSON, and what is wanted of it. For the steps `wait` and
//! `drain`.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess},
};

use super::{
    Failure, MOST_KEPT, Request,
    options::{Options, unknown_key},
};
use crate::{
    problem::Scope,
    process::Processes,
    step::Progress,
    value::{Number, Samples, Scalar, Want, find_json},
};

/// Prometheus' own default for the largest page is none; kube-state-metrics of a large cluster stays below this.
const LARGEST_PAGE: usize = 32 << 20;

/// What is wanted, as typed.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
pub struct WantOptions {
    /// The value must be this.
    #[arg(long, value_name = "VALUE")]
    pub equals: Option<Scalar>,
    /// The value must not be this.
    #[arg(long, value_name = "VALUE")]
    pub not_equals: Option<Scalar>,
    /// The value must be this or more.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub at_least: Option<Number>,
    /// The value must be this or less.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub at_most: Option<Number>,
}

impl WantOptions {
    /// Takes the value of a key if it is one of these.
    ///
    /// # Errors
    /// The value is of the wrong kind.
    pub fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error> {
        match key {
            "equals" => self.equals = Some(map.next_value()?),
            "not-equals" => self.not_equals = Some(map.next_value()?),
            "at-least" => self.at_least = Some(map.next_value()?),
            "at-most" => self.at_most = Some(map.next_value()?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub fn mean(self) -> Want {
        Want {
            equals: self.equals.map(|value| value.0),
            not_equals: self.not_equals.map(|value| value.0),
            at_least: self.at_least.map(|number| number.0),
            at_most: self.at_most.map(|number| number.0),
        }
    }
}

/// What the TOML has in the table of a metric, as options of the command line; the URL is the value of `--metric`.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
pub struct MetricOptions {
    /// Where the value stands in a JSON answer (`/a/b` or `a.b`).
    #[arg(long, value_name = "POINTER")]
    pub pointer: Option<String>,
    /// With `metric`: the name of the Prometheus metric.
    #[arg(long = "name", value_name = "NAME")]
    pub metric_name: Option<String>,
    /// With `metric`: a label of the Prometheus metric.
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub labels: Vec<Label>,
    #[command(flatten)]
    pub want: WantOptions,
    #[command(flatten)]
    pub request: Options,
}

impl MetricOptions {
    /// Either place is empty: the table is the file's, the options are the command line's.
    pub fn complete(self, metric: MetricTyped) -> MetricTyped {
        if self == Self::default() {
            return metric;
        }
        let Self { pointer, metric_name, labels, want, request } = self;
        MetricTyped { url: metric.url, name: metric_name, labels, pointer, want, request }
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

/// A metric as typed: `{ url, name, labels, at-most }` for Prometheus text, `{ url, pointer, at-most }` for JSON, and
/// the keys of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetricTyped {
    pub url: String,
    /// Of the Prometheus metric.
    pub name: Option<String>,
    pub labels: Vec<Label>,
    /// Of the JSON value.
    pub pointer: Option<String>,
    pub want: WantOptions,
    pub request: Options,
}

impl FromStr for MetricTyped {
    type Err = std::convert::Infallible;
    fn from_str(url: &str) -> Result<Self, Self::Err> {
        Ok(MetricTyped { url: url.into(), ..MetricTyped::default() })
    }
}

impl<'de> Deserialize<'de> for MetricTyped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = MetricTyped;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a metric, such as { url = \"http://…/metrics\", name = \"requests\", at-most = 0 }")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<MetricTyped, A::Error> {
                let mut typed = MetricTyped::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "url" => typed.url = map.next_value()?,
                        "name" => typed.name = Some(map.next_value()?),
                        "labels" => {
                            let labels = map.next_value::<BTreeMap<String, Scalar>>()?;
                            typed.labels = labels.into_iter().map(|(key, value)| Label(key, value.0)).collect();
                        }
                        "pointer" => typed.pointer = Some(map.next_value()?),
                        key if typed.want.take(key, &mut map)? || typed.request.take(key, &mut map)? => {}
                        key => {
                            let known = format!(
                                "url, name, labels, pointer, at-most, at-least, equals, not-equals, {}",
                                Options::KEYS
                            );
                            return Err(unknown_key(key, &known, &mut map));
                        }
                    }
                }
                Ok(typed)
            }
        }
        deserializer.deserialize_map(Visitor)
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
