//! `boathook step KIND`: one step by hand, as a hook of a single step, without a configuration file.

use tokio::sync::watch;

use crate::{
    config::{HookConfig, LogConfig},
    exit,
    fatal::Fatal,
    hook::Hook,
    log::{self, Target},
    plan,
    problem::Scope,
    process::{Processes, Signals},
    redact::Secrets,
    report::{HookReport, Live},
    runner::{self, Tools, Urgency, Which},
    step::{self, OwnTraffic, TypedStep},
};

/// Runs the step; gives the exit code.
///
/// # Errors
/// What was typed makes no sense (64), or the step failed (1).
pub async fn run(typed: TypedStep) -> Result<u8, Fatal> {
    let (mut problems, mut secrets) = (Vec::new(), Vec::new());
    let mut scope = Scope::of_command_line(&mut secrets, &mut problems);
    let Some(mut step) = step::mean_step(typed, &mut scope) else {
        return Err(Fatal { code: exit::USAGE, lines: problems.iter().map(ToString::to_string).collect() });
    };
    // What its snapshots are called is what it is called.
    step.name = match std::mem::take(&mut scope.step_name) {
        name if name.is_empty() => step.action.name().into(),
        name => name,
    };
    let secrets = Secrets::new(secrets);
    log::start(&LogConfig::default(), &secrets, Target::of_caller());
    let refused = |what: &str, error: std::io::Error| Fatal::new(exit::INTERNAL, format!("{what}: {error}"));
    let processes = Processes::start(true).map_err(|error| refused("reaper", error))?;
    let mut signals = Signals::install().map_err(|error| refused("signal handlers", error))?;
    let deadline = step.timeout.unwrap_or(plan::GRACE_PERIOD);
    let tools = Tools {
        processes: processes.clone(),
        own_traffic: OwnTraffic::default(),
        usual_ports: Vec::new(),
        main_process: (std::process::id() != 1).then_some(1),
        secrets,
    };
    let config = HookConfig { steps: vec![step], deadline };
    let live = Live::new(HookReport::begin(Hook::PreStop, "boathook step".into(), &config));
    let (urge, urged) = watch::channel(Urgency::Calm);
    let stop_on = [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT];
    let mut hook = std::pin::pin!(runner::run_hook(Hook::PreStop, &config, Which::All, &live, &tools, urged));
    loop {
        tokio::select! {
            () = &mut hook => break,
            received = signals.next() => if stop_on.contains(&received.signal) {
                urge.send_replace(Urgency::Cancel);
            },
        }
    }
    processes.end_steps();
    let report = live.snapshot();
    if report.has_succeeded() { Ok(exit::OK) } else { Err(Fatal::new(exit::FAILED, report.reason)) }
}
