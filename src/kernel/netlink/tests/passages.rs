//! What keeps packets from passing.

use super::*;
use crate::kernel::change::Obstacle;
use crate::kernel::passage::{ALL, Blockage, Passage};

/// A node with a tunnel and a bridge, and a peer to which the way may lead astray.
pub(super) fn node(opens: bool) -> KernelState {
    let [vxlan, bridge] = [vxlan(), bridge()];
    let mut desired = merged([vxlan, bridge, KernelState::default()]);
    let forwards = Passage {
        forwards: true,
        ..Passage::default()
    };
    for link in ["docker0", "flannel.1"] {
        desired.passages.insert(link.to_owned(), forwards.clone());
    }
    let uplink = Passage {
        visitors: [ip("192.168.5.2"), ip("10.9.9.9"), ip("10.8.8.8")].into(),
        ..forwards
    };
    desired.passages.insert("eth0".to_owned(), uplink);
    desired.opens_passages = opens;
    desired
}

/// Nothing filters, and the way to one of the peers leads by another link than to the others.
pub(super) fn prepare() {
    set("ip_forward=1");
    set("conf.all.rp_filter=0");
    set("conf.default.rp_filter=0");
    set("conf.eth0.rp_filter=0");
    ip_run("link add other0 type veth peer name other1");
    ip_run("link set other1 up");
    ip_run("link set other0 up");
    ip_run("route add 10.9.9.9/32 dev other0");
}

fn set(parameter: &str) {
    run("sysctl", &format!("-qw net.ipv4.{parameter}"));
}

fn said(parameter: &str) -> String {
    let said = run("sysctl", &format!("-n net.ipv4.{parameter}"));
    said.trim().to_owned()
}

async fn obstacles(kernel: &mut Netlink, desired: &KernelState) -> Vec<Obstacle> {
    let report = converge(kernel, desired, &scope(desired)).await.unwrap();
    assert!(report.settled, "{report:#?}");
    report.obstacles
}

#[test]
fn links_that_do_not_forward_are_told() {
    in_namespace(|| async {
        prepare();
        let mut kernel = Netlink::connect().unwrap();
        let desired = node(false);
        converged(&mut kernel, &desired).await;
        set("ip_forward=0");
        let nowhere = [Obstacle::Blocked(Blockage::Everywhere)];
        assert_eq!(obstacles(&mut kernel, &desired).await, nowhere);
        let links = |links: &[&str]| {
            let links = links.iter().map(ToString::to_string).collect();
            [Obstacle::Blocked(Blockage::Links(links))]
        };
        set("conf.docker0.forwarding=1");
        let rest = links(&["eth0", "flannel.1"]);
        assert_eq!(obstacles(&mut kernel, &desired).await, rest);
        set("ip_forward=1");
        converged(&mut kernel, &desired).await;
        // what the fault says is what helps
        for link in ["docker0", "flannel/1", "eth0"] {
            set(&format!("conf.{link}.forwarding=0"));
        }
        let found = obstacles(&mut kernel, &desired).await;
        assert_eq!(found, links(&["docker0", "eth0", "flannel.1"]));
        let text = found[0].to_string();
        let (_, command) = text.split_once("sysctl -w ").unwrap();
        run("sysctl", &format!("-qw {command}"));
        converged(&mut kernel, &desired).await;
        // one that is none of ours
        set("conf.other0.forwarding=0");
        converged(&mut kernel, &desired).await;
    });
}

#[test]
fn a_strict_filter_is_told_where_it_drops() {
    in_namespace(|| async {
        prepare();
        let mut kernel = Netlink::connect().unwrap();
        let desired = node(false);
        let drops = [Obstacle::Blocked(Blockage::Filter {
            link: "eth0".to_owned(),
            visitor: ip("10.9.9.9"),
        })];
        // of the link and of all links the larger counts
        for (all, link, expected) in [
            (0, 1, drops.as_slice()),
            (1, 0, &drops),
            (1, 1, &drops),
            (2, 1, &[]),
            (1, 2, &[]),
            (0, 0, &[]),
        ] {
            set(&format!("conf.all.rp_filter={all}"));
            set(&format!("conf.eth0.rp_filter={link}"));
            let found = obstacles(&mut kernel, &desired).await;
            assert_eq!(found, expected, "all {all}, eth0 {link}");
        }
        set("conf.eth0.rp_filter=1");
        // where the way back is the way in, and where there is none, it drops nothing of theirs
        ip_run("route replace 10.9.9.9/32 dev eth0");
        converged(&mut kernel, &desired).await;
        ip_run("route del 10.9.9.9/32 dev eth0");
        converged(&mut kernel, &desired).await;
    });
}

#[test]
fn passages_are_opened_where_that_is_wanted() {
    in_namespace(|| async {
        prepare();
        set("ip_forward=0");
        set("conf.default.forwarding=0");
        set("conf.all.rp_filter=1");
        let mut kernel = Netlink::connect().unwrap();
        let desired = node(true);
        // the tunnel is made first, and begins closed
        let report = converged(&mut kernel, &desired).await;
        assert_eq!(report.passes, 2, "{report:#?}");
        for link in ["docker0", "flannel/1", "eth0"] {
            assert_eq!(said(&format!("conf.{link}.forwarding")), "1", "{link}");
        }
        assert_eq!(said("conf.eth0.rp_filter"), "2");
        assert_eq!(said("conf.docker0.rp_filter"), "0", "it drops nothing");
        assert_eq!(said("conf.other0.forwarding"), "0", "none of ours");
        assert_eq!(said("ip_forward"), "0", "somebody else's");
        for closed in ["conf.docker0.forwarding=0", "conf.eth0.rp_filter=1"] {
            set(closed);
            let report = converged(&mut kernel, &desired).await;
            assert_eq!(report.applied.len(), 1, "{closed}: {report:#?}");
        }
        let seen = kernel.observe(&scope(&desired)).await.unwrap().passages;
        let names: Vec<_> = seen.keys().map(String::as_str).collect();
        assert_eq!(names, [ALL, "docker0", "eth0", "flannel.1"]);
    });
}
