//! The packet filter: what is masqueraded, what is let through whatever others have set up, and
//! how soon all of it is back.

use std::fs::File;
use std::net::{IpAddr, UdpSocket};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;

use crate::support::lab::{Lab, Shape};
use crate::support::node::Node;
use crate::support::process::until;

/// For so long, at most, packets are lost after others have changed the rules; 0.1 s on a machine
/// that is busy with other tests.
const GAP: Duration = Duration::from_secs(1);

const TABLE: &str = "nft -s list table ip flannel-rs";
const FORWARD: &str = "nft -s list chain ip filter FORWARD";

const VXLAN: &str = r#"{"Type":"vxlan"}"#;

/// What Docker does to a host that has never forwarded.
const DOCKERS: &str =
    "iptables -P FORWARD DROP; iptables -N DOCKER-USER; iptables -A FORWARD -j DOCKER-USER";

/// A lab with this backend, if the tools are there to look at the packet filter.
fn lab(backend: &str) -> Option<Lab> {
    let lab = Lab::with_backend(Shape::Flat, backend)?;
    for tool in ["nft", "iptables"] {
        let version = lab.shown("net", &format!("{tool} --version"));
        if !version.contains("nf") {
            eprintln!("skipped: this needs {tool}, with nf_tables: {version:?}");
            return None;
        }
    }
    Some(lab)
}

/// Runs in a network namespace of the lab, as a thread of its own that enters it.
fn within<T: Send + 'static>(
    lab: &Lab,
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let namespace = PathBuf::from("/run/netns").join(lab.namespace(name));
    thread::spawn(move || {
        setns(File::open(namespace).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
        work()
    })
}

/// The source address that a server in the namespace `to` sees of a client in `from`, once the
/// client has its answer.
fn seen(lab: &Lab, from: &str, to: &str, address: &str) -> IpAddr {
    let (from_to, place) = (
        format!("{from} to {to} at {address}"),
        (address.to_owned(), 9),
    );
    let limit = Some(Duration::from_secs(10));
    let server = within(lab, to, || UdpSocket::bind("0.0.0.0:9").unwrap());
    let server = server.join().unwrap();
    server.set_read_timeout(limit).unwrap();
    let client = within(lab, from, || UdpSocket::bind("0.0.0.0:0").unwrap());
    let client = client.join().unwrap();
    client.set_read_timeout(limit).unwrap();
    client.send_to(b"who am I?", place).unwrap();
    let heard = server.recv_from(&mut [0; 16]);
    assert!(heard.is_ok(), "{from_to}: nothing has come: {heard:?}");
    let (_, source) = heard.unwrap();
    server.send_to(b"you", source).unwrap();
    let answer = client.recv_from(&mut [0; 16]);
    assert!(answer.is_ok(), "{from_to}, seen as {source}: {answer:?}");
    source.ip()
}

/// flannel's rules, one packet for each. `relayed` is what the container of another node sees of
/// a client that comes by node1.
fn sources_are_right(backend: &str, relayed: &str) {
    let Some(lab) = lab(backend) else { return };
    let _nodes = lab.start_all();
    lab.wait_until_connected();
    lab.must(
        "net",
        "ip route add 100.96.1.0/24 via 192.168.1.47; ip route add 100.96.2.0/24 via 192.168.1.47
         ip route add 100.96.3.0/24 via 192.168.1.49",
    );
    for (from, to, address, source) in [
        ("c1", "net", "192.168.1.1", "192.168.1.47"),
        ("c1", "node2", "192.168.1.48", "192.168.1.47"),
        ("c1", "c2", "100.96.2.2", "100.96.1.2"),
        ("c2", "c1", "100.96.1.2", "100.96.2.2"),
        ("net", "c1", "100.96.1.2", "192.168.1.1"),
        ("net", "c3", "100.96.3.2", "192.168.1.1"),
        ("net", "c2", "100.96.2.2", relayed),
    ] {
        let found = seen(&lab, from, to, address);
        assert_eq!(found.to_string(), source, "{from} to {to} at {address}");
    }
}

#[test]
fn vxlan_masquerades_as_flannel_does() {
    sources_are_right(VXLAN, "100.96.1.0");
}

