//! Which packets are let through, closed out, or given another source address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{Node, Plan};
use crate::cluster::lease::Lease;
use crate::cluster::network::Backend;
use crate::kernel::firewall::{
    Chain, Firewall, ForeignChain, Hook, Is, MARK, Match, Rule, Set, Table, Verdict,
};

/// The set of the peers' public IPs.
const PEERS: &str = "peers";

/// The set of the peers' public IPs, each with a subnet that is behind it.
const ORIGINS: &str = "origins";

/// kube-proxy's mark for packets that it masquerades itself.
const KUBE_MARK: u32 = 0x4000;

/// Where the inner Ethernet header's type is, in bytes from the start of the outer UDP header:
/// 8 UDP + 8 VXLAN (RFC 7348 §5) + 12 of two Ethernet addresses.
const INNER_TYPE: u32 = 8 + 8 + 12;

/// Where the inner IPv4 source address is: 8 UDP + 8 VXLAN + 14 Ethernet + 12.
const INNER_SOURCE: u32 = 8 + 8 + 14 + 12;

const ETHERTYPE_IPV4: u16 = 0x0800;

/// The kernel takes off a tag of VLAN 0 and goes on with what is behind it
/// (`__netif_receive_skb_core`), which no rule sees at its usual place; flannel's tunnels carry none.
const ETHERTYPES_OF_TAGS: [(u16, &str); 2] = [
    (0x8100, "spoofed: behind an 802.1Q tag"),
    (0x88a8, "spoofed: behind an 802.1ad tag"),
];

/// After the connection is known, before anybody's own rules for what comes in.
const BEFORE_FILTER: i32 = -10;

/// What iptables and nft call `srcnat`.
const SOURCE_NAT: i32 = 100;

pub(super) fn plan(node: &Node, peers: &[&Lease], plan: &mut Plan) {
    plan.kernel.firewall = Firewall {
        table: table(node, peers),
        passes: passes(node),
        ..Firewall::default()
    };
}

fn table(node: &Node, peers: &[&Lease]) -> Option<Table> {
    let mut table = Table::default();
    if node.firewall.masquerade {
        let chain = Chain {
            hook: Hook::Postrouting,
            priority: SOURCE_NAT,
            rules: masquerade(node.network.net, node.lease.subnet.v4()),
        };
        table.chains.insert("postrouting".to_owned(), chain);
    }
    let rules = tunnel(node, peers, &mut table.sets);
    if !rules.is_empty() {
        let chain = Chain {
            hook: Hook::Input,
            priority: BEFORE_FILTER,
            rules,
        };
        table.chains.insert("input".to_owned(), chain);
    }
    (!table.chains.is_empty()).then_some(table)
}

/// flannel's rules 1 to 6, in the semantics that its iptables rules have (flannel facts §7). Its
/// nftables rules differ in two of them, by mistake: there, clients outside of the network reach
/// no container of another node.
fn masquerade(network: Ipv4Net, own: Ipv4Net) -> Vec<Rule> {
    use Is::{In, NotIn};
    use Match::{Destination, Source};
    let mark = Match::Mark {
        mask: KUBE_MARK,
        value: KUBE_MARK,
    };
    let multicast = Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4);
    let rules = [
        (vec![mark], Verdict::Return, "marked by kube-proxy"),
        (
            vec![Source(In, own), Destination(In, network)],
            Verdict::Return,
            "between containers, going out",
        ),
        (
            vec![Source(In, network), Destination(In, own)],
            Verdict::Return,
            "between containers, coming in",
        ),
        (
            vec![Source(NotIn, network), Destination(In, own)],
            Verdict::Return,
            "from outside to a container of this node",
        ),
        (
            vec![Source(In, network), Destination(NotIn, multicast)],
            Verdict::Masquerade,
            "from a container to the outside",
        ),
        (
            vec![Source(NotIn, network), Destination(In, network)],
            Verdict::Masquerade,
            "from outside to a container of another node",
        ),
    ];
    let rule = |(matches, verdict, comment): (_, _, &str)| Rule {
        matches,
        counted: false,
        verdict,
        comment: comment.to_owned(),
    };
    rules.into_iter().map(rule).collect()
}

