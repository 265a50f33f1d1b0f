use super::*;

fn deleted(key: &str, revision: i64) -> Event {
    Event::Deleted {
        key: format!("subnets/{key}"),
        revision: Revision(revision),
    }
}

fn unreachable() -> StoreError {
    StoreError::Unavailable {
        doing: "listing".into(),
        reason: "connection refused".into(),
    }
}

#[test]
fn a_peer_that_leaves_is_dropped_at_once() {
    let mut world = holding();
    assert!(world.changed(vec![deleted("100.96.2.0-24", 8)], at(2)));
    assert!(peers(&mut world).is_empty());
}

/// etcd revokes what has run out within a second, in any order and in any portions.
#[test]
fn leases_that_go_together_with_ours_stay_until_all_had_time_to_come_back() {
    let (own, node2) = ("100.96.1.0-24", "100.96.2.0-24");
    let orders: [&[&[&str]]; 5] = [
        &[&[own, node2]],
        &[&[node2, own]],
        &[&[own], &[node2]],
        &[&[node2], &[own]],
        &[&[node2], &[], &[own]],
    ];
    for order in orders {
        let mut world = holding();
        let mut believed = true;
        for (portion, revision) in order.iter().zip(8..) {
            let events = portion.iter().map(|key| deleted(key, revision));
            believed = world.changed(events.collect(), at(2));
        }
        assert!(!believed, "{order:?}: a list must follow");
        assert_eq!(peers(&mut world), [node2], "{order:?}");
        let Some(Task::Renew(..)) = world.duty(at(2)) else {
            panic!("{order:?}")
        };
        let back = held(&world, 20);
        world.renewed(Ok(Claim::Retaken(back)), at(3));
        assert!(world.changed(vec![Event::Put(self::own(&world, 20))], at(3)));
        let entries = vec![entry("config", CONFIG_1, 1), self::own(&world, 20)];
        assert!(!world.listed(snapshot(21, entries.clone()), at(16)));
        assert_eq!(peers(&mut world), [node2], "{order:?}");
        assert!(world.listed(snapshot(21, entries), at(17)));
        assert!(peers(&mut world).is_empty(), "{order:?}: it did not come");
    }
}

#[test]
fn a_lease_that_went_long_before_ours_does_not_come_back() {
    let mut world = holding();
    world.changed(vec![deleted("100.96.2.0-24", 8)], at(2));
    assert!(!world.changed(vec![deleted("100.96.1.0-24", 9)], at(8)));
    assert!(peers(&mut world).is_empty());
}

#[test]
fn a_peer_that_comes_back_meanwhile_is_the_new_one() {
    let mut world = holding();
    let both = ["100.96.2.0-24", "100.96.1.0-24"];
    world.changed(both.map(|key| deleted(key, 8)).into(), at(2));
    let moved = NODE2.replace("192.168.1.48", "192.168.1.68");
    let back = Event::Put(entry("subnets/100.96.2.0-24", &moved, 9));
    world.changed(vec![back], at(3));
    let plan = world.plan().unwrap();
    let peer = world.peers(&plan).remove(0);
    assert_eq!(peer.public_ip.to_string(), "192.168.1.68");
}

/// Somebody else's lease of our subnet ran out: no sign of anything for the others.
#[test]
fn the_end_of_a_usurper_says_nothing_about_the_others() {
    let mut world = holding();
    let theirs = NODE2.replace("192.168.1.48", "192.168.1.99");
    let put = Event::Put(entry("subnets/100.96.1.0-24", &theirs, 8));
    assert!(world.changed(vec![put], at(2)));
    assert!(world.changed(vec![deleted("100.96.1.0-24", 9)], at(3)));
    assert!(world.changed(vec![deleted("100.96.2.0-24", 10)], at(4)));
    assert!(peers(&mut world).is_empty());
}

#[test]
fn a_list_after_an_outage_drops_nobody_yet() {
    let mut world = holding();
    world.lost(&unreachable(), at(8));
    world.lost(&unreachable(), at(10));
    let entries = || vec![entry("config", CONFIG_1, 1), own(&holding(), 5)];
    assert!(!world.listed(snapshot(9, entries()), at(12)));
    assert_eq!(peers(&mut world), ["100.96.2.0-24"]);
    // away once more: the window begins anew
    world.lost(&unreachable(), at(24));
    assert!(!world.listed(snapshot(9, entries()), at(28)));
    assert!(!world.listed(snapshot(9, entries()), at(42)));
    assert_eq!(peers(&mut world), ["100.96.2.0-24"]);
    assert!(world.listed(snapshot(9, entries()), at(43)));
    assert!(peers(&mut world).is_empty());
}

#[test]
fn a_hiccup_is_no_outage_and_neither_is_a_quiet_time() {
    let gone = || vec![deleted("100.96.2.0-24", 8)];
    let mut world = holding();
    world.lost(&unreachable(), at(2));
    assert!(world.changed(gone(), at(3)));
    assert!(peers(&mut world).is_empty());
    let mut world = holding();
    assert!(world.changed(gone(), at(31)));
    assert!(peers(&mut world).is_empty());
}

/// Frozen for longer than the leases live: the watch has seen no error, and our own renewal may
/// be through before the others' leases are revoked.
#[test]
fn changes_after_a_freeze_drop_nobody_yet() {
    let gone = || vec![deleted("100.96.2.0-24", 8)];
    let mut world = holding();
    assert!(!world.changed(gone(), at(86_401)));
    assert_eq!(peers(&mut world), ["100.96.2.0-24"]);

    let mut world = holding();
    world.aged(at(86_400));
    let back = held(&world, 7);
    world.renewed(Ok(Claim::Held(back)), at(86_402));
    assert!(!world.changed(gone(), at(86_402)));
    assert_eq!(peers(&mut world), ["100.96.2.0-24"]);

    // it has shown nothing for so long that it must have been away for longer than it failed
    let mut world = holding();
    world.lost(&unreachable(), at(60));
    assert!(!world.changed(gone(), at(61)));
    assert_eq!(peers(&mut world), ["100.96.2.0-24"]);
}

/// A conflict lasts until somebody acts; peers come and go meanwhile.
#[test]
fn a_conflict_keeps_nobody() {
    let mut world = holding();
    let theirs = NODE2.replace("192.168.1.48", "192.168.1.99");
    let put = Event::Put(entry("subnets/100.96.1.0-24", &theirs, 8));
    world.changed(vec![put], at(2));
    let other = world
        .view
        .record(subnet("100.96.1.0-24"))
        .unwrap()
        .lease
        .clone();
    world.renewed(Ok(Claim::Taken(other)), at(3));
    assert!(world.changed(vec![deleted("100.96.2.0-24", 9)], at(90_000)));
    assert!(peers(&mut world).is_empty());
}
