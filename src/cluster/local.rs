//! The cluster's agreement in one file: several nodes on one machine, without etcd.
//!
//! The file is only ever replaced, by rename, and only by who holds the lock file beside it. So
//! readers need no lock, and a writer killed at any point leaves the old file or the new one.

pub(super) mod ledger;
mod shelf;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::datastore::{Datastore, Event, Outcome, Put, Revision, Snapshot, StoreError};
use super::datastore::{Watch, WatchError};
use shelf::{Book, Seen, Shelf};

/// How often a watch looks at the file.
const LOOK: Duration = Duration::from_millis(200);
/// How long a watch stays silent when nothing happens.
const QUIET: Duration = Duration::from_secs(20);
/// A datastore in one file. Clones share what was last listed, so give each node its own.
#[derive(Debug, Clone)]
pub struct Local {
    shelf: Arc<Shelf>,
    /// The id of the file last listed; it tells that file from one made anew in its place.
    cluster: Arc<Mutex<String>>,
}

/// A running watch on the file.
#[derive(Debug)]
pub struct LocalWatch {
    shelf: Arc<Shelf>,
    revision: Revision,
    cluster: String,
    seen: Seen,
    spoke: tokio::time::Instant,
    ended: Option<WatchError>,
}

impl Local {
    /// The datastore in the file at `path`. There need not be one yet.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if there is a file that is not such a datastore; it is left alone.
    /// [`StoreError::Refused`] or [`StoreError::Unavailable`] if it cannot be read.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let shelf = Shelf::new(path.into());
        let book = shelf.read()?;
        Ok(Self {
            shelf: Arc::new(shelf),
            cluster: Arc::new(Mutex::new(book.cluster)),
        })
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shelf) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        aside(&self.shelf, work).await
    }
}

/// Runs file system work where it may block.
async fn aside<T: Send + 'static>(
    shelf: &Arc<Shelf>,
    work: impl FnOnce(&Shelf) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let own = Arc::clone(shelf);
    let done = tokio::task::spawn_blocking(move || work(&own)).await;
    done.unwrap_or_else(|error| Err(shelf.unavailable("using", &error.to_string())))
}

impl Datastore for Local {
    type Watch = LocalWatch;

    fn name(&self) -> String {
        format!("the file {}", self.shelf.path.display())
    }

    async fn list(&self) -> Result<Snapshot, StoreError> {
        let book = self.work(Shelf::current).await?;
        let snapshot = book.ledger.snapshot();
        *self.cluster.lock().unwrap_or_else(PoisonError::into_inner) = book.cluster;
        Ok(snapshot)
    }

    async fn put(&self, put: Put<'_>) -> Result<Outcome, StoreError> {
        let (key, value) = (put.key.to_owned(), put.value.to_owned());
        let (fence, ttl) = (put.fence, put.ttl);
        self.work(move |shelf| {
            let (key, value) = (key.as_str(), value.as_str());
            let put = Put {
                key,
                value,
                fence,
                ttl,
            };
            shelf.change(|ledger, now| ledger.put(put, now))
        })
        .await
    }

    async fn delete(&self, key: &str, revision: Revision) -> Result<bool, StoreError> {
        let key = key.to_owned();
        self.work(move |shelf| shelf.change(|ledger, _| ledger.delete(&key, revision)))
            .await
    }

    async fn watch(&self, revision: Revision) -> Result<LocalWatch, StoreError> {
        let cluster = self
            .cluster
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        Ok(LocalWatch {
            shelf: Arc::clone(&self.shelf),
            revision,
            cluster,
            seen: Seen::default(),
            spoke: tokio::time::Instant::now(),
            ended: None,
        })
    }
}

impl Watch for LocalWatch {
    async fn next(&mut self) -> Result<Vec<Event>, WatchError> {
        if let Some(end) = &self.ended {
            return Err(end.clone());
        }
        loop {
            let seen = self.seen;
            let looked = aside(&self.shelf, move |shelf| shelf.look(seen)).await;
            match looked
                .map_err(WatchError::from)
                .and_then(|look| self.take(look))
            {
                Ok(events) if events.is_empty() && self.spoke.elapsed() < QUIET => {}
                Ok(events) => {
                    self.spoke = tokio::time::Instant::now();
                    return Ok(events);
                }
                Err(end) => {
                    self.ended = Some(end.clone());
                    return Err(end);
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl LocalWatch {
    /// The changes that a look brought; `None` is a file that is the same as before.
    fn take(&mut self, look: Option<(Book, Seen)>) -> Result<Vec<Event>, WatchError> {
        let Some((book, seen)) = look else {
            return Ok(Vec::new());
        };
        if !self.cluster.is_empty() && self.cluster != book.cluster {
            return Err(WatchError::Compacted(self.revision));
        }
        let events = book.ledger.changes_after(self.revision);
        let events = events.ok_or(WatchError::Compacted(self.revision))?;
        self.cluster = book.cluster;
        self.revision = book.ledger.revision();
        self.seen = seen;
        Ok(events)
    }
}

#[cfg(test)]
mod tests;
