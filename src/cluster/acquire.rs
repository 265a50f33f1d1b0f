//! Taking, renewing and defending the own lease. Every write is fenced: none can take a subnet
//! that another node has.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use super::allocate::{self, Choice, Goal, Wish, Written};
use super::datastore::{Datastore, Fence, Outcome, Put, Revision, StoreError, lease_key};
use super::lease::{Attrs, Lease};
use super::network::Network;
use super::subnet::Subnet;
use super::view::{Record, View};

/// How often a lost race is run again before saying so; flanneld tries ten times too.
const ROUNDS: u32 = 10;

/// The own lease, as last written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// What was written.
    pub lease: Lease,
    /// When, in the datastore's count.
    pub revision: Revision,
    /// How long it lives from that write; `None` for a reservation.
    pub ttl: Option<Duration>,
}

/// What a claim to a subnet came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The lease is ours, and was as we had left it.
    Held(Held),
    /// The lease is ours again: it was gone, or somebody else had written it.
    Retaken(Held),
    /// Somebody else has the subnet.
    Taken(Lease),
}

/// No lease could be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AcquireError {
    /// The datastore failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Every subnet is taken.
    #[error(
        "no free subnet: all /{} subnets from {} to {} are leased{holders}; release leases of \
         nodes that are gone, or widen the network",
        network.subnet_len, network.first, network.last
    )]
    Exhausted {
        /// The network.
        network: Box<Network>,
        /// Who has them.
        holders: Holders,
    },
    /// Somebody has the subnet that was asked for.
    #[error("{} is taken{}", .0, by(.1.as_ref()))]
    Occupied(Subnet, Option<Ipv4Addr>),
    /// Other nodes were faster, each time.
    #[error("lost the race for a subnet {ROUNDS} times; trying again")]
    Contended,
}

/// What can be said of those who hold all subnets of a network: when they will go is not in a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holders {
    leases: usize,
    reservations: usize,
    unreadable: usize,
    /// The lease that was written longest ago: every living node writes its own once a day.
    oldest: Option<Lease>,
}

impl Holders {
    fn of(network: &Network, view: &View) -> Self {
        let inside = |subnet: Subnet| network.net.contains(&subnet.v4());
        let records = || view.records().filter(|record| inside(record.lease.subnet));
        let expiring = records().filter(|record| !record.reserved);
        let oldest = expiring.min_by_key(|record| record.revision);
        let leases = records().count();
        Self {
            leases,
            reservations: records().filter(|record| record.reserved).count(),
            unreadable: view.taken().filter(|taken| inside(*taken)).count() - leases,
            oldest: oldest.map(|record| record.lease.clone()),
        }
    }
}

impl fmt::Display for Holders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " ({} leases", self.leases)?;
        if self.reservations > 0 {
            write!(
                f,
                ", {} of them reservations that never expire",
                self.reservations
            )?;
        }
        if self.unreadable > 0 {
            write!(f, ", {} more unreadable", self.unreadable)?;
        }
        if let Some(oldest) = &self.oldest {
            let (subnet, holder) = (oldest.subnet, oldest.attrs.public_ip);
            write!(f, ", longest not renewed {subnet} of {holder}")?;
        }
        write!(f, ")")
    }
}

fn by(holder: Option<&Ipv4Addr>) -> String {
    holder.map_or_else(String::new, |holder| format!(" by {holder}"))
}

impl Held {
    /// What identifies this write later.
    #[must_use]
    pub const fn written(&self) -> Written {
        Written {
            subnet: self.lease.subnet,
            revision: self.revision,
            public_ip: self.lease.attrs.public_ip,
        }
    }
}

/// One who takes and defends a node's lease.
#[derive(Debug)]
pub struct Claimant<'a, D> {
    store: &'a D,
    ttl: Duration,
    dice: StdRng,
}

impl<'a, D: Datastore> Claimant<'a, D> {
    /// Leases that it writes live for `ttl`; the dice choose among free subnets and spread
    /// races.
    #[must_use]
    pub const fn new(store: &'a D, ttl: Duration, dice: StdRng) -> Self {
        Self { store, ttl, dice }
    }

