//! Drift, alterations and refusals.

use super::*;
use crate::kernel::diff::diff;

#[test]
fn settings_are_altered_in_place_in_one_pass() {
    in_namespace(|| async {
        let mut kernel = Netlink::connect().unwrap();
        converged(&mut kernel, &vxlan()).await;
        let index = kernel.indexes["flannel.1"];
        let alterations: [fn(&mut Link); 5] = [
            |link| link.mtu = 1400,
            |link| link.mac = Some(mac(0x77)),
            |link| {
                if let LinkKind::Vxlan { local, .. } = &mut link.kind {
                    *local = ip("192.168.5.9");
                }
            },
            |link| {
                if let LinkKind::Vxlan { learning, .. } = &mut link.kind {
                    *learning = true;
                }
            },
            |_| {},
        ];
        for alter in alterations {
            let desired = vxlan_with(alter);
            let report = converged(&mut kernel, &desired).await;
            assert_eq!(report.passes, 1, "{report:#?}");
            assert_eq!(observed(&mut kernel, &desired).await, desired);
            assert_eq!(kernel.indexes["flannel.1"], index);
        }
    });
}

#[test]
fn a_renumbered_node_converges_in_one_pass() {
    in_namespace(|| async {
        ip_run("tuntap add mode tun dev flannel0");
        let mut kernel = Netlink::connect().unwrap();
        let before = merged([vxlan(), udp(), bridge()]);
        converged(&mut kernel, &before).await;
        let mut after = before.clone();
        after.addresses = [
            address("flannel.1", "100.96.8.0/32"),
            address("flannel0", "100.96.8.0/32"),
            address("docker0", "100.96.8.1/24"),
        ]
        .into();
        let route = after.routes.get_mut(&key("100.96.0.0/16")).unwrap();
        route.source = Some(ip("100.96.8.0"));
        let report = converged(&mut kernel, &after).await;
        assert_eq!(report.passes, 1, "{report:#?}");
        assert_eq!(observed(&mut kernel, &after).await, after);
    });
}

#[test]
fn each_kind_of_drift_is_repaired_by_one_pass() {
    in_namespace(|| async {
        ip_run("tuntap add mode tun dev flannel0");
        let mut desired = merged([vxlan(), udp(), bridge()]);
        let route = via("192.168.5.3", "eth0");
        desired.routes.insert(key("100.96.3.0/24"), route);
        let mut kernel = Netlink::connect().unwrap();
        converged(&mut kernel, &desired).await;
        for drift in [
            "route flush dev flannel.1",
            "route add 10.5.0.0/16 via 100.96.2.0 dev flannel.1 onlink proto static",
            "route add 100.96.9.0/24 via 192.168.5.9 dev eth0 proto 96",
            "neigh add 100.96.9.0 lladdr 02:00:00:00:00:09 dev flannel.1 nud permanent",
            "addr add 100.96.9.0/32 dev flannel.1",
            "route del 100.96.0.0/16 dev flannel0",
            "route replace 100.96.2.0/24 via 192.168.5.77 dev eth0",
            "neigh flush dev flannel.1 nud permanent",
            "neigh replace 100.96.2.0 lladdr 02:00:00:00:00:99 dev flannel.1 nud permanent",
            "addr flush dev flannel.1",
            "addr flush dev flannel0",
            "addr flush dev docker0",
            "link set flannel.1 down",
            "link set flannel0 down",
            "link set docker0 down",
            "link set eth0 down",
            "link set flannel.1 address 02:00:00:00:00:99",
            "link set flannel.1 mtu 1200",
            "link set docker0 mtu 1200",
            "link del flannel.1",
            "link del docker0",
        ] {
            ip_run(drift);
            if drift == "link set eth0 down" {
                ip_run("link set eth0 up");
            }
            let report = converged(&mut kernel, &desired).await;
            assert_eq!(report.passes, 1, "{drift}: {report:#?}");
            assert_eq!(observed(&mut kernel, &desired).await, desired, "{drift}");
        }
        assert_eq!(ip_run("route show dev flannel.1").lines().count(), 1);
        for drift in [
            "fdb del 02:00:00:00:00:02 dev flannel.1",
            "fdb replace 02:00:00:00:00:02 dev flannel.1 dst 192.168.5.99",
            "fdb add 02:00:00:00:00:98 dev flannel.1 dst 192.168.5.98 static",
        ] {
            run("bridge", drift);
            let report = converged(&mut kernel, &desired).await;
            assert_eq!(report.passes, 1, "{drift}: {report:#?}");
        }
        ip_run("link del flannel0");
        let report = converge(&mut kernel, &desired, &scope(&desired)).await;
        let report = report.unwrap();
        assert!(report.settled && report.applied.is_empty(), "{report:#?}");
        assert_eq!(
            report.obstacles[0].to_string(),
            "TUN device flannel0 is not there yet"
        );
    });
}

