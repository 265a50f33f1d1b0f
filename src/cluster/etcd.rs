//! The cluster's agreement in etcd, under flanneld's keys.
//!
//! The client library picks among several endpoints by chance, dead ones included, and knows no
//! time limits. So there is one client per endpoint here, and every request goes through
//! `call`, which has a limit per try and moves on. Connects on first use and again by itself.

mod access;
mod call;
mod failure;
mod lease;
mod options;
mod watch;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use etcd_client::{Compare, CompareOp, DeleteOptions, GetOptions, PutOptions, Txn, TxnOp};
use etcd_client::{KeyValue, ResponseHeader, TxnOpResponse, TxnResponse};

use super::datastore::{CONFIG, Datastore, Entry, Fence, Outcome, Put, Revision, SUBNETS};
use super::datastore::{Snapshot, StoreError};
use call::{Answer, Members};
use failure::{Cause, Failure};
use lease::revoke_unused;

pub use options::{Credentials, EtcdOptions, TlsFiles};
pub use watch::EtcdWatch;

/// Entries per request of a list.
const PAGE: i64 = 2_000;
/// More entries than a cluster can have; past it the prefix is not what we take it for.
const MOST_ENTRIES: usize = 200_000;
/// Room for a page of ordinary entries many times over; the library's own limit is 4 MiB.
const LARGEST_ANSWER: usize = 32 << 20;
/// etcd, through one endpoint at a time.
pub struct Etcd {
    members: Members,
    folder: Folder,
    /// The cluster id of the last list; 0 before it.
    cluster: AtomicU64,
}

/// The prefix with its slash: what comes before `config` and `subnets/`.
#[derive(Debug, Clone)]
struct Folder(String);

/// A page of a list.
struct Page {
    revision: i64,
    cluster: u64,
    entries: Vec<Entry>,
    /// Where the next page begins, if there is more.
    next: Option<Vec<u8>>,
}

impl Etcd {
    /// Prepares to use etcd; nothing is sent before the first call.
    ///
    /// Must run, like all that follows, inside a Tokio runtime.
    ///
    /// # Errors
    /// [`StoreError::Refused`] where an endpoint is not a URL with a port or does not go with
    /// the TLS files, or where one of these or the password cannot be read. Later on, when they
    /// are read again, that is a failed call like others.
    pub fn new(options: EtcdOptions) -> Result<Self, StoreError> {
        let folder = Folder(options::folder(&options.prefix));
        Ok(Self {
            members: Members::new(options)?,
            folder,
            cluster: AtomicU64::new(0),
        })
    }

    async fn list_once(&self) -> Result<Snapshot, Failure> {
        let first = self.page(&self.folder.first(), 0).await?;
        let mut entries = first.entries;
        let mut next = first.next;
        while let Some(key) = next {
            // all pages at the revision of the first
            let page = self.page(&key, first.revision).await?;
            if page.cluster != first.cluster {
                let reason = "the endpoints belong to different clusters".to_owned();
                return Err(Failure::new(Cause::Refused, reason));
            }
            entries.extend(page.entries);
            if entries.len() > MOST_ENTRIES {
                let reason = format!("more than {MOST_ENTRIES} entries under {}", self.folder.0);
                return Err(Failure::new(Cause::Corrupt, reason));
            }
            next = page.next;
        }
        self.cluster.store(first.cluster, Ordering::Relaxed);
        let revision = Revision(first.revision);
        Ok(Snapshot { revision, entries })
    }

    async fn page(&self, key: &[u8], revision: i64) -> Result<Page, Failure> {
        let end = self.folder.end();
        let answer = self.members.call(|client| {
            let mut kv = client.kv_client().max_decoding_message_size(LARGEST_ANSWER);
            let options = GetOptions::new().with_range(end.clone()).with_limit(PAGE);
            let key = key.to_vec();
            async move { kv.get(key, Some(options.with_revision(revision))).await }
        });
        let page = answer.await?.value;
        let (revision, cluster) = page
            .header()
            .map_or((0, 0), |header| (header.revision(), header.cluster_id()));
        let entries = page.kvs().iter().filter_map(|kv| self.folder.entry(kv));
        let last = page.kvs().last().filter(|_| page.more());
        Ok(Page {
            revision,
            cluster,
            entries: entries.collect(),
            next: last.map(|kv| [kv.key(), &[0]].concat()),
        })
    }

    async fn transact(&self, txn: &Txn) -> Result<Answer<TxnResponse>, Failure> {
        self.members
            .call(|mut client| {
                let txn = txn.clone();
                async move { client.txn(txn).await }
            })
            .await
    }

    async fn put_once(&self, put: Put<'_>) -> Result<Outcome, Failure> {
        let lease = match put.ttl {
            Some(ttl) => Some(self.grant(ttl).await?),
            None => None,
        };
        let result = self.put_under(put, lease).await;
        if let Some((id, _)) = lease {
            let unused = match &result {
                Ok(Outcome::Stored { .. }) => false,
                Ok(Outcome::Conflict) => true,
                Err(failure) => matches!(failure.cause, Cause::Refused | Cause::Full),
            };
            if unused {
                self.revoke(id).await;
            }
        }
        result
    }

