//! What every agent that stays has: the port, the control socket and the reaper, opened before anything else happens and
//! closed after everything else has.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tracing::{info, warn};

use crate::{
    agent::{Agent, Mode},
    check,
    config::Config,
    control,
    door::Door,
    drain::history::History,
    exit,
    fatal::Fatal,
    hook::Hook,
    net::counters,
    process::Processes,
    server,
    step::OwnTraffic,
    task,
};

/// An agent with its doors open.
pub struct Service {
    pub agent: Arc<Agent>,
    pub processes: Processes,
    /// Where the port is, if there is one (the one bound, when port 0 was asked for).
    pub address: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    doors: Vec<JoinHandle<()>>,
}

/// Answers that are being written when everything else is over get this long to leave.
const LAST_WORDS: Duration = Duration::from_millis(200);

impl Service {
    /// Binds everything; nothing is served before this succeeds, and no process has been started.
    ///
    /// # Errors
    /// A port in use and the like (78), or the system refused something (70).
    pub fn open(config: Config, mode: Mode, lock: Option<control::Lock>) -> Result<Self, Fatal> {
        let listener = config.server.listen.map(|address| bind(&config, address)).transpose()?;
        let refused = |what: &str, error: io::Error| Fatal::new(exit::INTERNAL, format!("{what}: {error}"));
        let address = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let port = address.map(|address| address.port());
        let history = if config.hook(Hook::PreStop).drains() { History::new() } else { History::default() };
        let own_traffic = OwnTraffic { ports: port.into_iter().collect(), history, ..OwnTraffic::default() };
        counters::set_own_port(port.unwrap_or(0));
        own_traffic.history.look(&own_traffic);
        let processes = Processes::start(true).map_err(|error| refused("reaper", error))?;
        let mut rights = config.server.rights.clone();
        rights.listener_is_loopback = address.is_some_and(|address| address.ip().is_loopback());
        let agent = Agent::new(config, mode, processes.clone(), own_traffic.clone());
        let resting = Arc::clone(&agent);
        task::spawn(async move { resting.rest_when_idle().await });
        #[cfg(feature = "state")]
        crate::periodic::start(&agent);
        let (stop, stopped) = watch::channel(false);
        let until_stopped = || {
            let mut stopped = stopped.clone();
            async move {
                // A sender that is gone means stop as well.
                let _ = stopped.wait_for(|stop| *stop).await;
            }
        };
        let mut doors = Vec::new();
        if let Some(listener) = listener {
            let listener = TcpListener::from_std(listener).map_err(|error| refused("listener", error))?;
            let bound = address.map(|address| address.to_string()).unwrap_or_default();
            info!(address = %bound, hooks = check::describe_rights(&agent.config).as_str(), "listening");
            let door = Arc::new(Door(Arc::clone(&agent)));
            doors.push(task::spawn(server::serve(listener, until_stopped(), door, rights, own_traffic)));
        }
        if let Some(lock) = lock {
            let (door, stop) = (Arc::new(Door(Arc::clone(&agent))), until_stopped());
            doors.push(task::spawn(async move {
                if let Err(error) = control::serve(lock, stop, door).await {
                    warn!(%error, "the control socket is not served: exec hooks will not find this agent");
                }
            }));
        }
        Ok(Self { agent, processes, address, stop, doors })
    }

    /// Lets answers that are being written leave, then closes the doors.
    pub async fn close(self) {
        self.stop.send_replace(true);
        for door in self.doors {
            let _ = tokio::time::timeout(LAST_WORDS, door).await;
        }
        self.processes.end_steps();
    }
}

fn bind(config: &Config, address: SocketAddr) -> Result<std::net::TcpListener, Fatal> {
    server::bind(address).map_err(|error| {
        let file = config.file.as_deref().map(|file| format!("{file}: ")).unwrap_or_default();
        Fatal::new(exit::CONFIG, format!("{file}server: listen: {error}"))
    })
}

/// The control socket's lock for an agent that stays; without it the agent still serves its port.
pub fn lock_or_warn() -> Option<control::Lock> {
    control::Lock::acquire()
        .inspect_err(|taken| warn!(reason = %taken, "exec hooks and `boathook status` will not find this agent"))
        .ok()
}
