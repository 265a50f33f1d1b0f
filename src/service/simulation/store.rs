//! Each node's own line to the datastore, which can be cut, and the book of who wrote what.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::cluster::datastore::{Datastore, Event, Outcome, Put, Revision, Snapshot, StoreError};
use crate::cluster::datastore::{Watch, WatchError};
use crate::cluster::lease::Attrs;
use crate::cluster::memory::{Memory, MemoryWatch};

/// Who wrote each entry last; 0 is nobody of ours.
#[derive(Debug, Clone, Default)]
pub(super) struct Book {
    entries: Arc<Mutex<BTreeMap<String, u32>>>,
    /// What must never happen, and did.
    crimes: Arc<Mutex<Vec<String>>>,
}

impl Book {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, u32>> {
        self.entries.lock().unwrap()
    }

    pub(super) fn accuse(&self, crime: String) {
        tracing::error!("{crime}");
        self.crimes.lock().unwrap().push(crime);
    }

    pub(super) fn crimes(&self) -> Vec<String> {
        self.crimes.lock().unwrap().clone()
    }

    pub(super) fn set(&self, key: &str, writer: u32) {
        self.entries().insert(key.to_owned(), writer);
    }

    pub(super) fn copy(&self) -> BTreeMap<String, u32> {
        self.entries().clone()
    }

    pub(super) fn restore(&self, entries: BTreeMap<String, u32>) {
        *self.entries() = entries;
    }
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    None,
    /// Every call fails at once.
    Refused,
    /// Nothing comes back.
    Silent,
    /// Calls never end: what no time limit of ours catches.
    Hung,
    /// Calls panic.
    Broken,
}

/// The limit of a call, as etcd's client has it.
const CALL: Duration = Duration::from_secs(3);
/// After this long a watch on a dead connection ends.
const PING: Duration = Duration::from_secs(8);

/// A node's line to the datastore.
#[derive(Debug, Clone)]
pub(super) struct Line {
    number: u32,
    memory: Memory,
    book: Book,
    trouble: watch::Sender<Trouble>,
}

impl Line {
    pub(super) fn new(number: u32, memory: Memory, book: Book) -> Self {
        let trouble = watch::Sender::new(Trouble::None);
        Self {
            number,
            memory,
            book,
            trouble,
        }
    }

    pub(super) fn set(&self, trouble: Trouble) {
        self.trouble.send_replace(trouble);
    }

    async fn pass(&self) -> Result<(), StoreError> {
        let trouble = *self.trouble.borrow();
        match trouble {
            Trouble::None => Ok(()),
            Trouble::Refused => Err(cut()),
            Trouble::Silent => {
                sleep(CALL).await;
                Err(cut())
            }
            Trouble::Hung => std::future::pending().await,
            // no message and no backtrace, of which there would be thousands
            Trouble::Broken => std::panic::resume_unwind(Box::new("the store is broken")),
        }
    }

    /// What must never happen: a node writes over a lease that another node holds.
    fn check(&self, key: &str, before: &Snapshot) {
        let Some(entry) = before.entries.iter().find(|entry| entry.key == key) else {
            return;
        };
        let writer = self.book.entries().get(key).copied();
        // whose it was cannot be told from what nobody can read
        let told = writer != Some(0) || Attrs::from_json(&entry.value).is_ok();
        if key.starts_with("subnets/") && writer != Some(self.number) && told {
            let value = String::from_utf8_lossy(&entry.value);
            let number = self.number;
            let crime = format!("node{number} wrote over {key} of {writer:?}: {value}");
            self.book.accuse(crime);
        }
    }
}

fn cut() -> StoreError {
    StoreError::Unavailable {
        doing: "calling".to_owned(),
        reason: "the line is cut".to_owned(),
    }
}

impl Datastore for Line {
    type Watch = LineWatch;

    fn name(&self) -> String {
        "memory".to_owned()
    }

    async fn list(&self) -> Result<Snapshot, StoreError> {
        self.pass().await?;
        self.memory.list().await
    }

    async fn put(&self, put: Put<'_>) -> Result<Outcome, StoreError> {
        self.pass().await?;
        let before = self.memory.list().await?;
        let outcome = self.memory.put(put).await;
        let after = self.memory.list().await?;
        // also where the answer is lost
        if before.revision < after.revision {
            self.check(put.key, &before);
            self.book.set(put.key, self.number);
        }
        outcome
    }

    async fn delete(&self, key: &str, revision: Revision) -> Result<bool, StoreError> {
        self.pass().await?;
        let before = self.memory.list().await?;
        let deleted = self.memory.delete(key, revision).await;
        if matches!(deleted, Ok(true)) {
            self.check(key, &before);
        }
        deleted
    }

    async fn watch(&self, revision: Revision) -> Result<LineWatch, StoreError> {
        self.pass().await?;
        Ok(LineWatch {
            watch: self.memory.watch(revision).await?,
            trouble: self.trouble.subscribe(),
        })
    }
}

pub(super) struct LineWatch {
    watch: MemoryWatch,
    trouble: watch::Receiver<Trouble>,
}

impl Watch for LineWatch {
    async fn next(&mut self) -> Result<Vec<Event>, WatchError> {
        loop {
            let trouble = *self.trouble.borrow_and_update();
            match trouble {
                Trouble::None => {}
                Trouble::Refused => return Err(cut().into()),
                Trouble::Silent => {
                    tokio::select! {
                        biased;
                        _ = self.trouble.changed() => continue,
                        () = sleep(PING) => return Err(cut().into()),
                    }
                }
                Trouble::Hung => std::future::pending().await,
                Trouble::Broken => std::panic::resume_unwind(Box::new("the watch is broken")),
            }
            tokio::select! {
                biased;
                _ = self.trouble.changed() => {}
                events = self.watch.next() => return events,
            }
        }
    }
}
