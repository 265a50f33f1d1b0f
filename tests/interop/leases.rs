//! flanneld writes its lease without looking at what is there.

use std::fs;
use std::thread;
use std::time::Duration;

use crate::flanneld::Mixed;
use crate::support::process::until;

const KEY: &str = "100.96.2.0-24";
/// flanneld renews a lease an hour before its end: this one soon.
const SOON: Duration = Duration::from_secs(3600 + 5);

/// Has flanneld renew its lease in a few seconds.
fn hurry(mixed: &Mixed) -> i64 {
    let value = mixed.lab.lease(KEY).unwrap().value;
    mixed.lab.write_lease_for(KEY, &value, SOON);
    // until it has heard of it
    thread::sleep(Duration::from_millis(500));
    mixed.lab.lease(KEY).unwrap().revision
}

#[test]
fn a_flanneld_that_renews_moves_nothing() {
    for backend in ["vxlan", "host-gw", "udp"] {
        let Some(mixed) = Mixed::start(backend) else {
            return;
        };
        let before = mixed.ours();
        let value = mixed.lab.lease(KEY).unwrap().value;
        let hurried = hurry(&mixed);
        let pings = mixed.lab.ping(1, 2);
        until("flanneld renews", || {
            mixed.lab.lease(KEY).unwrap().revision > hurried
        });
        let tally = pings.finish();
        assert_eq!(tally.lost, [0; 0], "of {}", tally.sent);
        let renewed = mixed.lab.lease(KEY).unwrap();
        assert_eq!(renewed.value, value);
        assert!(renewed.ttl.unwrap() > 86_000, "{renewed:?}");
        assert_eq!(mixed.ours(), before);
        mixed.is_well();
    }
}

/// It was cut off while its lease ran out and another node took the subnet: its renewal, begun
/// before, goes through, and only then does it learn of that (the first of flannel's defects).
#[test]
fn a_flanneld_that_comes_back_late_takes_the_subnet_from_us_and_not_we_from_it() {
    let Some(mut mixed) = Mixed::start("vxlan") else {
        return;
    };
    let theirs = mixed.lab.lease(KEY).unwrap();
    hurry(&mixed);
    mixed.lab.must("net", "ip link set node2 nomaster");
    // as if its time were up
    mixed.lab.delete_lease(KEY);
    let node = &mut mixed.nodes[2];
    assert_eq!(node.stop(), Some(0));
    mixed.lab.delete_lease("100.96.3.0-24");
    fs::remove_dir_all(node.folder().join("state")).unwrap();
    fs::remove_file(node.folder().join("subnet.env")).unwrap();
    // with containers on it, it would keep the address that they know
    node.must("ip link delete docker0");
    node.write_config("[node]\nname = \"node3\"\nsubnet = \"100.96.2.0/24\"\n");
    node.start();
    node.wait_until_ready();
    node.wait_for_status("100.96.2.0/24 vxlan, 1 of 1 peers");
    let (rows, own) = (node.rows(), mixed.lab.lease(KEY).unwrap());
    assert_ne!(own.value, theirs.value);
    thread::sleep(Duration::from_secs(5));
    mixed.lab.must("net", "ip link set node2 master br1");
    until("flanneld has renewed what it has not any more", || {
        mixed.lab.lease(KEY).unwrap().value == theirs.value
    });
    let stolen = mixed.lab.lease(KEY).unwrap();
    let node = &mixed.nodes[2];
    let line = node.wait_for_status("subnet-conflict: 100.96.2.0/24 is now leased to 192.168.1.48");
    assert!(line.contains("forwarding goes on"), "{line}");
    thread::sleep(Duration::from_secs(3));
    let now = mixed.lab.lease(KEY).unwrap();
    assert_eq!((now.value, now.revision), (stolen.value, stolen.revision));
    assert_eq!(node.rows(), rows);
    eprintln!("the flanneld that took it: {:?}", mixed.flanneld.ended());
    // the one that took it gives way
    mixed.flanneld.kill();
    mixed.lab.delete_lease(KEY);
    until("the lease is back", || {
        let lease = mixed.lab.lease(KEY);
        lease.is_some_and(|lease| lease.value == own.value)
    });
    node.wait_for_status("datastore ok");
    assert_eq!(node.rows(), rows);
}
