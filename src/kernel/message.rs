//! Messages of rtnetlink as bytes. Whoever reads one parses it, so that a list of thousands costs
//! no more than what is kept of it; and `netlink-packet-route` knows no nexthop objects.

use std::net::Ipv4Addr;

use rtnetlink::packet_core::{
    DecodeError, NetlinkDeserializable, NetlinkHeader, NetlinkPayload, NetlinkSerializable,
    ParseableParametrized,
};
use rtnetlink::packet_route::RouteNetlinkMessage;

use super::state::PROTOCOL;

/// `RTM_NEWNEXTHOP`, `RTM_DELNEXTHOP`, `RTM_GETNEXTHOP` (`linux/rtnetlink.h`).
pub(super) const NEW_NEXTHOP: u16 = 104;
pub(super) const DEL_NEXTHOP: u16 = 105;
const GET_NEXTHOP: u16 = 106;

/// `linux/nexthop.h`.
const NHA_ID: u16 = 1;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
/// What makes an object another thing than one gateway on a link: members of a group and its
/// kind, a blackhole, an encapsulation, vxlan's own nexthops, a resilient group.
const STRANGE: [u16; 7] = [2, 3, 4, 7, 8, 11, 12];

/// `struct nhmsg`: family, scope, protocol, a reserved byte, and flags in four.
const NEXTHOP_HEADER: usize = 8;
const ONLINK: u32 = 4;

/// A message without its netlink header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its number, `RTM_…`.
    pub kind: u16,
    /// The family's header and the attributes.
    pub body: Vec<u8>,
}

/// A nexthop object as the kernel shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NexthopRow {
    pub(super) id: u32,
    pub(super) protocol: u8,
    /// `None` for what is not just one IPv4 gateway on a link.
    pub(super) way: Option<NexthopWay>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NexthopWay {
    pub(super) index: u32,
    pub(super) gateway: Ipv4Addr,
    pub(super) onlink: bool,
}

impl Message {
    /// What the message says; `None` where it makes no sense.
    #[must_use]
    pub fn parsed(&self) -> Option<RouteNetlinkMessage> {
        RouteNetlinkMessage::parse_with_param(&self.body, self.kind).ok()
    }

    /// Asks for all nexthop objects of all families.
    pub(super) fn list_nexthops() -> Self {
        Self {
            kind: GET_NEXTHOP,
            body: vec![0; NEXTHOP_HEADER],
        }
    }

    pub(super) fn new_nexthop(id: u32, way: NexthopWay) -> Self {
        let flags = if way.onlink { ONLINK } else { 0 };
        let mut body = vec![AF_INET, 0, PROTOCOL, 0];
        body.extend(flags.to_ne_bytes());
        attribute(&mut body, NHA_ID, id.to_ne_bytes());
        attribute(&mut body, NHA_OIF, way.index.to_ne_bytes());
        attribute(&mut body, NHA_GATEWAY, way.gateway.octets());
        let kind = NEW_NEXTHOP;
        Self { kind, body }
    }

    pub(super) fn del_nexthop(id: u32) -> Self {
        let mut body = vec![0; NEXTHOP_HEADER];
        attribute(&mut body, NHA_ID, id.to_ne_bytes());
        let kind = DEL_NEXTHOP;
        Self { kind, body }
    }

    /// The nexthop object that the message shows.
    pub(super) fn nexthop(&self) -> Option<NexthopRow> {
        if self.kind != NEW_NEXTHOP {
            return None;
        }
        let [family, _, protocol, _, flags @ ..] = *self.body.first_chunk::<NEXTHOP_HEADER>()?;
        let (mut id, mut index, mut gateway) = (None, None, None);
        let mut plain = family == AF_INET;
        let mut rest = self.body.get(NEXTHOP_HEADER..)?;
        while let [a, b, c, d, ..] = *rest {
            let length = usize::from(u16::from_ne_bytes([a, b]));
            let value = rest.get(4..length)?;
            let four = || <[u8; 4]>::try_from(value).ok();
            match u16::from_ne_bytes([c, d]) & ATTRIBUTE_KIND {
                NHA_ID => id = four().map(u32::from_ne_bytes),
                NHA_OIF => index = four().map(u32::from_ne_bytes),
                NHA_GATEWAY => gateway = four().map(Ipv4Addr::from),
                kind => plain &= !STRANGE.contains(&kind),
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        let way = (index.zip(gateway).filter(|_| plain)).map(|(index, gateway)| NexthopWay {
            index,
            gateway,
            onlink: u32::from_ne_bytes(flags) & ONLINK != 0,
        });
        Some(NexthopRow {
            id: id?,
            protocol,
            way,
        })
    }

    /// The protocol of a route, without parsing it (`struct rtmsg`).
    pub(super) fn route_protocol(&self) -> Option<u8> {
        self.body.get(5).copied()
    }
}

const AF_INET: u8 = 2;

/// The upper two bits are flags (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const ATTRIBUTE_KIND: u16 = 0x3fff;

/// All of ours have four bytes, so that none needs padding.
fn attribute(body: &mut Vec<u8>, kind: u16, value: [u8; 4]) {
    body.extend(8u16.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
}

impl From<RouteNetlinkMessage> for Message {
    fn from(message: RouteNetlinkMessage) -> Self {
        let mut body = vec![0; message.buffer_len()];
        message.serialize(&mut body);
        let kind = message.message_type();
        Self { kind, body }
    }
}

impl From<Message> for NetlinkPayload<Message> {
    fn from(message: Message) -> Self {
        Self::InnerMessage(message)
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.body.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        if let Some(to) = buffer.get_mut(..self.body.len()) {
            to.copy_from_slice(&self.body);
        }
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self {
            kind: header.message_type,
            body: payload.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests;
