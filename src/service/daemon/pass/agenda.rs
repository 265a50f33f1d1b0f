//! What is to be done, when, and for whom; and what became of it.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::super::SETTLE;
use crate::cluster::subnet::Subnet;
use crate::kernel::KernelError;
use crate::kernel::reconcile::{Reconciler, Report};
use crate::kernel::uplink::Interfaces;
use crate::plan::Plan;
use crate::service::docker;
use crate::service::duty::{Duty, Rounds};
use crate::service::files::FileError;
use crate::service::machine::Machine;
use crate::service::status::{InterfaceStatus, PeerStatus, PlannedChange, RenumberError};
use crate::service::strife::Strife;

/// The machine is looked at this often even when nothing hints at a change; less often where
/// looking takes long, so that it costs next to nothing.
const RESYNC: Duration = Duration::from_secs(30);
const RESYNC_SHARE: u32 = 4000;
const RESYNC_LIMIT: Duration = Duration::from_secs(300);
/// Passes do not follow each other more closely than the first; than the second where they take
/// their time.
const PACE: [Duration; 2] = [Duration::from_millis(250), Duration::from_millis(500)];
const PACE_SHARE: u32 = 15;
/// A pass that came to nothing is tried again after this long.
pub(super) const RETRY: Duration = Duration::from_secs(1);
/// The journal gets a line on what was set up at most this often.
const SILENCE: Duration = Duration::from_secs(10);
/// After this long without a pass, passes count as not done.
const OVERDUE: Duration = Duration::from_secs(120);

pub(super) type Planned = Result<Vec<PlannedChange>, String>;
/// Who wants to know the subnet that was given back.
pub(in crate::service::daemon) type Releaser = oneshot::Sender<Result<Subnet, String>>;

/// Who wants to know the subnet that was taken.
pub(in crate::service::daemon) type Renumberer = oneshot::Sender<Result<Subnet, RenumberError>>;

/// Who waits for the end of a pass.
pub(in crate::service::daemon) enum Asker {
    /// Wants to know what was changed.
    Changes(oneshot::Sender<Planned>),
    /// Wants this bridge to be ours, whoever has it, and to know what was changed on it.
    Bridge(String, oneshot::Sender<Planned>),
    /// Wants to know that nothing of this subnet is left.
    Departure(Subnet, Releaser),
    /// Wants to know that all is there for this subnet.
    Arrival(Subnet, Renumberer),
}

impl Asker {
    /// The bridge that it wants to be ours.
    pub(super) fn claim(&self) -> Option<String> {
        match self {
            Self::Bridge(bridge, _) => Some(bridge.clone()),
            Self::Changes(_) | Self::Departure(..) | Self::Arrival(..) => None,
        }
    }

    /// One that has gone away is nobody's concern.
    pub(super) fn answer(self, result: Planned) {
        match self {
            Self::Changes(answer) => drop(answer.send(result)),
            Self::Bridge(bridge, answer) => {
                let taken = result.and_then(|changes| docker::taken(&bridge, changes));
                drop(answer.send(taken));
            }
            Self::Departure(subnet, answer) => {
                let left = |error| {
                    format!(
                        "{subnet} was given up, but not everything of it could be removed from \
                         this host yet, which is tried again: {error}"
                    )
                };
                drop(answer.send(result.map(|_| subnet).map_err(left)));
            }
            Self::Arrival(subnet, answer) => {
                let lacking = |error| {
                    RenumberError::Failed(format!(
                        "{subnet} was taken, but not everything for it could be set up on this \
                         host yet, which is tried again: {error}"
                    ))
                };
                drop(answer.send(result.map(|_| subnet).map_err(lacking)));
            }
        }
    }
}

/// The passes: what they work with, when the next is due, what became of the last.
pub(in crate::service::daemon) struct Passes<M: Machine> {
    pub(in crate::service::daemon) rounds: Rounds<Round<M::Kernel>>,
    pub(in crate::service::daemon) hints: Option<M::Hints>,
    /// `None` while a round has it, and after one that lapsed.
    pub(super) kernel: Option<Reconciler<M::Kernel>>,
    pub(in crate::service::daemon) due: Option<Instant>,
    /// Something may have changed on the machine: what is known of it is to be read again.
    pub(super) doubtful: bool,
    pub(super) plan: Option<Arc<Plan>>,
    pub(super) peers: Arc<Vec<PeerStatus>>,
    /// The plan that was last reached; what changes while it stays the same is a repair.
    pub(super) reached: Option<Arc<Plan>>,
    /// The plan that was last tried.
    pub(super) tried: Option<Arc<Plan>>,
    pub(super) complete: bool,
    pub(super) began: Instant,
    pub(super) ended: Instant,
    /// When the machine was last looked at.
    pub(super) looked: Instant,
    /// Whether the pass under way reads everything.
    pub(super) whole: bool,
    /// How long the last pass took that was made.
    pub(super) cost: Duration,
    /// How long the last one took that read everything and found nothing to do.
    pub(super) reading: Duration,
    pub(super) strife: Strife,
    /// Changes that the journal was not told of yet.
    pub(super) untold: usize,
    pub(super) told: Option<Instant>,
    pub(super) repairs: u64,
    pub(super) last_reconcile_usec: Option<u64>,
    /// Who wants to know what would be changed.
    pub(super) planning: Vec<oneshot::Sender<Planned>>,
    /// Who waits for the next pass.
    pub(super) reconciling: Vec<Asker>,
    /// Who waits for the pass under way. It was begun after they had asked.
    pub(super) attending: Vec<Asker>,
    /// The links, as they should be and as the last pass has found or left them.
    pub(super) interfaces: Arc<Vec<InterfaceStatus>>,
}

