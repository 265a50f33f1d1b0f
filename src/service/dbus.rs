//! The service on D-Bus, for people, scripts and other services.
//!
//! It reads [`Status`] and sends [`Command`](super::status::Command)s, and owns nothing else. The
//! bus may be late, may refuse the name and may go away: the network does not notice. One task
//! serves; it never ends.

mod authority;
mod collection;
mod link;
mod log_control;
mod manager;
mod objects;
mod orders;
mod peer;
mod properties;
mod refusal;

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::{broadcast, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};
use zbus::{connection, fdo};

use self::objects::Objects;
use self::orders::Onlookers;
use super::daemon::Ends;
use super::duty::{Backoff, Pulse};
use super::status::{News, PlannedChange, Status};

/// The name on the bus.
pub const NAME: &str = "org.flannelrs.Flannel1";

/// The object with the `Manager` interface; peers lie under `/peer` below it, links under
/// `/interface`.
pub const ROOT: &str = "/org/flannelrs/Flannel1";

/// What every error name of the service starts with.
pub const ERROR_PREFIX: &str = "org.flannelrs.Flannel1.Error";

/// The object with the log level, where systemctl(1) looks for it.
const LOG_CONTROL: &str = "/org/freedesktop/LogControl1";

/// A message bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bus {
    /// The one in `DBUS_SYSTEM_BUS_ADDRESS`, else the machine's.
    System,
    /// The one at this address, such as `unix:path=/run/bus`.
    At(String),
}

/// Serves the status on the system bus, for ever.
///
/// Says once in the log whenever the bus comes or goes. Ends only by being dropped.
pub async fn serve(ends: Ends, pulse: Pulse) {
    serve_on(Bus::System, ends, pulse).await;
}

/// [`serve`], on a bus of the caller's choice.
pub async fn serve_on(bus: Bus, mut ends: Ends, pulse: Pulse) {
    let mut told = None;
    let dice = StdRng::from_rng(&mut rand::rng());
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE, dice);
    loop {
        pulse.beat();
        let lost = match timeout(PATIENCE, Objects::serve(&bus, &mut ends)).await {
            Ok(Ok((objects, onlookers))) => {
                info!("on D-Bus as {NAME}");
                told = None;
                let since = Instant::now();
                let cause = keep_current(objects, onlookers, &mut ends, &pulse).await;
                // A bus that takes us and drops us at once gets no fresh start.
                if since.elapsed() > LONGEST_PAUSE {
                    backoff.reset();
                }
                Loss::gone(cause)
            }
            Ok(Err(error)) => Loss::at_start(&error),
            Err(_) => Loss::gone(format!("no answer within {PATIENCE:?}")),
        };
        if told != Some(lost.trouble) {
            warn!("{lost}; the network does not need it, trying on");
            told = Some(lost.trouble);
        }
        sleep(backoff.pause()).await;
    }
}

/// What there is to show or to tell.
enum Event {
    News(News),
    Change,
    /// Somebody waits until the status is shown. It waits in turn for the sender to be dropped.
    Onlooker(oneshot::Sender<()>),
}

/// Shows each change of the status, and tells the news, until the bus is lost; answers why it was.
async fn keep_current(
    mut objects: Objects,
    mut onlookers: Onlookers,
    ends: &mut Ends,
    pulse: &Pulse,
) -> String {
    let mut news = ends.news.subscribe();
    let mut quiet = Instant::now();
    loop {
        pulse.beat();
        let event = tokio::select! {
            () = objects.closed() => return objects.close("it closed the connection").await,
            event = next_after(quiet, &mut news, &mut ends.status) => event,
            // an order was given and followed: who gave it does not wait for the pause
            Some(onlooker) = onlookers.recv() => Event::Onlooker(onlooker),
            () = sleep(BEAT) => continue,
        };
        if !matches!(event, Event::Onlooker(_)) {
            quiet = Instant::now() + QUIET;
        }
        let taken = async {
            let onlooker = match event {
                Event::News(news) => return objects.tell(news).await,
                Event::Change => None,
                Event::Onlooker(onlooker) => Some(onlooker),
            };
            let current = ends.status.borrow_and_update().clone();
            objects.update(current).await?;
            drop(onlooker);
            Ok(())
        };
        match timeout(PATIENCE, taken).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return objects.close(&error.to_string()).await,
            Err(_) => {
                let cause = format!("it took nothing for {PATIENCE:?}");
                return objects.close(&cause).await;
            }
        }
    }
}

