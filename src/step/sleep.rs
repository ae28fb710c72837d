//! The `sleep` step: a fixed time, or until the hook has lasted that long. For what cannot be observed; where it can,
//! `wait` and `drain` end as soon as it is over.

use std::{fmt, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{self, value::MapAccessDeserializer},
};

use super::{Context, End, Kind};
use crate::{
    duration::{Span, show},
    problem::Scope,
};

/// A pause.
#[derive(Debug)]
pub struct Sleep {
    length: Duration,
    from_hook_start: bool,
}

/// `sleep = "10s"`, or `sleep = { until = "15s" }`.
#[derive(Debug, Default, clap::Args)]
pub struct Typed {
    /// How long to sleep
    #[arg(value_name = "DURATION", required_unless_present = "until")]
    length: Option<Span>,
    /// Sleep until the hook has lasted this long, so that quick steps before it do not shorten the whole
    #[arg(long, value_name = "DURATION", conflicts_with = "length")]
    until: Option<Span>,
}

impl<'de> Deserialize<'de> for Typed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case")]
        struct Long {
            until: Span,
        }
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Typed;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration in quotes, such as \"10s\", or { until = \"15s\" }")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Typed, E> {
                text.parse().map(|length| Typed { length: Some(length), until: None }).map_err(E::custom)
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Typed, A::Error> {
                let long = Long::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Typed { length: None, until: Some(long.until) })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Kind for Sleep {
    type Typed = Typed;

    fn mean(typed: Typed, scope: &mut Scope<'_>) -> Option<Self> {
        match (typed.length, typed.until) {
            (Some(length), None) => Some(Sleep { length: length.0, from_hook_start: false }),
            (None, Some(until)) => Some(Sleep { length: until.0, from_hook_start: true }),
            _ => {
                scope.problem(
                    "",
                    "neither a time nor `until`, or both",
                    "write sleep = \"10s\" or sleep = { until = \"15s\" }".to_owned(),
                );
                None
            }
        }
    }

    async fn run(&self, context: &Context) -> End {
        let until = if self.from_hook_start { context.hook_started } else { tokio::time::Instant::now() } + self.length;
        if until <= tokio::time::Instant::now() && self.from_hook_start {
            return End::Done(format!("the hook had already lasted {}", show(self.length)));
        }
        context.progress.set(format!("sleeping until {} are over", show(self.length)));
        tokio::time::sleep_until(until).await;
        End::Done(if self.from_hook_start {
            format!("the hook has lasted {}", show(self.length))
        } else {
            String::new()
        })
    }
}
