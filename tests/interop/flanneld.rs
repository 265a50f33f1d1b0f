//! A flanneld on a node of the lab, and a lab with one on node2.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::Duration;

use crate::support::lab::{ETCD, Lab, Shape};
use crate::support::node::Node;
use crate::support::process::{end, inside, until};

/// A flanneld that shares a node's folder: `subnet.env` is the same file for both programs.
pub(crate) struct Flanneld {
    program: OsString,
    namespace: String,
    folder: PathBuf,
    child: Option<Child>,
}

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

impl Flanneld {
    /// Not started yet. It will ask for 100.96.N.0/24, as it finds that in its `subnet.env`.
    fn new(program: OsString, lab: &Lab, node: &Node) -> Self {
        let number = node.number;
        let earlier = format!(
            "FLANNEL_NETWORK=100.96.0.0/16\nFLANNEL_SUBNET=100.96.{number}.1/24\n\
             FLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n"
        );
        fs::write(node.folder().join("subnet.env"), earlier).unwrap();
        Self {
            program,
            namespace: lab.namespace(&format!("node{number}")),
            folder: node.folder().to_owned(),
            child: None,
        }
    }

    /// Starts it and waits until it is ready.
    pub(crate) fn start(&mut self) {
        assert!(self.child.is_none(), "flanneld runs already");
        let notify = self.folder.join("notify-flanneld");
        let _ = fs::remove_file(&notify);
        let socket = UnixDatagram::bind(&notify).unwrap();
        let pause = Duration::from_millis(50);
        socket.set_read_timeout(Some(pause)).unwrap();
        let mut command = inside(&self.namespace, "sh");
        command
            .args(["-ec", "exec \"$@\"", "sh"])
            .arg(&self.program);
        let subnet_file = self.folder.join("subnet.env");
        command.arg(format!("-subnet-file={}", subnet_file.display()));
        command.arg(format!("-etcd-endpoints={ETCD}"));
        // it needs no iptables then
        command.args(["-iface=eth0", "-iptables-forward-rules=false"]);
        command.env("NOTIFY_SOCKET", &notify);
        let log = self.folder.join("flanneld.log");
        let log = File::options().create(true).append(true).open(log).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        let mut buffer = [0; 4096];
        until("flanneld is ready", || {
            assert_eq!(self.ended(), None, "flanneld has ended");
            match socket.recv(&mut buffer) {
                Ok(length) => buffer[..length].starts_with(b"READY=1"),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    false
                }
            }
        });
    }

    /// Ends it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        end(self.child.take());
    }

    /// How it has ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child
            .as_mut()
            .and_then(|child| child.try_wait().unwrap())
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("flanneld.log")).unwrap_or_default()
    }
}

impl Drop for Flanneld {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- log of flanneld:\n{}", self.log());
        }
        self.kill();
    }
}
