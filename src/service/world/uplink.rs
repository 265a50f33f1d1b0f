//! The interface to the other nodes, as it comes and goes.

use std::time::Duration;

use super::World;
use crate::kernel::uplink::{self, Interfaces, Uplink};
use crate::service::clock::Moment;
use crate::service::faults::Code;
use crate::service::journal::Occasion;

/// How long another uplink must be the choice before it takes the place of one that is still
/// there: a default route moves for a moment when an interface bounces, and every move writes a
/// lease that all peers follow.
const PATIENCE: Duration = Duration::from_secs(2);

/// Another uplink that would be chosen now.
#[derive(Debug, Default)]
pub(super) enum Rival {
    /// There is none.
    #[default]
    None,
    /// This one, since then (since boot) without a break.
    Waits(Uplink, Duration),
    /// Whichever it is, it need not wait: the administrator has spoken.
    Welcome,
}

impl World {
    /// The host's interfaces were looked at. Without any choice the last uplink stays: its default
    /// route may be gone for a moment, its traffic is not. Answers whether this node has lost the
    /// address that it had: what was connected from there is dead then.
    pub(in crate::service) fn uplink_seen(&mut self, there: &Interfaces, now: Moment) -> bool {
        let lost = self.uplink.as_ref().is_some_and(|used| !there.has(used));
        self.choose_uplink(there, now);
        lost && self.uplink.as_ref().is_some_and(|used| there.has(used))
    }

    fn choose_uplink(&mut self, there: &Interfaces, now: Moment) {
        let found = match uplink::choose(&self.config.node.preference(), there) {
            Ok(found) => found,
            Err(error) => {
                self.rival = Rival::None;
                self.faults.note(Code::Uplink, Some(error.to_string()));
                return;
            }
        };
        self.faults.clear(Code::Uplink);
        if let Some(since) = self.waits_since(&found, there, now)
            && now.since_boot.saturating_sub(since) < PATIENCE
        {
            self.rival = Rival::Waits(found, since);
            return;
        }
        self.rival = Rival::None;
        if self.uplink.as_ref() != Some(&found) {
            tracing::info!(
                message_id = Occasion::UplinkChanged.id(),
                interface = found.name,
                address = %found.address,
                public_ip = %found.public_ip,
                mtu = found.mtu,
                "uplink"
            );
            self.uplink = Some(found);
        }
    }

    /// Since when a choice waits for its turn, if it has to: not if the uplink in use has gone or
    /// has lost its address, as by DHCP, and not if it is the same.
    fn waits_since(&self, found: &Uplink, there: &Interfaces, now: Moment) -> Option<Duration> {
        let used = self.uplink.as_ref()?;
        if is_same(used, found) || !there.has(used) {
            return None;
        }
        match &self.rival {
            Rival::Welcome => None,
            Rival::Waits(rival, since) if is_same(rival, found) => Some(*since),
            Rival::Waits(..) | Rival::None => Some(now.since_boot),
        }
    }

    /// Whether another uplink waits for its turn: the host is to be looked at again soon.
    pub(in crate::service) const fn uplink_is_contested(&self) -> bool {
        matches!(self.rival, Rival::Waits(..))
    }
}

fn is_same(one: &Uplink, other: &Uplink) -> bool {
    (&one.name, one.address) == (&other.name, other.address)
}
