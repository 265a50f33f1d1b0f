//! The links that packets of containers come in by, whatever the backend: the bridge, the tunnel,
//! and the uplink, by which come what peers send without a tunnel and what the world answers.

use super::{Node, Plan};
use crate::cluster::lease::Lease;
use crate::kernel::passage::Passage;

pub(super) fn plan(node: &Node, peers: &[&Lease], plan: &mut Plan) {
    let forwards = Passage {
        forwards: true,
        ..Passage::default()
    };
    for link in plan.kernel.links.keys() {
        plan.kernel.passages.insert(link.clone(), forwards.clone());
    }
    let visitors = peers.iter().map(|peer| peer.attrs.public_ip);
    let uplink = Passage {
        visitors: visitors.take(MOST_VISITORS).collect(),
        ..forwards
    };
    let name = node.uplink.name.clone();
    plan.kernel.passages.insert(name, uplink);
    plan.kernel.opens_passages = node.repair;
}

/// For each of them the kernel is asked for the way where the filter is strict. Peers most often
/// lie behind the same router, or the same few.
const MOST_VISITORS: usize = 32;
