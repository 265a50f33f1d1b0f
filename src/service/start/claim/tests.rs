use super::*;

/// A socket as the kernel tells of it.
fn socket_named(name: &[u8], kind: u8, user: u32) -> Vec<u8> {
    let mut body = vec![AF_UNIX, kind, 7, 0];
    body.extend([0; 12]);
    for (attribute, value) in [(0_u16, name), (7, &user.to_ne_bytes())] {
        let length = u16::try_from(4 + value.len()).unwrap();
        body.extend(length.to_ne_bytes());
        body.extend(attribute.to_ne_bytes());
        body.extend(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    message(20, &body)
}

fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + body.len()).unwrap();
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend([0; 10]);
    message.extend(body);
    message
}

#[test]
fn the_lock_is_told_from_all_other_sockets() {
    let others = [
        socket_named(b"\0flannel-rs", 1, 1),
        socket_named(b"\0flannel-rs2", DATAGRAM, 2),
        socket_named(b"flannel-rs", DATAGRAM, 3),
    ];
    let others = others.concat();
    assert_eq!(find(&others).unwrap(), Part::Others);
    let lock = socket_named(b"\0flannel-rs", DATAGRAM, 65534);
    let with_lock = [others.clone(), lock].concat();
    assert_eq!(find(&with_lock).unwrap(), Part::Holder(65534));
    let end = [others, message(3, &[0; 4])].concat();
    assert_eq!(find(&end).unwrap(), Part::End);
    let error = find(&message(2, &(-2_i32).to_ne_bytes())).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_cut_answer_is_no_panic() {
    let whole = socket_named(b"\0flannel-rs", DATAGRAM, 7);
    for length in 0..whole.len() {
        assert_ne!(find(&whole[..length]).ok(), Some(Part::Holder(7)));
    }
    for at in 0..whole.len() {
        for byte in [0, 1, 0xff] {
            let mut bent = whole.clone();
            bent[at] = byte;
            let _ = find(&bent);
        }
    }
}

#[test]
fn the_kernel_knows_whose_sockets_there_are() {
    // whether somebody has the lock here or not, there is an answer
    holder().unwrap();
}
