//! Three nodes with the udp backend, each with a container, and threads inside.

use std::fs::{self, File};
use std::thread::{self, JoinHandle};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;

use crate::support::lab::{Lab, Shape};
use crate::support::node::Node;

/// The network config of all tests here.
pub(crate) const UDP: &str = r#"{"Type":"udp"}"#;

/// How a node moves packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// As it does by itself.
    Offloads,
    /// One by one.
    Plain,
    /// As by itself, but all from the port that all nodes share.
    OnePort,
}

impl Way {
    /// The table of the config that asks for it.
    fn table(self) -> &'static str {
        match self {
            Self::Offloads => "",
            Self::Plain => "[udp]\noffload = false\n",
            Self::OnePort => "[udp]\nport-per-flow = false\n",
        }
    }
}

/// All nodes ready, all containers reach each other.
pub(crate) struct Cluster {
    pub(crate) nodes: [Node; 3],
    pub(crate) lab: Lab,
}

impl Cluster {
    /// `None`, with a message, where there can be none.
    pub(crate) fn start(shape: Shape, ways: [Way; 3]) -> Option<Self> {
        let lab = Lab::with_backend(shape, UDP)?;
        let mut nodes = [1, 2, 3].map(|number| lab.node(number));
        for (node, way) in nodes.iter_mut().zip(ways) {
            choose(node, way);
            node.start();
        }
        for node in &mut nodes {
            node.wait_until_ready();
            lab.container(node);
        }
        lab.wait_until_connected();
        Some(Self { nodes, lab })
    }

    /// The namespace of a container.
    pub(crate) fn container(&self, number: u32) -> String {
        self.lab.namespace(&format!("c{number}"))
    }

    /// The containers of two nodes.
    pub(crate) fn pair(&self, from: u32, to: u32) -> Pair {
        Pair::new(&self.lab, from, to)
    }

    /// Has a running node move packets in another way.
    pub(crate) fn reload(&self, number: u32, way: Way) {
        let node = &self.nodes[number as usize - 1];
        choose(node, way);
        node.signal(Signal::SIGHUP);
    }
}

/// Writes the config of a node.
pub(crate) fn choose(node: &Node, way: Way) {
    let number = node.number;
    node.write_config(&format!(
        "[node]\nname = \"node{number}\"\nsubnet = \"100.96.{number}.0/24\"\n{}",
        way.table()
    ));
}

/// Two containers, one of which sends to the other.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    /// The namespace of the one that sends.
    pub(crate) from: String,
    /// The namespace of the one that receives.
    pub(crate) to: String,
    /// The address of the one that receives.
    pub(crate) address: [u8; 4],
}

impl Pair {
    pub(crate) fn new(lab: &Lab, from: u32, to: u32) -> Self {
        Self {
            from: lab.namespace(&format!("c{from}")),
            to: lab.namespace(&format!("c{to}")),
            address: [100, 96, u8::try_from(to).unwrap(), 2],
        }
    }
}

/// All ordered pairs of nodes.
pub(crate) const ALL_PAIRS: [(u32, u32); 6] = [(1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2)];

/// Does the work on a thread of its own inside a network namespace.
pub(crate) fn within<T: Send + 'static>(
    namespace: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let namespace = File::open(format!("/run/netns/{namespace}")).unwrap();
    thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    })
}

/// Whether this machine has the programs; else says which it lacks.
pub(crate) fn has(programs: &[&str]) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let missing = programs.iter().find(|program| {
        !std::env::split_paths(&folders)
            .any(|folder| fs::exists(folder.join(program)).unwrap_or(false))
    });
    if let Some(program) = missing {
        eprintln!("skipped: this needs the program {program}");
    }
    missing.is_none()
}
