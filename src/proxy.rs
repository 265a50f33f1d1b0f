//! The data plane of the udp backend: one IP packet in each UDP datagram, through a TUN device.
//!
//! Runs on its own operating-system threads with blocking batches; the rest of the service sees
//! only [`Proxy`]. Wire-compatible with flanneld (flannel facts §5). Knows nothing of leases.
//!
//! It makes the TUN device and moves packets. The link's MTU, state, addresses, routes and alias
//! are the business of whoever keeps the kernel's network state.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use counters::Counters;
use pulse::Silence;
use table::Table;
use worker::{Breakdown, Plane, Worker};

pub mod counters;
pub mod packet;
mod pulse;
mod socket;
pub mod table;
mod tun;
mod worker;

/// What a [`Proxy`] connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The TUN device's name, 1 to 15 bytes; made if there is none.
    pub device: String,
    /// The MTU that the device has or will get, in bytes. Longer packets from it are dropped, if
    /// they are longer than 1500 bytes; what peers send may have any length.
    pub mtu: u32,
    /// The base of our subnet: the source of ICMP answers to packets without a route.
    pub address: Ipv4Addr,
    /// The uplink's address and the port that all nodes share.
    pub bind: SocketAddrV4,
}

/// A running data plane. Dropping it stops the threads and closes the socket; the device stays,
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

/// A worker that has not come round for this long hangs: its waits are bounded, and a batch takes
/// less than a millisecond.
const HANGS: Duration = Duration::from_secs(15);
/// How long to wait for the threads to end. One that hangs must not take its owner along.
const FAREWELL: Duration = Duration::from_secs(1);

impl Proxy {
    /// Opens or makes the device, binds the socket and starts the threads, in the network
    /// namespace of the calling thread. The device is persistent: it outlives the process.
    ///
    /// Packets from peers are delivered at once. Those from the device wait in its queue for the
    /// first [`Proxy::set_table`], so that a restart answers nobody with "net unreachable".
    ///
    /// # Errors
    /// See [`ProxyError`]. If the port is taken no device has been made.
    pub fn attach(settings: Settings) -> Result<Self, ProxyError> {
        let plane = Arc::new(Plane::open(settings)?);
        let mut proxy = Self {
            plane,
            threads: Vec::with_capacity(2),
        };
        proxy.start(Worker::Outbound, Plane::outbound)?;
        proxy.start(Worker::Inbound, Plane::inbound)?;
        Ok(proxy)
    }

    fn start(
        &mut self,
        worker: Worker,
        work: fn(&Plane) -> Result<(), Breakdown>,
    ) -> Result<(), ProxyError> {
        let plane = Arc::clone(&self.plane);
        let handle = thread::Builder::new()
            .name(worker.name().to_owned())
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
    pub fn set_table(&self, table: Table) {
        self.plane.set_table(table);
    }

    /// What has been moved and dropped since [`Proxy::attach`].
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.plane.counters()
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
    /// The name belongs to a device that cannot serve: of another kind, or a TAP device, or a TUN
    /// device with several queues.
    #[error(
        "{device} exists and is not a TUN device with one queue: remove it (ip link delete {device}) or choose another name"
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
