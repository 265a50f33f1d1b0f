//! Which interface leads to the other nodes (flannel facts §6).

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use regex::Regex;

/// What the administrator said. With nothing said, the default route decides.
#[derive(Debug, Clone, Default)]
pub struct Preference {
    /// An interface's name, or an address of it.
    pub interface: Option<String>,
    /// A pattern for an address, or else for a name. It may match anywhere in the text.
    pub regex: Option<Regex>,
    /// An address to which the interface must lead.
    pub can_reach: Option<Ipv4Addr>,
    /// The address under which the other nodes reach us. Without any other word the interface is
    /// the one that has it.
    pub public_ip: Option<Ipv4Addr>,
}

/// The interface that leads to the other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Its name.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its address: the source of tunnel packets.
    pub address: Ipv4Addr,
    /// Where the other nodes send to.
    pub public_ip: Ipv4Addr,
    /// The networks whose hosts it reaches without a gateway.
    pub networks: Vec<Ipv4Net>,
}

/// What there is to choose from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interfaces {
    /// Interfaces in the kernel's order; flannel's own are left out.
    pub interfaces: Vec<Interface>,
    /// The default routes of the main table.
    pub default_routes: Vec<DefaultRoute>,
    /// The kernel's way to [`Preference::can_reach`]; `None` where it has none.
    pub reach: Option<Reach>,
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its IPv4 addresses in the kernel's order.
    pub addresses: Vec<InterfaceAddress>,
}

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The address with its prefix length.
    pub address: Ipv4Net,
    /// Whether it has no end of life: not from DHCP or the like.
    pub permanent: bool,
    /// Whether it should not be used for anything new.
    pub deprecated: bool,
}

/// A default route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultRoute {
    /// The lower, the better.
    pub metric: u32,
    /// The names of the interfaces of its next hops.
    pub interfaces: Vec<String>,
}

/// The kernel's way to an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// The interface's name.
    pub interface: String,
    /// The address that packets would be sent from.
    pub source: Option<Ipv4Addr>,
}

/// No interface could be chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UplinkError {
    /// No interface of this name.
    #[error("no interface named {name:?}; there are {there}")]
    NoInterface {
        /// What was looked for.
        name: String,
        /// The names of what there is.
        there: List,
    },
    /// No interface with this address.
    #[error("no interface has the address {address}; there are {there}")]
    NoAddress {
        /// What was looked for.
        address: Ipv4Addr,
        /// Addresses and names of what there is.
        there: List,
    },
    /// No interface with the public address, and nothing else to go by.
    #[error(
        "no interface has the public address {address}; there are {there}. \
         If it is that of a gateway, set node.interface too"
    )]
    NoPublicAddress {
        /// The public address.
        address: Ipv4Addr,
        /// Addresses and names of what there is.
        there: List,
    },
    /// Nothing matches the pattern.
    #[error("no address or interface name matches {regex:?}; there are {there}")]
    NoMatch {
        /// The pattern.
        regex: String,
        /// Addresses and names of what there is.
        there: List,
    },
    /// The kernel has no way there, or only one over flannel's own links.
    #[error("no route to {address} over any of {there}: set node.interface, or add a route")]
    NoRoute {
        /// What should be reached.
        address: Ipv4Addr,
        /// The names of what there is.
        there: List,
    },
    /// No default route, or only over flannel's own links.
    #[error("no default route: set node.interface to one of {there}")]
    NoDefaultRoute {
        /// The names of what there is.
        there: List,
    },
    /// A default route over several interfaces.
    #[error(
        "the default route leads over several interfaces: set node.interface to one of {there}"
    )]
    ManyDefaultRoutes {
        /// The names of those interfaces.
        there: List,
    },
    /// The interface has no address that the others could reach.
    #[error(
        "interface {name} has no usable IPv4 address: give it one, or set node.interface to another"
    )]
    Unaddressed {
        /// The interface's name.
        name: String,
    },
    /// The interface cannot carry packets.
    #[error("interface {name} has an MTU of 0")]
    NoMtu {
        /// The interface's name.
        name: String,
    },
    /// None of several preferences fits.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    All(Vec<UplinkError>),
}

/// Names, to show to a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List(Vec<String>);

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [] => f.write_str("none"),
            names => f.write_str(&names.join(", ")),
        }
    }
}

/// Chooses the uplink. Of several preferences the first that fits wins: the interface, the
/// pattern, what it must reach.
///
/// # Errors
/// [`UplinkError`] with what was looked for and what there is.
pub fn choose(preference: &Preference, there: &Interfaces) -> Result<Uplink, UplinkError> {
    let tries = [
        (preference.interface.as_deref()).map(|name| there.by_name_or_address(name)),
        (preference.regex.as_ref()).map(|regex| there.by_regex(regex)),
        (preference.can_reach).map(|address| there.by_reach(address)),
    ];
    let mut errors = Vec::new();
    let mut found = None;
    for result in tries.into_iter().flatten() {
        match result {
            Ok(choice) => {
                found = Some(choice);
                break;
            }
            Err(error) => errors.push(error),
        }
    }
    let (interface, address) = match (found, errors.len()) {
        (Some(choice), _) => choice,
        (None, 0) => match preference.public_ip {
            Some(address) => there.by_public_ip(address)?,
            None => there.by_default_route()?,
        },
        (None, 1) => return Err(errors.remove(0)),
        (None, _) => return Err(UplinkError::All(errors)),
    };
    let name = interface.name.clone();
    if interface.mtu == 0 {
        return Err(UplinkError::NoMtu { name });
    }
    let Some(address) = address.or_else(|| interface.best_address()) else {
        return Err(UplinkError::Unaddressed { name });
    };
    Ok(Uplink {
        name,
        mtu: interface.mtu,
        address,
        public_ip: preference.public_ip.unwrap_or(address),
        networks: interface.networks(),
    })
}

