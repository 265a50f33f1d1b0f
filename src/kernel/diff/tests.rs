use super::*;
use crate::kernel::change::Setting;
use crate::kernel::firewall::{Step, Table};
use crate::kernel::samples::*;
use crate::kernel::state::{FdbEntry, Link, LinkKind, Neighbour};
use crate::mac::Mac;

mod bridge;
mod firewall;
mod nexthops;
mod passages;

fn changes(observed: &KernelState, desired: &KernelState) -> Vec<String> {
    let found = diff(observed, desired, &scope(desired));
    assert_eq!(found.obstacles, []);
    found.changes.iter().map(ToString::to_string).collect()
}

fn obstacles(observed: &KernelState, desired: &KernelState) -> Vec<String> {
    let found = diff(observed, desired, &scope(desired));
    assert_eq!(found.changes, []);
    found.obstacles.iter().map(ToString::to_string).collect()
}

fn with_link(mut state: KernelState, name: &str, alter: impl FnOnce(&mut Link)) -> KernelState {
    alter(state.links.get_mut(name).unwrap());
    state
}

#[test]
fn nothing_becomes_a_vxlan_node_in_the_order_that_the_kernel_accepts() {
    assert_eq!(
        changes(&KernelState::default(), &vxlan()),
        [
            "add link flannel.1 vxlan vni 1 local 192.168.5.1 dev eth0 port 8472 nolearning \
             address 02:00:00:00:00:01 mtu 1450 up",
            "add address 100.96.1.0/32 dev flannel.1",
            "replace fdb 02:00:00:00:00:02 dev flannel.1 dst 192.168.5.2",
            "replace neighbour 100.96.2.0 lladdr 02:00:00:00:00:02 dev flannel.1 permanent",
            "replace route 100.96.2.0/24 via 100.96.2.0 dev flannel.1 onlink",
        ]
    );
}

#[test]
fn what_is_as_it_should_be_is_left_alone() {
    for state in [vxlan(), host_gw(), udp(), bridge()] {
        assert_eq!(diff(&state, &state, &scope(&state)), Diff::default());
    }
}

#[test]
fn a_backend_gives_way_to_another() {
    assert_eq!(
        changes(&vxlan(), &host_gw()),
        [
            "delete link flannel.1",
            "replace route 100.96.2.0/24 via 192.168.5.2 dev eth0",
        ]
    );
    assert_eq!(
        changes(&udp(), &KernelState::default()),
        ["delete link flannel0"]
    );
    assert_eq!(
        changes(&host_gw(), &KernelState::default()),
        ["delete route 100.96.2.0/24 via 192.168.5.2 dev eth0"]
    );
}

#[test]
fn rows_of_a_tunnel_are_exact() {
    let mut observed = vxlan();
    add_peer(&mut observed, 3);
    let strange = Route {
        protocol: 4,
        ..onlink("100.96.2.0", "flannel.1")
    };
    observed.routes.insert(key("10.5.0.0/16"), strange);
    assert_eq!(
        changes(&observed, &vxlan()),
        [
            "delete route 10.5.0.0/16 via 100.96.2.0 dev flannel.1 proto 4 onlink",
            "delete route 100.96.3.0/24 via 100.96.3.0 dev flannel.1 onlink",
            "delete neighbour 100.96.3.0 dev flannel.1",
            "delete fdb 02:00:00:00:00:03 dev flannel.1",
        ]
    );
}

#[test]
fn a_peer_with_a_new_mac_leaves_no_old_entry() {
    let mut desired = vxlan();
    let row = neighbour("flannel.1", "100.96.2.0");
    desired.neighbours.insert(row, mac(9));
    desired.fdb.clear();
    let to = ip("192.168.5.2");
    desired.fdb.insert(fdb("flannel.1", mac(9)), to);
    assert_eq!(
        changes(&vxlan(), &desired),
        [
            "delete fdb 02:00:00:00:00:02 dev flannel.1",
            "replace fdb 02:00:00:00:00:09 dev flannel.1 dst 192.168.5.2",
            "replace neighbour 100.96.2.0 lladdr 02:00:00:00:00:09 dev flannel.1 permanent",
        ]
    );
}

