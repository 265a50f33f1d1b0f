//! Taking, renewing and defending the own lease. Every write is fenced: none can take a subnet
//! that another node has.

use std::time::Duration;

use rand::RngExt;

use super::allocate::{self, Choice, Wish, Written};
use super::datastore::{Datastore, Fence, Outcome, Put, Revision, StoreError, lease_key};
use super::lease::{Attrs, Lease};
use super::network::Network;
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
        "no free subnet: all /{} subnets from {} to {} are leased; release leases of nodes that \
         are gone, or widen the network",
        .0.subnet_len, .0.first, .0.last
    )]
    Exhausted(Network),
    /// Other nodes were faster, each time.
    #[error("lost the race for a subnet {ROUNDS} times; trying again")]
    Contended,
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

/// Takes a subnet: lists, chooses, writes, and starts again if somebody was faster.
///
/// `attrs` makes what the lease will say from what the own lease says so far.
///
/// # Errors
/// [`AcquireError`]; nothing is held then, except that a write whose answer was lost may have
/// happened, which the next call finds out.
pub async fn acquire<D: Datastore>(
    store: &D,
    network: &Network,
    wish: &Wish,
    attrs: impl Fn(Option<&Record>) -> Attrs,
    ttl: Duration,
) -> Result<Held, AcquireError> {
    for round in 0..ROUNDS {
        if round > 0 {
            let pause = rand::rng().random_range(5..50);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        let view = list(store).await?;
        let (subnet, own) = match choose(network, &view, wish) {
            Choice::Keep(own) => (own.lease.subnet, Some(own)),
            Choice::Take(subnet) => (subnet, None),
            Choice::Discard(own) => {
                store
                    .delete(&lease_key(own.lease.subnet), own.revision)
                    .await?;
                continue;
            }
            Choice::Exhausted => return Err(AcquireError::Exhausted(network.clone())),
        };
        let lease = Lease {
            subnet,
            attrs: attrs(own.as_ref()),
        };
        let fence = own
            .as_ref()
            .map_or(Fence::Absent, |own| Fence::Unchanged(own.revision));
        // a reservation stays one (flannel facts §2.8)
        let ttl = own.is_none_or(|own| !own.reserved).then_some(ttl);
        if let Some(held) = write(store, &lease, fence, ttl).await? {
            return Ok(held);
        }
    }
    Err(AcquireError::Contended)
}

/// Writes the held lease anew with `attrs`, as it must be before it expires.
///
/// If the entry is not as we left it, looks again: a deleted, expired or unreadable entry is
/// written once more, one that names our address is taken over, one of somebody else is left
/// alone.
///
/// # Errors
/// [`AcquireError`]; the lease is still held until its time is up.
pub async fn renew<D: Datastore>(
    store: &D,
    held: &Held,
    attrs: Attrs,
    ttl: Duration,
) -> Result<Claim, AcquireError> {
    let subnet = held.lease.subnet;
    let lease = Lease { subnet, attrs };
    let mut fence = Fence::Unchanged(held.revision);
    let mut lives = held.ttl.map(|_| ttl);
    for round in 0..ROUNDS {
        if let Some(held) = write(store, &lease, fence, lives).await? {
            return Ok(match round {
                0 => Claim::Held(held),
                _ => Claim::Retaken(held),
            });
        }
        let view = list(store).await?;
        let ours = |record: &Record| {
            let holder = record.lease.attrs.public_ip;
            holder == lease.attrs.public_ip || holder == held.lease.attrs.public_ip
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
                lives = Some(ttl).filter(|_| !record.reserved);
            }
            Some(other) => return Ok(Claim::Taken(other.lease.clone())),
            None => {
                let unreadable = view.garbage().get(&lease_key(subnet));
                fence = unreadable.map_or(Fence::Absent, |entry| Fence::Unchanged(entry.revision));
                // a reservation that was deleted is none any more
                lives = Some(ttl);
            }
        }
    }
    Err(AcquireError::Contended)
}

/// The dice must not be held over an await: they belong to a thread.
fn choose(network: &Network, view: &View, wish: &Wish) -> Choice {
    allocate::choose(network, view, wish, &mut rand::rng())
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
