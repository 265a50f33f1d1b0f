//! What can be read of a host without changing anything.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's messages and attributes have no end"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use ipnet::Ipv4Net;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags};

use super::examination::{Examination, SeenChain, SeenHook, SeenLink, Strict, Way};
use super::host::Host;
use super::probe::MOST_PEERS;
use super::rtnetlink::Rtnetlink;
use crate::kernel::firewall::BaseChain;
use crate::kernel::netlink::Netlink;
use crate::kernel::{Kernel, KernelError, Scope};

/// Reads what the checks need; what cannot be read stays as it is.
///
/// # Errors
/// Where the kernel does not list its links.
pub fn look(examination: &mut Examination) -> io::Result<()> {
    let mut kernel = Rtnetlink::open()?;
    examination.links = links(&mut kernel)?;
    examination.forwards = switch("ip_forward");
    examination.flannelds = flannelds();
    examination.legacy_tables = lines("/proc/net/ip_tables_names");
    let calls = fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables");
    examination.bridge_calls_iptables = calls.is_ok_and(|value| value.trim() != "0");
    let Some(mut host) = examination.host.take() else {
        return Ok(());
    };
    if host.bridge.is_none() {
        host.bridge = bridge_of(&host, &examination.links);
    }
    examination.still_links = (host.links())
        .filter(|link| switch(&format!("conf/{link}/forwarding")) == Some(false))
        .map(str::to_owned)
        .collect();
    examination.subnet_env = text(&host.provision.subnet_env);
    examination.docker_env = text(&host.provision.docker_env);
    routes(&mut kernel, &host, examination);
    examination.host = Some(host);
    Ok(())
}

/// Reads the packet filter: the chains that packets come to, and what flanneld has left.
///
/// # Errors
/// Where the kernel does not show it, as without `CAP_NET_ADMIN`.
pub fn look_at_filter(examination: &mut Examination) -> Result<(), KernelError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|source| KernelError::Socket {
        doing: "starting to read",
        source,
    })?;
    runtime.block_on(async {
        let mut kernel = Netlink::connect()?;
        let chains = kernel.base_chains().await?.into_iter();
        examination.chains = chains.map(seen).collect();
        let state = kernel.observe(&Scope::default()).await?;
        let leftovers = state.firewall.leftovers.iter();
        examination.leftovers = leftovers.map(ToString::to_string).collect();
        Ok(())
    })
}

fn seen(chain: BaseChain) -> SeenChain {
    SeenChain {
        family: chain.family.to_owned(),
        table: chain.table,
        name: chain.name,
        hook: match chain.hook {
            "input" => SeenHook::Input,
            "forward" => SeenHook::Forward,
            _ => SeenHook::Other,
        },
        drops: chain.drops,
    }
}

/// The bridge that somebody else has made for the containers of our subnet.
fn bridge_of(host: &Host, links: &BTreeMap<String, SeenLink>) -> Option<String> {
    let gateway = host.subnet.gateway().addr();
    let has = |link: &SeenLink| link.addresses.iter().any(|net| net.addr() == gateway);
    let found = links.iter().find(|(name, link)| {
        has(link)
            && Path::new("/sys/class/net")
                .join(name)
                .join("bridge")
                .exists()
    });
    found.map(|(name, _)| name.clone())
}

fn links(kernel: &mut Rtnetlink) -> io::Result<BTreeMap<String, SeenLink>> {
    let mut links: BTreeMap<u32, (String, SeenLink, Option<u32>)> = BTreeMap::new();
    for message in kernel.links()? {
        let mut link = SeenLink {
            index: message.header.index,
            up: message.header.flags.contains(LinkFlags::Up),
            ..SeenLink::default()
        };
        let (mut name, mut controller) = (None, None);
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(text) => name = Some(text),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Controller(index) => controller = Some(index),
                _ => {}
            }
        }
        if let Some(name) = name {
            links.insert(link.index, (name, link, controller));
        }
    }
    for row in kernel.addresses()? {
        let local = row.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
            _ => None,
        });
        let net = local.and_then(|local| Ipv4Net::new(local, row.header.prefix_len).ok());
        if let Some((_, link, _)) = links.get_mut(&row.header.index) {
            link.addresses.extend(net);
        }
    }
    let names: BTreeMap<u32, String> = links
        .iter()
        .map(|(index, (name, ..))| (*index, name.clone()))
        .collect();
    let named = links.into_values().map(|(name, link, controller)| {
        let bridge = controller.and_then(|index| names.get(&index).cloned());
        (name, SeenLink { bridge, ..link })
    });
    Ok(named.collect())
}

