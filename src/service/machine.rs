//! What the service needs of the machine that it runs on.

use std::future::{Future, poll_fn};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::clock::{self, Moment};
use super::dataplane::DataPlane;
use super::files::{self, FileError};
use super::journal::Valve;
use super::memory::{Identity, Memory};
use super::notify::{self, Notice};
use super::signals::{Signal, Signals};
use crate::cluster::allocate::Written;
use crate::cluster::subnet::Subnet;
use crate::kernel::netlink::{Hints, Netlink};
use crate::kernel::uplink::{Interfaces, Preference};
use crate::kernel::{Kernel, KernelError};
use crate::plan::{self, ProxyPlan};
use crate::proxy::counters::Meter;

/// A machine: its kernel, files, clocks and service manager. There is the real one, [`Host`],
/// and one that is made up, in the simulation. Clones are the same machine.
pub(super) trait Machine: Clone + Send + Sync + 'static {
    /// The kernel's network state. One round after the other has it.
    type Kernel: Kernel;
    /// Tells when something of it may have changed.
    type Hints: Send;

    /// A new handle on the kernel, and the hints that belong to it.
    ///
    /// # Errors
    /// [`KernelError::Socket`].
    fn kernel(&self) -> Result<(Self::Kernel, Self::Hints), KernelError>;

    /// What there is to choose an uplink from.
    ///
    /// # Errors
    /// [`KernelError`].
    fn interfaces(
        kernel: &mut Self::Kernel,
        preference: &Preference,
    ) -> impl Future<Output = Result<Interfaces, KernelError>> + Send;

    /// Waits until something may have changed. Cancel safe.
    fn hint(hints: &mut Self::Hints) -> impl Future<Output = ()> + Send;

    /// Waits for a signal. Cancel safe.
    fn signal(&self) -> impl Future<Output = Signal> + Send;

    /// Makes the udp data plane run as planned, or not at all. Says whether it was begun anew.
    ///
    /// # Errors
    /// In a text for people.
    fn carry(&self, wanted: Option<&ProxyPlan>) -> Result<bool, String>;

    /// Tells what the data plane moves and drops, if there is one.
    fn meter(&self) -> Option<Meter>;

    /// Why the data plane has stopped by itself, if it has.
    fn breakdown(&self) -> Option<String>;

    /// Makes a file hold `text`.
    ///
    /// # Errors
    /// [`FileError`].
    fn write(&self, path: &Path, text: &str) -> Result<(), FileError>;

    /// Removes a file if it is about this subnet.
    ///
    /// # Errors
    /// [`FileError`].
    fn remove(&self, path: &Path, about: Subnet) -> Result<(), FileError>;

    /// Keeps what the next start should know.
    ///
    /// # Errors
    /// [`FileError`].
    fn remember(&self, identity: &Identity, written: Option<Written>) -> Result<(), FileError>;

    /// Tells the service manager.
    fn tell(&self, notice: Notice<'_>);

    /// Logs at another level from now on.
    ///
    /// # Errors
    /// In a text for people.
    fn set_log_level(&self, level: &str) -> Result<(), String>;

    /// Now.
    fn now(&self) -> Moment;

    /// Dice of one's own.
    fn dice(&self) -> StdRng;
}

/// The machine that this process runs on.
#[derive(Clone)]
pub(super) struct Host {
    memory: Memory,
    data_plane: Arc<Mutex<DataPlane>>,
    signals: Arc<Mutex<Signals>>,
    log: Valve,
}

impl Host {
    /// # Errors
    /// When no signals can be had.
    pub(super) fn new(memory: Memory, log: Valve) -> std::io::Result<Self> {
        Ok(Self {
            memory,
            data_plane: Arc::default(),
            signals: Arc::new(Mutex::new(Signals::listen()?)),
            log,
        })
    }
}

impl Machine for Host {
    type Kernel = Netlink;
    type Hints = Hints;

    fn kernel(&self) -> Result<(Netlink, Hints), KernelError> {
        let netlink = Netlink::connect()?;
        let hints = netlink.hints()?;
        Ok((netlink, hints))
    }

    async fn interfaces(
        kernel: &mut Netlink,
        preference: &Preference,
    ) -> Result<Interfaces, KernelError> {
        kernel.interfaces(preference).await
    }

    async fn hint(hints: &mut Hints) {
        hints.next().await;
    }

    async fn signal(&self) -> Signal {
        poll_fn(|cx| {
            let mut signals = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
            signals.poll(cx)
        })
        .await
    }

    fn carry(&self, wanted: Option<&ProxyPlan>) -> Result<bool, String> {
        let mut data_plane = self
            .data_plane
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        data_plane.run(wanted)
    }

    fn meter(&self) -> Option<Meter> {
        // nobody is to wait here for one that is being set up
        self.data_plane.try_lock().ok()?.meter()
    }

    fn breakdown(&self) -> Option<String> {
        // while it is being set up it has not broken down, and nobody is to wait for that here
        self.data_plane.try_lock().ok()?.failure()
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), FileError> {
        files::write(path, text).map(drop)
    }

    fn remove(&self, path: &Path, about: Subnet) -> Result<(), FileError> {
        files::remove(path, |text| plan::is_about(text, about)).map(drop)
    }

    fn remember(&self, identity: &Identity, written: Option<Written>) -> Result<(), FileError> {
        self.memory.keep(identity)?;
        written.map_or(Ok(()), |written| self.memory.remember(written))
    }

    fn tell(&self, notice: Notice<'_>) {
        notify::tell(notice);
    }

    fn set_log_level(&self, level: &str) -> Result<(), String> {
        self.log.set(level)
    }

    fn now(&self) -> Moment {
        clock::now()
    }

    fn dice(&self) -> StdRng {
        StdRng::from_rng(&mut rand::rng())
    }
}
