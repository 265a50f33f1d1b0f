use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;
use crate::cluster::datastore::{Entry, Snapshot};

const ME: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 47);

fn network() -> Network {
    Network::from_json(r#"{"Network":"10.5.0.0/16"}"#).unwrap()
}

fn subnet(key: &str) -> Subnet {
    Subnet::from_key(key).unwrap()
}

fn view(leases: &[(&str, &str)]) -> View {
    let entries = leases.iter().zip(1..).map(|((key, ip), revision)| Entry {
        key: format!("subnets/{key}"),
        value: format!(r#"{{"PublicIP":"{ip}","PublicIPv6":null}}"#).into(),
        revision: Revision(revision),
        expires: true,
    });
    let mut view = View::default();
    view.replace(Snapshot {
        revision: Revision(99),
        entries: entries.collect(),
    });
    view
}

fn wish() -> Wish {
    Wish {
        public_ip: ME,
        last: None,
        previous: None,
        asked: None,
    }
}

fn choice(view: &View, wish: &Wish) -> Choice {
    choose(&network(), view, wish, &mut SmallRng::seed_from_u64(1))
}

fn kept(choice: Choice) -> String {
    match choice {
        Choice::Keep(record) => record.lease.subnet.key(),
        Choice::Discard(_) | Choice::Take(_) | Choice::Occupied(_) | Choice::Exhausted => {
            panic!("{choice:?}")
        }
    }
}

#[test]
fn the_order_is_own_previous_asked_free() {
    let mut wish = Wish {
        asked: Some(subnet("10.5.4.0-24")),
        ..wish()
    };
    let other = ("10.5.9.0-24", "192.168.1.48");
    assert_eq!(
        choice(&view(&[other]), &wish),
        Choice::Take(subnet("10.5.4.0-24"))
    );
    wish.previous = Some(subnet("10.5.3.0-24"));
    assert_eq!(
        choice(&view(&[other]), &wish),
        Choice::Take(subnet("10.5.3.0-24"))
    );
    let own = view(&[other, ("10.5.2.0-24", "192.168.1.47")]);
    assert_eq!(kept(choice(&own, &wish)), "10.5.2.0-24");
    let all_taken = view(&[
        ("10.5.3.0-24", "192.168.1.48"),
        ("10.5.4.0-24", "192.168.1.49"),
    ]);
    let Choice::Take(free) = choice(&all_taken, &wish) else {
        panic!()
    };
    assert!(all_taken.taken().all(|taken| !taken.overlaps(free)));
}

#[test]
fn the_own_lease_is_known_after_a_change_of_address() {
    let last = Written {
        subnet: subnet("10.5.2.0-24"),
        revision: Revision(1),
        public_ip: Ipv4Addr::new(192, 168, 1, 99),
    };
    let wish = Wish {
        last: Some(last),
        ..wish()
    };
    let view = view(&[("10.5.2.0-24", "192.168.1.99")]);
    assert_eq!(kept(choice(&view, &wish)), "10.5.2.0-24");
    let rewritten = Wish {
        last: Some(Written {
            revision: Revision(0),
            ..last
        }),
        ..wish
    };
    assert!(matches!(choice(&view, &rewritten), Choice::Take(subnet) if subnet != last.subnet));
    // the same revision in the history of another datastore
    let elsewhere = Written {
        public_ip: ME,
        ..last
    };
    let wish = Wish {
        last: Some(elsewhere),
        ..rewritten
    };
    assert!(matches!(choice(&view, &wish), Choice::Take(subnet) if subnet != last.subnet));
}

#[test]
fn of_several_own_leases_the_last_written_one_is_kept() {
    let last = Written {
        subnet: subnet("10.5.7.0-24"),
        revision: Revision(2),
        public_ip: ME,
    };
    let wish = Wish {
        last: Some(last),
        ..wish()
    };
    let view = view(&[
        ("10.5.2.0-24", "192.168.1.47"),
        ("10.5.7.0-24", "192.168.1.47"),
    ]);
    assert_eq!(kept(choice(&view, &wish)), "10.5.7.0-24");
}

#[test]
fn an_own_lease_outside_of_the_network_goes() {
    let view = view(&[("10.6.2.0-24", "192.168.1.47")]);
    assert!(matches!(choice(&view, &wish()), Choice::Discard(_)));
}

#[test]
fn a_reservation_outside_of_the_network_stays() {
    let entry = Entry {
        key: "subnets/10.6.2.0-24".into(),
        value: br#"{"PublicIP":"192.168.1.47"}"#.to_vec(),
        revision: Revision(1),
        expires: false,
    };
    let mut view = View::default();
    view.replace(Snapshot {
        revision: Revision(1),
        entries: vec![entry],
    });
    assert!(matches!(choice(&view, &wish()), Choice::Take(_)));
}

#[test]
fn wishes_outside_of_the_network_are_not_granted() {
    let wish = Wish {
        asked: Some(subnet("10.6.4.0-24")),
        ..wish()
    };
    let Choice::Take(free) = choice(&view(&[]), &wish) else {
        panic!()
    };
    assert!(network().allows(free));
}

#[test]
fn a_network_without_a_free_subnet_is_exhausted() {
    assert_eq!(
        choice(&view(&[("10.5.0.0-16", "192.168.1.48")]), &wish()),
        Choice::Exhausted
    );
}

proptest! {
    /// Nested, adjacent, unreadable and foreign leases: what is taken never overlaps one of them,
    /// and "exhausted" is said only when a slow search finds nothing either.
    #[test]
    fn a_taken_subnet_is_never_handed_out(
        taken in prop::collection::vec((0u32..1 << 12, 20u8..=30, any::<bool>()), 0..80),
        seed: u64,
    ) {
        let network = Network::from_json(r#"{"Network":"10.5.0.0/20","SubnetLen":26}"#).unwrap();
        let entries = taken.iter().map(|(host, len, readable)| {
            let net = ipnet::Ipv4Net::new((0x0a05_0000 + host).into(), *len).unwrap();
            let value = if *readable { r#"{"PublicIP":"192.168.1.48"}"# } else { "?" };
            let key = format!("subnets/{}", Subnet::new(net).key());
            Entry { key, value: value.into(), revision: Revision(1), expires: true }
        });
        let mut view = View::default();
        view.replace(Snapshot { revision: Revision(1), entries: entries.collect() });
        let is_free = |subnet: Subnet| view.taken().all(|taken| !taken.overlaps(subnet));
        match choose(&network, &view, &wish(), &mut SmallRng::seed_from_u64(seed)) {
            Choice::Take(subnet) => prop_assert!(is_free(subnet) && network.allows(subnet)),
            Choice::Exhausted => prop_assert!(!network.subnets().any(is_free)),
            Choice::Keep(_) | Choice::Discard(_) | Choice::Occupied(_) => prop_assert!(false, "nothing is ours"),
        }
    }
}

#[test]
fn a_lease_of_more_than_the_network_keeps_nobody_out() {
    for key in ["0.0.0.0-0", "0.0.0.0-1", "10.4.0.0-15"] {
        let view = view(&[(key, "192.168.1.60"), ("10.5.1.0-24", "192.168.1.48")]);
        let wish = Wish {
            asked: Some(subnet("10.5.4.0-24")),
            ..wish()
        };
        assert_eq!(
            choice(&view, &wish),
            Choice::Take(subnet("10.5.4.0-24")),
            "{key}"
        );
        let any = choice(&view, &self::wish());
        assert!(matches!(any, Choice::Take(_)), "{key}: {any:?}");
    }
}
