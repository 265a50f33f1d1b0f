use super::*;

#[test]
fn a_bridge_is_made_if_there_is_none() {
    assert_eq!(
        changes(&KernelState::default(), &bridge()),
        [
            "add link docker0 bridge address 02:00:00:00:00:b0 mtu 1450 up",
            "add address 100.96.1.1/24 dev docker0",
        ]
    );
}

fn found_bridge(marked: bool, addresses: &[&str]) -> KernelState {
    let mut state = with_link(bridge(), "docker0", |link| {
        link.marked = marked;
        link.mtu = 1500;
        link.mac = Some(mac(0xd0));
    });
    state.addresses = addresses.iter().map(|a| address("docker0", a)).collect();
    state
}

#[test]
fn an_unmarked_bridge_without_address_is_adopted() {
    assert_eq!(
        changes(&found_bridge(false, &[]), &bridge()),
        [
            "set link docker0 alias flannel-rs mtu 1450",
            "add address 100.96.1.1/24 dev docker0",
        ]
    );
}

#[test]
fn an_unmarked_bridge_with_our_address_is_left_alone() {
    let observed = found_bridge(false, &["100.96.1.1/24"]);
    assert_eq!(
        diff(&observed, &bridge(), &scope(&bridge())),
        Diff::default()
    );
}

#[test]
fn a_bridge_with_other_addresses_is_foreign() {
    for (marked, found) in [
        (false, "172.17.0.1/16"),
        (false, "100.96.9.1/24"),
        (true, "172.17.0.1/16"),
    ] {
        assert_eq!(
            obstacles(&found_bridge(marked, &[found]), &bridge()),
            [format!(
                "bridge docker0 is somebody else's: it has {found}, not 100.96.1.1/24; \
                 restart what made it with our address"
            )]
        );
    }
}

#[test]
fn a_bridge_of_ours_gets_our_new_address_and_keeps_what_others_added() {
    let stale = found_bridge(true, &["100.96.9.1/24"]);
    assert_eq!(
        changes(&stale, &bridge()),
        [
            "delete address 100.96.9.1/24 dev docker0",
            "set link docker0 mtu 1450",
            "add address 100.96.1.1/24 dev docker0",
        ]
    );
    let both = found_bridge(true, &["100.96.1.1/24", "10.9.9.9/24"]);
    assert_eq!(changes(&both, &bridge()), ["set link docker0 mtu 1450"]);
}

#[test]
fn an_unwanted_bridge_goes_only_if_nothing_hangs_on_it() {
    let nothing = KernelState::default();
    let mut observed = bridge();
    assert_eq!(changes(&observed, &nothing), ["delete link docker0"]);
    observed
        .ports
        .insert("veth1".to_owned(), "docker0".to_owned());
    assert_eq!(
        obstacles(&observed, &nothing),
        ["bridge docker0 is not wanted any more but has ports: veth1"]
    );
    let taken = found_bridge(true, &["172.17.0.1/16"]);
    assert_eq!(
        obstacles(&taken, &nothing),
        ["bridge docker0 is somebody else's: it has 172.17.0.1/16"]
    );
}

/// The network before was another one: what the node had of it is still ours.
#[test]
fn a_bridge_of_ours_follows_into_another_network() {
    let stale = found_bridge(true, &["10.5.9.1/24"]);
    let former = Some(net("10.5.9.0/24"));
    let scope = scope(&bridge()).moved_from(former);
    let changes: Vec<String> = (diff(&stale, &bridge(), &scope).changes.iter())
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        changes,
        [
            "delete address 10.5.9.1/24 dev docker0",
            "set link docker0 mtu 1450",
            "add address 100.96.1.1/24 dev docker0",
        ]
    );
}
