//! Real packets, from a throw-away container on the bridge: what becomes of them is what becomes
//! of those of any container.
//!
//! Bounded: so many peers, three seconds in all, a few packets to each. What is made goes with this
//! process, however it ends.

mod capture;
mod container;
mod packet;
mod sockets;

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use nix::sys::socket::SockProtocol;

use super::examination::{Full, Outside, PeerProbe, Probes, SeenLink, Tcp, Vantage};
use super::host::{Host, Peer};
use super::rtnetlink::Rtnetlink;
use capture::{Capture, Record};
use container::{Bridge, Container, Port, Which};
use packet::{Cookie, NOWHERE, SHORTEST};
use sockets::{Ping, Raw};

/// At most so many peers are sent packets.
pub const MOST_PEERS: usize = 16;

/// Sends packets to peers and to the outside, and answers what became of them.
///
/// # Errors
/// What the system refuses: it takes `CAP_NET_ADMIN`, `CAP_NET_RAW` and `CAP_SYS_ADMIN`.
pub fn probe(host: &Host, links: &BTreeMap<String, SeenLink>) -> io::Result<Probes> {
    let cookie = Cookie(rand::random());
    let stand = Stand::take(host, links, cookie)?;
    let peers: Vec<&Peer> = host.peers.iter().take(MOST_PEERS).collect();
    let mut kernel = Rtnetlink::open()?;
    let egress = kernel.way(NOWHERE).ok();
    let name = |index| links.iter().find(|(_, link)| link.index == index);
    let egress = egress.and_then(|hop| Some(name(hop.link)?.0.clone()));

    let mut watched: Vec<&str> = peers.iter().map(|peer| host.link_to(peer)).collect();
    watched.push(&host.uplink);
    watched.extend(egress.as_deref());
    watched.sort_unstable();
    watched.dedup();
    let capture = Capture::start(&watched, cookie)?;

    let small = stand.small(&peers, cookie)?;
    let (full, tcp) = stand.further(host, &small.answers, cookie)?;
    let record = capture.finish(|record| {
        let left = |link| record.left(link, NOWHERE).is_some();
        egress.as_deref().is_none_or(left)
    });
    let silent = |peer: &&&Peer| !small.answers.contains_key(&peer.subnet.v4());
    let public: Vec<Ipv4Addr> = peers.iter().filter(silent).map(|p| p.public_ip).collect();
    let public = greet(&public, cookie)?;
    let one = |peer: &&Peer| {
        let answers = &small.answers;
        let one = seen(host, peer, &record);
        let answered = answers.contains_key(&peer.subnet.v4());
        PeerProbe {
            answered,
            emerged: one.emerged || answered,
            public_answers: public.get(&peer.public_ip).copied(),
            full: full.get(&peer.subnet.v4()).copied(),
            tcp: tcp.get(&peer.subnet.v4()).copied(),
            ..one
        }
    };
    Ok(Probes {
        vantage: stand.vantage(),
        neighbour: small.neighbour,
        peers: peers.iter().map(one).collect(),
        outside: egress.map(|link| Outside {
            left: record.left(&link, NOWHERE),
            link,
        }),
    })
}

/// What the capture says of a peer.
fn seen(host: &Host, peer: &Peer, record: &Record) -> PeerProbe {
    let link = host.link_to(peer);
    let left = targets(peer)
        .into_iter()
        .find_map(|to| record.left(link, to));
    let net = peer.subnet.v4();
    let port = host.provision.tunnel_port.filter(|_| peer.tunnelled);
    let arrived = |port| record.heard(&host.uplink, |from| from == peer.public_ip, Some(port));
    PeerProbe {
        subnet: net,
        public_ip: peer.public_ip,
        link: link.to_owned(),
        left,
        emerged: record.heard(link, |from| net.contains(&from), None),
        answered: false,
        arrived: port.is_some_and(arrived),
        public_answers: None,
        full: None,
        tcp: None,
    }
}

/// Addresses of a peer that should answer: of its tunnel device, and of its bridge.
fn targets(peer: &Peer) -> Vec<Ipv4Addr> {
    let bridge = peer.subnet.gateway().addr();
    match peer.tunnelled {
        true => vec![peer.subnet.base(), bridge],
        false => vec![bridge],
    }
}

/// Where packets are sent from.
struct Stand {
    container: Option<Container>,
    neighbour: Option<(Container, Ipv4Addr)>,
    address: Option<Ipv4Addr>,
    bridge: Option<u32>,
}

/// What became of short packets.
struct Small {
    /// By the peer's subnet, the address that has answered.
    answers: BTreeMap<Ipv4Net, (Ipv4Addr, Ipv4Addr)>,
    neighbour: Option<bool>,
}

