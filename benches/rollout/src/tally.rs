//! What became of the requests. Pure: how a fault is told apart from another is decided here, and nowhere else.

use std::time::Duration;

use demo::http::Fault;

/// A request that was sent on a reused connection which the server had already closed is refused by the server's kernel
/// in well under a millisecond here; one that fails later was being worked on.
const CLOSED_BEFORE: Duration = Duration::from_millis(50);

/// How a request can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// No connection to the router.
    Refused,
    /// Reset or closed before the first byte of an answer.
    Unanswered,
    /// Reset or closed within an answer.
    Truncated,
    BadGateway,
    Unavailable,
    GatewayTimeout,
    /// Any other status than was expected.
    OtherStatus,
    /// Nothing, for as long as the client's patience.
    Timeout,
    /// Ended by anybody but its client.
    WebSocket,
}

impl Class {
    pub const ALL: [Self; 9] = [
        Self::Refused,
        Self::Unanswered,
        Self::Truncated,
        Self::BadGateway,
        Self::Unavailable,
        Self::GatewayTimeout,
        Self::OtherStatus,
        Self::Timeout,
        Self::WebSocket,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unanswered => "reset",
            Self::Truncated => "truncated",
            Self::BadGateway => "502",
            Self::Unavailable => "503",
            Self::GatewayTimeout => "504",
            Self::OtherStatus => "other status",
            Self::Timeout => "timeout",
            Self::WebSocket => "websocket",
        }
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Answered,
    /// Sent on a reused keep-alive connection that the server had closed: counted apart, as HTTP allows the server to
    /// close an idle connection at any time, and the client to send such a request once more (RFC 9112, section 9.3.1).
    OnClosed,
    Failed(Class),
}

/// Whether a connection had carried an answer before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    Fresh,
    Reused,
}

/// What the answer, or the want of it, means. `waited` is the time since the request's first byte was sent.
pub fn judge(answer: Result<u16, Fault>, expected: u16, carrier: Carrier, waited: Duration) -> Ended {
    match answer {
        Ok(status) if status == expected => Ended::Answered,
        Ok(502) => Ended::Failed(Class::BadGateway),
        Ok(503) => Ended::Failed(Class::Unavailable),
        Ok(504) => Ended::Failed(Class::GatewayTimeout),
        Ok(_) => Ended::Failed(Class::OtherStatus),
        Err(Fault::Unanswered) if carrier == Carrier::Reused && waited < CLOSED_BEFORE => Ended::OnClosed,
        Err(Fault::Unanswered) => Ended::Failed(Class::Unanswered),
        Err(Fault::Refused) => Ended::Failed(Class::Refused),
        Err(Fault::Truncated) => Ended::Failed(Class::Truncated),
        Err(Fault::Other) => Ended::Failed(Class::Timeout),
    }
}

/// A quick answer takes a few milliseconds. One that takes longer than this waited for a processor…
const LATE: Duration = Duration::from_millis(500);
/// …and where so many in a thousand do, it is the machine that is measured, not a stop.
const MOST_LATE: u64 = 10;

/// Whether the machine kept up with the load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    quick: u64,
    late: u64,
}

impl Pace {
    /// A quick request was answered after this time.
    pub fn count(&mut self, took: Duration) {
        self.quick += 1;
        self.late += u64::from(took > LATE);
    }

    /// # Errors
    /// It did not, and the numbers mean nothing.
    pub fn check(self) -> Result<(), String> {
        let Self { quick, late } = self;
        if late * 1000 <= quick * MOST_LATE {
            return Ok(());
        }
        let limit = LATE.as_millis();
        Err(format!(
            "the machine was too busy: {late} of {quick} quick answers took more than {limit} ms; use fewer jobs"
        ))
    }
}

/// The numbers of a cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub requests: u64,
    /// In the order of [`Class::ALL`].
    pub failed: [u64; Class::ALL.len()],
    pub on_closed: u64,
}

impl Tally {
    pub fn count(&mut self, ended: Ended) {
        self.requests += 1;
        match ended {
            Ended::Answered => {}
            Ended::OnClosed => self.on_closed += 1,
            Ended::Failed(class) => self.failed[class as usize] += 1,
        }
    }

    /// All classes together.
    pub fn failures(&self) -> u64 {
        self.failed.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_classes_is_that_of_their_numbers() {
        for (at, class) in Class::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, at, "{}", class.name());
        }
    }

    #[test]
    fn tells_failures_apart() {
        let (soon, later) = (Duration::from_millis(2), Duration::from_millis(400));
        for (answer, carrier, waited, expected) in [
            (Ok(200), Carrier::Fresh, soon, Ended::Answered),
            (Ok(503), Carrier::Fresh, soon, Ended::Failed(Class::Unavailable)),
            (Ok(404), Carrier::Reused, soon, Ended::Failed(Class::OtherStatus)),
            (Err(Fault::Unanswered), Carrier::Fresh, soon, Ended::Failed(Class::Unanswered)),
            (Err(Fault::Unanswered), Carrier::Reused, soon, Ended::OnClosed),
            // It was being worked on: the server had not closed the connection before.
            (Err(Fault::Unanswered), Carrier::Reused, later, Ended::Failed(Class::Unanswered)),
            (Err(Fault::Truncated), Carrier::Reused, soon, Ended::Failed(Class::Truncated)),
            (Err(Fault::Other), Carrier::Fresh, later, Ended::Failed(Class::Timeout)),
        ] {
            assert_eq!(judge(answer, 200, carrier, waited), expected, "{answer:?} {carrier:?} {waited:?}");
        }
    }

    #[test]
    fn a_machine_that_does_not_keep_up_is_told() {
        let pace = |late| {
            let mut pace = Pace::default();
            (0..1000).for_each(|number| pace.count(Duration::from_millis(if number < late { 900 } else { 3 })));
            pace
        };
        assert_eq!(pace(10).check(), Ok(()));
        assert!(pace(11).check().is_err());
    }

    #[test]
    fn a_closed_connection_is_no_failure() {
        let mut tally = Tally::default();
        for ended in [Ended::Answered, Ended::OnClosed, Ended::Failed(Class::Timeout)] {
            tally.count(ended);
        }
        assert_eq!((tally.requests, tally.failures(), tally.on_closed), (3, 1, 1));
    }
}
