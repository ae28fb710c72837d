//! The `warm-up` step: what was typed and what it means. What it does is `warm`.

use std::{str::FromStr, time::Duration};

use super::{Context, End, Kind};
use crate::{
    client::{grpc::NO_HTTP2, options::Flag, session::Protocol},
    duration::{Span, show},
    keys::{Error, Node, Read, Shape, keys},
    number::Number,
    problem::Scope,
    warm::{
        pace::{Pace, Rate},
        proof::{Proof, ProofTyped},
        requests::{Sources, SourcesTyped},
        run::{self, Load},
    },
};

/// As many as a browser's few connections: enough to warm pools and locks, not enough to be a load test.
const CONCURRENCY: u32 = 4;
/// More would be the kernel's limit for open files on many machines.
const MOST_CONCURRENCY: u32 = 1024;
/// What takes longer is given up by most clients and proxies too, or nobody would wait for it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

keys! {
    /// Send requests until the application has proved itself warm.
    #[derive(Debug)]
    pub struct WarmUpTyped {
        /// So many requests are under way at once [default: 4]
        concurrency: Option<Number<u32>> = One("N"),
        /// So many requests per second at most, such as 100 or 0.5
        rate: Option<Rate> = One("RATE"),
        /// From slow to full over this time: the rate if one is given, else the concurrency
        ramp: Option<Span> = One("DURATION"),
        /// Whether connections are used again [default: true]
        keep_alive: Option<Flag> = Truth,
        /// 1.1 or 2 [default: 1.1]
        http_version: Option<Version> = One("VERSION"),
        /// A request that takes longer has failed [default: 5s]
        request_timeout: Option<Span> = One("DURATION"),
    }
    parts { Always sources: SourcesTyped, Always proof: ProofTyped }
}

/// HTTP's version as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version(Protocol);

impl FromStr for Version {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "1.1" => Ok(Self(Protocol::Http1)),
            "2" | "2.0" => Ok(Self(Protocol::Http2)),
            _ => Err(format!("`{text}` is no version of HTTP; write \"1.1\" or \"2\"")),
        }
    }
}

impl Read for Version {
    fn read(value: Node<'_>) -> Result<Self, Error> {
        match value.shape()? {
            Shape::Float(number) => value.parse(&number.to_string()),
            _ => value.parse(&value.text_or_number("a version of HTTP, \"1.1\" or \"2\"")?),
        }
    }
}

/// The step as it is run.
#[derive(Debug)]
pub struct WarmUp {
    sources: Sources,
    load: Load,
    proof: Proof,
}

impl Kind for WarmUp {
    type Typed = WarmUpTyped;

    fn mean(typed: WarmUpTyped, scope: &mut Scope<'_>) -> Option<Self> {
        let before = scope.problems.len();
        let sources = Sources::mean(typed.sources, scope);
        let concurrency = typed.concurrency.map_or(CONCURRENCY, |number| number.0);
        if !(1..=MOST_CONCURRENCY).contains(&concurrency) {
            scope.problem(
                "concurrency",
                format!("{concurrency} requests at once are not possible"),
                format!("write a number from 1 to {MOST_CONCURRENCY}"),
            );
        }
        let rate = typed.rate.map(|rate| rate.0);
        if rate.is_some_and(|rate| rate <= 0.0) {
            scope.problem(
                "rate",
                "with it no request would ever be sent",
                "write how many per second, such as 100 or 0.5, or leave it out for as many as possible".to_owned(),
            );
        }
        let request_timeout = typed.request_timeout.map_or(REQUEST_TIMEOUT, |span| span.0);
        if request_timeout.is_zero() {
            scope.problem(
                "request-timeout",
                "nothing is answered in no time at all",
                "give it some, or leave the key out".to_owned(),
            );
        }
        let protocol = typed.http_version.map_or(Protocol::Http1, |version| version.0);
        if protocol == Protocol::Http2 && cfg!(not(feature = "http2")) {
            scope.problem("http-version", NO_HTTP2.0, NO_HTTP2.1.to_owned());
        }
        let ramp = typed.ramp.map_or(Duration::ZERO, |span| span.0);
        let proof = typed.proof.mean(scope);
        if let Some(most) = proof.as_ref().and_then(Proof::max_time)
            && ramp >= most
        {
            scope.problem(
                "ramp",
                format!("{} leaves nothing of max-time {} at full speed", show(ramp), show(most)),
                "shorten the ramp, or raise max-time".to_owned(),
            );
        }
        if !ramp.is_zero() && rate.is_none() && concurrency == 1 {
            scope.problem(
                "ramp",
                "with one request at once and no rate there is nothing that could grow",
                "give a rate, or raise concurrency".to_owned(),
            );
        }
        let load = Load {
            pace: Pace { workers: concurrency as usize, rate, ramp },
            protocol,
            keep_alive: typed.keep_alive.is_none_or(|flag| flag.0),
            request_timeout,
        };
        let (sources, proof) = (sources?, proof?);
        (scope.problems.len() == before).then_some(Self { sources, load, proof })
    }

    async fn run(&self, context: &Context) -> End {
        run::run(&self.sources, &self.load, &self.proof, context).await
    }
}
