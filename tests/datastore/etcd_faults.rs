//! etcd that is slow, full, restored, or has new certificates and passwords.

use std::time::{Duration, Instant};

use flannel_rs::cluster::datastore::{
    Datastore, Event, Fence, Revision, StoreError, Watch, WatchError,
};
use flannel_rs::cluster::etcd::{Etcd, TlsFiles};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::contract::{Bench, end, put, stored};
use crate::etcd::{KEY, at, one_line, options};
use crate::etcd_access::{logged_in, refusal, tls};
use crate::support::etcd::{ClientCertificate, EtcdServer, EtcdSetup};
use crate::support::relay::Relay;

/// Within this much all is right again, once a fault is over.
const BOUND: Duration = Duration::from_secs(5);

/// Less than is waited for one answer (3 s), with time for a busy machine, and more than two answers
/// could take if they shared that.
const DELAY: Duration = Duration::from_millis(1800);

fn login(arguments: &'static [&'static str]) -> Option<EtcdServer> {
    EtcdServer::start_with(EtcdSetup {
        login: Some(("root".to_owned(), "first".to_owned())),
        arguments,
        ..EtcdSetup::default()
    })
}

fn tls_server(clients: ClientCertificate) -> Option<EtcdServer> {
    EtcdServer::start_with(EtcdSetup {
        tls: Some(clients),
        ..EtcdSetup::default()
    })
}

#[tokio::test]
async fn a_session_that_runs_out_costs_no_call() {
    let Some(server) = login(&["--auth-token-ttl=1"]) else {
        return;
    };
    let folder = TempDir::new().unwrap();
    let store = logged_in(&server.endpoint(), "root", &folder, "first");
    let mut revision = stored(&store, put(KEY, "one", Fence::Absent)).await;
    let mut watch = store.watch(revision).await.unwrap();
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(2500)).await;
        // a watch in place goes on, one that is opened logs in
        let mut second = store.watch(revision).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2500)).await;
        revision = stored(&store, put(KEY, "two", Fence::Unchanged(revision))).await;
        for watch in [&mut watch, &mut second] {
            let events = watch.next().await.unwrap();
            assert!(matches!(&events[..], [Event::Put(entry)] if entry.revision == revision));
        }
    }
}

#[tokio::test]
async fn a_new_password_is_read_when_it_is_needed() {
    let Some(mut server) = login(&[]) else {
        return;
    };
    let folder = TempDir::new().unwrap();
    let store = logged_in(&server.endpoint(), "root", &folder, "first");
    let from = stored(&store, put(KEY, "one", Fence::Absent)).await;
    server.change_password("second");
    let text = refusal(&store.list().await.unwrap_err());
    assert!(text.contains("check user name and password"), "{text}");
    let path = folder.path().join("first");
    // as some write a file: there is a moment when it is gone
    std::fs::remove_file(&path).unwrap();
    let text = refusal(&store.list().await.unwrap_err());
    assert!(text.contains("cannot read the password of etcd"), "{text}");
    std::fs::write(&path, "second\n").unwrap();
    assert_eq!(store.list().await.unwrap().entries.len(), 1);
    assert!(store.watch(from).await.is_ok());
    // with the connection in place nobody cares for files that are gone
    std::fs::remove_file(&path).unwrap();
    assert_eq!(store.list().await.unwrap().entries.len(), 1);
}

