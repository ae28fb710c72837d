//! The `sleep` step: a fixed time, or until the hook has lasted that long. For what cannot be observed; where it can,
//! `wait` and `drain` end as soon as it is over.

use std::time::Duration;

use super::{Context, End, Kind};
use crate::{
    duration::{Span, show},
    keys::{Error, Node, Shape, keys},
    problem::Scope,
};

/// A pause.
#[derive(Debug)]
pub struct Sleep {
    length: Duration,
    from_hook_start: bool,
}

keys! {
    /// `sleep = "10s"`, or `sleep = { until = "15s" }`.
    #[derive(Debug)]
    pub struct Typed {
        /// Sleep until the hook has lasted this long, so that quick steps before it do not shorten the whole
        until: Option<Span> = One("DURATION"),
    }
    parts { ByHand short: Short }
    impl {
        fn needed(&self) -> &'static [&'static str] {
            &["until"]
        }
        fn short(&mut self, value: Node<'_>) -> Result<bool, Error> {
            let Shape::Text(text) = value.shape()? else { return Ok(false) };
            self.short.length = Some(value.parse(text)?);
            Ok(true)
        }
        fn expected(&self) -> &'static str {
            "a duration in quotes, such as \"10s\", or { until = \"15s\" }"
        }
    }
}

keys! {
    #[derive(Debug)]
    struct Short {
        /// How long to sleep
        length: Option<Span> = Word("DURATION", "until"),
    }
}

impl Sleep {
    /// The longest that it takes.
    pub fn length(&self) -> Duration {
        self.length
    }
}

impl Kind for Sleep {
    type Typed = Typed;

    fn mean(typed: Typed, scope: &mut Scope<'_>) -> Option<Self> {
        match (typed.short.length, typed.until) {
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