    /// Takes a subnet: lists, chooses, writes, and starts again if somebody was faster.
    ///
    /// `attrs` makes what the lease will say from what the own lease says so far.
    ///
    /// # Errors
    /// [`AcquireError`]; nothing is held then, except that a write whose answer was lost may have
    /// happened, which the next call finds out.
    pub async fn acquire(
        &mut self,
        network: &Network,
        wish: &Wish,
        attrs: impl Fn(Option<&Record>) -> Attrs,
    ) -> Result<Held, AcquireError> {
        for round in 0..ROUNDS {
            self.pause(round).await;
            let view = list(self.store).await?;
            let choice = allocate::choose(network, &view, wish, &mut self.dice);
            if let Choice::Discard(own) = &choice {
                let key = lease_key(own.lease.subnet);
                self.store.delete(&key, own.revision).await?;
                continue;
            }
            let (subnet, own) = target(choice, network, &view)?;
            let attrs = attrs(own.as_ref());
            let lease = Lease { subnet, attrs };
            if let Some(held) = self.take(&lease, own.as_ref()).await? {
                return Ok(held);
            }
        }
        Err(AcquireError::Contended)
    }

    /// Takes another subnet, and then gives `leaving` back if it is still ours to give. A reservation
    /// stays: it is the administrator's to delete. So does a lease that cannot be deleted right now,
    /// until it expires.
    ///
    /// # Errors
    /// [`AcquireError`]; `leaving` is still held then.
    pub async fn renumber(
        &mut self,
        network: &Network,
        leaving: &Held,
        goal: Goal,
        attrs: Attrs,
    ) -> Result<Held, AcquireError> {
        for round in 0..ROUNDS {
            self.pause(round).await;
            let view = list(self.store).await?;
            let ip = attrs.public_ip;
            let choice = allocate::choose_other(network, &view, ip, goal, &mut self.dice);
            let (subnet, own) = target(choice, network, &view)?;
            let attrs = attrs.clone();
            let lease = Lease { subnet, attrs };
            if let Some(held) = self.take(&lease, own.as_ref()).await? {
                if leaving.ttl.is_some() && leaving.lease.subnet != subnet {
                    let _ = release(self.store, leaving).await;
                }
                return Ok(held);
            }
        }
        Err(AcquireError::Contended)
    }

    /// Writes the held lease anew with `attrs`, as it must be before it expires.
    ///
    /// If the entry is not as we left it, looks again: a deleted, expired or unreadable entry is
    /// written once more, one that names our address is taken over, one of somebody else is left
    /// alone. At revision 0, where nobody knows how we left it, what says the same is as we left it.
    ///
    /// # Errors
    /// [`AcquireError`]; the lease is still held until its time is up.
    pub async fn renew(&mut self, held: &Held, attrs: Attrs) -> Result<Claim, AcquireError> {
        let subnet = held.lease.subnet;
        let lease = Lease { subnet, attrs };
        let mut fence = Fence::Unchanged(held.revision);
        let mut lives = held.ttl.map(|_| self.ttl);
        let mut is_as_left = true;
        for _ in 0..ROUNDS {
            if let Some(held) = write(self.store, &lease, fence, lives).await? {
                return Ok(match is_as_left {
                    true => Claim::Held(held),
                    false => Claim::Retaken(held),
                });
            }
            let view = list(self.store).await?;
            // the address of before may be another's by now, with a tunnel of its own
            let former = &held.lease.attrs;
            let ours = |record: &Record| {
                let found = &record.lease.attrs;
                let is_former = found.public_ip == former.public_ip;
                found.public_ip == lease.attrs.public_ip
                    || is_former && found.backend == former.backend
            };
            // parts of it, and its other spelling: `10.5.1.0-24` and `10.5.1.0-24&…` are two keys for
            // one IPv4 subnet (flannel trap T15)
            let within = || {
                let inside = |record: &&Record| subnet.v4().contains(&record.lease.subnet.v4());
                view.records().find(inside)
            };
            match view.record(subnet).or_else(within) {
                Some(record) if record.lease.subnet == subnet && ours(record) => {
                    fence = Fence::Unchanged(record.revision);
                    lives = Some(self.ttl).filter(|_| !record.reserved);
                    let unknown = held.revision == Revision::default();
                    is_as_left &= unknown && record.lease == held.lease;
                }
                Some(other) => return Ok(Claim::Taken(other.lease.clone())),
                None => {
                    is_as_left = false;
                    let unreadable = view.garbage().get(&lease_key(subnet));
                    fence =
                        unreadable.map_or(Fence::Absent, |entry| Fence::Unchanged(entry.revision));
                    // a reservation that was deleted is none any more
                    lives = Some(self.ttl);
                }
            }
        }
        Err(AcquireError::Contended)
    }

