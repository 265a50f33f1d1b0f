use rtnetlink::sys::Socket;

use super::*;

impl Hints {
    pub(in crate::kernel::netlink) fn socket_for_test(&mut self) -> &Socket {
        self.socket.as_ref().unwrap().route.socket_ref()
    }

    pub(in crate::kernel::netlink) fn break_for_test(&mut self) {
        self.socket = None;
    }
}

fn notification(kind: u16, body: [u8; 12]) -> Vec<u8> {
    let mut message = 28u32.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend([0; 10]);
    message.extend(body);
    message
}

fn neighbour(index: u8) -> Vec<u8> {
    let mut body = [0; 12];
    body[4..8].copy_from_slice(&u32::from(index).to_ne_bytes());
    notification(libc::RTM_NEWNEIGH, body)
}

fn route(length: u8, protocol: u8) -> Vec<u8> {
    let mut body = [0; 12];
    (body[1], body[5]) = (length, protocol);
    notification(libc::RTM_DELROUTE, body)
}

fn expected() -> Expected {
    let mac = crate::kernel::samples::mac(2);
    let entry = crate::kernel::samples::fdb("flannel.1", mac);
    Expected {
        port: 4242,
        filter_port: 4243,
        passages: [7].into(),
        tunnels: [(7, "flannel.1".into())].into(),
        neighbours: BTreeMap::new(),
        fdb: [(entry, Ipv4Addr::new(192, 168, 5, 2))].into(),
    }
}

fn by(port: u32, mut message: Vec<u8>) -> Vec<u8> {
    message[12..16].copy_from_slice(&port.to_ne_bytes());
    message
}

/// A row of link 7, for 02:00:00:00:00:`last` and 192.168.5.`to`.
fn entry(kind: u16, state: u8, last: u8, to: u8) -> Vec<u8> {
    row(7, kind, state, last, to)
}

fn row(family: u8, kind: u16, state: u8, last: u8, to: u8) -> Vec<u8> {
    let mut body = vec![family, 0, 0, 0, 7, 0, 0, 0, state, 0, 2, 0];
    body.extend([10, 0, 2, 0, 2, 0, 0, 0, 0, last, 0, 0]);
    body.extend([8, 0, 1, 0, 192, 168, 5, to]);
    let length = u32::try_from(16 + body.len()).unwrap();
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend([0; 10]);
    message.extend(body);
    message
}

/// The kernel tells of the new row alone; the one before may have been ours.
#[test]
fn a_daemons_route_in_the_place_of_another_matters() {
    let bird = 12;
    let mut message = route(24, bird);
    assert!(!matters(&message, &expected()));
    message[4..6].copy_from_slice(&libc::RTM_NEWROUTE.to_ne_bytes());
    assert!(!matters(&message, &expected()));
    message[6..8].copy_from_slice(&NLM_F_REPLACE.to_ne_bytes());
    assert!(matters(&message, &expected()));
}

#[test]
fn our_own_changes_do_not_matter() {
    let ours = [
        entry(libc::RTM_NEWNEIGH, 0x80, 2, 9),
        route(24, 96),
        route(0, 12),
    ];
    for message in ours {
        assert!(matters(&message, &expected()));
        assert!(matters(&by(4241, message.clone()), &expected()));
        assert!(!matters(&by(4242, message), &expected()));
    }
    let nobody = Expected::default();
    assert!(matters(&route(24, 96), &nobody), "0 is the kernel itself");
}

#[test]
#[cfg(target_endian = "little")]
fn forwarding_entries_matter_where_they_are_not_as_expected() {
    const PUT: u8 = 0x80;
    const LEARNED: u8 = 0x02;
    let (new, gone) = (libc::RTM_NEWNEIGH, libc::RTM_DELNEIGH);
    for quiet in [
        entry(new, PUT, 2, 2),
        entry(gone, PUT, 3, 3),
        entry(new, LEARNED, 3, 3),
        entry(gone, LEARNED, 3, 3),
    ] {
        assert!(!matters(&quiet, &expected()), "{quiet:?}");
    }
    for loud in [
        entry(new, PUT, 2, 3),
        entry(gone, PUT, 2, 2),
        entry(new, PUT, 3, 3),
        entry(new, LEARNED, 2, 2),
    ] {
        assert!(matters(&loud, &expected()), "{loud:?}");
    }
    let mut elsewhere = entry(new, PUT, 2, 3);
    elsewhere[20] = 8;
    assert!(!matters(&elsewhere, &expected()));
}

