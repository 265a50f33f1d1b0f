//! How long it takes until the kernel has all peers, and until it has one more.
//!
//! In the lab's namespaces, on a real etcd with 1,000 leases. What `ip -batch` and `bridge -batch`
//! take for the same rows, in the same run on the same machine, is what the figures are divided
//! by: machines differ, the ratio says what the service costs. `FLANNEL_RS_BENCH_PEERS` sets
//! another number of leases.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark fails by panicking and prints its table"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::fmt::Write as _;
use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use flannel_rs::cluster::datastore::{Datastore, Fence, Put, lease_key};
use flannel_rs::cluster::etcd::{Etcd, EtcdOptions};
use flannel_rs::cluster::subnet::Subnet;
use support::lab::{ETCD, Lab, Shape};
use support::node::Node;

const ROUNDS: usize = 5;

fn main() {
    // `cargo test` runs benchmarks too, and passes no such argument
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let peers = std::env::var("FLANNEL_RS_BENCH_PEERS").ok();
    let peers = peers.map_or(1000, |text| text.parse().expect("a number of peers"));
    let Some(mut lab) = Lab::new(Shape::Flat) else {
        return;
    };
    lab.start_etcd();
    lab.configure(r#"{"Network":"10.64.0.0/10","SubnetLen":24,"Backend":{"Type":"vxlan"}}"#);
    write_leases(&lab, peers);

    let by_hand = median(|_| set_up_by_hand(&lab, peers));
    let fresh = median(|_| start_to_ready(&lab, Before::Nothing));
    let again = median(|_| start_to_ready(&lab, Before::AllRows));
    let (one, one_by_hand) = one_more(&lab, peers);

    println!("\n{peers} leases in etcd, vxlan, medians of {ROUNDS} rounds\n");
    println!("{:<48}{:>10}{:>10}", "", "ms", "ratio");
    row(
        "ip -batch and bridge -batch, the same rows",
        by_hand,
        by_hand,
    );
    row("start to READY=1, nothing set up yet", fresh, by_hand);
    row(
        "start to READY=1, all set up by the one before",
        again,
        by_hand,
    );
    println!();
    row(
        "ip and bridge, the rows of one peer",
        one_by_hand,
        one_by_hand,
    );
    row(
        "one new lease written to its route in use",
        one,
        one_by_hand,
    );
}

fn row(what: &str, time: Duration, baseline: Duration) {
    let ratio = time.as_secs_f64() / baseline.as_secs_f64();
    println!("{what:<48}{:>10.1}{ratio:>10.2}", time.as_secs_f64() * 1e3);
}

fn median(mut measure: impl FnMut(usize) -> Duration) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS).map(&mut measure).collect();
    times.sort();
    times[ROUNDS / 2]
}

/// Subnet, public IP and MAC of peer `n`, from 1.
fn peer(n: usize) -> (Subnet, Ipv4Addr, String) {
    let n = u32::try_from(n).unwrap();
    let base = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 64, 0, 0)) + ((n + 256) << 8));
    let key = format!("{base}-24");
    let public_ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 20, 0, 0)) + n);
    let mac = format!(
        "02:00:00:{:02x}:{:02x}:{:02x}",
        n >> 16,
        n >> 8 & 255,
        n & 255
    );
    (Subnet::from_key(&key).unwrap(), public_ip, mac)
}

fn value(n: usize) -> String {
    let (_, public_ip, mac) = peer(n);
    format!(
        r#"{{"PublicIP":"{public_ip}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{mac}"}}}}"#
    )
}

fn write_leases(lab: &Lab, peers: usize) {
    inside(lab, "node1", async move |store| {
        for n in 1..=peers {
            write_lease(&store, n).await;
        }
    });
}

async fn write_lease(store: &Etcd, n: usize) {
    let put = Put {
        key: &lease_key(peer(n).0),
        value: &value(n),
        fence: Fence::Absent,
        ttl: None,
    };
    store.put(put).await.expect("etcd takes a lease");
}

/// Runs `work` on a thread that lives in a namespace of the lab.
fn inside<T: Send>(lab: &Lab, name: &str, work: impl AsyncFnOnce(Etcd) -> T + Send) -> T {
    let namespace = File::open(format!("/run/netns/{}", lab.namespace(name))).unwrap();
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async {
                let options = EtcdOptions {
                    endpoints: vec![ETCD.to_owned()],
                    prefix: "/coreos.com/network".to_owned(),
                    ..EtcdOptions::default()
                };
                work(Etcd::new(options).unwrap()).await
            })
        });
        thread.join().unwrap()
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    AllRows,
}

