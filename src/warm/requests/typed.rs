//! The sources as typed.

use std::path::PathBuf;

use crate::{
    client::{options::Options, status::Status},
    keys::{Error, Node, Shape, keys},
    value::Number,
};

keys! {
    /// Which requests are sent; a part of the table of a warm-up.
    #[derive(Clone, Debug, PartialEq)]
    pub struct SourcesTyped {
        /// What to send: "METHOD URL" or a URL alone, or a path, which goes to `base`.
        pub requests: Vec<RequestTyped> = Several("REQUEST"),
        pub lists: Vec<ListTyped> = Toml,
        /// A file with one request a line: [METHOD] URL, or a path, which goes to `base`.
        pub file: Option<PathBuf> = One("FILE"),
        /// An access log in the common or combined format; what succeeded in it is sent to `base`.
        pub access_log: Option<PathBuf> = One("FILE"),
        /// Where requests go that are a path alone.
        pub base: Option<String> = One("URL"),
        /// Which methods of a file or an access log are sent; GET and HEAD if not given.
        pub methods: Vec<String> = List("METHOD", ""),
    }
    parts { Always pub options: Options }
}

keys! {
    /// `"GET http://…"`, or a table.
    #[derive(Clone, Debug, PartialEq)]
    pub struct RequestTyped {
        pub url: Option<String> = Toml,
        pub expect: Vec<Status> = Toml,
        pub weight: Option<Number> = Toml,
        pub grpc: Option<String> = Toml,
        pub message: Option<String> = Toml,
        pub message_file: Option<PathBuf> = Toml,
    }
    parts { Always pub options: Options }
    impl {
        fn short(&mut self, value: Node<'_>) -> Result<bool, Error> {
            let Shape::Text(text) = value.shape()? else { return Ok(false) };
            self.url = Some(text.into());
            Ok(true)
        }
        fn expected(&self) -> &'static str {
            "a text such as \"GET http://…\", or a table such as { url = \"http://…\", weight = 2 }"
        }
    }
}

keys! {
    /// One source, with a weight of its own.
    #[derive(Clone, Debug, PartialEq)]
    pub struct ListTyped {
        pub requests: Vec<RequestTyped> = Toml,
        pub file: Option<PathBuf> = Toml,
        pub access_log: Option<PathBuf> = Toml,
        pub base: Option<String> = Toml,
        pub methods: Vec<String> = Toml,
        pub weight: Option<Number> = Toml,
    }
    impl {
        fn expected(&self) -> &'static str {
            "a table such as { file = \"/etc/boathook/warm.txt\", weight = 2 }"
        }
    }
}
