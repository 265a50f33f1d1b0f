//! Whether a worker still comes round.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often a worker has come round. Only that worker writes; two cache lines long at least, as a
/// [`Tally`](super::counters::Tally) is.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Beats(AtomicU64);

impl Beats {
    /// Once for each batch, and now and then while there is none.
    pub(super) fn beat(&self) {
        let next = self.0.load(Ordering::Relaxed).wrapping_add(1);
        self.0.store(next, Ordering::Relaxed);
    }

    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long a worker has been silent, as far as somebody listened. While the whole process was
/// stopped nobody did, and the worker had no chance to beat either.
#[derive(Debug)]
pub(super) struct Silence {
    beats: u64,
    listened: Instant,
    silent: Duration,
}

impl Silence {
    pub(super) const fn since(now: Instant) -> Self {
        Self {
            beats: 0,
            listened: now,
            silent: Duration::ZERO,
        }
    }

    /// Takes in the worker's count; answers how long it has not changed.
    pub(super) fn heard(&mut self, beats: u64, now: Instant) -> Duration {
        let since = now.saturating_duration_since(self.listened);
        self.listened = now;
        if beats == self.beats {
            self.silent += since.min(ATTENTION);
        } else {
            self.beats = beats;
            self.silent = Duration::ZERO;
        }
        self.silent
    }
}

/// The longest pause between two listenings that counts as listening.
const ATTENTION: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(silence: &mut Silence, at: &mut Instant, beats: u64, seconds: u64) -> u64 {
        *at += Duration::from_secs(seconds);
        silence.heard(beats, *at).as_secs()
    }

    #[test]
    fn silence_adds_up_until_the_next_beat() {
        let mut at = Instant::now();
        let mut silence = Silence::since(at);
        let beats = Beats::default();
        beats.beat();
        assert_eq!(listen(&mut silence, &mut at, beats.count(), 1), 0);
        for seconds in 1..=20 {
            assert_eq!(listen(&mut silence, &mut at, beats.count(), 1), seconds);
        }
        beats.beat();
        assert_eq!(listen(&mut silence, &mut at, beats.count(), 1), 0);
    }

    #[test]
    fn a_stop_of_the_whole_process_is_no_silence_of_the_worker() {
        let mut at = Instant::now();
        let mut silence = Silence::since(at);
        assert_eq!(listen(&mut silence, &mut at, 0, 3600), 3);
        assert_eq!(listen(&mut silence, &mut at, 1, 1), 0);
    }
}
