//! Which cells to run: words such as `server=nginx policy=boathook,none d=0,3 mode=tcp jobs=2`.

use std::time::Duration;

use crate::{
    cell::{Cell, REPLICAS},
    policy::Policy,
    router::Mode,
    server::{SERVERS, Server},
};

pub const USAGE: &str = "usage: make bench-rollout [BENCH_ROLLOUT=\"WORD...\"]

  server=NAME,...   of those that are here; without it, all of them
  policy=NAME,...   none, sleep-5, sleep-15, graceful, boathook, boathook-no-quiet, boathook-no-in-flight;
                    without it all for nginx, and none, graceful and boathook for the others
  d=SECONDS,...     how late the router learns of a removal; without it 0, 1, 3, 8 and 15
  mode=NAME,...     what the router knows: http (requests) or tcp (connections); without it both for nginx, else http
  jobs=N            so many cells side by side; without it 2
  render            runs nothing, and writes table and picture anew from the kept results";

/// The delays of the whole matrix, in seconds: one node, a cluster, a large cluster, a cloud's load balancer on a good and
/// on a bad day.
const DELAYS: [u64; 5] = [0, 1, 3, 8, 15];
/// The server that is run with every policy; what is special about the others shows in three.
pub const MAIN_SERVER: &str = "nginx";
const POLICIES_OF_OTHERS: [Policy; 3] = [Policy::NoHook, Policy::Graceful, Policy::Boathook];

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Selection {
    pub cells: Vec<Cell>,
    pub jobs: usize,
}

impl Selection {
    /// # Errors
    /// A word that is none of the above.
    pub fn parse(words: &[&str], is_here: impl Fn(&Server) -> bool) -> Result<Self, String> {
        let (mut servers, mut policies, mut delays, mut modes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut jobs = 2;
        let mut runs_nothing = false;
        for word in words {
            if *word == "render" {
                runs_nothing = true;
                continue;
            }
            let (key, value) = word.split_once('=').ok_or_else(|| format!("`{word}`: what is that?\n{USAGE}"))?;
            let unknown = |item: &str| format!("{key}: `{item}` is none\n{USAGE}");
            for item in value.split(',') {
                match key {
                    "server" => servers.push(Server::find(item).ok_or_else(|| unknown(item))?),
                    "policy" => policies.push(Policy::find(item).ok_or_else(|| unknown(item))?),
                    "d" => delays.push(item.parse::<u64>().map_err(|_| unknown(item))?),
                    "mode" => {
                        let mode = Mode::ALL.into_iter().find(|mode| mode.name() == item);
                        modes.push(mode.ok_or_else(|| unknown(item))?);
                    }
                    "jobs" => jobs = item.parse().ok().filter(|jobs| *jobs > 0).ok_or_else(|| unknown(item))?,
                    _ => return Err(format!("`{word}`: what is that?\n{USAGE}")),
                }
            }
        }
        if runs_nothing {
            return Ok(Self { cells: Vec::new(), jobs });
        }
        if let Some(missing) = servers.iter().find(|server| !is_here(server)) {
            return Err(format!("{}: `{}` is not installed", missing.name, missing.needs));
        }
        if servers.is_empty() {
            servers.extend(SERVERS.iter().filter(|server| is_here(server)));
        }
        if delays.is_empty() {
            delays.extend(DELAYS);
        }
        let mut cells = Vec::new();
        for server in servers {
            let is_main = server.name == MAIN_SERVER;
            let policies = match (policies.is_empty(), is_main) {
                (false, _) => &policies[..],
                (true, true) => &Policy::ALL,
                (true, false) => &POLICIES_OF_OTHERS,
            };
            let modes = match (modes.is_empty(), is_main) {
                (false, _) => &modes[..],
                (true, true) => &Mode::ALL,
                (true, false) => &[Mode::Http],
            };
            for &mode in modes {
                for &policy in
                    policies.iter().filter(|&&policy| policy != Policy::Graceful || server.graceful.is_some())
                {
                    for &delay in &delays {
                        let delay = Duration::from_secs(delay);
                        cells.push(Cell { server: server.name.into(), mode, policy, delay });
                    }
                }
            }
        }
        Ok(Self { cells, jobs })
    }

    /// How long it will take, roughly: so that nobody waits in the dark.
    pub fn estimate(&self) -> Duration {
        let cells: Duration = self.cells.iter().map(estimate).sum();
        cells / u32::try_from(self.jobs).unwrap_or(1)
    }
}

/// A cell's replicas take turns. Besides waiting for the router and for the requests in flight (3 s) each costs the load
/// after it and a start; the load before and after all of them, and the last answers, come once.
fn estimate(cell: &Cell) -> Duration {
    let (once, each) = (Duration::from_secs(13), Duration::from_secs(4));
    let stop = match cell.policy {
        Policy::NoHook | Policy::NoQuiet => Duration::ZERO,
        Policy::Sleep5 => Duration::from_secs(5),
        Policy::Sleep15 => Duration::from_secs(15),
        Policy::Graceful => Duration::from_secs(3),
        Policy::Boathook | Policy::NoInFlight => cell.delay + Duration::from_secs(4),
    };
    once + (stop.max(cell.delay) + each) * u32::try_from(REPLICAS).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_what_is_named() {
        let words = ["server=nginx", "policy=boathook,none", "d=0,3", "mode=tcp", "jobs=4"];
        let selection = Selection::parse(&words, |_| true).expect("good words");
        let cells: Vec<String> = selection.cells.iter().map(ToString::to_string).collect();
        assert_eq!(cells, ["nginx tcp boathook 0", "nginx tcp boathook 3", "nginx tcp none 0", "nginx tcp none 3"]);
        assert_eq!(selection.jobs, 4);
        // 4 cells: 13 s each, and three replicas of 4 s plus 4, 7, 0 and 3 s; four at a time.
        assert_eq!(
            selection.estimate(),
            Duration::from_secs((4 * 13 + 3 * (4 * 4 + 4 + 7 + 3)) / 4 + 1) - Duration::from_millis(500)
        );
    }

    #[test]
    fn runs_everything_of_the_main_server_by_itself() {
        let selection = Selection::parse(&[], |server| server.name == "nginx").expect("good words");
        assert_eq!(selection.cells.len(), 2 * 7 * 5);
        assert_eq!(Selection::parse(&["render"], |_| true).map(|selection| selection.cells.len()), Ok(0));
    }

    #[test]
    fn says_what_it_does_not_know() {
        for word in ["nginx", "server=iis", "policy=hope", "d=soon", "mode=udp", "jobs=0", "day=1"] {
            assert!(Selection::parse(&[word], |_| true).is_err(), "{word}");
        }
        let missing = Selection::parse(&["server=nginx"], |_| false);
        assert_eq!(missing, Err("nginx: `nginx` is not installed".into()));
    }
}
