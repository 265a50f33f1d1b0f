//! Side by side.

use std::thread;
use std::time::Duration;

use crate::flanneld::Mixed;
use crate::support::process::until;

/// All reach all, and a flanneld that ends, comes back and ends again moves nothing of ours.
fn share_a_cluster(backend: &str) {
    let Some(mut mixed) = Mixed::start(backend) else {
        return;
    };
    let keys = ["100.96.1.0-24", "100.96.2.0-24", "100.96.3.0-24"];
    assert_eq!(mixed.lab.leases(), keys);
    let [ours, theirs] = [keys[0], keys[1]].map(|key| mixed.lab.lease(key).unwrap());
    eprintln!(
        "{backend}: flanneld wrote {}, ours {}",
        theirs.value, ours.value
    );
    assert_eq!(without_place(&ours.value), without_place(&theirs.value));
    let before = mixed.ours();
    for _ in 0..2 {
        mixed.flanneld.kill();
        mixed.flanneld.start();
    }
    mixed.lab.wait_until_connected();
    thread::sleep(Duration::from_secs(1));
    mixed.is_well();
    assert_eq!(mixed.ours(), before);
    let after = mixed.lab.lease(keys[1]).unwrap();
    assert_eq!(after.value, theirs.value);
    assert!(after.revision > theirs.revision, "it writes at each start");
    // and the other way round
    let rows = mixed.nodes[1].rows();
    mixed.nodes[0].kill();
    mixed.nodes[0].start();
    mixed.nodes[0].wait_until_ready();
    mixed.lab.wait_until_connected();
    assert_eq!(mixed.nodes[1].rows(), rows);
    // a peer of ours that leaves is gone there too; but see where flanneld is started: it hears
    // nothing while it is busy with what it has heard
    thread::sleep(Duration::from_secs(1));
    assert_eq!(mixed.nodes[2].stop(), Some(0));
    mixed.lab.delete_lease(keys[2]);
    if backend != "udp" {
        mixed.nodes[1].wait_for_end("ip route", "100.96.3.0/24");
    }
    until("the others are still connected", || {
        mixed.lab.reaches(1, 2) && mixed.lab.reaches(2, 1)
    });
}

/// A lease value without the address and the MAC, which are each node's own.
fn without_place(value: &str) -> String {
    let mut value: serde_json::Value = serde_json::from_str(value).unwrap();
    value["PublicIP"].take();
    if let Some(data) = value.get_mut("BackendData") {
        data["VtepMAC"].take();
    }
    value.to_string()
}

#[test]
fn share_a_cluster_with_vxlan() {
    share_a_cluster("vxlan");
}

#[test]
fn share_a_cluster_with_host_gw() {
    share_a_cluster("host-gw");
}

#[test]
fn share_a_cluster_with_udp() {
    share_a_cluster("udp");
}

/// flanneld makes its device anew with another address when that is gone, as after a reboot.
#[test]
fn a_flanneld_with_another_tunnel_address_is_followed() {
    let Some(mut mixed) = Mixed::start("vxlan") else {
        return;
    };
    let address = "cat /sys/class/net/flannel.1/address";
    let old = mixed.nodes[1].must(address);
    mixed.flanneld.kill();
    mixed.nodes[1].must("ip link delete flannel.1");
    mixed.flanneld.start();
    let new = mixed.nodes[1].must(address);
    assert_ne!(old, new);
    let (old, new) = (old.trim(), new.trim());
    for node in [&mixed.nodes[0], &mixed.nodes[2]] {
        node.wait_for("bridge fdb show dev flannel.1", new);
        node.wait_for("ip neighbour show dev flannel.1", new);
        node.wait_for_end("bridge fdb show dev flannel.1", old);
        node.wait_for_end("ip neighbour show dev flannel.1", old);
    }
    mixed.lab.wait_until_connected();
    mixed.is_well();
}
