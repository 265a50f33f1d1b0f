//! A path between two nodes that becomes narrower while packets move.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::cluster::{Cluster, Way};
use crate::stream::{Load, Stream};
use crate::support::lab::Shape;
use crate::support::process::{inside, until};

/// What a packet between containers may have where datagrams may have 1400 bytes.
const LONGEST: &str = "1372";

fn a_narrower_path_is_found(way: Way) {
    let Some(mut cluster) = Cluster::start(Shape::Routed, [way; 3]) else {
        return;
    };
    if !cluster.nodes[0].start_bus() {
        return;
    }
    assert_eq!(cluster.nodes[0].stop(), Some(0));
    cluster.nodes[0].start();
    cluster.nodes[0].wait_until_ready();
    cluster.lab.wait_until_connected();
    let over = Arc::new(AtomicBool::new(false));
    let paced = Load {
        pause: Duration::from_millis(2),
        ..Load::until(&over)
    };
    let pairs = [cluster.pair(1, 3), cluster.pair(3, 1), cluster.pair(1, 2)];
    let streams = pairs.map(|pair| Stream::start(&pair, paced.clone()));
    let moving = |streams: &[Stream], what: &str| {
        for stream in streams {
            let before = stream.received();
            until(what, || stream.received() > before + (1 << 20));
        }
    };
    moving(&streams, "streams move on the wide path");
    cluster.lab.must("net", "ip link set br2 mtu 1400");
    moving(&streams, "streams move on the narrow path");
    told_of_the_path(&cluster);
    moving(&streams, "streams move once all know");
    over.store(true, Ordering::Relaxed);
    for stream in streams {
        let moved = stream.finish();
        eprintln!("{way:?}: {moved:?}");
        assert!(moved.longest_pause < Duration::from_secs(10), "{moved:?}");
    }

    // datagrams that may be fragmented are
    for length in [1344, 1345, 1444, 4000] {
        let ping = format!("ping -n -q -M dont -c 3 -i 0.1 -W 2 -s {length} 100.96.3.2");
        cluster.lab.must("c1", &ping);
    }
    // the way to the other peer is as wide as ever
    cluster
        .lab
        .must("c1", "ping -n -q -M do -c 3 -i 0.1 -W 2 -s 1444 100.96.2.2");
}

/// Who may not fragment is told how much fits, and the service tells that it did so.
fn told_of_the_path(cluster: &Cluster) {
    let ping = |length: &str| {
        // without the exception that a TCP stream may have brought, ping would not send
        cluster.lab.must("c1", "ip route flush cache");
        let mut ping = inside(&cluster.container(1), "ping");
        ping.args(["-n", "-M", "do", "-c", "4", "-i", "0.2", "-W", "1"]);
        let output = ping.args(["-s", length, "100.96.3.2"]).output().unwrap();
        format!("{output:?}")
    };
    until("a container is told of the path's MTU", || {
        let words = ping("1400");
        // by an answer to itself, or by its own kernel, as a stream was told first
        let told = [
            format!("Frag needed and DF set (mtu = {LONGEST})"),
            format!("message too long, mtu={LONGEST}"),
        ];
        told.iter().any(|told| words.contains(told))
    });
    let route = cluster.lab.shown("c1", "ip route get 100.96.3.2");
    assert!(route.contains(&format!("mtu {LONGEST}")), "{route}");
    let exact = ping("1344");
    // the streams may crowd one out
    assert!(exact.contains(" bytes from 100.96.3.2"), "{exact}");
    let over = ping("1345");
    assert!(over.contains("100% packet loss"), "{over}");

    let traffic = cluster.nodes[0].status()["traffic"].take();
    for name in ["dropped_too_big_for_path", "answered_too_big_for_path"] {
        let count = traffic[name].as_u64();
        assert!(count.is_some_and(|count| count > 0), "{name}: {traffic}");
    }
}

#[test]
fn a_narrower_path_is_found_with_offloads() {
    a_narrower_path_is_found(Way::Offloads);
}

#[test]
fn a_narrower_path_is_found_plain() {
    a_narrower_path_is_found(Way::Plain);
}
