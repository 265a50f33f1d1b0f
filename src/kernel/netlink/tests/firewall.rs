//! The packet filter.

use std::net::Ipv4Addr;

use super::*;
use crate::kernel::Failure;
use crate::kernel::firewall::{
    Firewall, ForeignChain, Is, Leftover, MARK, Match, Rule, Set, Step, Table, Verdict,
};
use sample::{counted, hosts, net, origins, sample};

mod foreign;
mod notice;
mod sample;
mod sets;

async fn tried(kernel: &mut Netlink, step: Step) -> Vec<Failure> {
    kernel.apply(&[Change::Firewall(step)]).await.unwrap()
}

async fn made(kernel: &mut Netlink, step: Step) {
    let failures = tried(kernel, step).await;
    assert_eq!(failures, []);
}

/// With our own subnet 100.96.1.0/24.
async fn seen(kernel: &mut Netlink) -> Firewall {
    let scope = Scope {
        own: Some(net("100.96.1.0/24")),
        ..Scope::default()
    };
    kernel.observe(&scope).await.unwrap().firewall
}

fn table_seen(table: Table) -> Firewall {
    Firewall {
        table: Some(table),
        ..Firewall::default()
    }
}

#[test]
fn every_kind_of_rule_reads_back_as_it_was_written() {
    in_namespace(|| async {
        let mut kernel = Netlink::connect().unwrap();
        assert_eq!(seen(&mut kernel).await, Firewall::default());
        for peers in [3, 0, 2500] {
            let table = sample(peers);
            made(&mut kernel, Step::PutTable(table.clone())).await;
            assert_eq!(seen(&mut kernel).await, table_seen(table), "{peers} peers");
        }
        let unscoped = kernel.observe(&Scope::default()).await.unwrap();
        assert_eq!(unscoped.firewall, table_seen(sample(2500)));
        for _ in 0..2 {
            made(&mut kernel, Step::DelTable).await;
            assert_eq!(seen(&mut kernel).await, Firewall::default());
        }
    });
}

#[test]
fn nft_shows_what_was_meant() {
    in_namespace(|| async {
        made(&mut Netlink::connect().unwrap(), Step::PutTable(sample(2))).await;
        let listed = run("nft", "list table ip flannel-rs");
        for words in [
            "type ipv4_addr\n",
            "type ipv4_addr . ipv4_addr\n\t\tflags interval\n",
            "192.168.0.1 . 100.96.1.0/24",
            "type nat hook postrouting priority srcnat; policy accept;",
            "type filter hook input priority filter - 10; policy accept;",
            "meta mark & 0x00004000 == 0x00004000 return",
            "ip saddr 100.96.1.0/24 ip daddr 100.96.0.0/16 counter packets 0 bytes 0 return \
             comment \"within the network\"",
            "ip saddr != 10.64.0.0/11 return",
            "ip saddr 100.96.0.0/16 ip daddr != 224.0.0.0/4 counter packets 0 bytes 0 \
             masquerade fully-random comment \"out\"",
            "udp dport 8472 ip saddr != @peers counter packets 0 bytes 0 drop comment \"no peer\"",
            "ip saddr . @th,336,32 != @origins counter packets 0 bytes 0 drop \
             comment \"not from there\"",
        ] {
            assert!(listed.contains(words), "{words:?}\n{listed}");
        }
        let json = run("nft", "-j list table ip flannel-rs");
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let objects = json["nftables"].as_array().unwrap();
        let of_kind = |kind: &str| objects.iter().filter(|o| o.get(kind).is_some()).count();
        let found = ["table", "set", "chain", "rule"].map(of_kind);
        assert_eq!(found, [1, 2, 3, 11], "{json:#}");
    });
}

#[test]
fn what_was_altered_by_others_is_seen() {
    in_namespace(|| async {
        let mut kernel = Netlink::connect().unwrap();
        let table = sample(2);
        for alteration in [
            "add rule ip flannel-rs forward accept",
            "insert rule ip flannel-rs input tcp dport 22 accept",
            "add rule ip flannel-rs input ip saddr 10.0.0.1 log drop",
            "flush chain ip flannel-rs postrouting",
            "add chain ip flannel-rs other",
            "add chain ip flannel-rs forward { policy drop ; }",
            "add element ip flannel-rs peers { 10.9.9.9 }",
            "flush set ip flannel-rs origins",
            "add table ip flannel-rs { flags dormant ; }",
            "delete chain ip flannel-rs forward",
        ] {
            made(&mut kernel, Step::PutTable(table.clone())).await;
            assert_eq!(seen(&mut kernel).await, table_seen(table.clone()));
            run("nft", alteration);
            let found = seen(&mut kernel).await;
            assert!(
                found.table.is_some() && found.table != Some(table.clone()),
                "{alteration}: {found:#?}"
            );
        }
        made(&mut kernel, Step::PutTable(table.clone())).await;
        assert_eq!(seen(&mut kernel).await, table_seen(table));
    });
}

#[test]
fn a_refusal_changes_nothing_and_names_what_was_refused() {
    in_namespace(|| async {
        let mut kernel = Netlink::connect().unwrap();
        made(&mut kernel, Step::PutTable(sample(2))).await;
        let mut wrong = sample(5);
        wrong.sets.remove("peers");
        let failures = tried(&mut kernel, Step::PutTable(wrong.clone())).await;
        let [failure] = &*failures else {
            panic!("{failures:#?}");
        };
        assert_eq!(failure.change, Change::Firewall(Step::PutTable(wrong)));
        let named = failure
            .reason
            .contains("at rule \"no peer\" of flannel-rs input");
        assert!(named, "{}", failure.reason);
        assert_eq!(seen(&mut kernel).await, table_seen(sample(2)));
    });
}

#[test]
fn without_privilege_the_packet_filter_alone_is_not_read() {
    in_namespace(|| async {
        made(&mut Netlink::connect().unwrap(), Step::PutTable(sample(2))).await;
        let mut before = Netlink::connect().unwrap();
        assert_eq!(seen(&mut before).await, table_seen(sample(2)));
        reading::drop_privileges();
        for mut kernel in [before, Netlink::connect().unwrap()] {
            let refusal = seen(&mut kernel).await.refusal.unwrap_or_default();
            assert!(refusal.ends_with("needs CAP_NET_ADMIN"), "{refusal}");
            for step in [Step::PutTable(sample(2)), Step::DelTable] {
                let failures = tried(&mut kernel, step).await;
                assert_eq!(failures.len(), 1, "{failures:?}");
                let reason = &failures[0].reason;
                assert!(reason.ends_with("needs CAP_NET_ADMIN"), "{reason}");
            }
        }
    });
}

#[test]
fn a_port_is_closed_before_there_is_a_tunnel() {
    in_namespace(|| async {
        let mut kernel = Netlink::connect().unwrap();
        // both are refused, in the order in which they were tried
        let link = Change::AddLink("lo".to_owned(), bridge_link());
        let filter = Change::Firewall(Step::PutMembers("peers".to_owned(), hosts(1)));
        let failures = kernel.apply(&[link.clone(), filter.clone()]).await.unwrap();
        let refused: Vec<Change> = failures.into_iter().map(|one| one.change).collect();
        assert_eq!(refused, [filter, link]);
    });
}
