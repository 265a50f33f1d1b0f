//! A node is asked to withdraw. What it leaves behind is looked at when it says that it has, and
//! again when all is quiet.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::timeout;

use super::cluster::{Cluster, Node};
use crate::cluster::datastore::lease_key;
use crate::cluster::subnet::Subnet;
use crate::service::status::{Command, State};

/// So long an asker waits. The service goes on without it.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn happens(cluster: &mut Cluster, who: usize, dice: &mut StdRng) -> String {
    let node = &cluster.nodes[who];
    if dice.random_ratio(1, 2) {
        let answer = timeout(PATIENCE, node.ask(Command::Release)).await;
        let answer = told(cluster, node, answer.ok());
        if let Some(Ok(subnet)) = answer {
            has_given_back(cluster, node, subnet).await;
        }
        return format!("release {who}: {answer:?}");
    }
    let answer = timeout(PATIENCE, node.ask(Command::Cleanup)).await;
    let answer = told(cluster, node, answer.ok());
    if let Some(Ok(_)) = answer {
        is_clean(cluster, node);
    }
    format!("cleanup {who}: {answer:?}")
}

/// The answer; to have none from a service that runs is a crime.
fn told<T, E>(cluster: &Cluster, node: &Node, answer: Option<Option<Result<T, E>>>) -> Option<T> {
    let answer = answer.flatten()?;
    if answer.is_err() && node.is_running() {
        let number = node.number;
        let crime = format!("node{number} has forgotten who asked it to withdraw");
        cluster.book.accuse(crime);
    }
    answer.ok()
}

fn is_clean(cluster: &Cluster, node: &Node) {
    let traces = node.machine.traces();
    if !traces.is_empty() {
        let crime = format!("node{} has withdrawn but for {traces:?}", node.number);
        cluster.book.accuse(crime);
    }
}

async fn has_given_back(cluster: &Cluster, node: &Node, subnet: Subnet) {
    is_clean(cluster, node);
    let key = lease_key(subnet);
    let ours = cluster.book.copy().get(&key) == Some(&node.number);
    if ours && cluster.leases().await.contains(&key) {
        let crime = format!("node{} has not given {key} back", node.number);
        cluster.book.accuse(crime);
    }
}

pub(super) fn is_withdrawn(node: &Node) -> bool {
    let status = node.status();
    status.is_some_and(|status| status.state == State::Withdrawn)
}

/// Long after all trouble has ended: who takes no part has left nothing, and no lease of theirs
/// lives on.
pub(super) async fn check(cluster: &Cluster) {
    let (leases, book) = (cluster.leases().await, cluster.book.copy());
    for node in cluster.nodes.iter().filter(|node| is_withdrawn(node)) {
        is_clean(cluster, node);
        let number = node.number;
        let own = |key: &&String| book.get(*key) == Some(&number);
        if let Some(key) = leases.iter().find(own) {
            let crime = format!("node{number} has withdrawn and keeps {key}");
            cluster.book.accuse(crime);
        }
    }
}
