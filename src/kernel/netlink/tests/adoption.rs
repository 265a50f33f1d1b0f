//! What is there before us: adopted, replaced, or left alone.

use super::*;

/// flannel.1 as flanneld makes it, with the peer 100.96.2.0/24.
fn flanneld() {
    ip_run(
        "link add flannel.1 address 02:00:00:00:00:01 mtu 1450 \
         type vxlan id 1 local 192.168.5.1 dev eth0 dstport 8472 nolearning",
    );
    ip_run("addr add 100.96.1.0/32 dev flannel.1");
    ip_run("link set flannel.1 up");
    ip_run("neigh add 100.96.2.0 lladdr 02:00:00:00:00:02 dev flannel.1 nud permanent");
    run(
        "bridge",
        "fdb add 02:00:00:00:00:02 dev flannel.1 dst 192.168.5.2",
    );
    ip_run("route add 100.96.2.0/24 via 100.96.2.0 dev flannel.1 onlink");
}

#[test]
fn flannelds_device_is_adopted_if_it_fits() {
    in_namespace(|| async {
        flanneld();
        let mut kernel = Netlink::connect().unwrap();
        kernel.links().await.unwrap();
        let before = kernel.indexes["flannel.1"];
        let report = converged(&mut kernel, &vxlan()).await;
        let applied: Vec<_> = report.applied.iter().map(ToString::to_string).collect();
        assert_eq!(
            applied,
            [
                "set link flannel.1 alias flannel-rs addrgenmode none",
                "replace route 100.96.2.0/24 via 100.96.2.0 dev flannel.1 onlink",
            ]
        );
        assert_eq!(kernel.indexes["flannel.1"], before);
        assert_eq!(observed(&mut kernel, &vxlan()).await, vxlan());
        assert_eq!(ip_run("route show 100.96.2.0/24").lines().count(), 1);
    });
}

#[test]
fn flannelds_device_is_replaced_if_it_does_not_fit() {
    in_namespace(|| async {
        flanneld();
        let mut kernel = Netlink::connect().unwrap();
        kernel.links().await.unwrap();
        let before = kernel.indexes["flannel.1"];
        let desired = vxlan_with(|link| {
            if let LinkKind::Vxlan { port, .. } = &mut link.kind {
                *port = 4789;
            }
        });
        let report = converged(&mut kernel, &desired).await;
        assert_eq!(report.passes, 1);
        assert_ne!(kernel.indexes["flannel.1"], before);
        assert_eq!(observed(&mut kernel, &desired).await, desired);
    });
}

#[test]
fn what_is_not_ours_survives() {
    in_namespace(|| async {
        ip_run("link add other0 type veth peer name other1");
        ip_run("link set other0 up");
        ip_run("link set other1 up");
        ip_run("link add flannel.9 type vxlan id 9 dev eth0 dstport 8472");
        ip_run("addr add 100.96.200.1/32 dev other0");
        ip_run("route add 100.96.50.0/24 via 192.168.5.7 dev eth0");
        ip_run("route add 100.96.51.0/24 dev other0 proto static metric 5");
        ip_run("neigh add 192.168.5.7 lladdr 02:00:00:00:00:07 dev eth0 nud permanent");
        let show = || {
            let mut text = ip_run("-4 addr show dev other0");
            text += &ip_run("route show 100.96.50.0/24");
            text += &ip_run("route show 100.96.51.0/24");
            text += &ip_run("neigh show dev eth0 nud permanent");
            text += &ip_run("-d link show flannel.9");
            text
        };
        let before = show();
        let mut kernel = Netlink::connect().unwrap();
        converged(&mut kernel, &vxlan()).await;
        ip_run("addr add 10.9.9.9/32 dev flannel.1");
        converged(&mut kernel, &vxlan()).await;
        assert!(ip_run("addr show dev flannel.1").contains("10.9.9.9"));
        converged(&mut kernel, &host_gw()).await;
        let nothing = KernelState::default();
        let report = converge(&mut kernel, &nothing, &Scope::default()).await;
        assert!(report.unwrap().is_complete());
        assert_eq!(show(), before);
        assert_eq!(ip_run("route show proto 96"), "");
    });
}

#[test]
fn a_stray_route_to_our_own_subnet_goes() {
    in_namespace(|| async {
        ip_run("route add 100.96.1.0/24 via 192.168.5.2 dev eth0");
        let mut kernel = Netlink::connect().unwrap();
        converged(&mut kernel, &bridge()).await;
        let routes = ip_run("route show 100.96.1.0/24");
        let connected = "100.96.1.0/24 dev docker0 proto kernel scope link src 100.96.1.1";
        assert!(routes.starts_with(connected), "{routes}");
        assert_eq!(routes.lines().count(), 1, "{routes}");
    });
}

