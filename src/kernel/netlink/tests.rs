//! Against the running kernel, each test in a network namespace of its own.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::kernel::change::Setting;
use crate::kernel::reconcile::{Report, converge, pending};
use crate::kernel::samples::*;
use crate::kernel::state::{KernelState, Route};
use crate::kernel::uplink::{self, Preference};

mod adoption;
mod firewall;
mod nexthops;
mod notice;
mod passages;
mod reading;
mod repair;
mod scale;

/// Runs a test in a fresh namespace with `eth0`, 192.168.5.1/24, whose other end is `peer0`. The
/// namespace ends with the thread.
fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(move || {
        if let Err(refusal) = unshare(CloneFlags::CLONE_NEWNET) {
            println!("skipped: a network namespace needs root: {refusal}");
            return;
        }
        if let Err(missing) = Command::new("ip").arg("-V").output() {
            println!("skipped: needs iproute2: {missing}");
            return;
        }
        for line in [
            "link set lo up",
            "link add eth0 type veth peer name peer0",
            "addr add 192.168.5.1/24 dev eth0",
            "link set eth0 up",
            "link set peer0 up",
        ] {
            ip_run(line);
        }
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap().block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn run(program: &str, line: &str) -> String {
    let output = Command::new(program)
        .args(line.split_whitespace())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {line}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn ip_run(line: &str) -> String {
    run("ip", line)
}

async fn converged(kernel: &mut Netlink, desired: &KernelState) -> Report {
    let report = converge(kernel, desired, &scope(desired)).await.unwrap();
    assert!(report.is_complete(), "{report:#?}");
    assert_eq!(report.failed, []);
    report
}

/// What is there, in the words of a plan.
async fn observed(kernel: &mut Netlink, desired: &KernelState) -> KernelState {
    let mut seen = kernel.observe(&scope(desired)).await.unwrap();
    let mut through = BTreeSet::new();
    for route in seen.routes.values_mut() {
        through.extend(route.nexthop.take());
    }
    assert!(through.iter().eq(seen.nexthops.keys()), "{seen:#?}");
    seen.nexthops.clear();
    seen.foreign_nexthops = None;
    seen
}

fn merged(states: [KernelState; 3]) -> KernelState {
    let mut all = KernelState::default();
    for state in states {
        all.links.extend(state.links);
        all.addresses.extend(state.addresses);
        all.neighbours.extend(state.neighbours);
        all.fdb.extend(state.fdb);
        all.routes.extend(state.routes);
    }
    all
}

fn vxlan_with(alter: impl FnOnce(&mut Link)) -> KernelState {
    let mut state = vxlan();
    alter(state.links.get_mut("flannel.1").unwrap());
    state
}

#[test]
fn every_kind_of_row_reads_back_as_it_was_written() {
    in_namespace(|| async {
        ip_run("tuntap add mode tun dev flannel0");
        let mut desired = merged([vxlan(), udp(), bridge()]);
        let mut direct = via("192.168.5.3", "eth0");
        direct.source = Some(ip("192.168.5.1"));
        desired.routes.insert(key("100.96.3.0/24"), direct);
        let metric = crate::kernel::state::RouteKey {
            metric: 7,
            ..key("100.96.3.0/24")
        };
        desired.routes.insert(metric, via("192.168.5.4", "eth0"));
        let mut kernel = Netlink::connect().unwrap();
        let report = converged(&mut kernel, &desired).await;
        assert_eq!(report.passes, 1);
        let mut seen = observed(&mut kernel, &desired).await;
        // A TUN device has no Ethernet address, a bridge keeps the one it was made with.
        assert_eq!(seen, desired);
        seen.links.clear();
        let again = converged(&mut kernel, &desired).await;
        assert_eq!((again.passes, again.applied), (0, vec![]));
    });
}

#[test]
fn iproute2_shows_what_the_documents_show() {
    in_namespace(|| async {
        ip_run("tuntap add mode tun dev flannel0");
        let desired = merged([vxlan(), udp(), KernelState::default()]);
        converged(&mut Netlink::connect().unwrap(), &desired).await;
        let routes = ip_run("route show");
        let onlink = "100.96.2.0/24 via 100.96.2.0 dev flannel.1 proto 96 onlink";
        assert!(routes.contains(onlink), "{routes}");
        let linked = "100.96.0.0/16 dev flannel0 proto 96 scope link src 100.96.1.0";
        assert!(routes.contains(linked), "{routes}");
        let link = ip_run("-d link show flannel.1");
        for words in [
            "mtu 1450",
            "link/ether 02:00:00:00:00:01",
            "vxlan id 1 local 192.168.5.1 dev eth0 srcport 0 0 dstport 8472 nolearning ttl auto",
            "addrgenmode none",
            "alias flannel-rs",
        ] {
            assert!(link.contains(words), "{words}: {link}");
        }
        let addresses = ip_run("addr show dev flannel.1");
        assert!(addresses.contains("inet 100.96.1.0/32"), "{addresses}");
        assert!(!addresses.contains("inet6"), "{addresses}");
        let neighbours = ip_run("neigh show dev flannel.1");
        assert_eq!(
            neighbours.trim(),
            "100.96.2.0 lladdr 02:00:00:00:00:02 PERMANENT"
        );
        let fdb = run("bridge", "fdb show dev flannel.1");
        assert_eq!(
            fdb.trim(),
            "02:00:00:00:00:02 dst 192.168.5.2 self permanent"
        );
    });
}

#[test]
fn the_settings_of_a_vxlan_read_back() {
    in_namespace(|| async {
        let mut kernel = Netlink::connect().unwrap();
        let desired = vxlan_with(|link| {
            link.mtu = 1300;
            if let LinkKind::Vxlan {
                vni,
                port,
                learning,
                gbp,
                ..
            } = &mut link.kind
            {
                (*vni, *port, *learning, *gbp) = (77, 4789, true, true);
            }
        });
        converged(&mut kernel, &desired).await;
        assert_eq!(observed(&mut kernel, &desired).await, desired);
    });
}
