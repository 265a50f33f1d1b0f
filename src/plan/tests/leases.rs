//! Leases of others that are not as they should be.

use super::*;

/// Each of these leases is valid for flanneld, and each would do harm.
#[test]
fn harmful_leases_get_no_path() {
    for backend in [
        r#"{"Type":"vxlan"}"#,
        r#"{"Type":"host-gw"}"#,
        r#"{"Type":"udp"}"#,
    ] {
        let node = node(backend);
        let nothing = plan(&node, &[]);
        for (key, ip) in [
            ("0.0.0.0-0", "192.168.1.48"),
            ("192.168.1.0-24", "192.168.1.48"),
            ("100.96.0.0-16", "192.168.1.48"),
            ("100.96.1.128-25", "192.168.1.48"),
            ("100.96.2.0-24", "0.0.0.0"),
            ("100.96.2.0-24", "127.0.0.1"),
            ("100.96.2.0-24", "224.0.0.1"),
            ("100.96.2.0-24", "255.255.255.255"),
            ("100.96.2.0-24", "100.96.2.1"),
            ("100.96.2.0-24", "192.168.1.255"),
            ("100.96.2.0-24", "192.168.1.0"),
            ("100.96.2.0-24", "192.168.1.47"),
        ] {
            let made = plan(&node, &[peer(&node, key, ip, MACS[1])]);
            assert_eq!(made.kernel, nothing.kernel, "{backend} {key} {ip}");
            assert_eq!(made.proxy, nothing.proxy, "{backend} {key} {ip}");
            assert!(
                matches!(paths(&made)[..], [Path::None(_)]),
                "{backend} {key} {ip}"
            );
        }
    }
}

#[test]
fn a_peer_with_another_backend_or_no_device_is_left_out() {
    let node = node(r#"{"Type":"vxlan"}"#);
    let mut other = peer(&node, "100.96.2.0-24", "192.168.1.48", MACS[1]);
    for (attrs, want) in [
        (
            BackendAttrs::HostGw,
            Obstacle::OtherBackend("host-gw".into()),
        ),
        (
            BackendAttrs::Other("wireguard".into()),
            Obstacle::OtherBackend("wireguard".into()),
        ),
        (
            BackendAttrs::Vxlan(Vtep {
                vni: None,
                mac: None,
            }),
            Obstacle::NoVtep,
        ),
    ] {
        other.attrs.backend = attrs;
        assert_eq!(paths(&plan(&node, [&other])), [Path::None(want)]);
    }
}

#[test]
fn of_two_peers_with_one_ethernet_address_the_first_keeps_it() {
    let node = node(r#"{"Type":"vxlan"}"#);
    let twins = [
        peer(&node, "100.96.2.0-24", "192.168.1.48", MACS[1]),
        peer(&node, "100.96.3.0-24", "192.168.1.49", MACS[1]),
        peer(&node, "100.96.4.0-24", "192.168.1.50", MACS[0]),
        peer(
            &node,
            "100.96.5.0-24",
            "192.168.1.51",
            Mac::new([1, 0, 0, 0, 0, 1]),
        ),
    ];
    let plan = plan(&node, &twins);
    let blocked = |mac| Path::None(Obstacle::SameMac(mac));
    let group = Path::None(Obstacle::NoUnicast(Mac::new([1, 0, 0, 0, 0, 1])));
    let expected = [Path::Tunnel, blocked(MACS[1]), blocked(MACS[0]), group];
    assert_eq!(paths(&plan), expected);
    assert_eq!(plan.kernel.fdb.len(), 1);
}

/// A machine that lost its state folder: the old lease has not run out yet.
#[test]
fn one_machine_may_have_two_leases() {
    let node = node(r#"{"Type":"vxlan"}"#);
    let leases = [
        peer(&node, "100.96.2.0-24", "192.168.1.48", MACS[1]),
        peer(&node, "100.96.3.0-24", "192.168.1.48", MACS[1]),
    ];
    let plan = plan(&node, &leases);
    assert_eq!(paths(&plan), [Path::Tunnel, Path::Tunnel]);
    assert_eq!((plan.kernel.fdb.len(), plan.kernel.routes.len()), (1, 2));
}

#[test]
fn a_lease_inside_or_around_another_takes_no_packets_from_it() {
    for backend in ["host-gw", "vxlan", "udp"] {
        let node = node(&format!(r#"{{"Type":"{backend}"}}"#));
        let alone = plan(&node, &peers(&node));
        let mut leases = peers(&node);
        let odd = [
            "100.96.2.128-25",
            "100.96.2.0-30",
            "100.96.2.0-23",
            "100.96.1.0-26",
        ];
        let thief = |key: &&str| {
            peer(
                &node,
                key,
                "192.168.1.60",
                "02:00:00:00:00:09".parse().unwrap(),
            )
        };
        leases.extend(odd.iter().map(thief));
        let together = plan(&node, &leases);
        assert_eq!(together.kernel, alone.kernel, "{backend}");
        for (key, other) in odd.iter().zip(["2", "2", "2", "1"]) {
            let other = Subnet::from_key(&format!("100.96.{other}.0-24")).unwrap();
            let path = &together.paths[&Subnet::from_key(key).unwrap()];
            assert_eq!(*path, Path::None(Obstacle::Overlap(other)), "{key}");
        }
        // an odd size alone is no reason: the config may have asked for another one before
        leases = vec![thief(&"100.96.8.0-22")];
        let path = &plan(&node, &leases).paths[&Subnet::from_key("100.96.8.0-22").unwrap()];
        assert!(!matches!(path, Path::None(_)), "{backend}: {path:?}");
    }
}
