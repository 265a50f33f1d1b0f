//! What went wrong in flanneld and must not here: those of the sixteen defects that show in the
//! kernel, by their number in the reliability notes.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::VXLAN;
use crate::kernel::{BOUND, whole, within};
use crate::support::lab::{Lab, Shape};
use crate::support::node::Node;
use crate::support::process::{PATIENCE, until};

/// flanneld made the device anew with another MAC, told nobody, and left it without peers.
#[test]
fn defect_09_a_device_made_anew_has_all_peers_and_the_address_that_peers_know() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let nodes = lab.start_all();
    lab.wait_until_connected();
    let node = &nodes[0];
    let lease = lab.lease("100.96.1.0-24");
    let (before, others) = (whole(node), whole(&nodes[1]));
    node.must("ip link delete flannel.1");
    let took = until("all is as before", || whole(node) == before);
    within(BOUND, took, "made anew with its peers");
    let mac = node.must("cat /sys/class/net/flannel.1/address");
    let published = format!(r#""VtepMAC":"{}""#, mac.trim());
    assert!(
        lease.as_ref().unwrap().value.contains(&published),
        "{published}"
    );
    for peer in ["100.96.2.0", "100.96.3.0"] {
        assert!(
            before.contains(&format!("{peer}/24 via {peer} dev flannel.1")),
            "{before}"
        );
    }
    lab.wait_until_connected();
    assert_eq!(
        lab.lease("100.96.1.0-24").map(|l| l.revision),
        lease.map(|l| l.revision)
    );
    assert_eq!(whole(&nodes[1]), others);
}

/// flanneld took over a device whatever its MTU, and saw the uplink's once, at its start.
#[test]
fn defect_10_the_mtu_is_compared_and_follows_the_uplinks() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let mut nodes = lab.start_all();
    let node = &mut nodes[0];
    node.stop();
    node.must("ip link set flannel.1 mtu 1300");
    node.start();
    node.wait_until_ready();
    assert!(node.shown("ip link show flannel.1").contains("mtu 1450"));
    for (uplink, tunnel) in [(1400, 1350), (1500, 1450)] {
        node.must(&format!("ip link set eth0 mtu {uplink}"));
        let took = until(&format!("the MTU {tunnel} is everywhere"), || {
            let has = |link: &str| {
                let shown = node.shown(&format!("ip link show {link}"));
                shown.contains(&format!("mtu {tunnel} "))
            };
            let env = node.subnet_env();
            has("flannel.1") && has("docker0") && env.contains(&format!("FLANNEL_MTU={tunnel}\n"))
        });
        within(BOUND * 2, took, &format!("uplink's MTU {uplink}"));
    }
    node.wait_for_status("datastore ok");
    lab.wait_until_connected();
}

/// flanneld's repair only ever added. Foreign routes stay.
#[test]
fn defect_11_a_repair_removes_what_does_not_belong_there() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let nodes = lab.start_all();
    lab.wait_until_connected();
    let node = &nodes[0];
    let before = whole(node);
    node.must(
        "ip link add foreign0 type veth peer name foreign1
         ip link set foreign1 up; ip link set foreign0 up
         ip route add 203.0.113.0/24 dev foreign0 proto static",
    );
    for (name, script) in [
        (
            "a route over the device",
            "ip route add 100.96.77.0/24 via 100.96.77.0 dev flannel.1 onlink",
        ),
        (
            "a route with our protocol to nobody's subnet",
            "ip route add 100.96.78.0/24 via 192.168.1.49 dev eth0 proto 96",
        ),
        (
            "a neighbour on the device",
            "ip neighbour add 100.96.77.0 lladdr 02:00:00:00:00:77 dev flannel.1 nud permanent",
        ),
        (
            "a forwarding entry of the device",
            "bridge fdb append 02:00:00:00:00:77 dev flannel.1 dst 192.168.1.77",
        ),
    ] {
        node.must(script);
        let took = until(&format!("{name} is gone"), || whole(node) == before);
        within(BOUND, took, &format!("{name} is gone"));
    }
    assert!(
        node.shown("ip route")
            .contains("203.0.113.0/24 dev foreign0")
    );
    node.wait_for_status("datastore ok");
    lab.wait_until_connected();
}

/// flanneld said READY=1 before it had looked for its peers.
#[test]
fn defect_13_ready_comes_after_lease_list_kernel_and_files() {
    let Some(mut lab) = Lab::new(Shape::Flat) else {
        return;
    };
    lab.start_etcd();
    let mut node = lab.node(1);
    let refused = |node: &Node, why: &str| {
        let line = node.wait_for_status(why);
        thread::sleep(Duration::from_millis(500));
        assert!(!node.is_ready(), "ready in spite of: {line}");
        assert!(line.starts_with("waiting"), "{line}");
    };
    let env = node.folder().join("subnet.env");
    fs::create_dir(&env).unwrap();
    fs::write(env.join("in-the-way"), "").unwrap();
    node.must("ip link add theirs type vxlan id 1 dstport 8472 dev eth0; ip link set theirs up");
    node.start();
    refused(&node, "network-config: ");
    lab.configure("{");
    refused(
        &node,
        "network-config: the network config /coreos.com/network/config",
    );
    lab.set_backend(VXLAN);
    refused(&node, "kernel: add link flannel.1");
    node.must("ip link delete theirs");
    refused(&node, "files: ");
    fs::remove_dir_all(&env).unwrap();
    node.wait_until_ready();

    let mut late = lab.node(2);
    late.start();
    let began = Instant::now();
    while !late.is_ready() {
        assert!(began.elapsed() < PATIENCE, "{}", late.status_line());
        // what is missing at that moment must not have the time to come
        thread::sleep(Duration::from_millis(1));
    }
    let (rows, text) = (late.rows(), late.subnet_env());
    assert!(
        rows.contains("100.96.1.0/24 via 100.96.1.0 dev flannel.1"),
        "{rows}"
    );
    assert!(rows.contains("dst 192.168.1.47 self permanent"), "{rows}");
    assert!(text.contains("FLANNEL_SUBNET=100.96.2.1/24\n"), "{text}");
    assert!(lab.lease("100.96.2.0-24").is_some());
    assert_eq!((node.told("READY=1"), late.told("READY=1")), (1, 1));
}
