//! What to do about a refusal.

use crate::kernel::change::Change;
use crate::kernel::firewall::{Set, Step};
use crate::kernel::state::LinkKind;

/// The reason of a failure: the kernel's words, and what to do next where we know it.
pub(super) fn reason(change: &Change, errno: i32, text: &str) -> String {
    match advice(change, errno, text) {
        Some(advice) => format!("{text}: {advice}"),
        None => text.to_owned(),
    }
}

fn advice(change: &Change, errno: i32, text: &str) -> Option<String> {
    let link = change.link();
    match errno {
        libc::EPERM | libc::EACCES => Some("needs CAP_NET_ADMIN".to_owned()),
        libc::ENETDOWN => Some(format!("set {link} up")),
        libc::ENODEV => Some(format!("{link} went away; the next pass looks again")),
        libc::ENOBUFS if matches!(change, Change::PutNeighbour(..)) => {
            Some("the neighbour table is full: raise net.ipv4.neigh.default.gc_thresh3".to_owned())
        }
        libc::EEXIST if matches!(change, Change::AddLink(..)) => Some(
            "delete the other device, or choose another vni or port; \
             `ip -d link show type vxlan` lists them"
                .to_owned(),
        ),
        libc::ENOENT | libc::EOPNOTSUPP | libc::EINVAL if let Change::Firewall(step) = change => {
            lacking(step, text)
        }
        libc::EOPNOTSUPP => missing_module(change),
        _ => gateway(change, text),
    }
}

/// What part of nf_tables is missing. The kernel has a module for each.
fn lacking(step: &Step, text: &str) -> Option<String> {
    let Step::PutTable(table) = step else {
        return None;
    };
    let concatenates = table
        .sets
        .values()
        .any(|set| matches!(set, Set::Origins(_)));
    let advice = if concatenates && text.contains("set ") {
        "sets of addresses with networks need Linux 5.6; or set verify-source = false in [firewall]"
    } else if text.contains("nat") || text.contains("postrouting") {
        "load the kernel modules nft_chain_nat and nft_masq; or set masquerade = false in [firewall]"
    } else {
        "load the kernel module nf_tables"
    };
    Some(advice.to_owned())
}

fn missing_module(change: &Change) -> Option<String> {
    match change {
        Change::AddLink(_, link) => match link.kind {
            LinkKind::Vxlan { .. } => Some("load the kernel module vxlan".to_owned()),
            LinkKind::Bridge => Some("load the kernel module bridge".to_owned()),
            LinkKind::Tun | LinkKind::Other(_) => None,
        },
        _ => None,
    }
}

fn gateway(change: &Change, text: &str) -> Option<String> {
    let Change::PutRoute(_, route) = change else {
        return None;
    };
    let gateway = route.gateway?;
    (text.contains("invalid gateway") || text.contains("unreachable")).then(|| {
        let link = &route.link;
        format!("{gateway} is not on a network of {link}, so it cannot be a next hop; use vxlan or udp between networks")
    })
}