#[test]
#[cfg(target_endian = "little")]
fn neighbours_matter_where_they_are_not_as_expected() {
    let mut expected = expected();
    let address = crate::kernel::samples::neighbour("flannel.1", "192.168.5.2");
    let mac = crate::kernel::samples::mac(2);
    expected.neighbours.insert(address, mac);
    let (new, gone) = (libc::RTM_NEWNEIGH, libc::RTM_DELNEIGH);
    let (permanent, reachable, failed) = (0x80, 0x02, 0x20);
    for quiet in [
        row(2, new, permanent, 2, 2),
        row(2, new, reachable, 3, 3),
        row(2, gone, failed, 3, 3),
    ] {
        assert!(!matters(&quiet, &expected), "{quiet:?}");
    }
    for loud in [
        row(2, new, permanent, 3, 2),
        row(2, new, permanent, 3, 3),
        row(2, new, reachable, 2, 2),
        row(2, new, failed, 2, 2),
        row(2, gone, failed, 2, 2),
    ] {
        assert!(matters(&loud, &expected), "{loud:?}");
    }
}

#[test]
fn noise_does_not_matter() {
    let concerned = expected();
    let nexthop = |protocol| {
        let mut body = [0; 12];
        body[2] = protocol;
        notification(NEW_NEXTHOP, body)
    };
    for quiet in [
        vec![],
        neighbour(3),
        route(24, 12),
        route(32, 186),
        nexthop(11),
    ] {
        assert!(!matters(&quiet, &concerned), "{quiet:?}");
    }
    for loud in [
        row(2, libc::RTM_NEWNEIGH, 0x80, 2, 2),
        route(24, 96),
        route(24, 3),
        route(0, 12),
        nexthop(96),
        nexthop(4),
        notification(libc::RTM_NEWLINK, [0; 12]),
        notification(libc::RTM_DELADDR, [0; 12]),
    ] {
        assert!(matters(&loud, &concerned), "{loud:?}");
        let behind = [neighbour(3), loud].concat();
        assert!(matters(&behind, &concerned), "{behind:?}");
    }
}

#[test]
fn whatever_is_cut_off_is_read_without_panic() {
    let concerned = Expected::default();
    let all = [neighbour(3), route(24, 12)].concat();
    for end in 0..all.len() {
        let _ = matters(&all[..end], &concerned);
    }
    let mut endless = all;
    endless[..4].copy_from_slice(&0u32.to_ne_bytes());
    assert!(matters(&endless, &concerned));
}

/// Of the link of an index: its forwarding or, by another attribute, something else.
fn netconf(index: i32, attribute: u16) -> Vec<u8> {
    let mut body = vec![2, 0, 0, 0];
    for (kind, value) in [(1, index), (attribute, 1)] {
        body.extend(8_u16.to_ne_bytes());
        body.extend(u16::to_ne_bytes(kind));
        body.extend(value.to_ne_bytes());
    }
    let length = u32::try_from(16 + body.len()).unwrap();
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(NEW_NETCONF.to_ne_bytes());
    message.extend([0; 10]);
    message.extend(body);
    message
}

#[test]
fn whether_packets_pass_matters_on_the_links_that_they_have_to_pass_by() {
    let expected = expected();
    for attribute in [2, 3] {
        assert!(matters(&netconf(7, attribute), &expected));
        assert!(matters(&netconf(-1, attribute), &expected));
        assert!(!matters(&netconf(8, attribute), &expected));
        assert!(!matters(&netconf(-2, attribute), &expected));
        let nobodys = Expected::default();
        assert!(!matters(&netconf(-1, attribute), &nobodys));
    }
    assert!(!matters(&netconf(7, 5), &expected), "proxy_arp");
    assert!(matters(&netconf(7, 2)[..20], &expected), "cut short");
}
