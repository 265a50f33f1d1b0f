//! What is noticed, and what is not.

use super::*;
use crate::kernel::nexthop::MANY;
use crate::kernel::reconcile::Reconciler;

const SOON: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_millis(100);

async fn is_hinted(hints: &mut Hints, within: Duration) -> bool {
    tokio::time::timeout(within, hints.next()).await.is_ok()
}

async fn drain(hints: &mut Hints) {
    while is_hinted(hints, QUIET).await {}
}

#[test]
fn rows_that_we_change_are_no_hint() {
    in_namespace(|| async {
        let kernel = Netlink::connect().unwrap();
        let mut hints = kernel.hints().unwrap();
        let mut reconciler = Reconciler::new(kernel);
        let mut desired = vxlan();
        reconciler
            .converge(&desired, &scope(&desired))
            .await
            .unwrap();
        drain(&mut hints).await;
        add_many_peers(&mut desired, u32::try_from(MANY).unwrap());
        for desired in [&desired, &vxlan(), &desired] {
            let report = reconciler.converge(desired, &scope(desired)).await.unwrap();
            assert!(report.is_complete() && report.passes == 1, "{report:#?}");
            let hinted = is_hinted(&mut hints, QUIET).await;
            assert!(!hinted, "{} changes of our own", report.applied.len());
        }
        // The same again by somebody else is one.
        run("bridge", "fdb del 02:01:00:00:00:00 dev flannel.1");
        assert!(is_hinted(&mut hints, SOON).await);
        drain(&mut hints).await;
        reconciler.doubt();
        let report = reconciler.converge(&desired, &scope(&desired)).await;
        assert_eq!(report.unwrap().applied.len(), 1);
        assert!(!is_hinted(&mut hints, QUIET).await);
    });
}

/// Runs each change, sees that it is noticed, and has it undone.
async fn all_noticed(desired: &KernelState, changes: &[&str]) {
    let kernel = Netlink::connect().unwrap();
    let mut hints = kernel.hints().unwrap();
    let mut reconciler = Reconciler::new(kernel);
    reconciler.converge(desired, &scope(desired)).await.unwrap();
    drain(&mut hints).await;
    for change in changes {
        let (program, line) = change.split_once(' ').unwrap();
        run(program, line);
        assert!(is_hinted(&mut hints, SOON).await, "{change}");
        drain(&mut hints).await;
        reconciler.doubt();
        let report = reconciler.converge(desired, &scope(desired)).await;
        let report = report.unwrap();
        assert!(report.is_complete(), "{change}: {report:#?}");
        assert_ne!(report.applied, [], "{change}");
        drain(&mut hints).await;
    }
}

#[test]
fn whatever_others_do_to_a_vxlan_node_is_noticed() {
    in_namespace(|| async {
        let [vxlan, bridge] = [vxlan(), bridge()];
        let desired = merged([vxlan, bridge, KernelState::default()]);
        let changes = [
            "ip link delete flannel.1",
            "ip route flush proto 96",
            "ip neighbour flush dev flannel.1 nud permanent",
            "bridge fdb delete 02:00:00:00:00:02 dev flannel.1",
            "bridge fdb replace 02:00:00:00:00:02 dev flannel.1 dst 192.168.5.66",
            "bridge fdb replace 02:00:00:00:00:02 dev flannel.1 dst 192.168.5.2 dynamic",
            "bridge fdb add 02:00:00:00:00:77 dev flannel.1 dst 192.168.5.77",
            "ip address delete 100.96.1.1/24 dev docker0",
            "ip address delete 100.96.1.0/32 dev flannel.1",
            "ip address add 100.96.77.1/24 dev docker0",
            "ip link set docker0 mtu 1300",
            "ip link set flannel.1 mtu 1300",
            "ip link set docker0 down",
            "ip link set flannel.1 down",
            "ip link set flannel.1 address 02:00:00:00:00:99",
            "ip link set flannel.1 alias none",
            "ip link set flannel.1 type vxlan local 192.168.5.46",
            "ip link set flannel.1 type vxlan learning",
            "ip link set flannel.1 name flannel.2",
            "ip route replace 100.96.2.0/24 via 192.168.5.49 dev eth0",
            "ip route add 100.96.77.0/24 via 100.96.77.0 dev flannel.1 onlink",
            "ip neighbour add 100.96.77.0 lladdr 02:00:00:00:00:77 dev flannel.1 nud permanent",
            "ip neighbour replace 100.96.2.0 lladdr 02:00:00:00:00:98 dev flannel.1 nud permanent",
            "ip neighbour replace 100.96.2.0 lladdr 02:00:00:00:00:02 dev flannel.1 nud reachable",
            "ip nexthop add id 77 via 192.168.5.9 dev eth0 proto 96",
        ];
        all_noticed(&desired, &changes).await;
    });
}

#[test]
fn whatever_others_do_to_a_host_gw_or_udp_node_is_noticed() {
    in_namespace(|| async {
        ip_run("tuntap add mode tun dev flannel0");
        let desired = merged([host_gw(), udp(), KernelState::default()]);
        let changes = [
            "ip route flush proto 96",
            "ip route delete 100.96.2.0/24",
            "ip route replace 100.96.2.0/24 via 192.168.5.49 dev eth0",
            "ip route add 100.96.77.0/24 via 192.168.5.49 dev eth0 proto 96",
            "ip address delete 100.96.1.0/32 dev flannel0",
            "ip link set flannel0 down",
            "ip link set flannel0 mtu 1300",
            "ip link set flannel0 alias none",
            "ip route add 100.96.77.0/24 dev flannel0",
            "ip address add 100.96.77.0/32 dev flannel0",
            "ip route add 100.96.1.0/24 via 192.168.5.49 dev eth0",
        ];
        all_noticed(&desired, &changes).await;
    });
}

