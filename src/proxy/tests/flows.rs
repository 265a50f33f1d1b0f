//! What the outside sees of a flow.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;

use nix::sys::socket::{self, MsgFlags, SockProtocol, setsockopt, sockopt};

use super::super::Tuning;
use super::bulk::connection;
use super::lab::{pair, raw_socket};

/// A device with several queues sends a flow through the queue that the other direction last came
/// in by. If that changed the port, the far side would answer by another queue in turn, and the
/// flow would never come to rest.
#[test]
fn a_flow_settles_on_one_port() {
    let Some((left, right)) = pair(Tuning::default()) else {
        return;
    };
    let (_here, _there) = (left.connect(&right), right.connect(&left));
    let capture = right.namespace.run(|| {
        let socket = raw_socket(SockProtocol::Udp);
        setsockopt(&socket, sockopt::RcvBufForce, &(32 << 20)).unwrap();
        socket
    });
    for _ in 0..16 {
        let (mut near, mut far) = connection(&left, &right);
        near.set_nodelay(true).unwrap();
        far.set_nodelay(true).unwrap();
        for turn in 0..32 {
            let mut byte = [turn];
            near.write_all(&byte).unwrap();
            far.read_exact(&mut byte).unwrap();
            far.write_all(&byte).unwrap();
            near.read_exact(&mut byte).unwrap();
        }
    }
    let mut ports: BTreeMap<[u8; 2], Vec<[u8; 2]>> = BTreeMap::new();
    let mut buffer = [0; 4096];
    let flags = MsgFlags::MSG_DONTWAIT;
    while let Ok(length) = socket::recv(capture.as_raw_fd(), &mut buffer, flags) {
        let outer = &buffer[20..length];
        let inner = &outer[8..];
        if buffer[12..16] == left.public.octets() && inner[9] == 6 {
            let used = ports.entry([inner[20], inner[21]]).or_default();
            used.push([outer[0], outer[1]]);
        }
    }
    assert_eq!(ports.len(), 16, "flows");
    let changes: Vec<usize> = ports
        .values_mut()
        .map(|used| {
            used.dedup();
            used.len() - 1
        })
        .collect();
    assert!(changes.iter().all(|count| *count == 0), "{changes:?}");
}
