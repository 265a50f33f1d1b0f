//! The two threads: from the device to the peers, and from the peers to the device.
//!
//! Each waits for its source, takes at most a batch and passes it on. Whatever befalls one packet
//! is counted and the rest goes on; only the loss of the device or the socket ends a worker, and
//! with it the other. A worker that stops without ending is told by its [`Beats`].

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::counters::{Count, Counters, Tally};
use super::packet::{Packet, Refusal};
use super::pulse::Beats;
use super::socket::{BATCH, Incoming, Outgoing, Socket};
use super::table::{CurrentTable, Table, TableReader};
use super::tun::{self, Tun};
use super::{ProxyError, Settings};

/// What the workers share.
#[derive(Debug)]
pub(super) struct Plane {
    device: String,
    tun: Tun,
    socket: Socket,
    address: Ipv4Addr,
    longest: usize,
    table: CurrentTable,
    /// Readable once there is a table.
    begin: EventFd,
    /// Readable once the workers are to end.
    end: EventFd,
    outbound: Tally,
    inbound: Tally,
    beats: [Beats; 2],
    failure: Mutex<Option<String>>,
}

/// Why a worker cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Breakdown {
    #[error("the device {device} is gone ({source}): was it deleted?")]
    DeviceGone { device: String, source: Errno },
    #[error("cannot read from the device {device}: {source}")]
    Device { device: String, source: Errno },
    #[error("cannot receive from the udp socket, {FUTILE} times in a row: {source}")]
    Socket { source: Errno },
    #[error("cannot wait for packets: {source}")]
    Wait { source: Errno },
}

/// The workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worker {
    Outbound,
    Inbound,
}

impl Worker {
    /// The name of its thread.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Outbound => "proxy-outbound",
            Self::Inbound => "proxy-inbound",
        }
    }
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wake {
    Ready,
    Stopped,
}

impl Plane {
    pub(super) fn open(settings: Settings) -> Result<Self, ProxyError> {
        let socket = Socket::bind(settings.bind)?;
        let tun = Tun::attach(&settings.device)?;
        // A new device has an MTU of 1500 until its own is set.
        let mtu = settings.mtu.clamp(1500, u32::from(u16::MAX));
        Ok(Self {
            device: settings.device,
            tun,
            socket,
            address: settings.address,
            longest: mtu as usize,
            table: CurrentTable::default(),
            begin: event()?,
            end: event()?,
            outbound: Tally::default(),
            inbound: Tally::default(),
            beats: Default::default(),
            failure: Mutex::default(),
        })
    }

    pub(super) fn set_table(&self, table: Table) {
        self.table.replace(table);
        signal(&self.begin);
    }

    pub(super) fn stop(&self) {
        signal(&self.end);
    }

    /// How often a worker has come round.
    pub(super) fn beats(&self, worker: Worker) -> u64 {
        self.beats[worker as usize].count()
    }

    pub(super) fn counters(&self) -> Counters {
        Counters::sum(&[&self.outbound, &self.inbound])
    }

