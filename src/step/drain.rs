//! The `drain` step: what was typed, what it means, and the door to `drain/`, where it is done.

use std::{str::FromStr, time::Duration};

use super::{Context, End, Kind};
use crate::{
    client::metric::{Metric, MetricTyped},
    drain::{
        measure::{self, Measure},
        rules::{LongLived, Rule, Rules},
        watch::{self, Settings, Source},
    },
    duration::Span,
    keys::{Error, Node, Read, Shape, keys},
    net::peers::Peers,
    problem::Scope,
};

/// Longer than kube-proxy's and most ingress controllers' way from the deletion to the last new connection (about
/// 1 s measured on one node); load balancers of a cloud need more, which only their users know.
const SETTLE: Duration = Duration::from_secs(5);
/// The shortest silence that means anything on a port that has traffic.
const QUIET_MIN: Duration = Duration::from_secs(1);
/// Pauses within one answer are shorter on any server that is not waiting for something.
const IDLE_AFTER: Duration = Duration::from_secs(1);
/// Most requests of a web application are done by then; only used where nobody can see who spoke last.
const LONGEST_REQUEST: Duration = Duration::from_secs(10);

keys! {
    /// Wait until the application has no new connections and none in flight.
    #[derive(Clone, Debug)]
    pub struct Typed {
        /// By then routing has moved away at the latest [default: 5s]
        settle: Option<Span> = One("DURATION"),
        /// The shortest time without a new connection that shows it, where many came before [default: 1s, or settle where
        /// that is shorter]
        quiet_min: Option<Span> = One("DURATION"),
        /// So many connections may be in flight at the end [default: 0]
        threshold: Option<Number> = One("NUMBER"),
        /// The application's ports; repeat, or separate by commas [default: all that listen on more than loopback]
        ports: Vec<Number> = List("PORT", "port"),
        /// Peers whose connections do not count: an address, a network or `gateway`; repeat, or separate by commas
        ignore_peers: Vec<Peer> = List("PEER", ""),
        /// A connection on which the server spoke last is idle when nothing has moved for this long, or sooner where
        /// client and server are seen to take turns [default: 1s]
        idle_after: Option<Span> = One("DURATION"),
        /// What is in flight for longer is no request but long-lived; where nobody can see who spoke last (source
        /// `proc`), a connection is idle after this long [default: 10s]
        longest_request: Option<Span> = One("DURATION"),
        /// Connections that outlast it, such as WebSockets: wait, ignore, or how long to wait at most [default: wait]
        long_lived: Option<LongLived> = One("POLICY"),
        /// Where connections are read from: auto, sock-diag or proc [default: auto]
        source: Option<TypedSource> = One("SOURCE"),
        /// Instead of looking at connections: until a value at this URL is as wanted, for the quiet time
        metric: Option<MetricTyped> = One("URL"),
    }
    parts { ByHand flat: MetricTyped }
}

/// The step, ready to run.
#[derive(Clone, Debug)]
pub struct Drain {
    until: Until,
}

/// What tells that the application is drained.
#[derive(Clone, Debug)]
enum Until {
    Connections(Settings),
    Measure(Box<Measure>),
}

impl Drain {
    /// Waits for what is in flight after a stop signal, and for nothing else. What still takes turns then, like a WebSocket,
    /// is no keep-alive connection that the server has forgotten to close.
    pub fn in_flight_alone(scope: &mut Scope<'_>) -> Option<Self> {
        let mut drain = Self::mean(Typed { settle: Some(Span(Duration::ZERO)), ..Typed::default() }, scope)?;
        if let Some(rules) = drain.rules_mut() {
            (rules.habits, rules.graceful_stop) = (Rule::Off, false);
        }
        Some(drain)
    }

    /// The same drain, later, for the ports that listen now; `None`: nobody can tell which.
    pub fn with_ports_of_now(&self, context: &Context) -> Option<Self> {
        let Until::Connections(settings) = &self.until else { return None };
        let ports = watch::ports_now(settings, context).ok()?;
        Some(Self { until: Until::Connections(Settings { ports, ..settings.clone() }) })
    }

