//! `flannel-rs peers`.

use std::fmt::Write;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::bus;
use super::error::Error;
use super::output::{self, Form, printable};
use super::{table, traffic};
use crate::service::status::{PeerStatus, Status};

/// Prints all peers, or those that are meant by a name.
pub(super) fn show(name: Option<&str>, form: Form) -> Result<(), Error> {
    let status = bus::describe()?.status;
    let peers = match name {
        None => status.peers.to_vec(),
        Some(name) => named(&status, name)?,
    };
    match (form, name) {
        (Form::Json, _) => output::print_json(&peers)?,
        (Form::Text, Some(_)) => output::print(&pages(&peers))?,
        (Form::Text, None) if peers.is_empty() => output::print("no peers\n")?,
        (Form::Text, None) => output::print(&table(&peers))?,
    };
    Ok(())
}

/// A line for each peer, below a header.
pub(super) fn table(peers: &[PeerStatus]) -> String {
    let header = ["SUBNET", "PUBLIC IP", "BACKEND", "PATH", "MAC/WHY NOT"];
    let row = |peer: &PeerStatus| {
        let last = peer.obstacle.as_ref().or(peer.mac.as_ref());
        [
            printable(&peer.subnet),
            peer.public_ip.to_string(),
            printable(&peer.backend),
            peer.path.name().to_owned(),
            last.map(|text| printable(text)).unwrap_or_default(),
        ]
    };
    table::lay_out(header, peers.iter().map(row).collect())
}

/// The peers that a name means: more than one only if they have a public IP in common.
fn named(status: &Status, name: &str) -> Result<Vec<PeerStatus>, Error> {
    let is_meant = |peer: &&PeerStatus| {
        let subnet = ipv4_part(&peer.subnet);
        match (name.parse::<Ipv4Net>(), name.parse::<Ipv4Addr>()) {
            (Ok(asked), _) => subnet == Some(asked.trunc()),
            (_, Ok(asked)) => {
                peer.public_ip == asked || subnet.is_some_and(|subnet| subnet.contains(&asked))
            }
            (Err(_), Err(_)) => peer.subnet == name,
        }
    };
    let peers: Vec<_> = status.peers.iter().filter(is_meant).cloned().collect();
    if peers.is_empty() {
        let is_own = if is_this_node(status, name) {
            "; that one is this node"
        } else {
            ""
        };
        return Err(Error::NoPeer(name.to_owned(), is_own.to_owned()));
    }
    Ok(peers)
}

fn is_this_node(status: &Status, name: &str) -> bool {
    let own = status.subnet.as_deref().and_then(ipv4_part);
    let asked = name.parse::<Ipv4Addr>().ok();
    let asked_subnet = name.parse::<Ipv4Net>().ok().map(|subnet| subnet.trunc());
    asked.is_some_and(|asked| {
        status.public_ip == Some(asked) || own.is_some_and(|own| own.contains(&asked))
    }) || own.is_some() && own == asked_subnet
}

/// Of a subnet such as `10.5.1.0/24`, or `10.5.1.0/24,fd00::/64`.
fn ipv4_part(subnet: &str) -> Option<Ipv4Net> {
    subnet.split(',').next()?.parse().ok()
}

/// All that is known of each peer.
fn pages(peers: &[PeerStatus]) -> String {
    let pages: Vec<_> = peers.iter().map(page).collect();
    pages.join("\n")
}

fn page(peer: &PeerStatus) -> String {
    let mut page = format!("{}\n", printable(&peer.subnet));
    let rows = [
        ("public IP", Some(peer.public_ip.to_string())),
        ("backend", Some(peer.backend.clone())),
        ("MAC", peer.mac.clone()),
        ("path", Some(peer.path.name().to_owned())),
        ("why not", peer.obstacle.clone()),
        (
            "traffic",
            peer.traffic.map(|moved| traffic::line(&moved.named())),
        ),
    ];
    for (name, value) in rows {
        if let Some(value) = value {
            let _ = writeln!(page, "  {name:<9}  {}", printable(&value));
        }
    }
    page
}

#[cfg(test)]
mod tests;
