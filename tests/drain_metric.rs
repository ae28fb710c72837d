//! A drain by what the server itself says: it ends when the metric has been as wanted for the quiet time, not before
//! the settle time, and says why when it never is.

mod client_support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use boathook::step::{End, drain::Drain};
use client_support::{answer, answering, mean, run};

const SOON: Duration = Duration::from_secs(10);

/// A server whose requests in flight are what the counter says.
async fn busy(in_flight: &Arc<AtomicU32>) -> String {
    let in_flight = in_flight.clone();
    let address = answering(move |_| answer(200, &format!("in_flight {}\n", in_flight.load(Ordering::Relaxed)))).await;
    format!("http://{address}/metrics")
}

#[tokio::test]
async fn a_drain_by_metric_lasts_as_long_as_the_metric() {
    let in_flight = Arc::new(AtomicU32::new(3));
    let url = busy(&in_flight).await;
    let counter = in_flight.clone();
    let begun = Instant::now();
    let ends = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(700)).await;
        counter.store(0, Ordering::Relaxed);
    });
    let step = format!(
        "step = {{ settle = '300ms', quiet-min = '300ms', metric = {{ url = '{url}', name = 'in_flight', at-most = 0 }} }}"
    );
    let outcome = run::<Drain>(&step, SOON).await;
    let took = begun.elapsed();
    ends.await.expect("ended");
    assert!(
        matches!(&outcome, Ok(End::Done(text)) if text.ends_with("in_flight is 0 (quiet time 300ms)")),
        "{outcome:?}"
    );
    // The metric was as wanted after 0.7 s at the earliest, and from then on for 0.3 s.
    assert!(took >= Duration::from_secs(1), "{took:?}");
}

/// The control: a metric that is as wanted at once must not end the drain before routing has moved away.
#[tokio::test]
async fn a_quiet_server_still_gets_its_settle_time() {
    let url = busy(&Arc::new(AtomicU32::new(0))).await;
    let begun = Instant::now();
    let step = format!(
        "step = {{ settle = '600ms', quiet-min = '100ms', metric = {{ url = '{url}', name = 'in_flight', at-most = 0 }} }}"
    );
    let outcome = run::<Drain>(&step, SOON).await;
    assert!(matches!(outcome, Ok(End::Done(_))), "{outcome:?}");
    assert!(begun.elapsed() >= Duration::from_millis(600));
}

#[tokio::test]
async fn what_is_never_as_wanted_is_cut_with_the_reason() {
    let url = busy(&Arc::new(AtomicU32::new(2))).await;
    let limit = Duration::from_millis(500);
    let step = format!("step = {{ settle = '100ms', metric = {{ url = '{url}', name = 'in_flight', at-most = 0 }} }}");
    assert_eq!(run::<Drain>(&step, limit).await, Err("in_flight is 2, wanted at most 0".into()));
    let step = format!("step = {{ settle = '100ms', metric = {{ url = '{url}', name = 'other', at-most = 0 }} }}");
    assert_eq!(run::<Drain>(&step, limit).await, Err(format!("{url}: it has no sample of other")));
}

#[test]
fn what_is_for_connections_is_refused_beside_a_metric() {
    let step = "step = { ports = [80], threshold = 3, metric = { url = 'http://a/', name = 'm', at-most = 0 } }";
    let help = "take one of the two out; what is wanted of the metric stands in it, such as at-most = 0";
    let problems = mean::<Drain>(step).expect_err("two ways at once");
    assert_eq!(
        problems,
        ["threshold", "ports"].map(|key| {
            format!("f: {key}: it is for connections, and with `metric` nobody looks at them\n  help: {help}")
        })
    );
}