#[test]
fn what_can_be_altered_in_place_is() {
    let altered = |alter: fn(&mut Link)| with_link(vxlan(), "flannel.1", alter);
    let local = |link: &mut Link| {
        if let LinkKind::Vxlan { local, .. } = &mut link.kind {
            *local = ip("192.168.5.9");
        }
    };
    let learning = |link: &mut Link| {
        if let LinkKind::Vxlan { learning, .. } = &mut link.kind {
            *learning = true;
        }
    };
    let mut tied = vxlan();
    tied.ports.insert("flannel.1".into(), port_of("theirs"));
    let cases = [
        (tied, Setting::Free),
        (altered(|link| link.mtu = 1400), Setting::Mtu(1450)),
        (altered(|link| link.up = false), Setting::Up),
        (altered(local), Setting::Local(ip("192.168.5.1"))),
        (altered(learning), Setting::Learning(false)),
    ];
    for (observed, setting) in cases {
        let found = diff(&observed, &vxlan(), &scope(&vxlan()));
        let change = Change::SetLink("flannel.1".to_owned(), vec![setting]);
        assert_eq!(found.changes, [change]);
    }
}

#[test]
fn a_new_mac_takes_the_neighbours_along() {
    let observed = with_link(vxlan(), "flannel.1", |link| link.mac = Some(mac(7)));
    assert_eq!(
        changes(&observed, &vxlan()),
        [
            "set link flannel.1 address 02:00:00:00:00:01",
            "replace neighbour 100.96.2.0 lladdr 02:00:00:00:00:02 dev flannel.1 permanent",
        ]
    );
}

#[test]
fn what_is_fixed_at_creation_means_another_link_with_all_its_rows() {
    let alterations: [fn(&mut LinkKind); 4] = [
        |kind| {
            if let LinkKind::Vxlan { vni, .. } = kind {
                *vni = 2;
            }
        },
        |kind| {
            if let LinkKind::Vxlan { port, .. } = kind {
                *port = 4789;
            }
        },
        |kind| {
            if let LinkKind::Vxlan { gbp, .. } = kind {
                *gbp = true;
            }
        },
        |kind| {
            if let LinkKind::Vxlan { underlay, .. } = kind {
                "eth1".clone_into(underlay);
            }
        },
    ];
    let mut all = changes(&KernelState::default(), &vxlan());
    all.insert(0, "delete link flannel.1".to_owned());
    for alter in alterations {
        for marked in [true, false] {
            let observed = with_link(vxlan(), "flannel.1", |link| {
                alter(&mut link.kind);
                link.marked = marked;
            });
            assert_eq!(changes(&observed, &vxlan()), all);
        }
    }
}

#[test]
fn the_last_address_takes_routes_and_neighbours_along() {
    let mut desired = vxlan();
    desired.addresses = [address("flannel.1", "100.96.7.0/32")].into();
    assert_eq!(
        changes(&vxlan(), &desired),
        [
            "delete address 100.96.1.0/32 dev flannel.1",
            "add address 100.96.7.0/32 dev flannel.1",
            "replace neighbour 100.96.2.0 lladdr 02:00:00:00:00:02 dev flannel.1 permanent",
            "replace route 100.96.2.0/24 via 100.96.2.0 dev flannel.1 onlink",
        ]
    );
}

#[test]
fn a_wider_prefix_of_the_address_goes_and_foreign_addresses_stay() {
    let mut observed = vxlan();
    observed
        .addresses
        .insert(address("flannel.1", "100.96.1.0/16"));
    observed
        .addresses
        .insert(address("flannel.1", "10.9.9.9/24"));
    assert_eq!(
        changes(&observed, &vxlan()),
        ["delete address 100.96.1.0/16 dev flannel.1"]
    );
}

#[test]
fn a_secondary_address_is_added_again_after_its_primary() {
    let mut observed = bridge();
    observed
        .addresses
        .insert(address("docker0", "100.96.1.9/24"));
    assert_eq!(
        changes(&observed, &bridge()),
        [
            "delete address 100.96.1.9/24 dev docker0",
            "add address 100.96.1.1/24 dev docker0",
        ]
    );
}

