//! The peers as the workers look them up: whom a packet goes to or came from, what was moved for
//! each, and how much its path carries.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::counters::{PeerCount, PeerCounters, PeerTally};
use super::table::Table;

/// A [`Table`] made for reading: a trie that takes a byte of the address at each step, so that a
/// lookup follows at most four references, however many peers there are.
///
/// A page of it is 1 KiB. A network needs one for each of the blocks of /8, /16 and /24 that hold
/// it and more, and shares them with whoever else lies there: beside the root at most 3 KiB each.
/// 5,000 neighbouring /24 take 22 KiB in all; strewn over a /8 they take 256 KiB, and 5,000 /30
/// that are strewn so take 5 MiB.
#[derive(Debug, Default)]
pub(super) struct Directory {
    /// The first is the root; only the first directory of all has none.
    pages: Vec<Page>,
    /// By address, ascending.
    peers: Vec<Arc<Peer>>,
}

/// What comes next for each value of a byte: [`NOBODY`], another page (`PAGE` and its index), or
/// a peer (its index and 1).
type Page = [u32; 256];

const NOBODY: u32 = 0;
const PAGE: u32 = 1 << 31;

impl Directory {
    /// The peers of `table`, of which those that are in `former` stay what they are.
    fn new(table: &Table, former: &Self, workers: usize) -> Self {
        let mut peers: BTreeMap<Ipv4Addr, Arc<Peer>> = BTreeMap::new();
        for (_, address) in table.ranges() {
            peers.entry(address).or_insert_with(|| {
                former
                    .with_address(address)
                    .map_or_else(|| Arc::new(Peer::new(address, workers)), Arc::clone)
            });
        }
        let mut directory = Self {
            pages: vec![[NOBODY; 256]],
            peers: peers.into_values().collect(),
        };
        for (range, address) in table.ranges() {
            let index = directory
                .index(address)
                .and_then(|at| u32::try_from(at).ok());
            let entry = index
                .map(|index| index + 1)
                .filter(|entry| entry & PAGE == 0);
            directory.lay(range, entry.unwrap_or(NOBODY));
        }
        directory
    }

    /// Whether it comes of no table yet.
    pub(super) const fn is_unwritten(&self) -> bool {
        self.pages.is_empty()
    }

    /// The peer that has `destination`.
    pub(super) fn peer(&self, destination: Ipv4Addr) -> Option<&Peer> {
        let mut entry = PAGE;
        for byte in destination.octets() {
            entry = self.pages.get((entry & !PAGE) as usize)?[usize::from(byte)];
            if entry & PAGE == 0 {
                break;
            }
        }
        let index = (entry as usize).checked_sub(1)?;
        self.peers.get(index).map(AsRef::as_ref)
    }

    /// All peers by public address, ascending.
    pub(super) fn peers(&self) -> &[Arc<Peer>] {
        &self.peers
    }

    /// The peer that has this public address; takes logarithmic time.
    pub(super) fn with_address(&self, address: Ipv4Addr) -> Option<&Arc<Peer>> {
        self.peers.get(self.index(address)?)
    }

    fn index(&self, address: Ipv4Addr) -> Option<usize> {
        let by_address = |peer: &Arc<Peer>| peer.address;
        self.peers.binary_search_by_key(&address, by_address).ok()
    }

    /// Cuts a range into the largest blocks that an entry can stand for.
    fn lay(&mut self, range: RangeInclusive<u32>, entry: u32) {
        let (mut first, last) = range.into_inner();
        loop {
            let rest = |shift: u32| (1_u32 << shift) - 1;
            let fits = |shift: &u32| first & rest(*shift) == 0 && first | rest(*shift) <= last;
            let shift = [24, 16, 8].into_iter().find(fits).unwrap_or(0);
            self.set(first, shift, entry);
            match (first | rest(shift)).checked_add(1) {
                Some(next) if next <= last => first = next,
                Some(_) | None => return,
            }
        }
    }

