//! What was read of a host, and what became of the packets that were sent: the checks know no more.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::host::Host;
use crate::kernel::firewall::ForeignChain;
use crate::service::status::Fault;

/// All that is known of a host.
#[derive(Debug, Clone, Default)]
pub struct Examination {
    /// Why the service could not be asked, if so.
    pub silence: Option<String>,
    /// What the service says is wrong.
    pub faults: Vec<Fault>,
    /// What the host should be; `None` where the service does not say.
    pub host: Option<Host>,
    /// The links of the network namespace, by name.
    pub links: BTreeMap<String, SeenLink>,
    /// `net.ipv4.ip_forward`, if it could be read.
    pub forwards: Option<bool>,
    /// Those of the links that packets of containers take which do not forward.
    pub still_links: Vec<String>,
    /// Where the kernel would send what a container sends to a peer's subnet.
    pub ways: Vec<Way>,
    /// Peers' packets that the kernel would drop because it would answer by another link.
    pub strict: Vec<Strict>,
    /// `subnet.env`, if it is there.
    pub subnet_env: Option<String>,
    /// `docker.env`, if it is there.
    pub docker_env: Option<String>,
    /// The processes of flanneld in this network namespace.
    pub flannelds: Vec<u32>,
    /// What flanneld has left in the packet filter, in words.
    pub leftovers: Vec<String>,
    /// The tables of iptables-legacy, such as `filter`.
    pub legacy_tables: Vec<String>,
    /// The base chains of nftables that packets for this host, or through it, come to.
    pub chains: Vec<SeenChain>,
    /// Whether packets from container to container go through iptables too.
    pub bridge_calls_iptables: bool,
    /// What became of packets; `None` where none were sent.
    pub probes: Option<Probes>,
}

/// A link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeenLink {
    /// Its index.
    pub index: u32,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// The bridge that it is a port of.
    pub bridge: Option<String>,
    /// Its IPv4 addresses.
    pub addresses: Vec<Ipv4Net>,
}

/// Where packets for a peer's subnet go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The peer's subnet.
    pub subnet: Ipv4Net,
    /// The link and the gateway that the kernel would take; `None` where it has no route.
    pub taken: Option<(String, Option<Ipv4Addr>)>,
}

/// A peer's packets would be dropped by reverse path filtering.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strict {
    /// The peer's subnet.
    pub subnet: Ipv4Net,
    /// The link that they come in by.
    pub link: String,
}

/// A base chain of nftables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenChain {
    /// Its family, such as `ip` or `inet`.
    pub family: String,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Where packets come to it.
    pub hook: SeenHook,
    /// Whether it drops what no rule of it accepts.
    pub drops: bool,
}

/// The hooks, as far as they matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeenHook {
    /// What is for this host.
    Input,
    /// What passes through.
    Forward,
    /// Any other.
    Other,
}

/// What became of packets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Probes {
    /// What they were sent from.
    pub vantage: Vantage,
    /// Whether a second container on the bridge answered the first.
    pub neighbour: Option<bool>,
    /// What became of those to peers.
    pub peers: Vec<PeerProbe>,
    /// What became of those to the outside; `None` where there is no way out.
    pub outside: Option<Outside>,
}

/// What packets were sent from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Vantage {
    /// A throw-away container on the bridge, with this address.
    Container(Ipv4Addr),
    /// The host itself, as there is no bridge.
    #[default]
    Host,
}

/// What became of the packets to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerProbe {
    /// Its subnet.
    pub subnet: Ipv4Net,
    /// Where tunnel packets for it go.
    pub public_ip: Ipv4Addr,
    /// The link that packets for it should leave by.
    pub link: String,
    /// The source address with which a packet left by that link; `None` if none did.
    pub left: Option<Ipv4Addr>,
    /// Whether any packet of the peer's came out of that link.
    pub emerged: bool,
    /// Whether an answer reached the sender.
    pub answered: bool,
    /// Whether packets for the tunnel came from it to the uplink.
    pub arrived: bool,
    /// Whether its public IP answers; `None` if it was not asked.
    pub public_answers: Option<bool>,
    /// What became of the longest packets; `None` if none were sent.
    pub full: Option<Full>,
    /// What became of TCP; `None` if none was sent.
    pub tcp: Option<Tcp>,
}

/// What became of packets as long as the MTU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// They were answered.
    Answered,
    /// They were lost; this is the length of the longest that was not, if any.
    Lost(Option<u16>),
}

/// What became of the first packet of a TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcp {
    /// Whether one from the kernel was answered, whose checksum a device may have to finish.
    pub offloaded: bool,
    /// Whether one with a finished checksum was answered.
    pub finished: bool,
}

/// What became of a packet to the outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outside {
    /// The link that the kernel sends it by.
    pub link: String,
    /// With which source address it left; `None` if it did not.
    pub left: Option<Ipv4Addr>,
}

impl SeenChain {
    /// What nft(8) wants to be told to add a rule.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{} {} {}", self.family, self.table, self.name)
    }
}

impl Examination {
    /// The chains of a hook that drop what none of their rules accepts. Those that the service has
    /// its own rules in come last.
    #[must_use]
    pub fn dropping(&self, hook: SeenHook) -> Vec<&SeenChain> {
        let chains = self.chains.iter();
        let mut found: Vec<_> = chains
            .filter(|chain| chain.hook == hook && chain.drops)
            .collect();
        found.sort_by_key(|chain| chain.has_passes());
        found
    }
}

impl SeenChain {
    /// Whether the service has its own rules there, if it is told to.
    #[must_use]
    pub fn has_passes(&self) -> bool {
        let names = (self.table.as_str(), self.name.as_str());
        self.family == "ip" && ForeignChain::ALL.iter().any(|chain| chain.names() == names)
    }
}

impl fmt::Display for SeenChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.family, self.table, self.name)
    }
}
