//! What is left to do on a host where nothing is wanted any more: to remove all that is ours.

use std::fs;

use ipnet::Ipv4Net;

use super::dbus::Bus;
use super::dry_run;
use super::files;
use super::managers;
use super::memory::Memory;
use super::status::PlannedChange;
use crate::cluster::subnet::Subnet;
use crate::config::Config;
use crate::kernel::change::Obstacle;
use crate::kernel::netlink::Netlink;
use crate::kernel::reconcile::Reconciler;
use crate::kernel::state::{KernelState, LinkKind};
use crate::kernel::uplink::Interface;
use crate::kernel::{Kernel, Scope};
use crate::plan::{self, Footprint, Plan, Tunnel};

/// What this node may have left on its host: a plan without anything in it, and how far its
/// traces may reach.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Remains {
    /// Wants nothing.
    pub(super) plan: Plan,
    /// What is ours to remove. A gateway route for our own subnet is not any more: there are no
    /// containers left whose packets it could take.
    pub(super) scope: Scope,
}

impl Remains {
    /// Of a node with this subnet, and a bridge with an address in one of these networks. Without
    /// a subnet no file can be told to be ours.
    pub(super) fn new(config: &Config, subnet: Option<Subnet>, nets: [Option<Ipv4Net>; 2]) -> Self {
        let mut plan = Plan::default();
        for path in config.files_for_others() {
            plan.obsolete
                .extend(subnet.map(|subnet| (path.clone(), subnet)));
        }
        let [network, former] = nets;
        let scope = Scope {
            overlay: network.or(former),
            former,
            ..Scope::default()
        };
        Self { plan, scope }
    }
}

/// Removes what a service that is gone has left in this network namespace. `subnet.env` tells what
/// it was about; without one the marks in the kernel have to do.
///
/// # Errors
/// With what could not be removed; all else is gone then.
pub(super) async fn sweep(config: &Config) -> anyhow::Result<Vec<PlannedChange>> {
    let paths = &config.paths;
    let memory = Memory::new(paths.state.clone());
    let identity = memory.identity(config.node.name.as_deref(), &paths.subnet_env);
    let text = fs::read_to_string(&paths.subnet_env).unwrap_or_default();
    let nets = [
        plan::previous_network(&text),
        identity.previous.map(Subnet::v4),
    ];
    let mut netlink = Netlink::connect()?;
    let flannelds = netlink.flannelds().await?;
    // where flanneld goes on with the subnet, files about it are its own
    let is_left = |subnet: &Subnet| !flannelds.iter().any(|link| is_within(link, *subnet));
    let subnet = identity.left_behind().filter(is_left);
    let Remains { plan, scope } = Remains::new(config, subnet, nets);
    let footprint = footprint(&netlink.observe(&scope).await?, &scope);
    let changes = dry_run::pending(&mut netlink, &plan, &scope).await?;
    let report = Reconciler::new(netlink)
        .converge(&plan.kernel, &scope)
        .await?;
    for (path, about) in &plan.obsolete {
        files::remove(path, |text| plan::is_about(text, *about))?;
    }
    let in_use = |obstacle: &&Obstacle| matches!(obstacle, Obstacle::InUse { .. });
    let obstacles = report.obstacles.iter().filter(in_use);
    let obstacles = obstacles.map(|obstacle| format!("{obstacle}; stop what uses it"));
    let failures = report.failed.iter().map(ToString::to_string);
    let firewalld = managers::withdraw(&Bus::System, &footprint).await.err();
    let left: Vec<String> = failures.chain(obstacles).chain(firewalld).collect();
    anyhow::ensure!(
        left.is_empty(),
        "not everything could be removed: {}; then run it again",
        left.join("; ")
    );
    anyhow::ensure!(
        report.settled,
        "somebody else keeps putting back what was removed; stop that, then run it again"
    );
    Ok(changes)
}

/// What a service may have told firewalld. The kernel does not tell the port of the udp backend.
fn footprint(state: &KernelState, scope: &Scope) -> Footprint {
    let ours = state.links.values().filter(|link| link.marked);
    let mut tunnels = ours.filter_map(|link| {
        let LinkKind::Vxlan { underlay, port, .. } = &link.kind else {
            return None;
        };
        let (uplink, port) = (underlay.clone(), *port);
        Some(Tunnel { uplink, port })
    });
    Footprint {
        network: scope.overlay,
        tunnel: tunnels.next(),
        ..Footprint::default()
    }
}

fn is_within(interface: &Interface, subnet: Subnet) -> bool {
    let mut addresses = interface.addresses.iter();
    addresses.any(|row| subnet.v4().contains(&row.address.addr()))
}
