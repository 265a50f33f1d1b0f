//! The changes that lead from the observed to the desired state.
//!
//! Links come first: their standing decides what happens to the rows on them. The kernel's own
//! cascades are foreseen (a deleted link takes its rows along, a new Ethernet address its
//! neighbours, the last address its plain routes), so that one pass normally suffices.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::Scope;
use super::change::{Change, Obstacle};
use super::nexthop::{self, Written};
use super::state::{Address, KernelState, Nexthop, PROTOCOL, Route, RouteKey};

mod firewall;
mod links;
mod passages;

/// What to do, and what cannot be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// The changes, in the order to make them.
    pub changes: Vec<Change>,
    /// What is wanted and not among the changes.
    pub obstacles: Vec<Obstacle>,
}

/// Compares an observed state, read with the same scope, with the desired one.
#[must_use]
pub fn diff(observed: &KernelState, desired: &KernelState, scope: &Scope) -> Diff {
    let written = nexthop::written(desired, observed);
    let mut difference = Difference {
        observed,
        desired,
        scope,
        written: &written,
        standings: BTreeMap::new(),
        out: Diff::default(),
    };
    difference.links();
    difference.addresses();
    difference.neighbours();
    difference.fdb();
    difference.nexthops();
    difference.routes();
    difference.passages();
    difference.firewall();
    difference.out.changes.sort();
    difference.out
}

struct Difference<'a> {
    observed: &'a KernelState,
    desired: &'a KernelState,
    scope: &'a Scope,
    /// The desired routes as they are to be written down here.
    written: &'a Written<'a>,
    standings: BTreeMap<&'a str, Standing>,
    out: Diff,
}

/// What becomes of a link that is wanted or marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Made (anew): no row is on it yet.
    Made,
    /// It stays: its rows are compared. Some may go by what is done to the link.
    Kept(Losses),
    /// Not to be touched, nor any row on it.
    Barred,
    /// Deleted: its rows go with it.
    Gone,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Losses {
    neighbours: bool,
    /// Those that do not lead through a nexthop object.
    plain_routes: bool,
    /// With the routes that lead through them.
    nexthops: bool,
}

impl Losses {
    fn include(self, route: &Route) -> bool {
        if route.nexthop.is_some() {
            self.nexthops
        } else {
            self.plain_routes
        }
    }
}

impl<'a> Difference<'a> {
    fn addresses(&mut self) {
        let mut lost: BTreeSet<&Address> = BTreeSet::new();
        for row in &self.observed.addresses {
            let ours = self.scope.holds(row.address.addr()) || self.scope.claims(&row.link);
            let ours = ours && !self.desired.addresses.contains(row);
            if self.keeps(&row.link) && ours {
                lost.insert(row);
                self.change(Change::DelAddress(row.clone()));
            }
        }
        self.flushed_by(&lost);
        for row in &self.desired.addresses {
            // A primary address takes the secondary ones of its network along, unless the host
            // promotes them (net.ipv4.conf.*.promote_secondaries); adding one twice is harmless.
            let primary_lost = lost
                .iter()
                .any(|l| l.link == row.link && l.address.trunc() == row.address.trunc());
            let there = self.observed.addresses.contains(row) && !primary_lost;
            if self.puts(&row.link, there) {
                self.change(Change::AddAddress(row.clone()));
            }
        }
    }

    /// With its last address a link loses its neighbours, and those routes that do not lead
    /// through a nexthop object (`fib_disable_ip`).
    fn flushed_by(&mut self, lost: &BTreeSet<&Address>) {
        for (name, standing) in &mut self.standings {
            let mut rows = self.observed.addresses.iter().filter(|a| &*a.link == *name);
            let any_lost = lost.iter().any(|a| &*a.link == *name);
            let Standing::Kept(losses) = *standing else {
                continue;
            };
            if any_lost && rows.all(|a| lost.contains(a)) {
                *standing = Standing::Kept(Losses {
                    neighbours: true,
                    plain_routes: true,
                    ..losses
                });
            }
        }
    }

    fn neighbours(&mut self) {
        for row in self.observed.neighbours.keys() {
            let wanted = self.desired.neighbours.contains_key(row);
            if self.keeps(&row.link) && !self.losses(&row.link).neighbours && !wanted {
                self.change(Change::DelNeighbour(row.clone()));
            }
        }
        for (row, mac) in &self.desired.neighbours {
            let there = self.observed.neighbours.get(row) == Some(mac)
                && !self.losses(&row.link).neighbours;
            if self.puts(&row.link, there) {
                self.change(Change::PutNeighbour(row.clone(), *mac));
            }
        }
    }

