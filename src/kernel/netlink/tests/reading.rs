//! What is only read: hints, plans, uplinks.

use super::*;

#[test]
fn a_hint_comes_when_something_changed_and_not_otherwise() {
    in_namespace(|| async {
        let mut kernel = Netlink::connect().unwrap();
        let mut hints = kernel.hints().unwrap();
        converged(&mut kernel, &vxlan()).await;
        let soon = Duration::from_secs(5);
        let quiet = Duration::from_millis(300);
        tokio::time::timeout(soon, hints.next()).await.unwrap();
        while tokio::time::timeout(quiet, hints.next()).await.is_ok() {}
        ip_run("neigh add 192.168.5.7 lladdr 02:00:00:00:00:07 dev eth0 nud permanent");
        ip_run("route add 10.0.0.0/24 via 192.168.5.7 proto bgp");
        let noise = tokio::time::timeout(quiet, hints.next()).await;
        assert!(noise.is_err(), "others' neighbours and routes are no hint");
        for drift in [
            "route del 100.96.2.0/24",
            "neigh del 100.96.2.0 dev flannel.1",
            "addr del 100.96.1.0/32 dev flannel.1",
            "link del flannel.1",
        ] {
            ip_run(drift);
            let hint = tokio::time::timeout(soon, hints.next()).await;
            assert!(hint.is_ok(), "{drift}");
            while tokio::time::timeout(quiet, hints.next()).await.is_ok() {}
        }
    });
}

#[test]
fn a_plan_needs_no_privilege_and_changes_nothing() {
    in_namespace(|| async {
        let mut kernel = Netlink::connect().unwrap();
        let mut with_privilege = Netlink::connect().unwrap();
        converged(&mut with_privilege, &vxlan()).await;
        drop_privileges();
        let desired = host_gw();
        let found = pending(&mut kernel, &desired, &scope(&desired)).await;
        assert_eq!(found.unwrap().changes.len(), 2);
        let mut seen = observed(&mut kernel, &vxlan()).await;
        let refusal = seen.firewall.refusal.take().unwrap_or_default();
        assert!(refusal.ends_with("needs CAP_NET_ADMIN"), "{refusal}");
        assert_eq!(seen, vxlan());
        let mut fresh = Netlink::connect().unwrap();
        let _hints = fresh.hints().unwrap();
        let report = converge(&mut fresh, &desired, &scope(&desired)).await;
        let report = report.unwrap();
        assert!(report.applied.is_empty());
        for failure in &report.failed {
            assert!(failure.reason.ends_with("needs CAP_NET_ADMIN"));
        }
        assert_eq!(report.failed.len(), 2);
    });
}

/// Gives up all capabilities of this thread.
pub(super) fn drop_privileges() {
    // The raw call alters this thread alone; the library's alters all.
    #[expect(unsafe_code, reason = "there is no safe call for one thread")]
    // SAFETY: takes three numbers and touches no memory.
    let result = unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
    assert_eq!(result, 0);
}

#[test]
fn the_uplink_is_found() {
    in_namespace(|| async {
        let mut kernel = Netlink::connect().unwrap();
        converged(&mut kernel, &vxlan()).await;
        ip_run("route add default via 192.168.5.254 metric 10");
        ip_run("route add default via 100.96.2.0 dev flannel.1 onlink metric 5");
        let preference = Preference::default();
        let there = kernel.interfaces(&preference).await.unwrap();
        assert_eq!(there.default_routes.len(), 2);
        let found = uplink::choose(&preference, &there).unwrap();
        assert_eq!(found.name, "eth0");
        assert_eq!(found.address, ip("192.168.5.1"));
        assert_eq!(found.mtu, 1500);
        assert_eq!(found.networks, [net("192.168.5.0/24")]);
        let reach = |text: &str| Preference {
            can_reach: Some(ip(text)),
            ..Preference::default()
        };
        let there = kernel.interfaces(&reach("192.168.5.9")).await.unwrap();
        let found = uplink::choose(&reach("192.168.5.9"), &there).unwrap();
        assert_eq!(
            (found.name.as_str(), found.address),
            ("eth0", ip("192.168.5.1"))
        );
        let there = kernel.interfaces(&reach("100.96.2.9")).await.unwrap();
        assert!(uplink::choose(&reach("100.96.2.9"), &there).is_err());
        ip_run("route del default metric 5");
        ip_run("route del default metric 10");
        let there = kernel.interfaces(&reach("8.8.8.8")).await.unwrap();
        assert_eq!(there.reach, None);
    });
}

#[test]
fn a_multipath_default_route_over_one_interface_will_do() {
    in_namespace(|| async {
        ip_run("route add default nexthop via 192.168.5.253 nexthop via 192.168.5.254");
        let mut kernel = Netlink::connect().unwrap();
        let preference = Preference::default();
        let there = kernel.interfaces(&preference).await.unwrap();
        let found = uplink::choose(&preference, &there).unwrap();
        assert_eq!(found.name, "eth0");
    });
}

#[test]
fn a_broken_socket_for_hints_is_replaced() {
    in_namespace(|| async {
        let kernel = Netlink::connect().unwrap();
        let mut hints = kernel.hints().unwrap();
        hints.break_for_test();
        let soon = Duration::from_secs(5);
        tokio::time::timeout(soon, hints.next()).await.unwrap();
        ip_run("addr add 192.168.5.2/24 dev eth0");
        tokio::time::timeout(soon, hints.next()).await.unwrap();
    });
}
