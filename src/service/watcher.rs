//! The duty to know the cluster: lists, watches, and starts again whenever the watch ends.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout_at};

use super::duty::{Backoff, Duty, Post, Pulse};
use super::machine::Machine;
use crate::cluster::datastore::{Datastore, Event, Snapshot, StoreError, Watch, WatchError};

/// A list now and then catches what a watch may have missed.
const RELIST: Duration = Duration::from_secs(300);
/// A fault that ends is to be over within five seconds: the longest pause and the time limit of
/// one call go into that.
const BACKOFF: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];

/// What the watcher saw.
#[derive(Debug)]
pub(super) enum Sighting {
    /// A whole list.
    Snapshot(Snapshot),
    /// Changes since; none is a sign of life of the datastore.
    Events(Vec<Event>),
    /// The datastore cannot be read; it is tried again.
    Lost(StoreError),
}

/// What a watcher works with.
struct Watcher<D> {
    store: Arc<D>,
    /// Asks for a whole list now.
    relist: Arc<Notify>,
    sightings: mpsc::Sender<Sighting>,
    pulse: Pulse,
    dice: StdRng,
}

/// The duty to know the cluster, with this store.
pub(super) fn post<M: Machine, D: Datastore>(
    machine: &M,
    store: &Arc<D>,
    relist: &Arc<Notify>,
    sightings: mpsc::Sender<Sighting>,
) -> Post {
    let dice = machine.dice();
    let (machine, store, relist) = (machine.clone(), store.clone(), relist.clone());
    let work = move |pulse| -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let watcher = Watcher {
            store: store.clone(),
            relist: relist.clone(),
            sightings: sightings.clone(),
            pulse,
            dice: machine.dice(),
        };
        Box::pin(watcher.run())
    };
    Post::new(Duty::Watch, Box::new(work), dice)
}

impl<D: Datastore> Watcher<D> {
    /// Reports until nobody listens.
    async fn run(mut self) {
        let mut backoff = Backoff::new(BACKOFF[0], BACKOFF[1], StdRng::from_rng(&mut self.dice));
        loop {
            match self.round(&mut backoff).await {
                Ok(()) => return,
                Err(WatchError::Compacted(revision)) => {
                    tracing::debug!(%revision, "listing again");
                }
                Err(WatchError::Store(error)) => {
                    if !self.tell(Sighting::Lost(error)).await {
                        return;
                    }
                }
            }
            sleep(backoff.pause()).await;
        }
    }

    /// One list and the watch that follows it. `Ok` means that nobody listens any more.
    async fn round(&mut self, backoff: &mut Backoff) -> Result<(), WatchError> {
        let listed = Instant::now();
        let snapshot = self.store.list().await?;
        let revision = snapshot.revision;
        // a list without a watch to follow it would pass for a datastore that is well
        self.pulse.beat();
        let mut watch = self.store.watch(revision).await?;
        if !self.tell(Sighting::Snapshot(snapshot)).await {
            return Ok(());
        }
        // jitter here too: after a restart of the datastore all nodes have listed at once
        let relist_at = listed + RELIST.mul_f64(self.dice.random_range(0.8..1.2));
        loop {
            let events = tokio::select! {
                biased;
                () = self.sightings.closed() => return Ok(()),
                () = self.relist.notified() => return Err(WatchError::Compacted(revision)),
                events = timeout_at(relist_at, watch.next()) => events,
            };
            let Ok(events) = events else {
                return Err(WatchError::Compacted(revision));
            };
            let events = events?;
            backoff.reset();
            if !self.tell(Sighting::Events(events)).await {
                return Ok(());
            }
        }
    }

    /// Says whether somebody listens.
    async fn tell(&self, sighting: Sighting) -> bool {
        self.pulse.beat();
        self.sightings.send(sighting).await.is_ok()
    }
}
