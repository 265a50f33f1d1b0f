//! What there is to choose an uplink from.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Netlink;
use crate::kernel::KernelError;
use crate::kernel::decode::{self, Names};
use crate::kernel::state::Link;
use crate::kernel::uplink::{
    DefaultRoute, Interface, InterfaceAddress, Interfaces, Preference, Reach,
};

impl Netlink {
    /// All interfaces but flannel's own, the default routes, and the kernel's way to what the
    /// preference wants to be reached. Reads the whole main table where the default route counts.
    ///
    /// # Errors
    /// [`KernelError`] where the kernel could not be asked.
    pub async fn interfaces(&mut self, preference: &Preference) -> Result<Interfaces, KernelError> {
        let is_anybodys = |link: &Link, name: &str| !link.marked && !is_flannels(name);
        let interfaces = self.interfaces_that(is_anybodys).await?;
        let Preference {
            interface,
            regex,
            can_reach,
            public_ip,
        } = preference;
        let said = interface.is_some() || regex.is_some() || public_ip.is_some();
        Ok(Interfaces {
            interfaces: interfaces.into_values().collect(),
            default_routes: match (said, can_reach) {
                (false, None) => self.default_routes().await?,
                (true, _) | (_, Some(_)) => Vec::new(),
            },
            reach: match can_reach {
                Some(address) => self.reach(*address).await?,
                None => None,
            },
        })
    }

    /// The interfaces that have a name as flanneld gives, and are not ours.
    ///
    /// # Errors
    /// [`KernelError`] where the kernel could not be asked.
    pub async fn flannelds(&mut self) -> Result<Vec<Interface>, KernelError> {
        let is_flannelds = |link: &Link, name: &str| !link.marked && is_flannels(name);
        let interfaces = self.interfaces_that(is_flannelds).await?;
        Ok(interfaces.into_values().collect())
    }

    async fn interfaces_that(
        &mut self,
        are: fn(&Link, &str) -> bool,
    ) -> Result<BTreeMap<u32, Interface>, KernelError> {
        let mut interfaces: BTreeMap<u32, Interface> = BTreeMap::new();
        for message in &self.links().await? {
            let link = decode::link(message, &self.names);
            if let Some(name) = decode::name(message).filter(|name| are(&link, name)) {
                let interface = Interface {
                    name: name.to_owned(),
                    mtu: link.mtu,
                    addresses: Vec::new(),
                };
                interfaces.insert(message.header.index, interface);
            }
        }
        for (index, address) in self.interface_addresses().await? {
            if let Some(interface) = interfaces.get_mut(&index) {
                interface.addresses.push(address);
            }
        }
        Ok(interfaces)
    }

    async fn interface_addresses(&mut self) -> Result<Vec<(u32, InterfaceAddress)>, KernelError> {
        let mut request = AddressMessage::default();
        request.header.family = AddressFamily::Inet;
        let request = RouteNetlinkMessage::GetAddress(request);
        (self.socket)
            .dump("listing addresses", request, |message| {
                match message.parsed()? {
                    RouteNetlinkMessage::NewAddress(row) => {
                        let address = interface_address(&row, &self.names)?;
                        Some((row.header.index, address))
                    }
                    _ => None,
                }
            })
            .await
    }

    async fn default_routes(&mut self) -> Result<Vec<DefaultRoute>, KernelError> {
        let mut request = RouteMessage::default();
        request.header.address_family = AddressFamily::Inet;
        request.header.table = RouteHeader::RT_TABLE_MAIN;
        let request = RouteNetlinkMessage::GetRoute(request);
        (self.socket)
            .dump("listing default routes", request, |message| {
                match message.parsed()? {
                    RouteNetlinkMessage::NewRoute(route) => default_route(&route, &self.names),
                    _ => None,
                }
            })
            .await
    }

    pub(super) async fn reach(&mut self, address: Ipv4Addr) -> Result<Option<Reach>, KernelError> {
        let mut request = RouteMessage::default();
        request.header.address_family = AddressFamily::Inet;
        request.header.destination_prefix_length = 32;
        let destination = RouteAttribute::Destination(RouteAddress::Inet(address));
        request.attributes.push(destination);
        let request = RouteNetlinkMessage::GetRoute(request);
        // A refusal is most often "network is unreachable", which is an answer.
        let answer = self.socket.ask("looking up a route", request).await?;
        match answer.ok().flatten().and_then(|answer| answer.parsed()) {
            Some(RouteNetlinkMessage::NewRoute(route)) => Ok(way(&route, &self.names)),
            _ => Ok(None),
        }
    }
}

/// Whether a link, marked or not, has a name as flanneld gives: `flannel0`, `flannel.1`,
/// `flannel-v6.1`.
fn is_flannels(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("flannel") else {
        return false;
    };
    let digits = rest.strip_prefix("-v6.").or_else(|| rest.strip_prefix('.'));
    let digits = digits.unwrap_or(rest);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn interface_address(message: &AddressMessage, names: &Names) -> Option<InterfaceAddress> {
    let row = decode::address(message, names)?;
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    for attribute in &message.attributes {
        if let AddressAttribute::Flags(all) = attribute {
            flags = *all;
        }
    }
    Some(InterfaceAddress {
        address: row.address,
        permanent: flags.contains(AddressFlags::Permanent),
        deprecated: flags.contains(AddressFlags::Deprecated),
    })
}

fn default_route(message: &RouteMessage, names: &Names) -> Option<DefaultRoute> {
    let header = &message.header;
    if header.destination_prefix_length != 0
        || header.kind != RouteType::Unicast
        || header.table != RouteHeader::RT_TABLE_MAIN
        || header.tos != 0
    {
        return None;
    }
    let mut route = DefaultRoute {
        metric: 0,
        interfaces: Vec::new(),
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::Oif(index) => route
                .interfaces
                .extend(names.get(index).map(ToString::to_string)),
            RouteAttribute::MultiPath(hops) => {
                let hops = hops
                    .iter()
                    .filter_map(|hop| names.get(&hop.interface_index));
                route.interfaces.extend(hops.map(ToString::to_string));
            }
            _ => {}
        }
    }
    Some(route)
}

fn way(message: &RouteMessage, names: &Names) -> Option<Reach> {
    let mut interface = None;
    let mut source = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = names.get(index).map(ToString::to_string),
            RouteAttribute::PrefSource(RouteAddress::Inet(address)) => source = Some(*address),
            _ => {}
        }
    }
    let interface = interface?;
    Some(Reach { interface, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_names_of_flannels_links() {
        for name in ["flannel0", "flannel.1", "flannel.4096", "flannel-v6.1"] {
            assert!(is_flannels(name), "{name}");
        }
        for name in ["eth0", "flannel", "flannel.", "flannel.x", "flannel-wan"] {
            assert!(!is_flannels(name), "{name}");
        }
    }
}
