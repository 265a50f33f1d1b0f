//! A healthy host.

use std::net::Ipv4Addr;

use crate::cluster::subnet::Subnet;
use crate::doctor::examination::{
    Examination, Full, Outside, PeerProbe, Probes, SeenLink, Tcp, Vantage, Way,
};
use crate::doctor::host::{Host, Peer};
use crate::service::status::Provision;

pub(super) const PROBE: Ipv4Addr = Ipv4Addr::new(100, 96, 1, 254);

pub(super) fn net(third: u8) -> ipnet::Ipv4Net {
    format!("100.96.{third}.0/24").parse().unwrap()
}

pub(super) fn link(index: u32, mtu: u32, address: &str) -> SeenLink {
    SeenLink {
        index,
        mtu,
        up: true,
        bridge: None,
        addresses: vec![address.parse().unwrap()],
    }
}

pub(super) fn host() -> Host {
    let peer = |third: u8| Peer {
        subnet: Subnet::new(net(third)),
        public_ip: Ipv4Addr::new(192, 168, 1, 46 + third),
        tunnelled: true,
    };
    Host {
        network: "100.96.0.0/16".parse().unwrap(),
        subnet: Subnet::new(net(1)),
        mtu: 1450,
        uplink: "eth0".to_owned(),
        tunnel: Some("flannel.1".to_owned()),
        bridge: Some("docker0".to_owned()),
        provision: Provision {
            bridge: Some("docker0".to_owned()),
            tunnel_port: Some(8472),
            masquerade: true,
            forward: true,
            subnet_env: "/run/flannel/subnet.env".to_owned(),
            docker_env: "/run/flannel/docker.env".to_owned(),
        },
        peers: vec![peer(2), peer(3)],
    }
}

pub(super) fn answered(third: u8) -> PeerProbe {
    PeerProbe {
        subnet: net(third),
        public_ip: Ipv4Addr::new(192, 168, 1, 46 + third),
        link: "flannel.1".to_owned(),
        left: Some(PROBE),
        emerged: true,
        answered: true,
        arrived: true,
        public_answers: None,
        full: Some(Full::Answered),
        tcp: Some(Tcp {
            offloaded: true,
            finished: true,
        }),
    }
}

/// A host on which nothing is wrong.
pub(super) fn healthy() -> Examination {
    let mut container = link(5, 1450, "10.0.0.1/8");
    container.addresses.clear();
    container.bridge = Some("docker0".to_owned());
    let way = |third| Way {
        subnet: net(third),
        taken: Some(("flannel.1".to_owned(), None)),
    };
    Examination {
        host: Some(host()),
        links: [
            ("lo", link(1, 65536, "127.0.0.1/8")),
            ("eth0", link(2, 1500, "192.168.1.47/24")),
            ("docker0", link(3, 1450, "100.96.1.1/24")),
            ("flannel.1", link(4, 1450, "100.96.1.0/32")),
            ("veth1", container),
        ]
        .map(|(name, link)| (name.to_owned(), link))
        .into(),
        forwards: Some(true),
        ways: vec![way(2), way(3)],
        subnet_env: Some(
            "FLANNEL_NETWORK=100.96.0.0/16\nFLANNEL_SUBNET=100.96.1.1/24\nFLANNEL_MTU=1450\n\
             FLANNEL_IPMASQ=true\n"
                .to_owned(),
        ),
        docker_env: Some(
            "DOCKER_OPT_BIP=\"--bip=100.96.1.1/24\"\nDOCKER_OPT_MTU=\"--mtu=1450\"\n".to_owned(),
        ),
        probes: Some(Probes {
            vantage: Vantage::Container(PROBE),
            neighbour: Some(true),
            peers: vec![answered(2), answered(3)],
            outside: Some(Outside {
                link: "eth0".to_owned(),
                left: Some(Ipv4Addr::new(192, 168, 1, 47)),
            }),
        }),
        ..Examination::default()
    }
}
