//! `[datastore.nodes]`: a cluster whose nodes are declared, so that it needs no server.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::Ipv4Addr;
use std::ops::Range;

use toml::Spanned;

use super::Node;
use super::error::{Fault, nearest};
use super::node::{self, NAME};
use super::raw::{self, Nodes, Table};
use crate::cluster::fleet::{Member, Roster};
use crate::cluster::network::Network;
use crate::cluster::subnet::Subnet;

/// How many names an error lists.
const NAMES: usize = 12;

/// Where the first of the nodes is.
pub(super) fn place(nodes: &Option<Nodes>) -> Option<Range<usize>> {
    let names = nodes.iter().flat_map(Nodes::keys);
    names.map(Spanned::span).min_by_key(|span| span.start)
}

/// Reads the nodes, of which no two may have anything in common.
pub(super) fn roster(
    kind: &Spanned<String>,
    nodes: &Option<Nodes>,
    network: Option<&Network>,
) -> Result<Roster, Fault> {
    let Some(network) = network else {
        let reason = "needs [network] beside it, which is the network config of the cluster then";
        return Err(Fault::value(kind, "type", reason));
    };
    let mut named: Vec<_> = nodes.iter().flatten().collect();
    if named.is_empty() {
        let reason = "needs a table [datastore.nodes.NAME] for each node of the cluster";
        return Err(Fault::value(kind, "type", reason));
    }
    // of two that clash the second in the file is the one to point at
    named.sort_by_key(|(name, _)| name.span().start);
    let mut members: BTreeMap<String, Member> = BTreeMap::new();
    let mut taken = Taken::default();
    for (name, Table(raw)) in named {
        let member = taken.add(name, raw, network)?;
        members.insert(name.get_ref().clone(), member);
    }
    Ok(Roster {
        network: network.clone(),
        members,
    })
}

/// What the nodes so far have, and by which of them.
#[derive(Default)]
struct Taken<'a> {
    subnets: BTreeMap<Subnet, &'a str>,
    addresses: BTreeMap<Ipv4Addr, &'a str>,
}

impl<'a> Taken<'a> {
    fn add(
        &mut self,
        name: &'a Spanned<String>,
        raw: &raw::Member,
        network: &Network,
    ) -> Result<Member, Fault> {
        let text = name.get_ref().as_str();
        if !node::is_name(text) {
            return Err(Fault::value(name, "nodes", NAME));
        }
        let lacks = |key: &str, example: &str| {
            let message = format!("the node {text:?} needs the key `{key}`, such as {example}");
            Fault::new(name.span(), message)
        };
        let Some(address) = &raw.public_ip else {
            return Err(lacks("public-ip", "public-ip = \"192.168.1.47\""));
        };
        let Some(subnet) = &raw.subnet else {
            return Err(lacks("subnet", "subnet = \"100.96.1.0/24\""));
        };
        let member = Member {
            public_ip: node::public_ip(address, Some(network))?,
            subnet: node::subnet(subnet, Some(network))?,
        };
        // all are of one size and on its bounds, so two that overlap are the same
        own(&mut self.subnets, member.subnet, subnet, "subnet", text)?;
        own(
            &mut self.addresses,
            member.public_ip,
            address,
            "public-ip",
            text,
        )?;
        Ok(member)
    }
}

/// Notes what a node has, which must be its own.
fn own<'a, K: Ord>(
    taken: &mut BTreeMap<K, &'a str>,
    what: K,
    place: &Spanned<String>,
    key: &str,
    name: &'a str,
) -> Result<(), Fault> {
    match taken.insert(what, name) {
        None => Ok(()),
        Some(other) => {
            let reason = format!("of {name:?} and of {other:?}, which need one each");
            Err(Fault::value(place, key, &reason))
        }
    }
}

/// Finds this node in the fleet, by its name in the config or else by that of the host, and gives
/// it what the fleet says. Without any name there is nobody to be found.
pub(super) fn join(
    roster: &Roster,
    asked: &raw::Node,
    node: &mut Node,
    host: Option<&str>,
    kind: Range<usize>,
) -> Result<(), Fault> {
    let Some(name) = asked
        .name
        .as_ref()
        .map(|name| name.get_ref().as_str())
        .or(host)
    else {
        return Ok(());
    };
    let Some(member) = roster.members.get(name) else {
        let hint = among(name, roster);
        return Err(match &asked.name {
            Some(name) => Fault::value(name, "name", &format!("not a node of the fleet: {hint}")),
            None => {
                let name: String = name.chars().take(80).collect();
                let message = format!(
                    "this host is called {name:?}, which is not a node of the fleet: {hint}; or \
                     set node.name"
                );
                Fault::new(kind, message)
            }
        });
    };
    let contradicts = |text: &Spanned<String>, key, declared: &dyn Display| {
        let reason = format!("[datastore.nodes] says {declared} for {name:?}: leave it out here");
        Err(Fault::value(text, key, &reason))
    };
    match (&asked.public_ip, &asked.subnet) {
        (Some(text), _) if node.public_ip != Some(member.public_ip) => {
            contradicts(text, "public-ip", &member.public_ip)
        }
        (_, Some(text)) if node.subnet != Some(member.subnet) => {
            contradicts(text, "subnet", &member.subnet)
        }
        _ => {
            node.name = Some(name.to_owned());
            node.public_ip = Some(member.public_ip);
            node.subnet = Some(member.subnet);
            Ok(())
        }
    }
}

/// Which names there are.
fn among(name: &str, roster: &Roster) -> String {
    let names = || roster.members.keys().map(String::as_str);
    let hint = nearest(name, names()).map(|near| format!("did you mean {near:?}? "));
    let listed: Vec<String> = names()
        .take(NAMES)
        .map(|name| format!("{name:?}"))
        .collect();
    let more = match names().count().saturating_sub(NAMES) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "{}there are {}{more}",
        hint.unwrap_or_default(),
        listed.join(", ")
    )
}

#[cfg(test)]
mod tests;
