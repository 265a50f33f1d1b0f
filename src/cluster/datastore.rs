//! What a datastore must do: fenced writes, lists at one revision, and a watch from there.
//!
//! A datastore holds entries under one prefix: `config` and `subnets/<key>`, with the values of
//! flanneld. It decides nothing: who may take which subnet is settled in [`super::allocate`] and
//! [`super::acquire`], what an entry means in [`super::view`].

use std::fmt;
use std::future::Future;
use std::time::Duration;

use super::subnet::Subnet;

/// The entry of the network config.
pub const CONFIG: &str = "config";
/// The folder of the leases.
pub const SUBNETS: &str = "subnets/";

/// The entry of a lease.
#[must_use]
pub fn lease_key(subnet: Subnet) -> String {
    format!("{SUBNETS}{}", subnet.key())
}

/// A point in a datastore's history. Grows with every write to anything in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Revision(pub i64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One entry as it stands in the datastore. Hostile until parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key without the prefix: [`CONFIG`] or below [`SUBNETS`].
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
    /// When it was last written.
    pub revision: Revision,
    /// Whether it will expire. An entry under [`SUBNETS`] that will not is a reservation.
    pub expires: bool,
}

/// All entries at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The revision of the list; a watch goes on from here.
    pub revision: Revision,
    /// The entries, ordered by key.
    pub entries: Vec<Entry>,
}

/// A change after a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An entry was written.
    Put(Entry),
    /// An entry was deleted, or expired.
    Deleted {
        /// Its key without the prefix.
        key: String,
        /// When it went.
        revision: Revision,
    },
}

/// What must hold for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fence {
    /// There is no such entry.
    Absent,
    /// The entry was last written at this revision.
    Unchanged(Revision),
}

/// A write that happens only if its fence holds.
#[derive(Debug, Clone, Copy)]
pub struct Put<'a> {
    /// The key without the prefix.
    pub key: &'a str,
    /// The new value.
    pub value: &'a str,
    /// What must hold.
    pub fence: Fence,
    /// How long the entry lives, at least a second; `None` is for ever.
    pub ttl: Option<Duration>,
}

/// What became of a [`Put`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was written.
    Stored {
        /// When.
        revision: Revision,
        /// How long it lives, as granted by the datastore; `None` is for ever.
        ttl: Option<Duration>,
    },
    /// The fence did not hold and nothing was written.
    Conflict,
}

/// The datastore did not do what it was asked to.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached or did not answer in time; a write may or may not have happened.
    #[error("{doing}: {reason}")]
    Unavailable {
        /// What was being done, to what.
        doing: String,
        /// What went wrong, in one line.
        reason: String,
    },
    /// It answers, but refuses us: permissions, credentials, certificates. Somebody must act.
    #[error("{doing}: {reason}")]
    Refused {
        /// What was being done, to what.
        doing: String,
        /// What to look at, in one line.
        reason: String,
    },
    /// What it holds cannot be understood. Somebody must act.
    #[error("{doing}: {reason}")]
    Corrupt {
        /// What was being done, to what.
        doing: String,
        /// What is wrong with it, in one line.
        reason: String,
    },
}

/// A watch ended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WatchError {
    /// The history between the watch's start and now is gone; list again.
    #[error("the datastore has dropped the history since revision {0}")]
    Compacted(Revision),
    /// The datastore failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where the cluster's agreement is kept.
pub trait Datastore: Send + Sync + 'static {
    /// A running watch.
    type Watch: Watch;

    /// What to call it in messages, such as `etcd at https://192.168.1.47:2379`.
    fn name(&self) -> String;

    /// This host has another address: what was connected from the one before gets no answers.
    fn reconnect(&self) {}

    /// All entries under the prefix, at one revision.
    fn list(&self) -> impl Future<Output = Result<Snapshot, StoreError>> + Send;

    /// Writes one entry if its fence holds.
    ///
    /// After [`StoreError::Unavailable`] it may have been written all the same.
    fn put(&self, put: Put<'_>) -> impl Future<Output = Result<Outcome, StoreError>> + Send;

    /// Deletes one entry if it is unchanged since `revision`; says whether it was.
    fn delete(
        &self,
        key: &str,
        revision: Revision,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Reports every change after `revision`.
    fn watch(
        &self,
        revision: Revision,
    ) -> impl Future<Output = Result<Self::Watch, StoreError>> + Send;
}

/// A running watch. Dropping it ends it.
pub trait Watch: Send + 'static {
    /// The next changes, in order, none left out and none twice.
    ///
    /// An empty list is a sign of life: the datastore answers and nothing happened. One comes at
    /// least every 30 seconds. Cancel safe.
    fn next(&mut self) -> impl Future<Output = Result<Vec<Event>, WatchError>> + Send;
}