/// Where the kernel sends what containers send to peers, and whether it takes what comes back.
fn routes(kernel: &mut Rtnetlink, host: &Host, examination: &mut Examination) {
    let links = &examination.links;
    let index = |name: &str| links.get(name).map(|link| link.index);
    let name = |index| links.iter().find(|(_, link)| link.index == index);
    let gateway = host.subnet.gateway();
    let container = after(gateway.addr());
    let bridge = host.bridge.as_deref().and_then(index);
    let is_there = bridge.is_some_and(|index| {
        let found = name(index);
        found.is_some_and(|(_, link)| link.addresses.contains(&gateway))
    });
    for peer in host.peers.iter().take(MOST_PEERS) {
        let net = peer.subnet.v4();
        let to = after(peer.subnet.gateway().addr());
        let hop = match bridge.filter(|_| is_there) {
            Some(by) => kernel.passage(container, to, by),
            None => kernel.way(to),
        };
        let hop = hop
            .ok()
            .and_then(|hop| Some((name(hop.link)?, hop.gateway)));
        let taken = hop.map(|((name, _), gateway)| (name.clone(), gateway));
        examination.ways.push(Way { subnet: net, taken });
        let link = host.link_to(peer);
        let Some(by) = index(link).filter(|_| is_there && is_strict(link)) else {
            continue;
        };
        if kernel.passage(to, gateway.addr(), by).is_err_and(is_drop) {
            let link = link.to_owned();
            examination.strict.push(Strict { subnet: net, link });
        }
    }
    let own = host.bridge.as_deref().filter(|name| is_strict(name));
    let own = own.zip(bridge.filter(|_| is_there));
    if let Some((name, by)) = own
        && kernel
            .passage(container, gateway.addr(), by)
            .is_err_and(is_drop)
    {
        examination.strict.push(Strict {
            subnet: host.subnet.v4(),
            link: name.to_owned(),
        });
    }
}

/// Whether reverse path filtering is strict on a link: the greater of two settings counts
/// (`IN_DEV_RPFILTER`).
fn is_strict(link: &str) -> bool {
    let value = |name| {
        let path = format!("/proc/sys/net/ipv4/conf/{name}/rp_filter");
        let text = fs::read_to_string(path).unwrap_or_default();
        text.trim().parse::<u8>().unwrap_or_default()
    };
    value("all").max(value(link)) == 1
}

/// Whether the kernel would drop such a packet for its source. Since Linux 6.13 it has the same
/// error for whatever it drops.
#[expect(clippy::needless_pass_by_value, reason = "`is_err_and` gives it away")]
fn is_drop(error: io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EXDEV | libc::EINVAL))
}

fn after(address: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(address).saturating_add(1))
}

/// A setting of the kernel's IPv4 that is on or off.
fn switch(name: &str) -> Option<bool> {
    let value = fs::read_to_string(Path::new("/proc/sys/net/ipv4").join(name)).ok()?;
    Some(value.trim() != "0")
}

fn lines(path: &str) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// A file for others; longer than they ever are it is somebody else's.
fn text(path: &str) -> Option<String> {
    let text = fs::read(path).ok()?;
    let start = text.get(..text.len().min(4096))?;
    Some(String::from_utf8_lossy(start).into_owned())
}

/// The processes of flanneld in this network namespace, or in one that cannot be seen.
fn flannelds() -> Vec<u32> {
    let own = fs::read_link("/proc/self/ns/net").ok();
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
    let numbers = processes.flatten().filter_map(number);
    let is_flanneld = |number: &u32| {
        let at = Path::new("/proc").join(number.to_string());
        let name = fs::read_to_string(at.join("comm")).unwrap_or_default();
        name.trim_end() == "flanneld"
            && fs::read_link(at.join("ns/net")).map_or(true, |net| Some(net) == own)
    };
    numbers.filter(is_flanneld).collect()
}
