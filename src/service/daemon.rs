//! The loop. Owns the world and decides; whatever may take its time is done by a duty of its
//! own, so that the loop itself never waits for anything.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use errand::Errands;
use managers::Managers;
use pass::{Asker, Passes, Releaser, Renumberer, hint};

use super::docker;
use super::duty::{Duty, Post, Pulse};
use super::faults::Code;
use super::journal::Occasion;
use super::machine::Machine;
use super::managers::Desk;
use super::memory::Identity;
use super::notify::Notice;
use super::signals::Signal;
use super::status::{Command, News, State, Status};
use super::watcher::{self, Sighting};
use super::world::{REGROUP, World};
use crate::cluster::datastore::{Datastore, Event};
use crate::config::Config;
use crate::proxy::counters::Meter;

mod errand;
mod managers;
mod pass;
mod withdrawal;

/// A burst of events becomes one pass: at most this long after the first.
const SETTLE: Duration = Duration::from_millis(10);
/// How often a fault that comes and goes may be told in the long run.
const BREATH: Duration = Duration::from_secs(60);

/// Where the host config is read again from on a reload.
pub(super) type Reload = Box<dyn Fn() -> Result<Config, String> + Send>;

/// Shows the status to outsiders and passes on what they ask for, for ever.
pub(super) type Facade =
    Box<dyn Fn(Ends, Pulse) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// Looks after those who manage this host's network too, for ever.
pub(super) type Attendant =
    Box<dyn Fn(Desk, Pulse) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// What a service is made of.
pub(super) struct Parts<M, D> {
    pub(super) config: Config,
    pub(super) identity: Identity,
    pub(super) reload: Reload,
    pub(super) machine: M,
    pub(super) store: D,
    pub(super) facade: Facade,
    pub(super) attendant: Attendant,
}

/// The running service.
struct Daemon<M: Machine, D> {
    machine: M,
    world: World,
    store: Arc<D>,
    reload: Reload,
    status: watch::Sender<Status>,
    news: broadcast::Sender<News>,
    meter: watch::Sender<Option<Meter>>,
    status_line: String,
    /// The one in force: the config's, unless somebody has asked for another.
    log_level: String,
    relist: Arc<Notify>,
    relist_at: Option<Instant>,
    errands: Errands,
    /// Who has asked for another subnet.
    renumbering: Option<Renumberer>,
    /// Who has asked to give the lease back.
    releasing: Option<Releaser>,
    passes: Passes<M>,
    watch: Post,
    bus: Post,
    managers: Managers,
    breath: Instant,
    ready: bool,
    /// The service manager waits for a reload to end.
    reloading: bool,
    /// The pass under way is the one that applies it.
    applying: bool,
}

/// The service's ends towards the outside.
#[derive(Clone)]
pub struct Ends {
    /// Every change of status.
    pub status: watch::Receiver<Status>,
    /// What outsiders ask for.
    pub commands: mpsc::Sender<Command>,
    /// To subscribe to what happens.
    pub news: broadcast::Sender<News>,
    /// Tells what the data plane in the service moves and drops, while there is one.
    pub meter: watch::Receiver<Option<Meter>>,
}

/// Runs the service until it is told to stop.
pub(super) async fn run<M: Machine, D: Datastore>(parts: Parts<M, D>) {
    let machine = parts.machine.clone();
    let (sightings, mut seen) = mpsc::channel(64);
    let (commands, mut asked) = mpsc::channel(16);
    let mut daemon = Daemon::new(parts, sightings, commands);
    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // what is seldom and matters goes first: no flood of events may hold it up
            biased;
            signal = machine.signal() => match signal {
                Signal::Stop => break,
                // the fault tells what went wrong
                Signal::Reload => drop(daemon.reload()),
            },
            _ = tick.tick() => daemon.tick(),
            reason = daemon.watch.lapse() => daemon.lapsed(Duty::Watch, &reason),
            reason = daemon.bus.lapse() => daemon.lapsed(Duty::Bus, &reason),
            reason = daemon.managers.post.lapse() => daemon.lapsed(Duty::Managers, &reason),
            Ok(()) = daemon.managers.report.changed() => daemon.see_managers(),
            errand = daemon.errands.next() => daemon.came_back(errand),
            round = daemon.passes.rounds.next() => daemon.advance(round),
            () = at(daemon.relist_at) => daemon.list_again(),
            Some(command) = asked.recv() => daemon.obey(command),
            Some(sighting) = seen.recv() => daemon.sighted(sighting),
            () = at(daemon.passes.due), if daemon.passes.rounds.is_free() => {}
            () = hint::<M>(&mut daemon.passes.hints) => daemon.passes.doubt(),
        }
        daemon.send_errand();
        daemon.begin_round();
    }
    daemon.stop();
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => pending().await,
    }
}

