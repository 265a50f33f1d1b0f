use super::*;

const ETH0: (&str, &str) = ("eth0", "192.168.1.47/24");
const ETH1: (&str, &str) = ("eth1", "192.168.1.60/24");

fn public_ip(world: &World) -> String {
    world.attrs().unwrap().public_ip.to_string()
}

#[test]
fn an_uplink_that_cannot_be_found_again_stays_in_use() {
    let mut world = holding();
    let before = world.plan();
    world.uplink_seen(&Interfaces::default(), at(1));
    assert_eq!(codes(&world), ["uplink"]);
    assert_eq!(world.plan(), before);
    world.uplink_seen(&host("eth0", &[ETH0]), at(2));
    assert!(codes(&world).is_empty());
    assert_eq!(world.plan(), before);
}

/// DHCP renumber, and an interface that has gone: there is nothing to wait for.
#[test]
fn an_address_that_was_replaced_is_told_at_once() {
    for now in [
        host("eth0", &[("eth0", "192.168.1.60/24")]),
        host("eth1", &[ETH1]),
    ] {
        let mut world = holding();
        assert!(world.uplink_seen(&now, at(1)), "connections are dead");
        assert!(!world.uplink_seen(&now, at(1)));
        let Some(Task::Renew(held, attrs)) = world.duty(at(1)) else {
            panic!()
        };
        assert_eq!(held.lease.subnet, subnet("100.96.1.0-24"));
        assert_eq!(attrs.public_ip.to_string(), "192.168.1.60");
        assert!(!world.uplink_is_contested());
    }
}

#[test]
fn a_default_route_that_moves_for_a_moment_moves_nothing() {
    let (home, away) = (host("eth0", &[ETH0, ETH1]), host("eth1", &[ETH0, ETH1]));
    let none = Interfaces {
        default_routes: Vec::new(),
        ..home.clone()
    };
    let mut world = holding();
    for (seconds, there) in [
        (1, &away),
        (2, &home),
        (3, &away),
        (4, &none),
        (5, &away),
        (6, &away),
    ] {
        assert!(!world.uplink_seen(there, at(seconds)));
        assert_eq!(public_ip(&world), "192.168.1.47", "at {seconds} s");
        assert_eq!(world.duty(at(seconds)), None);
    }
    assert!(world.uplink_is_contested());
    world.uplink_seen(&away, at(7));
    assert_eq!(public_ip(&world), "192.168.1.60");
    assert!(!world.uplink_is_contested());
}

#[test]
fn an_uplink_that_the_administrator_asks_for_is_taken_at_once() {
    let mut world = holding();
    world.reconfigure(config("[node]\ninterface = \"eth1\"\n"));
    world.uplink_seen(&host("eth0", &[ETH0, ETH1]), at(1));
    assert_eq!(public_ip(&world), "192.168.1.60");
}
