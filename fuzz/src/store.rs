//! The file of the local datastore.

use std::fs;
use std::path::{Path, PathBuf};

use flannel_rs::cluster::datastore::{
    Datastore, Event, Fence, Outcome, Put, Revision, Snapshot, StoreError, Watch, WatchError,
};
use flannel_rs::cluster::local::Local;

/// Opens a datastore on a file of these bytes. One that is taken can be listed, watched and
/// written, and what was written is there for who opens it next; another one is left alone.
pub fn store(data: &[u8]) {
    let folder = tempfile::tempdir_in(memory()).unwrap();
    let path = folder.path().join("store.json");
    fs::write(&path, data).unwrap();
    match Local::open(&path) {
        Ok(store) => {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_time().build().unwrap();
            runtime.block_on(used(store, &path));
        }
        Err(StoreError::Corrupt { reason, .. }) => {
            super::assert_presentable(&reason);
            assert_eq!(fs::read(&path).unwrap(), data);
        }
        Err(error) => panic!("it can be read: {error}"),
    }
}

/// The datastore syncs what it writes, which on a disk takes its time.
fn memory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    }
}

async fn used(store: Local, path: &Path) {
    let before = store.list().await.unwrap();
    let entries = &before.entries;
    assert!(entries.is_sorted_by(|one, next| one.key < next.key));
    let newest = entries.iter().map(|entry| entry.revision).max();
    assert!(newest.is_none_or(|newest| newest <= before.revision));
    for back in [1, 2, 3] {
        replayed(&store, before.revision, back).await;
    }
    if before.revision.0 > i64::MAX / 4 {
        // nobody writes so often; the last revisions there are cannot be added to
        return;
    }
    let put = Put {
        key: KEY,
        value: "{}",
        fence: fence(&before),
        ttl: None,
    };
    let mut watch = store.watch(before.revision).await.unwrap();
    let Ok(Outcome::Stored { revision, .. }) = store.put(put).await else {
        panic!("the fence holds");
    };
    assert!(revision > before.revision);
    let events = watch.next().await.unwrap();
    let Some(Event::Put(entry)) = events.last() else {
        panic!("not the write: {events:?}");
    };
    assert_eq!((entry.key.as_str(), entry.revision), (KEY, revision));
    let after = Local::open(path).unwrap().list().await.unwrap();
    assert!(after.entries.contains(entry) && after.revision >= revision);
}

/// A watch from some revisions ago brings one event for each, or says that it cannot.
async fn replayed(store: &Local, now: Revision, back: i64) {
    let mut watch = store.watch(Revision(now.0 - back)).await.unwrap();
    match watch.next().await {
        Err(WatchError::Compacted(_)) => {}
        Err(WatchError::Store(error)) => panic!("it could be listed: {error}"),
        Ok(events) => {
            let revisions = events.iter().map(|event| match event {
                Event::Put(entry) => entry.revision.0,
                Event::Deleted { revision, .. } => revision.0,
            });
            assert!(revisions.eq(now.0 - back + 1..=now.0), "{events:?}");
        }
    }
}

const KEY: &str = "subnets/10.5.34.0-24";

fn fence(snapshot: &Snapshot) -> Fence {
    let held = snapshot.entries.iter().find(|entry| entry.key == KEY);
    held.map_or(Fence::Absent, |entry| Fence::Unchanged(entry.revision))
}
