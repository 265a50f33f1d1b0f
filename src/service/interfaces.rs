//! The links that are ours or the containers', for outsiders.

use std::collections::BTreeSet;

use super::status::{InterfaceStatus, LinkStatus};
use crate::kernel::reconcile::Report;
use crate::kernel::state::{Address, KernelState, Link, LinkKind};

/// Every link that is wanted or ours: as it should be, and as it was after the last pass.
pub(super) fn listed(desired: &KernelState, report: &Report) -> Vec<InterfaceStatus> {
    let names: BTreeSet<&String> = desired.links.keys().chain(report.links.keys()).collect();
    let interface = |name: &String| InterfaceStatus {
        name: name.clone(),
        desired: (desired.links.get(name)).map(|link| wanted(name, link, &desired.addresses)),
        observed: (report.links.get(name)).map(|link| described(name, link, &report.addresses)),
    };
    names.into_iter().map(interface).collect()
}

fn wanted(name: &str, link: &Link, addresses: &BTreeSet<Address>) -> LinkStatus {
    let mut status = described(name, link, addresses);
    if link.kind == LinkKind::Bridge {
        // given when it is made, and never minded again
        status.mac = None;
    }
    status
}

fn described(name: &str, link: &Link, addresses: &BTreeSet<Address>) -> LinkStatus {
    let on_it = addresses.iter().filter(|row| &*row.link == name);
    LinkStatus {
        kind: match &link.kind {
            LinkKind::Vxlan { .. } => "vxlan".to_owned(),
            LinkKind::Bridge => "bridge".to_owned(),
            LinkKind::Tun => "tun".to_owned(),
            LinkKind::Other(kind) => kind.clone(),
        },
        mac: link.mac.map(|mac| mac.to_string()),
        mtu: link.mtu,
        up: link.up,
        addresses: on_it.map(|row| row.address.to_string()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bridge(marked: bool, mtu: u32) -> Link {
        Link {
            kind: LinkKind::Bridge,
            mac: Some(crate::mac::Mac::local([2; 6])),
            mtu,
            up: true,
            marked,
        }
    }

    fn on_docker0(address: &str) -> Address {
        Address {
            link: "docker0".into(),
            address: address.parse().unwrap(),
        }
    }

    /// docker0 in Docker's hands: both sides are to be seen.
    #[test]
    fn what_should_be_and_what_is_stand_side_by_side() {
        let mut desired = KernelState::default();
        desired.links.insert("docker0".into(), bridge(true, 1450));
        desired.addresses.insert(on_docker0("100.96.1.1/24"));
        let mut report = Report::default();
        report.links.insert("docker0".into(), bridge(false, 1500));
        report.addresses.insert(on_docker0("172.17.0.1/16"));
        let gone = Link {
            kind: LinkKind::Other("dummy".into()),
            ..bridge(true, 9000)
        };
        report.links.insert("marked".into(), gone);
        let listed = listed(&desired, &report);
        let [docker, marked] = listed.as_slice() else {
            panic!("{listed:?}")
        };
        let wanted = docker.desired.as_ref().unwrap();
        assert_eq!((wanted.kind.as_str(), wanted.mtu), ("bridge", 1450));
        assert_eq!(
            (&wanted.mac, wanted.addresses.as_slice()),
            (&None, ["100.96.1.1/24".to_owned()].as_slice())
        );
        let found = docker.observed.as_ref().unwrap();
        assert_eq!(found.addresses, ["172.17.0.1/16"]);
        assert!(found.mac.is_some());
        assert_eq!(marked.desired, None);
        assert_eq!(marked.observed.as_ref().unwrap().kind, "dummy");
    }
}
