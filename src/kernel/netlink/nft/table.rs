//! Our table: its chains and its sets, there and back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::bytes::{Reader, Writer};
use super::message::{Answer, DATA_VALUE, ITEM, Kind, Request, TABLE, chain, element, set, table};
use super::rule;
use crate::kernel::firewall::{self, Chain, Hook, Rule, Set, Table};

/// The type of an IPv4 address for `nft` (`TYPE_IPADDR`), and of two of them (`TYPE_BITS`).
const ADDRESS: u32 = 7;
const TWO_ADDRESSES: u32 = ADDRESS << 6 | ADDRESS;

/// `NFT_SET_INTERVAL`, `NFT_SET_CONCAT`.
const INTERVALS: u32 = 0x4 | 0x80;

/// Members in one message; the length of an attribute has 16 bits.
const MEMBERS: usize = 1000;

/// `NF_ACCEPT` as a chain's policy.
const ACCEPT: u32 = 1;

/// A base chain of whatever table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Base<'a> {
    /// `enum nf_inet_hooks`.
    pub(super) hook: u32,
    pub(super) priority: i32,
    pub(super) kind: &'a str,
    pub(super) accepts: bool,
}

/// Puts the table in the place of the one that is there, if one is.
pub(super) fn replace(table: &Table) -> Vec<Request> {
    let about = || Request::of_table(Kind::NewTable, firewall::TABLE).with(libc::NLM_F_CREATE);
    let mut requests = vec![about(), del(), about()];
    for (id, (name, members)) in (1..).zip(&table.sets) {
        requests.push(new_set(id, name, members));
        requests.extend(elements(Kind::NewElements, name, members));
    }
    requests.extend(
        table
            .chains
            .iter()
            .map(|(name, chain)| new_chain(name, chain)),
    );
    for (name, chain) in &table.chains {
        let new = |row: &Rule| rule::new(firewall::TABLE, name, row);
        requests.extend(chain.rules.iter().map(new));
    }
    requests
}

pub(super) fn del() -> Request {
    Request::of_table(Kind::DelTable, firewall::TABLE)
}

fn new_chain(name: &str, new: &Chain) -> Request {
    let (number, kind) = numbers(new.hook);
    let hook = Writer::default()
        .number(chain::HOOK_NUMBER, number)
        .value(chain::HOOK_PRIORITY, &new.priority.to_be_bytes());
    let attributes = Writer::default()
        .text(TABLE, firewall::TABLE)
        .text(chain::NAME, name)
        .nested(chain::HOOK, &hook)
        .number(chain::POLICY, ACCEPT)
        .text(chain::TYPE, kind);
    Request::new(Kind::NewChain, attributes)
        .with(libc::NLM_F_CREATE)
        .about(format!("chain {name} of type {kind}"))
}

/// Its number (`enum nf_inet_hooks`), and the type of our chains there.
const fn numbers(hook: Hook) -> (u32, &'static str) {
    match hook {
        Hook::Input => (1, "filter"),
        Hook::Forward => (2, "filter"),
        Hook::Postrouting => (4, "nat"),
    }
}

fn new_set(id: u32, name: &str, members: &Set) -> Request {
    let attributes = Writer::default()
        .text(TABLE, firewall::TABLE)
        .text(set::NAME, name)
        .number(set::ID, id);
    let attributes = match members {
        Set::Hosts(_) => attributes
            .number(set::KEY_TYPE, ADDRESS)
            .number(set::KEY_LENGTH, 4),
        Set::Origins(_) => {
            let field = Writer::default().number(set::FIELD_LENGTH, 4);
            let fields = Writer::default().nested(ITEM, &field).nested(ITEM, &field);
            let description = Writer::default().nested(set::FIELDS, &fields);
            attributes
                .number(set::FLAGS, INTERVALS)
                .number(set::KEY_TYPE, TWO_ADDRESSES)
                .number(set::KEY_LENGTH, 8)
                .nested(set::DESCRIPTION, &description)
        }
    };
    Request::new(Kind::NewSet, attributes)
        .with(libc::NLM_F_CREATE)
        .about(format!("set {name}"))
}

/// Adds members to a set, or removes them.
pub(super) fn elements(kind: Kind, name: &str, members: &Set) -> Vec<Request> {
    let value = |bytes: &[u8]| Writer::default().value(DATA_VALUE, bytes);
    let keys: Vec<Writer> = match members {
        Set::Hosts(hosts) => (hosts.iter())
            .map(|host| Writer::default().nested(element::KEY, &value(&host.octets())))
            .collect(),
        Set::Origins(origins) => (origins.iter())
            .map(|(host, net)| {
                let key = |address: Ipv4Addr| value(&[host.octets(), address.octets()].concat());
                Writer::default()
                    .nested(element::KEY, &key(net.network()))
                    .nested(element::KEY_END, &key(net.broadcast()))
            })
            .collect(),
    };
    let request = |keys: &[Writer]| {
        let fold = |list: Writer, key| list.nested(ITEM, key);
        let list = keys.iter().fold(Writer::default(), fold);
        let attributes = Writer::default()
            .text(TABLE, firewall::TABLE)
            .text(element::SET, name)
            .nested(element::LIST, &list);
        let flags = if kind == Kind::NewElements {
            libc::NLM_F_CREATE
        } else {
            0
        };
        Request::new(kind, attributes)
            .with(flags)
            .about(format!("elements of set {name}"))
    };
    keys.chunks(MEMBERS).map(request).collect()
}

