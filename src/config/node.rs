//! `[node]`: this host within the cluster.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use regex::Regex;
use toml::Spanned;

use super::check::interface_name;
use super::error::Fault;
use super::raw;
use crate::cluster::network::Network;
use crate::cluster::subnet::Subnet;
use crate::kernel::uplink::Preference;

/// This host within the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What the node calls itself; `None` is the host name.
    pub name: Option<String>,
    /// Which interface carries the traffic between nodes.
    pub interface: Interface,
    /// What peers send to; `None` is the interface's address.
    pub public_ip: Option<Ipv4Addr>,
    /// The subnet to ask for, always this one; `None` is any.
    pub subnet: Option<Subnet>,
}

/// Which interface carries the traffic between nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interface {
    /// That of the default route.
    DefaultRoute,
    /// The one of this name.
    Name(String),
    /// The one with this address.
    Address(Ipv4Addr),
    /// The first whose name or address matches.
    Matching(Pattern),
    /// The one that the kernel would send through to this address.
    Reaching(Ipv4Addr),
}

/// A regular expression; equal when written the same.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

impl Pattern {
    /// Whether the expression matches somewhere in `text`, as in flanneld: not anchored.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    /// The expression as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl Node {
    /// The choice of the uplink in the kernel's words.
    #[must_use]
    pub fn preference(&self) -> Preference {
        let mut preference = Preference {
            public_ip: self.public_ip,
            ..Preference::default()
        };
        match &self.interface {
            Interface::DefaultRoute => {}
            Interface::Name(name) => preference.interface = Some(name.clone()),
            Interface::Address(address) => preference.interface = Some(address.to_string()),
            Interface::Matching(Pattern(regex)) => preference.regex = Some(regex.clone()),
            Interface::Reaching(address) => preference.can_reach = Some(*address),
        }
        preference
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

impl raw::Node {
    pub(super) fn check(self, network: Option<&Network>) -> Result<Node, Fault> {
        if let Some(name) = self.name.as_ref().filter(|name| !is_name(name.get_ref())) {
            return Err(Fault::value(name, "name", NAME));
        }
        let interface = self.interface()?;
        let public_ip = match &self.public_ip {
            None => None,
            Some(text) => Some(public_ip(text, network)?),
        };
        let subnet = match &self.subnet {
            None => None,
            Some(text) => Some(subnet(text, network)?),
        };
        Ok(Node {
            name: self.name.map(Spanned::into_inner),
            interface,
            public_ip,
            subnet,
        })
    }

    fn interface(&self) -> Result<Interface, Fault> {
        let choices = [
            ("interface", &self.interface),
            ("interface-regex", &self.interface_regex),
            ("can-reach", &self.can_reach),
        ];
        let mut given = choices
            .iter()
            .filter_map(|(key, text)| Some((*key, text.as_ref()?)));
        let Some((key, text)) = given.next() else {
            return Ok(Interface::DefaultRoute);
        };
        if let Some((second, text)) = given.next() {
            let message = format!(
                "{second} does not go with {key}: \
                 give only one of interface, interface-regex and can-reach"
            );
            return Err(Fault::new(text.span(), message));
        }
        match key {
            "interface" => named(text),
            "interface-regex" => matching(text),
            _ => {
                const REASON: &str = "expected an IPv4 address such as \"192.168.1.1\"";
                let address = text.get_ref().parse();
                let address = address.map_err(|_| Fault::value(text, key, REASON))?;
                Ok(Interface::Reaching(address))
            }
        }
    }
}

/// What a node may be called.
pub(super) const NAME: &str = "expected a host name: 1 to 253 bytes without blanks and /";

/// Whether a node may be called so.
pub(super) fn is_name(text: &str) -> bool {
    let odd = |c: char| c == '/' || c.is_control() || c.is_whitespace();
    !text.is_empty() && text.len() <= 253 && !text.contains(odd)
}

fn named(text: &Spanned<String>) -> Result<Interface, Fault> {
    match text.get_ref().parse() {
        Ok(IpAddr::V4(address)) => Ok(Interface::Address(address)),
        Ok(IpAddr::V6(_)) => {
            let reason = "expected an interface name or an IPv4 address: nodes speak IPv4";
            Err(Fault::value(text, "interface", reason))
        }
        Err(_) => {
            interface_name(text, "interface")?;
            Ok(Interface::Name(text.get_ref().clone()))
        }
    }
}

fn matching(text: &Spanned<String>) -> Result<Interface, Fault> {
    let regex = Regex::new(text.get_ref()).map_err(|e| {
        // the lines before the last repeat the expression with a marker
        let e = e.to_string();
        let why = e.lines().last().unwrap_or_default();
        let why = why.trim_start_matches("error: ");
        let reason = format!("{why}; expected a regular expression such as \"^en\"");
        Fault::value(text, "interface-regex", &reason)
    })?;
    Ok(Interface::Matching(Pattern(regex)))
}

/// An address that peers can send to.
pub(super) fn public_ip(
    text: &Spanned<String>,
    network: Option<&Network>,
) -> Result<Ipv4Addr, Fault> {
    const REASON: &str =
        "expected an IPv4 address that the other nodes can send to, such as \"192.168.1.47\"";
    let error = |reason: &str| Fault::value(text, "public-ip", reason);
    let address: Ipv4Addr = text.get_ref().parse().map_err(|_| error(REASON))?;
    let nowhere = address.is_unspecified() || address.is_loopback();
    if nowhere || address.is_multicast() || address.is_broadcast() {
        return Err(error(REASON));
    }
    match network {
        Some(network) if network.net.contains(&address) => Err(error(&format!(
            "inside of the overlay network {}, which is reached through it",
            network.net
        ))),
        _ => Ok(address),
    }
}

/// A subnet that the network has a place for.
pub(super) fn subnet(text: &Spanned<String>, network: Option<&Network>) -> Result<Subnet, Fault> {
    let error = |reason: &str| Fault::value(text, "subnet", reason);
    let net: Ipv4Net = (text.get_ref().parse())
        .map_err(|_| error("expected an IPv4 subnet such as \"100.96.1.0/24\""))?;
    if net != net.trunc() {
        return Err(error(&format!(
            "host bits are set, expected {}",
            net.trunc()
        )));
    }
    if net.prefix_len() > 30 || net.prefix_len() == 0 {
        return Err(error("expected a prefix length of 1 to 30"));
    }
    let subnet = Subnet::new(net);
    match network {
        Some(network) if !network.net.contains(&net) => {
            Err(error(&format!("outside of the network {}", network.net)))
        }
        Some(network) if network.subnet_len != net.prefix_len() => Err(error(&format!(
            "the network is divided into /{} subnets",
            network.subnet_len
        ))),
        Some(network) if !network.allows(subnet) => Err(error(&format!(
            "expected one from {} (subnet-min) to {} (subnet-max)",
            network.first, network.last
        ))),
        _ => Ok(subnet),
    }
}
