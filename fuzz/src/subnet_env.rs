//! The `subnet.env` that an earlier service left.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use flannel_rs::cluster::lease::{Attrs, BackendAttrs, Lease};
use flannel_rs::cluster::network::{Backend, Draft};
use flannel_rs::cluster::subnet::Subnet;
use flannel_rs::kernel::uplink::Uplink;
use flannel_rs::plan::{self, Node, previous_subnet};
use ipnet::Ipv4Net;

/// Reads the text of the file.
pub fn subnet_env(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let previous = previous_subnet(text);
    if let Some(subnet) = previous {
        let ours = written(subnet);
        assert_eq!(previous_subnet(&ours), previous, "{ours:?}");
    }
    // neither the lines around it nor the ends of the lines matter
    let more = format!("# a comment\n\n{text}\nFLANNEL_MTU=1450\n");
    assert_eq!(previous_subnet(&more), previous);
    if !text.contains('\r') {
        assert_eq!(previous_subnet(&text.replace('\n', "\r\n")), previous);
    }
    // the last line counts, as in a shell
    let later = Some(Subnet::new(SUBNET));
    for line in ["FLANNEL_SUBNET=", "export FLANNEL_SUBNET="] {
        let text = format!("{text}\n{line}'{SUBNET}' # now\n");
        assert_eq!(previous_subnet(&text), later);
    }
}

const SUBNET: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 9, 8, 0), 24);
const HOST: Ipv4Addr = Ipv4Addr::new(192, 168, 64, 3);

/// The file that a node with this subnet writes.
fn written(subnet: Subnet) -> String {
    let path = Path::new("subnet.env");
    let draft = Draft {
        net: Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
        subnet_len: None,
        first: None,
        last: None,
        backend: Backend::HostGw,
    };
    let node = Node {
        network: draft.finish().unwrap(),
        lease: Lease {
            subnet,
            attrs: Attrs {
                public_ip: HOST,
                public_ipv6: None,
                backend: BackendAttrs::HostGw,
            },
        },
        uplink: Uplink {
            name: "eth0".to_owned(),
            mtu: 1500,
            address: HOST,
            public_ip: HOST,
            networks: Vec::new(),
        },
        bridge: None,
        subnet_env: path.to_owned(),
        docker_env: PathBuf::from("docker.env"),
        daemon_json: None,
        repair: false,
        firewall: Default::default(),
        tuning: Default::default(),
    };
    let mut files = plan::plan(&node, []).files;
    files.remove(path).unwrap_or_default()
}
