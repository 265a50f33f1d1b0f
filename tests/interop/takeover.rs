//! This service in the place of a flanneld, on its device, lease and files; and the way back.

use std::thread;
use std::time::Duration;

use crate::flanneld::Mixed;
use crate::support::process::{Pings, Tally};

const KEY: &str = "100.96.2.0-24";

/// Pings to and from node2.
fn pings(mixed: &Mixed) -> [Pings; 3] {
    let pings = [(1, 2), (2, 1), (3, 2)].map(|(from, to)| mixed.lab.ping(from, to));
    // some before
    thread::sleep(Duration::from_millis(500));
    pings
}

/// How node2 routes to the other subnets.
fn peer_routes(mixed: &Mixed) -> Vec<String> {
    let routes = mixed.nodes[1].must("ip -4 route show");
    let routes = routes.lines().filter(|line| line.starts_with("100.96."));
    let routes = routes.filter(|line| !line.contains("dev docker0"));
    let routes: Vec<String> = routes.map(str::to_owned).collect();
    assert!(!routes.is_empty());
    routes
}

/// The address of the vxlan device on node2, and its index.
fn device(mixed: &Mixed) -> (String, String) {
    let file = |name| mixed.nodes[1].shown(&format!("cat /sys/class/net/flannel.1/{name}"));
    (file("address"), file("ifindex"))
}

/// udp has nobody to forward while neither program runs: one gap and no more.
fn check(backend: &str, what: &str, tallies: impl IntoIterator<Item = Tally>) {
    for Tally { sent, lost } in tallies {
        eprintln!("{backend}, {what}: {} of {sent} pings lost", lost.len());
        assert!(sent > 20, "{sent}");
        if backend != "udp" {
            assert_eq!(lost, [0; 0], "of {sent}");
        } else if let (Some(first), Some(last)) = (lost.first(), lost.last()) {
            let gap = usize::try_from(last - first + 1).unwrap();
            assert!(gap == lost.len(), "more than one gap: {lost:?}");
        }
    }
}

fn take_over_and_back(backend: &str) {
    let Some(mut mixed) = Mixed::start(backend) else {
        return;
    };
    let (lease, subnet_env) = (mixed.lab.lease(KEY).unwrap(), mixed.nodes[1].subnet_env());
    let (at, others) = (device(&mixed), mixed.ours());
    let running = pings(&mixed);
    mixed.flanneld.kill();
    mixed.nodes[1].start();
    mixed.nodes[1].wait_until_ready();
    mixed.nodes[1].wait_for_status("2 of 2 peers");
    check(backend, "take-over", running.map(Pings::finish));
    mixed.nodes[1].wait_for_status("datastore ok");
    // this flanneld masquerades nothing
    let masquerading = subnet_env.replace("IPMASQ=false", "IPMASQ=true");
    assert_eq!(mixed.nodes[1].subnet_env(), masquerading);
    let taken = mixed.lab.lease(KEY).unwrap();
    assert_eq!(taken.value, lease.value);
    assert!(taken.revision > lease.revision);
    assert_eq!(device(&mixed), at);
    for route in peer_routes(&mixed) {
        assert!(route.contains(" proto 96"), "{route}");
    }
    assert_eq!(mixed.ours(), others);
    mixed.lab.wait_until_connected();

    let running = pings(&mixed);
    assert_eq!(mixed.nodes[1].stop(), Some(0));
    if backend == "udp" {
        // the service leaves its device and route, for its next start; flanneld always makes a
        // device of its own, flannel1 then, and does not mind that another has the route
        mixed.nodes[1].must("ip link delete flannel0");
    }
    mixed.flanneld.start();
    mixed.lab.wait_until_connected();
    check(backend, "way back", running.map(Pings::finish));
    assert_eq!(mixed.nodes[1].subnet_env(), subnet_env);
    let back = mixed.lab.lease(KEY).unwrap();
    assert_eq!(back.value, lease.value);
    assert!(back.revision > taken.revision);
    assert_eq!(device(&mixed), at);
    assert_eq!(mixed.ours(), others);
    // its own, except for host-gw: there it is content with a route to the same gateway
    for route in peer_routes(&mixed) {
        let ours = route.contains(" proto 96");
        assert_eq!(ours, backend == "host-gw", "{route}");
    }
    mixed.is_well();
}

#[test]
fn take_over_and_back_with_vxlan() {
    take_over_and_back("vxlan");
}

#[test]
fn take_over_and_back_with_host_gw() {
    take_over_and_back("host-gw");
}

#[test]
fn take_over_and_back_with_udp() {
    take_over_and_back("udp");
}
