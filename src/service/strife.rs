//! Somebody else who keeps undoing what this service sets up: a second manager of the network,
//! a script, another overlay. Repairing at once each time would be a race without an end. So a
//! row that is repaired three times is told, as are repairs of ever other rows that do not end,
//! and repairs slow down.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::kernel::change::Change;
use crate::kernel::firewall::Step;

/// So many repairs of one row are a dispute.
const ROUNDS: u32 = 3;
/// So many of our rules in somebody else's chain are. A dockerd that starts inserts rule after rule
/// before them, and an administrator may start it a second time.
const PASS_ROUNDS: u32 = 10;
/// After this long without a repair of it a row's dispute is over. Longer than any pause in one.
const QUIET: Duration = Duration::from_secs(18);
/// The pauses between repairs in a dispute double up to this.
const LONGEST: Duration = Duration::from_secs(4);
/// Of a larger repair, so many rows stand for all.
const SAMPLE: usize = 256;
/// So many rows are kept in mind at most.
const MEMORY: usize = 2048;
/// So many repairs in quick succession, of whatever rows, are a dispute too. One is forgiven in
/// each [`FORGIVENESS`].
const MANY: u32 = 12;
const FORGIVENESS: Duration = Duration::from_secs(2);

/// The repairs of late.
#[derive(Debug, Default)]
pub(super) struct Strife {
    rows: BTreeMap<Change, Row>,
    /// Repairs of whatever rows, those forgiven left out.
    repairs: u32,
    forgiven: Option<Instant>,
}

#[derive(Debug)]
struct Row {
    rounds: u32,
    last: Instant,
}

impl Strife {
    /// Rows were put right that had been right before.
    pub(super) fn repaired(&mut self, changes: &[Change], now: Instant) {
        self.aged(now);
        let rows: BTreeSet<&Change> = changes.iter().take(SAMPLE).collect();
        for row in rows {
            if let Some(known) = self.rows.get_mut(row) {
                known.rounds += 1;
                known.last = now;
            } else if self.rows.len() < MEMORY {
                let (rounds, last) = (1, now);
                self.rows.insert(row.clone(), Row { rounds, last });
            }
        }
        self.forgiven.get_or_insert(now);
        // without a limit it would take ever longer to be forgiven
        self.repairs = (self.repairs + 1).min(MANY + 1);
    }

    /// Time has passed.
    pub(super) fn aged(&mut self, now: Instant) {
        self.rows.retain(|_, row| now - row.last <= QUIET);
        while let Some(forgiven) = self.forgiven
            && now - forgiven >= FORGIVENESS
        {
            self.repairs = self.repairs.saturating_sub(1);
            self.forgiven = (self.repairs > 0).then_some(forgiven + FORGIVENESS);
        }
    }

    /// What is in dispute, for people.
    pub(super) fn text(&self) -> Option<String> {
        let (row, what) = if let Some((row, rounds, _)) = self.worst() {
            (row, format!("{rounds} times by now"))
        } else if self.repairs >= MANY {
            let (row, _) = self.rows.iter().max_by_key(|(_, row)| row.last)?;
            (row, "ever other rows, the last of them".to_owned())
        } else {
            return None;
        };
        let monitor = if matches!(row, Change::Firewall(_)) {
            "nft monitor"
        } else {
            "ip monitor"
        };
        Some(format!(
            "somebody else keeps undoing what this service sets up, {what}: \"{row}\"; find out \
             who also manages it (`{monitor}` shows it happen)"
        ))
    }

    /// How long to leave things as they are after the last repair.
    pub(super) fn pause(&self) -> Duration {
        let by_row = self.worst().map_or(Duration::ZERO, |(_, _, beyond)| {
            let doubled = 1u64 << beyond.min(10);
            Duration::from_secs(doubled).min(LONGEST)
        });
        let by_number = if self.repairs >= MANY {
            FORGIVENESS
        } else {
            Duration::ZERO
        };
        by_row.max(by_number)
    }

    /// The row that is most in dispute, its repairs, and those of them that came after it was one.
    fn worst(&self) -> Option<(&Change, u32, u32)> {
        let rows = self.rows.iter().filter_map(|(change, row)| {
            let beyond = row.rounds.checked_sub(rounds_of_dispute(change))?;
            Some((change, row.rounds, beyond))
        });
        rows.max_by_key(|(_, _, beyond)| *beyond)
    }
}

