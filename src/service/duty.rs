//! Supervision: what the service must keep doing, and what happens when one of these duties
//! fails or hangs.
//!
//! A duty is either a post, one task that never ends, or done in rounds, a task for each
//! time. Both have a name and a budget. A task that panics, ends or outlasts its budget is a
//! *lapse*: it is aborted, told, and begun anew after a jittered pause that doubles from lapse to
//! lapse. A datastore or a bus that cannot be reached is no lapse: to find that out, and to say
//! so, is the duty done.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, sleep_until, timeout_at};

/// The duties by name. What the threads of the udp data plane do is watched by themselves, see
/// [`crate::proxy::Proxy::failure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Duty {
    /// To know the cluster: list and watch the datastore.
    Watch,
    /// To hold the lease: take it, renew it, give it back.
    Lease,
    /// To make the machine what the plan says.
    Reconcile,
    /// To be on D-Bus.
    Bus,
    /// To have the managers of the host's network leave ours alone.
    Managers,
}

impl Duty {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Watch => "watch",
            Self::Lease => "lease",
            Self::Reconcile => "reconcile",
            Self::Bus => "bus",
            Self::Managers => "managers",
        }
    }

    /// How long it may go without a sign of life. Each bound is well above what its parts may
    /// take by their own limits, so that it is met only by what has none.
    pub(super) const fn budget(self) -> Duration {
        Duration::from_secs(match self {
            // a live watch says something every 30 s
            Self::Watch => 90,
            // ten lost races at three endpoints that do not answer
            Self::Lease => 120,
            Self::Reconcile => 60,
            Self::Bus | Self::Managers => 120,
        })
    }
}

impl fmt::Display for Duty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Pauses that double from one to the next, up to a limit, with jitter: a cluster must not come
/// back as one.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
    dice: StdRng,
}

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration, dice: StdRng) -> Self {
        Self {
            first,
            longest,
            next: first,
            dice,
        }
    }

    /// How long to wait now: between half and all of what is due.
    pub(super) fn pause(&mut self) -> Duration {
        let due = self.next;
        self.next = (due * 2).min(self.longest);
        due.mul_f64(self.dice.random_range(0.5..1.0))
    }

    /// It went well: the next pause is a short one.
    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }

    /// The pauses after a lapse.
    fn of_lapses(dice: StdRng) -> Self {
        Self::new(Duration::from_millis(200), Duration::from_secs(30), dice)
    }
}

/// How a wait for [`Rounds`] ended.
#[derive(Debug)]
pub(super) enum Ended<T> {
    /// The round was done.
    Done(T),
    /// The round hung or died; in a text for people.
    Lapsed(String),
    /// The pause is over: it is time to look for something to do.
    Rested,
}

/// A duty that is done in rounds, one at a time, each in a task of its own.
#[derive(Debug)]
pub(super) struct Rounds<T> {
    duty: Duty,
    running: Option<Round<T>>,
    /// Until when none is begun.
    resting: Option<Instant>,
    backoff: Backoff,
}

#[derive(Debug)]
struct Round<T> {
    task: JoinHandle<T>,
    deadline: Instant,
}

impl<T> Drop for Rounds<T> {
    fn drop(&mut self) {
        self.abort();
    }
}

impl<T> Rounds<T> {
    /// Drops the round under way. What it did stays done.
    pub(super) fn abort(&mut self) {
        if let Some(round) = self.running.take() {
            round.task.abort();
        }
    }
}

