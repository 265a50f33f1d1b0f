//! What the kernel has of a member, and what it takes to give it the same rows by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::cluster::Peer;
use crate::support::lab::Lab;

const DEVICE: &str = "flannel.1";
/// How long anything may take before the benchmark fails.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at the kernel.
const PAUSE: Duration = Duration::from_millis(1);

/// Looks for the routes of many peers at little cost: asks for one at a time, from the last that
/// was missing on, and counts them all only when none of these is.
pub(crate) struct Probe {
    sample: Vec<Ipv4Addr>,
    found: usize,
    wanted: usize,
}

impl Probe {
    /// For these subnets, by their first address.
    pub(crate) fn new(subnets: &BTreeSet<Ipv4Addr>) -> Self {
        let last = subnets.iter().next_back();
        Self {
            sample: subnets.iter().step_by(64).chain(last).copied().collect(),
            found: 0,
            wanted: subnets.len(),
        }
    }

    /// Whether all have a route, in the network namespace of this thread. A route is the last row
    /// that either program sets up for a peer.
    pub(crate) fn all_there(&mut self) -> bool {
        let missing = self.sample[self.found..].iter();
        self.found += missing.take_while(|base| is_routed(**base)).count();
        self.found == self.sample.len() && routes() == self.wanted
    }
}

/// Whether the kernel would send to the containers of a subnet through the tunnel: from the
/// address on it then, which lies in the first /16 of the overlay network.
pub(crate) fn is_routed(base: Ipv4Addr) -> bool {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let container = Ipv4Addr::from(u32::from(base) + 2);
    socket.connect((container, 9)).unwrap();
    let IpAddr::V4(source) = socket.local_addr().unwrap().ip() else {
        panic!("an IPv6 source for an IPv4 destination");
    };
    source.octets()[..2] == [10, 64]
}

/// The routes on the tunnel. Of a thread, as /proc/net is the main thread's.
fn routes() -> usize {
    let table = fs::read_to_string("/proc/thread-self/net/route").unwrap();
    let device = format!("{DEVICE}\t");
    table
        .lines()
        .filter(|line| line.starts_with(&device))
        .count()
}

/// Waits for a condition without sleeping past it for long, and answers how long that took.
pub(crate) fn wait(what: &str, condition: impl FnMut() -> bool) -> Duration {
    let took = wait_for(PATIENCE, condition);
    took.unwrap_or_else(|| panic!("waited in vain: {what}"))
}

/// As [`wait`], but where the condition does not come to hold in time, that is no failure.
pub(crate) fn wait_for(limit: Duration, mut condition: impl FnMut() -> bool) -> Option<Duration> {
    let begun = Instant::now();
    while !condition() {
        if begun.elapsed() > limit {
            return None;
        }
        thread::sleep(PAUSE);
    }
    Some(begun.elapsed())
}

/// A netlink socket in the namespace of the thread, for single rows.
pub(crate) struct Rows {
    handle: rtnetlink::Handle,
    device: u32,
}

impl Rows {
    pub(crate) fn open() -> Self {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        let device = nix::net::if_::if_nametoindex(DEVICE).unwrap();
        Self { handle, device }
    }

    /// Waits until frames to the peer's tunnel go to the host that it names.
    pub(crate) async fn wait_until_sent_to(&mut self, peer: Peer) {
        let begun = Instant::now();
        while self.destination(peer.mac_bytes()).await != Some(peer.public_ip()) {
            assert!(begun.elapsed() < PATIENCE, "{peer:?} has not moved");
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn destination(&mut self, mac: [u8; 6]) -> Option<Ipv4Addr> {
        let mut row = NeighbourMessage::default();
        row.header.family = AddressFamily::Bridge;
        row.header.ifindex = self.device;
        row.header.flags = NeighbourFlags::Own;
        row.attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        let mut ask = NetlinkMessage::from(RouteNetlinkMessage::GetNeighbour(row));
        ask.header.flags = NLM_F_REQUEST;
        let answer = self.handle.request(ask).unwrap().next().await?;
        let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(row)) = answer.payload
        else {
            return None;
        };
        row.attributes.iter().find_map(|attribute| {
            // to the decoder an address of the family "bridge" is just bytes
            let NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) = attribute else {
                return None;
            };
            Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.as_slice()).ok()?))
        })
    }
}