    /// Settles within this time.
    pub fn cap_settle(&mut self, longest: Duration) {
        let (settle, quiet) = match &mut self.until {
            Until::Connections(Settings { rules, .. }) => (&mut rules.settle, &mut rules.quiet_min),
            Until::Measure(measure) => (&mut measure.settle, &mut measure.quiet),
        };
        *settle = longest.min(*settle);
        *quiet = longest.min(*quiet);
    }

    /// Not a metric.
    pub fn watches_connections(&self) -> bool {
        matches!(self.until, Until::Connections(_))
    }

    /// The ports whose connections it watches; none: whatever listens then, or it watches no connections.
    pub fn ports(&self) -> &[u16] {
        match &self.until {
            Until::Connections(settings) => &settings.ports,
            Until::Measure(_) => &[],
        }
    }

    /// The peers whose connections it does not count; `None`: it watches no connections.
    pub fn ignored(&self) -> Option<&Peers> {
        match &self.until {
            Until::Connections(settings) => Some(&settings.ignored),
            Until::Measure(_) => None,
        }
    }

    /// The rules of a drain by connections, for tests that switch one off.
    #[doc(hidden)]
    pub fn rules_mut(&mut self) -> Option<&mut Rules> {
        match &mut self.until {
            Until::Connections(settings) => Some(&mut settings.rules),
            Until::Measure(_) => None,
        }
    }
}

impl Kind for Drain {
    type Typed = Typed;

    fn mean(typed: Typed, scope: &mut Scope<'_>) -> Option<Self> {
        let before = scope.problems.len();
        let settle = typed.settle.map_or(SETTLE, |span| span.0);
        let quiet_min = typed.quiet_min.map_or(QUIET_MIN.min(settle), |span| span.0);
        if quiet_min > settle {
            // The quiet time lies between the two; the other way round neither would mean what it says.
            scope.problem(
                "quiet-min",
                format!("{} is longer than settle {}", Span(quiet_min), Span(settle)),
                "raise settle, or lower quiet-min".to_string(),
            );
        }
        if let Some(metric) = typed.metric {
            for (key, given) in [
                ("threshold", typed.threshold.is_some()),
                ("ports", !typed.ports.is_empty()),
                ("ignore-peers", !typed.ignore_peers.is_empty()),
                ("idle-after", typed.idle_after.is_some()),
                ("longest-request", typed.longest_request.is_some()),
                ("long-lived", typed.long_lived.is_some()),
                ("source", typed.source.is_some()),
            ] {
                if given {
                    scope.problem(
                        key,
                        "it is for connections, and with `metric` nobody looks at them",
                        "take one of the two out; what is wanted of the metric stands in it, such as at-most = 0"
                            .to_string(),
                    );
                }
            }
            let metric = Metric::mean(metric.complete(typed.flat), scope)?;
            return (scope.problems.len() == before)
                .then(|| Self { until: Until::Measure(Box::new(Measure { metric, settle, quiet: quiet_min })) });
        }
        let typed_ports: Vec<u64> = typed.ports.iter().map(|number| number.0).collect();
        let mut ports = Vec::with_capacity(typed_ports.len());
        for number in typed_ports {
            match u16::try_from(number) {
                Ok(port) if port > 0 => ports.push(port),
                _ => scope.problem(
                    "ports",
                    format!("{number} is not a port"),
                    "ports go from 1 to 65535; leave `ports` away to watch all that listen".to_string(),
                ),
            }
        }
        if ports.is_empty() {
            ports.extend_from_slice(scope.app_ports);
        }
        let mut ignored = Peers::default();
        for Peer(text) in &typed.ignore_peers {
            if let Err(why) = ignored.add(text) {
                scope.problem("ignore-peers", why, None);
            }
        }
        let rules = Rules {
            settle,
            quiet_min,
            threshold: usize::try_from(typed.threshold.map_or(0, |number| number.0)).unwrap_or(usize::MAX - 1),
            idle_after: typed.idle_after.map_or(IDLE_AFTER, |span| span.0),
            longest_request: typed.longest_request.map_or(LONGEST_REQUEST, |span| span.0),
            long_lived: typed.long_lived.unwrap_or_default(),
            graceful_stop: scope.graceful_stop,
            habits: Rule::On,
            quiet: Rule::On,
            in_flight: Rule::On,
        };
        let source = typed.source.map_or(Source::Auto, |source| source.0);
        (scope.problems.len() == before)
            .then_some(Self { until: Until::Connections(Settings { rules, ports, ignored, source }) })
    }

