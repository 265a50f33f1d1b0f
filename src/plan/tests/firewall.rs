use super::*;
use crate::kernel::firewall::{
    Chain, Firewall, ForeignChain, Hook, Is, Match, Rule, Set, Table as NfTable, Verdict,
};

const VXLAN: &str = r#"{"Type":"vxlan"}"#;
const UDP: &str = r#"{"Type":"udp"}"#;
const HOST_GW: &str = r#"{"Type":"host-gw"}"#;

const OFF: Wishes = Wishes {
    masquerade: false,
    forward: false,
    protect_tunnel_port: false,
    verify_source: false,
};

fn with(backend: &str, firewall: Wishes) -> Firewall {
    let node = Node {
        firewall,
        ..node(backend)
    };
    plan(&node, &peers(&node)).kernel.firewall
}

fn table(backend: &str) -> NfTable {
    made(backend).kernel.firewall.table.unwrap()
}

/// A packet as a rule sees it.
#[derive(Debug, Clone, Copy)]
struct Packet {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    mark: u32,
    /// The destination port; 0 is no UDP.
    port: u16,
    /// The inner packet's type and source.
    inner: (u16, Ipv4Addr),
}

impl Packet {
    fn new(source: &str, destination: &str) -> Self {
        Self {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            mark: 0,
            port: 0,
            inner: (0, Ipv4Addr::UNSPECIFIED),
        }
    }

    fn meets(&self, one: &Match, sets: &BTreeMap<String, Set>) -> bool {
        let is_in = |is: Is, found: bool| found == (is == Is::In);
        match one {
            Match::Source(is, net) => is_in(*is, net.contains(&self.source)),
            Match::Destination(is, net) => is_in(*is, net.contains(&self.destination)),
            Match::Mark { mask, value } => self.mark & mask == *value,
            Match::UdpPort(port) => self.port == *port,
            Match::SourceIn(is, set) => match &sets[set] {
                Set::Hosts(hosts) => is_in(*is, hosts.contains(&self.source)),
                Set::Origins(_) => panic!("{set} has no hosts"),
            },
            Match::TunnelHalf { offset, value } => *offset == 28 && self.inner.0 == *value,
            Match::TunnelAddress { is, offset, net } => {
                *offset == 42 && is_in(*is, net.contains(&self.inner.1))
            }
            Match::Origin { is, offset, set } => match &sets[set] {
                Set::Origins(origins) => {
                    let known = |(host, net): &(Ipv4Addr, Ipv4Net)| {
                        *host == self.source && net.contains(&self.inner.1)
                    };
                    *offset == 42 && is_in(*is, origins.iter().any(known))
                }
                Set::Hosts(_) => panic!("{set} has no origins"),
            },
        }
    }

    /// The verdict of the first rule that matches, and its comment.
    fn fate(&self, table: &NfTable, chain: &str) -> Option<(Verdict, String)> {
        let mut rules = table.chains[chain].rules.iter();
        let meets = |rule: &&Rule| rule.matches.iter().all(|one| self.meets(one, &table.sets));
        let rule = rules.find(meets)?;
        Some((rule.verdict, rule.comment.clone()))
    }
}

/// flannel's iptables rules (flannel facts §7), with the lab's network and node1's subnet.
const REFERENCE: [&str; 6] = [
    "-m mark --mark 0x4000/0x4000 -j RETURN",
    "-s 100.96.1.0/24 -d 100.96.0.0/16 -j RETURN",
    "-s 100.96.0.0/16 -d 100.96.1.0/24 -j RETURN",
    "! -s 100.96.0.0/16 -d 100.96.1.0/24 -j RETURN",
    "-s 100.96.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE",
    "! -s 100.96.0.0/16 -d 100.96.0.0/16 -j MASQUERADE",
];

