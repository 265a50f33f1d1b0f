//! One contract, kept by all datastores that take writes; and what each can do wrong by itself.

#[cfg(test)]
#[path = "datastore/contract.rs"]
mod contract;
#[cfg(test)]
#[path = "datastore/etcd.rs"]
mod etcd;
#[cfg(test)]
#[path = "datastore/etcd_access.rs"]
mod etcd_access;
#[cfg(test)]
#[path = "datastore/etcd_faults.rs"]
mod etcd_faults;
#[cfg(test)]
#[path = "datastore/fleet.rs"]
mod fleet;
#[cfg(test)]
#[path = "datastore/local.rs"]
mod local;
#[cfg(test)]
#[path = "datastore/memory.rs"]
mod memory;
mod support;
