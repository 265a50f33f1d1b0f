//! Without a kernel.

use std::net::Ipv4Addr;

use super::bytes::Reader;
use super::*;
use crate::kernel::firewall::{Chain, Hook, Is, Match, Rule, Verdict};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn no_peer() -> Rule {
    Rule {
        matches: vec![
            Match::UdpPort(8472),
            Match::SourceIn(Is::NotIn, "peers".to_owned()),
        ],
        counted: true,
        verdict: Verdict::Drop,
        comment: "no peer".to_owned(),
    }
}

fn sample() -> Table {
    let host = Ipv4Addr::new(192, 168, 5, 2);
    let origin = (host, "100.96.2.0/24".parse().unwrap());
    let chain = Chain {
        hook: Hook::Input,
        priority: -10,
        rules: vec![no_peer()],
    };
    Table {
        sets: [("origins".to_owned(), Set::Origins([origin].into()))].into(),
        chains: [("input".to_owned(), chain)].into(),
    }
}

#[test]
#[cfg(target_endian = "little")]
fn messages_are_what_the_kernel_documents() {
    let requests = table::replace(&sample());
    let kinds: Vec<u16> = requests.iter().map(Request::number).collect();
    let numbers = [0xa00, 0xa02, 0xa00, 0xa09, 0xa0c, 0xa03, 0xa06];
    assert_eq!(kinds, numbers);
    let bodies: Vec<String> = requests.iter().map(|r| hex(&r.body())).collect();
    let name = "020000000f000100666c616e6e656c2d72730000";
    assert_eq!(bodies[..3], [name; 3]);
    let set = "020000000f000100666c616e6e656c2d727300000c0002006f726967696e730008000a00000000010800\
         03000000008408000400000001c70800050000000008200009801c0002800c0001800800010000000004\
         0c0001800800010000000004";
    let elements = "020000000f000100666c616e6e656c2d727300000c0002006f726967696e730028000380240001801000\
         01800c000100c0a805026460020010000a800c000100c0a80502646002ff";
    let chain = "020000000f000100666c616e6e656c2d727300000a000300696e70757400000014000480080001000000\
         000108000200fffffff608000500000000010b00070066696c7465720000";
    let rule = "020000000f000100666c616e6e656c2d727300000a000200696e7075740000005c010480240001800900\
         01006d6574610000000014000280080001000000000108000200000000102c00018008000100636d7000\
         20000280080001000000000108000200000000000c0003800500010011000000340001800c0001007061\
         796c6f616400240002800800010000000001080002000000000208000300000000020800040000000002\
         2c00018008000100636d700020000280080001000000000108000200000000000c000380060001002118\
         0000340001800c0001007061796c6f616400240002800800010000000001080002000000000108000300\
         0000000c0800040000000004300001800b0001006c6f6f6b75700000200002800a000100706565727300\
         000008000200000000010800050000000001140001800c000100636f756e746572000400028030000180\
         0e000100696d6d6564696174650000001c0002800800010000000000100002800c000280080001000000\
         00000e00070000086e6f2070656572000000";
    assert_eq!(bodies[3..], [set, elements, chain, rule]);
}

/// As the kernel shows it: with a handle.
fn shown(rule: &Rule) -> Vec<u8> {
    let mut request = rule::new("flannel-rs", "input", rule);
    let handle = 7u64.to_be_bytes();
    request.attributes = request.attributes.value(row::HANDLE, &handle);
    request.body()
}

fn read(body: &[u8]) -> Option<Row> {
    Row::read(&Answer::read(body)?)
}

#[test]
fn what_is_cut_off_or_garbled_is_read_without_panic() {
    let uncounted = Rule {
        counted: false,
        ..no_peer()
    };
    let body = shown(&uncounted);
    let row = read(&body).unwrap();
    assert_eq!((row.rule(), row.handle), (uncounted, 7));
    for end in 0..body.len() {
        let row = read(&body[..end]);
        assert!(row.is_none(), "the handle comes last: {row:?}");
    }
    let requests = table::replace(&sample());
    for body in requests.iter().map(Request::body).chain([body]) {
        for at in 0..body.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut garbled = body.clone();
                garbled[at] = value;
                garbled.truncate(body.len() - at % 5);
                let Some(answer) = Answer::read(&garbled) else {
                    continue;
                };
                let _ = Row::read(&answer);
                let _ = (table::size(&answer), table::base(&answer));
                let _ = (table::read_chain(&answer), table::read_set(&answer));
                let mut members = Set::Origins(BTreeSet::new());
                let _ = table::read_elements(&answer, &mut members);
                for kind in 0xa00..0xa10 {
                    let _ = notice::matters(kind, &garbled);
                }
            }
        }
    }
}

#[test]
fn origins_are_networks() {
    let read = |first: [u8; 4], last: [u8; 4]| {
        let key = |address: [u8; 4]| [&[10, 0, 0, 1], &address[..]].concat();
        let value = |address| Writer::default().value(message::DATA_VALUE, &key(address));
        let item = Writer::default()
            .nested(element::KEY, &value(first))
            .nested(element::KEY_END, &value(last));
        let list = Writer::default().nested(message::ITEM, &item);
        let list = Writer::default().nested(element::LIST, &list);
        let mut set = Set::Origins(BTreeSet::new());
        let answer = Answer::read(&[&[2, 0, 0, 0], &list.0[..]].concat()).unwrap();
        table::read_elements(&answer, &mut set)?;
        Some(set)
    };
    let host = Ipv4Addr::new(10, 0, 0, 1);
    for (first, last, net) in [
        ([100, 96, 1, 0], [100, 96, 1, 255], Some("100.96.1.0/24")),
        ([100, 96, 1, 7], [100, 96, 1, 7], Some("100.96.1.7/32")),
        ([0, 0, 0, 0], [255, 255, 255, 255], Some("0.0.0.0/0")),
        ([100, 96, 1, 0], [100, 96, 1, 254], None),
        ([100, 96, 1, 0], [100, 96, 2, 255], None),
        ([100, 96, 1, 9], [100, 96, 1, 7], None),
    ] {
        let net = net.map(|net| Set::Origins([(host, net.parse().unwrap())].into()));
        assert_eq!(read(first, last), net, "{first:?} {last:?}");
    }
}

#[test]
fn long_comments_are_cut_where_a_character_ends() {
    let long = Rule {
        comment: "\u{e4}".repeat(100),
        ..no_peer()
    };
    let row = read(&shown(&long)).unwrap();
    assert_eq!(row.rule().comment, "\u{e4}".repeat(63));
}

#[test]
fn attributes_end_at_the_first_that_is_cut_off() {
    let whole = Writer::default().text(1, "one").number(2, 2);
    let kinds = |bytes| {
        Reader(bytes)
            .each()
            .map(|(kind, _)| kind)
            .collect::<Vec<_>>()
    };
    assert_eq!(kinds(&whole.0), [1, 2]);
    assert_eq!(kinds(&whole.0[..whole.0.len() - 1]), [1]);
    assert_eq!(kinds(&[3, 0, 1, 0]), [0u16; 0]);
}
