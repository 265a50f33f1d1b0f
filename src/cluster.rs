//! What the cluster agreed on: the network, the leases, and the datastore that keeps them.
//!
//! Owns the formats shared with flanneld (keys, values, network config) and the rules for
//! taking, keeping and losing a lease. Knows nothing of the kernel or of any backend's data path.

pub mod acquire;
pub mod allocate;
pub mod datastore;
pub mod etcd;
pub mod fleet;
mod json;
pub mod lease;
pub mod local;
pub mod memory;
pub mod network;
pub mod subnet;
pub mod view;