impl Stand {
    /// Two containers where there is a bridge, else the host itself.
    fn take(host: &Host, links: &BTreeMap<String, SeenLink>, cookie: Cookie) -> io::Result<Self> {
        let found = host.bridge.as_ref().and_then(|name| links.get(name));
        let Some(link) = found.filter(|link| link.up) else {
            return Ok(Self {
                container: None,
                neighbour: None,
                address: None,
                bridge: None,
            });
        };
        let bridge = Bridge {
            index: link.index,
            mtu: link.mtu,
            inner_mtu: host.mtu,
        };
        let container = Container::new(bridge, Port::new(cookie, Which::First))?;
        let neighbour = Container::new(bridge, Port::new(cookie, Which::Second))?;
        let free = container.unclaimed(candidates(host))?;
        let gateway = host.subnet.gateway();
        let settle = |container: &Container, address: Ipv4Addr| {
            let address = Ipv4Net::new_assert(address, gateway.prefix_len());
            container.settle(address, gateway.addr())
        };
        let mut free = free.into_iter();
        let none = || io::Error::other("nobody on the bridge leaves an address free");
        let address = free.next().ok_or_else(none)?;
        settle(&container, address)?;
        let neighbour = match free.next() {
            None => None,
            Some(address) => {
                settle(&neighbour, address)?;
                Some((neighbour, address))
            }
        };
        Ok(Self {
            container: Some(container),
            neighbour,
            address: Some(address),
            bridge: Some(link.index),
        })
    }

    fn vantage(&self) -> Vantage {
        self.address.map_or(Vantage::Host, Vantage::Container)
    }

    /// Does the work in the container, or here where there is none.
    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        match &self.container {
            Some(container) => container.run(work)?,
            None => work(),
        }
    }

    fn source(&self, to: Ipv4Addr) -> Ipv4Addr {
        let own = || Rtnetlink::open().ok()?.way(to).ok()?.source;
        let address = self.address.or_else(own);
        address.unwrap_or(Ipv4Addr::UNSPECIFIED)
    }

    /// Short packets to all, and one to the outside.
    fn small(&self, peers: &[&Peer], cookie: Cookie) -> io::Result<Small> {
        let mut pings = Vec::new();
        let mut subnets = Vec::new();
        for peer in peers {
            for to in targets(peer) {
                pings.push(self.ping(to, pings.len(), SHORTEST));
                subnets.push((peer.subnet.v4(), to));
            }
        }
        let neighbour = self.neighbour.as_ref().map(|(_, address)| *address);
        let of_neighbour = u16::try_from(pings.len()).unwrap_or_default();
        pings.extend(neighbour.map(|to| self.ping(to, pings.len(), SHORTEST)));
        let subnets = Arc::new(subnets);
        let outside = self.address;
        let known = Arc::clone(&subnets);
        let answers = self.run(move || {
            let raw = Raw::open(SockProtocol::Icmp)?;
            if let Some(from) = outside {
                raw.send(&cookie.outside(from), NOWHERE);
            }
            let answered = |answers: &BTreeMap<u16, Ipv4Addr>, net| {
                let mut numbers = answers.keys().map(|number| usize::from(*number));
                numbers.any(|number| known.get(number).is_some_and(|(of, _)| *of == net))
            };
            Ok(raw.exchange(cookie, &pings, 3, |answers| {
                let all = known.iter().all(|(net, _)| answered(answers, *net));
                all && (neighbour.is_none() || answers.contains_key(&of_neighbour))
            }))
        })?;
        let mut reached = BTreeMap::new();
        for number in answers.keys() {
            if let Some((net, to)) = subnets.get(usize::from(*number)) {
                reached.entry(*net).or_insert((self.source(*to), *to));
            }
        }
        Ok(Small {
            answers: reached,
            neighbour: neighbour.map(|_| answers.contains_key(&of_neighbour)),
        })
    }

    /// Long packets, and TCP, to those that have answered.
    fn further(
        &self,
        host: &Host,
        answers: &BTreeMap<Ipv4Net, (Ipv4Addr, Ipv4Addr)>,
        cookie: Cookie,
    ) -> io::Result<(BTreeMap<Ipv4Net, Full>, BTreeMap<Ipv4Net, Tcp>)> {
        let ends: Vec<_> = answers.values().copied().collect();
        let longest = u16::try_from(host.mtu).unwrap_or(u16::MAX);
        let full = self.run({
            let ends = ends.clone();
            move || lengths(&ends, longest, cookie)
        })?;
        let addresses: Vec<Ipv4Addr> = ends.iter().map(|(_, to)| *to).collect();
        let finished = self.run(move || sockets::knock_by_hand(cookie, &ends, TCP_PATIENCE))?;
        let again = addresses.clone();
        let mut offloaded = self.run(move || sockets::knock(&addresses, TCP_PATIENCE))?;
        if offloaded != finished {
            // once more: its answer may have been late
            offloaded = self.run(move || sockets::knock(&again, 2 * TCP_PATIENCE))?;
        }
        let tcp = (finished.into_iter().zip(offloaded)).map(|(finished, offloaded)| Tcp {
            offloaded,
            finished,
        });
        let subnets = || answers.keys().copied();
        Ok((subnets().zip(full).collect(), subnets().zip(tcp).collect()))
    }

    fn ping(&self, to: Ipv4Addr, number: usize, length: u16) -> Ping {
        Ping {
            from: self.source(to),
            to,
            number: u16::try_from(number).unwrap_or(u16::MAX),
            length,
        }
    }
}