impl<T: Send + 'static> Rounds<T> {
    pub(super) fn new(duty: Duty, dice: StdRng) -> Self {
        Self {
            duty,
            running: None,
            resting: None,
            backoff: Backoff::of_lapses(dice),
        }
    }

    /// Whether a round may begin.
    pub(super) const fn is_free(&self) -> bool {
        self.running.is_none() && self.resting.is_none()
    }

    /// Begins a round; what was under way is dropped.
    pub(super) fn begin(&mut self, work: impl Future<Output = T> + Send + 'static) {
        self.abort();
        self.running = Some(Round {
            task: tokio::spawn(work),
            deadline: Instant::now() + self.duty.budget(),
        });
    }

    /// Waits for the round under way, or else for the pause to end; for ever if there is
    /// neither. Cancel safe.
    pub(super) async fn next(&mut self) -> Ended<T> {
        let Some(round) = &mut self.running else {
            match self.resting {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
            self.resting = None;
            return Ended::Rested;
        };
        let reason = loop {
            match timeout_at(round.deadline, &mut round.task).await {
                Ok(Ok(done)) => {
                    self.running = None;
                    self.backoff.reset();
                    return Ended::Done(done);
                }
                Ok(Err(died)) => break cause(died),
                Err(_) if slept_through(round.deadline) => {
                    round.deadline = Instant::now() + self.duty.budget();
                }
                Err(_) => break format!("did not end within {:?}", self.duty.budget()),
            }
        };
        self.abort();
        let pause = self.backoff.pause();
        self.rest(pause);
        Ended::Lapsed(reason)
    }

    /// Lets no round begin for a while.
    pub(super) fn rest(&mut self, pause: Duration) {
        self.resting = Some(Instant::now() + pause);
    }

    /// Lets the next round begin at once.
    pub(super) fn hurry(&mut self) {
        self.resting = None;
    }
}

/// A sign of life that a task gives.
#[derive(Debug, Clone)]
pub struct Pulse(Arc<Mutex<Instant>>);

impl Default for Pulse {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Pulse {
    /// Still alive.
    pub fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The work of a [`Post`], made anew after each lapse.
pub(super) type Work = Box<dyn Fn(Pulse) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// A duty that one task does for as long as the service lives.
pub(super) struct Post {
    duty: Duty,
    work: Work,
    pulse: Pulse,
    task: Option<JoinHandle<()>>,
    /// When the task is begun (anew).
    begins: Instant,
    backoff: Backoff,
}

impl Post {
    pub(super) fn new(duty: Duty, work: Work, dice: StdRng) -> Self {
        Self {
            duty,
            work,
            pulse: Pulse::default(),
            task: None,
            begins: Instant::now(),
            backoff: Backoff::of_lapses(dice),
        }
    }

    /// Keeps the task going; answers with each lapse. Cancel safe.
    pub(super) async fn lapse(&mut self) -> String {
        loop {
            let Some(task) = &mut self.task else {
                sleep_until(self.begins).await;
                self.pulse = Pulse::default();
                self.task = Some(tokio::spawn((self.work)(self.pulse.clone())));
                continue;
            };
            let deadline = self.pulse.last() + self.duty.budget();
            let reason = match timeout_at(deadline, task).await {
                Ok(Ok(())) => "ended".to_owned(),
                Ok(Err(died)) => cause(died),
                Err(_) if slept_through(deadline) => {
                    self.pulse.beat();
                    continue;
                }
                Err(_) if self.pulse.last().elapsed() < self.duty.budget() => continue,
                Err(_) => format!("gave no sign of life for {:?}", self.duty.budget()),
            };
            self.abort();
            self.begins = Instant::now() + self.backoff.pause();
            return reason;
        }
    }

    /// Whether the task has given a sign of life since it was begun: a lapse before is over.
    pub(super) fn is_well(&mut self) -> bool {
        let well = self.task.is_some() && self.pulse.last() > self.begins + STEADY;
        if well {
            self.backoff.reset();
        }
        well
    }

    /// Ends the task.
    pub(super) fn abort(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        self.abort();
    }
}

/// A task that lives this long has got over what made it lapse.
const STEADY: Duration = Duration::from_secs(2);

/// Whether it is well past a deadline that has only now been noticed: this process was stopped,
/// or its machine was, and nobody could give a sign of life.
fn slept_through(deadline: Instant) -> bool {
    deadline.elapsed() > Duration::from_secs(3)
}

fn cause(died: JoinError) -> String {
    match died.try_into_panic() {
        Ok(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            format!("died: {}", text.unwrap_or("a panic"))
        }
        Err(_) => "was dropped".to_owned(),
    }
}

#[cfg(test)]
mod tests;
