//! What the udp data plane has moved, as people and programs are told.

use serde_json::Value;

use crate::support::lab::{Lab, Shape};
use crate::support::process::until;

#[test]
fn traffic_is_told_while_the_service_moves_the_packets() {
    let Some(lab) = Lab::with_backend(Shape::Flat, r#"{"Type":"udp"}"#) else {
        return;
    };
    let mut nodes = lab.start_all();
    if !nodes[0].start_bus() {
        return;
    }
    lab.wait_until_connected();
    until("the service is on the bus", || {
        nodes[0].program(&["status"]).0 == Some(0)
    });
    let moved = |name: &str| nodes[0].status()["traffic"][name].as_u64().unwrap();
    for name in ["sent_packets", "received_packets"] {
        let before = moved(name);
        assert!(before > 0, "{name}");
        assert!(lab.reaches(1, 2));
        until("more is counted", || moved(name) > before);
    }
    assert!(moved("sent_bytes") >= 28 * moved("sent_packets"));
    let (_, page, _) = nodes[0].program(&["status"]);
    assert!(page.contains("\n  traffic    sent "), "{page}");
    let of_peers = |name: &str| -> u64 {
        let json = nodes[0].program(&["peers", "--json"]).1;
        let peers: Vec<Value> = serde_json::from_str(&json).unwrap();
        assert_eq!(peers.len(), 2, "{json}");
        let numbers = peers.iter().map(|peer| peer["traffic"][name].as_u64());
        let numbers: Vec<_> = numbers.map(Option::unwrap).collect();
        assert!(!numbers.contains(&0), "{name}: {json}");
        numbers.iter().sum()
    };
    for name in ["received_packets", "received_bytes"] {
        assert!(of_peers(name) <= moved(name), "{name}");
    }
    for name in ["sent_packets", "sent_bytes"] {
        let (before, parts) = (moved(name), of_peers(name));
        assert!(before <= parts && parts <= moved(name), "{name}");
    }
    let (_, page, _) = nodes[0].program(&["peers", "192.168.1.48"]);
    assert!(page.contains("\n  traffic    sent "), "{page}");

    lab.set_backend(r#"{"Type":"vxlan"}"#);
    nodes[0].wait_for_status("vxlan, 2 of 2 peers");
    until("the kernel moves them", || {
        nodes[0].status()["traffic"] == Value::Null
    });
    let (_, page, _) = nodes[0].program(&["status"]);
    assert!(!page.contains("traffic"), "{page}");
}
