//! What can be told from settings, and from what the kernel and the service say.

use ipnet::Ipv4Net;

use crate::doctor::examination::Examination;
use crate::doctor::finding::Finding;
use crate::doctor::host::Host;

/// `service`, `fault-…`: the service does not answer, or says itself what is wrong.
pub(super) fn service(seen: &Examination) -> Vec<Finding> {
    let silent = seen.silence.as_ref().map(|why| {
        let text = format!("the service does not answer: {why}");
        Finding::new("service", "flannel-rs", text, "systemctl start flannel-rs")
    });
    let faults = seen.faults.iter().filter(|fault| {
        // told below, more exactly
        let told = fault.code == "forwarding" && is_still(seen);
        !told
    });
    let passed_on = faults.map(|fault| {
        let code = format!("fault-{}", fault.code);
        Finding::new(&code, "flannel-rs", fault.text.clone(), remedy(&fault.code))
    });
    silent.into_iter().chain(passed_on).collect()
}

/// What to do about a fault of the service beyond what its text says.
fn remedy(fault: &str) -> &'static str {
    match fault {
        "config" => "flannel-rs check, and systemctl reload flannel-rs",
        "datastore" | "network-config" => {
            "see that the datastore of [datastore] in /etc/flannel-rs/config.toml runs and is \
             reached; the service tries on by itself"
        }
        "renumber-required" | "subnet-conflict" | "other-subnet" => "flannel-rs renumber",
        "foreign-link" => {
            "stop who uses the link that is named, delete it with `ip link delete`, and run \
             `flannel-rs reconcile`"
        }
        "files" | "state" => "make the folder that is named writable for the service",
        "peers" => "flannel-rs peers, and run flannel-rs doctor on the nodes that it names",
        "forwarding" => "sysctl -w net.ipv4.ip_forward=1",
        "contested" | "foreign-manager" => {
            "have the program that is named leave the links of flannel-rs alone: docs/install.md"
        }
        _ => "do what the text says; more is in journalctl -u flannel-rs",
    }
}

fn is_still(seen: &Examination) -> bool {
    seen.forwards == Some(false) || !seen.still_links.is_empty()
}

/// `forwarding`: the kernel does not forward packets, at all or from a link.
pub(super) fn forwarding(seen: &Examination) -> Vec<Finding> {
    if seen.forwards == Some(false) {
        let text = "the kernel forwards no packets: net.ipv4.ip_forward is 0";
        let fix = "sysctl -w net.ipv4.ip_forward=1";
        return vec![Finding::new("forwarding", "ip_forward", text, fix)];
    }
    let still = seen.still_links.iter().map(|link| {
        let text = format!("the kernel forwards nothing that comes in by {link}");
        let fix = format!("sysctl -w net.ipv4.conf.{}.forwarding=1", slashed(link));
        Finding::new("forwarding", link, text, fix)
    });
    still.collect()
}

/// The name of a link in that of a sysctl(8) variable, where the dots of the one are slashes.
fn slashed(link: &str) -> String {
    link.replace('.', "/")
}

/// `rp-filter`: reverse path filtering drops what peers send.
pub(super) fn strict_filter(seen: &Examination) -> Vec<Finding> {
    let mut links: Vec<&str> = seen.strict.iter().map(|row| row.link.as_str()).collect();
    links.sort_unstable();
    links.dedup();
    let finding = |link: &str| {
        let of_link = seen.strict.iter().filter(|row| row.link == link);
        let nets: Vec<String> = of_link.map(|row| row.subnet.to_string()).collect();
        let text = format!(
            "strict reverse path filtering drops packets that come in by {link}: of {}; the kernel \
             would send the answers by another link",
            nets.join(", ")
        );
        let fix = format!("sysctl -w net.ipv4.conf.{}.rp_filter=2", slashed(link));
        Finding::new("rp-filter", link, text, fix)
    };
    links.into_iter().map(finding).collect()
}

