//! The standing of links: what is made, altered, replaced, left alone.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;

use super::{Difference, Losses, Standing};
use crate::kernel::change::{Change, Obstacle, Setting};
use crate::kernel::state::{KernelState, Link, LinkKind};

impl<'a> Difference<'a> {
    pub(super) fn links(&mut self) {
        let names: BTreeSet<&'a String> = (self.observed.links.keys())
            .chain(self.desired.links.keys())
            .collect();
        for name in names {
            let standing = match (self.observed.links.get(name), self.desired.links.get(name)) {
                (None, Some(wanted)) => self.make(name, wanted),
                (Some(found), None) if found.marked => self.unwanted(name, found),
                (Some(found), Some(wanted)) => self.compare(name, found, wanted),
                (_, None) => continue,
            };
            self.standings.insert(name, standing);
        }
    }

    fn make(&mut self, name: &str, wanted: &Link) -> Standing {
        if wanted.kind == LinkKind::Tun {
            let link = name.to_owned();
            return self.bar(Obstacle::Missing { link });
        }
        self.change(Change::AddLink(name.to_owned(), wanted.clone()));
        Standing::Made
    }

    fn unwanted(&mut self, name: &str, found: &Link) -> Standing {
        match found.kind {
            // We make no such thing, so the alias was put there by somebody else.
            LinkKind::Other(_) => return Standing::Barred,
            LinkKind::Bridge if self.is_taken(name) => return self.bar_foreign(name),
            LinkKind::Bridge | LinkKind::Vxlan { .. } | LinkKind::Tun => {}
        }
        self.remove(name).unwrap_or(Standing::Gone)
    }

    fn compare(&mut self, name: &str, found: &Link, wanted: &Link) -> Standing {
        match (&found.kind, &wanted.kind) {
            (LinkKind::Bridge, LinkKind::Bridge) => self.compare_bridge(name, found, wanted),
            (LinkKind::Tun, LinkKind::Tun) => self.alter(name, found, wanted),
            (LinkKind::Vxlan { .. }, LinkKind::Vxlan { .. }) => {
                if same_tunnel(&found.kind, &wanted.kind) {
                    self.alter(name, found, wanted)
                } else {
                    self.replace(name, wanted)
                }
            }
            (LinkKind::Other(_), _) => self.bar_in_the_way(name, found, wanted),
            _ if found.marked => self.replace(name, wanted),
            _ => self.bar_in_the_way(name, found, wanted),
        }
    }

    fn replace(&mut self, name: &str, wanted: &Link) -> Standing {
        match self.remove(name) {
            Some(barred) => barred,
            None => self.make(name, wanted),
        }
    }

    /// Deletes a link, unless it is a bridge that is in use: `Some` is its standing then.
    fn remove(&mut self, name: &str) -> Option<Standing> {
        let ports: Vec<String> = (self.observed.ports.iter())
            .filter(|(_, port)| port.bridge == name)
            .map(|(port, _)| port.clone())
            .collect();
        if !ports.is_empty() {
            let link = name.to_owned();
            return Some(self.bar(Obstacle::InUse { link, ports }));
        }
        self.change(Change::DelLink(name.to_owned()));
        None
    }

    fn alter(&mut self, name: &str, found: &Link, wanted: &Link) -> Standing {
        let mut settings = settings(found, wanted);
        if found.kind.is_tunnel() && self.observed.ports.contains_key(name) {
            settings.insert(0, Setting::Free);
        }
        let losses = Losses {
            neighbours: (settings.iter()).any(|s| matches!(s, Setting::Mac(_) | Setting::Down)),
            plain_routes: settings.contains(&Setting::Down),
            nexthops: settings.contains(&Setting::Down),
        };
        if !settings.is_empty() {
            self.change(Change::SetLink(name.to_owned(), settings));
        }
        Standing::Kept(losses)
    }

    /// A bridge may be made, or be taken over, by a container runtime. So one that has somebody
    /// else's address is theirs, and one that already has ours needs nothing. A claim overrules.
    fn compare_bridge(&mut self, name: &str, found: &Link, wanted: &Link) -> Standing {
        let is = addresses(self.observed, name);
        let should = addresses(self.desired, name);
        let has_ours = should.iter().all(|address| is.contains(address));
        if self.scope.claims(name) {
            return self.alter(name, found, wanted);
        }
        if found.marked {
            if !has_ours && (self.is_taken(name) || self.is_astray(name)) {
                return self.bar_foreign(name);
            }
        } else if !is.is_empty() {
            return if has_ours {
                Standing::Barred
            } else {
                self.bar_foreign(name)
            };
        }
        self.alter(name, found, wanted)
    }

