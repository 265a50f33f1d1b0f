//! Giving the lease back, and cleaning up: the two ways to withdraw from the network. What follows
//! is a pass like any other, whose plan has nothing in it.

use tokio::sync::oneshot;

use super::{Asker, Daemon, Releaser};
use crate::cluster::acquire::AcquireError;
use crate::cluster::datastore::Datastore;
use crate::service::machine::Machine;
use crate::service::status::PlannedChange;

impl<M: Machine, D: Datastore> Daemon<M, D> {
    pub(super) fn release(&mut self, answer: Releaser) {
        match self.world.release() {
            Ok(None) => {
                self.releasing = Some(answer);
                self.errands.hurry();
            }
            Ok(Some(subnet)) => self.depart(Asker::Departure(subnet, answer)),
            Err(error) => drop(answer.send(Err(error))),
        }
    }

    pub(super) fn clean_up(&mut self, answer: oneshot::Sender<Result<Vec<PlannedChange>, String>>) {
        match self.world.withdraw() {
            Ok(()) => self.depart(Asker::Changes(answer)),
            Err(error) => drop(answer.send(Err(error))),
        }
    }

    /// The asker is answered once the host is clean: a service that is stopped right after the
    /// answer must not leave anything behind.
    fn depart(&mut self, asker: Asker) {
        self.passes.ask_to_reconcile(asker);
        self.publish();
    }

    /// The lease was given back, or not. Says whether it was.
    pub(super) fn released(&mut self, result: Result<bool, AcquireError>) -> bool {
        let result = self.world.released(result);
        let succeeded = result.is_ok();
        match (result, self.releasing.take()) {
            (Ok(subnet), Some(answer)) => self.depart(Asker::Departure(subnet, answer)),
            (Err(error), Some(answer)) => drop(answer.send(Err(error))),
            (_, None) => {}
        }
        succeeded
    }

    /// An errand hung or died: whoever waits for the lease to be given back waits no longer.
    pub(super) fn release_lapsed(&mut self, reason: &str) {
        self.world.release_failed();
        if let Some(answer) = self.releasing.take() {
            let text = format!(
                "it cannot be told whether the lease was given back, as the datastore's part \
                 {reason}; this node goes on as before"
            );
            drop(answer.send(Err(text)));
        }
    }

    /// Whoever waits for the lease to be given back waits for no pause after another errand.
    pub(super) fn hasten_release(&mut self) {
        if self.world.is_releasing() {
            self.errands.hurry();
        }
    }
}
