//! Leases of others that are malformed or hostile.

use serde_json::Value;

use crate::support::lab::{Lab, Shape};
use crate::support::process::until;
use crate::{HOST_GW, PEER, VXLAN};

/// Entries that are no leases, and a part of the reason.
const GARBAGE: [(&str, &str, &str); 6] = [
    ("100.96.10.0-24", "hello", "not a JSON object"),
    (
        "100.96.11.0-24",
        r#"{"PublicIP":"everywhere"}"#,
        "PublicIP = \"everywhere\"",
    ),
    (
        "100.96.12.0-24",
        r#"{"PublicIP":"192.168.1.60","BackendType":"vxlan","BackendData":{"VtepMAC":"x"}}"#,
        "VtepMAC = \"x\"",
    ),
    (
        "lunch",
        PEER,
        "\"lunch\" is not a lease key such as 10.5.34.0-24",
    ),
    ("100.96.13.0-24/more", PEER, "is not a lease key"),
    ("100.96.14.0-99", PEER, "is not a lease key"),
];

const OUTSIDE: &str = "its subnet is outside of the network";

/// Leases that would do harm if they became routes, and why they do not.
const HARMFUL: [(&str, &str, &str); 10] = [
    ("0.0.0.0-0", "192.168.1.60", OUTSIDE),
    ("0.0.0.0-1", "192.168.1.60", OUTSIDE),
    ("192.168.1.0-24", "192.168.1.60", OUTSIDE),
    (
        "100.96.21.0-24",
        "224.0.0.1",
        "its public IP 224.0.0.1 is no usable address",
    ),
    (
        "100.96.22.0-24",
        "0.0.0.0",
        "its public IP 0.0.0.0 is no usable address",
    ),
    (
        "100.96.23.0-24",
        "100.96.23.1",
        "its public IP 100.96.23.1 is no usable address",
    ),
    (
        "100.96.20.0-24",
        "192.168.1.47",
        "it advertises this node's own public IP",
    ),
    (
        "100.96.0.0-16",
        "192.168.1.60",
        "its subnet overlaps the lease of 100.96.1.0/24",
    ),
    (
        "100.96.1.0-25",
        "192.168.1.60",
        "its subnet overlaps the lease of 100.96.1.0/24",
    ),
    (
        "100.96.2.0-25",
        "192.168.1.60",
        "its subnet overlaps the lease of 100.96.2.0/24",
    ),
];

#[test]
fn garbage_among_the_leases_is_counted_and_harms_nobody() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let write = |garbage: &[(&str, &str, &str)], harmful: &[(&str, &str, &str)]| {
        for (key, value, _) in garbage {
            lab.write_lease(key, value, false);
        }
        for (key, address, _) in harmful {
            lab.write_lease(key, &PEER.replace("192.168.1.60", address), false);
        }
    };
    // some is there at the start, the rest comes later
    let (early_garbage, late_garbage) = GARBAGE.split_at(3);
    let (early_harm, late_harm) = HARMFUL.split_at(5);
    let mut nodes = [1, 2].map(|number| lab.node(number));
    if !nodes[0].start_bus() {
        return;
    }
    let before = nodes[0].shown("ip -4 route show table all");
    write(early_garbage, early_harm);
    for node in &mut nodes {
        node.start();
        node.wait_until_ready();
        lab.container(node);
    }
    write(late_garbage, late_harm);
    until("all is counted and planned for", || {
        let status = nodes[0].status();
        let count = |field: &str| status[field].as_array().unwrap().len();
        let planned = !status["peers"].to_string().contains("not planned yet");
        count("garbage") == GARBAGE.len() && count("peers") == HARMFUL.len() + 1 && planned
    });
    assert_all_told(&nodes[0].status());
    until("container 1 reaches container 2", || lab.reaches(1, 2));
    until("container 2 reaches container 1", || lab.reaches(2, 1));
    let after = nodes[0].shown("ip -4 route show table all");
    let new: Vec<&str> = after
        .lines()
        .filter(|line| !before.contains(line))
        .collect();
    let ours = |line: &&str| !line.contains("100.96.1.") || line.contains("100.96.1.0/25");
    let foreign: Vec<&str> = new.into_iter().filter(ours).map(str::trim).collect();
    assert_eq!(
        foreign,
        ["100.96.2.0/24 via 100.96.2.0 dev flannel.1 proto 96 onlink"]
    );
}

/// Each entry is listed with its reason.
fn assert_all_told(status: &Value) {
    let entry = |list: &str, field: &str, value: &str| {
        let entries = status[list].as_array().unwrap();
        let found = entries.iter().find(|entry| entry[field] == value);
        found
            .unwrap_or_else(|| panic!("{value} is not in {entries:?}"))
            .clone()
    };
    for (key, _, reason) in GARBAGE {
        let found = entry("garbage", "key", &format!("subnets/{key}"));
        assert!(
            found["reason"].as_str().unwrap().contains(reason),
            "{found}"
        );
    }
    for (key, _, obstacle) in HARMFUL {
        let found = entry("peers", "subnet", &key.replace('-', "/"));
        assert_eq!(
            (&found["path"], &found["obstacle"]),
            (&"none".into(), &obstacle.into())
        );
    }
}

#[test]
fn a_peer_whose_lease_turns_into_garbage_stays_reachable() {
    let Some(lab) = Lab::with_backend(Shape::Flat, HOST_GW) else {
        return;
    };
    let mut node = lab.node(1);
    if !node.start_bus() {
        return;
    }
    lab.write_lease(
        "100.96.9.0-24",
        r#"{"PublicIP":"192.168.1.60","BackendType":"host-gw"}"#,
        false,
    );
    node.start();
    node.wait_until_ready();
    let route = "100.96.9.0/24 via 192.168.1.60 dev eth0";
    node.wait_for("ip route show proto 96", route);
    lab.write_lease("100.96.9.0-24", "hello", false);
    until("the garbage is counted", || {
        node.status()["garbage"].as_array().unwrap().len() == 1
    });
    // the next look at the kernel has come and gone
    node.must("ip route delete 100.96.9.0/24");
    node.wait_for("ip route show proto 96", route);
    lab.delete_lease("100.96.9.0-24");
    node.wait_for_end("ip route show proto 96", route);
}