#[tokio::test]
async fn new_certificates_are_read_with_the_next_connection() {
    let Some(mut server) = tls_server(ClientCertificate::Required) else {
        return;
    };
    let store = tls(&server, "ca.pem", Some("client"));
    let from = stored(&store, put(KEY, "one", Fence::Absent)).await;
    let file = |server: &EtcdServer, name: &str| server.certificates().file(name);
    let key = std::fs::read(file(&server, "client.key")).unwrap();
    server.replace_certificates();
    server.restart();
    // half of the new files: a certificate with the former key
    let new_key = std::fs::read(file(&server, "client.key")).unwrap();
    std::fs::write(file(&server, "client.key"), key).unwrap();
    let text = refusal(&store.list().await.unwrap_err());
    println!("{text}");
    let text = refusal(&store.list().await.unwrap_err());
    assert!(
        text.contains("our certificate and its key do not go together"),
        "{text}"
    );
    std::fs::write(file(&server, "client.key"), "").unwrap();
    let text = refusal(&store.list().await.unwrap_err());
    assert!(text.contains("not a PEM file with a private key"), "{text}");
    std::fs::write(file(&server, "client.key"), new_key).unwrap();
    assert_eq!(store.list().await.unwrap().entries.len(), 1);
    let mut watch = store.watch(from).await.unwrap();
    stored(&store, put(KEY, "two", Fence::Unchanged(from))).await;
    assert_eq!(watch.next().await.unwrap().len(), 1);
}

#[tokio::test]
async fn certificates_may_change_under_a_connection() {
    let Some(mut server) = tls_server(ClientCertificate::Required) else {
        return;
    };
    let store = tls(&server, "ca.pem", Some("client"));
    let mut revision = stored(&store, put(KEY, "one", Fence::Absent)).await;
    let mut watch = store.watch(revision).await.unwrap();
    // files that nobody could connect with: what is connected goes on
    let key = server.certificates().file("client.key");
    let good = std::fs::read(&key).unwrap();
    for bad in [
        "",
        "-----BEGIN PRIVATE KEY-----\nhello\n-----END PRIVATE KEY-----\n",
    ] {
        std::fs::write(&key, bad).unwrap();
        revision = stored(&store, put(KEY, "two", Fence::Unchanged(revision))).await;
    }
    std::fs::write(&key, good).unwrap();
    revision = stored(&store, put(KEY, "two", Fence::Unchanged(revision))).await;
    let mut seen = 0;
    while seen < 3 {
        seen += watch.next().await.unwrap().len();
    }
    server.replace_certificates();
    server.restart();
    assert_eq!(store.list().await.unwrap().revision, revision);
}

#[tokio::test]
async fn a_slow_server_is_waited_for() {
    let Some(server) = login(&[]) else {
        return;
    };
    let relay = Relay::start(server.endpoint().strip_prefix("http://").unwrap());
    relay.delay_answers(DELAY);
    let folder = TempDir::new().unwrap();
    let store = logged_in(&relay.endpoint(), "root", &folder, "first");
    let revision = stored(&store, put(KEY, "one", Fence::Absent)).await;
    let mut watch = store.watch(revision).await.unwrap();
    assert_eq!(store.list().await.unwrap().entries.len(), 1);
    // long enough for two PINGs
    tokio::time::sleep(Duration::from_secs(14)).await;
    let revision = stored(&store, put(KEY, "two", Fence::Unchanged(revision))).await;
    let events = watch.next().await.unwrap();
    assert!(matches!(&events[..], [Event::Put(entry)] if entry.revision == revision));
}

#[tokio::test]
async fn a_slow_server_with_tls_is_waited_for() {
    let Some(server) = tls_server(ClientCertificate::Unasked) else {
        return;
    };
    let relay = Relay::start(server.endpoint().strip_prefix("https://").unwrap());
    relay.delay_answers(DELAY);
    let mut options = options([relay.endpoint().replace("http:", "https:")]);
    options.tls = Some(TlsFiles {
        ca: Some(server.certificates().file("ca.pem")),
        ..TlsFiles::default()
    });
    let store = Etcd::new(options).unwrap();
    assert_eq!(store.list().await.unwrap().entries, []);
}

