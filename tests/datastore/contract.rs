//! What every datastore must do.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use flannel_rs::cluster::datastore::{
    CONFIG, Datastore, Entry, Event, Fence, Outcome, Put, Revision, Watch, WatchError,
};
use tokio::time::timeout;

/// A datastore under test that several nodes open.
pub(crate) trait Bench {
    type Store: Datastore;

    /// Opens it as one more node.
    fn open(&self) -> Self::Store;

    /// Makes it forget its history.
    fn compact(&self) -> impl Future<Output = ()>;
}

/// Longer than anything here takes.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) fn put<'a>(key: &'a str, value: &'a str, fence: Fence) -> Put<'a> {
    Put {
        key,
        value,
        fence,
        ttl: Some(Duration::from_secs(3600)),
    }
}

pub(crate) async fn stored(store: &impl Datastore, put: Put<'_>) -> Revision {
    match store.put(put).await.unwrap() {
        Outcome::Stored { revision, .. } => revision,
        Outcome::Conflict => panic!("{put:?}: conflict"),
    }
}

async fn entry(store: &impl Datastore, key: &str) -> Option<Entry> {
    let entries = store.list().await.unwrap().entries;
    entries.into_iter().find(|entry| entry.key == key)
}

async fn events(watch: &mut impl Watch, count: usize) -> Vec<Event> {
    let coming = async {
        let mut events = Vec::new();
        while events.len() < count {
            events.extend(watch.next().await.unwrap());
        }
        events
    };
    timeout(LONG, coming).await.expect("in time")
}

pub(crate) async fn end(watch: &mut impl Watch) -> WatchError {
    let ending = async {
        loop {
            if let Err(end) = watch.next().await {
                return end;
            }
        }
    };
    timeout(LONG, ending).await.expect("in time")
}

pub(crate) async fn starts_empty(bench: impl Bench) {
    let store = bench.open();
    assert_eq!(store.list().await.unwrap().entries, []);
    assert!(!store.name().is_empty());
}

pub(crate) async fn creates_only_what_is_absent(bench: impl Bench) {
    let store = bench.open();
    let revision = stored(&store, put("subnets/10.5.1.0-24", "one", Fence::Absent)).await;
    let again = store
        .put(put("subnets/10.5.1.0-24", "two", Fence::Absent))
        .await;
    assert_eq!(again.unwrap(), Outcome::Conflict);
    let list = bench.open().list().await.unwrap();
    assert_eq!(list.revision, revision);
    let expected = Entry {
        key: "subnets/10.5.1.0-24".to_owned(),
        value: b"one".to_vec(),
        revision,
        expires: true,
    };
    assert_eq!(list.entries, [expected]);
}

pub(crate) async fn updates_only_what_is_unchanged(bench: impl Bench) {
    let store = bench.open();
    let key = "subnets/10.5.1.0-24";
    let never = store
        .put(put(key, "x", Fence::Unchanged(Revision(0))))
        .await;
    assert_eq!(
        never.unwrap(),
        Outcome::Conflict,
        "nothing is there to be unchanged"
    );
    let first = stored(&store, put(key, "one", Fence::Absent)).await;
    let second = stored(&store, put(key, "two", Fence::Unchanged(first))).await;
    assert!(second > first);
    let late = bench
        .open()
        .put(put(key, "three", Fence::Unchanged(first)))
        .await;
    assert_eq!(late.unwrap(), Outcome::Conflict);
    let entry = entry(&store, key).await.unwrap();
    assert_eq!(
        (entry.value.as_slice(), entry.revision),
        (&b"two"[..], second)
    );
}

pub(crate) async fn deletes_only_what_is_unchanged(bench: impl Bench) {
    let store = bench.open();
    let key = "subnets/10.5.1.0-24";
    assert!(!store.delete(key, Revision(0)).await.unwrap());
    let first = stored(&store, put(key, "one", Fence::Absent)).await;
    let second = stored(&store, put(key, "two", Fence::Unchanged(first))).await;
    assert!(!store.delete(key, first).await.unwrap());
    assert_eq!(entry(&store, key).await.unwrap().value, b"two");
    assert!(store.delete(key, second).await.unwrap());
    assert_eq!(entry(&store, key).await, None);
    assert!(!store.delete(key, second).await.unwrap());
    stored(&store, put(key, "three", Fence::Absent)).await;
}

