//! The datastore is away for longer than any lease lives, or the kernel's packet filter.

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::sleep;

use super::cluster::{Cluster, Node};
use super::in_virtual_time;
use super::machine::KernelTrouble;
use super::store::Trouble;
use crate::service::status::State;

const HOUR: Duration = Duration::from_secs(3600);
const NETWORK: &str = r#"{"Network":"100.96.0.0/16","Backend":{"Type":"vxlan"}}"#;

/// Three nodes that are running, with the default lease of a day.
pub(super) async fn settled() -> Cluster {
    let mut cluster = Cluster::new(3, "", &mut StdRng::seed_from_u64(25));
    cluster.configure(NETWORK).await;
    cluster.repair();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(cluster.complaints().await, [""; 0]);
    cluster
}

/// What the machines were made to change since they were set up.
fn changes(cluster: &Cluster) -> Vec<usize> {
    let nodes = cluster.nodes.iter();
    nodes.map(|node| node.machine.state().applied).collect()
}

fn codes(cluster: &Cluster) -> Vec<Vec<String>> {
    let status = cluster.nodes.iter().map(|node| node.status().unwrap());
    status
        .map(|status| status.faults.into_iter().map(|fault| fault.code).collect())
        .collect()
}

#[test]
fn twenty_five_hours_without_a_datastore_change_nothing() {
    in_virtual_time(async {
        let cluster = settled().await;
        let (before, subnets) = (changes(&cluster), subnets(&cluster));
        cluster.memory.fail();
        for hour in 0..25 {
            sleep(HOUR).await;
            assert_eq!(changes(&cluster), before, "hour {hour}");
        }
        for codes in codes(&cluster) {
            assert_eq!(codes, ["datastore", "lease", "lease-expired"]);
        }
        for node in &cluster.nodes {
            let status = node.status().unwrap();
            assert_eq!(status.state, State::Degraded);
            // it does what can be done: to start it anew would help nobody
            assert!(node.machine.state().fed.elapsed() < Duration::from_secs(5));
        }
        // all leases have expired when it comes back
        cluster.memory.heal();
        sleep(Duration::from_secs(5)).await;
        assert_eq!(self::subnets(&cluster), subnets);
        assert_eq!(cluster.leases().await.len(), 3);
        sleep(Duration::from_secs(60)).await;
        assert_eq!(cluster.complaints().await, [""; 0]);
        assert_eq!(
            (changes(&cluster), self::subnets(&cluster)),
            (before, subnets)
        );
    });
}

#[test]
fn a_node_that_was_cut_off_for_twenty_five_hours_comes_back_with_its_subnet() {
    in_virtual_time(async {
        let cluster = settled().await;
        let subnets = subnets(&cluster);
        let before = changes(&cluster)[0];
        cluster.nodes[0].line.set(Trouble::Silent);
        sleep(25 * HOUR).await;
        assert_eq!(cluster.leases().await.len(), 2, "its lease has expired");
        assert_eq!(changes(&cluster)[0], before, "it keeps its peers");
        cluster.nodes[0].line.set(Trouble::None);
        sleep(Duration::from_secs(60)).await;
        assert_eq!(cluster.complaints().await, [""; 0]);
        assert_eq!(self::subnets(&cluster), subnets);
    });
}

/// A node without a packet filter takes part and says what is wrong; once there is one it is used.
#[test]
fn a_kernel_without_a_packet_filter_holds_up_nobody() {
    in_virtual_time(async {
        for shows_itself in [true, false] {
            let mut cluster = Cluster::new(3, "", &mut StdRng::seed_from_u64(25));
            cluster.configure(NETWORK).await;
            cluster.repair();
            let machine = cluster.nodes[0].machine.clone();
            machine.fumble(|state| {
                state.trouble = KernelTrouble::Unfiltered;
                state.kernel.state.firewall.refusal = (!shows_itself).then(|| "no".to_owned());
            });
            sleep(Duration::from_secs(60)).await;
            assert!(machine.state().ready);
            let status = cluster.nodes[0].status().unwrap();
            assert_eq!(status.state, State::Degraded);
            assert_eq!(codes(&cluster), [vec!["firewall"], vec![], vec![]]);
            let text = &status.faults[0].text;
            assert!(text.contains("cannot be used") != shows_itself, "{text}");
            machine.fumble(|state| {
                state.trouble = KernelTrouble::None;
                state.kernel.state.firewall.refusal = None;
            });
            sleep(Duration::from_secs(60)).await;
            assert_eq!(cluster.complaints().await, [""; 0]);
        }
    });
}

fn subnets(cluster: &Cluster) -> Vec<Option<crate::cluster::subnet::Subnet>> {
    cluster.nodes.iter().map(Node::subnet).collect()
}
