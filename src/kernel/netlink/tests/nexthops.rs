//! Routes through nexthop objects, on the kernel that has them.

use std::process::{Child, Stdio};

use super::*;
use crate::kernel::message::Message;
use crate::kernel::nexthop::{FEW, MANY};

fn vxlan_of(count: usize) -> KernelState {
    let mut state = vxlan();
    add_many_peers(&mut state, u32::try_from(count).unwrap());
    state
}

/// All of 100.96.10.0/24 that people see.
fn first_route() -> String {
    ip_run("route show 100.96.10.0/24").trim().to_owned()
}

const THROUGH: &str =
    "100.96.10.0/24 nhid 1684015616 via 100.96.10.0 dev flannel.1 proto 96 onlink";
const PLAIN: &str = "100.96.10.0/24 via 100.96.10.0 dev flannel.1 proto 96 onlink";

fn objects() -> usize {
    ip_run("nexthop show proto 96").lines().count()
}

#[test]
fn many_routes_lead_through_objects_and_show_the_same_way() {
    in_namespace(|| async {
        let mut kernel = Netlink::connect().unwrap();
        for (count, objects_then, shown) in [
            (MANY - 2, 0, PLAIN),
            (MANY - 1, MANY, THROUGH),
            (MANY - 2, MANY - 1, THROUGH),
            (FEW - 1, FEW, THROUGH),
            (FEW - 2, 0, PLAIN),
            (MANY + 9, MANY + 10, THROUGH),
        ] {
            let desired = vxlan_of(count);
            let report = converged(&mut kernel, &desired).await;
            assert_eq!(report.passes, 1, "{count}");
            assert_eq!(observed(&mut kernel, &desired).await, desired);
            assert_eq!((objects(), first_route().as_str()), (objects_then, shown));
            // One that starts anew finds nothing to do.
            let mut restarted = Netlink::connect().unwrap();
            assert_eq!(converged(&mut restarted, &desired).await.applied, []);
        }
        let nothing = KernelState::default();
        let report = converge(&mut kernel, &nothing, &Scope::default()).await;
        assert!(report.unwrap().is_complete());
        assert_eq!(ip_run("nexthop show"), "");
    });
}