const fn rounds_of_dispute(row: &Change) -> u32 {
    if matches!(row, Change::Firewall(Step::PutPasses(..))) {
        PASS_ROUNDS
    } else {
        ROUNDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::firewall::{ForeignChain, Step};

    fn row(name: &str) -> Change {
        Change::DelLink(name.to_owned())
    }

    #[test]
    fn a_row_that_is_undone_again_and_again_is_told_and_left_alone_for_a_while() {
        let mut strife = Strife::default();
        let now = Instant::now();
        for _ in 0..2 {
            strife.repaired(&[row("a"), row("b"), row("b")], now);
            assert_eq!((strife.text(), strife.pause()), (None, Duration::ZERO));
        }
        strife.repaired(&[row("b")], now);
        let text = strife.text().unwrap();
        assert!(text.contains("3 times by now: \"delete link b\""), "{text}");
        assert!(text.contains("`ip monitor`"), "{text}");
        assert_eq!(strife.pause(), Duration::from_secs(1));
        for _ in 0..40 {
            strife.repaired(&[row("b")], now);
        }
        assert_eq!(strife.pause(), LONGEST);
    }

    #[test]
    fn a_dispute_about_the_packet_filter_is_seen_with_another_program() {
        let mut strife = Strife::default();
        for _ in 0..ROUNDS {
            strife.repaired(&[Change::Firewall(Step::DelTable)], Instant::now());
        }
        let text = strife.text().unwrap();
        assert!(text.contains("`nft monitor`"), "{text}");
    }

    #[test]
    fn repairs_of_other_rows_do_not_end_a_dispute_but_quiet_does() {
        let mut strife = Strife::default();
        let now = Instant::now();
        for name in ["a", "b", "a", "b", "c", "a"] {
            assert_eq!(strife.text(), None);
            strife.repaired(&[row(name)], now);
        }
        assert!(strife.text().unwrap().contains("delete link a"));
        strife.aged(now + QUIET);
        assert!(strife.text().is_some());
        strife.aged(now + QUIET + Duration::from_secs(1));
        assert_eq!((strife.text(), strife.pause()), (None, Duration::ZERO));
    }

    #[test]
    fn a_dockerd_that_starts_is_no_dispute_but_one_that_never_ends_is() {
        let mut strife = Strife::default();
        let mut now = Instant::now();
        let passes = Change::Firewall(Step::PutPasses(ForeignChain::FilterForward, Vec::new()));
        for _ in 1..PASS_ROUNDS {
            now += FORGIVENESS;
            strife.repaired(std::slice::from_ref(&passes), now);
            assert_eq!((strife.text(), strife.pause()), (None, Duration::ZERO));
        }
        strife.repaired(&[passes, row("a")], now);
        let text = strife.text().unwrap();
        assert!(
            text.contains("10 times by now: \"delete rules of ours"),
            "{text}"
        );
        assert_eq!(strife.pause(), Duration::from_secs(1));
    }

    #[test]
    fn repairs_of_ever_other_rows_that_do_not_end_are_told_and_few_are_not() {
        let mut strife = Strife::default();
        let mut now = Instant::now();
        for number in 0..60 {
            now += FORGIVENESS;
            strife.repaired(&[row(&format!("seldom{number}"))], now);
            assert_eq!((strife.text(), strife.pause()), (None, Duration::ZERO));
        }
        for number in 0..1000 {
            now += Duration::from_millis(250);
            strife.repaired(&[row(&format!("often{number}"))], now);
        }
        assert!(strife.text().unwrap().contains("delete link often999"));
        assert_eq!(strife.pause(), FORGIVENESS);
        strife.aged(now + QUIET + FORGIVENESS * 3);
        assert_eq!((strife.text(), strife.pause()), (None, Duration::ZERO));
    }

    #[test]
    fn what_is_kept_in_mind_is_bounded() {
        let mut strife = Strife::default();
        let now = Instant::now();
        let rows: Vec<Change> = (0..5000).map(|number| row(&number.to_string())).collect();
        for rows in rows.chunks(100) {
            strife.repaired(rows, now);
        }
        assert_eq!(strife.rows.len(), MEMORY);
    }
}
