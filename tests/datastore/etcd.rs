//! etcd: the contract, and servers that are dead, frozen, locked or somebody else's.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use flannel_rs::cluster::datastore::{
    CONFIG, Datastore, Event, Fence, Outcome, Revision, StoreError, Watch, WatchError,
};
use flannel_rs::cluster::etcd::{Etcd, EtcdOptions};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrIn};
use nix::sys::socket::{bind, connect, getsockname, listen, socket};
use tokio::time::timeout;

use crate::contract::{self, Bench, end, put, stored};
use crate::support::etcd::{EtcdServer, EtcdSetup, dead_endpoint};
use crate::support::relay::Relay;

const PREFIX: &str = "/coreos.com/network";
pub(crate) const KEY: &str = "subnets/10.5.1.0-24";

impl Bench for EtcdServer {
    type Store = Etcd;

    fn open(&self) -> Etcd {
        at([self.endpoint()])
    }

    async fn compact(&self) {
        EtcdServer::compact(self);
    }
}

fn bench() -> Option<EtcdServer> {
    EtcdServer::start()
}

contract::keeps!(bench);

pub(crate) fn options<const N: usize>(endpoints: [String; N]) -> EtcdOptions {
    EtcdOptions {
        endpoints: endpoints.into(),
        prefix: PREFIX.to_owned(),
        ..EtcdOptions::default()
    }
}

pub(crate) fn at<const N: usize>(endpoints: [String; N]) -> Etcd {
    Etcd::new(options(endpoints)).unwrap()
}

pub(crate) fn one_line(error: &StoreError) -> String {
    let text = error.to_string();
    println!("{text}");
    assert!(
        text.len() < 250 && !text.contains('\n') && !text.contains("Error("),
        "{text}"
    );
    text
}

