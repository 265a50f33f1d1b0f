//! Our rules in chains of others, and what flanneld has left.

use super::*;
use crate::kernel::firewall::BaseChain;

fn passes() -> Vec<Rule> {
    let all = net("100.96.0.0/16");
    vec![
        counted(vec![Match::Source(Is::In, all)], Verdict::Accept, MARK),
        counted(vec![Match::Destination(Is::In, all)], Verdict::Accept, MARK),
    ]
}

fn iptables(line: &str) -> String {
    run("iptables-nft", line)
}

async fn found(kernel: &mut Netlink) -> Vec<Rule> {
    let firewall = seen(kernel).await;
    firewall.passes[&ForeignChain::FilterForward].clone()
}

async fn put(kernel: &mut Netlink) -> String {
    let step = Step::PutPasses(ForeignChain::FilterForward, passes());
    made(kernel, step).await;
    assert_eq!(found(kernel).await, passes());
    iptables("-S FORWARD")
}

const OURS: &str = "-A FORWARD -s 100.96.0.0/16 -m comment --comment flannel-rs -j ACCEPT
-A FORWARD -d 100.96.0.0/16 -m comment --comment flannel-rs -j ACCEPT
";

#[test]
fn passes_stand_at_the_head() {
    in_namespace(|| async {
        let mut kernel = Netlink::connect().unwrap();
        // Where there is no such chain, none is made.
        let step = Step::PutPasses(ForeignChain::FilterForward, passes());
        made(&mut kernel, step).await;
        assert_eq!(seen(&mut kernel).await, Firewall::default());
        iptables("-P FORWARD DROP");
        assert_eq!(found(&mut kernel).await, []);
        let head = format!("-P FORWARD DROP\n{OURS}");
        assert_eq!(put(&mut kernel).await, head);
        assert_eq!(put(&mut kernel).await, head);
        iptables("-F");
        assert_eq!(found(&mut kernel).await, []);
        iptables("-A FORWARD -o docker0 -j ACCEPT");
        let others = "-A FORWARD -o docker0 -j ACCEPT\n";
        assert_eq!(put(&mut kernel).await, format!("{head}{others}"));
        let none = Step::PutPasses(ForeignChain::FilterForward, vec![]);
        made(&mut kernel, none).await;
        assert_eq!(found(&mut kernel).await, []);
        let left = format!("-P FORWARD DROP\n{others}");
        assert_eq!(iptables("-S FORWARD"), left);
    });
}

#[test]
fn passes_stand_after_what_users_say_to_docker() {
    in_namespace(|| async {
        let mut kernel = Netlink::connect().unwrap();
        iptables("-P FORWARD DROP");
        put(&mut kernel).await;
        iptables("-N DOCKER-USER");
        iptables("-I FORWARD 3 -j DOCKER-USER");
        assert_eq!(found(&mut kernel).await, [Rule::STRANGER, Rule::STRANGER]);
        let others = "-A FORWARD -o docker0 -j ACCEPT\n";
        iptables("-A FORWARD -o docker0 -j ACCEPT");
        let users = "-P FORWARD DROP\n-A FORWARD -j DOCKER-USER\n";
        assert_eq!(put(&mut kernel).await, format!("{users}{OURS}{others}"));
        for disorder in [
            "-I FORWARD 2 -i eth9 -j DROP",
            "-I FORWARD 3 -i eth9 -j DROP",
            "-I FORWARD -s 100.96.0.0/16 -m comment --comment flannel-rs -j ACCEPT",
            "-A FORWARD -m comment --comment flannel-rs -j ACCEPT",
            "-D FORWARD 2",
        ] {
            iptables(disorder);
            let passes = found(&mut kernel).await;
            assert_ne!(passes, self::passes(), "{disorder}");
            let listed = put(&mut kernel).await;
            let listed = listed.replace("-A FORWARD -i eth9 -j DROP\n", "");
            assert_eq!(listed, format!("{users}{OURS}{others}"), "{disorder}");
        }
        // What others put before it, as Docker puts its own first jump, moves nothing.
        iptables("-I FORWARD -i eth8 -j ACCEPT");
        assert_eq!(found(&mut kernel).await, passes());
    });
}

#[test]
fn passes_come_back_from_iptables_restore_as_they_were() {
    in_namespace(|| async {
        let mut kernel = Netlink::connect().unwrap();
        iptables("-P FORWARD DROP");
        put(&mut kernel).await;
        let saved = run("iptables-nft-save", "");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rules");
        std::fs::write(&file, saved).unwrap();
        run("iptables-nft-restore", file.to_str().unwrap());
        assert_eq!(found(&mut kernel).await, passes());
    });
}

#[test]
fn raw_chains_are_our_business_where_they_drop_what_comes_to_us() {
    in_namespace(|| async {
        let mut kernel = Netlink::connect().unwrap();
        let raw = ForeignChain::RawPrerouting;
        iptables("-t raw -A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP");
        assert_eq!(seen(&mut kernel).await, Firewall::default());
        iptables("-t raw -A PREROUTING -d 100.96.1.2/32 ! -i docker0 -j DROP");
        assert_eq!(seen(&mut kernel).await.passes, [(raw, vec![])].into());
        let pass = Match::Destination(Is::In, net("100.96.1.0/24"));
        let pass = vec![counted(vec![pass], Verdict::Accept, MARK)];
        made(&mut kernel, Step::PutPasses(raw, pass.clone())).await;
        assert_eq!(seen(&mut kernel).await.passes, [(raw, pass.clone())].into());
        // To clean up, it must be seen without knowing our subnet.
        let unscoped = kernel.observe(&Scope::default()).await.unwrap();
        assert_eq!(unscoped.firewall.passes, [(raw, pass)].into());
        made(&mut kernel, Step::PutPasses(raw, vec![])).await;
        let unscoped = kernel.observe(&Scope::default()).await.unwrap();
        assert_eq!(unscoped.firewall, Firewall::default());
        for line in [
            "add table ip docker-bridges",
            "add chain ip docker-bridges filter-FORWARD \
             { type filter hook forward priority 0 ; }",
            "add chain ip docker-bridges raw-PREROUTING \
             { type filter hook prerouting priority -300 ; }",
            "add rule ip docker-bridges raw-PREROUTING \
             ip daddr 100.96.1.2 iifname != docker0 counter drop comment \"DIRECT\"",
        ] {
            run("nft", line);
        }
        let passes = seen(&mut kernel).await.passes;
        let chains: Vec<_> = passes.into_keys().collect();
        let bridges = [
            raw,
            ForeignChain::BridgesForward,
            ForeignChain::BridgesPrerouting,
        ];
        assert_eq!(chains, bridges);
    });
}