/// Who may send to the tunnel's port, and in whose name.
fn tunnel(node: &Node, peers: &[&Lease], sets: &mut BTreeMap<String, Set>) -> Vec<Rule> {
    let (port, inner_shows) = match &node.network.backend {
        Backend::HostGw => return Vec::new(),
        Backend::Vxlan(options) => (options.port, true),
        // several inner packets may come as one train, of which a rule sees the first: the data
        // plane looks at each
        Backend::Udp { port } => (*port, false),
    };
    let drop = |mut matches: Vec<Match>, comment: &str| {
        matches.insert(0, Match::UdpPort(port));
        Rule {
            matches,
            counted: true,
            verdict: Verdict::Drop,
            comment: comment.to_owned(),
        }
    };
    let mut rules = Vec::new();
    if node.firewall.protect_tunnel_port {
        // also those with a direct route: which way a peer takes is for its own view of the link
        let hosts = peers.iter().map(|peer| peer.attrs.public_ip).collect();
        sets.insert(PEERS.to_owned(), Set::Hosts(hosts));
        let stranger = Match::SourceIn(Is::NotIn, PEERS.to_owned());
        rules.push(drop(vec![stranger], "closed to all but peers"));
    }
    if node.firewall.verify_source && inner_shows {
        sets.insert(ORIGINS.to_owned(), Set::Origins(origins(peers)));
        let inner_type = |value| Match::TunnelHalf {
            offset: INNER_TYPE,
            value,
        };
        let tagged = |(tag, comment)| drop(vec![inner_type(tag)], comment);
        rules.extend(ETHERTYPES_OF_TAGS.map(tagged));
        let spoofed = vec![
            inner_type(ETHERTYPE_IPV4),
            Match::TunnelAddress {
                is: Is::In,
                offset: INNER_SOURCE,
                net: node.network.net,
            },
            Match::Origin {
                is: Is::NotIn,
                offset: INNER_SOURCE,
                set: ORIGINS.to_owned(),
            },
        ];
        rules.push(drop(spoofed, "spoofed: not of the sender's subnet"));
    }
    rules
}

/// The kernel refuses a set with elements that overlap, and all the rest with it, so subnets of
/// one host that overlap count as one. No allocator makes such ones, but a lease may say anything.
fn origins(peers: &[&Lease]) -> BTreeSet<(Ipv4Addr, Ipv4Net)> {
    let mut behind: BTreeMap<Ipv4Addr, Vec<Ipv4Net>> = BTreeMap::new();
    for peer in peers {
        let nets = behind.entry(peer.attrs.public_ip).or_default();
        nets.push(peer.subnet.v4());
    }
    let mut origins = BTreeSet::new();
    for (host, nets) in behind {
        let whole = Ipv4Net::aggregate(&nets);
        origins.extend(whole.into_iter().map(|net| (host, net)));
    }
    origins
}

/// What chains of others must let through that would drop it.
fn passes(node: &Node) -> BTreeMap<ForeignChain, Vec<Rule>> {
    if !node.firewall.forward {
        return BTreeMap::new();
    }
    let (network, own) = (node.network.net, node.lease.subnet.v4());
    let pass = |matches| Rule {
        matches,
        counted: false,
        verdict: Verdict::Accept,
        comment: MARK.to_owned(),
    };
    let from = Match::Source(Is::In, network);
    let rules = |chain| match chain {
        ForeignChain::FilterForward | ForeignChain::BridgesForward => vec![
            pass(vec![from.clone()]),
            pass(vec![Match::Destination(Is::In, network)]),
        ],
        // only what comes from the network: the rest is Docker's to decide
        ForeignChain::RawPrerouting | ForeignChain::BridgesPrerouting => {
            vec![pass(vec![from.clone(), Match::Destination(Is::In, own)])]
        }
    };
    let chains = ForeignChain::ALL.into_iter();
    chains.map(|chain| (chain, rules(chain))).collect()
}
