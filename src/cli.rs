//! The command line: what may be typed, and nothing of what it does (`command.rs`).

use std::{ffi::OsString, path::PathBuf};

use clap::{ArgMatches, Args, FromArgMatches, Parser, Subcommand};

#[cfg(feature = "state")]
use crate::state_command::StateCommand;
use crate::{
    duration::Span,
    step::{TypedStep, kinds},
};

/// Runs what has to happen when a container starts and stops: hooks, drain, entrypoint.
#[derive(Debug, Parser)]
#[command(
    name = "boathook",
    version,
    about = "Runs what has to happen when a container starts and stops, inside the pod's grace period",
    after_help = "Example:\n  ENTRYPOINT [\"/boathook\", \"run\", \"--\", \"nginx\", \"-g\", \"daemon off;\"]\n\n\
        Exit codes: 0 success, 1 the hook failed, 64 usage, 69 no agent runs here, 70 the system refused, 77 not permitted, 78 configuration;\n\
        `run` passes on the main process's code (128+N for a signal, 126 not executable, 127 not found)."
)]
pub struct Cli {
    /// The configuration file; else BOATHOOK_CONFIG, else /etc/boathook/boathook.toml, else the defaults
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Be the entrypoint: start the main process, serve the hooks, pass on signals, reap orphans
    #[command(after_help = "Example:\n  boathook run -- nginx -g 'daemon off;'")]
    Run {
        /// The main process and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Serve the hooks beside a main process that boathook did not start
    #[command(
        after_help = "Example:\n  boathook serve --background   (as postStart.exec, where the entrypoint cannot change)"
    )]
    Serve(Serve),
    /// Run the post-start hook, or join it: for postStart.exec
    #[command(after_help = "Example:\n  postStart: { exec: { command: [\"/boathook\", \"started\"] } }")]
    Started,
    /// Run the pre-stop hook, or join it: for preStop.exec
    #[command(after_help = "Example:\n  preStop: { exec: { command: [\"/boathook\", \"shutdown\"] } }")]
    Shutdown,
    /// Ask the agent whether traffic should be sent here (exit code 0 or 1): for readinessProbe.exec
    #[command(after_help = "Example:\n  readinessProbe: { exec: { command: [\"/boathook\", \"ready\"] } }")]
    Ready,
    /// Ask the agent whether it is alive (exit code 0 or 1): for livenessProbe.exec
    #[command(after_help = "Example:\n  livenessProbe: { exec: { command: [\"/boathook\", \"live\"] } }")]
    Live,
    /// Show what the agent is doing
    #[command(
        after_help = "Example:\n  kubectl exec my-pod -- /boathook status\n  kubectl exec -it my-pod -- /boathook status --watch"
    )]
    Status(Look),
    /// Show what the hooks did: every step's outcome, time and reason
    #[command(after_help = "Example:\n  kubectl exec my-pod -- /boathook report --json")]
    Report(Format),
    /// Check the configuration and show the worst case of its time
    #[command(after_help = CHECK_EXAMPLES)]
    Check(Check),
    /// Print the YAML that fits the configuration: lifecycle, probes, ports, grace period (needs boathook-kube)
    #[cfg(feature = "kube")]
    #[command(
        after_help = "Example:\n  boathook manifest --config boathook.toml\n  boathook manifest --config boathook.toml --format patch --name web > patch.yaml"
    )]
    Manifest(Manifest),
    /// Print the JSON Schema of the configuration, for editors (needs boathook-kube)
    #[cfg(feature = "kube")]
    #[command(after_help = "Example:\n  boathook schema > boathook.schema.json")]
    Schema,
    /// Print a configuration to start from, with a token: for the server that --preset names, or that the command shows
    #[cfg(feature = "init")]
    #[command(
        after_help = "Example:\n  boathook init -- nginx -g 'daemon off;' > boathook.toml\n  boathook init --preset nginx --output boathook.toml"
    )]
    Init {
        /// nginx, apache, haproxy … (an unknown name lists all) [default: as the command says]
        #[arg(long, value_name = "NAME")]
        preset: Option<String>,
        /// Write it into this new file, readable for its owner alone, instead of printing it
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        /// The main process and its arguments [default: what PID 1 is]
        #[arg(last = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Print the complete commented reference configuration
    #[command(after_help = "Example:\n  boathook config > boathook.toml")]
    Config,
    /// Run one step by hand, without a configuration file
    #[command(
        after_help = "Example:\n  preStop: { exec: { command: [\"/boathook\", \"step\", \"drain\", \"--port\", \"8080\", \"--timeout\", \"25s\"] } }"
    )]
    Step {
        #[command(subcommand)]
        step: StepOnDemand,
    },
    /// Look at snapshots of state: list, verify or unpack them
    #[cfg(feature = "state")]
    #[command(after_help = "Example:\n  boathook state list /state")]
    State {
        #[command(subcommand)]
        command: Box<StateCommand>,
    },
    /// Copy this binary into a folder: for an init container that brings it into an emptyDir
    #[command(
        after_help = "Example:\n  initContainers: [{ image: boathook, command: [\"/boathook\", \"install\", \"/shared\"] }]"
    )]
    Install {
        /// The folder; the binary is put there as `boathook`
        dir: PathBuf,
    },
    /// Print the completions for a shell
    #[cfg(feature = "completions")]
    #[command(after_help = "Example:\n  boathook completions bash > /etc/bash_completion.d/boathook")]
    Completions {
        /// bash, fish or zsh
        shell: crate::completions::Shell,
    },
    /// Look up a name and print its addresses: a process of its own, because a lookup cannot be cancelled
    #[command(name = "__resolve", hide = true)]
    Resolve { name: String },
}

