//! The list of kinds. One line here and one file beside it make a kind: its key in the TOML, its subcommand, its
//! meaning and its run all come from the line.

use clap::{ArgMatches, Command};
use toml::Spanned;

use super::{Context, End, Kind, Step, condition};
use crate::{
    duration::Span,
    keys::{self, Fields, keys},
    number::Number,
    problem::Scope,
};

macro_rules! kinds {
    ($($(#[doc = $about:literal])+ $variant:ident, $field:ident, $name:literal, $kind:ty;)+) => {
        keys! {
            /// A step as typed: what all kinds share, and exactly one of the kinds. Only what makes sense for one step
            /// by hand is an option of the command line.
            #[derive(Debug)]
            pub struct TypedStep {
                pub name: Option<String> = Toml,
                /// The longest that the step may take, all attempts together
                pub timeout: Option<Span> = OneOr("DURATION", "30s"),
                /// The longest that one attempt may take
                pub attempt_timeout: Option<Span> = One("DURATION"),
                pub on_failure: Option<String> = Toml,
                /// Attempts after the first, with growing pauses between
                pub retries: Option<Number<u32>> = One("N"),
                /// The pause before the first retry; doubles each time
                pub backoff: Option<Span> = One("DURATION"),
                pub when: Option<condition::Typed> = Toml,
                pub essential: bool = Toml,
                pub group: Option<Vec<Spanned<TypedStep>>> = Toml,
                $(pub $field: Option<<$kind as Kind>::Typed> = Toml,)+
            }
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

        /// Adds the kinds as subcommands.
        pub fn describe(mut command: Command) -> Command {
            $(command = command.subcommand(describe_kind($name, &[$($about),+]).defer(|command| {
                describe_options(command, || Box::<<$kind as Kind>::Typed>::default())
            }));)+
            command
        }

        /// What was typed on the command line, as if it were in the TOML.
        ///
        /// # Errors
        /// None that the parser has not told before.
        pub fn take(matches: &ArgMatches) -> Result<TypedStep, clap::Error> {
            let mut step = TypedStep::default();
            let Some((name, matches)) = matches.subcommand() else { return Ok(step) };
            keys::take(&mut step, matches)?;
            $(if name == $name {
                keys::take(step.$field.insert(Default::default()), matches)?;
            })+
            Ok(step)
        }
    };
}

/// The subcommand of a kind, without its options. The first line of `about` is for lists.
fn describe_kind(name: &'static str, about: &[&'static str]) -> Command {
    let first = about.first().map_or("", |line| line.trim());
    let all: Vec<&str> = about.iter().map(|line| line.trim()).collect();
    Command::new(name).about(first.strip_suffix('.').unwrap_or(first)).long_about(all.join("\n"))
}

/// Adds the options of a kind and those that all kinds share; only for the kind that was typed, which takes less time
/// than for all of them.
fn describe_options(command: Command, make: fn() -> Box<dyn Fields>) -> Command {
    keys::describe(keys::describe(command, make), || Box::<TypedStep>::default())
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
    /// Save state as a snapshot.
    ///
    /// Example: boathook step save --name sessions --from /var/lib/app/sessions --to /state
    Save, save, "save", super::save::Save;
    /// Restore the newest snapshot that verifies.
    ///
    /// Example: boathook step restore --name sessions --from /state --to /var/lib/app
    Restore, restore, "restore", super::restore::Restore;
    /// Send requests until the application has proved itself warm.
    ///
    /// Example: boathook step warm-up http://127.0.0.1:8080/ --successes 200 --timeout 30s
    WarmUp, warm_up, "warm-up", super::warm_up::WarmUp;
}
