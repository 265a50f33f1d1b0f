//! What can be told from what became of packets.

use super::host::path;
use crate::doctor::examination::{Examination, Full, PeerProbe, Probes, SeenHook, Vantage};
use crate::doctor::finding::Finding;
use crate::doctor::host::Host;

fn probed(seen: &Examination) -> Option<(&Host, &Probes)> {
    seen.host.as_ref().zip(seen.probes.as_ref())
}

/// The probes of peers about which nothing else explains what became of the packets.
fn unexplained<'a>(
    seen: &'a Examination,
    probes: &'a Probes,
) -> impl Iterator<Item = &'a PeerProbe> {
    let is_still = seen.forwards == Some(false) || !seen.still_links.is_empty();
    let is_strict = |peer: &PeerProbe| seen.strict.iter().any(|row| row.subnet == peer.subnet);
    let goes_right = |peer: &PeerProbe| {
        let mut ways = seen.ways.iter();
        ways.any(|way| {
            way.subnet == peer.subnet
                && way
                    .taken
                    .as_ref()
                    .is_some_and(|(link, _)| *link == peer.link)
        })
    };
    let peers = probes.peers.iter();
    peers.filter(move |peer| !is_still && !is_strict(peer) && goes_right(peer))
}

/// `bridge-drop`: containers of this host do not reach each other.
pub(super) fn neighbours(seen: &Examination) -> Vec<Finding> {
    let Some((host, probes)) = probed(seen) else {
        return Vec::new();
    };
    if probes.neighbour != Some(false) {
        return Vec::new();
    }
    let bridge = host.bridge.clone().unwrap_or_default();
    let text = format!("packets between two containers on {bridge} are lost");
    let (text, fix) = match seen.bridge_calls_iptables {
        true => (
            format!(
                "{text}; bridge-nf-call-iptables is 1, so they go through iptables{}",
                named(seen, SeenHook::Forward)
            ),
            "sysctl -w net.bridge.bridge-nf-call-iptables=0".to_owned(),
        ),
        false => (
            text,
            format!("see `nft list ruleset bridge`: delete the rule that drops them on {bridge}"),
        ),
    };
    vec![Finding::new("bridge-drop", bridge, text, fix)]
}

/// `forward-drop`: packets get lost on this host, between the bridge and the link to the peer.
pub(super) fn forward_drops(seen: &Examination) -> Vec<Finding> {
    let Some((host, probes)) = probed(seen) else {
        return Vec::new();
    };
    let (mut out, mut back) = (Vec::new(), Vec::new());
    for peer in unexplained(seen, probes).filter(|peer| !peer.answered) {
        match (peer.left, peer.emerged) {
            (None, _) => out.push(peer.subnet.to_string()),
            (Some(_), true) => back.push(peer.subnet.to_string()),
            (Some(_), false) => {}
        }
    }
    let finding = |nets: Vec<String>, text: &str| {
        let chains = seen.dropping(SeenHook::Forward);
        let about = chains
            .first()
            .map_or("FORWARD".to_owned(), ToString::to_string);
        let text = format!(
            "{text} (peers {}; links {}){}",
            nets.join(", "),
            path(host),
            named(seen, SeenHook::Forward)
        );
        Finding::new("forward-drop", about, text, forward_fix(seen, host))
    };
    let mut findings = Vec::new();
    if !out.is_empty() {
        let text = "the packet filter of this host drops what containers send to peers";
        findings.push(finding(out, text));
    } else if !back.is_empty() {
        let text = "the packet filter of this host drops what peers send to containers";
        findings.push(finding(back, text));
    }
    findings
}

fn forward_fix(seen: &Examination, host: &Host) -> String {
    let net = host.network;
    match seen.dropping(SeenHook::Forward).first() {
        Some(chain) if chain.has_passes() && !host.provision.forward => {
            "set `forward = true` in [firewall] of /etc/flannel-rs/config.toml, and run `systemctl \
             reload flannel-rs`"
                .to_owned()
        }
        Some(chain) => format!(
            "nft insert rule {0} ip saddr {net} accept && nft insert rule {0} ip daddr {net} accept",
            chain.place()
        ),
        None if seen.legacy_tables.iter().any(|table| table == "filter") => format!(
            "iptables-legacy -I FORWARD -s {net} -j ACCEPT && iptables-legacy -I FORWARD -d {net} \
             -j ACCEPT"
        ),
        None => format!(
            "see `nft list ruleset` for the rule in a forward chain that drops packets of {net}, and \
             delete it"
        ),
    }
}

