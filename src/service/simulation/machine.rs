//! A made-up machine: a kernel of rows, files, clocks and a service manager.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::cluster::allocate::Written;
use crate::cluster::subnet::Subnet;
use crate::config::log_level;
use crate::kernel::change::Change;
use crate::kernel::fake::Fake;
use crate::kernel::firewall::ForeignChain;
use crate::kernel::state::{KernelState, Link, LinkKind, PROTOCOL, Route, RouteKey};
use crate::kernel::uplink::{DefaultRoute, Interface, InterfaceAddress, Interfaces, Preference};
use crate::kernel::{Failure, Kernel, KernelError, Scope};
use crate::plan::{ProxyPlan, is_about, previous_subnet};
use crate::proxy::counters::Meter;
use crate::service::clock::{Moment, usec};
use crate::service::files::FileError;
use crate::service::machine::Machine;
use crate::service::memory::Identity;
use crate::service::notify::Notice;
use crate::service::signals::Signal;

/// Where the config's defaults put it.
pub(super) const SUBNET_ENV: &str = "/run/flannel/subnet.env";

/// A made-up machine; clones are the same one.
#[derive(Clone)]
pub(super) struct MadeUp {
    state: Arc<Mutex<State>>,
    /// Somebody has changed something.
    bell: Arc<Notify>,
    reload: Arc<Notify>,
    start: Instant,
}

pub(super) struct State {
    pub(super) kernel: Fake,
    pub(super) interfaces: Interfaces,
    pub(super) trouble: KernelTrouble,
    /// How often the service has made changes.
    pub(super) applied: usize,
    files: BTreeMap<PathBuf, String>,
    id: String,
    name: String,
    written: Option<Written>,
    proxy: Option<ProxyPlan>,
    pub(super) ready: bool,
    pub(super) fed: Instant,
    /// How much more time has passed than the runtime knows of: the machine slept.
    pub(super) slept: Duration,
    pub(super) wall_offset: u64,
    dice: StdRng,
}

/// What is wrong with a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KernelTrouble {
    None,
    /// It never answers.
    Hung,
    /// Whoever asks it dies.
    Deadly,
    /// It refuses whatever concerns the packet filter.
    Unfiltered,
}

/// A handle on the machine's kernel.
pub(super) struct MadeUpKernel(MadeUp);

impl MadeUp {
    pub(super) fn new(number: u32, dice: StdRng) -> Self {
        let mut state = KernelState::default();
        for (name, kind) in FOREIGN_LINKS {
            let kind = LinkKind::Other(kind.to_owned());
            let link = Link {
                kind,
                mac: None,
                mtu: 1500,
                up: true,
                marked: false,
            };
            state.links.insert(name.to_owned(), link);
        }
        let (key, route) = foreign_route();
        state.routes.insert(key, route);
        let passes = &mut state.firewall.passes;
        passes.insert(ForeignChain::FilterForward, Vec::new());
        Self {
            state: Arc::new(Mutex::new(State {
                kernel: Fake::new(state),
                interfaces: interfaces(&format!("192.168.1.{}/24", 46 + number)),
                trouble: KernelTrouble::None,
                applied: 0,
                files: BTreeMap::new(),
                id: format!("{number:032x}"),
                name: format!("node{number}"),
                written: None,
                proxy: None,
                ready: false,
                fed: Instant::now(),
                slept: Duration::ZERO,
                wall_offset: 0,
                dice,
            })),
            bell: Arc::default(),
            reload: Arc::default(),
            start: Instant::now(),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Lets somebody else change something, which the kernel tells of.
    pub(super) fn fumble<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.bell.notify_one();
        result
    }

    pub(super) fn reload(&self) {
        self.reload.notify_one();
    }

    /// Who the machine is to a service that starts now.
    pub(super) fn identity(&self) -> Identity {
        let state = self.state();
        let subnet_env = state.files.get(Path::new(SUBNET_ENV));
        Identity {
            name: state.name.clone(),
            id: state.id.clone(),
            last: state.written,
            previous: subnet_env.and_then(|text| previous_subnet(text)),
        }
    }

    pub(super) fn subnet_env(&self) -> Option<String> {
        self.state().files.get(Path::new(SUBNET_ENV)).cloned()
    }

    /// What of the service is on the machine, one line each.
    pub(super) fn traces(&self) -> Vec<String> {
        let state = self.state();
        let kernel = &state.kernel.state;
        let links = kernel.links.iter().filter(|(_, link)| link.marked);
        let links = links.map(|(name, _)| format!("link {name}"));
        let ours = |route: &Route| route.protocol == PROTOCOL;
        let routes = kernel.routes.iter().filter(|(_, route)| ours(route));
        let routes = routes.map(|(key, _)| format!("route {}", key.destination));
        let nexthops = kernel.nexthops.keys().map(|id| format!("nexthop {id}"));
        let files = state.files.keys().map(|path| path.display().to_string());
        let proxy = state.proxy.iter().map(|_| "the data plane".to_owned());
        let table = kernel.firewall.table.iter().map(|_| "the table".to_owned());
        let passes = kernel.firewall.passes.values().flatten();
        let passes = passes.map(|rule| format!("pass {:?}", rule.matches));
        let rows = links.chain(routes).chain(nexthops);
        let rows = rows.chain(table).chain(passes);
        rows.chain(files).chain(proxy).collect()
    }

    /// Whether what belongs to others is as it was.
    pub(super) fn has_foreign(&self) -> bool {
        let kernel = &self.state().kernel.state;
        let (key, route) = foreign_route();
        let links = FOREIGN_LINKS
            .iter()
            .all(|(name, _)| kernel.links.contains_key(*name));
        let passes = &kernel.firewall.passes;
        let chain = passes.contains_key(&ForeignChain::FilterForward);
        links && chain && kernel.routes.get(&key) == Some(&route)
    }
}

const FOREIGN_LINKS: [(&str, &str); 2] = [("eth0", "device"), ("foreign0", "dummy")];

fn foreign_route() -> (RouteKey, Route) {
    let key = RouteKey {
        destination: "10.99.0.0/16".parse().unwrap(),
        metric: 0,
    };
    let route = Route {
        link: "foreign0".into(),
        gateway: None,
        onlink: false,
        source: None,
        protocol: 3,
        nexthop: None,
    };
    (key, route)
}

/// An `eth0` with this address and the default route.
pub(super) fn interfaces(address: &str) -> Interfaces {
    let address = InterfaceAddress {
        address: address.parse().unwrap(),
        permanent: true,
        deprecated: false,
    };
    Interfaces {
        interfaces: vec![Interface {
            name: "eth0".to_owned(),
            mtu: 1500,
            addresses: vec![address],
        }],
        default_routes: vec![DefaultRoute {
            metric: 0,
            interfaces: vec!["eth0".to_owned()],
        }],
        reach: None,
    }
}

impl Kernel for MadeUpKernel {
    async fn observe(&mut self, scope: &Scope) -> Result<KernelState, KernelError> {
        trouble(&self.0).await;
        Ok(self.0.state().kernel.shown(scope))
    }

