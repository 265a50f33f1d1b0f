//! The own lease: had, renewed, lost, contested.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::World;
use crate::cluster::acquire::{AcquireError, Claim, Held};
use crate::cluster::allocate::Written;
use crate::cluster::datastore::{Revision, lease_key};
use crate::cluster::lease::{Attrs, BackendAttrs, Lease};
use crate::cluster::subnet::Subnet;
use crate::cluster::view::Record;
use crate::service::clock::{Moment, usec};
use crate::service::faults::{Code, Subject};
use crate::service::journal::Occasion;

/// The own lease and its time.
#[derive(Debug, Clone)]
pub(super) struct Tenure {
    pub(super) held: Held,
    /// When it was written.
    since: Moment,
    /// Whether the datastore shows something else than what was written.
    pub(super) disturbed: bool,
}

/// Two clocks that are read one after the other differ by less.
const SET: Duration = Duration::from_secs(2);

impl Tenure {
    /// When the lease expires, microseconds since 1970; `None` for a reservation.
    pub(super) fn expires_usec(&self) -> Option<u64> {
        let ttl = self.held.ttl?;
        Some(self.since.wall_usec.saturating_add(usec(ttl)))
    }

    /// Follows a wall clock that was set since.
    fn follow(&mut self, now: Moment) {
        let passed = now.since_boot.saturating_sub(self.since.since_boot);
        let written = now.wall_usec.saturating_sub(usec(passed));
        if written.abs_diff(self.since.wall_usec) > usec(SET) {
            self.since.wall_usec = written;
        }
    }

    /// How long the lease still lives; `None` for a reservation.
    pub(super) fn left(&self, now: Moment) -> Option<Duration> {
        let ttl = self.held.ttl?;
        Some((self.since.since_boot + ttl).saturating_sub(now.since_boot))
    }
}

/// Two nodes that both take one lease for theirs, because both have its public IP.
#[derive(Debug, Clone, Default)]
pub(super) struct Contest {
    /// How often in a row the lease had to be written again.
    rounds: u32,
    /// When it last had to, since boot.
    last: Duration,
}

/// After this time without a disturbance a contest is over.
const QUIET: Duration = Duration::from_secs(60);
/// Once is an accident, twice may be.
const ROUNDS: u32 = 3;

impl World {
    /// A subnet was taken, or not.
    pub(in crate::service) fn acquired(
        &mut self,
        result: Result<Held, AcquireError>,
        since: Moment,
    ) {
        match result {
            Err(error) => self.faults.note(Code::Lease, Some(error.to_string())),
            Ok(held) if !self.fits(&held) => {
                // the network config has changed meanwhile; the next try starts from there
                tracing::info!(subnet = %held.lease.subnet, "the lease does not fit any more");
            }
            Ok(held) => {
                tell(Occasion::LeaseAcquired, &held, "lease acquired");
                self.hold(held, since);
                self.compare_with_wish();
            }
        }
    }

    /// The own lease was written anew, or not.
    pub(in crate::service) fn renewed(
        &mut self,
        result: Result<Claim, AcquireError>,
        since: Moment,
    ) {
        match result {
            Err(error) => self.faults.note(Code::Lease, Some(error.to_string())),
            Ok(Claim::Held(held)) => {
                tell(Occasion::LeaseRenewed, &held, "lease renewed");
                self.hold(held, since);
                self.faults.clear(Code::SubnetConflict);
            }
            Ok(Claim::Retaken(held)) => {
                tell(Occasion::LeaseRetaken, &held, "lease retaken");
                self.hold(held, since);
                self.retaken(since);
            }
            Ok(Claim::Taken(other)) => {
                let text = self.conflict(&other);
                let subject = Subject {
                    subnet: self.subnet(),
                    peer: Some(other.subnet),
                    public_ip: Some(other.attrs.public_ip),
                };
                self.taken_by = Some(other);
                self.faults.clear(Code::Lease);
                self.faults
                    .note_of(subject, Code::SubnetConflict, Some(text));
            }
        }
    }

    fn conflict(&self, other: &Lease) -> String {
        let own = self.subnet().map(|own| own.to_string());
        let mac = self.attrs().and_then(|attrs| attrs.backend.mac());
        let clone = match mac.is_some() && other.attrs.backend.mac() == mac {
            true => " (a clone of this machine, with its machine-id and state folder?)",
            false => "",
        };
        format!(
            "{} is now leased to {} as {}{clone}; forwarding goes on, but one of the two must give \
             way: flannel-rs renumber",
            own.unwrap_or_default(),
            other.attrs.public_ip,
            other.subnet
        )
    }

