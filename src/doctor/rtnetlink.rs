//! The kernel's links, addresses and routes, asked one question at a time and waited for: in the
//! network namespace of the thread that opened the socket.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's messages and attributes have no end"
)]

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, setsockopt,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::{AddressFamily as Family, RouteNetlinkMessage as Message};

use ipnet::Ipv4Net;

use crate::mac::Mac;

/// A socket to the kernel.
#[derive(Debug)]
pub(super) struct Rtnetlink {
    socket: OwnedFd,
    sequence: u32,
}

/// Where the kernel would send a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hop {
    /// The index of the link.
    pub(super) link: u32,
    pub(super) gateway: Option<Ipv4Addr>,
    /// The address that the host itself would send from.
    pub(super) source: Option<Ipv4Addr>,
}

/// A pair of veth devices: one end a port of a bridge here, one in the namespace of a thread.
#[derive(Debug, Clone, Copy)]
pub(super) struct Veth<'a> {
    pub(super) name: &'a str,
    /// Of the end here.
    pub(super) mac: Mac,
    /// The index of the bridge.
    pub(super) bridge: u32,
    /// Of the end here, so that a bridge that follows its ports stays as it is.
    pub(super) mtu: u32,
    pub(super) thread: u32,
    /// Of the other end, `eth0`.
    pub(super) inner_mtu: u32,
}

impl Rtnetlink {
    pub(super) fn open() -> io::Result<Self> {
        let (kind, flags) = (SockType::Raw, SockFlag::SOCK_CLOEXEC);
        let protocol = SockProtocol::NetlinkRoute;
        let socket = socket::socket(AddressFamily::Netlink, kind, flags, protocol)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(2))?;
        socket::connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    pub(super) fn links(&mut self) -> io::Result<Vec<LinkMessage>> {
        let request = Message::GetLink(LinkMessage::default());
        let links = self.ask(request, NLM_F_DUMP)?.into_iter();
        let links = links.filter_map(|message| match message {
            Message::NewLink(link) => Some(link),
            _ => None,
        });
        Ok(links.collect())
    }

    pub(super) fn addresses(&mut self) -> io::Result<Vec<AddressMessage>> {
        let mut request = AddressMessage::default();
        request.header.family = Family::Inet;
        let rows = self.ask(Message::GetAddress(request), NLM_F_DUMP)?;
        let rows = rows.into_iter().filter_map(|message| match message {
            Message::NewAddress(row) => Some(row),
            _ => None,
        });
        Ok(rows.collect())
    }

    /// Where a packet would be sent that the host makes itself.
    pub(super) fn way(&mut self, to: Ipv4Addr) -> io::Result<Hop> {
        self.lookup(lookup(to))
    }

    /// Where a packet would be sent that comes in by a link. `EXDEV` says that it would be dropped,
    /// as the answer would leave by another link (`fib_validate_source`); so may `EINVAL`, which
    /// newer kernels say instead.
    pub(super) fn passage(&mut self, from: Ipv4Addr, to: Ipv4Addr, by: u32) -> io::Result<Hop> {
        let mut request = lookup(to);
        request.header.source_prefix_length = 32;
        let source = RouteAttribute::Source(RouteAddress::Inet(from));
        request.attributes.extend([source, RouteAttribute::Iif(by)]);
        self.lookup(request)
    }

