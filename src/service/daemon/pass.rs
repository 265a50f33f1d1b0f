//! The pass: the whole plan, made so. First set-up, a new peer, drift and a switch of the backend
//! all come through here.
//!
//! A pass has up to two rounds, each in a task of its own: to *look* at the machine where
//! something may have changed there, and to *make* it what the plan says.

use std::sync::Arc;

use tokio::time::Instant;

use agenda::{Made, Planned, RETRY, Round};
use outcome::{is_reached, lacks_a_device};

use super::Daemon;
use crate::cluster::datastore::Datastore;
use crate::kernel::KernelError;
use crate::kernel::reconcile::Reconciler;
use crate::kernel::uplink::{Interfaces, Preference};
use crate::service::dry_run;
use crate::service::duty::{Duty, Ended};
use crate::service::faults::Code;
use crate::service::journal::Occasion;
use crate::service::machine::Machine;
use crate::service::managers::seen;
use crate::service::notify::Notice;

pub(super) use agenda::{Asker, Passes, Releaser, Renumberer, hint};

mod agenda;
mod outcome;

impl<M: Machine, D: Datastore> Daemon<M, D> {
    /// Begins what is due, if nothing is under way.
    pub(super) fn begin_round(&mut self) {
        if !self.passes.rounds.is_free() {
            return;
        }
        let is_due = self.passes.due.is_some_and(|due| due <= Instant::now());
        if !is_due && self.passes.planning.is_empty() {
            return;
        }
        let Some(kernel) = self.kernel() else {
            return;
        };
        if !is_due {
            self.compare(kernel);
            return;
        }
        self.passes.due = None;
        self.passes.began = Instant::now();
        self.passes.whole = std::mem::take(&mut self.passes.doubtful);
        if self.passes.whole {
            self.look(kernel);
        } else {
            self.make(kernel);
        }
    }

    /// The kernel, from the last round or anew.
    fn kernel(&mut self) -> Option<Reconciler<M::Kernel>> {
        if let Some(kernel) = self.passes.kernel.take() {
            return Some(kernel);
        }
        match self.machine.kernel() {
            Ok((kernel, hints)) => {
                self.passes.hints = Some(hints);
                self.passes.doubtful = true;
                Some(Reconciler::new(kernel))
            }
            Err(error) => {
                self.kernel_failed(&error);
                self.passes.turn_away(&error.to_string());
                self.passes.rounds.rest(RETRY);
                None
            }
        }
    }

    fn look(&mut self, mut kernel: Reconciler<M::Kernel>) {
        let preference: Preference = self.world.config.node.preference();
        self.passes.rounds.begin(async move {
            kernel.doubt();
            let interfaces = M::interfaces(kernel.kernel(), &preference).await;
            Round::Looked(kernel, interfaces)
        });
    }

    fn compare(&mut self, mut kernel: Reconciler<M::Kernel>) {
        let planned = self.world.plan();
        let planned = planned.and_then(|plan| Some((self.world.scope(&plan)?, plan)));
        let trouble = self.trouble();
        self.passes.rounds.begin(async move {
            let Some((scope, plan)) = planned else {
                let answer = Err(format!("there is no plan yet: {trouble}"));
                return Round::Compared(kernel, answer);
            };
            let pending = dry_run::pending(kernel.kernel(), &plan, &scope).await;
            Round::Compared(kernel, pending.map_err(|error| error.to_string()))
        });
    }

    /// A round has ended, in one way or another.
    pub(super) fn advance(&mut self, round: Ended<Round<M::Kernel>>) {
        match round {
            Ended::Rested => {}
            Ended::Lapsed(reason) => {
                // what the round had is lost with it
                self.passes.kernel = None;
                self.passes.hints = None;
                self.lapsed(Duty::Reconcile, &reason);
                self.passes.turn_away(&reason);
                self.passes.doubtful = true;
                self.passes.due_at(Instant::now());
                self.conclude(false);
            }
            Ended::Done(Round::Looked(kernel, interfaces)) => {
                self.world.faults.clear(Code::Lapse(Duty::Reconcile));
                self.looked_at(interfaces);
                self.passes.looked = Instant::now();
                self.make(kernel);
            }
            Ended::Done(Round::Made(kernel, mut made)) => {
                self.passes.kernel = Some(kernel);
                self.world.faults.clear(Code::Lapse(Duty::Reconcile));
                let before = made.before.take();
                let report = made.kernel.as_ref().ok();
                let left = report.and_then(|report| self.left_behind(report));
                let complete = self.made(made);
                self.conclude(complete);
                self.answer(left.map(Err).or(before));
            }
            Ended::Done(Round::Compared(kernel, planned)) => {
                self.passes.kernel = Some(kernel);
                for answer in self.passes.planning.drain(..) {
                    // an asker that has gone away is nobody's concern
                    drop(answer.send(planned.clone()));
                }
            }
        }
    }