/// Every row that leases call for, and every one that is there, in one form.
pub(crate) type Table = BTreeSet<String>;

/// What the leases call for.
pub(crate) fn wanted(leases: &BTreeMap<Ipv4Addr, serde_json::Value>) -> Table {
    let rows = leases.iter().flat_map(|(base, value)| {
        let mac = value["BackendData"]["VtepMAC"].as_str().unwrap();
        let public_ip = value["PublicIP"].as_str().unwrap();
        [
            format!("route {base}/24 via {base}"),
            format!("neighbour {base} at {mac}"),
            format!("fdb {mac} to {public_ip}"),
        ]
    });
    rows.collect()
}

/// What a node of the lab has.
pub(crate) fn found(lab: &Lab, node: &str) -> Table {
    let word_after = |line: &str, word: &str| {
        let mut words = line.split_whitespace();
        words.find(|found| *found == word);
        words.next().unwrap_or("nothing").to_owned()
    };
    let mut table = Table::new();
    let mut read = |command: &str, kind: &str, word: &str, joint: &str| {
        for line in lab.shown(node, command).lines() {
            let first = line.split_whitespace().next().unwrap();
            table.insert(format!("{kind} {first} {joint} {}", word_after(line, word)));
        }
    };
    read("ip -4 route show dev flannel.1", "route", "via", "via");
    let neighbours = "ip -4 neighbour show dev flannel.1 nud permanent";
    read(neighbours, "neighbour", "lladdr", "at");
    read("bridge fdb show dev flannel.1", "fdb", "dst", "to");
    table
}

/// The same rows by the tools that an administrator has, on node 2 of the lab: one process for
/// the forwarding entries and one for the rest; with a nexthop object for each route or without.
pub(crate) fn set_up_by_hand(lab: &Lab, count: usize, nexthops: bool) -> Duration {
    lab.shown("node2", "ip link delete flannel.1");
    let (mut ip, mut bridge) = (String::new(), String::new());
    for number in 1..=count {
        let peer = Peer::new(number);
        let (base, mac) = (peer.base(), peer.mac());
        let mut route = format!("{base}/24 via {base} dev {DEVICE} onlink");
        writeln!(
            bridge,
            "fdb replace {mac} dev {DEVICE} dst {} self permanent",
            peer.public_ip()
        )
        .unwrap();
        writeln!(
            ip,
            "neighbour replace {base} lladdr {mac} dev {DEVICE} nud permanent"
        )
        .unwrap();
        if nexthops {
            writeln!(
                ip,
                "nexthop replace id {number} via {base} dev {DEVICE} onlink"
            )
            .unwrap();
            route = format!("{base}/24 nhid {number}");
        }
        writeln!(ip, "route replace {route}").unwrap();
    }
    let (ip_file, bridge_file) = (lab.folder().join("ip"), lab.folder().join("bridge"));
    fs::write(&ip_file, ip).unwrap();
    fs::write(&bridge_file, bridge).unwrap();
    let begun = Instant::now();
    let script = format!(
        "ip link add {DEVICE} type vxlan id 1 local 192.168.1.48 dev eth0 dstport 8472 nolearning
         ip address add 10.64.2.0/32 dev {DEVICE}
         ip link set {DEVICE} up
         bridge -batch {}
         ip -batch {}",
        bridge_file.display(),
        ip_file.display()
    );
    lab.must("node2", &script);
    let took = begun.elapsed();
    let routes = lab.shown("node2", "ip route show dev flannel.1");
    assert_eq!(routes.lines().count(), count, "the floor is not the same");
    took
}
