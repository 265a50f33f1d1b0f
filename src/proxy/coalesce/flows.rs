//! The flows whose last train may still grow.

use std::ops::Range;

use super::LONGEST_TRAIN;
use super::segment::{Hosts, Identity, Segment};

/// A flow whose last train may still grow.
#[derive(Debug, Clone)]
pub(super) struct Flow {
    /// The place of its train: the lower the older.
    pub(super) train: usize,
    /// Where the first packet of the train lies.
    pub(super) at: Range<usize>,
    /// That packet.
    pub(super) segment: Segment,
    /// How many packets the train has.
    pub(super) packets: usize,
    /// The length of the train, in bytes.
    length: usize,
    /// The next sequence number.
    sequence: u32,
    /// The next identification.
    id: Option<u16>,
    /// The train has a packet that has to be the last.
    ended: bool,
}

impl Flow {
    /// One whose train has a single packet, which lies at `at`.
    pub(super) fn new(train: usize, at: Range<usize>, segment: Segment) -> Self {
        let mut flow = Self {
            train,
            length: segment.headers(),
            at,
            packets: 0,
            sequence: 0,
            id: segment.id,
            ended: false,
            segment,
        };
        flow.advance(&segment);
        flow
    }

    /// Whether cutting a train that goes on with `packet`, which is `segment`, would give it back;
    /// its checksums aside. `first` is the first packet of the train.
    pub(super) fn continues_with(&self, segment: &Segment, first: &[u8], packet: &[u8]) -> bool {
        segment.copied == self.segment.copied
            && segment.sequence[0] == self.sequence
            && segment.id == self.id
            && segment.payload <= self.segment.payload
            && self.length + segment.payload <= usize::from(u16::MAX)
            && segment.has_options(first, packet)
    }

    /// Takes note that `segment` has joined.
    pub(super) fn advance(&mut self, segment: &Segment) {
        self.packets += 1;
        self.length += segment.payload;
        self.sequence = segment.sequence[1];
        self.id = self.id.map(|id| id.wrapping_add(1));
        self.ended = segment.last || segment.payload < self.segment.payload;
    }

    /// Whether nothing can join any more.
    pub(super) fn is_complete(&self) -> bool {
        self.ended || self.packets == LONGEST_TRAIN
    }
}

/// Flows in sets by their hash, so that few have to be looked at to find one.
#[derive(Debug)]
pub(super) struct Flows {
    /// Each with room for [`WAYS`].
    sets: [Vec<Flow>; SETS],
}

impl Flows {
    pub(super) fn new() -> Self {
        Self {
            sets: std::array::from_fn(|_| Vec::with_capacity(WAYS)),
        }
    }

    pub(super) fn find(&mut self, identity: Identity) -> Option<&mut Flow> {
        let set = &mut self.sets[identity.set()];
        set.iter_mut()
            .find(|flow| flow.segment.identity == identity)
    }

    /// Adds a flow, or has it begin anew. Where there is no room the oldest of the set closes.
    pub(super) fn open(&mut self, flow: Flow) {
        let identity = flow.segment.identity;
        self.close(identity);
        let set = &mut self.sets[identity.set()];
        if set.len() < WAYS {
            set.push(flow);
        } else if let Some(oldest) = set.iter_mut().min_by_key(|other| other.train) {
            *oldest = flow;
        }
    }

    pub(super) fn close(&mut self, identity: Identity) {
        let set = &mut self.sets[identity.set()];
        if let Some(at) = set
            .iter()
            .position(|flow| flow.segment.identity == identity)
        {
            set.swap_remove(at);
        }
    }

    /// Closes every flow between two hosts.
    pub(super) fn close_all(&mut self, hosts: Hosts) {
        for set in &mut self.sets {
            set.retain(|flow| flow.segment.identity.hosts != hosts);
        }
    }

    pub(super) fn clear(&mut self) {
        for set in &mut self.sets {
            set.clear();
        }
    }
}

impl Identity {
    /// The index of its set, in which all its bits have a part: both halves of a product.
    fn set(&self) -> usize {
        let hosts = u64::from_ne_bytes(self.hosts.addresses) ^ HOSTS;
        let ports = u64::from(u32::from_ne_bytes(self.ports)) << 8 | u64::from(self.hosts.protocol);
        let product = u128::from(hosts) * u128::from(ports ^ PORTS);
        let [mixed, ..] = (product ^ (product >> 64)).to_le_bytes();
        usize::from(mixed) % SETS
    }
}

/// At most `SETS * WAYS` flows are open at once.
const SETS: usize = 16;
const WAYS: usize = 8;
/// Numbers without a pattern: fractions of pi.
const HOSTS: u64 = 0x243f_6a88_85a3_08d3;
const PORTS: u64 = 0x1319_8a2e_0370_7344;
