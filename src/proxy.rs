//! The data plane of the udp backend: one IP packet in each UDP datagram, through a TUN device.
//!
//! Runs on its own operating-system threads with blocking batches; the rest of the service sees
//! only [`Proxy`]. Wire-compatible with flanneld (flannel facts §5). Knows nothing of leases.
//!
//! It makes the TUN device and moves packets. The link's MTU, state, addresses, routes and alias
//! are the business of whoever keeps the kernel's network state.

use std::io;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;

use counters::{Counters, Meter};
use pulse::Silence;
use table::Table;
use worker::{Breakdown, Plane, Worker};

mod checksum;
pub mod coalesce;
pub mod counters;
mod directory;
mod inbound;
mod origin;
mod outbound;
pub mod packet;
mod pulse;
mod socket;
pub mod split;
mod survey;
pub mod table;
mod tun;
pub mod virtio;
mod worker;

/// What a [`Proxy`] connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The TUN device's name, 1 to 15 bytes; made if there is none.
    pub device: String,
    /// The MTU that the device has or will get, in bytes. Longer packets from it are dropped, if
    /// they are longer than 1500 bytes; what peers send may have any length.
    pub mtu: u32,
    /// The uplink's address and the port that all nodes share.
    pub bind: SocketAddrV4,
    /// The network: a packet whose source is of it, and not of a subnet of the peer that it came
    /// from, is dropped. `None` takes them from anybody, as flanneld does. See also
    /// [`Proxy::set_verify`].
    pub verify: Option<Ipv4Net>,
    /// How packets are moved.
    pub tuning: Tuning,
}

/// How packets are moved. None of it shows in the packets that arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// Move many packets with one call where the kernel can (segmentation offloads, several
    /// queues); otherwise one by one.
    pub offload: bool,
    /// Send each flow from a port of its own, so that receivers and network cards can spread the
    /// load; otherwise all from the port that all nodes share.
    pub port_per_flow: bool,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            offload: true,
            port_per_flow: true,
        }
    }
}

/// A running data plane. Dropping it stops the threads and closes the sockets; the device stays,
/// with its addresses and routes, for the next one to attach to.
#[derive(Debug)]
pub struct Proxy {
    plane: Arc<Plane>,
    threads: Vec<Thread>,
}

#[derive(Debug)]
struct Thread {
    worker: Worker,
    handle: JoinHandle<()>,
    silence: Mutex<Silence>,
}

/// How many queues a device has, with two workers each.
fn queues(tuning: Tuning) -> usize {
    match tuning.offload {
        true => thread::available_parallelism().map_or(1, |count| count.get().min(MOST_QUEUES)),
        false => 1,
    }
}

/// More processors than this are seldom free for it.
const MOST_QUEUES: usize = 4;

/// A worker that has not come round for this long hangs: its waits are bounded, and a batch takes
/// some milliseconds at most.
const HANGS: Duration = Duration::from_secs(15);
/// How long to wait for the threads to end. One that hangs must not take its owner along.
const FAREWELL: Duration = Duration::from_secs(1);

impl Proxy {
    /// Opens or makes the device, binds the socket and starts the threads, in the network
    /// namespace of the calling thread. The device is persistent: it outlives the process.
    ///
    /// Packets from peers are delivered at once, and whosever they are until the first
    /// [`Proxy::set_table`]. Those from the device wait in its queue for it, so that a restart
    /// answers nobody with "net unreachable".
    ///
    /// # Errors
    /// See [`ProxyError`]. If the port is taken no device has been made.
    pub fn attach(settings: Settings) -> Result<Self, ProxyError> {
        let plane = Arc::new(Plane::open(settings)?);
        let workers = plane.workers();
        let threads = Vec::with_capacity(workers.len());
        let mut proxy = Self { plane, threads };
        for worker in workers {
            proxy.start(worker, move |plane| match worker {
                Worker::Outbound(queue) => outbound::work(plane, queue),
                Worker::Inbound(queue) => inbound::work(plane, queue),
                Worker::Survey => survey::work(plane),
            })?;
        }
        Ok(proxy)
    }

    fn start(
        &mut self,
        worker: Worker,
        work: impl FnOnce(&Plane) -> Result<(), Breakdown> + Send + 'static,
    ) -> Result<(), ProxyError> {
        let plane = Arc::clone(&self.plane);
        let handle = thread::Builder::new()
            .name(worker.name())
            .spawn(move || plane.run(work))
            .map_err(|source| ProxyError::Resources {
                what: "a thread",
                source,
            })?;
        self.threads.push(Thread {
            worker,
            handle,
            silence: Mutex::new(Silence::since(Instant::now())),
        });
        Ok(())
    }

