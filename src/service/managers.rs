//! Others who manage this host's network: firewalld, NetworkManager, systemd-networkd. Each is
//! looked at where it runs, and never started.
//!
//! The plan says what they must let through or leave alone; firewalld is told so, and of the
//! others it is read whether they do. What is still wrong goes back to the loop as one text. A
//! manager that hangs or lies holds up nobody: this is a task of its own, with a limit on all that
//! it waits for, and no packet depends on it.

mod call;
mod firewalld;
mod network_manager;
mod networkd;

use std::time::Duration;

use futures_util::future::Either;
use futures_util::stream::{SelectAll, select_all};
use futures_util::{Stream, StreamExt};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use zbus::message::Type;
use zbus::{Connection, MatchRule, MessageStream, match_rule};

use self::call::Manager;
use self::firewalld::Firewalld;
use super::dbus::Bus;
use super::duty::{Backoff, Pulse};
use crate::plan::Footprint;

/// What the task works with: what it is to see to, and where it says what came of it.
#[derive(Debug, Clone)]
pub struct Desk {
    footprint: watch::Receiver<Footprint>,
    report: watch::Sender<Report>,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What was seen to.
    pub of: Footprint,
    /// All that is wrong, in one text for people.
    pub trouble: Option<String>,
}

/// A desk, and both ends of it: what is to be seen to, and what came of it. At first that is
/// nothing.
#[must_use]
pub fn desk() -> (watch::Sender<Footprint>, Desk, watch::Receiver<Report>) {
    let (wanted, footprint) = watch::channel(Footprint::default());
    let (report, seen) = watch::channel(Report::default());
    (wanted, Desk { footprint, report }, seen)
}

/// Waits until this was seen to, but not for long.
pub(super) async fn seen(report: &mut watch::Receiver<Report>, footprint: &Footprint) {
    let seen = report.wait_for(|report| report.of == *footprint);
    if timeout(LEAVE, seen).await.is_err() {
        tracing::warn!(
            "firewalld may still let through what was the overlay's: it did not answer within \
             {LEAVE:?}; see firewall-cmd --list-all-zones"
        );
    }
}

/// Sees to it on this bus, for ever. Where there is no bus there is nothing to see to.
pub async fn attend_on(bus: Bus, mut desk: Desk, pulse: Pulse) {
    let mut firewalld = Firewalld::default();
    let dice = StdRng::from_rng(&mut rand::rng());
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE, dice);
    desk.first(&pulse).await;
    loop {
        pulse.beat();
        match timeout(PATIENCE, Watch::begin(&bus)).await {
            Ok(Ok(mut watch)) => {
                let since = Instant::now();
                watch.keep(&mut desk, &mut firewalld, &pulse).await;
                if since.elapsed() > LONGEST_PAUSE {
                    backoff.reset();
                }
            }
            // who serves on the bus says so
            Ok(Err(error)) => tracing::debug!("no look at other managers: {error}"),
            Err(_) => tracing::debug!("no look at other managers: the bus does not answer"),
        }
        desk.say(&[]);
        let pause = sleep(backoff.pause());
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                () = desk.changed() => desk.say(&[]),
            }
        }
    }
}

/// Has firewalld, where it runs, let in no longer what a service that is gone has told it to.
///
/// # Errors
/// What is left, in a text for people.
pub async fn withdraw(bus: &Bus, footprint: &Footprint) -> Result<(), String> {
    let joining = async { bus.builder().build().await };
    let Ok(Ok(connection)) = timeout(PATIENCE, joining).await else {
        return Ok(());
    };
    let Some(manager) = Manager::find(&connection, firewalld::NAME).await else {
        return Ok(());
    };
    let mut firewalld = Firewalld::left_by(&manager, footprint).await;
    let left = firewalld.settle(&manager, &Footprint::default()).await;
    if left.is_empty() {
        return Ok(());
    }
    Err(left.join("; "))
}

impl Desk {
    /// Of a host where nobody else manages the network.
    #[cfg(test)]
    pub(super) async fn alone(mut self, pulse: Pulse) {
        loop {
            pulse.beat();
            self.say(&[]);
            drop(timeout(BEAT, self.changed()).await);
        }
    }

    /// Waits until there is something to see to.
    async fn first(&mut self, pulse: &Pulse) {
        while *self.footprint.borrow() == Footprint::default() {
            pulse.beat();
            drop(timeout(BEAT, self.changed()).await);
        }
    }

