//! The list of kinds. One line here and one file beside it make a kind: its key in the TOML, its subcommand, its
//! meaning and its run all come from the line.

use serde::Deserialize;
use toml::Spanned;

use super::{Context, End, Kind, Step, StepOptions, condition};
use crate::{duration::Span, number::Number, problem::Scope};

macro_rules! kinds {
    ($($(#[doc = $about:literal])+ $variant:ident, $field:ident, $name:literal, $kind:ty;)+) => {
        /// A step as typed: what all kinds share, and exactly one of the kinds.
        #[derive(Debug, Default, Deserialize)]
        #[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
        pub struct TypedStep {
            pub name: Option<String>,
            pub timeout: Option<Span>,
            pub attempt_timeout: Option<Span>,
            pub on_failure: Option<String>,
            pub retries: Option<Number<u32>>,
            pub backoff: Option<Span>,
            pub when: Option<condition::Typed>,
            pub essential: bool,
            pub group: Option<Vec<Spanned<TypedStep>>>,
            $(pub $field: Option<<$kind as Kind>::Typed>,)+
        }

        /// What a step does.
        #[derive(Debug)]
        pub enum Action {
            /// Several steps at once.
            Group(Vec<Step>),
            $($(#[doc = $about])+ $variant(Box<$kind>),)+
        }

        /// The names of all kinds, for messages.
        pub const NAMES: &[&str] = &[$($name),+];

        impl TypedStep {
            /// Takes the one kind out of what was typed and gives it meaning.
            pub(super) fn action(&mut self, scope: &mut Scope<'_>) -> Option<Action> {
                let mut typed: Vec<&str> = Vec::new();
                if self.group.is_some() {
                    typed.push("group");
                }
                $(if self.$field.is_some() { typed.push($name); })+
                match typed.as_slice() {
                    [_] => {}
                    // A kind that was misspelt has been told already.
                    [] if scope.problems.iter().any(|problem| problem.place.starts_with(&scope.place)) => return None,
                    [] => {
                        scope.problem("", "the step does nothing", format!("add one of: {}, group", NAMES.join(", ")));
                        return None;
                    }
                    several => {
                        scope.problem("", format!("the step does {} things: {}", several.len(), several.join(", ")), "make a step of each, or put them into a group".to_owned());
                        return None;
                    }
                }
                $(if let Some(typed) = self.$field.take() {
                    let place = scope.place.clone();
                    // On the command line the step has no place around it.
                    scope.place = if place.is_empty() { $name.into() } else { format!("{place}: {}", $name) };
                    let action = <$kind as Kind>::mean(typed, scope).map(|kind| Action::$variant(Box::new(kind)));
                    scope.place = place;
                    return action;
                })+
                self.group.take().and_then(|steps| super::mean_group(steps, scope))
            }
        }

        impl Action {
            pub fn name(&self) -> &'static str {
                match self {
                    Action::Group(_) => "group",
                    $(Action::$variant(_) => $name,)+
                }
            }

            /// Runs one attempt; a group is the runner's business.
            pub async fn run(&self, context: &Context) -> End {
                match self {
                    Action::Group(_) => End::FailedForGood("a group cannot be attempted".into()),
                    $(Action::$variant(step) => step.run(context).await,)+
                }
            }
        }

        /// Run one step by hand, without a configuration file
        #[derive(Debug, clap::Subcommand)]
        #[expect(clippy::large_enum_variant, reason = "there is one, for a moment")]
        pub enum StepCommand {
            $($(#[doc = $about])+ #[command(name = $name)] $variant {
                #[command(flatten)]
                typed: <$kind as Kind>::Typed,
                #[command(flatten)]
                options: StepOptions,
            },)+
        }

        impl StepCommand {
            /// What the same step would be in the TOML.
            pub fn typed(self) -> TypedStep {
                match self {
                    $(StepCommand::$variant { typed, options } => TypedStep { $field: Some(typed), ..options.typed() },)+
                }
            }
        }
    };
}

kinds! {
    /// Wait a fixed time, or until the hook has lasted that long.
    ///
    /// Example: boathook step sleep 10s
    Sleep, sleep, "sleep", super::sleep::Sleep;
    /// Run a command.
    ///
    /// Example: boathook step exec --timeout 10s -- consul leave
    Exec, exec, "exec", super::exec::Exec;
    /// Send a request.
    ///
    /// Example: boathook step http --method POST http://127.0.0.1:9000/drain
    Http, http, "http", super::http::Http;
    /// Send a signal, and wait for the process to end if asked.
    ///
    /// Example: boathook step signal --signal QUIT --pid-file /run/nginx.pid --wait
    Signal, signal, "signal", super::signal::Signal;
    /// Wait until something is true.
    ///
    /// Example: boathook step wait --tcp db:5432 --timeout 30s
    Wait, wait, "wait", super::wait::Wait;
    /// Touch, write or remove a file.
    ///
    /// Example: boathook step file --write /var/tmp/hello.txt --content 'Hello!'
    File, file, "file", super::file::File;
    /// Wait until no new connection comes and nothing is in flight.
    ///
    /// Example: boathook step drain --port 8080 --timeout 25s
    Drain, drain, "drain", super::drain::Drain;
}
