//! What the kernel says about a device before anybody attaches to it.

use std::io;

use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, Nla};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoTun, LinkAttribute, LinkInfo, LinkMessage,
};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};

/// What is told about a device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) is_tun: bool,
    /// It may have several queues, even if it has one.
    pub(super) has_queues: bool,
    /// How many files are attached to it. Told only of those that may have several queues, since
    /// Linux 4.16; otherwise 0.
    pub(super) holders: u32,
}

/// The shape of the device of that name, if there is one in our network namespace.
pub(super) fn of(name: &str) -> io::Result<Option<Shape>> {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetLink(link));
    request.header.flags = NLM_F_REQUEST;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);

    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer);
    let payload = answer.map_err(io::Error::other)?.payload;
    if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) = payload {
        return Ok(Some(Shape::read(&link)));
    }
    let NetlinkPayload::Error(error) = payload else {
        return Err(io::Error::other("the kernel tells of no link"));
    };
    match error.raw_code() == -libc::ENODEV {
        true => Ok(None),
        false => Err(error.to_io()),
    }
}

impl Shape {
    fn read(link: &LinkMessage) -> Self {
        let mut shape = Self::default();
        for attribute in &link.attributes {
            let LinkAttribute::LinkInfo(infos) = attribute else {
                continue;
            };
            for info in infos {
                if let LinkInfo::Kind(kind) = info {
                    shape.is_tun = *kind == InfoKind::Tun;
                } else if let LinkInfo::Data(InfoData::Tun(facts)) = info {
                    facts.iter().for_each(|fact| shape.learn(fact));
                }
            }
        }
        shape
    }

    fn learn(&mut self, fact: &InfoTun) {
        let InfoTun::Other(fact) = fact else { return };
        let mut value = [0; 4];
        let length = fact.value_len();
        if length > value.len() {
            return;
        }
        fact.emit_value(&mut value[..length]);
        match fact.kind() {
            TYPE => self.is_tun &= i32::from(value[0]) != libc::IFF_TAP,
            MULTI_QUEUE => self.has_queues = value[0] != 0,
            QUEUES | DISABLED_QUEUES => self.holders += u32::from_ne_bytes(value),
            _ => {}
        }
    }
}

/// `IFLA_TUN_*`, linux/if_link.h.
const TYPE: u16 = 3;
const MULTI_QUEUE: u16 = 7;
const QUEUES: u16 = 8;
const DISABLED_QUEUES: u16 = 9;
