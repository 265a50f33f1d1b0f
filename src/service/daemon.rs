//! The loop. Owns the world, the kernel's handle and the data plane; does one thing at a time.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use errand::Errands;

use super::clock;
use super::dataplane::DataPlane;
use super::faults::Code;
use super::memory::Memory;
use super::notify;
use super::signals::{Signal, Signals};
use super::status::{Command, State, Status};
use super::watcher::{self, Sighting};
use super::world::{REGROUP, World};
use crate::cluster::datastore::{Datastore, Event};
use crate::config::Config;
use crate::kernel::netlink::Netlink;
use crate::kernel::state::KernelState;
use crate::plan::Plan;

mod errand;
mod pass;

/// The kernel is looked at this often even when nothing hints at a change.
const RESYNC: Duration = Duration::from_secs(10);
/// A burst of events becomes one pass: at most this long after the first, at most so often.
const SETTLE: Duration = Duration::from_millis(10);
const PACE: Duration = Duration::from_millis(250);
/// A pass that came to nothing is tried again after this long.
const RETRY: Duration = Duration::from_secs(1);
/// After this long without it, a duty counts as not done, and the watchdog is not fed.
const OVERDUE: Duration = Duration::from_secs(120);

/// Where the host config is read again from on a reload.
pub type Reload = Box<dyn Fn() -> Result<Config, String> + Send>;

/// The running service.
struct Daemon<D> {
    world: World,
    store: Arc<D>,
    netlink: Netlink,
    data_plane: DataPlane,
    memory: Memory,
    reload: Reload,
    status: watch::Sender<Status>,
    status_line: String,
    relist: Arc<Notify>,
    relist_at: Option<Instant>,
    errands: Errands,
    pass_at: Option<Instant>,
    last_pass: Instant,
    plan: Option<Plan>,
    /// The kernel state that was last reached; what changes while it stays the same is a repair.
    reached: Option<KernelState>,
    ready: bool,
    reloading: bool,
    complete: bool,
    repairs: u64,
    last_reconcile_usec: Option<u64>,
}

/// The service's ends towards the outside.
pub struct Ends {
    /// Every change of status.
    pub status: watch::Receiver<Status>,
    /// What outsiders ask for.
    pub commands: mpsc::Sender<Command>,
}

/// Runs the service until it is told to stop. `serve` gets the ends for the outside once they
/// exist.
///
/// # Errors
/// Only what makes it impossible to start: signals or netlink cannot be set up.
pub async fn run<D: Datastore>(
    config: Config,
    reload: Reload,
    store: D,
    serve: impl FnOnce(Ends),
) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let netlink = Netlink::connect()?;
    let mut hints = netlink.hints()?;
    let (sightings, mut seen) = mpsc::channel(64);
    let (commands, mut asked) = mpsc::channel(16);
    let mut daemon = Daemon::new(config, reload, store, netlink);
    let watch = watcher::watch(daemon.store.clone(), daemon.relist.clone(), sightings);
    let mut watcher = tokio::spawn(watch);
    let status = daemon.status.subscribe();
    serve(Ends { status, commands });

    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Stop => break,
                // the fault tells what went wrong
                Signal::Reload => drop(daemon.reload()),
            },
            Some(sighting) = seen.recv() => daemon.sighted(sighting),
            errand = daemon.errands.next() => daemon.came_back(errand),
            () = hints.next() => daemon.mark_dirty(),
            Some(command) = asked.recv() => daemon.obey(command).await,
            () = at(daemon.pass_at) => daemon.pass().await,
            () = at(daemon.relist_at) => daemon.list_again(),
            _ = tick.tick() => daemon.tick(),
            ended = &mut watcher => anyhow::bail!("the watch of the datastore ended: {ended:?}"),
        }
        daemon.send_errand();
    }
    watcher.abort();
    daemon.stop();
    Ok(())
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => pending().await,
    }
}

