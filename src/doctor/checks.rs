//! From an examination to findings: pure functions. The order is that in which things are to be put
//! right: what comes first is often why what comes later is wrong.

mod host;
mod packets;

use super::examination::Examination;
use super::finding::Finding;

/// All that is wrong.
#[must_use]
pub fn findings(seen: &Examination) -> Vec<Finding> {
    let checks = [
        host::service,
        host::forwarding,
        host::strict_filter,
        host::bridge,
        host::files,
        host::container_mtus,
        host::overlaps,
        host::detours,
        host::flanneld,
        host::legacy,
        packets::neighbours,
        packets::forward_drops,
        packets::rewritten,
        packets::silent_peers,
        packets::long_packets,
        packets::tcp,
        packets::outside,
    ];
    checks.iter().flat_map(|check| check(seen)).collect()
}

#[cfg(test)]
mod tests;
