//! etcd is not there, goes away, loses our lease, or refuses us.

use std::time::Duration;
use std::{fs, thread};

use crate::VXLAN;
use crate::support::lab::{Lab, Shape};
use crate::support::node::Node;
use crate::support::process::until;

#[test]
fn it_waits_for_etcd_without_a_flood_of_words() {
    let Some(mut lab) = Lab::new(Shape::Flat) else {
        return;
    };
    let mut node = lab.node(1);
    node.start();
    node.wait_for_status(
        "waiting; datastore: listing the leases: etcd at http://192.168.1.1:2379: connection \
         refused; trying again",
    );
    thread::sleep(Duration::from_secs(5));
    assert!(node.log().lines().count() < 10, "{}", node.log());
    lab.start_etcd();
    lab.set_backend(VXLAN);
    node.wait_until_ready();
    node.wait_for_status("datastore ok");
}

#[test]
fn packets_flow_and_leases_stay_while_etcd_is_away() {
    let Some(mut lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let nodes = ready(&lab, [1, 2]);
    until("container 1 reaches container 2", || lab.reaches(1, 2));
    let rows = nodes.each_ref().map(Node::rows);
    let said = nodes.each_ref().map(|node| node.log().lines().count());
    let leases = ["100.96.1.0-24", "100.96.2.0-24"].map(|key| lab.lease(key).unwrap().value);
    let pings = lab.ping(1, 2);
    lab.kill_etcd();
    for node in &nodes {
        node.wait_for_status("1 of 1 peers, lease 23h59m, datastore: ");
        node.wait_for_status("etcd at http://192.168.1.1:2379: connection refused; trying again");
    }
    thread::sleep(Duration::from_secs(5));
    assert_eq!(nodes.each_ref().map(Node::rows), rows);
    lab.start_etcd();
    for (node, said) in nodes.iter().zip(said) {
        node.wait_for_status("datastore ok");
        let more = node.log().lines().count() - said;
        assert!(more < 10, "{more} lines: {}", node.log());
    }
    let tally = pings.finish();
    assert!(tally.lost.is_empty() && tally.sent > 400, "{tally:?}");
    assert_eq!(nodes.each_ref().map(Node::rows), rows);
    let now = ["100.96.1.0-24", "100.96.2.0-24"].map(|key| lab.lease(key).unwrap().value);
    assert_eq!(now, leases);
}

#[test]
fn a_wrong_password_is_told_but_not_shown() {
    const RIGHT: &str = "correct-horse";
    const WRONG: &str = "battery-staple";
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let mut node = lab.node(1);
    let password = node.folder().join("password");
    node.write_config_with_store(
        "",
        &format!(
            "[datastore]\nendpoints = [\"http://192.168.1.1:2379\"]\nusername = \"root\"\n\
             password-file = \"{}\"\n",
            password.display()
        ),
    );
    let daemon = ["daemon", "--config"].map(str::to_owned);
    let config = node.config().display().to_string();
    let (code, _, stderr) = node.program(&[&daemon[0], &daemon[1], &config]);
    assert_eq!(
        stderr,
        format!(
            "cannot read the password of etcd in {}: No such file or directory (os error 2)\n",
            password.display()
        )
    );
    assert_eq!(code, Some(78));

    lab.etcdctl(&["user", "add", &format!("root:{RIGHT}")]);
    lab.etcdctl(&["user", "grant-role", "root", "root"]);
    lab.etcdctl(&["auth", "enable"]);
    fs::write(&password, format!("{WRONG}\n")).unwrap();
    node.start();
    node.wait_for_status(
        "waiting; datastore: listing the leases: etcd at http://192.168.1.1:2379: \
         authentication failed, invalid user ID or password: check user name and password",
    );
    thread::sleep(Duration::from_secs(2));
    let log = node.log();
    assert!(
        !log.contains(WRONG) && !node.status_line().contains(WRONG),
        "{log}"
    );
    assert!(log.lines().count() < 10, "{log}");
    node.kill();
    fs::write(&password, format!("{RIGHT}\n")).unwrap();
    node.start();
    node.wait_until_ready();
    assert!(!node.log().contains(RIGHT), "{}", node.log());
}

#[test]
fn a_user_who_may_only_read_is_told_what_it_may_not() {
    let Some(mut lab) = Lab::new(Shape::Flat) else {
        return;
    };
    lab.start_etcd();
    for command in [
        "user add root:root",
        "user grant-role root root",
        "user add reader:reader",
        "role add reader",
        "role grant-permission reader read --prefix=true /coreos.com/network/",
        "user grant-role reader reader",
        "auth enable",
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        lab.etcdctl(&words);
    }
    let mut node = lab.node(1);
    let password = node.folder().join("password");
    fs::write(&password, "reader\n").unwrap();
    let datastore = format!(
        "[datastore]\nendpoints = [\"http://192.168.1.1:2379\"]\nusername = \"reader\"\n\
         password-file = \"{}\"\n",
        password.display()
    );
    let network = "[network]\nnetwork = \"100.96.0.0/16\"\n[network.backend]\ntype = \"vxlan\"\n";
    node.write_config_with_store(network, &datastore);
    node.start();
    let denied =
        "etcd at http://192.168.1.1:2379: permission denied: the user may not use the prefix";
    let line = node.wait_for_status(denied);
    assert!(line.starts_with("waiting; network-config: "), "{line}");
    thread::sleep(Duration::from_secs(3));
    assert!(node.log().lines().count() < 10, "{}", node.log());
    let root = ["--user=root:root", "put", "/coreos.com/network/config"];
    let json = r#"{"Network":"100.96.0.0/16","Backend":{"Type":"vxlan"}}"#;
    lab.etcdctl(&[root[0], root[1], root[2], json]);
    let line = node.wait_for_status("waiting; lease: ");
    assert!(line.contains(denied), "{line}");
    let grant = "--user=root:root role grant-permission reader readwrite --prefix=true /coreos.com/network/";
    lab.etcdctl(&grant.split(' ').collect::<Vec<_>>());
    node.wait_until_ready();
}

#[test]
fn tls_mistakes_are_told_in_one_line() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let mut node = lab.node(1);
    let datastore = "[datastore]\nendpoints = [\"https://192.168.1.1:2379\"]\n";
    node.write_config_with_store("", datastore);
    node.start();
    node.wait_for_status(
        "waiting; datastore: listing the leases: etcd at https://192.168.1.1:2379: it does not \
         speak TLS: write http://",
    );
    assert!(node.is_running());
    node.kill();

    let ca = node.folder().join("ca.pem");
    node.write_config_with_store("", &format!("{datastore}ca-file = \"{}\"\n", ca.display()));
    let config = node.config().display().to_string();
    for text in [None, Some("no certificate\n")] {
        if let Some(text) = text {
            fs::write(&ca, text).unwrap();
        }
        let (code, _, stderr) = node.program(&["daemon", "--config", &config]);
        assert!(stderr.contains(ca.to_str().unwrap()), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert_eq!(code, Some(78));
    }
}

/// Nodes that are ready, with a container each.
fn ready<const N: usize>(lab: &Lab, numbers: [u32; N]) -> [Node; N] {
    let mut nodes = numbers.map(|number| lab.node(number));
    for node in &mut nodes {
        node.start();
        node.wait_until_ready();
        lab.container(node);
    }
    for node in &nodes {
        node.wait_for_status(&format!("{0} of {0} peers", N - 1));
    }
    nodes
}
