//! The lab itself: it stands, several stand at once, and none leaves anything behind.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "clippy takes only functions marked #[test] for tests"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

const LAB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/lab/lab.sh");

/// A lab that ends with the test, also when that fails.
struct Lab(String);

impl Lab {
    /// `None`, with a message, where network namespaces are refused.
    fn named(name: &str) -> Option<Self> {
        let lab = Self(format!("t{}-{name}", std::process::id()));
        let probe = format!("{}-probe", lab.0);
        let made = Command::new("ip").args(["netns", "add", &probe]).output();
        if !made.is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: this needs root, iproute2 and network namespaces");
            return None;
        }
        run(Command::new("ip").args(["netns", "delete", &probe]));
        Some(lab)
    }

    fn script(&self, words: &[&str]) -> Command {
        let mut command = Command::new(LAB);
        command.args(words).args(["--prefix", &self.0]);
        command
    }

    /// Runs a command in one of the namespaces.
    fn inside(&self, name: &str, command: &str) -> String {
        let namespace = format!("{}-{name}", self.0);
        let words = command.split_whitespace();
        run(Command::new("ip")
            .args(["netns", "exec", &namespace])
            .args(words))
    }

    fn namespaces(&self) -> Vec<String> {
        let prefix = format!("{}-", self.0);
        let listed = run(Command::new("ip").args(["netns", "list"]));
        let names = listed.lines().filter_map(|line| line.split(' ').next());
        names
            .filter_map(|name| name.strip_prefix(&prefix).map(String::from))
            .collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.script(&["down"]).status();
    }
}

fn run(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {status}\n{stderr}");
    String::from_utf8(stdout).unwrap()
}

fn fails(command: &mut Command) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    assert!(!status.success(), "{command:?} succeeds");
    String::from_utf8(stderr).unwrap()
}

#[test]
fn two_labs_stand_at_once_and_each_node_reaches_the_others() {
    let (Some(flat), Some(routed)) = (Lab::named("flat"), Lab::named("routed")) else {
        return;
    };
    run(&mut flat.script(&["up"]));
    run(&mut routed.script(&["up", "--shape", "routed"]));
    for (lab, third) in [(&flat, "192.168.1.49"), (&routed, "192.168.2.49")] {
        for address in ["192.168.1.1", "192.168.1.47", "192.168.1.48", third] {
            for node in ["node1", "node2", "node3"] {
                lab.inside(node, &format!("ping -q -c1 -W5 {address}"));
            }
        }
    }
    let hops = |lab: &Lab, to| lab.inside("node1", &format!("ip route get {to}"));
    assert!(!hops(&flat, "192.168.1.49").contains("via"));
    assert!(hops(&routed, "192.168.2.49").contains("via 192.168.1.1 dev eth0"));

    run(&mut flat.script(&["down"]));
    assert!(flat.namespaces().is_empty());
    assert_eq!(routed.namespaces().len(), 4);
    run(&mut flat.script(&["down"]));
}

#[test]
fn containers_take_subnet_and_mtu_from_the_node() {
    let Some(lab) = Lab::named("container") else {
        return;
    };
    run(&mut lab.script(&["up"]));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("subnet.env");
    let container = || {
        let mut command = lab.script(&["container", "2"]);
        command.arg("--subnet-env").arg(&file);
        command
    };
    assert!(fails(&mut container()).contains("no such file"));
    fs::write(&file, "FLANNEL_SUBNET=100.96.2.1/24\n").unwrap();
    assert!(fails(&mut container()).contains("FLANNEL_MTU=1450"));
    fs::write(&file, "FLANNEL_SUBNET=100.96.2.1/24\nFLANNEL_MTU=1450\n").unwrap();
    assert!(fails(&mut container()).contains("node2 has no docker0"));

    lab.inside("node2", "ip link add docker0 type bridge");
    lab.inside("node2", "ip address add 100.96.2.1/24 dev docker0");
    lab.inside("node2", "ip link set docker0 up");
    assert_eq!(run(&mut container()), "100.96.2.2\n");
    lab.inside("c2", "ping -q -c1 -W5 192.168.1.48");
    for (name, link) in [("c2", "eth0"), ("node2", "veth-c2")] {
        let shown = lab.inside(name, &format!("ip link show {link}"));
        assert!(shown.contains(" mtu 1450 "), "{shown}");
    }
    assert!(fails(&mut container()).contains("container 2 is there"));
    assert_eq!(lab.namespaces().len(), 5);
}

#[test]
fn a_lab_that_fails_half_way_is_gone_and_one_that_stands_is_left_alone() {
    let Some(lab) = Lab::named("half") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let ip = folder.path().join("ip");
    let real = run(Command::new("sh").args(["-c", "command -v ip"]));
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *192.168.1.49*) exit 2 ;; esac\nexec {} \"$@\"\n",
        real.trim()
    );
    fs::write(&ip, script).unwrap();
    fs::set_permissions(&ip, fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", Path::new(&ip).parent().unwrap().display());
    fails(lab.script(&["up"]).env("PATH", path));
    assert!(lab.namespaces().is_empty(), "{:?}", lab.namespaces());

    run(&mut lab.script(&["up"]));
    assert!(fails(&mut lab.script(&["up"])).contains("exists"));
    assert_eq!(lab.namespaces().len(), 4);
}
