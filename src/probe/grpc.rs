//! `grpc`: gRPC's standard health check (`grpc.health.v1.Health/Check`) answers SERVING.

use crate::{
    client::{Request, grpc::NO_HTTP2, options::Options},
    keys::{Error, Node, Shape, keys},
    problem::Scope,
};

keys! {
    /// `grpc = "host:port"`, a URL, or a table with a URL and the keys of a request.
    #[derive(Clone, Debug, PartialEq)]
    pub struct GrpcTyped {
        pub url: String = Toml,
    }
    parts { Always pub request: Options }
    impl {
        fn short(&mut self, value: Node<'_>) -> Result<bool, Error> {
            let Shape::Text(url) = value.shape()? else { return Ok(false) };
            self.url = url.into();
            Ok(true)
        }
        fn expected(&self) -> &'static str {
            "a host and port, or a table such as { url = \"https://…\", ca-file = \"…\" }"
        }
    }
}

/// A server, and which of its services is asked about; none is the server as a whole.
#[derive(Debug)]
pub struct Grpc {
    pub request: Request,
    pub service: String,
}

/// Gives meaning to what was typed; `None` when at least one problem was noted.
pub fn mean(typed: GrpcTyped, service: Option<String>, scope: &mut Scope<'_>) -> Option<Grpc> {
    if cfg!(not(feature = "http2")) {
        scope.problem("grpc", NO_HTTP2.0, NO_HTTP2.1.to_owned());
        return None;
    }
    for (key, is_given) in [
        ("method", typed.request.method.is_some()),
        ("body", typed.request.body.is_some()),
        ("body-file", typed.request.body_file.is_some()),
    ] {
        if is_given {
            scope.problem(key, "a gRPC health check has its own", "take it out".to_owned());
            return None;
        }
    }
    let url = if typed.url.contains("://") { typed.url } else { format!("http://{}", typed.url) };
    let request = Request::mean("grpc", &url, typed.request, scope)?;
    Some(Grpc { request, service: service.unwrap_or_default() })
}
