//! The network config that the whole cluster shares.

use flannel_rs::cluster::network::{Backend, Network};
use flannel_rs::cluster::subnet::Subnet;

use super::{assert_presentable, with_unknown_field};

/// Reads the JSON of the network config.
pub fn network(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let network = match Network::from_json(text) {
        Ok(network) => network,
        Err(error) => return assert_presentable(&error.to_string()),
    };
    assert_sound(&network);
    assert_eq!(Network::from_json(&network.to_json()), Ok(network.clone()));
    // a config with as many fields as are allowed has no room for one more
    if let Some(Ok(same)) = with_unknown_field(text).map(|text| Network::from_json(&text)) {
        assert_eq!(same, network);
    }
}

/// What the rest of the service takes for granted of every network config.
pub(crate) fn assert_sound(network: &Network) {
    let Network {
        net,
        subnet_len,
        first,
        last,
        ref backend,
    } = *network;
    assert_eq!(net, net.trunc());
    assert!((1..=28).contains(&net.prefix_len()));
    assert!((net.prefix_len() + 2..=30).contains(&subnet_len));
    assert!(net.contains(&first) && net.contains(&last) && first <= last);
    for subnet in network.subnets().take(3) {
        assert_eq!(subnet, Subnet::new(subnet.v4()));
        assert!(network.allows(subnet) && net.contains(&subnet.v4()));
    }
    assert_eq!(network.subnets().next().map(Subnet::base), Some(first));
    match backend {
        Backend::HostGw => {}
        Backend::Udp { port } => assert_ne!(*port, 0),
        Backend::Vxlan(vxlan) => {
            assert!(vxlan.vni < 1 << 24 && vxlan.port != 0);
            let mtu = vxlan.mtu.unwrap_or(1500);
            assert!((118..=65535).contains(&mtu));
        }
    }
}