/// The chains that may be at fault, for the end of a text.
fn named(seen: &Examination, hook: SeenHook) -> String {
    let chains = seen.dropping(hook);
    let names: Vec<String> = chains.iter().map(ToString::to_string).collect();
    match names.as_slice() {
        [] => String::new(),
        _ => format!(
            "; these chains drop what none of their rules accepts: {}",
            names.join(", ")
        ),
    }
}

/// `rewritten`: what containers send to peers gets another source address.
pub(super) fn rewritten(seen: &Examination) -> Vec<Finding> {
    let Some((host, probes)) = probed(seen) else {
        return Vec::new();
    };
    let Vantage::Container(own) = probes.vantage else {
        return Vec::new();
    };
    let other = |peer: &&PeerProbe| peer.left.is_some_and(|source| source != own);
    let peers: Vec<&PeerProbe> = probes.peers.iter().filter(other).collect();
    let Some(source) = peers.first().and_then(|peer| peer.left) else {
        return Vec::new();
    };
    let nets: Vec<String> = peers.iter().map(|peer| peer.subnet.to_string()).collect();
    let text = format!(
        "what containers send to peers leaves with the source address {source} instead of {own}: \
         somebody masquerades it (peers {})",
        nets.join(", ")
    );
    let fix = format!(
        "have dockerd run with --ip-masq=false (restart it with the options of {}); for another \
         program: delete its rule for {} from the nat table, `nft list ruleset` shows it",
        host.provision.docker_env,
        host.subnet.v4()
    );
    vec![Finding::new("rewritten", "nat", text, fix)]
}

/// `tunnel-port`, `peer-down`, `peer-silent`: what has left is not answered.
pub(super) fn silent_peers(seen: &Examination) -> Vec<Finding> {
    let Some((host, probes)) = probed(seen) else {
        return Vec::new();
    };
    let silent = unexplained(seen, probes)
        .filter(|peer| !peer.answered && peer.left.is_some() && !peer.emerged);
    let silent: Vec<&PeerProbe> = silent.collect();
    let mut findings = Vec::new();
    let blocked: Vec<String> = (silent.iter().filter(|peer| peer.arrived))
        .map(|peer| peer.public_ip.to_string())
        .collect();
    if let (Some(port), false) = (host.provision.tunnel_port, blocked.is_empty()) {
        findings.push(blocked_here(seen, port, &blocked.join(", ")));
    }
    for peer in silent.into_iter().filter(|peer| !peer.arrived) {
        findings.push(match peer.public_answers {
            Some(true) => silent_one(host, peer),
            _ => down(peer),
        });
    }
    findings
}

fn blocked_here(seen: &Examination, port: u16, peers: &str) -> Finding {
    let text = format!(
        "packets for the tunnel port, UDP {port}, come to this host (from {peers}) and do not come \
         out of the tunnel: a packet filter of this host drops them{}",
        named(seen, SeenHook::Input)
    );
    let fix = match seen.dropping(SeenHook::Input).first() {
        Some(chain) => format!("nft insert rule {} udp dport {port} accept", chain.place()),
        None => format!(
            "iptables -I INPUT -p udp --dport {port} -j ACCEPT; if that does not help, see `nft list \
             ruleset` for what drops it"
        ),
    };
    Finding::new("tunnel-port", format!("UDP {port}"), text, fix)
}

fn down(peer: &PeerProbe) -> Finding {
    let PeerProbe {
        subnet, public_ip, ..
    } = peer;
    let text = format!(
        "neither {subnet} nor its host {public_ip} answers: the machine is down, or the network \
         between is"
    );
    let fix = format!("see that {public_ip} is up and reached: ping {public_ip}");
    Finding::new("peer-down", subnet.to_string(), text, fix)
}

