//! The packet filter: our own table, and the rules that we have in chains of others.
//!
//! A packet that one base chain of a hook accepts still passes through the others there, and is
//! lost if any of them drops it. So what must be let through is let through *in the chain that
//! would drop it*: see [`Firewall::passes`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// The name of our table, of the family `ip`.
pub const TABLE: &str = "flannel-rs";

/// The comment that marks a rule in a chain of somebody else as ours.
pub const MARK: &str = "flannel-rs";

/// What the host config wants of the packet filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wishes {
    /// What containers send out of the network gets the host's address.
    pub masquerade: bool,
    /// What containers send and get is let through chains that would drop it.
    pub forward: bool,
    /// The tunnel's port is closed to all but live peers' public IPs.
    pub protect_tunnel_port: bool,
    /// A tunnel packet is dropped if its inner source address is of the network, and not in a
    /// subnet of the host that sent it.
    pub verify_source: bool,
}

impl Default for Wishes {
    fn default() -> Self {
        Self {
            masquerade: true,
            forward: true,
            protect_tunnel_port: true,
            verify_source: true,
        }
    }
}

/// The part of the packet filter that is our business.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Firewall {
    /// Our table; `None` is none at all.
    pub table: Option<Table>,
    /// Our rules in chains of others, at the start of each, but right after a jump to
    /// `DOCKER-USER` where there is one: what the administrator says there goes before.
    /// Desired: what a chain should have if it is there; nobody makes it. Observed: the chains
    /// that are there (in `raw`, only those that drop packets to our own subnet), and what they
    /// have of ours; rules at another place than that are [`Rule::STRANGER`]s.
    pub passes: BTreeMap<ForeignChain, Vec<Rule>>,
    /// What flanneld has left behind. Observed, never desired.
    pub leftovers: BTreeSet<Leftover>,
    /// Why the kernel's packet filter cannot be read, if so. Observed, never desired.
    pub refusal: Option<String>,
}

/// Our table.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Table {
    /// Its sets by name.
    pub sets: BTreeMap<String, Set>,
    /// Its base chains by name; all accept what no rule drops.
    pub chains: BTreeMap<String, Chain>,
}

/// A set and what is in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Set {
    /// Addresses of hosts.
    Hosts(BTreeSet<Ipv4Addr>),
    /// Hosts, each with a subnet that is behind it.
    Origins(BTreeSet<(Ipv4Addr, Ipv4Net)>),
}

/// A base chain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chain {
    /// Where packets come to it.
    pub hook: Hook,
    /// Chains of lower priority come first. That of `srcnat` is 100, that of `filter` 0.
    pub priority: i32,
    /// Its rules in order.
    pub rules: Vec<Rule>,
}

/// Where packets come to a base chain (`enum nf_inet_hooks`), and its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// `type filter hook input`.
    Input,
    /// `type filter hook forward`.
    Forward,
    /// `type nat hook postrouting`.
    Postrouting,
}

/// A rule: a packet that matches all of it meets the verdict.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// What a packet must be; in order.
    pub matches: Vec<Match>,
    /// Whether packets that match are counted.
    pub counted: bool,
    /// What becomes of the packet.
    pub verdict: Verdict,
    /// What `nft` and `iptables` show with it; at most 127 bytes.
    pub comment: String,
}

/// A property of a packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Match {
    /// `ip saddr`, in the network or not.
    Source(Is, Ipv4Net),
    /// `ip daddr`.
    Destination(Is, Ipv4Net),
    /// `ip saddr @set`, a set of [`Set::Hosts`].
    SourceIn(Is, String),
    /// `meta mark & mask == value`.
    Mark {
        /// The bits that matter.
        mask: u32,
        /// What they are.
        value: u32,
    },
    /// `udp dport`.
    UdpPort(u16),
    /// `@th,offset*8,16`, the two bytes there, counted from the start of the UDP header.
    TunnelHalf {
        /// In bytes.
        offset: u32,
        /// Their value.
        value: u16,
    },
    /// `@th,offset*8,32`, the IPv4 address there, as [`Match::Source`].
    TunnelAddress {
        /// Whether it is in `net`.
        is: Is,
        /// In bytes, from the start of the UDP header.
        offset: u32,
        /// The network.
        net: Ipv4Net,
    },
    /// `ip saddr . @th,offset*8,32 @set`, a set of [`Set::Origins`].
    Origin {
        /// Whether it is in the set.
        is: Is,
        /// As above.
        offset: u32,
        /// The set's name.
        set: String,
    },
}

/// Whether something is to match, or not to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Is {
    /// It is.
    In,
    /// It is not.
    NotIn,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It passes this hook's chain.
    Accept,
    /// It is lost.
    Drop,
    /// The chain ends for it.
    Return,
    /// Its source becomes the address of the link that it leaves by, from a port by chance.
    Masquerade,
    /// Something that we never ask for.
    Unknown,
}

