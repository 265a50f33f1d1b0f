use rtnetlink::sys::Socket;

use super::*;

impl Hints {
    pub(in crate::kernel::netlink) fn socket_for_test(&mut self) -> &Socket {
        self.socket.as_ref().unwrap().0.socket_ref()
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

#[test]
fn noise_does_not_matter() {
    let concerned = BTreeSet::from([7]);
    for quiet in [vec![], neighbour(3), route(24, 12), route(32, 186)] {
        assert!(!matters(&quiet, &concerned), "{quiet:?}");
    }
    for loud in [
        neighbour(7),
        route(24, 96),
        route(24, 3),
        route(0, 12),
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
    let concerned = BTreeSet::new();
    let all = [neighbour(3), route(24, 12)].concat();
    for end in 0..all.len() {
        let _ = matters(&all[..end], &concerned);
    }
    let mut endless = all;
    endless[..4].copy_from_slice(&0u32.to_ne_bytes());
    assert!(matters(&endless, &concerned));
}