/// `bridge`: the containers' bridge is missing, down, or has another address.
pub(super) fn bridge(seen: &Examination) -> Vec<Finding> {
    let Some((host, name)) = seen
        .host
        .as_ref()
        .and_then(|h| Some((h, h.bridge.as_ref()?)))
    else {
        return Vec::new();
    };
    let gateway = host.subnet.gateway();
    let (text, fix) = match seen.links.get(name) {
        None => (
            format!("the bridge {name} for containers is not there"),
            "flannel-rs reconcile".to_owned(),
        ),
        Some(link) if !link.up => (
            format!("the bridge {name} is down"),
            format!("ip link set {name} up"),
        ),
        Some(link) if !link.addresses.contains(&gateway) => {
            let has: Vec<String> = link.addresses.iter().map(ToString::to_string).collect();
            let has = match has.as_slice() {
                [] => "none".to_owned(),
                _ => has.join(", "),
            };
            (
                format!(
                    "the bridge {name} has the address {has}, and should have {gateway}: \
                     containers there are in a subnet that no peer sends to"
                ),
                format!(
                    "stop the containers, give dockerd the options of {}, and run `flannel-rs \
                     reconcile`",
                    host.provision.docker_env
                ),
            )
        }
        Some(_) => return Vec::new(),
    };
    vec![Finding::new("bridge", name, text, fix)]
}

/// `subnet-env`, `docker-env`: a file for others is missing, or says something else.
pub(super) fn files(seen: &Examination) -> Vec<Finding> {
    let Some(host) = &seen.host else {
        return Vec::new();
    };
    let gateway = host.subnet.gateway();
    let subnet_env = [
        format!("FLANNEL_NETWORK={}", host.network),
        format!("FLANNEL_SUBNET={gateway}"),
        format!("FLANNEL_MTU={}", host.mtu),
    ];
    let docker_env = [
        format!("DOCKER_OPT_BIP=\"--bip={gateway}\""),
        format!("DOCKER_OPT_MTU=\"--mtu={}\"", host.mtu),
    ];
    let provision = &host.provision;
    let files = [
        (
            "subnet-env",
            &provision.subnet_env,
            &seen.subnet_env,
            subnet_env.as_slice(),
        ),
        (
            "docker-env",
            &provision.docker_env,
            &seen.docker_env,
            &docker_env,
        ),
    ];
    let finding = |(code, path, text, lines): (&str, &String, &Option<String>, &[String])| {
        let wrong = match text {
            None => format!("{path} cannot be read, or is not there"),
            Some(text) => {
                let has = |line: &&String| !text.lines().any(|found| found == line.as_str());
                let missing = lines.iter().find(has)?;
                format!("{path} lacks the line {missing}")
            }
        };
        let text =
            format!("{wrong}: containers that are started by it get no, or a wrong, network");
        Some(Finding::new(code, path, text, "flannel-rs reconcile"))
    };
    files.into_iter().filter_map(finding).collect()
}

