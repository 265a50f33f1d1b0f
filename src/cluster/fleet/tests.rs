use super::*;
use crate::cluster::acquire::Claimant;
use crate::cluster::allocate::Wish;
use crate::cluster::datastore::{Event, Watch};
use crate::cluster::view::View;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::time::Duration;

fn roster(backend: &str, members: &[(&str, u8, u8)]) -> Roster {
    let config = format!(r#"{{"Network":"100.96.0.0/16","Backend":{{"Type":"{backend}"}}}}"#);
    let member = |(name, ip, third): &(&str, u8, u8)| {
        let member = Member {
            subnet: Subnet::from_key(&format!("100.96.{third}.0-24")).unwrap(),
            public_ip: Ipv4Addr::new(192, 168, 1, *ip),
        };
        ((*name).to_owned(), member)
    };
    Roster {
        network: Network::from_json(&config).unwrap(),
        members: members.iter().map(member).collect(),
    }
}

const TWO: &[(&str, u8, u8)] = &[("node1", 47, 1), ("node2", 48, 2)];

async fn entries(fleet: &Fleet) -> Vec<(String, String, i64)> {
    let snapshot = fleet.list().await.unwrap();
    assert!(snapshot.entries.iter().all(|entry| !entry.expires));
    let text = |entry: Entry| {
        let value = String::from_utf8(entry.value).unwrap();
        (entry.key, value, entry.revision.0)
    };
    snapshot.entries.into_iter().map(text).collect()
}

#[tokio::test]
async fn it_holds_what_its_members_would_have_written() {
    let fleet = Fleet::new(&roster("host-gw", TWO));
    let lease = |ip| {
        format!(r#"{{"PublicIP":"192.168.1.{ip}","PublicIPv6":null,"BackendType":"host-gw"}}"#)
    };
    let entries = entries(&fleet).await;
    assert_eq!(entries[1].1, lease(47));
    assert_eq!(entries[2].1, lease(48));
    let mut view = View::default();
    view.replace(fleet.list().await.unwrap());
    let config = std::str::from_utf8(view.config().unwrap()).unwrap();
    assert_eq!(
        Network::from_json(config).unwrap(),
        roster("host-gw", TWO).network
    );
    assert!(view.records().all(|record| record.reserved));
}

/// A change here would cut off the nodes of another version.
#[test]
fn the_tunnel_address_never_changes() {
    assert_eq!(vtep_mac("node1", 1).to_string(), "aa:87:bd:ac:8a:25");
    assert_eq!(vtep_mac("node1", 2).to_string(), "8e:0f:7f:e8:19:83");
    assert_eq!(vtep_mac("node2", 1).to_string(), "ba:18:ea:fd:87:08");
}

#[tokio::test]
async fn a_node_takes_its_own_without_a_write_and_no_other() {
    for backend in ["host-gw", "udp", "vxlan"] {
        let roster = roster(backend, TWO);
        let fleet = Fleet::new(&roster);
        let before = entries(&fleet).await;
        let ttl = Duration::from_secs(3600);
        let mut claimant = Claimant::new(&fleet, ttl, StdRng::seed_from_u64(1));
        let member = roster.members["node2"];
        let attrs = roster.attrs("node2", member);
        let wish = |public_ip| Wish {
            public_ip,
            last: None,
            previous: None,
            asked: None,
        };
        let own = wish(member.public_ip);
        let held = claimant.acquire(&roster.network, &own, |_| attrs.clone());
        let held = held.await.unwrap();
        assert_eq!((held.lease.subnet, held.ttl), (member.subnet, None));
        assert_eq!(entries(&fleet).await, before);

        let stranger = wish(Ipv4Addr::new(192, 168, 1, 99));
        let error = claimant.acquire(&roster.network, &stranger, |_| attrs.clone());
        let error = error.await.unwrap_err().to_string();
        assert!(
            error.contains("the fleet is declared in the config"),
            "{error}"
        );
        let key = lease_key(member.subnet);
        let deleted = fleet.delete(&key, held.revision).await;
        assert!(matches!(deleted, Err(StoreError::Refused { .. })));
        assert_eq!(entries(&fleet).await, before);
    }
}

#[tokio::test]
async fn a_change_touches_what_has_changed() {
    let fleet = Fleet::new(&roster("vxlan", TWO));
    let before = entries(&fleet).await;
    let from = fleet.list().await.unwrap().revision;
    let mut watch = fleet.watch(from).await.unwrap();
    // node2 moves, node3 gets what it had
    let moved = [("node1", 47, 1), ("node2", 48, 4), ("node3", 49, 2)];
    fleet.declare(&roster("vxlan", &moved));
    assert_eq!(entries(&fleet).await[1], before[1]);
    let events = watch.next().await.unwrap();
    let told: Vec<String> = events
        .iter()
        .map(|event| match event {
            Event::Put(entry) => format!("put {}", entry.key),
            Event::Deleted { key, .. } => format!("delete {key}"),
        })
        .collect();
    assert_eq!(
        told,
        ["put subnets/100.96.2.0-24", "put subnets/100.96.4.0-24"]
    );
    fleet.declare(&roster("vxlan", &TWO[..1]));
    let events = watch.next().await.unwrap();
    assert_eq!(events.len(), 2);
    assert!(
        events
            .iter()
            .all(|event| matches!(event, Event::Deleted { .. }))
    );
    let revision = fleet.list().await.unwrap().revision;
    fleet.declare(&roster("vxlan", &TWO[..1]));
    assert_eq!(fleet.list().await.unwrap().revision, revision);
}
