//! Many small futures in one task: only those that were woken are polled, and after a while everybody else of the runtime
//! has a turn. The agent's one thread answers probes and the kubelet too, and they must not stand in line behind hundreds
//! of workers.

use std::{
    collections::VecDeque,
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
};

use tokio::task::{coop::has_budget_remaining, yield_now};

use super::lock;

/// So many members are polled before others of the runtime have a turn: with some 20 µs each that is less than a
/// millisecond.
const TURN: usize = 32;

pub type Member = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Whoever was called.
#[derive(Debug, Default)]
struct Called {
    /// The first member leads, and does not stand in line behind those it leads.
    lead: bool,
    /// The others, in this order.
    queue: VecDeque<usize>,
    /// Wakes the whole crew; taken by the first call.
    crew: Option<Waker>,
}

/// Calls one member; its waker.
#[derive(Debug)]
struct Call {
    member: usize,
    is_called: AtomicBool,
    called: Arc<Mutex<Called>>,
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.is_called.swap(true, Relaxed) {
            return;
        }
        let mut called = lock(&self.called);
        if self.member == 0 {
            called.lead = true;
        } else {
            called.queue.push_back(self.member);
        }
        let crew = called.crew.take();
        drop(called);
        if let Some(crew) = crew {
            crew.wake();
        }
    }
}

/// Wakes members. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Calls(Arc<[Arc<Call>]>);

impl Calls {
    /// For so many members.
    pub fn new(members: usize) -> Self {
        let called = Arc::<Mutex<Called>>::default();
        let call = |member| Arc::new(Call { member, is_called: AtomicBool::new(false), called: Arc::clone(&called) });
        Self((0..members).map(call).collect())
    }

    /// Has a member polled soon; one that has ended or is not there does not mind.
    pub fn call(&self, member: usize) {
        if let Some(call) = self.0.get(member) {
            call.wake_by_ref();
        }
    }
}

/// All members; ends with the first of them. Dropping it drops all.
pub struct Crew {
    members: Vec<(Option<Member>, Waker)>,
    calls: Calls,
}

impl Crew {
    /// `calls` are for as many members.
    pub fn new(members: Vec<Member>, calls: Calls) -> Self {
        let with_waker = |(index, member): (usize, Member)| {
            calls.call(index);
            (Some(member), calls.0.get(index).map_or_else(|| Waker::noop().clone(), |call| Arc::clone(call).into()))
        };
        Self { members: members.into_iter().enumerate().map(with_waker).collect(), calls }
    }
}

impl Future for Crew {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Self { members, calls } = &mut *self;
        let Some(any) = calls.0.first() else { return Poll::Ready(()) };
        for turn in 0..TURN {
            let mut called = lock(&any.called);
            let lead = (turn == 0 && std::mem::take(&mut called.lead)).then_some(0);
            let Some(index) = lead.or_else(|| called.queue.pop_front()) else {
                if called.lead {
                    break;
                }
                called.crew = Some(context.waker().clone());
                return Poll::Pending;
            };
            drop(called);
            if let Some(call) = calls.0.get(index) {
                call.is_called.store(false, Relaxed);
            }
            let Some((slot, waker)) = members.get_mut(index) else { continue };
            let Some(member) = slot else { continue };
            if member.as_mut().poll(&mut Context::from_waker(waker)).is_ready() {
                *slot = None;
                if index == 0 {
                    return Poll::Ready(());
                }
            }
            // What is left of the task's budget is for whoever is next; without any, nobody would come any further
            // (tokio::task::coop).
            if !has_budget_remaining() {
                break;
            }
        }
        // Not at once: first the runtime looks for what else has come, timers too. It does so by itself only after 61
        // turns of tasks (tokio's `event_interval`), and those of a crew are long.
        let _ = pin!(yield_now()).poll(context);
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::{sync::Notify, time::timeout};

    use super::*;
    use crate::task;

    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

    /// How often each was polled.
    type Polls = Arc<Mutex<Vec<usize>>>;

    fn count(polls: &Polls, index: usize) {
        lock(polls)[index] += 1;
    }

    #[tokio::test]
    async fn only_those_who_were_called_are_polled() {
        let polls: Polls = Arc::new(Mutex::new(vec![0; 100]));
        let calls = Calls::new(100);
        let members = (0..100)
            .map(|index| {
                let (polls, calls) = (Arc::clone(&polls), calls.clone());
                let member: Member = Box::pin(poll_fn(move |_| {
                    count(&polls, index);
                    let so_far = lock(&polls)[index];
                    match (index, so_far) {
                        // The last to begin calls two others, one of them twice; that one calls the lead.
                        (99, 1) => [7, 9, 7].into_iter().for_each(|other| calls.call(other)),
                        (7, 2) => calls.call(0),
                        (0, 2) => return Poll::Ready(()),
                        _ => {}
                    }
                    Poll::Pending
                }));
                member
            })
            .collect();
        timeout(PATIENCE, Crew::new(members, calls)).await.expect("in time");
        let polls = lock(&polls);
        let twice: Vec<usize> = (0..100).filter(|index| polls[*index] == 2).collect();
        assert_eq!(twice, [0, 7, 9], "{polls:?}");
        assert_eq!(polls.iter().sum::<usize>(), 103);
    }

    /// A member that always has something to do does not keep the others, the lead, or other tasks from their turns.
    #[tokio::test]
    async fn nobody_starves() {
        let turns: Polls = Arc::new(Mutex::new(vec![0; 5]));
        let calls = Calls::new(5);
        let told = Arc::new(Notify::new());
        let mut members: Vec<Member> = Vec::new();
        let (lead_told, lead_turns) = (Arc::clone(&told), Arc::clone(&turns));
        members.push(Box::pin(async move {
            lead_told.notified().await;
            count(&lead_turns, 0);
        }));
        for index in 1..5 {
            let turns = Arc::clone(&turns);
            members.push(Box::pin(async move {
                loop {
                    // Takes from the task's budget each time, as reading from a socket that always has bytes does.
                    tokio::task::coop::consume_budget().await;
                    count(&turns, index);
                }
            }));
        }
        let crew = Crew::new(members, calls);
        let handle = task::spawn(crew);
        for _ in 0..20 {
            yield_now().await;
        }
        told.notify_one();
        timeout(PATIENCE, handle).await.expect("in time").expect("no panic");
        let turns = lock(&turns);
        assert!(turns.iter().all(|turns| *turns > 0), "{turns:?}");
    }

    #[tokio::test]
    async fn dropping_it_drops_all() {
        let marks: Vec<Arc<()>> = (0..10).map(|_| Arc::new(())).collect();
        let members = marks.iter().map(Arc::clone).map(|mark| {
            let member: Member = Box::pin(async move {
                let _mark = mark;
                std::future::pending::<()>().await;
            });
            member
        });
        let mut crew = Crew::new(members.collect(), Calls::new(10));
        let _ = timeout(std::time::Duration::from_millis(1), &mut crew).await;
        assert!(marks.iter().all(|mark| Arc::strong_count(mark) == 2));
        drop(crew);
        assert!(marks.iter().all(|mark| Arc::strong_count(mark) == 1));
    }
}
