//! What flanneld has left.

use std::collections::BTreeSet;

use super::bytes::Writer;
use super::message::{IP, IP6, Kind, Request, TABLE, chain, rule as row};
use super::rule;
use super::socket::{Socket, Trouble};
use super::{ask_chain, rules};
use crate::kernel::firewall::Leftover;

/// Where something of flanneld's is.
enum Place {
    /// Table and chain of the family `ip`.
    Chain(&'static str, &'static str),
    /// Family and table.
    Table(u8, &'static str),
}

const fn place(leftover: Leftover) -> Place {
    match leftover {
        Leftover::NatChain => Place::Chain("nat", "FLANNEL-POSTRTG"),
        Leftover::ForwardChain => Place::Chain("filter", "FLANNEL-FWD"),
        Leftover::TableV4 => Place::Table(IP, "flannel-ipv4"),
        Leftover::TableV6 => Place::Table(IP6, "flannel-ipv6"),
    }
}

pub(super) async fn read(socket: &mut Socket) -> Result<BTreeSet<Leftover>, Trouble> {
    let mut found = BTreeSet::new();
    for leftover in Leftover::ALL {
        let answer = match place(leftover) {
            Place::Chain(table, name) => ask_chain(socket, table, name).await?,
            Place::Table(family, name) => {
                let request = Request::of_table(Kind::GetTable, name).family(family);
                socket.ask(&request).await?
            }
        };
        if answer.is_some() {
            found.insert(leftover);
        }
    }
    Ok(found)
}

/// Removes it, and where it is a chain the jumps to it first; nothing where it has gone.
pub(super) async fn del(socket: &mut Socket, leftover: Leftover) -> Result<Vec<Request>, Trouble> {
    match place(leftover) {
        Place::Table(family, name) => {
            let get = Request::of_table(Kind::GetTable, name).family(family);
            let is_there = socket.ask(&get).await?.is_some();
            let del = Request::of_table(Kind::DelTable, name).family(family);
            Ok(is_there.then_some(del).into_iter().collect())
        }
        Place::Chain(table, name) => {
            if ask_chain(socket, table, name).await?.is_none() {
                return Ok(Vec::new());
            }
            let rows = rules(socket, table, None).await?;
            let jumps = rows.iter().filter(|row| row.jump.as_deref() == Some(name));
            let mut requests: Vec<Request> = jumps.map(|row| rule::del(table, row)).collect();
            let of_chain = |kind, attribute| {
                let attributes = Writer::default().text(TABLE, table).text(attribute, name);
                Request::new(kind, attributes).about(format!("chain {table} {name}"))
            };
            // Without a handle it is all rules of the chain.
            requests.push(of_chain(Kind::DelRule, row::CHAIN));
            requests.push(of_chain(Kind::DelChain, chain::NAME));
            Ok(requests)
        }
    }
}