/// As flanneld writes them, but for the blanks in its comments.
fn flanneld() {
    for (table, rule) in [
        ("nat", "-N FLANNEL-POSTRTG"),
        ("nat", "-A POSTROUTING # -j FLANNEL-POSTRTG"),
        (
            "nat",
            "-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 # -j RETURN",
        ),
        (
            "nat",
            "-A FLANNEL-POSTRTG -s 100.96.1.0/24 -d 100.96.0.0/16 # -j RETURN",
        ),
        (
            "nat",
            "-A FLANNEL-POSTRTG -s 100.96.0.0/16 ! -d 224.0.0.0/4 # -j MASQUERADE --random-fully",
        ),
        ("filter", "-N FLANNEL-FWD"),
        ("filter", "-A FORWARD # -j FLANNEL-FWD"),
        ("filter", "-A FLANNEL-FWD -s 100.96.0.0/16 # -j ACCEPT"),
        ("filter", "-A FLANNEL-FWD -d 100.96.0.0/16 # -j ACCEPT"),
        ("filter", "-A FORWARD -i eth9 -j DROP"),
    ] {
        let rule = rule.replace('#', "-m comment --comment flanneld_rule");
        iptables(&format!("-t {table} {rule}"));
    }
    run("nft", "add table ip flannel-ipv4");
    run(
        "nft",
        "add chain ip flannel-ipv4 postrtg { type nat hook postrouting priority 100 ; }",
    );
    run("nft", "add table ip6 flannel-ipv6");
}

#[test]
fn what_flanneld_has_left_is_removed() {
    in_namespace(|| async {
        let mut kernel = Netlink::connect().unwrap();
        flanneld();
        let leftovers = seen(&mut kernel).await.leftovers;
        assert_eq!(leftovers, Leftover::ALL.into());
        for leftover in Leftover::ALL {
            // What has gone by itself is no failure.
            for _ in 0..2 {
                made(&mut kernel, Step::DelLeftover(leftover)).await;
                let left = seen(&mut kernel).await.leftovers;
                assert!(!left.contains(&leftover), "{left:?}");
            }
        }
        assert_eq!(seen(&mut kernel).await.leftovers, [].into());
        let expected = "-P FORWARD ACCEPT\n-A FORWARD -i eth9 -j DROP\n";
        assert_eq!(iptables("-S FORWARD"), expected);
        let expected = "-P POSTROUTING ACCEPT\n";
        assert_eq!(iptables("-t nat -S POSTROUTING"), expected);
        let left = run("nft", "list ruleset");
        assert!(!left.to_lowercase().contains("flannel"), "{left}");
    });
}

#[test]
fn base_chains_that_drop_are_told() {
    in_namespace(|| async {
        let mut kernel = Netlink::connect().unwrap();
        iptables("-P FORWARD DROP");
        for line in [
            "add table inet fw",
            "add chain inet fw in { type filter hook input priority 5 ; policy drop ; }",
            "add chain inet fw plain",
            "add table ip6 fw6",
            "add chain ip6 fw6 in { type filter hook input priority 0 ; policy drop ; }",
        ] {
            run("nft", line);
        }
        let mut chains = kernel.base_chains().await.unwrap();
        chains.retain(|chain| chain.drops);
        chains.sort_by_key(|chain| chain.priority);
        let chain = |(family, table): (_, &str), name: &str, hook, priority| BaseChain {
            family,
            table: table.to_owned(),
            name: name.to_owned(),
            hook,
            priority,
            drops: true,
        };
        let expected = [
            chain(("ip", "filter"), "FORWARD", "forward", 0),
            chain(("inet", "fw"), "in", "input", 5),
        ];
        assert_eq!(chains, expected);
    });
}

#[test]
fn thousands_of_rules_of_others_cost_little() {
    in_namespace(|| async {
        let mut script = "*filter\n:FORWARD DROP [0:0]\n:DOCKER - [0:0]\n".to_owned();
        for n in 0..5000 {
            let address = Ipv4Addr::from_bits(0x0a00_0000 + n);
            let chain = if n % 10 == 0 { "FORWARD" } else { "DOCKER" };
            script += &format!("-A {chain} -d {address} -p tcp --dport 80 -j ACCEPT\n");
        }
        script += "COMMIT\n";
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rules");
        std::fs::write(&file, script).unwrap();
        run("iptables-nft-restore", file.to_str().unwrap());
        let mut kernel = Netlink::connect().unwrap();
        put(&mut kernel).await;
        let clock = std::time::Instant::now();
        assert_eq!(found(&mut kernel).await, passes());
        println!("read within {:?}", clock.elapsed());
        let listed = iptables("-S FORWARD");
        assert!(listed.starts_with(&format!("-P FORWARD DROP\n{OURS}")));
        assert_eq!(listed.lines().count(), 503);
    });
}
