//! What the workers share, and how they wait and end.
//!
//! Each queue of the device has two workers: one from the device to the peers, one from the peers
//! to the device. Whatever befalls one packet is counted and the rest goes on; only the loss of the
//! device or a socket ends a worker, and with it the others. A worker that stops without ending is
//! told by its [`Beats`].

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::coalesce::Joins;
use super::counters::{Count, Meter, Tally};
use super::directory::CurrentDirectory;
use super::origin::Origins;
use super::packet::{Packet, Refusal};
use super::pulse::Beats;
use super::socket::{self, Socket};
use super::table::Table;
use super::tun::{Device, Queue};
use super::virtio::Kind;
use super::{ProxyError, Settings, queues};

/// What the workers share.
#[derive(Debug)]
pub(super) struct Plane {
    pub(super) device: String,
    pub(super) bind: SocketAddrV4,
    /// Whether the device gives super-packets.
    pub(super) offload: bool,
    /// The length in bytes of the longest packet that the device may send.
    pub(super) longest: usize,
    pub(super) lanes: Vec<Lane>,
    pub(super) directory: Arc<CurrentDirectory>,
    pub(super) origins: Origins,
    pub(super) offers: Offers,
    /// By [`Plane::number`].
    tallies: Arc<[Tally]>,
    beats: Vec<Beats>,
    /// Readable once there is a table.
    begin: EventFd,
    /// Readable once the workers are to end.
    end: EventFd,
    /// The same for those who do not wait.
    ended: AtomicBool,
    failure: Mutex<Option<String>>,
}

/// What a queue's two workers move packets between.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) queue: Queue,
    pub(super) socket: Socket,
}

/// What the device takes as one instead of many, until it refuses.
#[derive(Debug)]
pub(super) struct Offers {
    tcp: AtomicBool,
    udp: AtomicBool,
}

impl Offers {
    const fn new(joins: Joins) -> Self {
        Self {
            tcp: AtomicBool::new(joins.tcp),
            udp: AtomicBool::new(joins.udp),
        }
    }

    /// What is left of them.
    pub(super) fn joins(&self) -> Joins {
        Joins {
            tcp: self.tcp.load(Ordering::Relaxed),
            udp: self.udp.load(Ordering::Relaxed),
        }
    }

    /// Gives one up for good. Says whether that is news.
    pub(super) fn give_up(&self, kind: Kind) -> bool {
        let offer = match kind {
            Kind::Tcp => &self.tcp,
            Kind::Udp => &self.udp,
        };
        offer.swap(false, Ordering::Relaxed)
    }
}

/// Why a worker cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Breakdown {
    #[error("the device {device} is gone ({source}): was it deleted?")]
    DeviceGone { device: String, source: Errno },
    #[error("cannot read from the device {device}: {source}")]
    Device { device: String, source: Errno },
    #[error("cannot receive from the udp socket, {times} times in a row: {source}")]
    Socket { times: u32, source: Errno },
    #[error("cannot wait for packets: {source}")]
    Wait { source: Errno },
}

/// The workers, and the queue they work for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worker {
    Outbound(usize),
    Inbound(usize),
    Survey,
}

impl Worker {
    /// The name of its thread, of 15 bytes at most.
    pub(super) fn name(self) -> String {
        let numbered = |name: &str, queue: usize| match queue {
            0 => name.to_owned(),
            queue => format!("{name}{queue}"),
        };
        match self {
            Self::Outbound(queue) => numbered("proxy-outbound", queue),
            Self::Inbound(queue) => numbered("proxy-inbound", queue),
            Self::Survey => "proxy-survey".to_owned(),
        }
    }
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    Ready,
    TimedOut,
    Stopped,
}

impl Plane {
    pub(super) fn open(settings: Settings) -> Result<Self, ProxyError> {
        let offload = settings.tuning.offload;
        let queues = queues(settings.tuning);
        let sockets = socket::bind(settings.bind, queues, settings.tuning)?;
        let Device { queues, joins } = Device::open(&settings.device, offload, queues)?;
        let lanes: Vec<_> = queues
            .into_iter()
            .zip(sockets)
            .map(|(queue, socket)| Lane { queue, socket })
            .collect();
        let workers = lanes.len() * 2;
        // A new device has an MTU of 1500 until its own is set.
        let mtu = settings.mtu.clamp(1500, u32::from(u16::MAX));
        Ok(Self {
            device: settings.device,
            bind: settings.bind,
            offload,
            longest: mtu as usize,
            lanes,
            directory: Arc::new(CurrentDirectory::new(workers)),
            origins: Origins::new(settings.verify),
            offers: Offers::new(joins),
            tallies: (0..workers).map(|_| Tally::default()).collect(),
            beats: (0..=workers).map(|_| Beats::default()).collect(),
            begin: event()?,
            end: event()?,
            ended: AtomicBool::new(false),
            failure: Mutex::default(),
        })
    }