#[test]
fn host_gw_masquerades_as_flannel_does() {
    sources_are_right(r#"{"Type":"host-gw"}"#, "192.168.1.47");
}

#[test]
fn udp_masquerades_as_flannel_does() {
    sources_are_right(r#"{"Type":"udp"}"#, "100.96.1.0");
}

/// The rules of a chain that `nft` shows, without those for base chains.
fn rules(node: &Node, command: &str) -> Vec<String> {
    let shown = node.shown(command);
    let lines = shown.lines().map(str::trim);
    let rules = lines.filter(|line| {
        let outer = ["table ", "chain ", "type ", "}", "#"];
        !line.is_empty() && !outer.iter().any(|start| line.starts_with(start))
    });
    rules.map(str::to_owned).collect()
}

/// Whether our two rules are in `FORWARD`, after so many others.
fn passes_at(node: &Node, place: usize) -> bool {
    let rules = rules(node, FORWARD);
    let ours = |rule: &String| rule.contains("100.96.0.0/16") && rule.contains("accept");
    let marked = rules.iter().filter(|rule| rule.contains("flannel-rs"));
    marked.count() == 2 && rules.iter().skip(place).take(2).filter(|r| ours(r)).count() == 2
}

#[test]
fn a_policy_of_drop_stops_no_container() {
    let Some(lab) = lab(VXLAN) else { return };
    let mut nodes = [1, 2, 3].map(|number| lab.node(number));
    for node in &mut nodes {
        node.must(DOCKERS);
        node.start();
    }
    for node in &mut nodes {
        node.wait_until_ready();
        lab.container(node);
    }
    lab.wait_until_connected();
    for node in &nodes {
        until("the rules stand behind DOCKER-USER", || passes_at(node, 1));
        // a table with a rule that it cannot read would be closed to iptables
        let shown = node.must("iptables -S FORWARD");
        assert!(shown.contains("-P FORWARD DROP"), "{shown}");
        assert!(shown.contains("-s 100.96.0.0/16"), "{shown}");
    }
}

/// For how long, all in all, pings had no answer.
fn gap(lost: usize, sent: u32, took: Duration) -> Duration {
    took * u32::try_from(lost).unwrap() / sent.max(1)
}

/// Does each of this to node1, after `before`, under traffic, and sees it undone: our rules stand
/// in `FORWARD` after so many others then. A row that is repaired three times within seconds is a
/// dispute, and waits; so none is here.
fn is_undone(before: &str, changes: &[(&str, Option<usize>)]) {
    let Some(lab) = lab(VXLAN) else { return };
    let mut nodes = [1, 2].map(|number| lab.node(number));
    for node in &mut nodes {
        node.must(before);
        node.start();
    }
    for node in &mut nodes {
        node.wait_until_ready();
        lab.container(node);
    }
    let connected = || until("the containers reach each other", || lab.reaches(1, 2));
    connected();
    let node = &nodes[0];
    let table = node.shown(TABLE);
    assert!(table.contains("masquerade"), "{table}");
    for (change, place) in changes {
        let began = Instant::now();
        let pings = lab.ping(1, 2);
        thread::sleep(Duration::from_millis(300));
        node.must(change);
        let took = until(&format!("all is back after: {change}"), || {
            node.shown(TABLE) == table && place.is_none_or(|place| passes_at(node, place))
        });
        let tally = pings.finish();
        let gap = gap(tally.lost.len(), tally.sent, began.elapsed());
        eprintln!("{took:>9.0?} to undo, nothing came for {gap:.0?}: {change}");
        assert!(gap < GAP, "{gap:?} without an answer: {change}");
        connected();
    }
    until("it is said to be well", || {
        node.status_line().ends_with("datastore ok")
    });
}

#[test]
fn rules_that_others_flush_are_back() {
    is_undone(
        ":",
        &[
            ("iptables -P FORWARD DROP", Some(0)),
            ("nft delete table ip flannel-rs", Some(0)),
            ("iptables -F", Some(0)),
            ("nft flush set ip flannel-rs peers", Some(0)),
        ],
    );
}

#[test]
fn rules_that_others_put_before_ours_come_after_them() {
    is_undone(
        "iptables -P FORWARD DROP",
        &[
            ("iptables -I FORWARD -s 100.96.0.0/16 -j DROP", Some(0)),
            (
                "iptables -N DOCKER-USER; iptables -I FORWARD -j DOCKER-USER",
                Some(1),
            ),
            (
                "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 1 > $f; done",
                Some(1),
            ),
        ],
    );
}

#[test]
fn a_flush_of_all_rules_is_undone() {
    is_undone(
        DOCKERS,
        &[
            ("nft flush ruleset", None),
            ("iptables -P FORWARD DROP", Some(0)),
            ("nft flush chain ip flannel-rs postrouting", Some(0)),
        ],
    );
}

#[test]
fn a_restart_leaves_the_rules_as_they_are() {
    let Some(lab) = lab(VXLAN) else { return };
    let mut nodes = [1, 2].map(|number| lab.node(number));
    for node in &mut nodes {
        node.must(DOCKERS);
        node.start();
    }
    for node in &mut nodes {
        node.wait_until_ready();
        lab.container(node);
    }
    until("the containers reach each other", || lab.reaches(1, 2));
    // handles tell one making of a rule from another
    let whole = "nft -s -a list ruleset";
    let before = nodes[0].shown(whole);
    let pings = lab.ping(1, 2);
    let node = &mut nodes[0];
    node.kill();
    assert_eq!(node.shown(whole), before);
    node.start();
    node.wait_until_ready();
    node.wait_for_status("1 of 1 peers");
    assert_eq!(node.shown(whole), before);
    assert_eq!(node.stop(), Some(0));
    assert_eq!(node.shown(whole), before);
    let tally = pings.finish();
    assert_eq!(tally.lost, [0; 0], "of {}", tally.sent);
}

#[test]
fn the_sets_follow_the_peers_and_the_rules_stay() {
    let Some(lab) = lab(VXLAN) else { return };
    let mut node = lab.node(1);
    node.start();
    node.wait_until_ready();
    let rules = "nft -s -a list chain ip flannel-rs input";
    let before = node.shown(rules);
    assert!(before.contains("udp dport 8472"), "{before}");
    let value = r#"{"PublicIP":"192.168.1.60","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:60"}}"#;
    let sets = ["peers", "origins"].map(|set| format!("nft list set ip flannel-rs {set}"));
    lab.write_lease("100.96.60.0-24", value, false);
    for set in &sets {
        node.wait_for(set, "192.168.1.60");
    }
    lab.delete_lease("100.96.60.0-24");
    for set in &sets {
        node.wait_for_end(set, "192.168.1.60");
    }
    assert_eq!(node.shown(rules), before);
}

#[test]
fn switched_off_there_is_nothing_of_ours() {
    let Some(lab) = lab(VXLAN) else { return };
    let mut node = lab.node(1);
    node.must(DOCKERS);
    let before = node.shown("nft -s list ruleset");
    let text = std::fs::read_to_string(node.config()).unwrap();
    let config = node.config();
    let (code, plan, error) = node.program(&["plan", "--config", config.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{error}");
    for line in [
        "nftables table ip flannel-rs with 10 rules",
        "rules of ours in ip filter FORWARD with 2 rules",
    ] {
        assert!(plan.contains(line), "{plan}");
    }
    assert_eq!(node.shown("nft -s list ruleset"), before);
    node.start();
    node.wait_until_ready();
    assert!(node.shown(TABLE).contains("masquerade"));
    assert!(node.subnet_env().contains("FLANNEL_IPMASQ=true\n"));
    let off = "[firewall]\nmasquerade = false\nforward = false\nprotect-tunnel-port = false\n\
               verify-source = false\n";
    std::fs::write(node.config(), format!("{off}{text}")).unwrap();
    node.signal(Signal::SIGHUP);
    until("nothing is left", || {
        node.shown("nft -s list ruleset") == before
    });
    until("the files say so", || {
        node.subnet_env().contains("FLANNEL_IPMASQ=false\n")
            && node.file("docker.env").contains("--ip-masq=true")
    });
    std::fs::write(node.config(), text).unwrap();
    node.signal(Signal::SIGHUP);
    node.wait_for(TABLE, "masquerade");
    until("the rules stand behind DOCKER-USER", || passes_at(&node, 1));
}

/// As `iptables` shows the rules of flanneld (flannel facts §7).
const FLANNELDS: &str = "
    iptables -t nat -N FLANNEL-POSTRTG
    iptables -t nat -A POSTROUTING -m comment --comment 'flanneld masq' -j FLANNEL-POSTRTG
    iptables -t nat -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment 'flanneld masq' -j RETURN
    iptables -t nat -A FLANNEL-POSTRTG -s 100.96.0.0/16 ! -d 224.0.0.0/4 -m comment --comment 'flanneld masq' -j MASQUERADE --random-fully
    iptables -N FLANNEL-FWD
    iptables -A FORWARD -m comment --comment 'flanneld forward' -j FLANNEL-FWD
    iptables -A FLANNEL-FWD -s 100.96.0.0/16 -m comment --comment 'flanneld forward' -j ACCEPT
    nft add table ip flannel-ipv4
    nft add chain ip flannel-ipv4 postrtg '{ type nat hook postrouting priority 100 ; }'
    nft add table ip6 flannel-ipv6";

#[test]
fn what_flanneld_left_goes_and_other_rules_stay() {
    let Some(lab) = lab(VXLAN) else { return };
    let mut node = lab.node(1);
    node.must(FLANNELDS);
    node.must("iptables -t nat -A POSTROUTING -s 198.51.100.0/24 -j MASQUERADE; iptables -A FORWARD -s 198.51.100.0/24 -j DROP");
    node.start();
    node.wait_until_ready();
    let all = || node.shown("nft -s list ruleset");
    until("all of it is gone", || {
        !["FLANNEL-", "flanneld", "flannel-ipv"]
            .iter()
            .any(|name| all().contains(name))
    });
    assert_eq!(all().matches("198.51.100.0/24").count(), 2, "{}", all());
    assert!(all().contains("table ip flannel-rs"), "{}", all());
}
