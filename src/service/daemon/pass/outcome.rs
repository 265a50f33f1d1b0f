//! What a pass has come to: faults, repairs, a word in the journal.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::agenda::Made;
use crate::cluster::datastore::Datastore;
use crate::kernel::change::{Change, Obstacle};
use crate::kernel::reconcile::Report;
use crate::kernel::{Failure, KernelError};
use crate::plan::Plan;
use crate::service::daemon::Daemon;
use crate::service::docker::Advice;
use crate::service::faults::Code;
use crate::service::journal::Occasion;
use crate::service::machine::Machine;
use crate::service::status::News;
use crate::service::{dry_run, interfaces};

/// What the kernel refused of the packet filter is tried again after this long.
const FILTER_RETRY: Duration = Duration::from_secs(5);

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
        if let (Ok(()), Some(plan)) = (&made.files, &self.passes.plan) {
            self.world.removed(&plan.obsolete);
        }
        let failed = made.files.err().map(|error| error.to_string());
        self.world.faults.note(Code::Files, failed);
        proxy_runs && kernel && !self.world.faults.has(Code::Files)
    }

    /// What a host that is to be rid of all keeps, because somebody uses it. It is no reason to
    /// try again at once: it goes when they have gone.
    pub(super) fn left_behind(&self, report: &Report) -> Option<String> {
        self.passes.plan.as_ref().filter(|plan| plan.is_empty())?;
        let mut obstacles = report.obstacles.iter();
        obstacles.find_map(|obstacle| match obstacle {
            Obstacle::InUse { link, ports } => {
                let on_it = report.addresses.iter().filter(|row| *row.link == **link);
                let addresses: Vec<_> = on_it.map(|row| row.address.to_string()).collect();
                Some(format!(
                    "{link} with {} is still there, because something hangs on it: {}; stop the \
                     containers that use it, and it goes too",
                    addresses.join(", "),
                    ports.join(", ")
                ))
            }
            Obstacle::Foreign { .. }
            | Obstacle::InTheWay { .. }
            | Obstacle::Missing { .. }
            | Obstacle::NoFirewall { .. }
            | Obstacle::Blocked(_) => None,
        })
    }

    /// The pass is over.
    fn reported(&mut self, report: &Report) -> bool {
        let (filter, rows): (Vec<&Failure>, Vec<&Failure>) =
            (report.failed.iter()).partition(|failure| is_of_the_filter(failure));
        let unsettled = (!report.settled && report.failed.is_empty())
            .then(|| "somebody else keeps changing what this service sets up".to_owned());
        let refused = first_of(&rows).or(unsettled);
        self.world.faults.note(Code::Kernel, refused);
        // a data plane that does not run has made no device, and has a fault of its own
        let proxy_failed = self.world.faults.has(Code::Proxy);
        let telling = |obstacle: &&Obstacle| match obstacle {
            Obstacle::Missing { .. } => !proxy_failed,
            Obstacle::NoFirewall { .. } | Obstacle::Blocked(_) => false,
            Obstacle::Foreign { .. } | Obstacle::InTheWay { .. } | Obstacle::InUse { .. } => true,
        };
        let obstacle = report.obstacles.iter().find(telling);
        let advice = Advice {
            docker_env: &self.world.config.paths.docker_env,
            daemon_json: self.world.config.docker.daemon_json.as_deref(),
        };
        let obstacle = obstacle.map(|obstacle| advice.on(obstacle));
        let plan = self.passes.plan.as_ref();
        let mtu = plan.and_then(|plan| advice.mtu(&plan.kernel, report));
        self.world.faults.note(Code::ForeignLink, obstacle);
        self.world.faults.note(Code::Docker, mtu);
        let mut obstacles = report.obstacles.iter();
        let no_filter = |obstacle: &&Obstacle| matches!(obstacle, Obstacle::NoFirewall { .. });
        let no_filter = obstacles.find(no_filter).map(ToString::to_string);
        if !filter.is_empty() {
            // the node is as good as ready, so nothing else would come back to it soon
            self.passes.due_at(Instant::now() + FILTER_RETRY);
        }
        let filter = first_of(&filter).or(no_filter);
        self.world.faults.note(Code::Firewall, filter);
        self.world.faults.note(Code::Forwarding, blocked(report));
        let complete = (self.passes.plan.as_ref()).is_some_and(|plan| is_reached(report, plan));
        self.see_links(report);
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
        if !is_repair && passes.plan.as_ref().is_some_and(|plan| plan.is_empty()) {
            // what was set up before it is gone with it
            passes.untold = 0;
            tracing::info!(changes, change = %first, "removed from this host");
            return;
        }
        if !is_repair {
            passes.untold += changes;
            passes.tell();
            return;
        }
        passes.repairs += changes as u64;
        let first_few = report.applied.iter().take(News::MOST_CHANGES);
        let repaired = first_few.map(dry_run::in_words).collect();
        // nobody need listen
        drop(self.news.send(News::DriftRepaired(repaired)));
        if known {
            // the fault tells; a line for each round of a dispute would flood
            tracing::debug!(changes, change = %first, "repaired");
        } else {
            tracing::info!(
                message_id = Occasion::DriftRepaired.id(),
                changes,
                change = %first,
                "repaired"
            );
        }
    }

    fn see_links(&mut self, report: &Report) {
        let passes = &mut self.passes;
        let Some(plan) = &passes.plan else { return };
        let interfaces = interfaces::listed(&plan.kernel, report);
        if *passes.interfaces != interfaces {
            passes.interfaces = Arc::new(interfaces);
        }
    }

    pub(super) fn kernel_failed(&mut self, error: &KernelError) {
        self.world
            .faults
            .note(Code::Kernel, Some(error.to_string()));
    }
}

