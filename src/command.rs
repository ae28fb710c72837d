//! What each subcommand does: calls the rooms in order and turns what they say into an exit code. Prints results on
//! stdout; errors go up to `main`.

use std::{
    io::Write,
    path::Path,
    pin::{Pin, pin},
    process::ExitCode,
    time::Duration,
};

#[cfg(feature = "kube")]
use crate::elsewhere;
#[cfg(feature = "init")]
use crate::init;
#[cfg(feature = "state")]
use crate::state_command;
use crate::{
    beside, check,
    cli::{Cli, Command, Format},
    client,
    config::{self, Config, Listener},
    control::{self, Joined},
    embedded, exit,
    fatal::Fatal,
    hook::Hook,
    install, life,
    log::{self, Target},
    one_step, report, status,
    sys::memory,
    watch,
};

/// Asking an agent that answers everything at once takes milliseconds; one that takes longer is stuck.
const ANSWER: Duration = Duration::from_secs(5);

/// Does what was typed; gives the exit code.
///
/// # Errors
/// The command could not do its job: the code and what to tell the user.
pub fn execute(cli: Cli) -> Result<u8, Fatal> {
    let config = cli.config.as_deref();
    match cli.command {
        Command::Run { command } => {
            let config = load(config, Listener::Needed, Target::Stderr)?;
            on_runtime(life::run(config, &command))
        }
        Command::Serve(serve) if serve.background => beside::serve_in_background(config, serve.started),
        Command::Serve(serve) => {
            let config =
                load(config, Listener::Needed, if serve.announce { Target::Container } else { Target::Stderr })?;
            on_runtime(beside::serve(config, serve.announce))
        }
        Command::Started => exec_hook(config, Hook::PostStart, "/started"),
        Command::Shutdown => exec_hook(config, Hook::PreStop, "/shutdown"),
        Command::Ready => probe("/ready"),
        Command::Live => probe("/live"),
        Command::Status(look) if look.watch => watch::watch(watch::Options {
            interval: look.interval.0,
            json: look.format.json,
            until_ready: look.until_ready,
        }),
        Command::Status(look) => show("/status", &look.format, status::status_for_people),
        Command::Report(format) => show("/report", &format, status::report_for_people),
        #[cfg(feature = "kube")]
        Command::Check(check) if !check.pod.is_empty() => elsewhere::hand_over("check --pod"),
        #[cfg(feature = "kube")]
        Command::Manifest(_) => elsewhere::hand_over("manifest"),
        #[cfg(feature = "kube")]
        Command::Schema => elsewhere::hand_over("schema"),
        Command::Check(_) => {
            let config = config::load(config, Listener::Needed).map_err(|problems| Fatal::config(&problems))?;
            #[cfg(feature = "state")]
            match state_command::check(&config).as_slice() {
                [] => {}
                problems => return Err(Fatal::config(problems)),
            }
            print(check::describe(&config).as_bytes())
        }
        #[cfg(feature = "init")]
        Command::Init { preset, output, command } => init::init(&init::Options { preset, output, command }),
        Command::Config => print(embedded::reference().as_bytes()),
        Command::Step { step } => on_runtime(one_step::run(*step.0)),
        #[cfg(feature = "state")]
        Command::State { command } => on_runtime(state_command::run(*command, config)),
        Command::Install { dir } => {
            let path = install::install(&dir).map_err(|text| Fatal::new(exit::FAILED, text))?;
            print(format!("installed {}\n", path.display()).as_bytes())
        }
        #[cfg(feature = "completions")]
        Command::Completions { shell } => print(&crate::completions::write(shell)),
        // It prints the addresses itself, and its exit code is all that is left to say.
        Command::Resolve { name } => Ok(u8::from(client::resolve::resolve_main(&name) != ExitCode::SUCCESS)),
    }
}

fn load(named: Option<&Path>, listener: Listener, target: Target) -> Result<Config, Fatal> {
    let config = config::load(named, listener).map_err(|problems| Fatal::config(&problems))?;
    log::start(&config.log, &config.secrets, target);
    Ok(config)
}

/// One thread does everything: nothing here computes for long, and a thread costs memory for its whole life.
fn on_runtime(work: impl Future<Output = Result<u8, Fatal>>) -> Result<u8, Fatal> {
    block_on(pin!(work))
}

/// For all work in one form: the runtime's machinery is instantiated for each type of future.
fn block_on(work: Pin<&mut dyn Future<Output = Result<u8, Fatal>>>) -> Result<u8, Fatal> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    // The last that is done before the kernel is asked to wait: so little else is mapped again.
    let runtime = builder.enable_all().on_thread_park(memory::rest).build().map_err(|error| {
        Fatal::new(
            exit::INTERNAL,
            format!("cannot start: {error}\n  help: see the container's limits on open files and threads"),
        )
    })?;
    let done = runtime.block_on(work);
    // A thread that hangs in a dead file system must not hold the exit.
    runtime.shutdown_background();
    done
}

/// `started` and `shutdown`: join the agent's run, or be the agent for this one hook.
fn exec_hook(config: Option<&Path>, hook: Hook, path: &str) -> Result<u8, Fatal> {
    match control::join_or_lead("POST", path, None) {
        Ok(Joined::Answer(answer)) => hook_answer(&answer.body, answer.is_success()),
        Ok(Joined::Lead(lock)) => {
            let config = load(config, Listener::None, Target::of_caller())?;
            on_runtime(async move {
                let (succeeded, body) = beside::one_hook(config, hook, lock).await?;
                hook_answer(&body, succeeded)
            })
        }
        Err(error) => Err(beside::no_answer(&error)),
    }
}

/// The exit code of a hook command; a failure's one line goes to stderr, which `kubectl describe pod` shows for
/// post-start and nothing else does.
///
/// # Errors
/// The hook failed.
pub fn hook_answer(body: &str, succeeded: bool) -> Result<u8, Fatal> {
    if succeeded {
        return Ok(exit::OK);
    }
    Err(Fatal::new(exit::FAILED, report::cut(&status::answer_for_people(body), report::LONGEST_REASON)))
}

fn probe(path: &str) -> Result<u8, Fatal> {
    let answer = control::call("GET", path, Some(ANSWER)).map_err(|error| beside::no_answer(&error))?;
    print(answer.body.as_bytes())?;
    Ok(if answer.is_success() { exit::OK } else { exit::FAILED })
}

fn show(path: &str, format: &Format, for_people: fn(&str) -> String) -> Result<u8, Fatal> {
    let answer = control::call("GET", path, Some(ANSWER)).map_err(|error| beside::no_answer(&error))?;
    if format.json {
        print(format!("{}\n", answer.body).as_bytes())
    } else {
        print(for_people(&answer.body).as_bytes())
    }
}

/// Prints a result; a reader that has gone away (`| head`) is no error.
pub fn print(bytes: &[u8]) -> Result<u8, Fatal> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Fatal::new(exit::INTERNAL, format!("stdout: {error}")))
        }
        _ => Ok(exit::OK),
    }
}
