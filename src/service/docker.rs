//! What is wrong between Docker and the overlay, as far as the bridge shows it, and what to do.
//!
//! dockerd is not asked: what it does with its options shows on the bridge and on the interfaces
//! there, of which the kernel tells at once. Nothing here changes anything.

use std::path::Path;

use ipnet::Ipv4Net;

use super::status::PlannedChange;
use super::world::World;
use crate::kernel::change::Obstacle;
use crate::kernel::reconcile::Report;
use crate::kernel::state::{Address, KernelState, LinkKind};

/// The bridge that can be made ours on request.
///
/// # Errors
/// Why there is none, for people.
pub(super) fn bridge_to_take(world: &World) -> Result<String, String> {
    let docker = &world.config.docker;
    if !docker.manage_bridge {
        return Err(format!(
            "{} is not this service's to take: manage-bridge is false in [docker]",
            docker.bridge
        ));
    }
    if world.is_withdrawn() {
        return Err(format!(
            "{} is not to be taken, as this node takes no part in the network; reload first",
            docker.bridge
        ));
    }
    if world.subnet().is_none() {
        return Err(format!(
            "there is no address for {} yet: no lease is held",
            docker.bridge
        ));
    }
    Ok(docker.bridge.clone())
}

/// What was changed on the bridge among all that was changed.
///
/// # Errors
/// Where that is nothing.
pub(super) fn taken(
    bridge: &str,
    mut changes: Vec<PlannedChange>,
) -> Result<Vec<PlannedChange>, String> {
    changes.retain(|change| change.object.split(' ').any(|word| word == bridge));
    if changes.is_empty() {
        return Err(format!(
            "nothing to take: {bridge} is ours already, and has our address and MTU"
        ));
    }
    Ok(changes)
}

/// Where dockerd is told of the overlay.
#[derive(Debug, Clone, Copy)]
pub(super) struct Advice<'a> {
    /// dockerd's options as an environment file.
    pub(super) docker_env: &'a Path,
    /// The same in the form of `daemon.json`, if it is written.
    pub(super) daemon_json: Option<&'a Path>,
}

impl Advice<'_> {
    /// An obstacle in words; of a bridge in somebody else's hands with what to do.
    pub(super) fn on(&self, obstacle: &Obstacle) -> String {
        match obstacle {
            Obstacle::Foreign { link, wanted, .. } if !wanted.is_empty() => {
                let bip: Vec<_> = wanted.iter().map(Ipv4Net::to_string).collect();
                let told = self.told(&format!("\"bip\": \"{}\"", bip.join(", ")));
                format!(
                    "{obstacle}; if it is Docker's: {told}; containers keep their old addresses \
                     until that restarts them (with live-restore stop them first). To take {link} \
                     from whoever has it: flannel-rs take-bridge"
                )
            }
            Obstacle::Foreign { .. }
            | Obstacle::InTheWay { .. }
            | Obstacle::Missing { .. }
            | Obstacle::NoFirewall { .. }
            | Obstacle::Blocked(_)
            | Obstacle::InUse { .. } => obstacle.to_string(),
        }
    }

    /// What is wrong with the MTU of the bridge, or of what hangs on it.
    pub(super) fn mtu(&self, desired: &KernelState, report: &Report) -> Option<String> {
        let bridges = desired.links.iter();
        let mut bridges = bridges.filter(|(_, link)| link.kind == LinkKind::Bridge);
        let (name, wanted) = bridges.next()?;
        let mtu = wanted.mtu;
        let ports = (report.ports.iter()).filter(|(_, port)| port.bridge == *name);
        let longer = ports.clone().filter(|(_, port)| port.mtu > mtu);
        if let Some((first, _)) = longer.clone().next() {
            let (count, all) = (longer.clone().count(), ports.count());
            let most = longer.map(|(_, port)| port.mtu).max().unwrap_or_default();
            let told = self.told(&format!("\"mtu\": {mtu}"));
            return Some(format!(
                "{count} of {all} interfaces of containers on {name} ({first} first) have an MTU \
                 of up to {most}, and the overlay carries {mtu}: long packets of theirs are lost \
                 or sent twice. If they are Docker's: {told}; each has its new MTU once it is \
                 started again (with live-restore stop them all first)"
            ));
        }
        let found = report.links.get(name)?;
        let address = |row: &&Address| *row.link == **name;
        let ours = desired.addresses.iter().find(address)?;
        let theirs = !found.marked && found.kind == LinkKind::Bridge;
        let has_ours = report.addresses.contains(ours);
        (theirs && has_ours && found.mtu > mtu).then(|| {
            format!(
                "bridge {name} has our address, but was made by somebody else, and has the MTU {} \
                 and not {mtu}; run: flannel-rs take-bridge, which leaves containers alone",
                found.mtu
            )
        })
    }

    /// How dockerd is told a setting.
    fn told(&self, setting: &str) -> String {
        let env = self.docker_env.display();
        let json = match self.daemon_json {
            Some(path) => format!("--config-file {}", path.display()),
            None => format!("{setting} in /etc/docker/daemon.json"),
        };
        format!(
            "have dockerd started with the options in {env} (the drop-in \
             docker.service.d/flannel-rs.conf does) or with {json}, then run: systemctl restart \
             docker"
        )
    }
}

#[cfg(test)]
mod tests;
