//! A node is asked to move to another subnet. Who is told that it has may start containers there.

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::sleep;

use super::cluster::Cluster;
use super::in_virtual_time;
use super::machine::KernelTrouble;
use crate::cluster::subnet::Subnet;
use crate::service::status::{Command, RenumberError};

async fn settled(backend: &str) -> Cluster {
    let mut cluster = Cluster::new(3, "", &mut StdRng::seed_from_u64(4));
    let json = format!(r#"{{"Network":"100.96.0.0/16","Backend":{{"Type":"{backend}"}}}}"#);
    cluster.configure(&json).await;
    cluster.repair();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(cluster.complaints().await, [""; 0]);
    cluster
}

async fn moved(cluster: &Cluster, to: &str) -> Result<Subnet, RenumberError> {
    let to = Subnet::new(to.parse().unwrap());
    let renumber = |answer| Command::Renumber(Some(to), answer);
    cluster.nodes[0].ask(renumber).await.unwrap().unwrap()
}

#[test]
fn all_is_there_when_the_answer_comes() {
    for backend in ["vxlan", "host-gw", "udp"] {
        in_virtual_time(async {
            let cluster = settled(backend).await;
            for to in ["100.96.200.0/24", "100.96.201.0/24"] {
                let subnet = moved(&cluster, to).await.unwrap();
                assert_eq!(subnet.to_string(), to);
                assert_eq!(cluster.nodes[0].subnet(), Some(subnet), "{backend}");
                assert_eq!(
                    cluster.nodes[0].status().unwrap().subnet.as_deref(),
                    Some(to)
                );
            }
            sleep(Duration::from_secs(10)).await;
            assert_eq!(cluster.complaints().await, [""; 0]);
        });
    }
}

#[test]
fn a_kernel_that_does_not_follow_is_told() {
    for trouble in [KernelTrouble::Hung, KernelTrouble::Deadly] {
        in_virtual_time(async {
            let cluster = settled("vxlan").await;
            let machine = &cluster.nodes[0].machine;
            machine.fumble(|state| state.trouble = trouble);
            let refused = moved(&cluster, "100.96.200.0/24").await.unwrap_err();
            let text = refused.to_string();
            assert!(
                text.starts_with("100.96.200.0/24 was taken, but not"),
                "{text}"
            );
            machine.fumble(|state| state.trouble = KernelTrouble::None);
            sleep(Duration::from_secs(120)).await;
            assert_eq!(cluster.complaints().await, [""; 0]);
            let now = cluster.nodes[0].subnet().unwrap();
            assert_eq!(now.to_string(), "100.96.200.0/24");
        });
    }
}
