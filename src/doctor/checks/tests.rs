use std::net::Ipv4Addr;

use super::*;
use crate::doctor::examination::{Full, PeerProbe, SeenChain, SeenHook, Strict, Tcp, Vantage};
use crate::service::status::Fault;
use samples::{PROBE, answered, healthy, link, net};

mod samples;

/// The findings where one thing is different from a healthy host.
#[track_caller]
fn with(change: impl FnOnce(&mut Examination)) -> Vec<Finding> {
    let mut seen = healthy();
    change(&mut seen);
    let found = findings(&seen);
    for finding in &found {
        assert!(
            !finding.text.is_empty() && !finding.fix.is_empty(),
            "{finding:?}"
        );
        let manual = include_str!("../../../docs/doctor.md");
        let code = match finding.code.strip_prefix("fault-") {
            Some(_) => "fault-…",
            None => finding.code.as_str(),
        };
        assert!(
            manual.contains(&format!("\n| `{code}` |")),
            "no {code} in docs/doctor.md"
        );
    }
    found
}

/// The only finding, with this code and this in its fix.
#[track_caller]
fn one(code: &str, fix: &str, change: impl FnOnce(&mut Examination)) -> Finding {
    let found = with(change);
    let [finding] = found.as_slice() else {
        panic!("{found:#?}")
    };
    assert_eq!(finding.code, code, "{finding:?}");
    assert!(finding.fix.contains(fix), "no {fix:?} in {finding:?}");
    finding.clone()
}

fn peer(seen: &mut Examination) -> &mut PeerProbe {
    &mut seen.probes.as_mut().unwrap().peers[0]
}

fn lost(seen: &mut Examination) -> &mut PeerProbe {
    let peer = peer(seen);
    *peer = PeerProbe {
        emerged: false,
        answered: false,
        arrived: false,
        public_answers: Some(true),
        full: None,
        tcp: None,
        ..answered(2)
    };
    peer
}

fn chain(hook: SeenHook) -> SeenChain {
    SeenChain {
        family: "inet".to_owned(),
        table: "filter".to_owned(),
        name: "chain".to_owned(),
        hook,
        drops: true,
    }
}

#[test]
fn nothing_is_found_on_a_healthy_host() {
    assert_eq!(with(|_| ()), []);
    assert_eq!(with(|seen| seen.probes = None), []);
}

#[test]
fn a_service_that_is_silent_or_complains_is_told() {
    one("service", "systemctl start flannel-rs", |seen| {
        seen.silence = Some("not running".to_owned());
        seen.host = None;
        seen.probes = None;
    });
    let fault = |code: &str| Fault {
        code: code.to_owned(),
        text: "something is wrong".to_owned(),
        times: 1,
    };
    let found = one("fault-other-subnet", "flannel-rs renumber", |seen| {
        seen.faults = vec![fault("other-subnet")];
    });
    assert_eq!(found.text, "something is wrong");
    one("fault-new", "journalctl", |seen| {
        seen.faults = vec![fault("new")];
    });
    one("fault-forwarding", "sysctl", |seen| {
        seen.faults = vec![fault("forwarding")];
    });
    one("forwarding", "sysctl", |seen| {
        seen.faults = vec![fault("forwarding")];
        seen.forwards = Some(false);
    });
}

#[test]
fn what_is_not_forwarded_explains_what_is_lost() {
    one("forwarding", "sysctl -w net.ipv4.ip_forward=1", |seen| {
        seen.forwards = Some(false);
        seen.still_links = vec!["docker0".to_owned()];
        seen.ways[0].taken = None;
        lost(seen).left = None;
    });
    one(
        "forwarding",
        "net.ipv4.conf.flannel/1.forwarding=1",
        |seen| {
            seen.still_links = vec!["flannel.1".to_owned()];
            lost(seen).emerged = true;
        },
    );
}

#[test]
fn a_strict_filter_explains_what_is_lost() {
    let finding = one("rp-filter", "net.ipv4.conf.flannel/1.rp_filter=2", |seen| {
        let strict = |third| Strict {
            subnet: net(third),
            link: "flannel.1".to_owned(),
        };
        seen.strict = vec![strict(2), strict(3)];
        lost(seen).emerged = true;
    });
    assert!(
        finding.text.contains("100.96.2.0/24, 100.96.3.0/24"),
        "{finding:?}"
    );
}

