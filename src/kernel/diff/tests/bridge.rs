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
                "bridge docker0 is somebody else's: it has {found}, not 100.96.1.1/24"
            )]
        );
    }
}

/// dockerd puts back the address that it remembers, perhaps one of the overlay; containers then
/// run in that. A move of our own is another matter.
#[test]
fn a_bridge_that_was_given_another_subnet_is_not_taken_from_its_containers() {
    let mut astray = found_bridge(true, &["100.96.9.1/24"]);
    (astray.ports).insert("veth1".to_owned(), port_of("docker0"));
    assert_eq!(
        obstacles(&astray, &bridge()),
        ["bridge docker0 is somebody else's: it has 100.96.9.1/24, not 100.96.1.1/24"]
    );
    let moved = scope(&bridge()).moved_from(Some(net("100.96.9.0/24")));
    assert_eq!(diff(&astray, &bridge(), &moved).obstacles, []);
    (astray.ports).insert("veth1".to_owned(), port_of("br-other"));
    assert_eq!(
        diff(&astray, &bridge(), &scope(&bridge())).obstacles,
        [],
        "these are other containers"
    );
    let mut bare = found_bridge(true, &[]);
    (bare.ports).insert("veth1".to_owned(), port_of("docker0"));
    assert_eq!(
        changes(&bare, &bridge()),
        [
            "set link docker0 mtu 1450",
            "add address 100.96.1.1/24 dev docker0"
        ],
        "nobody else's address is lost by that"
    );
}

#[test]
fn a_claimed_bridge_becomes_ours_whatever_it_had() {
    for (marked, found) in [(false, "172.17.0.1/16"), (true, "172.17.0.1/16")] {
        let mut observed = found_bridge(marked, &[found, "100.96.9.1/24"]);
        (observed.ports).insert("veth1".to_owned(), port_of("docker0"));
        let claiming = scope(&bridge()).claiming(Some("docker0".to_owned()));
        let found = diff(&observed, &bridge(), &claiming);
        assert_eq!(found.obstacles, []);
        let changes: Vec<String> = found.changes.iter().map(ToString::to_string).collect();
        let alias = if marked { "" } else { "alias flannel-rs " };
        assert_eq!(
            changes,
            [
                "delete address 100.96.9.1/24 dev docker0".to_owned(),
                "delete address 172.17.0.1/16 dev docker0".to_owned(),
                format!("set link docker0 {alias}mtu 1450"),
                "add address 100.96.1.1/24 dev docker0".to_owned(),
            ]
        );
        let other = scope(&bridge()).claiming(Some("br0".to_owned()));
        assert_eq!(diff(&observed, &bridge(), &other).changes, []);
    }
}

/// Docker has made it with the address that it was told, but perhaps not with the MTU.
#[test]
fn a_claim_marks_a_bridge_that_has_our_address() {
    let observed = found_bridge(false, &["100.96.1.1/24"]);
    let claiming = scope(&bridge()).claiming(Some("docker0".to_owned()));
    let changes = diff(&observed, &bridge(), &claiming).changes;
    let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(changes, ["set link docker0 alias flannel-rs mtu 1450"]);
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
        .insert("veth1".to_owned(), port_of("docker0"));
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