pub(crate) async fn tells_reservations_from_leases(bench: impl Bench) {
    let store = bench.open();
    let key = "subnets/10.5.1.0-24";
    let mut write = put(key, "one", Fence::Absent);
    write.ttl = None;
    let Outcome::Stored { revision, ttl } = store.put(write).await.unwrap() else {
        panic!("conflict");
    };
    assert_eq!(ttl, None);
    assert!(!entry(&store, key).await.unwrap().expires);
    let write = put(key, "two", Fence::Unchanged(revision));
    let Outcome::Stored { revision, ttl } = store.put(write).await.unwrap() else {
        panic!("conflict");
    };
    assert_eq!(ttl, write.ttl);
    assert!(entry(&store, key).await.unwrap().expires);
    let mut write = put(key, "three", Fence::Unchanged(revision));
    write.ttl = None;
    stored(&store, write).await;
    assert!(!entry(&store, key).await.unwrap().expires);
}

pub(crate) async fn lets_leases_expire(bench: impl Bench) {
    let store = bench.open();
    let from = store.list().await.unwrap().revision;
    let mut watch = store.watch(from).await.unwrap();
    let mut write = put("subnets/10.5.1.0-24", "short", Fence::Absent);
    write.ttl = Some(Duration::from_millis(1500));
    let Outcome::Stored { revision, ttl } = store.put(write).await.unwrap() else {
        panic!("conflict");
    };
    assert!(ttl.unwrap() >= Duration::from_millis(1500), "{ttl:?}");
    let long = stored(&store, put("subnets/10.5.2.0-24", "long", Fence::Absent)).await;
    let seen = events(&mut watch, 3).await;
    let Event::Deleted {
        key,
        revision: gone,
    } = &seen[2]
    else {
        panic!("{seen:?}");
    };
    assert_eq!(key, "subnets/10.5.1.0-24");
    assert!(*gone > long && long > revision);
    let list = store.list().await.unwrap();
    assert_eq!(list.entries.len(), 1);
    assert!(list.revision >= *gone);
}

/// Every kind of change, also several between two looks, in order and once; also if the watch
/// is dropped from a `select!` all the time.
pub(crate) async fn shows_every_change_once(bench: impl Bench) {
    let store = bench.open();
    stored(&store, put("subnets/before", "x", Fence::Absent)).await;
    let from = store.list().await.unwrap().revision;
    // what happens before the watch is opened, but after the list, counts as well
    let mut expected = changes(&store, 0).await;
    let mut watch = store.watch(from).await.unwrap();
    let mut seen = Vec::new();
    let writer = async {
        for round in 1..20 {
            expected.extend(changes(&store, round).await);
        }
        expected
    };
    let reader = async {
        while seen.len() < 20 * 4 {
            if let Ok(events) = timeout(Duration::from_millis(3), watch.next()).await {
                seen.extend(events.unwrap());
            }
        }
    };
    let (expected, ()) = timeout(LONG, async { tokio::join!(writer, reader) })
        .await
        .unwrap();
    assert_eq!(seen, expected);
    let more = timeout(Duration::from_secs(1), watch.next()).await;
    assert!(
        more.is_err() || more.unwrap().unwrap().is_empty(),
        "nothing twice"
    );
}

/// Four changes, as a watch must show them.
async fn changes(store: &impl Datastore, round: usize) -> Vec<Event> {
    let key = format!("subnets/10.5.{round}.0-24");
    let entry = |key: &str, value: &str, revision| {
        Event::Put(Entry {
            key: key.to_owned(),
            value: value.into(),
            revision,
            expires: true,
        })
    };
    let first = stored(store, put(&key, "one", Fence::Absent)).await;
    let second = stored(store, put(&key, "two", Fence::Unchanged(first))).await;
    assert!(store.delete(&key, second).await.unwrap());
    let other = format!("subnets/10.6.{round}.0-24");
    let third = stored(store, put(&other, "three", Fence::Absent)).await;
    assert_eq!(third.0, second.0 + 2, "nobody else writes");
    vec![
        entry(&key, "one", first),
        entry(&key, "two", second),
        Event::Deleted {
            key: key.clone(),
            revision: Revision(second.0 + 1),
        },
        entry(&other, "three", third),
    ]
}

pub(crate) async fn lets_one_of_two_win(bench: impl Bench) {
    let (left, right) = (bench.open(), bench.open());
    for round in 0..60 {
        let key = format!("subnets/10.5.{round}.0-24");
        let (one, two) = tokio::join!(
            left.put(put(&key, "left", Fence::Absent)),
            right.put(put(&key, "right", Fence::Absent))
        );
        let won = |outcome| matches!(outcome, Outcome::Stored { .. });
        let (one, two) = (won(one.unwrap()), won(two.unwrap()));
        assert!(one ^ two, "round {round}: {one} {two}");
        let value = entry(&left, &key).await.unwrap().value;
        assert_eq!(value, if one { &b"left"[..] } else { b"right" });
    }
}

