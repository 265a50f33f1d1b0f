use super::*;
use crate::service::status::RenumberError;

const MOVED: &str = r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#;

fn network_config(value: &str, revision: i64) -> Vec<Event> {
    vec![Event::Put(entry("config", value, revision))]
}

/// The network that the node is to be in, and where it goes there.
fn destination(world: &World) -> (String, Goal) {
    let Some(Task::Renumber(network, held, goal, _)) = world.duty(at(2)) else {
        panic!("{:?}", world.duty(at(2)))
    };
    assert_eq!(held.lease.subnet, subnet("100.96.1.0-24"));
    (network.net.to_string(), goal)
}

fn moved_to(world: &World, key: &str) -> Held {
    let mut held = held(world, 20);
    held.lease.subnet = subnet(key);
    held
}

#[test]
fn a_network_that_was_refused_is_gone_to_when_asked() {
    let mut world = holding();
    let before = world.plan();
    world.changed(network_config(MOVED, 8), at(2));
    let text = world.faults.list().remove(0).text;
    assert!(text.contains("flannel-rs renumber"), "{text}");
    assert_eq!(world.duty(at(2)), None);

    world.renumber(None).unwrap();
    assert_eq!(destination(&world), ("10.5.0.0/16".to_owned(), Goal::Any));
    assert_eq!(world.plan(), before, "until it has another");
    let again = world.renumber(None).unwrap_err();
    assert_eq!(again, RenumberError::UnderWay);
    // we give the old one back, which is no sign of anything, and the new one is no peer's
    let given_back = Event::Deleted {
        key: "subnets/100.96.1.0-24".into(),
        revision: Revision(21),
    };
    let taken = moved_to(&world, "10.5.7.0-24");
    let new = world.attrs().unwrap().to_json();
    let put = Event::Put(entry("subnets/10.5.7.0-24", &new, 20));
    assert!(world.changed(vec![put], at(3)));
    assert_eq!(world.plan(), before);
    assert_eq!(
        world.renumbered(Ok(taken), at(3)),
        Ok(subnet("10.5.7.0-24"))
    );
    assert_eq!(peers(&mut world), ["100.96.2.0-24"]);
    assert!(world.changed(vec![given_back], at(3)));
    assert_eq!(world.duty(at(3)), None);
    let node = world.node().unwrap();
    assert_eq!(node.network.net.to_string(), "10.5.0.0/16");
    assert_eq!(node.lease.subnet, subnet("10.5.7.0-24"));
    assert!(!codes(&world).contains(&"renumber-required".to_owned()));
}

#[test]
fn what_a_node_cannot_do_is_refused_at_once() {
    let asked = |world: &mut World, key: &str| world.renumber(Some(subnet(key))).unwrap_err();
    let mut world = world("");
    assert_eq!(world.renumber(None), Err(RenumberError::NoLease));
    let mut world = holding();
    let own = subnet("100.96.1.0-24");
    assert_eq!(
        world.renumber(None),
        Err(RenumberError::NothingToRenumber(own))
    );
    assert_eq!(
        asked(&mut world, "100.96.1.0-24"),
        RenumberError::NothingToRenumber(own)
    );
    let error = asked(&mut world, "10.5.1.0-24");
    assert!(matches!(error, RenumberError::OutsideNetwork { .. }));
    assert!(error.to_string().contains("of 100.96.0.0/16"), "{error}");
    let error = asked(&mut world, "100.96.2.0-24");
    assert_eq!(error.to_string(), "100.96.2.0/24 is taken by 192.168.1.48");
    let garbage = Event::Put(entry("subnets/100.96.3.0-24", "{", 8));
    world.changed(vec![garbage], at(2));
    let error = asked(&mut world, "100.96.3.0-24");
    assert_eq!(error.to_string(), "100.96.3.0/24 is taken");
    assert_eq!(world.duty(at(2)), None);
    let free = subnet("100.96.4.0-24");
    world.renumber(Some(free)).unwrap();
    assert_eq!(destination(&world).1, Goal::Exactly(free));
}

#[test]
fn a_move_that_fails_leaves_all_as_it_was() {
    let mut world = holding();
    let before = world.plan();
    world.renumber(Some(subnet("100.96.4.0-24"))).unwrap();
    let error = AcquireError::Occupied(subnet("100.96.4.0-24"), None);
    let refused = world.renumbered(Err(error), at(2)).unwrap_err();
    assert_eq!(refused.to_string(), "100.96.4.0/24 is taken");
    assert_eq!((world.plan(), world.duty(at(2))), (before, None));
    assert!(codes(&world).is_empty());
}

