//! `manifest`: the YAML that fits a configuration.
//!
//! command line → [`facts`] → `parts.rs` (which fields, and why) → `form.rs` (what is around them) → `text.rs` (how it is written)

mod form;
mod parts;
mod text;

use std::{path::Path, time::Duration};

use boathook::{
    cli::{self, Manifest, ManifestFormat},
    command,
    config::{self, Gate},
    duration::show,
    exit,
    fatal::Fatal,
    hook::Hook,
    plan,
};

use crate::facts::{self, Facts, Token};

/// Kubernetes' default for `progressDeadlineSeconds`.
const PROGRESS_DEADLINE: Duration = Duration::from_secs(600);

/// Prints it.
///
/// # Errors
/// The configuration is not good, or the options do not fit each other.
pub fn manifest(config: Option<&Path>, options: &Manifest) -> Result<u8, Fatal> {
    command::print(write(config, options)?.as_bytes())
}

/// The whole text.
///
/// # Errors
/// The configuration is not good, or the options do not fit each other.
pub fn write(config: Option<&Path>, options: &Manifest) -> Result<String, Fatal> {
    let asked = check(options)?;
    let found = config::find(config).map_err(|problems| Fatal::config(&problems))?;
    let facts = match &found {
        Some((file, text)) => {
            let environment = |name: &str| std::env::var(name).ok();
            let facts = facts::read(file, text, &environment, asked.way.listener());
            let mut facts = facts.map_err(|problems| Fatal::config(&problems))?;
            if let (Some(Token::Written), Some(name)) = (&facts.token, variable_of_token(text)) {
                facts.token = Some(Token::Env(name));
            }
            facts
        }
        None => Facts::of_defaults(),
    };
    check_way(&asked.way, &facts)?;
    let around = form::Around {
        format: options.format,
        kind: options.kind,
        name: options.name.as_deref().unwrap_or_default(),
        file: found.as_ref().map(|(file, _)| file.as_str()),
        is_secret: facts.token == Some(Token::Written),
        progress_deadline: progress_deadline(&asked.way, &facts),
    };
    let spec = parts::spec(&parts::Wanted {
        facts: &facts,
        has_file: found.is_some(),
        way: asked.way,
        container: &options.container,
        command: &asked.command,
    });
    Ok(form::print(spec, &around))
}

/// What would silently not happen, or hold the pod, in this way.
fn check_way(way: &parts::Way, facts: &Facts) -> Result<(), Fatal> {
    if way.is_entrypoint() {
        return Ok(());
    }
    if let Some(hook) = [Hook::PreStart, Hook::PostStop].into_iter().find(|hook| facts.has(*hook)) {
        return Err(usage(
            &format!("{hook} has steps, which nobody runs unless boathook is the entrypoint"),
            "use --way run or --way install, or take the steps out",
        ));
    }
    if way.gate(facts) == Gate::Hook && facts.post_start > plan::START_DEADLINE {
        let (longest, bound) = (show(facts.post_start), show(plan::START_DEADLINE));
        return Err(usage(
            &format!("post-start may take {longest} here, and so long the pod could not even be deleted"),
            &format!("use --way run or --way install, or bring [post-start] deadline down to {bound}"),
        ));
    }
    Ok(())
}

/// `progressDeadlineSeconds` for a Deployment whose pods may take longer than the default until they are ready.
fn progress_deadline(way: &parts::Way, facts: &Facts) -> Option<u64> {
    let start = if way.is_entrypoint() { facts.start } else { facts.post_start };
    // A quarter and half a minute more, for the image and for scheduling.
    (start >= PROGRESS_DEADLINE).then(|| start.as_secs() + start.as_secs() / 4 + 30)
}

/// The variable in `token = "${NAME}"`: then the file holds no secret.
fn variable_of_token(text: &str) -> Option<String> {
    let (root, _) = toml::de::DeTable::parse_recoverable(text);
    let token = root.get_ref().get("server")?.get_ref().as_table()?.get("token")?.get_ref().as_str()?;
    let name = token.strip_prefix("${")?.strip_suffix('}')?;
    name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_').then(|| name.to_owned())
}

/// The options, held against each other.
#[derive(Debug)]
struct Asked {
    way: parts::Way,
    command: Vec<String>,
}

fn usage(what: &str, help: &str) -> Fatal {
    Fatal::new(exit::USAGE, format!("manifest: {what}\n  help: {help}"))
}

fn check(options: &Manifest) -> Result<Asked, Fatal> {
    let format = format!("{:?}", options.format).to_lowercase();
    let is_named = matches!(options.format, ManifestFormat::Patch | ManifestFormat::Kustomize);
    match &options.name {
        None if is_named => {
            return Err(usage(
                &format!("--format {format} needs the name of what it patches"),
                &format!("add --name, and --kind where it is no Deployment: --format {format} --name web"),
            ));
        }
        Some(_) if !is_named => {
            return Err(usage(
                &format!("--format {format} has no place for --name"),
                "take it out, or ask for --format patch or kustomize",
            ));
        }
        Some(name) if !is_name(name, 253, true) => return Err(wrong_name("--name", name)),
        _ => {}
    }
    if !is_name(&options.container, 63, false) {
        return Err(wrong_name("--container", &options.container));
    }
    let way = match (options.way, &options.image) {
        (cli::Way::Install, image) => {
            let image = image.clone().unwrap_or_else(|| concat!("boathook:", env!("CARGO_PKG_VERSION")).into());
            parts::Way::Install { image }
        }
        (_, Some(_)) => {
            return Err(usage(
                "--image is the init container's, which only --way install has",
                "take it out, or add --way install",
            ));
        }
        (cli::Way::Run, None) => parts::Way::Run,
        (cli::Way::Exec, None) => parts::Way::Exec,
        (cli::Way::Serve, None) => parts::Way::Serve,
    };
    let mut command = Vec::new();
    for word in &options.command {
        match word.to_str() {
            Some(word) => command.push(word.to_owned()),
            None => return Err(usage("the command is not text (not UTF-8)", "YAML holds nothing but text")),
        }
    }
    Ok(Asked { way, command })
}

/// What Kubernetes takes for a name (RFC 1123): of a container without dots.
fn is_name(name: &str, longest: usize, dots: bool) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || (c == '.' && dots);
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    name.len() <= longest && name.chars().all(inner) && edge(name.chars().next()) && edge(name.chars().next_back())
}

fn wrong_name(option: &str, name: &str) -> Fatal {
    usage(
        &format!("{option}: `{}` is not a name in Kubernetes", name.escape_debug()),
        "a name has small letters, digits and `-`, and begins and ends with a letter or digit",
    )
}