    fn looked_at(&mut self, interfaces: Result<Interfaces, KernelError>) {
        match interfaces {
            Ok(interfaces) => {
                if self.world.uplink_seen(&interfaces, self.machine.now()) {
                    self.store.reconnect();
                    self.relist.notify_one();
                }
            }
            Err(error) => {
                let fault = Some(error.to_string());
                self.world.faults.note(Code::Uplink, fault);
                self.passes.doubtful = true;
                self.passes.due_at(Instant::now() + RETRY);
            }
        }
    }

    /// Data plane, kernel, files, in this order: the first makes a device that the second sets
    /// up, and the last tells others that all is there.
    fn make(&mut self, mut kernel: Reconciler<M::Kernel>) {
        self.applying = self.reloading;
        self.passes.attending = std::mem::take(&mut self.passes.reconciling);
        if self.world.faults.has(Code::State) {
            self.remember();
        }
        let planned = self.world.plan();
        let planned = planned.and_then(|plan| Some((self.world.scope(&plan)?, plan)));
        // for this pass alone: what becomes of the bridge later is looked at anew
        let claimed = self.passes.attending.iter().find_map(Asker::claim);
        let Some((scope, plan)) = planned else {
            self.passes.plan = None;
            self.passes.peers = Arc::default();
            self.passes.kernel = Some(kernel);
            self.conclude(false);
            self.answer(None);
            return;
        };
        let (scope, plan) = (scope.claiming(claimed), Arc::new(plan));
        self.managers.tell(&plan.footprint);
        self.passes.plan = Some(plan.clone());
        self.passes.peers = Arc::new(self.world.peers(&plan));
        let machine = self.machine.clone();
        let asked = !self.passes.attending.is_empty();
        let mut managers = self.managers.report.clone();
        self.passes.rounds.begin(async move {
            let before = match asked {
                true => Some(dry_run::pending(kernel.kernel(), &plan, &scope).await),
                false => None,
            };
            let before = before.map(|before| before.map_err(|error| error.to_string()));
            let proxy = machine.carry(plan.proxy.as_ref()).map(|began| {
                if began {
                    // its device may be a new one
                    kernel.doubt();
                }
            });
            let report = kernel.converge(&plan.kernel, &scope).await;
            if report.as_ref().is_ok_and(lacks_a_device) {
                // renamed or moved away with the data plane attached: the next go makes another
                drop(machine.carry(None));
            }
            let reached = proxy.is_ok()
                && report
                    .as_ref()
                    .is_ok_and(|report| is_reached(report, &plan));
            let mut files = plan.files.iter().filter(|_| reached);
            let files = files.try_for_each(|(path, text)| machine.write(path, text));
            let mut obsolete = plan.obsolete.iter();
            let files = files
                .and_then(|()| obsolete.try_for_each(|(path, about)| machine.remove(path, *about)));
            if asked && plan.is_empty() {
                // whoever waits for that may stop this service next
                seen(&mut managers, &plan.footprint).await;
            }
            let made = Made {
                before,
                proxy,
                kernel: report,
                files,
            };
            Round::Made(kernel, made)
        });
    }

    fn tell_ready(&self) {
        let status = self.status.borrow();
        tracing::info!(
            message_id = Occasion::Ready.id(),
            network = status.network,
            backend = status.backend,
            subnet = status.subnet,
            interface = status.interface,
            public_ip = status.public_ip.map(tracing::field::display),
            mtu = status.mtu,
            status = self.status_line,
            "ready"
        );
    }

    /// Takes in what was made. Says whether everything is as planned.
    fn conclude(&mut self, complete: bool) {
        // nobody waits for another one: it is looked at when somebody asks for traffic
        self.meter.send_replace(self.machine.meter());
        let passes = &mut self.passes;
        passes.complete = complete;
        passes.ended = Instant::now();
        if self.world.uplink_is_contested() {
            self.passes.doubtful = true;
            self.passes.due_at(Instant::now() + RETRY);
        }
        if !complete && self.passes.plan.is_some() {
            let patience = self.passes.strife.pause().max(RETRY);
            self.passes.due_at(Instant::now() + patience);
        }
        let contested = self.passes.contested();
        self.world.faults.note(Code::Contested, contested);
        // a node that takes no part has nothing that others could start on
        if complete && !self.ready && !self.world.is_withdrawn() {
            self.ready = true;
            self.publish();
            self.machine.tell(Notice::Ready);
            self.tell_ready();
        }
        self.publish();
        if std::mem::take(&mut self.applying) {
            self.reloading = false;
            self.machine.tell(Notice::Ready);
        }
    }

    /// Answers who waited for the pass that is over, if it is complete, with what was to be changed
    /// before it. The status that is published shows it already.
    fn answer(&mut self, outcome: Option<Planned>) {
        let outcome = outcome.filter(|_| self.passes.complete);
        let result = outcome.unwrap_or_else(|| Err(self.trouble()));
        for asker in self.passes.attending.drain(..) {
            asker.answer(result.clone());
        }
    }
}
