//! Which peer a destination lies behind.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

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

    /// The addresses that have a peer: ascending, disjoint, and never two neighbours of one peer.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (RangeInclusive<u32>, Ipv4Addr)> {
        let next = self.ranges.iter().skip(1).map(|range| range.first - 1);
        let last = next.chain([u32::MAX]);
        self.ranges
            .iter()
            .zip(last)
            .filter_map(|(range, last)| Some((range.first..=last, range.peer?)))
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

#[cfg(test)]
mod tests;
