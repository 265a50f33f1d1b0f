//! Makes the kernel's state what it should be.

use std::collections::BTreeSet;

use super::change::{Change, Obstacle};
use super::diff::{Diff, diff};
use super::state::KernelState;
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
    /// Whether the kernel, read back, has all that can be had.
    pub settled: bool,
}

impl Report {
    /// Whether the kernel, read back, is as desired in every respect.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.settled && self.obstacles.is_empty()
    }
}

/// Observes and makes changes until there is nothing left to change, at most [`MAX_PASSES`] times.
/// Cascades in the kernel that [`diff`] did not foresee take a second pass.
///
/// # Errors
/// [`KernelError`] where the kernel could not be asked. Trying again is safe.
pub async fn converge<K: Kernel>(
    kernel: &mut K,
    desired: &KernelState,
    scope: &Scope,
) -> Result<Report, KernelError> {
    let mut report = Report::default();
    loop {
        let Diff { changes, obstacles } = pending(kernel, desired, scope).await?;
        report.obstacles = obstacles;
        report.settled = changes.is_empty();
        if report.settled {
            report.failed.clear();
        }
        let refused: BTreeSet<&Change> = report.failed.iter().map(|f| &f.change).collect();
        let in_vain = !refused.is_empty() && changes.iter().all(|c| refused.contains(c));
        if report.settled || in_vain || report.passes == MAX_PASSES {
            return Ok(report);
        }
        report.failed = kernel.apply(&changes).await?;
        report.passes += 1;
        let refused: BTreeSet<&Change> = report.failed.iter().map(|f| &f.change).collect();
        let made = changes.into_iter().filter(|c| !refused.contains(c));
        report.applied.extend(made);
    }
}

/// What [`converge`] would do now, doing nothing.
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
