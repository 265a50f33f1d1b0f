//! Two nodes whose containers ping each other all the time, and what must hold meanwhile.

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::etcd::{EtcdServer, EtcdSetup};
use crate::support::lab::{Lab, Shape};
use crate::support::node::Node;
use crate::support::process::{Pings, until};

/// Within this much all is right again, once a fault is over.
const BOUND: Duration = Duration::from_secs(5);
const PREFIX: &str = "/coreos.com/network";
const CONFIG: &str = r#"{"Network":"100.96.0.0/16","Backend":{"Type":"vxlan"}}"#;
/// What the nodes renew every two seconds, though it lives long enough for any fault here.
pub(crate) const OFTEN: &str = "[lease]\nttl = \"60s\"\nrenew-margin = \"58s\"\n";

/// A lab with two nodes at work. Dropping it ends all.
pub(crate) struct Site {
    pub(crate) nodes: [Node; 2],
    pub(crate) members: Vec<EtcdServer>,
    pub(crate) lab: Lab,
    rows: [String; 2],
    /// How many lines each node had logged.
    said: [usize; 2],
    pings: Vec<Pings>,
}

/// A lab without etcd and nodes; `None`, with a message, where there can be none.
pub(crate) fn lab() -> Option<Lab> {
    Lab::new(Shape::Flat)
}

/// An etcd of one member in the lab, with the network config.
pub(crate) fn one_member(lab: &Lab, setup: EtcdSetup) -> Vec<EtcdServer> {
    let inside = Some((lab.namespace("net"), Ipv4Addr::new(192, 168, 1, 1)));
    let server = EtcdServer::start_with(EtcdSetup { inside, ..setup });
    let members = vec![server.expect("the lab needs etcd, too")];
    put_config(&members[0]);
    members
}

/// An etcd of three members in the lab, the leader first.
pub(crate) fn three_members(lab: &Lab) -> Vec<EtcdServer> {
    lab.must(
        "net",
        "for i in 2 3; do ip address add 192.168.1.$i/24 dev br1; done",
    );
    let setup = |last| EtcdSetup {
        inside: Some((lab.namespace("net"), Ipv4Addr::new(192, 168, 1, last))),
        ..EtcdSetup::default()
    };
    let members = [("one", 1), ("two", 2), ("three", 3)].map(|(name, last)| (name, setup(last)));
    let members = EtcdServer::start_cluster_with(members).expect("the lab needs etcd, too");
    let mut members = Vec::from(members);
    members.sort_by_key(|member| !member.leads());
    put_config(&members[0]);
    members
}

/// Writes the network config.
pub(crate) fn put_config(server: &EtcdServer) {
    server.etcdctl(&["put", &format!("{PREFIX}/config"), CONFIG]);
}

/// Writes a lease as another member of the cluster would.
pub(crate) fn put_lease(server: &EtcdServer, third: u8, mac: u8) {
    let value = format!(
        r#"{{"PublicIP":"192.168.1.{third}","BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:00:00:00:00:{mac:02x}"}}}}"#
    );
    // "lease 694d8d1b5ae1b10a granted with TTL(600s)"
    let granted = server.etcdctl(&["lease", "grant", "600"]);
    let lease = format!("--lease={}", granted.split_whitespace().nth(1).unwrap());
    server.etcdctl(&["put", &lease_key(third), &value, &lease]);
}

fn lease_key(third: u8) -> String {
    format!("{PREFIX}/subnets/100.96.{third}.0-24")
}

/// `[datastore]` with these endpoints.
pub(crate) fn endpoints<'a>(endpoints: impl IntoIterator<Item = &'a EtcdServer>) -> String {
    let urls: Vec<String> = endpoints.into_iter().map(EtcdServer::endpoint).collect();
    format!("[datastore]\nendpoints = {urls:?}\n")
}

