//! Makes the kernel's state what it should be.

use std::collections::{BTreeMap, BTreeSet};

use super::change::{Change, Obstacle};
use super::diff::{Diff, diff};
use super::state::{Address, KernelState, Link, Port};
use super::{Failure, Kernel, KernelError, Scope};

/// How often changes are made in one go, before it is left to the next.
pub const MAX_PASSES: usize = 3;

/// What one go has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The changes that were made, in their order.
    pub applied: Vec<Change>,
    /// The changes that the kernel refused until the end.
    pub failed: Vec<Failure>,
    /// What is wanted but was left alone.
    pub obstacles: Vec<Obstacle>,
    /// How often changes were made; 0 where there was nothing to do.
    pub passes: usize,
    /// Whether the kernel, read back or trusted as [`Reconciler`] says, has all that can be had.
    pub settled: bool,
    /// The links that are our business, as they are in the end. They are few, however many peers
    /// there are.
    pub links: BTreeMap<String, Link>,
    /// The addresses on them.
    pub addresses: BTreeSet<Address>,
    /// What hangs on the bridges among them.
    pub ports: BTreeMap<String, Port>,
}

impl Report {
    /// Whether the kernel is as desired in every respect.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.settled && self.obstacles.is_empty()
    }
}

/// Keeps a kernel as desired, and remembers the state it has reached, so that one more peer among
/// thousands costs a few messages and not a reading of everything.
///
/// What is remembered is trusted as long as nothing but single rows was changed and the kernel has
/// acknowledged each: a row takes no other along (nexthop objects do, as [`KernelState::apply`]
/// says). Links and addresses have cascades, a refusal means that something is not as remembered,
/// an obstacle that somebody else is at work: after any of these all is read again, as it is the
/// first time. Whoever else changes something is noticed by [`super::netlink::Hints`], whose owner
/// then calls [`Reconciler::doubt`]; it should do so at long intervals in any case. A route that
/// was there before it became our business is replaced by ours, seen or not.
#[derive(Debug)]
pub struct Reconciler<K> {
    kernel: K,
    known: Option<Known>,
}

/// A state that was reached.
#[derive(Debug)]
struct Known {
    state: KernelState,
    /// What it was read within, but for the keys of routes and the hosts that send by a link.
    within: Scope,
}

impl<K: Kernel> Reconciler<K> {
    /// Knows nothing yet.
    pub const fn new(kernel: K) -> Self {
        let known = None;
        Self { kernel, known }
    }

    /// Something may not be as it was left: the next time all is read.
    pub fn doubt(&mut self) {
        self.known = None;
    }

    /// The kernel, to ask it something else. Changes made by this way must be followed by
    /// [`Reconciler::doubt`].
    pub const fn kernel(&mut self) -> &mut K {
        &mut self.kernel
    }

    /// Makes changes until there is nothing left to change, at most [`MAX_PASSES`] times. Cascades
    /// in the kernel that [`diff`] did not foresee take a second pass.
    ///
    /// # Errors
    /// [`KernelError`] where the kernel could not be asked. Trying again is safe.
    pub async fn converge(
        &mut self,
        desired: &KernelState,
        scope: &Scope,
    ) -> Result<Report, KernelError> {
        rounds(&mut self.kernel, &mut self.known, desired, scope).await
    }

    /// What [`Reconciler::converge`] would do now if it doubted, doing nothing.
    ///
    /// # Errors
    /// [`KernelError`] where the kernel could not be asked.
    pub async fn pending(
        &mut self,
        desired: &KernelState,
        scope: &Scope,
    ) -> Result<Diff, KernelError> {
        pending(&mut self.kernel, desired, scope).await
    }
}

/// [`Reconciler::converge`] for once, remembering nothing.
#[cfg(test)]
pub(super) async fn converge<K: Kernel>(
    kernel: &mut K,
    desired: &KernelState,
    scope: &Scope,
) -> Result<Report, KernelError> {
    rounds(kernel, &mut None, desired, scope).await
}

async fn rounds<K: Kernel>(
    kernel: &mut K,
    known: &mut Option<Known>,
    desired: &KernelState,
    scope: &Scope,
) -> Result<Report, KernelError> {
    let mut report = Report::default();
    let within = within(scope);
    known.take_if(|known| known.within != within);
    let trusts = known.is_some();
    loop {
        // Taken, so that nothing is known where this ends early.
        let mut state = match known.take() {
            Some(known) => known.state,
            None => kernel.observe(scope).await?,
        };
        let Diff { changes, obstacles } = diff(&state, desired, scope);
        report.obstacles = obstacles;
        report.settled = changes.is_empty();
        if report.settled {
            report.failed.clear();
        }
        let refused: BTreeSet<&Change> = report.failed.iter().map(|f| &f.change).collect();
        let in_vain = !refused.is_empty() && changes.iter().all(|c| refused.contains(c));
        if report.settled || in_vain || report.passes == MAX_PASSES {
            report.links.clone_from(&state.links);
            report.addresses.clone_from(&state.addresses);
            report.ports.clone_from(&state.ports);
            *known = (report.is_complete()).then_some(Known { state, within });
            return Ok(report);
        }
        report.failed = kernel.apply(&changes).await?;
        report.passes += 1;
        let done = report.failed.is_empty() && report.obstacles.is_empty();
        // A rival may have been replaced in the place of ours.
        if trusts && done && state.rivals.is_empty() && changes.iter().all(|c| state.apply(c)) {
            let within = within.clone();
            *known = Some(Known { state, within });
        }
        let refused: BTreeSet<&Change> = report.failed.iter().map(|f| &f.change).collect();
        let made = changes.into_iter().filter(|c| !refused.contains(c));
        report.applied.extend(made);
    }
}

fn within(scope: &Scope) -> Scope {
    let mut passages = scope.passages.clone();
    passages.values_mut().for_each(BTreeSet::clear);
    Scope {
        routes: BTreeSet::new(),
        passages,
        ..scope.clone()
    }
}

/// What [`Reconciler::converge`] would do now if it knew nothing, doing nothing.
///
/// # Errors
/// [`KernelError`] where the kernel could not be asked.
pub async fn pending<K: Kernel>(
    kernel: &mut K,
    desired: &KernelState,
    scope: &Scope,
) -> Result<Diff, KernelError> {
    let observed = kernel.observe(scope).await?;
    Ok(diff(&observed, desired, scope))
}

#[cfg(test)]
mod tests;
