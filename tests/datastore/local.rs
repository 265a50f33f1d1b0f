//! The file: the contract, and processes that die.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use flannel_rs::cluster::datastore::{Datastore, Fence, Outcome, StoreError};
use flannel_rs::cluster::local::Local;

use crate::contract::{self, Bench, put, stored};

/// Tells the writing child of these tests its file and the start of its keys.
const CHILD: &str = "DATASTORE_TEST_CHILD";

struct InFile(tempfile::TempDir);

impl InFile {
    fn path(&self) -> PathBuf {
        self.0.path().join("leases.json")
    }
}

impl Bench for InFile {
    type Store = Local;

    fn open(&self) -> Local {
        Local::open(self.path()).unwrap()
    }

    /// It keeps 1024 changes.
    async fn compact(&self) {
        let store = self.open();
        let mut fence = Fence::Absent;
        for _ in 0..1025 {
            fence = Fence::Unchanged(stored(&store, put("subnets/filler", "x", fence)).await);
        }
    }
}

fn bench() -> Option<InFile> {
    Some(InFile(tempfile::tempdir().unwrap()))
}

contract::keeps!(bench);

#[tokio::test]
async fn a_corrupt_file_is_left_alone() {
    let bench = bench().unwrap();
    let store = bench.open();
    stored(&store, put("subnets/10.5.1.0-24", "x", Fence::Absent)).await;
    let good = std::fs::read_to_string(bench.path()).unwrap();
    let (half, _) = good.split_at(good.len() / 2);
    for text in [
        half,
        "",
        "{}",
        "[1]",
        &format!("{good}{good}"),
        &good.replace('x', "\u{0}"),
    ] {
        std::fs::write(bench.path(), text).unwrap();
        let named = |error: StoreError| {
            let shown = error.to_string();
            let named = shown.contains("leases.json") && shown.contains("move it away");
            assert!(
                matches!(error, StoreError::Corrupt { .. }) && named,
                "{shown}"
            );
        };
        named(Local::open(bench.path()).unwrap_err());
        named(store.list().await.unwrap_err());
        named(
            store
                .put(put("config", "x", Fence::Absent))
                .await
                .unwrap_err(),
        );
        assert_eq!(std::fs::read_to_string(bench.path()).unwrap(), text);
    }
    std::fs::write(bench.path(), good).unwrap();
    assert_eq!(store.list().await.unwrap().entries.len(), 1);
}

#[tokio::test]
async fn a_missing_folder_is_made_and_an_impossible_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let store = Local::open(folder.path().join("a/b/leases.json")).unwrap();
    let outcome = store.put(put("config", "x", Fence::Absent)).await.unwrap();
    assert!(matches!(outcome, Outcome::Stored { .. }));
    let inside_a_file = folder.path().join("a/b/leases.json/c/leases.json");
    let error = match Local::open(&inside_a_file) {
        Ok(store) => store.put(put("config", "x", Fence::Absent)).await.err(),
        Err(error) => Some(error),
    };
    let text = error.unwrap().to_string();
    assert!(text.contains("a/b/leases.json/c"), "{text}");
}

/// Not a test: the process that [`processes_killed_while_writing_lose_nothing`] kills. Writes
/// one entry after the other and says so when it is committed.
#[tokio::test]
async fn writes_until_it_is_killed() {
    let Ok(child) = std::env::var(CHILD) else {
        return;
    };
    let (path, name) = child.split_once('|').unwrap();
    let store = Local::open(path).unwrap();
    for index in 0.. {
        let key = format!("subnets/{name}-{index}");
        stored(&store, put(&key, &key, Fence::Absent)).await;
        println!("\ncommitted {key}");
    }
}

#[tokio::test]
async fn processes_killed_while_writing_lose_nothing() {
    let bench = bench().unwrap();
    let mut committed = Vec::new();
    for round in 0..15 {
        let children = ["a", "b"].map(|child| {
            let name = format!("{round}-{child}");
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "local::writes_until_it_is_killed", "--nocapture"])
                .env(CHILD, format!("{}|{name}", bench.path().display()))
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        });
        // another moment in every round
        tokio::time::sleep(Duration::from_millis(60 + 13 * round)).await;
        for mut child in children {
            child.kill().unwrap();
            child.wait().unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let keys = lines.map_while(Result::ok);
            committed.extend(keys.filter_map(|l| Some(l.strip_prefix("committed ")?.to_owned())));
        }
        let entries = bench.open().list().await.unwrap().entries;
        for key in &committed {
            assert!(
                entries
                    .iter()
                    .any(|e| e.key == *key && e.value == key.as_bytes()),
                "{key}"
            );
        }
    }
    println!("{} commits survived", committed.len());
    assert!(
        committed.len() > 15,
        "the children wrote something: {}",
        committed.len()
    );
    // and nobody holds the lock
    stored(&bench.open(), put("subnets/after", "x", Fence::Absent)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn handles_in_several_threads_agree() {
    let bench = bench().unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let store = bench.open();
            tokio::spawn(async move {
                let mut won = 0;
                for index in 0..20 {
                    let key = format!("subnets/{index}");
                    let outcome = store.put(put(&key, "x", Fence::Absent)).await.unwrap();
                    won += usize::from(matches!(outcome, Outcome::Stored { .. }));
                }
                won
            })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        won += task.await.unwrap();
    }
    assert_eq!(won, 20);
    let list = bench.open().list().await.unwrap();
    assert_eq!((list.entries.len(), list.revision.0), (20, 20));
}