    fn lookup(&mut self, request: RouteMessage) -> io::Result<Hop> {
        let answers = self.ask(Message::GetRoute(request), NLM_F_ACK)?;
        let hop = answers.into_iter().find_map(|message| match message {
            Message::NewRoute(route) => hop(&route),
            _ => None,
        });
        hop.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// Makes a pair of veth devices, and sets the end here up.
    pub(super) fn add_veth(&mut self, veth: Veth) -> io::Result<()> {
        let mut inner = LinkMessage::default();
        inner.attributes = vec![
            LinkAttribute::IfName("eth0".to_owned()),
            LinkAttribute::NetNsPid(veth.thread),
            LinkAttribute::Mtu(veth.inner_mtu),
        ];
        let mut outer = LinkMessage::default();
        outer.header.flags = LinkFlags::Up;
        outer.header.change_mask = LinkFlags::Up;
        outer.attributes = vec![
            LinkAttribute::IfName(veth.name.to_owned()),
            LinkAttribute::Address(veth.mac.bytes().to_vec()),
            LinkAttribute::Mtu(veth.mtu),
            LinkAttribute::Controller(veth.bridge),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(inner))),
            ]),
        ];
        self.make(Message::NewLink(outer))
    }

    pub(super) fn delete_link(&mut self, index: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        self.ask(Message::DelLink(link), NLM_F_ACK).map(drop)
    }

    pub(super) fn set_up(&mut self, index: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        self.ask(Message::NewLink(link), NLM_F_ACK).map(drop)
    }

    pub(super) fn add_address(&mut self, on: u32, address: Ipv4Net) -> io::Result<()> {
        let mut row = AddressMessage::default();
        row.header.family = Family::Inet;
        row.header.prefix_len = address.prefix_len();
        row.header.index = on;
        let address = IpAddr::V4(address.addr());
        row.attributes = vec![
            AddressAttribute::Address(address),
            AddressAttribute::Local(address),
        ];
        self.make(Message::NewAddress(row))
    }

    pub(super) fn add_default_route(&mut self, gateway: Ipv4Addr) -> io::Result<()> {
        let mut route = RouteMessage::default();
        route.header.address_family = Family::Inet;
        route.header.table = RouteHeader::RT_TABLE_MAIN;
        route.header.protocol = RouteProtocol::Static;
        route.header.scope = RouteScope::Universe;
        route.header.kind = RouteType::Unicast;
        let gateway = RouteAttribute::Gateway(RouteAddress::Inet(gateway));
        route.attributes = vec![gateway];
        self.make(Message::NewRoute(route))
    }

    pub(super) fn forget_neighbour(&mut self, on: u32, address: Ipv4Addr) -> io::Result<()> {
        let mut row = NeighbourMessage::default();
        row.header.family = Family::Inet;
        row.header.ifindex = on;
        let address = NeighbourAddress::Inet(address);
        row.attributes = vec![NeighbourAttribute::Destination(address)];
        self.ask(Message::DelNeighbour(row), NLM_F_ACK).map(drop)
    }

    fn make(&mut self, request: Message) -> io::Result<()> {
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.ask(request, flags).map(drop)
    }

    /// The kernel's answers to a request that it acknowledges, or lists.
    fn ask(&mut self, request: Message, flags: u16) -> io::Result<Vec<Message>> {
        self.sequence += 1;
        let mut request = NetlinkMessage::from(request);
        request.header.flags = NLM_F_REQUEST | flags;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        let socket = self.socket.as_raw_fd();
        socket::sendmsg::<NetlinkAddr>(
            socket,
            &[IoSlice::new(&bytes)],
            &[],
            MsgFlags::empty(),
            None,
        )?;
        let mut answers = Vec::new();
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = socket::recv(socket, &mut buffer, MsgFlags::empty())?;
            let mut rest = buffer.get(..length).unwrap_or_default();
            while let Some((message, after)) = first(rest) {
                rest = after;
                match message.map(|message| (message.header, message.payload)) {
                    Some((header, _)) if header.sequence_number != self.sequence => {}
                    Some((_, NetlinkPayload::Error(error))) => {
                        return match error.code {
                            None => Ok(answers),
                            Some(code) => Err(Errno::from_raw(-code.get()).into()),
                        };
                    }
                    Some((_, NetlinkPayload::Done(_))) => return Ok(answers),
                    Some((_, NetlinkPayload::InnerMessage(answer))) => answers.push(answer),
                    // what this version does not know is not needed either
                    Some(_) | None => {}
                }
            }
        }
    }
}

/// A dump comes in pieces of this length at most (`netlink_dump`).
const BUFFER: usize = 64 << 10;

/// The first message, `None` within where it makes no sense, and what follows it.
fn first(bytes: &[u8]) -> Option<(Option<NetlinkMessage<Message>>, &[u8])> {
    let [a, b, c, d, ..] = *bytes else {
        return None;
    };
    let length = usize::try_from(u32::from_ne_bytes([a, b, c, d])).ok()?;
    if length < 16 {
        return None;
    }
    let message = NetlinkMessage::deserialize(bytes.get(..length)?).ok();
    let after = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((message, after))
}

fn lookup(to: Ipv4Addr) -> RouteMessage {
    let mut request = RouteMessage::default();
    request.header.address_family = Family::Inet;
    request.header.destination_prefix_length = 32;
    request.attributes = vec![RouteAttribute::Destination(RouteAddress::Inet(to))];
    request
}

fn hop(route: &RouteMessage) -> Option<Hop> {
    let (mut link, mut gateway, mut source) = (None, None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(*address),
            RouteAttribute::PrefSource(RouteAddress::Inet(address)) => source = Some(*address),
            _ => {}
        }
    }
    (route.header.kind == RouteType::Unicast || route.header.kind == RouteType::Local)
        .then_some(())?;
    Some(Hop {
        link: link?,
        gateway,
        source,
    })
}
