//! A node is asked to withdraw, and comes back.

use std::path::Path;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::sleep;

use super::cluster::{Cluster, Node};
use super::in_virtual_time;
use super::machine::SUBNET_ENV;
use super::store::Trouble;
use crate::kernel::state::{PROTOCOL, Port};
use crate::service::journal::overheard;
use crate::service::machine::Machine;
use crate::service::status::{Command, News, PlannedChange, State, Status};

const BACKENDS: [&str; 3] = ["vxlan", "host-gw", "udp"];

async fn settled(backend: &str) -> Cluster {
    settled_with("", backend).await
}

async fn settled_with(config: &str, backend: &str) -> Cluster {
    let mut cluster = Cluster::new(3, config, &mut StdRng::seed_from_u64(4));
    let json = format!(r#"{{"Network":"100.96.0.0/16","Backend":{{"Type":"{backend}"}}}}"#);
    cluster.configure(&json).await;
    cluster.repair();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(cluster.complaints().await, [""; 0]);
    cluster
}

fn status(node: &Node) -> Status {
    node.status().unwrap()
}

async fn comes_back(cluster: &Cluster) {
    cluster.nodes[0].machine.reload();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(cluster.complaints().await, [""; 0]);
}

async fn cleaned_up(node: &Node) -> Result<Vec<PlannedChange>, String> {
    node.ask(Command::Cleanup).await.unwrap().unwrap()
}

#[test]
fn a_lease_that_is_given_back_leaves_nothing_and_a_reload_takes_it_again() {
    for backend in BACKENDS {
        in_virtual_time(async {
            let cluster = settled(backend).await;
            let node = &cluster.nodes[0];
            let subnet = node.subnet().unwrap();
            let answer = node.ask(Command::Release).await.unwrap().unwrap();
            assert_eq!(answer, Ok(subnet));
            assert_eq!(node.machine.traces(), [""; 0], "{backend}");
            assert!(node.machine.has_foreign());
            assert_eq!(cluster.leases().await.len(), 2);
            sleep(Duration::from_secs(200)).await;
            let now = status(node);
            assert_eq!((now.state, now.subnet.as_ref()), (State::Withdrawn, None));
            assert_eq!((now.faults.len(), now.peers.len()), (0, 2));
            assert!(now.line(0).starts_with("withdrawn; systemctl reload"));
            assert!(node.machine.state().fed.elapsed() < Duration::from_secs(5));
            assert!(node.machine.state().ready);
            let again = node.ask(Command::Release).await.unwrap().unwrap();
            assert!(again.unwrap_err().contains("already"));
            comes_back(&cluster).await;
            assert_eq!(node.subnet(), Some(subnet));
        });
    }
}

#[test]
fn a_clean_up_says_what_it_removed_and_keeps_the_lease() {
    for backend in BACKENDS {
        in_virtual_time(async {
            let cluster = settled(backend).await;
            let node = &cluster.nodes[0];
            let subnet = node.subnet();
            let links = status(node).interfaces.len();
            let removed = cleaned_up(node).await.unwrap();
            assert!(removed.iter().all(|change| change.verb == "delete"));
            let of_links = removed
                .iter()
                .filter(|change| change.object.starts_with("link "));
            assert_eq!(of_links.count(), links, "{removed:?}");
            assert_eq!(node.machine.traces(), [""; 0], "{backend}");
            assert_eq!(cluster.leases().await.len(), 3);
            let now = status(node);
            assert_eq!((now.state, now.interfaces.len()), (State::Withdrawn, 0));
            assert!(
                now.line(0).contains("is not renewed, lease"),
                "{}",
                now.line(0)
            );
            assert_eq!(cleaned_up(node).await, Ok(vec![]), "there is no more");
            comes_back(&cluster).await;
            assert_eq!(node.subnet(), subnet);
        });
    }
}

#[test]
fn after_a_clean_up_the_lease_runs_out() {
    in_virtual_time(async {
        let cluster = settled_with("[lease]\nttl = \"60s\"\nrenew-margin = \"25s\"\n", "udp").await;
        let node = &cluster.nodes[0];
        cleaned_up(node).await.unwrap();
        sleep(Duration::from_secs(90)).await;
        assert_eq!(cluster.leases().await.len(), 2);
        assert_eq!((status(node).subnet, status(node).faults.len()), (None, 0));
        comes_back(&cluster).await;
    });
}

#[test]
fn what_the_datastore_does_not_take_is_told_and_changes_nothing() {
    in_virtual_time(async {
        let cluster = settled("vxlan").await;
        for trouble in [
            Trouble::Refused,
            Trouble::Silent,
            Trouble::Hung,
            Trouble::Broken,
        ] {
            let node = &cluster.nodes[0];
            node.line.set(trouble);
            let answer = node.ask(Command::Release).await.unwrap().unwrap();
            answer.unwrap_err();
            assert_ne!(status(node).state, State::Withdrawn);
            node.line.set(Trouble::None);
            sleep(Duration::from_secs(120)).await;
            assert_eq!(cluster.complaints().await, [""; 0], "{trouble:?}");
        }
    });
}

#[test]
fn a_clean_up_needs_no_datastore() {
    in_virtual_time(async {
        let mut cluster = settled("vxlan").await;
        cluster.nodes[0].kill();
        cluster.memory.fail();
        cluster.nodes[0].start();
        sleep(Duration::from_secs(5)).await;
        let node = &cluster.nodes[0];
        assert_eq!(status(node).state, State::Waiting);
        cleaned_up(node).await.unwrap();
        assert_eq!(node.machine.traces(), [""; 0]);
        assert_eq!(status(node).state, State::Withdrawn);
        assert!(!node.machine.state().ready, "nobody may start on it");
        cluster.memory.heal();
        comes_back(&cluster).await;
    });
}

#[test]
fn a_bridge_in_use_is_named_and_goes_when_it_is_free() {
    in_virtual_time(async {
        let cluster = settled("vxlan").await;
        let plugged = |node: &Node| {
            node.machine.fumble(|state| {
                let ports = &mut state.kernel.state.ports;
                let (bridge, mtu) = ("docker0".to_owned(), 1450);
                ports.insert("veth1".to_owned(), Port { bridge, mtu });
            });
        };
        let is_told = |node: &Node, error: String| {
            assert!(error.contains("veth1; stop the containers"), "{error}");
            assert!(error.contains("docker0 with 100.96."), "{error}");
            assert_eq!(node.machine.traces(), ["link docker0"]);
            assert_eq!(status(node).state, State::Withdrawn);
        };
        let [first, second, _] = &cluster.nodes[..] else {
            panic!("three nodes")
        };
        plugged(first);
        let answer = first.ask(Command::Release).await.unwrap().unwrap();
        is_told(first, answer.unwrap_err());
        assert_eq!(cluster.leases().await.len(), 2);
        plugged(second);
        is_told(second, cleaned_up(second).await.unwrap_err());
        assert_eq!(cluster.leases().await.len(), 2);
        for node in [first, second] {
            (node.machine).fumble(|state| state.kernel.state.ports.clear());
        }
        sleep(Duration::from_secs(2)).await;
        assert_eq!(first.machine.traces(), [""; 0]);
        assert_eq!(second.machine.traces(), [""; 0]);
    });
}

#[test]
fn files_of_somebody_else_stay_after_it() {
    in_virtual_time(async {
        let cluster = settled("vxlan").await;
        let node = &cluster.nodes[0];
        let text = node.machine.subnet_env().unwrap();
        cleaned_up(node).await.unwrap();
        node.machine.write(Path::new(SUBNET_ENV), &text).unwrap();
        sleep(Duration::from_secs(100)).await;
        assert_eq!(node.machine.subnet_env(), Some(text));
    });
}

#[test]
fn the_journal_says_that_something_was_removed() {
    let lines = overheard(|_| {
        in_virtual_time(async {
            let cluster = settled("vxlan").await;
            cleaned_up(&cluster.nodes[0]).await.unwrap();
            sleep(Duration::from_secs(60)).await;
        });
    });
    let withdrawn = |line: &String| line.contains("withdrawn from the network");
    let at = lines.iter().position(withdrawn).unwrap();
    let after = &lines[at..];
    let says = |text: &str| after.iter().any(|line| line.contains(text));
    assert!(says("removed from this host"), "{after:?}");
    assert!(!says("kernel set up"), "{after:?}");
}

#[test]
fn repairs_and_conflicts_are_told_once() {
    in_virtual_time(async {
        let cluster = settled("vxlan").await;
        let node = &cluster.nodes[0];
        let mut news = node.news();
        node.machine.fumble(|state| {
            let routes = &mut state.kernel.state.routes;
            routes.retain(|_, route| route.protocol != PROTOCOL);
        });
        sleep(Duration::from_secs(5)).await;
        let Ok(News::DriftRepaired(changes)) = news.try_recv() else {
            panic!("no news of a repair")
        };
        assert_eq!(changes.len(), 2, "{changes:?}");
        let subnet = node.subnet().unwrap();
        let key = format!("subnets/{}", subnet.key());
        let thief = r#"{"PublicIP":"192.168.1.200","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:c8"}}"#;
        cluster.write(&key, thief, None).await;
        sleep(Duration::from_secs(300)).await;
        let holder = "192.168.1.200".parse().ok();
        assert_eq!(news.try_recv(), Ok(News::SubnetConflict { subnet, holder }));
        assert!(news.try_recv().is_err(), "once");
    });
}

#[test]
fn a_large_repair_is_told_as_far_as_is_documented() {
    in_virtual_time(async {
        let cluster = settled("host-gw").await;
        for peer in 1..=150 {
            let key = format!("subnets/100.96.{}.0-24", peer + 50);
            let lease = format!(
                r#"{{"PublicIP":"192.168.1.{}","PublicIPv6":null,"BackendType":"host-gw"}}"#,
                peer + 100
            );
            cluster.write(&key, &lease, None).await;
        }
        sleep(Duration::from_secs(60)).await;
        let node = &cluster.nodes[0];
        let mut news = node.news();
        let lost = node.machine.fumble(|state| {
            let routes = &mut state.kernel.state.routes;
            let before = routes.len();
            routes.retain(|_, route| route.protocol != PROTOCOL);
            before - routes.len()
        });
        assert!((101..News::MOST_CHANGES).contains(&lost), "{lost}");
        sleep(Duration::from_secs(5)).await;
        let Ok(News::DriftRepaired(changes)) = news.try_recv() else {
            panic!("no news of a repair")
        };
        assert_eq!(changes.len(), lost);
    });
}

#[test]
fn the_links_are_shown_as_they_are_after_a_repair() {
    in_virtual_time(async {
        let cluster = settled("vxlan").await;
        let node = &cluster.nodes[0];
        let before = status(node).interfaces;
        let names: Vec<&str> = before.iter().map(|link| link.name.as_str()).collect();
        assert_eq!(names, ["docker0", "flannel.1"]);
        for link in before.iter() {
            let (desired, observed) = (link.desired.as_ref(), link.observed.as_ref());
            let (desired, observed) = (desired.unwrap(), observed.unwrap());
            assert_eq!(desired.addresses, observed.addresses);
            assert_eq!((desired.mtu, desired.up), (observed.mtu, observed.up));
        }
        node.machine
            .fumble(|state| state.kernel.drop_link("flannel.1"));
        sleep(Duration::from_secs(5)).await;
        assert_eq!(status(node).interfaces, before);
    });
}
