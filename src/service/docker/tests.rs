use super::*;
use crate::kernel::state::{Link, Port};

fn advice() -> Advice<'static> {
    Advice {
        docker_env: Path::new("/run/flannel/docker.env"),
        daemon_json: None,
    }
}

fn bridge(marked: bool, mtu: u32) -> Link {
    Link {
        kind: LinkKind::Bridge,
        mac: None,
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

fn desired() -> KernelState {
    let mut state = KernelState::default();
    state.links.insert("docker0".into(), bridge(true, 1450));
    state.addresses.insert(on_docker0("100.96.1.1/24"));
    state
}

fn found(link: Link, address: &str, mtus: &[u32]) -> Report {
    let mut report = Report::default();
    report.links.insert("docker0".into(), link);
    report.addresses.insert(on_docker0(address));
    for (at, mtu) in mtus.iter().enumerate() {
        let (bridge, mtu) = ("docker0".to_owned(), *mtu);
        (report.ports).insert(format!("veth{at}"), Port { bridge, mtu });
    }
    let (bridge, mtu) = ("br-other".to_owned(), 9000);
    (report.ports).insert("aveth".to_owned(), Port { bridge, mtu });
    report
}

#[test]
fn containers_that_send_longer_packets_than_the_overlay_carries_are_counted() {
    for marked in [true, false] {
        let report = found(
            bridge(marked, 1450),
            "100.96.1.1/24",
            &[1450, 1500, 1400, 9000],
        );
        let text = advice().mtu(&desired(), &report).unwrap();
        let expected = "2 of 4 interfaces of containers on docker0 (veth1 first) have an MTU of \
                        up to 9000, and the overlay carries 1450: ";
        assert!(text.starts_with(expected), "{text}");
        for word in [
            "/run/flannel/docker.env",
            "\"mtu\": 1450 in /etc/docker/daemon.json",
            "systemctl restart docker;",
        ] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
    let foreign = found(bridge(false, 1500), "172.17.0.1/16", &[1500]);
    assert!(advice().mtu(&desired(), &foreign).is_some());
    let elsewhere = KernelState::default();
    assert_eq!(advice().mtu(&elsewhere, &foreign), None);
}

#[test]
fn what_is_no_longer_than_it_may_be_is_right() {
    for mtus in [[].as_slice(), &[1450], &[1400, 68]] {
        let report = found(bridge(true, 1450), "100.96.1.1/24", mtus);
        assert_eq!(advice().mtu(&desired(), &report), None, "{mtus:?}");
    }
}

#[test]
fn a_bridge_with_our_address_that_is_not_ours_may_have_the_wrong_mtu() {
    let said = |link, address| advice().mtu(&desired(), &found(link, address, &[]));
    let text = said(bridge(false, 1500), "100.96.1.1/24").unwrap();
    assert!(text.contains("MTU 1500 and not 1450"), "{text}");
    assert!(text.contains("run: flannel-rs take-bridge"), "{text}");
    assert_eq!(said(bridge(false, 1450), "100.96.1.1/24"), None);
    // the fault about the address says all
    assert_eq!(said(bridge(false, 1500), "172.17.0.1/16"), None);
    // to be set by this very service
    assert_eq!(said(bridge(true, 1500), "100.96.1.1/24"), None);
}

#[test]
fn a_bridge_in_other_hands_comes_with_the_remedy() {
    let foreign = |wanted: &str| Obstacle::Foreign {
        link: "docker0".to_owned(),
        found: vec!["172.17.0.1/16".parse().unwrap()],
        wanted: wanted.parse().into_iter().collect(),
    };
    let text = advice().on(&foreign("100.96.1.1/24"));
    for words in [
        "it has 172.17.0.1/16, not 100.96.1.1/24; ",
        "/run/flannel/docker.env",
        "docker.service.d/flannel-rs.conf",
        "\"bip\": \"100.96.1.1/24\" in /etc/docker/daemon.json",
        "systemctl restart docker",
        "flannel-rs take-bridge",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let written = Advice {
        daemon_json: Some(Path::new("/run/flannel/daemon.json")),
        ..advice()
    };
    let text = written.on(&foreign("100.96.1.1/24"));
    assert!(
        text.contains("--config-file /run/flannel/daemon.json"),
        "{text}"
    );
    let unwanted = "bridge docker0 is somebody else's: it has 172.17.0.1/16";
    assert_eq!(advice().on(&foreign("none")), unwanted);
}

#[test]
fn what_was_changed_elsewhere_is_not_what_was_taken() {
    let change = |verb: &str, object: &str| PlannedChange {
        verb: verb.to_owned(),
        object: object.to_owned(),
    };
    let others = [
        change("replace", "route 100.96.2.0/24 dev flannel.1"),
        change("set", "link docker00 mtu 1450"),
        change("write", "file /run/docker0"),
    ];
    let reason = taken("docker0", others.to_vec()).unwrap_err();
    assert!(
        reason.starts_with("nothing to take: docker0 is ours already"),
        "{reason}"
    );
    let of_it = [
        change("delete", "address 172.17.0.1/16 dev docker0"),
        change("set", "link docker0 alias flannel-rs mtu 1450"),
    ];
    let all = [&others[..], &of_it].concat();
    assert_eq!(taken("docker0", all).unwrap(), of_it);
}
