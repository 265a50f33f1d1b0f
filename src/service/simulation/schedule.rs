//! What happens, by chance.

use std::fmt::Write as _;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};
use tokio::time::{Instant, sleep};

use super::cluster::{Cluster, Node};
use super::departure;
use super::machine::{KernelTrouble, State, interfaces};
use super::store::Trouble;
use crate::cluster::subnet::Subnet;
use crate::kernel::firewall::{Firewall, Rule, Set};
use crate::kernel::state::{LinkKind, PROTOCOL, Route, RouteKey};
use crate::mac::Mac;

/// Short leases, so that much happens in little time.
const CONFIG: &str = "[lease]\nttl = \"60s\"\nrenew-margin = \"25s\"\n";
const NODES: u32 = 4;
/// Room for all nodes, a thief, and not much more.
const RANGE: &str = r#""SubnetMin":"100.96.1.0","SubnetMax":"100.96.7.0""#;
const BACKENDS: [&str; 6] = [
    r#"{"Type":"vxlan"}"#,
    r#"{"Type":"vxlan","VNI":7}"#,
    r#"{"Type":"vxlan","Port":4789,"DirectRouting":true}"#,
    r#"{"Type":"vxlan","MTU":1400}"#,
    r#"{"Type":"host-gw"}"#,
    r#"{"Type":"udp","Port":8285}"#,
];
/// Long enough for every dead lease to expire, every pause to pass and a dispute to be over.
const QUIET: Duration = Duration::from_secs(160);

/// A whole schedule, and what must hold in the end.
pub(super) async fn run(mut dice: StdRng) {
    let (cluster, subnets) = act(&mut dice, &mut String::new()).await;
    let mut complaints = cluster.complaints().await;
    complaints.extend(cluster.book.crimes());
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    for (node, before) in cluster.nodes.iter().zip(subnets) {
        let now = node.subnet();
        assert!(
            before.is_none() || now == before,
            "{before:?} became {now:?}"
        );
    }
}

/// What happened, as a text.
pub(super) async fn tale(mut dice: StdRng) -> String {
    let mut tale = String::new();
    let (cluster, _) = act(&mut dice, &mut tale).await;
    for node in &cluster.nodes {
        let _ = writeln!(
            tale,
            "{:?} {:?}",
            node.subnet(),
            node.machine.state().kernel.state
        );
    }
    let _ = writeln!(tale, "{:?}", cluster.leases().await);
    tale
}

/// Lets things happen and then all be quiet. Answers which subnet each node must still have.
async fn act(dice: &mut StdRng, tale: &mut String) -> (Cluster, Vec<Option<Subnet>>) {
    let mut cluster = Cluster::new(NODES, CONFIG, dice);
    cluster.configure(&network(BACKENDS[0])).await;
    let began = Instant::now();
    for _ in 0..dice.random_range(5..25) {
        let what = event(&mut cluster, dice).await;
        tracing::info!(at = ?began.elapsed(), what, "event");
        let _ = writeln!(tale, "{:?} {what}", began.elapsed());
        let pause = dice.random_range(0..200u64).pow(2) / 2;
        sleep(Duration::from_millis(pause)).await;
    }
    cluster.repair();
    let backend = BACKENDS.choose(dice).unwrap();
    cluster.configure(&network(backend)).await;
    for key in cluster.leases().await {
        if cluster.book.copy().get(&key) == Some(&0) {
            cluster.delete(&key).await;
        }
    }
    sleep(QUIET).await;
    departure::check(&cluster).await;
    for node in &cluster.nodes {
        if departure::is_withdrawn(node) {
            node.machine.reload();
            continue;
        }
        // its lease ran out while it was away, and another node took the subnet; or the network
        // config was another one when it took its subnet
        if node.has_fault("subnet-conflict") || node.has_fault("renumber-required") {
            node.renumber().await;
        }
    }
    sleep(Duration::from_secs(10)).await;
    // what a node has by now it must not lose by what comes and goes
    let subnets = cluster.nodes.iter().map(Node::subnet).collect();
    for node in &mut cluster.nodes {
        if dice.random_ratio(1, 2) {
            node.kill();
            node.start();
        }
    }
    sleep(Duration::from_secs(45)).await;
    (cluster, subnets)
}

