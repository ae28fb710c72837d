//! What is done about the stop: today's practice, boathook, and boathook with a rule switched off.

use std::time::Duration;

use demo::kubelet::PreStop;

use crate::server::{Abilities, Place, Server};

/// `terminationGracePeriodSeconds`, the same for all: enough for the latest router and what is in flight then.
pub const GRACE: Duration = Duration::from_secs(45);
/// A control's drain may take this long, which leaves the server its time.
const DRAIN: Duration = Duration::from_secs(35);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    NoHook,
    Sleep5,
    Sleep15,
    /// The server's own graceful stop, at once.
    Graceful,
    Boathook,
    /// Negative control: boathook does not wait for routing.
    NoQuiet,
    /// Negative control: boathook does not wait for what is in flight, nor does the server.
    NoInFlight,
}

impl Policy {
    pub const ALL: [Self; 7] =
        [Self::NoHook, Self::Sleep5, Self::Sleep15, Self::Graceful, Self::Boathook, Self::NoQuiet, Self::NoInFlight];

    pub fn name(self) -> &'static str {
        match self {
            Self::NoHook => "none",
            Self::Sleep5 => "sleep-5",
            Self::Sleep15 => "sleep-15",
            Self::Graceful => "graceful",
            Self::Boathook => "boathook",
            Self::NoQuiet => "boathook-no-quiet",
            Self::NoInFlight => "boathook-no-in-flight",
        }
    }

    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.name() == name)
    }

    /// Those that must show drops, so that the benchmark is known to see them.
    pub fn is_control(self) -> bool {
        matches!(self, Self::NoQuiet | Self::NoInFlight)
    }

    pub fn has_boathook(self) -> bool {
        self == Self::Boathook || self.is_control()
    }

    /// None where the server has no such stop.
    pub fn pre_stop(self, server: &Server, place: &Place<'_>) -> Option<PreStop> {
        Some(match self {
            Self::NoHook => PreStop::None,
            Self::Sleep5 => PreStop::Sleep(Duration::from_secs(5)),
            Self::Sleep15 => PreStop::Sleep(Duration::from_secs(15)),
            Self::Graceful => PreStop::Exec(place.fill_all(server.graceful?)),
            Self::Boathook | Self::NoQuiet | Self::NoInFlight => PreStop::Http,
        })
    }

    /// What is asked under this policy. Where something slow is always in flight, boathook waits for that whatever the
    /// quiet rule says; so its control has quick requests alone.
    pub fn abilities(self, server: &Server) -> Abilities {
        if self == Self::NoQuiet { Abilities::QUICK } else { server.abilities }
    }

    /// What boathook is told, for a router that is late by `delay`: the server's preset as it is, or one rule switched
    /// off.
    pub fn configuration(self, server: &Server, place: &Place<'_>, delay: Duration) -> String {
        let drain = |drain: &str, signal: &str| {
            format!(
                "stop-signal = \"{signal}\"\n\n[[pre-stop.step]]\ndrain = {{ {drain} }}\ntimeout = \"{}s\"\n",
                DRAIN.as_secs()
            )
        };
        let about = match self {
            Self::NoQuiet => drain(r#"settle = "0s""#, server.stop_signal),
            // It may end as soon as routing has moved away, whatever is under way then.
            Self::NoInFlight => {
                drain(&format!(r#"settle = "{}s", threshold = 100000"#, delay.as_secs() + 1), server.fast_signal)
            }
            _ => format!("preset = \"{}\"\n{}", server.preset, server.adds),
        };
        format!(
            r#"grace-period = "{}s"

[server]
listen = "0.0.0.0:4665"
token-env = "BOATHOOK_TOKEN"

[[post-start.step]]
wait = {{ http = "http://127.0.0.1:{1}/healthz" }}
timeout = "30s"

[app]
ports = [{1}]
{about}"#,
            GRACE.as_secs(),
            place.port,
        )
    }
}
