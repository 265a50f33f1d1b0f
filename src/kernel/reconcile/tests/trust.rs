//! What is remembered, and when it is read again.

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::any::{any_desired, any_host};
use super::*;

struct Host(Reconciler<Fake>);

impl Host {
    fn new() -> Self {
        let mut host = Self(Reconciler::new(Fake::new(host())));
        let report = host.go(&vxlan());
        assert!(report.is_complete());
        assert_eq!(host.reads(), 2, "before and after, the first time");
        host
    }

    fn go(&mut self, desired: &KernelState) -> Report {
        run(self.0.converge(desired, &scope(desired))).unwrap()
    }

    /// How often the kernel was read since the last time this was asked.
    fn reads(&mut self) -> usize {
        std::mem::take(&mut self.0.kernel().reads)
    }

    fn rows(&mut self) -> KernelState {
        self.0.kernel().state.clone()
    }
}

fn vxlan_with_3() -> KernelState {
    let mut desired = vxlan();
    add_peer(&mut desired, 3);
    desired
}

#[test]
fn rows_that_the_kernel_has_acknowledged_are_not_read_back() {
    let mut host = Host::new();
    let report = host.go(&vxlan_with_3());
    assert_eq!((report.applied.len(), report.passes), (3, 1));
    assert!(report.is_complete());
    assert_eq!(host.rows().routes, vxlan_with_3().routes);
    let report = host.go(&vxlan());
    assert_eq!((report.applied.len(), report.passes), (3, 1));
    assert_eq!(host.go(&vxlan()).passes, 0);
    assert_eq!(host.rows().fdb, vxlan().fdb);
    assert_eq!(host.reads(), 0);
}

#[test]
fn a_doubt_has_all_read_once() {
    let mut host = Host::new();
    host.0.kernel().state.routes.clear();
    assert_eq!(host.go(&vxlan()).applied, [], "nothing has hinted at it");
    host.0.doubt();
    assert_eq!(host.go(&vxlan()).applied.len(), 1);
    assert_eq!(host.reads(), 2);
    host.go(&vxlan_with_3());
    assert_eq!(host.reads(), 0);
}

#[test]
fn links_and_addresses_are_read_back() {
    let alterations: [fn(&mut KernelState); 2] = [
        |state| state.links.get_mut("flannel.1").unwrap().mtu = 1400,
        |state| state.addresses = [address("flannel.1", "100.96.7.0/32")].into(),
    ];
    for alter in alterations {
        let mut host = Host::new();
        let mut desired = vxlan();
        alter(&mut desired);
        assert!(host.go(&desired).is_complete());
        assert_eq!(host.reads(), 1);
        host.go(&desired);
        assert_eq!(host.reads(), 0);
    }
}

#[test]
fn after_a_refusal_all_is_read_until_it_is_done() {
    let mut host = Host::new();
    let change = Change::PutRoute(key("100.96.3.0/24"), onlink("100.96.3.0", "flannel.1"));
    host.0.kernel().refusals.insert(change, 2);
    assert_eq!(host.go(&vxlan_with_3()).failed.len(), 1);
    assert_eq!(host.reads(), 1);
    assert_eq!(host.go(&vxlan_with_3()).failed.len(), 1);
    assert!(host.go(&vxlan_with_3()).is_complete());
    assert_eq!(host.reads(), 4);
    host.go(&vxlan());
    assert_eq!(host.reads(), 0);
}

#[test]
fn an_obstacle_and_another_scope_have_all_read() {
    let mut host = Host::new();
    let mut desired = vxlan();
    desired.links.extend(udp().links);
    assert!(!host.go(&desired).is_complete());
    host.go(&desired);
    assert_eq!(host.reads(), 2, "a TUN device is missing");
    assert!(host.go(&vxlan()).is_complete());
    assert_eq!(host.reads(), 1);
    let mut other = scope(&vxlan());
    other.own = Some(net("100.96.9.0/24"));
    run(host.0.converge(&vxlan(), &other)).unwrap();
    assert_eq!(host.reads(), 1);
}

#[test]
fn rivals_have_all_read() {
    let mut host = Host::new();
    let rival = via("192.168.5.66", "eth0");
    let rivals = &mut host.0.kernel().state.rivals;
    rivals.insert((key("100.96.2.0/24"), rival));
    host.0.doubt();
    host.go(&vxlan());
    assert_eq!(host.reads(), 2);
}

#[test]
fn a_plan_is_made_from_what_is_there() {
    let mut host = Host::new();
    host.0.kernel().state.routes.clear();
    let found = run(host.0.pending(&vxlan(), &scope(&vxlan()))).unwrap();
    assert_eq!(found.changes.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_remembered_is_what_is_there(
        state in any_host(),
        desires in vec((any_desired(), btree_set(2..9u8, 0..6)), 1..5),
    ) {
        let mut reconciler = Reconciler::new(Fake::new(state));
        for (mut desired, peers) in desires {
            if desired.links.contains_key("flannel.1") {
                peers.iter().for_each(|peer| add_peer(&mut desired, *peer));
            }
            let scope = scope(&desired);
            let report = run(reconciler.converge(&desired, &scope)).unwrap();
            prop_assert!(report.settled);
            let shown = reconciler.kernel().shown(&scope);
            if let Some(known) = &reconciler.known {
                prop_assert_eq!(&known.state.links, &shown.links);
                prop_assert_eq!(&known.state.neighbours, &shown.neighbours);
                prop_assert_eq!(&known.state.fdb, &shown.fdb);
                prop_assert_eq!(&known.state.nexthops, &shown.nexthops);
                for key in desired.routes.keys() {
                    prop_assert_eq!(known.state.routes.get(key), shown.routes.get(key));
                }
            }
            prop_assert!(diff(&shown, &desired, &scope).changes.is_empty());
        }
    }
}
