//! What the service manager is told (sd_notify(3)). Without one, every call does nothing.

use sd_notify::NotifyState;

/// The service is up, for the first time or again after [`reloading`].
pub(super) fn ready() {
    send(&[NotifyState::Ready]);
}

/// The line that `systemctl status` shows.
pub(super) fn status(line: &str) {
    // one line is all the protocol has room for
    let line = line.replace('\n', " ");
    send(&[NotifyState::Status(&line)]);
}

/// The config is being read again; [`ready`] ends it.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "cannot read the monotonic clock"),
    }
}

/// The service was told to stop.
pub(super) fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// The service is alive and does its duties.
pub(super) fn watchdog() {
    if sd_notify::watchdog_enabled().is_some() {
        send(&[NotifyState::Watchdog]);
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "cannot notify the service manager");
    }
}
