//! `subnet.env`, by which the CNI plugin learns of this node's subnet (flannel facts §3.1).

use ipnet::Ipv4Net;

use super::Node;
use crate::cluster::subnet::Subnet;

/// No quotes: the CNI plugin splits each line at the first `=` and takes the rest as it is.
pub(super) fn text(node: &Node) -> String {
    format!(
        "FLANNEL_NETWORK={}\nFLANNEL_SUBNET={}\nFLANNEL_MTU={}\nFLANNEL_IPMASQ={}\n",
        node.network.net,
        node.lease.subnet.gateway(),
        node.mtu(),
        node.firewall.masquerade
    )
}

/// The subnet that this node had according to an earlier `subnet.env`, ours or flanneld's.
/// Comments, quotes and `export` are tolerated; anything but one valid CIDR is none.
#[must_use]
pub fn previous_subnet(text: &str) -> Option<Subnet> {
    value(text, "FLANNEL_SUBNET=").map(Subnet::new)
}

/// The network that this node was in, in the same way.
#[must_use]
pub fn previous_network(text: &str) -> Option<Ipv4Net> {
    value(text, "FLANNEL_NETWORK=")
}

/// Whether a file for others speaks of this subnet: `subnet.env` and `docker.env` both name the
/// address that the bridge gets.
#[must_use]
pub fn is_about(text: &str, subnet: Subnet) -> bool {
    let gateway = subnet.gateway().to_string();
    let mut words = text.split(|c: char| !c.is_ascii_digit() && !"./".contains(c));
    words.any(|word| word == gateway)
}

fn value(text: &str, key: &str) -> Option<Ipv4Net> {
    let value = text.lines().rev().find_map(|line| {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        line.trim_start().strip_prefix(key)
    })?;
    let value = value.split(" #").next()?.trim().trim_matches(['"', '\'']);
    let mut valid = value.split(',').filter_map(|cidr| cidr.trim().parse().ok());
    let net = valid.next()?;
    valid.next().is_none().then_some(net)
}
