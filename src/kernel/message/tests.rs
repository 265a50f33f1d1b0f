use proptest::prelude::*;

use super::*;

fn way() -> NexthopWay {
    NexthopWay {
        index: 7,
        gateway: Ipv4Addr::new(100, 96, 2, 0),
        onlink: true,
    }
}

#[test]
fn a_nexthop_reads_back_as_it_was_written() {
    let row = Message::new_nexthop(5, way()).nexthop();
    let expected = NexthopRow {
        id: 5,
        protocol: PROTOCOL,
        way: Some(way()),
    };
    assert_eq!(row, Some(expected));
}

#[test]
fn the_bytes_are_those_of_the_kernels_headers() {
    let message = Message::new_nexthop(0x0102_0304, way());
    let mut expected = vec![2, 0, 96, 0, 4, 0, 0, 0];
    expected.extend([8, 0, 1, 0, 4, 3, 2, 1]);
    expected.extend([8, 0, 5, 0, 7, 0, 0, 0]);
    expected.extend([8, 0, 6, 0, 100, 96, 2, 0]);
    if cfg!(target_endian = "little") {
        assert_eq!((message.kind, message.body), (104, expected));
    }
}

#[test]
fn what_is_not_one_ipv4_gateway_has_an_id_and_no_way() {
    for strange in STRANGE {
        let mut message = Message::new_nexthop(5, way());
        attribute(&mut message.body, strange, [0; 4]);
        let row = message.nexthop().unwrap();
        assert_eq!((row.id, row.way), (5, None), "{strange}");
    }
    let mut of_ipv6 = Message::new_nexthop(5, way());
    of_ipv6.body[0] = 10;
    assert_eq!(of_ipv6.nexthop().unwrap().way, None);
    let mut newer = Message::new_nexthop(5, way());
    attribute(&mut newer.body, 99, [0; 4]);
    assert_eq!(newer.nexthop().unwrap().way, Some(way()));
}

#[test]
fn what_is_cut_short_is_none_or_lacks_something() {
    let whole = Message::new_nexthop(5, way());
    for end in 0..whole.body.len() {
        let mut cut = whole.clone();
        cut.body.truncate(end);
        assert!(cut.nexthop().is_none_or(|row| row.way.is_none()), "{end}");
    }
    assert_eq!(Message::del_nexthop(5).nexthop(), None);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..64)) {
        let kind = NEW_NEXTHOP;
        let message = Message { kind, body };
        message.nexthop();
        message.route_protocol();
    }
}