/// Which of the rules decides, from 1 on, and whether it masquerades: as iptables reads them.
fn by_iptables(packet: &Packet) -> Option<(usize, bool)> {
    let matches = |rule: &str| {
        let words: Vec<&str> = rule.split(' ').collect();
        let mut places = words.iter().enumerate();
        places.all(|(at, word)| {
            let argument = words.get(at + 1).copied().unwrap_or_default();
            let negated = at > 0 && words[at - 1] == "!";
            let inside = |address: Ipv4Addr| {
                argument.parse::<Ipv4Net>().unwrap().contains(&address) != negated
            };
            match *word {
                "-s" => inside(packet.source),
                "-d" => inside(packet.destination),
                "--mark" => packet.mark & 0x4000 == 0x4000,
                _ => true,
            }
        })
    };
    let at = REFERENCE.iter().position(|rule| matches(rule))?;
    Some((at + 1, REFERENCE[at].ends_with("MASQUERADE")))
}

#[test]
fn masquerading_is_that_of_flannels_iptables_rules() {
    let places = [
        "100.96.1.2",
        "100.96.1.0",
        "100.96.2.2",
        "100.96.255.255",
        "100.95.255.255",
        "100.97.0.1",
        "192.168.1.47",
        "192.168.1.48",
        "8.8.8.8",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
    ];
    let mut deciding = [0; 7];
    for backend in [VXLAN, UDP, HOST_GW] {
        let table = table(backend);
        let rules = &table.chains["postrouting"].rules;
        assert_eq!(rules.len(), REFERENCE.len());
        for (from, to) in places.iter().flat_map(|from| places.map(|to| (*from, to))) {
            for mark in [0, 0x4000, 0xC001, 0x8000] {
                let packet = Packet {
                    mark,
                    ..Packet::new(from, to)
                };
                let wanted = by_iptables(&packet);
                deciding[wanted.map_or(0, |(at, _)| at)] += 1;
                let wanted = wanted.map(|(at, masquerades)| {
                    let verdict = match masquerades {
                        true => Verdict::Masquerade,
                        false => Verdict::Return,
                    };
                    (verdict, rules[at - 1].comment.clone())
                });
                assert_eq!(packet.fate(&table, "postrouting"), wanted, "{packet:?}");
            }
        }
    }
    assert!(deciding.iter().all(|count| *count > 0), "{deciding:?}");
}

#[test]
fn packets_of_each_kind_get_the_source_that_they_should() {
    let table = table(VXLAN);
    for (from, to, masquerades) in [
        ("100.96.1.2", "8.8.8.8", true),
        ("100.96.1.2", "192.168.1.48", true),
        ("100.96.1.2", "100.96.2.2", false),
        ("100.96.2.2", "100.96.1.2", false),
        ("192.0.2.9", "100.96.1.2", false),
        ("192.0.2.9", "100.96.2.2", true),
        ("100.96.1.2", "224.0.0.5", false),
        // the tunnel's own packets
        ("192.168.1.47", "192.168.1.48", false),
        ("192.168.1.47", "8.8.8.8", false),
    ] {
        let fate = Packet::new(from, to).fate(&table, "postrouting");
        let found = fate.is_some_and(|(verdict, _)| verdict == Verdict::Masquerade);
        assert_eq!(found, masquerades, "{from} to {to}");
    }
    let Chain { hook, priority, .. } = table.chains["postrouting"];
    assert_eq!((hook, priority), (Hook::Postrouting, 100));
}

