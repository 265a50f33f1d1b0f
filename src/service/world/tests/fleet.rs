use super::*;
use crate::cluster::acquire::Claimant;
use crate::cluster::allocate::Written;
use crate::cluster::datastore::{Datastore, Watch};
use crate::cluster::fleet::{Fleet, Roster, vtep_mac};
use crate::config::Store;
use crate::service::status::RenumberError;

const NODE1: &str = "node1 = { public-ip = \"192.168.1.47\", subnet = \"100.96.1.0/24\" }\n";
const NODE2: &str = "node2 = { public-ip = \"192.168.1.48\", subnet = \"100.96.2.0/24\" }\n";
const NODE3: &str = "node3 = { public-ip = \"192.168.1.49\", subnet = \"100.96.3.0/24\" }\n";
const NETWORK: &str = "[network]\nnetwork = \"100.96.0.0/16\"\n";

fn listing(nodes: &str, network: &str) -> Config {
    config(&format!(
        "[node]\nname = \"node1\"\n[datastore]\ntype = \"static\"\n[datastore.nodes]\n\
         {nodes}{network}"
    ))
}

fn roster(config: &Config) -> &Roster {
    let Store::Static(roster) = &config.datastore.store else {
        panic!("{config:?}");
    };
    roster
}

/// The world of node1, and the datastore that it has seen.
struct Member {
    world: World,
    fleet: Fleet,
    revision: Revision,
}

impl Member {
    async fn start(config: Config) -> Self {
        let fleet = Fleet::new(roster(&config));
        let identity = world("").identity;
        let mut world = World::new(config, identity, fleet.name());
        world.uplink_seen(&host("eth0", &[("eth0", "192.168.1.47/24")]), at(0));
        let snapshot = fleet.list().await.unwrap();
        let revision = snapshot.revision;
        assert!(world.listed(snapshot, at(1)));
        let mut member = Self {
            world,
            fleet,
            revision,
        };
        member.acquire().await;
        member
    }

    /// Does what a service does that has no lease.
    async fn acquire(&mut self) {
        let Some(Task::Acquire(network, wish, attrs)) = self.world.duty(at(1)) else {
            panic!("{:?}", self.world.duty(at(1)));
        };
        let dice = rand::SeedableRng::seed_from_u64(1);
        let mut claimant = Claimant::new(&self.fleet, DAY, dice);
        let attrs = |own: Option<&_>| adopting(attrs.clone(), own);
        let held = claimant.acquire(&network, &wish, attrs).await;
        self.world.acquired(held, at(1));
    }

    /// Reads the config again, and lets the news come in.
    async fn reload(&mut self, config: Config) {
        self.fleet.declare(roster(&config));
        self.world.reconfigure(config);
        let revision = self.fleet.list().await.unwrap().revision;
        if revision > self.revision {
            let mut watch = self.fleet.watch(self.revision).await.unwrap();
            let events = watch.next().await.unwrap();
            assert!(self.world.changed(events, at(2)), "nothing to be doubted");
            self.revision = revision;
        }
        let snapshot = self.fleet.list().await.unwrap();
        assert!(self.world.listed(snapshot, at(2)), "nothing to be doubted");
    }

    fn is_quiet(&mut self) {
        for second in [3, 100_000, 10_000_000] {
            assert_eq!(self.world.duty(at(second)), None);
        }
    }
}

#[tokio::test]
async fn a_member_has_its_subnet_for_ever_and_leaves_it_at_that() {
    let mut member = Member::start(listing(&[NODE1, NODE2].concat(), NETWORK)).await;
    let world = &mut member.world;
    assert_eq!(world.subnet(), Some(subnet("100.96.1.0-24")));
    assert_eq!(peers(world), ["100.96.2.0-24"]);
    let mac = world.attrs().unwrap().backend.mac();
    assert_eq!(mac, Some(vtep_mac("node1", 1)));
    let status = world.status(Arc::default());
    assert_eq!(status.lease_expires_usec, None);
    assert_eq!(codes(world), [""; 0]);
    member.is_quiet();
}

