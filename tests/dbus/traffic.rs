//! What the data plane moves and drops, as clients read it.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use flannel_rs::proxy::counters::Meter;
use flannel_rs::proxy::table::Table;
use flannel_rs::proxy::{Proxy, Settings, Tuning};
use flannel_rs::service::dbus::ROOT;
use flannel_rs::service::status::{PeerStatus, PeerTraffic, State, Status, Traffic};
use ipnet::Ipv4Net;
use nix::sched::{CloneFlags, unshare};
use tokio::time::sleep;
use zbus::OwnedVariant;

use crate::support::served::{MANAGER, Node, PEER, peer, shown, status};
use crate::{PEER_2, PEER_3};

/// A real data plane in a network namespace of its own, whose device is down.
struct DataPlane {
    meter: Meter,
    /// Each is sent to its socket; once there is nobody to send any, it ends.
    datagrams: Option<mpsc::Sender<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
}

impl DataPlane {
    /// `None`, with a message, where there can be none.
    fn start(table: Table) -> Option<Self> {
        let (tell, started) = mpsc::channel();
        let (datagrams, received) = mpsc::channel::<Vec<u8>>();
        let thread = thread::spawn(move || {
            let proxy = match attach() {
                Ok(proxy) => proxy,
                Err(reason) => return tell.send(Err(reason)).unwrap(),
            };
            proxy.set_table(&table);
            tell.send(Ok(proxy.meter())).unwrap();
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            for datagram in received {
                socket.send_to(&datagram, AT).unwrap();
            }
        });
        match started.recv().unwrap() {
            Ok(meter) => Some(Self {
                meter,
                datagrams: Some(datagrams),
                thread: Some(thread),
            }),
            Err(reason) => {
                eprintln!("skipped: no udp data plane: {reason}");
                None
            }
        }
    }

    /// Has something arrive that is no packet, and waits until it is counted.
    async fn disturb(&self) {
        let before = self.meter.totals().malformed;
        let datagrams = self.datagrams.as_ref().unwrap();
        datagrams.send(vec![0x45]).unwrap();
        let start = Instant::now();
        while self.meter.totals().malformed == before {
            assert!(start.elapsed() < Duration::from_secs(20));
            sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        drop(self.datagrams.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

const AT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8285);

fn attach() -> Result<Proxy, String> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("no network namespace: {error}"))?;
    let up = Command::new("ip")
        .args("link set lo up".split(' '))
        .status();
    if !up.is_ok_and(|status| status.success()) {
        return Err("ip(8) does not work here".to_owned());
    }
    let settings = Settings {
        device: "flannel0".to_owned(),
        mtu: 1472,
        bind: AT,
        verify: None,
        tuning: Tuning {
            offload: false,
            port_per_flow: false,
        },
    };
    Proxy::attach(settings).map_err(|error| error.to_string())
}

fn table(peers: &[PeerStatus]) -> Table {
    let route = |peer: &PeerStatus| {
        let subnet: Ipv4Net = peer.subnet.parse().unwrap();
        (subnet, peer.public_ip)
    };
    Table::new(peers.iter().map(route))
}

fn traffic(properties: &HashMap<String, OwnedVariant>) -> HashMap<String, u64> {
    let traffic = properties["Traffic"].try_clone().unwrap();
    traffic.try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_are_read_live_and_are_no_news() {
    let Some(data_plane) = DataPlane::start(table(&[peer(2)])) else {
        return;
    };
    let Some(node) = Node::start(status()).await else {
        return;
    };
    let mut signals = node.signals().await;
    data_plane.disturb().await;
    node.meter.send_replace(Some(data_plane.meter.clone()));
    for malformed in 1..=3 {
        let all = traffic(&node.properties(ROOT, MANAGER).await);
        assert_eq!(all["dropped-malformed"], malformed);
        assert_eq!(all["dropped-no-route"], 0);
        assert_eq!(all.len(), 17);
        data_plane.disturb().await;
    }
    let of_peer = traffic(&node.properties(PEER_2, PEER).await);
    assert_eq!(of_peer["sent-packets"], 0);
    assert_eq!(of_peer.len(), 6);
    let stranger = node.properties(PEER_3, PEER).await;
    assert!(shown(&stranger).contains("Traffic @a{st} {}"), "no tunnel");

    // what has changed is told without what changes all the time
    data_plane.disturb().await;
    node.change(|status| {
        status.state = State::Degraded;
        Arc::make_mut(&mut status.peers)[0].backend = "udp".to_owned();
    });
    let told = signals.next().await;
    let expected = format!("{PEER_2} PropertiesChanged {PEER}\nBackend \"udp\"\n");
    assert_eq!(told, expected);
    let told = signals.next().await;
    let expected = format!("{ROOT} PropertiesChanged {MANAGER}\nState \"degraded\"\n");
    assert_eq!(told, expected);
    assert_eq!(signals.quiet().await, None);

    let manager = node.manager().await;
    let json: String = manager.call("Describe", &()).await.unwrap();
    let described: Status = serde_json::from_str(&json).unwrap();
    let expected = Traffic::from(data_plane.meter.totals());
    assert_eq!(described.traffic, Some(expected));
    assert_eq!(expected.dropped_malformed, 5);
    let of_peers: Vec<_> = described.peers.iter().map(|peer| peer.traffic).collect();
    assert_eq!(of_peers, [Some(PeerTraffic::default()), None]);

    node.meter.send_replace(None);
    let all = shown(&node.properties(ROOT, MANAGER).await);
    assert!(all.contains("Traffic @a{st} {}"), "{all}");
    let json: String = manager.call("Describe", &()).await.unwrap();
    assert!(!json.contains("traffic"), "{json}");
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_peers_have_traffic_at_once() {
    let address = |number: u32| Ipv4Addr::from_bits(0xc0a8_0000 + number);
    let peers: Vec<_> = (0..5000)
        .map(|number| PeerStatus {
            subnet: format!("10.{}.{}.0/24", number >> 8, number & 255),
            public_ip: address(number),
            ..peer(2)
        })
        .collect();
    let Some(data_plane) = DataPlane::start(table(&peers)) else {
        return;
    };
    let mut status = status();
    status.peers = Arc::new(peers);
    let Some(node) = Node::start(status).await else {
        return;
    };
    for meter in [None, Some(data_plane.meter.clone())] {
        let with = meter.is_some();
        node.meter.send_replace(meter);
        let start = Instant::now();
        assert_eq!(node.managed().await.len(), 5000);
        let objects = start.elapsed();
        let manager = node.manager().await;
        let start = Instant::now();
        let json: String = manager.call("Describe", &()).await.unwrap();
        eprintln!(
            "5,000 peers, traffic {with}: GetManagedObjects {objects:?}, Describe {:?}, {} bytes",
            start.elapsed(),
            json.len()
        );
        assert!(objects < Duration::from_secs(20), "{objects:?}");
        assert_eq!(
            json.matches("dropped_send_error").count(),
            if with { 5001 } else { 0 }
        );
    }
}