fn start_to_ready(lab: &Lab, before: Before) -> Duration {
    let mut node = lab.node(1);
    node.write_config("[node]\nname = \"node1\"\n");
    if before == Before::AllRows {
        node.start();
        node.wait_until_ready();
        node.kill();
    } else {
        clear(&node);
    }
    let begun = Instant::now();
    node.start();
    node.wait_until_ready();
    begun.elapsed()
}

fn clear(node: &Node) {
    node.shown("ip link delete flannel.1");
    node.shown("ip link delete docker0");
}

/// The same rows by the tools that an administrator has: one process for each kind.
fn set_up_by_hand(lab: &Lab, peers: usize) -> Duration {
    let node = lab.node(2);
    clear(&node);
    let (mut ip, mut bridge) = (String::new(), String::new());
    for n in 1..=peers {
        batch(n, &mut ip, &mut bridge);
    }
    let (ip_file, bridge_file) = (lab.folder().join("ip"), lab.folder().join("bridge"));
    std::fs::write(&ip_file, ip).unwrap();
    std::fs::write(&bridge_file, bridge).unwrap();
    let begun = Instant::now();
    node.shown(
        "ip link add flannel.1 type vxlan id 1 local 192.168.1.48 dev eth0 dstport 8472 nolearning",
    );
    node.shown("ip address add 10.64.1.0/32 dev flannel.1");
    node.shown("ip link set flannel.1 up");
    node.shown(&format!("bridge -batch {}", bridge_file.display()));
    node.shown(&format!("ip -batch {}", ip_file.display()));
    let time = begun.elapsed();
    let routes = node.shown("ip route show dev flannel.1").lines().count();
    assert_eq!(routes, peers, "the baseline set up something else");
    time
}

fn batch(n: usize, ip: &mut String, bridge: &mut String) {
    let (subnet, public_ip, mac) = peer(n);
    let base = subnet.base();
    writeln!(
        bridge,
        "fdb replace {mac} dev flannel.1 dst {public_ip} self permanent"
    )
    .unwrap();
    writeln!(
        ip,
        "neighbour replace {base} lladdr {mac} dev flannel.1 nud permanent"
    )
    .unwrap();
    writeln!(
        ip,
        "route replace {} via {base} dev flannel.1 onlink",
        subnet.v4()
    )
    .unwrap();
}

/// One more lease, until the kernel would send by it; and the same by hand.
fn one_more(lab: &Lab, peers: usize) -> (Duration, Duration) {
    let mut node = lab.node(1);
    node.write_config("[node]\nname = \"node1\"\n");
    node.start();
    node.wait_until_ready();
    let by_service = median(|round| {
        // a quiet service, as it is when one node joins
        thread::sleep(Duration::from_secs(1));
        let n = peers + 1 + round;
        inside(lab, "node1", async move |store| {
            let before = source(n);
            let begun = Instant::now();
            write_lease(&store, n).await;
            until_moved(n, before);
            begun.elapsed()
        })
    });
    node.kill();
    let by_hand = median(|round| {
        let n = peers + 1 + ROUNDS + round;
        let (mut ip, mut bridge) = (String::new(), String::new());
        batch(n, &mut ip, &mut bridge);
        inside(lab, "node1", async move |_| {
            let before = source(n);
            let begun = Instant::now();
            for (tool, lines) in [("bridge", &bridge), ("ip", &ip)] {
                for line in lines.lines() {
                    let words = line.split_whitespace();
                    let status = std::process::Command::new(tool).args(words).status();
                    assert!(status.unwrap().success(), "{tool} {line}");
                }
            }
            until_moved(n, before);
            begun.elapsed()
        })
    });
    (by_service, by_hand)
}

/// The address that the kernel would send from to a container of peer `n`: it changes with the
/// route that it would take.
fn source(n: usize) -> Ipv4Addr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let container = u32::from(peer(n).0.base()) + 2;
    socket.connect((Ipv4Addr::from(container), 9)).unwrap();
    match socket.local_addr().unwrap() {
        std::net::SocketAddr::V4(address) => *address.ip(),
        std::net::SocketAddr::V6(address) => panic!("{address} for an IPv4 peer"),
    }
}

fn until_moved(n: usize, before: Ipv4Addr) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while source(n) == before {
        assert!(Instant::now() < deadline, "peer {n} did not appear");
    }
}
