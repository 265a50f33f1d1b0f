use super::*;
use crate::kernel::firewall::{Firewall, ForeignChain, Leftover, Rule, Set, Verdict};

fn state(firewall: Firewall) -> KernelState {
    KernelState {
        firewall,
        ..KernelState::default()
    }
}

fn steps(observed: &Firewall, desired: &Firewall) -> Vec<String> {
    changes(&state(observed.clone()), &state(desired.clone()))
}

fn altered(alter: impl FnOnce(&mut Firewall)) -> Firewall {
    let mut firewall = firewall();
    alter(&mut firewall);
    firewall
}

/// What a host shows that has chains of others, and nothing of ours.
fn bare() -> Firewall {
    altered(|bare| {
        bare.table = None;
        bare.passes.values_mut().for_each(Vec::clear);
    })
}

const PUT_TABLE: &str = "replace nftables table ip flannel-rs with 1 rules";

const PUT_PASSES: [&str; 4] = [
    "replace rules of ours in ip filter FORWARD with 1 rules",
    "replace rules of ours in ip raw PREROUTING with 1 rules",
    "replace rules of ours in ip docker-bridges filter-FORWARD with 1 rules",
    "replace rules of ours in ip docker-bridges raw-PREROUTING with 1 rules",
];

#[test]
fn a_host_gets_the_table_and_passes_in_the_chains_that_it_has() {
    let desired = firewall();
    assert_eq!(steps(&Firewall::default(), &desired), [PUT_TABLE]);
    let all = [&[PUT_TABLE][..], &PUT_PASSES].concat();
    assert_eq!(steps(&bare(), &desired), all);
    assert_eq!(steps(&desired, &desired), [""; 0]);
    let without_raw = altered(|found| drop(found.passes.remove(&ForeignChain::RawPrerouting)));
    assert_eq!(steps(&without_raw, &desired), [""; 0]);
}

#[test]
fn peers_come_and_go_without_the_rules_being_touched() {
    let fewer = altered(|found| {
        let table = found.table.as_mut().unwrap();
        table.sets.insert("peers".to_owned(), hosts(&[2]));
    });
    assert_eq!(
        steps(&fewer, &firewall()),
        ["replace nftables set ip flannel-rs peers with 2 elements"]
    );
}

#[test]
fn whatever_else_differs_in_the_table_replaces_it() {
    type Alteration = fn(&mut Table);
    let alterations: [Alteration; 7] = [
        |table| table.chains.clear(),
        |table| table.chains.get_mut("input").unwrap().priority = 0,
        |table| table.chains.get_mut("input").unwrap().rules.clear(),
        |table| {
            let input = table.chains.get_mut("input").unwrap();
            input.rules.push(Rule::STRANGER);
        },
        |table| table.sets.clear(),
        |table| drop(table.sets.insert("more".to_owned(), hosts(&[]))),
        |table| {
            let origins = Set::Origins(BTreeSet::new());
            table.sets.insert("peers".to_owned(), origins);
        },
    ];
    for (at, alter) in alterations.into_iter().enumerate() {
        let found = altered(|found| alter(found.table.as_mut().unwrap()));
        assert_eq!(steps(&found, &firewall()), [PUT_TABLE], "alteration {at}");
    }
}

#[test]
fn passes_at_another_place_are_put_right() {
    for rules in [
        vec![],
        vec![Rule::STRANGER],
        vec![Rule::STRANGER, rule(Verdict::Accept, "100.96.0.0/16")],
        vec![rule(Verdict::Accept, "10.9.0.0/16")],
    ] {
        let found = altered(|found| {
            found.passes.insert(ForeignChain::FilterForward, rules);
        });
        assert_eq!(steps(&found, &firewall()), PUT_PASSES[..1]);
    }
}

#[test]
fn what_flanneld_left_goes_only_where_its_place_is_taken() {
    let leftovers = BTreeSet::from([Leftover::ForwardChain, Leftover::TableV6]);
    let found = altered(|found| found.leftovers = leftovers.clone());
    assert_eq!(
        steps(&found, &firewall()),
        [
            "delete flanneld's chain ip filter FLANNEL-FWD",
            "delete flanneld's table ip6 flannel-ipv6",
        ]
    );
    let none_of_ours = Firewall {
        leftovers,
        ..bare()
    };
    assert_eq!(steps(&none_of_ours, &Firewall::default()), [""; 0]);
}

#[test]
fn nothing_of_ours_is_left_where_nothing_is_wanted() {
    let mut gone: Vec<String> = [
        "filter FORWARD",
        "raw PREROUTING",
        "docker-bridges filter-FORWARD",
        "docker-bridges raw-PREROUTING",
    ]
    .map(|chain| format!("delete rules of ours in ip {chain}"))
    .into();
    gone.push("delete nftables table ip flannel-rs".to_owned());
    assert_eq!(steps(&firewall(), &Firewall::default()), gone);
    assert_eq!(steps(&bare(), &Firewall::default()), [""; 0]);
    // without forward: the passes alone go
    let table_alone = Firewall {
        passes: [].into(),
        ..firewall()
    };
    assert_eq!(steps(&firewall(), &table_alone), gone[..4]);
}

#[test]
fn a_kernel_without_a_packet_filter_is_told_and_the_rest_is_done() {
    let refusing = Firewall {
        refusal: Some("protocol not supported".to_owned()),
        ..Firewall::default()
    };
    let said = obstacles(&state(refusing.clone()), &state(firewall()));
    assert_eq!(
        said,
        [
            "the kernel's packet filter cannot be used: protocol not supported; to do without it \
             set all switches of [firewall] to false"
        ]
    );
    assert_eq!(steps(&refusing, &Firewall::default()), [""; 0]);
    let desired = KernelState {
        firewall: firewall(),
        ..vxlan()
    };
    let found = diff(&state(refusing), &desired, &scope(&desired));
    assert_eq!((found.changes.len(), found.obstacles.len()), (5, 1));
}
