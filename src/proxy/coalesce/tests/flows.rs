//! Many flows, long trains, and what belongs to no flow.

use super::*;

#[test]
fn trains_have_limits() {
    assert_eq!(joined(&datagrams(&[64; 130])), [64, 64, 2]);
    assert_eq!(joined(&stream(&[1; 130])), [64, 64, 2]);
    assert_eq!(joined(&stream(&[MSS; 60])), [45, 15], "65,535 bytes");
    assert_eq!(joined(&stream(&[32_741, 32_742])), [1, 1]);
    assert_eq!(
        joined(&stream(&[32_742, 32_741])),
        [2],
        "65,535 bytes to the byte"
    );
    assert_eq!(joined(&stream(&[32_742, 32_742])), [1, 1], "and one more");
    assert_eq!(joined(&datagrams(&[65_507, 1])), [1, 1]);
}

#[test]
fn flows_do_not_disturb_each_other() {
    let of_flow = |flow: u8| {
        stream(&[MSS; 8])
            .iter()
            .map(|packet| edited(packet, 21, |_| flow))
            .collect::<Vec<_>>()
    };
    let flows: Vec<_> = (0..8).map(of_flow).collect();
    let mixed: Vec<_> = (0..8)
        .flat_map(|at| flows.iter().map(move |flow| flow[at].clone()))
        .collect();
    assert_eq!(joined(&mixed), [8; 8]);
}

#[test]
fn more_flows_than_may_be_open_are_served() {
    let packets: Vec<_> = (0..3)
        .flat_map(|round| {
            (0..=255_u8).map(move |flow| edited(&stream(&[MSS; 3])[round], 21, |_| flow))
        })
        .collect();
    let trains = joined(&packets);
    assert_eq!(trains.iter().sum::<usize>(), 768);
}

#[test]
fn a_fragment_stays_behind_what_may_be_its_flow() {
    let mut packets = datagrams(&[64; 4]);
    packets.insert(2, fragment_of(&packets[0]));
    assert_eq!(joined(&packets), [2, 1, 2]);
    let mut others = stream(&[MSS; 4]);
    others.insert(2, fragment_of(&packets[0]));
    assert_eq!(joined(&others), [4, 1], "another protocol");
    let elsewhere = edited(&fragment_of(&packets[0]), 19, |byte| byte ^ 1);
    let mut packets = datagrams(&[64; 4]);
    packets.insert(2, elsewhere);
    assert_eq!(joined(&packets), [4, 1], "another host");
}

#[test]
fn what_has_no_flow_passes() {
    let mut packets = stream(&[MSS; 4]);
    packets.insert(1, icmp());
    packets.insert(3, icmp());
    assert_eq!(joined(&packets), [4, 1, 1]);
}