#[test]
fn the_tunnels_port_is_closed_to_strangers_and_to_other_peoples_addresses() {
    let table = table(VXLAN);
    let input = &table.chains["input"];
    assert_eq!((input.hook, input.priority), (Hook::Input, -10));
    assert!(input.rules.iter().all(|rule| rule.counted));
    let dropped = |from: &str, port, inner: (u16, &str)| {
        let packet = Packet {
            port,
            inner: (inner.0, inner.1.parse().unwrap()),
            ..Packet::new(from, "192.168.1.47")
        };
        packet.fate(&table, "input").map(|(verdict, comment)| {
            assert_eq!(verdict, Verdict::Drop);
            comment.split(' ').next().unwrap().to_owned()
        })
    };
    let closed = || Some("closed".to_owned());
    let spoofed = || Some("spoofed:".to_owned());
    for (from, port, inner, want) in [
        ("192.168.1.48", 8472, (0x800, "100.96.2.2"), None),
        ("192.168.2.49", 8472, (0x800, "100.96.3.255"), None),
        ("192.168.1.48", 8472, (0x800, "100.96.3.2"), spoofed()),
        ("192.168.1.48", 8472, (0x800, "100.96.1.2"), spoofed()),
        ("192.168.1.48", 8472, (0x800, "100.96.77.2"), spoofed()),
        ("192.168.1.48", 8472, (0x8100, "100.96.2.2"), spoofed()),
        ("192.168.1.48", 8472, (0x88a8, "100.96.2.2"), spoofed()),
        // what a client outside sends to our container by way of a peer
        ("192.168.1.48", 8472, (0x800, "192.0.2.9"), None),
        ("192.168.1.48", 8472, (0x806, "100.96.3.2"), None),
        ("192.168.1.99", 8472, (0x800, "100.96.2.2"), closed()),
        ("192.168.1.47", 8472, (0x800, "100.96.2.2"), closed()),
        ("192.168.1.99", 8285, (0x800, "100.96.3.2"), None),
        ("192.168.1.99", 53, (0x800, "100.96.3.2"), None),
    ] {
        assert_eq!(dropped(from, port, inner), want, "{from} {port} {inner:?}");
    }
}

#[test]
fn each_backend_has_what_it_needs() {
    let names = |backend: &str| {
        let table = table(backend);
        let chains: Vec<String> = table.chains.keys().cloned().collect();
        let sets: Vec<String> = table.sets.keys().cloned().collect();
        (chains.join(" "), sets.join(" "))
    };
    let both = "input postrouting".to_owned();
    assert_eq!(names(VXLAN), (both.clone(), "origins peers".to_owned()));
    assert_eq!(names(UDP), (both, "peers".to_owned()));
    assert_eq!(names(HOST_GW), ("postrouting".to_owned(), String::new()));
    let port = |backend: &str| table(backend).chains["input"].rules[0].matches[0].clone();
    assert_eq!(port(UDP), Match::UdpPort(8285));
    let other = r#"{"Type":"vxlan","Port":4789,"GBP":true,"DirectRouting":true}"#;
    assert_eq!(port(other), Match::UdpPort(4789));
    // whether a peer has a direct route to us too is not ours to know
    assert_eq!(table(other).sets, table(VXLAN).sets);
}

#[test]
fn each_switch_takes_its_own_away_and_nothing_else() {
    for backend in [VXLAN, UDP, HOST_GW] {
        assert_eq!(with(backend, OFF), Firewall::default(), "{backend}");
    }
    let on = Wishes::default();
    let whole = with(VXLAN, on);
    let table = |wishes| with(VXLAN, wishes).table.unwrap();
    let forward = false;
    let bare = with(VXLAN, Wishes { forward, ..on });
    assert_eq!((&bare.table, bare.passes.len()), (&whole.table, 0));
    let masquerade = false;
    let quiet = table(Wishes { masquerade, ..on });
    assert_eq!(quiet.chains.keys().collect::<Vec<_>>(), ["input"]);
    let protect_tunnel_port = false;
    let open = table(Wishes {
        protect_tunnel_port,
        ..on
    });
    assert_eq!(open.sets.keys().collect::<Vec<_>>(), ["origins"]);
    assert_eq!(
        open.chains["input"].rules,
        table(on).chains["input"].rules[1..]
    );
    let verify_source = false;
    let trusting = table(Wishes {
        verify_source,
        ..on
    });
    assert_eq!(trusting.sets.keys().collect::<Vec<_>>(), ["peers"]);
    assert_eq!(trusting.chains["input"].rules.len(), 1);
    let forward = true;
    let only = with(HOST_GW, Wishes { forward, ..OFF });
    assert_eq!((only.table, only.passes), (None, whole.passes));
}

