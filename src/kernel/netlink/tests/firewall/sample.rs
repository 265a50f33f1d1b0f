//! A table with one of everything.

use ipnet::Ipv4Net;

use super::*;
use crate::kernel::firewall::{Chain, Hook};

pub(super) fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

fn rule(matches: Vec<Match>, verdict: Verdict) -> Rule {
    Rule {
        matches,
        counted: false,
        verdict,
        comment: String::new(),
    }
}

pub(super) fn counted(matches: Vec<Match>, verdict: Verdict, comment: &str) -> Rule {
    Rule {
        counted: true,
        comment: comment.to_owned(),
        ..rule(matches, verdict)
    }
}

pub(super) fn hosts(count: u32) -> Set {
    let host = |n: u32| Ipv4Addr::from_bits(0xc0a8_0000 + n);
    Set::Hosts((0..count).map(host).collect())
}

pub(super) fn origins(count: u32) -> Set {
    let origin = |n: u32| {
        let subnet = Ipv4Addr::from_bits(0x6460_0000 + (n << 8));
        let host = Ipv4Addr::from_bits(0xc0a8_0000 + n);
        (host, Ipv4Net::new(subnet, 24).unwrap())
    };
    Set::Origins((0..count).map(origin).collect())
}

pub(super) fn sample(peers: u32) -> Table {
    let chain = |(name, hook, priority): (&str, _, _), rules| {
        let chain = Chain {
            hook,
            priority,
            rules,
        };
        (name.to_owned(), chain)
    };
    Table {
        sets: [
            ("peers".to_owned(), hosts(peers)),
            ("origins".to_owned(), origins(peers)),
        ]
        .into(),
        chains: [
            chain(("postrouting", Hook::Postrouting, 100), postrouting()),
            chain(("input", Hook::Input, -10), input()),
            chain(("forward", Hook::Forward, 0), vec![]),
        ]
        .into(),
    }
}

fn postrouting() -> Vec<Rule> {
    let (all, own) = (net("100.96.0.0/16"), net("100.96.1.0/24"));
    let mark = Match::Mark {
        mask: 0x4000,
        value: 0x4000,
    };
    let from = |is, text| vec![Match::Source(is, net(text))];
    let within = vec![Match::Source(Is::In, own), Match::Destination(Is::In, all)];
    let multicast = Match::Destination(Is::NotIn, net("224.0.0.0/4"));
    let out = vec![Match::Source(Is::In, all), multicast];
    vec![
        rule(vec![mark], Verdict::Return),
        counted(within, Verdict::Return, "within the network"),
        rule(from(Is::NotIn, "10.64.0.0/11"), Verdict::Return),
        rule(from(Is::In, "10.0.0.1/32"), Verdict::Return),
        rule(from(Is::In, "10.0.0.0/8"), Verdict::Return),
        counted(out, Verdict::Masquerade, "out"),
    ]
}

fn input() -> Vec<Rule> {
    let inner = |is, text| Match::TunnelAddress {
        is,
        offset: 42,
        net: net(text),
    };
    let ipv4 = Match::TunnelHalf {
        offset: 28,
        value: 0x0800,
    };
    let elsewhere = Match::Origin {
        is: Is::NotIn,
        offset: 42,
        set: "origins".to_owned(),
    };
    let within = inner(Is::In, "100.96.0.0/16");
    let spoof = vec![Match::UdpPort(8472), ipv4, within, elsewhere];
    let peer = |is| Match::SourceIn(is, "peers".to_owned());
    let stranger = vec![Match::UdpPort(8472), peer(Is::NotIn)];
    let known = vec![Match::UdpPort(8285), peer(Is::In)];
    vec![
        counted(stranger, Verdict::Drop, "no peer"),
        counted(spoof, Verdict::Drop, "not from there"),
        rule(known, Verdict::Accept),
        rule(vec![inner(Is::NotIn, "10.64.0.0/11")], Verdict::Return),
        rule(vec![inner(Is::In, "10.64.1.2/32")], Verdict::Return),
    ]
}
