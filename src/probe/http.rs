//! `http`: a URL answers with a fitting status, and where a JSON value is wanted, with that.

use crate::{
    client::{
        Request,
        metric::{WantOptions, read_json},
        options::{Flag, Options},
        status::{Status, Statuses},
    },
    keys::{Error, Node, Read, Shape, keys},
    problem::Scope,
    process::Processes,
    step::Progress,
    value::{Want, find_json},
};

keys! {
    /// `http = "http://…"`, or a table with the keys of a request, `status` and `json`.
    #[derive(Clone, Debug, PartialEq)]
    pub struct HttpTyped {
        pub url: String = Toml,
        pub status: Vec<Status> = Toml,
        pub json: Option<Json> = Toml,
    }
    parts { Always pub request: Options }
    impl {
        fn short(&mut self, value: Node<'_>) -> Result<bool, Error> {
            let Shape::Text(url) = value.shape()? else { return Ok(false) };
            self.url = url.into();
            Ok(true)
        }
        fn expected(&self) -> &'static str {
            "a URL, or a table such as { url = \"http://…\", status = [\"2xx\"] }"
        }
    }
}

keys! {
    /// A value in the answer, and what is wanted of it.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Json {
        pub pointer: String = Toml,
        pub exists: Exists = Toml,
    }
    parts { Always pub want: WantOptions }
    impl {
        fn expected(&self) -> &'static str {
            "a table such as { pointer = \"/status\", equals = \"ok\" }"
        }
    }
}

/// The value being there is what is always wanted; `false` has no meaning here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exists;

impl Read for Exists {
    fn read(value: Node<'_>) -> Result<Self, Error> {
        if Flag::read(value)?.0 { Ok(Exists) } else { Err(Error::new("`exists` can only be true")) }
    }
}

/// A request, and what is wanted of its answer.
#[derive(Debug)]
pub struct Http {
    pub request: Request,
    statuses: Statuses,
    json: Option<(String, Want)>,
}

impl Http {
    /// Gives meaning to what was typed; `None` when at least one problem was noted.
    pub fn mean(typed: HttpTyped, scope: &mut Scope<'_>) -> Option<Http> {
        let mut request = Request::mean("http", &typed.url, typed.request, scope)?;
        request.keep = Statuses(typed.status.clone());
        let statuses = if typed.status.is_empty() { vec![Status(200, 299)] } else { typed.status };
        let json = typed.json.map(|json| (json.pointer, json.want.mean()));
        Some(Http { request, statuses: Statuses(statuses), json })
    }

    /// Tries once.
    ///
    /// # Errors
    /// Why it does not hold.
    pub async fn hold(&self, processes: &Processes, progress: &Progress) -> Result<(), String> {
        let answer = self.request.send(processes, progress).await.map_err(|failure| failure.reason)?;
        let at = |why: String| format!("{}: {why}", self.request.url);
        if !self.statuses.contain(answer.status) {
            return Err(at(answer.show()));
        }
        let Some((pointer, want)) = &self.json else { return Ok(()) };
        let value = read_json(&answer.body).map_err(at)?;
        let found = find_json(&value, pointer).ok_or_else(|| at(format!("it has no value at {pointer}")))?;
        want.check_json(found).map_err(|why| at(format!("{pointer} {why}")))
    }
}