#[tokio::test]
async fn a_killed_server_is_told_at_once_and_used_again_later() {
    let Some(mut server) = EtcdServer::start() else {
        return;
    };
    let store = at([server.endpoint()]);
    let from = stored(&store, put(KEY, "one", Fence::Absent)).await;
    let mut watch = store.watch(from).await.unwrap();
    server.kill();
    let ended = timeout(Duration::from_secs(10), end(&mut watch))
        .await
        .unwrap();
    assert!(
        matches!(&ended, WatchError::Store(error @ StoreError::Unavailable { .. }) if !one_line(error).is_empty())
    );
    let start = Instant::now();
    let error = store.list().await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    let text = one_line(&error);
    assert!(text.contains(&format!(
        "etcd at {}: connection refused",
        server.endpoint()
    )));
    assert!(store.put(put(KEY, "x", Fence::Absent)).await.is_err());
    assert!(store.watch(from).await.is_err());
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    server.restart();
    assert_eq!(store.list().await.unwrap().entries.len(), 1);
    let mut watch = store.watch(from).await.unwrap();
    stored(&store, put(CONFIG, "x", Fence::Absent)).await;
    assert_eq!(watch.next().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_dead_first_endpoint_costs_no_call() {
    let Some(server) = EtcdServer::start() else {
        return;
    };
    let store = at([dead_endpoint(), server.endpoint()]);
    let mut fence = Fence::Absent;
    for round in 0..100 {
        fence = Fence::Unchanged(stored(&store, put(KEY, &round.to_string(), fence)).await);
        assert_eq!(store.list().await.unwrap().entries.len(), 1);
    }
    let from = store.list().await.unwrap().revision;
    assert!(store.watch(from).await.is_ok());
    let error = at([dead_endpoint(), dead_endpoint()])
        .list()
        .await
        .unwrap_err();
    assert_eq!(one_line(&error).matches("connection refused").count(), 2);
}

#[tokio::test]
async fn a_frozen_server_ends_watches_and_delays_calls_but_little() {
    let (Some(mut server), Some(other)) = (EtcdServer::start(), EtcdServer::start()) else {
        return;
    };
    let store = at([server.endpoint()]);
    let from = stored(&store, put(KEY, "one", Fence::Absent)).await;
    let mut watch = store.watch(from).await.unwrap();
    // the second of two endpoints takes over; it only has to be a server that answers
    let pair = at([server.endpoint(), other.endpoint()]);
    assert_eq!(pair.list().await.unwrap().entries.len(), 1);
    server.stop();
    let start = Instant::now();
    assert_eq!(pair.list().await.unwrap().entries.len(), 0);
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "{:?}",
        start.elapsed()
    );
    let error = store.list().await.unwrap_err();
    assert!(one_line(&error).contains("no answer in 3 s"), "{error}");
    let ended = timeout(Duration::from_secs(15), end(&mut watch))
        .await
        .expect("within 15 s");
    println!(
        "watch ended {:?} after the freeze: {ended}",
        start.elapsed()
    );
    assert!(matches!(
        &ended,
        WatchError::Store(StoreError::Unavailable { .. })
    ));
    server.cont();
    assert_eq!(store.list().await.unwrap().entries.len(), 1);
}

#[tokio::test]
async fn only_the_entries_of_a_cluster_under_its_own_prefix_are_seen() {
    let Some(server) = EtcdServer::start() else {
        return;
    };
    let mut other = options([server.endpoint()]);
    other.prefix = "/coreos.com/network-2/".to_owned();
    let (store, other) = (server.open(), Etcd::new(other).unwrap());
    let from = store.list().await.unwrap().revision;
    let mut watch = store.watch(from).await.unwrap();
    stored(&other, put(KEY, "other", Fence::Absent)).await;
    for key in [
        "/coreos.com/network/subnets-backup/x",
        "/coreos.com/network/else",
        "/a",
        "/z",
    ] {
        server.etcdctl(&["put", key, "x"]);
    }
    server.etcdctl(&["put", "/coreos.com/network/subnets/\u{fe}garbage", "kept"]);
    stored(&store, put(KEY, "own", Fence::Absent)).await;
    let entries = store.list().await.unwrap().entries;
    let seen: Vec<_> = entries
        .iter()
        .map(|entry| (entry.key.as_str(), &entry.value[..]))
        .collect();
    let expected: [(&str, &[u8]); 2] = [(KEY, b"own"), ("subnets/\u{fe}garbage", b"kept")];
    assert_eq!(seen, expected);
    assert_eq!(other.list().await.unwrap().entries.len(), 1);
    let mut keys = Vec::new();
    while keys.len() < 2 {
        for event in watch.next().await.unwrap() {
            let Event::Put(entry) = event else {
                panic!("{event:?}")
            };
            keys.push(entry.key);
        }
    }
    assert_eq!(keys, ["subnets/\u{fe}garbage", KEY]);
}

#[tokio::test]
async fn five_thousand_leases_take_three_requests() {
    let Some(server) = EtcdServer::start() else {
        return;
    };
    let mut client = etcd_client::Client::connect([server.endpoint()], None)
        .await
        .unwrap();
    let value = r#"{"PublicIP":"192.168.77.1","PublicIPv6":null,"BackendType":"host-gw"}"#;
    let key = |index: usize| format!("{PREFIX}/subnets/10.{}.{}.0-24", index / 256, index % 256);
    for chunk in (0..5000).collect::<Vec<_>>().chunks(100) {
        let puts = chunk
            .iter()
            .map(|index| etcd_client::TxnOp::put(key(*index), value, None));
        client
            .txn(etcd_client::Txn::new().and_then(puts.collect::<Vec<_>>()))
            .await
            .unwrap();
    }
    let store = server.open();
    let before = server.served("Range");
    let start = Instant::now();
    let list = store.list().await.unwrap();
    println!("5,000 entries in {:?}", start.elapsed());
    assert_eq!(list.entries.len(), 5000);
    assert!(list.entries.is_sorted_by_key(|entry| entry.key.clone()));
    assert_eq!(server.served("Range") - before, 3);
    // and a watch brings them all
    let mut watch = store.watch(Revision(1)).await.unwrap();
    let mut count = 0;
    while count < 5000 {
        count += watch.next().await.unwrap().len();
    }
}

fn leases(server: &EtcdServer) -> usize {
    server.etcdctl(&["lease", "list"]).lines().count() - 1
}

#[tokio::test]
async fn leases_that_serve_nothing_are_given_back() {
    let Some(server) = EtcdServer::start() else {
        return;
    };
    let store = server.open();
    let mut revision = stored(&store, put(KEY, "one", Fence::Absent)).await;
    for _ in 0..5 {
        revision = stored(&store, put(KEY, "one", Fence::Unchanged(revision))).await;
        let late = store.put(put(KEY, "late", Fence::Absent)).await.unwrap();
        assert_eq!(late, Outcome::Conflict);
    }
    assert_eq!(leases(&server), 1, "that of the last write");
    assert_eq!(store.list().await.unwrap().entries[0].revision, revision);
    // one lease for two entries, as somebody may have made it
    let shared = server.etcdctl(&["lease", "grant", "600"]);
    let shared = shared.split_whitespace().nth(1).unwrap();
    for key in ["10.5.2.0-24", "10.5.3.0-24"] {
        let key = format!("{PREFIX}/subnets/{key}");
        server.etcdctl(&["put", &format!("--lease={shared}"), &key, "x"]);
    }
    let list = store.list().await.unwrap();
    stored(
        &store,
        put(
            "subnets/10.5.2.0-24",
            "y",
            Fence::Unchanged(list.entries[1].revision),
        ),
    )
    .await;
    assert_eq!(
        store.list().await.unwrap().entries.len(),
        3,
        "the other one lives"
    );
    assert_eq!(leases(&server), 3);
}

#[tokio::test]
async fn values_that_are_not_text_are_shown_as_they_are() {
    let Some(server) = EtcdServer::start() else {
        return;
    };
    let store = server.open();
    let from = store.list().await.unwrap().revision;
    let mut client = etcd_client::Client::connect([server.endpoint()], None)
        .await
        .unwrap();
    let odd: &[u8] = &[0xff, 0, 0xc3, 0x28];
    client
        .put(format!("{PREFIX}/{KEY}"), odd, None)
        .await
        .unwrap();
    client
        .put([PREFIX.as_bytes(), b"/subnets/", odd].concat(), "x", None)
        .await
        .unwrap();
    let entries = store.list().await.unwrap().entries;
    assert_eq!(entries.len(), 1);
    assert_eq!(
        (entries[0].value.as_slice(), entries[0].expires),
        (odd, false)
    );
    let mut watch = store.watch(from).await.unwrap();
    let events = watch.next().await.unwrap();
    assert!(matches!(&events[..], [Event::Put(entry)] if entry.value == odd));
}

#[tokio::test]
async fn a_server_that_lost_its_data_ends_the_watch() {
    let Some(mut server) = EtcdServer::start() else {
        return;
    };
    let store = server.open();
    let first = stored(&store, put(KEY, "one", Fence::Absent)).await;
    let from = stored(&store, put(KEY, "two", Fence::Unchanged(first))).await;
    server.restart_empty();
    let mut watch = store.watch(from).await.unwrap();
    assert!(
        matches!(end(&mut watch).await, WatchError::Compacted(_)),
        "it is behind"
    );
    let list = store.list().await.unwrap();
    assert!(list.revision < from && list.entries.is_empty());
    let from = stored(&store, put(KEY, "new", Fence::Absent)).await;
    // another one that has come further than the one that was listed
    server.restart_empty();
    for _ in 0..from.0 {
        server.etcdctl(&["put", "/a", "x"]);
    }
    let mut watch = store.watch(from).await.unwrap();
    assert!(
        matches!(end(&mut watch).await, WatchError::Compacted(_)),
        "it is another"
    );
}

/// The answer to a write is lost, and a second try meets what the first one did.
#[tokio::test]
async fn a_write_that_was_carried_out_unheard_is_no_conflict() {
    let Some(server) = EtcdServer::start() else {
        return;
    };
    let relay = Relay::start(server.endpoint().strip_prefix("http://").unwrap());
    let store = at([relay.endpoint(), server.endpoint()]);
    store.list().await.unwrap();
    relay.swallow_answers_after("subnets/10.5.1.0-24");
    // the etcd lease tells that the entry is ours
    let revision = stored(&store, put(KEY, "one", Fence::Absent)).await;
    let entry = store.list().await.unwrap().entries.remove(0);
    assert_eq!((entry.revision, entry.expires), (revision, true));
    assert_eq!(leases(&server), 1);
    // nothing tells whose reservation it is
    relay.swallow_answers_after("subnets/10.5.2.0-24");
    let store = at([relay.endpoint(), server.endpoint()]);
    let mut write = put("subnets/10.5.2.0-24", "two", Fence::Absent);
    write.ttl = None;
    let error = store.put(write).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert!(one_line(&error).contains("may or may not"));
    // nor who deleted an entry
    relay.swallow_answers_after("subnets/10.5.1.0-24");
    let store = at([relay.endpoint(), server.endpoint()]);
    let error = store.delete(KEY, revision).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert_eq!(store.list().await.unwrap().entries.len(), 1);
}

/// A listener whose queue is full: its kernel drops what else wants to connect.
fn black_hole() -> (OwnedFd, Vec<OwnedFd>, String) {
    let open = || {
        socket(
            AddressFamily::Inet,
            SockType::Stream,
            SockFlag::SOCK_NONBLOCK,
            None,
        )
    };
    let listener = open().unwrap();
    bind(listener.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let address: SockaddrIn = getsockname(listener.as_raw_fd()).unwrap();
    let waiting = (0..4).map(|_| {
        let client = open().unwrap();
        // in progress is all it will ever be
        let _ = connect(client.as_raw_fd(), &address);
        client
    });
    let waiting = waiting.collect();
    (listener, waiting, format!("http://{address}"))
}

#[tokio::test]
async fn a_black_hole_costs_seconds_once() {
    let Some(server) = EtcdServer::start() else {
        return;
    };
    let (_listener, _waiting, hole) = black_hole();
    let start = Instant::now();
    let error = at([hole.clone()]).list().await.unwrap_err();
    println!("{error} after {:?}", start.elapsed());
    assert!(matches!(error, StoreError::Unavailable { .. }));
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "{:?}",
        start.elapsed()
    );
    let store = at([hole, server.endpoint()]);
    stored(&store, put(KEY, "one", Fence::Absent)).await;
    // the one that answered is asked first from now on
    let start = Instant::now();
    assert_eq!(store.list().await.unwrap().entries.len(), 1);
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
}

/// Not of the datastore: the harness that other tests stand on.
#[tokio::test]
async fn a_server_can_live_in_a_network_namespace() {
    let name = format!("store-{}", std::process::id());
    let ip = |arguments: &[&str]| {
        let status = std::process::Command::new("ip").args(arguments).status();
        status.is_ok_and(|status| status.success())
    };
    if !ip(&["netns", "add", &name]) {
        println!("skipped: no network namespace to be had, this takes root");
        return;
    }
    let ready = ip(&["-n", &name, "address", "add", "10.9.8.7/32", "dev", "lo"])
        && ip(&["-n", &name, "link", "set", "lo", "up"]);
    let setup = EtcdSetup {
        inside: Some((name.clone(), Ipv4Addr::new(10, 9, 8, 7))),
        ..EtcdSetup::default()
    };
    let server = EtcdServer::start_with(setup);
    let answer = server
        .as_ref()
        .map(|server| server.etcdctl(&["put", "a", "b"]));
    let outside = server.as_ref().map(|server| at([server.endpoint()]));
    drop(server);
    let left = std::process::Command::new("ip")
        .args(["netns", "pids", &name])
        .output();
    assert!(ip(&["netns", "delete", &name]));
    assert!(ready && answer.is_none_or(|answer| answer.contains("OK")));
    assert!(
        left.unwrap().stdout.is_empty(),
        "it is gone with its handle"
    );
    assert!(outside.is_none_or(|store| store.name() == "etcd at http://10.9.8.7:2379"));
}

#[tokio::test]
async fn a_cluster_may_lose_one_member_and_says_when_it_has_lost_two() {
    let Some([mut one, mut two, three]) = EtcdServer::start_cluster(["one", "two", "three"]) else {
        return;
    };
    let store = at([one.endpoint(), two.endpoint(), three.endpoint()]);
    let mut revision = stored(&store, put(KEY, "start", Fence::Absent)).await;
    let mut watch = store.watch(revision).await.unwrap();
    one.kill();
    assert!(matches!(
        end(&mut watch).await,
        WatchError::Store(StoreError::Unavailable { .. })
    ));
    let from = revision;
    for round in 0..20 {
        let value = round.to_string();
        // a new leader takes a moment
        revision = loop {
            match store
                .put(put(KEY, &value, Fence::Unchanged(revision)))
                .await
            {
                Ok(Outcome::Stored { revision, .. }) => break revision,
                Ok(Outcome::Conflict) => {
                    let entry = store.list().await.unwrap().entries.remove(0);
                    assert_eq!((round, &entry.value[..]), (0, value.as_bytes()));
                    break entry.revision;
                }
                Err(error) => assert_eq!(round, 0, "{error}"),
            }
        };
    }
    let mut watch = store.watch(from).await.unwrap();
    let mut seen = 0;
    while seen < 20 {
        seen += watch.next().await.unwrap().len();
    }
    two.kill();
    let start = Instant::now();
    let ended = timeout(Duration::from_secs(30), end(&mut watch))
        .await
        .expect("within 30 s");
    println!(
        "watch ended {:?} after the quorum was lost: {ended}",
        start.elapsed()
    );
    let start = Instant::now();
    let error = store.list().await.unwrap_err();
    println!("{error} after {:?}", start.elapsed());
    assert!(matches!(error, StoreError::Unavailable { .. }));
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
    two.restart();
    assert_eq!(store.list().await.unwrap().entries[0].revision, revision);
}
