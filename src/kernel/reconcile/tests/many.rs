//! So many peers that routes lead through nexthop objects, and back again.

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::*;
use crate::kernel::nexthop::{FEW, MANY};

fn vxlan_of(count: usize) -> KernelState {
    let mut state = vxlan();
    add_many_peers(&mut state, u32::try_from(count).unwrap());
    state
}

/// Ids of others; some are those that we would take.
fn any_foreign() -> impl Strategy<Value = BTreeSet<u32>> {
    btree_set(0x6460_0a00..0x6460_2000u32, 0..40)
}

prop_compose! {
    /// What happens to objects, and to routes, behind our back.
    fn any_drift()(kind in 0..4u8, at in any::<prop::sample::Index>()) -> (u8, prop::sample::Index) {
        (kind, at)
    }
}

fn drift(kernel: &mut Fake, kind: u8, at: prop::sample::Index) {
    let ids: Vec<u32> = kernel.state.nexthops.keys().copied().collect();
    let Some(id) = (!ids.is_empty()).then(|| *at.get(&ids)) else {
        return;
    };
    let wrong = nexthop("100.96.99.1", "flannel.1");
    let change = match kind {
        0 => Change::DelNexthop(id, wrong),
        1 => Change::PutNexthop(id, wrong),
        2 => Change::PutNexthop(3, wrong),
        _ => {
            let keys: Vec<_> = kernel.state.routes.keys().copied().collect();
            Change::PutRoute(*at.get(&keys), onlink("100.96.99.1", "flannel.1"))
        }
    };
    kernel.state.apply(&change);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn any_number_of_peers_settles_in_one_pass(
        counts in vec(FEW - 5..MANY + 5, 1..4),
        foreign in any_foreign(),
        drifts in vec(any_drift(), 0..4),
        renumbered in any::<bool>(),
    ) {
        let mut kernel = Fake::new(host());
        kernel.state.foreign_nexthops = Some(foreign.clone());
        for count in counts {
            for (kind, at) in &drifts {
                drift(&mut kernel, *kind, *at);
            }
            let mut desired = vxlan_of(count);
            if renumbered && kernel.reads > 2 {
                desired.addresses = [address("flannel.1", "100.96.3.0/32")].into();
            }
            let report = go(&mut kernel, &desired);
            prop_assert!(report.is_complete() && report.passes <= 1, "{report:#?}");
            prop_assert_eq!(kernel.state.foreign_nexthops.as_ref(), Some(&foreign));
            let used = kernel.state.routes.values().filter_map(|route| route.nexthop);
            let used: BTreeSet<u32> = used.collect();
            prop_assert!(used.iter().eq(kernel.state.nexthops.keys()));
            prop_assert_eq!(&kernel.state.neighbours, &desired.neighbours);
            for (key, route) in &desired.routes {
                let found = Route { nexthop: None, ..kernel.state.routes[key].clone() };
                prop_assert_eq!(&found, route);
            }
            prop_assert_eq!(kernel.state.routes.len(), desired.routes.len());
        }
    }
}
