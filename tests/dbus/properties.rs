//! What the properties show, and what is told when they change.

use std::sync::Arc;
use std::time::Duration;

use flannel_rs::service::dbus::ROOT;
use flannel_rs::service::status::{Fault, PeerPath, PeerStatus, State, Status};
use tokio::time::{Instant, sleep};

use crate::support::served::{LINK, MANAGER, Node, PEER, peer, shown, status, tunnel};
use crate::{LINK_1, PEER_2, PEER_3};

#[tokio::test(flavor = "multi_thread")]
async fn properties_show_the_status() {
    let Some(node) = Node::start(status()).await else {
        return;
    };
    let all = node.properties(ROOT, MANAGER).await;
    let expected = "\
Backend \"vxlan\"
DatastoreRevision int64 42
DatastoreState \"connected\"
Health @a(ss) []
LastReconcileUSec uint64 1800000000000000
LeaseExpiresUSec uint64 1800086399000000
LogLevel \"info\"
MTU uint32 1450
Network \"100.96.0.0/16\"
NodeId \"0123456789abcdef0123456789abcdef\"
NodeName \"node1\"
PeerCount uint32 2
PublicIP \"192.168.1.47\"
RepairCount uint64 7
State \"running\"
Subnet \"100.96.1.0/24\"
Traffic @a{st} {}
Version \"0.1.0\"
";
    assert_eq!(shown(&all), expected);
    let expected = "\
Backend \"vxlan\"
Mac \"02:00:00:00:00:02\"
Obstacle \"\"
Path \"tunnel\"
PublicIP \"192.168.1.48\"
Subnet \"100.96.2.0/24\"
Traffic @a{st} {}
";
    assert_eq!(shown(&node.properties(PEER_2, PEER).await), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unknown_is_empty_or_zero() {
    let waiting = Status {
        state: State::Waiting,
        faults: vec![Fault {
            code: "datastore".to_owned(),
            text: "a text with \0 in it".to_owned(),
            times: 1,
        }],
        backend: None,
        network: None,
        subnet: None,
        interface: None,
        public_ip: None,
        mtu: 0,
        lease_expires_usec: None,
        peers: Arc::default(),
        last_reconcile_usec: None,
        ..status()
    };
    let Some(node) = Node::start(waiting).await else {
        return;
    };
    let all = shown(&node.properties(ROOT, MANAGER).await);
    for line in [
        "Backend \"\"",
        "Health [(\"datastore\", \"a text with \u{fffd} in it\")]",
        "LastReconcileUSec uint64 0",
        "LeaseExpiresUSec uint64 0",
        "Network \"\"",
        "PublicIP \"\"",
        "State \"waiting\"",
        "Subnet \"\"",
    ] {
        assert!(all.lines().any(|l| l == line), "{line} not in\n{all}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_told_once_and_alone() {
    let Some(node) = Node::start(status()).await else {
        return;
    };
    let mut signals = node.signals().await;
    node.change(|status| {
        status.state = State::Degraded;
        status.repairs += 1;
        status.garbage = Vec::new();
    });
    let told = signals.next().await;
    assert_eq!(
        told,
        format!("{ROOT} PropertiesChanged {MANAGER}\nRepairCount uint64 8\nState \"degraded\"\n")
    );

    // nothing that a client can see
    node.change(|status| status.interface = Some("eth1".to_owned()));
    node.change(|status| Arc::make_mut(&mut status.peers)[0].path = PeerPath::Direct);
    let told = signals.next().await;
    assert_eq!(
        told,
        format!("{PEER_2} PropertiesChanged {PEER}\nPath \"direct\"\n")
    );
    assert_eq!(signals.quiet().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_changes_become_few_signals() {
    let Some(node) = Node::start(status()).await else {
        return;
    };
    let mut signals = node.signals().await;
    let start = Instant::now();
    for revision in 1..=100 {
        node.change(|status| status.datastore.revision = 42 + revision);
        sleep(Duration::from_millis(10)).await;
    }
    let mut count = 0;
    loop {
        count += 1;
        assert!(count < 100, "every change was told");
        if signals.next().await.contains("DatastoreRevision int64 142") {
            break;
        }
    }
    let most = start.elapsed().as_millis() / 200 + 2;
    assert!(count <= most, "{count} signals, expected at most {most}");
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_come_and_go() {
    let Some(node) = Node::start(status()).await else {
        return;
    };
    assert_eq!(node.managed().await, [PEER_2, PEER_3]);
    let mut signals = node.signals().await;
    node.change(|status| {
        let peers = Arc::make_mut(&mut status.peers);
        peers.remove(0);
        peers.push(peer(4));
    });
    let told = signals.next().await;
    assert_eq!(told, format!("{ROOT} InterfacesRemoved {PEER_2} {PEER}"));
    let added = "/org/flannelrs/Flannel1/peer/_100_96_4_0_24";
    let told = signals.next().await;
    assert_eq!(told, format!("{ROOT} InterfacesAdded {added} {PEER}"));
    assert_eq!(node.managed().await, [PEER_3, added]);

    // as many as before, so the count was not told
    node.change(|status| status.peers = Arc::default());
    for gone in [PEER_3, added] {
        let told = signals.next().await;
        assert_eq!(told, format!("{ROOT} InterfacesRemoved {gone} {PEER}"));
    }
    let told = signals.next().await;
    assert_eq!(
        told,
        format!("{ROOT} PropertiesChanged {MANAGER}\nPeerCount uint32 0\n")
    );
    assert_eq!(node.managed().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_peers_at_once() {
    let Some(node) = Node::start(status()).await else {
        return;
    };
    let start = Instant::now();
    node.change(|status| {
        let subnets = (0..2000).map(|n: u32| format!("10.{}.{}.0/24", n >> 8, n & 255));
        let peers = subnets.map(|subnet| PeerStatus { subnet, ..peer(2) });
        status.peers = Arc::new(peers.collect());
    });
    while node.managed().await.len() != 2000 {
        assert!(start.elapsed() < Duration::from_secs(30));
        sleep(Duration::from_millis(50)).await;
    }
    eprintln!("2,000 peers on the bus after {:?}", start.elapsed());
    let one = "/org/flannelrs/Flannel1/peer/_10_7_207_0_24";
    assert!(shown(&node.properties(one, PEER).await).contains("Subnet \"10.7.207.0/24\""));
    node.change(|status| status.peers = Arc::default());
    while !node.managed().await.is_empty() {
        assert!(start.elapsed() < Duration::from_secs(60));
        sleep(Duration::from_millis(50)).await;
    }
    eprintln!("and gone after {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn links_come_change_and_go() {
    let Some(node) = Node::start(status()).await else {
        return;
    };
    assert_eq!(node.managed_with(LINK).await, [LINK_1]);
    let link = r#"{"Addresses": <["100.96.1.0/32"]>, "Kind": <"vxlan">, "MAC": <"02:00:00:00:00:01">, "MTU": <uint32 1450>, "Up": <true>}"#;
    let all = shown(&node.properties(LINK_1, LINK).await);
    assert_eq!(
        all,
        format!("Desired {link}\nName \"flannel.1\"\nObserved {link}\n")
    );

    let mut signals = node.signals().await;
    // another list, and the same in it
    node.change(|status| status.interfaces = Arc::new(vec![tunnel()]));
    node.change(|status| {
        Arc::make_mut(&mut status.interfaces)[0].observed = None;
    });
    let told = signals.next().await;
    assert_eq!(
        told,
        format!("{LINK_1} PropertiesChanged {LINK}\nObserved @a{{sv}} {{}}\n")
    );
    node.change(|status| {
        let mut bridge = tunnel();
        bridge.name = "docker0".to_owned();
        status.interfaces = Arc::new(vec![bridge]);
    });
    let told = signals.next().await;
    assert_eq!(told, format!("{ROOT} InterfacesRemoved {LINK_1} {LINK}"));
    let added = "/org/flannelrs/Flannel1/interface/_docker0";
    let told = signals.next().await;
    assert_eq!(told, format!("{ROOT} InterfacesAdded {added} {LINK}"));
    assert_eq!(signals.quiet().await, None);
}
