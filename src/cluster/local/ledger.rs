//! Entries, their revisions and the last changes: what a datastore is, without any I/O.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cluster::datastore::{Entry, Event, Fence, Outcome, Put, Revision, Snapshot};

/// How many changes are kept for watches; older ones are forgotten.
const CHANGES: usize = 1024;

/// A point in time in milliseconds, counted from wherever the owner of the ledger does.
pub(in crate::cluster) type Millis = u64;

/// All entries at one revision, and how they came about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cluster) struct Ledger {
    revision: i64,
    entries: BTreeMap<String, Kept>,
    /// By revision, one change each.
    changes: VecDeque<Change>,
    /// The last revision whose change is forgotten.
    forgotten: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    value: String,
    revision: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<Millis>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    revision: i64,
    key: String,
    /// `None` is a deletion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    /// Whether the entry will expire.
    #[serde(default)]
    expires: bool,
}

impl Ledger {
    pub(in crate::cluster) fn snapshot(&self) -> Snapshot {
        let entries = self.entries.iter().map(|(key, kept)| Entry {
            key: key.clone(),
            value: kept.value.clone().into_bytes(),
            revision: Revision(kept.revision),
            expires: kept.expires.is_some(),
        });
        Snapshot {
            revision: Revision(self.revision),
            entries: entries.collect(),
        }
    }

    /// Writes one entry if its fence holds. What has expired at `now` must be purged before.
    pub(in crate::cluster) fn put(&mut self, put: Put<'_>, now: Millis) -> Outcome {
        if !self.holds(put.key, put.fence) {
            return Outcome::Conflict;
        }
        // at least a second, as the trait has it
        let ttl = put.ttl.map(|ttl| ttl.max(Duration::from_secs(1)));
        let expires = ttl.map(|ttl| {
            let ttl = Millis::try_from(ttl.as_millis()).unwrap_or(Millis::MAX);
            now.saturating_add(ttl)
        });
        let value = Some(put.value.to_owned());
        let revision = self.record(put.key, value, expires.is_some());
        let kept = Kept {
            value: put.value.to_owned(),
            revision,
            expires,
        };
        self.entries.insert(put.key.to_owned(), kept);
        Outcome::Stored {
            revision: Revision(revision),
            ttl,
        }
    }

    /// Deletes one entry if it is unchanged since `revision`.
    pub(in crate::cluster) fn delete(&mut self, key: &str, revision: Revision) -> bool {
        let holds = self.holds(key, Fence::Unchanged(revision));
        if holds {
            self.entries.remove(key);
            self.record(key, None, false);
        }
        holds
    }

    /// Deletes what has expired, in the order in which it did; says whether anything had.
    pub(in crate::cluster) fn purge(&mut self, now: Millis) -> bool {
        let expired = |kept: &Kept| kept.expires.filter(|expires| *expires <= now);
        let mut gone: Vec<(Millis, String)> = self
            .entries
            .iter()
            .filter_map(|(key, kept)| Some((expired(kept)?, key.clone())))
            .collect();
        gone.sort();
        for (_, key) in &gone {
            self.entries.remove(key);
            self.record(key, None, false);
        }
        !gone.is_empty()
    }

    /// When the next entry expires.
    pub(in crate::cluster) fn next_expiry(&self) -> Option<Millis> {
        self.entries.values().filter_map(|kept| kept.expires).min()
    }

    /// The changes after `revision`; `None` if they are not all known.
    pub(in crate::cluster) fn changes_after(&self, revision: Revision) -> Option<Vec<Event>> {
        if revision.0 < self.forgotten || revision.0 > self.revision {
            return None;
        }
        let first = self
            .changes
            .partition_point(|change| change.revision <= revision.0);
        Some(self.changes.range(first..).map(Change::event).collect())
    }

    /// The last revision.
    pub(in crate::cluster) fn revision(&self) -> Revision {
        Revision(self.revision)
    }

    /// Lets an entry expire at `now`.
    pub(in crate::cluster) fn expire(&mut self, key: &str, now: Millis) {
        if let Some(kept) = self.entries.get_mut(key) {
            kept.expires = Some(now);
        }
    }

    /// Forgets all changes.
    pub(in crate::cluster) fn compact(&mut self) {
        self.changes.clear();
        self.forgotten = self.revision;
    }

    /// What is wrong with a ledger that was not made here.
    pub(in crate::cluster) fn fault(&self) -> Option<&'static str> {
        let revisions = || self.changes.iter().map(|change| change.revision);
        let known = self.forgotten..=self.revision;
        if self.forgotten < 0 || known.is_empty() || self.revision > i64::MAX / 2 {
            Some("its revisions are out of order")
        } else if !revisions().eq(self.forgotten.saturating_add(1)..=self.revision) {
            Some("its changes are not one per revision")
        } else if self
            .entries
            .values()
            .any(|kept| !(1..=self.revision).contains(&kept.revision))
        {
            Some("an entry is newer than the whole")
        } else {
            None
        }
    }

    fn holds(&self, key: &str, fence: Fence) -> bool {
        let revision = self.entries.get(key).map(|kept| Revision(kept.revision));
        match fence {
            Fence::Absent => revision.is_none(),
            Fence::Unchanged(expected) => revision == Some(expected),
        }
    }

    fn record(&mut self, key: &str, value: Option<String>, expires: bool) -> i64 {
        self.revision += 1;
        self.changes.push_back(Change {
            revision: self.revision,
            key: key.to_owned(),
            value,
            expires,
        });
        if self.changes.len() > CHANGES
            && let Some(change) = self.changes.pop_front()
        {
            self.forgotten = change.revision;
        }
        self.revision
    }
}

impl Change {
    fn event(&self) -> Event {
        let (key, revision) = (self.key.clone(), Revision(self.revision));
        match &self.value {
            None => Event::Deleted { key, revision },
            Some(value) => Event::Put(Entry {
                key,
                value: value.clone().into_bytes(),
                revision,
                expires: self.expires,
            }),
        }
    }
}
