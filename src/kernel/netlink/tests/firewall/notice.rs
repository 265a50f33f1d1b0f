//! What is noticed of the packet filter, and what is not.

use super::*;

const SOON: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_millis(100);

async fn is_hinted(hints: &mut Hints, within: Duration) -> bool {
    tokio::time::timeout(within, hints.next()).await.is_ok()
}

async fn drain(hints: &mut Hints) {
    while is_hinted(hints, QUIET).await {}
}

#[test]
fn what_others_do_to_ours_is_a_hint_and_what_we_do_is_none() {
    in_namespace(|| async {
        run("iptables-nft", "-P FORWARD DROP");
        let mut kernel = Netlink::connect().unwrap();
        let mut hints = kernel.hints().unwrap();
        let chain = ForeignChain::FilterForward;
        let pass = Match::Source(Is::In, net("100.96.0.0/16"));
        let passes = vec![counted(vec![pass], Verdict::Accept, MARK)];
        for change in [
            "nft flush ruleset",
            "iptables-nft -F",
            "iptables-nft -I FORWARD -i eth9 -j DROP",
            "nft flush chain ip flannel-rs input",
            "nft delete element ip flannel-rs peers { 192.168.0.1 }",
            "nft add table ip flannel-rs { flags dormant ; }",
            "iptables-nft -t nat -N FLANNEL-POSTRTG",
            "nft add table ip6 flannel-ipv6",
        ] {
            made(&mut kernel, Step::PutTable(sample(2))).await;
            made(&mut kernel, Step::PutPasses(chain, passes.clone())).await;
            let fewer = Step::PutMembers("peers".to_owned(), hosts(2));
            made(&mut kernel, fewer).await;
            assert!(!is_hinted(&mut hints, QUIET).await, "before {change}");
            let (program, line) = change.split_once(' ').unwrap();
            run(program, line);
            assert!(is_hinted(&mut hints, SOON).await, "{change}");
            run("iptables-nft", "-P FORWARD DROP");
            drain(&mut hints).await;
        }
    });
}

#[test]
fn what_others_do_among_themselves_is_no_hint() {
    in_namespace(|| async {
        for line in [
            "add table ip filter",
            "add chain ip filter FORWARD { type filter hook forward priority 0 ; }",
            "add table ip else",
            "add chain ip else forward { type filter hook forward priority 0 ; }",
            "add set ip filter blocked { type ipv4_addr ; }",
        ] {
            run("nft", line);
        }
        let mut kernel = Netlink::connect().unwrap();
        made(&mut kernel, Step::PutTable(sample(2))).await;
        let mut hints = kernel.hints().unwrap();
        for line in [
            "add element ip filter blocked { 10.0.0.1 }",
            "add rule ip else forward ip saddr 100.96.1.0/24 drop",
            "add chain ip filter DOCKER",
            "add rule ip filter DOCKER ip daddr 172.17.0.2 accept",
            "add table inet firewalld",
            "delete table ip else",
        ] {
            run("nft", line);
            assert!(!is_hinted(&mut hints, QUIET).await, "{line}");
        }
        run("nft", "add rule ip filter FORWARD drop");
        assert!(is_hinted(&mut hints, SOON).await);
    });
}