fn network(backend: &str) -> String {
    format!(r#"{{"Network":"100.96.0.0/16",{RANGE},"Backend":{backend}}}"#)
}

async fn event(cluster: &mut Cluster, dice: &mut StdRng) -> String {
    let who = dice.random_range(0..cluster.nodes.len());
    match dice.random_range(0..32) {
        0..6 => {
            cluster.nodes[who].start();
            format!("start {who}")
        }
        6..8 => {
            cluster.nodes[who].kill();
            format!("kill {who}")
        }
        8..12 => {
            let trouble = *[
                Trouble::None,
                Trouble::None,
                Trouble::Refused,
                Trouble::Silent,
                Trouble::Hung,
                Trouble::Broken,
            ]
            .choose(dice)
            .unwrap();
            cluster.nodes[who].line.set(trouble);
            format!("line of {who}: {trouble:?}")
        }
        12..17 => datastore(cluster, dice),
        17..20 => entry(cluster, dice).await,
        20..22 => {
            let json = match dice.random_range(0..8) {
                0 => "{".to_owned(),
                1 => r#"{"Network":"10.7.0.0/16"}"#.to_owned(),
                _ => network(BACKENDS.choose(dice).unwrap()),
            };
            cluster.configure(&json).await;
            format!("config {json}")
        }
        22 => {
            let slept = Duration::from_secs(dice.random_range(1..100_000));
            cluster.nodes[who].machine.state().slept += slept;
            format!("{who} slept {slept:?}")
        }
        23 => {
            cluster.nodes[who].machine.state().wall_offset = dice.random_range(0..1 << 50);
            format!("the clock of {who} is set")
        }
        24 => {
            cluster.nodes[who].machine.reload();
            format!("reload {who}")
        }
        30..32 => departure::happens(cluster, who, dice).await,
        _ => {
            let machine = &cluster.nodes[who].machine;
            let what = machine.fumble(|state| fumble(state, who, dice));
            format!("on {who}: {what}")
        }
    }
}

fn datastore(cluster: &mut Cluster, dice: &mut StdRng) -> String {
    match dice.random_range(0..9) {
        0 | 1 => {
            cluster.memory.fail();
            "the datastore fails".to_owned()
        }
        2 | 3 => {
            cluster.memory.heal();
            "the datastore is back".to_owned()
        }
        4 => {
            cluster.memory.compact();
            "compaction".to_owned()
        }
        5 => {
            cluster.memory.lose_answers(3);
            "answers are lost".to_owned()
        }
        6 | 7 => {
            cluster.back_up();
            "backup".to_owned()
        }
        _ => {
            cluster.restore();
            "restored".to_owned()
        }
    }
}

/// Somebody else writes to the datastore.
async fn entry(cluster: &Cluster, dice: &mut StdRng) -> String {
    let leases = cluster.leases().await;
    let key = leases.choose(dice).cloned();
    let key = key.unwrap_or_else(|| "subnets/100.96.5.0-24".to_owned());
    match dice.random_range(0..4) {
        0 => {
            cluster.delete(&key).await;
            format!("delete {key}")
        }
        1 => {
            cluster.memory.expire(&key);
            format!("expire {key}")
        }
        2 => {
            let value = r#"{"PublicIP":"192.168.1.200","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:c8"}}"#;
            let ttl = dice.random_ratio(1, 2).then_some(Duration::from_secs(30));
            if cluster.write(&key, value, ttl).await {
                cluster.book.set(&key, 0);
            }
            format!("steal {key}")
        }
        _ => {
            // whose it is does not change by that
            cluster
                .write(&key, "{]", Some(Duration::from_secs(60)))
                .await;
            format!("garble {key}")
        }
    }
}

/// Somebody else changes something on a machine.
fn fumble(state: &mut State, who: usize, dice: &mut impl Rng) -> String {
    let kernel = &mut state.kernel.state;
    let ours: Vec<String> = kernel.links.keys().cloned().collect();
    let ours: Vec<String> = ours
        .into_iter()
        .filter(|name| name.starts_with("flannel") || name == "docker0")
        .collect();
    let link = ours.choose(dice).cloned().unwrap_or_default();
    match dice.random_range(0..9) {
        0 => {
            state.kernel.drop_link(&link);
            format!("delete link {link}")
        }
        1 => {
            kernel.routes.retain(|_, route| route.protocol != PROTOCOL);
            "flush routes".to_owned()
        }
        2 => {
            kernel.neighbours.clear();
            kernel.fdb.clear();
            "flush neighbours and fdb".to_owned()
        }
        3 => {
            if let Some(link) = kernel.links.get_mut(&link) {
                link.mtu = 1300;
                link.mac = link.mac.map(|_| Mac::local([9; 6]));
            }
            format!("alter {link}")
        }
        4 => {
            let key = RouteKey {
                destination: "100.96.77.0/24".parse().unwrap(),
                metric: 0,
            };
            let route = Route {
                link: "eth0".into(),
                gateway: Some("192.168.1.1".parse().unwrap()),
                onlink: false,
                source: None,
                protocol: PROTOCOL,
                nexthop: None,
            };
            kernel.routes.insert(key, route);
            "a stray route".to_owned()
        }
        5 => {
            kernel.addresses.retain(|row| *row.link != *link);
            format!("no address on {link}")
        }
        _ => fumble_more(state, &link, who, dice),
    }
}

fn fumble_more(state: &mut State, link: &str, who: usize, dice: &mut impl Rng) -> String {
    match dice.random_range(0..4) {
        0 => {
            let host = 60 + who * 30 + dice.random_range(0..30);
            state.interfaces = interfaces(&format!("192.168.1.{host}/24"));
            format!("another address .{host}")
        }
        1 => {
            let links = &mut state.kernel.state.links;
            if let Some(LinkKind::Vxlan { learning, .. }) =
                links.get_mut(link).map(|link| &mut link.kind)
            {
                *learning = true;
            }
            format!("{link} learns")
        }
        2 => fumble_with_rules(&mut state.kernel.state.firewall, dice),
        _ => {
            state.trouble = *[
                KernelTrouble::None,
                KernelTrouble::Hung,
                KernelTrouble::Deadly,
                KernelTrouble::Unfiltered,
            ]
            .choose(dice)
            .unwrap();
            format!("the kernel is {:?}", state.trouble)
        }
    }
}

fn fumble_with_rules(firewall: &mut Firewall, dice: &mut impl Rng) -> String {
    let what = dice.random_range(0..4);
    if what == 0 {
        firewall.table = None;
    }
    for rules in firewall.passes.values_mut().filter(|_| what < 2) {
        rules.clear();
    }
    for rules in firewall.passes.values_mut().filter(|_| what == 2) {
        rules.insert(0, Rule::STRANGER);
    }
    for table in firewall.table.iter_mut().filter(|_| what == 3) {
        table
            .sets
            .values_mut()
            .for_each(|set| *set = Set::Hosts([].into()));
    }
    let texts = [
        "flush ruleset",
        "iptables -F",
        "a rule before ours",
        "no peers in sets",
    ];
    texts[what].to_owned()
}