    fn fdb(&mut self) {
        for row in self.observed.fdb.keys() {
            if self.keeps(&row.link) && !self.desired.fdb.contains_key(row) {
                self.change(Change::DelFdb(row.clone()));
            }
        }
        for (row, to) in &self.desired.fdb {
            let there = self.observed.fdb.get(row) == Some(to);
            if self.puts(&row.link, there) {
                self.change(Change::PutFdb(row.clone(), *to));
            }
        }
    }

    fn nexthops(&mut self) {
        let written = self.written;
        for (id, hop) in &self.observed.nexthops {
            if !self.written.nexthops.contains_key(id) && self.outlives(hop) {
                self.change(Change::DelNexthop(*id, hop.clone()));
            }
        }
        for (id, hop) in &written.nexthops {
            let there =
                self.observed.nexthops.get(id) == Some(hop) && !self.losses(&hop.link).nexthops;
            if self.puts(&hop.link, there) {
                self.change(Change::PutNexthop(*id, hop.clone()));
            }
        }
    }

    /// Whether an object is still there after what is done to its link.
    fn outlives(&self, hop: &Nexthop) -> bool {
        match self.standings.get(&*hop.link) {
            Some(Standing::Made | Standing::Gone) => false,
            Some(Standing::Kept(losses)) => !losses.nexthops,
            Some(Standing::Barred) | None => true,
        }
    }

    fn routes(&mut self) {
        for (key, route) in &self.observed.routes {
            // One that is wanted in another form is replaced, which leaves no gap.
            if !self.desired.routes.contains_key(key) && self.removes(key, route) {
                self.change(Change::DelRoute(*key, route.clone()));
            }
        }
        for (key, route) in &self.observed.rivals {
            let rivalled = self.desired.routes.get(key);
            if rivalled.is_some_and(|ours| !self.is_barred(&ours.link)) || self.removes(key, route)
            {
                self.change(Change::DelRoute(*key, route.clone()));
            }
        }
        let written = self.written;
        let lost: BTreeSet<Ipv4Addr> = (self.out.changes.iter())
            .filter_map(Change::lost_address)
            .collect();
        for (key, route) in &*written.routes {
            // A route goes with its link, and with the address that it names as its source.
            let survives = !self.losses(&route.link).include(route)
                && !route.source.is_some_and(|source| lost.contains(&source));
            let there = self.observed.routes.get(key) == Some(route) && survives;
            if self.puts(&route.link, there) {
                self.change(Change::PutRoute(*key, route.clone()));
            }
        }
    }

    fn removes(&self, key: &RouteKey, route: &Route) -> bool {
        let ours = route.protocol == PROTOCOL || self.scope.is_stray(key, route);
        match self.standings.get(&*route.link) {
            Some(Standing::Made | Standing::Gone) => false,
            Some(Standing::Kept(losses)) => {
                let tunnel = self.observed.links.get(&*route.link);
                !losses.include(route) && (ours || tunnel.is_some_and(|link| link.kind.is_tunnel()))
            }
            Some(Standing::Barred) | None => ours,
        }
    }

    /// Whether rows that are on the link now will still be there, to be compared.
    fn keeps(&self, link: &str) -> bool {
        matches!(self.standings.get(link), Some(Standing::Kept(_)))
    }

    fn is_barred(&self, link: &str) -> bool {
        self.standings.get(link) == Some(&Standing::Barred)
    }

    /// Whether a wanted row has to be put; `there` says that it is on the link already.
    fn puts(&self, link: &str, there: bool) -> bool {
        match self.standings.get(link) {
            Some(Standing::Barred) => false,
            Some(Standing::Made | Standing::Gone) => true,
            Some(Standing::Kept(_)) | None => !there,
        }
    }

    fn losses(&self, link: &str) -> Losses {
        match self.standings.get(link) {
            Some(Standing::Kept(losses)) => *losses,
            Some(Standing::Made | Standing::Barred | Standing::Gone) | None => Losses::default(),
        }
    }

    fn change(&mut self, change: Change) {
        self.out.changes.push(change);
    }
}

#[cfg(test)]
mod tests;
