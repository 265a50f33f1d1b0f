use super::*;
use crate::kernel::samples::{ip, net};

fn interface(name: &str, addresses: &[&str]) -> Interface {
    let address = |text: &&str| InterfaceAddress {
        address: net(text),
        permanent: true,
        deprecated: false,
    };
    Interface {
        name: name.to_owned(),
        mtu: 1500,
        addresses: addresses.iter().map(address).collect(),
    }
}

fn default_route(metric: u32, interfaces: &[&str]) -> DefaultRoute {
    DefaultRoute {
        metric,
        interfaces: interfaces.iter().map(|&name| name.to_owned()).collect(),
    }
}

fn host() -> Interfaces {
    Interfaces {
        interfaces: vec![
            interface("lo", &["127.0.0.1/8"]),
            interface("eth0", &["10.0.2.15/24"]),
            interface(
                "eth1",
                &["169.254.3.4/16", "192.168.1.47/24", "192.168.1.48/24"],
            ),
            interface("wan2", &[]),
        ],
        default_routes: vec![
            default_route(200, &["eth1"]),
            default_route(100, &["eth0"]),
            default_route(0, &["flannel.1"]),
        ],
        reach: None,
    }
}

fn chosen(preference: &Preference, there: &Interfaces) -> (String, Ipv4Addr, Ipv4Addr) {
    let uplink = choose(preference, there).unwrap();
    (uplink.name, uplink.address, uplink.public_ip)
}

fn refused(preference: &Preference, there: &Interfaces) -> String {
    choose(preference, there).unwrap_err().to_string()
}

fn named(name: &str) -> Preference {
    Preference {
        interface: Some(name.to_owned()),
        ..Preference::default()
    }
}

fn matching(regex: &str) -> Preference {
    Preference {
        regex: Some(Regex::new(regex).unwrap()),
        ..Preference::default()
    }
}

fn public(address: &str) -> Preference {
    Preference {
        public_ip: Some(ip(address)),
        ..Preference::default()
    }
}

fn eth1() -> (String, Ipv4Addr, Ipv4Addr) {
    ("eth1".to_owned(), ip("192.168.1.47"), ip("192.168.1.47"))
}

#[test]
fn the_cheapest_default_route_over_a_real_interface_decides() {
    let found = chosen(&Preference::default(), &host());
    assert_eq!(found, ("eth0".to_owned(), ip("10.0.2.15"), ip("10.0.2.15")));
}

#[test]
fn next_hops_must_share_one_interface() {
    let mut there = host();
    there.default_routes = vec![default_route(0, &["eth1", "eth1"])];
    assert_eq!(chosen(&Preference::default(), &there), eth1());
    there.default_routes = vec![default_route(0, &["eth0", "eth1"])];
    assert_eq!(
        refused(&Preference::default(), &there),
        "the default route leads over several interfaces: set node.interface to one of eth0, eth1"
    );
    there.default_routes = vec![default_route(0, &["flannel.1"])];
    assert_eq!(
        refused(&Preference::default(), &there),
        "no default route: set node.interface to one of eth0, eth1, wan2"
    );
}

#[test]
fn an_interface_goes_by_its_name_or_an_address() {
    assert_eq!(chosen(&named("eth1"), &host()), eth1());
    let (name, address, _) = chosen(&named("192.168.1.48"), &host());
    assert_eq!((name.as_str(), address), ("eth1", ip("192.168.1.48")));
    assert_eq!(
        refused(&named("eth7"), &host()),
        "no interface named \"eth7\"; there are eth0, eth1, wan2"
    );
    assert_eq!(
        refused(&named("192.0.2.1"), &host()),
        "no interface has the address 192.0.2.1; there are 127.0.0.1 on lo, 10.0.2.15 on eth0, \
         169.254.3.4 on eth1, 192.168.1.47 on eth1, 192.168.1.48 on eth1"
    );
}