/// The first failure, and how many more there are.
fn first_of(failures: &[&Failure]) -> Option<String> {
    let (first, others) = failures.split_first()?;
    let others = match others.len() {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    Some(format!("{first}{others}"))
}

/// Whether the kernel has all that this node needs. One peer that it will not have must not keep
/// the node from being ready, and nor must the packet filter. Where nothing is wanted any more
/// nothing may be left.
pub(super) fn is_reached(report: &Report, plan: &Plan) -> bool {
    let bearable = !plan.is_empty() && of_minor_things_alone(report);
    let settled = report.settled || bearable;
    settled && report.obstacles.iter().all(is_bearable)
}

/// Whether a device of the data plane is not there.
pub(super) fn lacks_a_device(report: &Report) -> bool {
    let missing = |obstacle: &Obstacle| matches!(obstacle, Obstacle::Missing { .. });
    report.obstacles.iter().any(missing)
}

/// All that keeps packets from passing.
fn blocked(report: &Report) -> Option<String> {
    let blockage = |obstacle: &Obstacle| match obstacle {
        Obstacle::Blocked(blockage) => Some(blockage.to_string()),
        Obstacle::Foreign { .. }
        | Obstacle::InTheWay { .. }
        | Obstacle::Missing { .. }
        | Obstacle::NoFirewall { .. }
        | Obstacle::InUse { .. } => None,
    };
    let texts: Vec<String> = report.obstacles.iter().filter_map(blockage).collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

/// A bridge in Docker's hands is for its next start to put right, which waits for us.
const fn is_bearable(obstacle: &Obstacle) -> bool {
    match obstacle {
        Obstacle::Foreign { .. }
        | Obstacle::InUse { .. }
        | Obstacle::NoFirewall { .. }
        | Obstacle::Blocked(_) => true,
        Obstacle::InTheWay { .. } | Obstacle::Missing { .. } => false,
    }
}

/// Whether the kernel refused rows for peers, or something of the packet filter, and nothing else.
fn of_minor_things_alone(report: &Report) -> bool {
    let is_minor = |failure: &Failure| is_of_a_peer(failure) || is_of_the_filter(failure);
    !report.failed.is_empty() && report.failed.iter().all(is_minor)
}

const fn is_of_the_filter(failure: &Failure) -> bool {
    matches!(failure.change, Change::Firewall(_))
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
        | Change::AddAddress(..)
        | Change::Firewall(_) => false,
    }
}