#[tokio::test]
async fn the_list_is_followed() {
    let mut member = Member::start(listing(&[NODE1, NODE2].concat(), NETWORK)).await;
    member
        .reload(listing(&[NODE1, NODE2, NODE3].concat(), NETWORK))
        .await;
    assert_eq!(peers(&mut member.world), ["100.96.2.0-24", "100.96.3.0-24"]);
    member
        .reload(listing(&[NODE1, NODE3].concat(), NETWORK))
        .await;
    assert_eq!(peers(&mut member.world), ["100.96.3.0-24"]);
    let network = format!("{NETWORK}[network.backend]\ntype = \"vxlan\"\nvni = 7\n");
    member
        .reload(listing(&[NODE1, NODE3].concat(), &network))
        .await;
    let mac = member.world.attrs().unwrap().backend.mac();
    assert_eq!(mac, Some(vtep_mac("node1", 7)));
    let network = format!("{NETWORK}[network.backend]\ntype = \"host-gw\"\n");
    member
        .reload(listing(&[NODE1, NODE3].concat(), &network))
        .await;
    assert_eq!(
        member.world.status(Arc::default()).backend.as_deref(),
        Some("host-gw")
    );
    assert_eq!(codes(&member.world), [""; 0]);
    member.is_quiet();
}

#[tokio::test]
async fn another_subnet_of_its_own_is_gone_to_when_asked() {
    let mut member = Member::start(listing(&[NODE1, NODE2].concat(), NETWORK)).await;
    // node2 gets what this node has
    let nodes = [
        NODE1.replace(".1.0/24", ".9.0/24"),
        NODE2.replace(".2.0/24", ".1.0/24"),
    ];
    let error = member.world.renumber(None).unwrap_err();
    assert!(
        matches!(&error, RenumberError::Failed(text) if text.contains("declared")),
        "{error}"
    );
    member.reload(listing(&nodes.concat(), NETWORK)).await;
    assert_eq!(codes(&member.world), ["other-subnet"]);
    let text = member.world.faults.list().remove(0).text;
    assert_eq!(
        text,
        "[datastore.nodes] gives this node 100.96.9.0/24, but it holds 100.96.1.0/24, in which \
         containers may live; to move there: flannel-rs renumber"
    );
    member.is_quiet();
    assert_eq!(member.world.subnet(), Some(subnet("100.96.1.0-24")));
    assert_eq!(
        peers(&mut member.world),
        [""; 0],
        "its own place is no peer"
    );

    let elsewhere = member
        .world
        .renumber(Some(subnet("100.96.8.0-24")))
        .unwrap_err();
    assert!(
        elsewhere
            .to_string()
            .contains("gives this node 100.96.9.0/24"),
        "{elsewhere}"
    );
    member.world.renumber(None).unwrap();
    let Some(Task::Renumber(network, held, goal, attrs)) = member.world.duty(at(3)) else {
        panic!("{:?}", member.world.duty(at(3)));
    };
    let dice = rand::SeedableRng::seed_from_u64(1);
    let mut claimant = Claimant::new(&member.fleet, DAY, dice);
    let held = claimant.renumber(&network, &held, goal, attrs).await;
    member.world.renumbered(held, at(3)).unwrap();
    assert_eq!(member.world.subnet(), Some(subnet("100.96.9.0-24")));
    assert_eq!(peers(&mut member.world), ["100.96.1.0-24"]);
    assert_eq!(codes(&member.world), [""; 0]);
    member.is_quiet();
}

#[tokio::test]
async fn a_network_without_a_place_for_it_is_gone_to_when_asked() {
    let mut member = Member::start(listing(&[NODE1, NODE2].concat(), NETWORK)).await;
    let moved = [NODE1, NODE2].concat().replace("100.96.", "10.5.");
    let network = NETWORK.replace("100.96.", "10.5.");
    member.reload(listing(&moved, &network)).await;
    assert!(codes(&member.world).contains(&"renumber-required".to_owned()));
    member.is_quiet();
    member.world.renumber(None).unwrap();
    let Some(Task::Renumber(network, held, goal, attrs)) = member.world.duty(at(3)) else {
        panic!("{:?}", member.world.duty(at(3)));
    };
    let dice = rand::SeedableRng::seed_from_u64(1);
    let mut claimant = Claimant::new(&member.fleet, DAY, dice);
    let held = claimant.renumber(&network, &held, goal, attrs).await;
    member.world.renumbered(held, at(3)).unwrap();
    assert_eq!(member.world.subnet(), Some(subnet("10.5.1.0-24")));
    assert_eq!(peers(&mut member.world), ["10.5.2.0-24"]);
    assert_eq!(codes(&member.world), [""; 0]);
}