#[test]
fn passes_are_for_the_network_and_before_docker_for_the_own_subnet_alone() {
    let passes = made(VXLAN).kernel.firewall.passes;
    assert_eq!(passes.len(), ForeignChain::ALL.len());
    let chains = passes.into_iter().map(|(chain, rules)| {
        assert!(rules.iter().all(|rule| rule.comment == "flannel-rs"));
        let (table, name) = chain.names();
        // hook and priority are those of whoever made it
        let chain = Chain {
            hook: Hook::Forward,
            priority: 0,
            rules,
        };
        (format!("{table} {name}"), chain)
    });
    let table = NfTable {
        chains: chains.collect(),
        ..NfTable::default()
    };
    for (from, to, forward, before) in [
        ("100.96.1.2", "8.8.8.8", true, false),
        ("8.8.8.8", "100.96.1.2", true, false),
        ("100.96.2.2", "100.96.1.2", true, true),
        ("100.96.1.2", "100.96.2.2", true, false),
        ("8.8.8.8", "192.168.1.48", false, false),
    ] {
        let packet = Packet::new(from, to);
        for (chain, want) in [
            ("filter FORWARD", forward),
            ("docker-bridges filter-FORWARD", forward),
            ("raw PREROUTING", before),
            ("docker-bridges raw-PREROUTING", before),
        ] {
            let fate = packet.fate(&table, chain).map(|(verdict, _)| verdict);
            let want = want.then_some(Verdict::Accept);
            assert_eq!(fate, want, "{from} to {to} in {chain}");
        }
    }
}

/// The kernel would refuse the whole table.
#[test]
fn elements_of_a_set_never_overlap() {
    let node = node(VXLAN);
    let leases = [
        peer(&node, "100.96.2.0-24", "192.168.1.48", MACS[1]),
        peer(&node, "100.96.8.0-22", "192.168.1.48", MACS[1]),
        peer(&node, "100.96.8.0-23", "192.168.1.48", MACS[1]),
        peer(&node, "100.96.9.128-25", "192.168.1.48", MACS[1]),
        peer(&node, "100.96.10.0-23", "192.168.2.49", MACS[2]),
    ];
    let table = plan(&node, &leases).kernel.firewall.table.unwrap();
    let origin = |ip: &str, net: &str| (ip.parse().unwrap(), net.parse().unwrap());
    let expected = [
        origin("192.168.1.48", "100.96.2.0/24"),
        origin("192.168.1.48", "100.96.8.0/22"),
        origin("192.168.2.49", "100.96.10.0/23"),
    ];
    assert_eq!(table.sets["origins"], Set::Origins(expected.into()));
}

#[test]
fn comments_fit_into_a_rule() {
    let firewall = made(VXLAN).kernel.firewall;
    let chains = firewall.table.unwrap().chains;
    let rules = chains.values().flat_map(|chain| &chain.rules);
    for rule in rules.chain(firewall.passes.values().flatten()) {
        assert!((1..=127).contains(&rule.comment.len()), "{}", rule.comment);
    }
}

#[test]
fn files_say_who_masquerades() {
    for (masquerade, docker) in [(true, "--ip-masq=false"), (false, "--ip-masq=true")] {
        let firewall = Wishes {
            masquerade,
            ..Wishes::default()
        };
        let node = Node {
            firewall,
            ..node(VXLAN)
        };
        let files = plan(&node, &[]).files;
        let subnet_env = &files[&node.subnet_env];
        let line = format!("FLANNEL_IPMASQ={masquerade}\n");
        assert!(subnet_env.contains(&line), "{subnet_env}");
        assert!(files[&node.docker_env].contains(docker));
    }
}
