//! When is measured: a stretch of time that all parts of a run know beforehand.

use std::thread;
use std::time::{Duration, Instant};

use crate::machine;

/// For what comes before: connections open their windows, queues fill.
const WARM_UP: Duration = Duration::from_millis(250);

/// A stretch of time in which traffic counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    from: Instant,
    to: Instant,
}

impl Window {
    /// One of this length that begins after a short warm-up.
    pub(crate) fn soon(length: Duration) -> Self {
        let from = Instant::now() + WARM_UP;
        let to = from + length;
        Self { from, to }
    }

    /// One of this length that begins now.
    pub(crate) fn now(length: Duration) -> Self {
        let from = Instant::now();
        let to = from + length;
        Self { from, to }
    }

    pub(crate) fn holds(self, now: Instant) -> bool {
        self.from <= now && now < self.to
    }

    pub(crate) fn is_over(self, now: Instant) -> bool {
        now >= self.to
    }

    pub(crate) fn seconds(self) -> f64 {
        (self.to - self.from).as_secs_f64()
    }

    /// Waits for its end, and answers how many seconds of processor time the whole machine has
    /// used in it.
    pub(crate) fn busy(self) -> f64 {
        sleep_until(self.from);
        let before = machine::busy();
        sleep_until(self.to);
        machine::busy() - before
    }
}

fn sleep_until(then: Instant) {
    thread::sleep(then.saturating_duration_since(Instant::now()));
}