/// What a round has come to. It gives the kernel back.
pub(in crate::service::daemon) enum Round<K> {
    Looked(Reconciler<K>, Result<Interfaces, KernelError>),
    Made(Reconciler<K>, Made),
    Compared(Reconciler<K>, Planned),
}

/// What was made.
pub(in crate::service::daemon) struct Made {
    /// What was to be changed, if somebody asked.
    pub(super) before: Option<Planned>,
    pub(super) proxy: Result<(), String>,
    pub(super) kernel: Result<Report, KernelError>,
    pub(super) files: Result<(), FileError>,
}

impl<M: Machine> Passes<M> {
    pub(in crate::service::daemon) fn new(dice: StdRng) -> Self {
        let now = Instant::now();
        Self {
            rounds: Rounds::new(Duty::Reconcile, dice),
            hints: None,
            kernel: None,
            due: Some(now),
            doubtful: true,
            plan: None,
            peers: Arc::default(),
            reached: None,
            tried: None,
            complete: false,
            began: now,
            ended: now,
            looked: now,
            whole: false,
            cost: Duration::ZERO,
            reading: Duration::ZERO,
            strife: Strife::default(),
            untold: 0,
            told: None,
            repairs: 0,
            last_reconcile_usec: None,
            planning: Vec::new(),
            reconciling: Vec::new(),
            attending: Vec::new(),
            interfaces: Arc::default(),
        }
    }

    /// Something is to be done anew: a pass will come.
    pub(in crate::service::daemon) fn mark_dirty(&mut self) {
        let pace = (self.cost * PACE_SHARE).clamp(PACE[0], PACE[1]);
        self.due_at((Instant::now() + SETTLE).max(self.ended + pace));
    }

    /// Something may have changed on the machine: a pass will look. In a dispute not at once.
    pub(in crate::service::daemon) fn doubt(&mut self) {
        self.doubtful = true;
        let patience = self.ended + self.strife.pause();
        if patience > Instant::now() {
            self.due_at(patience);
        } else {
            self.mark_dirty();
        }
    }

    /// A pass is to come without delay.
    pub(in crate::service::daemon) fn hurry(&mut self) {
        self.due = Some(Instant::now());
    }

    pub(super) fn due_at(&mut self, when: Instant) {
        self.due = Some(self.due.map_or(when, |due| due.min(when)));
    }

    /// Once a second. `broken` says that the data plane has stopped.
    pub(in crate::service::daemon) fn tick(&mut self, broken: bool) {
        if self.looked.elapsed() >= self.resync() || broken {
            self.doubt();
        }
        self.strife.aged(Instant::now());
        self.tell();
    }

    /// One line for what was set up since the last; peers may come and go at any rate.
    pub(super) fn tell(&mut self) {
        let silent = self.told.is_some_and(|told| told.elapsed() < SILENCE);
        if self.untold > 0 && !silent {
            self.told = Some(Instant::now());
            let changes = std::mem::take(&mut self.untold);
            tracing::info!(changes, peers = self.peers.len(), "kernel set up");
        }
    }

    pub(in crate::service::daemon) fn is_overdue(&self) -> bool {
        self.ended.elapsed() > OVERDUE.max(self.resync() * 2)
    }

    fn resync(&self) -> Duration {
        (self.reading * RESYNC_SHARE).clamp(RESYNC, RESYNC_LIMIT)
    }

    pub(in crate::service::daemon) fn ask_to_reconcile(&mut self, asker: Asker) {
        self.reconciling.push(asker);
        self.doubtful = true;
        self.hurry();
    }

    pub(in crate::service::daemon) fn ask_for_plan(&mut self, answer: oneshot::Sender<Planned>) {
        self.planning.push(answer);
    }

    /// Nobody is left waiting for an answer that may never come.
    pub(super) fn turn_away(&mut self, reason: &str) {
        let planning = self.planning.drain(..).map(Asker::Changes);
        let reconciling = self.reconciling.drain(..).chain(self.attending.drain(..));
        for asker in planning.chain(reconciling) {
            asker.answer(Err(reason.to_owned()));
        }
    }

    pub(in crate::service::daemon) fn abort(&mut self) {
        self.rounds.abort();
    }

    pub(in crate::service::daemon) fn peers(&self) -> Arc<Vec<PeerStatus>> {
        self.peers.clone()
    }

    pub(in crate::service::daemon) fn interfaces(&self) -> Arc<Vec<InterfaceStatus>> {
        self.interfaces.clone()
    }

    pub(in crate::service::daemon) const fn is_complete(&self) -> bool {
        self.complete
    }

    pub(in crate::service::daemon) fn contested(&self) -> Option<String> {
        self.strife.text()
    }

    pub(in crate::service::daemon) const fn repairs(&self) -> u64 {
        self.repairs
    }

    pub(in crate::service::daemon) const fn last_reconcile_usec(&self) -> Option<u64> {
        self.last_reconcile_usec
    }
}

/// The next hint, from hints that there may be.
pub(in crate::service::daemon) async fn hint<M: Machine>(hints: &mut Option<M::Hints>) {
    match hints {
        Some(hints) => M::hint(hints).await,
        None => std::future::pending().await,
    }
}