impl<D: Datastore> Daemon<D> {
    fn new(config: Config, reload: Reload, store: D, netlink: Netlink) -> Self {
        let memory = Memory::new(config.paths.state.clone());
        let identity = memory.identity(config.node.name.as_deref(), &config.paths.subnet_env);
        let kept = memory.keep(&identity).err();
        let mut world = World::new(config, identity, store.name());
        let fault = kept.map(|error| error.to_string());
        world.faults.note(Code::State, fault);
        let now = Instant::now();
        Self {
            status: watch::channel(world.status(None)).0,
            status_line: String::new(),
            world,
            store: Arc::new(store),
            netlink,
            data_plane: DataPlane::default(),
            memory,
            reload,
            relist: Arc::new(Notify::new()),
            relist_at: None,
            errands: Errands::default(),
            pass_at: Some(now),
            last_pass: now,
            plan: None,
            reached: None,
            ready: false,
            reloading: false,
            complete: false,
            repairs: 0,
            last_reconcile_usec: None,
        }
    }

    fn list_again(&mut self) {
        self.relist_at = None;
        self.relist.notify_one();
    }

    /// Something may have changed: a pass will look.
    fn mark_dirty(&mut self) {
        let soon = (Instant::now() + SETTLE).max(self.last_pass + PACE);
        self.pass_at = Some(self.pass_at.map_or(soon, |at| at.min(soon)));
    }

    fn sighted(&mut self, sighting: Sighting) {
        let now = clock::now();
        match sighting {
            Sighting::Snapshot(snapshot) => {
                self.errands.hurry();
                if !self.world.listed(snapshot, now) {
                    let then = Instant::now() + REGROUP + SETTLE;
                    self.relist_at.get_or_insert(then);
                }
            }
            Sighting::Events(events) => {
                let freed = |event: &Event| matches!(event, Event::Deleted { .. });
                if events.iter().any(freed) {
                    // a subnet that was taken may be free
                    self.errands.hurry();
                }
                self.world.changed(events, now);
            }
            Sighting::Lost(error) => self.world.lost(&error, now),
        }
        self.mark_dirty();
    }

    /// Once a second: time-driven duties, the watchdog, the status line.
    fn tick(&mut self) {
        let now = clock::now();
        self.world.aged(now);
        if self.last_pass.elapsed() >= RESYNC || self.data_plane.failure().is_some() {
            self.mark_dirty();
        }
        // every duty has to have been done of late: to look at the host, and to ask the datastore
        if self.last_pass.elapsed() < OVERDUE && self.world.heard_within(OVERDUE, now) {
            notify::watchdog();
        }
        self.publish();
    }

    async fn obey(&mut self, command: Command) {
        // an asker that has gone away is nobody's concern
        match command {
            Command::Reload(answer) => drop(answer.send(self.reload())),
            Command::Reconcile(answer) => {
                let before = self.pending().await;
                self.pass().await;
                drop(answer.send(if self.complete {
                    before
                } else {
                    Err(self.trouble())
                }));
            }
            Command::Plan(answer) => drop(answer.send(self.pending().await)),
        }
    }

    /// All that is wrong, in one text.
    fn trouble(&self) -> String {
        let faults = self.world.faults.list().into_iter();
        faults
            .map(|fault| fault.text)
            .collect::<Vec<_>>()
            .join("; ")
    }

    /// Reads the host config again. A bad one changes nothing. The next pass applies it, and ends
    /// the reload for the service manager; before the service is ready there is none to end.
    fn reload(&mut self) -> Result<(), String> {
        if self.ready {
            notify::reloading();
            self.reloading = true;
        }
        let result = (self.reload)().map(|config| self.world.reconfigure(config));
        if let Err(error) = &result {
            self.world.faults.note(Code::Config, Some(error.clone()));
        }
        self.mark_dirty();
        self.publish();
        result
    }

    fn publish(&mut self) {
        let now = clock::now();
        let mut status = self.world.status(self.plan.as_ref());
        status.state = match self.ready {
            false => State::Waiting,
            true if self.complete && self.world.faults.is_empty() => State::Running,
            true => State::Degraded,
        };
        status.last_reconcile_usec = self.last_reconcile_usec;
        status.repairs = self.repairs;
        let line = status.line(now.wall_usec);
        if line != self.status_line {
            notify::status(&line);
            self.status_line = line;
        }
        self.status.send_if_modified(|current| {
            let changed = *current != status;
            *current = status;
            changed
        });
    }

    /// The data path stays as it is: a restart finds it and loses no packet.
    fn stop(mut self) {
        notify::stopping();
        self.status
            .send_modify(|status| status.state = State::Stopping);
        self.errands.abort();
        tracing::info!("stopping; the lease and the data path stay");
    }
}
