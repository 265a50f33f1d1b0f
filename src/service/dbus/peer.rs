//! The `Peer` interface: one other node.

use std::collections::BTreeMap;

use tokio::sync::watch;
use zbus::interface;

use super::collection::Shown;
use super::{ROOT, text};
use crate::proxy::counters::Meter;
use crate::service::status::{PeerStatus, PeerTraffic};

/// One other node on the bus.
pub(super) struct Peer {
    row: PeerStatus,
    meter: watch::Receiver<Option<Meter>>,
}

/// Another node of the network, by the lease that it holds.
#[interface(name = "org.flannelrs.Flannel1.Peer")]
impl Peer {
    /// The subnet that the peer has leased, such as "100.96.2.0/24".
    #[zbus(property)]
    fn subnet(&self) -> String {
        text(&self.row.subnet)
    }

    /// The IPv4 address that packets to the peer are sent to.
    #[zbus(property, name = "PublicIP")]
    fn public_ip(&self) -> String {
        self.row.public_ip.to_string()
    }

    /// The peer's backend, such as "vxlan".
    #[zbus(property)]
    fn backend(&self) -> String {
        text(&self.row.backend)
    }

    /// The Ethernet address of the peer's tunnel device, such as "02:00:00:00:00:02". Empty for
    /// backends other than vxlan.
    #[zbus(property)]
    fn mac(&self) -> String {
        self.row.mac.as_deref().map(text).unwrap_or_default()
    }

    /// How the peer is reached: "tunnel", "direct" (by a plain route) or "none".
    #[zbus(property)]
    fn path(&self) -> String {
        self.row.path.name().to_owned()
    }

    /// Why the peer is not reached, a line for people. Empty if it is.
    #[zbus(property)]
    fn obstacle(&self) -> String {
        self.row.obstacle.as_deref().map(text).unwrap_or_default()
    }

    /// What this node has moved and dropped for the peer since it has been one, all subnets with
    /// its address together, by the names "sent-packets", "sent-bytes", "received-packets",
    /// "received-bytes", and for packets dropped "dropped-" and the cause. More names may come.
    /// Read at the time of the call; no signal tells of a change. Empty for a peer that the
    /// service itself moves no packets to, as with backends other than udp.
    #[zbus(property(emits_changed_signal = "false"))]
    fn traffic(&self) -> BTreeMap<&str, u64> {
        let meter = self.meter.borrow();
        let counters = meter
            .as_ref()
            .and_then(|meter| meter.peer(self.row.public_ip));
        let traffic = counters.map(PeerTraffic::from);
        traffic
            .map(|traffic| traffic.named().into())
            .unwrap_or_default()
    }
}

impl Shown for Peer {
    type Row = PeerStatus;
    type Source = watch::Receiver<Option<Meter>>;

    fn new(row: PeerStatus, meter: Self::Source) -> Self {
        Self { row, meter }
    }

    fn path(row: &PeerStatus) -> String {
        path(&row.subnet)
    }
}

/// `…/peer/_100_96_2_0_24`. The leading underscore keeps the last component from starting with a
/// digit, which some bindings cannot name. Only subnets that are not canonical share a path.
fn path(subnet: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String = subnet.chars().map(safe).collect();
    format!("{ROOT}/peer/_{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_subnet_makes_a_valid_path() {
        assert_eq!(
            path("100.96.2.0/24"),
            "/org/flannelrs/Flannel1/peer/_100_96_2_0_24"
        );
        for subnet in ["10.5.1.0/24,fd00::/64", "", "é/\0 x"] {
            let path = path(subnet);
            assert!(
                zbus::OwnedObjectPath::try_from(path.as_str()).is_ok(),
                "{path}"
            );
        }
    }
}
