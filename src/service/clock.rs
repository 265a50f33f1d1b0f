//! The clocks of the shell. Pure code gets its times as arguments.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// A point in time, by two clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// Time since boot, suspends included: a lease runs out while the machine sleeps (flannel
    /// trap T12), and neither the wall clock's jumps nor tokio's clock would tell.
    pub(super) since_boot: Duration,
    /// Microseconds since 1970, for people and D-Bus.
    pub(super) wall_usec: u64,
}

/// Now.
pub(super) fn now() -> Moment {
    let boot = clock_gettime(ClockId::CLOCK_BOOTTIME);
    let wall = SystemTime::now().duration_since(UNIX_EPOCH);
    Moment {
        since_boot: boot.map_or(Duration::ZERO, Duration::from),
        wall_usec: wall.map_or(0, usec),
    }
}

/// Whole microseconds of a duration.
pub(super) fn usec(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
