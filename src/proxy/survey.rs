//! How much the paths to the peers carry.
//!
//! The kernel learns it from routes and from routers that refuse (RFC 1191), and tells it to whoever
//! asks. Workers read it from the [`Peer`](super::directory::Peer)s.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};

use super::directory::{Directory, DirectoryReader};
use super::worker::{Breakdown, Plane, Wake, Worker};

/// Looks now and then at the paths that have been in use since.
pub(super) fn work(plane: &Plane) -> Result<(), Breakdown> {
    let mut directory = DirectoryReader::new(&plane.directory);
    let mut survey = Survey::default();
    while plane.pause(INTERVAL) != Wake::Stopped {
        plane.beat(Worker::Survey);
        survey.look(plane.bind, directory.latest());
    }
    Ok(())
}

/// What was seen last.
#[derive(Default)]
struct Survey {
    /// How many packets were to go to each peer.
    wanted: BTreeMap<Ipv4Addr, u64>,
}

impl Survey {
    fn look(&mut self, bind: SocketAddrV4, directory: &Directory) {
        let mut wanted = BTreeMap::new();
        let mut asker = None;
        for peer in directory.peers() {
            let counters = peer.counters();
            let now = counters.sent_packets + counters.send_errors + counters.too_big;
            wanted.insert(peer.address, now);
            if self.wanted.get(&peer.address).copied().unwrap_or(0) == now {
                continue;
            }
            if asker.is_none() {
                asker = Asker::new(bind).ok();
            }
            // Without an answer there is no path either, and nothing to keep to.
            let longest = asker
                .as_ref()
                .and_then(|asker| asker.longest(peer.address).ok());
            if let Some(longest) = longest {
                peer.set_longest(longest);
            }
        }
        self.wanted = wanted;
    }
}

/// A socket that is connected to one peer after the other and never sends.
#[derive(Debug)]
pub(super) struct Asker {
    socket: UdpSocket,
    port: u16,
}

impl Asker {
    pub(super) fn new(bind: SocketAddrV4) -> io::Result<Self> {
        Ok(Self {
            socket: UdpSocket::bind((*bind.ip(), 0))?,
            port: bind.port(),
        })
    }

    /// The longest inner packet in bytes that the path to a peer carries in one piece.
    pub(super) fn longest(&self, peer: Ipv4Addr) -> io::Result<usize> {
        // Connecting finds the route anew, which may be another one by now.
        self.socket.connect((peer, self.port))?;
        let mtu = getsockopt(&self.socket, sockopt::IpMtu)?;
        Ok(usize::try_from(mtu).unwrap_or(0).saturating_sub(OVERHEAD))
    }
}

const INTERVAL: Duration = Duration::from_secs(2);
/// 20 IPv4 + 8 UDP, in bytes.
const OVERHEAD: usize = 28;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_carries_long_packets() {
        let asker = Asker::new("127.0.0.1:8285".parse().unwrap()).unwrap();
        for _ in 0..2 {
            let longest = asker.longest(Ipv4Addr::LOCALHOST).unwrap();
            assert!(longest > 1400, "{longest}");
        }
    }
}
