//! How far the datastore is believed. One that was away, was emptied, or has dropped our lease has
//! dropped those of others too, and all of them are about to claim their subnets again.

use std::collections::BTreeMap;
use std::time::Duration;

use super::World;
use crate::cluster::datastore::{Event, Revision, Snapshot, StoreError, lease_key};
use crate::cluster::subnet::Subnet;
use crate::cluster::view::Record;
use crate::service::clock::Moment;
use crate::service::duty::Duty;
use crate::service::faults::Code;
use crate::service::journal::Occasion;

/// How long the nodes get to claim their subnets again in a datastore that has forgotten them.
pub(in crate::service) const REGROUP: Duration = Duration::from_secs(15);
/// One that cannot be read for longer, or shows nothing for longer while our lease runs out, was
/// away.
const OUTAGE: Duration = Duration::from_secs(3);
/// One that is well shows something, be it that nothing has happened, at least this often.
const LIFE: Duration = Duration::from_secs(35);
/// etcd revokes leases that run out together within a second, in any order: those that went so
/// long before ours went with it.
const BURST: Duration = Duration::from_secs(5);
/// A sign of life of the datastore comes at least every 30 seconds.
const SILENCE: Duration = Duration::from_secs(90);

/// What is known of the datastore itself. All times are since boot.
#[derive(Debug, Default)]
pub(super) struct Trust {
    /// When it was last heard of, be it by an error.
    heard: Option<Duration>,
    /// When it last showed what it holds.
    shown: Option<Duration>,
    /// Since when it cannot be read.
    lost: Option<Duration>,
    /// Whether our lease has run out and that was acted on.
    run_out: bool,
    /// Until when nobody is dropped. Stays until the list that follows.
    regroup_until: Option<Duration>,
    /// The leases that went of late, and when.
    gone: BTreeMap<Subnet, (Duration, Record)>,
}

impl Trust {
    pub(super) fn answered(&mut self, now: Moment) {
        self.heard = Some(now.since_boot);
        self.shown = Some(now.since_boot);
        self.lost = None;
    }

    /// Whether it cannot be read now.
    pub(super) const fn is_lost(&self) -> bool {
        self.lost.is_some()
    }

    /// Whether it could not be read for longer than a hiccup takes, or was silent for longer than
    /// one that is well.
    fn was_away(&self, now: Moment) -> bool {
        let Some(lost) = self.lost else {
            return false;
        };
        let silent = |shown| lost.saturating_sub(shown) > LIFE;
        now.since_boot.saturating_sub(lost) > OUTAGE || self.shown.is_some_and(silent)
    }

    fn is_silent(&self, now: Moment) -> bool {
        let silent = |shown| now.since_boot.saturating_sub(shown) > OUTAGE;
        self.shown.is_some_and(silent)
    }

    fn regroups(&self, now: Moment) -> bool {
        self.regroup_until
            .is_some_and(|until| now.since_boot < until)
    }

    /// How long nothing was heard, once that is too long.
    pub(super) fn silence(&mut self, now: Moment) -> Option<Duration> {
        let heard = *self.heard.get_or_insert(now.since_boot);
        let silence = now.since_boot.saturating_sub(heard);
        (silence > SILENCE).then_some(silence)
    }
}

impl World {
    /// A whole list came in. Answers whether it is believed; if not, another must follow after
    /// [`REGROUP`]. One that lacks a lease that we hold, or whose history has gone back, comes
    /// from a datastore that was emptied or restored, and one that was away may have let leases
    /// run out that nobody could renew.
    pub(in crate::service) fn listed(&mut self, snapshot: Snapshot, now: Moment) -> bool {
        let forgotten = self.has_forgotten(&snapshot) && self.trust.regroup_until.is_none();
        if !self.view.is_complete() {
            // nobody is known whom it could drop
        } else if forgotten {
            self.regroup(Some("the datastore was emptied or restored"), now);
        } else if self.outage_ends(now) {
            // that it is back is told by its fault
            self.regroup(None, now);
        }
        let believed = !self.trust.regroups(now);
        if believed {
            self.trust.regroup_until = None;
            self.view.replace(snapshot);
        } else {
            self.view.extend(snapshot);
        }
        self.view_changed(now);
        believed
    }

    /// Whether a list shows that the datastore has forgotten our lease, or some of its history.
    fn has_forgotten(&mut self, snapshot: &Snapshot) -> bool {
        if self.is_declared() {
            return false;
        }
        let restarted = snapshot.revision < self.view.revision();
        let Some(tenure) = &mut self.tenure else {
            return false;
        };
        let subnet = tenure.held.lease.subnet;
        let key = lease_key(subnet);
        let known = self.view.record(subnet).is_some();
        let missing = known && !snapshot.entries.iter().any(|entry| entry.key == key);
        // a list that was under way while the lease was written tells nothing about it
        let outdated = !restarted && snapshot.revision < tenure.held.revision;
        if restarted {
            // in the new history our revision may be another's: let no fence hold by chance
            tenure.held.revision = Revision::default();
        }
        let forgotten = restarted || (missing && !outdated);
        tenure.disturbed |= forgotten;
        forgotten
    }

