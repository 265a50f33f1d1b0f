//! The pass: the whole plan, made so.

use tokio::time::Instant;

use super::{Daemon, RETRY};
use crate::cluster::datastore::Datastore;
use crate::kernel::change::{Change, Obstacle};
use crate::kernel::reconcile::{self, Report};
use crate::kernel::{Failure, KernelError, Scope, uplink};
use crate::plan::Plan;
use crate::service::faults::Code;
use crate::service::status::PlannedChange;
use crate::service::{clock, dry_run, files, notify};

impl<D: Datastore> Daemon<D> {
    /// Makes the host what the plan says. First set-up, a new peer, drift and a switch of the
    /// backend all come through here.
    pub(super) async fn pass(&mut self) {
        self.pass_at = None;
        if self.world.faults.has(Code::State) {
            self.remember();
        }
        self.find_uplink().await;
        let forwards = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward");
        let forwards = forwards.is_ok_and(|text| text.trim() == "1");
        let text = "the kernel forwards no packets, so containers reach no other node; \
                    run: sysctl -w net.ipv4.ip_forward=1";
        self.world
            .faults
            .note(Code::Forwarding, (!forwards).then(|| text.to_owned()));
        self.plan = self.world.plan();
        self.complete = match self.plan.take() {
            None => false,
            Some(plan) => {
                let complete = self.make_so(&plan).await;
                self.plan = Some(plan);
                complete
            }
        };
        self.last_pass = Instant::now();
        if self.plan.is_some() && !self.complete {
            self.pass_at.get_or_insert(self.last_pass + RETRY);
        }
        if self.complete && !self.ready {
            self.ready = true;
            self.publish();
            notify::ready();
            tracing::info!(status = self.status_line, "ready");
        }
        self.publish();
        if std::mem::take(&mut self.reloading) {
            notify::ready();
        }
    }

    async fn find_uplink(&mut self) {
        let preference = self.world.config.node.preference();
        match self.netlink.interfaces(&preference).await {
            Ok(interfaces) => self
                .world
                .uplink_seen(uplink::choose(&preference, &interfaces)),
            Err(error) => {
                let fault = Some(error.to_string());
                self.world.faults.note(Code::Uplink, fault);
            }
        }
    }

    /// Data plane, kernel, files, in this order: the first makes a device that the second sets
    /// up, and the last tells others that all is there. Says whether everything is as planned.
    async fn make_so(&mut self, plan: &Plan) -> bool {
        let proxy = self.data_plane.run(plan.proxy.as_ref());
        let proxy_runs = proxy.is_ok();
        self.world.faults.note(Code::Proxy, proxy.err());
        let kernel = match self.converge(plan).await {
            Ok(report) => self.reported(&report, plan),
            Err(error) => {
                self.kernel_failed(&error);
                false
            }
        };
        if !(proxy_runs && kernel) {
            return false;
        }
        let written: Result<Vec<bool>, _> = plan
            .files
            .iter()
            .map(|(path, text)| files::write(path, text))
            .collect();
        let failed = written.err().map(|error| error.to_string());
        self.world.faults.note(Code::Files, failed);
        !self.world.faults.has(Code::Files)
    }

    fn scope(&self, plan: &Plan) -> Option<Scope> {
        let node = self.world.node()?;
        Some(Scope::new(
            &plan.kernel,
            node.network.net,
            node.lease.subnet.v4(),
        ))
    }

    async fn converge(&mut self, plan: &Plan) -> Result<Report, KernelError> {
        let Some(scope) = self.scope(plan) else {
            return Ok(Report::default());
        };
        reconcile::converge(&mut self.netlink, &plan.kernel, &scope).await
    }

    fn reported(&mut self, report: &Report, plan: &Plan) -> bool {
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
        // a bridge in Docker's hands is for its next start to put right, which waits for us
        let bearable = |obstacle: &Obstacle| match obstacle {
            Obstacle::Foreign { .. } | Obstacle::InUse { .. } => true,
            Obstacle::InTheWay { .. } | Obstacle::Missing { .. } => false,
        };
        // one peer that the kernel will not have must not keep this node from being ready
        let peers_only = !report.failed.is_empty() && report.failed.iter().all(is_of_a_peer);
        let settled = report.settled || peers_only;
        let complete = settled && report.obstacles.iter().all(bearable);
        self.tell_changes(report, plan, complete);
        if complete {
            self.reached = Some(plan.kernel.clone());
            self.last_reconcile_usec = Some(clock::now().wall_usec);
        }
        complete
    }

    /// One line for what was done in one go; a go that fails is told by its fault.
    fn tell_changes(&mut self, report: &Report, plan: &Plan, complete: bool) {
        for change in &report.applied {
            tracing::debug!(%change, "applied");
        }
        let changes = report.applied.len();
        let Some(first) = report.applied.first().filter(|_| complete) else {
            return;
        };
        if self.reached.as_ref() == Some(&plan.kernel) {
            self.repairs += changes as u64;
            tracing::info!(changes, %first, "repaired");
        } else {
            tracing::info!(changes, peers = plan.paths.len(), "kernel set up");
        }
    }

    fn kernel_failed(&mut self, error: &KernelError) {
        self.world
            .faults
            .note(Code::Kernel, Some(error.to_string()));
    }

    /// What a pass would change, without changing it.
    pub(super) async fn pending(&mut self) -> Result<Vec<PlannedChange>, String> {
        let Some(plan) = self.world.plan() else {
            return Err(format!("there is no plan yet: {}", self.trouble()));
        };
        let Some(scope) = self.scope(&plan) else {
            return Ok(Vec::new());
        };
        dry_run::pending(&mut self.netlink, &plan, &scope)
            .await
            .map_err(|error| error.to_string())
    }
}

/// Whether what the kernel refused is a row for one peer.
fn is_of_a_peer(failure: &Failure) -> bool {
    match &failure.change {
        Change::PutNeighbour(..) | Change::PutFdb(..) => true,
        Change::PutRoute(_, route) => route.gateway.is_some(),
        Change::DelRoute(..)
        | Change::DelNeighbour(..)
        | Change::DelFdb(..)
        | Change::DelAddress(..)
        | Change::DelLink(..)
        | Change::AddLink(..)
        | Change::SetLink(..)
        | Change::AddAddress(..) => false,
    }
}
