//! From the device to the peers.
//!
//! A round takes what the device has, as far as there is room for it, and sends it with one call
//! for each sending socket. Nothing is copied: what is sent lies where it was read.

use std::io::IoSlice;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::counters::{Count, PeerCount, Tally};
use super::directory::{Directory, DirectoryReader, Peer};
use super::packet::{Answer, Packet};
use super::socket::{Batch, Bytes, Datagram, Full, Message, Remedy};
use super::split::{Piece, split};
use super::survey::Asker;
use super::tun;
use super::virtio::Header;
use super::worker::{Breakdown, Lane, Plane, Wake, Worker, admit, age, count};

/// The work of the thread that serves the queue of this number.
pub(super) fn work(plane: &Plane, queue: usize) -> Result<(), Breakdown> {
    let worker = Worker::Outbound(queue);
    let lane = &plane.lanes[queue];
    if plane.await_table(worker, lane)? == Wake::Stopped {
        return Ok(());
    }
    let mut directory = DirectoryReader::new(&plane.directory);
    let mut outbound = Outbound {
        plane,
        lane,
        number: plane.number(worker),
        tally: plane.tally(worker),
        hold: Hold::new(plane),
        batch: Batch::new(&lane.socket),
    };
    while !plane.has_ended() {
        plane.beat(worker);
        let directory = directory.latest();
        let end = outbound.collect(directory)?;
        if !outbound.batch.is_empty() {
            outbound.dispatch(directory);
        }
        if end == End::Drained
            && plane.await_input(worker, lane.queue.as_fd(), lane)? == Wake::Stopped
        {
            break;
        }
    }
    Ok(())
}

/// What a worker works with.
struct Outbound<'a> {
    plane: &'a Plane,
    lane: &'a Lane,
    /// This worker's among those that count.
    number: usize,
    tally: &'a Tally,
    hold: Hold,
    batch: Batch<'a>,
}

/// Where packets lie between being read and being sent.
struct Hold {
    /// As read, one after the other.
    arena: Vec<u8>,
    /// The headers of those that were cut out of larger ones.
    heads: Vec<u8>,
    /// What has been made of the latest read.
    pieces: Vec<Piece>,
    /// How much of the arena is in use.
    used: usize,
    /// How much room the next read may need.
    room: usize,
}

/// Why a round takes no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The device has nothing left.
    Drained,
    /// There is enough to be sent first.
    Full,
}

/// Where the pieces of a read go.
struct Way {
    peer: Ipv4Addr,
    flow: usize,
    /// They are longer than the path carries, and may be cut.
    to_be_cut: bool,
}

impl Hold {
    fn new(plane: &Plane) -> Self {
        Self {
            arena: vec![0; ARENA],
            heads: Vec::with_capacity(ARENA / 8),
            pieces: Vec::with_capacity(1024),
            used: 0,
            // A packet that fills its room was longer: reading a TUN device cuts in silence.
            room: match plane.offload {
                true => LONGEST_READ,
                false => plane.longest + 1,
            },
        }
    }

    /// Room for one more packet, if there is enough.
    fn vacant(&mut self) -> Option<&mut [u8]> {
        self.arena.get_mut(self.used..self.used + self.room)
    }
}