impl<M: Machine, D: Datastore> Daemon<M, D> {
    fn new(
        parts: Parts<M, D>,
        sightings: mpsc::Sender<Sighting>,
        commands: mpsc::Sender<Command>,
    ) -> Self {
        let machine = parts.machine;
        let kept = machine.remember(&parts.identity, None).err();
        let mut world = World::new(parts.config, parts.identity, parts.store.name());
        let fault = kept.map(|error| error.to_string());
        world.faults.note(Code::State, fault);
        let log_level = world.config.log.level.clone();
        let status = watch::channel(world.status(Arc::default())).0;
        let store = Arc::new(parts.store);
        let relist = Arc::new(Notify::new());
        let news = broadcast::channel(16).0;
        let meter = watch::channel(None).0;
        let ends = Ends {
            status: status.subscribe(),
            commands,
            news: news.clone(),
            meter: meter.subscribe(),
        };
        let facade = parts.facade;
        let bus = Box::new(move |pulse| facade(ends.clone(), pulse));
        let bus = Post::new(Duty::Bus, bus, machine.dice());
        let managers = Managers::new(parts.attendant, machine.dice());
        let watch = watcher::post(&machine, &store, &relist, sightings);
        Self {
            errands: Errands::new(machine.dice()),
            renumbering: None,
            releasing: None,
            passes: Passes::new(machine.dice()),
            machine,
            world,
            store,
            reload: parts.reload,
            status,
            news,
            meter,
            status_line: String::new(),
            log_level,
            relist,
            relist_at: None,
            watch,
            bus,
            managers,
            breath: Instant::now(),
            ready: false,
            reloading: false,
            applying: false,
        }
    }

    /// Lists again once everybody had time to come back, if that is to be waited for.
    fn list_later(&mut self) {
        if self.world.must_list() {
            let then = Instant::now() + REGROUP + SETTLE;
            self.relist_at.get_or_insert(then);
        }
    }

    fn list_again(&mut self) {
        self.relist_at = None;
        self.relist.notify_one();
    }

    fn sighted(&mut self, sighting: Sighting) {
        let now = self.machine.now();
        match sighting {
            Sighting::Snapshot(snapshot) => {
                self.errands.hurry();
                self.world.listed(snapshot, now);
                self.passes.mark_dirty();
            }
            Sighting::Events(events) => {
                // none is a sign of life, and nothing to act on
                let is_news = !events.is_empty();
                let freed = |event: &Event| matches!(event, Event::Deleted { .. });
                if events.iter().any(freed) {
                    // a subnet that was taken may be free
                    self.errands.hurry();
                }
                self.world.changed(events, now);
                if is_news {
                    self.passes.mark_dirty();
                }
            }
            Sighting::Lost(error) => {
                self.world.lost(&error, now);
                self.publish();
            }
        }
    }

    /// A duty has failed. It is begun anew by itself.
    fn lapsed(&mut self, duty: Duty, reason: &str) {
        self.world.lapsed(duty, reason, self.machine.now());
        self.publish();
    }