#[test]
fn a_bridge_that_is_not_as_it_should_be_is_told() {
    one("bridge", "flannel-rs reconcile", |seen| {
        seen.links.remove("docker0");
    });
    one("bridge", "ip link set docker0 up", |seen| {
        seen.links.get_mut("docker0").unwrap().up = false;
    });
    let finding = one("bridge", "docker.env", |seen| {
        seen.links.get_mut("docker0").unwrap().addresses = vec!["172.17.0.1/16".parse().unwrap()];
    });
    assert!(
        finding.text.contains("has the address 172.17.0.1/16"),
        "{finding:?}"
    );
    assert_eq!(with(|seen| seen.host.as_mut().unwrap().bridge = None), []);
}

#[test]
fn files_for_others_are_compared() {
    one("subnet-env", "reconcile", |seen| seen.subnet_env = None);
    let finding = one("subnet-env", "reconcile", |seen| {
        let text = seen.subnet_env.as_mut().unwrap();
        *text = text.replace("1450", "1500");
    });
    assert!(
        finding.text.contains("lacks the line FLANNEL_MTU=1450"),
        "{finding:?}"
    );
    one("docker-env", "reconcile", |seen| {
        let text = seen.docker_env.as_mut().unwrap();
        *text = text.replace("100.96.1.1", "100.96.9.1");
    });
}

#[test]
fn containers_with_a_larger_mtu_are_told() {
    let finding = one("container-mtu", "--mtu=1450", |seen| {
        seen.links.get_mut("veth1").unwrap().mtu = 1500;
    });
    assert!(finding.text.contains("veth1"), "{finding:?}");
}

#[test]
fn packets_that_go_elsewhere_are_told() {
    one(
        "overlap",
        "ip address delete 100.96.7.1/24 dev tun9",
        |seen| {
            seen.links
                .insert("tun9".to_owned(), link(9, 1500, "100.96.7.1/24"));
        },
    );
    one("overlap", "dev eth1", |seen| {
        seen.links
            .insert("eth1".to_owned(), link(9, 1500, "100.64.0.1/10"));
    });
    one("detour", "ip route get 100.96.2.2", |seen| {
        seen.ways[0].taken = Some(("eth0".to_owned(), Some(Ipv4Addr::new(192, 168, 1, 1))));
        lost(seen).left = None;
    });
    let finding = one("detour", "flannel-rs reconcile", |seen| {
        seen.ways[0].taken = None;
    });
    assert!(finding.text.contains("go nowhere"), "{finding:?}");
}

#[test]
fn another_daemon_and_what_it_leaves_are_told() {
    one("flanneld", "systemctl disable --now flanneld", |seen| {
        seen.flannelds = vec![42];
    });
    one("flanneld-rules", "reconcile", |seen| {
        seen.leftovers = vec!["chain ip filter FLANNEL-FWD".to_owned()];
    });
    assert_eq!(with(|seen| seen.legacy_tables = vec!["nat".to_owned()]), []);
    one("legacy-iptables", "iptables-legacy-save", |seen| {
        seen.legacy_tables = vec!["filter".to_owned()];
        seen.chains = vec![SeenChain {
            family: "ip".to_owned(),
            ..chain(SeenHook::Input)
        }];
    });
}

#[test]
fn neighbours_that_do_not_hear_each_other_are_told() {
    let deaf = |seen: &mut Examination| seen.probes.as_mut().unwrap().neighbour = Some(false);
    one("bridge-drop", "nft list ruleset bridge", deaf);
    one("bridge-drop", "bridge-nf-call-iptables=0", |seen| {
        deaf(seen);
        seen.bridge_calls_iptables = true;
    });
}