impl Outbound<'_> {
    /// Takes packets from the device and keeps those that have a peer.
    fn collect(&mut self, directory: &Directory) -> Result<End, Breakdown> {
        self.hold.used = 0;
        self.hold.heads.clear();
        for _ in 0..READS {
            let Some(buffer) = self.hold.vacant() else {
                break;
            };
            match self.lane.queue.take(buffer) {
                Ok((header, length)) => self.accept(directory, header, length),
                Err(Errno::EAGAIN) => return Ok(End::Drained),
                Err(Errno::EINTR) => {}
                // `EINVAL`: the driver cannot say what the packet is, and drops it (`tun_put_user`).
                Err(Errno::EBADMSG | Errno::EINVAL) => self.tally.add(Count::Malformed, 1),
                Err(source) if tun::is_gone(source) => return Err(self.plane.gone(source)),
                Err(source) => {
                    let device = self.plane.device.clone();
                    return Err(Breakdown::Device { device, source });
                }
            }
        }
        Ok(End::Full)
    }

    /// Adds what was read to the batch, or drops it.
    fn accept(&mut self, directory: &Directory, header: Header, length: usize) {
        let start = self.hold.used;
        let Some(way) = self.prepare(directory, header, start..start + length) else {
            self.hold.pieces.clear();
            return;
        };
        self.hold.used = (start + length).next_multiple_of(LINE);
        for number in 0..self.hold.pieces.len() {
            let Piece { head, body } = &self.hold.pieces[number];
            let datagram = Datagram {
                head: head.clone(),
                body: start + body.start..start + body.end,
            };
            if self.append(&way, datagram.clone()).is_err() {
                self.dispatch(directory);
                // Which leaves the batch empty.
                let _ = self.append(&way, datagram);
            }
        }
        self.hold.pieces.clear();
    }

    fn append(&mut self, way: &Way, datagram: Datagram) -> Result<(), Full> {
        match way.to_be_cut {
            true => self.batch.append_alone(way.peer, way.flow, datagram),
            false => self.batch.append(way.peer, way.flow, datagram),
        }
    }

    /// Cuts what was read into the packets it stands for, all of which go the same way; `None` if
    /// they go nowhere.
    fn prepare(
        &mut self,
        directory: &Directory,
        header: Header,
        read: Range<usize>,
    ) -> Option<Way> {
        if header.segments.is_none() && read.len() > self.plane.longest {
            self.tally.add(Count::TooBig, 1);
            return None;
        }
        let Hold {
            arena,
            heads,
            pieces,
            ..
        } = &mut self.hold;
        let mut packet = admit(self.tally, &mut arena[read.clone()])?;
        let Some(peer) = directory.peer(packet.destination()) else {
            self.tally.add(Count::NoRoute, 1);
            let answer = packet.unreachable();
            self.answer(answer, Count::UnreachableSent);
            return None;
        };
        age(self.tally, &mut packet)?;
        let flow = packet.flow() as usize;
        split(header, packet.into_bytes(), heads, pieces)
            .map_err(|refusal| count(self.tally, refusal))
            .ok()?;
        let longest = pieces.first().map_or(0, Piece::length);
        if longest > self.plane.longest {
            self.tally.add(Count::TooBig, pieces.len() as u64);
            return None;
        }
        let to_be_cut = longest > peer.longest();
        if to_be_cut && self.is_stuck(peer, read) {
            return None;
        }
        Some(Way {
            peer: peer.address,
            flow,
            to_be_cut,
        })
    }

    /// Drops a packet that its path cannot carry, if it may not be cut either, and tells its sender.
    fn is_stuck(&mut self, peer: &Peer, read: Range<usize>) -> bool {
        let Ok(packet) = Packet::parse(&mut self.hold.arena[read]) else {
            return false;
        };
        if !packet.is_indivisible() {
            return false;
        }
        let answer = packet.too_big(peer.longest());
        let packets = self.hold.pieces.len() as u64;
        self.tally.add(Count::TooBigForPath, packets);
        peer.add(self.number, PeerCount::TooBig, packets);
        self.answer(answer, Count::TooBigAnswered);
        true
    }

    fn answer(&self, answer: Option<Answer>, count: Count) {
        let Some(answer) = answer else {
            return;
        };
        let parts = [IoSlice::new(answer.bytes())];
        match self.lane.queue.give(Header::default(), &parts) {
            Ok(()) => self.tally.add(count, 1),
            Err(_) => self.tally.add(Count::DeviceErrors, 1),
        }
    }

    /// Sends the batch, or drops what nobody takes. What the kernel refuses for one peer
    /// (`ECONNREFUSED`, `ENETUNREACH`, `EPERM` of a firewall) holds up no other.
    ///
    /// A full send buffer is waited for, but not for long. A slower network card makes room in that
    /// time. A peer's packets that wait for its neighbour entry do not, for seconds, and all other
    /// peers would wait with them.
    fn dispatch(&mut self, directory: &Directory) {
        let mut patience = PATIENCE;
        loop {
            let bytes = Bytes {
                arena: &self.hold.arena,
                heads: &self.hold.heads,
            };
            let Self {
                plane,
                lane,
                number,
                tally,
                ..
            } = *self;
            let clerk = Clerk {
                plane,
                lane,
                number,
                tally,
                directory,
            };
            let sent = self
                .batch
                .send(bytes, |message, outcome| clerk.enter(message, outcome));
            let Err(blocked) = sent else {
                return;
            };
            let start = Instant::now();
            if patience < SHORTEST_WAIT {
                self.batch.skip(|message| clerk.drop(message));
            } else if plane.await_room(blocked.as_fd(), patience) == Wake::Stopped {
                self.batch.clear();
                return;
            }
            patience = patience.saturating_sub(start.elapsed());
        }
    }
}