pub(crate) async fn takes_64_creators_at_once(bench: impl Bench) {
    let stores: Vec<_> = (0..64).map(|_| bench.open()).collect();
    let writes = stores.iter().enumerate().map(|(index, store)| async move {
        let key = format!("subnets/10.5.{index}.0-24");
        let revision = stored(store, put(&key, &key, Fence::Absent)).await;
        (key, revision)
    });
    let mut written: BTreeMap<_, _> = futures_util::future::join_all(writes)
        .await
        .into_iter()
        .collect();
    let list = stores[0].list().await.unwrap();
    assert!(list.entries.is_sorted_by_key(|entry| entry.key.clone()));
    for entry in list.entries {
        assert_eq!(written.remove(&entry.key), Some(entry.revision));
        assert_eq!(entry.value, entry.key.as_bytes());
    }
    assert_eq!(written, BTreeMap::new(), "missing");
}

pub(crate) async fn says_when_history_is_gone(bench: impl Bench) {
    let store = bench.open();
    let from = store.list().await.unwrap().revision;
    for index in 0..5 {
        stored(
            &store,
            put(&format!("subnets/10.5.{index}.0-24"), "x", Fence::Absent),
        )
        .await;
    }
    bench.compact().await;
    let mut watch = store.watch(from).await.unwrap();
    let ended = end(&mut watch).await;
    assert!(
        matches!(ended, WatchError::Compacted(revision) if revision == from),
        "{ended}"
    );
    assert!(watch.next().await.is_err(), "it stays ended");
    // and listing again helps
    let list = store.list().await.unwrap();
    let mut watch = store.watch(list.revision).await.unwrap();
    let revision = stored(&store, put("subnets/new", "x", Fence::Absent)).await;
    let events = events(&mut watch, 1).await;
    assert!(matches!(&events[0], Event::Put(entry) if entry.revision == revision));
}

/// As after a restore from a backup.
pub(crate) async fn says_when_it_is_behind(bench: impl Bench) {
    let store = bench.open();
    let Revision(now) = stored(&store, put(CONFIG, "x", Fence::Absent)).await;
    let mut watch = store.watch(Revision(now + 1000)).await.unwrap();
    assert!(matches!(end(&mut watch).await, WatchError::Compacted(_)));
}

pub(crate) async fn keeps_odd_values(bench: impl Bench) {
    let store = bench.open();
    let from = store.list().await.unwrap().revision;
    let long = "é\u{0}\"\\\n\u{1f40c}\u{202e}".repeat(5000);
    let values = ["", " ", "\u{0}", "\u{7f}\u{80}\u{ffff}", "{\"a\":1}", &long];
    for (index, value) in values.iter().enumerate() {
        stored(
            &store,
            put(&format!("subnets/{index}"), value, Fence::Absent),
        )
        .await;
    }
    let listed = store.list().await.unwrap().entries;
    let listed: Vec<&[u8]> = listed.iter().map(|entry| entry.value.as_slice()).collect();
    assert_eq!(listed, values.map(str::as_bytes));
    let mut watch = store.watch(from).await.unwrap();
    let seen = events(&mut watch, values.len()).await;
    for (event, value) in seen.iter().zip(values) {
        assert!(matches!(event, Event::Put(entry) if entry.value == value.as_bytes()));
    }
}

pub(crate) async fn gives_signs_of_life(bench: impl Bench) {
    let store = bench.open();
    let from = store.list().await.unwrap().revision;
    let mut watch = store.watch(from).await.unwrap();
    let sign = timeout(Duration::from_secs(30), watch.next()).await;
    assert_eq!(sign.expect("within 30 s").unwrap(), []);
    // and is not confused by it
    stored(&store, put(CONFIG, "x", Fence::Absent)).await;
    assert_eq!(events(&mut watch, 1).await.len(), 1);
}

/// The whole contract as tests of a bench; `$bench` is a `fn() -> Option<impl Bench>`.
macro_rules! keeps {
    ($bench:path: $($name:ident)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                if let Some(bench) = $bench() {
                    crate::contract::$name(bench).await;
                }
            }
        )*
    };
    ($bench:path) => {
        crate::contract::keeps!($bench:
            starts_empty
            creates_only_what_is_absent
            updates_only_what_is_unchanged
            deletes_only_what_is_unchanged
            tells_reservations_from_leases
            lets_leases_expire
            shows_every_change_once
            lets_one_of_two_win
            takes_64_creators_at_once
            says_when_history_is_gone
            says_when_it_is_behind
            keeps_odd_values
            gives_signs_of_life
        );
    };
}
pub(crate) use keeps;
