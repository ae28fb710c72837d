//! What `boathook check` says of a good configuration: how the grace period is shared out, and the worst case of every
//! hook, step by step. Pure: a configuration in, text out.

use std::{fmt::Write, time::Duration};

use crate::{
    config::{Config, Gate},
    duration::show,
    hook::Hook,
    server::admission::Source,
    step::{Action, OnFailure, Step},
};

/// The worst case as text.
pub fn describe(config: &Config) -> String {
    let mut text = String::new();
    let grace = &config.grace;
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{}: good", config.file.as_deref().unwrap_or("no configuration file: the defaults"));
    let _ = writeln!(
        text,
        "grace period {}{} = pre-stop {} + main process {}{} + rounding {}",
        show(grace.period),
        if config.grace_is_configured { "" } else { " (Kubernetes' default)" },
        show(grace.pre_stop()),
        show(grace.stop_reserve),
        if grace.post_stop.is_zero() { String::new() } else { format!(" + post-stop {}", show(grace.post_stop)) },
        show(grace.margin),
    );
    let _ = writeln!(text, "hooks by http: {}", describe_listener(config));
    if let Some(preset) = &config.app.preset {
        let _ = writeln!(text, "from preset {preset}");
    }
    if let Some(readiness) = &config.readiness {
        let _ = writeln!(text, "readiness: {readiness}");
    }
    for hook in Hook::ALL {
        describe_hook(&mut text, config, hook);
    }
    text
}

fn describe_listener(config: &Config) -> String {
    match config.server.listen {
        Some(listen) => format!("{listen}, {}", describe_rights(config)),
        None => "off".into(),
    }
}

/// Who may trigger hooks by HTTP, in words.
pub fn describe_rights(config: &Config) -> String {
    let server = &config.server;
    let mut who = Vec::new();
    if server.rights.token.is_some() {
        who.push("with the token".to_owned());
    }
    if let Some(networks) = &server.rights.allow_from {
        let names: Vec<String> = networks.iter().map(source).collect();
        who.push(format!("from {}", names.join(", ")));
    }
    if who.is_empty() {
        who.push(if server.rights.allow_unauthenticated {
            "from anybody (allow-unauthenticated)".into()
        } else {
            "from this pod".into()
        });
    }
    who.join(" and ")
}

fn source(source: &Source) -> String {
    match source {
        Source::Gateway => "the default route's gateway".into(),
        Source::Network(network) if network.prefix_len() == network.max_prefix_len() => network.addr().to_string(),
        Source::Network(network) => network.to_string(),
    }
}

fn describe_hook(text: &mut String, config: &Config, hook: Hook) {
    let hook_config = config.hook(hook);
    if hook_config.steps.is_empty() {
        return;
    }
    let plan = hook_config.plan();
    let times = plan.worst_case();
    let worst = times.last().map_or(Duration::ZERO, |(_, end)| *end);
    let gate = match (hook, config.gate) {
        (Hook::PostStart, Some(Gate::Hook)) => ", gates the hook",
        (Hook::PostStart, Some(Gate::Readiness)) => ", gates readiness",
        _ => "",
    };
    let _ = writeln!(text, "\n{hook}: at most {} of {}{gate}", show(worst), show(plan.deadline));
    for ((step, (start, end)), index) in hook_config.steps.iter().zip(times).zip(0..) {
        let granted = end - start;
        let mut notes = Vec::new();
        if step.essential {
            notes.push(format!("essential, {} reserved", show(plan.reserve(index))));
        }
        if let Some(timeout) = step.timeout.filter(|timeout| *timeout > granted) {
            notes.push(format!("cut short of its {} in the worst case", show(timeout)));
        } else if granted.is_zero() {
            notes.push("gets no time in the worst case".into());
        }
        if step.on_failure == OnFailure::Continue {
            notes.push("its failure is not the hook's".into());
        }
        #[cfg(feature = "state")]
        if let Action::Save(save) = &step.action
            && let Some(period) = save.periodic
        {
            notes.push(format!("also every {} while ready", show(period)));
        }
        let notes = if notes.is_empty() { String::new() } else { format!("  ({})", notes.join("; ")) };
        let _ = writeln!(text, "  {:>6} – {:<6} {} ({}){notes}", show(start), show(end), step.name, kinds(step));
    }
}

fn kinds(step: &Step) -> String {
    match &step.action {
        Action::Group(steps) => {
            let names: Vec<&str> = steps.iter().map(|step| step.action.name()).collect();
            format!("group of {}", names.join(", "))
        }
        action => action.name().into(),
    }
}
