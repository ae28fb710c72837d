//! The configuration exactly as typed: one struct a table, one field a key, nothing checked but the types.

use toml::Spanned;

use crate::{duration::Span, keys::keys, number::Port, readiness, step::TypedStep};

keys! {
    #[derive(Debug)]
    pub struct Config {
        pub grace_period: Option<Span> = Toml,
        pub stop_reserve: Option<Span> = Toml,
        pub server: Server = Toml,
        pub app: App = Toml,
        pub readiness: Option<Spanned<readiness::Typed>> = Toml,
        pub log: Log = Toml,
        pub pre_start: Hook = Toml,
        pub post_start: Hook = Toml,
        pub pre_stop: Hook = Toml,
        pub post_stop: Hook = Toml,
    }
}

keys! {
    #[derive(Debug)]
    pub struct Server {
        pub listen: Option<Spanned<String>> = Toml,
        pub token: Option<Spanned<String>> = Toml,
        pub token_file: Option<Spanned<String>> = Toml,
        pub token_env: Option<Spanned<String>> = Toml,
        pub allow_from: Option<Spanned<Vec<String>>> = Toml,
        pub allow_unauthenticated: bool = Toml,
    }
}

keys! {
    #[derive(Debug)]
    pub struct App {
        pub preset: Option<Spanned<String>> = Toml,
        pub ports: Option<Spanned<Vec<Port>>> = Toml,
        pub stop_signal: Option<Spanned<String>> = Toml,
        pub stop_on: Option<Spanned<Vec<String>>> = Toml,
        pub graceful_stop: Option<bool> = Toml,
    }
}

keys! {
    #[derive(Debug)]
    pub struct Log {
        pub level: Option<Spanned<String>> = Toml,
        pub format: Option<Spanned<String>> = Toml,
        pub termination_message: Option<String> = Toml,
    }
}

keys! {
    #[derive(Debug)]
    pub struct Hook {
        pub gate: Option<Spanned<String>> = Toml,
        pub deadline: Option<Spanned<Span>> = Toml,
        pub undrain_after: Option<Spanned<Span>> = Toml,
        pub step: Vec<Spanned<TypedStep>> = Toml,
    }
}