#[test]
fn refusals_say_why_and_do_not_stop_the_rest() {
    in_namespace(|| async {
        let mut desired = vxlan();
        let far = via("203.0.113.1", "eth0");
        desired.routes.insert(key("100.96.3.0/24"), far);
        let nowhere = via("192.168.5.3", "eth7");
        desired.routes.insert(key("100.96.4.0/24"), nowhere);
        let mut kernel = Netlink::connect().unwrap();
        let report = converge(&mut kernel, &desired, &scope(&desired)).await;
        let report = report.unwrap();
        assert!(!report.settled);
        assert_eq!(report.passes, 1, "{report:#?}");
        let reasons: Vec<_> = report.failed.iter().map(|f| f.reason.as_str()).collect();
        assert_eq!(
            reasons,
            [
                "Nexthop has invalid gateway: 203.0.113.1 is not on a network of eth0, so it \
                 cannot be a next hop; use vxlan or udp between networks",
                "there is no link \"eth7\"",
            ]
        );
        let mut seen = observed(&mut kernel, &desired).await;
        seen.ports.clear();
        assert_eq!(seen, vxlan());
    });
}

#[test]
fn a_second_device_with_our_vni_is_named_in_the_reason() {
    in_namespace(|| async {
        ip_run("link add vx9 type vxlan id 1 dstport 8472 dev eth0");
        let mut kernel = Netlink::connect().unwrap();
        let report = converge(&mut kernel, &vxlan(), &scope(&vxlan())).await;
        let report = report.unwrap();
        let link = &report.failed[0];
        assert!(matches!(link.change, Change::AddLink(..)));
        assert!(
            link.reason.contains("specified VNI already exists"),
            "{link:?}"
        );
    });
}

#[test]
fn a_setting_of_a_link_that_has_gone_fails_alone() {
    in_namespace(|| async {
        let mut kernel = Netlink::connect().unwrap();
        converged(&mut kernel, &vxlan()).await;
        ip_run("link del flannel.1");
        let set = Change::SetLink("flannel.1".to_owned(), vec![Setting::Mtu(1300)]);
        let delete = Change::DelLink("flannel.1".to_owned());
        let row = Change::DelRoute(
            key("100.96.2.0/24"),
            Route {
                link: "flannel.1".into(),
                ..onlink("100.96.2.0", "flannel.1")
            },
        );
        let failures = kernel.apply(&[set.clone(), delete, row]).await.unwrap();
        assert_eq!(failures.len(), 1);
        assert_eq!(failures[0].change, set);
        assert!(failures[0].reason.contains("went away"), "{failures:?}");
    });
}

#[test]
fn a_lost_acknowledgement_ends_in_a_timeout_and_a_new_socket() {
    in_namespace(|| async {
        let mut desired = vxlan();
        for n in 3..250 {
            add_peer(&mut desired, n);
        }
        let mut kernel = Netlink::connect().unwrap();
        // Time stands still while there are answers: this alone ends in no timeout.
        tokio::time::pause();
        converged(&mut kernel, &desired).await;
        ip_run("link del flannel.1");
        observed(&mut kernel, &desired).await;
        kernel.socket = Socket::forgetful();
        let changes = diff(&KernelState::default(), &desired, &scope(&desired)).changes;
        let result = kernel.apply(&changes).await;
        assert!(
            matches!(result, Err(KernelError::Timeout { .. })),
            "{result:?}"
        );
        tokio::time::resume();
        converged(&mut kernel, &desired).await;
        assert_eq!(observed(&mut kernel, &desired).await, desired);
    });
}

#[test]
fn rows_of_a_link_that_goes_while_they_are_listed_are_none() {
    in_namespace(|| async {
        let mut kernel = Netlink::connect().unwrap();
        let gone = 9999;
        let mut seen = Seen::default();
        kernel.addresses(gone, &mut seen.state).await.unwrap();
        kernel.neighbours(gone, &mut seen.state).await.unwrap();
        kernel.fdb(gone, &mut seen.state).await.unwrap();
        let filter = Filter::Link(gone);
        let scope = Scope::default();
        kernel.routes(filter, &scope, &mut seen).await.unwrap();
        assert_eq!(seen.state, KernelState::default());
    });
}

/// The kernel adapts a bridge to its ports unless the MTU was set by somebody.
#[test]
fn a_bridge_keeps_its_mtu_whoever_joins_it() {
    for (mtu, of_port) in [(1450, 1500), (1500, 1400), (1501, 1500)] {
        in_namespace(move || async move {
            let mut desired = bridge();
            desired.links.get_mut("docker0").unwrap().mtu = mtu;
            let mut kernel = Netlink::connect().unwrap();
            let report = converged(&mut kernel, &desired).await;
            assert_eq!(report.passes, 1);
            for port in ["port0", "port1"] {
                let veth = format!("mtu {of_port} type veth peer name end-{port}");
                ip_run(&format!("link add {port} {veth}"));
                ip_run(&format!("link set {port} master docker0"));
                ip_run(&format!("link set {port} up"));
            }
            ip_run("link delete port0");
            let seen = observed(&mut kernel, &desired).await;
            assert_eq!(seen.links, desired.links);
        });
    }
}