    /// Gives the held lease back. One that was written anew by a call whose answer was lost says the
    /// same as the held one, or `attrs`, and is ours as well. A reservation stays: it is the
    /// administrator's to delete. A delete without an answer is looked after once. Says whether there
    /// was anything to give back.
    ///
    /// # Errors
    /// [`AcquireError`]; the lease may or may not be gone.
    pub async fn release(&mut self, held: &Held, attrs: &Attrs) -> Result<bool, AcquireError> {
        let mut fence = held.revision;
        for round in 0..ROUNDS {
            self.pause(round).await;
            let key = lease_key(held.lease.subnet);
            let lost = match self.store.delete(&key, fence).await {
                Ok(true) => return Ok(true),
                Ok(false) => None,
                // it may have happened all the same
                Err(error) => Some(error),
            };
            let view = match (list(self.store).await, &lost) {
                (Ok(view), _) => view,
                (Err(_), Some(lost)) => return Err(lost.clone().into()),
                (Err(error), None) => return Err(error.into()),
            };
            let ours = |record: &&Record| {
                let found = &record.lease.attrs;
                !record.reserved && (*found == held.lease.attrs || found == attrs)
            };
            match (view.record(held.lease.subnet).filter(ours), lost) {
                (Some(_), Some(lost)) => return Err(lost.into()),
                (Some(record), None) => fence = record.revision,
                (None, lost) => return Ok(lost.is_some()),
            }
        }
        Err(AcquireError::Contended)
    }

    async fn pause(&mut self, round: u32) {
        if round > 0 {
            let pause = self.dice.random_range(5..50);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Writes a lease where there is none, or over the own entry. `None` if somebody was faster.
    async fn take(
        &self,
        lease: &Lease,
        own: Option<&Record>,
    ) -> Result<Option<Held>, AcquireError> {
        let fence = own.map_or(Fence::Absent, |own| Fence::Unchanged(own.revision));
        // a reservation stays one (flannel facts §2.8)
        let ttl = own.is_none_or(|own| !own.reserved).then_some(self.ttl);
        Ok(write(self.store, lease, fence, ttl).await?)
    }
}

/// The subnet to write, and the own entry that is there already.
fn target(
    choice: Choice,
    network: &Network,
    view: &View,
) -> Result<(Subnet, Option<Record>), AcquireError> {
    match choice {
        Choice::Keep(own) | Choice::Discard(own) => Ok((own.lease.subnet, Some(own))),
        Choice::Take(subnet) => Ok((subnet, None)),
        Choice::Occupied(subnet) => {
            let mut records = view.records();
            let holder = records.find(|record| record.lease.subnet.overlaps(subnet));
            let holder = holder.map(|record| record.lease.attrs.public_ip);
            Err(AcquireError::Occupied(subnet, holder))
        }
        Choice::Exhausted => Err(AcquireError::exhausted(network, view)),
    }
}

impl AcquireError {
    /// Every subnet of the network is taken.
    #[must_use]
    pub fn exhausted(network: &Network, view: &View) -> Self {
        Self::Exhausted {
            network: Box::new(network.clone()),
            holders: Holders::of(network, view),
        }
    }
}

/// Gives the held lease back. Says whether it was still ours to give.
///
/// # Errors
/// [`StoreError`]; the lease may or may not be gone.
pub async fn release<D: Datastore>(store: &D, held: &Held) -> Result<bool, StoreError> {
    store
        .delete(&lease_key(held.lease.subnet), held.revision)
        .await
}

async fn list<D: Datastore>(store: &D) -> Result<View, StoreError> {
    let mut view = View::default();
    view.replace(store.list().await?);
    Ok(view)
}

/// One fenced write; `None` when the fence did not hold.
async fn write<D: Datastore>(
    store: &D,
    lease: &Lease,
    fence: Fence,
    ttl: Option<Duration>,
) -> Result<Option<Held>, StoreError> {
    let (key, value) = (lease_key(lease.subnet), lease.attrs.to_json());
    let put = Put {
        key: &key,
        value: &value,
        fence,
        ttl,
    };
    Ok(match store.put(put).await? {
        Outcome::Stored { revision, ttl } => Some(Held {
            lease: lease.clone(),
            revision,
            ttl,
        }),
        Outcome::Conflict => None,
    })
}

#[cfg(test)]
mod tests;