/// Enters in the books what has become of messages.
struct Clerk<'a> {
    plane: &'a Plane,
    lane: &'a Lane,
    number: usize,
    tally: &'a Tally,
    directory: &'a Directory,
}

impl Clerk<'_> {
    fn enter(&self, message: &Message, outcome: Result<(), Errno>) -> Remedy {
        let Err(errno) = outcome else {
            let (packets, bytes) = (message.datagrams() as u64, message.bytes() as u64);
            self.tally.add(Count::SentPackets, packets);
            self.tally.add(Count::SentBytes, bytes);
            if let Some(peer) = self.directory.with_address(message.peer()) {
                peer.add(self.number, PeerCount::SentPackets, packets);
                peer.add(self.number, PeerCount::SentBytes, bytes);
            }
            return Remedy::Drop;
        };
        // A run that is too long for its path gets `EMSGSIZE`, and from older kernels `EINVAL`, which
        // may also mean that they cannot cut it (net/ipv4/udp.c, `udp_send_skb`).
        let about_runs = [Errno::EIO, Errno::EINVAL, Errno::EMSGSIZE].contains(&errno);
        if message.datagrams() > 1 && about_runs {
            let is_narrow = errno != Errno::EIO && self.is_narrow(message);
            if errno != Errno::EMSGSIZE && !is_narrow {
                self.give_up_runs(errno);
            }
            return Remedy::Divide;
        }
        if errno == Errno::EAGAIN {
            self.drop(message);
        } else if errno == Errno::EMSGSIZE {
            self.lose(message, Count::TooBig, PeerCount::TooBig);
        } else {
            self.lose(message, Count::SendErrors, PeerCount::SendErrors);
        }
        Remedy::Drop
    }

    /// For want of room.
    fn drop(&self, message: &Message) {
        self.lose(message, Count::BufferFull, PeerCount::SendErrors);
    }

    fn lose(&self, message: &Message, count: Count, peer_count: PeerCount) {
        let packets = message.datagrams() as u64;
        self.tally.add(count, packets);
        if let Some(peer) = self.directory.with_address(message.peer()) {
            peer.add(self.number, peer_count, packets);
        }
    }

    /// Whether the path to the peer carries no datagrams of that length in one piece: the kernel
    /// cuts single ones into fragments, but none of a run. If so the next ones need not try.
    fn is_narrow(&self, message: &Message) -> bool {
        let asker = Asker::new(self.plane.bind);
        let Ok(longest) = asker.and_then(|asker| asker.longest(message.peer())) else {
            return true;
        };
        if let Some(peer) = self.directory.with_address(message.peer()) {
            peer.set_longest(longest);
        }
        longest < message.size()
    }

    fn give_up_runs(&self, errno: Errno) {
        if self.lane.socket.give_up_segments() {
            tracing::warn!(
                "the kernel refuses to cut what is sent to peers ({errno}): the udp data plane \
                 sends each packet by itself from now on"
            );
        }
    }
}

/// How much a round reads at most, in bytes: some super-packets, so that the first is on its way
/// while the next are being made.
const ARENA: usize = 256 << 10;
/// How often a round reads at most.
const READS: usize = 64;
/// The longest that a device with offloads gives, and a byte more.
const LONGEST_READ: usize = (1 << 16) + 1;
/// Packets begin at cache lines of their own.
const LINE: usize = 64;
/// How long a round waits for room in send buffers: time enough for a card of 1 Gbit/s to send
/// 2.5 MB, many times a round.
const PATIENCE: Duration = Duration::from_millis(20);
/// Waits are counted in milliseconds.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);