#[test]
fn who_has_lost_its_subnet_to_another_goes_elsewhere() {
    let mut world = holding();
    let other = Lease {
        subnet: subnet("100.96.1.0-24"),
        attrs: Attrs::from_json(NODE2.as_bytes()).unwrap(),
    };
    let theirs = Event::Put(entry("subnets/100.96.1.0-24", NODE2, 8));
    world.changed(vec![theirs], at(1));
    world.renewed(Ok(Claim::Taken(other)), at(1));
    let error = world.renumber(Some(subnet("100.96.1.0-24"))).unwrap_err();
    assert!(matches!(error, RenumberError::SubnetTaken { .. }));
    world.renumber(None).unwrap();
    assert_eq!(destination(&world).1, Goal::Any);
    let taken = moved_to(&world, "100.96.9.0-24");
    world.renumbered(Ok(taken), at(2)).unwrap();
    assert!(codes(&world).is_empty());
    assert!(peers(&mut world).contains(&"100.96.1.0-24".to_owned()));
}

#[test]
fn the_subnet_that_the_host_config_asks_for_is_gone_to() {
    let mut world = holding();
    world.reconfigure(config("[node]\nsubnet = \"100.96.7.0/24\"\n"));
    assert_eq!(codes(&world), ["other-subnet"]);
    world.renumber(None).unwrap();
    let wish = subnet("100.96.7.0-24");
    assert_eq!(destination(&world).1, Goal::Exactly(wish));

    let mut world = holding();
    world.reconfigure(config("[node]\nsubnet = \"100.96.2.0/24\"\n"));
    let error = world.renumber(None).unwrap_err();
    assert!(matches!(error, RenumberError::SubnetTaken { .. }));
}

#[test]
fn the_former_lease_of_this_node_is_nobody_elses() {
    let mut world = holding();
    world.reconfigure(config("[node]\nsubnet = \"100.96.1.0/24\"\n"));
    world.renumber(Some(subnet("100.96.9.0-24"))).unwrap();
    let taken = moved_to(&world, "100.96.9.0-24");
    let value = world.attrs().unwrap().to_json();
    world.renumbered(Ok(taken), at(2)).unwrap();
    let put = Event::Put(entry("subnets/100.96.9.0-24", &value, 20));
    world.changed(vec![put], at(2));
    let faults = world.faults.list();
    let text = &faults[0].text;
    let expected = "node.subnet asks for 100.96.1.0/24, but this node has 100.96.9.0/24 already; \
                    to move there: flannel-rs renumber";
    assert_eq!((faults.len(), text.as_str()), (1, expected));
}

/// It was made while this node held another: flannel looks at it only at a start.
#[test]
fn a_reservation_for_this_node_is_told_and_gone_to() {
    let mut world = holding();
    let reservation = Entry {
        expires: false,
        ..entry(
            "subnets/100.96.7.0-24",
            r#"{"PublicIP":"192.168.1.47","BackendType":"vxlan"}"#,
            8,
        )
    };
    world.changed(vec![Event::Put(reservation)], at(2));
    assert!(codes(&world).contains(&"other-subnet".to_owned()));
    let faults = world.faults.list();
    let text = &faults
        .iter()
        .find(|f| f.code == "other-subnet")
        .unwrap()
        .text;
    assert!(text.contains("100.96.7.0/24 is reserved"), "{text}");
    world.renumber(None).unwrap();
    let reserved = subnet("100.96.7.0-24");
    assert_eq!(destination(&world).1, Goal::Exactly(reserved));
}

#[test]
fn an_own_lease_of_another_backend_is_written_anew() {
    for value in [
        r#"{"PublicIP":"192.168.1.47","BackendType":"ipip"}"#,
        r#"{"PublicIP":"192.168.1.47","BackendType":"vxlan"}"#,
        r#"{"PublicIP":"192.168.1.47"}"#,
        r#"{}"#,
    ] {
        let mut world = holding();
        let before = world.plan();
        let put = Event::Put(entry("subnets/100.96.1.0-24", value, 8));
        world.changed(vec![put], at(2));
        assert!(
            matches!(world.duty(at(2)), Some(Task::Renew(..))),
            "{value}"
        );
        assert_eq!(world.plan(), before);
    }
}