#[test]
fn whatever_others_do_to_nexthop_objects_is_noticed() {
    in_namespace(|| async {
        let mut desired = vxlan();
        add_many_peers(&mut desired, u32::try_from(MANY).unwrap());
        let changes = [
            "ip nexthop del id 1684015616",
            "ip nexthop replace id 1684015616 via 100.96.99.0 dev flannel.1 onlink proto 96",
            "ip nexthop replace id 1684015616 via 192.168.5.9 dev eth0 proto static",
            "ip nexthop flush proto 96",
            "ip route del 100.96.11.0/24",
            "ip route replace 100.96.11.0/24 nhid 1684016128 proto 96",
            "ip link set flannel.1 down",
            "ip link delete flannel.1",
        ];
        all_noticed(&desired, &changes).await;
    });
}

#[test]
fn links_that_go_down_and_come_up_are_noticed() {
    in_namespace(|| async {
        let kernel = Netlink::connect().unwrap();
        let mut hints = kernel.hints().unwrap();
        let mut reconciler = Reconciler::new(kernel);
        let desired = host_gw();
        reconciler
            .converge(&desired, &scope(&desired))
            .await
            .unwrap();
        drain(&mut hints).await;
        ip_run("link set eth0 down");
        assert!(
            is_hinted(&mut hints, SOON).await,
            "the routes go without a word"
        );
        drain(&mut hints).await;
        ip_run("link set eth0 up");
        assert!(is_hinted(&mut hints, SOON).await);
        reconciler.doubt();
        let report = reconciler.converge(&desired, &scope(&desired)).await;
        assert_eq!(report.unwrap().applied.len(), 1);
    });
}

#[test]
fn a_flood_that_nobody_reads_is_one_hint_and_the_drift_is_found() {
    in_namespace(|| async {
        let kernel = Netlink::connect().unwrap();
        let mut hints = kernel.hints().unwrap();
        let mut reconciler = Reconciler::new(kernel);
        let desired = vxlan();
        reconciler
            .converge(&desired, &scope(&desired))
            .await
            .unwrap();
        drain(&mut hints).await;
        hints.socket_for_test().set_rx_buf_sz(4096u32).unwrap();
        let mut lines = String::new();
        for n in 0..4000 {
            // Daemons' routes, which alone are no hint; then what matters is what was lost.
            lines += &format!(
                "route add 10.{}.{}.0/24 dev eth0 proto bgp\n",
                n / 250,
                n % 250
            );
        }
        lines += "route del 100.96.2.0/24\n";
        let file = std::env::temp_dir().join(format!("flannel-rs-flood-{}", std::process::id()));
        std::fs::write(&file, lines).unwrap();
        ip_run(&format!("-batch {}", file.display()));
        std::fs::remove_file(&file).unwrap();
        assert!(is_hinted(&mut hints, SOON).await);
        assert!(
            !is_hinted(&mut hints, QUIET).await,
            "all of it was one hint"
        );
        reconciler.doubt();
        let report = reconciler.converge(&desired, &scope(&desired)).await;
        assert_eq!(report.unwrap().applied.len(), 1);
        ip_run("route del 100.96.2.0/24");
        assert!(is_hinted(&mut hints, SOON).await, "it goes on as before");
    });
}

#[test]
fn the_receive_buffer_has_room_for_a_large_cluster() {
    in_namespace(|| async {
        let kernel = Netlink::connect().unwrap();
        let mut hints = kernel.hints().unwrap();
        let bytes = hints.socket_for_test().get_rx_buf_sz().unwrap();
        assert!(bytes >= 4 << 20, "{bytes}");
    });
}

#[test]
fn passages_that_are_closed_are_noticed() {
    in_namespace(|| async {
        passages::prepare();
        let desired = passages::node(true);
        let changes = [
            "sysctl -qw net.ipv4.ip_forward=0",
            "sysctl -qw net.ipv4.conf.docker0.forwarding=0",
            "sysctl -qw net.ipv4.conf.flannel/1.forwarding=0",
            "sysctl -qw net.ipv4.conf.eth0.rp_filter=1",
        ];
        all_noticed(&desired, &changes).await;
    });
}

#[test]
fn passages_of_others_are_not() {
    in_namespace(|| async {
        passages::prepare();
        let kernel = Netlink::connect().unwrap();
        let mut hints = kernel.hints().unwrap();
        let mut reconciler = Reconciler::new(kernel);
        let desired = passages::node(true);
        let report = reconciler.converge(&desired, &scope(&desired)).await;
        assert!(report.unwrap().is_complete());
        drain(&mut hints).await;
        run("sysctl", "-qw net.ipv4.conf.other0.forwarding=0");
        assert!(!is_hinted(&mut hints, QUIET).await);
        run("sysctl", "-qw net.ipv4.conf.docker0.forwarding=0");
        assert!(is_hinted(&mut hints, SOON).await);
    });
}