/// An interface, and its address if that is settled with it.
type Choice<'a> = (&'a Interface, Option<Ipv4Addr>);

impl Interfaces {
    /// Whether the interface is there, and still has the address that packets are sent from.
    #[must_use]
    pub fn has(&self, uplink: &Uplink) -> bool {
        let named = self.interfaces.iter().find(|i| i.name == uplink.name);
        named.is_some_and(|i| {
            i.addresses
                .iter()
                .any(|a| a.address.addr() == uplink.address)
        })
    }

    fn by_name_or_address(&self, text: &str) -> Result<Choice<'_>, UplinkError> {
        if let Ok(address) = text.parse() {
            return self
                .by_address(address)
                .ok_or_else(|| UplinkError::NoAddress {
                    address,
                    there: self.addresses(),
                });
        }
        let found = self.named(text);
        found.ok_or_else(|| UplinkError::NoInterface {
            name: text.to_owned(),
            there: self.names(),
        })
    }

    fn by_public_ip(&self, address: Ipv4Addr) -> Result<Choice<'_>, UplinkError> {
        self.by_address(address)
            .ok_or_else(|| UplinkError::NoPublicAddress {
                address,
                there: self.addresses(),
            })
    }

    fn by_address(&self, address: Ipv4Addr) -> Option<Choice<'_>> {
        let has = |i: &&Interface| i.addresses.iter().any(|a| a.address.addr() == address);
        Some((self.interfaces.iter().find(has)?, Some(address)))
    }

    /// Names count only if no address matches anywhere.
    fn by_regex(&self, regex: &Regex) -> Result<Choice<'_>, UplinkError> {
        let by_address = || {
            self.interfaces.iter().find_map(|interface| {
                let matches = |a: &&InterfaceAddress| {
                    a.is_usable() && regex.is_match(&a.address.addr().to_string())
                };
                let found = interface.addresses.iter().filter(matches);
                let best = found.min_by_key(|a| a.rank())?;
                Some((interface, Some(best.address.addr())))
            })
        };
        let by_name = || {
            let matches = |i: &&Interface| regex.is_match(&i.name);
            Some((self.interfaces.iter().find(matches)?, None))
        };
        by_address()
            .or_else(by_name)
            .ok_or_else(|| UplinkError::NoMatch {
                regex: regex.to_string(),
                there: self.addresses(),
            })
    }

    fn by_reach(&self, address: Ipv4Addr) -> Result<Choice<'_>, UplinkError> {
        if let Some(choice) = self.by_address(address) {
            // The kernel would say that the way to ourselves is the loopback interface.
            return Ok(choice);
        }
        let found = self.reach.as_ref().and_then(|reach| {
            let (interface, _) = self.named(&reach.interface)?;
            Some((interface, reach.source))
        });
        found.ok_or_else(|| UplinkError::NoRoute {
            address,
            there: self.names(),
        })
    }

    fn by_default_route(&self) -> Result<Choice<'_>, UplinkError> {
        let none = || UplinkError::NoDefaultRoute {
            there: self.names(),
        };
        let ours = |route: &&DefaultRoute| {
            route
                .interfaces
                .iter()
                .any(|name| self.named(name).is_some())
        };
        let routes = self.default_routes.iter().filter(ours);
        let best = routes.min_by_key(|route| route.metric).ok_or_else(none)?;
        let (first, rest) = best.interfaces.split_first().ok_or_else(none)?;
        if rest.iter().any(|other| other != first) {
            let there = List(best.interfaces.clone());
            return Err(UplinkError::ManyDefaultRoutes { there });
        }
        self.named(first).ok_or_else(none)
    }

    fn named(&self, name: &str) -> Option<Choice<'_>> {
        let found = self.interfaces.iter().find(|i| i.name == name)?;
        Some((found, None))
    }

    fn names(&self) -> List {
        let names = self.interfaces.iter().map(|i| i.name.clone());
        List(names.filter(|name| name != "lo").collect())
    }

    fn addresses(&self) -> List {
        let each = self.interfaces.iter().flat_map(|interface| {
            let name = &interface.name;
            let addresses = interface.addresses.iter();
            addresses.map(move |a| format!("{} on {name}", a.address.addr()))
        });
        List(each.collect())
    }
}

impl Interface {
    fn best_address(&self) -> Option<Ipv4Addr> {
        let usable = self.addresses.iter().filter(|a| a.is_usable());
        let best = usable.min_by_key(|a| a.rank())?;
        Some(best.address.addr())
    }

    fn networks(&self) -> Vec<Ipv4Net> {
        let mut networks: Vec<_> = (self.addresses.iter())
            .map(|a| a.address.trunc())
            .filter(|network| network.prefix_len() < 32)
            .collect();
        networks.sort();
        networks.dedup();
        networks
    }
}

impl InterfaceAddress {
    fn is_usable(&self) -> bool {
        let address = self.address.addr();
        !self.deprecated
            && !address.is_loopback()
            && !address.is_unspecified()
            && !address.is_multicast()
            && !address.is_broadcast()
    }

    /// The lower, the better: global before link-local, permanent before dynamic.
    fn rank(&self) -> (bool, bool) {
        (self.address.addr().is_link_local(), !self.permanent)
    }
}

#[cfg(test)]
mod tests;