    /// Puts a new table in place of the present one, between two batches of packets.
    pub fn set_table(&self, table: &Table) {
        self.plane.set_table(table);
    }

    /// Puts another network in the place of [`Settings::verify`], between two batches of packets.
    pub fn set_verify(&self, network: Option<Ipv4Net>) {
        self.plane.origins.ask(network);
    }

    /// What has been moved and dropped since [`Proxy::attach`].
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.meter().totals()
    }

    /// Tells what is moved and dropped, in all and for each peer, to whoever does not have the
    /// proxy itself.
    #[must_use]
    pub fn meter(&self) -> Meter {
        self.plane.meter()
    }

    /// Why the data plane has stopped working, if it has; it does not recover by itself. Drop it
    /// and attach anew. To be asked every few seconds: only that shows a worker that hangs.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.failure_at(Instant::now())
    }

    fn failure_at(&self, now: Instant) -> Option<String> {
        self.plane.failure().or_else(|| {
            let failed = |thread: &Thread| thread.failure(self.plane.beats(thread.worker), now);
            self.threads.iter().find_map(failed)
        })
    }
}

impl Thread {
    fn failure(&self, beats: u64, now: Instant) -> Option<String> {
        let name = self.worker.name();
        if self.handle.is_finished() {
            return Some(format!("the thread {name} ended unexpectedly"));
        }
        let mut silence = self.silence.lock().unwrap_or_else(PoisonError::into_inner);
        let silent = silence.heard(beats, now);
        (silent >= HANGS).then(|| format!("the thread {name} hangs, for {} s", silent.as_secs()))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.plane.stop();
        let deadline = Instant::now() + FAREWELL;
        for thread in self.threads.drain(..) {
            while !thread.handle.is_finished() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(1));
            }
            // A panic in a worker has been reported by then; there is nothing left to do about it.
            // One that hangs keeps the device and the socket: the next start tells that they are
            // in use.
            if thread.handle.is_finished() {
                let _ = thread.handle.join();
            }
        }
    }
}

/// The data plane cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The name cannot be that of a device.
    #[error(
        "{device:?} cannot name a TUN device: give 1 to 15 letters, digits, '-', '_' or '.', such as flannel0"
    )]
    DeviceName {
        /// The name.
        device: String,
    },
    /// The kernel offers no TUN devices here.
    #[error(
        "cannot open {}: {source}; load the tun module (modprobe tun) or let this container or service have the device",
        node.display()
    )]
    TunMissing {
        /// The device node.
        node: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// We may not open the device node.
    #[error(
        "may not open {}: {source}; run as root and let this container or service have the device (DeviceAllow=/dev/net/tun rw)",
        node.display()
    )]
    TunForbidden {
        /// The device node.
        node: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// We may not make or open network devices.
    #[error("may not attach to the TUN device {device}: this takes CAP_NET_ADMIN")]
    NotPermitted {
        /// The device's name.
        device: String,
    },
    /// Another process has the device open.
    #[error(
        "the TUN device {device} is held by another process, perhaps another flannel-rs or a flanneld: stop it or choose another name"
    )]
    DeviceBusy {
        /// The device's name.
        device: String,
    },
    /// The name belongs to a device that cannot serve: of another kind, or a TAP device.
    #[error(
        "{device} exists and is not a TUN device: remove it (ip link delete {device}) or choose another name"
    )]
    NotATun {
        /// The device's name.
        device: String,
    },
    /// The device cannot be made or opened for another reason.
    #[error("cannot attach to the TUN device {device}: {source}")]
    Device {
        /// The device's name.
        device: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another socket has the port.
    #[error(
        "udp {address} is in use: another program has bound port {}, perhaps a flanneld that still runs; stop it or choose another port for the cluster",
        address.port()
    )]
    PortInUse {
        /// What was to be bound.
        address: SocketAddrV4,
    },
    /// The address is not ours.
    #[error(
        "cannot bind udp {address}: this host does not have the address {}; has the uplink changed?",
        address.ip()
    )]
    AddressUnavailable {
        /// What was to be bound.
        address: SocketAddrV4,
    },
    /// The socket cannot be made or bound for another reason.
    #[error("cannot bind udp {address}: {source}")]
    Socket {
        /// What was to be bound.
        address: SocketAddrV4,
        /// What the kernel said.
        source: io::Error,
    },
    /// The system has run out of something.
    #[error("cannot get {what} for the udp data plane: {source}")]
    Resources {
        /// What was asked for.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests;
