//! A lab with a flanneld on node2.

use std::ffi::OsString;

use crate::support::flanneld::Flanneld;
use crate::support::lab::{Lab, Shape};
use crate::support::node::Node;
use crate::support::process::until;

/// Where `FLANNELD` names a flanneld; else says so.
fn program() -> Option<OsString> {
    let program = std::env::var_os("FLANNELD").filter(|path| !path.is_empty());
    if program.is_none() {
        eprintln!("skipped: FLANNELD names no flanneld");
    }
    program
}

/// node1 and node3 run the service and node2 runs flanneld, a container on each, all connected.
pub(crate) struct Mixed {
    pub(crate) flanneld: Flanneld,
    /// node2 is not started.
    pub(crate) nodes: [Node; 3],
    pub(crate) lab: Lab,
}

impl Mixed {
    /// `None`, with a message, where there can be none.
    pub(crate) fn start(backend: &str) -> Option<Self> {
        let program = program()?;
        let lab = Lab::with_backend(Shape::Flat, &format!(r#"{{"Type":"{backend}"}}"#))?;
        let mut nodes = [1, 2, 3].map(|number| lab.node(number));
        let mut flanneld = Flanneld::new(program, &lab, &nodes[1]);
        nodes[0].start();
        nodes[2].start();
        nodes[0].wait_until_ready();
        nodes[2].wait_until_ready();
        // last: of several events that etcd sends together a flanneld 0.20 sees the first alone,
        // and for a tenth of a second after its start that is the one of its own lease
        flanneld.start();
        nodes[1].must(
            "ip link add docker0 type bridge; ip address add 100.96.2.1/24 dev docker0
             ip link set docker0 up",
        );
        for node in &nodes {
            lab.container(node);
        }
        lab.wait_until_connected();
        let mixed = Self {
            flanneld,
            nodes,
            lab,
        };
        mixed.is_well();
        Some(mixed)
    }

    /// Waits until node1 and node3 have nothing to complain of.
    pub(crate) fn is_well(&self) {
        for node in [&self.nodes[0], &self.nodes[2]] {
            until("both peers are there and all is well", || {
                let line = node.status_line();
                line.contains("2 of 2 peers") && line.ends_with("datastore ok")
            });
        }
    }

    /// What node1 and node3 have in the kernel and in etcd, which only their own doing changes.
    pub(crate) fn ours(&self) -> Vec<(String, String, i64)> {
        let ours = [
            (&self.nodes[0], "100.96.1.0-24"),
            (&self.nodes[2], "100.96.3.0-24"),
        ];
        let seen = ours.map(|(node, key)| {
            let lease = self.lab.lease(key).unwrap();
            (node.rows(), lease.value, lease.revision)
        });
        seen.into()
    }
}
