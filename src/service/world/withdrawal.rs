//! The node takes no part in the network any more, because it was asked to. It goes on watching,
//! so that its status stays true and it can take part again at once.

use std::mem;

use super::{Task, Tenure, World};
use crate::cluster::acquire::AcquireError;
use crate::cluster::subnet::Subnet;
use crate::service::cleanup::Remains;
use crate::service::clock::Moment;
use crate::service::faults::Code;
use crate::service::journal::Occasion;

/// What may be wrong with a node that takes part, and is nothing to one that does not.
const OF_A_MEMBER: [Code; 7] = [
    Code::Lease,
    Code::LeaseExpired,
    Code::SubnetConflict,
    Code::OtherSubnet,
    Code::RenumberRequired,
    Code::Backend,
    Code::Peers,
];

impl World {
    /// Whether the node takes no part.
    pub(in crate::service) const fn is_withdrawn(&self) -> bool {
        self.withdrawn.is_some()
    }

    /// Whether the own lease is being given back.
    pub(in crate::service) const fn is_releasing(&self) -> bool {
        self.releasing
    }

    /// Somebody asks to give the lease back and to withdraw. A [`Task`] follows, and its end by
    /// [`World::released`]; until then all stays. With a reservation, which is the administrator's
    /// to delete, the node withdraws at once: the answer is its subnet then.
    ///
    /// # Errors
    /// In a text for people; nothing has changed.
    pub(in crate::service) fn release(&mut self) -> Result<Option<Subnet>, String> {
        self.may_withdraw()?;
        let Some(tenure) = &self.tenure else {
            return Err(match self.is_withdrawn() {
                true => "this node has withdrawn already, and holds no lease",
                false => "this node holds no lease yet",
            }
            .to_owned());
        };
        let (subnet, reserved) = (tenure.held.lease.subnet, tenure.held.ttl.is_none());
        if reserved && self.is_withdrawn() {
            return Err(format!(
                "this node has withdrawn already; {subnet} is reserved for it, and the \
                 reservation is the administrator's to delete"
            ));
        }
        if !reserved {
            self.releasing = true;
            return Ok(None);
        }
        self.withdraw()?;
        tracing::info!(%subnet, "the reservation stays; it is the administrator's to delete");
        Ok(Some(subnet))
    }

    /// Somebody asks to remove all that is ours from this host. The lease stays until it runs out.
    ///
    /// # Errors
    /// In a text for people; nothing has changed.
    pub(in crate::service) fn withdraw(&mut self) -> Result<(), String> {
        self.may_withdraw()?;
        if !self.is_withdrawn() {
            self.leave();
        }
        Ok(())
    }

    fn may_withdraw(&self) -> Result<(), String> {
        if self.releasing {
            return Err("this node's lease is being given back already".to_owned());
        }
        if self.moving.is_some() {
            let text = "this node is being renumbered; try again once that is done";
            return Err(text.to_owned());
        }
        Ok(())
    }

    pub(super) fn releasing_duty(&self) -> Option<Task> {
        let tenure = self.tenure.as_ref().filter(|_| self.releasing)?;
        let held = self.fenced(&tenure.held);
        let attrs = self.attrs().unwrap_or_else(|| held.lease.attrs.clone());
        Some(Task::Release(held, attrs))
    }

    /// The lease was given back, or not. Says which subnet it was.
    ///
    /// # Errors
    /// In a text for people; the node goes on as before.
    pub(in crate::service) fn released(
        &mut self,
        result: Result<bool, AcquireError>,
    ) -> Result<Subnet, String> {
        self.releasing = false;
        let was_there = result.map_err(|error| error.to_string())?;
        let subnet = self.subnet().ok_or("this node holds no lease")?;
        let message_id = Occasion::LeaseReleased.id();
        tracing::info!(message_id, %subnet, was_there, "lease given back");
        if !self.is_withdrawn() {
            self.leave();
        }
        self.forget_lease();
        Ok(subnet)
    }

    /// It cannot be told what became of the lease: the node goes on as before, and finds out.
    pub(in crate::service) const fn release_failed(&mut self) {
        self.releasing = false;
    }

    /// What to say of a service that stops: what stays without it.
    pub(in crate::service) const fn farewell(&self) -> &'static str {
        match (&self.withdrawn, &self.tenure) {
            (None, _) => "stopping; the lease and the data path stay",
            (Some(_), Some(_)) => "stopping; withdrawn from the network, and the lease stays",
            (Some(_), None) => "stopping; withdrawn from the network, without a lease",
        }
    }

    fn leave(&mut self) {
        let network = self.network.as_ref().map(|network| network.net);
        let subnet = self.subnet().or_else(|| self.identity.left_behind());
        let nets = [network, self.former()];
        let mut remains = Remains::new(&self.config, subnet, nets);
        remains.plan.obsolete.extend(self.abandoned.clone());
        self.withdrawn = Some(remains);
        self.clear_a_members_faults();
        tracing::warn!(
            message_id = Occasion::Withdrawn.id(),
            subnet = subnet.map(tracing::field::display),
            "withdrawn from the network; a reload or a restart brings this node back"
        );
    }

    /// The lease is not ours any more. Its subnet is the first that is asked for again.
    fn forget_lease(&mut self) {
        if let Some(written) = self.written() {
            self.identity.last = Some(written);
            self.identity.previous = Some(written.subnet);
        }
        self.tenure = None;
        self.taken_by = None;
        self.contest = super::Contest::default();
    }

    /// The withdrawal is over. A lease that is as it was left goes on; any other is looked for
    /// anew, as nobody uses its subnet yet.
    pub(super) fn take_part(&mut self) {
        if mem::take(&mut self.withdrawn).is_none() {
            return;
        }
        let network = self.network.as_ref();
        let fits = |tenure: &Tenure| {
            let subnet = tenure.held.lease.subnet;
            // the list may give it to another meanwhile
            let is_given = !self.is_declared() || self.config.node.subnet == Some(subnet);
            let has_place = network.is_none_or(|network| network.allows(subnet));
            !tenure.disturbed && is_given && has_place
        };
        if !self.releasing && !self.tenure.as_ref().is_some_and(fits) {
            self.forget_lease();
        }
        tracing::info!("taking part in the network again");
    }

    /// Time has passed for a node that takes no part: it lets its lease run out.
    pub(super) fn aged_apart(&mut self, now: Moment) {
        self.clear_a_members_faults();
        let left = self.tenure.as_ref().and_then(|tenure| tenure.left(now));
        if !self.releasing && left.is_some_and(|left| left.is_zero()) {
            self.forget_lease();
        }
    }

    fn clear_a_members_faults(&mut self) {
        for code in OF_A_MEMBER {
            self.faults.clear(code);
        }
    }
}