#[test]
fn what_never_leaves_is_told_from_what_does_not_come_back() {
    let finding = one("forward-drop", "nft list ruleset", |seen| {
        lost(seen).left = None;
    });
    assert!(
        finding.text.contains("containers send to peers"),
        "{finding:?}"
    );
    let finding = one(
        "forward-drop",
        "nft insert rule inet filter chain ip saddr",
        |seen| {
            lost(seen).emerged = true;
            seen.chains = vec![chain(SeenHook::Input), chain(SeenHook::Forward)];
        },
    );
    assert!(
        finding.text.contains("peers send to containers"),
        "{finding:?}"
    );
    assert_eq!(finding.about, "inet filter chain");
    one("forward-drop", "iptables-legacy -I FORWARD", |seen| {
        lost(seen).left = None;
        seen.legacy_tables = vec!["filter".to_owned()];
    });
    one("forward-drop", "forward = true", |seen| {
        lost(seen).left = None;
        seen.host.as_mut().unwrap().provision.forward = false;
        seen.chains = vec![SeenChain {
            family: "ip".to_owned(),
            name: "FORWARD".to_owned(),
            ..chain(SeenHook::Forward)
        }];
    });
    let order = [("ip", "FORWARD"), ("inet", "chain")].map(|(family, name)| SeenChain {
        family: family.to_owned(),
        name: name.to_owned(),
        ..chain(SeenHook::Forward)
    });
    let finding = one("forward-drop", "inet filter chain", |seen| {
        lost(seen).left = None;
        seen.chains = order.to_vec();
    });
    assert!(
        finding
            .text
            .contains("inet filter chain, ip filter FORWARD"),
        "{finding:?}"
    );
}

#[test]
fn a_rewritten_source_is_told_answered_or_not() {
    for answered in [true, false] {
        let finding = one("rewritten", "--ip-masq=false", |seen| {
            let peer = peer(seen);
            peer.left = Some(Ipv4Addr::new(100, 96, 1, 0));
            peer.answered = answered;
            peer.public_answers = Some(true);
            if !answered {
                // it came back for the one that it was rewritten for
                peer.answered = true;
                peer.full = None;
            }
        });
        assert!(
            finding.text.contains("100.96.1.0 instead of 100.96.1.254"),
            "{finding:?}"
        );
    }
    let from_host = |seen: &mut Examination| seen.probes.as_mut().unwrap().vantage = Vantage::Host;
    assert_eq!(with(from_host), []);
}

#[test]
fn a_silent_peer_a_dead_one_and_a_closed_port_are_told_apart() {
    one("peer-silent", "open UDP 8472", |seen| {
        lost(seen);
    });
    one("peer-down", "ping 192.168.1.48", |seen| {
        lost(seen).public_answers = Some(false);
    });
    one("peer-silent", "doctor` on 192.168.1.48", |seen| {
        lost(seen).link = "eth0".to_owned();
        seen.ways[0].taken = Some(("eth0".to_owned(), None));
        let host = seen.host.as_mut().unwrap();
        host.peers[0].tunnelled = false;
    });
    let arrived = |seen: &mut Examination| lost(seen).arrived = true;
    one(
        "tunnel-port",
        "iptables -I INPUT -p udp --dport 8472",
        arrived,
    );
    one(
        "tunnel-port",
        "nft insert rule inet filter chain udp dport 8472 accept",
        |seen| {
            arrived(seen);
            seen.chains = vec![chain(SeenHook::Forward), chain(SeenHook::Input)];
        },
    );
}

#[test]
fn long_packets_that_are_lost_name_the_mtu_that_is_right() {
    one("path-mtu", "ip link set eth0 mtu 1472", |seen| {
        peer(seen).full = Some(Full::Lost(Some(1422)));
    });
    one("path-mtu", "ping -M do", |seen| {
        peer(seen).full = Some(Full::Lost(None));
    });
}

#[test]
fn tcp_is_lost_only_if_a_finished_one_is_not() {
    let tcp = |offloaded, finished| {
        move |seen: &mut Examination| {
            peer(seen).tcp = Some(Tcp {
                offloaded,
                finished,
            });
        }
    };
    one("tcp-checksum", "ethtool -K flannel.1", tcp(false, true));
    // a host that answers nobody on that port, and says so to nobody
    assert_eq!(with(tcp(false, false)), []);
    assert_eq!(with(tcp(true, false)), []);
}

#[test]
fn a_missing_masquerade_is_told_if_it_was_asked_for() {
    let bare = |seen: &mut Examination| {
        seen.probes.as_mut().unwrap().outside.as_mut().unwrap().left = Some(PROBE);
    };
    one("masquerade", "flannel-rs reconcile", bare);
    let unwanted = |seen: &mut Examination| {
        bare(seen);
        seen.host.as_mut().unwrap().provision.masquerade = false;
    };
    assert_eq!(with(unwanted), []);
    assert_eq!(
        with(|seen| seen.probes.as_mut().unwrap().outside = None),
        []
    );
}
