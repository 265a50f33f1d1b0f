//! Expressions that come.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::bytes::{Reader, text};
use super::message::DATA_VALUE;
use super::numbers::*;
use crate::kernel::firewall::{Is, Match, Verdict};

/// An expression by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expression<'a> {
    /// Base, offset, length, register.
    Load(u32, u32, u32, u32),
    Meta(u32),
    Mask([u8; 4]),
    Compare(Is, &'a [u8]),
    Lookup(Is, &'a str),
    Counter,
    Verdict(Verdict),
    Jump(&'a str),
    /// As iptables writes it, by a match of its own; so do ours come back from iptables-restore.
    Comment(&'a str),
    Other,
}

impl<'a> Expression<'a> {
    pub(super) fn read(expression: Reader<'a>) -> Self {
        let data = expression.nested(is::DATA).unwrap_or(Reader(&[]));
        let name = expression.text(is::NAME).unwrap_or_default();
        Self::known(name, data).unwrap_or(Self::Other)
    }

    fn known(name: &str, data: Reader<'a>) -> Option<Self> {
        let first = |register: u16| (data.number(register)? == FIRST).then_some(());
        Some(match name {
            "payload" => Self::Load(
                data.number(is::PAYLOAD_BASE)?,
                data.number(is::PAYLOAD_OFFSET)?,
                data.number(is::PAYLOAD_LENGTH)?,
                data.number(is::PAYLOAD_REGISTER)?,
            ),
            "meta" => {
                first(is::META_REGISTER)?;
                Self::Meta(data.number(is::META_KEY)?)
            }
            "bitwise" => {
                first(is::BITWISE_SOURCE)?;
                first(is::BITWISE_TARGET)?;
                let value = |kind| data.nested(kind)?.value(DATA_VALUE)?.try_into().ok();
                let plain = data.number(is::BITWISE_OPERATION).unwrap_or(0) == 0
                    && value(is::BITWISE_XOR)? == [0; 4];
                Self::Mask(value(is::BITWISE_MASK).filter(|_| plain)?)
            }
            "cmp" => {
                first(is::COMPARE_REGISTER)?;
                let with = data.nested(is::COMPARE_DATA)?.value(DATA_VALUE)?;
                Self::Compare(is(data.number(is::COMPARE_OPERATION)?)?, with)
            }
            "lookup" => {
                first(is::LOOKUP_REGISTER)?;
                let is = is(data.number(is::LOOKUP_FLAGS).unwrap_or(0))?;
                Self::Lookup(is, data.text(is::LOOKUP_SET)?)
            }
            "counter" => Self::Counter,
            "masq" if data.number(is::MASQ_FLAGS) == Some(FULLY_RANDOM) => {
                Self::Verdict(Verdict::Masquerade)
            }
            "immediate" => Self::immediate(data)?,
            "match" if data.text(is::XT_NAME) == Some("comment") => {
                Self::Comment(text(data.value(is::XT_INFO)?)?)
            }
            _ => return None,
        })
    }

    fn immediate(data: Reader<'a>) -> Option<Self> {
        if data.number(is::IMMEDIATE_REGISTER)? != VERDICT {
            return None;
        }
        let verdict = data.nested(is::IMMEDIATE_DATA)?.nested(is::DATA_VERDICT)?;
        let code = verdict.value(is::VERDICT_CODE)?.try_into().ok()?;
        Some(match i32::from_be_bytes(code) {
            ACCEPT => Self::Verdict(Verdict::Accept),
            DROP => Self::Verdict(Verdict::Drop),
            RETURN => Self::Verdict(Verdict::Return),
            JUMP | GOTO => Self::Jump(verdict.text(is::VERDICT_CHAIN)?),
            _ => return None,
        })
    }
}

/// What the first expressions are together, and how many they are.
pub(super) fn read_match(rest: &[Expression<'_>]) -> Option<(Match, usize)> {
    use Expression::{Compare, Load, Lookup, Mask, Meta};
    Some(match *rest {
        [
            Meta(PROTOCOL_KEY),
            Compare(Is::In, [UDP]),
            Load(TRANSPORT, UDP_DESTINATION, 2, FIRST),
            Compare(Is::In, [high, low]),
            ..,
        ] => (Match::UdpPort(u16::from_be_bytes([*high, *low])), 4),
        [Meta(MARK_KEY), Mask(mask), Compare(Is::In, value), ..] => {
            let mask = u32::from_ne_bytes(mask);
            let value = u32::from_ne_bytes(value.try_into().ok()?);
            (Match::Mark { mask, value }, 3)
        }
        [
            Load(NETWORK, SOURCE, 4, FIRST),
            Load(TRANSPORT, offset, 4, SECOND),
            Lookup(is, set),
            ..,
        ] => {
            let set = set.to_owned();
            (Match::Origin { is, offset, set }, 3)
        }
        [Load(NETWORK, SOURCE, 4, FIRST), Lookup(is, set), ..] => {
            (Match::SourceIn(is, set.to_owned()), 2)
        }
        [
            Load(TRANSPORT, offset, 2, FIRST),
            Compare(Is::In, [high, low]),
            ..,
        ] => {
            let value = u16::from_be_bytes([*high, *low]);
            (Match::TunnelHalf { offset, value }, 2)
        }
        [
            Load(base, offset, 4, FIRST),
            Mask(mask),
            Compare(is, address),
            ..,
        ] => (network(base, offset, is, masked(mask, address)?)?, 3),
        [Load(base, offset, length, FIRST), Compare(is, address), ..] => {
            let is_short = base == NETWORK && address.len() < 4;
            let is_whole = address.len() == 4;
            if usize::try_from(length) != Ok(address.len()) || !(is_short || is_whole) {
                return None;
            }
            (network(base, offset, is, short(address)?)?, 2)
        }
        _ => return None,
    })
}

fn network(base: u32, offset: u32, is: Is, net: Ipv4Net) -> Option<Match> {
    match (base, offset) {
        (NETWORK, SOURCE) => Some(Match::Source(is, net)),
        (NETWORK, DESTINATION) => Some(Match::Destination(is, net)),
        (TRANSPORT, offset) => Some(Match::TunnelAddress { is, offset, net }),
        _ => None,
    }
}

fn masked(mask: [u8; 4], address: &[u8]) -> Option<Ipv4Net> {
    let address = <[u8; 4]>::try_from(address).ok()?;
    Ipv4Net::with_netmask(address.into(), mask.into()).ok()
}

fn short(address: &[u8]) -> Option<Ipv4Net> {
    let mut octets = [0; 4];
    octets.get_mut(..address.len())?.copy_from_slice(address);
    let length = u8::try_from(address.len() * 8).ok()?;
    Ipv4Net::new(Ipv4Addr::from(octets), length).ok()
}
