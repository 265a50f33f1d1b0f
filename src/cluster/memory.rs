//! The cluster's agreement in memory: below a declared fleet, and for tests, where several nodes
//! share it and it can fail.
//!
//! Time is Tokio's, so that it can be paused.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch::{Receiver, Sender};
use tokio::time::Instant;

use super::datastore::{Datastore, Event, Fence, Outcome, Put, Revision, Snapshot, StoreError};
use super::datastore::{Watch, WatchError};
use super::local::ledger::{Ledger, Millis};

/// How long a watch stays silent when nothing happens.
const QUIET: Duration = Duration::from_secs(20);

/// A datastore in memory. Clones are the same datastore.
#[derive(Debug, Clone)]
pub struct Memory {
    state: Arc<Mutex<State>>,
    /// Told of every change.
    bell: Sender<()>,
    start: Instant,
}

#[derive(Debug, Default)]
struct State {
    ledger: Ledger,
    down: bool,
    lose_answers: u32,
}

/// What was in a datastore once.
#[derive(Debug, Clone, Default)]
pub struct Backup(Ledger);

/// A running watch on memory.
#[derive(Debug)]
pub struct MemoryWatch {
    memory: Memory,
    bell: Receiver<()>,
    revision: Revision,
    spoke: Instant,
    ended: Option<WatchError>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            state: Arc::default(),
            bell: Sender::new(()),
            start: Instant::now(),
        }
    }
}

impl Memory {
    /// An empty datastore.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes everything fail, running watches included, until [`Memory::heal`].
    pub fn fail(&self) {
        self.state().down = true;
        self.bell.send_replace(());
    }

    /// Ends [`Memory::fail`].
    pub fn heal(&self) {
        self.state().down = false;
    }

    /// Carries out the next `count` writes, but answers that it is unavailable.
    pub fn lose_answers(&self, count: u32) {
        self.state().lose_answers = count;
    }

    /// Forgets the history.
    pub fn compact(&self) {
        self.state().ledger.compact();
    }

    /// All that is in it now.
    #[must_use]
    pub fn back_up(&self) -> Backup {
        Backup(self.state().ledger.clone())
    }

    /// Puts a backup in place of all that is in it; the empty one is an empty datastore. Its
    /// history goes back, and running watches with it.
    pub fn restore(&self, backup: Backup) {
        self.state().ledger = backup.0;
        self.bell.send_replace(());
    }

    /// Makes these the entries, for ever, in as many changes as entries differ: what goes, goes
    /// before what comes.
    pub(super) fn declare(&self, entries: &BTreeMap<String, String>) {
        let ledger = &mut self.state().ledger;
        let before = ledger.snapshot().entries;
        for entry in before.iter().filter(|e| !entries.contains_key(&e.key)) {
            ledger.delete(&entry.key, entry.revision);
        }
        for (key, value) in entries {
            let found = before.binary_search_by(|entry| entry.key.cmp(key));
            let found = found.ok().and_then(|at| before.get(at));
            if found.is_some_and(|entry| entry.value == value.as_bytes()) {
                continue;
            }
            let fence = found.map_or(Fence::Absent, |entry| Fence::Unchanged(entry.revision));
            let ttl = None;
            ledger.put(
                Put {
                    key,
                    value,
                    fence,
                    ttl,
                },
                0,
            );
        }
        self.bell.send_replace(());
    }

    /// Lets an entry expire now.
    pub fn expire(&self, key: &str) {
        let now = self.now();
        self.state().ledger.expire(key, now);
        self.bell.send_replace(());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Millis {
        Millis::try_from(self.start.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }

    /// The state without what has expired, unless it is down.
    fn current(&self, doing: &str) -> Result<MutexGuard<'_, State>, StoreError> {
        let now = self.now();
        let mut state = self.state();
        if state.down {
            return Err(unavailable(doing));
        }
        if state.ledger.purge(now) {
            self.bell.send_replace(());
        }
        Ok(state)
    }

    fn write<T>(
        &self,
        doing: &str,
        write: impl FnOnce(&mut Ledger, Millis) -> T,
    ) -> Result<T, StoreError> {
        let now = self.now();
        let mut state = self.current(doing)?;
        let result = write(&mut state.ledger, now);
        self.bell.send_replace(());
        if state.lose_answers > 0 {
            state.lose_answers -= 1;
            return Err(unavailable(doing));
        }
        Ok(result)
    }
}

fn unavailable(doing: &str) -> StoreError {
    StoreError::Unavailable {
        doing: doing.to_owned(),
        reason: "memory: made to fail".to_owned(),
    }
}

impl Datastore for Memory {
    type Watch = MemoryWatch;

    fn name(&self) -> String {
        "memory".to_owned()
    }

    async fn list(&self) -> Result<Snapshot, StoreError> {
        Ok(self.current("listing the leases")?.ledger.snapshot())
    }

    async fn put(&self, put: Put<'_>) -> Result<Outcome, StoreError> {
        let doing = format!("writing {}", put.key);
        self.write(&doing, |ledger, now| ledger.put(put, now))
    }

    async fn delete(&self, key: &str, revision: Revision) -> Result<bool, StoreError> {
        let doing = format!("deleting {key}");
        self.write(&doing, |ledger, _| ledger.delete(key, revision))
    }

    async fn watch(&self, revision: Revision) -> Result<MemoryWatch, StoreError> {
        drop(self.current("watching the leases")?);
        Ok(MemoryWatch {
            memory: self.clone(),
            bell: self.bell.subscribe(),
            revision,
            spoke: Instant::now(),
            ended: None,
        })
    }
}

impl MemoryWatch {
    /// The changes so far, and how long to wait for more.
    fn look(&mut self) -> Result<(Vec<Event>, Instant), WatchError> {
        self.bell.mark_unchanged();
        let state = self.memory.current("watching the leases")?;
        let events = state.ledger.changes_after(self.revision);
        let events = events.ok_or(WatchError::Compacted(self.revision))?;
        self.revision = state.ledger.revision();
        let expiry = state.ledger.next_expiry().map(Duration::from_millis);
        let expiry = expiry.and_then(|expiry| self.memory.start.checked_add(expiry));
        let quiet = self.spoke + QUIET;
        Ok((events, expiry.map_or(quiet, |expiry| expiry.min(quiet))))
    }
}

impl Watch for MemoryWatch {
    async fn next(&mut self) -> Result<Vec<Event>, WatchError> {
        if let Some(end) = &self.ended {
            return Err(end.clone());
        }
        loop {
            match self.look() {
                Ok((events, _)) if !events.is_empty() || self.spoke.elapsed() >= QUIET => {
                    self.spoke = Instant::now();
                    return Ok(events);
                }
                Ok((_, until)) => {
                    // the sender lives in our own clone of the datastore
                    let _ = tokio::time::timeout_at(until, self.bell.changed()).await;
                }
                Err(end) => {
                    self.ended = Some(end.clone());
                    return Err(end);
                }
            }
        }
    }
}
