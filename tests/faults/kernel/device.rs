//! The tunnel device is taken away, tied up, or its data plane breaks down.

use std::thread;
use std::time::{Duration, Instant};

use super::{BOUND, UDP, outage, process, whole, within};
use crate::VXLAN;
use crate::support::lab::{Lab, Shape};
use crate::support::process::until;

/// The kernel has one device for a VNI in the namespace where it was made, wherever that device is
/// now (`vxlan_find_vni` of the source namespace), so ours cannot come back before it goes.
#[test]
fn vxlan_device_moved_into_another_namespace() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let nodes = lab.start_all();
    lab.wait_until_connected();
    let node = &nodes[0];
    let before = whole(node);
    let log = node.log().lines().count();
    node.must(&format!(
        "ip link set flannel.1 netns {}",
        lab.namespace("c1")
    ));
    let line = node.wait_for_status("kernel: add link flannel.1");
    eprintln!("moved away: {line}");
    assert!(line.contains("already exists"), "{line}");
    thread::sleep(Duration::from_secs(3));
    let lines = node.log().lines().count() - log;
    assert!(lines < 5, "{lines} lines:\n{}", node.log());
    lab.must("c1", "ip link delete flannel.1");
    let took = until("all is as before", || whole(node) == before);
    within(
        BOUND,
        took,
        "vxlan device moved away, once that was deleted",
    );
    lab.wait_until_connected();
    node.wait_for_status("datastore ok");
}

#[test]
fn tun_device_moved_into_another_namespace() {
    let Some(lab) = Lab::with_backend(Shape::Flat, UDP) else {
        return;
    };
    let nodes = lab.start_all();
    lab.wait_until_connected();
    let node = &nodes[0];
    let before = whole(node);
    node.must(&format!(
        "ip link set flannel0 netns {}",
        lab.namespace("c1")
    ));
    let took = until("all is as before", || whole(node) == before);
    within(BOUND, took, "TUN device moved away");
    lab.wait_until_connected();
    node.wait_for_status("datastore ok");
}

/// As a port of a bridge the device does not hand packets to the host any more.
#[test]
fn vxlan_device_tied_to_a_foreign_bridge() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let nodes = lab.start_all();
    lab.wait_until_connected();
    let node = &nodes[0];
    let before = whole(node);
    let pings = lab.ping(1, 2);
    let began = Instant::now();
    node.must("ip link add foreign0 type bridge; ip link set flannel.1 master foreign0");
    thread::sleep(BOUND);
    let tally = pings.finish();
    eprintln!(
        "device tied to a bridge: {}",
        outage(&tally, began.elapsed())
    );
    let link = node.shown("ip -o link show flannel.1");
    assert!(!link.contains("master"), "{link}");
    assert_eq!(whole(node), before);
    lab.wait_until_connected();
    assert!(node.shown("ip link").contains("foreign0"));
    node.wait_for_status("datastore ok");
}

#[test]
fn forwarding_switched_off_and_on() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let nodes = lab.start_all();
    lab.wait_until_connected();
    let node = &nodes[0];
    let began = Instant::now();
    node.must("echo 0 > /proc/sys/net/ipv4/ip_forward");
    let line = node.wait_for_status("forwarding: the kernel forwards no packets");
    within(
        BOUND,
        began.elapsed(),
        &format!("forwarding off, told: {line}"),
    );
    assert!(!lab.reaches(1, 2));
    let began = Instant::now();
    node.must("echo 1 > /proc/sys/net/ipv4/ip_forward");
    node.wait_for_status("datastore ok");
    within(BOUND, began.elapsed(), "forwarding on");
    lab.wait_until_connected();
}

/// Who asks for a device with one queue, as ip(8) does unless told otherwise, does not get ours.
#[test]
fn tun_device_cannot_be_taken_over() {
    let Some(lab) = Lab::with_backend(Shape::Flat, UDP) else {
        return;
    };
    let nodes = lab.start_all();
    lab.wait_until_connected();
    let node = &nodes[0];
    let before = whole(node);
    let said = node.must("ip tuntap delete dev flannel0 mode tun 2>&1 || true");
    // the device has several queues, or, without offloads, one that the service holds
    let refusals = ["Invalid argument", "Device or resource busy"];
    assert!(
        refusals.iter().any(|refusal| said.contains(refusal)),
        "{said}"
    );
    thread::sleep(Duration::from_secs(1));
    assert_eq!(whole(node), before);
    assert!(lab.reaches(1, 2) && lab.reaches(3, 1));
}

#[test]
fn the_udp_sockets_address_goes_and_comes() {
    let Some(lab) = Lab::with_backend(Shape::Flat, UDP) else {
        return;
    };
    let nodes = lab.start_all();
    lab.wait_until_connected();
    let node = &nodes[0];
    let before = whole(node);
    let log = node.log().lines().count();
    node.must("ip address delete 192.168.1.47/24 dev eth0");
    let line = node.wait_for_status("uplink: ");
    eprintln!("address gone: {line}");
    thread::sleep(Duration::from_secs(3));
    let lines = node.log().lines().count() - log;
    assert!(lines < 8, "{lines} lines:\n{}", node.log());
    let began = Instant::now();
    node.must("ip address add 192.168.1.47/24 dev eth0; ip route replace default via 192.168.1.1");
    until("the containers reach each other", || {
        lab.reaches(1, 2) && lab.reaches(2, 1)
    });
    within(BOUND, began.elapsed(), "address back");
    node.wait_for_status("datastore ok");
    assert_eq!(whole(node), before);
    lab.wait_until_connected();
}

/// With no file descriptors to be had a worker cannot wait any more (`poll` fails beyond
/// `RLIMIT_NOFILE`), and neither can the data plane be begun anew nor the status be told.
#[test]
fn the_udp_data_plane_breaks_down() {
    let Some(lab) = Lab::with_backend(Shape::Flat, UDP) else {
        return;
    };
    let nodes = lab.start_all();
    lab.wait_until_connected();
    let node = &nodes[0];
    let before = whole(node);
    let pid = process(&lab, node);
    let limit = |soft: &str| node.must(&format!("prlimit --pid {pid} --nofile={soft}:"));
    let log = node.log().len();
    let news = || node.log()[log..].to_owned();
    let began = Instant::now();
    limit("2");
    until("the log tells of it", || news().contains("fault=proxy"));
    within(
        Duration::from_secs(5),
        began.elapsed(),
        &format!("told: {}", news()),
    );
    thread::sleep(Duration::from_secs(4));
    assert!(news().lines().count() < 10, "{}", news());
    let began = Instant::now();
    limit("1024");
    until("the containers reach each other", || {
        lab.reaches(1, 2) && lab.reaches(2, 1)
    });
    within(BOUND, began.elapsed(), "data plane begun anew");
    until("the fault is over", || {
        news().contains("proxy is right again")
    });
    node.wait_for_status("datastore ok");
    assert_eq!(whole(node), before);
    lab.wait_until_connected();
}
