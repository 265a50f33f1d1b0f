use proptest::prelude::*;

use super::*;

#[test]
fn keys_of_flanneld_are_read() {
    for (key, cidr) in [
        ("10.5.34.0-24", "10.5.34.0/24"),
        (
            "10.5.34.0-24&fc00:0:0:2::-64",
            "10.5.34.0/24,fc00:0:0:2::/64",
        ),
        ("0.0.0.0-0", "0.0.0.0/0"),
    ] {
        assert_eq!(Subnet::from_key(key).unwrap().to_string(), cidr);
    }
}

/// flannel's own list of keys that must be refused (reference §2.2), and some of ours.
#[test]
fn strange_keys_are_refused() {
    for key in [
        "10",
        "10.12.13.0",
        "10.12.13-24",
        "10.12.13.300-24",
        "10.12.13.0-24hi",
        "&2001::-56",
        "10.12.13.0-24&:12:13:-56",
        "10.12.13.0-24&20011::-56",
        "10.12.13.0-24&2001-56",
        "10.12.13.0-24&2001::",
        "10.12.13.0-24&2001::-56hi",
        "10.12.13.0-24&FC00::-56",
        "10.12.13.0-32",
        "10.12.13.0-+4",
        "10.12.13.0-24/x",
        "",
    ] {
        assert!(Subnet::from_key(key).is_err(), "{key:?}");
    }
}

#[test]
fn the_gateway_is_the_first_address_after_the_base() {
    let subnet = Subnet::new("100.96.1.0/24".parse().unwrap());
    assert_eq!(subnet.base(), Ipv4Addr::new(100, 96, 1, 0));
    assert_eq!(subnet.gateway().to_string(), "100.96.1.1/24");
}

#[test]
fn overlap_is_judged_on_the_ipv4_part() {
    let plain = Subnet::from_key("10.5.1.0-24").unwrap();
    let dual = Subnet::from_key("10.5.1.0-24&fd00::-64").unwrap();
    let wide = Subnet::from_key("10.5.0.0-16").unwrap();
    let other = Subnet::from_key("10.5.2.0-24").unwrap();
    assert!(plain.overlaps(dual) && wide.overlaps(plain) && plain.overlaps(wide));
    assert!(!plain.overlaps(other));
}

proptest! {
    #[test]
    fn keys_round_trip(bits: u32, len in 0u8..=31, v6: Option<(u128, u8)>) {
        let v4 = Ipv4Net::new(bits.into(), len).unwrap().trunc();
        let v6 = v6.map(|(bits, len)| Ipv6Net::new(bits.into(), len % 128).unwrap());
        let subnet = Subnet { v4, v6 };
        prop_assert_eq!(Subnet::from_key(&subnet.key()).unwrap(), subnet);
    }

    #[test]
    fn no_text_panics(text in "\\PC*") {
        let _ = Subnet::from_key(&text);
    }
}
