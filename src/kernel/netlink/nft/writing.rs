//! Expressions that are sent.
//!
//! They are those that `nft` makes of the same words, so that it shows these words: a network of
//! whole bytes is a short comparison, any other is all four bytes under a mask.

use ipnet::Ipv4Net;

use super::bytes::Writer;
use super::message::{DATA_VALUE, ITEM};
use super::numbers::*;
use crate::kernel::firewall::{Is, Match, Verdict};

/// Expressions in the making.
#[derive(Default)]
pub(super) struct List(pub(super) Writer);

impl List {
    pub(super) fn add(&mut self, name: &str, data: &Writer) {
        let expression = Writer::default()
            .text(is::NAME, name)
            .nested(is::DATA, data);
        self.0 = std::mem::take(&mut self.0).nested(ITEM, &expression);
    }

    pub(super) fn part(&mut self, part: &Match) {
        match part {
            Match::Source(is, net) => self.net(*is, *net, (NETWORK, SOURCE)),
            Match::Destination(is, net) => self.net(*is, *net, (NETWORK, DESTINATION)),
            Match::SourceIn(is, set) => {
                self.load((NETWORK, SOURCE, 4), FIRST);
                self.lookup(*is, set);
            }
            Match::Mark { mask, value } => {
                self.meta(MARK_KEY);
                self.mask(&mask.to_ne_bytes());
                self.compare(Is::In, &value.to_ne_bytes());
            }
            Match::UdpPort(port) => {
                self.meta(PROTOCOL_KEY);
                self.compare(Is::In, &[UDP]);
                self.load((TRANSPORT, UDP_DESTINATION, 2), FIRST);
                self.compare(Is::In, &port.to_be_bytes());
            }
            Match::TunnelHalf { offset, value } => {
                self.load((TRANSPORT, *offset, 2), FIRST);
                self.compare(Is::In, &value.to_be_bytes());
            }
            Match::TunnelAddress { is, offset, net } => {
                self.masked(*is, *net, (TRANSPORT, *offset));
            }
            Match::Origin { is, offset, set } => {
                self.load((NETWORK, SOURCE, 4), FIRST);
                self.load((TRANSPORT, *offset, 4), SECOND);
                self.lookup(*is, set);
            }
        }
    }

    fn net(&mut self, is: Is, net: Ipv4Net, (base, offset): (u32, u32)) {
        let bytes = net.prefix_len() / 8;
        if !net.prefix_len().is_multiple_of(8) || bytes == 0 {
            return self.masked(is, net, (base, offset));
        }
        self.load((base, offset, bytes.into()), FIRST);
        let address = net.network().octets();
        self.compare(is, address.get(..bytes.into()).unwrap_or_default());
    }

    fn masked(&mut self, is: Is, net: Ipv4Net, (base, offset): (u32, u32)) {
        self.load((base, offset, 4), FIRST);
        if net.prefix_len() < 32 {
            self.mask(&net.netmask().octets());
        }
        self.compare(is, &net.network().octets());
    }

    fn load(&mut self, (base, offset, length): (u32, u32, u32), register: u32) {
        let data = Writer::default()
            .number(is::PAYLOAD_REGISTER, register)
            .number(is::PAYLOAD_BASE, base)
            .number(is::PAYLOAD_OFFSET, offset)
            .number(is::PAYLOAD_LENGTH, length);
        self.add("payload", &data);
    }

    fn meta(&mut self, key: u32) {
        let data = Writer::default()
            .number(is::META_REGISTER, FIRST)
            .number(is::META_KEY, key);
        self.add("meta", &data);
    }

    fn mask(&mut self, mask: &[u8; 4]) {
        let value = |value: &[u8]| Writer::default().value(DATA_VALUE, value);
        let data = Writer::default()
            .number(is::BITWISE_SOURCE, FIRST)
            .number(is::BITWISE_TARGET, FIRST)
            .number(is::BITWISE_LENGTH, 4)
            .nested(is::BITWISE_MASK, &value(mask))
            .nested(is::BITWISE_XOR, &value(&[0; 4]));
        self.add("bitwise", &data);
    }

    fn compare(&mut self, is: Is, with: &[u8]) {
        let data = Writer::default()
            .number(is::COMPARE_REGISTER, FIRST)
            .number(is::COMPARE_OPERATION, inverted(is))
            .nested(is::COMPARE_DATA, &Writer::default().value(DATA_VALUE, with));
        self.add("cmp", &data);
    }

    fn lookup(&mut self, is: Is, set: &str) {
        let mut data = Writer::default()
            .text(is::LOOKUP_SET, set)
            .number(is::LOOKUP_REGISTER, FIRST);
        if is == Is::NotIn {
            data = data.number(is::LOOKUP_FLAGS, inverted(is));
        }
        self.add("lookup", &data);
    }

    pub(super) fn verdict(&mut self, verdict: Verdict) {
        let code = match verdict {
            Verdict::Accept => ACCEPT,
            Verdict::Drop => DROP,
            Verdict::Return => RETURN,
            Verdict::Masquerade => {
                let data = Writer::default().number(is::MASQ_FLAGS, FULLY_RANDOM);
                return self.add("masq", &data);
            }
            Verdict::Unknown => return,
        };
        let code = Writer::default().value(is::VERDICT_CODE, &code.to_be_bytes());
        let data = Writer::default().nested(is::DATA_VERDICT, &code);
        let data = Writer::default()
            .number(is::IMMEDIATE_REGISTER, VERDICT)
            .nested(is::IMMEDIATE_DATA, &data);
        self.add("immediate", &data);
    }
}