    /// Once a second: time-driven duties, the watchdog, the status line.
    fn tick(&mut self) {
        let now = self.machine.now();
        self.world.aged(now);
        self.list_later();
        if self.errands.are_idle() && self.world.duty(now).is_none() {
            self.world.faults.clear(Code::Lapse(Duty::Lease));
        }
        if self.breath.elapsed() >= BREATH {
            self.breath = Instant::now();
            self.world.faults.breathe();
        }
        for (duty, post) in [
            (Duty::Watch, &mut self.watch),
            (Duty::Bus, &mut self.bus),
            (Duty::Managers, &mut self.managers.post),
        ] {
            if self.world.faults.has(Code::Lapse(duty)) && post.is_well() {
                self.world.faults.clear(Code::Lapse(duty));
            }
        }
        let breakdown = self.machine.breakdown();
        let broken = breakdown.is_some();
        if broken {
            self.world.faults.note(Code::Proxy, breakdown);
        }
        self.passes.tick(broken);
        let contested = self.passes.contested();
        self.world.faults.note(Code::Contested, contested);
        // every duty does what it is there for, and passes come to an end
        if !self.world.faults.any_lapse() && !self.passes.is_overdue() {
            self.machine.tell(Notice::Watchdog);
        }
        self.publish();
    }

    fn obey(&mut self, command: Command) {
        match command {
            // an asker that has gone away is nobody's concern
            Command::Reload(answer) => drop(answer.send(self.reload())),
            Command::Reconcile(answer) => self.passes.ask_to_reconcile(Asker::Changes(answer)),
            Command::Plan(answer) => self.passes.ask_for_plan(answer),
            Command::Renumber(subnet, answer) => match self.world.renumber(subnet) {
                Ok(()) => {
                    self.errands.hurry();
                    self.renumbering = Some(answer);
                }
                Err(error) => drop(answer.send(Err(error))),
            },
            Command::Release(answer) => self.release(answer),
            Command::Cleanup(answer) => self.clean_up(answer),
            Command::TakeBridge(answer) => match docker::bridge_to_take(&self.world) {
                Ok(bridge) => self.passes.ask_to_reconcile(Asker::Bridge(bridge, answer)),
                Err(reason) => drop(answer.send(Err(reason))),
            },
            Command::SetLogLevel(level, answer) => drop(answer.send(self.set_log_level(level))),
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
            self.machine.tell(Notice::Reloading);
            self.reloading = true;
        }
        let result = (self.reload)().and_then(|config| self.reconfigure(config));
        match &result {
            Ok(()) => tracing::info!(message_id = Occasion::Reloaded.id(), "reloaded"),
            Err(error) => self.world.faults.note(Code::Config, Some(error.clone())),
        }
        // a node that had withdrawn needs a lease
        self.errands.hurry();
        self.passes.doubt();
        self.publish();
        result
    }

    /// A log level that somebody has asked for meanwhile stays, unless the config has another one
    /// than before.
    fn reconfigure(&mut self, config: Config) -> Result<(), String> {
        let level = config.log.level.clone();
        let is_new = level != self.world.config.log.level;
        self.world.reconfigure(config);
        if is_new {
            self.set_log_level(level)?;
        }
        Ok(())
    }

    fn set_log_level(&mut self, level: String) -> Result<(), String> {
        self.machine.set_log_level(&level)?;
        self.log_level = level;
        self.publish();
        Ok(())
    }

    fn publish(&mut self) {
        let now = self.machine.now();
        let mut status = self.world.status(self.passes.peers());
        status.state = match self.ready {
            _ if self.world.is_withdrawn() => State::Withdrawn,
            false => State::Waiting,
            true if self.passes.is_complete() && self.world.faults.is_empty() => State::Running,
            true => State::Degraded,
        };
        status.interfaces = self.passes.interfaces();
        status.last_reconcile_usec = self.passes.last_reconcile_usec();
        status.repairs = self.passes.repairs();
        status.log_level.clone_from(&self.log_level);
        let line = status.line(now.wall_usec);
        if line != self.status_line {
            self.machine.tell(Notice::Status(&line));
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
        self.machine.tell(Notice::Stopping);
        self.status
            .send_modify(|status| status.state = State::Stopping);
        self.errands.abort();
        self.passes.abort();
        tracing::info!(
            message_id = Occasion::Stopping.id(),
            subnet = self.world.subnet().map(tracing::field::display),
            "{}",
            self.world.farewell()
        );
    }
}