    /// Cancel safe. Never, once nobody is left who could want anything.
    async fn changed(&mut self) {
        if self.footprint.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn say(&self, complaints: &[String]) {
        let of = self.footprint.borrow().clone();
        self.say_of(of, complaints);
    }

    fn say_of(&self, of: Footprint, complaints: &[String]) {
        let trouble = (!complaints.is_empty()).then(|| complaints.join("; "));
        let report = Report { of, trouble };
        self.report.send_if_modified(|last| {
            let before = std::mem::replace(last, report);
            *last != before
        });
    }
}

/// A connection to the bus, and the hints that come over it.
struct Watch {
    connection: Connection,
    hints: SelectAll<MessageStream>,
}

/// Why the managers are looked at again.
enum Reason {
    /// What is wanted has changed, or somebody has said or done something.
    Hint,
    /// Time has passed.
    Time,
    /// The bus has gone.
    Lost,
}

impl Watch {
    async fn begin(bus: &Bus) -> zbus::Result<Self> {
        let connection = bus.builder().build().await?;
        let mut hints = Vec::new();
        for name in [firewalld::NAME, network_manager::NAME, networkd::NAME] {
            let comes_or_goes = signal("org.freedesktop.DBus", "NameOwnerChanged")
                .arg(0, name)
                .build()?;
            hints.push(MessageStream::for_match_rule(comes_or_goes, &connection, None).await?);
        }
        // a reload drops whatever is not in its files
        let reloaded = signal(firewalld::NAME, "Reloaded").build()?;
        hints.push(MessageStream::for_match_rule(reloaded, &connection, None).await?);
        Ok(Self {
            connection,
            hints: select_all(hints),
        })
    }

    /// Until the bus is lost.
    async fn keep(&mut self, desk: &mut Desk, firewalld: &mut Firewalld, pulse: &Pulse) {
        let mut reason = Reason::Hint;
        while !matches!(reason, Reason::Lost) {
            pulse.beat();
            let footprint = desk.footprint.borrow_and_update().clone();
            let looking = look(&self.connection, firewalld, &footprint);
            let (looked, hinted) = heeding(&mut self.hints, looking).await;
            let Look { found, complaints } = looked;
            desk.say_of(footprint, &complaints);
            let (_, hinted_since) = heeding(&mut self.hints, sleep(QUIET)).await;
            if hinted || hinted_since {
                reason = Reason::Hint;
                continue;
            }
            // a link that has just come is in nobody's hands yet
            let pause = match reason {
                Reason::Hint => SOON,
                Reason::Time | Reason::Lost => SLOW,
            };
            let due = found.then(|| Instant::now() + pause);
            reason = self.next(desk, due, pulse).await;
        }
    }

    async fn next(&mut self, desk: &mut Desk, due: Option<Instant>, pulse: &Pulse) -> Reason {
        let due = match due {
            Some(due) => Either::Left(sleep_until(due)),
            None => Either::Right(std::future::pending()),
        };
        tokio::pin!(due);
        loop {
            pulse.beat();
            tokio::select! {
                () = self.connection.closed() => return Reason::Lost,
                hint = self.hints.next() => return match hint {
                    Some(Ok(_)) => Reason::Hint,
                    Some(Err(_)) | None => Reason::Lost,
                },
                () = desk.changed() => return Reason::Hint,
                () = &mut due => return Reason::Time,
                () = sleep(BEAT) => {}
            }
        }
    }
}

/// Ends with `work`, and says whether a hint came meanwhile. Hints that nobody takes would hold up
/// the connection, and with it the answers that `work` waits for.
async fn heeding<T>(
    hints: &mut (impl Stream<Item = zbus::Result<zbus::Message>> + Unpin),
    work: impl Future<Output = T>,
) -> (T, bool) {
    tokio::pin!(work);
    let mut hinted = false;
    loop {
        tokio::select! {
            done = &mut work => return (done, hinted),
            Some(hint) = hints.next() => hinted |= hint.is_ok(),
        }
    }
}

/// A signal of the interface that has the sender's name.
fn signal<'a>(sender: &'a str, member: &'a str) -> match_rule::Builder<'a> {
    MatchRule::builder()
        .msg_type(Type::Signal)
        .sender(sender)
        .interface(sender)
        .member(member)
}

/// What a look at all managers has shown.
#[derive(Default)]
struct Look {
    /// Whether there is any.
    found: bool,
    complaints: Vec<String>,
}

async fn look(connection: &Connection, firewalld: &mut Firewalld, footprint: &Footprint) -> Look {
    let firewall = async {
        let manager = Manager::find(connection, firewalld::NAME).await?;
        Some(firewalld.settle(&manager, footprint).await)
    };
    let network_manager = async {
        let manager = Manager::find(connection, network_manager::NAME).await?;
        Some(network_manager::look(&manager, footprint).await)
    };
    let networkd = async {
        let manager = Manager::find(connection, networkd::NAME).await?;
        Some(networkd::look(&manager, footprint).await)
    };
    let (first, second, third) = tokio::join!(firewall, network_manager, networkd);
    let mut look = Look::default();
    for complaints in [first, second, third].into_iter().flatten() {
        look.found = true;
        look.complaints.extend(complaints);
    }
    look
}

/// A sign of life is given this often.
const BEAT: Duration = Duration::from_secs(15);

/// How long the bus may take to be joined.
const PATIENCE: Duration = Duration::from_secs(20);

/// However often somebody hints.
const QUIET: Duration = Duration::from_millis(500);

/// The second look, after a change.
const SOON: Duration = Duration::from_secs(3);

/// The looks after that: nobody tells when an administrator takes back what was set.
const SLOW: Duration = Duration::from_secs(60);

/// How long a node that leaves waits for firewalld.
const LEAVE: Duration = Duration::from_secs(5);

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