/// The next piece of news or change of the status, but none before this moment. Cancel safe.
async fn next_after(
    quiet: Instant,
    news: &mut broadcast::Receiver<News>,
    status: &mut watch::Receiver<Status>,
) -> Event {
    sleep_until(quiet).await;
    tokio::select! {
        heard = next(news) => Event::News(heard),
        () = changed(status) => Event::Change,
    }
}

/// The next piece of news, whatever was missed before it; never, once nobody is left to tell any.
async fn next(news: &mut broadcast::Receiver<News>) -> News {
    loop {
        match news.recv().await {
            Ok(news) => return news,
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// The next change of the status; never, once nobody is left to change it.
async fn changed(status: &mut watch::Receiver<Status>) {
    if status.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

impl Bus {
    pub(super) fn builder(&self) -> connection::Builder<'_> {
        match self {
            Self::System => connection::Builder::system(),
            Self::At(address) => connection::Builder::address(address.as_str()),
        }
    }
}

/// Why the service is not on the bus.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{trouble}: {cause}")]
struct Loss {
    trouble: Trouble,
    cause: String,
}

/// The kinds of [`Loss`]. A second one of the same kind is no news.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Trouble {
    #[error("not on D-Bus, there is no bus")]
    NoBus,
    #[error("not on D-Bus, the bus does not give us the name {NAME}")]
    NameRefused,
}

impl Loss {
    fn gone(cause: String) -> Self {
        Self {
            trouble: Trouble::NoBus,
            cause,
        }
    }

    /// The only calls before the service is up are those that take the name, so an error reply
    /// is a refusal.
    fn at_start(error: &zbus::Error) -> Self {
        use zbus::Error::{FDO, MethodError, NameTaken};
        let denied = matches!(error, FDO(e) if matches!(**e, fdo::Error::AccessDenied(_)));
        let trouble = if matches!(error, NameTaken | FDO(_) | MethodError(..)) {
            Trouble::NameRefused
        } else {
            Trouble::NoBus
        };
        let cause = if denied {
            format!("{error}; a policy file in /usr/share/dbus-1/system.d must allow it")
        } else {
            error.to_string()
        };
        Self { trouble, cause }
    }
}

/// Text from outside, for a D-Bus string: those cannot hold a NUL, and one that does would cost
/// the whole message, or the whole object tree in the answer to `GetManagedObjects`.
fn text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Text that may be missing.
fn optional(value: Option<&String>) -> String {
    value.map(|value| text(value)).unwrap_or_default()
}

/// Changes as they go over the bus.
fn pairs(changes: Vec<PlannedChange>) -> Vec<(String, String)> {
    let pair = |change: PlannedChange| (text(&change.verb), text(&change.object));
    changes.into_iter().map(pair).collect()
}

/// A sign of life is given this often.
const BEAT: Duration = Duration::from_secs(15);

/// At most five updates or pieces of news a second, besides what callers wait for.
const QUIET: Duration = Duration::from_millis(200);

/// How long the bus may take for one step. A stopped dbus-daemon keeps its sockets open and
/// reads nothing, so only time tells.
const PATIENCE: Duration = Duration::from_secs(30);

/// Less than the 25 s after which clients of D-Bus give up by themselves, so that they hear why.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// How long a person may look for a password.
pub(crate) const PERSON: Duration = Duration::from_secs(300);

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
