//! The kernel's network state: what is there, what should be, and the way from one to the other.
//!
//! `KernelState` is both the desired and the observed state. Ownership is written in the kernel,
//! never remembered: links that carry the alias [`state::ALIAS`], everything on them, and routes
//! of protocol [`state::PROTOCOL`] elsewhere. Nothing else is ever deleted.

pub mod decode;
pub mod diff;
pub mod encode;
#[cfg(test)]
mod fake;
pub mod netlink;
pub mod reconcile;
pub mod state;
pub mod uplink;
