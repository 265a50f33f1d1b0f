use super::super::datastore::Fence;
use super::ledger::{Ledger, Millis};
use super::*;

fn shelf() -> (tempfile::TempDir, Local) {
    let folder = tempfile::tempdir().unwrap();
    let store = Local::open(folder.path().join("store.json")).unwrap();
    (folder, store)
}

fn put(ledger: &mut Ledger, key: &str, ttl: Option<u64>, now: Millis) -> Revision {
    let put = Put {
        key,
        value: "v",
        fence: Fence::Absent,
        ttl: ttl.map(Duration::from_secs),
    };
    match ledger.put(put, now) {
        Outcome::Stored { revision, .. } => revision,
        Outcome::Conflict => panic!("{key} is there"),
    }
}

#[test]
fn what_expires_goes_in_the_order_of_expiry_and_one_revision_each() {
    let mut ledger = Ledger::default();
    put(&mut ledger, "subnets/a", Some(9), 1000);
    put(&mut ledger, "subnets/b", Some(3), 1000);
    let last = put(&mut ledger, "subnets/c", None, 1000);
    assert_eq!(ledger.next_expiry(), Some(4000));
    assert!(!ledger.purge(3999));
    assert!(ledger.purge(10_000));
    let gone: Vec<(String, i64)> = ledger
        .changes_after(last)
        .unwrap()
        .into_iter()
        .map(|event| match event {
            Event::Deleted { key, revision } => (key, revision.0),
            Event::Put(entry) => panic!("{entry:?}"),
        })
        .collect();
    assert_eq!(
        gone,
        [("subnets/b".to_owned(), 4), ("subnets/a".to_owned(), 5)]
    );
    assert_eq!(ledger.next_expiry(), None);
}

#[test]
fn changes_are_kept_for_a_while_and_then_known_to_be_missing() {
    let mut ledger = Ledger::default();
    for index in 0..2000 {
        put(&mut ledger, &format!("subnets/{index}"), None, 0);
    }
    assert_eq!(ledger.fault(), None);
    assert_eq!(ledger.changes_after(Revision(2000)), Some(vec![]));
    assert_eq!(ledger.changes_after(Revision(976)).unwrap().len(), 1024);
    assert_eq!(ledger.changes_after(Revision(975)), None, "forgotten");
    assert_eq!(ledger.changes_after(Revision(2001)), None, "the future");
}

#[tokio::test]
async fn a_file_made_anew_is_another_datastore() {
    let (_folder, store) = shelf();
    for key in ["subnets/a", "subnets/b"] {
        store
            .work(move |shelf| shelf.change(|ledger, now| put(ledger, key, None, now)))
            .await
            .unwrap();
    }
    let listed = store.list().await.unwrap().revision;
    std::fs::remove_file(&store.shelf.path).unwrap();
    let mut watch = store.watch(listed).await.unwrap();
    assert!(matches!(watch.next().await, Err(WatchError::Compacted(_))));
    // the new one has come as far as the old one
    for key in ["subnets/c", "subnets/d"] {
        store
            .work(move |shelf| shelf.change(|ledger, now| put(ledger, key, None, now)))
            .await
            .unwrap();
    }
    let mut watch = store.watch(listed).await.unwrap();
    assert!(matches!(watch.next().await, Err(WatchError::Compacted(_))));
}

#[test]
fn a_ledger_with_impossible_revisions_is_corrupt() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.json");
    for ledger in [
        r#"{"revision":1,"entries":{},"changes":[],"forgotten":0}"#,
        r#"{"revision":9223372036854775807,"entries":{},"changes":[],"forgotten":9223372036854775807}"#,
        r#"{"revision":-1,"entries":{},"changes":[],"forgotten":-1}"#,
        r#"{"revision":1,"entries":{"config":{"value":"","revision":2}},"changes":[],"forgotten":1}"#,
    ] {
        let text = format!(r#"{{"format":1,"cluster":"x","ledger":{ledger}}}"#);
        std::fs::write(&path, text).unwrap();
        let error = Local::open(&path).unwrap_err();
        assert!(
            matches!(error, StoreError::Corrupt { .. }),
            "{ledger}: {error}"
        );
    }
    std::fs::write(&path, r#"{"format":2,"cluster":"x","ledger":{"revision":0,"entries":{},"changes":[],"forgotten":0}}"#).unwrap();
    assert!(
        Local::open(&path)
            .unwrap_err()
            .to_string()
            .contains("format 2")
    );
}
