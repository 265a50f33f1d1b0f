//! Which peer a destination lies behind.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::Ipv4Net;

/// Peers by destination network; of nested networks the longest prefix wins.
///
/// Two tables are equal if they send every address to the same peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Ascending; each range ends where the next starts, the last at the end of the address space.
    ranges: Vec<Range>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    first: u32,
    peer: Option<Ipv4Addr>,
}

impl Table {
    /// A table of destinations and the public addresses of the peers that have them.
    /// Host bits of a destination are ignored. If one occurs twice, its last peer counts.
    pub fn new(routes: impl IntoIterator<Item = (Ipv4Net, Ipv4Addr)>) -> Self {
        let mut networks: Vec<_> = routes
            .into_iter()
            .map(|(destination, peer)| (destination.trunc(), peer))
            .collect();
        // Stable, so that among equals the last one given is laid down last.
        networks.sort_by_key(|(destination, _)| (destination.network(), destination.prefix_len()));
        let mut sweep = Sweep::default();
        for (destination, peer) in networks {
            sweep.enter(destination, peer);
        }
        sweep.leave_all();
        Self {
            ranges: sweep.ranges,
        }
    }

    /// The public address of the peer that has `destination`; takes logarithmic time.
    #[must_use]
    pub fn peer(&self, destination: Ipv4Addr) -> Option<Ipv4Addr> {
        let after = self
            .ranges
            .partition_point(|range| range.first <= destination.to_bits());
        self.ranges.get(after.checked_sub(1)?)?.peer
    }
}

/// Walks up the address space through networks that are sorted by address, then by size, and
/// writes down where the peer changes. Networks nest or are disjoint, so a stack will do.
#[derive(Default)]
struct Sweep {
    ranges: Vec<Range>,
    /// The networks around the present address, each inside the one before.
    around: Vec<(Ipv4Net, Ipv4Addr)>,
}

impl Sweep {
    fn enter(&mut self, network: Ipv4Net, peer: Ipv4Addr) {
        while let Some((around, _)) = self.around.last()
            && around.broadcast() < network.network()
        {
            self.leave();
        }
        self.change(network.network().to_bits(), Some(peer));
        self.around.push((network, peer));
    }

    fn leave_all(&mut self) {
        while !self.around.is_empty() {
            self.leave();
        }
    }

    fn leave(&mut self) {
        let left = self.around.pop();
        let next = left.and_then(|(network, _)| network.broadcast().to_bits().checked_add(1));
        if let Some(next) = next {
            self.change(next, self.around.last().map(|&(_, peer)| peer));
        }
    }

    fn change(&mut self, first: u32, peer: Option<Ipv4Addr>) {
        if self.ranges.last().is_some_and(|last| last.first == first) {
            self.ranges.pop();
        }
        if self.ranges.last().and_then(|last| last.peer) != peer {
            self.ranges.push(Range { first, peer });
        }
    }
}

/// The table in use, replaced as a whole while workers read it.
#[derive(Debug, Default)]
pub(super) struct CurrentTable {
    table: Mutex<Arc<Table>>,
    /// Counts replacements, so that a worker takes the lock only when there was one.
    epoch: AtomicU64,
}

impl CurrentTable {
    pub(super) fn replace(&self, table: Table) {
        let mut current = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(table);
        self.epoch.fetch_add(1, Ordering::Release);
    }

    fn load(&self) -> Arc<Table> {
        Arc::clone(&self.table.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One worker's hold on the [`CurrentTable`].
#[derive(Debug)]
pub(super) struct TableReader<'a> {
    current: &'a CurrentTable,
    table: Arc<Table>,
    epoch: u64,
}

impl<'a> TableReader<'a> {
    pub(super) fn new(current: &'a CurrentTable) -> Self {
        // The epoch is read first: a replacement in between is then seen again, never missed.
        let epoch = current.epoch.load(Ordering::Acquire);
        Self {
            current,
            table: current.load(),
            epoch,
        }
    }

    /// The table as it is now.
    pub(super) fn latest(&mut self) -> &Table {
        let epoch = self.current.epoch.load(Ordering::Acquire);
        if epoch != self.epoch {
            self.table = self.current.load();
            self.epoch = epoch;
        }
        &self.table
    }
}

#[cfg(test)]
mod tests;
