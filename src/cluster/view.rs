//! What this node knows of the cluster: the fold of snapshots and events.

use std::collections::BTreeMap;

use super::datastore::{CONFIG, Entry, Event, Revision, SUBNETS, Snapshot};
use super::lease::{Attrs, Lease};
use super::subnet::Subnet;

/// A lease and what a fenced write to it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The lease.
    pub lease: Lease,
    /// When its entry was last written.
    pub revision: Revision,
    /// Whether it is a reservation: an entry that never expires.
    pub reserved: bool,
}

/// The cluster as last seen. Nothing in here forgets a lease because something could not be
/// read: an entry that turned into garbage keeps its last good value, and is counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    revision: Revision,
    complete: bool,
    config: Option<Vec<u8>>,
    records: BTreeMap<Subnet, Record>,
    garbage: BTreeMap<String, Garbage>,
}

/// An entry that poses as a lease and is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Garbage {
    /// What is wrong with it.
    pub reason: String,
    /// When it was last written.
    pub revision: Revision,
}

impl View {
    /// Takes a whole list in place of all that was known.
    pub fn replace(&mut self, snapshot: Snapshot) {
        let mut before = std::mem::take(&mut self.records);
        self.config = None;
        self.garbage.clear();
        for entry in snapshot.entries {
            if let Some(subnet) = leased(&entry.key) {
                // the last good value, in case this one is garbage
                self.records.extend(before.remove_entry(&subnet));
            }
            self.put(entry);
        }
        self.revision = snapshot.revision;
        self.complete = true;
    }

    /// Takes a whole list without dropping what it lacks.
    pub fn extend(&mut self, snapshot: Snapshot) {
        for entry in snapshot.entries {
            self.put(entry);
        }
        self.revision = snapshot.revision;
    }

    /// Takes one change. Answers the lease that it drops, if any.
    pub fn apply(&mut self, event: Event) -> Option<Record> {
        match event {
            Event::Put(entry) => {
                self.revision = self.revision.max(entry.revision);
                self.put(entry);
                None
            }
            Event::Deleted { key, revision } => {
                self.revision = self.revision.max(revision);
                self.garbage.remove(&key);
                if key == CONFIG {
                    self.config = None;
                }
                self.records.remove(&leased(&key)?)
            }
        }
    }

    /// Takes back a lease that a change has dropped, unless there is another by now.
    pub fn restore(&mut self, record: Record) {
        self.records.entry(record.lease.subnet).or_insert(record);
    }

    fn put(&mut self, entry: Entry) {
        if entry.key == CONFIG {
            self.config = Some(entry.value);
            return;
        }
        // other things may live under the prefix; only what poses as a lease concerns us
        let Some(name) = entry.key.strip_prefix(SUBNETS) else {
            return;
        };
        match Subnet::from_key(name) {
            Err(error) => self.reject(&entry, error.to_string()),
            Ok(subnet) if subnet.key() != name => {
                let reason = format!("the key of the subnet {subnet} is {}", subnet.key());
                self.reject(&entry, reason);
            }
            Ok(subnet) => match Attrs::from_json(&entry.value) {
                Err(error) => self.reject(&entry, error.to_string()),
                Ok(attrs) => {
                    self.garbage.remove(&entry.key);
                    let lease = Lease { subnet, attrs };
                    let (revision, reserved) = (entry.revision, !entry.expires);
                    self.records.insert(
                        subnet,
                        Record {
                            lease,
                            revision,
                            reserved,
                        },
                    );
                }
            },
        }
    }

    fn reject(&mut self, entry: &Entry, reason: String) {
        let garbage = Garbage {
            reason,
            revision: entry.revision,
        };
        self.garbage.insert(entry.key.clone(), garbage);
    }

    /// The revision up to which this is true.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// Whether a whole list was ever seen. Before that nothing may be swept.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.complete
    }

    /// The value of the network config's entry, unparsed.
    #[must_use]
    pub fn config(&self) -> Option<&[u8]> {
        self.config.as_deref()
    }

    /// All leases, by subnet.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// The lease of exactly this subnet.
    #[must_use]
    pub fn record(&self, subnet: Subnet) -> Option<&Record> {
        self.records.get(&subnet)
    }

    /// The leases of everybody but the holder of `own`, however its key is written.
    pub fn peers(&self, own: Subnet) -> impl Iterator<Item = &Lease> {
        self.records()
            .map(|record| &record.lease)
            .filter(move |lease| lease.subnet.v4() != own.v4())
    }

    /// Every subnet that somebody holds, also where the lease's value is garbage.
    pub fn taken(&self) -> impl Iterator<Item = Subnet> {
        let unreadable = self.garbage.keys();
        let unreadable =
            unreadable.filter_map(|key| Subnet::from_key(key.strip_prefix(SUBNETS)?).ok());
        self.records.keys().copied().chain(unreadable)
    }

    /// Entries that pose as leases and are none, by key.
    #[must_use]
    pub const fn garbage(&self) -> &BTreeMap<String, Garbage> {
        &self.garbage
    }
}

/// The subnet whose lease is kept under this key. `10.5.34.7-24` and `10.5.34.0-024` mean a
/// subnet too, but what becomes of them must not befall the lease under `10.5.34.0-24`.
fn leased(key: &str) -> Option<Subnet> {
    let name = key.strip_prefix(SUBNETS)?;
    let subnet = Subnet::from_key(name).ok()?;
    (subnet.key() == name).then_some(subnet)
}

#[cfg(test)]
mod tests;
