//! The step `http`: one request, with rules for what its status means. The request itself is `client`.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess},
};

use super::{Context, End, Kind};
use crate::{
    client::{
        Request,
        options::{Options, unknown_key},
        status::{Status, Statuses},
    },
    problem::Scope,
};

/// The step as typed: `http = "http://…"` or a table.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
pub struct HttpTyped {
    /// Where to: `http://host:port/path`, `https://…` or `unix:///path/to.sock:/path`.
    #[arg(value_name = "URL")]
    pub url: String,
    #[command(flatten)]
    pub request: Options,
    /// Statuses that mean success; 2xx if not given.
    #[arg(long, value_name = "STATUS", value_delimiter = ',')]
    pub succeed: Vec<Status>,
    /// Statuses after which another attempt may help; 429 and 5xx if not given.
    #[arg(long, value_name = "STATUS", value_delimiter = ',')]
    pub retry: Vec<Status>,
    /// Statuses that mean that there is nothing to do.
    #[arg(long, value_name = "STATUS", value_delimiter = ',')]
    pub skip: Vec<Status>,
}

impl<'de> Deserialize<'de> for HttpTyped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = HttpTyped;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a URL, or a table such as { url = \"http://…\", method = \"POST\" }")
            }
            fn visit_str<E: de::Error>(self, url: &str) -> Result<HttpTyped, E> {
                Ok(HttpTyped { url: url.into(), ..HttpTyped::default() })
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<HttpTyped, A::Error> {
                let mut typed = HttpTyped::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "url" => typed.url = map.next_value()?,
                        "succeed" => typed.succeed = map.next_value::<Statuses>()?.0,
                        "retry" => typed.retry = map.next_value::<Statuses>()?.0,
                        "skip" => typed.skip = map.next_value::<Statuses>()?.0,
                        key if typed.request.take(key, &mut map)? => {}
                        key => {
                            let known = format!("url, succeed, retry, skip, {}", Options::KEYS);
                            return Err(unknown_key(key, &known, &mut map));
                        }
                    }
                }
                Ok(typed)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// The step as it is run.
#[derive(Debug)]
pub struct Http {
    request: Request,
    succeed: Statuses,
    retry: Statuses,
    skip: Statuses,
}

impl Kind for Http {
    type Typed = HttpTyped;

    fn mean(typed: HttpTyped, scope: &mut Scope<'_>) -> Option<Http> {
        if typed.url.is_empty() {
            scope.problem("url", "it is missing", None);
            return None;
        }
        let mut request = Request::mean("url", &typed.url, typed.request, scope)?;
        request.keep = Statuses(typed.succeed.iter().chain(&typed.retry).chain(&typed.skip).copied().collect());
        let or =
            |given: Vec<Status>, default: &[Status]| Statuses(if given.is_empty() { default.to_vec() } else { given });
        Some(Http {
            request,
            succeed: or(typed.succeed, &[Status(200, 299)]),
            retry: or(typed.retry, &[Status(429, 429), Status(500, 599)]),
            skip: Statuses(typed.skip),
        })
    }

    async fn run(&self, context: &Context) -> End {
        match self.request.send(&context.processes, &context.progress).await {
            Err(failure) if failure.may_pass => End::Failed(failure.reason),
            Err(failure) => End::FailedForGood(failure.reason),
            Ok(answer) => {
                let failed = || format!("{}: {}", self.request.url, answer.show());
                // What was written out (`skip`) counts before what may be a default.
                if self.skip.contain(answer.status) {
                    End::Skipped(answer.show())
                } else if self.succeed.contain(answer.status) {
                    End::Done(format!("status {}", answer.status))
                } else if self.retry.contain(answer.status) {
                    End::Failed(failed())
                } else {
                    End::FailedForGood(failed())
                }
            }
        }
    }
}
