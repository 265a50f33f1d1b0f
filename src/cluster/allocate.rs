//! Which subnet to take. Pure: the cluster as seen, the wish and the dice come from outside.

use std::net::Ipv4Addr;

use rand::{Rng, RngExt};

use super::datastore::Revision;
use super::network::Network;
use super::subnet::Subnet;
use super::view::{Record, View};

/// How many free subnets the dice choose from, as in flanneld: few enough to stay in the low
/// part of the network, many enough that nodes that start together rarely meet.
const CANDIDATES: usize = 100;

/// What a node brings when it asks for a subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The address that it would write into the lease.
    pub public_ip: Ipv4Addr,
    /// The lease that it wrote last, from its state folder.
    pub last: Option<Written>,
    /// The subnet that it had before, from `subnet.env`: a take-over from flanneld.
    pub previous: Option<Subnet>,
    /// The subnet that its config asks for.
    pub asked: Option<Subnet>,
}

/// A lease entry that this node has written, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The subnet.
    pub subnet: Subnet,
    /// The revision of that write.
    pub revision: Revision,
    /// The public IP that was written.
    pub public_ip: Ipv4Addr,
}

/// What to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// This lease is the node's own: write it anew.
    Keep(Record),
    /// This lease is the node's own, but the network has no place for it any more: delete it.
    Discard(Record),
    /// Nobody has this subnet: create it.
    Take(Subnet),
    /// Somebody has this subnet, and no other will do.
    Occupied(Subnet),
    /// Every subnet is taken.
    Exhausted,
}

/// Where a node goes that gives up the subnet it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// To this subnet and no other.
    Exactly(Subnet),
    /// To this one if it can be had, else to any.
    Rather(Subnet),
    /// To any.
    Any,
}

impl Wish {
    /// Whether a lease in the datastore is this node's: nobody has written it since we did, or
    /// it names our address, which is flannel's notion of identity.
    #[must_use]
    pub fn owns(&self, record: &Record) -> bool {
        let written = Written {
            subnet: record.lease.subnet,
            revision: record.revision,
            public_ip: record.lease.attrs.public_ip,
        };
        self.last == Some(written) || record.lease.attrs.public_ip == self.public_ip
    }

    /// The own leases in the datastore, the one that was written last first.
    fn own<'a>(&self, view: &'a View) -> impl Iterator<Item = &'a Record> + use<'a, '_> {
        let last = self.last.and_then(|last| view.record(last.subnet));
        last.into_iter()
            .chain(view.records())
            .filter(|record| self.owns(record))
    }
}

/// Chooses in the order own, previous, asked for, free.
pub fn choose(network: &Network, view: &View, wish: &Wish, dice: &mut impl Rng) -> Choice {
    let fits = |own: &&Record| network.allows(own.lease.subnet);
    if let Some(own) = wish.own(view).find(fits) {
        return Choice::Keep(own.clone());
    }
    // a reservation is the administrator's to delete
    if let Some(own) = wish.own(view).find(|own| !own.reserved) {
        return Choice::Discard(own.clone());
    }
    let remembered = [wish.last.map(|last| last.subnet), wish.previous, wish.asked];
    let free = |subnet: &Subnet| {
        network.allows(*subnet) && !taken(network, view).any(|taken| taken.overlaps(*subnet))
    };
    if let Some(subnet) = remembered.into_iter().flatten().find(free) {
        return Choice::Take(subnet);
    }
    any_free(network, view, dice)
}

/// Chooses for a node with this address that gives up the subnet it has.
pub fn choose_other(
    network: &Network,
    view: &View,
    public_ip: Ipv4Addr,
    goal: Goal,
    dice: &mut impl Rng,
) -> Choice {
    let (Goal::Exactly(subnet) | Goal::Rather(subnet)) = goal else {
        return any_free(network, view, dice);
    };
    let own = view.record(subnet);
    if let Some(own) = own.filter(|own| own.lease.attrs.public_ip == public_ip) {
        return Choice::Keep(own.clone());
    }
    let free = !taken(network, view).any(|taken| taken.overlaps(subnet));
    match goal {
        _ if free && network.allows(subnet) => Choice::Take(subnet),
        Goal::Exactly(subnet) => Choice::Occupied(subnet),
        Goal::Rather(_) | Goal::Any => any_free(network, view, dice),
    }
}

fn any_free(network: &Network, view: &View, dice: &mut impl Rng) -> Choice {
    let candidates: Vec<Subnet> = free_subnets(network, view).take(CANDIDATES).collect();
    match candidates.len() {
        0 => Choice::Exhausted,
        n => Choice::Take(candidates[dice.random_range(0..n)]),
    }
}

/// What somebody holds of the network. An entry that reaches beyond it, such as `0.0.0.0-0`, is
/// nobody's share of it, and must not keep everybody out.
fn taken(network: &Network, view: &View) -> impl Iterator<Item = Subnet> {
    let whole = network.net;
    view.taken()
        .filter(move |subnet| whole.contains(&subnet.v4()))
}

/// The subnets of the network that overlap no lease, in order.
fn free_subnets(network: &Network, view: &View) -> impl Iterator<Item = Subnet> + use<> {
    let range = |subnet: Subnet| {
        let net = subnet.v4();
        (u32::from(net.network()), u32::from(net.broadcast()))
    };
    let mut taken: Vec<(u32, u32)> = taken(network, view).map(range).collect();
    taken.sort_unstable();
    let mut taken = taken.into_iter().peekable();
    let mut blocked_to = None;
    network.subnets().filter(move |subnet| {
        let (first, last) = range(*subnet);
        while let Some((_, end)) = taken.next_if(|(start, _)| *start <= last) {
            blocked_to = blocked_to.max(Some(end));
        }
        blocked_to < Some(first)
    })
}

#[cfg(test)]
mod tests;
