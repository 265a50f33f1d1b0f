//! What would be changed, without changing it.

use std::path::Path;

use super::clock;
use super::memory::Memory;
use super::status::PlannedChange;
use super::world::World;
use crate::cluster::datastore::Datastore;
use crate::config::Config;
use crate::kernel::change::{Change, Obstacle};
use crate::kernel::netlink::Netlink;
use crate::kernel::state::KernelState;
use crate::kernel::{Kernel, KernelError, Scope, reconcile};
use crate::plan::{self, Plan};

/// The changes to kernel and files that would make the host what the plan says.
///
/// # Errors
/// [`KernelError`] when the kernel cannot be read.
pub async fn pending<K: Kernel>(
    kernel: &mut K,
    plan: &Plan,
    scope: &Scope,
) -> Result<Vec<PlannedChange>, KernelError> {
    let diff = reconcile::pending(kernel, &plan.kernel, scope).await?;
    let mut changes = diff.changes;
    changes.extend(made_by_the_proxy(&plan.kernel, &diff.obstacles));
    changes.sort();
    let rows = changes.iter().map(in_words);
    let stale = plan
        .files
        .iter()
        .filter(|(path, text)| !std::fs::read(path).is_ok_and(|found| found == text.as_bytes()));
    let files = stale.map(|(path, _)| of_a_file("write", path));
    let obsolete = plan.obsolete.iter().filter(|(path, subnet)| {
        std::fs::read_to_string(path).is_ok_and(|found| plan::is_about(&found, **subnet))
    });
    let obsolete = obsolete.map(|(path, _)| of_a_file("delete", path));
    Ok(rows.chain(files).chain(obsolete).collect())
}

/// A change to the kernel, for people.
pub(super) fn in_words(change: &Change) -> PlannedChange {
    let text = change.to_string();
    let (verb, object) = text.split_once(' ').unwrap_or((&text, ""));
    PlannedChange {
        verb: verb.to_owned(),
        object: object.to_owned(),
    }
}

fn of_a_file(verb: &str, path: &Path) -> PlannedChange {
    PlannedChange {
        verb: verb.to_owned(),
        object: format!("file {}", path.display()),
    }
}

/// Rtnetlink makes no TUN device, so a difference leaves out one that is missing, and all that
/// is to be on it. A service has it made by the data plane first.
fn made_by_the_proxy(desired: &KernelState, obstacles: &[Obstacle]) -> Vec<Change> {
    let is_missing = |name: &str| {
        let missing =
            |obstacle: &Obstacle| matches!(obstacle, Obstacle::Missing { link } if link == name);
        obstacles.iter().any(missing)
    };
    let links = desired.links.iter().filter(|(name, _)| is_missing(name));
    let links = links.map(|(name, link)| Change::AddLink(name.clone(), link.clone()));
    let addresses = desired.addresses.iter().filter(|row| is_missing(&row.link));
    let addresses = addresses.map(|row| Change::AddAddress(row.clone()));
    let routes = desired
        .routes
        .iter()
        .filter(|(_, route)| is_missing(&route.link));
    let routes = routes.map(|(key, route)| Change::PutRoute(*key, route.clone()));
    links.chain(addresses).chain(routes).collect()
}

/// What a service that starts now would change: takes the lease that it would take, and the
/// cluster and the kernel as they are.
///
/// # Errors
/// With what a service would be waiting for.
pub async fn fresh<D: Datastore>(config: Config, store: D) -> anyhow::Result<Vec<PlannedChange>> {
    let memory = Memory::new(config.paths.state.clone());
    let identity = memory.identity(config.node.name.as_deref(), &config.paths.subnet_env);
    let mut world = World::new(config.clone(), identity, store.name());
    let mut netlink = Netlink::connect()?;
    let preference = config.node.preference();
    let interfaces = netlink.interfaces(&preference).await?;
    world.uplink_seen(&interfaces, clock::now());
    world.listed(store.list().await?, clock::now());
    world.assume(&mut rand::rng(), clock::now());
    let plan = world.plan();
    let planned = plan.and_then(|plan| Some((world.scope(&plan)?, plan)));
    let Some((scope, plan)) = planned else {
        let faults = world.faults.list();
        let reasons: Vec<String> = faults.into_iter().map(|fault| fault.text).collect();
        anyhow::bail!("there is nothing to plan yet: {}", reasons.join("; "));
    };
    Ok(pending(&mut netlink, &plan, &scope).await?)
}