    fn fits(&self, held: &Held) -> bool {
        let network = self.network.as_ref();
        network.is_none_or(|network| network.allows(held.lease.subnet))
    }

    /// The lease was not as we had left it, and was written again.
    fn retaken(&mut self, now: Moment) {
        if now.since_boot.saturating_sub(self.contest.last) > QUIET {
            self.contest.rounds = 0;
        }
        self.contest.rounds += 1;
        self.contest.last = now.since_boot;
        let public_ip = self.attrs().map(|attrs| attrs.public_ip);
        let public_ip = public_ip.filter(|_| self.contest.rounds >= ROUNDS);
        let text = public_ip.map(|public_ip| {
            format!(
                "somebody else keeps writing this node's lease with the same public IP \
                 {public_ip}; set node.interface or node.public-ip so that it is this node's alone"
            )
        });
        let subject = Subject {
            subnet: self.subnet(),
            public_ip,
            ..Subject::default()
        };
        self.faults.note_of(subject, Code::SubnetConflict, text);
    }

    /// How long to leave the lease alone after it had to be written again: twice as long each
    /// time, so that two nodes that fight over it do not keep the datastore busy.
    pub(in crate::service) fn truce(&self) -> Option<Duration> {
        let rounds = self.contest.rounds.checked_sub(1)?;
        Some(Duration::from_secs(1 << rounds.min(5)).min(Duration::from_secs(30)))
    }

    pub(super) fn hold(&mut self, held: Held, since: Moment) {
        self.faults.clear(Code::Lease);
        self.faults.clear(Code::LeaseExpired);
        if let BackendAttrs::Vxlan(vtep) = &held.lease.attrs.backend {
            self.adopted = Some(*vtep);
        }
        self.had_back(since);
        self.taken_by = None;
        self.tenure = Some(Tenure {
            held,
            since,
            disturbed: false,
        });
        self.own_entry_seen();
    }

    /// Compares the own subnet with the one that the config asks for. A view from before the own
    /// write does not show yet who was faster.
    pub(super) fn compare_with_wish(&mut self) {
        let current = |tenure: &Tenure| self.view.revision() >= tenure.held.revision;
        if self.is_withdrawn() || !self.tenure.as_ref().is_some_and(current) {
            return;
        }
        let own = self.subnet();
        let held = own.map(|own| own.to_string()).unwrap_or_default();
        let named = self.config.node.subnet.filter(|to| Some(*to) != own);
        let reserved = self.reservation().map(|record| record.lease.subnet);
        let text = match (reserved, named) {
            (_, Some(named)) if self.is_declared() => Some(format!(
                "[datastore.nodes] gives this node {named}, but it holds {held}, in which \
                 containers may live; to move there: flannel-rs renumber"
            )),
            (Some(reserved), _) => Some(format!(
                "{reserved} is reserved for this node's public IP, but it holds {held}; to move \
                 there: flannel-rs renumber {reserved}"
            )),
            (None, Some(named)) => Some(self.why_not(named, &held)),
            (None, None) => None,
        };
        self.faults.note(Code::OtherSubnet, text);
    }

    /// The subnet that the administrator has reserved for this node, if it holds another.
    pub(super) fn reservation(&self) -> Option<&Record> {
        let public_ip = self.attrs()?.public_ip;
        let tenure = self.tenure.as_ref()?;
        let own = tenure.held.lease.subnet;
        let network = self.refused.as_ref().or(self.network.as_ref())?;
        // of two reservations one is as good as the other
        let lacks = tenure.held.ttl.is_some() || !network.allows(own);
        self.view.records().filter(|_| lacks).find(|record| {
            record.reserved
                && record.lease.subnet != own
                && record.lease.attrs.public_ip == public_ip
                && network.allows(record.lease.subnet)
        })
    }

    /// Why this node has not got the subnet that its config asks for.
    fn why_not(&self, asked: Subnet, held: &str) -> String {
        let network = self.network.as_ref();
        if let Some(network) = network.filter(|network| !network.allows(asked)) {
            let net = network.net;
            return format!(
                "node.subnet asks for {asked}, for which {net} has no place; holding {held}"
            );
        }
        // this node's former lease may still be in the view
        let public_ip = self.attrs().map(|attrs| attrs.public_ip);
        let is_others = |record: &&Record| Some(record.lease.attrs.public_ip) != public_ip;
        let mut records = self.view.records().filter(is_others);
        let Some(other) = records.find(|record| record.lease.subnet.overlaps(asked)) else {
            return format!(
                "node.subnet asks for {asked}, but this node has {held} already; to move there: \
                 flannel-rs renumber"
            );
        };
        let holder = other.lease.attrs.public_ip;
        format!("node.subnet asks for {asked}, which {holder} has; holding {held}")
    }

