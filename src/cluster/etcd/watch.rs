//! A watch that says so when it is dead.
//!
//! It never resumes by itself. It ends with the connection (HTTP/2 PINGs find a frozen server
//! within 8 s), with the leader, and with a progress request that goes unanswered.

use std::time::Duration;

use etcd_client::{Client, Error, WatchOptions, WatchResponse, WatchStream};
use tokio::time::{Instant, timeout, timeout_at};

use super::call::Members;
use super::failure::{Cause, Failure};
use super::{Folder, LARGEST_ANSWER};
use crate::cluster::datastore::{Event, Revision, StoreError, Watch, WatchError};

/// What is being done, in messages.
pub(super) const DOING: &str = "watching the leases";
/// After so long without a word we ask whether the server lives.
const QUIET: Duration = Duration::from_secs(20);
/// How long it has to answer. Before 3.4.25 and 3.5.8 the answer's revision may be ahead of
/// changes not yet sent (etcd#15220): it proves life and is not used for anything else.
const ANSWER: Duration = Duration::from_secs(5);

/// A running watch on etcd.
pub struct EtcdWatch {
    stream: WatchStream,
    /// Keeps the connection that carries the stream.
    _client: Client,
    endpoint: String,
    folder: Folder,
    revision: Revision,
    /// When the server last said something.
    heard: Instant,
    /// When we asked whether it lives.
    asked: Option<Instant>,
    ended: Option<WatchError>,
}

/// Opens a watch on all changes after `revision`; `cluster` is the id of the cluster that the
/// revision belongs to.
pub(super) async fn open(
    members: &Members,
    folder: Folder,
    revision: Revision,
    cluster: Option<u64>,
) -> Result<EtcdWatch, Failure> {
    let options = WatchOptions::new()
        .with_range(folder.end())
        .with_start_revision(revision.0.saturating_add(1).max(1))
        .with_progress_notify()
        .with_fragment();
    let answer = members.call(|client| create(client, folder.first(), options.clone()));
    let answer = answer.await?;
    let (stream, created) = answer.value;
    let mut watch = EtcdWatch {
        stream,
        _client: answer.client,
        endpoint: answer.endpoint,
        folder,
        revision,
        heard: Instant::now(),
        asked: None,
        ended: None,
    };
    watch.ended = watch
        .end_of(&created)
        .map_err(|failure| failure.at(&watch.endpoint))?;
    // A server behind our revision, or another cluster, was set up anew or restored: its watch
    // would be silent until it has caught up, and leave out what it did differently.
    let header = created.header();
    let behind = header.is_some_and(|header| header.revision() < revision.0);
    let other = header.is_some_and(|header| cluster.is_some_and(|id| id != header.cluster_id()));
    if behind || other {
        watch.ended = Some(WatchError::Compacted(revision));
    }
    Ok(watch)
}

/// Sends the request and waits until the server has taken it.
async fn create(
    client: Client,
    first: Vec<u8>,
    options: WatchOptions,
) -> Result<(WatchStream, WatchResponse), Error> {
    let mut again = true;
    loop {
        let mut watches = client
            .watch_client()
            .max_decoding_message_size(LARGEST_ANSWER);
        let mut stream = watches.watch(first.clone(), Some(options.clone())).await?;
        let created = stream.message().await?;
        let created = created.ok_or_else(|| Error::WatchError("the watch was closed".into()))?;
        // The library renews a session only where the error comes as a status.
        if again && created.canceled() && blames_session(created.cancel_reason()) {
            again = false;
            client.refresh_token().await?;
            continue;
        }
        return Ok((stream, created));
    }
}

/// Whether a new login may help: etcd calls a session that it has forgotten "permission denied"
/// (after a restart), "invalid auth token" (past its TTL) or old (after a change of users).
fn blames_session(reason: &str) -> bool {
    [
        "permission denied",
        "invalid auth token",
        "auth store is old",
    ]
    .iter()
    .any(|part| reason.contains(part))
}

impl EtcdWatch {
    async fn receive(&mut self) -> Result<Vec<Event>, WatchError> {
        loop {
            let deadline = match self.asked {
                Some(asked) => asked + ANSWER,
                None => self.heard + QUIET,
            };
            match timeout_at(deadline, self.stream.message()).await {
                Ok(Ok(Some(message))) => {
                    self.heard = Instant::now();
                    self.asked = None;
                    return self.read(&message);
                }
                Ok(Ok(None)) => return Err(self.dead("it closed the watch")),
                Ok(Err(error)) => return Err(self.failed(Failure::from(&error))),
                Err(_) if self.asked.is_some() => {
                    return Err(self.failed(Failure::no_answer(ANSWER)));
                }
                Err(_) => {
                    self.asked = Some(Instant::now());
                    match timeout(ANSWER, self.stream.request_progress()).await {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) => return Err(self.dead("it closed the watch")),
                        Err(_) => return Err(self.failed(Failure::no_answer(ANSWER))),
                    }
                }
            }
        }
    }

    fn read(&self, message: &WatchResponse) -> Result<Vec<Event>, WatchError> {
        match self.end_of(message) {
            Ok(None) => {}
            Ok(Some(end)) => return Err(end),
            Err(failure) => return Err(self.failed(failure)),
        }
        let mut events = Vec::new();
        for event in message.events() {
            let Some(kv) = event.kv() else {
                let doing = DOING.to_owned();
                let reason = format!("etcd at {}: a change without a key", self.endpoint);
                return Err(StoreError::Corrupt { doing, reason }.into());
            };
            let Some(key) = self.folder.name(kv.key()) else {
                continue;
            };
            // Not the event's type: the library panics on one it does not know. Only a deleted
            // key has no version.
            let revision = Revision(kv.mod_revision());
            match self.folder.entry(kv).filter(|_| kv.version() != 0) {
                Some(entry) => events.push(Event::Put(entry)),
                None => events.push(Event::Deleted { key, revision }),
            }
        }
        Ok(events)
    }

    /// Whether a message says that no more will come. The stream itself stays open then.
    fn end_of(&self, message: &WatchResponse) -> Result<Option<WatchError>, Failure> {
        let reason = message.cancel_reason();
        if message.compact_revision() != 0 || reason.contains("compacted") {
            return Ok(Some(WatchError::Compacted(self.revision)));
        }
        if !message.canceled() {
            return Ok(None);
        }
        if reason.contains("permission denied") {
            let reason = "permission denied: the user may not read the prefix".to_owned();
            return Err(Failure::new(Cause::Refused, reason));
        }
        let reason = format!("it ended the watch: {}", super::failure::line(reason));
        Err(Failure::new(Cause::Unreachable, reason))
    }

    fn dead(&self, reason: &str) -> WatchError {
        self.failed(Failure::new(Cause::Unreachable, reason.to_owned()))
    }

    fn failed(&self, failure: Failure) -> WatchError {
        if failure.cause == Cause::Compacted {
            return WatchError::Compacted(self.revision);
        }
        failure.at(&self.endpoint).while_doing(DOING).into()
    }
}

impl Watch for EtcdWatch {
    async fn next(&mut self) -> Result<Vec<Event>, WatchError> {
        if let Some(end) = &self.ended {
            return Err(end.clone());
        }
        let result = self.receive().await;
        if let Err(end) = &result {
            self.ended = Some(end.clone());
        }
        result
    }
}