/// A chain of somebody else, in a table of the family `ip`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ForeignChain {
    /// `filter FORWARD` of iptables, with Docker's rules.
    FilterForward,
    /// `raw PREROUTING` of iptables. There Docker 28 drops what comes to a container's address by
    /// another way than its bridge.
    RawPrerouting,
    /// `docker-bridges filter-FORWARD`, where Docker 29 writes nftables itself.
    BridgesForward,
    /// `docker-bridges raw-PREROUTING`, the same.
    BridgesPrerouting,
}

/// What flanneld leaves when it goes (flannel facts §7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leftover {
    /// `ip nat FLANNEL-POSTRTG` of iptables, and the jump to it.
    NatChain,
    /// `ip filter FLANNEL-FWD`, and the jump to it.
    ForwardChain,
    /// The table `ip flannel-ipv4`.
    TableV4,
    /// The table `ip6 flannel-ipv6`.
    TableV6,
}

/// A chain that IPv4 packets come to by themselves, whoever made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseChain {
    /// `ip` or `inet`.
    pub family: &'static str,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// As `nft` names it: `prerouting`, `input`, `forward`, `output`, `postrouting`, `ingress`.
    pub hook: &'static str,
    /// Chains of lower priority come first.
    pub priority: i32,
    /// Whether it drops what none of its rules lets through.
    pub drops: bool,
}

impl Rule {
    /// A rule that is not one of ours, or not at its place.
    pub const STRANGER: Self = Self {
        matches: Vec::new(),
        counted: false,
        verdict: Verdict::Unknown,
        comment: String::new(),
    };
}

impl Leftover {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::NatChain,
        Self::ForwardChain,
        Self::TableV4,
        Self::TableV6,
    ];
}

impl ForeignChain {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::FilterForward,
        Self::RawPrerouting,
        Self::BridgesForward,
        Self::BridgesPrerouting,
    ];

    /// The names of table and chain.
    #[must_use]
    pub const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::FilterForward => ("filter", "FORWARD"),
            Self::RawPrerouting => ("raw", "PREROUTING"),
            Self::BridgesForward => ("docker-bridges", "filter-FORWARD"),
            Self::BridgesPrerouting => ("docker-bridges", "raw-PREROUTING"),
        }
    }
}

impl Firewall {
    /// Makes a step, as the kernel does.
    pub fn apply(&mut self, step: &Step) {
        match step {
            Step::PutTable(table) => self.table = Some(table.clone()),
            Step::PutMembers(name, set) => {
                if let Some(found) = (self.table.as_mut()).and_then(|t| t.sets.get_mut(name)) {
                    found.clone_from(set);
                }
            }
            Step::PutPasses(chain, rules) => {
                if let Some(found) = self.passes.get_mut(chain) {
                    found.clone_from(rules);
                }
            }
            Step::DelLeftover(leftover) => drop(self.leftovers.remove(leftover)),
            Step::DelTable => self.table = None,
        }
    }
}

/// One step from one packet filter to another. The order of the variants is that of the steps.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Make our table, or put it in the place of the one that is there, at once.
    PutTable(Table),
    /// Give a set of our table these members and no others.
    PutMembers(String, Set),
    /// Make these our only rules in somebody else's chain, at their place; none removes them.
    PutPasses(ForeignChain, Vec<Rule>),
    /// Remove what flanneld has left.
    DelLeftover(Leftover),
    /// Remove our table.
    DelTable,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PutTable(table) => {
                let rules: usize = table.chains.values().map(|chain| chain.rules.len()).sum();
                write!(f, "replace nftables table ip {TABLE} with {rules} rules")
            }
            Self::PutMembers(set, members) => {
                let count = match members {
                    Set::Hosts(hosts) => hosts.len(),
                    Set::Origins(origins) => origins.len(),
                };
                write!(
                    f,
                    "replace nftables set ip {TABLE} {set} with {count} elements"
                )
            }
            Self::PutPasses(chain, rules) => {
                let (table, chain) = chain.names();
                match rules.len() {
                    0 => write!(f, "delete rules of ours in ip {table} {chain}"),
                    count => write!(
                        f,
                        "replace rules of ours in ip {table} {chain} with {count} rules"
                    ),
                }
            }
            Self::DelLeftover(leftover) => write!(f, "delete flanneld's {leftover}"),
            Self::DelTable => write!(f, "delete nftables table ip {TABLE}"),
        }
    }
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NatChain => "chain ip nat FLANNEL-POSTRTG",
            Self::ForwardChain => "chain ip filter FLANNEL-FWD",
            Self::TableV4 => "table ip flannel-ipv4",
            Self::TableV6 => "table ip6 flannel-ipv6",
        })
    }
}
