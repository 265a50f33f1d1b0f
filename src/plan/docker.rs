//! The bridge for containers, and what dockerd must be told to use it.

use super::{Node, Plan};
use crate::kernel::state::{Address, Link, LinkKind};
use crate::mac::Mac;

pub(super) fn plan(node: &Node, plan: &mut Plan) {
    plan.files.insert(node.docker_env.clone(), options(node));
    let fragment = node.daemon_json.clone().map(|path| (path, fragment(node)));
    plan.files.extend(fragment);
    let Some(bridge) = &node.bridge else { return };
    let gateway = node.lease.subnet.gateway();
    let [a, b, c, d] = gateway.addr().octets();
    let link = Link {
        kind: LinkKind::Bridge,
        // without one of its own the bridge takes over a container's, and changes it with them
        mac: Some(Mac::local([0x02, 0x42, a, b, c, d])),
        mtu: node.mtu(),
        up: true,
        marked: true,
    };
    plan.kernel.links.insert(bridge.clone(), link);
    let address = Address {
        link: bridge.as_str().into(),
        address: gateway,
    };
    plan.kernel.addresses.insert(address);
}

/// dockerd's options in the form of flannel's `mk-docker-opts.sh` (flannel facts §3.3): a
/// systemd `EnvironmentFile`, in alphabetical order, the combined one last and led by a space.
fn options(node: &Node) -> String {
    let bip = format!("--bip={}", node.lease.subnet.gateway());
    // where the service masquerades, Docker must not: its rule spares no other node's containers
    let ip_masq = format!("--ip-masq={}", !node.firewall.masquerade);
    let mtu = format!("--mtu={}", node.mtu());
    format!(
        "DOCKER_OPT_BIP=\"{bip}\"\nDOCKER_OPT_IPMASQ=\"{ip_masq}\"\nDOCKER_OPT_MTU=\"{mtu}\"\n\
         DOCKER_OPTS=\" {bip} {ip_masq} {mtu}\"\n"
    )
}

/// The same in the form of dockerd's `daemon.json`, the keys in order. dockerd refuses to start
/// where one of them comes by both ways.
fn fragment(node: &Node) -> String {
    let bip = node.lease.subnet.gateway();
    let ip_masq = !node.firewall.masquerade;
    let mtu = node.mtu();
    format!("{{\n  \"bip\": \"{bip}\",\n  \"ip-masq\": {ip_masq},\n  \"mtu\": {mtu}\n}}\n")
}
