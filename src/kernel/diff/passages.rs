//! What keeps packets from passing: put right where that is wanted, told where it is not.

use super::Difference;
use crate::kernel::change::{Change, Obstacle, Setting};
use crate::kernel::passage::{ALL, Blockage};

impl Difference<'_> {
    /// A link that is not there yet begins with what is said of new links: the next pass sees it.
    pub(super) fn passages(&mut self) {
        let mut closed = Vec::new();
        let mut filters = Vec::new();
        for (link, wanted) in &self.desired.passages {
            let Some(found) = self.observed.passages.get(link) else {
                continue;
            };
            if wanted.forwards && !found.forwards {
                closed.push(link.clone());
            }
            if let Some(visitor) = found.rejected.intersection(&wanted.visitors).next() {
                filters.push((link.clone(), *visitor));
            }
        }
        if self.desired.opens_passages {
            for link in closed {
                self.change(Change::SetLink(link, vec![Setting::Forwarding]));
            }
            for (link, _) in filters {
                self.change(Change::SetLink(link, vec![Setting::LooseFilter]));
            }
            return;
        }
        let nowhere = (self.observed.passages.get(ALL)).is_some_and(|all| !all.forwards);
        let blockage = match closed.as_slice() {
            [] => None,
            links if nowhere && links.len() == self.watched() => Some(Blockage::Everywhere),
            _ => Some(Blockage::Links(closed)),
        };
        let filters = filters
            .into_iter()
            .map(|(link, visitor)| Blockage::Filter { link, visitor });
        let blockages = blockage.into_iter().chain(filters);
        self.out.obstacles.extend(blockages.map(Obstacle::Blocked));
    }

    /// How many links that are there have to forward.
    fn watched(&self) -> usize {
        let mut wanted = self.desired.passages.iter();
        let watched = wanted
            .by_ref()
            .filter(|(link, wanted)| wanted.forwards && self.observed.passages.contains_key(*link));
        watched.count()
    }
}