    async fn run(&self, context: &Context) -> End {
        match &self.until {
            Until::Connections(settings) => watch::drain(settings, context).await,
            Until::Measure(measure) => measure::drain(measure, context).await,
        }
    }
}

/// A number, also in quotes, because `${PORT}` makes a string of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number(u64);

impl FromStr for Number {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |_| format!("`{text}` is not a whole number of 0 or more");
        text.trim().parse().map(Self).map_err(wrong)
    }
}

impl Read for Number {
    fn read(value: Node<'_>) -> Result<Self, Error> {
        match value.shape()? {
            Shape::Integer(number) if number < 0 => Err(value.wrong(&format!("{number} is negative"))),
            _ => value.parse(&value.text_or_number("a number")?),
        }
    }

    fn read_list(value: Node<'_>) -> Result<Vec<Self>, Error> {
        one_or_more(value)
    }
}

/// A peer as typed; what it means is found later, with its place at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer(String);

impl FromStr for Peer {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self(text.into()))
    }
}

impl Read for Peer {
    fn read(value: Node<'_>) -> Result<Self, Error> {
        String::read(value).map(Self)
    }

    fn read_list(value: Node<'_>) -> Result<Vec<Self>, Error> {
        one_or_more(value)
    }
}

impl FromStr for LongLived {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "wait" => Ok(Self::Wait),
            "ignore" => Ok(Self::Ignore),
            _ => text.parse().map(|Span(span)| Self::UpTo(span)).map_err(|_| {
                format!("`{text}` is no policy; use wait, ignore, or the longest time to wait, such as \"30s\"")
            }),
        }
    }
}

impl Read for LongLived {
    fn read(value: Node<'_>) -> Result<Self, Error> {
        value.parse(value.text("a string")?)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TypedSource(Source);

impl FromStr for TypedSource {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self(Source::Auto)),
            "sock-diag" => Ok(Self(Source::SockDiag)),
            "proc" => Ok(Self(Source::Proc)),
            _ => Err(format!("`{text}` is no source; use auto, sock-diag or proc")),
        }
    }
}

impl Read for TypedSource {
    fn read(value: Node<'_>) -> Result<Self, Error> {
        value.parse(value.text("a string")?)
    }
}

