//! What arrives is what was sent: TCP and UDP between all containers, in both directions at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::cluster::{ALL_PAIRS, Cluster, Pair, Way};
use crate::datagrams::{Datagrams, Volley};
use crate::flanneld::Mixed;
use crate::stream::{Load, Stream};
use crate::support::lab::{Lab, Shape};

/// From one byte of payload to two fragments.
const LENGTHS: [usize; 8] = [4, 5, 64, 333, 1200, 1443, 1444, 2000];

/// One stream between all, four more between the first two, datagrams of all lengths, and some
/// that their sender hands over in bundles.
fn everything_arrives(lab: &Lab) {
    let over = Arc::new(AtomicBool::new(false));
    let pair = |(from, to): &(u32, u32)| Pair::new(lab, *from, *to);
    let datagrams = ALL_PAIRS.iter().map(pair).flat_map(|pair| {
        let bundles = Volley {
            together: 12,
            pause: Duration::from_millis(10),
            ..Volley::of(&[700], &over)
        };
        [Volley::of(&LENGTHS, &over), bundles].map(|volley| Datagrams::start(&pair, volley))
    });
    let datagrams: Vec<Datagrams> = datagrams.collect();
    let single = ALL_PAIRS.iter().map(|pair| (pair, 3 << 20));
    let several = [(1, 2), (2, 1)];
    let several = several
        .iter()
        .flat_map(|pair| std::iter::repeat_n((pair, 1 << 20), 4));
    let streams: Vec<Stream> = single
        .chain(several)
        // a last segment of an odd length
        .map(|(numbers, bytes)| Stream::start(&pair(numbers), Load::bytes(bytes + 12_345)))
        .collect();
    for stream in streams {
        let moved = stream.finish();
        assert!(moved.bytes > 1 << 20, "{moved:?}");
    }
    over.store(true, Ordering::Relaxed);
    for datagrams in datagrams {
        let heard = datagrams.finish();
        assert!(heard.sent > 50, "{heard:?}");
        let (sent, received) = (heard.sent, heard.received);
        // queues are short beside bulk transfers
        assert!(received > sent / 4, "{received} of {sent} datagrams");
    }
}

fn everything_arrives_with(ways: [Way; 3]) {
    let Some(cluster) = Cluster::start(Shape::Flat, ways) else {
        return;
    };
    everything_arrives(&cluster.lab);
}

#[test]
fn everything_arrives_with_offloads() {
    everything_arrives_with([Way::Offloads; 3]);
}

#[test]
fn everything_arrives_plain() {
    everything_arrives_with([Way::Plain; 3]);
}

#[test]
fn everything_arrives_where_nodes_differ() {
    everything_arrives_with([Way::Offloads, Way::Plain, Way::OnePort]);
}

#[test]
fn everything_arrives_from_one_port() {
    everything_arrives_with([Way::OnePort; 3]);
}

#[test]
fn everything_arrives_beside_a_flanneld() {
    let Some(mixed) = Mixed::start("udp") else {
        return;
    };
    everything_arrives(&mixed.lab);
}
