//! Faults that are planted one at a time on a cluster of three nodes, and found on the first.

use std::process::Child;

use crate::support::node::Node;
use crate::support::process::{end, inside, until};
use crate::ward::{cluster, codes, examine, fix, has};

/// A fault, and what ends it.
struct Plant {
    code: &'static str,
    /// The node that the fault is on, by its number.
    on: usize,
    script: &'static str,
    cure: Cure,
    /// Undoes what the cure leaves, on the node with the fault.
    undo: &'static str,
}

enum Cure {
    /// The fix is a command; it is run on the first node.
    Command,
    /// The fix is for a person: this is what that one does, and a part of what it is told.
    Person(&'static str, &'static str),
}

fn check(nodes: &[Node; 3], plant: &Plant) {
    let Plant { code, script, .. } = plant;
    let sick = &nodes[plant.on - 1];
    sick.must(script);
    let mut diagnosis = examine(&nodes[0]);
    assert!(codes(&diagnosis).contains(code), "{code}: {diagnosis:#}");
    let told = fix(&diagnosis, code).unwrap().to_owned();
    eprintln!("{code}: {}", diagnosis["findings"]);
    match plant.cure {
        Cure::Command => drop(nodes[0].must(&told)),
        Cure::Person(act, part) => {
            assert!(told.contains(part), "{code}: no {part:?} in {told:?}");
            sick.must(act);
        }
    }
    until(&format!("{code} is gone"), || {
        diagnosis = examine(&nodes[0]);
        !codes(&diagnosis).contains(code)
    });
    sick.must(plant.undo);
    nodes[0].must("ip link set eth0 mtu 1500");
    until(&format!("nothing is left of {code}"), || {
        diagnosis = examine(&nodes[0]);
        let is_clean = codes(&diagnosis).is_empty();
        if !is_clean {
            eprintln!("after {code}: {}", diagnosis["findings"]);
        }
        is_clean
    });
}

const SETTINGS: &[Plant] = &[
    Plant {
        code: "forwarding",
        on: 1,
        script: "echo 0 > /proc/sys/net/ipv4/ip_forward",
        cure: Cure::Command,
        undo: "",
    },
    Plant {
        code: "forwarding",
        on: 1,
        script: "echo 0 > /proc/sys/net/ipv4/conf/flannel.1/forwarding",
        cure: Cure::Command,
        undo: "",
    },
    Plant {
        code: "rp-filter",
        on: 1,
        script: "ip rule add to 100.96.2.0/24 iif lo table 77
            ip route add 100.96.2.0/24 dev eth0 table 77
            echo 1 > /proc/sys/net/ipv4/conf/flannel.1/rp_filter",
        cure: Cure::Command,
        undo: "ip rule delete to 100.96.2.0/24 iif lo table 77; ip route flush table 77",
    },
    Plant {
        code: "detour",
        on: 1,
        script: "ip route add 100.96.2.0/25 via 192.168.1.1",
        cure: Cure::Person(
            "ip route delete 100.96.2.0/25 via 192.168.1.1",
            "ip route get 100.96.2.2",
        ),
        undo: "",
    },
    Plant {
        code: "overlap",
        on: 1,
        script: "ip link add foreign0 type bridge; ip link set foreign0 up
            ip address add 100.96.200.1/24 dev foreign0",
        cure: Cure::Command,
        undo: "ip link delete foreign0",
    },
    Plant {
        code: "container-mtu",
        on: 1,
        script: "ip link add foreign0 mtu 1500 type veth peer name foreign1 mtu 1500
            ip link set foreign0 master docker0 up",
        cure: Cure::Person("ip link delete foreign0", "--mtu=1450"),
        undo: "",
    },
];

#[test]
fn faults_of_settings_are_found_and_their_fixes_help() {
    let Some((_lab, nodes)) = cluster("vxlan") else {
        return;
    };
    for plant in SETTINGS {
        check(&nodes, plant);
    }
    another_daemon_is_found(&nodes);
}

fn another_daemon_is_found(nodes: &[Node; 3]) {
    let program = nodes[0].folder().join("flanneld");
    std::fs::copy("/bin/sleep", &program).unwrap();
    let namespace = nodes[0].namespace();
    let child: Child = (inside(namespace, program.to_str().unwrap()).arg("60"))
        .spawn()
        .unwrap();
    let mut diagnosis = examine(&nodes[0]);
    until("flanneld is found", || {
        diagnosis = examine(&nodes[0]);
        codes(&diagnosis) == ["flanneld"]
    });
    // it is not in their namespaces
    assert!(!codes(&examine(&nodes[1])).contains(&"flanneld"));
    end(Some(child));
    assert!(codes(&examine(&nodes[0])).is_empty());
}

