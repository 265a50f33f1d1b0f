use super::*;
use std::net::Ipv4Addr;

use crate::kernel::samples::*;

/// What a kernel with objects shows of a cluster of that many peers.
fn observed_with(count: u32) -> KernelState {
    let mut state = vxlan_of(count);
    state.foreign_nexthops = Some(BTreeSet::new());
    let written = written(&state, &state);
    KernelState {
        nexthops: written.nexthops.clone(),
        routes: written.routes.clone().into_owned(),
        ..state.clone()
    }
}

fn vxlan_of(count: u32) -> KernelState {
    let mut state = vxlan();
    state.routes.clear();
    add_many_peers(&mut state, count);
    state
}

#[test]
fn objects_begin_at_many_routes_and_end_at_few() {
    let many = u32::try_from(MANY).unwrap();
    let few = u32::try_from(FEW).unwrap();
    let none = observed_with(1);
    let some = observed_with(many);
    let count = |count, observed| written(&vxlan_of(count), observed).nexthops.len();
    assert_eq!(count(many - 1, &none), 0);
    assert_eq!(count(many, &none), MANY);
    assert_eq!(count(many - 1, &some), MANY - 1);
    assert_eq!(count(few, &some), FEW);
    assert_eq!(count(few - 1, &some), 0);
}

#[test]
fn an_id_is_the_number_of_the_gateway() {
    let state = observed_with(400);
    let hop = &state.nexthops[&0x6460_0a00];
    assert_eq!(hop.gateway, ip("100.96.10.0"));
    let route = &state.routes[&key("100.96.10.0/24")];
    assert_eq!(route.nexthop, Some(0x6460_0a00));
    assert_eq!(route.gateway, Some(hop.gateway));
}

#[test]
fn ids_of_others_are_passed_over_and_what_is_written_stays_so() {
    let mut observed = observed_with(400);
    let taken = [0x6460_0a00, 0x6460_0a01, 0x6460_0b00];
    observed.foreign_nexthops = Some(taken.into());
    let desired = vxlan_of(400);
    let first = written(&desired, &observed);
    assert_eq!(first.nexthops.len(), 400);
    assert!(taken.iter().all(|id| !first.nexthops.contains_key(id)));
    let route = &first.routes[&key("100.96.10.0/24")];
    assert_eq!(route.nexthop, Some(0x6460_0a02));
    observed.nexthops = first.nexthops.clone();
    assert_eq!(written(&desired, &observed), first);
}

#[test]
fn only_routes_into_a_tunnel_lead_through_objects() {
    let mut desired = KernelState::default();
    for n in 0..400u32 {
        let base = Ipv4Addr::from(0x6460_0000 + (n << 8));
        let gateway = Ipv4Addr::from(0xc0a8_0000 + n + 2).to_string();
        let route = via(&gateway, "eth0");
        desired.routes.insert(key(&format!("{base}/24")), route);
    }
    let written = written(&desired, &observed_with(400));
    assert!(written.nexthops.is_empty());
    assert_eq!(*written.routes, desired.routes);
}

#[test]
fn a_kernel_without_objects_gets_plain_routes() {
    let mut observed = observed_with(400);
    observed.foreign_nexthops = None;
    let desired = vxlan_of(400);
    assert_eq!(*written(&desired, &observed).routes, desired.routes);
}

#[test]
fn routes_by_one_gateway_share_an_object() {
    let mut desired = vxlan_of(400);
    let same = onlink("100.96.10.0", "flannel.1");
    desired.routes.insert(key("100.96.0.0/25"), same);
    let written = written(&desired, &observed_with(400));
    assert_eq!(written.nexthops.len(), 400);
    let route = &written.routes[&key("100.96.0.0/25")];
    assert_eq!(route.nexthop, Some(0x6460_0a00));
}
