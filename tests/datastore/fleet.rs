//! A declared fleet: the part of the contract that is about reading, where what changes is what is
//! declared.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use flannel_rs::cluster::datastore::{
    CONFIG, Datastore, Event, Fence, Outcome, Put, Revision, Snapshot, StoreError, Watch,
    WatchError, lease_key,
};
use flannel_rs::cluster::fleet::{Fleet, Member, Roster};
use flannel_rs::cluster::network::Network;
use flannel_rs::cluster::subnet::Subnet;
use tokio::time::timeout;

use crate::contract;

/// The nodes with these numbers.
fn roster(numbers: impl IntoIterator<Item = u8>) -> Roster {
    let config = r#"{"Network":"100.96.0.0/16","Backend":{"Type":"vxlan"}}"#;
    let member = |number: u8| {
        let member = Member {
            subnet: subnet(number),
            public_ip: Ipv4Addr::new(192, 168, 1, number),
        };
        (format!("node{number}"), member)
    };
    Roster {
        network: Network::from_json(config).unwrap(),
        members: numbers.into_iter().map(member).collect(),
    }
}

fn subnet(number: u8) -> Subnet {
    Subnet::from_key(&format!("100.96.{number}.0-24")).unwrap()
}

fn values(snapshot: Snapshot) -> BTreeMap<String, (Vec<u8>, Revision)> {
    let entries = snapshot.entries.into_iter();
    entries
        .map(|entry| (entry.key, (entry.value, entry.revision)))
        .collect()
}

/// Folded over the list that they follow, the events give the list after them.
#[tokio::test]
async fn shows_every_change_once() {
    let fleet = Fleet::new(&roster([1]));
    let before = fleet.list().await.unwrap();
    let mut known = values(before.clone());
    let mut last = before.revision;
    // before the watch is opened, but after the list
    fleet.declare(&roster([1, 2]));
    let mut watch = fleet.watch(before.revision).await.unwrap();
    for round in 0..40_u8 {
        fleet.declare(&roster((1..20).filter(|number| (number + round) % 3 > 0)));
        if round % 4 < 3 {
            continue;
        }
        let events = timeout(contract::LONG, watch.next()).await.unwrap();
        for event in events.unwrap() {
            let revision = match &event {
                Event::Put(entry) => entry.revision,
                Event::Deleted { revision, .. } => *revision,
            };
            assert!(revision > last, "in order and once: {event:?}");
            last = revision;
            match event {
                Event::Put(entry) => known.insert(entry.key, (entry.value, entry.revision)),
                Event::Deleted { key, .. } => known.remove(&key),
            };
        }
        assert_eq!(values(fleet.list().await.unwrap()), known, "round {round}");
    }
    let more = timeout(Duration::from_secs(1), watch.next()).await;
    assert!(more.is_err(), "nothing twice");
}

#[tokio::test]
async fn says_when_history_is_gone_or_has_not_come() {
    let fleet = Fleet::new(&roster([1]));
    let from = fleet.list().await.unwrap().revision;
    for round in 0..1100 {
        fleet.declare(&roster(
            (1..3).filter(|number| round % 2 == 0 || *number == 1),
        ));
    }
    let mut watch = fleet.watch(from).await.unwrap();
    let ended = contract::end(&mut watch).await;
    assert!(matches!(ended, WatchError::Compacted(revision) if revision == from));
    assert!(watch.next().await.is_err(), "it stays ended");
    let Revision(now) = fleet.list().await.unwrap().revision;
    let mut watch = fleet.watch(Revision(now + 1000)).await.unwrap();
    assert!(matches!(
        contract::end(&mut watch).await,
        WatchError::Compacted(_)
    ));
}

#[tokio::test(start_paused = true)]
async fn gives_signs_of_life() {
    let fleet = Fleet::new(&roster([1]));
    let from = fleet.list().await.unwrap().revision;
    let mut watch = fleet.watch(from).await.unwrap();
    for _ in 0..3 {
        let sign = timeout(Duration::from_secs(30), watch.next()).await;
        assert_eq!(sign.expect("within 30 s").unwrap(), []);
    }
    fleet.declare(&roster([1, 2]));
    assert_eq!(watch.next().await.unwrap().len(), 1);
}

#[tokio::test]
async fn takes_no_write_but_what_it_says_already() {
    let fleet = Fleet::new(&roster([1, 2]));
    let before = fleet.list().await.unwrap();
    let key = lease_key(subnet(1));
    let own = before
        .entries
        .iter()
        .find(|entry| entry.key == key)
        .unwrap();
    let value = std::str::from_utf8(&own.value).unwrap();
    let unchanged = Fence::Unchanged(own.revision);
    let hour = Some(Duration::from_secs(3600));
    let put = async |key: &str, value: &str, fence, ttl| {
        let put = Put {
            key,
            value,
            fence,
            ttl,
        };
        fleet.put(put).await
    };
    let stored = Outcome::Stored {
        revision: own.revision,
        ttl: None,
    };
    assert_eq!(put(&key, value, unchanged, None).await.unwrap(), stored);
    let absent = put(&key, value, Fence::Absent, None).await;
    assert_eq!(absent.unwrap(), Outcome::Conflict);
    let stale = put(&key, value, Fence::Unchanged(Revision(0)), None).await;
    assert_eq!(stale.unwrap(), Outcome::Conflict);
    for refused in [
        put(&key, value, unchanged, hour).await,
        put(&key, "{}", unchanged, None).await,
        put(&lease_key(subnet(3)), value, Fence::Absent, None).await,
        put(CONFIG, "{}", Fence::Unchanged(Revision(1)), None).await,
    ] {
        let Err(StoreError::Refused { doing, reason }) = refused else {
            panic!("{refused:?}");
        };
        assert!(doing.starts_with("writing "), "{doing}");
        assert!(reason.contains("[datastore.nodes]"), "{reason}");
    }
    assert!(fleet.delete(&key, own.revision).await.is_err());
    assert_eq!(fleet.list().await.unwrap(), before);
}
