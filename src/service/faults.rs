//! All that is wrong right now, and the journal's view of it: one line when a fault comes,
//! changes or goes, however often it is noticed in between.

use std::collections::BTreeMap;

use super::status::Fault;

/// What can be wrong. The name is stable: operators match on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Code {
    /// The host config cannot be read or applied; the one before is in force.
    Config,
    /// There is no interface to the other nodes.
    Uplink,
    /// The datastore cannot be read.
    Datastore,
    /// The network config is missing or cannot be used; the last good one is in force.
    NetworkConfig,
    /// A new network config has no place for the own subnet; the one before is in force.
    RenumberRequired,
    /// No lease can be had or renewed.
    Lease,
    /// The lease has run out, while the datastore could not be reached.
    LeaseExpired,
    /// Somebody else holds the own subnet.
    SubnetConflict,
    /// The config asks for another subnet than the one that is held.
    OtherSubnet,
    /// The state folder cannot be written.
    State,
    /// The kernel refuses what the plan asks for.
    Kernel,
    /// A link is in somebody else's hands.
    ForeignLink,
    /// The udp data plane does not run.
    Proxy,
    /// A file for others cannot be written.
    Files,
    /// The backend cannot do what the config asks for.
    Backend,
    /// Peers that get no path.
    Peers,
    /// The kernel does not forward packets.
    Forwarding,
}

impl Code {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Uplink => "uplink",
            Self::Datastore => "datastore",
            Self::NetworkConfig => "network-config",
            Self::RenumberRequired => "renumber-required",
            Self::Lease => "lease",
            Self::LeaseExpired => "lease-expired",
            Self::SubnetConflict => "subnet-conflict",
            Self::OtherSubnet => "other-subnet",
            Self::State => "state",
            Self::Kernel => "kernel",
            Self::ForeignLink => "foreign-link",
            Self::Proxy => "proxy",
            Self::Files => "files",
            Self::Backend => "backend",
            Self::Peers => "peers",
            Self::Forwarding => "forwarding",
        }
    }
}

/// The faults by code, at most one each.
#[derive(Debug, Default)]
pub(super) struct Faults(BTreeMap<Code, String>);

impl Faults {
    /// Sets or clears the fault `code`. Only a change of state is logged; a text that changes
    /// under a standing fault goes to the debug log, so that a count in it cannot flood.
    pub(super) fn note(&mut self, code: Code, text: Option<String>) {
        let name = code.name();
        match text {
            Some(text) => {
                let before = self.0.insert(code, text.clone());
                if before.is_none() {
                    tracing::warn!(fault = name, "{text}");
                } else if before.as_deref() != Some(&text) {
                    tracing::debug!(fault = name, "{text}");
                }
            }
            None => {
                if self.0.remove(&code).is_some() {
                    tracing::info!(fault = name, "{name} is right again");
                }
            }
        }
    }

    pub(super) fn clear(&mut self, code: Code) {
        self.note(code, None);
    }

    pub(super) fn has(&self, code: Code) -> bool {
        self.0.contains_key(&code)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn list(&self) -> Vec<Fault> {
        let fault = |(code, text): (&Code, &String)| Fault {
            code: code.name().to_owned(),
            text: text.clone(),
        };
        self.0.iter().map(fault).collect()
    }
}
