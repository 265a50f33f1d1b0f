//! How much the services say while things keep going wrong.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::sleep;

use super::cluster::Cluster;
use super::in_virtual_time;
use super::machine::interfaces;
use super::outage::settled;
use crate::cluster::datastore::CONFIG;
use crate::service::journal::overheard;
use crate::service::status::Command;

const SECONDS: u32 = 1200;
/// All nodes share one log here. A place in the code says 20 lines, and 20 in so many seconds.
const PLACE: usize = 40;

/// What is logged while something happens to three nodes each second.
fn a_while_of(mut trouble: impl AsyncFnMut(&mut Cluster, u32)) -> Vec<String> {
    overheard(|_| {
        in_virtual_time(async {
            let mut cluster = settled().await;
            for second in 0..SECONDS {
                trouble(&mut cluster, second).await;
                sleep(Duration::from_secs(1)).await;
            }
        });
    })
}

/// At least one line has this in it, and no more than a place may say.
fn is_told_but_bounded(lines: &[String], part: &str) {
    let told = lines.iter().filter(|line| line.contains(part)).count();
    assert!((1..=PLACE).contains(&told), "{told} lines with {part:?}");
}

#[test]
fn a_flapping_datastore_does_not_flood_the_log() {
    let lines = a_while_of(async |cluster, second| {
        if second % 4 < 2 {
            cluster.memory.fail();
        } else {
            cluster.memory.heal();
        }
    });
    is_told_but_bounded(&lines, "right again fault=datastore");
    is_told_but_bounded(&lines, "going) fault=datastore");
    assert!(lines.len() < 6 * PLACE, "{} lines", lines.len());
}

#[test]
fn a_fight_over_the_kernel_does_not_flood_the_log() {
    let mut dice = StdRng::seed_from_u64(1);
    let lines = a_while_of(async |cluster, second| {
        // first too seldom for a dispute, then without mercy
        let peace = second < SECONDS * 3 / 4 && second % 20 > 0;
        let row = dice.random_range(0..100);
        for node in cluster.nodes.iter().filter(|_| !peace) {
            node.machine.fumble(|state| {
                let routes = &mut state.kernel.state.routes;
                let ours = routes.iter().filter(|(_, route)| route.protocol == 96);
                let keys: Vec<_> = ours.map(|(key, _)| *key).collect();
                keys.get(row % keys.len().max(1))
                    .map(|key| routes.remove(key))
            });
        }
    });
    is_told_but_bounded(&lines, "repaired");
    is_told_but_bounded(&lines, "fault=contested");
    assert!(lines.len() < 6 * PLACE, "{} lines", lines.len());
}

#[test]
fn a_datastore_that_somebody_keeps_writing_to_does_not_flood_the_log() {
    let lines = a_while_of(async |cluster, second| {
        let network = if second % 2 == 0 {
            ""
        } else {
            ",\"SubnetLen\":24"
        };
        let network = format!(
            r#"{{"Network":"100.96.0.0/16"{network},"Backend":{{"Type":"{}"}}}}"#,
            { ["vxlan", "host-gw"][second as usize % 2] }
        );
        cluster.write(CONFIG, &network, None).await;
        if second % 2 == 0 {
            cluster.write("subnets/100.96.77.0-24", "{]", None).await;
        } else {
            cluster.delete("subnets/100.96.77.0-24").await;
        }
    });
    is_told_but_bounded(&lines, "network config");
    is_told_but_bounded(&lines, "no lease is passed over");
    assert!(lines.len() < 8 * PLACE, "{} lines", lines.len());
}

#[test]
fn an_address_that_keeps_changing_does_not_flood_the_log() {
    let lines = a_while_of(async |cluster, second| {
        let node = &cluster.nodes[0];
        let address = format!("192.168.1.{}/24", 47 + 100 * (second / 3 % 2));
        node.machine
            .fumble(|state| state.interfaces = interfaces(&address));
    });
    is_told_but_bounded(&lines, "INFO uplink");
    is_told_but_bounded(&lines, "lease renewed");
    assert!(lines.len() < 6 * PLACE, "{} lines", lines.len());
}

#[test]
fn a_level_that_was_asked_for_is_shown_and_outlasts_a_reload() {
    in_virtual_time(async {
        let cluster = settled().await;
        let node = &cluster.nodes[0];
        let level = || node.status().unwrap().log_level;
        assert_eq!(level(), "info");
        let ask = |answer| Command::SetLogLevel("debug".to_owned(), answer);
        node.ask(ask).await.unwrap().unwrap().unwrap();
        assert_eq!(level(), "debug");
        node.machine.reload();
        sleep(Duration::from_secs(5)).await;
        assert_eq!(level(), "debug");
        let ask = |answer| Command::SetLogLevel("debugg".to_owned(), answer);
        assert!(node.ask(ask).await.unwrap().unwrap().is_err());
        assert_eq!(level(), "debug");
    });
}
