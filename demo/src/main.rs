//! A rolling restart seen from its clients, three times over: with no hook, with `sleep 5` as pre-stop hook, and with
//! boathook. Everything is real but the node: real processes, real connections, real signals, on loopback.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use demo::{
    clients, pod,
    rollout::{self, Practice},
    server, table,
};

const USAGE: &str = "usage: demo --boathook FILE [--routing-delay SECONDS]...
       demo server --port PORT

  --routing-delay  how long after the deletion new connections still reach the old pod;
                   one table for each (default: 3 and 8)";

/// What was asked for.
struct Arguments {
    boathook: PathBuf,
    routing_delays: Vec<Duration>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [command, option, port] = &arguments[..]
        && command == "server"
        && option == "--port"
        && let Ok(port) = port.parse()
    {
        return report(server::run(port));
    }
    match parse(&arguments) {
        Some(arguments) => match run(&arguments) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(why) => report(Err(why)),
        },
        None => {
            eprintln!("{USAGE}");
            ExitCode::from(64)
        }
    }
}

fn report(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("demo: {why}");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[String]) -> Option<Arguments> {
    let mut boathook = None;
    let mut routing_delays = Vec::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let value = words.next()?;
        match word.as_str() {
            "--boathook" => boathook = Some(PathBuf::from(value)),
            // Grace is 30 s: a router later than 20 s leaves no time for what is in flight.
            "--routing-delay" => {
                let seconds = value.parse().ok().filter(|seconds| (0.0..=20.0).contains(seconds))?;
                routing_delays.push(Duration::from_secs_f64(seconds));
            }
            _ => return None,
        }
    }
    if routing_delays.is_empty() {
        // 3 s is a large cluster, and `sleep 5` was made for it; 8 s is a cloud load balancer on a good day.
        routing_delays = vec![Duration::from_secs(3), Duration::from_secs(8)];
    }
    Some(Arguments { boathook: boathook?, routing_delays })
}

/// Whether boathook lost no request.
fn run(arguments: &Arguments) -> Result<bool, String> {
    let boathook = arguments.boathook.canonicalize().map_err(|e| format!("{}: {e}", arguments.boathook.display()))?;
    // Before any thread exists: a user namespace can only be entered by a single thread.
    let isolation = pod::isolate();
    println!("{}", isolation.describe());
    println!("{}", clients::describe());
    println!("the server's SIGTERM is a fast shutdown, like nginx's: what is in flight is cut\n");
    println!(
        "boathook's configuration:\n\n{}\n",
        indent(&rollout::configuration(isolation.app_port(0), isolation.hook_port(0)))
    );

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("event loop: {error}"))?;
    let mut lost_nothing = true;
    for &delay in &arguments.routing_delays {
        println!("=== new connections reach the old pod for {} s after its deletion ===\n", delay.as_secs_f64());
        let mut rows = Vec::new();
        for practice in [Practice::NoHook, Practice::Sleep, Practice::Boathook] {
            println!("rolling restart: {} …", practice.name());
            let row = runtime
                .block_on(rollout::run(practice, &boathook, isolation, delay))
                .map_err(|why| format!("{}: {why}", practice.name()))?;
            if practice == Practice::Boathook {
                println!("\n{}", indent(&table::timeline(&row)));
                lost_nothing &= row.tally.failed() == 0;
            }
            rows.push(row);
        }
        println!("{}", table::rows(&rows));
    }
    if lost_nothing {
        println!("boathook: no request failed");
    } else {
        println!("boathook: requests failed, see the table");
    }
    Ok(lost_nothing)
}

fn indent(text: &str) -> String {
    text.lines().fold(String::new(), |all, line| all + "    " + line + "\n")
}
