//! A cluster without a server: its network and its members are declared, the same on every host,
//! and changed where they are declared. There is nobody to write to.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::datastore::{CONFIG, Datastore, Fence, Outcome, Put, Revision, Snapshot, StoreError};
use super::datastore::{Entry, lease_key};
use super::lease::{Attrs, BackendAttrs, Vtep};
use super::memory::{Memory, MemoryWatch};
use super::network::{Backend, Network};
use super::subnet::Subnet;
use crate::mac::Mac;

/// What is declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roster {
    /// The network config of the cluster.
    pub network: Network,
    /// The nodes by name. No two have a subnet or a public IP in common.
    pub members: BTreeMap<String, Member>,
}

/// A node of a fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its share of the network, for ever.
    pub subnet: Subnet,
    /// Where the others send to.
    pub public_ip: Ipv4Addr,
}

/// A datastore that holds what is declared, and takes no writes. Clones are the same datastore.
#[derive(Debug, Clone)]
pub struct Fleet {
    entries: Memory,
}

/// The Ethernet address of a member's tunnel device. Nobody can tell it to the others, so all
/// compute it, from what all know.
#[must_use]
pub fn vtep_mac(name: &str, vni: u32) -> Mac {
    Mac::derived("flannel-rs fleet ", name, vni)
}

impl Roster {
    /// What a datastore would hold if the members had written it themselves.
    fn entries(&self) -> BTreeMap<String, String> {
        let leases = self.members.iter().map(|(name, member)| {
            let attrs = self.attrs(name, *member);
            (lease_key(member.subnet), attrs.to_json())
        });
        let config = (CONFIG.to_owned(), self.network.to_json());
        leases.chain([config]).collect()
    }

    fn attrs(&self, name: &str, member: Member) -> Attrs {
        Attrs {
            public_ip: member.public_ip,
            public_ipv6: None,
            backend: match &self.network.backend {
                Backend::HostGw => BackendAttrs::HostGw,
                Backend::Udp { .. } => BackendAttrs::Udp,
                Backend::Vxlan(vxlan) => BackendAttrs::Vxlan(Vtep {
                    vni: Some(vxlan.vni),
                    mac: Some(vtep_mac(name, vxlan.vni)),
                }),
            },
        }
    }
}

impl Fleet {
    /// The datastore that holds this.
    #[must_use]
    pub fn new(roster: &Roster) -> Self {
        let fleet = Self {
            entries: Memory::new(),
        };
        fleet.declare(roster);
        fleet
    }

    /// Something else is declared now. Watches are told what has changed.
    pub fn declare(&self, roster: &Roster) {
        self.entries.declare(&roster.entries());
    }
}

fn refused(doing: String) -> StoreError {
    StoreError::Refused {
        doing,
        reason: "the fleet is declared in the config: change [datastore.nodes] and [network] on \
                 all nodes, and reload them"
            .to_owned(),
    }
}

impl Datastore for Fleet {
    type Watch = MemoryWatch;

    fn name(&self) -> String {
        "the fleet declared in the config".to_owned()
    }

    async fn list(&self) -> Result<Snapshot, StoreError> {
        self.entries.list().await
    }

    /// A write of what is there already, as a node writes its own lease at its start, has nothing
    /// to do. Any other is refused.
    async fn put(&self, put: Put<'_>) -> Result<Outcome, StoreError> {
        let entries = self.list().await?.entries;
        let found = entries.iter().find(|entry| entry.key == put.key);
        let holds = match put.fence {
            Fence::Absent => found.is_none(),
            Fence::Unchanged(revision) => found.is_some_and(|entry| entry.revision == revision),
        };
        let same = |entry: &&Entry| entry.value == put.value.as_bytes() && put.ttl.is_none();
        match found.filter(same) {
            _ if !holds => Ok(Outcome::Conflict),
            None => Err(refused(format!("writing {}", put.key))),
            Some(entry) => Ok(Outcome::Stored {
                revision: entry.revision,
                ttl: None,
            }),
        }
    }

    async fn delete(&self, key: &str, _: Revision) -> Result<bool, StoreError> {
        Err(refused(format!("deleting {key}")))
    }

    async fn watch(&self, revision: Revision) -> Result<MemoryWatch, StoreError> {
        self.entries.watch(revision).await
    }
}

#[cfg(test)]
mod tests;
