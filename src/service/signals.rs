//! What the operating system asks of the service.

use std::io;
use std::task::{Context, Poll};

use tokio::signal::unix::{SignalKind, signal};

/// A request by signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
}

/// The signals that the service listens to.
pub(super) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// The next request. A wish to stop goes first.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Signal> {
        for signal in [&mut self.terminate, &mut self.interrupt] {
            if signal.poll_recv(cx).is_ready() {
                return Poll::Ready(Signal::Stop);
            }
        }
        self.hang_up.poll_recv(cx).map(|_| Signal::Reload)
    }
}
