//! Whether packets come from whom they say.

use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;

use super::directory::Directory;

/// What is asked of the origin of packets, by all workers alike.
#[derive(Debug)]
pub(super) struct Origins {
    /// The addresses that belong to somebody: the network's first address, then its mask. One
    /// number, so that no worker ever sees half of a change.
    network: AtomicU64,
    /// When somebody was last reported.
    told: Mutex<Option<Instant>>,
}

impl Origins {
    /// Of `network` only those take part who are known; of anything else anybody.
    pub(super) fn new(network: Option<Ipv4Net>) -> Self {
        Self {
            network: AtomicU64::new(packed(network)),
            told: Mutex::default(),
        }
    }

    /// Asks something else from the next batch on.
    pub(super) fn ask(&self, network: Option<Ipv4Net>) {
        self.network.store(packed(network), Ordering::Relaxed);
    }

    /// The judge of a batch's packets.
    pub(super) fn inspect<'a>(&self, directory: &'a Directory) -> Inspection<'a> {
        let [first, mask] = halves(self.network.load(Ordering::Relaxed));
        Inspection {
            first,
            mask,
            directory,
            last: None,
            forged: None,
        }
    }

    /// Says now and then in the journal that somebody forges.
    pub(super) fn tell(&self, inspection: &Inspection<'_>) {
        let Some((from, source)) = inspection.forged else {
            return;
        };
        // whoever holds it tells
        let Ok(mut told) = self.told.try_lock() else {
            return;
        };
        if told.is_some_and(|told| told.elapsed() < SILENCE) {
            return;
        }
        *told = Some(Instant::now());
        drop(told);
        tracing::warn!(
            %from,
            %source,
            "dropped a packet from {from} with the source {source}, which is not of that peer's \
             subnet: is an address forged there, or do its packets leave from another address than \
             its public IP? 'flannel-rs status' counts them; silent about more for {} s",
            SILENCE.as_secs()
        );
    }
}

/// Judges the packets of one batch.
///
/// Neighbours in a batch most often come from the same host and the same container, so the last
/// answer is kept, and the next one costs a comparison.
pub(super) struct Inspection<'a> {
    first: u32,
    mask: u32,
    directory: &'a Directory,
    last: Option<(Ipv4Addr, Ipv4Addr)>,
    forged: Option<(Ipv4Addr, Ipv4Addr)>,
}

impl Inspection<'_> {
    /// Whether a packet with this source may come from the host with this address.
    ///
    /// Before the first table nothing is known of anybody and all may come: that is a moment after
    /// a restart, in which no packet is to be lost. In a table the own subnet is nobody's, so that
    /// whoever claims it is turned away.
    #[inline]
    pub(super) fn admits(&mut self, from: Ipv4Addr, source: Ipv4Addr) -> bool {
        if source.to_bits() & self.mask != self.first || self.last == Some((from, source)) {
            return true;
        }
        let peer = self.directory.peer(source);
        let admits = peer.is_some_and(|peer| peer.address == from) || self.directory.is_unwritten();
        if admits {
            self.last = Some((from, source));
        } else {
            self.forged = Some((from, source));
        }
        admits
    }
}

fn packed(network: Option<Ipv4Net>) -> u64 {
    let [first, mask] = match network {
        Some(network) => [network.network().to_bits(), network.netmask().to_bits()],
        // no address is 1 without all of its bits
        None => [1, 0],
    };
    u64::from(first) << 32 | u64::from(mask)
}

fn halves(packed: u64) -> [u32; 2] {
    [packed >> 32, packed & u64::from(u32::MAX)].map(|half| u32::try_from(half).unwrap_or_default())
}

/// At least this long from one line to the next.
const SILENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
