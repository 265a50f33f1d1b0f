//! Packets as hosts send them, with checksums by another way than the data plane's.

/// A packet of one flow, with nothing but zeros in it.
fn packet(protocol: u8, transport: usize, payload: usize, id: u16) -> Vec<u8> {
    let mut bytes = vec![0; 20 + transport + payload];
    bytes[0] = 0x45;
    bytes[4..6].copy_from_slice(&id.to_be_bytes());
    bytes[6] = 0x40;
    bytes[8] = 63;
    bytes[9] = protocol;
    bytes[12..20].copy_from_slice(&[10, 1, 1, 2, 10, 1, 2, 3]);
    bytes[20..24].copy_from_slice(&[0x9c, 0x40, 0x14, 0x51]);
    bytes
}

/// A segment with an acknowledgement and timestamps.
pub(super) fn tcp(sequence: u32, id: u16, payload: usize) -> Vec<u8> {
    let mut bytes = packet(6, 32, payload, id);
    bytes[24..28].copy_from_slice(&sequence.to_be_bytes());
    bytes[28..32].copy_from_slice(&77_u32.to_be_bytes());
    bytes[32..36].copy_from_slice(&[0x80, 0x10, 0x01, 0xf6]);
    bytes[40..52].copy_from_slice(&[1, 1, 8, 10, 0, 0, 1, 0, 0, 0, 2, 0]);
    fill(&mut bytes[52..], id);
    seal(&mut bytes);
    bytes
}

/// A segment that only acknowledges.
pub(super) fn ack(id: u16) -> Vec<u8> {
    tcp(1000, id, 0)
}

pub(super) fn udp(id: u16, payload: usize) -> Vec<u8> {
    let mut bytes = packet(17, 8, payload, id);
    fill(&mut bytes[28..], id);
    seal(&mut bytes);
    bytes
}

/// Something else for each packet, so that a payload in the wrong place shows; two zeros first.
fn fill(payload: &mut [u8], id: u16) {
    for (at, byte) in payload.iter_mut().enumerate().skip(2) {
        *byte = (usize::from(id) + at).to_le_bytes()[0];
    }
}

/// An echo request.
pub(super) fn icmp() -> Vec<u8> {
    let mut bytes = packet(1, 8, 56, 1);
    bytes[20..24].copy_from_slice(&[8, 0, 0xf7, 0xff]);
    seal(&mut bytes);
    bytes
}

/// The same with one byte changed and right lengths and checksums.
pub(super) fn edited(packet: &[u8], at: usize, change: impl Fn(u8) -> u8) -> Vec<u8> {
    let mut bytes = packet.to_vec();
    bytes[at] = change(bytes[at]);
    seal(&mut bytes);
    bytes
}

/// The same with one byte changed, which makes a checksum wrong.
pub(super) fn patched(packet: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = packet.to_vec();
    bytes[at] ^= 0x10;
    bytes
}

/// The same with IPv4 options, whole words of them.
pub(super) fn with_options(packet: &[u8], options: &[u8]) -> Vec<u8> {
    let mut bytes = packet.to_vec();
    bytes.splice(20..20, options.iter().copied());
    bytes[0] += u8::try_from(options.len() / 4).unwrap();
    seal(&mut bytes);
    bytes
}

/// A later fragment of the same datagram, in which something like ports can be read.
pub(super) fn fragment_of(packet: &[u8]) -> Vec<u8> {
    let mut bytes = packet.to_vec();
    bytes[6..8].copy_from_slice(&[0x20, 0x08]);
    seal(&mut bytes);
    bytes
}

/// Makes lengths and checksums right.
pub(in crate::proxy::coalesce) fn seal(bytes: &mut [u8]) {
    let total = u16::try_from(bytes.len()).unwrap();
    bytes[2..4].copy_from_slice(&total.to_be_bytes());
    let internet = usize::from(bytes[0] & 0x0f) * 4;
    let mut pseudo = bytes[12..20].to_vec();
    pseudo.extend_from_slice(&[0, bytes[9]]);
    let (header, transport) = bytes.split_at_mut(internet);
    header[10..12].fill(0);
    let sum = checksum(header, &[]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    let length = u16::try_from(transport.len()).unwrap().to_be_bytes();
    pseudo.extend_from_slice(&length);
    match header[9] {
        6 => {
            transport[16..18].fill(0);
            let sum = checksum(&pseudo, transport);
            transport[16..18].copy_from_slice(&sum.to_be_bytes());
        }
        17 => {
            transport[4..6].copy_from_slice(&length);
            transport[6..8].fill(0);
            let sum = match checksum(&pseudo, transport) {
                0 => 0xffff,
                sum => sum,
            };
            transport[6..8].copy_from_slice(&sum.to_be_bytes());
        }
        _ => {}
    }
}

/// The complement of the sum of both (RFC 1071); `one` has an even length.
pub(super) fn checksum(one: &[u8], other: &[u8]) -> u16 {
    let words = one
        .chunks(2)
        .chain(other.chunks(2))
        .map(|pair| u64::from(pair[0]) * 256 + u64::from(*pair.get(1).unwrap_or(&0)));
    let sum = match words.sum::<u64>() {
        0 => 0,
        sum => (sum - 1) % 0xffff + 1,
    };
    !u16::try_from(sum).unwrap()
}
