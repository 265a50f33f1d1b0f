//! What is done at the datastore: one thing at a time, in a task of its own, so that a datastore
//! that does not answer never holds up the loop.

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::{Asker, Daemon};
use crate::cluster::acquire::{AcquireError, Claim, Claimant, Held};
use crate::cluster::datastore::{CONFIG, Datastore, Fence, Outcome, Put, StoreError};
use crate::service::clock::Moment;
use crate::service::duty::{Backoff, Duty, Ended, Rounds};
use crate::service::faults::Code;
use crate::service::machine::Machine;
use crate::service::status::News;
use crate::service::world::{Task, adopting};

/// A fault that ends is to be over within five seconds.
const BACKOFF: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(3)];
/// After a write that will only show in the next list.
const RETRY: Duration = Duration::from_secs(1);

/// How often a lease that somebody else has is looked at, without any news.
const CONFLICT: Duration = Duration::from_secs(20);

/// What became of a [`Task`]; the time is when it was begun.
pub(super) enum Errand {
    Seeded(Result<bool, StoreError>),
    Acquired(Result<Held, AcquireError>, Moment),
    Renewed(Result<Claim, AcquireError>, Moment),
    Renumbered(Result<Held, AcquireError>, Moment),
    Released(Result<bool, AcquireError>),
}

/// The errands, one at a time.
pub(super) struct Errands {
    rounds: Rounds<Errand>,
    /// The pauses after failures.
    backoff: Backoff,
}

impl Errands {
    pub(super) fn new(mut dice: StdRng) -> Self {
        Self {
            rounds: Rounds::new(Duty::Lease, StdRng::from_rng(&mut dice)),
            backoff: Backoff::new(BACKOFF[0], BACKOFF[1], dice),
        }
    }

    /// Waits until the errand under way has ended, or the time has come to look for a new one;
    /// for ever if there is neither. Cancel safe.
    pub(super) async fn next(&mut self) -> Ended<Errand> {
        self.rounds.next().await
    }

    /// Whether nothing is under way, nor waited for.
    pub(super) const fn are_idle(&self) -> bool {
        self.rounds.is_free()
    }

    /// Lets the next errand begin at once.
    pub(super) fn hurry(&mut self) {
        self.rounds.hurry();
    }

    /// Drops the errand under way. Its write may have happened all the same.
    pub(super) fn abort(&mut self) {
        self.rounds.abort();
    }
}

impl<M: Machine, D: Datastore> Daemon<M, D> {
    /// Starts what is to be done at the datastore, one thing at a time, so that a datastore that
    /// does not answer never holds up the loop.
    pub(super) fn send_errand(&mut self) {
        if !self.errands.rounds.is_free() {
            return;
        }
        let Some(task) = self.world.duty(self.machine.now()) else {
            return;
        };
        let store = self.store.clone();
        let (ttl, dice) = (self.world.config.lease.ttl, self.machine.dice());
        let machine = self.machine.clone();
        self.errands.rounds.begin(async move {
            let begun = machine.now();
            let mut claimant = Claimant::new(&*store, ttl, dice);
            match task {
                Task::Seed(network) => Errand::Seeded(seed(&*store, &network.to_json()).await),
                Task::Acquire(network, wish, attrs) => {
                    let attrs = |own: Option<&_>| adopting(attrs.clone(), own);
                    let held = claimant.acquire(&network, &wish, attrs).await;
                    Errand::Acquired(held, begun)
                }
                Task::Renew(held, attrs) => {
                    Errand::Renewed(claimant.renew(&held, attrs).await, begun)
                }
                Task::Renumber(network, held, goal, attrs) => {
                    let held = claimant.renumber(&network, &held, goal, attrs).await;
                    Errand::Renumbered(held, begun)
                }
                Task::Release(held, attrs) => {
                    Errand::Released(claimant.release(&held, &attrs).await)
                }
            }
        });
    }

    pub(super) fn came_back(&mut self, errand: Ended<Errand>) {
        let errand = match errand {
            Ended::Rested => return,
            Ended::Lapsed(reason) => {
                self.release_lapsed(&reason);
                return self.lapsed(Duty::Lease, &reason);
            }
            Ended::Done(errand) => errand,
        };
        self.world.faults.clear(Code::Lapse(Duty::Lease));
        let succeeded = match errand {
            Errand::Seeded(result) => self.seeded(result),
            Errand::Acquired(result, begun) => {
                let succeeded = result.is_ok();
                self.world.acquired(result, begun);
                succeeded
            }
            Errand::Renewed(result, begun) => {
                let succeeded = matches!(result, Ok(Claim::Held(_) | Claim::Retaken(_)));
                let taken = matches!(result, Ok(Claim::Taken(_)));
                let known = self.world.faults.has(Code::SubnetConflict);
                self.world.renewed(result, begun);
                if !known {
                    self.tell_conflict();
                }
                if let Some(truce) = self.world.truce() {
                    self.errands.rounds.rest(truce);
                }
                if taken {
                    // it is told at once when the other's lease goes
                    self.errands.rounds.rest(CONFLICT);
                    self.passes.mark_dirty();
                    return self.hasten_release();
                }
                succeeded
            }
            Errand::Renumbered(result, begun) => self.renumbered(result, begun),
            Errand::Released(result) => self.released(result),
        };
        if succeeded {
            self.errands.backoff.reset();
            self.remember();
            // rare, and at a start all waits for this one: no matter when the last pass was
            self.passes.hurry();
        } else {
            let pause = self.errands.backoff.pause();
            self.errands.rounds.rest(pause);
            self.passes.mark_dirty();
        }
        self.hasten_release();
    }

    /// Says whether there is a network config now.
    fn seeded(&mut self, result: Result<bool, StoreError>) -> bool {
        let succeeded = result.is_ok();
        self.world.seeded(result);
        if succeeded {
            // until the config has been seen it would be written again, in vain
            self.relist.notify_one();
            self.errands.rounds.rest(RETRY);
        }
        succeeded
    }

    /// The node has another subnet, or not. Says whether it has. The asker may start containers on
    /// the answer, so this host is made ready for them first.
    fn renumbered(&mut self, result: Result<Held, AcquireError>, begun: Moment) -> bool {
        let result = self.world.renumbered(result, begun);
        self.publish();
        let succeeded = result.is_ok();
        match (result, self.renumbering.take()) {
            (Ok(subnet), Some(answer)) => {
                self.passes.ask_to_reconcile(Asker::Arrival(subnet, answer));
            }
            (Err(error), Some(answer)) => drop(answer.send(Err(error))),
            (_, None) => {}
        }
        succeeded
    }

    /// Tells of a conflict that has just come up, if one has.
    fn tell_conflict(&self) {
        let subnet = self.world.subnet();
        let subnet = subnet.filter(|_| self.world.faults.has(Code::SubnetConflict));
        let Some(subnet) = subnet else {
            return;
        };
        let holder = self.world.rival_holder();
        // nobody need listen
        drop(self.news.send(News::SubnetConflict { subnet, holder }));
    }

    /// Writes down what the next start should know.
    pub(super) fn remember(&mut self) {
        let kept = self
            .machine
            .remember(&self.world.identity, self.world.written());
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
