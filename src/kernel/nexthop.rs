//! How routes to gateways are written down: each by itself, or through nexthop objects.
//!
//! The kernel hashes what a plain route leads to by everything but the gateway
//! (`fib_info_hashfn`), so adding the routes of n peers takes O(n²); nexthop objects it finds by
//! their id. To people both look the same: `ip route` shows gateway and link either way.
//!
//! Only routes into tunnels are written so. The kernel drops the objects on a link that loses its
//! carrier, and their routes (`nexthop_flush_dev`), while plain routes outlast a cable that is
//! pulled for a moment. A tunnel always has its carrier.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::state::{KernelState, LinkKind, Nexthop, PROTOCOL, Route, RouteKey};

/// From this many routes on objects are used: here they begin to cost less than they save, and
/// small clusters keep what everybody knows.
pub const MANY: usize = 300;

/// Objects that are in use are given up below this many routes. The gap to [`MANY`] keeps a
/// cluster that grows and shrinks by a few from being written anew each time.
pub const FEW: usize = 200;

/// Desired routes, and the nexthop objects that they lead through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written<'a> {
    pub(super) nexthops: BTreeMap<u32, Nexthop>,
    pub(super) routes: Cow<'a, BTreeMap<RouteKey, Route>>,
}

/// Decides how the desired routes are written down on the observed kernel. An object has the
/// number of its gateway's address as its id, or the next one that nobody else has: a restarted
/// service finds the same ones.
pub(super) fn written<'a>(desired: &'a KernelState, observed: &KernelState) -> Written<'a> {
    let plain = Written {
        nexthops: BTreeMap::new(),
        routes: Cow::Borrowed(&desired.routes),
    };
    let Some(foreign) = &observed.foreign_nexthops else {
        return plain;
    };
    let enough = if observed.nexthops.is_empty() {
        MANY
    } else {
        FEW
    };
    let through = |route: &Route| hop(route, desired);
    if desired.routes.values().filter_map(through).count() < enough {
        return plain;
    }
    let mut nexthops = BTreeMap::new();
    let mut routes = desired.routes.clone();
    for route in routes.values_mut() {
        if let Some(hop) = hop(route, desired) {
            route.nexthop = Some(place(hop, &mut nexthops, foreign));
        }
    }
    Written {
        nexthops,
        routes: Cow::Owned(routes),
    }
}

/// The object that a route may lead through.
fn hop(route: &Route, desired: &KernelState) -> Option<Nexthop> {
    let link = desired.links.get(&*route.link)?;
    let ours = route.protocol == PROTOCOL && matches!(link.kind, LinkKind::Vxlan { .. });
    Some(Nexthop {
        link: route.link.clone(),
        gateway: route.gateway.filter(|_| ours)?,
        onlink: route.onlink,
    })
}

/// Puts the object among the others, and says where. There are fewer objects than ids.
fn place(hop: Nexthop, nexthops: &mut BTreeMap<u32, Nexthop>, foreign: &BTreeSet<u32>) -> u32 {
    let mut id = u32::from(hop.gateway).max(1);
    loop {
        match nexthops.get(&id) {
            Some(other) if *other == hop => return id,
            None if !foreign.contains(&id) => {
                nexthops.insert(id, hop);
                return id;
            }
            Some(_) | None => id = id.wrapping_add(1).max(1),
        }
    }
}

#[cfg(test)]
mod tests;
