//! Who is measured: a cluster of three nodes in a lab of its own, all with one program and one
//! backend, and the containers of node1 and node2.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::thread;
use std::time::Duration;

use crate::support::flanneld::Flanneld;
use crate::support::lab::{Lab, Shape};
use crate::support::node::Node;

/// Which program with which backend, in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Entry {
    HostGw,
    Vxlan,
    Udp,
    /// Without offloads: each packet moves by itself.
    PlainUdp,
    FlanneldHostGw,
    FlanneldVxlan,
    FlanneldUdp,
}

/// How packets cross between the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    /// As veth pairs do by themselves: up to 64 KiB at once.
    Whole,
    /// Cut to the MTU by the sender's uplink and joined again by the receiver's, where it can be,
    /// which is what network cards do.
    Cut,
}

/// One end of all traffic: the container of node1 or of node2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Container {
    First,
    Second,
}

/// A running cluster. Dropping it ends all its processes and removes all its namespaces.
pub(crate) struct Contestant {
    pub(crate) entry: Entry,
    // ended before the lab goes
    _members: Vec<Member>,
    lab: Lab,
}

#[expect(dead_code, reason = "held for what dropping them does")]
enum Member {
    Ours(Node),
    Flanneld(Flanneld, Node),
}

impl Entry {
    pub(crate) const ALL: [Self; 7] = [
        Self::HostGw,
        Self::Vxlan,
        Self::Udp,
        Self::PlainUdp,
        Self::FlanneldHostGw,
        Self::FlanneldVxlan,
        Self::FlanneldUdp,
    ];

    /// Its name in JSON and for `FLANNEL_RS_BENCH_ONLY`.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::HostGw => "host-gw",
            Self::Vxlan => "vxlan",
            Self::Udp => "udp",
            Self::PlainUdp => "udp-plain",
            Self::FlanneldHostGw => "flanneld-host-gw",
            Self::FlanneldVxlan => "flanneld-vxlan",
            Self::FlanneldUdp => "flanneld-udp",
        }
    }

    /// Its name for people, below the name of the program.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::HostGw | Self::FlanneldHostGw => "host-gw",
            Self::Vxlan | Self::FlanneldVxlan => "vxlan",
            Self::Udp | Self::FlanneldUdp => "udp",
            Self::PlainUdp => "udp, plain",
        }
    }

    pub(crate) fn is_flanneld(self) -> bool {
        self.key().starts_with("flanneld-")
    }

    fn backend(self) -> &'static str {
        match self {
            Self::HostGw | Self::FlanneldHostGw => r#"{"Type":"host-gw"}"#,
            Self::Vxlan | Self::FlanneldVxlan => r#"{"Type":"vxlan"}"#,
            Self::Udp | Self::PlainUdp | Self::FlanneldUdp => r#"{"Type":"udp"}"#,
        }
    }
}

impl Wire {
    /// Its name in JSON and for `FLANNEL_RS_BENCH_WIRE`.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Cut => "cut",
        }
    }
}

impl Container {
    pub(crate) fn address(self) -> &'static str {
        match self {
            Self::First => "100.96.1.2",
            Self::Second => "100.96.2.2",
        }
    }

    pub(crate) fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }

    fn namespace(self) -> &'static str {
        match self {
            Self::First => "c1",
            Self::Second => "c2",
        }
    }
}

impl Contestant {
    /// Starts the cluster and waits until every container reaches every other; `None`, with a
    /// message, where there can be no lab.
    pub(crate) fn start(entry: Entry, wire: Wire, flanneld: Option<&OsStr>) -> Option<Self> {
        let lab = Lab::with_backend(Shape::Flat, entry.backend())?;
        let nodes = [1, 2, 3].map(|number| lab.node(number));
        if wire == Wire::Cut {
            cut(&lab);
        }
        let members = if entry.is_flanneld() {
            let program = flanneld.expect("the program of a flanneld that takes part");
            nodes
                .map(|node| run_flanneld(&lab, node, program.to_owned()))
                .into()
        } else {
            run_ours(&lab, nodes, entry)
        };
        lab.wait_until_connected();
        let contestant = Self {
            entry,
            _members: members,
            lab,
        };
        Some(contestant)
    }

    /// Does something in a container. Sockets that are made there stay there.
    pub(crate) fn inside<T: Send>(&self, at: Container, work: impl FnOnce() -> T + Send) -> T {
        let namespace = self.lab.namespace(at.namespace());
        let namespace = File::open(format!("/run/netns/{namespace}")).unwrap();
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }

    /// The MTU of the containers.
    pub(crate) fn mtu(&self) -> u32 {
        let link = self.lab.shown("c1", "ip -o link show dev eth0");
        let mut words = link.split_whitespace();
        words.find(|word| *word == "mtu");
        words.next().unwrap().parse().unwrap()
    }
}

fn run_ours(lab: &Lab, mut nodes: [Node; 3], entry: Entry) -> Vec<Member> {
    for node in &mut nodes {
        if entry == Entry::PlainUdp {
            let number = node.number;
            node.write_config(&format!(
                "[node]\nname = \"node{number}\"\nsubnet = \"100.96.{number}.0/24\"\n\
                 [udp]\noffload = false\n"
            ));
        }
        node.start();
    }
    for node in &mut nodes {
        node.wait_until_ready();
        lab.container(node);
    }
    nodes.map(Member::Ours).into()
}

fn run_flanneld(lab: &Lab, node: Node, program: OsString) -> Member {
    let mut flanneld = Flanneld::new(program, lab, &node);
    flanneld.start();
    // for a tenth of a second after its start a flanneld 0.20 misses a peer's arrival
    thread::sleep(Duration::from_millis(300));
    let number = node.number;
    node.must(&format!(
        "ip link add docker0 type bridge; ip address add 100.96.{number}.1/24 dev docker0
         ip link set docker0 up"
    ));
    lab.container(&node);
    Member::Flanneld(flanneld, node)
}

/// Makes the uplinks behave like network cards: what is longer than the MTU is cut before it
/// crosses, and what arrives is joined again.
fn cut(lab: &Lab) {
    for node in ["node1", "node2", "node3"] {
        let features = "tso off tx-udp-segmentation off tx-udp_tnl-segmentation off \
                        tx-udp_tnl-csum-segmentation off gro on";
        lab.must(node, &format!("ethtool -K eth0 {features}"));
        // a veth joins only what comes from an end without segmentation (drivers/net/veth.c,
        // veth_skb_is_eligible_for_gro)
        lab.must("net", &format!("ethtool -K {node} tso off"));
    }
}

/// The labels of all entries by key, for messages.
pub(crate) fn keys() -> String {
    let keys: BTreeMap<Entry, &str> = Entry::ALL.map(|entry| (entry, entry.key())).into();
    keys.into_values().collect::<Vec<_>>().join(", ")
}
