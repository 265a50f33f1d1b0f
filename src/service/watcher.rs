//! The duty to know the cluster: lists, watches, and starts again whenever the watch ends.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout_at};

use crate::cluster::datastore::{Datastore, Event, Snapshot, StoreError, Watch, WatchError};

/// A list now and then catches what a watch may have missed.
const RELIST: Duration = Duration::from_secs(300);
const BACKOFF: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

/// What the watcher saw.
#[derive(Debug)]
pub(super) enum Sighting {
    /// A whole list.
    Snapshot(Snapshot),
    /// Changes since.
    Events(Vec<Event>),
    /// The datastore cannot be read; it is tried again.
    Lost(StoreError),
}

/// Reports until nobody listens. `relist` asks for a whole list now.
pub(super) async fn watch<D: Datastore>(
    store: Arc<D>,
    relist: Arc<Notify>,
    sightings: mpsc::Sender<Sighting>,
) {
    let mut backoff = BACKOFF[0];
    loop {
        match round(&*store, &relist, &sightings, &mut backoff).await {
            Ok(()) => return,
            Err(WatchError::Compacted(revision)) => {
                tracing::debug!(%revision, "listing again");
            }
            Err(WatchError::Store(error)) => {
                if sightings.send(Sighting::Lost(error)).await.is_err() {
                    return;
                }
            }
        }
        // jitter, so that a cluster does not come back as one
        let spread = rand::rng().random_range(0.5..1.0);
        sleep(backoff.mul_f64(spread)).await;
        backoff = (backoff * 2).min(BACKOFF[1]);
    }
}

/// One list and the watch that follows it. `Ok` means that nobody listens any more.
async fn round<D: Datastore>(
    store: &D,
    relist: &Notify,
    sightings: &mpsc::Sender<Sighting>,
    backoff: &mut Duration,
) -> Result<(), WatchError> {
    let listed = Instant::now();
    let snapshot = store.list().await?;
    let revision = snapshot.revision;
    // a list without a watch to follow it would pass for a datastore that is well
    let mut watch = store.watch(revision).await?;
    if sightings.send(Sighting::Snapshot(snapshot)).await.is_err() {
        return Ok(());
    }
    // jitter here too: after a restart of the datastore all nodes have listed at once
    let relist_at = listed + RELIST.mul_f64(rand::rng().random_range(0.8..1.2));
    loop {
        let events = tokio::select! {
            events = timeout_at(relist_at, watch.next()) => events,
            () = relist.notified() => return Err(WatchError::Compacted(revision)),
            () = sightings.closed() => return Ok(()),
        };
        let Ok(events) = events else {
            return Err(WatchError::Compacted(revision));
        };
        let events = events?;
        *backoff = BACKOFF[0];
        if sightings.send(Sighting::Events(events)).await.is_err() {
            return Ok(());
        }
    }
}