    async fn apply(&mut self, changes: &[Change]) -> Result<Vec<Failure>, KernelError> {
        trouble(&self.0).await;
        let mut kernel = {
            let mut state = self.0.state();
            state.applied += changes.len();
            std::mem::replace(&mut state.kernel, Fake::new(KernelState::default()))
        };
        let refuses = self.0.state().trouble == KernelTrouble::Unfiltered;
        let of_filter = |change: &Change| matches!(change, Change::Firewall(_));
        let is_refused = |change: &&Change| refuses && of_filter(change);
        let (refused, made): (Vec<_>, Vec<_>) = changes.iter().partition(is_refused);
        let made: Vec<Change> = made.into_iter().cloned().collect();
        let result = kernel.apply(&made).await;
        self.0.state().kernel = kernel;
        let refused = refused.into_iter().map(|change| Failure {
            change: change.clone(),
            reason: "refused".to_owned(),
        });
        result.map(|failures| failures.into_iter().chain(refused).collect())
    }
}

async fn trouble(machine: &MadeUp) {
    let trouble = machine.state().trouble;
    match trouble {
        KernelTrouble::None | KernelTrouble::Unfiltered => {}
        KernelTrouble::Hung => std::future::pending().await,
        // no message and no backtrace, of which there would be thousands
        KernelTrouble::Deadly => std::panic::resume_unwind(Box::new("the kernel is deadly")),
    }
}

impl Machine for MadeUp {
    type Kernel = MadeUpKernel;
    type Hints = Self;

    fn kernel(&self) -> Result<(MadeUpKernel, Self), KernelError> {
        Ok((MadeUpKernel(self.clone()), self.clone()))
    }

    async fn interfaces(
        kernel: &mut MadeUpKernel,
        _: &Preference,
    ) -> Result<Interfaces, KernelError> {
        trouble(&kernel.0).await;
        Ok(kernel.0.state().interfaces.clone())
    }

    async fn hint(hints: &mut Self) {
        hints.bell.notified().await;
    }

    async fn signal(&self) -> Signal {
        self.reload.notified().await;
        Signal::Reload
    }

    /// As the real data plane does: it makes the device, and leaves it behind.
    fn carry(&self, wanted: Option<&ProxyPlan>) -> Result<bool, String> {
        let mut state = self.state();
        let began = wanted.is_some() && state.proxy.is_none();
        state.proxy = wanted.cloned();
        if let Some(plan) = wanted {
            let device = Link {
                kind: LinkKind::Tun,
                mac: None,
                mtu: 1500,
                up: false,
                marked: false,
            };
            let name = plan.settings.device.clone();
            let links = &mut state.kernel.state.links;
            let made = !links.contains_key(&name);
            links.entry(name).or_insert(device);
            return Ok(began || made);
        }
        Ok(false)
    }

    /// No packet moves here.
    fn meter(&self) -> Option<Meter> {
        None
    }

    fn breakdown(&self) -> Option<String> {
        let state = self.state();
        let device = &state.proxy.as_ref()?.settings.device;
        let gone = !state.kernel.state.links.contains_key(device);
        gone.then(|| "the device is gone".to_owned())
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), FileError> {
        self.state().files.insert(path.to_owned(), text.to_owned());
        Ok(())
    }

    fn remove(&self, path: &Path, about: Subnet) -> Result<(), FileError> {
        let files = &mut self.state().files;
        if files.get(path).is_some_and(|text| is_about(text, about)) {
            files.remove(path);
        }
        Ok(())
    }

    fn remember(&self, _: &Identity, written: Option<Written>) -> Result<(), FileError> {
        let mut state = self.state();
        state.written = written.or(state.written);
        Ok(())
    }

    fn tell(&self, notice: Notice<'_>) {
        let mut state = self.state();
        match notice {
            Notice::Ready => state.ready = true,
            Notice::Watchdog => state.fed = Instant::now(),
            Notice::Status(_) | Notice::Reloading | Notice::Stopping => {}
        }
    }

    fn set_log_level(&self, level: &str) -> Result<(), String> {
        log_level(level)
    }

    fn now(&self) -> Moment {
        let state = self.state();
        let since_boot = self.start.elapsed() + state.slept;
        Moment {
            since_boot,
            wall_usec: usec(since_boot) + state.wall_offset,
        }
    }

    fn dice(&self) -> StdRng {
        StdRng::from_rng(&mut self.state().dice)
    }
}