    pub(super) fn failure(&self) -> Option<String> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.clone()
    }

    /// A thread's life. If its work breaks down the reason is kept and the other thread ends too:
    /// half a data plane would only hide the failure.
    pub(super) fn run(&self, work: fn(&Self) -> Result<(), Breakdown>) {
        if let Err(breakdown) = work(self) {
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            failure.get_or_insert_with(|| breakdown.to_string());
            drop(failure);
            self.stop();
        }
    }

    /// From the device to the peers.
    pub(super) fn outbound(&self) -> Result<(), Breakdown> {
        // A device that goes wakes those who wait for input (`tun_detach_all`). It never has any of
        // high priority, so that packets do not end this wait.
        let begin = PollFd::new(self.begin.as_fd(), PollFlags::POLLIN);
        if self.wait(Worker::Outbound, begin, PollFlags::POLLPRI)? == Wake::Stopped {
            return Ok(());
        }
        let mut table = TableReader::new(&self.table);
        let mut batch = Outgoing::new(self.longest);
        loop {
            let packets = PollFd::new(self.tun.as_fd(), PollFlags::POLLIN);
            if self.wait(Worker::Outbound, packets, PollFlags::empty())? == Wake::Stopped {
                return Ok(());
            }
            self.collect(table.latest(), &mut batch)?;
            self.dispatch(&mut batch)?;
        }
    }

    /// Takes up to a batch of packets from the device and keeps those that have a peer.
    fn collect(&self, table: &Table, batch: &mut Outgoing) -> Result<(), Breakdown> {
        batch.clear();
        for _ in 0..BATCH {
            let Some(buffer) = batch.vacant() else {
                break;
            };
            let length = match self.tun.take(buffer) {
                Ok(length) => length,
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => continue,
                Err(source) if tun::is_gone(source) => return Err(self.gone(source)),
                Err(source) => {
                    let device = self.device.clone();
                    return Err(Breakdown::Device { device, source });
                }
            };
            if length > self.longest {
                self.outbound.add(Count::TooBig, 1);
                continue;
            }
            if let Some((length, peer)) = self.forward(table, &mut buffer[..length]) {
                batch.push(length, self.socket.at(peer));
            }
        }
        Ok(())
    }

    /// Makes a packet ready to be sent: its length, without trailer, and its peer.
    fn forward(&self, table: &Table, bytes: &mut [u8]) -> Option<(usize, Ipv4Addr)> {
        let mut packet = admit(&self.outbound, bytes)?;
        let Some(peer) = table.peer(packet.destination()) else {
            self.refuse(&packet);
            return None;
        };
        age(&self.outbound, &mut packet)?;
        Some((packet.bytes().len(), peer))
    }

    fn refuse(&self, packet: &Packet<'_>) {
        self.outbound.add(Count::NoRoute, 1);
        let Some(answer) = packet.unreachable(self.address) else {
            return;
        };
        match self.tun.give(answer.bytes()) {
            Ok(()) => self.outbound.add(Count::UnreachableSent, 1),
            Err(_) => self.outbound.add(Count::DeviceErrors, 1),
        }
    }

    /// Sends the batch. What the kernel refuses for one peer (`ECONNREFUSED`, `ENETUNREACH`,
    /// `EPERM` of a firewall) holds up no other.
    fn dispatch(&self, batch: &mut Outgoing) -> Result<(), Breakdown> {
        let mut next = 0;
        while next < batch.lengths().len() {
            match self.socket.send(batch, next) {
                Ok(sent) if sent > 0 => {
                    let bytes: usize = batch.lengths()[next..next + sent].iter().sum();
                    self.outbound.add(Count::SentPackets, sent as u64);
                    self.outbound.add(Count::SentBytes, bytes as u64);
                    next += sent;
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    let room = PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT);
                    if self.wait(Worker::Outbound, room, PollFlags::empty())? == Wake::Stopped {
                        return Ok(());
                    }
                }
                Err(Errno::EMSGSIZE) => {
                    self.outbound.add(Count::TooBig, 1);
                    next += 1;
                }
                Ok(_) | Err(_) => {
                    self.outbound.add(Count::SendErrors, 1);
                    next += 1;
                }
            }
        }
        Ok(())
    }

    /// From the peers to the device. Packets are taken from anybody, as flanneld does.
    pub(super) fn inbound(&self) -> Result<(), Breakdown> {
        let mut batch = Incoming::new();
        let mut futile = 0;
        loop {
            let datagrams = PollFd::new(self.socket.as_fd(), PollFlags::POLLIN);
            if self.wait(Worker::Inbound, datagrams, PollFlags::empty())? == Wake::Stopped {
                return Ok(());
            }
            match self.socket.receive(&mut batch) {
                Ok(()) => {
                    futile = 0;
                    self.deliver(&mut batch)?;
                }
                // After a datagram with a wrong checksum, for which the wait ended too early.
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(source) => {
                    self.inbound.add(Count::ReceiveErrors, 1);
                    futile += 1;
                    if futile == FUTILE {
                        return Err(Breakdown::Socket { source });
                    }
                    self.pause();
                }
            }
        }
    }

    fn deliver(&self, batch: &mut Incoming) -> Result<(), Breakdown> {
        for index in 0..batch.count() {
            let Some(bytes) = batch.datagram(index) else {
                self.inbound.add(Count::TooBig, 1);
                continue;
            };
            let Some(mut packet) = admit(&self.inbound, bytes) else {
                continue;
            };
            if age(&self.inbound, &mut packet).is_none() {
                continue;
            }
            match self.tun.give(packet.bytes()) {
                Ok(()) => {
                    self.inbound.add(Count::ReceivedPackets, 1);
                    self.inbound
                        .add(Count::ReceivedBytes, packet.bytes().len() as u64);
                }
                Err(source) if tun::is_gone(source) => return Err(self.gone(source)),
                Err(_) => self.inbound.add(Count::DeviceErrors, 1),
            }
        }
        Ok(())
    }

    /// Waits until `source` is ready or the workers are to end.
    ///
    /// Events of the device beside those of `source` are only there to wake us when it goes.
    ///
    /// # Errors
    /// If the device goes: only one that is being deleted reports an error (`tun_chr_poll`).
    fn wait(
        &self,
        worker: Worker,
        source: PollFd<'_>,
        device: PollFlags,
    ) -> Result<Wake, Breakdown> {
        let mut descriptors = [
            PollFd::new(self.end.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.tun.as_fd(), device),
            source,
        ];
        loop {
            self.beats[worker as usize].beat();
            match poll(&mut descriptors, REST) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => break,
                Err(source) => return Err(Breakdown::Wait { source }),
            }
        }
        let [end, device, _] =
            descriptors.map(|descriptor| descriptor.revents().unwrap_or(PollFlags::POLLERR));
        if !end.is_empty() {
            Ok(Wake::Stopped)
        } else if device.contains(PollFlags::POLLERR) {
            Err(self.gone(Errno::EBADFD))
        } else {
            Ok(Wake::Ready)
        }
    }

    /// Lets some time pass, so that an error that repeats does not keep the processor busy.
    fn pause(&self) {
        let mut end = [PollFd::new(self.end.as_fd(), PollFlags::POLLIN)];
        // Cut short by a signal it has still done its work.
        let _ = poll(&mut end, 10_u8);
    }

    fn gone(&self, source: Errno) -> Breakdown {
        let device = self.device.clone();
        Breakdown::DeviceGone { device, source }
    }
}

fn admit<'a>(tally: &Tally, bytes: &'a mut [u8]) -> Option<Packet<'a>> {
    Packet::parse(bytes)
        .map_err(|refusal| count(tally, refusal))
        .ok()
}

fn age(tally: &Tally, packet: &mut Packet<'_>) -> Option<()> {
    packet.age().map_err(|refusal| count(tally, refusal)).ok()
}

fn count(tally: &Tally, refusal: Refusal) {
    let count = match refusal {
        Refusal::Malformed => Count::Malformed,
        Refusal::OtherVersion => Count::OtherVersion,
        Refusal::Expired => Count::Expired,
    };
    tally.add(count, 1);
}

fn event() -> Result<EventFd, ProxyError> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    EventFd::from_flags(flags).map_err(|errno| ProxyError::Resources {
        what: "an event descriptor",
        source: io::Error::from(errno),
    })
}

/// Makes the event readable for good; nobody ever reads it.
fn signal(event: &EventFd) {
    // Fails only when the count would overflow, and then it is readable already.
    let _ = event.write(1);
}

/// A worker that has nothing to do beats this often, in milliseconds.
const REST: u16 = 2000;

/// How many errors in a row, with a pause after each, mean that a socket is beyond help.
const FUTILE: u32 = 100;