    /// All workers of this plane.
    pub(super) fn workers(&self) -> Vec<Worker> {
        let of_queue = |queue| [Worker::Outbound(queue), Worker::Inbound(queue)];
        let mut workers: Vec<_> = (0..self.lanes.len()).flat_map(of_queue).collect();
        workers.push(Worker::Survey);
        workers
    }

    pub(super) fn set_table(&self, table: &Table) {
        self.directory.replace(table);
        signal(&self.begin);
    }

    pub(super) fn stop(&self) {
        self.ended.store(true, Ordering::Relaxed);
        signal(&self.end);
    }

    /// Whether the workers are to end; cheap enough to be asked for each batch.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// A worker's number among those that count, from 0 on; the survey's comes last.
    pub(super) fn number(&self, worker: Worker) -> usize {
        match worker {
            Worker::Outbound(queue) => queue * 2,
            Worker::Inbound(queue) => queue * 2 + 1,
            Worker::Survey => self.lanes.len() * 2,
        }
    }

    /// To be called by a worker each time it comes round.
    pub(super) fn beat(&self, worker: Worker) {
        self.beats[self.number(worker)].beat();
    }

    /// How often a worker has come round.
    pub(super) fn beats(&self, worker: Worker) -> u64 {
        self.beats[self.number(worker)].count()
    }

    /// Where a worker counts; the survey, which moves nothing, has nowhere.
    pub(super) fn tally(&self, worker: Worker) -> &Tally {
        &self.tallies[self.number(worker)]
    }

    pub(super) fn meter(&self) -> Meter {
        Meter::new(Arc::clone(&self.tallies), Arc::clone(&self.directory))
    }

    pub(super) fn failure(&self) -> Option<String> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.clone()
    }

    /// A thread's life. If its work breaks down the reason is kept and the other threads end too:
    /// half a data plane would only hide the failure.
    pub(super) fn run(&self, work: impl FnOnce(&Self) -> Result<(), Breakdown>) {
        if let Err(breakdown) = work(self) {
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            failure.get_or_insert_with(|| breakdown.to_string());
            drop(failure);
            self.stop();
        }
    }

    /// Waits for the first table.
    pub(super) fn await_table(&self, worker: Worker, lane: &Lane) -> Result<Wake, Breakdown> {
        // A device that goes wakes those who wait for input (`tun_detach_all`). It never has any of
        // high priority, so that packets do not end this wait.
        let begin = PollFd::new(self.begin.as_fd(), PollFlags::POLLIN);
        self.wait(worker, begin, (lane, PollFlags::POLLPRI))
    }

    /// Waits for input, be it of the lane's own queue or of its socket.
    pub(super) fn await_input(
        &self,
        worker: Worker,
        source: BorrowedFd<'_>,
        lane: &Lane,
    ) -> Result<Wake, Breakdown> {
        let source = PollFd::new(source, PollFlags::POLLIN);
        self.wait(worker, source, (lane, PollFlags::empty()))
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
        (lane, device): (&Lane, PollFlags),
    ) -> Result<Wake, Breakdown> {
        let mut descriptors = [
            PollFd::new(self.end.as_fd(), PollFlags::POLLIN),
            PollFd::new(lane.queue.as_fd(), device),
            source,
        ];
        loop {
            self.beat(worker);
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

    /// Waits at most so long until there is room to send.
    pub(super) fn await_room(&self, socket: BorrowedFd<'_>, longest: Duration) -> Wake {
        self.doze(Some(PollFd::new(socket, PollFlags::POLLOUT)), longest)
    }

    /// Lets some time pass.
    pub(super) fn pause(&self, time: Duration) -> Wake {
        self.doze(None, time)
    }

    /// Cut short by a signal it has still done its work: nobody relies on how long it takes.
    fn doze(&self, source: Option<PollFd<'_>>, time: Duration) -> Wake {
        let end = PollFd::new(self.end.as_fd(), PollFlags::POLLIN);
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::ZERO);
        let woken = match source {
            Some(source) => poll(&mut [end, source], timeout),
            None => poll(&mut [end], timeout),
        };
        match woken {
            _ if self.has_ended() => Wake::Stopped,
            Ok(1..) => Wake::Ready,
            Ok(_) | Err(_) => Wake::TimedOut,
        }
    }

    pub(super) fn gone(&self, source: Errno) -> Breakdown {
        let device = self.device.clone();
        Breakdown::DeviceGone { device, source }
    }
}

pub(super) fn admit<'a>(tally: &Tally, bytes: &'a mut [u8]) -> Option<Packet<'a>> {
    Packet::parse(bytes)
        .map_err(|refusal| count(tally, refusal))
        .ok()
}

pub(super) fn age(tally: &Tally, packet: &mut Packet<'_>) -> Option<()> {
    packet.age().map_err(|refusal| count(tally, refusal)).ok()
}

pub(super) fn count(tally: &Tally, refusal: Refusal) {
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