/// Makes the one set of the other.
pub(super) fn difference(name: &str, found: &Set, wanted: &Set) -> Option<Vec<Request>> {
    let (gone, new) = match (found, wanted) {
        (Set::Hosts(found), Set::Hosts(wanted)) => {
            (Set::Hosts(found - wanted), Set::Hosts(wanted - found))
        }
        (Set::Origins(found), Set::Origins(wanted)) => {
            (Set::Origins(found - wanted), Set::Origins(wanted - found))
        }
        (Set::Hosts(_), Set::Origins(_)) | (Set::Origins(_), Set::Hosts(_)) => return None,
    };
    let mut requests = elements(Kind::DelElements, name, &gone);
    requests.extend(elements(Kind::NewElements, name, &new));
    Some(requests)
}

/// How many objects the table has (chains, sets, ...), or that it is none of ours as it is.
pub(super) fn size(answer: &Answer) -> Option<u32> {
    let attributes = answer.attributes();
    let is_plain = attributes.number(table::FLAGS).unwrap_or(0) == 0;
    attributes.number(table::USE).filter(|_| is_plain)
}

/// A chain without its rules; one that is not as ours are has a stranger among them.
pub(super) fn read_chain(answer: &Answer) -> Option<(String, Chain)> {
    let name = answer.attributes().text(chain::NAME)?;
    let read = || {
        let base = base(answer)?;
        let hooks = [Hook::Input, Hook::Forward, Hook::Postrouting];
        let is = |hook: &Hook| numbers(*hook) == (base.hook, base.kind) && base.accepts;
        Some(Chain {
            hook: hooks.into_iter().find(is)?,
            priority: base.priority,
            rules: Vec::new(),
        })
    };
    let strange = || Chain {
        hook: Hook::Input,
        priority: 0,
        rules: vec![Rule::STRANGER],
    };
    Some((name.to_owned(), read().unwrap_or_else(strange)))
}

pub(super) fn base(answer: &Answer) -> Option<Base<'_>> {
    let attributes = answer.attributes();
    let hook = attributes.nested(chain::HOOK)?;
    Some(Base {
        hook: hook.number(chain::HOOK_NUMBER)?,
        priority: hook.number(chain::HOOK_PRIORITY)?.cast_signed(),
        kind: attributes.text(chain::TYPE)?,
        accepts: attributes.number(chain::POLICY) == Some(ACCEPT),
    })
}

/// The name of a set, and an empty one of its kind if it is one of ours.
pub(super) fn read_set(answer: &Answer) -> Option<(String, Option<Set>)> {
    let attributes = answer.attributes();
    let name = attributes.text(set::NAME)?.to_owned();
    let flags = attributes.number(set::FLAGS).unwrap_or(0);
    let kind = attributes.number(set::KEY_TYPE)?;
    let length = attributes.number(set::KEY_LENGTH)?;
    let maps = attributes.value(set::DATA_TYPE).is_some();
    let set = match (kind, length, flags) {
        (ADDRESS, 4, 0) => Some(Set::Hosts(BTreeSet::new())),
        (TWO_ADDRESSES, 8, INTERVALS) => Some(Set::Origins(BTreeSet::new())),
        _ => None,
    };
    Some((name, set.filter(|_| !maps)))
}

/// Adds the members in a message to the set; `None` where one is not as ours are.
pub(super) fn read_elements(answer: &Answer, members: &mut Set) -> Option<()> {
    let list = answer.attributes().nested(element::LIST)?;
    for (_, item) in list.each() {
        let item = Reader(item);
        if item.number(element::FLAGS).unwrap_or(0) != 0 {
            return None;
        }
        let key = |kind| item.nested(kind)?.value(DATA_VALUE);
        match members {
            Set::Hosts(hosts) => {
                let host = <[u8; 4]>::try_from(key(element::KEY)?).ok()?;
                hosts.insert(host.into());
            }
            Set::Origins(origins) => {
                let first = <[u8; 8]>::try_from(key(element::KEY)?).ok()?;
                let last = <[u8; 8]>::try_from(key(element::KEY_END)?).ok()?;
                origins.insert(origin(first, last)?);
            }
        }
    }
    Some(())
}

fn origin(first: [u8; 8], last: [u8; 8]) -> Option<(Ipv4Addr, Ipv4Net)> {
    let split = |key: [u8; 8]| {
        let [a, b, c, d, rest @ ..] = key;
        (Ipv4Addr::from([a, b, c, d]), Ipv4Addr::from(rest))
    };
    let ((host, start), (same, end)) = (split(first), split(last));
    let size = end.to_bits().checked_sub(start.to_bits())?;
    let length = u8::try_from(size.leading_zeros()).ok();
    let net = Ipv4Net::new(start, length?).ok()?;
    (host == same && net.network() == start && net.broadcast() == end).then_some((host, net))
}

/// Chains by name, with the rules put in.
pub(super) fn chains(found: Vec<(String, Chain)>, rules: &[rule::Row]) -> BTreeMap<String, Chain> {
    let mut chains: BTreeMap<String, Chain> = found.into_iter().collect();
    for row in rules {
        if let Some(chain) = chains.get_mut(&row.chain) {
            chain.rules.push(row.rule());
        }
    }
    chains
}
