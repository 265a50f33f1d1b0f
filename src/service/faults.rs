//! All that is wrong right now, and the journal's view of it: one line when a fault comes,
//! changes or goes, however often it is noticed in between.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::duty::Duty;
use super::journal::Occasion;
use super::status::Fault;
use crate::cluster::subnet::Subnet;

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
    /// The packet filter is not as it should be.
    Firewall,
    /// Docker's containers are not as the overlay needs them.
    Docker,
    /// Another program of this host has its hands on what is ours.
    ForeignManager,
    /// Somebody else keeps undoing what this service sets up.
    Contested,
    /// A duty has lapsed and was begun anew. While one stands the watchdog is not fed.
    Lapse(Duty),
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
            Self::Firewall => "firewall",
            Self::Docker => "docker",
            Self::ForeignManager => "foreign-manager",
            Self::Contested => "contested",
            Self::Lapse(Duty::Watch) => "duty-watch",
            Self::Lapse(Duty::Lease) => "duty-lease",
            Self::Lapse(Duty::Reconcile) => "duty-reconcile",
            Self::Lapse(Duty::Bus) => "duty-bus",
            Self::Lapse(Duty::Managers) => "duty-managers",
        }
    }
}

impl Code {
    /// Those that somebody may want to be called for have a number of their own.
    const fn raised(self) -> Occasion {
        match self {
            Self::Datastore => Occasion::DatastoreLost,
            Self::SubnetConflict => Occasion::SubnetConflict,
            Self::Config => Occasion::ReloadRefused,
            Self::Uplink
            | Self::NetworkConfig
            | Self::RenumberRequired
            | Self::Lease
            | Self::LeaseExpired
            | Self::OtherSubnet
            | Self::State
            | Self::Kernel
            | Self::ForeignLink
            | Self::Proxy
            | Self::Files
            | Self::Backend
            | Self::Peers
            | Self::Forwarding
            | Self::Firewall
            | Self::Docker
            | Self::ForeignManager
            | Self::Contested
            | Self::Lapse(_) => Occasion::FaultRaised,
        }
    }

    fn cleared(self) -> Occasion {
        if self == Self::Datastore {
            Occasion::DatastoreBack
        } else {
            Occasion::FaultCleared
        }
    }
}

/// What a fault is about, for those who filter the journal by it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Subject {
    /// The own subnet.
    pub(super) subnet: Option<Subnet>,
    /// Somebody else's.
    pub(super) peer: Option<Subnet>,
    /// Where that one's packets go.
    pub(super) public_ip: Option<Ipv4Addr>,
}

/// The faults by code, at most one each.
#[derive(Debug, Default)]
pub(super) struct Faults {
    standing: BTreeMap<Code, Standing>,
    words: BTreeMap<Code, Words>,
}

#[derive(Debug)]
struct Standing {
    text: String,
    /// How often it was noticed since it came.
    times: u64,
    told: bool,
}

/// What may still be said of a fault that comes and goes and comes again.
#[derive(Debug)]
struct Words {
    left: u32,
    unsaid: u64,
}

/// So many times a fault may come in quick succession and be told each time; after that, once
/// for each [`Faults::breathe`].
const WORDS: u32 = 5;

impl Faults {
    /// Sets or clears the fault `code`. Only a change of state is logged; a text that changes
    /// under a standing fault goes to the debug log, so that a count in it cannot flood.
    pub(super) fn note(&mut self, code: Code, text: Option<String>) {
        self.note_of(Subject::default(), code, text);
    }

    /// As [`Faults::note`], of something that has a name.
    pub(super) fn note_of(&mut self, subject: Subject, code: Code, text: Option<String>) {
        match text {
            Some(text) => self.stand(subject, code, text),
            None => self.clear(code),
        }
    }

    fn stand(&mut self, subject: Subject, code: Code, text: String) {
        let name = code.name();
        if let Some(standing) = self.standing.get_mut(&code) {
            standing.times += 1;
            if standing.text != text {
                tracing::debug!(fault = name, "{text}");
                standing.text = text;
            }
            return;
        }
        let fresh = Words {
            left: WORDS,
            unsaid: 0,
        };
        let words = self.words.entry(code).or_insert(fresh);
        let told = words.left > 0;
        if told {
            words.left -= 1;
            let unsaid = Some(std::mem::take(&mut words.unsaid)).filter(|unsaid| *unsaid > 0);
            let again = unsaid.map_or("", |_| " (it keeps coming and going)");
            tracing::warn!(
                message_id = code.raised().id(),
                fault = name,
                subnet = subject.subnet.map(tracing::field::display),
                peer = subject.peer.map(tracing::field::display),
                public_ip = subject.public_ip.map(tracing::field::display),
                unsaid,
                "{text}{again}"
            );
        } else {
            words.unsaid += 1;
        }
        let times = 1;
        let standing = Standing { text, times, told };
        self.standing.insert(code, standing);
    }

    pub(super) fn clear(&mut self, code: Code) {
        let name = code.name();
        if let Some(standing) = self.standing.remove(&code).filter(|fault| fault.told) {
            tracing::info!(
                message_id = code.cleared().id(),
                fault = name,
                times = standing.times,
                "{name} is right again"
            );
        }
    }

    /// To be called now and then: lets a fault that comes and goes be told once more.
    pub(super) fn breathe(&mut self) {
        for words in self.words.values_mut() {
            words.left = (words.left + 1).min(WORDS);
        }
    }

    pub(super) fn has(&self, code: Code) -> bool {
        self.standing.contains_key(&code)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.standing.is_empty()
    }

    /// Whether a duty has lapsed.
    pub(super) fn any_lapse(&self) -> bool {
        let mut codes = self.standing.keys();
        codes.any(|code| matches!(code, Code::Lapse(_)))
    }

    pub(super) fn list(&self) -> Vec<Fault> {
        let fault = |(code, standing): (&Code, &Standing)| Fault {
            code: code.name().to_owned(),
            text: standing.text.clone(),
            times: standing.times,
        };
        self.standing.iter().map(fault).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn come_and_go(faults: &mut Faults) -> bool {
        faults.note(Code::Files, Some("no room".to_owned()));
        let told = faults.standing.values().all(|fault| fault.told);
        faults.clear(Code::Files);
        told
    }

    #[test]
    fn a_fault_counts_how_often_it_was_noticed() {
        let mut faults = Faults::default();
        for text in ["a", "b", "b"] {
            faults.note(Code::Kernel, Some(text.to_owned()));
        }
        let fault = faults.list().remove(0);
        assert_eq!((fault.text.as_str(), fault.times), ("b", 3));
        faults.clear(Code::Kernel);
        assert!(faults.is_empty());
    }

    #[test]
    fn a_fault_that_comes_and_goes_is_told_a_few_times_and_then_seldom() {
        let mut faults = Faults::default();
        let told = (0..20).filter(|_| come_and_go(&mut faults)).count();
        assert_eq!(told, WORDS as usize);
        faults.breathe();
        assert_eq!((0..20).filter(|_| come_and_go(&mut faults)).count(), 1);
        assert!(!faults.any_lapse());
        faults.note(Code::Lapse(Duty::Watch), Some("died".to_owned()));
        assert!(faults.any_lapse());
    }
}
