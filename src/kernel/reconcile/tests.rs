use super::*;
use crate::kernel::fake::Fake;
use crate::kernel::samples::*;
use crate::kernel::state::{
    Address, KernelState, Link, LinkKind, Nexthop, PROTOCOL, Route, RouteKey,
};

fn run<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.build().unwrap().block_on(future)
}

fn go(kernel: &mut Fake, desired: &KernelState) -> Report {
    run(converge(kernel, desired, &scope(desired))).unwrap()
}

fn host() -> KernelState {
    let mut state = KernelState::default();
    let link = Link {
        kind: LinkKind::Other("veth".to_owned()),
        mac: Some(mac(0xe0)),
        mtu: 1500,
        up: true,
        marked: false,
    };
    state.links.insert("eth0".to_owned(), link);
    state
}

#[test]
fn one_pass_makes_a_node_and_the_next_finds_nothing_to_do() {
    let mut kernel = Fake::new(host());
    let report = go(&mut kernel, &vxlan());
    assert_eq!((report.passes, report.applied.len()), (1, 5));
    assert!(report.is_complete());
    let again = go(&mut kernel, &vxlan());
    assert_eq!((again.passes, again.applied.len()), (0, 0));
    assert!(again.is_complete());
}

#[test]
fn pending_tells_what_converge_does_and_does_nothing() {
    let mut kernel = Fake::new(host());
    let before = kernel.state.clone();
    let planned = run(pending(&mut kernel, &vxlan(), &scope(&vxlan()))).unwrap();
    assert_eq!(kernel.state, before);
    assert_eq!(go(&mut kernel, &vxlan()).applied, planned.changes);
}

#[test]
fn a_refusal_that_passes_is_forgotten() {
    let mut kernel = Fake::new(host());
    let route = onlink("100.96.2.0", "flannel.1");
    let change = Change::PutRoute(key("100.96.2.0/24"), route);
    kernel.refusals.insert(change, 1);
    let report = go(&mut kernel, &vxlan());
    // Nothing else was left to do, so trying again at once would have been in vain.
    assert_eq!((report.passes, report.settled), (1, false));
    assert_eq!(report.failed.len(), 1);
    assert_eq!(report.applied.len(), 4);
    let report = go(&mut kernel, &vxlan());
    assert_eq!((report.passes, report.settled), (1, true));
    assert_eq!(report.failed, []);
}

#[test]
fn what_hangs_on_a_refused_link_fails_with_it_and_the_rest_is_done() {
    let mut kernel = Fake::new(host());
    let change = Change::AddLink("flannel.1".to_owned(), vxlan_link());
    kernel.refusals.insert(change.clone(), 1);
    let mut desired = vxlan();
    desired.routes.extend(host_gw().routes);
    let report = go(&mut kernel, &desired);
    assert!(report.failed.iter().any(|f| f.change == change));
    assert!(!report.settled);
    assert!(kernel.state.routes.contains_key(&key("100.96.2.0/24")));
    assert!(go(&mut kernel, &desired).is_complete());
}

#[test]
fn an_obstacle_leaves_the_rest_settled() {
    let mut kernel = Fake::new(host());
    let report = go(&mut kernel, &udp());
    assert!(report.settled && !report.is_complete());
    assert_eq!(report.obstacles.len(), 1);
}

mod any;
mod many;
mod trust;
