//! Beside firewalld itself, in the network namespace and on the bus of a node.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};

use crate::support::lab::{Lab, Shape};
use crate::support::node::Node;
use crate::support::process::{inside, until};

/// firewalld, with a config of its own; killed on drop.
struct Firewalld {
    daemon: Child,
    namespace: String,
    address: String,
}

impl Firewalld {
    /// `None`, with a message, where there is none.
    fn start(lab: &Lab, node: &Node) -> Option<Self> {
        let found = Command::new("firewall-cmd").arg("--help").output();
        if found.is_err() {
            eprintln!("skipped: firewalld is not installed (make install-deps FIREWALLD=yes)");
            return None;
        }
        let folder = node.folder().join("firewalld");
        fs::create_dir_all(&folder).unwrap();
        let config = "DefaultZone=public\nFirewallBackend=nftables\n";
        fs::write(folder.join("firewalld.conf"), config).unwrap();
        let namespace = lab.namespace(&format!("node{}", node.number));
        let address = format!("unix:path={}/bus", node.folder().display());
        let mut daemon = inside(&namespace, "firewalld");
        daemon.args(["--nofork", "--nopid", "--log-target", "file"]);
        daemon.arg("--log-file").arg(folder.join("log"));
        daemon.arg("--system-config").arg(&folder);
        daemon.env("DBUS_SYSTEM_BUS_ADDRESS", &address);
        daemon.stdout(Stdio::null());
        daemon.stderr(File::create(folder.join("errors")).unwrap());
        let firewalld = Self {
            daemon: daemon.spawn().unwrap(),
            namespace,
            address,
        };
        until("firewalld runs", || firewalld.ask("--state").is_some());
        Some(firewalld)
    }

    /// What firewall-cmd prints, if it succeeds.
    fn ask(&self, words: &str) -> Option<String> {
        let mut command = inside(&self.namespace, "firewall-cmd");
        command.env("DBUS_SYSTEM_BUS_ADDRESS", &self.address);
        let output = command.args(words.split(' ')).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        output.status.success().then(|| said.trim().to_owned())
    }

    /// What it lets in of ours: sources, ports.
    fn lets_in(&self) -> [String; 2] {
        [
            "--zone=trusted --list-sources",
            "--zone=public --list-ports",
        ]
        .map(|words| self.ask(words).unwrap())
    }
}

impl Drop for Firewalld {
    fn drop(&mut self) {
        // an error would only say that it has ended by itself
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn goes_through_firewalld(backend: &str, port: &str) {
    let Some(lab) = Lab::with_backend(Shape::Flat, backend) else {
        return;
    };
    let mut nodes = [lab.node(1), lab.node(2)];
    if !nodes[0].start_bus() {
        return;
    }
    let Some(firewalld) = Firewalld::start(&lab, &nodes[0]) else {
        return;
    };
    for node in &mut nodes {
        node.start();
        node.wait_until_ready();
        lab.container(node);
    }
    let through = || lab.reaches(2, 1) && lab.reaches(1, 2);
    until("it goes through firewalld", through);
    let let_in = || ["100.96.0.0/16".to_owned(), port.to_owned()];
    assert_eq!(firewalld.lets_in(), let_in());

    // nobody is there to tell it again
    nodes[0].kill();
    firewalld.ask("--reload").unwrap();
    assert_eq!(firewalld.lets_in(), ["", ""]);
    until("firewalld lets nothing in", || !lab.reaches(2, 1));
    nodes[0].start();
    until("it goes through again", through);
    firewalld.ask("--reload").unwrap();
    until("it is told after a reload", || {
        firewalld.lets_in() == let_in()
    });
    until("it goes through after a reload", through);

    lab.must("node1", "ip link delete veth-c1");
    let (code, said, complaint) = nodes[0].program(&["cleanup"]);
    assert_eq!(code, Some(0), "{said}{complaint}");
    assert_eq!(firewalld.lets_in(), ["", ""]);
}

#[test]
fn vxlan_goes_through_firewalld() {
    goes_through_firewalld(r#"{"Type":"vxlan"}"#, "8472/udp");
}

#[test]
fn udp_goes_through_firewalld() {
    goes_through_firewalld(r#"{"Type":"udp"}"#, "8285/udp");
}

#[test]
fn host_gw_goes_through_firewalld() {
    goes_through_firewalld(r#"{"Type":"host-gw"}"#, "");
}

#[test]
fn what_firewalld_has_against_it_is_a_fault_until_it_has_not() {
    let Some(lab) = Lab::with_backend(Shape::Flat, r#"{"Type":"vxlan"}"#) else {
        return;
    };
    let mut node = lab.node(1);
    if !node.start_bus() {
        return;
    }
    let Some(firewalld) = Firewalld::start(&lab, &node) else {
        return;
    };
    let elsewhere = "--zone=drop --add-source=100.96.0.0/16";
    firewalld.ask(elsewhere).unwrap();
    node.start();
    node.wait_until_ready();
    let fault = || {
        let status = node.status();
        let faults = status["faults"].as_array().unwrap().clone();
        let mut faults = faults.into_iter();
        let ours = faults.find(|fault| fault["code"] == "foreign-manager")?;
        Some(ours["text"].as_str().unwrap().to_owned())
    };
    until("it is a fault", || fault().is_some());
    let told = fault().unwrap();
    let remedy = "in the zone drop, where it may drop what containers send; run: firewall-cmd \
                  --zone=trusted --change-source=100.96.0.0/16";
    assert!(told.ends_with(remedy), "{told}");
    firewalld.ask("--reload").unwrap();
    until("it is none any more", || fault().is_none());
    assert_eq!(firewalld.lets_in(), ["100.96.0.0/16", "8472/udp"]);
}
