use super::*;

const HERE: &str = "192.168.1.47";
const THERE: &str = "192.168.1.99";

/// A lease of `key` as a machine at this address with our identity would write it.
fn clone_lease(world: &World, key: &str, address: &str) -> Event {
    let value = world.attrs().unwrap().to_json().replace(HERE, address);
    Event::Put(entry(&format!("subnets/{key}"), &value, 8))
}

fn mac(world: &World) -> Mac {
    world.attrs().unwrap().backend.mac().unwrap()
}

#[test]
fn of_two_clones_the_one_with_the_higher_subnet_changes_its_tunnel_address() {
    let mut world = holding();
    let before = mac(&world);
    let higher = clone_lease(&world, "100.96.9.0-24", THERE);
    world.changed(vec![higher], at(2));
    assert_eq!((mac(&world), world.duty(at(2))), (before, None));

    let lower = clone_lease(&world, "100.96.0.0-24", THERE);
    world.changed(vec![lower], at(3));
    let changed = mac(&world);
    assert_ne!(changed, before);
    let Some(Task::Renew(_, attrs)) = world.duty(at(3)) else {
        panic!()
    };
    assert_eq!(attrs.backend.mac(), Some(changed));
    assert_eq!(
        world.plan().unwrap().kernel.links["flannel.1"].mac,
        Some(changed)
    );
    let renewed = held(&world, 9);
    world.renewed(Ok(Claim::Held(renewed)), at(4));
    world.changed(vec![Event::Put(own(&world, 9))], at(4));
    assert_eq!((mac(&world), world.duty(at(5))), (changed, None));
    assert!(!codes(&world).contains(&"peers".to_owned()));

    // a restart takes over what the lease says, and the other may have gone
    let gone = Event::Deleted {
        key: "subnets/100.96.0.0-24".into(),
        revision: Revision(10),
    };
    world.changed(vec![gone], at(5));
    assert_eq!((mac(&world), world.duty(at(5))), (changed, None));
}

/// Left by a network of before: it is no other machine's.
#[test]
fn a_second_lease_of_our_own_changes_nothing() {
    let mut world = holding();
    let lease = clone_lease(&world, "100.96.0.0-24", HERE);
    world.changed(vec![lease], at(2));
    assert_eq!(world.duty(at(2)), None);
}

#[test]
fn who_takes_our_lease_with_our_tunnel_address_may_be_a_clone() {
    for (mac, clone) in [(None, true), (Some("02:00:00:00:00:02"), false)] {
        let mut world = holding();
        let mut attrs = world.attrs().unwrap();
        attrs.public_ip = THERE.parse().unwrap();
        if let (BackendAttrs::Vxlan(vtep), Some(mac)) = (&mut attrs.backend, mac) {
            vtep.mac = Some(mac.parse().unwrap());
        }
        let subnet = subnet("100.96.1.0-24");
        world.renewed(Ok(Claim::Taken(Lease { subnet, attrs })), at(1));
        let text = world.faults.list().remove(0).text;
        assert_eq!(text.contains("clone"), clone, "{text}");
        assert!(text.contains("leased to 192.168.1.99"), "{text}");
    }
}