#[test]
fn no_route_is_missing_while_it_becomes_an_object_or_plain() {
    in_namespace(|| async {
        let mut kernel = Netlink::connect().unwrap();
        converged(&mut kernel, &vxlan_of(MANY - 2)).await;
        let watch = Command::new("ip")
            .args(["monitor", "route"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        converged(&mut kernel, &vxlan_of(MANY)).await;
        // Three peers less, and the rest of these routes is deleted by nobody.
        converged(&mut kernel, &vxlan_of(FEW)).await;
        converged(&mut kernel, &vxlan_of(FEW - 5)).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let seen = stop(watch);
        let deleted = seen.lines().filter(|line| line.starts_with("Deleted"));
        assert_eq!(deleted.count(), MANY - FEW + 5);
        assert!(!seen.contains("Deleted 100.96.10.0/24"), "{seen}");
        assert!(seen.contains(THROUGH) && seen.contains(PLAIN));
    });
}

fn stop(mut child: Child) -> String {
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn drift_of_objects_is_repaired_by_one_pass() {
    in_namespace(|| async {
        let desired = vxlan_of(MANY);
        let mut kernel = Netlink::connect().unwrap();
        converged(&mut kernel, &desired).await;
        for drift in [
            "nexthop del id 1684015616",
            "nexthop replace id 1684015616 via 100.96.99.0 dev flannel.1 onlink proto 96",
            "nexthop replace id 1684015616 via 192.168.5.9 dev eth0 proto 96",
            "nexthop replace id 1684015616 blackhole proto 96",
            "nexthop add id 77 via 192.168.5.9 dev eth0 proto 96",
            "nexthop flush proto 96",
            "route replace 100.96.10.0/24 via 100.96.10.0 dev flannel.1 onlink proto 96",
            "route replace 100.96.10.0/24 nhid 1684015872 proto 96",
            "route append 100.96.10.0/24 nhid 1684015872 proto 96",
            "route prepend 100.96.10.0/24 nhid 1684015872 proto static",
            "route add 10.5.0.0/16 nhid 1684015616 proto static",
            "route del 100.96.10.0/24",
            "addr flush dev flannel.1",
            "link set flannel.1 down",
            "link set flannel.1 address 02:00:00:00:00:99",
            "link set eth0 down",
            "link del flannel.1",
        ] {
            ip_run(drift);
            if drift == "link set eth0 down" {
                ip_run("link set eth0 up");
            }
            let report = converged(&mut kernel, &desired).await;
            assert!(report.passes <= 1, "{drift}: {report:#?}");
            assert_eq!(observed(&mut kernel, &desired).await, desired, "{drift}");
            assert!(
                report.applied.is_empty() == drift.contains("eth0 down"),
                "{drift}"
            );
            // Somebody who writes a blackhole into our object with our protocol has its id now.
            if !drift.contains("blackhole") {
                assert_eq!(first_route(), THROUGH, "{drift}");
            } else {
                ip_run("nexthop del id 1684015616");
                converged(&mut kernel, &desired).await;
            }
            assert_eq!(objects(), MANY + 1, "{drift}");
        }
    });
}

#[test]
fn objects_of_others_are_left_alone_and_their_ids_too() {
    in_namespace(|| async {
        ip_run("nexthop add id 1684015616 via 192.168.5.7 dev eth0 proto static");
        ip_run("nexthop add id 1684015872 blackhole");
        ip_run("nexthop add id 1684016128 group 1684015616");
        ip_run("nexthop add id 5 dev eth0 proto bgp");
        ip_run("-6 nexthop add id 6 blackhole");
        ip_run("route add 203.0.113.0/24 nhid 1684016128 proto bgp");
        let mine = |line: &&str| !line.contains("proto 96");
        let foreign = || {
            let all = ip_run("nexthop show") + &ip_run("route show 203.0.113.0/24");
            all.lines()
                .filter(mine)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let before = foreign();
        assert_eq!(before.len(), 6);
        let mut kernel = Netlink::connect().unwrap();
        let desired = vxlan_of(MANY);
        for desired in [&desired, &vxlan_of(MANY + 1), &KernelState::default()] {
            let report = converged(&mut kernel, desired).await;
            assert_eq!(report.passes, 1);
            assert_eq!(foreign(), before);
        }
        converged(&mut kernel, &desired).await;
        let shown = first_route();
        assert!(shown.contains("nhid 1684015617 via 100.96.10.0"), "{shown}");
        // Somebody takes over one that was ours: then it is theirs.
        ip_run("nexthop replace id 1684016384 via 192.168.5.9 dev eth0 proto static");
        let report = converged(&mut kernel, &desired).await;
        assert_eq!(report.passes, 1);
        assert!(ip_run("nexthop show id 1684016384").contains("proto static"));
        assert_eq!(observed(&mut kernel, &desired).await, desired);
    });
}

#[test]
fn routes_are_understood_where_their_messages_lack_the_gateway() {
    in_namespace(|| async {
        let old = "/proc/sys/net/ipv4/nexthop_compat_mode";
        if std::fs::write(old, "0").is_err() {
            println!("skipped: {old} cannot be written");
            return;
        }
        let mut kernel = Netlink::connect().unwrap();
        let desired = vxlan_of(MANY);
        converged(&mut kernel, &desired).await;
        assert_eq!(observed(&mut kernel, &desired).await, desired);
        assert_eq!(converged(&mut kernel, &desired).await.passes, 0);
        ip_run("route replace 100.96.10.0/24 nhid 1684015872 proto 96");
        assert_eq!(converged(&mut kernel, &desired).await.applied.len(), 1);
    });
}

#[test]
fn a_kernel_without_objects_gets_plain_routes() {
    in_namespace(|| async {
        let mut kernel = Netlink::connect().unwrap();
        let refusal = Refusal {
            errno: libc::EOPNOTSUPP,
            text: "Operation not supported".to_owned(),
        };
        kernel.has_no_nexthops(&refusal);
        let desired = vxlan_of(MANY);
        converged(&mut kernel, &desired).await;
        assert_eq!((objects(), first_route().as_str()), (0, PLAIN));
        assert_eq!(observed(&mut kernel, &desired).await, desired);
    });
}

#[test]
fn an_unknown_message_is_refused_as_an_old_kernel_would() {
    in_namespace(|| async {
        let mut kernel = Netlink::connect().unwrap();
        let unknown = Message {
            kind: 0x7ffe,
            body: vec![0; 8],
        };
        let answer = kernel.socket.list("testing", unknown, Some).await.unwrap();
        assert_eq!(answer.unwrap_err().errno, libc::EOPNOTSUPP);
    });
}