impl Site {
    /// Two nodes on a running etcd, connected, with pings between their containers. `tables` is
    /// more of their config.
    pub(crate) fn start(lab: Lab, members: Vec<EtcdServer>, tables: &str, datastore: &str) -> Self {
        let mut nodes = [1, 2].map(|number| configured(&lab, number, tables, datastore));
        for node in &mut nodes {
            node.start();
        }
        for node in &mut nodes {
            node.wait_until_ready();
            lab.container(node);
        }
        for node in &nodes {
            node.wait_for_status("1 of 1 peers");
            node.wait_for_status("datastore ok");
        }
        for (from, to) in [(1, 2), (2, 1)] {
            until("the containers reach each other", || lab.reaches(from, to));
        }
        Self {
            rows: nodes.each_ref().map(Node::rows),
            said: nodes.each_ref().map(lines),
            pings: [(1, 2), (2, 1)].map(|(from, to)| lab.ping(from, to)).into(),
            nodes,
            members,
            lab,
        }
    }

    /// Waits until all nodes show a fault with this in it.
    pub(crate) fn wait_for_fault(&self, part: &str) {
        for node in &self.nodes {
            let line = node.wait_for_status(part);
            assert!(line.contains("etcd"), "{line}");
            if node.number == 1 {
                eprintln!("status meanwhile: {line}");
            }
        }
    }

    /// Lets time pass in which nothing may change.
    pub(crate) fn hold(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.check_rows();
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn check_rows(&mut self) {
        for (node, rows) in self.nodes.iter_mut().zip(&self.rows) {
            assert!(node.is_running());
            assert_eq!(&node.rows(), rows, "node{}", node.number);
        }
    }

    /// The fault was over at `ended`: another member's new lease is to be routed soon, with no
    /// fault left, and then it is to be as it was before, with at most `lines` of log.
    pub(crate) fn is_right_again(&mut self, what: &str, ended: Instant, lines_each: usize) {
        let member = self.members.iter().find(|member| member.is_running());
        let member = member.expect("a member that runs");
        put_lease(member, 9, 9);
        for node in &self.nodes {
            node.wait_for("ip -4 route", "100.96.9.0/24");
            until("all is right", || {
                node.status_line().ends_with("datastore ok")
            });
        }
        let took = ended.elapsed();
        eprintln!("{what}: right again after {took:.1?}");
        member.etcdctl(&["del", &lease_key(9)]);
        for node in &self.nodes {
            node.wait_for_end("ip -4 route", "100.96.9.0/24");
        }
        for (node, said) in self.nodes.iter().zip(&mut self.said) {
            let log = node.log();
            let more: Vec<&str> = log.lines().skip(*said).collect();
            *said += more.len();
            // what was asked for and done is told each time
            let of_work =
                |line: &&str| line.contains("lease renewed") || line.contains("kernel set up");
            let more: Vec<&str> = more.into_iter().filter(|line| !of_work(line)).collect();
            if node.number == 1 {
                eprintln!("logged:\n{}", more.join("\n"));
            }
            assert!(more.len() <= lines_each, "{more:#?}");
        }
        self.check_rows();
        assert!(took <= BOUND, "{took:?}");
    }

    /// No ping was lost from beginning to end.
    pub(crate) fn finish(mut self) {
        for pings in self.pings.drain(..) {
            let tally = pings.finish();
            assert!(tally.lost.is_empty() && tally.sent > 100, "{tally:?}");
        }
    }
}

/// A node that asks for its subnet of the documents and is not started yet.
pub(crate) fn configured(lab: &Lab, number: u32, tables: &str, datastore: &str) -> Node {
    let node = lab.bare_node(number);
    let own = format!("[node]\nname = \"node{number}\"\nsubnet = \"100.96.{number}.0/24\"\n");
    node.write_config_with_store(&format!("{own}{tables}"), datastore);
    node
}

fn lines(node: &Node) -> usize {
    node.log().lines().count()
}