#[cfg(feature = "kube")]
const CHECK_EXAMPLES: &str = "Example:\n  boathook check --config boathook.toml\n  \
    boathook check --config boathook.toml --pod deployment.yaml\n  \
    helm template my-chart | boathook check --pod -\n\n\
    Exit codes with --pod: 0 nothing found, or notes only; 1 errors; 2 warnings; 3 notes with --fail-on note;\n\
    65 a manifest that cannot be read. With --fix they tell what is left.";
#[cfg(not(feature = "kube"))]
const CHECK_EXAMPLES: &str = "Example:\n  boathook check --config boathook.toml";

/// `check`.
#[derive(Debug, Args)]
pub struct Check {
    /// Hold manifests against the configuration: YAML files with any number of documents, or - for stdin (needs
    /// boathook-kube)
    #[cfg(feature = "kube")]
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub pod: Vec<PathBuf>,
    /// The container that has boathook [default: the one whose hooks, command or volumes name it]
    #[cfg(feature = "kube")]
    #[arg(long, value_name = "NAME", requires = "pod")]
    pub container: Option<String>,
    /// Print the corrected YAML on stdout, comments and order kept; what was found goes to stderr
    #[cfg(feature = "kube")]
    #[arg(long, requires = "pod")]
    pub fix: bool,
    /// How to print what was found
    #[cfg(feature = "kube")]
    #[arg(long, value_name = "FORMAT", default_value = "text", requires = "pod")]
    pub format: FindingFormat,
    /// The least severity that gives an exit code other than 0
    #[cfg(feature = "kube")]
    #[arg(long, value_name = "SEVERITY", default_value = "warning", requires = "pod")]
    pub fail_on: FailOn,
}

/// How `check --pod` prints what it found.
#[cfg(feature = "kube")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FindingFormat {
    Text,
    Json,
    Sarif,
    Github,
}

/// From which severity on `check --pod` fails.
#[cfg(feature = "kube")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FailOn {
    Error,
    Warning,
    Note,
}