fn silent_one(host: &Host, peer: &PeerProbe) -> Finding {
    let PeerProbe {
        subnet, public_ip, ..
    } = peer;
    let port = host.provision.tunnel_port;
    let tunnelled = host.tunnel.as_deref() == Some(peer.link.as_str());
    let (why, fix) = match port.filter(|_| tunnelled) {
        Some(port) => (
            format!("is UDP {port} closed there, or on the way?"),
            format!(
                "open UDP {port} from this host on {public_ip} and between; run `flannel-rs \
                 doctor` there"
            ),
        ),
        None => (
            "does it forward, and has it its bridge?".to_owned(),
            format!("run `flannel-rs doctor` on {public_ip}"),
        ),
    };
    let text = format!(
        "{subnet} does not answer what has left by {}, while its host {public_ip} does: {why}",
        peer.link
    );
    Finding::new("peer-silent", subnet.to_string(), text, fix)
}

/// `path-mtu`: long packets are lost, and nobody says so.
pub(super) fn long_packets(seen: &Examination) -> Vec<Finding> {
    let Some((host, probes)) = probed(seen) else {
        return Vec::new();
    };
    let uplink = seen.links.get(&host.uplink);
    let overhead = uplink.map_or(0, |link| link.mtu.saturating_sub(host.mtu));
    let finding = |peer: &PeerProbe| {
        let Some(Full::Lost(fits)) = peer.full else {
            return None;
        };
        let longest = fits.map_or_else(
            || "none that is much longer than 68 bytes passes".to_owned(),
            |fits| format!("{fits} bytes pass"),
        );
        let text = format!(
            "packets of {} bytes, the MTU of containers, are lost on the way to {}, and short ones \
             are not: {longest}",
            host.mtu, peer.subnet
        );
        let fix = match fits {
            Some(fits) => format!(
                "ip link set {} mtu {}",
                host.uplink,
                u32::from(fits) + overhead
            ),
            None => format!(
                "find the link between here and {} with the smaller MTU: ping -M do -s SIZE",
                peer.public_ip
            ),
        };
        Some(Finding::new("path-mtu", peer.subnet.to_string(), text, fix))
    };
    probes.peers.iter().filter_map(finding).collect()
}

/// `tcp-checksum`: TCP is lost unless its checksum is finished before the packet enters the tunnel.
pub(super) fn tcp(seen: &Examination) -> Vec<Finding> {
    let Some((_, probes)) = probed(seen) else {
        return Vec::new();
    };
    let is_lost = |peer: &&PeerProbe| peer.tcp.is_some_and(|tcp| tcp.finished && !tcp.offloaded);
    let finding = |peer: &PeerProbe| {
        let text = format!(
            "TCP to {} is lost where ICMP, and TCP with a finished checksum, passes: a device \
             finishes checksums wrongly",
            peer.subnet
        );
        let fix = format!("ethtool -K {} tx-checksum-ip-generic off", peer.link);
        Finding::new("tcp-checksum", peer.subnet.to_string(), text, fix)
    };
    probes.peers.iter().filter(is_lost).map(finding).collect()
}

/// `masquerade`: what containers send to the outside keeps an address that nobody there knows.
pub(super) fn outside(seen: &Examination) -> Vec<Finding> {
    let Some((host, probes)) = probed(seen) else {
        return Vec::new();
    };
    let Some(outside) = probes
        .outside
        .as_ref()
        .filter(|_| host.provision.masquerade)
    else {
        return Vec::new();
    };
    let is_bare = outside
        .left
        .is_some_and(|source| host.network.contains(&source));
    if !is_bare || matches!(probes.vantage, Vantage::Host) {
        return Vec::new();
    }
    let text = format!(
        "what containers send to the outside leaves by {} with their own address, to which nobody \
         out there can answer: the masquerade that the config asks for is not in force",
        outside.link
    );
    vec![Finding::new(
        "masquerade",
        &outside.link,
        text,
        "flannel-rs reconcile",
    )]
}
