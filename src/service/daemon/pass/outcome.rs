//! What a pass has come to: faults, repairs, a word in the journal.

use std::sync::Arc;

use tokio::time::Instant;

use super::agenda::Made;
use crate::cluster::datastore::Datastore;
use crate::kernel::change::{Change, Obstacle};
use crate::kernel::reconcile::Report;
use crate::kernel::{Failure, KernelError};
use crate::plan::Plan;
use crate::service::daemon::Daemon;
use crate::service::faults::Code;
use crate::service::machine::Machine;

impl<M: Machine, D: Datastore> Daemon<M, D> {
    pub(super) fn made(&mut self, made: Made) -> bool {
        self.passes.cost = self.passes.began.elapsed();
        let untouched = |report: &Report| report.passes == 0 && report.settled;
        if self.passes.whole && made.kernel.as_ref().is_ok_and(untouched) {
            self.passes.reading = self.passes.cost;
        }
        let faults = &mut self.world.faults;
        let proxy_runs = made.proxy.is_ok();
        faults.note(Code::Proxy, made.proxy.err());
        let kernel = match made.kernel {
            Ok(report) => self.reported(&report),
            Err(error) => {
                self.kernel_failed(&error);
                false
            }
        };
        let failed = made.files.err().map(|error| error.to_string());
        self.world.faults.note(Code::Files, failed);
        let complete = proxy_runs && kernel && !self.world.faults.has(Code::Files);
        if let Some(before) = made.before {
            let trouble = self.trouble();
            for answer in self.passes.reconciling.drain(..) {
                let result = if complete {
                    before.clone()
                } else {
                    Err(trouble.clone())
                };
                drop(answer.send(result));
            }
        }
        complete
    }

    /// The pass is over.
    fn reported(&mut self, report: &Report) -> bool {
        let refused = report.failed.first().map(|failure| {
            let more = report.failed.len() - 1;
            let others = if more == 0 {
                String::new()
            } else {
                format!(" (and {more} more)")
            };
            format!("{}: {}{others}", failure.change, failure.reason)
        });
        let unsettled = (!report.settled && refused.is_none())
            .then(|| "somebody else keeps changing what this service sets up".to_owned());
        self.world.faults.note(Code::Kernel, refused.or(unsettled));
        // a data plane that does not run has made no device, and has a fault of its own
        let proxy_failed = self.world.faults.has(Code::Proxy);
        let telling = |obstacle: &&Obstacle| match obstacle {
            Obstacle::Missing { .. } => !proxy_failed,
            Obstacle::Foreign { .. } | Obstacle::InTheWay { .. } | Obstacle::InUse { .. } => true,
        };
        let obstacle = report.obstacles.iter().find(telling);
        let obstacle = obstacle.map(ToString::to_string);
        self.world.faults.note(Code::ForeignLink, obstacle);
        let complete = is_reached(report);
        self.tell_changes(report, complete);
        if complete {
            self.passes.reached.clone_from(&self.passes.plan);
            self.passes.last_reconcile_usec = Some(self.machine.now().wall_usec);
        }
        complete
    }

    /// One line for what was done in one go; a go that fails is told by its fault.
    fn tell_changes(&mut self, report: &Report, complete: bool) {
        let passes = &mut self.passes;
        let same = |plan: &Option<Arc<Plan>>| match (plan, &passes.plan) {
            (Some(one), Some(other)) => one.kernel == other.kernel,
            _ => false,
        };
        let (is_repair, is_retry) = (same(&passes.reached), same(&passes.tried));
        passes.tried.clone_from(&passes.plan);
        for change in &report.applied {
            tracing::debug!(%change, "applied");
        }
        let Some(first) = report.applied.first() else {
            return;
        };
        let known = passes.strife.text().is_some();
        if is_retry {
            // somebody may be so fast that no go ever finds all in place
            passes.strife.repaired(&report.applied, Instant::now());
        }
        if !complete {
            return;
        }
        let changes = report.applied.len();
        if !is_repair {
            passes.untold += changes;
            passes.tell();
            return;
        }
        passes.repairs += changes as u64;
        if known {
            // the fault tells; a line for each round of a dispute would flood
            tracing::debug!(changes, %first, "repaired");
        } else {
            tracing::info!(changes, %first, "repaired");
        }
    }

    pub(super) fn kernel_failed(&mut self, error: &KernelError) {
        self.world
            .faults
            .note(Code::Kernel, Some(error.to_string()));
    }
}

/// Whether the kernel has all that this node needs. One peer that it will not have must not keep
/// the node from being ready.
pub(super) fn is_reached(report: &Report) -> bool {
    let settled = report.settled || of_peers_alone(report);
    settled && report.obstacles.iter().all(is_bearable)
}

/// Whether a device of the data plane is not there.
pub(super) fn lacks_a_device(report: &Report) -> bool {
    let missing = |obstacle: &Obstacle| matches!(obstacle, Obstacle::Missing { .. });
    report.obstacles.iter().any(missing)
}

/// A bridge in Docker's hands is for its next start to put right, which waits for us.
const fn is_bearable(obstacle: &Obstacle) -> bool {
    match obstacle {
        Obstacle::Foreign { .. } | Obstacle::InUse { .. } => true,
        Obstacle::InTheWay { .. } | Obstacle::Missing { .. } => false,
    }
}

/// Whether the kernel refused rows for peers and nothing else.
fn of_peers_alone(report: &Report) -> bool {
    !report.failed.is_empty() && report.failed.iter().all(is_of_a_peer)
}

/// Whether what the kernel refused is a row for one peer.
fn is_of_a_peer(failure: &Failure) -> bool {
    match &failure.change {
        Change::PutNeighbour(..) | Change::PutFdb(..) | Change::PutNexthop(..) => true,
        Change::PutRoute(_, route) => route.gateway.is_some(),
        Change::DelRoute(..)
        | Change::DelNeighbour(..)
        | Change::DelFdb(..)
        | Change::DelNexthop(..)
        | Change::DelAddress(..)
        | Change::DelLink(..)
        | Change::AddLink(..)
        | Change::SetLink(..)
        | Change::AddAddress(..) => false,
    }
}
