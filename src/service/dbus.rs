//! The service on D-Bus, for people, scripts and other services.
//!
//! It reads [`Status`] and sends [`Command`]s, and owns nothing else. The bus may be late, may
//! refuse the name and may go away: the network does not notice. One task serves; it never ends.

mod manager;
mod objects;
mod peer;

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};
use zbus::{connection, fdo};

use self::objects::Objects;
use super::duty::{Backoff, Pulse};
use super::status::{Command, Status};

/// The name on the bus.
pub const NAME: &str = "org.flannelrs.Flannel1";

/// The object with the `Manager` interface; peers lie under `/peer` below it.
pub const ROOT: &str = "/org/flannelrs/Flannel1";

/// What every error name of the service starts with.
pub const ERROR_PREFIX: &str = "org.flannelrs.Flannel1.Error";

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
pub async fn serve(status: watch::Receiver<Status>, commands: mpsc::Sender<Command>, pulse: Pulse) {
    serve_on(Bus::System, status, commands, pulse).await;
}

/// [`serve`], on a bus of the caller's choice.
pub async fn serve_on(
    bus: Bus,
    mut status: watch::Receiver<Status>,
    commands: mpsc::Sender<Command>,
    pulse: Pulse,
) {
    let mut told = None;
    let dice = StdRng::from_rng(&mut rand::rng());
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE, dice);
    loop {
        pulse.beat();
        let lost = match timeout(PATIENCE, Objects::serve(&bus, &mut status, &commands)).await {
            Ok(Ok(objects)) => {
                info!("on D-Bus as {NAME}");
                told = None;
                let since = Instant::now();
                let cause = keep_current(objects, &mut status, &pulse).await;
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

/// Shows each change of the status until the bus is lost; answers why it was.
async fn keep_current(
    mut objects: Objects,
    status: &mut watch::Receiver<Status>,
    pulse: &Pulse,
) -> String {
    loop {
        pulse.beat();
        tokio::select! {
            () = objects.closed() => return objects.close("it closed the connection").await,
            () = changed(status) => {}
            () = sleep(BEAT) => continue,
        }
        let current = status.borrow_and_update().clone();
        match timeout(PATIENCE, objects.update(current)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return objects.close(&error.to_string()).await,
            Err(_) => {
                let cause = format!("it took nothing for {PATIENCE:?}");
                return objects.close(&cause).await;
            }
        }
        tokio::select! {
            () = objects.closed() => {}
            () = sleep(QUIET) => {}
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
    fn builder(&self) -> connection::Builder<'_> {
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

/// A sign of life is given this often.
const BEAT: Duration = Duration::from_secs(15);

/// At most five updates a second.
const QUIET: Duration = Duration::from_millis(200);

/// How long the bus may take for one step. A stopped dbus-daemon keeps its sockets open and
/// reads nothing, so only time tells.
const PATIENCE: Duration = Duration::from_secs(30);

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