/// What it wrote last may be another's by now: same subnet, same revision, same address.
#[tokio::test]
async fn it_is_its_name_that_says_who_it_is() {
    let nodes = [
        NODE1.replace(".1.0/24", ".9.0/24"),
        NODE2.replace("168.1.48", "168.1.50"),
    ];
    let config = listing(&nodes.concat(), NETWORK);
    let mut first = Member::start(config.clone()).await;
    let other = first.world.view.record(subnet("100.96.2.0-24")).unwrap();
    first.world.identity.last = Some(Written {
        subnet: other.lease.subnet,
        revision: other.revision,
        public_ip: other.lease.attrs.public_ip,
    });
    first.world.tenure = None;
    first.acquire().await;
    assert_eq!(first.world.subnet(), Some(subnet("100.96.9.0-24")));
}

#[tokio::test]
async fn another_address_of_its_own_takes_no_restart() {
    let mut member = Member::start(listing(&[NODE1, NODE2].concat(), NETWORK)).await;
    let moved = NODE1.replace("168.1.47", "168.1.51");
    member
        .reload(listing(&[&moved, NODE2].concat(), NETWORK))
        .await;
    let there = host("eth0", &[("eth0", "192.168.1.51/24")]);
    member.world.uplink_seen(&there, at(3));
    assert_eq!(codes(&member.world), [""; 0]);
    let node = member.world.node().unwrap();
    assert_eq!(node.lease.attrs.public_ip, node.uplink.public_ip);
    assert_eq!(
        node.uplink.public_ip,
        "192.168.1.51".parse::<std::net::Ipv4Addr>().unwrap()
    );
    assert_eq!(peers(&mut member.world), ["100.96.2.0-24"]);
    member.is_quiet();
}

#[tokio::test]
async fn another_name_waits_for_a_restart() {
    let nodes = [NODE1, NODE2].concat();
    let mut member = Member::start(listing(&nodes, NETWORK)).await;
    let before = member.world.plan();
    let mut other = listing(&nodes, NETWORK);
    other.node.name = Some("node2".to_owned());
    other.node.public_ip = "192.168.1.48".parse().ok();
    other.node.subnet = Some(subnet("100.96.2.0-24"));
    member.reload(other).await;
    assert_eq!(codes(&member.world), ["config"]);
    assert_eq!(member.world.plan(), before);
    assert_eq!(
        member.world.config.node.subnet,
        Some(subnet("100.96.1.0-24"))
    );
    member.is_quiet();
}

#[tokio::test]
async fn another_kind_of_datastore_waits_for_a_restart() {
    let before = listing(&[NODE1, NODE2].concat(), NETWORK);
    let mut member = Member::start(before.clone()).await;
    let docker = "[docker]\nbridge = \"cni0\"\n";
    member.world.reconfigure(config(docker));
    assert_eq!(codes(&member.world), ["config"]);
    assert_eq!(member.world.config.docker.bridge, "cni0");
    assert_eq!(member.world.config.node, before.node);
    assert_eq!(member.world.config.network, before.network);
    assert_eq!(member.world.subnet(), Some(subnet("100.96.1.0-24")));
    member.is_quiet();
    let mut world = holding();
    world.reconfigure(before);
    assert_eq!(codes(&world), ["config"]);
    assert_eq!(world.config.node.subnet, None);
    assert_eq!(world.duty(at(2)), None);
}

#[tokio::test]
async fn one_that_has_withdrawn_comes_back_to_the_subnet_that_the_list_gives_it() {
    let nodes = [NODE1, NODE2].concat();
    let mut member = Member::start(listing(&nodes, NETWORK)).await;
    member.world.withdraw().unwrap();
    member.reload(listing(&nodes, NETWORK)).await;
    assert_eq!(member.world.subnet(), Some(subnet("100.96.1.0-24")));
    member.is_quiet();

    // node2 gets what this node had
    member.world.withdraw().unwrap();
    let nodes = [
        NODE1.replace(".1.0/24", ".9.0/24"),
        NODE2.replace(".2.0/24", ".1.0/24"),
    ];
    member.reload(listing(&nodes.concat(), NETWORK)).await;
    assert_eq!(member.world.subnet(), None);
    member.acquire().await;
    assert_eq!(member.world.subnet(), Some(subnet("100.96.9.0-24")));
    assert_eq!(peers(&mut member.world), ["100.96.1.0-24"]);
    assert_eq!(codes(&member.world), [""; 0]);
    member.is_quiet();
}
