//! Routes through nexthop objects.

use super::*;
use crate::kernel::nexthop::{FEW, MANY};

const ID: u32 = 0x6460_0a00;

fn with_objects(mut state: KernelState) -> KernelState {
    state.foreign_nexthops = Some(BTreeSet::new());
    state
}

fn vxlan_of(count: usize) -> KernelState {
    let mut state = vxlan();
    add_many_peers(&mut state, u32::try_from(count).unwrap());
    state
}

/// A kernel that has all that the peers need.
fn settled(count: usize) -> KernelState {
    let desired = vxlan_of(count);
    let mut kernel = with_objects(desired.clone());
    for change in diff(&kernel, &desired, &scope(&desired)).changes {
        assert!(kernel.apply(&change), "{change}");
    }
    assert_eq!(diff(&kernel, &desired, &scope(&desired)), Diff::default());
    kernel
}

#[test]
fn routes_become_objects_and_plain_again_without_ever_being_deleted() {
    let many = settled(MANY);
    assert_eq!(many.nexthops.len(), MANY + 1);
    let desired = vxlan_of(MANY - 2);
    let fewer = diff(&many, &desired, &scope(&desired)).changes;
    // Two peers went, and nothing else happened.
    assert_eq!(fewer.len(), 2 * 4, "{fewer:#?}");
    let desired = vxlan_of(FEW - 2);
    let mut observed = many.clone();
    observed
        .routes
        .retain(|key, _| desired.routes.contains_key(key));
    let changes = diff(&observed, &desired, &scope(&desired)).changes;
    let deleted = |change: &&Change| matches!(change, Change::DelRoute(..));
    assert_eq!(changes.iter().find(deleted), None);
    let gone = |change: &&Change| matches!(change, Change::DelNexthop(..));
    assert_eq!(changes.iter().filter(gone).count(), MANY + 1);
    let plain = |change: &&Change| matches!(change, Change::PutRoute(_, r) if r.nexthop.is_none());
    assert_eq!(changes.iter().filter(plain).count(), FEW - 1);
}

#[test]
fn a_new_peer_is_an_object_and_a_route_and_a_removed_one_a_route_and_an_object() {
    let after = vxlan_of(MANY + 1);
    let rows = [
        "replace fdb 02:01:00:00:01:2c dev flannel.1 dst 10.0.1.45",
        "replace neighbour 100.97.54.0 lladdr 02:01:00:00:01:2c dev flannel.1 permanent",
        "replace nexthop id 1684092416 via 100.97.54.0 dev flannel.1 onlink",
        "replace route 100.97.54.0/24 nhid 1684092416 via 100.97.54.0 dev flannel.1 onlink",
    ];
    assert_eq!(changes(&settled(MANY), &after), rows);
    assert_eq!(
        changes(&settled(MANY + 1), &vxlan_of(MANY)),
        [
            "delete route 100.97.54.0/24 nhid 1684092416 via 100.97.54.0 dev flannel.1 onlink",
            "delete neighbour 100.97.54.0 dev flannel.1",
            "delete fdb 02:01:00:00:01:2c dev flannel.1",
            "delete nexthop id 1684092416 via 100.97.54.0 dev flannel.1 onlink",
        ]
    );
}

#[test]
fn objects_of_ours_that_nothing_uses_go_and_others_stay() {
    let mut observed = settled(MANY);
    observed.nexthops.insert(7, nexthop("192.168.5.7", "eth0"));
    observed.foreign_nexthops = Some([8].into());
    assert_eq!(
        changes(&observed, &vxlan_of(MANY)),
        ["delete nexthop id 7 via 192.168.5.7 dev eth0 onlink"]
    );
}

#[test]
fn an_object_that_was_altered_or_deleted_comes_back() {
    let mut altered = settled(MANY);
    let wrong = nexthop("100.96.99.0", "flannel.1");
    altered.apply(&Change::PutNexthop(ID, wrong.clone()));
    let put = "replace nexthop id 1684015616 via 100.96.10.0 dev flannel.1 onlink";
    assert_eq!(changes(&altered, &vxlan_of(MANY))[0], put);
    let mut deleted = settled(MANY);
    deleted.apply(&Change::DelNexthop(ID, wrong));
    assert_eq!(
        changes(&deleted, &vxlan_of(MANY)),
        [
            put,
            "replace route 100.96.10.0/24 nhid 1684015616 via 100.96.10.0 dev flannel.1 onlink",
        ]
    );
}

#[test]
fn somebody_who_takes_an_id_over_keeps_it() {
    let mut observed = settled(MANY);
    observed.nexthops.remove(&ID);
    observed.foreign_nexthops = Some([ID].into());
    assert_eq!(
        changes(&observed, &vxlan_of(MANY)),
        [
            "replace nexthop id 1684015617 via 100.96.10.0 dev flannel.1 onlink",
            "replace route 100.96.10.0/24 nhid 1684015617 via 100.96.10.0 dev flannel.1 onlink",
        ]
    );
}

#[test]
fn objects_go_with_their_link_and_stay_when_the_last_address_goes() {
    let is_nexthop = |change: &&Change| matches!(change, Change::PutNexthop(..));
    let is_route = |change: &&Change| matches!(change, Change::PutRoute(..));
    let desired = vxlan_of(MANY);
    let count = |observed: &KernelState| {
        let changes = diff(observed, &desired, &scope(&desired)).changes;
        let removed = |change: &&Change| matches!(change, Change::DelNexthop(..));
        assert_eq!(changes.iter().find(removed), None);
        let put = changes.iter().filter(is_nexthop).count();
        (put, changes.iter().filter(is_route).count())
    };
    let mut renumbered = settled(MANY);
    renumbered.addresses = [address("flannel.1", "100.96.7.0/32")].into();
    assert_eq!(count(&renumbered), (0, 0));
    let replaced = with_link(settled(MANY), "flannel.1", |link| {
        if let LinkKind::Vxlan { port, .. } = &mut link.kind {
            *port = 4789;
        }
    });
    assert_eq!(count(&replaced), (MANY + 1, MANY + 1));
    let nothing = KernelState::default();
    assert_eq!(changes(&settled(MANY), &nothing), ["delete link flannel.1"]);
}