const PACKETS: &[Plant] = &[
    Plant {
        code: "forward-drop",
        on: 1,
        script: "nft add table ip plant
            nft 'add chain ip plant forward { type filter hook forward priority 0; }'
            nft add rule ip plant forward iifname docker0 drop",
        cure: Cure::Person("nft delete table ip plant", "nft list ruleset"),
        undo: "",
    },
    Plant {
        code: "forward-drop",
        on: 1,
        script: "nft add table ip plant
            nft 'add chain ip plant forward { type filter hook forward priority 0; }'
            nft add rule ip plant forward iifname flannel.1 drop",
        cure: Cure::Person("nft delete table ip plant", "nft list ruleset"),
        undo: "",
    },
    Plant {
        code: "forward-drop",
        on: 1,
        script: "nft add table inet plant
            nft 'add chain inet plant forward { type filter hook forward priority 0; policy drop; }'",
        cure: Cure::Command,
        undo: "nft delete table inet plant",
    },
    Plant {
        code: "masquerade",
        on: 1,
        script: "nft add table ip plant
            nft 'add chain ip plant prerouting { type filter hook prerouting priority -300; }'
            nft add rule ip plant prerouting ip daddr 192.0.2.1 notrack",
        cure: Cure::Person("nft delete table ip plant", "flannel-rs reconcile"),
        undo: "",
    },
    Plant {
        code: "rewritten",
        on: 1,
        script: "nft add table ip plant
            nft 'add chain ip plant postrouting { type nat hook postrouting priority 90; }'
            nft add rule ip plant postrouting ip saddr 100.96.1.0/24 oifname != docker0 masquerade",
        cure: Cure::Person("nft delete table ip plant", "--ip-masq=false"),
        undo: "",
    },
    Plant {
        code: "bridge-drop",
        on: 1,
        script: "echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables
            nft add table ip plant
            nft 'add chain ip plant forward { type filter hook forward priority 0; }'
            nft add rule ip plant forward iifname docker0 oifname docker0 drop",
        cure: Cure::Command,
        undo: "nft delete table ip plant",
    },
    Plant {
        code: "tunnel-port",
        on: 1,
        script: "nft add table inet plant
            nft 'add chain inet plant input { type filter hook input priority 0; policy drop; }'
            nft add rule inet plant input meta l4proto '{ tcp, icmp }' accept",
        cure: Cure::Command,
        undo: "nft delete table inet plant",
    },
    Plant {
        code: "tunnel-port",
        on: 1,
        script: "nft add table ip plant
            nft 'add chain ip plant input { type filter hook input priority 0; }'
            nft add rule ip plant input udp dport 8472 drop",
        cure: Cure::Person("nft delete table ip plant", "udp"),
        undo: "",
    },
    Plant {
        code: "peer-silent",
        on: 2,
        script: "nft add table ip plant
            nft 'add chain ip plant input { type filter hook input priority 0; }'
            nft add rule ip plant input udp dport 8472 drop",
        cure: Cure::Person("nft delete table ip plant", "open UDP 8472"),
        undo: "",
    },
    Plant {
        code: "peer-down",
        on: 2,
        script: "nft add table ip plant
            nft 'add chain ip plant input { type filter hook prerouting priority -300; }'
            nft add rule ip plant input ip saddr 192.168.1.47 drop",
        cure: Cure::Person("nft delete table ip plant", "ping 192.168.1.48"),
        undo: "",
    },
    Plant {
        code: "path-mtu",
        on: 2,
        script: "nft add table ip plant
            nft 'add chain ip plant input { type filter hook prerouting priority -300; }'
            nft add rule ip plant input udp dport 8472 ip length '>' 1450 drop",
        cure: Cure::Command,
        undo: "nft delete table ip plant",
    },
    Plant {
        code: "tcp-checksum",
        on: 2,
        script: "nft add table ip plant
            nft 'add chain ip plant input { type filter hook input priority 0; }'
            nft add rule ip plant input tcp dport 1 tcp option maxseg exists drop",
        cure: Cure::Person("nft delete table ip plant", "ethtool -K flannel.1"),
        undo: "",
    },
];

#[test]
fn faults_on_the_way_of_packets_are_found_and_their_fixes_help() {
    if !has("nft") {
        return;
    }
    let Some((_lab, nodes)) = cluster("vxlan") else {
        return;
    };
    for plant in PACKETS {
        check(&nodes, plant);
    }
}
