//! What is done at the datastore: one thing at a time, in a task of its own, so that a datastore
//! that does not answer never holds up the loop.

use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

use super::{Daemon, RETRY, at};
use crate::cluster::acquire::{self, AcquireError, Claim, Held};
use crate::cluster::datastore::{CONFIG, Datastore, Fence, Outcome, Put, StoreError};
use crate::service::clock::{self, Moment};
use crate::service::faults::Code;
use crate::service::world::{Duty, adopting};

const BACKOFF: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(30)];

/// What became of a [`Duty`]; the time is when it was begun.
pub(super) enum Errand {
    Seeded(Result<bool, StoreError>),
    Acquired(Result<Held, AcquireError>, Moment),
    Renewed(Result<Claim, AcquireError>, Moment),
}

/// The errand under way, if any, and when to begin the next.
#[derive(Default)]
pub(super) struct Errands {
    running: Option<JoinHandle<Errand>>,
    failures: u32,
    /// When to try again after a failure.
    not_before: Option<Instant>,
}

impl Errands {
    /// Waits until the errand under way is done, or (`None`) the time has come to look for a
    /// new one; for ever if there is neither. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Result<Errand, JoinError>> {
        if let Some(running) = &mut self.running {
            let result = running.await;
            self.running = None;
            return Some(result);
        }
        at(self.not_before).await;
        self.not_before = None;
        None
    }

    /// Lets the next errand begin at once.
    pub(super) fn hurry(&mut self) {
        self.not_before = None;
    }

    /// Drops the errand under way. Its write may have happened all the same.
    pub(super) fn abort(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
        }
    }

    fn postpone(&mut self, pause: Duration) {
        self.not_before = Some(Instant::now() + pause);
    }
}

impl<D: Datastore> Daemon<D> {
    /// Starts what is to be done at the datastore, one thing at a time, so that a datastore that
    /// does not answer never holds up the loop.
    pub(super) fn send_errand(&mut self) {
        if self.errands.running.is_some() || self.errands.not_before.is_some() {
            return;
        }
        let Some(duty) = self.world.duty(clock::now()) else {
            return;
        };
        let store = self.store.clone();
        let ttl = self.world.config.lease.ttl;
        self.errands.running = Some(tokio::spawn(async move {
            let begun = clock::now();
            match duty {
                Duty::Seed(network) => Errand::Seeded(seed(&*store, &network.to_json()).await),
                Duty::Acquire(network, wish, attrs) => {
                    let attrs = |own: Option<&_>| adopting(attrs.clone(), own);
                    let held = acquire::acquire(&*store, &network, &wish, attrs, ttl).await;
                    Errand::Acquired(held, begun)
                }
                Duty::Renew(held, attrs) => {
                    Errand::Renewed(acquire::renew(&*store, &held, attrs, ttl).await, begun)
                }
            }
        }));
    }

    pub(super) fn came_back(&mut self, errand: Option<Result<Errand, JoinError>>) {
        let Some(errand) = errand else {
            return;
        };
        let succeeded = match errand {
            Ok(Errand::Seeded(result)) => {
                let succeeded = result.is_ok();
                self.world.seeded(result);
                if succeeded {
                    // until the config has been seen it would be written again, in vain
                    self.relist.notify_one();
                    self.errands.postpone(RETRY);
                }
                succeeded
            }
            Ok(Errand::Acquired(result, begun)) => {
                let succeeded = result.is_ok();
                self.world.acquired(result, begun);
                succeeded
            }
            Ok(Errand::Renewed(result, begun)) => {
                let succeeded = matches!(result, Ok(Claim::Held(_) | Claim::Retaken(_)));
                self.world.renewed(result, begun);
                if let Some(truce) = self.world.truce() {
                    self.errands.postpone(truce);
                }
                succeeded
            }
            Err(error) => {
                tracing::error!(%error, "a task of the lease died");
                false
            }
        };
        if succeeded {
            self.errands.failures = 0;
            self.remember();
            // rare, and at a start all waits for this one: no matter when the last pass was
            self.pass_at = Some(Instant::now());
        } else {
            let doubled = BACKOFF[0] * 2u32.pow(self.errands.failures.min(10));
            self.errands.postpone(doubled.min(BACKOFF[1]));
            self.errands.failures += 1;
        }
        self.mark_dirty();
    }

    /// Writes down what the next start should know.
    pub(super) fn remember(&mut self) {
        let mut kept = self.memory.keep(&self.world.identity);
        if let Some(written) = self.world.written() {
            kept = kept.and_then(|()| self.memory.remember(written));
        }
        let fault = kept.err().map(|error| error.to_string());
        self.world.faults.note(Code::State, fault);
    }
}

/// Says whether it was this call that wrote the config.
async fn seed<D: Datastore>(store: &D, value: &str) -> Result<bool, StoreError> {
    let put = Put {
        key: CONFIG,
        value,
        fence: Fence::Absent,
        ttl: None,
    };
    Ok(matches!(store.put(put).await?, Outcome::Stored { .. }))
}
