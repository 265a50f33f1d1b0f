//! The packet filter: our table as a whole or the members of its sets, our rules in chains of
//! others, and what flanneld has left.

use std::mem;

use super::Difference;
use crate::kernel::change::{Change, Obstacle};
use crate::kernel::firewall::{Firewall, Step, Table};

impl Difference<'_> {
    pub(super) fn firewall(&mut self) {
        let (observed, desired) = (&self.observed.firewall, &self.desired.firewall);
        let wants = *desired != Firewall::default();
        if let Some(reason) = &observed.refusal {
            if wants {
                let reason = reason.clone();
                self.out.obstacles.push(Obstacle::NoFirewall { reason });
            }
            return;
        }
        let mut steps = table_steps(observed.table.as_ref(), desired.table.as_ref());
        for (chain, found) in &observed.passes {
            let wanted = desired.passes.get(chain).map_or(&[][..], Vec::as_slice);
            if found != wanted {
                steps.push(Step::PutPasses(*chain, wanted.to_vec()));
            }
        }
        // a node that wants nothing leaves to flanneld what is flanneld's
        let leftovers = observed.leftovers.iter().filter(|_| wants);
        steps.extend(leftovers.copied().map(Step::DelLeftover));
        let changes = steps.into_iter().map(Change::Firewall);
        self.out.changes.extend(changes);
    }
}

fn table_steps(observed: Option<&Table>, desired: Option<&Table>) -> Vec<Step> {
    match (observed, desired) {
        (None, None) => Vec::new(),
        (Some(_), None) => vec![Step::DelTable],
        (Some(found), Some(wanted)) if is_same_but_for_members(found, wanted) => {
            let sets = wanted.sets.iter();
            let stale = sets.filter(|(name, set)| found.sets.get(*name) != Some(*set));
            stale
                .map(|(name, set)| Step::PutMembers(name.clone(), set.clone()))
                .collect()
        }
        (_, Some(wanted)) => vec![Step::PutTable(wanted.clone())],
    }
}

/// Whether only sets have to be altered, which leaves the counters of rules as they are.
fn is_same_but_for_members(one: &Table, other: &Table) -> bool {
    let kinds = |table: &Table| {
        let sets = table.sets.iter();
        sets.map(|(name, set)| (name.clone(), mem::discriminant(set)))
            .collect::<Vec<_>>()
    };
    one.chains == other.chains && kinds(one) == kinds(other)
}