#[tokio::test]
async fn a_full_server_says_so_and_goes_on_reading() {
    let Some(server) = EtcdServer::start_with(EtcdSetup {
        arguments: &["--quota-backend-bytes=1048576"],
        ..EtcdSetup::default()
    }) else {
        return;
    };
    let store = server.open();
    let revision = stored(&store, put(KEY, "one", Fence::Absent)).await;
    let mut watch = store.watch(revision).await.unwrap();
    server.fill();
    let start = Instant::now();
    let text = refusal(
        &store
            .put(put(KEY, "two", Fence::Unchanged(revision)))
            .await
            .unwrap_err(),
    );
    assert!(
        text.contains(
            "etcd is out of space: compact and defragment it, then run etcdctl alarm disarm"
        ),
        "{text}"
    );
    let list = store.list().await.unwrap();
    assert_eq!(list.entries.len(), 1);
    assert!(store.watch(list.revision).await.is_ok());
    assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
    server.make_room();
    let revision = stored(&store, put(KEY, "two", Fence::Unchanged(revision))).await;
    let events = watch.next().await.unwrap();
    assert!(matches!(&events[..], [Event::Put(entry)] if entry.revision == revision));
}

/// However long it takes until somebody makes room.
#[tokio::test]
async fn an_entry_outlives_a_full_server() {
    let Some(server) = EtcdServer::start_with(EtcdSetup {
        arguments: &["--quota-backend-bytes=1048576"],
        ..EtcdSetup::default()
    }) else {
        return;
    };
    let store = server.open();
    let mut write = put(KEY, "one", Fence::Absent);
    write.ttl = Some(Duration::from_secs(4));
    let revision = stored(&store, write).await;
    server.fill();
    write.fence = Fence::Unchanged(revision);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(9) {
        assert!(store.put(write).await.is_err());
        let list = store.list().await.unwrap();
        assert_eq!(list.entries.len(), 1, "after {:?}", start.elapsed());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // what another has written is not ours to keep
    write.fence = Fence::Unchanged(Revision(revision.0 - 1));
    while !store.list().await.unwrap().entries.is_empty() {
        assert!(store.put(write).await.is_err());
        assert!(
            start.elapsed() < Duration::from_secs(40),
            "it lives for ever"
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn a_restored_server_ends_the_watch_of_what_it_has_forgotten() {
    let Some(mut server) = EtcdServer::start() else {
        return;
    };
    let store = server.open();
    let old = stored(&store, put(KEY, "old", Fence::Absent)).await;
    let backup = server.save();
    for another in [false, true] {
        let fence = Fence::Unchanged(store.list().await.unwrap().entries[0].revision);
        let new = stored(&store, put(KEY, "new", fence)).await;
        let mut watch = store.watch(new).await.unwrap();
        server.restore(&backup, another);
        assert!(matches!(end(&mut watch).await, WatchError::Store(_)));
        let mut watch = store.watch(new).await.unwrap();
        let ended = timeout(BOUND, end(&mut watch)).await.unwrap();
        assert!(matches!(ended, WatchError::Compacted(_)), "{ended}");
        let list = store.list().await.unwrap();
        assert!(list.revision < new);
        assert_eq!(
            (list.entries[0].revision, &list.entries[0].value[..]),
            (old, &b"old"[..])
        );
    }
}

/// The start of the watch is compacted between the list and the watch.
#[tokio::test]
async fn a_watch_that_comes_too_late_says_so() {
    let Some(server) = EtcdServer::start() else {
        return;
    };
    let store = server.open();
    let first = stored(&store, put(KEY, "one", Fence::Absent)).await;
    let mut last = first;
    for value in ["two", "three", "four"] {
        last = stored(&store, put(KEY, value, Fence::Unchanged(last))).await;
    }
    EtcdServer::compact(&server);
    let mut watch = store.watch(first).await.unwrap();
    let ended = timeout(BOUND, end(&mut watch)).await.unwrap();
    assert!(matches!(ended, WatchError::Compacted(_)), "{ended}");
    assert!(store.watch(last).await.is_ok());
}

#[tokio::test]
async fn a_relay_that_refuses_is_left_as_soon_as_it_does_not() {
    let Some(server) = EtcdServer::start() else {
        return;
    };
    let relay = Relay::start(server.endpoint().strip_prefix("http://").unwrap());
    relay.refuse(true);
    let store = at([relay.endpoint()]);
    for _ in 0..3 {
        let error = store.list().await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
        one_line(&error);
    }
    relay.refuse(false);
    assert!(store.list().await.is_ok());
}
