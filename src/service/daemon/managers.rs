//! What the loop tells others who manage this host's network, and hears of them.

use rand::rngs::StdRng;
use tokio::sync::watch;

use super::{Attendant, Daemon};
use crate::cluster::datastore::Datastore;
use crate::plan::Footprint;
use crate::service::duty::{Duty, Post};
use crate::service::faults::Code;
use crate::service::machine::Machine;
use crate::service::managers::{Report, desk};

/// The duty that looks after them, and both ends of its desk.
pub(super) struct Managers {
    pub(super) post: Post,
    footprint: watch::Sender<Footprint>,
    pub(super) report: watch::Receiver<Report>,
}

impl Managers {
    pub(super) fn new(attendant: Attendant, dice: StdRng) -> Self {
        let (footprint, desk, report) = desk();
        let work = Box::new(move |pulse| attendant(desk.clone(), pulse));
        Self {
            post: Post::new(Duty::Managers, work, dice),
            footprint,
            report,
        }
    }

    /// What they have to know from now on.
    pub(super) fn tell(&self, footprint: &Footprint) {
        self.footprint.send_if_modified(|known| {
            let changed = known != footprint;
            known.clone_from(footprint);
            changed
        });
    }
}

impl<M: Machine, D: Datastore> Daemon<M, D> {
    pub(super) fn see_managers(&mut self) {
        let trouble = self.managers.report.borrow_and_update().trouble.clone();
        self.world.faults.note(Code::ForeignManager, trouble);
        self.publish();
    }
}
