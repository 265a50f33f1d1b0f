//! Which of nf_tables' notifications may be our business.

use super::bytes::Reader;
use super::message::{HEADER, IP, IP6, Kind, SUBSYSTEM, TABLE, chain, rule};
use crate::kernel::firewall::{self, ForeignChain};

/// Whether one that says this may be. What happens to sets of others is not, nor to their chains
/// but those that we have rules in, nor what flanneld does to what it has made already.
pub(in crate::kernel::netlink) fn matters(kind: u16, body: &[u8]) -> bool {
    let [subsystem, kind] = kind.to_be_bytes();
    if subsystem != SUBSYSTEM {
        return false;
    }
    let Some((header, attributes)) = body.split_at_checked(HEADER) else {
        return true;
    };
    let family = header.first().copied().unwrap_or_default();
    let attributes = Reader(attributes);
    let is = |one: Kind, other: Kind| kind == one as u8 || kind == other as u8;
    let table = attributes.text(TABLE).unwrap_or_default();
    match (family, table) {
        (IP, firewall::TABLE) => true,
        (IP, "flannel-ipv4") | (IP6, "flannel-ipv6") => is(Kind::NewTable, Kind::DelTable),
        (IP, _) if is(Kind::NewChain, Kind::DelChain) => {
            concerns(table, attributes.text(chain::NAME).unwrap_or_default())
        }
        (IP, _) if is(Kind::NewRule, Kind::DelRule) => {
            is_foreign(table, attributes.text(rule::CHAIN).unwrap_or_default())
        }
        _ => false,
    }
}

fn concerns(table: &str, chain: &str) -> bool {
    let flannels = [("nat", "FLANNEL-POSTRTG"), ("filter", "FLANNEL-FWD")];
    is_foreign(table, chain) || flannels.contains(&(table, chain))
}

fn is_foreign(table: &str, chain: &str) -> bool {
    ForeignChain::ALL
        .iter()
        .any(|known| known.names() == (table, chain))
}
