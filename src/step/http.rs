//! The step `http`: one request, with rules for what its status means. The request itself is `client`.

use super::{Context, End, Kind};
use crate::{
    client::{
        Request,
        options::Options,
        status::{Status, Statuses},
    },
    keys::{Error, Node, Shape, keys},
    problem::Scope,
};

keys! {
    /// Send a request; its status decides how the step ends.
    #[derive(Clone, Debug, PartialEq)]
    pub struct HttpTyped {
        /// Where to: `http://host:port/path`, `https://…` or `unix:///path/to.sock:/path`.
        pub url: String = Word("URL", ""),
        /// Statuses that mean success; 2xx if not given.
        pub succeed: Vec<Status> = List("STATUS", ""),
        /// Statuses after which another attempt may help; 429 and 5xx if not given.
        pub retry: Vec<Status> = List("STATUS", ""),
        /// Statuses that mean that there is nothing to do.
        pub skip: Vec<Status> = List("STATUS", ""),
    }
    parts { Always pub request: Options }
    impl {
        fn short(&mut self, value: Node<'_>) -> Result<bool, Error> {
            let Shape::Text(url) = value.shape()? else { return Ok(false) };
            self.url = url.into();
            Ok(true)
        }
        fn expected(&self) -> &'static str {
            "a URL, or a table such as { url = \"http://…\", method = \"POST\" }"
        }
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
