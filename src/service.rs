//! The running service: one loop that owns the state, and everything by which outsiders see it.
//!
//! Events never carry work. A lease, a netlink notification, a timer, a reload or a D-Bus call
//! marks the world dirty; the loop then computes the whole plan again and makes it so. Outsiders
//! read a [`status::Status`] and send a [`status::Command`]; nobody else touches the state.
//!
//! Tasks: the loop ([`daemon`]), the watch of the datastore (`watcher`), at most one errand to
//! the datastore at a time, the D-Bus facade ([`dbus`]), the look after others who manage this host's
//! network ([`managers`]), and the threads of the data plane and of the log ([`journal`]).

mod cleanup;
mod clock;
pub mod daemon;
mod dataplane;
pub mod dbus;
mod docker;
pub mod dry_run;
pub mod duty;
mod faults;
mod files;
mod interfaces;
pub mod journal;
mod machine;
pub mod managers;
mod memory;
mod notify;
mod signals;
#[cfg(test)]
mod simulation;
pub mod start;
pub mod status;
mod strife;
mod watcher;
mod world;