    async fn put_under(
        &self,
        put: Put<'_>,
        lease: Option<(i64, Duration)>,
    ) -> Result<Outcome, Failure> {
        let key = self.folder.key(put.key);
        let id = lease.map_or(0, |(id, _)| id);
        let options = PutOptions::new().with_lease(id).with_prev_key();
        let txn = Txn::new()
            .when([fence(&key, put.fence)])
            .and_then([TxnOp::put(key.clone(), put.value, Some(options))])
            .or_else([TxnOp::get(key, None)]);
        let answer = self.transact(&txn).await?;
        let ttl = lease.map(|(_, ttl)| ttl);
        let response = &answer.value;
        if response.succeeded() {
            let revision = Revision(response.header().map_or(0, ResponseHeader::revision));
            if let Some(previous) = previous_lease(response).filter(|lease| *lease != id) {
                revoke_unused(&answer, previous).await;
            }
            return Ok(Outcome::Stored { revision, ttl });
        }
        if answer.unsure {
            // an earlier try may be what broke the fence; only the lease tells whose entry it is
            match present(response) {
                Some(kv) if id != 0 && kv.lease() == id => {
                    let revision = Revision(kv.mod_revision());
                    return Ok(Outcome::Stored { revision, ttl });
                }
                _ if id == 0 => return Err(answer.doubt()),
                _ => {}
            }
        }
        Ok(Outcome::Conflict)
    }
}

impl Datastore for Etcd {
    type Watch = EtcdWatch;

    fn name(&self) -> String {
        format!("etcd at {}", self.members)
    }

    fn reconnect(&self) {
        self.members.reconnect();
    }

    async fn list(&self) -> Result<Snapshot, StoreError> {
        let mut tries = 3;
        loop {
            tries -= 1;
            match self.list_once().await {
                // compacted between two pages: start over
                Err(failure) if failure.cause == Cause::Compacted && tries > 0 => {}
                result => {
                    return result.map_err(|failure| failure.while_doing("listing the leases"));
                }
            }
        }
    }

    async fn put(&self, put: Put<'_>) -> Result<Outcome, StoreError> {
        if matches!(put.fence, Fence::Unchanged(Revision(..=0))) {
            // to etcd, an entry that does not exist was last written at revision 0
            return Ok(Outcome::Conflict);
        }
        let result = self.put_once(put).await;
        if let (Err(failure), Fence::Unchanged(revision)) = (&result, put.fence)
            && failure.cause == Cause::Full
        {
            self.keep_alive(&self.folder.key(put.key), revision).await;
        }
        result.map_err(|failure| failure.while_doing(&format!("writing {}", put.key)))
    }

    async fn delete(&self, key: &str, revision: Revision) -> Result<bool, StoreError> {
        if revision.0 <= 0 {
            return Ok(false);
        }
        let doing = |failure: Failure| failure.while_doing(&format!("deleting {key}"));
        let path = self.folder.key(key);
        let txn = Txn::new()
            .when([fence(&path, Fence::Unchanged(revision))])
            .and_then([TxnOp::delete(
                path.clone(),
                Some(DeleteOptions::new().with_prev_key()),
            )])
            .or_else([TxnOp::get(path, None)]);
        let answer = self.transact(&txn).await.map_err(doing)?;
        if !answer.value.succeeded() && answer.unsure && present(&answer.value).is_none() {
            return Err(doing(answer.doubt()));
        }
        if let Some(lease) = previous_lease(&answer.value) {
            revoke_unused(&answer, lease).await;
        }
        Ok(answer.value.succeeded())
    }

    async fn watch(&self, revision: Revision) -> Result<EtcdWatch, StoreError> {
        let cluster = Some(self.cluster.load(Ordering::Relaxed)).filter(|id| *id != 0);
        watch::open(&self.members, self.folder.clone(), revision, cluster)
            .await
            .map_err(|failure| failure.while_doing(watch::DOING))
    }
}

fn fence(key: &str, fence: Fence) -> Compare {
    match fence {
        Fence::Absent => Compare::create_revision(key, CompareOp::Equal, 0),
        Fence::Unchanged(revision) => Compare::mod_revision(key, CompareOp::Equal, revision.0),
    }
}

/// The entry that a lost fence found.
fn present(response: &TxnResponse) -> Option<KeyValue> {
    match response.op_responses().into_iter().next()? {
        TxnOpResponse::Get(mut get) => get.take_kvs().into_iter().next(),
        TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
    }
}

/// The etcd lease of the entry that was replaced or deleted.
fn previous_lease(response: &TxnResponse) -> Option<i64> {
    let lease = match response.op_responses().into_iter().next()? {
        TxnOpResponse::Put(put) => put.prev_key()?.lease(),
        TxnOpResponse::Delete(deleted) => deleted.prev_kvs().first()?.lease(),
        TxnOpResponse::Get(_) | TxnOpResponse::Txn(_) => 0,
    };
    Some(lease).filter(|lease| *lease != 0)
}

impl Folder {
    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.0)
    }

    /// The lowest key inside.
    fn first(&self) -> Vec<u8> {
        if self.0.is_empty() {
            return vec![0];
        }
        self.0.clone().into_bytes()
    }

    /// The lowest key past all inside; to etcd a lone zero byte means that there is none.
    fn end(&self) -> Vec<u8> {
        match self.0.strip_suffix('/') {
            Some(start) => format!("{start}0").into_bytes(),
            None => vec![0],
        }
    }

    /// The key without the prefix, if it is one that a cluster uses.
    fn name(&self, key: &[u8]) -> Option<String> {
        let key = std::str::from_utf8(key).ok()?.strip_prefix(&self.0)?;
        (key == CONFIG || key.starts_with(SUBNETS)).then(|| key.to_owned())
    }

    fn entry(&self, kv: &KeyValue) -> Option<Entry> {
        Some(Entry {
            key: self.name(kv.key())?,
            value: kv.value().to_vec(),
            revision: Revision(kv.mod_revision()),
            expires: kv.lease() != 0,
        })
    }
}