#[test]
fn a_pattern_counts_for_addresses_before_names() {
    assert_eq!(chosen(&matching(r"^192\.168\."), &host()), eth1());
    assert_eq!(chosen(&matching("eth1"), &host()), eth1());
    // "1" is in an address of eth0, which comes first.
    assert_eq!(chosen(&matching("1"), &host()).0, "eth0");
    assert!(refused(&matching("^127"), &host()).starts_with("no address or interface name"));
}

#[test]
fn what_must_be_reached_decides_with_the_source_of_the_kernel() {
    let mut there = host();
    there.reach = Some(Reach {
        interface: "eth1".to_owned(),
        source: Some(ip("192.168.1.48")),
    });
    let preference = Preference {
        can_reach: Some(ip("192.168.1.1")),
        ..Preference::default()
    };
    let (name, address, _) = chosen(&preference, &there);
    assert_eq!((name.as_str(), address), ("eth1", ip("192.168.1.48")));
    let ourselves = Preference {
        can_reach: Some(ip("192.168.1.47")),
        ..Preference::default()
    };
    assert_eq!(chosen(&ourselves, &there), eth1());
    there.reach = None;
    assert_eq!(
        refused(&preference, &there),
        "no route to 192.168.1.1 over any of eth0, eth1, wan2: \
         set node.interface, or add a route"
    );
    there.reach = Some(Reach {
        interface: "flannel.1".to_owned(),
        source: None,
    });
    assert!(choose(&preference, &there).is_err());
}

#[test]
fn the_public_address_decides_only_if_nothing_else_does() {
    let (name, address, public_ip) = chosen(&public("192.168.1.48"), &host());
    assert_eq!(name, "eth1");
    assert_eq!(
        (address, public_ip),
        (ip("192.168.1.48"), ip("192.168.1.48"))
    );
    let said = refused(&public("203.0.113.9"), &host());
    assert!(said.ends_with("If it is that of a gateway, set node.interface too"));
    let both = Preference {
        interface: Some("eth0".to_owned()),
        ..public("203.0.113.9")
    };
    let (name, address, public_ip) = chosen(&both, &host());
    assert_eq!(name, "eth0");
    assert_eq!((address, public_ip), (ip("10.0.2.15"), ip("203.0.113.9")));
}

#[test]
fn the_first_preference_that_fits_wins() {
    let mut preference = named("eth7");
    preference.regex = matching("^eth1$").regex;
    assert_eq!(chosen(&preference, &host()), eth1());
    preference.regex = matching("^eth8$").regex;
    let said = refused(&preference, &host());
    assert!(
        said.contains("\"eth7\"") && said.contains("\"^eth8$\""),
        "{said}"
    );
}

#[test]
fn addresses_are_taken_in_the_order_of_their_worth() {
    let mut there = host();
    let addresses = &mut there.interfaces[2].addresses;
    addresses[1].permanent = false;
    assert_eq!(chosen(&named("eth1"), &there).1, ip("192.168.1.48"));
    let addresses = &mut there.interfaces[2].addresses;
    addresses[2].deprecated = true;
    assert_eq!(chosen(&named("eth1"), &there).1, ip("192.168.1.47"));
    there.interfaces[2].addresses.truncate(1);
    assert_eq!(chosen(&named("eth1"), &there).1, ip("169.254.3.4"));
    assert!(refused(&named("lo"), &there).contains("no usable IPv4 address"));
    assert!(refused(&named("wan2"), &there).contains("no usable IPv4 address"));
    there.interfaces[1].mtu = 0;
    assert!(refused(&named("eth0"), &there).contains("MTU of 0"));
}

#[test]
fn networks_are_those_without_a_gateway() {
    let mut there = host();
    there.interfaces[1] = interface("eth0", &["10.0.2.15/24", "10.0.2.16/24", "10.7.0.1/32"]);
    let uplink = choose(&named("eth0"), &there).unwrap();
    assert_eq!(uplink.networks, [net("10.0.2.0/24")]);
}
