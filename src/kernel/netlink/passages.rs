//! How packets fare that come in by the links of the plan.

use std::collections::BTreeMap;

use super::Netlink;
use crate::kernel::netconf::{self, NetconfRow};
use crate::kernel::passage::{ALL, Passage};
use crate::kernel::{KernelError, Scope};

/// `net.ipv4.conf.*.rp_filter`: drop what comes in by another link than the way back leads out by.
const STRICT: i32 = 1;

impl Netlink {
    /// Those of the links that the scope names, and of all links together. Nothing where the
    /// kernel does not tell.
    pub(super) async fn passages(
        &mut self,
        scope: &Scope,
    ) -> Result<BTreeMap<String, Passage>, KernelError> {
        let indexes = scope.passages.keys().filter_map(|name| {
            let index = self.indexes.get(name)?;
            i32::try_from(*index).ok()
        });
        let mut indexes: Vec<i32> = indexes.collect();
        self.expected.send_modify(|expected| {
            expected.passages.clear();
            expected.passages.extend(&indexes);
        });
        if indexes.is_empty() {
            return Ok(BTreeMap::new());
        }
        indexes.push(netconf::ALL);
        let read = |message: crate::kernel::message::Message| {
            let row = netconf::row(&message.body)?;
            indexes.contains(&row.index).then_some(row)
        };
        let doing = "listing the settings of links";
        let rows = self.socket.list(doing, netconf::list(), read).await?;
        let rows = rows.unwrap_or_default();
        let all = rows.iter().find(|row| row.index == netconf::ALL);
        let filter_of_all = all.and_then(|row| row.rp_filter).unwrap_or(0);
        let mut passages = BTreeMap::new();
        for row in &rows {
            let Some(name) = self.name_of(row) else {
                continue;
            };
            let mut passage = Passage {
                forwards: row.forwarding.unwrap_or(true),
                ..Passage::default()
            };
            if row.rp_filter.unwrap_or(0).max(filter_of_all) == STRICT {
                self.reject(&name, scope, &mut passage).await?;
            }
            passages.insert(name, passage);
        }
        Ok(passages)
    }

    fn name_of(&self, row: &NetconfRow) -> Option<String> {
        if row.index == netconf::ALL {
            return Some(ALL.to_owned());
        }
        let index = u32::try_from(row.index).ok()?;
        self.names.get(&index).map(ToString::to_string)
    }

    /// Finds out whom the strict filter of a link drops. Where the way back is symmetrical, as on
    /// most hosts, that is nobody. A host to which there is no way at all is not the filter's.
    async fn reject(
        &mut self,
        link: &str,
        scope: &Scope,
        passage: &mut Passage,
    ) -> Result<(), KernelError> {
        for visitor in scope.passages.get(link).into_iter().flatten() {
            let way = self.reach(*visitor).await?;
            if way.is_some_and(|way| way.interface != link) {
                passage.rejected.insert(*visitor);
            }
        }
        Ok(())
    }
}