/// Reads `[80, 443]`, `80`, and `"80,443"`, which is what a substituted variable may hold.
fn one_or_more<T: Read + FromStr<Err = String>>(value: Node<'_>) -> Result<Vec<T>, Error> {
    if let Shape::List(list) = value.shape()? {
        return value.items(list).map(T::read).collect();
    }
    let text = value.text_or_number("a list, such as [8080, 8443]")?;
    text.split(',').map(|item| value.parse(item.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        keys::{describe, parse, take},
        problem::Problem,
    };

    fn mean(toml: &str, app_ports: &[u16]) -> (Option<Drain>, Vec<Problem>) {
        let typed = parse(toml).expect(toml);
        let (mut secrets, mut problems) = (Vec::new(), Vec::new());
        let mut scope = Scope {
            place: "pre-stop: step \"drain\"".into(),
            app_ports,
            ..Scope::new("boathook.toml", &mut secrets, &mut problems)
        };
        (Drain::mean(typed, &mut scope), problems)
    }

    fn settings(toml: &str, app_ports: &[u16]) -> Settings {
        let (drain, problems) = mean(toml, app_ports);
        assert_eq!(problems, [], "{toml}");
        let Until::Connections(settings) = drain.expect(toml).until else { panic!("{toml}: not by connections") };
        settings
    }

    #[test]
    fn an_empty_table_is_a_whole_drain() {
        let Settings { rules, ports, ignored, source } = settings("", &[8080]);
        assert_eq!((ports, ignored.is_empty(), source), (vec![8080], true, Source::Auto));
        assert_eq!((rules.settle, rules.quiet_min, rules.threshold), (SETTLE, QUIET_MIN, 0));
        assert_eq!((rules.idle_after, rules.longest_request), (IDLE_AFTER, LONGEST_REQUEST));
        assert_eq!((rules.quiet, rules.in_flight), (Rule::On, Rule::On));
    }

    #[test]
    fn reads_every_key() {
        let found = settings(
            "settle = \"2s\"\nquiet-min = \"500ms\"\nthreshold = \"3\"\nports = [80, \"443\"]\n\
             ignore-peers = [\"10.0.0.0/8\", \"192.0.2.7\", \"gateway\"]\nidle-after = \"2s\"\n\
             longest-request = \"20s\"\nsource = \"proc\"",
            &[8080],
        );
        assert_eq!((found.ports, found.source, found.rules.threshold), (vec![80, 443], Source::Proc, 3));
        assert_eq!(found.rules.quiet_min, Duration::from_millis(500));
        assert_eq!(found.rules.longest_request, Duration::from_secs(20));
        for text in ["ports = 80", "ports = \"80\"", "ports = [\"80\"]"] {
            assert_eq!(settings(text, &[]).ports, [80], "{text}");
        }
        assert_eq!(settings("ports = \"80, 443\"", &[]).ports, [80, 443]);
        assert_eq!(settings("settle = \"200ms\"", &[]).rules.quiet_min, Duration::from_millis(200));
    }

    #[test]
    fn says_what_is_wrong() {
        let (drain, problems) = mean("ports = [0, 70000]\nquiet-min = \"6s\"\nignore-peers = [\"10.0.0.0/33\"]", &[]);
        assert!(drain.is_none());
        let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let place = "boathook.toml: pre-stop: step \"drain\"";
        let help = "\n  help: ports go from 1 to 65535; leave `ports` away to watch all that listen";
        assert_eq!(
            texts,
            [
                format!("{place}: quiet-min: 6s is longer than settle 5s\n  help: raise settle, or lower quiet-min"),
                format!("{place}: ports: 0 is not a port{help}"),
                format!("{place}: ports: 70000 is not a port{help}"),
                format!(
                    "{place}: ignore-peers: `10.0.0.0/33` is no peer: write an address (192.0.2.7), \
                     a network (10.0.0.0/8) or \"gateway\""
                ),
            ]
        );
    }

    #[test]
    fn refuses_what_it_cannot_read() {
        for (text, expected) in [
            ("ports = \"x\"", "`x` is not a whole number of 0 or more"),
            ("ports = -1", "`-1` is not a whole number of 0 or more"),
            ("ports = [-1]", "-1 is negative"),
            ("ports = true", "invalid type: boolean `true`, expected a list, such as [8080, 8443]"),
            ("threshold = 1.5", "invalid type: floating point `1.5`, expected a number"),
            ("source = \"ss\"", "`ss` is no source; use auto, sock-diag or proc"),
            ("settle = 5", "invalid type: integer `5`, expected a duration in quotes, such as \"30s\""),
            ("setle = \"5s\"", "unknown field `setle`, expected one of"),
        ] {
            let error = parse::<Typed>(text).expect_err(text);
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }

    #[test]
    fn the_command_line_says_the_same() {
        let command = describe(clap::Command::new("drain"), || Box::new(Typed::default()));
        let matches = command
            .try_get_matches_from([
                "drain", "--port", "80", "--ports", "443,8443", "--settle", "2s", "--source", "proc",
            ])
            .expect("good arguments");
        let mut typed = Typed::default();
        take(&mut typed, &matches).expect("good arguments");
        assert_eq!(typed.ports, [Number(80), Number(443), Number(8443)]);
        assert_eq!(typed.settle, Some(Span(Duration::from_secs(2))));
        assert_eq!(typed.source, Some(TypedSource(Source::Proc)));
    }
}
