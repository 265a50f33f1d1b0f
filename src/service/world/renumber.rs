//! The node moves to another subnet: only when asked to, as containers live in the one it has.

use ipnet::Ipv4Net;

use super::{Task, World};
use crate::cluster::acquire::{AcquireError, Held};
use crate::cluster::allocate::Goal;
use crate::cluster::lease::Lease;
use crate::cluster::network::Network;
use crate::cluster::subnet::Subnet;
use crate::service::clock::Moment;
use crate::service::faults::Code;
use crate::service::journal::Occasion;
use crate::service::status::RenumberError;

/// A move under way.
#[derive(Debug, Clone)]
pub(super) struct Move {
    /// The network to be in: that of the config in the datastore.
    network: Network,
    goal: Goal,
}

impl World {
    /// Somebody asks for another subnet: for this one, or for what the faults call for: a place in
    /// the network of the new config, the one that the host config or a reservation names, or any
    /// but the one that somebody else has taken. A [`Task`] follows, and its end by
    /// [`World::renumbered`]; until then all stays.
    ///
    /// # Errors
    /// [`RenumberError`].
    pub(in crate::service) fn renumber(
        &mut self,
        asked: Option<Subnet>,
    ) -> Result<(), RenumberError> {
        if self.moving.is_some() {
            return Err(RenumberError::UnderWay);
        }
        if self.releasing || self.is_withdrawn() {
            return Err(RenumberError::Failed(
                "this node has withdrawn from the network; to have it take part again: systemctl \
                 reload flannel-rs"
                    .to_owned(),
            ));
        }
        let own = self.subnet().ok_or(RenumberError::NoLease)?;
        self.may_be_renumbered(asked)?;
        let network = self.refused.as_ref().or(self.network.as_ref());
        let network = network.cloned().ok_or(RenumberError::NoLease)?;
        let must_go = self.refused.is_some() || self.taken_by.is_some();
        let named = self.reservation().map(|reserved| reserved.lease.subnet);
        let named = named.or(self.config.node.subnet).filter(|to| *to != own);
        let fitting = named.filter(|to| network.allows(*to));
        let goal = match (asked, named) {
            (Some(asked), _) => Goal::Exactly(asked),
            (None, _) if must_go => fitting.map_or(Goal::Any, Goal::Rather),
            (None, Some(named)) => Goal::Exactly(named),
            (None, None) => return Err(RenumberError::NothingToRenumber(own)),
        };
        if let Goal::Exactly(subnet) = goal {
            self.may_go(subnet, &network)?;
        }
        self.moving = Some(Move { network, goal });
        Ok(())
    }

    fn may_go(&self, subnet: Subnet, network: &Network) -> Result<(), RenumberError> {
        if self.subnet() == Some(subnet) && self.taken_by.is_none() {
            return Err(RenumberError::NothingToRenumber(subnet));
        }
        if !network.allows(subnet) {
            let network = Box::new(network.clone());
            return Err(RenumberError::OutsideNetwork { subnet, network });
        }
        let public_ip = self.attrs().map(|attrs| attrs.public_ip);
        let holder = |taken: Subnet| {
            let record = self.view.record(taken);
            record.map(|record| record.lease.attrs.public_ip)
        };
        let mut taken = self.view.taken().filter(|taken| taken.overlaps(subnet));
        let other = taken.find(|taken| *taken != subnet || holder(*taken) != public_ip);
        other.map_or(Ok(()), |other| {
            let holder = holder(other);
            Err(RenumberError::SubnetTaken { subnet, holder })
        })
    }

    pub(super) fn moving_duty(&self) -> Option<Task> {
        let (going, tenure) = (self.moving.as_ref()?, self.tenure.as_ref()?);
        let attrs = self.attrs_in(&going.network)?;
        let network = going.network.clone();
        Some(Task::Renumber(
            network,
            tenure.held.clone(),
            going.goal,
            attrs,
        ))
    }

    /// The move came to its end. One that failed is not tried again: who asked for it is told.
    ///
    /// # Errors
    /// [`RenumberError`]; the node has the subnet that it had.
    pub(in crate::service) fn renumbered(
        &mut self,
        result: Result<Held, AcquireError>,
        since: Moment,
    ) -> Result<Subnet, RenumberError> {
        let going = self.moving.take();
        let held = result.map_err(|error| match error {
            AcquireError::Occupied(subnet, holder) => RenumberError::SubnetTaken { subnet, holder },
            AcquireError::Store(_) | AcquireError::Exhausted { .. } | AcquireError::Contended => {
                RenumberError::Failed(error.to_string())
            }
        })?;
        let subnet = held.lease.subnet;
        tracing::info!(
            message_id = Occasion::Renumbered.id(),
            subnet = %subnet,
            former = self.subnet().map(tracing::field::display),
            revision = %held.revision,
            "renumbered"
        );
        self.network = going.map(|going| going.network).or(self.network.take());
        for code in [Code::SubnetConflict, Code::OtherSubnet] {
            self.faults.clear(code);
        }
        self.left = self.subnet();
        self.hold(held, since);
        self.config_seen();
        Ok(subnet)
    }

    /// The subnet before this one. After a restart in the middle of a move `subnet.env` tells, as
    /// it is written last.
    pub(super) fn former(&self) -> Option<Ipv4Net> {
        let former = self.left.or(self.identity.previous);
        let former = former.filter(|former| Some(*former) != self.subnet());
        former.map(Subnet::v4)
    }

    /// Whether a lease is a trace of a move: the next of our own, or the one before.
    pub(super) fn is_of_a_move(&self, lease: &Lease) -> bool {
        let uplink = self.uplink.as_ref();
        let ours = uplink.is_some_and(|uplink| uplink.public_ip == lease.attrs.public_ip);
        let traced = self.moving.is_some() || self.left == Some(lease.subnet);
        // a move that is declared, but not asked for yet
        ours && (traced || self.is_declared())
    }
}