    /// Whether a bridge carries an address that cannot be ours.
    fn is_taken(&self, name: &str) -> bool {
        if self.scope.overlay.is_none() {
            return false;
        }
        (addresses(self.observed, name).iter()).any(|a| !self.scope.holds(a.addr()))
    }

    /// Whether containers run behind a bridge that somebody has given another subnet of the
    /// overlay: dockerd does so with the one that it remembers. After a move of our own the
    /// bridge follows; whoever asked for that knows of the containers.
    fn is_astray(&self, name: &str) -> bool {
        let moved = [self.scope.own, self.scope.former];
        let known = |row: &Ipv4Net| moved.iter().flatten().any(|net| net.contains(&row.addr()));
        let mut ports = self.observed.ports.values();
        ports.any(|port| port.bridge == name)
            && (addresses(self.observed, name).iter()).any(|row| !known(row))
    }

    fn bar_foreign(&mut self, name: &str) -> Standing {
        self.bar(Obstacle::Foreign {
            link: name.to_owned(),
            found: addresses(self.observed, name),
            wanted: addresses(self.desired, name),
        })
    }

    fn bar_in_the_way(&mut self, name: &str, found: &Link, wanted: &Link) -> Standing {
        self.bar(Obstacle::InTheWay {
            link: name.to_owned(),
            found: found.kind.clone(),
            wanted: wanted.kind.clone(),
        })
    }

    fn bar(&mut self, obstacle: Obstacle) -> Standing {
        self.out.obstacles.push(obstacle);
        Standing::Barred
    }
}

fn addresses(state: &KernelState, link: &str) -> Vec<Ipv4Net> {
    (state.addresses.iter())
        .filter(|row| &*row.link == link)
        .map(|row| row.address)
        .collect()
}

/// Whether two vxlan devices differ only in what can be altered in place (`vxlan_changelink`).
fn same_tunnel(found: &LinkKind, wanted: &LinkKind) -> bool {
    let fixed = |kind: &LinkKind| match kind {
        LinkKind::Vxlan {
            vni,
            port,
            underlay,
            gbp,
            ..
        } => Some((*vni, *port, underlay.clone(), *gbp)),
        LinkKind::Bridge | LinkKind::Tun | LinkKind::Other(_) => None,
    };
    fixed(found) == fixed(wanted)
}

fn settings(found: &Link, wanted: &Link) -> Vec<Setting> {
    let mut settings = Vec::new();
    if wanted.marked && !found.marked {
        settings.push(Setting::Mark);
        if wanted.kind.is_tunnel() {
            settings.push(Setting::NoLinkLocal);
        }
    }
    if let Some(mac) = wanted.mac
        && found.mac != wanted.mac
        && wanted.kind != LinkKind::Bridge
    {
        settings.push(Setting::Mac(mac));
    }
    if found.mtu != wanted.mtu {
        settings.push(Setting::Mtu(wanted.mtu));
    }
    settings.extend(tunnel_settings(&found.kind, &wanted.kind));
    match (found.up, wanted.up) {
        (false, true) => settings.push(Setting::Up),
        (true, false) => settings.push(Setting::Down),
        (true, true) | (false, false) => {}
    }
    settings
}

fn tunnel_settings(found: &LinkKind, wanted: &LinkKind) -> Vec<Setting> {
    let loose = |kind: &LinkKind| match kind {
        LinkKind::Vxlan {
            local, learning, ..
        } => Some((*local, *learning)),
        LinkKind::Bridge | LinkKind::Tun | LinkKind::Other(_) => None,
    };
    let (Some(found), Some(wanted)) = (loose(found), loose(wanted)) else {
        return Vec::new();
    };
    let local = (found.0 != wanted.0).then_some(Setting::Local(wanted.0));
    let learning = (found.1 != wanted.1).then_some(Setting::Learning(wanted.1));
    local.into_iter().chain(learning).collect()
}
