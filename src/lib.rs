//! The map: `argv → cli → config → plan → runner → report → exit code`.
//!
//! | room | what it is for |
//! |---|---|
//! | [`cli`] | what may be typed |
//! | [`command`] | what each subcommand does, one call after the other |
//! | [`config`] | the TOML file: what was typed, then what it means, or every problem |
//! | [`embedded`] | the texts that travel in the binary: the reference and the presets |
//! | [`problem`] | what is wrong with what a user wrote, and where |
//! | [`preset`] | what is known about well-known servers |
//! | [`keys`] | one list of a table's keys, for the TOML and for the command line |
//! | [`duration`], [`number`], `size` | how times, numbers and sizes are typed |
//! | [`hook`] | the four hooks, the phases and what may follow what |
//! | [`plan`] | a hook's time as pure arithmetic |
//! | [`runner`] | runs a plan; the only room that knows what time it is |
//! | [`step`] | the kinds of step, one room each behind one door |
//! | [`drain`], [`net`] | when an application is drained, and what the kernel knows of its connections |
//! | [`probe`] | checks that hold or do not yet: for `wait`, and for readiness |
//! | [`readiness`] | the application's own check behind `/ready` |
//! | [`client`], [`value`] | requests that steps send, and values in their answers |
//! | `state` | snapshots: saved from files, commands and answers; restored all or nothing |
//! | [`warm`] | requests until the application has proved itself warm |
//! | [`report`], [`status`], [`termination`], [`log`] | what happened, told to callers, people, the platform and the log |
//! | [`watch`] | follows an agent's status, in a terminal or line by line |
//! | [`redact`] | keeps secrets out of all of those |
//! | [`agent`] | one container's life: the phase, and one run of each hook that everybody joins |
//! | `periodic` | saves while the main process runs |
//! | [`door`] | the agent as its callers see it |
//! | [`server`], [`control`] | the port and the Unix socket |
//! | [`service`] | opens and closes them around an agent that stays |
//! | [`life`], [`beside`], [`one_step`] | `run`; `serve` and the exec hooks; `step` |
//! | [`process`] | the reaper, the main process, what steps start, signals |
//! | [`check`], [`install`], `init`, `state_command`, `completions` | subcommands of their own |
//! | `elsewhere` | subcommands that the second binary does |
//! | [`exit`], [`fatal`] | the table of exit codes, and errors that end a command |
//! | [`short`] | short lists in order |
//! | [`task`] | background work, handed to the runtime in one form |
//! | [`sys`] | the kernel's interfaces that need care |

pub mod agent;
pub mod beside;
pub mod check;
pub mod cli;
pub mod client;
pub mod command;
#[cfg(feature = "completions")]
pub mod completions;
pub mod config;
pub mod control;
pub mod door;
pub mod drain;
pub mod duration;
#[cfg(feature = "kube")]
pub mod elsewhere;
pub mod embedded;
pub mod exit;
pub mod fatal;
pub mod hook;
#[cfg(feature = "init")]
pub mod init;
pub mod install;
pub mod keys;
pub mod life;
pub mod log;
pub mod net;
pub mod number;
pub mod one_step;
#[cfg(feature = "state")]
pub mod periodic;
pub mod plan;
pub mod preset;
pub mod probe;
pub mod problem;
pub mod process;
pub mod readiness;
pub mod redact;
pub mod report;
pub mod runner;
pub mod server;
pub mod service;
pub mod short;
#[cfg(feature = "state")]
pub mod size;
#[cfg(feature = "state")]
pub mod state;
#[cfg(feature = "state")]
pub mod state_command;
pub mod status;
pub mod step;
pub mod sys;
pub mod task;
pub mod termination;
pub mod value;
pub mod warm;
pub mod watch;
