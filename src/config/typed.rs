//! The configuration exactly as typed: one struct a table, one field a key, nothing checked but the types.

use serde::Deserialize;
use toml::Spanned;

use crate::{duration::Span, number::Port, step::TypedStep};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    pub grace_period: Option<Span>,
    pub stop_reserve: Option<Span>,
    pub server: Server,
    pub app: App,
    pub log: Log,
    pub pre_start: Hook,
    pub post_start: Hook,
    pub pre_stop: Hook,
    pub post_stop: Hook,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Server {
    pub listen: Option<Spanned<String>>,
    pub token_file: Option<Spanned<String>>,
    pub token_env: Option<Spanned<String>>,
    pub allow_from: Option<Spanned<Vec<String>>>,
    pub allow_unauthenticated: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct App {
    pub ports: Option<Spanned<Vec<Port>>>,
    pub stop_signal: Option<Spanned<String>>,
    pub stop_on: Option<Spanned<Vec<String>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Log {
    pub level: Option<Spanned<String>>,
    pub format: Option<Spanned<String>>,
    pub termination_message: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Hook {
    pub gate: Option<Spanned<String>>,
    pub deadline: Option<Spanned<Span>>,
    pub undrain_after: Option<Spanned<Span>>,
    pub step: Vec<Spanned<TypedStep>>,
}