/// `container-mtu`: containers may send packets that are longer than the overlay carries.
pub(super) fn container_mtus(seen: &Examination) -> Vec<Finding> {
    let Some(host) = &seen.host else {
        return Vec::new();
    };
    let on_bridge = |bridge: &Option<String>| bridge.is_some() && *bridge == host.bridge;
    let ports = seen
        .links
        .iter()
        .filter(|(_, link)| on_bridge(&link.bridge));
    let long: Vec<&str> = ports
        .filter(|(_, link)| link.mtu > host.mtu)
        .map(|(name, _)| name.as_str())
        .collect();
    let Some(first) = long.first() else {
        return Vec::new();
    };
    let others = match long.len() - 1 {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let text = format!(
        "containers have a larger MTU than {}, which the overlay carries: those on {first}{others}",
        host.mtu
    );
    let fix = format!(
        "give dockerd the options of {} (--mtu={}), and make the containers anew",
        host.provision.docker_env, host.mtu
    );
    let bridge = host.bridge.clone().unwrap_or_default();
    vec![Finding::new("container-mtu", bridge, text, fix)]
}

/// `overlap`: another link has an address in the network.
pub(super) fn overlaps(seen: &Examination) -> Vec<Finding> {
    let Some(host) = &seen.host else {
        return Vec::new();
    };
    let ours: Vec<&str> = [host.bridge.as_deref(), host.tunnel.as_deref()]
        .into_iter()
        .flatten()
        .collect();
    let of_link = |(name, address): (&String, &Ipv4Net)| {
        let text = format!(
            "{name} has the address {address}, which is in the network {}: packets to containers \
             there stay on this host",
            host.network
        );
        let fix = format!("ip address delete {address} dev {name}");
        Finding::new("overlap", name, text, fix)
    };
    let others = seen
        .links
        .iter()
        .filter(|(name, _)| !ours.contains(&name.as_str()));
    let addresses = others.flat_map(|(name, link)| link.addresses.iter().map(move |a| (name, a)));
    let inside = addresses.filter(|(_, address)| overlap(&address.trunc(), &host.network));
    // without a bridge of ours it is on somebody else's link, or on one for each container
    let is_ours =
        |address: &Ipv4Net| host.bridge.is_none() && host.subnet.v4().contains(&address.addr());
    let inside = inside.filter(|(_, address)| !is_ours(address));
    inside.map(of_link).collect()
}

fn overlap(one: &Ipv4Net, other: &Ipv4Net) -> bool {
    // the whole of it is the default, and no network of anybody's
    let proper = one.prefix_len() > 0;
    proper && (one.contains(other) || other.contains(one))
}

/// `detour`: the kernel sends what is for a peer elsewhere.
pub(super) fn detours(seen: &Examination) -> Vec<Finding> {
    let Some(host) = seen.host.as_ref().filter(|_| !is_still(seen)) else {
        return Vec::new();
    };
    let finding = |(subnet, want): (Ipv4Net, &str)| {
        let way = seen.ways.iter().find(|way| way.subnet == subnet)?;
        let (taken, fix) = match &way.taken {
            None => ("nowhere".to_owned(), "flannel-rs reconcile".to_owned()),
            Some((link, _)) if link == want => return None,
            Some((link, gateway)) => {
                let by = gateway.map(|gateway| format!(" via {gateway}"));
                let taken = format!("by {link}{}", by.unwrap_or_default());
                let fix = format!(
                    "see `ip route get {}` and `ip rule`: delete the route or the rule that \
                     leads to {link}",
                    after(subnet)
                );
                (taken, fix)
            }
        };
        let text = format!("packets to {subnet} go {taken}, and should go by {want}");
        Some(Finding::new("detour", subnet.to_string(), text, fix))
    };
    let wanted = host
        .peers
        .iter()
        .map(|peer| (peer.subnet.v4(), host.link_to(peer)));
    wanted.filter_map(finding).collect()
}

fn after(subnet: Ipv4Net) -> std::net::Ipv4Addr {
    u32::from(subnet.network()).saturating_add(2).into()
}

/// `flanneld`, `flanneld-rules`: another daemon of the same network, or what it has left.
pub(super) fn flanneld(seen: &Examination) -> Vec<Finding> {
    let running = (!seen.flannelds.is_empty()).then(|| {
        let numbers: Vec<String> = seen.flannelds.iter().map(ToString::to_string).collect();
        let text = format!(
            "flanneld runs beside flannel-rs (process {}): both write the same routes and devices",
            numbers.join(", ")
        );
        let fix = "systemctl disable --now flanneld";
        Finding::new("flanneld", "flanneld", text, fix)
    });
    let left = (!seen.leftovers.is_empty()).then(|| {
        let text = format!("flanneld has left {}", seen.leftovers.join(", "));
        Finding::new(
            "flanneld-rules",
            "packet filter",
            text,
            "flannel-rs reconcile",
        )
    });
    running.into_iter().chain(left).collect()
}

/// `legacy-iptables`: two packet filters at once, of which each tool shows one.
pub(super) fn legacy(seen: &Examination) -> Vec<Finding> {
    let beside = seen
        .chains
        .iter()
        .find(|chain| chain.family == "ip" && seen.legacy_tables.contains(&chain.table));
    let Some(chain) = beside else {
        return Vec::new();
    };
    let text = format!(
        "the tables {} of iptables-legacy are loaded beside nftables' ip {}: what one lets through \
         the other may drop, and iptables shows one of them",
        seen.legacy_tables.join(", "),
        chain.table
    );
    let fix = "see `iptables-legacy-save`, move what is needed to iptables-nft, then unload \
               the modules iptable_filter, iptable_nat, iptable_mangle, iptable_raw";
    vec![Finding::new(
        "legacy-iptables",
        "iptables-legacy",
        text,
        fix,
    )]
}

/// The links of a host that containers' packets take, for a finding's text.
pub(super) fn path(host: &Host) -> String {
    host.links().collect::<Vec<_>>().join(", ")
}