    /// Changes came in; none is a sign of life. Answers whether all are believed; if not, a list
    /// must follow after [`REGROUP`].
    ///
    /// When our own lease goes, those of others go for the same reason, some before it and some
    /// after.
    pub(in crate::service) fn changed(&mut self, events: Vec<Event>, now: Moment) -> bool {
        let ours = events.iter().any(|event| self.drops_ours(event));
        let begins = ours || self.outage_ends(now);
        if begins {
            self.regroup(ours.then_some("this node's lease was deleted"), now);
        }
        let own = self.subnet();
        let public_ip = self.attrs().map(|attrs| attrs.public_ip);
        let of_a_peer = |record: &Record| {
            Some(record.lease.subnet) != own && Some(record.lease.attrs.public_ip) != public_ip
        };
        let mut kept = false;
        for event in events {
            let Some(record) = self.view.apply(event).filter(of_a_peer) else {
                continue;
            };
            if self.trust.regroups(now) {
                self.view.restore(record);
                kept = true;
            } else {
                let gone = (now.since_boot, record);
                self.trust.gone.insert(gone.1.lease.subnet, gone);
            }
        }
        let recent = |at: Duration| now.since_boot.saturating_sub(at) <= BURST;
        self.trust.gone.retain(|_, (at, _)| recent(*at));
        self.view_changed(now);
        !(begins || kept)
    }

    /// Whether an event says that our lease is gone, not that of a holder before or after us.
    fn drops_ours(&self, event: &Event) -> bool {
        let (Event::Deleted { key, .. }, Some(tenure)) = (event, &self.tenure) else {
            return false;
        };
        // we give it back ourselves, or let it go, and what is declared is meant
        let is_meant = self.releasing || self.is_withdrawn() || self.is_declared();
        if self.moving.is_some() || is_meant {
            return false;
        }
        let lease = &tenure.held.lease;
        let ours = |record: &Record| record.lease.attrs.public_ip == lease.attrs.public_ip;
        *key == lease_key(lease.subnet) && self.view.record(lease.subnet).is_some_and(ours)
    }

    /// Whether what comes in now is the first after the datastore was away. One that nobody has
    /// missed is away too, if our lease has run out meanwhile: it was frozen, or this node was.
    fn outage_ends(&mut self, now: Moment) -> bool {
        let frozen = self.has_run_out(now) && self.trust.is_silent(now) && !self.trust.run_out;
        self.trust.run_out |= frozen;
        frozen || self.trust.was_away(now)
    }

    /// Whether our lease has run out and nobody else has it.
    fn has_run_out(&self, now: Moment) -> bool {
        let left = self.tenure.as_ref().and_then(|tenure| tenure.left(now));
        left.is_some_and(|left| left.is_zero()) && self.taken_by.is_none()
    }

    /// Our lease is about to be had back. If it had run out, so did others, and etcd may revoke
    /// those only now.
    pub(super) fn had_back(&mut self, begun: Moment) {
        if self.has_run_out(begun) && !self.trust.run_out {
            let since_boot = self.trust.heard.unwrap_or_default().max(begun.since_boot);
            let now = Moment {
                since_boot,
                ..begun
            };
            self.regroup(None, now);
        }
        self.trust.run_out = false;
    }

    /// Whether a list must follow, [`REGROUP`] from now at the latest, to settle who is gone.
    pub(in crate::service) const fn must_list(&self) -> bool {
        self.trust.regroup_until.is_some()
    }

    /// From now on nobody is dropped for a while, and who was dropped just now comes back.
    fn regroup(&mut self, reason: Option<&str>, now: Moment) {
        if let Some(reason) = reason.filter(|_| !self.trust.regroups(now)) {
            tracing::warn!(
                message_id = Occasion::PeersKept.id(),
                "{reason}; keeping all peers for {REGROUP:?}"
            );
        }
        self.trust.regroup_until = Some(now.since_boot + REGROUP);
        for (at, record) in std::mem::take(&mut self.trust.gone).into_values() {
            if now.since_boot.saturating_sub(at) <= BURST {
                self.view.restore(record);
            }
        }
    }

    /// A duty has lapsed. Where nobody watches the datastore, only the next list will tell what has
    /// happened to it.
    pub(in crate::service) fn lapsed(&mut self, duty: Duty, reason: &str, now: Moment) {
        let text = format!("the duty \"{duty}\" {reason}; it is begun anew");
        self.faults.note(Code::Lapse(duty), Some(text));
        if duty == Duty::Watch {
            self.trust.lost.get_or_insert(now.since_boot);
        }
    }

    /// The datastore cannot be read. Everything known stays in force.
    pub(in crate::service) fn lost(&mut self, error: &StoreError, now: Moment) {
        self.trust.heard = Some(now.since_boot);
        self.trust.lost.get_or_insert(now.since_boot);
        let text = match error {
            StoreError::Unavailable { .. } => format!("{error}; trying again"),
            StoreError::Refused { .. } | StoreError::Corrupt { .. } => error.to_string(),
        };
        self.faults.note(Code::Datastore, Some(text));
    }
}