impl Drop for Stand {
    /// The host has learnt where the container is, and the next one with its address is elsewhere.
    fn drop(&mut self) {
        let neighbour = self.neighbour.as_ref().map(|(_, address)| *address);
        let (Some(bridge), Ok(mut kernel)) = (self.bridge, Rtnetlink::open()) else {
            return;
        };
        for address in self.address.into_iter().chain(neighbour) {
            let _ = kernel.forget_neighbour(bridge, address);
        }
    }
}

/// What becomes of packets of the greatest length, and of what length they pass if not of that.
fn lengths(ends: &[(Ipv4Addr, Ipv4Addr)], longest: u16, cookie: Cookie) -> io::Result<Vec<Full>> {
    let raw = Raw::open(SockProtocol::Icmp)?;
    let pings = |lengths: &[u16], of: &[usize]| -> Vec<Ping> {
        let each = of
            .iter()
            .flat_map(|which| lengths.iter().map(move |l| (*which, *l)));
        let ping = |(number, (which, length)): (usize, (usize, u16))| {
            let (from, to) = *ends.get(which)?;
            let number = u16::try_from(FULL + number).ok()?;
            Some(Ping {
                from,
                to,
                number,
                length,
            })
        };
        each.enumerate().filter_map(ping).collect()
    };
    let all: Vec<usize> = (0..ends.len()).collect();
    let asked = pings(&[longest], &all);
    let answers = raw.exchange(cookie, &asked, 2, |answers| answers.len() == asked.len());
    let passed = |which: usize| {
        let number = u16::try_from(FULL + which);
        number.is_ok_and(|number| answers.contains_key(&number))
    };
    let lost: Vec<usize> = all
        .iter()
        .copied()
        .filter(|which| !passed(*which))
        .collect();
    let shorter: Vec<u16> = SHORTER
        .iter()
        .map(|less| longest.saturating_sub(*less).max(SHORTEST))
        .collect();
    let asked = pings(&shorter, &lost);
    // numbers of the first round that come late are not to be taken for these
    let asked: Vec<Ping> = asked
        .into_iter()
        .map(|ping| Ping {
            number: ping.number.saturating_add(1000),
            ..ping
        })
        .collect();
    let answers = match asked.is_empty() {
        true => BTreeMap::new(),
        false => raw.exchange(cookie, &asked, 1, |answers| answers.len() == asked.len()),
    };
    let fits = |which: usize| {
        let (_, to) = ends.get(which)?;
        let passed = asked.iter().filter(|ping| ping.to == *to);
        let passed = passed.filter(|ping| answers.contains_key(&ping.number));
        passed.map(|ping| ping.length).max()
    };
    let outcome = |which: usize| match passed(which) {
        true => Full::Answered,
        false => match fits(which) {
            Some(length) if length == longest => Full::Answered,
            shorter => Full::Lost(shorter),
        },
    };
    Ok(all.into_iter().map(outcome).collect())
}

/// Whether these hosts answer, asked from this one.
fn greet(hosts: &[Ipv4Addr], cookie: Cookie) -> io::Result<BTreeMap<Ipv4Addr, bool>> {
    if hosts.is_empty() {
        return Ok(BTreeMap::new());
    }
    let raw = Raw::open(SockProtocol::Icmp)?;
    let mut kernel = Rtnetlink::open()?;
    let mut pings = Vec::new();
    for (to, number) in hosts.iter().zip(GREETING..) {
        let way = kernel.way(*to).ok().and_then(|hop| hop.source);
        pings.push(Ping {
            from: way.unwrap_or(Ipv4Addr::UNSPECIFIED),
            to: *to,
            number,
            length: SHORTEST,
        });
    }
    let answers = raw.exchange(cookie, &pings, 2, |answers| answers.len() == pings.len());
    let answer = |ping: &Ping| (ping.to, answers.contains_key(&ping.number));
    Ok(pings.iter().map(answer).collect())
}

/// Addresses of the subnet that are the least likely to be had: the last ones.
fn candidates(host: &Host) -> Vec<Ipv4Addr> {
    let gateway = host.subnet.gateway().addr();
    let last = u32::from(host.subnet.v4().broadcast());
    let addresses = (1..).map(|back| Ipv4Addr::from(last.saturating_sub(back)));
    let addresses = addresses.take(CANDIDATES);
    addresses
        .filter(|address| *address > gateway && host.subnet.v4().contains(address))
        .collect()
}

const CANDIDATES: usize = 8;
/// What the numbers of long packets, and of those to public IPs, begin with.
const FULL: usize = 1000;
const GREETING: u16 = 5000;
/// So much shorter than the longest, in bytes: what tunnels and their like take. The longest is tried
/// once more with them: on a busy machine its answer may have been late.
const SHORTER: [u16; 13] = [0, 4, 8, 20, 28, 50, 60, 80, 100, 150, 200, 300, 800];
const TCP_PATIENCE: Duration = Duration::from_millis(300);
