//! A kernel for tests: rows in memory, with the cascades of the real one.

use std::collections::BTreeMap;

use super::change::{Change, Setting};
use super::passage::ALL;
use super::state::{KernelState, Link, LinkKind, Route};
use super::{Failure, Kernel, KernelError, Scope};

/// All of a host's state, ours and everybody's.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fake {
    pub(crate) state: KernelState,
    /// What is refused, and how often still.
    pub(super) refusals: BTreeMap<Change, usize>,
    /// How often it was read.
    pub(super) reads: usize,
}

impl Fake {
    pub(crate) fn new(state: KernelState) -> Self {
        let refusals = BTreeMap::new();
        Self {
            state,
            refusals,
            reads: 0,
        }
    }

    /// What the real one shows of the state.
    pub(crate) fn shown(&self, scope: &Scope) -> KernelState {
        let mut shown = self.state.clone();
        let mut links = self.state.links.clone();
        links.retain(|name, link| scope.concerns_link(name, link));
        let tunnel = |name: &str| links.get(name).is_some_and(|link| link.kind.is_tunnel());
        let known = |name: &str| {
            let link = links.get(name);
            link.is_some_and(|link| !matches!(link.kind, LinkKind::Other(_)))
        };
        shown.addresses.retain(|row| known(&row.link));
        shown.neighbours.retain(|row, _| tunnel(&row.link));
        shown.fdb.retain(|row, _| tunnel(&row.link));
        shown
            .routes
            .retain(|key, route| scope.concerns_route(key, route, links.get(&*route.link)));
        shown
            .ports
            .retain(|name, port| known(&port.bridge) || tunnel(name));
        (shown.passages).retain(|link, _| scope.passages.contains_key(link) || link == ALL);
        shown.links = links;
        shown
    }

    fn make(&mut self, change: &Change) -> Result<(), String> {
        if let Some(left) = self.refusals.get_mut(change)
            && *left > 0
        {
            *left -= 1;
            return Err("refused".to_owned());
        }
        let name = change.link().to_owned();
        if let Change::PutRoute(_, route) = change
            && !self.can_route(route)
        {
            return Err("network is down, or source or nexthop is not there".to_owned());
        }
        let state = &mut self.state;
        let is_there = state.links.contains_key(&name);
        match change {
            Change::DelRoute(..)
            | Change::DelNeighbour(_)
            | Change::DelFdb(_)
            | Change::DelNexthop(..)
            | Change::Firewall(_) => drop(state.apply(change)),
            Change::DelAddress(row) => self.drop_address(row),
            Change::DelLink(_) => self.drop_link(&name),
            Change::AddLink(_, _) if is_there => return Err("file exists".to_owned()),
            Change::AddLink(_, link) => drop(state.links.insert(name, link.clone())),
            _ if !is_there => return Err(format!("there is no link {name}")),
            Change::SetLink(_, settings) => {
                for setting in settings {
                    self.set(&name, setting);
                }
            }
            Change::AddAddress(row) => drop(state.addresses.insert(row.clone())),
            Change::PutNexthop(id, _) => {
                let foreign = state.foreign_nexthops.as_ref();
                let is_up = state.links.get(&*name).is_some_and(|link| link.up);
                if !is_up || foreign.is_none_or(|ids| ids.contains(id)) {
                    return Err("network is down or id is not ours".to_owned());
                }
                state.apply(change);
            }
            Change::PutFdb(..) | Change::PutNeighbour(..) | Change::PutRoute(..) => {
                state.apply(change);
            }
        }
        Ok(())
    }

    fn can_route(&self, route: &Route) -> bool {
        let has_source = |source| {
            let mut rows = self.state.addresses.iter();
            rows.any(|row| row.address.addr() == source)
        };
        let leads = |id: u32| {
            let hop = self.state.nexthops.get(&id);
            hop.is_some_and(|hop| hop.link == route.link && Some(hop.gateway) == route.gateway)
        };
        self.state
            .links
            .get(&*route.link)
            .is_some_and(|link| link.up)
            && route.nexthop.is_none_or(leads)
            && route.source.is_none_or(has_source)
    }

    fn drop_address(&mut self, lost: &super::state::Address) {
        let state = &mut self.state;
        if !state.addresses.remove(lost) {
            return;
        }
        let secondary = |row: &super::state::Address| {
            row.link == lost.link && row.address.trunc() == lost.address.trunc()
        };
        state.addresses.retain(|row| !secondary(row));
        let addresses = &state.addresses;
        let has = |source| addresses.iter().any(|row| row.address.addr() == source);
        state.routes.retain(|_, route| route.source.is_none_or(has));
        if !addresses.iter().any(|row| row.link == lost.link) {
            let plain = |route: &Route| route.link == lost.link && route.nexthop.is_none();
            state.routes.retain(|_, route| !plain(route));
            state.neighbours.retain(|row, _| row.link != lost.link);
        }
    }

    pub(crate) fn drop_link(&mut self, name: &str) {
        self.flush(name);
        let state = &mut self.state;
        state.links.remove(name);
        state.addresses.retain(|row| &*row.link != name);
        state.fdb.retain(|row, _| &*row.link != name);
        state
            .ports
            .retain(|port, on| on.bridge != name && port != name);
    }

    /// What goes when a link goes down.
    fn flush(&mut self, name: &str) {
        self.state.nexthops.retain(|_, hop| &*hop.link != name);
        self.state.routes.retain(|_, route| &*route.link != name);
        self.state.neighbours.retain(|row, _| &*row.link != name);
    }

    fn set(&mut self, name: &str, setting: &Setting) {
        let passage = self.state.passages.get_mut(name);
        let Some(link) = self.state.links.get_mut(name) else {
            return;
        };
        match setting {
            Setting::Mark => link.marked = true,
            Setting::NoLinkLocal => {}
            Setting::Free => drop(self.state.ports.remove(name)),
            Setting::Mac(mac) => {
                link.mac = Some(*mac);
                self.state.neighbours.retain(|row, _| &*row.link != name);
            }
            Setting::Mtu(mtu) => link.mtu = *mtu,
            Setting::Local(address) => set_tunnel(link, |local, _| *local = *address),
            Setting::Learning(on) => set_tunnel(link, |_, learning| *learning = *on),
            Setting::Forwarding => {
                if let Some(passage) = passage {
                    passage.forwards = true;
                }
            }
            Setting::LooseFilter => {
                if let Some(passage) = passage {
                    passage.rejected.clear();
                }
            }
            Setting::Down => {
                link.up = false;
                self.flush(name);
            }
            Setting::Up => link.up = true,
        }
    }
}

fn set_tunnel(link: &mut Link, set: impl Fn(&mut std::net::Ipv4Addr, &mut bool)) {
    if let LinkKind::Vxlan {
        local, learning, ..
    } = &mut link.kind
    {
        set(local, learning);
    }
}

impl Kernel for Fake {
    async fn observe(&mut self, scope: &Scope) -> Result<KernelState, KernelError> {
        self.reads += 1;
        Ok(self.shown(scope))
    }

    async fn apply(&mut self, changes: &[Change]) -> Result<Vec<Failure>, KernelError> {
        let mut failures = Vec::new();
        for change in changes {
            if let Err(reason) = self.make(change) {
                let change = change.clone();
                failures.push(Failure { change, reason });
            }
        }
        Ok(failures)
    }
}
