//! Our rules in chains of others.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;

use super::message::{Request, rule as row};
use super::rule::{self, Row};
use super::socket::{Socket, Trouble};
use super::{ask_chain, rules};
use crate::kernel::firewall::{ForeignChain, Rule};

/// Where the host's administrator has the first word in a chain of Docker's.
const USERS: &str = "DOCKER-USER";

/// The chains that are there, with what they have of ours.
pub(super) async fn read(
    socket: &mut Socket,
    own: Option<Ipv4Net>,
) -> Result<BTreeMap<ForeignChain, Vec<Rule>>, Trouble> {
    let mut found = BTreeMap::new();
    for chain in ForeignChain::ALL {
        let (table, name) = chain.names();
        if ask_chain(socket, table, name).await?.is_none() {
            continue;
        }
        let rows = rules(socket, table, Some(name)).await?;
        let ours = ours(&rows);
        let drops = |row: &Row| own.is_some_and(|own| row.drops_to(own));
        if !chain.is_raw() || !ours.is_empty() || rows.iter().any(drops) {
            found.insert(chain, ours);
        }
    }
    Ok(found)
}

/// Makes these our rules in the chain, at their place; nothing where the chain has gone.
pub(super) async fn put(
    socket: &mut Socket,
    chain: ForeignChain,
    wanted: &[Rule],
) -> Result<Vec<Request>, Trouble> {
    let (table, name) = chain.names();
    if ask_chain(socket, table, name).await?.is_none() {
        return Ok(Vec::new());
    }
    let rows = rules(socket, table, Some(name)).await?;
    let marked = rows.iter().filter(|row| row.is_marked());
    let mut requests: Vec<Request> = marked.map(|row| rule::del(table, row)).collect();
    let before = users(&rows).and_then(|at| rows.get(at));
    // Each comes before those that came before it.
    for new in wanted.iter().rev() {
        let mut request = rule::new(table, name, new);
        match before {
            Some(row) => {
                let handle = row.handle.to_be_bytes();
                request.attributes = request.attributes.value(row::POSITION, &handle);
            }
            None => request = request.with(libc::NLM_F_CREATE),
        }
        requests.push(request);
    }
    Ok(requests)
}

/// The place of the jump to what users have to say.
fn users(rows: &[Row]) -> Option<usize> {
    rows.iter()
        .position(|row| row.jump.as_deref() == Some(USERS))
}

fn ours(rows: &[Row]) -> Vec<Rule> {
    let place = users(rows).map_or(0, |at| at + 1);
    let marked = rows.iter().enumerate().filter(|(_, row)| row.is_marked());
    (place..)
        .zip(marked)
        .map(|(place, (at, row))| {
            if at == place {
                row.rule()
            } else {
                Rule::STRANGER
            }
        })
        .collect()
}

impl ForeignChain {
    /// Whether it comes before connection tracking, where packets to containers are only sifted.
    const fn is_raw(self) -> bool {
        matches!(self, Self::RawPrerouting | Self::BridgesPrerouting)
    }
}
