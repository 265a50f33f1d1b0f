//! What the service manager is told (sd_notify(3)). Without one, every call does nothing.

use sd_notify::NotifyState;

/// A word to the service manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice<'a> {
    /// The service is up, for the first time or again after [`Notice::Reloading`].
    Ready,
    /// The line that `systemctl status` shows.
    Status(&'a str),
    /// The config is being read again; [`Notice::Ready`] ends it.
    Reloading,
    /// The service was told to stop.
    Stopping,
    /// The service is alive and does its duties.
    Watchdog,
}

/// Passes it on.
pub(super) fn tell(notice: Notice<'_>) {
    match notice {
        Notice::Ready => send(&[NotifyState::Ready]),
        // one line is all the protocol has room for
        Notice::Status(line) => send(&[NotifyState::Status(&line.replace('\n', " "))]),
        Notice::Reloading => match NotifyState::monotonic_usec_now() {
            Ok(now) => send(&[NotifyState::Reloading, now]),
            Err(error) => tracing::debug!(%error, "cannot read the monotonic clock"),
        },
        Notice::Stopping => send(&[NotifyState::Stopping]),
        Notice::Watchdog if sd_notify::watchdog_enabled().is_some() => {
            send(&[NotifyState::Watchdog]);
        }
        Notice::Watchdog => {}
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "cannot notify the service manager");
    }
}