#[test]
fn bridges_of_others_are_not_touched() {
    in_namespace(|| async {
        ip_run("link add docker0 type bridge");
        ip_run("addr add 172.17.0.1/16 dev docker0");
        let before = ip_run("addr show docker0");
        let mut kernel = Netlink::connect().unwrap();
        let desired = bridge();
        let report = converge(&mut kernel, &desired, &scope(&desired)).await;
        let report = report.unwrap();
        assert!(report.applied.is_empty() && report.obstacles.len() == 1);
        assert_eq!(ip_run("addr show docker0"), before);
        ip_run("addr flush dev docker0");
        converged(&mut kernel, &desired).await;
        let link = ip_run("-d link show docker0");
        assert!(link.contains("alias flannel-rs"), "{link}");
        // Containers may want IPv6, which is none of our business.
        assert!(link.contains("addrgenmode eui64"), "{link}");
        ip_run("link set peer0 master docker0");
        let nothing = KernelState::default();
        let kept = converge(&mut kernel, &nothing, &scope(&nothing)).await;
        assert_eq!(
            kept.unwrap().obstacles[0].to_string(),
            "bridge docker0 is not wanted any more but has ports: peer0"
        );
        ip_run("link set peer0 nomaster");
        converged(&mut kernel, &nothing).await;
        assert!(!ip_run("link show").contains("docker0"));
    });
}

#[test]
fn another_device_under_our_name_stays() {
    in_namespace(|| async {
        ip_run("link add flannel.1 type veth peer name flannel.p");
        let mut kernel = Netlink::connect().unwrap();
        let report = converge(&mut kernel, &vxlan(), &scope(&vxlan())).await;
        let report = report.unwrap();
        assert!(report.applied.is_empty(), "{report:#?}");
        let said = report.obstacles[0].to_string();
        assert!(said.contains("but is \"veth\""), "{said}");
    });
}

#[test]
fn an_unwanted_tun_is_deleted_and_a_tap_is_none() {
    in_namespace(|| async {
        ip_run("tuntap add mode tun dev flannel0");
        let mut kernel = Netlink::connect().unwrap();
        converged(&mut kernel, &udp()).await;
        converged(&mut kernel, &KernelState::default()).await;
        assert!(!ip_run("link show").contains("flannel0"));
        ip_run("tuntap add mode tap dev flannel0");
        let report = converge(&mut kernel, &udp(), &scope(&udp())).await;
        let said = report.unwrap().obstacles[0].to_string();
        assert!(said.contains("should be \"tun\""), "{said}");
    });
}

#[test]
fn flannelds_direct_route_becomes_ours() {
    in_namespace(|| async {
        ip_run("route add 100.96.2.0/24 via 192.168.5.2 dev eth0");
        let mut kernel = Netlink::connect().unwrap();
        let report = converged(&mut kernel, &host_gw()).await;
        assert_eq!(report.passes, 1);
        let route = "100.96.2.0/24 via 192.168.5.2 dev eth0 proto 96";
        assert_eq!(ip_run("route show 100.96.2.0/24").trim(), route);
    });
}

#[test]
fn rivals_of_our_routes_go() {
    in_namespace(|| async {
        let mut kernel = Netlink::connect().unwrap();
        let desired = vxlan();
        converged(&mut kernel, &desired).await;
        for rival in [
            "prepend 100.96.2.0/24 via 192.168.5.66 dev eth0",
            "append 100.96.2.0/24 via 192.168.5.66 dev eth0 proto static",
            "prepend 100.96.2.0/24 via 100.96.2.7 dev flannel.1 onlink",
            "prepend 100.96.2.0/24 via 192.168.5.66 dev eth0 proto 96",
            "append 100.96.2.0/24 via 192.168.5.66 dev eth0 proto 96",
        ] {
            ip_run(&format!("route {rival}"));
            assert_eq!(ip_run("route show 100.96.2.0/24").lines().count(), 2);
            let report = converged(&mut kernel, &desired).await;
            assert_eq!(report.passes, 1, "{rival}: {report:#?}");
            let route = "100.96.2.0/24 via 100.96.2.0 dev flannel.1 proto 96 onlink";
            assert_eq!(ip_run("route show 100.96.2.0/24").trim(), route, "{rival}");
        }
    });
}
