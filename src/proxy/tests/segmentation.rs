//! Held to the kernel: what it makes of a super-packet for a device without offloads is, byte for
//! byte, what we make of it.

use std::io::IoSlice;
use std::time::Instant;

use nix::errno::Errno;
use proptest::test_runner::{Config, TestRunner};

use super::lab::{Namespace, PATIENCE, pair};
use crate::proxy::packet::Packet;
use crate::proxy::split::split;
use crate::proxy::split::tests::stretch::{Stretch, stretches};
use crate::proxy::tun::{Device, Queue};
use crate::proxy::virtio::{Header, Kind};

/// A router between two devices, of which only the first takes super-packets.
struct Router {
    source: Queue,
    sink: Queue,
    takes_datagrams: bool,
}

impl Router {
    fn new(namespace: &Namespace) -> Self {
        let [source, sink] = [("source0", true), ("sink0", false)].map(|(name, offload)| {
            let device = namespace.run(move || Device::open(name, offload, 1).unwrap());
            namespace.command(&format!("ip link set {name} mtu 65535 txqueuelen 10000 up"));
            device
        });
        namespace.command("ip route add 100.96.1.0/24 dev source0");
        namespace.command("ip route add 100.96.2.0/24 dev sink0");
        namespace.set("ipv4/ip_forward", "1");
        let [mut sources, mut sinks] = [source.queues, sink.queues];
        Self {
            source: sources.remove(0),
            sink: sinks.remove(0),
            takes_datagrams: source.joins.udp,
        }
    }

    /// What comes out on the other side.
    fn pass(&self, header: Header, packet: &[u8], count: usize) -> Vec<Vec<u8>> {
        self.source.give(header, &[IoSlice::new(packet)]).unwrap();
        (0..count).map(|_| self.arrival()).collect()
    }

    fn arrival(&self) -> Vec<u8> {
        let mut buffer = vec![0; 1 << 16];
        let start = Instant::now();
        loop {
            match self.sink.take(&mut buffer) {
                Ok((_, length)) if buffer[0] >> 4 == 4 => return buffer[..length].to_vec(),
                // The router solicitations of IPv6.
                Ok(_) => {}
                Err(Errno::EAGAIN) => {
                    assert!(
                        start.elapsed() < PATIENCE,
                        "the kernel passed on too little"
                    );
                }
                Err(errno) => panic!("{errno}"),
            }
        }
    }

    /// Whether there is nothing more to come: packets take the shortest way through the kernel,
    /// in the call that gave them to it.
    fn is_empty(&self) -> bool {
        let mut buffer = [0; 1500];
        loop {
            match self.sink.take(&mut buffer) {
                Ok(_) if buffer[0] >> 4 != 4 => {}
                outcome => return outcome == Err(Errno::EAGAIN),
            }
        }
    }

    fn assert_same(&self, header: Header, packet: &[u8]) {
        let mut ours = packet.to_vec();
        Packet::parse(&mut ours).unwrap().age().unwrap();
        let (mut heads, mut pieces) = (Vec::new(), Vec::new());
        split(header, &mut ours, &mut heads, &mut pieces).unwrap();
        let theirs = self.pass(header, packet, pieces.len());
        for (index, (piece, theirs)) in pieces.into_iter().zip(theirs).enumerate() {
            let ours = [&heads[piece.head], &ours[piece.body]].concat();
            assert_eq!(ours, theirs, "piece {index} of {header:?}");
        }
        assert!(
            self.is_empty(),
            "the kernel makes more pieces of {header:?}"
        );
    }
}

#[test]
fn super_packets_are_cut_as_the_kernel_cuts_them() {
    let Some((node, _)) = pair(crate::proxy::Tuning::default()) else {
        return;
    };
    let router = Router::new(&node.namespace);
    if !router.takes_datagrams {
        eprintln!("skipped for datagrams: this kernel takes no super-packets of them");
    }
    let cases = (stretches(), 8_u16..3000);
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::with_cases(300)
    });
    let outcome = runner.run(&cases, |(stretch, size)| {
        let stretch = sendable(stretch, size);
        router.assert_same(stretch.unfinished(), &stretch.whole());
        if stretch.kind == Kind::Tcp || router.takes_datagrams {
            router.assert_same(stretch.header(size), &stretch.whole());
        }
        Ok(())
    });
    outcome.unwrap();
}

/// One that the kernel takes and passes on: options that a router has nothing to do for, and more
/// than one segment, but no more than it lets an application send (`UDP_MAX_SEGMENTS`).
fn sendable(mut stretch: Stretch, size: u16) -> Stretch {
    stretch.options.fill([1; 4]);
    let most = match stretch.kind {
        Kind::Tcp => 4000,
        Kind::Udp => 128,
    };
    let size = usize::from(size);
    stretch
        .payload
        .resize(stretch.payload.len().clamp(size + 1, most * size), 0xa5);
    stretch
}