    /// Compares the own entry with what was written. A sighting older than the write is none.
    pub(super) fn own_entry_seen(&mut self) {
        if self.is_declared() {
            return;
        }
        let Some(tenure) = &mut self.tenure else {
            return;
        };
        if self.view.revision() < tenure.held.revision {
            return;
        }
        let Lease { subnet, attrs } = &tenure.held.lease;
        let subnet = *subnet;
        let found = self.view.record(subnet);
        let is_others = |found: &&Record| found.lease.attrs.public_ip != attrs.public_ip;
        if found.filter(is_others).map(|found| found.revision) == Some(tenure.held.revision) {
            // another history, in which our revision is another's: no fence may hold by chance
            tenure.held.revision = Revision::default();
        }
        let rewritten = found.is_none_or(|record| record.revision != tenure.held.revision);
        let unreadable = self.view.garbage().contains_key(&lease_key(subnet));
        tenure.disturbed |= rewritten || unreadable;
    }

    /// Time has passed.
    pub(in crate::service) fn aged(&mut self, now: Moment) {
        if let Some(silence) = self.trust.silence(now) {
            let text = format!(
                "{} has not answered for {} s",
                self.store_name,
                silence.as_secs()
            );
            self.faults.note(Code::Datastore, Some(text));
        }
        if let Some(tenure) = &mut self.tenure {
            tenure.follow(now);
        }
        if self.is_withdrawn() {
            return self.aged_apart(now);
        }
        let left = self.tenure.as_ref().and_then(|tenure| tenure.left(now));
        let expired = left.is_some_and(|left| left.is_zero());
        let expired = expired && !self.faults.has(Code::SubnetConflict);
        let text = "the lease has run out, and the datastore does not take a new one; \
                    forwarding goes on";
        self.faults
            .note(Code::LeaseExpired, expired.then(|| text.to_owned()));
        if self.tenure.is_some() && self.duty(now).is_none() {
            // what could not be written need not be any more
            self.faults.clear(Code::Lease);
            if now.since_boot.saturating_sub(self.contest.last) > QUIET {
                self.contest.rounds = 0;
                self.faults.clear(Code::SubnetConflict);
            }
        }
    }

    /// The own subnet, once one is held.
    pub(in crate::service) fn subnet(&self) -> Option<Subnet> {
        self.tenure.as_ref().map(|tenure| tenure.held.lease.subnet)
    }

    /// Who has the own subnet, or keeps writing its lease, if there is a conflict and it can be read.
    pub(in crate::service) fn rival_holder(&self) -> Option<Ipv4Addr> {
        let attrs = match &self.taken_by {
            Some(other) => Some(other.attrs.clone()),
            None => self.attrs(),
        };
        attrs.map(|attrs| attrs.public_ip)
    }

    /// What to remember over a restart.
    pub(in crate::service) fn written(&self) -> Option<Written> {
        self.tenure.as_ref().map(|tenure| tenure.held.written())
    }
}

/// What has become of the own lease.
fn tell(occasion: Occasion, held: &Held, text: &str) {
    tracing::info!(
        message_id = occasion.id(),
        subnet = %held.lease.subnet,
        public_ip = %held.lease.attrs.public_ip,
        backend = held.lease.attrs.backend.name(),
        revision = %held.revision,
        reservation = held.ttl.is_none(),
        "{text}"
    );
}

/// `attrs` with the tunnel address that the own lease tells the peers already, be it from an
/// earlier flanneld: their entries stay true then.
pub(in crate::service) fn adopting(mut attrs: Attrs, own: Option<&Record>) -> Attrs {
    if let (BackendAttrs::Vxlan(new), Some(BackendAttrs::Vxlan(old))) =
        (&mut attrs.backend, own.map(|own| &own.lease.attrs.backend))
    {
        // one that no device can have must not come back with every start
        let usable = old.mac.filter(|mac| mac.is_unicast());
        new.mac = usable.or(new.mac);
    }
    attrs
}