#[test]
fn flannelds_routes_become_ours() {
    let mut observed = vxlan();
    observed
        .routes
        .get_mut(&key("100.96.2.0/24"))
        .unwrap()
        .protocol = 3;
    assert_eq!(
        changes(&observed, &vxlan()),
        ["replace route 100.96.2.0/24 via 100.96.2.0 dev flannel.1 onlink"]
    );
}

#[test]
fn a_route_of_another_metric_is_another_route() {
    let mut observed = host_gw();
    let dear = RouteKey {
        metric: 100,
        ..key("100.96.2.0/24")
    };
    observed.routes.insert(dear, via("192.168.5.3", "eth0"));
    assert_eq!(
        changes(&observed, &host_gw()),
        ["delete route 100.96.2.0/24 via 192.168.5.3 dev eth0 metric 100"]
    );
}

#[test]
fn no_gateway_may_lead_to_our_own_subnet() {
    let mut observed = bridge();
    let stray = Route {
        protocol: 3,
        ..via("192.168.5.2", "eth0")
    };
    observed.routes.insert(key("100.96.1.0/24"), stray.clone());
    assert_eq!(
        changes(&observed, &bridge()),
        ["delete route 100.96.1.0/24 via 192.168.5.2 dev eth0 proto 3"]
    );
    let connected = Route {
        gateway: None,
        ..stray
    };
    assert!(!scope(&bridge()).is_stray(&key("100.96.1.0/24"), &connected));
}

#[test]
fn an_absent_tun_is_reported_and_its_rows_wait() {
    assert_eq!(
        obstacles(&KernelState::default(), &udp()),
        ["TUN device flannel0 is not there yet"]
    );
    let fresh = with_link(KernelState::default_with(&udp()), "flannel0", |link| {
        link.marked = false;
        link.up = false;
        link.mtu = 1500;
    });
    assert_eq!(
        changes(&fresh, &udp()),
        [
            "set link flannel0 alias flannel-rs addrgenmode none mtu 1472 up",
            "add address 100.96.1.0/32 dev flannel0",
            "replace route 100.96.0.0/16 dev flannel0 src 100.96.1.0",
        ]
    );
}

impl KernelState {
    /// The links of another state, without rows.
    fn default_with(other: &Self) -> Self {
        Self {
            links: other.links.clone(),
            ..Self::default()
        }
    }
}

#[test]
fn what_is_in_the_way_is_reported_and_not_touched() {
    let dummy = with_link(vxlan(), "flannel.1", |link| {
        link.kind = LinkKind::Other("dummy".to_owned());
    });
    let observed = KernelState::default_with(&dummy);
    let said = obstacles(&observed, &vxlan());
    assert_eq!(said.len(), 1);
    assert!(
        said[0].contains("but is \"dummy\", not made by us"),
        "{said:?}"
    );
    let foreign_bridge = with_link(vxlan(), "flannel.1", |link| {
        link.kind = LinkKind::Bridge;
        link.marked = false;
    });
    let observed = KernelState::default_with(&foreign_bridge);
    assert_eq!(obstacles(&observed, &vxlan()).len(), 1);
}

#[test]
fn the_variants_sort_as_the_kernel_accepts_them() {
    let row = |text: &str| -> (Neighbour, FdbEntry) {
        (neighbour("l", text), fdb("l", Mac::local([0; 6])))
    };
    let (neighbour, entry) = row("10.0.0.1");
    let net = address("l", "10.0.0.1/32");
    let (k, r) = (key("10.0.0.0/24"), via("10.0.0.1", "l"));
    let name = || "l".to_owned();
    let hop = nexthop("10.0.0.1", "l");
    let order = [
        Change::DelRoute(k, r.clone()),
        Change::DelNeighbour(neighbour.clone()),
        Change::DelFdb(entry.clone()),
        Change::DelAddress(net.clone()),
        Change::DelLink(name()),
        Change::Firewall(Step::PutTable(Table::default())),
        Change::Firewall(Step::DelTable),
        Change::AddLink(name(), bridge_link()),
        Change::SetLink(name(), vec![Setting::Up]),
        Change::AddAddress(net),
        Change::PutFdb(entry, ip("10.0.0.2")),
        Change::PutNeighbour(neighbour, mac(1)),
        Change::PutNexthop(1, hop.clone()),
        Change::PutRoute(k, r),
        Change::DelNexthop(1, hop),
    ];
    assert!(order.is_sorted());
}