    /// Sets the entry of the block of 2^`shift` addresses from `first` on.
    fn set(&mut self, first: u32, shift: u32, entry: u32) {
        let mut page = 0;
        for step in [24, 16, 8].into_iter().take_while(|step| *step > shift) {
            let next = self.pages[page][byte(first, step)];
            page = if next & PAGE == 0 {
                let new = self.pages.len();
                self.pages.push([next; 256]);
                // There are at most 2^24 + 2^16 + 2^8 + 1 pages: as many as blocks.
                self.pages[page][byte(first, step)] = PAGE | u32::try_from(new).unwrap_or(0);
                new
            } else {
                (next & !PAGE) as usize
            };
        }
        self.pages[page][byte(first, shift)] = entry;
    }
}

/// The byte of an address that starts at bit `shift`.
fn byte(address: u32, shift: u32) -> usize {
    usize::from(address.to_be_bytes()[3 - shift as usize / 8])
}

/// A peer while it is one. It outlives the tables that name its public address in succession;
/// one that leaves and comes back begins anew, at zero and with a path yet unknown.
///
/// Takes about 600 bytes with eight workers: 3 MiB for 5,000 peers.
#[derive(Debug)]
pub(super) struct Peer {
    /// Its public address.
    pub(super) address: Ipv4Addr,
    longest: AtomicUsize,
    /// One for each worker.
    tallies: Box<[PeerTally]>,
}

impl Peer {
    fn new(address: Ipv4Addr, workers: usize) -> Self {
        Self {
            address,
            longest: AtomicUsize::new(usize::MAX),
            tallies: (0..workers).map(|_| PeerTally::default()).collect(),
        }
    }

    /// The longest inner packet, in bytes, that its path carries in one piece; `usize::MAX` while
    /// that is unknown.
    pub(super) fn longest(&self) -> usize {
        self.longest.load(Ordering::Relaxed)
    }

    /// Sets what [`Peer::longest`] tells, for all workers, some time soon.
    pub(super) fn set_longest(&self, bytes: usize) {
        self.longest.store(bytes, Ordering::Relaxed);
    }

    /// Counts for the worker of this number, which is the only one to use it.
    pub(super) fn add(&self, worker: usize, count: PeerCount, amount: u64) {
        if let Some(tally) = self.tallies.get(worker) {
            tally.add(count, amount);
        }
    }

    /// What all workers have counted.
    pub(super) fn counters(&self) -> PeerCounters {
        PeerCounters::sum(&self.tallies)
    }
}

/// The directory in use, replaced as a whole while workers read it.
#[derive(Debug)]
pub(super) struct CurrentDirectory {
    directory: Mutex<Arc<Directory>>,
    /// Counts replacements, so that a worker takes the lock only when there was one.
    epoch: AtomicU64,
    /// Held while the next one is made of the present one, for which no worker has to wait.
    succession: Mutex<()>,
    workers: usize,
}

impl CurrentDirectory {
    /// A directory of nobody, for workers of the numbers 0 to `workers` - 1.
    pub(super) fn new(workers: usize) -> Self {
        Self {
            directory: Mutex::default(),
            epoch: AtomicU64::new(0),
            succession: Mutex::new(()),
            workers,
        }
    }

    pub(super) fn replace(&self, table: &Table) {
        let _heir = self
            .succession
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let next = Directory::new(table, &self.load(), self.workers);
        let mut current = self
            .directory
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(next);
        self.epoch.fetch_add(1, Ordering::Release);
    }

    /// The directory as it is now.
    pub(super) fn load(&self) -> Arc<Directory> {
        Arc::clone(
            &self
                .directory
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}

/// One worker's hold on the [`CurrentDirectory`].
#[derive(Debug)]
pub(super) struct DirectoryReader<'a> {
    current: &'a CurrentDirectory,
    directory: Arc<Directory>,
    epoch: u64,
}

impl<'a> DirectoryReader<'a> {
    pub(super) fn new(current: &'a CurrentDirectory) -> Self {
        // The epoch is read first: a replacement in between is then seen again, never missed.
        let epoch = current.epoch.load(Ordering::Acquire);
        Self {
            current,
            directory: current.load(),
            epoch,
        }
    }

    /// The directory as it is now.
    pub(super) fn latest(&mut self) -> &Directory {
        let epoch = self.current.epoch.load(Ordering::Acquire);
        if epoch != self.epoch {
            self.directory = self.current.load();
            self.epoch = epoch;
        }
        &self.directory
    }
}

#[cfg(test)]
mod tests;
