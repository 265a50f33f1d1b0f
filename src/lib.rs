//! An overlay network for container hosts: each machine leases a subnet, and the subnets reach
//! each other over `host-gw`, `vxlan` or `udp`.
//!
//! ```text
//! config.toml ─> Config ─────────┐                       datastore
//!                                v                           │ entries
//! interfaces ──> Uplink ───> [plan] <── lease, network <── [cluster] View
//!                                │  Plan { kernel, proxy, files, paths }
//!                ┌───────────────┼───────────────┐
//!                v               v               v
//! [kernel] observe, diff,   [proxy] table    files      [service] the loop ─> Status
//!          apply
//! ```
//!
//! [`plan::plan`] is where leases become routes; [`kernel::reconcile::Reconciler`] is where routes
//! become true; [`service::daemon`] is the loop around both. `cluster`, `kernel` and `proxy`
//! do not know each other. `docs/architecture.md` says more.

pub mod cli;
pub mod cluster;
pub mod config;
pub mod doctor;
pub mod kernel;
pub mod mac;
pub mod plan;
pub mod proxy;
pub mod service;