/// `manifest`.
#[cfg(feature = "kube")]
#[derive(Debug, Args)]
pub struct Manifest {
    /// snippet (of a pod's spec), patch (strategic merge), kustomize (a component) or helm (template lines)
    #[arg(long, value_name = "FORMAT", default_value = "snippet")]
    pub format: ManifestFormat,
    /// How boathook is used: run, exec, serve or install (an init container brings it)
    #[arg(long, value_name = "WAY", default_value = "run")]
    pub way: Way,
    /// The Deployment's name, or that of another --kind: for patch and kustomize
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// What --name is the name of, and what helm's lines are indented for
    #[arg(long, value_name = "KIND", default_value = "Deployment", ignore_case = true)]
    pub kind: Kind,
    /// The container's name
    #[arg(long, value_name = "NAME", default_value = "app")]
    pub container: String,
    /// The boathook image, for --way install
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// The main process and its arguments, where the container's command is to be written too
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// What `manifest` prints.
#[cfg(feature = "kube")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ManifestFormat {
    Snippet,
    Patch,
    Kustomize,
    Helm,
}

/// How boathook gets into the container, and who calls it there.
#[cfg(feature = "kube")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Way {
    Run,
    Exec,
    Serve,
    Install,
}

/// What has a pod in it, in Kubernetes' spelling.
#[cfg(feature = "kube")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum Kind {
    Deployment,
    StatefulSet,
    DaemonSet,
    Job,
    CronJob,
    Pod,
}

#[derive(Debug, Args)]
pub struct Serve {
    /// Go to the background once the hooks can be called; this command then ends
    #[arg(long)]
    pub background: bool,
    /// Run the post-start hook too and end with its result: makes this one command the whole postStart.exec
    #[arg(long, requires = "background")]
    pub started: bool,
    /// Says on stdout that it listens, then lets go of it: the background half of --background
    #[arg(long, hide = true)]
    pub announce: bool,
}

#[derive(Debug, Args)]
pub struct Look {
    #[command(flatten)]
    pub format: Format,
    /// Follow it until the agent ends: in place in a terminal, elsewhere one line for each change; with --json one
    /// document a line
    #[arg(long)]
    pub watch: bool,
    /// How often to look
    #[arg(long, value_name = "TIME", default_value = "500ms", requires = "watch")]
    pub interval: Span,
    /// End with 0 as soon as the agent is ready, and with 1 if it cannot become so any more
    #[arg(long, requires = "watch")]
    pub until_ready: bool,
}

#[derive(Debug, Args)]
pub struct Format {
    /// As JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// A step as typed. The kinds with all their options are described to the parser only when `step` is typed: describing
/// them takes longer than everything else that `boathook shutdown` does.
#[derive(Debug)]
pub struct StepOnDemand(pub Box<TypedStep>);

impl Subcommand for StepOnDemand {
    fn augment_subcommands(command: clap::Command) -> clap::Command {
        command.defer(|command| kinds::describe(command).subcommand_required(true).arg_required_else_help(true))
    }

    fn augment_subcommands_for_update(command: clap::Command) -> clap::Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        kinds::NAMES.contains(&name)
    }
}

impl FromArgMatches for StepOnDemand {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        kinds::take(matches).map(|step| Self(Box::new(step)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_parser_is_sound() {
        Cli::command().debug_assert();
    }

    /// `wait` once had an option of the same name as one that all steps share, and `step wait` ended in a panic.
    #[test]
    fn every_step_parses_by_hand() {
        for words in [
            "sleep 1s",
            "exec -- true",
            "http http://127.0.0.1/",
            "signal --signal QUIT --pid-file /run/x.pid --wait",
            "signal --process nginx",
            "wait --tcp 127.0.0.1:1 --try-timeout 1s --attempt-timeout 2s",
            "file --touch /tmp/x",
            "drain --port 8080",
            "drain --metric http://127.0.0.1:9090/metrics --name in_flight --at-most 0",
        ] {
            let line = ["boathook", "step"].into_iter().chain(words.split(' '));
            Cli::try_parse_from(line).expect(words);
        }
    }

    #[test]
    fn every_subcommand_shows_an_example() {
        fn check(command: &clap::Command, path: &str) {
            for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
                let path = format!("{path} {}", sub.get_name());
                let help = sub.clone().render_long_help().to_string();
                assert!(help.contains("Example:"), "`{path} --help` has no example");
                check(sub, &path);
            }
        }
        check(&Cli::command(), "boathook");
    }
}
